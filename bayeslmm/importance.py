"""Draws from a density of a few dimensions that takes many points at once.

Adaptive importance sampling, with diagnostics; and Metropolis sampling for where these say no.
Points come from a mixture of t distributions that is fitted to the density as one goes (AMIS,
Cornuet et al. 2012 Scand J Stat 39:798): in each round points are drawn from the mixture at hand,
all points so far are weighted against the mixture of all rounds, and the next mixture is fitted to
them. The largest weights are smoothed by a generalised Pareto distribution, whose shape k tells
whether the weights can be trusted (PSIS, Vehtari et al. 2024 JMLR 25:72): below 0.7 they can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lgamma, log, pi

import numpy as np

LARGEST_K = 0.7
_DF = 7.0
_COMPONENTS = 4
_DEFENSIVE = 0.05
_EM_STEPS = 25

type Density = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Mixture:
    """A mixture of multivariate t distributions.

    Attributes
    ----------
    weights : ndarray, shape (M,)
        Summing to 1.
    means : ndarray, shape (M, d)
        Centres.
    roots : ndarray, shape (M, d, d)
        Lower Cholesky factors of the scale matrices.
    df : float
        Degrees of freedom of all components.
    """

    weights: np.ndarray
    means: np.ndarray
    roots: np.ndarray
    df: float = _DF

    def log_densities(self, x: np.ndarray) -> np.ndarray:
        """Log of weight times density of each component at points (S, d), shape (S, M)."""
        d, df = x.shape[1], self.df
        constant = lgamma((df + d) / 2) - lgamma(df / 2) - d / 2 * log(df * pi)
        out = np.empty((len(x), len(self.weights)))
        for j, (mean, L) in enumerate(zip(self.means, self.roots, strict=True)):
            z = np.linalg.solve(L, (x - mean).T)
            out[:, j] = constant - np.log(np.diagonal(L)).sum()
            out[:, j] -= 0.5 * (df + d) * np.log1p(np.einsum("ij,ij->j", z, z) / df)
        return out + np.log(self.weights)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density at points (S, d), shape (S,)."""
        return np.logaddexp.reduce(self.log_densities(x), axis=1)

    def draw(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Independent points, shape (size, d); as many of each component as its weight says."""
        counts = _systematic(self.weights, size, rng)
        z = rng.standard_normal((size, self.means.shape[1]))
        z /= np.sqrt(rng.chisquare(self.df, size) / self.df)[:, None]
        which = np.repeat(np.arange(len(counts)), counts)
        return self.means[which] + np.einsum("sij,sj->si", self.roots[which], z)

    def joined(self, other: Mixture, share: float) -> Mixture:
        """The mixture with another one added, which gets a share of the weight."""
        return Mixture(
            np.concatenate([(1 - share) * self.weights, share * other.weights]),
            np.concatenate([self.means, other.means]),
            np.concatenate([self.roots, other.roots]),
            self.df,
        )


@dataclass(frozen=True)
class Weighted:
    """Weighted points that stand for a density.

    Attributes
    ----------
    points : ndarray, shape (S, d)
        Where the density was evaluated.
    weights : ndarray, shape (S,)
        Pareto-smoothed, summing to 1.
    ess : float
        Effective number of independent draws, 1 / sum of squared weights.
    k_hat : float
        Shape of the tail of the weights; above 0.7 they should not be trusted.
    log_integral : float
        Log of the integral of the density that was sampled.
    log_integral_se : float
        Its Monte Carlo standard error.
    extras : ndarray, shape (S, k)
        What the density returned beside its values.
    mixture : Mixture
        The last one.
    """

    points: np.ndarray
    weights: np.ndarray
    ess: float
    k_hat: float
    log_integral: float
    log_integral_se: float
    extras: np.ndarray
    mixture: Mixture

    @property
    def trusted(self) -> bool:
        """Whether k-hat is below its limit."""
        return bool(self.k_hat < LARGEST_K)

    def resample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Indices of points in proportion to their weights, in random order, shape (size,)."""
        counts = _systematic(self.weights, size, rng)
        return rng.permutation(np.repeat(np.arange(len(counts)), counts))


def importance_sample(
    density: Density,
    proposal: Mixture,
    defensive: Mixture,
    rng: np.random.Generator,
    *,
    ess: float,
    batch: int = 1000,
    limit: int = 100_000,
) -> Weighted:
    """Points weighted to stand for a density, enough for a wanted effective number.

    Parameters
    ----------
    density : callable
        Takes points (S, d), returns log densities (S,) up to a constant, and whatever is to be
        kept of each point, (S, k).
    proposal : Mixture
        Where to begin: as around the modes.
    defensive : Mixture
        A wide density, such as the prior, that keeps 5% of every mixture: it bounds the
        weights where the fitted part has no mass.
    rng : Generator
        Of random numbers.
    ess : float
        Wanted effective number of draws.
    batch : int
        Points of the first rounds; later rounds have as many as seem to be needed.
    limit : int
        Points at most.

    Examples
    --------
    >>> wide = Mixture(np.ones(1), np.zeros((1, 2)), 3 * np.eye(2)[None])
    >>> rng = np.random.default_rng(1)
    >>> normal = lambda x: (-0.5 * (x**2).sum(axis=1), x[:, :0])
    >>> found = importance_sample(normal, wide, wide, rng, ess=1000)
    >>> found.trusted, bool(abs(found.log_integral - np.log(2 * np.pi)) < 0.02)
    (True, True)
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    used: list[tuple[int, Mixture]] = []
    current, size, total = proposal.joined(defensive, _DEFENSIVE), batch, 0
    while True:
        new = current.draw(size, rng)
        parts.append((new, *density(new)))
        used.append((size, current))
        total += size
        points, log_p, extras = (np.concatenate(part) for part in zip(*parts, strict=True))
        found = _weighted(points, log_p, extras, used)
        if found.ess >= ess or total >= limit:
            return found
        fitted = _fit(points, found.weights, min(_COMPONENTS, 1 + int(found.ess / 100)), rng)
        current = fitted.joined(defensive, _DEFENSIVE)
        if len(used) > 2:
            rate = max(found.ess / total, 0.02)
            size = int(np.clip((ess - found.ess) / rate, batch, 4 * total))
        size = min(size, limit - total)


def _weighted(
    points: np.ndarray, log_p: np.ndarray, extras: np.ndarray, used: list[tuple[int, Mixture]]
) -> Weighted:
    """Weights against the mixture of all rounds, smoothed."""
    parts = [log(size / len(points)) + mixture.log_density(points) for size, mixture in used]
    log_w = log_p - np.logaddexp.reduce(parts, axis=0)
    top = log_w.max()
    raw = np.exp(log_w - top)
    mean = raw.mean()
    smoothed, k_hat = smooth(log_w)
    weights = np.exp(smoothed - smoothed.max())
    weights /= weights.sum()
    return Weighted(
        points,
        weights,
        float(1 / (weights @ weights)),
        k_hat,
        float(top + np.log(mean)),
        float(raw.std() / (mean * np.sqrt(len(raw)))),
        extras,
        used[-1][1],
    )


def smooth(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed log weights (S,), and k-hat; equal weights are left as they are."""
    from arviz_stats.base import array_stats

    if np.ptp(log_weights) < 1e-9:
        return log_weights, -np.inf
    smoothed, k_hat = array_stats.psislw(-log_weights)
    return np.asarray(smoothed), float(k_hat)


@dataclass(frozen=True)
class Chains:
    """Markov chains, and what tells whether they can be trusted.

    Attributes
    ----------
    points, extras : ndarray, shapes (chains, draws, d) and (chains, draws, k)
        Draws, and what the density returned beside its values.
    r_hat, ess : float
        The worst of the coordinates' r-hat, and of their effective numbers of draws.
    """

    points: np.ndarray
    extras: np.ndarray
    r_hat: float
    ess: float


def metropolis_sample(
    density: Density,
    start: Weighted,
    rng: np.random.Generator,
    *,
    draws: int,
    chains: int = 8,
    thin: int = 20,
) -> Chains:
    """Metropolis sampling from where importance sampling has come: slower, needs no good fit.

    Steps are taken by turns at random: three of four are t-distributed around the last point,
    of the size that suits a normal density, the others come from the fitted mixture.

    Parameters
    ----------
    density : callable
        As for `importance_sample`.
    start : Weighted
        Its result: where the chains begin, and the shape of their steps.
    rng : Generator
        Of random numbers.
    draws : int
        Draws kept of each chain, after half as many to forget the start.
    chains : int
        Chains, run side by side.
    thin : int
        Steps between two draws kept.

    Examples
    --------
    >>> wide = Mixture(np.ones(1), np.zeros((1, 2)), 3 * np.eye(2)[None])
    >>> rng = np.random.default_rng(1)
    >>> normal = lambda x: (-0.5 * (x**2).sum(axis=1), x[:, :0])
    >>> begin = importance_sample(normal, wide, wide, rng, ess=100)
    >>> found = metropolis_sample(normal, begin, rng, draws=200)
    >>> found.points.shape, found.r_hat < 1.02
    ((8, 200, 2), True)
    """
    from arviz_stats.base import array_stats

    d = start.points.shape[1]
    centred = start.points - start.weights @ start.points
    spread = centred.T @ (centred * start.weights[:, None])
    local = np.linalg.cholesky((2.38**2 / d) * spread + 1e-12 * np.eye(d))
    x = start.points[start.resample(chains, rng)]
    log_p, extras = density(x)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    burn = draws * thin // 2
    for step in range(burn + draws * thin):
        if rng.random() < 0.75:
            t = np.sqrt(rng.chisquare(5, chains) / 5)
            new = x + rng.standard_normal((chains, d)) @ local.T / t[:, None]
            correction = np.zeros(chains)
        else:
            new = start.mixture.draw(chains, rng)[rng.permutation(chains)]
            correction = start.mixture.log_density(x) - start.mixture.log_density(new)
        log_new, extras_new = density(new)
        taken = np.log(rng.random(chains)) < log_new - log_p + correction
        x = np.where(taken[:, None], new, x)
        extras = np.where(taken[:, None], extras_new, extras)
        log_p = np.where(taken, log_new, log_p)
        if step >= burn and (step - burn) % thin == thin - 1:
            kept.append((x, extras))
    points, more = (np.stack(part, axis=1) for part in zip(*kept, strict=True))
    return Chains(
        points,
        more,
        max(float(array_stats.rhat(points[..., j])) for j in range(d)),
        min(float(array_stats.ess(points[..., j])) for j in range(d)),
    )


def _fit(
    points: np.ndarray, weights: np.ndarray, components: int, rng: np.random.Generator
) -> Mixture:
    """A mixture of t distributions fitted to weighted points, by EM."""
    d = points.shape[1]
    kept = weights > 1e-12 * weights.max()
    x, w = points[kept], weights[kept]
    centre = w @ x
    spread = (x - centre).T @ ((x - centre) * w[:, None])
    ridge = 1e-6 * np.diag(np.diag(spread)) + 1e-12 * np.eye(d)
    means = x[rng.choice(len(x), components, p=w / w.sum())]
    roots = np.repeat(np.linalg.cholesky(spread + ridge)[None], components, axis=0)
    mixture = Mixture(np.full(components, 1 / components), means, roots)
    for _ in range(_EM_STEPS if components > 1 else 1):
        logs = mixture.log_densities(x)
        share = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None]) * w[:, None]
        mass = share.sum(axis=0)
        alive = mass > 0.02
        share, mass = share[:, alive], mass[alive]
        means = (share.T @ x) / mass[:, None]
        centred = x[:, None] - means
        spreads = np.einsum("sm,smi,smj->mij", share, centred, centred) / mass[:, None, None]
        mixture = Mixture(mass / mass.sum(), means, np.linalg.cholesky(spreads + ridge))
    return mixture


def _systematic(weights: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """How often each is taken, in all `size` times, as close to its weight as can be."""
    edges = np.cumsum(weights)
    at = (np.arange(size) + rng.random()) / size
    found = np.minimum(np.searchsorted(edges / edges[-1], at, side="right"), len(weights) - 1)
    return np.bincount(found, minlength=len(weights))
