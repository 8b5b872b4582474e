"""Commands of models: heritability, its parts, liability, genetic correlation."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from bayeslmm.cli.application import app
from bayeslmm.cli.options import (
    GENOTYPES,
    Basis,
    Folder,
    Formula,
    Genotypes,
    Grm,
    Overwrite,
    Pheno,
    Prior,
    Reading,
    Seed,
    Threads,
    takes_options,
)


@app.command(short_help="Heritability: REML and exact posterior.")
@takes_options
def h2(
    pheno: Pheno,
    formula: Formula,
    out: Folder,
    bfile: Genotypes = None,
    grm: Grm = None,
    basis: Basis = None,
    prior: Prior = "uniform",
    spike: Annotated[
        float, typer.Option(min=0, max=1, help="Prior probability that h2 is exactly 0.")
    ] = 0.0,
    draws: Annotated[
        int, typer.Option(help="Independent draws from the posterior to keep; 0 for none.")
    ] = 4000,
    seed: Seed = None,
    *,
    reading: Reading,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Estimate heritability: REML, and the exact posterior with an honest interval.

    The model is y = C b + u + e with u ~ N(0, s2_g K) and e ~ N(0, s2_e I); h2 is the share of
    the variance that u has. The posterior is integrated, not sampled: there is nothing to
    converge. Its 95% interval is the shortest one, so it can hold h2 = 0.

    \b
    Examples:
      bayeslmm h2 cohort --pheno traits.tsv --formula "height ~ sex + age" --out h2_height
      bayeslmm h2 --basis cohort.basis --pheno traits.tsv --formula "height ~ sex" \\
                  --formula "weight ~ sex" --spike 0.5 --out h2_both

    \b
    Writes to the folder --out, with one row per trait or the trait's name in the file's:
      summary.txt              what was found; also printed
      h2.tsv  covariates.tsv   h2 and variance components; effects of covariates
      h2_TRAIT.png             posterior, interval, prior and REML in one plot
      posterior_TRAIT.zarr     draws, for ArviZ: xarray.open_datatree(folder, engine="zarr")
      samples_TRAIT.tsv        every sample: kept, or the reason why not
      provenance.json          versions, parameters, checksums of the input
    """
    from bayeslmm.commands import heritability

    data = reading.data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        formulas=formula,
    )
    summary = heritability.h2(
        data,
        out=out,
        prior=prior,
        spike=spike,
        draws=draws,
        seed=seed,
        overwrite=overwrite,
        threads=threads,
    )
    typer.echo("\n" + summary)


@app.command(short_help="Heritability of annotations, chromosomes, households.")
@takes_options
def partition(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=GENOTYPES)],
    pheno: Pheno,
    formula: Formula,
    out: Folder,
    by: Annotated[
        str,
        typer.Option(
            help="chrom; maf or ld (bins of allele frequency or LD score); a .bed file of regions; "
            "or a table with two columns, variant id and label."
        ),
    ] = "chrom",
    household: Annotated[
        str | None,
        typer.Option(help="Column of the table with groups that share an environment."),
    ] = None,
    prior: Annotated[
        Literal["uniform", "split"],
        typer.Option(
            help="Prior on the shares: uniform (over all splits), or split (h2 uniform, its split "
            "uniform)."
        ),
    ] = "uniform",
    draws: Annotated[int, typer.Option(help="Draws from the posterior to keep.")] = 4000,
    evaluations: Annotated[
        int | None,
        typer.Option(help="Evaluations of the likelihood, with three kernels and more."),
    ] = None,
    seed: Seed = None,
    *,
    reading: Reading,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Partition heritability: a share of the variance for each group of variants.

    The model is y = C b + sum u_k + e with u_k ~ N(0, s2_k K_k), a relatedness matrix K_k for each
    group. REML with likelihood-ratio tests, the posterior of all shares together, and enrichment:
    the share of h2 over the share of variants.

    \b
    Examples:
      bayeslmm partition cohort --by chrom --pheno traits.tsv --formula "height ~ sex" --out chroms
      bayeslmm partition cohort --by coding.bed --household house --pheno traits.tsv \\
                         --formula "height ~ sex + age" --out coding

    \b
    Writes to the folder --out, with the trait's name in the file's:
      summary.txt                what was found; also printed
      components.tsv             each kernel: share (posterior, REML), variance, test
      enrichment_TRAIT.tsv .png  share of h2 over share of variants, P(> 1)
      shares_TRAIT.png           posterior and REML of the shares
      posterior_TRAIT.zarr       draws, for ArviZ
      samples_TRAIT.tsv          every sample: kept, or the reason why not
      provenance.json            versions, parameters, checksums of the input
    """
    from bayeslmm.commands import partition as commands_partition

    data = reading.data(
        genotypes=bfile,
        pheno=pheno,
        formulas=formula,
    )
    summary = commands_partition.partition(
        data,
        by=by,
        household=household,
        out=out,
        prior=prior,
        draws=draws,
        evaluations=evaluations,
        seed=seed,
        overwrite=overwrite,
        threads=threads,
    )
    typer.echo("\n" + summary)


@app.command(short_help="Liability of a case/control trait: heritability and risks.")
@takes_options
def liability(
    pheno: Pheno,
    formula: Annotated[
        str, typer.Option(help='Case/control trait and covariates, as "case ~ sex + age".')
    ],
    out: Folder,
    bfile: Genotypes = None,
    grm: Grm = None,
    basis: Basis = None,
    prevalence: Annotated[
        float | None,
        typer.Option(
            help="Share of cases in the population, if cases were sampled on purpose: adds PCGC "
            "regression, and makes the risks the population's."
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(help="Column with families, for the standard error of PCGC regression."),
    ] = None,
    prior: Prior = "uniform",
    draws: Annotated[int, typer.Option(min=1, help="Draws of each chain.")] = 1500,
    chains: Annotated[int, typer.Option(min=1, help="Chains; all share the work.")] = 8,
    seed: Seed = None,
    *,
    reading: Reading,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Sample the liability (probit) model: a case has a liability above 0.

    The liability is C b + u + e, u ~ N(0, h2 K / kappa), e ~ N(0, 1 - h2). It is the model of a
    random sample; for samples of cases and controls give --prevalence, and take the heritability
    from PCGC regression.

    \b
    Example:
      bayeslmm liability cohort --pheno traits.tsv --formula "case ~ sex" --prevalence 0.01 \\
                         --out liability_case

    \b
    Writes to the folder --out:
      summary.txt              what was found; also printed
      h2.tsv                   h2 of the liability by each method; the observed scale's number
      covariates.tsv           effects on the liability
      risk_TRAIT.tsv           each sample's risk with its interval
      h2_TRAIT.png             h2.tsv as a plot
      posterior_TRAIT.zarr     draws, for ArviZ: xarray.open_datatree(folder, engine="zarr")
      samples_TRAIT.tsv        every sample: kept, or the reason why not
      provenance.json          versions, parameters, checksums of the input
    """
    from bayeslmm.commands import liability as commands_liability

    data = reading.data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        formulas=[formula],
    )
    summary = commands_liability.liability(
        data,
        out=out,
        prevalence=prevalence,
        groups=groups,
        prior=prior,
        draws=draws,
        chains=chains,
        seed=seed,
        overwrite=overwrite,
        threads=threads,
    )
    typer.echo("\n" + summary)


@app.command(short_help="Genetic correlation of two traits.")
@takes_options
def rg(
    pheno: Pheno,
    formula: Annotated[
        list[str],
        typer.Option(help='Trait and covariates, as "cd8 ~ sex + age"; given twice.'),
    ],
    out: Folder,
    bfile: Genotypes = None,
    grm: Grm = None,
    basis: Basis = None,
    samples: Annotated[
        Literal["common", "all"],
        typer.Option(
            help="Who is analysed: those with both traits (common), or with one of them too (all; "
            "slower)."
        ),
    ] = "common",
    prior: Prior = "uniform",
    rg_prior: Annotated[
        float,
        typer.Option(
            help="eta of the prior on rg, proportional to (1 - rg^2)^(eta - 1): 1 is flat, more "
            "favours 0."
        ),
    ] = 1.0,
    re_prior: Annotated[float, typer.Option(help="The same for the residual correlation.")] = 1.0,
    draws: Annotated[int, typer.Option(min=100, help="Draws from the posterior to keep.")] = 4000,
    seed: Seed = None,
    *,
    reading: Reading,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Genetic and residual correlation of two traits, with their heritabilities.

    REML with standard errors and likelihood-ratio tests of rg = 0, 1 and -1, and the posterior
    under stated priors: intervals stay within -1 and 1, and hold where REML ends at a limit.

    \b
    Examples:
      bayeslmm rg cohort --pheno traits.tsv --formula "cd8 ~ sex" --formula "mch ~ sex" --out rg
      bayeslmm rg --basis cohort.basis --pheno traits.tsv --formula "cd8 ~ sex" \\
                  --formula "mch ~ sex" --samples all --out rg_all

    \b
    Writes to the folder --out:
      summary.txt                      what was found, and what it means; also printed
      rg.tsv                           correlations and heritabilities: posterior, REML
      tests.tsv                        likelihood-ratio tests of rg = 0, 1, -1
      covariances.tsv                  genetic and residual (co)variances: posterior, REML
      covariates.tsv                   effects in both traits
      rg.png  joint.png                posterior of rg; of both correlations
      posterior.zarr                   draws: xarray.open_datatree(folder, engine="zarr")
      samples.tsv                      every sample: kept, or the reason why not
      provenance.json                  versions, parameters, checksums of the input
    """
    from bayeslmm.commands import bivariate as commands_bivariate

    data = reading.data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        formulas=formula,
    )
    summary = commands_bivariate.rg(
        data,
        out=out,
        samples=samples,
        prior=prior,
        rg_prior=rg_prior,
        re_prior=re_prior,
        draws=draws,
        seed=seed,
        overwrite=overwrite,
        threads=threads,
    )
    typer.echo("\n" + summary)
