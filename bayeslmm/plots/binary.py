"""Plots of case/control traits: h2 on its scales, whether risks mean what they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm.errors import InputError
from bayeslmm.genome.loci import require_columns
from bayeslmm.model.calibration import reliability_table
from bayeslmm.plots.drawing import ACCENT, DARK, FAINT, INK, LIGHT, MARKERS, SERIES, axes_for

_NAMES = {
    "observed": "observed scale\n(no heritability)",
    "transformed": "observed, transformed\nto the liability",
    "liability": "liability model\n(random sample)",
    "pcgc": "PCGC regression\n(case-control sample)",
}


def liability_scales(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """h2 on the observed and the liability scale, and which of them is advised.

    Parameters
    ----------
    table : DataFrame
        What `LiabilityLMM.scales` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
    """
    require_columns(table, ["mean", "low", "high", "advised"])
    ax = axes_for(ax, "liability_scales")
    rows = np.arange(len(table))[::-1]
    for y, (_, row) in zip(rows, table.iterrows(), strict=True):
        colour = ACCENT if row.advised else LIGHT
        ax.plot([row.low, row.high], [y, y], color=colour, lw=3, solid_capstyle="round")
        ax.plot(row["mean"], y, "o", color=colour, ms=8, mec="white")
        words = f"{row['mean']:.2f}  ({row.low:.2f} to {row.high:.2f})"
        ax.annotate(
            words + ("  advised" if row.advised else ""),
            (row["mean"], y),
            (0, 9),
            textcoords="offset points",
            ha="center",
            color=INK if row.advised else FAINT,
            fontsize=9,
        )
    ax.set_yticks(rows, [_NAMES.get(str(name), str(name)) for name in table.index])
    ax.set_ylim(-0.5, len(table) - 0.3)
    ax.set_xlim(min(0, table.low.min()), max(1, table.high.max()))
    ax.set_xlabel("h2")
    ax.set_title(str(table.attrs.get("formula", "")), loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def reliability(
    risk: np.ndarray, case: np.ndarray, *, bins: int = 10, ax: Axes | None = None
) -> Axes:
    """Share of cases among people of like predicted risk, against that risk.

    Parameters
    ----------
    risk : array_like, shape (a,)
        Predicted risks, as `LiabilityLMM.predict` gives them.
    case : array_like of bool, shape (a,)
        Who became a case; not used for the prediction.
    bins : int
        Groups of as many people each.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
    """
    table = reliability_table(risk, case, bins=bins)
    ax = axes_for(ax, "reliability")
    top = 1.08 * max(table.high.max(), table.risk.max())
    ax.plot([0, top], [0, top], color=FAINT, lw=1, ls=(0, (5, 1.5)), label="as predicted")
    error = np.array([table.share - table.low, table.high - table.share])
    ax.errorbar(
        table.risk, table.share, error, fmt="o", color=DARK, ecolor=LIGHT, label="observed, 95%"
    )
    ax.set(xlim=(0, top), ylim=(0, top), xlabel="predicted risk", ylabel="share of cases")
    ax.legend(frameon=False, loc="upper left")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def ascertainment(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Estimates of h2 over simulated case-control samples, by method, against the truth.

    Parameters
    ----------
    table : DataFrame
        One row per replicate: prevalence, h2 (true), and a column for each of observed,
        transformed, liability, pcgc that is to be drawn.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
    """
    require_columns(table, ["prevalence", "h2"])
    methods = [name for name in _NAMES if name in table]
    if not methods:
        raise InputError("The table has no estimates: expected a column such as 'pcgc'.")
    ax = axes_for(ax, "ascertainment")
    designs = list(table.groupby(["prevalence", "h2"]))
    for i, ((_, true), rows) in enumerate(designs):
        ax.plot([i - 0.42, i + 0.42], [true, true], color=INK, lw=1.2, zorder=1)
        for j, name in enumerate(methods):
            x = i + 0.22 * (j - (len(methods) - 1) / 2)
            values = rows[name].to_numpy()
            jitter = np.linspace(-0.05, 0.05, len(values))
            ax.plot(x + jitter, values, ".", color=SERIES[j], alpha=0.35, ms=4)
            ax.plot(
                x,
                values.mean(),
                MARKERS[j],
                color=SERIES[j],
                mec="white",
                ms=8,
                label=_NAMES[name].replace("\n", " ") if i == 0 else None,
            )
    labels = [f"prevalence {100 * key[0]:g}%\ntrue h2 {key[1]:g}" for key, _ in designs]
    ax.set_xticks(range(len(designs)), labels)
    ax.set_ylabel("estimated h2")
    ax.set_ylim(min(0, ax.get_ylim()[0]), None)
    # Above the axes, where no estimate can be.
    ax.legend(
        frameon=False, fontsize=9, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0
    )
    ax.spines[["top", "right"]].set_visible(False)
    return ax
