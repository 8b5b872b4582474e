"""Where dosages come from: the protocol of a source, arrays in memory and lazy ones, tables.

A source hands out rows of dosages, one row for each variant; it knows positions and nothing
about labels. The tables that name rows and columns are made beside it, by the module of each
file format.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing

MISSING = -9


class Source(Protocol):
    """Where dosages come from: variant-major rows, `int8` with -9 or floats with NaN missing.

    Safe to read from several threads.
    """

    def read(self, variants: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
        """Dosages of the effect allele, shape (len(variants), number of samples)."""

    def identity(self) -> str:
        """A hash of all that is to be read; empty where that would take reading it all."""


class PerThread:
    """What each thread has of its own in `_local`; it stays behind when the object is sent."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._local = threading.local()


@dataclass(frozen=True, eq=False)
class Opened:
    """A source with the tables that name its samples (columns) and variants (rows)."""

    source: Source
    samples: pd.DataFrame
    variants: pd.DataFrame


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Dosages in memory, shape (m, n): `int8` with -9, or floating point with NaN, missing."""

    dosage: np.ndarray

    def read(self, variants: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
        """Dosages of the effect allele, shape (len(variants), number of samples)."""
        block = self.dosage[as_slice(variants)]
        return block if samples is None else block[:, samples]

    def identity(self) -> str:
        """A hash of the array."""
        from bayeslmm.runs.checkpoints import digest

        return digest(self.dosage)


class ChunkedSource(PerThread):
    """Rows made chunk by chunk by a function; each thread keeps the chunk that it read last.

    For stores whose smallest unit of reading is a chunk of many variants (zarr, Dask): a
    chunk is decoded once however small the pieces are in which it is asked for.

    Parameters
    ----------
    chunk : callable
        ``chunk(start, stop)`` gives the dosages of rows `start` to `stop`, shape
        (stop - start, n), `int8` with -9 or floats with NaN missing.
    n_variants : int
        Number of rows in all.
    size : int
        Rows of a chunk.
    """

    def __init__(self, chunk: Callable[[int, int], np.ndarray], n_variants: int, size: int) -> None:
        super().__init__()
        self._chunk = chunk
        self._n_variants = n_variants
        self._size = max(1, size)

    def identity(self) -> str:
        """Nothing: the store may be larger than memory, and far away."""
        return ""

    def read(self, variants: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
        """Dosages of the effect allele, shape (len(variants), number of samples)."""
        pieces, order = [], []
        of_chunk = variants // self._size
        for number in np.unique(of_chunk):
            here = np.flatnonzero(of_chunk == number)
            rows = self._rows(int(number))[as_slice(variants[here] - number * self._size)]
            pieces.append(rows if samples is None else rows[:, samples])
            order.append(here)
        if len(pieces) == 1:
            return pieces[0]
        block = np.concatenate(_common_type(pieces))
        positions = np.concatenate(order)
        if (np.diff(positions) == 1).all():
            return block
        return block[np.argsort(positions)]

    def _rows(self, number: int) -> np.ndarray:
        local = self._local
        if getattr(local, "number", None) != number:
            local.number = None  # an error below must not leave a wrong chunk behind
            local.rows = None
            start = number * self._size
            local.rows = self._chunk(start, min(start + self._size, self._n_variants))
            local.number = number
        rows: np.ndarray = local.rows
        return rows


def _common_type(pieces: list[np.ndarray]) -> list[np.ndarray]:
    if len({piece.dtype for piece in pieces}) == 1:
        return pieces
    return [as_float(piece, np.dtype(np.float32)) for piece in pieces]


def as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Consecutive positions as a slice, others as they are.

    Examples
    --------
    >>> import numpy as np
    >>> as_slice(np.array([3, 4, 5])), as_slice(np.array([3, 5]))
    (slice(3, 6, None), array([3, 5]))
    """
    if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def as_float(raw: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Dosages as floats with NaN for missing."""
    dosage = raw.astype(dtype)
    if raw.dtype == np.int8:
        dosage[raw == MISSING] = np.nan
    return dosage


# -- dosages of calls ----------------------------------------------------------------------


def dosage_of_calls(
    calls: np.ndarray, allele: np.ndarray, n_alleles: np.ndarray, where: Callable[[int], str]
) -> np.ndarray:
    """Copies of an allele among called alleles.

    A haploid call counts twice (0 or 2), as PLINK stores it; a call of which one allele is
    missing is missing.

    Parameters
    ----------
    calls : array of int, shape (b, n, ploidy)
        Indices of alleles, -1 for missing, -2 beyond the ploidy of the call.
    allele : array, shape (b,)
        The allele to count in each row.
    n_alleles : array, shape (b,)
        How many alleles each variant has.
    where : callable
        ``where(row)`` names a variant for messages.

    Returns
    -------
    ndarray of int8, shape (b, n)
        0, 1, 2, or -9 for missing.

    Raises
    ------
    InputError
        For an index that no allele has, and for ploidies above 2.

    Examples
    --------
    >>> import numpy as np
    >>> calls = np.array([[[0, 1], [1, 1], [1, -2], [-1, 1]]])
    >>> dosage_of_calls(calls, np.array([1]), np.array([2]), str)
    array([[ 1,  2,  2, -9]], dtype=int8)
    """
    if calls.ndim != 3:
        raise InputError(f"Calls need three dimensions, but have shape {calls.shape}.")
    beyond = (calls >= n_alleles[:, None, None]) | (calls < -2)
    if beyond.any():
        row = int(np.argwhere(beyond)[0][0])
        raise InputError(
            f"{where(row)}: a genotype names allele {int(calls[row][beyond[row]][0])}, but there "
            f"are {int(n_alleles[row])} (0 to {int(n_alleles[row]) - 1})."
        )
    if calls.shape[2] > 2:
        more = (calls[:, :, 2:] != -2).any(axis=(1, 2))
        if more.any():
            raise InputError(
                f"{where(int(np.argmax(more)))}: a call of more than two alleles. Only haploid "
                "and diploid genotypes can be read."
            )
    first = calls[:, :, 0]
    dosage = (first == allele[:, None]).astype(np.int8)
    if calls.shape[2] == 1:
        dosage *= 2
        dosage[first < 0] = MISSING
        return dosage
    second = calls[:, :, 1]
    haploid = second == -2
    dosage += np.where(haploid, first, second) == allele[:, None]
    dosage[(first < 0) | (second == -1)] = MISSING
    return dosage


@cache
def copies_of_allele(k: int, ploidy: int, allele: int) -> np.ndarray:
    """Copies of one of k alleles in each genotype, in the order of VCF and BGEN.

    Examples
    --------
    >>> copies_of_allele(2, 2, 1)  # 00, 01, 11
    array([0., 1., 2.])
    >>> copies_of_allele(3, 2, 0)  # 00, 01, 11, 02, 12, 22
    array([2., 1., 0., 1., 0., 0.])
    """
    if ploidy == 1:
        return (np.arange(k) == allele).astype(np.float64)
    pairs = [(i, j) for j in range(k) for i in range(j + 1)]
    return np.array([(i == allele) + (j == allele) for i, j in pairs], dtype=np.float64)


def require_dosages(dosage: np.ndarray, where: Callable[[int], str]) -> np.ndarray:
    """The same dosages, free of rounding beyond 0..2; others raise and name their variant (row)."""
    with np.errstate(invalid="ignore"):
        bad = (dosage < -1e-6) | (dosage > 2 + 1e-6)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        raise InputError(
            f"{where(row)}: dosage {dosage[row][bad[row]][0]:g}; expected 0 to 2, or missing."
        )
    return np.clip(dosage, 0, 2)


# -- variant and sample tables -------------------------------------------------------------


def variant_table(
    chrom: Sequence[str] | pd.Series,
    pos: np.ndarray | pd.Series,
    ids: Sequence[str] | pd.Series,
    oa: Sequence[str] | pd.Series,
    ea: Sequence[str] | pd.Series,
    cm: np.ndarray | pd.Series | float = 0.0,
) -> tuple[pd.DataFrame, np.ndarray | None, np.ndarray | None]:
    """Variant table of records that have one allele (`oa`) and others (`ea`, with commas).

    A record of several other alleles becomes one row for each: `ea` is that allele, `oa` all
    the others with commas, and the id gets ``:ea`` behind it. A record without id (empty or
    ".") is called ``chrom:pos:oa:ea``.

    Returns
    -------
    table : DataFrame
        chrom, id, pos, ea, oa, cm.
    records, alleles : ndarray or None
        Record of each row, and the index (from 1) of the allele that it counts; None if
        no record has several.

    Examples
    --------
    >>> table, records, alleles = variant_table(["1"], [5], ["rs1"], ["A"], ["C,T"])
    >>> table[["id", "ea", "oa"]].values.tolist(), records, alleles
    ([['rs1:C', 'C', 'A,T'], ['rs1:T', 'T', 'A,C']], array([0, 0]), array([1, 2]))
    """
    table = pd.DataFrame({"chrom": chrom, "id": ids, "pos": pos, "ea": ea, "oa": oa, "cm": cm})
    table = table.astype({"chrom": str, "id": str, "pos": np.int64, "ea": str, "oa": str})
    table["cm"] = table["cm"].astype(np.float64)
    records = alleles = None
    ref = table["oa"]
    several = table["ea"].str.contains(",", regex=False)
    if several.any():
        alts = table["ea"].str.split(",")
        records = np.repeat(np.arange(len(table)), alts.str.len())
        alleles = np.concatenate([np.arange(1, len(a) + 1) for a in alts])
        table = table.iloc[records].reset_index(drop=True)
        ref = table["oa"]
        table["ea"] = [a for alt in alts for a in alt]
        split = np.flatnonzero(several.to_numpy()[records])
        oa_of, id_of = table["oa"].to_list(), table["id"].to_list()
        for row in split:
            alt = alts.iloc[records[row]]
            oa_of[row] = ",".join([oa_of[row], *(alt[: alleles[row] - 1] + alt[alleles[row] :])])
            if id_of[row] not in ("", "."):
                id_of[row] = f"{id_of[row]}:{table['ea'].iloc[row]}"
        table["oa"], table["id"] = oa_of, id_of
    table["id"] = ids_of(table, ref)
    return table.astype({"id": str, "ea": str, "oa": str}), records, alleles


def ids_of(table: pd.DataFrame, ref: pd.Series) -> pd.Series:
    """Ids of variants: those without one (".") are named by place and alleles, chrom:pos:ref:ea.

    Examples
    --------
    >>> table = pd.DataFrame({"id": ["rs1", "."], "chrom": "X", "pos": [5, 9], "ea": "A"})
    >>> ids_of(table, pd.Series(["C", "G"])).tolist()
    ['rs1', 'X:9:G:A']
    """
    unnamed = table["id"].isin(["", "."])
    if not unnamed.any():
        return table["id"]
    named = table["chrom"] + ":" + table["pos"].astype(str) + ":" + ref + ":" + table["ea"]
    return table["id"].mask(unnamed, named)


def sample_table(ids: Sequence[str], name: str = "") -> pd.DataFrame:
    """Sample table of ids alone; `name` says where they are from in the message."""
    index = pd.Index(ids, name="id", dtype="str")
    if index.has_duplicates:
        twice = listing(index[index.duplicated()])
        raise InputError(
            f"{name}{': ' * bool(name)}Sample ids must be unique; twice there: {twice}."
        )
    return pd.DataFrame({"iid": index.to_numpy()}, index=index)


def named(path: Path, variants: pd.DataFrame) -> Callable[[int], str]:
    """How messages name a row: file and variant."""
    return lambda row: f"{path}, variant '{variants['id'].iloc[row]}'"
