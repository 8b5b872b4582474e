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

Nothing here need be exact: the sampler accepts or refuses what the guide proposes.

References
----------
Minka TP (2001). Expectation propagation for approximate Bayesian inference. Proc UAI 17:362.
Rangan S, Schniter P, Fletcher AK (2019). Vector approximate message passing. IEEE Trans Inf
Theory 65:6664. doi:10.1109/TIT.2019.2916359
Murray I, Adams RP (2010). Slice sampling covariance hyperparameters of latent Gaussian
models. Adv Neural Inf Process Syst 23.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# The grid of logit h2; beyond its ends the factors of the ends serve.
_TOP, _STEP = 7.0, 0.5
_ROUNDS, _DAMPING, _SMALL_CHANGE = 25, 0.7, 1e-4
_LEAST_PRECISION = 1e-6
# Proposals far from where the chain is come from a density of this many pieces.
_PIECES = 256
_NEGLIGIBLE = 16.0
# One proposal in five is near instead, should the density of the others be elsewhere.
_NEAR = 0.2

type LogFactor = Callable[[np.ndarray], np.ndarray]


class Guide:
    """Proposals of (h2, u) given y and b.

    A move of h2 keeps (z - m) / r, m and r the mean and sd of the approximate posterior of z:
    u goes along with h2 (Murray & Adams 2010).

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

    def _factors(self, U: np.ndarray, sign: np.ndarray, mean: np.ndarray) -> None:
        """Expectation propagation at every point of the grid; one that fails keeps its last."""
        h2, noise = 1 / (1 + np.exp(-self.logit)), 1 / (1 + np.exp(self.logit))
        v = h2 * self.s
        gamma, R = np.full(len(h2), 1e-3), np.zeros((len(mean), len(h2)))
        for _ in range(_ROUNDS):
            new_gamma, new_R = _Cavity(U, v, gamma, R).combined(sign, mean, noise)
            fine = np.isfinite(new_gamma) & np.isfinite(new_R).all(axis=0)
            moved = np.where(fine, new_R - R, 0)
            R = R + _DAMPING * moved
            gamma = gamma + _DAMPING * np.where(fine, new_gamma - gamma, 0)
            if np.abs(moved).max() < _SMALL_CHANGE:
                break
        cavity = _Cavity(U, v, gamma, R)
        self.gamma, self.R = gamma, cavity.rotated
        self.log_evidence = cavity.log_evidence(sign, mean, noise)

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
        old_factors, new_factors = self._at(logit), self._at(new)
        stretch = np.sqrt(new_factors.p_over(old_factors))
        z_new = new_factors.m + stretch * (z - old_factors.m)
        ratio = self.log_prior(new) - self.log_prior(logit)
        ratio += new_factors.log_weight(z_new) - old_factors.log_weight(z)
        with np.errstate(invalid="ignore"):
            ratio -= np.where(is_near, 0, self._log_q(new) - self._log_q(logit))
        return new, z_new, ratio

    def _log_q(self, logit: np.ndarray) -> np.ndarray:
        """Log density of far proposals, up to a constant."""
        piece = np.searchsorted(self.edges, logit, side="right") - 1
        inside = (piece >= 0) & (piece < _PIECES)
        return np.where(inside, self.log_q[np.clip(piece, 0, _PIECES - 1)], -np.inf)

    def _at(self, logit: np.ndarray) -> _Factors:
        """gamma and R at any logit h2, linear between points of the grid."""
        place = np.clip((logit + _TOP) / _STEP, 0, len(self.logit) - 1)
        i = np.minimum(place.astype(int), len(self.logit) - 2)
        part = place - i
        gamma = self.gamma[i] * (1 - part) + self.gamma[i + 1] * part
        R = self.R[:, i] * (1 - part) + self.R[:, i + 1] * part
        return _Factors(self.s, 1 / (1 + np.exp(-logit)), gamma, R)


class _Factors:
    """The approximate posterior of z of several chains: mean m and variance p, (n, k)."""

    def __init__(self, s: np.ndarray, h2: np.ndarray, gamma: np.ndarray, R: np.ndarray) -> None:
        self.h2, self.gamma, self.R = h2, gamma, R
        v = h2 * s
        self.grown = 1 + gamma * v
        self.p = v / self.grown
        self.m = self.p * R

    def p_over(self, other: _Factors) -> np.ndarray:
        """Ratio of the variances; where s = 0 its limit, so that nothing is divided by 0."""
        return (self.h2 / other.h2) * (other.grown / self.grown)

    def log_weight(self, z: np.ndarray) -> np.ndarray:
        """log N(z; 0, v), less log N(z; m, p): evidence of the factors over the factors."""
        evidence = (self.p * self.R * self.R).sum(axis=0) - np.log(self.grown).sum(axis=0)
        factors = 2 * (z * self.R).sum(axis=0) - self.gamma * (z * z).sum(axis=0)
        return np.asarray(0.5 * (evidence - factors))


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
        """gamma and R that make the means, and the mean variance, those with y."""
        variance = 1 / self.precision + noise
        _, mills, x = self._probabilities(sign, mean, variance)
        u = self.mean + sign * mills / (self.precision * np.sqrt(variance))
        own = 1 / self.precision - mills * (mills + x) / (variance * self.precision**2)
        total = 1 / own.mean(axis=0)
        gamma = np.maximum(total - self.precision, _LEAST_PRECISION)
        return gamma, total * u - self.precision * self.mean

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
