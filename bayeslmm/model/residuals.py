"""Checks of a fitted model's residuals when observations are correlated.

Residuals y - C b of relatives are correlated and tell little as they are. Two views do: whitened
residuals V^-1/2 (y - C b), which are uncorrelated; and each observation given all the others
(leave one out), which has an exact normal distribution, effects of the covariates refitted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.model.heritability import is_two_valued
from bayeslmm.model.intervals import TOP
from bayeslmm.model.leave_out import group_labels
from bayeslmm.numerics import likelihood

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.model.lmm import LMM
    from bayeslmm.repeated.model import RepeatedLMM


@dataclass(frozen=True)
class ResidualCheck:
    """Residuals of a model at its REML estimate.

    Attributes
    ----------
    table : DataFrame, indexed by sample id
        y; whitened (residual in standard deviations, uncorrelated with the others');
        loo_mean, loo_sd (prediction from all other samples, phenotype units); z, (y -
        loo_mean) / loo_sd; pit, the probability of a smaller y given the others; p, that of a
        larger |z|, times the number of samples (Bonferroni), at most 1.
    skewness, kurtosis : float
        Of the whitened residuals; 0 for a normal distribution (kurtosis is the excess).
    p_normal : float
        p-value of their joint departure from 0 (D'Agostino & Pearson 1973, Biometrika
        60:613).
    groups : DataFrame or None
        For each group: size; distance, squared Mahalanobis distance of its members from
        their prediction by all others; p of the distance (chi-squared); h2_without, the REML
        estimate without the group, and change, its difference from that with it.
    h2 : float
        REML estimate.
    suggestion : str
        What to do, in words; empty if nothing stands out.
    unit : str
        What the rows of the table are: samples, or records of repeated measures.
    """

    table: pd.DataFrame = field(repr=False)
    skewness: float
    kurtosis: float
    p_normal: float
    groups: pd.DataFrame | None = field(repr=False)
    h2: float
    suggestion: str
    unit: str = "samples"

    @property
    def outliers(self) -> pd.DataFrame:
        """Samples that the others predict badly: p below 0.05 after correction."""
        found = self.table[self.table.p < 0.05]
        return found.loc[found.z.abs().sort_values(ascending=False).index]

    def __str__(self) -> str:
        outliers = self.outliers
        lines = [
            f"Residuals of {len(self.table):,} {self.unit} at h2 = {self.h2:.3f} (REML)",
            f"  whitened   skewness {self.skewness:+.2f}, excess kurtosis {self.kurtosis:+.2f}, "
            f"normality p = {self.p_normal:.2g}",
            f"  outliers   {len(outliers)} by leave-one-out"
            + (": " if len(outliers) else "")
            + ", ".join(f"{name} (z = {z:+.1f})" for name, z in outliers.z.head(5).items()),
        ]
        if self.groups is not None:
            worst = self.groups.iloc[0]
            lines.append(
                f"  groups     {len(self.groups):,}; without '{self.groups.index[0]}' h2 would be "
                f"{worst.h2_without:.3f} ({worst.change:+.3f}), the largest change"
            )
        return "\n".join([*lines, *([f"  {self.suggestion}"] if self.suggestion else [])])

    __repr__ = __str__

    def plot(self, ax: Axes | None = None) -> Axes:
        """Normal quantiles of the whitened residuals."""
        from bayeslmm import plots

        return plots.residuals(self, ax=ax)


def check_residuals(model: LMM, groups: Any = None) -> ResidualCheck:
    """Whitened and leave-one-out residuals, outliers, and the influence of groups.

    With P as in `numerics.likelihood`, q = P y and p = diag P at the REML estimate, y_i given
    the others, effects of the covariates refitted without it, is normal with mean
    y_i - q_i / p_i and variance s2 / p_i (Bürkner, Gabry & Vehtari 2021, Comput Stat 36:1243,
    covariates integrated out); for a group the same with blocks of P.

    Parameters
    ----------
    model : LMM
        The model; without kernel these are the deleted residuals of linear regression.
    groups : Series, or array (n,), optional
        Families, cages, batches: a label for each analysed sample; a Series indexed by
        sample id is matched.

    Returns
    -------
    ResidualCheck
        Prints itself; `plot` draws it.

    Raises
    ------
    InputError
        If groups do not name the analysed samples, or a group is nearly all of them.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> y = np.random.default_rng(1).normal(size=100)
    >>> y[7] = 8.0
    >>> bl.check_residuals(bl.LMM(y)).outliers.index.tolist()
    ['7']
    """
    data = model.rotated
    h2 = model.reml().h2
    w = likelihood.weights(data, min(h2, TOP))
    half, Py = likelihood.projected(data, w)
    s2 = float(data.y @ Py) / data.df
    q, p = _unrotate(model, Py), _diagonal(model, w, half)
    whitened = _unrotate(model, Py / np.sqrt(w)) / np.sqrt(s2)
    influence = None if groups is None else _influence(model, groups, s2, w, half, q, h2)
    return _checked(model.y, model.ids, whitened, q / s2, p / s2, h2, influence)


def check_records(model: RepeatedLMM) -> ResidualCheck:
    """Whitened and leave-one-out residuals of repeated measures, by record.

    Each record is predicted from all others, those of its own individual among them. With A the
    N x n matrix of memberships, columns scaled to length 1, and W = A'VA, the covariance of the
    records is V = A W A' + s2_e (I - A A'): powers of it need only those of W, n x n.

    Parameters
    ----------
    model : RepeatedLMM
        The model.

    Returns
    -------
    ResidualCheck
        Its table is indexed by record; groups is None.

    Notes
    -----
    O(n^3) if the numbers of records differ between individuals, else O(n^2).

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import bayeslmm as bl
    >>> x = np.random.default_rng(1).integers(0, 3, size=(60, 300))
    >>> table = pd.DataFrame({"id": np.repeat([f"a{i}" for i in range(60)], 3)})
    >>> table["y"] = np.random.default_rng(2).normal(size=180)
    >>> table.loc[7, "y"] = 9.0
    >>> K = bl.GRM(bl.grm(x).matrix, samples=table.id.unique())
    >>> check_records(bl.RepeatedLMM("y ~ 1", table, K, id="id")).outliers.index.tolist()
    ['a2 #2']
    """
    fit, basis, C, y = model.reml(), model.basis, model.C.to_numpy(), model.y
    n, r = basis.n, model.counts.to_numpy()
    owner = model.individuals.get_indexer(model.owner)
    S, U = np.asarray(basis.values), np.asarray(basis.vectors)
    if model.balanced:
        w, E = r[0] * (fit.s2_g * S + fit.s2_p) + fit.s2_e, U
    else:
        root = np.sqrt(r)
        M = (root[:, None] * U * (fit.s2_g * S)) @ (U.T * root)
        M[np.diag_indices(n)] += r * fit.s2_p + fit.s2_e
        w, E = np.linalg.eigh(M)

    def power(X: np.ndarray, exponent: float) -> np.ndarray:
        """V^exponent times the columns of X (N, k)."""
        sums = np.stack([np.bincount(owner, x, minlength=n) for x in X.T], axis=1)
        own = sums / np.sqrt(r)[:, None]
        changed = E @ (w[:, None] ** exponent * (E.T @ own)) - fit.s2_e**exponent * own
        return fit.s2_e**exponent * X + (changed / np.sqrt(r)[:, None])[owner]

    VC = power(C, -1)
    residual = y - C @ fit.b.estimate.to_numpy()
    q = power(residual[:, None], -1)[:, 0]
    along = np.linalg.solve(np.linalg.cholesky(C.T @ VC), VC.T) if C.shape[1] else VC.T
    own = ((E * E) @ (1 / w) - 1 / fit.s2_e) / r
    p = 1 / fit.s2_e + own[owner] - (along * along).sum(axis=0)
    whitened = power(residual[:, None], -0.5)[:, 0]
    return _checked(y, model.C.index, whitened, q, p, fit.h2, None, unit="records")


def _checked(
    y: np.ndarray,
    ids: pd.Index,
    whitened: np.ndarray,
    q: np.ndarray,
    p: np.ndarray,
    h2: float,
    groups: pd.DataFrame | None,
    *,
    unit: str = "samples",
) -> ResidualCheck:
    """Table and words, from q = P y and p = diag P, P in 1 / (phenotype units squared)."""
    from scipy.special import ndtr, ndtri
    from scipy.stats import kurtosis, normaltest, skew

    # What a covariate describes alone has no prediction by the others.
    p = np.where(p <= 1e-10 * p.max(), np.nan, p)
    z = q / np.sqrt(p)
    n = len(z)
    table = pd.DataFrame(
        {
            "y": y,
            "whitened": whitened,
            "loo_mean": y - q / p,
            "loo_sd": 1 / np.sqrt(p),
            "z": z,
            "pit": ndtr(z),
            "p": np.minimum(2 * ndtr(-np.abs(z)) * n, 1.0),
        },
        index=ids,
    )
    skewness, excess = float(skew(whitened)), float(kurtosis(whitened))
    p_normal = float(normaltest(whitened).pvalue) if n >= 20 else float("nan")
    outliers = int((table.p < 0.05).sum())
    worst = float(-ndtri(0.025 / n))
    suggestion = _suggestion(y, skewness, excess, p_normal, outliers, worst)
    return ResidualCheck(table, skewness, excess, p_normal, groups, h2, suggestion, unit)


def _unrotate(model: LMM, x: np.ndarray) -> np.ndarray:
    return x if model.basis is None else model.basis.unrotate(x)


def _diagonal(model: LMM, w: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Diagonal of P of the samples, times s2."""
    along = _unrotate(model, half.T)
    total = w if model.basis is None else model.basis.row_quadratic(w)
    return total - (along * along).sum(axis=1)


def _suggestion(
    y: np.ndarray, skewness: float, kurtosis: float, p_normal: float, outliers: int, worst: float
) -> str:
    if is_two_valued(y):
        return (
            "The phenotype has two values, residuals cannot be normal: h2 is on the observed "
            "scale (bl.liability_h2)."
        )
    said = []
    if outliers:
        said.append(f"Look at the outliers first (|z| above {worst:.1f}).")
    # With many samples a departure that harms nothing is significant: size decides as well.
    if p_normal < 0.001 and (abs(skewness) > 0.5 or abs(kurtosis) > 1):
        power = "bl.transforms.box_cox(y) (results go back to units by its inverse) or "
        said.append(
            "The residuals are not normal: consider "
            + (power if (y > 0).all() else "")
            + "bl.transforms.inverse_normal(y) (units are lost), and compare h2."
        )
    return " ".join(said)


def _influence(
    model: LMM,
    groups: Any,
    s2: float,
    w: np.ndarray,
    half: np.ndarray,
    q: np.ndarray,
    h2: float,
) -> pd.DataFrame:
    """Exact deletion of each group: the density of its members given all others is divided out."""
    from scipy.stats import chi2

    labels = group_labels(groups, model.ids).to_numpy()
    data = model.rotated
    codes, names = pd.factorize(labels, sort=True)
    nodes = None if model.basis is None else model._h2_nodes
    if nodes is not None:
        at = [_pieces(data, float(h)) for h in nodes.coarse]
        t = likelihood.terms(data, nodes.coarse)
    rows = {}
    for code, name in enumerate(names):
        members = np.flatnonzero(codes == code)
        k = len(members)
        if data.df - k < 2:
            raise InputError(
                f"Group '{name}' has {k:,} of {data.n:,} samples: too few are left without it."
            )
        U = np.eye(data.n)[members] if model.basis is None else model.basis.rows(members)
        block = (U * w) @ U.T - (U @ half.T) @ (U @ half.T).T
        if np.linalg.eigvalsh(block)[0] <= 1e-10 * np.trace(block):
            raise InputError(
                f"Without group '{name}' a covariate cannot be estimated: only its members vary "
                "in it. Leave that covariate out, or do not check this group."
            )
        distance = float(q[members] @ np.linalg.solve(block, q[members])) / s2
        without = np.nan
        if nodes is not None:
            loglik = np.empty(len(nodes.coarse))
            for g, (wg, halfg, Pyg) in enumerate(at):
                along = U @ halfg.T
                factor = np.linalg.cholesky((U * wg) @ U.T - along @ along.T)
                gone = np.linalg.solve(factor, U @ Pyg)
                logdet = t.logdet[g] + 2 * np.log(np.diagonal(factor)).sum()
                loglik[g] = -0.5 * (logdet + (data.df - k) * np.log(t.Q[g] - gone @ gone))
            without = float(nodes.h2[np.argmax(loglik @ nodes.upsample)])
        rows[name] = {
            "size": k,
            "distance": distance,
            "p": float(chi2.sf(distance, k)),
            "h2_without": without,
            "change": without - h2,
        }
    table = pd.DataFrame(rows).T.astype({"size": int}).rename_axis("group")
    order = table.change.abs() if nodes is not None else -table.p
    return table.loc[order.sort_values(ascending=False, kind="stable").index]


def _pieces(data: likelihood.Rotated, h2: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    w = likelihood.weights(data, h2)
    return w, *likelihood.projected(data, w)
