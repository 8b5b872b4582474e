"""Calibration of fine-mapping on real genotypes: docs/fine-mapping.md.

    python tests/benchmarks/calibrate_finemapping.py [--replicates 304] [--scenario NAME ...]

Simulates phenotypes of the 1,410 mice with CD8: a polygenic background of every SNP of the
genome (40% of the variance) and causal SNPs in one region of 100 to 300 SNPs of each autosome in
turn. Prints PIPs against the share that is causal, in ten bins, and the coverage, size and
power of the 95% credible sets. Scenarios:

    qtl     1 to 5 causal SNPs, each 0.5% to 5% of the variance
    prior   number and sizes of the effects drawn from the default prior
    none    no causal SNP

each with the GRM of all SNPs (all) and without the region's chromosome (loco), and with each
method: about an hour for everything.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import time
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

import bayeslmm as bl

PHI = (0.05, 0.1, 0.2, 0.4)
H2 = 0.4


@dataclass
class Tally:
    """What all replicates of one scenario and kernel gave."""

    pip: list[np.ndarray] = field(default_factory=list)
    causal: list[np.ndarray] = field(default_factory=list)
    sets: list[tuple[bool, int]] = field(default_factory=list)
    found: list[tuple[float, bool, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, found: bl.FineMap, pve: np.ndarray, seconds: float) -> None:
        causal = pve > 0
        self.pip.append(found.variants["pip"].to_numpy())
        self.causal.append(causal)
        ids = found.variants["id"].to_numpy()
        inside = np.zeros(len(ids), dtype=bool)
        for members in found.credible_sets["ids"]:
            here = np.isin(ids, members)
            self.sets.append((bool((here & causal).any()), len(members)))
            inside |= here
        for j in np.flatnonzero(causal):
            self.found.append((pve[j], bool(inside[j]), self.pip[-1][j]))
        self.seconds.append(seconds)

    def report(self, name: str) -> None:
        pip, causal = np.concatenate(self.pip), np.concatenate(self.causal)
        print(
            f"\n## {name}: {len(self.pip)} replicates, {len(pip):,} SNPs, "
            f"{np.mean(self.seconds):.2f} CPU seconds each"
        )
        expected = pip.sum() / len(self.pip)
        print(
            f"expected SNPs with an effect {expected:.2f}, true {causal.sum() / len(self.pip):.2f}"
        )
        bins = np.minimum((pip * 10).astype(int), 9)
        table = (
            pd.DataFrame({"bin": bins, "pip": pip, "causal": causal})
            .groupby("bin")
            .agg(snps=("pip", "size"), pip=("pip", "mean"), causal=("causal", "mean"))
        )
        table["se"] = np.sqrt(table.pip * (1 - table.pip) / table.snps)
        table["difference"] = table.causal - table.pip
        print(table.round(4).to_string())
        if self.sets:
            hit, size = (np.array(v) for v in zip(*self.sets, strict=True))
            print(
                f"credible sets {len(hit)}, hold a causal SNP {hit.mean():.4f}, "
                f"false {int((~hit).sum())}, size median {np.median(size):g}, "
                f"mean {size.mean():.1f}, of one SNP {np.mean(size == 1):.2f}"
            )
        if self.found:
            pve, inside, own = (np.array(v) for v in zip(*self.found, strict=True))
            edges = [0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 1]
            for low, high in itertools.pairwise(edges):
                at = (pve >= low) & (pve < high)
                if at.any():
                    print(
                        f"  pve {low:.3f} to {high:.3f}: {at.sum():5d} causal, in a set "
                        f"{inside[at].mean():.2f}, mean PIP {own[at].mean():.2f}"
                    )


def effects(scenario: str, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which of k SNPs are causal, and their effects per sd of the genotype, in sd."""
    if scenario == "none":
        return np.empty(0, dtype=int), np.empty(0)
    if scenario == "prior":
        count = rng.binomial(10, rng.beta(1, 9))
        at = rng.choice(k, size=count, replace=False)
        return at, rng.choice(PHI, size=count) * rng.normal(size=count)
    count = rng.integers(1, 6)
    sign = rng.choice([-1, 1], size=count)
    return rng.choice(k, size=count, replace=False), sign * np.sqrt(
        rng.uniform(0.005, 0.05, size=count)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=304)
    parser.add_argument("--scenario", nargs="+", default=["qtl", "prior", "none"])
    parser.add_argument("--kernel", nargs="+", default=["all", "loco"], choices=["all", "loco"])
    parser.add_argument("--method", nargs="+", default=["gibbs", "susie"])
    parser.add_argument("--expected-effects", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    mice = bl.datasets.mouse_hs1940()
    measured = mice.phenotypes.index[mice.phenotypes["cd8"].notna()]
    genotypes = mice.genotypes.select(samples=measured, min_maf=0.005)
    kernel = bl.grm(genotypes, by_chrom=True, progress=False)
    block = genotypes.centered_block(0, genotypes.n_variants, np.float32)
    Z = (block.x / np.sqrt(block.sum_sq / genotypes.n_samples)[:, None]).astype(np.float32)
    chrom = genotypes.variants["chrom"].to_numpy()
    rng = np.random.default_rng(options.seed)
    every = bl.LMM("cd8 ~ sex", mice.phenotypes, kernel)
    assert every.ids.equals(genotypes.samples.index)
    runs = list(itertools.product(options.scenario, options.kernel, options.method))
    tallies = {run: Tally() for run in runs}
    autosomes = [label for label in genotypes.chromosomes if label != "X"]
    for c, label in enumerate(autosomes):
        models = {"all": every}
        if "loco" in options.kernel:
            models["loco"] = bl.LMM("cd8 ~ sex", mice.phenotypes, kernel.loco(label))
        on = np.flatnonzero(chrom == label)
        for replicate in range(c, options.replicates, len(autosomes)):
            size = min(int(rng.integers(100, 301)), len(on))
            first = int(rng.integers(0, len(on) - size + 1))
            region = on[first : first + size]
            ids = list(genotypes.variants["id"].iloc[region])
            for scenario in options.scenario:
                at, beta = effects(scenario, size, rng)
                u = Z.T @ rng.normal(size=len(Z)).astype(np.float32)
                e = rng.normal(size=len(u))
                background = np.sqrt(H2) * u / u.std() + np.sqrt(1 - H2) * e
                # Sizes in sd of all but the region's effects, as the prior has them; for "qtl"
                # of the total.
                scale = 1.0 if scenario == "prior" else np.sqrt(max(1 - np.sum(beta**2), 0.1))
                y = scale * background + beta @ Z[region[at]]
                pve = np.zeros(size)
                pve[at] = beta**2
                for name, method in itertools.product(options.kernel, options.method):
                    start = time.process_time()
                    found = bl.finemap(
                        models[name].with_phenotype(y),
                        genotypes,
                        snps=ids,
                        method=method,
                        expected_effects=options.expected_effects,
                        seed=replicate,
                    )
                    seconds = time.process_time() - start
                    tallies[scenario, name, method].add(found, pve, seconds)
    for run, tally in tallies.items():
        tally.report(", ".join(run))


if __name__ == "__main__":
    main()
