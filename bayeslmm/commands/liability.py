"""What the liability command does: heritability and risks of a case/control trait, to a folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.binary.liability import LiabilityLMM
from bayeslmm.commands.data import Data
from bayeslmm.commands.data import run as open_run
from bayeslmm.commands.shared import (
    parse_prior,
    write_draws,
)
from bayeslmm.errors import InputError
from bayeslmm.model import tables
from bayeslmm.runs.results import (
    write_table,
)


def liability(
    data: Data,
    *,
    out: Path,
    prevalence: float | None,
    groups: str | None,
    prior: str,
    draws: int,
    chains: int,
    seed: int | None,
    overwrite: bool,
    threads: int | None,
) -> str:
    """The liability model of one trait, to a folder; returns the summary."""
    from bayeslmm import plots

    data.require_one_source()
    h2_prior = parse_prior(prior, 0.0)
    name, formula = data.names[0], data.formula
    with open_run(data, out, overwrite=overwrite, threads=threads) as run:
        table = data.table()
        if groups is not None and groups not in table:
            raise InputError(f"--groups {groups}: no such column in {data.pheno}.")
        kernel = data.kernel(table, run.clock)
        model = LiabilityLMM(
            formula,
            table,
            kernel,
            prevalence=prevalence,
            h2_prior=h2_prior,
            missing=data.missing,
        )
        _ = model.observed.rotated
        run.clock(f"{name}: {model.cases}; decomposition for {len(model.y):,} samples")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            tree = model.sample(draws=draws, chains=chains, seed=seed)
        run.clock(f"{name}: {chains} chains of {draws:,} draws")
        labels = None if groups is None else table[groups]
        scales = model.scales(tree, groups=labels)
        write_table(scales, run.folder / "h2.tsv", index=True)
        write_table(model.predict(tree), run.folder / f"risk_{name}.tsv", index=True)
        write_table(_covariates(tree), run.folder / "covariates.tsv", index=True)
        write_table(model.samples, run.folder / f"samples_{name}.tsv", index=True)
        plots.save(run.folder / f"h2_{name}.png", plots.liability_scales, scales)
        write_draws(tree, run.folder / f"posterior_{name}.zarr")
        lines = [*_lines(model, scales), *(f"! {w.message}" for w in told)]
        summary = run.finish(
            "liability",
            lines,
            prevalence=prevalence,
            groups=groups,
            prior=prior,
            h2_prior=repr(h2_prior),
            draws=draws,
            chains=chains,
            seed=tree.attrs["seed"],
        )
    return summary


def _covariates(tree: Any) -> pd.DataFrame:
    """Effects on the liability: mean, sd and the shortest 95% interval."""
    b = tree["posterior"]["b"]
    rows = {}
    for covariate in b.covariate.to_numpy():
        draws = np.ravel(b.sel(covariate=covariate))
        low, high = tables.interval(draws)
        rows[str(covariate)] = {"mean": draws.mean(), "sd": draws.std(), "low": low, "high": high}
    return pd.DataFrame(rows).T.rename_axis("covariate")


def _lines(model: LiabilityLMM, scales: pd.DataFrame) -> list[str]:
    lines = [
        f"## Heritability of the liability: {model.formula}",
        f"{model.cases}, {len(model.y):,} samples in all",
        "",
    ]
    for estimate, row in scales.iterrows():
        mark = "  <- advised" if row.advised else ""
        lines.append(
            f"{estimate:<12} {row['mean']:.3f} ({row.low:.3f} to {row.high:.3f})  {row.scale}{mark}"
        )
    return [*lines, ""]
