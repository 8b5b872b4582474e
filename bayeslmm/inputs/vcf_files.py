"""VCF and BCF files: read once by cyvcf2 into a temporary file of dosages, then from there.

A VCF has neither a table of its variants nor access to a row by number, so it must be read from
end to end before anything can be computed. The dosages go to a file without a name in the
temporary folder: one byte for each genotype, four where the file has dosages (DS, GP).
"""

from __future__ import annotations

import gzip
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, require_library
from bayeslmm.inputs.sources import (
    MISSING,
    ArraySource,
    Opened,
    copies_of_allele,
    dosage_of_calls,
    require_dosages,
    sample_table,
    variant_table,
)
from bayeslmm.runs.progress import log, track

_COLUMNS = [b"#CHROM", b"POS", b"ID", b"REF", b"ALT", b"QUAL", b"FILTER", b"INFO"]
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def open_vcf(path: Path) -> Opened:
    """VCF or BCF genotypes, also compressed; dosages count ALT, one row for each ALT.

    A genotype's dosage is its DS where the file's header declares DS, else that of its GP
    where it declares GP; and from its GT where it has no such value.
    """
    cyvcf2 = require_library("cyvcf2", "vcf", f"{path}: reading a VCF")
    count = _count_records(path)
    if not count:
        raise InputError(f"{path}: has a header and no variants.")
    try:
        vcf = cyvcf2.VCF(str(path))
    except Exception as error:  # cyvcf2 raises its base class
        raise InputError(f"{path}: cannot be read as VCF or BCF ({error}).") from error
    try:
        return _convert(path, vcf, count)
    finally:
        vcf.close()


def _convert(path: Path, vcf: Any, count: int) -> Opened:
    ids = list(vcf.samples)
    if not ids:
        raise InputError(f"{path}: has no samples, only sites.")
    samples = sample_table(ids, str(path))
    declared = _declared(vcf)
    soft = next((name for name in ("DS", "GP") if name in declared), None)
    dtype = np.dtype(np.int8 if soft is None else np.float32)
    rows: list[tuple[str, int, str, str, str]] = []
    m = 0
    try:
        # the file has no name and is gone when the last view of it is
        with tempfile.TemporaryFile(prefix="bayeslmm.") as store:
            for record in track(_records(path, vcf), f"Reading {path.name}", total=count):
                alts = record.ALT or ["."]
                rows.append(
                    (record.CHROM, record.POS, record.ID or ".", record.REF, ",".join(alts))
                )
                dosage = _record_dosages(path, record, len(ids), len(alts), soft)
                store.write(np.ascontiguousarray(dosage.astype(dtype, copy=False)).data)
                m += len(alts)
            if len(rows) != count:
                raise InputError(f"{path}: damaged after {len(rows):,} of {count:,} variants.")
            store.flush()
            dosages = np.memmap(store, dtype=dtype, mode="r", shape=(m, len(ids)))
    except OSError as error:
        raise InputError(
            f"{path}: its dosages cannot be kept in {tempfile.gettempdir()} "
            f"({error.strerror or error}): {dtype.itemsize} byte(s) for each genotype are needed. "
            "Name another folder in TMPDIR, or convert the file (plink2 --vcf ... --make-pgen)."
        ) from error
    if soft is not None:
        log.info(f"{path}: dosages from {soft}, and from GT where a genotype has none")
    table = pd.DataFrame(rows, columns=["chrom", "pos", "id", "oa", "ea"])
    variants, _, _ = variant_table(*(table[c] for c in table))
    return Opened(ArraySource(dosages), samples, variants)


def _records(path: Path, vcf: Any) -> Iterator[Any]:
    records = iter(vcf)
    done = 0
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except Exception as error:  # cyvcf2 raises its base class
            raise InputError(f"{path}: damaged after {done:,} variants ({error}).") from error
        yield record
        done += 1


def _record_dosages(path: Path, record: Any, n: int, n_alts: int, soft: str | None) -> np.ndarray:
    """Dosages of every ALT of a record, shape (n_alts, n): `int8` with -9, or floats with NaN."""

    def where(row: int) -> str:
        return f"{path}, {record.CHROM}:{record.POS} '{record.ID or '.'}'"

    fields = record.FORMAT or []
    if "GT" not in fields and soft not in fields:
        raise InputError(
            f"{where(0)}: has no genotypes ({' or '.join(filter(None, ('GT', soft)))})."
        )
    alleles = np.arange(1, n_alts + 1)
    hard = np.full((n_alts, n), MISSING, dtype=np.int8)
    haploid = np.zeros(n, dtype=bool)
    if "GT" in fields:
        calls = record.genotype.array()[:, :-1]  # the last column tells phased from unphased
        if calls.shape[0] != n:
            raise InputError(f"{where(0)}: {calls.shape[0]:,} genotypes, expected {n:,}.")
        haploid = calls[:, 1] == -2 if calls.shape[1] > 1 else np.ones(n, dtype=bool)
        several = np.broadcast_to(calls, (n_alts, *calls.shape))
        hard = dosage_of_calls(several, alleles, np.full(n_alts, n_alts + 1), where)
    if soft is None:
        return hard
    values = record.format(soft) if soft in fields else None
    if values is None:
        found = np.full((n_alts, n), np.nan)
    else:
        of_field = _of_ds if soft == "DS" else _of_gp
        found = of_field(np.asarray(values, dtype=np.float64), n_alts, haploid, where(0))
        found = require_dosages(found, where)
    called = np.where(hard == MISSING, np.nan, hard)
    return np.where(np.isnan(found), called, found)


def _of_ds(values: np.ndarray, n_alts: int, haploid: np.ndarray, where: str) -> np.ndarray:
    if values.shape != (len(haploid), n_alts):
        raise InputError(f"{where}: DS of shape {values.shape}, expected one for each ALT.")
    # of a haploid DS is between 0 and 1
    return values.T * np.where(haploid, 2, 1)


def _of_gp(values: np.ndarray, n_alts: int, haploid: np.ndarray, where: str) -> np.ndarray:
    k = n_alts + 1
    found = np.full((n_alts, len(haploid)), np.nan)
    for ploidy, here in ((1, haploid), (2, ~haploid)):
        size = k if ploidy == 1 else k * (k + 1) // 2
        if not here.any():
            continue
        if values.shape[1] < size:
            raise InputError(f"{where}: {values.shape[1]} values in GP, expected {size}.")
        p = values[here, :size]
        total = p.sum(axis=1)
        with np.errstate(invalid="ignore"):
            wrong = (p < 0).any(axis=1) | (np.abs(total - 1) > 0.05)
        if wrong.any():
            raise InputError(
                f"{where}: GP {p[np.argmax(wrong)].tolist()}; expected probabilities that sum to 1."
            )
        for alt in range(1, k):
            found[alt - 1, here] = p @ copies_of_allele(k, ploidy, alt) / total * (2 / ploidy)
    return found


def _declared(vcf: Any) -> set[str]:
    """Names of the FORMAT fields of the header."""
    infos = (line.info() for line in vcf.header_iter() if line["HeaderType"] == "FORMAT")
    return {info["ID"] for info in infos if "ID" in info}


# -- what the C library does not check -------------------------------------------------------


def _count_records(path: Path) -> int:
    """Number of variants; the frame of every record is checked on the way.

    htslib trusts some of it (the process dies of a record without a contig), and a file cut
    off between two records, or within a gzip stream, would pass for a shorter one.
    """
    with open(path, "rb") as file:
        head = file.read(16)
        packed = head[:2] == b"\x1f\x8b"
        if head[:4] == b"\x1f\x8b\x08\x04" and head[12:14] == b"BC":
            file.seek(-min(len(_BGZF_END), path.stat().st_size), 2)
            if file.read() != _BGZF_END:
                raise InputError(f"{path}: truncated (the block that ends a BGZF file is absent).")
        file.seek(0)
        content: BinaryIO = gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[assignment]
        try:
            if content.peek(3)[:3] == b"BCF":  # type: ignore[attr-defined]
                return _count_bcf(path, content)
            return _count_text(path, content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: truncated or damaged ({error}).") from error


def _count_text(path: Path, lines: BinaryIO) -> int:
    count = tabs = 0
    for number, line in enumerate(lines, start=1):
        if line.startswith(b"##") and not tabs:
            continue
        if not tabs:
            names = line.rstrip(b"\r\n").split(b"\t")
            if names[: len(_COLUMNS)] != _COLUMNS:
                raise InputError(
                    f"{path}, line {number:,}: expected the header line "
                    f"{b' '.join(_COLUMNS).decode()} ... with tabs between."
                )
            tabs = len(names) - 1
            continue
        chrom, pos = line[:1000].split(b"\t", 2)[:2] if line.count(b"\t") == tabs else (b"", b"")
        if not chrom or not pos.isdigit() or b"\0" in line:
            found = line.count(b"\t") + 1
            raise InputError(
                f"{path}, line {number:,}: {found:,} columns, expected {tabs + 1:,}, the first "
                "a chromosome and the second a position."
            )
        count += 1
    if not tabs:
        raise InputError(f"{path}: no line #CHROM POS ID ...: the file has a header only.")
    return count


def _count_bcf(path: Path, content: BinaryIO) -> int:
    damaged = f"{path}: truncated or damaged"

    def take(size: int) -> bytes:
        raw = content.read(size)
        if len(raw) < size:
            raise InputError(f"{damaged}: it ends within a record.")
        return raw

    magic, length = struct.unpack("<5sI", take(9))
    if magic != b"BCF\2\2":
        raise InputError(f"{path}: BCF version {magic[3:].hex('.')}, expected 2.2.")
    text = b"".join(_pieces(take, length))
    lines = re.findall(rb"^##contig=<.*$", text, re.MULTILINE)
    marks = [re.search(rb"[<,]IDX=(\d+)", line) for line in lines]
    contigs = {number if mark is None else int(mark[1]) for number, mark in enumerate(marks)}
    count = 0
    while lengths := content.read(8):
        if len(lengths) < 8:
            raise InputError(f"{damaged}: it ends within a record.")
        shared, individual = struct.unpack("<II", lengths)
        if shared < 24:
            raise InputError(f"{damaged}: a record of {shared} bytes.")
        contig, pos = struct.unpack("<ii", take(8))
        if contig not in contigs or pos < -1:
            raise InputError(
                f"{damaged}: record {count + 1:,} is at contig {contig} of {len(contigs)}, {pos}."
            )
        for _ in _pieces(take, shared - 8 + individual):
            pass
        count += 1
    return count


def _pieces(take: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """So many bytes, some at a time: a wrong length takes no memory."""
    while size:
        piece = take(min(size, 2**20))
        size -= len(piece)
        yield piece
