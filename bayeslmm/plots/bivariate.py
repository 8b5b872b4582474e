"""Plots of two traits, public in `bayeslmm.plots`: genetic correlation, joint posteriors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from bayeslmm.errors import InputError, listing
from bayeslmm.plots.drawing import (
    ACCENT,
    DARK,
    FAINT,
    INK,
    LIGHT,
    axes_for,
    clean,
    corner,
    kernel_density,
    plain_legend,
    reml_estimate,
)

if TYPE_CHECKING:
    from bayeslmm.bivariate.genetic_correlation import RgReport

_PAIRS = ("correlations", "h2")
_BLUES = ("#cfe2f3", LIGHT, DARK)


def rg(report: RgReport, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Posterior density of the genetic correlation, its prior, and REML under it.

    Parameters
    ----------
    report : RgReport
        What `BivariateLMM.rg` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default "Genetic correlation of" both traits.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> x = np.random.default_rng(1).integers(0, 3, size=(80, 300))
    >>> y = np.random.default_rng(2).normal(size=(80, 2))
    >>> ax = bl.plots.rg(bl.BivariateLMM(y, kernel=bl.grm(x)).rg(seed=1))
    >>> ax.get_xlabel()
    'Genetic correlation'
    """
    ax = axes_for(ax, "rg")
    draws = report.tree["posterior"]["rg"].to_numpy().ravel()
    row = report.table.loc["rg"]
    x, density = kernel_density(draws)
    height = float(density.max())
    ax.plot(x, density, color=DARK, linewidth=1.8, label="posterior density", zorder=4)
    inside = (x >= row.low) & (x <= row.high)
    ax.fill_between(
        x[inside],
        density[inside],
        color=LIGHT,
        alpha=0.45,
        linewidth=0,
        label=f"{100 * report.prob:g}% most probable: {row.low:.2f} to {row.high:.2f}",
        zorder=3,
    )
    grid = np.linspace(-0.999, 0.999, 801)
    prior = np.exp(report.rg_log_prior(grid))
    ax.plot(
        grid,
        np.minimum(prior, 1.1 * height),
        color=FAINT,
        linewidth=1.3,
        linestyle=(0, (5, 2)),
        label=f"prior: {report.rg_prior}",
        zorder=2,
    )
    ax.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    reml_estimate(ax, report.fit.rg, report.fit.rg_se, -0.07 * height, -1.0, 1.0)
    ax.set_xlim(-1, 1)
    # Room for the legend above the density.
    ax.set_ylim(-0.14 * height, 1.65 * height)
    ax.set_yticks([])
    ax.set_xlabel("Genetic correlation")
    ax.set_ylabel("Density")
    clean(ax)
    one, two = report.traits
    title = f"Genetic correlation of {one} and {two}" if title is None else title
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    corner(ax, f"n = {report.n:,}")
    ax.legend(loc="upper left", frameon=False, fontsize=8.5, labelcolor=INK, handlelength=2.6)
    return ax


def two_traits(
    report: RgReport,
    what: str = "correlations",
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Joint posterior of the two correlations, or of h2 of both traits.

    Regions of highest density with 50%, 80% and 95% of the probability, and REML.

    Parameters
    ----------
    report : RgReport
        What `BivariateLMM.rg` returns.
    what : {"correlations", "h2"}
        Which pair.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default "Joint posterior".

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> x = np.random.default_rng(1).integers(0, 3, size=(80, 300))
    >>> y = np.random.default_rng(2).normal(size=(80, 2))
    >>> report = bl.BivariateLMM(y, kernel=bl.grm(x)).rg(seed=1)
    >>> bl.plots.two_traits(report, "h2").get_xlabel()
    '$h^2$ of y1'
    """
    if what not in _PAIRS:
        raise InputError(f"what='{what}' is unknown; expected one of {listing(_PAIRS)}.")
    ax = axes_for(ax, "two_traits")
    posterior = report.tree["posterior"].dataset
    if what == "h2":
        x, y = (posterior["h2"].sel(trait=trait).to_numpy().ravel() for trait in report.traits)
        ax.set(
            **{f"{axis}label": f"$h^2$ of {t}" for axis, t in zip("xy", report.traits, strict=True)}
        )
        reml, bottom = report.fit.h2.to_numpy(), 0.0
    else:
        x, y = (posterior[name].to_numpy().ravel() for name in ("rg", "re"))
        ax.set(xlabel="Genetic correlation", ylabel="Residual correlation")
        reml, bottom = np.array([report.fit.rg, report.fit.re]), -1.0
    edges, mass = _mass(x, y, bottom)
    levels = _levels(mass, (0.95, 0.8, 0.5))
    middle = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
    ax.contourf(*middle, mass.T, levels=[*levels, mass.max()], colors=_BLUES, zorder=2)
    ax.contour(*middle, mass.T, levels=levels, colors="white", linewidths=0.8, zorder=3)
    for name, color in zip(("95%", "80%", "50%"), _BLUES, strict=True):
        ax.plot([], [], marker="s", markersize=9, linestyle="none", color=color, label=name)
    if np.isfinite(reml).all():
        ax.plot(
            *reml,
            marker="D",
            markersize=7,
            linestyle="none",
            color=ACCENT,
            markeredgecolor="white",
            label="REML",
            clip_on=False,
            zorder=5,
        )
    for axis, values in ((ax.axvline, x), (ax.axhline, y)):
        if values.min() < 0 < values.max() or what == "correlations":
            axis(0, color=FAINT, linewidth=0.8, zorder=1)
    ax.set_xlim(*_limits(x, bottom))
    ax.set_ylim(*_limits(y, bottom))
    clean(ax)
    ax.set_title("Joint posterior" if title is None else title, loc="left", fontsize=11, color=INK)
    plain_legend(ax)
    return ax


def _limits(values: np.ndarray, bottom: float) -> tuple[float, float]:
    """Limits of an axis that show the draws, within the range of the quantity."""
    low, high = np.quantile(values, [0.001, 0.999])
    room = 0.25 * (high - low)
    return max(low - room, bottom), min(high + room, 1.0)


def _mass(x: np.ndarray, y: np.ndarray, bottom: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Smoothed histogram of draws: edges, and mass of each cell; reflected at the limits."""
    from scipy.ndimage import gaussian_filter

    edges = [np.linspace(*_limits(values, bottom), 121) for values in (x, y)]
    counts, *_ = np.histogram2d(x, y, bins=edges)
    # Half as much again as Scott's rule in two dimensions, in cells.
    width = [
        1.5 * float(np.std(values)) * len(values) ** (-1 / 6) / (edge[1] - edge[0])
        for values, edge in zip((x, y), edges, strict=True)
    ]
    smooth = gaussian_filter(counts, width, mode="reflect")
    return edges, smooth / smooth.sum()


def _levels(mass: np.ndarray, probabilities: tuple[float, ...]) -> list[float]:
    """Heights above which a given share of the mass lies, ascending."""
    falling = np.sort(mass, axis=None)[::-1]
    total = np.cumsum(falling)
    return [float(falling[np.searchsorted(total, p)]) for p in probabilities]
