r"""Two traits and what their genes have in common: the bivariate linear mixed model.

    y_t = C_t b_t + u_t + e_t,   t = 1, 2,
    cov(u_t, u_t') = G_tt' K,   cov(e_t, e_t') = R_tt' I,

with the genetic correlation rg = G_12 / sqrt(G_11 G_22) and the residual one re alike. h2 of a
trait is G_tt kappa / (G_tt kappa + R_tt), as for `LMM`. The likelihood is that of
`bayeslmm.bivariate.likelihood`: O(n) for each evaluation if everybody has both traits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Basis
from bayeslmm.bases.kernel import Kernel, as_kernel, kernel_basis
from bayeslmm.bivariate.likelihood import (
    PairData,
    PairDraws,
    PairMaximum,
    PairPrior,
    covariances,
    draw_posterior,
    from_angles,
    maximise,
    pair_data,
    terms,
)
from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.formulas import Design, design_from_formula, pcs_asked, with_pcs
from bayeslmm.inputs.phenotypes import phenotype_table, relabel
from bayeslmm.model.lmm import LMM
from bayeslmm.model.trees import in_chains
from bayeslmm.numerics import newton
from bayeslmm.numerics.importance import LARGEST_K
from bayeslmm.priors import H2Prior, as_correlation_prior, as_h2_prior
from bayeslmm.relatedness.dense import Relatedness
from bayeslmm.runs.provenance import fresh_seed, provenance
from bayeslmm.runs.results import trait_names

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr

    from bayeslmm.bases.structure import PCA
    from bayeslmm.bivariate.genetic_correlation import RgReport

METHODS = ("auto", "importance", "metropolis")
# Effective draws wanted by default if each evaluation takes a Cholesky factor.
_ESS_INCOMPLETE = 400


@dataclass(frozen=True)
class BivariateFit:
    """REML estimates of two traits.

    Attributes
    ----------
    traits : tuple of str
        Their names.
    h2, h2_se : Series
        By trait; standard errors are NaN on a boundary.
    rg, rg_se, re, re_se : float
        Genetic and residual correlation.
    genetic, residual, genetic_se, residual_se : DataFrame, shape (2, 2)
        G (on K's scale) and R, phenotype units, and standard errors of their elements.
    kappa : float
        Mean diagonal of the centred K.
    b : DataFrame
        Covariate effects, indexed by trait and covariate: estimate and se.
    loglik : float
        Restricted log-likelihood.
    n : int
        Individuals.
    boundary : str
        What lies on a limit, as "rg = 1"; "" inside.
    tests : DataFrame or None
        Restricted likelihood-ratio tests, indexed "rg = 0", "rg = 1", "rg = -1": loglik,
        statistic, p.
    theta : ndarray, shape (5,)
        The estimate as `bayeslmm.bivariate.likelihood` has it.
    """

    traits: tuple[str, str]
    h2: pd.Series
    h2_se: pd.Series
    rg: float
    rg_se: float
    re: float
    re_se: float
    genetic: pd.DataFrame = field(repr=False)
    residual: pd.DataFrame = field(repr=False)
    genetic_se: pd.DataFrame = field(repr=False)
    residual_se: pd.DataFrame = field(repr=False)
    kappa: float
    b: pd.DataFrame = field(repr=False)
    loglik: float
    n: int
    boundary: str
    tests: pd.DataFrame | None = field(repr=False)
    theta: np.ndarray = field(repr=False)

    def __str__(self) -> str:
        def estimate(value: float, se: float) -> str:
            if np.isnan(value):
                return "not estimable"
            return f"{value:.4f}" + (f" (SE {se:.4f})" if np.isfinite(se) else "")

        h2 = ", ".join(
            f"h2 of {trait} = {estimate(self.h2[trait], self.h2_se[trait])}"
            for trait in self.traits
        )
        lines = [
            f"REML (n = {self.n:,}): rg = {estimate(self.rg, self.rg_se)}, "
            f"re = {estimate(self.re, self.re_se)}, {h2}, kappa = {self.kappa:.4g}, "
            f"restricted log-likelihood {self.loglik:.2f}"
        ]
        if self.boundary:
            lines.append(f"  on the boundary ({self.boundary}): no standard errors")
        if self.tests is not None:
            told = [f"{name}: p = {row.p:.3g}" for name, row in self.tests.iterrows()]
            lines.append(f"  likelihood-ratio tests  {'; '.join(told)}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = {f"h2 {t}": (self.h2[t], self.h2_se[t]) for t in self.traits}
        rows |= {"rg": (self.rg, self.rg_se), "re": (self.re, self.re_se)}
        for name, value, se in (
            ("G", self.genetic, self.genetic_se),
            ("R", self.residual, self.residual_se),
        ):
            for i, j in ((0, 0), (0, 1), (1, 1)):
                label = f"{name}[{self.traits[i]}, {self.traits[j]}]"
                rows[label] = (value.iloc[i, j], se.iloc[i, j])
        table = pd.DataFrame(rows, index=["estimate", "se"]).T
        b = self.b.set_axis([f"{t}: {name}" for t, name in self.b.index], axis=0)
        note = f" On the boundary ({self.boundary}): no standard errors." if self.boundary else ""
        caption = f"REML, n = {self.n:,}, log-likelihood {self.loglik:.2f}.{note}"
        number = "{:.5g}".format
        html = f"<p>{caption}</p>" + pd.concat([table, b]).to_html(float_format=number, na_rep="-")
        if self.tests is not None:
            html += "<p>Likelihood-ratio tests</p>" + self.tests.to_html(float_format=number)
        return html


class BivariateLMM:
    """Two traits: y_t = C_t b_t + u_t + e_t, u correlated over relatives and between traits.

    A specification like `LMM`: nothing is computed until a method is called.

    Parameters
    ----------
    formulas : sequence of two str, or array (n, 2), or DataFrame with two columns
        ``["cd8 ~ sex", "mch ~ sex + age"]``: traits may have covariates of their own. Or the
        phenotypes themselves, NaN where missing.
    data : DataFrame or path, or array (n, c)
        The table that the formulas refer to; for phenotypes given as an array, covariates of
        both traits without intercept, if there are any.
    kernel : GRM, SparseGRM, basis, Pedigree, DataFrame, or array (n, n)
        Relatedness, as for `LMM`.
    samples : {"common", "all"}
        Who is analysed: those with both traits, or everybody with at least one, too. Both are
        exact. With "all" each evaluation of the likelihood takes a Cholesky factor of as many
        rows as there are phenotypes missing; without missing ones there is no difference.
    h2_prior : prior, or pair of priors
        Of h2, as for `LMM`, without point mass.
    rg_prior, re_prior : "flat", float, or `bayeslmm.priors.CorrelationPrior`
        Of the genetic and of the residual correlation: eta for a density proportional to
        (1 - r^2)^(eta - 1).
    id : str, optional
        Column of `data` that holds the sample ids, if its index does not.
    missing : {"error", "drop"}
        What a missing covariate does.
    pcs : PCA or DataFrame, optional
        What ``pcs(k)`` in a formula means, as for `LMM`: by default the components of the
        kernel on all its samples.

    Attributes
    ----------
    traits : tuple of str
        Names of the phenotypes.
    ids : Index
        Individuals analysed, in the kernel's order.
    samples : DataFrame
        Every sample of table and kernel: kept, and the reason if not.

    Raises
    ------
    InputError
        For what cannot be aligned or fitted; the message says what and why.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> x = rng.integers(0, 3, size=(200, 400))
    >>> u = (x - x.mean(0)) @ rng.normal(size=(400, 2)) @ np.array([[1, 0.8], [0, 0.6]])
    >>> pair = bl.BivariateLMM(u / u.std(0) + rng.normal(size=(200, 2)), kernel=bl.grm(x))
    >>> print(f"{pair.reml().rg:.2f}")
    0.82
    """

    def __init__(
        self,
        formulas: Sequence[str] | np.ndarray | pd.DataFrame,
        data: pd.DataFrame | np.ndarray | str | os.PathLike[str] | None = None,
        kernel: Kernel | None = None,
        *,
        samples: Literal["common", "all"] = "common",
        h2_prior: Any = "uniform",
        rg_prior: Any = "flat",
        re_prior: Any = "flat",
        id: str | None = None,
        missing: Literal["error", "drop"] = "error",
        pcs: PCA | pd.DataFrame | None = None,
    ) -> None:
        if kernel is None:
            raise InputError("Two traits need a kernel: without it there is nothing genetic.")
        if samples not in ("common", "all"):
            raise InputError(f"samples='{samples}' is unknown; expected 'common' or 'all'.")
        self.prior = PairPrior(
            _h2_priors(h2_prior),
            as_correlation_prior(rg_prior, "rg_prior"),
            as_correlation_prior(re_prior, "re_prior"),
        )
        self._kernel = as_kernel(kernel)
        if not isinstance(formulas, str) and not _are_formulas(formulas):
            if pcs is not None:
                raise InputError(
                    "pcs is what pcs(k) in a formula means; with the phenotypes as an array give "
                    "the components as covariates."
                )
            formulas, data = _table_of_arrays(formulas, data)
        if isinstance(formulas, str) or len(formulas) != 2:
            count = 1 if isinstance(formulas, str) else len(formulas)
            raise InputError(
                f"Two traits need two formulas, as in ['cd8 ~ sex', 'mch ~ sex'], but there "
                f"{'is 1' if count == 1 else f'are {count}'}."
            )
        self.formulas: tuple[str, str] = (str(formulas[0]), str(formulas[1]))
        known = self._kernel.samples
        table = phenotype_table(self.formulas[0], data, id, known, labelled=self._kernel.labelled)
        longest = max(self.formulas, key=pcs_asked)
        if pcs_asked(longest):
            from bayeslmm.bases.structure import components, join_components

            table = join_components(
                longest, table, components(self._kernel, pcs, pcs_asked(longest))
            )
        written_out = [with_pcs(formula) for formula in self.formulas]
        designs = [
            design_from_formula(formula, table, known, missing=missing) for formula in written_out
        ]
        first, second = trait_names(self.formulas)
        self.traits: tuple[str, str] = (first, second)
        self.samples: pd.DataFrame = _account(designs, self.traits, samples)
        self.ids: pd.Index = known[known.isin(self.samples.index[self.samples.kept])]
        if not len(self.ids):
            raise InputError(
                f"No sample has both '{first}' and '{second}'. Use samples='all' to analyse those "
                "with one of them."
            )
        table = relabel(table, known)
        table = table.set_axis(table.index.astype(str), axis=0)
        # Each trait as a model without kernel: formula, covariates and checks are its own.
        self.regressions = tuple(
            LMM(formula, table.loc[self.ids[self.ids.isin(design.ids)]], None, missing=missing)
            for formula, design in zip(written_out, designs, strict=True)
        )

    # -- what it is ---------------------------------------------------------------------------

    @property
    def covariates(self) -> list[tuple[str, str]]:
        """Trait and covariate of each effect, trait by trait."""
        return [
            (trait, name)
            for trait, table in zip(self.traits, self.regressions, strict=True)
            for name in table.C.columns
        ]

    @property
    def y(self) -> pd.DataFrame:
        """Phenotypes, shape (n, 2), NaN where missing."""
        columns = {
            trait: pd.Series(table.y, table.C.index).reindex(self.ids)
            for trait, table in zip(self.traits, self.regressions, strict=True)
        }
        return pd.DataFrame(columns, index=self.ids)

    @property
    def kernel(self) -> Relatedness | Basis:
        """Relatedness as it was given: a GRM, or a basis."""
        return self._kernel

    def each(self) -> tuple[LMM, LMM]:
        """Each trait alone, with the same kernel, of those analysed who have it."""
        one, two = self.regressions
        return one.with_kernel(self._kernel), two.with_kernel(self._kernel)

    @property
    def n_both(self) -> int:
        """Individuals with both traits."""
        return int(self.y.notna().all(axis=1).sum())

    @cached_property
    def basis(self) -> Basis:
        """The eigenbasis of the individuals; centred if covariates of both span the constant."""
        has_intercept = all(table.has_intercept for table in self.regressions)
        return kernel_basis(self._kernel, self.ids, has_intercept=has_intercept)

    @cached_property
    def data(self) -> PairData:
        """Both traits on the eigenbasis."""
        one, two = self.regressions
        rows = self.ids.get_indexer(one.C.index), self.ids.get_indexer(two.C.index)
        return pair_data(self.basis, (one.y, two.y), (one.C.to_numpy(), two.C.to_numpy()), rows)

    def __repr__(self) -> str:
        measured = self.y.notna().sum()
        kept = f"{len(self.ids):,} analysed"
        if self.n_both < len(self.ids):
            each = ", ".join(f"{trait} {count:,}" for trait, count in measured.items())
            kept += f": {each}, both {self.n_both:,}"
        lines = [f"BivariateLMM  {' and '.join(self.formulas)}", f"  samples  {kept}"]
        dropped = self.samples.reason[~self.samples.kept].value_counts()
        lines += [f"           {count:,} dropped: {reason}" for reason, count in dropped.items()]
        lines += [
            f"  kernel   {self._kernel!r}",
            f"  priors   {self._priors_in_words()}",
        ]
        return "\n".join(lines)

    def _priors_in_words(self) -> str:
        one, two = map(repr, self.prior.h2)
        h2 = f"h2 ~ {one}" if one == two else f"h2 ~ {one}, {two}"
        return (
            f"{h2}, rg ~ {self.prior.rg}, re ~ {self.prior.re}, p(s2) ~ 1/s2 for each trait, "
            "covariates flat"
        )

    # -- point estimates ------------------------------------------------------------------------

    @cached_property
    def _maximum(self) -> PairMaximum:
        fixed = {"re": 0.0} if self.n_both < 3 else None
        return maximise(self.data, fixed)

    def reml(self, *, tests: bool = True) -> BivariateFit:
        """Restricted maximum likelihood: G and R, heritabilities, correlations, effects.

        Newton steps from the best points of a grid of correlations, within the limits
        0 <= h2 <= 1 and -1 <= rg, re <= 1. Standard errors come from the curvature there; on
        a limit there is none, and none is given.

        Parameters
        ----------
        tests : bool
            Whether to test rg = 0, 1 and -1 by the likelihood ratio: three more searches.
            p-values are asymptotic: chi-squared with 1 degree of freedom for rg = 0, and its
            50:50 mixture with 0 for 1 and -1, which are ends of the range.

        Returns
        -------
        BivariateFit
            If few individuals (under 3) have both traits, re is not estimable: NaN.

        References
        ----------
        Self SG, Liang K-Y (1987). Asymptotic properties of maximum likelihood estimators and
        likelihood ratio tests under nonstandard conditions. J Am Stat Assoc 82:605.
        doi:10.1080/01621459.1987.10478472
        """
        found, data = self._maximum, self.data
        x = np.append(found.theta, np.log(found.scale))
        x[:2] = np.arcsin(np.sqrt(x[:2]))
        values = self._quantities(x[None])
        se = {name: np.full(value.shape[1:], np.nan) for name, value in values.items()}
        if found.covariance is not None:
            for name, value in values.items():

                def one(points: np.ndarray, key: str = name) -> np.ndarray:
                    return self._quantities(points)[key]

                slope = newton.gradient(one, x)
                slope = slope.reshape(6, -1)
                variance = np.einsum("ik,ij,jk->k", slope, found.covariance, slope)
                se[name] = np.sqrt(variance).reshape(value.shape[1:])
        rg, re = (float(values[name][0]) for name in ("rg", "re"))
        if self.n_both < 3:
            re = np.nan
        return BivariateFit(
            traits=self.traits,
            h2=self._by_trait(values["h2"][0]),
            h2_se=self._by_trait(se["h2"]),
            rg=rg,
            rg_se=float(se["rg"]),
            re=re,
            re_se=float(se["re"]),
            genetic=self._square(values["G"][0]),
            residual=self._square(values["R"][0]),
            genetic_se=self._square(se["G"]),
            residual_se=self._square(se["R"]),
            kappa=data.kappa,
            b=self._effects(found),
            loglik=found.loglik,
            n=len(self.ids),
            boundary=self._boundary(found),
            tests=self._tests(found) if tests else None,
            theta=found.theta,
        )

    def _quantities(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """What is reported, at points (P, 6) of angles, correlations, log ratio, log scale."""
        theta, scale = from_angles(x[:, :5]), np.exp(x[:, 5:])
        A, B = covariances(theta)
        return {
            "h2": theta[:, :2],
            "rg": theta[:, 2],
            "re": theta[:, 3],
            "G": A * scale / self.data.kappa,
            "R": B * scale,
        }

    def _by_trait(self, values: np.ndarray) -> pd.Series:
        return pd.Series(values, index=list(self.traits))

    def _square(self, values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values[[[0, 1], [1, 2]]], list(self.traits), list(self.traits))

    def _boundary(self, found: PairMaximum) -> str:
        theta = dict(zip(("h2_1", "h2_2", "rg", "re"), found.theta, strict=False))
        labels = {
            "h2_1": f"h2 of {self.traits[0]}",
            "h2_2": f"h2 of {self.traits[1]}",
            "rg": "rg",
            "re": "re",
        }
        parts = [f"{labels[name]} = {theta[name]:.0f}" for name in found.at_limit if name in theta]
        if self.n_both < 3:
            parts.append("re not estimable: hardly anybody has both traits")
        return ", ".join(parts)

    def _effects(self, found: PairMaximum) -> pd.DataFrame:
        t = terms(self.data, found.theta[None])
        Linv = np.linalg.inv(t.L[0])
        covariance = Linv.T @ Linv * found.scale
        to = self._to_covariates
        return pd.DataFrame(
            {
                "estimate": self._b_ols + to @ t.b[0],
                "se": np.sqrt(np.diagonal(to @ covariance @ to.T)),
            },
            index=pd.MultiIndex.from_tuples(self.covariates, names=["trait", "covariate"]),
        )

    @property
    def _to_covariates(self) -> np.ndarray:
        """Takes coefficients of both orthonormal bases to those of the covariates, (p, p)."""
        from scipy.linalg import block_diag

        return block_diag(*(part.to_covariates for part in self.data.columns))

    @property
    def _b_ols(self) -> np.ndarray:
        return np.concatenate([part.b_ols for part in self.data.columns])

    def _tests(self, found: PairMaximum) -> pd.DataFrame:
        from scipy.stats import chi2

        from bayeslmm.model.evidence import mixture_p

        also = {"re": 0.0} if self.n_both < 3 else {}
        rows = {}
        for value in (0.0, 1.0, -1.0):
            start = found.theta.copy()
            start[2] = value
            # With complete data a search is cheap: from the grid. Else from the estimate.
            null = maximise(self.data, {"rg": value} | also, start if self.data.n_absent else None)
            statistic = max(2 * (found.loglik - null.loglik), 0.0)
            p = float(chi2.sf(statistic, 1)) if value == 0 else mixture_p(statistic)
            rows[f"rg = {value:.0f}"] = {"loglik": null.loglik, "statistic": statistic, "p": p}
        return pd.DataFrame(rows).T

    # -- the posterior ----------------------------------------------------------------------------

    def draw(
        self,
        draws: int = 4000,
        *,
        fixed: Mapping[str, float] | None = None,
        method: Literal["auto", "importance", "metropolis"] = "auto",
        ess: float | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> PairDraws:
        """The draws of `posterior` as plain arrays; `fixed` holds members of theta."""
        if draws < 1:
            raise InputError(f"At least one draw is needed, but draws={draws}.")
        if method not in METHODS:
            raise InputError(f"method='{method}' is unknown; expected one of {listing(METHODS)}.")
        if ess is None and self.data.n_absent:
            ess = min(draws, _ESS_INCOMPLETE)
        return draw_posterior(
            self.data,
            self.prior,
            draws,
            np.random.default_rng(seed),
            start=self._maximum.theta,
            fixed=fixed,
            method=method,
            ess=ess,
        )

    def posterior(
        self,
        draws: int = 4000,
        *,
        method: Literal["auto", "importance", "metropolis"] = "auto",
        ess: float | None = None,
        seed: int | None = None,
    ) -> xr.DataTree:
        """Draws from the posterior of everything, with diagnostics.

        Covariate effects and the overall scale are integrated analytically. The other five
        dimensions (h2 of either trait, rg, re, ratio of total variances) are sampled by adaptive
        importance sampling from a mixture of t distributions in coordinates without limits,
        with Pareto-smoothed weights; scale and effects follow from their exact conditionals.

        Parameters
        ----------
        draws : int
            Number of draws, resampled from weighted points.
        method : {"auto", "importance", "metropolis"}
            "auto" turns to Metropolis sampling if the importance weights are not to be trusted
            (k-hat above 0.7, or few effective draws) and nobody lacks a trait.
        ess : float, optional
            Effective number of draws to aim at; by default `draws`, or 400 if phenotypes are
            missing, as each evaluation then takes a Cholesky factor.
        seed : int, optional
            For reproducible draws. The one used is recorded.

        Returns
        -------
        DataTree
            Group posterior: rg, re, rp (phenotypic correlation); h2, s2_g, s2_e, s2 (trait);
            cov_g, cov_e; b (effect, as "cd8: sex"). The attributes hold ess, k_hat,
            evaluations, the log marginal likelihood with its Monte Carlo error, the priors and
            provenance.

        Warns
        -----
        SamplingWarning
            If the diagnostics are poor, with what to do.
        """
        import xarray as xr

        seed = fresh_seed() if seed is None else seed
        found = self.draw(draws, method=method, ess=ess, seed=seed)
        _warn_of(found)
        values = self.named(found)
        effects = [f"{trait}: {name}" for trait, name in self.covariates]
        by_trait = {name: ["trait"] for name in ("h2", "s2_g", "s2_e", "s2")}
        attrs = provenance() | {
            "formulas": list(self.formulas),
            "n": len(self.ids),
            "n_both": self.n_both,
            "kappa": self.data.kappa,
            "priors": self._priors_in_words(),
            "sampler": found.sampler,
            "ess": found.ess,
            "k_hat": found.k_hat,
            "evaluations": found.evaluations,
            "log_marginal_likelihood": found.log_marginal,
            "log_marginal_likelihood_se": found.log_marginal_se,
            "seed": seed,
        }
        if np.isfinite(found.r_hat):
            attrs["r_hat"] = found.r_hat
        coords = {"trait": list(self.traits), "effect": effects}
        posterior = in_chains(values, by_trait | {"b": ["effect"]}, coords, attrs)
        sample = {"sample": list(self.ids), "trait": list(self.traits)}
        return xr.DataTree.from_dict(
            {
                "/": xr.Dataset(attrs=attrs),
                "posterior": posterior,
                "observed_data": xr.Dataset(
                    {"y": (("sample", "trait"), self.y.to_numpy())}, sample
                ),
                "constant_data": xr.Dataset(
                    {"C": (("sample", "effect"), self._all_covariates())},
                    {"sample": list(self.ids), "effect": effects},
                ),
            }
        )

    def _all_covariates(self) -> np.ndarray:
        """Covariates of both traits side by side, (n, p), NaN where a trait is missing."""
        return np.column_stack([table.C.reindex(self.ids) for table in self.regressions])

    def named(self, found: PairDraws) -> dict[str, np.ndarray]:
        """Draws by name, first axis the draws."""
        A, B = (part * found.scale[:, None] for part in covariances(found.theta))
        total = A + B
        return {
            "rg": found.theta[:, 2],
            "re": found.theta[:, 3],
            "rp": total[:, 1] / np.sqrt(total[:, 0] * total[:, 2]),
            "h2": found.theta[:, :2],
            "s2_g": A[:, ::2] / self.data.kappa,
            "s2_e": B[:, ::2],
            "s2": total[:, ::2],
            "cov_g": A[:, 1] / self.data.kappa,
            "cov_e": B[:, 1],
            "b": self._b_ols + found.b @ self._to_covariates.T,
        }

    def rg(self, draws: int = 4000, *, prob: float = 0.95, seed: int | None = None) -> RgReport:
        """The genetic correlation in full: posterior, REML, tests, and what they mean.

        Parameters
        ----------
        draws : int
            Posterior draws.
        prob : float
            Probability of the highest-density intervals.
        seed : int, optional
            For reproducible draws.

        Returns
        -------
        RgReport
            Prints itself; `plot` draws it.
        """
        from bayeslmm.bivariate.genetic_correlation import rg_report

        return rg_report(self, draws=draws, prob=prob, seed=seed)

    def pymc_model(
        self,
        parameterization: Literal["eigenbasis", "explicit"] = "eigenbasis",
        *,
        priors: Mapping[str, Any] | None = None,
    ) -> pm.Model:
        """The model as PyMC code, to read, draw and change.

        Parameters
        ----------
        parameterization : {"eigenbasis", "explicit"}
            Two forms of one posterior: u integrated out on the eigenbasis (complete data), or
            u of both traits as variables, which takes missing phenotypes too.
        priors : mapping, optional
            Priors by variable, written as for `LMM.pymc_model`: rg, re, b; ``h2_`` and ``sd_``
            (total standard deviation) followed by the trait's name.

        Returns
        -------
        pymc.Model
            Variables as those of `posterior`. sd of a trait ~ HalfStudentT(4, sd(y)) by
            default, effects wide normal; the others have the model's own priors.
        """
        from bayeslmm.bivariate.generative import pymc_model

        return pymc_model(self, parameterization, priors=priors or {})

    # -- for others to read -----------------------------------------------------------------

    def report(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write one HTML file with everything, for readers without Python.

        Parameters
        ----------
        path : path-like
            The file to write.
        **options
            tree, title, question, seed, overwrite and others: see
            `bayeslmm.reporting.models.report_model`.

        Returns
        -------
        Path
            The file; it needs no network and no other file.
        """
        from bayeslmm.reporting.models import report_model

        return report_model(self, path, **options)


def _h2_priors(prior: Any) -> tuple[H2Prior, H2Prior]:
    pair = prior if isinstance(prior, tuple | list) else (prior, prior)
    if len(pair) != 2:
        raise InputError(f"h2_prior has {len(pair)} priors; expected one, or one for each trait.")
    one, two = (as_h2_prior(each) for each in pair)
    if one.spike or two.spike:
        raise InputError(
            "A point mass at h2 = 0 leaves rg undefined there: give h2 priors without spike."
        )
    return one, two


def _are_formulas(formulas: Any) -> bool:
    return not isinstance(formulas, np.ndarray | pd.DataFrame) and all(
        isinstance(one, str) for one in formulas
    )


def _table_of_arrays(y: Any, covariates: Any) -> tuple[list[str], pd.DataFrame]:
    """Formulas and table of phenotypes (n, 2) and covariates (n, c) given as arrays."""
    if isinstance(covariates, str | os.PathLike):
        raise InputError("With the phenotypes as an array, covariates are an array too.")
    table = pd.DataFrame(y)
    if table.shape[1] != 2:
        raise InputError(f"Phenotypes of shape {table.shape}; expected two columns, one per trait.")
    names = [f"y{j + 1}" if isinstance(j, int) else str(j) for j in table.columns]
    table = table.set_axis(names, axis=1)
    right = ["1"]
    if covariates is not None:
        C = pd.DataFrame(covariates)
        if len(C) != len(table) or (
            isinstance(covariates, pd.DataFrame) and not C.index.equals(table.index)
        ):
            raise InputError(
                "Covariates and phenotypes name different samples, or in another order."
                if len(C) == len(table)
                else f"Covariates have {len(C):,} rows, but phenotypes {len(table):,}."
            )
        C = C.set_axis([f"x{j + 1}" if isinstance(j, int) else str(j) for j in C.columns], axis=1)
        right += [f"`{name}`" for name in C.columns]
        table = pd.concat([table, C.set_axis(table.index, axis=0)], axis=1)
    return [f"`{name}` ~ {' + '.join(right)}" for name in names], table


def _account(designs: list[Design], traits: tuple[str, str], samples: str) -> pd.DataFrame:
    """Every sample: kept, and why not, in words for one trait or both."""
    accounts = [design.account for design in designs]
    one, two = accounts[0].reason, accounts[1].reason.reindex(accounts[0].index)
    kept = [accounts[0].kept, accounts[1].kept.reindex(accounts[0].index)]
    both = kept[0] & kept[1] if samples == "common" else kept[0] | kept[1]
    reason = one.where(one == two, "")
    for trait, own in zip(traits, (one, two), strict=True):
        named = own.where(own == "", trait + ": " + own)
        joined = reason.where(reason == "", reason + "; ") + named
        reason = joined.where((one != two) & (own != ""), reason)
    return pd.DataFrame({"kept": both, "reason": reason.where(~both, "")})


def _warn_of(found: PairDraws) -> None:
    import warnings

    from bayeslmm.generative.sampling import SamplingWarning

    if np.isfinite(found.r_hat):
        if found.r_hat > 1.01:
            warnings.warn(
                f"r-hat is {found.r_hat:.3f}: chains disagree. Ask for more draws.",
                SamplingWarning,
                stacklevel=3,
            )
    elif found.k_hat > LARGEST_K:
        warnings.warn(
            f"k-hat of the importance weights is {found.k_hat:.2f} (above {LARGEST_K:g}): tails of "
            "the posterior are not to be trusted. Use method='metropolis', or more draws.",
            SamplingWarning,
            stacklevel=3,
        )
