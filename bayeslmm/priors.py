"""Priors on h2: density, point mass at 0, and how they are written in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.quadrature import unit_density


@dataclass(frozen=True)
class H2Prior:
    """A prior on h2: a density on (0, 1), and optionally a point mass at 0.

    Attributes
    ----------
    log_density : callable
        Normalised log density of the continuous part at h2, shape (G,).
    name : str
        How it is written in results.
    spike : float
        Prior probability that h2 is exactly 0.
    """

    log_density: Callable[[np.ndarray], np.ndarray]
    name: str
    spike: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.spike < 1:
            raise InputError(
                f"The prior probability of h2 = 0 must be in [0, 1), but is {self.spike:g}."
            )

    def __repr__(self) -> str:
        if self.spike:
            return f"{self.spike:g} at 0 + {1 - self.spike:g} {self.name}"
        return self.name


def beta(a: float, b: float, *, spike: float = 0.0) -> H2Prior:
    """Beta(a, b) on h2, with probability `spike` of exactly 0.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> bl.priors.beta(2, 3, spike=0.5)
    0.5 at 0 + 0.5 Beta(2, 3)
    """
    if not (a > 0 and b > 0):
        raise InputError(f"Beta({a:g}, {b:g}) is no density: both parameters must be above 0.")
    from scipy.special import betaln

    constant = float(betaln(a, b))

    def log_density(h2: np.ndarray) -> np.ndarray:
        # Where the factor is constant it is left out: 0 * log(0) would be NaN.
        value = np.full_like(h2, -constant)
        if a != 1:
            value += (a - 1) * np.log(h2)
        if b != 1:
            value += (b - 1) * np.log1p(-h2)
        return value

    return H2Prior(log_density, f"Beta({a:g}, {b:g})", spike)


def uniform(*, spike: float = 0.0) -> H2Prior:
    """Uniform on (0, 1), the default, with probability `spike` of exactly 0.

    For unrelated samples (a narrow spectrum of K) it equals the reference prior.
    """
    return H2Prior(np.zeros_like, "Uniform(0, 1)", spike)


def density(function: Callable[[np.ndarray], np.ndarray], *, spike: float = 0.0) -> H2Prior:
    """Any density on (0, 1); normalised here.

    Parameters
    ----------
    function : callable
        Density at h2, shape (G,), up to a constant; not negative.
    spike : float
        Prior probability of exactly 0.

    Raises
    ------
    InputError
        If it is negative, not finite, or has no mass.
    """

    def log_unnormalised(h2: np.ndarray) -> np.ndarray:
        values = np.broadcast_to(np.asarray(function(h2), dtype=np.float64), h2.shape)
        if not np.isfinite(values).all() or (values < 0).any():
            raise InputError("The prior density of h2 must be finite and not negative on (0, 1).")
        with np.errstate(divide="ignore"):
            return np.log(values)

    if not (np.exp(log_unnormalised(np.linspace(0.001, 0.999, 999))) > 0).any():
        raise InputError("The prior density of h2 is 0 on all of (0, 1).")
    constant = unit_density(log_unnormalised).log_integral
    name = getattr(function, "__name__", "density")
    return H2Prior(lambda h2: log_unnormalised(h2) - constant, name, spike)


def as_h2_prior(prior: Any) -> H2Prior:
    """A prior from what a user may write: None, a name, a scipy distribution, a density."""
    if prior is None or (isinstance(prior, str) and prior == "uniform"):
        return uniform()
    if isinstance(prior, H2Prior):
        return prior
    if hasattr(prior, "pdf"):
        return density(prior.pdf)
    if callable(prior):
        return density(prior)
    raise InputError(
        f"h2_prior={prior!r} is no prior. Use 'uniform', bl.priors.beta(a, b), a function of h2, "
        "or a scipy distribution."
    )
