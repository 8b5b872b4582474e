"""Statistics of variants at nodes of the variance ratio, and what lies between the nodes.

At a ratio r = s2_g kappa / s2_e the weights are w = 1 / (r s + 1), and V = s2_e / w. All nodes'
statistics of a block of rotated variants come from one stacked product with a matrix of
weights; between Chebyshev nodes they are interpolated, for they are smooth in log r.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm import likelihood

_NODES = 12
CHEBYSHEV = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
_TO_COEFFICIENTS = np.linalg.inv(np.polynomial.chebyshev.chebvander(CHEBYSHEV, _NODES - 1))
_TRIAL = np.linspace(-1, 1, 25)
_TRIAL_VALUES = np.polynomial.chebyshev.chebvander(_TRIAL, _NODES - 1).T


def cardinal(t: np.ndarray) -> np.ndarray:
    """Weights (v, 12) that take values at the Chebyshev nodes to those at t (v,)."""
    return np.polynomial.chebyshev.chebvander(t, _NODES - 1) @ _TO_COEFFICIENTS


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
        a = ((x * x) @ self.square).astype(np.float64)
        crossed = linear[:, self.G :].reshape(len(x), self.G, -1)
        a -= np.einsum("vgk,vgk->vg", crossed, crossed)
        return a, b


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
    """Maximum on [-1, top] of the polynomials with these values (v, 12) at Chebyshev nodes."""
    chebyshev = np.polynomial.chebyshev
    coefficients = np.nan_to_num(values, nan=0.0) @ _TO_COEFFICIENTS.T
    trial = coefficients @ _TRIAL_VALUES
    start = np.argmax(np.where(top[:, None] >= _TRIAL, trial, -np.inf), axis=1)
    t = _TRIAL[start]
    low, high = _TRIAL[np.maximum(start - 1, 0)], _TRIAL[np.minimum(start + 1, len(_TRIAL) - 1)]
    high = np.minimum(high, top)
    first = chebyshev.chebder(coefficients.T)
    second = chebyshev.chebder(first)
    for _ in range(6):
        slope = chebyshev.chebval(t, first, tensor=False)
        curvature = chebyshev.chebval(t, second, tensor=False)
        rising = slope > 0
        low, high = np.where(rising, t, low), np.where(rising, high, t)
        newton = t - slope / curvature
        good = (curvature < 0) & (newton >= low) & (newton <= high)
        t = np.where(good, newton, 0.5 * (low + high))
    # At an end of the interval the bracket closes on it; the end itself may be best.
    best = chebyshev.chebval(t, coefficients.T, tensor=False)
    for end in (np.full_like(top, -1), top):
        at_end = chebyshev.chebval(end, coefficients.T, tensor=False)
        t, best = np.where(at_end >= best, end, t), np.maximum(best, at_end)
    return t, best


def interpolate(values: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Polynomials with these values (v, 12) at Chebyshev nodes, each at its own t (v,)."""
    return np.einsum("vg,vg->v", values, cardinal(t))
