"""The liability model and PCGC against the truth: what docs/binary-traits.md reports.

    python docs/scripts/liability.py calibration     # SBC: 200 data sets, a minute
    python docs/scripts/liability.py ascertainment   # 80 samples of 300, a minute
    python docs/scripts/liability.py reliability     # risks of new samples, 1 minute
    python docs/scripts/liability.py nuts            # beside NUTS on the PyMC form, n = 200

Figures go to docs/figures, tables to the terminal.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as bl
from bayeslmm import plots
from bayeslmm.model.calibration import reliability_table

FIGURES = Path(__file__).parents[1] / "figures"


def sibs(families: int, size: int = 4) -> np.ndarray:
    """Relatedness of full sibs."""
    return np.kron(np.eye(families), np.full((size, size), 0.5) + 0.5 * np.eye(size))


def case_control_sample(
    n: int, m: int, h2: float, prevalence: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Half cases of a population, exactly: K of m normal genotypes, and who is a case.

    Liabilities are drawn given the status, genetic values given liabilities, genotypes
    given genetic values: no one is simulated in vain.
    """
    from scipy.special import ndtri

    effects = rng.normal(size=m)
    effects *= np.sqrt(h2) / np.linalg.norm(effects)
    case = np.arange(n) < n // 2
    v = 1 - rng.random(n)
    liability = np.where(case, -ndtri(v * prevalence), ndtri(v * (1 - prevalence)))
    genetic = h2 * liability + np.sqrt(h2 * (1 - h2)) * rng.normal(size=n)
    Z = rng.normal(size=(n, m))
    Z += np.outer((genetic - Z @ effects) / h2, effects)
    return Z @ Z.T / m, case


def calibration(replicates: int = 200) -> None:
    """Ranks of the truth on 15 families of four, with a covariate."""
    rng = np.random.default_rng(1)
    K = sibs(15)
    model = bl.LiabilityLMM(rng.random(60) < 0.5, rng.normal(size=(60, 1)), K, b_sd=1.0)
    check = model.calibrate(replicates=replicates, draws=49, seed=1)
    print(check)
    check.plot().figure.savefig(FIGURES / "calibration_liability.png", dpi=110)


def ascertainment(replicates: int = 20, n: int = 300, m: int = 300) -> None:
    """Estimates of h2 under case-control sampling, by three methods, against the truth."""
    rng = np.random.default_rng(1)
    rows, inside = [], []
    designs = [(prevalence, h2) for prevalence in (0.01, 0.1) for h2 in (0.2, 0.5)]
    for prevalence, h2 in replicates * designs:
        K, case = case_control_sample(n, m, h2, prevalence, rng)
        model = bl.LiabilityLMM(case, kernel=K, prevalence=prevalence)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draws = model.sample(draws=150, tune=100, seed=1, latent=0, progress=False)
        scales = model.scales(draws).drop("observed")
        rows.append({"prevalence": prevalence, "h2": h2} | scales["mean"].to_dict())
        inside.append((scales.low <= h2) & (h2 <= scales.high))
        print(prevalence, h2, scales["mean"].round(3).to_dict(), file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    for (prevalence, h2), own in table.groupby(["prevalence", "h2"]):
        for method in ("liability", "transformed", "pcgc"):
            error = own[method] - h2
            square = error**2
            rmse = np.sqrt(square.mean())
            root = np.sqrt(len(own))
            held = sum(inside[i][method] for i in own.index)
            print(
                f"| {100 * prevalence:g}% | {h2:g} | {method} | {own[method].mean():.3f} "
                f"({error.std() / root:.3f}) | {rmse:.3f} ({square.std() / root / (2 * rmse):.3f}) "
                f"| {held} of {len(own)} |",
                flush=True,
            )
    plots.ascertainment(table).figure.savefig(FIGURES / "ascertainment.png", dpi=110)


def reliability() -> None:
    """Risks of sibs that were not analysed, over four cohorts of a random sample."""
    from scipy.special import ndtri

    rng = np.random.default_rng(2)
    K, ids = sibs(300, 5), [f"s{i}" for i in range(1500)]
    root = np.linalg.cholesky(sibs(1, 5))
    risk, case = [], []
    for _ in range(4):
        u = (rng.normal(size=(300, 5)) @ root.T).ravel() * np.sqrt(0.7)
        y = u + np.sqrt(0.3) * rng.normal(size=1500) > -ndtri(0.25)
        seen = pd.DataFrame({"case": np.where(np.arange(1500) % 5 < 4, y * 1.0, np.nan)}, ids)
        model = bl.LiabilityLMM("case ~ 1", seen, bl.GRM(K, samples=ids))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draws = model.sample(draws=300, tune=100, seed=1)
        others = [i for i in ids if i not in model.ids]
        risk.append(model.predict(draws, samples=others).risk.to_numpy())
        case.append(y[4::5])
    axes = plots.reliability(np.concatenate(risk), np.concatenate(case))
    axes.figure.savefig(FIGURES / "reliability.png", dpi=110)
    table = reliability_table(np.concatenate(risk), np.concatenate(case))
    print(table.round(3).to_string())


def nuts() -> None:
    """Gibbs and NUTS on the same 200 sibs."""
    from arviz_stats.base import array_stats

    rng = np.random.default_rng(3)
    K = sibs(50)
    u = np.linalg.cholesky(0.6 * K) @ rng.normal(size=200)
    y = u + np.sqrt(0.4) * rng.normal(size=200) > 0.3
    model = bl.LiabilityLMM(y, rng.normal(size=(200, 1)), K)
    start = time.perf_counter()
    gibbs = model.sample(draws=3000, seed=1)
    middle = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = bl.sample_model(model.pymc_model(), draws=700, tune=400, chains=4, seed=1)
    for name, source, seconds in (
        ("Gibbs", gibbs, middle - start),
        ("NUTS", tree, time.perf_counter() - middle),
    ):
        h2, b = source["posterior"]["h2"].to_numpy(), source["posterior"]["b"].to_numpy()
        ess = float(array_stats.ess(h2))
        print(
            f"{name}: h2 {h2.mean():.4f} (sd {h2.std():.4f}, MCSE {h2.std() / np.sqrt(ess):.4f}, "
            f"quantiles {np.quantile(h2, [0.05, 0.5, 0.95]).round(3)}), "
            f"b {b.mean((0, 1)).round(3)} (sd {b.std((0, 1)).round(3)}), ESS {ess:.0f}, "
            f"{seconds:.0f} s"
        )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        {
            "calibration": calibration,
            "ascertainment": ascertainment,
            "reliability": reliability,
            "nuts": nuts,
        }[name]()
