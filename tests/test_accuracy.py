"""Predictions against what was measured, and phenotypes of others as the formula makes them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

import bayeslmm as bl
from bayeslmm.model.accuracy import (
    expected_correlations,
    left_out_accuracy,
    measured_accuracy,
)


@pytest.fixture
def predicted(rng):
    mean = rng.normal(size=60)
    ids = pd.Index([f"s{i}" for i in range(60)], name="id")
    table = pd.DataFrame({"y_mean": mean, "y_low": mean - 1, "y_high": mean + 1}, index=ids)
    table.attrs["prob"] = 0.7
    return table


def test_accuracy_is_what_scipy_computes(predicted, rng):
    y = pd.Series(0.8 * predicted.y_mean + rng.normal(size=60), predicted.index)
    shuffled = y.drop(["s1", "s2"]).sample(frac=1, random_state=1)
    shuffled["nobody"], shuffled["s3"] = 3.0, np.nan
    found = bl.prediction_accuracy(predicted, shuffled)
    kept = predicted.index[4:].insert(0, "s0")
    x, y = predicted.y_mean[kept], y[kept]
    expected = pearsonr(x, y)
    assert found.n == 57
    assert found.correlation == pytest.approx(expected.statistic)
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval(0.95))
    assert found.slope == pytest.approx(np.polyfit(x, y, 1)[0])
    assert found.rmse == pytest.approx(np.sqrt(np.mean((y - x) ** 2)))
    assert found.coverage == pytest.approx((np.abs(y - x) <= 1).mean())
    assert "% within 70% intervals (57 samples)" in str(found)
    assert measured_accuracy(predicted.assign(y_observed=shuffled)) == found
    assert measured_accuracy(predicted) is None
    assert measured_accuracy(predicted.assign(y_observed=np.nan)) is None


def test_equal_predictions_have_no_correlation(predicted):
    found = bl.prediction_accuracy(predicted.assign(y_mean=1.0), predicted.y_mean)
    assert np.isnan([found.correlation, found.low, found.high, found.slope]).all()
    assert found.rmse == pytest.approx(np.sqrt(np.mean((predicted.y_mean - 1) ** 2)))


def test_too_few_phenotypes_or_two_of_one_sample(predicted):
    with pytest.raises(bl.InputError, match="3 of 60 predicted samples have a phenotype"):
        bl.prediction_accuracy(predicted, predicted.y_mean[:3])
    with pytest.raises(bl.InputError, match="name sample 's0' twice"):
        bl.prediction_accuracy(predicted, predicted.y_mean.iloc[[0, 0, 1, 2, 3]])


def test_left_out_samples_within_their_intervals(rng):
    check = bl.LMM(rng.normal(size=80)).check_residuals()
    found = left_out_accuracy(check, 0.5)
    assert found.coverage == (check.table.z.abs() <= 0.6744897501960817).mean()
    assert found.rmse == pytest.approx(
        np.sqrt(np.mean((check.table.y - check.table.loo_mean) ** 2))
    )


@pytest.mark.calibration
def test_expected_correlations_come_true():
    """Cohorts drawn from the model, h2 from its prior: expected and true correlation agree."""
    rng = np.random.default_rng(3)
    cohort = bl.simulate_cohort(None, 240, 400, families=6, seed=2)
    K = bl.grm(cohort.genotypes)
    root = np.linalg.cholesky(K.matrix + 1e-8 * np.eye(240))
    ids = K.samples
    differences = []
    for _ in range(60):
        h2 = rng.random()
        u = np.sqrt(h2) * root @ rng.normal(size=240)
        y = pd.Series(u + np.sqrt(1 - h2) * rng.normal(size=240), ids)
        new = rng.choice(240, 80, replace=False)
        known = pd.DataFrame({"y": y.drop(ids[new])})
        found = bl.LMM("y ~ 1", known, K).predict(samples=ids[new], seed=1)
        truth = [
            np.corrcoef(found.u_mean, u[new])[0, 1],
            np.corrcoef(found.y_mean, y.iloc[new])[0, 1],
        ]
        differences.append(np.array(truth) - expected_correlations(found))
    mean, se = np.mean(differences, axis=0), np.std(differences, axis=0) / np.sqrt(60)
    print(mean, se)
    assert (np.abs(mean) < 3 * se).all(), (mean, se)


def test_predictions_know_what_they_are(mice):
    few = mice.phenotypes[mice.phenotypes.cd8.notna()][:60]
    K = bl.grm(mice.genotypes.select(samples=few.index, chrom="19"))
    model = bl.LMM("cd8 ~ sex", few[:50], K)
    found = model.predict(samples=few.index[50:], data=few, prob=0.8)
    assert found.attrs == {"formula": "cd8 ~ sex", "prob": 0.8, "draws": 1000}


# -- phenotypes of others ----------------------------------------------------------------------


@pytest.fixture
def table(rng):
    table = pd.DataFrame(
        {"y": rng.gamma(3, size=40), "sex": np.tile(["F", "M"], 20)},
        index=[f"i{j}" for j in range(40)],
    )
    return table.assign(ill=np.where(table.y > 3, "Case", "Control"))


def test_phenotypes_of_others_are_made_as_the_models_own(table):
    """center() takes off the mean of those analysed, not that of the others."""
    others = table.iloc[30:].assign(y=lambda t: t.y.mask(t.index == "i33"))
    for formula, of in (
        ("log(y) ~ sex", np.log),
        ("center(y) ~ 1", lambda y: y - table.y[:30].mean()),
    ):
        model = bl.LMM(formula, table[:30])
        found = model.phenotypes_of(others, ["i39", "i33", "i31", "nobody"])
        expected = [of(table.y["i39"]), np.nan, of(table.y["i31"]), np.nan]
        np.testing.assert_allclose(found, expected)
        assert found.index.tolist() == ["i39", "i33", "i31", "nobody"]
        assert model.phenotypes_of(others[["sex"]], ["i39"]).isna().all()


def test_phenotypes_of_others_in_words(table):
    model = bl.LMM("ill ~ sex", table[:30])
    others = pd.DataFrame({"ill": ["case", None, "CONTROL"]}, index=["a", "b", "c"])
    np.testing.assert_array_equal(model.phenotypes_of(others, [*"abc"]), [1, np.nan, 0])
    with pytest.raises(bl.InputError, match="of sample 'a' is 'sick'; the model knows"):
        model.phenotypes_of(others.replace("case", "sick"), [*"abc"])
    with pytest.raises(bl.InputError, match=r"'y' is not numeric \(sample 'a': 'case'\)"):
        bl.LMM("y ~ sex", table).phenotypes_of(others.rename(columns={"ill": "y"}), [*"abc"])


def test_phenotypes_of_others_that_cannot_be(table):
    model = bl.LMM("log(y) ~ sex", table[:30])
    with pytest.raises(bl.InputError, match=r"'log\(y\)' of sample 'i35' is not finite"):
        model.phenotypes_of(table.assign(y=table.y.mask(table.index == "i35", -1.0)), table.index)
    by_array = bl.LMM(table.y.to_numpy())
    with pytest.raises(bl.InputError, match="given as an array: how it was made"):
        by_array.phenotypes_of(table, ["i1"])
    changed = model.with_phenotype(model.y[::-1])
    with pytest.raises(bl.InputError, match="given as an array"):
        changed.phenotypes_of(table, ["i1"])
    more = bl.LMM("y ~ 1", table).with_covariates(pd.DataFrame({"age": table.y**2}))
    assert more.phenotypes_of(table, ["i1"]).tolist() == [table.y["i1"]]
