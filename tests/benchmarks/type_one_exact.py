"""Where the exact REML test loses its type-I error, on the genotypes of the mice.

    python tests/benchmarks/type_one_exact.py [--replicates 2000] [--stride 4] [--gemma gemma]

Null phenotypes with u ~ N(0, s2_g K) at h2 = 0, 0.3 and 0.6. On the same phenotypes and variants:
the F test at the true ratio of variances (an oracle), at the null model's REML ratio (p3d), and
at each variant's own (exact Wald); then the same for the phenotypes whose REML ratio is 0 and
for the others. With --gemma the first four phenotypes go through GEMMA 0.98.5 `-lmm 1` with our K:
the largest difference of log10 p, and both programs' rejected shares.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from type_one_error import simulated

import bayeslmm as bl
from bayeslmm.genome.thresholds import ManyNulls
from bayeslmm.numerics.nodes import LOG_RANGE
from bayeslmm.numerics.tails import log10_p_f

LEVELS = (0.05, 1e-2, 1e-3, 1e-4)
H2 = (0.0, 0.3, 0.6)
# Phenotypes that are scanned at a time, and that GEMMA is given.
_BATCH, _FOR_GEMMA = 50, 4


def rejected(log10_p: np.ndarray) -> str:
    """Rejected over nominal share, and its standard error over phenotypes (v, R)."""
    if log10_p.shape[1] < 2:
        return " | ".join("-" for _ in LEVELS)
    cells = []
    for level in LEVELS:
        share = (log10_p < np.log10(level)).mean(axis=0) / level
        cells.append(f"{share.mean():.3f} ({share.std(ddof=1) / np.sqrt(len(share)):.3f})")
    return " | ".join(cells)


def at_known_ratio(model: bl.LMM, Y: np.ndarray, x: np.ndarray, h2: float) -> np.ndarray:
    """log10 p of the F test at the true variance ratio, rotated Y (n, R) and x (v, n)."""
    data = model.rotated
    root = 1 / np.sqrt(1 + h2 * (data.s - 1))
    q, _ = np.linalg.qr(data.C * root[:, None])
    Yw, xw = Y * root[:, None], x * root
    Yw = Yw - q @ (q.T @ Yw)
    xw = xw - (xw @ q) @ q.T
    explained = (xw @ Yw) ** 2 / (xw * xw).sum(axis=1)[:, None]
    f = explained / (((Yw * Yw).sum(axis=0) - explained) / (data.df - 1))
    return log10_p_f(f, data.df - 1)


def exact_wald(model: bl.LMM, Y: np.ndarray, genotypes: bl.Genotypes) -> np.ndarray:
    """log10 p of the scan's exact Wald test, phenotypes (n, R) in sample space."""
    columns = []
    for first in range(0, Y.shape[1], _BATCH):
        several = {
            str(i): model.with_phenotype(np.ascontiguousarray(y))
            for i, y in enumerate(Y.T[first : first + _BATCH])
        }
        tables = bl.scan(several, genotypes, ("wald",), dtype="float64", progress=False)
        columns += [np.log10(table.p_wald.to_numpy()) for table in tables.values()]
    return np.array(columns).T


def by_gemma(program: str, model: bl.LMM, y: np.ndarray, dosages: np.ndarray) -> np.ndarray:
    """log10 p_wald of GEMMA -lmm 1 for one phenotype, its matrix ours, variants (v, n) in rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savetxt(folder / "y.txt", y, fmt="%.17g")
        np.savetxt(folder / "k.txt", model.grm.subset(model.ids).matrix, fmt="%.12g")
        rows = pd.DataFrame(dosages)
        rows.insert(0, "id", [f"v{i}" for i in range(len(rows))])
        rows.insert(1, "a", "A")
        rows.insert(2, "b", "C")
        rows.to_csv(folder / "g.txt", header=False, index=False)
        command = [program, "-g", "g.txt", "-p", "y.txt", "-k", "k.txt", "-lmm", "1"]
        command += ["-maf", "0", "-miss", "1", "-o", "r"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        table = pd.read_csv(folder / "output" / "r.assoc.txt", sep="\t").set_index("rs")
        return np.log10(table.p_wald.reindex(rows.id).to_numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--stride", type=int, default=4, help="test every so many variants")
    parser.add_argument("--h2", type=float, nargs="+", default=H2)
    parser.add_argument("--gemma")
    options = parser.parse_args()
    logging.getLogger("bayeslmm").setLevel(logging.WARNING)
    mice = bl.datasets.mouse_hs1940()
    model = bl.LMM("cd8 ~ 1", mice.phenotypes, bl.grm(mice.genotypes, progress=False))
    genotypes = mice.genotypes.select(samples=model.ids, min_maf=0.01)
    used = np.arange(genotypes.n_variants) % options.stride == 0
    genotypes = genotypes.select(variants=used)
    block = genotypes.centered_block(0, genotypes.n_variants, np.float64)
    x = model.basis.rotate(np.ascontiguousarray(block.x.T)).T
    rng = np.random.default_rng(1)
    print(f"{len(x):,} variants, {options.replicates:,} phenotypes; rejected / nominal (SE)")
    print("| h2 | test | phenotypes | " + " | ".join(f"{level:g}" for level in LEVELS) + " |")
    for h2 in options.h2:
        start = time.perf_counter()
        Y = simulated(model.basis, h2, options.replicates, rng)
        rotated = model.basis.rotate(Y)
        nulls = ManyNulls(model, rotated, x.dtype)
        zero = nulls.log_ratio <= LOG_RANGE[0] + 1e-6
        tests = {
            "F at the true ratio": at_known_ratio(model, rotated, x, h2),
            "REML ratio of the null": log10_p_f(nulls.f_statistics(x), nulls.df),
            "exact Wald": exact_wald(model, Y, genotypes),
        }
        print(f"h2 = {h2:g}: REML ratio 0 in {zero.mean():.3f} of the phenotypes")
        for name, p in tests.items():
            for which, chosen in (("all", zero | ~zero), ("ratio 0", zero), ("above 0", ~zero)):
                if chosen.any():
                    cells = rejected(p[:, chosen])
                    print(f"| {h2:g} | {name} | {which}: {chosen.sum():,} | {cells} |", flush=True)
        if options.gemma:
            means = np.asarray(block.eaf)[:, None] * 2
            for i in range(_FOR_GEMMA):
                theirs = by_gemma(options.gemma, model, Y[:, i], block.x + means)
                ours = tests["exact Wald"][:, i]
                apart = np.nanmax(np.abs(theirs - ours))
                shares = [(p < np.log10(0.05)).mean() for p in (theirs, ours)]
                print(
                    f"  GEMMA, phenotype {i}, log ratio {nulls.log_ratio[i]:.2f}: log10 p differs "
                    f"by {apart:.1e} at most, {np.isnan(theirs).sum()} missing; "
                    "p < 0.05: {:.4f}, ours {:.4f}".format(*shares)
                )
        print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
