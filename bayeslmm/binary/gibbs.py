r"""Gibbs sampling of the liability model on the eigenbasis: two products with U a sweep.

The liability of n samples has total variance 1, K = U diag(S) U', kappa the mean of S:

    l = offset + X b + u + e,   u ~ N(0, h2 K / kappa),   e ~ N(0, (1 - h2) I),
    y = 1[l > 0],               b_j ~ N(0, 1 / precision_j),   h2 ~ its prior.

A sweep draws, all chains together:

1. l given (u, b, h2, y): truncated normals, element by element.
2. h2 given l, with u, b *and the scale of l* integrated out. On the basis l has the diagonal
   covariance D = h2 S / kappa + 1 - h2, so that this is the one-dimensional density of the
   Gaussian model, known at nodes by one small product. The scale is the working parameter of
   parameter expansion (Liu & Wu 1999): l is replaced by g l, g^2 Q ~ chi-squared(n).
3. b given (l, h2), then u given (l, b, h2): both diagonal or c x c on the basis.
4. (h2, b) once more, given y and the *standardised* u, with l integrated out: a probit
   regression on X and u / sqrt(h2), from Fisher-scoring proposals (Gamerman 1997).
5. (h2, u) once more, given y and b: h2 from its approximate posterior, and u such that it keeps
   its place in the approximate posterior of u (`bayeslmm.binary.guide`).

Steps 2 and 4 interweave what is sufficient and what is ancillary for h2 (Yu & Meng 2011):
the first moves far where l says little about h2, the second where h2 is nearly 1 or l is
nearly known. Neither moves the mean genetic value of the cases, which goes with h2; step 5
does. Only steps 1 and 3 need U, once each: the proposal of step 5 is made in step 3, and the
product that makes u makes it as well.

References
----------
Albert JH, Chib S (1993). Bayesian analysis of binary and polychotomous response data. J Am Stat
Assoc 88:669. doi:10.1080/01621459.1993.10476321
Liu JS, Wu YN (1999). Parameter expansion for data augmentation. J Am Stat Assoc 94:1264.
doi:10.2307/2669940
Gamerman D (1997). Sampling from the posterior distribution in generalized linear mixed models.
Stat Comput 7:57.
Yu Y, Meng X-L (2011). To center or not to center: that is not the question. J Comput Graph Stat
20:531.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from bayeslmm.binary.guide import Guide, mills_ratio
from bayeslmm.numerics.chebyshev import cardinal, chebyshev, nodes_for, series

# Nodes of h2 are Chebyshev's in its logit, over this range: all but 1e-6 of (0, 1).
TOP_LOGIT = 14.0
_NODE_ERROR = 1e-9
# Steps of the distribution function of logit h2, coarse and then within the bulk.
# 256 of them over what holds all but e^-20 of the mass are right to 1e-4 standard deviations.
_STEPS = 256
_NEGLIGIBLE = 20.0
# Below this the truncated normal needs logarithms.
_FAR = -5.0

type LogFactor = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Problem:
    """Data of the liability model.

    Attributes
    ----------
    U : ndarray, shape (n, n)
        Eigenvectors of K.
    s : ndarray, shape (n,)
        Eigenvalues over their mean.
    sign : ndarray, shape (n,)
        1 for cases, -1 for controls.
    X : ndarray, shape (n, p)
        Columns with effects.
    precision : ndarray, shape (p,)
        Of the normal priors of their effects, above 0.
    log_prior : callable
        Log density of h2, shape (G,).
    offset : ndarray, shape (n,), or None
        Known part of the liability. With one the scale of l is fixed: no parameter expansion.
    """

    U: np.ndarray
    s: np.ndarray
    sign: np.ndarray
    X: np.ndarray
    precision: np.ndarray
    log_prior: LogFactor
    offset: np.ndarray | None = None

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.sign)

    @cached_property
    def rotated_X(self) -> np.ndarray:
        """U'X, shape (n, p)."""
        return self.U.T @ self.X


@dataclass(frozen=True, eq=False)
class Draws:
    """What a run of the sampler kept.

    Attributes
    ----------
    h2 : ndarray, shape (chains, draws)
    b : ndarray, shape (chains, draws, p)
        Effects of the columns X, in total standard deviations of the liability.
    kept : ndarray, shape (latent,)
        Which draws u and the liabilities are of.
    u, liability : ndarray, shape (chains, latent, n)
    accepted, moved : float
        Share of proposals of step 4, and of step 5, that were accepted.
    """

    h2: np.ndarray
    b: np.ndarray
    kept: np.ndarray
    u: np.ndarray = field(repr=False)
    liability: np.ndarray = field(repr=False)
    accepted: float
    moved: float


class Nodes:
    """The density of h2 given l at Chebyshev nodes of logit h2, for several chains at once."""

    def __init__(self, problem: Problem) -> None:
        X, s = problem.rotated_X, problem.s
        count = nodes_for(TOP_LOGIT, _NODE_ERROR)
        self.logit = TOP_LOGIT * chebyshev(count)
        h2 = 1 / (1 + np.exp(-self.logit))
        d = 1 + h2[:, None] * (s - 1)
        np.maximum(d, 1 / (1 + np.exp(self.logit))[:, None], out=d)
        self.w = 1 / d
        p = X.shape[1]
        A = np.einsum("gn,ni,nj->gij", self.w, X, X, optimize=True)
        A[:, range(p), range(p)] += problem.precision
        L = np.linalg.cholesky(A)
        self.L_inverse = np.linalg.inv(L)
        logdet = np.log(d).sum(axis=1) + 2 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
        # The density of logit h2: prior times h2 (1 - h2).
        self.fixed = problem.log_prior(h2) + log_slope(self.logit) - 0.5 * logdet
        self.X = X
        self.grid = np.linspace(-TOP_LOGIT, TOP_LOGIT, _STEPS + 1)
        self.to_grid = cardinal(self.grid / TOP_LOGIT, count)

    def quadratic(self, r: np.ndarray) -> np.ndarray:
        """Q = r' V^-1 r with b integrated out, for rotated liabilities r (n, k): (nodes, k)."""
        n, k = r.shape
        total = self.w @ (r * r)
        p = self.X.shape[1]
        if p:
            crossed = (self.w @ (self.X[:, :, None] * r[:, None, :]).reshape(n, p * k)).reshape(
                -1, p, k
            )
            half = self.L_inverse @ crossed
            total -= np.einsum("gpk,gpk->gk", half, half)
        return total

    def draw(self, log_density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A draw of logit h2 for each column of log densities at the nodes, (nodes, k): (k,).

        By inversion of a distribution function of 256 steps, first over the whole range, then
        over what holds all but e^-20 of the mass.
        """
        return _inverse_cdf(*self.bulk(log_density), rng)

    def bulk(self, log_density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of logit h2 over the bulk of each density, and the densities there, (k, 257)."""
        coarse = (self.to_grid @ log_density).T
        kept = coarse > coarse.max(axis=1, keepdims=True) - _NEGLIGIBLE
        first = np.maximum(kept.argmax(axis=1) - 1, 0)
        last = np.minimum(kept.shape[1] - kept[:, ::-1].argmax(axis=1), _STEPS)
        low, high = self.grid[first], self.grid[last]
        x = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, _STEPS + 1)
        coefficients = series(log_density)[:, :, None]
        values = np.polynomial.chebyshev.chebval(x / TOP_LOGIT, coefficients, tensor=False)
        return x, np.exp(values - values.max(axis=1, keepdims=True))


def _inverse_cdf(x: np.ndarray, density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw from each row of smooth densities (k, m) at points x (k, m) of equal steps.

    The mass of a step is the trapezium's less a twelfth of the second difference (an error of
    the fourth order); within a step the density is linear.
    """
    step = x[:, 1] - x[:, 0]
    bend = np.diff(density, 2, axis=1)
    bend = np.concatenate([bend[:, :1], bend, bend[:, -1:]], axis=1)
    linear = 0.5 * (density[:, 1:] + density[:, :-1])
    pieces = np.maximum(linear - (bend[:, 1:] + bend[:, :-1]) / 24, 0)
    cdf = np.cumsum(pieces, axis=1)
    target = rng.random(len(x)) * cdf[:, -1]
    rows = np.arange(len(x))
    j = np.minimum((cdf < target[:, None]).sum(axis=1), pieces.shape[1] - 1)
    own = pieces[rows, j]
    share = np.clip((target - cdf[rows, j] + own) / np.maximum(own, 1e-300), 0, 1)
    rest = share * linear[rows, j]
    a, b = density[rows, j], density[rows, j + 1]
    # a t + (b - a) t^2 / 2 = rest, solved without cancellation.
    t = 2 * rest / np.maximum(a + np.sqrt(np.maximum(a * a + 2 * (b - a) * rest, 0)), 1e-300)
    return x[rows, j] + step * np.clip(t, 0, 1)


def log_slope(logit: np.ndarray) -> np.ndarray:
    """log of h2 (1 - h2), the slope of h2 in its logit."""
    return -np.logaddexp(0, logit) - np.logaddexp(0, -logit)


def truncated(c: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standard normals above -c, of the shape of c, exact however far the tail."""
    from scipy.special import log_ndtr, ndtr, ndtri, ndtri_exp

    v = 1 - rng.random(c.shape)
    far = c < _FAR
    if not far.any():
        return -ndtri(v * ndtr(c))
    out = np.empty_like(c)
    out[~far] = -ndtri(v[~far] * ndtr(c[~far]))
    out[far] = -ndtri_exp(np.log(v[far]) + log_ndtr(c[far]))
    return out


def _mean_without_u(problem: Problem) -> np.ndarray:
    """X b + offset at the posterior mode of b without u, shape (n,)."""
    X, sign = problem.X, problem.sign
    offset = np.zeros(problem.n) if problem.offset is None else problem.offset
    b = np.zeros(X.shape[1])
    for _ in range(20):
        x = sign * (X @ b + offset)
        score = mills_ratio(x)[1]
        H = (X.T * (score * (score + x))) @ X + np.diag(problem.precision)
        b = b + np.linalg.solve(H, X.T @ (sign * score) - problem.precision * b)
    return np.asarray(X @ b + offset)


class Sampler:
    """The state of several chains, and a sweep of all of them.

    Parameters
    ----------
    problem : Problem
        Data and priors.
    chains : int
        k, the number of chains; their products with U are one.
    rng : Generator
        Random numbers of all chains.
    """

    def __init__(self, problem: Problem, chains: int, rng: np.random.Generator) -> None:
        self.problem, self.rng, self.k = problem, rng, chains
        self.nodes = Nodes(problem)
        mean = _mean_without_u(problem)
        self.guide = Guide(problem.U, problem.s, problem.sign, mean, self._log_prior)
        p = problem.X.shape[1]
        # Dispersed starts: h2 over the inner part of its range, everybody at the mean.
        self.logit = rng.uniform(-2, 2, chains)
        self.b = np.zeros((p, chains))
        self.u = np.zeros((problem.n, chains))
        self.mean = self._mean()
        self.liability = np.zeros((problem.n, chains))
        self.tried = self.accepted = self.moved = 0
        # What step 3 has proposed to step 5 of the next sweep: logit h2, u, log ratio.
        self.proposal: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def h2(self) -> np.ndarray:
        """h2 of each chain, shape (k,)."""
        return 1 / (1 + np.exp(-self.logit))

    @property
    def noise(self) -> np.ndarray:
        """1 - h2 of each chain, shape (k,), accurate near h2 = 1."""
        return 1 / (1 + np.exp(self.logit))

    def _log_prior(self, logit: np.ndarray) -> np.ndarray:
        """Log density of logit h2, shape (G,)."""
        return self.problem.log_prior(1 / (1 + np.exp(-logit))) + log_slope(logit)

    def _mean(self) -> np.ndarray:
        mean = self.problem.X @ self.b
        return mean if self.problem.offset is None else mean + self.problem.offset[:, None]

    def sweep(self) -> None:
        """All steps once; afterwards (h2, b, u, liability) is a joint state."""
        self._guided()
        self._probit()
        self._liabilities()
        self._gaussian()

    def _liabilities(self) -> None:
        sd, sign = np.sqrt(self.noise), self.problem.sign[:, None]
        mean = self.mean + self.u
        self.liability = mean + sd * sign * truncated(sign * mean / sd, self.rng)

    def _gaussian(self) -> None:
        """h2, b and u given l: the Gaussian model, exactly."""
        problem, rng, nodes = self.problem, self.rng, self.nodes
        n, offset = problem.n, problem.offset
        X, s = problem.rotated_X, problem.s[:, None]
        r = problem.U.T @ (self.liability if offset is None else self.liability - offset[:, None])
        Q = nodes.quadratic(r)
        fit = -0.5 * Q if offset is not None else -0.5 * n * np.log(Q)
        self.logit = nodes.draw(nodes.fixed[:, None] + fit, rng)
        h2, noise = self.h2, self.noise
        d = np.maximum(1 + h2 * (s - 1), noise)
        weighted = r / d
        A = np.einsum("nk,ni,nj->kij", 1 / d, X, X, optimize=True)
        p = X.shape[1]
        A[:, range(p), range(p)] += problem.precision
        L = np.linalg.cholesky(A)
        half = np.linalg.solve(L, (weighted.T @ X)[..., None])[..., 0]
        if offset is None:
            own = (weighted * r).sum(axis=0) - (half * half).sum(axis=1)
            g = np.sqrt(rng.chisquare(n, self.k) / own)
            r, half = r * g, half * g[:, None]
            self.liability = self.liability * g
        half = half + rng.standard_normal(half.shape)
        self.b = np.linalg.solve(np.swapaxes(L, 1, 2), half[..., None])[..., 0].T
        gain = h2 * s / d
        z = gain * (r - X @ self.b) + np.sqrt(gain * noise) * rng.standard_normal(r.shape)
        logit, z_new, ratio = self.guide.propose(self.logit, z, rng)
        self.u, u_new = np.split(problem.U @ np.hstack([z, z_new]), 2, axis=1)
        self.proposal = logit, u_new, ratio
        self.mean = self._mean()

    def _guided(self) -> None:
        """h2 and u given y and b: accept what was proposed, or not."""
        if self.proposal is None:
            return
        logit, u, ratio = self.proposal
        ratio = ratio + self._log_likelihood(logit, u) - self._log_likelihood(self.logit, self.u)
        ratio = np.where(np.abs(logit) < TOP_LOGIT, ratio, -np.inf)
        moved = np.log(1 - self.rng.random(self.k)) < ratio
        self.moved += int(moved.sum())
        self.logit = np.where(moved, logit, self.logit)
        self.u = np.where(moved, u, self.u)

    def _log_likelihood(self, logit: np.ndarray, u: np.ndarray) -> np.ndarray:
        """log p(y | h2, b, u) of each chain, shape (k,)."""
        from scipy.special import log_ndtr

        root = np.exp(0.5 * np.logaddexp(0, logit))  # 1 over the sd of e
        x = self.problem.sign[:, None] * (self.mean + u) * root
        return np.asarray(log_ndtr(x).sum(axis=0))

    def _probit(self) -> None:
        """h2 and b given y and the standardised u: one Fisher-scoring proposal."""
        sigma = np.exp(self.logit / 2)  # sqrt(h2 / (1 - h2)): the sd of u over that of e
        a = self.u / np.sqrt(self.h2)
        theta = np.vstack([self.b / np.sqrt(self.noise), sigma])
        here = self._probit_terms(theta, a)
        step = here.step + here.spread(self.rng)
        proposed = theta + step
        there = self._probit_terms(proposed, a)
        forward, backward = here.log_proposal(step), there.log_proposal(-step)
        log_ratio = there.value - here.value + backward - forward
        moved = (np.log(1 - self.rng.random(self.k)) < log_ratio) & np.isfinite(there.value)
        self.tried += self.k
        self.accepted += int(moved.sum())
        theta = np.where(moved, proposed, theta)
        # The sign of sigma is that of a: both are turned.
        sign = np.where(theta[-1] < 0, -1.0, 1.0)
        self.logit = np.where(moved, 2 * np.log(np.abs(theta[-1])), self.logit)
        self.b = np.where(moved, theta[:-1] * np.sqrt(self.noise), self.b)
        self.u = np.where(moved, a * (sign * np.sqrt(self.h2)), self.u)
        self.mean = self._mean()

    def _probit_terms(self, theta: np.ndarray, a: np.ndarray) -> _Terms:
        """Log posterior of (b / sd_e, sigma) given a, its gradient and its curvature."""
        problem = self.problem
        b, sigma = theta[:-1], theta[-1]
        total = 1 + sigma * sigma  # over the variance of e
        last = a
        eta = problem.X @ b + sigma * a
        if problem.offset is not None:
            root = np.sqrt(total)
            eta = eta + problem.offset[:, None] * root
            last = a + problem.offset[:, None] * (sigma / root)
        x = problem.sign[:, None] * eta
        log_cdf, mills = mills_ratio(x)
        score = problem.sign[:, None] * mills
        weight = mills * (mills + x)
        logit = 2 * np.log(np.maximum(np.abs(sigma), 1e-300))
        inside = np.abs(logit) < TOP_LOGIT
        prior = problem.log_prior(1 / (1 + np.exp(-np.clip(logit, -TOP_LOGIT, TOP_LOGIT))))
        # Uniform h2 has the density |sigma| / total^2; b has variance total / precision.
        prior = prior + np.log(np.maximum(np.abs(sigma), 1e-300)) - 2 * np.log(total)
        shrink = problem.precision[:, None] / total
        prior = prior - 0.5 * (shrink * b * b).sum(axis=0) - 0.5 * len(b) * np.log(total)
        value = np.where(inside, log_cdf.sum(axis=0) + prior, -np.inf)
        p = len(b)
        gradient = np.empty((self.k, p + 1))
        gradient[:, :p] = score.T @ problem.X - (shrink * b).T
        gradient[:, p] = (score * last).sum(axis=0)
        H = np.empty((self.k, p + 1, p + 1))
        H[:, :p, :p] = np.einsum("nk,ni,nj->kij", weight, problem.X, problem.X, optimize=True)
        H[:, range(p), range(p)] += shrink.T
        H[:, p, :p] = H[:, :p, p] = (weight * last).T @ problem.X
        H[:, p, p] = (weight * last * last).sum(axis=0) + 1.0
        return _Terms(value, gradient, np.linalg.cholesky(H))


@dataclass(frozen=True, eq=False)
class _Terms:
    """Log posterior (k,), gradient (k, q) and the Cholesky factor of the curvature (k, q, q)."""

    value: np.ndarray
    gradient: np.ndarray
    L: np.ndarray

    @cached_property
    def step(self) -> np.ndarray:
        """Newton's step, shape (q, k)."""
        half = np.linalg.solve(self.L, self.gradient[..., None])
        return np.linalg.solve(np.swapaxes(self.L, 1, 2), half)[..., 0].T

    def spread(self, rng: np.random.Generator) -> np.ndarray:
        """Normal draws whose precision is the curvature, shape (q, k)."""
        z = rng.standard_normal(self.gradient.shape)[..., None]
        return np.linalg.solve(np.swapaxes(self.L, 1, 2), z)[..., 0].T

    def log_proposal(self, moved: np.ndarray) -> np.ndarray:
        """Log density of having proposed a move (q, k), up to a constant, shape (k,)."""
        away = np.einsum("kij,ik->kj", self.L, moved - self.step)
        logdet = np.log(np.diagonal(self.L, axis1=1, axis2=2)).sum(axis=1)
        return logdet - 0.5 * (away * away).sum(axis=1)


def gibbs(
    problem: Problem,
    *,
    draws: int,
    tune: int,
    chains: int,
    rng: np.random.Generator,
    latent: int = 0,
    sweeps: Callable[[range], Iterable[int]] = iter,
) -> Draws:
    """Run the chains: `tune` sweeps that are left out, then `draws` that are kept.

    Parameters
    ----------
    problem : Problem
        Data and priors.
    draws, tune, chains : int
        As usual. Nothing is adapted: tuning is only to forget the start.
    rng : Generator
        Random numbers.
    latent : int
        Of how many draws of each chain, evenly spaced, u and the liabilities are kept.
    sweeps : callable
        Wraps the range of sweeps, to show progress.
    """
    sampler = Sampler(problem, chains, rng)
    n, p = problem.X.shape
    h2, b = np.empty((chains, draws)), np.empty((chains, draws, p))
    kept = np.unique(np.linspace(draws - 1, 0, min(latent, draws)).astype(int))
    place = {int(at): j for j, at in enumerate(kept)}
    u, liability = np.empty((2, chains, len(kept), n))
    for i in sweeps(range(-tune, draws)):
        sampler.sweep()
        if i < 0:
            continue
        h2[:, i], b[:, i] = sampler.h2, sampler.b.T
        if i in place:
            u[:, place[i]], liability[:, place[i]] = sampler.u.T, sampler.liability.T
    accepted, moved = sampler.accepted / sampler.tried, sampler.moved / sampler.tried
    return Draws(h2, b, kept, u, liability, accepted, moved)
