"""The liability model and PCGC against the truth: what docs/binary-traits.md reports.

    python docs/scripts/liability.py ascertainment --seed 1 --out runs/ascertainment_1.csv
    python docs/scripts/liability.py moments --seed 1 --out runs/moments_1.csv
    python docs/scripts/liability.py calibration --seed 1 --out runs/calibration_1.csv
    python docs/scripts/liability.py reliability --seed 1 --out runs/reliability_1.csv
    python docs/scripts/liability.py figures runs
    python docs/scripts/liability.py nuts            # beside NUTS on the PyMC form, n = 200

The first four simulate for `--seconds` (240) and write every twentieth replicate; runs of other
seeds are other files. `figures` pools what is in a folder: figures go to docs/figures, tables to
the terminal.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as bl

FIGURES = Path(__file__).parents[1] / "figures"
METHODS = ("transformed", "liability", "pcgc")
DESIGNS = tuple(itertools.product((0.01, 0.1), (0.2, 0.5)))  # prevalence, h2
CALIBRATION_DRAWS = 49


def sibs(families: int, size: int = 4) -> np.ndarray:
    """Relatedness of full sibs."""
    return np.kron(np.eye(families), np.full((size, size), 0.5) + 0.5 * np.eye(size))


def case_control_genotypes(
    n: int, m: int, h2: float, prevalence: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half cases of a population, exactly: m normal genotypes, who is a case, and effects.

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
    return Z, case, effects


def calibration(seed: int) -> Iterator[pd.DataFrame]:
    """Ranks of the truth on 15 families of four, with a covariate; 20 data sets at a time."""
    rng = np.random.default_rng(1)
    model = bl.LiabilityLMM(rng.random(60) < 0.5, rng.normal(size=(60, 1)), sibs(15), b_sd=1.0)
    for part in itertools.count():
        check = model.calibrate(
            replicates=20, draws=CALIBRATION_DRAWS, seed=1000 * seed + part, progress=False
        )
        yield check.ranks


def ascertainment(seed: int, n: int = 500, m: int = 500) -> Iterator[pd.DataFrame]:
    """Estimates of h2 under case-control sampling, by three methods, against the truth."""
    rng = np.random.default_rng(seed)
    while True:
        for prevalence, h2 in DESIGNS:
            Z, case, _ = case_control_genotypes(n, m, h2, prevalence, rng)
            model = bl.LiabilityLMM(case, kernel=Z @ Z.T / m, prevalence=prevalence)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                draws = model.sample(draws=60, tune=20, seed=1, latent=0, progress=False)
            scales = model.scales(draws)
            row = {"prevalence": prevalence, "h2": h2, "n": n}
            for name in METHODS:
                own = scales.loc[name]
                row |= {name: own["mean"], f"{name}_low": own.low, f"{name}_high": own.high}
            yield pd.DataFrame([row])


def moments(seed: int, n: int = 500, m: int = 500) -> Iterator[pd.DataFrame]:
    """PCGC alone, which takes no time, on more samples."""
    rng = np.random.default_rng(seed)
    while True:
        for prevalence, h2 in DESIGNS:
            Z, case, _ = case_control_genotypes(n, m, h2, prevalence, rng)
            fit = bl.pcgc(bl.LMM(case * 1.0, kernel=Z @ Z.T / m), prevalence)
            row = {"prevalence": prevalence, "h2": h2, "n": n, "pcgc": fit.h2}
            yield pd.DataFrame([row | {"pcgc_low": fit.low, "pcgc_high": fit.high}])


def reliability(seed: int) -> Iterator[pd.DataFrame]:
    """Predicted risks of people who were not analysed, and who became a case."""
    rng = np.random.default_rng(seed)
    while True:
        yield _sib_cohort(rng).assign(design="random sample")
        yield _case_control_cohort(rng).assign(design="case-control sample")


def _sib_cohort(rng: np.random.Generator) -> pd.DataFrame:
    """Families of five of a random sample, 25% cases, h2 0.7: the risk of the fifth."""
    from scipy.special import ndtri

    u = (rng.normal(size=(300, 5)) @ np.linalg.cholesky(sibs(1, 5)).T).ravel() * np.sqrt(0.7)
    y = u + np.sqrt(0.3) * rng.normal(size=1500) > -ndtri(0.25)
    return _risks(y, sibs(300, 5), np.arange(1500) % 5 < 4, None)


def _case_control_cohort(rng: np.random.Generator) -> pd.DataFrame:
    """Half cases of a prevalence of 10%, h2 0.5: the risk of 500 others of the population."""
    from scipy.special import ndtri

    n, others, m = 1000, 500, 100
    Z, case, effects = case_control_genotypes(n, m, 0.5, 0.1, rng)
    new = rng.normal(size=(others, m))
    later = new @ effects + np.sqrt(0.5) * rng.normal(size=others) > -ndtri(0.1)
    Z = np.vstack([Z, new])
    return _risks(np.append(case, later), Z @ Z.T / m, np.arange(n + others) < n, 0.1)


def _risks(
    y: np.ndarray, K: np.ndarray, analysed: np.ndarray, prevalence: float | None
) -> pd.DataFrame:
    ids = np.array([f"s{i}" for i in range(len(y))])
    seen = pd.DataFrame({"case": np.where(analysed, y * 1.0, np.nan)}, ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = bl.LiabilityLMM("case ~ 1", seen, bl.GRM(K, samples=ids), prevalence=prevalence)
        draws = model.sample(draws=150, tune=50, seed=1, progress=False)
    risk = model.predict(draws, samples=ids[~analysed]).risk.to_numpy()
    return pd.DataFrame({"risk": risk, "case": y[~analysed]})


STUDIES = {
    "calibration": calibration,
    "ascertainment": ascertainment,
    "moments": moments,
    "reliability": reliability,
}


def run(study: str, seed: int, seconds: float, out: Path) -> None:
    """Simulate until the time is up; the file holds every replicate that was finished."""
    end, parts = time.monotonic() + seconds, []
    out.parent.mkdir(parents=True, exist_ok=True)
    for replicate, part in enumerate(STUDIES[study](seed)):
        parts.append(part.assign(seed=seed, replicate=replicate))
        if len(parts) % 20 == 1 or time.monotonic() > end:
            pd.concat(parts).to_csv(out, index=False)
        if time.monotonic() > end:
            return


def _print_errors(table: pd.DataFrame, methods: tuple[str, ...]) -> None:
    print("| prevalence | true h2 | method | mean (SE) | rmse | 95% interval holds it | samples |")
    for (prevalence, h2), own in table.groupby(["prevalence", "h2"]):
        for name in methods:
            error = own[name] - h2
            held = ((own[f"{name}_low"] <= h2) & (h2 <= own[f"{name}_high"])).mean()
            print(
                f"| {100 * prevalence:g}% | {h2:g} | {name} | {own[name].mean():.3f} "
                f"({error.std() / np.sqrt(len(own)):.3f}) | {np.sqrt((error**2).mean()):.3f} "
                f"| {100 * held:.0f}% | {len(own)} |"
            )


def figures(folder: Path) -> None:
    """Tables and figures of all runs in a folder."""
    from bayeslmm import plots
    from bayeslmm.model.calibration import Calibration, reliability_table

    def pooled(study: str) -> pd.DataFrame:
        files = sorted(folder.glob(f"{study}_*.csv"))
        return pd.concat([pd.read_csv(file) for file in files], ignore_index=True)

    ranks = pooled("calibration").drop(columns=["seed", "replicate"])
    check = Calibration(ranks, CALIBRATION_DRAWS, "the liability model's sampler")
    print(check)
    check.plot().figure.savefig(FIGURES / "liability_calibration.png", dpi=110)

    table = pooled("ascertainment")
    _print_errors(table, METHODS)
    _print_errors(pooled("moments"), ("pcgc",))
    plots.ascertainment(table).figure.savefig(FIGURES / "ascertainment.png", dpi=110)

    table = pooled("reliability")
    for design, own in table.groupby("design"):
        cohorts = len(own[["seed", "replicate"]].drop_duplicates())
        print(f"{design}: {len(own):,} people of {cohorts} cohorts")
        print(reliability_table(own.risk, own.case).round(3).to_string())
        axes = plots.reliability(own.risk, own.case)
        name = "reliability" if design == "random sample" else "reliability_case_control"
        axes.figure.savefig(FIGURES / f"{name}.png", dpi=110)


def nuts() -> None:
    """Gibbs beside NUTS on a dense probit model of the same 200 sibs, written here."""
    import pymc as pm
    from arviz_stats.base import array_stats

    rng = np.random.default_rng(3)
    K, x = sibs(50), rng.normal(size=200)
    L = np.linalg.cholesky(K)
    y = np.sqrt(0.6) * (L @ rng.normal(size=200)) + np.sqrt(0.4) * rng.normal(size=200) > 0.3
    start = time.perf_counter()
    gibbs = bl.LiabilityLMM(y, x[:, None], K, h2_prior="uniform").sample(draws=3000, seed=1)
    middle = time.perf_counter()
    C = np.column_stack([np.ones(200), x / x.std()])
    # As LMM does with an intercept: K is centred, and scaled to a mean diagonal of 1.
    centred = K - K.mean(axis=0) - K.mean(axis=1)[:, None] + K.mean()
    values, vectors = np.linalg.eigh(centred / np.trace(centred) * 200)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    with pm.Model():
        h2 = pm.Uniform("h2", 0, 1)
        b = pm.Normal("b", 0, 10, shape=2)
        u = pm.math.sqrt(h2) * pm.math.dot(root, pm.Normal("z", shape=200))
        eta = (pm.math.dot(C, b) + u) / pm.math.sqrt(1 - h2)
        # Near h2 = 1 probabilities leave their range: their logarithms do not.
        pm.Potential("y", pm.logcdf(pm.Normal.dist(), np.where(y, 1, -1) * eta).sum())
        tree = pm.sample(
            1500, tune=1000, chains=4, random_seed=1, progressbar=False, target_accept=0.97
        )
    for name, source, seconds in (
        ("Gibbs", gibbs, middle - start),
        ("NUTS", tree, time.perf_counter() - middle),
    ):
        draws, effect = source["posterior"]["h2"].to_numpy(), source["posterior"]["b"].to_numpy()
        effect = effect[..., 1] * (x.std() if name == "Gibbs" else 1)
        ess = float(array_stats.ess(draws))
        print(
            f"{name}: h2 {draws.mean():.4f} (sd {draws.std():.4f}, MCSE "
            f"{draws.std() / np.sqrt(ess):.4f}, quantiles "
            f"{np.quantile(draws, [0.05, 0.5, 0.95]).round(3)}), b {effect.mean():.3f} "
            f"(sd {effect.std():.3f}), ESS {ess:.0f}, {seconds:.0f} s"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*STUDIES, "figures", "nuts"])
    parser.add_argument("folder", nargs="?", type=Path, help="of runs, for figures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.part == "nuts":
        nuts()
    elif options.part == "figures":
        figures(options.folder)
    else:
        run(options.part, options.seed, options.seconds, options.out)


if __name__ == "__main__":
    main()
