r"""What stands behind a tested variant: all of the genome, the rest of it, or rest + chromosome.

With K of all variants the tested one is in its own background; without its chromosome (LOCO)
what that chromosome makes relatives share is missing, which in families inflates the tests. The
third way keeps both, each with a variance of its own:

    V = s2_rest K_rest + s2_chrom K_chrom + s2_e I.

For each chromosome the split q = s2_chrom kappa_chrom / (s2_rest kappa_rest + s2_chrom
kappa_chrom) is set at its REML estimate under the null model, and the ratio of the genetic to
the residual variance is estimated again for every variant, as in the scan with one kernel.

A kernel for each chromosome would need a decomposition for each. A scan needs less: the
statistics at a few Chebyshev nodes of the log ratio r next to the null model's, where

    x' V^-1 x = |L^-1 x|^2,   r K / kappa + I = L L',

costs a Cholesky factor and a triangular solve a node, a tenth of the decomposition. Variants
whose optimum is not between the nodes (strong effects) are tested in the eigenbasis, which is
made for their chromosome only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.genome import bayes_factors
from bayeslmm.genome.association import Background, Scanner
from bayeslmm.genome.bayes_factors import LOG_RANGE
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.nodes import (
    HALF_WIDTH,
    Products,
    Weights,
    cardinal,
    chebyshev,
    maximise_on_nodes,
    nodes_for,
    series,
)
from bayeslmm.relatedness.dense import GRM, grm
from bayeslmm.runs.progress import quiet

if TYPE_CHECKING:
    from bayeslmm.inputs.genotypes import Genotypes
    from bayeslmm.model.lmm import LMM
    from bayeslmm.priors import EffectPrior

# Fewer samples than this are decomposed at once: nothing is gained otherwise.
_SMALL = 300
# Half the width of the nodes' range, in log ratio, for tests at the optimum ...
_NARROW = 0.3
# ... and in posterior standard deviations for what is integrated over h2.
_DEVIATIONS = 7.0
# Interpolation errors, relative, for products in float32 and float64.
_ERROR = {np.dtype(np.float32): 3e-6, np.dtype(np.float64): 1e-7}
# A decomposition is made by one of the threads that ask for it.
_decomposing = Lock()
_POINTS, _POINT_WEIGHTS = np.polynomial.legendre.leggauss(64)


@dataclass(frozen=True)
class Kernel:
    """The background of one chromosome's variants.

    Attributes
    ----------
    chrom : str
        The chromosome.
    model : LMM
        The same model with this background as its kernel.
    start : float
        About where its log ratio is.
    account : dict
        What the result says of it: variants in it and of the chromosome, h2.
    """

    chrom: str
    model: LMM
    start: float
    account: dict[str, Any]


def chromosome_kernels(
    model: LMM, genotypes: Genotypes, background: Background, start: float
) -> Iterator[Kernel]:
    """The background of each chromosome of `genotypes`.

    `start` is the log ratio of the model with all variants.

    Raises
    ------
    InputError
        If the model's kernel does not know its variants, or lacks a chromosome.
    """
    source = model.grm
    if source is None or not (source.parts or source.genotypes is not None):
        raise InputError(
            f"background='{background}' leaves chromosomes out of the relatedness matrix, but the "
            "model's kernel does not know its variants: give LMM the result of bl.grm(genotypes), "
            "or make it with by_chrom=True before it is saved."
        )
    if source.pair_counts is not None or source.weights is not None:
        raise InputError(
            f"background='{background}' takes a chromosome's sum out of that of all variants, but "
            "this relatedness matrix is divided by pairs (pairwise=True) or weighted: make one "
            "with bl.grm(genotypes)."
        )
    known = (
        list(source.parts) if source.parts else list(pd.unique(source.genotypes.variants.chrom))  # type: ignore[union-attr]
    )
    labels = [str(label) for label in pd.unique(genotypes.variants.chrom)]
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise InputError(
            f"background='{background}': chromosome {listing(unknown)} of the tested variants is "
            f"not among those of the relatedness matrix ({listing(known, limit=30)}): nothing "
            "would be left out there."
        )
    if len(known) == 1:
        raise InputError(
            f"background='{background}' needs at least two chromosomes, but the relatedness "
            f"matrix has {known[0]} only."
        )
    whole = _on(source, model.ids)
    total = whole.matrix * whole.n_variants
    for label in labels:
        part = _part(source, label, model.ids)
        n_rest = whole.n_variants - part.n_variants
        rest = _like(whole, (total - part.matrix * part.n_variants) / n_rest, n_rest)
        if background == "rest+chrom":
            kernel, share = _mixture(model, rest, part, start)
            near = start
        else:
            kernel, share = rest, 0.0
            near = _without(start, part.n_variants / whole.n_variants)
        yield Kernel(
            label,
            model.with_kernel(kernel),
            near,
            {
                "chrom": label,
                "n_variants_rest": n_rest,
                "n_variants_chrom": part.n_variants if background == "rest+chrom" else 0,
                "share_chrom": share,
            },
        )


def _without(log_ratio: float, share: float) -> float:
    """About the log ratio when variants that are this share of all are left out.

    Among unrelated people h2 falls by the share; in families, where the others tell as much of
    relatedness, it stays. In between.
    """
    h2 = (1 - share) / (1 + np.exp(-log_ratio))
    return 0.5 * (log_ratio + float(np.log(h2) - np.log1p(-h2)))


def log_ratio_of(model: LMM) -> tuple[float, float]:
    """Log ratio of a model's REML estimate, and its standard error (NaN at an end).

    From the eigenbasis if that is made already or costs little, else between nodes.
    """
    if model.has_basis or len(model.y) < _SMALL:
        fit = model.reml()
        inner = min(max(fit.h2, 1e-6), 1 - 1e-6)
        return float(np.log(inner) - np.log1p(-inner)), fit.h2_se / (inner * (1 - inner))
    assert model.grm is not None
    center = model.has_intercept
    K, _ = _unit(_on(model.grm, model.ids).matrix, center=center)
    K = np.asfortranarray(K, dtype=np.float32)
    data = likelihood.rotate(None, model.y, model.C.to_numpy())
    found = _locate(data, K, 0.0, 1.0, 6, skip_intercept=center)
    t = found.reml - found.center
    second = np.polynomial.chebyshev.chebder(series(_profile(data, found.weights, "reml")[0]), 2)
    curvature = -float(np.polynomial.chebyshev.chebval(t, second))
    return found.reml, 1 / np.sqrt(curvature) if curvature > 0 and abs(t) < 1 else np.nan


def _part(source: GRM, label: str, ids: pd.Index) -> GRM:
    """K of one chromosome's variants on some samples."""
    if source.parts:
        matrix, count = source.parts[label]
        if count == 0:
            raise InputError(f"Chromosome {label} has no polymorphic variant.")
        one = GRM(matrix / count, source.samples, count, source.scale)
    else:
        assert source.genotypes is not None
        chosen = (source.genotypes.variants.chrom == label).to_numpy()
        with quiet("bayeslmm"):  # the whole matrix has told what it left out
            one = grm(
                source.genotypes.select(variants=chosen),
                scale=source.scale,  # type: ignore[arg-type]
                progress=False,
            )
    return _on(one, ids)


def _on(source: GRM, ids: pd.Index) -> GRM:
    """The matrix on some samples, itself if they are all of its own: not to be written to."""
    return source if source.samples.equals(ids) else source.subset(ids)


def _mixture(model: LMM, rest: GRM, part: GRM, start: float) -> tuple[GRM, float]:
    """The two kernels in the proportion that REML finds, and the chromosome's share."""
    center = model.has_intercept
    K_rest, K_part = (
        np.asfortranarray(_unit(one.matrix, center=center)[0], dtype=np.float32)
        for one in (rest, part)
    )
    data = likelihood.rotate(None, model.y, model.C.to_numpy())
    at = [start]

    def profile(q: float) -> float:
        K = np.float32(1 - q) * K_rest + np.float32(q) * K_part
        found = _locate(data, K, at[0], _NARROW, 3, skip_intercept=center)
        at[0] = found.reml
        return found.best

    n_variants = rest.n_variants + part.n_variants
    q = _maximise_share(profile, part.n_variants / n_variants)
    mixture = (1 - q) * K_rest.astype(np.float64) + q * K_part
    return _like(rest, mixture, n_variants), q


def _like(source: GRM, matrix: np.ndarray, n_variants: int) -> GRM:
    """Another matrix of the same samples."""
    return GRM(matrix, source.samples, n_variants, source.scale)


def _maximise_share(profile: Callable[[float], float], start: float) -> float:
    """Maximum over q in [0, 1) of a smooth function with one mode, by successive parabolas."""
    tried = {0.0: profile(0.0), start: profile(start)}
    third = min(2.5 * start, 0.5 * (1 + start)) if tried[start] > tried[0.0] else start / 3
    tried[third] = profile(third)
    for _ in range(12):
        best = max(tried, key=lambda q: tried[q])
        order = sorted(tried)
        i = order.index(best)
        if i == len(order) - 1:
            new = min(2 * best, 0.5 * (1 + best))
        elif i == 0:
            new = order[1] / 3
        else:
            left, mid, right = order[i - 1 : i + 2]
            slope_l = (tried[mid] - tried[left]) / (mid - left)
            slope_r = (tried[right] - tried[mid]) / (right - mid)
            new = 0.5 * (left + mid) + slope_l * (right - left) / (2 * (slope_l - slope_r))
        step = min(abs(new - q) for q in tried)
        # The likelihood is flat to 1e-3 within a hundredth of a share's own size.
        if step < 0.02 * start + 0.01 * best:
            break
        tried[new] = profile(new)
    return max(tried, key=lambda q: tried[q])


def _unit(K: np.ndarray, *, center: bool) -> tuple[np.ndarray, float]:
    """K, centred if there is an intercept, over its mean diagonal; and that."""
    K = np.array(K, dtype=np.float64)
    if center:
        mean = K.mean(axis=0)
        K -= mean
        K -= (mean - mean.mean())[:, None]
    kappa = float(np.trace(K)) / len(K)
    return K / kappa, kappa


# -- statistics without a decomposition ------------------------------------------------------


@dataclass(frozen=True)
class CholeskyWeights(Weights):
    """Nodes of a kernel that is not decomposed.

    Attributes
    ----------
    factors : list of ndarray, shape (n, n)
        Lower Cholesky factors of r K + I at each of N nodes.
    span : ndarray, shape (n, p)
        Covariates that variants are not centred on.
    linear : ndarray, shape (n, N (1 + p))
        P y at each node, then w C L^-T for each.
    between : ndarray, shape (N, k)
        Takes values at the nodes to those at k further ratios, which G counts too.
    """

    factors: list[np.ndarray]
    span: np.ndarray
    linear: np.ndarray
    between: np.ndarray

    def products(self, x: np.ndarray) -> Products:
        """Products of variants in rows (v, n)."""
        from scipy.linalg.blas import dtrsm, strsm

        solve = strsm if x.dtype == np.float32 else dtrsm
        squares = np.empty((len(x), len(self.factors)))
        for g, factor in enumerate(self.factors):
            white = solve(1.0, factor, x.T, lower=1)
            squares[:, g] = np.einsum("nv,nv->v", white, white)
        span, linear = (x @ columns for columns in (self.span, self.linear))
        return Products(squares, span.astype(np.float64), linear.astype(np.float64))

    def at_nodes(self, products: Products) -> tuple[np.ndarray, np.ndarray]:
        """a and b of variants, at the nodes and at the further ratios."""
        N, p = len(self.factors), self.span.shape[1]
        b, a = products.linear[:, :N], products.squares
        crossed = products.linear[:, N:].reshape(len(a), N, p)
        a = a - np.einsum("vgp,vgp->vg", crossed, crossed)
        return np.hstack([a, a @ self.between]), np.hstack([b, b @ self.between])


def _cholesky_weights(
    data: likelihood.Rotated,
    K: np.ndarray,
    log_ratio: np.ndarray,
    *,
    skip_intercept: bool,
) -> CholeskyWeights:
    """The null model at nodes of r K + I, K over its mean diagonal, in the precision of K."""
    from scipy.linalg import cholesky, solve_triangular

    n, dtype = data.n, K.dtype
    both = np.column_stack([data.y, data.C]).astype(dtype)
    first = int(skip_intercept)
    factors, Py, crossed = [], [], []
    Q, logdet, logdet_d = (np.empty(len(log_ratio)) for _ in range(3))
    for g, t in enumerate(log_ratio):
        V = K * dtype.type(np.exp(t))
        V[np.diag_indices(n)] += 1
        L = cholesky(V, lower=True, overwrite_a=True, check_finite=False)
        white = solve_triangular(L, both, lower=True, check_finite=False).astype(np.float64)
        q, R = np.linalg.qr(white[:, 1:])
        residual = white[:, 0] - q @ (q.T @ white[:, 0])
        right = np.column_stack([residual, q[:, first:]]).astype(dtype)
        back = solve_triangular(L, right, lower=True, trans=1, check_finite=False)
        Q[g] = residual @ residual
        logdet_d[g] = 2 * np.log(np.diagonal(L).astype(np.float64)).sum()
        logdet[g] = logdet_d[g] + 2 * np.log(np.abs(np.diagonal(R))).sum()
        factors.append(L)
        Py.append(back[:, 0])
        crossed += list(back[:, 1:].T)
    linear = np.ascontiguousarray(np.array(Py + crossed).T)
    none = np.empty((len(log_ratio), 0))
    span = both[:, 1 + first :]
    return CholeskyWeights(log_ratio, Q, logdet, logdet_d, factors, span, linear, none)


def _profile(data: likelihood.Rotated, weights: Weights, kind: str) -> np.ndarray:
    """Profile log-likelihood of the null model at the nodes, (1, G)."""
    if kind == "reml":
        return -0.5 * (weights.logdet + data.df * np.log(weights.Q))[None]
    return -0.5 * (weights.logdet_d + data.n * np.log(weights.Q))[None]


@dataclass(frozen=True)
class _Located:
    """Nodes around the null model's REML ratio, that ratio, and the likelihood there."""

    weights: CholeskyWeights
    center: float
    reml: float
    best: float


def _locate(
    data: likelihood.Rotated,
    K: np.ndarray,
    start: float,
    half_width: float,
    nodes: int,
    *,
    skip_intercept: bool,
) -> _Located:
    """Move the nodes until the null model's REML ratio is well inside them."""
    low, high = (end + half_width * sign for end, sign in zip(LOG_RANGE, (1, -1), strict=True))
    center = float(np.clip(start, low, high))
    left, right = LOG_RANGE  # what the optimum is known to lie between
    step = half_width
    moves = 40
    while True:
        at = center + half_width * chebyshev(nodes)
        weights = _cholesky_weights(data, K, at, skip_intercept=skip_intercept)
        t, best = maximise_on_nodes(_profile(data, weights, "reml"), np.ones(1))
        found = center + half_width * float(t[0])
        if abs(t[0]) < 1:
            moved = found
        elif t[0] > 0:
            left, moved, step = found, found + step, 2 * step
        else:
            right, moved, step = found, found - step, 2 * step
        # Steps grow, but not over what is known; next to an end it may lie on either side.
        if not left < moved < right:
            moved = 0.5 * (left + right)
        moved = float(np.clip(moved, low, high))
        if moves == 0 or abs(t[0]) <= 0.5 or abs(moved - center) < 0.1 * half_width:
            return _Located(weights, center, found, float(best[0]))
        center, moves = moved, moves - 1
        del weights  # the factors are as large as the matrix: not twice at a time


class CholeskyScanner(Scanner):
    """Tests of variants against a null model whose kernel is not decomposed."""

    # SciPy's triangular solves hold the interpreter: threads are of use within them only.
    parallel = False

    def __init__(
        self,
        model: LMM,
        tests: tuple[str, ...],
        dtype: np.dtype,
        effect_prior: EffectPrior,
        start: float,
        half_width: float,
    ) -> None:
        self.basis = None
        self.model = model
        self._eigen: Scanner | None = None
        self._kind = (tests, dtype, effect_prior)
        data = likelihood.rotate(None, model.y, model.C.to_numpy())
        K, kappa = _unit(model.grm.matrix, center=model.has_intercept)  # type: ignore[union-attr]
        self._specify(model, replace(data, kappa=kappa), tests, dtype, effect_prior)
        self.exact = bool({"wald", "lrt"} & set(tests))
        nodes = nodes_for(half_width, _ERROR[dtype])
        K = np.asfortranarray(K, dtype=dtype)
        found = _locate(data, K, start, half_width, nodes, skip_intercept=self.skip)
        self.center, self.half_width, self.reml = found.center, half_width, found.reml
        ml = _profile(data, found.weights, "ml")
        top = np.minimum((found.reml + HALF_WIDTH - self.center) / half_width, 1)
        t_ml, best = maximise_on_nodes(ml, np.atleast_1d(top))
        self.null_ml = self.null_ml_interpolated = float(best[0])
        further = np.array([found.reml, self.center + half_width * t_ml[0]])
        if "bayes" in tests:
            self.bayes = self._null_posterior(found.weights)
            further = np.concatenate([self.bayes.log_ratio, further])
        between = cardinal((further - self.center) / half_width, nodes).T
        Q, logdet, logdet_d = (
            np.append(v, v @ between)
            for v in (found.weights.Q, found.weights.logdet, found.weights.logdet_d)
        )
        log_ratio = np.append(found.weights.log_ratio, further)
        self.weights = replace(
            found.weights,
            log_ratio=log_ratio,
            Q=Q,
            logdet=logdet,
            logdet_d=logdet_d,
            between=between,
        )
        self.window, self.sentinels = slice(0, nodes), slice(0, 0)
        self.integrated = slice(nodes, nodes + len(further) - 2)

    def _null_posterior(self, weights: CholeskyWeights) -> bayes_factors.NullPosterior:
        """The null posterior of h2 between the nodes."""
        t = self.center + self.half_width * _POINTS
        h2 = 1 / (1 + np.exp(-t))
        loglik = _profile(self.data, weights, "reml")[0] @ cardinal(_POINTS, weights.G).T
        jacobian = t - 2 * np.logaddexp(0, t)
        log_density = loglik + jacobian + self.h2_prior.log_density(h2)
        log_w = log_density + np.log(self.half_width * _POINT_WEIGHTS)
        log_integral = float(np.logaddexp.reduce(log_w))
        found = bayes_factors.rules_for(h2, np.exp(log_w - log_integral), log_integral)
        # Next to an end: in a twentieth of the range.
        ends = bayes_factors.Rule(
            len(found.log_ratio) + np.arange(2),
            log_density[[0, -1]] - log_integral + np.log(self.half_width / 10),
            np.zeros((2, 2)),
        )
        return replace(found, log_ratio=np.append(found.log_ratio, t[[0, -1]]), ends=ends)

    @property
    def eigen(self) -> Scanner:
        """The same model in its eigenbasis, made when first needed."""
        if self._eigen is None:
            with _decomposing:
                if self._eigen is None:
                    self._eigen = Scanner(self.model, *self._kind)
        return self._eigen

    def _search_widely(self, kind: str, x: np.ndarray, limit: np.ndarray) -> np.ndarray:
        return self.eigen._search_widely(kind, self.eigen.rotate(x), limit)

    def _integrate_again(
        self, null: bayes_factors.NullPosterior, x: np.ndarray, width: np.ndarray
    ) -> dict[str, float]:
        assert self.eigen.bayes is not None
        rotated = self.eigen.rotate(x[None])[0]
        return self.eigen._integrate_again(self.eigen.bayes, rotated, width)


def scanner_of(
    model: LMM,
    tests: tuple[str, ...],
    dtype: np.dtype,
    effect_prior: EffectPrior,
    start: float,
    error: float,
) -> Scanner:
    """The cheapest scanner that is right: between nodes, or in the eigenbasis.

    Parameters
    ----------
    model : LMM
        With the background of a chromosome as its kernel.
    tests, dtype, effect_prior
        As `Scanner` takes them.
    start, error : float
        About where its log ratio is, and the standard error of it.
    """
    half_width = _NARROW
    if "bayes" in tests:
        half_width = max(half_width, _DEVIATIONS * error)
    inside = LOG_RANGE[0] + 2 * half_width < start < LOG_RANGE[1] - 2 * half_width
    if (
        len(model.y) < _SMALL
        or not half_width <= HALF_WIDTH
        or not inside
        or (model.h2_prior.spike and "bayes" in tests)
    ):
        return Scanner(model, tests, dtype, effect_prior)
    return CholeskyScanner(model, tests, dtype, effect_prior, start, half_width)
