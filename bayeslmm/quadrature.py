"""A density on [0, 1], known up to a constant: its integral, moments, intervals, exact draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_ORDER = 15
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_ORDER)
# Panels that resolve both ends before any adaptation.
_BREAKS = np.array([0, 1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.03, 0.07, 0.15, 0.25, 0.375, 0.5])
_START = np.unique(np.concatenate([_BREAKS, 1 - _BREAKS]))
_FINE = 24


@dataclass(frozen=True)
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

    @property
    def mean(self) -> float:
        """Mean, the point mass included."""
        return float((1 - self.mass_at_0) * (self.weights @ self.x))

    @property
    def sd(self) -> float:
        """Standard deviation, the point mass included."""
        second = (1 - self.mass_at_0) * (self.weights @ self.x**2)
        return float(np.sqrt(max(second - self.mean**2, 0.0)))

    def expectation(self, values: np.ndarray) -> np.ndarray:
        """Mean of a function given at the nodes, shape (G, ...), under the continuous part."""
        return np.tensordot(self.weights, values, axes=1)

    def cdf(self, x: np.ndarray | float) -> np.ndarray:
        """P(X <= x)."""
        grid, cumulative = self._table()
        return self.mass_at_0 + (1 - self.mass_at_0) * np.interp(x, grid, cumulative)

    def quantile(self, q: np.ndarray | float) -> np.ndarray:
        """Smallest x with P(X <= x) >= q."""
        q = np.asarray(q, dtype=np.float64)
        grid, cumulative = self._table()
        if self.mass_at_0 >= 1:
            return np.zeros_like(q)
        inner = np.clip((q - self.mass_at_0) / (1 - self.mass_at_0), 0, 1)
        return np.where(q <= self.mass_at_0, 0.0, np.interp(inner, cumulative, grid))

    def hdi(self, prob: float = 0.95) -> tuple[float, float]:
        """Narrowest interval that holds `prob`: the highest-density one if there is one mode.

        A point mass at 0 counts as infinitely dense: the interval then begins at 0.
        """
        if self.mass_at_0 >= prob:
            return 0.0, 0.0
        if self.mass_at_0 > 0:
            return 0.0, float(self.quantile(prob))
        grid, cumulative = self._table()
        low = grid[cumulative <= 1 - prob]
        high = np.interp(np.interp(low, grid, cumulative) + prob, cumulative, grid)
        best = int(np.argmin(high - low))
        # The table is fine but finite: refine the lower end between its neighbours.
        around = np.linspace(low[max(best - 1, 0)], low[min(best + 1, len(low) - 1)], 401)
        upper = np.interp(np.interp(around, grid, cumulative) + prob, cumulative, grid)
        best = int(np.argmin(upper - around))
        return float(around[best]), float(upper[best])

    def draw(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Independent draws by inversion of the distribution function."""
        return self.quantile(rng.random(size))

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (x, density) close enough to draw, the continuous part only."""
        grid, values, _ = self._interpolated()
        return grid, values * (1 - self.mass_at_0)

    def _interpolated(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Density between the nodes: the polynomial through each panel's nodes.

        Each panel's piece is scaled to the panel's probability by quadrature.
        """
        panels = len(self.edges) - 1
        t = np.linspace(-1, 1, _FINE + 1)
        basis = _lagrange(t)
        values = np.maximum(self.density.reshape(panels, _ORDER) @ basis.T, 0)
        widths = np.diff(self.edges)
        grid = self.edges[:-1, None] + widths[:, None] * (t + 1) / 2
        masses = self.weights.reshape(panels, _ORDER).sum(axis=1)
        return grid.ravel(), values.ravel(), masses

    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        grid, values, masses = self._interpolated()
        panels = len(masses)
        grid, values = grid.reshape(panels, -1), values.reshape(panels, -1)
        steps = 0.5 * (values[:, 1:] + values[:, :-1]) * np.diff(grid, axis=1)
        steps = np.maximum(steps, 1e-300)
        steps *= (masses / steps.sum(axis=1))[:, None]
        inner = np.concatenate([[0.0], np.cumsum(steps.ravel())])
        points = np.concatenate([grid[:, :-1].ravel(), grid[-1:, -1]])
        return points, inner / inner[-1]


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
    the largest value found, so that neither mass at an end nor a narrow peak is missed.

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
    edges = _with_peak(log_density, _START)
    x, w = _panel_nodes(edges[:-1], edges[1:])
    values = log_density(x.ravel()).reshape(x.shape)
    settled = np.zeros(len(x), dtype=bool)
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


def _with_peak(log_density: Callable[[np.ndarray], np.ndarray], edges: np.ndarray) -> np.ndarray:
    """Add edges around the highest point, at multiples of the width of the peak."""
    x = np.unique(np.concatenate([_panel_nodes(edges[:-1], edges[1:])[0].ravel()]))
    values = np.nan_to_num(log_density(x), nan=-np.inf, posinf=-np.inf)
    for _ in range(12):
        best = int(np.argmax(values))
        near = np.linspace(x[max(best - 1, 0)], x[min(best + 1, len(x) - 1)], 17)[1:-1]
        x, first = np.unique(np.concatenate([x, near]), return_index=True)
        values = np.concatenate([values, log_density(near)])[first]
        best = int(np.argmax(values))
        # Stop once the neighbours are within a small drop: the peak is resolved.
        sides = values[max(best - 1, 0) : best + 2]
        if values[best] - sides.min() < 0.01:
            break
    peak, top = x[best], values[best]
    inside = x[values > top - 2.0]
    width = max(peak - inside.min(), inside.max() - peak, 1e-12)
    extra = peak + width * np.array([-8, -4, -2, -1, 1, 2, 4, 8])
    extra = extra[(extra > edges[1]) & (extra < edges[-2])]
    return np.unique(np.concatenate([edges, extra]))


def _panel_nodes(lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    half = 0.5 * (hi - lo)[:, None]
    return lo[:, None] + half * (_NODES + 1), half * _WEIGHTS


def _largest(values: np.ndarray) -> float:
    return float(np.max(values))


def _lagrange(t: np.ndarray) -> np.ndarray:
    """Values at t, shape (T,), of the polynomials through the nodes: shape (T, order)."""
    vandermonde = np.polynomial.legendre.legvander(_NODES, _ORDER - 1)
    return np.linalg.solve(vandermonde.T, np.polynomial.legendre.legvander(t, _ORDER - 1).T).T
