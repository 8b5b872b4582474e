"""What the command line's commands for two traits do, once their options are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bayeslmm.bivariate.model import BivariateLMM
from bayeslmm.commands.shared import (
    kernel_files,
    make_kernel,
    paragraph,
    parse_prior,
    require_one_source,
    sources,
    write_draws,
    write_summary,
)
from bayeslmm.errors import InputError
from bayeslmm.inputs.phenotypes import read_phenotypes
from bayeslmm.model.tables import interval
from bayeslmm.runs.progress import blas_threads
from bayeslmm.runs.results import PROVENANCE, Clock, result_folder, write_provenance, write_table

if TYPE_CHECKING:
    from bayeslmm.bivariate.genetic_correlation import RgReport


def rg(
    bfile: str | None,
    *,
    grm: str | None,
    basis: Path | None,
    pheno: Path,
    id: str | None,
    formulas: list[str],
    out: Path,
    samples: str,
    prior: str,
    rg_prior: float,
    re_prior: float,
    draws: int,
    seed: int | None,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    missing: str,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Genetic correlation of two traits, to a folder; returns the summary."""
    from bayeslmm import plots

    clock = Clock()
    require_one_source(bfile, grm, basis, scale, maf, max_missing)
    if len(formulas) != 2:
        raise InputError(f"{len(formulas)} times --formula: this command takes two traits.")
    h2_prior = parse_prior(prior, 0.0)
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        table = read_phenotypes(pheno, id=id)
        kernel = make_kernel(
            bfile, grm, basis, table, formulas, missing, scale, maf, max_missing, clock
        )
        model = BivariateLMM(
            formulas,
            table,
            kernel,
            samples=samples,  # type: ignore[arg-type]
            h2_prior=h2_prior,
            rg_prior=rg_prior,
            re_prior=re_prior,
            missing=missing,  # type: ignore[arg-type]
        )
        _ = model.data
        clock(f"decomposition for {len(model.ids):,} samples")
        report = model.rg(draws, seed=seed)
        clock("REML, tests, posterior")
        _write_tables(folder, model, report)
        write_draws(report.tree, folder / "posterior.zarr")
        plots.save(folder / "rg.png", plots.rg, report)
        plots.save(folder / "joint.png", plots.two_traits, report)
        clock("tables and plots")
        dropped = model.samples.reason[~model.samples.kept].value_counts()
        account = "".join(f", {count:,} left out ({reason})" for reason, count in dropped.items())
        lines = [line for text in str(report).split("\n") for line in _wrapped(text)]
        lines += paragraph(f"Priors: {report.tree.attrs['priors']}. {report.n:,} samples{account}.")
        summary = write_summary(folder, lines)
        parameters = {
            "analysis": "rg",
            **sources(bfile, grm, basis, pheno, id),
            "formulas": formulas,
            "samples": samples,
            "prior": prior,
            "rg_prior": rg_prior,
            "re_prior": re_prior,
            "priors": report.tree.attrs["priors"],
            "draws": draws,
            "seed": seed,
            "scale": scale,
            "maf": maf,
            "max_missing": max_missing,
            "missing": missing,
        }
        inputs = [str(pheno), *kernel_files(bfile, grm, basis)]
        write_provenance(folder / PROVENANCE, inputs, parameters, seconds=clock.seconds)
    clock(f"written to {out}")
    return summary


def _wrapped(text: str) -> list[str]:
    """A long line as a paragraph, with its indent; a row of a table as it is."""
    indent = text[: len(text) - len(text.lstrip())]
    return [text] if len(text) <= 92 else paragraph(text.strip(), indent)


def _write_tables(folder: Path, model: BivariateLMM, report: RgReport) -> None:
    """rg.tsv, tests.tsv, covariances.tsv, covariates.tsv, samples.tsv."""
    fit, posterior = report.fit, report.tree["posterior"].dataset
    one, two = report.traits
    reml = {"rg": (fit.rg, fit.rg_se), "re": (fit.re, fit.re_se)}
    reml |= {f"h2 of {trait}": (fit.h2[trait], fit.h2_se[trait]) for trait in report.traits}
    estimates = pd.DataFrame(reml, index=["reml", "reml_se"]).T
    table = report.table.join(estimates).rename(columns={"low": "hdi_low", "high": "hdi_high"})
    write_table(table, folder / "rg.tsv", index=True)
    assert fit.tests is not None
    write_table(fit.tests.rename_axis("null"), folder / "tests.tsv", index=True)
    rows = []
    for part, name, covariance, value, se in (
        ("genetic", "s2_g", "cov_g", fit.genetic, fit.genetic_se),
        ("residual", "s2_e", "cov_e", fit.residual, fit.residual_se),
    ):
        for i, j in ((0, 0), (0, 1), (1, 1)):
            draws = posterior[covariance] if i != j else posterior[name].isel(trait=i)
            values = draws.to_numpy()
            low, high = interval(values, report.prob)
            rows.append(
                {
                    "part": part,
                    "trait_1": (one, two)[i],
                    "trait_2": (one, two)[j],
                    "mean": values.mean(),
                    "sd": values.std(),
                    "hdi_low": low,
                    "hdi_high": high,
                    "reml": value.iloc[i, j],
                    "reml_se": se.iloc[i, j],
                }
            )
    write_table(pd.DataFrame(rows), folder / "covariances.tsv")
    b = fit.b.rename(columns={"estimate": "reml", "se": "reml_se"})
    b = b.assign(mean=posterior.b.mean(["chain", "draw"]), sd=posterior.b.std(["chain", "draw"]))
    write_table(b.reset_index(), folder / "covariates.tsv")
    write_table(model.samples, folder / "samples.tsv", index=True)
