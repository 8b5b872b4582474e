"""The linear mixed model: a specification, its point estimates and its exact posterior."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm import likelihood
from bayeslmm.basis import Eigenbasis
from bayeslmm.errors import InputError
from bayeslmm.genotypes import Genotypes
from bayeslmm.phenotypes import (
    Design,
    design_from_arrays,
    design_from_formula,
    read_phenotypes,
)
from bayeslmm.priors import H2Prior, as_h2_prior
from bayeslmm.progress import log
from bayeslmm.provenance import provenance
from bayeslmm.quadrature import UnitDensity, unit_density
from bayeslmm.relatedness import GRM, as_grm

if TYPE_CHECKING:
    import xarray as xr

type Kernel = GRM | Eigenbasis | pd.DataFrame | np.ndarray
_GRID = np.unique(np.concatenate([[0], np.geomspace(1e-6, 0.05, 12), np.linspace(0.06, 0.94, 45)]))
_GRID = np.unique(np.concatenate([_GRID, 1 - _GRID[:14], [likelihood.LARGEST_H2]]))
_GRID = _GRID[_GRID <= likelihood.LARGEST_H2]


@dataclass(frozen=True)
class Fit:
    """Point estimates of a linear mixed model.

    Attributes
    ----------
    method : str
        "REML" or "MAP".
    h2, h2_se : float
        s2_g kappa / (s2_g kappa + s2_e), and its standard error from the curvature of
        the profiled likelihood (GEMMA's pve and se(pve)); NaN on a boundary, where
        no standard error is meaningful.
    s2_g, s2_e, s2_g_se, s2_e_se : float
        Variance components (phenotype units squared) and their standard errors.
    s2 : float
        Total variance, s2_g kappa + s2_e.
    kappa : float
        Mean diagonal of the centred K.
    b : DataFrame
        Covariate effects: columns estimate and se.
    loglik : float
        Restricted log-likelihood (REML) at the estimate.
    n : int
        Number of samples.
    boundary : str
        "", "h2 = 0" or "h2 = 1" if the estimate lies there.
    """

    method: str
    h2: float
    h2_se: float
    s2_g: float
    s2_e: float
    s2_g_se: float
    s2_e_se: float
    s2: float
    kappa: float
    b: pd.DataFrame = field(repr=False)
    loglik: float
    n: int
    boundary: str

    @property
    def vg_over_vp(self) -> float:
        """s2_g / (s2_g + s2_e), without kappa: GCTA's V(G)/Vp."""
        return self.s2_g / (self.s2_g + self.s2_e)

    def __str__(self) -> str:
        se = "no SE: " + self.boundary if self.boundary else f"SE {self.h2_se:.4f}"
        return (
            f"{self.method} (n = {self.n:,}): h2 = {self.h2:.4f} ({se}), "
            f"s2_g = {self.s2_g:.5g}, s2_e = {self.s2_e:.5g}, kappa = {self.kappa:.4g}, "
            f"V(G)/Vp = {self.vg_over_vp:.4f}, restricted log-likelihood {self.loglik:.2f}"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = {
            "h2": (self.h2, self.h2_se),
            "s2_g": (self.s2_g, self.s2_g_se),
            "s2_e": (self.s2_e, self.s2_e_se),
        }
        table = pd.DataFrame(rows, index=["estimate", "se"]).T
        table = pd.concat([table, self.b])
        note = f"on the boundary {self.boundary}: no standard error" if self.boundary else ""
        caption = f"{self.method}, n = {self.n:,}, log-likelihood {self.loglik:.2f}. {note}"
        return f"<p>{caption}</p>" + table.to_html(float_format="{:.5g}".format, na_rep="-")


class LMM:
    """A linear mixed model: y = C b + u + e, u ~ N(0, s2_g K), e ~ N(0, s2_e I).

    It is a specification: nothing is computed until a method is called. What the
    methods share (the basis of the analysed samples, the rotated data) is computed
    once and kept.

    Parameters
    ----------
    formula : str, or array (n,), or Series
        ``"cd8 ~ sex + age"``, or the phenotype itself.
    data : DataFrame or path, or array (n, c)
        The table that the formula refers to, indexed by sample id (or a file to
        read); for a phenotype given as an array, the covariates without intercept.
    kernel : Eigenbasis, GRM, DataFrame, array (n, n), or None
        Relatedness. Samples are matched by id, whatever the order. None is plain
        linear regression.
    h2_prior : prior
        ``"uniform"`` (default), a `bayeslmm.priors.H2Prior`, a function of h2, or a
        scipy distribution.
    id : str, optional
        Column of `data` that holds the sample ids, if its index does not.
    missing : {"error", "drop"}
        What a missing covariate does.

    Attributes
    ----------
    y : ndarray, shape (n,)
        Phenotypes of the analysed samples, in the kernel's order.
    C : DataFrame, shape (n, c)
        Their covariates.
    samples : DataFrame
        Every sample of the table and of the kernel: kept, and the reason if not.

    Raises
    ------
    InputError
        For what cannot be aligned or fitted; the message says what and why.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> x = rng.integers(0, 3, size=(200, 500))
    >>> u = (x - x.mean(0)) @ rng.normal(size=500)
    >>> y = u / u.std() + rng.normal(size=200)
    >>> model = bl.LMM(y, kernel=bl.grm(x))
    >>> print(f"{model.reml().h2:.2f}")
    0.65
    """

    def __init__(
        self,
        formula: str | np.ndarray | pd.Series,
        data: pd.DataFrame | np.ndarray | str | os.PathLike[str] | None = None,
        kernel: Kernel | None = None,
        *,
        h2_prior: Any = "uniform",
        id: str | None = None,
        missing: Literal["error", "drop"] = "error",
    ) -> None:
        self.h2_prior: H2Prior = as_h2_prior(h2_prior)
        self._kernel: GRM | Eigenbasis | None = (
            kernel if kernel is None or isinstance(kernel, Eigenbasis) else as_grm(kernel)
        )
        ids = None if self._kernel is None else self._kernel.samples
        labelled = self._kernel is not None and self._kernel.labelled
        if isinstance(formula, str):
            self.formula = formula
            self._design = _design(formula, data, id, ids, labelled=labelled, missing=missing)
        else:
            if isinstance(data, str | os.PathLike):
                raise InputError("With the phenotype as an array, covariates are an array too.")
            self._design = design_from_arrays(formula, data, ids, labelled_kernel=labelled)
            self.formula = " + ".join([f"{self._design.name} ~ 1", *self._design.C.columns[1:]])

    @property
    def y(self) -> np.ndarray:
        """Phenotypes of the analysed samples, shape (n,)."""
        return self._design.y

    @property
    def C(self) -> pd.DataFrame:
        """Covariates of the analysed samples, shape (n, c), full column rank."""
        return self._design.C

    @property
    def samples(self) -> pd.DataFrame:
        """Every sample of the table and of the kernel: kept (bool) and reason (text)."""
        return self._design.account

    @property
    def ids(self) -> pd.Index:
        """Ids of the analysed samples, in the order of `y`."""
        return self._design.ids

    @cached_property
    def basis(self) -> Eigenbasis | None:
        """The eigenbasis of the analysed samples; None without kernel."""
        if self._kernel is None:
            return None
        whole = self._kernel.samples
        if isinstance(self._kernel, GRM):
            return self._kernel.eigenbasis(self.ids, center=self.has_intercept)
        if self._kernel.centered and not self.has_intercept:
            raise InputError(
                "The model has no intercept, but the basis is of a centred kernel. Use "
                "bl.eigenbasis(grm, center=False), or keep the intercept."
            )
        if len(self.ids) < len(whole):
            log.info(
                "%s of the basis' %s samples are analysed: its kernel is decomposed on them.",
                f"{len(self.ids):,}",
                f"{len(whole):,}",
            )
        return self._kernel.subset(self.ids)

    @property
    def has_intercept(self) -> bool:
        """Whether the covariates span the constant."""
        ones = np.ones(len(self.y))
        C = self.C.to_numpy()
        return bool(np.allclose(C @ np.linalg.lstsq(C, ones, rcond=None)[0], ones, atol=1e-8))

    @cached_property
    def rotated(self) -> likelihood.Rotated:
        """y and C on the eigenbasis."""
        return likelihood.rotate(self.basis, self.y, self.C.to_numpy())

    def __repr__(self) -> str:
        kept = int(self.samples.kept.sum())
        lines = [f"LMM  {self.formula}", f"  samples  {kept:,} analysed"]
        dropped = self.samples.reason[~self.samples.kept].value_counts()
        lines += [f"           {count:,} dropped: {reason}" for reason, count in dropped.items()]
        lines.append(f"  covariates  {', '.join(self.C.columns) or 'none'}")
        lines.append(
            f"  kernel   {self._kernel!r}" if self._kernel is not None else "  kernel   none"
        )
        if self._kernel is not None:
            if "basis" in self.__dict__ and self.basis is not None:
                lines.append(f"           kappa {self.basis.kappa:.4g} on the analysed samples")
            lines.append(f"  priors   h2 ~ {self.h2_prior}, p(s2) ~ 1/s2, covariates flat")
        return "\n".join(lines)

    # -- point estimates ---------------------------------------------------------------

    def reml(self) -> Fit:
        """Restricted maximum likelihood: h2 in [0, 1], variance components, effects.

        Returns
        -------
        Fit

        Notes
        -----
        A bounded one-dimensional problem, searched on a grid that resolves both ends
        and then refined: it cannot fail to converge. Patterson & Thompson (1971)
        Biometrika 58:545; Zhou & Stephens (2012) Nat Genet 44:821.
        """
        if self.basis is None:
            return self._fit("REML", 0.0)
        return self._fit("REML", maximise(lambda h: likelihood.restricted_loglik(self.rotated, h)))

    def map(self) -> Fit:
        """The mode of the posterior of h2, with s2 and effects estimated given it.

        The mode is that of the density of h2 on (0, 1) with everything else
        integrated out; a point mass at 0 in the prior plays no part. Under the uniform
        prior it equals `reml`.
        """
        if self.basis is None:
            return self._fit("MAP", 0.0)

        def log_posterior(h2: np.ndarray) -> np.ndarray:
            inside = np.clip(h2, 1e-12, likelihood.LARGEST_H2)
            prior = self.h2_prior.log_density(inside)
            return likelihood.integrated_loglik(self.rotated, h2) + prior

        return self._fit("MAP", maximise(log_posterior), self.h2_prior)

    def _fit(self, method: str, h2: float, prior: H2Prior | None = None) -> Fit:
        data, df = self.rotated, self.rotated.df
        terms = likelihood.terms(data, np.array([h2]))
        s2 = float(terms.Q[0]) / df
        kappa = data.kappa
        top = likelihood.LARGEST_H2
        boundary = "h2 = 0" if h2 <= 0 else "h2 = 1" if h2 >= top else ""
        if self.basis is None:
            boundary = ""
        se = np.full(3, np.nan)
        if not boundary and self.basis is not None:
            se = _standard_errors(data, h2, s2, prior)
        Linv = np.linalg.inv(terms.L[0])
        covariance = data.to_covariates @ (Linv.T @ Linv) @ data.to_covariates.T * s2
        b = pd.DataFrame(
            {
                "estimate": data.b_ols + data.to_covariates @ terms.b[0],
                "se": np.sqrt(np.diagonal(covariance)),
            },
            index=self.C.columns,
        )
        loglik = float(likelihood.restricted_loglik(data, np.array([h2]))[0])
        shown = 1.0 if boundary == "h2 = 1" else h2
        return Fit(
            method,
            shown,
            float(se[0]),
            s2 * shown / kappa,
            s2 * (1 - shown),
            float(se[1]),
            float(se[2]),
            s2,
            kappa,
            b,
            loglik,
            data.n,
            boundary,
        )

    # -- the exact posterior -------------------------------------------------------------

    def h2_posterior(self, *, s2_prior: tuple[float, float] = (0.0, 0.0)) -> UnitDensity:
        """The posterior of h2 by quadrature: density, mean, sd, intervals, P(h2 = 0).

        Parameters
        ----------
        s2_prior : (float, float)
            Degrees of freedom and scale of a scaled inverse chi-squared prior on s2;
            (0, anything) is the default 1/s2.

        Returns
        -------
        UnitDensity
            Its `log_integral` is the log marginal likelihood.
        """
        if self.basis is None:
            raise InputError("Without kernel there is no h2: it is 0 by definition.")

        def loglik(h2: np.ndarray) -> np.ndarray:
            return likelihood.integrated_loglik(
                self.rotated, h2, prior_df=s2_prior[0], prior_scale=s2_prior[1]
            )

        return unit_density(
            lambda h2: loglik(h2) + self.h2_prior.log_density(h2),
            mass_at_0=self.h2_prior.spike,
            log_at_0=float(loglik(np.zeros(1))[0]),
        )

    def posterior(
        self,
        draws: int = 4000,
        *,
        u: bool = False,
        s2_prior: tuple[float, float] = (0.0, 0.0),
        seed: int | np.random.Generator | None = None,
    ) -> xr.DataTree:
        """Independent draws from the exact posterior, without Markov chains.

        h2 comes from its marginal posterior (covariate effects and s2 integrated out,
        one-dimensional quadrature); then s2 given h2 is scaled inverse chi-squared, the
        effects given both are normal, and u given all is normal and diagonal on the
        basis.

        Parameters
        ----------
        draws : int
            Number of independent draws; the effective sample size is the same.
        u : bool
            Draw the random effects too (draws x n numbers).
        s2_prior : (float, float)
            See `h2_posterior`.
        seed : int or Generator, optional
            For reproducible draws. The one used is recorded.

        Returns
        -------
        DataTree
            Group posterior: h2, s2_g, s2_e, s2 (phenotype units squared), b (covariate),
            u (sample) on request. Groups observed_data and constant_data. The
            attributes hold the log marginal likelihood (flat priors as in
            `bayeslmm.likelihood.integrated_loglik`), the mean, sd and 95%
            highest-density interval of h2 by quadrature, P(h2 = 0), and provenance.

        References
        ----------
        Furlotte NA, Heckerman D, Lippert C (2014). Quantifying the uncertainty in
        heritability. J Hum Genet 59:269. doi:10.1038/jhg.2014.15
        """
        if draws < 1:
            raise InputError(f"At least one draw is needed, but draws={draws}.")
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        rng = np.random.default_rng(seed)
        data = self.rotated
        density = None if self.basis is None else self.h2_posterior(s2_prior=s2_prior)
        h2 = np.zeros(draws) if density is None else density.draw(draws, rng)
        terms = likelihood.terms(data, h2)
        total = data.df + s2_prior[0]
        s2 = (terms.Q + s2_prior[0] * s2_prior[1]) / rng.chisquare(total, size=draws)
        noise = rng.standard_normal((draws, data.C.shape[1], 1))
        shift = np.linalg.solve(np.swapaxes(terms.L, 1, 2), noise)[..., 0]
        orthonormal = terms.b + np.sqrt(s2)[:, None] * shift
        values: dict[str, Any] = {
            "h2": h2,
            "s2_g": s2 * h2 / data.kappa,
            "s2_e": s2 * (1 - h2),
            "s2": s2,
            "b": data.b_ols + orthonormal @ data.to_covariates.T,
        }
        if u:
            values["u"] = self._draw_u(h2, s2, orthonormal, rng)
        attrs = self._attrs(density, s2_prior, seed)
        return self._tree(values, attrs)

    def _draw_u(
        self, h2: np.ndarray, s2: np.ndarray, b: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """u given the other parameters, shape (draws, n): diagonal on the basis."""
        data = self.rotated
        if self.basis is None:
            return np.zeros((len(h2), data.n))
        h = h2[:, None]
        d = np.maximum(1 + h * (data.s - 1), 1e-300)
        gain = h * data.s / d
        z = gain * (data.y - b @ data.C.T)
        z += np.sqrt(s2[:, None] * gain * (1 - h)) * rng.standard_normal(z.shape)
        return self.basis.unrotate(z.T).T

    def _attrs(
        self, density: UnitDensity | None, s2_prior: tuple[float, float], seed: Any
    ) -> dict[str, Any]:
        known: dict[str, Any] = provenance() | {
            "formula": self.formula,
            "n": len(self.y),
            "kappa": self.rotated.kappa,
            "h2_prior": repr(self.h2_prior) if density is not None else "h2 = 0",
            "s2_prior": "1/s2" if s2_prior[0] == 0 else f"scaled-inv-chi2{s2_prior}",
            "seed": seed if isinstance(seed, int) else "a Generator of the caller's",
            "sampler": "independent draws from the exact posterior",
        }
        if density is None:
            loglik = likelihood.integrated_loglik(
                self.rotated, np.zeros(1), prior_df=s2_prior[0], prior_scale=s2_prior[1]
            )
            return known | {"log_marginal_likelihood": float(loglik[0])}
        low, high = density.hdi(0.95)
        known |= {
            "log_marginal_likelihood": density.log_integral,
            "h2_mean": density.mean,
            "h2_sd": density.sd,
            "h2_hdi95": [low, high],
        }
        if self.h2_prior.spike:
            known["p_h2_zero"] = density.mass_at_0
        return known

    def _tree(self, values: dict[str, np.ndarray], attrs: dict[str, Any]) -> xr.DataTree:
        """Draws, one chain, as an ArviZ DataTree with named dimensions."""
        import xarray as xr

        dims = {"b": ["covariate"], "u": ["sample"]}
        coords = {"covariate": list(self.C.columns), "sample": list(self.ids)}
        used = {dim for name in values for dim in dims.get(name, [])}
        draws = len(next(iter(values.values())))
        posterior = xr.Dataset(
            {
                name: (["chain", "draw", *dims.get(name, [])], value[None])
                for name, value in values.items()
            },
            coords={"chain": [0], "draw": np.arange(draws)}
            | {dim: coord for dim, coord in coords.items() if dim in used},
            attrs=attrs,
        )
        observed = xr.Dataset({"y": ("sample", self.y)}, {"sample": coords["sample"]})
        constant = xr.Dataset({"C": (("sample", "covariate"), self.C.to_numpy())}, coords)
        return xr.DataTree.from_dict(
            {
                "/": xr.Dataset(attrs=attrs),
                "posterior": posterior,
                "observed_data": observed,
                "constant_data": constant,
            }
        )

    # -- the genome ------------------------------------------------------------------------

    def scan(
        self,
        genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
        tests: str | Iterable[str] = ("wald",),
        **options: Any,
    ) -> pd.DataFrame:
        """Test every variant; see `bayeslmm.scan`."""
        from bayeslmm.association import scan

        return scan(self, genotypes, tests, **options)


def _design(
    formula: str,
    data: Any,
    id: str | None,
    kernel_ids: pd.Index | None,
    *,
    labelled: bool,
    missing: str,
) -> Design:
    if isinstance(data, str | os.PathLike):
        data, id = read_phenotypes(data, id=id), None
    if not isinstance(data, pd.DataFrame):
        raise InputError(
            f"Formula '{formula}' needs a table (DataFrame or file), but data is "
            f"{type(data).__name__}."
        )
    if id is not None:
        if id not in data:
            raise InputError(f"No id column '{id}' in the phenotype table.")
        data = data.set_index(id, drop=False)
    anonymous = isinstance(data.index, pd.RangeIndex)
    if kernel_ids is not None and anonymous and labelled:
        raise InputError(
            "The kernel names its samples, but the phenotype table does not: set its index to "
            "the sample ids, or pass id='column'."
        )
    if kernel_ids is not None and not labelled and not (anonymous and len(data) == len(kernel_ids)):
        raise InputError(
            f"The kernel ({len(kernel_ids):,} samples) has no sample ids, the phenotype table "
            f"({len(data):,} rows) {'has none either' if anonymous else 'has'}; their order cannot "
            "be checked. Label the kernel: bl.GRM(matrix, samples=ids)."
        )
    return design_from_formula(formula, data, kernel_ids, missing=missing)


def maximise(function: Callable[[np.ndarray], np.ndarray]) -> float:
    """Largest value of a function of h2 on [0, 1]: grid, then repeated zoom to 1e-10."""
    x = _GRID
    while True:
        values = function(x)
        best = int(np.nanargmax(values))
        low, high = x[max(best - 1, 0)], x[min(best + 1, len(x) - 1)]
        if high - low < 1e-10:
            break
        x = np.linspace(low, high, 17)
    return 0.0 if x[best] < 1e-9 else float(x[best])


def _standard_errors(
    data: likelihood.Rotated, h2: float, s2: float, prior: H2Prior | None
) -> np.ndarray:
    """SEs of h2, s2_g, s2_e from the curvature in (h2, log s2), by the delta method."""
    d = likelihood.derivatives(data, h2)
    curvature = np.array([[d.F2 + d.Q2 / s2, -d.Q1 / s2], [-d.Q1 / s2, d.Q / s2]]) / 2
    if prior is not None:
        step = 1e-4 * min(h2, 1 - h2)
        values = prior.log_density(np.array([h2 - step, h2, h2 + step]))
        curvature[0, 0] -= (values[0] - 2 * values[1] + values[2]) / step**2
    if np.linalg.eigvalsh(curvature)[0] <= 0:
        return np.full(3, np.nan)
    covariance = np.linalg.inv(curvature)
    g = np.array([s2 / data.kappa, s2 * h2 / data.kappa])
    e = np.array([-s2, s2 * (1 - h2)])
    return np.sqrt([covariance[0, 0], g @ covariance @ g, e @ covariance @ e])
