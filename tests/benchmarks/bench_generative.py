"""The generative model: gradients, effective draws per second, first and later posteriors.

    python tests/benchmarks/bench_generative.py [--part NAME ...]

Parts: cold (a fresh process, to 4 x 1,000 draws on the mice), gradient (milliseconds per
gradient for n = 500 to 16,000), ess (h2 at n = 1,000, eigenbasis against the textbook
explicit form on dense data), posterior (exact draws).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

COLD = """
import time
start = time.perf_counter()
import bayeslmm as bl
mice = bl.datasets.mouse_hs1940()
kernel = bl.grm(mice.genotypes, progress=False)
cd8 = bl.LMM("cd8 ~ sex", mice.phenotypes, kernel)
cd8.basis
def lap(what, before):
    print(f"{what:50s} {time.perf_counter() - before:7.2f} s", flush=True)
lap("genotypes, GRM, basis", start)
now = time.perf_counter(); cd8.sample(seed=1); lap("cd8, 4 x 1,000 draws, cold", now)
lap("  from the start of the process", start)
mch = bl.LMM("mch ~ sex", mice.phenotypes, kernel)
mch.basis
now = time.perf_counter(); mch.sample(seed=1); lap("mch (other n), with log-likelihood", now)
now = time.perf_counter(); mch.sample(seed=1, log_likelihood=False); lap("  without", now)
hits = list(cd8.scan(mice.genotypes, progress=False).nsmallest(20, "p_wald").id)
for prior in ("normal", "spike_slab", "horseshoe", "r2d2"):
    snps = hits[:10] if prior == "spike_slab" else hits
    for again in ("compiled", "again"):
        now = time.perf_counter()
        cd8.sample(snps, prior, seed=1)
        lap(f"{len(snps)} SNPs, {prior}, {again}", now)
"""


def cohort(n: int, m: int, seed: int = 1) -> tuple[pd.DataFrame, np.ndarray]:
    """Unrelated people, h2 = 0.5, three covariates."""
    rng = np.random.default_rng(seed)
    x = rng.binomial(2, rng.uniform(0.05, 0.5, m), size=(n, m)).astype(np.float32)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    y = z @ rng.normal(size=m) / np.sqrt(m) + rng.normal(size=n)
    table = pd.DataFrame(rng.normal(size=(n, 2)), columns=["age", "pc1"]).assign(y=y)
    return table, z @ z.T / m


def per_gradient(model, parameterization: str, repeat: int) -> float:
    """Milliseconds per log density and gradient, compiled by numba."""
    made = model.pymc_model(parameterization)
    function = made.logp_dlogp_function(ravel_inputs=True)
    function.set_extra_values({})
    from pymc.blocking import DictToArrayBijection

    at = DictToArrayBijection.map(made.initial_point(0)).data
    function(at)
    start = time.perf_counter()
    for i in range(repeat):
        function(at + 1e-6 * i)
    return (time.perf_counter() - start) / repeat * 1e3


def gradient() -> None:
    """Time of a gradient: the spectrum may be any, so no n x n matrix is decomposed."""
    from bayeslmm.generative.eigen import ModelData, build
    from bayeslmm.model.snps import SelectedSnps
    from bayeslmm.priors import Normal, uniform

    print("ms per log density and gradient, eigenbasis, 3 covariates")
    for n in (500, 1000, 2000, 4000, 8000, 16_000):
        rng = np.random.default_rng(0)
        y, C, S = rng.normal(size=n), rng.normal(size=(n, 3)), rng.gamma(2, 0.5, n)
        none = SelectedSnps([], np.empty((n, 0)), np.empty(0), np.empty(0), [])
        zero = np.zeros(3)
        data = ModelData(
            y, C, none.x, y, C, none.x, S, 1.0, 0.0, zero, zero + 1, zero, np.eye(0), 1.0,
            ["a", "b", "c"], none, [str(i) for i in range(n)],
        )  # fmt: skip

        class Model:
            @staticmethod
            def pymc_model(form, data=data):
                return build(data, form, uniform(), Normal(), {})

        print(f"  n = {n:6,}   {per_gradient(Model, 'eigenbasis', 2000):.4f}", flush=True)


def ess() -> None:
    """Effective draws of h2 per second at n = 1,000."""
    import arviz as az
    import nutpie

    import bayeslmm as bl

    table, K = cohort(1000, 2000)
    model = bl.LMM("y ~ age + pc1", table, K)
    model.sample(seed=1, log_likelihood=False)
    fast = []
    for seed in (1, 2, 3):
        start = time.perf_counter()
        tree = model.sample(seed=seed, log_likelihood=False)
        fast.append(
            float(az.ess(tree["posterior"]["h2"].to_numpy())) / (time.perf_counter() - start)
        )
    print("eigenbasis, sample() as a user calls it: ESS(h2)/s", [round(v) for v in fast])
    print(
        f"ms per gradient: eigenbasis {per_gradient(model, 'eigenbasis', 2000):.4f}, explicit "
        f"on dense data {per_gradient(model, 'explicit', 200):.3f}"
    )
    compiled = nutpie.compile_pymc_model(model.pymc_model())
    start = time.perf_counter()
    raw = nutpie.sample(compiled, draws=1000, tune=500, chains=4, seed=1, progress_bar=False)
    seconds = time.perf_counter() - start
    only = float(az.ess(raw["posterior"]["h2"].to_numpy())) / seconds
    print(f"eigenbasis, the sampler alone: ESS(h2)/s {only:,.0f}")
    compiled = nutpie.compile_pymc_model(model.pymc_model("explicit"))
    start = time.perf_counter()
    with threadpool_limits(1):  # a chain per core: threads of BLAS would fight them
        raw = nutpie.sample(compiled, draws=1000, tune=500, chains=4, seed=1, progress_bar=False)
    seconds = time.perf_counter() - start
    slow = float(az.ess(raw["posterior"]["h2"].to_numpy())) / seconds
    steps = float(raw["sample_stats"]["n_steps"].mean())
    print(
        f"explicit, dense (4 x 1,000 after 500): {seconds:.1f} s, {steps:.0f} steps per draw, "
        f"ESS(h2)/s {slow:.2f}; ratio {np.median(fast) / slow:,.0f} (sampler alone "
        f"{only / slow:,.0f})"
    )


def posterior() -> None:
    import bayeslmm as bl

    mice = bl.datasets.mouse_hs1940()
    kernel = bl.grm(mice.genotypes, progress=False)
    for name in ("cd8", "mch"):
        model = bl.LMM(f"{name} ~ sex", mice.phenotypes, kernel)
        model.posterior(10)
        for _ in range(5):
            start = time.perf_counter()
            model.posterior(4000)
            print(f"{name}: posterior(4000) {1e3 * (time.perf_counter() - start):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"cold": None, "gradient": gradient, "ess": ess, "posterior": posterior}
    parser.add_argument("--part", nargs="+", choices=parts, default=list(parts))
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name in options.part:
        print(f"-- {name}", flush=True)
        if name == "cold":
            subprocess.run([sys.executable, "-c", COLD], check=True)
        else:
            parts[name]()


if __name__ == "__main__":
    main()
