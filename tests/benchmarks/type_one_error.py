"""Type-I error and power of the scan's backgrounds, on the genotypes of the mice.

    python tests/benchmarks/type_one_error.py [--replicates 2000] [--split 30]

Null phenotypes are polygenic on every chromosome (u ~ N(0, s2_g K), K of all variants), at
h2 = 0, 0.3 and 0.6. A test that holds its error rejects the share that it says. Tests of
neighbouring variants and of one phenotype are correlated: intervals are those of the mean
over phenotypes. Power: a variant that explains 3% of the variance is added; each method's
threshold is the 1e-4 quantile of its own null p-values, so that all have one type-I error.
"""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
from scipy.special import chdtri

import bayeslmm as bl
from bayeslmm.genome.backgrounds import chromosome_kernels
from bayeslmm.genome.thresholds import ManyNulls
from bayeslmm.numerics.tails import log10_p_f

LEVELS = (0.05, 1e-2, 1e-3, 1e-4, 1e-5)
H2 = (0.0, 0.3, 0.6)
PVE = 0.03


def simulated(basis, h2: float, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """Null phenotypes, unit variance, in sample space, (n, replicates)."""
    d = np.sqrt(h2 * basis.values / basis.kappa + 1 - h2)
    return basis.unrotate(d[:, None] * rng.standard_normal((len(d), replicates)))


def log10_p(model: bl.LMM, Y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """P-values of all variants (rows of x) for all phenotypes, ratio at each null estimate."""
    rotated = Y if model.basis is None else model.basis.rotate(Y)
    nulls = ManyNulls(model, rotated, x.dtype)
    parts = np.array_split(np.arange(len(x)), max(1, len(x) // 1000))
    rotate = (lambda a: a) if model.basis is None else model.basis.rotate_rows
    out = [log10_p_f(nulls.f_statistics(rotate(x[part])), nulls.df) for part in parts]
    return np.concatenate(out)


def tell(name: str, h2: float, p: np.ndarray) -> None:
    """Rejected shares with 99% intervals over phenotypes, and lambda_GC."""
    cells = []
    for level in LEVELS:
        share = (p < np.log10(level)).mean(axis=0)
        error = 2.576 * share.std() / np.sqrt(p.shape[1])
        cells.append(f"{share.mean() / level:.3f} +- {error / level:.3f}")
    factor = float(chdtri(1, 10 ** np.median(p)) / chdtri(1, 0.5))
    print(f"| {name} | {h2} | {' | '.join(cells)} | {factor:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--split", type=int, default=30, help="phenotypes for rest+chrom")
    parser.add_argument("--only", choices=["shared", "split"], help="one half of the study")
    options = parser.parse_args()
    logging.getLogger("bayeslmm").setLevel(logging.WARNING)
    mice = bl.datasets.mouse_hs1940()
    model = bl.LMM("cd8 ~ 1", mice.phenotypes, bl.grm(mice.genotypes, by_chrom=True))
    genotypes = mice.genotypes.select(samples=model.ids)
    block = genotypes.centered_block(0, genotypes.n_variants, np.float32)
    used = np.minimum(block.eaf, 1 - block.eaf) > 0.01
    x, chroms = block.x[used], genotypes.variants.chrom.to_numpy()[used]
    rng = np.random.default_rng(1)
    null = {h2: simulated(model.basis, h2, options.replicates, rng) for h2 in H2}
    causal = rng.choice(len(x), size=options.replicates)
    effect = x[causal].T / x[causal].std(axis=1)
    with_qtl = np.sqrt(1 - PVE) * simulated(model.basis, 0.5, options.replicates, rng)
    with_qtl += np.sqrt(PVE) * effect * rng.choice([-1, 1], size=options.replicates)
    null_qtl = simulated(model.basis, 0.5, options.replicates, rng)
    print(f"{len(x):,} variants, {options.replicates:,} phenotypes; rejected / nominal, 99%")
    print("| background | h2 | " + " | ".join(f"{level:g}" for level in LEVELS) + " | lambda |")

    pcs = np.asarray(model.basis.vectors)[:, np.argsort(model.basis.values)[::-1][:10]]
    plain = bl.LMM(model.y, pcs)
    power: dict[str, list[float]] = {}

    def study(name: str, p_of) -> None:
        start = time.perf_counter()
        for h2 in H2:
            tell(name, h2, p_of(null[h2]))
        below = np.quantile(p_of(null_qtl), 1e-4)
        at = p_of(with_qtl)[causal, np.arange(options.replicates)]
        power[name] = [10**below, float((at < below).mean()), float((at < np.log10(5e-6)).mean())]
        print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)

    kernels = {k.chrom: k.model for k in chromosome_kernels(model, genotypes, "loco", 0.0)}

    def loco(Y: np.ndarray) -> np.ndarray:
        out = np.empty((len(x), Y.shape[1]))
        for chrom, own in kernels.items():
            out[chroms == chrom] = log10_p(own, Y, x[chroms == chrom])
        return out

    if options.only != "split":
        study("all", lambda Y: log10_p(model, Y, x))
        study("loco", loco)
        study("10 PCs, no kernel", lambda Y: log10_p(plain, Y, x.astype(np.float64)))

    # Every phenotype has a split of its own: fewer of them.
    kept = genotypes.select(variants=used)

    def alone(i: int) -> float:
        own = model.with_phenotype(np.ascontiguousarray(with_qtl[:, i]))
        chosen = np.arange(len(x)) == causal[i]
        found = own.scan(
            kept.select(variants=chosen), "p3d", background="rest+chrom", progress=False
        )
        return float(np.log10(found.p_p3d.iloc[0]))

    def split(Y: np.ndarray) -> np.ndarray:
        columns = []
        for y in Y.T[: options.split]:
            own = model.with_phenotype(np.ascontiguousarray(y))
            found = own.scan(kept, "p3d", background="rest+chrom", progress=False)
            columns.append(np.log10(found.p_p3d.to_numpy()))
        return np.array(columns).T

    if options.only != "shared":
        start = time.perf_counter()
        for h2 in H2:
            tell("rest+chrom", h2, split(null[h2]))
        # Power needs the causal variant's own chromosome only.
        below = np.quantile(split(null_qtl), 1e-4)
        at = np.array([alone(i) for i in range(4 * options.split)])
        power["rest+chrom"] = [10**below, (at < below).mean(), (at < np.log10(5e-6)).mean()]
        print(f"  ({time.perf_counter() - start:.0f} s)")
    print("| background | p at which 1e-4 are rejected | power there | power at 5e-6 |")
    for name, (p, at_equal, at_fixed) in power.items():
        print(f"| {name} | {p:.2g} | {at_equal:.3f} | {at_fixed:.3f} |")


if __name__ == "__main__":
    main()
