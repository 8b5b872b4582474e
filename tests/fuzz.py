"""Readers of files on mutated bytes: only InputError or a correct table may come of it.

    python tests/fuzz.py TARGETS FIRST LAST      (names with commas, or "all")

Each case is a seed. The process has a limit on memory, and on CPU time per case, so an allocation
that the file does not justify, or a hang, ends it; the seed of the running case is in the file
that --note names. tests/test_fuzz.py runs a short form of it.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gzip
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import bayeslmm as bl
from bayeslmm.commands.shared import read_scan
from bayeslmm.errors import InputError

FORMATS = Path(__file__).parent / "golden" / "formats"
GOLDEN = FORMATS.parent
HEADROOM = 600e6  # bytes that a case may take beyond what the process has
SECONDS = 20  # of CPU time, for one case


class Target(NamedTuple):
    """A data set, which of its files is mutated, and what reads it."""

    files: tuple[str, ...]
    mutated: str
    read: Callable[[Path], object]
    make: Callable[[Path], object] = lambda folder: None  # further files


def _genotypes(path: Path) -> None:
    genotypes = bl.read_genotypes(path)
    n, m = genotypes.shape
    for start in range(0, m, 50):
        x = genotypes.dosage(start, min(start + 50, m))
        if x.shape[1] != n or not (np.isnan(x) | ((x >= 0) & (x <= 2))).all():
            raise AssertionError(f"dosages {x.shape} between {np.nanmin(x)} and {np.nanmax(x)}")
    genotypes.select(samples=genotypes.samples.index[::-2]).dosage(m // 2, m)


def _grm(path: Path) -> None:
    K = bl.read_grm(path)
    assert K.matrix.shape == (len(K.samples),) * 2


def _index(bgen: Path) -> None:
    """A .bgi as bgenix makes it."""
    found = bl.read_genotypes(bgen)
    ends = [*found._source._starts.tolist(), bgen.stat().st_size]  # type: ignore[attr-defined]
    rows = [
        (v.chrom, v.pos, v.id, 2, v.oa, v.ea, start, end - start)
        for v, start, end in zip(found.variants.itertuples(), ends[:-1], ends[1:], strict=True)
    ]
    with contextlib.closing(sqlite3.connect(f"{bgen}.bgi")) as base, base:
        base.execute(
            "CREATE TABLE Variant (chromosome TEXT NOT NULL, position INT NOT NULL, rsid TEXT NOT "
            "NULL, number_of_alleles INT NOT NULL, allele1 TEXT NOT NULL, allele2 TEXT NULL, "
            "file_start_position INT NOT NULL, size_in_bytes INT NOT NULL)"
        )
        base.executemany("INSERT INTO Variant VALUES (?,?,?,?,?,?,?,?)", rows)


def _sparse(folder: Path) -> None:
    K = bl.read_grm(folder / "plink2_grm60")
    bl.SparseGRM.from_dense(K, threshold=0.001).write(folder / "s")


def _parquet(folder: Path) -> None:
    table = pd.read_csv(folder / "covariates.tsv", sep="\t", dtype={"id": str})
    table.to_parquet(folder / "covariates.parquet", index=False)


def _set(prefix: str, endings: str, mutated: str) -> Target:
    names = tuple(f"{prefix}.{ending}" for ending in endings.split())
    main = names[0]
    return Target(names, f"{prefix}.{mutated}", lambda folder: _genotypes(folder / main))


TARGETS = {
    "bed": _set("calls", "bed bim fam", "bed"),
    "bim": _set("calls", "bed bim fam", "bim"),
    "fam": _set("calls", "bed bim fam", "fam"),
    "pgen": _set("calls", "pgen pvar psam", "pgen"),
    "pgen_dosage": _set("doses", "pgen pvar psam", "pgen"),
    "pgen_multi": _set("multi", "pgen pvar psam", "pgen"),
    "pvar": _set("multi", "pgen pvar psam", "pvar"),
    "psam": _set("calls", "pgen pvar psam", "psam"),
    "pvar_zst": Target(
        ("calls.pgen", "calls_z.pvar.zst", "calls.psam"),
        "calls_z.pvar.zst",
        lambda folder: _genotypes(_renamed(folder)),
    ),
    "bgen8": _set("doses8", "bgen sample", "bgen"),
    "bgen16": _set("doses16", "bgen sample", "bgen"),
    "bgen12z": _set("doses12z", "bgen sample", "bgen"),
    "sample": _set("doses8", "bgen sample", "sample"),
    "vcf": _set("multi", "vcf", "vcf"),
    "vcf_gz": _set("doses", "vcf.gz", "vcf.gz"),
    "bcf": _set("doses", "bcf", "bcf"),
    "grm": Target(
        tuple(f"plink2_grm60.grm.{e}" for e in ("bin", "id", "N.bin")),
        "plink2_grm60.grm.id",
        lambda folder: _grm(folder / "plink2_grm60"),
    ),
    "grm_bin": Target(
        tuple(f"plink2_grm60.grm.{e}" for e in ("bin", "id", "N.bin")),
        "plink2_grm60.grm.bin",
        lambda folder: _grm(folder / "plink2_grm60"),
    ),
    "cxx": Target(
        ("gemma_cd8_corner50.cXX.txt",),
        "gemma_cd8_corner50.cXX.txt",
        lambda folder: _grm(folder / "gemma_cd8_corner50.cXX.txt"),
    ),
    "grm_sp": Target(
        tuple(f"plink2_grm60.grm.{e}" for e in ("bin", "id")),
        "s.grm.sp",
        lambda folder: bl.read_sparse_grm(folder / "s"),
        _sparse,
    ),
    "bgi": Target(
        ("calls8.bgen", "calls8.sample"),
        "calls8.bgen.bgi",
        lambda folder: _genotypes(folder / "calls8.bgen"),
        lambda folder: _index(folder / "calls8.bgen"),
    ),
    "parquet": Target(
        ("covariates.tsv",),
        "covariates.parquet",
        lambda folder: bl.read_phenotypes(folder / "covariates.parquet"),
        _parquet,
    ),
    "scan_gz": Target(
        ("plink2_cd8.glm.linear.tsv.gz",),
        "plink2_cd8.glm.linear.tsv.gz",
        lambda folder: read_scan(folder / "plink2_cd8.glm.linear.tsv.gz"),
    ),
    "phenotypes": Target(
        ("covariates.tsv",),
        "covariates.tsv",
        lambda folder: bl.read_phenotypes(folder / "covariates.tsv"),
    ),
    "phenotypes_gz": Target(
        ("plink2_cd8.glm.linear.tsv.gz",),
        "plink2_cd8.glm.linear.tsv.gz",
        lambda folder: bl.read_phenotypes(folder / "plink2_cd8.glm.linear.tsv.gz", id="ID"),
    ),
}
PACKED = {"vcf_gz", "bcf"}  # mutated below their compression, every second time


def _renamed(folder: Path) -> Path:
    shutil.move(folder / "calls_z.pvar.zst", folder / "calls.pvar.zst")
    return folder / "calls.pgen"


def mutate(raw: bytes, rng: np.random.Generator) -> bytes:
    """A few edits: bits, bytes, numbers at their limits, pieces cut, doubled, moved, inserted."""
    data = bytearray(raw)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 8]))):
        # headers are where the lengths are
        top = len(data) if rng.random() < 0.6 else min(len(data), 64)
        at = int(rng.integers(0, max(1, top)))
        size = int(rng.choice([1, 2, 4, 8, 30, 300]))
        match int(rng.integers(0, 9)):
            case 0 if data:
                data[at] ^= 1 << int(rng.integers(8))
            case 1 if data:
                data[at] = int(rng.integers(256))
            case 2:
                data[at : at + size] = rng.choice([b"\xff", b"\0", b"\x7f"]) * size
            case 3:
                del data[at : at + size]
            case 4:
                del data[at:]
            case 5:
                data[at:at] = data[at : at + size]
            case 6:
                data[at:at] = rng.bytes(size)
            case 7:
                other = int(rng.integers(0, len(data) + 1))
                data[at : at + size] = data[other : other + size]
            case 8:
                token = [
                    b"\t",
                    b"\n",
                    b" ",
                    b"nan",
                    b"-9",
                    b"1e999",
                    b"\0",
                    b'"',
                    b",",
                    b"\xc3",
                    b".",
                ]
                data[at:at] = token[int(rng.integers(len(token)))]
    return bytes(data)


def run(name: str, seed: int) -> str:
    """Read one mutated data set; what came of it."""
    target = TARGETS[name]
    rng = np.random.default_rng([seed, sum(name.encode())])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for file in target.files:
            origin = FORMATS / file if (FORMATS / file).exists() else GOLDEN / file
            shutil.copy(origin, folder / file)
        target.make(folder)
        path = folder / target.mutated
        raw = path.read_bytes()
        if name in PACKED and seed % 2:
            path.write_bytes(mutate(gzip.decompress(raw), rng))
        else:
            path.write_bytes(mutate(raw, rng))
        try:
            target.read(folder)
        except InputError as error:
            message = str(error)
            assert message, "a message"
            return "refused"
    return "read"


def main() -> None:
    """Run the seeds of a target; print what came of them, and every failure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", help="names with commas, or all")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--note", type=Path)
    options = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("error")
    for module in ("pgenlib", "cyvcf2", "zstandard"):
        with contextlib.suppress(ImportError):
            __import__(module)
    status = Path("/proc/self/statm")
    if status.exists():
        taken = int(status.read_text().split()[0]) * resource.getpagesize()
        limit = int(taken + HEADROOM)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    failures = 0
    names = list(TARGETS) if options.targets == "all" else options.targets.split(",")
    for name in names:
        outcomes: dict[str, int] = {}
        for seed in range(options.first, options.last):
            if options.note:
                options.note.write_text(f"{name} {seed}")
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                outcome = run(name, seed)
            except Exception:
                outcome = "FAILED"
                failures += 1
                print(f"--- {name} {seed}\n{traceback.format_exc(limit=-6)}", flush=True)
            signal.setitimer(signal.ITIMER_PROF, 0)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        print(name, outcomes, flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
