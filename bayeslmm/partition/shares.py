r"""The posterior of the shares h_1 .. h_K of several kernels; arrays only.

    log p(h | y) = log p(y | h) + log p(h) + const,   h on the simplex, h_e = 1 - sum h_k,

with s2 and the fixed effects integrated out (`partition.components`), so that K dimensions are
left whatever n is. Three ways, each with what tells whether it went well:

**Quadrature** (one or two kernels). Write h_1 = t r and h_2 = t (1 - r). For a fixed r there is
one kernel, r M_1 + (1 - r) M_2, and one reduction of it to tridiagonal form (as costly as some
eight Cholesky factors) gives log p(y | t, r) for every t in O(n). It is interpolated between
Chebyshev nodes of r, whose number is doubled until half of them predict the others to 0.03; the
error falls geometrically, so that of all of them is about 0.001. Everything else is exact, and
draws are independent.

**Importance sampling** (three kernels and more). Coordinates x in R^K are chosen such that the
uniform distribution of the shares is the standard normal one of x: breaking a stick, first into
the residual and the rest, then the rest kernel by kernel, gives pieces with Beta(1, j)
distributions, and x_k are the normal quantiles of these,

    h2 = sum h_k = Phi(x_1)^(1/K),   1 - h_k / (h_k + .. + h_K) = Phi(-x_(k+1))^(1/(K-k)).

A posterior that leans on a boundary, a share near 0, is no further from normal there than the
prior is (in log-ratios it would have an exponential tail on one side). `numerics.importance` draws
from a Student-t around the mode, with the inverse average information as its scale, and adapts it
to the weighted draws. The shape k of the largest weights is the diagnostic: up to 0.7 the
estimates can be trusted. What comes back are draws resampled by weight; how many independent
draws they are worth, their effective sample size, is told with k.

**Markov chains** (if k stays above 0.7). Metropolis on x, from where importance sampling has
come; r-hat and effective sample size are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from math import lgamma, log, pi
from typing import Any, Literal

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.numerics.importance import Mixture, importance_sample, metropolis_sample
from bayeslmm.numerics.quadrature import UnitDensity, unit_density
from bayeslmm.partition.components import SMALLEST_RESIDUAL, Components
from bayeslmm.runs.progress import track

type Method = Literal["auto", "quadrature", "importance", "mcmc"]
METHODS = ("auto", "quadrature", "importance", "mcmc")

# Effective sample size from which weights are trusted, their Pareto shape being good.
GOOD_ESS = 100.0
_CHAINS = 4
# Evaluations below which the tail of the weights cannot be judged.
FEWEST = 150


@dataclass(frozen=True)
class Target:
    """The posterior of the shares, in coordinates x that range over all of R^K.

    Attributes
    ----------
    components : Components
        Likelihood.
    log_prior : callable
        Log density of shares (G, K + 1), shape (G,), with respect to those of the kernels.
    """

    components: Components
    log_prior: Callable[[np.ndarray], np.ndarray]

    @property
    def dim(self) -> int:
        """Number of kernels, K."""
        return len(self.components.kappa)

    def log_jacobian_and_prior(self, x: np.ndarray) -> np.ndarray:
        """What is added to the log-likelihood at x (G, K), shape (G,); -inf out of range."""
        shares = to_shares(x)
        inside = (shares > 1e-300).all(axis=1) & (shares[:, -1] >= SMALLEST_RESIDUAL)
        out = np.full(len(x), -np.inf)
        # The uniform density K! of the shares is the standard normal one of x.
        out[inside] = self.log_prior(shares[inside]) - lgamma(self.dim + 1)
        out[inside] -= 0.5 * (np.square(x[inside]).sum(axis=1) + self.dim * log(2 * pi))
        return out

    def evaluate(
        self, x: np.ndarray, *, progress: bool | None = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log density at x (G, K); and Q, b and its covariance there, (G, 1 + c + c^2)."""
        c = self.components.c
        values = self.log_jacobian_and_prior(x)
        extras = np.full((len(x), 1 + c + c * c), np.nan)
        shares = to_shares(x)
        inside = np.flatnonzero(np.isfinite(values)).tolist()
        for i in track(inside, "Posterior of the shares", show=progress):
            at = self.components.evaluate(shares[i])
            if at is None:
                values[i] = -np.inf
            else:
                values[i] += at.loglik
                extras[i] = np.concatenate([[at.Q], at.b, at.covariance.ravel()])
        return values, extras


@dataclass(frozen=True)
class Draws:
    """Draws of the shares, and of what they determine.

    Attributes
    ----------
    shares : ndarray, shape (N, K + 1)
        The residual's last.
    Q : ndarray, shape (N,)
        s2 | h is Q / chi-squared.
    b, covariance : ndarray, shapes (N, c), (N, c, c)
        Of the fixed effects given h, the covariance over s2.
    account : dict
        method, evaluations, ess, and pareto_k, r_hat, log_marginal_likelihood where they exist.
    """

    shares: np.ndarray
    Q: np.ndarray
    b: np.ndarray
    covariance: np.ndarray
    account: dict[str, Any] = field(repr=False)


def to_shares(x: np.ndarray) -> np.ndarray:
    """Shares (..., K + 1), the residual's last, at coordinates (..., K)."""
    from scipy.special import log_ndtr

    K = x.shape[-1]
    shares = np.empty((*x.shape[:-1], K + 1))
    log_left = log_ndtr(x[..., 0]) / K
    shares[..., K] = -np.expm1(log_left)
    for k in range(K - 1):
        log_kept = log_ndtr(-x[..., k + 1]) / (K - 1 - k)
        shares[..., k] = -np.expm1(log_kept) * np.exp(log_left)
        log_left = log_left + log_kept
    shares[..., K - 1] = np.exp(log_left)
    return shares


def to_coordinates(shares: np.ndarray) -> np.ndarray:
    """The way back, from shares above 0."""
    from scipy.special import ndtri_exp

    K = shares.shape[-1] - 1
    x = np.empty((*shares.shape[:-1], K))
    x[..., 0] = ndtri_exp(K * np.log1p(-shares[..., K]))
    for k in range(K - 1):
        kept = shares[..., k + 1 : K].sum(axis=-1)
        x[..., k + 1] = -ndtri_exp((K - 1 - k) * -np.log1p(shares[..., k] / kept))
    return x


def posterior_draws(
    target: Target,
    start: np.ndarray,
    draws: int,
    rng: np.random.Generator,
    *,
    method: Method = "auto",
    evaluations: int | None = None,
    progress: bool | None = None,
) -> Draws:
    """Draws from the posterior of the shares.

    Parameters
    ----------
    target : Target
        Likelihood and prior.
    start : ndarray, shape (K + 1,)
        Shares near the mode, such as those of REML; zeros are moved inside.
    draws : int
        How many come back.
    rng : Generator
        Random numbers.
    method : str
        See the text of the module; "auto" chooses by the number of kernels.
    evaluations : int, optional
        Evaluations of the likelihood for importance sampling, in all; 150 (K + 1), at least 600,
        by default.
    progress : bool, optional
        Whether to show a progress bar.

    Raises
    ------
    InputError
        For an unknown method, and quadrature of more than two kernels.
    """
    if method not in METHODS:
        raise InputError(f"method='{method}' is unknown; expected one of {', '.join(METHODS)}.")
    if method == "quadrature" or (method == "auto" and target.dim <= 2):
        if target.dim > 2:
            raise InputError(
                f"Quadrature is for one or two kernels, not {target.dim}: use "
                "method='importance' or 'mcmc'."
            )
        return quadrature_draws(target, draws, rng, progress=progress)
    budget = max(600, 150 * (target.dim + 1)) if evaluations is None else evaluations
    if budget < FEWEST:
        raise InputError(
            f"Importance sampling needs at least {FEWEST} evaluations of the likelihood, not "
            f"{budget}."
        )
    mode, covariance, spent = find_mode(target, start)
    near = Mixture(np.ones(1), mode[None], np.linalg.cholesky(covariance)[None])
    sample = importance_sample(
        partial(target.evaluate, progress=progress),
        near,
        rng,
        ess=GOOD_ESS,
        batch=-(-budget // 5),
        least=budget,
        # Twice as many if the weights are not good.
        limit=budget if method == "mcmc" else 2 * budget,
    )
    spent += len(sample.points)
    poor = not sample.trusted or sample.ess < GOOD_ESS
    c = target.components.c
    if method == "mcmc" or (method == "auto" and poor):
        chains = metropolis_sample(
            target.evaluate,
            sample,
            rng,
            draws=-(-draws // _CHAINS),
            chains=_CHAINS,
            thin=1,
            progress=progress,
        )
        account = {
            "method": "Metropolis",
            "evaluations": spent + chains.evaluations,
            "ess": chains.ess,
            "r_hat": chains.r_hat,
            "pareto_k_of_importance_sampling": sample.k_hat,
        }
        x, extras = (
            part.reshape(-1, part.shape[-1])[:draws] for part in (chains.points, chains.extras)
        )
        return _collect(x, extras, c, account)
    account = {
        "method": "importance sampling",
        "evaluations": spent,
        "ess": sample.ess,
        "pareto_k": sample.k_hat,
        "log_marginal_likelihood": sample.log_integral,
    }
    rows = sample.resample(draws, rng)
    return _collect(sample.points[rows], sample.extras[rows], c, account)


# -- the mode --------------------------------------------------------------------------------------


def find_mode(target: Target, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Mode in the coordinates (K,), covariance there (K, K), and the number of evaluations.

    Scoring: Newton's method with the average information and the prior's own curvature, the
    step halved where it does not climb.
    """
    inside = np.maximum(start, 0.02 / len(start))
    x = to_coordinates(inside / inside.sum())
    value, gradient, precision = _climb(target, x)
    spent = 1
    for _ in range(40):
        step = np.linalg.solve(precision, gradient)
        gain = float(gradient @ step)
        if gain < 1e-4:
            break
        step *= min(1.0, 3.0 / np.abs(step).max())
        for halving in range(8):
            candidate = x + step / 2**halving
            spent += 1
            if target.evaluate(candidate[None])[0][0] > value:
                break
        else:
            break
        x = candidate
        value, gradient, precision = _climb(target, x)
        spent += 1
    return x, np.linalg.inv(precision), spent


def _climb(target: Target, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log density at x, its gradient and a positive-definite stand-in for minus its Hessian."""
    shares = to_shares(x)
    at = target.components.factor(shares)
    assert at is not None
    slope, AI = at.share_derivatives()
    K = len(x)
    around = x + _stencil(K)
    values, moved = target.log_jacobian_and_prior(around), to_shares(around)[:, :K]
    J = (moved[:K] - moved[K : 2 * K]) / (2 * _STEP)
    ahead, behind, middle = values[:K], values[K : 2 * K], values[2 * K]
    prior_slope = (ahead - behind) / (2 * _STEP)
    # Of the prior only the curvature along the axes counts, and only where it is concave.
    bend = np.maximum((2 * middle - ahead - behind) / _STEP**2, 1e-3)
    value = target.components.integrated(at.logdet, at.Q) + middle
    return float(value), J @ slope + prior_slope, J @ AI @ J.T + np.diag(bend)


_STEP = 1e-4


def _stencil(K: int) -> np.ndarray:
    return np.concatenate([_STEP * np.eye(K), -_STEP * np.eye(K), np.zeros((1, K))])


# -- draws from points in coordinates --------------------------------------------------------------


def _collect(x: np.ndarray, extras: np.ndarray, c: int, account: dict[str, Any]) -> Draws:
    """Draws at x (N, K), from what `Target.evaluate` kept there, (N, 1 + c + c^2)."""
    Q, b, covariance = np.split(extras, [1, 1 + c], axis=1)
    return Draws(to_shares(x), Q[:, 0], b, covariance.reshape(-1, c, c), account)


# -- quadrature for one or two kernels -------------------------------------------------------------

# Numbers of intervals between Chebyshev nodes of the ratio, tried in turn.
_INTERVALS = (8, 16, 32, 64)
# Largest error of the log density, times the relative density, of interpolation from half of the
# nodes. It falls geometrically with their number: that from all of them is about its square.
_ACCURATE = 0.03
# Drops of the log density that count as nothing: of the ratio's range, and of t.
_BEYOND, _NOTHING = 18.0, 60.0
_PANELS, _ORDER = 24, 12
_CHUNK = 2**22


class FixedRatio:
    """One mixture of the kernels, reduced to tridiagonal form: M(t) = t T + (1 - t) I.

    Parameters
    ----------
    components : Components
        The data.
    split : ndarray, shape (K,)
        Weights of the kernels, of sum 1.

    Attributes
    ----------
    d, e : ndarray, shapes (nu,), (nu - 1,)
        Diagonal of T, and what is beside it.
    rhs : ndarray, shape (nu, 1 + c)
        Phenotype and cross-covariances with the covariates, in the coordinates of T.
    own : ndarray, shape (c, c)
        Covariance of the covariates' own directions.
    top : float
        Largest t with a factor: the mixture may be singular but for rounding. From there to 1
        the likelihood is taken to be what it is there.
    """

    def __init__(self, components: Components, split: np.ndarray) -> None:
        from scipy.linalg.lapack import dormqr, dpttrf, dsytrd, dtfttr

        nu = components.df
        full = dtfttr(nu, split @ components.packed, transr="N", uplo="L")[0]
        reduced, self.d, self.e, tau, _ = dsytrd(full, lower=1, lwork=64 * nu, overwrite_a=1)
        cross = np.tensordot(split, components.cross, axes=1)
        self.rhs = np.asfortranarray(np.column_stack([components.y, cross.T]))
        below = np.asfortranarray(reduced[1:, :-1])
        self.rhs[1:] = dormqr("L", "T", below, tau, self.rhs[1:], 64 * self.rhs.shape[1])[0]
        self.own = np.tensordot(split, components.own, axes=1)
        for residual in np.geomspace(SMALLEST_RESIDUAL, 0.1, 15):
            if not dpttrf((1 - residual) * self.d + residual, (1 - residual) * self.e)[2]:
                self.top = float(1 - residual)
                return
        raise InputError("A mixture of the kernels is not positive-semidefinite.")


@dataclass(frozen=True)
class Surface:
    """log p(y | t, r) on Chebyshev nodes of the ratio r in [low, high], the rest interpolated.

    Attributes
    ----------
    components : Components
        The data.
    low, high : float
        Range of r = h_1 / (h_1 + h_2).
    nodes : ndarray, shape (J,)
        Chebyshev nodes of it.
    at : list of FixedRatio
        The likelihood there.
    error : float
        Largest error of the interpolation from half of the nodes at the others, times the
        relative density.
    """

    components: Components
    low: float
    high: float
    nodes: np.ndarray
    at: list[FixedRatio]
    error: float

    def loglik(self, t: np.ndarray) -> np.ndarray:
        """log p(y | t, r) at the nodes, shape (T, J)."""
        logdet, products = self._products(t, 1)
        return self.components.integrated(logdet, products[..., 0, 0])

    def conditionals(self, t: np.ndarray) -> np.ndarray:
        """log Q, b and its covariance over s2 at the nodes, (T, J, 1 + c + c^2)."""
        c = self.components.c
        out = np.empty((len(t), len(self.at), 1 + c + c * c))
        own = np.stack([one.own for one in self.at])
        for i in range(0, len(t), 64):
            share = t[i : i + 64, None, None, None]
            products = self._products(t[i : i + 64], 1 + c)[1]
            covariance = share * own + (1 - share) * np.eye(c) - share**2 * products[..., 1:, 1:]
            b, covariance = self.components.fixed_effects(
                share[..., 0] * products[..., 1:, 0], covariance
            )
            piece = out[i : i + 64]
            piece[..., 0] = np.log(products[..., 0, 0])
            piece[..., 1 : 1 + c] = b
            piece[..., 1 + c :] = covariance.reshape(*covariance.shape[:2], -1)
        return out

    def _products(self, t: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
        """log|M| (T, J) and X' M^-1 X (T, J, m, m), X the first m columns of each `rhs`.

        M = L D L' by the recursion of a tridiagonal matrix, for all t and all nodes at once.
        """
        share = np.minimum.outer(t, np.array([one.top for one in self.at]))
        diagonal = np.stack([one.d for one in self.at], axis=1)
        beside = np.stack([one.e for one in self.at], axis=1)
        X = np.stack([one.rhs[:, :m] for one in self.at], axis=1)
        d = share * diagonal[0] + (1 - share)
        w = np.broadcast_to(X[0], (*share.shape, m)).copy()
        products = w[..., :, None] * w[..., None, :] / d[..., None, None]
        logdet, running = np.zeros(share.shape), d.copy()
        for i in range(1, len(diagonal)):
            off = share * beside[i - 1]
            factor = off / d
            d = share * diagonal[i] + (1 - share) - factor * off
            w = X[i] - factor[..., None] * w
            products += w[..., :, None] * (w / d[..., None])[..., None, :]
            running *= d
            if i % 16 == 0:  # a logarithm for sixteen steps; nothing under- or overflows
                logdet += np.log(running)
                running[:] = 1.0
        return logdet + np.log(running), products

    def to(self, r: np.ndarray) -> np.ndarray:
        """Weights that interpolate from the nodes to any r (R,): shape (R, J)."""
        return barycentric(self.nodes, r)


def chebyshev_extrema(low: float, high: float, intervals: int) -> np.ndarray:
    """Ascending extrema of a Chebyshev polynomial, ends included; each set is in the next."""
    if low == high:
        return np.array([low])
    x = np.sin(pi * (2 * np.arange(intervals + 1) - intervals) / (2 * intervals))
    return low + (high - low) * (x + 1) / 2


def barycentric(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Weights of polynomial interpolation from Chebyshev extrema to x (R,), shape (R, J)."""
    J = len(nodes)
    if J == 1:
        return np.ones((len(x), 1))
    weights = (-1.0) ** np.arange(J)
    weights[[0, -1]] /= 2
    gap = x[:, None] - nodes
    hit = np.abs(gap) < 1e-14
    gap[hit] = 1.0
    w = weights / gap
    w /= w.sum(axis=1, keepdims=True)
    rows = hit.any(axis=1)
    w[rows] = hit[rows]
    return w


def quadrature_draws(
    target: Target,
    draws: int,
    rng: np.random.Generator,
    *,
    progress: bool | None = None,
) -> Draws:
    """Independent draws for one or two kernels: t and r by inversion, the rest interpolated."""
    surface = make_surface(target, progress=progress)
    r, w = _ratio_grid(surface)
    to_r = surface.to(r)

    def log_joint(t: np.ndarray, loglik: np.ndarray) -> np.ndarray:
        """At t (T,), with log-likelihoods at the nodes (T, J), and all of the grid: (T, R)."""
        values = loglik @ to_r.T + np.log(w)
        return values + _log_prior_of(target, t, r)

    def marginal(t: np.ndarray) -> np.ndarray:
        parts = []
        for piece in _pieces(t, len(r)):
            loglik = surface.loglik(piece)
            values = np.logaddexp.reduce(log_joint(piece, loglik), axis=1)
            # Far from the mass the interpolation may be wild, and does not matter.
            nothing = loglik.max(axis=1) < top - _NOTHING
            parts.append(np.where(nothing, loglik.max(axis=1), values))
        return np.concatenate(parts)

    top = float(surface.loglik(_coarse()).max())
    density = unit_density(marginal)
    t = density.draw(draws, rng)
    loglik = density.interpolate(surface.loglik(density.x), t)
    ratio = np.empty(draws)
    edges = np.concatenate([[surface.low], surface.low + np.cumsum(w)])
    uniform = rng.random((draws, 2))
    for at in _pieces(np.arange(draws), len(r)):
        values = log_joint(t[at], loglik[at])
        mass = np.exp(values - values.max(axis=1, keepdims=True)).cumsum(axis=1)
        cell = (mass < (uniform[at, 0] * mass[:, -1])[:, None]).sum(axis=1)
        ratio[at] = edges[cell] + uniform[at, 1] * (edges[cell + 1] - edges[cell])
    shares = _shares_of(t, ratio, target.dim)
    values = _interpolated(surface, density, t, ratio)
    c = target.components.c
    account = {
        "method": "quadrature",
        "evaluations": len(surface.nodes),
        "ess": float(draws),
        "interpolation_error_from_half": surface.error,
        "log_marginal_likelihood": density.log_integral,
    }
    return Draws(
        shares,
        np.exp(values[:, 0]),
        values[:, 1 : 1 + c],
        values[:, 1 + c :].reshape(-1, c, c),
        account,
    )


def _interpolated(
    surface: Surface, density: UnitDensity, t: np.ndarray, ratio: np.ndarray
) -> np.ndarray:
    """`Surface.conditionals` at draws of t and r."""
    known = surface.conditionals(density.x)
    out = np.empty((len(t), known.shape[2]))
    for at in _pieces(np.arange(len(t)), known[0].size):
        values = density.interpolate(known, t[at])
        out[at] = np.einsum("nj,njv->nv", surface.to(ratio[at]), values)
    return out


def make_surface(target: Target, *, progress: bool | None = None) -> Surface:
    """Nodes of the ratio, doubled until the log-likelihood between them is known."""
    if target.dim == 1:
        one = FixedRatio(target.components, np.ones(1))
        return Surface(target.components, 1.0, 1.0, np.ones(1), [one], 0.0)
    known: dict[float, FixedRatio] = {}

    def at(nodes: np.ndarray) -> list[FixedRatio]:
        new = [r for r in nodes if r not in known]
        for r in track(new, "Posterior of the shares", show=progress):
            known[r] = FixedRatio(target.components, np.array([r, 1 - r]))
        return [known[r] for r in nodes]

    t = _coarse()
    low, high = 0.0, 1.0
    for _ in range(6):
        nodes = chebyshev_extrema(low, high, _INTERVALS[0])
        first = Surface(target.components, low, high, nodes, at(nodes), np.inf)
        narrower = _range_of_mass(target, first, t)
        if narrower[1] - narrower[0] > 0.8 * (high - low):
            break
        low, high = narrower
    error = np.inf
    for intervals in _INTERVALS[1:]:
        before, nodes = nodes, chebyshev_extrema(low, high, intervals)
        surface = Surface(target.components, low, high, nodes, at(nodes), error)
        loglik = surface.loglik(t)
        density = loglik + _log_prior_of(target, t, np.clip(nodes, 1e-6, 1 - 1e-6))
        relative = np.exp(density - density.max())
        guess = loglik[:, ::2] @ barycentric(before, nodes[1::2]).T
        error = float((relative[:, 1::2] * np.abs(guess - loglik[:, 1::2])).max())
        if error < _ACCURATE:
            break
    return replace(surface, error=error)


def _range_of_mass(target: Target, surface: Surface, t: np.ndarray) -> tuple[float, float]:
    """Where the ratio's density, as far as it is known, is not negligible; a node more each way."""
    r = np.linspace(surface.low, surface.high, 401)
    inner = np.clip(r, 1e-6, 1 - 1e-6)
    values = surface.loglik(t) @ surface.to(r).T + _log_prior_of(target, t, inner)
    along = values.max(axis=0)
    inside = np.flatnonzero(along > along.max() - _BEYOND)
    margin = max(4, len(inside) // 8)
    return float(r[max(inside[0] - margin, 0)]), float(r[min(inside[-1] + margin, 400)])


def _coarse() -> np.ndarray:
    return np.concatenate([[1e-4, 1e-3], np.linspace(0.01, 0.99, 99), [0.999, 0.9999]])


def _ratio_grid(surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on panels, finer towards 0 and 1; summing to the range."""
    low, high = surface.low, surface.high
    if low == high:
        return np.array([low]), np.ones(1)
    edges = np.linspace(low, high, _PANELS + 1)
    near = np.array([1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 0.01])
    edges = np.concatenate(
        [edges, near[near < edges[1]] if low == 0 else [], 1 - near if high == 1 else []]
    )
    edges = np.unique(edges[(edges >= low) & (edges <= high)])
    nodes, weights = np.polynomial.legendre.leggauss(_ORDER)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (nodes + 1)).ravel(), (half * weights).ravel()


def _log_prior_of(target: Target, t: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Log prior density of t and r, shape (T, R): that of the shares times t."""
    T, R = len(t), len(r)
    shares = _shares_of(np.repeat(t, R), np.tile(r, T), target.dim)
    values = target.log_prior(shares)
    if target.dim > 1:
        values = values + np.log(np.repeat(t, R))
    return values.reshape(T, R)


def _shares_of(t: np.ndarray, r: np.ndarray, dim: int) -> np.ndarray:
    if dim == 1:
        return np.column_stack([t, 1 - t])
    return np.column_stack([t * r, t * (1 - r), 1 - t])


def _pieces(values: np.ndarray, width: int) -> Iterator[np.ndarray]:
    step = max(1, _CHUNK // width)
    for i in range(0, len(values), step):
        yield values[i : i + step]
