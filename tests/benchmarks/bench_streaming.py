"""A scan kept in parts against one in memory, its memory, and two Dask workers against threads.

    python tests/benchmarks/bench_streaming.py make --m 200000 --folder DIR
    python tests/benchmarks/bench_streaming.py kept --m 200000 --folder DIR
    python tests/benchmarks/bench_streaming.py memory --m 200000 --folder DIR
    python tests/benchmarks/bench_streaming.py dask --m 100000 --folder DIR

`make` writes the cohort with the package's simulator; the others read it. Two processors. Ratios
are of variants per second, each the best of two in turn. Nothing else should run meanwhile.
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


def in_turn(ways: dict[str, Callable[[], object]], m: int) -> None:
    best = dict.fromkeys(ways, np.inf)
    for _ in range(2):
        for name, way in ways.items():
            best[name] = min(best[name], seconds(way))
    first = next(iter(best.values()))
    for name, value in best.items():
        print(f"{name:24s} {value:7.2f} s  {m / value:9,.0f} per s  {first / value:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["make", "kept", "memory", "dask"])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--m", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    prefix = options.folder / "cohort"
    if options.what == "make":
        options.folder.mkdir(parents=True, exist_ok=True)
        bl.simulate_cohort(prefix, options.n, options.m, seed=1)
        print(f"{peak():,.0f} MB")
        return
    model, genotypes = ready(prefix, options.m)

    def kept() -> None:
        with bl.checkpoint(options.folder / "parts", restart=True) as parts:
            model.scan(genotypes, kept=parts, threads=2)
            discard(parts)

    if options.what == "kept":
        in_turn(
            {"in memory": lambda: model.scan(genotypes, threads=2), "in parts": kept}, options.m
        )
    elif options.what == "memory":
        before = peak()
        spent = {"scan": seconds(kept)}
        table = model.scan(genotypes.select(variants=np.arange(options.m) < 1000))
        print(
            f"peak before {before:,.0f} MB, after the scan {peak():,.0f} MB, {spent['scan']:.1f} s"
        )
        print(f"table: {table.memory_usage(deep=True).sum() / len(table):.0f} bytes per variant")
        table = pd.concat([table] * 100, ignore_index=True)
        written = seconds(lambda: write_table(table, options.folder / "table.tsv.gz"))
        print(f"100,000 rows as TSV.gz: {written:.2f} s; peak {peak():,.0f} MB")
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
            )


if __name__ == "__main__":
    main()
