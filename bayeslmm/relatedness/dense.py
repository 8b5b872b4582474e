"""Genetic relatedness matrices, in one pass over blocks of genotypes; GCTA's and GEMMA's files."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import CenteredBlock, Genotypes, as_genotypes
from bayeslmm.relatedness.triangle import Triangle, packed_size, panels, symmetric
from bayeslmm.runs.devices import BLOCK_ON_DEVICE, as_device
from bayeslmm.runs.files import existing, table_of, text_of, write_aside
from bayeslmm.runs.memory import fits, require_memory
from bayeslmm.runs.progress import blas_thread_count, blas_threads, log, map_ahead, track
from bayeslmm.runs.results import result_files

if TYPE_CHECKING:
    from distributed import Client

    from bayeslmm.bases.basis import Basis, Eigenbasis
    from bayeslmm.runs.checkpoints import Checkpoint

Scale = Literal["standardized", "centered", "empirical", "dominance"]
SCALES = ("standardized", "centered", "empirical", "dominance")
_WEIGHTED = ", weighted"
_BASES_KEPT = 8
# Blocks that are summed in the precision of their products before the float64 sum.
_BLOCKS_PER_SUM = 4
# Seconds between two times that a sum is kept.
_SAVED_EVERY = 60.0
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
        ids = pd.Index([str(i) for i in samples], dtype="str")
        positions = self.samples.get_indexer(ids)
        if (positions < 0).any():
            absent = ids[positions < 0]
            raise InputError(
                f"{len(absent):,} of {len(ids):,} samples are not among the relatedness "
                f"matrix's {len(self.samples):,}: {listing(absent)}."
            )
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
        from bayeslmm.bases.basis import Eigenbasis, decompose, fingerprint, load_eigenbasis

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


def grm(
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    *,
    scale: Scale = "standardized",
    variants: Iterable[str] | np.ndarray | None = None,
    weights: pd.Series | np.ndarray | None = None,
    by_chrom: bool = False,
    pairwise: bool = False,
    dtype: Literal["float32", "float64"] = "float32",
    block_size: int | None = None,
    progress: bool | None = None,
    kept: Checkpoint | None = None,
    device: str | None = None,
    client: Client | None = None,
) -> GRM:
    r"""Genetic relatedness matrix :math:`K = Z Z' / m`, in one pass over the genotypes.

    With x the effect-allele dosage and p its frequency, a variant's column of Z is

    - ``standardized``: :math:`(x - 2p) / \sqrt{2p(1-p)}` (Yang et al. 2011, GCTA);
    - ``centered``: :math:`x - 2p` (GEMMA ``-gk 1``);
    - ``empirical``: :math:`(x - 2p) / \mathrm{sd}(x)` (GEMMA ``-gk 2``);
    - ``dominance``: -p/q, 1, -q/p for x = 0, 1, 2, with q = 1 - p: orthogonal to the
      additive coding under Hardy-Weinberg proportions (Vitezica et al. 2013; Zhu et al.
      2015; GCTA ``--make-grm-d``). Needs called genotypes, not imputed dosages.

    With weights w, :math:`K = \sum_j w_j z_j z_j' / \sum_j w_j`.

    Missing dosages are set to the variant's mean, 0 in Z. Monomorphic variants are
    left out and counted.

    Parameters
    ----------
    genotypes : Genotypes, path or array (n, m)
        Where the dosages come from.
    scale : str
        One of the four above.
    variants : variant ids or boolean array, optional
        Variants to use; all by default.
    weights : Series (by variant id) or array (m,), optional
        Weights of the variants used, not negative: for instance of LDAK, or
        [2p(1-p)]^(1 + alpha) for a model of effects by frequency.
    by_chrom : bool
        Keep each chromosome's sum, so that `GRM.loco` and scans with another `background`
        need no second pass. Takes half an n x n matrix of `dtype` per chromosome.
    pairwise : bool
        Divide by the number of variants that both samples have, as GCTA does,
        instead of m.
    dtype : {"float32", "float64"}
        Precision of the products of a block. Sums over blocks are float64.
    block_size : int, optional
        Variants per block.
    progress : bool, optional
        Whether to show a progress bar.
    kept : Checkpoint, optional
        Where the sum so far is kept every minute, and taken up again after an interruption:
        see `bayeslmm.checkpoint`. Not with pairwise.
    client : dask.distributed.Client, optional
        A cluster whose workers make the sums of blocks; they are added here, in one order.
    device : str, optional
        Where products are done, such as ``"cupy"`` or ``"torch:cuda"``: see
        `bayeslmm.runs.devices.as_device`. By default here, by NumPy.

    Returns
    -------
    GRM

    Raises
    ------
    InputError
        For an unknown scale, no polymorphic variant, weights that do not fit, dosages
        that are no genotypes (dominance), or too little memory.

    References
    ----------
    Yang J, Lee SH, Goddard ME, Visscher PM (2011). GCTA: a tool for genome-wide
    complex trait analysis. Am J Hum Genet 88:76. doi:10.1016/j.ajhg.2010.11.011
    Vitezica ZG, Varona L, Legarra A (2013). On the additive and dominant variance and
    covariance of individuals within the genomic selection scope. Genetics 195:1223.
    doi:10.1534/genetics.113.155176
    Zhu Z et al. (2015). Dominance genetic variation contributes little to the missing
    heritability for human complex traits. Am J Hum Genet 96:377.
    doi:10.1016/j.ajhg.2015.01.001
    Speed D et al. (2012). Improved heritability estimation from genome-wide SNPs. Am J
    Hum Genet 91:1011. doi:10.1016/j.ajhg.2012.10.010

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> x = np.array([[0, 1, 2], [1, 1, 0], [2, 0, 1]])
    >>> bl.grm(x, scale="centered", dtype="float64").matrix.round(3)
    array([[ 0.704, -0.296, -0.407],
           [-0.296,  0.37 , -0.074],
           [-0.407, -0.074,  0.481]])
    """
    if scale.endswith(_WEIGHTED):
        raise InputError(
            "The matrix of a part of the variants is not remade with weights (LOCO and its like): "
            "use a kernel without weights there."
        )
    if scale not in SCALES:
        raise InputError(f"scale='{scale}' is unknown; expected one of {listing(SCALES)}.")
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype='{dtype}' is unknown; expected 'float32' or 'float64'.")
    if kept is not None and pairwise:
        raise InputError("A sum by pairs is not kept while it is made.")
    if by_chrom and pairwise:
        raise InputError("by_chrom and pairwise cannot be combined: LOCO divides by m.")
    if weights is not None and (by_chrom or pairwise):
        raise InputError("Weights cannot be combined with by_chrom or pairwise, which divide by m.")
    genotypes = as_genotypes(genotypes)
    if variants is not None:
        genotypes = genotypes.select(variants=variants)
    weight = None if weights is None else _weights(weights, genotypes)
    n = genotypes.n_samples
    kind = np.dtype(dtype)
    elsewhere = as_device(device)
    if elsewhere is not None and client is not None:
        raise InputError("Name a client or a device for the relatedness matrix, not both.")
    if elsewhere is not None and block_size is None:
        block_size = BLOCK_ON_DEVICE
    runs = _runs(genotypes, by_chrom, block_size)
    require_memory(
        n * n * (8 + kind.itemsize) * (1 + pairwise)
        + len(runs) * by_chrom * kind.itemsize * packed_size(n),
        f"The relatedness matrix of {n:,} samples"
        + (f" and its {len(runs)} chromosomes" if by_chrom else ""),
    )
    if kept is not None:
        where = "" if elsewhere is None else elsewhere.name
        kept.same("grm", _identity(genotypes, scale, weight, dtype, runs) | {"device": where})
    summed = _Sum(np.zeros((n, n), order="F")) if kept is None else _Sum.resumed(kept, n)
    runs = runs[summed.runs :]
    absent_pairs = np.zeros((n, n), order="F") if pairwise else None
    work = _Pass(genotypes, scale, weight, kind, pairwise, elsewhere)
    sums = _on_cluster(work, runs, client) if client is not None else work.sums(runs)
    for (label, _, _), partial in track(
        zip(runs, sums, strict=True),
        "GRM",
        total=sum(len(spans) for _, _, spans in runs),
        size=lambda one: len(one[0][2]),
        show=progress,
    ):
        summed.add(partial, label if by_chrom else None)
        if absent_pairs is not None and partial.absent is not None:
            absent_pairs += partial.absent
        if kept is not None and time.monotonic() - summed.saved >= _SAVED_EVERY:
            summed.keep(kept)
        partial.product = np.empty((0, 0))  # gone before the next is made
    if kept is not None and time.monotonic() - summed.begun >= _SAVED_EVERY:
        summed.keep(kept)
    n_used, weight_used = summed.n_used, summed.weight
    if n_used == 0:
        raise InputError(
            f"{genotypes.name}: all {genotypes.n_variants:,} variants are monomorphic or missing "
            f"among {n:,} samples: no relatedness matrix."
        )
    matrix = symmetric(summed.total)
    counts = None
    if absent_pairs is not None:
        counts = n_used - symmetric(absent_pairs)
        if counts.min() == 0:
            i, j = np.argwhere(counts == 0)[0]
            ids = genotypes.samples.index
            raise InputError(
                f"{genotypes.name}: samples '{ids[i]}' and '{ids[j]}' have no variant in common. "
                "Leave one out, or use pairwise=False."
            )
        matrix /= counts
    else:
        matrix /= n_used if weight is None else weight_used
    dropped = genotypes.n_variants - n_used
    if dropped:
        without = "monomorphic variants" if weight is None else "monomorphic or weightless variants"
        log.info("GRM: %s %s left out, %s used.", f"{dropped:,}", without, f"{n_used:,}")
    info = {
        "genotypes": genotypes.name,
        "n_monomorphic": dropped,
        "dtype": dtype,
        "filters": genotypes.excluded.reason.value_counts().to_dict(),
    }
    return GRM(
        matrix,
        genotypes.samples.index,
        n_used,
        scale if weight is None else scale + _WEIGHTED,
        summed.parts,
        counts,
        genotypes.labelled,
        info,
        genotypes=genotypes,
        weights=None if weight is None else weight * (n_used / weight_used),
    )


def keeps_chromosomes(genotypes: Genotypes) -> bool:
    """Whether `grm` with by_chrom takes at most a quarter of the memory that is available."""
    n, chromosomes = genotypes.n_samples, len(genotypes.chromosomes)
    return fits(4 * (8 * n * n + 4 * chromosomes * packed_size(n)))


def _identity(
    genotypes: Genotypes,
    scale: str,
    weight: np.ndarray | None,
    dtype: str,
    runs: Sequence[_Run],
) -> dict[str, Any]:
    """All that a sum kept for later depends on."""
    from bayeslmm.runs.checkpoints import digest

    return {
        "samples": digest(genotypes.samples.index),
        "variants": digest(genotypes.variants.id, genotypes.variants.ea),
        "genotypes": genotypes.identity,
        "scale": scale,
        "weights": "" if weight is None else digest(weight),
        "dtype": dtype,
        "blocks": digest(np.array([span for _, _, spans in runs for span in spans])),
    }


@dataclass
class _Partial:
    """Z Z' of a run's blocks (upper triangle, in the precision of the products)."""

    product: Any
    n_used: int = 0
    weights: list[float] = field(default_factory=list)
    absent: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Sent without what is below the diagonal."""
        return vars(self) | {"product": Triangle.of(self.product)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.product = state["product"].upper()


@dataclass(frozen=True)
class _Pass:
    """What a pass over the genotypes sums."""

    genotypes: Genotypes
    scale: Scale
    weight: np.ndarray | None
    dtype: np.dtype
    pairwise: bool
    device: Any = None

    def sums(self, runs: Sequence[_Run]) -> Iterator[_Partial]:
        """The sum of every run, which does not depend on the number of threads."""
        jobs = [(view, span) for _, view, spans in runs for span in spans]
        threads = blas_thread_count()
        # While a device multiplies, the processors have nothing else to do.
        blocks = map_ahead(self._block, jobs, workers=1 if self.device is None else threads)
        with ThreadPoolExecutor(threads) as pool, blas_threads(1):
            for _, view, spans in runs:
                n, there = view.n_samples, self.device
                empty = np.zeros((n, n), self.dtype, order="F") if there is None else None
                partial = _Partial(empty)
                for _ in spans:
                    self._add(partial, *next(blocks), pool)
                if there is not None:
                    partial.product = there.fetch(partial.product)
                yield partial

    def _block(self, job: tuple[Genotypes, tuple[int, int]]) -> tuple[CenteredBlock, np.ndarray]:
        view, span = job
        block = view.centered_block(*span, dtype=self.dtype)
        used = standardize(block, self.scale, view.name)
        if self.weight is not None:
            weight = self.weight[slice(*span)]
            used &= weight > 0
            block.x[:] *= np.sqrt(weight)[:, None].astype(self.dtype)
        return block, used

    def _add(
        self, partial: _Partial, block: CenteredBlock, used: np.ndarray, pool: ThreadPoolExecutor
    ) -> None:
        if self.device is None:
            _add_tiles(block.x, partial.product, pool)
        else:
            product = self.device.outer(block.x)
            partial.product = product if partial.product is None else partial.product + product
        partial.n_used += int(used.sum())
        if self.weight is not None:
            partial.weights.append(float(self.weight[block.start : block.stop][used].sum()))
        if self.pairwise and block.missing is not None:
            absent = _absent_pairs(block, used)
            partial.absent = absent if partial.absent is None else partial.absent + absent


def _on_cluster(work: _Pass, runs: Sequence[_Run], client: Client) -> Iterator[_Partial]:
    """The sum of every run, from a cluster's workers."""
    from bayeslmm.runs.cluster import on_workers

    jobs = [(label, spans) for label, _, spans in runs]
    for _, partial in on_workers(
        client, _run_on_worker, work, jobs, what="part of the relatedness matrix", ordered=True
    ):
        yield partial


def _run_on_worker(work: _Pass, job: tuple[str, list[tuple[int, int]]]) -> _Partial:
    label, spans = job
    view = work.genotypes.select(chrom=label) if label else work.genotypes
    (partial,) = work.sums([(label, view, spans)])
    return partial


@dataclass
class _Sum:
    """Z Z' so far (its upper triangle), and what went into it."""

    total: np.ndarray
    parts: dict[str, tuple[Triangle, int]] = field(default_factory=dict)
    runs: int = 0
    n_used: int = 0
    weight: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)

    def add(self, partial: _Partial, chrom: str | None) -> None:
        """Add a run's sum; that of a chromosome is kept by itself, too."""
        for columns in panels(len(self.total)):
            self.total[: columns.stop, columns] += partial.product[: columns.stop, columns]
        if chrom is not None:
            self.parts[chrom] = (Triangle.of(partial.product), partial.n_used)
        self.runs += 1
        self.n_used += partial.n_used
        for weight in partial.weights:
            self.weight += weight

    def keep(self, kept: Checkpoint) -> None:
        """Write the sum in place of the one before."""
        about = {
            "runs": self.runs,
            "n_used": self.n_used,
            "weight": self.weight,
            "parts": [(chrom, count) for chrom, (_, count) in self.parts.items()],
        }

        def write(aside: Path) -> None:
            aside.mkdir()
            np.save(aside / "total.npy", self.total)
            for i, (part, _) in enumerate(self.parts.values()):
                np.save(aside / f"part-{i}.npy", part.packed)
            (aside / "about.json").write_text(json.dumps(about), encoding="utf-8")

        name = f"grm-{self.runs:06d}"
        written = kept.path(name) if kept.has(name) else kept.write(name, write)
        for older in kept.folder.glob("grm-*"):
            if older != written:
                shutil.rmtree(older)
        self.saved = time.monotonic()

    @classmethod
    def resumed(cls, kept: Checkpoint, n: int) -> _Sum:
        """The sum that was kept last, or one of nothing."""
        found = sorted(kept.folder.glob("grm-*"))
        if not found:
            return cls(np.zeros((n, n), order="F"))
        try:
            about = json.loads((found[-1] / "about.json").read_text(encoding="utf-8"))
            total = np.load(found[-1] / "total.npy")
            parts = {
                chrom: (Triangle(n, np.load(found[-1] / f"part-{i}.npy")), count)
                for i, (chrom, count) in enumerate(about.pop("parts"))
            }
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise InputError(
                f"{found[-1]}: damaged; remove it, and start the same again."
            ) from error
        log.info("GRM: %s variants are summed already.", f"{about['n_used']:,}")
        return cls(total, parts, **about)


def _weights(weights: pd.Series | np.ndarray, genotypes: Genotypes) -> np.ndarray:
    """Weights of the variants in their order, shape (m,)."""
    ids = genotypes.variants.id.astype(str)
    if isinstance(weights, pd.Series):
        index = weights.index.astype(str)
        absent = ids[~ids.isin(index)]
        if len(absent) or index.has_duplicates:
            problem = (
                f"lack {len(absent):,} of {len(ids):,} variants: {listing(absent)}"
                if len(absent)
                else f"name variants twice: {listing(index[index.duplicated()].unique())}"
            )
            raise InputError(f"The weights {problem}.")
        weights = weights.set_axis(index).loc[ids].to_numpy()
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (len(ids),):
        raise InputError(
            f"The weights have shape {values.shape}, but {len(ids):,} variants are used. Use a "
            "Series with variant ids as its index."
        )
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise InputError("Weights of variants must be finite, none below 0, and not all 0.")
    return values


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


type _Run = tuple[str, Genotypes, list[tuple[int, int]]]


def _runs(genotypes: Genotypes, by_chrom: bool, block_size: int | None) -> list[_Run]:
    """Blocks whose products share one accumulator: a chromosome's, or a few in a row."""
    if by_chrom:
        views = [(label, genotypes.select(chrom=label)) for label in genotypes.chromosomes]
        return [(label, view, view.block_ranges(block_size)) for label, view in views]
    spans = genotypes.block_ranges(block_size)
    return [
        ("", genotypes, spans[i : i + _BLOCKS_PER_SUM])
        for i in range(0, len(spans), _BLOCKS_PER_SUM)
    ]


def standardizing_factor(block: CenteredBlock, scale: str) -> np.ndarray:
    """What turns a block's centred dosages into rows of Z', shape (b,); 0 if monomorphic.

    Raises
    ------
    InputError
        If Z is no multiple of the dosages: dominance.
    """
    scale = scale.removesuffix(_WEIGHTED)
    if scale == "dominance":
        raise InputError(
            "The kernel codes dominance: it gives no additive effects of SNPs, and new samples are "
            "not related to it here. Predict with an additive kernel."
        )
    if scale == "standardized":
        variance = 2 * block.eaf * (1 - block.eaf)
    elif scale == "empirical":
        variance = block.sum_sq / block.x.shape[1]
    else:
        variance = np.ones_like(block.eaf)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(block.sum_sq > 0, 1 / np.sqrt(variance), 0)


def standardize(block: CenteredBlock, scale: Scale, name: str) -> np.ndarray:
    """Scale a centred block's rows in place; returns which variants are polymorphic."""
    polymorphic = block.sum_sq > 0
    if scale == "dominance":
        _code_dominance(block, name)
        block.x[~polymorphic] = 0
        return polymorphic
    factor = standardizing_factor(block, scale)
    if not polymorphic.all():
        block.x[~polymorphic] = 0
    if scale != "centered":
        np.multiply(block.x, factor[:, None].astype(block.x.dtype), out=block.x)
    return polymorphic


def _code_dominance(block: CenteredBlock, name: str) -> None:
    """Replace centred genotypes 0, 1, 2 by -p/q, 1, -q/p in place, missing ones by 0."""
    p = np.nan_to_num(block.eaf)[:, None]
    genotype = block.x + (2 * p).astype(block.x.dtype)
    called = np.rint(genotype)
    off = np.abs(genotype - called) > 1e-3
    if block.missing is not None:
        off &= ~block.missing
    if off.any():
        raise InputError(
            f"{name}: a dominance matrix needs genotypes 0, 1, 2, but dosage "
            f"{genotype[off][0]:.3g} is between them. Use called genotypes."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        homozygous, carrier = -p / (1 - p), -(1 - p) / p
    block.x[:] = np.where(called == 0, homozygous, np.where(called == 1, 1.0, carrier))
    if block.missing is not None:
        block.x[block.missing] = 0


def _outer(rows: np.ndarray) -> np.ndarray:
    """Upper triangle of rows' rows: half the flops of a general product."""
    from scipy.linalg.blas import dsyrk, ssyrk

    syrk = ssyrk if rows.dtype == np.float32 else dsyrk
    return syrk(1.0, rows.T)


def _add_tiles(rows: np.ndarray, total: np.ndarray, pool: ThreadPoolExecutor) -> None:
    """Add rows' rows to the upper triangle of `total`, tile by tile.

    A tile is one product by one thread, so that the sum does not depend on how many there are.
    """
    columns = panels(len(total))
    tiles = [(up, left) for k, left in enumerate(columns) for up in columns[: k + 1]]

    def add(tile: tuple[slice, slice]) -> None:
        up, left = tile
        total[tile] += rows[:, up].T @ rows[:, left]

    for _ in pool.map(add, tiles):
        pass


def _absent_pairs(block: CenteredBlock, used: np.ndarray) -> np.ndarray:
    """Per pair of samples, variants of the block that one of the two lacks (upper triangle)."""
    assert block.missing is not None
    absent = (block.missing & used[:, None]).astype(np.float32)
    per_sample = absent.sum(axis=0)
    return np.triu(per_sample[:, None] + per_sample) - _outer(absent)


# -- files ---------------------------------------------------------------------------------


def write_grm(
    grm: GRM,
    prefix: str | os.PathLike[str],
    *,
    fid: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write GCTA's PREFIX.grm.bin, .grm.id and .grm.N.bin (lower triangle, float32).

    Parameters
    ----------
    grm : GRM
        The matrix to write.
    prefix : path-like
        Path without the endings.
    fid : sequence of str, optional
        Family ids, shape (n,). By default both columns are those of the .fam that the
        matrix was made of; without one, the sample id twice. The file is separated by
        tabs, and read by blanks: ids cannot have any.
    overwrite : bool
        Whether existing files may be replaced.
    """
    n = len(grm.samples)
    endings = [".grm.bin", ".grm.N.bin", ".grm.id"]
    family, within = fid_iid(grm.samples, grm.genotypes)
    if fid is not None:
        family = list(fid)
    if len(family) != n:
        raise InputError(f"There are {n:,} samples, but {len(family):,} family ids came.")
    blank = [i for i in [*family, *within] if not i or len(i.split()) != 1]
    if blank:
        raise InputError(f"{prefix}.grm.id: ids cannot have blanks there: {listing(blank)}.")
    with result_files(prefix, endings, overwrite=overwrite) as aside:
        values, counts, ids = (Path(f"{aside}{ending}") for ending in endings)
        with open(values, "wb") as file:
            for i in range(n):
                grm.matrix[i, : i + 1].astype("<f4").tofile(file)
        with open(counts, "wb") as file:
            for i in range(n):
                of_row = (
                    np.full(i + 1, grm.n_variants)
                    if grm.pair_counts is None
                    else grm.pair_counts[i, : i + 1]
                )
                of_row.astype("<f4").tofile(file)
        lines = (f"{f}\t{i}\n" for f, i in zip(family, within, strict=True))
        ids.write_text("".join(lines), encoding="utf-8")


def fid_iid(samples: pd.Index, genotypes: Genotypes | None) -> tuple[list[str], list[str]]:
    """Family and sample ids as the .fam has them, also where the labels are FID_IID."""
    table = None if genotypes is None else genotypes.samples
    if table is None or "fid" not in table or not samples.isin(table.index).all():
        return list(samples), list(samples)
    table = table.loc[samples]
    return list(table.fid), list(table.iid)


def write_gemma(grm: GRM, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write K as GEMMA's text matrix (.cXX.txt or .sXX.txt): n rows, no sample ids."""
    with write_aside(path, overwrite=overwrite) as aside:
        np.savetxt(aside, grm.matrix, fmt="%.10g", delimiter="\t")


def read_grm(path: str | os.PathLike[str], *, samples: Sequence[str] | None = None) -> GRM:
    """Read a relatedness matrix written by GCTA, PLINK 2, GEMMA or bayeslmm.

    Parameters
    ----------
    path : path-like
        GCTA's prefix or its .grm.bin file (with .grm.id, and .grm.N.bin if there), or
        a text matrix such as GEMMA's .cXX.txt.
    samples : sequence of str, optional
        Sample ids of a text matrix, which has none of its own; without them the
        matrix stays unlabelled and fits only unlabelled phenotypes.

    Raises
    ------
    InputError
        If a file is absent, of the wrong size, not square or not numeric.
    """
    name = str(path)
    if name.endswith(".txt") or name.endswith(".txt.gz"):
        return _read_text_matrix(existing(name), samples)
    if samples is not None:
        raise InputError(
            f"{name}: sample ids come from its .grm.id; 'samples' is for text matrices."
        )
    endings = (".grm.N.bin", ".grm.bin", ".grm.id", ".grm")
    prefix = name.removesuffix(next((e for e in endings if name.endswith(e)), ""))
    values, ids = existing(f"{prefix}.grm.bin"), existing(f"{prefix}.grm.id")
    labels = read_grm_ids(ids)
    n = len(labels)
    matrix = _read_triangle(values, n)
    counts_file = Path(f"{prefix}.grm.N.bin")
    counts = _read_triangle(counts_file, n) if counts_file.is_file() else None
    n_variants = int(counts.max()) if counts is not None else 0
    if counts is not None and counts.min() == counts.max():
        counts = None
    info = {"file": values.name}
    return GRM(matrix, labels, n_variants, "given", pair_counts=counts, info=info)


def read_grm_ids(path: Path) -> pd.Index:
    """Ids of a .grm.id: the IID where it is unique, else FID_IID. A header #FID is skipped."""
    family, sample = [], []
    for number, line in enumerate(io.StringIO(text_of(path)), start=1):
        fields = line.split()
        if number == 1 and fields and fields[0] in ("#FID", "#IID"):
            continue
        if len(fields) < 2:
            raise InputError(f"{path}, line {number:,}: expected two columns, FID and IID.")
        family.append(fields[0])
        sample.append(fields[1])
    ids = pd.Index(sample, dtype="str")
    return ids if not ids.has_duplicates else pd.Index(family, dtype="str") + "_" + ids


def _read_triangle(path: Path, n: int) -> np.ndarray:
    expected, found = 2 * n * (n + 1), path.stat().st_size
    if found != expected:
        raise InputError(
            f"{path}: {found:,} bytes, but the lower triangle of {n:,} samples (see .grm.id) "
            f"takes {expected:,}. It is truncated, or belongs to another .grm.id."
        )
    require_memory(n * n * 8, f"The relatedness matrix of {n:,} samples")
    packed = np.memmap(path, dtype="<f4", mode="r")
    matrix = np.empty((n, n), order="F")
    for i in range(n):
        start = i * (i + 1) // 2
        matrix[: i + 1, i] = packed[start : start + i + 1]
    return symmetric(matrix)


def _read_text_matrix(path: Path, samples: Sequence[str] | None) -> GRM:
    table = table_of(path, "a matrix of numbers", sep=r"\s+", header=None, dtype=np.float64)
    matrix = table.to_numpy()
    if np.isnan(matrix).any():
        i, j = np.argwhere(np.isnan(matrix))[0]
        raise InputError(
            f"{path}, line {i + 1:,}: no number in column {j + 1:,} of {matrix.shape[1]:,}. "
            "Is it truncated?"
        )
    if matrix.shape[0] != matrix.shape[1]:
        raise InputError(
            f"{path}: {matrix.shape[0]:,} rows and {matrix.shape[1]:,} columns; a relatedness "
            "matrix is square. Is it truncated?"
        )
    ids = _numbers(len(matrix)) if samples is None else list(samples)
    if len(ids) != len(matrix):
        raise InputError(f"{path}: {len(matrix):,} rows, but {len(ids):,} sample ids came.")
    return GRM(
        matrix,
        ids,
        labelled=samples is not None,
        info={"file": path.name},
    )
