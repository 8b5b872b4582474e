"""Intervals for h2: null distributions, inversion, coverage, and what designs can tell."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as bl
from bayeslmm import plots
from bayeslmm.model import designs
from bayeslmm.model.intervals import (
    TOP,
    Nodes,
    ScoreTest,
    chi2_sum_below_0,
    contrast_eigenvalues,
    expected_se,
    h2_confidence_interval,
    information,
    reml,
    restricted_information,
    score_ratio,
    simulated_chi2,
    variances,
)
from bayeslmm.numerics import likelihood
from tests import dense

CASE = dense.Case("two covariates", 40, 3, "genotypes", 120)


def fitted(case=CASE, seed=0):
    y, C, K = case.make(seed)
    return bl.LMM(y, C[:, 1:] if case.c > 1 else None, K), y, C, K


def from_contrasts(lam, z):
    """Rotated data that are contrasts already."""
    none = np.zeros((len(lam), 0))
    return likelihood.Rotated(lam, z, none, np.zeros((0, 0)), np.zeros(0), 1.0, 1.0)


@pytest.mark.algebra
@pytest.mark.parametrize("case", dense.CASES, ids=lambda case: case.name)
def test_contrast_eigenvalues_are_those_of_pkp(case):
    model, _, C, K = fitted(case)
    N = dense.contrasts(C)
    expected = np.linalg.eigvalsh(N.T @ K @ N) / dense.kappa_of(K, C)
    found = model.contrast_eigenvalues
    np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-11 * expected[-1])
    assert found.shape == (case.n - case.c,)


def test_contrast_eigenvalues_without_intercept():
    y, C, K = CASE.make()
    basis = bl.eigenbasis(K, center=False)
    data = likelihood.rotate(basis, y, C[:, 1:2])
    N = dense.contrasts(C[:, 1:2])
    expected = np.linalg.eigvalsh(N.T @ K @ N) / (np.trace(K) / len(K))
    np.testing.assert_allclose(contrast_eigenvalues(data), expected, atol=1e-11)
    none = likelihood.rotate(basis, y, np.zeros((len(y), 0)))
    np.testing.assert_allclose(contrast_eigenvalues(none), np.sort(none.s), atol=1e-12)


@pytest.mark.algebra
@pytest.mark.parametrize(("few", "many", "ratio"), [(1, 1, 2.0), (3, 30, 0.5), (200, 300, 1.2)])
def test_chi2_sums_are_exact_where_they_are_f_distributed(few, many, ratio):
    c = np.concatenate([np.full(few, 1.0), np.full(many, -ratio)])
    exact = stats.f(few, many).cdf(ratio * many / few)
    assert chi2_sum_below_0(c) == pytest.approx(exact, abs=1e-9)
    assert chi2_sum_below_0(1e7 * c) == pytest.approx(exact, abs=1e-9)


def test_chi2_sums_in_the_tails_and_of_one_sign():
    # one large coefficient against many small ones, far out: the integrand oscillates
    c = np.concatenate([[1e9], np.full(1000, -2e7)])
    assert chi2_sum_below_0(c) == pytest.approx(stats.f(1, 1000).cdf(20), abs=1e-9)
    assert chi2_sum_below_0(np.array([1.0, 2.0])) == 0
    assert chi2_sum_below_0(np.array([-1.0, 0.0])) == 1


@pytest.mark.algebra
def test_score_and_its_null_distribution_equal_dense_simulation():
    model, y, C, K = fitted()
    n, h2 = len(y), 0.4
    Kc = dense.centred(K) / dense.kappa_of(K, C)
    V = h2 * Kc + (1 - h2) * np.eye(n)
    Vinv = np.linalg.inv(V)
    P = Vinv - Vinv @ C @ np.linalg.solve(C.T @ Vinv @ C, C.T @ Vinv)
    M = P @ (Kc - np.eye(n)) @ P

    def ratio(Y):
        return np.einsum("ni,nm,mi->i", Y, M, Y) / np.einsum("ni,nm,mi->i", Y, P, Y)

    assert score_ratio(model.rotated, h2) == pytest.approx(ratio(y[:, None])[0], rel=1e-9)
    rng = np.random.default_rng(1)
    Y = C @ [[1.0], [2.0], [3.0]] + 5 * np.linalg.cholesky(V) @ rng.normal(size=(n, 20_000))
    simulated = np.sort(ratio(Y))
    test = ScoreTest(model.contrast_eigenvalues)
    for q in (0.025, 0.5, 0.975):
        t = simulated[int(q * len(simulated))]
        # four standard errors of a simulated quantile
        error = 4 * np.sqrt(q * (1 - q) / len(simulated))
        assert test.cdf(h2, t) == pytest.approx(q, abs=error)


@pytest.mark.algebra
def test_null_distribution_of_the_likelihood_ratio_equals_dense_simulation():
    model, y, C, K = fitted()
    n, h2 = len(y), 0.3
    V = h2 * dense.centred(K) / dense.kappa_of(K, C) + (1 - h2) * np.eye(n)
    rng = np.random.default_rng(2)
    Y = np.linalg.cholesky(V) @ rng.normal(size=(n, 400))
    ratios = []
    for one in Y.T:
        data = likelihood.rotate(model.basis, one, C)
        at = np.array([reml(data), h2])
        best, here = likelihood.restricted_loglik(data, at)
        ratios.append(2 * (best - here))
    nodes = Nodes(model.contrast_eigenvalues)
    critical = np.interp(h2, nodes.h2, nodes.critical(0.9))
    assert np.mean(np.array(ratios) <= critical) == pytest.approx(0.9, abs=0.04)


@pytest.mark.algebra
def test_nodes_hold_the_restricted_likelihood_of_contrasts():
    lam = fitted()[0].contrast_eigenvalues
    nodes = Nodes(lam)
    assert nodes.h2[0] == 0
    assert nodes.h2[-1] == pytest.approx(TOP, abs=1e-12)
    assert (np.diff(nodes.h2) > 0).all()
    chi2 = simulated_chi2(len(lam), 3, 1)
    for row, loglik in zip(chi2, nodes.loglik(chi2, 0.3), strict=True):
        z = np.sqrt(row * variances(lam, 0.3))
        exact = likelihood.restricted_loglik(from_contrasts(lam, z), nodes.h2)
        np.testing.assert_allclose(loglik - loglik[0], exact - exact[0], atol=2e-4)


@pytest.mark.algebra
@pytest.mark.parametrize("method", ["rlrt", "score"])
@pytest.mark.parametrize("seed", [0, 3, 5])
def test_inversion_equals_a_fine_grid(method, seed):
    model = fitted(seed=seed)[0]
    data, lam = model.rotated, model.contrast_eigenvalues
    low, high = model.h2_interval(0.9, method)
    grid = np.concatenate([np.linspace(0, 0.999, 1000), [TOP]])
    if method == "score":
        test = ScoreTest(lam, 0.9)
        accepted = [test.margin(h, score_ratio(data, h)) >= 0 for h in grid]
    else:
        nodes = Nodes(lam)
        loglik = likelihood.restricted_loglik(data, grid)
        best = likelihood.restricted_loglik(data, np.array([reml(data)]))
        critical = np.interp(grid, nodes.h2, nodes.critical(0.9))
        accepted = 2 * (best - loglik) <= critical
    inside = grid[np.asarray(accepted)]
    assert low == pytest.approx(inside[0], abs=0.0011)
    assert high == pytest.approx(inside[-1], abs=0.0011)
    assert low <= reml(data) <= high


@pytest.mark.algebra
def test_many_intervals_equal_those_of_each_phenotype():
    lam = bl.family_eigenvalues(30, 3)
    nodes = Nodes(lam)
    prior = bl.priors.beta(0.5, 2, spike=0.2)
    study = designs.Study(nodes, prior)
    chi2 = simulated_chi2(len(lam), 12, 4)
    found = study.simulate(0.2, chi2)
    for r, row in enumerate(chi2):
        data = from_contrasts(lam, np.sqrt(row * variances(lam, 0.2)))
        for method in ("rlrt", "reml"):
            low, high = h2_confidence_interval(data, method=method, nodes=nodes)
            assert found.low[method][r] == pytest.approx(low, abs=0.01)
            assert found.high[method][r] == pytest.approx(high, abs=0.01)
        posterior = exact_posterior(data, prior)
        assert found.mean[r] == pytest.approx(posterior.mean, abs=0.002)
        assert found.sd[r] == pytest.approx(posterior.sd, abs=0.002)
        assert found.low["posterior"][r] == pytest.approx(posterior.hdi()[0], abs=0.02)
        assert found.high["posterior"][r] == pytest.approx(posterior.hdi()[1], abs=0.02)
        at_0 = float(likelihood.integrated_loglik(data, np.zeros(1))[0])
        continuous = exact_posterior(data, bl.priors.beta(0.5, 2)).log_integral
        assert found.log_bf[r] == pytest.approx(continuous - at_0, abs=0.01)


def exact_posterior(data, prior):
    from bayeslmm.numerics.quadrature import unit_density

    def loglik(h2):
        return likelihood.integrated_loglik(data, h2)

    return unit_density(
        lambda h2: loglik(h2) + prior.log_density(h2),
        mass_at_0=prior.spike,
        log_at_0=float(loglik(np.zeros(1))[0]),
    )


SPECTRA = {
    "sibs": bl.family_eigenvalues(40, 2),
    "unrelated": bl.unrelated_eigenvalues(300, 1500),
    "n > m": bl.unrelated_eigenvalues(60, 30),
}


@pytest.mark.calibration
@pytest.mark.parametrize("name", SPECTRA)
def test_coverage_of_the_inverted_likelihood_ratio(name):
    table = designs.coverage(
        SPECTRA[name], true_h2=[0, 0.05, 0.3, 0.6, 0.95], replicates=4000, nulls=8000, seed=2
    )
    coverage = table[table.interval == "rlrt"].coverage
    # 0.95 +- 1 point; the Monte Carlo error of both simulations together is 0.4
    assert coverage.between(0.94, 0.96).all()
    at_0 = table[table.true_h2 == 0].estimate_at_0
    assert at_0.between(0.4, 0.7).all()


@pytest.mark.calibration
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("h2", [0.0, 0.02, 0.4, 0.97, TOP])
def test_the_score_test_accepts_the_truth_95_times_in_100(name, h2):
    lam = SPECTRA[name]
    test = ScoreTest(lam)
    w = simulated_chi2(len(lam), 20_000, 9)
    a = (lam - 1) / variances(lam, h2)
    t = np.sort(w @ a / w.sum(axis=1))
    low = test.lower_tail(h2)
    # the accepted range, found by its two ends among the simulated values
    below = sum(test.cdf(h2, t[int(q * len(t))]) < low for q in np.linspace(0, 0.06, 31)) * 0.002
    assert below == pytest.approx(low, abs=0.005)
    assert 0 <= low <= 0.05 + 1e-12
    assert test.lower_tail(0.0) == 0
    assert test.lower_tail(TOP) == pytest.approx(0.05)


@pytest.mark.calibration
def test_the_posterior_interval_covers_on_average_over_its_prior():
    lam = SPECTRA["sibs"]
    study = designs.Study(Nodes(lam), bl.priors.uniform())
    covered = []
    for i, truth in enumerate((np.arange(40) + 0.5) / 40):
        found = study.simulate(float(truth), simulated_chi2(len(lam), 200, i))
        covered.append((found.low["posterior"] <= truth) & (truth <= found.high["posterior"]))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


def test_reml_and_standard_errors_fail_where_samples_are_few():
    lam = bl.unrelated_eigenvalues(150, 500)
    table = designs.coverage(lam, true_h2=[0.1, 0.6, 0.9], replicates=2000)
    rows = table[table.interval == "reml"].set_index("true_h2")
    assert rows.coverage[0.6] < 0.93
    # estimates pile up at both ends, as ALBI found
    assert rows.estimate_at_0[0.1] > 0.2
    assert rows.estimate_at_1[0.9] > 0.2


@pytest.mark.algebra
@pytest.mark.parametrize("method", ["rlrt", "score", "reml"])
def test_intervals_do_not_depend_on_scale_order_or_covariates_units(method):
    model, y, C, K = fitted()
    expected = model.h2_interval(method=method)
    order = np.random.default_rng(3).permutation(len(y))
    same = [
        bl.LMM(1e3 * y + 7, C[:, 1:], K),
        bl.LMM(y, C[:, 1:], 50 * K),
        bl.LMM(y, 10 * C[:, 1:] + 3, K),
        bl.LMM(y[order], C[order, 1:], K[np.ix_(order, order)]),
    ]
    for other in same:
        np.testing.assert_allclose(other.h2_interval(method=method), expected, atol=1e-6)


def test_other_phenotypes_share_critical_values():
    model = fitted()[0]
    first = model.h2_interval()
    other = model.with_phenotype(model.y + np.random.default_rng(1).normal(size=len(model.y)))
    assert other._h2_nodes is model._h2_nodes
    assert other.h2_interval() != first
    smaller = model.with_kernel(bl.GRM(np.diag(np.arange(1.0, 41)), model.ids, labelled=False))
    assert "contrast_eigenvalues" not in smaller.__dict__
    extra = pd.DataFrame({"x": np.arange(40.0) ** 2}, index=model.ids)
    assert len(model.with_covariates(extra).contrast_eigenvalues) == 36
    assert len(model.contrast_eigenvalues) == 37


def test_a_higher_level_is_wider_and_holds_the_estimate():
    model = fitted()[0]
    for method in ("rlrt", "score", "reml"):
        low, high = model.h2_interval(0.99, method)
        inner = model.h2_interval(0.5, method)
        assert low <= inner[0] <= model.reml().h2 <= inner[1] <= high


def test_equal_eigenvalues_tell_nothing():
    data = from_contrasts(np.ones(20), np.random.default_rng(1).normal(size=20))
    for method in ("rlrt", "score", "reml"):
        assert h2_confidence_interval(data, method=method) == (0, 1)
    assert np.isinf(expected_se(np.ones(20), 0.5))


@pytest.mark.algebra
def test_information_from_traces_needs_no_large_matrix(monkeypatch):
    model = fitted()[0]
    lam = contrast_eigenvalues(model.rotated)
    for h2 in (0.0, 0.3, 0.9, 0.9999):
        found = restricted_information(model.rotated, h2)
        assert found == pytest.approx(float(information(lam, h2)), rel=1e-6)
    expected = h2_confidence_interval(model.rotated, method="reml")
    monkeypatch.setattr("bayeslmm.runs.memory.available_memory", lambda: 1000)
    assert model.h2_interval(method="reml") == expected
    with pytest.raises(bl.InputError, match="eigenvalues of 40 samples given covariates needs"):
        model.h2_interval(method="score")


@pytest.mark.algebra
def test_information_is_the_expected_curvature():
    lam = SPECTRA["unrelated"]
    chi2 = simulated_chi2(len(lam), 1, 1)
    h2, step = 0.4, 1e-3
    assert information(lam, 0.0) == pytest.approx(len(lam) * lam.var() / 2)
    # The average phenotype has squared contrasts equal to their variances; for it the curvature
    # of the profile likelihood is the expected information, up to 1 / nu.
    data = from_contrasts(lam, np.sqrt(variances(lam, h2)))
    left, mid, right = likelihood.restricted_loglik(data, np.array([h2 - step, h2, h2 + step]))
    assert -(left - 2 * mid + right) / step**2 == pytest.approx(information(lam, h2), rel=1e-3)
    assert information(lam, np.array([0.1, 0.4])).shape == (2,)
    assert expected_se(lam, h2) == pytest.approx(information(lam, h2) ** -0.5)
    assert chi2.shape == (1, len(lam))


def test_coverage_of_a_model():
    model = fitted()[0]
    table = model.coverage([0, 0.5], replicates=200, seed=1)
    assert list(table.interval) == 2 * list(designs.INTERVALS)
    pd.testing.assert_frame_equal(table, model.coverage([0, 0.5], replicates=200, seed=1))
    assert table.attrs["n"] == 40
    missed = table.too_high + table.too_low
    np.testing.assert_allclose(table.coverage, 1 - missed)
    assert (table[table.true_h2 == 0].too_low == 0).all()


def test_unrelated_eigenvalues_are_those_of_a_random_grm():
    lam = bl.unrelated_eigenvalues(400, 1000, seed=2)
    Z = np.random.default_rng(3).normal(size=(399, 1000))
    values = np.linalg.eigvalsh(Z @ Z.T / 1000)
    np.testing.assert_allclose(lam, values / values.mean(), atol=0.12)
    few = bl.unrelated_eigenvalues(60, 30)
    assert (few == 0).sum() == 29
    assert len(few) == 59
    assert few.mean() == pytest.approx(1)


def test_family_eigenvalues_are_those_of_the_matrix():
    K = np.kron(np.eye(5), np.full((3, 3), 0.5) + 0.5 * np.eye(3))
    values = np.linalg.eigvalsh(dense.centred(K))[1:]
    np.testing.assert_allclose(
        np.sort(bl.family_eigenvalues(5, 3)), values / values.mean(), atol=1e-12
    )


def test_design():
    x = np.random.default_rng(1).integers(0, 3, size=(120, 200))
    grm = bl.grm(x)
    table = bl.design(grm, [0, 0.5], [60, 120], replicates=200)
    assert table.n.tolist() == [60, 60, 120, 120]
    assert (table.se[2:].to_numpy() < table.se[:2].to_numpy()).all()
    assert (table.power_rlrt[[1, 3]].to_numpy() > table.power_rlrt[[0, 2]].to_numpy()).all()
    assert table.power_rlrt[[0, 2]].to_numpy() == pytest.approx(0.05, abs=0.05)
    whole = bl.design(bl.eigenbasis(grm), [0, 0.5], replicates=200)
    np.testing.assert_allclose(whole.to_numpy(), table[2:].to_numpy(), rtol=1e-6, atol=1e-9)
    # the average phenotype predicts the mean posterior sd
    from bayeslmm.model.heritability import expected_posterior

    lam = bl.LMM(x[:, 0] + 0.0, kernel=grm).contrast_eigenvalues
    expected = expected_posterior(lam, 0.5, bl.priors.uniform()).sd
    assert expected == pytest.approx(table.posterior_sd[3], rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.h2_interval(1.5), "level must be between 0 and 1"),
        (lambda m: m.h2_interval(method="wald"), "expected 'rlrt', 'score'"),
        (lambda m: m.coverage([0.5, 1.2]), "numbers from 0 to 1"),
        (lambda m: m.coverage([]), "numbers from 0 to 1"),
        (lambda m: m.coverage(replicates=5), "At least 50 replicates"),
        (lambda m: m.coverage(level=0.0, replicates=50), "level must be"),
        (lambda m: bl.LMM(m.y).h2_interval(), "Without kernel there is no h2"),
        (lambda m: bl.design(np.ones(5), n=3), "Eigenvalues alone do not tell"),
        (lambda m: bl.design(np.array([1.0, -1.0])), "none below 0"),
        (lambda m: bl.design(m.grm, n=1000), "n must be from 3 to 40"),
        (lambda m: bl.design("K"), "design needs an Eigenbasis"),
        (lambda m: bl.unrelated_eigenvalues(2), "At least 3 people"),
        (lambda m: bl.family_eigenvalues(1, 4), "at least 2 families"),
        (lambda m: bl.family_eigenvalues(10, 4, 1.5), "relatedness in"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(bl.InputError, match=message):
        call(fitted()[0])


def test_plots_of_coverage_and_design():
    import matplotlib.pyplot as plt

    lam = SPECTRA["sibs"]
    table = designs.coverage(lam, true_h2=[0, 0.5, 1], replicates=100)
    for what in ("coverage", "width"):
        ax = plots.coverage(table, what=what)
        drawn = {line.get_gid(): line for line in ax.lines}
        rows = table[table.interval == "rlrt"]
        np.testing.assert_allclose(drawn[f"{what}-rlrt"].get_ydata(), rows[what])
    with pytest.raises(bl.InputError, match="expected 'coverage' or 'width'"):
        plots.coverage(table, what="bias")
    one = bl.design(lam, [0, 0.5], replicates=100)
    assert len(plots.design(one).get_legend().get_texts()) == 3
    assert plots.design(one, column="se").get_ylabel() == "Expected standard error of $h^2$"
    with pytest.raises(bl.InputError, match="column='n' is not in the table"):
        plots.design(one, column="n")
    plt.close("all")
