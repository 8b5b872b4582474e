r"""Evidence for heritability: Bayes factor, region of equivalence, exact likelihood-ratio test.

The restricted likelihood-ratio statistic is T = 2 [max_h l(h) - l(0)], l as in
`numerics.likelihood`. Under h2 = 0 it does not depend on s2 or the covariates' effects, only on
the eigenvalues and the covariates: it is simulated from y ~ N(0, I) on the basis, O(n) per
replicate and value of h2. Its distribution has mass at 0, mostly more than the 0.5 of asymptotics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.maximum import maximise_h2
from bayeslmm.numerics.quadrature import unit_density
from bayeslmm.priors import H2Prior, beta

if TYPE_CHECKING:
    from bayeslmm.model.lmm import LMM

# Priors for which the Bayes factor is tabulated: flat, towards 0, away from the ends.
_BETAS = ((1.0, 1.0), (0.5, 0.5), (1.0, 2.0), (1.0, 4.0), (1.0, 9.0), (2.0, 2.0), (2.0, 5.0))
# Values of h2 for the maximum: from this share of the standard error at 0 to this below 1.
_FIRST, _LAST, _POINTS = 0.003, 1e-5, 72
_CHUNK = 2**22
_LN10 = float(np.log(10))


@dataclass(frozen=True)
class Evidence:
    """How strongly data speak for h2 > 0.

    Attributes
    ----------
    log10_bf : float
        log10 Bayes factor of h2 > 0, with `prior` on it, against h2 = 0: the ratio of
        marginal likelihoods. 1 is strong, 2 decisive; negative speaks for h2 = 0.
    log10_bf_savage_dickey : float
        The same from prior and posterior densities, in the limit at 0: a check.
    prior : str
        Prior on h2 given h2 > 0. The factor depends on it: see `by_prior`.
    rope, p_below_rope : float
        Largest h2 that is as good as none, and the posterior probability of less, given
        `prior` without point mass.
    prior_below_rope : float
        Its prior probability.
    rlrt : float
        Restricted likelihood-ratio statistic.
    p_exact : float
        Its p-value from `replicates` simulations of h2 = 0 on this basis:
        (1 + number at least as large) / (1 + replicates).
    p_mixture : float
        Its asymptotic p-value, half that of chi-squared with one degree of freedom.
    null_at_0 : float
        Share of simulations in which the estimate is 0.
    replicates : int
        Number of simulations.
    by_prior : DataFrame
        Indexed by prior: log10_bf, posterior_mean, posterior_at_even_odds (the posterior
        probability of h2 > 0 if it is 1/2 a priori).
    n : int
        Number of samples.
    """

    log10_bf: float
    log10_bf_savage_dickey: float
    prior: str
    rope: float
    p_below_rope: float
    prior_below_rope: float
    rlrt: float
    p_exact: float
    p_mixture: float
    null_at_0: float
    replicates: int
    by_prior: pd.DataFrame = field(repr=False)
    n: int

    def __str__(self) -> str:
        none_as_large = self.p_exact * (self.replicates + 1) < 1.5
        p = f"< {1 / self.replicates:.2g}" if none_as_large else f"= {self.p_exact:.2g}"
        spread = self.by_prior.log10_bf
        return (
            f"h2 > 0 against h2 = 0 (n = {self.n:,}): log10 Bayes factor {self.log10_bf:.2f} with "
            f"h2 ~ {self.prior} ({spread.min():.2f} to {spread.max():.2f} over other priors); "
            f"P(h2 < {self.rope:g} | y) = {self.p_below_rope:.2g} (prior "
            f"{self.prior_below_rope:.2g}); RLRT {self.rlrt:.2f}, exact p {p} "
            f"(chi-squared mixture {self.p_mixture:.2g})"
        )

    __repr__ = __str__


def evidence(
    model: LMM, *, rope: float = 0.02, replicates: int = 10_000, seed: int = 0
) -> Evidence:
    """Bayes factor, region of equivalence and likelihood-ratio test (see `LMM.evidence`)."""
    if model.basis is None:
        raise InputError("Without kernel h2 is 0 by definition: there is nothing to test.")
    if not 0 < rope < 1:
        raise InputError(f"rope must be between 0 and 1, but is {rope:g}.")
    if replicates < 1:
        raise InputError(f"At least one replicate is needed, but replicates={replicates}.")
    data = model.rotated
    prior = H2Prior(model.h2_prior.log_density, model.h2_prior.name)
    log_bf, _, below = _bayes_factor(data, prior, rope)
    rows = {}
    for a, b in _BETAS:
        one = beta(a, b)
        value, mean, _ = _bayes_factor(data, one, rope)
        rows[repr(one)] = {
            "log10_bf": value / _LN10,
            "posterior_mean": mean,
            "posterior_at_even_odds": 1 / (1 + np.exp(-max(value, -700.0))),
        }
    observed = restricted_lrt(model)
    null = simulate_restricted_lrt(data, replicates, np.random.default_rng(seed))
    return Evidence(
        log10_bf=log_bf / _LN10,
        log10_bf_savage_dickey=_savage_dickey(data, prior, log_bf) / _LN10,
        prior=repr(prior),
        rope=rope,
        p_below_rope=below,
        prior_below_rope=float(unit_density(prior.log_density).cdf(rope)),
        rlrt=observed,
        p_exact=float((1 + np.count_nonzero(null >= observed)) / (1 + replicates)),
        p_mixture=mixture_p(observed),
        null_at_0=float(np.mean(null == 0)),
        replicates=replicates,
        by_prior=pd.DataFrame(rows).T.rename_axis("prior"),
        n=data.n,
    )


# -- Bayes factor --------------------------------------------------------------------------


def _bayes_factor(
    data: likelihood.Rotated, prior: H2Prior, rope: float
) -> tuple[float, float, float]:
    """Natural log Bayes factor, posterior mean of h2, and P(h2 < rope), all given h2 > 0."""
    at_0 = float(likelihood.integrated_loglik(data, np.zeros(1))[0])
    density = unit_density(
        lambda h2: likelihood.integrated_loglik(data, h2) + prior.log_density(h2)
    )
    return density.log_integral - at_0, density.mean, float(density.cdf(rope))


def _savage_dickey(data: likelihood.Rotated, prior: H2Prior, log_bf: float) -> float:
    """log of prior over posterior density of h2 in the limit at 0."""
    near = np.array([1e-14])
    at_0, beside = likelihood.integrated_loglik(data, np.append(0.0, near))
    log_prior = float(prior.log_density(near)[0])
    log_posterior = beside + log_prior - (log_bf + at_0)
    return float(log_prior - log_posterior)


# -- likelihood ratio ----------------------------------------------------------------------


def restricted_lrt(model: LMM) -> float:
    """Twice the gain of restricted log-likelihood from h2 = 0 to its maximum."""

    def loglik(h2: np.ndarray) -> np.ndarray:
        return likelihood.restricted_loglik(model.rotated, h2)

    best, none = loglik(np.array([maximise_h2(loglik), 0.0]))
    return max(2 * float(best - none), 0.0)


def mixture_p(statistic: float) -> float:
    """P-value of a likelihood-ratio statistic under 0.5 chi2(0) + 0.5 chi2(1)."""
    from scipy.stats import chi2

    return 0.5 * float(chi2.sf(statistic, 1)) if statistic > 0 else 1.0


def simulate_restricted_lrt(
    data: likelihood.Rotated, replicates: int, rng: np.random.Generator
) -> np.ndarray:
    """Restricted likelihood-ratio statistics of phenotypes without genetics, shape (R,).

    The likelihood at 72 values of h2 for many phenotypes is a few matrix products; its
    maximum is interpolated between them.

    `intervals.Nodes.critical` simulates the same at every h2, from the eigenvalues of the
    contrasts: with further covariates these take a decomposition of n x n, which a test of
    h2 = 0 alone does without.

    References
    ----------
    Crainiceanu CM, Ruppert D (2004). Likelihood ratio tests in linear mixed models with one
    variance component. J R Stat Soc B 66:165. doi:10.1111/j.1467-9868.2004.00438.x
    """
    n, c = data.C.shape
    h2 = _search_grid(data)
    t = likelihood.terms(data, h2)
    w = np.array([likelihood.weights(data, h) for h in h2])
    weighted = [w * data.C[:, k] for k in range(c)]
    inverse = np.linalg.inv(t.L)
    out = np.empty(replicates)
    step = max(1, _CHUNK // n)
    for start in range(0, replicates, step):
        part = slice(start, min(start + step, replicates))
        y = rng.standard_normal((n, part.stop - start))
        y -= data.C @ (data.C.T @ y)
        Q = w @ (y * y)
        if c:
            along = np.stack([one @ y for one in weighted], axis=1)
            Q -= np.square(inverse @ along).sum(axis=1)
        values = (t.logdet[0] - t.logdet)[:, None] - data.df * np.log(Q / Q[0])
        out[part] = _peak(values)
    return out


def _search_grid(data: likelihood.Rotated) -> np.ndarray:
    """0, then evenly in logit h2, from a small share of the standard error that h2 has at 0.

    Maxima below half of that share are taken for 0: statistics of less than _FIRST^2 / 4.
    """
    d = likelihood.derivatives(data, 0.0)
    information = 0.5 * (-d.F2 - d.F1**2 / data.df)
    first = min(_FIRST / np.sqrt(information), _FIRST)
    logit = np.linspace(np.log(first) - np.log1p(-first), -np.log(_LAST), _POINTS)
    return np.append(0.0, 1 / (1 + np.exp(-logit)))


def _peak(values: np.ndarray) -> np.ndarray:
    """Maxima of columns of values (G, R) on the search grid, shape (R,).

    By the quartic through the five points around the largest, evenly spaced; h2 = 0, the
    first of all, is apart.
    """
    best = values.argmax(axis=0)
    start = np.clip(best - 2, 1, len(values) - 5)
    around = np.take_along_axis(values, start + np.arange(5)[:, None], axis=0)
    at = np.linspace(0, 4, 161)[:, None]
    others = [[j for j in range(5) if j != k] for k in range(5)]
    quartic = np.column_stack(
        [np.prod((at - o) / (k - np.array(o)), axis=1) for k, o in enumerate(others)]
    )
    return np.where(best == 0, 0.0, np.maximum((quartic @ around).max(axis=0), 0.0))
