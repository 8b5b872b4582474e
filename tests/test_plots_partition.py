import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(1)
    variants = pd.DataFrame(
        {
            "id": [f"v{j}" for j in range(90)],
            "chrom": np.repeat(["1", "2", "3"], [20, 30, 40]),
            "pos": np.concatenate([np.linspace(1, 5e6 * k, 10 * k) for k in (2, 3, 4)]).astype(int),
        }
    )
    x = rng.binomial(2, 0.4, size=(80, 90))
    g = bl.Genotypes.from_array(x, [f"s{i}" for i in range(80)], variants)
    y = pd.Series((x - 0.8) @ rng.normal(size=90) + 5 * rng.normal(size=80), g.samples.index)
    return bl.LMM(y, kernels=bl.partition_grms(g, "chrom")), g


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_shares(model):
    lmm, _ = model
    tree = lmm.posterior(400, seed=1, evaluations=200)
    ax = bl.plots.shares(tree, lmm.reml())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["1", "2", "3", "residual"]
    points = ax.lines[0].get_xdata()
    assert points[:3] == pytest.approx(tree["posterior"].h2_k.mean(("chain", "draw")).to_numpy())
    assert sum(points) == pytest.approx(1)
    with pytest.raises(bl.InputError, match="no shares of several kernels"):
        bl.plots.shares(lmm.aligned.posterior(40, seed=1))


def test_enrichment(model):
    lmm, _ = model
    table = lmm.enrichment(lmm.posterior(400, seed=1, evaluations=200))
    ax = bl.plots.enrichment(table)
    assert ax.get_xscale() == "log"
    assert ax.lines[0].get_xdata() == pytest.approx(table.enrichment)
    assert "20 variants" in ax.get_yticklabels()[0].get_text()
    with pytest.raises(bl.InputError, match="should be what enrichment"):
        bl.plots.enrichment(table.drop(columns="p_enriched"))


def test_chromosomes_by_length(model):
    lmm, g = model
    ax = bl.plots.chromosome_h2(lmm.reml().components, g)
    line = ax.lines[-1]
    x, y = line.get_data()
    h2 = lmm.reml().components.h2[:3].sum()
    assert y[1] / x[1] == pytest.approx(h2 / 45, rel=1e-4)
    assert {"1", "2", "3"} <= {text.get_text() for text in ax.texts}
    with pytest.raises(bl.InputError, match="No chromosomes of known length"):
        bl.plots.chromosome_h2(pd.DataFrame({"h2": [0.1]}, index=["all"]), g)


def test_names_of_chromosomes_do_not_cover_each_other(model):
    _, g = model
    table = g.variants.assign(chrom=np.tile([str(k) for k in range(1, 10)], 10))
    table["pos"] = 1 + np.arange(90) // 9 * 1_000_000
    crowded = bl.Genotypes.from_array(np.zeros((2, 90)), ["a", "b"], table)
    names = [str(k) for k in range(1, 10)]
    h2 = [0.05, 0.052, 0.1, 0.101, 0.2, 0.3, 0.31, 0.4, 0.403]
    components = pd.DataFrame({"h2": h2, "h2_se": 0.01}, index=names)
    ax = bl.plots.chromosome_h2(components, crowded)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text() in names]
    assert len(boxes) == 9
    overlaps = [a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert not any(overlaps)
