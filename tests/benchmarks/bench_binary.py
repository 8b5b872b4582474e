"""The scan of cases and controls, from .bed to table, beside plink2 --glm.

    python tests/benchmarks/bench_binary.py [--n 4000] [--m 100000] [--threads 2] [--folder DIR]
        [--plink2 plink2] [--mixed]

Half of the samples are cases; one covariate. Nothing else should run meanwhile. `--mixed` times
the mixed model too: the null fit, and the scan with score and saddlepoint tests.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import pandas as pd
from bench_first_light import timed
from bench_scan import wall
from cohort import write_cohort
from threadpoolctl import threadpool_limits

import bayeslmm as bl
from bayeslmm.binary.mixed import fit_null_mixed

_OURS = """
import sys
import bayeslmm as bl
model = bl.LMM("case ~ age", sys.argv[2])
genotypes = bl.read_genotypes(sys.argv[1])
tests = sys.argv[3].split(",")
hits = model.scan(genotypes, tests, family="binomial", threads=int(sys.argv[4]), progress=False)
hits.to_csv(sys.argv[5], sep="\\t")
"""
TESTS = ("score", "wald,score", "spa,score", "firth")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--m", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--plink2", default="plink2")
    parser.add_argument("--tests", nargs="+", default=list(TESTS))
    parser.add_argument("--mixed", action="store_true")
    options = parser.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp()).resolve()
    prefix = folder / f"cohort_{options.n}_{options.m}"
    if not prefix.with_suffix(".pheno.tsv").exists():
        write_cohort(prefix, options.n, options.m)
    table = pd.read_csv(prefix.with_suffix(".pheno.tsv"), sep="\t")
    fam = pd.read_csv(prefix.with_suffix(".fam"), sep=r"\s+", header=None)
    table["case"] = (table.y > table.y.median()).astype(int)
    pheno = folder / "case.tsv"
    table.to_csv(pheno, sep="\t", index=False)
    rows = table.set_index("IID").loc[fam[1]]
    ids = pd.DataFrame({"#FID": fam[0], "IID": fam[1]})
    for name, column in (("case", rows.case + 1), ("age", rows.age)):
        ids.assign(**{name: column.to_numpy()}).to_csv(
            folder / f"{name}.plink.txt", sep="\t", index=False
        )
    print(f"n = {options.n:,}, m = {options.m:,}, {options.threads} threads, from .bed to table")
    seconds = {}
    for mode in ("firth-fallback", "firth"):
        if mode == "firth" and "firth" not in options.tests:
            continue
        command = [
            options.plink2, "--bfile", str(prefix), "--threads", str(options.threads),
            "--pheno", "case.plink.txt", "--covar", "age.plink.txt", "--glm", mode, "hide-covar",
            "--out", f"plink_{mode}",
        ]  # fmt: skip
        seconds[mode] = wall(command, folder, options.threads)
    for tests in options.tests:
        command = [sys.executable, "-c", _OURS, str(prefix), str(pheno), tests]
        command += [str(options.threads), str(folder / "ours.tsv")]
        ours = wall(command, folder, 1)
        mode = "firth" if tests == "firth" else "firth-fallback"
        print(f"  {tests:12s} {ours:6.1f} s = {ours / seconds[mode]:.2f} x plink2 {mode}")
    if options.mixed:
        genotypes = bl.read_genotypes(prefix)
        with threadpool_limits(options.threads):
            basis = bl.eigenbasis(bl.grm(genotypes, progress=False))
            model = bl.LMM("case ~ age", str(pheno), basis)
            fit, mixed = timed(fit_null_mixed, model, model.y)
            scan, _ = timed(
                model.scan, genotypes, family="binomial", threads=options.threads, progress=False
            )
        print(f"  null model {fit:.1f} s (tau {mixed.tau:.3g}); null model and scan {scan:.1f} s")
    print(f"  processors {os.cpu_count()}")


if __name__ == "__main__":
    main()
