"""The genetic correlation of two traits in one object that says what it means."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.bivariate.model import BivariateFit, BivariateLMM
from bayeslmm.errors import InputError
from bayeslmm.model.tables import interval

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

_LN10 = float(np.log(10))
# Intervals wider than this share of (-1, 1) tell little.
_WIDE = 0.5
_SMALL_H2 = 0.05
_LABELS = {
    "rg": "genetic correlation",
    "re": "residual correlation",
    "rp": "phenotypic correlation",
}


@dataclass(frozen=True)
class RgReport:
    """Genetic correlation of two traits: posterior, REML, tests, words.

    Attributes
    ----------
    traits : tuple of str
        Their names.
    n, n_both : int
        Individuals, and those with both traits.
    prob : float
        Probability of the intervals.
    table : DataFrame
        Posterior mean, sd, low, high (highest density), p_positive of rg, re, rp, and h2 of
        either trait.
    log10_bf : float
        Bayes factor of rg under its prior against rg = 0, log10.
    rg_prior : str
        That prior.
    fit : BivariateFit
        REML with tests.
    ess, k_hat : float
        How many independent draws the posterior is worth; shape of the importance weights' tail.
    words : list of str
        What it means, and what to be careful about.
    tree : DataTree
        The draws.
    rg_log_prior : callable
        Log prior density of rg.
    """

    traits: tuple[str, str]
    n: int
    n_both: int
    prob: float
    table: pd.DataFrame
    log10_bf: float
    rg_prior: str
    fit: BivariateFit
    ess: float
    k_hat: float
    words: list[str]
    tree: xr.DataTree = field(repr=False)
    rg_log_prior: Callable[[np.ndarray], np.ndarray] = field(repr=False)

    def __str__(self) -> str:
        rg = self.table.loc["rg"]
        lines = [
            f"Genetic correlation of {self.traits[0]} and {self.traits[1]}, {self._samples()}: "
            f"posterior mean {rg['mean']:.3f} (sd {rg.sd:.3f})",
            f"  {100 * self.prob:g}% highest-density intervals",
        ]
        for name, row in self.table.iterrows():
            label = _LABELS.get(str(name), str(name))
            positive = f"   P(> 0) = {_share(row.p_positive)}" if name in _LABELS else ""
            ends = f"{row.low:6.3f} to {row.high:6.3f}"
            lines.append(f"    {label:<24} {row['mean']:6.3f}   {ends}{positive}")
        lines += [f"  {text}" for text in (self._reml(), self._evidence())]
        lines += [f"  {text}" for text in self.words]
        return "\n".join(lines)

    __repr__ = __str__

    def _samples(self) -> str:
        both = f" ({self.n_both:,} with both)" if self.n_both < self.n else ""
        return f"n = {self.n:,}{both}"

    def _reml(self) -> str:
        fit = self.fit
        se = f"SE {fit.rg_se:.3f}" if np.isfinite(fit.rg_se) else f"no SE: {fit.boundary}"
        tests = ""
        if fit.tests is not None:
            told = [f"{name}: p = {row.p:.2g}" for name, row in fit.tests.iterrows()]
            tests = f"; likelihood-ratio tests: {', '.join(told)}"
        return f"REML {fit.rg:.3f} ({se}){tests}"

    def _evidence(self) -> str:
        return (
            f"log10 Bayes factor of rg ~ {self.rg_prior} against rg = 0: {self.log10_bf:.2f}; "
            f"{self.ess:,.0f} effective draws, k-hat {self.k_hat:.2f}"
        )

    def _repr_html_(self) -> str:
        one, two = (html.escape(trait) for trait in self.traits)
        table = self.table.rename(index=_LABELS)
        items = "".join(f"<li>{html.escape(text)}</li>" for text in self.words)
        return (
            f"<p><b>Genetic correlation of {one} and {two}</b>, {self._samples()}</p>"
            + table.to_html(float_format="{:.3f}".format)
            + f"<p>{html.escape(self._reml())}. {html.escape(self._evidence())}.</p>"
            + f"<ul>{items}</ul>"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Posterior density of rg, its prior, and REML."""
        from bayeslmm import plots

        return plots.rg(self, ax=ax)


def rg_report(
    model: BivariateLMM,
    *,
    tree: xr.DataTree | None = None,
    draws: int = 4000,
    prob: float = 0.95,
    seed: int | None = None,
) -> RgReport:
    """Everything about rg of a model in one object; see `BivariateLMM.rg`.

    `tree` holds draws of `BivariateLMM.posterior` that are there already.
    """
    if not 0 < prob < 1:
        raise InputError(f"prob must be between 0 and 1, but is {prob:g}.")
    if draws < 100:
        raise InputError(f"At least 100 draws are needed for intervals, but draws={draws}.")
    if tree is None:
        tree = model.posterior(draws, seed=seed)
    draws = tree["posterior"]["rg"].size
    seed = int(tree.attrs["seed"])
    null = model.draw(
        100,
        fixed={"rg": 0.0},
        ess=min(float(draws), 1000.0 if not model.data.n_absent else 100.0),
        seed=np.random.default_rng([seed, 1]),
    )
    log_bf = tree.attrs["log_marginal_likelihood"] - null.log_marginal
    posterior = tree["posterior"].dataset
    values = {name: posterior[name].to_numpy() for name in _LABELS}
    values |= {
        f"h2 of {trait}": posterior["h2"].sel(trait=trait).to_numpy() for trait in model.traits
    }
    rows = {}
    for name, value in values.items():
        low, high = interval(value, prob)
        rows[name] = {
            "mean": value.mean(),
            "sd": value.std(),
            "low": low,
            "high": high,
            "p_positive": (value > 0).mean(),
        }
    table = pd.DataFrame(rows).T.rename_axis("quantity")
    fit = model.reml()
    return RgReport(
        traits=model.traits,
        n=len(model.ids),
        n_both=model.n_both,
        prob=prob,
        table=table,
        log10_bf=float(log_bf) / _LN10,
        rg_prior=repr(model.prior.rg),
        fit=fit,
        ess=float(tree.attrs["ess"]),
        k_hat=float(tree.attrs["k_hat"]),
        words=_words(model.traits, table, fit, model, prob),
        tree=tree,
        rg_log_prior=model.prior.rg.log_density,
    )


def _words(
    traits: tuple[str, str],
    table: pd.DataFrame,
    fit: BivariateFit,
    model: BivariateLMM,
    prob: float,
) -> list[str]:
    one, two = traits
    rg, level = table.loc["rg"], f"{100 * prob:g}%"
    found = []
    if rg.low > 0:
        found.append(
            f"Genetic effects on {one} and {two} go together: what raises one tends to raise the "
            "other."
        )
    elif rg.high < 0:
        found.append(
            f"Genetic effects on {one} and {two} oppose each other: what raises one tends to lower "
            "the other."
        )
    else:
        found.append(
            f"rg = 0 lies within the {level} interval: these samples do not settle whether the "
            f"genetics of {one} and {two} are related. Correlations below {rg.low:.2f} and above "
            f"{rg.high:.2f} are improbable."
        )
    if rg.high - rg.low > 2 * _WIDE:
        found.append(
            f"! The interval covers {100 * (rg.high - rg.low) / 2:.0f}% of the range: the samples "
            "tell little about rg, and its prior matters."
        )
    found += [
        f"! h2 of {trait} may be close to 0 ({table.low[f'h2 of {trait}']:.3f} to "
        f"{table.high[f'h2 of {trait}']:.3f}): where it is, rg means nothing."
        for trait in traits
        if table.low[f"h2 of {trait}"] < _SMALL_H2
    ]
    if fit.boundary:
        found.append(
            f"! The REML estimate is on the boundary ({fit.boundary}): it has no standard error. "
            "Use the posterior interval."
        )
    if model.n_both < 3:
        found.append("! Hardly anybody has both traits: re has its prior only.")
    found.append(
        "rg is that of the polygenic background: shared causes and loci in linkage both count, and "
        "so does environment that relatives share."
    )
    return found


def _share(p: float) -> str:
    return "< 0.001" if p < 0.001 else "> 0.999" if p > 0.999 else f"{p:.3f}"
