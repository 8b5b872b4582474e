r"""Partitioned heritability: one model, several kernels, and the share of each.

    y = C b + sum_k u_k + e,   u_k ~ N(0, s2_k K_k),   e ~ N(0, s2_e I),
    h2_k = s2_k kappa_k / s2,   s2 = sum_k s2_k kappa_k + s2_e,

with kappa_k the mean diagonal of K_k on the analysed samples, centred if the covariates span the
constant. The likelihood is in `bayeslmm.partition.components`, the posterior of the shares in
`bayeslmm.partition.shares`; here they get names.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Eigenbasis
from bayeslmm.bases.kernel import Kernel
from bayeslmm.errors import InputError, in_short, listing
from bayeslmm.inputs.formulas import pcs_asked
from bayeslmm.model.lmm import LMM
from bayeslmm.model.trees import data_groups, in_chains
from bayeslmm.partition.components import (
    RESIDUAL,
    Components,
    Matrices,
    Optimum,
    maximise,
    mixture_p_value,
    threads,
    unpacked,
)
from bayeslmm.priors import SharePrior, as_share_prior
from bayeslmm.relatedness.dense import GRM, as_grm
from bayeslmm.runs.provenance import fresh_seed, provenance

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr

    from bayeslmm.bases.structure import PCA
    from bayeslmm.partition.shares import Method

# Share of a kernel's deviation from the identity that the others explain: a warning, an error.
_NEARLY, _EXACTLY = 0.99, 1 - 1e-9
# What an eigenvalue may lie below 0, over the largest.
_NEGATIVE = 1e-6


class IdentifiabilityWarning(UserWarning):
    """Kernels so alike that the data can hardly tell their variances apart."""


@dataclass(frozen=True)
class PartitionedFit:
    """Point estimates of a model of several kernels.

    Attributes
    ----------
    components : DataFrame
        One row per kernel, and the residual: h2 (share of the variance, s2_k kappa_k / s2) and
        h2_se, s2 and s2_se (phenotype units squared), kappa, and at_0, whether the component
        lies on the boundary: no standard error is meaningful there.
    h2, h2_se : float
        Sum of the shares of the genetic kernels, and its standard error.
    s2 : float
        Total variance.
    b : DataFrame
        Covariate effects: columns estimate and se.
    loglik : float
        Restricted log-likelihood.
    n : int
        Number of samples.
    converged : bool
        Whether AI-REML converged; a warning was given if not.
    iterations : int
        Number of its steps.
    history : DataFrame
        One row per step: loglik, step, decrement, at_0.
    covariance : DataFrame
        Of the variance components s2_k and s2_e: the inverse average information, those at 0
        left out (NaN).
    """

    components: pd.DataFrame
    h2: float
    h2_se: float
    s2: float
    b: pd.DataFrame = field(repr=False)
    loglik: float
    n: int
    converged: bool
    iterations: int
    history: pd.DataFrame = field(repr=False)
    covariance: pd.DataFrame = field(repr=False)

    def __str__(self) -> str:
        how = f"{self.iterations} iterations" if self.converged else "NOT CONVERGED"
        lines = [
            f"REML of several kernels (n = {self.n:,}, {how}): h2 = {self.h2:.4f} "
            f"(SE {self.h2_se:.4f}), restricted log-likelihood {self.loglik:.2f}"
        ]
        width = max(len(name) for name in self.components.index)
        for name, row in self.components.iterrows():
            se = "on the boundary" if row.at_0 else f"SE {row.h2_se:.4f}"
            lines.append(f"  {name:{width}}  h2 = {row.h2:.4f} ({se}), s2 = {row.s2:.5g}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        how = f"{self.iterations} iterations" if self.converged else "NOT CONVERGED"
        caption = (
            f"REML of several kernels, n = {self.n:,}, {how}: h2 = {self.h2:.4f} "
            f"(SE {self.h2_se:.4f}), log-likelihood {self.loglik:.2f}"
        )
        table = self.components.to_html(float_format="{:.5g}".format, na_rep="-")
        return f"<p>{caption}</p>" + table + self.b.to_html(float_format="{:.5g}".format)


class PartitionedLMM:
    """A linear mixed model of several kernels: y = C b + sum_k u_k + e, u_k ~ N(0, s2_k K_k).

    ``bl.LMM(..., kernels={...})`` makes one, as this class itself does with the same arguments
    (mypy knows the result only then). A specification like `LMM`: nothing is computed
    until a method is called; what methods share is computed once.

    Parameters
    ----------
    formula : str, or array (n,), or Series
        ``"cd8 ~ sex + age"``, or the phenotype itself.
    data : DataFrame or path, or array (n, c)
        As for `LMM`.
    kernels : mapping of str to kernel
        Kernels by name: each a GRM, a pedigree, an eigenbasis, a DataFrame or an array. Those of
        `bayeslmm.partition_grms` and `bayeslmm.kernels`, for instance. Samples are matched by
        id; those analysed are in all kernels.
    prior : prior
        Of the shares of the kernels and the residual: ``"uniform"`` (Dirichlet with ones), see
        `bayeslmm.priors.as_share_prior`.
    id, missing
        As for `LMM`.
    pcs : PCA or DataFrame, optional
        What ``pcs(k)`` in the formula means, as for `LMM`; needed for it with several kernels.

    Attributes
    ----------
    kernels : tuple of str
        Names of the K kernels, in their order.
    genetic : ndarray of bool, shape (K,)
        Which of them count as heritability; `bayeslmm.kernels.household` and the like do not.

    Raises
    ------
    InputError
        For what cannot be aligned or fitted: kernels of other samples, not positive
        semi-definite, proportional to the identity, or linear combinations of each other.

    Warns
    -----
    IdentifiabilityWarning
        If kernels are nearly collinear.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(4)
    >>> x = rng.integers(0, 3, size=(300, 400))
    >>> u = (x[:, :200] - x[:, :200].mean(0)) @ rng.normal(size=200)
    >>> y = u / u.std() + rng.normal(size=300)
    >>> halves = {"first": bl.grm(x[:, :200]), "second": bl.grm(x[:, 200:])}
    >>> model = bl.LMM(y, kernels=halves)
    >>> model.reml().components.h2.round(2).to_dict()
    {'first': 0.62, 'second': 0.0, 'residual': 0.38}
    """

    def __init__(
        self,
        formula: str | np.ndarray | pd.Series,
        data: pd.DataFrame | np.ndarray | str | os.PathLike[str] | None = None,
        kernels: Mapping[str, Kernel] | None = None,
        *,
        prior: Any = "uniform",
        id: str | None = None,
        missing: Literal["error", "drop"] = "error",
        pcs: PCA | pd.DataFrame | None = None,
    ) -> None:
        self._grms = _as_grms(kernels)
        asked = pcs_asked(formula) if isinstance(formula, str) else 0
        if asked and pcs is None and len(self._grms) > 1:
            raise InputError(
                f"pcs({asked}): of which of the kernels {listing(self._grms)}? Say so: "
                f"pcs=bl.pca(genotypes, {asked}), or that of a basis."
            )
        self.kernels: tuple[str, ...] = tuple(self._grms)
        self.genetic = np.array([bool(K.info.get("genetic", True)) for K in self._grms.values()])
        self.prior: SharePrior = as_share_prior(prior, self.kernels)
        first, *others = self._grms.values()
        common = first.samples
        for K in others:
            common = common[common.isin(K.samples)]
        if not len(common):
            raise InputError(
                "The kernels have no sample in common: "
                + ", ".join(f"'{k}' has {listing(K.samples, 2)}" for k, K in self._grms.items())
                + "."
            )
        shared = first if len(common) == len(first.samples) else first.subset(common)
        # The model of one kernel: its formula, covariates and account are those of this one.
        self.aligned = LMM(formula, data, shared, id=id, missing=missing, pcs=pcs)
        self.formula = self.aligned.formula

    # -- what it is ---------------------------------------------------------------------------

    @property
    def y(self) -> np.ndarray:
        """Phenotypes of the analysed samples, shape (n,)."""
        return self.aligned.y

    @property
    def C(self) -> pd.DataFrame:
        """Covariates of the analysed samples, shape (n, c)."""
        return self.aligned.C

    @property
    def ids(self) -> pd.Index:
        """Ids of the analysed samples, in the order of `y`."""
        return self.aligned.ids

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Every sample of the table and of the kernels: kept (bool) and reason (text)."""
        account = self.aligned.samples.copy()
        for name, K in self._grms.items():
            new = K.samples.difference(account.index)
            if len(new):
                more = pd.DataFrame({"kept": False, "reason": "not in every kernel"}, index=new)
                account = pd.concat([account, more])
            absent = ~account.index.isin(K.samples) & account.reason.isin(["not in the kernel"])
            account.loc[absent, "reason"] = f"not in the kernel '{name}'"
        return account.rename_axis("id")

    @property
    def grms(self) -> dict[str, GRM]:
        """The kernels as relatedness matrices, by name."""
        return dict(self._grms)

    def _matrices(self) -> Matrices:
        """The kernels of the analysed samples, each made when it is asked for."""
        return _OneByOne(list(self._grms.values()), self.ids)

    @cached_property
    def parts(self) -> Components:
        """Contrasts of phenotype and kernels, with all checks of the kernels made."""
        center = self.aligned.has_intercept
        parts = Components(self.y, self.C.to_numpy(), self._matrices(), center=center)
        with threads(len(self.y)):
            self._check_kernels(parts)
        return parts

    @cached_property
    def kappa(self) -> pd.Series:
        """Mean diagonal of each kernel on the analysed samples, centred if y is; shape (K,)."""
        return pd.Series(self.parts.kappa, index=list(self.kernels), name="kappa")

    @cached_property
    def overlap(self) -> pd.DataFrame:
        """Correlations of the kernels as patterns of covariance, of their deviations from I.

        Cosines of the angles between M_k - (tr M_k / nu) I, shape (K, K): 1 for kernels that
        the data cannot tell apart.
        """
        D = _deviations(self.parts)
        scale = np.sqrt(np.diagonal(D))
        return pd.DataFrame(D / np.outer(scale, scale), self.kernels, self.kernels)

    def with_phenotype(self, y: np.ndarray) -> PartitionedLMM:
        """The same model of another phenotype of the same samples, y (n,) in their order.

        For simulated or permuted phenotypes: the kernels are shared.
        """
        from copy import copy

        parts = self.parts
        other = copy(self)
        other.__dict__.pop("_optimum", None)
        other.aligned = self.aligned.without_kernel().with_phenotype(y)
        other.parts = parts.with_phenotype(other.y)
        return other

    def _check_kernels(self, parts: Components) -> None:
        for k, name in enumerate(self.kernels):
            _check_positive(parts, k, name)
        D = _deviations(parts)
        sizes = np.diagonal(parts.norms)[:-1]
        for k, name in enumerate(self.kernels):
            if D[k, k] <= 1e-10 * sizes[k]:
                raise InputError(
                    f"Kernel '{name}' is proportional to the identity among the analysed samples: "
                    "its variance cannot be told from the residual. Leave it out."
                )
        for k, name in enumerate(self.kernels):
            others = [j for j in range(len(self.kernels)) if j != k]
            if not others:
                break
            weights = np.linalg.lstsq(D[np.ix_(others, others)], D[others, k], rcond=1e-12)[0]
            explained = float(D[others, k] @ weights) / D[k, k]
            if explained < _NEARLY:
                continue
            named = [self.kernels[j] for j, w in zip(others, weights, strict=True) if abs(w) > 1e-3]
            if explained > _EXACTLY:
                raise InputError(
                    f"Kernel '{name}' is a linear combination of {listing(named)} and the "
                    "identity: their variances cannot be told apart. Leave one out."
                )
            warnings.warn(
                f"Kernel '{name}' is nearly a linear combination of {listing(named)} and the "
                f"identity ({100 * explained:.1f}% of it): what the data say about their separate "
                "shares is little, and the prior decides. See model.overlap.",
                IdentifiabilityWarning,
                stacklevel=4,
            )
            break

    def __repr__(self) -> str:
        kept = int(self.samples.kept.sum())
        lines = [f"PartitionedLMM  {self.formula}", f"  samples  {kept:,} analysed"]
        dropped = self.samples.reason[~self.samples.kept].value_counts()
        lines += [f"           {count:,} dropped: {reason}" for reason, count in dropped.items()]
        lines.append(f"  covariates  {in_short(self.C.columns)}")
        width = max(len(name) for name in self.kernels)
        for k, (name, K) in enumerate(self._grms.items()):
            label = "kernels" if not k else ""
            outside = "" if self.genetic[k] else ", not genetic"
            lines.append(f"  {label:8} {name:{width}} {K!r}{outside}")
        lines.append(f"  priors   shares ~ {self.prior}, p(s2) ~ 1/s2, covariates flat")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(repr(self))}</pre>"

    # -- point estimates ----------------------------------------------------------------------

    def reml(self) -> PartitionedFit:
        """Restricted maximum likelihood by average information, each component at least 0.

        Returns
        -------
        PartitionedFit
            Estimates with standard errors; whether it converged, and every step.

        Warns
        -----
        UserWarning
            If it did not converge in 100 iterations.

        Notes
        -----
        See `partition.components.maximise`: Newton's method with the average information, EM steps
        and halved steps as safeguards, components at 0 held there while they do not want to leave.
        """
        fit = self._optimum
        if not fit.converged:
            warnings.warn(
                f"REML did not converge in {fit.iterations} iterations; the last step promised "
                f"{fit.history[-1]['decrement']:.2g} of log-likelihood. Are kernels nearly the "
                "same? See model.overlap.",
                stacklevel=2,
            )
        theta, kappa = fit.theta, np.append(self.parts.kappa, 1.0)
        s2 = float(theta.sum())
        share = theta / s2
        K = len(self.kernels)
        at_0 = np.append(theta[:-1] <= 0, theta[-1] <= 2e-8 * s2)
        free = np.flatnonzero(~at_0)
        V = np.zeros((K + 1, K + 1))
        with threads(len(self.y)):
            information = fit.at.average_information
        V[np.ix_(free, free)] = np.linalg.inv(information[np.ix_(free, free)])
        slopes = (np.eye(K + 1) - share[:, None]) / s2
        genetic = np.append(self.genetic, False).astype(float)
        slope = genetic @ slopes
        h2_se = float(np.sqrt(max(float(slope @ V @ slope), 0.0)))
        share_se = np.sqrt(np.maximum(np.diagonal(slopes @ V @ slopes.T), 0))
        names = [*self.kernels, RESIDUAL]
        known = np.where(at_0, np.nan, 1.0)
        components = pd.DataFrame(
            {
                "h2": share,
                "h2_se": share_se * known,
                "s2": theta / kappa,
                "s2_se": np.sqrt(np.diagonal(V)) / kappa * known,
                "kappa": kappa,
                "at_0": at_0,
            },
            index=pd.Index(names, name="component"),
        )
        with threads(len(self.y)):
            at = self.parts.evaluate(share)
        assert at is not None
        b = pd.DataFrame(
            {"estimate": at.b, "se": np.sqrt(np.diagonal(at.covariance) * s2)},
            index=self.C.columns,
        )
        return PartitionedFit(
            components=components,
            h2=float(share @ genetic),
            h2_se=h2_se,
            s2=s2,
            b=b,
            loglik=fit.at.restricted,
            n=len(self.y),
            converged=fit.converged,
            iterations=fit.iterations,
            history=pd.DataFrame(fit.history).rename_axis("iteration"),
            covariance=pd.DataFrame(
                V / np.outer(kappa, kappa) * np.outer(known, known), names, names
            ),
        )

    @cached_property
    def _optimum(self) -> Optimum:
        with threads(len(self.y)):
            return maximise(self.parts)

    def lrt(self, components: Iterable[str] | None = None, *, seed: int = 0) -> pd.DataFrame:
        """Restricted likelihood-ratio test of each component, and of all together.

        Parameters
        ----------
        components : kernel names, optional
            Which; all by default.
        seed : int
            Of the simulation of mixtures.

        Returns
        -------
        DataFrame
            Indexed by component, "all" last: lrt, p (in large samples), loglik without it, and
            at_0, the other components on the boundary without it. One component, the others
            inside: 0 or chi-squared (1 df) with probability 1/2 each. Else the mixture follows
            from the information: see `bayeslmm.partition.components.mixture_p_value`.
        """
        chosen = list(self.kernels) if components is None else [str(name) for name in components]
        unknown = [name for name in chosen if name not in self.kernels]
        if unknown:
            raise InputError(
                f"No kernel {listing(unknown)}. There are {listing(self.kernels, 20)}."
            )
        full, rows = self._optimum, {}
        everything = list(range(len(self.kernels)))
        tests = [(name, [self.kernels.index(name)]) for name in chosen]
        if len(self.kernels) > 1:
            tests.append(("all", everything))
        with threads(len(self.y)):
            for name, tested in tests:
                start = full.theta.copy()
                start[-1] += start[tested].sum()
                null = maximise(self.parts, start=start, without=tested)
                lrt = max(2 * (full.at.restricted - null.at.restricted), 0.0)
                bounded = [k for k in everything if k not in tested and null.theta[k] <= 0]
                information = null.at.average_information
                p = (
                    1.0
                    if lrt < 1e-8
                    else mixture_p_value(lrt, information, tested, bounded, seed=seed)
                )
                rows[name] = {
                    "lrt": lrt,
                    "p": p,
                    "loglik": null.at.restricted,
                    "at_0": ", ".join(self.kernels[k] for k in bounded),
                }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("component")

    # -- the posterior ------------------------------------------------------------------------

    def posterior(
        self,
        draws: int = 4000,
        *,
        prior: Any = None,
        method: Method = "auto",
        evaluations: int | None = None,
        seed: int | np.random.Generator | None = None,
        progress: bool | None = None,
    ) -> xr.DataTree:
        """Draws from the posterior of all shares, variances and effects.

        The shares come from their marginal posterior, s2 and the effects integrated out; then
        s2 given them is scaled inverse chi-squared and the effects are normal.

        Parameters
        ----------
        draws : int
            Number of draws. If it is a multiple of 4 they are dealt into 4 chains.
        prior : prior, optional
            Of the shares; the model's by default.
        method : {"auto", "quadrature", "importance", "mcmc"}
            "auto": quadrature with one or two kernels (independent draws), else adaptive
            importance sampling, and Markov chains if its Pareto k stays above 0.7. See
            `bayeslmm.partition.shares`.
        evaluations : int, optional
            Evaluations of the likelihood for importance sampling, each a Cholesky factor.
        seed : int or Generator, optional
            For reproducible draws. The one used is recorded.
        progress : bool, optional
            Whether to show a progress bar.

        Returns
        -------
        DataTree
            Group posterior: h2_k (kernel), h2 (of the genetic kernels together), s2_k (kernel),
            s2_e, s2 (phenotype units squared), b (covariate). Groups observed_data and
            constant_data. The attributes hold the method, the number of evaluations, the
            effective sample size ess, pareto_k or r_hat where they exist, the log marginal
            likelihood (flat priors as in `numerics.likelihood.integrated_loglik`), and provenance.

        Warns
        -----
        SamplingWarning
            If Pareto k is above 0.7, the effective sample size below 100, or r-hat above 1.05.
        """
        from bayeslmm.partition.shares import Target, posterior_draws

        if draws < 1:
            raise InputError(f"At least one draw is needed, but draws={draws}.")
        if seed is None:
            seed = fresh_seed()
        chosen = self.prior if prior is None else as_share_prior(prior, self.kernels)
        rng = np.random.default_rng(seed)
        with threads(len(self.y)):
            start = self._optimum.theta
            found = posterior_draws(
                Target(self.parts, chosen.log_density),
                start / start.sum(),
                draws,
                rng,
                method=method,
                evaluations=evaluations,
                progress=progress,
            )
        _check_draws(found.account)
        s2 = found.Q / rng.chisquare(self.parts.df, size=draws)
        roots = np.linalg.cholesky(found.covariance) if self.C.shape[1] else found.covariance
        noise = rng.standard_normal(found.b.shape)
        b = found.b + np.sqrt(s2)[:, None] * np.einsum("nij,nj->ni", roots, noise)
        shares = found.shares[:, :-1]
        values = {
            "h2_k": shares,
            "h2": shares @ self.genetic,
            "s2_k": s2[:, None] * shares / self.parts.kappa,
            "s2_e": s2 * found.shares[:, -1],
            "s2": s2,
            "b": b,
        }
        attrs: dict[str, Any] = provenance() | {
            "formula": self.formula,
            "n": len(self.y),
            "kernels": list(self.kernels),
            "genetic": [name for name, yes in zip(self.kernels, self.genetic, strict=True) if yes],
            "kappa": self.parts.kappa.tolist(),
            "share_prior": repr(chosen),
            **({} if chosen.split is None else {"split_concentration": chosen.split.tolist()}),
            "s2_prior": "1/s2",
            "seed": int(seed) if isinstance(seed, int | np.integer) else "a caller's Generator",
        }
        return self._tree(values, attrs | found.account)

    def _tree(self, values: dict[str, np.ndarray], attrs: dict[str, Any]) -> xr.DataTree:
        import xarray as xr

        dims = {"h2_k": ["kernel"], "s2_k": ["kernel"], "b": ["covariate"]}
        coords = {"kernel": list(self.kernels), "covariate": list(self.C.columns)}
        posterior = in_chains(values, dims, coords, attrs)
        return xr.DataTree.from_dict(
            {"/": xr.Dataset(attrs=attrs), "posterior": posterior, **data_groups(self.aligned)}
        )

    def enrichment(
        self, tree: xr.DataTree | None = None, *, prob: float = 0.95, seed: int = 0
    ) -> pd.DataFrame:
        """Share of h2 over share of SNPs, per annotation; see `partition.enrichments.enrichment`.

        Parameters
        ----------
        tree : DataTree, optional
            Draws of `posterior`; by default 4,000 new ones.
        prob : float
            Of the intervals.
        seed : int
            For new draws.
        """
        from bayeslmm.partition.enrichments import enrichment

        tree = self.posterior(seed=seed) if tree is None else tree
        return enrichment(self, tree, prob=prob)

    # -- the generative model -------------------------------------------------------------------

    def pymc_model(self, *, priors: Mapping[str, Any] | None = None) -> pm.Model:
        """The model as PyMC code, for small n: dense, O(n^3) for every gradient.

        Parameters
        ----------
        priors : mapping, optional
            Priors by variable: share (of the kernels and the residual, dims "part"), sd or s2
            (total), b. Written as for `LMM.pymc_model`.

        Returns
        -------
        pymc.Model
            Variables share, h2_k, h2, s2, s2_k, s2_e, b. By default shares ~ the model's Dirichlet
            prior, sd ~ HalfStudentT(4, sd(y)), b ~ Normal(0, 10 sd(y) / sd(C)).
        """
        from bayeslmm.partition.generative import pymc_model

        return pymc_model(self, priors or {})

    # -- for others to read -----------------------------------------------------------------

    def report(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write one HTML file with everything, for readers without Python.

        Parameters
        ----------
        path : path-like
            The file to write.
        **options
            tree, genotypes, title, question, seed, overwrite and others: see
            `bayeslmm.reporting.models.report_model`.

        Returns
        -------
        Path
            The file; it needs no network and no other file.
        """
        from bayeslmm.reporting.models import report_model

        return report_model(self, path, **options)


# -- kernels ---------------------------------------------------------------------------------------


class _OneByOne:
    """Matrices of some samples, made when they are asked for."""

    def __init__(self, grms: list[GRM], ids: pd.Index) -> None:
        self.grms, self.ids = grms, ids

    def __len__(self) -> int:
        return len(self.grms)

    def __getitem__(self, k: int) -> np.ndarray:
        grm = self.grms[k]
        return (grm if grm.samples.equals(self.ids) else grm.subset(self.ids)).matrix


def _as_grms(kernels: Mapping[str, Kernel] | None) -> dict[str, GRM]:
    if not isinstance(kernels, Mapping) or not kernels:
        raise InputError(
            "kernels must be a mapping from names to kernels, as in "
            "kernels={'additive': bl.grm(genotypes), ...}, with at least one."
        )
    grms: dict[str, GRM] = {}
    for name, kernel in kernels.items():
        if kernel is None:
            raise InputError(f"Kernel '{name}' is None. Leave it out.")
        if isinstance(kernel, Eigenbasis):
            basis = kernel
            grms[str(name)] = basis.grm or GRM(
                (basis.vectors * basis.values) @ np.asarray(basis.vectors).T,
                basis.samples,
                labelled=basis.labelled,
            )
        else:
            grms[str(name)] = as_grm(kernel)
    if RESIDUAL in grms or len(grms) < len(kernels):
        raise InputError(
            f"Kernels need names of their own, other than '{RESIDUAL}': {listing(kernels, 20)}."
        )
    labelled = {K.labelled for K in grms.values()}
    sizes = {len(K.samples) for K in grms.values()}
    if len(labelled) > 1 or (labelled == {False} and len(sizes) > 1):
        raise InputError(
            "Some kernels name their samples and others do not, or they differ in size: their "
            "order cannot be checked ("
            + ", ".join(
                f"'{name}' {'named' if K.labelled else 'not named'}, {len(K.samples):,} samples"
                for name, K in grms.items()
            )
            + "). Label them: bl.GRM(matrix, samples=ids)."
        )
    for name, grm in grms.items():
        if not np.isfinite(grm.matrix).all():
            raise InputError(f"Kernel '{name}' is not finite everywhere.")
        gap = float(np.abs(grm.matrix - grm.matrix.T).max())
        if gap > 1e-5 * np.abs(grm.matrix).max():
            raise InputError(f"Kernel '{name}' is not symmetric: elements differ by {gap:.3g}.")
    return grms


def _check_positive(parts: Components, k: int, name: str) -> None:
    """A Cholesky factor of M_k moved up by the tolerance exists; else its eigenvalues decide."""
    K = len(parts.kappa)
    if parts.kappa[k] <= 0:
        raise InputError(
            f"Kernel '{name}' has a mean diagonal of {parts.kappa[k]:.3g}: not above 0."
        )
    # The root of the mean squared eigenvalue is no larger than the largest one.
    shift = _NEGATIVE * np.sqrt(parts.norms[k, k] / parts.df)
    if parts.factor(np.append(np.eye(K)[k], shift)) is not None:
        return
    values = np.linalg.eigvalsh(unpacked(parts.packed[k]))
    if values[0] < -_NEGATIVE * values[-1]:
        raise InputError(
            f"Kernel '{name}' is not positive-semidefinite: its eigenvalues (over its mean "
            f"diagonal) run from {values[0]:.4g} to {values[-1]:.4g}. A covariance has none below "
            "0; was it made with pairwise deletion, rounded, or edited?"
        )


def _deviations(parts: Components) -> np.ndarray:
    """Inner products of M_k - (tr M_k / nu) I, shape (K, K)."""
    G, nu = parts.norms, parts.df
    return G[:-1, :-1] - np.outer(G[:-1, -1], G[:-1, -1]) / nu


def _check_draws(account: dict[str, Any]) -> None:
    from bayeslmm.generative.sampling import SamplingWarning
    from bayeslmm.numerics.importance import LARGEST_K
    from bayeslmm.partition.shares import GOOD_ESS

    # The same thresholds decide what is done, and what is said.
    problems = []
    if account.get("pareto_k", -np.inf) > LARGEST_K:
        problems.append(
            f"Pareto k of the importance weights is {account['pareto_k']:.2f} (at most {LARGEST_K} "
            "is good): the tails of the posterior are not reached. Raise evaluations, or use "
            "method='mcmc'"
        )
    if account.get("r_hat", 1.0) > 1.05:
        problems.append(f"r-hat is {account['r_hat']:.3f}: the chains disagree. Raise draws")
    if account["ess"] < GOOD_ESS and account["method"] != "quadrature":
        problems.append(
            f"the draws are worth {account['ess']:.0f} independent ones (at least {GOOD_ESS:.0f} "
            "are good). Raise " + ("draws" if "r_hat" in account else "evaluations")
        )
    if problems:
        warnings.warn("; ".join(problems) + ".", SamplingWarning, stacklevel=3)
