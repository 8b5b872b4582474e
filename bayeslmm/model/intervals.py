r"""Confidence intervals for h2 that cover at every h2, 0 and 1 included, by inverting tests.

Of y only its nu = n - c independent contrasts depend on h2: with lam the eigenvalues of PKP over
kappa, P the projection off the covariates, they are normal with variances s2 d,
d = 1 + h2 (lam - 1). What follows needs lam and the likelihood, nothing else. An interval is the
set of h2 that a test does not reject; it covers as often as the test accepts the truth.

"rlrt", the default: the restricted likelihood ratio 2 [max l - l(h2)]. Its distribution at
each h2 follows from lam alone (Crainiceanu & Ruppert 2004, J R Stat Soc B 66:165) and is
simulated: thousands of phenotypes at all nodes of h2 are one matrix product. It is never empty,
for the estimate is always in it.

"score": the score of h2 is, up to known terms, the ratio

    T(h2) = sum a w / sum w,   a = (lam - 1) / d,   w = z^2 / d,

and at the true h2 the w are independent chi-squared with 1 degree of freedom (times s2):
P(T <= t) = P(sum (a - t) w <= 0), a sum of chi-squared variables whose distribution function is a
one-dimensional integral (Imhof 1961). Exact and without random numbers, but wider: far from the
estimate a score has little power, most of all if a few samples are almost identical.

For one variance ratio Burch & Iyer (1997, Biometrics 53:1318) inverted exact tests; ALBI
(Schweiger et al. 2016, Am J Hum Genet 98:1181) and FIESTA (2018, J Comput Biol 25:794) invert
the distribution of the REML estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.likelihood import Rotated
from bayeslmm.numerics.maximum import maximise_h2
from bayeslmm.runs.memory import require_memory

type Method = Literal["rlrt", "score", "reml"]

# Nearest to 1 that an interval is searched: with K singular the likelihood diverges at 1.
TOP = 1 - 1e-6
# Up to here traces have digits enough for the information.
_FAR_FROM_1 = 1 - 1e-4
# Between neighbouring nodes, in standard errors of h2, and finer nodes between them.
_STEP, _FINER = 0.5, 8
_FEWEST, _MOST = 25, 600
# The integral of a distribution function: step and end in x, u = sinh(x).
_INTEGRAL_STEP, _INTEGRAL_END = 0.15, 46.0
# True values of h2 at which the likelihood ratio is simulated; between them it is interpolated.
_SIMULATED = 33
# Phenotypes simulated for its critical values, in pieces that bound memory.
NULLS, _PIECE = 5000, 1000


def contrast_eigenvalues(data: Rotated) -> np.ndarray:
    """Eigenvalues of PKP over kappa without the c zeros of the covariates, ascending, (n - c,).

    With the intercept as the only covariate, and K centred, they are those of K. Else a
    matrix of n x n is decomposed (without eigenvectors).
    """
    s, C = data.s, data.C
    c = C.shape[1]
    if c == 0:
        return np.sort(np.maximum(s, 0.0))
    if c == 1:
        j = int(np.argmax(np.abs(C[:, 0])))
        if abs(C[j, 0]) > 1 - 1e-9 and s[j] < 1e-9:
            return np.sort(np.maximum(np.delete(s, j), 0.0))
    require_memory(
        24.0 * data.n**2,
        f"Exact tests and confidence intervals for h2 (not the posterior, h2_posterior().hdi()): "
        f"the eigenvalues of {data.n:,} samples given covariates",
    )
    SC = s[:, None] * C
    cross = C @ SC.T
    # The covariates' own c eigenvalues are moved from 0 to -1, to be told from those of PKP.
    M = C @ (C.T @ SC - np.eye(c)) @ C.T - cross - cross.T
    M[np.diag_indices(data.n)] += s
    return np.maximum(np.linalg.eigvalsh(M)[c:], 0.0)


def variances(lam: np.ndarray, h2: np.ndarray | float) -> np.ndarray:
    """d = 1 + h2 (lam - 1) of each contrast at each h2 (...): shape (..., nu)."""
    h2 = np.minimum(np.asarray(h2, dtype=np.float64), likelihood.LARGEST_H2)[..., None]
    return np.maximum(1.0 + h2 * (lam - 1.0), 1.0 - h2)


def information(lam: np.ndarray, h2: np.ndarray | float) -> np.ndarray:
    r"""Expected information on h2, s2 unknown: 1/2 [ sum a^2 - (sum a)^2 / nu ], shape (...).

    a = (lam - 1) / d. Its inverse root is the standard error of h2 in large samples; at
    h2 = 0 it is sqrt(2 / (nu var lam)), that of Visscher et al. (2014, PLoS Genet
    10:e1004269).
    """
    a = (lam - 1.0) / variances(lam, h2)
    return 0.5 * np.square(a - a.mean(axis=-1, keepdims=True)).sum(axis=-1)


def restricted_information(data: Rotated, h2: float) -> float:
    r"""`information` without the eigenvalues of contrasts, in O(n c^2) time and O(n c) memory.

    With P as in `numerics.likelihood` and M = diag(s - 1) the sums over contrasts are traces,
    sum a = tr PM and sum a^2 = tr PMPM. Digits are lost where h2 is next to 1.
    """
    m, C = data.s - 1.0, data.C
    w = 1.0 / (1.0 + h2 * m)
    a = m * w
    weighted = C * w[:, None]
    A = C.T @ weighted
    once = np.linalg.solve(A, weighted.T @ (weighted * m[:, None]))
    twice = np.linalg.solve(A, weighted.T @ (weighted * (m * a)[:, None]))
    total = a.sum() - np.trace(once)
    squares = a @ a - 2 * np.trace(twice) + np.sum(once * once.T)
    return float(0.5 * (squares - total**2 / data.df))


def expected_se(lam: np.ndarray, h2: np.ndarray | float) -> np.ndarray:
    """Standard error of h2 from the eigenvalues alone; infinite where they are all equal."""
    with np.errstate(divide="ignore"):
        return 1.0 / np.sqrt(information(lam, h2))


# -- the exact score test ------------------------------------------------------------------


def chi2_sum_below_0(c: np.ndarray) -> float:
    r"""P(sum c_i X_i <= 0) for independent X_i ~ chi-squared(1), c (nu,) of any sign.

    Imhof's integral, 1/2 - 1/pi int_0^inf sin(theta(u)) / (u rho(u)) du with
    theta = 1/2 sum arctan(c u), log rho = 1/4 sum log(1 + c^2 u^2), by the trapezoidal rule
    after u = sinh(x): the integrand is even and analytic, so the rule converges
    exponentially, and the slow ends of few large c are reached.

    References
    ----------
    Imhof JP (1961). Computing the distribution of quadratic forms in normal variables.
    Biometrika 48:419. doi:10.1093/biomet/48.3-4.419

    Examples
    --------
    >>> print(f"{chi2_sum_below_0(np.array([1.0, 1.0, -1.0, -1.0])):.6f}")
    0.500000
    """
    if (c >= 0).all() or (c <= 0).all():
        return float(not (c > 0).any())
    c = c / np.sqrt(2 * (c @ c))
    total = 0.25 * c.sum()  # half of the integrand at u = 0
    # The further 0 is out in a tail, the faster the integrand oscillates.
    step = _INTEGRAL_STEP / (1 + abs(c.sum()) / 3)
    x = np.arange(step, _INTEGRAL_END, step)
    piece = max(4, 2**16 // len(c))
    for i in range(0, len(x), piece):
        u = np.sinh(x[i : i + piece])
        cu = np.multiply.outer(u, c)
        theta = 0.5 * np.arctan(cu).sum(axis=1)
        np.square(cu, out=cu)
        log_rho = 0.25 * np.log1p(cu, out=cu).sum(axis=1)
        total += (np.sin(theta) * np.exp(-log_rho) * np.cosh(x[i : i + piece]) / u).sum()
        if log_rho[-1] > 36:  # below 1e-15
            break
    return float(np.clip(0.5 - step * total / np.pi, 0.0, 1.0))


class ScoreTest:
    """The exact two-sided score test of each h2, for one set of eigenvalues.

    The error alpha is split between the tails. Where h2 is well inside [0, 1], half goes to
    each. At h2 = 0 only a high score rejects, at h2 = 1 only a low one: what lies beyond is
    impossible, and no interval is empty. In between, the share of low scores is
    (1 - p0) / (2 - p0 - p1), where p0 is the probability that the likelihood falls from 0
    on, P(score at 0 <= 0 | h2), over its value at h2 = 0, and p1 likewise at 1. The split
    depends on the eigenvalues only, not on the data: coverage is exact for any.

    Parameters
    ----------
    lam : ndarray, shape (nu,)
        What `contrast_eigenvalues` returns.
    level : float
        Coverage of the intervals.
    """

    def __init__(self, lam: np.ndarray, level: float = 0.95) -> None:
        self.lam, self.alpha = lam, 1 - level
        self._largest = [1.0, 1.0]
        self._largest = [self._from_boundary(0.0, 0), self._from_boundary(TOP, 1)]

    def cdf(self, h2: float, t: float) -> float:
        """P(T(h2) <= t) if h2 is the true value."""
        return chi2_sum_below_0((self.lam - 1) / variances(self.lam, h2) - t)

    def lower_tail(self, h2: float) -> float:
        """Probability with which a low score rejects h2 although it is true."""
        inside = [max(1 - self._from_boundary(h2, end), 0.0) for end in (0, 1)]
        return self.alpha * inside[0] / sum(inside)

    def _from_boundary(self, h2: float, end: int) -> float:
        """P(the likelihood falls from the boundary `end` inwards), over its largest value."""
        d = variances(self.lam, TOP if end else 0.0)
        a = (self.lam - 1) / d
        falls_with_h2 = chi2_sum_below_0((a - a.mean()) * (variances(self.lam, h2) / d))
        return (1 - falls_with_h2 if end else falls_with_h2) / self._largest[end]

    def margin(self, h2: float, t: float) -> float:
        """How far inside the accepted range P(T <= t) is; negative if h2 is rejected."""
        p, low = self.cdf(h2, t), self.lower_tail(h2)
        return min(p - low, low + 1 - self.alpha - p)


def score_ratio(data: Rotated, h2: float) -> float:
    """T(h2) of the phenotype, y'P (K/kappa - I) P y / y'P y; the larger, the larger is h2."""
    d = likelihood.derivatives(data, h2)
    return -d.Q1 / d.Q


# -- many phenotypes at once ---------------------------------------------------------------


class Nodes:
    """Values of h2 about half a standard error apart, where likelihoods are evaluated.

    The log-likelihood of phenotypes with squared contrasts z^2 (R, nu) at all G nodes is one
    matrix product; between the nodes it is interpolated by a cubic spline.

    Attributes
    ----------
    coarse, h2 : ndarray, shape (G,), (F,)
        Nodes, and the finer ones of the interpolation; both from 0 to `TOP`.
    upsample : ndarray, shape (G, F)
        Takes values at the nodes to values at the finer ones.
    d : ndarray, shape (G, nu)
        Variances of the contrasts at the nodes.
    """

    def __init__(self, lam: np.ndarray) -> None:
        from scipy.interpolate import CubicSpline, PchipInterpolator

        self.lam = lam
        ends = np.geomspace(1 - TOP, 0.02, 60)
        base = np.concatenate([[0], ends, np.linspace(0.02, 0.98, 200)[1:-1], 1 - ends[::-1]])
        root = np.sqrt([float(information(lam, h)) for h in base])
        way = np.concatenate([[0], np.cumsum(np.diff(base) * (root[1:] + root[:-1]) / 2)])
        G = int(np.clip(np.ceil(way[-1] / _STEP), _FEWEST, _MOST)) + 1
        # A fifth of the nodes is even in h2, for spectra from which nothing is to be learnt.
        mixed = 0.8 * way / max(way[-1], 1e-300) + 0.2 * base / TOP
        back = PchipInterpolator(mixed / mixed[-1], base)
        even, fine = np.linspace(0, 1, G), np.linspace(0, 1, (G - 1) * _FINER + 1)
        self.coarse, self.h2 = back(even), back(fine)
        self.coarse[-1] = self.h2[-1] = TOP
        self.upsample = CubicSpline(even, np.eye(G))(fine).T
        self.d = variances(lam, self.coarse)
        self._logdet = np.log(self.d).sum(axis=1)
        self._critical: dict[tuple[float, int, int], np.ndarray] = {}

    def loglik(self, chi2: np.ndarray, true_h2: float) -> np.ndarray:
        """Restricted log-likelihoods (R, F), up to constants, of phenotypes with true_h2.

        `chi2` (R, nu) are chi-squared variables with one degree of freedom: the squared
        contrasts over their variances.
        """
        Q = chi2 @ (variances(self.lam, true_h2) / self.d).T
        return (-0.5 * (self._logdet + len(self.lam) * np.log(Q))) @ self.upsample

    def critical(self, level: float, replicates: int = NULLS, seed: int = 0) -> np.ndarray:
        """Critical values (F,) of the restricted likelihood ratio 2 [max l - l(h2)] of each h2.

        Simulated with the same random numbers at every h2, and kept. Their number leaves an
        error of sqrt(level (1 - level) / replicates) in the coverage.
        """
        from scipy.interpolate import PchipInterpolator

        key = level, replicates, seed
        if key not in self._critical:
            # Closer together towards 0 and 1, where they change.
            last = len(self.h2) - 1
            along = (1 - np.cos(np.linspace(0, np.pi, _SIMULATED))) / 2
            at = np.unique((last * along).round().astype(int))
            rng = np.random.default_rng(seed)
            ratio = np.empty((replicates, len(at)))
            for start in range(0, replicates, _PIECE):
                part = slice(start, min(start + _PIECE, replicates))
                chi2 = simulated_chi2(len(self.lam), part.stop - start, rng)
                for k, i in enumerate(at):
                    loglik = self.loglik(chi2, float(self.h2[i]))
                    ratio[part, k] = 2 * (loglik.max(axis=1) - loglik[:, i])
            found = np.quantile(ratio, level, axis=0)
            self._critical[key] = PchipInterpolator(at, found)(np.arange(last + 1))
        return self._critical[key]


def simulated_chi2(nu: int, replicates: int, seed: int | np.random.Generator) -> np.ndarray:
    """Chi-squared variables with one degree of freedom, shape (replicates, nu)."""
    require_memory(16.0 * nu * replicates, f"{replicates:,} simulated phenotypes")
    chi2 = np.random.default_rng(seed).standard_normal((replicates, nu))
    return np.square(chi2, out=chi2)


# -- the interval of one phenotype -----------------------------------------------------------


def h2_confidence_interval(
    data: Rotated,
    level: float = 0.95,
    method: Method = "rlrt",
    *,
    nodes: Nodes | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval for h2: all values that a test of level 1 - `level` accepts.

    Parameters
    ----------
    data : Rotated
        Phenotype and covariates on the eigenbasis.
    level : float
        Coverage, in (0, 1).
    method : {"rlrt", "score", "reml"}
        The restricted likelihood ratio with simulated critical values; the exact score test;
        or the estimate with normal quantiles of its standard error (expected information), cut
        at 0 and 1, which is usual and covers only in large samples.
    nodes : Nodes, optional
        Those of ``contrast_eigenvalues(data)``, if they are at hand: critical values are kept
        with them.
    seed : int
        Of the simulation behind "rlrt".

    Returns
    -------
    (float, float)
        Lower and upper end. If the accepted set has gaps, its smallest and largest value.

    Raises
    ------
    InputError
        For a level outside (0, 1) and an unknown method.
    """
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, but is {level:g}.")
    if method not in ("rlrt", "score", "reml"):
        raise InputError(
            f"method='{method}' is unknown; expected 'rlrt', 'score' (both by inversion of a "
            "test) or 'reml' (estimate and standard error)."
        )
    if method == "reml":
        return _wald(data, level)
    nodes = Nodes(contrast_eigenvalues(data)) if nodes is None else nodes
    lam = nodes.lam
    if information(lam, 0.0) <= 1e-12 * len(lam):
        return 0.0, 1.0  # the eigenvalues are equal: every h2 has the same likelihood
    if method == "score":
        test = ScoreTest(lam, level)
        return _accepted(nodes.coarse, lambda h: test.margin(h, score_ratio(data, h)))
    critical = nodes.critical(level, seed=seed)
    largest = float(likelihood.restricted_loglik(data, np.array([reml(data)]))[0])

    def margin(h2: float) -> float:
        drop = largest - float(likelihood.restricted_loglik(data, np.array([h2]))[0])
        return float(np.interp(h2, nodes.h2, critical)) - 2 * drop

    return _accepted(nodes.coarse, margin)


def reml(data: Rotated) -> float:
    """The REML estimate of h2, at most `TOP`."""
    return min(maximise_h2(lambda h: likelihood.restricted_loglik(data, h)), TOP)


def _wald(data: Rotated, level: float) -> tuple[float, float]:
    from scipy.special import ndtri

    if restricted_information(data, 0.0) <= 1e-12 * data.df:
        return 0.0, 1.0
    estimate = reml(data)
    if estimate <= _FAR_FROM_1:
        expected = restricted_information(data, estimate)
    else:
        expected = float(information(contrast_eigenvalues(data), estimate))
    with np.errstate(divide="ignore"):
        reach = float(ndtri(0.5 + level / 2) / np.sqrt(expected))
    return max(estimate - reach, 0.0), min(estimate + reach, 1.0)


def _accepted(nodes: np.ndarray, margin: Callable[[float], float]) -> tuple[float, float]:
    """Smallest and largest h2 with a margin of at least 0: by nodes, then by Brent's method."""
    from scipy.optimize import brentq

    values = np.array([margin(float(h)) for h in nodes])
    best = int(np.argmax(values))
    while values[best] < 0 and nodes[1] - nodes[0] > 1e-12:  # narrower than between two nodes
        nodes = np.linspace(nodes[max(best - 1, 0)], nodes[min(best + 1, len(nodes) - 1)], 33)
        values = np.array([margin(float(h)) for h in nodes])
        best = int(np.argmax(values))
    inside = np.flatnonzero(values >= 0)
    first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (best, best)
    low, high = float(nodes[first]), float(nodes[last])
    if values[first] >= 0 and first > 0:
        low = float(brentq(margin, nodes[first - 1], low, xtol=1e-10))
    if values[last] >= 0 and last < len(nodes) - 1:
        high = float(brentq(margin, high, nodes[last + 1], xtol=1e-10))
    return low, 1.0 if high >= TOP else high
