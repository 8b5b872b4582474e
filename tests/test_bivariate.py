"""Two traits: the likelihood against full matrices, the posterior against NUTS and simulation."""

import logging

import numpy as np
import pandas as pd
import pytest
from dense import CASES, centred, kernel, reml_loglik
from scipy import linalg, stats

import bayeslmm as bl
from bayeslmm.bivariate import likelihood as biv
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.maximum import maximise_h2
from bayeslmm.priors import CorrelationPrior, beta, uniform

FLAT = biv.PairPrior((uniform(), uniform()), CorrelationPrior(), CorrelationPrior())
THETAS = np.array(
    [
        [0.5, 0.3, 0.4, -0.2, 0.1],
        [0.9, 0.05, -0.95, 0.7, -1.0],
        [0.2, 0.6, 1.0, 0.0, 2.0],
        [0.7, 0.7, 0.0, -0.9, 0.0],
        [0.0, 0.5, 0.3, 0.1, 0.5],
    ]
)


@pytest.fixture(autouse=True)
def _quiet():
    logger = logging.getLogger("bayeslmm")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


def simulate(n=60, m=120, h2=(0.6, 0.4), rg=0.5, re=0.2, seed=0):
    """K (n, n) of mean diagonal 1 when centred, and phenotypes Y (n, 2)."""
    rng = np.random.default_rng(seed)
    K = kernel("genotypes", n, m, rng)
    K *= n / np.trace(centred(K))
    A, B = biv.covariances(np.array([*h2, rg, re, 0.0]))
    root = np.linalg.cholesky(centred(K) + 1e-9 * np.eye(n))
    U = root @ rng.normal(size=(n, 2)) @ np.linalg.cholesky(square(A) + 1e-12 * np.eye(2)).T
    return K, U + rng.normal(size=(n, 2)) @ np.linalg.cholesky(square(B)).T


def square(three):
    return np.array([[three[0], three[1]], [three[1], three[2]]])


def missing(Y, one, two):
    """Y with the first `one` lacking trait 1 and the last `two` lacking trait 2."""
    Y = Y.copy()
    Y[:one, 0] = np.nan
    Y[len(Y) - two :, 1] = np.nan
    return Y


def dense_loglik(pair, theta):
    """Restricted log-likelihood at the best scale, from the full covariance of what is observed."""
    basis = pair.basis
    K = (basis.vectors * basis.values) @ basis.vectors.T / basis.kappa
    A, B = biv.covariances(theta)
    V = np.kron(square(A), K) + np.kron(square(B), np.eye(basis.n))
    here = np.concatenate([pair.ids.isin(table.C.index) for table in pair.regressions])
    V = V[np.ix_(here, here)]
    y = np.concatenate([table.y for table in pair.regressions])
    C = linalg.block_diag(*(table.C.to_numpy() for table in pair.regressions))
    N = linalg.qr(C)[0][:, C.shape[1] :]
    z = N.T @ y
    s2 = z @ np.linalg.solve(N.T @ V @ N, z) / len(z)
    return reml_loglik(y, C, s2 * V)


# -- the likelihood -----------------------------------------------------------------------------


@pytest.mark.algebra
@pytest.mark.parametrize("case", [c for c in CASES if c.c < 6], ids=lambda case: case.name)
def test_the_blocks_give_the_likelihood_of_the_full_covariance(case):
    y, C, K = case.make(1)
    Y = np.column_stack([y, np.random.default_rng(3).normal(size=case.n) + 0.5 * y])
    table = pd.DataFrame(C[:, 1:], columns=[f"x{j}" for j in range(1, case.c)])
    table[["y1", "y2"]] = Y
    # Trait 2 lacks the last covariate.
    right = [
        " + ".join(["1", *(f"x{j}" for j in range(1, k))]) for k in (case.c, max(case.c - 1, 1))
    ]
    pair = bl.BivariateLMM([f"y1 ~ {right[0]}", f"y2 ~ {right[1]}"], table, K)
    found = biv.restricted_loglik(pair.data, THETAS)
    expected = [dense_loglik(pair, theta) for theta in THETAS]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.algebra
def test_determinants_are_right_where_they_nearly_vanish():
    """Against 50 digits; the difference of products has none left there."""
    from decimal import Decimal, localcontext

    top, r = likelihood.LARGEST_H2, biv.LARGEST_CORRELATION
    thetas = np.array([[top, top, 1.0, r, 0.3], [top, 0.4, -1.0, -r, 2.0], [0.5, 0.5, r, r, 0.0]])
    s = np.array([1e-12, 0.01, 1.0, 40.0])
    found = biv._determinants(thetas, s)
    with localcontext(prec=50):
        for theta, row in zip(thetas, found, strict=True):
            h1, h2, rg, re = (Decimal(float(x)) for x in theta[:4])
            ratio = Decimal(float(np.exp(theta[4])))
            for value, x in zip(row, map(Decimal, s.tolist()), strict=True):
                one, two = h1 * x + 1 - h1, ratio * (h2 * x + 1 - h2)
                between = rg * (h1 * h2).sqrt() * x + re * ((1 - h1) * (1 - h2)).sqrt()
                exact = one * two - ratio * between**2
                assert value == pytest.approx(float(exact), rel=1e-6)


@pytest.mark.algebra
@pytest.mark.parametrize("theta", [[0.999, 0.9, 0.99, 0.3, 0.0], [0.99, 0.999, -1.0, -0.9, 0.5]])
def test_traits_that_are_all_genetic_with_the_same_genes(theta):
    """The climb and the draws go to the limits of all parameters at once, without a warning."""
    data = eigen_pair(n=60)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        one = data.with_y(phenotypes(data, np.array(theta), rng))
        best = biv.maximise(one)
        assert np.isfinite(best.loglik)
        found = biv.draw_posterior(one, FLAT, 200, rng, start=best.theta)
        assert np.isfinite(found.theta).all()


@pytest.mark.algebra
@pytest.mark.parametrize(("one", "two"), [(7, 0), (0, 9), (8, 5), (25, 35)])
def test_missing_phenotypes_are_exact(one, two):
    K, Y = simulate(n=60)
    pair = bl.BivariateLMM(missing(Y, one, two), kernel=K, samples="all")
    assert pair.data.n_absent == one + two
    assert pair.n_both == 60 - one - two
    found = biv.restricted_loglik(pair.data, THETAS)
    np.testing.assert_allclose(found, [dense_loglik(pair, t) for t in THETAS], rtol=1e-8)


@pytest.mark.algebra
def test_uncorrelated_traits_are_two_single_ones():
    K, Y = simulate()
    pair = bl.BivariateLMM(Y, kernel=K)
    fits = [bl.LMM(y, kernel=K).reml() for y in Y.T]
    theta = np.array([fits[0].h2, fits[1].h2, 0, 0, np.log(fits[1].s2 / fits[0].s2)])
    together = biv.restricted_loglik(pair.data, theta[None])[0]
    assert together == pytest.approx(fits[0].loglik + fits[1].loglik, abs=1e-8)


@pytest.mark.algebra
def test_scaling_and_swapping_traits_changes_nothing():
    K, Y = simulate(n=80, seed=4)
    first = bl.BivariateLMM(Y, kernel=K).reml()
    second = bl.BivariateLMM(Y[:, ::-1] * [1000, -0.01] + [5, 7], kernel=K * 9).reml()
    assert second.rg == pytest.approx(-first.rg, abs=1e-6)
    assert second.re == pytest.approx(-first.re, abs=1e-6)
    assert second.rg_se == pytest.approx(first.rg_se, rel=1e-4)
    np.testing.assert_allclose(second.h2[::-1], first.h2, atol=1e-6)
    np.testing.assert_allclose(second.tests.p, first.tests.p.iloc[[0, 2, 1]], rtol=1e-5)


def test_reml_is_the_highest_point_of_a_brute_search():
    K, Y = simulate(n=80, seed=2)
    pair = bl.BivariateLMM(Y, kernel=K)
    fit = pair.reml()
    rng = np.random.default_rng(0)
    near = fit.theta + rng.normal(size=(2000, 5)) * [0.05, 0.05, 0.1, 0.1, 0.1]
    anywhere = np.column_stack(
        [rng.uniform(0, 1, (4000, 2)), rng.uniform(-1, 1, (4000, 2)), rng.normal(size=4000)]
    )
    points = np.clip(np.concatenate([near, anywhere]), [0, 0, -1, -0.999, -9], [1, 1, 1, 0.999, 9])
    assert biv.restricted_loglik(pair.data, points).max() <= fit.loglik + 1e-9


@pytest.mark.algebra
def test_standard_errors_are_those_of_the_dense_curvature():
    """In the six covariances themselves, by differences of the dense log-likelihood."""
    K, Y = simulate(n=90, m=60, seed=5)
    pair = bl.BivariateLMM(Y, kernel=K)
    fit = pair.reml()
    basis = pair.basis
    K = (basis.vectors * basis.values) @ basis.vectors.T
    y, C = Y.T.ravel(), linalg.block_diag(np.ones((90, 1)), np.ones((90, 1)))
    six = np.array(
        [*fit.genetic.to_numpy().flat[[0, 1, 3]], *fit.residual.to_numpy().flat[[0, 1, 3]]]
    )

    def loglik(six):
        V = np.kron(square(six[:3]), K) + np.kron(square(six[3:]), np.eye(90))
        return reml_loglik(y, C, V)

    step = 2e-3 * np.eye(6)
    H = np.array(
        [
            [
                loglik(six + a + b)
                - loglik(six + a - b)
                - loglik(six - a + b)
                + loglik(six - a - b)
                for a in step
            ]
            for b in step
        ]
    ) / (4 * 2e-3**2)
    se = np.sqrt(np.diagonal(np.linalg.inv(-H)))
    found = [
        *fit.genetic_se.to_numpy().flat[[0, 1, 3]],
        *fit.residual_se.to_numpy().flat[[0, 1, 3]],
    ]
    np.testing.assert_allclose(found, se, rtol=2e-3)


# -- limits --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def same_genes():
    """Two traits with the same genetic values."""
    K, Y = simulate(n=120, m=60, h2=(0.7, 0.7), rg=1.0, re=0.0, seed=11)
    return bl.BivariateLMM(Y, kernel=K)


def test_at_rg_1_there_is_no_standard_error(same_genes):
    fit = same_genes.reml()
    assert fit.rg == 1
    assert fit.boundary == "rg = 1"
    assert np.isnan([fit.rg_se, fit.re_se, *fit.h2_se, *fit.genetic_se.to_numpy().flat]).all()
    assert fit.tests.p["rg = 1"] == 1
    assert fit.tests.p["rg = 0"] < 0.001
    assert "rg = 1" in str(fit)
    assert "no standard errors" in str(fit)
    report = same_genes.rg(1000, seed=1)
    assert report.table.low["rg"] > 0.5
    assert "no SE: rg = 1" in str(report)
    assert "Use the posterior interval" in str(report)


def test_traits_of_different_samples_have_no_residual_correlation():
    K, Y = simulate(n=80, seed=3)
    pair = bl.BivariateLMM(missing(Y, 40, 40), kernel=K, samples="all")
    fit = pair.reml()
    assert np.isnan(fit.re)
    assert "re not estimable" in fit.boundary
    posterior = pair.posterior(500, seed=1)["posterior"]
    assert posterior["re"].to_numpy().std() > 0.5  # its prior, flat


# -- the posterior ------------------------------------------------------------------------------


@pytest.mark.algebra
@pytest.mark.parametrize("lacking", [(0, 0), (2, 3)])
def test_the_posterior_is_the_prior_weighted_by_the_dense_likelihood(lacking):
    """Brute force: points of the prior, each with the full covariance matrix.

    Within 4 standard errors of both Monte Carlo estimates, of means, squares, and quantiles.
    """
    n, points = 12, 50_000
    K, Y = simulate(n=n, m=8, rg=0.8, seed=8)
    Y = missing(Y, *lacking)
    pair = bl.BivariateLMM(Y, kernel=K, samples="all")
    rng = np.random.default_rng(4)
    theta = np.column_stack(
        [rng.uniform(size=(points, 2)), rng.uniform(-1, 1, size=(points, 2)), np.zeros(points)]
    )
    log_ratio = stats.t(4, scale=0.7)
    theta[:, 4] = log_ratio.rvs(points, random_state=rng)
    K = (pair.basis.vectors * pair.basis.values) @ pair.basis.vectors.T / pair.basis.kappa
    here = np.isfinite(Y.T.ravel())
    C = linalg.block_diag(np.ones((n, 1)), np.ones((n, 1)))[here]
    N = linalg.qr(C)[0][:, 2:]
    z = N.T @ Y.T.ravel()[here]
    parts = []
    for some in np.split(theta, 10):
        A, B = (
            np.stack([[a, b], [b, c]]) for a, b, c in (part.T for part in biv.covariances(some))
        )
        V = np.einsum("ijg,kl->gikjl", A, K) + np.einsum("ijg,kl->gikjl", B, np.eye(n))
        V = N.T @ V.reshape(-1, 2 * n, 2 * n)[:, here][:, :, here] @ N
        Q = z @ np.linalg.solve(V, np.repeat(z[None, :, None], len(V), 0))[..., 0].T
        parts.append(-0.5 * (np.linalg.slogdet(V)[1] + len(z) * np.log(Q)))
    # The log ratio is flat in the model.
    log_w = np.concatenate(parts) - log_ratio.logpdf(theta[:, 4])
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    assert 1 / (w @ w) > 2500
    exact = pair.draw(4000, ess=4000, seed=2)
    assert exact.ess >= 4000

    def compare(brute, ours):
        expected = w @ brute
        se = np.sqrt(w**2 @ (brute - expected) ** 2 + ours.var() / 4000)
        assert abs(ours.mean() - expected) < 4 * se

    for j in range(5):
        mean = w @ theta[:, j]
        sd = np.sqrt(w @ (theta[:, j] - mean) ** 2)
        one, two = ((each[:, j] - mean) / sd for each in (theta, exact.theta))
        compare(one, two)
        compare(one**2, two**2)
        for q in (-1.2, 0, 1):
            compare((one < q).astype(float), (two < q).astype(float))


@pytest.mark.parametrize("lacking", [(0, 0), (12, 8)])
def test_importance_sampling_and_metropolis_agree(lacking):
    K, Y = simulate(n=50, rg=-0.6, seed=6)
    pair = bl.BivariateLMM(missing(Y, *lacking), kernel=K, samples="all")
    draws = 1200 if lacking == (0, 0) else 480
    one = pair.draw(draws, seed=1, ess=draws)
    two = pair.draw(draws, seed=2, method="metropolis", ess=draws)
    assert one.k_hat < 0.7
    assert one.ess >= draws
    assert two.r_hat < 1.03
    for j in range(5):
        se = one.theta[:, j].std() * np.sqrt(1 / draws + 1 / two.ess)
        assert abs(one.theta[:, j].mean() - two.theta[:, j].mean()) < 4 * se


def test_the_target_is_the_dense_likelihood_times_the_prior():
    K, Y = simulate(n=40)
    pair = bl.BivariateLMM(
        missing(Y, 5, 6), kernel=K, samples="all", h2_prior=(beta(2, 3), "uniform"), rg_prior=3
    )
    target = biv.Target(pair.data, pair.prior)
    x = np.random.default_rng(1).normal(size=(6, 5))
    theta = target.theta(x)
    prior = stats.beta(2, 3).logpdf(theta[:, 0]) + stats.beta(3, 3).logpdf((1 + theta[:, 2]) / 2)
    jacobian = stats.norm.logpdf(x[:, :4]).sum(axis=1)
    expected = [dense_loglik(pair, t) for t in theta] + prior + jacobian
    found = target.log_density(x)
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-6)


def test_the_marginal_likelihood_is_that_of_single_traits_where_nothing_is_shared():
    K, Y = simulate(n=60)
    pair = bl.BivariateLMM(Y, kernel=K)
    none = pair.draw(100, fixed={"rg": 0.0, "re": 0.0}, ess=20_000, seed=1)
    single = sum(bl.LMM(y, kernel=K).h2_posterior().log_integral for y in Y.T)
    assert none.log_marginal_se < 0.02
    assert none.log_marginal == pytest.approx(single, abs=5 * none.log_marginal_se)


def eigen_pair(n=150, c=1, seed=0):
    """A design for simulation on the basis: K of relatives, an intercept."""
    K, Y = simulate(n=n, m=n // 2, seed=seed)
    return bl.BivariateLMM(Y, kernel=K).data


def phenotypes(data, theta, rng):
    """Rotated phenotypes of both traits at a theta."""
    A, B = biv.covariances(theta)
    one = A[0] * data.s + B[0]
    between = A[1] * data.s + B[1]
    two = A[2] * data.s + B[2]
    z1, z2 = rng.standard_normal((2, len(data.s)))
    y1 = np.sqrt(one) * z1
    return y1, between / one * y1 + np.sqrt(np.maximum(two - between**2 / one, 0)) * z2


@pytest.mark.calibration
def test_ranks_of_the_truth_are_uniform():
    """Simulation-based calibration; the long form is docs/scripts/two_traits.py."""
    data, rng = eigen_pair(n=60), np.random.default_rng(5)
    replicates, draws = 120, 99
    ranks = np.empty((replicates, 4))
    for r in range(replicates):
        theta = np.array([*rng.uniform(size=2), *rng.uniform(-1, 1, 2), 0.3])
        one = data.with_y(phenotypes(data, theta, rng))
        found = biv.draw_posterior(one, FLAT, draws, rng, start=theta, ess=600)
        ranks[r] = (found.theta[:, :4] < theta[:4]).sum(axis=0)
    for j, name in enumerate(biv.THETA[:4]):
        counts = np.histogram(ranks[:, j], np.linspace(-0.5, draws + 0.5, 11))[0]
        assert stats.chisquare(counts).pvalue > 0.001, (name, counts)
        # Below 5 of 99 draws, or of 95 and more, are 10 of 100 ranks.
        outside = int(((ranks[:, j] < 5) | (ranks[:, j] >= 95)).sum())
        assert stats.binomtest(outside, replicates, 0.1).pvalue > 0.001, (name, outside)


@pytest.mark.calibration
def test_intervals_hold_the_truth():
    """95% intervals of truths from the prior, and of rg = 0.9; each missed with p > 1e-4."""
    data, rng = eigen_pair(n=60), np.random.default_rng(6)
    replicates = 40
    holds = np.empty((2, replicates, 4))
    for r in range(replicates):
        drawn = np.array([*rng.uniform(size=2), *rng.uniform(-1, 1, 2), -0.2])
        for j, theta in enumerate([drawn, np.array([0.6, 0.5, 0.9, 0.2, 0.0])]):
            one = data.with_y(phenotypes(data, theta, rng))
            found = biv.draw_posterior(one, FLAT, 600, rng, start=biv.maximise(one).theta)
            low, high = np.quantile(found.theta[:, :4], [0.025, 0.975], axis=0)
            holds[j, r] = (low <= theta[:4]) & (theta[:4] <= high)
    for name, count in zip(biv.THETA[:4], holds[0].sum(axis=0), strict=True):
        assert stats.binomtest(int(count), replicates, 0.95).pvalue > 1e-4, (name, count)
    # At one value an interval may hold the truth more often than it says.
    near_1 = int(holds[1, :, 2].sum())
    assert stats.binomtest(near_1, replicates, 0.95, "less").pvalue > 1e-4, near_1


# -- specification, results ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(mice):
    ids = mice.phenotypes.index[:500]
    K = bl.grm(mice.genotypes.select(samples=list(ids)))
    return bl.BivariateLMM(["cd8 ~ sex", "mch ~ sex"], mice.phenotypes.loc[ids], K)


def test_it_prints_itself_and_accounts_for_everybody(pair, mice):
    text = repr(pair)
    both = mice.phenotypes.iloc[:500][["cd8", "mch"]].notna()
    assert f"{both.all(axis=1).sum()} analysed" in text
    assert "dropped: cd8: phenotype missing" in text
    assert "rg ~ Uniform(-1, 1)" in text
    assert len(pair.samples) == 500
    assert pair.samples.kept.sum() == both.all(axis=1).sum()
    everyone = bl.BivariateLMM(pair.formulas, mice.phenotypes, pair._kernel, samples="all")
    assert f"both {both.all(axis=1).sum()}" in repr(everyone)
    assert len(everyone.ids) == both.any(axis=1).sum()


def test_principal_components_join_by_formula(pair, mice):
    """As columns written out; each trait may have its own number."""
    table = mice.phenotypes
    model = bl.BivariateLMM(["cd8 ~ sex + pcs(3)", "mch ~ pcs(1)"], table, pair._kernel)
    scores = bl.pca(pair._kernel, 3).scores
    joined = table.join(scores)
    same = bl.BivariateLMM(["cd8 ~ sex + PC1 + PC2 + PC3", "mch ~ PC1"], joined, pair._kernel)
    assert model.covariates == same.covariates
    found, expected = (one.reml(tests=False) for one in (model, same))
    assert found.rg == pytest.approx(expected.rg, abs=1e-9)
    assert found.loglik == pytest.approx(expected.loglik, abs=1e-8)
    other = bl.BivariateLMM(["cd8 ~ pcs(2)", "mch ~ 1"], table, pair._kernel, pcs=scores)
    assert [name for _, name in other.covariates] == ["Intercept", "PC1", "PC2", "Intercept"]
    with pytest.raises(
        bl.InputError, match=r"asks for pcs\(4\), but the components have no column"
    ):
        bl.BivariateLMM(["cd8 ~ pcs(4)", "mch ~ 1"], table, pair._kernel, pcs=scores)
    with pytest.raises(bl.InputError, match="give the components as covariates"):
        bl.BivariateLMM(np.ones((5, 2)), kernel=np.eye(5), pcs=scores)


def test_posterior_is_a_tree_with_names_and_diagnostics(pair):
    tree = pair.posterior(400, seed=3)
    posterior = tree["posterior"].dataset
    assert dict(posterior.sizes) == {"chain": 4, "draw": 100, "trait": 2, "effect": 4}
    assert list(posterior.trait) == ["cd8", "mch"]
    assert list(posterior.effect)[1] == "cd8: sex[T.M]"
    np.testing.assert_allclose(
        posterior.cov_g, posterior.rg * np.sqrt(posterior.s2_g.prod("trait")), rtol=1e-10
    )
    np.testing.assert_allclose(
        posterior.h2, posterior.s2_g * tree.attrs["kappa"] / posterior.s2, rtol=1e-10
    )
    assert tree.attrs["ess"] >= 400
    assert tree.attrs["k_hat"] < 0.7
    assert tree["observed_data"]["y"].shape == (len(pair.ids), 2)
    again = pair.posterior(400, seed=3)["posterior"].dataset
    assert again.equals(posterior)
    fit = pair.reml(tests=False)
    b = posterior.b.mean(["chain", "draw"]).to_numpy()
    assert np.all(np.abs(b - fit.b.estimate) < 0.5 * fit.b.se)
    assert fit.tests is None


def test_the_prior_on_rg_matters_where_the_data_are_few(mice):
    ids = mice.phenotypes.index[:150]
    K = bl.grm(mice.genotypes.select(samples=list(ids)))

    def sd(**priors):
        model = bl.BivariateLMM(["cd8 ~ 1", "mch ~ 1"], mice.phenotypes, K, **priors)
        return model.posterior(1000, seed=1)["posterior"]["rg"].to_numpy().std()

    assert sd(rg_prior=20) < 0.25 < sd()


def test_the_report_says_what_it_means(pair):
    report = pair.rg(1000, seed=1)
    text = str(report)
    assert "Genetic correlation of cd8 and mch" in text
    assert "likelihood-ratio tests: rg = 0: p =" in text
    assert "k-hat" in text
    assert "do not settle" in text
    assert report.table.loc["rg", "low"] < report.fit.rg < report.table.loc["rg", "high"]
    assert "<table" in report._repr_html_()
    assert "<table" in report.fit._repr_html_()
    assert report.log10_bf < 0.5
    assert report.plot().get_xlabel() == "Genetic correlation"


def test_opposed_traits_are_called_so():
    K, Y = simulate(n=150, m=60, h2=(0.8, 0.8), rg=-0.95, re=0.0, seed=1)
    report = bl.BivariateLMM(Y, kernel=K).rg(1000, seed=1)
    assert "oppose each other" in str(report)
    assert report.log10_bf > 1


def test_plots_draw_the_joint_posterior(pair):
    report = pair.rg(500, seed=1)
    ax = bl.plots.two_traits(report)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Genetic correlation", "Residual correlation")
    assert bl.plots.two_traits(report, "h2").get_ylabel() == "$h^2$ of mch"
    with pytest.raises(bl.InputError, match="what='rg' is unknown; expected one of 'correlations'"):
        bl.plots.two_traits(report, "rg")


# -- as PyMC code ---------------------------------------------------------------------------------


def log_likelihood(model, values):
    """Log density of what is observed, all variables being given."""
    import pymc as pm

    fixed = pm.do(model, values)
    parts = fixed.compile_logp(sum=False, mode="FAST_COMPILE")({})
    return fixed, sum(part.sum() for part in parts)


def test_the_eigenbasis_form_is_the_bivariate_normal_density():
    K, Y = simulate(n=30, seed=2)
    pair = bl.BivariateLMM(Y, np.random.default_rng(1).normal(size=(30, 1)), K)
    model = pair.pymc_model()
    values = {"h2_y1": 0.6, "h2_y2": 0.3, "rg": -0.4, "re": 0.5, "sd_y1": 1.2, "sd_y2": 0.7}
    b = {"b_y1_std": np.array([0.1, -0.2]), "b_y2_std": np.array([0.3, 0.05])}
    _, found = log_likelihood(model, values | b)
    theta = np.array([0.6, 0.3, -0.4, 0.5, 2 * np.log(0.7 / 1.2)])
    A, B = (1.2**2 * part for part in biv.covariances(theta))
    K = (pair.basis.vectors * pair.basis.values) @ pair.basis.vectors.T / pair.basis.kappa
    V = np.kron(square(A), K) + np.kron(square(B), np.eye(30))
    mean = []
    for t, table in enumerate(pair.regressions):
        C = table.C.to_numpy() - [0, table.C.iloc[:, 1].mean()]
        scale = np.array([1, table.C.iloc[:, 1].std(ddof=0)])
        effects = b[f"b_y{t + 1}_std"] * table.y.std() / scale
        mean.append(C @ effects + table.y.mean())
    expected = stats.multivariate_normal(np.concatenate(mean), V).logpdf(Y.T.ravel())
    assert found == pytest.approx(expected, abs=1e-8)


def test_the_explicit_form_takes_missing_phenotypes():
    import pymc as pm

    K, Y = simulate(n=20, seed=2)
    Y = missing(Y, 4, 3)
    pair = bl.BivariateLMM(Y, kernel=K, samples="all")
    with pytest.raises(bl.InputError, match=r"use\s+pymc_model\('explicit'\)"):
        pair.pymc_model()
    model = pair.pymc_model("explicit", priors={"rg": pm.Uniform.dist(-0.5, 0.5)})
    z = np.random.default_rng(3).normal(size=(20, 2))
    values = {"h2_y1": 0.6, "h2_y2": 0.3, "rg": -0.4, "re": 0.5, "sd_y1": 1.2, "sd_y2": 0.7}
    b = {"b_y1_std": np.array([0.1]), "b_y2_std": np.array([0.3])}
    fixed, found = log_likelihood(model, values | b | {"z": z})
    u = pm.draw(fixed["u"], mode="FAST_COMPILE")
    e = 1.2**2 * 0.4, 0.7**2 * 0.7
    R = np.array([[e[0], 0.5 * np.sqrt(e[0] * e[1])], [0.5 * np.sqrt(e[0] * e[1]), e[1]]])
    expected = 0.0
    offsets = [
        t.y.mean() + s * t.y.std() for t, s in zip(pair.regressions, (0.1, 0.3), strict=True)
    ]
    for i, row in enumerate(Y):
        here = np.isfinite(row)
        mean = (offsets + u[i])[here]
        expected += stats.multivariate_normal(mean, R[np.ix_(here, here)]).logpdf(row[here])
    assert found == pytest.approx(expected, abs=1e-8)
    with pytest.raises(bl.InputError, match=r"Priors for 'h2': no such variable\. There are 'rg'"):
        pair.pymc_model("explicit", priors={"h2": pm.Beta.dist(1, 1)})


# -- what cannot be used ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formulas": ["cd8 ~ 1"]}, "Two traits need two formulas"),
        ({"formulas": "cd8 ~ 1"}, "but there is 1"),
        ({"kernel": None}, "need a kernel"),
        ({"samples": "some"}, "samples='some' is unknown; expected 'common' or 'all'"),
        ({"rg_prior": "lkj"}, "rg_prior='lkj' is no prior on a correlation"),
        ({"re_prior": -1.0}, "eta must be above 0, but is -1"),
        ({"h2_prior": beta(1, 1, spike=0.5)}, "A point mass at h2 = 0 leaves rg undefined"),
        ({"h2_prior": ("uniform",) * 3}, "h2_prior has 3 priors"),
        ({"formulas": ["cd8 ~ 1", "age ~ 1"]}, "no column 'age'"),
        ({"formulas": ["cd8 ~ 1", "twice ~ 1"]}, "same up to scale and covariates"),
        ({"formulas": ["cd8 ~ 1", "apart ~ 1"]}, "No sample has both 'cd8' and 'apart'"),
    ],
)
def test_bad_input_is_refused(pair, mice, change, message):
    table = mice.phenotypes.copy()
    table["twice"] = 2 * table.cd8 + 1
    table["apart"] = table.mch.where(table.cd8.isna())
    arguments = {"formulas": ["cd8 ~ 1", "mch ~ 1"], "data": table, "kernel": pair._kernel}
    with pytest.raises(bl.InputError, match=message):
        _ = bl.BivariateLMM(**(arguments | change)).data


def test_arrays_of_the_wrong_shape_are_refused():
    K, Y = simulate(n=30)
    with pytest.raises(bl.InputError, match=r"shape \(30, 3\); expected two columns"):
        bl.BivariateLMM(np.column_stack([Y, Y[:, 0]]), kernel=K)
    with pytest.raises(bl.InputError, match="Covariates have 29 rows, but phenotypes 30"):
        bl.BivariateLMM(Y, np.ones((29, 1)), K)
    pair = bl.BivariateLMM(Y, kernel=K)
    with pytest.raises(bl.InputError, match="At least one draw is needed"):
        pair.posterior(0)
    with pytest.raises(bl.InputError, match="method='gibbs' is unknown"):
        pair.posterior(method="gibbs")
    with pytest.raises(bl.InputError, match="At least 100 draws"):
        pair.rg(50)
    with pytest.raises(bl.InputError, match="prob must be between 0 and 1"):
        pair.rg(prob=1)


def test_start_values_come_from_single_traits():
    data = eigen_pair(n=60)
    h2, _ = biv._alone(data, 0)
    one = likelihood.Rotated(data.s, data.y[0], data.C[0], np.eye(1), np.zeros(1), data.kappa, 1.0)
    assert h2 == maximise_h2(lambda h: likelihood.restricted_loglik(one, h))
