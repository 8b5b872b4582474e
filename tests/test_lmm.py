import subprocess
import sys

import dense
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

import bayeslmm as bl
from bayeslmm.bases.basis import Eigenbasis
from bayeslmm.errors import InputError
from bayeslmm.model.conditional import Conditional
from bayeslmm.model.exact_posterior import _conditionals_at
from bayeslmm.model.snps import selected_snps
from bayeslmm.numerics import likelihood

pytestmark = pytest.mark.algebra


def model(y, C, K, **options):
    """LMM of a case; its first covariate is the intercept, which LMM adds."""
    return bl.LMM(y, C[:, 1:] if C.shape[1] > 1 else None, K, **options)


def at_h2_of_0(n=40):
    """y whose restricted likelihood falls from h2 = 0: no variance along the large eigenvalues."""
    _, C, K = dense.Case("", n, 1, "genotypes", 2 * n).make()
    U = np.linalg.eigh(dense.centred(K))[1]
    y = U[:, : n // 2].sum(axis=1) + 0.01 * np.random.default_rng(1).normal(size=n)
    return y, C, K


def at_h2_of_1(n=40):
    """y whose restricted likelihood rises up to h2 = 1: more variance along large eigenvalues."""
    _, C, K = dense.Case("", n, 1, "genotypes", 4 * n).make()
    S, U = np.linalg.eigh(dense.centred(K))
    return U @ np.maximum(S, 0), C, K


# -- REML and MAP ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", dense.CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("seed", [0, 1])
def test_reml_equals_dense_optimum(case, seed):
    y, C, K = case.make(seed)
    fit = model(y, C, K).reml()
    log_ratio, loglik = dense.optimum(y, C, dense.centred(K), log_range=(-20, 20))
    assert fit.loglik == pytest.approx(loglik, abs=1e-8)
    if fit.boundary:
        assert abs(log_ratio) > 19
        return
    assert fit.h2 == pytest.approx(1 / (1 + np.exp(-log_ratio)), abs=2e-6)
    assert fit.kappa == pytest.approx(dense.kappa_of(K, C))
    assert fit.s2 == pytest.approx(dense.profiled(y, C, K, fit.h2)[1], rel=1e-8)
    assert fit.s2_g * fit.kappa + fit.s2_e == pytest.approx(fit.s2)
    assert fit.s2_g * fit.kappa / fit.s2 == pytest.approx(fit.h2)
    assert fit.vg_over_vp == pytest.approx(fit.s2_g / (fit.s2_g + fit.s2_e))
    V = dense.covariance(K, fit.s2_g, fit.s2_e)
    assert fit.loglik == pytest.approx(dense.reml_loglik(y, C, V), rel=1e-9)
    b, cov = dense.gls(y, C, dense.covariance(dense.centred(K), fit.s2_g, fit.s2_e))
    np.testing.assert_allclose(fit.b.estimate, b, rtol=1e-6)
    np.testing.assert_allclose(fit.b.se, np.sqrt(np.diag(cov)), rtol=1e-6)


def hessian(function, at, steps):
    """Second differences of fourth order."""
    at, steps = np.asarray(at), np.asarray(steps)
    offsets, weights = [-2, -1, 1, 2], np.array([1, -8, 8, -1]) / 12

    def gradient(x, i):
        return (
            sum(
                w * function(x + o * steps * (np.arange(len(at)) == i))
                for o, w in zip(offsets, weights, strict=True)
            )
            / (steps[i])
        )

    return np.array(
        [
            [
                sum(
                    w * gradient(at + o * steps * (np.arange(len(at)) == j), i)
                    for o, w in zip(offsets, weights, strict=True)
                )
                / steps[j]
                for i in range(len(at))
            ]
            for j in range(len(at))
        ]
    )


@pytest.mark.parametrize("number", [0, 3, 6, 7])
def test_standard_errors_equal_numeric_hessian(number):
    y, C, K = dense.CASES[number].make(1)
    fit = model(y, C, K).reml()
    assert not fit.boundary

    def negative(s2):
        return -dense.reml_loglik(y, C, dense.covariance(K, *s2))

    at = [fit.s2_g, fit.s2_e]
    covariance = np.linalg.inv(hessian(negative, at, 0.02 * np.array(at)))
    assert fit.s2_g_se == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-4)
    assert fit.s2_e_se == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-4)
    # h2 by the delta method, and by the curvature of the profile: the same at the optimum
    slope = fit.kappa / fit.s2**2 * np.array([fit.s2_e, -fit.s2_g])
    assert fit.h2_se == pytest.approx(np.sqrt(slope @ covariance @ slope), rel=1e-4)
    profile = hessian(lambda h: -dense.profiled(y, C, K, h[0])[0], [fit.h2], [2e-3])
    assert fit.h2_se == pytest.approx(profile[0, 0] ** -0.5, rel=1e-3)


@pytest.mark.parametrize("method", ["reml", "map"])
def test_boundary_at_0(method):
    y, C, K = at_h2_of_0()
    fit = getattr(model(y, C, K), method)()
    assert fit.boundary == "h2 = 0"
    assert fit.h2 == fit.s2_g == 0
    assert np.isnan([fit.h2_se, fit.s2_g_se, fit.s2_e_se]).all()
    assert fit.s2_e == pytest.approx(np.var(y, ddof=1))
    assert fit.b.se.iloc[0] == pytest.approx(np.std(y, ddof=1) / np.sqrt(len(y)))
    assert "no SE: h2 = 0" in str(fit)
    assert "no standard error" in fit._repr_html_()


@pytest.mark.parametrize("method", ["reml", "map"])
def test_boundary_at_1(method):
    y, C, K = at_h2_of_1()
    fit = getattr(model(y, C, K), method)()
    assert fit.boundary == "h2 = 1"
    assert fit.h2 == 1
    assert fit.s2_e == 0
    assert np.isnan([fit.h2_se, fit.s2_g_se, fit.s2_e_se]).all()
    Kc = dense.centred(K)
    s2_g = y @ np.linalg.pinv(Kc) @ y / (len(y) - 1)
    assert fit.s2_g == pytest.approx(s2_g, rel=1e-6)
    assert "no SE: h2 = 1" in str(fit)


@pytest.mark.parametrize("at", [at_h2_of_0, at_h2_of_1])
def test_posterior_where_mass_piles_up_at_an_end(at):
    y, C, K = at()
    found = model(y, C, K).h2_posterior()
    # m = 2 n and 4 n: K is of full rank, so the dense likelihood is precise
    brute = dense.brute_posterior(y, C, K)
    assert found.log_integral == pytest.approx(brute.log_marginal, abs=1e-5)
    mean, sd = brute.moments(brute.h2)
    assert found.mean == pytest.approx(mean, abs=1e-5)
    assert found.sd == pytest.approx(sd, rel=1e-4)
    low, high = found.hdi(0.95)
    assert (low if at is at_h2_of_0 else 1 - high) < 1e-6
    assert found.quantile(0.025) > 1e-5
    assert found.quantile(0.975) < 1 - 1e-5


def test_map():
    y, C, K = dense.CASES[0].make(1)
    fit, mode = model(y, C, K).reml(), model(y, C, K).map()
    assert mode.h2 == pytest.approx(fit.h2, abs=1e-8), "the uniform prior moves nothing"
    assert mode.method == "MAP"
    assert mode.h2_se == pytest.approx(fit.h2_se, rel=1e-4)
    prior = stats.beta(30, 70)
    shifted = model(y, C, K, h2_prior=bl.priors.beta(30, 70)).map()

    def negative(h2):
        return -dense.profiled(y, C, K, h2)[0] - prior.logpdf(h2)

    found = optimize.minimize_scalar(negative, bounds=(0.01, 0.99), method="bounded")
    assert shifted.h2 == pytest.approx(found.x, abs=1e-5)
    assert shifted.h2 < fit.h2
    curvature = hessian(lambda h: negative(h[0]), [shifted.h2], [1e-3])[0, 0]
    assert shifted.h2_se == pytest.approx(curvature**-0.5, rel=2e-3)
    edge = model(y, C, K, h2_prior=stats.uniform(0, 0.1)).map()
    assert edge.h2 == pytest.approx(0.1, abs=1e-6)
    assert np.isnan(edge.h2_se)


def test_fit_prints_itself():
    y, C, K = dense.CASES[3].make(1)
    fit = model(y, C, K).reml()
    assert str(fit).startswith(f"REML (n = 35): h2 = {fit.h2:.4f} (SE {fit.h2_se:.4f}), s2_g = ")
    html = fit._repr_html_()
    assert "<table" in html
    assert "x4" in html


# -- the posterior -----------------------------------------------------------------------------


PRIORS = {
    "uniform": ("uniform", np.zeros_like),
    "Beta(2, 5)": (bl.priors.beta(2, 5), stats.beta(2, 5).logpdf),
    "Beta(1, 20)": (bl.priors.beta(1, 20), stats.beta(1, 20).logpdf),
    "half": (stats.norm(0, 0.3), stats.truncnorm(0, 1 / 0.3, 0, 0.3).logpdf),
}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(
    "case",
    [
        dense.Case("n < m", 14, 2, "genotypes", 60),
        dense.Case("n > m", 16, 1, "genotypes", 6),
        dense.Case("families", 16, 3, "families"),
    ],
    ids=lambda case: case.name,
)
def test_posterior_equals_brute_force(case, prior):
    y, C, K = case.make(2)
    given, log_prior = PRIORS[prior]
    lmm = model(y, C, K, h2_prior=given)
    brute = dense.brute_posterior(y, C, K, log_prior)
    density = lmm.h2_posterior()
    mean, sd = brute.moments(brute.h2)
    assert density.mean == pytest.approx(mean, abs=1e-6)
    assert density.sd == pytest.approx(sd, rel=1e-5)
    assert density.log_integral == pytest.approx(brute.log_marginal, abs=1e-6)

    draws = 100_000
    posterior = lmm.posterior(draws, seed=3).posterior
    kappa = dense.kappa_of(K, C)
    values = {
        "h2": brute.h2,
        "s2": brute.s2,
        "s2_g": brute.s2 * brute.h2 / kappa,
        "s2_e": brute.s2 * (1 - brute.h2),
    }
    for name, at_nodes in values.items():
        found = posterior[name].to_numpy().ravel()
        mean, sd = brute.moments(at_nodes)
        assert abs(found.mean() - mean) < 5 * sd / np.sqrt(draws), name
        # The rest of the shape: the Laplace transform at four points
        for k in (0.3, 1, 3, 10):
            expected, spread = brute.moments(np.exp(-k * at_nodes / mean))
            error = np.exp(-k * found / mean).mean() - expected
            assert abs(error) < 5 * spread / np.sqrt(draws), (name, k)
    b = posterior.b.to_numpy().reshape(draws, -1)
    assert (np.abs(b.mean(axis=0) - brute.b_mean) < 5 * brute.b_sd / np.sqrt(draws)).all()
    np.testing.assert_allclose(b.std(axis=0), brute.b_sd, rtol=0.03)


def test_posterior_under_a_prior_on_s2():
    y, C, K = dense.CASES[0].make(1)
    lmm = model(y, C, K)
    found = lmm.h2_posterior(s2_prior=(4, 2.0))
    h2, w = np.polynomial.legendre.leggauss(60)
    h2, w = (h2 + 1) / 2, w / 2
    log_f = np.array([dense.integrated_loglik(y, C, K, h, 4, 2.0) for h in h2])
    f = np.exp(log_f - log_f.max()) * w
    assert found.log_integral == pytest.approx(log_f.max() + np.log(f.sum()), abs=1e-6)
    assert found.mean == pytest.approx(f @ h2 / f.sum(), abs=1e-6)
    tight = lmm.posterior(4000, s2_prior=(1e7, 9.0), seed=1)
    np.testing.assert_allclose(tight.posterior.s2, 9.0, rtol=0.01)
    assert tight.attrs["s2_prior"] == "scaled-inv-chi2(10000000.0, 9.0)"
    assert tight.posterior.attrs["log_marginal_likelihood"] < found.log_integral


@pytest.mark.parametrize("case", [dense.CASES[0], dense.CASES[1]], ids=lambda case: case.name)
def test_random_effects_equal_dense(case):
    y, C, K = case.make(1)
    Kc, kappa = dense.centred(K), dense.kappa_of(K, C)
    # A prior so tight that h2 and s2 are known: u is normal, and its dense mean and covariance too
    h2, s2 = 0.4, 2.0
    lmm = model(y, C, K, h2_prior=stats.norm(h2, 1e-5))
    draws = 40_000
    u = lmm.posterior(draws, u=True, s2_prior=(1e10, s2), seed=5).posterior.u.to_numpy()
    u = u.reshape(draws, -1)
    mean, cov = dense.random_effects(y, C, Kc, s2 * h2 / kappa, s2 * (1 - h2))
    sd = np.sqrt(np.diag(cov))
    assert (np.abs(u.mean(axis=0) - mean) < 5 * sd / np.sqrt(draws)).all()
    np.testing.assert_allclose(u.var(axis=0), sd**2, rtol=5 * np.sqrt(2 / draws))
    difference = np.cov(u.T) - cov
    assert np.abs(difference).max() < 6 * (sd**2).max() / np.sqrt(draws)


def test_random_effects_at_the_ends():
    y, C, K = dense.CASES[1].make()
    lmm = model(y, C, K)
    columns = list(lmm.C.columns)
    ends = xr.Dataset(
        {
            "s2_g": (("chain", "draw"), [[0.0, 1.0]]),
            "s2_e": (("chain", "draw"), [[1.0, 0.0]]),
            "b": (("chain", "draw", "covariate"), np.zeros((1, 2, len(columns)))),
        },
        {"covariate": columns},
    )
    u = Conditional(lmm, ends, selected_snps(lmm, None)).draw_u(np.random.default_rng(1))
    assert (u[0] == 0).all()
    assert np.isfinite(u[1]).all()


def test_spike_at_0():
    y, C, K = dense.CASES[0].make(4)
    for spike in (0.1, 0.5, 0.9):
        lmm = model(y, C, K, h2_prior=bl.priors.uniform(spike=spike))
        density = lmm.h2_posterior()
        slab = dense.brute_posterior(y, C, K).log_marginal
        at_0 = dense.integrated_loglik(y, C, K, 0.0)
        odds = spike / (1 - spike) * np.exp(at_0 - slab)
        assert density.mass_at_0 == pytest.approx(odds / (1 + odds), rel=1e-5)
        assert density.log_integral == pytest.approx(
            np.logaddexp(np.log(spike) + at_0, np.log(1 - spike) + slab), abs=1e-6
        )
        tree = lmm.posterior(10_000, seed=1)
        share = float((tree.posterior.h2 == 0).mean())
        assert tree.attrs["p_h2_zero"] == density.mass_at_0
        p = density.mass_at_0
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / 10_000)
        assert (tree.posterior.s2_g.to_numpy()[tree.posterior.h2.to_numpy() == 0] == 0).all()
    assert "p_h2_zero" not in model(y, C, K).posterior(2, seed=1).attrs


def test_spike_on_the_boundary_gains():
    y, C, K = at_h2_of_0()
    assert model(y, C, K, h2_prior=bl.priors.uniform(spike=0.5)).h2_posterior().mass_at_0 > 0.9


def test_seeds():
    y, C, K = dense.CASES[0].make()
    lmm = model(y, C, K)
    one, again, other = (lmm.posterior(50, u=True, seed=s) for s in (1, 1, 2))
    for name in one.posterior:
        np.testing.assert_array_equal(one.posterior[name], again.posterior[name])
        assert not np.array_equal(one.posterior[name], other.posterior[name])
    unseeded = lmm.posterior(50, u=True)
    repeated = lmm.posterior(50, u=True, seed=unseeded.attrs["seed"])
    np.testing.assert_array_equal(unseeded.posterior.u, repeated.posterior.u)
    given = lmm.posterior(50, seed=np.random.default_rng(1))
    np.testing.assert_array_equal(given.posterior.h2, one.posterior.h2)
    assert given.attrs["seed"] == "a caller's Generator"
    assert lmm.posterior(2, seed=np.int64(5)).attrs["seed"] == 5


def test_data_tree():
    rng = np.random.default_rng(1)
    ids = [f"mouse{i}" for i in range(30)]
    table = pd.DataFrame({"weight": rng.normal(size=30), "sex": ["F", "M"] * 15}, index=ids)
    Z = rng.normal(size=(30, 90))
    K = pd.DataFrame(Z @ Z.T / 90, index=ids, columns=ids)
    lmm = bl.LMM("weight ~ sex", table, K)
    tree = lmm.posterior(20, u=True, seed=1)
    assert set(tree.children) == {"posterior", "observed_data", "constant_data"}
    posterior = tree.posterior
    assert set(posterior.data_vars) == {"h2", "s2_g", "s2_e", "s2", "b", "u"}
    assert posterior.h2.dims == ("chain", "draw")
    assert posterior.h2.shape == (4, 5)
    assert lmm.posterior(21, seed=1).posterior.h2.shape == (1, 21)
    assert posterior.b.dims == ("chain", "draw", "covariate")
    assert posterior.u.dims == ("chain", "draw", "sample")
    assert posterior.covariate.values.tolist() == lmm.C.columns.tolist()
    assert posterior.sample.values.tolist() == ids
    np.testing.assert_array_equal(tree.observed_data.y, lmm.y)
    np.testing.assert_array_equal(tree.constant_data.C, lmm.C)
    density = lmm.h2_posterior()
    attrs = tree.attrs
    assert attrs["h2_mean"] == density.mean
    assert attrs["h2_sd"] == density.sd
    assert attrs["h2_hdi95"] == list(density.hdi())
    assert attrs["log_marginal_likelihood"] == density.log_integral
    assert attrs["formula"] == "weight ~ sex"
    assert attrs["h2_prior"] == "Uniform(0, 1)"
    assert attrs["s2_prior"] == "1/s2"
    assert attrs["n"] == 30
    assert attrs["created_by"].startswith("bayeslmm ")
    assert posterior.attrs == attrs
    without_u = lmm.posterior(20, seed=1)
    assert "u" not in without_u.posterior
    assert "sample" not in without_u.posterior.coords


@pytest.mark.slow
def test_arviz_reads_the_draws(tmp_path):
    import arviz as az

    y, C, K = dense.CASES[3].make()
    tree = model(y, C, K).posterior(1000, seed=1)
    summary = az.summary(tree, ci_kind="hdi")
    assert summary.index.tolist() == ["h2", "s2_g", "s2_e", "s2", *(f"b[{c}]" for c in
                                      ["Intercept", "x1", "x2", "x3", "x4"])]  # fmt: skip
    assert float(summary["mean"].astype(float)["h2"]) == pytest.approx(
        tree.attrs["h2_mean"], abs=0.05
    )
    assert float(summary.ess_bulk.astype(float)["h2"]) > 700, "independent draws"


def test_log_marginal_likelihood_prefers_the_right_model():
    y, C, K = dense.Case("", 200, 1, "genotypes", 60).make(1)
    with_kernel = model(y, C, K).posterior(2, seed=1).attrs["log_marginal_likelihood"]
    without = bl.LMM(y).posterior(2, seed=1).attrs["log_marginal_likelihood"]
    assert with_kernel - without > 5
    spike = model(y, C, K, h2_prior=bl.priors.uniform(spike=0.5)).h2_posterior().mass_at_0
    # The same two models, in one
    assert spike == pytest.approx(1 / (1 + np.exp(with_kernel - without)), rel=1e-6)


def test_no_draws():
    y, C, K = dense.CASES[0].make()
    with pytest.raises(InputError, match="At least one draw is needed, but draws=0"):
        model(y, C, K).posterior(0)
    with pytest.raises(InputError, match="is no density: both must be above 0"):
        model(y, C, K).posterior(10, s2_prior=(1, -1))


# -- without kernel ----------------------------------------------------------------------------


def test_without_kernel():
    y, C, _ = dense.CASES[3].make()
    lmm = bl.LMM(y, C[:, 1:])
    b, se, _ = dense.ols(y, C)
    for fit in (lmm.reml(), lmm.map()):
        assert fit.h2 == fit.s2_g == 0
        assert fit.boundary == ""
        np.testing.assert_allclose(fit.b.estimate, b, rtol=1e-9)
        np.testing.assert_allclose(fit.b.se, se, rtol=1e-9)
        assert fit.loglik == pytest.approx(
            dense.reml_loglik(y, C, fit.s2_e * np.eye(len(y))), rel=1e-10
        )
    with pytest.raises(InputError, match="no random effects"):
        lmm.posterior(10, u=True)
    tree = lmm.posterior(40_000, seed=1)
    posterior = tree.posterior
    assert (posterior.h2 == 0).all()
    df = len(y) - C.shape[1]
    # Student's t: the textbook posterior
    t = (posterior.b.to_numpy().reshape(-1, len(b)) - b) / se
    for column in t.T:
        assert stats.kstest(column, stats.t(df).cdf).pvalue > 1e-4
    scaled = fit.s2_e * df / posterior.s2.to_numpy().ravel()
    assert stats.kstest(scaled, stats.chi2(df).cdf).pvalue > 1e-4
    assert tree.attrs["h2_prior"] == "h2 = 0"
    assert "h2_mean" not in tree.attrs
    with pytest.raises(InputError, match="Without kernel there is no h2"):
        lmm.h2_posterior()
    assert "kernel   none" in repr(lmm)


# -- invariances -------------------------------------------------------------------------------

PROPERTY = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 10_000)
covariates = st.sampled_from([1, 2, 3, 7, 20])
sizes = st.sampled_from([15, 80])


def problem(seed, c, m):
    return dense.Case("", 30, c, "genotypes", m).make(seed)


def summary(lmm):
    fit, density = lmm.reml(), lmm.h2_posterior()
    return {
        "h2": fit.h2,
        "s2": fit.s2,
        "s2_g": fit.s2_g,
        "loglik": fit.loglik,
        "mean": density.mean,
        "sd": density.sd,
        "marginal": density.log_integral,
        "hdi": density.hdi(0.9),
        "b": fit.b.estimate.to_numpy()[1:],
    }


def assert_same(found, expected, but=()):
    for name in expected:
        if name not in but:
            loose = 1e-3 if name == "hdi" else 1e-5 if name in ("h2", "s2", "s2_g", "b") else 1e-7
            np.testing.assert_allclose(
                found[name], expected[name], rtol=loose, atol=loose, err_msg=name
            )


@PROPERTY
@given(seeds, covariates, sizes)
def test_invariant_to_sample_order(seed, c, m):
    y, C, K = problem(seed, c, m)
    order = np.random.default_rng(seed).permutation(30)
    shuffled = model(y[order], C[order], K[np.ix_(order, order)])
    assert_same(summary(shuffled), summary(model(y, C, K)))


@PROPERTY
@given(seeds, covariates)
def test_labelled_data_in_any_order(seed, c):
    y, C, K = problem(seed, c, 80)
    rng = np.random.default_rng(seed)
    ids = np.array([f"s{i}" for i in range(30)])
    columns = [f"x{j}" for j in range(1, c)]
    table = pd.DataFrame(C[:, 1:], index=ids, columns=columns).assign(y=y)
    frame = pd.DataFrame(K, index=ids, columns=ids)
    order, other = rng.permutation(30), rng.permutation(30)
    shuffled = frame.iloc[other, other]
    lmm = bl.LMM(" + ".join(["y ~ 1", *columns]), table.iloc[order], shuffled)
    assert lmm.ids.tolist() == ids[other].tolist()
    assert_same(summary(lmm), summary(model(y, C, K)))


@PROPERTY
@given(seeds, covariates)
def test_invariant_to_choice_of_eigenvectors(seed, c):
    y, C, K = dense.Case("", 40, c, "families").make(seed)
    basis = bl.eigenbasis(K)
    rng = np.random.default_rng(seed)
    U = basis.vectors.copy()
    values = np.round(basis.values, 10)
    for value in np.unique(values):
        columns = np.flatnonzero(values == value)
        rotation = np.linalg.qr(rng.normal(size=(len(columns), len(columns))))[0]
        U[:, columns] = U[:, columns] @ rotation
    assert len(np.unique(values)) < 5, "families of one kind: few distinct eigenvalues"
    turned = Eigenbasis(basis.values, U, basis.samples, labelled=False)
    assert_same(summary(model(y, C, turned)), summary(model(y, C, basis)))
    x = rng.integers(0, 3, size=(40, 4))
    options = {"tests": ["wald", "lrt", "score", "p3d"], "dtype": "float64"}
    pd.testing.assert_frame_equal(
        model(y, C, turned).scan(x, **options), model(y, C, basis).scan(x, **options), rtol=1e-5
    )


@PROPERTY
@given(seeds, covariates, sizes)
def test_invariant_to_sign_of_eigenvectors(seed, c, m):
    y, C, K = problem(seed, c, m)
    basis = bl.eigenbasis(K)
    signs = np.random.default_rng(seed).choice([-1, 1], size=30)
    flipped = Eigenbasis(basis.values, basis.vectors * signs, basis.samples, labelled=False)
    assert_same(summary(model(y, C, flipped)), summary(model(y, C, basis)))


@PROPERTY
@given(seeds, covariates, sizes, st.floats(-1e6, 1e6))
def test_adding_a_constant_to_y(seed, c, m, constant):
    y, C, K = problem(seed, c, m)
    found, expected = model(y + constant, C, K), model(y, C, K)
    assert_same(summary(found), summary(expected))
    intercepts = [lmm.reml().b.estimate.iloc[0] for lmm in (found, expected)]
    assert intercepts[0] - intercepts[1] == pytest.approx(constant, abs=1e-4)


@PROPERTY
@given(seeds, covariates, sizes, st.floats(-8, 8), st.booleans())
def test_rescaling_y(seed, c, m, log10_factor, negative):
    y, C, K = problem(seed, c, m)
    factor = 10**log10_factor * (-1 if negative else 1)
    expected = summary(model(y, C, K))
    found = summary(model(y * factor, C, K))
    df = 30 - c
    found["s2"] /= factor**2
    found["s2_g"] /= factor**2
    found["b"] = found["b"] / factor
    found["loglik"] += df * np.log(abs(factor))
    found["marginal"] += df * np.log(abs(factor))
    assert_same(found, expected)


@PROPERTY
@given(seeds, covariates, sizes, st.floats(-10, 10))
def test_rescaling_K(seed, c, m, log10_factor):
    y, C, K = problem(seed, c, m)
    factor = 10**log10_factor
    found, expected = summary(model(y, C, K * factor)), summary(model(y, C, K))
    found["s2_g"] *= factor
    assert_same(found, expected)


def test_rescaling_a_singular_K_with_h2_next_to_1():
    """20 covariates and a K of rank 15: the best h2 is 1, where V is singular."""
    y, C, K = problem(416, 20, 15)
    expected = model(y, C, K).reml()
    assert expected.h2 > 1 - 1e-7
    h2 = np.array([1 - 2e-9, 1 - 1e-7, 1 - 1e-5])
    reference = likelihood.restricted_loglik(model(y, C, K).rotated, h2)
    for factor in (1e-10, 1e-3, np.pi, 1e10):
        scaled = model(y, C, K * factor)
        found = likelihood.restricted_loglik(scaled.rotated, h2)
        np.testing.assert_allclose(found, reference, rtol=3e-10)
        assert scaled.reml().loglik == pytest.approx(expected.loglik, rel=1e-7)


@PROPERTY
@given(seeds, covariates, sizes)
def test_shifting_and_rescaling_covariates(seed, c, m):
    y, C, K = problem(seed, c, m)
    rng = np.random.default_rng(seed)
    scale, shift = 10 ** rng.uniform(-4, 4, size=c), rng.normal(size=c) * 10
    scale[0], shift[0] = 1, 0
    other = C * scale + shift
    other[:, 0] = 1
    found, expected = summary(model(y, other, K)), summary(model(y, C, K))
    found["b"] = found["b"] * scale[1:]
    assert_same(found, expected)


# -- what the specification says ---------------------------------------------------------------


def test_basis_without_intercept():
    y, C, K = dense.CASES[0].make()
    table = pd.DataFrame({"y": y, "x": C[:, 1]})
    fit = bl.LMM("y ~ 0 + x", table, K).reml()
    log_ratio, loglik = dense.optimum(y, C[:, 1:], K)
    assert fit.loglik == pytest.approx(loglik, abs=1e-8)
    assert fit.h2 == pytest.approx(1 / (1 + np.exp(-log_ratio)), abs=1e-6)
    assert fit.kappa == pytest.approx(np.trace(K) / len(K)), "K is not centred then"
    with pytest.raises(InputError, match="no intercept, but the basis is of a centred kernel"):
        bl.LMM("y ~ 0 + x", table, bl.eigenbasis(K)).reml()
    given = bl.LMM("y ~ 0 + x", table, bl.eigenbasis(K, center=False)).reml()
    assert given.h2 == fit.h2


def test_basis_of_an_uncentred_kernel_with_intercept():
    y, C, K = dense.CASES[0].make()
    centred, not_centred = (
        model(y, C, bl.eigenbasis(K, center=center)).reml() for center in (True, False)
    )
    # One likelihood; the mean diagonal differs, and with it h2, but neither component does.
    assert not_centred.loglik == pytest.approx(centred.loglik, rel=1e-10)
    assert not_centred.s2_g == pytest.approx(centred.s2_g, rel=1e-5)
    assert not_centred.s2_e == pytest.approx(centred.s2_e, rel=1e-5)


def test_no_covariates_at_all():
    y, C, K = dense.CASES[0].make()
    table = pd.DataFrame({"y": y})
    lmm = bl.LMM("y ~ 0", table, K)
    assert lmm.reml().loglik == pytest.approx(dense.optimum(y, C[:, :0], K)[1], abs=1e-8)
    tree = lmm.posterior(10, u=True, seed=1)
    assert tree.posterior.b.shape == (1, 10, 0)


def test_samples_with_missing_phenotypes_are_left_out():
    y, C, K = dense.CASES[0].make()
    absent = [3, 17, 30]
    kept = np.setdiff1d(np.arange(len(y)), absent)
    holed = y.copy()
    holed[absent] = np.nan
    lmm = model(holed, C, K)
    assert lmm.samples.reason.value_counts().to_dict() == {"": 37, "phenotype missing": 3}
    expected = model(y[kept], C[kept], K[np.ix_(kept, kept)])
    assert_same(summary(lmm), summary(expected))
    from_basis = model(holed, C, bl.eigenbasis(K))
    assert_same(summary(from_basis), summary(expected))
    assert "3 dropped: phenotype missing" in repr(lmm)


def test_many_covariates_are_named_in_short():
    table = pd.DataFrame({"y": np.arange(60.0) % 7, "batch": [f"b{i % 20}" for i in range(60)]})
    line = next(t for t in repr(bl.LMM("y ~ batch", table, None)).split("\n") if "covariates" in t)
    assert line.endswith(", ... (20)")
    assert len(line) < 250


def test_a_path_where_a_kernel_belongs_is_told_how_to_be_read():
    table = pd.DataFrame({"y": np.arange(9.0)})
    with pytest.raises(InputError, match=r"not a str\. Of files: bl\.read_grm\('k'\)\."):
        bl.LMM("y ~ 1", table, "k")


def test_repr_tells_the_priors():
    y, C, K = dense.CASES[0].make()
    lmm = model(y, C, K, h2_prior=bl.priors.beta(2, 3, spike=0.5))
    text = repr(lmm)
    assert "y ~ 1 + x1" in text
    assert "40 analysed" in text
    assert "h2 ~ 0.5 at 0 + 0.5 Beta(2, 3), p(s2) ~ 1/s2" in text
    lmm.reml()
    assert "kappa" in repr(lmm)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda y, K: bl.LMM("y ~ 1", None, K), "needs a table .* but data is NoneType"),
        (lambda y, K: bl.LMM(y, "covariates.tsv", K), "covariates are an array too"),
        (
            lambda y, K: bl.LMM("y ~ 1", pd.DataFrame({"y": y}), K, id="name"),
            "No id column 'name'",
        ),
        (
            lambda y, K: bl.LMM("y ~ 1", pd.DataFrame({"y": y}, index=[f"a{i}" for i in y]), K),
            "has no sample ids, the phenotype table .* has; their order cannot be checked",
        ),
        (
            lambda y, K: bl.LMM(
                "y ~ 1", pd.DataFrame({"y": y}), bl.GRM(K, [f"a{i}" for i in range(len(y))])
            ),
            "names its samples, but the phenotype table does not",
        ),
    ],
)
def test_errors(make, message):
    y, _, K = dense.CASES[0].make()
    with pytest.raises(InputError, match=message):
        make(y, K)


def test_light_imports():
    """Everything down to the scan works without what is heavy."""
    code = """
import sys
import numpy as np
import bayeslmm as bl
rng = np.random.default_rng(1)
x = rng.integers(0, 3, size=(50, 200))
lmm = bl.LMM(rng.normal(size=50), kernel=bl.grm(x))
lmm.reml(), lmm.h2_posterior().hdi(), lmm.scan(x)
heavy = {"pymc", "pytensor", "arviz", "arviz_base", "nutpie", "matplotlib", "numba", "jax"}
print(sorted(heavy & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_import_of_the_package_alone_loads_next_to_nothing():
    code = "import sys, bayeslmm; print(sorted({'numpy', 'pandas', 'scipy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# -- calibration -------------------------------------------------------------------------------


@pytest.mark.calibration
def test_simulation_based_calibration_of_h2():
    """h2 from the prior, y from the model: the posterior's P(h2 <= truth) is uniform."""
    rng = np.random.default_rng(20)
    n, replicates = 60, 300
    Z = rng.normal(size=(n, 120))
    basis = bl.eigenbasis(Z @ Z.T / 120)
    ranks, covered = np.empty(replicates), 0
    for i in range(replicates):
        h2 = rng.random()
        d = h2 * basis.values / basis.kappa + 1 - h2
        y = 3 + np.exp(rng.normal()) * basis.vectors @ (np.sqrt(d) * rng.normal(size=n))
        density = bl.LMM(y, kernel=basis).h2_posterior()
        ranks[i] = density.cdf(h2)
        low, high = density.hdi(0.9)
        covered += low <= h2 <= high
    assert stats.kstest(ranks, "uniform").pvalue > 0.001
    # 90% intervals: within 3.3 binomial standard deviations (p = 0.001)
    assert abs(covered / replicates - 0.9) < 3.3 * np.sqrt(0.09 / replicates)


@pytest.mark.parametrize("case", dense.CASES, ids=lambda case: case.name)
def test_likelihood_at_draws_is_interpolated_without_loss(case):
    y, C, K = case.make(1)
    lmm = model(y, C, K, h2_prior=bl.priors.uniform(spike=0.3))
    density = lmm.h2_posterior()
    h2 = density.draw(4000, np.random.default_rng(1))
    assert len(h2) > len(density.x), "else nothing is interpolated"
    assert (h2 == 0).any()
    Q, b, L = _conditionals_at(lmm.rotated, density, h2)
    expected = likelihood.terms(lmm.rotated, h2)
    # 1e-4 of a standard deviation: a million draws would not show it
    limit = 1e-4
    np.testing.assert_allclose(Q, expected.Q, rtol=limit)
    # Entries of L are of different size; what matters is the spread that they give to b.
    whitened = np.linalg.solve(expected.L, L)
    np.testing.assert_allclose(
        whitened, np.broadcast_to(np.eye(case.c), whitened.shape), atol=limit
    )
    off = np.einsum("gij,gi->gj", expected.L, b - expected.b)
    assert np.abs(off / np.sqrt(expected.Q / lmm.rotated.df)[:, None]).max() < limit
