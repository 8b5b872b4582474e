"""Models of the same phenotype compared: exact leave-one-out, and marginal likelihoods."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import lgamma, log, pi
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.model.conditional import Conditional
from bayeslmm.model.leave_out import group_labels, leave_out
from bayeslmm.model.lmm import LMM
from bayeslmm.model.snps import selected_snps
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.quadrature import unit_density
from bayeslmm.runs.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr
    from arviz_stats.utils import ELPDData

type Refit = tuple[LMM, Callable[[LMM], xr.DataTree]]
type Groups = pd.Series | Iterable[Any] | int | None
_LN10 = log(10)
# Squared cosine of an angle between two designs from which on a direction is common.
_COMMON = 1 - 1e-9
# Differences of elpd below this are small whatever their standard error (Sivula et al. 2025).
_SMALL = 4.0
_WEIGHTS = ("stacking", "pseudo-BMA", "BB-pseudo-BMA")


def compare(
    models: Mapping[str, LMM | xr.DataTree],
    *,
    groups: Groups = None,
    joint: bool = True,
    reference: str | None = None,
    prior_probs: Mapping[str, float] | None = None,
    covariate_prior: Literal["flat", "unit_information"] = "flat",
    weights: str = "stacking",
    refit: Mapping[str, Refit] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Compare models of one phenotype by what they predict, and by Bayes factors.

    Two different questions. *elpd*, the expected log predictive density, asks which model
    predicts a sample best that it has not seen, given all others; it is exact for an
    `LMM` (one- or few-dimensional quadrature, no refit, no importance sampling). The
    *marginal likelihood* asks under which model, priors included, the data were most
    probable.

    Parameters
    ----------
    models : mapping of str to LMM or DataTree
        At least two models of the same phenotype of the same samples. A DataTree holds
        draws of `LMM.sample`; its leave-one-out is estimated by Pareto-smoothed
        importance sampling (PSIS), and it has no marginal likelihood.
    groups : None, Series, array (n,) or int, optional
        What is left out at a time: one sample (None); all samples of a group, from
        labels by sample id (a Series) or in the order of the first model's samples;
        or a random one of so many folds. Relatives predict each other: to ask how a
        model predicts new families, leave out families. LMMs only.
    joint : bool
        How a group is scored: by the joint density of its members (a model gains from
        their correlation, too), or by the sum of the log densities of each member given
        the other groups only.
    reference : str, optional
        Name of the model that `elpd_diff` and `log10_bf` refer to; by default the one
        with the highest elpd.
    prior_probs : mapping of str to float, optional
        Prior probabilities of the models, up to a constant; by default equal.
    covariate_prior : {"flat", "unit_information"}
        Prior on the covariates' effects in the marginal likelihood. Flat priors have no
        scale, and with different covariates their Bayes factor no meaning: it is NA
        then. The unit-information prior keeps the covariates that all models share flat
        and gives the rest, orthogonal to them, N(0, n s2 (X'X)^-1).
    weights : {"stacking", "pseudo-BMA", "BB-pseudo-BMA"}
        How `weight` is found.
    refit : mapping of str to (LMM, callable), optional
        For models that are draws: their LMM, and what samples from such a model, as
        ``(lmm, lambda model: model.sample(snps=...))``. Samples too influential for
        PSIS are then left out in earnest, one sampling each: the model given has an
        effect of its own for that sample, which is to be without it.
    seed : int
        For random folds.

    Returns
    -------
    DataFrame
        One row per model, best elpd first; what `az.plot_compare` expects. ArviZ's
        columns: rank, elpd_diff (to the reference), dse (its standard error), p_worse
        (p_better with a reference), diag_diff and diag_elpd (reservations), p (effective
        number of parameters), elpd (natural log units), se, weight. Then log_ml (natural
        log), log10_bf (against the reference), prob (posterior probability), and
        max_pareto_k (NaN where the computation is exact). ``attrs``: verdict (a
        paragraph in words), bayes_factors (their prior, or why there are none), priors,
        left_out, reference, bf_reference, prior_probs, high_pareto_k (samples for which
        PSIS is not to be trusted), refitted, and provenance.

    Raises
    ------
    InputError
        For fewer than two models, other samples or another phenotype, an unknown
        reference, draws without log-likelihood, and groups that leave a covariate's
        effect unknown.

    References
    ----------
    Vehtari A, Gelman A, Gabry J (2017). Practical Bayesian model evaluation using leave-one-out
    cross-validation and WAIC. Stat Comput 27:1413. doi:10.1007/s11222-016-9696-4
    Bürkner P-C, Gabry J, Vehtari A (2021). Efficient leave-one-out cross-validation for
    Bayesian non-factorized normal and Student-t models. Comput Stat 36:1243.
    doi:10.1007/s00180-020-01045-4
    Yao Y et al. (2018). Using stacking to average Bayesian predictive distributions. Bayesian
    Anal 13:917. doi:10.1214/17-BA1091
    Sivula T et al. (2025). Uncertainty in Bayesian leave-one-out cross-validation based model
    comparison. Bayesian Anal. doi:10.1214/25-BA1569

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> x = rng.integers(0, 3, size=(200, 500))
    >>> u = (x - x.mean(0)) @ rng.normal(size=500)
    >>> lmm = bl.LMM(u / u.std() + rng.normal(size=200), kernel=bl.grm(x))
    >>> table = bl.compare({"genetics": lmm, "none": lmm.without_kernel()})
    >>> table[["elpd_diff", "dse", "log10_bf"]].round(1)
              elpd_diff  dse  log10_bf
    genetics        0.0  0.0       0.0
    none          -11.0  4.4      -1.9
    """
    import arviz_stats

    _check_choices(models, reference, prior_probs, covariate_prior, weights)
    unknown = [name for name in refit or {} if isinstance(models.get(name), LMM | None)]
    if unknown:
        raise InputError(
            f"refit names {listing(unknown)}: no model of draws has this name. An LMM is exact, "
            "and needs none."
        )
    ids = _common_samples(models)
    labels = _labels(groups, ids, seed)
    found = {name: _elpd(name, model, labels, ids, joint) for name, model in models.items()}
    again = {name: _high_k(found[name]) for name in refit or {}}
    for name, (model, sample) in (refit or {}).items():
        found[name] = _refitted(found[name], model, sample, again[name])
    table = arviz_stats.compare(found, method="pseudo-BMA", reference=reference, round_to="none")
    table["weight"] = _weights(found, weights).reindex(table.index)
    against = str(table.index[0]) if reference is None else reference
    bf_against = _with_marginal(models, table.index) if reference is None else reference
    log_ml, why = _log_marginals(models, bf_against, covariate_prior)
    table["log_ml"] = pd.Series(log_ml, dtype=np.float64).reindex(table.index)
    table["log10_bf"] = (table["log_ml"] - table["log_ml"][bf_against]) / _LN10
    table["prob"] = _probabilities(table["log_ml"], prior_probs)
    k = {
        name: np.nan if one.pareto_k is None else float(one.pareto_k.max(skipna=True))
        for name, one in found.items()
    }
    table["max_pareto_k"] = pd.Series(k).reindex(table.index)
    left_out = "one sample"
    if labels is not None:
        left_out = f"one of {labels.nunique():,} groups of samples"
        left_out += ", scored jointly" if joint else ", each member scored"
    table.attrs = provenance() | {
        "left_out": left_out,
        "seed": seed if isinstance(groups, int | np.integer) else "not used",
        "reference": against,
        "bf_reference": bf_against,
        "prior_probs": "equal" if prior_probs is None else dict(prior_probs),
        "bayes_factors": why,
        "priors": {name: _prior_in_words(model) for name, model in models.items()},
        "high_pareto_k": {name: ids for name, one in found.items() if (ids := _high_k(one))},
        "refitted": {name: samples for name, samples in again.items() if samples},
    }
    table.attrs["verdict"] = _verdict(table)
    return table


def loo(model: LMM, groups: Groups = None, *, joint: bool = True, seed: int = 0) -> ELPDData:
    """Exact leave-one-out or leave-group-out of one model (see `LMM.loo`)."""
    return _exact(model, _labels(groups, model.ids, seed), joint)


# -- what is compared ----------------------------------------------------------------------


def _check_choices(
    models: Mapping[str, Any],
    reference: str | None,
    prior_probs: Mapping[str, float] | None,
    covariate_prior: str,
    weights: str,
) -> None:
    if not isinstance(models, Mapping) or len(models) < 2:
        raise InputError(
            "A comparison needs at least two models by name: "
            "bl.compare({'genetics': lmm, 'none': lmm.without_kernel()})."
        )
    if reference is not None and reference not in models:
        raise InputError(
            f"No model is called '{reference}'; reference must be one of {listing(models, 20)}."
        )
    if covariate_prior not in ("flat", "unit_information"):
        raise InputError(
            f"covariate_prior='{covariate_prior}' is unknown; expected 'flat' or "
            "'unit_information'."
        )
    if weights not in _WEIGHTS:
        raise InputError(f"weights='{weights}' is unknown; expected one of {listing(_WEIGHTS)}.")
    if prior_probs is not None:
        values = np.array([prior_probs.get(name, np.nan) for name in models], dtype=np.float64)
        if set(prior_probs) != set(models) or not (np.isfinite(values) & (values > 0)).all():
            raise InputError(
                "prior_probs must give each model, and no other, a number above 0: "
                f"{listing(models, 20)}."
            )


def _common_samples(models: Mapping[str, Any]) -> pd.Index:
    """Sample ids of the first model, once all have the same and the same phenotype."""
    first, expected = "", pd.Series(dtype=np.float64)
    for name, model in models.items():
        y = _phenotype(name, model)
        if not first:
            first, expected = name, y
            continue
        extra, absent = y.index.difference(expected.index), expected.index.difference(y.index)
        if len(extra) or len(absent):
            many = f"{len(y):,} samples, '{first}' {len(expected):,}"
            raise InputError(
                f"Model '{name}' has {many}; only one of the two has {listing([*extra, *absent])}. "
                "Models are compared on the same samples: leave out of the table those that lack "
                "a phenotype, a covariate or genotypes in any of them."
            )
        gap = (y.reindex(expected.index) - expected).abs().to_numpy()
        if gap.max() > 1e-8 * expected.abs().max():
            raise InputError(
                f"Models '{first}' and '{name}' have different phenotypes (sample "
                f"'{expected.index[int(gap.argmax())]}' first). Only models of the same values "
                "can be compared: no other transformation, no other trait."
            )
    return expected.index


def _phenotype(name: str, model: Any) -> pd.Series:
    if isinstance(model, LMM):
        return pd.Series(model.y, model.ids)
    if "observed_data" not in getattr(model, "children", {}):
        raise InputError(
            f"Model '{name}' is a {type(model).__name__}; expected an LMM, or the DataTree of "
            "lmm.sample()."
        )
    y = model["observed_data"]["y"]
    return pd.Series(y.to_numpy(), y["sample"].to_numpy().astype(str))


def _labels(groups: Groups, ids: pd.Index, seed: int) -> pd.Series | None:
    """The group of each sample, as text; None to leave out one at a time."""
    if groups is None:
        return None
    n = len(ids)
    if isinstance(groups, int | np.integer):
        if not 2 <= groups <= n:
            raise InputError(f"groups={groups}: folds must be between 2 and {n:,}, the samples.")
        fold = np.random.default_rng(seed).permutation(n) % groups
        return pd.Series(fold, ids).astype(str)
    labels = group_labels(groups, ids)
    if labels.nunique() < 2:
        raise InputError("groups has one label only: nothing would be left to learn from.")
    return labels


# -- expected log predictive density -------------------------------------------------------


def _elpd(name: str, model: Any, labels: pd.Series | None, ids: pd.Index, joint: bool) -> ELPDData:
    """Pointwise results in the order of the first model's samples, or of the groups' names."""
    if isinstance(model, LMM):
        found = _exact(model, labels, joint)
    else:
        if labels is not None:
            raise InputError(
                f"Groups are left out of LMMs, which is exact; model '{name}' is draws. Give the "
                "LMM itself, or leave out one sample at a time (groups=None)."
            )
        found = _psis(name, model)
    if labels is not None:
        return found
    known = {"elpd_i": found.elpd_i.sel(sample=list(ids))}
    if found.pareto_k is not None:
        known["pareto_k"] = found.pareto_k.sel(sample=list(ids))
    return replace(found, **known)


def _exact(model: LMM, labels: pd.Series | None, joint: bool) -> ELPDData:
    import xarray as xr
    from arviz_stats import ELPDDataLOO, ELPDDataLOOKFold

    blocks, names, dim = None, list(model.ids), "sample"
    if labels is not None:
        groups, codes = np.unique(labels.reindex(model.ids).to_numpy(), return_inverse=True)
        order = np.argsort(codes, kind="stable")
        blocks = np.split(order, np.cumsum(np.bincount(codes))[:-1])
        names, dim = list(groups), "group"
    out = leave_out(
        model.rotated, model.basis, model.h2_prior, list(model.ids), blocks, joint=joint
    )
    N = len(out.elpd)
    known: dict[str, Any] = {
        "elpd": float(out.elpd.sum()),
        "se": float(np.sqrt(N * np.var(out.elpd))),
        "p": float((out.lpd - out.elpd).sum()),
        "n_samples": out.nodes,
        "n_data_points": N,
        "scale": "log",
        "warning": False,
        "good_k": None,
        "elpd_i": xr.DataArray(out.elpd, {dim: names}, (dim,)),
    }
    return ELPDDataLOO(**known) if blocks is None else ELPDDataLOOKFold(**known, n_folds=N)


def _psis(name: str, tree: xr.DataTree) -> ELPDData:
    import arviz_stats

    if "log_likelihood" not in tree.children:
        raise InputError(
            f"The draws of model '{name}' have no log_likelihood group. Sample with "
            "log_likelihood=True; or give the LMM itself, for which leave-one-out is exact."
        )
    with warnings.catch_warnings():
        # Said in the table, with the samples' names.
        warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto", UserWarning)
        return arviz_stats.loo(tree, var_name="y", pointwise=True)


def _refitted(
    found: ELPDData, model: LMM, sample: Callable[[LMM], xr.DataTree], samples: list[str]
) -> ELPDData:
    """The same with some samples left out by sampling again.

    An effect of its own, as wide as the covariates' prior, makes a sample say nothing about
    the rest. Given each draw, the others predict it as in `bayeslmm.model.conditional`.
    """
    elpd_i, pareto_k = found.elpd_i.copy(), found.pareto_k.copy()
    for name in samples:
        own = pd.Series((model.ids == name).astype(float), model.ids, name="left_out")
        tree = sample(model.with_covariates(own))
        draws = tree["posterior"].dataset.isel(covariate=slice(0, -1))
        data = tree["constant_data"].dataset
        snps = selected_snps(model, None)
        if "X" in data:
            columns = {"ids": list(data.snp.to_numpy()), "x": data.X.to_numpy()}
            snps = replace(snps, **columns)
        position = int(model.ids.get_loc(name))
        values = Conditional(model, draws, snps).log_likelihood()[:, position]
        elpd_i.loc[{"sample": name}] = np.logaddexp.reduce(values) - np.log(len(values))
        pareto_k.loc[{"sample": name}] = np.nan
    gained = float((elpd_i - found.elpd_i).sum())
    return replace(
        found,
        elpd_i=elpd_i,
        pareto_k=pareto_k,
        elpd=found.elpd + gained,
        p=found.p - gained,
        se=float(np.sqrt(elpd_i.size * np.var(elpd_i.to_numpy()))),
        warning=False,
    )


def _weights(found: Mapping[str, ELPDData], weights: str) -> pd.Series:
    """Model weights; densities of whole groups would underflow in ArviZ.

    What is common to all models does not change them: the highest density of each group is 1.
    """
    import arviz_stats

    highest = np.max([one.elpd_i.to_numpy() for one in found.values()], axis=0)
    shifted = {
        name: replace(one, elpd_i=np.maximum(one.elpd_i - highest, -700.0))
        for name, one in found.items()
    }
    return arviz_stats.compare(shifted, method=weights, round_to="none")["weight"]


def _high_k(found: ELPDData) -> list[str]:
    """Samples for which importance sampling is not to be trusted."""
    if found.pareto_k is None:
        return []
    high = found.pareto_k.to_numpy() > found.good_k
    return [str(sample) for sample in found.pareto_k["sample"].to_numpy()[high]]


# -- marginal likelihoods ------------------------------------------------------------------


def _with_marginal(models: Mapping[str, Any], ranked: pd.Index) -> str:
    """The best model that has a marginal likelihood, or the best of all if none has."""
    lmms = [str(name) for name in ranked if isinstance(models[name], LMM)]
    return lmms[0] if lmms else str(ranked[0])


def _log_marginals(
    models: Mapping[str, Any], against: str, covariate_prior: str
) -> tuple[dict[str, float], str]:
    """Log marginal likelihoods that may be compared with one model's, and what they assume."""
    lmms = {name: model for name, model in models.items() if isinstance(model, LMM)}
    if against not in lmms:
        return {}, f"none: '{against}' is draws, which have no marginal likelihood"
    draws = [name for name in models if name not in lmms]
    and_draws = f"; none for draws ({listing(draws)})" if draws else ""
    if covariate_prior == "unit_information":
        ids = lmms[against].ids
        designs = {name: _orthonormal(model, ids) for name, model in lmms.items()}
        common = _intersection(list(designs.values()))
        values = {
            name: _unit_information(model, common, designs[name], ids)
            for name, model in lmms.items()
        }
        return values, (
            f"covariates that all models share ({common.shape[1]} dimensions) flat, the others, "
            f"orthogonal to these, N(0, n s2 (X'X)^-1), n = {len(ids):,} (unit information); "
            "p(s2) ~ 1/s2" + and_draws
        )
    ids = lmms[against].ids
    design = _orthonormal(lmms[against], ids)
    same = [name for name, model in lmms.items() if _same_space(design, _orthonormal(model, ids))]
    values = {name: log_marginal(lmms[name]) for name in same}
    others = [name for name in lmms if name not in same]
    if not others:
        return values, "covariates, the same in all models, flat; p(s2) ~ 1/s2" + and_draws
    return values, (
        f"none for {listing(others, 20)}: their covariates are not those of '{against}', and "
        "under flat priors the Bayes factor would depend on the covariates' units. Use elpd, or "
        "covariate_prior='unit_information'" + and_draws
    )


def log_marginal(model: LMM) -> float:
    """log p(y) of a model, flat covariates and 1/s2 (`likelihood.integrated_loglik`)."""
    if model.basis is None:
        return float(likelihood.integrated_loglik(model.rotated, np.zeros(1))[0])
    return model.h2_posterior().log_integral


def _orthonormal(model: LMM, ids: pd.Index) -> np.ndarray:
    """Orthonormal basis of the covariates, rows in the order of ids, shape (n, c)."""
    C = model.C.loc[ids].to_numpy(dtype=np.float64)
    return np.linalg.qr(C / np.linalg.norm(C, axis=0))[0] if C.shape[1] else C


def _same_space(Q1: np.ndarray, Q2: np.ndarray) -> bool:
    return Q1.shape == Q2.shape == _intersection([Q1, Q2]).shape


def _intersection(designs: list[np.ndarray]) -> np.ndarray:
    """Orthonormal basis of what all column spaces share, shape (n, c)."""
    common = designs[0]
    for Q in designs[1:]:
        left, cosines, _ = np.linalg.svd(common.T @ Q, full_matrices=False)
        common = common @ left[:, cosines**2 > _COMMON]
    return common


def _unit_information(model: LMM, common: np.ndarray, design: np.ndarray, ids: pd.Index) -> float:
    """Log p(y): coefficients of `common` flat, of the rest of the design N(0, n s2), orthonormal.

    The rest has the prior precision 1/n on the scale of s2; see `likelihood.terms`.
    """
    order = ids.get_indexer(model.ids)
    common, design = common[order], design[order]
    data = likelihood.rotate(model.basis, model.y, common)
    rest = design - common @ (common.T @ design)
    left = np.linalg.svd(rest, full_matrices=False)[0]
    rest = left[:, : design.shape[1] - common.shape[1]]
    rotated = rest if model.basis is None else model.basis.rotate(rest)
    n, c = common.shape
    df, extra = n - c, rest.shape[1]
    data = replace(data, C=np.column_stack([data.C, rotated]))
    precision = np.concatenate([np.zeros(c), np.full(extra, 1 / n)])
    constant = lgamma(df / 2) - 0.5 * df * log(pi) - 0.5 * extra * log(n)

    def loglik(h2: np.ndarray) -> np.ndarray:
        t = likelihood.terms(data, h2, precision=precision)
        return constant - 0.5 * (t.logdet + df * np.log(t.Q))

    at_0 = float(loglik(np.zeros(1))[0])
    if model.basis is None:
        return at_0
    prior = model.h2_prior
    return unit_density(
        lambda h2: loglik(h2) + prior.log_density(h2), mass_at_0=prior.spike, log_at_0=at_0
    ).log_integral


def _probabilities(log_ml: pd.Series, prior_probs: Mapping[str, float] | None) -> pd.Series:
    """Posterior probabilities; NaN unless all models can be compared."""
    prior = pd.Series(1.0, log_ml.index) if prior_probs is None else pd.Series(prior_probs)
    weight = log_ml + np.log(prior.reindex(log_ml.index).astype(np.float64))
    scaled = np.exp(weight - weight.max())
    return scaled / scaled.sum(skipna=False)


def _prior_in_words(model: Any) -> str:
    if isinstance(model, LMM):
        h2 = "h2 = 0" if model.basis is None else f"h2 ~ {model.h2_prior}"
        return f"{h2}, p(s2) ~ 1/s2, covariates flat"
    known = {key: model.attrs.get(key) for key in ("h2_prior", "snp_prior", "priors")}
    return ", ".join(f"{key} {value}" for key, value in known.items() if value)


# -- in words ------------------------------------------------------------------------------


def _verdict(table: pd.DataFrame) -> str:
    """What may be concluded, in sentences."""
    names = [str(name) for name in table.index]
    best = names[0]
    attrs = table.attrs
    left_out = attrs["left_out"]
    text = [
        f"Best at predicting what is left out ({left_out}): '{best}', elpd {table.elpd[best]:.1f}."
    ]
    reference = attrs["reference"]
    text += [
        _difference(name, reference, table.elpd_diff[name], table.dse[name])
        for name in names
        if name != reference
    ]
    if table.diag_diff.eq("N < 100").any():
        text.append("With fewer than 100 left-out units these standard errors are too small.")
    if attrs["high_pareto_k"]:
        counts = ", ".join(f"'{k}' {len(v):,}" for k, v in attrs["high_pareto_k"].items())
        text.append(
            f"Importance sampling is not to be trusted for some samples ({counts}; "
            "attrs['high_pareto_k']): compare the LMM itself, which is exact."
        )
    if left_out == "one sample":
        text.append("The relatives of a left-out sample stay; to do without, leave out families.")
    return " ".join([*text, _bayes(table)])


def _strength(difference: float, se: float) -> str:
    """What a difference of elpd is worth."""
    if abs(difference) < _SMALL:
        return "no difference that matters"
    if abs(difference) < 2 * se:
        return "not told apart by these data"
    return "probably" if abs(difference) < 4 * se else "clearly"


def _difference(name: str, reference: str, difference: float, se: float) -> str:
    size = f"(difference {difference:+.1f}, SE {se:.1f})"
    strength = _strength(difference, se)
    if strength in ("probably", "clearly"):
        how = "better" if difference > 0 else "worse"
        return f"'{name}' is {strength} {how} than '{reference}' {size}."
    return f"'{name}' and '{reference}': {strength} {size}."


def _bayes(table: pd.DataFrame) -> str:
    if table.log_ml.notna().sum() < 2:
        return f"Bayes factors: {table.attrs['bayes_factors']}."
    top = str(table.log_ml.idxmax())
    if table.prob.notna().all():
        second = str(table.log_ml.drop(top).idxmax())
        p = float(table.prob[top])
        probability = "above 0.999" if p > 0.999 else f"{p:.3f}"
        gap = (table.log_ml[top] - table.log_ml[second]) / _LN10
        return (
            f"By marginal likelihood '{top}' has posterior probability {probability}, with "
            f"a log10 Bayes factor of {gap:.1f} over '{second}' ({table.attrs['bayes_factors']})."
        )
    return (
        f"Of the models with a marginal likelihood here, '{top}' has the highest. "
        f"Bayes factors: {table.attrs['bayes_factors']}."
    )
