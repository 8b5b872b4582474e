"""Plots of components, relatives and inflation: what they draw and what they refuse."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cohort():
    return bl.simulate_cohort(None, 80, 900, families=6, seed=6)


@pytest.fixture(scope="module")
def found(cohort):
    return bl.pca(cohort.genotypes, 4)


def drawn(ax):
    return {line.get_gid(): line for line in ax.lines if line.get_gid()}


def test_components_are_drawn_by_group(found):
    ids = found.scores.index
    table = pd.DataFrame({"group": ["a"] * 50 + ["b"] * 20 + [None] * 10}, index=ids)
    table["name"] = [""] * 79 + ["last"]
    ax = bl.plots.pcs(found, table, color="group", label="name")
    lines = drawn(ax)
    assert len(lines["a"].get_xdata()) == 50
    assert len(lines["b"].get_xdata()) == 20
    np.testing.assert_array_equal(lines["a"].get_xdata(), found.scores.PC1[:50])
    assert lines["a"].get_marker() != lines["b"].get_marker()
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts == ["not known (10)", "a (50)", "b (20)"]
    assert [t.get_text() for t in ax.texts] == ["last"]
    share = 100 * found.variance_explained.PC1
    assert ax.get_xlabel() == f"PC1 ({share:.1f}%)"


def test_many_groups_numbers_pairs_and_projections(found):
    ids = found.scores.index
    table = pd.DataFrame({"many": [f"g{i % 10}" for i in range(80)], "x": np.arange(80.0)}, ids)
    ax = bl.plots.pcs(found, table, color="many", projected=found.scores[:5])
    assert "others (24)" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert len(drawn(ax)["projected"].get_xdata()) == 5
    axes = bl.plots.pcs(found, table, color="x", components=(1, 2, 3, 4))
    assert len(axes) == 2
    assert axes[1].get_xlabel().startswith("PC3")
    assert len(axes[0].collections[0].get_offsets()) == 80
    assert len(drawn(found.plot(title="t"))["samples"].get_xdata()) == 80


def test_components_that_cannot_be_drawn(found):
    table = pd.DataFrame({"x": [1.0]}, index=["nobody"])
    with pytest.raises(bl.InputError, match="give pairs"):
        bl.plots.pcs(found, components=(1, 2, 3))
    with pytest.raises(bl.InputError, match="There is no component '9': the PCA has 4"):
        bl.plots.pcs(found, components=(1, 9))
    with pytest.raises(bl.InputError, match="no column 'x' to draw by; no table was given"):
        bl.plots.pcs(found, color="x")
    with pytest.raises(bl.InputError, match="The table has none of the samples"):
        bl.plots.pcs(found, table, color="x")
    with pytest.raises(bl.InputError, match="1 pairs of components need as many axes"):
        bl.plots.pcs(found, ax=np.array(plt.subplots(1, 2)[1]))


def test_relatives_are_drawn_by_degree(cohort):
    everyone = bl.relatives(cohort.genotypes, min_kinship=None)
    ax = everyone.plot()
    for degree, line in drawn(ax).items():
        assert len(line.get_xdata()) == everyone.counts[degree]
    assert sum(len(line.get_xdata()) for line in drawn(ax).values()) == 80 * 79 // 2
    few = cohort.genotypes.select(samples=cohort.genotypes.samples.index[:2])
    with pytest.raises(bl.InputError, match="no pair has the kinship"):
        bl.plots.relatives(bl.relatives(few, min_kinship=0.45))


def test_inflation_overlays_every_method(cohort):
    model = bl.LMM("y ~ sex", cohort.phenotypes, bl.grm(cohort.genotypes))
    found = bl.inflation(model, cohort.genotypes, pcs=2, loco=False)
    ax = found.plot(limit=3)
    assert list(drawn(ax)) == list(found.table.index)
    for name, line in drawn(ax).items():
        assert line.get_ydata()[0] == found.p[name].max()
    assert ax.get_ylim()[1] == 3
    text = ax.get_legend().get_texts()[0].get_text()
    assert f"= {found.table.lambda_gc['regression']:.2f}" in text
