"""Plots of checks: calibration, coverage, designs, residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm.errors import InputError
from bayeslmm.plots.drawing import (
    ACCENT,
    DARK,
    DASHES,
    FAINT,
    INK,
    MARKERS,
    SERIES,
    annotate,
    axes_for,
    clean,
    corner,
    plain_legend,
    title_of,
)

if TYPE_CHECKING:
    from bayeslmm.model.calibration import Calibration
    from bayeslmm.model.residuals import ResidualCheck

_INTERVALS: dict[str, tuple[str, str, Any, str]] = {
    "posterior": ("posterior, highest density", SERIES[0], "-", "o"),
    "rlrt": ("likelihood ratio inverted", SERIES[2], (0, (5, 1.5)), "s"),
    "reml": ("REML and standard errors", SERIES[1], (0, (1.2, 1.2)), "D"),
}


def calibration(check: Calibration, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Simulation-based calibration: whether the ranks of the truth are uniform.

    For each quantity the empirical distribution function of the scaled ranks minus the
    uniform one. If the posterior is right, a line stays within the band all along with
    probability 95%; the band is found by simulation (Säilynoja et al. 2022), given the
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
    Säilynoja T, Bürkner P-C, Vehtari A (2022). Graphical test for discrete uniformity and its
    applications in goodness-of-fit evaluation and multiple sample comparison. Stat Comput
    32:32. doi:10.1007/s11222-022-10090-6

    Examples
    --------
    >>> import bayeslmm as bl
    >>> from bayeslmm.model.calibration import Calibration
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
    >>> from bayeslmm.model.designs import coverage
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


def _rank_steps(draws: int) -> np.ndarray:
    """Ranks at which distribution functions are compared: all, or a hundred of them."""
    return np.unique(np.linspace(0, draws - 1, min(draws, 100)).astype(int))


def _uniform_band(
    n: int, steps: np.ndarray, draws: int, *, prob: float = 0.95, simulations: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of n uniform ranks (0 to `draws`) up to each step: lower and upper ends of a band.

    At each step the band is a binomial interval; its probability is such that `prob` of
    simulated samples of ranks are within it at all steps (Säilynoja et al. 2022, section 2).
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
