"""Many null phenotypes at once: each as if it were scanned alone, and what they are for."""

import dense
import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.genome.thresholds import ManyNulls, null_phenotypes
from bayeslmm.numerics.tails import log10_p_f

pytestmark = pytest.mark.algebra


def problem(case=dense.CASES[0], v=30, seed=0):
    y, C, K = case.make(seed)
    rng = np.random.default_rng([seed, case.n])
    X = rng.binomial(2, rng.uniform(0.2, 0.8, size=v), size=(case.n, v)).astype(float)
    return bl.LMM(y, C[:, 1:] if C.shape[1] > 1 else None, K), X


@pytest.mark.parametrize("case", dense.CASES, ids=lambda case: case.name)
def test_each_phenotype_is_scanned_as_if_alone(case):
    model, X = problem(case)
    Y = null_phenotypes(model, 6, seed=3)
    nulls = ManyNulls(model, Y, np.dtype("float64"))
    x = model.basis.rotate_rows(np.ascontiguousarray((X - X.mean(axis=0)).T))
    f = nulls.f_statistics(x)
    for r in range(Y.shape[1]):
        alone = model.with_phenotype(model.basis.unrotate(Y[:, r])).scan(
            X, ("wald", "p3d"), dtype="float64"
        )
        np.testing.assert_allclose(
            log10_p_f(f[:, r], nulls.df), np.log10(alone.p_p3d), rtol=2e-5, atol=2e-6
        )
        inside = np.abs(np.log(alone.l_remle * model.rotated.kappa) - nulls.log_ratio[r]) < 1.4
        exact = nulls.smallest_log10_p(Y[:, r], r, x[inside.to_numpy()])
        assert exact == pytest.approx(np.log10(alone.p_wald[inside].min()), rel=1e-5, abs=1e-6)


def test_without_kernel_it_is_regression():
    rng = np.random.default_rng(1)
    X = rng.binomial(2, 0.4, size=(60, 10)).astype(float)
    model = bl.LMM(rng.normal(size=60))
    Y = null_phenotypes(model, 4, seed=1)
    f = ManyNulls(model, Y, np.dtype("float64")).f_statistics((X - X.mean(axis=0)).T)
    for r in range(4):
        expected = [dense.ols(Y[:, r], np.column_stack([np.ones(60), x]))[2][1] for x in X.T]
        np.testing.assert_allclose(10 ** log10_p_f(f[:, r], 58), expected, rtol=1e-9)


def test_threshold_of_independent_variants_is_sidaks():
    """20 independent variants, 4,000 phenotypes: 1 - 0.95^(1/20) within the stated interval."""
    rng = np.random.default_rng(2)
    x = np.linalg.qr(rng.normal(size=(300, 21)) - 0.0)[0]
    x = np.linalg.qr(np.column_stack([np.ones(300), x]))[0][:, 1:21]
    x = (x - x.min(axis=0)) / np.ptp(x, axis=0) * 2
    found = bl.significance_threshold(bl.LMM(rng.normal(size=300)), x, replicates=4000, seed=1)
    low, high = found.interval
    assert low < 1 - 0.95 ** (1 / 20) < high
    assert found.effective_tests == pytest.approx(20, rel=0.25)


@pytest.mark.parametrize("method", ["simulate", "permute"])
def test_share_of_null_phenotypes_below_the_threshold(method):
    model, X = problem(v=15)
    found = bl.significance_threshold(model, X, replicates=400, method=method, seed=4)
    again = bl.significance_threshold(model, X, replicates=400, method=method, seed=4)
    np.testing.assert_array_equal(found.min_p, again.min_p)
    assert (found.min_p < found.p).mean() == pytest.approx(0.05, abs=0.006)
    assert found.interval[0] <= found.p <= found.interval[1]


def test_permuted_phenotypes_have_the_covariance_of_the_model():
    model, _ = problem()
    h2 = model.reml().h2
    Y = null_phenotypes(model, 4000, method="permute", seed=5)
    data = model.rotated
    white = Y * np.sqrt(1 / (1 + h2 * (data.s - 1)).clip(1 - h2))[:, None]
    C = data.C * np.sqrt(1 / (1 + h2 * (data.s - 1)).clip(1 - h2))[:, None]
    np.testing.assert_allclose(C.T @ white, 0, atol=1e-8)
    hat = C @ np.linalg.solve(C.T @ C, C.T)
    covariance = white @ white.T / Y.shape[1]
    expected = (np.eye(data.n) - hat) * np.trace(covariance) / (data.n - C.shape[1])
    assert np.abs(covariance - expected).max() < 0.12 * expected.max()


def test_monomorphic_variants_are_left_out():
    model, X = problem(v=5)
    constant = np.column_stack([X, np.ones((len(X), 3))])
    a = bl.significance_threshold(model, X, replicates=40, seed=1)
    b = bl.significance_threshold(model, constant, replicates=40, seed=1)
    np.testing.assert_allclose(a.min_p, b.min_p, rtol=1e-5)


@pytest.mark.parametrize("kernel", [True, False])
def test_few_variants_some_of_which_cannot_be_tested(kernel):
    """A constant variant and one that covariates explain, beside two, are as if not there."""
    model, X = problem()
    model = model if kernel else bl.LMM(model.y, X[:, :1])
    model = model.with_covariates(pd.DataFrame({"snp": X[:, 1]}, index=model.ids))
    X[:, 2] = 1
    expected, found = (
        bl.significance_threshold(model, X[:, columns], replicates=200, seed=1).min_p
        for columns in ([3, 4], [1, 2, 3, 4])
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    with pytest.raises(InputError, match="none of 2 variants can be tested: they are mono"):
        bl.significance_threshold(model, X[:, 1:3], seed=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"alpha must be in \(0, 1\)"),
        ({"replicates": 10}, "10 replicates are too few for alpha = 0.05: at least 20"),
        ({"method": "bootstrap"}, "method='bootstrap' is unknown"),
    ],
)
def test_bad_input(options, message):
    model, X = problem()
    with pytest.raises(InputError, match=message):
        bl.significance_threshold(model, X, **options)
