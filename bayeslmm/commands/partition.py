"""What the partition command does: kernels by annotation, their shares and enrichment."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm import kernels, priors
from bayeslmm.bases.kernel import Kernel
from bayeslmm.commands.data import Data
from bayeslmm.commands.data import run as open_run
from bayeslmm.commands.shared import aligned, paragraph, write_draws
from bayeslmm.errors import InputError, listing
from bayeslmm.generative.sampling import SamplingWarning
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.inputs.phenotypes import relabel
from bayeslmm.model.tables import interval
from bayeslmm.partition.components import RESIDUAL
from bayeslmm.partition.model import IdentifiabilityWarning, PartitionedLMM
from bayeslmm.relatedness.scales import Scale
from bayeslmm.relatedness.variant_sets import ld_bins, maf_bins, partition_grms
from bayeslmm.runs.files import table_of
from bayeslmm.runs.results import (
    Clock,
    write_table,
)

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.partition.model import PartitionedFit

_SHARED = "household"


def partition(
    data: Data,
    *,
    by: str,
    household: str | None,
    out: Path,
    prior: Literal["uniform", "split"],
    draws: int,
    evaluations: int | None,
    seed: int | None,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Partitioned heritability of one or more traits, to a folder; returns the summary."""
    if draws < 1:
        raise InputError(f"--draws must be at least 1, but is {draws}.")
    share_prior = prior_of_shares(prior)
    with open_run(data, out, overwrite=overwrite, threads=threads) as run:
        table = data.table()
        genotypes = data.cohort
        for formula in data.formulas:
            data.require_samples(formula, table, genotypes)
        genotypes = data.selected(genotypes)
        kernel = make_kernels(genotypes, table, by, household, data.scale, run.clock)
        annotated = len(kernel) - (household is not None)
        lines: list[str] = []
        rows = []
        for name, formula in data.traits():
            model = PartitionedLMM(formula, table, kernel, prior=share_prior, missing=data.missing)
            told: list[str] = []
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", IdentifiabilityWarning)
                warnings.simplefilter("always", SamplingWarning)
                fit = model.reml()
                tests = model.lrt()
                run.clock(f"{name}: REML, {fit.iterations} iterations, and its tests")
                tree = model.posterior(draws, evaluations=evaluations, seed=seed)
            told = [str(warning.message) for warning in caught]
            attrs = tree.attrs
            run.clock(f"{name}: posterior by {attrs['method']}, {attrs['ess']:.0f} effective draws")
            rows.append(_components(name, model, fit, tests, tree))
            enriched = model.enrichment(tree) if annotated > 1 else None
            _write(run.folder, name, model, fit, tree, enriched)
            lines += _lines(name, model, rows[-1], tree, enriched)
            lines += [f"Warning: {text}" for text in told]
            lines.append("")
        write_table(pd.concat(rows, ignore_index=True), run.folder / "components.tsv")
        summary = run.finish(
            "partition",
            lines,
            inputs=[by] if Path(by).is_file() else [],
            by=by,
            household=household,
            prior=prior,
            draws=draws,
            evaluations=evaluations,
            seed=seed,
        )
    return summary


def prior_of_shares(prior: Literal["uniform", "split"]) -> str | priors.HeritabilitySplit:
    """What --prior means."""
    return "uniform" if prior == "uniform" else priors.HeritabilitySplit()


def make_kernels(
    genotypes: Genotypes,
    table: pd.DataFrame,
    by: str,
    household: str | None,
    scale: Scale | None,
    clock: Clock,
) -> dict[str, Kernel]:
    """The kernels that --by and --household name, in their order."""
    made = partition_grms(
        genotypes,
        _annotation(by, genotypes),
        scale=scale or "standardized",
    )
    clock(f"{len(made)} relatedness matrices of {len(made.annotations):,} variants")
    kernel: dict[str, Kernel] = dict(made)
    if household is not None:
        kernel[_SHARED] = _household(household, relabel(table, genotypes.samples.index), made)
    if len(kernel) < 2:
        raise InputError(f"--by {by} makes one kernel only: that is bayeslmm h2.")
    return kernel


def _annotation(by: str, genotypes: Genotypes) -> Any:
    """What --by means: bins, regions, a table of labels, or a column of the variants."""
    if by == "maf":
        return maf_bins(genotypes)
    if by == "ld":
        return ld_bins(genotypes)
    if by in genotypes.variants or by.removesuffix(".gz").endswith(".bed"):
        return by
    path = Path(by)
    if not path.exists():
        raise InputError(
            f"--by {by} is neither chrom, maf, ld, a .bed file of regions, nor a table of labels."
        )
    table = table_of(path, "a table of labels", sep=None, engine="python", dtype=str)
    if table.shape[1] != 2:
        raise InputError(
            f"{path}: expected two columns with a header, variant id and label, but there are "
            f"{table.shape[1]}."
        )
    return pd.Series(table.iloc[:, 1].to_numpy(), index=table.iloc[:, 0].to_numpy())


def _household(column: str, table: pd.DataFrame, made: Any) -> Kernel:
    if column not in table:
        raise InputError(
            f"--household {column}: no such column. There are {listing(table.columns, 20)}."
        )
    samples = next(iter(made.values())).samples
    return kernels.household(table[column].reindex(samples))


def _components(
    name: str,
    model: PartitionedLMM,
    fit: PartitionedFit,
    tests: pd.DataFrame,
    tree: xr.DataTree,
) -> pd.DataFrame:
    """One row for each kernel and the residual: posterior, REML, test."""
    posterior = tree["posterior"].dataset
    draws = posterior["h2_k"].to_numpy().reshape(-1, len(model.kernels))
    draws = np.column_stack([draws, 1 - draws.sum(axis=1)])
    limits = np.array([interval(column) for column in draws.T])
    table = fit.components
    components = [*model.kernels, RESIDUAL]
    return pd.DataFrame(
        {
            "trait": name,
            "component": components,
            "n": fit.n,
            "genetic": [*model.genetic, False],
            "h2_mean": draws.mean(axis=0),
            "h2_sd": draws.std(axis=0),
            "h2_hdi95_low": limits[:, 0],
            "h2_hdi95_high": limits[:, 1],
            "reml_h2": table.h2.to_numpy(),
            "reml_h2_se": table.h2_se.to_numpy(),
            "reml_s2": table.s2.to_numpy(),
            "reml_s2_se": table.s2_se.to_numpy(),
            "lrt": tests.lrt.reindex(components).to_numpy(),
            "p_lrt": tests.p.reindex(components).to_numpy(),
            "kappa": table.kappa.to_numpy(),
        }
    )


def _write(
    folder: Path,
    name: str,
    model: PartitionedLMM,
    fit: PartitionedFit,
    tree: xr.DataTree,
    enriched: pd.DataFrame | None,
) -> None:
    from bayeslmm import plots

    write_draws(tree, folder / f"posterior_{name}.zarr")
    write_table(model.samples, folder / f"samples_{name}.tsv", index=True)
    plots.save(folder / f"shares_{name}.png", plots.shares, tree, fit=fit)
    if enriched is not None:
        write_table(enriched, folder / f"enrichment_{name}.tsv", index=True)
        plots.save(folder / f"enrichment_{name}.png", plots.enrichment, enriched)


def _lines(
    name: str,
    model: PartitionedLMM,
    table: pd.DataFrame,
    tree: xr.DataTree,
    enriched: pd.DataFrame | None,
) -> list[str]:
    """What was found for a trait, in words and a table."""
    attrs = tree.attrs
    rows = [["", "share", "95% interval", "REML", "p (LRT)", "enrichment", "P(> 1)", "prior"]]
    for row in table.itertuples():
        known = enriched is not None and row.component in enriched.index
        found = enriched.loc[row.component] if enriched is not None and known else None
        rows.append(
            [
                str(row.component),
                f"{row.h2_mean:.3f}",
                f"{row.h2_hdi95_low:.3f} to {row.h2_hdi95_high:.3f}",
                f"{row.reml_h2:.3f}",
                "" if np.isnan(row.p_lrt) else f"{row.p_lrt:.1e}",
                "" if found is None else f"{found.enrichment:.2f}",
                "" if found is None else f"{found.p_enriched:.3f}",
                "" if found is None else f"{found.prior_p_enriched:.3f}",
            ]
        )
    h2 = tree["posterior"]["h2"].to_numpy()
    low, high = interval(h2)
    quality = f"{attrs['method']}, {attrs['ess']:.0f} effective draws" + (
        f", Pareto k {attrs['pareto_k']:.2f}" if "pareto_k" in attrs else ""
    )
    return [
        f"## Parts of the variance of {name}: {model.formula}, {len(model.y):,} samples",
        *aligned(rows),
        f"  h2 of the genetic parts together: {h2.mean():.3f} ({low:.3f} to {high:.3f}).",
        *paragraph(f"Shares ~ {attrs['share_prior']}; posterior by {quality}.", "  "),
    ]
