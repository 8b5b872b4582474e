"""What a command works on, as its options name it, and the folder of results that it leaves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Basis
from bayeslmm.bases.loading import load_eigenbasis
from bayeslmm.commands.shared import (
    genotype_files,
    kernel_files,
    missing_codes,
    read_kernel,
    selected,
    words_of,
)
from bayeslmm.errors import InputError
from bayeslmm.inputs.formulas import design_from_formula, without_pcs
from bayeslmm.inputs.genotypes import Genotypes, read_genotypes
from bayeslmm.inputs.phenotypes import may_use, read_phenotypes
from bayeslmm.relatedness.dense import GRM, Relatedness
from bayeslmm.relatedness.scales import Scale
from bayeslmm.relatedness.sums import grm as make_grm
from bayeslmm.relatedness.sums import keeps_chromosomes
from bayeslmm.runs.checkpoints import Checkpoint
from bayeslmm.runs.progress import blas_threads, log
from bayeslmm.runs.results import (
    PROVENANCE,
    Clock,
    result_folder,
    trait_names,
    write_provenance,
)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Genotypes or a kernel, phenotypes, formulas, and which variants and samples count.

    Attributes
    ----------
    genotypes : str or None
        BFILE: the genotypes, whose relatedness is made unless `grm` or `basis` is named.
    grm, basis : str or Path or None
        Relatedness that was made before.
    pheno, id : Path, str or None
        The table of phenotypes, and its column of sample ids.
    formulas : list of str
        One for each trait.
    scale, maf, max_missing : str or float or None
        How a relatedness matrix is made of the genotypes, and of which variants.
    missing : str
        What a sample without a covariate is: an error, or dropped.
    na : str or None
        What else means missing in the table of phenotypes, with commas.
    keep, extract : Path or None
        Files with the ids of the only samples, and of the only variants, that count.
    """

    genotypes: str | None
    pheno: Path
    formulas: list[str]
    id: str | None = None
    grm: str | None = None
    basis: Path | None = None
    scale: Scale | None = None
    maf: float | None = None
    max_missing: float | None = None
    missing: Literal["error", "drop"] = "error"
    na: str | None = None
    keep: Path | None = None
    extract: Path | None = None

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Data:
        """The data of earlier results, from the parameters of their provenance."""
        given = {field.name: parameters.get(field.name, field.default) for field in fields(cls)}
        for name in ("pheno", "basis", "keep", "extract"):
            given[name] = None if given[name] is None else Path(given[name])
        return cls(**given)

    @property
    def names(self) -> list[str]:
        """A name for each trait that can be part of a file's."""
        return trait_names(self.formulas)

    @property
    def formula(self) -> str:
        """The formula of a command that takes one trait."""
        if len(self.formulas) != 1:
            raise InputError(f"{len(self.formulas)} times --formula: this command takes one trait.")
        return self.formulas[0]

    def traits(self) -> Iterator[tuple[str, str]]:
        """The name and the formula of each trait."""
        return zip(self.names, self.formulas, strict=True)

    def require_one_source(self) -> None:
        """Raise an `InputError` unless relatedness comes from exactly one place."""
        given = [s for s in (self.genotypes, self.grm, self.basis) if s is not None]
        if len(given) != 1:
            raise InputError(
                f"{len(given)} sources of relatedness were named, one is needed: genotypes "
                "(BFILE), or --grm, or --basis."
            )
        filters = (self.scale, self.maf, self.max_missing, self.extract)
        if self.genotypes is None and any(option is not None for option in filters):
            raise InputError(
                "--scale, --maf, --max-missing and --extract make a relatedness matrix from "
                "genotypes (BFILE); --grm and --basis are taken as they are."
            )

    def table(self) -> pd.DataFrame:
        """The table of phenotypes."""
        table = read_phenotypes(
            self.pheno,
            id=self.id,
            missing=missing_codes(self.na),
            needed=may_use(*self.formulas),
        )
        if self.keep is None:
            return table
        there = table.index.isin(self._wanted)
        if "FID" in table:
            there |= (table["FID"].astype(str) + "_" + table.index).isin(self._wanted).to_numpy()
        return table[self._some(self.keep, there, f"samples of {self.pheno}")]

    @cached_property
    def _wanted(self) -> set[str]:
        """Ids of the samples that --keep names: IID, and FID_IID for where that is the id."""
        assert self.keep is not None
        rows = words_of(self.keep)
        return {row[:2][-1] for row in rows} | {"_".join(row[:2]) for row in rows}

    @staticmethod
    def _some(file: Path, there: np.ndarray, what: str) -> np.ndarray:
        """Which were chosen by a file of ids, if any was; says how many."""
        if not there.any():
            raise InputError(f"{file}: its ids are of none of the {len(there):,} {what}.")
        log.info("%s: %s of %s %s.", file, f"{there.sum():,}", f"{len(there):,}", what)
        return there

    @cached_property
    def cohort(self) -> Genotypes:
        """The genotypes of all variants and samples; their tables are read once."""
        assert self.genotypes is not None
        found = read_genotypes(self.genotypes)
        if self.keep is not None:
            there = found.samples.index.isin(self._wanted)
            found = found.select(samples=self._some(self.keep, there, f"samples of {found.name}"))
        if self.extract is not None:
            ids = {word for row in words_of(self.extract) for word in row}
            of = found.variants.id.isin(ids).to_numpy()
            found = found.select(variants=self._some(self.extract, of, f"variants of {found.name}"))
        return found

    def selected(self, genotypes: Genotypes, **names: Any) -> Genotypes:
        """Variants that are common and complete enough; `names` as `shared.selected` has them."""
        return selected(genotypes, self.maf, self.max_missing, **names)

    def kernel(
        self,
        table: pd.DataFrame,
        clock: Clock,
        kept: Checkpoint | None = None,
        *,
        by_chrom: bool = False,
    ) -> Relatedness | Basis:
        """The kernel from where the options say; formulas are checked before it is made.

        With by_chrom a matrix that is made keeps each chromosome's sum, if there is room.
        """
        kernel: Relatedness | Basis
        if self.basis is not None:
            kernel = load_eigenbasis(self.basis)
        elif self.grm is not None:
            kernel = read_kernel(self.grm)
        else:
            genotypes = self.cohort
            for formula in self.formulas:
                self.require_samples(formula, table, genotypes)
            chosen = self.selected(genotypes)
            kernel = make_grm(
                chosen,
                scale=self.scale or "standardized",
                by_chrom=by_chrom and keeps_chromosomes(chosen),
                kept=kept,
            )
        if kept is not None and isinstance(kernel, GRM):
            kernel = replace(kernel, cache_folder=kept.path("bases"))
        clock(repr(kernel))
        return kernel

    def require_samples(self, formula: str, table: pd.DataFrame, genotypes: Genotypes) -> None:
        """Raise an `InputError` where the formula, the table and the genotypes do not meet."""
        samples = genotypes.samples.index
        design_from_formula(without_pcs(formula), table, samples, missing=self.missing)

    def genotyped(self, formula: str, table: pd.DataFrame) -> pd.DataFrame:
        """The samples with genotypes: without a kernel nothing else says who has any."""
        there = table.index.isin(self.cohort.samples.index)
        if not there.any():
            self.require_samples(formula, table, self.cohort)
        return table[there]

    def parameters(self) -> dict[str, Any]:
        """All of it, as provenance keeps it; see `of`."""
        given = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }
        return given | {"folder": os.getcwd()}

    def files(self) -> list[str]:
        """The files that were named; a basis' description holds the others' checksums."""
        genotypes = [] if self.genotypes is None else genotype_files(self.genotypes)
        lists = [str(file) for file in (self.keep, self.extract) if file is not None]
        return [str(self.pheno), *lists, *genotypes, *kernel_files(self.grm, self.basis)]


@dataclass(frozen=True)
class Run:
    """A command at work: its data, the folder that it fills, and its clock."""

    data: Data
    folder: Path
    clock: Clock

    def finish(
        self,
        analysis: str,
        lines: Iterable[str],
        *,
        inputs: Iterable[str | os.PathLike[str]] = (),
        about: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> str:
        """Write summary.txt and provenance.json; returns the summary.

        Parameters
        ----------
        analysis : str
            Name of the command.
        lines : iterable of str
            The summary.
        inputs : iterable of path-like
            Files that were read beside those of the data.
        about : dict, optional
            Further entries of the provenance.
        **parameters
            What the command was told beside its data.
        """
        summary = "\n".join(lines).rstrip()
        (self.folder / "summary.txt").write_text(f"{summary}\n", encoding="utf-8")
        write_provenance(
            self.folder / PROVENANCE,
            [*self.data.files(), *inputs],
            {"analysis": analysis, **self.data.parameters(), **parameters},
            **(about or {}),
            seconds=self.clock.seconds,
        )
        return summary


@contextmanager
def run(data: Data, out: Path, *, overwrite: bool, threads: int | None) -> Iterator[Run]:
    """Yield a run, whose folder is moved to `out` when all went well."""
    clock = Clock()
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        yield Run(data, folder, clock)
    clock(f"written to {out}")
