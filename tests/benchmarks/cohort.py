"""A simulated cohort on disk for the benchmarks: PLINK files of any size, written in blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_cohort(prefix: Path, n: int, m: int, *, seed: int = 1, chromosomes: int = 22) -> None:
    """Unrelated people, independent variants with MAF 0.05 to 0.5; a phenotype with h2 = 0.5."""
    rng = np.random.default_rng(seed)
    u = np.zeros(n)
    with open(prefix.with_suffix(".bed"), "wb") as bed:
        bed.write(b"\x6c\x1b\x01")
        for start in range(0, m, 2000):
            p = rng.uniform(0.05, 0.5, size=min(2000, m - start))
            x = (rng.random((len(p), n), dtype=np.float32) < p[:, None]).astype(np.uint8)
            x += rng.random((len(p), n), dtype=np.float32) < p[:, None]
            z = (x - 2 * p[:, None]) / np.sqrt(2 * p * (1 - p))[:, None]
            u += rng.standard_normal(len(p)) @ z
            code = np.array([3, 2, 0], dtype=np.uint8)[x]
            code = np.pad(code, ((0, 0), (0, -n % 4))).reshape(len(p), -1, 4)
            bed.write((code << np.array([0, 2, 4, 6], dtype=np.uint8)).sum(axis=2, dtype=np.uint8))
    with open(prefix.with_suffix(".bim"), "w") as bim:
        for j in range(m):
            bim.write(f"{1 + j * chromosomes // m}\trs{j}\t0\t{j + 1}\tA\tG\n")
    y = u / u.std() + rng.standard_normal(n)
    with (
        open(prefix.with_suffix(".fam"), "w") as fam,
        open(prefix.with_suffix(".pheno.tsv"), "w") as pheno,
    ):
        pheno.write("FID\tIID\ty\tage\n")
        for i in range(n):
            fam.write(f"{i}\ts{i}\t0\t0\t1\t{y[i]:.6f}\n")
            pheno.write(f"{i}\ts{i}\t{y[i]:.6f}\t{rng.uniform(20, 70):.1f}\n")
