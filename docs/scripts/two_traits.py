"""Coverage and calibration of the genetic correlation, and NUTS beside it: docs/two-traits.md.

    python docs/scripts/two_traits.py coverage --n 1197 --repeats 400 --seed 1 --out one.csv
    python docs/scripts/two_traits.py coverage-table one.csv [two.csv ...]
    python docs/scripts/two_traits.py calibration [--repeats 1000]
    python docs/scripts/two_traits.py nuts
    python docs/scripts/two_traits.py figures [--out docs/figures]

Phenotypes of the first three are drawn on the eigenbasis of the mice, pair by pair.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as bl
from bayeslmm.bivariate import likelihood as biv
from bayeslmm.model.calibration import Calibration
from bayeslmm.model.tables import interval
from bayeslmm.priors import CorrelationPrior, uniform

FLAT = biv.PairPrior((uniform(), uniform()), CorrelationPrior(), CorrelationPrior())


def mice_with_both(n: int | None = None, **options) -> bl.BivariateLMM:
    mice = bl.datasets.mouse_hs1940()
    table = mice.phenotypes.dropna(subset=["cd8", "mch"])
    if n is not None:
        table = table.sample(n, random_state=1)
    return bl.BivariateLMM(["cd8 ~ 1", "mch ~ 1"], table, bl.grm(mice.genotypes), **options)


def phenotypes(
    data: biv.PairData, theta: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rotated phenotypes of both traits at a theta."""
    A, B = biv.covariances(theta)
    one, between, two = (A[j] * data.s + B[j] for j in range(3))
    z1, z2 = rng.standard_normal((2, len(data.s)))
    y1 = np.sqrt(one) * z1
    return y1, between / one * y1 + np.sqrt(np.maximum(two - between**2 / one, 0)) * z2


# What is simulated in turn: values of rg, and draws of all parameters from their prior (NaN).
TURNS = (0.9, -0.9, 0.9, -0.9, 0.0, 0.5, np.nan, np.nan)


def coverage(
    n: int, repeats: int, seconds: float, seed: int, out: Path, turns: tuple[float, ...] = TURNS
) -> None:
    """One row for each phenotype: truth, posterior and REML; as `BivariateLMM.rg` has them.

    At fixed rg the other values are h2 0.6 and 0.5, re 0.2.
    """
    data = mice_with_both(None if n == 1197 else n).data
    rng, start = np.random.default_rng([n, seed]), time.monotonic()
    rows = []
    for r in range(repeats):
        rg = turns[r % len(turns)]
        fixed = np.isfinite(rg)
        truth = np.array([0.6, 0.5, rg, 0.2, 0.0])
        if not fixed:
            truth = np.array([*rng.uniform(size=2), *rng.uniform(-1, 1, 2), 0.0])
        one = data.with_y(phenotypes(data, truth, rng))
        best = biv.maximise(one)
        found = biv.draw_posterior(one, FLAT, 4000, rng, start=best.theta)
        draws = found.theta[:, 2]
        low, high = interval(draws)
        q_low, q_high = np.quantile(draws, [0.025, 0.975])
        se = np.nan if best.covariance is None else np.sqrt(best.covariance[2, 2])
        rows.append(
            {"n": n, "fixed": fixed, "rg": truth[2], "low": low, "high": high, "q_low": q_low}
            | {"q_high": q_high, "mean": draws.mean(), "reml": best.theta[2], "se": se}
            | {"at_limit": "rg" in best.at_limit, "k_hat": found.k_hat, "ess": found.ess}
            | {"sampler": found.sampler.split(",")[0]}
        )
        done = r == repeats - 1 or time.monotonic() - start > seconds
        if done or r % 50 == 49:
            pd.DataFrame(rows).to_csv(out, index=False)
        if done:
            break


def coverage_table(files: list[Path]) -> None:
    """Print the table of docs/two-traits.md."""
    rows = pd.concat([pd.read_csv(file) for file in files])
    rows["what"] = np.where(rows.fixed, rows.rg.astype(str), "from the prior")
    near_1 = rows[~rows.fixed & (rows.rg.abs() > 0.8)].assign(what="from the prior, |rg| > 0.8")
    rows = pd.concat([rows, near_1])
    table = {}
    for key, t in rows.groupby(["n", "what"]):
        given = t[t.se.notna()]
        covered = ((t.low <= t.rg) & (t.rg <= t.high)).mean()
        table[key] = {
            "replicates": len(t),
            "covered": covered,
            "se": np.sqrt(covered * (1 - covered) / len(t)),
            "central": ((t.q_low <= t.rg) & (t.rg <= t.q_high)).mean(),
            "width": (t.high - t.low).mean(),
            "REML": ((given.reml - given.rg).abs() < 1.96 * given.se).mean(),
            "at limit": t.at_limit.mean(),
            "rmse": np.sqrt(((t["mean"] - t.rg) ** 2).mean()),
            "rmse REML": np.sqrt(((t.reml - t.rg) ** 2).mean()),
            "largest k": t.k_hat.max(),
            "smallest ess": t.ess.min(),
            "Metropolis": (t.sampler == "Metropolis").sum(),
        }
    print(pd.DataFrame(table).T.round(3).to_string())


def calibration(repeats: int, draws: int = 99) -> None:
    """Ranks of true values drawn from the prior, 150 mice: uniform if the posterior is right."""
    data, rng = mice_with_both(150).data, np.random.default_rng(3)
    ranks = np.empty((repeats, 5))
    inside = np.empty((repeats, 4))
    for r in range(repeats):
        theta = np.array([*rng.uniform(size=2), *rng.uniform(-1, 1, 2), 0.0])
        one = data.with_y(phenotypes(data, theta, rng))
        found = biv.draw_posterior(one, FLAT, 990, rng, start=theta)
        ranks[r] = (found.theta[::10] < theta).sum(axis=0)
        for j in range(4):
            low, high = interval(found.theta[:, j])
            inside[r, j] = low <= theta[j] <= high
    names = ["h2 1", "h2 2", "rg", "re", "log ratio"]
    check = Calibration(pd.DataFrame(ranks, columns=names), draws, "two traits, 150 mice")
    print(check)
    print("95% intervals cover", dict(zip(names, inside.mean(axis=0).round(4), strict=False)))


def nuts() -> None:
    """The model from its definition, full covariance matrix, flat priors, by NUTS."""
    import pymc as pm
    import pytensor.tensor as pt

    from bayeslmm.generative.nuts import Density

    pair = mice_with_both(60)
    Y, n = pair.y.to_numpy(), 60
    K = (pair.basis.vectors * pair.basis.values) @ pair.basis.vectors.T / pair.basis.kappa
    with pm.Model() as model:
        h = pm.Uniform("h1", 0, 1), pm.Uniform("h2", 0, 1)
        rg, re = pm.Uniform("rg", -1, 1), pm.Uniform("re", -1, 1)
        log_sd = pm.Flat("log_sd1", initval=0.0), pm.Flat("log_sd2", initval=0.0)
        b = pm.Flat("b1", initval=0.0), pm.Flat("b2", initval=0.0)

        def block(i: int, j: int):
            scale = pt.exp(log_sd[i] + log_sd[j])
            genetic = pt.sqrt(h[i] * h[j]) * (1 if i == j else rg)
            residual = pt.sqrt((1 - h[i]) * (1 - h[j])) * (1 if i == j else re)
            return scale * (genetic * K + residual * np.eye(n))

        rows = [pt.concatenate([block(i, 0), block(i, 1)], axis=1) for i in (0, 1)]
        mean = pt.concatenate([b[i] * np.ones(n) for i in (0, 1)])
        pm.MvNormal("y", mean, pt.concatenate(rows, axis=0), observed=Y.T.ravel())
    names = ["h1", "h2", "rg", "re", "log_sd1", "log_sd2"]
    draws, _ = Density(model, names).sample(chains=4, seed=1, draws=1000, tune=500)
    exact = pair.draw(20_000, seed=2)
    log_sd1 = 0.5 * np.log(exact.scale)
    ours = [*exact.theta[:, :4].T, log_sd1, log_sd1 + 0.5 * exact.theta[:, 4]]
    rows = {}
    for name, value in zip(names, ours, strict=True):
        theirs = draws[name]
        rows[name] = {"mean": value.mean(), "NUTS": theirs.mean(), "sd": value.std()}
        rows[name] |= {"NUTS sd": theirs.std()}
        for q in (0.05, 0.95):
            rows[name] |= {f"q{q}": np.quantile(value, q), f"NUTS q{q}": np.quantile(theirs, q)}
    print(pd.DataFrame(rows).T.round(3).to_string())


def figures(out: Path) -> None:
    from matplotlib.figure import Figure

    from bayeslmm import plots

    report = mice_with_both().rg(20_000, seed=1)
    figure = Figure(figsize=(12.6, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.35, 1, 1])
    plots.rg(report, ax=left)
    plots.two_traits(report, ax=middle)
    plots.two_traits(report, "h2", ax=right)
    figure.savefig(out / "two_traits.png", dpi=130)
    print(report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = ["coverage", "coverage-table", "calibration", "nuts", "figures"]
    parser.add_argument("what", choices=names)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--n", type=int, choices=[1197, 300], default=1197)
    parser.add_argument("--rg", type=float, nargs="*", default=TURNS, help="nan: from the prior")
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.what == "coverage":
        out = options.out or Path("coverage.csv")
        turns = tuple(options.rg)
        coverage(options.n, options.repeats, options.seconds, options.seed, out, turns)
    elif options.what == "coverage-table":
        coverage_table(options.files)
    elif options.what == "calibration":
        calibration(options.repeats)
    elif options.what == "nuts":
        nuts()
    else:
        figures(options.out or Path("docs/figures"))


if __name__ == "__main__":
    main()
