"""Are the scan's probabilities what they say? Effects drawn from the prior, on real genotypes.

    python tests/benchmarks/calibrate_scan.py [--replicates 4000] [--n 400]

For each replicate h2 is uniform, a variant is drawn, with probability 1/2 it has an effect of
the default prior, and the phenotype follows from the model. `ppa` (prior odds 1) must be the
share with an effect, and `lfsr` the share of wrong signs among them, bin by bin.
"""

from __future__ import annotations

import argparse
import logging
from itertools import pairwise

import numpy as np

import bayeslmm as bl

PPA = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0])
LFSR = np.array([0, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5])


def simulate(
    model: bl.LMM, genotypes: bl.Genotypes, replicates: int, seed: int
) -> dict[str, np.ndarray]:
    """Truth (effect, 0 for none) and what the scan says, for each replicate."""
    rng = np.random.default_rng(seed)
    basis, n = model.basis, len(model.y)
    block = genotypes.centered_block(0, genotypes.n_variants, np.float64)
    used = np.flatnonzero(block.eaf * (1 - block.eaf) > 0.02)
    prior = bl.priors.EffectPrior()
    out = {name: np.empty(replicates) for name in ("effect", "ppa", "lfsr", "mean", "sd")}
    for i in range(replicates):
        j = int(rng.choice(used))
        h2 = rng.uniform()
        x = block.x[j] / block.x[j].std()
        effect = rng.choice(prior.phi) * rng.standard_normal() * (rng.uniform() < 0.5)
        d = np.sqrt(h2 * basis.values / basis.kappa + 1 - h2)
        y = basis.unrotate(d * rng.standard_normal(n)) + effect * x
        found = model.with_phenotype(y).scan(
            np.round(block.x[j] + 2 * block.eaf[j])[:, None],
            "bayes",
            prior_odds=1.0,
            progress=False,
            threads=1,
        )
        row = found.iloc[0]
        out["effect"][i], out["ppa"][i], out["lfsr"][i] = effect, row.ppa, row.lfsr
        out["mean"][i], out["sd"][i] = row.post_mean, row.post_sd
    return out


def table(name: str, values: np.ndarray, truth: np.ndarray, edges: np.ndarray) -> None:
    print(f"\n| {name} | replicates | mean {name} | observed | SE |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for low, high in pairwise(edges):
        here = (values >= low) & ((values < high) | (high == edges[-1]))
        if here.sum() < 5:
            continue
        said, seen = values[here].mean(), truth[here].mean()
        error = np.sqrt(max(said * (1 - said), 1e-12) / here.sum())
        print(f"| {low:g} to {high:g} | {here.sum()} | {said:.4f} | {seen:.4f} | {error:.4f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=4000)
    parser.add_argument("--n", type=int, default=400)
    options = parser.parse_args()
    logging.getLogger("bayeslmm").setLevel(logging.WARNING)
    mice = bl.datasets.mouse_hs1940()
    some = np.random.default_rng(1).permutation(mice.genotypes.samples.index)[: options.n]
    genotypes = mice.genotypes.select(samples=sorted(some))
    K = bl.grm(genotypes)
    model = bl.LMM(np.random.default_rng(2).standard_normal(len(K.samples)), kernel=K.matrix)
    found = simulate(model, genotypes, options.replicates, 3)
    there = found["effect"] != 0
    table("ppa", found["ppa"], there, PPA)
    wrong = np.sign(found["mean"]) != np.sign(found["effect"])
    table("lfsr", found["lfsr"][there], wrong[there], LFSR)


if __name__ == "__main__":
    main()
