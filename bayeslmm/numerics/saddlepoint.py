r"""Tail probabilities of a score of independent case/control labels, by saddlepoint.

The score of a variant, s = sum x_i (y_i - mu_i) with y_i Bernoulli(mu_i), is far from normal
where cases are few: its cumulant generating function

    K(t) = sum log(1 - mu_i + mu_i exp(t x_i)) - t x_i mu_i

is known, and with t^ the root of K'(t) = s

    P(S >= s) = 1 - Phi(w + log(v / w) / w),
    w = sign(t) sqrt(2 (t s - K(t))),   v = t sqrt(K''(t)).

References
----------
Dey R et al. (2017). A fast and accurate algorithm to test for binary phenotypes and its
application to PheWAS. Am J Hum Genet 101:37. doi:10.1016/j.ajhg.2017.05.014
Barndorff-Nielsen OE (1990). Approximate interval probabilities. J R Stat Soc B 52:485.
"""

from __future__ import annotations

import numpy as np

_LN10 = np.log(10)
_PIECE = 2**16
_STEPS = 60
# Where the root is this close to 0 the formula is 0/0, and the normal tail as good.
_SMALL = 1e-4


def log10_p_two_sided(
    x: np.ndarray,
    mu: np.ndarray,
    score: np.ndarray,
    rest: np.ndarray | float = 0.0,
) -> np.ndarray:
    """log10 P(|S| >= |score|), both tails by saddlepoint.

    Parameters
    ----------
    x : ndarray, shape (v, k)
        What each sample's label adds to the score; 0 adds nothing.
    mu : ndarray, shape (k,) or (v, k)
        Probabilities of being a case.
    score : ndarray, shape (v,)
    rest : float or ndarray, shape (v,)
        Variance of further, normal parts of the score.

    Examples
    --------
    Ten cases are expected among a thousand, and 20 are seen (half a step less: the formula is
    for continuous scores). Both binomial tails are 0.0033, the normal ones 0.0025.

    >>> import numpy as np
    >>> p = 10 ** log10_p_two_sided(np.ones((1, 1000)), np.full(1000, 0.01), np.array([9.5]))
    >>> p.round(4)
    array([0.0034])
    """
    v, k = x.shape
    out = np.empty(v)
    rest = np.broadcast_to(np.asarray(rest, dtype=np.float64), (v,))
    step = max(1, _PIECE // max(k, 1))
    for i in range(0, v, step):
        rows = slice(i, i + step)
        labels = mu if mu.ndim == 1 else mu[rows]
        size = np.abs(score[rows])
        tails = [_log_tail(sign * x[rows], labels, size, rest[rows]) for sign in (1.0, -1.0)]
        out[rows] = np.minimum(np.logaddexp(*tails), 0) / _LN10
    return out


def _log_tail(x: np.ndarray, mu: np.ndarray, s: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """log P(S >= s) for s >= 0, shape (v,)."""
    from scipy.special import log_ndtr

    mean = (x * mu).sum(axis=1)
    most = np.maximum(x, 0).sum(axis=1) - mean
    bounded = rest <= 0
    slack = 1e-9 * np.maximum(most, 1e-300)
    beyond, at_most = bounded & (s > most + slack), bounded & (np.abs(s - most) <= slack)
    inside = ~(beyond | at_most)
    out = np.full(len(s), -np.inf)
    if at_most.any():
        labels = mu if mu.ndim == 1 else mu[at_most]
        here = x[at_most]
        chance = np.where(here > 0, np.log(labels), np.where(here < 0, np.log1p(-labels), 0))
        out[at_most] = chance.sum(axis=1)
    if inside.any():
        labels = mu if mu.ndim == 1 else mu[inside]
        t, value, curvature = _root(x[inside], labels, s[inside], rest[inside], mean[inside])
        w = np.sqrt(np.maximum(2 * (t * s[inside] - value), 0))
        v = t * np.sqrt(curvature)
        near = w < _SMALL
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(near, v, w + np.log(v / w) / w)
        out[inside] = log_ndtr(-z)
    return out


def _cumulants(
    x: np.ndarray, mu: np.ndarray, t: np.ndarray, rest: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K, K' and K'' at t, each of shape (v,)."""
    z = t[:, None] * x
    positive = z > 0
    small = np.exp(-np.abs(z))
    # exp(K) = 1 - mu + mu exp(z) with the larger exponential taken out.
    first = np.where(positive, mu, 1 - mu)
    total = first + (1 - first) * small
    value = (np.maximum(z, 0) + np.log(total)).sum(axis=1) - t * mean + 0.5 * rest * t * t
    tilted = np.where(positive, mu, mu * small) / total
    slope = (x * tilted).sum(axis=1) - mean + rest * t
    curvature = (x * x * tilted * (1 - tilted)).sum(axis=1) + rest
    return value, slope, curvature


def _root(
    x: np.ndarray, mu: np.ndarray, s: np.ndarray, rest: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t >= 0 with K'(t) = s, and K and K'' there: Newton steps inside a bracket."""
    v = len(s)
    low, high = np.zeros(v), np.full(v, np.inf)
    value, _, curvature = _cumulants(x, mu, low, rest, mean)
    t = s / curvature
    active = np.arange(v)
    for _ in range(_STEPS):
        labels = mu if mu.ndim == 1 else mu[active]
        K, d1, d2 = _cumulants(x[active], labels, t[active], rest[active], mean[active])
        value[active], curvature[active] = K, d2
        off = d1 - s[active]
        found = np.abs(off) < 1e-9 * np.maximum(s[active], np.sqrt(np.maximum(d2, 1e-300)))
        below = off < 0
        low[active[below]] = t[active[below]]
        high[active[~below]] = t[active[~below]]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            new = t[active] - off / d2
            middle = np.where(
                np.isinf(high[active]), 2 * t[active] + 1e-8, 0.5 * (low[active] + high[active])
            )
        outside = ~((new > low[active]) & (new < high[active]) & (new < 4 * t[active] + 1e-8))
        new = np.where(outside, middle, new)
        t[active] = np.where(found, t[active], new)
        active = active[~found]
        if not len(active):
            break
    return t, value, curvature


def carriers(x: np.ndarray, eaf: np.ndarray) -> np.ndarray:
    """Which samples have another dosage than the commoner homozygote's, shape (v, n).

    Parameters
    ----------
    x : ndarray, shape (v, n)
        Centred dosages.
    eaf : ndarray, shape (v,)
        Frequency of the effect allele.
    """
    common = np.where(eaf > 0.5, 2.0, 0.0) - 2 * eaf
    return np.abs(x - common[:, None]) > 1e-4


def log10_p_by_carriers(
    x: np.ndarray, mu: np.ndarray, score: np.ndarray, carrier: np.ndarray
) -> np.ndarray:
    """The same with the part of the score of everybody else taken as normal.

    For rare variants: what the covariates have left of the others' dosages is small and
    of many, while a carrier may decide. Costs as much as there are carriers.

    Parameters
    ----------
    x : ndarray, shape (v, n)
        What each sample's label adds to the score.
    mu : ndarray, shape (n,)
    score : ndarray, shape (v,)
    carrier : ndarray of bool, shape (v, n)
    """
    counts = carrier.sum(axis=1)
    rest = np.einsum("ij,ij,j->i", x, np.where(carrier, 0.0, x), mu * (1 - mu))
    # Carriers first, in columns of equal number; the places behind them add nothing.
    order = np.argsort(~carrier, axis=1, kind="stable")[:, : counts.max(initial=1)]
    inside = np.arange(order.shape[1]) < counts[:, None]
    some = np.where(inside, np.take_along_axis(x, order, axis=1), 0.0)
    return log10_p_two_sided(some, mu[order], score, rest)
