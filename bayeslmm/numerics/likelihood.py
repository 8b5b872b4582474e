r"""The likelihood of the rotated model: what reml, posterior, scan and PyMC share.

With K = U diag(S) U', kappa the mean of S, s = S / kappa, and

    V = s2 D,   D = diag(d),   d = h2 s + 1 - h2,

s2 is the total variance and h2 its genetic share; s2_g = s2 h2 / kappa and
s2_e = s2 (1 - h2). On the basis y and C become U'y and U'C, and with

    A = C' D^-1 C,   P = D^-1 - D^-1 C A^-1 C' D^-1,   Q = y' P y,   df = n - c,

the restricted likelihood, maximised over s2, is

    log L(h2) = -1/2 [ sum log d + log|A| + df log Q ] + const;

integrated over s2 under 1/s2 it is the same up to a constant (Patterson & Thompson
1971; Kang et al. 2008; Zhou & Stephens 2012; Furlotte et al. 2014).

Two changes of coordinates keep it accurate up to h2 = 1, where centring makes d of the
intercept's direction 0: C is replaced by an orthonormal basis of its columns whose
first member is the intercept, and y by its residual on C. Neither changes L.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import lgamma, log, pi
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.numerics.chebyshev import chebyshev, lagrange, nodes_for

if TYPE_CHECKING:
    from bayeslmm.bases.basis import Basis

LARGEST_H2 = 1 - 1e-9
# Above this, products with D^-1 are not summed: digits would be lost.
_NEARLY_SINGULAR = 1 - 1e-6
# Numbers worked on at a time: they stay in the processor's cache.
_CHUNK = 2**16
# From so many samples on, sums over them are taken once, at nodes of log s (`_moments`).
_MANY = 20_000
# Relative error of what is interpolated between these nodes.
_NODE_ERROR = 1e-15


@dataclass(frozen=True)
class Rotated:
    """y and C on the eigenbasis.

    Attributes
    ----------
    s : ndarray, shape (n,)
        Eigenvalues over their mean.
    y : ndarray, shape (n,)
        Rotated least-squares residual of the phenotype on C.
    C : ndarray, shape (n, c)
        Rotated orthonormal basis of the covariates.
    to_covariates : ndarray, shape (c, c)
        Takes coefficients of that basis to coefficients of the covariates.
    b_ols : ndarray, shape (c,)
        Least-squares coefficients of the covariates, taken out of `y`.
    kappa : float
        Mean eigenvalue.
    sd_y : float
        Standard deviation of the phenotype, n in the denominator.
    uncentered : bool
        Whether s are those of K as it is, though the model's K is the centred one: the first
        column of C is along the intercept then. The restricted likelihood is the same, the
        full one is corrected.
    """

    s: np.ndarray
    y: np.ndarray
    C: np.ndarray
    to_covariates: np.ndarray
    b_ols: np.ndarray
    kappa: float
    sd_y: float
    uncentered: bool = False

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.y)

    @property
    def df(self) -> int:
        """Residual degrees of freedom, n - c."""
        return self.n - self.C.shape[1]

    @cached_property
    def products(self) -> np.ndarray:
        """What is summed with weights 1 / d, shape (n, P): products within C, C y, and y^2."""
        rows, cols = np.tril_indices(self.C.shape[1])
        y = self.y[:, None]
        return np.column_stack([self.C[:, rows] * self.C[:, cols], self.C * y, y * y])

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Nodes of s (M,), and the sums of `products` (M, P) and of 1 (M,) that belong to each.

        A function of h2 and s such as 1 / d is smooth in log s: its singularities lie at a
        distance of pi from the real line. Interpolated between Chebyshev nodes there, to machine
        precision, a sum over samples becomes one over nodes, whose weights do not depend on h2.
        None where samples are few, or their eigenvalues too spread for that to be less work.
        """
        if self.n < _MANY:
            return None
        positive = self.s > 0
        t = np.log(self.s[positive])
        if not len(t):
            return None
        middle, half = 0.5 * (t.min() + t.max()), 0.5 * np.ptp(t) + 1e-9
        count = nodes_for(half, _NODE_ERROR) + 2
        if count > self.n // 20:
            return None
        at = middle + half * chebyshev(count)
        sums, ones = np.zeros((count, self.products.shape[1])), np.zeros(count)
        products = self.products[positive]
        step = max(1, _CHUNK // count)
        for i in range(0, len(t), step):
            share = lagrange(at, t[i : i + step])
            sums += share.T @ products[i : i + step]
            ones += share.sum(axis=0)
        zero = ~positive
        return (
            np.append(np.exp(at), 0.0),
            np.concatenate([sums, self.products[zero].sum(axis=0)[None]]),
            np.append(ones, zero.sum()),
        )


def rotate(basis: Basis | None, y: np.ndarray, C: np.ndarray) -> Rotated:
    """Put a phenotype (n,) and covariates (n, c) of full column rank on a basis.

    Without basis (no kernel) the eigenvalues are 0 and nothing is rotated.
    """
    n, c = C.shape
    if c:
        scale = np.linalg.norm(C, axis=0)
        Q, R = np.linalg.qr(C / scale)
        along = Q.sum(axis=0) / np.sqrt(n)
        if abs(along @ along - 1) < 1e-8:
            H = _householder(along)
            Q, R = Q @ H, H @ R
        to_covariates = np.linalg.inv(R) / scale[:, None]
    else:
        Q, to_covariates = C, np.zeros((0, 0))
    b_ols = to_covariates @ (Q.T @ y)
    residual = y - Q @ (Q.T @ y)
    residual -= Q @ (Q.T @ residual)
    sd_y = float(np.std(y))
    if np.linalg.norm(residual) <= 1e-10 * np.linalg.norm(y):
        raise InputError(
            "The covariates explain the phenotype completely: nothing is left to model."
        )
    if basis is None:
        return Rotated(np.zeros(n), residual, Q, to_covariates, b_ols, 1.0, sd_y)
    kappa = basis.kappa
    return Rotated(
        np.asarray(basis.values) / kappa,
        basis.rotate(residual),
        basis.rotate(Q),
        to_covariates,
        b_ols,
        kappa,
        sd_y,
        basis.needs_intercept and not basis.centered,
    )


def _householder(v: np.ndarray) -> np.ndarray:
    """Symmetric orthogonal matrix whose first column is +-v, for a unit vector v."""
    w = v.copy()
    w[0] += np.copysign(1.0, v[0])
    return np.eye(len(v)) - 2 * np.outer(w, w) / (w @ w)


def weights(data: Rotated, h2: float) -> np.ndarray:
    """1 / d at one h2, shape (n,), finite up to h2 = 1."""
    h2 = min(h2, LARGEST_H2)
    return 1.0 / np.maximum(1.0 + h2 * (data.s - 1.0), 1.0 - h2)


def weight_blocks(data: Rotated, h2: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """`weights` at some of h2 (G,) after the other: which, and their rows (g, n)."""
    h2 = np.minimum(h2, LARGEST_H2)
    step = max(1, _CHUNK // len(data.s))
    for start in range(0, len(h2), step):
        at = slice(start, start + step)
        h = h2[at, None]
        w = 1.0 + h * (data.s - 1.0)
        np.maximum(w, 1.0 - h, out=w)
        yield at, np.reciprocal(w, out=w)


@dataclass(frozen=True)
class Terms:
    """The pieces of the likelihood at G values of h2.

    Attributes
    ----------
    logdet : ndarray, shape (G,)
        sum log d + log|A|.
    Q : ndarray, shape (G,)
        y'Py.
    logdet_d : ndarray, shape (G,)
        sum log d, of the centred K if the model has an intercept.
    b : ndarray, shape (G, c)
        Generalised least-squares coefficients of the orthonormal covariates.
    L : ndarray, shape (G, c, c)
        Lower Cholesky factor of A.
    """

    logdet: np.ndarray
    Q: np.ndarray
    logdet_d: np.ndarray
    b: np.ndarray
    L: np.ndarray


def terms(data: Rotated, h2: np.ndarray, *, precision: np.ndarray | None = None) -> Terms:
    """Evaluate the pieces of the likelihood at each of h2, shape (G,), O(n c^2) each.

    With `precision`, shape (c,), the orthonormal covariates' coefficients have independent
    normal priors of variance s2 / precision; it is added to the diagonal of A.
    """
    h2 = np.minimum(np.atleast_1d(np.asarray(h2, dtype=np.float64)), LARGEST_H2)
    c = data.C.shape[1]
    rows, cols = np.tril_indices(c)
    s, products, number = data.moments or (data.s, data.products, None)
    G = len(h2)
    sums, logdet_d = np.empty((G, products.shape[1])), np.empty(G)
    step = max(1, _CHUNK // len(s))
    for i in range(0, G, step):
        h = h2[i : i + step, None]
        d = 1.0 + h * (s - 1.0)
        np.maximum(d, 1.0 - h, out=d)
        log_d = np.log(d)
        logdet_d[i : i + step] = log_d.sum(axis=1) if number is None else log_d @ number
        np.reciprocal(d, out=d)
        sums[i : i + step] = d @ products
    yy = sums[:, -1]
    A = np.zeros((G, c, c))
    A[:, rows, cols] = sums[:, : len(rows)]
    A[:, cols, rows] = sums[:, : len(rows)]
    centring: np.ndarray | float = 0.0
    if data.uncentered:
        # |V| of the centred K, by its contrasts: log|V| + log(1'V^-1 1 / n) + log(1 - h2).
        centring = np.log(A[:, 0, 0]) + np.log1p(-h2)
    if precision is not None:
        A[:, range(c), range(c)] += precision
    g = sums[:, len(rows) : -1]
    L = np.linalg.cholesky(A)
    half = np.linalg.solve(L, g[..., None])[..., 0]
    b = np.linalg.solve(np.swapaxes(L, 1, 2), half[..., None])[..., 0]
    Q = yy - (half * half).sum(axis=1)
    near = np.flatnonzero(h2 > _NEARLY_SINGULAR)
    for at, w in weight_blocks(data, h2[near]):
        L[near[at]], b[near[at]], Q[near[at]] = _by_rows(data, w, precision)
    logdet_A = 2 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    return Terms(logdet_d + logdet_A, Q, logdet_d + centring, b, L)


def _by_rows(
    data: Rotated, w: np.ndarray, precision: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """L, b and Q at some h2 next to 1, weights w (g, n), from triangles of D^-1/2 [C, y] itself.

    A = C'D^-1 C has the square of its condition number: where K is singular, A loses as many
    digits as 1 - h2 has zeros.
    """
    c = data.C.shape[1]
    both = np.sqrt(w)[:, :, None] * np.column_stack([data.C, data.y])
    if precision is not None:
        rows = np.column_stack([np.diag(np.sqrt(precision)), np.zeros(c)])
        both = np.concatenate([both, np.broadcast_to(rows, (len(w), *rows.shape))], axis=1)
    R = np.linalg.qr(both, mode="r")
    R *= np.where(np.diagonal(R, axis1=1, axis2=2) < 0, -1.0, 1.0)[:, :, None]
    triangle = R[:, :c, :c]
    b = np.linalg.solve(triangle, R[:, :c, c, None])[..., 0]
    return np.swapaxes(triangle, 1, 2), b, R[:, c, c] ** 2


def restricted_loglik(data: Rotated, h2: np.ndarray) -> np.ndarray:
    """REML log-likelihood at the best s2, shape (G,), with GEMMA's constants."""
    t, df = terms(data, h2), data.df
    return -0.5 * (t.logdet + df * np.log(t.Q)) + 0.5 * df * (log(df) - log(2 * pi) - 1)


def full_loglik(data: Rotated, h2: np.ndarray) -> np.ndarray:
    """ML log-likelihood at the best s2 and coefficients, shape (G,)."""
    t, n = terms(data, h2), data.n
    return -0.5 * (t.logdet_d + n * np.log(t.Q)) + 0.5 * n * (log(n) - log(2 * pi) - 1)


def integrated_loglik(
    data: Rotated, h2: np.ndarray, *, prior_df: float = 0.0, prior_scale: float = 0.0
) -> np.ndarray:
    r"""log p(y | h2), shape (G,), covariates and s2 integrated out.

    The prior is flat for the coefficients of the orthonormal covariates and scaled
    inverse chi-squared for s2 with `prior_df` = nu degrees of freedom and
    `prior_scale` = tau^2; nu = 0 is 1/s2 (improper, constant 1):

    log p = -1/2 [ logdet + (df + nu) log(Q + nu tau^2) ] + log Gamma((df + nu)/2)
    - df/2 log pi, and for nu > 0 also + nu/2 log(nu tau^2) - log Gamma(nu/2).
    """
    if prior_df < 0 or (prior_df > 0 and not prior_scale > 0):
        raise InputError(
            f"A scaled inverse chi-squared prior with {prior_df:g} degrees of freedom and scale "
            f"{prior_scale:g} is no density: both must be above 0, or the first 0 for 1/s2."
        )
    return integrated(terms(data, h2), data.df, prior_df, prior_scale)


def integrated(t: Terms, df: int, prior_df: float = 0.0, prior_scale: float = 0.0) -> np.ndarray:
    """`integrated_loglik` of pieces that are known, df = n - c."""
    total = df + prior_df
    constant = lgamma(total / 2) - 0.5 * df * log(pi)
    if prior_df > 0:
        constant += 0.5 * prior_df * log(prior_df * prior_scale) - lgamma(prior_df / 2)
    return constant - 0.5 * (t.logdet + total * np.log(t.Q + prior_df * prior_scale))


def projected(data: Rotated, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """H (c, n) and Py (n,) at weights w (n,) = 1 / d, with P = diag(w) - H'H."""
    L = np.linalg.cholesky((data.C.T * w) @ data.C)
    half = np.linalg.solve(L, data.C.T * w)
    return half, w * data.y - half.T @ (half @ data.y)


@dataclass(frozen=True)
class Derivatives:
    """First and second derivatives in h2 of sum log d + log|A| (F) and of Q = y'Py."""

    F1: float
    F2: float
    Q: float
    Q1: float
    Q2: float


def derivatives(data: Rotated, h2: float) -> Derivatives:
    """Analytic derivatives at one h2, from P' = -P diag(s - 1) P."""
    slope = data.s - 1.0
    w = weights(data, h2)
    half, Py = projected(data, w)
    dPy = slope * Py
    middle = (half * slope) @ half.T
    weighted = half * slope
    trace1 = w @ slope - np.trace(middle)
    trace2 = (
        (w * slope) @ (w * slope) - 2 * np.sum(weighted * weighted * w) + np.sum(middle * middle.T)
    )
    PdPy = w * dPy - half.T @ (half @ dPy)
    return Derivatives(
        F1=float(trace1),
        F2=-float(trace2),
        Q=float(data.y @ Py),
        Q1=-float(Py @ dPy),
        Q2=2 * float(dPy @ PdPy),
    )
