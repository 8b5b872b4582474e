"""Coverage of 95% intervals for h2 near 0, by simulation on the eigenvalues of the mice.

    python docs/scripts/interval_coverage.py [--repeats 1000]

Makes the table of docs/statistics.md. A phenotype is drawn on the eigenbasis itself, where
its n - 1 contrasts are independent with variances h2 s + 1 - h2: no genotypes are needed.
"""

from __future__ import annotations

import argparse

import numpy as np

import bayeslmm as bl
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.maximum import maximise_h2
from bayeslmm.numerics.quadrature import unit_density


def intervals(s: np.ndarray, z: np.ndarray) -> dict[str, tuple[float, float]]:
    """Intervals for h2, and the two point estimates as (estimate, estimate)."""
    n = len(s)
    data = likelihood.Rotated(s, z, np.zeros((n, 0)), np.zeros((0, 0)), np.zeros(0), 1.0, 1.0)
    h2 = maximise_h2(lambda h: likelihood.restricted_loglik(data, h))
    d = (s - 1) / np.maximum(1 + h2 * (s - 1), 1e-9)
    se = (0.5 * (d @ d - d.sum() ** 2 / n)) ** -0.5
    posterior = unit_density(lambda h: likelihood.integrated_loglik(data, h))
    return {
        "REML +- 1.96 SE": (h2 - 1.96 * se, h2 + 1.96 * se),
        "equal-tailed": tuple(posterior.quantile([0.025, 0.975])),
        "highest-density": posterior.hdi(),
        "reml": (h2, h2),
        "mean": (posterior.mean, posterior.mean),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    rng = np.random.default_rng(1)
    mice = bl.datasets.mouse_hs1940()
    grm = bl.grm(mice.genotypes)
    phenotyped = mice.phenotypes.index[mice.phenotypes.cd8.notna()]
    for n in (1410, 150):
        some = np.sort(rng.choice(len(phenotyped), size=n, replace=False))
        values = bl.eigenbasis(grm, samples=phenotyped[some]).values[:-1]
        s = values / values.mean()
        for true in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6):
            found = [
                intervals(s, np.sqrt(1 + true * (s - 1)) * rng.standard_normal(len(s)))
                for _ in range(repeats)
            ]
            cells = [
                np.mean([one["reml"][0] == 0 for one in found]),
                *(
                    np.mean([one[name][0] <= true <= one[name][1] for one in found])
                    for name in ("REML +- 1.96 SE", "equal-tailed", "highest-density")
                ),
                *(
                    np.sqrt(np.mean([(one[name][0] - true) ** 2 for one in found]))
                    for name in ("reml", "mean")
                ),
            ]
            print(f"| {n:,} | {true:g} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
