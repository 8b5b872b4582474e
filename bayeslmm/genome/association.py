r"""The genome scan: exact tests of every variant from one pass of matrix products.

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
REML ratio of the same model, far above where a proper maximum lies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Basis, dense_vectors
from bayeslmm.bases.block import BlockBasis
from bayeslmm.errors import InputError, listing
from bayeslmm.genome import bayes_factors, pairs
from bayeslmm.genome.bayes_factors import LOG_RANGE as _LOG_RANGE
from bayeslmm.genome.codings import CODINGS, Coding, recode
from bayeslmm.genome.pairs import PairScanner, SecondTerm
from bayeslmm.genome.scan_files import ScanFile, Tabulation
from bayeslmm.inputs.case_control import two_valued_note
from bayeslmm.inputs.genotypes import CenteredBlock, Genotypes, as_genotypes
from bayeslmm.inputs.sources import require_library
from bayeslmm.model.intervals import restricted_information
from bayeslmm.model.snps import aligned, require_genotypes, selected_snps
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.chebyshev import chebyshev
from bayeslmm.numerics.maximum import maximise_h2
from bayeslmm.numerics.nodes import (
    COLLINEAR,
    HALF_WIDTH,
    Weights,
    interpolate,
    maximise_on_nodes,
    stacked_weights,
)
from bayeslmm.numerics.tails import log10_p_chi2, log10_p_f
from bayeslmm.priors import EffectPrior, as_effect_prior
from bayeslmm.relatedness.dense import GRM
from bayeslmm.relatedness.sparse import SparseGRM
from bayeslmm.runs.columns import Columns, WholeColumns, scattered
from bayeslmm.runs.devices import BLOCK_ON_DEVICE, Device, as_device
from bayeslmm.runs.files import refuse_existing
from bayeslmm.runs.progress import blas_threads, log, map_ahead, track
from bayeslmm.runs.provenance import provenance
from bayeslmm.runs.results import unfinished

if TYPE_CHECKING:
    from distributed import Client

    from bayeslmm.binary.scan import CaseScanner
    from bayeslmm.model.lmm import LMM
    from bayeslmm.runs.checkpoints import Checkpoint

type Background = Literal["all", "loco", "rest+chrom"]
BACKGROUNDS = ("all", "loco", "rest+chrom")

FAMILIES = ("gaussian", "binomial")
TESTS = ("wald", "lrt", "score", "p3d", "bayes")
# Standard errors of the null model's log ratio to either side, where optima are sought first.
_WINDOW_ERRORS, _NARROWEST = 8.0, 0.2
# Where the null model's log-likelihood is that far below its maximum, a variant would need a
# chi-squared of 1,000 more than at the maximum: nothing is watched there.
_UNREACHABLE = 500.0
# _LOG_RANGE is GEMMA's range of the variance ratio, here with kappa scaled out.


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
        ml = self._null_log_ratio("ml", reml + HALF_WIDTH)
        self.half_width = self._window_width(reml)
        low, high = _LOG_RANGE[0] + self.half_width, _LOG_RANGE[1] - self.half_width
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
            sentinels = np.linspace(*_LOG_RANGE, 15)
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
            top = self._in_window(np.array([reml + HALF_WIDTH]))
            best = float(maximise_on_nodes(null[None, self.window], top)[1][0])
            if abs(best - self.null_ml) < 1e-6 * data.n:
                self.null_ml_interpolated = best
        self._wide: list[tuple[float, Weights]] | None = None

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
            return float(np.clip(np.log(h2) - np.log1p(-h2), *_LOG_RANGE))

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
        raw = block.sum_sq
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = np.square(products.span).sum(axis=1) / raw
            testable = (raw > 0) & (1 - explained > COLLINEAR[self.dtype])
        a[~testable], b[~testable] = 1, 0
        out: dict[str, np.ndarray] = {"testable": testable}
        with np.errstate(divide="ignore", invalid="ignore"):
            self._plug_in(out, a, b)
            if self.exact:
                self._exact(out, x, a, b, testable)
            elif self.basis is None:
                self._regression(out, a, b)
            if self.bayes is not None:
                self._integrated(out, self.bayes, x, a, b, block)
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

    def _integrated(
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
        for j in np.flatnonzero(again & testable):
            for name, value in self._integrate_again(null, x[j], width[j]).items():
                found[name][j] = value
        out |= found

    def _integrate_again(
        self, null: bayes_factors.NullPosterior, x: np.ndarray, width: np.ndarray
    ) -> dict[str, float]:
        return bayes_factors.adaptive_columns(
            self.data,
            self.h2_prior,
            null.log_integral,
            x.astype(np.float64),
            width,
            np.log(self.effect_prior.probabilities),
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
        limit = np.full(len(x), _LOG_RANGE[1])
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
                wide = self._search_widely(kind, x[again], limit[again])
                best[again], log_ratio[again], a_best[again], b_best[again], Q[again] = wide
            if kind == "reml":
                out["l_remle"] = np.exp(log_ratio) / self.data.kappa
                out["beta"], out["se"], f = self._wald(a_best, b_best, Q)
                out["log10_wald"] = log10_p_f(f, self.df)
                limit = np.minimum(log_ratio + HALF_WIDTH, _LOG_RANGE[1])
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
        stuck = ((t <= -1) & (low > _LOG_RANGE[0] + 1e-9)) | (
            (t >= 1) & (high < _LOG_RANGE[1] - 1e-9)
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
            panels = int(np.ceil((_LOG_RANGE[1] - _LOG_RANGE[0]) / (2 * HALF_WIDTH)))
            edges = np.linspace(*_LOG_RANGE, panels + 1)
            half = (edges[1] - edges[0]) / 2
            centers = edges[:-1] + half
            self._wide = [(float(m), self._weights(m + half * chebyshev())) for m in centers]
        return self._wide

    def _search_widely(self, kind: str, x: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """Optimum from the least ratio to `limit`: loglik, log ratio, a, b, Q; shape (5, v)."""
        half = (_LOG_RANGE[1] - _LOG_RANGE[0]) / len(self.wide_panels()) / 2
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


def scan(
    model: LMM | Mapping[str, LMM],
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    tests: str | Iterable[str] | None = None,
    *,
    family: Literal["gaussian", "binomial"] = "gaussian",
    background: Background = "all",
    condition_on: Iterable[str] | pd.DataFrame | None = None,
    region: str | None = None,
    coding: Coding = "additive",
    interaction: str | pd.Series | None = None,
    effect_prior: EffectPrior | float | Iterable[float] | None = None,
    prior_odds: float | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    threads: int | None = None,
    block_size: int | None = None,
    progress: bool | None = None,
    kept: Checkpoint | None = None,
    client: Client | None = None,
    device: str | None = None,
) -> pd.DataFrame | dict[str, pd.DataFrame]:
    """Test every variant for association, one at a time, in a linear mixed model.

    Parameters
    ----------
    model : LMM, or mapping of names to LMM
        Phenotype, covariates and kernel; without kernel this is plain linear
        regression. Several models whose samples and kernel are the same share one
        rotation: each further one costs a few percent of the first.
    genotypes : Genotypes, path or array (n, m)
        Must hold every analysed sample; matched by id.
    tests : str or several of them
        By default ``("wald", "bayes")``. ``"wald"``: F test with the variance ratio at each
        variant's REML optimum (gives beta, se and p_wald); ``"lrt"``: likelihood-ratio test
        with the ratio at its ML optimum under both models; ``"score"``: score test at the null
        model's ML ratio; ``"p3d"``: F test with the ratio fixed at the null model's
        REML estimate (EMMAX, P3D); ``"bayes"``: Bayes factor and posterior of the effect,
        integrated over h2 under the model's prior. With ``family="binomial"`` and no
        kernel ``"wald"`` (maximum likelihood, Firth's penalty where that or the test
        fails), ``"firth"`` (for all), ``"score"`` and ``"spa"`` (its tails by saddlepoint),
        by default ``("wald", "score")``; with a kernel ``("spa", "score")``.
    family : {"gaussian", "binomial"}
        ``"binomial"``: the phenotype is case/control, coded 0/1, 1/2 (2 is the case) or in
        words, and effects are log odds ratios: logistic regression, or with a kernel the
        logistic mixed model (docs/binary-traits.md). Never chosen by itself.
    background : {"all", "loco", "rest+chrom"}
        The kernel behind a variant: the model's as it is; without the variant's
        chromosome; or both parts, each with its own variance (see
        `bayeslmm.genome.backgrounds`, and the docs for which to take). The latter two need a
        GRM that knows its variants.
    condition_on : variant ids, or DataFrame (samples x SNPs) of dosages, optional
        SNPs that join the covariates, looked up in all of `genotypes`. A variant in
        complete disequilibrium with them has NA.
    region : str, optional
        ``"17"`` or ``"17:30000000-38000000"``: only variants there are tested (see
        `bayeslmm.Genotypes.in_region`).
    coding : {"additive", "dominant", "recessive", "hetonly", "genotypic"}
        What a dosage means (see `bayeslmm.genome.codings`), as in plink2. ``"genotypic"`` tests
        the additive effect together with the dominance deviation.
    interaction : str or Series, optional
        A covariate of the model, or numbers by sample id whose main effect is then in
        the model too: tests whether the variant's effect depends on it. This and
        ``"genotypic"`` know the tests ``"wald"`` and ``"bayes"``.
    effect_prior : EffectPrior, float or several, optional
        Prior of the effects for ``"bayes"``: standard deviations in phenotypic standard
        deviations per sd of the genotype, averaged over; by default 0.05, 0.1, 0.2 and
        0.4. `bayeslmm.priors.EffectPrior` has weights, and a dependence on frequency.
    prior_odds : float, optional
        Prior odds that a variant is associated, such as 1e-4: adds ppa and bfdr.
    dtype : {"float32", "float64"}
        Precision of the products with the variants. float32 is more than twice as
        fast and changes log10 p by less than 1e-3 where p > 1e-20. Without kernel it
        is float64 in any case.
    threads : int, optional
        Number of worker threads, all processors by default; each takes blocks of its
        own, with BLAS limited to one thread meanwhile.
    block_size : int, optional
        Variants per block; memory is the basis and a few blocks per worker.
    progress : bool, optional
        Whether to show a progress bar; by default where somebody watches.
    kept : Checkpoint, optional
        Where finished parts are kept (`bayeslmm.checkpoint`): after an interruption the same
        scan goes on from there, and ends with the same table.
    client : dask.distributed.Client, optional
        A cluster whose workers do the parts; each gets the basis once. `threads` is theirs.
    device : str, optional
        Where variants are rotated, such as ``"cupy"`` or ``"torch:cuda"``: see
        `runs.devices.as_device`. By default here, by NumPy. With ``background="all"`` and a
        kernel only.

    Returns
    -------
    DataFrame
        One row per variant: chrom, pos, id, ea (effect allele), oa, eaf (its frequency
        among the analysed samples), n (analysed), n_missing (dosages set to the mean),
        beta (phenotype units per effect allele) and se, a p-value for each test,
        neg_log10_p (of the first test that has one; finite where p underflows), pve (share of the
        phenotype's variance: beta^2 var(x) / var(y)), and l_remle (s2_g / s2_e at the
        variant's REML optimum) for exact tests. With these, beta and se are at that
        optimum too, else at the null model's ratio. ``"bayes"`` gives log10_bf (for an
        effect against none), post_mean and post_sd (of the effect if there is one, in
        phenotype units per effect allele) and lfsr (local false sign rate: probability
        that the effect, if there is one, has the other sign); with `prior_odds` also ppa
        (posterior probability of association) and bfdr (Bayesian false discovery rate
        if this variant and all with a higher ppa are called). Monomorphic variants and
        those that covariates explain have NA. Attributes: provenance, the priors, counts
        of both, and the background: "all", or one record per chromosome with the numbers
        of variants behind it, the chromosome's share of the genetic variance, and h2.
        For several models a dict of such tables.

        With `interaction` beta and se are the variant's effect at the mean of the
        covariate, beta_int and se_int what is added per unit of the covariate, cov_int
        the covariance of the two estimates; p_int and log10_bf_int are for the
        interaction given the main effect, p_joint and log10_bf_joint for both against
        none, log10_bf for the main effect alone; neg_log10_p is that of p_int, and
        neg_log10_p_joint. With ``"genotypic"`` the same with _dom: beta is the average
        effect of an allele substitution, beta_dom the dominance deviation. Where the two
        terms cannot be told apart all of these are NA.

        With ``family="binomial"``: eaf_cases, eaf_controls, n_cases; beta is the log odds
        ratio per effect allele, or, or_low and or_high the odds ratio with its 95% Wald
        interval; p_wald of beta / se, p_firth the penalised likelihood ratio (where Firth's
        penalty was used), p_score, p_spa; method, the test behind neg_log10_p. Attributes:
        which level is the case, the null model, and how many variants had which method.

    Raises
    ------
    InputError
        For unknown tests or backgrounds, samples without genotypes, and chromosomes that
        are not in the relatedness matrix when they are to be left out of it.

    References
    ----------
    Zhou X, Stephens M (2012). Genome-wide efficient mixed-model analysis for
    association studies. Nat Genet 44:821. doi:10.1038/ng.2310
    Servin B, Stephens M (2007). Imputation-based analysis of association studies:
    candidate regions and quantitative traits. PLoS Genet 3:e114.
    doi:10.1371/journal.pgen.0030114
    Stephens M (2017). False discovery rates: a new deal. Biostatistics 18:275.
    Kraft P et al. (2007). Exploiting gene-environment interaction to detect genetic
    associations. Hum Hered 63:111. doi:10.1159/000099183
    Kang HM et al. (2010). Variance component model to account for sample structure in
    genome-wide association studies. Nat Genet 42:348. doi:10.1038/ng.548

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> x = rng.integers(0, 3, size=(100, 3))
    >>> y = 0.8 * x[:, 1] + rng.normal(size=100)
    >>> bl.scan(bl.LMM(y), x)[["id", "n", "beta", "se"]].round(2)
         id    n  beta    se
    0  snp1  100  0.15  0.15
    1  snp2  100  0.79  0.11
    2  snp3  100 -0.01  0.16
    """
    found = tabulations(
        model,
        genotypes,
        tests,
        family=family,
        background=background,
        condition_on=condition_on,
        region=region,
        coding=coding,
        interaction=interaction,
        effect_prior=effect_prior,
        prior_odds=prior_odds,
        dtype=dtype,
        threads=threads,
        block_size=block_size,
        progress=progress,
        kept=kept,
        client=client,
        device=device,
    )
    tables = {name: one.table() for name, one in found.items()}
    return tables if isinstance(model, Mapping) else tables[""]


def scan_to_file(
    model: LMM,
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    path: str | os.PathLike[str],
    tests: str | Iterable[str] | None = None,
    *,
    overwrite: bool = False,
    restart: bool = False,
    kept: Checkpoint | None = None,
    **options: Any,
) -> ScanFile:
    """Test every variant as `scan` does, and write the table part by part.

    What is finished is kept beside the file, in `path` + ".partial", until all is done: after an
    interruption the same call goes on from there, and the file has the same bytes. Memory does
    not grow with the results: what grows with the number of variants is the table that names
    them, and one number for each.

    Parameters
    ----------
    model : LMM
        One model.
    genotypes, tests
        As of `scan`.
    path : path-like
        ``.parquet`` (needs pyarrow), or tab-separated text, gzipped if the name ends in .gz.
    overwrite : bool
        Whether a file that is there may be replaced.
    restart : bool
        Begin anew, whatever is kept.
    kept : Checkpoint, optional
        Where finished parts are kept instead; they stay.
    **options
        All others of `scan`.

    Returns
    -------
    ScanFile
        With an overview of all variants for plots, and rows of the table on request.

    Raises
    ------
    InputError
        As of `scan`, and if the file is there or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> x = rng.integers(0, 3, size=(100, 3))
    >>> y = 0.8 * x[:, 1] + rng.normal(size=100)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     hits = bl.scan_to_file(bl.LMM(y), x, f"{folder}/hits.tsv.gz")
    ...     hits.rows([1])[["id", "n", "beta", "se"]].round(2)
         id    n  beta    se
    1  snp2  100  0.79  0.11
    """
    path = Path(path)
    if path.suffix == ".parquet":
        require_library("pyarrow", "parquet", "Parquet")
    refuse_existing(path, overwrite=overwrite)
    work = unfinished(path, restart=restart) if kept is None else nullcontext(kept)
    with work as parts:
        found = tabulations(model, genotypes, tests, kept=parts, in_parts=True, **options)
        return found[""].write(path, overwrite=overwrite)


def tabulations(
    model: LMM | Mapping[str, LMM],
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    tests: str | Iterable[str] | None = None,
    *,
    family: str = "gaussian",
    background: Background = "all",
    condition_on: Iterable[str] | pd.DataFrame | None = None,
    region: str | None = None,
    coding: Coding = "additive",
    interaction: str | pd.Series | None = None,
    effect_prior: EffectPrior | float | Iterable[float] | None = None,
    prior_odds: float | None = None,
    dtype: str = "float32",
    threads: int | None = None,
    block_size: int | None = None,
    progress: bool | None = None,
    kept: Checkpoint | None = None,
    client: Client | None = None,
    device: str | None = None,
    in_parts: bool = False,
) -> dict[str, Tabulation]:
    """What a scan found, by model, before tables are made of it; see `scan`.

    With `in_parts` it is left in the parts of the checkpoint.
    """
    if family not in FAMILIES:
        raise InputError(f"family='{family}' is unknown; expected one of {listing(FAMILIES)}.")
    asked = None if tests is None else (tests,) if isinstance(tests, str) else tuple(tests)
    binary = family == "binomial"
    chosen = ("wald", "bayes") if asked is None else asked
    unknown = [] if binary else [test for test in chosen if test not in TESTS]
    if unknown or not chosen:
        raise InputError(f"tests={listing(unknown)}: expected one or more of {listing(TESTS)}.")
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype='{dtype}' is unknown; expected 'float32' or 'float64'.")
    if background not in BACKGROUNDS:
        raise InputError(
            f"background='{background}' is unknown; expected one of {listing(BACKGROUNDS)}."
        )
    if coding not in CODINGS:
        raise InputError(f"coding='{coding}' is unknown; expected one of {listing(CODINGS)}.")
    two_terms = interaction is not None or coding == "genotypic"
    if binary:
        _refuse_for_cases(background, two_terms, effect_prior, prior_odds)
        prior_odds = None
    elif two_terms:
        pairs.check(chosen, coding, prior_odds, with_interaction=interaction is not None)
    prior = as_effect_prior(effect_prior)
    if prior_odds is not None and not (prior_odds > 0 and np.isfinite(prior_odds)):
        raise InputError(f"prior_odds must be above 0, such as 1e-4, but is {prior_odds:g}.")
    if prior_odds is not None and "bayes" not in chosen:
        raise InputError("prior_odds needs Bayes factors: add 'bayes' to tests.")
    genotypes = as_genotypes(genotypes)
    models = {"": model} if not isinstance(model, Mapping) else dict(model)
    seconds: dict[str, SecondTerm] = {}
    about: dict[str, Any] = {}
    for name, one in models.items():
        require_genotypes(one, genotypes)
        if condition_on is not None:
            dosages = selected_snps(one, condition_on, genotypes).dosages(one.ids)
            models[name] = one.with_covariates(dosages)
            about["condition_on"] = list(dosages.columns)
        if interaction is not None:
            models[name], seconds[name] = pairs.interaction_with(models[name], interaction)
        elif two_terms:
            seconds[name] = pairs.DominanceDeviation()
    if region is not None:
        about |= {"region": region, "n_unknown_position": genotypes.n_unknown(region)}
        genotypes = genotypes.select(region=region)
    if client is not None and background != "all":
        raise InputError(
            f"background='{background}' is not shared out to a cluster: every chromosome has a "
            "kernel of its own. Scan without client (and with kept=, to go on after an "
            "interruption), or one chromosome per job."
        )
    elsewhere = as_device(device)
    if elsewhere is not None and (background != "all" or binary or client is not None):
        raise InputError(
            "device= rotates variants for background='all' in the gaussian family, without a "
            "client. Leave it out."
        )
    if elsewhere is not None and block_size is None:
        block_size = BLOCK_ON_DEVICE
    workers = threads or os.cpu_count() or 1
    results: dict[str, Tabulation] = {}
    shared = background == "all" and not two_terms
    for group in _sharing_a_rotation(models) if shared else [[k] for k in models]:
        first = models[group[0]]
        # Without kernel nothing is rotated: reading takes the time, not the precision.
        kind = np.dtype(dtype if first.has_kernel else "float64")
        own = aligned(first, genotypes)
        run = Run(own, kind, workers, block_size, progress, coding, checkpoint=kept, client=client)
        run = replace(run, in_parts=in_parts)
        if kept is not None:
            identity: dict[str, Any] = {"tests": chosen, "background": background}
            identity |= {"two terms": two_terms, "device": elsewhere.name if elsewhere else ""}
            identity |= {f"model {name}".strip(): describe(models[name], prior) for name in group}
            label = "".join(f"-{name}" for name in group if name)
            run = replace(run, label=label, identity=identity | {"family": family})
        if binary:
            for name in group:
                own_run = replace(run, dtype=np.dtype("float64"), label=f"-{name}" if name else "")
                more = {"background": "all", "coding": coding} | about
                results[name] = _case_scan(models[name], own_run, asked, more)
            continue
        second = seconds.get(group[0])
        accounts: list[dict[str, Any]] = []
        if background == "all":
            scanners = [
                _tester(Scanner(models[name], chosen, kind, prior), models[name], second)
                for name in group
            ]
            if isinstance(first.basis, BlockBasis) and second is None and len(group) == 1:
                from bayeslmm.genome import families

                scanners = [families.FamilyScanner(first, chosen, kind, prior)]
                if block_size is None:
                    run = replace(run, block_size=families.variants_in_block(len(first.y)))
            if elsewhere is not None:
                first_one = scanners[0]  # whose rotation the others share
                (first_one if isinstance(first_one, Scanner) else first_one.one).rotate_on(
                    elsewhere
                )
            found = run.columns(scanners)
        else:
            found, accounts = _by_chromosome(first, run, chosen, prior, background, second)
        for name, columns in zip(group, found, strict=True):
            one = models[name]
            more = scan_account(one, chosen, second)
            more |= {"background": accounts or "all", "coding": coding} | about
            if (note := two_valued_note(one)) is not None:
                more["phenotype"] = note
                log.info("%s: %s.", one.phenotype, note)
            if "bayes" in chosen:
                more |= {"effect_prior": str(prior), "h2_prior": repr(one.h2_prior)}
            calls = None
            if prior_odds is not None:
                more["prior_odds"] = prior_odds
                calls = partial(_calls, prior_odds=prior_odds)
            results[name] = Tabulation(
                own.variants,
                columns,
                partial(_variant_columns, one, chosen, second),
                partial(_variant_counts, second),
                more,
                calls,
            )
    return {name: results[name] for name in models}


def describe(model: LMM, prior: EffectPrior) -> dict[str, Any]:
    """All of a model that a scan depends on, for a checkpoint."""
    from bayeslmm.runs.checkpoints import digest

    source = model.kernel
    if isinstance(source, Basis):
        kernel = digest(np.asarray(source.values), source.samples)
    elif isinstance(source, SparseGRM):
        K = source.matrix
        kernel = digest(K.data, K.indices, K.indptr, source.samples)
    elif isinstance(source, GRM):
        kernel = digest(source.matrix, source.samples)
    else:
        kernel = ""
    return {
        "formula": model.formula,
        "phenotype": digest(model.y),
        "covariates": digest(model.C.to_numpy()),
        "samples": digest(model.ids),
        "kernel": kernel,
        "h2_prior": repr(model.h2_prior),
        "effect_prior": repr(prior),
    }


def _refuse_for_cases(
    background: str, two_terms: bool, effect_prior: Any, prior_odds: float | None
) -> None:
    """An `InputError` for options that a scan of cases and controls does not have."""
    used = {
        "background": background != "all",
        "interaction and coding='genotypic'": two_terms,
        "effect_prior": effect_prior is not None,
        "prior_odds": prior_odds is not None,
    }
    wrong = [name for name, is_used in used.items() if is_used]
    if wrong:
        raise InputError(f"family='binomial' has no {', '.join(wrong)}. Leave it out.")


def _case_scan(
    model: LMM, run: Run, tests: tuple[str, ...] | None, about: dict[str, Any]
) -> Tabulation:
    from bayeslmm.binary.scan import CaseScanner, case_account, case_columns, case_counts, check

    scanner = CaseScanner(model, check(model, tests))
    (found,) = run.columns([scanner])
    return Tabulation(
        run.genotypes.variants,
        found,
        partial(case_columns, model, scanner),
        case_counts,
        case_account(model, scanner) | about,
    )


def _tester(scanner: Scanner, model: LMM, second: SecondTerm | None) -> Scanner | PairScanner:
    return scanner if second is None else PairScanner(scanner, model, second)


def _sharing_a_rotation(models: Mapping[str, LMM]) -> list[list[str]]:
    """Names of models with the same samples on the same basis, together."""
    groups: dict[Any, list[str]] = {}
    for name, model in models.items():
        # Families are not rotated apart from their tests: nothing to share (genome.families).
        alone = isinstance(model.basis, BlockBasis)
        key = name if alone else (id(model.basis), tuple(model.ids))
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _by_chromosome(
    model: LMM,
    run: Run,
    tests: tuple[str, ...],
    prior: EffectPrior,
    background: Background,
    second: SecondTerm | None,
) -> tuple[list[Columns], list[dict[str, Any]]]:
    """Each chromosome against a background of its own: columns, and what the backgrounds were."""
    from bayeslmm.genome.backgrounds import chromosome_kernels, null_of, scanner_of

    if not model.has_kernel:
        raise InputError(f"background='{background}' needs a kernel; this LMM has none.")
    if isinstance(model.relatedness, SparseGRM):
        raise InputError(
            f"background='{background}' takes a chromosome out of a dense relatedness matrix. A "
            "sparse one is of families, nearly the same whichever chromosome is left out: use "
            "background='all', or a dense matrix (bl.grm)."
        )
    null = null_of(model)
    # However it was found, the search of each chromosome begins at the same place.
    ratio = round(null.log_ratio, 1)
    chroms = run.genotypes.variants.chrom.astype(str).to_numpy()
    parts: list[tuple[np.ndarray, Columns]] = []
    accounts = []
    total = len(pd.unique(chroms))
    for kernel in track(
        chromosome_kernels(model, run.genotypes, background, ratio),
        "Chromosomes",
        total=total,
        show=run.progress,
    ):
        one = scanner_of(kernel.model, tests, run.dtype, prior, kernel.start, null, kernel.lacking)
        scanner = _tester(one, kernel.model, second)
        part = replace(
            run,
            genotypes=run.genotypes.select(variants=chroms == kernel.chrom),
            label=f"{run.label}-chromosome-{kernel.chrom}",
        )
        if not one.parallel:
            part = replace(part, workers=1, blas=run.workers)
        (found,) = replace(part, progress=False).columns([scanner])
        parts.append((np.flatnonzero(chroms == kernel.chrom), found))
        accounts.append(kernel.account | {"h2": scanner.h2})
        del one, scanner, kernel  # n x n matrices: gone before the next chromosome's are made
    return [scattered(parts, len(chroms))], accounts


@dataclass(frozen=True)
class Run:
    """How a pass over variants is done: of which, how precisely, by how many threads.

    Each of the workers has `blas` threads in matrix products. `kept`, if given, keeps the
    rotated variants for further passes with other covariates. With a checkpoint or a Dask client
    the pass is done in parts (`runs.streaming`); `label` names them, and `identity` is what
    they depend on beside the genotypes. With `in_parts` the results stay there.
    """

    genotypes: Genotypes
    dtype: np.dtype
    workers: int
    block_size: int | None
    progress: bool | None
    coding: Coding = "additive"
    blas: int = 1
    kept: dict[tuple[int, int], tuple[CenteredBlock, Any]] | None = None
    checkpoint: Checkpoint | None = None
    client: Client | None = None
    label: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    in_parts: bool = False

    @property
    def size(self) -> int:
        """Variants in a block."""
        if self.block_size is not None:
            return self.block_size
        return max(16, self.genotypes.block_size() // 2)

    def all_variants(
        self, scanners: Sequence[Scanner | PairScanner | CaseScanner]
    ) -> list[dict[str, np.ndarray]]:
        """Columns of every scanner; the scanners share the rotation."""
        if self.checkpoint is None and self.client is None:
            return self._in_one_go(scanners)
        from bayeslmm.runs.streaming import by_parts

        return by_parts(self, scanners)

    def columns(self, scanners: Sequence[Scanner | PairScanner | CaseScanner]) -> list[Columns]:
        """Columns of every scanner, in memory or in the parts of the checkpoint."""
        if self.in_parts:
            from bayeslmm.runs.streaming import kept_columns

            return list(kept_columns(self, scanners))
        m = self.genotypes.n_variants
        return [WholeColumns(found, m) for found in self.all_variants(scanners)]

    def _in_one_go(
        self, scanners: Sequence[Scanner | PairScanner | CaseScanner]
    ) -> list[dict[str, np.ndarray]]:
        m = self.genotypes.n_variants
        tables: list[dict[str, np.ndarray]] = [{} for _ in scanners]
        for block, found in track(
            self.blocks(scanners, self.genotypes.block_ranges(self.size)),
            "Scan",
            total=m,
            size=lambda result: result[0].stop - result[0].start,
            show=self.progress,
        ):
            for table, columns in zip(tables, found, strict=True):
                for name, values in columns.items():
                    if name not in table:
                        table[name] = np.empty(m, dtype=values.dtype)
                    table[name][block.start : block.stop] = values
        return tables

    def blocks(
        self,
        scanners: Sequence[Scanner | PairScanner | CaseScanner],
        ranges: Iterable[tuple[int, int]],
    ) -> Iterator[tuple[CenteredBlock, list[dict[str, np.ndarray]]]]:
        """Blocks of variants without their dosages, and every scanner's columns of them."""
        basis = scanners[0].basis
        if basis is not None and not hasattr(scanners[0], "read"):
            basis.prepare(self.dtype)

        def work(span: tuple[int, int]) -> tuple[CenteredBlock, list[dict[str, np.ndarray]]]:
            block, x = (self.kept or {}).get(span) or self._prepared(span, scanners[0])
            about = {
                "eaf": block.eaf,
                "n_missing": block.n_missing,
                "variance": block.sum_sq / self.genotypes.n_samples,
            }
            return block, [scanner.test(block, x) | about for scanner in scanners]

        with blas_threads(self.blas):
            yield from map_ahead(work, ranges, workers=self.workers)

    def _prepared(
        self, span: tuple[int, int], scanner: Scanner | PairScanner | CaseScanner
    ) -> tuple[CenteredBlock, Any]:
        if (read := getattr(scanner, "read", None)) is not None:
            return read(self.genotypes, span, self.coding)
        block = recode(self.genotypes.centered_block(*span, dtype=self.dtype), self.coding)
        prepared = scanner.prepare(block)
        block = block.without_dosages()
        if self.kept is not None:
            self.kept[span] = block, prepared
        return block, prepared


def _calls(log10_bf: np.ndarray, prior_odds: float) -> dict[str, np.ndarray]:
    """Posterior probability of association, and the mean of its complement above it."""
    from scipy.special import expit

    ppa = expit(np.log(prior_odds) + np.log(10) * log10_bf)
    order = np.argsort(-log10_bf)  # NaN are last
    false = np.cumsum(expit(-np.log(prior_odds) - np.log(10) * log10_bf[order]))
    bfdr = np.empty_like(ppa)
    bfdr[order] = false / np.arange(1, len(ppa) + 1)
    return {"ppa": ppa, "bfdr": bfdr}


def variant_table(
    model: LMM, genotypes: Genotypes, tests: tuple[str, ...], found: dict[str, np.ndarray]
) -> pd.DataFrame:
    """The table of a scan from columns by name, and its attributes."""
    table = _variant_columns(model, tests, None, genotypes.variants, found)
    table.attrs = scan_account(model, tests, None) | _variant_counts(None, found)
    return table


def _variant_columns(
    model: LMM,
    tests: tuple[str, ...],
    second: SecondTerm | None,
    variants: pd.DataFrame,
    found: dict[str, np.ndarray],
) -> pd.DataFrame:
    """The table of some variants."""
    table = variants[["chrom", "pos", "id", "ea", "oa"]].reset_index(drop=True)
    table["eaf"] = found["eaf"]
    table["n"] = len(model.y)
    table["n_missing"] = found["n_missing"]
    table["beta"], table["se"] = found["beta"], found["se"]
    with_p = [test for test in tests if test != "bayes" and second is None]
    if second is not None:
        table = table.assign(**pairs.columns(second, found))
    for test in with_p:
        table[f"p_{test}"] = 10.0 ** found[f"log10_{test}"]
    if with_p:
        table["neg_log10_p"] = -found[f"log10_{with_p[0]}"]
    if second is None:
        table["pve"] = found["beta"] ** 2 * found["variance"] / np.var(model.y)
        for name in ("l_remle", *bayes_factors.COLUMNS):
            if name in found:
                table[name] = found[name]
    return table


def scan_account(model: LMM, tests: tuple[str, ...], second: SecondTerm | None) -> dict[str, Any]:
    """What a table's attributes say of the scan."""
    about = provenance() | {"formula": model.formula, "tests": list(tests)}
    return about if second is None else about | second.account()


def _variant_counts(second: SecondTerm | None, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many variants, and how many of them could not be tested."""
    testable, monomorphic = found["testable"], found["variance"] == 0
    counts = {
        "n_variants": len(testable),
        "n_monomorphic": int(monomorphic.sum()),
        "n_explained_by_covariates": int((~testable & ~monomorphic).sum()),
    }
    if second is not None:
        inestimable = testable & ~found["estimable"]
        counts[f"n_{second.suffix}_not_estimable"] = int(inestimable.sum())
    return counts


def lambda_gc(p: pd.Series | np.ndarray) -> float:
    """Genomic control factor: median chi-squared of the p-values over its expectation.

    Parameters
    ----------
    p : array of p-values
        NaN are left out.

    References
    ----------
    Devlin B, Roeder K (1999). Genomic control for association studies. Biometrics 55:997.

    Examples
    --------
    >>> import numpy as np
    >>> round(lambda_gc(np.linspace(0.0005, 0.9995, 1000)), 2)
    1.0
    """
    from scipy.special import chdtri

    values = np.asarray(p, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        raise InputError("lambda_GC needs at least one p-value.")
    return float(chdtri(1, np.median(values)) / chdtri(1, 0.5))
