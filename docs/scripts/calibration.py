"""Simulation-based calibration of the exact posterior and of NUTS: docs/calibration.md.

    python docs/scripts/calibration.py [--exact 1000] [--nuts 100] [--out docs/figures]

Runs on 400 of the embedded mice, prints the tables and draws the figures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import bayeslmm as bl
from bayeslmm import plots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exact", type=int, default=1000)
    parser.add_argument("--nuts", type=int, default=100)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    mice = bl.datasets.mouse_hs1940()
    some = np.random.default_rng(1).permutation(mice.genotypes.samples.index)[: options.n]
    genotypes = mice.genotypes.select(samples=sorted(some))
    frequent = genotypes.select(min_maf=0.1).variants
    snps = frequent.id.iloc[[100, 3000, 6000]]
    model = bl.LMM("mch ~ sex", mice.phenotypes, bl.grm(genotypes))
    print(model)
    options.out.mkdir(parents=True, exist_ok=True)
    runs = {
        "exact": {"method": "posterior", "replicates": options.exact},
        "nuts": {"method": "nuts", "replicates": options.nuts},
        "nuts_snps": {"method": "nuts", "replicates": options.nuts, "snps": snps},
        "wrong_prior": {
            "method": "posterior",
            "replicates": options.exact,
            "simulate_h2": bl.priors.beta(2, 5),
        },
        "exact_snps": {"method": "posterior", "replicates": options.exact // 5, "snps": snps},
    }
    for name, arguments in runs.items():
        start = time.perf_counter()
        check = bl.calibrate(model, seed=1, progress=False, **arguments)
        print(f"\n{name}: {time.perf_counter() - start:.0f} s\n{check}")
        plots.save(options.out / f"calibration_{name}.png", plots.calibration, check)


if __name__ == "__main__":
    main()
