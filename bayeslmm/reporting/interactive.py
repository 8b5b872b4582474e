"""Figures of a scan to hover over and to zoom, by Bokeh, for a page without network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.genome.loci import neg_log10_p, placed_positions
from bayeslmm.plots.drawing import ACCENT, DARK, FAINT, INK, LIGHT, genome_axis, qq_band, thin
from bayeslmm.plots.genome import LD_COLORS, ld_class

_HEIGHT = 360
_UNKNOWN = "position unknown"


def embed(figures: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Figures as HTML.

    Parameters
    ----------
    figures : mapping of str to bokeh figure

    Returns
    -------
    head : str
        Scripts for the head of the page: the library itself and the figures' data.
    divs : dict
        For each figure the element where it appears.
    """
    from bokeh.embed import components
    from bokeh.resources import Resources

    if not figures:
        return "", {}
    script, divs = components(dict(figures))
    library = Resources(mode="inline", components=["bokeh"]).render_js()
    return f"{library}\n{script}", dict(divs)


def manhattan(hits: pd.DataFrame, line: float, *, label: str) -> Any:
    """-log10 p of every variant that can be told apart, along the genome.

    Parameters
    ----------
    hits : DataFrame
        What `bayeslmm.scan` returns.
    line : float
        -log10 of the significance threshold.
    label : str
        What the figure shows, for those who cannot see it.
    """
    from bokeh.models import FixedTicker, Span

    y = neg_log10_p(hits)
    codes, labels = pd.factorize(hits["chrom"])
    x, centers, _, single = genome_axis(placed_positions(hits), codes, len(labels))
    shown = np.flatnonzero(np.isfinite(y))
    shown = shown[thin(x[shown], y[shown])]
    plot = _figure("Chromosome", "−log₁₀ p", label)
    for parity, color in enumerate((DARK, LIGHT)):
        here = shown[codes[shown] % 2 == parity]
        _points(plot, _source(hits, x, y, here), size=4.5, color=color, line_color=None)
    plot.add_layout(
        Span(location=line, dimension="width", line_color=ACCENT, line_dash="dashed", line_width=1)
    )
    if single:
        plot.xaxis.axis_label = f"Position on chromosome {labels[0]} (Mb)"
        _in_megabases(plot)
    else:
        plot.xaxis.ticker = FixedTicker(ticks=[float(c) for c in centers])
        plot.xaxis.major_label_overrides = {
            float(c): str(name) for c, name in zip(centers, labels, strict=True)
        }
        plot.xaxis.major_label_policy = _no_overlap()
    return plot


def qq(hits: pd.DataFrame, n_tests: int, ranks: np.ndarray, rows: np.ndarray, *, label: str) -> Any:
    """Observed against expected -log10 p, with the 95% band of no effects.

    Parameters
    ----------
    hits : DataFrame
        What `bayeslmm.scan` returns.
    n_tests : int
        Variants tested.
    ranks, rows : ndarray of int, shape (k,)
        Ranks drawn, 1 the most significant, and their rows in `hits`.
    label : str
        What the figure shows, in words.
    """
    y = neg_log10_p(hits)
    expected, low, high = qq_band(ranks, n_tests)
    plot = _figure("Expected −log₁₀ p", "Observed −log₁₀ p", label)
    plot.sizing_mode, plot.max_width, plot.height = "stretch_width", 520, 420
    plot.varea(expected, low, high, fill_color="#d9dde2")
    end = float(expected.max()) * 1.04
    plot.line([0, end], [0, end], color=FAINT)
    x = np.full(len(hits), np.nan)
    x[rows] = expected
    _points(plot, _source(hits, x, y, rows), size=5, color=DARK, line_color=None)
    return plot


def regional(hits: pd.DataFrame, r2: np.ndarray, pip: np.ndarray | None, *, label: str) -> Any:
    """-log10 p of the variants around a locus, coloured by their LD with its best variant.

    Parameters
    ----------
    hits : DataFrame
        The rows of the scan in the region.
    r2 : ndarray, shape (k,)
        Squared correlation of each with the best variant.
    pip : ndarray, shape (k,), optional
        Posterior inclusion probabilities, shown on hovering; the size of a point grows with it.
    label : str
        What the figure shows, in words.
    """
    x, y = placed_positions(hits), neg_log10_p(hits)
    shown = np.flatnonzero(np.isfinite(y))
    source = _source(hits, x, y, shown)
    source.data["r2"] = r2[shown]
    source.data["color"] = [LD_COLORS[k] for k in ld_class(r2[shown])]
    inclusion = np.zeros(len(shown)) if pip is None else np.nan_to_num(pip[shown])
    source.data["size"] = 7 + 11 * inclusion
    extra = [("r² with the best", "@r2{0.00}")]
    if pip is not None:
        source.data["pip"] = [
            f"{p:.3f}" if np.isfinite(p) else "not fine-mapped" for p in pip[shown]
        ]
        extra.append(("inclusion probability", "@pip"))
    plot = _figure(f"Position on chromosome {hits['chrom'].iloc[0]} (Mb)", "−log₁₀ p", label, extra)
    _points(plot, source, size="size", color="color", line_color="white", line_width=0.5)
    _in_megabases(plot)
    return plot


def _figure(
    x_label: str, y_label: str, label: str, extra: list[tuple[str, str]] | None = None
) -> Any:
    from bokeh.models import HoverTool
    from bokeh.plotting import figure

    plot = figure(
        height=_HEIGHT,
        sizing_mode="stretch_width",
        tools="box_zoom,pan,wheel_zoom,reset",
        active_drag="box_zoom",
        active_scroll=None,
        toolbar_location="above",
        x_axis_label=x_label,
        y_axis_label=y_label,
        name=label,
    )
    rows = [("variant", "@id"), ("at", "@at"), ("p", "@p"), ("effect", "@effect")]
    plot.add_tools(HoverTool(tooltips=[*rows, *(extra or [])], renderers=[]))
    plot.toolbar.logo = None
    plot.grid.grid_line_color = "#eef1f4"
    plot.xgrid.grid_line_color = None
    plot.outline_line_color = None
    plot.y_range.start = 0
    for axis in plot.axis:
        axis.axis_line_color = axis.major_tick_line_color = FAINT
        axis.minor_tick_line_color = None
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_label_text_font_style = "normal"
    return plot


def _points(plot: Any, source: Any, **style: Any) -> None:
    """Variants as points that answer to the mouse."""
    from bokeh.models import HoverTool

    drawn = plot.scatter("x", "y", source=source, **style)
    for tool in plot.select(type=HoverTool):
        tool.renderers = [*tool.renderers, drawn]


def _source(hits: pd.DataFrame, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
    from bokeh.models import ColumnDataSource

    part = hits.iloc[rows]
    at = [
        f"{chrom}:{pos:,}" if pos > 0 else f"{chrom}, {_UNKNOWN}"
        for chrom, pos in zip(part["chrom"], part["pos"], strict=True)
    ]
    data: dict[str, Any] = {
        "x": x[rows],
        "y": y[rows],
        "id": part["id"].astype(str).tolist(),
        "at": at,
        "p": [power_of_ten(v) for v in y[rows]],
        "effect": [
            f"{beta:+.3g} (SE {se:.2g}) per {ea}"
            for beta, se, ea in zip(part["beta"], part["se"], part["ea"], strict=True)
        ],
    }
    return ColumnDataSource(data)


def power_of_ten(neg_log10: float) -> str:
    """A p-value in writing from its -log10; right also below the smallest number.

    Examples
    --------
    >>> power_of_ten(16.57), power_of_ten(400.3), power_of_ten(0.3)
    ('2.7e-17', '5.0e-401', '0.50')
    """
    if not np.isfinite(neg_log10):
        return "–"
    if neg_log10 < 3:
        return f"{10.0**-neg_log10:.2g}" if neg_log10 > 1 else f"{10.0**-neg_log10:.2f}"
    exponent = int(np.ceil(neg_log10))
    mantissa = 10.0 ** (exponent - neg_log10)
    if mantissa >= 9.95:
        mantissa, exponent = 1.0, exponent - 1
    return f"{mantissa:.1f}e-{exponent:02d}"


def _in_megabases(plot: Any) -> None:
    from bokeh.models import CustomJSTickFormatter

    plot.xaxis.formatter = CustomJSTickFormatter(code="return (tick / 1e6).toString()")


def _no_overlap() -> Any:
    from bokeh.models import NoOverlap

    return NoOverlap(min_distance=6)
