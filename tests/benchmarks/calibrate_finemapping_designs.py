"""Calibration of fine-mapping on the mice, by design and method: docs/fine-mapping.md.

    python tests/benchmarks/calibrate_finemapping_designs.py --design qtl --out NAME

Designs: qtl (1 to 5 causal SNPs, 0.5% to 5% of the variance each, the default prior), sizes (the
same with sizes of effects as the prior has them), prior (number, places and sizes drawn from the
prior, 3 effects expected), small (8 SNPs, drawn from the prior of the enumeration, 2 effects
expected: --methods exact susie gibbs). Writes NAME.pip.csv.gz, a row for each SNP, and
NAME.sets.csv, a row for each credible set, as it goes; stops after so many seconds.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings

import numpy as np
import pandas as pd

import bayeslmm as bl

PHI = np.array([0.05, 0.1, 0.2, 0.4])
H2 = 0.4


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--design", choices=["qtl", "sizes", "prior", "small"], required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=235)
    parser.add_argument("--methods", nargs="+", default=["gibbs", "susie"])
    parser.add_argument("--phi", type=float, nargs="+", default=list(PHI), help="of the fit")
    parser.add_argument("--out", required=True)
    o = parser.parse_args()
    begin = time.perf_counter()
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    mice = bl.datasets.mouse_hs1940()
    measured = mice.phenotypes.index[mice.phenotypes["cd8"].notna()]
    genotypes = mice.genotypes.select(samples=measured, min_maf=0.005)
    kernel = bl.grm(genotypes, progress=False)
    block = genotypes.centered_block(0, genotypes.n_variants, np.float32)
    Z = (block.x / np.sqrt(block.sum_sq / genotypes.n_samples)[:, None]).astype(np.float32)
    chrom = genotypes.variants["chrom"].to_numpy()
    all_ids = genotypes.variants["id"].to_numpy()
    rng = np.random.default_rng(o.seed)
    model = bl.LMM("cd8 ~ sex", mice.phenotypes, kernel)
    assert model.ids.equals(genotypes.samples.index)
    autosomes = [c for c in genotypes.chromosomes if c != "X"]
    expected = {"qtl": 1.0, "sizes": 1.0, "prior": 3.0, "small": 2.0}[o.design]
    pips, sets, replicate, saved = [], [], 0, time.perf_counter()
    while time.perf_counter() - begin < o.seconds:
        on = np.flatnonzero(chrom == autosomes[replicate % len(autosomes)])
        if o.design == "small":
            step = int(rng.integers(5, 21))
            first = int(rng.integers(0, max(1, len(on) - 8 * step)))
            region = on[first : first + 8 * step : step]
        else:
            size = min(int(rng.integers(100, 301)), len(on))
            first = int(rng.integers(0, len(on) - size + 1))
            region = on[first : first + size]
        k = len(region)
        if o.design == "qtl":
            count = rng.integers(1, 6)
            at = rng.choice(k, size=count, replace=False)
            beta = rng.choice([-1, 1], size=count) * np.sqrt(rng.uniform(0.005, 0.05, size=count))
            scale = np.sqrt(max(1 - np.sum(beta**2), 0.1))
        elif o.design == "sizes":
            count = rng.integers(1, 6)
            at = rng.choice(k, size=count, replace=False)
            beta, scale = rng.choice(PHI, size=count) * rng.normal(size=count), 1.0
        elif o.design == "prior":  # effects of any SNP, more than one of the same at times
            at = from_prior(k, expected, rng)
            count = len(at)
            beta, scale = rng.choice(PHI, size=count) * rng.normal(size=count), 1.0
        else:  # an effect for each SNP that is in, one width for all
            at = np.unique(from_prior(k, expected, rng))
            beta, scale = rng.choice(PHI) * rng.normal(size=len(at)), 1.0
        if o.design in ("qtl", "sizes"):
            # As in calibrate_finemapping.py: a share of this very background.
            u = Z.T @ rng.normal(size=len(Z)).astype(np.float32)
            e = rng.normal(size=len(u))
            background = np.sqrt(H2) * u / u.std() + np.sqrt(1 - H2) * e
        else:
            # From the model itself: h2 uniform, u ~ N(0, K), total variance 1.
            h2 = rng.random()
            b = model.basis
            d = np.sqrt(h2 * b.values / b.kappa + 1 - h2)
            background = b.unrotate(d[:, None] * rng.standard_normal((len(d), 1)))[:, 0]
        y = scale * background + beta @ Z[region[at]]
        truth = np.zeros(k, dtype=bool)
        truth[at] = True
        own = model.with_phenotype(y)
        ids = list(all_ids[region])
        for method in o.methods:
            if o.design == "small" and method == "gibbs" and replicate % 4:
                continue
            start = time.process_time()
            found = bl.finemap(
                own,
                genotypes,
                snps=ids,
                method=method,
                expected_effects=expected,
                phi=o.phi,
                seed=replicate,
            )
            seconds = time.process_time() - start
            assert list(found.variants.id) == ids
            pips.append(
                pd.DataFrame(
                    {
                        "method": method,
                        "region": replicate,
                        "j": np.arange(k),
                        "pip": found.variants.pip.to_numpy(),
                        "causal": truth,
                        "seconds": seconds,
                    }
                )
            )
            for s in found.credible_sets.itertuples():
                members = np.isin(ids, s.ids)
                sets.append(
                    {
                        "method": method,
                        "region": replicate,
                        "size": len(s.ids),
                        "hit": bool(truth[members].any()),
                        "coverage": s.coverage,
                        "purity": s.purity,
                        "log10_bf": s.log10_bf,
                        "n_causal": truth.sum(),
                    }
                )
        replicate += 1
        if time.perf_counter() - saved > 20:
            save(o.out, pips, sets)
            saved = time.perf_counter()
    save(o.out, pips, sets)
    print(o.design, o.seed, replicate, "regions", f"{time.perf_counter() - begin:.0f} s")


def from_prior(k, expected, rng):
    """SNPs of the effects: ten, each there with the same probability, itself Beta-distributed."""
    count = rng.binomial(10, rng.beta(1, 10 / expected - 1))
    return rng.integers(k, size=count)


def save(out, pips, sets):
    pd.concat(pips).to_csv(out + ".pip.csv.gz", index=False, float_format="%.6g")
    pd.DataFrame(sets).to_csv(out + ".sets.csv", index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
