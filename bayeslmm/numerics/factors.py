"""Statistics of variants at nodes of the variance ratio, by Cholesky factors of V.

Where a kernel serves one chromosome only, a decomposition is a high price. With the ratio r,
K over its mean diagonal and V = r K + I = L L',

    x' V^-1 x = |L^-1 x|^2

costs a Cholesky factor and a triangular solve a node, a tenth of the decomposition.

Around one ratio r0 it costs less. With W = V(r0)^-1, whose eigenvalues w are in (0, 1],

    V(r)^-1 = f(W),   f(w) = w / (rho + (1 - rho) w),   rho = r / r0,

and f is next to a polynomial of low degree k on the range of w: x' V(r)^-1 x is a combination
of x'x, x'Wx = |L^-1 x|^2, x'W^2 x = |L^-T L^-1 x|^2, ..., which takes *one* factor and k
triangular solves for all r near r0. In families four or five serve, among unrelated people two,
and six over all ratios that the posterior of h2 reaches.
log|V(r)| takes factors at a few ratios: between them its difference from the curve of another
kernel's spectrum is interpolated, which is smoother than it is itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from bayeslmm.numerics import likelihood
from bayeslmm.numerics.chebyshev import chebyshev, nodes_for
from bayeslmm.numerics.nodes import HALF_WIDTH, LOG_RANGE, Products, Weights, maximise_on_nodes

# Half the width, in log ratio, of nodes next to the null model's ratio, and how many there are.
NARROW, _NARROW_NODES = 0.3, 7
# Interpolation errors, relative, for products in float32 and float64.
ERROR = {np.dtype(np.float32): 3e-6, np.dtype(np.float64): 1e-7}
# The same where powers of one factor's inverse serve: of x' V^-1 x, at the end of the range. The
# tests err by half of that times chi-squared / ln 10 there, and by much less in the middle.
_POWER_ERROR = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-7}
# More powers cost more than a factor for each node, or over a wide range than a decomposition.
_MOST_POWERS, _MOST_POWERS_WIDE = 7, 10
# Of the vectors P y and P C: their last term, next to rounding, and the most there may be.
_VECTOR_ERROR, _MOST_TERMS = 1e-8, 60
# Where as many powers as this serve, eigenvalues are near 1: people share little.
_FEW_POWERS = 3
# Places in the range, -1 to 1, of the factors that log|V| comes from, the first in the middle: in
# float32, of people who share little and of others, and in float64.
_LOGDET_AT_3 = np.array([0.0, -0.9, 0.9])
_LOGDET_AT_4 = np.array([0.0, -0.9, 0.35, 0.93])
_LOGDET_AT_7 = np.array([0.0, -0.97, -0.78, -0.43, 0.43, 0.78, 0.97])
# How many there are over a wide range.
_LOGDETS = {np.dtype(np.float32): 5, np.dtype(np.float64): 9}
# Of the spectrum of all variants' K.
_PROBES, _STEPS = 8, 30


def unit_kernel(K: np.ndarray, dtype: np.dtype, *, center: bool) -> tuple[np.ndarray, float]:
    """K, centred if there is an intercept, over its mean diagonal; and that.

    In Fortran's order and of this precision.
    """
    n = len(K)
    mean = K.mean(axis=0) if center else np.zeros(n)
    middle = mean.mean()
    kappa = float(np.trace(K)) / n - middle
    out = np.empty((n, n), dtype=dtype, order="F")

    def work(rows: slice) -> None:
        # K is symmetric: its rows are the columns.
        out.T[rows] = (K[rows] - (mean + mean[rows, None] - middle)) / kappa

    by_rows(n, work)
    return out, kappa


def by_rows(n: int, work: Callable[[slice], None]) -> None:
    """Do some rows of a matrix at a time, which stay in the cache, by all processors."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(work, (slice(start, start + 32) for start in range(0, n, 32))))


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of a kernel over its mean diagonal, or what stands for them.

    Attributes
    ----------
    values, weights : ndarray, shape (k,)
        Eigenvalues, and how many each stands for; the weights sum to n, or n - 1 without
        the intercept's.
    lacking : float
        Share of the variants that are not in the kernel of interest, but in this one.
    """

    values: np.ndarray
    weights: np.ndarray
    lacking: float = 0.0

    def logdet(self, log_ratio: np.ndarray) -> np.ndarray:
        """log|r K + I| for each log ratio, (G,)."""
        return np.log1p(np.exp(log_ratio)[:, None] * self.values) @ self.weights

    @property
    def ends(self) -> tuple[float, float]:
        """Between which the eigenvalues of the kernel of interest are.

        The largest for certain; the least as far below 1 as with random genotypes.
        """
        least = 1 - (1 - min(self.values.min(), 1.0)) / np.sqrt(1 - self.lacking)
        return max(0.9 * least, 0.0), self.values.max() / (1 - self.lacking)

    def spread(self) -> Spectrum:
        """About that of the kernel of interest, among people who share little.

        There eigenvalues differ from 1 by chance, the more the fewer the variants.
        """
        values = 1 + (self.values - 1) / np.sqrt(1 - self.lacking)
        return replace(self, values=np.maximum(values, 0))


def spectrum_of(K: np.ndarray, *, center: bool) -> Spectrum:
    """Gauss rules of K's eigenvalues by Lanczos from random vectors.

    Of a centred K without the intercept, whose eigenvalue of 0 no variant meets.

    Their ends are those of the spectrum; sums over it err by a percent or less, which the
    curve that others are compared with may.

    References
    ----------
    Ubaru S, Chen J, Saad Y (2017). Fast estimation of tr(f(A)) via stochastic Lanczos
    quadrature. SIAM J Matrix Anal Appl 38:1075. doi:10.1137/16M1104974
    """
    from scipy.linalg import eigh_tridiagonal

    n = len(K)
    rng = np.random.default_rng(0)
    v = rng.choice(np.array([-1, 1], dtype=K.dtype), size=(n, _PROBES))
    v = v - v.mean(axis=0) if center else v
    v /= np.sqrt(np.einsum("np,np->p", v, v))
    for step in islice(_lanczos(lambda x: K @ x, v, 1e-5), min(_STEPS, n - 1)):
        _, diagonal, beside = step
        if not beside[-1].all():
            break
    values, weights = [], []
    for p in range(_PROBES):
        ritz, vectors = eigh_tridiagonal(diagonal[:, p], beside[:-1, p])
        weight = (n - center) / _PROBES * vectors[0] ** 2
        # What the vectors did not have came in by rounding, such as the intercept.
        there = weight > 1e-6
        values.append(np.maximum(ritz[there], 0))
        weights.append(weight[there])
    return Spectrum(np.concatenate(values), np.concatenate(weights))


def _lanczos(
    apply: Callable[[np.ndarray], np.ndarray], v: np.ndarray, used_up: float
) -> Iterator[tuple[list[np.ndarray], np.ndarray, np.ndarray]]:
    """Lanczos iterations with a symmetric matrix, of q vectors (n, q) of norm 1, each by itself.

    Yields, after k steps, the orthonormal bases (k of (n, q)) and the tridiagonal matrices in
    them: diagonals (k, q), and what is beside these (k, q), the last of it before the next step.
    What is smaller than `used_up` is rounding: it is 0, and the vector has no further terms.
    """
    basis: list[np.ndarray] = []
    diagonal: list[np.ndarray] = []
    beside: list[np.ndarray] = []
    while True:
        basis.append(v)
        w = apply(v)
        diagonal.append(np.einsum("nq,nq->q", v, w))
        for _ in range(2):  # orthogonal to all before, twice, is enough
            for before in basis:
                w -= before * np.einsum("nq,nq->q", before, w)
        size = np.sqrt(np.einsum("nq,nq->q", w, w))
        goes_on = size >= used_up
        beside.append(np.where(goes_on, size, 0))
        yield basis, np.array(diagonal, dtype=np.float64), np.array(beside, dtype=np.float64)
        v = np.where(goes_on, w / np.where(goes_on, size, 1), 0)


@dataclass(frozen=True)
class CholeskyWeights(Weights):
    """Nodes of a kernel that is not decomposed.

    Attributes
    ----------
    factors : list of ndarray, shape (n, n)
        Lower Cholesky factors of r K + I at each of N nodes.
    span : ndarray, shape (n, p)
        Covariates that variants are not centred on.
    linear : ndarray, shape (n, N (1 + p))
        P y at each node, then w C L^-T for each.
    between : ndarray, shape (N, k)
        Takes values at the nodes to those at k further ratios, which G counts too.
    """

    factors: list[np.ndarray]
    span: np.ndarray
    linear: np.ndarray
    between: np.ndarray

    def products(self, x: np.ndarray) -> Products:
        """Products of variants in rows (v, n)."""
        from scipy.linalg.blas import dtrsm, strsm

        solve = strsm if x.dtype == np.float32 else dtrsm
        squares = np.empty((len(x), len(self.factors)))
        for g, factor in enumerate(self.factors):
            white = solve(1.0, factor, x.T, lower=1)
            squares[:, g] = np.einsum("nv,nv->v", white, white)
        span, linear = (x @ columns for columns in (self.span, self.linear))
        return Products(squares, span.astype(np.float64), linear.astype(np.float64))

    def at_nodes(self, products: Products) -> tuple[np.ndarray, np.ndarray]:
        """a and b of variants, at the nodes and at the further ratios."""
        return self._at_nodes(products, len(self.factors))

    def _at_nodes(self, products: Products, N: int) -> tuple[np.ndarray, np.ndarray]:
        b, a, p = products.linear[:, :N], products.squares, self.span.shape[1]
        crossed = products.linear[:, N:].reshape(len(a), N, p)
        a = a - np.einsum("vgp,vgp->vg", crossed, crossed)
        return np.hstack([a, a @ self.between]), np.hstack([b, b @ self.between])


def cholesky_weights(
    data: likelihood.Rotated,
    K: np.ndarray,
    log_ratio: np.ndarray,
    *,
    skip_intercept: bool,
) -> CholeskyWeights:
    """The null model at nodes of r K + I, K over its mean diagonal, in the precision of K."""
    from scipy.linalg import cholesky, solve_triangular

    n, dtype = data.n, K.dtype
    both = np.column_stack([data.y, data.C]).astype(dtype)
    first = int(skip_intercept)
    factors, Py, crossed = [], [], []
    Q, logdet, logdet_d = (np.empty(len(log_ratio)) for _ in range(3))
    for g, t in enumerate(log_ratio):
        V = K * dtype.type(np.exp(t))
        V[np.diag_indices(n)] += 1
        L = cholesky(V, lower=True, overwrite_a=True, check_finite=False)
        white = solve_triangular(L, both, lower=True, check_finite=False).astype(np.float64)
        q, R = np.linalg.qr(white[:, 1:])
        residual = white[:, 0] - q @ (q.T @ white[:, 0])
        right = np.column_stack([residual, q[:, first:]]).astype(dtype)
        back = solve_triangular(L, right, lower=True, trans=1, check_finite=False)
        Q[g] = residual @ residual
        logdet_d[g] = 2 * np.log(np.diagonal(L).astype(np.float64)).sum()
        logdet[g] = logdet_d[g] + 2 * np.log(np.abs(np.diagonal(R))).sum()
        factors.append(L)
        Py.append(back[:, 0])
        crossed += list(back[:, 1:].T)
    linear = np.ascontiguousarray(np.array(Py + crossed).T)
    none = np.empty((len(log_ratio), 0))
    span = both[:, 1 + first :]
    return CholeskyWeights(log_ratio, Q, logdet, logdet_d, factors, span, linear, none)


@dataclass(frozen=True)
class PowerWeights(CholeskyWeights):
    """Nodes around one ratio, whose factor is the only one.

    Attributes
    ----------
    inverse : InversePolynomial
        What makes V^-1 at each node of the one at that ratio.
    """

    inverse: InversePolynomial

    def products(self, x: np.ndarray) -> Products:
        """Products of variants in rows (v, n)."""
        squares = self.inverse.moments(self.factors[0], x) @ self.inverse.coefficients
        span, linear = (x @ columns for columns in (self.span, self.linear))
        return Products(squares, span.astype(np.float64), linear.astype(np.float64))

    def at_nodes(self, products: Products) -> tuple[np.ndarray, np.ndarray]:
        """a and b of variants, at the nodes and at the further ratios."""
        return self._at_nodes(products, self.inverse.coefficients.shape[1])


@dataclass(frozen=True)
class InversePolynomial:
    """V^-1 = (r K + I)^-1 at N ratios as polynomials of W, which is V^-1 at one ratio.

    In powers of T = (W - middle) / half, whose eigenvalues are between -1 and 1: those of W
    are alike among people who share little, and so are its own powers.

    Attributes
    ----------
    middle, half : float
    coefficients : ndarray, shape (k + 1, N)
        Of the powers of T, lowest first.
    """

    middle: float
    half: float
    coefficients: np.ndarray

    @property
    def degree(self) -> int:
        """The highest power, k: as many triangular solves does it take."""
        return len(self.coefficients) - 1

    def moments(self, factor: np.ndarray, x: np.ndarray) -> np.ndarray:
        """x' T^j x, j = 0 ... k, of variants in rows (v, n): shape (v, k + 1), float64.

        `factor` is the lower Cholesky factor of W^-1.
        """
        from scipy.linalg.blas import dtrsm, strsm

        solve = strsm if x.dtype == np.float32 else dtrsm
        found = np.empty((len(x), self.degree + 1))
        found[:, 0] = np.einsum("vn,vn->v", x, x)
        y = x.T  # T^i x
        for j in range(1, self.degree + 1):
            if j % 2:
                half_way = solve(1.0, factor, y, lower=1)
                y_Wy = np.einsum("nv,nv->v", half_way, half_way)
                found[:, j] = (y_Wy - self.middle * found[:, j - 1]) / self.half
                continue
            solved = solve(1.0, factor, half_way, lower=1, trans_a=1, overwrite_b=1)
            solved -= x.dtype.type(self.middle) * y
            solved /= x.dtype.type(self.half)
            y = solved
            found[:, j] = np.einsum("nv,nv->v", y, y)
        return found


def _inverse_as_polynomial(
    spectrum: Spectrum, log_ratio: float, nodes: np.ndarray, error: float, most: int
) -> InversePolynomial | None:
    """The polynomials for the log ratios `nodes` (N,), of W at `log_ratio`.

    To a relative error of `error`; None if that takes more powers than `most`.
    """
    ends = 1 / (1 + np.exp(log_ratio) * np.array(spectrum.ends))
    middle, half = float(ends.mean()), 0.5 * float(np.ptp(ends))
    t = chebyshev(200)
    w = (middle + half * t)[:, None]
    rho = np.exp(nodes - log_ratio)
    f = w / (rho + (1 - rho) * w)
    for k in range(1, most + 1):
        powers = t[:, None] ** np.arange(k + 1)
        # Least squares of the relative error; the next to the best in the largest.
        found = [np.linalg.lstsq(powers / g[:, None], np.ones(len(t)), rcond=None)[0] for g in f.T]
        coefficients = np.array(found).T
        if np.abs(powers @ coefficients / f - 1).max() <= error:
            return InversePolynomial(middle, half, coefficients)
    return None


def _power_weights(
    data: likelihood.Rotated,
    K: np.ndarray,
    center: float,
    half_width: float,
    spectrum: Spectrum,
    *,
    skip_intercept: bool,
) -> PowerWeights | None:
    """The null model at nodes around one ratio, in the precision of K.

    None if that takes too many powers.
    """
    dtype, first = K.dtype, int(skip_intercept)
    base, nodes, inverse = powers_over(spectrum, center, half_width, dtype)
    if inverse is None:
        return None
    wide = half_width > NARROW
    few = wide or inverse.degree <= _FEW_POWERS
    if wide:
        places = (_middle_first(center, half_width, _LOGDETS[dtype]) - center) / half_width
    elif dtype == np.float64:
        places = _LOGDET_AT_7
    else:
        places = _LOGDET_AT_3 if few else _LOGDET_AT_4
    factor, logdet = _factor_and_logdets(K, center + half_width * places)
    spectrum = spectrum.spread() if few else spectrum
    apart = logdet - spectrum.logdet(center + half_width * places)
    logdet_d = spectrum.logdet(nodes)
    if few:
        # Sums of log(1 + r s), s next to 1, are next to polynomials of h2, and 0 at 0.
        h2, at = (1 / (1 + np.exp(-t)) for t in (center + half_width * places, nodes))
        logdet_d += at * np.polynomial.Polynomial.fit(h2, apart / h2, len(places) - 1)(at)
    else:
        fit = np.polynomial.chebyshev.chebfit(places, apart, len(places) - 1)
        logdet_d += np.polynomial.chebyshev.chebval((nodes - center) / half_width, fit)

    Q, logdet_all = np.empty(len(nodes)), np.empty(len(nodes))
    Py, crossed = [], []
    both = np.column_stack([data.y, data.C])
    for g, solved in enumerate(_inverse_of_vectors(factor, both, nodes - base)):
        L = np.linalg.cholesky(data.C.T @ solved[:, 1:])
        half = np.linalg.solve(L, solved[:, 1:].T)  # (c, n)
        explained = half @ data.y
        Py.append(solved[:, 0] - half.T @ explained)
        Q[g] = data.y @ solved[:, 0] - explained @ explained
        logdet_all[g] = logdet_d[g] + 2 * np.log(np.diagonal(L)).sum()
        crossed += list(half[first:])
    linear = np.ascontiguousarray(np.array(Py + crossed).T, dtype=dtype)
    none = np.empty((len(nodes), 0))
    span = both[:, 1 + first :].astype(dtype)
    return PowerWeights(nodes, Q, logdet_all, logdet_d, [factor], span, linear, none, inverse)


def powers_over(
    spectrum: Spectrum, center: float, half_width: float, dtype: np.dtype
) -> tuple[float, np.ndarray, InversePolynomial | None]:
    """The log ratio of the factor, those of the nodes, and the polynomials if they serve."""
    if half_width <= NARROW:
        base, nodes = center, center + half_width * chebyshev(_NARROW_NODES)
    else:
        base = float(_middle_first(center, half_width, _LOGDETS[dtype])[0])
        nodes = center + half_width * chebyshev(nodes_for(half_width, ERROR[dtype]))
    most = _MOST_POWERS if half_width <= HALF_WIDTH else _MOST_POWERS_WIDE
    inverse = _inverse_as_polynomial(spectrum, base, nodes, _POWER_ERROR[dtype], most)
    return base, nodes, inverse


def _middle_first(center: float, half_width: float, number: int) -> np.ndarray:
    """Log ratios of Chebyshev nodes in h2 over a range, the one in the middle first."""
    low, high = 1 / (1 + np.exp(-(center + half_width * np.array([-1, 1]))))
    h2 = 0.5 * (low + high) + 0.5 * (high - low) * np.roll(chebyshev(number), -(number // 2))
    return np.log(h2) - np.log1p(-h2)


def _factor_and_logdets(K: np.ndarray, log_ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Cholesky factor of r K + I at the first ratio, and log|r K + I| at each."""
    from scipy.linalg import cholesky

    logdet = np.empty(len(log_ratio))
    buffer = np.empty_like(K)
    factor = K  # replaced by the first
    for g, t in enumerate(log_ratio):
        V = np.multiply(K, K.dtype.type(np.exp(t)), out=buffer)
        V[np.diag_indices(len(K))] += 1
        L = cholesky(V, lower=True, overwrite_a=True, check_finite=False)
        logdet[g] = 2 * np.log(np.diagonal(L).astype(np.float64)).sum()
        if g == 0:
            factor, buffer = L, np.empty_like(K)
    return factor, logdet


def _inverse_of_vectors(factor: np.ndarray, vectors: np.ndarray, shift: np.ndarray) -> np.ndarray:
    r"""V^-1 of vectors (n, q) at log ratios that are shifted from that of the factor: (N, n, q).

    By Lanczos iterations with W, all vectors at a time: V^-1 x = f(W) x is next to
    \|x\| B f(T) e_1, with B their orthonormal basis and T = B' W B tridiagonal.
    """
    from scipy.linalg import cho_solve, eigh_tridiagonal

    n, q = vectors.shape
    rho = np.exp(shift)[:, None]
    norm = np.sqrt(np.einsum("nq,nq->q", vectors, vectors))

    def apply(x: np.ndarray) -> np.ndarray:
        solved = cho_solve((factor, True), x.astype(factor.dtype), check_finite=False)
        return solved.astype(np.float64)

    steps = islice(_lanczos(apply, vectors / norm, 1e-6), min(_MOST_TERMS, n))
    for basis, diagonal, beside in steps:
        terms = np.empty((q, len(rho), len(basis)))
        for i in range(q):
            theta, S = eigh_tridiagonal(diagonal[:, i], beside[:-1, i])
            theta = np.clip(theta, 0, 1)
            terms[i] = theta / (rho + (1 - rho) * theta) * S[0] @ S.T
        size = np.abs(terms).max(axis=2)
        if (np.abs(terms[:, :, -1]) <= _VECTOR_ERROR * size).all():
            break
    return np.einsum("qgk,knq->gnq", terms * norm[:, None, None], np.array(basis))


def null_profile(data: likelihood.Rotated, weights: Weights, kind: str) -> np.ndarray:
    """Profile log-likelihood of the null model at the nodes, (1, G)."""
    if kind == "reml":
        return -0.5 * (weights.logdet + data.df * np.log(weights.Q))[None]
    return -0.5 * (weights.logdet_d + data.n * np.log(weights.Q))[None]


@dataclass(frozen=True)
class Located:
    """Nodes around the null model's REML ratio, that ratio, and the likelihood there."""

    weights: CholeskyWeights
    center: float
    reml: float
    best: float


def locate(
    data: likelihood.Rotated,
    K: np.ndarray,
    start: float,
    half_width: float,
    nodes: int,
    *,
    skip_intercept: bool,
    spectrum: Spectrum | None = None,
) -> Located:
    """Move the nodes until the null model's REML ratio is well inside them.

    With a spectrum by the powers of one inverse, if these serve.
    """
    low, high = (end + half_width * sign for end, sign in zip(LOG_RANGE, (1, -1), strict=True))
    center = float(np.clip(start, low, high))
    left, right = LOG_RANGE  # what the optimum is known to lie between
    step = half_width
    moves = 40
    while True:
        weights = _weights_at(
            data, K, center, half_width, nodes, spectrum, skip_intercept=skip_intercept
        )
        t, best = maximise_on_nodes(null_profile(data, weights, "reml"), np.ones(1))
        found = center + half_width * float(t[0])
        if abs(t[0]) < 1:
            moved = found
        elif t[0] > 0:
            left, moved, step = found, found + step, 2 * step
        else:
            right, moved, step = found, found - step, 2 * step
        # Steps grow, but not over what is known; next to an end it may lie on either side.
        if not left < moved < right:
            moved = 0.5 * (left + right)
        moved = float(np.clip(moved, low, high))
        if moves == 0 or abs(t[0]) <= 0.5 or abs(moved - center) < 0.1 * half_width:
            return Located(weights, center, found, float(best[0]))
        center, moves = moved, moves - 1
        del weights  # the factors are as large as the matrix: not twice at a time


def _weights_at(
    data: likelihood.Rotated,
    K: np.ndarray,
    center: float,
    half_width: float,
    nodes: int,
    spectrum: Spectrum | None,
    *,
    skip_intercept: bool,
) -> CholeskyWeights:
    """Nodes around one log ratio: by powers of its inverse, or with a factor each."""
    if spectrum is not None:
        found = _power_weights(data, K, center, half_width, spectrum, skip_intercept=skip_intercept)
        if found is not None:
            return found
    at = center + half_width * chebyshev(nodes)
    return cholesky_weights(data, K, at, skip_intercept=skip_intercept)
