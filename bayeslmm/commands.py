"""What the command line's commands do, once their options are read."""

from __future__ import annotations

import os
import re
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm import commands_binary, datasets, pairs, priors, tables
from bayeslmm.association import BACKGROUNDS, FAMILIES, TESTS, lambda_gc
from bayeslmm.association import scan as scan_variants
from bayeslmm.basis import Basis, load_eigenbasis
from bayeslmm.codings import CODINGS
from bayeslmm.errors import InputError
from bayeslmm.files import existing, table_of, text_of
from bayeslmm.genotype_files import locate
from bayeslmm.genotypes import Genotypes, read_genotypes
from bayeslmm.lmm import LMM
from bayeslmm.loci import find_loci, lead_variants, parse_region, require_columns
from bayeslmm.phenotypes import design_from_formula, read_phenotypes, relabel, without_pcs
from bayeslmm.progress import blas_threads
from bayeslmm.relatedness import GRM, Relatedness, read_grm, write_gemma, write_grm
from bayeslmm.relatedness import grm as make_grm
from bayeslmm.results import (
    PROVENANCE,
    Clock,
    prepare_replacement,
    result_files,
    result_folder,
    trait_names,
    unfinished,
    write_provenance,
    write_table,
)
from bayeslmm.snps import selected_snps
from bayeslmm.sparse_relatedness import read_sparse_grm

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.checkpoints import Checkpoint
    from bayeslmm.finemapping import FineMap

_BASIS = "basis.json"
_LOCI_SHOWN, _SNPS_SHOWN = 10, 30
_SAMPLERS = ("nutpie", "pymc")
_TESTS, _EFFECT_SD = "wald,bayes", "0.05,0.1,0.2,0.4"
_DEMO_SNPS = 6
_SCAN_COLUMNS = ["id", "chrom", "pos", "ea", "oa", "beta", "se", "neg_log10_p"]


# -- the commands ----------------------------------------------------------------------------


def demo(*, out: Path, overwrite: bool, threads: int | None, show: Callable[[str], Any]) -> None:
    """Run everything on the embedded mice; what was found is shown as soon as it is known."""
    clock = Clock()
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        mice = datasets.mouse_hs1940()
        n, m = mice.genotypes.shape
        clock(f"{n:,} mice, {m:,} SNPs and the traits cd8 and mch, from the package")
        kernel = make_grm(mice.genotypes)
        clock(f"relatedness of every pair of mice, from {kernel.n_variants:,} SNPs")
        models = {name: LMM(f"{name} ~ sex", mice.phenotypes, kernel) for name in ("cd8", "mch")}
        for name, model in models.items():
            _ = model.rotated
            clock(f"{name}: decomposition for {len(model.y):,} mice")
        _write_heritability(folder, models, draws=0, seed=None)
        clock("heritability: REML and the exact posterior")
        hits = scan_variants(models["cd8"], mice.genotypes, threads=threads)
        clock("genome scan of cd8")
        _write_scan(folder, "cd8", models["cd8"], hits, mice.genotypes)
        clock("plots")
        exact = [
            "# Is it in the genes? Two blood traits of 1,940 mice",
            "",
            *paragraph(
                "cd8 is the proportion of CD8+ T cells, mch the mean haemoglobin of a red cell. "
                "Both are adjusted for sex. (Valdar et al. 2006, Nature Genetics 38:879)"
            ),
            "",
            *_heritability_lines(models),
            "",
            *_scan_lines("cd8", models["cd8"], hits),
        ]
        show("\n" + "\n".join(exact) + "\n")
        sampled = _demo_sampling(folder, models, hits, mice.genotypes, clock)
        sampled += [
            "",
            "## Next",
            f"Pictures    {out}: manhattan_cd8.png, qq_cd8.png, h2_cd8.png, h2_mch.png,",
            "            effects_cd8.png",
            f"All SNPs    {out / 'scan_cd8.tsv.gz'}",
            "Your turn   bayeslmm demo --files mice   (the mice as files, and what to try on them)",
        ]
        write_summary(folder, [*exact, "", *sampled])
        parameters = {"formulas": [model.formula for model in models.values()]}
        write_provenance(
            folder / PROVENANCE, [], parameters, data=datasets.SHA256, seconds=clock.seconds
        )
    clock(f"written to {out}")
    show("\n".join(sampled))


def _demo_sampling(
    folder: Path, models: dict[str, LMM], hits: pd.DataFrame, genotypes: Genotypes, clock: Clock
) -> list[str]:
    """NUTS beside the exact posterior, and the joint effects of the scan's best SNPs."""
    clock("NUTS: the generative model is compiled, which takes 10 to 20 s on a new machine")
    told: list[str] = []
    rows = [["", "exact: mean", "sd", "95% interval", "NUTS: mean", "sd", "95% interval"]]
    for name, model in models.items():
        tree, problems = _sample(model, seed=1, log_likelihood=False)
        clock(f"{name}: 4 chains of 1,000 draws by NUTS")
        told += problems
        posterior = model.h2_posterior()
        draws = np.ravel(tree["posterior"]["h2"])
        cells = [name]
        for mean, sd, (low, high) in (
            (posterior.mean, posterior.sd, posterior.hdi()),
            (draws.mean(), draws.std(), tables.interval(draws)),
        ):
            cells += [f"{mean:.3f}", f"{sd:.3f}", f"{low:.3f} to {high:.3f}"]
        rows.append(cells)
    leads = hits.iloc[lead_variants(hits, _DEMO_SNPS)]
    tree, problems = _sample(models["cd8"], snps=leads.id, seed=1, log_likelihood=False)
    clock(f"cd8: effects of {len(leads)} SNPs together")
    told += problems
    _write_snp_effects(folder, tree, hits, genotypes, suffix="_cd8")
    return [
        "## The same heritability by NUTS, from 4 chains of 1,000 draws of the PyMC model",
        *_aligned(rows),
        *paragraph(
            "The exact posterior is integrated and has no sampling error; NUTS takes any prior "
            "and any change of the model."
        ),
        "",
        *_snp_lines("cd8", tree, hits),
        *_warning_lines(told),
    ]


def demo_files(folder: Path, *, overwrite: bool) -> str:
    """Write the mice as files; returns what to do with them."""
    prefix = datasets.write_mouse_hs1940(folder, overwrite=overwrite)
    pheno = f"{prefix}.pheno.tsv"
    return "\n".join(
        [
            f"The mice are in {prefix}.bed, .bim and .fam, their traits in {pheno}. Try:",
            "",
            f'  bayeslmm h2 {prefix} --pheno {pheno} --formula "cd8 ~ sex" --out h2_cd8',
            f'  bayeslmm scan {prefix} --pheno {pheno} --formula "mch ~ sex" --out scan_mch',
            "",
            "and, where the relatedness is to be computed only once:",
            "",
            f"  bayeslmm grm {prefix} --out mice",
            "  bayeslmm eigen mice --out mice.basis",
            f'  bayeslmm h2 --basis mice.basis --pheno {pheno} --formula "mch ~ sex" --out h2_mch',
        ]
    )


def grm(
    bfile: str,
    *,
    out: str,
    scale: str,
    maf: float | None,
    max_missing: float | None,
    chrom: list[str] | None,
    gemma: bool,
    overwrite: bool,
    restart: bool,
    threads: int | None,
) -> str:
    """Write a relatedness matrix with its provenance; returns a summary."""
    clock = Clock()
    matrices = (
        [".cXX.txt" if scale == "centered" else ".sXX.txt", ".samples.txt"]
        if gemma
        else [".grm.bin", ".grm.N.bin", ".grm.id"]
    )
    endings = [*matrices, ".json", ".excluded.tsv"]
    with (
        unfinished(out, restart=restart) as kept,
        result_files(out, endings, overwrite=overwrite) as aside,
        blas_threads(threads),
    ):
        genotypes = selected(read_genotypes(bfile), maf, max_missing, chrom)
        clock(repr(genotypes))
        kernel = make_grm(genotypes, scale=scale, kept=kept)  # type: ignore[arg-type]
        clock(repr(kernel))
        if gemma:
            write_gemma(kernel, f"{aside}{matrices[0]}")
            Path(f"{aside}.samples.txt").write_text("".join(f"{i}\n" for i in kernel.samples))
        else:
            write_grm(kernel, aside)
        write_table(genotypes.excluded, Path(f"{aside}.excluded.tsv"))
        parameters = {"scale": scale, "maf": maf, "max_missing": max_missing, "chrom": chrom}
        write_provenance(
            Path(f"{aside}.json"),
            genotype_files(bfile),
            parameters,
            grm=kernel.info | {"n_variants": kernel.n_variants, "n_samples": len(kernel.samples)},
            seconds=clock.seconds,
        )
    clock(f"written to {out}{matrices[0]} and beside it")
    excluded = len(genotypes.excluded)
    return "\n".join(
        [
            f"{out}: relatedness of {len(kernel.samples):,} samples from {kernel.n_variants:,} "
            f"variants ({scale}).",
            f"{excluded:,} variants filtered out (listed in {out}.excluded.tsv), "
            f"{kernel.info['n_monomorphic']:,} monomorphic left out.",
        ]
    )


def eigen(
    source: str, *, out: Path, keep: Path | None, overwrite: bool, threads: int | None
) -> str:
    """Decompose a relatedness matrix and save the basis; returns a summary."""
    clock = Clock()
    replace = prepare_replacement(out, overwrite=overwrite, marker=_BASIS)
    kernel = _read_grm(source)
    clock(repr(kernel))
    samples = None if keep is None else _read_ids(keep, kernel)
    with blas_threads(threads):
        basis = kernel.eigenbasis(samples)
    clock(repr(basis))
    basis.save(out, overwrite=replace)
    clock(f"written to {out}")
    return (
        f"{out}: eigenbasis of {basis.n:,} samples. Use it as --basis {out} in bayeslmm h2, "
        "scan, sample and predict."
    )


def h2(
    bfile: str | None,
    *,
    grm: str | None,
    basis: Path | None,
    pheno: Path,
    id: str | None,
    formulas: list[str],
    out: Path,
    prior: str,
    spike: float,
    draws: int,
    seed: int | None,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    missing: str,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Heritability of one or more traits, to a folder; returns the summary."""
    clock = Clock()
    require_one_source(bfile, grm, basis, scale, maf, max_missing)
    if draws < 0:
        raise InputError(f"--draws must not be negative, but is {draws}.")
    h2_prior = parse_prior(prior, spike)
    names = trait_names(formulas)
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        table = read_phenotypes(pheno, id=id)
        kernel = make_kernel(
            bfile, grm, basis, table, formulas, missing, scale, maf, max_missing, clock
        )
        models = {
            name: LMM(formula, table, kernel, h2_prior=h2_prior, missing=missing)  # type: ignore[arg-type]
            for name, formula in zip(names, formulas, strict=True)
        }
        for name, model in models.items():
            _ = model.rotated
            clock(f"{name}: decomposition for {len(model.y):,} samples")
        _write_heritability(folder, models, draws=draws, seed=seed)
        clock("REML, exact posterior, plots")
        summary = write_summary(folder, _heritability_lines(models))
        parameters = {
            **sources(bfile, grm, basis, pheno, id),
            "formulas": formulas,
            "h2_prior": repr(h2_prior),
            "prior": prior,
            "spike": spike,
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


def _numbers(option: str, text: str) -> list[float]:
    """Numbers with commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: expected numbers with commas between them.") from None


def _linear_tests(text: str | None) -> tuple[str, ...]:
    """Tests of a linear scan named on the command line."""
    chosen = tuple(test.strip() for test in (text or _TESTS).split(",") if test.strip())
    unknown = [test for test in chosen if test not in TESTS]
    if unknown or not chosen:
        raise InputError(f"--test {text}: expected one or more of {','.join(TESTS)}.")
    if chosen == ("bayes",):
        raise InputError("--test bayes: name a test with a p-value beside it, such as wald,bayes.")
    return chosen


def scan(
    bfile: str,
    *,
    grm: str | None,
    basis: Path | None,
    no_kernel: bool,
    background: str,
    pheno: Path,
    id: str | None,
    formulas: list[str],
    out: Path,
    family: str,
    tests: str | None,
    effect_sd: str | None,
    prior_odds: float | None,
    chrom: list[str] | None,
    region: str | None,
    condition_on: str | None,
    coding: str,
    interaction: str | None,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    missing: str,
    float64: bool,
    parquet: bool,
    locus_gap: float,
    overwrite: bool,
    restart: bool,
    threads: int | None,
) -> str:
    """Test every variant for one or more traits, to a folder; returns the summary."""
    clock = Clock()
    if family not in FAMILIES:
        raise InputError(f"--family {family}: expected one of {', '.join(FAMILIES)}.")
    binary = family == "binomial"
    chosen: tuple[str, ...] | None
    if binary:
        chosen = commands_binary.tests_of(
            tests,
            with_kernel=not no_kernel,
            background=background != "all",
            interaction=interaction is not None,
            effect_sd=effect_sd is not None,
            prior_odds=prior_odds is not None,
        )
    else:
        chosen = _linear_tests(tests)
    if coding not in CODINGS:
        raise InputError(f"--coding {coding}: expected one of {','.join(CODINGS)}.")
    if chosen is not None and (interaction is not None or coding == "genotypic"):
        pairs.check(chosen, coding, prior_odds, with_interaction=interaction is not None)
    if region is not None:
        parse_region(region)
    widths = None if binary else _numbers("--effect-sd", effect_sd or _EFFECT_SD)
    if sum([grm is not None, basis is not None, no_kernel]) > 1:
        raise InputError("Name one of --grm, --basis and --no-kernel, not several.")
    if background not in BACKGROUNDS:
        raise InputError(f"--background {background}: expected one of {', '.join(BACKGROUNDS)}.")
    if background != "all" and (grm or basis or no_kernel):
        raise InputError(
            f"--background {background} needs the variants of the relatedness matrix: it is made "
            "from BFILE. Leave out --grm, --basis and --no-kernel."
        )
    if scale is not None and (grm or basis or no_kernel):
        raise InputError("--scale makes a relatedness matrix from BFILE; another one was named.")
    if parquet:
        _require_pyarrow()
    names = trait_names(formulas)
    with (
        unfinished(out, restart=restart) as kept,
        result_folder(out, overwrite=overwrite) as folder,
        blas_threads(threads),
    ):
        table = read_phenotypes(pheno, id=id)
        genotypes = read_genotypes(bfile)
        clock(repr(genotypes))
        kernel: Relatedness | Basis | None = None
        if not no_kernel:
            source = None if grm or basis else bfile
            kernel = make_kernel(
                source, grm, basis, table, formulas, missing, scale, maf, max_missing, clock, kept
            )
        lines: list[str] = []
        for name, formula in zip(names, formulas, strict=True):
            data = table
            if kernel is None:
                # Without kernel nothing else says who has genotypes.
                data = table[table.index.isin(genotypes.samples.index)]
                if not len(data):
                    design_from_formula(
                        without_pcs(formula), table, genotypes.samples.index, missing=missing
                    )
            model = LMM(formula, data, kernel, missing=missing)  # type: ignore[arg-type]
            tested = selected(genotypes, maf, max_missing, chrom, region, samples=model.ids)
            conditions = None
            if condition_on is not None:
                # Looked up among all variants: they may be elsewhere, or filtered out.
                wanted = [part.strip() for part in condition_on.split(",") if part.strip()]
                conditions = selected_snps(model, wanted, genotypes).dosages(model.ids)
            hits = scan_variants(
                model,
                tested,
                chosen,
                family=family,  # type: ignore[arg-type]
                background=background,  # type: ignore[arg-type]
                condition_on=conditions,
                coding=coding,  # type: ignore[arg-type]
                interaction=interaction,
                effect_prior=widths,
                prior_odds=prior_odds,
                dtype="float64" if float64 else "float32",
                threads=threads,
                kept=kept.part_of_work(name),
            )
            clock(f"{name}: {len(hits):,} variants tested in {len(model.y):,} samples")
            _write_scan(folder, name, model, hits, tested, parquet=parquet, gap=locus_gap)
            lines += [*_scan_lines(name, model, hits, gap=locus_gap), ""]
        clock("plots and tables")
        summary = write_summary(folder, lines[:-1])
        parameters = {
            **sources(bfile, grm, basis, pheno, id),
            "formulas": formulas,
            "family": family,
            "tests": None if chosen is None else list(chosen),
            "effect_sd": widths,
            "prior_odds": prior_odds,
            "kernel": not no_kernel,
            "background": background,
            "chrom": chrom,
            "region": region,
            "condition_on": condition_on,
            "coding": coding,
            "interaction": interaction,
            "scale": scale,
            "maf": maf,
            "max_missing": max_missing,
            "missing": missing,
            "dtype": "float64" if float64 else "float32",
        }
        inputs = [str(pheno), *genotype_files(bfile), *kernel_files(None, grm, basis)]
        write_provenance(folder / PROVENANCE, inputs, parameters, seconds=clock.seconds)
    clock(f"written to {out}")
    return summary


def finemap(
    bfile: str,
    *,
    grm: str | None,
    basis: Path | None,
    pheno: Path,
    id: str | None,
    formulas: list[str],
    out: Path,
    region: str,
    method: str,
    max_effects: int,
    expected_effects: float,
    coverage: float,
    seed: int | None,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    missing: str,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Credible sets of causal variants in a region, to a folder; returns the summary."""
    from bayeslmm import plots
    from bayeslmm.finemapping import finemap as map_region

    clock = Clock()
    parse_region(region)
    names = trait_names(formulas)
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        table = read_phenotypes(pheno, id=id)
        genotypes = read_genotypes(bfile)
        source = None if grm or basis else bfile
        kernel = make_kernel(
            source, grm, basis, table, formulas, missing, scale, maf, max_missing, clock
        )
        lines: list[str] = []
        for name, formula in zip(names, formulas, strict=True):
            model = LMM(formula, table, kernel, missing=missing)  # type: ignore[arg-type]
            tested = selected(genotypes, maf, max_missing, None, region, samples=model.ids)
            found = map_region(
                model,
                tested,
                region=region,
                method=method,  # type: ignore[arg-type]
                max_effects=max_effects,
                expected_effects=expected_effects,
                coverage=coverage,
                seed=seed,
            )
            clock(f"{name}: {len(found.variants):,} variants, {len(found.credible_sets)} sets")
            write_table(found.variants, folder / f"finemap_{name}.tsv")
            sets = found.credible_sets.assign(ids=found.credible_sets["ids"].map(",".join))
            write_table(sets, folder / f"credible_sets_{name}.tsv", index=True)
            write_table(model.samples, folder / f"samples_{name}.tsv", index=True)
            plots.save(folder / f"finemap_{name}.png", plots.fine_mapping, found)
            lines += [*_finemap_lines(name, found), ""]
        summary = write_summary(folder, lines[:-1])
        parameters = {
            "formulas": formulas,
            "region": region,
            "method": method,
            "max_effects": max_effects,
            "expected_effects": expected_effects,
            "coverage": coverage,
            "seed": found.attrs["seed"],
            "scale": scale,
            "maf": maf,
            "max_missing": max_missing,
            "missing": missing,
        }
        inputs = [str(pheno), *genotype_files(bfile), *kernel_files(None, grm, basis)]
        write_provenance(folder / PROVENANCE, inputs, parameters, seconds=clock.seconds)
    clock(f"written to {out}")
    return summary


def _finemap_lines(name: str, found: FineMap) -> list[str]:
    sets = found.credible_sets
    many = f"{len(sets) or 'no'} credible set{'s' * (len(sets) > 1)}"
    lines = [
        f"## Fine-mapping of {name}, {found.attrs['region']}: {many} among "
        f"{len(found.variants):,} variants",
        f"{found.expected_effects:.1f} variants with an effect are expected.",
    ]
    for row in sets.itertuples():
        lead = found.variants.set_index("id").loc[row.lead]
        lines.append(
            f"  set {row.Index}: {row.size} variant{'s' * (row.size > 1)}, best {row.lead} (PIP "
            f"{lead.pip:.2f}), log10 Bayes factor {row.log10_bf:.1f}, smallest |r| {row.purity:.2f}"
        )
        lines.append(
            f"    each {lead.ea} changes {name} by {lead.beta:+.3g} (posterior sd {lead.sd:.2g})"
        )
    if not len(sets):
        lines.append("No group of variants in disequilibrium holds an effect for sure.")
    return lines


def sample(
    bfile: str | None,
    *,
    grm: str | None,
    basis: Path | None,
    pheno: Path,
    id: str | None,
    formulas: list[str],
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
    sampler: str,
    u: bool,
    log_likelihood: bool,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    missing: str,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Draws from the posterior of one trait's model, to a folder; returns the summary."""
    clock = Clock()
    formula = _one_formula(formulas)
    with_snps = _check_snp_options(bfile, snps, scan, top, snp_prior)
    if with_snps and (grm or basis):
        require_one_source(None, grm, basis, scale, maf, max_missing)
    else:
        require_one_source(bfile, grm, basis, scale, maf, max_missing)
    if target_accept is not None and not 0 < target_accept < 1:
        raise InputError(f"--target-accept must be between 0 and 1, but is {target_accept:g}.")
    if sampler not in _SAMPLERS:
        raise InputError(f"--sampler {sampler}: expected one of {', '.join(_SAMPLERS)}.")
    h2_prior, effects_prior = parse_prior(prior, 0.0), priors.as_snp_prior(snp_prior or "normal")
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        table = read_phenotypes(pheno, id=id)
        hits = None if scan is None else read_scan(scan)
        genotypes = read_genotypes(bfile) if bfile is not None and with_snps else None
        chosen = _chosen_snps(snps, hits, top, locus_gap)
        if genotypes is not None:
            genotypes = genotypes.select(variants=chosen)
        source = None if grm or basis else bfile
        kernel = make_kernel(
            source, grm, basis, table, [formula], missing, scale, maf, max_missing, clock
        )
        model = LMM(formula, table, kernel, h2_prior=h2_prior, missing=missing)  # type: ignore[arg-type]
        _ = model.rotated
        clock(f"decomposition for {len(model.y):,} samples")
        if snp_prior != "spike_slab":
            clock("NUTS: the model is compiled, which takes 10 to 20 s on a new machine")
        tree, told = _sample(
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
        clock(f"{draws * chains:,} draws")
        _write_sampled(folder, model, tree, hits, genotypes)
        clock("tables and plots")
        summary = write_summary(folder, _sampled_lines(model, tree, hits, told))
        parameters = {
            "formula": formula,
            "h2_prior": repr(h2_prior),
            "snps": chosen,
            "snp_prior": tree.attrs["snp_prior"],
            "draws": draws,
            "tune": tune,
            "chains": chains,
            "seed": tree.attrs["seed"],
            "sampler": tree.attrs["sampler"],
            "target_accept": tree.attrs.get("target_accept"),
            "scale": scale,
            "maf": maf,
            "max_missing": max_missing,
            "missing": missing,
        }
        inputs = [str(pheno), *([str(scan)] if scan else [])]
        inputs += genotype_files(bfile) if bfile else []
        inputs += kernel_files(None, grm, basis)
        write_provenance(
            folder / PROVENANCE, inputs, parameters, warnings=told, seconds=clock.seconds
        )
    clock(f"written to {out}")
    return summary


def predict(
    bfile: str | None,
    *,
    grm: str | None,
    basis: Path | None,
    pheno: Path,
    id: str | None,
    formulas: list[str],
    out: Path,
    new: str | None,
    new_pheno: Path | None,
    samples: Path | None,
    snp_effects: bool,
    prior: str,
    draws: int,
    prob: float,
    seed: int | None,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    missing: str,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Predict the phenotypes of other samples, to a folder; returns the summary."""
    clock = Clock()
    formula = _one_formula(formulas)
    require_one_source(bfile, grm, basis, scale, maf, max_missing)
    if new is not None and samples is not None:
        raise InputError("Name the samples to predict by --new or by --samples, not both.")
    if bfile is None and (new is not None or snp_effects):
        raise InputError(
            "--new and --snp-effects need the genotypes that the relatedness is made of: give "
            "BFILE instead of --grm or --basis."
        )
    if not 0 < prob < 1:
        raise InputError(f"--prob must be between 0 and 1, but is {prob:g}.")
    h2_prior = parse_prior(prior, 0.0)
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        table = read_phenotypes(pheno, id=id)
        others = None if new_pheno is None else read_phenotypes(new_pheno, id=id)
        genotypes = None if new is None else read_genotypes(new)
        kernel = make_kernel(
            bfile, grm, basis, table, [formula], missing, scale, maf, max_missing, clock
        )
        model = LMM(formula, table, kernel, h2_prior=h2_prior, missing=missing)  # type: ignore[arg-type]
        _ = model.rotated
        clock(f"decomposition for {len(model.y):,} samples")
        tree = model.posterior(draws, seed=seed)
        ids = None
        if genotypes is None:
            others = table if others is None else others
            ids = _samples_to_predict(model, kernel, samples)
        elif others is None and list(model.C.columns) != ["Intercept"]:
            raise InputError(
                f"The model has covariates ({', '.join(model.C.columns)}): name a table with those "
                "of the new samples, --new-pheno."
            )
        predicted_ids = genotypes.samples.index if genotypes is not None else ids
        if others is not None and predicted_ids is not None:
            others = relabel(others, predicted_ids)
        predictions = model.predict(
            genotypes, others, tree, samples=ids, prob=prob, seed=int(tree.attrs["seed"])
        )
        clock(f"{len(predictions):,} samples predicted")
        write_table(predictions, folder / "predictions.tsv", index=True)
        write_table(model.samples, folder / "samples.tsv", index=True)
        if snp_effects:
            write_table(model.snp_effects(tree), folder / "snp_effects.tsv")
            clock("effects of all SNPs")
        summary = write_summary(folder, _predicted_lines(model, predictions, prob))
        parameters = {
            "formula": formula,
            "h2_prior": repr(h2_prior),
            "draws": draws,
            "prob": prob,
            "seed": tree.attrs["seed"],
            "scale": scale,
            "maf": maf,
            "max_missing": max_missing,
            "missing": missing,
        }
        inputs = [str(pheno), *kernel_files(bfile, grm, basis)]
        inputs += [str(path) for path in (new_pheno, samples) if path is not None]
        inputs += genotype_files(new) if new is not None else []
        write_provenance(folder / PROVENANCE, inputs, parameters, seconds=clock.seconds)
    clock(f"written to {out}")
    return summary


# -- what comes in ---------------------------------------------------------------------------


def parse_prior(text: str, spike: float) -> priors.H2Prior:
    """A prior on h2 from "uniform" or "beta(a, b)".

    Examples
    --------
    >>> parse_prior("beta(2, 3)", 0.5)
    0.5 at 0 + 0.5 Beta(2, 3)
    """
    if text.strip().lower() == "uniform":
        return priors.uniform(spike=spike)
    number = r"\s*([0-9.eE+-]+)\s*"
    match = re.fullmatch(rf"\s*beta\s*\({number},{number}\)\s*", text, flags=re.IGNORECASE)
    try:
        a, b = (float(part) for part in match.groups()) if match else (np.nan, np.nan)
    except ValueError:
        a = b = np.nan
    if np.isnan(a) or np.isnan(b):
        raise InputError(
            f"--prior '{text}' is no prior on h2. Write uniform, or beta(a,b) with two "
            'numbers, as in --prior "beta(2,3)".'
        )
    return priors.beta(a, b, spike=spike)


def _one_formula(formulas: list[str]) -> str:
    if len(formulas) != 1:
        raise InputError(f"{len(formulas)} times --formula: this command takes one trait.")
    return formulas[0]


def require_one_source(
    bfile: str | None,
    grm: str | None,
    basis: Path | None,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
) -> None:
    """Raise an `InputError` unless relatedness comes from exactly one place."""
    given = [s for s in (bfile, grm, basis) if s is not None]
    if len(given) != 1:
        raise InputError(
            f"{len(given)} sources of relatedness were named, one is needed: genotypes (BFILE), "
            "or --grm, or --basis."
        )
    if bfile is None and any(option is not None for option in (scale, maf, max_missing)):
        raise InputError(
            "--scale, --maf and --max-missing make a relatedness matrix from genotypes (BFILE); "
            "--grm and --basis are taken as they are."
        )


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


def read_scan(path: Path) -> pd.DataFrame:
    """The table that bayeslmm scan wrote."""
    expected = "a table of bayeslmm scan"
    if existing(path).suffix == ".parquet":
        _require_pyarrow()
        try:
            hits = pd.read_parquet(path)
        except (ValueError, OSError) as error:
            raise InputError(f"{path}: not {expected} ({error}).") from error
    else:
        text = dict.fromkeys(("id", "chrom", "ea", "oa"), str)
        hits = table_of(path, expected, sep="\t", dtype=text)
    require_columns(hits, _SCAN_COLUMNS)
    return hits


def _chosen_snps(
    snps: list[str] | None, hits: pd.DataFrame | None, top: int | None, gap: float
) -> list[str]:
    """Ids of the SNPs that were named, or that are the best of the scan's loci."""
    if hits is not None and top is not None:
        return [str(snp) for snp in hits["id"].iloc[lead_variants(hits, top, gap=gap)]]
    return [snp.strip() for part in snps or [] for snp in part.split(",") if snp.strip()]


def _samples_to_predict(model: LMM, kernel: Relatedness | Basis, path: Path | None) -> pd.Index:
    """Those of the file, or else all that have genotypes and were not analysed."""
    if path is None:
        ids = kernel.samples[~kernel.samples.isin(model.ids)]
        if not len(ids):
            raise InputError(
                "Every sample with genotypes has a phenotype: there is nobody to predict. Name "
                "new genotypes with --new, or samples with --samples."
            )
        return ids
    ids = pd.Index(_read_ids(path, kernel), dtype="str")
    if ids.has_duplicates:
        raise InputError(f"{path}: sample '{ids[ids.duplicated()][0]}' comes twice.")
    return ids


def _sample(model: LMM, **options: Any) -> tuple[xr.DataTree, list[str]]:
    """Draws by NUTS, and what there is to say against them, in words."""
    from bayeslmm.sampling import SamplingWarning

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


def selected(
    genotypes: Genotypes,
    maf: float | None,
    max_missing: float | None,
    chrom: list[str] | None,
    region: str | None = None,
    *,
    samples: pd.Index | None = None,
) -> Genotypes:
    """The variants and samples that options name."""
    labels = [label for part in chrom or [] for label in part.split(",")] or None
    return genotypes.select(
        samples=samples, chrom=labels, region=region, min_maf=maf, max_missing=max_missing
    )


def make_kernel(
    bfile: str | None,
    grm: str | None,
    basis: Path | None,
    table: pd.DataFrame,
    formulas: list[str],
    missing: str,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    clock: Clock,
    kept: Checkpoint | None = None,
) -> Relatedness | Basis:
    """The kernel from whichever source was named; formulas are checked before it is made."""
    kernel: Relatedness | Basis
    if basis is not None:
        kernel = load_eigenbasis(basis)
    elif grm is not None:
        kernel = _read_grm(grm)
    else:
        assert bfile is not None
        genotypes = read_genotypes(bfile)
        for formula in formulas:
            design_from_formula(
                without_pcs(formula), table, genotypes.samples.index, missing=missing
            )
        genotypes = selected(genotypes, maf, max_missing, None)
        kernel = make_grm(genotypes, scale=scale or "standardized", kept=kept)  # type: ignore[arg-type]
    if kept is not None and isinstance(kernel, GRM):
        kernel = replace(kernel, cache_folder=kept.path("bases"))
    clock(repr(kernel))
    return kernel


def _read_grm(source: str) -> Relatedness:
    """A matrix in GCTA's (dense or sparse) or GEMMA's format, with PREFIX.samples.txt."""
    prefix = source.removesuffix(".sp").removesuffix(".grm")
    dense, sparse = (os.path.isfile(f"{prefix}.grm.{ending}") for ending in ("bin", "sp"))
    if sparse and dense and not source.endswith((".grm.sp", ".grm.bin")):
        raise InputError(
            f"{source}: there are {prefix}.grm.bin and {prefix}.grm.sp. Name the one that is "
            f"meant, as --grm {prefix}.grm.sp or --grm {prefix}.grm.bin."
        )
    if sparse and not source.endswith(".grm.bin"):
        return read_sparse_grm(source)
    match = re.fullmatch(r"(.*?)(\.[cs]XX)?\.txt(\.gz)?", source)
    if match is None:
        return read_grm(source)
    ids = Path(f"{match[1]}.samples.txt")
    if not ids.is_file():
        existing(source)
        raise InputError(
            f"{source}: a text matrix has no sample ids. Write them to {ids}, one per line, in "
            "the order of its rows (for GEMMA: the individuals of the .fam)."
        )
    return read_grm(source, samples=text_of(ids).split())


def _read_ids(path: Path, kernel: Relatedness | Basis) -> list[str]:
    """Sample ids, one per line, or FID and IID as PLINK's --keep has them."""
    rows = [line.split() for line in text_of(existing(path)).splitlines() if line.strip()]
    rows = [row for row in rows if not row[0].startswith("#")]
    if not rows:
        raise InputError(f"{path}: no sample ids.")
    ids = [row[0] if len(row) == 1 else row[1] for row in rows]
    if not set(ids) & set(kernel.samples) and all(len(row) > 1 for row in rows):
        ids = [f"{row[0]}_{row[1]}" for row in rows]
    return ids


def genotype_files(bfile: str) -> list[str]:
    """The files of a genotype source."""
    return [str(file) for file in locate(bfile).files]


def kernel_files(bfile: str | None, grm: str | None, basis: Path | None) -> list[str]:
    """Files that identify a kernel: a basis' description holds the others' checksums."""
    if bfile is not None:
        return genotype_files(bfile)
    if basis is not None:
        return [str(basis / _BASIS)]
    if grm is None:
        return []
    if os.path.isfile(grm):
        return [grm]
    prefix = grm.removesuffix(".sp").removesuffix(".grm")
    parts = (f"{prefix}.grm.{ending}" for ending in ("bin", "id", "N.bin", "sp"))
    return [part for part in parts if os.path.isfile(part)]


def sources(
    bfile: str | None, grm: str | None, basis: Path | None, pheno: Path, id: str | None
) -> dict[str, Any]:
    """Where the data came from, as a later command needs it."""
    return {
        "genotypes": bfile,
        "grm": grm,
        "basis": None if basis is None else str(basis),
        "pheno": str(pheno),
        "id": id,
        "folder": os.getcwd(),
    }


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError("--parquet needs pyarrow: pip install 'bayeslmm[parquet]'.") from None


# -- what goes out ---------------------------------------------------------------------------


def _write_heritability(
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


def _write_scan(
    folder: Path,
    name: str,
    model: LMM,
    hits: pd.DataFrame,
    genotypes: Genotypes,
    *,
    parquet: bool = False,
    gap: float = 5e6,
) -> None:
    """The table, its plots, and the account of samples and variants, of one trait."""
    from bayeslmm import plots

    if parquet:
        hits.to_parquet(folder / f"scan_{name}.parquet", index=False)
    else:
        write_table(hits, folder / f"scan_{name}.tsv.gz")
    untested = hits.loc[hits.neg_log10_p.isna(), ["id", "chrom", "pos"]]
    reasons = {
        "monomorphic": hits.attrs["n_monomorphic"],
        "explained by covariates": hits.attrs["n_explained_by_covariates"],
        "fit did not converge": hits.attrs.get("n_not_converged", 0),
        "its two terms cannot be told apart": hits.attrs.get("n_int_not_estimable", 0)
        + hits.attrs.get("n_dom_not_estimable", 0),
    }
    reason = " or ".join(reason for reason, count in reasons.items() if count)
    parts = [t for t in (genotypes.excluded, untested.assign(reason=reason)) if len(t)]
    excluded = pd.concat(parts, ignore_index=True) if parts else genotypes.excluded
    write_table(excluded, folder / f"excluded_{name}.tsv")
    samples = folder / f"samples_{name}.tsv"
    if not samples.exists():
        write_table(model.samples, samples, index=True)
    if hits.neg_log10_p.notna().any():
        plots.save(folder / f"manhattan_{name}.png", plots.manhattan, hits, locus_gap=gap)
        plots.save(folder / f"qq_{name}.png", plots.qq, hits)


def write_draws(tree: xr.DataTree, path: Path) -> None:
    """Write draws as a zarr folder, for ArviZ."""
    # Format 2 has consolidated metadata; of format 3's the readers still warn.
    tree.to_zarr(path, zarr_format=2)


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
        _write_snp_effects(folder, tree, hits, genotypes)


def _write_snp_effects(
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


def write_summary(folder: Path, lines: list[str]) -> str:
    """Write summary.txt; returns its text."""
    text = "\n".join(lines)
    (folder / "summary.txt").write_text(text + "\n")
    return text


# -- what it means ---------------------------------------------------------------------------


def paragraph(text: str, indent: str = "") -> list[str]:
    """The lines of a text, at most 92 characters each."""
    return textwrap.wrap(text, 92, initial_indent=indent, subsequent_indent=indent)


def _heritability_lines(models: dict[str, LMM]) -> list[str]:
    lines = ["## Heritability: how much of the variation the genotypes explain"]
    for name, model in models.items():
        fit, posterior = model.reml(), model.h2_posterior()
        low, high = posterior.hdi(0.95)
        text = (
            f"{name}: {_percent(posterior.mean)}; with 95% probability it is between "
            f"{_percent(low)} and {_percent(high)}."
        )
        if model.h2_prior.spike:
            zero = posterior.mass_at_0
            zero_text = "below 0.0001" if zero < 1e-4 else f"{zero:.4f}"
            text += f" Probability that it is exactly 0: {zero_text}."
        lines += paragraph(text)
        se = f"no standard error ({fit.boundary})" if fit.boundary else f"SE {fit.h2_se:.3f}"
        account = model.samples.reason[~model.samples.kept].value_counts()
        dropped = "".join(f", {count:,} left out ({reason})" for reason, count in account.items())
        lines += paragraph(
            f"REML says {fit.h2:.3f}, {se}. Prior: {model.h2_prior!r}. {fit.n:,} samples{dropped}.",
            "  ",
        )
    return lines


def _scan_lines(name: str, model: LMM, hits: pd.DataFrame, *, gap: float = 5e6) -> list[str]:
    p = 10.0 ** -hits.neg_log10_p.dropna()
    n_tests = len(p)
    if not n_tests:
        return [f"## Genome scan of {name}", "No variant could be tested: all are monomorphic."]
    threshold = 0.05 / n_tests
    loci = find_loci(hits, threshold, gap=gap)
    many = "no locus" if not len(loci) else "one locus" if len(loci) == 1 else f"{len(loci)} loci"
    second = "int" if "p_int" in hits else "dom" if "p_dom" in hits else None
    what = {
        "int": f": interaction with {hits.attrs.get('interaction')}",
        "dom": ": dominance deviation",
        None: "",
    }[second]
    lines = [
        f"## Genome scan of {name}{what}: {many} among {n_tests:,} variants",
        f"Significant is p < {threshold:.2g}, that is 0.05 / {n_tests:,}.",
    ]
    binary = hits.attrs.get("family") == "binomial"
    if binary:
        for line in commands_binary.header(name, hits):
            lines += paragraph(line)
    elif "phenotype" in hits.attrs:
        lines += paragraph(f"{name}: {hits.attrs['phenotype']} (--family binomial).")
    if "condition_on" in hits.attrs:
        lines += paragraph(f"Conditional on {', '.join(hits.attrs['condition_on'])}.")
    for locus in loci.head(_LOCI_SHOWN).itertuples():
        lead = hits.iloc[locus.row]
        lines.append(
            f"  chromosome {locus.chrom}, {_span(locus.start, locus.end)}: "
            f"{locus.n_variants:,} variant{'s' * (locus.n_variants > 1)}, best {lead.id}, "
            f"p = {_p(lead.neg_log10_p)}"
        )
        if second is not None:
            lines += _two_terms(name, lead, hits, second)
            continue
        if binary:
            lines.append(commands_binary.lead_line(lead))
            continue
        lines.append(
            f"    each {lead.ea} (frequency {lead.eaf:.2f}) changes {name} by {lead.beta:+.3g} "
            f"(SE {lead.se:.2g}); {_percent(lead.pve)} of the variance"
        )
        if "log10_bf" in hits:
            lines.append(
                f"    log10 Bayes factor {lead.log10_bf:.1f}; effect, if there is one, "
                f"{lead.post_mean:+.3g} (posterior sd {lead.post_sd:.2g})"
                + (f", probability {lead.ppa:.3g} that there is" if "ppa" in hits else "")
            )
    if len(loci) > _LOCI_SHOWN:
        lines.append(f"  and {len(loci) - _LOCI_SHOWN:,} more")
    if len(loci) and "effect_prior" in hits.attrs:
        lines += paragraph(
            f"Bayes factors: h2 ~ {hits.attrs['h2_prior']}, effects ~ {hits.attrs['effect_prior']}"
            ", in phenotypic sd per sd of the genotype.",
            "  ",
        )
    if len(loci):
        lines.append("  (effects of loci that a scan has chosen are on average overestimated)")
    factor = lambda_gc(p)
    lines += paragraph(f"lambda_GC = {factor:.2f}{_inflation(factor, model.basis is not None)}.")
    return lines


def _two_terms(name: str, lead: pd.Series, hits: pd.DataFrame, second: str) -> list[str]:
    """The effect of a variant, and what it depends on."""
    effect, se = lead[f"beta_{second}"], lead[f"se_{second}"]
    each = f"    each {lead.ea} (frequency {lead.eaf:.2f}) changes {name} by {lead.beta:+.3g}"
    if second == "int":
        covariate, mean = hits.attrs["interaction"], hits.attrs["interaction_mean"]
        each += f" (SE {lead.se:.2g}) where {covariate} is {mean:.3g}"
        change = f"    and by {effect:+.3g} (SE {se:.2g}) more per unit of {covariate}"
    else:
        each += f" (SE {lead.se:.2g}) on average"
        change = f"    heterozygotes are {effect:+.3g} (SE {se:.2g}) from the middle"
    lines = [each, f"{change}; both: p = {_p(lead.neg_log10_p_joint)}"]
    if "log10_bf_joint" in hits:
        lines.append(
            f"    log10 Bayes factor {lead[f'log10_bf_{second}']:.1f}, of both "
            f"{lead.log10_bf_joint:.1f}"
        )
    return lines


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
            f"Heritability{beside}: {_percent(h2.mean())}; with 95% probability it is between "
            f"{_percent(low)} and {_percent(high)}."
        ),
        *paragraph(
            f"The exact posterior{' without SNPs' if has_snps else ''} says "
            f"{_percent(exact.mean)}, {_percent(exact_low)} to {_percent(exact_high)}. Prior: "
            f"{model.h2_prior!r}. {len(model.y):,} samples.",
            "  ",
        ),
    ]
    if has_snps:
        lines += ["", *_snp_lines(name, tree, hits)]
    if told:
        return lines + _warning_lines(told)
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


def _snp_lines(name: str, tree: xr.DataTree, hits: pd.DataFrame | None) -> list[str]:
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
        *_aligned([[row[i] for i in keep] for row in rows]),
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
                f"All in all {_percent(abs(change))} {direction} than in the scan, which "
                "overestimates what it has chosen and counts what neighbours share for each.",
                "  ",
            )
    return lines


def _predicted_lines(model: LMM, predictions: pd.DataFrame, prob: float) -> list[str]:
    name = model.formula.split("~")[0].strip()
    posterior = model.h2_posterior()
    low, high = posterior.hdi()
    analysed = int(predictions.index.isin(model.ids).sum())
    lines = [
        f"## Prediction of {name} for {len(predictions):,} samples",
        *paragraph(
            f"From {len(model.y):,} samples with {model.formula}; heritability "
            f"{_percent(posterior.mean)} ({_percent(low)} to {_percent(high)})."
        ),
        *paragraph(
            f"Predicted {name}: {predictions.y_mean.min():.3g} to {predictions.y_mean.max():.3g}, "
            f"mean {predictions.y_mean.mean():.3g}. {100 * prob:g}% intervals are "
            f"{(predictions.y_high - predictions.y_low).mean():.3g} wide on average; the sd of "
            f"{name} is {model.y.std():.3g}."
        ),
        *paragraph(
            f"Genetic values u: sd {predictions.u_mean.std(ddof=0):.3g} among the samples, each "
            f"known to within {predictions.u_sd.mean():.3g} (its posterior sd, on average)."
        ),
    ]
    if analysed:
        lines.append(f"{analysed:,} of them were analysed themselves: new measurements are meant.")
    return lines


def _warning_lines(told: list[str]) -> list[str]:
    return [line for text in told for line in ["", *paragraph(f"Warning: {text}")]]


def _signed(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows in columns: the first flush left, the others flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _inflation(factor: float, kernel: bool) -> str:
    if factor > 1.1 and not kernel:
        return ": above 1; if samples are related, leave out --no-kernel"
    if factor > 1.1:
        return ": above 1, from many small effects or from structure; the QQ plot tells more"
    if factor < 0.95 and kernel:
        return (
            ": below 1, as when the relatedness matrix holds the tested variants too; "
            "p-values then err on the safe side"
        )
    return ": close to 1, as it should be" if 0.95 <= factor <= 1.05 else ""


def _span(start: Any, end: Any) -> str:
    if pd.isna(start):
        return "position unknown"
    low, high = f"{start / 1e6:.1f}", f"{end / 1e6:.1f}"
    return f"{low} Mb" if low == high else f"{low} to {high} Mb"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.1f}%"


def _p(neg_log10: float) -> str:
    """A p-value from its -log10, also where it underflows.

    Examples
    --------
    >>> _p(16.565), _p(400.5)
    ('2.7e-17', '3.2e-401')
    """
    exponent = int(np.floor(-neg_log10))
    mantissa = 10 ** (-neg_log10 - exponent)
    if round(mantissa, 1) >= 10:
        mantissa, exponent = 1.0, exponent + 1
    return f"{mantissa:.1f}e{exponent:+03d}"
