"""The command `demo`: the main job on the embedded mice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm import datasets
from bayeslmm.commands.genome import scan_lines, write_scan
from bayeslmm.commands.heritability import heritability_lines, write_heritability
from bayeslmm.commands.sampling import sample_posterior, snp_lines, write_snp_effects
from bayeslmm.commands.shared import aligned, paragraph, warning_lines
from bayeslmm.genome.loci import lead_variants
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.model import tables
from bayeslmm.model.lmm import LMM
from bayeslmm.relatedness.sums import grm as make_grm
from bayeslmm.runs.progress import blas_threads
from bayeslmm.runs.results import PROVENANCE, Clock, result_folder, write_provenance, write_table

_DEMO_SNPS = 6


def demo(*, out: Path, overwrite: bool, threads: int | None, show: Callable[[str], Any]) -> None:
    """Run everything on the embedded mice; what was found is shown as soon as it is known."""
    clock = Clock()
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        mice = datasets.mouse_hs1940()
        n, m = mice.genotypes.shape
        clock(f"{n:,} mice, {m:,} SNPs and the traits cd8 and mch, from the package")
        kernel = make_grm(mice.genotypes)
        clock(f"relatedness of every pair of mice, from {kernel.n_variants:,} SNPs")
        models = {name: LMM(f"{name} ~ sex", mice.phenotypes, kernel) for name in ("cd8", "mch")}
        for name, model in models.items():
            _ = model.rotated
            clock(f"{name}: decomposition for {len(model.y):,} mice")
        write_heritability(folder, models, draws=0, seed=None)
        clock("heritability: REML and the exact posterior")
        hits = models["cd8"].scan(mice.genotypes, threads=threads)
        clock("genome scan of cd8")
        write_table(hits, folder / "scan_cd8.tsv.gz")
        write_scan(folder, "cd8", models["cd8"], hits, mice.genotypes)
        clock("plots")
        exact = [
            "# Is it in the genes? Two blood traits of 1,940 mice",
            "",
            *paragraph(
                "cd8 is the proportion of CD8+ T cells, mch the mean haemoglobin of a red cell. "
                "Both are adjusted for sex. (Valdar et al. 2006, Nat Genet 38:879)"
            ),
            "",
            *heritability_lines(models),
            "",
            *scan_lines("cd8", models["cd8"], hits, hits.iloc.__getitem__),
        ]
        show("\n" + "\n".join(exact) + "\n")
        sampled = _demo_sampling(folder, models, hits, mice.genotypes, clock)
        sampled += [
            "",
            "## Next",
            f"Pictures    {out}: manhattan_cd8.png, qq_cd8.png, h2_cd8.png, h2_mch.png,",
            "            effects_cd8.png",
            f"All SNPs    {out / 'scan_cd8.tsv.gz'}",
            "Your turn   bayeslmm demo --files mice   (the mice as files, and what to try on them)",
        ]
        (folder / "summary.txt").write_text("\n".join([*exact, "", *sampled]) + "\n")
        parameters = {"formulas": [model.formula for model in models.values()]}
        write_provenance(
            folder / PROVENANCE, [], parameters, data=datasets.SHA256, seconds=clock.seconds
        )
    clock(f"written to {out}")
    show("\n".join(sampled))


def _demo_sampling(
    folder: Path, models: dict[str, LMM], hits: pd.DataFrame, genotypes: Genotypes, clock: Clock
) -> list[str]:
    """NUTS beside the exact posterior, and the joint effects of the scan's best SNPs."""
    clock("NUTS: the generative model is compiled, which takes 10 to 20 s on a new machine")
    told: list[str] = []
    rows = [["", "exact: mean", "sd", "95% interval", "NUTS: mean", "sd", "95% interval"]]
    for name, model in models.items():
        tree, problems = sample_posterior(model, seed=1, log_likelihood=False)
        clock(f"{name}: 4 chains of 1,000 draws by NUTS")
        told += problems
        posterior = model.h2_posterior()
        draws = np.ravel(tree["posterior"]["h2"])
        cells = [name]
        for mean, sd, (low, high) in (
            (posterior.mean, posterior.sd, posterior.hdi()),
            (draws.mean(), draws.std(), tables.interval(draws)),
        ):
            cells += [f"{mean:.3f}", f"{sd:.3f}", f"{low:.3f} to {high:.3f}"]
        rows.append(cells)
    leads = hits.iloc[lead_variants(hits, _DEMO_SNPS)]
    tree, problems = sample_posterior(models["cd8"], snps=leads.id, seed=1, log_likelihood=False)
    clock(f"cd8: effects of {len(leads)} SNPs together")
    told += problems
    write_snp_effects(folder, tree, hits, genotypes, suffix="_cd8")
    return [
        "## The same heritability by NUTS, from 4 chains of 1,000 draws of the PyMC model",
        *aligned(rows),
        *paragraph(
            "The exact posterior is integrated and has no sampling error; NUTS takes any prior "
            "and any change of the model."
        ),
        "",
        *snp_lines("cd8", tree, hits),
        *warning_lines(told),
    ]


def demo_files(folder: Path, *, overwrite: bool) -> str:
    """Write the mice as files; returns what to do with them."""
    prefix = datasets.write_mouse_hs1940(folder, overwrite=overwrite)
    pheno = f"{prefix}.pheno.tsv"
    return "\n".join(
        [
            f"The mice are in {prefix}.bed, .bim and .fam, their traits in {pheno}. Try:",
            "",
            f'  bayeslmm h2 {prefix} --pheno {pheno} --formula "cd8 ~ sex" --out h2_cd8',
            f'  bayeslmm scan {prefix} --pheno {pheno} --formula "mch ~ sex" --out scan_mch',
            "",
            "for those who do not use Python,",
            "",
            "  bayeslmm report scan_mch",
            "",
            "and, where the relatedness is to be computed only once:",
            "",
            f"  bayeslmm grm {prefix} --out mice",
            "  bayeslmm eigen mice --out mice.basis",
            f'  bayeslmm h2 --basis mice.basis --pheno {pheno} --formula "mch ~ sex" --out h2_mch',
        ]
    )
