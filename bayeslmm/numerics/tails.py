"""Tail probabilities in log10, finite where the probability itself underflows."""

from __future__ import annotations

import numpy as np

_LN10 = np.log(10)
# Enough for full precision where the fraction is used, that is where p < 1e-290.
_FRACTION_TERMS = 20


def log10_p_f(f: np.ndarray, df: int) -> np.ndarray:
    """log10 P(F(1, df) > f), for f >= 0 of shape (v,).

    The tail is the regularised incomplete beta function I_x(df/2, 1/2) at
    x = df / (df + f); where that underflows, its continued fraction (DLMF 8.17.22) is
    used.
    """
    from scipy.special import betainc, betaln

    f = np.asarray(f, dtype=np.float64)
    a, x = df / 2, df / (df + f)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.log10(betainc(a, 0.5, x))
        far = out < -290
        if far.any():
            g = f[far]
            log_x, log_rest = -np.log1p(g / df), -np.log1p(df / g)
            log_p = a * log_x + 0.5 * log_rest - np.log(a) - betaln(a, 0.5)
            out[far] = (log_p - np.log(_fraction(a, 0.5, x[far]))) / _LN10
    return out


def log10_p_f2(f: np.ndarray, df: int) -> np.ndarray:
    """log10 P(F(2, df) > f), in closed form: (1 + 2 f / df)^(-df / 2)."""
    return -0.5 * df * np.log1p(2 * np.asarray(f, dtype=np.float64) / df) / _LN10


def _fraction(a: float, b: float, x: np.ndarray) -> np.ndarray:
    """1 + d1 / (1 + d2 / (1 + ...)) of the incomplete beta function, from its end."""
    value = np.ones_like(x)
    for k in range(_FRACTION_TERMS, 0, -1):
        m = k // 2
        if k % 2:
            d = -(a + m) * (a + b + m) / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) / ((a + 2 * m - 1) * (a + 2 * m))
        value = 1 + d * x / value
    return value


def log10_p_chi2(statistic: np.ndarray) -> np.ndarray:
    """log10 P(chi2(1) > statistic)."""
    from scipy.special import log_ndtr

    return (np.log(2) + log_ndtr(-np.sqrt(np.maximum(statistic, 0)))) / _LN10


def normal_deviate(t: np.ndarray, df: float) -> np.ndarray:
    """The z with the same tail as Student's t with `df` degrees of freedom."""
    return np.copysign(normal_deviate_of_log(np.log1p(t * t / df), df), t)


def normal_deviate_of_log(log_square: np.ndarray, df: float) -> np.ndarray:
    """The same for t >= 0 that is given as log(1 + t^2 / df).

    An asymptotic expansion, good to 1e-8 from about 30 degrees of freedom, and many times
    faster than the incomplete beta function; below that the function itself is used.

    References
    ----------
    Hill GW (1970). Algorithm 395: Student's t-distribution. Commun ACM 13:617.
    """
    if df < 30:
        from scipy.special import ndtri, stdtr

        t = np.sqrt(df * np.expm1(log_square))
        return -ndtri(np.maximum(stdtr(df, -t), 1e-300))
    a = df - 0.5
    b = 48 * a * a
    w = a * log_square
    inner = (((-0.4 * w - 3.3) * w - 24) * w - 85.5) / (0.8 * w * w + 100 + b)
    return ((inner + w + 3) / b + 1) * np.sqrt(w)
