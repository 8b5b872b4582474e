"""A pass over variants: blocks are read, rotated once, and tested by all who share the rotation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from bayeslmm.bases.basis import Basis
from bayeslmm.genome.codings import Coding, recode
from bayeslmm.genome.streaming import by_parts, kept_columns
from bayeslmm.inputs.genotypes import CenteredBlock, Genotypes
from bayeslmm.runs.columns import Columns, WholeColumns
from bayeslmm.runs.progress import blas_threads, map_ahead, track

if TYPE_CHECKING:
    from distributed import Client

    from bayeslmm.runs.checkpoints import Checkpoint


class Tester(Protocol):
    """Tests of variants against one null model."""

    @property
    def basis(self) -> Basis | None:
        """What variants are rotated to; None if they stay as they are."""

    def prepare(self, block: CenteredBlock) -> Any:
        """What `test` needs of a block's variants."""

    def test(self, block: CenteredBlock, x: Any) -> dict[str, np.ndarray]:
        """Columns of the table for a block; x is what `prepare` made of it."""


@runtime_checkable
class Reader(Protocol):
    """A tester that reads variants in a layout of its own."""

    def read(
        self, genotypes: Genotypes, span: tuple[int, int], coding: Coding
    ) -> tuple[CenteredBlock, Any]:
        """A block without dosages, and what `test` needs of its variants."""


@dataclass(frozen=True)
class Run:
    """How a pass over variants is done: of which, how precisely, by how many threads.

    Each of the workers has `blas` threads in matrix products. `kept`, if given, keeps the
    rotated variants for further passes with other covariates. With a checkpoint or a Dask client
    the pass is done in parts (`genome.streaming`); `label` names them, and `identity` is what
    they depend on beside the genotypes. With `in_parts` the results stay there.
    """

    genotypes: Genotypes
    dtype: np.dtype
    workers: int
    block_size: int | None
    progress: bool | None
    coding: Coding = "additive"
    blas: int = 1
    kept: dict[tuple[int, int], tuple[CenteredBlock, Any]] | None = None
    checkpoint: Checkpoint | None = None
    client: Client | None = None
    label: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    in_parts: bool = False

    @property
    def size(self) -> int:
        """Variants in a block."""
        if self.block_size is not None:
            return self.block_size
        return max(16, self.genotypes.block_size() // 2)

    def all_variants(self, scanners: Sequence[Tester]) -> list[dict[str, np.ndarray]]:
        """Columns of every scanner; the scanners share the rotation."""
        if self.checkpoint is None and self.client is None:
            return self._in_one_go(scanners)
        return by_parts(self, scanners)

    def columns(self, scanners: Sequence[Tester]) -> list[Columns]:
        """Columns of every scanner, in memory or in the parts of the checkpoint."""
        if self.in_parts:
            return list(kept_columns(self, scanners))
        m = self.genotypes.n_variants
        return [WholeColumns(found, m) for found in self.all_variants(scanners)]

    def _in_one_go(self, scanners: Sequence[Tester]) -> list[dict[str, np.ndarray]]:
        m = self.genotypes.n_variants
        tables: list[dict[str, np.ndarray]] = [{} for _ in scanners]
        for block, found in track(
            self.blocks(scanners, self.genotypes.block_ranges(self.size)),
            "Scan",
            total=m,
            size=lambda result: result[0].stop - result[0].start,
            show=self.progress,
        ):
            for table, columns in zip(tables, found, strict=True):
                for name, values in columns.items():
                    if name not in table:
                        table[name] = np.empty(m, dtype=values.dtype)
                    table[name][block.start : block.stop] = values
        return tables

    def blocks(
        self,
        scanners: Sequence[Tester],
        ranges: Iterable[tuple[int, int]],
    ) -> Iterator[tuple[CenteredBlock, list[dict[str, np.ndarray]]]]:
        """Blocks of variants without their dosages, and every scanner's columns of them."""
        basis = scanners[0].basis
        if basis is not None and not isinstance(scanners[0], Reader):
            basis.prepare(self.dtype)

        def work(span: tuple[int, int]) -> tuple[CenteredBlock, list[dict[str, np.ndarray]]]:
            block, x = (self.kept or {}).get(span) or self._prepared(span, scanners[0])
            about = {
                "eaf": block.eaf,
                "n_missing": block.n_missing,
                "variance": block.sum_sq / self.genotypes.n_samples,
            }
            return block, [scanner.test(block, x) | about for scanner in scanners]

        with blas_threads(self.blas):
            yield from map_ahead(work, ranges, workers=self.workers)

    def _prepared(self, span: tuple[int, int], scanner: Tester) -> tuple[CenteredBlock, Any]:
        if isinstance(scanner, Reader):
            return scanner.read(self.genotypes, span, self.coding)
        block = recode(self.genotypes.centered_block(*span, dtype=self.dtype), self.coding)
        prepared = scanner.prepare(block)
        block = block.without_dosages()
        if self.kept is not None:
            self.kept[span] = block, prepared
        return block, prepared
