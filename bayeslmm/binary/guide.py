r"""What cases and controls say of the genetic values, approximately: a guide for the sampler.

Given h2 and b, u has a normal prior, diagonal on the eigenbasis, and y the probabilities
Phi((X b + u) / sqrt(1 - h2)). Expectation propagation puts a normal factor in place of each
sample's probability. With one precision gamma for all of them,

    p(y | u) ~ exp(-gamma u'u / 2 + R'u)   (up to a constant),

prior and posterior stay diagonal on the eigenbasis: z = U'u has the posterior
N(p U'R, p), p = v / (1 + gamma v), v = h2 s. gamma and R make the mean of every sample, and
the mean variance of all, those of the true probabilities combined with what the rest says
(vector approximate message passing). Each round takes two products with U, for all values of h2
on a grid at once; a handful suffices, before the sampler starts.

Where one class has few members (cases of a rare disease), each of them says more of its own
value than the others do of theirs. Their precision is another one, and the posterior of z is as
above with a correction of low rank, made once at a middling h2.

Nothing here need be exact: the sampler accepts or refuses what the guide proposes.

References
----------
Minka TP (2001). Expectation propagation for approximate Bayesian inference. Proc UAI 17:362.
Rangan S, Schniter P, Fletcher AK (2019). Vector approximate message passing. IEEE Trans Inf
Theory 65:6664. arXiv:1610.03082
Murray I, Adams RP (2010). Slice sampling covariance hyperparameters of latent Gaussian models.
Adv Neural Inf Process Syst 23. arXiv:1006.0868
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# The grid of logit h2; beyond its ends the factors of the ends serve.
_TOP, _STEP = 7.0, 0.5
_ROUNDS, _DAMPING, _SMALL_CHANGE = 25, 0.7, 1e-4
_LEAST_PRECISION = 1e-6
# Proposals far from where the chain is come from a density of this many pieces.
_PIECES = 256
_NEGLIGIBLE = 16.0
# A class of at most this share of the samples has a precision of its own.
_FEW = 1 / 8
_LEAST_SHRUNK = 0.1
# Eigenvalues below this are 0: there z is 0, too.
_ZERO = 1e-10
# One proposal in five is near instead, should the density of the others be elsewhere.
_NEAR = 0.2

type LogFactor = Callable[[np.ndarray], np.ndarray]


class Guide:
    """Proposals of (h2, u) given y and b.

    A move of h2 keeps q in z = m + L q, m the mean of the approximate posterior of z, and L L' its
    covariance: u goes along with h2 (Murray & Adams 2010).

    Parameters
    ----------
    U : ndarray, shape (n, n)
        Eigenvectors of K.
    s : ndarray, shape (n,)
        Eigenvalues over their mean.
    sign : ndarray, shape (n,)
        1 for cases, -1 for controls.
    mean : ndarray, shape (n,)
        The liability's mean, X b, at a fit without u.
    log_prior : callable
        Log density of logit h2, shape (G,).

    Attributes
    ----------
    logit : ndarray, shape (G,)
        The grid.
    log_evidence : ndarray, shape (G,)
        Approximate log p(y | h2, mean) there.
    gamma : ndarray, shape (G,)
        Precision of the samples' normal factors.
    R : ndarray, shape (n, G)
        Their precision times their means, rotated.
    """

    def __init__(
        self,
        U: np.ndarray,
        s: np.ndarray,
        sign: np.ndarray,
        mean: np.ndarray,
        log_prior: LogFactor,
    ) -> None:
        self.s, self.log_prior = np.maximum(s, 0)[:, None], log_prior
        self.logit = np.arange(-_TOP, _TOP + _STEP / 2, _STEP)
        self._factors(U, sign[:, None], mean[:, None])
        log_density = self.log_evidence + log_prior(self.logit)
        # Beyond this range, moves are for the sampler's other steps.
        fine = np.linspace(-_TOP, _TOP, 4 * _PIECES)
        values = np.interp(fine, self.logit, log_density)
        kept = fine[values > values.max() - _NEGLIGIBLE]
        self.edges = np.linspace(kept[0], kept[-1], _PIECES + 1)
        middle = 0.5 * (self.edges[1:] + self.edges[:-1])
        values = np.interp(middle, self.logit, log_density)
        # The density of far proposals is constant in each piece.
        self.log_q = values - values.max()
        mass = np.exp(self.log_q)
        mass /= mass.sum()
        self.cdf = np.concatenate([[0], np.cumsum(mass)])
        self.sd = float(np.sqrt(mass @ (middle - mass @ middle) ** 2))
        self._correction(U, float(mass @ middle))

    def _factors(self, U: np.ndarray, sign: np.ndarray, mean: np.ndarray) -> None:
        """Expectation propagation at every point of the grid; one that fails keeps its last."""
        h2, noise = 1 / (1 + np.exp(-self.logit)), 1 / (1 + np.exp(self.logit))
        v = h2 * self.s
        gamma, R = np.full(len(h2), 1e-3), np.zeros((len(mean), len(h2)))
        for _ in range(_ROUNDS):
            cavity = _Cavity(U, v, gamma, R)
            u, own = cavity.combined(sign, mean, noise)
            total = 1 / own.mean(axis=0)
            new_gamma = np.maximum(total - cavity.precision, _LEAST_PRECISION)
            new_R = total * u - cavity.precision * cavity.mean
            fine = np.isfinite(new_gamma) & np.isfinite(new_R).all(axis=0)
            moved = np.where(fine, new_R - R, 0)
            R = R + _DAMPING * moved
            gamma = gamma + _DAMPING * np.where(fine, new_gamma - gamma, 0)
            if np.abs(moved).max() < _SMALL_CHANGE:
                break
        cavity = _Cavity(U, v, gamma, R)
        self.gamma, self.R = gamma, cavity.rotated
        self.log_evidence = cavity.log_evidence(sign, mean, noise)
        case = sign[:, 0] > 0
        few = case if 2 * case.sum() < len(case) else ~case
        self.few, self.of_few, self.of_others = few & False, gamma, gamma
        if few.mean() <= _FEW:
            own = cavity.combined(sign, mean, noise)[1]
            each = [1 / own[part].mean(axis=0) - cavity.precision for part in (few, ~few)]
            sound = np.isfinite(each).all(axis=0) & (np.min(each, axis=0) > 0)
            self.few = few
            self.of_few, self.of_others = np.where(sound, each, gamma)

    def _correction(self, U: np.ndarray, logit: float) -> None:
        """Eigenvectors E and -values of p^1/2 U'_few U_few p^1/2 at one h2: of all but scale.

        With k the difference of the precisions, the covariance of z is
        p^1/2 (I + k E diag(values) E')^-1 p^1/2.
        """
        v = self.s / (1 + np.exp(-logit))
        p = v / (1 + np.interp(logit, self.logit, self.of_others) * v)
        self.mean_p = float(p.mean())
        B = np.sqrt(p) * U[self.few].T
        values, vectors = np.linalg.eigh(B.T @ B)
        kept = values > _ZERO * max(self.mean_p, values.max(initial=0))
        self.values = values[kept][:, None]
        self.E = B @ (vectors[:, kept] / np.sqrt(values[kept]))

    def propose(
        self, logit: np.ndarray, z: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """New logit h2 (k,) and z (n, k), and their part of the log acceptance ratio (k,).

        What is missing in the ratio is log p(y | h2, b, u), new less old.
        """
        k = len(logit)
        far = np.interp(rng.random(k), self.cdf, self.edges)
        near = logit + self.sd * rng.standard_normal(k)
        is_near = rng.random(k) < _NEAR
        new = np.where(is_near, near, far)
        here, there = self._at(logit), self._at(new)
        q = np.where(here.free, (z - here.m) / np.sqrt(np.where(here.free, here.p, 1)), 0)
        q += self.E @ ((np.sqrt(here.shrunk / there.shrunk) - 1) * (self.E.T @ q))
        z_new = there.m + np.sqrt(there.p) * q
        ratio = self.log_prior(new) - self.log_prior(logit)
        ratio += there.log_weight(z_new) - here.log_weight(z)
        with np.errstate(invalid="ignore"):
            ratio -= np.where(is_near, 0, self._log_q(new) - self._log_q(logit))
        return new, z_new, ratio

    def _log_q(self, logit: np.ndarray) -> np.ndarray:
        """Log density of far proposals, up to a constant."""
        piece = np.searchsorted(self.edges, logit, side="right") - 1
        inside = (piece >= 0) & (piece < _PIECES)
        return np.where(inside, self.log_q[np.clip(piece, 0, _PIECES - 1)], -np.inf)

    def _at(self, logit: np.ndarray) -> _Approximate:
        """The approximate posterior at any logit h2, linear between points of the grid."""
        place = np.clip((logit + _TOP) / _STEP, 0, len(self.logit) - 1)
        i = np.minimum(place.astype(int), len(self.logit) - 2)
        part = place - i
        gamma = self.gamma[i] * (1 - part) + self.gamma[i + 1] * part
        R = self.R[:, i] * (1 - part) + self.R[:, i + 1] * part
        few = self.of_few[i] * (1 - part) + self.of_few[i + 1] * part
        others = self.of_others[i] * (1 - part) + self.of_others[i + 1] * part
        v = self.s / (1 + np.exp(-logit))
        p = v / (1 + others * v)
        shrunk = 1 + (few - others) * p.mean(axis=0) / self.mean_p * self.values
        shrunk = np.maximum(shrunk, _LEAST_SHRUNK)
        return _Approximate(v, p, v / (1 + gamma * v) * R, shrunk, self.s > _ZERO)


@dataclass(frozen=True, eq=False)
class _Approximate:
    """The approximate posterior of z of k chains.

    Prior variance v, variance p without the correction, mean m, each (n, k); what the correction
    divides the variance by along E (few, k); where s is above 0 (n, 1).
    """

    v: np.ndarray
    p: np.ndarray
    m: np.ndarray
    shrunk: np.ndarray
    free: np.ndarray

    def log_weight(self, z: np.ndarray) -> np.ndarray:
        """log N(z; 0, v), and log det L, up to a constant, shape (k,)."""
        v = np.where(self.free, self.v, 1)
        square = np.where(self.free, z * z / v, 0).sum(axis=0)
        grown = np.log(v / np.where(self.free, self.p, 1)).sum(axis=0)
        return np.asarray(-0.5 * (square + grown + np.log(self.shrunk).sum(axis=0)))


class _Cavity:
    """What prior and all other samples say of each: normal, precision (G,), mean (n, G)."""

    def __init__(self, U: np.ndarray, v: np.ndarray, gamma: np.ndarray, R: np.ndarray) -> None:
        self.v, self.gamma, self.R = v, gamma, R
        self.rotated = U.T @ R
        self.p = v / (1 + gamma * v)
        total = 1 / self.p.mean(axis=0)
        self.precision = np.maximum(total - gamma, _LEAST_PRECISION)
        self.mean = (total * (U @ (self.p * self.rotated)) - R) / self.precision

    def combined(
        self, sign: np.ndarray, mean: np.ndarray, noise: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances of u, sample by sample, with y, (n, G)."""
        variance = 1 / self.precision + noise
        _, mills, x = self._probabilities(sign, mean, variance)
        u = self.mean + sign * mills / (self.precision * np.sqrt(variance))
        own = 1 / self.precision - mills * (mills + x) / (variance * self.precision**2)
        return u, own

    def log_evidence(self, sign: np.ndarray, mean: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Approximate log p(y | h2, mean), shape (G,)."""
        c, gamma = self.precision, self.gamma
        log_cdf = self._probabilities(sign, mean, 1 / c + noise)[0]
        basis = self.p * self.rotated**2 - np.log1p(gamma * self.v)
        # Normal factors instead of the probabilities are taken out again.
        shift = c * self.mean**2 - (self.R + c * self.mean) ** 2 / (gamma + c)
        samples = log_cdf + 0.5 * (shift + np.log1p(gamma / c))
        return np.asarray((0.5 * basis + samples).sum(axis=0))

    def _probabilities(
        self, sign: np.ndarray, mean: np.ndarray, variance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log Phi(x), its derivative, and x."""
        x = sign * (mean + self.mean) / np.sqrt(variance)
        return *mills_ratio(x), x


def mills_ratio(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log Phi(x) and its derivative, accurate in both tails."""
    from scipy.special import log_ndtr

    log_cdf = log_ndtr(x)
    return log_cdf, np.exp(-0.5 * x * x - log_cdf) / np.sqrt(2 * np.pi)
