"""Plots of several kernels: shares, enrichment, heritability of chromosomes by their length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from bayeslmm.errors import InputError, listing
from bayeslmm.model.tables import interval
from bayeslmm.plots.drawing import INK, SERIES, axes_for, clean, halo, whisker_style, whiskers

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.inputs.genotypes import Genotypes
    from bayeslmm.partition.model import PartitionedFit
    from bayeslmm.repeated.model import RepeatedFit


def shares(
    tree: xr.DataTree,
    fit: PartitionedFit | RepeatedFit | None = None,
    *,
    prob: float = 0.95,
    ax: Axes | None = None,
    title: str = "Shares of the variance",
) -> Axes:
    """Posterior share of every part of the variance, with its interval; REML beside it.

    Parameters
    ----------
    tree : DataTree
        Draws of `PartitionedLMM.posterior`, or of `RepeatedLMM.sample`.
    fit : PartitionedFit or RepeatedFit, optional
        Point estimates and +-1.96 standard errors to show beside.
    prob : float
        Probability of the shortest intervals.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str
        Title.
    """
    posterior = tree["posterior"].dataset
    if "share" in posterior and "part" in posterior["share"].dims:  # repeated measures
        names = [str(name) for name in posterior.part.data]
        draws = posterior["share"].to_numpy().reshape(-1, len(names))
    elif "h2_k" in posterior:
        names = [str(name) for name in posterior.kernel.data]
        draws = posterior["h2_k"].to_numpy().reshape(-1, len(names))
        draws = np.column_stack([draws, 1 - draws.sum(axis=1)])
        names.append("residual")
    else:
        raise InputError(
            "These draws have no shares of several kernels (h2_k), or of repeated measures (share)."
        )
    ax = axes_for(ax, "shares", len(names))
    limits = np.array([interval(column, prob) for column in draws.T])
    rows = np.arange(len(names), dtype=float)
    up = rows - 0.14 * (fit is not None)
    whiskers(ax, draws.mean(axis=0), limits[:, 0], limits[:, 1], up, SERIES[0], "o")
    handles = [_mark(ax, 0, f"posterior, {100 * prob:g}% interval")]
    if fit is not None:
        table = fit.components.loc[names]
        share = table["share" if "share" in table else "h2"]
        reach = 1.96 * table[f"{share.name}_se"].fillna(0)
        whiskers(ax, share, share - reach, share + reach, rows + 0.14, SERIES[1], "D")
        handles.append(_mark(ax, 1, "REML ± 1.96 SE (none at 0)"))
    ax.set_yticks(rows, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(min(0, ax.get_xlim()[0]))
    ax.axvline(0, color=INK, lw=0.8)
    ax.set_xlabel("share of the variance")
    _finish(ax, title)
    ax.legend(
        handles=handles,
        frameon=False,
        fontsize=8.5,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        ncols=2,
        labelcolor=INK,
    )
    return ax


def enrichment(table: pd.DataFrame, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Forest plot of enrichment: share of h2 over share of variants, with intervals.

    Parameters
    ----------
    table : DataFrame
        What `PartitionedLMM.enrichment` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        Title.
    """
    needed = ["n_variants", "enrichment", "enrichment_low", "enrichment_high", "p_enriched"]
    absent = [name for name in needed if name not in table]
    if absent:
        raise InputError(
            f"The table has no column {listing(absent)}; it should be what enrichment() returns."
        )
    ax = axes_for(ax, "enrichment", len(table))
    rows = np.arange(len(table))
    center, low, high = (
        table[name].to_numpy() for name in ("enrichment", "enrichment_low", "enrichment_high")
    )
    left = max(min(0.5, low[low > 0].min(initial=1.0) / 1.3), center.min() / 20)
    right = max(2.0, high.max() * 1.3)
    whiskers(ax, center, np.maximum(low, left), high, rows, SERIES[0], "o")
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.axvline(1, color=INK, lw=0.9, ls=(0, (3, 2)))
    ticks = [t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if left <= t <= right]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    labels = [f"{name}\n{n:,} variants" for name, n in table.n_variants.items()]
    ax.set_yticks(rows, labels)
    ax.set_ylim(len(table) - 0.5, -0.5)
    for row, p in zip(rows, table.p_enriched, strict=True):
        text = "> 0.999" if p > 0.999 else "< 0.001" if p < 0.001 else f"{p:.3f}"
        ax.annotate(
            text, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=8.5,
            color=INK, annotation_clip=False,
        )  # fmt: skip
    ax.annotate(
        "P(> 1)", (1.02, 1.02), xycoords="axes fraction", va="bottom", fontsize=8.5, color=INK
    )
    ax.set_xlabel("enrichment: share of h² / share of variants (log scale)")
    prob = table.attrs.get("prob", 0.95)
    _finish(ax, f"Enrichment, {100 * prob:g}% intervals" if title is None else title)
    return ax


def chromosome_h2(
    components: pd.DataFrame,
    genotypes: Genotypes,
    *,
    ax: Axes | None = None,
    title: str = "Share of chromosomes by their length",
) -> Axes:
    """Share of variance of each chromosome against its length, with the line through the origin.

    Polygenic traits lie on the line (Yang et al. 2011, Nat Genet 43:519); above it is what few
    large effects add.

    Parameters
    ----------
    components : DataFrame
        ``fit.components`` of a model with a kernel for each chromosome (h2 and h2_se), or the
        table of `PartitionedLMM.enrichment` (h2, h2_low, h2_high). Other rows are left out.
    genotypes : Genotypes
        Where lengths come from: from the first to the last known position.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str
        Title.
    """
    table = genotypes.variants
    known = table[table.pos > 0].groupby("chrom", sort=False).pos
    length = (known.max() - known.min()) / 1e6
    names = [str(name) for name in components.index if str(name) in length.index]
    if len(names) < 2:
        raise InputError(
            f"No chromosomes of known length among {listing(components.index)}: a kernel for each "
            "chromosome, with its label as name, is needed."
        )
    rows = components.loc[names]
    x, h2 = length[names].to_numpy(), rows.h2.to_numpy(dtype=float)
    if "h2_low" in rows:
        low, high = rows.h2_low.to_numpy(), rows.h2_high.to_numpy()
    else:
        reach = 1.96 * rows.h2_se.fillna(0).to_numpy()
        low, high = np.maximum(h2 - reach, 0), h2 + reach
    ax = axes_for(ax, "chromosome_h2")
    ax.errorbar(x, h2, [h2 - low, high - h2], **_points())
    slope = h2.sum() / x.sum()
    end = np.array([0, x.max() * 1.06])
    ax.plot(
        end,
        slope * end,
        color=SERIES[1],
        lw=1.2,
        ls=(0, (5, 1.5)),
        zorder=1,
        label="in proportion to length",
    )
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", labelcolor=INK)
    ax.set_xlim(0, end[1])
    ax.set_ylim(0)
    _name_points(ax, names, x, h2)
    ax.set_xlabel("length of the chromosome (Mb)")
    ax.set_ylabel("share of the variance")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}"))
    _finish(ax, title)
    return ax


def _name_points(ax: Axes, names: list[str], x: np.ndarray, y: np.ndarray) -> None:
    """Names beside points, each on the first side where it covers no name and no point.

    Where all sides are taken it stands on the first one.
    """
    # All in points of the page.
    at = ax.transData.transform(np.column_stack([x, y])) * 72 / ax.figure.dpi
    corner = ax.transAxes.transform([(0, 0), (1, 0)]) * 72 / ax.figure.dpi
    below_axis = corner[0] - (0, 100), corner[1]
    taken = [below_axis, *((point - 3, point + 3) for point in at)]
    size = 8.5
    for name, a, b, here in zip(names, x, y, at, strict=True):
        extent = np.array([0.62 * size * len(name), size])
        left, below, middle = -4 - extent[0], -4 - extent[1], -extent[1] / 2
        sides = [(4, 4), (left, 4), (4, below), (left, below), (7, middle), (left - 3, middle)]
        sides += [(14, 4), (left - 10, 4), (14, middle), (left - 10, middle)]
        boxes = [(here + side, here + side + extent) for side in sides]
        free = [i for i, box in enumerate(boxes) if not any(_meet(box, other) for other in taken)]
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        ax.annotate(
            name, (a, b), xytext=sides[chosen], textcoords="offset points", fontsize=size,
            color=INK, path_effects=halo(),
        )  # fmt: skip


def _meet(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether two boxes, each a lower left and an upper right corner, overlap."""
    return bool((one[0] < other[1]).all() and (other[0] < one[1]).all())


def _points() -> dict[str, Any]:
    return {
        "fmt": "o",
        "color": SERIES[0],
        "ecolor": SERIES[0],
        "elinewidth": 0.9,
        "markersize": 4.5,
        "alpha": 0.9,
    }


def _mark(ax: Axes, series: int, label: str) -> Any:
    style = whisker_style(SERIES[series], "oD"[series])
    return ax.errorbar([], [], label=label, **style)


def _finish(ax: Axes, title: str) -> None:
    clean(ax)
    ax.set_title(title, loc="left", fontsize=11, color=INK)
