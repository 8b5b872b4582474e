"""The scan with all its columns, LOCO, several phenotypes, and the peers, in turn.

    python tests/benchmarks/bench_scan.py [--n 4000] [--m 100000] [--folder DIR]
        [--gemma gemma] [--jamma jamma] [--fastlmm PYTHON] [--only-columns | --only-loco]

Two BLAS threads. Figures are ratios: to the bare float32 product of the rotation, to `p3d`, and
to the peers' wall time from .bed to table (each is run if its program is named; --fastlmm is a
Python that can import fastlmm). Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from bench_first_light import bare_product, kernels, timed
from cohort import write_cohort
from threadpoolctl import threadpool_limits

import bayeslmm as bl

COLUMNS = {
    "p3d": ("p3d",),
    "wald": ("wald",),
    "wald + bayes": ("wald", "bayes"),
    "wald + lrt + score + bayes": ("wald", "lrt", "score", "bayes"),
}
_FASTLMM = """
import sys, time
from fastlmm.association import single_snp
single_snp(sys.argv[1], sys.argv[2], K0=sys.argv[1], covar=sys.argv[3],
           leave_out_one_chrom=False, count_A1=True)
"""
_OURS = """
import sys
from pathlib import Path
import bayeslmm as bl
from bayeslmm.runs.results import write_table
genotypes = bl.read_genotypes(sys.argv[1])
grm = bl.grm(genotypes, scale="centered", by_chrom=sys.argv[4] != "all", progress=False)
model = bl.LMM("y ~ age", sys.argv[2], grm)
table = model.scan(genotypes, sys.argv[3].split(","), background=sys.argv[4], progress=False)
write_table(table, Path(sys.argv[5]))
"""


def wall(command: list[str], folder: Path, threads: int) -> float:
    """Seconds of a program, and its peak memory by GNU time if there is one."""
    environment = os.environ | {
        name: str(threads)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    }
    clock = ["/usr/bin/time", "-f", "%M"] if Path("/usr/bin/time").exists() else []
    start = time.perf_counter()
    done = subprocess.run(
        clock + command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        print(done.stdout[-500:], done.stderr[-1500:])
        return float("nan")
    memory = f"{int(done.stderr.split()[-1]) / 1e6:.2f} GB" if clock else ""
    print(f"    {seconds:7.1f} s  {memory}  {' '.join(command)[:90]}", flush=True)
    return seconds


def columns(model: bl.LMM, genotypes: bl.Genotypes, n: int, m: int, threads: int) -> None:
    """Sets of columns against the bare rotation and p3d; further phenotypes."""
    for _ in range(3):
        bare = bare_product(model.basis.vectors32, n, m, gram=False)
        spent = {
            name: timed(model.scan, genotypes, tests, threads=threads, progress=False)[0]
            for name, tests in COLUMNS.items()
        }
        for name, seconds in spent.items():
            print(
                f"  {name:28s} {seconds:6.2f} s  {seconds / bare:.3f} x bare ({bare:.2f} s)  "
                f"{seconds / spent['p3d']:.3f} x p3d"
            )
        rng = np.random.default_rng(0)
        several = {
            str(i): model.with_phenotype(model.y + i * rng.standard_normal(n)) for i in range(5)
        }
        five, _ = timed(
            bl.scan, several, genotypes, ("wald", "bayes"), threads=threads, progress=False
        )
        each = (five - spent["wald + bayes"]) / 4 / spent["wald + bayes"]
        print(f"  five phenotypes {five:.2f} s: each further one {100 * each:.1f}% of the first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--m", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--gemma")
    parser.add_argument("--jamma")
    parser.add_argument("--fastlmm")
    parser.add_argument("--only-columns", action="store_true", help="after the basis; no peers")
    parser.add_argument("--only-loco", action="store_true", help="LOCO, ours and JAMMA's")
    options = parser.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp()).resolve()
    prefix = folder / f"cohort_{options.n}_{options.m}"
    if not prefix.with_suffix(".pheno.tsv").exists():
        write_cohort(prefix, options.n, options.m)
    table = pd.read_csv(prefix.with_suffix(".pheno.tsv"), sep="\t")
    fam = pd.read_csv(prefix.with_suffix(".fam"), sep=r"\s+", header=None)
    if options.only_columns:
        measure_columns(prefix, table, options)
        return
    work = Path(tempfile.mkdtemp(dir=folder))
    ids = fam.iloc[:, [0, 1]]
    values = table.set_index("IID").loc[fam[1], ["y", "age"]].to_numpy()
    for suffix in (".bed", ".bim"):
        shutil.copy(prefix.with_suffix(suffix), work / f"c{suffix}")
    fam.assign(**{"5": values[:, 0]}).iloc[:, [0, 1, 2, 3, 4, -1]].to_csv(
        work / "c.fam", sep=" ", header=False, index=False
    )
    np.savetxt(work / "covar.txt", np.column_stack([np.ones(len(fam)), values[:, 1]]))
    for name, column in (("pheno", 0), ("covar", 1)):
        ids.assign(v=values[:, column]).to_csv(
            work / f"{name}.fastlmm", sep=" ", header=False, index=False
        )

    print(
        f"n = {options.n:,}, m = {options.m:,}, {options.threads} threads, {kernels()}, "
        "from .bed to table"
    )
    run = [sys.executable, "-c", _OURS, str(prefix), str(prefix.with_suffix(".pheno.tsv"))]
    ours = {
        name: wall([*run, tests, background, str(work / "ours.tsv")], work, options.threads)
        for name, (tests, background) in {
            "wald": ("wald", "all"),
            "all columns": ("wald,lrt,score,bayes", "all"),
            "loco": ("wald", "loco"),
            "loco, bayes": ("wald,bayes", "loco"),
        }.items()
    }
    peers: dict[str, list[list[str]]] = {}
    if options.gemma:
        peers["GEMMA"] = [
            [options.gemma, "-bfile", "c", "-gk", "1", "-o", "k"],
            [options.gemma, "-bfile", "c", "-k", "output/k.cXX.txt", "-lmm", "1", "-c",
             "covar.txt", "-o", "r"],
        ]  # fmt: skip
    if options.jamma:
        peers["JAMMA"] = [
            [options.jamma, "-bfile", "c", "-gk", "1", "-o", "k", "-outdir", "jamma",
             "--no-telemetry"],
            [options.jamma, "-bfile", "c", "-k", "jamma/k.cXX.npy", "-lmm", "1", "-c",
             "covar.txt", "-o", "j", "-outdir", "jamma", "--no-telemetry"],
        ]  # fmt: skip
        peers["JAMMA -loco"] = [
            [options.jamma, "-bfile", "c", "-lmm", "1", "-loco", "-c", "covar.txt", "-o", "jl",
             "-outdir", "jamma", "--no-telemetry"],
        ]  # fmt: skip
    if options.fastlmm:
        peers["FaST-LMM"] = [
            [options.fastlmm, "-c", _FASTLMM, "c.bed", "pheno.fastlmm", "covar.fastlmm"]
        ]
    for name, commands in peers.items():
        if ("loco" in name) != options.only_loco:
            continue
        seconds = sum(wall(command, work, options.threads) for command in commands)
        mine = ours["loco" if "loco" in name else "wald"]
        print(
            f"  {name}: {seconds:.1f} s, bayeslmm {mine:.1f} s: {seconds / mine:.1f} x", flush=True
        )
    shutil.rmtree(work)
    if options.only_loco:
        return

    measure_columns(prefix, table, options)


def measure_columns(prefix: Path, table: pd.DataFrame, options: argparse.Namespace) -> None:
    """The columns on a model with an intercept and two covariates."""
    print(f"columns, after the basis; intercept, sex and age; {kernels()}")
    genotypes = bl.read_genotypes(prefix)
    with threadpool_limits(options.threads):
        basis = bl.eigenbasis(bl.grm(genotypes, progress=False))
        sex = np.random.default_rng(3).integers(0, 2, len(table))
        phenotypes = table.assign(sex=sex).set_index("IID").drop(columns="FID")
        model = bl.LMM("y ~ sex + age", phenotypes, basis)
        columns(model, genotypes, options.n, options.m, options.threads)


if __name__ == "__main__":
    main()
