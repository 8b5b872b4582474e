"""Commands of the generative model: draws and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bayeslmm.cli.application import app
from bayeslmm.cli.options import (
    Basis,
    Folder,
    Formula,
    Genotypes,
    Grm,
    LocusGap,
    Overwrite,
    Pheno,
    Prior,
    Reading,
    Seed,
    Threads,
    takes_options,
)


@app.command(short_help="Draws from the posterior by NUTS; joint SNP effects.")
@takes_options
def sample(
    pheno: Pheno,
    formula: Formula,
    out: Folder,
    bfile: Genotypes = None,
    grm: Grm = None,
    basis: Basis = None,
    snps: Annotated[
        list[str] | None,
        typer.Option(help="Ids of SNPs to estimate together; again or with commas for several."),
    ] = None,
    scan: Annotated[
        Path | None,
        typer.Option(help="Table of bayeslmm scan, to choose SNPs from and to compare with."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=1, help="Take the best N SNPs of the scan, one per locus (see --locus-gap)."
        ),
    ] = None,
    snp_prior: Annotated[
        Literal["normal", "horseshoe", "r2d2", "spike_slab"] | None,
        typer.Option(
            help="Prior of SNP effects: normal (the default), horseshoe, r2d2, or spike_slab "
            "(exact, for up to 15 SNPs, with inclusion probabilities)."
        ),
    ] = None,
    prior: Prior = "uniform",
    draws: Annotated[int, typer.Option(min=1, help="Draws to keep, of each chain.")] = 1000,
    tune: Annotated[int, typer.Option(min=1, help="Draws for tuning, of each chain.")] = 500,
    chains: Annotated[int, typer.Option(min=1, help="Number of Markov chains.")] = 4,
    seed: Seed = None,
    target_accept: Annotated[
        float | None,
        typer.Option(
            help="Acceptance rate that NUTS aims at; raise it after divergent transitions. By "
            "default 0.8, more for heavy-tailed priors."
        ),
    ] = None,
    sampler: Annotated[Literal["nutpie", "pymc"], typer.Option(help="Which NUTS.")] = "nutpie",
    u: Annotated[
        bool, typer.Option("--u", help="Draw the genetic values u of all samples too.")
    ] = False,
    log_likelihood: Annotated[
        bool,
        typer.Option(
            "--log-likelihood", help="Keep each sample's log-likelihood, for leave-one-out (large)."
        ),
    ] = False,
    *,
    reading: Reading,
    locus_gap: LocusGap = 5e6,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Sample the posterior of the generative model with NUTS, with chosen SNPs in it.

    Where only h2 and the variances are wanted, bayeslmm h2 gives the exact posterior. This is for
    SNPs whose effects are to be estimated together, shrunk by a prior: a scan overestimates the
    effects that it has chosen. BFILE holds the SNPs; relatedness comes from it too, or from --grm
    or --basis. Divergences, chains that disagree and too few effective draws are said in words.

    \b
    Examples:
      bayeslmm sample cohort --pheno traits.tsv --formula "height ~ sex" --snps rs1,rs2 \\
                      --out sample_height
      bayeslmm sample cohort --basis cohort.basis --pheno traits.tsv --formula "height ~ sex" \\
                      --scan scan_height/scan_height.tsv.gz --top 10 --snp-prior spike_slab \\
                      --out top_height

    \b
    Writes to the folder --out:
      summary.txt                       what was found; also printed
      parameters.tsv                    mean, sd, 95% interval, r-hat, effective draws
      snp_effects.tsv  effects.png      per effect allele, beside the scan's estimates
      h2.png                            the draws over the exact posterior (without SNPs)
      posterior.zarr                    draws: xarray.open_datatree(folder, engine="zarr")
      random_effects.tsv                with --u: genetic values and their intervals
      samples.tsv                       every sample: kept, or the reason why not
      provenance.json                   versions, parameters, warnings, checksums of the input
    """
    from bayeslmm.commands import sampling

    data = reading.data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        formulas=formula,
    )
    summary = sampling.sample(
        data,
        out=out,
        snps=snps,
        scan=scan,
        top=top,
        locus_gap=locus_gap,
        snp_prior=snp_prior,
        prior=prior,
        draws=draws,
        tune=tune,
        chains=chains,
        seed=seed,
        target_accept=target_accept,
        sampler=sampler,
        u=u,
        log_likelihood=log_likelihood,
        overwrite=overwrite,
        threads=threads,
    )
    typer.echo("\n" + summary)


@app.command(short_help="Phenotypes and genetic values of other samples.")
@takes_options
def predict(
    pheno: Pheno,
    formula: Formula,
    out: Folder,
    bfile: Genotypes = None,
    grm: Grm = None,
    basis: Basis = None,
    new: Annotated[
        str | None,
        typer.Option(
            metavar="BFILE",
            help="New samples: genotypes of the same variants, in any format.",
        ),
    ] = None,
    new_pheno: Annotated[
        Path | None,
        typer.Option(
            help="Table with the covariates of the samples to predict, if there are any. "
            "Phenotypes in it are not used, but compared with."
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --new: file with samples of BFILE, IID or FID and IID on each line. "
            "Without both, all that were not analysed."
        ),
    ] = None,
    snp_effects: Annotated[
        bool, typer.Option("--snp-effects", help="Write the effect of every SNP (SNP-BLUP) too.")
    ] = False,
    prior: Prior = "uniform",
    draws: Annotated[
        int, typer.Option(min=1, help="Independent draws from the posterior to average over.")
    ] = 1000,
    prob: Annotated[float, typer.Option(help="Probability of the intervals.")] = 0.9,
    seed: Seed = None,
    *,
    reading: Reading,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Predict genetic values and phenotypes of samples without phenotype (genomic BLUP).

    The samples with phenotype in BFILE are learned from. The others come from new files, whose
    alleles are matched by name and which are standardised as the old ones, or from the same
    files. Intervals hold the uncertainty of all parameters, that of the heritability too.

    \b
    Examples:
      bayeslmm predict cohort --pheno traits.tsv --formula "height ~ sex" \\
                       --new others --new-pheno others.tsv --out predicted
      bayeslmm predict cohort --pheno traits.tsv --formula "height ~ sex" \\
                       --samples unmeasured.txt --snp-effects --out predicted

    \b
    Writes to the folder --out:
      summary.txt        what was found; also printed
      predictions.tsv    u (genetic value) and y (phenotype): mean, sd, interval of each sample
      predictions.png    the same as a plot
      snp_effects.tsv    with --snp-effects: every SNP's effect per allele
      samples.tsv        every sample of --pheno and BFILE: learned from, or the reason why not
      provenance.json    versions, parameters, checksums of the input
    """
    from bayeslmm.commands import prediction

    data = reading.data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        formulas=formula,
    )
    summary = prediction.predict(
        data,
        out=out,
        new=new,
        new_pheno=new_pheno,
        samples=samples,
        snp_effects=snp_effects,
        prior=prior,
        draws=draws,
        prob=prob,
        seed=seed,
        overwrite=overwrite,
        threads=threads,
    )
    typer.echo("\n" + summary)
