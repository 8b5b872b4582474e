r"""The basis of a sparse relatedness matrix: one small eigenbasis for each group of relatives.

Entries of K under a threshold are 0, so that people fall into groups without relatedness between
them, the connected components. U is block-diagonal, and everything costs O(n x group size).

A centred K would not be sparse, and need not be formed. With the intercept among the covariates,
the restricted likelihood of K and of centred K is the same, for it is that of contrasts, which
the centring leaves as they are (docs/large-cohorts.md). What differs is given its centred value
without the matrix: kappa, the mean diagonal, is (tr K - 1'K1 / n) / n; the full likelihood is
corrected in `numerics.likelihood`. The intercept itself, and u, are those of K as it is: u is the
deviation from the base population rather than from the mean of the sample.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from bayeslmm.bases.basis import NEGATIVE, check_not_identity
from bayeslmm.bases.folders import read_ids, save_basis
from bayeslmm.errors import InputError, listing
from bayeslmm.runs.memory import require_memory
from bayeslmm.runs.progress import log

if TYPE_CHECKING:
    from bayeslmm.relatedness.sparse import SparseGRM

# Numbers in a tile of samples x variants: it stays in the processor's cache.
_TILE = 2**17


@dataclass(frozen=True, eq=False)
class BlockBasis:
    """Eigenvectors and eigenvalues of a sparse relatedness matrix, group by group.

    Attributes
    ----------
    values : ndarray, shape (n,)
        S, eigenvalues of K (not centred), in the order of U's columns; none negative.
    U : sparse array, shape (n, n)
        Eigenvectors, block-diagonal once samples are in `order`.
    order : ndarray of int, shape (n,), or None
        The samples group by group; None if they are so already.
    samples : Index
        Sample ids, shape (n,).
    needs_intercept : bool
        Whether kappa is that of the centred K, for models with an intercept.
    labelled : bool
        Whether `samples` are real ids rather than row numbers.
    grm : SparseGRM or None
        The matrix that it comes from, for bases of fewer samples.
    info : dict
        Provenance.
    """

    values: np.ndarray
    U: sp.csr_array = field(repr=False)
    order: np.ndarray | None = field(repr=False)
    samples: pd.Index
    needs_intercept: bool = True
    labelled: bool = True
    grm: SparseGRM | None = field(default=None, repr=False)
    info: dict[str, Any] = field(default_factory=dict, repr=False)

    centered: bool = field(default=False, init=False)

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @cached_property
    def trace(self) -> float:
        """Sum of the eigenvalues of K; of centred K if the model needs an intercept."""
        total = float(self.values.sum())
        if self.needs_intercept:
            ones = self.rotate(np.ones(self.n))
            total -= float(self.values @ (ones * ones)) / self.n
        return total

    @property
    def kappa(self) -> float:
        """Mean diagonal of (centred) K: what turns s2_g into genetic variance."""
        return self.trace / self.n

    @cached_property
    def group_sizes(self) -> np.ndarray:
        """Sizes of the groups in the order of U."""
        # Every row of U is as long as its group is large.
        lengths = np.diff(self.U.indptr)
        sizes, i = [], 0
        while i < self.n:
            sizes.append(int(lengths[i]))
            i += sizes[-1]
        return np.array(sizes)

    def __repr__(self) -> str:
        sizes = self.group_sizes
        return (
            f"<BlockBasis of {self.n:,} samples: {len(sizes):,} groups of 1 to {sizes.max():,} "
            f"relatives, eigenvalues {self.values.min():.4g} to {self.values.max():.4g}, "
            f"kappa {self.kappa:.4g}>"
        )

    def prepare(self, dtype: np.dtype) -> None:
        """Make what `rotate_rows` needs for variants of that precision."""
        _ = self._tiles(np.dtype(dtype).name)

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """U'x, for x of shape (n,) or (n, k)."""
        return self._transposed @ (x if self.order is None else x[self.order])

    def unrotate(self, z: np.ndarray) -> np.ndarray:
        """U z, the way back, for z of shape (n,) or (n, k)."""
        x = self.U @ z
        if self.order is None:
            return x
        out = np.empty_like(x)
        out[self.order] = x
        return out

    def rotate_rows(self, x: np.ndarray) -> np.ndarray:
        """X U for variants in rows, shape (b, n), in the precision of `x`."""
        if self.order is not None:
            x = x[:, self.order]
        out = np.empty(x.shape, dtype=x.dtype)
        for start, stop, transposed in self._tiles(x.dtype.name):
            piece = np.ascontiguousarray(x[:, start:stop].T)
            out[:, start:stop] = (transposed @ piece).T
        return out

    def row_quadratic(self, weights: np.ndarray) -> np.ndarray:
        """diag(U diag(w) U') for weights of shape (n,) or (n, k)."""
        x = self.U.power(2) @ weights
        if self.order is None:
            return x
        out = np.empty_like(x)
        out[self.order] = x
        return out

    def block_quadratic(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The block of U diag(w) U' of some samples, shape (b, b), for weights (n,)."""
        at = np.asarray(rows) if self.order is None else np.argsort(self.order)[rows]
        chosen = self.U[at]
        return (chosen.multiply(weights) @ chosen.T).toarray()

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows of U of some samples, shape (b, n)."""
        at = np.asarray(rows) if self.order is None else np.argsort(self.order)[rows]
        return self.U[at].toarray()

    def subset(self, samples: Iterable[str]) -> BlockBasis:
        """The basis of some of the samples, from the kept relatedness matrix.

        Raises
        ------
        InputError
            If the samples are not all there, or no relatedness matrix was kept.
        """
        ids = pd.Index(samples, name="id", dtype="str")
        if ids.equals(self.samples):
            return self
        if self.grm is None:
            raise InputError(
                f"The basis has {self.n:,} samples, but {len(ids):,} are analysed, and it was kept "
                "without its relatedness matrix. Give LMM the sparse GRM instead."
            )
        return self.grm.eigenbasis(ids, center=self.needs_intercept)

    def save(
        self, path: str | os.PathLike[str], *, with_grm: bool = True, overwrite: bool = False
    ) -> None:
        """Write the basis to a folder, as `Eigenbasis.save` does (docs/formats.md).

        The sparse matrix is kept with it if it is known.
        """
        arrays = {"values": self.values, **_parts("vectors", self.U)}
        if self.order is not None:
            arrays["order"] = self.order
        ids = {"samples": self.samples}
        about = {"needs_intercept": self.needs_intercept, "info": self.info}
        if with_grm and self.grm is not None:
            arrays |= _parts("grm", self.grm.matrix)
            ids["grm_samples"] = self.grm.samples
            about |= {
                "scale": self.grm.scale,
                "n_variants": self.grm.n_variants,
                "threshold": self.grm.threshold,
            }
        save_basis(
            path,
            "block",
            arrays,
            ids,
            about | {"labelled": self.labelled, "n": self.n, "centered": False},
            overwrite=overwrite,
        )

    @cached_property
    def _transposed(self) -> sp.csr_array:
        return self.U.T.tocsr()

    def _tiles(self, dtype: str) -> list[tuple[int, int, sp.csr_array]]:
        """U' in pieces of whole groups: first and last sample of each, and the piece."""
        kept = self.__dict__.setdefault("_kept_tiles", {})
        if dtype not in kept:
            transposed = self._transposed.astype(dtype)
            ends = np.cumsum(self.group_sizes)
            tiles, start = [], 0
            while start < self.n:
                last = max(
                    np.searchsorted(ends, start + _TILE // 64, side="right") - 1,
                    np.searchsorted(ends, start, side="right"),
                )
                stop = int(ends[last])
                tiles.append((start, stop, transposed[start:stop, start:stop]))
                start = stop
            kept[dtype] = tiles
        return kept[dtype]


def block_basis(grm: SparseGRM, samples: pd.Index, *, center: bool) -> BlockBasis:
    """The basis of a sparse matrix on some of its samples (see `SparseGRM.eigenbasis`)."""
    n = len(samples)
    if n < 3:
        raise InputError(f"A basis needs at least 3 samples, but has {n}.")
    K = grm.matrix if samples.equals(grm.samples) else grm.subset(samples).matrix
    order, sizes = groups(K)
    require_memory(
        32.0 * float((sizes.astype(np.float64) ** 2).sum()) + 64.0 * n,
        f"Decomposing {len(sizes):,} groups of up to {sizes.max():,} relatives",
    )
    if sizes.max() > 2000:
        log.info(
            "The largest group of relatives has %s of %s samples: a higher threshold makes groups "
            "smaller.",
            f"{sizes.max():,}",
            f"{n:,}",
        )
    ordered = np.array_equal(order, np.arange(n))
    K = K if ordered else K[order][:, order]
    largest = float(K.diagonal().max())
    starts = np.cumsum(sizes) - sizes
    values = np.empty(n)
    entries = np.repeat(sizes, sizes)
    indptr = np.concatenate([[0], np.cumsum(entries)])
    data, indices = np.empty(indptr[-1]), np.empty(indptr[-1], dtype=np.int32)
    for size in np.unique(sizes):
        first = starts[sizes == size]
        members = first[:, None] + np.arange(size)
        S, U = np.linalg.eigh(dense_blocks(K, first, int(size)))
        _refuse_negative(S, members, samples[order], largest)
        values[members] = S
        at = indptr[members][:, :, None] + np.arange(size)
        data[at] = U
        indices[at] = np.broadcast_to(members[:, None, :], at.shape)
    n_negative = int((values < -1e-12 * largest).sum())
    smallest = float(values.min())
    np.maximum(values, 0, out=values)
    check_not_identity(values, 1e-12 * largest)
    info = grm.info | {
        "scale": grm.scale,
        "n_variants": grm.n_variants,
        "threshold": grm.threshold,
        "n_groups": len(sizes),
        "largest_group": int(sizes.max()),
        "n_negative_set_to_0": n_negative,
        "smallest_eigenvalue": smallest,
    }
    return BlockBasis(
        values,
        sp.csr_array((data, indices, indptr), shape=(n, n)),
        None if ordered else order,
        samples,
        center,
        grm.labelled,
        grm,
        info,
    )


def groups(K: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Samples group by group (n,), by the first of each, and the sizes of the groups."""
    _, label = sp.csgraph.connected_components(K, directed=False)
    _, first = np.unique(label, return_index=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first, kind="stable")] = np.arange(len(first))
    rank = place[label]
    return np.argsort(rank, kind="stable"), np.bincount(rank)


def dense_blocks(K: sp.csr_array, first: np.ndarray, size: int) -> np.ndarray:
    """Diagonal blocks of one size that begin at `first` (g,), as a stack (g, size, size)."""
    out = np.zeros((len(first), size, size))
    rows = (first[:, None] + np.arange(size)).ravel()
    part = K[rows].tocoo()
    group, within = np.divmod(part.row, size)
    out[group, within, part.col - first[group]] = part.data
    return out


def _refuse_negative(S: np.ndarray, members: np.ndarray, samples: pd.Index, largest: float) -> None:
    worst = int(np.argmin(S[:, 0]))
    if S[worst, 0] < -NEGATIVE * largest:
        bad = int((S[:, 0] < -NEGATIVE * largest).sum())
        raise InputError(
            f"The sparse relatedness matrix is not positive-semidefinite: {bad:,} groups of "
            f"{S.shape[1]:,} relatives have an eigenvalue below 0, the lowest {S[worst, 0]:.4g} in "
            f"the group of {listing(samples[members[worst]])}. Setting small entries to 0 can do "
            "that. grm.repaired() replaces such groups by the nearest covariance and tells what "
            "changed; a lower threshold may make it needless."
        )


def _parts(name: str, matrix: sp.csr_array) -> dict[str, np.ndarray]:
    """The three arrays of a sparse matrix, by the names of their files."""
    return {
        f"{name}_data": matrix.data,
        f"{name}_indices": matrix.indices,
        f"{name}_indptr": matrix.indptr,
    }


def load_block_basis(folder: Path, about: dict[str, Any]) -> BlockBasis:
    """The basis in a folder whose basis.json, `about`, was read and checked."""
    from bayeslmm.relatedness.sparse import SparseGRM

    def matrix(name: str, n: int) -> sp.csr_array:
        parts = [np.load(folder / f"{name}_{part}.npy") for part in ("data", "indices", "indptr")]
        return sp.csr_array(tuple(parts), shape=(n, n))

    samples = read_ids(folder / "samples.txt")
    grm = None
    if "grm_data.npy" in about["sha256"]:
        ids = read_ids(folder / "grm_samples.txt")
        grm = SparseGRM(
            matrix("grm", len(ids)),
            ids,
            about["threshold"],
            about["n_variants"],
            about["scale"],
            about["labelled"],
            about["info"],
        )
    order = folder / "order.npy"
    return BlockBasis(
        np.load(folder / "values.npy"),
        matrix("vectors", len(samples)),
        np.load(order) if order.is_file() else None,
        samples,
        about["needs_intercept"],
        about["labelled"],
        grm,
        about["info"],
    )
