"""What the command line's commands for two traits do, once their options are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from bayeslmm.bivariate.model import BivariateLMM
from bayeslmm.commands.data import Data
from bayeslmm.commands.data import run as open_run
from bayeslmm.commands.shared import (
    left_out,
    paragraph,
    parse_prior,
    write_draws,
)
from bayeslmm.errors import InputError
from bayeslmm.model.tables import interval
from bayeslmm.runs.results import write_table

if TYPE_CHECKING:
    from bayeslmm.bivariate.genetic_correlation import RgReport


def rg(
    data: Data,
    *,
    out: Path,
    samples: Literal["common", "all"],
    prior: str,
    rg_prior: float,
    re_prior: float,
    draws: int,
    seed: int | None,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Genetic correlation of two traits, to a folder; returns the summary."""
    from bayeslmm import plots

    data.require_one_source()
    if len(data.formulas) != 2:
        raise InputError(f"{len(data.formulas)} times --formula: this command takes two traits.")
    h2_prior = parse_prior(prior, 0.0)
    with open_run(data, out, overwrite=overwrite, threads=threads) as run:
        table = data.table()
        kernel = data.kernel(table, run.clock)
        model = BivariateLMM(
            data.formulas,
            table,
            kernel,
            samples=samples,
            h2_prior=h2_prior,
            rg_prior=rg_prior,
            re_prior=re_prior,
            missing=data.missing,
        )
        _ = model.data
        run.clock(f"decomposition for {len(model.ids):,} samples")
        report = model.rg(draws, seed=seed)
        run.clock("REML, tests, posterior")
        _write_tables(run.folder, model, report)
        write_draws(report.tree, run.folder / "posterior.zarr")
        plots.save(run.folder / "rg.png", plots.rg, report)
        plots.save(run.folder / "joint.png", plots.two_traits, report)
        run.clock("tables and plots")
        dropped = model.samples.reason[~model.samples.kept].value_counts()
        account = left_out(dropped)
        lines = [line for text in str(report).split("\n") for line in _wrapped(text)]
        lines += paragraph(f"Priors: {report.tree.attrs['priors']}. {report.n:,} samples{account}.")
        summary = run.finish(
            "rg",
            lines,
            samples=samples,
            prior=prior,
            rg_prior=rg_prior,
            re_prior=re_prior,
            priors=report.tree.attrs["priors"],
            draws=draws,
            seed=seed,
        )
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
