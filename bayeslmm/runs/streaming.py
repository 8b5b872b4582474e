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
from bayeslmm.runs.progress import log, track

if TYPE_CHECKING:
    from bayeslmm.genome.association import Run

type Columns = list[dict[str, np.ndarray]]
# Variants in a part: seconds to minutes of work, so that little is lost.
_PART = 2**14


def by_parts(run: Run, scanners: Sequence[Any]) -> Columns:
    """Columns of every scanner for all variants of a run, part by part.

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
    m, block = run.genotypes.n_variants, run.size
    step = max(1, _PART // block) * block
    spans = [(start, min(start + step, m)) for start in range(0, m, step)]
    kept = run.checkpoint
    if kept is not None:
        kept.same(f"scan{run.label}", _identity(run, step))
    done: set[tuple[int, int]] = set()
    whole: Columns = [{} for _ in scanners]
    if kept is not None:
        for span in spans:
            if kept.has(_name(run, span)):
                _put(whole, _load(kept.path(_name(run, span)), len(scanners)), span, m)
                done.add(span)
    waiting = [span for span in spans if span not in done]
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
            _put(whole, columns, span, m)
    return whole


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


def _load(path: Path, number: int) -> Columns:
    found: Columns = [{} for _ in range(number)]
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            for key in arrays.files:
                i, name = key.split("/", 1)
                found[int(i)][name] = arrays[key]
    except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: damaged; remove it, and start the same again.") from error
    return found
