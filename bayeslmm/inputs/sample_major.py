"""Dosages with people in rows, as they were read: for work that goes people by people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Bytes of a 64-bit word are eight variants' dosages; that many rows are summed without a carry,
# so many times at once.
_WORD, _NO_CARRY, _AT_ONCE = 8, 255, 8
_LOWEST = np.uint64(0x0101010101010101)


@dataclass(frozen=True, eq=False)
class SampleMajor:
    """Some variants, people in rows.

    Attributes
    ----------
    values : ndarray, shape (n, width)
        Dosages of the variants in its first columns: `int8` with -9 for missing, or centred
        numbers. Columns beyond the variants are 0.
    mean : ndarray, shape (width,), or None
        What is to be taken off each column; None if it is off already.
    any_missing : bool
        Whether a dosage is missing; it is to count as the mean.
    m : int
        Number of variants.
    """

    values: np.ndarray
    mean: np.ndarray | None
    any_missing: bool
    m: int

    def __len__(self) -> int:
        return self.m

    def __getitem__(self, variants: int | np.ndarray) -> SampleMajor:
        """Some of the variants."""
        chosen = np.atleast_1d(variants)
        mean = None if self.mean is None else self.mean[chosen]
        return SampleMajor(self.values[:, chosen], mean, self.any_missing, len(chosen))

    def room(self, rows: int) -> np.ndarray:
        """Room for that many rows, which `centered` works in."""
        return np.empty((rows, self.values.shape[1]), dtype=self.values.dtype)

    def centered(self, rows: np.ndarray, out: np.ndarray, room: np.ndarray) -> None:
        """Centred dosages of some people, written to `out` (people, width)."""
        part = room[: len(rows)]
        # With mode="clip" nothing is copied once more.
        np.take(self.values, rows, axis=0, out=part, mode="clip")
        np.copyto(out, part, casting="same_kind")
        if self.mean is not None:
            np.subtract(out, self.mean.astype(out.dtype), out=out)
            if self.any_missing:
                np.copyto(out, 0, where=part < 0)


def padded(n: int, m: int) -> np.ndarray:
    """Room for m variants' dosages of n people, a whole number of words for each."""
    return np.zeros((n, -(-m // _WORD) * _WORD), dtype=np.int8)


def counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many people have dosage 1, dosage 2, and none, of each column of `int8` (n, width).

    Of 0, 1, 2 and -9 (11110111 in two's complement) the lowest bit is that of 1 and -9, the next
    that of 2 and -9, the highest that of -9; eight columns are summed as the bytes of one word.

    Examples
    --------
    >>> values = padded(3, 1)
    >>> values[:, 0] = [1, 2, -9]
    >>> [int(count[0]) for count in counts(values)]
    [1, 1, 1]
    """
    words = values.view(np.uint64)
    n, width = values.shape
    totals = np.zeros((3, width), dtype=np.int64)
    whole = n // _NO_CARRY * _NO_CARRY
    runs = words[:whole].reshape(-1, _NO_CARRY, words.shape[1])
    parts = [runs[i : i + _AT_ONCE] for i in range(0, len(runs), _AT_ONCE)]
    for part in [*parts, words[None, whole:]]:
        for total, shift in zip(totals, (0, 1, 7), strict=True):
            sums = ((part >> np.uint64(shift)) & _LOWEST).sum(axis=1)
            total += sums.view(np.uint8).sum(axis=0, dtype=np.int64)
    ones, twos, absent = totals
    return ones - absent, twos - absent, absent
