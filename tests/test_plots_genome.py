import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import bayeslmm as bl
from bayeslmm import plots
from bayeslmm.plots.genome import LD_COLORS, around, ld_class, ld_with, variance_shares


def axes():
    return Figure().add_subplot()


def points(ax, gid):
    (line,) = [line for line in ax.lines if line.get_gid() == gid]
    return line.get_xydata()


@pytest.fixture(scope="module")
def model(mice):
    return bl.LMM("cd8 ~ sex", mice.phenotypes)


@pytest.fixture(scope="module")
def some(mice, model):
    return mice.genotypes.select(samples=model.ids, chrom=[16, 17])


@pytest.fixture(scope="module")
def hits(model, some):
    return bl.scan(model, some, "wald")


def test_ld_is_the_squared_correlation(some):
    ids = some.variants.id[some.variants.chrom == "17"].iloc[40:60]
    x = some.select(variants=list(ids)).to_array()
    r2 = ld_with(some, ids, ids.iloc[3])
    expected = np.corrcoef(x.T)[3] ** 2
    np.testing.assert_allclose(r2, expected, atol=1e-12)


def test_regional_shows_the_neighbours_by_ld(hits, some):
    ax = plots.regional(hits, some, flank=3e6, ax=axes())
    region = around(hits, flank=3e6)
    lead = region.attrs["lead"]
    assert lead == hits.id[hits.neg_log10_p.idxmax()]
    tested = region[region.neg_log10_p.notna()]
    classes = ld_class(ld_with(some, tested.id, lead))
    for k in range(5):
        assert len(points(ax, f"ld-{k}")) == np.count_nonzero(classes == k)
    assert points(ax, "lead")[0, 1] == hits.neg_log10_p.max()
    # Significance is that of the whole table, not of the region, and always in sight.
    line = points(ax, "line")[0, 1]
    assert line == pytest.approx(-np.log10(0.05 / hits.neg_log10_p.notna().sum()))
    assert ax.get_ylim()[1] > line
    weak = plots.regional(hits, some, threshold=1e-90, ax=axes())
    assert weak.get_ylim()[1] > 90


def test_ld_classes_are_told_apart_in_grey():
    luminance = [
        np.dot([0.299, 0.587, 0.114], [int(c[i : i + 2], 16) for i in (1, 3, 5)])
        for c in map(to_hex, LD_COLORS)
    ]
    assert (np.diff(luminance) < -20).all()


def test_regional_refuses_what_is_not_there(hits, some):
    with pytest.raises(bl.InputError, match="'rs0' is not in the table"):
        plots.regional(hits, some, "rs0", ax=axes())
    untested = hits.id[hits.neg_log10_p.isna()].iloc[0]
    with pytest.raises(bl.InputError, match="has no p-value"):
        plots.regional(hits, some, untested, ax=axes())


def test_miami_draws_both_scans(mice, hits, some):
    mch = bl.LMM("mch ~ sex", mice.phenotypes)
    both = some.samples.index.intersection(mch.ids)
    other = bl.scan(bl.LMM("mch ~ sex", mice.phenotypes.loc[both]), some, "wald")
    ax = plots.miami(hits, other, ax=axes())
    up = np.concatenate([points(ax, "upper-0"), points(ax, "upper-1")])
    down = np.concatenate([points(ax, "lower-0"), points(ax, "lower-1")])
    assert up[:, 1].max() == hits.neg_log10_p.max()
    assert -down[:, 1].min() == other.neg_log10_p.max()
    assert len(up) == hits.neg_log10_p.notna().sum()
    # The strongest loci of both have names, inside the axes and apart.
    best = hits.id[hits.neg_log10_p.idxmax()], other.id[other.neg_log10_p.idxmax()]
    names = {text.get_text(): text for text in ax.texts}
    assert set(best) <= set(names)
    ax.figure.canvas.draw()
    frame = ax.get_window_extent()
    boxes = [names[name].get_window_extent() for name in names if name in set(hits.id)]
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    plain = plots.miami(hits, other, label_top=0, ax=axes())
    assert not {text.get_text() for text in plain.texts} & set(hits.id)
    with pytest.raises(bl.InputError, match="different chromosomes: 16 is in one only"):
        plots.miami(hits, other[other.chrom == "17"], ax=axes())


def test_relatives_stand_side_by_side(rng):
    x = np.repeat(rng.integers(0, 3, size=(10, 400)), 3, axis=0)
    shuffled = rng.permutation(30)
    kernel = bl.grm(x[shuffled])
    family = pd.Series(np.repeat(np.arange(10), 3)[shuffled], kernel.samples, name="family")
    for groups in (None, family):
        ax = plots.relatedness(kernel, groups, ax=axes())
        r = ax.images[0].get_array()
        blocks = [r[i : i + 3, i : i + 3].min() for i in range(0, 30, 3)]
        np.testing.assert_allclose(blocks, 1, atol=1e-5)
    with pytest.raises(bl.InputError, match="samples have no group"):
        plots.relatedness(kernel, family.iloc[:5], ax=axes())


def test_shares_of_the_variance_are_those_of_the_posterior(mice):
    ids = mice.phenotypes.index[mice.phenotypes.cd8.notna()][:300]
    kernel = bl.grm(mice.genotypes.select(samples=ids, chrom=[1, 2]))
    model = bl.LMM("cd8 ~ sex", mice.phenotypes, kernel)
    shares = variance_shares(model)
    assert shares["mean"].sum() == pytest.approx(1)
    fitted = shares["mean"]["covariates"]
    exact = model.h2_posterior()
    assert shares["mean"]["genetic"] == pytest.approx(exact.mean * (1 - fitted), abs=0.01)
    ax = plots.variance_partition({"cd8": model}, ax=axes())
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, shares["mean"], atol=1e-12)
