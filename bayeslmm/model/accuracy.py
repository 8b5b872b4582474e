"""How good predictions are: what they promise of themselves, and what measured phenotypes say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError

if TYPE_CHECKING:
    from bayeslmm.model.residuals import ResidualCheck

_FEWEST = 4  # for an interval of a correlation


@dataclass(frozen=True)
class Accuracy:
    """How predictions agree with phenotypes that they were made without.

    Attributes
    ----------
    n : int
        Samples compared.
    correlation, low, high : float
        Pearson correlation of predicted and measured, and its 95% interval (Fisher's z), as if
        samples were independent; NaN if all predictions are the same.
    slope : float
        Of the regression of measured on predicted: below 1 if predictions are too far apart.
    rmse : float
        Root mean squared error, phenotype units.
    coverage : float
        Share of the samples within their interval.
    prob : float
        What it should be.
    """

    n: int
    correlation: float
    low: float
    high: float
    slope: float
    rmse: float
    coverage: float
    prob: float

    def __str__(self) -> str:
        return (
            f"correlation {self.correlation:.2f} ({self.low:.2f} to {self.high:.2f}), slope "
            f"{self.slope:.2f}, rmse {self.rmse:.3g}, {100 * self.coverage:.0f}% within "
            f"{100 * self.prob:g}% intervals ({self.n:,} samples)"
        )


def prediction_accuracy(predicted: pd.DataFrame, observed: pd.Series) -> Accuracy:
    """Compare predictions with phenotypes that were measured and not used.

    Parameters
    ----------
    predicted : DataFrame
        What `LMM.predict` returns.
    observed : Series
        Phenotypes by sample id, in the units of the model; those missing do not count.

    Returns
    -------
    Accuracy

    Raises
    ------
    InputError
        If fewer than four samples have both, or one comes twice.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> cohort = bl.simulate_cohort(None, 600, 1000, families=8, h2=0.8, seed=1)
    >>> table = cohort.phenotypes
    >>> known = table.assign(y=table.y.where(np.arange(600) % 4 > 0))
    >>> model = bl.LMM("y ~ sex + age", known, bl.grm(cohort.genotypes))
    >>> left_out = table.index[known.y.isna()]
    >>> predicted = model.predict(samples=left_out, data=table, seed=1)
    >>> print(bl.prediction_accuracy(predicted, table.y).n)
    150
    """
    ids = observed.index.astype(str)
    if ids.has_duplicates:
        raise InputError(f"The phenotypes name sample '{ids[ids.duplicated()][0]}' twice.")
    y = observed.set_axis(ids).reindex(predicted.index).to_numpy(dtype=np.float64)
    known = np.isfinite(y)
    n = int(known.sum())
    if n < _FEWEST:
        raise InputError(
            f"{n:,} of {len(predicted):,} predicted samples have a phenotype to compare with; at "
            f"least {_FEWEST} are needed."
        )
    return _compared(predicted[known], y[known], float(predicted.attrs["prob"]))


def measured_accuracy(predicted: pd.DataFrame) -> Accuracy | None:
    """The same from a table that has phenotypes itself, in y_observed; None if they are too few."""
    if "y_observed" not in predicted or predicted.y_observed.notna().sum() < _FEWEST:
        return None
    return prediction_accuracy(predicted, predicted.y_observed)


def left_out_accuracy(check: ResidualCheck, prob: float) -> Accuracy:
    """The same for the analysed samples, each predicted from all others (at the REML estimate)."""
    from scipy.special import ndtri

    table = check.table[check.table.loo_sd.notna()]
    half = float(ndtri((1 + prob) / 2)) * table.loo_sd
    ends = {"y_low": table.loo_mean - half, "y_high": table.loo_mean + half}
    return _compared(pd.DataFrame({"y_mean": table.loo_mean, **ends}), table.y.to_numpy(), prob)


def expected_correlations(predicted: pd.DataFrame) -> tuple[float, float]:
    """Correlation of predictions with the true genetic value, and with the phenotype, by the model.

    With E and V the mean and the variance of a sample's predictive distribution, over samples
    var(truth) = var(E) + mean(V) and cov(E, truth) = var(E): the root of the reliability of a
    breeding value.
    """
    return _expected(predicted.u_mean, predicted.u_sd), _expected(predicted.y_mean, predicted.y_sd)


def _expected(mean: pd.Series, sd: pd.Series) -> float:
    known, unknown = float(mean.var(ddof=0)), float((sd**2).mean())
    return float(np.sqrt(known / (known + unknown))) if known else 0.0


def _compared(predicted: pd.DataFrame, y: np.ndarray, prob: float) -> Accuracy:
    x = predicted.y_mean.to_numpy()
    n = len(x)
    r = low = high = slope = np.nan
    if np.ptp(x) > 0 and np.ptp(y) > 0:
        r = float(np.corrcoef(x, y)[0, 1])
        slope = r * float(y.std() / x.std())
        at, half = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), 1.959964 / np.sqrt(n - 3)
        low, high = float(np.tanh(at - half)), float(np.tanh(at + half))
    within = (y >= predicted.y_low) & (y <= predicted.y_high)
    rmse = float(np.sqrt(np.mean((y - x) ** 2)))
    return Accuracy(n, r, low, high, slope, rmse, float(within.mean()), prob)
