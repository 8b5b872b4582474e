"""What the command line's commands for large cohorts do, once their options are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayeslmm.commands.shared import genotype_files, selected
from bayeslmm.inputs.genotypes import read_genotypes
from bayeslmm.relatedness import sparse as sparse_relatedness
from bayeslmm.relatedness.simulate import simulate_cohort
from bayeslmm.runs.files import existing
from bayeslmm.runs.progress import blas_threads
from bayeslmm.runs.results import Clock, result_files, write_provenance, write_table


def simulate(out: str, n: int, m: int, **options: Any) -> str:
    """Write a simulated cohort; returns a summary."""
    cohort = simulate_cohort(out, n, m, **options)
    truth = cohort.truth
    families = cohort.genotypes.samples.fid.nunique()
    return (
        f"{out}: {n:,} samples in {families:,} families, {m:,} variants, "
        f"{truth['causal']:,} of them causal. The trait y has h2 = {truth['h2']:g} (in this sample "
        f"{truth['realised_h2']:.4f}); see {out}.truth.json."
    )


def sparse_grm(
    bfile: str,
    *,
    out: str,
    scale: str,
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
        kernel = sparse_relatedness.sparse_grm(
            genotypes,
            threshold=threshold,
            pairs=pairs,
            scale=scale,  # type: ignore[arg-type]
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
