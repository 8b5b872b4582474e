"""The maximum of a smooth function of a few variables in a box, and its curvature.

For functions that evaluate many points at once: gradient and Hessian are central differences of
one stencil, 1 + d + d^2 points, and a line search is one call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Function values of some thousands have absolute errors of about 1e-12: this step leaves
# the Hessian an error of 1e-5, and the gradient one of 1e-8.
STEP = 3e-4
_STEPS = np.append(0.5 ** np.arange(0, 12), 0.0)


@dataclass(frozen=True)
class Maximum:
    """A maximum in a box.

    Attributes
    ----------
    x : ndarray, shape (d,)
        Where it is.
    value : float
        The function there.
    gradient, hessian : ndarray, shapes (d,) and (d, d)
        Derivatives there; in a coordinate at a limit those one step inside.
    free : ndarray of bool, shape (d,)
        Coordinates that are not held by a limit.
    """

    x: np.ndarray
    value: float
    gradient: np.ndarray
    hessian: np.ndarray
    free: np.ndarray


def derivatives(
    function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float = STEP
) -> tuple[float, np.ndarray, np.ndarray]:
    """Value, gradient (d,) and Hessian (d, d) at x (d,), from one call of `function`.

    Parameters
    ----------
    function : callable
        Takes points (G, d), returns values (G,).
    x : ndarray, shape (d,)
        The centre.
    step : float
        Distance of the stencil's points along each coordinate.

    Examples
    --------
    >>> value, gradient, hessian = derivatives(lambda p: p[:, 0] ** 2 * p[:, 1], np.array([1.0, 3]))
    >>> gradient.round(4), hessian.round(3)
    (array([6., 1.]), array([[6., 2.],
           [2., 0.]]))
    """
    d = len(x)
    rows, cols = np.triu_indices(d, 1)
    axes = step * np.eye(d)
    pairs = axes[rows] + axes[cols]
    points = x + np.concatenate([np.zeros((1, d)), axes, -axes, pairs, -pairs])
    values = function(points)
    f, ahead, behind = values[0], values[1 : 1 + d], values[1 + d : 1 + 2 * d]
    both, neither = np.split(values[1 + 2 * d :], 2)
    gradient = (ahead - behind) / (2 * step)
    hessian = np.diag(ahead - 2 * f + behind)
    sums = ahead + behind
    hessian[rows, cols] = 0.5 * (both + neither - sums[rows] - sums[cols] + 2 * f)
    hessian[cols, rows] = hessian[rows, cols]
    return float(f), gradient, hessian / step**2


def gradient(
    function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float = STEP
) -> np.ndarray:
    """Central differences at x (d,) of values (G,) or (G, k): shape (d,) or (d, k)."""
    axes = step * np.eye(len(x))
    ahead, behind = np.split(function(x + np.concatenate([axes, -axes])), 2)
    return (ahead - behind) / (2 * step)


def maximise(
    function: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    step: float = STEP,
    tolerance: float = 1e-9,
    iterations: int = 100,
) -> Maximum:
    """Climb from `start` by Newton steps within limits, to the nearest maximum.

    Parameters
    ----------
    function : callable
        Takes points (G, d) in the box, returns values (G,).
    start, lower, upper : ndarray, shape (d,)
        Where to begin, and the box (limits may be infinite).
    step : float
        Of the differences; the box must be wider than two of them.
    tolerance : float
        The climb ends when a step gains less.
    iterations : int
        Steps at most.

    Raises
    ------
    RuntimeError
        If the climb has not ended after `iterations` steps.
    """
    x = np.clip(start, lower, upper)
    for _ in range(iterations):
        # The stencil stays in the box; the gradient is carried from its centre to x.
        centre = np.clip(x, lower + step, upper - step)
        _, gradient, hessian = derivatives(function, centre, step)
        gradient = gradient + hessian @ (x - centre)
        held = ((x <= lower) & (gradient < 0)) | ((x >= upper) & (gradient > 0))
        free = ~held
        direction = np.zeros(len(x))
        direction[free] = _ascent(gradient[free], hessian[np.ix_(free, free)])
        tried = np.clip(x + _STEPS[:, None] * direction, lower, upper)
        values = function(tried)
        best = int(np.nanargmax(values))
        gain = float(values[best] - values[-1])
        x = tried[best] if gain > 0 else x
        if gain < tolerance:
            at_limit = (x <= lower) | (x >= upper)
            return Maximum(x, float(np.nanmax(values)), gradient, hessian, ~at_limit)
    raise RuntimeError(f"No maximum after {iterations} Newton steps; the last is at {x}.")


def _ascent(gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """The Newton step; where the function is not concave, along its axes uphill."""
    if not len(gradient):
        return gradient
    values, vectors = np.linalg.eigh(-hessian)
    size = np.maximum(np.abs(values), 1e-6 * max(float(np.abs(values).max()), 1e-300))
    return vectors @ ((vectors.T @ gradient) / size)
