r"""The restricted likelihood of two traits on the eigenbasis: 2 x 2 blocks, O(n) each.

With s the eigenvalues of K over their mean kappa, and for eigenvector i

    Sigma_i = s_i A + B,   A = kappa (s2_g,t; cov_g),   B = (s2_e,t; cov_e),

the precision matrix of the rotated pairs of residuals is block-diagonal with blocks W_i =
Sigma_i^-1. Stacking both traits, X holding the covariates of each for itself, N numbers, p
coefficients, and M = X'W X, Q = y'W y - y'W X M^-1 X'W y,

    log L = -1/2 [ sum log|Sigma_i| + log|M| + (N - p) log Q ] + const,

once the overall scale is at its best; integrated over the scale under its reciprocal it is the
same up to a constant (Henderson & Quaas 1976, J Anim Sci 43:1188; Zhou & Stephens 2014, Nat
Methods 11:407).

**Samples with one trait only.** Let P be the precision of all pairs, as if complete: cheap on the
basis. With "a" the absent numbers and "o" the observed ones,

    V_oo^-1 = P_oo - P_oa P_aa^-1 P_ao,   log|V_oo| = log|V| + log|P_aa|.

P_aa = [U_1 diag(W_11) U_1', U_1 diag(W_12) U_2'; ., U_2 diag(W_22) U_2'], U_t the rows of U
of those whose trait t is absent. This is exact; an evaluation costs O(a^2 n) for a absent numbers.

What is varied are five numbers, `THETA`: h2 of either trait, the genetic and the residual
correlation, and the log of the ratio of total variances, trait 2 over trait 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import lgamma, log, pi

import numpy as np

from bayeslmm.bases.basis import Basis
from bayeslmm.errors import InputError
from bayeslmm.numerics import likelihood, newton
from bayeslmm.numerics.importance import Mixture, importance_sample, metropolis_sample
from bayeslmm.numerics.maximum import maximise_h2
from bayeslmm.priors import CorrelationPrior, H2Prior

THETA = ("h2_1", "h2_2", "rg", "re", "log_ratio")
LARGEST_CORRELATION = 1 - 1e-9
# With absent numbers, precisions of complete pairs cancel: near h2 = 1 sooner than without.
_LARGEST_H2_INCOMPLETE = 1 - 1e-6
_LARGEST_RATIO = 50.0
_CHUNK = 2**16
_TINY = 1e-12


@dataclass(frozen=True)
class PairData:
    """Two traits on the eigenbasis of all individuals that have at least one.

    Attributes
    ----------
    s : ndarray, shape (n,)
        Eigenvalues over their mean.
    y : tuple of two ndarray, shape (n,)
        Rotated least-squares residuals of each trait on its covariates; absent ones as 0.
    C : tuple of two ndarray, shapes (n, c_t)
        Rotated orthonormal covariates of each trait, rows of absent ones 0.
    absent : tuple of two ndarray, shapes (a_t, n)
        Rows of U of individuals without trait 1, and without trait 2.
    columns : tuple of two `likelihood.Rotated`
        How coefficients go back to covariates, in sample space.
    kappa : float
        Mean eigenvalue.
    """

    s: np.ndarray
    y: tuple[np.ndarray, np.ndarray]
    C: tuple[np.ndarray, np.ndarray]
    absent: tuple[np.ndarray, np.ndarray]
    columns: tuple[likelihood.Rotated, likelihood.Rotated]
    kappa: float

    @property
    def n_absent(self) -> int:
        """Numbers that would make all pairs complete."""
        return len(self.absent[0]) + len(self.absent[1])

    @property
    def n_observed(self) -> int:
        """Numbers observed, N."""
        return 2 * len(self.s) - self.n_absent

    @property
    def df(self) -> int:
        """N - p."""
        return self.n_observed - self.C[0].shape[1] - self.C[1].shape[1]

    @property
    def largest_h2(self) -> float:
        """Values of h2 up to here are computed accurately."""
        return _LARGEST_H2_INCOMPLETE if self.n_absent else likelihood.LARGEST_H2

    def with_y(self, y: tuple[np.ndarray, np.ndarray]) -> PairData:
        """The same design with other rotated phenotypes of complete pairs, each (n,)."""
        one, two = (y[t] - self.C[t] @ (self.C[t].T @ y[t]) for t in (0, 1))
        return replace(self, y=(one, two))


def pair_data(
    basis: Basis,
    y: tuple[np.ndarray, np.ndarray],
    C: tuple[np.ndarray, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
) -> PairData:
    """Put two traits on a basis.

    Parameters
    ----------
    basis : Basis
        Of the n individuals.
    y, C : tuples of ndarray, shapes (n_t,) and (n_t, c_t)
        Phenotypes and covariates of each trait, of full column rank.
    rows : tuple of ndarray of int, shapes (n_t,)
        Which individual each row is.

    Raises
    ------
    InputError
        If covariates explain a trait, or the residuals of one trait those of the other.
    """
    columns = tuple(likelihood.rotate(None, one, X) for one, X in zip(y, C, strict=True))
    n = basis.n
    rotated_y, rotated_C, absent = [], [], []
    full = np.zeros((n, 2))
    for t, (part, at) in enumerate(zip(columns, rows, strict=True)):
        full[at, t] = part.y
        wide = np.zeros((n, part.C.shape[1] + 1))
        wide[at, :-1], wide[at, -1] = part.C, part.y
        wide = basis.rotate(wide)
        rotated_C.append(np.ascontiguousarray(wide[:, :-1]))
        rotated_y.append(np.ascontiguousarray(wide[:, -1]))
        lacking = np.ones(n, dtype=bool)
        lacking[at] = False
        absent.append(np.ascontiguousarray(basis.rows(np.flatnonzero(lacking))))
    both = full[np.isin(np.arange(n), rows[0]) & np.isin(np.arange(n), rows[1])]
    if len(both) > 2 and 1 - abs(float(np.corrcoef(both, rowvar=False).flat[1])) < 1e-9:
        raise InputError(
            "The two traits are the same up to scale and covariates: there is nothing to correlate."
        )
    values = np.asarray(basis.values)
    return PairData(
        values / basis.kappa,
        (rotated_y[0], rotated_y[1]),
        (rotated_C[0], rotated_C[1]),
        (absent[0], absent[1]),
        (columns[0], columns[1]),
        basis.kappa,
    )


def covariances(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A and B at theta (..., 5), each (..., 3) as 11, 12, 22, relative to trait 1's variance.

    A is the genetic covariance at mean diagonal 1 (kappa included), B the residual one.

    Examples
    --------
    >>> A, B = covariances(np.array([0.5, 0.25, 1.0, 0.0, np.log(4.0)]))
    >>> A.round(4), B.round(4)
    (array([0.5   , 0.7071, 1.    ]), array([0.5, 0. , 3. ]))
    """
    h1, h2, rg, re, log_ratio = np.moveaxis(theta, -1, 0)
    v2 = np.exp(log_ratio)
    A = np.stack([h1, rg * np.sqrt(h1 * h2 * v2), h2 * v2], axis=-1)
    e1, e2 = 1 - h1, (1 - h2) * v2
    return A, np.stack([e1, re * np.sqrt(e1 * e2), e2], axis=-1)


@dataclass(frozen=True)
class Terms:
    """The pieces of the likelihood at G points.

    Attributes
    ----------
    logdet : ndarray, shape (G,)
        log|V| + log|X'V^-1 X|, V of the observed numbers.
    Q : ndarray, shape (G,)
        Generalised residual sum of squares.
    b : ndarray, shape (G, p)
        Coefficients of the orthonormal covariates, trait 1 then trait 2.
    L : ndarray, shape (G, p, p)
        Lower Cholesky factor of X'V^-1 X.
    """

    logdet: np.ndarray
    Q: np.ndarray
    b: np.ndarray
    L: np.ndarray


def terms(data: PairData, theta: np.ndarray) -> Terms:
    """Evaluate the pieces of the likelihood at theta (G, 5)."""
    theta = np.atleast_2d(theta).astype(np.float64)
    theta[:, :2] = np.clip(theta[:, :2], 0, data.largest_h2)
    theta[:, 2] = np.clip(theta[:, 2], -1, 1)
    theta[:, 3] = np.clip(theta[:, 3], -LARGEST_CORRELATION, LARGEST_CORRELATION)
    A, B = covariances(theta)
    # Columns: covariates and phenotype of trait 1, then of trait 2.
    Z = [np.column_stack([C, y]) for C, y in zip(data.C, data.y, strict=True)]
    k1, k2 = Z[0].shape[1], Z[1].shape[1]
    products = [
        (Z[i][:, :, None] * Z[j][:, None, :]).reshape(len(data.s), -1)
        for i, j in ((0, 0), (0, 1), (1, 1))
    ]
    G = len(theta)
    logdet, M = np.empty(G), np.empty((G, k1 + k2, k1 + k2))
    step = max(1, _CHUNK // len(data.s)) if not data.n_absent else 1
    for start in range(0, G, step):
        at = slice(start, start + step)
        one, between, two = (np.multiply.outer(A[at, j], data.s) + B[at, j, None] for j in range(3))
        det = _determinants(theta[at], data.s)
        logdet[at] = np.log(det).sum(axis=1)
        W = two / det, -between / det, one / det
        M[at, :k1, :k1] = (W[0] @ products[0]).reshape(-1, k1, k1)
        cross = (W[1] @ products[1]).reshape(-1, k1, k2)
        M[at, :k1, k1:], M[at, k1:, :k1] = cross, np.swapaxes(cross, 1, 2)
        M[at, k1:, k1:] = (W[2] @ products[2]).reshape(-1, k2, k2)
        if data.n_absent:
            more, H = _given_observed(data.absent, W, Z)
            logdet[at] += more
            M[at] -= H.T @ H
    # The phenotypes of both traits are one column.
    join = np.zeros((k1 + k2, k1 + k2 - 1))
    c1, c2 = k1 - 1, k2 - 1
    join[:c1, :c1], join[k1 : k1 + c2, c1 : c1 + c2] = np.eye(c1), np.eye(c2)
    join[[c1, -1], -1] = 1
    M = join.T @ M @ join
    L = np.linalg.cholesky(M[:, :-1, :-1])
    half = np.linalg.solve(L, M[:, :-1, -1:])
    b = np.linalg.solve(np.swapaxes(L, 1, 2), half)[..., 0]
    logdet += 2 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    return Terms(logdet, M[:, -1, -1] - (half**2).sum(axis=(1, 2)), b, L)


def _determinants(theta: np.ndarray, s: np.ndarray) -> np.ndarray:
    """|s A + B| at theta (G, 5), shape (G, n): a sum of terms of one sign, accurate near 0.

    |A| s^2 + (A_11 B_22 + A_22 B_11 - 2 A_12 B_12) s + |B|; A_11 A_22 - A_12^2 would cancel at
    correlations near 1.
    """
    h1, h2, rg, re, log_ratio = theta.T[:, :, None]
    e1, e2 = 1 - h1, 1 - h2
    between = (np.sqrt(h1 * e2) - np.sqrt(h2 * e1)) ** 2
    between += 2 * np.sqrt(h1 * h2 * e1 * e2) * (1 - rg * re)
    det = h1 * h2 * (1 - rg) * (1 + rg) * s**2 + between * s + e1 * e2 * (1 - re) * (1 + re)
    return det * np.exp(log_ratio)


def _given_observed(
    absent: tuple[np.ndarray, np.ndarray], W: tuple[np.ndarray, ...], Z: list[np.ndarray]
) -> tuple[float, np.ndarray]:
    """log|P_aa|, and H (a, k) with H'H = Z'P_oa P_aa^-1 P_ao Z, at one point."""
    from scipy.linalg import cholesky, solve_triangular

    U1, U2 = absent
    w11, w12, w22 = (one[0] for one in W)
    a1 = len(U1)
    P = np.empty((a1 + len(U2),) * 2)
    # A product of a matrix with its own transpose takes half the time.
    root1, root2 = U1 * np.sqrt(w11), U2 * np.sqrt(w22)
    P[:a1, :a1], P[a1:, a1:] = root1 @ root1.T, root2 @ root2.T
    P[a1:, :a1] = (U2 * w12) @ U1.T
    PZ = [
        np.column_stack([Z[0] * u[:, None], Z[1] * v[:, None]]) for u, v in ((w11, w12), (w12, w22))
    ]
    L = cholesky(P, lower=True, overwrite_a=True, check_finite=False)
    rows = np.concatenate([U1 @ PZ[0], U2 @ PZ[1]])
    return 2 * float(np.log(np.diagonal(L)).sum()), solve_triangular(L, rows, lower=True)


def restricted_loglik(data: PairData, theta: np.ndarray) -> np.ndarray:
    """REML log-likelihood at the best scale, at theta (G, 5), with GEMMA's constants."""
    t, df = terms(data, theta), data.df
    return -0.5 * (t.logdet + df * np.log(t.Q)) + 0.5 * df * (log(df) - log(2 * pi) - 1)


# -- the maximum ------------------------------------------------------------------------------

# Climbed in angles, h2 = sin(angle)^2, in which the covariances are smooth up to h2 = 0 and 1.


def to_angles(theta: np.ndarray) -> np.ndarray:
    """Theta (..., 5) with angles in the place of h2."""
    x = theta.copy()
    x[..., :2] = np.arcsin(np.sqrt(theta[..., :2]))
    return x


def from_angles(x: np.ndarray) -> np.ndarray:
    """The way back."""
    theta = x.copy()
    theta[..., :2] = np.sin(x[..., :2]) ** 2
    return theta


@dataclass(frozen=True)
class PairMaximum:
    """The largest restricted likelihood, some of theta perhaps fixed.

    Attributes
    ----------
    theta : ndarray, shape (5,)
        Where it is.
    loglik : float
        The restricted log-likelihood there.
    at_limit : tuple of str
        Members of `THETA` that are at a limit.
    covariance : ndarray, shape (6, 6), or None
        Of the estimates of (angles, correlations, log ratio, log scale), from the curvature;
        None at a limit, with fixed members, and where the likelihood is not curved.
    scale : float
        Total variance of trait 1.
    """

    theta: np.ndarray
    loglik: float
    at_limit: tuple[str, ...]
    covariance: np.ndarray | None
    scale: float


def maximise(
    data: PairData, fixed: Mapping[str, float] | None = None, start: np.ndarray | None = None
) -> PairMaximum:
    """The REML estimate of theta, some of it fixed by name.

    Parameters
    ----------
    data : PairData
        The data.
    fixed : mapping of str to float, optional
        Values of members of `THETA` that are not estimated.
    start : ndarray, shape (5,), optional
        A theta to begin at; by default the best of a grid of correlations, h2 and scale of
        each trait being those that it has alone.
    """
    fixed = dict(fixed or {})
    top, r = np.arcsin(np.sqrt(data.largest_h2)), LARGEST_CORRELATION
    upper = np.array([top, top, 1.0, r, _LARGEST_RATIO])
    lower = np.array([0.0, 0.0, -1.0, -r, -_LARGEST_RATIO])
    free = np.array([name not in fixed for name in THETA])
    template = np.array([fixed.get(name, 0.0) for name in THETA])

    def theta_of(x: np.ndarray) -> np.ndarray:
        points = np.repeat(to_angles(template)[None], len(x), axis=0)
        points[:, free] = x
        return from_angles(points)

    starts = _starts(data, fixed) if start is None else start[None]
    found = [
        newton.maximise(
            lambda x: restricted_loglik(data, theta_of(x)), x[free], lower[free], upper[free]
        )
        for x in to_angles(starts)
    ]
    best = max(found, key=lambda one: one.value)
    theta = theta_of(best.x[None])[0]
    scale = float(terms(data, theta[None]).Q[0]) / data.df
    names = [name for name, kept in zip(THETA, free, strict=True) if kept]
    at_limit = tuple(name for name, inside in zip(names, best.free, strict=True) if not inside)
    covariance = None
    if not at_limit and free.all() and np.linalg.eigvalsh(best.hessian)[-1] < 0:

        def log_scale(x: np.ndarray) -> np.ndarray:
            return np.log(terms(data, from_angles(x)).Q)

        # The scale is profiled out: its own variance given the rest is 2 / df.
        slope = newton.gradient(log_scale, best.x)
        covariance = np.zeros((6, 6))
        covariance[:5, :5] = np.linalg.inv(-best.hessian)
        covariance[5, :5] = covariance[:5, 5] = covariance[:5, :5] @ slope
        covariance[5, 5] = slope @ covariance[:5, 5] + 2 / data.df
    return PairMaximum(theta, best.value, at_limit, covariance, scale)


def _starts(data: PairData, fixed: Mapping[str, float]) -> np.ndarray:
    """The best points of a grid of correlations, (starts, 5)."""
    h2, s2 = zip(*(_alone(data, t) for t in (0, 1)), strict=True)
    rg = np.array([-0.9, -0.6, -0.3, 0, 0.3, 0.6, 0.9])
    at = np.meshgrid(rg, np.array([-0.6, -0.3, 0, 0.3, 0.6]) if data.n_absent else rg)
    grid = np.column_stack(
        [
            np.repeat([[*np.clip(h2, 0.02, 0.98)]], at[0].size, axis=0),
            at[0].ravel(),
            at[1].ravel(),
            np.full(at[0].size, np.log(s2[1] / s2[0])),
        ]
    )
    for name, value in fixed.items():
        grid[:, THETA.index(name)] = value
    if data.n_absent:
        # One climb is enough where each step is dear: phenotypic correlation as a guide.
        grid = np.unique(grid, axis=0)
    order = np.argsort(-restricted_loglik(data, grid))
    best = grid[order[0]]
    far = grid[np.abs(grid[:, 2] - best[2]) > 0.8]
    if data.n_absent or "rg" in fixed or not len(far):
        return best[None]
    return np.stack([best, far[np.argmax(restricted_loglik(data, far))]])


def _alone(data: PairData, t: int) -> tuple[float, float]:
    """h2 and total variance of one trait; absent ones at their mean, which is a start only."""
    part = data.columns[t]
    one = likelihood.Rotated(
        data.s, data.y[t], data.C[t], part.to_covariates, part.b_ols, data.kappa, part.sd_y
    )
    h2 = maximise_h2(lambda h: likelihood.restricted_loglik(one, h))
    s2 = float(likelihood.terms(one, np.array([h2])).Q[0]) / (part.n - part.C.shape[1])
    return h2, s2


# -- the posterior ------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairPrior:
    """Priors on the five numbers: h2 of either trait, correlations; log ratio flat.

    The overall scale has density 1 / scale: together with the flat log ratio that is 1/s2 for
    the total variance of either trait.
    """

    h2: tuple[H2Prior, H2Prior]
    rg: CorrelationPrior
    re: CorrelationPrior

    def log_density(self, theta: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Log prior density, shape (G,), of the free members (4 flags) of theta (G, 5)."""
        total = np.zeros(len(theta))
        priors: tuple[H2Prior | CorrelationPrior, ...] = (*self.h2, self.rg, self.re)
        for j, prior in enumerate(priors):
            if free[j]:
                total += prior.log_density(theta[:, j])
        return total


class Target:
    """The posterior of theta in coordinates without limits.

    h2 = Phi(x) and r = 2 Phi(x) - 1, Phi the normal distribution function: uniform priors are
    standard normal in x, so tails are never heavier than the proposal's. The log ratio is taken
    as it is.

    Parameters
    ----------
    data, prior : PairData, PairPrior
        The model.
    fixed : mapping of str to float, optional
        Members of `THETA` with a known value.
    """

    def __init__(
        self, data: PairData, prior: PairPrior, fixed: Mapping[str, float] | None = None
    ) -> None:
        self.data, self.prior, self.fixed = data, prior, dict(fixed or {})
        self.free = np.array([name not in self.fixed for name in THETA])

    def theta(self, x: np.ndarray) -> np.ndarray:
        """Points (G, d) as theta (G, 5)."""
        from scipy.special import ndtr

        theta = np.empty((len(x), len(THETA)))
        theta[:, self.free] = x
        theta[:, :2] = np.clip(ndtr(theta[:, :2]), _TINY, self.data.largest_h2)
        top = LARGEST_CORRELATION
        theta[:, 2:4] = np.clip(2 * ndtr(theta[:, 2:4]) - 1, -top, top)
        for name, value in self.fixed.items():
            theta[:, THETA.index(name)] = value
        return theta

    def coordinates(self, theta: np.ndarray) -> np.ndarray:
        """The way back, of one theta (5,): shape (d,); within the middle 98% of each range."""
        from scipy.special import ndtri

        x = theta.copy()
        x[:2] = ndtri(np.clip(theta[:2], 0.01, 0.99))
        x[2:4] = ndtri(np.clip((1 + theta[2:4]) / 2, 0.01, 0.99))
        return x[self.free]

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log posterior density at points (G, d), shape (G,)."""
        return self(x)[0]

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log posterior density at points (G, d), and what draws of the rest need, (G, k).

        Its integral is the marginal likelihood, with the constants of
        `likelihood.integrated_loglik`.
        """
        theta = self.theta(x)
        t, df = terms(self.data, theta), self.data.df
        loglik = -0.5 * (t.logdet + df * np.log(t.Q)) + lgamma(df / 2) - 0.5 * df * log(pi)
        limited = np.flatnonzero(self.free[:4])
        # dh2/dx is the normal density, dr/dx twice that.
        jacobian = -0.5 * (x[:, : len(limited)] ** 2).sum(axis=1) - 0.5 * len(limited) * log(2 * pi)
        jacobian += log(2) * np.count_nonzero(limited >= 2)
        p = t.b.shape[1]
        extras = np.column_stack([theta, t.Q, t.b, t.L.reshape(-1, p * p)])
        return loglik + self.prior.log_density(theta, self.free) + jacobian, extras

    def proposal(self, theta: np.ndarray) -> tuple[Mixture, Mixture]:
        """Around the mode that is reached from theta (5,), and one as wide as the prior."""
        d = int(self.free.sum())
        far = np.full(d, np.inf)
        mode = newton.maximise(self.log_density, self.coordinates(theta), -far, far, tolerance=1e-3)
        # On a ridge the curvature need not be that of a maximum: no direction gets wider than
        # twice the prior, which is standard normal in these coordinates.
        curvature, directions = np.linalg.eigh(-mode.hessian)
        spread = (directions / np.maximum(curvature, 0.25)) @ directions.T
        L = np.linalg.cholesky(spread)
        limited = self.free[: len(THETA) - 1].sum()
        wide = np.append(np.full(limited, 1.3), 4 * np.sqrt(spread[-1, -1]))
        centre = np.append(np.zeros(limited), mode.x[-1])
        near = Mixture(np.ones(1), mode.x[None], 1.1 * L[None])
        return near, Mixture(np.ones(1), centre[None], np.diag(wide)[None])


@dataclass(frozen=True)
class PairDraws:
    """Posterior draws of everything about two traits.

    Attributes
    ----------
    theta : ndarray, shape (draws, 5)
        See `THETA`.
    scale : ndarray, shape (draws,)
        Total variance of trait 1.
    b : ndarray, shape (draws, p)
        Coefficients of the orthonormal covariates.
    log_marginal, log_marginal_se : float
        Log marginal likelihood and its Monte Carlo standard error.
    ess, k_hat, r_hat : float
        Effective number of draws; shape of the tail of the importance weights; r-hat of
        Markov chains, NaN without.
    evaluations : int
        Points at which the likelihood was computed.
    sampler : str
        How they were made.
    """

    theta: np.ndarray
    scale: np.ndarray
    b: np.ndarray
    log_marginal: float
    log_marginal_se: float
    ess: float
    k_hat: float
    r_hat: float
    evaluations: int
    sampler: str


def draw_posterior(
    data: PairData,
    prior: PairPrior,
    draws: int,
    rng: np.random.Generator,
    *,
    start: np.ndarray,
    fixed: Mapping[str, float] | None = None,
    method: str = "auto",
    ess: float | None = None,
    limit: int | None = None,
) -> PairDraws:
    """Draws from the posterior of all parameters.

    Theta by importance sampling, or Metropolis where its diagnostics fail; then the scale, scaled
    inverse chi-squared, and the coefficients, normal, each from its exact conditional.

    Parameters
    ----------
    data, prior : PairData, PairPrior
        The model.
    draws : int
        How many.
    rng : Generator
        Of random numbers.
    start : ndarray, shape (5,)
        A theta near the mode, as the REML estimate.
    fixed : mapping, optional
        Members of `THETA` with a known value.
    method : {"auto", "importance", "metropolis"}
        "auto" goes over to Metropolis if k-hat is above 0.7 or the effective number stays below
        a tenth of the wanted one, and the data are complete.
    ess : float, optional
        Wanted effective number of draws; by default `draws`.
    limit : int, optional
        Evaluations of the likelihood at most; by default ten for each effective draw wanted.
    """
    target = Target(data, prior, fixed)
    near, wide = target.proposal(start)
    wanted = float(draws if ess is None else ess)
    batch = 1000 if not data.n_absent else 250
    limit = max(int(10 * wanted), 4 * batch) if limit is None else limit
    found = importance_sample(
        target, near, rng, ess=wanted, batch=batch, limit=limit, defensive=wide
    )
    poor = not found.trusted or found.ess < 0.1 * wanted
    evaluations, effective, r_hat = len(found.points), found.ess, np.nan
    if method == "metropolis" or (method == "auto" and poor and not data.n_absent):
        chains = metropolis_sample(target, found, rng, draws=-(-draws // 8))
        kept = chains.extras.reshape(-1, chains.extras.shape[-1])[:draws]
        kept = rng.permutation(kept)
        r_hat, effective = chains.r_hat, min(chains.ess, float(draws))
        evaluations += chains.evaluations
        sampler = "Metropolis, 8 chains"
    else:
        kept = found.extras[found.resample(draws, rng)]
        sampler = "adaptive importance sampling, resampled"
    p = data.C[0].shape[1] + data.C[1].shape[1]
    theta, Q, b, L = np.split(kept, [5, 6, 6 + p], axis=1)
    scale = Q[:, 0] / rng.chisquare(data.df, draws)
    noise = rng.standard_normal((draws, p, 1))
    shift = np.linalg.solve(np.swapaxes(L.reshape(-1, p, p), 1, 2), noise)[..., 0]
    return PairDraws(
        theta,
        scale,
        b + np.sqrt(scale)[:, None] * shift,
        found.log_integral,
        found.log_integral_se,
        effective,
        found.k_hat,
        float(r_hat),
        evaluations,
        sampler,
    )
