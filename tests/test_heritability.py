"""The h2 report, priors by reweighting, and the liability scale."""

import re

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm import plots
from bayeslmm.commands.heritability import heritability_lines
from bayeslmm.model.heritability import h2_posteriors, is_two_valued
from tests import dense

CASE = dense.Case("two covariates", 60, 2, "genotypes", 200)


def fitted(case=CASE, seed=0, **options):
    y, C, K = case.make(seed)
    return bl.LMM(y, C[:, 1:], K, **options)


@pytest.mark.algebra
@pytest.mark.parametrize("case", [CASE, dense.CASES[1], dense.CASES[7]], ids=lambda case: case.name)
@pytest.mark.parametrize("seed", [0, 1])
def test_reweighting_equals_refitting(case, seed):
    y, C, K = case.make(seed)
    model = bl.LMM(y, C[:, 1:], K)
    priors = {
        "uniform": "uniform",
        "U": bl.priors.beta(0.5, 0.5),
        "hump": bl.priors.beta(2, 2),
        "small": bl.priors.beta(1, 20, spike=0.3),
        "PC": bl.priors.penalised_complexity(model.basis, upper=0.5, prob=0.1),
    }
    table = model.prior_table(priors)
    for name, prior in priors.items():
        alone = bl.LMM(y, C[:, 1:], K, h2_prior=prior).h2_posterior()
        row = table.loc[name]
        assert row["mean"] == pytest.approx(alone.mean, abs=1e-6)
        assert row.sd == pytest.approx(alone.sd, abs=1e-6)
        assert row.p_zero == pytest.approx(alone.mass_at_0, abs=1e-6)
        assert row.log_marginal == pytest.approx(alone.log_integral, abs=1e-6)
        np.testing.assert_allclose(row[["low", "high"]].astype(float), alone.hdi(), atol=1e-4)


def test_default_priors_include_the_models_own():
    assert len(fitted().prior_table()) == 4
    table = fitted(h2_prior=bl.priors.beta(3, 4)).prior_table()
    assert table.index[0] == "model: Beta(3, 4)"
    assert len(table) == 5
    posterior = h2_posteriors(fitted())["uniform"]
    assert posterior.weights.sum() == pytest.approx(1)


def test_report_says_what_its_parts_say():
    model = fitted()
    report = model.h2_report(level=0.9)
    np.testing.assert_allclose(
        report.intervals.loc["posterior", ["low", "high"]].astype(float),
        model.h2_posterior().hdi(0.9),
    )
    for method in ("rlrt", "reml"):
        found = report.intervals.loc[method, ["low", "high"]].astype(float)
        np.testing.assert_allclose(found, model.h2_interval(0.9, method))
    text = str(report)
    assert "90% intervals" in text
    assert "likelihood ratio inverted" in text
    assert "unrelated people" in text
    html = report._repr_html_()
    assert html.count("<table") == 2
    assert "Beta(1/2, 1/2)" in html
    assert report.scale == ""


def test_report_warns_when_samples_tell_nothing():
    model = bl.LMM(
        np.random.default_rng(1).normal(size=50), kernel=np.diag(np.linspace(0.9, 1, 50))
    )
    report = model.h2_report()
    assert any("too alike in relatedness" in text for text in report.warnings)
    assert any("The prior matters" in text for text in report.warnings)


def test_report_warns_at_the_boundary():
    K = dense.kernel("families", 200, 0, np.random.default_rng(1))
    model = bl.LMM(np.random.default_rng(5).normal(size=200), kernel=K)
    found = [model.with_phenotype(y) for y in np.random.default_rng(2).normal(size=(20, 200))]
    one = next(each for each in found if each.reml().boundary == "h2 = 0")
    report = one.h2_report()
    assert any("on the boundary h2 = 0" in text for text in report.warnings)
    assert report.intervals.low["rlrt"] == 0
    spiked = bl.LMM(one.y, kernel=K, h2_prior=bl.priors.uniform(spike=0.5)).h2_report()
    assert any("within 0.01 of h2 = 0" in text for text in spiked.warnings)
    assert "P(h2 = 0)" in str(spiked)


def test_a_large_clean_cohort_needs_no_warning():
    K = np.kron(np.eye(200), np.full((4, 4), 0.5) + 0.5 * np.eye(4))
    rng = np.random.default_rng(1)
    y = np.linalg.cholesky(0.5 * K + 0.5 * np.eye(800)) @ rng.normal(size=800)
    assert bl.LMM(y, kernel=K).h2_report().warnings == []


def test_a_two_valued_phenotype_is_on_the_observed_scale():
    model = fitted()
    binary = model.with_phenotype(1.0 + (model.y > np.quantile(model.y, 0.7)))
    report = binary.h2_report()
    assert report.scale == "observed scale"
    assert "h2 of y on the observed scale, no heritability, n =" in str(report)
    for ax in (
        bl.plots.h2(binary),
        bl.plots.h2_report(report),
        bl.plots.prior_table(report.priors),
    ):
        words = ax.get_title(loc="left") + ax.get_xlabel()
        assert "observed scale" in words
        assert "Heritability" not in words
    assert any("bl.liability_h2" in text for text in report.warnings)
    lines = " ".join(heritability_lines({"case": binary, "y": model}))
    case, y = re.split(r"(?<= )y: ", lines)
    assert "on the observed scale, the numbers 0 and 1, which is no heritability" in case
    assert "observed scale" not in y
    assert is_two_valued(binary.y)
    assert not is_two_valued(model.y)
    tree = binary.posterior(400, seed=1)
    assert tree["posterior"].attrs["h2_scale"] == "observed scale"
    with pytest.warns(UserWarning, match="above 1"):
        liability = bl.liability_h2(tree, 0.3)
    assert liability.dims == ("chain", "draw")
    factor = bl.liability_h2(0.1, 0.3, 0.3) / 0.1
    np.testing.assert_allclose(liability, tree["posterior"]["h2"] * factor)
    with pytest.raises(bl.InputError, match="a liability only behind two"):
        bl.liability_h2(model.posterior(40, seed=1), 0.3)


@pytest.mark.algebra
def test_liability_formula():
    # Lee et al. (2011), equations 17 and 23: K = 0.01, z = 0.02665 at the threshold 2.3263
    z = 0.0266521
    found = bl.liability_h2(0.2, 0.01, 0.5)
    assert found == pytest.approx(0.2 * (0.01 * 0.99) ** 2 / (z**2 * 0.25), rel=1e-5)
    # a random sample: h2 K (1 - K) / z^2; half of people affected: pi / 2
    assert bl.liability_h2(0.2, 0.5) == pytest.approx(0.2 * np.pi / 2)
    np.testing.assert_allclose(bl.liability_h2([0.1, 0.2], 0.5), np.array([0.1, 0.2]) * np.pi / 2)


@pytest.mark.calibration
def test_liability_h2_recovers_that_of_the_liability():
    families, size, h2, prevalence = 1500, 4, 0.6, 0.2
    rng = np.random.default_rng(7)
    shared = rng.normal(size=(families, 1)) * np.sqrt(h2 / 2)
    liability = shared + rng.normal(size=(families, size)) * np.sqrt(1 - h2 / 2)
    y = (liability > np.quantile(liability, 1 - prevalence)).astype(float)
    # h2 on the observed scale is twice the intraclass correlation of full sibs
    between = y.mean(axis=1).var() * size - y.var(axis=1, ddof=0).mean() * size / (size - 1)
    observed = 2 * (between / size) / (prevalence * (1 - prevalence))
    assert bl.liability_h2(observed, prevalence) == pytest.approx(h2, abs=0.15)


@pytest.mark.parametrize("prevalence", [0, 1, -0.1, 1.2, np.nan])
def test_liability_refuses(prevalence):
    with pytest.raises(bl.InputError, match="must be a share in"):
        bl.liability_h2(0.3, prevalence)
    with pytest.raises(bl.InputError, match="sample_prevalence must be"):
        bl.liability_h2(0.3, 0.1, prevalence)


def test_liability_warns():
    with pytest.warns(UserWarning, match="is extreme"):
        bl.liability_h2(1e-4, 1e-4)
    with pytest.warns(UserWarning, match="The value is above 1"):
        bl.liability_h2(0.9, 0.01)
    with pytest.warns(UserWarning, match="50% of the values are above 1"):
        bl.liability_h2([0.1, 0.9], 0.1)


def test_report_refuses():
    model = fitted()
    for call in (bl.LMM(model.y).h2_report, bl.LMM(model.y).prior_table):
        with pytest.raises(bl.InputError, match="Without kernel there is no h2"):
            call()
    with pytest.raises(bl.InputError, match="prob must be"):
        model.prior_table(prob=2)
    with pytest.raises(bl.InputError, match="No priors are given"):
        model.prior_table({})
    with pytest.raises(bl.InputError, match="is no prior"):
        model.prior_table({"mine": 3})
    with pytest.raises(bl.InputError, match="level must be"):
        model.h2_report(level=1)


def test_plots(tmp_path):
    import matplotlib.pyplot as plt

    model = fitted(h2_prior=bl.priors.beta(0.5, 0.5, spike=0.2))
    report = model.h2_report()
    ax = report.plot()
    assert [label.get_text() for label in ax.get_yticklabels()][1] == "likelihood ratio inverted"
    assert ax.get_title(loc="left") == "Heritability of y"
    plots.save(tmp_path / "report.png", plots.h2_report, report)
    ax = plots.prior_table(report.priors)
    assert len(ax.get_yticklabels()) == 5
    assert isinstance(report.design, pd.Series)
    plt.close("all")
