"""Dense relatedness matrices with the names of their samples, and the bases made of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.relatedness.triangle import Triangle
from bayeslmm.runs.progress import log

if TYPE_CHECKING:
    from bayeslmm.bases.basis import Basis, Eigenbasis

_BASES_KEPT = 8
# Folders for bases of fewer samples that could not be written, and of which that was said.
_not_kept: set[Path | None] = set()


@dataclass(frozen=True, eq=False)
class GRM:
    """A relatedness matrix K with the names of its samples.

    Attributes
    ----------
    matrix : ndarray, shape (n, n)
        K, symmetric. Not centred on the samples: that is done when it is decomposed.
    samples : Index or sequence of str
        Sample ids, shape (n,).
    n_variants : int
        Variants that went into it; 0 if unknown.
    scale : str
        "standardized", "centered", "empirical", "dominance", with ", weighted" after it
        if variants had weights; or "given" for a matrix from elsewhere.
    parts : dict
        Per chromosome the sum Z Z' of its variants (a `Triangle`: ``.full()`` is (n, n)) and
        their number, if asked for; what `loco` subtracts.
    pair_counts : ndarray, shape (n, n), or None
        Non-missing variants of each pair, if K was divided by them.
    labelled : bool
        Whether `samples` are real ids rather than row numbers.
    info : dict
        Where the matrix comes from.
    genotypes : Genotypes or None
        What it was made of, for the prediction of new samples.
    weights : ndarray, shape (m,), or None
        Weights of its variants, of mean 1 over those used.

    Raises
    ------
    InputError
        If the matrix is not square, or ids do not fit. That it is finite and symmetric
        is checked when it is decomposed.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> K = bl.GRM(np.array([[1.0, 0.5], [0.5, 1.0]]), samples=["ann", "bob"])
    >>> K.subset(["bob"]).matrix
    array([[1.]])
    """

    matrix: np.ndarray
    samples: pd.Index
    n_variants: int = 0
    scale: str = "given"
    parts: dict[str, tuple[Triangle, int]] = field(default_factory=dict, repr=False)
    pair_counts: np.ndarray | None = field(default=None, repr=False)
    labelled: bool = True
    info: dict[str, Any] = field(default_factory=dict, repr=False)
    cache_folder: Path | None = field(default=None, repr=False)
    genotypes: Genotypes | None = field(default=None, repr=False)
    weights: np.ndarray | None = field(default=None, repr=False)
    _bases: OrderedDict[tuple[bool, str, str], Eigenbasis] = field(
        default_factory=OrderedDict, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "samples", pd.Index([str(i) for i in self.samples], name="id", dtype="str")
        )
        K = self.matrix
        if K.ndim != 2 or K.shape[0] != K.shape[1]:
            raise InputError(f"A relatedness matrix must be square, but has shape {K.shape}.")
        if len(self.samples) != len(K):
            raise InputError(
                f"The relatedness matrix has {len(K):,} rows, but {len(self.samples):,} "
                "sample ids came."
            )
        if self.samples.has_duplicates:
            twice = self.samples[self.samples.duplicated()]
            raise InputError(f"The relatedness matrix has samples twice: {listing(twice)}.")

    def __repr__(self) -> str:
        n = len(self.samples)
        variants = f", {self.n_variants:,} variants" if self.n_variants else ""
        chromosomes = f", LOCO for {len(self.parts)} chromosomes" if self.parts else ""
        diagonal = float(np.diagonal(self.matrix).mean())
        return (
            f"<GRM {n:,} x {n:,}, {self.scale}{variants}, "
            f"mean diagonal {diagonal:.4g}{chromosomes}>"
        )

    def subset(self, samples: Iterable[str]) -> GRM:
        """The rows and columns of some samples, in the order given."""
        ids, positions = positions_of(samples, self.samples)
        return replace(
            self,
            matrix=self.matrix[np.ix_(positions, positions)],
            samples=ids,
            parts={},
            pair_counts=(
                None if self.pair_counts is None else self.pair_counts[np.ix_(positions, positions)]
            ),
            cache_folder=None,
            _bases=OrderedDict(),
        )

    def _basis_at_hand(self) -> Eigenbasis | None:
        """The centred eigenbasis of all samples, if it was made before."""
        made = (basis for (centred, _, _), basis in self._bases.items() if centred)
        return next((basis for basis in made if basis.samples.equals(self.samples)), None)

    def _state_on_worker(self) -> None:
        """Workers of a cluster get bases, not matrices."""
        return None

    def loco(self, chrom: str | int) -> GRM:
        """K without one chromosome's variants (leave one chromosome out).

        Raises
        ------
        InputError
            If the per-chromosome sums were not kept (``grm(..., by_chrom=True)``), or
            there is no such chromosome.
        """
        if not self.parts:
            raise InputError(
                "This relatedness matrix has no per-chromosome sums. Make it with "
                "bl.grm(genotypes, by_chrom=True)."
            )
        label = str(chrom)
        if label not in self.parts:
            raise InputError(
                f"No chromosome '{label}' in the relatedness matrix. "
                f"There are {listing(self.parts, limit=30)}."
            )
        part, count = self.parts[label]
        rest = self.n_variants - count
        if rest == 0:
            raise InputError(
                f"Chromosome '{label}' holds all {count:,} variants: nothing is left without it."
            )
        return replace(
            self,
            matrix=(self.matrix * self.n_variants - part.full()) / rest,
            n_variants=rest,
            parts={},
            cache_folder=None,
            info=self.info | {"without_chromosome": label},
            genotypes=self.genotypes
            and self.genotypes.select(variants=(self.genotypes.variants.chrom != label).to_numpy()),
            _bases=OrderedDict(),
        )

    def eigenbasis(
        self,
        samples: Iterable[str] | None = None,
        *,
        center: bool = True,
        vectors: str = "float64",
    ) -> Eigenbasis:
        """The eigenbasis of K, or of K on some samples; made once and kept.

        Parameters
        ----------
        samples : sample ids, optional
            All samples by default.
        center : bool
            Whether K is centred on these samples first.
        vectors : {"float64", "float32"}
            Precision of the eigenvectors.
        """
        from bayeslmm.bases.basis import Eigenbasis, decompose, fingerprint
        from bayeslmm.bases.loading import load_eigenbasis

        ids = self.samples if samples is None else pd.Index(samples, name="id", dtype="str")
        key = (center, fingerprint(ids), vectors)
        if key in self._bases:
            self._bases.move_to_end(key)
            return self._bases[key]
        single = "-float32" * (vectors == "float32")
        folder = self.cache_folder and self.cache_folder / f"{key[1][:16]}-{int(center)}{single}"
        if folder and folder.is_dir():
            basis = load_eigenbasis(folder, grm=self)
            assert isinstance(basis, Eigenbasis)
        else:
            if len(ids) < len(self.samples):
                log.info(
                    "Decomposing the relatedness matrix on %s of its %s samples; kept for the next "
                    "model of the same samples.",
                    f"{len(ids):,}",
                    f"{len(self.samples):,}",
                )
            basis = decompose(self, ids, center=center, vectors=vectors)
            if folder and self.cache_folder not in _not_kept:
                try:
                    basis.save(folder, with_grm=False)
                except (InputError, OSError) as error:
                    _not_kept.add(self.cache_folder)
                    log.info("Bases of fewer samples are not kept on disk: %s", error)
        self._bases[key] = basis
        if len(self._bases) > _BASES_KEPT:
            self._bases.popitem(last=False)
        return basis


def positions_of(wanted: Iterable[str], samples: pd.Index) -> tuple[pd.Index, np.ndarray]:
    """Some samples' ids as an index, and where they are among those of a relatedness matrix.

    Raises
    ------
    InputError
        For samples that are not there.
    """
    ids = pd.Index([str(i) for i in wanted], dtype="str")
    positions = samples.get_indexer(ids)
    absent = ids[positions < 0]
    if len(absent):
        raise InputError(
            f"{len(absent):,} of {len(ids):,} samples are not among the relatedness "
            f"matrix's {len(samples):,}: {listing(absent)}."
        )
    return ids, positions


@runtime_checkable
class Relatedness(Protocol):
    """A relatedness matrix, dense or sparse, that makes bases of its samples."""

    @property
    def samples(self) -> pd.Index: ...  # noqa: D102
    @property
    def labelled(self) -> bool: ...  # noqa: D102
    @property
    def n_variants(self) -> int: ...  # noqa: D102
    @property
    def genotypes(self) -> Genotypes | None: ...  # noqa: D102
    def eigenbasis(self, samples: Iterable[str] | None = None, *, center: bool = True) -> Basis:
        """The basis of K on some of the samples."""


class HasGRM(Protocol):
    """What makes a `GRM` itself, such as a pedigree."""

    def grm(self) -> GRM: ...  # noqa: D102


def as_grm(kernel: GRM | HasGRM | pd.DataFrame | np.ndarray) -> GRM:
    """A `GRM` from a square matrix that a user gives instead; checks that it is a kernel."""
    if isinstance(kernel, GRM):
        return kernel
    if callable(getattr(kernel, "grm", None)):
        return kernel.grm()  # type: ignore[union-attr]
    if not isinstance(kernel, pd.DataFrame):
        try:
            matrix = np.array(kernel, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                "A dense relatedness matrix is needed here (a GRM, a Pedigree, a square table or "
                f"array), not a {type(kernel).__name__}."
                + (f" Of files: bl.read_grm({kernel!r})." if isinstance(kernel, str) else "")
            ) from error
        return GRM(matrix, _numbers(len(matrix)), labelled=False)
    if not kernel.index.astype(str).equals(kernel.columns.astype(str)):
        raise InputError(
            "A relatedness matrix needs the same ids, in one order, in rows and columns."
        )
    labelled = not isinstance(kernel.index, pd.RangeIndex)
    return GRM(kernel.to_numpy(dtype=np.float64), kernel.index, labelled=labelled)


def _numbers(n: int) -> list[str]:
    return [str(i) for i in range(n)]
