"""Columns of a pass over variants: in memory, or in parts on disk and read span by span."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

type Arrays = dict[str, np.ndarray]
# Rows that are read at a time where nothing else says how many.
STEP = 2**14


class Columns(Protocol):
    """What a pass found, by name of column; rows are variants."""

    @property
    def m(self) -> int:
        """Rows."""

    @property
    def step(self) -> int:
        """Rows that are best read at a time."""

    def read(self, start: int, stop: int) -> Arrays:
        """The columns of some rows."""


@dataclass(frozen=True)
class WholeColumns:
    """Columns in memory.

    Parameters
    ----------
    arrays : mapping
        Arrays of shape (m,) by name.
    m : int
        Rows.
    """

    arrays: Arrays
    m: int
    step: int = STEP

    def read(self, start: int, stop: int) -> Arrays:
        """The columns of some rows."""
        return {name: values[start:stop] for name, values in self.arrays.items()}


@dataclass(frozen=True)
class Piece:
    """Some rows of the columns in a file: where they stand among all, ascending, and the file."""

    rows: np.ndarray
    path: Path


@dataclass(frozen=True)
class KeptColumns:
    """Columns in files, of which a few are in memory at a time.

    Parameters
    ----------
    pieces : sequence of Piece
        Together all rows, in any order.
    m : int
        Rows.
    step : int
        Rows that are best read at a time.
    load : callable
        ``load(path)`` gives the columns in a file.
    """

    pieces: Sequence[Piece]
    m: int
    step: int
    load: Callable[[Path], Arrays]
    _last: dict[Path, Arrays] = field(default_factory=dict, repr=False)

    def read(self, start: int, stop: int) -> Arrays:
        """The columns of some rows."""
        out: Arrays = {}
        used: dict[Path, Arrays] = {}
        for piece in self.pieces:
            first, last = np.searchsorted(piece.rows, [start, stop])
            if first == last:
                continue
            used[piece.path] = arrays = self._last.get(piece.path) or self.load(piece.path)
            for name, values in arrays.items():
                if name not in out:
                    out[name] = np.empty(stop - start, dtype=values.dtype)
                out[name][piece.rows[first:last] - start] = values[first:last]
        # Files that go on in the next rows need not be read twice.
        self._last.clear()
        self._last.update(used)
        return out


def scattered(parts: Sequence[tuple[np.ndarray, Columns]], m: int) -> Columns:
    """Columns of m rows from those of some of them each; `parts` say which, and have them."""
    if all(isinstance(columns, KeptColumns) for _, columns in parts):
        kept = [(rows, columns) for rows, columns in parts if isinstance(columns, KeptColumns)]
        pieces = [
            Piece(rows[piece.rows], piece.path)
            for rows, columns in kept
            for piece in columns.pieces
        ]
        return KeptColumns(pieces, m, kept[0][1].step, kept[0][1].load)
    out: Arrays = {}
    for rows, columns in parts:
        for name, values in columns.read(0, columns.m).items():
            if name not in out:
                out[name] = np.empty(m, dtype=values.dtype)
            out[name][rows] = values
    return WholeColumns(out, m)
