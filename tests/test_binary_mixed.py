"""The logistic mixed model: against PQL by brute force, quadrature, and simulated nulls."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

import bayeslmm as bl
from bayeslmm.binary.logistic import fit_null
from bayeslmm.binary.mixed import fit_pql
from bayeslmm.binary.scan import CaseScanner


def families(size, count):
    return np.kron(np.eye(count), np.ones((size, size)))


def simulated(rng, K, tau, intercept=-0.5):
    n = len(K)
    C = np.column_stack([np.ones(n), rng.normal(size=n)])
    root = np.linalg.cholesky(K + 1e-9 * np.eye(n))
    eta = C @ [intercept, 0.4] + np.sqrt(tau) * root @ rng.normal(size=n)
    return (rng.random(n) < expit(eta)).astype(float), C


@pytest.fixture
def related(rng):
    """120 samples with a dense relatedness of rank 60, cases, covariates."""
    Z = rng.normal(size=(120, 60)) + np.repeat(rng.normal(size=(12, 60)), 10, axis=0)
    K = Z @ Z.T / 60
    y, C = simulated(rng, K, 1.5)
    return y, C, K


def brute_force_pql(y, C, K):
    """tau, b, P: joint modes of (b, u) by BFGS in turn with REML of the working phenotype."""
    c = C.shape[1]
    values, vectors = np.linalg.eigh(K)
    L = vectors[:, values > 1e-9] * np.sqrt(values[values > 1e-9])
    tau = 1.0
    for _ in range(200):
        Z = np.column_stack([C, np.sqrt(tau) * L])

        def loss(theta, Z=Z):
            eta = Z @ theta
            value = np.logaddexp(0, eta).sum() - y @ eta + 0.5 * theta[c:] @ theta[c:]
            slope = Z.T @ (expit(eta) - y)
            slope[c:] += theta[c:]
            return value, slope

        mode = minimize(loss, np.zeros(Z.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9})
        eta = Z @ mode.x
        mu = expit(eta)
        w = mu * (1 - mu)
        Y = eta + (y - mu) / w

        def projection(tau, w=w):
            inverse = np.linalg.inv(np.diag(1 / w) + tau * K)
            middle = np.linalg.inv(C.T @ inverse @ C)
            P = inverse - inverse @ C @ middle @ C.T @ inverse
            logdet = np.linalg.slogdet(inverse)[1] + np.linalg.slogdet(middle)[1]
            return P, logdet

        def reml(log_tau, Y=Y, projection=projection):
            P, logdet = projection(np.exp(log_tau))
            return -0.5 * (logdet - Y @ P @ Y)

        new = np.exp(
            minimize_scalar(reml, bounds=(-10, 5), method="bounded", options={"xatol": 1e-9}).x
        )
        done = abs(new - tau) < 1e-7 * tau
        tau = new
        if done:
            break
    return tau, mode.x[:c], projection(tau)[0]


@pytest.mark.algebra
def test_null_fit_is_that_of_brute_force(related):
    y, C, K = related
    tau, b, P = brute_force_pql(y, C, K)
    fit = fit_pql(y, C, K)
    assert fit.tau == pytest.approx(tau, rel=1e-4)
    np.testing.assert_allclose(fit.null.b, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fit.P, P, atol=2e-4 * np.abs(P).max())
    residual = y - fit.null.mu
    np.testing.assert_allclose(C.T @ residual, 0, atol=1e-5)
    np.testing.assert_allclose(fit.u, fit.tau * K @ residual, atol=1e-5)


@pytest.mark.algebra
def test_variance_of_the_score_has_a_part_of_labels_and_one_of_u(related, rng):
    y, C, K = related
    fit = fit_pql(y, C, K)
    x = fit.null.project(rng.binomial(2, 0.3, size=(4, len(y))).astype(float))
    variance, Px = fit.variance(x)
    a = Px / fit.null.w
    of_labels = (a * a) @ fit.null.w
    of_u = fit.tau * np.einsum("ij,jk,ik->i", Px, K, Px)
    np.testing.assert_allclose(of_labels + of_u, variance, rtol=1e-4)


@pytest.mark.algebra
def test_scale_and_centring_of_K_change_no_test(related, rng):
    y, C, K = related
    x = rng.binomial(2, 0.3, size=(3, len(y))).astype(float)
    x -= x.mean(axis=1, keepdims=True)
    fit = fit_pql(y, C, K)
    J = np.eye(len(y)) - 1 / len(y)
    for other, factor in ((3 * K, 3), (J @ K @ J, 1)):
        again = fit_pql(y, C, other)
        assert again.tau == pytest.approx(fit.tau / factor, rel=1e-4)
        one, two = (f.null.score(f.null.project(x))[0] for f in (fit, again))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
        one, two = (f.variance(f.null.project(x))[0] for f in (fit, again))
        np.testing.assert_allclose(one, two, rtol=1e-3)


def test_without_genetic_variance_it_is_logistic_regression(rng):
    """Cases alternate within families: less alike than chance."""
    K = families(4, 60)
    y = np.tile([0.0, 1.0], 120)
    C = np.column_stack([np.ones(240), rng.normal(size=240)])
    fit, plain = fit_pql(y, C, K), fit_null(y, C)
    assert fit.tau == 0
    np.testing.assert_allclose(fit.null.b, plain.b, rtol=1e-6)
    x = plain.project(rng.normal(size=(5, 240)))
    np.testing.assert_allclose(fit.variance(x)[0], plain.score(x)[1], rtol=1e-6)


def exact_loglik(y, size, intercept, tau):
    """Marginal log-likelihood of families that share one normal effect, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    cases = y.reshape(-1, size).sum(axis=1)[:, None]
    eta = intercept + np.sqrt(tau) * nodes
    log = cases * eta - size * np.logaddexp(0, eta)
    return float(np.log(np.exp(log) @ weights / np.sqrt(2 * np.pi)).sum())


@pytest.mark.algebra
@pytest.mark.parametrize(("size", "least", "most"), [(3, 0.3, 0.85), (60, 0.9, 1.02)])
def test_bias_of_pql_against_the_exact_likelihood(rng, size, least, most):
    """Towards 0, and large in small families (Breslow & Lin 1995): as the documentation says.

    The exact fit is by full likelihood; REML's loses no degree of freedom to the intercept.
    """
    count = 600 // size
    u = np.sqrt(1.5) * np.repeat(rng.normal(size=count), size)
    y = (rng.random(count * size) < expit(u - 0.3)).astype(float)
    best = minimize(
        lambda t: -exact_loglik(y, size, t[0], np.exp(t[1])), [0.0, 0.0], method="Nelder-Mead"
    )
    fit = fit_pql(y, np.ones((len(y), 1)), families(size, count))
    ratio = fit.tau * (count - 1) / count / np.exp(best.x[1])
    assert least < ratio < most


# -- the scan ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def young(mice):
    """300 mice, every 12th variant."""
    variants = np.arange(mice.genotypes.n_variants) % 12 == 0
    genotypes = mice.genotypes.select(samples=list(mice.genotypes.samples.index[:300]))
    return genotypes.select(variants=variants), bl.grm(genotypes, progress=False)


def with_cases(genotypes, kernel, liability, n_cases):
    case = np.zeros(len(liability))
    case[np.argsort(-liability)[:n_cases]] = 1
    table = pd.DataFrame({"case": case}, index=genotypes.samples.index)
    return bl.LMM("case ~ 1", table, kernel)


def test_scan_with_relatedness(young, rng):
    genotypes, kernel = young
    u = kernel.eigenbasis().unrotate(np.sqrt(kernel.eigenbasis().values) * rng.standard_normal(300))
    model = with_cases(genotypes, kernel, u + 0.5 * rng.standard_normal(300), 100)
    hits = model.scan(genotypes, family="binomial")
    assert list(hits.columns[-5:]) == ["or_high", "p_score", "p_spa", "neg_log10_p", "method"]
    assert hits.attrs["tau"] > 0
    assert "no heritability" in hits.attrs["tau_note"]
    assert set(hits.method.dropna()) == {"score", "spa"}
    np.testing.assert_allclose(10.0**-hits.neg_log10_p, hits.p_spa)
    z = hits.beta / hits.se
    near = z.abs() <= 2
    np.testing.assert_allclose(hits.p_spa[near], hits.p_score[near])
    fit = fit_pql(model.y, model.C.to_numpy(), kernel.matrix)
    block = genotypes.centered_block(0, genotypes.n_variants, np.float64)
    x = fit.null.project(block.x)
    score, variance = fit.null.score(x)[0], fit.variance(x)[0]
    there = hits.beta.notna().to_numpy()
    expected = score[there] / np.sqrt(variance[there])
    np.testing.assert_allclose(z[there], expected, atol=2e-3)


def test_tests_that_need_a_fit_of_each_variant_are_refused(young, rng):
    genotypes, kernel = young
    model = with_cases(genotypes, kernel, rng.standard_normal(300), 150)
    with pytest.raises(bl.InputError, match="with relatedness the null model is fitted once"):
        model.scan(genotypes, "wald", family="binomial")


@pytest.mark.calibration
def test_type_one_error_with_few_cases(young):
    """1:11, heritable liability: saddlepoint tails hold the error that plain regression loses.

    Fifteen phenotypes; the interval of the mean of their rejected shares is three standard
    errors wide on either side.
    """
    genotypes, kernel = young
    rng = np.random.default_rng(3)
    basis = kernel.eigenbasis()
    block = genotypes.centered_block(0, genotypes.n_variants, np.float64)
    used = np.minimum(block.eaf, 1 - block.eaf) > 0.02
    shares = {"mixed": [], "plain": []}
    for _ in range(15):
        u = basis.unrotate(np.sqrt(basis.values / basis.kappa) * rng.standard_normal(300))
        model = with_cases(genotypes, kernel, u + 0.4 * rng.standard_normal(300), 25)
        for name, one in (("mixed", model), ("plain", model.without_kernel())):
            scanner = CaseScanner(one, ("spa",))
            found = scanner.test(block, scanner.prepare(block))
            shares[name].append((found["log10_spa"][used] < np.log10(0.01)).mean())
    mean = {name: np.mean(values) for name, values in shares.items()}
    error = 3 * np.std(shares["mixed"]) / np.sqrt(15)
    assert mean["mixed"] < 0.01 + error
    assert mean["mixed"] > 0.003
    assert mean["plain"] > 2 * mean["mixed"]
