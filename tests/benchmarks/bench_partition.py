"""Several kernels at n = 2,000: REML, tests, and the full posterior.

    python tests/benchmarks/bench_partition.py [--n 2000] [--part NAME ...]

Parts: two (REML, tests, posterior of two kernels by quadrature and by importance sampling), ten
(ten kernels: AI-REML, tests; --posterior adds the posterior by importance sampling).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

import bayeslmm as bl


def lap(what: str, before: float) -> None:
    print(f"{what:60s} {time.perf_counter() - before:7.1f} s", flush=True)


def cohort(n: int, K: int, seed: int = 1) -> bl.PartitionedLMM:
    """Unrelated samples, K sets of 1,000 variants, h2 = 0.5 in equal parts of every second set."""
    rng = np.random.default_rng(seed)
    m = 1000 * K
    x = rng.binomial(2, rng.uniform(0.05, 0.5, m), size=(n, m)).astype(np.int8)
    g = bl.Genotypes.from_array(x, [f"s{i}" for i in range(n)])
    label = np.repeat([f"set{k}" for k in range(K)], 1000)
    now = time.perf_counter()
    kernels = bl.partition_grms(g, pd.Series(label, g.variants.id), progress=False)
    lap(f"{K} GRMs of {m:,} variants, one pass", now)
    effects = rng.normal(size=m) * np.repeat(np.arange(K) % 2 == 0, 1000)
    u = (x - x.mean(axis=0)) @ effects
    y = u / u.std() + rng.normal(size=n)
    return bl.LMM(pd.Series(y, kernels["set0"].samples, name="y"), kernels=kernels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--part", nargs="*", default=["two", "ten"])
    parser.add_argument("--posterior", action="store_true")
    options = parser.parse_args()
    for name in options.part:
        K = {"two": 2, "ten": 10}[name]
        model = cohort(options.n, K)
        start = now = time.perf_counter()
        _ = model.parts
        lap("contrasts, packed, kernels checked", now)
        now = time.perf_counter()
        fit = model.reml()
        lap(f"AI-REML, {fit.iterations} iterations", now)
        now = time.perf_counter()
        model.lrt()
        lap(f"likelihood-ratio tests of {K} components and all", now)
        methods = ["quadrature", "importance"] if K == 2 else ["importance"] * options.posterior
        for method in methods:
            now = time.perf_counter()
            attrs = model.posterior(4000, seed=1, method=method, progress=False).attrs
            known = f"ess {attrs['ess']:.0f}, {attrs['evaluations']} evaluations"
            lap(f"posterior by {method}, {known}", now)
        lap(f"{name}: all together", start)


if __name__ == "__main__":
    main()
