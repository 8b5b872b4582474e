r"""Sums of single effects at one h2, and over nodes of it: Gibbs sampling and SuSiE.

The effects of a region's k standardised SNPs are a sum of at most L single effects (SuSiE:
Wang, Sarkar, Carbonetto & Stephens 2020), each of one SNP, or of none,

    y = C b + sum_l Z beta_l + u + e,   beta_l = 0 with probability 1 - q,
                                        else one SNP j, with probability w_j, has an effect
                                        beta_lj | s2 ~ N(0, phi^2 s2),  phi from a grid,

    q ~ Beta(1, L/E - 1),

E the expected number of effects. That number is beta-binomial (Scott & Berger 2010); for large L it
is geometric, of all distributions on 0, 1, 2, ... with mean E that of the largest entropy. Given h2
everything is in the metric of P, the covariate-adjusted weight of `bayeslmm.numerics.likelihood`:
M = Z'PZ, r = Z'Py, Q = y'Py.

**One effect** is exact. With W = phi^2, a = M_jj, b = Z_j'Py and s2 integrated out under 1/s2,
its Bayes factor is the normal-inverse-gamma one (Servin & Stephens 2007; Denault et al. 2025),

    BF_j = (1 + W a)^(-1/2) [1 - b^2 / ((a + 1/W) Q)]^(-df/2).

**Several effects by Gibbs sampling** (the default) are exact but for Monte Carlo error. Given the
SNPs S and widths of the other effects, with beta and s2 integrated out, effect l is a single-effect
regression in which a, b and Q are what S leaves,

    a_j - M_jS A^-1 M_Sj,   r_j - M_jS A^-1 r_S,   Q - r_S' A^-1 r_S,   A = M_SS + diag(1/W_S),

so that its SNP and width, or its absence, are drawn from their joint conditional distribution; h2
is drawn among nodes. With q integrated out, the prior probability that it is there, when m of the
other L - 1 are, is (1 + m) / (L/E + L - 1). PIPs average these conditional probabilities, not
draws.

**Several effects by SuSiE** are variational: fast, but effects in long-range LD with each other are
taken for independent. Here q is fixed at its mean, E/L. The approximation is

    q = q(s2 | gamma) prod_l q(gamma_l) N(beta_l | gamma_l: mu_l, s2 / (a + 1/W)),

gamma_l the SNP and width of effect l. The scale of its normals cancels between likelihood,
prior and entropy, so that s2 is integrated out exactly given all gamma, and

    log p(y | h2) >= E_q[-df/2 log S] - sum_l KL_l,
    S = |y - sum_l Z mu_l|^2_P + sum_l mu_l^2 / W_l,
    KL_l = E_q[log q(gamma_l) / p(gamma_l) + 1/2 log(1 + W a)].

The mean over the gammas of the other effects is moved inside the logarithm (Jensen, a lower
bound still). Then the optimal q(gamma_l), given the others, has weights p(gamma_l) BF with y
replaced by what the others leave, and Q by

    Q_l = E|y - sum_{l' != l} Z beta_l'|^2_P + sum_{l' != l} E[beta_l'^2 / W],

the mean over gamma: the single-effect regression again. Each update is the optimum of its own
lower bound; the L bounds are one and the same for L = 1, where they equal log p(y | h2), and
where the gammas are certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

TOLERANCE = 1e-6
MAX_SWEEPS = 1000
# Conditional distributions that the sampler keeps: it comes back to the same few states.
_REMEMBERED = 256


@dataclass(frozen=True)
class EffectsPrior:
    """Prior of at most L single effects.

    Attributes
    ----------
    places : ndarray, shape (k,)
        Probability that an effect is SNP j's, if it is there.
    W : ndarray, shape (F,)
        Variances of an effect over s2, equally probable.
    max_effects : int
        L.
    expected_effects : float
        E, the mean of the number of effects: each is there with probability q ~ Beta(1, L/E - 1).
    """

    places: np.ndarray
    W: np.ndarray
    max_effects: int
    expected_effects: float

    @cached_property
    def log_weights(self) -> np.ndarray:
        """log P(an effect is there and is SNP j's), shape (k,)."""
        with np.errstate(divide="ignore"):
            return np.log(self.expected_effects / self.max_effects * self.places)

    @cached_property
    def log_none(self) -> float:
        """log P(an effect is not there)."""
        with np.errstate(divide="ignore"):
            return float(np.log1p(-self.expected_effects / self.max_effects))

    def there(self) -> np.ndarray:
        """P(an effect is there | m of the other L - 1 are) for m = 0 to L - 1, shape (L,)."""
        L, E = self.max_effects, self.expected_effects
        return np.ones(L) if E == L else np.arange(1, L + 1) / (L / E + L - 1)

    def number(self) -> np.ndarray:
        """P(m effects are there) for m = 0 to L, shape (L + 1,)."""
        L, there = self.max_effects, self.there()
        if self.expected_effects == L:
            return np.eye(L + 1)[L]
        # P(m + 1) / P(m): of L - m absent ones any appears, of m + 1 present ones any vanishes.
        odds = there / (1 - there) * (L - np.arange(L)) / np.arange(1, L + 1)
        p = np.cumprod(np.append(1.0, odds))
        return p / p.sum()

    def log_subsets(self) -> np.ndarray:
        """log P(the SNPs with an effect are those of subset g), shape (2^k,).

        Subset g holds SNP j if bit j of g is set. Several effects may be of one SNP.
        """
        p = np.zeros(2 ** len(self.places))
        p[0] = 1.0  # given no effect; then one more effect is of a SNP that is in or is not
        number = self.number()
        total = number[0] * p
        for m in range(1, self.max_effects + 1):
            more = np.zeros_like(p)
            for j, w in enumerate(self.places):
                with_j = more.reshape(-1, 2, 2**j)[:, 1]
                with_j += w * p.reshape(-1, 2, 2**j).sum(axis=1)
            p = more
            total += number[m] * p
        with np.errstate(divide="ignore"):
            return np.log(total)


@dataclass(frozen=True)
class SingleEffect:
    """Posterior of one effect.

    Attributes
    ----------
    alpha : ndarray, shape (F, k)
        P(the effect is there, of width f, and SNP j's).
    none : float
        P(the effect is not there).
    mu : ndarray, shape (F, k)
        Mean of the effect of SNP j, if it has it.
    square : ndarray, shape (F, k)
        Mean of its square, the uncertainty of s2 included.
    log_bf : float
        Log Bayes factor of this effect, averaged over SNPs and widths, against none.
    log_evidence : float
        log P(y) over that without the effect, prior of its absence included.
    log_gain : float
        What the effect adds to the lower bound besides S: minus its KL.
    """

    alpha: np.ndarray
    none: float
    mu: np.ndarray
    square: np.ndarray
    log_bf: float
    log_evidence: float
    log_gain: float


def log_bayes_factors(
    a: np.ndarray, b: np.ndarray, Q: np.ndarray | float, df: int, W: np.ndarray
) -> np.ndarray:
    """Log Bayes factors of one SNP at a time for each prior variance, shape (F, ...).

    a, b and Q are x'Px, x'Py and y'Py, of any shapes that fit together.
    """
    W = W.reshape(-1, *(1,) * np.ndim(a))
    share = np.minimum(b * b / ((a + 1 / W) * Q), 1 - 1e-15)
    return -0.5 * np.log1p(W * a) - 0.5 * df * np.log1p(-share)


def single_effect(
    a: np.ndarray, b: np.ndarray, Q: float, df: int, prior: EffectsPrior
) -> SingleEffect:
    """Posterior of one effect given x'Px (k,), x'P and y'P of what the others leave."""
    precision = a + 1 / prior.W[:, None]
    mu = b / precision
    rest = np.maximum(1 - b * mu / Q, 1e-15)
    log_bf = log_bayes_factors(a, b, Q, df, prior.W)
    log_joint = log_bf + (prior.log_weights - np.log(len(prior.W)))
    log_there = float(np.logaddexp.reduce(log_joint, axis=None))
    log_evidence = float(np.logaddexp(prior.log_none, log_there))
    alpha = np.exp(log_joint - log_evidence)
    return SingleEffect(
        alpha,
        float(np.exp(prior.log_none - log_evidence)),
        mu,
        mu**2 + Q * rest / (precision * (df - 2)),
        log_there - float(np.log(-np.expm1(prior.log_none))),
        log_evidence,
        log_evidence + 0.5 * df * float(np.sum(alpha * np.log(rest))),
    )


@dataclass(frozen=True)
class EffectsFit:
    """Posterior of L effects at one h2.

    Attributes
    ----------
    effects : list of SingleEffect
        L of them.
    log_bound : float
        Lower bound of log p(y | h2) over that without effects; exact for L = 1.
    sweeps : int
        Rounds of updates until nothing moved.
    converged : bool
        Whether that was reached.
    """

    effects: list[SingleEffect]
    log_bound: float
    sweeps: int
    converged: bool

    @property
    def alpha(self) -> np.ndarray:
        """P(effect l is there and SNP j's), shape (L, k)."""
        return np.array([effect.alpha.sum(axis=0) for effect in self.effects])

    def pip(self) -> np.ndarray:
        """P(SNP j has at least one of the effects), shape (k,)."""
        return pip_of(self.alpha)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and mean square of the summed effects of each SNP, shape (k,) each."""
        means = np.array([(e.alpha * e.mu).sum(axis=0) for e in self.effects])
        squares = np.array([(e.alpha * e.square).sum(axis=0) for e in self.effects])
        mean = means.sum(axis=0)
        return mean, (squares - means**2).sum(axis=0) + mean**2


def pip_of(alpha: np.ndarray) -> np.ndarray:
    """P(SNP j has at least one of L effects) from P(effect l is SNP j's), shape (L, k)."""
    return -np.expm1(np.log1p(-np.minimum(alpha, 1 - 1e-16)).sum(axis=0))


def fit_effects(
    M: np.ndarray,
    r: np.ndarray,
    Q: float,
    df: int,
    prior: EffectsPrior,
    start: Sequence[SingleEffect] = (),
    max_sweeps: int = MAX_SWEEPS,
) -> EffectsFit:
    """Iterate single-effect regressions (IBSS) until no probability moves by 1e-6.

    Parameters
    ----------
    M, r, Q : ndarray (k, k), ndarray (k,), float
        Z'PZ, Z'Py and y'Py.
    df : int
        Residual degrees of freedom, n - c.
    prior : EffectsPrior
        Number, place and size of effects.
    start : sequence of SingleEffect
        Where to begin, as the fit at a neighbouring h2; by default without effects.
    max_sweeps : int
        When to stop at the latest.
    """
    a = np.diagonal(M)
    L, k = prior.max_effects, len(r)
    mean, fitted = np.zeros((L, k)), np.zeros((L, k))  # E beta_l, M E beta_l
    spread = np.zeros(L)  # E[(a + 1/W) beta^2] - |Z E beta|^2_P over gamma
    effects: list[SingleEffect] = list(start)
    precision = a + 1 / prior.W[:, None]

    def remember(i: int, effect: SingleEffect) -> None:
        weighted = effect.alpha * effect.mu
        mean[i] = weighted.sum(axis=0)
        fitted[i] = M @ mean[i]
        spread[i] = float(np.sum(weighted * effect.mu * precision) - mean[i] @ fitted[i])

    for i, effect in enumerate(effects):
        remember(i, effect)
    old = np.array([e.alpha.sum(axis=0) for e in effects]) if effects else np.zeros((L, k))
    bound, moved, sweep = -np.inf, np.inf, 0
    while moved > TOLERANCE and sweep < max_sweeps:
        sweep += 1
        moved, bounds = 0.0, []
        for i in range(L):
            others = mean.sum(axis=0) - mean[i]
            left = r - (fitted.sum(axis=0) - fitted[i])
            Q_left = Q - others @ (r + left) + spread.sum() - spread[i]
            effect = single_effect(a, left, Q_left, df, prior)
            if i < len(effects):
                effects[i] = effect
            else:
                effects.append(effect)
            remember(i, effect)
            alpha = effect.alpha.sum(axis=0)
            moved = max(moved, float(np.abs(alpha - old[i]).max()))
            old[i] = alpha
            gains = sum(e.log_gain for j, e in enumerate(effects) if j != i)
            bounds.append(effect.log_evidence + gains - 0.5 * df * float(np.log(Q_left / Q)))
        bound = max(bounds)
        if L == 1:
            moved = 0.0
    return EffectsFit(effects, bound, sweep, moved <= TOLERANCE)


@dataclass(frozen=True)
class Chain:
    """Draws of the effects and h2, T sweeps.

    Attributes
    ----------
    pip : ndarray, shape (k,)
        P(SNP j has at least one of the effects), averaged over conditional probabilities.
    snp, width : ndarray, shape (T, L)
        SNPs of the effects that are there, then -1, and their rows in W.
    node : ndarray, shape (T,)
        Node of h2.
    weights : ndarray, shape (G,)
        Probability of each node, averaged over conditional probabilities.
    mean, square : ndarray, shape (k,)
        Mean of each SNP's summed effects, and of their squares.
    """

    pip: np.ndarray
    snp: np.ndarray
    width: np.ndarray
    node: np.ndarray
    weights: np.ndarray
    mean: np.ndarray
    square: np.ndarray


def sample_effects(
    M: np.ndarray,
    r: np.ndarray,
    Q: np.ndarray,
    log_weights: np.ndarray,
    df: int,
    prior: EffectsPrior,
    rng: np.random.Generator,
    *,
    sweeps: int,
    warmup: int,
    start: np.ndarray | None = None,
) -> Chain:
    """Gibbs sampling of L effects and h2, the size of effects and s2 integrated out.

    Parameters
    ----------
    M, r, Q : ndarray (G, k, k), (G, k), (G,)
        Z'PZ, Z'Py and y'Py at G nodes of h2.
    log_weights : ndarray, shape (G,)
        Log of quadrature weight, prior and likelihood without effects of each node.
    df : int
        Residual degrees of freedom, n - c.
    prior : EffectsPrior
        Number, place and size of effects.
    rng : Generator
        Source of randomness.
    sweeps, warmup : int
        Rounds of updates that are kept, and before.
    start : ndarray, shape (L,), optional
        SNP of each effect to begin with, -1 for none; by default no effects.
    """
    G, k = r.shape
    L, W = prior.max_effects, prior.W
    diagonal = np.diagonal(M, axis1=1, axis2=2)
    with np.errstate(divide="ignore"):
        log_places = np.log(prior.places) - np.log(len(W))
        log_there, log_none = np.log(prior.there()), np.log1p(-prior.there())

    @lru_cache(_REMEMBERED)
    def conditional(g: int, others: tuple[int, ...]) -> tuple[np.ndarray, float, np.ndarray]:
        """Distribution of an effect given the others: cumulated, its total, and PIPs."""
        wide, S = np.divmod(np.array(others, dtype=np.int64), k)
        a, b, Q_left = left_by(M[g], diagonal[g], r[g], Q[g], S, 1 / W[wide])
        log_joint = log_bayes_factors(a, b, Q_left, df, W) + log_places + log_there[len(S)]
        top = max(float(log_joint.max()), float(log_none[len(S)]))
        p = np.exp(log_joint - top)
        cumulative = np.cumsum(p)
        total = float(cumulative[-1] + np.exp(log_none[len(S)] - top))
        pip = p.sum(axis=0) / total
        pip[S] = 1
        return cumulative, total, pip

    # An effect is its width's row times k plus its SNP, or -1 where it is absent.
    begin = np.full(L, -1) if start is None else start
    state = [int(j) + len(W) // 2 * k if j >= 0 else -1 for j in begin]
    g = int(np.argmax(log_weights))
    pip, first, second, weights = np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(G)
    kept_snp, kept_width = np.full((sweeps, L), -1), np.full((sweeps, L), -1)
    kept_node = np.empty(sweeps, dtype=np.int64)
    for t in range(-warmup, sweeps):
        for i in range(L):
            others = tuple(sorted(at for j, at in enumerate(state) if j != i and at >= 0))
            cumulative, total, probabilities = conditional(g, others)
            at = int(np.searchsorted(cumulative, rng.random() * total, side="right"))
            state[i] = at if at < cumulative.size else -1
            if t >= 0:
                pip += probabilities
        width, S = np.divmod([at for at in state if at >= 0] or np.empty(0, np.int64), k)
        A = M[:, S[:, None], S]
        A[:, range(len(S)), range(len(S))] += 1 / W[width]
        inverse, rS = np.linalg.inv(A), r[:, S]
        mean = (inverse @ rS[..., None])[..., 0]
        rest = np.maximum(1 - (mean * rS).sum(axis=1) / Q, 1e-15)
        log_p = log_weights - 0.5 * np.linalg.slogdet(A)[1] - 0.5 * df * np.log(rest)
        p = np.cumsum(np.exp(log_p - log_p.max()))
        g = min(int(np.searchsorted(p, rng.random() * p[-1], side="right")), G - 1)
        if t >= 0:
            kept_snp[t, : len(S)], kept_width[t, : len(S)], kept_node[t] = S, width, g
            weights += np.diff(p, prepend=0) / p[-1]
            # Two effects of one SNP add up.
            own, which = np.unique(S, return_inverse=True)
            adds = np.zeros((len(own), len(S)))
            adds[which, range(len(S))] = 1
            sums = adds @ mean[g]
            spread = np.diagonal(adds @ inverse[g] @ adds.T)
            first[own] += sums
            second[own] += sums**2 + spread * Q[g] * rest[g] / (df - 2)
    return Chain(
        pip / (sweeps * L),
        kept_snp,
        kept_width,
        kept_node,
        weights / sweeps,
        first / sweeps,
        second / sweeps,
    )


def left_by(
    M: np.ndarray, a: np.ndarray, r: np.ndarray, Q: float, S: np.ndarray, ridge: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """x'Px (k,), x'Py (k,) and y'Py when the effects of SNPs S, prior precision ridge, are out."""
    if not len(S):
        return a, r, float(Q)
    rows = M[S]
    A = rows[:, S]
    A[range(len(S)), range(len(S))] += ridge
    inverse = np.linalg.inv(A)
    solved = inverse @ rows
    a = np.maximum(a - (rows * solved).sum(axis=0), 0)
    return a, r - r[S] @ solved, float(Q - r[S] @ inverse @ r[S])
