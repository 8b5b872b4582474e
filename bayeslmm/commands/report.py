"""What `bayeslmm report` does: the HTML report of results that another command left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from bayeslmm.commands.shared import make_kernel, parse_prior, read_scan
from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import Genotypes, read_genotypes
from bayeslmm.inputs.phenotypes import read_phenotypes
from bayeslmm.model.lmm import LMM
from bayeslmm.reporting.report import report as write_report
from bayeslmm.runs.files import refuse_existing, sha256
from bayeslmm.runs.progress import blas_threads
from bayeslmm.runs.results import PROVENANCE, Clock, trait_names

_COMMANDS = ("h2", "scan")


def report(
    results: Path,
    *,
    out: Path | None,
    title: str | None,
    question: str,
    finemap: int,
    locus_gap: float,
    seed: int,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Write the report of each trait of a folder of results; returns where they are."""
    clock = Clock()
    about = _provenance(results)
    given: dict[str, Any] = about["parameters"]
    names = trait_names(given["formulas"])
    paths = _paths(results, names, out)
    for path in paths.values():
        refuse_existing(path, overwrite=overwrite)
    told = ["command", "inputs", "created_at"]
    shown = {f"results of {results}": {key: about[key] for key in told if key in about}}
    with _in_folder(given["folder"]), blas_threads(threads):
        for file, expected in about["inputs"].items():
            if not os.path.isfile(file):
                raise InputError(
                    f"{file}: no such file in {given['folder']}; the results of {results} were "
                    "made from it, and the report needs it again."
                )
            if sha256(file) != expected:
                raise InputError(
                    f"{file}: has changed since the results of {results} were made from it "
                    "(SHA-256 differs). Make them anew."
                )
        clock("input files are those of the results")
        table = read_phenotypes(given["pheno"], id=given["id"])
        kernel = None
        if given.get("kernel", True):
            kernel = make_kernel(
                None if given["grm"] or given["basis"] else given["genotypes"],
                given["grm"],
                None if given["basis"] is None else Path(given["basis"]),
                table,
                given["formulas"],
                given["missing"],
                given["scale"],
                given["maf"],
                given["max_missing"],
                clock,
            )
        genotypes = None if given["genotypes"] is None else read_genotypes(given["genotypes"])
    for name, formula in zip(names, given["formulas"], strict=True):
        data = table
        if kernel is None and genotypes is not None:
            data = table[table.index.isin(genotypes.samples.index)]
        model = LMM(
            formula,
            data,
            kernel,
            h2_prior=parse_prior(given.get("prior", "uniform"), given.get("spike", 0.0)),
            missing=given["missing"],
        )
        hits = _hits(results, name, formula, given)
        with blas_threads(threads):
            write_report(
                model,
                paths[name],
                genotypes=_tested(genotypes, hits),
                hits=hits,
                finemap=finemap,
                locus_gap=locus_gap,
                title=title,
                question=question,
                about=shown,
                seed=seed,
                overwrite=overwrite,
            )
        clock(f"{name}: report")
    return "\n".join(f"Report of {name}: {path}" for name, path in paths.items())


def _provenance(results: Path) -> dict[str, Any]:
    try:
        about = json.loads((results / PROVENANCE).read_text(encoding="utf-8"))
        given = about["parameters"]
        known = {"formulas", "pheno", "folder", "genotypes"} <= set(given) and "inputs" in about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{results}: no results of bayeslmm {' or '.join(_COMMANDS)} (no readable "
            f"{PROVENANCE})."
        ) from error
    if not known or not ("tests" in given or "draws" in given):
        raise InputError(
            f"{results}: a report is made of the results of bayeslmm {' or '.join(_COMMANDS)}, "
            "and these are of another command, or of an earlier version: make them anew."
        )
    return about


def _paths(results: Path, names: list[str], out: Path | None) -> dict[str, Path]:
    """Where each trait's report goes."""
    if len(names) == 1:
        return {names[0]: out or results / "report.html"}
    if out is not None:
        raise InputError(
            f"--out names one file, but there are {len(names)} traits, each with a report. Leave "
            f"it out: they go into {results}."
        )
    return {name: results / f"report_{name}.html" for name in names}


@contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    """Work where the results were made, so that relative paths mean the same."""
    before = os.getcwd()
    try:
        os.chdir(folder)
    except OSError:
        folder = before  # moved elsewhere: paths may hold from here
    try:
        yield
    finally:
        os.chdir(before)


def _hits(results: Path, name: str, formula: str, given: dict[str, Any]) -> pd.DataFrame | None:
    """The table of a scan, with what its file cannot hold."""
    if "tests" not in given:
        return None
    files = [results / f"scan_{name}{ending}" for ending in (".tsv.gz", ".parquet")]
    hits = read_scan(next((file for file in files if file.is_file()), files[0]))
    hits.attrs = {"formula": formula, "tests": given["tests"], "background": given["background"]}
    return hits


def _tested(genotypes: Genotypes | None, hits: pd.DataFrame | None) -> Genotypes | None:
    """Genotypes of the variants of the scan; none where there was no scan."""
    if genotypes is None or hits is None:
        return None
    return genotypes.select(variants=genotypes.variants.id.isin(hits.id).to_numpy())
