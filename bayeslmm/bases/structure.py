"""Principal components of the relatedness matrix: from a basis, a GRM, or genotypes in blocks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Eigenbasis
from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.formulas import pc_names, pcs_asked
from bayeslmm.inputs.genotypes import CenteredBlock, Genotypes, as_genotypes
from bayeslmm.inputs.phenotypes import relabel
from bayeslmm.relatedness import matching
from bayeslmm.relatedness.dense import GRM, HasGRM, as_grm
from bayeslmm.relatedness.scales import standardizing_factor
from bayeslmm.relatedness.sums import grm as make_grm
from bayeslmm.runs.memory import require_memory
from bayeslmm.runs.progress import log, map_ahead, track

# Up to so many samples, genotypes are made a GRM first: one pass, and exact.
_THROUGH_GRM = 10_000
_OVERSAMPLING = 10
_LARGEST_PASSES = 25
_TOLERANCE = 1e-5
# The Tracy-Widom law's (beta = 1) 95% quantile.
_TRACY_WIDOM = 0.979


@dataclass(frozen=True, eq=False, repr=False)
class PCA:
    """Principal components: eigenvectors of the relatedness matrix, centred on its samples.

    Attributes
    ----------
    scores : DataFrame, shape (n, k)
        PC1, PC2, ... by sample id: eigenvectors of length 1 (plink2's .eigenvec). The entry
        of largest size is positive.
    values : ndarray, shape (k,)
        Eigenvalues of K, descending.
    total : float
        Sum of all its eigenvalues.
    method : str
        How they were computed.
    residual : float
        Largest relative residual, the norm of K u - s u over s; 0 where LAPACK decomposed K.
    """

    scores: pd.DataFrame
    values: np.ndarray
    total: float
    method: str
    residual: float = 0.0
    name: str = "genotypes"
    # The other eigenvalues, if they are known, else their mean, mean square and number.
    rest: np.ndarray = field(default_factory=lambda: np.empty(0))
    rest_moments: tuple[float, float, int] | None = None
    grm: GRM | None = None
    genotypes: Genotypes | None = None

    @property
    def k(self) -> int:
        """Number of components."""
        return len(self.values)

    @property
    def variance_explained(self) -> pd.Series:
        """Share of each component in the sum of all eigenvalues."""
        return pd.Series(self.values / self.total, self.scores.columns, name="variance_explained")

    @property
    def shrinkage(self) -> pd.Series:
        r"""How much nearer to 0 new samples are projected than they would be if analysed.

        A component has fitted its own samples' noise as well. For eigenvalue s and the
        eigenvalues r of the rest, the score of a new sample is too small by

        .. math:: \rho = 1 / \overline{s / (s - r)}

        (the mean is over the rest): Dey and Lee's (2019) factor, the population eigenvalue over
        the sample's, with Bai and Ding's (2012) estimate of the former. Where the rest is not
        known one by one, it is taken as a Marchenko-Pastur law of the same mean and
        variance, as for Lee, Zou and Wright (2010). NaN: the component cannot be told from
        noise (Patterson, Price and Reich's (2006) test at 5%, with the rest as noise), and no
        factor makes up for that.

        References
        ----------
        Dey R, Lee S (2019). Asymptotic properties of principal component analysis and
        shrinkage-bias adjustment under the generalized spiked population model. J Multivar Anal
        173:145. doi:10.1016/j.jmva.2019.02.007
        Bai Z, Ding X (2012). Estimation of spiked eigenvalues in spiked models. Random Matrices
        Theory Appl 1:1150011.
        Lee S, Zou F, Wright FA (2010). Convergence and prediction of principal component scores
        in high-dimensional settings. Ann Stat 38:3605. doi:10.1214/10-AOS821
        Patterson N, Price AL, Reich D (2006). Population structure and eigenanalysis. PLoS
        Genet 2:e190. doi:10.1371/journal.pgen.0020190
        """
        factor = shrinkage(self.values, self.rest, self.rest_moments)
        return pd.Series(factor, self.scores.columns, name="shrinkage")

    @property
    def table(self) -> pd.DataFrame:
        """Per component: eigenvalue, variance explained, and shrinkage of projections."""
        table = pd.DataFrame({"eigenvalue": self.values}, index=self.scores.columns)
        return table.join(self.variance_explained).join(self.shrinkage)

    @cached_property
    def loadings(self) -> pd.DataFrame:
        """Each variant's weight in each component: id, chrom, pos, ea, oa, PC1, ...

        Columns of length 1: the right singular vectors of Z. Takes a pass over the genotypes.

        Raises
        ------
        InputError
            If the genotypes behind the matrix are not known.
        """
        genotypes = self._training()
        weights = np.empty((genotypes.n_variants, self.k))
        for block, z, _ in self._rows(genotypes, "Loadings"):
            weights[block.start : block.stop] = z @ self.scores.to_numpy()
        length = np.linalg.norm(weights, axis=0)
        weights /= np.where(length > 0, length, 1)
        table = genotypes.variants[["id", "chrom", "pos", "ea", "oa"]].reset_index(drop=True)
        return table.join(pd.DataFrame(weights, columns=self.scores.columns))

    def project(
        self,
        genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
        *,
        correct: bool = True,
    ) -> pd.DataFrame:
        """Scores of new samples, on the scale of `scores`.

        Parameters
        ----------
        genotypes : Genotypes, path or array
            New samples at all variants of the analysed ones, matched by id; swapped alleles
            are recoded. A missing genotype counts as the mean.
        correct : bool
            Divide by `shrinkage`, so that new samples lie among the analysed ones. False:
            the plain projection, which is biased towards 0.

        Returns
        -------
        DataFrame, shape (a, k)
            By sample id; NaN for components that cannot be told from noise, if corrected.

        Raises
        ------
        InputError
            If the genotypes behind the matrix are not known, or variants lack.

        Notes
        -----
        The correction holds on average. For samples of a population that was not analysed,
        and for relatives of analysed samples, it is not exact: Zhang, Dey and Lee (2020)
        compare methods. doi:10.1093/bioinformatics/btaa152
        """
        new = as_genotypes(genotypes)
        training = self._training()
        aligned, flipped = matching.align(training, new)
        U = self.scores.to_numpy()
        scores, n_variants = np.zeros((new.n_samples, self.k)), 0
        for block, z, mean in self._rows(training, "Projecting"):
            x = matching.recode(aligned, flipped, block.start, block.stop, block.eaf)
            factor = self._factor(block)
            # Missing dosages are 0 before the samples' own mean is taken off.
            scores += (x * factor[:, None] - mean[:, None]).T @ (z @ U)
            n_variants += int((factor > 0).sum())
        scores /= n_variants * self.values
        if correct:
            scores /= self.shrinkage.to_numpy()
        return pd.DataFrame(scores, index=aligned.samples.index, columns=self.scores.columns)

    def plot(self, table: pd.DataFrame | None = None, **options: Any) -> Any:
        """Pairs of components: `bayeslmm.plots.pcs`."""
        from bayeslmm import plots

        return plots.pcs(self, table, **options)

    def __repr__(self) -> str:
        n = len(self.scores)
        lines = [f"<PCA of {n:,} samples ({self.name}), {self.k} components, {self.method}"]
        shown = self.table.head(10)
        for name, row in shown.iterrows():
            factor = row["shrinkage"]
            new = "not told from noise" if np.isnan(factor) else f"new samples x {factor:.3f}"
            lines.append(
                f"  {name!s:<5}{100 * row['variance_explained']:6.2f}%  "
                f"eigenvalue {row['eigenvalue']:9.4g}  {new}"
            )
        if self.k > len(shown):
            lines.append(f"  and {self.k - len(shown)} more")
        return "\n".join([*lines, ">"])

    def _repr_html_(self) -> str:
        head = f"PCA of {len(self.scores):,} samples ({self.name}), {self.method}"
        return f"<p>{head}</p>{self.table.to_html(float_format='{:.4g}'.format)}"

    # -- the variants behind ---------------------------------------------------------------

    def _training(self) -> Genotypes:
        if self.genotypes is not None:
            return self.genotypes
        if self.grm is None:
            raise InputError(
                "The genotypes behind these components are not known, so there are no loadings "
                "and no projections. Make them from a GRM or from genotypes."
            )
        return matching.training_genotypes(self.grm)

    def _factor(self, block: CenteredBlock) -> np.ndarray:
        return (
            standardizing_factor(block, "standardized")
            if self.grm is None
            else matching.kernel_factor(self.grm, block)
        )

    def _rows(self, genotypes: Genotypes, label: str) -> Any:
        """Blocks of Z' (b, n) on the samples of the components, and the means taken off."""
        positions = genotypes.samples.index.get_indexer(self.scores.index)
        if (positions < 0).any():
            raise InputError("The genotypes behind the matrix lack samples of the components.")
        everyone = np.array_equal(positions, np.arange(genotypes.n_samples))
        spans = genotypes.block_ranges()
        blocks = map_ahead(lambda span: genotypes.centered_block(*span, dtype=np.float64), spans)
        for block in track(blocks, label, total=len(spans)):
            z = block.x if everyone else block.x[:, positions]
            z = z * self._factor(block)[:, None]
            mean = z.mean(axis=1)
            yield block, z - mean[:, None], mean


def pca(
    source: Eigenbasis | GRM | HasGRM | pd.DataFrame | Genotypes | str | os.PathLike[str] | Any,
    k: int = 10,
    *,
    seed: int = 0,
    exact: bool | None = None,
) -> PCA:
    """Principal components of genotypes: eigenvectors of the centred relatedness matrix.

    From an eigenbasis they are there already. A GRM is decomposed by Lanczos' method, for k
    vectors only. Genotypes of up to 10,000 samples are made a GRM; of more, components
    come from the genotypes in a few passes over the blocks (`exact` overrules this):
    randomised block Lanczos, with n x n numbers never in memory.

    Parameters
    ----------
    source : Eigenbasis, GRM, Genotypes, path, or array (n, m) of dosages
        A square labelled DataFrame is taken as a relatedness matrix.
    k : int
        Number of components.
    seed : int
        Of the random start; results agree to the `residual` whatever it is.
    exact : bool, optional
        Whether genotypes are made a GRM first.

    Returns
    -------
    PCA

    Raises
    ------
    InputError
        For a k that is not 1 ... n - 1, or what the source cannot be.

    References
    ----------
    Halko N, Martinsson PG, Shkolnisky Y, Tygert M (2011). An algorithm for the principal
    component analysis of large data sets. SIAM J Sci Comput 33:2580. doi:10.1137/100804139
    Musco C, Musco C (2015). Randomized block Krylov methods for stronger and faster approximate
    singular value decomposition. Adv Neural Inf Process Syst 28. arXiv:1504.05477

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> found = bl.pca(mice.genotypes, 2)
    >>> found.variance_explained.round(3).to_dict()
    {'PC1': 0.05, 'PC2': 0.04}
    """
    kernel: GRM | None
    if isinstance(source, Eigenbasis):
        return _from_basis(source, k)
    if isinstance(source, GRM | pd.DataFrame) or callable(getattr(source, "grm", None)):
        kernel = as_grm(source)
        if (known := kernel._basis_at_hand()) is not None:
            return _from_basis(known, k)
        return _from_grm(kernel, k, seed)
    genotypes = as_genotypes(source)  # type: ignore[arg-type]
    if exact is None:
        exact = genotypes.n_samples <= _THROUGH_GRM
    _check_k(k, genotypes.n_samples)
    if exact:
        return _from_grm(make_grm(genotypes), k, seed)
    return _from_genotypes(genotypes, k, seed)


# -- components as covariates --------------------------------------------------------------


def components(kernel: Any, pcs: PCA | pd.DataFrame | None, k: int) -> PCA | pd.DataFrame:
    """What pcs(k) in a formula stands for: the table given, or components of the kernel.

    Raises
    ------
    InputError
        If there is no kernel and no table, or the table has fewer components.
    """
    if pcs is None:
        if kernel is None:
            raise InputError(
                f"pcs({k}) in a formula are components of the kernel, but the model has none. Pass "
                "pcs=bl.pca(genotypes, k)."
            )
        return pca(kernel, k)
    table = pcs.scores if isinstance(pcs, PCA) else pcs
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            f"pcs must be what bl.pca returns, or a DataFrame, but is {type(pcs).__name__}."
        )
    absent = [name for name in pc_names(k) if name not in table]
    if absent:
        raise InputError(
            f"The formula asks for pcs({k}), but the components have no column {listing(absent)}; "
            f"columns: {listing(table.columns, 20)}."
        )
    return pcs


def join_components(formula: str, data: pd.DataFrame, pcs: PCA | pd.DataFrame) -> pd.DataFrame:
    """The phenotype table with the components that a formula asks for, matched by sample id.

    Raises
    ------
    InputError
        If the table has columns of their names, or no sample in common.
    """
    names = pc_names(pcs_asked(formula))
    same = [name for name in names if name in data]
    if same:
        raise InputError(
            f"Formula '{formula}' makes columns {listing(names)}, but the table has "
            f"{listing(same)} already. Rename them, or write {same[0]} in place of pcs(...)."
        )
    scores = pcs.scores if isinstance(pcs, PCA) else pcs
    scores = scores.set_axis(scores.index.astype(str), axis=0)[names]
    if scores.index.has_duplicates:
        twice = scores.index[scores.index.duplicated()].unique()
        raise InputError(f"The components name samples twice: {listing(twice)}.")
    ids = relabel(data.set_axis(data.index.astype(str), axis=0), scores.index).index
    values = scores.reindex(ids)
    if values[names[0]].isna().all():
        raise InputError(
            f"No sample of the phenotype table (such as {listing(ids[:2])}) has principal "
            f"components (of samples such as {listing(scores.index[:2])})."
        )
    return data.assign(**{name: values[name].to_numpy() for name in names})


def new_components(
    pcs: PCA | pd.DataFrame | None,
    k: int,
    data: pd.DataFrame | None,
    ids: pd.Index,
    genotypes: Genotypes | None,
) -> pd.DataFrame:
    """Covariates of samples to predict, with the components that the table lacks.

    Samples that were among the components' have theirs; others are projected.

    Raises
    ------
    InputError
        If components of new samples cannot be had.
    """
    table = pd.DataFrame(index=ids) if data is None else data
    names = pc_names(k)
    if all(name in table for name in names):
        return table
    table = table.set_axis(table.index.astype(str), axis=0)
    scores = pcs.scores if isinstance(pcs, PCA) else pcs
    assert scores is not None
    if ids.isin(scores.index).all():
        found = scores.loc[ids, names]
    elif isinstance(pcs, PCA) and genotypes is not None:
        found = pcs.project(genotypes).loc[ids, names]
        noise = [name for name in names if found[name].isna().any()]
        if noise:
            raise InputError(
                f"Components {listing(noise)} cannot be told from noise, so new samples have no "
                "corrected score. Use fewer, or put model.pcs.project(genotypes, correct=False) "
                "into the table of covariates."
            )
    else:
        raise InputError(
            f"The model has {k} principal components as covariates: give those of the new samples "
            f"in the columns {listing(names)} of the table (PCA.project makes them)."
        )
    return table.assign(**{name: found[name].reindex(table.index) for name in names})


# -- how they are found --------------------------------------------------------------------


def shrinkage(
    values: np.ndarray, rest: np.ndarray, moments: tuple[float, float, int] | None = None
) -> np.ndarray:
    """Shrinkage of projected components, NaN within the noise (see `PCA.shrinkage`).

    Parameters
    ----------
    values : ndarray, shape (k,)
        Eigenvalues of the components.
    rest : ndarray, shape (r,)
        The others, without the 0 of the centring; may be empty if `moments` are given.
    moments : (float, float, int), optional
        Mean, mean square and number of the others.

    Examples
    --------
    >>> import numpy as np
    >>> shrinkage(np.array([10.0, 2.0]), np.ones(100))
    array([0.9, 0.5])
    """
    mean, square, count = moments or (float(rest.mean()), float(np.mean(rest**2)), len(rest))
    ratio = max(square / mean**2 - 1, 0.0)
    root = np.sqrt(ratio)
    # Tracy and Widom's width of the largest of `count` eigenvalues, count / ratio variants.
    width = (1 + root) * (1 + root) ** (1 / 3) * (root / count**2) ** (1 / 3)
    above = values > mean * ((1 + root) ** 2 + _TRACY_WIDOM * width)
    out = np.full(len(values), np.nan)
    s = values[above]
    if len(rest):
        out[above] = [1 / np.mean(value / (value - rest)) for value in s]
    elif ratio < 1e-12:
        out[above] = 1 - mean / s
    else:
        distance = np.sqrt((s - mean * (1 + ratio)) ** 2 - 4 * ratio * mean**2)
        out[above] = 2 * ratio * mean / (s - mean * (1 - ratio) - distance)
    return out


def _from_basis(basis: Eigenbasis, k: int) -> PCA:
    _check_k(k, basis.n)
    if not basis.centered:
        raise InputError(
            "Components need a basis of the centred matrix; this one is not (center=False)."
        )
    values = np.array(basis.values[:k])
    rest = np.asarray(basis.values[k : basis.n - 1])
    name = str(basis.info.get("genotypes", "a basis"))
    return _labelled(
        np.array(basis.vectors[:, :k]),
        values,
        basis.samples,
        basis.trace,
        "from the eigenbasis",
        name=name,
        rest=rest,
        grm=basis.grm,
    )


def _from_grm(grm: GRM, k: int, seed: int) -> PCA:
    n = len(grm.samples)
    _check_k(k, n)
    K = np.asarray(grm.matrix)
    if not np.isfinite(K).all():
        raise InputError("The relatedness matrix has entries that are not finite.")
    means = K.mean(axis=0, dtype=np.float64)
    mean = float(means.mean())
    total = float(np.trace(K)) - n * mean
    name = str(grm.info.get("genotypes", "a matrix"))
    if n < 200 or k > n // 8:
        # Not by the eigenbasis: small negative eigenvalues, as of pairwise=True, do no harm here.
        S, U = np.linalg.eigh(K - means - means[:, None] + mean)
        S, U = S[::-1], U[:, ::-1]
        how, rest = "from the relatedness matrix", S[k : n - 1]
        return _labelled(U[:, :k], S[:k], grm.samples, total, how, name=name, rest=rest, grm=grm)
    from scipy.sparse.linalg import LinearOperator, eigsh

    def centered(v: np.ndarray) -> np.ndarray:
        v = v.ravel()
        v = v - v.mean()
        out = K @ v
        return out - out.mean()

    start = np.random.default_rng(seed).standard_normal(n)
    operator = LinearOperator((n, n), matvec=centered, dtype=np.float64)
    S, U = eigsh(operator, k=k, which="LA", v0=start - start.mean(), ncv=min(n, max(3 * k, 40)))
    S, U = S[::-1], U[:, ::-1]
    square = float(np.einsum("ij,ij->", K, K)) - 2 * n * float(means @ means) + (n * mean) ** 2
    residual = np.linalg.norm(np.column_stack([centered(u) for u in U.T]) - U * S, axis=0)
    return _labelled(
        U,
        S,
        grm.samples,
        total,
        "Lanczos on the relatedness matrix",
        name=name,
        residual=float((residual / S).max()),
        rest_moments=_moments(total, square, S, n),
        grm=grm,
    )


def _from_genotypes(genotypes: Genotypes, k: int, seed: int) -> PCA:
    n = genotypes.n_samples
    width = min(k + _OVERSAMPLING, n - 1)
    require_memory(
        8.0 * n * width * min(_LARGEST_PASSES + 1, n // width + 1)
        + 4.0 * n * genotypes.block_size(),
        f"{k} components of {n:,} samples",
    )
    product = _Product(genotypes)
    rng = np.random.default_rng(seed)
    start = rng.standard_normal((n, width))
    start -= start.mean(axis=0)
    image = product(start)
    square = float(np.square(image).sum()) / width  # E |K w|^2 = tr(K^2)
    S, U, residual, passes = block_lanczos(product, image, k)
    if residual > _TOLERANCE:
        log.warning(
            "PCA: after %d passes the relative residual is %.1e: the last components are "
            "hardly separated from what follows. Ask for fewer.",
            passes + 1,
            residual,
        )
    return _labelled(
        U,
        S,
        genotypes.samples.index,
        product.trace,
        f"randomised block Lanczos, {passes + 1} passes",
        name=genotypes.name,
        residual=residual,
        rest_moments=_moments(product.trace, square, S, n),
        genotypes=genotypes,
    )


class _Product:
    """K Y in one pass over the genotypes, K = Z Z' / m standardised; notes the trace of K."""

    def __init__(self, genotypes: Genotypes) -> None:
        self.genotypes = genotypes
        self.trace = np.nan

    def __call__(self, Y: np.ndarray) -> np.ndarray:
        Y32 = Y.astype(np.float32)
        out, n_used, trace = np.zeros(Y.shape), 0, 0.0
        spans = self.genotypes.block_ranges()
        blocks = map_ahead(lambda span: self.genotypes.centered_block(*span), spans)
        for block in track(blocks, "PCA", total=len(spans)):
            weight = standardizing_factor(block, "standardized") ** 2
            W = (block.x @ Y32) * weight[:, None].astype(np.float32)
            out += block.x.T @ W
            n_used += int((weight > 0).sum())
            trace += float(weight @ block.sum_sq)
        if not n_used:
            raise InputError(f"{self.genotypes.name}: all variants are monomorphic or missing.")
        self.trace = trace / n_used
        return out / n_used


def block_lanczos(
    product: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    k: int,
    *,
    tolerance: float = _TOLERANCE,
    passes: int = _LARGEST_PASSES,
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Largest eigenvalues and eigenvectors of a symmetric operator, from products with blocks.

    The Krylov space of the block `start`, with full orthogonalisation and Ritz values;
    ends when the k residuals are below `tolerance`, relative to their eigenvalues.

    Parameters
    ----------
    product : callable
        Multiplies an (n, b) array.
    start : ndarray, shape (n, b)
        b >= k.
    k : int
        Number of eigenvalues.
    tolerance : float
        Relative residual to reach.
    passes : int
        Largest number of products.

    Returns
    -------
    values : ndarray, shape (k,)
        Descending.
    vectors : ndarray, shape (n, k)
    residual : float
        Largest relative residual reached.
    used : int
        Number of products.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.diag([5.0, 3.0, 2.0, 1.0, 0.5])
    >>> block_lanczos(lambda Y: A @ Y, np.ones((5, 1)), 1)[0].round(6)
    array([5.])
    """
    Q = [np.linalg.qr(start)[0]]
    T = np.empty((0, 0))
    n = len(start)
    used = 0
    while True:
        image = product(Q[-1])
        used += 1
        basis = np.hstack(Q)
        first = basis.T @ image
        image -= basis @ first
        again = basis.T @ image
        image -= basis @ again
        size, width = len(T), Q[-1].shape[1]
        grown = np.zeros((size + width, size + width))
        grown[:size, :size] = T
        grown[:, size:] = first + again
        grown[size:, :size] = grown[:size, size:].T
        T = grown
        values, y = np.linalg.eigh((T + T.T) / 2)
        values, y = values[::-1][:k], y[:, ::-1][:, :k]
        following, B = np.linalg.qr(image)
        scale = max(abs(values[0]), np.finfo(float).tiny)
        relative = np.linalg.norm(B @ y[-width:], axis=0) / np.maximum(
            np.abs(values), 1e-12 * scale
        )
        residual = float(relative.max())
        enough = len(values) == k and residual <= tolerance
        independent = np.abs(np.diagonal(B)) > 1e-10 * scale
        full = len(T) + int(independent.sum()) > n or not independent.any()
        if enough or used == passes or full:
            return values, basis @ y, residual, used
        Q.append(following[:, independent])


def _moments(total: float, square: float, values: np.ndarray, n: int) -> tuple[float, float, int]:
    """Mean, mean square and number of the n - 1 - k eigenvalues that are not `values`."""
    count = max(n - 1 - len(values), 1)
    mean = max(total - float(values.sum()), 0.0) / count
    return mean, max((square - float(values @ values)) / count, mean**2), count


def _labelled(
    U: np.ndarray, S: np.ndarray, samples: pd.Index, total: float, method: str, **more: Any
) -> PCA:
    largest = U[np.argmax(np.abs(U), axis=0), np.arange(U.shape[1])]
    scores = pd.DataFrame(
        U * np.where(largest < 0, -1.0, 1.0), index=samples, columns=pc_names(len(S))
    )
    return PCA(scores, S, float(total), method, **more)


def _check_k(k: int, n: int) -> None:
    if not 1 <= k < n:
        raise InputError(f"{k} components of {n:,} samples: k must be between 1 and {n - 1:,}.")
