"""Statistics of variants at nodes of the variance ratio, and what lies between the nodes.

At a ratio r = s2_g kappa / s2_e the weights are w = 1 / (r s + 1), and V = s2_e / w. All nodes'
statistics of a block of rotated variants come from one stacked product with a matrix of
weights; between Chebyshev nodes they are interpolated, for they are smooth in log r.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bayeslmm.numerics import likelihood
from bayeslmm.numerics.chebyshev import cardinal, to_coefficients

# Panels this wide, in log ratio, with `chebyshev.NODES` nodes: errors of 1e-7.
HALF_WIDTH = 1.5
# Log ratios in which optima are sought; beyond, h2 is 0 or 1 to 1e-5.
LOG_RANGE = (float(np.log(1e-5)), float(np.log(1e5)))
# A variant of whose sum of squares the covariates leave less than this share is not tested.
COLLINEAR = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-9}
# Relative error of weights that are combined from few.
_SKELETON_ERROR = {np.dtype(np.float32): 2e-8, np.dtype(np.float64): 1e-11}
_ROUGH_ERROR = 1e-4
# Eigenvalues that stand for all while those few are chosen.
_REPRESENTATIVES = 300
# With fewer samples products cost next to nothing: every node has its own.
_SMALL = 1000
# Numbers of a piece of a block: they stay in the processor's cache.
_CACHED = 2**19
_TRIAL = np.linspace(-1, 1, 25)


@dataclass(frozen=True)
class Weights(ABC):
    """A null model at G values of the variance ratio, and what variants are multiplied with.

    Attributes
    ----------
    log_ratio : ndarray, shape (G,)
        Logs of the ratio r.
    Q, logdet, logdet_d : ndarray, shape (G,)
        y'Py, sum log(r s + 1) + log|A|, and sum log(r s + 1).
    """

    log_ratio: np.ndarray
    Q: np.ndarray
    logdet: np.ndarray
    logdet_d: np.ndarray

    @property
    def G(self) -> int:
        """Number of nodes."""
        return len(self.log_ratio)

    @abstractmethod
    def products(self, x: np.ndarray) -> Products:
        """Products of rotated variants in rows, (v, n), with all that is multiplied."""

    @abstractmethod
    def at_nodes(self, products: Products) -> tuple[np.ndarray, np.ndarray]:
        """a and b of variants at the nodes, from their products: two arrays (v, G), float64."""

    def statistics(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """a and b for rotated variants in rows, shape (v, n): two arrays (v, G), float64."""
        return self.at_nodes(self.products(x))


class Products(NamedTuple):
    """Products of v variants, float64: x^2 with weights, x with covariates, and x with more."""

    squares: np.ndarray
    span: np.ndarray
    linear: np.ndarray


@dataclass(frozen=True)
class StackedWeights(Weights):
    """Nodes on an eigenbasis.

    The weights of all nodes are combinations of those of k ratios (`skeleton`), in which the
    products with variants are made.

    Attributes
    ----------
    square : ndarray, shape (n, k)
        w at the k ratios, to be multiplied with x squared.
    linear : ndarray, shape (n, p + k (1 + p))
        The p covariates that variants are not centred on, then w y, then w C for each ratio.
    between : ndarray, shape (k, G)
        Takes products at the k ratios to the nodes.
    combine : ndarray, shape (k (1 + p), G (1 + p))
        Takes x'wy and x'wC at the k ratios to b, and to x'wC L^-T, at the nodes.
    """

    square: np.ndarray
    linear: np.ndarray
    between: np.ndarray
    combine: np.ndarray

    def products(self, x: np.ndarray) -> Products:
        """Products of rotated variants in rows, a few at a time, which stay in the cache."""
        squares = np.empty((len(x), self.square.shape[1]))
        linear = np.empty((len(x), self.linear.shape[1]))
        step = max(16, _CACHED // max(1, x.shape[1]))
        buffer = np.empty((min(step, len(x)), x.shape[1]), dtype=x.dtype)
        for start in range(0, len(x), step):
            part = x[start : start + step]
            linear[start : start + step] = part @ self.linear
            square = np.multiply(part, part, out=buffer[: len(part)])
            squares[start : start + step] = square @ self.square
        k = len(self.between)
        p = (linear.shape[1] - k) // (1 + k)
        return Products(squares, linear[:, :p], linear[:, p:])

    def at_nodes(self, products: Products) -> tuple[np.ndarray, np.ndarray]:
        """a and b of variants at the nodes, from their products: two arrays (v, G), float64."""
        v, G = len(products.squares), self.G
        both = products.linear @ self.combine
        crossed = both[:, G:].reshape(v, G, products.span.shape[1])
        a = products.squares @ self.between
        a -= np.einsum("vgp,vgp->vg", crossed, crossed)
        return a, both[:, :G]


def stacked_weights(
    data: likelihood.Rotated,
    log_ratio: np.ndarray,
    *,
    skip_intercept: bool,
    dtype: np.dtype,
    rough: slice | None = None,
    error: float | None = None,
) -> StackedWeights:
    """Weights for the given nodes; the intercept is skipped where variants are centred on it.

    Their relative error is `error`, by default what the precision calls for.
    Nodes in `rough` only say whether a maximum may be near: a relative error of 1e-4 will do.
    """
    ratio = np.exp(log_ratio)
    h2 = ratio / (1 + ratio)
    t = likelihood.terms(data, h2)
    # terms() is for d = (1 - h2) (r s + 1): scale to the weights used here.
    unit = 1 - h2
    G, c = len(ratio), data.C.shape[1]
    inverse = np.linalg.solve(t.L, np.broadcast_to(np.eye(c), t.L.shape))
    inverse /= np.sqrt(unit)[:, None, None]
    first = int(skip_intercept)
    C, b, inverse = data.C[:, first:], t.b[:, first:], inverse[:, first:, first:]
    if data.n < _SMALL:
        chosen, between = np.arange(G), np.eye(G)
    else:
        allowed = np.full(G, _SKELETON_ERROR[dtype] if error is None else error)
        if rough is not None:
            allowed[rough] = _ROUGH_ERROR
        chosen, between = skeleton(data.s, log_ratio, allowed)
    k, p = len(chosen), c - first
    w = 1 / (ratio[chosen] * data.s[:, None] + 1)
    weighted = [C, w * data.y[:, None], (w[:, :, None] * C[:, None, :]).reshape(data.n, k * p)]
    combine = np.zeros((k + k * p, G + G * p))
    combine[:k, :G] = between
    combine[k:, :G] = -(between[:, None, :] * b.T).reshape(k * p, G)
    crossed = between[:, None, :, None] * inverse.transpose(2, 0, 1)
    combine[k:, G:] = crossed.reshape(k * p, G * p)
    return StackedWeights(
        log_ratio,
        t.Q * unit,
        t.logdet - data.df * np.log(unit),
        t.logdet_d - data.n * np.log(unit),
        np.ascontiguousarray(w, dtype=dtype),
        np.ascontiguousarray(np.hstack(weighted), dtype=dtype),
        between,
        combine,
    )


def skeleton(
    s: np.ndarray, log_ratio: np.ndarray, error: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A few of the ratios whose weights 1 / (r s + 1) combine to those of all.

    How many it takes depends on how far the eigenvalues s are spread: for unrelated people,
    whose eigenvalues are all near 1, a handful serve every ratio.

    Parameters
    ----------
    s : ndarray, shape (n,)
        Eigenvalues, not negative.
    log_ratio : ndarray, shape (G,)
        Logs of the ratios; -inf is a ratio of 0.
    error : float or ndarray, shape (G,)
        Largest relative error of the weights, of all ratios or of each.

    Returns
    -------
    chosen : ndarray of int, shape (k,)
        Positions of the few.
    between : ndarray, shape (k, G)
        Their coefficients for each ratio.

    References
    ----------
    Cheng H et al. (2005). On the compression of low rank matrices. SIAM J Sci Comput 26:1389.
    doi:10.1137/030602678 (The interpolative decomposition, here for relative errors.)

    Examples
    --------
    >>> import numpy as np
    >>> chosen, between = skeleton(np.linspace(0.8, 1.2, 50), np.linspace(-8, 8, 60), 1e-8)
    >>> between.shape
    (6, 60)
    """
    from scipy.linalg import qr, solve_triangular

    values, position = np.unique(log_ratio, return_inverse=True)
    ratio = np.exp(values)
    allowed = np.full(len(values), np.inf)
    np.minimum.at(allowed, position, np.broadcast_to(error, log_ratio.shape))
    strictest = allowed.min()
    ordered = np.sort(s)
    if len(s) > _REPRESENTATIVES:
        ordered = ordered[np.linspace(0, len(s) - 1, _REPRESENTATIVES).round().astype(int)]
    for eigenvalues in (ordered, s):
        log_w = -np.log1p(ratio * eigenvalues[:, None])
        # Rows and columns of one size: errors are to be small relative to every weight.
        columns = log_w.mean(axis=0) + np.log(allowed / strictest)
        scaled = np.exp(log_w - columns - (log_w - columns).mean(axis=1, keepdims=True))
        R, order = qr(scaled, mode="r", pivoting=True)
        pivots = np.abs(np.diagonal(R))
        most = len(pivots)
        for k in range(max(1, int((pivots > strictest * pivots[0]).sum()) - 2), most):
            between = np.empty((k, len(values)))
            between[:, order] = solve_triangular(R[:k, :k], R[:k])
            between *= np.exp(columns) / np.exp(columns[order[:k], None])
            if _worst(eigenvalues, ratio, order[:k], between, allowed) > 1:
                continue
            if _worst(s, ratio, order[:k], between, allowed) <= 3:
                return position_of(order[:k], position), between[:, position]
            break
    everything = np.arange(len(values))
    return position_of(everything, position), np.eye(len(values))[:, position]


def _worst(
    s: np.ndarray, ratio: np.ndarray, chosen: np.ndarray, between: np.ndarray, allowed: np.ndarray
) -> float:
    """Largest error of weights that are combined from the chosen ones, over the one allowed."""
    worst = 0.0
    for start in range(0, len(s), _CACHED):
        w = 1 / (ratio * s[start : start + _CACHED, None] + 1)
        worst = max(worst, float((np.abs(w[:, chosen] @ between / w - 1) / allowed).max()))
    return worst


def position_of(values: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Where each of some unique values first stands, from the inverse that `np.unique` gives."""
    first = np.full(inverse.max() + 1, len(inverse))
    np.minimum.at(first, inverse, np.arange(len(inverse)))
    return first[values]


def varies_beyond(span: np.ndarray, sum_sq: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Which variants vary, and more than orthonormal covariates explain, booleans (v,).

    Parameters
    ----------
    span : ndarray, shape (v, c)
        Products of the variants with the covariates.
    sum_sq : ndarray, shape (v,)
        Their sums of squares, 0 if they are monomorphic.
    dtype : dtype
        Precision of the products.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = np.square(span, dtype=np.float64).sum(axis=1) / sum_sq
    return (sum_sq > 0) & (1 - explained > COLLINEAR[dtype])


def maximise_on_nodes(values: np.ndarray, top: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum on [-1, top] of the polynomials with these values (v, k) at Chebyshev nodes."""
    polynomial = np.polynomial.chebyshev
    k = values.shape[1]
    coefficients = np.nan_to_num(values, nan=0.0) @ to_coefficients(k).T
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
