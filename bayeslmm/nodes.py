"""Statistics of variants at nodes of the variance ratio, and what lies between the nodes.

At a ratio r = s2_g kappa / s2_e the weights are w = 1 / (r s + 1), and V = s2_e / w. All nodes'
statistics of a block of rotated variants come from one stacked product with a matrix of
weights; between Chebyshev nodes they are interpolated, for they are smooth in log r.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from bayeslmm import likelihood

# Panels this wide, in log ratio, with this many nodes: errors of 1e-7.
HALF_WIDTH = 1.5
NODES = 12
# A variant of whose sum of squares the covariates leave less than this share is not tested.
COLLINEAR = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-9}
_TRIAL = np.linspace(-1, 1, 25)


def nodes_for(half_width: float, error: float) -> int:
    """Nodes between which 1 / (r s + 1) is interpolated to this relative error, in log r.

    Its singularities lie at a distance of pi from the real line, which sets the rate.
    """
    return int(np.ceil(-np.log(error) / np.arcsinh(np.pi / half_width)))


def nodes_over(t: np.ndarray, digits: float) -> np.ndarray:
    """Chebyshev nodes over the range of t that interpolate such functions there to e^-digits."""
    half = 0.5 * np.ptp(t) + 1e-12
    count = nodes_for(half, np.exp(-digits)) + 2
    return 0.5 * (t.min() + t.max()) + half * chebyshev(count)


def lagrange(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Lagrange polynomials of Chebyshev nodes (N,) at x (d,), barycentric, shape (d, N)."""
    N = len(nodes)
    angles = np.pi * (np.arange(N) + 0.5) / N
    weights = np.where(np.arange(N) % 2, -1.0, 1.0) * np.sin(angles)
    gap = x[:, None] - nodes
    exact = gap == 0
    terms = weights / np.where(exact, 1.0, gap)
    hit = exact.any(axis=1)
    terms[hit] = exact[hit]
    return terms / terms.sum(axis=1, keepdims=True)


@cache
def chebyshev(nodes: int = NODES) -> np.ndarray:
    """Chebyshev nodes on (-1, 1)."""
    return np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)


@cache
def _to_coefficients(nodes: int) -> np.ndarray:
    return np.linalg.inv(np.polynomial.chebyshev.chebvander(chebyshev(nodes), nodes - 1))


def series(values: np.ndarray) -> np.ndarray:
    """Chebyshev series of the polynomial with these values (k,) at the nodes."""
    return _to_coefficients(len(values)) @ values


def cardinal(t: np.ndarray, nodes: int = NODES) -> np.ndarray:
    """Weights (v, nodes) that take values at the Chebyshev nodes to those at t (v,)."""
    return np.polynomial.chebyshev.chebvander(t, nodes - 1) @ _to_coefficients(nodes)


@dataclass(frozen=True)
class Weights:
    """Columns of the stacked product for G values of the variance ratio.

    Attributes
    ----------
    log_ratio : ndarray, shape (G,)
        Logs of the ratio r.
    square : ndarray, shape (n, G)
        w, to be multiplied with x squared.
    linear : ndarray, shape (n, G (1 + k))
        P y for each node, then w C L^-T for each, k adjusting covariates.
    Q, logdet, logdet_d : ndarray, shape (G,)
        y'Py, sum log(r s + 1) + log|A|, and sum log(r s + 1).
    """

    log_ratio: np.ndarray
    square: np.ndarray
    linear: np.ndarray
    Q: np.ndarray
    logdet: np.ndarray
    logdet_d: np.ndarray

    @property
    def G(self) -> int:
        """Number of nodes."""
        return len(self.log_ratio)

    def statistics(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """a and b for rotated variants in rows, shape (v, n): two arrays (v, G), float64."""
        linear = (x @ self.linear).astype(np.float64)
        b = linear[:, : self.G]
        a = self._squares(x)
        crossed = linear[:, self.G :].reshape(len(x), self.G, -1)
        a -= np.einsum("vgk,vgk->vg", crossed, crossed)
        return a, b

    def _squares(self, x: np.ndarray) -> np.ndarray:
        """x' V^-1 x, before covariates are taken out, (v, G)."""
        return ((x * x) @ self.square).astype(np.float64)


def stacked_weights(
    data: likelihood.Rotated, log_ratio: np.ndarray, *, skip_intercept: bool, dtype: np.dtype
) -> Weights:
    """Weights for the given nodes; the intercept is skipped where variants are centred on it."""
    ratio = np.exp(log_ratio)
    h2 = ratio / (1 + ratio)
    t = likelihood.terms(data, h2)
    G, n, c = len(ratio), data.n, data.C.shape[1]
    w = 1 / (ratio[:, None] * data.s + 1)
    Py = w * (data.y - t.b @ data.C.T)
    # terms() is for d = (1 - h2) (r s + 1): scale to the weights used here.
    unit = 1 - h2
    first = 1 if skip_intercept else 0
    whitened = np.linalg.solve(t.L, np.broadcast_to(data.C.T, (G, c, n)))
    crossed = (whitened * w[:, None, :] / np.sqrt(unit)[:, None, None])[:, first:, :]
    linear = np.concatenate([Py, crossed.reshape(G * (c - first), n)]).T
    return Weights(
        log_ratio,
        np.ascontiguousarray(w.T, dtype=dtype),
        np.ascontiguousarray(linear, dtype=dtype),
        t.Q * unit,
        t.logdet - data.df * np.log(unit),
        t.logdet_d - n * np.log(unit),
    )


def maximise_on_nodes(values: np.ndarray, top: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum on [-1, top] of the polynomials with these values (v, k) at Chebyshev nodes."""
    polynomial = np.polynomial.chebyshev
    k = values.shape[1]
    coefficients = np.nan_to_num(values, nan=0.0) @ _to_coefficients(k).T
    trial = coefficients @ polynomial.chebvander(_TRIAL, k - 1).T
    start = np.argmax(np.where(top[:, None] >= _TRIAL, trial, -np.inf), axis=1)
    t = _TRIAL[start]
    low, high = _TRIAL[np.maximum(start - 1, 0)], _TRIAL[np.minimum(start + 1, len(_TRIAL) - 1)]
    high = np.minimum(high, top)
    first = polynomial.chebder(coefficients.T)
    second = polynomial.chebder(first)
    for _ in range(6):
        slope = polynomial.chebval(t, first, tensor=False)
        curvature = polynomial.chebval(t, second, tensor=False)
        rising = slope > 0
        low, high = np.where(rising, t, low), np.where(rising, high, t)
        newton = t - slope / curvature
        good = (curvature < 0) & (newton >= low) & (newton <= high)
        t = np.where(good, newton, 0.5 * (low + high))
    # At an end of the interval the bracket closes on it; the end itself may be best.
    best = polynomial.chebval(t, coefficients.T, tensor=False)
    for end in (np.full_like(top, -1), top):
        at_end = polynomial.chebval(end, coefficients.T, tensor=False)
        t, best = np.where(at_end >= best, end, t), np.maximum(best, at_end)
    return t, best


def interpolate(values: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Polynomials with these values (v, k) at Chebyshev nodes, each at its own t (v,)."""
    return np.einsum("vg,vg->v", values, cardinal(t, values.shape[1]))
