"""A pass over variants in parts: kept as they are finished, or done by a cluster's workers.

Parts are runs of whole blocks, and a block's results depend on nothing but the block. So the
columns are the same, bit for bit, whether the pass was one, was interrupted, or was shared out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from bayeslmm.checkpoints import digest
from bayeslmm.errors import InputError
from bayeslmm.progress import log, track

if TYPE_CHECKING:
    from bayeslmm.association import Run
    from bayeslmm.genotypes import Genotypes

type Columns = list[dict[str, np.ndarray]]
# Variants in a part: seconds to minutes of work, so that little is lost.
_PART = 2**14
_RETRIES = 5


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
    found: dict[tuple[int, int], Columns] = {}
    waiting = []
    for span in spans:
        if kept is not None and kept.has(_name(run, span)):
            found[span] = _load(kept.path(_name(run, span)), len(scanners))
        else:
            waiting.append(span)
    done = m - sum(stop - start for start, stop in waiting)
    if done:
        log.info("%s of %s variants are there already.", f"{done:,}", f"{m:,}")
    results = (
        _on_cluster(run, scanners, waiting)
        if run.client is not None
        else _here(run, scanners, waiting)
    )
    for span, columns in track(
        results,
        "Scan",
        total=m - done,
        size=lambda result: result[0][1] - result[0][0],
        show=run.progress,
    ):
        if kept is not None:
            kept.write(_name(run, span), partial(_save, columns))
        found[span] = columns
    return [
        {
            name: np.concatenate([found[span][i][name] for span in spans])
            for name in found[spans[0]][i]
        }
        for i in range(len(scanners))
    ]


def _name(run: Run, span: tuple[int, int]) -> str:
    return f"scan{run.label}-{span[0]:09d}.npz"


def part_of(genotypes: Genotypes, span: tuple[int, int]) -> Genotypes:
    """A run of variants, by position in the table."""
    mask = np.zeros(genotypes.n_variants, dtype=bool)
    mask[slice(*span)] = True
    return genotypes.select(variants=mask)


def _columns(run: Run, scanners: Sequence[Any], span: tuple[int, int]) -> Columns:
    """One part, computed here."""
    alone = replace(
        run, genotypes=part_of(run.genotypes, span), checkpoint=None, client=None, progress=False
    )
    return alone.all_variants(scanners)


def _here(
    run: Run, scanners: Sequence[Any], spans: list[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Columns]]:
    for span in spans:
        yield span, _columns(run, scanners, span)


def _on_cluster(
    run: Run, scanners: Sequence[Any], spans: list[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Columns]]:
    """Parts as tasks of a Dask cluster; what a lost worker had is done again by others.

    The scanners and the genotypes' description go to each worker once.
    """
    from distributed import as_completed

    client = run.client
    assert client is not None
    sent = replace(run, checkpoint=None, client=None, progress=False, workers=1)
    shared = client.scatter((sent, list(scanners)), broadcast=True, hash=False)
    tasks = {
        client.submit(_task, shared, span, pure=False, retries=_RETRIES): span for span in spans
    }
    try:
        for task, columns in as_completed(tasks, with_results=True, raise_errors=True):
            yield tasks.pop(task), columns
    except Exception as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"A part of the scan failed on the cluster: {type(error).__name__}: {error}. Finished "
            "parts are kept if the scan has a checkpoint."
        ) from error
    finally:
        for task in tasks:
            task.cancel()
        del shared


def _task(shared: tuple[Run, list[Any]], span: tuple[int, int]) -> Columns:
    run, scanners = shared
    return _columns(run, scanners, span)


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
