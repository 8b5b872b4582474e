"""Coverage of three intervals for h2 on four kinds of samples: docs/heritability-intervals.md.

    python docs/scripts/h2_intervals.py [--repeats 10000] [--out docs/figures]

Prints the tables and draws the figures. Nothing but eigenvalues is needed: phenotypes are drawn as
independent contrasts. Takes a few minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import bayeslmm as bl
from bayeslmm import plots
from bayeslmm.model import designs
from bayeslmm.model.intervals import Nodes, simulated_chi2
from bayeslmm.plots import drawing

TRUE_H2 = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.95)


def spectra() -> dict[str, np.ndarray]:
    """Eigenvalues of the contrasts of each set of samples."""
    mice = bl.datasets.mouse_hs1940()
    grm = bl.grm(mice.genotypes)
    model = bl.LMM("cd8 ~ sex", mice.phenotypes, grm)
    some = np.sort(np.random.default_rng(1).choice(model.ids, size=150, replace=False))
    few = bl.LMM("cd8 ~ sex", mice.phenotypes.loc[some], grm)
    return {
        "1,410 mice": model.contrast_eigenvalues,
        "2,000 unrelated": bl.unrelated_eigenvalues(2000, 20_000),
        "250 families of 4 sibs": bl.family_eigenvalues(250, 4),
        "150 mice": few.contrast_eigenvalues,
    }


def over_the_prior(nodes: Nodes, repeats: int) -> float:
    """Coverage of the posterior interval for true values from its prior, the uniform."""
    study = designs.Study(nodes, bl.priors.uniform())
    truths = (np.arange(100) + 0.5) / 100
    rng = np.random.default_rng(5)
    covered = []
    for truth in truths:
        found = study.simulate(float(truth), simulated_chi2(len(nodes.lam), repeats, rng))
        low, high = found.low["posterior"], found.high["posterior"]
        covered.append(np.mean((low <= truth) & (truth <= high)))
    return float(np.mean(covered))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    tables = {}
    all_nodes = {name: Nodes(lam) for name, lam in spectra().items()}
    for name, nodes in all_nodes.items():
        table = designs.coverage(
            nodes, true_h2=TRUE_H2, replicates=options.repeats, nulls=2 * options.repeats, seed=1
        )
        tables[name] = table
        average = over_the_prior(nodes, options.repeats // 20)
        print(f"\n{name}: posterior covers {average:.4f} over its prior")
        wide = table.pivot_table(index="true_h2", columns="interval", values=["coverage", "width"])
        wide = wide.loc[:, [(v, i) for v in ("coverage", "width") for i in designs.INTERVALS]]
        wide.columns = [f"{interval} {value}" for value, interval in wide.columns]
        ends = table.groupby("true_h2")[["estimate_at_0", "estimate_at_1"]].first()
        print(pd.concat([wide, ends], axis=1).round(3).to_string())

    figure = Figure(figsize=(13.5, 6.4), layout="constrained")
    axes = figure.subplots(2, len(tables), sharex=True)
    for column, (name, table) in zip(axes.T, tables.items(), strict=True):
        plots.coverage(table, ax=column[0], title=name)
        plots.coverage(table, what="width", ax=column[1])
        column[0].set_xlabel("")
        for ax in column:
            if ax is not axes[1, 0]:
                ax.get_legend().remove()
        column[0].set_ylim(0.855, 1.003)
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    figure.savefig(options.out / "h2_intervals.png", dpi=130)

    # REML estimates pile up at 0 and 1 where samples are few.
    nodes = all_nodes["150 mice"]
    study = designs.Study(nodes, bl.priors.uniform())
    chi2 = simulated_chi2(len(nodes.lam), options.repeats, 3)
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    for ax, truth in zip(figure.subplots(1, 3, sharey=True), (0.1, 0.4, 0.9), strict=True):
        found = study.simulate(truth, chi2)
        share, edges = np.histogram(found.estimate, np.linspace(0, 1, 41))
        ax.stairs(share / options.repeats, edges, fill=True, color=drawing.LIGHT)
        ax.axvline(truth, color=drawing.ACCENT, linewidth=1.2)
        ends = (found.estimate == 0).mean(), (found.estimate > 0.999).mean()
        ax.set_title(f"at 0: {ends[0]:.0%}, at 1: {ends[1]:.0%}", fontsize=10, loc="left")
        ax.set_xlabel(f"REML estimate, true $h^2$ = {truth:g}")
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("Share of phenotypes")
    figure.savefig(options.out / "h2_estimates_150_mice.png", dpi=130)


if __name__ == "__main__":
    main()
