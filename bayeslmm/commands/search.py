"""What `bayeslmm stepwise` and `bayeslmm threshold` do, once their options are read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bayeslmm.commands.shared import (
    genotype_files,
    kernel_files,
    make_kernel,
    selected,
    write_summary,
)
from bayeslmm.errors import InputError
from bayeslmm.genome.association import BACKGROUNDS
from bayeslmm.genome.loci import parse_region
from bayeslmm.genome.selection import stepwise as search
from bayeslmm.genome.thresholds import Threshold, significance_threshold
from bayeslmm.inputs.genotypes import Genotypes, read_genotypes
from bayeslmm.inputs.phenotypes import read_phenotypes
from bayeslmm.model.lmm import LMM
from bayeslmm.runs.progress import blas_threads
from bayeslmm.runs.results import (
    PROVENANCE,
    Clock,
    result_folder,
    trait_names,
    write_provenance,
    write_table,
)


def stepwise(
    bfile: str,
    *,
    grm: str | None,
    basis: Path | None,
    pheno: Path,
    id: str | None,
    formulas: list[str],
    out: Path,
    test: str,
    threshold: float | None,
    region: str | None,
    max_steps: int,
    background: str,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    missing: str,
    float64: bool,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Variants associated given each other, for each trait, to a folder; returns the summary."""
    clock = Clock()
    if region is not None:
        parse_region(region)
    if background not in BACKGROUNDS:
        raise InputError(f"--background {background}: expected one of {', '.join(BACKGROUNDS)}.")
    if background != "all" and (grm or basis):
        raise InputError(
            f"--background {background} needs the variants of the relatedness matrix: it is made "
            "from BFILE. Leave out --grm and --basis."
        )
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
            found = search(
                model,
                selected(genotypes, maf, max_missing, None, region, samples=model.ids),
                test=test,
                threshold=threshold,
                region=region,
                max_steps=max_steps,
                background=background,  # type: ignore[arg-type]
                dtype="float64" if float64 else "float32",
                threads=threads,
            )
            clock(f"{name}: {len(found)} of {found.attrs['n_tested']:,} variants chosen")
            write_table(found, folder / f"stepwise_{name}.tsv")
            write_table(model.samples, folder / f"samples_{name}.tsv", index=True)
            lines += [*_stepwise_lines(name, found), ""]
        summary = write_summary(folder, lines[:-1])
        parameters = {
            "formulas": formulas,
            "test": test,
            "threshold": threshold,
            "region": region,
            "max_steps": max_steps,
            "background": background,
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


def threshold(
    bfile: str,
    *,
    grm: str | None,
    basis: Path | None,
    pheno: Path,
    id: str | None,
    formulas: list[str],
    out: Path,
    alpha: float,
    replicates: int,
    method: str,
    seed: int | None,
    region: str | None,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    missing: str,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Significance that null phenotypes reach, for each trait, to a folder; returns the summary."""
    clock = Clock()
    if region is not None:
        parse_region(region)
    names = trait_names(formulas)
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        table = read_phenotypes(pheno, id=id)
        genotypes: Genotypes = read_genotypes(bfile)
        source = None if grm or basis else bfile
        kernel = make_kernel(
            source, grm, basis, table, formulas, missing, scale, maf, max_missing, clock
        )
        found: dict[str, Threshold] = {}
        for name, formula in zip(names, formulas, strict=True):
            model = LMM(formula, table, kernel, missing=missing)  # type: ignore[arg-type]
            found[name] = significance_threshold(
                model,
                selected(genotypes, maf, max_missing, None, region, samples=model.ids),
                alpha=alpha,
                replicates=replicates,
                method=method,  # type: ignore[arg-type]
                seed=seed,
                threads=threads,
            )
            clock(f"{name}: {replicates:,} null phenotypes")
            smallest = pd.DataFrame({"min_p": found[name].min_p})
            write_table(smallest, folder / f"null_min_p_{name}.tsv")
            write_table(model.samples, folder / f"samples_{name}.tsv", index=True)
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
        write_table(pd.DataFrame(rows), folder / "threshold.tsv")
        lines = [f"## Significance threshold of {name}\n{one}" for name, one in found.items()]
        summary = write_summary(folder, lines)
        parameters = {
            "formulas": formulas,
            "alpha": alpha,
            "replicates": replicates,
            "method": method,
            "seed": seed,
            "region": region,
            "scale": scale,
            "maf": maf,
            "max_missing": max_missing,
            "missing": missing,
        }
        inputs = [str(pheno), *genotype_files(bfile), *kernel_files(None, grm, basis)]
        write_provenance(folder / PROVENANCE, inputs, parameters, seconds=clock.seconds)
    clock(f"written to {out}")
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
