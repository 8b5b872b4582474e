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

    x' V^-1 x = |L^-1 x|^2,   V = r K / kappa + I = L L',

costs a Cholesky factor and a triangular solve a node, a tenth of the decomposition.

Next to one ratio r0 it costs less. With W = V(r0)^-1, whose eigenvalues w are in (0, 1],

    V(r)^-1 = f(W),   f(w) = w / (rho + (1 - rho) w),   rho = r / r0,

and f is next to a polynomial of low degree k on the range of w: x' V(r)^-1 x is a combination
of x'x, x'Wx = |L^-1 x|^2, x'W^2 x = |L^-T L^-1 x|^2, ..., which takes *one* factor and k
triangular solves for all r near r0. Among unrelated people two serve, in families four or five.
log|V(r)| takes factors at a few ratios: between them its difference from the curve of all
variants' K is interpolated, which is smoother than it is itself.

Variants whose optimum is not between the nodes (strong effects) are tested between further
nodes; those whose optimum is beyond them in the eigenbasis, which is made for their chromosome
only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.genome import bayes_factors
from bayeslmm.genome.bayes_factors import LOG_RANGE
from bayeslmm.genome.scanner import Scanner
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.chebyshev import cardinal, chebyshev, nodes_for, series
from bayeslmm.numerics.nodes import HALF_WIDTH, Products, Weights, interpolate, maximise_on_nodes
from bayeslmm.relatedness.dense import GRM, grm
from bayeslmm.runs.progress import quiet

if TYPE_CHECKING:
    from bayeslmm.inputs.genotypes import Genotypes
    from bayeslmm.model.lmm import LMM
    from bayeslmm.priors import EffectPrior

type Background = Literal["all", "loco", "rest+chrom"]
BACKGROUNDS = ("all", "loco", "rest+chrom")
# Fewer samples than this are decomposed at once: nothing is gained otherwise.
_SMALL = 300
# Half the width of the nodes' range, in log ratio, for tests at the optimum ...
_NARROW = 0.3
# ... and for what is integrated over h2: as far as there is more than e^ this of the posterior.
_LOG_TAIL = -16.0
_HALF_WIDTHS = np.linspace(_NARROW, 9.0, 88)
# Interpolation errors, relative, for products in float32 and float64.
_ERROR = {np.dtype(np.float32): 3e-6, np.dtype(np.float64): 1e-7}
# The same where powers of one factor's inverse serve: of x' V^-1 x, at the end of the range. The
# tests err by half of that times chi-squared / ln 10 there, and by much less in the middle.
_POWER_ERROR = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-7}
# More powers cost more than a factor for each node, or over a wide range than a decomposition.
_MOST_POWERS, _MOST_POWERS_WIDE = 7, 10
# Of the vectors P y and P C: their last term, next to rounding, and the most there may be.
_VECTOR_ERROR, _MOST_TERMS = 1e-8, 60
_NARROW_NODES = 7
# Where as many powers as this serve, eigenvalues are near 1: people share little.
_FEW_POWERS = 3
# Places in the range, -1 to 1, of the factors that log|V| comes from, the first in the middle: in
# float32, of people who share little and of others, and in float64.
_LOGDET_AT_3 = np.array([0.0, -0.9, 0.9])
_LOGDET_AT_4 = np.array([0.0, -0.9, 0.35, 0.93])
_LOGDET_AT_7 = np.array([0.0, -0.97, -0.78, -0.43, 0.43, 0.78, 0.97])
# How many there are over a wide range.
_LOGDETS = {np.dtype(np.float32): 5, np.dtype(np.float64): 9}
# Of the spectrum of all variants' K.
_PROBES, _STEPS = 8, 30
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
    lacking : float
        Share of all variants that are not in it.
    account : dict
        What the result says of it: variants in it and of the chromosome, h2.
    """

    chrom: str
    model: LMM
    start: float
    lacking: float
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
    for label in labels:
        part = _part(source, label, model.ids)
        n_rest = whole.n_variants - part.n_variants
        # LOCO has no further use for the chromosome's own matrix.
        out = part.matrix if background == "loco" else np.empty_like(part.matrix)
        rest = _like(whole, _difference(whole, part, out), n_rest)
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
            part.n_variants / whole.n_variants if background == "loco" else 0.0,
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


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of a kernel over its mean diagonal, or what stands for them.

    Attributes
    ----------
    values, weights : ndarray, shape (k,)
        Eigenvalues, and how many each stands for; the weights sum to n, or n - 1 without
        the intercept's.
    lacking : float
        Share of the variants that are not in the kernel of interest, but in this one.
    """

    values: np.ndarray
    weights: np.ndarray
    lacking: float = 0.0

    def logdet(self, log_ratio: np.ndarray) -> np.ndarray:
        """log|r K + I| for each log ratio, (G,)."""
        return np.log1p(np.exp(log_ratio)[:, None] * self.values) @ self.weights

    @property
    def ends(self) -> tuple[float, float]:
        """Between which the eigenvalues of the kernel of interest are."""
        return 0.9 * self.values.min(), self.values.max() / (1 - self.lacking)

    def spread(self) -> Spectrum:
        """About that of the kernel of interest, among people who share little.

        There eigenvalues differ from 1 by chance, the more the fewer the variants.
        """
        values = 1 + (self.values - 1) / np.sqrt(1 - self.lacking)
        return replace(self, values=np.maximum(values, 0))


@dataclass(frozen=True)
class Null:
    """The null model with all variants: where that of a chromosome is looked for.

    Attributes
    ----------
    log_ratio, error : float
        Log ratio of the REML estimate, and its standard error (NaN at an end).
    spectrum : Spectrum
        Of the kernel.
    """

    log_ratio: float
    error: float
    spectrum: Spectrum


def null_of(model: LMM) -> Null:
    """The model's REML estimate and spectrum.

    From the eigenbasis if that is made already or costs little, else between nodes.
    """
    if model.has_basis or len(model.y) < _SMALL:
        fit = model.reml()
        inner = min(max(fit.h2, 1e-6), 1 - 1e-6)
        log_ratio = float(np.log(inner) - np.log1p(-inner))
        s = np.sort(model.rotated.s)[int(model.has_intercept) :]
        error = fit.h2_se / (inner * (1 - inner))
        return Null(log_ratio, error, Spectrum(s, np.ones(len(s))))
    assert model.grm is not None
    center = model.has_intercept
    K = _unit(_on(model.grm, model.ids).matrix, np.dtype(np.float32), center=center)[0]
    data = likelihood.rotate(None, model.y, model.C.to_numpy())
    found = _locate(data, K, 0.0, 1.0, 6, skip_intercept=center)
    t = found.reml - found.center
    second = np.polynomial.chebyshev.chebder(series(_profile(data, found.weights, "reml")[0]), 2)
    curvature = -float(np.polynomial.chebyshev.chebval(t, second))
    error = 1 / np.sqrt(curvature) if curvature > 0 and abs(t) < 1 else np.nan
    return Null(found.reml, error, _spectrum(K, center=center))


def _spectrum(K: np.ndarray, *, center: bool) -> Spectrum:
    """Gauss rules of K's eigenvalues by Lanczos from random vectors.

    Of a centred K without the intercept, whose eigenvalue of 0 no variant meets.

    Their ends are those of the spectrum; sums over it err by a percent or less, which the
    curve that others are compared with may.

    References
    ----------
    Ubaru S, Chen J, Saad Y (2017). Fast estimation of tr(f(A)) via stochastic Lanczos
    quadrature. SIAM J Matrix Anal Appl 38:1075.
    """
    n = len(K)
    rng = np.random.default_rng(0)
    v = rng.choice(np.array([-1, 1], dtype=K.dtype), size=(n, _PROBES))
    v = v - v.mean(axis=0) if center else v
    v /= np.sqrt(np.einsum("np,np->p", v, v))
    steps = min(_STEPS, n - 1)
    basis = np.empty((steps, n, _PROBES), dtype=K.dtype)
    diagonal, beside = np.empty((steps, _PROBES)), np.empty((steps, _PROBES))
    for i in range(steps):
        basis[i] = v
        w = K @ v
        diagonal[i] = np.einsum("np,np->p", v, w)
        for _ in range(2):  # orthogonal to all before, twice, is enough
            before = basis[: i + 1]
            w -= np.einsum("knp,kp->np", before, np.einsum("knp,np->kp", before, w))
        beside[i] = np.sqrt(np.einsum("np,np->p", w, w))
        if beside[i].min() < 1e-5:
            steps = i + 1
            break
        v = w / beside[i].astype(K.dtype)
    from scipy.linalg import eigh_tridiagonal

    values, weights = [], []
    for p in range(_PROBES):
        ritz, vectors = eigh_tridiagonal(diagonal[:steps, p], beside[: steps - 1, p])
        weight = (n - center) / _PROBES * vectors[0] ** 2
        # What the vectors did not have came in by rounding, such as the intercept.
        there = weight > 1e-6
        values.append(np.maximum(ritz[there], 0))
        weights.append(weight[there])
    return Spectrum(np.concatenate(values), np.concatenate(weights))


def _part(source: GRM, label: str, ids: pd.Index) -> GRM:
    """K of one chromosome's variants on some samples."""
    if source.parts:
        part, count = source.parts[label]
        if count == 0:
            raise InputError(f"Chromosome {label} has no polymorphic variant.")
        matrix = part.full()
        matrix /= count
        one = GRM(matrix, source.samples, count, source.scale)
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
        _unit(one.matrix, np.dtype(np.float32), center=center)[0] for one in (rest, part)
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


def _difference(whole: GRM, part: GRM, out: np.ndarray) -> np.ndarray:
    """K of the variants of `whole` that are not in `part`, put into `out`."""
    n_rest = whole.n_variants - part.n_variants

    def work(rows: slice) -> None:
        np.multiply(part.matrix[rows], -part.n_variants / n_rest, out=out[rows])
        out[rows] += whole.matrix[rows] * (whole.n_variants / n_rest)

    _by_rows(len(out), work)
    return out


def _unit(K: np.ndarray, dtype: np.dtype, *, center: bool) -> tuple[np.ndarray, float]:
    """K, centred if there is an intercept, over its mean diagonal; and that.

    In Fortran's order and of this precision.
    """
    n = len(K)
    mean = K.mean(axis=0) if center else np.zeros(n)
    middle = mean.mean()
    kappa = float(np.trace(K)) / n - middle
    out = np.empty((n, n), dtype=dtype, order="F")

    def work(rows: slice) -> None:
        # K is symmetric: its rows are the columns.
        out.T[rows] = (K[rows] - (mean + mean[rows, None] - middle)) / kappa

    _by_rows(n, work)
    return out, kappa


def _by_rows(n: int, work: Callable[[slice], None]) -> None:
    """Do some rows of a matrix at a time, which stay in the cache, by all processors."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(work, (slice(start, start + 32) for start in range(0, n, 32))))


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
        return self._at_nodes(products, len(self.factors))

    def _at_nodes(self, products: Products, N: int) -> tuple[np.ndarray, np.ndarray]:
        b, a, p = products.linear[:, :N], products.squares, self.span.shape[1]
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


@dataclass(frozen=True)
class PowerWeights(CholeskyWeights):
    """Nodes around one ratio, whose factor is the only one.

    Attributes
    ----------
    inverse : InversePolynomial
        What makes V^-1 at each node of the one at that ratio.
    """

    inverse: InversePolynomial

    def products(self, x: np.ndarray) -> Products:
        """Products of variants in rows (v, n)."""
        squares = self.inverse.moments(self.factors[0], x) @ self.inverse.coefficients
        span, linear = (x @ columns for columns in (self.span, self.linear))
        return Products(squares, span.astype(np.float64), linear.astype(np.float64))

    def at_nodes(self, products: Products) -> tuple[np.ndarray, np.ndarray]:
        """a and b of variants, at the nodes and at the further ratios."""
        return self._at_nodes(products, self.inverse.coefficients.shape[1])


@dataclass(frozen=True)
class InversePolynomial:
    """V^-1 = (r K + I)^-1 at N ratios as polynomials of W, which is V^-1 at one ratio.

    In powers of T = (W - middle) / half, whose eigenvalues are between -1 and 1: those of W
    are alike among people who share little, and so are its own powers.

    Attributes
    ----------
    middle, half : float
    coefficients : ndarray, shape (k + 1, N)
        Of the powers of T, lowest first.
    """

    middle: float
    half: float
    coefficients: np.ndarray

    @property
    def degree(self) -> int:
        """The highest power, k: as many triangular solves does it take."""
        return len(self.coefficients) - 1

    def moments(self, factor: np.ndarray, x: np.ndarray) -> np.ndarray:
        """x' T^j x, j = 0 ... k, of variants in rows (v, n): shape (v, k + 1), float64.

        `factor` is the lower Cholesky factor of W^-1.
        """
        from scipy.linalg.blas import dtrsm, strsm

        solve = strsm if x.dtype == np.float32 else dtrsm
        found = np.empty((len(x), self.degree + 1))
        found[:, 0] = np.einsum("vn,vn->v", x, x)
        y = x.T  # T^i x
        for j in range(1, self.degree + 1):
            if j % 2:
                half_way = solve(1.0, factor, y, lower=1)
                y_Wy = np.einsum("nv,nv->v", half_way, half_way)
                found[:, j] = (y_Wy - self.middle * found[:, j - 1]) / self.half
                continue
            solved = solve(1.0, factor, half_way, lower=1, trans_a=1, overwrite_b=1)
            solved -= x.dtype.type(self.middle) * y
            solved /= x.dtype.type(self.half)
            y = solved
            found[:, j] = np.einsum("nv,nv->v", y, y)
        return found


def _inverse_as_polynomial(
    spectrum: Spectrum, log_ratio: float, nodes: np.ndarray, error: float, most: int
) -> InversePolynomial | None:
    """The polynomials for the log ratios `nodes` (N,), of W at `log_ratio`.

    To a relative error of `error`; None if that takes more powers than `most`.
    """
    ends = 1 / (1 + np.exp(log_ratio) * np.array(spectrum.ends))
    middle, half = float(ends.mean()), 0.5 * float(np.ptp(ends))
    t = chebyshev(200)
    w = (middle + half * t)[:, None]
    rho = np.exp(nodes - log_ratio)
    f = w / (rho + (1 - rho) * w)
    for k in range(1, most + 1):
        powers = t[:, None] ** np.arange(k + 1)
        # Least squares of the relative error; the next to the best in the largest.
        found = [np.linalg.lstsq(powers / g[:, None], np.ones(len(t)), rcond=None)[0] for g in f.T]
        coefficients = np.array(found).T
        if np.abs(powers @ coefficients / f - 1).max() <= error:
            return InversePolynomial(middle, half, coefficients)
    return None


def _power_weights(
    data: likelihood.Rotated,
    K: np.ndarray,
    center: float,
    half_width: float,
    spectrum: Spectrum,
    *,
    skip_intercept: bool,
) -> PowerWeights | None:
    """The null model at nodes around one ratio, in the precision of K.

    None if that takes too many powers.
    """
    dtype, first = K.dtype, int(skip_intercept)
    base, nodes, inverse = _powers(spectrum, center, half_width, dtype)
    if inverse is None:
        return None
    wide = half_width > _NARROW
    few = wide or inverse.degree <= _FEW_POWERS
    if wide:
        places = (_middle_first(center, half_width, _LOGDETS[dtype]) - center) / half_width
    elif dtype == np.float64:
        places = _LOGDET_AT_7
    else:
        places = _LOGDET_AT_3 if few else _LOGDET_AT_4
    factor, logdet = _factor_and_logdets(K, center + half_width * places)
    spectrum = spectrum.spread() if few else spectrum
    apart = logdet - spectrum.logdet(center + half_width * places)
    logdet_d = spectrum.logdet(nodes)
    if few:
        # Sums of log(1 + r s), s next to 1, are next to polynomials of h2, and 0 at 0.
        h2, at = (1 / (1 + np.exp(-t)) for t in (center + half_width * places, nodes))
        logdet_d += at * np.polynomial.Polynomial.fit(h2, apart / h2, len(places) - 1)(at)
    else:
        fit = np.polynomial.chebyshev.chebfit(places, apart, len(places) - 1)
        logdet_d += np.polynomial.chebyshev.chebval((nodes - center) / half_width, fit)

    Q, logdet_all = np.empty(len(nodes)), np.empty(len(nodes))
    Py, crossed = [], []
    both = np.column_stack([data.y, data.C])
    for g, solved in enumerate(_inverse_of_vectors(factor, both, nodes - base)):
        L = np.linalg.cholesky(data.C.T @ solved[:, 1:])
        half = np.linalg.solve(L, solved[:, 1:].T)  # (c, n)
        explained = half @ data.y
        Py.append(solved[:, 0] - half.T @ explained)
        Q[g] = data.y @ solved[:, 0] - explained @ explained
        logdet_all[g] = logdet_d[g] + 2 * np.log(np.diagonal(L)).sum()
        crossed += list(half[first:])
    linear = np.ascontiguousarray(np.array(Py + crossed).T, dtype=dtype)
    none = np.empty((len(nodes), 0))
    span = both[:, 1 + first :].astype(dtype)
    return PowerWeights(nodes, Q, logdet_all, logdet_d, [factor], span, linear, none, inverse)


def _powers(
    spectrum: Spectrum, center: float, half_width: float, dtype: np.dtype
) -> tuple[float, np.ndarray, InversePolynomial | None]:
    """The log ratio of the factor, those of the nodes, and the polynomials if they serve."""
    if half_width <= _NARROW:
        base, nodes = center, center + half_width * chebyshev(_NARROW_NODES)
    else:
        base = float(_middle_first(center, half_width, _LOGDETS[dtype])[0])
        nodes = center + half_width * chebyshev(nodes_for(half_width, _ERROR[dtype]))
    most = _MOST_POWERS if half_width <= HALF_WIDTH else _MOST_POWERS_WIDE
    inverse = _inverse_as_polynomial(spectrum, base, nodes, _POWER_ERROR[dtype], most)
    return base, nodes, inverse


def _middle_first(center: float, half_width: float, number: int) -> np.ndarray:
    """Log ratios of Chebyshev nodes in h2 over a range, the one in the middle first."""
    low, high = 1 / (1 + np.exp(-(center + half_width * np.array([-1, 1]))))
    h2 = 0.5 * (low + high) + 0.5 * (high - low) * np.roll(chebyshev(number), -(number // 2))
    return np.log(h2) - np.log1p(-h2)


def _factor_and_logdets(K: np.ndarray, log_ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Cholesky factor of r K + I at the first ratio, and log|r K + I| at each."""
    from scipy.linalg import cholesky

    logdet = np.empty(len(log_ratio))
    buffer = np.empty_like(K)
    factor = K  # replaced by the first
    for g, t in enumerate(log_ratio):
        V = np.multiply(K, K.dtype.type(np.exp(t)), out=buffer)
        V[np.diag_indices(len(K))] += 1
        L = cholesky(V, lower=True, overwrite_a=True, check_finite=False)
        logdet[g] = 2 * np.log(np.diagonal(L).astype(np.float64)).sum()
        if g == 0:
            factor, buffer = L, np.empty_like(K)
    return factor, logdet


def _inverse_of_vectors(factor: np.ndarray, vectors: np.ndarray, shift: np.ndarray) -> np.ndarray:
    r"""V^-1 of vectors (n, q) at log ratios that are shifted from that of the factor: (N, n, q).

    By Lanczos iterations with W, all vectors at a time: V^-1 x = f(W) x is next to
    \|x\| B f(T) e_1, with B their orthonormal basis and T = B' W B tridiagonal.
    """
    from scipy.linalg import cho_solve, eigh_tridiagonal

    n, q = vectors.shape
    rho = np.exp(shift)[:, None]
    norm = np.sqrt(np.einsum("nq,nq->q", vectors, vectors))
    v = vectors / norm
    basis: list[np.ndarray] = []
    diagonal, beside = np.empty((_MOST_TERMS, q)), np.empty((_MOST_TERMS, q))
    terms = np.zeros((q, len(rho), 0))
    for k in range(min(_MOST_TERMS, n)):
        basis.append(v)
        w = cho_solve((factor, True), v.astype(factor.dtype), check_finite=False)
        w = w.astype(np.float64)
        diagonal[k] = np.einsum("nq,nq->q", v, w)
        for _ in range(2):  # orthogonal to all before, twice, is enough
            for before in basis:
                w -= before * np.einsum("nq,nq->q", before, w)
        beside[k] = np.sqrt(np.einsum("nq,nq->q", w, w))
        # What is left of a vector whose space is used up is rounding: no further terms.
        used_up = beside[k] < 1e-6
        beside[k, used_up] = 0
        v = np.where(used_up, 0.0, w / np.where(used_up, 1.0, beside[k]))
        terms = np.empty((q, len(rho), k + 1))
        for i in range(q):
            theta, S = eigh_tridiagonal(diagonal[: k + 1, i], beside[:k, i])
            theta = np.clip(theta, 0, 1)
            terms[i] = theta / (rho + (1 - rho) * theta) * S[0] @ S.T
        size = np.abs(terms).max(axis=2)
        if (np.abs(terms[:, :, -1]) <= _VECTOR_ERROR * size).all():
            break
    return np.einsum("qgk,knq->gnq", terms * norm[:, None, None], np.array(basis))


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
    spectrum: Spectrum | None = None,
) -> _Located:
    """Move the nodes until the null model's REML ratio is well inside them.

    With a spectrum by the powers of one inverse, if these serve.
    """
    low, high = (end + half_width * sign for end, sign in zip(LOG_RANGE, (1, -1), strict=True))
    center = float(np.clip(start, low, high))
    left, right = LOG_RANGE  # what the optimum is known to lie between
    step = half_width
    moves = 40
    while True:
        weights = _weights_at(
            data, K, center, half_width, nodes, spectrum, skip_intercept=skip_intercept
        )
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


def _weights_at(
    data: likelihood.Rotated,
    K: np.ndarray,
    center: float,
    half_width: float,
    nodes: int,
    spectrum: Spectrum | None,
    *,
    skip_intercept: bool,
) -> CholeskyWeights:
    """Nodes around one log ratio: by powers of its inverse, or with a factor each."""
    if spectrum is not None:
        found = _power_weights(data, K, center, half_width, spectrum, skip_intercept=skip_intercept)
        if found is not None:
            return found
    at = center + half_width * chebyshev(nodes)
    return _cholesky_weights(data, K, at, skip_intercept=skip_intercept)


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
        spectrum: Spectrum | None,
    ) -> None:
        self.basis = None
        self.model = model
        self._eigen: Scanner | None = None
        self._wide = None
        self._kind = (tests, dtype, effect_prior)
        data = likelihood.rotate(None, model.y, model.C.to_numpy())
        K, kappa = _unit(model.grm.matrix, dtype, center=model.has_intercept)  # type: ignore[union-attr]
        self._specify(model, replace(data, kappa=kappa), tests, dtype, effect_prior)
        self.exact = bool({"wald", "lrt"} & set(tests))
        for width in sorted({half_width, max(half_width, HALF_WIDTH)}):
            nodes = nodes_for(width, _ERROR[dtype])
            found = _locate(
                data, K, start, width, nodes, skip_intercept=self.skip, spectrum=spectrum
            )
            top = np.minimum((found.reml + HALF_WIDTH - found.center) / width, 1)
            ml = _profile(data, found.weights, "ml")
            t_ml, best = maximise_on_nodes(ml, np.atleast_1d(top))
            # The ML ratio may be far from that of REML: only a wider range has both.
            if abs(t_ml[0]) < 1 or not {"lrt", "score"} & set(tests):
                break
            start = found.reml
        nodes, half_width, self._K = found.weights.G, width, K
        self.center, self.half_width, self.reml = found.center, half_width, found.reml
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
        """Between further nodes, and in the eigenbasis for those whose optimum is beyond."""
        if self.half_width >= HALF_WIDTH:
            return self.eigen._search_widely(kind, self.eigen.rotate(x), limit)
        middle, weights = self.wide_panels()[0]
        a, b = weights.statistics(x)
        top = np.clip((limit - middle) / HALF_WIDTH, -1, 1)
        t, best = maximise_on_nodes(self._profile(kind, weights, a, b, slice(None)), top)
        Q = np.broadcast_to(weights.Q, a.shape)
        at = [np.exp(interpolate(np.log(a), t)), interpolate(b, t), interpolate(Q, t)]
        found = np.array([best, middle + HALF_WIDTH * t, *at])
        beyond = np.flatnonzero((t <= -1) | (t >= 1))
        if len(beyond):
            rotated = self.eigen.rotate(x[beyond])
            found[:, beyond] = self.eigen._search_widely(kind, rotated, limit[beyond])
        return found

    def wide_panels(self) -> list[tuple[float, Weights]]:
        """The middle of a wider range of nodes around the first, and the weights there."""
        if self._wide is None:
            with _decomposing:
                if self._wide is None:
                    low, high = LOG_RANGE[0] + HALF_WIDTH, LOG_RANGE[1] - HALF_WIDTH
                    middle = float(np.clip(self.center, low, high))
                    nodes = middle + HALF_WIDTH * chebyshev(nodes_for(HALF_WIDTH, 1e-7))
                    weights = _cholesky_weights(self.data, self._K, nodes, skip_intercept=self.skip)
                    self._wide = [(middle, weights)]
        return self._wide

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
    null: Null,
    share: float,
) -> Scanner:
    """The cheapest scanner that is right: between nodes, or in the eigenbasis.

    Parameters
    ----------
    model : LMM
        With the background of a chromosome as its kernel.
    tests, dtype, effect_prior
        As `Scanner` takes them.
    start : float
        About where its log ratio is.
    null : Null
        The model with all variants.
    share : float
        Of all variants, those that this kernel lacks.
    """
    half_width = _width_of_posterior(null, start) if "bayes" in tests else _NARROW
    spectrum = replace(null.spectrum, lacking=share)
    # Narrow nodes may have to move.
    reach = half_width + min(half_width, HALF_WIDTH)
    if (
        len(model.y) < _SMALL
        or not LOG_RANGE[0] + reach < start < LOG_RANGE[1] - reach
        or (half_width > HALF_WIDTH and _powers(spectrum, start, half_width, dtype)[-1] is None)
        or (model.h2_prior.spike and "bayes" in tests)
    ):
        return Scanner(model, tests, dtype, effect_prior)
    return CholeskyScanner(model, tests, dtype, effect_prior, start, half_width, spectrum)


def _width_of_posterior(null: Null, start: float) -> float:
    """Half the width of a range of log ratios around `start` that has nearly all of it.

    Infinite if it reaches too far; the likelihood is about normal in h2.
    """
    middle = 1 / (1 + np.exp(-null.log_ratio))
    sd = null.error * middle * (1 - middle)
    t = start + np.array([-1, 1]) * _HALF_WIDTHS[:, None]
    h2 = 1 / (1 + np.exp(-t))
    with np.errstate(divide="ignore"):
        log_density = np.log(h2) + np.log1p(-h2) - 0.5 * ((h2 - middle) / sd) ** 2 - np.log(sd)
    inside = np.flatnonzero((log_density < _LOG_TAIL).all(axis=1))
    return float(_HALF_WIDTHS[inside[0]]) if len(inside) else np.inf
