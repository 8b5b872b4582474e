r"""Genome-wide significance from null phenotypes, a thousand at once.

Phenotypes of the same samples share the rotation of every variant: R of them cost R more
columns in a product that has n anyhow. Each has a null model of its own, at its own REML ratio
r; x' V^-1 x is interpolated between Chebyshev nodes that all share, and x' P y is a product with
one vector per phenotype. The statistic is that of `p3d`; the few best variants of each phenotype
are then tested exactly, as the scan does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes
from bayeslmm.model.snps import aligned
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.chebyshev import NODES, cardinal, chebyshev
from bayeslmm.numerics.nodes import (
    HALF_WIDTH,
    LOG_RANGE,
    interpolate,
    maximise_on_nodes,
    stacked_weights,
    varies_beyond,
)
from bayeslmm.numerics.tails import log10_p_f
from bayeslmm.runs.progress import blas_threads, map_ahead, track, worker_count

if TYPE_CHECKING:
    from bayeslmm.model.lmm import LMM

# Variants of each phenotype that are tested exactly in the end.
_BEST = 5


class ManyNulls:
    """Null models of many phenotypes of the same samples, each at its own REML ratio.

    Parameters
    ----------
    model : LMM
        Samples, covariates and kernel.
    Y : ndarray, shape (n, R)
        Phenotypes, on the basis (rotated by U').
    dtype : numpy dtype
        Precision of the products with variants.
    """

    def __init__(self, model: LMM, Y: np.ndarray, dtype: np.dtype) -> None:
        self.data = data = model.rotated
        self.basis = model.basis
        self.df = data.df - 1
        centered = self.basis is None or self.basis.centered
        self.skip = data.C.shape[1] > 0 and model.has_intercept and centered
        # The rotated covariates are orthonormal.
        Y = Y - data.C @ (data.C.T @ Y)
        self.log_ratio = np.full(Y.shape[1], LOG_RANGE[0])
        if self.basis is not None:
            self.log_ratio = _reml_log_ratios(data, Y)
        low = self.log_ratio.min()
        panels = 1 + int((self.log_ratio.max() - low) // (2 * HALF_WIDTH))
        starts = low + 2 * HALF_WIDTH * np.arange(panels)
        at = (starts[:, None] + HALF_WIDTH * (1 + chebyshev())).ravel()
        self.weights = stacked_weights(data, at, skip_intercept=self.skip, dtype=dtype)
        position = (self.log_ratio - low) / HALF_WIDTH
        panel = np.minimum(position // 2, panels - 1).astype(int)
        between = np.zeros((Y.shape[1], panels, NODES))
        between[np.arange(Y.shape[1]), panel] = cardinal(position - 2 * panel - 1)
        self.between = between.reshape(Y.shape[1], -1).T
        Py, self.Q = _projected(data, Y, self.log_ratio)
        self.Py = np.ascontiguousarray(Py, dtype=dtype)
        self.covariates = data.C[:, int(self.skip) :].astype(dtype)

    def f_statistics(self, x: np.ndarray) -> np.ndarray:
        """F statistics with 1 and n - c - 1 degrees of freedom of rotated variants, (v, R)."""
        a, _ = self.weights.statistics(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = np.square(x @ self.Py, dtype=np.float64) / (a @ self.between)
            return explained / ((self.Q - explained) / self.df)

    def testable(self, x: np.ndarray, sum_sq: np.ndarray) -> np.ndarray:
        """Which rotated variants (v, n) vary beyond what covariates explain, booleans (v,)."""
        return varies_beyond(x @ self.covariates, sum_sq, self.Py.dtype)

    def smallest_log10_p(self, y: np.ndarray, r: int, x: np.ndarray) -> float:
        """Smallest log10 p of rotated variants (v, n) for phenotype r, each at its optimum."""
        data = replace(self.data, y=y - self.data.C @ (self.data.C.T @ y))
        if self.basis is None:
            return float(log10_p_f(self.f_statistics(x)[:, r], self.df).min())
        inner = (LOG_RANGE[0] + HALF_WIDTH, LOG_RANGE[1] - HALF_WIDTH)
        at = np.clip(self.log_ratio[r], *inner) + HALF_WIDTH * chebyshev()
        weights = stacked_weights(data, at, skip_intercept=self.skip, dtype=x.dtype)
        a, b = weights.statistics(x)
        explained = b * b / a
        rss = weights.Q - explained
        loglik = -0.5 * (weights.logdet + np.log(a) + self.df * np.log(rss))
        t, _ = maximise_on_nodes(loglik, np.ones(len(x)))
        f = interpolate(np.log(explained), t) - interpolate(np.log(rss), t)
        return float(log10_p_f(np.exp(f) * self.df, self.df).min())


def _reml_log_ratios(data: likelihood.Rotated, Y: np.ndarray) -> np.ndarray:
    """REML estimates of log s2_g kappa / s2_e for each phenotype, (R,)."""
    panels = int(np.ceil((LOG_RANGE[1] - LOG_RANGE[0]) / (2 * HALF_WIDTH)))
    half = (LOG_RANGE[1] - LOG_RANGE[0]) / panels / 2
    best = np.full(Y.shape[1], -np.inf)
    found = np.full(Y.shape[1], LOG_RANGE[0])
    squares = Y * Y
    for i in range(panels):
        center = LOG_RANGE[0] + half * (2 * i + 1)
        loglik = np.empty((Y.shape[1], NODES))
        for g, t in enumerate(center + half * chebyshev()):
            w = 1 / (np.exp(t) * data.s + 1)
            L = np.linalg.cholesky((data.C.T * w) @ data.C)
            crossed = np.linalg.solve(L, (data.C.T * w) @ Y)
            Q = w @ squares - (crossed * crossed).sum(axis=0)
            logdet = -np.log(w).sum() + 2 * np.log(np.diagonal(L)).sum()
            loglik[:, g] = -0.5 * (logdet + data.df * np.log(Q))
        t_best, value = maximise_on_nodes(loglik, np.ones(len(loglik)))
        better = value > best
        best[better], found[better] = value[better], center + half * t_best[better]
    return found


def _projected(
    data: likelihood.Rotated, Y: np.ndarray, log_ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """P y (n, R) and y'Py (R,), each phenotype at its own ratio."""
    W = 1 / (np.exp(log_ratio) * data.s[:, None] + 1)
    WY = W * Y
    if data.C.shape[1]:
        A = np.einsum("ni,nr,nj->rij", data.C, W, data.C, optimize=True)
        b = np.linalg.solve(A, (data.C.T @ WY).T[..., None])[..., 0]
        WY -= W * (data.C @ b.T)
    return WY, (Y * WY).sum(axis=0)


def null_phenotypes(
    model: LMM,
    replicates: int,
    *,
    method: Literal["simulate", "permute"] = "simulate",
    seed: int | np.random.Generator | None = None,
) -> np.ndarray:
    """Phenotypes without any tested effect, on the basis, shape (n, replicates).

    ``"simulate"`` draws h2 and s2 from their posterior for each phenotype and simulates from
    the model; ``"permute"`` permutes decorrelated residuals at the REML estimate (Abney 2015,
    Genet Epidemiol 39:249), for phenotypes that are not normal. Covariate effects are left
    out: the tests do not depend on them.
    """
    rng = np.random.default_rng(seed)
    data = model.rotated
    if method == "simulate":
        drawn = model.draw_posterior(
            replicates, rng, density=None if model.basis is None else model.h2_posterior()
        )
        h2 = drawn["h2"] if model.basis is not None else np.zeros(replicates)
        d = drawn["s2"] * np.maximum(1 + h2 * (data.s[:, None] - 1), 0)
        return np.sqrt(d) * rng.standard_normal((data.n, replicates))
    estimate = model.reml().h2 if model.basis is not None else 0.0
    root = 1 / np.sqrt(likelihood.weights(data, estimate))
    complement = np.linalg.qr(data.C / root[:, None], mode="complete")[0][:, data.C.shape[1] :]
    residuals = complement.T @ (data.y / root)
    permuted = rng.permuted(np.tile(residuals, (replicates, 1)), axis=1)
    return root[:, None] * (complement @ permuted.T)


@dataclass(frozen=True)
class Threshold:
    """A significance threshold that holds over all variants of a scan.

    Attributes
    ----------
    p : float
        Threshold: among null phenotypes, a share `alpha` has a smaller p somewhere.
    interval : (float, float)
        95% interval of it, for the number of null phenotypes is finite.
    alpha : float
        Genome-wide error rate.
    effective_tests : float
        Number of independent tests with the same threshold (Sidak).
    min_p : ndarray, shape (replicates,)
        Smallest p of each null phenotype.
    """

    p: float
    interval: tuple[float, float]
    alpha: float
    effective_tests: float
    min_p: np.ndarray = field(repr=False)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"p < {self.p:.3g} ({low:.2g} to {high:.2g}) holds the error over all variants "
            f"at {self.alpha:g}: as {self.effective_tests:,.0f} independent tests "
            f"({len(self.min_p):,} null phenotypes)"
        )

    __repr__ = __str__


def significance_threshold(
    model: LMM,
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    *,
    alpha: float = 0.05,
    replicates: int = 1000,
    method: Literal["simulate", "permute"] = "simulate",
    seed: int | None = None,
    threads: int | None = None,
    block_size: int | None = None,
    progress: bool | None = None,
) -> Threshold:
    """The p-value that null phenotypes of these samples reach by chance, genome-wide.

    Accounts for the correlation of the variants and for relatedness, which Bonferroni's
    correction does not. Each null phenotype is scanned for its best variants with the ratio
    fixed at its null estimate, and these are tested exactly.

    Parameters
    ----------
    model : LMM
        Samples, covariates, kernel; the phenotype sets h2 and s2.
    genotypes : Genotypes, path or array (n, m)
        The variants that are tested.
    alpha : float
        Genome-wide error rate.
    replicates : int
        Null phenotypes. They share one pass.
    method : {"simulate", "permute"}
        From the model, h2 and s2 drawn from their posterior; or by permutation of
        decorrelated residuals, for phenotypes that are not normal.
    seed : int, optional
        For reproducible phenotypes.
    threads, block_size, progress
        As in `bayeslmm.scan`.

    Returns
    -------
    Threshold

    Raises
    ------
    InputError
        For parameters out of range, samples without genotypes, and where no variant can be
        tested.

    References
    ----------
    Churchill GA, Doerge RW (1994). Empirical threshold values for quantitative trait mapping.
    Genetics 138:963. doi:10.1093/genetics/138.3.963
    Abney M (2015). Permutation testing in the presence of polygenic variation. Genet Epidemiol
    39:249. doi:10.1002/gepi.21893

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> x = rng.integers(0, 3, size=(100, 50))
    >>> model = bl.LMM(rng.normal(size=100))
    >>> print(f"{bl.significance_threshold(model, x, replicates=200, seed=1).p:.1g}")
    0.001
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha must be in (0, 1), but is {alpha:g}.")
    if replicates < 1 / alpha:
        raise InputError(
            f"{replicates:,} replicates are too few for alpha = {alpha:g}: at least "
            f"{int(np.ceil(1 / alpha)):,} are needed, and ten times as many for a good estimate."
        )
    if method not in ("simulate", "permute"):
        raise InputError(f"method='{method}' is unknown; expected 'simulate' or 'permute'.")
    genotypes = aligned(model, as_genotypes(genotypes))
    dtype = np.dtype("float32" if model.basis is not None else "float64")
    Y = null_phenotypes(model, replicates, method=method, seed=seed)
    nulls = ManyNulls(model, Y, dtype)
    found, value = best_variants(nulls, genotypes, _BEST, threads, block_size, progress)
    if (value < 0).all():
        raise InputError(
            f"{genotypes.name}: none of {genotypes.n_variants:,} variants can be tested: they are "
            "monomorphic or explained by covariates."
        )
    min_p = 10 ** _exact(nulls, Y, genotypes, found, value)
    ordered = np.sort(min_p)
    k = int(np.floor(alpha * (replicates + 1)))
    p = float(ordered[k - 1])
    from scipy.stats import binom

    ranks = np.clip(binom.ppf([0.025, 0.975], replicates, alpha).astype(int), 1, replicates)
    interval = float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1])
    return Threshold(p, interval, alpha, float(np.log1p(-alpha) / np.log1p(-p)), min_p)


def best_variants(
    nulls: ManyNulls,
    genotypes: Genotypes,
    keep: int,
    threads: int | None,
    block_size: int | None,
    progress: bool | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Each phenotype's `keep` variants with the largest F: positions and F, two arrays (R, keep).

    F is -1 where a variant cannot be tested.
    """
    dtype = nulls.Py.dtype
    if nulls.basis is not None:
        nulls.basis.prepare(dtype)

    def work(span: tuple[int, int]) -> tuple[int, np.ndarray, np.ndarray]:
        block = genotypes.centered_block(*span, dtype=dtype)
        x = block.x if nulls.basis is None else nulls.basis.rotate_rows(block.x)
        f = nulls.f_statistics(x)
        f = np.where(np.isfinite(f) & nulls.testable(x, block.sum_sq)[:, None], f, -1.0)
        top = np.argpartition(f, -min(keep, len(f)), axis=0)[-min(keep, len(f)) :]
        return block.stop - block.start, block.start + top, np.take_along_axis(f, top, axis=0)

    size = max(16, genotypes.block_size() // 2) if block_size is None else block_size
    R = nulls.Py.shape[1]
    where, value = np.zeros((0, R), dtype=int), np.zeros((0, R))
    with blas_threads(1):
        results = map_ahead(work, genotypes.block_ranges(size), workers=worker_count(threads))
        for _, top, f in track(
            results,
            "Null phenotypes",
            total=genotypes.n_variants,
            size=lambda result: result[0],
            show=progress,
        ):
            where, value = np.concatenate([where, top]), np.concatenate([value, f])
            order = np.argsort(-value, axis=0)[:keep]
            where = np.take_along_axis(where, order, axis=0)
            value = np.take_along_axis(value, order, axis=0)
    return where.T, value.T


def _exact(
    nulls: ManyNulls, Y: np.ndarray, genotypes: Genotypes, found: np.ndarray, value: np.ndarray
) -> np.ndarray:
    """Smallest log10 p of each phenotype's variants, by the exact Wald test, (R,)."""
    dtype = nulls.Py.dtype
    variants, position = np.unique(found, return_inverse=True)
    position = position.reshape(found.shape)
    chosen = np.zeros(genotypes.n_variants, dtype=bool)
    chosen[variants] = True
    view = genotypes.select(variants=chosen)
    x = view.centered_block(0, view.n_variants, dtype).x
    x = x if nulls.basis is None else nulls.basis.rotate_rows(x)
    return np.array(
        [
            nulls.smallest_log10_p(Y[:, r], r, x[rows[value[r] >= 0]])
            for r, rows in enumerate(position)
        ]
    )
