"""Repeated measures against dense covariance matrices of all records."""

import dense
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.repeated.generative import draw_effects, model_arrays, model_records
from bayeslmm.repeated.likelihood import summarise

pytestmark = pytest.mark.algebra


def simulate(n=30, counts=3, seed=0, s2=(1.0, 0.7, 0.5), mean=10.0):
    """Records of half-sib families, in random order, and their kernel."""
    rng = np.random.default_rng([seed, n])
    ids = [f"a{i}" for i in range(n)]
    ped = bl.pedigree(
        pd.DataFrame(
            {
                "id": ids,
                "sire": [f"s{i // 6}" for i in range(n)],
                "dam": [f"d{i // 2}" for i in range(n)],
            }
        )
    )
    A = ped.grm(ids).matrix
    r = np.broadcast_to(counts, n) if np.ndim(counts) else np.full(n, counts)
    owner = np.repeat(np.arange(n), r)
    value = np.linalg.cholesky(A) @ rng.normal(size=n) * np.sqrt(s2[0])
    value += rng.normal(size=n) * np.sqrt(s2[1])
    age = rng.normal(3, 1, size=len(owner))
    weight = mean + 0.5 * age + value[owner] + rng.normal(size=len(owner)) * np.sqrt(s2[2])
    records = pd.DataFrame({"animal": np.array(ids)[owner], "age": age, "weight": weight})
    return records.sample(frac=1, random_state=seed, ignore_index=True), ped


def unequal(n, seed=5):
    return np.random.default_rng(seed).integers(1, 5, size=n)


def matrices(model):
    """Z (N, n), K (n, n) as centred, C (N, c) of a model."""
    Z = np.zeros((len(model.y), len(model.individuals)))
    Z[np.arange(len(Z)), model.owner_index] = 1
    U, S = model.basis.vectors, model.basis.values
    return Z, (U * S) @ U.T, model.C.to_numpy()


def covariance(model, s2_g, s2_p, s2_e):
    Z, K, _ = matrices(model)
    return Z @ (s2_g * K + s2_p * np.eye(len(K))) @ Z.T + s2_e * np.eye(len(Z))


def dense_reml(model):
    """Restricted log-likelihood as a function of s2_g, s2_p and s2_e."""
    Z, K, C = matrices(model)
    N = dense.contrasts(C)
    y, ZZ, ZKZ = N.T @ model.y, N.T @ Z @ Z.T @ N, N.T @ Z @ K @ Z.T @ N

    def loglik(s2_g, s2_p, s2_e):
        V = s2_g * ZKZ + s2_p * ZZ + s2_e * np.eye(len(y))
        logdet = np.linalg.slogdet(V)[1]
        return -(logdet + y @ np.linalg.solve(V, y) + len(y) * np.log(2 * np.pi)) / 2

    return loglik


def make(counts, seed=0, n=30, formula="weight ~ age"):
    records, ped = simulate(n, counts, seed)
    return bl.RepeatedLMM(formula, records, ped, id="animal")


BALANCED, UNBALANCED = 3, unequal(30)


# -- the likelihood and REML ------------------------------------------------------------------


@pytest.mark.parametrize("counts", [BALANCED, UNBALANCED], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("at", [(0.6, 0.3), (0.05, 0.9), (0.97, 0.5), (0.0, 0.0), (0.4, 1.0)])
def test_restricted_likelihood_equals_dense(counts, at):
    from bayeslmm.numerics import likelihood

    model = make(counts)
    columns = likelihood.rotate(None, model.y, model.C.to_numpy())
    found = model._likelihood(columns)(*at)
    t, f = at
    kappa, s2 = model.basis.kappa, found.s2
    V = covariance(model, s2 * t * f / kappa, s2 * t * (1 - f), s2 * (1 - t))
    assert found.loglik == pytest.approx(
        dense.reml_loglik(model.y, model.C.to_numpy(), V), abs=1e-8
    )
    for factor in (0.99, 1.01):  # s2 is at its best
        assert found.loglik > dense.reml_loglik(model.y, model.C.to_numpy(), V * factor)
    b, cov = dense.gls(model.y, model.C.to_numpy(), V)
    A = columns.to_covariates
    np.testing.assert_allclose(columns.b_ols + A @ found.b, b, rtol=1e-9)
    np.testing.assert_allclose(A @ found.covariance @ A.T * s2, cov, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("counts", [BALANCED, UNBALANCED], ids=["balanced", "unbalanced"])
def test_gradient(counts):
    from bayeslmm.numerics import likelihood

    model = make(counts)
    function = model._likelihood(likelihood.rotate(None, model.y, model.C.to_numpy()))
    for at in ((0.6, 0.3), (0.2, 0.8)):
        numeric = optimize.approx_fprime(at, lambda x: function(*x).loglik, 1e-6)
        np.testing.assert_allclose(function(*at).gradient, numeric, rtol=1e-4, atol=1e-4)
        numeric = optimize.approx_fprime(at, lambda x: np.log(function(*x).s2), 1e-7)
        np.testing.assert_allclose(function(*at).d_log_s2, numeric, rtol=1e-4, atol=1e-5)


def test_balanced_data_the_general_way():
    from bayeslmm.numerics import likelihood

    model = make(BALANCED)
    columns = likelihood.rotate(None, model.y, model.C.to_numpy())
    fast, general = model._likelihood(columns), model._likelihood(columns, dense=True)
    for at in ((0.6, 0.3), (0.01, 0.99)):
        one, other = fast(*at), general(*at)
        assert one.loglik == pytest.approx(other.loglik, abs=1e-9)
        np.testing.assert_allclose(one.gradient, other.gradient, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(fast.maximise(), general.maximise(), atol=1e-5)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("counts", [BALANCED, UNBALANCED], ids=["balanced", "unbalanced"])
def test_reml_equals_dense_optimisation(counts, seed):
    model = make(counts, seed)
    fit = model.reml()

    loglik = dense_reml(model)

    def objective(x):
        return -loglik(*np.exp(x))

    starts = [np.log([0.5, 0.5, 0.5]), np.log([0.05, 1, 0.5]), np.log([1, 0.05, 0.5])]
    options = {"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000}
    best = min(
        (optimize.minimize(objective, x, method="Nelder-Mead", options=options) for x in starts),
        key=lambda result: result.fun,
    )
    # The dense search is in log variances: a component of 0 it only approaches.
    assert fit.loglik == pytest.approx(-best.fun, abs=1e-4)
    assert fit.loglik >= -best.fun - 1e-7
    np.testing.assert_allclose([fit.s2_g, fit.s2_p, fit.s2_e], np.exp(best.x), atol=2e-3)
    assert fit.repeatability == pytest.approx(fit.h2 + fit.s2_p / fit.s2)
    assert fit.vg_over_vp == pytest.approx(fit.s2_g / (fit.s2_g + fit.s2_p + fit.s2_e))


def test_standard_errors_are_those_of_the_dense_likelihood():
    model = make(3, seed=1, n=120)
    fit = model.reml()
    assert not fit.boundary
    assert "SE" in str(fit)
    x = np.array([fit.s2_g, fit.s2_p, fit.s2_e])

    loglik = dense_reml(model)

    H, step = np.empty((3, 3)), 0.01 * x
    for i in range(3):
        for j in range(3):
            di, dj = np.eye(3)[i] * step, np.eye(3)[j] * step
            corners = loglik(*x + di + dj) - loglik(*x + di - dj) - loglik(*x - di + dj)
            H[i, j] = (corners + loglik(*x - di - dj)) / (4 * step[i] * step[j])
    V = np.linalg.inv(-H)
    scaled = x * [fit.kappa, 1, 1]
    slope = np.array([fit.kappa, 0, 0]) / fit.s2 - scaled[0] / fit.s2**2 * np.array(
        [fit.kappa, 1, 1]
    )
    expected = [*np.sqrt(np.diagonal(V)), np.sqrt(slope @ V @ slope)]
    # Finite differences with a step of 1%.
    np.testing.assert_allclose(
        [fit.s2_g_se, fit.s2_p_se, fit.s2_e_se, fit.h2_se], expected, rtol=0.02
    )


@pytest.mark.calibration
def test_reml_finds_the_simulated_truth():
    z = []
    for seed in range(6):
        records, ped = simulate(300, 3, seed)
        fit = bl.RepeatedLMM("weight ~ age", records, ped, id="animal").reml()
        z += [
            (fit.s2_e - 0.5) / fit.s2_e_se,
            (fit.repeatability - 1.7 / 2.2) / fit.repeatability_se,
        ]
        z += [(fit.b.estimate["age"] - 0.5) / fit.b.se["age"]]
        if not fit.boundary:
            z += [(fit.s2_g - 1) / fit.s2_g_se]
    z = np.array(z)[np.isfinite(z)]
    assert np.abs(z).max() < 4
    assert np.mean(z**2) < 2.5


def test_boundary():
    rng = np.random.default_rng(3)
    records, ped = simulate(40, 3)
    records["weight"] = rng.normal(size=len(records)) + records.groupby("animal").age.transform(
        "max"
    )
    fits = [bl.RepeatedLMM("weight ~ 1", records, ped, id="animal").reml() for _ in range(2)]
    records["weight"] = rng.normal(size=len(records))
    fits.append(bl.RepeatedLMM("weight ~ 1", records, ped, id="animal").reml())
    at_zero = [fit for fit in fits if fit.boundary]
    assert at_zero
    for fit in at_zero:
        assert "share = 0" in fit.boundary
        assert np.isnan(fit.h2_se)
        assert fit.boundary in str(fit)
        assert fit.boundary in fit._repr_html_()


# -- the generative model -----------------------------------------------------------------------


def log_density(model, point, names):
    """log density of some variables of a PyMC model at values of its free variables."""
    pymc_model = model.pymc_model()
    function = pymc_model.compile_logp(vars=[pymc_model[name] for name in names], jacobian=False)
    values = {}
    for variable in pymc_model.free_RVs:
        value = pymc_model.rvs_to_values[variable]
        transform = pymc_model.rvs_to_transforms[variable]
        x = np.asarray(point[variable.name], dtype=float)
        if transform is not None:
            x = transform.forward(x, *variable.owner.inputs).eval()
        values[value.name] = x
    return float(function(values))


@pytest.mark.parametrize("counts", [BALANCED, UNBALANCED], ids=["balanced", "unbalanced"])
def test_density_of_the_eigenbasis_form(counts, rng):
    model = make(counts)
    data = model_records(model)
    t, f, sd, b_std = 0.7, 0.4, 1.5, np.array([0.03, -0.2])
    arrays = model_arrays(model)
    w_scale = arrays.get("w_scale", np.empty(0))
    z = rng.normal(size=len(w_scale))
    point = {"repeatability": t, "genetic_part": f, "sd": sd, "b_std": b_std, "w_z": z}
    fewer = ["w_z"] if len(z) else []
    found = log_density(model, point, ["y_means_rotated", "within", *fewer])

    kappa, s2 = model.basis.kappa, sd**2
    s2_e = s2 * (1 - t)
    V = covariance(model, s2 * t * f / kappa, s2 * t * (1 - f), s2_e)
    mean = data.C @ (b_std * data.sd_y / data.C_scale)
    scale = np.sqrt(s2_e) * w_scale  # w is part of the mean of its individual's residuals
    Z = matrices(model)[0][:, np.flatnonzero(model.counts < model.counts.max())]
    both = np.block([[V, Z * scale**2], [(Z * scale**2).T, np.diag(scale**2)]])
    joint = stats.multivariate_normal(np.append(mean, 0 * z), both)
    expected = joint.logpdf(np.append(data.y, scale * z)) + np.log(scale).sum()
    assert found == pytest.approx(expected, abs=1e-8)


def test_explicit_form(rng):
    model = make(UNBALANCED)
    explicit = model.pymc_model("explicit")
    assert {v.name for v in explicit.deterministics} >= {
        "u",
        "p",
        "h2",
        "s2_g",
        "s2_p",
        "s2_e",
        "b",
    }
    point = explicit.initial_point()
    assert np.isfinite(explicit.compile_dlogp()(point)).all()  # K is singular
    point |= {"z_u": rng.normal(size=30), "z_p": rng.normal(size=30)}
    y, u, p, s2_e = explicit["y"], explicit["u"], explicit["p"], explicit["s2_e"]
    nodes = explicit.replace_rvs_by_values([u, p, s2_e])
    values = explicit.compile_fn(nodes, inputs=explicit.value_vars, on_unused_input="ignore")
    u, p, s2_e = values(point)
    expected = stats.norm(((u + p)[model.owner_index]), np.sqrt(s2_e)).logpdf(
        model_records(model).y
    )
    assert explicit.compile_logp(vars=[y])(point) == pytest.approx(expected.sum(), abs=1e-9)
    with pytest.raises(InputError, match="'marginal' is unknown"):
        model.pymc_model("marginal")


@pytest.mark.parametrize("counts", [BALANCED, UNBALANCED], ids=["balanced", "unbalanced"])
def test_conditional_draws_equal_dense(counts):
    model, draws = make(counts), 40_000
    rng = np.random.default_rng(1)
    s2_g, s2_p, s2_e, b = 0.9, 0.6, 0.5, np.array([9.0, 0.4])
    Z, K, C = matrices(model)
    n, r = len(K), model.counts.to_numpy()
    V = covariance(model, s2_g, s2_p, s2_e)
    residual = model.y - C @ b
    fewer = np.flatnonzero(r < r.max())
    var_w = s2_e * (1 / r[fewer] - 1 / r.max())
    with_w = Z[:, fewer] * var_w
    gain = with_w.T @ np.linalg.inv(V)
    w = None
    if len(fewer):
        w = stats.multivariate_normal(gain @ residual, np.diag(var_w) - gain @ with_w).rvs(
            draws, rng
        )
    full = [np.full(draws, x) for x in (s2_g, s2_p, s2_e)]
    u, p = draw_effects(model, *full, np.tile(b, (draws, 1)), w, rng)

    prior = np.block([[s2_g * K, np.zeros((n, n))], [np.zeros((n, n)), s2_p * np.eye(n)]])
    gain = prior @ np.vstack([Z.T, Z.T]) @ np.linalg.inv(V)
    mean, cov = gain @ residual, prior - gain @ np.hstack([Z, Z]) @ prior
    found = np.hstack([u, p])
    # 60 means, 5 standard errors; covariances have relative error 1 / sqrt(draws).
    error = np.sqrt(np.diagonal(cov) / draws)
    assert (np.abs(found.mean(axis=0) - mean) < 5 * error + 1e-9).all()
    np.testing.assert_allclose(np.cov(found.T), cov, atol=6 * cov.max() / np.sqrt(draws))


@pytest.mark.golden
def test_mrode_repeatability_model():
    """Mrode (2014), example 4.1: fat yield of five cows, s2 = 20, 12 and 28; three decimals."""
    ped = bl.pedigree(
        pd.DataFrame(
            {"id": [4, 5, 6, 7, 8], "sire": [1, 3, 1, 3, 1], "dam": [2, 2, 5, 4, 7]},
        ),
        monoecious=True,
    )
    records = pd.DataFrame(
        {
            "cow": np.repeat([4, 5, 6, 7, 8], 2),
            "parity": ["1", "2"] * 5,
            "hys2": [0.0, 0, 0, 0, 1, 0, 0, 0, 1, 0],
            "hys4": [0.0, 0, 0, 1, 0, 0, 0, 0, 0, 1],
            "fat": [201.0, 280, 150, 200, 160, 190, 180, 250, 285, 300],
        }
    )
    model = bl.RepeatedLMM("fat ~ 0 + parity + hys2 + hys4", records, ped, id="cow")
    V = covariance(model, 20, 12, 28)
    b, _ = dense.gls(model.y, model.C.to_numpy(), V)
    u = pd.Series(
        [10.148, -3.084, -7.063, 13.581, -18.207, -18.387, 9.328, 24.194], list("12345678")
    )
    shift = u[list("45678")].mean()
    np.testing.assert_allclose(b, [175.472 + shift, 241.893 + shift, 44.065, 0.013], atol=2e-3)
    draws = 40_000
    full = [np.full(draws, x) for x in (20.0, 12.0, 28.0)]
    found = draw_effects(model, *full, np.tile(b, (draws, 1)), None, np.random.default_rng(1))
    permanent = [8.417, -7.146, -17.229, -1.390, 17.347]
    # sd of u and p given y below 4.5: 5 standard errors of 40,000 draws are 0.11
    np.testing.assert_allclose(found[0].mean(axis=0), u[list("45678")] - shift, atol=0.12)
    np.testing.assert_allclose(found[1].mean(axis=0), permanent, atol=0.12)


# -- sampling -------------------------------------------------------------------------------------


def grid_posterior(model):
    """Means and sds of h2, repeatability and s2 by summation over a grid; balanced, y ~ 1."""
    Z, K, _ = matrices(model)
    n, N, sd_y = len(K), len(model.y), np.std(model.y)
    y = model.y - model.y.mean()
    grid = (np.arange(60) + 0.5) / 60
    sd = np.linspace(0.3, 4, 120) * sd_y
    log_p = np.empty((60, 60, 120))
    one = np.full(N, 1 / np.sqrt(N))
    for i, t in enumerate(grid):
        genetic = (K / model.basis.kappa)[None] * t * grid[:, None, None]
        R = Z @ (genetic + np.eye(n) * (t * (1 - grid))[:, None, None]) @ Z.T
        R += (1 - t) * np.eye(N)
        Q = np.linalg.solve(R, y[:, None])[..., 0] @ y
        logdet = (N - 1) * np.log(sd**2) + np.linalg.slogdet(R)[1][:, None]
        levels = (R @ one @ one)[:, None]  # the constant is an eigenvector of R
        logdet += np.log(sd**2 * levels + N * 100 * sd_y**2) - np.log(levels)  # b ~ N(0, 10 sd(y))
        log_p[i] = -0.5 * (logdet + Q[:, None] / sd**2) + stats.beta(2, 1).logpdf(t)
    log_p += stats.t(4, scale=sd_y).logpdf(sd)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    t, f, sd = np.meshgrid(grid, grid, sd, indexing="ij")
    out = {}
    for name, x in {"h2": t * f, "repeatability": t, "s2": sd**2}.items():
        mean = (p * x).sum()
        out[name] = (mean, np.sqrt((p * x**2).sum() - mean**2))
    return out


@pytest.fixture(scope="module")
def balanced_draws():
    model = make(3, seed=2, n=18, formula="weight ~ 1")
    return model, model.sample(2000, chains=2, seed=1, u=True, p=True)


def test_sample_equals_summation_over_a_grid(balanced_draws):
    from arviz_stats.base import array_stats

    model, tree = balanced_draws
    posterior = tree["posterior"].dataset
    for name, (mean, sd) in grid_posterior(model).items():
        draws = posterior[name].to_numpy()
        ess = array_stats.ess(draws)
        assert ess > 400
        assert draws.mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(ess)), name
        assert draws.std() == pytest.approx(sd, rel=0.12), name


def test_what_sample_returns(balanced_draws):
    model, tree = balanced_draws
    posterior = tree["posterior"].dataset
    s2 = posterior.s2_g * model.basis.kappa + posterior.s2_p + posterior.s2_e
    np.testing.assert_allclose(s2, posterior.s2)
    np.testing.assert_allclose(posterior.share.sum("part"), 1)
    np.testing.assert_allclose(posterior.share.sel(part="genetic"), posterior.h2)
    np.testing.assert_allclose(
        posterior.vg_over_vp, posterior.s2_g / (posterior.s2_g + posterior.s2_p + posterior.s2_e)
    )
    assert posterior.u.dims == ("chain", "draw", "individual")
    assert list(posterior.individual.to_numpy()) == list(model.individuals)
    # u, p and the residual share the variance of the records.
    np.testing.assert_allclose(
        (posterior.u + posterior.p).mean(("chain", "draw")).to_numpy() + float(posterior.b.mean()),
        model.regression.y @ matrices(model)[0] / 3,
        atol=0.8,
    )
    assert list(tree["constant_data"].dataset.individual.to_numpy()) == [
        label.split(" #")[0] for label in model.C.index
    ]
    assert tree.attrs["seed"] == 1
    assert tree.attrs["n_individuals"] == 18


def test_random_effects_of_everybody(balanced_draws):
    model, tree = balanced_draws
    u = tree["posterior"].dataset.u
    own = model.random_effects(tree)
    np.testing.assert_allclose(own.u_mean, u.mean(("chain", "draw")), atol=1e-8)
    np.testing.assert_allclose(own.u_sd, u.std(("chain", "draw")), rtol=1e-6)
    everybody = model.random_effects(tree, "all")
    assert list(everybody.index) == list(model._kernel.samples)
    np.testing.assert_allclose(everybody.u_mean[own.index], own.u_mean, atol=1e-8)
    # A parent without record: E(u* | u) = k* K^+ u, relative to the mean of those with records.
    A = model._kernel.matrix
    with_records = model._kernel.samples.get_indexer(model.individuals)
    k = A[:, with_records]
    solved = np.linalg.solve(A[np.ix_(with_records, with_records)], np.ones(18))
    weights = k @ np.linalg.inv(A[np.ix_(with_records, with_records)])
    weights += np.outer(1 - weights.sum(axis=1), solved / solved.sum())  # flat mean
    expected = weights @ u.mean(("chain", "draw")).to_numpy()
    np.testing.assert_allclose(everybody.u_mean, expected, atol=1e-6)
    del tree["posterior"]["u"]
    with pytest.raises(InputError, match="u=True"):
        model.random_effects(tree)


def test_second_model_of_the_shape_is_not_compiled(monkeypatch):
    import nutpie

    model = make(3, seed=3, n=24, formula="weight ~ 1")
    monkeypatch.setattr(nutpie, "compile_pymc_model", None)
    tree = model.sample(1000, chains=1, seed=4)
    fit = model.reml()
    assert float(tree["posterior"].s2_e.mean()) == pytest.approx(fit.s2_e, rel=0.3)
    assert float(tree["posterior"].b.mean()) == pytest.approx(fit.b.estimate.iloc[0], rel=0.1)


@pytest.mark.slow
def test_sample_unbalanced():
    records, ped = simulate(60, unequal(60), 1)
    model = bl.RepeatedLMM("weight ~ age", records, ped, id="animal")
    tree = model.sample(800, chains=2, seed=1, u=True)
    posterior, fit = tree["posterior"].dataset, model.reml()
    assert float(posterior.b.sel(covariate="age").mean()) == pytest.approx(
        fit.b.estimate["age"], abs=0.3 * fit.b.se["age"]
    )
    assert float(posterior.s2_e.mean()) == pytest.approx(fit.s2_e, rel=0.15)
    assert float(posterior.repeatability.mean()) == pytest.approx(fit.repeatability, abs=0.08)
    assert posterior.u.shape == (2, 800, 60)
    Z, K, C = matrices(model)
    V = covariance(model, fit.s2_g, fit.s2_p, fit.s2_e)
    blup = fit.s2_g * K @ Z.T @ np.linalg.solve(V, model.y - C @ fit.b.estimate.to_numpy())
    mean = posterior.u.mean(("chain", "draw")).to_numpy()
    assert np.corrcoef(blup, mean)[0, 1] > 0.98  # the posterior averages over the components


def test_priors_by_name():
    import pymc as pm

    model = make(BALANCED)
    with_shares = model.pymc_model(
        priors={"share": pm.Dirichlet.dist([2, 1, 4]), "s2": pm.Gamma.dist(2, 1)}
    )
    assert {v.name for v in with_shares.free_RVs} == {"share", "s2", "b_std"}
    parts = {
        "sd_g": pm.HalfNormal.dist(1),
        "s2_p": pm.Gamma.dist(2, 1),
        "sd_e": pm.HalfNormal.dist(1),
    }
    by_part = model.pymc_model(priors=parts)
    assert {v.name for v in by_part.free_RVs} == {"sd_g", "s2_p", "sd_e", "b_std"}
    s2_g, s2_p, s2_e, s2, h2, t, sd_g = pm.draw(
        [by_part[x] for x in ("s2_g", "s2_p", "s2_e", "s2", "h2", "repeatability", "sd_g")],
        random_seed=1,
    )
    assert sd_g**2 == pytest.approx(s2_g * model.basis.kappa)
    assert s2 == pytest.approx(sd_g**2 + s2_p + s2_e)
    assert h2 == pytest.approx(sd_g**2 / s2)
    assert t == pytest.approx(1 - s2_e / s2)
    halves = model.pymc_model(
        priors={"repeatability": pm.Beta.dist(5, 5), "b": pm.Normal.dist(0, 5)}
    )
    assert {v.name for v in halves.free_RVs} == {"repeatability", "genetic_part", "sd", "b"}
    for wrong, message in [
        ({"h2": None}, "Priors for 'h2': no such variable"),
        ({"sd_g": parts["sd_g"]}, "do not define the variances"),
        (parts | {"sd": parts["sd_g"]}, "do not define the variances"),
        ({"sd": 1, "s2": 1}, "contradict"),
        ({"share": 1, "repeatability": 1}, "share is one on repeatability"),
    ]:
        with pytest.raises(InputError, match=message):
            model.pymc_model(priors=wrong)
    with pytest.raises(InputError, match="draws must be at least 1"):
        model.sample(0)


# -- records -----------------------------------------------------------------------------------


def test_summary_loses_nothing(rng):
    X, owner = rng.normal(5, 1, size=(20, 3)), rng.permutation(np.arange(20) % 6)
    found = summarise(X, owner, 6)
    for i in range(6):
        np.testing.assert_allclose(found.means[i], X[owner == i].mean(axis=0))
    total = found.within + (found.means.T * found.counts) @ found.means
    np.testing.assert_allclose(total, X.T @ X)


def test_order_of_records_and_of_the_kernel():
    records, ped = simulate(30, UNBALANCED)
    fit = bl.RepeatedLMM("weight ~ age", records, ped, id="animal").reml()
    shuffled = records.sample(frac=1, random_state=9)
    K = ped.grm()
    other = bl.RepeatedLMM("weight ~ age", shuffled.set_index("animal"), K.subset(K.samples[::-1]))
    again = other.reml()
    assert again.loglik == pytest.approx(fit.loglik, abs=1e-8)
    np.testing.assert_allclose([again.h2, again.s2_p], [fit.h2, fit.s2_p], atol=1e-4)
    basis = bl.eigenbasis(ped)
    from_basis = bl.RepeatedLMM("weight ~ age", records, basis, id="animal").reml()
    assert from_basis.loglik == pytest.approx(fit.loglik, abs=1e-8)


def test_account_of_every_record(tmp_path):
    records, ped = simulate(30, BALANCED)
    records.loc[[3, 7], "weight"] = np.nan
    records.loc[5, "age"] = np.nan
    stranger = pd.DataFrame({"animal": ["zz", "zz"], "age": 1.0, "weight": 2.0})
    records = pd.concat([records, stranger], ignore_index=True)
    with pytest.raises(InputError, match="Covariates are missing for 1 "):
        bl.RepeatedLMM("weight ~ age", records, ped, id="animal")
    model = bl.RepeatedLMM("weight ~ age", records, ped, id="animal", missing="drop")
    assert len(model.records) == 92
    assert model.records.reason.value_counts().to_dict() == {
        "": 87,
        "phenotype missing": 2,
        "not in the kernel": 2,
        "covariate missing": 1,
    }
    assert model.records.index[0] == f"{records.animal[0]} #1"
    assert (model.records.individual == records.animal.to_numpy()).all()
    assert len(model.y) == 87
    assert model.counts.sum() == 87
    text = repr(model)
    assert "87 analysed" in text
    assert "2 dropped: phenotype missing" in text
    assert "2 dropped: not in the kernel" in text
    assert "individuals  30, " in text
    assert "Dirichlet(1, 1, 1)" in text
    assert "individuals  30, 3 records each" in repr(make(BALANCED))
    file = tmp_path / "records.tsv"
    records.to_csv(file, sep="\t", index=False, na_rep="NA")
    from_file = bl.RepeatedLMM("weight ~ age", file, ped, missing="drop")
    np.testing.assert_allclose(from_file.y, model.y)
    with pytest.raises(InputError, match="comes twice"):
        bl.read_phenotypes(file)


def test_numeric_ids():
    ids = np.arange(1, 31)
    ped = bl.pedigree(pd.DataFrame({"id": ids, "sire": 0, "dam": [100 + i // 3 for i in ids]}))
    rng = np.random.default_rng(1)
    records = pd.DataFrame({"id": np.repeat(ids, 2).astype(float), "y": rng.normal(size=60)})
    assert len(bl.RepeatedLMM("y ~ 1", records, ped, id="id").individuals) == 30


def test_refusals():
    records, ped = simulate(30, BALANCED)
    once = records.drop_duplicates("animal")
    with pytest.raises(InputError, match=r"Nobody of the 30 individuals has two records.*bl\.LMM"):
        bl.RepeatedLMM("weight ~ age", once, ped, id="animal")
    same = records.assign(weight=records.groupby("animal").weight.transform("mean"))
    with pytest.raises(InputError, match="do not differ"):
        bl.RepeatedLMM("weight ~ 1", same, ped, id="animal")
    twice = pd.concat([once, once.head(2)], ignore_index=True)
    with pytest.raises(InputError, match="do not differ"):
        bl.RepeatedLMM(
            "weight ~ x + z",
            twice.assign(
                weight=np.arange(32.0) ** 2, x=np.arange(32) ** 2 % 7, z=np.arange(32) ** 2 % 11
            ),
            ped,
            id="animal",
        )
    with pytest.raises(InputError, match="No individual of the records"):
        bl.RepeatedLMM(
            "weight ~ age", records.assign(animal="x" + records.animal), ped, id="animal"
        )
    with pytest.raises(InputError, match="No id column 'cow'"):
        bl.RepeatedLMM("weight ~ age", records, ped, id="cow")
    with pytest.raises(InputError, match="do not name their individuals"):
        bl.RepeatedLMM("weight ~ age", records, ped)
    with pytest.raises(InputError, match="1 of 90 records name no individual; the first is row 5"):
        bl.RepeatedLMM(
            "weight ~ age",
            records.assign(animal=records.animal.mask(records.index == 4)),
            ped,
            id="animal",
        )
    with pytest.raises(InputError, match="kernel has no sample ids"):
        bl.RepeatedLMM("weight ~ age", records, ped.grm().matrix, id="animal")
    with pytest.raises(InputError, match="no column 'height'"):
        bl.RepeatedLMM("height ~ age", records, ped, id="animal")
    centred = bl.eigenbasis(ped)
    with pytest.raises(InputError, match="center=False"):
        _ = bl.RepeatedLMM("weight ~ 0 + age", records, centred, id="animal").basis


def test_without_intercept():
    records, ped = simulate(30, UNBALANCED, mean=0)
    model = bl.RepeatedLMM("weight ~ 0 + age", records, ped, id="animal")
    assert not model.basis.centered
    fit = model.reml()
    V = covariance(model, fit.s2_g, fit.s2_p, fit.s2_e)
    assert fit.loglik == pytest.approx(dense.reml_loglik(model.y, model.C.to_numpy(), V), abs=1e-8)


# -- residuals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [BALANCED, UNBALANCED], ids=["balanced", "unbalanced"])
def test_residuals_are_those_of_the_dense_covariance(counts):
    """Each record given all others, by a covariance without it; whitened ones by its root."""
    model = make(counts)
    check, fit = model.check_residuals(), model.reml()
    V, C, y = covariance(model, fit.s2_g, fit.s2_p, fit.s2_e), model.C.to_numpy(), model.y
    for j in (0, 7, len(y) - 1):
        rest = np.arange(len(y)) != j
        inverse = np.linalg.inv(V[np.ix_(rest, rest)])
        covariance_b = np.linalg.inv(C[rest].T @ inverse @ C[rest])
        b = covariance_b @ C[rest].T @ inverse @ y[rest]
        weight = V[j, rest] @ inverse
        row = C[j] - weight @ C[rest]
        mean = C[j] @ b + weight @ (y[rest] - C[rest] @ b)
        variance = V[j, j] - weight @ V[rest, j] + row @ covariance_b @ row
        assert check.table.loo_mean.iloc[j] == pytest.approx(mean, rel=1e-9)
        assert check.table.loo_sd.iloc[j] == pytest.approx(np.sqrt(variance), rel=1e-9)
    values, vectors = np.linalg.eigh(V)
    root = (vectors / np.sqrt(values)) @ vectors.T
    whitened = root @ (y - C @ fit.b.estimate.to_numpy())
    np.testing.assert_allclose(check.table.whitened, whitened, atol=1e-9)
    assert check.table.index.equals(model.C.index)
    assert f"Residuals of {len(y):,} records at h2" in str(check)


def test_a_record_in_other_units_is_an_outlier():
    records, ped = simulate()
    records.loc[11, "weight"] *= 2.2
    model = bl.RepeatedLMM("weight ~ age", records, ped, id="animal")
    (label,) = model.check_residuals().outliers.index
    assert label.split(" #")[0] == records.animal[11]


@pytest.mark.parametrize("counts", [BALANCED, unequal(60)], ids=["balanced", "unbalanced"])
def test_components_are_shares_with_standard_errors(counts):
    """The share of the permanent environment is the difference of two; so is its error."""
    fit = make(counts, n=60).reml()
    parts = fit.components
    assert parts.share.sum() == pytest.approx(1)
    assert parts.share["permanent"] == pytest.approx(fit.repeatability - fit.h2)
    assert parts.s2.to_dict() == {"genetic": fit.s2_g, "permanent": fit.s2_p, "residual": fit.s2_e}
    # |sd(a) - sd(b)| <= sd(a - b) <= sd(a) + sd(b), whatever their correlation
    low, high = abs(fit.h2_se - fit.repeatability_se), fit.h2_se + fit.repeatability_se
    assert low <= parts.share_se["permanent"] <= high
