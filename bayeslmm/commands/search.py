"""What `bayeslmm stepwise` and `bayeslmm threshold` do, once their options are read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from bayeslmm.commands.data import Data
from bayeslmm.commands.data import run as open_run
from bayeslmm.errors import InputError
from bayeslmm.genome.backgrounds import Background
from bayeslmm.genome.selection import stepwise as search
from bayeslmm.genome.thresholds import Threshold, significance_threshold
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.inputs.regions import parse_region
from bayeslmm.model.lmm import LMM
from bayeslmm.runs.results import (
    write_table,
)


def stepwise(
    data: Data,
    *,
    out: Path,
    test: Literal["wald", "lrt", "score", "p3d"],
    threshold: float | None,
    region: str | None,
    max_steps: int,
    background: Background,
    float64: bool,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Variants associated given each other, for each trait, to a folder; returns the summary."""
    if region is not None:
        parse_region(region)
    if background != "all" and (data.grm or data.basis):
        raise InputError(
            f"--background {background} needs the variants of the relatedness matrix: it is made "
            "from BFILE. Leave out --grm and --basis."
        )
    with open_run(data, out, overwrite=overwrite, threads=threads) as run:
        table = data.table()
        genotypes = data.cohort
        kernel = data.kernel(table, run.clock)
        lines: list[str] = []
        for name, formula in data.traits():
            model = LMM(formula, table, kernel, missing=data.missing)
            found = search(
                model,
                data.selected(genotypes, region=region, samples=model.ids),
                test=test,
                threshold=threshold,
                region=region,
                max_steps=max_steps,
                background=background,
                dtype="float64" if float64 else "float32",
                threads=threads,
            )
            run.clock(f"{name}: {len(found)} of {found.attrs['n_tested']:,} variants chosen")
            write_table(found, run.folder / f"stepwise_{name}.tsv")
            write_table(model.samples, run.folder / f"samples_{name}.tsv", index=True)
            lines += [*_stepwise_lines(name, found), ""]
        summary = run.finish(
            "stepwise",
            lines,
            test=test,
            threshold=threshold,
            region=region,
            max_steps=max_steps,
            background=background,
            dtype="float64" if float64 else "float32",
        )
    return summary


def threshold(
    data: Data,
    *,
    out: Path,
    alpha: float,
    replicates: int,
    method: Literal["simulate", "permute"],
    seed: int | None,
    region: str | None,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Significance that null phenotypes reach, for each trait, to a folder; returns the summary."""
    if region is not None:
        parse_region(region)
    with open_run(data, out, overwrite=overwrite, threads=threads) as run:
        table = data.table()
        genotypes: Genotypes = data.cohort
        kernel = data.kernel(table, run.clock)
        found: dict[str, Threshold] = {}
        for name, formula in data.traits():
            model = LMM(formula, table, kernel, missing=data.missing)
            found[name] = significance_threshold(
                model,
                data.selected(genotypes, region=region, samples=model.ids),
                alpha=alpha,
                replicates=replicates,
                method=method,
                seed=seed,
                threads=threads,
            )
            run.clock(f"{name}: {replicates:,} null phenotypes")
            smallest = pd.DataFrame({"min_p": found[name].min_p})
            write_table(smallest, run.folder / f"null_min_p_{name}.tsv")
            write_table(model.samples, run.folder / f"samples_{name}.tsv", index=True)
        rows = [
            {
                "trait": name,
                "p": one.p,
                "p_low": one.interval[0],
                "p_high": one.interval[1],
                "alpha": one.alpha,
                "effective_tests": one.effective_tests,
            }
            for name, one in found.items()
        ]
        write_table(pd.DataFrame(rows), run.folder / "threshold.tsv")
        where = "" if region is None else f", {region}"
        lines = [
            f"## Significance threshold of {name}{where}\n{one}" for name, one in found.items()
        ]
        summary = run.finish(
            "threshold",
            lines,
            alpha=alpha,
            replicates=replicates,
            method=method,
            seed=seed,
            region=region,
        )
    return summary


def _stepwise_lines(name: str, found: pd.DataFrame) -> list[str]:
    about = found.attrs
    where = f", {about['region']}" if about["region"] else ""
    lines = [
        f"## Stepwise search for {name}{where}: {len(found) or 'no'} variant"
        f"{'s' * (len(found) != 1)} with p <= {about['threshold']:.3g} given those before, of "
        f"{about['n_tested']:,} tested"
    ]
    for row in found.itertuples():
        lines.append(
            f"  {row.step}. {row.id} (chromosome {row.chrom}): each {row.ea} changes {name} by "
            f"{row.beta_joint:+.3g} (SE {row.se_joint:.2g}) given the others"
        )
        lines.append(
            f"     p = {row.p_marginal:.2g} alone, {row.p_conditional:.2g} when it was added, "
            f"{row.p_joint:.2g} given all others"
        )
    left = about["best_left"]
    best = f"; the best one left is {left['id']}, p = {left['p']:.2g}" if left["id"] else ""
    lines.append(f"Stopped: {about['stopped']}{best}.")
    return lines
