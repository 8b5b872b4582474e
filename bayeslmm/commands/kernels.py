"""The commands `grm`, of all pairs or of relatives, and `eigen`."""

from __future__ import annotations

from pathlib import Path

from bayeslmm.commands.shared import BASIS, genotype_files, read_ids, read_kernel, selected
from bayeslmm.inputs.genotypes import read_genotypes
from bayeslmm.relatedness.grm_files import write_gemma, write_grm
from bayeslmm.relatedness.scales import Scale
from bayeslmm.relatedness.sparse import sparse_grm as make_sparse_grm
from bayeslmm.relatedness.sums import grm as make_grm
from bayeslmm.runs.files import existing
from bayeslmm.runs.progress import blas_threads
from bayeslmm.runs.results import (
    Clock,
    prepare_replacement,
    result_files,
    unfinished,
    write_provenance,
    write_table,
)


def grm(
    bfile: str,
    *,
    out: str,
    scale: Scale,
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
        kernel = make_grm(genotypes, scale=scale, kept=kept)
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


def sparse_grm(
    bfile: str,
    *,
    out: str,
    scale: Scale,
    threshold: float,
    pairs: str,
    maf: float | None,
    max_missing: float | None,
    chrom: list[str] | None,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Write a sparse relatedness matrix with its provenance; returns a summary."""
    clock = Clock()
    inputs = genotype_files(bfile)
    if pairs not in ("family", "screen", "all"):
        inputs = [*inputs, str(existing(pairs))]
    endings = [".grm.sp", ".grm.id", ".json", ".excluded.tsv"]
    with result_files(out, endings, overwrite=overwrite) as aside, blas_threads(threads):
        genotypes = selected(read_genotypes(bfile), maf, max_missing, chrom)
        clock(repr(genotypes))
        kernel = make_sparse_grm(
            genotypes,
            threshold=threshold,
            pairs=pairs,
            scale=scale,
        )
        clock(repr(kernel))
        kernel.write(aside)
        write_table(genotypes.excluded, Path(f"{aside}.excluded.tsv"))
        parameters = {
            "scale": scale,
            "threshold": threshold,
            "pairs": pairs,
            "maf": maf,
            "max_missing": max_missing,
            "chrom": chrom,
        }
        write_provenance(
            Path(f"{aside}.json"),
            inputs,
            parameters,
            grm=kernel.info | {"n_variants": kernel.n_variants, "n_samples": len(kernel.samples)},
            seconds=clock.seconds,
        )
    clock(f"written to {out}.grm.sp and beside it")
    return "\n".join(
        [
            f"{out}: relatedness of {len(kernel.samples):,} samples from {kernel.n_variants:,} "
            f"variants ({scale}): {kernel.n_pairs:,} pairs of {threshold:g} or more, among "
            f"{kernel.info['n_pairs_looked_at']:,} looked at (--pairs {pairs}).",
            f"{len(genotypes.excluded):,} variants filtered out (listed in {out}.excluded.tsv), "
            f"{kernel.info['n_monomorphic']:,} monomorphic left out.",
        ]
    )


def eigen(
    source: str, *, out: Path, keep: Path | None, overwrite: bool, threads: int | None
) -> str:
    """Decompose a relatedness matrix and save the basis; returns a summary."""
    clock = Clock()
    replace = prepare_replacement(out, overwrite=overwrite, marker=BASIS)
    kernel = read_kernel(source)
    clock(repr(kernel))
    samples = None if keep is None else read_ids(keep, kernel)
    with blas_threads(threads):
        basis = kernel.eigenbasis(samples)
    clock(repr(basis))
    basis.save(out, overwrite=replace)
    clock(f"written to {out}")
    return (
        f"{out}: eigenbasis of {basis.n:,} samples. Use it as --basis {out} in bayeslmm h2, "
        "scan, sample and predict."
    )
