r"""Repeated measures as PyMC code, its draws by NUTS, and u and p given each of them.

The math is in `bayeslmm.repeated.likelihood`. In the form ``eigenbasis`` u and p are integrated
out: means are independent on the eigenbasis given w, deviations enter by their sum of squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import InputError, listing
from bayeslmm.generative.eigen import ModelData, covariate_effects, model_data, prior_variable
from bayeslmm.generative.sampling import check_sampling, described
from bayeslmm.model.snps import selected_snps
from bayeslmm.repeated.likelihood import PARTS, summarise
from bayeslmm.runs.provenance import fresh_seed, provenance

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr

    from bayeslmm.repeated.model import RepeatedLMM

_compiled: dict[Any, Any] = {}


# -- data of the code ----------------------------------------------------------------------------


def model_records(model: RepeatedLMM) -> ModelData:
    """Centred and scaled records, as for a model without kernel."""
    return model_data(model.regression, selected_snps(model.regression, None))


def model_arrays(model: RepeatedLMM) -> dict[str, Any]:
    """What the PyMC model holds as data: rotated means, deviations, the basis."""
    data, basis = model_records(model), model.basis
    summary = summarise(np.column_stack([data.C, data.y]), model.owner_index, basis.n)
    rotated = basis.rotate(summary.means)
    scale = np.sqrt(np.diagonal(summary.within))
    unit = summary.within / np.outer(np.where(scale > 0, scale, 1), np.where(scale > 0, scale, 1))
    values, vectors = np.linalg.eigh(unit)
    root = (np.sqrt(np.maximum(values, 0))[:, None] * vectors.T) * scale
    fewer = np.flatnonzero(summary.counts < summary.counts.max())
    arrays = {
        "y_means": rotated[:, -1],
        "C_means": rotated[:, :-1],
        "y_within": root[:, -1],
        "C_within": root[:, :-1],
        "n_within": float(len(data.y) - basis.n),
        "R": float(summary.counts.max()),
        "half_log_counts": 0.5 * float(np.log(summary.counts).sum()),
        "S": np.asarray(basis.values),
        "kappa": basis.kappa,
        "sd_y": data.sd_y,
    }
    if len(fewer):
        arrays["U_fewer"] = np.ascontiguousarray(np.asarray(basis.vectors)[fewer])
        arrays["w_scale"] = np.sqrt(1 / summary.counts[fewer] - 1 / summary.counts.max())
    return arrays


# -- the code ------------------------------------------------------------------------------------


def pymc_model(model: RepeatedLMM, parameterization: str, *, priors: Mapping[str, Any]) -> pm.Model:
    """The model as a `pymc.Model`; see `RepeatedLMM.pymc_model`."""
    if parameterization not in ("eigenbasis", "explicit"):
        raise InputError(
            f"parameterization='{parameterization}' is unknown; expected 'eigenbasis' or "
            "'explicit'."
        )
    if parameterization == "explicit":
        return _explicit(model, priors)
    return _on_eigenbasis(model, priors)


def _coords(model: RepeatedLMM) -> dict[str, Any]:
    return {
        "covariate": list(model.C.columns),
        "individual": list(model.individuals),
        "part": list(PARTS),
    }


def _explicit(model: RepeatedLMM, priors: Mapping[str, Any]) -> pm.Model:
    """Records given u and p, which are variables."""
    import pymc as pm
    import pytensor.tensor as pt

    data, arrays, coords = model_records(model), model_arrays(model), _coords(model)
    with pm.Model(coords=coords | {"record": list(model.C.index)}) as code:
        y, C = pm.Data("y_obs", data.y), pm.Data("C", data.C)
        S, U = pm.Data("S", arrays["S"]), pm.Data("U", np.asarray(model.basis.vectors))
        individual = pm.Data("individual_of_record", model.owner_index)
        s2_g, s2_p, s2_e = _variances(priors, data.sd_y, arrays["kappa"])
        b = covariate_effects(data, priors, data.sd_y)

        z_u = pm.Normal("z_u", dims="individual")
        z_p = pm.Normal("z_p", dims="individual")
        u = pm.Deterministic("u", pt.dot(U, pt.sqrt(s2_g) * pt.sqrt(S) * z_u), dims="individual")
        p = pm.Deterministic("p", pt.sqrt(s2_p) * z_p, dims="individual")
        mean = pt.dot(C, b) + (u + p)[individual]
        pm.Normal("y", mean, pt.sqrt(s2_e), observed=y, dims="record")
    return code


def _on_eigenbasis(model: RepeatedLMM, priors: Mapping[str, Any]) -> pm.Model:
    """Means on the eigenbasis, given w where they are of unequal numbers; and deviations."""
    import pymc as pm
    import pytensor.tensor as pt

    data, arrays, coords = model_records(model), model_arrays(model), _coords(model)
    with pm.Model(coords=coords) as code:
        held = {name: pm.Data(name, value) for name, value in arrays.items()}
        s2_g, s2_p, s2_e = _variances(priors, held["sd_y"], held["kappa"])
        b = covariate_effects(data, priors, held["sd_y"])

        # Means, with the noise of everybody's R records ...
        mean = pt.dot(held["C_means"], b)
        if "U_fewer" in held:  # ... and w, the additional noise of fewer records.
            z = pm.Normal("w_z", shape=len(arrays["w_scale"]))
            w = pm.Deterministic("w", pt.sqrt(s2_e) * held["w_scale"] * z)
            mean = mean + pt.dot(held["U_fewer"].T, w)
        noise_sd = pt.sqrt(s2_g * held["S"] + s2_p + s2_e / held["R"])
        pm.Normal("y_means_rotated", mean, noise_sd, observed=held["y_means"])

        # Deviations of records from their mean, by their sum of squares.
        squares = pt.sum((held["y_within"] - pt.dot(held["C_within"], b)) ** 2)
        density = -0.5 * (held["n_within"] * pt.log(2 * np.pi * s2_e) + squares / s2_e)
        pm.Potential("within", density - held["half_log_counts"])
    return code


def _variances(priors: Mapping[str, Any], sd_y: Any, kappa: Any) -> tuple[Any, Any, Any]:
    """s2_g, s2_p and s2_e from shares and total scale, or from the components, as priors say."""
    import pymc as pm

    components = [(f"sd_{part}", f"s2_{part}") for part in "gpe"]
    split = ["share", "repeatability", "genetic_part"]
    names = [*split, "sd", "s2", *(name for pair in components for name in pair), "b"]
    unknown = set(priors) - set(names)
    if unknown:
        raise InputError(
            f"Priors for {listing(sorted(unknown))}: no such variable. There are "
            f"{listing(names, 20)}."
        )
    given = [[name for name in pair if name in priors] for pair in components]
    total = {*split, "sd", "s2"} & set(priors)
    registered: set[str] = set()
    if any(given):
        if total or any(len(found) != 1 for found in given):
            raise InputError(
                f"Priors on {listing(sorted(total | set().union(*given)), 20)} do not define the "
                "variances: "
                "give share (or repeatability and genetic_part) and sd (or s2), or one each of "
                "sd_g, s2_g, of sd_p, s2_p and of sd_e, s2_e."
            )
        parts = []
        for (name,) in given:
            variable = prior_variable(name, priors)
            scale = kappa if name in ("sd_g", "s2_g") else 1.0
            parts.append(variable**2 if name.startswith("sd") else variable * scale)
        s2 = pm.Deterministic("s2", sum(parts))
        share = [part / s2 for part in parts]
        registered |= {name for (name,) in given}
    else:
        if {"sd", "s2"} <= total:
            raise InputError("Priors on sd and on s2 = sd^2 contradict each other: give one.")
        if "share" in priors:
            if len(total & set(split)) > 1:
                raise InputError("A prior on share is one on repeatability and genetic_part too.")
            share = prior_variable("share", priors, dims="part")
        else:
            # Dirichlet(1, 1, 1) on the shares, in two variables that the data tell apart.
            t = prior_variable("repeatability", priors, lambda name: pm.Beta(name, 2, 1))
            f = prior_variable("genetic_part", priors, lambda name: pm.Uniform(name, 0, 1))
            share = [t * f, t * (1 - f), 1 - t]
            registered.add("repeatability")
        if "s2" in priors:
            s2 = prior_variable("s2", priors)
        else:
            sd = prior_variable("sd", priors, lambda name: pm.HalfStudentT(name, nu=4, sigma=sd_y))
            s2 = pm.Deterministic("s2", sd**2)
        parts = [s2 * share[j] for j in range(3)]
    pm.Deterministic("h2", share[0])
    if "repeatability" not in registered:
        pm.Deterministic("repeatability", share[0] + share[1])
    parts[0] = parts[0] / kappa
    for name, part in zip(("s2_g", "s2_p", "s2_e"), parts, strict=True):
        if name not in registered:
            pm.Deterministic(name, part)
    return parts[0], parts[1], parts[2]


# -- sampling ------------------------------------------------------------------------------------


def sample(
    model: RepeatedLMM,
    priors: Mapping[str, Any],
    settings: dict[str, int],
    *,
    seed: int | None,
    u: bool,
    p: bool,
    progress: bool,
) -> xr.DataTree:
    """Draws by NUTS; `settings` are draws, tune and chains of `RepeatedLMM.sample`."""
    for name, value in settings.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, but is {value}.")
    seed = fresh_seed() if seed is None else seed
    settings = settings | {"seed": seed}
    raw = _nutpie(model, priors, settings, progress=progress)
    tree = _tree(model, raw, priors, settings, u=u, p=p)
    check_sampling(tree)
    return tree


def _nutpie(
    model: RepeatedLMM, priors: Mapping[str, Any], settings: dict[str, int], *, progress: bool
) -> xr.DataTree:
    """What nutpie returns: parameters of the code, and the sampler's account."""
    import nutpie

    data, arrays = model_records(model), model_arrays(model)
    # Balanced models of one shape share a compilation; only their data change.
    key = (model.C.shape[1], len(arrays["y_within"]))
    reusable = not priors and "U_fewer" not in arrays
    compiled = _compiled.get(key) if reusable else None
    if compiled is None:
        compiled = nutpie.compile_pymc_model(
            pymc_model(model, "eigenbasis", priors=priors), backend="numba"
        )
        if reusable:
            _compiled[key] = compiled
    else:
        own = {
            "C_mean": data.C_mean,
            "C_scale": data.C_scale,
            "constant": data.constant,
            "y_mean": data.y_mean,
        }
        new = {name: np.asarray(value) for name, value in (arrays | own).items()}
        compiled = compiled.with_data(**new)
    return nutpie.sample(compiled, **settings, save_warmup=False, progress_bar=progress)


def _tree(
    model: RepeatedLMM,
    raw: xr.DataTree,
    priors: Mapping[str, Any],
    settings: dict[str, int],
    *,
    u: bool,
    p: bool,
) -> xr.DataTree:
    """Draws in the model's own names, with u and p on request, beside the data."""
    import xarray as xr

    values = raw["posterior"].dataset
    stats = raw["sample_stats"].dataset
    along = ["chain", "draw"]
    names = ("h2", "repeatability", "s2_g", "s2_p", "s2_e", "s2")
    draws = {name: values[name].to_numpy() for name in (*names, "b")}
    arrays = {name: (along, draws[name]) for name in names}
    total = draws["s2_g"] + draws["s2_p"] + draws["s2_e"]
    arrays["vg_over_vp"] = (along, draws["s2_g"] / total)
    h2, t = draws["h2"], draws["repeatability"]
    arrays["share"] = ([*along, "part"], np.stack([h2, t - h2, 1 - t], axis=-1))
    arrays["b"] = ([*along, "covariate"], draws["b"])
    coords: dict[str, Any] = {
        "chain": np.arange(values.sizes["chain"]),
        "draw": np.arange(values.sizes["draw"]),
        "covariate": list(model.C.columns),
        "part": list(PARTS),
    }
    if u or p:
        shape = (*h2.shape, len(model.individuals))
        w = values["w"].to_numpy().reshape(h2.size, -1) if "w" in values else None
        rng = np.random.default_rng([settings["seed"], 1])
        s2_g, s2_p, s2_e = (draws[name].reshape(-1) for name in ("s2_g", "s2_p", "s2_e"))
        both = draw_effects(model, s2_g, s2_p, s2_e, draws["b"].reshape(h2.size, -1), w, rng)
        for name, wanted, effect in zip(("u", "p"), (u, p), both, strict=True):
            if wanted:
                arrays[name] = ([*along, "individual"], effect.reshape(shape))
        coords["individual"] = list(model.individuals)
    attrs = provenance() | {
        "formula": model.formula,
        "n_records": len(model.y),
        "n_individuals": len(model.individuals),
        "kappa": model.basis.kappa,
        "priors": {name: described(prior) for name, prior in priors.items()},
        "sampler": "nutpie NUTS",
    }
    wanted_stats = ("diverging", "energy", "logp", "n_steps", "depth", "step_size")
    chain_draw = {"chain": coords["chain"], "draw": coords["draw"]}
    record = {"record": list(model.C.index)}
    owner = model.owner.to_numpy(dtype=str)
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=attrs | settings),
            "posterior": xr.Dataset(arrays, coords, attrs | settings),
            "sample_stats": xr.Dataset(
                {name: (along, stats[name].to_numpy()) for name in wanted_stats if name in stats},
                chain_draw,
            ),
            "observed_data": xr.Dataset({"y": ("record", model.y)}, record),
            "constant_data": xr.Dataset(
                {
                    "C": (("record", "covariate"), model.C.to_numpy()),
                    "individual": ("record", owner),
                },
                record | {"covariate": coords["covariate"]},
            ),
        }
    )


def draw_effects(
    model: RepeatedLMM,
    s2_g: np.ndarray,
    s2_p: np.ndarray,
    s2_e: np.ndarray,
    b: np.ndarray,
    w: np.ndarray | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A draw of u and of p given y and each draw of the rest (d,), each (d, n).

    u given w is diagonal on the basis; p given u (and not w) is diagonal.
    """
    basis, counts = model.basis, model.counts.to_numpy()
    summary = summarise(np.column_stack([model.C, model.y]), model.owner_index, basis.n)
    fewer, R = np.flatnonzero(counts < counts.max()), counts.max()
    S = np.asarray(basis.values)[:, None]
    u, p = np.empty((len(s2_g), basis.n)), np.empty((len(s2_g), basis.n))
    step = max(1, 2**22 // basis.n)
    for i in range(0, len(s2_g), step):
        at = slice(i, i + step)
        residual = summary.means[:, -1:] - summary.means[:, :-1] @ b[at].T
        balanced = residual.copy()
        if w is not None:
            balanced[fewer] -= w[at].T
        genetic = s2_g[at] * S
        rest = s2_p[at] + s2_e[at] / R
        gain = genetic / (genetic + rest)
        z = gain * basis.rotate(balanced)
        z += np.sqrt(gain * rest) * rng.standard_normal(z.shape)
        u[at] = basis.unrotate(z).T
        noise = s2_e[at] / counts[:, None]
        gain = s2_p[at] / (s2_p[at] + noise)
        p[at] = (
            gain * (residual - u[at].T)
            + np.sqrt(gain * noise) * rng.standard_normal(residual.shape)
        ).T
    return u, p
