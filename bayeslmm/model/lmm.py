"""The linear mixed model: a specification, its point estimates and its exact posterior."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Basis
from bayeslmm.bases.kernel import Kernel, as_kernel, kernel_basis
from bayeslmm.errors import InputError, in_short
from bayeslmm.inputs.case_control import two_valued_note
from bayeslmm.inputs.formulas import (
    Design,
    design_from_arrays,
    design_from_formula,
    pcs_asked,
    with_pcs,
)
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.inputs.phenotypes import phenotype_table
from bayeslmm.model import exact_posterior
from bayeslmm.model.estimates import Fit, estimates_at
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.maximum import maximise_h2
from bayeslmm.numerics.quadrature import UnitDensity
from bayeslmm.priors import H2Prior, as_h2_prior
from bayeslmm.relatedness.dense import GRM, Relatedness

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr
    from arviz_stats.utils import ELPDData

    from bayeslmm.bases.structure import PCA
    from bayeslmm.genome.finemapping import FineMap
    from bayeslmm.genome.scan_files import ScanFile
    from bayeslmm.model.comparison import Groups
    from bayeslmm.model.evidence import Evidence
    from bayeslmm.model.heritability import H2Report
    from bayeslmm.model.intervals import Nodes
    from bayeslmm.model.residuals import ResidualCheck
    from bayeslmm.partition.model import PartitionedLMM


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
    kernel : GRM, SparseGRM, Basis, DataFrame, array (n, n), or None
        Relatedness, dense, sparse or of low rank. Samples are matched by id, whatever the
        order. None is plain linear regression.
    h2_prior : prior
        ``"uniform"`` (default), a `bayeslmm.priors.H2Prior`, a function of h2, or a
        scipy distribution.
    id : str, optional
        Column of `data` that holds the sample ids, if its index does not.
    missing : {"error", "drop"}
        What a missing covariate does.
    kernels : mapping of str to kernel, optional
        Several kernels by name, instead of `kernel`: makes a `PartitionedLMM`, the model of as
        many variance components, and takes its options (`prior` in place of `h2_prior`).
        Pyright and editors know it; mypy takes the result for an `LMM`: code that it checks calls
        `PartitionedLMM` itself.
    pcs : PCA or DataFrame, optional
        What ``pcs(k)`` in the formula means, as in ``"cd8 ~ sex + pcs(10)"``: a `PCA`, or
        a table with the columns PC1, PC2, ... by sample id. By default the components of
        the kernel on *all* its samples, analysed or not (as plink and GCTA have them).

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

    # Pyright, and editors that use it, know the type of the result; mypy has no way to.
    @overload
    def __new__(cls, *arguments: Any, kernels: None = None, **options: Any) -> Self: ...
    @overload
    def __new__(  # type: ignore[misc]
        cls,
        formula: str | np.ndarray | pd.Series,
        data: pd.DataFrame | np.ndarray | str | os.PathLike[str] | None = None,
        *,
        kernels: Mapping[str, Kernel],
        prior: Any = "uniform",
        id: str | None = None,
        missing: Literal["error", "drop"] = "error",
        pcs: PCA | pd.DataFrame | None = None,
    ) -> PartitionedLMM: ...
    def __new__(
        cls,
        *arguments: Any,
        kernels: Mapping[str, Kernel] | None = None,
        **options: Any,
    ) -> Any:
        """An `LMM`, or with several kernels a `PartitionedLMM`."""
        if kernels is None:
            return super().__new__(cls)
        from bayeslmm.partition.model import PartitionedLMM

        if "kernel" in options or len(arguments) > 2:
            raise InputError("Give either kernel or kernels: put the one among the others.")
        if "h2_prior" in options:
            raise InputError(
                "With several kernels there is a prior of their shares instead of h2_prior: "
                "prior=bl.priors.Dirichlet(...) or bl.priors.HeritabilitySplit(h2_prior)."
            )
        return PartitionedLMM(*arguments, **options | {"kernels": kernels})

    def __init__(
        self,
        formula: str | np.ndarray | pd.Series,
        data: pd.DataFrame | np.ndarray | str | os.PathLike[str] | None = None,
        kernel: Kernel | None = None,
        *,
        h2_prior: Any = "uniform",
        id: str | None = None,
        missing: Literal["error", "drop"] = "error",
        kernels: Mapping[str, Kernel] | None = None,
        prior: Any = None,
        pcs: PCA | pd.DataFrame | None = None,
    ) -> None:
        if prior is not None:
            raise InputError("prior= is for several kernels; that of one kernel is h2_prior=.")
        self.h2_prior: H2Prior = as_h2_prior(h2_prior)
        self._kernel = None if kernel is None else as_kernel(kernel)
        ids = None if self._kernel is None else self._kernel.samples
        labelled = self._kernel is not None and self._kernel.labelled
        if isinstance(formula, str):
            self.formula = formula
            if pcs_asked(formula):
                from bayeslmm.bases.structure import components

                pcs = components(self._kernel, pcs, pcs_asked(formula))
            self._pcs = pcs
            self._design = _design(
                formula, data, id, ids, labelled=labelled, missing=missing, pcs=pcs
            )
        else:
            if pcs is not None:
                raise InputError(
                    "pcs is what pcs(k) in a formula means; with the phenotype as an array give "
                    "the components as covariates."
                )
            self._pcs = None
            if isinstance(data, str | os.PathLike):
                raise InputError("With the phenotype as an array, covariates are an array too.")
            self._design = design_from_arrays(
                formula, data, ids, labelled_kernel=labelled, missing=missing
            )
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
    def phenotype(self) -> str:
        """Name of the phenotype."""
        return self._design.name

    @property
    def levels(self) -> tuple[str, str] | None:
        """What 0 and 1 of `y` are in the data, if the phenotype came in words."""
        return self._design.levels

    @property
    def samples(self) -> pd.DataFrame:
        """Every sample of the table and of the kernel: kept (bool) and reason (text)."""
        return self._design.account

    @property
    def ids(self) -> pd.Index:
        """Ids of the analysed samples, in the order of `y`."""
        return self._design.ids

    @cached_property
    def basis(self) -> Basis | None:
        """The eigenbasis of the analysed samples; None without kernel."""
        if self._kernel is None:
            return None
        return kernel_basis(self._kernel, self.ids, has_intercept=self.has_intercept)

    def _new_covariates(
        self,
        data: pd.DataFrame | np.ndarray | None,
        ids: pd.Index,
        genotypes: Genotypes | None = None,
    ) -> np.ndarray:
        """Covariates (a, c) of other samples; see `inputs.formulas.Design.new_covariates`.

        Components that the formula asks for, and the table lacks, are projected from genotypes.
        """
        if pcs_asked(self.formula) and not isinstance(data, np.ndarray):
            from bayeslmm.bases.structure import new_components

            data = new_components(self._pcs, pcs_asked(self.formula), data, ids, genotypes)
        return self._design.new_covariates(data, ids)

    @property
    def pcs(self) -> PCA | pd.DataFrame | None:
        """What pcs(k) in the formula stands for; None if it has none."""
        return self._pcs

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

    @cached_property
    def contrast_eigenvalues(self) -> np.ndarray:
        """Eigenvalues of PKP / kappa without those of the covariates, ascending, (n - c,).

        What the samples can tell about h2 depends on nothing else (`bayeslmm.model.intervals`).
        """
        from bayeslmm.model.intervals import contrast_eigenvalues

        if self.basis is None:
            raise InputError("Without kernel there is no h2: it is 0 by definition.")
        return contrast_eigenvalues(self.rotated)

    @cached_property
    def _h2_nodes(self) -> Nodes:
        """Nodes of h2, with the critical values of tests once they are simulated."""
        from bayeslmm.model.intervals import Nodes

        return Nodes(self.contrast_eigenvalues)

    def with_phenotype(self, y: np.ndarray) -> LMM:
        """The same model of another phenotype of the same samples, y (n,) in their order.

        For simulated or permuted phenotypes: the basis is shared.
        """
        values = np.asarray(y, dtype=np.float64)
        if values.shape != self.y.shape or not np.isfinite(values).all():
            raise InputError(f"y must be {len(self.y):,} finite numbers, one per analysed sample.")
        _ = self.basis  # made once, then shared
        other = copy(self)
        other.__dict__.pop("rotated", None)
        other._design = replace(self._design, y=values, levels=None, phenotype_of=None)
        return other

    def with_covariates(self, table: pd.DataFrame | pd.Series) -> LMM:
        """The same model with further covariates, such as principal components.

        The basis is shared. Samples are matched by id; others may be in the table too.

        Parameters
        ----------
        table : DataFrame, shape (>= n, k), or Series
            Numbers, one column per covariate, indexed by sample id.

        Raises
        ------
        InputError
            For analysed samples that are not there, missing values, names that the
            model has already, and columns that its covariates explain (collinear).

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> import bayeslmm as bl
        >>> model = bl.LMM(np.array([1.0, 3, 2, 5, 4]))
        >>> model.with_covariates(pd.DataFrame({"rs1": [0, 1, 2, 1, 0]})).formula
        'y ~ 1 + rs1'
        """
        table = table.to_frame() if isinstance(table, pd.Series) else table
        _ = self.basis  # made once, then shared
        other = copy(self)
        for made in ("rotated", "contrast_eigenvalues", "_h2_nodes"):
            other.__dict__.pop(made, None)
        other._design = self._design.with_covariates(table)
        names = [str(name) for name in table.columns]
        other.formula = " + ".join(
            [self.formula, *(name if name.isidentifier() else f"`{name}`" for name in names)]
        )
        return other

    def with_kernel(self, kernel: Relatedness | Basis | None) -> LMM:
        """The same model with another kernel, which must hold its samples."""
        other = copy(self)
        for made in ("rotated", "basis", "contrast_eigenvalues", "_h2_nodes"):
            other.__dict__.pop(made, None)
        other._kernel = kernel
        return other

    def with_snps(self, snps: str | Iterable[str], genotypes: Genotypes | None = None) -> LMM:
        """The same model with the centred dosages of SNPs as covariates, of flat prior.

        Parameters
        ----------
        snps : str or sequence of str
            Variant ids.
        genotypes : Genotypes, optional
            Where they are looked up; by default the genotypes of the kernel.
        """
        from bayeslmm.model.snps import selected_snps

        found = selected_snps(self, snps, genotypes)
        return self.with_covariates(pd.DataFrame(found.x, self.ids, found.ids))

    def without_kernel(self) -> LMM:
        """The same model of the same samples without genetics: linear regression."""
        return self.with_kernel(None)

    @property
    def kernel(self) -> Relatedness | Basis | None:
        """Relatedness as it was given: a GRM, or a basis; asks for no decomposition."""
        return self._kernel

    @property
    def has_kernel(self) -> bool:
        """Whether there is a kernel; asks for no decomposition."""
        return self._kernel is not None

    @property
    def has_basis(self) -> bool:
        """Whether the eigenbasis of the analysed samples is made already."""
        return self.__dict__.get("basis") is not None

    @property
    def grm(self) -> GRM | None:
        """The dense relatedness matrix behind the kernel, if it is known."""
        return self.relatedness if isinstance(self.relatedness, GRM) else None

    @property
    def relatedness(self) -> Relatedness | None:
        """The relatedness matrix behind the kernel, dense or sparse, if it is known."""
        return self._kernel.grm if isinstance(self._kernel, Basis) else self._kernel

    def __repr__(self) -> str:
        kept = int(self.samples.kept.sum())
        lines = [f"LMM  {self.formula}", f"  samples  {kept:,} analysed"]
        dropped = self.samples.reason[~self.samples.kept].value_counts()
        lines += [f"           {count:,} dropped: {reason}" for reason, count in dropped.items()]
        if (note := two_valued_note(self)) is not None:
            lines.append(f"  phenotype  {note}")
        lines.append(f"  covariates  {in_short(self.C.columns)}")
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
        and then refined: it cannot fail to converge. Patterson & Thompson (1971,
        Biometrika 58:545); Zhou & Stephens (2012, Nat Genet 44:821).
        """
        h2 = 0.0
        if self.basis is not None:
            h2 = maximise_h2(lambda h: likelihood.restricted_loglik(self.rotated, h))
        return estimates_at(
            self.rotated, self.C.columns, "REML", h2, has_kernel=self.basis is not None
        )

    def map(self) -> Fit:
        """The mode of the posterior of h2, with s2 and effects estimated given it.

        The mode is that of the density of h2 on (0, 1) with everything else
        integrated out; a point mass at 0 in the prior plays no part. Under the uniform
        prior it equals `reml`.
        """
        if self.basis is None:
            return estimates_at(self.rotated, self.C.columns, "MAP", 0.0, has_kernel=False)

        def log_posterior(h2: np.ndarray) -> np.ndarray:
            inside = np.clip(h2, 1e-12, likelihood.LARGEST_H2)
            prior = self.h2_prior.log_density(inside)
            return likelihood.integrated_loglik(self.rotated, h2) + prior

        mode = maximise_h2(log_posterior)
        return estimates_at(
            self.rotated, self.C.columns, "MAP", mode, self.h2_prior, has_kernel=True
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
        return exact_posterior.h2_density(self.rotated, self.h2_prior, s2_prior)

    # -- intervals for h2, and what they rest on -------------------------------------------------

    def h2_interval(
        self,
        level: float = 0.95,
        method: Literal["rlrt", "score", "reml"] = "rlrt",
        *,
        seed: int = 0,
    ) -> tuple[float, float]:
        """Confidence interval for h2 that covers at every h2, 0 and 1 included.

        Parameters
        ----------
        level : float
            Coverage.
        method : {"rlrt", "score", "reml"}
            Inversion of the restricted likelihood-ratio test with simulated critical values;
            of the exact score test, without random numbers but wider; or REML and its standard
            error, the usual interval, which covers in large samples only.
        seed : int
            Of the simulation behind "rlrt".

        Returns
        -------
        (float, float)
            See `bayeslmm.model.intervals.h2_confidence_interval`. The posterior interval is
            ``h2_posterior().hdi()``.
        """
        from bayeslmm.model.intervals import h2_confidence_interval

        # The usual interval needs no n x n matrix, however many covariates there are.
        nodes = None if method == "reml" else self._h2_nodes
        return h2_confidence_interval(self.rotated, level, method, nodes=nodes, seed=seed)

    def h2_report(self, *, level: float = 0.95) -> H2Report:
        """Heritability in full: three intervals, the effect of the prior, what the samples allow.

        Returns
        -------
        H2Report
            Prints itself, with warnings in words; `plot` draws it.
        """
        from bayeslmm.model.heritability import h2_report

        return h2_report(self, level=level)

    def coverage(
        self,
        true_h2: Iterable[float] | None = None,
        *,
        replicates: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> pd.DataFrame:
        """How often intervals for h2 would hold the truth on these very samples, by simulation.

        Parameters
        ----------
        true_h2 : iterable of float, optional
            True values; by default 13 from 0 to 1.
        replicates : int
            Phenotypes simulated at each.
        level : float
            Of the intervals.
        seed : int
            For reproducible numbers.

        Returns
        -------
        DataFrame
            Coverage and mean width of the posterior interval under the model's prior, of the
            confidence interval and of REML +- 1.96 SE: see `bayeslmm.model.designs.coverage`.
            `plots.coverage` draws it.
        """
        from bayeslmm.model.designs import TRUE_H2, coverage

        table = coverage(
            self._h2_nodes,
            self.h2_prior,
            true_h2=TRUE_H2 if true_h2 is None else true_h2,
            replicates=replicates,
            level=level,
            seed=seed,
        )
        table.attrs |= {"formula": self.formula, "n": len(self.y)}
        return table

    def prior_table(
        self, priors: Mapping[str, Any] | None = None, *, prob: float = 0.95
    ) -> pd.DataFrame:
        """Posterior of h2 under a set of priors, from the same evaluations of the likelihood.

        Parameters
        ----------
        priors : mapping of str to prior, optional
            By name; by default the model's own, uniform, Beta(1/2, 1/2), Beta(2, 2), and a
            penalised-complexity prior with P(h2 > 0.5) = 0.1.
        prob : float
            Probability of the highest-density interval.

        Returns
        -------
        DataFrame
            Indexed by prior: mean, sd, low, high, p_zero (posterior probability of h2 = 0),
            log_marginal (log marginal likelihood). `plots.prior_table` draws it.
        """
        from bayeslmm.model.heritability import prior_table

        return prior_table(self, priors, prob=prob)

    def check_residuals(self, groups: Any = None) -> ResidualCheck:
        """Whitened and leave-one-out residuals; see `bayeslmm.check_residuals`."""
        from bayeslmm.model.residuals import check_residuals

        return check_residuals(self, groups)

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
            Number of independent draws; the effective sample size is the same. If it
            is a multiple of 4 they are dealt into 4 chains, which az.summary likes.
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
            `bayeslmm.numerics.likelihood.integrated_loglik`), the mean, sd and 95%
            highest-density interval of h2 by quadrature, P(h2 = 0), and provenance.

        References
        ----------
        Furlotte NA, Heckerman D, Lippert C (2014). Quantifying the uncertainty in heritability.
        J Hum Genet 59:269. doi:10.1038/jhg.2014.15
        """
        return exact_posterior.posterior(self, draws, u=u, s2_prior=s2_prior, seed=seed)

    def draw_posterior(
        self,
        draws: int,
        rng: np.random.Generator,
        *,
        density: UnitDensity | None = None,
        s2_prior: tuple[float, float] = (0.0, 0.0),
    ) -> dict[str, np.ndarray]:
        """The draws of `posterior` as plain arrays, first axis the draws.

        `density` is the posterior of h2, if it is at hand.
        """
        if density is None and self.basis is not None:
            density = self.h2_posterior(s2_prior=s2_prior)
        return exact_posterior.draw(self.rotated, density, draws, rng, s2_prior)

    # -- the generative model ----------------------------------------------------------------

    def pymc_model(
        self,
        parameterization: Literal["eigenbasis", "explicit", "marginal"] = "eigenbasis",
        **options: Any,
    ) -> pm.Model:
        """The model as PyMC code, to read, draw and change.

        Parameters
        ----------
        parameterization : {"eigenbasis", "explicit", "marginal"}
            Three forms of the same posterior.
        **options
            snps, genotypes, snp_prior, priors, observe: see
            `bayeslmm.generative.eigen.pymc_model`.
        """
        from bayeslmm.generative.eigen import pymc_model

        return pymc_model(self, parameterization, **options)

    def sample(
        self,
        snps: Any = None,
        snp_prior: Any = "normal",
        *,
        genotypes: Genotypes | None = None,
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
        """Sample the posterior with NUTS: any prior, and the joint effects of chosen SNPs.

        The model is compiled once for each shape (number of covariates and SNPs, kinds
        of priors) and fed new data afterwards: a second phenotype takes a fraction of a
        second.

        Parameters
        ----------
        snps : variant ids, or DataFrame (samples x SNPs), optional
            SNPs whose effects are estimated jointly.
        snp_prior : str or `bayeslmm.priors.SnpPrior`
            ``"normal"``, ``"horseshoe"``, ``"r2d2"``, or ``"spike_slab"`` (up to 15
            SNPs; computed exactly, without Markov chains, under 1/s2).
        genotypes : Genotypes, optional
            Where SNP ids are looked up; by default the genotypes of the kernel.
        priors : mapping, optional
            Priors by variable; see `bayeslmm.generative.eigen.pymc_model`.
        draws, tune, chains : int
            Draws kept and draws for tuning of each chain, and the number of chains.
        seed : int, optional
            For reproducible draws. The one used is recorded.
        target_accept : float, optional
            Acceptance that NUTS adapts its step size to: 0.8; for the horseshoe and R2D2 0.9,
            and 0.99 where effects are sampled, too.
        sampler : {"nutpie", "pymc"}
            Which NUTS.
        u : bool
            Add a draw of the random effects given each posterior draw.
        log_likelihood : bool, optional
            Add ``log p(y_i | y_-i, draw)`` of each individual, the one that leave-one-out
            needs; by default unless it has more than 20 million numbers.
        posterior_predictive : bool
            Add replicated phenotypes.
        progress : bool
            Whether the sampler shows its progress.

        Returns
        -------
        DataTree
            Groups posterior (h2, s2_g, s2_e, s2, sd, b, and with SNPs beta in
            phenotype units per effect allele and beta_std in total sd per sd of the
            genotype), sample_stats, observed_data, constant_data, and those asked for.

        Warns
        -----
        SamplingWarning
            After divergences, for high r-hat and for few effective draws, with what to do.
        """
        from bayeslmm.generative.sampling import sample

        return sample(
            self,
            snps=snps,
            genotypes=genotypes,
            snp_prior=snp_prior,
            priors=priors,
            draws=draws,
            tune=tune,
            chains=chains,
            seed=seed,
            target_accept=target_accept,
            sampler=sampler,
            u=u,
            log_likelihood=log_likelihood,
            posterior_predictive=posterior_predictive,
            progress=progress,
        )

    def prior_predictive(self, draws: int = 500, **options: Any) -> xr.DataTree:
        """Draws from the prior and phenotypes that it predicts.

        Parameters
        ----------
        draws : int
            Number of draws.
        **options
            snps, genotypes, snp_prior, priors, seed: as in `sample`.

        Returns
        -------
        DataTree
            Groups prior, prior_predictive (y), observed_data, constant_data.
        """
        from bayeslmm.generative.sampling import prior_predictive

        return prior_predictive(self, draws=draws, **options)

    def prior_sensitivity(self, tree: xr.DataTree, **options: Any) -> pd.DataFrame:
        """How much the posterior changes when prior or likelihood are raised to a power.

        ArviZ's psense on the joint likelihood of all samples (the pointwise one of the
        log_likelihood group leaves one out, and does not add up to it).

        Parameters
        ----------
        tree : DataTree
            Draws of `sample`.
        **options
            The same snps, snp_prior and priors as for `sample`; var_names.

        References
        ----------
        Kallioinen N et al. (2024). Detecting and diagnosing prior and likelihood sensitivity
        with power-scaling. Stat Comput 34:57. doi:10.1007/s11222-023-10366-5
        """
        from bayeslmm.generative.sampling import prior_sensitivity

        return prior_sensitivity(self, tree, **options)

    # -- prediction ----------------------------------------------------------------------------

    def random_effects(
        self,
        tree: xr.DataTree | None = None,
        samples: Iterable[str] | Literal["all"] | None = None,
        *,
        prob: float = 0.95,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Posterior of u (the BLUP, with its uncertainty over all parameters).

        Parameters
        ----------
        tree : DataTree, optional
            Posterior draws; by default 1,000 of the exact posterior.
        samples : sample ids or "all", optional
            Samples of the kernel, with phenotype or without; the analysed ones by
            default, "all" of the kernel.
        prob : float
            Probability of the interval.
        seed : int
            For the draws.

        Returns
        -------
        DataFrame
            Indexed by sample id: u_mean, u_sd, u_low, u_high (phenotype units).
        """
        from bayeslmm.model import predict

        tree = self.posterior(1000, seed=seed) if tree is None else tree
        if samples is None:
            ids = self.ids
        elif isinstance(samples, str) and samples == "all" and self._kernel is not None:
            ids = self._kernel.samples
        else:
            ids = predict.sample_ids(samples)
        cross = predict.kernel_samples(self, ids)
        return predict.random_effects(self, tree, cross, prob=prob, seed=seed)

    def snp_effects(self, tree: xr.DataTree | None = None, *, seed: int = 0) -> pd.DataFrame:
        """Posterior mean effect of every SNP of the kernel in the polygenic part (SNP-BLUP).

        Returns
        -------
        DataFrame
            chrom, pos, id, ea, oa, eaf, effect (phenotype units per effect allele).
        """
        from bayeslmm.model import predict

        tree = self.posterior(1000, seed=seed) if tree is None else tree
        return predict.snp_effects(self, tree)

    def predict(
        self,
        genotypes: Genotypes | str | os.PathLike[str] | None = None,
        data: pd.DataFrame | np.ndarray | None = None,
        tree: xr.DataTree | None = None,
        *,
        samples: Iterable[str] | None = None,
        prob: float = 0.9,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Predict the phenotypes of new samples, with uncertainty over all parameters.

        Parameters
        ----------
        genotypes : Genotypes or path, optional
            The new samples' genotypes at the kernel's variants; standardised by the
            kernel's own frequencies.
        data : DataFrame, or array (a, c - 1), optional
            Their covariates: a table indexed by sample id, or for a model made from
            arrays the covariates without intercept.
        tree : DataTree, optional
            Posterior draws; by default 1,000 of the exact posterior.
        samples : sample ids, optional
            Instead of genotypes: samples of the kernel that were not analysed.
        prob : float
            Probability of the predictive interval.
        seed : int
            For the draws.

        Returns
        -------
        DataFrame
            Indexed by sample id: u_mean, u_sd, u_low, u_high and y_mean, y_sd, y_low,
            y_high (phenotype units). See `bayeslmm.prediction_accuracy` where some of them
            were measured.

        Raises
        ------
        InputError
            For variants or covariates that are missing, and alleles that disagree.
        """
        from bayeslmm.model import predict

        tree = self.posterior(1000, seed=seed) if tree is None else tree
        with_snps = "beta" in tree["posterior"]
        cross, new = predict.to_predict(self, genotypes, samples, with_snps=with_snps)
        C = self._new_covariates(data, cross.ids, new)
        table, draws = predict.predict(self, tree, cross, C, new, prob=prob, seed=seed)
        table.attrs = {"formula": self.formula, "prob": prob, "draws": draws.shape[1]}
        return table

    def phenotypes_of(self, data: pd.DataFrame, samples: Iterable[str]) -> pd.Series:
        """Phenotypes of other samples, as the formula makes them: to compare predictions with.

        Parameters
        ----------
        data : DataFrame
            Their table, indexed by sample id.
        samples : sample ids
            Which of them.

        Returns
        -------
        Series
            NaN where the phenotype is missing, or the sample or the column is not there.

        Raises
        ------
        InputError
            For values that the model's phenotype does not have, and models made from arrays.
        """
        from bayeslmm.model.predict import sample_ids

        return self._design.new_phenotypes(data, sample_ids(samples))

    # -- comparison ------------------------------------------------------------------------

    def loo(self, groups: Groups = None, *, joint: bool = True, seed: int = 0) -> ELPDData:
        """Expected log predictive density of left-out samples, exact.

        Parameters
        ----------
        groups : None, Series, array (n,) or int, optional
            What is left out at a time: one sample, all of a group (labels by sample id,
            or in the order of `ids`), or one of so many random folds. See
            `bayeslmm.compare`, which puts models side by side.
        joint : bool
            Whether a group is scored by the joint density of its members, or by the sum
            of each member's given the other groups.
        seed : int
            For random folds.

        Returns
        -------
        ELPDData
            ArviZ's: elpd, se, p, elpd_i (by sample or group).
        """
        from bayeslmm.model.comparison import loo

        return loo(self, groups, joint=joint, seed=seed)

    def evidence(self, *, rope: float = 0.02, replicates: int = 10_000, seed: int = 0) -> Evidence:
        """Evidence for h2 > 0: Bayes factor and exact restricted likelihood-ratio test.

        Parameters
        ----------
        rope : float
            Region of practical equivalence: h2 below it is as good as none.
        replicates : int
            Simulations of h2 = 0 for the exact p-value.
        seed : int
            For these.

        Returns
        -------
        Evidence
            log10_bf (with the model's prior on h2, a point mass at 0 left aside), its
            values for other priors, p_below_rope, rlrt, p_exact, p_mixture.

        References
        ----------
        Crainiceanu CM, Ruppert D (2004). Likelihood ratio tests in linear mixed models with one
        variance component. J R Stat Soc B 66:165. doi:10.1111/j.1467-9868.2004.00438.x
        """
        from bayeslmm.model.evidence import evidence

        return evidence(self, rope=rope, replicates=replicates, seed=seed)

    # -- the genome ------------------------------------------------------------------------

    def scan(
        self,
        genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
        tests: str | Iterable[str] | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Test every variant; see `bayeslmm.scan`."""
        from bayeslmm.genome.association import scan

        return scan(self, genotypes, tests, **options)

    def scan_to_file(
        self,
        genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
        path: str | os.PathLike[str],
        tests: str | Iterable[str] | None = None,
        **options: Any,
    ) -> ScanFile:
        """Test every variant and write the table part by part; see `bayeslmm.scan_to_file`."""
        from bayeslmm.genome.association import scan_to_file

        return scan_to_file(self, genotypes, path, tests, **options)

    def finemap(self, *arguments: Any, **options: Any) -> FineMap:
        """Which SNPs of a region carry its effects; see `bayeslmm.finemap`."""
        from bayeslmm.genome.finemapping import finemap

        return finemap(self, *arguments, **options)

    # -- for others to read -----------------------------------------------------------------

    def report(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write one HTML file with everything, for readers without Python.

        Parameters
        ----------
        path : path-like
            The file to write.
        **options
            genotypes, hits, tree, finemap, title, question and others: see
            `bayeslmm.reporting.report.report`.

        Returns
        -------
        Path
            The file; it needs no network and no other file.
        """
        from bayeslmm.reporting.report import report

        return report(self, path, **options)


def _design(
    formula: str,
    data: Any,
    id: str | None,
    kernel_ids: pd.Index | None,
    *,
    labelled: bool,
    missing: str,
    pcs: PCA | pd.DataFrame | None = None,
) -> Design:
    data = phenotype_table(formula, data, id, kernel_ids, labelled=labelled)
    if pcs_asked(formula):
        from bayeslmm.bases.structure import join_components

        assert pcs is not None
        data = join_components(formula, data, pcs)
    return design_from_formula(with_pcs(formula), data, kernel_ids, missing=missing)
