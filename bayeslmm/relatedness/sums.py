"""Genetic relatedness matrices, in one pass over blocks of genotypes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import CenteredBlock, Genotypes, as_genotypes
from bayeslmm.relatedness.dense import GRM
from bayeslmm.relatedness.scales import SCALES, WEIGHTED, Scale, standardize
from bayeslmm.relatedness.triangle import Triangle, outer, packed_size, panels, symmetric
from bayeslmm.runs.checkpoints import digest, require_checkpoint
from bayeslmm.runs.cluster import on_workers
from bayeslmm.runs.devices import BLOCK_ON_DEVICE, as_device
from bayeslmm.runs.memory import fits, require_memory
from bayeslmm.runs.progress import blas_thread_count, blas_threads, log, map_ahead, track

if TYPE_CHECKING:
    from distributed import Client

    from bayeslmm.runs.checkpoints import Checkpoint

# Blocks that are summed in the precision of their products before the float64 sum.
_BLOCKS_PER_SUM = 4
# Seconds between two times that a sum is kept.
_SAVED_EVERY = 60.0

type _Run = tuple[str, Genotypes, list[tuple[int, int]]]


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
    Yang J, Lee SH, Goddard ME, Visscher PM (2011). GCTA: a tool for genome-wide complex trait
    analysis. Am J Hum Genet 88:76. doi:10.1016/j.ajhg.2010.11.011
    Vitezica ZG, Varona L, Legarra A (2013). On the additive and dominant variance and
    covariance of individuals within the genomic selection scope. Genetics 195:1223.
    doi:10.1534/genetics.113.155176
    Zhu Z et al. (2015). Dominance genetic variation contributes little to the missing
    heritability for human complex traits. Am J Hum Genet 96:377. doi:10.1016/j.ajhg.2015.01.001
    Speed D et al. (2012). Improved heritability estimation from genome-wide SNPs. Am J Hum
    Genet 91:1011. doi:10.1016/j.ajhg.2012.10.010

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
    _check_options(scale, dtype, by_chrom, pairwise, weighted=weights is not None)
    require_checkpoint(kept)
    if kept is not None and pairwise:
        raise InputError("A sum by pairs is not kept while it is made.")
    if client is not None and device is not None:
        raise InputError("Name a client or a device for the relatedness matrix, not both.")
    genotypes = as_genotypes(genotypes)
    if variants is not None:
        genotypes = genotypes.select(variants=variants)
    weight = None if weights is None else _weights(weights, genotypes)
    n = genotypes.n_samples
    kind = np.dtype(dtype)
    elsewhere = as_device(device)
    if elsewhere is not None and block_size is None:
        block_size = BLOCK_ON_DEVICE
    runs = _runs(genotypes, by_chrom, block_size)
    require_memory(
        _memory(n, kind, len(runs) * by_chrom) + pairwise * _memory(n, kind, 0),
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
    return _divided(work, summed, absent_pairs)


def _check_options(
    scale: str, dtype: str, by_chrom: bool, pairwise: bool, *, weighted: bool
) -> None:
    """Raise an `InputError` for what is unknown, and for what does not go together."""
    if scale.endswith(WEIGHTED):
        raise InputError(
            "The matrix of a part of the variants is not remade with weights (LOCO and its like): "
            "use a kernel without weights there."
        )
    if scale not in SCALES:
        raise InputError(f"scale='{scale}' is unknown; expected one of {listing(SCALES)}.")
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype='{dtype}' is unknown; expected 'float32' or 'float64'.")
    if by_chrom and pairwise:
        raise InputError("by_chrom and pairwise cannot be combined: LOCO divides by m.")
    if weighted and (by_chrom or pairwise):
        raise InputError("Weights cannot be combined with by_chrom or pairwise, which divide by m.")


def _divided(work: _Pass, summed: _Sum, absent_pairs: np.ndarray | None) -> GRM:
    """The matrix: the sum over the number of variants, their weight, or each pair's number."""
    genotypes, weight, n_used = work.genotypes, work.weight, summed.n_used
    if n_used == 0:
        raise InputError(
            f"{genotypes.name}: all {genotypes.n_variants:,} variants are monomorphic or missing "
            f"among {genotypes.n_samples:,} samples: no relatedness matrix."
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
        matrix /= n_used if weight is None else summed.weight
    dropped = genotypes.n_variants - n_used
    if dropped:
        without = "monomorphic variants" if weight is None else "monomorphic or weightless variants"
        log.info("GRM: %s %s left out, %s used.", f"{dropped:,}", without, f"{n_used:,}")
    return GRM(
        matrix,
        genotypes.samples.index,
        n_used,
        work.scale if weight is None else work.scale + WEIGHTED,
        summed.parts,
        counts,
        genotypes.labelled,
        {
            "genotypes": genotypes.name,
            "n_monomorphic": dropped,
            "dtype": work.dtype.name,
            "filters": genotypes.excluded.reason.value_counts().to_dict(),
        },
        genotypes=genotypes,
        weights=None if weight is None else weight * (n_used / summed.weight),
    )


def keeps_chromosomes(genotypes: Genotypes) -> bool:
    """Whether `grm` with by_chrom takes at most a quarter of the memory that is available."""
    float32 = np.dtype(np.float32)
    return fits(4 * _memory(genotypes.n_samples, float32, len(genotypes.chromosomes)))


def _memory(n: int, dtype: np.dtype, chromosomes: int) -> int:
    """Bytes of a sum of n samples, of that of a run, and of those of chromosomes that are kept."""
    return n * n * (8 + dtype.itemsize) + chromosomes * dtype.itemsize * packed_size(n)


def _identity(
    genotypes: Genotypes,
    scale: str,
    weight: np.ndarray | None,
    dtype: str,
    runs: Sequence[_Run],
) -> dict[str, Any]:
    """All that a sum kept for later depends on."""
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

        def add(columns: slice) -> None:
            self.total[: columns.stop, columns] += partial.product[: columns.stop, columns]

        with ThreadPoolExecutor() as pool:
            list(pool.map(add, reversed(panels(len(self.total)))))
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
    return np.triu(per_sample[:, None] + per_sample) - outer(absent)
