"""Calibration of the posterior of several kernels, and of enrichment: docs/partition.md.

    python docs/scripts/partition_calibration.py [--replicates 500]

Simulation-based calibration (Talts et al. 2018, arXiv 1804.06788): shares are drawn from their
prior, a phenotype from the model, and the rank of the true share among the posterior's draws is
uniform if the posterior is right. Then enrichment in cohorts with a known one. Some minutes.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy import stats

import bayeslmm as bl


def cohort(n: int, sizes: tuple[int, ...], seed: int) -> bl.Partition:
    """Relatedness of n unrelated samples by sets of variants."""
    rng = np.random.default_rng(seed)
    m = sum(sizes)
    x = rng.binomial(2, rng.uniform(0.1, 0.5, m), size=(n, m))
    g = bl.Genotypes.from_array(x, [f"s{i}" for i in range(n)])
    label = np.repeat([f"set{k}" for k in range(len(sizes))], sizes)
    return bl.partition_grms(g, pd.Series(label, g.variants.id), dtype="float64", progress=False)


def roots(kernels: bl.Partition) -> list[np.ndarray]:
    """R with R R' = K / kappa, centred, for each kernel."""
    out = []
    for grm in kernels.values():
        K = grm.matrix
        K = K - K.mean(0) - K.mean(1)[:, None] + K.mean()
        values, U = np.linalg.eigh(K * len(K) / np.trace(K))
        out.append(U * np.sqrt(np.maximum(values, 0)))
    return out


def phenotype(parts: list[np.ndarray], shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One phenotype with these shares of the variance, the residual's last."""
    n = len(parts[0])
    y = np.sqrt(shares[-1]) * rng.normal(size=n)
    return y + sum(np.sqrt(h) * R @ rng.normal(size=n) for h, R in zip(shares, parts, strict=False))


def ranks(kernels: bl.Partition, replicates: int, method: str, seed: int) -> pd.DataFrame:
    """Ranks of the truth among 99 draws, for each share, s2 and the intercept."""
    K, parts, rng = len(kernels), roots(kernels), np.random.default_rng(seed)
    names = next(iter(kernels.values())).samples
    model = bl.LMM(pd.Series(rng.normal(size=len(names)), names), kernels=kernels)
    rows = []
    for i in range(replicates):
        truth = rng.dirichlet(np.ones(K + 1))
        y = 3 + 2 * phenotype(parts, truth, rng)
        again = model.with_phenotype(y)
        tree = again.posterior(99, seed=i, method=method, evaluations=400, progress=False)
        draws = tree["posterior"].dataset
        row = {f"h2_{k}": int((draws.h2_k.to_numpy()[..., k] < truth[k]).sum()) for k in range(K)}
        row["h2"] = int((draws.h2.to_numpy() < truth[:-1].sum()).sum())
        row["s2"] = int((draws.s2.to_numpy() < 4).sum())
        row["intercept"] = int((draws.b.to_numpy() < 3).sum())
        rows.append(row)
    return pd.DataFrame(rows)


def enriched(fold: float, cohorts: int, n: int, seed: int) -> pd.DataFrame:
    """Posterior of the enrichment of 5% of 1,000 variants, h2 = 0.5."""
    rows = []
    for i in range(cohorts):
        kernels = cohort(n, (50, 950), seed + i)
        rng = np.random.default_rng([seed, i])
        share = 0.5 * fold * 0.05
        y = phenotype(roots(kernels), np.array([share, 0.5 - share, 0.5]), rng)
        names = kernels["set0"].samples
        model = bl.LMM(pd.Series(y, names), kernels=kernels)
        rows.append(model.enrichment(model.posterior(2000, seed=i, progress=False)).loc["set0"])
    return pd.DataFrame(rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--kernels", type=int, nargs="*", default=[2, 3, 5])
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--cohorts", type=int, default=60)
    options = parser.parse_args()
    print("| kernels | method | quantity | mean rank (49.5) | p of uniformity |")
    for K, method in ((2, "quadrature"), (2, "importance"), (3, "importance"), (5, "importance")):
        if K not in options.kernels:
            continue
        kernels = cohort(60, (40,) * K, K)
        table = ranks(kernels, options.replicates, method, options.seed + K)
        for name, column in table.items():
            counts = np.histogram(column, np.linspace(-0.5, 99.5, 21))[0]
            p = stats.chisquare(counts).pvalue
            print(f"| {K} | {method} | {name} | {column.mean():.1f} | {p:.3f} |", flush=True)
    print("\n| true enrichment | n | mean | sd of it | mean sd | coverage 95% | P > 0.95 |")
    for fold in (1.0, 3.0, 10.0):
        t = enriched(fold, options.cohorts, 500, int(1000 * fold))
        covered = ((t.enrichment_low <= fold) & (t.enrichment_high >= fold)).mean()
        print(
            f"| {fold:g} | 500 | {t.enrichment.mean():.2f} | {t.enrichment.std():.2f} | "
            f"{t.enrichment_sd.mean():.2f} | {covered:.2f} | {(t.p_enriched > 0.95).mean():.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
