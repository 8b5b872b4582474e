"""Polynomials through values at Chebyshev nodes."""

from __future__ import annotations

from functools import cache

import numpy as np

# So many, if nobody asks for another number.
NODES = 12


def nodes_for(half_width: float, error: float) -> int:
    """Nodes between which 1 / (r s + 1) is interpolated to this relative error, in log r.

    Its singularities lie at a distance of pi from the real line, which sets the rate.
    """
    return int(np.ceil(-np.log(error) / np.arcsinh(np.pi / half_width)))


def nodes_over(t: np.ndarray, digits: float) -> np.ndarray:
    """Chebyshev nodes over the range of t that interpolate such functions there to e^-digits."""
    half = 0.5 * np.ptp(t) + 1e-12
    count = nodes_for(half, np.exp(-digits)) + 2
    return 0.5 * (t.min() + t.max()) + half * chebyshev(count)


def lagrange(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Lagrange polynomials of Chebyshev nodes (N,) at x (d,), barycentric, shape (d, N)."""
    N = len(nodes)
    angles = np.pi * (np.arange(N) + 0.5) / N
    weights = np.where(np.arange(N) % 2, -1.0, 1.0) * np.sin(angles)
    gap = x[:, None] - nodes
    exact = gap == 0
    terms = weights / np.where(exact, 1.0, gap)
    hit = exact.any(axis=1)
    terms[hit] = exact[hit]
    return terms / terms.sum(axis=1, keepdims=True)


@cache
def chebyshev(nodes: int = NODES) -> np.ndarray:
    """Chebyshev nodes on (-1, 1)."""
    return np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)


@cache
def to_coefficients(nodes: int) -> np.ndarray:
    """Takes values at the nodes to coefficients of Chebyshev polynomials, (nodes, nodes)."""
    return np.linalg.inv(np.polynomial.chebyshev.chebvander(chebyshev(nodes), nodes - 1))


def series(values: np.ndarray) -> np.ndarray:
    """Chebyshev series of the polynomial with these values (k,) at the nodes."""
    return to_coefficients(len(values)) @ values


def cardinal(t: np.ndarray, nodes: int = NODES) -> np.ndarray:
    """Weights (v, nodes) that take values at the Chebyshev nodes to those at t (v,)."""
    return np.polynomial.chebyshev.chebvander(t, nodes - 1) @ to_coefficients(nodes)
