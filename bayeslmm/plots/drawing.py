"""Pieces of plots: colours, sizes, axes, labels that do not collide, points that can be seen."""

from __future__ import annotations

from typing import Any

import matplotlib.patheffects as path_effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

from bayeslmm.errors import InputError
from bayeslmm.genome.scan_tables import tested_term

# Dark and light blue differ in lightness, vermillion from both in hue as well: they stay
# apart for every kind of colour vision and in grey.
DARK, LIGHT, ACCENT, INK, FAINT = "#12476f", "#6ba8d6", "#d1490c", "#262626", "#8a8a8a"
# Okabe & Ito's palette without yellow, which is faint on white; dashes help where colours fail.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = "osD^vP*"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)))
# Base pairs on the axis of a variant that is alone.
ALONE = 1e6
# Inches, by the name of the function that draws.
SIZES = {
    "manhattan": (10.0, 3.9),
    "qq": (4.8, 4.8),
    "h2": (6.6, 4.2),
    "calibration": (8.2, 4.2),
    "effects": (7.4, 1.5),
    "predictions": (8.2, 3.9),
    "prior_predictive": (6.6, 4.2),
    "fine_mapping": (8.2, 3.9),
    "coverage": (6.6, 4.2),
    "design": (6.6, 4.2),
    "h2_report": (7.6, 5.2),
    "prior_table": (6.6, 3.0),
    "residuals": (4.8, 4.8),
    "regional": (8.2, 3.9),
    "miami": (10.0, 5.2),
    "relatedness": (6.4, 5.4),
    "variance_partition": (8.2, 1.2),
    "pcs": (5.8, 4.6),
    "relatives": (6.6, 4.6),
    "inflation": (7.4, 4.6),
    "shares": (6.6, 1.6),
    "enrichment": (6.6, 1.4),
    "chromosome_h2": (6.6, 4.4),
    "liability_scales": (7.6, 3.4),
    "reliability": (4.8, 4.8),
    "ascertainment": (8.2, 4.2),
    "rg": (6.6, 4.2),
    "two_traits": (5.2, 4.8),
    "repeatability": (6.6, 4.2),
}
_PER_SNP, _TALLEST = 0.46, 30.0
LOG_P = r"$-\log_{10}\,p$"
# Thinning keeps one point per cell of a grid finer than the markers.
_CELLS_X, _CELLS_Y, _THIN_ABOVE = 1600, 500, 20_000


def thin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Positions of the points that can be seen, shape (k,): the highest of each small cell.

    Up to 20,000 points all are kept.
    """
    if len(x) <= _THIN_ABOVE:
        return np.arange(len(x))
    column = ((x - x.min()) * (_CELLS_X / (np.ptp(x) or 1.0))).astype(np.int64)
    row = ((y - y.min()) * (_CELLS_Y / (np.ptp(y) or 1.0))).astype(np.int64)
    cell = column * (_CELLS_Y + 1) + row
    highest = np.full((_CELLS_X + 1) * (_CELLS_Y + 1), -np.inf)
    np.maximum.at(highest, cell, y)
    kept = np.flatnonzero(y == highest[cell])
    # Equal values in a cell: the first is enough.
    return kept[np.sort(np.unique(cell[kept], return_index=True)[1])]


def axes_for(ax: Axes | None, kind: str, rows: int = 0) -> Axes:
    """The axes given, or those of a new figure of a size that suits the kind of plot."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figure_size(kind, rows), layout="constrained")[1]


def figure_size(kind: str, rows: int = 0) -> tuple[float, float]:
    """Inches; a plot with a row for each SNP grows with them."""
    width, height = SIZES[kind]
    return width, min(height + rows * _PER_SNP, _TALLEST)


def clean(ax: Axes) -> None:
    """Two spines, thin and grey; small outward ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.tick_params(color=FAINT, labelcolor=INK, labelsize=9, length=3)
    ax.xaxis.label.set(color=INK, size=10)
    ax.yaxis.label.set(color=INK, size=10)


def halo() -> list[path_effects.AbstractPathEffect]:
    """A white rim that keeps text legible over points."""
    return [path_effects.withStroke(linewidth=2.5, foreground="white")]


def title_of(hits: pd.DataFrame, title: str | None, p: str | None = None) -> str:
    """The title given, or the formula that a table carries and whose p-values are drawn."""
    if title is not None:
        return title
    formula = hits.attrs.get("formula", "")
    term = p or tested_term(hits.attrs)
    return f"{formula}: {term}" if formula and term else formula


def counted(number: int, noun: str) -> str:
    """A number of things: 1 variant, 2,000 variants."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def significance_line(threshold: float | None, n_tests: int) -> tuple[float, str]:
    """Height of the significance line, and its label."""
    if threshold is None:
        return -float(np.log10(0.05 / n_tests)), f"Bonferroni, 0.05 / {counted(n_tests, 'variant')}"
    if not 0 < threshold < 1:
        raise InputError(f"threshold must be a p-value between 0 and 1, but is {threshold:g}.")
    return -float(np.log10(threshold)), f"p = {threshold:g}"


def genome_axis(
    place: np.ndarray, codes: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Places on one axis; center and width of each of the k chromosomes; whether k is 1."""
    first, last = np.full(k, np.inf), np.full(k, -np.inf)
    np.minimum.at(first, codes, place)
    np.maximum.at(last, codes, place)
    widths = last - first
    if k == 1:
        return place, (first + last) / 2, widths, True
    # Gaps between chromosomes take at most 6% of the axis, however many there are.
    gap = (widths.sum() or float(k)) * min(0.008, 0.06 / k)
    starts = np.concatenate([[0.0], np.cumsum(widths + gap)[:-1]])
    return place - first[codes] + starts[codes], starts + widths / 2, widths, False


def position_ticks(ax: Axes, chrom: object) -> None:
    """Positions in Mb below an axis of base pairs, with as many digits as close ticks need."""
    ax.set_xlabel(f"Position on chromosome {chrom} (Mb)")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:.10g}"))


def chromosome_ticks(ax: Axes, labels: list[str], centers: np.ndarray, widths: np.ndarray) -> None:
    """Labels under the chromosomes, the longest first, as far as they do not collide.

    If most do not fit, they are turned upright; then as many as fit.
    """
    renderer = _renderer(ax)
    probe = ax.text(0, 0, "", fontsize=9)
    sizes = np.empty((len(labels), 2))
    for i, label in enumerate(labels):
        probe.set_text(label)
        box = probe.get_window_extent(renderer)
        sizes[i] = box.width, box.height
    probe.remove()
    pixels = ax.transData.transform(np.column_stack([centers, np.zeros(len(centers))]))[:, 0]
    space = sizes[:, 1].max() * 0.35
    kept = _not_colliding(pixels, sizes[:, 0] + space, widths)
    upright = len(kept) < 0.6 * len(labels) and max(len(label) for label in labels) > 2
    if upright:
        kept = _not_colliding(pixels, sizes[:, 1] + 0.3 * space, widths)
    ax.set_xticks(centers[kept], [labels[i] for i in kept])
    ax.tick_params(axis="x", length=0, labelrotation=90 if upright else 0)


def _not_colliding(centers: np.ndarray, widths: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Which intervals to keep, greedily by priority, so that none overlap; ascending."""
    kept: list[int] = []
    lows, highs = centers - widths / 2, centers + widths / 2
    for i in np.argsort(-priority, kind="stable"):
        if all(highs[i] <= lows[j] or lows[i] >= highs[j] for j in kept):
            kept.append(int(i))
    return np.array(sorted(kept), dtype=np.int64)


def label_line(ax: Axes, label: str, line: float, x: np.ndarray, y: np.ndarray) -> Annotation:
    """The label on the significance line, at the right end or else where it covers least."""
    text = annotate(ax, label, (0, line), (0, 3), xycoords=("axes fraction", "data"))
    text.set(fontsize=8, color=ACCENT)
    text.set_path_effects(halo())
    box = text.get_window_extent(_renderer(ax))
    frame = ax.get_window_extent()
    points = ax.transData.transform(np.column_stack([x, y]))
    at = points[(points[:, 1] > box.y0 - 3) & (points[:, 1] < box.y1 + 3), 0] - frame.x0
    room = max(frame.width - box.width, 0)
    starts = room * np.array([1, 0, 0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5])
    covered = [int(((at > s - 3) & (at < s + box.width + 3)).sum()) for s in starts]
    text.xy = (float(starts[np.argmin(covered)]) / frame.width, line)
    return text


def label_loci(
    ax: Axes,
    hits: pd.DataFrame,
    x: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    shown: np.ndarray,
    taken: Annotation,
) -> None:
    """The best variants of loci stand out; their names go where they cover least."""
    ax.plot(
        x[rows],
        y[rows],
        linestyle="none",
        marker="o",
        markersize=5,
        markerfacecolor=ACCENT,
        markeredgecolor="white",
        markeredgewidth=0.7,
        zorder=5,
        gid="leads",
    )
    if "id" not in hits:
        return
    names = hits["id"].astype(str).to_numpy()
    for _ in range(3):  # places depend on the scale, and room at the top changes the scale
        texts = _place_names(ax, x, y, rows, shown, names, taken)
        frame = ax.get_window_extent()
        excess = max(t.get_window_extent().y1 for t in texts) - frame.y1
        if excess <= 0:
            return
        ax.set_ylim(0, ax.get_ylim()[1] * (1 + 1.1 * excess / frame.height))
        for text in texts:
            text.remove()
    _place_names(ax, x, y, rows, shown, names, taken)


def _place_names(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    shown: np.ndarray,
    names: np.ndarray,
    taken: Annotation,
) -> list[Annotation]:
    renderer = _renderer(ax)
    boxes = [taken.get_window_extent(renderer)]
    frame = ax.get_window_extent()
    points = ax.transData.transform(np.column_stack([x[shown], y[shown]]))
    unit = 72 / _root(ax).dpi
    texts: list[Annotation] = []
    for row in rows[np.argsort(y[rows], kind="stable")]:
        text = annotate(ax, names[row], (x[row], y[row]), (0, 6), ha="center", zorder=6)
        text.set(fontsize=8.5, color=INK, gid="lead-name", path_effects=halo())
        box = text.get_window_extent(renderer)
        best = (np.inf, 0.0, 0.0)
        for shift in (0.0, 0.55 * box.width, -0.55 * box.width):
            shift = np.clip(shift, frame.x0 - box.x0, frame.x1 - box.x1)
            lift = 0.0
            while (hit := _first_overlap(box.translated(shift, lift), boxes)) is not None:
                lift += hit.y1 - (box.y0 + lift) + 2
            here = box.translated(shift, lift)
            inside = (points > [here.x0 - 2, here.y0]) & (points < [here.x1 + 2, here.y1])
            cost = inside.all(axis=1).sum() + 0.3 * lift + 0.02 * abs(shift)
            best = min(best, (cost, shift, lift))
        _, shift, lift = best
        boxes.append(box.translated(shift, lift))
        offset = (unit * shift, 6 + unit * lift)
        text.set_position(offset)
        texts.append(text)
        if lift:
            leader = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkB": 3}
            texts.append(annotate(ax, "", (x[row], y[row]), offset, arrowprops=leader))
    return texts


def annotate(
    ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **options: Any
) -> Annotation:
    """Text at an offset in points that does not take part in the layout."""
    note = ax.annotate(text, at, xytext=offset, textcoords="offset points", va="bottom", **options)
    note.set_in_layout(False)
    return note


def corner(ax: Axes, text: str) -> None:
    """A remark over the upper right corner."""
    note = annotate(ax, text, (1, 1), (0, 6), xycoords="axes fraction", ha="right")
    note.set(fontsize=9, color=FAINT)


def _first_overlap(box: Bbox, boxes: list[Bbox]) -> Bbox | None:
    return next((other for other in boxes if box.overlaps(other)), None)


def _renderer(ax: Axes) -> Any:
    """What measures text; the layout is settled first, so that sizes are those of the page."""
    figure = _root(ax)
    figure.draw_without_rendering()
    return figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None


def _root(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    if figure is None:
        raise InputError("These axes were removed from their figure.")
    return figure


def qq_ranks(m: int) -> np.ndarray:
    """Ranks to draw: all of the first thousand, then ever wider apart."""
    if m <= 4000:
        return np.arange(1, m + 1)
    return np.unique(np.concatenate([np.arange(1, 1001), np.geomspace(1001, m, 3000).astype(int)]))


def qq_band(ranks: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-log10 p expected at ranks (k,) of m uniform p-values, and the ends of 95% bands."""
    from scipy.special import betaincinv

    low, high = (-np.log10(betaincinv(ranks, m + 1 - ranks, q)) for q in (0.975, 0.025))
    return -np.log10((ranks - 0.5) / m), low, high


def plain_legend(ax: Axes) -> None:
    """A legend on a pale ground without frame."""
    legend = ax.legend(frameon=True, fontsize=8.5, labelcolor=INK, handlelength=2.6)
    legend.get_frame().set(edgecolor="none", facecolor="white", alpha=0.85)


def kernel_density(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (g,) and the density of draws (d,) there, mass beyond their ends reflected."""
    from arviz_stats.base import array_stats

    # The grid ends where the draws do: mass at an end stays inside.
    x, density, _ = array_stats.kde(draws, bound_correction=True)
    return np.asarray(x), np.asarray(density)


def whisker_style(color: str, marker: str) -> dict[str, Any]:
    """How points with error bars look."""
    return {
        "linestyle": "none",
        "marker": marker,
        "markersize": 5.5,
        "color": color,
        "markeredgecolor": "white",
        "markeredgewidth": 0.7,
        "elinewidth": 1.5,
        "zorder": 3,
    }


def whiskers(ax: Axes, center: Any, low: Any, high: Any, at: Any, color: str, marker: str) -> None:
    """Points with intervals, in rows."""
    ax.hlines(at, low, high, color=color, linewidth=2)
    ax.plot(
        center,
        at,
        linestyle="none",
        marker=marker,
        markersize=6.5,
        color=color,
        markeredgecolor="white",
        clip_on=False,
        zorder=4,
    )


def reml_estimate(ax: Axes, value: float, se: float, at: float, left: float, right: float) -> None:
    """The REML estimate with 1.96 standard errors, under the density."""
    whisker = None
    label = f"REML: {value:.2f}, on the boundary: no SE"
    if np.isfinite(se):
        low, high = value - 1.96 * se, value + 1.96 * se
        whisker = [[value - max(low, left)], [min(high, right) - value]]
        label = f"REML: {value:.2f}, with 1.96 SE: {low:.2f} to {high:.2f}"
    style: dict[str, Any] = {
        "marker": "o",
        "markersize": 6.5,
        "color": ACCENT,
        "markeredgecolor": "white",
    }
    bars = ax.errorbar(
        [value], [at], xerr=whisker, elinewidth=1.6, linestyle="none", zorder=5, **style
    )
    bars.lines[0].set(clip_on=False, gid="reml")
    # what the legend shows
    ax.plot([], [], linewidth=1.6 if whisker else 0, label=label, **style)


def pip_marks(ax: Axes, pip: np.ndarray, y: np.ndarray) -> None:
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
