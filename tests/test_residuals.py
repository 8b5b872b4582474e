"""Checks of residuals against brute force, and transformations."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as bl
from bayeslmm import plots
from bayeslmm.plots import drawing
from tests import dense

CASE = dense.Case("three covariates", 40, 3, "genotypes", 120)


def fitted(case=CASE, seed=0):
    y, C, K = case.make(seed)
    return bl.LMM(y, C[:, 1:], K), y, C, K


def left_out(y, C, V, members):
    """Mean and covariance of some samples given all others, coefficients refitted."""
    rest = np.setdiff1d(np.arange(len(y)), members)
    b, cov = dense.gls(y[rest], C[rest], V[np.ix_(rest, rest)])
    gain = np.linalg.solve(V[np.ix_(rest, rest)], V[np.ix_(rest, members)]).T
    mean = C[members] @ b + gain @ (y[rest] - C[rest] @ b)
    D = C[members] - gain @ C[rest]
    return mean, V[np.ix_(members, members)] - gain @ V[np.ix_(rest, members)] + D @ cov @ D.T


@pytest.mark.algebra
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_leave_one_out_equals_brute_force(seed):
    model, y, C, K = fitted(seed=seed)
    fit = model.reml()
    V = dense.covariance(dense.centred(K), fit.s2_g, fit.s2_e)
    check = model.check_residuals()
    for i in range(len(y)):
        mean, variance = left_out(y, C, V, [i])
        row = check.table.iloc[i]
        assert row.loo_mean == pytest.approx(mean[0], rel=1e-8, abs=1e-8)
        assert row.loo_sd == pytest.approx(np.sqrt(variance[0, 0]), rel=1e-8)
        assert row.z == pytest.approx((y[i] - mean[0]) / row.loo_sd, abs=1e-8)
        assert row.pit == pytest.approx(stats.norm.cdf(row.z))
    b, _ = dense.gls(y, C, V)
    values, U = np.linalg.eigh(V)
    whitened = U @ ((U.T @ (y - C @ b)) / np.sqrt(values))
    np.testing.assert_allclose(check.table.whitened, whitened, atol=1e-8)


@pytest.mark.algebra
def test_groups_equal_brute_force():
    model, y, C, K = fitted()
    fit = model.reml()
    groups = np.arange(40) % 8
    check = model.check_residuals(groups)
    V = dense.covariance(dense.centred(K), fit.s2_g, fit.s2_e)
    kappa = model.basis.kappa
    grid = np.linspace(0, 1 - 1e-6, 20_001)
    for name, row in check.groups.iterrows():
        members = np.flatnonzero(groups == int(name))
        mean, cov = left_out(y, C, V, members)
        gone = y[members] - mean
        assert row.distance == pytest.approx(gone @ np.linalg.solve(cov, gone), rel=1e-7)
        assert row.p == pytest.approx(stats.chi2(len(members)).sf(row.distance))
        # refitted on the others, K centred on all and with the same kappa
        rest = np.setdiff1d(np.arange(40), members)
        N = dense.contrasts(C[rest])
        lam, W = np.linalg.eigh(N.T @ dense.centred(K)[np.ix_(rest, rest)] @ N / kappa)
        z = (W.T @ (N.T @ y[rest])) ** 2
        d = 1 + grid[:, None] * (lam - 1)
        loglik = -0.5 * (np.log(d).sum(axis=1) + len(z) * np.log((z / d).sum(axis=1)))
        assert row.h2_without == pytest.approx(grid[np.argmax(loglik)], abs=0.01)
        assert row.change == pytest.approx(row.h2_without - fit.h2)
    assert check.groups.change.abs().is_monotonic_decreasing
    assert "without '" in str(check)


def test_groups_are_matched_by_id():
    ids = [f"s{i}" for i in range(40)]
    y, _, K = CASE.make()
    model = bl.LMM(pd.Series(y, ids), kernel=bl.GRM(K, ids))
    labels = pd.Series(np.arange(40) // 10, ids)
    expected = model.check_residuals(labels.to_numpy()).groups
    found = bl.check_residuals(model, labels.sample(frac=1, random_state=1)).groups
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(bl.InputError, match="no label for 1 of 40 samples: 's3'"):
        model.check_residuals(labels.drop("s3"))
    with pytest.raises(bl.InputError, match="names samples twice"):
        model.check_residuals(pd.concat([labels, labels]))


def test_linear_regression_has_deleted_residuals_and_outliers():
    rng = np.random.default_rng(1)
    C = rng.normal(size=(60, 1))
    y = 2 + C[:, 0] + rng.normal(size=60)
    y[11] += 9
    model = bl.LMM(y, C)
    check = model.check_residuals(np.arange(60) // 6)
    X = np.column_stack([np.ones(60), C])
    hat = X @ np.linalg.solve(X.T @ X, X.T)
    residual = y - hat @ y
    s = np.sqrt(residual @ residual / 58)
    np.testing.assert_allclose(check.table.z, residual / (s * np.sqrt(1 - np.diag(hat))))
    assert check.outliers.index.tolist() == ["11"]
    assert check.suggestion.startswith("Look at the outliers first (|z| above 3.3).")
    assert check.groups.index[0] == "1"
    assert check.groups.h2_without.isna().all()


@pytest.mark.calibration
def test_whitened_residuals_of_the_model_itself_are_normal():
    K = np.kron(np.eye(100), np.full((4, 4), 0.5) + 0.5 * np.eye(4))
    L = np.linalg.cholesky(0.6 * K + 0.4 * np.eye(400))
    rng = np.random.default_rng(3)
    model = bl.LMM(L @ rng.normal(size=400), kernel=K)
    check = model.check_residuals()
    assert check.suggestion == ""
    assert check.table.whitened.std() == pytest.approx(1, abs=0.05)
    assert stats.kstest(check.table.pit, "uniform").pvalue > 0.01
    skewed = model.with_phenotype(np.exp(model.y)).check_residuals()
    assert "bl.transforms.box_cox" in skewed.suggestion
    assert skewed.skewness > 1
    fixed = model.with_phenotype(bl.transforms.box_cox(np.exp(model.y)).values).check_residuals()
    assert fixed.suggestion == ""
    shifted = model.with_phenotype(np.exp(model.y) - 3).check_residuals()
    assert "box_cox" not in shifted.suggestion
    binary = model.with_phenotype((model.y > 0.5) * 1.0).check_residuals()
    assert "two values" in binary.suggestion


def test_plot_names_outliers():
    import matplotlib.pyplot as plt

    y = np.random.default_rng(1).normal(size=100)
    y[7], y[9] = 9, -8
    ax = bl.LMM(y).check_residuals().plot()
    assert {text.get_text() for text in ax.texts} >= {"7", "9"}
    drawn = next(line for line in ax.lines if line.get_gid() == "whitened")
    assert len(drawn.get_xdata()) == 100
    assert plots.residuals.__name__ in drawing.SIZES
    plt.close("all")


def test_check_residuals_refuses():
    model, y, _, K = fitted()
    with pytest.raises(bl.InputError, match="groups has 2 labels, but 40 samples"):
        model.check_residuals([1, 2])
    with pytest.raises(bl.InputError, match="no label for 1 of 40 samples"):
        model.check_residuals([None] + 39 * ["a"])
    with pytest.raises(bl.InputError, match="too few are left"):
        model.check_residuals(39 * ["a"] + ["b"])
    only = np.zeros((40, 1))
    only[:5] = 1
    with pytest.raises(bl.InputError, match="a covariate cannot be estimated"):
        bl.LMM(y, only, K).check_residuals(np.arange(40) // 5)


def test_inverse_normal():
    y = np.array([3.0, np.nan, 100.0, 5.0, 5.0])
    z = bl.transforms.inverse_normal(y)
    ranks = np.array([1, 4, 2.5, 2.5])
    np.testing.assert_allclose(z[[0, 2, 3, 4]], stats.norm.ppf((ranks - 0.375) / 4.25))
    assert np.isnan(z[1])
    np.testing.assert_allclose(bl.transforms.inverse_normal(np.exp(y[[0, 2, 3]] / 9)), z_of(3))
    with pytest.raises(bl.InputError, match="offset must be"):
        bl.transforms.inverse_normal(y, offset=0.7)


def z_of(n):
    z = stats.norm.ppf((np.arange(1, n + 1) - 0.375) / (n + 0.25))
    return z[[0, 2, 1]]


@pytest.mark.parametrize("power", [-1.5, 0, 0.5, 1, 2])
def test_box_cox_and_back(power):
    y = np.append(np.random.default_rng(1).lognormal(size=50), np.nan)
    found = bl.transforms.box_cox(y, power=power)
    np.testing.assert_allclose(found.values, stats.boxcox(y, power))
    np.testing.assert_allclose(found.inverse(found.values), y)


def test_box_cox_finds_the_power():
    y = np.random.default_rng(1).lognormal(size=2000)
    assert bl.transforms.box_cox(y).power == pytest.approx(stats.boxcox(y)[1], abs=1e-4)
    root = bl.transforms.box_cox(y, power=0.5)
    assert root.inverse(-10.0) == 0
    assert np.isinf(bl.transforms.box_cox(y, power=-1).inverse(5.0))
    assert "power=0.5" in repr(root)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1.0, -2.0, 3.0], "1 are not"),
        ([1.0, 1.0], "not constant"),
        ([[1.0, 2.0]], "one-dimensional"),
        ([1.0, np.inf], "without infinite"),
    ],
)
def test_box_cox_refuses(y, message):
    with pytest.raises(bl.InputError, match=message):
        bl.transforms.box_cox(y)
