"""Commands to begin with: the demo, and cohorts with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayeslmm.cli.application import app
from bayeslmm.cli.options import Folder, Overwrite, Threads


@app.command(short_help="Everything once, on real mice.")
def demo(
    out: Folder = Path("bayeslmm-demo"),
    files: Annotated[
        Path | None,
        typer.Option(help="Only write the mice as PLINK files and a table to this folder."),
    ] = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Run everything once, on 1,940 real mice that come with the package.

    Relatedness, heritability of two blood traits (REML and the exact posterior), and a genome
    scan of one of them, summarised in plain words. Then the same heritabilities by NUTS, and the
    effects of the scan's best SNPs estimated together; compiling that model takes 10 to 20
    seconds on a new machine.

    \b
    Example:
      bayeslmm demo

    \b
    Writes to the folder bayeslmm-demo (or --out):
      summary.txt                          what was found; also printed
      manhattan_cd8.png  qq_cd8.png        the scan
      h2_cd8.png  h2_mch.png               the posteriors of the heritability
      effects_cd8.png  snp_effects_cd8.tsv the best SNPs: scan and joint posterior
      scan_cd8.tsv.gz                      every SNP: alleles, effect, SE, p
      h2.tsv  covariates.tsv               estimates and intervals
      samples_*.tsv  excluded_cd8.tsv      who and what was left out, and why
      provenance.json                      versions and checksums
    """
    from bayeslmm.commands import demo

    if files is not None:
        typer.echo(demo.demo_files(files, overwrite=overwrite))
        return
    demo.demo(out=out, overwrite=overwrite, threads=threads, show=typer.echo)


@app.command(short_help="A simulated cohort with known truth.")
def simulate(
    out: Annotated[str, typer.Option(help="Prefix of the files to write.")],
    n: Annotated[int, typer.Option("--n", help="Number of samples.")],
    m: Annotated[int, typer.Option("--m", help="Number of variants.")],
    families: Annotated[
        int, typer.Option(help="Largest number of relatives in a family; 1: nobody is related.")
    ] = 1,
    unsampled: Annotated[
        float, typer.Option(help="Share of a family's members outside the cohort.")
    ] = 0.25,
    h2: Annotated[float, typer.Option("--h2", help="Heritability of the trait.")] = 0.5,
    causal: Annotated[
        int | None, typer.Option(help="Number of causal variants; all by default.")
    ] = None,
    min_maf: Annotated[float, typer.Option(help="Smallest minor-allele frequency.")] = 0.05,
    ld: Annotated[
        float | None,
        typer.Option(
            help="Base pairs over which the correlation of variants falls to 1/e; independent "
            "variants by default."
        ),
    ] = None,
    missing: Annotated[float, typer.Option(help="Share of missing genotypes.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Another seed makes another cohort.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Simulate families with linked genomes and a heritable trait, of any size.

    \b
    Example:
      bayeslmm simulate --n 5000 --m 10000 --families 10 --h2 0.4 --out sim
      bayeslmm h2 sim --pheno sim.pheno.tsv --formula "y ~ sex + age" --out h2_sim

    \b
    Writes, for --out sim:
      sim.bed  sim.bim  sim.fam    genotypes
      sim.pheno.tsv                y, sex and age
      sim.truth.json  sim.u.tsv.gz  sim.effects.tsv.gz  sim.pedigree.tsv.gz    the truth
    """
    from bayeslmm.commands import simulation

    typer.echo(
        simulation.simulate(
            out,
            n,
            m,
            families=families,
            unsampled=unsampled,
            h2=h2,
            causal=causal,
            frequency=(min_maf, 0.5),
            ld=ld,
            missing=missing,
            seed=seed,
            overwrite=overwrite,
        )
    )
