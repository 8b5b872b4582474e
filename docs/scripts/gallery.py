"""Every public plot, drawn from the embedded mice: docs/gallery.md.

    python docs/scripts/gallery.py [--out docs/figures/gallery] [--colours PATH]

Prints what each took. With --colours every plot is written again as people without the receptors
for green see it (deuteranopia, Machado et al. 2009, severity 1). Takes half a minute.
"""

from __future__ import annotations

import argparse
import io
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import bayeslmm as bl
from bayeslmm import plots

DPI = 80
# Machado GM, Oliveira MM, Fernandes LAF (2009), IEEE Trans Vis Comput Graph 15:1291: linear RGB.
DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)


def scans() -> Iterator[tuple[str, Callable[[], Axes]]]:
    """Plots of whole genomes and of loci."""
    mice = bl.datasets.mouse_hs1940()
    K = bl.grm(mice.genotypes)
    cd8, mch = (bl.LMM(f"{name} ~ sex", mice.phenotypes, K) for name in ("cd8", "mch"))
    hits, others = (model.scan(mice.genotypes, progress=False) for model in (cd8, mch))
    yield "manhattan", lambda: plots.manhattan(hits)
    yield "qq", lambda: plots.qq(hits)
    yield "miami", lambda: plots.miami(hits, others, names=("cd8", "mch"))
    analysed = mice.genotypes.select(samples=cd8.ids)
    few = bl.LMM("cd8 ~ sex", mice.phenotypes.loc[cd8.ids[:200]], K)
    found = cd8.finemap(region="17:30000000-40000000", seed=1)
    yield "fine_mapping", lambda: plots.fine_mapping(found)
    lead = hits[hits.chrom.eq("17") & hits.pos.gt(0)].nlargest(1, "neg_log10_p").id.item()
    yield "regional", lambda: plots.regional(hits, analysed, lead)
    yield (
        "inflation",
        lambda: plots.inflation(
            bl.inflation(few, mice.genotypes.select(chrom=[1, 17]), replicates=2, seed=1)
        ),
    )


def heritability() -> Iterator[tuple[str, Callable[[], Axes]]]:
    """Plots of one trait: posterior, intervals, priors, effects, residuals, calibration."""
    mice = bl.datasets.mouse_hs1940()
    K = bl.grm(mice.genotypes)
    models = {name: bl.LMM(f"{name} ~ sex", mice.phenotypes, K) for name in ("cd8", "mch")}
    cd8 = models["cd8"]
    few = bl.LMM("cd8 ~ sex", mice.phenotypes.loc[cd8.ids[:200]], K)
    yield "h2", lambda: plots.h2(cd8)
    yield "h2_report", lambda: plots.h2_report(few.h2_report())
    yield "prior_table", lambda: plots.prior_table(few.prior_table())
    yield "variance_partition", lambda: plots.variance_partition(models)
    yield "residuals", lambda: plots.residuals(cd8.check_residuals())
    yield "coverage", lambda: plots.coverage(few.coverage(replicates=500, seed=1))
    spectrum = bl.family_eigenvalues(400, 2)
    yield "design", lambda: plots.design(bl.design(spectrum))
    yield (
        "calibration",
        lambda: plots.calibration(bl.calibrate(few, replicates=200, seed=1, progress=False)),
    )
    held_out = cd8.ids[200:400]
    predicted = few.predict(samples=held_out, data=mice.phenotypes, seed=1)
    yield "predictions", lambda: plots.predictions(predicted, mice.phenotypes.cd8)
    yield "prior_predictive", lambda: plots.prior_predictive(few.prior_predictive(seed=1))
    hits = cd8.scan(mice.genotypes, progress=False)
    leads = hits.nsmallest(500, "p_wald").drop_duplicates("chrom").head(6).id
    tree = cd8.sample(leads, "spike_slab", seed=1)
    yield "effects", lambda: plots.effects(tree, hits)


def structure() -> Iterator[tuple[str, Callable[[], Axes]]]:
    """Plots of relatedness."""
    mice = bl.datasets.mouse_hs1940()
    few = mice.genotypes.select(samples=mice.phenotypes.index[:200])
    K = bl.grm(few)
    families = mice.phenotypes.family.loc[K.samples]
    yield "relatedness", lambda: plots.relatedness(K, families)
    found = bl.pca(K, 4)
    yield "pcs", lambda: plots.pcs(found, mice.phenotypes, color="cd8")
    yield "relatives", lambda: plots.relatives(bl.relatives(few, min_kinship=None))


def others() -> Iterator[tuple[str, Callable[[], Axes]]]:
    """Plots of repeated measures, several kernels, two traits, cases and controls."""
    mice = bl.datasets.mouse_hs1940()
    ids = mice.phenotypes.dropna().index[:400]
    few = mice.genotypes.select(samples=ids)
    # Made-up second and third measurements: cd8 with an error as large as a third of its variance.
    rng = np.random.default_rng(1)
    records = pd.DataFrame({"mouse": np.repeat(ids, 3), "sex": mice.phenotypes.sex[ids].repeat(3)})
    cd8 = mice.phenotypes.cd8[ids].to_numpy().repeat(3)
    records["cd8"] = cd8 + rng.normal(scale=0.58 * cd8.std(), size=len(cd8))
    repeated = bl.RepeatedLMM("cd8 ~ sex", records, bl.grm(few), id="mouse")
    chains = repeated.sample(seed=1)
    yield "repeatability", lambda: plots.repeatability(chains, repeated.reml())
    made = bl.partition_grms(few, bl.maf_bins(few, [0.1, 0.2, 0.3]))
    parts = bl.PartitionedLMM("cd8 ~ sex", mice.phenotypes, dict(made))
    tree = parts.posterior(2000, seed=1)
    yield "shares", lambda: plots.shares(tree, parts.reml())
    yield "enrichment", lambda: plots.enrichment(parts.enrichment(tree))
    chromosomes = bl.partition_grms(few, "chrom")
    each = bl.PartitionedLMM("cd8 ~ sex", mice.phenotypes, dict(chromosomes))
    yield "chromosome_h2", lambda: plots.chromosome_h2(each.reml().components, few)
    pair = bl.BivariateLMM(["cd8 ~ sex", "mch ~ sex"], mice.phenotypes, bl.grm(few))
    report = pair.rg(seed=1)
    yield "rg", lambda: plots.rg(report)
    yield "two_traits", lambda: plots.two_traits(report)
    table = mice.phenotypes.loc[ids].assign(
        high=lambda t: np.where(t.cd8 > t.cd8.quantile(0.7), "case", "control")
    )
    known, absent = ids[:300], ids[300:]
    liability = bl.LiabilityLMM("high ~ sex", table.loc[known], bl.grm(few), prevalence=0.3)
    draws = liability.sample(seed=1, progress=False)
    yield "liability_scales", lambda: plots.liability_scales(liability.scales(draws))
    risk = liability.predict(draws, samples=absent, data=table.loc[absent]).risk
    yield (
        "reliability",
        lambda: plots.reliability(
            risk.to_numpy(), (table.high.loc[absent] == "case").to_numpy(), bins=5
        ),
    )
    rng = np.random.default_rng(1)
    truth = np.repeat([0.2, 0.5], 20)
    rows = pd.DataFrame({"prevalence": 0.1, "h2": truth})
    for name, factor in (("observed", 0.5), ("liability", 1.4), ("pcgc", 1.0)):
        rows[name] = truth * factor + rng.normal(scale=0.08, size=len(truth))
    yield "ascertainment", lambda: plots.ascertainment(rows)  # made-up numbers


def as_deuteranope(rgb: np.ndarray) -> np.ndarray:
    """Colours (..., 3) in [0, 1] as they look without the receptors for green."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ DEUTERANOPIA.T, 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/figures/gallery"))
    parser.add_argument("--colours", type=Path)
    parser.add_argument("--only", help="names with commas between them")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    drawn: set[str] = set()
    for group in (scans, heritability, structure, others):
        for name, draw in group():
            if given.only and name not in given.only.split(","):
                continue
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                figure: Any = draw().figure
            assert isinstance(figure, Figure)
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight")
            (given.out / f"{name}.png").write_bytes(file.getvalue())
            drawn.add(name)
            print(f"{name:20} {time.perf_counter() - start:5.1f} s")
            if given.colours is not None:
                given.colours.mkdir(parents=True, exist_ok=True)
                image = matplotlib.image.imread(given.out / f"{name}.png")[..., :3]
                matplotlib.image.imsave(given.colours / f"{name}.png", as_deuteranope(image))
    missing = set(plots.__all__) - drawn - {"save"}
    if missing and not given.only:
        raise SystemExit(f"Not in the gallery: {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
