r"""The basis of a relatedness matrix of low rank: k eigenvectors, and an exact complement.

K = U_1 diag(S_1) U_1' + delta (I - U_1 U_1') has the eigenvalue delta (usually 0) on all of the
n - k dimensions that U_1 leaves. They need no eigenvectors of their own: any orthonormal
completion serves, for V is a multiple of the identity there. It is one block reflector (Schreiber
& Parlett 1988). With A the first k rows of U_1, A M = -H by the polar decomposition (M orthogonal,
H symmetric and not negative), and E the first k columns of the identity,

    Y = U_1 M - E,    R = I - Y (I + H)^-1 Y'

is symmetric, orthogonal, and R E = U_1 M. So U = R diag(M', I) is an orthonormal basis of all n
dimensions whose first k columns are U_1: two products with n x k matrices take the place of one
with n x n, and everything that is computed on a full basis is computed, exactly, on this one. It
is the identity of FaST-LMM (Lippert et al. 2011), which needs |y|^2 - |U_1'y|^2 and its like, in
a form that holds for whatever is rotated.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import check_not_identity
from bayeslmm.bases.folders import read_ids, save_basis
from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import CenteredBlock, Genotypes, as_genotypes
from bayeslmm.relatedness.scales import Scale, standardize
from bayeslmm.runs.memory import require_memory
from bayeslmm.runs.progress import log, map_ahead, track

SCALES = ("standardized", "centered", "empirical")
# Singular values below this share of the largest are rounding.
_RANK = 1e-7
_OVERSAMPLING = 20


@dataclass(frozen=True, eq=False)
class LowRankBasis:
    """Eigenvectors of a relatedness matrix F F' + delta I, with F of k columns.

    Attributes
    ----------
    factor : ndarray, shape (n, k)
        F, not centred on the samples.
    delta : float
        What the diagonal has beside F F': 0 for an exact matrix of low rank.
    samples : Index
        Sample ids, shape (n,).
    centered : bool
        Whether K was centred on these samples.
    labelled : bool
        Whether `samples` are real ids rather than row numbers.
    info : dict
        Provenance; for an approximation its error (see `low_rank_basis`).
    """

    factor: np.ndarray = field(repr=False)
    delta: float
    samples: pd.Index
    centered: bool = True
    labelled: bool = True
    info: dict[str, Any] = field(default_factory=dict, repr=False)

    grm: None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        n, k = self.factor.shape
        if n < 3:
            raise InputError(f"A basis needs at least 3 samples, but has {n}.")
        if not np.isfinite(self.factor).all():
            raise InputError("The factor of a low-rank relatedness matrix is not finite.")
        require_memory(8.0 * 4 * n * k, f"A basis of {n:,} samples of rank {k:,}")
        inner = self.values[1:] if self.centered and self.delta else self.values
        if self.centered and not self.delta:
            inner = np.sort(self.values)[1:]  # the intercept is one of the zeros
        check_not_identity(inner, 1e-13 * float(self.values.max()))

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @property
    def needs_intercept(self) -> bool:
        """Whether kappa is that of the centred K."""
        return self.centered

    @property
    def rank(self) -> int:
        """Dimensions whose eigenvalue is not that of the complement."""
        return self._parts[1].shape[1]

    @property
    def values(self) -> np.ndarray:
        """S, shape (n,): the k eigenvalues, then `delta` for each dimension of the complement."""
        return self._parts[0]

    @property
    def kappa(self) -> float:
        """Mean diagonal of (centred) K: what turns s2_g into genetic variance."""
        return float(self.values.sum()) / self.n

    def __repr__(self) -> str:
        return (
            f"<LowRankBasis of {self.n:,} samples: {self.rank:,} eigenvectors, the largest "
            f"eigenvalue {self.values.max():.4g}, {self.delta:.4g} on the complement, "
            f"kappa {self.kappa:.4g}>"
        )

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        """All eigenvalues (n,), and the eigenvectors U_1 (n, k)."""
        F = self.factor
        if self.centered:
            F = F - F.mean(axis=0)
        U, singular, _ = np.linalg.svd(F, full_matrices=False)
        kept = singular > _RANK * singular[0]
        U, S = U[:, kept], singular[kept] ** 2 + self.delta
        if self.centered and self.delta:
            # The centred identity is 0 along the constant.
            U = np.column_stack([np.full(self.n, self.n**-0.5), U])
            S = np.append(0.0, S)
        return np.append(S, np.full(self.n - len(S), self.delta)), U

    @cached_property
    def _reflector(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Y (n, k), Y (I + H)^-1 (n, k) and M (k, k)."""
        U = self._parts[1]
        k = U.shape[1]
        left, singular, right = np.linalg.svd(U[:k])
        # A = W D V': A M = -W D W' for M = -V W'.
        M = -(right.T @ left.T)
        H = (left * singular) @ left.T
        Y = U @ M
        Y[:k] -= np.eye(k)
        return Y, np.linalg.solve(np.eye(k) + H, Y.T).T, M

    @cached_property
    def _single(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        Y, G, M = (part.astype(np.float32) for part in self._reflector)
        return Y, G, M

    def prepare(self, dtype: np.dtype) -> None:
        """Make what `rotate_rows` needs for variants of that precision."""
        _ = self._single if dtype == np.float32 else self._reflector

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """U'x, for x of shape (n,) or (n, k)."""
        Y, G, M = self._reflector
        z = x - Y @ (G.T @ x)
        z[: len(M)] = M @ z[: len(M)]
        return z

    def unrotate(self, z: np.ndarray) -> np.ndarray:
        """U z, the way back, for z of shape (n,) or (n, k)."""
        Y, G, M = self._reflector
        x = np.concatenate([M.T @ z[: len(M)], z[len(M) :]])
        return x - Y @ (G.T @ x)

    def rotate_rows(self, x: np.ndarray) -> np.ndarray:
        """X U for variants in rows, shape (b, n), in the precision of `x`."""
        Y, G, M = self._single if x.dtype == np.float32 else self._reflector
        z = x - (x @ G) @ Y.T
        z[:, : len(M)] = z[:, : len(M)] @ M.T
        return z

    def row_quadratic(self, weights: np.ndarray) -> np.ndarray:
        """diag(U diag(w) U') for weights of shape (n,) or (n, k), functions of S."""
        rest, difference = self._split(weights)
        U = self._parts[1]
        return rest + (U * U) @ difference

    def block_quadratic(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The block of U diag(w) U' of some samples, shape (b, b), for weights (n,)."""
        rest, difference = self._split(weights)
        U = self._parts[1][rows]
        return rest * np.eye(len(U)) + (U * difference) @ U.T

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows of U of some samples, shape (b, n)."""
        one = np.zeros((self.n, len(rows)))
        one[rows, np.arange(len(rows))] = 1
        return self.rotate(one).T

    def _split(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weight on the complement, and what the weights of U_1 are beyond it."""
        k = self.rank
        if k == self.n:
            return np.zeros(weights.shape[1:]), weights
        rest = weights[k]
        if not np.allclose(weights[k:], rest, rtol=1e-9, atol=0):
            raise ValueError("Weights differ on the complement, where the eigenvalues are equal.")
        return rest, weights[:k] - rest

    def subset(self, samples: Iterable[str]) -> LowRankBasis:
        """The basis of some of the samples, from the same factor.

        Raises
        ------
        InputError
            If the samples are not all there.
        """
        ids = pd.Index(samples, name="id", dtype="str")
        if ids.equals(self.samples):
            return self
        rows = self.samples.get_indexer(ids)
        if (rows < 0).any():
            absent = ids[rows < 0]
            raise InputError(
                f"The basis has {self.n:,} samples, {len(ids):,} are wanted, and {len(absent):,} "
                f"of these are not in it: {listing(absent)}."
            )
        return LowRankBasis(
            self.factor[rows], self.delta, ids, self.centered, self.labelled, self.info
        )

    def save(
        self, path: str | os.PathLike[str], *, with_grm: bool = True, overwrite: bool = False
    ) -> None:
        """Write the basis to a folder, as `Eigenbasis.save` does (docs/formats.md).

        It needs no matrix for bases of fewer samples: `with_grm` changes nothing.
        """
        about = {
            "centered": self.centered,
            "labelled": self.labelled,
            "n": self.n,
            "delta": self.delta,
            "info": self.info,
        }
        arrays, ids = {"factor": self.factor}, {"samples": self.samples}
        save_basis(path, "low rank", arrays, ids, about, overwrite=overwrite)


def load_low_rank_basis(folder: Path, about: dict[str, Any]) -> LowRankBasis:
    """The basis in a folder whose basis.json, `about`, was read and checked."""
    return LowRankBasis(
        np.load(folder / "factor.npy"),
        float(about["delta"]),
        read_ids(folder / "samples.txt"),
        about["centered"],
        about["labelled"],
        about["info"],
    )


def low_rank_basis(
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    rank: int | None = None,
    *,
    rest: Literal["constant", "none"] = "constant",
    scale: Scale = "standardized",
    center: bool = True,
    passes: int = 3,
    seed: int = 0,
    block_size: int | None = None,
    progress: bool | None = None,
) -> LowRankBasis:
    r"""The basis of K = Z Z' / m without K: exact for few variants, or approximate at a rank.

    - Without `rank`, Z itself is the factor: exact, in O(n m^2) time and O(n m) memory, for
      m < n variants, such as a selected set (FaST-LMM-Select).
    - With `rank`, the leading eigenvectors by randomised subspace iteration (Halko et al. 2011)
      and Nystrom's formula, reading the genotypes `passes` + 1 times. What they leave of the
      trace of K is put on the diagonal (``rest="constant"``, K keeps its mean diagonal), or is
      left out (``"none"``: the model of the leading principal components alone).

    Parameters
    ----------
    genotypes : Genotypes, path or array (n, m)
        Where the dosages come from.
    rank : int, optional
        Number of eigenvectors of an approximation.
    rest : {"constant", "none"}
        What an approximation does with the part of K that it leaves out.
    scale : {"standardized", "centered", "empirical"}
        As of `bl.grm`.
    center : bool
        Whether K is centred on the samples, for models with an intercept.
    passes : int
        Passes over the genotypes that turn random vectors towards the leading eigenvectors.
    seed : int
        Of the random start.
    block_size : int, optional
        Variants per block.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    LowRankBasis
        Give it to `LMM` as the kernel. Of an approximation, `info` has ``trace_share``, the
        share of K's trace that the eigenvectors hold, and ``frobenius_error``, the
        root-mean-square size of what K v misses, relative to K v, for random v (both 1 and 0
        if nothing is lost).

    Raises
    ------
    InputError
        For m >= n without `rank`, a rank that is not below n, no polymorphic variant, or too
        little memory.

    Notes
    -----
    An approximation is for populations with structure, and for variants in strong linkage
    disequilibrium, whose K has a few large eigenvalues. Relatedness within families is spread
    over as many dimensions as there are families: there a sparse matrix is the better
    approximation. Compare h2 at several ranks before relying on one.

    References
    ----------
    Lippert C et al. (2011). FaST linear mixed models for genome-wide association studies. Nat
    Methods 8:833. doi:10.1038/nmeth.1681
    Halko N, Martinsson PG, Tropp JA (2011). Finding structure with randomness: probabilistic
    algorithms for constructing approximate matrix decompositions. SIAM Rev 53:217.
    doi:10.1137/090771806
    Schreiber R, Parlett B (1988). Block reflectors: theory and computation. SIAM J Numer Anal
    25:189. doi:10.1137/0725014

    Examples
    --------
    >>> import bayeslmm as bl
    >>> cohort = bl.simulate_cohort(None, 300, 60, families=6, seed=1)
    >>> basis = bl.low_rank_basis(cohort.genotypes)
    >>> basis
    <LowRankBasis of 300 samples: 60 eigenvectors, the largest eigenvalue 11.91, 0 on the
    complement, kappa 0.9926>
    >>> dense = bl.LMM("y ~ sex", cohort.phenotypes, bl.grm(cohort.genotypes))
    >>> low = bl.LMM("y ~ sex", cohort.phenotypes, basis)
    >>> print(f"{abs(dense.reml().h2 - low.reml().h2):.5f}")
    0.00000
    """
    if scale not in SCALES:
        raise InputError(f"scale='{scale}' is unknown; expected one of {listing(SCALES)}.")
    if rest not in ("constant", "none"):
        raise InputError(f"rest='{rest}' is unknown; expected 'constant' or 'none'.")
    genotypes = as_genotypes(genotypes)
    n, m = genotypes.shape
    source = _Standardized(genotypes, scale, block_size, progress)
    info: dict[str, Any] = {"genotypes": genotypes.name, "scale": scale}
    samples, labelled = genotypes.samples.index, genotypes.labelled
    if rank is None:
        if m >= n:
            raise InputError(
                f"K of {m:,} variants in {n:,} samples is not of low rank. Select fewer variants, "
                "name a rank for an approximation, or use bl.eigenbasis(bl.grm(genotypes))."
            )
        require_memory(8.0 * 5 * n * m, f"A basis of {n:,} samples of rank {m:,}")
        Z = np.empty((n, m))
        for start, stop, z in source.blocks("Low-rank basis"):
            Z[:, start:stop] = z.T
        used = source.used
        info |= {"n_variants": used, "trace_share": 1.0, "frobenius_error": 0.0}
        return LowRankBasis(Z / np.sqrt(used), 0.0, samples, center, labelled, info)
    if not 1 <= rank < n:
        raise InputError(f"rank={rank}: expected 1 to n - 1 = {n - 1:,}.")
    if passes < 1:
        raise InputError(f"passes={passes}: at least one is needed.")
    wide = min(rank + _OVERSAMPLING, n - 1)
    require_memory(8.0 * 6 * n * wide, f"A basis of {n:,} samples of rank {rank:,}")
    rng = np.random.default_rng(seed)
    Q = rng.standard_normal((n, wide))
    for number in range(passes):
        product, _ = source.times(Q, f"Low-rank basis, pass {number + 1}")
        Q, _ = np.linalg.qr(product)
    probes = rng.standard_normal((n, 10))
    both, trace = source.times(np.column_stack([Q, probes]), "Low-rank basis, last pass")
    KQ, K_probes = both[:, :wide], both[:, wide:]
    # Nystrom: K ~ KQ (Q'KQ)^-1 (KQ)', never more than K.
    core, vectors = np.linalg.eigh((Q.T @ KQ + KQ.T @ Q) / 2)
    kept = core > 1e-12 * core[-1]
    factor = KQ @ (vectors[:, kept] / np.sqrt(core[kept]))
    U, singular, _ = np.linalg.svd(factor, full_matrices=False)
    U, S = U[:, :rank], singular[:rank] ** 2
    delta = 0.0
    if rest == "constant":
        delta = float(max(trace - S.sum(), 0) / (n - len(S)))
    found = delta * probes + U @ ((S - delta)[:, None] * (U.T @ probes))
    error = float(np.linalg.norm(K_probes - found) / np.linalg.norm(K_probes))
    info |= {
        "n_variants": source.used,
        "rank": len(S),
        "rest": rest,
        "seed": seed,
        "trace_share": float(S.sum() / trace),
        "frobenius_error": error,
    }
    log.info(
        "Low-rank basis: %s of %s eigenvectors hold %.1f%% of the trace of K; the rest is %s. "
        "Relative error of K in the Frobenius norm: %.3f.",
        f"{len(S):,}",
        f"{n:,}",
        100 * S.sum() / trace,
        "on the diagonal" if rest == "constant" else "left out",
        error,
    )
    F = U * np.sqrt(np.maximum(S - delta, 0))
    return LowRankBasis(F, delta, samples, center, labelled, info)


class _Standardized:
    """Standardised genotypes Z', block by block, and products K X = Z (Z'X) / m with them."""

    def __init__(
        self, genotypes: Genotypes, scale: Scale, block_size: int | None, progress: bool | None
    ) -> None:
        self.genotypes, self.scale = genotypes, scale
        self.block_size, self.progress = block_size, progress
        self.used = 0

    def blocks(self, label: str) -> Iterable[tuple[int, int, np.ndarray]]:
        """First and last variant of a block, and its rows of Z', (b, n)."""
        ranges = self.genotypes.block_ranges(self.block_size)
        self.used = 0

        def prepare(span: tuple[int, int]) -> tuple[CenteredBlock, int]:
            block = self.genotypes.centered_block(*span, dtype=np.float64)
            return block, int(standardize(block, self.scale, self.genotypes.name).sum())

        found = map_ahead(prepare, ranges)
        for block, count in track(found, label, total=len(ranges), show=self.progress):
            self.used += count
            yield block.start, block.stop, block.x
        if self.used == 0:
            raise InputError(
                f"{self.genotypes.name}: all {self.genotypes.n_variants:,} variants are "
                "monomorphic or missing: no relatedness matrix."
            )

    def times(self, X: np.ndarray, label: str) -> tuple[np.ndarray, float]:
        """K X for X (n, k), and the trace of K."""
        total, trace = np.zeros(X.shape), 0.0
        for _, _, z in self.blocks(label):
            total += z.T @ (z @ X)
            trace += float(np.einsum("bn,bn->", z, z))
        return total / self.used, trace / self.used
