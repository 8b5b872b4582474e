"""The application: its help, and errors as one line with an exit code."""

from __future__ import annotations

import errno
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
