"""The report of repeated measures, and its plots: the page says what the model says."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from page_text import methods_cite_what_they_name, words
from test_repeated import simulate, unequal

import bayeslmm as bl
from bayeslmm.reporting import diagnostics


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model():
    records, ped = simulate(60, unequal(60))
    return bl.RepeatedLMM("weight ~ age", records, ped, id="animal")


@pytest.fixture(scope="module")
def tree(model):
    return model.sample(300, tune=300, chains=2, seed=1, u=True)


@pytest.fixture(scope="module")
def page(model, tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("repeated") / "r.html"
    assert model.report(path, tree=tree, question="Is it inherited?") == path
    return path.read_text(encoding="utf-8")


def test_sections_and_their_figures(page):
    assert re.findall(r'<section id="(\w+)">', page) == [
        "answer", "data", "model", "shares", "records", "individuals", "checks", "methods",
        "provenance",
    ]  # fmt: skip
    assert page.count("<img") == 5
    assert "Is it inherited?" in words(page)
    assert methods_cite_what_they_name(page)


def test_shares_of_the_page_are_those_of_the_draws(page, model, tree):
    text, fit, posterior = words(page), model.reml(), tree["posterior"].dataset
    h2, t = float(posterior.h2.mean()), float(posterior.repeatability.mean())
    assert f"{len(model.y)} records of 60 individuals." in text
    assert f"The genome accounts for {100 * h2:.0f}% of the variance of weight" in text
    assert f"correlation (repeatability) of {t:.2f}" in text
    assert re.search(rf"genetic \(h²\) {h2:.3f} (\S+ ){{3}}{fit.h2:.3f} {fit.h2_se:.3f} ", text)
    share = fit.permanent
    assert re.search(rf"permanent environment {t - h2:.3f} (\S+ ){{3}}{share:.3f} ", text)
    assert re.search(rf"repeatability {t:.3f} (\S+ ){{3}}{fit.repeatability:.3f} ", text)
    assert "pedigree relationship matrix" in text
    assert "Henderson CR (1976)" in text


def test_mean_of_two_records(page, tree):
    """h2 of a mean is a covariance over a variance: simulated records have it."""
    posterior = tree["posterior"].dataset
    h2, t = posterior.h2.to_numpy(), posterior.repeatability.to_numpy()
    variance = h2 + (t - h2) + (1 - t) / 2  # of u + p + (e1 + e2) / 2
    assert f"2 {(h2 / variance).mean():.3f} " in words(page)


def test_genetic_values_are_those_of_the_model(page, model, tree):
    values = model.random_effects(tree, seed=1).u_mean
    best = values.idxmax()
    mean = model.y[np.asarray(model.owner) == best].mean()
    assert f"{best} {model.counts[best]} {mean:.4g} {values[best]:.4g} " in words(page)


def test_checks(page, model):
    text = words(page)
    for name in ("Records", "Individuals", "Phenotype", "Twins", "Genetic or permanent", "REML"):
        assert f"{name}: " in text
    check = model.check_residuals()
    assert f"skewness {check.skewness:+.2f}, excess kurtosis {check.kurtosis:+.2f}" in text


def test_priors_of_ones_own_are_named(model, tree, tmp_path):
    """The defaults are not claimed, nor drawn, where others were used."""
    other = tree.copy()
    other.attrs = tree.attrs | {"priors": {"share": "Dirichlet([2, 1, 3])"}}
    text = words(model.report(tmp_path / "r.html", tree=other).read_text(encoding="utf-8"))
    assert "prior of share Dirichlet([2, 1, 3])" in text
    assert "Beta(1, 2)" not in text
    assert "Dashed" not in text
    lines = [len(bl.plots.repeatability(draws).lines) for draws in (tree, other)]
    assert lines[0] == lines[1] + 3  # two priors, and their name


def test_draws_of_another_model_are_refused(model, tree, tmp_path):
    other = tree.copy()
    other.attrs = tree.attrs | {"n_records": 12}
    with pytest.raises(bl.InputError, match=r"These draws are of 'weight ~ age', 12 records of 60"):
        model.report(tmp_path / "r.html", tree=other)
    single = bl.LMM(model.y[:40], None, bl.grm(np.random.default_rng(1).integers(0, 3, (40, 90))))
    draws = single.posterior(50, seed=1)
    with pytest.raises(bl.InputError, match="not of a model of repeated measures"):
        model.report(tmp_path / "r.html", tree=draws)
    with pytest.raises(bl.InputError, match="have no repeatability"):
        bl.plots.repeatability(draws)
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("counts", "level", "said"),
    [
        (np.full(300, 2), "good", "300 with two records or more"),
        (np.repeat([1, 2], [290, 10]), "look", "read both as one"),
        (np.full(80, 2), "look", "So few individuals"),
    ],
)
def test_lights_of_individuals(counts, level, said):
    check = diagnostics.of_individuals(pd.Series(counts))
    assert check.level == level
    assert said in f"{check.finding} {check.action}"


def test_plots_show_draws_and_reml(model, tree):
    fit = model.reml()
    ax = bl.plots.repeatability(tree, fit)
    assert ax.get_xlim() == (0, 1)
    curve = ax.lines[0].get_data()
    assert np.trapezoid(curve[1], curve[0]) == pytest.approx(1, abs=0.02)
    centre = np.trapezoid(curve[0] * curve[1], curve[0])
    assert centre == pytest.approx(float(tree["posterior"].h2.mean()), abs=0.02)
    marks = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "D"
             and len(line.get_xdata())]  # fmt: skip
    assert marks == pytest.approx([fit.h2, fit.repeatability])
    ax = bl.plots.shares(tree, fit)
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "genetic", "permanent", "residual",
    ]  # fmt: skip
    assert ax.lines[0].get_xdata() == pytest.approx(
        tree["posterior"]["share"].mean(("chain", "draw")).to_numpy()
    )
    shown = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 3]
    assert shown[1] == pytest.approx(fit.components["share"].to_numpy())
