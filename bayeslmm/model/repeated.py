r"""Repeated measures: several records of an individual, with its permanent environment.

    y = C b + Z (u + p) + e,   u ~ N(0, s2_g K),   p ~ N(0, s2_p I),   e ~ N(0, s2_e I)

Z says whose each of the N records is; individual i of n has r_i of them. The records are
turned into n means and N - n deviations from them, which are independent of each other:

- deviations: independent, variance s2_e. They enter by their cross-products, (c + 1)^2
  numbers, whatever N is;
- means: covariance s2_g K + s2_p I + s2_e diag(1 / r).

With as many records for everybody (*balanced*) the means are diagonal on the eigenbasis of
K, with variances s2_g S + s2_p + s2_e / r: O(n) for each evaluation, as without repeats.

Else the likelihood takes a Cholesky factor, O(n^3), at each evaluation; `reml` does that
some dozens of times. Sampling avoids it: with R the largest r, the noise of a mean is
written as a part of variance s2_e / R, which is the same for all, and the rest

    w_i ~ N(0, s2_e (1 / r_i - 1 / R)),

a variable of its own for those with fewer than R records. Given w the means are balanced.
This is exact, and costs O(k n) for k such individuals. With total variance s2,

    h2 = s2_g kappa / s2,   repeatability = h2 + s2_p / s2,   s2 = s2_g kappa + s2_p + s2_e,

kappa being the mean diagonal of the K of these individuals, centred if the covariates span
the constant (which leaves the restricted likelihood as it is).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from math import log, pi
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Eigenbasis
from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.phenotypes import read_phenotypes
from bayeslmm.model.lmm import LMM, Kernel, kernel_basis
from bayeslmm.numerics import likelihood
from bayeslmm.relatedness.dense import GRM, as_grm
from bayeslmm.relatedness.pedigrees import _name
from bayeslmm.runs.provenance import provenance

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr

    from bayeslmm.generative.eigen import ModelData
    from bayeslmm.model.residuals import ResidualCheck

PARTS = ("genetic", "permanent", "residual")
_LARGEST_T = 1 - 1e-8
_compiled: dict[Any, Any] = {}


# -- arrays: means and deviations, the restricted likelihood --------------------------------------


@dataclass(frozen=True)
class Summary:
    """Records of n individuals, without loss for the model.

    Attributes
    ----------
    counts : ndarray, shape (n,)
        Records of each individual, r.
    means : ndarray, shape (n, k)
        Their mean in each column.
    within : ndarray, shape (k, k)
        Cross-products of the deviations from the means, summed over records.
    """

    counts: np.ndarray
    means: np.ndarray
    within: np.ndarray

    @property
    def balanced(self) -> bool:
        """Whether everybody has as many records."""
        return bool(self.counts.min() == self.counts.max())


def summarise(X: np.ndarray, individual: np.ndarray, n: int) -> Summary:
    """Means and deviations of columns X (N, k); record j is of individual[j] < n."""
    counts = np.bincount(individual, minlength=n)
    sums = np.stack([np.bincount(individual, x, minlength=n) for x in X.T], axis=1)
    means = sums / counts[:, None]
    deviations = X - means[individual]
    return Summary(counts, means, deviations.T @ deviations)


@dataclass(frozen=True)
class Evaluation:
    """The restricted likelihood at one (t, f), the total variance at its best.

    Attributes
    ----------
    loglik : float
        With the constants of `likelihood.restricted_loglik`.
    gradient : ndarray, shape (2,)
        Derivatives in t and f.
    s2 : float
        Best total variance.
    d_log_s2 : ndarray, shape (2,)
        Derivatives of its logarithm.
    b, covariance : ndarray, shapes (c,) and (c, c)
        Generalised least-squares coefficients of the columns, and their covariance.
    """

    loglik: float
    gradient: np.ndarray
    s2: float
    d_log_s2: np.ndarray
    b: np.ndarray
    covariance: np.ndarray


class ShareLikelihood:
    """Restricted likelihood of the shares: t = 1 - residual share, f = genetic share of t.

    The covariance of the means is s2 [t (f K / kappa + (1 - f) I) + (1 - t) diag(1 / r)],
    that of deviations s2 (1 - t).

    Parameters
    ----------
    summary : Summary
        Of the columns of C and, last, y.
    s : ndarray, shape (n,)
        Eigenvalues of K over kappa.
    U : ndarray, shape (n, n)
        Eigenvectors of K.
    dense : bool
        Take the general way, O(n^3), even for balanced data.
    """

    def __init__(
        self, summary: Summary, s: np.ndarray, U: np.ndarray, *, dense: bool = False
    ) -> None:
        self.counts, self.W, self.s = summary.counts, summary.within, s
        self.diagonal = summary.balanced and not dense
        self.X = U.T @ summary.means if self.diagonal else summary.means
        self.K = None if self.diagonal else np.asfortranarray((U * s) @ U.T)
        self.df = int(self.counts.sum()) - (self.X.shape[1] - 1)

    def __call__(self, t: float, f: float) -> Evaluation:
        """Value, gradient and estimates at one point of the unit square."""
        X, W, n, c = self.X, self.W, len(self.s), self.X.shape[1] - 1
        e, noise = 1 - t, 1 / self.counts
        trace, slope = np.empty(2), np.empty((2, c + 1, c + 1))
        if self.K is None:
            d = t * (f * self.s + 1 - f) + e * noise
            logdet, Y = np.log(d).sum(), X / d[:, None]
            for j, dM in enumerate((f * self.s + 1 - f - noise, t * (self.s - 1))):
                trace[j], slope[j] = (dM / d).sum(), -(Y.T * dM) @ Y
        else:
            # All of SciPy's BLAS: two libraries in turn make each other's threads wait.
            from scipy.linalg.blas import dsymm
            from scipy.linalg.lapack import dpotrf, dpotri

            M = np.multiply(self.K, t * f, order="F")
            M[np.diag_indices(n)] += t * (1 - f) + e * noise
            L, info = dpotrf(M, lower=1, overwrite_a=1)
            assert info == 0
            logdet = 2 * np.log(np.diagonal(L)).sum()
            inverse = np.tril(dpotri(L, lower=1, overwrite_c=1)[0])
            Y = dsymm(1.0, inverse, X, lower=1)
            KY = dsymm(1.0, self.K, Y, lower=1)
            own = np.diagonal(inverse)
            trace_K = 2 * np.sum(inverse * self.K) - own @ np.diagonal(self.K)
            d_t = 1 - f - noise
            trace[:] = f * trace_K + own @ d_t, t * (trace_K - own.sum())
            slope[0] = -(f * Y.T @ KY + (Y.T * d_t) @ Y)
            slope[1] = -t * (Y.T @ KY - Y.T @ Y)
        N = int(self.counts.sum())
        G = X.T @ Y + W / e
        slope[0] += W / e**2
        trace[0] -= (N - n) / e
        covariance = np.linalg.inv(G[:c, :c])
        b = covariance @ G[:c, c]
        Q = float(G[c, c] - G[:c, c] @ b)
        v = np.append(-b, 1.0)
        dQ = np.array([v @ change @ v for change in slope]) / Q
        trace += [np.sum(covariance * change[:c, :c]) for change in slope]
        logdet += (N - n) * log(e) + np.log(self.counts).sum() + np.linalg.slogdet(G[:c, :c])[1]
        loglik = -0.5 * (logdet + self.df * log(Q)) + 0.5 * self.df * (
            log(self.df) - log(2 * pi) - 1
        )
        gradient = -0.5 * (trace + self.df * dQ)
        return Evaluation(loglik, gradient, Q / self.df, dQ, b, covariance)

    def maximise(self) -> tuple[float, float]:
        """Best (t, f): from every local maximum of a grid, bounded quasi-Newton steps."""
        from scipy.optimize import minimize

        if self.diagonal:
            t_grid = np.array([0.0, 0.01, 0.03, *np.linspace(0.07, 0.93, 14), 0.97, 0.99, 0.998])
            f_grid = np.linspace(0, 1, 15)
        else:
            t_grid, f_grid = np.array([0.05, 0.25, 0.5, 0.75, 0.95]), np.array([0.1, 0.5, 0.9])
        grid = np.array([[self(t, f).loglik for f in f_grid] for t in t_grid])
        around = np.pad(grid, 1, constant_values=-np.inf)
        neighbours = [around[2:, 1:-1], around[:-2, 1:-1], around[1:-1, 2:], around[1:-1, :-2]]
        tops = np.argwhere(grid >= np.max(neighbours, axis=0)).tolist()
        tops = sorted(tops, key=lambda at: -grid[at[0], at[1]])[:3]

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            at = self(float(x[0]), float(x[1]))
            return -at.loglik, -at.gradient

        fits = [
            minimize(
                objective,
                (t_grid[i], f_grid[j]),
                jac=True,
                method="L-BFGS-B",
                bounds=[(0, _LARGEST_T), (0, 1)],
                options={"ftol": 1e-15, "gtol": 1e-7, "maxls": 40},
            )
            for i, j in tops
        ]
        t, f = min(fits, key=lambda fit: fit.fun).x
        return (float(t), float(f)) if t > 0 else (0.0, 0.0)


def _threads(n: int) -> AbstractContextManager[Any]:
    """One BLAS thread for small matrices, where many cost more than they bring."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1) if n <= 800 else nullcontext()


def _curvature(function: ShareLikelihood, t: float, f: float) -> np.ndarray:
    """Second derivatives of the profiled log-likelihood in (t, f), from its gradient."""
    H = np.empty((2, 2))
    for j, (x, edge) in enumerate(((t, 1 - t), (f, 1 - f))):
        step = np.zeros(2)
        step[j] = 1e-4 * min(x, edge)
        ahead, behind = function(t + step[0], f + step[1]), function(t - step[0], f - step[1])
        H[j] = (ahead.gradient - behind.gradient) / (2 * step[j])
    return (H + H.T) / 2


# -- the specification ------------------------------------------------------------------------


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
    them; what it costs is in the text of `bayeslmm.model.repeated`.

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
        # The records as a model without kernel: its formula, covariates and account are ours.
        self._table = LMM(formula, table[known], None, missing=missing)
        account = pd.DataFrame(
            {
                "individual": owner,
                "kept": known,
                "reason": np.where(known, "", "not in the kernel"),
            },
            index=table.index,
        )
        account.loc[self._table.samples.index, ["kept", "reason"]] = self._table.samples
        self.records: pd.DataFrame = account
        owner = pd.Index(account.individual[self.C.index])
        self.individuals: pd.Index = self._kernel.samples[self._kernel.samples.isin(owner)]
        self._owner = self.individuals.get_indexer(owner)
        self._check_identifiable()

    def _check_identifiable(self) -> None:
        n, counts = len(self.individuals), self.counts
        if counts.max() == 1:
            raise InputError(
                f"Nobody of the {n:,} individuals has two records: a permanent environment cannot "
                "be told from the residual. Use bl.LMM, whose residual holds both."
            )
        means = summarise(np.column_stack([self.C, self.y]), self._owner, n).means[self._owner]
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
        return self._table.y

    @property
    def C(self) -> pd.DataFrame:
        """Covariates of the analysed records, shape (N, c)."""
        return self._table.C

    @property
    def counts(self) -> pd.Series:
        """Records of each individual, shape (n,)."""
        return pd.Series(np.bincount(self._owner), index=self.individuals, name="records")

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
        return self.individuals[self._owner]

    @property
    def balanced(self) -> bool:
        """Whether everybody has as many records."""
        return bool(self.counts.min() == self.counts.max())

    @cached_property
    def basis(self) -> Eigenbasis:
        """The eigenbasis of the individuals; centred if the covariates span the constant."""
        has_intercept = self._table.has_intercept
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
            f"  covariates  {', '.join(self.C.columns) or 'none'}",
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
        dozens. Patterson & Thompson (1971) Biometrika 58:545.
        """
        columns = likelihood.rotate(None, self.y, self.C.to_numpy())
        basis = self.basis
        function = self._likelihood(columns)
        with _threads(basis.n):
            t, f = function.maximise()
        at = function(t, f)
        s2, kappa, c = at.s2, basis.kappa, self.C.shape[1]
        shares = np.array([t * f, t * (1 - f), 1 - t])
        zero = [name for name, share in zip(PARTS[:2], shares, strict=False) if share <= 0]
        names = ("h2", "repeatability", "permanent", "s2_g", "s2_p", "s2_e")
        se = dict.fromkeys(names, np.nan)
        if not zero:
            information = -_curvature(function, t, f)
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
            np.column_stack([columns.C, columns.y]), self._owner, len(self.individuals)
        )
        s = np.asarray(basis.values) / basis.kappa
        return ShareLikelihood(summary, s, np.asarray(basis.vectors), dense=dense)

    # -- the generative model -------------------------------------------------------------------

    @cached_property
    def _data(self) -> ModelData:
        """Centred and scaled records, as for a model without kernel."""
        from bayeslmm.generative.eigen import model_data
        from bayeslmm.model.snps import selected_snps

        return model_data(self._table, selected_snps(self._table, None))

    @cached_property
    def _model_arrays(self) -> dict[str, Any]:
        """What the PyMC model holds as data: rotated means, deviations, the basis."""
        data, basis = self._data, self.basis
        summary = summarise(np.column_stack([data.C, data.y]), self._owner, basis.n)
        rotated = basis.rotate(summary.means)
        scale = np.sqrt(np.diagonal(summary.within))
        unit = summary.within / np.outer(
            np.where(scale > 0, scale, 1), np.where(scale > 0, scale, 1)
        )
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
        import pymc as pm
        import pytensor.tensor as pt

        from bayeslmm.generative.eigen import _covariate_effects

        if parameterization not in ("eigenbasis", "explicit"):
            raise InputError(
                f"parameterization='{parameterization}' is unknown; expected 'eigenbasis' or "
                "'explicit'."
            )
        priors, data, arrays = priors or {}, self._data, self._model_arrays
        coords = {
            "covariate": list(self.C.columns),
            "individual": list(self.individuals),
            "part": list(PARTS),
        }
        if parameterization == "explicit":
            with pm.Model(coords=coords | {"record": list(self.C.index)}) as model:
                y, C = pm.Data("y_obs", data.y), pm.Data("C", data.C)
                S, U = pm.Data("S", arrays["S"]), pm.Data("U", np.asarray(self.basis.vectors))
                individual = pm.Data("individual_of_record", self._owner)
                s2_g, s2_p, s2_e = _variances(priors, data.sd_y, arrays["kappa"])
                b = _covariate_effects(data, priors, data.sd_y)

                z_u = pm.Normal("z_u", dims="individual")
                z_p = pm.Normal("z_p", dims="individual")
                u = pm.Deterministic(
                    "u", pt.dot(U, pt.sqrt(s2_g) * pt.sqrt(S) * z_u), dims="individual"
                )
                p = pm.Deterministic("p", pt.sqrt(s2_p) * z_p, dims="individual")
                mean = pt.dot(C, b) + (u + p)[individual]
                pm.Normal("y", mean, pt.sqrt(s2_e), observed=y, dims="record")
            return model
        with pm.Model(coords=coords) as model:
            held = {name: pm.Data(name, value) for name, value in arrays.items()}
            s2_g, s2_p, s2_e = _variances(priors, held["sd_y"], held["kappa"])
            b = _covariate_effects(data, priors, held["sd_y"])

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
        return model

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
        from bayeslmm.generative.sampling import check_sampling

        for name, value in (("draws", draws), ("tune", tune), ("chains", chains)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, but is {value}.")
        seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        settings = {"draws": draws, "tune": tune, "chains": chains, "seed": seed}
        raw = self._nutpie(priors or {}, settings, progress=progress)
        tree = self._tree(raw, priors or {}, settings, u=u, p=p)
        check_sampling(tree)
        return tree

    def _nutpie(
        self, priors: Mapping[str, Any], settings: dict[str, int], *, progress: bool
    ) -> xr.DataTree:
        import nutpie

        data, arrays = self._data, self._model_arrays
        # Balanced models of one shape share a compilation; only their data change.
        key = (self.C.shape[1], len(arrays["y_within"]))
        reusable = not priors and "U_fewer" not in arrays
        compiled = _compiled.get(key) if reusable else None
        if compiled is None:
            compiled = nutpie.compile_pymc_model(self.pymc_model(priors=priors), backend="numba")
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
        self,
        raw: xr.DataTree,
        priors: Mapping[str, Any],
        settings: dict[str, int],
        *,
        u: bool,
        p: bool,
    ) -> xr.DataTree:
        import xarray as xr

        from bayeslmm.generative.sampling import described

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
            "covariate": list(self.C.columns),
            "part": list(PARTS),
        }
        if u or p:
            shape = (*h2.shape, len(self.individuals))
            w = values["w"].to_numpy().reshape(h2.size, -1) if "w" in values else None
            rng = np.random.default_rng([settings["seed"], 1])
            s2_g, s2_p, s2_e = (draws[name].reshape(-1) for name in ("s2_g", "s2_p", "s2_e"))
            both = self._draw_effects(s2_g, s2_p, s2_e, draws["b"].reshape(h2.size, -1), w, rng)
            for name, wanted, effect in zip(("u", "p"), (u, p), both, strict=True):
                if wanted:
                    arrays[name] = ([*along, "individual"], effect.reshape(shape))
            coords["individual"] = list(self.individuals)
        attrs = provenance() | {
            "formula": self.formula,
            "n_records": len(self.y),
            "n_individuals": len(self.individuals),
            "kappa": self.basis.kappa,
            "priors": {name: described(prior) for name, prior in priors.items()},
            "sampler": "nutpie NUTS",
        }
        wanted_stats = ("diverging", "energy", "logp", "n_steps", "depth", "step_size")
        chain_draw = {"chain": coords["chain"], "draw": coords["draw"]}
        record = {"record": list(self.C.index)}
        owner = self.individuals[self._owner].to_numpy(dtype=str)
        return xr.DataTree.from_dict(
            {
                "/": xr.Dataset(attrs=attrs | settings),
                "posterior": xr.Dataset(arrays, coords, attrs | settings),
                "sample_stats": xr.Dataset(
                    {
                        name: (along, stats[name].to_numpy())
                        for name in wanted_stats
                        if name in stats
                    },
                    chain_draw,
                ),
                "observed_data": xr.Dataset({"y": ("record", self.y)}, record),
                "constant_data": xr.Dataset(
                    {
                        "C": (("record", "covariate"), self.C.to_numpy()),
                        "individual": ("record", owner),
                    },
                    record | {"covariate": coords["covariate"]},
                ),
            }
        )

    def _draw_effects(
        self,
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
        basis, counts = self.basis, self.counts.to_numpy()
        summary = summarise(np.column_stack([self.C, self.y]), self._owner, basis.n)
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
            ids = pd.Index([str(sample) for sample in samples], dtype="str")
        kernel = self._kernel
        known = kernel.grm if isinstance(kernel, Eigenbasis) else kernel
        like: Any = SimpleNamespace(
            basis=self.basis, ids=self.individuals, grm=known, relatedness=known
        )
        cross = predict.kernel_samples(like, ids)
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


def _variances(priors: Mapping[str, Any], sd_y: Any, kappa: Any) -> tuple[Any, Any, Any]:
    """s2_g, s2_p and s2_e from shares and total scale, or from the components, as priors say."""
    import pymc as pm

    from bayeslmm.generative.eigen import _variable

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
            variable = _variable(name, priors)
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
            share = _variable("share", priors, dims="part")
        else:
            # Dirichlet(1, 1, 1) on the shares, in two variables that the data tell apart.
            t = _variable("repeatability", priors, lambda name: pm.Beta(name, 2, 1))
            f = _variable("genetic_part", priors, lambda name: pm.Uniform(name, 0, 1))
            share = [t * f, t * (1 - f), 1 - t]
            registered.add("repeatability")
        if "s2" in priors:
            s2 = _variable("s2", priors)
        else:
            sd = _variable("sd", priors, lambda name: pm.HalfStudentT(name, nu=4, sigma=sd_y))
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
    names = [_name(value) for value in (data.index if id is None else data[id])]
    if "" in names:
        raise InputError(
            f"{names.count(''):,} of {len(names):,} records name no individual; the first is row "
            f"{names.index('') + 1:,}."
        )
    owner = pd.Index(names, dtype="str")
    number = pd.Series(1, index=range(len(owner))).groupby(np.asarray(owner)).cumsum()
    labels = [f"{name} #{k}" for name, k in zip(owner, number, strict=True)]
    return data.set_axis(pd.Index(labels, name="record"), axis=0), owner
