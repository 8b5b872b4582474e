"""What `bayeslmm report` does: the HTML report of results that another command left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bayeslmm.binary.liability import LiabilityLMM
from bayeslmm.bivariate.model import BivariateLMM
from bayeslmm.commands.data import Data
from bayeslmm.commands.partition import make_kernels, prior_of_shares
from bayeslmm.commands.shared import parse_prior, read_scan
from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.model.lmm import LMM
from bayeslmm.partition.model import PartitionedLMM
from bayeslmm.runs.files import refuse_existing, sha256, table_of
from bayeslmm.runs.progress import blas_threads
from bayeslmm.runs.results import PROVENANCE, Clock

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.genome.finemapping import FineMap

_COMMANDS = ("h2", "scan", "partition", "rg", "liability", "sample", "finemap", "predict")
_Models = dict[str, tuple[Any, dict[str, Any]]]  # by trait: a model, and options of its report


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
    analysis: str = given["analysis"]
    data = Data.of(given)
    names = ["_".join(data.names)] if analysis == "rg" else data.names
    paths = _paths(results, names, out)
    for path in paths.values():
        refuse_existing(path, overwrite=overwrite)
    told = ["command", "inputs", "created_at"]
    shown = {f"results of {results}": {key: about[key] for key in told if key in about}}
    page = {"title": title, "question": question, "about": shown, "seed": seed}
    with _in_folder(given["folder"]), blas_threads(threads):
        _require_unchanged(results, about["inputs"], given["folder"])
        clock("input files are those of the results")
        models = _MODELS[analysis](data, data.table(), given, clock)
    for name, (model, options) in models.items():
        options |= page | {"overwrite": overwrite}
        if isinstance(model, LMM):
            hits = _hits(results, name, about)
            if analysis == "sample":
                options["tree"] = _draws(results, analysis, name)
            if analysis == "finemap":
                options["located"] = _located(results, name, model, given)
            if analysis == "predict":
                options["predicted"] = _predicted(results, given)
            options |= {
                "genotypes": _tested(options["genotypes"], hits),
                "hits": hits,
                "scan": False,
                "finemap": finemap,
                "locus_gap": locus_gap,
            }
        else:
            options["tree"] = _draws(results, analysis, name)
        with blas_threads(threads):
            model.report(paths[name], **options)
        clock(f"{name}: report")
    return "\n".join(f"Report of {name}: {path}" for name, path in paths.items())


# -- the models of each command, from the files that the results were made of ------------------


def _univariate(data: Data, table: pd.DataFrame, given: dict[str, Any], clock: Clock) -> _Models:
    """Models of bayeslmm h2, scan, sample, finemap and predict."""
    kernel = data.kernel(table, clock) if given.get("kernel", True) else None
    h2_prior = parse_prior(given.get("prior", "uniform"), given.get("spike", 0.0))
    models: _Models = {}
    for name, formula in data.traits():
        known = data.genotyped(formula, table) if kernel is None else table
        model = LMM(formula, known, kernel, h2_prior=h2_prior, missing=data.missing)
        models[name] = model, {"genotypes": None if data.genotypes is None else data.cohort}
    return models


def _partitioned(data: Data, table: pd.DataFrame, given: dict[str, Any], clock: Clock) -> _Models:
    """Models of bayeslmm partition."""
    genotypes = data.selected(data.cohort)
    kernels = make_kernels(genotypes, table, given["by"], given["household"], data.scale, clock)
    prior = prior_of_shares(given["prior"])
    return {
        name: (
            PartitionedLMM(formula, table, kernels, prior=prior, missing=data.missing),
            {"genotypes": genotypes},
        )
        for name, formula in data.traits()
    }


def _two_traits(data: Data, table: pd.DataFrame, given: dict[str, Any], clock: Clock) -> _Models:
    """The model of bayeslmm rg."""
    model = BivariateLMM(
        data.formulas,
        table,
        data.kernel(table, clock),
        samples=given["samples"],
        h2_prior=parse_prior(given["prior"], 0.0),
        rg_prior=given["rg_prior"],
        re_prior=given["re_prior"],
        missing=data.missing,
    )
    return {"_".join(data.names): (model, {})}


def _liabilities(data: Data, table: pd.DataFrame, given: dict[str, Any], clock: Clock) -> _Models:
    """The model of bayeslmm liability."""
    model = LiabilityLMM(
        data.formula,
        table,
        data.kernel(table, clock),
        prevalence=given["prevalence"],
        h2_prior=parse_prior(given["prior"], 0.0),
        missing=data.missing,
    )
    groups = None if given["groups"] is None else table[given["groups"]]
    return {data.names[0]: (model, {"groups": groups})}


_MODELS: dict[str, Callable[[Data, pd.DataFrame, dict[str, Any], Clock], _Models]] = {
    "h2": _univariate,
    "scan": _univariate,
    "sample": _univariate,
    "finemap": _univariate,
    "predict": _univariate,
    "partition": _partitioned,
    "rg": _two_traits,
    "liability": _liabilities,
}


# -- what is in the folder ---------------------------------------------------------------------


def _require_unchanged(results: Path, inputs: dict[str, str], folder: str) -> None:
    for file, expected in inputs.items():
        if not os.path.isfile(file):
            raise InputError(
                f"{file}: no such file in {folder}; the results of {results} were made from it, "
                "and the report needs it again."
            )
        if sha256(file) != expected:
            raise InputError(
                f"{file}: has changed since the results of {results} were made from it (SHA-256 "
                "differs). Make them anew."
            )


def _draws(results: Path, analysis: str, name: str) -> xr.DataTree:
    """Draws that a command has written."""
    import xarray as xr

    alone = analysis in ("rg", "sample")
    path = results / ("posterior.zarr" if alone else f"posterior_{name}.zarr")
    if not path.is_dir():
        raise InputError(f"{path}: the draws are not there; make the results anew.")
    return xr.open_datatree(path, engine="zarr").load()


def _located(results: Path, name: str, model: LMM, given: dict[str, Any]) -> FineMap:
    """A region as the command fine-mapped it, from its tables."""
    from bayeslmm.genome.finemapping import FineMap

    texts = dict.fromkeys(("chrom", "id", "ea", "oa", "lead", "ids"), str)
    variants, sets = (
        table_of(
            results / f"{kind}_{name}.tsv",
            "a table of bayeslmm finemap",
            sep="\t",
            dtype=texts,
            keep_default_na=False,
            na_values=["NA"],
        )
        for kind in ("finemap", "credible_sets")
    )
    sets = sets.assign(ids=sets["ids"].str.split(",")).set_index("cs")
    attrs = {"formula": model.formula, "n": len(model.y)}
    attrs |= {key: given[key] for key in ("region", "coverage", "method")}
    return FineMap(variants, sets, pd.DataFrame(), pd.DataFrame(), attrs)


def _predicted(results: Path, given: dict[str, Any]) -> pd.DataFrame:
    """Predictions as the command wrote them."""
    predicted = table_of(
        results / "predictions.tsv",
        "a table of bayeslmm predict",
        sep="\t",
        dtype={"id": str},
        keep_default_na=False,
        na_values=["NA"],
    ).set_index("id")
    predicted.attrs = {"formula": given["formulas"][0]}
    predicted.attrs |= {key: given[key] for key in ("prob", "draws", "new")}
    return predicted


def _provenance(results: Path) -> dict[str, Any]:
    commands = listing([f"bayeslmm {command}" for command in _COMMANDS], len(_COMMANDS))
    try:
        about: dict[str, Any] = json.loads((results / PROVENANCE).read_text(encoding="utf-8"))
        given = about["parameters"]
        analysis = given.get("analysis")
        complete = "inputs" in about and ("prior" in given or analysis != "predict")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{results}: no results to report on (no readable {PROVENANCE}). Name the folder that "
            f"--out named in one of {commands}."
        ) from error
    if analysis not in _COMMANDS or not complete:
        raise InputError(
            f"{results}: a report is made of the results of {commands}; these are of "
            + (
                f"bayeslmm {analysis}, which has none: its summary and tables are all."
                if complete and analysis and analysis not in _COMMANDS
                else "another command, or of an earlier version: make them anew."
            )
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


def _hits(results: Path, name: str, about: dict[str, Any]) -> pd.DataFrame | None:
    """The table of a scan, with what its file cannot hold."""
    if about["parameters"]["analysis"] != "scan":
        return None
    files = [results / f"scan_{name}{ending}" for ending in (".tsv.gz", ".parquet")]
    hits = read_scan(next((file for file in files if file.is_file()), files[0]))
    hits.attrs = about["scans"][name]
    return hits


def _tested(genotypes: Genotypes | None, hits: pd.DataFrame | None) -> Genotypes | None:
    """Genotypes of the variants of the scan; none where there was no scan."""
    if genotypes is None or hits is None:
        return None
    return genotypes.select(variants=genotypes.variants.id.isin(hits.id).to_numpy())
