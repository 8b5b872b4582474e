r"""Bayes factor and effect of every variant, integrated over h2.

Given h2 everything is conjugate. With a = x'Px, b = x'Py and Q = y'Py of a variant (see
`bayeslmm.numerics.nodes`), an effect prior N(0, W s2) on the variant's effect, flat covariates and
1/s2, df = n - c,

    BF(h2) = (1 + W a)^(-1/2) [1 - b^2 / ((a + 1/W) Q)]^(-df/2),

and the effect has a Student-t posterior with df degrees of freedom, location b / (a + 1/W)
and squared scale (Q - b^2 / (a + 1/W)) / (df (a + 1/W)) (Servin & Stephens 2007, PLoS Genet
3:e114). Numerator and denominator are integrated over h2, each with its own mass:

    BF = sum_w prior(w) int p(h2 | y, null) BF_w(h2) dh2,

for p(y | h2, null) p(h2) / p(y | null) is the null posterior. BF(h2) is smooth in h2, whatever
the prior: the Gauss rule of the null posterior integrates it, with 10 nodes to 1e-8 for nearly
every variant. The series of BF(h2) in the posterior's orthogonal polynomials shows for which it
does not: variants that move h2. They have 24 nodes, and if the two rules do not agree, those of
composite rules over all of h2's range. Where these do not agree either, a variant has adaptive
quadrature of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bayeslmm.numerics import likelihood
from bayeslmm.numerics.quadrature import UnitDensity, composite_rule, gauss_rule, unit_density
from bayeslmm.numerics.tails import normal_deviate_of_log
from bayeslmm.priors import H2Prior

# Nodes of the two rules.
_FEW, _MANY = 10, 24
# Largest last terms of the series, relative to the first, for the few nodes to do. The error
# is about the square.
_LAST = 1e-3
# Largest difference in log BF from the few nodes to the many, for these to do.
_AGREE = 3e-3
# What a variant may have of its probability next to an end of a range.
_EDGE = -12.0
# Variants worked on at a time: their arrays stay in the processor's cache.
_CHUNK = 256
_LN10 = float(np.log(10))
COLUMNS = ("log10_bf", "post_mean", "post_sd", "lfsr")


@dataclass(frozen=True)
class Rule:
    """One of the rules that integrate over the null posterior.

    Attributes
    ----------
    points : ndarray of int, shape (F,)
        Positions of its nodes among the log ratios.
    log_weights : ndarray, shape (F,)
        Log posterior probabilities.
    last : ndarray, shape (F, 2)
        The two orthonormal polynomials of the highest degree; 0 at a point mass.
    """

    points: np.ndarray
    log_weights: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class NullPosterior:
    """The null posterior of h2 as quadratures that serve every variant.

    Attributes
    ----------
    log_ratio : ndarray, shape (G,)
        Log ratios at which variants' statistics are needed; -inf if the prior has a point mass
        at h2 = 0.
    rules : tuple of Rule
        Each with more nodes than the one before.
    log_integral : float
        Log marginal likelihood of the null model.
    ends : Rule, optional
        Points at the ends of a range that the rules do not reach beyond, with the probability
        next to them: a variant with more than e^-12 of its own there is integrated again.
    """

    log_ratio: np.ndarray
    rules: tuple[Rule, ...]
    log_integral: float
    ends: Rule | None = None


def null_posterior(
    data: likelihood.Rotated, prior: H2Prior, *, kernel: bool = True
) -> NullPosterior:
    """Rules for the null posterior of a model. Without kernel h2 is 0, and there is one node."""
    if not kernel:
        only = Rule(np.zeros(1, dtype=int), np.zeros(1), np.zeros((1, 2)))
        at_0 = float(likelihood.integrated_loglik(data, np.zeros(1))[0])
        return NullPosterior(np.array([-np.inf]), (only,), at_0)
    density = _posterior(data, prior)
    return rules_for(density.x, density.weights, density.log_integral, density.mass_at_0)


class Everywhere(NamedTuple):
    """The null posterior by rules over all of h2's range, and its likelihood at their nodes."""

    null: NullPosterior
    terms: likelihood.Terms


def everywhere(data: likelihood.Rotated, prior: H2Prior) -> Everywhere:
    """Rules for variants whose mass is elsewhere than the null model's."""
    density = _posterior(data, prior)
    middles = (density.edges[:-1] + density.edges[1:]) / 2
    halved = np.sort(np.concatenate([density.edges, middles]))
    both = [composite_rule(edges) for edges in (density.edges, halved)]
    x, weights = (np.concatenate(parts) for parts in zip(*both, strict=True))
    log_ratio = _log_ratio(x)
    h2 = 1 / (1 + np.exp(-log_ratio))
    terms = likelihood.terms(data, np.append(h2, 0.0) if density.mass_at_0 else h2)
    log_weights = np.log(weights) - density.log_integral + np.log1p(-prior.spike)
    log_weights += likelihood.integrated(terms, data.df)[: len(x)] + prior.log_density(x)
    # The first rule never does alone.
    rules = [
        Rule(at, log_weights[at], np.ones((len(at), 2)))
        for at in np.split(np.arange(len(x)), [len(both[0][0])])
    ]
    null = _with_mass_at_0(log_ratio, rules, density.mass_at_0, density.log_integral)
    return Everywhere(null, terms)


def _posterior(data: likelihood.Rotated, prior: H2Prior) -> UnitDensity:
    """The null posterior of h2."""
    return unit_density(
        lambda h2: likelihood.integrated_loglik(data, h2) + prior.log_density(h2),
        mass_at_0=prior.spike,
        log_at_0=float(likelihood.integrated_loglik(data, np.zeros(1))[0]),
    )


def rules_for(
    h2: np.ndarray, weights: np.ndarray, log_integral: float, mass_at_0: float = 0.0
) -> NullPosterior:
    """The rules from a finer one.

    Parameters
    ----------
    h2, weights : ndarray, shape (d,)
        Nodes and weights of the finer rule for the continuous part.
    log_integral : float
        Log marginal likelihood of the null model.
    mass_at_0 : float
        Posterior probability of h2 = 0.
    """
    log_ratio, rules = np.empty(0), []
    for number in (_FEW, _MANY):
        rule = gauss_rule(h2, weights, number)
        points = len(log_ratio) + np.arange(number)
        log_ratio = np.append(log_ratio, _log_ratio(rule.nodes))
        with np.errstate(divide="ignore"):
            log_weights = np.log(rule.weights) + np.log1p(-mass_at_0)
        rules.append(Rule(points, log_weights, rule.polynomials[-2:].T))
    return _with_mass_at_0(log_ratio, rules, mass_at_0, log_integral)


def _log_ratio(h2: np.ndarray) -> np.ndarray:
    """Log variance ratios of h2, finite up to both ends."""
    h2 = np.clip(h2, 1 - likelihood.LARGEST_H2, likelihood.LARGEST_H2)
    return np.log(h2) - np.log1p(-h2)


def _with_mass_at_0(
    log_ratio: np.ndarray, rules: list[Rule], mass_at_0: float, log_integral: float
) -> NullPosterior:
    """Rules for the continuous part, and h2 = 0 where it has a probability of its own."""
    if mass_at_0:
        at = len(log_ratio)
        log_ratio = np.append(log_ratio, -np.inf)
        rules = [
            Rule(
                np.append(rule.points, at),
                np.append(rule.log_weights, np.log(mass_at_0)),
                np.vstack([rule.last, np.zeros(2)]),
            )
            for rule in rules
        ]
    return NullPosterior(log_ratio, tuple(rules), log_integral)


def integrate[T](
    null: NullPosterior, n: int, at: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, T]]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, T, np.ndarray]]:
    """Integrate the Bayes factors of n variants over h2, each with as many nodes as it needs.

    Parameters
    ----------
    null : NullPosterior
    n : int
        Number of variants.
    at : callable
        For rows (v,) and points (F,) their log Bayes factors given h2 and the width of the
        effect, plus the log prior of the width, (v, W, F), and anything else.

    Yields
    ------
    rows : ndarray of int, shape (v,)
        Some variants; those that need more nodes than a rule has come again.
    log_bf : ndarray, shape (v,)
        Their integrated log Bayes factors.
    p : ndarray, shape (v, W, F)
        Posterior probabilities of the widths and nodes.
    more : T
        What else `at` gave.
    unsure : ndarray of bool, shape (v,)
        Which of them no rule is good enough for.
    """
    for start in range(0, n, _CHUNK):
        rows, before = np.arange(start, min(start + _CHUNK, n)), None
        for number, rule in enumerate(null.rules):
            joint, more = at(rows, rule.points)
            joint += rule.log_weights
            top = joint.max(axis=(1, 2), keepdims=True)
            joint -= top
            p = np.exp(joint, out=joint)
            total = p.sum(axis=(1, 2), keepdims=True)
            p /= total
            log_bf = (top + np.log(total))[:, 0, 0]
            if before is None:
                last = np.abs(p.sum(axis=1) @ rule.last).max(axis=1)
                unsure = ~(last <= _LAST)
            else:
                unsure = ~(np.abs(log_bf - before) <= _AGREE)
            if null.ends is not None:
                beyond = at(rows, null.ends.points)[0] + null.ends.log_weights
                unsure |= ~(beyond.max(axis=(1, 2)) - log_bf <= _EDGE)
            final = number + 1 == len(null.rules)
            yield rows, log_bf, p, more, unsure & final
            if not unsure.any():
                break
            rows, before = rows[unsure], log_bf[unsure]


class _Conjugate(NamedTuple):
    """Effect posteriors at nodes of h2, each array (v, W, F) for v variants and W widths.

    Attributes
    ----------
    log_bf : ndarray
        Log Bayes factor given h2 and the width.
    mean, variance : ndarray
        Moments of the effect.
    z : ndarray
        Normal deviate of the Student-t probability that the effect is not positive.
    """

    log_bf: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    z: np.ndarray


def _conjugate(
    a: np.ndarray, b: np.ndarray, Q: np.ndarray, width: np.ndarray, df: int
) -> _Conjugate:
    """Effects given h2: a, b (v, F), Q (F,), prior variances over that of a unit, (v, W, F)."""
    k = width * a[:, None, :]
    log_bf = np.log1p(k)
    shrink = np.divide(k, 1 + k, out=k)
    share = np.minimum(shrink * (b * b / (a * Q))[:, None, :], 1 - 1e-15)
    log_rest = np.log1p(-share)
    log_bf += df * log_rest
    log_bf *= -0.5
    # Of Student's t with df degrees of freedom, t^2 / df is share / (1 - share).
    z = np.copysign(normal_deviate_of_log(-log_rest, df), b[:, None, :])
    variance = np.subtract(1, share, out=share)
    variance *= shrink
    variance *= (Q / ((df - 2) * a))[:, None, :] if df > 2 else np.inf
    mean = shrink * (b / a)[:, None, :]
    return _Conjugate(log_bf, mean, variance, z)


def columns(
    null: NullPosterior,
    a: np.ndarray,
    b: np.ndarray,
    Q: np.ndarray,
    width: np.ndarray,
    log_prior: np.ndarray,
    df: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Bayes factor and effect of each variant, and which must be integrated again.

    Parameters
    ----------
    null : NullPosterior
        Its log ratios are those of the statistics.
    a, b : ndarray, shape (v, G)
        x'Px and x'Py with weights 1 / (r s + 1).
    Q : ndarray, shape (G,)
        y'Py with those weights.
    width : ndarray, shape (v, W)
        Prior variances of the effect, over the total variance.
    log_prior : ndarray, shape (W,)
        Log prior probabilities of the widths.
    df : int
        n - c.

    Returns
    -------
    dict of ndarray, shape (v,)
        log10_bf, post_mean, post_sd, lfsr.
    ndarray of bool, shape (v,)
        Variants for which no rule is good enough.
    """
    found = {name: np.empty(len(a)) for name in COLUMNS}
    again = np.zeros(len(a), dtype=bool)
    to_total = 1 + np.exp(null.log_ratio)

    def at(rows: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, _Conjugate]:
        here = np.ix_(rows, points)
        scaled = width[rows, :, None] * to_total[points]
        effects = _conjugate(a[here], b[here], Q[points], scaled, df)
        return effects.log_bf + log_prior[:, None], effects

    for rows, log_bf, p, effects, unsure in integrate(null, len(a), at):
        again[rows] = unsure
        found["log10_bf"][rows] = log_bf / _LN10
        for name, values in _moments(p, effects).items():
            found[name][rows] = values
    return found, again


def _moments(p: np.ndarray, at: _Conjugate) -> dict[str, np.ndarray]:
    """Mean, sd and local false sign rate of mixtures of effects."""
    from scipy.special import ndtr

    mean = np.einsum("vwf,vwf->v", p, at.mean)
    second = np.einsum("vwf,vwf->v", p, at.variance + at.mean * at.mean)
    sign = np.where(mean < 0, -1.0, 1.0)[:, None, None]
    wrong = np.einsum("vwf,vwf->v", p, ndtr(-sign * at.z))
    return {
        "post_mean": mean,
        "post_sd": np.sqrt(np.maximum(second - mean**2, 0)),
        "lfsr": np.minimum(wrong, 1 - wrong),
    }


def columns_everywhere(
    data: likelihood.Rotated,
    prior: H2Prior,
    rules: Everywhere,
    x: np.ndarray,
    width: np.ndarray,
    log_prior: np.ndarray,
) -> dict[str, np.ndarray]:
    """`columns` of rotated variants (v, n) by the rules of `everywhere`.

    A variant for which these do not do has adaptive quadrature of its own.
    """
    null, terms = rules
    h2 = 1 / (1 + np.exp(-null.log_ratio))
    a, b = _statistics(data, x, h2, terms)
    # From weights 1 / ((1 - h2) (r s + 1)) to 1 / (r s + 1).
    unit = 1 - h2
    found, again = columns(null, a * unit, b * unit, terms.Q * unit, width, log_prior, data.df)
    for j in np.flatnonzero(again):
        own = adaptive_columns(data, prior, null.log_integral, x[j], width[j], log_prior)
        for name, value in own.items():
            found[name][j] = value
    return found


def _statistics(
    data: likelihood.Rotated, x: np.ndarray, h2: np.ndarray, terms: likelihood.Terms
) -> tuple[np.ndarray, np.ndarray]:
    """x'Px and x'Py of rotated variants x (v, n), each by itself, at each h2: two arrays (v, G)."""
    a, b = np.empty((len(x), len(h2))), np.empty((len(x), len(h2)))
    squares = x * x
    for at, w in likelihood.weight_blocks(data, h2):
        with_C = np.stack([x @ (w * column).T for column in data.C.T], axis=-1)
        half = np.linalg.solve(terms.L[at], with_C.transpose(1, 2, 0))
        a[:, at] = squares @ w.T - np.square(half).sum(axis=1).T
        w *= data.y - terms.b[at] @ data.C.T
        b[:, at] = x @ w.T
    return a, b


def adaptive_columns(
    data: likelihood.Rotated,
    prior: H2Prior,
    log_null: float,
    x: np.ndarray,
    width: np.ndarray,
    log_prior: np.ndarray,
) -> dict[str, float]:
    """The same for one rotated variant (n,), by adaptive quadrature of its own over h2.

    `log_null` is the log marginal likelihood of the null model.
    """

    def conjugate(h2: np.ndarray) -> tuple[np.ndarray, _Conjugate]:
        """Log-likelihood without the variant, and its effect, at each h2."""
        terms = likelihood.terms(data, h2)
        a, b = _statistics(data, x[None], h2, terms)
        widths = np.broadcast_to(width[None, :, None], (1, len(width), len(h2)))
        return likelihood.integrated(terms, data.df), _conjugate(a, b, terms.Q, widths, data.df)

    def loglik(h2: np.ndarray) -> np.ndarray:
        without, effect = conjugate(h2)
        return without + np.logaddexp.reduce(effect.log_bf[0] + log_prior[:, None])

    density = unit_density(
        lambda h2: loglik(h2) + prior.log_density(h2),
        mass_at_0=prior.spike,
        log_at_0=float(loglik(np.zeros(1))[0]),
    )
    _, at = conjugate(np.append(density.x, 0.0))
    by_width = at.log_bf + log_prior[:, None]
    p = np.exp(by_width - np.logaddexp.reduce(by_width, axis=1, keepdims=True))
    p = p * np.append(density.weights * (1 - density.mass_at_0), density.mass_at_0)
    found = {"log10_bf": (density.log_integral - log_null) / _LN10}
    return found | {name: float(v[0]) for name, v in _moments(p, at).items()}
