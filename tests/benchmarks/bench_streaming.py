"""A scan written by parts against one in memory, its memory, and two Dask workers against threads.

    python tests/benchmarks/bench_streaming.py make --m 1000000 --folder DIR
    python tests/benchmarks/bench_streaming.py memory --m 1000000 --folder DIR
    python tests/benchmarks/bench_streaming.py file --m 1000000 --folder DIR --rounds 1
    python tests/benchmarks/bench_streaming.py kept --m 200000 --folder DIR
    python tests/benchmarks/bench_streaming.py dask --m 100000 --folder DIR

`make` writes the cohort with the package's simulator; the others read it. Two processors. Ratios
are of variants per second, each the best of some rounds in turn. Nothing else should run meanwhile.
`memory` is to be run for several m, each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as bl
from bayeslmm.runs.checkpoints import discard
from bayeslmm.runs.results import write_table


def ready(prefix: Path, m: int) -> tuple[bl.LMM, bl.Genotypes]:
    """Model with its basis made, of 20,000 variants, and the variants to test."""
    genotypes = bl.read_genotypes(f"{prefix}.bed")
    first = np.arange(genotypes.n_variants)
    K = bl.grm(genotypes.select(variants=first % (genotypes.n_variants // 20_000) == 0))
    rng = np.random.default_rng(1)
    y = pd.Series(rng.standard_normal(genotypes.n_samples), genotypes.samples.index)
    model = bl.LMM(y, kernel=K)
    model.reml()
    return model, genotypes.select(variants=first < m)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak() -> float:
    """Largest memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_turn(ways: dict[str, Callable[[], object]], m: int, rounds: int) -> None:
    best = dict.fromkeys(ways, np.inf)
    for _ in range(rounds):
        for name, way in ways.items():
            best[name] = min(best[name], seconds(way))
    first = next(iter(best.values()))
    for name, value in best.items():
        print(f"{name:24s} {value:7.2f} s  {m / value:9,.0f} per s  {first / value:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["make", "kept", "file", "memory", "dask"])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--m", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    prefix = options.folder / "cohort"
    if options.what == "make":
        options.folder.mkdir(parents=True, exist_ok=True)
        bl.simulate_cohort(prefix, options.n, options.m, seed=1)
        print(f"{peak():,.0f} MB")
        return
    model, genotypes = ready(prefix, options.m)
    path = options.folder / "scan.tsv.gz"

    def kept() -> None:
        with bl.checkpoint(options.folder / "parts", restart=True) as parts:
            model.scan(genotypes, kept=parts, threads=2)
            discard(parts)

    def to_file() -> None:
        bl.scan_to_file(model, genotypes, path, threads=2, overwrite=True)

    if options.what == "kept":
        ways = {"in memory": lambda: model.scan(genotypes, threads=2), "in parts": kept}
        in_turn(ways, options.m, options.rounds)
    elif options.what == "file":
        ways = {
            "in memory": lambda: model.scan(genotypes, threads=2),
            "then written": lambda: write_table(model.scan(genotypes, threads=2), path),
            "written by parts": to_file,
        }
        in_turn(ways, options.m, options.rounds)
    elif options.what == "memory":
        few = genotypes.select(variants=np.arange(options.m) < 2000)
        bl.scan_to_file(model, few, path, threads=2, overwrite=True)  # what every scan takes
        before = peak()
        spent = seconds(to_file)
        print(
            f"m = {options.m:,}: peak before {before:,.0f} MB, after {peak():,.0f} MB; "
            f"{spent:.1f} s, {options.m / spent:,.0f} variants per second; "
            f"file {path.stat().st_size / 1e6:,.0f} MB; table of variants "
            f"{genotypes.variants.memory_usage(deep=True).sum() / 1e6:,.0f} MB"
        )
    else:
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            in_turn(
                {
                    "2 threads": lambda: model.scan(genotypes, threads=2),
                    "2 workers": lambda: model.scan(genotypes, client=client),
                },
                options.m,
                options.rounds,
            )


if __name__ == "__main__":
    main()
