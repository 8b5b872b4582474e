"""The likelihood of several components against plain matrices."""

import dense
import numpy as np
import pytest
from scipy import optimize, stats

from bayeslmm.numerics import likelihood
from bayeslmm.partition import components as cp


@pytest.fixture(scope="module", params=[(40, 2), (41, 1), (30, 4)])
def problem(request):
    """y, C, two kernels, and the centred kernels over their mean diagonals."""
    n, c = request.param
    rng = np.random.default_rng([5, n])
    kernels = [dense.kernel("genotypes", n, m, rng) * scale for m, scale in ((25, 1), (200, 30))]
    C = np.column_stack([np.ones(n), rng.normal(2, 3, size=(n, c - 1))])
    unit = [dense.centred(K) / dense.kappa_of(K, C) for K in kernels]
    V = 0.3 * unit[0] + 0.3 * unit[1] + 0.4 * np.eye(n)
    y = C @ rng.normal(size=c) + np.linalg.cholesky(V) @ rng.normal(size=n)
    return y, C, kernels, unit


def covariance(unit, theta):
    V = sum(t * K for t, K in zip(theta, unit, strict=False))
    return V + theta[-1] * np.eye(len(V))


@pytest.mark.algebra
def test_packed_matrices():
    rng = np.random.default_rng(1)
    for n in (1, 2, 5, 8):
        A = rng.normal(size=(n, n))
        A = A + A.T
        x = rng.normal(size=n)
        np.testing.assert_allclose(np.tril(A), cp.unpacked(cp.pack(A)))
        np.testing.assert_allclose(cp.unpacked_times(cp.pack(A), x), A @ x)


@pytest.mark.algebra
def test_likelihood_is_that_of_the_contrasts(problem):
    y, C, kernels, unit = problem
    parts = cp.Components(y, C, kernels, center=True)
    theta = np.array([0.5, 0.2, 0.7])
    at = parts.factor(theta)
    V = covariance(unit, theta)
    assert at.restricted == pytest.approx(dense.reml_loglik(y, C, V), abs=1e-9)
    np.testing.assert_allclose(parts.kappa, [dense.kappa_of(K, C) for K in kernels])
    # Derivatives by differences of the dense likelihood.
    for k in range(3):
        step = np.eye(3)[k] * 1e-5
        ahead, behind = (
            dense.reml_loglik(y, C, covariance(unit, theta + s)) for s in (step, -step)
        )
        assert at.score[k] == pytest.approx((ahead - behind) / 2e-5, rel=1e-5, abs=1e-6)
    P = np.linalg.inv(V)
    P -= P @ C @ np.linalg.solve(C.T @ P @ C, C.T @ P)
    all_of = [*unit, np.eye(len(y))]
    AI = [[0.5 * y @ P @ A @ P @ B @ P @ y for A in all_of] for B in all_of]
    np.testing.assert_allclose(at.average_information, AI, rtol=1e-8)


@pytest.mark.algebra
def test_integrated_likelihood_and_effects(problem):
    y, C, kernels, unit = problem
    parts = cp.Components(y, C, kernels, center=True)
    shares = np.array([0.25, 0.4, 0.35])
    at = parts.evaluate(shares)
    mixed = 0.25 / 0.65 * unit[0] + 0.4 / 0.65 * unit[1]
    # One kernel with h2 = 0.65: s2 integrated by quadrature.
    expected = dense.integrated_loglik(y, C, mixed, 0.65)
    assert at.loglik == pytest.approx(expected, abs=1e-6)
    V = covariance(unit, shares)
    b, cov = dense.gls(y, C, V)
    np.testing.assert_allclose(at.b, b, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(at.covariance, cov, rtol=1e-8, atol=1e-10)
    slope, AI = parts.factor(shares).share_derivatives()
    for k in range(2):
        step = np.array([[1.0, 0, -1], [0, 1.0, -1]])[k] * 1e-5
        values = parts.loglik(np.array([shares + step, shares - step]))
        assert slope[k] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-6)
    assert np.linalg.eigvalsh(AI)[0] > 0


@pytest.mark.algebra
def test_one_kernel_is_the_likelihood_on_the_basis(problem):
    y, C, kernels, _ = problem
    import bayeslmm as bl

    data = likelihood.rotate(bl.eigenbasis(kernels[1]), y, C)
    parts = cp.Components(y, C, kernels[1:], center=True)
    h2 = np.array([0.0, 0.2, 0.9])
    found = parts.loglik(np.column_stack([h2, 1 - h2]))
    np.testing.assert_allclose(found, likelihood.integrated_loglik(data, h2), atol=1e-8)


@pytest.mark.algebra
@pytest.mark.parametrize("seed", range(8))
def test_reml_finds_the_maximum_also_on_the_boundary(seed):
    rng = np.random.default_rng(seed)
    n = 30
    kernels = [dense.kernel("genotypes", n, m, rng) for m in (20, 60, 100)]
    C = np.ones((n, 1))
    y = np.linalg.cholesky(kernels[0] + np.eye(n)) @ rng.normal(size=n)
    parts = cp.Components(y, C, kernels, center=True)
    fit = cp.maximise(parts)
    assert fit.converged
    values = [row["loglik"] for row in fit.history]
    assert (np.diff(values[1:]) >= 0).all()
    assert fit.history[1]["step"] == "EM"
    unit = [dense.centred(K) / dense.kappa_of(K, C) for K in kernels]

    def negative(theta):
        return -dense.reml_loglik(y, C, covariance(unit, theta))

    best = min(
        (
            optimize.minimize(negative, x0, bounds=[(0, None)] * 3 + [(1e-6, None)])
            for x0 in rng.uniform(0.05, 1, size=(4, 4))
        ),
        key=lambda found: found.fun,
    )
    assert fit.at.restricted == pytest.approx(-best.fun, abs=1e-6)
    np.testing.assert_allclose(fit.theta, best.x, atol=2e-3)
    held = fit.theta[:-1] == 0
    assert (fit.at.score[:-1][held] <= 0).all()
    np.testing.assert_allclose(fit.at.score[:-1][~held], 0, atol=1e-3)


@pytest.mark.algebra
def test_mixtures_of_chi_squared():
    J = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 3.0]])
    half = 0.5 * stats.chi2.sf(2.7, 1)
    assert cp.mixture_p_value(2.7, J, [0], []) == pytest.approx(half)
    assert cp.mixture_p_value(0.0, J, [0], []) == 1
    # Two uncorrelated components tested: weights 1/4, 1/2, 1/4.
    two = 0.5 * stats.chi2.sf(4.0, 1) + 0.25 * stats.chi2.sf(4.0, 2)
    assert cp.mixture_p_value(4.0, np.eye(3), [0, 1], []) == pytest.approx(two, rel=0.03)
    # An uncorrelated untested component at 0 changes nothing.
    assert cp.mixture_p_value(2.7, np.eye(3), [0], [1]) == pytest.approx(half, rel=0.1)
    # Perfectly aligned with one at 0, there is less to gain.
    near = np.array([[1.0, 0.95, 0], [0.95, 1.0, 0], [0, 0, 1]])
    assert cp.mixture_p_value(2.7, near, [0], [1]) < 0.9 * half
    # However small: independent components are half a chi-squared each.
    tiny = 0.5 * stats.chi2.sf(90, 1)
    assert cp.mixture_p_value(90.0, np.eye(3), [0], [1]) == pytest.approx(tiny, rel=0.2)
