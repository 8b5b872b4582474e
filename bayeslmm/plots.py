"""Plots: functions that draw on matplotlib axes and return them.

Each takes ``ax=None``: without axes it makes a figure of a size that suits. Nothing here
touches matplotlib's global settings.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bayeslmm.drawing import (
    ACCENT,
    DARK,
    DASHES,
    FAINT,
    INK,
    LIGHT,
    LOG_P,
    MARKERS,
    SERIES,
    annotate,
    axes_for,
    chromosome_ticks,
    clean,
    corner,
    figure_size,
    genome_axis,
    halo,
    label_line,
    label_loci,
    plain_legend,
    qq_band,
    qq_ranks,
    reml_estimate,
    significance_line,
    thin,
    title_of,
    whisker_style,
    whiskers,
)
from bayeslmm.errors import InputError
from bayeslmm.loci import find_loci, neg_log10_p, placed_positions
from bayeslmm.plots_bivariate import rg, two_traits
from bayeslmm.plots_genome import miami, regional, relatedness, variance_partition
from bayeslmm.plots_liability import ascertainment, liability_scales, reliability
from bayeslmm.plots_partition import chromosome_h2, enrichment, shares
from bayeslmm.plots_structure import inflation, pcs, relatives
from bayeslmm.tables import snp_effects

__all__ = [
    "ascertainment",
    "calibration",
    "chromosome_h2",
    "coverage",
    "design",
    "effects",
    "enrichment",
    "fine_mapping",
    "h2",
    "h2_report",
    "inflation",
    "liability_scales",
    "manhattan",
    "miami",
    "pcs",
    "prior_predictive",
    "prior_table",
    "qq",
    "regional",
    "relatedness",
    "relatives",
    "reliability",
    "residuals",
    "rg",
    "save",
    "shares",
    "two_traits",
    "variance_partition",
]

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.calibration import Calibration
    from bayeslmm.finemapping import FineMap
    from bayeslmm.heritability import H2Report
    from bayeslmm.lmm import LMM
    from bayeslmm.residuals import ResidualCheck


_INTERVALS: dict[str, tuple[str, str, Any, str]] = {
    "posterior": ("posterior, highest density", SERIES[0], "-", "o"),
    "rlrt": ("likelihood ratio inverted", SERIES[2], (0, (5, 1.5)), "s"),
    "reml": ("REML and standard errors", SERIES[1], (0, (1.2, 1.2)), "D"),
}


def manhattan(
    hits: pd.DataFrame,
    *,
    p: str | None = None,
    ax: Axes | None = None,
    threshold: float | None = None,
    label_top: int = 3,
    locus_gap: float = 5e6,
    title: str | None = None,
) -> Axes:
    """Manhattan plot: -log10 p of every variant along the genome.

    Chromosomes are labels, in the order in which they appear. A variant without a known
    position (pos <= 0) is drawn between its neighbours in the table. Of points that
    would cover each other only one is drawn, the most significant always.

    Parameters
    ----------
    hits : DataFrame
        What `bayeslmm.scan` returns (columns chrom, pos, id and the p-values).
    p : str, optional
        Column with p-values, as ``"p_lrt"``; by default neg_log10_p.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    threshold : float, optional
        p-value of the significance line; by default Bonferroni's, 0.05 divided by the
        number of variants tested.
    label_top : int
        How many of the significant loci, the strongest first, get the name of their
        best variant.
    locus_gap : float
        Base pairs; significant variants closer than this share a locus and a label.
    title : str, optional
        By default the model's formula, if the table has it.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the table lacks a column or holds no tested variant.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> model = bl.LMM("cd8 ~ sex", mice.phenotypes)
    >>> ax = bl.plots.manhattan(bl.scan(model, mice.genotypes.select(chrom=[1, 17])))
    >>> ax.get_xlabel()
    'Chromosome'
    """
    y = neg_log10_p(hits, p)
    tested = np.isfinite(y)
    n_tests = int(tested.sum())
    if not n_tests:
        raise InputError("There is nothing to draw: no variant of the table has a p-value.")
    place = placed_positions(hits)
    codes, labels = pd.factorize(hits["chrom"])
    x, centers, widths, single = genome_axis(place, codes, len(labels))
    line, line_label = significance_line(threshold, n_tests)
    ax = axes_for(ax, "manhattan")

    top = max(float(y[tested].max()), line)
    shown = np.flatnonzero(tested)
    shown = shown[thin(x[shown], y[shown])]
    for parity, color in enumerate((DARK, LIGHT)):
        here = shown[codes[shown] % 2 == parity]
        ax.plot(
            x[here],
            y[here],
            linestyle="none",
            marker="o",
            markersize=2.6,
            markeredgewidth=0,
            color=color,
            rasterized=True,
            gid=f"variants-{parity}",
        )
    margin = 0.012 * (x[tested].max() - x[tested].min() or 1.0)
    ax.set_xlim(x[tested].min() - margin, x[tested].max() + margin)
    ax.set_ylim(0, 1.08 * top)
    ax.axhline(line, color=ACCENT, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
    ax.set_ylabel(LOG_P)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    clean(ax)
    ax.set_title(title_of(hits, title), loc="left", fontsize=11, color=INK)
    if "n" in hits and (hits["n"] == hits["n"].iloc[0]).all():
        corner(ax, f"n = {hits['n'].iloc[0]:,}")
    text = label_line(ax, line_label, line, x[shown], y[shown])
    if single:
        ax.set_xlabel(f"Position on chromosome {labels[0]} (Mb)")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g}"))
    else:
        ax.set_xlabel("Chromosome")
        chromosome_ticks(ax, [str(label) for label in labels], centers, widths)
    loci = find_loci(hits, 10.0**-line, p=p, gap=locus_gap).head(max(label_top, 0))
    if len(loci):
        label_loci(ax, hits, x, y, loci["row"].to_numpy(), shown, text)
    return ax


def qq(
    hits: pd.DataFrame,
    *,
    p: str | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Quantile-quantile plot of p-values, with the genomic control factor.

    The band holds, at each rank and by itself, the p-value of that rank with probability
    95% if no variant has an effect and variants are independent: the i-th smallest of m
    uniform values is Beta(i, m + 1 - i). Linkage disequilibrium makes the true band wider.

    Parameters
    ----------
    hits : DataFrame
        What `bayeslmm.scan` returns.
    p : str, optional
        Column with p-values, as ``"p_lrt"``; by default neg_log10_p.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default the model's formula, if the table has it.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the table lacks the column or holds no tested variant.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> hits = pd.DataFrame({"p": np.linspace(0.0005, 0.9995, 1000)})
    >>> ax = bl.plots.qq(hits, p="p")
    """
    from bayeslmm.association import lambda_gc

    y = neg_log10_p(hits, p)
    y = np.sort(y[np.isfinite(y)])[::-1]
    m = len(y)
    if not m:
        raise InputError("There is nothing to draw: no variant of the table has a p-value.")
    ranks = qq_ranks(m)
    expected, low, high = qq_band(ranks, m)
    ax = axes_for(ax, "qq")
    ax.fill_between(
        expected,
        low,
        high,
        color="#d9dde2",
        linewidth=0,
        label="expected without effects (95%)",
        zorder=1,
    )
    end = 1.04 * expected.max()
    ax.plot([0, end], [0, end], color=FAINT, linewidth=1, zorder=2)
    ax.plot(
        expected,
        y[ranks - 1],
        linestyle="none",
        marker="o",
        markersize=3,
        markeredgewidth=0,
        color=DARK,
        rasterized=True,
        zorder=3,
        gid="variants",
    )
    ax.set_xlim(0, end)
    ax.set_ylim(0, 1.06 * max(float(y[0]), float(high.max())))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    ax.set_xlabel(f"Expected {LOG_P}")
    ax.set_ylabel(f"Observed {LOG_P}")
    clean(ax)
    ax.set_title(title_of(hits, title), loc="left", fontsize=11, color=INK)
    ax.text(
        0.04,
        0.96,
        rf"$\lambda_{{GC}}$ = {lambda_gc(10.0**-y):.3f}" + f"\n{m:,} variants tested",
        transform=ax.transAxes,
        va="top",
        fontsize=10,
        color=INK,
        linespacing=1.5,
    )
    ax.legend(frameon=False, loc="lower right", fontsize=8.5, labelcolor=INK)
    return ax


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
        By default "Heritability of" the phenotype.

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
    ax.set_xlabel("Heritability $h^2$: share of the variance that the genotypes explain")
    ax.set_ylabel("Probability density")
    clean(ax)
    ax.spines["left"].set_visible(False)
    name = model.formula.split("~")[0].strip()
    ax.set_title(title or f"Heritability of {name}", loc="left", fontsize=11, color=INK)
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


def calibration(check: Calibration, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Simulation-based calibration: whether the ranks of the truth are uniform.

    For each quantity the empirical distribution function of the scaled ranks minus the
    uniform one. If the posterior is right, a line stays within the band all along with
    probability 95%; the band is found by simulation (Sailynoja et al. 2022), given the
    number of replicates and draws. A line above 0 all along: the truth is too often among
    the lowest draws, the posterior too high; below 0: too low. Above on the left and below
    on the right: the posterior is too narrow; the reverse: too wide.

    Parameters
    ----------
    check : Calibration
        What `bayeslmm.calibrate` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default what was calibrated.

    Returns
    -------
    Axes

    References
    ----------
    Sailynoja T, Burkner PC, Vehtari A (2022). Graphical test for discrete uniformity and
    its applications in goodness-of-fit evaluation and multiple sample comparison. Stat
    Comput 32:32. doi:10.1007/s11222-022-10090-6

    Examples
    --------
    >>> import bayeslmm as bl
    >>> from bayeslmm.calibration import Calibration
    >>> ranks = np.random.default_rng(1).integers(0, 100, size=(200, 2))
    >>> check = Calibration(pd.DataFrame(ranks, columns=["h2", "s2"]), 99, "an example")
    >>> ax = bl.plots.calibration(check)
    """
    n, names = len(check.ranks), list(check.ranks.columns)
    if not n or not names:
        raise InputError("There is nothing to draw: the calibration has no ranks.")
    steps = _rank_steps(check.draws)
    z = (steps + 1) / (check.draws + 1)
    low, high = _uniform_band(n, steps, check.draws)
    ax = axes_for(ax, "calibration")
    grid = np.concatenate([[0], z, [1]])
    ax.fill_between(
        grid,
        np.concatenate([[0], low / n - z, [0]]),
        np.concatenate([[0], high / n - z, [0]]),
        color="#d9dde2",
        linewidth=0,
        label="95% if calibrated",
        zorder=1,
    )
    ax.axhline(0, color=FAINT, linewidth=1, zorder=2)
    few = len(names) <= len(SERIES)
    for j, name in enumerate(names):
        below = np.searchsorted(np.sort(check.ranks[name]), steps, side="right")
        outside = bool(((below < low) | (below > high)).any())
        style: dict[str, Any] = {"color": SERIES[j % len(SERIES)], "linewidth": 1.6}
        style["linestyle"] = DASHES[j % len(DASHES)]
        if not few:
            style = {"color": ACCENT if outside else DARK, "linewidth": 1.6 if outside else 0.8}
        ax.plot(
            grid,
            np.concatenate([[0], below / n - z, [0]]),
            label=f"{name} (leaves the band)" if outside else name if few else None,
            zorder=4 if outside else 3,
            gid=f"ranks-{name}",
            **style,
        )
    ax.set_xlim(0, 1)
    reach = 1.12 * max(abs(limit) for limit in ax.dataLim.intervaly)
    ax.set_ylim(-reach, reach)
    ax.set_xlabel("Rank of the truth among the draws, scaled to 0 to 1")
    ax.set_ylabel("ECDF minus uniform")
    clean(ax)
    ax.set_title(
        f"Calibration of {check.method}" if title is None else title,
        loc="left",
        fontsize=11,
        color=INK,
    )
    corner(ax, f"{n:,} replicates, {check.draws:,} draws")
    if not few:
        ax.plot([], [], color=DARK, linewidth=0.8, label=f"{len(names)} quantities")
    ax.legend(
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=8.5,
        labelcolor=INK,
        handlelength=2.2,
    )
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
        _pips(ax, table["pip"].to_numpy(), y)
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


def fine_mapping(
    found: FineMap, *, ax: Axes | None = None, label: bool = True, title: str | None = None
) -> Axes:
    """Fine-mapping: the posterior inclusion probability of every SNP of a region.

    SNPs of a credible set have its colour and marker. Those without a known position are
    drawn between their neighbours in the table; SNPs of several chromosomes by their order.

    Parameters
    ----------
    found : FineMap
        What `bayeslmm.finemap` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    label : bool
        Whether the SNP of the highest probability of each set gets its name.
    title : str, optional
        By default the model's formula.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> model = bl.LMM("cd8 ~ sex", mice.phenotypes)
    >>> found = bl.finemap(model, mice.genotypes, region="17:30000000-38000000", seed=1)
    >>> ax = bl.plots.fine_mapping(found)
    """
    table = found.variants
    labels = table["chrom"].unique()
    single = len(labels) == 1
    x = placed_positions(table) if single else np.arange(1.0, len(table) + 1)
    pip, cs = table["pip"].to_numpy(), table["cs"].to_numpy()
    ax = axes_for(ax, "fine_mapping")
    common: dict[str, Any] = {"linestyle": "none", "clip_on": False}
    other = cs == 0
    ax.plot(
        x[other],
        pip[other],
        marker="o",
        markersize=3,
        markeredgewidth=0,
        color=FAINT,
        zorder=3,
        gid="variants-0",
        **common,
    )
    leads = table.set_index("id").index
    for i, row in enumerate(found.credible_sets.itertuples()):
        here = cs == row.Index
        ax.plot(
            x[here],
            pip[here],
            marker=MARKERS[i % len(MARKERS)],
            markersize=6.5,
            markeredgewidth=0.7,
            markeredgecolor="white",
            color=SERIES[i % len(SERIES)],
            zorder=4,
            gid=f"variants-{row.Index}",
            label=f"{row.size:,} SNP{'s' * (row.size != 1)}, "
            rf"$\log_{{10}}$ BF {row.log10_bf:.1f}, "
            f"purity {row.purity:.2f}",
            **common,
        )
        if label:
            at = int(np.flatnonzero(leads == row.lead)[0])
            note = annotate(ax, row.lead, (x[at], pip[at]), (0, 6), ha="center", zorder=6)
            note.set(fontsize=8.5, color=SERIES[i % len(SERIES)], path_effects=halo())
    margin = 0.03 * (np.ptp(x) or 1.0)
    ax.set_xlim(x.min() - margin, x.max() + margin)
    ax.set_ylim(0, 1.08)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_ylabel("Posterior inclusion probability")
    clean(ax)
    if single:
        ax.set_xlabel(f"Position on chromosome {labels[0]} (Mb)")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g}"))
    else:
        ax.set_xlabel("SNP, in the order of the table")
    ax.set_title(
        found.attrs.get("formula", "") if title is None else title,
        loc="left",
        fontsize=11,
        color=INK,
    )
    corner(ax, f"n = {found.attrs['n']:,}, {len(table):,} SNPs")
    if len(found.credible_sets):
        ax.legend(
            title=f"{100 * found.attrs['coverage']:g}% credible sets",
            title_fontsize=8.5,
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            fontsize=8.5,
            labelcolor=INK,
            alignment="left",
        )
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


# Intervals for h2: label, colour, dashes, marker.


def coverage(
    table: pd.DataFrame,
    *,
    what: Literal["coverage", "width"] = "coverage",
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """How often, or how wide, intervals for h2 are over the true value.

    Parameters
    ----------
    table : DataFrame
        What `LMM.coverage` returns.
    what : {"coverage", "width"}
        Coverage, with the band that 95% of simulations of a right interval stay in; or the
        mean width.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default the model's formula, if the table has it.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> from bayeslmm.designs import coverage
    >>> table = coverage(bl.family_eigenvalues(50, 2), true_h2=[0, 0.5], replicates=100)
    >>> ax = bl.plots.coverage(table)
    """
    if what not in ("coverage", "width"):
        raise InputError(f"what='{what}' is unknown; expected 'coverage' or 'width'.")
    ax = axes_for(ax, "coverage")
    level = table.attrs["level"]
    for name, (label, color, dashes, marker) in _INTERVALS.items():
        rows = table[table.interval == name]
        ax.plot(
            rows.true_h2,
            rows[what],
            color=color,
            linestyle=dashes,
            marker=marker,
            markersize=4.5,
            linewidth=1.6,
            label=label,
            zorder=3,
            gid=f"{what}-{name}",
        )
    if what == "coverage":
        reach = 1.96 * np.sqrt(level * (1 - level) / table.attrs["replicates"])
        ax.axhspan(level - reach, level + reach, color="#d9dde2", linewidth=0, zorder=1)
        ax.axhline(level, color=FAINT, linewidth=1, zorder=2)
        # An interval that never covers would make all others a line.
        shown = table.coverage[table.coverage > level - 0.25]
        ax.set_ylim(min(shown.min(), level - 0.05) - 0.01, 1.004)
        below = table[table.coverage < ax.get_ylim()[0]]
        for row in below.itertuples():
            side = ("left", 8) if row.true_h2 < 0.5 else ("right", -8)
            note = annotate(
                ax, f"{row.coverage:.2f}", (row.true_h2, ax.get_ylim()[0]), (side[1], 6)
            )
            note.set(color=_INTERVALS[row.interval][1], fontsize=8.5, ha=side[0])
    else:
        ax.set_ylim(0, 1.08 * table.width.max())
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("True heritability $h^2$")
    ax.set_ylabel(f"Coverage of {100 * level:g}% intervals" if what == "coverage" else "Mean width")
    clean(ax)
    ax.set_title(title_of(table, title), loc="left", fontsize=11, color=INK)
    if "n" in table.attrs:
        corner(ax, f"n = {table.attrs['n']:,}")
    plain_legend(ax)
    return ax


def design(
    table: pd.DataFrame,
    *,
    column: str | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Power to exclude h2 = 0, or expected uncertainty, over the true h2.

    Parameters
    ----------
    table : DataFrame
        What `bayeslmm.design` returns.
    column : str, optional
        Column to draw, a line for each n. By default the power of the three criteria if there
        is one n, and "power_rlrt" if there are several.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default none.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> ax = bl.plots.design(bl.design(bl.family_eigenvalues(50, 2), replicates=100))
    """
    sizes = list(dict.fromkeys(table.n))
    if column is not None and (column not in table or column in ("n", "true_h2")):
        known = [name for name in table if name not in ("n", "true_h2")]
        raise InputError(f"column='{column}' is not in the table; expected one of {known}.")
    ax = axes_for(ax, "design")
    if column is None and len(sizes) == 1:
        bf = 10 ** table.attrs["log10_bf"]
        lines = {
            "power_rlrt": f"{100 * table.attrs['level']:g}% confidence interval",
            "power_posterior": f"{100 * table.attrs['level']:g}% posterior interval",
            "power_bf": f"Bayes factor above {bf:.3g}",
        }
        drawn = [(label, table[name], table.true_h2) for name, label in lines.items()]
    else:
        column = column or "power_rlrt"
        groups = [(f"n = {size:,}", table[table.n == size]) for size in sizes]
        drawn = [(label, rows[column], rows.true_h2) for label, rows in groups]
    for j, (label, y, x) in enumerate(drawn):
        ax.plot(
            x,
            y,
            color=SERIES[j % len(SERIES)],
            linestyle=DASHES[j % len(DASHES)],
            marker=MARKERS[j % len(MARKERS)],
            markersize=4.5,
            linewidth=1.6,
            label=label,
        )
    power = column is None or column.startswith("power")
    if power:
        ax.axhline(1 - table.attrs["level"], color=FAINT, linewidth=0.8, zorder=1)
        ax.set_ylim(0, 1.02)
    else:
        ax.set_ylim(0, None)
    names = {
        "se": "Expected standard error of $h^2$",
        "posterior_sd": "Mean posterior sd of $h^2$",
        "posterior_width": "Mean width of the posterior interval",
        "rlrt_width": "Mean width of the confidence interval",
    }
    ax.set_ylabel("Probability of excluding $h^2$ = 0" if power else names[str(column)])
    ax.set_xlabel("True heritability $h^2$")
    clean(ax)
    ax.set_title(title or "", loc="left", fontsize=11, color=INK)
    if len(sizes) == 1:
        corner(ax, f"n = {sizes[0]:,}")
    plain_legend(ax)
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
    ax.set_xlabel(f"Heritability $h^2$: mean and {100 * table.attrs['prob']:g}% most probable")
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
        By default "Heritability of" the phenotype, with its scale.

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
    ax.set_xlabel(f"Heritability $h^2$, with {100 * report.level:g}% intervals")
    clean(ax)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    scale_name = f" ({report.scale})" if report.scale else ""
    ax.set_title(
        title or f"Heritability of {report.name}{scale_name}", loc="left", fontsize=11, color=INK
    )
    corner(ax, f"n = {report.n:,}")
    return ax


def residuals(check: ResidualCheck, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Normal quantiles of whitened residuals, with a band and the outliers' names.

    The band holds each point by itself with probability 95% if residuals are normal.

    Parameters
    ----------
    check : ResidualCheck
        What `bayeslmm.check_residuals` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default none.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> y = np.random.default_rng(1).normal(size=100)
    >>> ax = bl.plots.residuals(bl.check_residuals(bl.LMM(y)))
    """
    from scipy.special import betaincinv, ndtri

    whitened = check.table.whitened.sort_values()
    n = len(whitened)
    rank = np.arange(1, n + 1)
    expected = ndtri((rank - 0.375) / (n + 0.25))
    low, high = (ndtri(betaincinv(rank, n + 1 - rank, q)) for q in (0.025, 0.975))
    ax = axes_for(ax, "residuals")
    ax.fill_between(
        expected, low, high, color="#d9dde2", linewidth=0, label="95% if normal", zorder=1
    )
    ax.plot(expected[[0, -1]], expected[[0, -1]], color=FAINT, linewidth=1, zorder=2)
    ax.plot(
        expected,
        whitened,
        linestyle="none",
        marker="o",
        markersize=3,
        markeredgewidth=0,
        color=DARK,
        zorder=3,
        gid="whitened",
    )
    place = pd.Series(expected, index=whitened.index)
    for name in check.outliers.index[:5]:
        side = ("right", -7) if place[name] > 0 else ("left", 7)
        note = annotate(ax, str(name), (place[name], whitened[name]), (side[1], 0), zorder=5)
        note.set(ha=side[0], va="center", fontsize=8.5, color=ACCENT)
    ax.set_xlabel("Expected normal quantile")
    ax.set_ylabel("Whitened residual (sd)")
    clean(ax)
    ax.set_title(title or "Residuals", loc="left", fontsize=11, color=INK)
    corner(ax, f"n = {n:,}")
    plain_legend(ax)
    return ax


def save(
    path: str | os.PathLike[str], draw: Callable[..., Axes], data: Any, **options: Any
) -> None:
    """Draw with one of the functions here and write the figure to a file.

    Pyplot is not used: no window, no state that outlives the call.

    Parameters
    ----------
    path : path-like
        The file; its ending names the format (.png, .pdf, .svg).
    draw : callable
        One of the functions here, as `manhattan`.
    data : DataFrame, LMM, DataTree, Calibration, FineMap, H2Report, RgReport or ResidualCheck
        What it draws.
    **options
        Passed to it.
    """
    rows = 0
    if draw is effects or draw is shares:
        rows = data["posterior"].sizes["snp" if draw is effects else "kernel"]
    elif draw is enrichment:
        rows = len(data)
    figure = Figure(figsize=figure_size(draw.__name__, rows), layout="constrained")
    draw(data, ax=figure.add_subplot(), **options)
    figure.savefig(path, dpi=160)


# -- pieces ----------------------------------------------------------------------------------


def _rank_steps(draws: int) -> np.ndarray:
    """Ranks at which distribution functions are compared: all, or a hundred of them."""
    return np.unique(np.linspace(0, draws - 1, min(draws, 100)).astype(int))


def _uniform_band(
    n: int, steps: np.ndarray, draws: int, *, prob: float = 0.95, simulations: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of n uniform ranks (0 to `draws`) up to each step: lower and upper ends of a band.

    At each step the band is a binomial interval; its probability is such that `prob` of
    simulated samples of ranks are within it at all steps (Sailynoja et al. 2022, section 2).
    """
    from scipy.stats import binom

    z = (steps + 1) / (draws + 1)
    rng = np.random.default_rng(0)
    ranks = np.sort(rng.integers(0, draws + 1, size=(simulations, n)), axis=1)
    counts = np.array([np.searchsorted(row, steps, side="right") for row in ranks])
    below = binom.cdf(np.arange(n + 1)[:, None], n, z)
    column = np.arange(len(steps))
    at_most = below[counts, column]
    at_least = 1 - np.where(counts > 0, below[np.maximum(counts - 1, 0), column], 0.0)
    tail = float(np.quantile(np.minimum(at_most, at_least).min(axis=1), 1 - prob))
    return binom.ppf(tail, n, z), binom.isf(tail, n, z)


def _pips(ax: Axes, pip: np.ndarray, y: np.ndarray) -> None:
    """Posterior inclusion probabilities in a column on the right."""
    for row, value in zip(y, pip, strict=True):
        text = "> 0.999" if value > 0.9995 else "< 0.001" if value < 0.0005 else f"{value:.3f}"
        ax.annotate(
            text,
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
            gid="pip",
        )
    ax.annotate(
        "PIP",
        (1, 1),
        xycoords="axes fraction",
        xytext=(8, 5),
        textcoords="offset points",
        fontsize=9,
        color=FAINT,
    )


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
