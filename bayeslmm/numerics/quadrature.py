"""A density on [0, 1], known up to a constant: its integral, moments, intervals, exact draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

_ORDER = 15
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_ORDER)
# Panels that resolve both ends before any adaptation.
_BREAKS = np.array([0, 1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.03, 0.07, 0.15, 0.25, 0.375, 0.5])
_START = np.unique(np.concatenate([_BREAKS, 1 - _BREAKS]))
_FINE = np.linspace(-1, 1, 25)
_DEGREES = np.arange(_ORDER)
# From values at the nodes to the Legendre series of the polynomial through them.
_TO_SERIES = (
    (_DEGREES[:, None] + 0.5) * np.polynomial.legendre.legvander(_NODES, _ORDER - 1).T * _WEIGHTS
)
_BELOW_1 = 1 - 2.0**-53
_PEAKS = 8
# A drop of the log density by this much leaves 1e-22 of it.
_NEGLIGIBLE = 50.0


@dataclass(frozen=True, repr=False)
class UnitDensity:
    """A normalised density on [0, 1], with a point mass at 0 if there is one.

    Attributes
    ----------
    x, density : ndarray, shape (G,)
        Nodes, ascending, and the density of the continuous part there (its integral is 1).
    weights : ndarray, shape (G,)
        Quadrature weights times density: probabilities of the nodes; they sum to 1.
    edges : ndarray, shape (B + 1,)
        Ends of the panels of nodes.
    log_integral : float
        Log of the integral of the unnormalised density, point mass included.
    mass_at_0 : float
        Probability of exactly 0.
    """

    x: np.ndarray
    density: np.ndarray
    weights: np.ndarray
    edges: np.ndarray
    log_integral: float
    mass_at_0: float = 0.0

    def __repr__(self) -> str:
        low, high = self.hdi(0.95)
        at_0 = f", P(0) = {self.mass_at_0:.3g}" if self.mass_at_0 else ""
        return (
            f"<density on [0, 1]: mean {self.mean:.4f}, sd {self.sd:.4f}, "
            f"95% highest density {low:.4f} to {high:.4f}{at_0}>"
        )

    @property
    def mean(self) -> float:
        """Mean, the point mass included."""
        return float((1 - self.mass_at_0) * (self.weights @ self.x))

    @property
    def sd(self) -> float:
        """Standard deviation, the point mass included."""
        spread = (1 - self.mass_at_0) * (self.weights @ (self.x - self.mean) ** 2)
        return float(np.sqrt(spread + self.mass_at_0 * self.mean**2))

    def expectation(self, values: np.ndarray) -> np.ndarray:
        """Mean of a function given at the nodes, shape (G, ...), under the continuous part."""
        return np.tensordot(self.weights, values, axes=1)

    def reweighted(self, log_factor: np.ndarray) -> UnitDensity:
        """A density without point mass times a function at the nodes, shape (G,), normalised.

        For a factor that varies no faster than the nodes resolve.
        """
        top = float(np.max(log_factor))
        factor = np.exp(log_factor - top)
        total = float(self.weights @ factor)
        return UnitDensity(
            self.x,
            self.density * factor / total,
            self.weights * factor / total,
            self.edges,
            self.log_integral + top + float(np.log(total)),
        )

    def with_mass_at_0(self, prior_mass: float, log_at_0: float) -> UnitDensity:
        """A point mass at 0 added to the continuous part, with its prior probability.

        `log_at_0` is the log-likelihood at 0 on the scale of `log_integral`.
        """
        if prior_mass == 0:
            return self
        spike, slab = np.log(prior_mass) + log_at_0, np.log1p(-prior_mass) + self.log_integral
        total = float(np.logaddexp(spike, slab))
        return replace(self, log_integral=total, mass_at_0=float(np.exp(spike - total)))

    def interpolate(self, values: np.ndarray, x: np.ndarray) -> np.ndarray:
        """A smooth function known at the nodes, shape (G, ...), at any x (N,): shape (N, ...).

        The polynomial through each panel's nodes: panels are as narrow as the density
        needs, which serves functions that vary no faster.
        """
        panel = np.clip(np.searchsorted(self.edges, x, side="right") - 1, 0, len(self.edges) - 2)
        lo, hi = self.edges[panel], self.edges[panel + 1]
        t = np.clip((2 * x - lo - hi) / (hi - lo), -1, 1)
        cardinal = np.polynomial.legendre.legvander(t, _ORDER - 1) @ _TO_SERIES
        flat = values.reshape(-1, _ORDER, int(np.prod(values.shape[1:])))
        return np.einsum("nk,nkv->nv", cardinal, flat[panel]).reshape(len(x), *values.shape[1:])

    def cdf(self, x: np.ndarray | float) -> np.ndarray:
        """P(X <= x)."""
        inner = self._continuous_cdf(np.asarray(x, dtype=np.float64))
        return np.where(np.asarray(x) < 0, 0.0, self.mass_at_0 + (1 - self.mass_at_0) * inner)

    def quantile(self, q: np.ndarray | float) -> np.ndarray:
        """Smallest x with P(X <= x) >= q."""
        q = np.asarray(q, dtype=np.float64)
        if self.mass_at_0 >= 1:
            return np.zeros_like(q)
        inner = np.clip((q - self.mass_at_0) / (1 - self.mass_at_0), 0, 1)
        return np.where(q <= self.mass_at_0, 0.0, self._continuous_quantile(inner))

    def hdi(self, prob: float = 0.95) -> tuple[float, float]:
        """Narrowest interval that holds `prob`: the highest-density one if there is one mode.

        It begins at 0 if that, with the point mass there, makes it narrowest.
        """
        upper = float(self.quantile(prob))
        # What the continuous part alone must hold for an interval without 0.
        inner = prob / (1 - self.mass_at_0) if self.mass_at_0 < 1 else np.inf
        if inner >= 1:
            return 0.0, upper
        last = float(self._continuous_quantile(np.array(1 - inner)))
        grid = np.unique(self._grid())
        low = np.append(grid[grid < last], last)
        best, width = 0, np.empty(0)
        for _ in range(3):
            high = self._continuous_quantile(np.minimum(self._continuous_cdf(low) + inner, 1))
            width = high - low
            best = int(np.argmax(width <= width.min() * (1 + 1e-10)))
            interval = float(low[best]), float(high[best])
            low = np.linspace(low[max(best - 1, 0)], low[min(best + 1, len(low) - 1)], 41)
        return (0.0, upper) if self.mass_at_0 > 0 and upper < width[best] else interval

    def draw(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Independent draws by inversion of the distribution function."""
        return self.quantile(rng.random(size))

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (x, density) close enough to draw, the continuous part only."""
        panels = len(self.edges) - 1
        values = np.polynomial.legendre.legvander(_FINE, _ORDER - 1) @ self._series().T
        values = np.maximum(values, 0).reshape(-1, panels).T
        return self._grid().ravel(), values.ravel() * (1 - self.mass_at_0)

    def _grid(self) -> np.ndarray:
        """Points in every panel, both ends included, shape (panels, points)."""
        return self.edges[:-1, None] + np.diff(self.edges)[:, None] * (_FINE + 1) / 2

    def _series(self) -> np.ndarray:
        """Legendre series of the polynomial through each panel's nodes, (panels, order)."""
        return self.density.reshape(-1, _ORDER) @ _TO_SERIES.T

    def _cumulative(self) -> tuple[np.ndarray, np.ndarray]:
        """Probability below each edge, and the series of what each panel adds to it."""
        legendre = np.polynomial.legendre
        half = np.diff(self.edges)[:, None] / 2
        series = legendre.legint(self._series(), lbnd=-1, axis=1) * half
        below = np.concatenate([[0.0], np.cumsum(self.weights.reshape(-1, _ORDER).sum(axis=1))])
        return below / below[-1], series

    def _continuous_cdf(self, x: np.ndarray) -> np.ndarray:
        below, series = self._cumulative()
        panel = np.clip(np.searchsorted(self.edges, x, side="right") - 1, 0, len(series) - 1)
        lo, hi = self.edges[panel], self.edges[panel + 1]
        t = np.clip((2 * x - lo - hi) / (hi - lo), -1, 1)
        return np.clip(_series_at(t, series[panel]) + below[panel], below[panel], below[panel + 1])

    def _start(self, q: np.ndarray, panel: np.ndarray) -> np.ndarray:
        """Linear interpolation of the quantile, in the coordinate of its panel."""
        below, series = self._cumulative()
        fine = below[:-1, None] + series @ np.polynomial.legendre.legvander(_FINE, _ORDER).T
        x = np.interp(q, np.maximum.accumulate(fine.ravel()), self._grid().ravel())
        lo, hi = self.edges[panel], self.edges[panel + 1]
        return np.clip((2 * x - lo - hi) / (hi - lo), -1, 1)

    def _continuous_quantile(self, q: np.ndarray) -> np.ndarray:
        """Panel by the probabilities of the edges, then Newton's method kept in a bracket."""
        below, series = self._cumulative()
        density = self._series() * np.diff(self.edges)[:, None] / 2
        panel = np.clip(np.searchsorted(below, q, side="left") - 1, 0, len(series) - 1)
        low, high, t = -np.ones_like(q), np.ones_like(q), self._start(q, panel)
        target, series, density = q - below[panel], series[panel], density[panel]
        for _ in range(60):
            excess = _series_at(t, series) - target
            low, high = np.where(excess < 0, t, low), np.where(excess < 0, high, t)
            slope = _series_at(t, density)
            newton = t - excess / np.where(slope > 0, slope, 1)
            inside = (slope > 0) & (newton > low) & (newton < high)
            moved = np.where(inside, newton, 0.5 * (low + high))
            done = np.abs(moved - t).max(initial=0) < 1e-12
            t = moved
            if done:
                break
        return self.edges[panel] + np.diff(self.edges)[panel] * (t + 1) / 2


def unit_density(
    log_density: Callable[[np.ndarray], np.ndarray],
    *,
    mass_at_0: float = 0.0,
    log_at_0: float = -np.inf,
    tolerance: float = 1e-9,
    max_nodes: int = 6000,
) -> UnitDensity:
    """Integrate a density on [0, 1] by Gauss-Legendre panels, halved where it matters.

    A panel is halved while its 15-point value and that of its halves differ by more
    than `tolerance` of the whole. The panels start finer towards both ends, and around
    the peaks found, so that neither mass at an end nor a narrow peak is missed. What a
    density that diverges at 1 has above 1 - 2^-53 is out of reach.

    Parameters
    ----------
    log_density : callable
        Log of the unnormalised density at x, shape (G,), 0 < x < 1.
    mass_at_0 : float
        Prior probability of exactly 0; the continuous part has the rest.
    log_at_0 : float
        Log-likelihood at 0, on the scale of `log_density`, for the point mass.
    tolerance : float
        Largest relative error of the integral that a panel may leave.
    max_nodes : int
        Where halving stops at the latest.
    """
    edges, x, w, values = _first_panels(log_density)
    # Panels without mass need no halving: a peak in one of them would have been found.
    settled = values.max(axis=1) < _largest(values) - _NEGLIGIBLE
    while not settled.all() and x.size < max_nodes:
        top = _largest(values)
        mass = (np.exp(values - top) * w).sum(axis=1)
        lo, hi = edges[:-1][~settled], edges[1:][~settled]
        mid = 0.5 * (lo + hi)
        xl, wl = _panel_nodes(lo, mid)
        xr, wr = _panel_nodes(mid, hi)
        both = log_density(np.concatenate([xl, xr]).ravel()).reshape(-1, _ORDER)
        vl, vr = both[: len(xl)], both[len(xl) :]
        top_new = max(top, _largest(both))
        left = (np.exp(vl - top_new) * wl).sum(axis=1)
        right = (np.exp(vr - top_new) * wr).sum(axis=1)
        scale = np.exp(top - top_new)
        total = mass[settled].sum() * scale + left.sum() + right.sum()
        good = np.abs(left + right - mass[~settled] * scale) <= tolerance * total
        good &= hi - lo < 0.3
        good |= hi - lo < 4e-16 * hi  # no number lies between
        keep = np.flatnonzero(~settled)[good]
        split = np.flatnonzero(~settled)[~good]
        settled[keep] = True
        old = np.ones(len(x), dtype=bool)
        old[split] = False
        parts_lo = np.concatenate([edges[:-1][old], lo[~good], mid[~good]])
        order = np.argsort(parts_lo)
        x = np.concatenate([x[old], xl[~good], xr[~good]])[order]
        w = np.concatenate([w[old], wl[~good], wr[~good]])[order]
        values = np.concatenate([values[old], vl[~good], vr[~good]])[order]
        settled = np.concatenate([settled[old], np.zeros(2 * len(split), dtype=bool)])[order]
        edges = np.append(parts_lo[order], 1.0)
    top = _largest(values)
    scaled = np.exp(values - top)
    integral = (scaled * w).sum()
    log_continuous = top + np.log(integral)
    log_spike = np.log(mass_at_0) + log_at_0 if mass_at_0 > 0 else -np.inf
    log_slab = np.log1p(-mass_at_0) + log_continuous if mass_at_0 < 1 else -np.inf
    log_integral = float(np.logaddexp(log_spike, log_slab))
    return UnitDensity(
        x=x.ravel(),
        density=(scaled / integral).ravel(),
        weights=(scaled * w / integral).ravel(),
        edges=edges,
        log_integral=log_integral,
        mass_at_0=float(np.exp(log_spike - log_integral)),
    )


def _first_panels(
    log_density: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Panels finer towards both ends and around peaks: edges, nodes, weights, log density."""
    x_start, _ = _panel_nodes(_START[:-1], _START[1:])
    start = log_density(x_start.ravel()).reshape(x_start.shape)
    edges = _with_peaks(log_density, _START, x_start.ravel(), start.ravel())
    x, w = _panel_nodes(edges[:-1], edges[1:])
    # What the peaks did not split is not evaluated again.
    before = np.searchsorted(_START, edges[:-1], side="right") - 1
    kept = (_START[before] == edges[:-1]) & (_START[before + 1] == edges[1:])
    values = np.empty_like(x)
    values[kept] = start[before[kept]]
    if not kept.all():
        values[~kept] = log_density(x[~kept].ravel()).reshape(-1, _ORDER)
    return edges, x, w, values


def _with_peaks(
    log_density: Callable[[np.ndarray], np.ndarray],
    edges: np.ndarray,
    x: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:
    """Add edges around the highest peaks of the values at x, at multiples of their widths."""
    x, first = np.unique(x, return_index=True)
    values = np.nan_to_num(values[first], nan=-np.inf, posinf=-np.inf)
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    is_peak = (values > padded[:-2]) & (values >= padded[2:])
    starts = np.flatnonzero(is_peak)
    starts = starts[np.argsort(-values[starts], kind="stable")][:_PEAKS]
    added = [_around_peak(log_density, x, values, int(start)) for start in starts]
    extra = np.concatenate([edges, *added])
    return np.unique(extra[((extra > edges[1]) & (extra < edges[-2])) | np.isin(extra, edges)])


def _around_peak(
    log_density: Callable[[np.ndarray], np.ndarray], x: np.ndarray, values: np.ndarray, start: int
) -> np.ndarray:
    """Zoom into a peak until it is resolved; edges at multiples of its width."""
    best = start
    for _ in range(12):
        lo, hi = max(best - 1, 0), min(best + 1, len(x) - 1)
        # Resolved once the neighbours are within a small drop.
        if values[best] - values[[lo, hi]].min() < 0.01:
            break
        near = np.linspace(x[lo], x[hi], 17)[1:-1]
        where = x[lo]
        x, first = np.unique(np.concatenate([x, near]), return_index=True)
        values = np.concatenate([values, log_density(near)])[first]
        lo = int(np.searchsorted(x, where))
        best = lo + int(np.argmax(values[lo : lo + 18]))
    below = np.flatnonzero(values <= values[best] - 2)
    left, right = below[below < best], below[below > best]
    lo = int(left[-1]) + 1 if len(left) else 0
    hi = int(right[0]) - 1 if len(right) else len(x) - 1
    width = max(x[best] - x[lo], x[hi] - x[best], 1e-12)
    return x[best] + width * np.array([-8, -4, -2, -1, 1, 2, 4, 8])


def composite_rule(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on every panel between edges."""
    x, w = _panel_nodes(edges[:-1], edges[1:])
    return x.ravel(), w.ravel()


def _panel_nodes(lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    half = 0.5 * (hi - lo)[:, None]
    return np.minimum(lo[:, None] + half * (_NODES + 1), _BELOW_1), half * _WEIGHTS


def _series_at(t: np.ndarray, series: np.ndarray) -> np.ndarray:
    """Legendre series (..., order), each at its own t (...)."""
    values = np.polynomial.legendre.legvander(t, series.shape[-1] - 1)
    return np.einsum("...k,...k->...", values.reshape(series.shape), series)


def _largest(values: np.ndarray) -> float:
    return float(np.max(values))


class GaussRule(NamedTuple):
    """A rule that is exact for polynomials under a density.

    Attributes
    ----------
    nodes, weights : ndarray, shape (N,)
        Within the density's support; the weights sum to 1.
    polynomials : ndarray, shape (N, N)
        Orthonormal polynomials of degree 0 to N - 1 (rows) at the nodes.
    """

    nodes: np.ndarray
    weights: np.ndarray
    polynomials: np.ndarray


def gauss_rule(x: np.ndarray, weights: np.ndarray, nodes: int) -> GaussRule:
    """Gauss rule of a density on [0, 1] that a finer rule gives, exact to degree 2 nodes - 1.

    Lanczos' recurrence for the discrete measure, and the eigenvalues of the matrix of recurrence
    coefficients (Golub & Welsch 1969, Math Comp 23:221).

    Parameters
    ----------
    x, weights : ndarray, shape (d,)
        Nodes in [0, 1] and weights of the finer rule, in any scale.
    nodes : int
        Fewer than d.

    Examples
    --------
    >>> import numpy as np
    >>> x = (np.arange(1000) + 0.5) / 1000
    >>> rule = gauss_rule(x, np.ones(1000), 2)  # Legendre's: 1/2 +- 1 / (2 sqrt(3))
    >>> rule.nodes.round(4), rule.weights.round(4)
    (array([0.2113, 0.7887]), array([0.5, 0.5]))
    """
    w = weights / weights.sum()
    center = float(w @ x)
    scale = float(np.sqrt(w @ (x - center) ** 2))
    t = (x - center) / scale
    q = np.zeros((nodes, len(t)))
    q[0] = np.sqrt(w)
    diagonal, off = np.empty(nodes), np.empty(nodes - 1)
    for i in range(nodes):
        v = t * q[i]
        diagonal[i] = v @ q[i]
        if i + 1 < nodes:
            for _ in range(2):  # twice is enough to keep them orthogonal
                v -= q[: i + 1].T @ (q[: i + 1] @ v)
            off[i] = np.linalg.norm(v)
            q[i + 1] = v / off[i]
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    first = vectors[0]
    # Where a weight is 0, polynomials count for nothing.
    polynomials = np.divide(vectors, first, out=np.zeros_like(vectors), where=first != 0)
    return GaussRule(np.clip(center + scale * values, 0, 1), first**2, polynomials)
