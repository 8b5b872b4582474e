"""Bayes factors integrated over h2 against those at one h2: a figure of docs/genome-scan.md.

    python docs/scripts/bayes_factors.py [--out docs/figures]

CD8 of the embedded mice, all of them and 200 of them. The plugged-in factor fixes h2 at the
null model's REML estimate, which is done by a prior as narrow as that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import bayeslmm as bl


def both(model: bl.LMM, genotypes: bl.Genotypes) -> pd.DataFrame:
    """log10 Bayes factors, integrated and plugged in."""
    h2 = min(max(model.reml().h2, 1e-3), 1 - 1e-3)
    fixed = bl.LMM(
        model.formula, bl.datasets.mouse_hs1940().phenotypes, model.grm,
        h2_prior=bl.priors.beta(1e5 * h2, 1e5 * (1 - h2)),
    )  # fmt: skip
    table = {
        "integrated": model.scan(genotypes, "bayes", dtype="float64").log10_bf,
        "plugged in": fixed.scan(genotypes, "bayes", dtype="float64").log10_bf,
    }
    return pd.DataFrame(table).dropna()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    mice = bl.datasets.mouse_hs1940()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    some = np.random.default_rng(1).permutation(mice.genotypes.samples.index)[:275]
    for ax, samples in zip(axes, (mice.genotypes.samples.index, sorted(some)), strict=True):
        genotypes = mice.genotypes.select(samples=samples)
        model = bl.LMM("cd8 ~ sex", mice.phenotypes, bl.grm(genotypes))
        table = both(model, genotypes)
        difference = table["plugged in"] - table["integrated"]
        ax.axhline(0, color="0.6", lw=0.8)
        ax.plot(table["integrated"], difference, ".", ms=3, color="#0072B2", alpha=0.5)
        density = model.h2_posterior()
        ax.set(
            title=f"{len(model.y):,} mice: h2 = {density.mean:.2f} ± {density.sd:.2f}",
            xlabel="log10 Bayes factor, integrated over h2",
            ylabel="plugged in − integrated",
        )
        worst = table.loc[difference.abs().idxmax()]
        print(f"{len(model.y):,} mice, {len(table):,} variants; largest difference:\n{worst}")
        print("median of |difference|:", difference.abs().median())
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "bayes_factors.png", dpi=110)


if __name__ == "__main__":
    main()
