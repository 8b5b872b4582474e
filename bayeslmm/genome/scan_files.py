"""A scan's table: made whole, or written part by part to a file that memory need not hold."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, require_library
from bayeslmm.runs.columns import Arrays, Columns
from bayeslmm.runs.files import write_aside
from bayeslmm.runs.progress import map_ahead
from bayeslmm.runs.results import as_text, compressed

# Columns of a file's overview: what plots and the search for loci need.
_OVERVIEW = ["chrom", "pos", "id", "ea", "oa"]


@dataclass(frozen=True)
class Tabulation:
    """What a pass found, and how a table is made of it.

    Attributes
    ----------
    variants : DataFrame
        The variants, one row each.
    found : Columns
        What the pass found of them.
    tabulate : callable
        ``tabulate(variants, columns)`` makes the table of some of them.
    count : callable
        ``count(columns)`` counts what the table's attributes tell of some of them.
    about : dict
        Further attributes.
    calls : callable, optional
        Columns that take all variants' log10_bf to be known.
    """

    variants: pd.DataFrame
    found: Columns
    tabulate: Callable[[pd.DataFrame, Arrays], pd.DataFrame]
    count: Callable[[Arrays], dict[str, Any]]
    about: dict[str, Any]
    calls: Callable[[np.ndarray], Arrays] | None = None

    def table(self) -> pd.DataFrame:
        """The whole table."""
        columns = self.found.read(0, self.found.m)
        table = self.tabulate(self.variants, columns)
        if self.calls is not None:
            table = table.assign(**self.calls(table.log10_bf.to_numpy()))
        table.attrs = self.about | self.count(columns)
        return table

    def write(self, path: Path, *, overwrite: bool = False) -> ScanFile:
        """Write the table part by part: Parquet or tab-separated text, as the name says.

        Raises
        ------
        InputError
            If the file is there already, or cannot be written.
        """
        spans = _spans(self.found)
        strength, log10_bf = np.empty(self.found.m), np.empty(self.found.m)
        counts: dict[str, Any] = {}
        names: list[str] = []
        for start, stop in spans:
            table = self._part(start, stop, {})
            names = list(table.columns)
            strength[start:stop] = table.neg_log10_p
            if self.calls is not None:
                log10_bf[start:stop] = table.log10_bf
            counts = _sum(counts, self.count(self.found.read(start, stop)))
        more = {} if self.calls is None else self.calls(log10_bf)
        attrs = self.about | counts

        def part(span: tuple[int, int]) -> pd.DataFrame:
            return self._part(*span, more)

        try:
            with write_aside(path, overwrite=overwrite) as aside:
                if path.suffix == ".parquet":
                    ends = _write_parquet(aside, part, spans, attrs)
                else:
                    ends = _write_text(aside, part, spans)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror or error}). What was finished before "
                "is kept: make room, and start the same again."
            ) from error
        overview = self.variants[_OVERVIEW].reset_index(drop=True).assign(neg_log10_p=strength)
        overview.attrs = attrs
        types = dict(self._part(*spans[0], more).dtypes)
        return ScanFile(path, overview, [*names, *more], types, spans, ends)

    def _part(self, start: int, stop: int, more: Arrays) -> pd.DataFrame:
        table = self.tabulate(self.variants.iloc[start:stop], self.found.read(start, stop))
        return table.assign(**{name: values[start:stop] for name, values in more.items()})


@dataclass(frozen=True)
class ScanFile:
    """The table of a scan in a file, and what is worth having in memory of it.

    Attributes
    ----------
    path : Path
        Parquet, or tab-separated text with six digits.
    overview : DataFrame
        One row per variant: chrom, pos, id, ea, oa and neg_log10_p, for `bl.plots.manhattan`,
        `bl.plots.qq` and the like; its attributes are those of the whole table.
    columns : list of str
        All that the file has.
    """

    path: Path
    overview: pd.DataFrame = field(repr=False)
    columns: list[str]
    _types: dict[str, Any] = field(repr=False)
    _spans: Sequence[tuple[int, int]] = field(repr=False)
    _ends: Sequence[int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.overview)

    @property
    def attrs(self) -> dict[str, Any]:
        """How the scan was made."""
        return self.overview.attrs

    def rows(self, positions: Sequence[int] | np.ndarray) -> pd.DataFrame:
        """Some rows of the table, by position from 0, in the order given.

        Only the parts that hold them are read.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        starts = np.array([start for start, _ in self._spans])
        part = np.searchsorted(starts, wanted, side="right") - 1
        parts = [
            self._read(int(i)).iloc[wanted[part == i] - starts[i]].set_axis(wanted[part == i])
            for i in np.unique(part)
        ]
        if not parts:
            return self._read(0).iloc[:0]
        return pd.concat(parts).loc[wanted]

    def parts(self) -> Iterator[pd.DataFrame]:
        """The table, some thousand variants at a time."""
        for i in range(len(self._spans)):
            yield self._read(i)

    def _read(self, i: int) -> pd.DataFrame:
        if self.path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.ParquetFile(self.path).read_row_group(i).to_pandas()
        start = self._ends[i - 1] if i else 0
        with open(self.path, "rb") as file:
            file.seek(start)
            content = file.read(self._ends[i] - start)
        if self.path.suffix == ".gz":
            content = gzip.decompress(content)
        numbers = [name for name, kind in self._types.items() if kind.kind in "fiu"]
        texts = {name: "str" for name in self._types if name not in numbers}
        return pd.read_csv(
            io.BytesIO(content),
            sep="\t",
            header=0 if i == 0 else None,
            names=self.columns,
            dtype={name: self._types[name] for name in numbers} | texts,
            keep_default_na=False,
            na_values={name: ["NA"] for name in [*numbers, "method"]},
        )


def _spans(found: Columns) -> list[tuple[int, int]]:
    return [(i, min(i + found.step, found.m)) for i in range(0, found.m, found.step)]


def _sum(total: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Counts of two sets of variants added; counts may be in a mapping themselves."""
    if not total:
        return more
    return {
        name: _sum(total[name], value) if isinstance(value, dict) else total[name] + value
        for name, value in more.items()
    }


def _write_text(
    path: Path, part: Callable[[tuple[int, int]], pd.DataFrame], spans: Sequence[tuple[int, int]]
) -> list[int]:
    """Write every part as lines, each a member of its own of a .gz; returns where each ends."""
    zipped = path.suffix == ".gz"

    def encoded(span: tuple[int, int]) -> bytes:
        text = as_text(part(span), header=span[0] == 0)
        return compressed(text) if zipped else text.encode()

    ends = []
    with open(path, "wb") as file:
        for content in map_ahead(encoded, spans, workers=2):
            file.write(content)
            ends.append(file.tell())
    return ends


def _write_parquet(
    path: Path,
    part: Callable[[tuple[int, int]], pd.DataFrame],
    spans: Sequence[tuple[int, int]],
    attrs: dict[str, Any],
) -> list[int]:
    """Write every part as a row group; returns nothing to look up."""
    require_library("pyarrow", "parquet", "Parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    def table_of(span: tuple[int, int]) -> pa.Table:
        table = part(span)
        # The same scan makes the same bytes, whenever.
        table.attrs = {name: value for name, value in attrs.items() if name != "created_at"}
        return pa.Table.from_pandas(table, preserve_index=False)

    writer: pq.ParquetWriter | None = None
    try:
        for table in map_ahead(table_of, spans):
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema)
            writer.write_table(table, row_group_size=len(table))
    finally:
        if writer is not None:
            writer.close()
    return []
