"""Draws from a density of a few dimensions, whose values may be dear.

Adaptive importance sampling, with diagnostics; and Metropolis sampling for where these say no.
Points come from a mixture of t distributions that is fitted to the density as one goes (AMIS,
Cornuet et al. 2012, Scand J Stat 39:798): in each round points are drawn from the mixture at hand,
all points so far are weighted against the mixture of all rounds, and the next mixture is fitted to
them. The largest weights are smoothed by a generalised Pareto distribution, whose shape k tells
whether the weights can be trusted (PSIS, Vehtari et al. 2024, J Mach Learn Res 25(72):1): below 0.7
they can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lgamma, log, pi

import numpy as np

from bayeslmm.runs.progress import track

LARGEST_K = 0.7
_DF = 7.0
# Components of a mixture at most, and points that one is fitted to.
_COMPONENTS, _FITTED = 12, 5000
_DEFENSIVE = 0.05
_EM_STEPS = 25
# Accepted steps of a random walk in a few dimensions.
_ACCEPTED = 0.3

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
            # The inverse of a small triangle, then a product: twice as fast as solving.
            z = np.linalg.inv(L) @ (x - mean).T
            out[:, j] = constant - np.log(np.diagonal(L)).sum()
            out[:, j] -= 0.5 * (df + d) * np.log1p((z * z).sum(axis=0) / df)
        return out + np.log(self.weights)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density at points (S, d), shape (S,)."""
        return _log_sums(self.log_densities(x))

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

    def covariance(self) -> np.ndarray:
        """Weighted covariance of the points, (d, d)."""
        centred = self.points - self.weights @ self.points
        return centred.T @ (centred * self.weights[:, None])

    def resample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Indices of points in proportion to their weights, in random order, shape (size,)."""
        counts = _systematic(self.weights, size, rng)
        return rng.permutation(np.repeat(np.arange(len(counts)), counts))


def importance_sample(
    density: Density,
    proposal: Mixture,
    rng: np.random.Generator,
    *,
    ess: float,
    batch: int = 1000,
    least: int = 0,
    limit: int = 100_000,
    defensive: Mixture | None = None,
) -> Weighted:
    """Points weighted to stand for a density, enough for a wanted effective number.

    Rounds go on until the weights are worth that number and k-hat is good, or the limit is met.

    Parameters
    ----------
    density : callable
        Takes points (S, d), returns log densities (S,) up to a constant, -inf where there is
        none, and whatever is to be kept of each point, (S, k).
    proposal : Mixture
        Where to begin: as around the modes.
    rng : Generator
        Of random numbers.
    ess : float
        Wanted effective number of draws.
    batch : int
        Points of the first rounds; later rounds have as many as seem to be needed.
    least, limit : int
        Points at least, and at most.
    defensive : Mixture, optional
        A wide density, such as the prior, that keeps 5% of every mixture: it bounds the
        weights where the fitted part has no mass.

    Examples
    --------
    >>> wide = Mixture(np.ones(1), np.zeros((1, 2)), 3 * np.eye(2)[None])
    >>> rng = np.random.default_rng(1)
    >>> normal = lambda x: (-0.5 * (x**2).sum(axis=1), x[:, :0])
    >>> found = importance_sample(normal, wide, rng, ess=1000)
    >>> found.trusted, bool(abs(found.log_integral - np.log(2 * np.pi)) < 0.02)
    (True, True)
    """
    points, log_p, extras = np.empty((0, proposal.means.shape[1])), np.empty(0), None
    used: list[tuple[int, Mixture]] = []
    current, size = _defended(proposal, defensive), batch
    before = np.einsum("m,mij,mkj->ik", proposal.weights, proposal.roots, proposal.roots)
    while True:
        new = current.draw(size, rng)
        more, kept = density(new)
        points, log_p = np.concatenate([points, new]), np.concatenate([log_p, more])
        extras = kept if extras is None else np.concatenate([extras, kept])
        used.append((size, current))
        total = len(points)
        found = _weighted(points, log_p, extras, used)
        enough = total >= least and found.ess >= ess and found.trusted
        if enough or total >= limit:
            return found
        current = _defended(_fit(points, found.weights, found.ess, before, rng), defensive)
        if len(used) > 2:
            rate = max(found.ess / total, 0.02)
            lacking = (ess - found.ess) / rate if found.ess < ess else total / 2
            size = int(np.clip(max(lacking, least - total), batch, 4 * total))
        size = min(size, limit - total)


def _defended(mixture: Mixture, defensive: Mixture | None) -> Mixture:
    return mixture if defensive is None else mixture.joined(defensive, _DEFENSIVE)


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

    finite = np.isfinite(log_weights)
    if np.ptp(log_weights[finite]) < 1e-9:
        return log_weights, -np.inf
    smoothed = np.full(len(log_weights), -np.inf)
    smoothed[finite], k_hat = array_stats.psislw(-log_weights[finite])
    return smoothed, float(k_hat)


@dataclass(frozen=True)
class Chains:
    """Markov chains, and what tells whether they can be trusted.

    Attributes
    ----------
    points, extras : ndarray, shapes (chains, draws, d) and (chains, draws, k)
        Draws, and what the density returned beside its values.
    r_hat, ess : float
        The worst of the coordinates' r-hat, and of their effective numbers of draws.
    evaluations : int
        Points at which the density was evaluated.
    """

    points: np.ndarray
    extras: np.ndarray
    r_hat: float
    ess: float
    evaluations: int


def metropolis_sample(
    density: Density,
    start: Weighted,
    rng: np.random.Generator,
    *,
    draws: int,
    chains: int = 8,
    thin: int = 20,
    progress: bool | None = False,
) -> Chains:
    """Metropolis sampling from where importance sampling has come: slower, needs no good fit.

    Steps are taken by turns: every fourth is a point of the fitted mixture, the others are
    t-distributed around the last point, with a size that is adapted while the start is forgotten.

    Parameters
    ----------
    density : callable
        As for `importance_sample`.
    start : Weighted
        Its result: where the chains begin, and the shape of their steps.
    rng : Generator
        Of random numbers.
    draws : int
        Draws kept of each chain, after half as many, at least 100 steps, to forget the start.
    chains : int
        Chains, run side by side.
    thin : int
        Steps between two draws kept.
    progress : bool, optional
        Whether to show a progress bar.

    Examples
    --------
    >>> wide = Mixture(np.ones(1), np.zeros((1, 2)), 3 * np.eye(2)[None])
    >>> rng = np.random.default_rng(1)
    >>> normal = lambda x: (-0.5 * (x**2).sum(axis=1), x[:, :0])
    >>> begin = importance_sample(normal, wide, rng, ess=100)
    >>> found = metropolis_sample(normal, begin, rng, draws=200)
    >>> found.points.shape, found.r_hat < 1.02
    ((8, 200, 2), True)
    """
    from arviz_stats.base import array_stats

    d = start.points.shape[1]
    spread = start.covariance()
    local = np.linalg.cholesky(spread + 1e-6 * np.diag(np.diag(spread)) + 1e-12 * np.eye(d))
    log_size = np.log(2.38 / np.sqrt(d))
    x = start.points[start.resample(chains, rng)]
    log_p, extras = density(x)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    burn = max(draws * thin // 2, 100)
    steps = burn + draws * thin
    for step in track(range(steps), "Markov chains", show=progress):
        walking = step % 4 < 3
        if walking:
            t = np.exp(log_size) * np.sqrt(5 / rng.chisquare(5, (chains, 1)))
            new = x + t * (rng.standard_normal((chains, d)) @ local.T)
            correction = np.zeros(chains)
        else:
            new = start.mixture.draw(chains, rng)[rng.permutation(chains)]
            correction = start.mixture.log_density(x) - start.mixture.log_density(new)
        log_new, extras_new = density(new)
        ratio = np.minimum(log_new - log_p + correction, 0.0)
        taken = np.log(rng.random(chains)) < ratio
        x = np.where(taken[:, None], new, x)
        extras = np.where(taken[:, None], extras_new, extras)
        log_p = np.where(taken, log_new, log_p)
        if step < burn:
            if walking:
                log_size += (np.exp(ratio).mean() - _ACCEPTED) / np.sqrt(1 + step)
        elif (step - burn) % thin == thin - 1:
            kept.append((x, extras))
    points, more = (np.stack(part, axis=1) for part in zip(*kept, strict=True))
    return Chains(
        points,
        more,
        max(float(array_stats.rhat(points[..., j])) for j in range(d)),
        min(float(array_stats.ess(points[..., j])) for j in range(d)),
        len(x) * (steps + 1),
    )


def _fit(
    points: np.ndarray,
    weights: np.ndarray,
    ess: float,
    before: np.ndarray,
    rng: np.random.Generator,
) -> Mixture:
    """A mixture of t distributions fitted to weighted points, by EM.

    As many components as the effective number of points can carry; where it is small the scales
    lean on the one before, (d, d).
    """
    d = points.shape[1]
    components = min(_COMPONENTS, 1 + int(ess / (20 * d)))
    # Where there are many points, as many by weight do.
    counts = _systematic(weights, _FITTED, rng) if len(weights) > _FITTED else weights
    x, w = points[counts > 0], counts[counts > 0] / counts.sum()
    centre = w @ x
    spread = _leaning((x - centre).T @ ((x - centre) * w[:, None]), ess, before)
    means = x[rng.choice(len(x), components, p=w / w.sum())] if components > 1 else centre[None]
    roots = np.repeat(np.linalg.cholesky(spread)[None], components, axis=0)
    mixture = Mixture(np.full(components, 1 / components), means, roots)
    for _ in range(_EM_STEPS if components > 1 else 0):
        logs = mixture.log_densities(x)
        share = np.exp(logs - _log_sums(logs)[:, None]) * w[:, None]
        mass = share.sum(axis=0)
        alive = mass > 0.2 / components
        share, mass = share[:, alive], mass[alive]
        means = (share.T @ x) / mass[:, None]
        spreads = np.empty((len(mass), d, d))
        for m, (part, mean) in enumerate(zip(share.T, means, strict=True)):
            centred = x - mean
            spreads[m] = centred.T @ (centred * (part / mass[m])[:, None])
        spreads = _leaning(spreads, ess * mass[:, None, None], spread)
        mixture = Mixture(mass / mass.sum(), means, np.linalg.cholesky(spreads))
    return mixture


def _leaning(spread: np.ndarray, ess: float | np.ndarray, before: np.ndarray) -> np.ndarray:
    """Covariances (..., d, d) shrunk to the one before, as if that were worth 5 d points."""
    trust = ess / (ess + 5 * spread.shape[-1])
    return trust * spread + (1 - trust) * before


def _log_sums(logs: np.ndarray) -> np.ndarray:
    """Log of the sum of exponentials of each row, (S, M): finite in at least one column."""
    top = logs.max(axis=1)
    return top + np.log(np.exp(logs - top[:, None]).sum(axis=1))


def _systematic(weights: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """How often each is taken, in all `size` times, as close to its weight as can be."""
    edges = np.cumsum(weights)
    at = (np.arange(size) + rng.random()) / size
    found = np.minimum(np.searchsorted(edges / edges[-1], at, side="right"), len(weights) - 1)
    return np.bincount(found, minlength=len(weights))
