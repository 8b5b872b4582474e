"""Commands on finished results: the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayeslmm.cli.application import app
from bayeslmm.cli.options import LocusGap, Overwrite, Threads


@app.command(short_help="One HTML page of results, for readers without Python.")
def report(
    results: Annotated[
        Path,
        typer.Argument(
            help="Folder that bayeslmm h2, scan, partition, rg, liability, sample, finemap or "
            "predict has written."
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

    Of bayeslmm partition, rg and liability: shares, the genetic correlation, h2 of the liability;
    of sample, finemap and predict: effects of SNPs together, credible sets, predictions. The page
    needs no network and no other file. It is made of the results and of the files that they were
    made from, which must still be there, unchanged. Of a folder with several traits each has a page
    of its own, report_TRAIT.html.

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
