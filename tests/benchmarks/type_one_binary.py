"""Type-I error of the scans of cases and controls, at 1:1, 1:10 and 1:100, on related mice.

    python tests/benchmarks/type_one_binary.py [--replicates 25] [--seed 1] [--h2 0.5]
        [--designs 1:1 1:10 1:100 19/19 19/190] [--outside] [--counts counts.json]
        [--seconds 240]
    python tests/benchmarks/type_one_binary.py --rare 30000

Liabilities are polygenic (u ~ N(0, h2 K / kappa), K of all variants of the mice), with no further
effect of any variant. In the design 1:10 the eleventh with the largest are cases, and all others
controls; in 19/190 the 19 with the largest, and 190 of the others: is it the ratio that matters, or
the number of cases? Every eighth polymorphic variant is tested, by

    spa       the mixed model, tails by saddlepoint (what bl.scan gives)
    score     the same score with normal tails
    scaled    the same with SAIGE's saddlepoint, the score of independent labels scaled
    plain     logistic regression without relatedness, score test with saddlepoint

With `--outside` variants of chromosomes 1 to 5 are tested, and K, for simulation and test, is of
the others.

A test that holds its error rejects the share that it says. `--counts` adds to the counts of
earlier runs (other seeds) in a file, after every phenotype, and prints the sum. `--rare` tests so
many independent rare variants (MAF 0.2 to 2%) of 5,000 unrelated samples instead, where the tails
decide.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from pathlib import Path

import numpy as np
from scipy.special import chdtri

import bayeslmm as bl
from bayeslmm.binary.logistic import NullLogistic, fit_null
from bayeslmm.binary.mixed import fit_pql
from bayeslmm.numerics import saddlepoint
from bayeslmm.numerics.tails import log10_p_chi2

LEVELS = (0.05, 1e-2, 1e-3, 1e-4)
RATIOS = (1, 10, 100)


def tails(z: np.ndarray, log10_p_of) -> np.ndarray:
    """log10 p: normal, and by `log10_p_of(rows)` beyond the cutoff."""
    out = log10_p_chi2(z * z)
    rows = np.flatnonzero(np.abs(z) > 2)
    if len(rows):
        out[rows] = log10_p_of(rows)
    return out


def plain(null: NullLogistic, dosage: np.ndarray) -> np.ndarray:
    x = null.project(dosage)
    score, variance = null.score(x)
    z = score / np.sqrt(variance)
    return tails(z, lambda i: saddlepoint.log10_p_two_sided(x[i], null.mu, score[i]))


def one(C: np.ndarray, K: np.ndarray, y: np.ndarray, dosage: np.ndarray) -> dict[str, np.ndarray]:
    """log10 p of all variants by every method."""
    mixed = fit_pql(y, C, K)
    null = mixed.null
    x = null.project(dosage)
    score, information = null.score(x)
    variance, Px = mixed.variance(x)
    z = score / np.sqrt(variance)
    a = Px / null.w

    def spa(i: np.ndarray) -> np.ndarray:
        rest = variance[i] - np.einsum("ij,ij,j->i", a[i], a[i], null.w)
        return saddlepoint.log10_p_two_sided(a[i], null.mu, score[i], np.maximum(rest, 0))

    def scaled(i: np.ndarray) -> np.ndarray:
        at = z[i] * np.sqrt(information[i])
        return saddlepoint.log10_p_two_sided(x[i], null.mu, at)

    return {
        "spa": tails(z, spa),
        "score": log10_p_chi2(z * z),
        "scaled": tails(z, scaled),
        "plain": plain(fit_null(y, C), dosage),
    }


def sample_of(
    design: str, liability: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Who is in the sample, and 1 for its cases: the most liable."""
    n = len(liability)
    y, order = np.zeros(n), np.argsort(-liability)
    if ":" in design:
        case, control = (int(part) for part in design.split(":"))
        y[order[: round(n * case / (case + control))]] = 1
        return np.arange(n), y
    n_cases, n_controls = (int(part) for part in design.split("/"))
    y[order[:n_cases]] = 1
    chosen = np.concatenate([order[:n_cases], rng.permutation(order[n_cases:])[:n_controls]])
    chosen.sort()
    return chosen, y[chosen]


def rare(m: int, rng: np.random.Generator) -> None:
    """Rejected / nominal of rare variants without relatedness, each with its standard error."""
    n = 5000
    p = rng.uniform(0.002, 0.02, m)
    x = (rng.random((n, m), dtype=np.float32) < p).astype(np.int8)
    x += rng.random((n, m), dtype=np.float32) < p
    genotypes = bl.Genotypes.from_array(x)
    print("| cases : controls | test | " + " | ".join(f"{level:g}" for level in LEVELS[:3]) + " |")
    for ratio in RATIOS:
        case = np.zeros(n)
        case[rng.permutation(n)[: round(n / (1 + ratio))]] = 1
        model = bl.LMM(case)
        fitted = model.scan(genotypes, ("score", "spa"), family="binomial")
        # Every fifth variant: nearly all of them need Firth's penalty.
        fifth = genotypes.select(variants=np.arange(m) % 5 == 0)
        firth = model.scan(fifth, "wald", family="binomial")
        columns = {
            "score": np.log10(fitted.p_score),
            "spa": np.log10(fitted.p_spa),
            "wald, Firth where alleles are few": -firth.neg_log10_p,
        }
        for name, log10_p in columns.items():
            shares = [(log10_p < np.log10(level)).mean() for level in LEVELS[:3]]
            cells = [
                f"{share / level:.2f} ± {2.576 * np.sqrt(share / len(log10_p)) / level:.2f}"
                for share, level in zip(shares, LEVELS, strict=False)
            ]
            print(f"| 1 : {ratio} | {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--h2", type=float, default=0.5)
    parser.add_argument("--designs", nargs="+", default=["1:1", "1:10", "1:100"])
    parser.add_argument("--outside", action="store_true", help="K without chromosomes 1 to 5")
    parser.add_argument("--counts", type=Path)
    parser.add_argument("--seconds", type=float, default=np.inf, help="begin none later")
    parser.add_argument("--rare", type=int, default=0, help="variants; no relatedness")
    options = parser.parse_args()
    if options.rare:
        rare(options.rare, np.random.default_rng(options.seed))
        return
    logging.getLogger("bayeslmm").setLevel(logging.WARNING)
    mice = bl.datasets.mouse_hs1940()
    n = mice.genotypes.n_samples
    rng = np.random.default_rng(options.seed)
    start = mice.phenotypes.assign(y=rng.standard_normal(n))
    tested, kernel = mice.genotypes, bl.grm(mice.genotypes)
    if options.outside:
        first = mice.genotypes.variants.chrom.astype(str).isin(list("12345")).to_numpy()
        tested = mice.genotypes.select(variants=first)
        kernel = bl.grm(mice.genotypes.select(variants=~first))
    model = bl.LMM("y ~ sex", start, kernel)
    basis = model.basis
    genotypes = tested.select(samples=model.ids)
    block = genotypes.centered_block(0, genotypes.n_variants, np.float64)
    dosage = block.x[np.flatnonzero(block.sum_sq > 0)[::8]]
    K = (basis.vectors * basis.values) @ basis.vectors.T
    C = model.C.to_numpy(dtype=np.float64)
    spread = np.sqrt(basis.values * options.h2 / basis.kappa)
    counts: dict[str, list] = {}
    if options.counts is not None and options.counts.exists():
        counts = json.loads(options.counts.read_text())
    begin = time.perf_counter()
    for _, design in itertools.product(range(options.replicates), options.designs):
        if time.perf_counter() - begin > options.seconds:
            break
        u = basis.unrotate(spread * rng.standard_normal(n))
        liability = u + np.sqrt(1 - options.h2) * rng.standard_normal(n)
        chosen, y = sample_of(design, liability, rng)
        x = dosage[:, chosen]
        x = x - x.mean(axis=1, keepdims=True)
        x = x[(x * x).sum(axis=1) > 1e-9]
        for name, log10_p in one(C[chosen], K[np.ix_(chosen, chosen)], y, x).items():
            row = [float((log10_p < np.log10(level)).mean()) for level in LEVELS]
            factor = float(chdtri(1, 10 ** np.median(log10_p)) / chdtri(1, 0.5))
            counts.setdefault(f"{options.h2} {design} {name}", []).append([*row, factor])
        if options.counts is not None:
            options.counts.write_text(json.dumps(counts))
    print(f"{len(dosage):,} variants; rejected / nominal with 99% intervals over phenotypes")
    print(
        "| h2 | cases, controls | phenotypes | test | "
        + " | ".join(f"{x:g}" for x in LEVELS)
        + " | lambda |"
    )
    print("| " + " --- |" * (5 + len(LEVELS)))
    for key, rows in counts.items():
        h2, design, name = key.split()
        shares = np.array(rows)
        error = 2.576 * shares.std(axis=0, ddof=1) / np.sqrt(len(shares))
        cells = [
            f"{shares[:, j].mean() / level:.2f} ± {error[j] / level:.2f}"
            for j, level in enumerate(LEVELS)
        ]
        print(
            f"| {h2} | {design} | {len(rows)} | {name} | {' | '.join(cells)} "
            f"| {shares[:, -1].mean():.3f} |"
        )


if __name__ == "__main__":
    main()
