r"""Several variance components: the restricted likelihood, its derivatives, AI-REML; arrays only.

    y = C b + sum_k u_k + e,   u_k ~ N(0, s2_k K_k),   e ~ N(0, s2_e I).

Several kernels have no eigenbasis in common, so each evaluation takes a Cholesky factor. All
else is done once. The covariates are projected out: with A an orthonormal complement of C
(n x nu, nu = n - c), the contrasts A'y hold all that y says about the variances,

    A'y ~ N(0, s2 M),   M(h) = sum_k h_k M_k + h_e I,   M_k = A' K_k A / kappa_k,

kappa_k the mean diagonal of K_k (centred if C spans the constant), h_k = s2_k kappa_k / s2 the
shares and s2 = sum_k s2_k kappa_k + s2_e the total variance. With z = M^-1 A'y and Q = y'A z,

    log L(h) = -1/2 [ log|M| + nu log Q ] + const

is the restricted likelihood maximised over s2, and integrated over it under 1/s2 (flat b), up to
a constant. The symmetric matrices are kept in LAPACK's rectangular full packed form: half the
memory, M a product of a row of shares with a matrix of all kernels, traces likewise, and the
Cholesky factor and the inverse as fast as those of full matrices (Gustavson et al. 2010, ACM
Trans Math Softw 37:18).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from math import lgamma, log, pi
from typing import Any, Protocol

import numpy as np

from bayeslmm.runs.memory import require_memory

# What is left of the total variance for the residual at the least: M may be singular without it.
SMALLEST_RESIDUAL = 1e-8
# Name of the part that no kernel has.
RESIDUAL = "residual"
# Newton decrement, in units of the log-likelihood, below which AI-REML has converged.
_CONVERGED = 1e-10
_HALVINGS = 6


class Matrices(Protocol):
    """Matrices one at a time: a list, or what makes each when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, k: int, /) -> np.ndarray: ...


class Components:
    """The contrasts of a phenotype and of kernels, packed.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Phenotype.
    C : ndarray, shape (n, c)
        Covariates, of full column rank.
    kernels : sequence of ndarray, each (n, n)
        Symmetric; asked for one after the other.
    center : bool
        Centre the kernels first; for covariates that span the constant.

    Attributes
    ----------
    y : ndarray, shape (nu,)
        Contrasts of the phenotype.
    packed : ndarray, shape (K, nu (nu + 1) / 2)
        M_k in rectangular full packed form.
    kappa : ndarray, shape (K,)
        Mean diagonals.
    cross, own : ndarray, shapes (K, c, nu), (K, c, c)
        Q' K_k A / kappa_k and Q' K_k Q / kappa_k, with Q an orthonormal basis of C.
    """

    def __init__(self, y: np.ndarray, C: np.ndarray, kernels: Matrices, *, center: bool) -> None:
        from scipy.linalg.lapack import dgeqrf

        n, c = C.shape
        self.n, self.c, self.df = n, c, n - c
        K = len(kernels)
        size = self.df * (self.df + 1) // 2
        require_memory(8.0 * ((K + 3) * size + 3 * n * n), f"{K} kernels of {n:,} samples")
        self._qr, self._tau, _, _ = dgeqrf(np.asfortranarray(C, dtype=np.float64))
        self._R = np.triu(self._qr[:c])
        self._set_phenotype(y)
        self.packed = np.empty((K, size))
        self.kappa = np.empty(K)
        self.cross, self.own = np.empty((K, c, self.df)), np.empty((K, c, c))
        for k in range(K):
            M = np.array(kernels[k], dtype=np.float64, order="F")
            if center:
                means = M.mean(axis=0)
                M -= means
                M -= means[:, None]
                M += means.mean()
            self.kappa[k] = np.trace(M) / n
            M /= self.kappa[k]
            M = self._reflected(self._reflected(M, "L", "T"), "R", "N")
            self.own[k], self.cross[k] = M[:c, :c], M[:c, c:]
            self.packed[k] = pack(M[c:, c:])

    def _reflected(self, X: np.ndarray, side: str, trans: str) -> np.ndarray:
        """Q' X or X Q of the covariates' QR decomposition; X is overwritten."""
        from scipy.linalg.lapack import dormqr

        if not self.c:
            return X
        work = max(64 * self.n, 1)
        return dormqr(side, trans, self._qr, self._tau, X, work, overwrite_c=1)[0]

    def _set_phenotype(self, y: np.ndarray) -> None:
        column = np.array(y, dtype=np.float64, order="F")[:, None]
        turned = self._reflected(column, "L", "T")[:, 0]
        self.y, self._Q1y = turned[self.c :].copy(), turned[: self.c].copy()

    def with_phenotype(self, y: np.ndarray) -> Components:
        """The same of another phenotype (n,); the kernels are shared."""
        other = copy(self)
        other._set_phenotype(y)
        return other

    @cached_property
    def diagonal(self) -> np.ndarray:
        """Positions of the diagonal in packed form, shape (nu,)."""
        return np.flatnonzero(pack(np.eye(self.df)))

    @cached_property
    def diagonals(self) -> np.ndarray:
        """Diagonals of the M_k, shape (K, nu)."""
        return self.packed[:, self.diagonal]

    @cached_property
    def norms(self) -> np.ndarray:
        """Inner products of the M_k and, last, the identity, shape (K + 1, K + 1)."""
        K = len(self.kappa)
        G = np.empty((K + 1, K + 1))
        # Elements off the diagonal count twice.
        G[:K, :K] = 2 * (self.packed @ self.packed.T) - self.diagonals @ self.diagonals.T
        G[K, :K] = G[:K, K] = self.diagonals.sum(axis=1)
        G[K, K] = self.df
        return G

    def factor(self, weights: np.ndarray) -> Factor | None:
        """Cholesky factor of sum_k w_k M_k + w_e I, weights (K + 1,); None if it has none."""
        from scipy.linalg.lapack import dpftrf

        M = weights[:-1] @ self.packed
        M[self.diagonal] += weights[-1]
        L, info = dpftrf(self.df, M, transr="N", uplo="L", overwrite_a=1)
        return None if info else Factor(self, weights, L)

    def loglik(self, shares: np.ndarray) -> np.ndarray:
        """log p(y | h), shape (G,), of shares (G, K + 1); -inf where M has no factor.

        s2 and coefficients integrated out, with the constants of
        `bayeslmm.numerics.likelihood.integrated_loglik`.
        """
        return np.array([at.loglik if at else -np.inf for at in map(self.evaluate, shares)])

    def evaluate(self, shares: np.ndarray) -> Evaluation | None:
        """Everything that draws need at one set of shares (K + 1,); None if M has no factor."""
        at = self.factor(shares)
        if at is None:
            return None
        mixed = np.tensordot(shares[:-1], self.cross, axes=1)
        solved = at.solve(np.column_stack([self.y, mixed.T]))
        Q = float(self.y @ solved[:, 0])
        covariance = np.tensordot(shares[:-1], self.own, axes=1) + shares[-1] * np.eye(self.c)
        covariance -= mixed @ solved[:, 1:]
        b, covariance = self.fixed_effects(mixed @ solved[:, 0], covariance)
        return Evaluation(self.integrated(at.logdet, Q), Q, b, covariance)

    def fixed_effects(
        self, shift: np.ndarray, covariance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Effects of the covariates, and their covariance, from those of their orthonormal basis.

        `shift` (..., c) is what the contrasts take from the least-squares coefficients of the
        basis; the covariance has shape (..., c, c).
        """
        to_covariates = np.linalg.inv(self._R)
        b = (self._Q1y - shift) @ to_covariates.T
        return b, to_covariates @ covariance @ to_covariates.T

    def integrated(self, logdet: Any, Q: Any) -> Any:
        """log p(y | h) from log|M| and Q."""
        nu = self.df
        return lgamma(nu / 2) - 0.5 * nu * log(pi) - 0.5 * (logdet + nu * np.log(Q))

    def restricted(self, theta: np.ndarray) -> float:
        """Restricted log-likelihood at the components s2_k kappa_k and s2_e, (K + 1,)."""
        at = self.factor(theta)
        return -np.inf if at is None else at.restricted


@dataclass(frozen=True)
class Evaluation:
    """log p(y | h), and the conditional distributions of s2 and b.

    Attributes
    ----------
    loglik : float
        s2 and b integrated out.
    Q : float
        s2 | h is Q / chi-squared with nu degrees of freedom.
    b, covariance : ndarray, shapes (c,) and (c, c)
        b | h, s2 is normal with this mean, and this covariance times s2.
    """

    loglik: float
    Q: float
    b: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class Factor:
    """L of V = sum_k w_k M_k + w_e I = L L', packed, and what follows from it."""

    of: Components
    weights: np.ndarray
    L: np.ndarray

    @cached_property
    def logdet(self) -> float:
        """log|V|."""
        return 2 * float(np.log(self.L[self.of.diagonal]).sum())

    def solve(self, B: np.ndarray) -> np.ndarray:
        """V^-1 B, shape (nu, m)."""
        from scipy.linalg.lapack import dpftrs

        return dpftrs(self.of.df, self.L, np.asfortranarray(B), transr="N", uplo="L")[0]

    @cached_property
    def z(self) -> np.ndarray:
        """V^-1 y, shape (nu,)."""
        return self.solve(self.of.y[:, None])[:, 0]

    @cached_property
    def Q(self) -> float:
        """y' V^-1 y."""
        return float(self.of.y @ self.z)

    @property
    def restricted(self) -> float:
        """Restricted log-likelihood if the weights are variances."""
        return -0.5 * (self.of.df * log(2 * pi) + self.logdet + self.Q)

    @cached_property
    def kernel_products(self) -> np.ndarray:
        """M_k z and, last, z: shape (nu, K + 1)."""
        products = [unpacked_times(row, self.z) for row in self.of.packed]
        return np.column_stack([*products, self.z])

    @cached_property
    def derivatives(self) -> tuple[np.ndarray, np.ndarray]:
        """tr(V^-1 M_k) and z' M_k z, both (K + 1,), the identity last."""
        from scipy.linalg.lapack import dpftri

        inverse = dpftri(self.of.df, self.L, transr="N", uplo="L")[0]
        own = inverse[self.of.diagonal]
        traces = 2 * (self.of.packed @ inverse) - self.of.diagonals @ own
        return np.append(traces, own.sum()), self.kernel_products.T @ self.z

    @cached_property
    def average_information(self) -> np.ndarray:
        """1/2 z' M_j V^-1 M_k z, shape (K + 1, K + 1): Gilmour, Thompson & Cullis (1995)."""
        W = self.kernel_products
        AI = 0.5 * W.T @ self.solve(W)
        return (AI + AI.T) / 2

    @property
    def score(self) -> np.ndarray:
        """Derivatives of the restricted log-likelihood in the variances, (K + 1,)."""
        traces, forms = self.derivatives
        return 0.5 * (forms - traces)

    def share_derivatives(self) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (K,) and average information (K, K) of log p(y | h) in the kernels' shares.

        The weights must be shares, the residual's that of the rest; s2 is profiled out.
        """
        s2 = self.Q / self.of.df
        traces, forms = self.derivatives
        gradient = 0.5 * (forms / s2 - traces)
        W = self.kernel_products
        W = W[:, :-1] - W[:, -1:]
        slope = 0.5 * (forms[:-1] - forms[-1]) / s2
        AI = 0.5 * W.T @ self.solve(W) / s2 - np.outer(slope, slope) / (0.5 * self.of.df)
        return gradient[:-1] - gradient[-1], (AI + AI.T) / 2


def pack(A: np.ndarray) -> np.ndarray:
    """A symmetric matrix in rectangular full packed form, from its lower triangle."""
    from scipy.linalg.lapack import dtrttf

    return dtrttf(np.asfortranarray(A), transr="N", uplo="L")[0]


def unpacked(a: np.ndarray) -> np.ndarray:
    """The lower triangle of a packed matrix, shape (n, n); zeros above."""
    from scipy.linalg.lapack import dtfttr

    n = round((np.sqrt(8 * len(a) + 1) - 1) / 2)
    return np.tril(dtfttr(n, a, transr="N", uplo="L")[0])


def unpacked_times(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A packed symmetric matrix times a vector (n,)."""
    from scipy.linalg.blas import dsymv
    from scipy.linalg.lapack import dtfttr

    return dsymv(1.0, dtfttr(len(x), a, transr="N", uplo="L")[0], x, lower=1)


def threads(n: int) -> AbstractContextManager[Any]:
    """One BLAS thread for small matrices, where many cost more than they bring."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1) if n <= 800 else nullcontext()


# -- restricted maximum likelihood -------------------------------------------------------------


@dataclass(frozen=True)
class Optimum:
    """Where AI-REML ended, and how it came there.

    Attributes
    ----------
    theta : ndarray, shape (K + 1,)
        s2_k kappa_k and, last, s2_e.
    at : Factor
        The likelihood there.
    converged : bool
        Whether the expected gain of another step within the constraints is below 1e-10.
    history : list of dict
        For each iteration: loglik, step ("EM", "AI", "AI/2", ...), decrement (twice the expected
        gain) and the number of components at 0.
    """

    theta: np.ndarray
    at: Factor
    converged: bool
    history: list[dict[str, Any]] = field(repr=False)

    @property
    def iterations(self) -> int:
        """Number of steps taken."""
        return len(self.history) - 1


def maximise(
    components: Components,
    *,
    start: np.ndarray | None = None,
    without: Sequence[int] = (),
    max_iterations: int = 100,
) -> Optimum:
    """AI-REML in the variances, each at least 0.

    A step maximises the quadratic with the score and the average information under the
    constraints. One that does not raise the likelihood is halved; if none of six does, an EM step
    is taken, which always does. The first step is EM, as the average information is poor far from
    the maximum.

    Parameters
    ----------
    components : Components
        The data.
    start : ndarray, shape (K + 1,), optional
        Components to start from; equal ones by default.
    without : sequence of int
        Kernels that are left out: their component stays 0.
    max_iterations : int
        Where it stops without convergence.

    References
    ----------
    Gilmour AR, Thompson R, Cullis BR (1995). Average information REML: an efficient algorithm
    for variance parameter estimation in linear mixed models. Biometrics 51:1440.
    doi:10.2307/2533274
    Yang J, Lee SH, Goddard ME, Visscher PM (2011). GCTA: a tool for genome-wide complex trait
    analysis. Am J Hum Genet 88:76. doi:10.1016/j.ajhg.2010.11.011
    """
    K, df = len(components.kappa), components.df
    total = float(components.y @ components.y) / df
    absent = np.zeros(K + 1, dtype=bool)
    absent[list(without)] = True
    floor = np.zeros(K + 1)
    floor[-1] = SMALLEST_RESIDUAL * total
    if start is None:
        theta = np.where(absent, 0.0, total / (K + 1 - len(without)))
    else:
        theta = np.where(absent, 0.0, np.maximum(start, floor))
    at = _factor(components, theta)
    history = [_record(at, "start", np.nan, theta, floor)]
    converged = False
    for iteration in range(max_iterations):
        # The residual keeps a tenth of itself in a step, so that one bad step does not end there.
        lower = np.where(absent, 0.0, -theta)
        lower[-1] = max(floor[-1] - theta[-1], -0.9 * theta[-1])
        step = _bounded_step(at.score, at.average_information, lower, ~absent)
        decrement = float(at.score @ step)
        if decrement < _CONVERGED:
            converged = True
            break
        first = iteration == 0 and start is None
        chosen = None if first else _line_search(components, at, theta, step)
        if chosen is None:
            candidate = np.maximum(theta + theta**2 * 2 * at.score / df, floor)
            em = components.factor(candidate)
            if em is None or (em.restricted <= at.restricted and not first):
                # Rounding: neither Newton's step nor EM's finds a better point.
                converged = decrement < 1e-6
                break
            chosen = candidate, em, "EM"
        theta, at, name = chosen
        history.append(_record(at, name, decrement, theta, floor))
    return Optimum(theta, at, converged, history)


def _bounded_step(
    score: np.ndarray, AI: np.ndarray, lower: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """The step d >= lower that maximises score'd - 1/2 d' AI d, 0 where not free.

    With d = lower + w, w >= 0, and AI = R'R it is a non-negative least-squares problem. Its
    solution climbs, and so does any part of it: components that would fall below 0 end there,
    and the others move as that demands.
    """
    from scipy.optimize import nnls

    at = np.flatnonzero(free)
    A = AI[np.ix_(at, at)]
    scale = np.sqrt(np.diagonal(A))
    R = np.linalg.cholesky(A / np.outer(scale, scale) + 1e-12 * np.eye(len(at))).T
    bound = lower[at] * scale
    target = np.linalg.solve(R.T, score[at] / scale) - R @ bound
    step = np.zeros(len(score))
    step[at] = (nnls(R, target)[0] + bound) / scale
    return step


def _line_search(
    components: Components, at: Factor, theta: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, Factor, str] | None:
    for halving in range(_HALVINGS + 1):
        candidate = np.maximum(theta + step / 2**halving, 0.0)
        candidate[candidate < 1e-14 * theta.sum()] = 0.0
        new = components.factor(candidate)
        if new is not None and new.restricted > at.restricted:
            return candidate, new, "AI" if not halving else f"AI/{2**halving}"
    return None


def _factor(components: Components, theta: np.ndarray) -> Factor:
    at = components.factor(theta)
    assert at is not None
    return at


def _record(
    at: Factor, step: str, decrement: float, theta: np.ndarray, floor: np.ndarray
) -> dict[str, Any]:
    at_0 = int(np.count_nonzero(theta <= floor))
    return {"loglik": at.restricted, "step": step, "decrement": decrement, "at_0": at_0}


def mixture_p_value(
    lrt: float,
    information: np.ndarray,
    tested: Sequence[int],
    bounded: Sequence[int],
    *,
    draws: int = 20_000,
    seed: int = 0,
) -> float:
    r"""p-value of a likelihood ratio for components at 0, which is a mixture of chi-squared.

    In large samples the estimate is normal with the inverse of the information, and the ratio
    is the difference of its squared distances from two cones: components >= 0, and those tested
    = 0 (Self & Liang 1987). With one tested component, the others inside, this is 0 and
    chi-squared (1 df) with probability 1/2 each. With several tested and the others inside, the
    weights of the mixture are those of the number of positive components, simulated. If untested
    ones lie at 0 too, the ratio itself is simulated, by its direction: cones have no scale, so the
    ratio is that of a direction times the squared length of the noise, which is chi-squared and
    integrated exactly, however small p is.

    Parameters
    ----------
    lrt : float
        Twice the difference of the log-likelihoods.
    information : ndarray, shape (K + 1, K + 1)
        Of all components.
    tested, bounded : sequences of int
        Components tested, and untested ones that lie at 0.

    References
    ----------
    Self SG, Liang K-Y (1987). Asymptotic properties of maximum likelihood estimators and
    likelihood ratio tests under nonstandard conditions. J Am Stat Assoc 82:605.
    doi:10.1080/01621459.1987.10478472
    Stram DO, Lee JW (1994). Variance components testing in the longitudinal mixed effects
    model. Biometrics 50:1171. doi:10.2307/2533455
    """
    from scipy.optimize import nnls
    from scipy.stats import chi2

    if lrt <= 0:
        return 1.0
    if len(tested) == 1 and not bounded:
        return float(0.5 * chi2.sf(lrt, 1))
    cone = [*tested, *bounded]
    rest = [j for j in range(len(information)) if j not in cone]
    J = information[np.ix_(cone, cone)]
    if rest:
        B = information[np.ix_(cone, rest)]
        J = J - B @ np.linalg.solve(information[np.ix_(rest, rest)], B.T)
    R = np.linalg.cholesky(J).T
    noise = np.random.default_rng(seed).standard_normal((draws, len(cone)))
    if not bounded:
        counts = np.zeros(len(tested) + 1)
        for target in noise:
            counts[np.count_nonzero(nnls(R, target)[0])] += 1
        weights = counts / draws
        return float(sum(w * chi2.sf(lrt, j) for j, w in enumerate(weights) if j))
    T = len(tested)
    ratios = np.array([nnls(R[:, T:], e)[1] ** 2 - nnls(R, e)[1] ** 2 for e in noise])
    of_directions = ratios / (noise * noise).sum(axis=1)
    above = of_directions[of_directions > 0]
    return float(chi2.sf(lrt / above, len(cone)).sum() / draws)
