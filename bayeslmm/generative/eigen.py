r"""The linear mixed model as PyMC code: to read, to sample, to change.

The model of n samples, with K = U diag(S) U', kappa the mean of S and x standardised:

    h2 ~ Uniform(0, 1)                         share of genetic variance
    sd ~ HalfStudentT(4, sd(y))                total standard deviation
    s2_g = sd^2 h2 / kappa,  s2_e = sd^2 (1 - h2)
    b  ~ Normal(0, 10 sd(y) / sd(C))           covariate effects
    beta_std ~ (see `bayeslmm.priors`)         SNP effects, in sd per sd of genotype
    y  = C b + X beta + u + e,  u ~ Normal(0, s2_g K),  e ~ Normal(0, s2_e I)

in three forms with the same posterior:

- ``explicit``: u is a variable, u = U sqrt(s2_g S) z with z standard normal;
- ``marginal``: u integrated out, y multivariate normal with the dense matrix V;
- ``eigenbasis``: u integrated out and everything rotated by U', independent normals with
  variances s2_g S + s2_e. O(n) per evaluation: this is the one to sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bayeslmm.bases.basis import dense_vectors
from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.model.effects import snp_terms
from bayeslmm.model.snps import SelectedSnps, selected_snps
from bayeslmm.numerics.quadrature import unit_density
from bayeslmm.priors import R2D2, H2Prior, Horseshoe, Normal, SnpPrior, SpikeSlab, as_snp_prior

if TYPE_CHECKING:
    import pymc as pm

    from bayeslmm.model.lmm import LMM

Form = Literal["explicit", "marginal", "eigenbasis"]
_DENSITY_PIECES = 1000
FORMS = ("explicit", "marginal", "eigenbasis")


# -- the data of a model ---------------------------------------------------------------------


@dataclass(frozen=True)
class ModelData:
    """What the model sees: y, C and X in sample space, and rotated by U'.

    If the covariates span the constant, y is centred (its mean is `y_mean`), and with an
    intercept every other covariate too (their means are `C_mean`): the sampled intercept
    is that of an average sample. `constant` are the coefficients with C constant = 1, or 0
    without. `snp_axes` is an orthogonal matrix (k, k): the directions in which the SNPs'
    effects are uncorrelated, whatever their LD.
    """

    y: np.ndarray
    C: np.ndarray
    X: np.ndarray
    y_rotated: np.ndarray
    C_rotated: np.ndarray
    X_rotated: np.ndarray
    S: np.ndarray
    kappa: float
    y_mean: float
    C_mean: np.ndarray
    C_scale: np.ndarray
    constant: np.ndarray
    snp_axes: np.ndarray
    sd_y: float
    covariates: list[str]
    snps: SelectedSnps
    samples: list[str]

    def raw_effects(self, b: np.ndarray) -> np.ndarray:
        """Effects of the covariates as they are, from those of the centred ones, (..., c)."""
        return b + (self.y_mean - b @ self.C_mean)[..., None] * self.constant

    def centered_effects(self, b: np.ndarray) -> np.ndarray:
        """The way back from `raw_effects`."""
        return b + (b @ self.C_mean - self.y_mean)[..., None] * self.constant


def model_data(model: LMM, snps: SelectedSnps) -> ModelData:
    """Centre, scale and rotate what a model needs."""
    C = model.C.to_numpy()
    is_constant = np.ptp(C, axis=0) == 0
    scale = np.where(is_constant, np.abs(C).max(axis=0, initial=0), C.std(axis=0))
    C_mean, constant, y_mean = np.zeros(C.shape[1]), np.zeros(C.shape[1]), 0.0
    if is_constant.any():
        C_mean = np.where(is_constant, 0.0, C.mean(axis=0))
        constant = is_constant / np.where(is_constant, C[0], 1.0)
    elif model.has_intercept:
        constant = np.linalg.lstsq(C, np.ones(len(C)), rcond=None)[0]
    if constant.any():
        y_mean = float(model.y.mean())
    C_centered = C - C_mean
    y = model.y - y_mean
    basis = model.basis
    rotate = (lambda a: a) if basis is None else basis.rotate
    n = len(y)
    X_rotated = rotate(snps.x)
    return ModelData(
        y=y,
        C=C_centered,
        X=snps.x,
        y_rotated=rotate(y),
        C_rotated=rotate(C_centered),
        X_rotated=X_rotated,
        S=np.zeros(n) if basis is None else np.asarray(basis.values),
        kappa=1.0 if basis is None else basis.kappa,
        y_mean=y_mean,
        C_mean=C_mean,
        C_scale=scale,
        constant=constant,
        snp_axes=_snp_axes(model, X_rotated / snps.sd),
        sd_y=float(np.std(model.y)),
        covariates=list(model.C.columns),
        snps=snps,
        samples=list(model.ids),
    )


def _snp_axes(model: LMM, Z: np.ndarray) -> np.ndarray:
    """Eigenvectors of X'PX of rotated standardised SNPs at the REML estimate of h2, (k, k)."""
    if Z.shape[1] < 2:
        return np.eye(Z.shape[1])
    h2 = 0.0 if model.basis is None else model.reml().h2
    return np.linalg.eigh(snp_terms(model.rotated, Z, np.array([h2])).M[0])[1]


# -- the model -------------------------------------------------------------------------------


def pymc_model(
    model: LMM,
    parameterization: Form = "eigenbasis",
    *,
    snps: Any = None,
    genotypes: Genotypes | None = None,
    snp_prior: Any = "normal",
    priors: Mapping[str, Any] | None = None,
    observe: bool = True,
) -> pm.Model:
    """The linear mixed model as a `pymc.Model`.

    Parameters
    ----------
    model : LMM
        Phenotype, covariates, kernel and the prior of h2.
    parameterization : {"eigenbasis", "explicit", "marginal"}
        Three forms of one posterior; see the module's text.
    snps : variant ids, or DataFrame (samples x SNPs), optional
        SNPs whose effects are estimated jointly.
    genotypes : Genotypes, optional
        Where the ids are looked up; by default the genotypes of the kernel.
    snp_prior : str or `bayeslmm.priors.SnpPrior`
        ``"normal"``, ``"horseshoe"`` or ``"r2d2"``.
    priors : mapping, optional
        Priors by variable, each a PyMC distribution (``pm.Beta.dist(2, 3)``), a
        pymc-extras ``Prior``, or a callable that is given the variable's name inside
        the model and returns it. Names: h2 and sd (or s2); or instead of these two
        sd_g and sd_e (or s2_g and s2_e); b; beta_std. sd_g is the standard deviation
        of the genetic values, sqrt(s2_g kappa). A prior of b is that of the effects as
        they are reported, of covariates and phenotype that are not centred.
    observe : bool
        Whether to add the observed variable. Without it the model has the node ``mean``
        (C b + X beta), the data ``y_obs``, and ``noise_sd`` in the eigenbasis form or u
        in the explicit one, for an observation model of your own.

    Returns
    -------
    pymc.Model
        Named dimensions covariate, snp, sample, eigenvector. Variables: h2, sd, s2,
        s2_g, s2_e; b (covariate; the intercept that of the raw covariates); beta
        (phenotype units per effect allele) and beta_std; u in the explicit form.
    """
    if parameterization not in FORMS:
        raise InputError(
            f"parameterization='{parameterization}' is unknown; expected one of {listing(FORMS)}."
        )
    if model.basis is None:
        raise InputError("A generative model needs a kernel; this LMM has none.")
    chosen = as_snp_prior(snp_prior)
    if isinstance(chosen, SpikeSlab):
        raise InputError(
            "Spike-and-slab is computed exactly, not sampled by NUTS: "
            "use lmm.sample(snps=..., snp_prior='spike_slab')."
        )
    data = model_data(model, selected_snps(model, snps, genotypes))
    return build(
        data,
        parameterization,
        model.h2_prior,
        chosen,
        priors or {},
        basis=model.basis,
        observe=observe,
    )


def build(
    data: ModelData,
    form: Form,
    h2_prior: H2Prior,
    snp_prior: SnpPrior,
    priors: Mapping[str, Any],
    *,
    basis: Any = None,
    observe: bool = True,
) -> pm.Model:
    """The PyMC code itself (see `pymc_model`)."""
    import pymc as pm
    import pytensor.tensor as pt

    check_names(priors, n_snps=len(data.snps.ids))
    coords: dict[str, Any] = {"covariate": data.covariates}
    rotated = form == "eigenbasis"
    rows = "eigenvector" if rotated else "sample"
    if not rotated:
        coords["sample"] = data.samples
    coords["eigenvector"] = np.arange(len(data.S))
    if len(data.snps.ids):
        coords["snp"] = data.snps.ids
    with pm.Model(coords=coords) as model:
        y = pm.Data("y_obs", data.y_rotated if rotated else data.y, dims=rows)
        C = pm.Data("C", data.C_rotated if rotated else data.C, dims=(rows, "covariate"))
        S = pm.Data("S", data.S, dims="eigenvector")
        kappa = pm.Data("kappa", data.kappa)
        sd_y = pm.Data("sd_y", data.sd_y)

        # Variance components and SNP effects.
        if isinstance(snp_prior, R2D2) and len(data.snps.ids):
            sd, s2_g, s2_e, beta_std = _r2d2(
                snp_prior, h2_prior, priors, sd_y, kappa, len(data.snps.ids)
            )
        else:
            sd, s2_g, s2_e = variances(h2_prior, priors, sd_y, kappa)
            beta_std = _snp_effects(data, snp_prior, priors) if len(data.snps.ids) else None

        # Fixed effects: those of centred covariates are sampled, and reported as they are.
        b = covariate_effects(data, priors, sd_y)
        mean = pt.dot(C, b)
        if beta_std is not None:
            X = pm.Data("X", data.X_rotated if rotated else data.X, dims=(rows, "snp"))
            x_sd = pm.Data("x_sd", data.snps.sd, dims="snp")
            beta = pm.Deterministic("beta", beta_std * sd / x_sd, dims="snp")
            mean = mean + pt.dot(X, beta)

        if not observe:
            pm.Deterministic("mean", mean, dims=rows)

        # y = C b + X beta + u + e, in one of three forms.
        if form == "explicit":
            U = pm.Data(
                "U", dense_vectors(basis, "The explicit form"), dims=("sample", "eigenvector")
            )
            z = pm.Normal("z", dims="eigenvector")
            u = pm.Deterministic("u", pt.dot(U, pt.sqrt(s2_g) * pt.sqrt(S) * z), dims="sample")
            if observe:
                pm.Normal("y", mean + u, pt.sqrt(s2_e), observed=y, dims="sample")
        elif form == "marginal":
            n = len(data.y)
            vectors = dense_vectors(basis, "The marginal form")
            K = pm.Data("K", (vectors * basis.values) @ vectors.T)
            if observe:
                V = s2_g * K + s2_e * pt.eye(n)
                pm.MvNormal("y", mean, cov=V, observed=y, dims="sample")
        else:
            noise_sd = pt.sqrt(s2_g * S + s2_e)
            if observe:
                pm.Normal("y_rotated", mean, noise_sd, observed=y, dims=rows)
            else:
                pm.Deterministic("noise_sd", noise_sd, dims=rows)
    return model


def variances(
    h2_prior: H2Prior, priors: Mapping[str, Any], sd_y: Any, kappa: Any
) -> tuple[Any, Any, Any]:
    """h2 and the total scale, or the two components, as the priors say."""
    import pymc as pm
    import pytensor.tensor as pt

    by_component = {"sd_g", "sd_e", "s2_g", "s2_e"} & set(priors)
    if by_component:
        each = [len(by_component & {f"sd_{part}", f"s2_{part}"}) for part in "ge"]
        if {"h2", "sd", "s2"} & set(priors) or each != [1, 1]:
            raise InputError(
                f"Priors on {listing(sorted(priors))} do not define the variances: give h2 and sd "
                "(or s2), or one of sd_g, s2_g and one of sd_e, s2_e."
            )
        genetic = (
            prior_variable("sd_g", priors) ** 2
            if "sd_g" in priors
            else prior_variable("s2_g", priors) * kappa
        )
        s2_e = (
            pm.Deterministic("s2_e", prior_variable("sd_e", priors) ** 2)
            if "sd_e" in priors
            else prior_variable("s2_e", priors)
        )
        s2_g = pm.Deterministic("s2_g", genetic / kappa) if "sd_g" in priors else genetic / kappa
        s2 = pm.Deterministic("s2", genetic + s2_e)
        pm.Deterministic("h2", genetic / s2)
        return pt.sqrt(s2), s2_g, s2_e
    h2 = prior_variable("h2", priors, lambda name: h2_variable(name, h2_prior))
    if "s2" in priors:
        s2 = prior_variable("s2", priors)
        sd = pm.Deterministic("sd", pt.sqrt(s2))
    else:
        sd = prior_variable("sd", priors, lambda name: pm.HalfStudentT(name, nu=4, sigma=sd_y))
        s2 = pm.Deterministic("s2", sd**2)
    s2_g = pm.Deterministic("s2_g", s2 * h2 / kappa)
    s2_e = pm.Deterministic("s2_e", s2 * (1 - h2))
    return sd, s2_g, s2_e


def h2_variable(name: str, prior: H2Prior) -> Any:
    """A variable of a PyMC model with a prior on h2."""
    import pymc as pm

    if prior.spike:
        raise InputError(
            f"h2 ~ {prior}: NUTS cannot sample a point mass at 0. Use lmm.posterior(), which "
            "treats it exactly, or a prior without spike."
        )
    if prior.parameters is None:
        return _any_density(name, prior)
    a, b = prior.parameters
    return pm.Uniform(name, 0, 1) if a == b == 1 else pm.Beta(name, a, b)


def density_pieces(prior: H2Prior) -> np.ndarray:
    """Coefficients of a monotone cubic interpolation of the log density, (pieces, 4).

    Equal steps in w = arccos(1 - 2 h2) / pi are short ones towards both ends of h2.
    """
    from scipy.interpolate import PchipInterpolator

    w = np.linspace(0, 1, _DENSITY_PIECES + 1)
    values = prior.log_density(np.clip(np.sin(0.5 * np.pi * w) ** 2, 1e-12, 1 - 1e-12))
    values = np.maximum(values, values[np.isfinite(values)].max() - 500)
    return PchipInterpolator(w, values).c.T


def _any_density(name: str, prior: H2Prior) -> Any:
    """A variable on (0, 1) with a given density: cubic pieces in w = arccos(1 - 2 h2) / pi.

    The pieces are data: another density needs no other compilation.
    """
    import pymc as pm
    import pytensor.tensor as pt
    from pymc.distributions.transforms import Interval

    pieces = pm.Data("h2_density", density_pieces(prior))

    def logp(value: Any, pieces: Any) -> Any:
        inside = pt.clip(value, 1e-12, 1 - 1e-12)
        at = pt.arccos(1 - 2 * inside) / np.pi
        piece = pt.floor(at * _DENSITY_PIECES).astype("int64")
        t = at - piece / _DENSITY_PIECES
        c = pieces[pt.clip(piece, 0, _DENSITY_PIECES - 1)]
        return ((c[..., 0] * t + c[..., 1]) * t + c[..., 2]) * t + c[..., 3]

    normalised = cache(lambda: unit_density(prior.log_density))

    def random(pieces: np.ndarray, rng: np.random.Generator, size: Any = None) -> np.ndarray:
        return normalised().quantile(rng.random(size))

    return pm.CustomDist(
        name,
        pieces,
        logp=logp,
        random=random,
        support_point=lambda rv, size, pieces: pt.constant(0.5),
        signature="(p,q)->()",
        default_transform=Interval(0, 1),
    )


def covariate_effects(data: ModelData, priors: Mapping[str, Any], sd_y: Any) -> Any:
    """b of the centred covariates; registers ``b``, that of the covariates as they are."""
    import pymc as pm
    import pytensor.tensor as pt

    C_mean = pm.Data("C_mean", data.C_mean, dims="covariate")
    C_scale = pm.Data("C_scale", data.C_scale, dims="covariate")
    constant = pm.Data("constant", data.constant, dims="covariate")
    y_mean = pm.Data("y_mean", data.y_mean)
    if "b" in priors:
        b = prior_variable("b", priors, dims="covariate")
        return b + (pt.dot(C_mean, b) - y_mean) * constant
    b_std = pm.Normal("b_std", 0, 10, dims="covariate")
    b = b_std * sd_y / C_scale
    pm.Deterministic("b", b + (y_mean - pt.dot(C_mean, b)) * constant, dims="covariate")
    return b


def _snp_effects(data: ModelData, prior: SnpPrior, priors: Mapping[str, Any]) -> Any:
    import pymc as pm
    import pytensor.tensor as pt

    if "beta_std" in priors:
        return prior_variable("beta_std", priors, dims="snp")
    width = snp_widths(prior)
    if isinstance(prior, Normal):
        # The rotation leaves independent normals what they are, and undoes the SNPs' LD.
        snp_axes = pm.Data("snp_axes", data.snp_axes)
        z = pt.dot(snp_axes, pm.Normal("beta_z", size=len(data.snps.ids)))
    else:
        z = pm.Normal("beta_z", dims="snp")
    return pm.Deterministic("beta_std", z * width, dims="snp")


def snp_widths(prior: SnpPrior) -> Any:
    """Prior standard deviation of the standardised SNP effects, given its own parameters."""
    import pymc as pm
    import pytensor.tensor as pt

    if isinstance(prior, Normal):
        return pm.Data("phi", prior.phi)
    if isinstance(prior, Horseshoe):
        # Piironen & Vehtari (2017), equations 2.7 and 2.8, on the scale of the total sd.
        tau = pm.HalfStudentT("tau", nu=1, sigma=prior.global_scale)
        local = pm.HalfStudentT("lambda", nu=1, sigma=1, dims="snp")
        slab2 = pm.InverseGamma("slab2", prior.slab_df / 2, prior.slab_df / 2 * prior.slab**2)
        return tau * local * pt.sqrt(slab2 / (slab2 + tau**2 * local**2))
    raise InputError(f"{prior!r} is no prior for SNP effects in a PyMC model.")


def check_r2d2(h2_prior: H2Prior, priors: Mapping[str, Any]) -> None:
    """Refuse priors on what R2D2 defines."""
    clash = set(priors) & {"h2", "s2", "sd_g", "sd_e", "s2_g", "s2_e", "beta_std"}
    if clash:
        raise InputError(
            f"R2D2 defines the split of the variance: no prior on {listing(sorted(clash))} beside "
            "it. Change R2D2's parameters instead."
        )
    if h2_prior.spike or h2_prior.parameters != (1.0, 1.0):
        raise InputError(
            f"R2D2 defines the prior of h2: h2_prior={h2_prior} would have no part in it. Leave it "
            "at its default, and change R2D2's parameters instead."
        )


def _r2d2(
    prior: R2D2, h2_prior: H2Prior, priors: Mapping[str, Any], sd_y: Any, kappa: Any, k: int
) -> tuple[Any, Any, Any, Any]:
    """Split the total variance: R2 to genetics, by a Dirichlet to SNPs and polygenic part."""
    import pymc as pm
    import pytensor.tensor as pt

    check_r2d2(h2_prior, priors)
    sd = prior_variable("sd", priors, lambda name: pm.HalfStudentT(name, nu=4, sigma=sd_y))
    r2 = pm.Beta("r2", prior.a, prior.b)
    weights = np.append(np.full(k, prior.concentration), prior.polygenic)
    share = pm.Dirichlet("share", weights)
    z = pm.Normal("beta_z", dims="snp")
    beta_std = pm.Deterministic("beta_std", z * pt.sqrt(r2 * share[:k]), dims="snp")
    genetic = sd**2 * r2 * share[k]
    s2_e = pm.Deterministic("s2_e", sd**2 * (1 - r2))
    s2_g = pm.Deterministic("s2_g", genetic / kappa)
    s2 = pm.Deterministic("s2", genetic + s2_e)
    pm.Deterministic("h2", genetic / s2)
    return sd, s2_g, s2_e, beta_std


_NAMES = ("h2", "sd", "s2", "sd_g", "sd_e", "s2_g", "s2_e", "b", "beta_std")


def check_names(priors: Mapping[str, Any], *, n_snps: int) -> None:
    """Refuse priors on what is not there, or twice."""
    unknown = set(priors) - set(_NAMES)
    if unknown:
        raise InputError(
            f"Priors for {listing(sorted(unknown))}: no such variable. "
            f"There are {listing(_NAMES, 20)}."
        )
    if "beta_std" in priors and not n_snps:
        raise InputError("A prior for beta_std, but the model has no SNPs: give snps=.")
    if {"sd", "s2"} <= set(priors):
        raise InputError("Priors on sd and on s2 = sd^2 contradict each other: give one of them.")


def prior_variable(
    name: str,
    priors: Mapping[str, Any],
    default: Callable[[str], Any] | None = None,
    *,
    dims: str | None = None,
) -> Any:
    """A model variable from a prior in any of the ways that the ecosystem writes them."""
    import pymc as pm
    from pytensor.tensor.variable import TensorVariable

    prior = priors.get(name, default)
    if hasattr(prior, "create_variable"):
        return _of_shape(prior.create_variable(name), name, dims)
    if isinstance(prior, TensorVariable):
        from pymc.distributions.shape_utils import change_dist_size

        model = pm.modelcontext(None)
        # A new variable each time: one distribution may be the prior of several.
        size = () if dims is None else (len(model.coords[dims] or ()),)
        own = getattr(prior.owner.op, "ndim_supp", 0)  # a Dirichlet is a vector by itself
        prior = change_dist_size(prior, size[: len(size) - own]) if own <= len(size) else prior
        _of_shape(prior, name, dims)
        return model.register_rv(prior, name, dims=None if dims is None else (dims,))
    if callable(prior):
        return _of_shape(prior(name), name, dims)
    raise InputError(
        f"The prior of {name} is {prior!r}; expected a PyMC distribution such as "
        "pm.Beta.dist(2, 3), a pymc-extras Prior, or a function of the name."
    )


def _of_shape(variable: Any, name: str, dims: str | None) -> Any:
    """The variable, if it has as many dimensions as it should."""
    expected = 0 if dims is None else 1
    if getattr(variable, "ndim", None) != expected:
        raise InputError(
            f"The prior of {name} made {variable!r}; expected a variable "
            + (f"with dims='{dims}'." if dims else "without dimensions.")
        )
    return variable
