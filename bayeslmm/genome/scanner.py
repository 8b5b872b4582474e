r"""Exact tests of a block of rotated variants against one null model.

For a variant x on the basis, and at a node of the variance ratio r = s2_g kappa / s2_e
with weights w = 1 / (r s + 1), the statistics are

    a = x' P x,   b = x' P y,   Q = y' P y,   RSS = Q - b^2 / a,

P the covariate-adjusted weight (`bayeslmm.numerics.likelihood`). All nodes' a and b come from one
stacked product of the block of rotated variants with a matrix of weights. The profile
likelihoods are smooth in log r: they are interpolated between Chebyshev nodes around the
null model's ratio and maximised for all variants of the block at once by Newton steps.
Sentinel nodes watch the rest of the range; a variant whose optimum is not inside is
evaluated again on panels over all of it.

The full likelihood grows without bound towards h2 = 1: centring makes V singular along the
intercept, which fits y there exactly. Its maximum is therefore sought up to e^1.5 times the
REML ratio of the same model, and at least up to a ratio of 1: above where a proper maximum lies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from bayeslmm.bases.basis import dense_vectors
from bayeslmm.errors import InputError
from bayeslmm.genome import bayes_factors
from bayeslmm.inputs.genotypes import CenteredBlock
from bayeslmm.model.intervals import restricted_information
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.chebyshev import chebyshev
from bayeslmm.numerics.maximum import maximise_h2
from bayeslmm.numerics.nodes import (
    HALF_WIDTH,
    LOG_RANGE,
    Weights,
    interpolate,
    maximise_on_nodes,
    stacked_weights,
    varies_beyond,
)
from bayeslmm.numerics.tails import log10_p_chi2, log10_p_f
from bayeslmm.priors import EffectPrior
from bayeslmm.runs.devices import Device

if TYPE_CHECKING:
    from bayeslmm.model.lmm import LMM

TESTS = ("wald", "lrt", "score", "p3d", "bayes")
# Standard errors of the null model's log ratio to either side, where optima are sought first.
_WINDOW_ERRORS, _NARROWEST = 8.0, 0.2
# Where the null model's log-likelihood is that far below its maximum, a variant would need a
# chi-squared of 1,000 more than at the maximum: nothing is watched there.
_UNREACHABLE = 500.0
# Of variants that are integrated over all of h2's range.
_NUMBERS_AT_ONCE = 2**23


def largest_ml_ratio(reml: np.ndarray | float) -> np.ndarray:
    """Log ratio up to which a full likelihood is maximised, from that of the model's REML."""
    return np.maximum(np.asarray(reml) + HALF_WIDTH, 0.0)


class Scanner:
    """Tests of rotated variants against one null model, for a set of tests."""

    bayes: bayes_factors.NullPosterior | None = None
    rotation: Callable[[np.ndarray], np.ndarray] | None = None
    weights: Weights
    # Whether blocks are best tested side by side, each by one thread.
    parallel = True

    def __init__(
        self,
        model: LMM,
        tests: tuple[str, ...],
        dtype: np.dtype,
        effect_prior: EffectPrior | None = None,
    ) -> None:
        self.basis = model.basis
        self._specify(model, model.rotated, tests, dtype, effect_prior)
        data = self.data
        self.reml = reml = self._null_log_ratio("reml")
        ml = self._null_log_ratio("ml", float(largest_ml_ratio(reml)))
        self.half_width = self._window_width(reml)
        low, high = LOG_RANGE[0] + self.half_width, LOG_RANGE[1] - self.half_width
        self.center = float(np.clip(reml, low, high))
        integrated, window, sentinels = np.empty(0), np.empty(0), np.empty(0)
        if "bayes" in tests:
            self.bayes = bayes_factors.null_posterior(
                data, model.h2_prior, kernel=self.basis is not None
            )
            integrated = self.bayes.log_ratio
        if self.exact:
            window = self.center + self.half_width * chebyshev()
            # A node in every stretch of the range that has none.
            sentinels = np.linspace(*LOG_RANGE, 15)
            sentinels = sentinels[np.abs(sentinels[:, None] - window).min(axis=1) > 0.2]
            sentinels = sentinels[self._reachable(sentinels)]
        parts = (integrated, window, sentinels)
        ends = np.cumsum([len(part) for part in parts])
        self.integrated = slice(0, ends[0])
        self.window, self.sentinels = slice(ends[0], ends[1]), slice(ends[1], ends[2])
        nodes = np.concatenate([*parts, [reml, ml]])
        self.weights = self._weights(nodes, rough=self.sentinels)
        null = -0.5 * (self.weights.logdet_d + data.n * np.log(self.weights.Q))
        self.null_ml = float(null[-1])
        # The same interpolation as the variants': its error, 1e-7, cancels in the ratio,
        # which matters where a variant explains nothing and p is next to 1.
        self.null_ml_interpolated = self.null_ml
        if self.exact:
            top = self._in_window(np.atleast_1d(largest_ml_ratio(reml)))
            best = float(maximise_on_nodes(null[None, self.window], top)[1][0])
            if abs(best - self.null_ml) < 1e-6 * data.n:
                self.null_ml_interpolated = best
        self._wide: list[tuple[float, Weights]] | None = None
        self._everywhere: bayes_factors.Everywhere | None = None

    def _specify(
        self,
        model: LMM,
        data: likelihood.Rotated,
        tests: tuple[str, ...],
        dtype: np.dtype,
        effect_prior: EffectPrior | None,
    ) -> None:
        self.data, self.tests, self.dtype = data, tests, dtype
        c = data.C.shape[1]
        self.df = data.n - c - 1
        if self.df < 1:
            raise InputError(
                f"{data.n:,} samples are too few to test a variant with {c} covariates."
            )
        self.skip = c > 0 and model.has_intercept and (self.basis is None or self.basis.centered)
        self.exact = self.basis is not None and bool({"wald", "lrt"} & set(tests))
        self.effect_prior, self.h2_prior = effect_prior or EffectPrior(), model.h2_prior
        self.half_width = HALF_WIDTH

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """Variants in rows (v, n), put on the basis."""
        if self.basis is None:
            return x
        return self.basis.rotate_rows(x) if self.rotation is None else self.rotation(x)

    def rotate_on(self, device: Device) -> None:
        """Let a device rotate variants from now on; the basis goes there once."""
        if self.basis is None:
            return
        U = device.send(dense_vectors(self.basis, "A device").astype(self.dtype, copy=False))
        self.rotation = lambda x: device.fetch(device.product(device.send(x), U))

    def prepare(self, block: CenteredBlock) -> np.ndarray:
        """What `test` needs of a block's variants: they themselves on the basis."""
        return self.rotate(block.x)

    @property
    def eigen(self) -> Scanner:
        """The same tests in the eigenbasis: these."""
        return self

    def _weights(self, nodes: np.ndarray, rough: slice | None = None) -> Weights:
        return stacked_weights(
            self.data, nodes, skip_intercept=self.skip, dtype=self.dtype, rough=rough
        )

    def _reachable(self, log_ratio: np.ndarray) -> np.ndarray:
        """Where the null model is not so unlikely that no variant has its optimum there."""
        ratio = np.exp(np.append(log_ratio, self.center))
        profile = likelihood.restricted_loglik(self.data, ratio / (1 + ratio))
        return profile[:-1] > profile[-1] - _UNREACHABLE

    def _window_width(self, log_ratio: float) -> float:
        """Half the width of the window in which variants' optima are sought first.

        Many samples leave little room for them: the standard error of the null model's log ratio
        sets the width. The fewer ratios, the fewer products (`nodes.skeleton`).
        """
        h2 = float(1 / (1 + np.exp(-log_ratio)))
        if self.basis is None or not 0.01 < h2 < 0.99:
            return HALF_WIDTH
        information = restricted_information(self.data, h2)
        if information <= 0:
            return HALF_WIDTH
        error = 1 / (np.sqrt(information) * h2 * (1 - h2))
        return float(np.clip(_WINDOW_ERRORS * error, _NARROWEST, HALF_WIDTH))

    def _in_window(self, log_ratio: np.ndarray) -> np.ndarray:
        """Log ratios on the scale of the window, -1 to 1."""
        return np.clip((log_ratio - self.center) / self.half_width, -1, 1)

    def _null_log_ratio(self, kind: Literal["reml", "ml"], limit: float = np.inf) -> float:
        if self.basis is None:
            return 0.0
        loglik = likelihood.restricted_loglik if kind == "reml" else likelihood.full_loglik
        largest = 1 / (1 + np.exp(-limit))
        h2 = maximise_h2(lambda h: np.where(h <= largest, loglik(self.data, h), -np.inf))
        with np.errstate(divide="ignore"):
            return float(np.clip(np.log(h2) - np.log1p(-h2), *LOG_RANGE))

    @property
    def h2(self) -> float:
        """REML estimate of h2 under the null model."""
        return float(1 / (1 + np.exp(-self.reml)))

    def test(self, block: CenteredBlock, x: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of the table for a block of centred variants, NaN where there is no test.

        x are the block's variants as `prepare` gives them.
        """
        products = self.weights.products(x)
        a, b = self.weights.at_nodes(products)
        testable = varies_beyond(products.span, block.sum_sq, self.dtype)
        a[~testable], b[~testable] = 1, 0
        out: dict[str, np.ndarray] = {"testable": testable}
        with np.errstate(divide="ignore", invalid="ignore"):
            self._plug_in(out, a, b)
            if self.exact:
                self._exact(out, x, a, b, testable)
            elif self.basis is None:
                self._regression(out, a, b)
            if self.bayes is not None:
                self.bayes_columns(out, self.bayes, x, a, b, block)
        for name, values in out.items():
            if name != "testable":
                values[~testable] = np.nan
        return out

    def _wald(
        self, a: np.ndarray, b: np.ndarray, Q: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """beta, se and F statistic with 1 and df degrees of freedom."""
        explained = b * b / a
        s2_e = np.maximum(Q - explained, 0) / self.df
        return b / a, np.sqrt(s2_e / a), explained / s2_e

    def _plug_in(self, out: dict[str, np.ndarray], a: np.ndarray, b: np.ndarray) -> None:
        """Tests that fix the ratio at its null estimate: score (ML) and p3d (REML).

        These are the last two nodes.
        """
        i = -2
        out["beta"], out["se"], f = self._wald(a[:, i], b[:, i], self.weights.Q[i])
        if "p3d" in self.tests:
            out["log10_p3d"] = log10_p_f(f, self.df)
        if "score" in self.tests:
            i = -1
            f = self.data.n * b[:, i] ** 2 / (self.weights.Q[i] * a[:, i])
            out["log10_score"] = log10_p_f(f, self.df)

    def _regression(self, out: dict[str, np.ndarray], a: np.ndarray, b: np.ndarray) -> None:
        i, n = -2, self.data.n
        Q = self.weights.Q[i]
        f = self._wald(a[:, i], b[:, i], Q)[2]
        out["log10_wald"] = log10_p_f(f, self.df)
        out["log10_lrt"] = log10_p_chi2(-n * np.log1p(-(b[:, i] ** 2) / a[:, i] / Q))

    def bayes_columns(
        self,
        out: dict[str, np.ndarray],
        null: bayes_factors.NullPosterior,
        x: np.ndarray,
        a: np.ndarray,
        b: np.ndarray,
        block: CenteredBlock,
    ) -> None:
        """Bayes factor and effect, integrated over h2 and averaged over effect sizes."""
        testable, n = out["testable"], self.data.n
        variance = np.where(testable, block.sum_sq / n, 1.0)
        width = self.effect_prior.variances(block.eaf) / variance[:, None]
        log_prior = np.log(self.effect_prior.probabilities)
        found, again = bayes_factors.columns(
            null,
            a[:, self.integrated],
            b[:, self.integrated],
            self.weights.Q[self.integrated],
            width,
            log_prior,
            self.data.df,
        )
        rest = np.flatnonzero(again & testable)
        step = max(1, _NUMBERS_AT_ONCE // n)
        for some in (rest[i : i + step] for i in range(0, len(rest), step)):
            for name, values in self.integrate_again(x[some], width[some]).items():
                found[name][some] = values
        out |= found

    def integrate_again(self, x: np.ndarray, width: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of variants (v, n) whose mass may be anywhere in h2's range, widths (v, W)."""
        if self._everywhere is None:
            self._everywhere = bayes_factors.everywhere(self.data, self.h2_prior)
        log_prior = np.log(self.effect_prior.probabilities)
        return bayes_factors.columns_everywhere(
            self.data, self.h2_prior, self._everywhere, x.astype(np.float64), width, log_prior
        )

    def _exact(
        self,
        out: dict[str, np.ndarray],
        x: np.ndarray,
        a: np.ndarray,
        b: np.ndarray,
        testable: np.ndarray,
    ) -> None:
        """Tests with the ratio at each variant's own optimum: Wald (REML) and LRT (ML)."""
        window, sentinels = self.window, self.sentinels
        limit = np.full(len(x), LOG_RANGE[1])
        for kind in ("reml", "ml"):
            if kind == "ml" and "lrt" not in self.tests:
                continue
            inside = self._profile(kind, self.weights, a, b, window)
            around = self._profile(kind, self.weights, a, b, sentinels)
            t, best, again = self.between_nodes(inside, around, limit, testable)
            log_ratio = self.center + self.half_width * t
            at = [interpolate(v[:, window], t) for v in (np.log(a), b)]
            Q = interpolate(np.broadcast_to(self.weights.Q[window], inside.shape), t)
            a_best, b_best = np.exp(at[0]), at[1]
            null = np.full(len(x), self.null_ml_interpolated)
            if len(again):
                null[again] = self.null_ml
                wide = self.search_widely(kind, x[again], limit[again])
                best[again], log_ratio[again], a_best[again], b_best[again], Q[again] = wide
            if kind == "reml":
                out["l_remle"] = np.exp(log_ratio) / self.data.kappa
                out["beta"], out["se"], f = self._wald(a_best, b_best, Q)
                out["log10_wald"] = log10_p_f(f, self.df)
                limit = np.minimum(largest_ml_ratio(log_ratio), LOG_RANGE[1])
            else:
                out["log10_lrt"] = log10_p_chi2(2 * np.maximum(best - null, 0))

    def between_nodes(
        self, inside: np.ndarray, around: np.ndarray, limit: np.ndarray, testable: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Optimum of profiles in the window, and whose optimum is not there.

        Parameters
        ----------
        inside, around : ndarray, shape (v, nodes)
            The profile at the window's nodes, and at the sentinels.
        limit : ndarray, shape (v,)
            Largest log ratio.
        testable : ndarray of bool, shape (v,)

        Returns
        -------
        ndarray, shape (v,)
            Place in the window, -1 to 1.
        ndarray, shape (v,)
            The profile there.
        ndarray of int
            Testable variants to search over the whole range.
        """
        t, best = maximise_on_nodes(inside, self._in_window(limit))
        allowed = self.weights.log_ratio[self.sentinels] <= limit[:, None]
        outside = around.max(axis=1, initial=-np.inf, where=allowed)
        low, high = self.center - self.half_width, self.center + self.half_width
        stuck = ((t <= -1) & (low > LOG_RANGE[0] + 1e-9)) | (
            (t >= 1) & (high < LOG_RANGE[1] - 1e-9)
        )
        return t, best, np.flatnonzero(testable & (stuck | (outside > best)))

    def _profile(
        self, kind: str, weights: Weights, a: np.ndarray, b: np.ndarray, nodes: slice
    ) -> np.ndarray:
        """Profile log-likelihood with the variant in the model, at some nodes, (v, nodes)."""
        a, b = a[:, nodes], b[:, nodes]
        rss = np.maximum(weights.Q[nodes] - b * b / a, 1e-300)
        if kind == "reml":
            return -0.5 * (weights.logdet[nodes] + np.log(a) + self.df * np.log(rss))
        return -0.5 * (weights.logdet_d[nodes] + self.data.n * np.log(rss))

    def wide_panels(self) -> list[tuple[float, Weights]]:
        """Middles of panels over the whole range, and the weights at their nodes."""
        if self._wide is None:
            panels = int(np.ceil((LOG_RANGE[1] - LOG_RANGE[0]) / (2 * HALF_WIDTH)))
            edges = np.linspace(*LOG_RANGE, panels + 1)
            half = (edges[1] - edges[0]) / 2
            centers = edges[:-1] + half
            self._wide = [(float(m), self._weights(m + half * chebyshev())) for m in centers]
        return self._wide

    def search_widely(self, kind: str, x: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """Optimum from the least ratio to `limit`: loglik, log ratio, a, b, Q; shape (5, v)."""
        half = (LOG_RANGE[1] - LOG_RANGE[0]) / len(self.wide_panels()) / 2
        found = np.full((5, len(x)), -np.inf)
        for middle, weights in self.wide_panels():
            a, b = weights.statistics(x)
            top = np.clip((limit - middle) / half, -1, 1)
            profile = self._profile(kind, weights, a, b, slice(None))
            t, best = maximise_on_nodes(profile, top)
            Q = np.broadcast_to(weights.Q, a.shape)
            here = np.array(
                [
                    best,
                    middle + half * t,
                    np.exp(interpolate(np.log(a), t)),
                    interpolate(b, t),
                    interpolate(Q, t),
                ]
            )
            better = (best > found[0]) & (limit >= middle - half)
            found[:, better] = here[:, better]
        return found
