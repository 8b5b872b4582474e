"""Draws from the generative model: NUTS, its checks, and what is computed from the draws."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.generative.collapsed import collapsed_model, draw_effects, is_collapsible
from bayeslmm.generative.eigen import ModelData, build, model_data, pymc_model
from bayeslmm.generative.nuts import Density
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.model.conditional import Conditional
from bayeslmm.model.effects import spike_slab
from bayeslmm.model.snps import SelectedSnps, selected_snps
from bayeslmm.model.trees import data_groups
from bayeslmm.priors import R2D2, H2Prior, Normal, SnpPrior, SpikeSlab, as_snp_prior
from bayeslmm.runs.progress import quiet
from bayeslmm.runs.provenance import fresh_seed, provenance

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr

    from bayeslmm.model.lmm import LMM

# Pointwise log-likelihoods cost two products with U of all draws: beyond this many
# numbers they are made on request only.
_LOGLIK_BY_DEFAULT = 20_000_000
_compiled: dict[Any, Density] = {}
_COMPILED_KEPT = 16
# Of the model, as far as a prior has them.
_VARIABLES = (
    *("h2", "s2_g", "s2_e", "s2", "sd", "b", "beta", "beta_std"),
    *("tau", "lambda", "r2", "share"),
)


type Drawn = tuple[dict[str, np.ndarray], xr.Dataset]


class SamplingWarning(UserWarning):
    """Draws that should not be used as they are; the message says why and what to do."""


def sample(
    model: LMM,
    *,
    snps: Any = None,
    genotypes: Genotypes | None = None,
    snp_prior: Any = "normal",
    priors: Mapping[str, Any] | None = None,
    draws: int = 1000,
    tune: int = 500,
    chains: int = 4,
    seed: int | None = None,
    target_accept: float | None = None,
    sampler: Literal["nutpie", "pymc"] = "nutpie",
    u: bool = False,
    log_likelihood: bool | None = None,
    posterior_predictive: bool = False,
    progress: bool = False,
) -> xr.DataTree:
    """Sample the posterior with NUTS in the eigenbasis (see `LMM.sample`)."""
    if model.basis is None:
        raise InputError("Without kernel there is nothing to sample: use lmm.posterior().")
    if sampler not in ("nutpie", "pymc"):
        raise InputError(f"sampler='{sampler}' is unknown; expected 'nutpie' or 'pymc'.")
    for name, value in (("draws", draws), ("tune", tune), ("chains", chains)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, but is {value}.")
    if target_accept is not None and not 0 < target_accept < 1:
        raise InputError(f"target_accept must be in (0, 1), but is {target_accept:g}.")
    seed = fresh_seed() if seed is None else seed
    selected = selected_snps(model, snps, genotypes)
    chosen = as_snp_prior(snp_prior)
    if isinstance(chosen, SpikeSlab):
        if priors:
            raise InputError(
                "Spike-and-slab is computed exactly, with its own priors: drop priors=."
            )
        tree = spike_slab(model, selected, chosen, draws=draws * chains, seed=seed)
        return _complete(model, tree, selected, u, log_likelihood, posterior_predictive, seed)
    data = model_data(model, selected)
    target = Target(data, model.h2_prior, chosen, priors or {})
    if target_accept is None:
        target_accept = target.acceptance(sampler)
    settings = {"draws": draws, "tune": tune, "chains": chains, "target_accept": target_accept}
    run = target.draw if sampler == "nutpie" else target.draw_by_pymc
    values, stats = run(**settings, seed=seed, progress=progress)
    attrs = provenance() | {
        "formula": model.formula,
        "n": len(data.y),
        "kappa": data.kappa,
        "h2_prior": _h2_prior_in_words(model, chosen, selected, priors or {}),
        "priors": "; ".join(f"{k} ~ {described(p)}" for k, p in (priors or {}).items()),
        "snp_prior": str(chosen) if len(selected.ids) else "no SNPs",
        "sampler": f"{sampler} NUTS",
        "seed": seed,
    }
    tree = _tree(model, data, values, stats, attrs | settings)
    check_sampling(tree)
    return _complete(model, tree, selected, u, log_likelihood, posterior_predictive, seed)


def _h2_prior_in_words(
    model: LMM, snp_prior: SnpPrior, snps: SelectedSnps, priors: Mapping[str, Any]
) -> str:
    if {"h2", "sd_g", "s2_g"} & set(priors):
        return "see priors"
    return "see snp_prior" if isinstance(snp_prior, R2D2) and snps.ids else repr(model.h2_prior)


def described(prior: Any) -> str:
    """A prior in words."""
    if getattr(prior, "owner", None) is None:
        return repr(prior)
    from pymc.printing import str_for_dist

    return str_for_dist(prior)


@dataclass(frozen=True)
class Target:
    """What is sampled: data, and priors."""

    data: ModelData
    h2_prior: H2Prior
    snp_prior: SnpPrior
    priors: Mapping[str, Any]

    @property
    def collapsed(self) -> bool:
        """Whether the effects are integrated out, and drawn given the rest."""
        return is_collapsible(self.data, self.snp_prior, self.priors)

    def acceptance(self, sampler: str) -> float:
        """What keeps the geometry of a prior free of divergent transitions."""
        if isinstance(self.snp_prior, Normal) or not self.data.snps.ids:
            return 0.8
        return 0.9 if self.collapsed and sampler == "nutpie" else 0.99

    def draw(self, *, seed: int, **settings: Any) -> Drawn:
        """Draws by nutpie, and their statistics."""
        values, stats = self._density().sample(seed=seed, **settings)
        values.setdefault("sd", np.sqrt(values["s2"]))
        if self.collapsed:
            rng = np.random.default_rng([seed, 2])
            values |= draw_effects(self.data, values, rng)
            del values["effect_sd"]
        return values, stats

    def draw_by_pymc(self, *, seed: int, progress: bool, **settings: Any) -> Drawn:
        """The same by PyMC's own NUTS, effects included."""
        import pymc as pm

        with self._explicit():
            tree = pm.sample(
                **settings,
                random_seed=seed,
                nuts_sampler="pymc",
                progressbar=progress,
                compute_convergence_checks=False,
            )
        posterior = tree["posterior"].dataset
        values = {name: posterior[name].to_numpy() for name in _VARIABLES if name in posterior}
        values.setdefault("sd", np.sqrt(values["s2"]))
        return values, tree["sample_stats"].dataset

    def _explicit(self) -> pm.Model:
        return build(self.data, "eigenbasis", self.h2_prior, self.snp_prior, self.priors)

    def _density(self) -> Density:
        """One compilation serves every model of the same shape; only its data change."""
        model = (
            collapsed_model(self.data, self.h2_prior, self.snp_prior, self.priors)
            if self.collapsed
            else self._explicit()
        )
        k = len(self.data.snps.ids)
        # The width of a normal prior is data; the numbers of the others are constants.
        kind = type(self.snp_prior) if isinstance(self.snp_prior, Normal) else self.snp_prior
        ordered = tuple(sorted(self.priors.items(), key=lambda item: item[0]))
        key = (len(self.data.covariates), k, kind if k else None, self.h2_prior.parameters, ordered)
        reusable = all(is_constant(prior) for prior in self.priors.values())
        density = _compiled.get(key) if reusable else None
        if density is None:
            density = Density(model, (*_VARIABLES, "effect_sd"))
            if reusable:
                if len(_compiled) >= _COMPILED_KEPT:
                    del _compiled[next(iter(_compiled))]
                _compiled[key] = density
        else:
            density.set_data(model)
        return density


def is_constant(prior: Any) -> bool:
    """Whether a prior is the same whenever it is used: a PyMC distribution without data."""
    from pytensor.compile.sharedvalue import SharedVariable
    from pytensor.graph.traversal import ancestors
    from pytensor.tensor.random.variable import RandomGeneratorSharedVariable
    from pytensor.tensor.variable import TensorVariable

    return isinstance(prior, TensorVariable) and not any(
        isinstance(node, SharedVariable) and not isinstance(node, RandomGeneratorSharedVariable)
        for node in ancestors([prior])
    )


def sample_model(
    pymc_model: pm.Model,
    *,
    draws: int = 1000,
    tune: int = 500,
    chains: int = 4,
    target_accept: float = 0.8,
    seed: int | None = None,
    progress: bool = False,
) -> xr.DataTree:
    """Sample any PyMC model with nutpie, and check the draws: for models changed by hand.

    Returns
    -------
    DataTree
        As nutpie returns it, provenance in its attributes.
    """
    import nutpie

    seed = fresh_seed() if seed is None else seed
    with warnings.catch_warnings():
        # Samples are people here, not draws.
        warnings.filterwarnings("ignore", "Found dimension named 'sample'", UserWarning)
        tree = nutpie.sample(
            nutpie.compile_pymc_model(pymc_model, backend="numba"),
            draws=draws,
            tune=tune,
            chains=chains,
            seed=seed,
            target_accept=target_accept,
            save_warmup=False,
            progress_bar=progress,
        )
    tree.attrs |= provenance() | {"seed": seed}
    check_sampling(tree)
    return tree


def check_sampling(
    tree: xr.DataTree,
    *,
    few: str = "Raise draws, or use lmm.posterior() where no other prior is needed",
) -> None:
    """Warn, in words, of divergences, of high r-hat and of few effective draws.

    `few` says what to do about few effective draws.
    """
    from arviz_stats.base import array_stats

    problems = []
    diverging = tree["sample_stats"].dataset.get("diverging")
    count = int(diverging.sum()) if diverging is not None else 0
    if count:
        problems.append(
            f"{count:,} divergent transitions: part of the posterior was not reached. Raise "
            "target_accept (0.95, 0.99), use a less heavy-tailed prior, or leave out SNPs in "
            "complete LD"
        )
    posterior = tree["posterior"].dataset
    worst_rhat, worst_ess = ("", 0.0), ("", np.inf)
    for name in ("h2", "s2", "b", "beta"):
        if name not in posterior:
            continue
        values = posterior[name].to_numpy().reshape(*posterior[name].shape[:2], -1)
        for j in range(values.shape[2]):
            if np.ptp(values[..., j]) == 0:
                continue
            rhat, ess = array_stats.rhat(values[..., j]), array_stats.ess(values[..., j])
            worst_rhat = max(worst_rhat, (name, float(rhat)), key=lambda item: item[1])
            worst_ess = min(worst_ess, (name, float(ess)), key=lambda item: item[1])
    if posterior.sizes["chain"] > 1 and worst_rhat[1] > 1.01:
        problems.append(
            f"r-hat {worst_rhat[1]:.3f} for {worst_rhat[0]} (at most 1.01 is good): the chains "
            "disagree. Sample longer (draws, tune)"
        )
    if worst_ess[1] < 400:
        problems.append(
            f"only {worst_ess[1]:.0f} effective draws of {worst_ess[0]} (400 are wanted). {few}"
        )
    if problems:
        warnings.warn("; ".join(problems) + ".", SamplingWarning, stacklevel=3)


# -- what comes back -----------------------------------------------------------------------------


def _tree(
    model: LMM,
    data: ModelData,
    values: dict[str, np.ndarray],
    stats: xr.Dataset,
    attrs: dict[str, Any],
) -> xr.DataTree:
    import xarray as xr

    dims = dict.fromkeys(("beta", "beta_std", "lambda"), "snp") | {"b": "covariate"}
    dims["share"] = "part"
    arrays = {
        name: (["chain", "draw", *([dims[name]] if name in dims else [])], values[name])
        for name in _VARIABLES
        if name in values
    }
    chains, draws = values["h2"].shape
    coords: dict[str, Any] = {
        "chain": np.arange(chains),
        "draw": np.arange(draws),
        "covariate": data.covariates,
    }
    if len(data.snps.ids):
        coords["snp"] = data.snps.ids
    if "share" in arrays:
        coords["part"] = [*data.snps.ids, "polygenic"]
    kept = [
        name
        for name in (
            "diverging",
            "energy",
            "logp",
            "lp",
            "n_steps",
            "tree_depth",
            "depth",
            "step_size",
        )
        if name in stats
    ]
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=attrs),
            "posterior": xr.Dataset(arrays, coords, attrs),
            "sample_stats": xr.Dataset(
                {name: (["chain", "draw"], stats[name].to_numpy()) for name in kept},
                {"chain": coords["chain"], "draw": coords["draw"]},
            ),
            **data_groups(model),
        }
    )


def _complete(
    model: LMM,
    tree: xr.DataTree,
    snps: SelectedSnps,
    u: bool,
    log_likelihood: bool | None,
    posterior_predictive: bool,
    seed: int,
) -> xr.DataTree:
    """Add u, the pointwise log-likelihood and replicated data to the draws."""
    import xarray as xr

    posterior = tree["posterior"].dataset
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    n = len(model.y)
    per_draw = Conditional(model, posterior, snps)
    rng = np.random.default_rng([seed, 1])
    coords = {"chain": posterior.chain, "draw": posterior.draw, "sample": list(model.ids)}
    dims = ["chain", "draw", "sample"]
    if log_likelihood is None:
        log_likelihood = n * chains * draws <= _LOGLIK_BY_DEFAULT
    if len(snps.ids):
        tree["constant_data"] = xr.DataTree(
            tree["constant_data"]
            .dataset.assign(
                X=(("sample", "snp"), snps.x), eaf=("snp", snps.eaf), x_sd=("snp", snps.sd)
            )
            .assign_coords(snp=snps.ids, effect_allele=("snp", snps.ea))
        )
    shape = (chains, draws, n)
    if u:
        tree["posterior"] = xr.DataTree(
            posterior.assign(u=(dims, per_draw.draw_u(rng).reshape(shape))).assign_coords(
                sample=list(model.ids)
            )
        )
    if log_likelihood:
        values = per_draw.log_likelihood().reshape(shape)
        tree["log_likelihood"] = xr.DataTree(xr.Dataset({"y": (dims, values)}, coords))
    if posterior_predictive:
        values = per_draw.replicate(rng).reshape(shape)
        tree["posterior_predictive"] = xr.DataTree(xr.Dataset({"y": (dims, values)}, coords))
    return tree


def prior_predictive(
    model: LMM,
    *,
    snps: Any = None,
    genotypes: Genotypes | None = None,
    snp_prior: Any = "normal",
    priors: Mapping[str, Any] | None = None,
    draws: int = 500,
    seed: int | None = None,
) -> xr.DataTree:
    """Draws from the prior, and phenotypes that it predicts (see `LMM.prior_predictive`)."""
    import pymc as pm
    import xarray as xr

    seed = fresh_seed() if seed is None else seed
    pymc_version = pymc_model(
        model, snps=snps, genotypes=genotypes, snp_prior=snp_prior, priors=priors
    )
    with quiet("pymc.sampling.forward"):
        tree = pm.sample_prior_predictive(draws, model=pymc_version, random_seed=seed)
    assert model.basis is not None
    rotated = tree["prior_predictive"]["y_rotated"].to_numpy()
    y = model.basis.unrotate(rotated.reshape(-1, rotated.shape[-1]).T).T.reshape(rotated.shape)
    data = model_data(model, selected_snps(model, snps, genotypes))
    prior = tree["prior"].dataset
    names = [
        name
        for name in ("h2", "sd", "s2", "s2_g", "s2_e", "b", "beta", "beta_std")
        if name in prior
    ]
    predicted = xr.Dataset(
        {"y": (("chain", "draw", "sample"), y + data.y_mean)},
        {"chain": prior.chain, "draw": prior.draw, "sample": data.samples},
    )
    attrs = provenance() | {"formula": model.formula, "seed": seed}
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=attrs),
            "prior": prior[names],
            "prior_predictive": predicted,
            **data_groups(model),
        }
    )


def prior_sensitivity(
    model: LMM,
    tree: xr.DataTree,
    *,
    snps: Any = None,
    genotypes: Genotypes | None = None,
    snp_prior: Any = "normal",
    priors: Mapping[str, Any] | None = None,
    var_names: Iterable[str] = ("h2", "s2"),
) -> pd.DataFrame:
    """Power-scaling sensitivity of the posterior (see `LMM.prior_sensitivity`)."""
    import arviz as az
    import xarray as xr

    selected = selected_snps(model, snps, genotypes)
    posterior = tree["posterior"].dataset
    shape = (posterior.sizes["chain"], posterior.sizes["draw"])
    joint = Conditional(model, posterior, selected).joint_log_likelihood().reshape(shape)
    log_prior = _log_prior(model, posterior, selected, as_snp_prior(snp_prior), priors or {})
    dims = ("chain", "draw")
    coords = {"chain": posterior.chain, "draw": posterior.draw}
    scaled = xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "log_likelihood": xr.Dataset({"joint": (dims, joint)}, coords),
            "log_prior": xr.Dataset({"prior": (dims, log_prior)}, coords),
        }
    )
    names = list(var_names)
    if np.ptp(log_prior) > 0:
        return az.psense_summary(scaled, var_names=names)
    # A flat prior stays what it is when raised to a power; ArviZ would raise an error.
    scaled["log_prior"] = scaled["log_likelihood"]
    return az.psense_summary(scaled, var_names=names).assign(prior=0.0, diagnosis="✓")


def _log_prior(
    model: LMM,
    posterior: xr.Dataset,
    snps: SelectedSnps,
    snp_prior: SnpPrior,
    priors: Mapping[str, Any],
) -> np.ndarray:
    """Log prior density of each draw, over the variables that the draws determine."""
    import pymc as pm
    from pytensor.compile.maker import function as compile_function
    from pytensor.graph.replace import vectorize_graph
    from pytensor.tensor.type import TensorType

    data = model_data(model, snps)
    pymc_version = build(data, "eigenbasis", model.h2_prior, snp_prior, priors)
    draws = {name: posterior[name].to_numpy() for name in posterior.data_vars}
    draws["b_std"] = data.centered_effects(draws["b"]) * data.C_scale / data.sd_y
    draws |= {"sd_e": np.sqrt(draws["s2_e"]), "sd_g": np.sqrt(draws["s2_g"] * data.kappa)}
    if "beta_std" in draws and isinstance(snp_prior, Normal):
        draws["beta_z"] = draws["beta_std"] / snp_prior.phi
    total: Any = 0.0
    for variable in pymc_version.free_RVs:
        if variable.name not in draws:
            continue
        value = variable.type()
        values = TensorType("float64", shape=(None, *value.type.shape))()
        logp = vectorize_graph(pm.logp(variable, value).sum(), {value: values})
        # Evaluated once: not worth a compilation.
        function = compile_function([values], logp, mode="FAST_COMPILE")
        flat = draws[variable.name].reshape(-1, *draws[variable.name].shape[2:])
        total = total + function(flat)
    return np.asarray(total).reshape(posterior.sizes["chain"], posterior.sizes["draw"])
