"""Reading the same cohort from each format, in million genotypes per second.

    python tests/benchmarks/bench_formats.py FOLDER [--plink2 plink2]

Makes the cohort (n = 2,000, m = 20,000) and, by plink2, its other formats in FOLDER if they are
not there. Reads blocks of 1,000 variants in float32 by one thread: the best of three passes after
opening, and the opening itself. Beside it pgenlib's own speed: hard calls as int8, and dosages.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cohort import write_cohort

import bayeslmm as bl

N, M, BLOCK = 2_000, 20_000, 1_000
EXPORTS = {
    "c.pgen": ["--make-pgen"],
    "c8.bgen": ["--export", "bgen-1.2", "bits=8"],
    "c16.bgen": ["--export", "bgen-1.2", "bits=16"],
    "c.vcf.gz": ["--export", "vcf", "bgz"],
    "c.bcf": ["--export", "bcf"],
}
# as many dosages as there are genotypes: made of the BGEN of 8 bits with noise
NOISE = 0.2


def make(folder: Path, plink2: str) -> None:
    """Write what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "c.bed").exists():
        write_cohort(folder / "c", N, M)
    for name, options in EXPORTS.items():
        if not (folder / name).exists():
            out = folder / name.split(".")[0]
            command = [plink2, "--bfile", folder / "c", *options, "--out", out, "--threads", "2"]
            subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
    if not (folder / "d.pgen").exists():
        rng = np.random.default_rng(1)
        genotypes = bl.read_genotypes(folder / "c.bed")
        with open(folder / "d.vcf", "w") as file:
            file.write("##fileformat=VCFv4.3\n")
            file.writelines(f"##contig=<ID={c}>\n" for c in range(1, 23))
            file.write('##FORMAT=<ID=DS,Number=A,Type=Float,Description="dosage">\n')
            head = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
            file.write("\t".join([*head, *genotypes.samples.index]) + "\n")
            for start in range(0, M, BLOCK):
                x = genotypes.dosage(start, start + BLOCK, dtype=np.float32)
                x = np.clip(x + rng.normal(0, NOISE, x.shape), 0, 2)
                rows = genotypes.variants.iloc[start : start + BLOCK].itertuples()
                for row, dosages in zip(rows, x, strict=True):
                    site = [row.chrom, str(row.pos), row.id, row.oa, row.ea, ".", ".", ".", "DS"]
                    file.write("\t".join([*site, *(f"{d:.3f}" for d in dosages)]) + "\n")
        command = [plink2, "--vcf", "d.vcf", "dosage=DS", "--make-pgen", "--out", "d"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        (folder / "d.vcf").unlink()


def rate(read: Callable[[], object]) -> float:
    """Million genotypes per second, the best of three."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        read()
        seconds.append(time.perf_counter() - start)
    return N * M / min(seconds) / 1e6


def main() -> None:
    """Print a line for each format."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plink2", default="plink2")
    parser.add_argument("--make", action="store_true", help="only write the files")
    options = parser.parse_args()
    make(options.folder, options.plink2)
    if options.make:
        return
    for name in ("c.bed", "c.pgen", "d.pgen", "c8.bgen", "c16.bgen", "c.vcf.gz", "c.bcf"):
        start = time.perf_counter()
        genotypes = bl.read_genotypes(options.folder / name)
        opened = time.perf_counter() - start

        def read(genotypes: bl.Genotypes = genotypes) -> None:
            for first in range(0, M, BLOCK):
                genotypes.dosage(first, first + BLOCK, dtype=np.float32)

        print(f"{name:10s} opened in {opened:6.2f} s; {rate(read):7.0f} M/s", flush=True)

    import pgenlib

    for name in ("c.pgen", "d.pgen"):
        with pgenlib.PgenReader(str(options.folder / name).encode()) as reader:
            calls = np.empty((BLOCK, N), dtype=np.int8)
            dosages = np.empty((BLOCK, N), dtype=np.float32)

            def bare(reader: pgenlib.PgenReader = reader, calls: np.ndarray = calls) -> None:
                for first in range(0, M, BLOCK):
                    reader.read_range(first, first + BLOCK, calls)

            def bare_dosages(
                reader: pgenlib.PgenReader = reader, dosages: np.ndarray = dosages
            ) -> None:
                for first in range(0, M, BLOCK):
                    reader.read_dosages_range(first, first + BLOCK, dosages)

            print(f"{name:10s} pgenlib, calls as int8: {rate(bare):7.0f} M/s", flush=True)
            print(f"{name:10s} pgenlib, dosages: {rate(bare_dosages):7.0f} M/s", flush=True)


if __name__ == "__main__":
    main()
