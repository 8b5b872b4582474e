"""h2 of one model in full: three intervals, what the prior does, what the samples allow; liability.

`LMM.h2_report` puts beside each other what answers differently to the same question: the
posterior, a confidence interval that covers by construction, and the usual REML +- 1.96 SE.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm import priors
from bayeslmm.errors import InputError
from bayeslmm.model.intervals import TOP, expected_se, variances
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.quadrature import UnitDensity, unit_density
from bayeslmm.priors import H2Prior, as_h2_prior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.model.lmm import LMM

# Standard error of h2 of N unrelated people is this over N (Visscher et al. 2014).
_UNRELATED = 316.0
# Mass within this distance of 0 or 1 that counts as piled up there.
_NEAR, _PILED = 0.01, 0.1


# -- what the prior does ---------------------------------------------------------------------


def default_priors(model: LMM) -> dict[str, H2Prior]:
    """Priors to compare: the model's own, uniform, Jeffreys-like, humped, and a PC prior."""
    assert model.basis is not None
    found = {
        "uniform": priors.uniform(),
        "Beta(1/2, 1/2)": priors.beta(0.5, 0.5),
        "Beta(2, 2)": priors.beta(2, 2),
        "PC, P(h2 > 0.5) = 0.1": priors.penalised_complexity(model.basis, upper=0.5, prob=0.1),
    }
    if repr(model.h2_prior) not in (repr(prior) for prior in found.values()):
        found = {f"model: {model.h2_prior!r}": model.h2_prior, **found}
    return found


def h2_posteriors(model: LMM, chosen: Mapping[str, Any] | None = None) -> dict[str, UnitDensity]:
    """Posterior of h2 under each prior, from one evaluation of the likelihood.

    The nodes are those that resolve the likelihood times the mean of all priors; each
    posterior gives them other weights.

    Parameters
    ----------
    model : LMM
        With a kernel.
    chosen : mapping of str to prior, optional
        By name; what `LMM` accepts as h2_prior. By default those of `default_priors`.
    """
    if model.basis is None:
        raise InputError("Without kernel there is no h2: it is 0 by definition.")
    if chosen is not None and not chosen:
        raise InputError("No priors are given: expected a mapping as {'uniform': 'uniform'}.")
    named = default_priors(model) if chosen is None else chosen
    densities = {name: as_h2_prior(prior) for name, prior in named.items()}

    def log_mean(h2: np.ndarray) -> np.ndarray:
        each = [prior.log_density(h2) for prior in densities.values()]
        return np.logaddexp.reduce(each, axis=0) - np.log(len(each))

    def loglik(h2: np.ndarray) -> np.ndarray:
        return likelihood.integrated_loglik(model.rotated, h2)

    base = unit_density(lambda h2: loglik(h2) + log_mean(h2))
    shared, at_0 = log_mean(base.x), float(loglik(np.zeros(1))[0])
    found = {}
    for name, prior in densities.items():
        density = base.reweighted(prior.log_density(base.x) - shared)
        found[name] = density.with_mass_at_0(prior.spike, at_0)
    return found


def prior_table(
    model: LMM, chosen: Mapping[str, Any] | None = None, *, prob: float = 0.95
) -> pd.DataFrame:
    """Posterior of h2 under a set of priors; see `LMM.prior_table`."""
    if not 0 < prob < 1:
        raise InputError(f"prob must be between 0 and 1, but is {prob:g}.")
    rows = {}
    for name, density in h2_posteriors(model, chosen).items():
        low, high = density.hdi(prob)
        rows[name] = {
            "mean": density.mean,
            "sd": density.sd,
            "low": low,
            "high": high,
            "p_zero": density.mass_at_0,
            "log_marginal": density.log_integral,
        }
    table = pd.DataFrame(rows).T.rename_axis("prior")
    scale = "observed scale" if is_two_valued(model.y) else ""
    table.attrs |= {"formula": model.formula, "prob": prob, "scale": scale}
    return table


# -- what the samples allow ------------------------------------------------------------------


def expected_posterior(lam: np.ndarray, h2: float, prior: H2Prior) -> UnitDensity:
    """Posterior of the average phenotype: each squared contrast equals its expectation.

    No phenotype is needed: it follows from the eigenvalues (nu,) and a supposed true h2.
    Its sd is close to the mean posterior sd (`bl.design` simulates that).
    """
    none = np.zeros((len(lam), 0))
    z = np.sqrt(variances(lam, h2))
    data = likelihood.Rotated(lam, z, none, np.zeros((0, 0)), np.zeros(0), 1.0, 1.0)
    return unit_density(
        lambda x: likelihood.integrated_loglik(data, x) + prior.log_density(x),
        mass_at_0=prior.spike,
        log_at_0=float(likelihood.integrated_loglik(data, np.zeros(1))[0]),
    )


# -- the report ------------------------------------------------------------------------------


@dataclass(frozen=True)
class H2Report:
    """Heritability of one phenotype: estimate, three intervals, prior and design.

    Attributes
    ----------
    name : str
        The phenotype.
    title : str
        What its h2 is called: on the observed scale it is no heritability.
    n : int
        Samples.
    scale : str
        "" or "observed scale", for a two-valued phenotype.
    level : float
        Of the intervals.
    estimate, mean : float
        REML estimate and posterior mean.
    intervals : DataFrame
        low, high, width of: posterior (highest density), rlrt (inversion of the restricted
        likelihood-ratio test), reml (estimate +- normal quantile times the expected
        standard error).
    priors : DataFrame
        What `LMM.prior_table` returns.
    design : Series
        What the samples allow, from the eigenvalues alone: se_at_0 and se (standard errors of
        h2 at 0 and at the posterior mean), expected_sd (posterior sd expected at the posterior
        mean), prior_sd, unrelated (unrelated people with the same se).
    warnings : list of str
        What to be careful about.
    """

    name: str
    title: str
    n: int
    scale: str
    level: float
    estimate: float
    mean: float
    intervals: pd.DataFrame
    priors: pd.DataFrame
    design: pd.Series
    warnings: list[str]
    posterior: UnitDensity = field(repr=False)

    def __str__(self) -> str:
        lines = [
            f"{self.title}, n = {self.n:,}: posterior mean {self.mean:.3f}, "
            f"REML {self.estimate:.3f}",
            f"  {100 * self.level:g}% intervals",
        ]
        for key, row in self.intervals.iterrows():
            lines.append(f"    {_LABELS[str(key)]:<38} {row.low:.3f} to {row.high:.3f}")
        lines.append("  posterior under other priors")
        for key, row in self.priors.iterrows():
            zero = f", P(h2 = 0) = {row.p_zero:.3g}" if row.p_zero else ""
            lines.append(f"    {key:<38} {row['mean']:.3f} ({row.low:.3f} to {row.high:.3f}){zero}")
        lines += ["  what these samples allow", f"    {self._allowed()}"]
        lines += [f"  ! {text}" for text in self.warnings]
        return "\n".join(lines)

    __repr__ = __str__

    def _allowed(self) -> str:
        design = self.design
        return (
            f"expected SE {design.se:.3f} (at h2 = 0: {design.se_at_0:.3f}), as of "
            f"{design.unrelated:,.0f} unrelated people; expected posterior sd "
            f"{design.expected_sd:.3f}, prior sd {design.prior_sd:.3f}"
        )

    def _repr_html_(self) -> str:
        number = "{:.3f}".format
        labelled = self.intervals.rename(index=_LABELS)
        parts = [
            f"<p><b>{html.escape(self.title)}</b>, n = {self.n:,}: posterior "
            f"mean {self.mean:.3f}, REML {self.estimate:.3f}</p>",
            labelled.to_html(float_format=number),
            "<p>Posterior under other priors</p>",
            self.priors.to_html(float_format=number),
            f"<p>What these samples allow: {self._allowed()}</p>",
        ]
        if self.warnings:
            items = "".join(f"<li>{html.escape(text)}</li>" for text in self.warnings)
            parts.append(f"<ul>{items}</ul>")
        return "".join(parts)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Posterior, and the three intervals and those of other priors below it."""
        from bayeslmm import plots

        return plots.h2_report(self, ax=ax)


_LABELS = {
    "posterior": "posterior, highest density",
    "rlrt": "confidence, likelihood ratio inverted",
    "reml": "REML and standard errors",
}


def h2_report(model: LMM, *, level: float = 0.95) -> H2Report:
    """Everything about h2 of a model in one object; see `LMM.h2_report`."""
    if model.basis is None:
        raise InputError("Without kernel there is no h2: it is 0 by definition.")
    lam, fit, posterior = model.contrast_eigenvalues, model.reml(), model.h2_posterior()
    ends = {
        "posterior": posterior.hdi(level),
        "rlrt": model.h2_interval(level),
        "reml": model.h2_interval(level, "reml"),
    }
    intervals = pd.DataFrame(ends, index=["low", "high"]).T.rename_axis("interval")
    intervals["width"] = intervals.high - intervals.low
    mean = float(np.clip(posterior.mean, 0, TOP))
    prior = unit_density(model.h2_prior.log_density, mass_at_0=model.h2_prior.spike, log_at_0=0.0)
    se = float(expected_se(lam, mean))
    design = pd.Series(
        {
            "se_at_0": float(expected_se(lam, 0.0)),
            "se": se,
            "expected_sd": expected_posterior(lam, mean, model.h2_prior).sd,
            "prior_sd": prior.sd,
            "unrelated": _UNRELATED / se,
        }
    )
    table = prior_table(model, prob=level)
    binary = is_two_valued(model.y)
    name = model.formula.split("~")[0].strip()
    return H2Report(
        name=name,
        title=h2_called(name, model.y),
        n=len(model.y),
        scale="observed scale" if binary else "",
        level=level,
        estimate=fit.h2,
        mean=posterior.mean,
        intervals=intervals,
        priors=table,
        design=design,
        warnings=_warnings(posterior, fit.boundary, intervals, table, design, binary=binary),
        posterior=posterior,
    )


def _warnings(
    posterior: UnitDensity,
    boundary: str,
    intervals: pd.DataFrame,
    table: pd.DataFrame,
    design: pd.Series,
    *,
    binary: bool,
) -> list[str]:
    found = []
    if binary:
        found.append(
            "The phenotype has two values: h2 is on the observed scale and depends on the share "
            "of cases. bl.liability_h2(draws, prevalence) converts it."
        )
    if design.expected_sd > 0.7 * design.prior_sd:
        found.append(
            "The samples are too alike in relatedness to tell h2: the posterior is expected to "
            f"be {100 * design.expected_sd / design.prior_sd:.0f}% as wide as the prior. More "
            "samples, or closer relatives among them, would help."
        )
    if boundary:
        found.append(
            f"The REML estimate is on the boundary {boundary}: its standard error means little. "
            "Use one of the other intervals."
        )
    at_0, at_1 = float(posterior.cdf(_NEAR)), 1 - float(posterior.cdf(1 - _NEAR))
    for end, mass in ((0, at_0), (1, at_1)):
        if mass > _PILED:
            found.append(
                f"{100 * mass:.0f}% of the posterior lies within {_NEAR:g} of h2 = {end}: report "
                "the interval, not the mean."
            )
    limits = intervals[["low", "high"]]
    apart = (limits.drop(index="rlrt") - limits.loc["rlrt"]).abs().max(axis=1)
    for key, distance in apart.items():
        if distance > 0.15 * intervals.width["rlrt"]:
            found.append(
                f"The interval '{key}' ({limits.low[key]:.3f} to {limits.high[key]:.3f}) differs "
                f"from the one that covers at every h2 ({limits.low['rlrt']:.3f} to "
                f"{limits.high['rlrt']:.3f}). lmm.coverage() shows which covers on these samples."
            )
    if np.ptp(table["mean"]) > 0.5 * posterior.sd:
        found.append(
            f"The prior matters: posterior means range from {table['mean'].min():.3f} to "
            f"{table['mean'].max():.3f}. State it beside h2."
        )
    return found


# -- liability -------------------------------------------------------------------------------


def is_two_valued(y: np.ndarray) -> bool:
    """Whether a phenotype has just two values, as case and control."""
    return len(np.unique(y[:1000])) <= 2 and len(np.unique(y)) == 2


def h2_called(name: str, y: np.ndarray) -> str:
    """What h2 of a phenotype is called: of the numbers 0 and 1 it is no heritability.

    Examples
    --------
    >>> h2_called("height", np.arange(5.0))
    'Heritability of height'
    >>> h2_called("case", np.array([0.0, 1, 1]))
    'h2 of case on the observed scale, no heritability'
    """
    if is_two_valued(y):
        return f"h2 of {name} on the observed scale, no heritability"
    return f"Heritability of {name}"


def h2_noun(y: np.ndarray) -> str:
    """The same without the phenotype's name: the beginning of a sentence."""
    return "h2 on the observed scale, no heritability" if is_two_valued(y) else "Heritability"


def liability_factor(prevalence: float, sample_prevalence: float) -> float:
    """What takes h2 on the observed scale to that of the liability: Lee et al. (2011), eq. 23.

    Examples
    --------
    >>> round(liability_factor(0.5, 0.5), 4)  # pi / 2
    1.5708
    """
    from scipy.special import ndtri

    density = np.exp(-0.5 * ndtri(prevalence) ** 2) / np.sqrt(2 * np.pi)
    between = prevalence * (1 - prevalence)
    return float(between**2 / (density**2 * sample_prevalence * (1 - sample_prevalence)))


def liability_h2(
    h2: Any,
    prevalence: float,
    sample_prevalence: float | None = None,
) -> Any:
    r"""Heritability of the liability behind a two-valued trait, draw by draw.

    A person is affected if a normal liability is above a threshold. With K the prevalence
    in the population, P the share of cases among the samples, and z the normal density at the
    threshold, h2 on the observed scale times [K (1 - K)]^2 / (z^2 P (1 - P)) is that of the
    liability. The factor does not depend on h2: intervals convert as their ends do.

    Parameters
    ----------
    h2 : DataTree, array_like or float
        On the observed scale: draws (`LMM.posterior`, `LMM.sample`), ends of an interval, or
        an estimate.
    prevalence : float
        K, share of affected people in the population, in (0, 1).
    sample_prevalence : float, optional
        P, share of cases among the samples, in (0, 1). By default counted in the draws' own
        phenotypes, the larger of the two values being a case; without draws, the prevalence.

    Returns
    -------
    DataArray for draws, else array or float
        On the liability scale. Values above 1 are not cut: they say that the model does not
        fit.

    Raises
    ------
    InputError
        For shares outside (0, 1), and draws of a phenotype that is not two-valued.

    Warns
    -----
    UserWarning
        For a prevalence below 0.001 or above 0.999, and for values above 1.

    Notes
    -----
    For case-control samples the factor assumes that h2 comes from REML or this package's
    likelihood with a small liability effect of each locus; with strong ascertainment and a large
    h2 it is too low (Golan, Lander & Rosset 2014, Proc Natl Acad Sci USA 111:E5272). Covariates
    related to liability bias it, too.

    References
    ----------
    Lee SH et al. (2011). Estimating missing heritability for disease from genome-wide
    association studies. Am J Hum Genet 88:294. doi:10.1016/j.ajhg.2011.02.002

    Examples
    --------
    >>> import bayeslmm as bl
    >>> print(f"{bl.liability_h2(0.2, prevalence=0.01, sample_prevalence=0.5):.3f}")
    0.110
    """
    values: Any = h2
    if hasattr(h2, "children"):
        values = h2["posterior"]["h2"]
        y = h2["observed_data"]["y"].to_numpy()
        if not is_two_valued(y):
            raise InputError(
                f"The phenotype of these draws has {len(np.unique(y)):,} different values: there "
                "is a liability only behind two."
            )
        if sample_prevalence is None:
            sample_prevalence = float((y == y.max()).mean())
    elif not np.isscalar(h2):
        values = np.asarray(h2, dtype=np.float64)
    if sample_prevalence is None:
        sample_prevalence = prevalence
    for what, share in (("prevalence", prevalence), ("sample_prevalence", sample_prevalence)):
        if not 0 < share < 1:
            raise InputError(
                f"{what} must be a share in (0, 1), as 0.01 for one in a hundred, but is {share:g}."
            )
    if not 0.001 <= prevalence <= 0.999:
        warnings.warn(
            f"A prevalence of {prevalence:g} is extreme: the liability scale rests on the far tail "
            "of a normal distribution, and a small error of the prevalence changes much.",
            stacklevel=2,
        )
    found = values * liability_factor(prevalence, sample_prevalence)
    share = float(np.mean(np.asarray(found) > 1))
    if share > 0:
        what = "The value is" if np.ndim(found) == 0 else f"{100 * share:.3g}% of the values are"
        warnings.warn(
            f"{what} above 1 on the liability scale: check the prevalence, or the threshold model "
            "does not fit (strong ascertainment, covariates of large effect, shared environment).",
            stacklevel=2,
        )
    return found
