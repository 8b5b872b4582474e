r"""What stands behind a tested variant: all of the genome, the rest of it, or rest + chromosome.

With K of all variants the tested one is in its own background; without its chromosome (LOCO)
what that chromosome makes relatives share is missing, which in families inflates the tests. The
third way keeps both, each with a variance of its own:

    V = s2_rest K_rest + s2_chrom K_chrom + s2_e I.

For each chromosome the split q = s2_chrom kappa_chrom / (s2_rest kappa_rest + s2_chrom
kappa_chrom) is set at its REML estimate under the null model, and the ratio of the genetic to
the residual variance is estimated again for every variant, as in the scan with one kernel.

A kernel for each chromosome would need a decomposition for each. A scan needs less: the
statistics at a few ratios of the variances next to the null model's, or over its posterior,
which take Cholesky factors (`numerics.factors`).

Variants whose optimum is not between the nodes (strong effects) are tested between further
nodes; those whose optimum is beyond them in the eigenbasis, which is made for their chromosome
only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.genome import bayes_factors
from bayeslmm.genome.scanner import Scanner, largest_ml_ratio
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.chebyshev import cardinal, chebyshev, nodes_for, series
from bayeslmm.numerics.factors import (
    ERROR,
    NARROW,
    CholeskyWeights,
    Spectrum,
    by_rows,
    cholesky_weights,
    locate,
    null_profile,
    powers_over,
    spectrum_of,
    unit_kernel,
)
from bayeslmm.numerics.nodes import HALF_WIDTH, LOG_RANGE, Weights, interpolate, maximise_on_nodes
from bayeslmm.relatedness.dense import GRM
from bayeslmm.relatedness.sums import grm
from bayeslmm.runs.progress import quiet

if TYPE_CHECKING:
    from bayeslmm.inputs.genotypes import Genotypes
    from bayeslmm.model.lmm import LMM
    from bayeslmm.priors import EffectPrior

type Background = Literal["all", "loco", "rest+chrom"]
BACKGROUNDS = ("all", "loco", "rest+chrom")
# Fewer samples than this are decomposed at once: nothing is gained otherwise.
_SMALL = 300
# What is integrated over h2 has nodes as far as this many posterior standard deviations of the log
# ratio; where that is wide, as far as there is more than e^ this of the posterior.
_DEVIATIONS, _LOG_TAIL = 7.0, -16.0
_HALF_WIDTHS = np.linspace(HALF_WIDTH, 9.0, 76)
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
    lacking : float or None
        Share of all variants that are not in it; None if they are, with other weights.
    account : dict
        What the result says of it: variants in it and of the chromosome, h2.
    """

    chrom: str
    model: LMM
    start: float
    lacking: float | None
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
            "would be left out there. Labels are compared as they are written; variants that the "
            "matrix rightly lacks are tested with background='all'."
        )
    if len(known) == 1:
        raise InputError(
            f"background='{background}' needs at least two chromosomes, but the relatedness "
            f"matrix has {known[0]!r} only."
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
            part.n_variants / whole.n_variants if background == "loco" else None,
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
    K = unit_kernel(_on(model.grm, model.ids).matrix, np.dtype(np.float32), center=center)[0]
    data = likelihood.rotate(None, model.y, model.C.to_numpy())
    found = locate(data, K, 0.0, 1.0, 6, skip_intercept=center)
    t = found.reml - found.center
    second = np.polynomial.chebyshev.chebder(
        series(null_profile(data, found.weights, "reml")[0]), 2
    )
    curvature = -float(np.polynomial.chebyshev.chebval(t, second))
    error = 1 / np.sqrt(curvature) if curvature > 0 and abs(t) < 1 else np.nan
    return Null(found.reml, error, spectrum_of(K, center=center))


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
        unit_kernel(one.matrix, np.dtype(np.float32), center=center)[0] for one in (rest, part)
    )
    data = likelihood.rotate(None, model.y, model.C.to_numpy())
    at = [start]

    def profile(q: float) -> float:
        K = np.float32(1 - q) * K_rest + np.float32(q) * K_part
        found = locate(data, K, at[0], NARROW, 3, skip_intercept=center)
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

    by_rows(len(out), work)
    return out


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
        self._wide = self._everywhere = None
        self._kind = (tests, dtype, effect_prior)
        data = likelihood.rotate(None, model.y, model.C.to_numpy())
        K, kappa = unit_kernel(model.grm.matrix, dtype, center=model.has_intercept)  # type: ignore[union-attr]
        self._specify(model, replace(data, kappa=kappa), tests, dtype, effect_prior)
        self.exact = bool({"wald", "lrt"} & set(tests))
        for width in sorted({half_width, max(half_width, HALF_WIDTH)}):
            nodes = nodes_for(width, ERROR[dtype])
            found = locate(
                data, K, start, width, nodes, skip_intercept=self.skip, spectrum=spectrum
            )
            top = np.minimum((largest_ml_ratio(found.reml) - found.center) / width, 1)
            ml = null_profile(data, found.weights, "ml")
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
        loglik = null_profile(self.data, weights, "reml")[0] @ cardinal(_POINTS, weights.G).T
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

    def search_widely(self, kind: str, x: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """Between further nodes, and in the eigenbasis for those whose optimum is beyond."""
        if self.half_width >= HALF_WIDTH:
            return self.eigen.search_widely(kind, self.eigen.rotate(x), limit)
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
            found[:, beyond] = self.eigen.search_widely(kind, rotated, limit[beyond])
        return found

    def wide_panels(self) -> list[tuple[float, Weights]]:
        """The middle of a wider range of nodes around the first, and the weights there."""
        if self._wide is None:
            with _decomposing:
                if self._wide is None:
                    low, high = LOG_RANGE[0] + HALF_WIDTH, LOG_RANGE[1] - HALF_WIDTH
                    middle = float(np.clip(self.center, low, high))
                    nodes = middle + HALF_WIDTH * chebyshev(nodes_for(HALF_WIDTH, 1e-7))
                    weights = cholesky_weights(self.data, self._K, nodes, skip_intercept=self.skip)
                    self._wide = [(middle, weights)]
        return self._wide

    def integrate_again(self, x: np.ndarray, width: np.ndarray) -> dict[str, np.ndarray]:
        """In the eigenbasis."""
        return self.eigen.integrate_again(self.eigen.rotate(x), width)


def scanner_of(
    kernel: Kernel,
    tests: tuple[str, ...],
    dtype: np.dtype,
    effect_prior: EffectPrior,
    null: Null,
) -> Scanner:
    """The cheapest scanner that is right: between nodes, or in the eigenbasis.

    Parameters
    ----------
    kernel : Kernel
        The background of a chromosome.
    tests, dtype, effect_prior
        As `Scanner` takes them.
    null : Null
        The model with all variants.
    """
    model, start = kernel.model, kernel.start
    half_width = NARROW
    if "bayes" in tests:
        half_width = max(half_width, _DEVIATIONS * null.error)
        if not half_width <= HALF_WIDTH:
            half_width = _width_of_posterior(null, start)
    # Narrow nodes may have to move.
    reach = half_width + min(half_width, HALF_WIDTH)
    if (
        len(model.y) < _SMALL
        or not LOG_RANGE[0] + reach < start < LOG_RANGE[1] - reach
        or (model.h2_prior.spike and "bayes" in tests)
    ):
        return Scanner(model, tests, dtype, effect_prior)
    if kernel.lacking is not None:
        spectrum = replace(null.spectrum, lacking=kernel.lacking)
    else:
        assert model.grm is not None
        center = model.has_intercept
        K = unit_kernel(model.grm.matrix, np.dtype(np.float32), center=center)[0]
        spectrum = spectrum_of(K, center=center)
    if half_width > HALF_WIDTH and powers_over(spectrum, start, half_width, dtype)[-1] is None:
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
