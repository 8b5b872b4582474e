"""GRM pass and exact scan against the bare products that bound them.

    python tests/benchmarks/bench_first_light.py [--n 4000] [--m 100000] [--folder DIR]

One process, two BLAS threads, each figure beside its bound, in turn. Peak memory of the
scan is measured at two values of m: it must not grow.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from cohort import write_cohort
from threadpoolctl import threadpool_info, threadpool_limits

import bayeslmm as bl


def timed(function, *args, **kwargs):
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - start, result


def kernels() -> str:
    """Which kernels BLAS takes: `OPENBLAS_CORETYPE` may name slower ones than the processor's."""
    blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(sorted({f"{one['internal_api']} {one.get('architecture')}" for one in blas}))


def bare_product(left: np.ndarray, n: int, m: int, *, gram: bool) -> float:
    """Seconds for m variants' float32 product with an n x n matrix, or for Z Z'."""
    block = np.random.default_rng(0).standard_normal((2048, n), dtype=np.float32)
    spent = 0.0
    for start in range(0, m, len(block)):
        part = block[: min(len(block), m - start)]
        seconds, _ = timed(np.matmul, part.T, part) if gram else timed(np.matmul, part, left)
        spent += seconds
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--m", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    n, m = options.n, options.m
    folder = options.folder or Path(tempfile.mkdtemp())
    prefix = folder / f"cohort_{n}_{m}"
    if not prefix.with_suffix(".pheno.tsv").exists():
        write_cohort(prefix, n, m)
    genotypes = bl.read_genotypes(prefix)
    print(f"n = {n:,}, m = {m:,}, {options.threads} threads, {kernels()}; seconds")
    with threadpool_limits(options.threads):
        for _ in range(options.repeat):
            U = np.linalg.qr(np.random.default_rng(1).standard_normal((n, 8)))[0]
            U = np.tile(U, (1, n // 8 + 1))[:, :n].astype(np.float32)
            gram = bare_product(U, n, m, gram=True)
            ours, grm = timed(bl.grm, genotypes, progress=False)
            print(f"GRM      bare product {gram:6.2f}  ours {ours:6.2f}  ratio {ours / gram:.2f}")
        seconds, basis = timed(bl.eigenbasis, grm)
        print(f"basis    {seconds:.2f}")
        model = bl.LMM("y ~ age", str(prefix.with_suffix(".pheno.tsv")), basis)
        seconds, fit = timed(model.reml)
        print(f"REML     {seconds:.3f}  {fit}")
        for _ in range(options.repeat):
            bare = bare_product(basis.vectors32, n, m, gram=False)
            for tests in (("p3d",), ("wald",), ("wald", "lrt", "score")):
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
                ours, _ = timed(
                    model.scan, genotypes, tests, threads=options.threads, progress=False
                )
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
                print(
                    f"scan     bare rotation {bare:6.2f}  {'+'.join(tests):15s} {ours:6.2f}  "
                    f"ratio {ours / bare:.2f}  peak {peak:.2f} GB (before {before:.2f})"
                )


if __name__ == "__main__":
    main()
