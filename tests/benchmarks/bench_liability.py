"""Effective draws of h2 per second of the liability model's Gibbs sampler.

    python tests/benchmarks/bench_liability.py [n]

Families of four sibs, and unrelated people with as many independent genotypes as people;
the basis is made before the clock starts.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np
from arviz_stats.base import array_stats
from scipy.special import ndtri

import bayeslmm as bl


def main(n: int) -> None:
    """Print one line for each design, h2 and prevalence."""
    rng = np.random.default_rng(1)
    sibs = np.kron(np.eye(n // 4), np.full((4, 4), 0.5) + 0.5 * np.eye(4))
    Z = rng.normal(size=(n, n))
    for name, K in (("sibs", sibs), ("unrelated", Z @ Z.T / n)):
        basis = bl.eigenbasis(K)
        for h2, prevalence in ((0.5, 0.5), (0.2, 0.5), (0.5, 0.1)):
            v = np.sqrt(h2 * basis.values / basis.kappa + 1 - h2)
            liability = basis.unrotate(v * rng.standard_normal(n)) + ndtri(prevalence)
            model = bl.LiabilityLMM(liability > 0, kernel=basis)
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                draws = model.sample(draws=500, tune=100, seed=1, latent=1000)
            seconds = time.perf_counter() - start
            values = draws["posterior"]["h2"].to_numpy()
            ess, rhat = float(array_stats.ess(values)), float(array_stats.rhat(values))
            print(
                f"{name:<10} n {n:,}, h2 {h2}, cases {100 * prevalence:g}%: {seconds:.1f} s, "
                f"ESS {ess:.0f}, r-hat {rhat:.3f}, {ess / seconds:.0f} effective draws a second",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
