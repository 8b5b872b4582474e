"""Relatives found without family ids: what is missed, and how long it takes.

    python tests/benchmarks/bench_screening.py --n 20000 --m 10000 --screen 2000 4000

A simulated cohort in families of up to 10. The truth is the relatedness of all pairs within
families from all variants; missed is who of them did not pass the screening.
"""

import argparse
import time

import numpy as np
import pandas as pd

import bayeslmm as bl
from bayeslmm.relatedness.screening import screened_pairs

BINS = [0.05, 0.09, 0.18, 0.35, 1.1]
NAMES = ["0.05 to 0.09", "third degree: 0.09 to 0.18", "second: 0.18 to 0.35", "first: over 0.35"]


def main() -> None:
    """Print a table for each number of variants."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--m", type=int, default=10_000)
    parser.add_argument("--screen", type=int, nargs="+", default=[2000, 4000])
    options = parser.parse_args()
    cohort = bl.simulate_cohort(None, options.n, options.m, families=10, seed=1)
    genotypes = cohort.genotypes
    K = bl.sparse_grm(genotypes, progress=False)
    coo = K.matrix.tocoo()
    upper = coo.row < coo.col
    i, j, value = coo.row[upper], coo.col[upper], coo.data[upper]
    key = i.astype(np.int64) * options.n + j
    degree = pd.cut(value, BINS, labels=NAMES)
    for variants in options.screen:
        begun = time.perf_counter()
        a, b, about = screened_pairs(genotypes, variants, progress=False)
        spent = time.perf_counter() - begun
        missed = ~np.isin(key, a.astype(np.int64) * options.n + b)
        table = pd.DataFrame({"degree": degree, "missed": missed}).groupby("degree", observed=False)
        print(f"{variants:,} variants: limit {about['limit']:.3f}, {len(a):,} pairs, {spent:.1f} s")
        print(table.missed.agg(["size", "sum", "mean"]).to_string(), about["missed"], flush=True)


if __name__ == "__main__":
    main()
