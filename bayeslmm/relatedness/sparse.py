"""Sparse relatedness: entries under a threshold are 0; the files of GCTA's fastGWA."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import CenteredBlock, Genotypes, as_genotypes
from bayeslmm.relatedness.dense import GRM, positions_of
from bayeslmm.relatedness.grm_files import fid_iid, read_grm_ids
from bayeslmm.relatedness.scales import Scale, standardize
from bayeslmm.relatedness.screening import screened_pairs
from bayeslmm.runs.files import existing, table_of
from bayeslmm.runs.memory import require_memory
from bayeslmm.runs.progress import log, map_ahead, track
from bayeslmm.runs.results import result_files

if TYPE_CHECKING:
    from bayeslmm.bases.block import BlockBasis

SCALES = ("standardized", "centered", "empirical")
# Pairs whose products are summed at a time, and samples whose relatives are looked for.
_PAIRS, _TILE = 2**15, 2048


@dataclass(frozen=True, eq=False)
class SparseGRM:
    """A relatedness matrix K whose small entries are 0. It is a kernel for `LMM`.

    Attributes
    ----------
    matrix : sparse array, shape (n, n)
        K, symmetric, both triangles and the diagonal.
    samples : Index or sequence of str
        Sample ids, shape (n,).
    threshold : float
        Entries off the diagonal below it are 0.
    n_variants : int
        Variants that went into it; 0 if unknown.
    scale : str
        As of a `GRM`.
    labelled : bool
        Whether `samples` are real ids rather than row numbers.
    info : dict
        Where the matrix comes from: which pairs were looked at, and what was set to 0.
    genotypes : Genotypes or None
        What it was made of.

    Raises
    ------
    InputError
        If the matrix is not square, finite and symmetric, or ids do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> K = np.array([[1.0, 0.5, 0.01], [0.5, 1.0, 0.0], [0.01, 0.0, 1.0]])
    >>> grm = bl.SparseGRM.from_dense(bl.GRM(K, ["ann", "bob", "cat"]), threshold=0.05)
    >>> grm
    <SparseGRM of 3 samples: 1 related pairs, 2 groups of up to 2, threshold 0.05>
    >>> grm.eigenbasis().values
    array([0.5, 1.5, 1. ])
    """

    matrix: sp.csr_array = field(repr=False)
    samples: pd.Index
    threshold: float = 0.0
    n_variants: int = 0
    scale: str = "given"
    labelled: bool = True
    info: dict[str, Any] = field(default_factory=dict, repr=False)
    genotypes: Genotypes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        ids = pd.Index([str(i) for i in self.samples], name="id", dtype="str")
        K = sp.csr_array(self.matrix, dtype=np.float64)
        K.sum_duplicates()
        object.__setattr__(self, "samples", ids)
        object.__setattr__(self, "matrix", K)
        if K.shape != (len(ids), len(ids)):
            raise InputError(
                f"A sparse relatedness matrix of {len(ids):,} samples has shape {K.shape}."
            )
        if ids.has_duplicates:
            raise InputError(
                f"The relatedness matrix has samples twice: {listing(ids[ids.duplicated()])}."
            )
        if not np.isfinite(K.data).all():
            row = int(np.searchsorted(K.indptr, np.argmin(np.isfinite(K.data)), side="right")) - 1
            raise InputError(f"The relatedness of sample '{ids[row]}' is not finite.")
        gap = abs(K - K.T).max() if K.nnz else 0.0
        if gap > 1e-5 * abs(K).max():
            raise InputError(
                f"The sparse relatedness matrix is not symmetric: two entries differ by {gap:.4g}."
            )

    @classmethod
    def from_dense(cls, grm: GRM, *, threshold: float = 0.05) -> SparseGRM:
        """The same matrix with the entries off the diagonal below `threshold` set to 0."""
        rows, columns, values = [], [], []
        for start in range(0, len(grm.samples), _TILE):
            part = np.asarray(grm.matrix[start : start + _TILE])
            keep = part >= threshold
            own = np.arange(len(part))
            keep[own, start + own] = True
            i, j = np.nonzero(keep)
            rows.append(start + i)
            columns.append(j)
            values.append(part[i, j])
        n = len(grm.samples)
        coordinates = (np.concatenate(rows), np.concatenate(columns))
        matrix = sp.csr_array((np.concatenate(values), coordinates), shape=(n, n))
        return cls(
            matrix,
            grm.samples,
            threshold,
            grm.n_variants,
            grm.scale,
            grm.labelled,
            grm.info | {"pairs": "all"},
            grm.genotypes,
        )

    @property
    def n_pairs(self) -> int:
        """Pairs of different samples whose relatedness is not 0."""
        return int((self.matrix.nnz - np.count_nonzero(self.matrix.diagonal())) // 2)

    def __repr__(self) -> str:
        from bayeslmm.bases.block import groups

        _, sizes = groups(self.matrix)
        return (
            f"<SparseGRM of {len(self.samples):,} samples: {self.n_pairs:,} related pairs, "
            f"{len(sizes):,} groups of up to {sizes.max():,}, threshold {self.threshold:g}>"
        )

    def _state_on_worker(self) -> None:
        """Workers of a cluster get bases, not matrices."""
        return None

    def subset(self, samples: Iterable[str]) -> SparseGRM:
        """The rows and columns of some samples, in the order given."""
        ids, positions = positions_of(samples, self.samples)
        return replace(self, matrix=self.matrix[positions][:, positions], samples=ids)

    def eigenbasis(
        self, samples: Iterable[str] | None = None, *, center: bool = True
    ) -> BlockBasis:
        """The block-diagonal basis of K, or of K on some samples.

        Parameters
        ----------
        samples : sample ids, optional
            All samples by default.
        center : bool
            Whether kappa is that of the centred K (for models with an intercept). K itself
            is never centred: see `bayeslmm.bases.block`.

        Raises
        ------
        InputError
            If a group of relatives is not positive-semidefinite (see `repaired`), or too large
            for memory.
        """
        from bayeslmm.bases.block import block_basis

        ids = self.samples if samples is None else pd.Index(samples, name="id", dtype="str")
        return block_basis(self, ids, center=center)

    def repaired(self) -> SparseGRM:
        """The nearest positive-semidefinite matrix with the same groups of relatives.

        In each group with a negative eigenvalue these are set to 0, which is the nearest
        covariance in the Frobenius norm (Higham 1988), and the group's diagonal is scaled back to
        what it was. `info["repaired"]` tells how many groups changed, and the largest change of
        an entry.

        References
        ----------
        Higham NJ (1988). Computing a nearest symmetric positive semidefinite matrix. Linear
        Algebra Appl 103:103. doi:10.1016/0024-3795(88)90223-6
        """
        from bayeslmm.bases.block import dense_blocks, groups

        order, sizes = groups(self.matrix)
        K = self.matrix[order][:, order].tolil()
        starts = np.cumsum(sizes) - sizes
        changed, largest = 0, 0.0
        csr = K.tocsr()
        for size in np.unique(sizes[sizes > 1]):
            first = starts[sizes == size]
            blocks = dense_blocks(csr, first, int(size))
            S, U = np.linalg.eigh(blocks)
            for g in np.flatnonzero(S[:, 0] < 0):
                new = (U[g] * np.maximum(S[g], 0)) @ U[g].T
                scale = np.sqrt(np.diagonal(blocks[g]) / np.diagonal(new))
                new *= scale * scale[:, None]
                changed += 1
                largest = max(largest, float(np.abs(new - blocks[g]).max()))
                own = slice(first[g], first[g] + size)
                K[own, own] = new
        back = np.argsort(order)
        about = {"groups": changed, "largest_change": largest}
        return replace(
            self,
            matrix=K.tocsr()[back][:, back],
            info=self.info | {"repaired": about},
        )

    def write(self, prefix: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write GCTA's PREFIX.grm.sp and PREFIX.grm.id, as fastGWA reads them.

        .grm.sp has a line for each entry of the lower triangle: the positions of its two samples
        (from 0) and the relatedness, with ten digits.
        """
        family, within = fid_iid(self.samples, self.genotypes)
        lower = sp.tril(self.matrix).tocoo()
        at = np.lexsort((lower.col, lower.row))
        table = pd.DataFrame({"i": lower.row[at], "j": lower.col[at], "k": lower.data[at]})
        options = {"sep": "\t", "header": False, "index": False, "lineterminator": "\n"}
        with result_files(prefix, [".grm.sp", ".grm.id"], overwrite=overwrite) as aside:
            table.to_csv(f"{aside}.grm.sp", float_format="%.10g", **options)
            pd.DataFrame({"fid": family, "iid": within}).to_csv(f"{aside}.grm.id", **options)


def read_sparse_grm(path: str | os.PathLike[str]) -> SparseGRM:
    """Read a sparse relatedness matrix of GCTA or bayeslmm (.grm.sp and .grm.id).

    Parameters
    ----------
    path : path-like
        The prefix, or the .grm.sp file.

    Raises
    ------
    InputError
        If a file is absent, a line is no entry of the matrix, or an entry comes twice.
    """
    prefix = str(path).removesuffix(".sp").removesuffix(".grm")
    sparse, ids = existing(f"{prefix}.grm.sp"), existing(f"{prefix}.grm.id")
    samples = read_grm_ids(ids)
    n = len(samples)
    table = table_of(
        sparse,
        "a sparse matrix (expected three columns: two positions and the relatedness)",
        sep=r"\s+",
        header=None,
        names=["i", "j", "k"],
        dtype={"i": np.int64, "j": np.int64, "k": np.float64},
    )
    i, j, k = (table[name].to_numpy() for name in "ijk")
    bad = (i < 0) | (i >= n) | (j < 0) | (j >= n) | ~np.isfinite(k)
    if bad.any():
        line = int(np.argmax(bad))
        raise InputError(
            f"{sparse}, line {line + 1:,}: '{i[line]} {j[line]} {k[line]:g}' is no entry of a "
            f"matrix of {n:,} samples, whose positions go from 0 to {n - 1:,}."
        )
    low, high = np.minimum(i, j), np.maximum(i, j)
    twice = pd.Series(high * n + low).duplicated()
    if twice.any():
        line = int(np.argmax(twice.to_numpy()))
        raise InputError(
            f"{sparse}, line {line + 1:,}: the entry of '{samples[i[line]]}' and "
            f"'{samples[j[line]]}' comes a second time."
        )
    alone = np.setdiff1d(np.arange(n), low[low == high])
    if len(alone):
        raise InputError(
            f"{sparse}: no diagonal entry for {len(alone):,} samples: {listing(samples[alone])}."
        )
    matrix = _symmetric(low, high, k, n)
    off = k[low != high]
    threshold = float(off.min()) if len(off) else 0.0
    return SparseGRM(matrix, samples, threshold, info={"file": sparse.name})


def sparse_grm(
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    *,
    threshold: float = 0.05,
    pairs: Literal["family", "screen", "all"] | pd.DataFrame | str | os.PathLike[str] = "family",
    screen: int = 4000,
    scale: Scale = "standardized",
    dtype: Literal["float32", "float64"] = "float32",
    block_size: int | None = None,
    progress: bool | None = None,
) -> SparseGRM:
    r"""Relatedness of those who are related, K = Z Z'/m, all else 0, in one pass.

    The entries that are computed are those of `bl.grm`, exactly: Z is standardised by all
    samples. The dense matrix is never formed. What differs is which pairs are looked at:

    - ``"family"``: pairs with the same family id. Work and memory grow with n. Relatives in
      different families are missed, by definition.
    - a table of pairs, such as of PLINK 2 ``--make-king-table``, KING, or a pedigree: those
      pairs. What the list misses is missed.
    - ``"screen"``: every pair with `screen` common variants, and those who may be related with
      all. For cohorts without family ids. `info` tells what is expected to be missed, by degree.
      Work grows with n squared, but with few variants (see docs/large-cohorts.md); memory is
      n x `screen` bytes.
    - ``"all"``: every pair, tile by tile. Nothing is missed; work grows with n squared times m,
      and the genotypes are read n / 2048 times.

    Parameters
    ----------
    genotypes : Genotypes, path or array (n, m)
        Where the dosages come from.
    threshold : float
        Entries off the diagonal below it become 0. 0.05 is fastGWA's: cousins (1/8) stay.
    pairs : {"family", "screen", "all"}, DataFrame or path
        See above. A table has two columns of sample ids: ID1 and ID2, or IID1 and IID2 (a
        leading # is ignored), or else its first two.
    screen : int
        Variants for ``pairs="screen"``, spread over the genome: twice as many take twice the
        time, and miss fewer.
    scale : {"standardized", "centered", "empirical"}
        As of `bl.grm`.
    dtype : {"float32", "float64"}
        Precision of the products of a block. Sums over blocks are float64.
    block_size : int, optional
        Variants per block.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    SparseGRM
        A kernel for `LMM`. Its `info` counts the pairs looked at and those set to 0.

    Raises
    ------
    InputError
        For an unknown scale, no family ids, pairs of unknown samples, no polymorphic variant,
        or too little memory.

    References
    ----------
    Jiang L et al. (2019). A resource-efficient tool for mixed model association analysis of
    large-scale data. Nat Genet 51:1749. doi:10.1038/s41588-019-0530-8
    Zaitlen N et al. (2013). Using extended genealogy to estimate components of heritability for
    23 quantitative and dichotomous traits. PLoS Genet 9:e1003520.
    doi:10.1371/journal.pgen.1003520

    Examples
    --------
    >>> import bayeslmm as bl
    >>> cohort = bl.simulate_cohort(None, 200, 1000, families=6, seed=1)
    >>> bl.sparse_grm(cohort.genotypes)
    <SparseGRM of 200 samples: 261 related pairs, 66 groups of up to 6, threshold 0.05>
    """
    if scale not in SCALES:
        raise InputError(f"scale='{scale}' is unknown; expected one of {listing(SCALES)}.")
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype='{dtype}' is unknown; expected 'float32' or 'float64'.")
    genotypes = as_genotypes(genotypes)
    kind = np.dtype(dtype)
    n = genotypes.n_samples
    samples = genotypes.samples.index
    screened: dict[str, Any] | None = None
    if isinstance(pairs, str) and pairs == "all":
        i, j, total, diagonal, used, looked_at = _among_all(
            genotypes, threshold, scale, kind, block_size, progress
        )
        source = "all"
    else:
        if isinstance(pairs, str) and pairs == "family":
            i, j = _family_pairs(genotypes)
            source = "family"
        elif isinstance(pairs, str) and pairs == "screen":
            i, j, screened = screened_pairs(genotypes, screen, progress=progress)
            source = "screen"
        else:
            i, j = _listed_pairs(pairs, samples)
            source = "table" if isinstance(pairs, pd.DataFrame) else Path(pairs).name
        total, diagonal, used = _of_pairs(genotypes, i, j, scale, kind, block_size, progress)
        looked_at = len(i)
    keep = total >= threshold
    everyone = np.arange(n)
    matrix = _symmetric(
        np.concatenate([everyone, i[keep]]),
        np.concatenate([everyone, j[keep]]),
        np.concatenate([diagonal, total[keep]]),
        n,
    )
    info = {
        "genotypes": genotypes.name,
        "pairs": source,
        "n_pairs_looked_at": looked_at,
        "n_pairs_set_to_0": looked_at - int(keep.sum()),
        "n_monomorphic": genotypes.n_variants - used,
        "dtype": dtype,
    }
    if screened is not None:
        info["screening"] = screened
    log.info(
        "Sparse GRM: %s of %s pairs looked at are related by %g or more.",
        f"{int(keep.sum()):,}",
        f"{looked_at:,}",
        threshold,
    )
    return SparseGRM(matrix, samples, threshold, used, scale, genotypes.labelled, info, genotypes)


# -- which pairs -------------------------------------------------------------------------------


def _family_pairs(genotypes: Genotypes) -> tuple[np.ndarray, np.ndarray]:
    """Positions of all pairs within families, i < j."""
    if "fid" not in genotypes.samples:
        raise InputError(
            f"{genotypes.name} has no family ids. Use pairs='all', or a table of pairs."
        )
    family, _ = pd.factorize(genotypes.samples.fid)
    order = np.argsort(family, kind="stable")
    size = np.bincount(family)
    # FID 0 means none; so does one family of everybody.
    i, j = [], []
    starts = np.cumsum(size) - size
    n_pairs = float((size * (size - 1.0) / 2).sum())
    require_memory(100 * n_pairs, f"{n_pairs:,.0f} pairs within {len(size):,} families")
    for s in np.unique(size[size > 1]):
        first = starts[size == s][:, None]
        a, b = np.triu_indices(s, 1)
        i.append((first + a).ravel())
        j.append((first + b).ravel())
    if not i:
        raise InputError(
            f"{genotypes.name}: every sample is a family by itself (its FID is its own), so no "
            "pair would be looked at. Use pairs='all', or a table of pairs."
        )
    left, right = order[np.concatenate(i)], order[np.concatenate(j)]
    return _in_order(left, right)


def _listed_pairs(
    pairs: pd.DataFrame | str | os.PathLike[str], samples: pd.Index
) -> tuple[np.ndarray, np.ndarray]:
    name = "pairs"
    if not isinstance(pairs, pd.DataFrame):
        name = str(pairs)
        pairs = table_of(pairs, "a table of pairs", sep=r"\s+", dtype=str)
    table = pairs.set_axis([str(c).lstrip("#") for c in pairs.columns], axis=1)
    columns = next(
        (c for c in (["IID1", "IID2"], ["ID1", "ID2"]) if set(c) <= set(table.columns)),
        list(table.columns[:2]),
    )
    if len(columns) < 2:
        raise InputError(f"{name}: expected two columns of sample ids, found {listing(columns)}.")
    found = [samples.get_indexer(table[c].astype(str)) for c in columns]
    for column, positions in zip(columns, found, strict=True):
        if (positions < 0).any():
            row = int(np.argmin(positions))
            raise InputError(
                f"{name}, row {row + 1:,}: sample '{table[column].iloc[row]}' is not among the "
                f"{len(samples):,} of the genotypes, which look like {listing(samples[:2])}."
            )
    i, j = _in_order(*found)
    different = i != j
    once = np.unique(i[different] * len(samples) + j[different])
    return once // len(samples), once % len(samples)


def _in_order(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.minimum(i, j), np.maximum(i, j)
    at = np.lexsort((high, low))
    return low[at], high[at]


# -- their relatedness --------------------------------------------------------------------------


def _blocks(
    genotypes: Genotypes,
    scale: Scale,
    dtype: np.dtype,
    block_size: int | None,
    progress: bool | None,
    label: str,
) -> Iterator[tuple[np.ndarray, int]]:
    """Standardised variants, samples in rows (n, b), and how many of them are polymorphic."""
    ranges = genotypes.block_ranges(block_size)

    def prepare(span: tuple[int, int]) -> tuple[np.ndarray, int]:
        block: CenteredBlock = genotypes.centered_block(*span, dtype=dtype)
        used = standardize(block, scale, genotypes.name)
        return transposed(block.x), int(used.sum())

    yield from track(map_ahead(prepare, ranges), label, total=len(ranges), show=progress)


def transposed(x: np.ndarray) -> np.ndarray:
    """A matrix (b, n) as (n, b) in C order, in pieces that stay in the processor's cache."""
    out = np.empty(x.shape[::-1], dtype=x.dtype)
    step = max(1, 2**16 // len(x))
    for start in range(0, len(out), step):
        out[start : start + step] = x[:, start : start + step].T
    return out


def _of_pairs(
    genotypes: Genotypes,
    i: np.ndarray,
    j: np.ndarray,
    scale: Scale,
    dtype: np.dtype,
    block_size: int | None,
    progress: bool | None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Relatedness of some pairs, of everybody to themselves, and the number of variants."""
    total, diagonal, used = np.zeros(len(i)), np.zeros(genotypes.n_samples), 0
    for z, count in _blocks(genotypes, scale, dtype, block_size, progress, "Sparse GRM"):
        used += count
        diagonal += np.einsum("nb,nb->n", z, z)
        for start in range(0, len(i), _PAIRS):
            part = slice(start, start + _PAIRS)
            total[part] += np.einsum("pb,pb->p", z[i[part]], z[j[part]])
    _require_variants(genotypes, used)
    return total / used, diagonal / used, used


def _among_all(
    genotypes: Genotypes,
    threshold: float,
    scale: Scale,
    dtype: np.dtype,
    block_size: int | None,
    progress: bool | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Related pairs among all, tile by tile: both, relatedness, diagonal, variants, pairs."""
    n = genotypes.n_samples
    require_memory(
        (8.0 + dtype.itemsize) * min(_TILE, n) * n, f"A tile of {_TILE:,} x {n:,} relatednesses"
    )
    rows, columns, values, diagonal, used = [], [], [], np.empty(n), 0
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        tile, used = np.zeros((stop - start, n - start)), 0
        label = f"Sparse GRM, samples from {start + 1:,}"
        for z, count in _blocks(genotypes, scale, dtype, block_size, progress, label):
            tile += z[start:stop] @ z[start:].T
            used += count
        _require_variants(genotypes, used)
        tile /= used
        own = np.arange(stop - start)
        diagonal[start:stop] = tile[own, own]
        i, j = np.nonzero(np.triu(tile >= threshold, 1))
        rows.append(start + i)
        columns.append(start + j)
        values.append(tile[i, j])
    found = [np.concatenate(part) for part in (rows, columns, values)]
    return found[0], found[1], found[2], diagonal, used, n * (n - 1) // 2


def _require_variants(genotypes: Genotypes, used: int) -> None:
    if used == 0:
        raise InputError(
            f"{genotypes.name}: all {genotypes.n_variants:,} variants are monomorphic or missing "
            f"among {genotypes.n_samples:,} samples: no relatedness."
        )


def _symmetric(low: np.ndarray, high: np.ndarray, values: np.ndarray, n: int) -> sp.csr_array:
    """A symmetric matrix from its entries on one side and on the diagonal."""
    off = low != high
    i, j = np.concatenate([low, high[off]]), np.concatenate([high, low[off]])
    return sp.csr_array((np.concatenate([values, values[off]]), (i, j)), shape=(n, n))
