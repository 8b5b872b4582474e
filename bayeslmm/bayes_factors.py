r"""Bayes factor and effect of every variant, integrated over h2.

Given h2 everything is conjugate. With a = x'Px, b = x'Py and Q = y'Py of a variant (see
`bayeslmm.nodes`), an effect prior N(0, W s2) on the variant's effect, flat covariates and
1/s2, df = n - c,

    BF(h2) = (1 + W a)^(-1/2) [1 - b^2 / ((a + 1/W) Q)]^(-df/2),

and the effect has a Student-t posterior with df degrees of freedom, location b / (a + 1/W)
and squared scale (Q - b^2 / (a + 1/W)) / (df (a + 1/W)) (Servin & Stephens 2007, PLoS Genet
3:e114). Numerator and denominator are integrated over h2, each with its own mass:

    BF = sum_w prior(w) int p(h2 | y, null) BF_w(h2) dh2,

for p(y | h2, null) p(h2) / p(y | null) is the null posterior. log BF(h2) is smooth in the log
ratio: it is interpolated from Chebyshev nodes to a finer quadrature over all that the null
posterior does not exclude by e^18. A variant that moves h2 out of even that range is
integrated again, adaptively and without interpolation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bayeslmm import likelihood
from bayeslmm.effects import snp_terms
from bayeslmm.nodes import HALF_WIDTH, cardinal, chebyshev, nodes_for
from bayeslmm.priors import H2Prior
from bayeslmm.quadrature import unit_density
from bayeslmm.tails import normal_deviate

# Log ratios that nodes cover, as in the search for the optimum; beyond, h2 is 0 or 1 to 1e-5.
LOG_RANGE = (float(np.log(1e-5)), float(np.log(1e5)))
_POINTS, _POINT_WEIGHTS = np.polynomial.legendre.leggauss(32)
# Where the null density is lower than its peak by this, it is out of range.
_RANGE_DROP = 18.0
# What a variant's density at an end of the range may be, relative to its peak.
_EDGE = -12.0
_WITHIN = 1e-7
# Points where no variant of a chunk has more probability than this play no part in signs.
_NEGLIGIBLE = 1e-9
# Variants worked on at a time: their arrays stay in the processor's cache.
_CHUNK = 256
_LN10 = float(np.log(10))
COLUMNS = ("log10_bf", "post_mean", "post_sd", "lfsr")


@dataclass(frozen=True)
class NullPosterior:
    """The null posterior of h2 as a quadrature that serves every variant.

    Attributes
    ----------
    log_ratio : ndarray, shape (G,)
        Log ratios at which variants' statistics are needed: Chebyshev nodes, then -inf if
        the prior has a point mass at h2 = 0.
    to_points : ndarray, shape (G, F)
        Takes a smooth function's values there to the points of the quadrature.
    log_weights : ndarray, shape (F,)
        Log posterior probability of each point under the null model.
    ends : ndarray of int
        Points at ends of the range beyond which a variant may have more mass.
    log_integral : float
        Log marginal likelihood of the null model.
    middle, half_width : float
        Of the nodes' range.
    """

    log_ratio: np.ndarray
    to_points: np.ndarray
    log_weights: np.ndarray
    ends: np.ndarray
    log_integral: float
    middle: float
    half_width: float


def null_posterior(
    data: likelihood.Rotated, prior: H2Prior, center: float, *, kernel: bool = True
) -> NullPosterior:
    """Choose the nodes: all that the null density does not exclude, `center` well inside.

    Without kernel h2 is 0, and there is one node.
    """
    at_0 = float(likelihood.integrated_loglik(data, np.zeros(1))[0])
    if not kernel:
        one = np.zeros(1)
        return NullPosterior(one - np.inf, np.eye(1), one, np.empty(0, dtype=int), at_0, 0, 0)

    def log_density(t: np.ndarray) -> np.ndarray:
        h2 = 1 / (1 + np.exp(-t))
        jacobian = t - 2 * np.logaddexp(0, t)
        return likelihood.integrated_loglik(data, h2) + prior.log_density(h2) + jacobian

    exact = unit_density(
        lambda h2: likelihood.integrated_loglik(data, h2) + prior.log_density(h2),
        mass_at_0=prior.spike,
        log_at_0=at_0,
    ).log_integral
    low, high = _range(log_density, center)
    left, right = min(low, center - HALF_WIDTH), max(high, center + HALF_WIDTH)
    middle, half_width = (left + right) / 2, (right - left) / 2
    number = 1 + nodes_for(half_width, _WITHIN)
    slab = np.log1p(-prior.spike) - exact
    end_t, end_weights = _end_points(data, prior, at_low=low, at_high=high)
    pieces = 1
    while True:
        edges = np.linspace(low, high, pieces + 1)
        half = np.diff(edges)[:, None] / 2
        t = (edges[:-1, None] + half * (_POINTS + 1)).ravel()
        weights = np.log(half * _POINT_WEIGHTS).ravel() + log_density(t)
        weights = np.append(weights, end_weights) + slab
        spike = np.log(prior.spike) + at_0 - exact if prior.spike else -np.inf
        error = np.logaddexp(np.logaddexp.reduce(weights), spike)
        # Corners of a prior need more points; beyond that the integral is what it is.
        if abs(error) < 5 * _WITHIN or pieces == 128:
            break
        pieces *= 2
    points = np.append(t, end_t)
    ends = [np.argmin(t)] * (low > LOG_RANGE[0]) + [np.argmax(t)] * (high < LOG_RANGE[1])
    to_points = cardinal(np.clip((points - middle) / half_width, -1, 1), number).T
    nodes = middle + half_width * chebyshev(number)
    if prior.spike:
        nodes, weights = np.append(nodes, -np.inf), np.append(weights, spike)
        to_points = _with_own_point(to_points)
    return NullPosterior(
        nodes, to_points, weights, np.array(ends, dtype=int), exact, middle, half_width
    )


def _with_own_point(matrix: np.ndarray) -> np.ndarray:
    """The matrix with one more row and column for a node that is its own point."""
    out = np.zeros((matrix.shape[0] + 1, matrix.shape[1] + 1))
    out[:-1, :-1], out[-1, -1] = matrix, 1
    return out


def _range(log_density: Callable[[np.ndarray], np.ndarray], center: float) -> tuple[float, float]:
    """Ends of what the density does not exclude, seen on a grid that is finer at `center`."""
    t = np.unique(
        np.concatenate([np.linspace(*LOG_RANGE, 231), center + np.linspace(-1.5, 1.5, 201)])
    )
    t = t[(t >= LOG_RANGE[0]) & (t <= LOG_RANGE[1])]
    values = log_density(t)
    inside = np.flatnonzero(values > values.max() - _RANGE_DROP)
    return float(t[max(inside[0] - 1, 0)]), float(t[min(inside[-1] + 1, len(t) - 1)])


def _end_points(
    data: likelihood.Rotated, prior: H2Prior, *, at_low: float, at_high: float
) -> tuple[np.ndarray, np.ndarray]:
    """One point for all h2 below the range, one for all above: log ratio, log mass."""
    reached = [at_low <= LOG_RANGE[0], at_high >= LOG_RANGE[1]]
    if not any(reached):
        return np.empty(0), np.empty(0)
    h2 = 1 / (1 + np.exp(-np.array(LOG_RANGE)))
    below = unit_density(prior.log_density).cdf(h2)
    mass = np.array([below[0], 1 - below[1]])
    with np.errstate(divide="ignore"):
        log_mass = np.log(np.maximum(mass, 0)) + likelihood.integrated_loglik(data, h2)
    return np.array(LOG_RANGE)[reached], log_mass[reached]


@dataclass(frozen=True)
class _Conjugate:
    """Effect posteriors at nodes of h2, each array (v, W, G) for v variants and W widths.

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
    """Effects given h2: a, b (v, G), Q (G,), prior variances over that of a unit, (v, W, G)."""
    k = width * a[:, None, :]
    shrink = k / (1 + k)
    share = np.minimum(shrink * (b * b / (a * Q))[:, None, :], 1 - 1e-15)
    log_rest = np.log1p(-share)
    scale2 = (1 - share) * (shrink * (Q / (df * a))[:, None, :])
    mean = shrink * (b / a)[:, None, :]
    variance = scale2 * (df / (df - 2) if df > 2 else np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = normal_deviate(np.nan_to_num(mean / np.sqrt(scale2)), df)
    return _Conjugate(-0.5 * (np.log1p(k) + df * log_rest), mean, variance, z)


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
        Its nodes are those of the statistics.
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
        Variants with mass beyond the range.
    """
    found = {name: np.empty(len(a)) for name in COLUMNS}
    beyond = np.zeros(len(a), dtype=bool)
    to_total = 1 + np.exp(null.log_ratio)
    for start in range(0, len(a), _CHUNK):
        rows = slice(start, start + _CHUNK)
        at = _conjugate(a[rows], b[rows], Q, width[rows, :, None] * to_total, df)
        joint = at.log_bf @ null.to_points + null.log_weights + log_prior[:, None]
        top = joint.max(axis=(1, 2), keepdims=True)
        beyond[rows] = outside_range(null, joint)
        p = np.exp(joint - top)
        total = p.sum(axis=(1, 2), keepdims=True)
        p /= total
        found["log10_bf"][rows] = (top + np.log(total))[:, 0, 0] / _LN10
        # Moments are linear: the points' probabilities are carried back to the nodes.
        at_nodes = p @ null.to_points.T
        heavy = (p > _NEGLIGIBLE).any(axis=(0, 1))
        moments = _moments(at_nodes, at, p[..., heavy], at.z @ null.to_points[:, heavy])
        for name, values in moments.items():
            found[name][rows] = values
    return found, beyond


def outside_range(null: NullPosterior, log_joint: np.ndarray) -> np.ndarray:
    """Which variants have mass beyond the range, from log p (v, W, F) at its points: (v,)."""
    top = log_joint.max(axis=(1, 2), keepdims=True)
    return (log_joint[..., null.ends] - top > _EDGE).any(axis=(1, 2))


def _moments(
    p: np.ndarray, at: _Conjugate, p_points: np.ndarray, z: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean, sd and local false sign rate of mixtures of effects."""
    from scipy.special import ndtr

    mean = (p * at.mean).sum(axis=(1, 2))
    second = (p * (at.variance + at.mean**2)).sum(axis=(1, 2))
    sign = np.where(mean < 0, -1.0, 1.0)[:, None, None]
    wrong = (p_points * ndtr(-sign * z)).sum(axis=(1, 2))
    return {
        "post_mean": mean,
        "post_sd": np.sqrt(np.maximum(second - mean**2, 0)),
        "lfsr": np.minimum(wrong, 1 - wrong),
    }


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

    def conjugate(h2: np.ndarray) -> _Conjugate:
        terms = snp_terms(data, x[:, None], h2)
        widths = np.broadcast_to(width[None, :, None], (1, len(width), len(h2)))
        return _conjugate(
            terms.M[:, 0, 0][None], terms.r[:, 0][None], terms.null.Q, widths, data.df
        )

    def averaged(h2: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduce(conjugate(h2).log_bf[0] + log_prior[:, None])

    density = unit_density(
        lambda h2: likelihood.integrated_loglik(data, h2) + prior.log_density(h2) + averaged(h2),
        mass_at_0=prior.spike,
        log_at_0=float(
            (likelihood.integrated_loglik(data, np.zeros(1)) + averaged(np.zeros(1)))[0]
        ),
    )
    h2 = np.append(density.x, 0.0)
    at = conjugate(h2)
    by_width = at.log_bf + log_prior[:, None]
    p = np.exp(by_width - np.logaddexp.reduce(by_width, axis=1, keepdims=True))
    p = p * np.append(density.weights * (1 - density.mass_at_0), density.mass_at_0)
    found = {"log10_bf": (density.log_integral - log_null) / _LN10}
    return found | {name: float(v[0]) for name, v in _moments(p, at, p, at.z).items()}
