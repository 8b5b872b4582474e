"""Commands on samples and variants: relatedness, its eigenbasis, components, quality."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bayeslmm.cli.application import app
from bayeslmm.cli.options import (
    GENOTYPES,
    Chrom,
    Folder,
    Id,
    Maf,
    MaxMissing,
    Overwrite,
    Restart,
    Scale,
    Threads,
)
from bayeslmm.errors import InputError


@app.command(short_help="Relatedness of every pair of samples.")
def grm(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=GENOTYPES)],
    out: Annotated[str, typer.Option(help="Prefix of the files to write.")],
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
    chrom: Chrom = None,
    format: Annotated[
        Literal["gcta", "gemma"], typer.Option("--format", help="Whose files to write.")
    ] = "gcta",
    sparse: Annotated[
        bool, typer.Option("--sparse", help="Only of relatives; all else is 0. For large cohorts.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="With --sparse: relatedness below it becomes 0; 0.05 by default."),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="With --sparse: the pairs to look at: family (the same FID, the default), "
            "screen (everybody with everybody by some thousand variants, then the related by all), "
            "all, or a table of pairs, such as of plink2 --make-king-table."
        ),
    ] = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    threads: Threads = None,
) -> None:
    """Compute the genetic relatedness of every pair of samples, K = Z Z' / m.

    \b
    Example:
      bayeslmm grm cohort --maf 0.01 --out cohort
      bayeslmm grm biobank --sparse --pairs biobank.kin0 --out biobank

    \b
    Writes, for --out cohort:
      cohort.grm.bin  .grm.N.bin  .grm.id    GCTA's format (plink2 --make-grm-bin alike)
      cohort.excluded.tsv                    variants filtered out, and why
      cohort.json                            versions, parameters, checksums of the input

    \b
    With --format gemma: cohort.cXX.txt (.sXX.txt unless centered) and, as it has no sample
    ids, cohort.samples.txt. Monomorphic variants are left out and counted. With --sparse:
    cohort.grm.sp and cohort.grm.id, as GCTA's fastGWA reads them.
    """
    from bayeslmm.commands import kernels

    if sparse:
        if format != "gcta":
            raise InputError("--sparse writes GCTA's format only: leave out --format gemma.")
        if restart:
            raise InputError("--sparse keeps no unfinished work: leave out --restart.")
        typer.echo(
            kernels.sparse_grm(
                bfile,
                out=out,
                scale=scale or "standardized",
                threshold=0.05 if threshold is None else threshold,
                pairs=pairs or "family",
                maf=maf,
                max_missing=max_missing,
                chrom=chrom,
                overwrite=overwrite,
                threads=threads,
            )
        )
        return
    for name, value in (("--threshold", threshold), ("--pairs", pairs)):
        if value is not None:
            raise InputError(f"{name} is of a sparse matrix: add --sparse, or leave it out.")
    typer.echo(
        kernels.grm(
            bfile,
            out=out,
            scale=scale or "standardized",
            maf=maf,
            max_missing=max_missing,
            chrom=chrom,
            gemma=format == "gemma",
            overwrite=overwrite,
            restart=restart,
            threads=threads,
        )
    )


@app.command(short_help="Eigenbasis of a relatedness matrix.")
def eigen(
    source: Annotated[
        str,
        typer.Argument(
            metavar="GRM", help="Prefix of .grm.bin or .grm.sp and .grm.id, or a .cXX.txt file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the basis, as cohort.basis.")],
    keep: Annotated[
        Path | None,
        typer.Option(help="File with the samples to use: IID, or FID and IID, on each line."),
    ] = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Decompose a relatedness matrix once, K = U S U', so that every analysis starts at once.

    \b
    Example:
      bayeslmm eigen cohort --out cohort.basis

    \b
    Reads cohort.grm.bin and .grm.id (from bayeslmm grm, GCTA or PLINK 2). Writes the folder
    cohort.basis: eigenvectors, eigenvalues, sample ids, the matrix itself, and checksums.
    A trait that some samples lack needs a basis of the others: it is made when first asked
    for and kept in cohort.basis.subsets.
    """
    from bayeslmm.commands import kernels

    typer.echo(kernels.eigen(source, out=out, keep=keep, overwrite=overwrite, threads=threads))


@app.command(short_help="Principal components of genotypes.")
def pca(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=GENOTYPES)],
    out: Folder,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of components.")] = 10,
    project: Annotated[
        str | None, typer.Option(help="Genotypes of new samples, to be placed among the others.")
    ] = None,
    pheno: Annotated[Path | None, typer.Option(help="Table with a column to colour by.")] = None,
    id: Id = None,
    color: Annotated[str | None, typer.Option(help="That column.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random start, where there is one.")] = 0,
    maf: Maf = None,
    max_missing: MaxMissing = None,
    chrom: Chrom = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Compute principal components: eigenvectors of the relatedness matrix, as plink2 --pca.

    Up to 10,000 samples exactly, of more in a few passes over the genotypes. In a model they need
    no file: --formula "height ~ sex + pcs(10)".

    \b
    Example:
      bayeslmm pca cohort --k 10 --out pca_cohort

    \b
    Writes to the folder --out:
      pcs.tsv  pcs.png       scores of every sample
      components.tsv         eigenvalues, variance explained, shrinkage of projections
      projected.tsv          with --project: corrected scores of the new samples
      summary.txt            also printed
      provenance.json        versions, parameters, checksums of the input
    """
    from bayeslmm.commands import structure as commands_structure

    typer.echo(
        commands_structure.pca(
            bfile,
            out=out,
            k=k,
            project=project,
            pheno=pheno,
            id=id,
            color=color,
            seed=seed,
            maf=maf,
            max_missing=max_missing,
            chrom=chrom,
            overwrite=overwrite,
            threads=threads,
        )
    )


@app.command(short_help="Pairs of relatives, and a largest unrelated subset.")
def relatives(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=GENOTYPES)],
    out: Folder,
    min_kinship: Annotated[
        float, typer.Option(help="Pairs to list: by default 3rd-degree relatives and closer.")
    ] = 0.0442,
    max_kinship: Annotated[
        float, typer.Option(help="Largest kinship in the unrelated subset.")
    ] = 0.0442,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Find relatives by KING-robust kinship and IBS0, as plink2 --make-king-table.

    \b
    Example:
      bayeslmm relatives cohort --out relatives_cohort

    \b
    Writes to the folder --out:
      relatives.tsv.gz   pairs, closest first: kinship, IBS0, degree
      unrelated.txt      FID and IID of a largest subset without relatives (for --keep)
      relatives.png      kinship against IBS0
      summary.txt        also printed
      provenance.json    versions, parameters, checksums of the input
    """
    from bayeslmm.commands import structure as commands_structure

    typer.echo(
        commands_structure.relatives(
            bfile,
            out=out,
            min_kinship=min_kinship,
            max_kinship=max_kinship,
            overwrite=overwrite,
            threads=threads,
        )
    )


@app.command(short_help="Quality of variants and samples.")
def qc(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=GENOTYPES)],
    out: Folder,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Count missing genotypes, alleles and heterozygotes; test Hardy-Weinberg proportions exactly.

    Nothing is filtered: --maf and --max-missing of the other commands do that.

    \b
    Example:
      bayeslmm qc cohort --out qc_cohort

    \b
    Writes to the folder --out:
      variants.tsv.gz    genotype counts, allele frequency, missingness, Hardy-Weinberg p
      samples.tsv        missingness, heterozygosity, inbreeding coefficient F
      summary.txt        also printed
      provenance.json    versions, parameters, checksums of the input
    """
    from bayeslmm.commands import structure as commands_structure

    typer.echo(commands_structure.qc(bfile, out=out, overwrite=overwrite, threads=threads))


@app.command(short_help="Variants without close linkage disequilibrium.")
def prune(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=GENOTYPES)],
    out: Folder,
    r2: Annotated[float, typer.Option(help="Largest squared correlation to keep.")] = 0.2,
    window: Annotated[int, typer.Option(help="Variants in a window.")] = 50,
    step: Annotated[int, typer.Option(help="Variants by which it moves.")] = 5,
    window_kb: Annotated[
        float | None, typer.Option(help="Kilobases instead of --window and --step.")
    ] = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
    chrom: Chrom = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Leave out variants in linkage disequilibrium, as plink's --indep-pairwise.

    \b
    Example:
      bayeslmm prune cohort --r2 0.2 --out pruned

    \b
    Writes to the folder --out:
      keep.txt  out.txt   ids of the variants kept and left out
      summary.txt         also printed
      provenance.json     versions, parameters, checksums of the input
    """
    from bayeslmm.commands import structure as commands_structure

    typer.echo(
        commands_structure.prune(
            bfile,
            out=out,
            r2=r2,
            window=window,
            step=step,
            window_kb=window_kb,
            maf=maf,
            max_missing=max_missing,
            chrom=chrom,
            overwrite=overwrite,
            threads=threads,
        )
    )
