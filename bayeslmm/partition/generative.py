"""Several variance components as PyMC code: dense, for small n.

share ~ Dirichlet,   sd ~ HalfStudentT(4, sd(y)),   b ~ Normal(0, 10 sd(y) / sd(C))
y ~ N(C b, sd^2 (sum_k share_k K_k / kappa_k + share_residual I))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import InputError, listing
from bayeslmm.generative.eigen import covariate_effects, model_data, prior_variable
from bayeslmm.model.snps import selected_snps
from bayeslmm.partition.components import RESIDUAL

if TYPE_CHECKING:
    import pymc as pm

    from bayeslmm.partition.model import PartitionedLMM


def pymc_model(model: PartitionedLMM, priors: Mapping[str, Any]) -> pm.Model:
    """The model as a `pymc.Model` (see `PartitionedLMM.pymc_model`)."""
    import pymc as pm
    import pytensor.tensor as pt

    names = ["share", "sd", "s2", "b"]
    unknown = set(priors) - set(names)
    if unknown or {"sd", "s2"} <= set(priors):
        raise InputError(
            f"Priors for {listing(sorted(priors))}: there are {listing(names)}, and only one "
            "of sd and s2."
        )
    if "share" not in priors and model.prior.concentration is None:
        raise InputError(
            f"PyMC needs shares with a Dirichlet prior, but they have {model.prior}: pass "
            "priors={'share': ...}."
        )
    plain = model.aligned.without_kernel()
    data = model_data(plain, selected_snps(plain, None))
    center, n = model.aligned.has_intercept, len(model.y)
    matrices = model._matrices()
    stacked = np.empty((len(model.kernels), n, n))
    for k in range(len(matrices)):
        matrix = matrices[k]
        K = matrix - (matrix.mean(0) + matrix.mean(1)[:, None] - matrix.mean()) * center
        stacked[k] = K / (np.trace(K) / n)
    coords = {
        "covariate": data.covariates,
        "sample": data.samples,
        "kernel": list(model.kernels),
        "part": [*model.kernels, RESIDUAL],
    }
    with pm.Model(coords=coords) as code:
        y = pm.Data("y_obs", data.y, dims="sample")
        C = pm.Data("C", data.C, dims=("sample", "covariate"))
        K = pm.Data("K", stacked)
        kappa = pm.Data("kappa", model.kappa.to_numpy(), dims="kernel")

        # Every kernel's share of the total variance.
        share = prior_variable(
            "share",
            priors,
            lambda name: pm.Dirichlet(name, model.prior.concentration, dims="part"),
            dims="part",
        )
        if "s2" in priors:
            s2 = prior_variable("s2", priors)
        else:
            sd = prior_variable(
                "sd", priors, lambda name: pm.HalfStudentT(name, nu=4, sigma=data.sd_y)
            )
            s2 = pm.Deterministic("s2", sd**2)
        h2_k = pm.Deterministic("h2_k", share[:-1], dims="kernel")
        pm.Deterministic("h2", pt.sum(h2_k * model.genetic.astype(float)))
        pm.Deterministic("s2_k", s2 * h2_k / kappa, dims="kernel")
        pm.Deterministic("s2_e", s2 * share[-1])

        # y = C b + sum_k u_k + e with all u_k integrated out.
        b = covariate_effects(data, priors, data.sd_y)
        V = s2 * (pt.tensordot(h2_k, K, axes=1) + share[-1] * pt.eye(n))
        pm.MvNormal("y", pt.dot(C, b), cov=V, observed=y, dims="sample")
    return code
