r"""Heritability of a liability from case-control samples: PCGC regression.

In a case-control sample neither the linear nor the liability model's likelihood is right: cases
were looked for, and share more than chance gave them. What stays true is the first moment of a
pair. With standardised phenotypes z_i = (y_i - P_i) / sqrt(P_i (1 - P_i)), P_i the risk in the
sample and K_i that in the population given the covariates, phi_i the normal density at the
threshold,

    E(z_i z_j) ~ h2 G_ij c_i c_j,   c_i = phi_i sqrt(P_i (1 - P_i)) / (K_i (1 - K_i)),

to first order in the relatedness G_ij. Regression through the origin, over pairs of different
people, estimates h2 whatever the share of cases (Golan, Lander & Rosset 2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.case_control import case_control

if TYPE_CHECKING:
    from bayeslmm.model.lmm import LMM

_ROWS = 2**22


@dataclass(frozen=True)
class Pcgc:
    """Heritability of the liability by PCGC regression.

    Attributes
    ----------
    h2, se : float
        Of the liability in the population, covariates aside, on the scale of `LMM`'s h2 (K over
        its mean diagonal); the standard error is that of dependent pairs. The estimate is a
        moment's: it may lie outside (0, 1).
    low, high : float
        h2 -+ a normal quantile times se.
    prob : float
        Of that interval.
    n, n_cases : int
        Samples, and cases among them.
    prevalence : float
        Share of cases in the population, as given.
    groups : int
        What is independent: samples, or groups of them.
    """

    h2: float
    se: float
    low: float
    high: float
    prob: float
    n: int
    n_cases: int
    prevalence: float
    groups: int

    def __str__(self) -> str:
        return (
            f"PCGC ({self.n_cases:,} cases, {self.n - self.n_cases:,} controls, prevalence "
            f"{self.prevalence:g}): h2 of the liability = {self.h2:.4f} (SE {self.se:.4f}, "
            f"{100 * self.prob:g}% {self.low:.3f} to {self.high:.3f})"
        )

    __repr__ = __str__


def pcgc(model: LMM, prevalence: float, *, groups: Any = None, prob: float = 0.95) -> Pcgc:
    """Heritability of a liability by phenotype-correlation genotype-correlation regression.

    Parameters
    ----------
    model : LMM
        Of a case/control phenotype, with a kernel whose matrix is known.
    prevalence : float
        Share of cases in the population, in (0, 1).
    groups : Series, or array (n,), optional
        Families: labels by sample id, or in the order of the model's samples. Errors of pairs
        are dependent where they share a group, by default a sample. Relatives taken for
        independent would make the standard error too small.
    prob : float
        Probability of the interval.

    Returns
    -------
    Pcgc

    Raises
    ------
    InputError
        For phenotypes that are not case/control, shares outside (0, 1), covariates that
        separate cases from controls, and groups that do not fit the samples.

    References
    ----------
    Golan D, Lander ES, Rosset S (2014). Measuring missing heritability: inferring the
    contribution of common variants. Proc Natl Acad Sci USA 111:E5272.
    doi:10.1073/pnas.1419064111
    Aronow PM, Samii C, Assenova VA (2015). Cluster-robust variance estimation for dyadic data.
    Polit Anal 23:564. doi:10.1093/pan/mpv018

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> K = np.kron(np.eye(100), np.full((4, 4), 0.5) + 0.5 * np.eye(4))  # sibs, h2 0.8
    >>> u = np.linalg.cholesky(K) @ np.random.default_rng(1).normal(size=400)
    >>> l = np.sqrt(0.8) * u + np.sqrt(0.2) * np.random.default_rng(2).normal(size=400)
    >>> fit = bl.pcgc(bl.LMM(l > 0.5, kernel=K), 0.31, groups=np.repeat(np.arange(100), 4))
    >>> fit.low < 0.8 < fit.high
    True
    """
    from scipy.special import ndtri

    require_share(prevalence, "prevalence")
    require_share(prob, "prob")
    cases = case_control(model)
    grm = model.grm
    if grm is None:
        raise InputError(
            "PCGC needs the relatedness matrix, but the model has none: a kernel, or a basis "
            "kept with its matrix."
        )
    y, n = cases.y, len(cases.y)
    P = _risks(model, y)
    K = population_risk(P, prevalence, float(y.mean()))
    density = np.exp(-0.5 * ndtri(K) ** 2) / np.sqrt(2 * np.pi)
    scaled = density * np.sqrt(P * (1 - P)) / (K * (1 - K))
    z = (y - P) / np.sqrt(P * (1 - P))
    matrix = grm.subset(model.ids).matrix
    labels = np.arange(n) if groups is None else group_codes(groups, model.ids)
    count = int(labels.max()) + 1
    if count < 10:
        raise InputError(f"The standard error has {count} groups; at least 10 are needed.")
    pairs = _Pairs(np.asarray(matrix), scaled, z)
    top, bottom = pairs.sums()
    if not bottom > 0:
        raise InputError("The kernel relates no two samples: PCGC has nothing to regress on.")
    kappa = float(np.diagonal(matrix).mean())
    h2 = top / bottom * kappa
    se = np.sqrt(pairs.variance(top / bottom, labels)) / bottom * kappa
    width = float(ndtri(0.5 + prob / 2)) * se
    low, high = float(h2 - width), float(h2 + width)
    return Pcgc(float(h2), float(se), low, high, prob, n, cases.n_cases, prevalence, count)


def _risks(model: LMM, y: np.ndarray) -> np.ndarray:
    """Risk in the sample given the covariates, by logistic regression, shape (n,)."""
    if model.C.shape[1] == 1 and model.has_intercept:
        return np.full(len(y), y.mean())
    from bayeslmm.binary.logistic import fit_null

    return fit_null(y, model.C.to_numpy(), list(model.C.columns)).mu


class _Pairs:
    """The regression of z_i z_j on x_ij = K_ij c_i c_j over pairs of different people."""

    def __init__(self, K: np.ndarray, c: np.ndarray, z: np.ndarray) -> None:
        self.K, self.c, self.z = K, c, z

    def _rows(self, i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x_ij and z_i z_j of the rows i, shape (rows, n); x_ii = 0."""
        x = self.K[i] * np.multiply.outer(self.c[i], self.c)
        x[np.arange(len(i)), i] = 0
        return x, np.multiply.outer(self.z[i], self.z)

    def sums(self) -> tuple[float, float]:
        """Sums of x z z and of x^2, the numerator and the denominator of the slope."""
        n, top, bottom = len(self.z), 0.0, 0.0
        step = max(1, _ROWS // n)
        for start in range(0, n, step):
            x, zz = self._rows(np.arange(start, min(start + step, n)))
            top += float((x * zz).sum()) / 2
            bottom += float((x * x).sum()) / 2
        return top, bottom

    def variance(self, slope: float, labels: np.ndarray) -> float:
        """Variance of the numerator's error, for pairs that share a group (0, 1, ...).

        The squared sums of the pairs of each group count a pair of two groups twice: its own
        square is taken out once (Aronow, Samii & Assenova 2015). What is left estimates
        something that is at least those squares, and is set to them where it is less.
        """
        order = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[order], np.arange(labels.max() + 1))
        ends = np.append(starts[1:], len(order))
        step = max(1, _ROWS // len(order))
        shared = own = 0.0
        first = 0
        while first < len(starts):
            last = max(first + 1, int(np.searchsorted(ends, starts[first] + step, side="right")))
            x, zz = self._rows(order[starts[first] : ends[last - 1]])
            x *= zz - slope * x
            x = np.add.reduceat(x[:, order], starts, axis=1)
            x = np.add.reduceat(x, starts[first:last] - starts[first], axis=0)
            here = np.arange(last - first), np.arange(first, last)
            x[here] /= 2  # both orders of a pair within a group
            shared += float((x.sum(axis=1) ** 2).sum())
            x[here] = 0
            own += float((x * x).sum()) / 2
            first = last
        groups = len(starts)
        return max(shared - own, own) * groups / (groups - 1)


def group_codes(groups: Any, ids: pd.Index) -> np.ndarray:
    """Groups 0, 1, ... of samples, from labels by id or in their order."""
    if isinstance(groups, pd.Series) and not isinstance(groups.index, pd.RangeIndex):
        labels = groups.set_axis(groups.index.astype(str))
        absent = ids.difference(labels.index)
        if len(absent):
            raise InputError(f"{len(absent):,} samples have no group: {listing(absent)}.")
        groups = labels.loc[ids]
    values = pd.Series(np.asarray(groups))
    if len(values) != len(ids) or values.isna().any():
        raise InputError(
            f"groups has {values.notna().sum():,} labels, but there are {len(ids):,} samples."
        )
    return pd.factorize(values)[0]


def require_share(value: float, what: str) -> None:
    """Raise an `InputError` unless a number is in (0, 1)."""
    if not 0 < value < 1:
        raise InputError(
            f"{what} must be a share in (0, 1), as 0.01 for one in a hundred, but is {value:g}."
        )


def population_risk(risk: np.ndarray, prevalence: float, sample_prevalence: float) -> np.ndarray:
    """Risk in the population from that in a case-control sample, by Bayes' rule.

    The odds change by the factor that the odds of a case have changed.

    Examples
    --------
    >>> population_risk(np.array([0.5, 0.9]), 0.01, 0.5).round(3)
    array([0.01 , 0.083])
    """
    factor = prevalence / (1 - prevalence) * (1 - sample_prevalence) / sample_prevalence
    return risk * factor / (1 - risk + risk * factor)
