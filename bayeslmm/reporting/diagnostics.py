"""What to look at before an analysis is believed: one light for each check, and what to do."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from bayeslmm.model.heritability import is_two_valued

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.inputs.case_control import CaseControl
    from bayeslmm.model.accuracy import Accuracy
    from bayeslmm.model.heritability import H2Report
    from bayeslmm.model.residuals import ResidualCheck
    from bayeslmm.relatedness.dense import GRM

type Level = Literal["good", "look", "problem"]
LEVELS: tuple[Level, ...] = ("good", "look", "problem")
# Genetic correlations above this are the same individual twice, or identical twins.
_TWINS = 0.95
_FEW, _FEW_CASES = 200, 50
_R_HAT = 1.05
_USELESS = 0.2  # expected correlation of predicted and true genetic values


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes
    ----------
    name : str
        What was checked.
    level : {"good", "look", "problem"}
        Whether it stands in the way of the results.
    finding : str
        What was found.
    action : str
        What to do; empty where nothing is to be done.
    """

    name: str
    level: Level
    finding: str
    action: str = ""


def as_table(checks: Iterable[Check]) -> pd.DataFrame:
    """Checks as a table: check, level, finding, action."""
    rows = [(c.name, c.level, c.finding, c.action) for c in checks]
    return pd.DataFrame(rows, columns=["check", "level", "finding", "action"])


def worst(checks: Iterable[Check]) -> Level:
    """The most serious level among checks; "good" if there is none."""
    return LEVELS[max((LEVELS.index(c.level) for c in checks), default=0)]


def of_samples(account: pd.DataFrame, unit: str = "samples") -> Check:
    """How many samples were analysed, and how many left out; `unit` is what they are."""
    n, total = int(account.kept.sum()), len(account)
    dropped = total - n
    reasons = account.reason[~account.kept].value_counts()
    told = "; ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    name = unit.capitalize()
    finding = f"{n:,} of {total:,} {unit} were analysed" + (f" ({told})." if dropped else ".")
    if n < _FEW:
        return Check(
            name,
            "look",
            finding,
            f"So few {unit} say little about h2: read the interval, not the estimate.",
        )
    if dropped > total / 2:
        return Check(
            name,
            "look",
            finding,
            "More than half were left out: check that the ids of the files mean the same, and "
            "that those left are not a selection.",
        )
    return Check(name, "good", finding)


def of_individuals(counts: pd.Series) -> Check:
    """Whether repeated measures (counts: of each individual) are of enough, often enough."""
    several = int((counts > 1).sum())
    finding = f"{len(counts):,} individuals, {several:,} with two records or more."
    if len(counts) < _FEW:
        action = "So few individuals say little about h2: read the interval, not the estimate."
        return Check("Individuals", "look", finding, action)
    if several < max(30, 0.1 * len(counts)):
        return Check(
            "Individuals",
            "look",
            finding,
            "Only these tell the permanent environment from the residual: read both as one.",
        )
    return Check("Individuals", "good", finding)


def of_phenotype(y: np.ndarray, label: str = "", unit: str = "samples") -> Check:
    """Whether the phenotype is what a linear model wants; `label` tells one of several."""
    name = f"Phenotype {label}" if label else "Phenotype"
    values = len(np.unique(y))
    if is_two_valued(y):
        return Check(
            name,
            "look",
            "The phenotype has two values, and was analysed as if it were a quantity.",
            "h2 is on the observed scale and depends on the share of cases: use the liability "
            "model, and family='binomial' for the scan.",
        )
    if values < 8:
        return Check(
            name,
            "look",
            f"The phenotype has only {values} different values.",
            "A normal model is an approximation here: compare with a transformed phenotype.",
        )
    return Check(name, "good", f"{values:,} different values in {len(y):,} {unit}.")


def of_cases(cases: CaseControl) -> Check:
    """Whether there are enough cases and controls."""
    fewer = min(cases.n_cases, cases.n_controls)
    if fewer < _FEW_CASES:
        return Check(
            "Cases",
            "look",
            f"{cases}.",
            "So few tell little: effects need to be large to be found, and intervals are wide.",
        )
    return Check("Cases", "good", f"{cases}.")


def of_kernel(grm: GRM | None, ids: pd.Index) -> list[Check]:
    """Whether somebody is in the relatedness matrix twice, and whether it is a covariance."""
    if grm is None:
        return []
    K = grm.matrix if grm.samples.equals(ids) else grm.subset(ids).matrix
    root = np.sqrt(np.maximum(np.diagonal(K), 1e-12))
    pairs = []
    step = max(1, 2**22 // len(K))
    for start in range(0, len(K), step):
        part = K[start : start + step] / (root[start : start + step, None] * root)
        i, j = np.nonzero(part > _TWINS)
        later = j > i + start
        pairs += [
            (str(ids[a + start]), str(ids[b])) for a, b in zip(i[later], j[later], strict=True)
        ]
    found = []
    if pairs:
        first = f"{pairs[0][0]} and {pairs[0][1]}"
        found.append(
            Check(
                "Twins",
                "look",
                (
                    f"{len(pairs):,} pairs have a genetic correlation above {_TWINS} ({first} "
                    "among them)."
                    if len(pairs) > 1
                    else f"{first} have a genetic correlation above {_TWINS}."
                ),
                "Unless they are identical twins or of an inbred line, a sample is there twice: "
                "leave out one of each pair.",
            )
        )
    else:
        found.append(Check("Twins", "good", f"No pair has a genetic correlation above {_TWINS}."))
    negative = grm.info.get("n_negative_set_to_0", 0)
    if negative:
        found.append(
            Check(
                "Relatedness matrix",
                "look",
                f"{negative:,} small negative eigenvalues were set to 0.",
                "This is rounding unless the matrix was edited or made with pairwise deletion.",
            )
        )
    return found


def of_heritability(report: H2Report) -> list[Check]:
    """Everything that the report of h2 warns of, or that there is nothing."""
    if not report.warnings:
        return [
            Check(
                "Heritability",
                "good",
                "The three intervals agree, the prior makes little difference, and the estimate "
                "is not at a boundary.",
            )
        ]
    return [Check("Heritability", "look", text) for text in report.warnings]


def of_residuals(check: ResidualCheck, label: str = "") -> Check:
    """Whether residuals are normal and nobody stands out; `label` tells one trait of several."""
    count = len(check.outliers)
    finding = (
        f"Whitened residuals: skewness {check.skewness:+.2f}, excess kurtosis "
        f"{check.kurtosis:+.2f}; {count:,} outlier{'s' * (count != 1)}."
    )
    level: Level = "look" if check.suggestion else "good"
    name = f"Residuals of {label}" if label else "Residuals"
    return Check(name, level, finding, check.suggestion)


def of_scan(factor: float, n_tests: int, *, kernel: bool, background: object = "all") -> Check:
    """Whether p-values of a scan are inflated.

    Parameters
    ----------
    factor : float
        lambda_GC.
    n_tests : int
        Variants tested.
    kernel : bool
        Whether the model has one.
    background : str or list
        What a scan's attribute of that name says.
    """
    finding = f"lambda_GC is {factor:.2f} over {n_tests:,} variants."
    if factor > 1.1:
        action = (
            "Relatives or structure may be unaccounted for: give the model a relatedness matrix."
            if not kernel
            else "Many small effects do this, and so does structure that the matrix leaves out. "
            "In families, leaving a chromosome out of the matrix does it too: compare with "
            "background='all'."
        )
        return Check("Scan", "problem" if factor > 1.3 else "look", finding, action)
    if factor < 0.95 and kernel and background == "all":
        return Check(
            "Scan",
            "good",
            f"{finding} Below 1, as when the relatedness matrix holds the tested variants too: "
            "p-values err on the safe side.",
        )
    return Check("Scan", "good", finding)


def of_predictions(
    of_value: float, of_phenotype: float, measured: Accuracy | None, *, binary: bool
) -> Check:
    """Whether predictions say something, and are as good as they claim.

    Parameters
    ----------
    of_value, of_phenotype : float
        Expected correlations of predictions with the true genetic value and the phenotype.
    measured : Accuracy or None
        What phenotypes say that were not used.
    binary : bool
        Whether the phenotype has two values.
    """
    from scipy.stats import binom

    finding = f"Predicted and true genetic values should correlate {of_value:.2f}"
    if of_value < _USELESS:
        return Check(
            "Predictions",
            "look",
            f"{finding}.",
            "They tell little but the covariates' effects: these samples have hardly any relatives "
            "among the analysed, or h2 is small.",
        )
    if binary:
        return Check(
            "Predictions",
            "look",
            f"{finding}; the phenotype has two values.",
            "They rank samples, but are no probabilities: risks are LiabilityLMM.predict's.",
        )
    if measured is None:
        return Check("Predictions", "good", f"{finding}.")
    n, prob = measured.n, measured.prob
    fewest = binom.ppf(0.025, n, prob)
    finding += (
        f"; of {n:,} measured, {100 * measured.coverage:.0f}% are within their {100 * prob:g}% "
        f"interval, and the correlation is {measured.correlation:.2f}, of {of_phenotype:.2f} "
        "expected."
    )
    if n * measured.coverage < fewest - 0.5 or measured.high < of_phenotype:
        return Check(
            "Predictions",
            "look",
            finding,
            "They are less good than they claim: these samples may differ from the analysed "
            "(another population, batch or environment), or relatives share more than genes.",
        )
    return Check("Predictions", "good", finding)


def of_draws(tree: xr.DataTree) -> Check:
    """Whether draws of `PartitionedLMM.posterior` or `BivariateLMM.posterior` can be trusted."""
    from bayeslmm.numerics.importance import LARGEST_K
    from bayeslmm.partition.shares import GOOD_ESS

    attrs = tree.attrs
    k = attrs.get("pareto_k", attrs.get("k_hat", np.nan))
    r_hat, ess = attrs.get("r_hat", np.nan), float(attrs["ess"])
    how = str(attrs.get("method", attrs.get("sampler", "")))
    told = [f"{how}, {ess:,.0f} effective draws"]
    told += [f"Pareto k {k:.2f}"] if np.isfinite(k) else []
    told += [f"r-hat {r_hat:.3f}"] if np.isfinite(r_hat) else []
    action = ""
    if k > LARGEST_K:
        action = "The tails of the posterior are not reached: use Markov chains (method=)."
    elif r_hat > _R_HAT:
        action = "The chains disagree: ask for more draws."
    if action:
        return Check("Posterior", "problem", f"{', '.join(told)}.", action)
    if ess < GOOD_ESS and how != "quadrature":
        action = "Ends of intervals are uncertain in their second digit: ask for more draws."
        return Check("Posterior", "look", f"{', '.join(told)}.", action)
    return Check("Posterior", "good", f"{', '.join(told)}.")


def of_sampling(tree: xr.DataTree, **advice: str) -> Check:
    """Whether chains of `LMM.sample` converged; `advice` as `check_sampling` takes it."""
    from bayeslmm.generative.sampling import SamplingWarning, check_sampling

    if "sample_stats" not in tree.children:
        return Check("Sampling", "good", "The draws are independent: there are no chains to check.")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", SamplingWarning)
        check_sampling(tree, **advice)
    if told:
        return Check("Sampling", "problem", str(told[0].message))
    return Check("Sampling", "good", "Chains agree, and there are enough effective draws.")
