"""The exact posterior of an `LMM`: h2 by quadrature, all else given h2, without Markov chains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.model.trees import data_groups, in_chains
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.quadrature import UnitDensity, unit_density
from bayeslmm.priors import H2Prior
from bayeslmm.runs.provenance import fresh_seed, provenance

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.model.lmm import LMM


def h2_density(
    data: likelihood.Rotated, prior: H2Prior, s2_prior: tuple[float, float] = (0.0, 0.0)
) -> UnitDensity:
    """The posterior of h2; `s2_prior` as in `LMM.h2_posterior`."""

    def loglik(h2: np.ndarray) -> np.ndarray:
        return likelihood.integrated_loglik(data, h2, prior_df=s2_prior[0], prior_scale=s2_prior[1])

    return unit_density(
        lambda h2: loglik(h2) + prior.log_density(h2),
        mass_at_0=prior.spike,
        log_at_0=float(loglik(np.zeros(1))[0]),
    )


def draw(
    data: likelihood.Rotated,
    density: UnitDensity | None,
    draws: int,
    rng: np.random.Generator,
    s2_prior: tuple[float, float] = (0.0, 0.0),
) -> dict[str, np.ndarray]:
    """Draws of h2, s2_g, s2_e, s2, shape (draws,), and b (draws, c).

    `density` is the posterior of h2; None without kernel, where h2 is 0.
    """
    h2 = np.zeros(draws) if density is None else density.draw(draws, rng)
    Q, b, L = _conditionals_at(data, density, h2)
    total = data.df + s2_prior[0]
    s2 = (Q + s2_prior[0] * s2_prior[1]) / rng.chisquare(total, size=draws)
    noise = rng.standard_normal((draws, data.C.shape[1], 1))
    shift = np.linalg.solve(np.swapaxes(L, 1, 2), noise)[..., 0]
    orthonormal = b + np.sqrt(s2)[:, None] * shift
    return {
        "h2": h2,
        "s2_g": s2 * h2 / data.kappa,
        "s2_e": s2 * (1 - h2),
        "s2": s2,
        "b": data.b_ols + orthonormal @ data.to_covariates.T,
    }


def posterior(
    model: LMM,
    draws: int,
    *,
    u: bool,
    s2_prior: tuple[float, float],
    seed: int | np.random.Generator | None,
) -> xr.DataTree:
    """Draws as a DataTree, with u on request; see `LMM.posterior`."""
    if draws < 1:
        raise InputError(f"At least one draw is needed, but draws={draws}.")
    if seed is None:
        seed = fresh_seed()
    density = None if model.basis is None else model.h2_posterior(s2_prior=s2_prior)
    rng = np.random.default_rng(seed)
    values = draw(model.rotated, density, draws, rng, s2_prior)
    attrs = _attrs(model, density, s2_prior, seed)
    tree = _tree(model, values, attrs)
    if not u:
        return tree
    from bayeslmm.model.conditional import Conditional
    from bayeslmm.model.snps import selected_snps

    given = Conditional(model, tree["posterior"].dataset, selected_snps(model, None))
    return _tree(model, values | {"u": given.draw_u(rng)}, attrs)


def _conditionals_at(
    data: likelihood.Rotated, density: UnitDensity | None, h2: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q (N,), b (N, c) and L (N, c, c) of the likelihood at draws of h2, shape (N,).

    Many draws are interpolated from the quadrature's nodes, where these are smooth; draws at
    exactly 0 (a point mass) are evaluated.
    """
    if density is None or len(h2) <= len(density.x):
        t = likelihood.terms(data, h2)
        return t.Q, t.b, t.L
    c = data.C.shape[1]

    def columns(at: np.ndarray) -> np.ndarray:
        t = likelihood.terms(data, at)
        return np.column_stack([np.log(t.Q), t.b, t.L.reshape(-1, c * c)])

    found = density.interpolate(columns(density.x), h2)
    if (h2 == 0).any():
        found[h2 == 0] = columns(np.zeros(1))
    return np.exp(found[:, 0]), found[:, 1 : 1 + c], found[:, 1 + c :].reshape(-1, c, c)


def _attrs(
    model: LMM, density: UnitDensity | None, s2_prior: tuple[float, float], seed: Any
) -> dict[str, Any]:
    """What the draws are of, and what quadrature knows of them without error."""
    known: dict[str, Any] = provenance() | {
        "formula": model.formula,
        "n": len(model.y),
        "kappa": model.rotated.kappa,
        "h2_prior": repr(model.h2_prior) if density is not None else "h2 = 0",
        "s2_prior": "1/s2" if s2_prior[0] == 0 else f"scaled-inv-chi2{s2_prior}",
        "seed": int(seed) if isinstance(seed, int | np.integer) else "a caller's Generator",
        "sampler": "independent draws from the exact posterior",
    }
    if density is None:
        loglik = likelihood.integrated_loglik(
            model.rotated, np.zeros(1), prior_df=s2_prior[0], prior_scale=s2_prior[1]
        )
        return known | {"log_marginal_likelihood": float(loglik[0])}
    from bayeslmm.model.heritability import is_two_valued

    low, high = density.hdi(0.95)
    known |= {
        "h2_scale": "observed scale" if is_two_valued(model.y) else "of the phenotype",
        "log_marginal_likelihood": density.log_integral,
        "h2_mean": density.mean,
        "h2_sd": density.sd,
        "h2_hdi95": [low, high],
    }
    if model.h2_prior.spike:
        known["p_h2_zero"] = density.mass_at_0
    return known


def _tree(model: LMM, values: dict[str, np.ndarray], attrs: dict[str, Any]) -> xr.DataTree:
    """Draws with named dimensions, beside the data."""
    import xarray as xr

    dims = {"b": ["covariate"], "u": ["sample"]}
    coords = {"covariate": list(model.C.columns), "sample": list(model.ids)}
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=attrs),
            "posterior": in_chains(values, dims, coords, attrs),
            **data_groups(model),
        }
    )
