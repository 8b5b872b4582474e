r"""The bivariate model as PyMC code: to read, to sample, to change.

    h2_t ~ Uniform(0, 1),   sd_t ~ HalfStudentT(4, sd(y_t)),   rg, re ~ Uniform(-1, 1)
    b_t ~ Normal(0, 10 sd(y_t) / sd(C_t))
    G_tt' = rg_tt' sd_t sd_t' sqrt(h2_t h2_t') / kappa,   rg_tt' = 1 if t = t', else rg
    R_tt' = re_tt' sd_t sd_t' sqrt((1 - h2_t) (1 - h2_t'))
    y_t = C_t b_t + u_t + e_t,   cov(u_t, u_t') = G_tt' K,   cov(e_t, e_t') = R_tt' I

In the form ``eigenbasis`` u is integrated out: each eigenvector has a pair of numbers with
covariance S_i G + R, written as y_1 and y_2 given y_1. In the form ``explicit`` u is a variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayeslmm.bases.basis import dense_vectors
from bayeslmm.errors import InputError, listing
from bayeslmm.generative.eigen import ModelData, h2_variable, model_data, prior_variable
from bayeslmm.model.snps import selected_snps
from bayeslmm.priors import CorrelationPrior

if TYPE_CHECKING:
    import pymc as pm

    from bayeslmm.bivariate.model import BivariateLMM

FORMS = ("eigenbasis", "explicit")


def pymc_model(pair: BivariateLMM, form: str, *, priors: Mapping[str, Any]) -> pm.Model:
    """The bivariate model as a `pymc.Model` (see `BivariateLMM.pymc_model`)."""
    import pymc as pm

    if form not in FORMS:
        raise InputError(f"parameterization='{form}' is unknown; expected one of {listing(FORMS)}.")
    known = [
        "rg",
        "re",
        *(f"{name}_{trait}" for name in ("h2", "sd", "b") for trait in pair.traits),
    ]
    unknown = set(priors) - set(known)
    if unknown:
        raise InputError(
            f"Priors for {listing(sorted(unknown))}: no such variable. There are "
            f"{listing(known, 20)}."
        )
    if form == "eigenbasis" and pair.n_both < len(pair.ids):
        raise InputError(
            "With phenotypes missing, pairs are not independent on the eigenbasis: use "
            "pymc_model('explicit')."
        )
    datas = [model_data(table, selected_snps(table, None)) for table in pair.regressions]
    coords: dict[str, Any] = {
        "trait": list(pair.traits),
        "eigenvector": np.arange(pair.basis.n),
        **{f"covariate_{t}": d.covariates for t, d in zip(pair.traits, datas, strict=True)},
    }
    if form == "explicit":
        coords["sample"] = list(pair.ids)
    with pm.Model(coords=coords) as model:
        S = pm.Data("S", np.asarray(pair.basis.values), dims="eigenvector")
        kappa = pm.Data("kappa", pair.basis.kappa)
        parts = _covariances(pair, datas, kappa, priors)
        b = [_effects(t, d, priors) for t, d in zip(pair.traits, datas, strict=True)]
        if form == "eigenbasis":
            _rotated_traits(pair, datas, parts, b, S)
        else:
            _traits_given_u(pair, datas, parts, b, S)
    return model


class _Covariances(NamedTuple):
    """Variances of either trait, genetic and residual, and what the traits share of them."""

    s2_g: Any
    s2_e: Any
    cov_g: Any
    cov_e: Any
    rg: Any


def _covariances(
    pair: BivariateLMM, datas: list[ModelData], kappa: Any, priors: Mapping[str, Any]
) -> _Covariances:
    """From h2 and sd of either trait, and the two correlations."""
    import pymc as pm
    import pytensor.tensor as pt

    h2_prior = dict(zip(pair.traits, pair.prior.h2, strict=True))
    sd_y = {trait: d.sd_y for trait, d in zip(pair.traits, datas, strict=True)}

    def h2_of(name: str) -> Any:
        return h2_variable(name, h2_prior[name.removeprefix("h2_")])

    def sd_of(name: str) -> Any:
        return pm.HalfStudentT(name, nu=4, sigma=sd_y[name.removeprefix("sd_")])

    h2 = pt.stack([prior_variable(f"h2_{trait}", priors, h2_of) for trait in pair.traits])
    sd = pt.stack([prior_variable(f"sd_{trait}", priors, sd_of) for trait in pair.traits])
    rg = prior_variable("rg", priors, lambda name: _correlation(name, pair.prior.rg))
    re = prior_variable("re", priors, lambda name: _correlation(name, pair.prior.re))
    pm.Deterministic("h2", h2, dims="trait")
    s2 = pm.Deterministic("s2", sd**2, dims="trait")
    s2_g = pm.Deterministic("s2_g", s2 * h2 / kappa, dims="trait")
    s2_e = pm.Deterministic("s2_e", s2 * (1 - h2), dims="trait")
    cov_g = pm.Deterministic("cov_g", rg * pt.sqrt(pt.prod(s2_g)))
    cov_e = pm.Deterministic("cov_e", re * pt.sqrt(pt.prod(s2_e)))
    return _Covariances(s2_g, s2_e, cov_g, cov_e, rg)


def _rotated_traits(
    pair: BivariateLMM, datas: list[ModelData], parts: _Covariances, b: list[Any], S: Any
) -> None:
    """Both traits on the eigenbasis, the second given the first, u integrated out."""
    import pymc as pm
    import pytensor.tensor as pt

    basis, rows, (one, two) = pair.basis, "eigenvector", pair.traits
    C = [
        pm.Data(f"C_{t}", basis.rotate(d.C), dims=(rows, f"covariate_{t}"))
        for t, d in zip(pair.traits, datas, strict=True)
    ]
    y = [
        pm.Data(f"y_{t}_obs", basis.rotate(d.y), dims=rows)
        for t, d in zip(pair.traits, datas, strict=True)
    ]
    mean = [pt.dot(C[t], b[t]) for t in (0, 1)]
    variance = [parts.s2_g[t] * S + parts.s2_e[t] for t in (0, 1)]
    covariance = parts.cov_g * S + parts.cov_e
    slope = covariance / variance[0]
    pm.Normal(f"y_{one}", mean[0], pt.sqrt(variance[0]), observed=y[0], dims=rows)
    pm.Normal(
        f"y_{two}",
        mean[1] + slope * (y[0] - mean[0]),
        pt.sqrt(variance[1] - slope * covariance),
        observed=y[1],
        dims=rows,
    )


def _traits_given_u(
    pair: BivariateLMM, datas: list[ModelData], parts: _Covariances, b: list[Any], S: Any
) -> None:
    """Both traits as they are, u of both a variable; some samples may lack a trait."""
    import pymc as pm
    import pytensor.tensor as pt

    (one, two), (s2_g, s2_e, _, cov_e, rg) = pair.traits, parts
    # u of both traits: independent z, correlated over traits by rg, over relatives by U.
    U = pm.Data("U", dense_vectors(pair.basis, "The explicit form"), dims=("sample", "eigenvector"))
    z = pm.Normal("z", dims=("eigenvector", "trait"))
    z_two = rg * z[:, 0] + pt.sqrt(1 - rg**2) * z[:, 1]
    correlated = pt.stack([z[:, 0], z_two], axis=1)
    u = pm.Deterministic(
        "u",
        pt.dot(U, pt.sqrt(S)[:, None] * correlated) * pt.sqrt(s2_g),
        dims=("sample", "trait"),
    )
    at = [pair.ids.get_indexer(d.samples) for d in datas]
    mean = [pt.dot(d.C, b[t]) + u[at[t], t] for t, d in enumerate(datas)]
    pm.Normal(f"y_{one}", mean[0], pt.sqrt(s2_e[0]), observed=datas[0].y)
    # Trait 2 given the residual of trait 1, where that was measured.
    both = np.isin(at[1], at[0])
    partner = np.searchsorted(at[0], at[1][both])
    residual = datas[0].y[partner] - mean[0][partner]
    slope = cov_e / s2_e[0]
    pm.Normal(
        f"y_{two}",
        mean[1][np.flatnonzero(both)] + slope * residual,
        pt.sqrt(s2_e[1] - slope * cov_e),
        observed=datas[1].y[both],
    )
    if not both.all():
        pm.Normal(
            f"y_{two}_alone",
            mean[1][np.flatnonzero(~both)],
            pt.sqrt(s2_e[1]),
            observed=datas[1].y[~both],
        )


def _correlation(name: str, prior: CorrelationPrior) -> Any:
    import pymc as pm

    if prior.eta == 1:
        return pm.Uniform(name, -1, 1)
    return pm.Deterministic(name, 2 * pm.Beta(f"{name}_unit", prior.eta, prior.eta) - 1)


def _effects(trait: str, data: ModelData, priors: Mapping[str, Any]) -> Any:
    """b of the centred covariates; registers ``b_<trait>``, that of the covariates as they are."""
    import pymc as pm
    import pytensor.tensor as pt

    name, dims = f"b_{trait}", f"covariate_{trait}"
    if name in priors:
        b = prior_variable(name, priors, dims=dims)
        return b + (pt.dot(data.C_mean, b) - data.y_mean) * data.constant
    b = pm.Normal(f"{name}_std", 0, 10, dims=dims) * data.sd_y / data.C_scale
    raw = b + (data.y_mean - pt.dot(data.C_mean, b)) * data.constant
    pm.Deterministic(name, raw, dims=dims)
    return b
