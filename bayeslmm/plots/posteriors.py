"""Plots of priors and posteriors: h2, its report, effects of SNPs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm.errors import InputError
from bayeslmm.model.heritability import h2_called, is_two_valued
from bayeslmm.model.tables import interval, snp_effects
from bayeslmm.plots.drawing import (
    ACCENT,
    DARK,
    FAINT,
    INK,
    LIGHT,
    SERIES,
    annotate,
    axes_for,
    clean,
    corner,
    halo,
    kernel_density,
    pip_marks,
    plain_legend,
    reml_estimate,
    title_of,
    whisker_style,
    whiskers,
)

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.model.heritability import H2Report
    from bayeslmm.model.lmm import LMM
    from bayeslmm.repeated.model import RepeatedFit

# Above the first a band is drawn, above the second of some samples only.
_FEW_PREDICTED, _MOST_PREDICTED = 120, 2000
_INTERVALS: dict[str, tuple[str, str, Any, str]] = {
    "posterior": ("posterior, highest density", SERIES[0], "-", "o"),
    "rlrt": ("likelihood ratio inverted", SERIES[2], (0, (5, 1.5)), "s"),
    "reml": ("REML and standard errors", SERIES[1], (0, (1.2, 1.2)), "D"),
}


def h2(
    model: LMM,
    *,
    ax: Axes | None = None,
    prob: float = 0.95,
    tree: xr.DataTree | None = None,
    title: str | None = None,
) -> Axes:
    """Posterior density of the heritability, its interval, the prior, and REML.

    The density is computed by quadrature, not from draws. If the prior has a point mass
    at h2 = 0, the posterior probability of exactly 0 is a bar there, as high as the plot
    times that probability.

    Parameters
    ----------
    model : LMM
        With a kernel.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    prob : float
        Probability of the highest-density interval.
    tree : DataTree, optional
        Draws of `LMM.sample`, to compare: their histogram is drawn over the density.
    title : str, optional
        By default what the h2 of the phenotype is called.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        Without kernel, and for a probability outside (0, 1).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> K = bl.grm(mice.genotypes.select(samples=mice.genotypes.samples.index[:300]))
    >>> ax = bl.plots.h2(bl.LMM("cd8 ~ sex", mice.phenotypes, K))
    """
    if not 0 < prob < 1:
        raise InputError(f"prob must be between 0 and 1, but is {prob:g}.")
    posterior = model.h2_posterior()
    fit = model.reml()
    low, high = posterior.hdi(prob)
    x, density = posterior.curve()
    left, right = _h2_limits(posterior.mean, posterior.sd)
    # A density may be infinite at an end of [0, 1]: the scale is that of the rest.
    inner = (x >= max(left, 0.002)) & (x <= min(right, 0.998))
    height = float(density[inner].max(initial=0.0)) or 1.0
    ax = axes_for(ax, "h2")

    ax.plot(x, density, color=DARK, linewidth=1.8, label="posterior density", zorder=4)
    inside = (x >= low) & (x <= high)
    ax.fill_between(
        x[inside],
        density[inside],
        color=LIGHT,
        alpha=0.45,
        linewidth=0,
        label=f"{100 * prob:g}% most probable: {low:.2f} to {high:.2f}",
        zorder=3,
    )
    spike = model.h2_prior.spike
    grid = np.linspace(max(left, 5e-4), min(right, 1 - 5e-4), 801)
    prior = (1 - spike) * np.exp(model.h2_prior.log_density(grid))
    ax.plot(
        grid,
        prior,
        color=FAINT,
        linewidth=1.2,
        linestyle=(0, (4, 2.5)),
        label=f"prior: {model.h2_prior!r}",
        zorder=2,
    )
    if tree is not None:
        draws = np.ravel(tree["posterior"]["h2"])
        label = f"{len(draws):,} draws" + " with SNPs in the model" * ("beta" in tree["posterior"])
        bins = int(np.clip(np.sqrt(len(draws)), 5, 40))
        share, edges = np.histogram(draws, bins, density=True)
        ax.stairs(share, edges, color=INK, linewidth=0.9, zorder=4, label=label, gid="draws")
        height = max(height, float(share.max()))
    whisker = -0.09 * height
    reml_estimate(ax, fit.h2, fit.h2_se, whisker, left, right)
    if spike:
        _bar_at_zero(ax, posterior.mass_at_0, height, right - left)
        left -= 0.02 * (right - left)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=2)
    ax.set_xlim(left, right)
    ax.set_ylim(1.9 * whisker, 1.12 * height)
    ax.set_yticks([])
    called = "$h^2$ on the observed scale" if is_two_valued(model.y) else "Heritability $h^2$"
    ax.set_xlabel(f"{called}: share of the variance that the genotypes explain")
    ax.set_ylabel("Probability density")
    clean(ax)
    ax.spines["left"].set_visible(False)
    name = model.formula.split("~")[0].strip()
    ax.set_title(title or h2_called(name, model.y), loc="left", fontsize=11, color=INK)
    corner(ax, f"n = {fit.n:,}")
    on_left = posterior.mean > 0.5 * (left + right)
    ax.legend(
        frameon=False,
        loc="upper left" if on_left else "upper right",
        fontsize=8.5,
        labelcolor=INK,
        handlelength=1.8,
        labelspacing=0.6,
    )
    return ax


def repeatability(
    tree: xr.DataTree,
    fit: RepeatedFit | None = None,
    *,
    prob: float = 0.95,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Posterior densities of h2 and of the repeatability, their priors, and REML.

    What lies between the two is the share of the permanent environment.

    Parameters
    ----------
    tree : DataTree
        Draws of `RepeatedLMM.sample`.
    fit : RepeatedFit, optional
        Point estimates with 1.96 standard errors, to show below.
    prob : float
        Probability of the highest-density intervals.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default the model's formula.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the draws are of another model.

    Examples
    --------
    Draws of `RepeatedLMM.sample` have these, among others:

    >>> import xarray as xr
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> shares = rng.dirichlet([8, 4, 6], size=(4, 250))
    >>> draws = {"h2": shares[..., 0], "repeatability": shares[..., :2].sum(axis=-1)}
    >>> posterior = xr.Dataset({name: (("chain", "draw"), x) for name, x in draws.items()})
    >>> attrs = {"formula": "weight ~ age", "n_records": 900, "n_individuals": 300}
    >>> tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), "posterior": posterior})
    >>> bl.plots.repeatability(tree).get_title("left")
    'weight ~ age'
    """
    posterior = tree["posterior"].dataset
    if "repeatability" not in posterior:
        raise InputError("These draws have no repeatability: RepeatedLMM.sample makes them.")
    ax = axes_for(ax, "repeatability")
    curves = {name: kernel_density(np.ravel(posterior[name])) for name in ("h2", "repeatability")}
    height = max(float(density.max()) for _, density in curves.values())
    grid = np.linspace(0, 1, 3)
    named = {"h2": "$h^2$", "repeatability": "repeatability"}
    priors = {"h2": 2 * (1 - grid), "repeatability": 2 * grid}  # Beta(1, 2) and Beta(2, 1)
    estimates: list[tuple[float, float]] = []
    if fit is not None:
        estimates = [(fit.h2, fit.h2_se), (fit.repeatability, fit.repeatability_se)]
    for j, (name, (x, density)) in enumerate(curves.items()):
        low, high = interval(np.ravel(posterior[name]), prob)
        ax.plot(
            x,
            density,
            color=SERIES[j],
            lw=1.8,
            zorder=4,
            label=f"{named[name]}: {100 * prob:g}% within {low:.2f} to {high:.2f}",
        )
        inside = (x >= low) & (x <= high)
        ax.fill_between(x[inside], density[inside], color=SERIES[j], alpha=0.18, lw=0, zorder=3)
        if not tree.attrs.get("priors"):
            ax.plot(grid, priors[name], color=SERIES[j], lw=1.1, ls=(0, (4, 2.5)), zorder=2)
        if estimates:
            value, se = estimates[j]
            reach, at = (1.96 * se if np.isfinite(se) else 0.0), -(0.06 + 0.07 * j) * height
            ends = max(value - reach, 0), min(value + reach, 1)
            whiskers(ax, value, *ends, at, SERIES[j], "D")
    if not tree.attrs.get("priors"):
        ax.plot([], [], color=FAINT, lw=1.1, ls=(0, (4, 2.5)), label="priors")
    if estimates:
        ax.plot([], [], color=FAINT, marker="D", lw=2, label="REML with 1.96 SE")
    ax.axhline(0, color=INK, linewidth=0.8, zorder=2)
    ax.set(xlim=(0, 1), ylim=((-0.2 if estimates else 0) * height, 1.12 * height), yticks=[])
    ax.set(xlabel="Share of the variance", ylabel="Probability density")
    clean(ax)
    ax.spines["left"].set_visible(False)
    title = str(tree.attrs.get("formula", "")) if title is None else title
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    counted = [f"{tree.attrs[f'n_{unit}']:,} {unit}" for unit in ("records", "individuals")]
    corner(ax, ", ".join(counted))
    plain_legend(ax)
    return ax


def effects(
    tree: xr.DataTree,
    hits: pd.DataFrame | None = None,
    *,
    ax: Axes | None = None,
    prob: float = 0.95,
    title: str | None = None,
) -> Axes:
    """Effects of the SNPs in a model: the scan's estimate beside the joint posterior.

    The scan tests one SNP at a time, and its estimate with 1.96 standard errors takes
    nothing of the choice of the SNPs into account. The posterior mean with its interval is
    that of all SNPs together, shrunk by the prior: the line between the two shows what the
    winner's curse, and linkage between the SNPs, had added.

    Parameters
    ----------
    tree : DataTree
        Draws of `LMM.sample` with SNPs. If the prior was spike and slab, each SNP's
        posterior inclusion probability is written beside it.
    hits : DataFrame, optional
        What `bayeslmm.scan` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure that is as high as the SNPs need.
    prob : float
        Probability of the highest-density interval.
    title : str, optional
        By default the model's formula.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the draws have no SNPs, or the scan has other alleles.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> K = bl.grm(mice.genotypes.select(samples=mice.genotypes.samples.index[:300]))
    >>> model = bl.LMM("mch ~ sex", mice.phenotypes, K)
    >>> tree = model.sample(["rs3023058", "rs6269442"], "spike_slab", draws=100, seed=1)
    >>> ax = bl.plots.effects(tree)
    """
    table = snp_effects(tree, hits, prob=prob)
    k = len(table)
    y = np.arange(k)[::-1].astype(float)
    ax = axes_for(ax, "effects", k)
    both = hits is not None and table["scan_beta"].notna().any()
    lift = 0.16 if both else 0.0
    ax.axvline(0, color=FAINT, linewidth=1, zorder=1)
    for row in y[1::2]:
        ax.axhspan(row - 0.5, row + 0.5, color="#f3f4f6", linewidth=0, zorder=0)
    if both:
        ax.plot(
            np.column_stack([table["scan_beta"], table["mean"]]).T,
            np.column_stack([y + lift, y - lift]).T,
            color=FAINT,
            linewidth=0.9,
            zorder=2,
        )
        ax.errorbar(
            table["scan_beta"],
            y + lift,
            xerr=1.96 * table["scan_se"],
            label="scan, one SNP at a time: estimate and 1.96 SE",
            gid="scan",
            **whisker_style(ACCENT, "o"),
        )
    ax.errorbar(
        table["mean"],
        y - lift,
        # the mean can lie outside the shortest interval, where most draws are 0
        xerr=np.maximum([table["mean"] - table["low"], table["high"] - table["mean"]], 0),
        label=f"posterior, all SNPs together: mean and {100 * prob:g}% interval",
        gid="posterior",
        **whisker_style(DARK, "s"),
    )
    ax.set_ylim(-0.6, k - 0.4)
    ax.set_yticks(
        y, [f"{row.id}  ({row.ea}, {row.eaf:.2f})" for row in table.itertuples()], fontsize=9
    )
    if "pip" in table:
        pip_marks(ax, table["pip"].to_numpy(), y)
    name = str(tree.attrs.get("formula", "")).split("~")[0].strip()
    ax.set_xlabel(
        f"Change of {name or 'the phenotype'} per effect allele (in brackets, with frequency)"
    )
    clean(ax)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_title(
        tree.attrs.get("formula", "") if title is None else title,
        loc="left",
        fontsize=11,
        color=INK,
        pad=40 if both else 26,
    )
    ax.legend(
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        borderaxespad=0.2,
        fontsize=8.5,
        labelcolor=INK,
    )
    return ax


def predictions(
    predicted: pd.DataFrame,
    observed: pd.Series | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Predicted phenotypes with their intervals, in order, and what was measured.

    Of more than 2,000 samples every k-th is drawn.

    Parameters
    ----------
    predicted : DataFrame
        What `LMM.predict` returns.
    observed : Series, optional
        Phenotypes by sample id, some may be missing; by default the column y_observed of the
        table, if it has one.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default the model's formula.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> cohort = bl.simulate_cohort(None, 300, 500, families=8, seed=1)
    >>> known = cohort.phenotypes[:250]
    >>> model = bl.LMM("y ~ sex + age", known, bl.grm(cohort.genotypes))
    >>> others = cohort.phenotypes[250:]
    >>> ax = bl.plots.predictions(model.predict(samples=others.index, data=others), others.y)
    """
    if observed is None and "y_observed" in predicted:
        observed = predicted.y_observed
    order = np.argsort(predicted.y_mean.to_numpy(), kind="stable")
    n = len(order)
    rank = np.unique(np.linspace(0, n - 1, min(n, _MOST_PREDICTED)).round().astype(int))
    shown = predicted.iloc[order[rank]]
    place, prob = rank + 1, float(predicted.attrs["prob"])
    ax = axes_for(ax, "predictions")
    label = f"{100 * prob:g}% interval of the phenotype"
    few = len(shown) <= _FEW_PREDICTED
    if few:
        ax.vlines(place, shown.y_low, shown.y_high, color=LIGHT, lw=2, label=label, zorder=2)
    else:
        band: dict[str, Any] = {"color": LIGHT, "alpha": 0.5, "linewidth": 0, "step": "mid"}
        ax.fill_between(place, shown.y_low, shown.y_high, label=label, zorder=2, **band)
    dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markeredgewidth": 0}
    dots["markersize"] = 4.5 if few else 2.8
    ax.plot(place, shown.y_mean, color=DARK, label="predicted", zorder=4, gid="predicted", **dots)
    if observed is not None:
        y = observed.set_axis(observed.index.astype(str)).reindex(shown.index).to_numpy()
        ax.plot(place, y, color=ACCENT, label="measured", zorder=3, gid="observed", **dots)
    ax.set_xlim(0, n + 1)
    formula = str(predicted.attrs.get("formula", ""))
    ax.set_xlabel("Samples, by their prediction")
    ax.set_ylabel(formula.split("~")[0].strip() or "Phenotype")
    clean(ax)
    ax.set_title(formula if title is None else title, loc="left", fontsize=11, color=INK)
    corner(ax, f"{n:,} samples")
    plain_legend(ax)
    ax.get_legend().set_loc("upper left")  # type: ignore[union-attr]
    return ax


def prior_predictive(
    tree: xr.DataTree, *, ax: Axes | None = None, draws: int = 80, title: str | None = None
) -> Axes:
    """What the prior takes to be possible: phenotypes that it predicts, and the observed.

    Each thin line is the distribution of a whole sample of phenotypes, drawn from the
    prior. The observed one should look like one of them, not like all: a prior that is
    much narrower than the data has decided before seeing them.

    Parameters
    ----------
    tree : DataTree
        What `LMM.prior_predictive` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    draws : int
        How many draws to show, evenly spaced among all.
    title : str, optional
        By default the model's formula.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the tree has no prior predictive draws.
    """
    if "prior_predictive" not in tree.children:
        raise InputError("This tree has no prior predictive draws: make it with prior_predictive.")
    if draws < 1:
        raise InputError(f"draws must be at least 1, but is {draws}.")
    predicted = tree["prior_predictive"]["y"].transpose("chain", "draw", "sample").to_numpy()
    predicted = predicted.reshape(-1, predicted.shape[-1])
    observed = np.sort(tree["observed_data"]["y"].to_numpy())
    chosen = np.unique(np.linspace(0, len(predicted) - 1, draws).astype(int))
    ax = axes_for(ax, "prior_predictive")
    share = (np.arange(len(observed)) + 0.5) / len(observed)
    left, right = np.quantile(predicted, [0.01, 0.99])
    pad = 0.05 * (observed[-1] - observed[0])
    ax.set_xlim(min(left, observed[0] - pad), max(right, observed[-1] + pad))
    ax.plot(
        np.sort(predicted[chosen], axis=1).T,
        share,
        color=LIGHT,
        linewidth=0.7,
        alpha=0.5,
        zorder=2,
        gid="predicted",
    )
    ax.plot([], [], color=LIGHT, linewidth=1.2, label=f"{len(chosen):,} draws from the prior")
    ax.plot(observed, share, color=DARK, linewidth=2.4, label="observed", zorder=4, gid="observed")
    ax.set_ylim(0, 1)
    name = str(tree.attrs.get("formula", "")).split("~")[0].strip()
    ax.set_xlabel(name or "Phenotype")
    ax.set_ylabel("Share of samples below")
    clean(ax)
    ax.set_title(
        tree.attrs.get("formula", "") if title is None else title,
        loc="left",
        fontsize=11,
        color=INK,
    )
    corner(ax, f"n = {len(observed):,}")
    legend = ax.legend(frameon=True, loc="lower right", fontsize=8.5, labelcolor=INK)
    legend.get_frame().set(edgecolor="none", facecolor="white", alpha=0.85)
    return ax


def prior_table(table: pd.DataFrame, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Posterior mean and interval of h2 under each prior.

    Parameters
    ----------
    table : DataFrame
        What `LMM.prior_table` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default the model's formula.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> x = np.random.default_rng(1).integers(0, 3, size=(80, 300))
    >>> y = np.random.default_rng(2).normal(size=80)
    >>> ax = bl.plots.prior_table(bl.LMM(y, kernel=bl.grm(x)).prior_table())
    """
    ax = axes_for(ax, "prior_table")
    names = [str(name) for name in table.index]
    at = -np.arange(len(names), dtype=np.float64)
    whiskers(ax, table["mean"], table.low, table.high, at, DARK, "o")
    ax.set_yticks(at, names)
    ax.set_ylim(-len(names) + 0.4, 0.6)
    ax.set_xlim(*_window(table.low.min(), table.high.max()))
    called = "$h^2$ on the observed scale" if table.attrs.get("scale") else "Heritability $h^2$"
    ax.set_xlabel(f"{called}: mean and {100 * table.attrs['prob']:g}% most probable")
    clean(ax)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_title(title_of(table, title), loc="left", fontsize=11, color=INK)
    return ax


def h2_report(report: H2Report, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Posterior density of h2, and under it the three intervals and those of other priors.

    Parameters
    ----------
    report : H2Report
        What `LMM.h2_report` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default what the h2 of the phenotype is called.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> x = np.random.default_rng(1).integers(0, 3, size=(80, 300))
    >>> y = np.random.default_rng(2).normal(size=80)
    >>> ax = bl.plots.h2_report(bl.LMM(y, kernel=bl.grm(x)).h2_report())
    """
    ax = axes_for(ax, "h2_report")
    ends = [report.intervals.low, report.priors.low], [report.intervals.high, report.priors.high]
    left, right = _window(min(v.min() for v in ends[0]), max(v.max() for v in ends[1]))
    x, density = report.posterior.curve()
    # A density may be infinite at an end of [0, 1]: the scale is that of the rest.
    inner = (x >= max(left, 0.002)) & (x <= min(right, 0.998))
    scale = 4.0 / (float(density[inner].max(initial=0.0)) or 1.0)
    shown = (x >= left) & (x <= right)
    low, high = report.intervals.loc["posterior", ["low", "high"]]
    inside = shown & (x >= low) & (x <= high)
    height = np.minimum(density * scale, 4.4)
    ax.fill_between(x[inside], height[inside], color=LIGHT, alpha=0.45, linewidth=0)
    ax.plot(x[shown], height[shown], color=DARK, linewidth=1.8, gid="density")
    labels, at = [], []
    for i, (name, (label, color, _, marker)) in enumerate(_INTERVALS.items()):
        row = report.intervals.loc[name]
        center = report.mean if name == "posterior" else report.estimate
        whiskers(ax, [center], [row.low], [row.high], [-1.0 - i], color, marker)
        labels.append(label)
        at.append(-1.0 - i)
    for i, (name, row) in enumerate(report.priors.iterrows()):
        y = -4.6 - i
        whiskers(ax, [row["mean"]], [row.low], [row.high], [y], FAINT, "o")
        labels.append(f"prior {name}")
        at.append(y)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_yticks(at, labels)
    ax.set_ylim(at[-1] - 0.7, 4.5)
    ax.set_xlim(left, right)
    called = "$h^2$ on the observed scale" if report.scale else "Heritability $h^2$"
    ax.set_xlabel(f"{called}, with {100 * report.level:g}% intervals")
    clean(ax)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_title(title or report.title, loc="left", fontsize=11, color=INK)
    corner(ax, f"n = {report.n:,}")
    return ax


def _window(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis of h2 that shows low to high with room, within [0, 1]."""
    room = max(0.35 * (high - low), 1e-4)
    return max(low - room, 0.0), min(high + room, 1.0)


def _h2_limits(mean: float, sd: float) -> tuple[float, float]:
    """All of [0, 1], unless the posterior would be a needle there."""
    if sd > 0.012:
        return 0.0, 1.0
    reach = max(10 * sd, 1e-4)
    return max(mean - reach, 0.0), min(mean + reach, 1.0)


def _bar_at_zero(ax: Axes, mass: float, height: float, width: float) -> None:
    """The posterior probability of h2 = 0, as a bar that would fill the height at 1."""
    ax.bar([0], [mass * height], width=0.014 * width, color=DARK, zorder=5, gid="zero")
    text = f"P($h^2$ = 0) {_probability(mass)}"
    note = annotate(ax, text, (0, max(mass, 0.12) * height), (8, 0), zorder=6)
    note.set(fontsize=9, color=DARK, path_effects=halo())


def _probability(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else "> 0.9999" if p > 0.9999 else f"= {p:.4f}"
