"""What the liability command does: heritability and risks of a case/control trait, to a folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.binary.liability import LiabilityLMM
from bayeslmm.commands.shared import (
    kernel_files,
    make_kernel,
    parse_prior,
    require_one_source,
    sources,
    write_draws,
)
from bayeslmm.errors import InputError
from bayeslmm.inputs.phenotypes import read_phenotypes
from bayeslmm.model import tables
from bayeslmm.runs.progress import blas_threads
from bayeslmm.runs.results import (
    PROVENANCE,
    Clock,
    result_folder,
    trait_names,
    write_provenance,
    write_table,
)


def liability(
    bfile: str | None,
    *,
    grm: str | None,
    basis: Path | None,
    pheno: Path,
    id: str | None,
    formula: str,
    out: Path,
    prevalence: float | None,
    groups: str | None,
    prior: str,
    draws: int,
    chains: int,
    seed: int | None,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    missing: str,
    overwrite: bool,
    threads: int | None,
) -> str:
    """The liability model of one trait, to a folder; returns the summary."""
    from bayeslmm import plots

    clock = Clock()
    require_one_source(bfile, grm, basis, scale, maf, max_missing)
    h2_prior = parse_prior(prior, 0.0)
    name = trait_names([formula])[0]
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        table = read_phenotypes(pheno, id=id)
        if groups is not None and groups not in table:
            raise InputError(f"--groups {groups}: no such column in {pheno}.")
        kernel = make_kernel(
            bfile, grm, basis, table, [formula], missing, scale, maf, max_missing, clock
        )
        model = LiabilityLMM(
            formula,
            table,
            kernel,
            prevalence=prevalence,
            h2_prior=h2_prior,
            missing=missing,  # type: ignore[arg-type]
        )
        _ = model.observed.rotated
        clock(f"{name}: {model.cases}; decomposition for {len(model.y):,} samples")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            tree = model.sample(draws=draws, chains=chains, seed=seed)
        clock(f"{name}: {chains} chains of {draws:,} draws")
        labels = None if groups is None else table[groups]
        scales = model.scales(tree, groups=labels)
        write_table(scales, folder / "h2.tsv", index=True)
        write_table(model.predict(tree), folder / f"risk_{name}.tsv", index=True)
        write_table(_covariates(tree), folder / "covariates.tsv", index=True)
        write_table(model.samples, folder / f"samples_{name}.tsv", index=True)
        plots.save(folder / f"h2_{name}.png", plots.liability_scales, scales)
        write_draws(tree, folder / f"posterior_{name}.zarr")
        lines = [*_lines(model, scales), *(f"! {w.message}" for w in told)]
        (folder / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        parameters = {
            "analysis": "liability",
            **sources(bfile, grm, basis, pheno, id),
            "formulas": [formula],
            "prevalence": prevalence,
            "groups": groups,
            "prior": prior,
            "h2_prior": repr(h2_prior),
            "draws": draws,
            "chains": chains,
            "seed": tree.attrs["seed"],
            "scale": scale,
            "maf": maf,
            "max_missing": max_missing,
            "missing": missing,
        }
        inputs = [str(pheno), *kernel_files(bfile, grm, basis)]
        write_provenance(folder / PROVENANCE, inputs, parameters, seconds=clock.seconds)
    clock(f"written to {out}")
    return "\n".join(lines)


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
    lines = [f"# {model.formula}", f"{model.cases}, {len(model.y):,} samples in all", ""]
    for estimate, row in scales.iterrows():
        mark = "  <- advised" if row.advised else ""
        lines.append(
            f"{estimate:<12} {row['mean']:.3f} ({row.low:.3f} to {row.high:.3f})  {row.scale}{mark}"
        )
    return [*lines, ""]
