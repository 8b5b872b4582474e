"""The command `h2`: heritability by REML and in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.commands.data import Data
from bayeslmm.commands.data import run as open_run
from bayeslmm.commands.shared import (
    left_out,
    paragraph,
    parse_prior,
    percent,
    write_draws,
)
from bayeslmm.errors import InputError
from bayeslmm.model.heritability import is_two_valued
from bayeslmm.model.lmm import LMM
from bayeslmm.runs.results import (
    write_table,
)


def h2(
    data: Data,
    *,
    out: Path,
    prior: str,
    spike: float,
    draws: int,
    seed: int | None,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Heritability of one or more traits, to a folder; returns the summary."""
    data.require_one_source()
    if draws < 0:
        raise InputError(f"--draws must not be negative, but is {draws}.")
    h2_prior = parse_prior(prior, spike)
    with open_run(data, out, overwrite=overwrite, threads=threads) as run:
        table = data.table()
        kernel = data.kernel(table, run.clock)
        models = {
            name: LMM(formula, table, kernel, h2_prior=h2_prior, missing=data.missing)
            for name, formula in data.traits()
        }
        for name, model in models.items():
            _ = model.rotated
            run.clock(f"{name}: decomposition for {len(model.y):,} samples")
        write_heritability(run.folder, models, draws=draws, seed=seed)
        run.clock("REML, exact posterior, plots")
        summary = run.finish(
            "h2",
            heritability_lines(models),
            h2_prior=repr(h2_prior),
            prior=prior,
            spike=spike,
            draws=draws,
            seed=seed,
        )
    return summary


def write_heritability(
    folder: Path, models: dict[str, LMM], *, draws: int, seed: int | None
) -> None:
    """h2.tsv and covariates.tsv of all traits; for each its samples, plot and draws."""
    from bayeslmm import plots

    rows, effects = [], []
    for name, model in models.items():
        fit, posterior = model.reml(), model.h2_posterior()
        low, high = posterior.hdi(0.95)
        row: dict[str, Any] = {
            "trait": name,
            "formula": model.formula,
            "n": fit.n,
            "h2_mean": posterior.mean,
            "h2_sd": posterior.sd,
            "h2_hdi95_low": low,
            "h2_hdi95_high": high,
            "p_h2_zero": posterior.mass_at_0 if model.h2_prior.spike else np.nan,
            "h2_prior": repr(model.h2_prior),
            "log_marginal_likelihood": posterior.log_integral,
            "reml_h2": fit.h2,
            "reml_h2_se": fit.h2_se,
            "reml_s2_g": fit.s2_g,
            "reml_s2_g_se": fit.s2_g_se,
            "reml_s2_e": fit.s2_e,
            "reml_s2_e_se": fit.s2_e_se,
            "kappa": fit.kappa,
            "reml_loglik": fit.loglik,
            "boundary": fit.boundary or np.nan,
        }
        rows.append(row)
        b = fit.b.rename(columns={"estimate": "reml", "se": "reml_se"})
        if draws:
            tree = model.posterior(draws, seed=seed)
            draws_of_b = tree["posterior"]["b"].to_numpy()[0]
            b = b.assign(mean=draws_of_b.mean(axis=0), sd=draws_of_b.std(axis=0))
            write_draws(tree, folder / f"posterior_{name}.zarr")
        effects.append(b.rename_axis("covariate").reset_index().assign(trait=name))
        write_table(model.samples, folder / f"samples_{name}.tsv", index=True)
        plots.save(folder / f"h2_{name}.png", plots.h2, model)
    write_table(pd.DataFrame(rows), folder / "h2.tsv")
    table = pd.concat(effects, ignore_index=True)
    write_table(table[["trait", *table.columns.drop("trait")]], folder / "covariates.tsv")


def heritability_lines(models: dict[str, LMM]) -> list[str]:
    """Lines of the summary on h2: a row for each trait and what it means."""
    lines = ["## Heritability: how much of the variation the genotypes explain"]
    for name, model in models.items():
        fit, posterior = model.reml(), model.h2_posterior()
        low, high = posterior.hdi(0.95)
        scale = ""
        if is_two_valued(model.y):
            scale = " on the observed scale, the numbers 0 and 1, which is no heritability"
        text = (
            f"{name}: {percent(posterior.mean)}{scale}; with 95% probability it is between "
            f"{percent(low)} and {percent(high)}."
        )
        if scale:
            text += " For that of the liability: bayeslmm liability."
        if model.h2_prior.spike:
            zero = posterior.mass_at_0
            zero_text = "below 0.0001" if zero < 1e-4 else f"{zero:.4f}"
            text += f" Probability that it is exactly 0: {zero_text}."
        lines += paragraph(text)
        se = f"no standard error ({fit.boundary})" if fit.boundary else f"SE {fit.h2_se:.3f}"
        account = model.samples.reason[~model.samples.kept].value_counts()
        dropped = left_out(account)
        lines += paragraph(
            f"REML says {fit.h2:.3f}, {se}. Prior: {model.h2_prior!r}. {fit.n:,} samples{dropped}.",
            "  ",
        )
    return lines
