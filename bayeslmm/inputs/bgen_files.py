"""BGEN files of layout 2 (versions 1.2 and 1.3): probabilities to dosages, by zlib or zstd.

Source: the BGEN specification (Band, G. and Marchini, J. 2018, bioRxiv 308296;
https://www.chg.ox.ac.uk/~gav/bgen_format/spec/v1.2.html). Read here rather than by a library:
every length is checked against the file before anything is allocated, several threads can read,
and the decoding of 8 and 16 bits is a table look-up or a few array operations for all samples.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing, require_library
from bayeslmm.inputs.sources import Opened, copies_of_allele, sample_table, variant_table
from bayeslmm.runs.files import sha256, text_of

_DEFLATE_MOST = 1100  # zlib never expands more (1032), rounded up
_COLUMNS = ["chrom", "pos", "id", "oa", "ea", "start", "data", "length", "k"]
_COMPRESSIONS = {0: "none", 1: "zlib", 2: "zstd"}


@dataclass(frozen=True)
class _Header:
    path: Path
    size: int
    first: int
    n_variants: int
    n_samples: int
    compression: int
    ids: list[str] | None


class _Record(NamedTuple):
    """One variant: where its genotypes are, and what identifies it."""

    varid: str
    rsid: str
    chrom: str
    pos: int
    alleles: list[str]
    start: int
    length: int


def open_bgen(path: Path, sample_file: Path | None, index: Path | None) -> Opened:
    """BGEN genotypes; dosages count the second allele of each variant.

    Parameters
    ----------
    path : Path
        The .bgen.
    sample_file : Path or None
        Its .sample; without it the ids must be in the .bgen.
    index : Path or None
        Its .bgi, made by bgenix. Without it the file is walked through once.
    """
    header = _read_header(path)
    samples = _samples(header, sample_file)
    table = None if index is None else _read_index(header, index)
    table = _walk(header) if table is None else table
    variants, records, alleles = variant_table(
        table["chrom"], table["pos"], table["id"], table["oa"], table["ea"]
    )
    source = BgenSource(
        header,
        table["start"].to_numpy(dtype=np.int64),
        table[["data", "length", "k"]].to_numpy(dtype=np.int64) if "data" in table else None,
        variants["id"].to_numpy(),
        np.arange(len(table)) if records is None else records,
        np.ones(len(table), dtype=np.int64) if alleles is None else alleles,
    )
    return Opened(source, samples, variants)


class BgenSource:
    """Dosages of a .bgen; every reading opens the file for itself.

    Parameters
    ----------
    header : _Header
        What the beginning of the file says.
    starts : ndarray
        Where each variant's record begins.
    places : ndarray, shape (number of records, 3), or None
        Where its genotypes begin, their length, and the number of alleles, if known already.
    ids : ndarray of str
        Names of the rows, for messages.
    records, alleles : ndarray
        Record of each row, and the allele (from 1) that it counts.
    """

    def __init__(
        self,
        header: _Header,
        starts: np.ndarray,
        places: np.ndarray | None,
        ids: np.ndarray,
        records: np.ndarray,
        alleles: np.ndarray,
    ) -> None:
        self._header = header
        self._starts = starts
        self._places = places
        self._ids = ids
        self._records = records
        self._alleles = alleles

    def identity(self) -> str:
        """SHA-256 of the file."""
        return sha256(self._header.path)

    def read(self, variants: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
        """Dosages of the effect allele, shape (len(variants), number of samples), float32."""
        n = self._header.n_samples
        block = np.empty((len(variants), n if samples is None else len(samples)), np.float32)
        try:
            with open(self._header.path, "rb") as file:
                for row, variant in enumerate(variants):
                    dosage = self._dosage(file, int(variant))
                    block[row] = dosage if samples is None else dosage[samples]
        except OSError as error:
            raise InputError(f"{self._header.path}: reading failed ({error}).") from error
        return block

    def _dosage(self, file: BinaryIO, variant: int) -> np.ndarray:
        header = self._header
        number = int(self._records[variant])
        if self._places is None:
            record = _read_record(header, file, int(self._starts[number]))
            start, length, k = record.start, record.length, len(record.alleles)
        else:
            start, length, k = self._places[number].tolist()
        where = f"{header.path}, variant '{self._ids[variant]}'"
        file.seek(start)
        packed = file.read(length)
        if len(packed) < length:
            raise InputError(f"{where}: the file ends within it. It is truncated.")
        try:
            data = _decompress(packed, header, k, where)
            return _dosages(data, header.n_samples, k, int(self._alleles[variant]), where)
        except (struct.error, zlib.error) as error:
            raise InputError(f"{where}: damaged ({error}).") from error


# -- the beginning of the file ---------------------------------------------------------------


def _read_header(path: Path) -> _Header:
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(24)
        if len(head) < 24 or head[16:20] not in (b"bgen", bytes(4)):
            raise InputError(f"{path}: not a .bgen file ('bgen' is not in its bytes 17 to 20).")
        offset, length, m, n = struct.unpack("<IIII", head[:16])
        if length < 20 or length > offset or offset + 4 > size:
            raise InputError(
                f"{path}: damaged or truncated: {size:,} bytes, header of {length:,}, variants "
                f"from byte {offset + 4:,} on."
            )
        file.seek(4 + length - 4)
        (flags,) = struct.unpack("<I", file.read(4))
        layout, compression = flags >> 2 & 15, flags & 3
        if layout != 2:
            version = "1.1 (layout 1)" if layout == 1 else f"unknown layout {layout}"
            raise InputError(
                f"{path}: BGEN {version}; layout 2 is read (versions 1.2 and 1.3). Convert it: "
                "plink2 --bgen ... ref-first --export bgen-1.2 bits=8 ref-first"
            )
        if compression not in _COMPRESSIONS:
            raise InputError(f"{path}: unknown compression {compression}.")
        if not m or not n:
            raise InputError(f"{path}: {n:,} samples at {m:,} variants: nothing is there.")
        ids = _embedded_ids(path, file, 4 + length, offset + 4, n) if flags >> 31 else None
    return _Header(path, size, offset + 4, m, n, compression, ids)


def _embedded_ids(path: Path, file: BinaryIO, start: int, stop: int, n: int) -> list[str]:
    file.seek(start)
    block = file.read(stop - start)
    ids = []
    try:
        size, count = struct.unpack_from("<II", block)
        if count != n or size > len(block):
            raise InputError(
                f"{path}: damaged: {count:,} sample ids in {size:,} bytes, expected {n:,} in at "
                f"most {len(block):,}."
            )
        at = 8
        for _ in range(n):
            (length,) = struct.unpack_from("<H", block, at)
            if at + 2 + length > size:
                raise InputError(f"{path}: damaged: its sample ids are cut off.")
            ids.append(block[at + 2 : at + 2 + length].decode())
            at += 2 + length
    except (struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: damaged: its sample ids cannot be read ({error}).") from error
    return ids


def _samples(header: _Header, sample_file: Path | None) -> pd.DataFrame:
    if sample_file is None:
        if header.ids is None:
            raise InputError(
                f"{header.path}: has no sample ids, and {header.path.with_suffix('.sample').name} "
                "is not beside it. Put it there, or name it: read_genotypes(..., sample_file=...)."
            )
        return sample_table(header.ids, str(header.path))
    table = read_sample_file(sample_file)
    if len(table) != header.n_samples:
        raise InputError(
            f"{header.path}: {header.n_samples:,} samples, but {len(table):,} in {sample_file}. "
            "One of the two belongs to another data set."
        )
    if header.ids is not None:
        forms = (table.iid, table.fid, table.fid + "_" + table.iid)
        if not any(form.tolist() == header.ids for form in forms):
            other = next(i for i, id_ in enumerate(header.ids) if table.iid.iloc[i] != id_)
            raise InputError(
                f"{header.path}: sample {other + 1:,} is '{header.ids[other]}', but "
                f"'{table.iid.iloc[other]}' in {sample_file}. One of the two belongs to another "
                "data set."
            )
    return table


def read_sample_file(path: Path) -> pd.DataFrame:
    """Sample table of an Oxford .sample: two header lines, then ID_1 (FID), ID_2 (IID), ..."""
    from bayeslmm.inputs.plink_files import label_samples

    lines = [line.split() for line in text_of(path).splitlines()]
    if len(lines) < 3 or lines[0][:1] != ["ID_1"] or lines[1][:1] != ["0"]:
        raise InputError(
            f"{path}: not a .sample file: it needs a first line ID_1 ID_2 missing ..., a second "
            "line 0 0 0 ..., and one line for each sample."
        )
    columns = lines[0]
    if columns[1:2] != ["ID_2"]:
        raise InputError(f"{path}, line 1: the second column is {columns[1:2]}, expected ID_2.")
    for number, line in enumerate(lines[2:], start=3):
        if len(line) != len(columns):
            raise InputError(
                f"{path}, line {number:,}: {len(line)} columns, but the header has {len(columns)}."
            )
    table = pd.DataFrame({"fid": [x[0] for x in lines[2:]], "iid": [x[1] for x in lines[2:]]})
    if "sex" in columns:
        at = columns.index("sex")
        table["sex"] = [x[at].replace("NA", "0") for x in lines[2:]]
    return label_samples(table.astype("str"), str(path), first_line=3)


# -- where the variants are ------------------------------------------------------------------


def _read_record(header: _Header, file: BinaryIO, start: int) -> _Record:
    """The record at a position of the file; everything it names lies within the file."""
    window, at = b"", 0

    def take(size: int) -> bytes:
        nonlocal window, at
        if start + at + size > header.size:
            raise InputError(
                f"{header.path}: the variant at byte {start:,} goes beyond the file's "
                f"{header.size:,} bytes. It is truncated or damaged."
            )
        if at + size > len(window):
            file.seek(start + len(window))
            window += file.read(max(512, at + size - len(window)))
            if at + size > len(window):
                raise InputError(f"{header.path}: the file became shorter while it was read.")
        at += size
        return window[at - size : at]

    def text(length: int) -> str:
        raw = take(length)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{header.path}: damaged: a name at byte {start + at:,} is no UTF-8."
            ) from error

    varid, rsid, chrom = (text(int.from_bytes(take(2), "little")) for _ in range(3))
    pos, k = struct.unpack("<IH", take(6))
    if k < 2:
        raise InputError(f"{header.path}: variant '{rsid or varid}' has {k} alleles, expected 2.")
    alleles = [text(int.from_bytes(take(4), "little")) for _ in range(k)]
    length = int.from_bytes(take(4), "little")
    data = start + at
    if data + length > header.size or length < 4:
        raise InputError(
            f"{header.path}: variant '{rsid or varid}' goes beyond the file's {header.size:,} "
            "bytes. It is truncated or damaged."
        )
    return _Record(varid, rsid, chrom, pos, alleles, data, length)


def _walk(header: _Header) -> pd.DataFrame:
    """Every record's names and place, from its head; genotypes are jumped over."""
    if header.n_variants * 24 > header.size - header.first:
        raise InputError(
            f"{header.path}: {header.n_variants:,} variants cannot be in {header.size:,} bytes. "
            "It is truncated or damaged."
        )
    rows: list[tuple[str | int, ...]] = []
    start = header.first
    with open(header.path, "rb", buffering=0) as file:
        for _ in range(header.n_variants):
            record = _read_record(header, file, start)
            if any("," in allele for allele in record.alleles):
                raise InputError(
                    f"{header.path}: variant '{record.rsid or record.varid}' has an allele with a "
                    f"comma: {listing(record.alleles)}."
                )
            named = record.rsid if record.rsid not in ("", ".") else record.varid
            rows.append(
                (
                    record.chrom,
                    record.pos,
                    named,
                    record.alleles[0],
                    ",".join(record.alleles[1:]),
                    start,
                    record.start,
                    record.length,
                    len(record.alleles),
                )
            )
            start = record.start + record.length
    if start != header.size:
        raise InputError(
            f"{header.path}: {header.size - start:,} bytes follow the last of "
            f"{header.n_variants:,} variants. It is damaged."
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


def _read_index(header: _Header, index: Path) -> pd.DataFrame | None:
    """The same from a .bgi; None where it does not say all (ids missing, several alleles)."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)
        ) as base:
            table = pd.DataFrame(
                base.execute(
                    "SELECT chromosome, position, rsid, allele1, allele2, file_start_position, "
                    "number_of_alleles, size_in_bytes FROM Variant ORDER BY file_start_position"
                ).fetchall(),
                columns=["chrom", "pos", "id", "oa", "ea", "start", "k", "bytes"],
            )
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise InputError(f"{index}: not an index made by bgenix ({error}). Remove it.") from error
    starts, sizes = table["start"].tolist(), table["bytes"].tolist()
    fits = len(table) == header.n_variants and starts[0] == header.first
    fits = fits and all(isinstance(v, int) for v in (*starts, *sizes, *table["pos"].tolist()))
    ends = [a + b for a, b in zip(starts, sizes, strict=True)] if fits else []
    if not fits or starts[1:] != ends[:-1] or ends[-1] != header.size:
        raise InputError(
            f"{index}: does not describe {header.path} ({len(table):,} variants in the index, "
            f"{header.n_variants:,} in the file, or other places). Make it anew (bgenix -index) "
            "or remove it."
        )
    text = [all(isinstance(v, str) for v in table[c]) for c in ("chrom", "id", "oa", "ea")]
    plain = all(text) and not table["id"].isin(["", "."]).any() and (table["k"] == 2).all()
    return table if plain else None


# -- genotypes -------------------------------------------------------------------------------


def _decompress(packed: bytes, header: _Header, k: int, where: str) -> bytes:
    if header.compression == 0:
        return packed
    (size,) = struct.unpack_from("<I", packed)
    body = packed[4:]
    n = header.n_samples
    most = 10 + n + 4 * n * max(k * (k + 1) // 2 - 1, 2 * (k - 1))
    if size > most or (header.compression == 1 and size > _DEFLATE_MOST * len(body)):
        raise InputError(f"{where}: damaged: {size:,} bytes of genotypes are announced.")
    if header.compression == 1:
        data = zlib.decompressobj().decompress(body, size + 1)
    else:
        zstandard = require_library("zstandard", "bgen", f"{header.path}: zstd compression")
        try:
            if zstandard.frame_content_size(body) not in (size, -1):
                raise InputError(f"{where}: damaged (two sizes of the genotypes are announced).")
            data = zstandard.ZstdDecompressor().decompress(body, max_output_size=size)
        except zstandard.ZstdError as error:
            raise InputError(f"{where}: damaged ({error}).") from error
    if len(data) != size:
        raise InputError(f"{where}: damaged: {len(data):,} bytes of genotypes, not {size:,}.")
    return data


def _dosages(data: bytes, n: int, k: int, allele: int, where: str) -> np.ndarray:
    """Dosages of one allele, shape (n,), NaN for missing; a haploid counts twice."""
    count, alleles, low, high = struct.unpack_from("<IHBB", data)
    if count != n or alleles != k or len(data) < 10 + n:
        raise InputError(
            f"{where}: damaged: {count:,} samples and {alleles} alleles in its genotypes, {n:,} "
            f"and {k} in the file."
        )
    ploidy_byte = np.frombuffer(data, np.uint8, n, 8)
    phased, bits = data[8 + n], data[9 + n]
    if phased > 1 or not 1 <= bits <= 32:
        raise InputError(f"{where}: damaged: phased {phased}, {bits} bits per probability.")
    ploidy = ploidy_byte & 0x3F
    if low > high or high > 2 or int(ploidy.max()) > 2:
        raise InputError(
            f"{where}: ploidy {int(max(high, ploidy.max()))}; only haploid and diploid genotypes "
            "can be read."
        )
    body = data[10 + n :]
    diploid = int(ploidy.min()) == 2
    if diploid and k == 2 and not phased and bits in (8, 16):
        _require_length(body, 2 * n * bits // 8, where)
        if bits == 8:
            dosage = _table_of_8_bits()[np.frombuffer(body, "<u2", n)]
        else:
            pair = np.frombuffer(body, "<u2", 2 * n).astype(np.int32)
            both, one = pair[::2], pair[1::2]
            dosage = (131070 - 2 * both - one).astype(np.float32) / np.float32(65535)
            dosage[both + one > 65535] = 4
    else:
        dosage = _any_dosages(body, ploidy, k, allele, bool(phased), bits, where)
    if int(ploidy_byte.max()) >= 0x80 or not diploid:
        dosage[(ploidy_byte >= 0x80) | (ploidy == 0)] = np.nan
    if np.fmax.reduce(dosage) > 2:
        raise InputError(
            f"{where}: the probabilities of sample {int(np.nanargmax(dosage)) + 1:,} sum to more "
            "than 1."
        )
    return dosage


@cache
def _table_of_8_bits() -> np.ndarray:
    """Dosage of the second allele for every pair of bytes; 4 where they sum to more than 1."""
    pair = np.arange(2**16)
    both, one = pair & 255, pair >> 8
    dosage = (2 * (255 - both) - one) / 255
    return np.where(both + one > 255, 4, dosage).astype(np.float32)


def _any_dosages(
    body: bytes, ploidy: np.ndarray, k: int, allele: int, phased: bool, bits: int, where: str
) -> np.ndarray:
    """Dosages for any number of bits, alleles and ploidies up to 2; 4 where a sum exceeds 1."""
    of_haploid, of_diploid = k - 1, 2 * (k - 1) if phased else k * (k + 1) // 2 - 1
    sizes = np.array([0, of_haploid, of_diploid])[ploidy]
    total = int(sizes.sum())
    _require_length(body, (total * bits + 7) // 8, where)
    values = _unpack(body, total, bits)
    first = np.cumsum(sizes) - sizes
    dosage = np.full(len(ploidy), np.nan)
    for copies, size in ((1, of_haploid), (2, of_diploid)):
        here = np.flatnonzero(ploidy == copies)
        if not len(here):
            continue
        stored = values[first[here][:, None] + np.arange(size)]
        if phased:
            stored = stored.reshape(len(here), copies, k - 1)
        last = 1 - stored.sum(axis=-1, keepdims=True)  # of each list of probabilities, not stored
        p = np.concatenate([stored, last], axis=-1)
        of_allele = (
            p[:, :, allele].sum(axis=1) if phased else p @ copies_of_allele(k, copies, allele)
        )
        dosage[here] = of_allele * (2 / copies)
        dosage[here[(last < -1e-9).reshape(len(here), -1).any(axis=1)]] = 4
    # 1 minus a sum is rounded
    return np.where(dosage == 4, 4, np.clip(dosage, 0, 2)).astype(np.float32)


def _unpack(body: bytes, total: int, bits: int) -> np.ndarray:
    """Probabilities of so many bits each, the lowest bit first, as fractions of 1."""
    if bits in (8, 16, 32):
        whole = np.frombuffer(body, f"<u{bits // 8}", total).astype(np.float64)
    else:
        stream = np.unpackbits(np.frombuffer(body, np.uint8), count=total * bits, bitorder="little")
        whole = stream.reshape(total, bits) @ (2.0 ** np.arange(bits))
    return whole / (2.0**bits - 1)


def _require_length(body: bytes, expected: int, where: str) -> None:
    if len(body) != expected:
        raise InputError(
            f"{where}: damaged: {len(body):,} bytes of probabilities, expected {expected:,}."
        )
