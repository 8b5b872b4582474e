"""Saving a figure whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayeslmm.plots.drawing import figure_size
from bayeslmm.plots.partition import enrichment, shares
from bayeslmm.plots.posteriors import effects


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
