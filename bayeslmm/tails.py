"""Tail probabilities in log10, finite where the probability itself underflows."""

from __future__ import annotations

import numpy as np

_LN10 = np.log(10)


def log10_p_f(f: np.ndarray, df: int) -> np.ndarray:
    """log10 P(F(1, df) > f), for f >= 0 of shape (v,).

    The tail is the regularised incomplete beta function I_x(df/2, 1/2) at
    x = df / (df + f); where that underflows, its series (DLMF 8.17.8) is used.
    """
    from scipy.special import betainc, betaln, hyp2f1

    f = np.asarray(f, dtype=np.float64)
    x = df / (df + f)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.log10(betainc(df / 2, 0.5, x))
        far = out < -290
        if far.any():
            g = f[far]
            log_x, log_rest = -np.log1p(g / df), np.log(g / (df + g))
            series = np.log(hyp2f1(df / 2 + 0.5, 1.0, df / 2 + 1.0, x[far]))
            log_p = df / 2 * log_x + 0.5 * log_rest - np.log(df / 2) - betaln(df / 2, 0.5) + series
            out[far] = log_p / _LN10
    return out


def log10_p_chi2(statistic: np.ndarray) -> np.ndarray:
    """log10 P(chi2(1) > statistic)."""
    from scipy.special import log_ndtr

    return (np.log(2) + log_ndtr(-np.sqrt(np.maximum(statistic, 0)))) / _LN10
