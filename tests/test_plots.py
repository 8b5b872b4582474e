import time

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayeslmm as bl
from bayeslmm import plots
from bayeslmm.genome.loci import find_loci, lead_variants, placed_positions
from bayeslmm.model.calibration import Calibration
from bayeslmm.model.tables import interval, parameters, snp_effects
from bayeslmm.plots import checks, drawing
from bayeslmm.plots.posteriors import _h2_limits


@pytest.fixture(autouse=True)
def _close():
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before, "no function changes global settings"


@pytest.fixture
def hits():
    """Three chromosomes with odd names, one of each kind of trouble."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "chrom": ["2L"] * 400 + ["chrX"] * 300 + ["scaffold_9"] * 100,
            "pos": np.concatenate([np.arange(1, k + 1) * 100_000 for k in (400, 300, 100)]),
            "id": [f"v{i}" for i in range(800)],
            "n": 123,
            "p_wald": rng.random(800),
        }
    )
    table.loc[[100, 450], "p_wald"] = [1e-12, 1e-9]
    table.loc[[101, 102], "p_wald"] = [1e-11, 1e-10]  # the same locus as v100
    table.loc[[5, 6, 799], "p_wald"] = np.nan
    table.loc[[100, 500], "pos"] = [-9, 0]
    table["neg_log10_p"] = -np.log10(table["p_wald"])
    table.attrs["formula"] = "y ~ sex"
    return table


@pytest.fixture(scope="module")
def model():
    mice = bl.datasets.mouse_hs1940()
    ids = mice.genotypes.samples.index[mice.phenotypes.cd8.notna().to_numpy()][:150]
    kernel = bl.grm(mice.genotypes.select(samples=ids, chrom=range(1, 6)))
    return mice.phenotypes.loc[ids], kernel


def artist(ax, gid):
    (found,) = [line for line in ax.findobj() if line.get_gid() == gid]
    return found


def drawn(ax):
    """Points of the two colours of a Manhattan plot together, sorted by x."""
    points = [artist(ax, f"variants-{k}").get_xydata() for k in (0, 1)]
    points = np.concatenate(points)
    return points[np.argsort(points[:, 0], kind="stable")]


def names(ax):
    return [text.get_text() for text in ax.texts if text.get_gid() == "lead-name"]


# -- Manhattan -------------------------------------------------------------------------------


def test_manhattan_draws_every_tested_variant_by_chromosome(hits):
    ax = plots.manhattan(hits)
    points = drawn(ax)
    assert len(points) == 797, "all but the three without a test"
    tested = hits.neg_log10_p.dropna()
    assert np.allclose(points[:, 1], tested), "in the order of the genome"
    assert [len(artist(ax, f"variants-{k}").get_xydata()) for k in (0, 1)] == [497, 300]
    colors = {artist(ax, f"variants-{k}").get_color() for k in (0, 1)}
    assert len(colors) == 2
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2L", "chrX", "scaffold_9"]
    assert ax.get_title(loc="left") == "y ~ sex"


@pytest.mark.parametrize(
    ("about", "p", "title"),
    [
        ({"coding": "genotypic"}, None, "y ~ sex: dominance deviation"),
        ({"coding": "recessive"}, None, "y ~ sex: recessive coding"),
        ({"coding": "additive", "interaction": "age"}, None, "y ~ sex: interaction with age"),
        ({"coding": "additive"}, "p_wald", "y ~ sex: p_wald"),
    ],
)
def test_the_title_says_what_is_tested(hits, about, p, title):
    hits = hits.copy()
    hits.attrs = hits.attrs | about
    for draw in (plots.manhattan, plots.qq):
        assert draw(hits, p=p).get_title(loc="left") == title


def test_bayes_factors_alone_are_no_manhattan_plot(hits):
    table = hits.drop(columns=["neg_log10_p", "p_wald"]).assign(log10_bf=1.0)
    with pytest.raises(bl.InputError, match="Bayes factors and no p-values: scan with tests="):
        plots.manhattan(table)


def test_ticks_of_close_variants_differ():
    """Variants 100 base pairs apart, and one that is alone."""
    table = pd.DataFrame({"chrom": "17", "id": list("abc"), "neg_log10_p": [1.0, 2.0, 3.0]})
    table["pos"] = 133_563_059 + np.array([0, 50, 100])
    for hits in (table, table[:1]):
        ax = plots.manhattan(hits)
        ax.figure.canvas.draw()
        low, high = ax.get_xlim()
        ticks = [t for t in ax.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
        said = [float(t.label1.get_text()) for t in ticks]
        assert len(set(said)) == len(said) > 2
        assert np.allclose(said, [t.get_loc() / 1e6 for t in ticks], rtol=1e-9)
    assert max(len(t.label1.get_text()) for t in ticks) < 8, "no more digits than are needed"


def test_manhattan_threshold_and_labels(hits):
    ax = plots.manhattan(hits)
    line = -np.log10(0.05 / 797)
    assert any(np.allclose(dash.get_ydata(), line) for dash in ax.lines if len(dash.get_ydata()))
    assert any("0.05 / 797 variants" in text.get_text() for text in ax.texts)
    assert sorted(names(ax)) == ["v100", "v450"], "one name for each locus"
    leads = artist(ax, "leads").get_xydata()
    assert sorted(leads[:, 1]) == pytest.approx([9, 12])
    assert names(plots.manhattan(hits, label_top=1)) == ["v100"]
    assert names(plots.manhattan(hits, label_top=0)) == []
    lenient = plots.manhattan(hits, threshold=1e-20)
    assert names(lenient) == []
    assert any(text.get_text() == "p = 1e-20" for text in lenient.texts)
    assert sorted(names(plots.manhattan(hits, locus_gap=1000))) == ["v100", "v101", "v102"]


def test_unknown_positions_are_placed_between_their_neighbours(hits):
    place = placed_positions(hits)
    assert place[100] == pytest.approx(101 * 100_000), "pos -9"
    assert place[500] == pytest.approx(101 * 100_000), "pos 0"
    unknown = hits.assign(pos=-9)
    assert (np.diff(placed_positions(unknown)[:400]) > 0).all()
    assert len(drawn(plots.manhattan(unknown))) == 797


def test_names_and_labels_do_not_overlap():
    chroms = np.repeat([f"chromosome_{i}" for i in range(30)], 40)
    table = pd.DataFrame(
        {
            "chrom": chroms,
            "pos": np.tile(np.arange(40) * 1_000_000 + 1, 30),
            "id": [f"a_rather_long_name_{i}" for i in range(1200)],
            "neg_log10_p": np.where(np.arange(1200) % 40 == 20, 9.0, 0.5),
        }
    )
    ax = plots.manhattan(table, label_top=8)
    figure = ax.figure
    figure.canvas.draw()
    ticks = [t.get_window_extent() for t in ax.get_xticklabels()]
    assert 0 < len(ticks) <= 30
    texts = [t for t in ax.texts if t.get_gid() == "lead-name"]
    assert len(texts) == 8
    boxes = [t.get_window_extent() for t in texts]
    for group in (ticks, boxes):
        for i, box in enumerate(group):
            assert not any(box.overlaps(other) for other in group[:i])
    frame = figure.bbox
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and box.y1 <= frame.y1 for box in boxes)


def test_many_chromosomes_keep_only_labels_that_fit():
    k = 500
    table = pd.DataFrame({"chrom": [f"c{i}" for i in range(k)] * 2, "pos": 1, "neg_log10_p": 1.0})
    ax = plots.manhattan(table)
    assert 5 < len(ax.get_xticklabels()) < 150
    assert len(drawn(ax)) == 2 * k
    assert names(ax) == []


def test_one_chromosome_has_an_axis_in_megabases(hits):
    ax = plots.manhattan(hits[hits.chrom == "2L"].reset_index(drop=True))
    assert ax.get_xlabel() == "Position on chromosome 2L (Mb)"
    assert ax.xaxis.get_major_formatter()(17_500_000, 0) == "17.5"


def test_a_million_points_are_thinned_and_the_top_is_kept():
    rng = np.random.default_rng(2)
    m = 1_000_000
    p = rng.random(m)
    p[777_777] = 1e-30
    table = pd.DataFrame(
        {
            "chrom": np.sort(rng.integers(1, 23, m)).astype(str),
            "pos": rng.integers(1, 10**8, m),
            "p": p,
        }
    )
    start = time.perf_counter()
    ax = plots.manhattan(table, p="p")
    ax.figure.canvas.draw()
    assert time.perf_counter() - start < 10, "2 s on an idle machine"
    points = drawn(ax)
    assert 20_000 < len(points) < 200_000
    strongest = np.sort(-np.log10(p))[::-1]
    assert points[:, 1].max() == pytest.approx(30)
    assert np.isin(strongest[:50].round(9), points[:, 1].round(9)).all()
    assert len(artist(plots.qq(table, p="p"), "variants").get_xydata()) < 5000


def test_thin_keeps_everything_that_is_few_and_the_highest_of_each_cell():
    x = np.arange(20_000.0)
    assert len(drawing.thin(x, x)) == 20_000
    y = np.concatenate([np.zeros(30_000), [1.0]])
    x = np.concatenate([np.linspace(0, 1, 30_000), [0.5]])
    kept = drawing.thin(x, y)
    assert len(kept) < 2000
    assert 30_000 in kept
    assert len(drawing.thin(np.zeros(30_000), np.zeros(30_000))) == 1


def test_p_column_underflow_and_axes(hits):
    figure, axes = plt.subplots(1, 2)
    table = hits.assign(p_lrt=np.where(hits.index == 300, 0.0, hits.p_wald))
    assert plots.manhattan(table, p="p_lrt", ax=axes[0]) is axes[0]
    assert drawn(axes[0])[:, 1].max() == 324, "p = 0 is below the smallest number"
    assert plots.qq(table, p="p_lrt", ax=axes[1]) is axes[1]
    assert plt.get_fignums() == [figure.number], "no other figure was made"


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"neg_log10_p": np.nan}, {}, "nothing to draw"),
        ({}, {"p": "p_lrt"}, "no column 'p_lrt'"),
        ({"p_lrt": 1.5}, {"p": "p_lrt"}, "row 0: 1.5 is no p-value"),
        ({"chrom": None}, {}, "800 variants have no chromosome"),
        ({}, {"threshold": 5}, "must be a p-value between 0 and 1, but is 5"),
    ],
)
def test_manhattan_refuses(hits, change, options, message):
    with pytest.raises(bl.InputError, match=message):
        plots.manhattan(hits.assign(**change), **options)


def test_find_loci(hits):
    loci = find_loci(hits, 1e-6)
    assert loci.chrom.tolist() == ["2L", "chrX"]
    assert loci.n_variants.tolist() == [3, 1]
    assert hits.id[loci.row].tolist() == ["v100", "v450"]
    assert loci.start.tolist() == [10_200_000, 5_100_000], "of those with known position"
    assert find_loci(hits.assign(pos=-9), 1e-6).start.isna().all()
    assert len(find_loci(hits, 1e-30)) == 0


def test_lead_variants(hits):
    assert lead_variants(hits, 2).tolist() == [100, 450]
    assert lead_variants(hits, 4, gap=1000).tolist() == [100, 101, 102, 450]
    many = lead_variants(hits, 1000)
    assert len(many) < 40, "as many as there is room for"
    assert hits.neg_log10_p[many].notna().all()
    assert np.diff(hits.neg_log10_p[many]).max() <= 0
    with pytest.raises(bl.InputError, match="0 were asked for"):
        lead_variants(hits, 0)


# -- QQ --------------------------------------------------------------------------------------


def test_qq(hits):
    ax = plots.qq(hits)
    points = artist(ax, "variants").get_xydata()
    assert len(points) == 797
    assert np.allclose(points[:, 1], np.sort(hits.neg_log10_p.dropna())[::-1])
    assert points[0, 0] == pytest.approx(-np.log10(0.5 / 797))
    text = ax.texts[0].get_text()
    assert f"{bl.lambda_gc(hits.p_wald):.3f}" in text
    assert "797 variants" in text


@pytest.mark.algebra
def test_qq_band_is_that_of_order_statistics():
    from scipy.stats import beta

    m = 50
    ax = plots.qq(pd.DataFrame({"p": np.linspace(0.01, 0.99, m)}), p="p")
    (band,) = ax.collections
    outline = band.get_paths()[0].vertices
    ranks = np.arange(1, m + 1)
    expected = np.concatenate(
        [-np.log10(beta.ppf(q, ranks, m + 1 - ranks)) for q in (0.025, 0.975)]
    )
    distance = np.abs(outline[:, 1][:, None] - expected)
    assert distance.min(axis=0).max() < 1e-9


def test_qq_refuses_an_empty_table(hits):
    with pytest.raises(bl.InputError, match="nothing to draw"):
        plots.qq(hits.iloc[:0])


# -- h2 --------------------------------------------------------------------------------------


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_h2(model):
    phenotypes, kernel = model
    lmm = bl.LMM("cd8 ~ sex", phenotypes, kernel)
    _, ax = plt.subplots()
    assert plots.h2(lmm, ax=ax) is ax
    low, high = lmm.h2_posterior().hdi()
    fit = lmm.reml()
    texts = legend(ax)
    assert f"95% most probable: {low:.2f} to {high:.2f}" in texts
    assert "prior: Uniform(0, 1)" in texts
    assert any(text.startswith(f"REML: {fit.h2:.2f}") for text in texts)
    assert artist(ax, "reml").get_xdata() == pytest.approx([fit.h2])
    x, y = ax.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-3)
    assert ax.get_title(loc="left") == "Heritability of cd8"
    assert ax.get_xlim() == (0, 1)
    assert not [a for a in ax.findobj() if a.get_gid() == "zero"]
    assert "80% most probable" in " ".join(legend(plots.h2(lmm, prob=0.8)))


def test_h2_with_point_mass_and_estimate_on_the_boundary(model):
    phenotypes, kernel = model
    rng = np.random.default_rng(1)
    noise = phenotypes.assign(noise=rng.normal(size=len(phenotypes)))
    lmm = bl.LMM("noise ~ 1", noise, kernel, h2_prior=bl.priors.beta(0.5, 0.5, spike=0.5))
    assert lmm.reml().boundary == "h2 = 0", "the seed was chosen so"
    ax = plots.h2(lmm, title="Nothing")
    mass = lmm.h2_posterior().mass_at_0
    bar = artist(ax, "zero")
    assert 0 < bar.get_height() / (ax.get_ylim()[1] / 1.12) == pytest.approx(mass)
    assert any(f"= {mass:.4f}" in text.get_text() for text in ax.texts)
    assert any("on the boundary: no SE" in text for text in legend(ax))
    assert ax.get_title(loc="left") == "Nothing"
    assert np.isfinite(ax.get_ylim()).all(), "although the density is infinite at 0"


def test_h2_refuses(model):
    with pytest.raises(bl.InputError, match="Without kernel there is no h2"):
        plots.h2(bl.LMM("cd8 ~ sex", model[0]))
    with pytest.raises(bl.InputError, match="prob must be between 0 and 1"):
        plots.h2(bl.LMM("cd8 ~ sex", *model), prob=1.0)


def test_a_needle_gets_a_narrower_axis():
    assert _h2_limits(0.5, 0.03) == (0, 1)
    low, high = _h2_limits(0.5, 0.001)
    assert 0.48 < low < 0.495
    assert 0.505 < high < 0.52


def test_h2_with_draws(model):
    lmm = bl.LMM("cd8 ~ sex", *model)
    tree = lmm.posterior(900, seed=1)
    ax = plots.h2(lmm, tree=tree)
    assert "900 draws" in legend(ax)
    values, edges, _ = artist(ax, "draws").get_data()
    assert (values * np.diff(edges)).sum() == pytest.approx(1)
    assert ax.get_ylim()[1] > values.max()


# -- calibration -----------------------------------------------------------------------------


def ranks(quantities, n=200, draws=99, seed=1):
    rng = np.random.default_rng(seed)
    columns = [f"q{j}" for j in range(quantities)]
    return pd.DataFrame(rng.integers(0, draws + 1, size=(n, quantities)), columns=columns)


def test_calibration_draws_a_line_per_quantity():
    table = ranks(3)
    table["narrow"] = np.where(np.arange(200) % 2, 1, 98)
    ax = plots.calibration(Calibration(table, 99, "me"))
    x, y = artist(ax, "ranks-q1").get_data()
    assert x[0] == y[0] == y[-1] == 0
    assert x[-1] == 1
    scaled = (table.q1.to_numpy() + 1) / 100  # rank r: a share of (r + 1) / 100 is at most r
    assert np.allclose(y, [(scaled <= at + 1e-9).mean() - at for at in x])
    assert legend(ax) == ["95% if calibrated", "q0", "q1", "q2", "narrow (leaves the band)"]
    assert len({artist(ax, f"ranks-{name}").get_color() for name in table}) == 4
    assert ax.get_title(loc="left") == "Calibration of me"
    assert any("200 replicates, 99 draws" in text.get_text() for text in ax.texts)


def test_calibration_of_many_quantities_names_only_those_that_fail():
    table = ranks(20).assign(low=0)
    _, axes = plt.subplots(1, 2)
    ax = plots.calibration(Calibration(table, 99, "me"), ax=axes[1])
    assert ax is axes[1]
    texts = legend(ax)
    assert "low (leaves the band)" in texts
    assert "21 quantities" in texts
    assert len(texts) < 7
    with pytest.raises(bl.InputError, match="the calibration has no ranks"):
        plots.calibration(Calibration(table.iloc[:0], 99, "me"))


@pytest.mark.calibration
@pytest.mark.parametrize(("n", "draws"), [(50, 19), (300, 99), (500, 999)])
def test_calibration_band_is_simultaneous(n, draws):
    """95% of samples of uniform ranks stay within the band at all steps."""
    steps = checks._rank_steps(draws)
    assert len(steps) <= 100
    low, high = checks._uniform_band(n, steps, draws)
    rng = np.random.default_rng(99)
    inside = 0
    for _ in range(2000):
        sample = np.sort(rng.integers(0, draws + 1, n))
        counts = np.searchsorted(sample, steps, side="right")
        inside += bool(((counts >= low) & (counts <= high)).all())
    # four standard errors of the band's own 2,000 simulations and of these; counts are whole
    # numbers, so that the band can be a little wider
    assert 0.95 - 0.028 < inside / 2000 < 0.985


# -- SNP effects -----------------------------------------------------------------------------


@pytest.fixture
def tree():
    """Draws of three SNPs' effects, the last one always 0."""
    rng = np.random.default_rng(1)
    beta = rng.normal([0.3, -0.2, 0], [0.1, 0.05, 0], size=(2, 500, 3))
    posterior = xr.Dataset(
        {
            "h2": (("chain", "draw"), rng.beta(5, 5, size=(2, 500))),
            "beta": (("chain", "draw", "snp"), beta),
        },
        {"snp": ["v1", "v2", "v3"]},
    )
    constant = xr.Dataset(
        {"eaf": ("snp", [0.1, 0.2, 0.3])},
        {"snp": ["v1", "v2", "v3"], "effect_allele": ("snp", ["A", "C", "G"])},
    )
    groups = {"/": xr.Dataset(attrs={"formula": "y ~ sex"}), "posterior": posterior}
    return xr.DataTree.from_dict(groups | {"constant_data": constant})


@pytest.fixture
def scanned(hits):
    """The scan of v2 counts the other allele; v3 was not tested."""
    table = hits.assign(ea="A", oa="T", beta=0.5, se=0.1)
    table.loc[2, ["ea", "oa"]] = ["T", "C"]
    table.loc[3, ["ea", "beta", "se"]] = ["G", np.nan, np.nan]
    return table


def test_effects(tree, scanned):
    ax = plots.effects(tree, scanned)
    table = snp_effects(tree, scanned)
    assert table.scan_beta.tolist()[:2] == [0.5, -0.5], "turned to the model's allele"
    assert np.isnan(table.scan_beta[2])
    ticks = [tick.get_text() for tick in ax.get_yticklabels()]
    assert ticks == ["v1  (A, 0.10)", "v2  (C, 0.20)", "v3  (G, 0.30)"]
    assert "cd8" not in ax.get_xlabel()
    assert ax.get_xlabel().startswith("Change of y per effect allele")
    assert len(legend(ax)) == 2
    bars = {bar.get_label().split(",")[0]: bar for bar in ax.containers}
    assert np.allclose(bars["posterior"].lines[0].get_xdata(), table["mean"])
    assert np.allclose(bars["scan"].lines[0].get_xdata()[:2], [0.5, -0.5])
    low, high = interval(tree["posterior"].beta[..., 0].to_numpy())
    segments = bars["posterior"].lines[2][0].get_segments()
    assert np.allclose(segments[0][:, 0], [low, high])
    assert not [text for text in ax.texts if text.get_gid() == "pip"]


def test_effects_with_inclusion_probabilities_and_without_scan(tree, tmp_path):
    pip = xr.Dataset({"inclusion_probability": ("snp", [0.99999, 0.5, 0.0001])})
    tree["selection"] = xr.DataTree(pip)
    ax = plots.effects(tree, title="T")
    texts = [text.get_text() for text in ax.texts if text.get_gid() == "pip"]
    assert texts == ["> 0.999", "0.500", "< 0.001"]
    assert len(ax.containers) == 1
    assert len(legend(ax)) == 1
    assert ax.get_title(loc="left") == "T"
    plots.save(tmp_path / "e.png", plots.effects, tree)
    assert drawing.figure_size("effects", 20)[1] > drawing.figure_size("effects", 2)[1]
    assert drawing.figure_size("effects", 10_000)[1] == 30


def test_effects_refuses(tree, scanned):
    with pytest.raises(bl.InputError, match="effect allele A in the model, but X and Y in the"):
        plots.effects(tree, scanned.assign(ea="X", oa="Y"))
    with pytest.raises(bl.InputError, match="several variants named 'v1'"):
        plots.effects(tree, scanned.assign(id="v1"))
    with pytest.raises(bl.InputError, match="no column 'beta'"):
        plots.effects(tree, scanned.drop(columns="beta"))
    with pytest.raises(bl.InputError, match="prob must be between 0 and 1"):
        plots.effects(tree, prob=2)
    without = tree["posterior"].dataset.drop_vars("beta")
    with pytest.raises(bl.InputError, match="no SNP effects: sample with snps="):
        plots.effects(xr.DataTree.from_dict({"posterior": without}))


def test_parameters(tree):
    table = parameters(tree)
    assert table.index.tolist() == ["h2", "beta[v1]", "beta[v2]", "beta[v3]"]
    h2 = tree["posterior"].h2.to_numpy()
    assert table["mean"]["h2"] == pytest.approx(h2.mean())
    assert table.rhat["h2"] == pytest.approx(1, abs=0.02), "independent draws"
    assert 600 < table.ess_bulk["h2"] < 1500
    assert table.loc["beta[v3]", ["rhat", "ess_bulk", "ess_tail"]].isna().all()
    assert table.loc["beta[v3]", ["low", "high"]].tolist() == [0, 0]


@pytest.mark.algebra
def test_interval_is_the_shortest_that_holds_enough():
    draws = np.random.default_rng(1).gamma(2, size=101)
    ordered = np.sort(draws)
    pairs = [(b - a, a, b) for i, a in enumerate(ordered) for b in ordered[i + 80 :]]
    assert interval(draws, 0.8) == min(pairs)[1:], "81 of 101 draws"
    assert interval(np.array([3.0])) == (3, 3)


# -- predictions -----------------------------------------------------------------------------


def made_predictions(n):
    mean = np.random.default_rng(1).normal(size=n)
    table = pd.DataFrame(
        {"y_mean": mean, "y_low": mean - 1, "y_high": mean + 2}, index=[f"s{i}" for i in range(n)]
    )
    table.attrs = {"formula": "log(mch) ~ sex", "prob": 0.8}
    return table


@pytest.mark.parametrize("n", [30, 500])
def test_predictions_in_order_with_what_was_measured(n):
    table = made_predictions(n)
    measured = pd.Series({"s3": 4.0, "s7": -4.0, "nobody": 9.0})
    ax = plots.predictions(table, measured)
    place, mean = artist(ax, "predicted").get_data()
    assert np.array_equal(place, np.arange(n) + 1)
    assert np.array_equal(mean, np.sort(table.y_mean))
    y = artist(ax, "observed").get_ydata()
    order = table.y_mean.sort_values().index
    assert dict(zip(order[np.isfinite(y)], y[np.isfinite(y)], strict=True)) == {"s3": 4, "s7": -4}
    assert legend(ax) == ["80% interval of the phenotype", "predicted", "measured"]
    assert ax.get_ylabel() == "log(mch)"
    (interval,) = ax.collections
    ends = np.vstack([path.vertices for path in interval.get_paths()])[:, 1]
    assert (ends.min(), ends.max()) == (table.y_low.min(), table.y_high.max())


def test_predictions_of_many_samples():
    table = made_predictions(5000)
    ax = plots.predictions(table.assign(y_observed=table.y_mean))
    place, mean = artist(ax, "predicted").get_data()
    assert len(place) == 2000
    assert (place[0], place[-1]) == (1, 5000)
    assert (mean[0], mean[-1]) == (table.y_mean.min(), table.y_mean.max())
    assert np.array_equal(artist(ax, "observed").get_ydata(), mean)
    assert legend(plots.predictions(table)) == ["80% interval of the phenotype", "predicted"]


# -- prior predictive ------------------------------------------------------------------------


def test_prior_predictive():
    rng = np.random.default_rng(1)
    y = rng.normal(5, 2, size=50)
    predicted = rng.normal(5, 10, size=(1, 30, 50))
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"formula": "log(mch) ~ sex"}),
            "prior_predictive": xr.Dataset({"y": (("chain", "draw", "sample"), predicted)}),
            "observed_data": xr.Dataset({"y": ("sample", y)}),
        }
    )
    ax = plots.prior_predictive(tree, draws=10)
    assert ax.get_xlabel() == "log(mch)"
    x, share = artist(ax, "observed").get_data()
    assert np.array_equal(x, np.sort(y))
    assert share[0] == pytest.approx(0.01)
    lines = [line for line in ax.lines if line.get_gid() == "predicted"]
    assert len(lines) == 10
    assert np.array_equal(lines[-1].get_xdata(), np.sort(predicted[0, -1]))
    assert legend(ax) == ["10 draws from the prior", "observed"]
    left, right = ax.get_xlim()
    assert left < y.min()
    assert right > y.max()
    with pytest.raises(bl.InputError, match="draws must be at least 1"):
        plots.prior_predictive(tree, draws=0)
    with pytest.raises(bl.InputError, match="no prior predictive draws"):
        plots.prior_predictive(xr.DataTree())


def test_save_leaves_pyplot_alone(hits, tmp_path):
    for ending in ("png", "pdf"):
        plots.save(tmp_path / f"m.{ending}", plots.manhattan, hits, title="T")
    assert (tmp_path / "m.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "m.pdf").read_bytes()[:4] == b"%PDF"
    assert plt.get_fignums() == []
