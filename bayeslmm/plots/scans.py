"""Plots of a scan: Manhattan, quantiles, a fine-mapped locus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayeslmm.errors import InputError
from bayeslmm.genome.loci import find_loci, lambda_gc, neg_log10_p, placed_positions
from bayeslmm.plots.drawing import (
    ACCENT,
    ALONE,
    DARK,
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
    counted,
    genome_axis,
    halo,
    label_line,
    label_loci,
    position_ticks,
    qq_band,
    qq_ranks,
    significance_line,
    thin,
    title_of,
)

if TYPE_CHECKING:
    from bayeslmm.genome.finemapping import FineMap


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
    margin = 0.012 * (x[tested].max() - x[tested].min() or ALONE)
    ax.set_xlim(x[tested].min() - margin, x[tested].max() + margin)
    ax.set_ylim(0, 1.08 * top)
    ax.axhline(line, color=ACCENT, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
    ax.set_ylabel(LOG_P)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    clean(ax)
    ax.set_title(title_of(hits, title, p), loc="left", fontsize=11, color=INK)
    if "n" in hits and (hits["n"] == hits["n"].iloc[0]).all():
        corner(ax, f"n = {hits['n'].iloc[0]:,}")
    text = label_line(ax, line_label, line, x[shown], y[shown])
    if single:
        position_ticks(ax, labels[0])
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
    ax.set_title(title_of(hits, title, p), loc="left", fontsize=11, color=INK)
    ax.text(
        0.04,
        0.96,
        rf"$\lambda_{{GC}}$ = {lambda_gc(10.0**-y):.3f}" + f"\n{counted(m, 'variant')} tested",
        transform=ax.transAxes,
        va="top",
        fontsize=10,
        color=INK,
        linespacing=1.5,
    )
    ax.legend(frameon=False, loc="lower right", fontsize=8.5, labelcolor=INK)
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
            label=f"{counted(row.size, 'SNP')}, "
            rf"$\log_{{10}}$ BF {row.log10_bf:.1f}, "
            f"purity {row.purity:.2f}",
            **common,
        )
        if label:
            at = int(np.flatnonzero(leads == row.lead)[0])
            note = annotate(ax, row.lead, (x[at], pip[at]), (0, 6), ha="center", zorder=6)
            note.set(fontsize=8.5, color=SERIES[i % len(SERIES)], path_effects=halo())
    margin = 0.03 * (np.ptp(x) or ALONE)
    ax.set_xlim(x.min() - margin, x.max() + margin)
    ax.set_ylim(0, 1.08)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_ylabel("Posterior inclusion probability")
    clean(ax)
    if single:
        position_ticks(ax, labels[0])
    else:
        ax.set_xlabel("SNP, in the order of the table")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(
        found.attrs.get("formula", "") if title is None else title,
        loc="left",
        fontsize=11,
        color=INK,
    )
    corner(ax, f"n = {found.attrs['n']:,}, {counted(len(table), 'SNP')}")
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
