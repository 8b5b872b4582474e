"""A pass over variants in parts: kept as they are finished, or done by a cluster's workers.

Parts are runs of whole blocks, and a block's results depend on nothing but the block. So the
columns are the same, bit for bit, whether the pass was one, was interrupted, or was shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.runs.checkpoints import digest
from bayeslmm.runs.columns import Arrays, KeptColumns, Piece
from bayeslmm.runs.progress import log, track

if TYPE_CHECKING:
    from bayeslmm.genome.passes import Run

type Columns = list[dict[str, np.ndarray]]
# Variants in a part: seconds to minutes of work, so that little is lost.
_PART = 2**14


def by_parts(run: Run, scanners: Sequence[Any]) -> Columns:
    """Columns of every scanner for all variants of a run, done part by part, in memory.

    Parameters
    ----------
    run : Run
        With a checkpoint, a Dask client, or both.
    scanners : sequence
        They share the rotation.

    Raises
    ------
    InputError
        If the checkpoint holds parts of another scan, or a worker of the cluster failed.
    """
    m = run.genotypes.n_variants
    whole: Columns = [{} for _ in scanners]

    def take(span: tuple[int, int], columns: Columns) -> None:
        _put(whole, columns, span, m)

    for span in _finish(run, scanners, take):
        assert run.checkpoint is not None
        take(span, _load(run.checkpoint.path(_name(run, span)), len(scanners)))
    return whole


def kept_columns(run: Run, scanners: Sequence[Any]) -> list[KeptColumns]:
    """Columns of every scanner for all variants of a run, left in the parts of its checkpoint."""
    kept = run.checkpoint
    assert kept is not None
    _finish(run, scanners)
    spans, step = _spans(run)

    def loader(i: int) -> Callable[[Path], Arrays]:
        return lambda path: _load(path, len(scanners), only=i)[i]

    pieces = [Piece(np.arange(*span), kept.path(_name(run, span))) for span in spans]
    return [
        KeptColumns(pieces, run.genotypes.n_variants, step, loader(i)) for i in range(len(scanners))
    ]


def _spans(run: Run) -> tuple[list[tuple[int, int]], int]:
    """First and last variant of each part, and how many a part has."""
    m = run.genotypes.n_variants
    step = max(1, _PART // run.size) * run.size
    return [(start, min(start + step, m)) for start in range(0, m, step)], step


def _finish(
    run: Run,
    scanners: Sequence[Any],
    take: Callable[[tuple[int, int], Columns], None] | None = None,
) -> list[tuple[int, int]]:
    """Do the parts that are not there yet, hand them to `take`; returns those that were there."""
    m = run.genotypes.n_variants
    spans, step = _spans(run)
    kept = run.checkpoint
    done: list[tuple[int, int]] = []
    if kept is not None:
        kept.same(f"scan{run.label}", _identity(run, step))
        done = [span for span in spans if kept.has(_name(run, span))]
    waiting = sorted(set(spans) - set(done))
    n_done = sum(stop - start for start, stop in done)
    if n_done:
        log.info("%s of %s variants are there already.", f"{n_done:,}", f"{m:,}")
    results = (
        _on_cluster(run, scanners, waiting)
        if run.client is not None
        else _here(run, scanners, waiting)
    )
    with _keeper(run) as keep:
        for span, columns in track(
            results,
            "Scan",
            total=m - n_done,
            size=lambda result: result[0][1] - result[0][0],
            show=run.progress,
        ):
            keep(span, columns)
            if take is not None:
                take(span, columns)
    return done


def _put(whole: Columns, columns: Columns, span: tuple[int, int], m: int) -> None:
    """Put the columns of some variants in their place among all m."""
    for table, part in zip(whole, columns, strict=True):
        for name, values in part.items():
            if name not in table:
                table[name] = np.empty(m, dtype=values.dtype)
            table[name][slice(*span)] = values


@contextmanager
def _keeper(run: Run) -> Iterator[Callable[[tuple[int, int], Columns], None]]:
    """Yield what keeps a part, if parts are kept, while the next is computed."""
    kept = run.checkpoint
    if kept is None:
        yield lambda span, columns: None
        return
    last: list[Future[Path]] = []

    def keep(span: tuple[int, int], columns: Columns) -> None:
        if last:
            last.pop().result()
        last.append(writer.submit(kept.write, _name(run, span), partial(_save, columns)))

    with ThreadPoolExecutor(1) as writer:
        yield keep
        if last:
            last.pop().result()


def _name(run: Run, span: tuple[int, int]) -> str:
    return f"scan{run.label}-{span[0]:09d}.npz"


def _here(
    run: Run, scanners: Sequence[Any], spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Columns]]:
    """Parts computed here: the threads go on from the blocks of one to those of the next."""
    ranges = [
        (i, min(i + run.size, stop)) for start, stop in spans for i in range(start, stop, run.size)
    ]
    blocks = run.blocks(scanners, ranges)
    for start, stop in spans:
        columns: Columns = [{} for _ in scanners]
        for block, found in blocks:
            _put(columns, found, (block.start - start, block.stop - start), stop - start)
            if block.stop == stop:
                break
        yield (start, stop), columns


def _on_cluster(
    run: Run, scanners: Sequence[Any], spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Columns]]:
    """Parts computed by a cluster's workers, as they come."""
    from bayeslmm.runs.cluster import on_workers

    assert run.client is not None
    sent = replace(
        run, checkpoint=None, client=None, progress=False, workers=1, kept=None, identity={}
    )
    yield from on_workers(run.client, _task, (sent, list(scanners)), spans, what="part of the scan")


def _task(shared: tuple[Run, list[Any]], span: tuple[int, int]) -> Columns:
    run, scanners = shared
    ((_, columns),) = _here(run, scanners, [span])
    return columns


def _identity(run: Run, step: int) -> dict[str, Any]:
    """All that determines the columns of a pass."""
    genotypes, variants = run.genotypes, run.genotypes.variants
    return {
        "samples": digest(genotypes.samples.index),
        "variants": digest(variants.id, variants.chrom, variants.pos, variants.ea, variants.oa),
        "genotypes": genotypes.identity,
        "part": step,
        "dtype": str(run.dtype),
        "coding": run.coding,
        **run.identity,
    }


def _save(columns: Columns, path: Path) -> None:
    arrays = {f"{i}/{name}": array for i, one in enumerate(columns) for name, array in one.items()}
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _load(path: Path, number: int, only: int | None = None) -> Columns:
    """The columns in a part, of all scanners or of one."""
    found: Columns = [{} for _ in range(number)]
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            for key in arrays.files:
                i, name = key.split("/", 1)
                if only is None or int(i) == only:
                    found[int(i)][name] = arrays[key]
    except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: damaged; remove it, and start the same again.") from error
    return found
