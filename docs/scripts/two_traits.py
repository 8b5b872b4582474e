"""Coverage and calibration of the genetic correlation, and NUTS beside it: docs/two-traits.md.

    python docs/scripts/two_traits.py coverage [--repeats 400]   # a few minutes
    python docs/scripts/two_traits.py calibration [--repeats 1000]
    python docs/scripts/two_traits.py nuts
    python docs/scripts/two_traits.py figures [--out docs/figures]

Phenotypes of the first two are drawn on the eigenbasis of the mice, pair by pair.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import bayeslmm as bl
from bayeslmm import plots
from bayeslmm.bivariate import likelihood as biv
from bayeslmm.generative.nuts import Density
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


def coverage(repeats: int) -> None:
    rows = []
    for n in (1197, 300):
        data = mice_with_both(None if n == 1197 else n).data
        for rg in (0.0, 0.5, 0.9, -0.9):
            rng = np.random.default_rng([n, int(100 * abs(rg))])
            truth = np.array([0.6, 0.5, rg, 0.2, 0.0])
            covered = reml = limit = given = 0
            errors = np.empty((repeats, 2))
            width, worst_k, fewest = 0.0, -np.inf, np.inf
            for r in range(repeats):
                one = data.with_y(phenotypes(data, truth, rng))
                found = biv.draw_posterior(one, FLAT, 1000, rng, start=truth)
                low, high = interval(found.theta[:, 2])
                covered += low <= rg <= high
                width += (high - low) / repeats
                worst_k, fewest = max(worst_k, found.k_hat), min(fewest, found.ess)
                best = biv.maximise(one, start=truth)
                limit += "rg" in best.at_limit
                errors[r] = found.theta[:, 2].mean() - rg, best.theta[2] - rg
                if best.covariance is not None:
                    given += 1
                    reml += abs(best.theta[2] - rg) < 1.96 * np.sqrt(best.covariance[2, 2])
            rmse = np.sqrt((errors**2).mean(axis=0))
            rows.append(
                {
                    "n": n,
                    "rg": rg,
                    "posterior": covered / repeats,
                    "width": width,
                    "REML +- 1.96 SE, where it has one": reml / max(given, 1),
                    "REML at +-1": limit / repeats,
                    "rmse posterior mean": rmse[0],
                    "rmse REML": rmse[1],
                    "largest k-hat": worst_k,
                    "smallest ess": fewest,
                }
            )
            print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=len(rows) == 1))


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
    report = mice_with_both().rg(20_000, seed=1)
    figure = Figure(figsize=(12.6, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.35, 1, 1])
    plots.rg(report, ax=left)
    plots.two_traits(report, ax=middle)
    plots.two_traits(report, "h2", ax=right)
    figure.savefig(out / "two_traits.png", dpi=130)
    print(report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["coverage", "calibration", "nuts", "figures"])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    if options.what == "coverage":
        coverage(options.repeats)
    elif options.what == "calibration":
        calibration(options.repeats)
    elif options.what == "nuts":
        nuts()
    else:
        figures(options.out)


if __name__ == "__main__":
    main()
