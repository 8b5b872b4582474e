"""Transformations that bring a phenotype's residuals closer to normal, and back.

>>> import bayeslmm as bl
>>> z = bl.transforms.inverse_normal([3.0, 100.0, 5.0])
>>> z.round(2)
array([-0.87,  0.87,  0.  ])
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayeslmm.errors import InputError


def inverse_normal(y: Any, *, offset: float = 0.375) -> np.ndarray:
    """Normal quantiles of the ranks: Phi^-1((rank - offset) / (n - 2 offset + 1)).

    Any distribution becomes normal, and its units are lost: h2 and effects are then of the
    ranks. Ties share their mean rank. Better applied to residuals on strong covariates than
    to a raw phenotype.

    Parameters
    ----------
    y : array_like, shape (n,)
        NaN stays NaN, and is not ranked.
    offset : float
        3/8 is Blom's.

    Returns
    -------
    ndarray, shape (n,)

    References
    ----------
    Beasley TM, Erickson S, Allison DB (2009). Rank-based inverse normal transformations are
    increasingly used, but are they merited? Behav Genet 39:580. doi:10.1007/s10519-009-9281-0
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    values = _phenotype(y)
    if not 0 <= offset <= 0.5:
        raise InputError(f"offset must be from 0 to 1/2, but is {offset:g}.")
    there = np.isfinite(values)
    out = np.full(len(values), np.nan)
    out[there] = ndtri((rankdata(values[there]) - offset) / (there.sum() - 2 * offset + 1))
    return out


@dataclass(frozen=True)
class BoxCox:
    """A power transformation, (y^power - 1) / power, log y for power 0.

    Attributes
    ----------
    power : float
        The power.
    values : ndarray, shape (n,)
        Transformed phenotype.
    """

    power: float
    values: np.ndarray = field(repr=False)

    def inverse(self, values: Any) -> np.ndarray:
        """Values of the transformed scale, of any shape, in the units of the phenotype.

        Predictions and quantiles may be taken back so (a mean becomes a median). What lies
        below the transform of 0 becomes 0 for a positive power, what lies above the
        transform of infinity becomes infinite for a negative one.
        """
        z = np.asarray(values, dtype=np.float64)
        if self.power == 0:
            return np.exp(z)
        with np.errstate(divide="ignore"):
            return np.maximum(1 + self.power * z, 0) ** (1 / self.power)


def box_cox(y: Any, *, power: float | None = None) -> BoxCox:
    """Box and Cox's power transformation of a positive phenotype.

    Parameters
    ----------
    y : array_like, shape (n,)
        Above 0; NaN stays NaN.
    power : float, optional
        By default that of the largest likelihood.

    Returns
    -------
    BoxCox
        Its `values`, `power`, and `inverse`, which takes results back to the units of y.

    Raises
    ------
    InputError
        If a value is not above 0.

    References
    ----------
    Box GEP, Cox DR (1964). An analysis of transformations. J R Stat Soc B 26:211.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> logged = bl.transforms.box_cox([1.0, 10.0, 100.0], power=0)
    >>> logged.inverse(logged.values).round(6)
    array([  1.,  10., 100.])
    """
    from scipy.optimize import minimize_scalar
    from scipy.stats import boxcox_llf

    values = _phenotype(y)
    there = np.isfinite(values)
    if (values[there] <= 0).any():
        raise InputError(
            f"Box-Cox needs values above 0, but {int((values[there] <= 0).sum()):,} are not. "
            "Add a constant that means something, or use bl.transforms.inverse_normal."
        )
    if power is None:
        found = minimize_scalar(
            lambda p: -boxcox_llf(p, values[there]), bounds=(-5, 5), method="bounded"
        )
        power = float(found.x)
    if not np.isfinite(power):
        raise InputError(f"power must be a finite number, but is {power:g}.")
    logs = np.log(values)
    return BoxCox(power, logs if power == 0 else np.expm1(power * logs) / power)


def _phenotype(y: Any) -> np.ndarray:
    values = np.asarray(y, dtype=np.float64)
    distinct = np.unique(values[np.isfinite(values)]) if values.ndim == 1 else np.empty(0)
    if values.ndim != 1 or np.isinf(values).any() or len(distinct) < 2:
        raise InputError(
            "A phenotype to transform is one-dimensional, without infinite values, and not "
            f"constant; this one has shape {values.shape}."
        )
    return values
