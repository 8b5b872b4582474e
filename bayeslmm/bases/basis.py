"""K = U diag(S) U': the basis in which the model is diagonal, computed once and kept.

`Basis` is what the rest of the package knows of it. `Eigenbasis` has all eigenvectors of a dense
matrix; `bases.block` those of a sparse one, `bayeslmm.bases.low_rank` few and a complement.
Nothing outside of these touches a matrix of n x n.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from bayeslmm.bases.folders import read_ids, save_basis
from bayeslmm.errors import InputError, listing
from bayeslmm.relatedness.dense import GRM, HasGRM, as_grm
from bayeslmm.relatedness.triangle import panels
from bayeslmm.runs.memory import fits, gigabytes, require_memory
from bayeslmm.runs.progress import log

if TYPE_CHECKING:
    from bayeslmm.relatedness.sparse import SparseGRM

# LAPACK's syevd sizes its workspace, 2 n^2, in 32-bit integers.
_LARGEST_SYEVD = 32_000
# Eigenvalues of a positive-semidefinite K computed in float32 may fall this far below
# zero, relative to the largest; one that falls further says that K is no covariance.
NEGATIVE = 1e-5
# Numbers of U that are taken at a time where a product needs them in another precision.
_PIECE = 2**22


@runtime_checkable
class Basis(Protocol):
    """An orthonormal basis of n dimensions on which K is diagonal: K = U diag(S) U'.

    Attributes
    ----------
    values : ndarray, shape (n,)
        S, eigenvalues of K, none negative, in any order.
    samples : Index
        Sample ids, shape (n,).
    centered : bool
        Whether K was centred on these samples, so that the constant vector is an
        eigenvector of eigenvalue 0.
    needs_intercept : bool
        Whether kappa is that of the centred K: the model must have an intercept then.
    labelled : bool
        Whether `samples` are real ids rather than row numbers.
    grm : GRM, SparseGRM or None
        The matrix that it comes from, for bases of fewer samples.
    """

    @property
    def values(self) -> np.ndarray: ...  # noqa: D102
    @property
    def samples(self) -> pd.Index: ...  # noqa: D102
    @property
    def centered(self) -> bool: ...  # noqa: D102
    @property
    def needs_intercept(self) -> bool: ...  # noqa: D102
    @property
    def labelled(self) -> bool: ...  # noqa: D102
    @property
    def grm(self) -> GRM | SparseGRM | None: ...  # noqa: D102
    @property
    def n(self) -> int:
        """Number of samples."""

    @property
    def kappa(self) -> float:
        """Mean diagonal of (centred) K: what turns s2_g into genetic variance."""

    def prepare(self, dtype: np.dtype) -> None:
        """Make what `rotate_rows` needs for that precision, before threads ask for it."""

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """U'x, for x of shape (n,) or (n, k)."""

    def unrotate(self, z: np.ndarray) -> np.ndarray:
        """U z, the way back, for z of shape (n,) or (n, k)."""

    def rotate_rows(self, x: np.ndarray) -> np.ndarray:
        """X U for variants in rows, shape (b, n), in the precision of `x`."""

    def row_quadratic(self, weights: np.ndarray) -> np.ndarray:
        """diag(U diag(w) U') for weights of shape (n,) or (n, k), functions of S."""

    def block_quadratic(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The block of U diag(w) U' of some samples, shape (b, b), for weights (n,)."""

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows of U of some samples, shape (b, n)."""

    def subset(self, samples: Iterable[str]) -> Basis:
        """The basis of some of the samples; an `InputError` if it cannot be had."""

    def save(
        self, path: str | os.PathLike[str], *, with_grm: bool = True, overwrite: bool = False
    ) -> None:
        """Write the basis to a folder, from which `load_eigenbasis` reads it."""


def dense_vectors(basis: Basis, what: str) -> np.ndarray:
    """U as one matrix; an `InputError` naming what needs it where there is none."""
    if isinstance(basis, Eigenbasis):
        return np.asarray(basis.vectors)
    raise InputError(
        f"{what} needs all eigenvectors as one matrix of {basis.n:,} x {basis.n:,}, which a "
        f"{type(basis).__name__} does not hold. Use a dense relatedness matrix (bl.grm) for it."
    )


@dataclass(frozen=True, eq=False)
class Eigenbasis:
    """Eigenvectors and eigenvalues of a relatedness matrix on its samples.

    Attributes
    ----------
    values : ndarray, shape (n,)
        S, eigenvalues of (centred) K in descending order, none negative.
    vectors : ndarray, shape (n, n)
        U, eigenvectors in columns, float64 or float32; may be memory-mapped.
    samples : Index
        Sample ids, shape (n,).
    centered : bool
        Whether K was centred on these samples (rows and columns sum to 0).
    labelled : bool
        Whether `samples` are real ids rather than row numbers.
    grm : GRM or None
        The matrix that it comes from, for bases of fewer samples.
    info : dict
        Provenance, and how many small negative eigenvalues were set to 0.
    """

    values: np.ndarray
    vectors: np.ndarray = field(repr=False)
    samples: pd.Index
    centered: bool = True
    labelled: bool = True
    grm: GRM | None = field(default=None, repr=False)
    info: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @property
    def trace(self) -> float:
        """Sum of the eigenvalues."""
        return float(self.values.sum())

    @property
    def kappa(self) -> float:
        """Mean diagonal of (centred) K: what turns s2_g into genetic variance."""
        return self.trace / self.n

    @property
    def needs_intercept(self) -> bool:
        """Whether kappa is that of the centred K."""
        return self.centered

    @cached_property
    def vectors32(self) -> np.ndarray:
        """U in float32, for products with many variants."""
        return np.asarray(self.vectors, dtype=np.float32)

    def _state_on_worker(self) -> dict[str, Any]:
        """All but what a worker of a cluster can make itself."""
        return {name: value for name, value in vars(self).items() if name != "vectors32"}

    def prepare(self, dtype: np.dtype) -> None:
        """Make what `rotate_rows` needs for that precision, before threads ask for it."""
        if dtype == np.float32:
            _ = self.vectors32

    def __repr__(self) -> str:
        positive = int((self.values > 1e-10 * self.values[0]).sum())
        return (
            f"<Eigenbasis of {self.n:,} samples: {positive:,} positive eigenvalues, "
            f"largest {self.values[0]:.4g}, kappa {self.kappa:.4g}>"
        )

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """U'x, for x of shape (n,) or (n, k)."""
        if self.vectors.dtype == np.float64:
            return self.vectors.T @ x
        return np.concatenate([U.T @ x for U in self._columns()])

    def unrotate(self, z: np.ndarray) -> np.ndarray:
        """U z, the way back, for z of shape (n,) or (n, k)."""
        if self.vectors.dtype == np.float64:
            return self.vectors @ z
        x, start = np.zeros(z.shape), 0
        for U in self._columns():
            x += U @ z[start : start + U.shape[1]]
            start += U.shape[1]
        return x

    def _columns(self) -> Iterator[np.ndarray]:
        """U in float64, some columns at a time."""
        step = max(1, _PIECE // self.n)
        for i in range(0, self.n, step):
            yield self.vectors[:, i : i + step].astype(np.float64)

    def rotate_rows(self, x: np.ndarray) -> np.ndarray:
        """X U for variants in rows, shape (b, n), in the precision of `x`."""
        return x @ (self.vectors32 if x.dtype == np.float32 else self.vectors)

    def row_quadratic(self, weights: np.ndarray) -> np.ndarray:
        """diag(U diag(w) U') for weights of shape (n,) or (n, k)."""
        out = np.empty(weights.shape)
        step = max(1, 2**22 // self.n)
        for i in range(0, self.n, step):
            rows = self.vectors[i : i + step]
            out[i : i + step] = (rows * rows) @ weights
        return out

    def block_quadratic(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The block of U diag(w) U' of some samples, shape (b, b), for weights (n,)."""
        vectors = self.vectors[rows]
        return (vectors * weights) @ vectors.T

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows of U of some samples, shape (b, n)."""
        return np.asarray(self.vectors[rows], dtype=np.float64)

    def subset(self, samples: Iterable[str]) -> Eigenbasis:
        """The basis of some of the samples, from the kept relatedness matrix.

        Raises
        ------
        InputError
            If the samples are not all there, or no relatedness matrix was kept.
        """
        ids = pd.Index(samples, name="id", dtype="str")
        if ids.equals(self.samples):
            return self
        absent = ids.difference(self.samples)
        if len(absent):
            raise InputError(
                f"The eigenbasis has {self.n:,} samples, {len(ids):,} are wanted, and "
                f"{len(absent):,} of these are not in it: {listing(absent)}."
            )
        if self.grm is None:
            raise InputError(
                f"The eigenbasis has {self.n:,} samples, but {len(ids):,} are analysed, and it "
                "was kept without its relatedness matrix. Make a basis of just these samples "
                "(bl.eigenbasis(grm, samples=ids)), or keep the matrix with it."
            )
        return self.grm.eigenbasis(ids, center=self.centered)

    def save(
        self, path: str | os.PathLike[str], *, with_grm: bool = True, overwrite: bool = False
    ) -> None:
        """Write the basis to a folder: basis.json, values.npy, vectors.npy, samples.txt, grm.npy.

        The folder is described in docs/formats.md. basis.json holds the SHA-256 of
        every other file and of its own content, checked on loading.

        Parameters
        ----------
        path : path-like
            Folder to make.
        with_grm : bool
            Keep the relatedness matrix too, so that bases of fewer samples can be
            made from the file.
        overwrite : bool
            Whether an existing basis may be replaced; any other folder is kept.
        """
        arrays, ids = {"values": self.values, "vectors": self.vectors}, {"samples": self.samples}
        if with_grm and self.grm is not None:
            arrays["grm"] = self.grm.matrix
            ids["grm_samples"] = self.grm.samples
        about = {
            "centered": self.centered,
            "labelled": self.labelled,
            "n": self.n,
            "scale": self.grm.scale if self.grm else None,
            "n_variants": int(self.grm.n_variants) if self.grm else None,
            "info": self.info,
        }
        save_basis(path, "dense", arrays, ids, about, overwrite=overwrite)


def eigenbasis(
    kernel: GRM | HasGRM | pd.DataFrame | np.ndarray,
    *,
    samples: Iterable[str] | None = None,
    center: bool = True,
    vectors: Literal["float64", "float32"] = "float64",
) -> Eigenbasis:
    """Decompose a relatedness matrix, K = U diag(S) U', by LAPACK's divide and conquer.

    Parameters
    ----------
    kernel : GRM, square DataFrame or array (n, n)
        The matrix; kept with the basis.
    samples : sample ids, optional
        Samples to decompose it on; all by default.
    center : bool
        Centre K on these samples first, as GEMMA does: with an intercept in the model
        the restricted likelihood stays the same, and the mean diagonal `kappa`
        becomes the variance that K gives. Leave it out only for models without
        intercept.
    vectors : {"float64", "float32"}
        Precision in which the eigenvectors are kept, of 8 or 4 n^2 bytes. They are computed in
        float64. In float32 h2 changes in the sixth digit or so.

    Returns
    -------
    Eigenbasis
        Kept with the GRM too: asked again for the same samples, it is not recomputed.

    Raises
    ------
    InputError
        If K is not symmetric, not finite, not positive-semidefinite, or proportional to
        the identity; if memory does not suffice (the message has both numbers).

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> K = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> bl.eigenbasis(K).values.round(3)
    array([1.167, 0.5  , 0.   ])
    """
    if vectors not in ("float64", "float32"):
        raise InputError(f"vectors='{vectors}' is unknown; expected 'float64' or 'float32'.")
    return as_grm(kernel).eigenbasis(samples, center=center, vectors=vectors)


def decompose(grm: GRM, samples: pd.Index, *, center: bool, vectors: str = "float64") -> Eigenbasis:
    """Eigenbasis of a GRM on some of its samples (see `eigenbasis`).

    Divide and conquer (syevd) takes three matrices of n x n, the one decomposed among them;
    relatively robust representations (syevr) take two. The first is faster, and is used where
    memory suffices.
    """
    from scipy.linalg import eigh

    n = len(samples)
    if n < 3:
        raise InputError(f"A basis needs at least 3 samples, but has {n}.")
    driver = "evd" if n <= _LARGEST_SYEVD and fits(24.0 * n * n) else "evr"
    need = 8.0 * n * n * (3 if driver == "evd" else 2)
    what = f"Decomposing a {n:,} x {n:,} relatedness matrix"
    require_memory(need, what)
    if n > 2000:
        log.info("%s: %s of memory, about %s.", what, gigabytes(need), _expected_time(n))
    K = _own_copy(grm, samples)
    _check_symmetric(K, samples)
    rounding = 1e-13 * n * max(float(K.max()), -float(K.min()))
    if center:
        means = K.mean(axis=0)
        K -= means
        K -= means[:, None]
        K += means.mean()
    S, U = eigh(K, driver=driver, overwrite_a=True, check_finite=False)
    del K
    S = S[::-1]
    _reverse_columns(U)
    if S[-1] < -max(NEGATIVE * abs(S[0]), rounding):
        raise InputError(
            f"The kernel is not positive-semidefinite: its eigenvalues run from {S[-1]:.4g} to "
            f"{S[0]:.4g}. A covariance has none below 0; was it made with pairwise deletion, "
            "rounded, or edited?"
        )
    n_negative = int((-1e-12 * S[0] > S).sum())
    smallest = float(S[-1])
    S = np.maximum(S, 0)
    check_not_identity(S[: n - 1] if center else S, rounding)
    info = grm.info | {
        "scale": grm.scale,
        "n_variants": grm.n_variants,
        "n_negative_set_to_0": n_negative,
        "smallest_eigenvalue": smallest,
    }
    if vectors == "float32":
        U = U.astype(np.float32)
        info["vectors"] = vectors
    return Eigenbasis(S, U, samples, center, grm.labelled, grm, info)


def check_not_identity(values: np.ndarray, rounding: float) -> None:
    """An `InputError` if all eigenvalues (without that of the intercept) are equal."""
    if np.ptp(values) <= max(1e-6 * values.mean(), rounding):
        raise InputError(
            "The kernel is proportional to the identity: everybody is equally related, so genetic "
            "and residual variance cannot be told apart."
        )


def _own_copy(grm: GRM, samples: pd.Index) -> np.ndarray:
    """K of some samples to be overwritten, in Fortran order."""
    if samples.equals(grm.samples):
        return np.array(grm.matrix, dtype=np.float64, order="F")
    own = np.asarray(grm.subset(samples).matrix, dtype=np.float64)
    # A symmetric matrix is its own transpose: no second copy.
    return own.T if own.flags.c_contiguous else np.asfortranarray(own)


def _reverse_columns(U: np.ndarray) -> None:
    """Columns in reverse order, in place."""
    n = U.shape[1]
    step = max(1, _PIECE // n)
    for i in range(0, n // 2, step):
        j = min(i + step, n // 2)
        left = U[:, i:j].copy()
        U[:, i:j] = U[:, n - j : n - i][:, ::-1]
        U[:, n - j : n - i] = left[:, ::-1]


def load_dense_basis(folder: Path, about: dict[str, Any], grm: GRM | None) -> Eigenbasis:
    """What `Eigenbasis.save` wrote; `grm` is the matrix that it comes from, if at hand."""
    values = np.load(folder / "values.npy")
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    samples = read_ids(folder / "samples.txt")
    if grm is None and "grm.npy" in about["sha256"]:
        subsets = folder.with_name(folder.name + ".subsets")
        grm = GRM(
            np.load(folder / "grm.npy", mmap_mode="r"),
            read_ids(folder / "grm_samples.txt"),
            about["n_variants"],
            about["scale"],
            labelled=about["labelled"],
            info=about["info"],
            cache_folder=subsets / about["sha256"]["grm.npy"][:16],
        )
    return Eigenbasis(
        values, vectors, samples, about["centered"], about["labelled"], grm, about["info"]
    )


def fingerprint(samples: pd.Index) -> str:
    """A hash of sample ids in their order."""
    return hashlib.sha256("\n".join(samples).encode()).hexdigest()


def _check_symmetric(K: np.ndarray, samples: pd.Index) -> None:
    largest, gap, where = 0.0, 0.0, (0, 0)
    columns = panels(len(K))
    for left in columns:
        part = K[:, left]
        least, most = float(part.min()), float(part.max())  # NaN if any is
        if not np.isfinite([least, most]).all():
            i, j = np.argwhere(~np.isfinite(part))[0]
            raise InputError(
                f"The kernel is not finite for samples '{samples[i]}' and "
                f"'{samples[left.start + j]}' ({part[i, j]})."
            )
        largest = max(largest, most, -least)
        for up in columns:  # tiles stay in the cache, turned round too
            if up.start > left.start:
                break
            difference = np.abs(K[up, left] - K[left, up].T)
            if difference.max() > gap:
                i, j = np.unravel_index(np.argmax(difference), difference.shape)
                gap, where = float(difference[i, j]), (up.start + int(i), left.start + int(j))
    if gap > 1e-5 * largest:
        i, j = where
        raise InputError(
            f"The kernel is not symmetric: samples '{samples[i]}' and '{samples[j]}' have "
            f"{K[i, j]:.6g} one way and {K[j, i]:.6g} the other."
        )


def _expected_time(n: int) -> str:
    """Time of a decomposition, from small products timed here (about 20 n^3 flops' worth)."""
    a = np.ones((512, 512))
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        spent.append(time.perf_counter() - start)
    seconds = 20 * n**3 / (2 * 512**3) * min(spent)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
