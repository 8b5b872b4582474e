"""Type-I error of every test of the scan at 0.05 to 1e-5, on the genotypes of the mice.

    python tests/benchmarks/type_one_levels.py --out NAME [--replicates 2000] [--seconds 600]

Null phenotypes with u ~ N(0, s2_g K) at h2 = 0, 0.3 and 0.6, all variants: the F test at the true
ratio of variances, p3d, p3d whose ratio may be negative, exact Wald, LRT and score. The exact tests
are made where p3d has p < 0.15; the first of each hundred phenotypes says how many variants below
0.05 that misses (none was). Writes NAME.csv (rejected over nominal share, its standard error over
phenotypes, rejections of one variant drawn for each) and NAME.npz (counts).
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace

import numpy as np
import pandas as pd

import bayeslmm as bl
from bayeslmm.genome.scanner import Scanner
from bayeslmm.genome.thresholds import ManyNulls
from bayeslmm.numerics.chebyshev import cardinal, chebyshev
from bayeslmm.numerics.nodes import maximise_on_nodes
from bayeslmm.numerics.tails import log10_p_f

LEVELS = np.array([0.05, 1e-2, 1e-3, 1e-4, 1e-5])
BATCH = 100
NODES = 14


def simulated(basis, h2, replicates, rng):
    d = np.sqrt(h2 * basis.values / basis.kappa + 1 - h2)
    return basis.unrotate(d[:, None] * rng.standard_normal((len(d), replicates)))


def at_ratio(data, Y, x, ratio, dtype=np.float64):
    """F test at one ratio r (V ~ r s + 1)."""
    root = 1 / np.sqrt(1 + ratio * data.s)
    q, _ = np.linalg.qr(data.C * root[:, None])
    Yw, xw = Y * root[:, None], x * root.astype(x.dtype)
    Yw = Yw - q @ (q.T @ Yw)
    xw = xw - (xw @ q.astype(x.dtype)) @ q.T.astype(x.dtype)
    explained = (xw @ Yw.astype(x.dtype)).astype(float) ** 2 / np.einsum("vn,vn->v", xw, xw)[
        :, None
    ]
    f = explained / (((Yw * Yw).sum(axis=0) - explained) / (data.df - 1))
    return log10_p_f(f, data.df - 1)


class Free:
    """F tests whose ratio may be negative: V ~ 1 - sigma + sigma e^u, sigma = s / s_max.

    Any u gives a variance; u = 0 is a ratio of 0. The weights are as smooth in u as in log r.
    """

    def __init__(self, data, x):
        self.data, self.square = data, x * x
        self.sigma = data.s / data.s.max()
        self.low, panels = -4.0, 5
        self.centers = self.low + 1.5 + 3 * np.arange(panels)

    def ratio(self, u):
        return np.expm1(u) / self.data.s.max()

    def null(self, Y):
        """REML u of each phenotype."""
        data, R = self.data, Y.shape[1]
        best, found = np.full(R, -np.inf), np.empty(R)
        for center in self.centers:
            loglik = np.empty((R, NODES))
            for g, u in enumerate(center + 1.5 * chebyshev(NODES)):
                w = 1 / (1 + np.expm1(u) * self.sigma)
                L = np.linalg.cholesky((data.C.T * w) @ data.C)
                crossed = np.linalg.solve(L, (data.C.T * w) @ Y)
                Q = w @ (Y * Y) - (crossed * crossed).sum(axis=0)
                logdet = -np.log(w).sum() + 2 * np.log(np.diagonal(L)).sum()
                loglik[:, g] = -0.5 * (logdet + data.df * np.log(Q))
            t, value = maximise_on_nodes(loglik, np.ones(R))
            better = value > best
            best[better], found[better] = value[better], center + 1.5 * t[better]
        return found

    def p3d(self, Y, x, u):
        data = self.data
        centers, which = np.unique(np.clip(np.round(u), -3, None), return_inverse=True)
        W = 1 / (1 + np.expm1(u) * self.sigma[:, None])
        WY = W * Y
        A = np.einsum("ni,nr,nj->rij", data.C, W, data.C, optimize=True)
        b = np.linalg.solve(A, (data.C.T @ WY).T[..., None])[..., 0]
        Py = WY - W * (data.C @ b.T)
        Q = (Y * Py).sum(axis=0)
        a = np.empty((len(x), len(u)))
        for i, center in enumerate(centers):
            mine = which == i
            nodes = self.a(x, center + chebyshev(12))
            a[:, mine] = nodes @ cardinal(u[mine] - center, 12).T
        explained = (x @ Py.astype(x.dtype)).astype(float) ** 2 / a
        df = data.df - 1
        return log10_p_f(explained / ((Q - explained) / df), df)

    def a(self, x, u):
        """x'Px at each u, (v, G)."""
        W = 1 / (1 + np.expm1(u) * self.sigma[:, None])
        out = (self.square @ W.astype(x.dtype)).astype(float)
        for g, w in enumerate(W.T):
            L = np.linalg.cholesky((self.data.C.T * w) @ self.data.C)
            half = np.linalg.solve(L, self.data.C.T * w).astype(x.dtype)
            out[:, g] -= np.square(x @ half.T, dtype=float).sum(axis=1)
        return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--h2", type=float, nargs="+", default=[0.0, 0.3, 0.6])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--out", required=True)
    o = parser.parse_args()
    begin = time.perf_counter()
    logging.disable(logging.INFO)
    mice = bl.datasets.mouse_hs1940()
    model = bl.LMM("cd8 ~ 1", mice.phenotypes, bl.grm(mice.genotypes, progress=False))
    genotypes = mice.genotypes.select(samples=model.ids, min_maf=0.01)
    if o.stride > 1:
        genotypes = genotypes.select(variants=np.arange(genotypes.n_variants) % o.stride == 0)
    block = genotypes.centered_block(0, genotypes.n_variants, np.float32)
    x = model.basis.rotate_rows(block.x)
    data = model.rotated
    m = len(x)
    rng = np.random.default_rng(o.seed)
    free = Free(data, x)
    names = ["true ratio", "p3d", "p3d, ratio may be negative", "wald", "lrt", "score"]
    counts = {(h, t): [] for h in o.h2 for t in names}  # per phenotype (5,)
    by_snp = {(h, t): np.zeros((m, 5), dtype=np.int64) for h in o.h2 for t in names}
    one = {(h, t): np.zeros(5, dtype=np.int64) for h in o.h2 for t in names}
    ratios = {h: [] for h in o.h2}
    checked = np.zeros(3)
    print(f"ready {time.perf_counter() - begin:.0f} s, {m} variants", flush=True)

    def note(h, t, p, pick):
        below = p[:, :, None] < np.log10(LEVELS)
        counts[h, t].append(below.sum(axis=0))
        by_snp[h, t] += below.sum(axis=1)
        one[h, t] += below[pick, np.arange(p.shape[1])].sum(axis=0)

    def save():
        rows = []
        for (h, t), parts in counts.items():
            if not parts:
                continue
            c = np.concatenate(parts)
            R = len(c)
            share = c / m / LEVELS
            zero = np.concatenate(ratios[h]) <= 0
            for i, level in enumerate(LEVELS):
                rows.append(
                    {
                        "h2": h,
                        "test": t,
                        "level": level,
                        "phenotypes": R,
                        "variants": m,
                        "at_zero": zero.mean(),
                        "ratio": share[:, i].mean(),
                        "se": share[:, i].std(ddof=1) / np.sqrt(R),
                        "one": one[h, t][i],
                        "total": c[:, i].sum(),
                    }
                )
        pd.DataFrame(rows).to_csv(o.out + ".csv", index=False)
        np.savez_compressed(
            o.out + ".npz",
            **{f"{h}|{t}|snp": by_snp[h, t] for h, t in by_snp},
            **{f"{h}|{t}|phenotype": np.concatenate(v) for (h, t), v in counts.items() if v},
            **{f"{h}|ratio": np.concatenate(v) for h, v in ratios.items() if v},
            levels=LEVELS,
        )

    done = 0
    while done < o.replicates and time.perf_counter() - begin < o.seconds:
        for h in o.h2:
            Y = simulated(model.basis, h, BATCH, rng)
            rotated = model.basis.rotate(Y)
            rotated -= data.C @ (data.C.T @ rotated)
            pick = rng.integers(m, size=BATCH)
            nulls = ManyNulls(model, rotated, x.dtype)
            p3d = log10_p_f(nulls.f_statistics(x), nulls.df)
            zero = nulls.log_ratio <= np.log(1e-5) + 1e-6
            ratios[h].append(np.where(zero, 0.0, np.exp(nulls.log_ratio)))
            note(h, "true ratio", at_ratio(data, rotated, x, h / (1 - h)), pick)
            note(h, "p3d", p3d, pick)
            u = free.null(rotated)
            ratios[h][-1] = free.ratio(u)
            p_free = free.p3d(rotated, x, u)
            note(h, "p3d, ratio may be negative", p_free, pick)
            exact = {t: np.zeros((m, BATCH)) for t in ("wald", "lrt", "score")}
            for i in range(BATCH):
                own = model.with_phenotype(np.ascontiguousarray(Y[:, i]))
                scanner = Scanner(own, ("wald", "lrt", "score"), x.dtype)
                first = i == 0
                near = p3d[:, i] < np.log10(0.15)
                rows = np.arange(m) if first else np.flatnonzero(near)
                part = replace(
                    block,
                    x=block.x[:1],
                    eaf=block.eaf[rows],
                    n_missing=block.n_missing[rows],
                    sum_sq=block.sum_sq[rows],
                    missing=None,
                )
                found = scanner.test(part, x[rows])
                for t in ("wald", "lrt", "score"):
                    exact[t][rows, i] = found[f"log10_{t}"]
                if first:
                    # None of the variants that are left out for the others is below 0.05.
                    for k, t in enumerate(exact):
                        checked[k] += (exact[t][~near, i] < np.log10(0.05)).sum()
            for t, p in exact.items():
                note(h, t, p, pick)
        done += BATCH
        save()
        print(
            done,
            f"{time.perf_counter() - begin:.0f} s",
            "missed by the filter",
            checked,
            flush=True,
        )


if __name__ == "__main__":
    main()
