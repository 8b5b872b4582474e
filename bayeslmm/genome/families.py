"""The scan behind a sparse relatedness matrix: groups of relatives pass through the cache once.

A rotated variant is needed for its squares only: x'U W U'x takes U'x, but x'(U W y) does not.
So dosages stay as they were read, one byte each, people in rows. A few hundred people at a
time they become floating point, are multiplied with what stands for the phenotype and the
covariates, are rotated, squared, and multiplied with the weights; nothing of that is written to
memory.
Rotations of small groups are products too small to be fast. Groups are therefore packed into
bins of one size, each a small block-diagonal matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.genome.codings import recode
from bayeslmm.genome.scanner import Scanner
from bayeslmm.inputs.genotypes import CenteredBlock, Genotypes
from bayeslmm.inputs.sample_major import SampleMajor
from bayeslmm.numerics.nodes import Products, StackedWeights, stacked_weights

if TYPE_CHECKING:
    from bayeslmm.bases.block import BlockBasis
    from bayeslmm.genome.codings import Coding

# People in a bin, into which groups up to that size are packed; a larger group is a bin.
_BIN = 16
# People in a tile: with all variants of a block it stays in the cache.
_TILE = 1024
# A multiple of this many rows is what BLAS multiplies fast.
_ROWS = 4
# Bytes of a block of dosages.
_BLOCK = 2**26
# Relative error of weights that are combined from few, of the order of float32's own.
_ERROR = {np.dtype(np.float32): 3e-7, np.dtype(np.float64): 1e-11}


def variants_in_block(n: int) -> int:
    """Variants of a block of n people's dosages, one byte each."""
    return int(np.clip(_BLOCK // n // 8 * 8, 32, 256))


@dataclass(frozen=True)
class Tile:
    """People who are rotated together: their slots, and U' of their bins (bins, K, K).

    U' is None for people without relatives.
    """

    start: int
    stop: int
    transposed: np.ndarray | None


class Packing:
    """Groups of relatives in bins.

    Attributes
    ----------
    sample, column : ndarray of int, shape (slots,)
        Who is in a slot, and which column of U; -1 where a bin is not full.
    bins : list of (int, ndarray)
        First slot of bins of one size, and U' of each, shape (bins, K, K).
    """

    def __init__(self, basis: BlockBasis) -> None:
        sizes = basis.group_sizes
        first = np.cumsum(sizes) - sizes
        self.n = basis.n
        slots: list[np.ndarray] = [first[sizes == 1]]
        self.bins: list[tuple[int, np.ndarray]] = []
        filled = len(slots[0])
        small = (sizes > 1) & (sizes <= _BIN)
        widths = [(_BIN, small)] if small.any() else []
        widths += [(int(s), sizes == s) for s in np.unique(sizes[sizes > _BIN])]
        for width, chosen in widths:
            where, offset, count = _packed(sizes[chosen], width)
            here = np.full((count, width), -1, dtype=np.int64)
            U = np.zeros((count, width, width))
            for s in np.unique(sizes[chosen]):
                one = sizes[chosen] == s
                start, within = first[chosen][one], np.arange(s)
                rows = where[one][:, None], offset[one][:, None] + within
                here[rows] = start[:, None] + within
                entries = basis.U.indptr[start][:, None] + np.arange(s * s)
                blocks = basis.U.data[entries].reshape(-1, s, s)
                U[rows[0][:, :, None], rows[1][:, :, None], rows[1][:, None, :]] = blocks.transpose(
                    0, 2, 1
                )
            slots.append(here.ravel())
            self.bins.append((filled, U))
            filled += here.size
        self.column = np.concatenate(slots)
        order = np.arange(self.n) if basis.order is None else basis.order
        self.sample = np.where(self.column < 0, 0, order[self.column])

    def at_slots(self, values: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Rows of values (n, k) at positions of slots, 0 in empty ones: (k or more, slots).

        Further rows are 0: products are faster with a multiple of four.
        """
        found = np.zeros((-(-values.shape[1] // _ROWS) * _ROWS, len(positions)))
        found[: values.shape[1]] = np.where(self.column < 0, 0.0, values[positions].T)
        return found

    def tiles(self, dtype: np.dtype) -> list[Tile]:
        """The slots in tiles of whole bins."""
        alone = self.bins[0][0] if self.bins else len(self.column)
        tiles = [Tile(i, min(i + _TILE, alone), None) for i in range(0, alone, _TILE)]
        for first, U in self.bins:
            width = U.shape[1]
            step = max(1, _TILE // width)
            part = U.astype(dtype)
            for i in range(0, len(U), step):
                j = min(i + step, len(U))
                tiles.append(Tile(first + i * width, first + j * width, part[i:j]))
        return tiles


def _packed(sizes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Bin and place in it of each group, and the number of bins: largest first, what fits next."""
    left = np.bincount(sizes, minlength=width + 1)
    members = {int(s): np.flatnonzero(sizes == s) for s in np.flatnonzero(left)}
    taken = dict.fromkeys(members, 0)
    where, offset = np.empty(len(sizes), dtype=np.int64), np.empty(len(sizes), dtype=np.int64)
    bins = 0
    while left.any():
        pattern: list[int] = []
        room, free = width, left.copy()
        while (fits := np.flatnonzero(free[: room + 1])).size:
            size = int(fits[-1])
            pattern.append(size)
            free[size] -= 1
            room -= size
        times = min(int(left[s]) // pattern.count(s) for s in set(pattern))
        place = 0
        for size in pattern:
            now = members[size][taken[size] : taken[size] + times]
            where[now], offset[now] = bins + np.arange(times), place
            taken[size] += times
            left[size] -= times
            place += size
        bins += times
    return where, offset, bins


@dataclass(frozen=True)
class FamilyWeights(StackedWeights):
    """Weights for variants that are not rotated.

    Attributes
    ----------
    packing : Packing
    linear_slots, square_slots : ndarray, shapes (columns, slots)
        U `linear` for the people in the slots, and `square` of the columns of U there.
    tiles : sequence of Tile
    """

    packing: Packing
    linear_slots: np.ndarray
    square_slots: np.ndarray
    tiles: Sequence[Tile]

    def products(self, x: SampleMajor) -> Products:  # type: ignore[override]
        """Products of variants, tile by tile; sums over tiles are float64."""
        b, dtype = x.values.shape[1], self.linear_slots.dtype
        linear = np.zeros((len(self.linear_slots), b))
        squares = np.zeros((len(self.square_slots), b))
        widest = max(tile.stop - tile.start for tile in self.tiles)
        buffers, room = np.empty((2, widest, b), dtype=dtype), x.room(widest)
        for tile in self.tiles:
            slots, size = slice(tile.start, tile.stop), tile.stop - tile.start
            part, rotated = buffers[0, :size], buffers[1, :size]
            x.centered(self.packing.sample[slots], part, room)
            linear += self.linear_slots[:, slots] @ part
            if tile.transposed is None:
                rotated = part
            else:
                bins, width, _ = tile.transposed.shape
                shape = bins, width, b
                np.matmul(tile.transposed, part.reshape(shape), out=rotated.reshape(shape))
            np.multiply(rotated, rotated, out=rotated)
            squares += self.square_slots[:, slots] @ rotated
        v, k = len(x), len(self.between)
        p = self.combine.shape[0] // k - 1
        return Products(squares[:k, :v].T, linear[:p, :v].T, linear[p : p + k * (1 + p), :v].T)


class FamilyScanner(Scanner):
    """Tests of variants against one null model with a block-diagonal basis."""

    @cached_property
    def _packing(self) -> Packing:
        return Packing(self.basis)  # type: ignore[arg-type]

    @cached_property
    def _tiles(self) -> list[Tile]:
        return self._packing.tiles(self.dtype)

    def _weights(self, nodes: np.ndarray, rough: slice | None = None) -> FamilyWeights:
        assert self.basis is not None
        w = stacked_weights(
            self.data,
            nodes,
            skip_intercept=self.skip,
            dtype=np.dtype(np.float64),
            rough=rough,
            error=_ERROR[self.dtype],
        )
        packing = self._packing
        linear = packing.at_slots(self.basis.unrotate(w.linear), packing.sample)
        square = packing.at_slots(w.square, packing.column)
        return FamilyWeights(
            w.log_ratio,
            w.Q,
            w.logdet,
            w.logdet_d,
            w.square[:0],
            w.linear[:0],
            w.between,
            w.combine,
            packing,
            np.ascontiguousarray(linear, dtype=self.dtype),
            np.ascontiguousarray(square, dtype=self.dtype),
            self._tiles,
        )

    def read(
        self, genotypes: Genotypes, span: tuple[int, int], coding: Coding
    ) -> tuple[CenteredBlock, SampleMajor]:
        """Variants of a block, people in rows, and what is told of them."""
        if coding == "additive":
            return genotypes.sample_major(*span, dtype=self.dtype)
        block = recode(genotypes.centered_block(*span, dtype=self.dtype), coding)
        return block.without_dosages(), SampleMajor(block.x.T, None, False, len(block.x))

    def integrate_again(  # type: ignore[override]
        self, x: SampleMajor, width: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Of variants that are rotated for this alone."""
        assert self.basis is not None
        everyone = np.arange(self.data.n)
        dosage = np.empty((self.data.n, x.values.shape[1]))
        x.centered(everyone, dosage, x.room(len(dosage)))
        return super().integrate_again(self.basis.rotate(dosage[:, : len(x)]).T, width)
