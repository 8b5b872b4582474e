"""The maximum of a function of h2 on [0, 1], ends included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bayeslmm.numerics.likelihood import LARGEST_H2

_GRID = np.unique(np.concatenate([[0], np.geomspace(1e-6, 0.05, 12), np.linspace(0.06, 0.94, 45)]))
_GRID = np.unique(np.concatenate([_GRID, 1 - _GRID[:14], [LARGEST_H2]]))
_GRID = _GRID[_GRID <= LARGEST_H2]


def maximise_h2(function: Callable[[np.ndarray], np.ndarray]) -> float:
    """Largest value of a function of h2 on [0, 1]: grid, then repeated zoom to 1e-10."""
    x = _GRID
    while True:
        values = function(x)
        best = int(np.nanargmax(values))
        low, high = x[max(best - 1, 0)], x[min(best + 1, len(x) - 1)]
        if high - low < 1e-10:
            break
        x = np.linspace(low, high, 17)
    return 0.0 if x[best] < 1e-9 else float(x[best])
