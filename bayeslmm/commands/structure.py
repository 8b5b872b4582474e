"""What the command line's commands on structure do: pca, relatives, qc, prune."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bayeslmm.bases.structure import pca as make_pca
from bayeslmm.commands.shared import genotype_files, selected
from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import Genotypes, read_genotypes
from bayeslmm.inputs.phenotypes import read_phenotypes, relabel
from bayeslmm.relatedness.kinship import relatives as find_relatives
from bayeslmm.relatedness.quality import prune as prune_variants
from bayeslmm.relatedness.quality import sample_qc, variant_qc
from bayeslmm.runs.progress import blas_threads
from bayeslmm.runs.results import PROVENANCE, Clock, result_folder, write_provenance, write_table


def pca(
    bfile: str,
    *,
    out: Path,
    k: int,
    project: str | None,
    pheno: Path | None,
    id: str | None,
    color: str | None,
    seed: int,
    maf: float | None,
    max_missing: float | None,
    chrom: list[str] | None,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Write principal components, their table and plot; returns a summary."""
    if (color is None) != (pheno is None):
        raise InputError("--color names a column of the table --pheno: give both, or neither.")
    inputs = genotype_files(bfile)
    if pheno is not None:
        inputs = [*inputs, str(pheno)]
    parameters = {"k": k, "maf": maf, "max_missing": max_missing, "chrom": chrom, "seed": seed}
    with _results(bfile, out, overwrite, threads, inputs, parameters) as (folder, genotypes):
        from bayeslmm import plots

        genotypes = selected(genotypes, maf, max_missing, chrom)
        found = make_pca(genotypes, k, seed=seed)
        table = None if pheno is None else read_phenotypes(pheno, id=id)
        if table is not None:
            table = relabel(table, genotypes.samples.index)
        new = None if project is None else found.project(read_genotypes(project))
        write_table(found.scores, folder / "pcs.tsv", index=True)
        write_table(found.table.rename_axis("component"), folder / "components.tsv", index=True)
        if new is not None:
            write_table(new, folder / "projected.tsv", index=True)
        if k > 1:
            options = {"table": table, "color": color, "projected": new}
            plots.save(folder / "pcs.png", plots.pcs, found, **options)  # type: ignore[arg-type]
        lines = [repr(found)[1:-2]]
        if new is not None:
            lines.append(f"{len(new):,} samples of {project} projected and corrected.")
        return _said(folder, out, lines)


def relatives(
    bfile: str,
    *,
    out: Path,
    min_kinship: float,
    max_kinship: float,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Write the pairs of relatives, the unrelated samples and the plot; returns a summary."""
    if max_kinship < min_kinship:
        raise InputError(
            f"--max-kinship {max_kinship:g} is below --min-kinship {min_kinship:g}: pairs between "
            "them would not be known."
        )
    parameters = {"min_kinship": min_kinship, "max_kinship": max_kinship}
    inputs = genotype_files(bfile)
    with _results(bfile, out, overwrite, threads, inputs, parameters) as (folder, genotypes):
        from bayeslmm import plots

        found = find_relatives(genotypes, min_kinship=min_kinship)
        kept = found.unrelated(max_kinship)
        write_table(found.pairs, folder / "relatives.tsv.gz")
        samples = genotypes.samples.loc[kept]
        columns = ["fid", "iid"] if "fid" in samples else ["iid"]
        (folder / "unrelated.txt").write_text(
            "".join("\t".join(map(str, row)) + "\n" for row in samples[columns].to_numpy())
        )
        if len(found.pairs):
            plots.save(folder / "relatives.png", plots.relatives, found)
        lines = [
            repr(found)[1:-2],
            f"{len(kept):,} of {len(found.samples):,} samples in the largest subset found without "
            f"pairs of kinship above {max_kinship:.4g} (unrelated.txt).",
        ]
        return _said(folder, out, lines)


def qc(bfile: str, *, out: Path, overwrite: bool, threads: int | None) -> str:
    """Write the tables of variants and samples; returns a summary."""
    inputs = genotype_files(bfile)
    with _results(bfile, out, overwrite, threads, inputs, {}) as (folder, genotypes):
        variants, samples = variant_qc(genotypes), sample_qc(genotypes)
        write_table(variants, folder / "variants.tsv.gz")
        write_table(samples, folder / "samples.tsv", index=True)
        n, m = genotypes.shape
        low = int((variants.p_hwe < 1e-6).sum())
        spread = samples.f.std()
        far = int(((samples.f - samples.f.mean()).abs() > 4 * spread).sum())
        lines = [
            f"{genotypes.name}: {n:,} samples, {m:,} variants.",
            f"Missing genotypes: {samples.missing.mean():.3%}; at most {samples.missing.max():.2%} "
            f"of a sample, {variants.missing.max():.2%} of a variant.",
            f"Monomorphic variants: {int((variants.maf == 0).sum()):,}; maf below 0.01: "
            f"{int((variants.maf < 0.01).sum()):,}.",
            f"Hardy-Weinberg p below 1e-6: {low:,} variants (relatives cause it too).",
            f"F: mean {samples.f.mean():.4f}, sd {spread:.4f}; {far:,} samples beyond 4 sd.",
        ]
        return _said(folder, out, lines)


def prune(
    bfile: str,
    *,
    out: Path,
    r2: float,
    window: int,
    step: int,
    window_kb: float | None,
    maf: float | None,
    max_missing: float | None,
    chrom: list[str] | None,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Write the ids of the variants kept and left out; returns a summary."""
    parameters: dict[str, Any] = {
        "r2": r2, "window": window, "step": step, "window_kb": window_kb,
        "maf": maf, "max_missing": max_missing, "chrom": chrom,
    }  # fmt: skip
    inputs = genotype_files(bfile)
    with _results(bfile, out, overwrite, threads, inputs, parameters) as (folder, genotypes):
        genotypes = selected(genotypes, maf, max_missing, chrom)
        kept = prune_variants(genotypes, r2=r2, window=window, step=step, window_kb=window_kb)
        ids = genotypes.variants.id
        for name, these in (("keep.txt", kept), ("out.txt", ids[~ids.isin(kept)])):
            (folder / name).write_text("".join(f"{i}\n" for i in these))
        return _said(folder, out, [f"{len(kept):,} of {len(ids):,} variants kept (keep.txt)."])


@contextmanager
def _results(
    bfile: str,
    out: Path,
    overwrite: bool,
    threads: int | None,
    inputs: list[str],
    parameters: dict[str, Any],
) -> Iterator[tuple[Path, Genotypes]]:
    """The folder to fill and the genotypes; provenance is written when all went well."""
    clock = Clock()
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        genotypes = read_genotypes(bfile)
        clock(repr(genotypes))
        yield folder, genotypes
        write_provenance(folder / PROVENANCE, inputs, parameters, seconds=clock.seconds)


def _said(folder: Path, out: Path, lines: list[str]) -> str:
    text = "\n".join(lines)
    (folder / "summary.txt").write_text(text + "\n")
    return f"{text}\nWritten to {out}."
