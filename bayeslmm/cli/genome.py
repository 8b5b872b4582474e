"""Commands from variants to loci: scans, fine-mapping, stepwise search, thresholds."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from bayeslmm.cli.application import app
from bayeslmm.cli.options import (
    GENOTYPES,
    Background,
    Basis,
    Chrom,
    Folder,
    Formula,
    Grm,
    LocusGap,
    Overwrite,
    Pheno,
    Reading,
    Restart,
    Seed,
    Threads,
    takes_options,
)


@app.command(short_help="Association test of every variant.")
@takes_options
def scan(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=GENOTYPES)],
    pheno: Pheno,
    formula: Formula,
    out: Folder,
    grm: Grm = None,
    basis: Basis = None,
    no_kernel: Annotated[
        bool,
        typer.Option(
            "--no-kernel", help="Plain linear (or logistic) regression, for unrelated samples."
        ),
    ] = False,
    family: Annotated[
        Literal["gaussian", "binomial"],
        typer.Option(
            help="gaussian (a linear mixed model), or binomial: cases and controls, coded 0/1, 1/2 "
            "(2 is the case) or in words, by logistic regression."
        ),
    ] = "gaussian",
    background: Background = "all",
    test: Annotated[
        str | None,
        typer.Option(
            help="Tests, with commas: wald (exact, REML), lrt (exact, ML), score, p3d, bayes "
            "(Bayes factor and effect); by default wald,bayes. For binomial: spa (saddlepoint), "
            "score, and with --no-kernel wald, firth. The first one with a p-value is plotted and "
            "summarised."
        ),
    ] = None,
    effect_sd: Annotated[
        str | None,
        typer.Option(
            help="Prior widths of effects for bayes, with commas: phenotypic sd per sd of the "
            "genotype, averaged over; by default 0.05,0.1,0.2,0.4."
        ),
    ] = None,
    prior_odds: Annotated[
        float | None,
        typer.Option(
            help="Prior odds of association, such as 1e-4: adds ppa (its posterior probability) "
            "and bfdr (Bayesian false discovery rate)."
        ),
    ] = None,
    chrom: Chrom = None,
    region: Annotated[
        str | None,
        typer.Option(help="Only variants there: 17:30000000-38000000 (base pairs, both included)."),
    ] = None,
    condition_on: Annotated[
        str | None,
        typer.Option(help="Ids of SNPs of BFILE, with commas, that join the covariates."),
    ] = None,
    coding: Annotated[
        Literal["additive", "dominant", "recessive", "hetonly", "genotypic"],
        typer.Option(
            help="additive, dominant, recessive or hetonly (of the effect allele), or genotypic: "
            "additive and dominance deviation together, with wald and bayes."
        ),
    ] = "additive",
    interaction: Annotated[
        str | None,
        typer.Option(
            help="A covariate of the formula: tests whether a variant's effect depends on it, "
            "with wald and bayes."
        ),
    ] = None,
    *,
    reading: Reading,
    float64: Annotated[
        bool, typer.Option("--float64", help="Double precision: about half as fast.")
    ] = False,
    locus_gap: LocusGap = 5e6,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write the table as Parquet instead of .tsv.gz.")
    ] = False,
    overwrite: Overwrite = False,
    restart: Restart = False,
    threads: Threads = None,
) -> None:
    """Test every variant for association with a trait, in a linear mixed model.

    Relatedness comes from --basis or --grm, or is computed from BFILE (all chromosomes, filters
    applied among all samples). The filters hold again among the samples that are analysed.
    --chrom and --region limit what is tested, not the relatedness.

    \b
    Examples:
      bayeslmm scan cohort --pheno traits.tsv --formula "height ~ sex + age" --out scan_height
      bayeslmm scan cohort --basis cohort.basis --pheno traits.tsv --formula "height ~ sex" \\
                    --test lrt,score --chrom 17,X --maf 0.01 --out scan_17
      bayeslmm scan cohort --pheno traits.tsv --formula "height ~ sex + age" --interaction sex \\
                    --region 17:30000000-38000000 --condition-on rs1,rs2 --out scan_sex
      bayeslmm scan cohort --pheno traits.tsv --formula "case ~ sex + age" --family binomial \\
                    --out scan_case

    \b
    Writes to the folder --out, with the trait's name in the file's:
      summary.txt              significant loci; also printed
      scan_TRAIT.tsv.gz        every variant: alleles, frequency, n, beta, SE, p, share explained,
                               log10 Bayes factor, posterior mean and sd of the effect, lfsr
      manhattan_TRAIT.png  qq_TRAIT.png
      excluded_TRAIT.tsv       variants filtered out or not testable, and why
      samples_TRAIT.tsv        every sample: kept, or the reason why not
      provenance.json          versions, parameters, checksums of the input
    """
    from bayeslmm.commands import genome

    data = reading.data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        formulas=formula,
    )
    summary = genome.scan(
        data,
        no_kernel=no_kernel,
        background=background,
        family=family,
        out=out,
        tests=test,
        effect_sd=effect_sd,
        prior_odds=prior_odds,
        chrom=chrom,
        region=region,
        condition_on=condition_on,
        coding=coding,
        interaction=interaction,
        float64=float64,
        parquet=parquet,
        locus_gap=locus_gap,
        overwrite=overwrite,
        restart=restart,
        threads=threads,
    )
    typer.echo("\n" + summary)


@app.command(short_help="Credible sets of causal variants in a region.")
@takes_options
def finemap(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=GENOTYPES)],
    pheno: Pheno,
    formula: Formula,
    region: Annotated[
        str, typer.Option(help="Chromosome, or CHROM:FIRST-LAST in base pairs, both included.")
    ],
    out: Folder,
    grm: Grm = None,
    basis: Basis = None,
    method: Annotated[
        Literal["gibbs", "susie", "exact"],
        typer.Option(
            help="gibbs (sampled, calibrated), susie (faster), or exact (all subsets of up to 15)."
        ),
    ] = "gibbs",
    max_effects: Annotated[int, typer.Option(min=1, help="Largest number of effects.")] = 10,
    expected_effects: Annotated[
        float,
        typer.Option(help="Mean of the prior of the number of effects, which is learned."),
    ] = 1.0,
    coverage: Annotated[float, typer.Option(help="Probability of a credible set.")] = 0.95,
    seed: Seed = None,
    *,
    reading: Reading,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Which variants of a region carry its effects: inclusion probabilities, credible sets.

    Relatedness comes from --basis or --grm, or is computed from all of BFILE; h2 is integrated
    out. Keep the region's chromosome in it.

    \b
    Example:
      bayeslmm finemap cohort --pheno traits.tsv --formula "height ~ sex" \\
                       --region 17:30000000-38000000 --out locus_17

    \b
    Writes to the folder --out, with the trait's name in the file's:
      summary.txt               credible sets; also printed
      finemap_TRAIT.tsv         every variant: posterior inclusion probability (pip), effect, set
      credible_sets_TRAIT.tsv   the sets: size, purity, Bayes factor, variants
      finemap_TRAIT.png
      samples_TRAIT.tsv         every sample: kept, or the reason why not
      provenance.json           versions, parameters, checksums of the input
    """
    from bayeslmm.commands import genome

    data = reading.data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        formulas=formula,
    )
    summary = genome.finemap(
        data,
        out=out,
        region=region,
        method=method,
        max_effects=max_effects,
        expected_effects=expected_effects,
        coverage=coverage,
        seed=seed,
        overwrite=overwrite,
        threads=threads,
    )
    typer.echo("\n" + summary)


@app.command(short_help="Variants associated given each other, step by step.")
@takes_options
def stepwise(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=GENOTYPES)],
    pheno: Pheno,
    formula: Formula,
    out: Folder,
    grm: Grm = None,
    basis: Basis = None,
    background: Background = "all",
    test: Annotated[
        Literal["wald", "lrt", "score", "p3d"],
        typer.Option(help="Whose p-value chooses the next variant."),
    ] = "wald",
    threshold: Annotated[
        float | None,
        typer.Option(help="Largest p of a variant that is added; 0.05 / variants by default."),
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="Search there only: 17 or 17:30000000-38000000.")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Add at most so many variants.")] = 20,
    *,
    reading: Reading,
    float64: Annotated[
        bool, typer.Option("--float64", help="Double precision: about half as fast.")
    ] = False,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Which variants are associated given each other: the best one joins the covariates, again.

    The scan is repeated with the best variant as a covariate until none is significant. Variants
    are not taken out again: see the p-values given all others.

    \b
    Example:
      bayeslmm stepwise cohort --pheno traits.tsv --formula "height ~ sex" --region 17 \\
                        --out steps_17

    \b
    Writes to the folder --out, with the trait's name in the file's:
      summary.txt              the variants, and why the search stopped; also printed
      stepwise_TRAIT.tsv       each with beta, SE and p alone, when added, and given all others
      samples_TRAIT.tsv        every sample: kept, or the reason why not
      provenance.json          versions, parameters, checksums of the input
    """
    from bayeslmm.commands import search as commands_search

    data = reading.data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        formulas=formula,
    )
    summary = commands_search.stepwise(
        data,
        out=out,
        test=test,
        threshold=threshold,
        region=region,
        max_steps=max_steps,
        background=background,
        float64=float64,
        overwrite=overwrite,
        threads=threads,
    )
    typer.echo("\n" + summary)


@app.command(short_help="The p-value that null phenotypes reach by chance.")
@takes_options
def threshold(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=GENOTYPES)],
    pheno: Pheno,
    formula: Formula,
    out: Folder,
    grm: Grm = None,
    basis: Basis = None,
    alpha: Annotated[
        float, typer.Option(help="Share of null phenotypes that may reach it anywhere.")
    ] = 0.05,
    replicates: Annotated[int, typer.Option(min=1, help="Number of null phenotypes.")] = 1000,
    method: Annotated[
        Literal["simulate", "permute"],
        typer.Option(
            help="simulate (from the fitted model), or permute (decorrelated residuals, for "
            "phenotypes that are not normal)."
        ),
    ] = "simulate",
    seed: Seed = None,
    region: Annotated[
        str | None, typer.Option(help="For tests there only: 17 or 17:30000000-38000000.")
    ] = None,
    *,
    reading: Reading,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Where genome-wide significance begins, for these samples, variants and this relatedness.

    Null phenotypes are scanned all at once; neighbouring variants are correlated, so that the
    threshold is milder than Bonferroni's.

    \b
    Example:
      bayeslmm threshold cohort --pheno traits.tsv --formula "height ~ sex" --seed 1 --out limit

    \b
    Writes to the folder --out, with the trait's name in the file's:
      summary.txt  threshold.tsv   the p-value, its 95% interval, effective number of tests
      null_min_p_TRAIT.tsv         smallest p of each null phenotype
      samples_TRAIT.tsv            every sample: kept, or the reason why not
      provenance.json              versions, parameters, checksums of the input
    """
    from bayeslmm.commands import search as commands_search

    data = reading.data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        formulas=formula,
    )
    summary = commands_search.threshold(
        data,
        out=out,
        alpha=alpha,
        replicates=replicates,
        method=method,
        seed=seed,
        region=region,
        overwrite=overwrite,
        threads=threads,
    )
    typer.echo("\n" + summary)
