import dense
import numpy as np
import pytest
from scipy import linalg, stats

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.numerics import likelihood

pytestmark = pytest.mark.algebra
H2 = [0.0, 1e-8, 0.01, 0.2, 0.5, 0.8, 0.99, 1 - 1e-6]


def rotated(y, C, K, center=None):
    center = dense.has_intercept(C) if center is None else center
    return likelihood.rotate(bl.eigenbasis(K, center=center), y, C)


def working_kernel(K, C):
    return dense.centred(K) if dense.has_intercept(C) else K


@pytest.fixture(params=dense.CASES, ids=lambda case: case.name)
def case(request):
    return request.param.make()


def test_restricted_equals_dense(case):
    y, C, K = case
    # K as it comes, not centred: the contrasts do not see the difference.
    expected = [dense.profiled(y, C, K, h2)[0] for h2 in H2]
    np.testing.assert_allclose(
        likelihood.restricted_loglik(rotated(y, C, K), np.array(H2)), expected, rtol=1e-10
    )


def test_full_equals_dense(case):
    y, C, K = case
    expected = [dense.profiled(y, C, working_kernel(K, C), h2, "ml")[0] for h2 in H2]
    np.testing.assert_allclose(
        likelihood.full_loglik(rotated(y, C, K), np.array(H2)), expected, rtol=1e-9
    )


@pytest.mark.parametrize(("nu", "scale"), [(0.0, 0.0), (3.0, 0.7), (0.5, 10.0), (40.0, 1.5)])
def test_integrated_equals_quadrature_over_s2(case, nu, scale):
    y, C, K = case
    h2 = [0.0, 0.3, 0.9]
    expected = [dense.integrated_loglik(y, C, K, h, nu, scale) for h in h2]
    got = likelihood.integrated_loglik(
        rotated(y, C, K), np.array(h2), prior_df=nu, prior_scale=scale
    )
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_integrated_constant_by_brute_force_over_b_and_s2():
    y, C, K = dense.Case("", 7, 2, "genotypes", 20).make(3)
    h2 = 0.4
    Q = linalg.orth(C)
    Kc = dense.centred(K)
    V = h2 * Kc / (np.trace(Kc) / 7) + (1 - h2) * np.eye(7)
    centre, cov = dense.gls(y, Q, V)
    # The trapezoid rule converges geometrically for smooth decaying integrands.
    z = np.linspace(-8, 8, 49)
    grid = np.stack(np.meshgrid(z, z, indexing="ij"), axis=-1).reshape(-1, 2)
    log_s2 = np.linspace(-10, 22, 801)
    L = np.linalg.cholesky(cov)
    total = 0.0
    for s2 in np.exp(log_s2):
        b = centre + np.sqrt(s2) * grid @ L.T
        density = stats.multivariate_normal(cov=s2 * V).pdf(y - b @ Q.T)
        volume = s2 * np.linalg.det(L) * (z[1] - z[0]) ** 2 * (log_s2[1] - log_s2[0])
        total += density.sum() * volume
    got = likelihood.integrated_loglik(rotated(y, C, K), np.array([h2]))[0]
    assert got == pytest.approx(np.log(total), abs=1e-8)


def test_integrated_refuses_improper_prior():
    y, C, K = dense.CASES[0].make()
    for prior_df, prior_scale in [(-1, 1), (3, 0), (3, -2)]:
        with pytest.raises(InputError, match="is no density: both must be above 0"):
            likelihood.integrated_loglik(
                rotated(y, C, K), np.array([0.5]), prior_df=prior_df, prior_scale=prior_scale
            )


@pytest.mark.parametrize("h2", [1e-9, 1e-4, 0.5, 1 - 1e-4, 1 - 1e-6, 1 - 1e-9])
def test_precision_at_the_ends(case, h2):
    y, C, K = case
    got = likelihood.restricted_loglik(rotated(y, C, K), np.array([h2]))[0]
    # Eigenvalues are known to 1e-15 of the largest; where K is rank-deficient, d is as small
    # as 1 - h2, and its logarithm that much less precise.
    s_max = np.linalg.eigvalsh(dense.centred(K))[-1] / dense.kappa_of(K, C)
    tolerance = 1e-10 * abs(got) + 4e-16 * s_max * len(y) ** 1.5 / (1 - h2)
    assert got == pytest.approx(dense.reml_extended(y, C, K, h2), abs=tolerance)


def test_precision_at_the_ends_full_rank():
    y, C, K = dense.Case("", 30, 3, "genotypes", 300).make()
    for h2 in (1e-9, 1 - 1e-6, 1 - 1e-9):
        got = likelihood.restricted_loglik(rotated(y, C, K), np.array([h2]))[0]
        assert got == pytest.approx(dense.reml_extended(y, C, K, h2), rel=1e-11)


def test_large_offset_of_the_phenotype_costs_no_precision():
    y, C, K = dense.CASES[0].make()
    y = np.round(y * 1024) / 1024  # so that the shifted y is exact
    h2 = np.array([0.0, 0.5, 1 - 1e-9])
    np.testing.assert_allclose(
        likelihood.restricted_loglik(rotated(y + 2.0**30, C, K), h2),
        likelihood.restricted_loglik(rotated(y, C, K), h2),
        rtol=1e-6,
    )


def without_intercept(y, C, K):
    return y, C[:, 1:], K


def two_dummies(y, C, K):
    first = (np.arange(len(y)) % 3 == 0).astype(float)
    return y, np.column_stack([first, 1 - first, C[:, 1]]), K


def no_covariates(y, C, K):
    return y, C[:, :0], K


def badly_scaled(y, C, K):
    return y, C * np.array([1.0, 1e7]), K


@pytest.mark.parametrize("change", [without_intercept, two_dummies, no_covariates, badly_scaled])
@pytest.mark.parametrize("case_number", [0, 1])
def test_other_designs(change, case_number):
    y, C, K = change(*dense.CASES[case_number].make())
    data = rotated(y, C, K)
    h2 = np.array([0.0, 0.2, 0.7, 0.99])
    np.testing.assert_allclose(
        likelihood.restricted_loglik(data, h2),
        [dense.profiled(y, C, K, h)[0] for h in h2],
        rtol=1e-10,
    )
    np.testing.assert_allclose(
        likelihood.full_loglik(data, h2),
        [dense.profiled(y, C, working_kernel(K, C), h, "ml")[0] for h in h2],
        rtol=1e-10,
    )
    for h in h2:
        V = h * working_kernel(K, C) / dense.kappa_of(K, C) + (1 - h) * np.eye(len(y))
        b, _ = dense.gls(y, C, V)
        t = likelihood.terms(data, np.array([h]))
        np.testing.assert_allclose(data.b_ols + data.to_covariates @ t.b[0], b, rtol=1e-8)


def test_two_dummies_that_span_the_intercept_near_h2_of_1():
    y, C, K = two_dummies(*dense.CASES[0].make())
    got = likelihood.restricted_loglik(rotated(y, C, K), np.array([1 - 1e-9]))[0]
    assert got == pytest.approx(dense.reml_extended(y, C, K, 1 - 1e-9), rel=1e-10)


def test_gls_coefficients_equal_dense(case):
    y, C, K = case
    data = rotated(y, C, K)
    for h2 in (0.0, 0.4, 0.95):
        V = h2 * dense.centred(K) / dense.kappa_of(K, C) + (1 - h2) * np.eye(len(y))
        b, cov = dense.gls(y, C, V)
        t = likelihood.terms(data, np.array([h2]))
        np.testing.assert_allclose(data.b_ols + data.to_covariates @ t.b[0], b, rtol=1e-7)
        Linv = np.linalg.inv(t.L[0])
        got = data.to_covariates @ Linv.T @ Linv @ data.to_covariates.T
        np.testing.assert_allclose(got, cov, rtol=1e-7, atol=1e-10 * np.abs(cov).max())


def test_without_kernel_it_is_least_squares():
    y, C, _ = dense.CASES[3].make()
    data = likelihood.rotate(None, y, C)
    b, *_ = dense.ols(y, C)
    np.testing.assert_allclose(data.b_ols, b, rtol=1e-10)
    got = likelihood.restricted_loglik(data, np.zeros(1))[0]
    s2 = np.sum((y - C @ b) ** 2) / (len(y) - C.shape[1])
    assert got == pytest.approx(dense.reml_loglik(y, C, s2 * np.eye(len(y))), rel=1e-12)


def test_derivatives_equal_finite_differences(case):
    y, C, K = case
    data = rotated(y, C, K)
    for h2 in (0.05, 0.5, 0.9):
        step = 1e-3 * min(h2, 1 - h2)
        t = likelihood.terms(data, h2 + step * np.arange(-3, 4))
        first = np.array([-1, 9, -45, 0, 45, -9, 1]) / (60 * step)
        second = np.array([2, -27, 270, -490, 270, -27, 2]) / (180 * step**2)
        d = likelihood.derivatives(data, h2)
        assert pytest.approx(t.Q[3], rel=1e-12) == d.Q
        assert pytest.approx(first @ t.logdet, rel=1e-7, abs=1e-7) == d.F1
        assert pytest.approx(second @ t.logdet, rel=1e-5, abs=1e-5) == d.F2
        assert pytest.approx(first @ t.Q, rel=1e-7, abs=1e-8 * d.Q) == d.Q1
        assert pytest.approx(second @ t.Q, rel=1e-5, abs=1e-6 * d.Q) == d.Q2


def test_many_values_of_h2_come_in_chunks(monkeypatch):
    y, C, K = dense.CASES[0].make()
    data = rotated(y, C, K)
    h2 = np.linspace(0, 1, 50)
    whole = likelihood.restricted_loglik(data, h2)
    monkeypatch.setattr(likelihood, "_CHUNK", 7 * len(y))
    # BLAS sums the n terms in an order that depends on the number of rows: Q and |A| are right
    # to n rounding errors, and -df/2 log Q with them.
    rounding = data.df * data.n * np.finfo(float).eps
    pieces = likelihood.restricted_loglik(data, h2)
    np.testing.assert_allclose(pieces, whole, rtol=0, atol=rounding)


def test_covariates_that_explain_everything():
    _, C, K = dense.CASES[0].make()
    with pytest.raises(InputError, match="explain the phenotype completely"):
        rotated(C @ np.ones(C.shape[1]), C, K)
