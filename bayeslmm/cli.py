"""The command line. Only options and help are here: what they do is in `bayeslmm.commands`.

Nothing heavy is imported until a command runs, so that help comes at once. In the help of
commands, \\b keeps the lines of a paragraph as they are.
"""
# ruff: noqa: D301

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bayeslmm import __version__
from bayeslmm.errors import InputError


class Group(TyperGroup):
    """Turns what users can mend into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command: 2 for bad input, 130 when interrupted."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            _stop(str(error))
        except OSError as error:
            if error.errno is None or error.errno == errno.EPIPE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            _stop(f"{where}{error.strerror}.")
        except KeyboardInterrupt:
            typer.secho("interrupted; no results were written", fg="yellow", err=True)
            raise typer.Exit(130) from None


def _stop(message: str) -> None:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    raise typer.Exit(2)


app = typer.Typer(
    cls=Group,
    name="bayeslmm",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help needs a third of the time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

# -- options that commands share ---------------------------------------------------------------

Folder = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results that are there already.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Begin anew, though an unfinished run left parts.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Processors to use; all by default.")]
Maf = Annotated[
    float | None,
    typer.Option("--maf", min=0, max=0.5, help="Leave out variants with a rarer minor allele."),
]
MaxMissing = Annotated[
    float | None,
    typer.Option(
        "--max-missing", min=0, max=1, help="Leave out variants with more missing genotypes."
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        help="How variants are weighted in the relatedness matrix: standardized (GCTA; the "
        "default), centered (GEMMA -gk 1) or empirical (GEMMA -gk 2)."
    ),
]
Chrom = Annotated[
    list[str] | None,
    typer.Option(help="Only this chromosome; again or with commas (1,2,X) for several."),
]
Pheno = Annotated[
    Path,
    typer.Option(
        help="Table with a header: sample ids in IID (and FID) or the first column, then traits "
        "and covariates. Tabs, commas or blanks; NA and -9 are missing."
    ),
]
Id = Annotated[
    str | None, typer.Option("--id", help="Column with the sample ids, if it is another one.")
]
Formula = Annotated[
    list[str],
    typer.Option(help='Trait and covariates, as "cd8 ~ sex + age". May be given several times.'),
]
Missing = Annotated[
    str,
    typer.Option(
        help="What a sample without a covariate is: an error, or a reason to drop it (error|drop)."
    ),
]
Na = Annotated[
    str | None,
    typer.Option(
        "--na",
        help="What means missing in the table, with commas between, in place of NA, NaN, N/A, . "
        "and -9. An empty field always does.",
    ),
]
Grm = Annotated[
    str | None,
    typer.Option(
        "--grm", help="Relatedness made before: prefix of GCTA's .grm.bin, or GEMMA's .cXX.txt."
    ),
]
Basis = Annotated[
    Path | None, typer.Option("--basis", help="Eigenbasis made before by bayeslmm eigen.")
]
_GENOTYPES = "Genotypes: .bed, .pgen, .bgen, .vcf, .bcf, VCF-Zarr, or the prefix of their files."
Genotypes = Annotated[
    str | None,
    typer.Argument(metavar="BFILE", help=f"{_GENOTYPES} Or give --grm or --basis."),
]
Prior = Annotated[str, typer.Option(help='Prior on h2: uniform, or beta(a,b) as in "beta(2,3)".')]
Seed = Annotated[int | None, typer.Option(help="Makes the draws reproducible.")]
LocusGap = Annotated[
    float,
    typer.Option(help="Significant variants closer than this, in base pairs, are one locus."),
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"bayeslmm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Heritability with honest uncertainty, and genome scans, in related samples.

    \b
    First steps:
      bayeslmm demo                  everything once, on real mice, in seconds
      bayeslmm demo --files mice     the same mice as files, to try the rest with

    \b
    Your own data: PLINK's cohort.bed, .bim and .fam, and a table of traits.
      bayeslmm h2   cohort --pheno traits.tsv --formula "height ~ sex + age" --out h2_height
      bayeslmm scan cohort --pheno traits.tsv --formula "height ~ sex + age" --out scan_height

    \b
    The generative model: draws by NUTS, joint effects of SNPs, prediction of other samples.
      bayeslmm sample  cohort --pheno ... --formula ... --snps rs1,rs2 --out ...
      bayeslmm predict cohort --pheno ... --formula ... --new others --out ...

    \b
    Many traits or large data: keep what is slow, the relatedness and its eigenvectors.
      bayeslmm grm   cohort --out cohort
      bayeslmm eigen cohort --out cohort.basis
      bayeslmm scan  cohort --basis cohort.basis --pheno ... --formula ... --out ...

    Every command explains itself with --help. Samples are matched by id, never by order;
    every sample and variant left out is listed with the reason.
    """


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


@app.command(short_help="Relatedness of every pair of samples.")
def grm(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=_GENOTYPES)],
    out: Annotated[str, typer.Option(help="Prefix of the files to write.")],
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
    chrom: Chrom = None,
    format: Annotated[str, typer.Option("--format", help="gcta or gemma.")] = "gcta",
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

    if format not in ("gcta", "gemma"):
        raise InputError(f"--format {format} is unknown; expected gcta or gemma.")
    if sparse:
        from bayeslmm.commands import large as commands_large

        if format != "gcta":
            raise InputError("--sparse writes GCTA's format only: leave out --format gemma.")
        if restart:
            raise InputError("--sparse keeps no unfinished work: leave out --restart.")
        typer.echo(
            commands_large.sparse_grm(
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


@app.command(short_help="Principal components of genotypes.")
def pca(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=_GENOTYPES)],
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
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=_GENOTYPES)],
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
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=_GENOTYPES)],
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
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=_GENOTYPES)],
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
    from bayeslmm.commands import large as commands_large

    typer.echo(
        commands_large.simulate(
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


@app.command(short_help="Heritability: REML and exact posterior.")
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
    id: Id = None,
    missing: Missing = "error",
    na: Na = None,
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
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
    from bayeslmm.commands.data import Data

    data = Data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        id=id,
        formulas=formula,
        scale=scale,
        maf=maf,
        max_missing=max_missing,
        missing=missing,
        na=na,
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
def partition(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help="Prefix of .bed, .bim and .fam.")],
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
        str,
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
    id: Id = None,
    missing: Missing = "error",
    na: Na = None,
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
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
    from bayeslmm.commands.data import Data

    data = Data(
        genotypes=bfile,
        pheno=pheno,
        id=id,
        formulas=formula,
        scale=scale,
        maf=maf,
        max_missing=max_missing,
        missing=missing,
        na=na,
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
    id: Id = None,
    missing: Missing = "error",
    na: Na = None,
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
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
    from bayeslmm.commands.data import Data

    data = Data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        id=id,
        formulas=[formula],
        scale=scale,
        maf=maf,
        max_missing=max_missing,
        missing=missing,
        na=na,
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


@app.command(short_help="Association test of every variant.")
def scan(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=_GENOTYPES)],
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
        str,
        typer.Option(
            help="gaussian (a linear mixed model), or binomial: cases and controls, coded 0/1, 1/2 "
            "(2 is the case) or in words, by logistic regression."
        ),
    ] = "gaussian",
    background: Annotated[
        str,
        typer.Option(
            help="Relatedness behind a variant: all (of all variants), loco (without its "
            "chromosome), rest+chrom (both, each with its own variance). In families: all."
        ),
    ] = "all",
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
        str,
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
    id: Id = None,
    missing: Missing = "error",
    na: Na = None,
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
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
    from bayeslmm.commands.data import Data

    data = Data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        id=id,
        formulas=formula,
        scale=scale,
        maf=maf,
        max_missing=max_missing,
        missing=missing,
        na=na,
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
def finemap(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help=_GENOTYPES)],
    pheno: Pheno,
    formula: Formula,
    region: Annotated[
        str, typer.Option(help="Chromosome, or CHROM:FIRST-LAST in base pairs, both included.")
    ],
    out: Folder,
    grm: Grm = None,
    basis: Basis = None,
    method: Annotated[
        str,
        typer.Option(
            help="gibbs (sampled, calibrated), susie (faster), or exact (all subsets of up to 15)."
        ),
    ] = "gibbs",
    max_effects: Annotated[int, typer.Option(min=1, help="Largest number of effects.")] = 10,
    expected_effects: Annotated[
        float, typer.Option(help="Effects that are expected before the data are seen.")
    ] = 1.0,
    coverage: Annotated[float, typer.Option(help="Probability of a credible set.")] = 0.95,
    seed: Seed = None,
    id: Id = None,
    missing: Missing = "error",
    na: Na = None,
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
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
    from bayeslmm.commands.data import Data

    data = Data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        id=id,
        formulas=formula,
        scale=scale,
        maf=maf,
        max_missing=max_missing,
        missing=missing,
        na=na,
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
def stepwise(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help="Prefix of .bed, .bim and .fam.")],
    pheno: Pheno,
    formula: Formula,
    out: Folder,
    grm: Grm = None,
    basis: Basis = None,
    background: Annotated[
        str, typer.Option(help="Relatedness behind a variant, as in bayeslmm scan.")
    ] = "all",
    test: Annotated[str, typer.Option(help="wald, lrt, score or p3d.")] = "wald",
    threshold: Annotated[
        float | None,
        typer.Option(help="Largest p of a variant that is added; 0.05 / variants by default."),
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="Search there only: 17 or 17:30000000-38000000.")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Add at most so many variants.")] = 20,
    id: Id = None,
    missing: Missing = "error",
    na: Na = None,
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
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
    from bayeslmm.commands.data import Data

    data = Data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        id=id,
        formulas=formula,
        scale=scale,
        maf=maf,
        max_missing=max_missing,
        missing=missing,
        na=na,
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
def threshold(
    bfile: Annotated[str, typer.Argument(metavar="BFILE", help="Prefix of .bed, .bim and .fam.")],
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
        str,
        typer.Option(
            help="simulate (from the fitted model), or permute (decorrelated residuals, for "
            "phenotypes that are not normal)."
        ),
    ] = "simulate",
    seed: Seed = None,
    region: Annotated[
        str | None, typer.Option(help="For tests there only: 17 or 17:30000000-38000000.")
    ] = None,
    id: Id = None,
    missing: Missing = "error",
    na: Na = None,
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
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
    from bayeslmm.commands.data import Data

    data = Data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        id=id,
        formulas=formula,
        scale=scale,
        maf=maf,
        max_missing=max_missing,
        missing=missing,
        na=na,
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


@app.command(short_help="Draws from the posterior by NUTS; joint SNP effects.")
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
        str | None,
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
    sampler: Annotated[str, typer.Option(help="Which NUTS: nutpie or pymc.")] = "nutpie",
    u: Annotated[
        bool, typer.Option("--u", help="Draw the genetic values u of all samples too.")
    ] = False,
    log_likelihood: Annotated[
        bool,
        typer.Option(
            "--log-likelihood", help="Keep each sample's log-likelihood, for leave-one-out (large)."
        ),
    ] = False,
    id: Id = None,
    missing: Missing = "error",
    na: Na = None,
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
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
    from bayeslmm.commands.data import Data

    data = Data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        id=id,
        formulas=formula,
        scale=scale,
        maf=maf,
        max_missing=max_missing,
        missing=missing,
        na=na,
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
        typer.Option(help="Table with the covariates of the samples to predict, if there are any."),
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
    id: Id = None,
    missing: Missing = "error",
    na: Na = None,
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
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
      snp_effects.tsv    with --snp-effects: every SNP's effect per allele
      samples.tsv        every sample of --pheno and BFILE: learned from, or the reason why not
      provenance.json    versions, parameters, checksums of the input
    """
    from bayeslmm.commands import prediction
    from bayeslmm.commands.data import Data

    data = Data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        id=id,
        formulas=formula,
        scale=scale,
        maf=maf,
        max_missing=max_missing,
        missing=missing,
        na=na,
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


@app.command(short_help="One HTML page of results, for readers without Python.")
def report(
    results: Annotated[
        Path,
        typer.Argument(
            help="Folder that bayeslmm h2, scan, partition, rg or liability has written."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write; by default report.html in the folder."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    question: Annotated[str, typer.Option(help="What the analysis is for, in a sentence.")] = "",
    finemap: Annotated[
        int, typer.Option(min=0, help="How many of the strongest loci are fine-mapped.")
    ] = 3,
    locus_gap: LocusGap = 5e6,
    seed: Annotated[int, typer.Option(help="For everything random.")] = 1,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Everything about a trait on one page: heritability, genome scan, loci, checks, methods.

    Of bayeslmm partition, rg and liability: shares, the genetic correlation, h2 of the liability.
    The page needs no network and no other file. It is made of the results and of the files that
    they were made from, which must still be there, unchanged. Of a folder with several traits
    each has a page of its own, report_TRAIT.html.

    \b
    Example:
      bayeslmm scan cohort --pheno traits.tsv --formula "height ~ sex" --out results
      bayeslmm report results --question "Which genes make people tall?"
    """
    from bayeslmm.commands import report as commands_report

    summary = commands_report.report(
        results,
        out=out,
        title=title,
        question=question,
        finemap=finemap,
        locus_gap=locus_gap,
        seed=seed,
        overwrite=overwrite,
        threads=threads,
    )
    typer.echo("\n" + summary)


@app.command(short_help="Genetic correlation of two traits.")
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
        str,
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
    id: Id = None,
    missing: Missing = "error",
    na: Na = None,
    scale: Scale = None,
    maf: Maf = None,
    max_missing: MaxMissing = None,
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
    from bayeslmm.commands.data import Data

    data = Data(
        genotypes=bfile,
        grm=grm,
        basis=basis,
        pheno=pheno,
        id=id,
        formulas=formula,
        scale=scale,
        maf=maf,
        max_missing=max_missing,
        missing=missing,
        na=na,
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


def main() -> None:
    """Run the command line."""
    app()
