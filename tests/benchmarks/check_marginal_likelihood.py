"""The marginal likelihood by quadrature against sequential Monte Carlo of the PyMC model.

    python tests/benchmarks/check_marginal_likelihood.py [--chains 4] [--draws 2000]

CD8 of the mice, for two priors of h2. The PyMC model has proper priors of s2 and b where
the quadrature has flat ones: its log marginal likelihood is that of the quadrature plus
log E[prior of PyMC / flat prior] under the exact posterior, which independent draws give.
"""

from __future__ import annotations

import argparse
import logging
import warnings

import numpy as np
import pymc as pm

import bayeslmm as bl


def by_quadrature(model: bl.LMM) -> tuple[float, float]:
    """Log marginal likelihood with the priors of `pymc_model`, and its Monte Carlo error."""
    posterior = model.posterior(20_000, seed=1)["posterior"].dataset
    s2 = posterior["s2"].to_numpy().ravel()
    b = posterior["b"].to_numpy().reshape(len(s2), -1)
    C = model.C.to_numpy()
    sd_y = float(np.std(model.y))
    constant = np.ptp(C, axis=0) == 0
    centred = np.where(constant, C, C - C.mean(axis=0))
    scale = np.where(constant, 1.0, C.std(axis=0))
    # PyMC's coefficients are those of centred covariates and phenotype.
    effects = b.copy()
    effects[:, constant] += (b @ np.where(constant, 0, C.mean(axis=0)))[:, None] - model.y.mean()
    sd = np.sqrt(s2)
    log_prior = pm.logp(pm.HalfStudentT.dist(nu=4, sigma=sd_y), sd).eval() - np.log(2 * sd)
    log_prior += pm.logp(pm.Normal.dist(0, 10 * sd_y / scale), effects).eval().sum(axis=1)
    # Flat: 1/s2, and 1 for the coefficients of an orthonormal basis of the covariates.
    jacobian = 0.5 * np.linalg.slogdet(centred.T @ centred)[1]
    ratio = log_prior + np.log(s2) - jacobian
    top = ratio.max()
    weight = np.exp(ratio - top)
    error = weight.std() / weight.mean() / np.sqrt(len(weight))
    return model.h2_posterior().log_integral + top + np.log(weight.mean()), float(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args()
    for name in ("bayeslmm", "pymc"):
        logging.getLogger(name).setLevel(logging.ERROR)
    mice = bl.datasets.mouse_hs1940()
    kernel = bl.grm(mice.genotypes)
    print("| prior of h2 | quadrature | SMC | its chains |")
    for prior in (bl.priors.uniform(), bl.priors.beta(2, 8)):
        model = bl.LMM("cd8 ~ sex", mice.phenotypes, kernel, h2_prior=prior)
        exact, error = by_quadrature(model)
        with model.pymc_model(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = pm.sample_smc(
                options.draws, chains=options.chains, random_seed=1, progressbar=False, cores=1
            )
        final = []
        for chain in tree["sample_stats"]["log_marginal_likelihood"].to_numpy():
            values = np.asarray(chain[-1] if np.ndim(chain) else chain, dtype=float).ravel()
            final.append(float(values[np.isfinite(values)][-1]))
        chains = ", ".join(f"{value:.2f}" for value in final)
        print(f"| {prior} | {exact:.3f} ± {error:.3f} | {np.mean(final):.2f} | {chains} |")


if __name__ == "__main__":
    main()
