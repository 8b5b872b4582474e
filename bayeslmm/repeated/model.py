"""`RepeatedLMM`: several records of an individual, with its permanent environment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Eigenbasis
from bayeslmm.bases.kernel import Kernel, kernel_basis
from bayeslmm.errors import InputError, in_short, listing
from bayeslmm.inputs.phenotypes import read_phenotypes
from bayeslmm.model.lmm import LMM
from bayeslmm.numerics import likelihood
from bayeslmm.relatedness.dense import GRM, as_grm
from bayeslmm.relatedness.pedigrees import id_of
from bayeslmm.repeated.likelihood import PARTS, ShareLikelihood, curvature, summarise, threads

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr

    from bayeslmm.model.residuals import ResidualCheck


@dataclass(frozen=True)
class RepeatedFit:
    """Point estimates of a repeated-measures model.

    Attributes
    ----------
    h2, h2_se : float
        s2_g kappa / s2, and its standard error; NaN on a boundary.
    repeatability, repeatability_se : float
        h2 + s2_p / s2: the correlation of two records of an (average) individual.
    permanent, permanent_se : float
        s2_p / s2, the share of the permanent environment.
    s2_g, s2_p, s2_e, s2_g_se, s2_p_se, s2_e_se : float
        Variance components (phenotype units squared) and their standard errors.
    s2 : float
        Total variance, s2_g kappa + s2_p + s2_e.
    kappa : float
        Mean diagonal of the centred K.
    b : DataFrame
        Covariate effects: columns estimate and se.
    loglik : float
        Restricted log-likelihood.
    n_records, n_individuals : int
        What it was estimated from.
    boundary : str
        Which share is 0, if one is.
    """

    h2: float
    h2_se: float
    repeatability: float
    repeatability_se: float
    permanent: float
    permanent_se: float
    s2_g: float
    s2_p: float
    s2_e: float
    s2_g_se: float
    s2_p_se: float
    s2_e_se: float
    s2: float
    kappa: float
    b: pd.DataFrame = field(repr=False)
    loglik: float
    n_records: int
    n_individuals: int
    boundary: str

    @property
    def components(self) -> pd.DataFrame:
        """Share and variance of each part with standard errors; the shares sum to 1."""
        return pd.DataFrame(
            {
                "share": [self.h2, self.permanent, 1 - self.repeatability],
                "share_se": [self.h2_se, self.permanent_se, self.repeatability_se],
                "s2": [self.s2_g, self.s2_p, self.s2_e],
                "s2_se": [self.s2_g_se, self.s2_p_se, self.s2_e_se],
            },
            index=pd.Index(PARTS, name="part"),
        )

    @property
    def vg_over_vp(self) -> float:
        """s2_g / (s2_g + s2_p + s2_e): with a pedigree, h2 in its base population."""
        return self.s2_g / (self.s2_g + self.s2_p + self.s2_e)

    def __str__(self) -> str:
        if self.boundary:
            h2_se = repeatability_se = f"no SE: {self.boundary}"
        else:
            h2_se, repeatability_se = f"SE {self.h2_se:.4f}", f"SE {self.repeatability_se:.4f}"
        return (
            f"REML ({self.n_records:,} records of {self.n_individuals:,} individuals): "
            f"h2 = {self.h2:.4f} ({h2_se}), "
            f"repeatability = {self.repeatability:.4f} ({repeatability_se}), "
            f"s2_g = {self.s2_g:.5g}, s2_p = {self.s2_p:.5g}, s2_e = {self.s2_e:.5g}, "
            f"kappa = {self.kappa:.4g}, V(G)/Vp = {self.vg_over_vp:.4f}, "
            f"restricted log-likelihood {self.loglik:.2f}"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = {
            name: (getattr(self, name), getattr(self, f"{name}_se"))
            for name in ("h2", "repeatability", "s2_g", "s2_p", "s2_e")
        }
        table = pd.concat([pd.DataFrame(rows, index=["estimate", "se"]).T, self.b])
        note = f"on the boundary ({self.boundary}): no standard errors" if self.boundary else ""
        caption = (
            f"REML, {self.n_records:,} records of {self.n_individuals:,} individuals, "
            f"log-likelihood {self.loglik:.2f}. {note}"
        )
        return f"<p>{caption}</p>" + table.to_html(float_format="{:.5g}".format, na_rep="-")


class RepeatedLMM:
    """Repeated measures: y = C b + Z (u + p) + e, with a permanent-environment effect p.

    u ~ N(0, s2_g K), p ~ N(0, s2_p I), e ~ N(0, s2_e I). A specification like `LMM`:
    nothing is computed until a method is called. The likelihood is exact in all of
    them; what it costs is in the text of `bayeslmm.repeated.likelihood`.

    Parameters
    ----------
    formula : str
        ``"weight ~ age + sex"``: covariates may differ between records of an individual.
    data : DataFrame or path
        One row for each record.
    kernel : Pedigree, GRM, Eigenbasis, or square DataFrame
        Relatedness of the individuals, matched by id.
    id : str, optional
        Column of `data` that names the individual; by default its index (in a file,
        the first column).
    missing : {"error", "drop"}
        What a missing covariate does.

    Attributes
    ----------
    y : ndarray, shape (N,)
        Phenotypes of the analysed records, in the order of the table.
    C : DataFrame, shape (N, c)
        Their covariates, indexed by record: "id #1", "id #2", ...
    records : DataFrame
        Every record of the table: individual, kept, and the reason if not.
    individuals : Index
        The n individuals with a record, in the kernel's order.

    Raises
    ------
    InputError
        For what cannot be aligned or fitted, and if nobody has two records: then
        permanent environment and residual are one, and `LMM` is the model.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(3)
    >>> calves = [f"calf{i}" for i in range(300)]
    >>> table = pd.DataFrame({"id": calves, "sire": [f"bull{i // 6}" for i in range(300)]})
    >>> ped = bl.pedigree(table, dam=None)
    >>> u = np.linalg.cholesky(ped.grm(calves).matrix) @ rng.normal(size=300)
    >>> records = pd.DataFrame({"animal": np.repeat(calves, 3)})
    >>> records["weight"] = np.repeat(u + rng.normal(size=300), 3) + rng.normal(size=900)
    >>> model = bl.RepeatedLMM("weight ~ 1", records, ped, id="animal")
    >>> print(f"{model.reml().repeatability:.2f}")
    0.69
    """

    def __init__(
        self,
        formula: str,
        data: pd.DataFrame | str | os.PathLike[str],
        kernel: Kernel,
        *,
        id: str | None = None,
        missing: Literal["error", "drop"] = "error",
    ) -> None:
        self.formula = formula
        self._kernel: GRM | Eigenbasis = (
            kernel if isinstance(kernel, Eigenbasis) else as_grm(kernel)
        )
        if not self._kernel.labelled:
            raise InputError(
                "The kernel has no sample ids, so records cannot be matched to it. Label it: "
                "bl.GRM(matrix, samples=ids)."
            )
        table, owner = _records(data, id)
        known = owner.isin(self._kernel.samples)
        if not known.any():
            raise InputError(
                f"No individual of the records ({len(owner.unique()):,}, such as "
                f"{listing(owner[:2])}) is among the kernel's ({len(self._kernel.samples):,}, such "
                f"as {listing(self._kernel.samples[:2])}). Ids must agree; id= names their column."
            )
        # The records without kernel: its formula, covariates and account are those of the model.
        self.regression = LMM(formula, table[known], None, missing=missing)
        account = pd.DataFrame(
            {
                "individual": owner,
                "kept": known,
                "reason": np.where(known, "", "not in the kernel"),
            },
            index=table.index,
        )
        account.loc[self.regression.samples.index, ["kept", "reason"]] = self.regression.samples
        self.records: pd.DataFrame = account
        owner = pd.Index(account.individual[self.C.index])
        self.individuals: pd.Index = self._kernel.samples[self._kernel.samples.isin(owner)]
        # Which of the individuals each record is of.
        self.owner_index = self.individuals.get_indexer(owner)
        self._check_identifiable()

    def _check_identifiable(self) -> None:
        n, counts = len(self.individuals), self.counts
        if counts.max() == 1:
            raise InputError(
                f"Nobody of the {n:,} individuals has two records: a permanent environment cannot "
                "be told from the residual. Use bl.LMM, whose residual holds both."
            )
        means = summarise(np.column_stack([self.C, self.y]), self.owner_index, n).means[
            self.owner_index
        ]
        deviations = np.column_stack([self.C, self.y]) - means
        C, y = deviations[:, :-1], deviations[:, -1]
        scale = np.where(np.ptp(self.C, axis=0) > 0, self.C.std(axis=0), 1.0)
        rank = int(np.linalg.matrix_rank(C / scale, tol=1e-8 * np.sqrt(len(y))))
        left = y - C @ np.linalg.lstsq(C, y, rcond=None)[0]
        if rank >= len(y) - n or np.abs(left).max() <= 1e-10 * np.abs(self.y).max():
            raise InputError(
                "Records of the same individual do not differ beyond what the covariates explain: "
                "there is no residual variance. Keep one record each and use bl.LMM."
            )

    # -- what it is ---------------------------------------------------------------------------

    @property
    def y(self) -> np.ndarray:
        """Phenotypes of the analysed records, shape (N,)."""
        return self.regression.y

    @property
    def C(self) -> pd.DataFrame:
        """Covariates of the analysed records, shape (N, c)."""
        return self.regression.C

    @property
    def counts(self) -> pd.Series:
        """Records of each individual, shape (n,)."""
        return pd.Series(np.bincount(self.owner_index), index=self.individuals, name="records")

    @property
    def kernel(self) -> GRM | Eigenbasis:
        """Relatedness as it was given, a pedigree as its matrix."""
        return self._kernel

    @property
    def grm(self) -> GRM | None:
        """The relatedness matrix behind the kernel; None if only its eigenbasis is known."""
        return self._kernel.grm if isinstance(self._kernel, Eigenbasis) else self._kernel

    @property
    def owner(self) -> pd.Index:
        """Whose each analysed record is, shape (N,)."""
        return self.individuals[self.owner_index]

    @property
    def balanced(self) -> bool:
        """Whether everybody has as many records."""
        return bool(self.counts.min() == self.counts.max())

    @cached_property
    def basis(self) -> Eigenbasis:
        """The eigenbasis of the individuals; centred if the covariates span the constant."""
        has_intercept = self.regression.has_intercept
        basis = kernel_basis(self._kernel, self.individuals, has_intercept=has_intercept)
        assert isinstance(basis, Eigenbasis)  # that of a GRM
        return basis

    def __repr__(self) -> str:
        kept, counts = int(self.records.kept.sum()), self.counts
        each = (
            f"{counts.iloc[0]} records each"
            if self.balanced
            else f"{counts.min()} to {counts.max()} records each, {counts.mean():.3g} on average"
        )
        dropped = self.records.reason[~self.records.kept].value_counts()
        lines = [f"RepeatedLMM  {self.formula}", f"  records  {kept:,} analysed"]
        lines += [f"           {count:,} dropped: {reason}" for reason, count in dropped.items()]
        lines += [
            f"  individuals  {len(self.individuals):,}, {each}",
            f"  covariates  {in_short(self.C.columns)}",
            f"  kernel   {self._kernel!r}",
            "  priors   shares (genetic, permanent, residual) ~ Dirichlet(1, 1, 1), "
            "sd ~ HalfStudentT(4, sd(y))",
        ]
        return "\n".join(lines)

    # -- point estimates ----------------------------------------------------------------------

    def reml(self) -> RepeatedFit:
        """Restricted maximum likelihood: the three variance components and the effects.

        Over the residual share and the genetic share of the rest, both in [0, 1], the
        total variance and the effects being known given these: from each local maximum
        of a grid by bounded quasi-Newton steps with the analytic gradient.

        Returns
        -------
        RepeatedFit

        Notes
        -----
        O(n) for each of some hundred evaluations if balanced; else O(n^3) for some
        dozens. Patterson & Thompson (1971, Biometrika 58:545).
        """
        columns = likelihood.rotate(None, self.y, self.C.to_numpy())
        basis = self.basis
        function = self._likelihood(columns)
        with threads(basis.n):
            t, f = function.maximise()
        at = function(t, f)
        s2, kappa, c = at.s2, basis.kappa, self.C.shape[1]
        shares = np.array([t * f, t * (1 - f), 1 - t])
        zero = [name for name, share in zip(PARTS[:2], shares, strict=False) if share <= 0]
        names = ("h2", "repeatability", "permanent", "s2_g", "s2_p", "s2_e")
        se = dict.fromkeys(names, np.nan)
        if not zero:
            information = -curvature(function, t, f)
            if np.linalg.eigvalsh(information)[0] > 0:
                V = np.zeros((3, 3))  # of t, f and log s2
                V[:2, :2] = np.linalg.inv(information)
                V[2, :2] = V[:2, 2] = V[:2, :2] @ at.d_log_s2
                V[2, 2] = at.d_log_s2 @ V[:2, 2] + 2 / function.df
                slopes = {
                    "h2": [f, t, 0],
                    "repeatability": [1, 0, 0],
                    "permanent": [1 - f, -t, 0],
                    "s2_g": np.array([f, t, t * f]) * s2 / kappa,
                    "s2_p": np.array([1 - f, -t, t * (1 - f)]) * s2,
                    "s2_e": np.array([-1, 0, 1 - t]) * s2,
                }
                for name, slope in slopes.items():
                    g = np.asarray(slope, dtype=float)
                    se[name] = float(np.sqrt(g @ V @ g))
        A = columns.to_covariates
        b = pd.DataFrame(
            {
                "estimate": columns.b_ols + A @ at.b,
                "se": np.sqrt(np.diagonal(A @ at.covariance @ A.T) * s2),
            },
            index=self.C.columns,
        )
        assert len(b) == c
        return RepeatedFit(
            float(shares[0]),
            se["h2"],
            t,
            se["repeatability"],
            float(shares[1]),
            se["permanent"],
            float(shares[0]) * s2 / kappa,
            float(shares[1]) * s2,
            float(shares[2]) * s2,
            se["s2_g"],
            se["s2_p"],
            se["s2_e"],
            s2,
            kappa,
            b,
            at.loglik,
            len(self.y),
            len(self.individuals),
            ", ".join(f"{name} share = 0" for name in zero),
        )

    def _likelihood(self, columns: likelihood.Rotated, *, dense: bool = False) -> ShareLikelihood:
        basis = self.basis
        summary = summarise(
            np.column_stack([columns.C, columns.y]), self.owner_index, len(self.individuals)
        )
        s = np.asarray(basis.values) / basis.kappa
        return ShareLikelihood(summary, s, np.asarray(basis.vectors), dense=dense)

    # -- the generative model -------------------------------------------------------------------

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
            Two forms of one posterior. ``"explicit"`` reads like the formula: u, p and
            every record. In ``"eigenbasis"`` u and p are integrated out.
        priors : mapping, optional
            Priors by variable, written as for `LMM.pymc_model`. Names: repeatability
            and genetic_part (h2 / repeatability), or share (of genetic, permanent,
            residual); sd or s2 (total); or instead of all these one of sd_g, s2_g, one
            of sd_p, s2_p and one of sd_e, s2_e, sd_g being that of the genetic values,
            sqrt(s2_g kappa); and b.

        Returns
        -------
        pymc.Model
            Variables: h2, repeatability, s2, s2_g, s2_p, s2_e, b.

        Notes
        -----
        By default sd ~ HalfStudentT(4, sd(y)) and the shares ~ Dirichlet(1, 1, 1), which
        is repeatability ~ Beta(2, 1) and genetic_part ~ Uniform(0, 1), independently;
        h2 ~ Beta(1, 2). b ~ Normal(0, 10 sd(y) / sd(C)).
        """
        from bayeslmm.repeated.generative import pymc_model

        return pymc_model(self, parameterization, priors=priors or {})

    def sample(
        self,
        draws: int = 1000,
        *,
        priors: Mapping[str, Any] | None = None,
        tune: int = 500,
        chains: int = 4,
        seed: int | None = None,
        u: bool = False,
        p: bool = False,
        progress: bool = False,
    ) -> xr.DataTree:
        """Sample the posterior with NUTS.

        Parameters
        ----------
        draws, tune, chains : int
            Draws kept and draws for tuning of each chain, and the number of chains.
        priors : mapping, optional
            Priors by variable; see `pymc_model`.
        seed : int, optional
            For reproducible draws. The one used is recorded.
        u, p : bool
            Add a draw of the genetic values, and of the permanent environments, given
            each posterior draw: exact, diagonal on the basis.
        progress : bool
            Whether the sampler shows its progress.

        Returns
        -------
        DataTree
            Groups posterior (h2, repeatability, vg_over_vp, share, s2_g, s2_p, s2_e, s2,
            b; u and p on request), sample_stats, observed_data, constant_data.

        Warns
        -----
        SamplingWarning
            After divergences, for high r-hat and for few effective draws.
        """
        from bayeslmm.repeated.generative import sample

        return sample(
            self,
            priors or {},
            {"draws": draws, "tune": tune, "chains": chains},
            seed=seed,
            u=u,
            p=p,
            progress=progress,
        )

    def check_residuals(self) -> ResidualCheck:
        """Whitened and leave-one-out residuals of the records, and outliers among them.

        Returns
        -------
        ResidualCheck
            See `bayeslmm.model.residuals.check_records`.
        """
        from bayeslmm.model.residuals import check_records

        return check_records(self)

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

    def random_effects(
        self,
        tree: xr.DataTree,
        samples: Iterable[str] | Literal["all"] | None = None,
        *,
        prob: float = 0.95,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Posterior of the genetic values u, of individuals without records too.

        Parameters
        ----------
        tree : DataTree
            Draws of ``sample(u=True)``.
        samples : ids or "all", optional
            Individuals of the kernel; those with records by default.
        prob : float
            Probability of the interval.
        seed : int
            For the draws of individuals without records, given those with.

        Returns
        -------
        DataFrame
            Indexed by id: u_mean, u_sd, u_low, u_high (phenotype units), relative to the
            mean of the individuals with records if K was centred.
        """
        from bayeslmm.model import predict

        posterior = tree["posterior"].dataset
        if "u" not in posterior or posterior.sizes["individual"] != len(self.individuals):
            raise InputError("These draws have no u of this model: sample(..., u=True) adds them.")
        if samples is None:
            ids = self.individuals
        elif isinstance(samples, str) and samples == "all":
            ids = self._kernel.samples
        else:
            ids = predict.sample_ids(samples)
        analysed = predict.Analysed(self.basis, self.individuals, self.grm)
        cross = predict.kernel_samples(analysed, ids)
        S = np.asarray(self.basis.values)
        cutoff = 1e-10 * S[0]
        inverse = np.divide(1, S, out=np.zeros_like(S), where=cutoff < S)
        u = posterior["u"].to_numpy().reshape(-1, self.basis.n)
        s2_g = posterior["s2_g"].to_numpy().reshape(-1)
        mean = cross.times(inverse[:, None] * self.basis.rotate(u.T))
        variance = cross.k - cross.squares_times(inverse[:, None])[:, 0]
        variance = np.where(variance > 1e-9 * cross.k.max(), variance, 0)[:, None] * s2_g
        rng = np.random.default_rng(seed)
        draws = mean + np.sqrt(variance) * rng.standard_normal(mean.shape)
        return predict.summary(cross.ids, {"u": draws}, {"u": (mean, variance)}, prob)


def _records(
    data: pd.DataFrame | str | os.PathLike[str], id: str | None
) -> tuple[pd.DataFrame, pd.Index]:
    """The table indexed by record ("id #1", "id #2", ...), and whose each record is."""
    if not isinstance(data, pd.DataFrame):
        data, id = read_phenotypes(data, id=id, repeated=True), None
    if id is not None and id not in data:
        raise InputError(
            f"No id column '{id}' among the records. Columns: {listing(data.columns, 20)}."
        )
    if id is None and isinstance(data.index, pd.RangeIndex):
        raise InputError(
            "The records do not name their individuals: pass id='column', or set the index."
        )
    names = [id_of(value) for value in (data.index if id is None else data[id])]
    if "" in names:
        raise InputError(
            f"{names.count(''):,} of {len(names):,} records name no individual; the first is row "
            f"{names.index('') + 1:,}."
        )
    owner = pd.Index(names, dtype="str")
    number = pd.Series(1, index=range(len(owner))).groupby(np.asarray(owner)).cumsum()
    labels = [f"{name} #{k}" for name, k in zip(owner, number, strict=True)]
    return data.set_axis(pd.Index(labels, name="record"), axis=0), owner
