"""Calibration of the posterior of several kernels, and of enrichment: docs/partition.md.

    python docs/scripts/partition_calibration.py ranks --replicates 500 --out ranks.csv
    python docs/scripts/partition_calibration.py table ranks.csv
    python docs/scripts/partition_calibration.py enrichment [--cohorts 60]

Simulation-based calibration (Talts et al. 2018, arXiv 1804.06788): shares are drawn from their
prior, a phenotype from the model, and the rank of the true share among the posterior's draws is
uniform if the posterior is right. Then enrichment in cohorts with a known one. Some minutes each.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

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


def ranks(sets: list[int], replicates: int, seconds: float, seed: int, out: Path) -> None:
    """Ranks of the truth among 99 draws, for each share, h2, s2 and the intercept; n = 60.

    For each number of kernels in turn, with what `posterior` does when it is told nothing.
    """
    rng, start = np.random.default_rng(seed), time.monotonic()
    designs = {}
    for K in sets:
        kernels = cohort(60, (40,) * K, K)
        names = kernels["set0"].samples
        model = bl.LMM(pd.Series(rng.normal(size=len(names)), names), kernels=kernels)
        designs[K] = roots(kernels), model
    rows: list[dict[str, float | str]] = []
    for i in range(replicates):
        for K, (parts, model) in designs.items():
            truth = rng.dirichlet(np.ones(K + 1))
            y = 3 + 2 * phenotype(parts, truth, rng)
            tree = model.with_phenotype(y).posterior(99, seed=rng, progress=False)
            draws = tree["posterior"].dataset
            row = {"kernels": K, "method": tree.attrs["method"], "ess": tree.attrs["ess"]}
            row["pareto_k"] = tree.attrs.get("pareto_k", np.nan)
            for k in range(K):
                row[f"h2_{k}"] = int((draws.h2_k.to_numpy()[..., k] < truth[k]).sum())
            row["h2"] = int((draws.h2.to_numpy() < truth[:-1].sum()).sum())
            row["s2"] = int((draws.s2.to_numpy() < 4).sum())
            row["intercept"] = int((draws.b.to_numpy() < 3).sum())
            rows.append(row)
        done = i == replicates - 1 or time.monotonic() - start > seconds
        if done or i % 20 == 19:
            pd.DataFrame(rows).to_csv(out, index=False)
        if done:
            break


def rank_table(files: list[Path]) -> None:
    """Print the table of docs/partition.md: how far from uniform the ranks are."""
    rows = pd.concat([pd.read_csv(file) for file in files])
    print("| kernels | method | quantity | phenotypes | mean rank | its SE | p | outer tenth |")
    for K, t in rows.groupby("kernels"):
        method = ", ".join(f"{k} {v}" for k, v in t.method.value_counts().items())
        print(f"| {K} | {method}; ess {t.ess.min():.0f} to {t.ess.max():.0f} |")
        for name in [*(f"h2_{k}" for k in range(K)), "h2", "s2", "intercept"]:
            counts = np.histogram(t[name], np.linspace(-0.5, 99.5, 21))[0]
            p = stats.chisquare(counts).pvalue
            outer = ((t[name] < 5) | (t[name] >= 95)).mean()
            se = np.sqrt((100**2 - 1) / 12 / len(t))
            row = name, len(t), f"{t[name].mean():.1f}", f"{se:.1f}", f"{p:.3f}", f"{outer:.3f}"
            print("| |", " | ".join(map(str, row)), "|")


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


def enrichment_table(cohorts: int) -> None:
    """Print what is found where enrichment is 1, 3 and 10."""
    print("| true enrichment | n | mean | sd of it | mean sd | coverage 95% | P > 0.95 |")
    for fold in (1.0, 3.0, 10.0):
        t = enriched(fold, cohorts, 500, int(1000 * fold))
        covered = ((t.enrichment_low <= fold) & (t.enrichment_high >= fold)).mean()
        print(
            f"| {fold:g} | 500 | {t.enrichment.mean():.2f} | {t.enrichment.std():.2f} | "
            f"{t.enrichment_sd.mean():.2f} | {covered:.2f} | {(t.p_enriched > 0.95).mean():.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["ranks", "table", "enrichment"])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--kernels", type=int, nargs="*", default=[2, 3, 5, 10])
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after so many")
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--cohorts", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("ranks.csv"))
    options = parser.parse_args()
    if options.what == "ranks":
        ranks(options.kernels, options.replicates, options.seconds, options.seed, options.out)
    elif options.what == "table":
        rank_table(options.files)
    else:
        enrichment_table(options.cohorts)


if __name__ == "__main__":
    main()
