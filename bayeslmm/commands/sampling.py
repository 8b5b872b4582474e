"""The command `sample`: draws of the model, with the effects of selected SNPs."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm import priors
from bayeslmm.commands.data import Data
from bayeslmm.commands.data import run as open_run
from bayeslmm.commands.shared import (
    aligned,
    paragraph,
    parse_prior,
    percent,
    read_scan,
    warning_lines,
    write_draws,
)
from bayeslmm.errors import InputError
from bayeslmm.genome.loci import lead_variants
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.model import tables
from bayeslmm.model.heritability import h2_noun
from bayeslmm.model.lmm import LMM
from bayeslmm.runs.results import write_table

if TYPE_CHECKING:
    import xarray as xr

_LOCI_SHOWN, _SNPS_SHOWN = 10, 30


def sample(
    data: Data,
    *,
    out: Path,
    snps: list[str] | None,
    scan: Path | None,
    top: int | None,
    locus_gap: float,
    snp_prior: str | None,
    prior: str,
    draws: int,
    tune: int,
    chains: int,
    seed: int | None,
    target_accept: float | None,
    sampler: Literal["nutpie", "pymc"],
    u: bool,
    log_likelihood: bool,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Draws from the posterior of one trait's model, to a folder; returns the summary."""
    formula = data.formula
    with_snps = _check_snp_options(data.genotypes, snps, scan, top, snp_prior)
    other = data.grm is not None or data.basis is not None
    (replace(data, genotypes=None) if with_snps and other else data).require_one_source()
    if target_accept is not None and not 0 < target_accept < 1:
        raise InputError(f"--target-accept must be between 0 and 1, but is {target_accept:g}.")
    h2_prior, effects_prior = parse_prior(prior, 0.0), priors.as_snp_prior(snp_prior or "normal")
    with open_run(data, out, overwrite=overwrite, threads=threads) as run:
        table = data.table()
        hits = None if scan is None else read_scan(scan)
        genotypes = data.cohort if with_snps else None
        chosen = _chosen_snps(snps, hits, top, locus_gap)
        if genotypes is not None:
            genotypes = genotypes.select(variants=chosen)
        kernel = data.kernel(table, run.clock)
        model = LMM(formula, table, kernel, h2_prior=h2_prior, missing=data.missing)
        _ = model.rotated
        run.clock(f"decomposition for {len(model.y):,} samples")
        if snp_prior != "spike_slab":
            run.clock("NUTS: the model is compiled, which takes 10 to 20 s on a new machine")
        tree, told = sample_posterior(
            model,
            snps=chosen or None,
            genotypes=genotypes,
            snp_prior=effects_prior,
            draws=draws,
            tune=tune,
            chains=chains,
            seed=seed,
            target_accept=target_accept,
            sampler=sampler,
            u=u,
            log_likelihood=log_likelihood,
        )
        run.clock(f"{draws * chains:,} draws")
        _write_sampled(run.folder, model, tree, hits, genotypes)
        run.clock("tables and plots")
        summary = run.finish(
            "sample",
            _sampled_lines(model, tree, hits, told),
            inputs=[] if scan is None else [scan],
            about={"warnings": told},
            prior=prior,
            h2_prior=repr(h2_prior),
            snps=chosen,
            snp_prior=tree.attrs["snp_prior"],
            draws=draws,
            tune=tune,
            chains=chains,
            seed=tree.attrs["seed"],
            sampler=tree.attrs["sampler"],
            target_accept=tree.attrs.get("target_accept"),
        )
    return summary


def _check_snp_options(
    bfile: str | None,
    snps: list[str] | None,
    scan: Path | None,
    top: int | None,
    snp_prior: str | None,
) -> bool:
    """Whether SNPs are wanted; options that contradict each other are refused."""
    if snps and top is not None:
        raise InputError("Name SNPs by --snps or by --top, not both.")
    if top is not None and scan is None:
        raise InputError("--top takes the best SNPs of a scan: name its table with --scan.")
    wanted = bool(snps) or top is not None
    if scan is not None and not wanted:
        raise InputError("--scan needs --top N, to take its best SNPs, or --snps, to compare.")
    if snp_prior is not None and not wanted:
        raise InputError("--snp-prior is for SNPs: name them with --snps, or --scan and --top.")
    if wanted and bfile is None:
        raise InputError("The SNPs' genotypes are needed: give BFILE too.")
    return wanted


def _chosen_snps(
    snps: list[str] | None, hits: pd.DataFrame | None, top: int | None, gap: float
) -> list[str]:
    """Ids of the SNPs that were named, or that are the best of the scan's loci."""
    if hits is not None and top is not None:
        return [str(snp) for snp in hits["id"].iloc[lead_variants(hits, top, gap=gap)]]
    return [snp.strip() for part in snps or [] for snp in part.split(",") if snp.strip()]


def sample_posterior(model: LMM, **options: Any) -> tuple[xr.DataTree, list[str]]:
    """Draws by NUTS, and what there is to say against them, in words."""
    from bayeslmm.generative.sampling import SamplingWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SamplingWarning)
        tree = model.sample(**options)
    told = []
    for warning in caught:
        if issubclass(warning.category, SamplingWarning):
            text = str(warning.message).replace("lmm.posterior()", "bayeslmm h2")
            told.append(text.replace("target_accept", "--target-accept"))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return tree, told


def _write_sampled(
    folder: Path,
    model: LMM,
    tree: xr.DataTree,
    hits: pd.DataFrame | None,
    genotypes: Genotypes | None,
) -> None:
    """Draws, tables and plots of one trait's model."""
    from bayeslmm import plots

    write_draws(tree, folder / "posterior.zarr")
    write_table(model.samples, folder / "samples.tsv", index=True)
    table = tables.parameters(tree)
    write_table(_named_limits(table), folder / "parameters.tsv", index=True)
    posterior = tree["posterior"].dataset
    if "u" in posterior:
        draws = posterior["u"].to_numpy().reshape(-1, len(model.ids))
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        columns = {"u_mean": draws.mean(0), "u_sd": draws.std(0), "u_low": low, "u_high": high}
        effects = pd.DataFrame(columns, index=pd.Index(model.ids, name="id"))
        write_table(effects, folder / "random_effects.tsv", index=True)
    plots.save(folder / "h2.png", plots.h2, model, tree=tree)
    if genotypes is not None:
        write_snp_effects(folder, tree, hits, genotypes)


def write_snp_effects(
    folder: Path,
    tree: xr.DataTree,
    hits: pd.DataFrame | None,
    genotypes: Genotypes,
    *,
    suffix: str = "",
) -> None:
    """snp_effects.tsv and effects.png."""
    from bayeslmm import plots

    table = _named_limits(tables.snp_effects(tree, hits))
    where = genotypes.variants.drop_duplicates("id").set_index("id").loc[table["id"]]
    other = np.where(where["ea"] == table["ea"].to_numpy(), where["oa"], where["ea"])
    table.insert(0, "chrom", where["chrom"].to_numpy())
    table.insert(1, "pos", where["pos"].to_numpy())
    table.insert(4, "oa", other)
    write_table(table, folder / f"snp_effects{suffix}.tsv")
    plots.save(folder / f"effects{suffix}.png", plots.effects, tree, hits=hits)


def _named_limits(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"low": "hdi95_low", "high": "hdi95_high"})


def _sampled_lines(
    model: LMM, tree: xr.DataTree, hits: pd.DataFrame | None, told: list[str]
) -> list[str]:
    posterior = tree["posterior"].dataset
    name = model.formula.split("~")[0].strip()
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    h2 = posterior["h2"].to_numpy()
    low, high = tables.interval(h2)
    exact = model.h2_posterior()
    exact_low, exact_high = exact.hdi()
    has_snps = "beta" in posterior
    beside = " beside the SNPs below" if has_snps else ""
    lines = [
        f"## {name}: {chains * draws:,} draws from the posterior ({tree.attrs['sampler']})",
        *paragraph(
            f"{h2_noun(model.y)}{beside}: {percent(h2.mean())}; with 95% probability it is between "
            f"{percent(low)} and {percent(high)}."
        ),
        *paragraph(
            f"The exact posterior{' without SNPs' if has_snps else ''} says "
            f"{percent(exact.mean)}, {percent(exact_low)} to {percent(exact_high)}. Prior: "
            f"{model.h2_prior!r}. {len(model.y):,} samples.",
            "  ",
        ),
    ]
    if has_snps:
        lines += ["", *snp_lines(name, tree, hits)]
    if told:
        return lines + warning_lines(told)
    return [*lines, "", *paragraph(_trust(tree))]


def _trust(tree: xr.DataTree) -> str:
    """What speaks for the draws, if there is nothing against them."""
    table = tables.parameters(tree)
    effective = f"at least {table.ess_bulk.min():,.0f} effective draws"
    if "sample_stats" not in tree.children:
        return "The draws are independent: there are no chains to check."
    if tree["posterior"].sizes["chain"] == 1:
        return f"One chain only, {effective}: whether others would agree is not known."
    return (
        f"The chains agree: r-hat at most {table.rhat.max():.3f}, {effective}, no divergent "
        "transitions."
    )


def snp_lines(name: str, tree: xr.DataTree, hits: pd.DataFrame | None) -> list[str]:
    """Lines of the summary on the effects of selected SNPs."""
    table = tables.snp_effects(tree, hits)
    prior = tree.attrs["snp_prior"]
    rows = [["SNP", "allele", "scan (SE)", "posterior (sd)", "95% interval", "PIP"]]
    for snp in table.head(_SNPS_SHOWN).itertuples():
        scan = "-"
        if hits is not None and np.isfinite(snp.scan_beta):
            scan = f"{snp.scan_beta:+.3g} ({snp.scan_se:.2g})"
        mean = f"{_signed(snp.mean)} ({snp.sd:.2g})"
        limits = f"{_signed(snp.low)} to {_signed(snp.high)}"
        pip = f"{snp.pip:.3f}" if "pip" in table else ""
        rows.append([snp.id, snp.ea, scan, mean, limits, pip])
    # without a scan, and without spike and slab, a column is empty
    keep = [0, 1, *([2] if hits is not None else []), 3, 4, *([5] if "pip" in table else [])]
    k = len(table)
    lines = [
        f"## Effects of {k:,} SNP{'s' * (k > 1)} on {name}, estimated together, per allele",
        *aligned([[row[i] for i in keep] for row in rows]),
    ]
    if k > _SNPS_SHOWN:
        lines.append(f"  and {k - _SNPS_SHOWN:,} more")
    lines += paragraph(f"Prior: {prior}, in sd of the trait per sd of the genotype.", "  ")
    if hits is not None:
        scanned = table.dropna(subset=["scan_beta"])
        if len(scanned) and scanned.scan_beta.abs().sum() > 0:
            # along the scan's sign: an effect that turned round counts as shrunk
            kept = (np.sign(scanned.scan_beta) * scanned["mean"]).sum()
            change = kept / scanned.scan_beta.abs().sum() - 1
            direction = "smaller" if change < 0 else "larger"
            lines += paragraph(
                f"All in all {percent(abs(change))} {direction} than in the scan, which "
                "overestimates what it has chosen and counts what neighbours share for each.",
                "  ",
            )
    return lines


def _signed(value: float) -> str:
    return f"{value:+.3g}" if value else "0"
