"""Point estimates of an `LMM` at a value of h2, with their standard errors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bayeslmm.numerics import likelihood
from bayeslmm.priors import H2Prior


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


def estimates_at(
    data: likelihood.Rotated,
    covariates: pd.Index,
    method: str,
    h2: float,
    prior: H2Prior | None = None,
    *,
    has_kernel: bool,
) -> Fit:
    """Variance components and effects given h2, and the standard errors of all.

    Parameters
    ----------
    data : Rotated
        Phenotype and covariates on the eigenbasis.
    covariates : Index, shape (c,)
        Names of the covariates.
    method : str
        How h2 was found: "REML" or "MAP".
    h2 : float
        The estimate; at most `likelihood.LARGEST_H2`, which is shown as 1.
    prior : H2Prior, optional
        Counts in the curvature, if the estimate is a mode of the posterior.
    has_kernel : bool
        Without kernel h2 = 0 is no boundary.
    """
    terms = likelihood.terms(data, np.array([h2]))
    s2 = float(terms.Q[0]) / data.df
    boundary, shown = "", h2
    if has_kernel and h2 <= 0:
        boundary = "h2 = 0"
    elif has_kernel and h2 >= likelihood.LARGEST_H2:
        boundary, shown = "h2 = 1", 1.0
    se = np.full(3, np.nan)
    if has_kernel and not boundary:
        se = _standard_errors(data, h2, s2, prior)
    Linv = np.linalg.inv(terms.L[0])
    covariance = data.to_covariates @ (Linv.T @ Linv) @ data.to_covariates.T * s2
    b = pd.DataFrame(
        {
            "estimate": data.b_ols + data.to_covariates @ terms.b[0],
            "se": np.sqrt(np.diagonal(covariance)),
        },
        index=covariates,
    )
    return Fit(
        method=method,
        h2=shown,
        h2_se=float(se[0]),
        s2_g=s2 * shown / data.kappa,
        s2_e=s2 * (1 - shown),
        s2_g_se=float(se[1]),
        s2_e_se=float(se[2]),
        s2=s2,
        kappa=data.kappa,
        b=b,
        loglik=float(likelihood.restricted_loglik(data, np.array([h2]))[0]),
        n=data.n,
        boundary=boundary,
    )


def _standard_errors(
    data: likelihood.Rotated, h2: float, s2: float, prior: H2Prior | None
) -> np.ndarray:
    """SEs of h2, s2_g, s2_e from the curvature in (h2, log s2), by the delta method."""
    d = likelihood.derivatives(data, h2)
    curvature = np.array([[d.F2 + d.Q2 / s2, -d.Q1 / s2], [-d.Q1 / s2, d.Q / s2]]) / 2
    if prior is not None:
        step = 1e-4 * min(h2, 1 - h2)
        values = prior.log_density(np.array([h2 - step, h2, h2 + step]))
        with np.errstate(invalid="ignore"):
            curvature[0, 0] -= (values[0] - 2 * values[1] + values[2]) / step**2
    if not np.isfinite(curvature).all() or np.linalg.eigvalsh(curvature)[0] <= 0:
        return np.full(3, np.nan)
    covariance = np.linalg.inv(curvature)
    g = np.array([s2 / data.kappa, s2 * h2 / data.kappa])
    e = np.array([-s2, s2 * (1 - h2)])
    return np.sqrt([covariance[0, 0], g @ covariance @ g, e @ covariance @ e])
