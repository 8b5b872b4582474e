"""Relatedness matrices as files: GCTA's (and PLINK 2's) triangle, GEMMA's text."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.relatedness.dense import GRM
from bayeslmm.relatedness.triangle import symmetric
from bayeslmm.runs.files import existing, table_of, text_of, write_aside
from bayeslmm.runs.memory import require_memory
from bayeslmm.runs.results import result_files


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
    ids = [str(i) for i in range(len(matrix))] if samples is None else list(samples)
    if len(ids) != len(matrix):
        raise InputError(f"{path}: {len(matrix):,} rows, but {len(ids):,} sample ids came.")
    return GRM(
        matrix,
        ids,
        labelled=samples is not None,
        info={"file": path.name},
    )
