"""Symmetric matrices by their upper triangle, a panel of columns at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Rows and columns of a tile of K: large enough for products at full speed.
TILE = 512


def panels(n: int) -> list[slice]:
    """Columns of an n x n matrix, some at a time."""
    return [slice(i, min(i + TILE, n)) for i in range(0, n, TILE)]


def symmetric(upper: np.ndarray) -> np.ndarray:
    """Fill the lower triangle from the upper one, in place, block of rows by block."""
    n = len(upper)
    for rows in panels(n):
        upper[rows.stop :, rows] = upper[rows, rows.stop :].T
        corner = upper[rows, rows]
        upper[rows, rows] = np.triu(corner) + np.triu(corner, 1).T
    return upper


def outer(rows: np.ndarray) -> np.ndarray:
    """Upper triangle of rows' rows: half the flops of a general product."""
    from scipy.linalg.blas import dsyrk, ssyrk

    syrk = ssyrk if rows.dtype == np.float32 else dsyrk
    return syrk(1.0, rows.T)


@dataclass(frozen=True, eq=False)
class Triangle:
    """A symmetric matrix of n rows in about half of its memory.

    Attributes
    ----------
    n : int
        Rows of the matrix.
    packed : ndarray, shape (about n^2 / 2,)
        The panels of the upper triangle one after the other, each down to the diagonal's tile
        and in Fortran's order.

    Examples
    --------
    >>> import numpy as np
    >>> upper = np.array([[1.0, 2.0], [0.0, 3.0]])
    >>> Triangle.of(upper).full()
    array([[1., 2.],
           [2., 3.]])
    """

    n: int
    packed: np.ndarray

    @classmethod
    def of(cls, upper: np.ndarray) -> Triangle:
        """A copy of a matrix's upper triangle; what is below it does not matter."""
        n = len(upper)
        made = cls(n, np.empty(packed_size(n), upper.dtype))
        for columns, panel in made.panels():
            panel[:] = upper[: columns.stop, columns]
        return made

    def panels(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Columns, and a view of their rows down to the diagonal's tile."""
        start = 0
        for columns in panels(self.n):
            shape = (columns.stop, columns.stop - columns.start)
            size = shape[0] * shape[1]
            yield columns, self.packed[start : start + size].reshape(shape, order="F")
            start += size

    def upper(self) -> np.ndarray:
        """The matrix with nothing below the diagonal's tiles, (n, n) in Fortran's order."""
        out = np.zeros((self.n, self.n), self.packed.dtype, order="F")
        for columns, panel in self.panels():
            out[: columns.stop, columns] = panel
        return out

    def full(self) -> np.ndarray:
        """The whole matrix, (n, n) in Fortran's order."""
        return symmetric(self.upper())


def packed_size(n: int) -> int:
    """Numbers in the `Triangle` of an n x n matrix."""
    return sum(columns.stop * (columns.stop - columns.start) for columns in panels(n))
