r"""The genome scan: exact tests of every variant from one pass of matrix products.

For a variant x on the basis, and at a node of the variance ratio r = s2_g kappa / s2_e
with weights w = 1 / (r s + 1), the statistics are

    a = x' P x,   b = x' P y,   Q = y' P y,   RSS = Q - b^2 / a,

P the covariate-adjusted weight (`bayeslmm.likelihood`). All nodes' a and b come from one
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
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm import likelihood
from bayeslmm.errors import InputError, listing
from bayeslmm.genotypes import CenteredBlock, Genotypes, as_genotypes
from bayeslmm.progress import blas_threads, map_ahead, track
from bayeslmm.provenance import provenance
from bayeslmm.tails import log10_p_chi2, log10_p_f

if TYPE_CHECKING:
    from bayeslmm.lmm import LMM

TESTS = ("wald", "lrt", "score", "p3d")
# GEMMA's range of the variance ratio, here with kappa scaled out.
_LOG_RANGE = (float(np.log(1e-5)), float(np.log(1e5)))
_HALF_WIDTH = 1.5
_NODES = 12
_CHEBYSHEV = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
_TO_COEFFICIENTS = np.linalg.inv(np.polynomial.chebyshev.chebvander(_CHEBYSHEV, _NODES - 1))
_TRIAL = np.linspace(-1, 1, 25)
_TRIAL_VALUES = np.polynomial.chebyshev.chebvander(_TRIAL, _NODES - 1).T
_COLLINEAR = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-9}


@dataclass(frozen=True)
class Weights:
    """Columns of the stacked product for G values of the variance ratio.

    Attributes
    ----------
    log_ratio : ndarray, shape (G,)
        Logs of the ratio r.
    square : ndarray, shape (n, G)
        w, to be multiplied with x squared.
    linear : ndarray, shape (n, G (1 + k))
        P y for each node, then w C L^-T for each, k adjusting covariates.
    Q, logdet, logdet_d : ndarray, shape (G,)
        y'Py, sum log(r s + 1) + log|A|, and sum log(r s + 1).
    """

    log_ratio: np.ndarray
    square: np.ndarray
    linear: np.ndarray
    Q: np.ndarray
    logdet: np.ndarray
    logdet_d: np.ndarray

    @property
    def G(self) -> int:
        """Number of nodes."""
        return len(self.log_ratio)

    def statistics(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """a and b for rotated variants in rows, shape (v, n): two arrays (v, G), float64."""
        linear = (x @ self.linear).astype(np.float64)
        b = linear[:, : self.G]
        a = ((x * x) @ self.square).astype(np.float64)
        crossed = linear[:, self.G :].reshape(len(x), self.G, -1)
        a -= np.einsum("vgk,vgk->vg", crossed, crossed)
        return a, b


def stacked_weights(
    data: likelihood.Rotated, log_ratio: np.ndarray, *, skip_intercept: bool, dtype: np.dtype
) -> Weights:
    """Weights for the given nodes; the intercept is skipped where variants are centred on it."""
    ratio = np.exp(log_ratio)
    h2 = ratio / (1 + ratio)
    t = likelihood.terms(data, h2)
    G, n, c = len(ratio), data.n, data.C.shape[1]
    w = 1 / (ratio[:, None] * data.s + 1)
    Py = w * (data.y - t.b @ data.C.T)
    # terms() is for d = (1 - h2) (r s + 1): scale to the weights used here.
    unit = 1 - h2
    first = 1 if skip_intercept else 0
    whitened = np.linalg.solve(t.L, np.broadcast_to(data.C.T, (G, c, n)))
    crossed = (whitened * w[:, None, :] / np.sqrt(unit)[:, None, None])[:, first:, :]
    linear = np.concatenate([Py, crossed.reshape(G * (c - first), n)]).T
    return Weights(
        log_ratio,
        np.ascontiguousarray(w.T, dtype=dtype),
        np.ascontiguousarray(linear, dtype=dtype),
        t.Q * unit,
        t.logdet - data.df * np.log(unit),
        t.logdet_d - n * np.log(unit),
    )


class Scanner:
    """Tests of rotated variants against one null model, for a set of tests."""

    def __init__(self, model: LMM, tests: tuple[str, ...], dtype: np.dtype) -> None:
        self.data = data = model.rotated
        self.tests = tests
        self.dtype = dtype
        self.basis = model.basis
        c = data.C.shape[1]
        self.df = data.n - c - 1
        if self.df < 1:
            raise InputError(
                f"{data.n:,} samples are too few to test a variant with {c} covariates."
            )
        self.skip = c > 0 and model.has_intercept and (self.basis is None or self.basis.centered)
        self.span = data.C[:, int(self.skip) :].astype(dtype)
        self.exact = self.basis is not None and bool({"wald", "lrt"} & set(tests))
        reml = self._null_log_ratio("reml")
        ml = self._null_log_ratio("ml", reml + _HALF_WIDTH)
        low, high = _LOG_RANGE[0] + _HALF_WIDTH, _LOG_RANGE[1] - _HALF_WIDTH
        self.center = float(np.clip(reml, low, high))
        window = self.center + _HALF_WIDTH * _CHEBYSHEV
        sentinels = np.linspace(*_LOG_RANGE, 15)
        sentinels = sentinels[np.abs(sentinels - self.center) > _HALF_WIDTH]
        if not self.exact:
            window, sentinels = window[:0], sentinels[:0]
        self.parts = {
            "window": slice(0, len(window)),
            "sentinels": slice(len(window), len(window) + len(sentinels)),
        }
        nodes = np.concatenate([window, sentinels, [reml, ml]])
        self.at_reml, self.at_ml = len(nodes) - 2, len(nodes) - 1
        self.weights = self._weights(nodes)
        null = -0.5 * (self.weights.logdet_d + data.n * np.log(self.weights.Q))
        self.null_ml = float(null[self.at_ml])
        # The same interpolation as the variants': its error, 1e-7, cancels in the ratio,
        # which matters where a variant explains nothing and p is next to 1.
        self.null_ml_interpolated = self.null_ml
        if self.exact:
            top = self._in_window(np.array([reml + _HALF_WIDTH]))
            best = float(_maximise_chebyshev(null[None, self.parts["window"]], top)[1][0])
            if abs(best - self.null_ml) < 1e-6 * data.n:
                self.null_ml_interpolated = best
        self._wide: list[tuple[float, Weights]] | None = None

    def _weights(self, nodes: np.ndarray) -> Weights:
        return stacked_weights(self.data, nodes, skip_intercept=self.skip, dtype=self.dtype)

    def _in_window(self, log_ratio: np.ndarray) -> np.ndarray:
        """Log ratios on the scale of the window, -1 to 1."""
        return np.clip((log_ratio - self.center) / _HALF_WIDTH, -1, 1)

    def _null_log_ratio(self, kind: Literal["reml", "ml"], limit: float = np.inf) -> float:
        if self.basis is None:
            return 0.0
        from bayeslmm.lmm import maximise

        loglik = likelihood.restricted_loglik if kind == "reml" else likelihood.full_loglik
        largest = 1 / (1 + np.exp(-limit))
        h2 = maximise(lambda h: np.where(h <= largest, loglik(self.data, h), -np.inf))
        with np.errstate(divide="ignore"):
            return float(np.clip(np.log(h2) - np.log1p(-h2), *_LOG_RANGE))

    def test(self, block: CenteredBlock) -> dict[str, np.ndarray]:
        """Columns of the table for a block of centred variants, NaN where there is no test."""
        x = block.x if self.basis is None else self.basis.rotate_rows(block.x)
        a, b = self.weights.statistics(x)
        raw = block.sum_sq
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = np.square(x @ self.span, dtype=np.float64).sum(axis=1) / raw
            testable = (raw > 0) & (1 - explained > _COLLINEAR[self.dtype])
        a[~testable], b[~testable] = 1, 0
        out: dict[str, np.ndarray] = {"testable": testable}
        with np.errstate(divide="ignore", invalid="ignore"):
            self._plug_in(out, a, b)
            if self.exact:
                self._exact(out, x, a, b, testable)
            elif self.basis is None:
                self._regression(out, a, b)
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
        """Tests that fix the ratio at its null estimate: score (ML) and p3d (REML)."""
        i = self.at_reml
        out["beta"], out["se"], f = self._wald(a[:, i], b[:, i], self.weights.Q[i])
        if "p3d" in self.tests:
            out["log10_p3d"] = log10_p_f(f, self.df)
        if "score" in self.tests:
            i = self.at_ml
            f = self.data.n * b[:, i] ** 2 / (self.weights.Q[i] * a[:, i])
            out["log10_score"] = log10_p_f(f, self.df)

    def _regression(self, out: dict[str, np.ndarray], a: np.ndarray, b: np.ndarray) -> None:
        i, n = self.at_reml, self.data.n
        Q = self.weights.Q[i]
        f = self._wald(a[:, i], b[:, i], Q)[2]
        out["log10_wald"] = log10_p_f(f, self.df)
        out["log10_lrt"] = log10_p_chi2(-n * np.log1p(-(b[:, i] ** 2) / a[:, i] / Q))

    def _exact(
        self,
        out: dict[str, np.ndarray],
        x: np.ndarray,
        a: np.ndarray,
        b: np.ndarray,
        testable: np.ndarray,
    ) -> None:
        """Tests with the ratio at each variant's own optimum: Wald (REML) and LRT (ML)."""
        window, sentinels = self.parts["window"], self.parts["sentinels"]
        limit = np.full(len(x), _LOG_RANGE[1])
        for kind in ("reml", "ml"):
            if kind == "ml" and "lrt" not in self.tests:
                continue
            loglik = self._profile(kind, self.weights, a, b, slice(0, sentinels.stop))
            inside = loglik[:, window]
            t, best = _maximise_chebyshev(inside, self._in_window(limit))
            allowed = self.weights.log_ratio[sentinels] <= limit[:, None]
            outside = loglik[:, sentinels].max(axis=1, initial=-np.inf, where=allowed)
            low, high = self.center - _HALF_WIDTH, self.center + _HALF_WIDTH
            stuck = ((t <= -1) & (low > _LOG_RANGE[0] + 1e-9)) | (
                (t >= 1) & (high < _LOG_RANGE[1] - 1e-9)
            )
            again = np.flatnonzero(testable & (stuck | (outside > best)))
            log_ratio = self.center + _HALF_WIDTH * t
            at = [_interpolate(v[:, window], t) for v in (np.log(a), b)]
            Q = _interpolate(np.broadcast_to(self.weights.Q[window], inside.shape), t)
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
                limit = np.minimum(log_ratio + _HALF_WIDTH, _LOG_RANGE[1])
            else:
                out["log10_lrt"] = log10_p_chi2(2 * np.maximum(best - null, 0))

    def _profile(
        self, kind: str, weights: Weights, a: np.ndarray, b: np.ndarray, nodes: slice
    ) -> np.ndarray:
        """Profile log-likelihood with the variant in the model, at some nodes, (v, nodes)."""
        a, b = a[:, nodes], b[:, nodes]
        rss = np.maximum(weights.Q[nodes] - b * b / a, 1e-300)
        if kind == "reml":
            return -0.5 * (weights.logdet[nodes] + np.log(a) + self.df * np.log(rss))
        return -0.5 * (weights.logdet_d[nodes] + self.data.n * np.log(rss))

    def _search_widely(self, kind: str, x: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """Optimum from the least ratio to `limit`: loglik, log ratio, a, b, Q; shape (5, v)."""
        if self._wide is None:
            panels = int(np.ceil((_LOG_RANGE[1] - _LOG_RANGE[0]) / (2 * _HALF_WIDTH)))
            edges = np.linspace(*_LOG_RANGE, panels + 1)
            half = (edges[1] - edges[0]) / 2
            centers = edges[:-1] + half
            self._wide = [(float(m), self._weights(m + half * _CHEBYSHEV)) for m in centers]
        half = (_LOG_RANGE[1] - _LOG_RANGE[0]) / len(self._wide) / 2
        found = np.full((5, len(x)), -np.inf)
        for middle, weights in self._wide:
            a, b = weights.statistics(x)
            top = np.clip((limit - middle) / half, -1, 1)
            profile = self._profile(kind, weights, a, b, slice(None))
            t, best = _maximise_chebyshev(profile, top)
            Q = np.broadcast_to(weights.Q, a.shape)
            here = np.array(
                [
                    best,
                    middle + half * t,
                    np.exp(_interpolate(np.log(a), t)),
                    _interpolate(b, t),
                    _interpolate(Q, t),
                ]
            )
            better = (best > found[0]) & (limit >= middle - half)
            found[:, better] = here[:, better]
        return found


def _maximise_chebyshev(values: np.ndarray, top: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum on [-1, top] of the polynomials with these values (v, 12) at Chebyshev nodes."""
    chebyshev = np.polynomial.chebyshev
    coefficients = np.nan_to_num(values, nan=0.0) @ _TO_COEFFICIENTS.T
    trial = coefficients @ _TRIAL_VALUES
    start = np.argmax(np.where(top[:, None] >= _TRIAL, trial, -np.inf), axis=1)
    t = _TRIAL[start]
    low, high = _TRIAL[np.maximum(start - 1, 0)], _TRIAL[np.minimum(start + 1, len(_TRIAL) - 1)]
    high = np.minimum(high, top)
    first = chebyshev.chebder(coefficients.T)
    second = chebyshev.chebder(first)
    for _ in range(6):
        slope = chebyshev.chebval(t, first, tensor=False)
        curvature = chebyshev.chebval(t, second, tensor=False)
        rising = slope > 0
        low, high = np.where(rising, t, low), np.where(rising, high, t)
        newton = t - slope / curvature
        good = (curvature < 0) & (newton >= low) & (newton <= high)
        t = np.where(good, newton, 0.5 * (low + high))
    # At an end of the interval the bracket closes on it; the end itself may be best.
    best = chebyshev.chebval(t, coefficients.T, tensor=False)
    for end in (np.full_like(top, -1), top):
        at_end = chebyshev.chebval(end, coefficients.T, tensor=False)
        t, best = np.where(at_end >= best, end, t), np.maximum(best, at_end)
    return t, best


def _interpolate(values: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Polynomials with these values (v, 12) at Chebyshev nodes, each at its own t (v,)."""
    cardinal = np.polynomial.chebyshev.chebvander(t, _NODES - 1) @ _TO_COEFFICIENTS
    return np.einsum("vg,vg->v", values, cardinal)


def scan(
    model: LMM,
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    tests: str | Iterable[str] = ("wald",),
    *,
    dtype: Literal["float32", "float64"] = "float32",
    threads: int | None = None,
    block_size: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Test every variant for association, one at a time, in a linear mixed model.

    Parameters
    ----------
    model : LMM
        Phenotype, covariates and kernel; without kernel this is plain linear
        regression.
    genotypes : Genotypes, path or array (n, m)
        Must hold every analysed sample; matched by id.
    tests : str or several of them
        ``"wald"``: F test with the variance ratio at each variant's REML optimum (the
        default; gives beta, se and p_wald); ``"lrt"``: likelihood-ratio test with the
        ratio at its ML optimum under both models; ``"score"``: score test at the null
        model's ML ratio; ``"p3d"``: F test with the ratio fixed at the null model's
        REML estimate (EMMAX, P3D).
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

    Returns
    -------
    DataFrame
        One row per variant: chrom, pos, id, ea (effect allele), oa, eaf (its frequency
        among the analysed samples), n (analysed), n_missing (dosages set to the mean),
        beta (phenotype units per effect allele) and se, a p-value for each test,
        neg_log10_p (of the first test; finite where p underflows), pve (share of the
        phenotype's variance: beta^2 var(x) / var(y)), and l_remle (s2_g / s2_e at the
        variant's REML optimum) for exact tests. With these, beta and se are at that
        optimum too, else at the null model's ratio. Monomorphic variants and those that
        covariates explain have NA. Attributes: provenance, counts of both.

    Raises
    ------
    InputError
        For unknown tests, and for samples without genotypes.

    References
    ----------
    Zhou X, Stephens M (2012). Genome-wide efficient mixed-model analysis for
    association studies. Nat Genet 44:821. doi:10.1038/ng.2310
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
    chosen = (tests,) if isinstance(tests, str) else tuple(tests)
    unknown = [test for test in chosen if test not in TESTS]
    if unknown or not chosen:
        raise InputError(f"tests={listing(unknown)}: expected one or more of {listing(TESTS)}.")
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype='{dtype}' is unknown; expected 'float32' or 'float64'.")
    genotypes = as_genotypes(genotypes)
    absent = model.ids.difference(genotypes.samples.index)
    if len(absent):
        raise InputError(
            f"{genotypes.name}: {len(absent):,} of the {len(model.ids):,} analysed samples have no "
            f"genotypes there: {listing(absent)}. Its sample ids look like "
            f"{listing(genotypes.samples.index[:2])}."
        )
    if not genotypes.samples.index.equals(model.ids):
        genotypes = genotypes.select(samples=model.ids)
    # Without kernel nothing is rotated: reading takes the time, not the precision.
    kind = np.dtype(dtype if model.basis is not None else "float64")
    scanner = Scanner(model, chosen, kind)
    if block_size is None:
        block_size = max(16, genotypes.block_size() // 2)
    ranges = genotypes.block_ranges(block_size)
    workers = threads or os.cpu_count() or 1
    if scanner.basis is not None and kind == np.float32:
        _ = scanner.basis.vectors32  # made once, before the threads need it

    def work(span: tuple[int, int]) -> tuple[CenteredBlock, dict[str, np.ndarray]]:
        block = genotypes.centered_block(*span, dtype=kind)
        columns = scanner.test(block)
        return _without_dosages(block), columns

    m = genotypes.n_variants
    table: dict[str, np.ndarray] = {}
    with blas_threads(1):
        results = map_ahead(work, ranges, workers=workers)
        for block, columns in track(
            results,
            "Scan",
            total=m,
            size=lambda result: result[0].stop - result[0].start,
            show=progress,
        ):
            columns |= {
                "eaf": block.eaf,
                "n_missing": block.n_missing,
                "variance": block.sum_sq / genotypes.n_samples,
            }
            for name, values in columns.items():
                if name not in table:
                    table[name] = np.empty(m, dtype=values.dtype)
                table[name][block.start : block.stop] = values
    return _table(model, genotypes, chosen, table)


def _without_dosages(block: CenteredBlock) -> CenteredBlock:
    empty = np.empty((0, 0), dtype=block.x.dtype)
    return CenteredBlock(
        block.start, block.stop, empty, block.eaf, block.n_missing, block.sum_sq, None
    )


def _table(
    model: LMM, genotypes: Genotypes, tests: tuple[str, ...], found: dict[str, np.ndarray]
) -> pd.DataFrame:
    variants = genotypes.variants
    table = variants[["chrom", "pos", "id", "ea", "oa"]].reset_index(drop=True)
    table["eaf"] = found["eaf"]
    table["n"] = len(model.y)
    table["n_missing"] = found["n_missing"]
    table["beta"], table["se"] = found["beta"], found["se"]
    for test in tests:
        table[f"p_{test}"] = 10.0 ** found[f"log10_{test}"]
    table["neg_log10_p"] = -found[f"log10_{tests[0]}"]
    table["pve"] = found["beta"] ** 2 * found["variance"] / np.var(model.y)
    if "l_remle" in found:
        table["l_remle"] = found["l_remle"]
    monomorphic = found["variance"] == 0
    attrs: dict[str, Any] = provenance() | {
        "formula": model.formula,
        "tests": list(tests),
        "n_variants": len(table),
        "n_monomorphic": int(monomorphic.sum()),
        "n_explained_by_covariates": int((~found["testable"] & ~monomorphic).sum()),
    }
    table.attrs = attrs
    return table


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
