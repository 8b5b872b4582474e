"""Growth of the sparse path with the number of people: REML, posterior, scan, peak memory.

    python tests/benchmarks/bench_sparse.py --n 50000 100000 200000 500000 --m 512 --folder DIR
    python tests/benchmarks/bench_sparse.py --n 500000 --m 10000 --folder DIR --once

Each cohort is simulated on disk, in families of up to 10 (once: what is in the folder is used
again), and analysed in a process of its own, so that the peak of its memory is its own. The
scan's time per variant stands beside the time to read the same variants and to sum their
dosages, by as many threads. `--once` times one scan of all variants, from the model to the table.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import bayeslmm as bl
from bayeslmm.genome.families import FamilyScanner, variants_in_block
from bayeslmm.genome.passes import Run
from bayeslmm.runs.progress import map_ahead


def peak() -> float:
    """Peak resident memory of this process, in GB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def analyse(prefix: str, threads: int, once: bool) -> None:
    """Times of one cohort, in seconds of wall clock and, in brackets, of the processor."""
    found = {}

    def timed(name, work):
        wall, own = time.perf_counter(), time.process_time()
        result = work()
        found[name] = time.perf_counter() - wall, time.process_time() - own
        return result

    genotypes = bl.read_genotypes(prefix)
    table = bl.read_phenotypes(f"{prefix}.pheno.tsv")
    kernel = timed("sparse GRM", lambda: bl.sparse_grm(genotypes, progress=False))
    lmm = bl.LMM("y ~ sex + age", table, kernel)
    timed("basis", lambda: lmm.basis)
    timed("REML", lmm.reml)
    timed("posterior", lambda: lmm.h2_posterior())

    def read_and_sum():
        def one(span):
            return genotypes.dosage(*span, np.float32).sum(axis=1)

        return list(map_ahead(one, genotypes.block_ranges(32), workers=threads))

    for _ in range(1 if once else 2):  # the second finds the file in memory, as the scan does
        timed("read and sum", read_and_sum)
    if once:
        timed("scan", lambda: lmm.scan(genotypes, threads=threads, progress=False))
        for name, (wall, own) in found.items():
            print(f"  {name:12} {wall:8.2f} s ({own:.2f})")
        print(f"  ratio        {found['scan'][0] / found['read and sum'][0]:8.1f}")
        print(f"  peak memory  {peak():8.2f} GB", flush=True)
        return
    tests, kind = ("wald", "bayes"), np.dtype("float32")
    scanner = timed("null model", lambda: FamilyScanner(lmm, tests, kind))
    run = Run(genotypes, kind, threads, variants_in_block(len(lmm.y)), progress=False)
    for _ in range(2):
        timed("scan", lambda: run.all_variants([scanner]))
    m = genotypes.n_variants
    per = [[1e3 * spent / m for spent in found[name]] for name in ("read and sum", "scan")]
    for name in ("sparse GRM", "basis", "REML", "posterior", "null model"):
        print(f"  {name:12} {found[name][0]:8.2f} s ({found[name][1]:.2f})")
    for name, (wall, own) in zip(("read and sum", "scan"), per, strict=True):
        print(f"  {name:12} {wall:8.3f} ms per variant ({own:.3f})")
    print(f"  ratio        {per[1][0] / per[0][0]:8.1f} ({per[1][1] / per[0][1]:.1f})")
    print(f"  peak memory  {peak():8.2f} GB", flush=True)


def main() -> None:
    """Simulate and analyse each size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, nargs="+", default=[50_000, 100_000])
    parser.add_argument("--m", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cohort", help="analyse this one only (used by the program itself)")
    options = parser.parse_args()
    if options.cohort:
        with threadpool_limits(1):
            analyse(options.cohort, options.threads, options.once)
        return
    for n in options.n:
        prefix = options.folder / f"n{n}m{options.m}"
        if not prefix.with_suffix(".bed").exists():
            options.folder.mkdir(parents=True, exist_ok=True)
            bl.simulate_cohort(prefix, n, options.m, families=10, seed=1)
        print(f"n = {n:,}, {options.m} variants", flush=True)
        command = [sys.executable, __file__, "--cohort", str(prefix), "--folder", options.folder]
        command += ["--threads", str(options.threads), *(["--once"] if options.once else [])]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
