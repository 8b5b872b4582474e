"""PLINK files: .bed/.bim/.fam of version 1, .pgen/.pvar/.psam of version 2.

Sources: the PGEN draft specification (https://github.com/chrchang/plink-ng, pgen_spec) and the
comments of its reader. Genotypes are read by pgenlib, which trusts a header: headers are checked
against the size of the file first, so that nothing is allocated that the file does not justify.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing, require_library
from bayeslmm.inputs.sources import (
    MISSING,
    Opened,
    PerThread,
    as_slice,
    ids_of,
    sample_table,
    variant_table,
)
from bayeslmm.runs.files import refuse_utf16, sha256, text_of

VARIANT_COLUMNS = ["chrom", "id", "cm", "pos", "ea", "oa"]
SAMPLE_COLUMNS = ["fid", "iid", "father", "mother", "sex", "phenotype"]
_BLOCK = 2**16  # variants of one block of a .pgen's header
_DOSAGE, _MULTIALLELIC = 0x60, 0x08  # bits of a variant's record type


def open_bed(bed: Path, bim: Path, fam: Path) -> Opened:
    """PLINK 1 genotypes; dosages count A1, the fifth column of the .bim."""
    samples, variants = read_fam(fam), read_bim(bim)
    _check_bed(bed, len(samples), len(variants))
    return Opened(PgenSource(bed, len(samples), len(variants)), samples, variants)


def open_pgen(pgen: Path, pvar: Path, psam: Path) -> Opened:
    """PLINK 2 genotypes; dosages count ALT. A variant of several ALT is one row for each.

    The tables may also be a .bim and a .fam, as ``plink2 --make-bpgen`` writes them.
    """
    samples = read_fam(psam) if psam.suffix == ".fam" else read_psam(psam)
    if pvar.suffix == ".bim":
        variants, records, alleles = read_bim(pvar), None, None
    else:
        variants, records, alleles = read_pvar(pvar)
    m = len(variants) if records is None else int(records[-1]) + 1
    header = _pgen_header(pgen, len(samples), m, pvar, psam)
    offsets = None
    if records is not None:
        counts = np.bincount(records)
        offsets = np.concatenate([[0], np.cumsum(counts + 1)]).astype(np.uintp)
        both = (
            (counts > 1) & header.dosage if header.dosage is not None else np.zeros(m, dtype=bool)
        )
        if both.any():
            first = variants["id"].iloc[int(np.searchsorted(records, np.argmax(both)))]
            raise InputError(
                f"{pgen}: variant '{first}' has several alternate alleles and dosages. Split it "
                "before its dosages are imported (bcftools norm -m -)."
            )
    elif header.multiallelic:
        raise InputError(
            f"{pgen}: has variants of several alternate alleles, {pvar} has none. They do not "
            "belong together."
        )
    source = PgenSource(
        pgen, len(samples), m,
        dosage=header.dosage, records=records, alleles=alleles, offsets=offsets,
    )  # fmt: skip
    return Opened(source, samples, variants)


class PgenSource(PerThread):
    """A .bed or .pgen file read by pgenlib; each thread has its own reader.

    Parameters
    ----------
    path : Path
        The .bed or .pgen.
    n_samples, n_variants : int
        What the file holds.
    dosage : ndarray of bool, shape (n_variants,), optional
        Which variants have dosages beside their hard calls.
    records, alleles : ndarray, optional
        For files with variants of several alternate alleles: the variant in the file and
        the allele (from 1) of each row of this source.
    offsets : ndarray of uintp, shape (n_variants + 1,), optional
        Number of alleles of the variants before each one.
    """

    def __init__(
        self,
        path: Path,
        n_samples: int,
        n_variants: int,
        *,
        dosage: np.ndarray | None = None,
        records: np.ndarray | None = None,
        alleles: np.ndarray | None = None,
        offsets: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self.n_samples = n_samples
        self.n_variants = n_variants
        self._dosage = dosage
        self._records = records
        self._alleles = alleles
        self._offsets = offsets

    def identity(self) -> str:
        """SHA-256 of the file."""
        return sha256(self.path)

    def read(self, variants: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
        """Dosages of the effect allele, shape (len(variants), number of samples)."""
        records = variants if self._records is None else self._records[variants]
        with_dosage = self._dosage is not None and bool(self._dosage[records].any())
        width = self.n_samples if samples is None else len(samples)
        block = np.empty((len(variants), width), dtype=np.float32 if with_dosage else np.int8)
        try:
            reader, order = self._reader(samples)
            rows = as_slice(records)
            if isinstance(rows, slice):
                read = reader.read_dosages_range if with_dosage else reader.read_range
                read(rows.start, rows.stop, block)
            else:
                read = reader.read_dosages_list if with_dosage else reader.read_list
                read(records.astype(np.uint32), block)
            if self._alleles is not None:
                read = reader.read_dosages if with_dosage else reader.read
                for row in np.flatnonzero(self._alleles[variants] > 1):
                    read(int(records[row]), block[row], int(self._alleles[variants[row]]))
        except RuntimeError as error:
            raise InputError(f"{self.path}: reading failed ({error}).") from error
        if with_dosage:
            block[block == MISSING] = np.nan
        return block if order is None else np.take(block, order, axis=1)

    def read_sample_major(
        self, variants: np.ndarray, samples: np.ndarray | None, out: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Calls of consecutive variants with people in rows, written to `out` (n, b).

        Returns how many calls are 1, 2 and missing, each of shape (b,); None where it cannot.
        """
        rows = as_slice(variants)
        if self._records is not None or not isinstance(rows, slice):
            return None
        if self._dosage is not None and self._dosage[rows].any():
            return None
        try:
            reader, order = self._reader(samples)
            direct = order is None and out.flags.c_contiguous
            block = out if direct else np.empty(out.shape, dtype=np.int8)
            reader.read_range(rows.start, rows.stop, block, sample_maj=True)
            found = np.empty((len(variants), 4), dtype=np.uint32)
            for row, count in zip(range(rows.start, rows.stop), found, strict=True):
                reader.count(row, count)
        except RuntimeError as error:
            raise InputError(f"{self.path}: reading failed ({error}).") from error
        if not direct:
            out[:] = block if order is None else block[order]
        _, ones, twos, absent = found.T.astype(np.int64)
        return ones, twos, absent

    def _reader(self, samples: np.ndarray | None) -> tuple[Any, np.ndarray | None]:
        """The thread's own reader of some samples, and their order if it is not the file's."""
        import pgenlib

        local = self._local
        if not hasattr(local, "reader") or local.samples is not samples:
            subset, local.order = None, None
            if samples is not None:
                subset = np.sort(samples).astype(np.uint32)
                if not np.array_equal(subset, samples):
                    local.order = np.searchsorted(subset, samples)
            local.reader = pgenlib.PgenReader(
                os.fsencode(self.path),
                raw_sample_ct=self.n_samples,
                variant_ct=self.n_variants,
                sample_subset=subset,
                allele_idx_offsets=self._offsets,
            )
            local.samples = samples
        return local.reader, local.order


# -- version 1 -------------------------------------------------------------------------------


def read_bim(path: Path) -> pd.DataFrame:
    """Variant table of a .bim; A1 is the effect allele."""
    table = _read_table(path, VARIANT_COLUMNS)
    table["cm"] = _numeric(path, table["cm"], missing=["NA"])
    table["pos"] = _numeric(path, table["pos"], whole=True).astype(np.int64)
    table["id"] = ids_of(table, table["oa"])
    return table[["chrom", "id", "pos", "ea", "oa", "cm"]]


def read_fam(path: Path) -> pd.DataFrame:
    """Sample table of a .fam."""
    table = _read_table(path, SAMPLE_COLUMNS)
    phenotype = pd.to_numeric(table["phenotype"], errors="coerce")
    table["phenotype"] = phenotype.mask(phenotype == -9)
    return label_samples(table, str(path))


def label_samples(table: pd.DataFrame, name: str, *, first_line: int = 1) -> pd.DataFrame:
    """A table with fid and iid, indexed by sample id: the IID where all differ, else FID_IID."""
    pair = table.fid + "_" + table.iid
    ids = pair if table.iid.duplicated().any() else table.iid
    twice = ids.duplicated()
    if twice.any():
        row = int(np.argmax(twice.to_numpy()))
        raise InputError(
            f"{name}, line {row + first_line:,}: sample FID '{table.fid[row]}' IID "
            f"'{table.iid[row]}' comes twice. Sample ids must be unique."
        )
    return table.set_index(pd.Index(ids, name="id"))


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    refuse_utf16(path)
    try:
        table = pd.read_csv(
            path,
            sep=r"\s+",
            header=None,
            names=columns,
            usecols=range(len(columns)),
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            skip_blank_lines=False,
            quoting=csv.QUOTE_NONE,
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error}).") from error
    except ValueError as error:  # pandas' own errors among them
        _refuse_short_lines(path, columns)
        raise InputError(
            f"{path}: expected {len(columns)} columns separated by blanks or tabs "
            f"({', '.join(columns)}); {str(error).strip()}."
        ) from error
    if table.isna().any(axis=None):
        _refuse_short_lines(path, columns)
    if table.empty:
        raise InputError(f"{path}: the file is empty.")
    return table


def _refuse_short_lines(path: Path, columns: list[str]) -> None:
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            found = len(line.split())
            if found < len(columns):
                raise InputError(
                    f"{path}, line {number:,}: {found} columns, expected {len(columns)} "
                    f"({', '.join(columns)})."
                )


def _numeric(
    path: Path,
    column: pd.Series,
    missing: Sequence[str] = (),
    *,
    whole: bool = False,
    first_line: int = 1,
) -> pd.Series:
    values = pd.to_numeric(column.mask(column.isin(missing)), errors="coerce").astype(np.float64)
    bad = values.isna() & ~column.isin(missing)
    if whole:
        bad |= (values != values.round()) | (values.abs() >= 2**53)
    if bad.any():
        row = int(np.argmax(bad.to_numpy()))
        raise InputError(
            f"{path}, line {row + first_line:,}: column {column.name} is '{column.iloc[row]}', "
            f"expected a {'whole ' * whole}number."
        )
    return values


def _check_bed(path: Path, n: int, m: int) -> None:
    with open(path, "rb") as file:
        magic = file.read(3)
    if magic[:2] != b"\x6c\x1b":
        raise InputError(
            f"{path}: not a PLINK 1 .bed file (it begins with {magic.hex(' ') or 'nothing'}, "
            "expected 6c 1b 01)."
        )
    if magic[2:] != b"\x01":
        raise InputError(
            f"{path}: sample-major or truncated .bed; rewrite it variant-major "
            "(plink --bfile ... --make-bed --out ...)."
        )
    expected, found = 3 + m * ((n + 3) // 4), path.stat().st_size
    if found != expected:
        raise InputError(
            f"{path}: {found:,} bytes, but {m:,} variants in the .bim and {n:,} samples in the "
            f".fam need {expected:,}. It is truncated, or its .bim or .fam belongs to another .bed."
        )


# -- version 2: tables -----------------------------------------------------------------------


def read_pvar(path: Path) -> tuple[pd.DataFrame, np.ndarray | None, np.ndarray | None]:
    """Variant table of a .pvar or .pvar.zst: ALT is `ea`, REF `oa`; see `variant_table`.

    Without a header line it has the columns of a .bim, which may lack the one of cM.
    """
    text, header, line = _read_headed(path, "#CHROM")
    if header is None:
        width = len(text.split("\n", 1)[0].split())
        if width not in (5, 6):
            raise InputError(
                f"{path}, line {line:,}: {width} columns; expected a header line (#CHROM POS ID "
                "REF ALT ...), or the five or six columns of a .bim."
            )
        header = ["CHROM", "ID", *(["CM"] * (width == 6)), "POS", "ALT", "REF"]
    wanted = ["CHROM", "POS", "ID", "REF", "ALT"]
    table = _columns(path, text, header, wanted, ["CM"], line)
    pos = _numeric(path, table["POS"], whole=True, first_line=line).astype(np.int64)
    cm = _numeric(path, table["CM"], ["NA", "."], first_line=line) if "CM" in table else 0.0
    return variant_table(table["CHROM"], pos, table["ID"], table["REF"], table["ALT"], cm)


def read_psam(path: Path) -> pd.DataFrame:
    """Sample table of a .psam; without a header line it is read as a .fam."""
    text, header, line = _read_headed(path, "#FID", "#IID")
    if header is None:
        return read_fam(path)
    table = _columns(path, text, header, ["IID"], ["FID", "PAT", "MAT", "SEX"], line)
    names = {"FID": "fid", "IID": "iid", "PAT": "father", "MAT": "mother", "SEX": "sex"}
    table = table.rename(columns=names)
    if "sex" in table:
        table["sex"] = table["sex"].replace("NA", "0")
    if "fid" not in table:
        ids = sample_table(table["iid"].to_list(), str(path)).index
        return table.set_index(ids)
    order = [c for c in names.values() if c in table]
    return label_samples(table[order], str(path), first_line=line)


def _read_headed(path: Path, *marks: str) -> tuple[str, list[str] | None, int]:
    """Text below the header, the header's columns (None without), line number of the text."""
    text = _read_text(path)
    start, line = 0, 1
    while text.startswith("##", start):
        end = text.find("\n", start)
        start, line = (len(text) if end < 0 else end + 1), line + 1
    if text.startswith("#", start):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        header = text[start:end].split()
        if header[0] not in marks:
            raise InputError(
                f"{path}, line {line:,}: begins with {header[0]}, expected {' or '.join(marks)}."
            )
        header[0] = header[0][1:]
        if len(set(header)) < len(header):
            raise InputError(f"{path}, line {line:,}: a column comes twice in the header.")
        return text[end + 1 :], header, line + 1
    return text[start:], None, line


def _read_text(path: Path) -> str:
    if path.suffix != ".zst":
        return text_of(path)
    raw = _decompressed(path, path.read_bytes())
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file (byte {error.start:,} is no UTF-8).") from error


def _decompressed(path: Path, raw: bytes) -> bytes:
    """Content of a zstd file: one or several whole frames."""
    zstandard = require_library("zstandard", "zstd", f"{path}: reading a compressed .pvar")
    most = 1000 * len(raw) + 2**20  # a table of variants shrinks tenfold
    content, at = bytearray(), 0
    try:
        while at < len(raw):
            frame = zstandard.ZstdDecompressor().decompressobj()
            while at < len(raw) and not frame.eof:
                piece = raw[at : at + 4096]
                content += frame.decompress(piece)
                at += len(piece) - len(frame.unused_data)
                if len(content) > most:
                    raise InputError(f"{path}: more than {most:,} bytes of text. It is damaged.")
            if not frame.eof:
                raise InputError(f"{path}: truncated (it ends within a zstd frame).")
    except zstandard.ZstdError as error:
        raise InputError(f"{path}: no zstd file, or a damaged one ({error}).") from error
    return bytes(content)


def _columns(
    path: Path, text: str, header: list[str], wanted: list[str], optional: list[str], line: int
) -> pd.DataFrame:
    absent = [c for c in wanted if c not in header]
    if absent:
        raise InputError(f"{path}: no column {listing(absent)}; it has {listing(header, 10)}.")
    if not text.strip():
        raise InputError(f"{path}: the file has a header and nothing below it.")
    use = [c for c in header if c in (*wanted, *optional)]
    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep="\t" if "\t" in text else r"\s+",
            header=None,
            names=header,
            usecols=use,
            index_col=False,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            skip_blank_lines=False,
            quoting=csv.QUOTE_NONE,
        )
    except ValueError as error:  # pandas' own errors among them
        raise InputError(f"{path}: {str(error).strip()}.") from error
    short = table.isna().any(axis=1)
    if short.any():
        row = int(np.argmax(short.to_numpy()))
        raise InputError(
            f"{path}, line {row + line:,}: fewer columns than the header ({len(header)}), or an "
            "empty one."
        )
    return table


# -- version 2: the header of a .pgen --------------------------------------------------------


class PgenHeader(NamedTuple):
    """What the header of a .pgen tells about its variants."""

    dosage: np.ndarray | None
    """Which variants have dosages; None if none has."""
    multiallelic: bool
    """Whether a variant has calls of a second alternate allele."""


def _pgen_header(path: Path, n: int, m: int, pvar: Path, psam: Path) -> PgenHeader:
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(12)
        if start[:2] != b"\x6c\x1b":
            raise InputError(
                f"{path}: not a .pgen file (it begins with {start[:2].hex(' ') or 'nothing'}, "
                "expected 6c 1b)."
            )
        if len(start) < 12:
            raise InputError(f"{path}: truncated, {size:,} bytes.")
        mode, control = start[2], start[11]
        counts = np.frombuffer(start, "<u4", 2, offset=3)
        for found, expected, what, table in (
            (int(counts[0]), m, "variants", pvar),
            (int(counts[1]), n, "samples", psam),
        ):
            if found != expected:
                raise InputError(
                    f"{path}: {found:,} {what}, but {expected:,} in {table}. One of the two "
                    "belongs to another data set."
                )
        flags = (m + 7) // 8 if control >> 6 == 3 else 0
        calls = (n + 3) // 4
        fixed = {0x02: calls, 0x03: calls + 2 * n, 0x04: calls + 4 * n}
        if mode in fixed:
            expected = 12 + flags + m * fixed[mode]
            if size != expected:
                raise InputError(
                    f"{path}: {size:,} bytes, but {m:,} variants of {n:,} samples need "
                    f"{expected:,}. It is truncated or damaged."
                )
            return PgenHeader(np.ones(m, dtype=bool) if mode > 0x02 else None, False)
        if mode != 0x10:
            raise InputError(
                f"{path}: storage mode 0x{mode:02x} of .pgen is not known. Rewrite it: plink2 "
                "--pfile ... --make-pgen --out ..."
            )
        return _variable_records(path, file.read(_header_size(control, m)), size, control, m, n)


def _header_size(control: int, m: int) -> int:
    """Bytes of a header of records of variable length, at most (without its first 12)."""
    blocks = (m + _BLOCK - 1) // _BLOCK
    return 8 * blocks + m * (1 + 4 + 3 + 1) + 8 * blocks


def _variable_records(
    path: Path, head: bytes, size: int, control: int, m: int, n: int
) -> PgenHeader:
    """Record types of mode 0x10; their lengths must add up to the size of the file."""
    damaged = f"{path}: truncated or damaged"
    storage, count_width, flagged = control & 15, control >> 4 & 3, control >> 6 == 3
    if storage > 9 or count_width:
        raise InputError(f"{damaged}: unknown header ({control:#04x}).")
    blocks = (m + _BLOCK - 1) // _BLOCK
    at, types = 8 * blocks, []
    starts = np.frombuffer(head, "<u8", min(blocks, len(head) // 8)).astype(object)
    ends = []
    for block in range(blocks):
        b = min(_BLOCK, m - block * _BLOCK)
        if storage < 8:
            type_bytes = b if storage & 4 else (b + 1) // 2
            width = (storage & 3) + 1
            length_bytes = b * width
        else:
            type_bytes, width = 0, 0
            length_bytes = (b + 3) // 4 if storage == 8 else (b + 1) // 2
        stop = at + type_bytes + length_bytes + ((b + 7) // 8 if flagged else 0)
        if stop > len(head) or len(starts) < blocks:
            raise InputError(f"{damaged}: its header is cut off.")
        if storage < 8:
            kind = np.frombuffer(head, np.uint8, type_bytes, at)
            kind = kind if storage & 4 else _unpack(kind, 4, b)
            raw = np.frombuffer(head, np.uint8, length_bytes, at + type_bytes).reshape(b, width)
            lengths = raw.astype(np.int64) @ (1 << 8 * np.arange(width, dtype=np.int64))
        else:
            extra = np.frombuffer(head, np.uint8, length_bytes, at)
            extra = _unpack(extra, 2 if storage == 8 else 4, b)
            lengths = (n + 3) // 4 + extra.astype(np.int64)
            kind = np.where(extra > 0, _MULTIALLELIC, 0).astype(np.uint8)
        types.append(kind)
        ends.append(int(starts[block]) + int(lengths.sum()))
        at = stop
    expected = [12 + at, *ends]
    if [int(s) for s in starts] != expected[:-1] or expected[-1] != size:
        raise InputError(f"{damaged}: {size:,} bytes, but its header describes {expected[-1]:,}.")
    kinds = np.concatenate(types)
    dosage = (kinds & _DOSAGE) > 0
    return PgenHeader(dosage if dosage.any() else None, bool(((kinds & _MULTIALLELIC) > 0).any()))


def _unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Values of 2 or 4 bits, the lowest first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = packed[:, None] >> shifts & np.uint8((1 << bits) - 1)
    return values.reshape(-1)[:count]
