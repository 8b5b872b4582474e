"""NUTS against the exact posterior, and what comes back with the draws.

Compiling a model costs seconds: tests share models (module fixtures) and shapes.
"""

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
from dense import CASES, centred
from scipy import stats

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.generative import sampling
from bayeslmm.generative.sampling import SamplingWarning, sample_model
from bayeslmm.model.conditional import Conditional
from bayeslmm.model.snps import selected_snps

# Scaled inverse chi-squared on s2, and flat covariate effects, in both samplers. The same
# objects everywhere: the compiled model is kept for them.
NU, TAU2 = 3.0, 0.7
MATCHING = {
    "s2": pm.InverseGamma.dist(NU / 2, NU * TAU2 / 2),
    "b": pm.Flat.dist(),
}


@pytest.fixture(scope="module")
def kernel(mice):
    return bl.grm(mice.genotypes)


def simulated(n, h2, seed=11):
    """Unrelated and rank-deficient: n samples, n / 2 variants, one covariate with mean 5."""
    rng = np.random.default_rng([seed, n])
    x = rng.binomial(2, rng.uniform(0.1, 0.5, n // 2), size=(n, n // 2)).astype(float)
    ids = [f"s{i}" for i in range(n)]
    genotypes = bl.Genotypes.from_array(x, ids)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    age = rng.normal(5, 2, size=n)
    u = z @ rng.normal(size=z.shape[1]) / np.sqrt(z.shape[1])
    y = 10 + 0.3 * age + np.sqrt(h2) * u + np.sqrt(1 - h2) * rng.normal(size=n)
    table = pd.DataFrame({"y": y, "age": age}, index=ids)
    return table, genotypes


@pytest.fixture(scope="module")
def cohort():
    table, genotypes = simulated(300, 0.5)
    return table, genotypes, bl.grm(genotypes, dtype="float64")


@pytest.fixture(scope="module")
def tree(cohort):
    """One fit with everything in it."""
    table, _, K = cohort
    return bl.LMM("y ~ age", table, K).sample(draws=300, seed=5, u=True, posterior_predictive=True)


def within_monte_carlo_error(nuts, exact, names, limit=4):
    """Means and sds of both within `limit` standard errors of their difference."""
    for name in names:
        a = nuts["posterior"][name].to_numpy()
        b = exact["posterior"][name].to_numpy()
        for j in range(int(np.prod(a.shape[2:]))):
            aj, bj = a.reshape(*a.shape[:2], -1)[..., j], b.reshape(*b.shape[:2], -1)[..., j]
            for method, statistic in (("mean", np.mean), ("sd", np.std)):
                error = np.hypot(az.mcse(aj, method=method), az.mcse(bj, method=method))
                gap = abs(statistic(aj) - statistic(bj))
                assert gap < limit * error, (name, j, method, gap, error)


PARAMETERS = ["h2", "s2", "s2_g", "s2_e", "b"]


@pytest.mark.algebra
@pytest.mark.parametrize("phenotype", ["cd8", "mch"])
def test_nuts_equals_the_exact_posterior_on_mice(mice, kernel, phenotype):
    model = bl.LMM(f"{phenotype} ~ sex", mice.phenotypes, kernel)
    nuts = model.sample(priors=MATCHING, draws=1500, seed=3, log_likelihood=False)
    exact = model.posterior(40_000, s2_prior=(NU, TAU2), seed=1)
    within_monte_carlo_error(nuts, exact, PARAMETERS)
    # The moments of h2 by quadrature too, without any simulation error of theirs.
    h2 = nuts["posterior"]["h2"].to_numpy()
    density = model.h2_posterior(s2_prior=(NU, TAU2))
    assert abs(h2.mean() - density.mean) < 4 * az.mcse(h2, method="mean")
    assert abs(h2.std() - density.sd) < 4 * az.mcse(h2, method="sd")


@pytest.mark.algebra
@pytest.mark.parametrize("h2", [0.02, 0.5, 0.95])
def test_nuts_equals_the_exact_posterior_at_any_h2(h2):
    table, genotypes = simulated(400, h2)
    model = bl.LMM("y ~ age", table, bl.grm(genotypes))
    nuts = model.sample(priors=MATCHING, draws=2000, seed=4, log_likelihood=False)
    exact = model.posterior(40_000, s2_prior=(NU, TAU2), seed=2)
    within_monte_carlo_error(nuts, exact, PARAMETERS)


@pytest.mark.algebra
def test_default_priors_are_nearly_the_exact_posterior(cohort, tree):
    """Wide normal b and half-t sd change next to nothing at n = 300."""
    table, _, K = cohort
    exact = bl.LMM("y ~ age", table, K).posterior(20_000, seed=1)
    for name in PARAMETERS:
        a, b = tree["posterior"][name], exact["posterior"][name]
        gap = np.abs(a.mean(("chain", "draw")) - b.mean(("chain", "draw")))
        assert (gap < 0.25 * b.std(("chain", "draw"))).all(), name


@pytest.mark.algebra
def test_any_density_of_h2_agrees_with_the_exact_posterior(cohort):
    table, _, K = cohort
    model = bl.LMM("y ~ age", table, K, h2_prior=lambda h2: np.exp(-30 * (h2 - 0.2) ** 2))
    priors = {"b": MATCHING["b"], "s2": MATCHING["s2"]}
    nuts = model.sample(priors=priors, draws=1500, seed=3, log_likelihood=False)
    exact = model.posterior(40_000, s2_prior=(NU, TAU2), seed=1)
    within_monte_carlo_error(nuts, exact, PARAMETERS)


@pytest.mark.slow
@pytest.mark.algebra
def test_explicit_form_has_the_same_posterior():
    """NUTS over u itself, n = 40, against the eigenbasis form."""
    table, genotypes = simulated(40, 0.5)
    model = bl.LMM("y ~ age", table, bl.grm(genotypes))
    explicit = sample_model(
        model.pymc_model("explicit"), draws=2500, tune=1000, target_accept=0.95, seed=1
    )
    marginal = model.sample(draws=4000, seed=2, u=True)
    within_monte_carlo_error(explicit, marginal, PARAMETERS)
    # And the draws of u given the others are those of the model that has u.
    a, b = explicit["posterior"]["u"], marginal["posterior"]["u"]
    spread = b.std(("chain", "draw")).to_numpy()
    gap = (a.mean(("chain", "draw")) - b.mean(("chain", "draw"))).to_numpy()
    assert np.abs(gap / spread).max() < 0.15
    ratio = (a.std(("chain", "draw")) / b.std(("chain", "draw"))).to_numpy()
    assert np.abs(ratio - 1).max() < 0.1


# -- one compilation for each shape --------------------------------------------------------------


@pytest.fixture
def compilations(monkeypatch):
    made = []

    class Counted(sampling.Density):
        def __init__(self, *args):
            made.append(args)
            super().__init__(*args)

    monkeypatch.setattr(sampling, "Density", Counted)
    return made


def test_the_same_shape_is_compiled_once(cohort, tree, compilations):
    """Another phenotype, another n, other names: new data for the compiled model."""
    table, genotypes = simulated(220, 0.5, seed=3)
    table = table.rename(columns={"age": "weight", "y": "height"})
    model = bl.LMM("height ~ weight", table, bl.grm(genotypes))
    again = model.sample(draws=600, seed=1)
    assert not compilations
    assert list(again["posterior"].covariate.to_numpy()) == ["Intercept", "weight"]
    assert list(again["log_likelihood"].sample.to_numpy()) == list(model.ids)
    assert again["observed_data"]["y"].size == 220
    exact = model.posterior(20_000, seed=1)
    for name in ("h2", "s2", "b"):
        a, b = again["posterior"][name], exact["posterior"][name]
        gap = np.abs(a.mean(("chain", "draw")) - b.mean(("chain", "draw")))
        assert (gap < 0.25 * b.std(("chain", "draw"))).all(), name
    # Whatever order they come in, models do not mix.
    first, _, K = cohort
    same = bl.LMM("y ~ age", first, K).sample(draws=300, seed=5)
    assert not compilations
    for name in ("h2", "s2", "b"):
        np.testing.assert_array_equal(same["posterior"][name], tree["posterior"][name])


def test_the_same_priors_are_compiled_once(cohort, compilations):
    table, _, K = cohort
    model = bl.LMM("y ~ age", table, K)
    model.sample(priors=MATCHING, draws=600, seed=1)
    so_far = len(compilations)
    assert so_far <= 1
    model.sample(priors=dict(reversed(MATCHING.items())), draws=600, seed=1)
    assert len(compilations) == so_far
    # A prior with data in it, or a function, is compiled anew.
    import pytensor

    width = pytensor.shared(np.array(2.0))
    assert not sampling.is_constant(pm.Beta.dist(width, 5))
    assert not sampling.is_constant(lambda name: pm.Beta(name, 2, 5))
    assert sampling.is_constant(MATCHING["s2"])


def test_the_width_of_a_normal_prior_is_data(cohort, compilations):
    table, genotypes, K = cohort
    model = bl.LMM("y ~ age", table, K)
    ids = list(genotypes.variants.id[:2])
    spread = []
    for phi in (0.3, 0.001):
        tree = model.sample(ids, bl.priors.Normal(phi), draws=500, seed=1)
        spread.append(float(tree["posterior"]["beta_std"].std()))
    assert len(compilations) <= 1
    assert spread[0] > 0.02
    assert spread[1] == pytest.approx(0.001, rel=0.1)


def test_snp_ids_are_those_of_the_second_model(cohort, compilations):
    """Two models with two SNPs: one compilation, each with its own ids, alleles and data."""
    table, genotypes, K = cohort
    model = bl.LMM("y ~ age", table, K)
    ids = list(genotypes.variants.id)
    trees = [model.sample(snps=s, draws=500, seed=1) for s in (ids[:2], [ids[7], ids[4]])]
    assert len(compilations) <= 1
    for tree, wanted in zip(trees, (ids[:2], [ids[7], ids[4]]), strict=True):
        assert list(tree["posterior"].snp.to_numpy()) == wanted
        snps = selected_snps(model, wanted)
        np.testing.assert_array_equal(tree["constant_data"]["X"], snps.x)
        # Least squares on the SNPs is near the posterior mean, and far from the other's.
        beta = tree["posterior"]["beta"].mean(("chain", "draw")).to_numpy()
        sd = tree["posterior"]["beta"].std(("chain", "draw")).to_numpy()
        direct = gls_effects(model, snps.x)
        assert (np.abs(beta - direct) < 0.5 * sd).all()


def gls_effects(model, x):
    """Effects of x by generalised least squares at the REML estimate, dense."""
    fit = model.reml()
    K = (model.basis.vectors * model.basis.values) @ model.basis.vectors.T
    V = fit.s2_g * K + fit.s2_e * np.eye(len(K))
    D = np.column_stack([model.C.to_numpy(), x])
    return np.linalg.solve(D.T @ np.linalg.solve(V, D), D.T @ np.linalg.solve(V, model.y))[
        model.C.shape[1] :
    ]


# -- what comes back ------------------------------------------------------------------------------


def test_groups_and_attributes(cohort, tree):
    table, _, K = cohort
    assert set(tree.children) == {
        "posterior", "sample_stats", "observed_data", "constant_data", "log_likelihood",
        "posterior_predictive",
    }  # fmt: skip
    posterior = tree["posterior"].dataset
    assert dict(posterior.sizes) == {"chain": 4, "draw": 300, "covariate": 2, "sample": 300}
    assert {"h2", "sd", "s2", "s2_g", "s2_e", "b", "u"} == set(posterior.data_vars)
    assert list(posterior.covariate.to_numpy()) == ["Intercept", "age"]
    np.testing.assert_array_equal(tree["observed_data"]["y"], table["y"])
    np.testing.assert_array_equal(tree["constant_data"]["C"][:, 1], table["age"])
    assert "diverging" in tree["sample_stats"]
    attrs = tree.attrs
    kappa = np.trace(centred(K.matrix)) / 300
    assert attrs["seed"] == 5
    assert attrs["n"] == 300
    assert attrs["kappa"] == pytest.approx(kappa)
    assert attrs["formula"] == "y ~ age"
    assert attrs["h2_prior"] == "Uniform(0, 1)"
    assert attrs["snp_prior"] == "no SNPs"
    assert attrs["sampler"] == "nutpie NUTS"
    assert (attrs["draws"], attrs["chains"]) == (300, 4)
    assert "bayeslmm" in attrs["created_by"]
    # Attributes that every file format can store.
    assert all(isinstance(v, str | int | float | list) for v in attrs.values())
    v = {name: posterior[name].to_numpy() for name in ("h2", "s2", "sd", "s2_g", "s2_e")}
    np.testing.assert_allclose(v["sd"] ** 2, v["s2"])
    np.testing.assert_allclose(v["s2_g"] * kappa, v["s2"] * v["h2"])
    np.testing.assert_allclose(v["s2_e"], v["s2"] * (1 - v["h2"]))


def test_seed(cohort):
    table, _, K = cohort
    model = bl.LMM("y ~ age", table, K)
    options = {"draws": 400, "u": True, "posterior_predictive": True}
    a, b = (model.sample(seed=1, **options) for _ in range(2))
    for group in ("posterior", "log_likelihood", "posterior_predictive"):
        assert a[group].dataset.drop_attrs().equals(b[group].dataset.drop_attrs())
    free = model.sample(draws=400)
    again = model.sample(draws=400, seed=free.attrs["seed"])
    np.testing.assert_array_equal(free["posterior"]["h2"], again["posterior"]["h2"])
    assert not np.array_equal(free["posterior"]["h2"], a["posterior"]["h2"])


@pytest.mark.algebra
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[6]], ids=lambda c: c.name)
@pytest.mark.parametrize("k", [0, 2])
def test_log_likelihood_leaves_one_out(case, k):
    """Against the dense conditional normal of each individual given the others."""
    model, draws, snps = arbitrary_draws(case, k)
    found = Conditional(model, draws, snps).log_likelihood()
    expected, joint = dense_log_likelihoods(model, draws, snps)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(
        Conditional(model, draws, snps).joint_log_likelihood(), joint, rtol=1e-10
    )


@pytest.mark.algebra
@pytest.mark.parametrize("span", [0.0, 0.5, 8.0])
def test_log_likelihood_of_many_draws_is_interpolated(cohort, span):
    """With more draws than nodes: the same to 1e-10, over a narrow or wide range of h2."""
    table, _, K = cohort
    model = bl.LMM("y ~ age", table, K)
    rng = np.random.default_rng(0)
    logit = 0.3 + span * (rng.random(500) - 0.5)
    h2 = 1 / (1 + np.exp(-logit))
    draws = as_dataset(h2, rng.gamma(20, 0.05, 500), rng.normal(size=(500, 2)), model)
    conditional = Conditional(model, draws, selected_snps(model, None))
    nodes = conditional._ratio_nodes()
    assert len(nodes) * 4 < 300
    direct = Conditional(model, draws, selected_snps(model, None))
    direct._ratio_nodes = lambda: np.empty(10**6)
    np.testing.assert_allclose(
        conditional.log_likelihood(), direct.log_likelihood(), rtol=1e-10, atol=1e-10
    )


def test_log_likelihood_at_the_ends_of_h2():
    """h2 = 0 exactly (a point mass in the prior), and next to 1."""
    model, _, snps = arbitrary_draws(CASES[0], 0)
    h2 = np.array([0.0, 0.0, 1e-9, 0.3, 1 - 1e-6])
    draws = as_dataset(h2, np.ones(5), np.zeros((5, 2)), model)
    found = Conditional(model, draws, snps).log_likelihood()
    expected, _ = dense_log_likelihoods(model, draws, snps)
    np.testing.assert_allclose(found[:4], expected[:4], rtol=1e-8)
    np.testing.assert_allclose(found[4], expected[4], rtol=1e-5)  # cond(V) is 1e8


def arbitrary_draws(case, k, d=12):
    y, C, K = case.make()
    ids = [f"i{j}" for j in range(len(y))]
    covariates = pd.DataFrame(C[:, 1:], index=ids, columns=[f"c{j}" for j in range(1, case.c)])
    model = bl.LMM(pd.Series(y, ids, name="y"), covariates, bl.GRM(K, samples=ids))
    rng = np.random.default_rng(4)
    x = rng.binomial(2, 0.4, size=(len(y), 2)).astype(float)
    snps = selected_snps(model, pd.DataFrame(x, ids, ["a", "b"]) if k else None)
    draws = as_dataset(rng.random(d), rng.gamma(2, 1, d), rng.normal(size=(d, C.shape[1])), model)
    if k:
        draws["beta"] = (("chain", "draw", "snp"), rng.normal(size=(1, d, 2)))
    return model, draws, snps


def as_dataset(h2, s2, b, model):
    import xarray as xr

    dims = ("chain", "draw")
    return xr.Dataset(
        {
            "s2_g": (dims, (s2 * h2 / model.basis.kappa)[None]),
            "s2_e": (dims, (s2 * (1 - h2))[None]),
            "b": ((*dims, "covariate"), b[None]),
        }
    )


def dense_log_likelihoods(model, draws, snps):
    """log p(y_i | y_-i) by refitting each conditional, and log p(y), for each draw."""
    n = len(model.y)
    K = (model.basis.vectors * model.basis.values) @ model.basis.vectors.T
    out, joint = np.empty((draws.sizes["draw"], n)), np.empty(draws.sizes["draw"])
    for d in range(draws.sizes["draw"]):
        one = draws.isel(chain=0, draw=d)
        V = float(one.s2_g) * K + float(one.s2_e) * np.eye(n)
        mean = model.C.to_numpy() @ one.b.to_numpy()
        if len(snps.ids):
            mean = mean + snps.x @ one.beta.to_numpy()
        e = model.y - mean
        joint[d] = stats.multivariate_normal(mean, V).logpdf(model.y)
        for i in range(n):
            rest = np.arange(n) != i
            weights = np.linalg.solve(V[np.ix_(rest, rest)], V[rest, i])
            variance = V[i, i] - V[i, rest] @ weights
            out[d, i] = stats.norm(weights @ e[rest], np.sqrt(variance)).logpdf(e[i])
    return out, joint


def test_works_with_loo(tree):
    loo = az.loo(tree)
    assert loo.n_data_points == 300
    assert (loo.pareto_k < 0.7).all()


def test_log_likelihood_is_on_request_when_large(cohort, monkeypatch):
    table, _, K = cohort
    model = bl.LMM("y ~ age", table, K)
    monkeypatch.setattr(sampling, "_LOGLIK_BY_DEFAULT", 1000)
    assert "log_likelihood" not in model.sample(draws=400, seed=1).children
    assert "log_likelihood" in model.sample(draws=400, seed=1, log_likelihood=True).children


@pytest.mark.algebra
def test_draws_of_u_have_the_dense_conditional_moments():
    model, draws, snps = arbitrary_draws(CASES[1], 2, d=1)
    many = draws.isel(draw=np.zeros(40_000, dtype=int))
    u = Conditional(model, many, snps).draw_u(np.random.default_rng(1))
    one = draws.isel(chain=0, draw=0)
    K = (model.basis.vectors * model.basis.values) @ model.basis.vectors.T
    s2_g, s2_e = float(one.s2_g), float(one.s2_e)
    V = s2_g * K + s2_e * np.eye(len(K))
    e = model.y - model.C.to_numpy() @ one.b.to_numpy() - snps.x @ one.beta.to_numpy()
    mean = s2_g * K @ np.linalg.solve(V, e)
    covariance = s2_g * K - s2_g**2 * K @ np.linalg.solve(V, K)
    scale = np.sqrt(np.diag(covariance))
    # 40 means and 820 covariances from 40,000 draws: 5 standard errors.
    assert np.abs((u.mean(axis=0) - mean) / scale).max() < 5 / np.sqrt(40_000)
    gap = (np.cov(u.T) - covariance) / np.outer(scale, scale)
    assert np.abs(gap).max() < 5 * np.sqrt(2 / 40_000)


@pytest.mark.algebra
def test_replicates_have_the_dense_moments():
    model, draws, snps = arbitrary_draws(CASES[0], 2, d=1)
    many = draws.isel(draw=np.zeros(40_000, dtype=int))
    y = Conditional(model, many, snps).replicate(np.random.default_rng(1))
    one = draws.isel(chain=0, draw=0)
    K = (model.basis.vectors * model.basis.values) @ model.basis.vectors.T
    V = float(one.s2_g) * K + float(one.s2_e) * np.eye(len(K))
    mean = model.C.to_numpy() @ one.b.to_numpy() + snps.x @ one.beta.to_numpy()
    scale = np.sqrt(np.diag(V))
    assert np.abs((y.mean(axis=0) - mean) / scale).max() < 5 / np.sqrt(40_000)
    gap = (np.cov(y.T) - V) / np.outer(scale, scale)
    assert np.abs(gap).max() < 5 * np.sqrt(2 / 40_000)


def test_posterior_predictive_looks_like_the_data(cohort, tree):
    y = cohort[0]["y"].to_numpy()
    replicated = tree["posterior_predictive"]["y"].to_numpy()
    assert replicated.shape == (4, 300, 300)
    means, sds = replicated.mean(axis=2), replicated.std(axis=2)
    assert means.mean() == pytest.approx(y.mean(), abs=4 * means.std() / np.sqrt(600))
    assert 0.05 < (sds > y.std()).mean() < 0.95


# -- the sampler, its checks -----------------------------------------------------------------------


def test_few_draws_warn_and_say_what_to_do(cohort):
    table, _, K = cohort
    with pytest.warns(SamplingWarning, match=r"effective draws of .* \(400 are wanted\). Raise"):
        bl.LMM("y ~ age", table, K).sample(draws=40, tune=100, chains=2, seed=1)
    with pytest.warns(SamplingWarning, match="effective draws"):
        bl.LMM("y ~ age", table, K).sample(draws=40, tune=100, chains=1, seed=1)


def fake_draws(h2, diverging=0):
    import xarray as xr

    flags = np.zeros(h2.shape, dtype=bool)
    flags.ravel()[:diverging] = True
    dims = ("chain", "draw")
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"h2": (dims, h2)}),
            "sample_stats": xr.Dataset({"diverging": (dims, flags)}),
        }
    )


def test_divergences_and_rhat_warn(recwarn):
    rng = np.random.default_rng(1)
    good = rng.random((4, 500))
    sampling.check_sampling(fake_draws(good))
    assert not recwarn
    with pytest.warns(SamplingWarning, match=r"^3 divergent transitions.*Raise target_accept"):
        sampling.check_sampling(fake_draws(good, diverging=3))
    apart = good + np.arange(4)[:, None]
    with pytest.warns(SamplingWarning, match=r"r-hat \d\.\d+ for h2.*Sample longer"):
        sampling.check_sampling(fake_draws(apart))


def test_pymc_sampler(cohort, tree):
    table, _, K = cohort
    model = bl.LMM("y ~ age", table, K)
    other = model.sample(sampler="pymc", draws=700, tune=700, chains=2, seed=1)
    assert other.attrs["sampler"] == "pymc NUTS"
    assert set(other["posterior"].data_vars) == set(tree["posterior"].data_vars) - {"u"}
    within_monte_carlo_error(other, tree, PARAMETERS)


def test_a_user_adds_a_term(cohort):
    """A quadratic term that the formula lacks, added to the model by hand."""
    table, _, K = cohort
    model = bl.LMM("y ~ age", table, K)
    square = (table["age"].to_numpy() - 5) ** 2
    y = table["y"] + 0.2 * square
    changed = bl.LMM("y ~ age", table.assign(y=y), K)
    made = changed.pymc_model(observe=False)
    with made:
        g = pm.Normal("g", 0, 1)
        term = g * changed.basis.rotate(square - square.mean())
        pm.Normal("obs", made["mean"] + term, made["noise_sd"], observed=made["y_obs"])
    tree = sample_model(made, draws=500, seed=1)
    g = tree["posterior"]["g"].to_numpy()
    direct = gls_effects(changed, square[:, None] - square.mean())
    # The prior Normal(0, 1) shrinks by var / 1 < 0.001.
    assert abs(g.mean() - direct[0]) < 0.2 * g.std()
    assert tree.attrs["seed"] == 1
    assert "bayeslmm" in tree.attrs["created_by"]
    assert model.reml().h2 > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "gibbs"}, "sampler='gibbs' is unknown"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"chains": 0}, "chains must be at least 1"),
        ({"target_accept": 1.0}, r"target_accept must be in \(0, 1\)"),
        ({"snp_prior": "spike_slab", "snps": ["snp1"], "priors": {"h2": None}}, "drop priors="),
        ({"snp_prior": "spike_slab"}, "for 1 to 15 SNPs, but 0 came"),
    ],
)
def test_refusals(cohort, options, message):
    table, _, K = cohort
    with pytest.raises(InputError, match=message):
        bl.LMM("y ~ age", table, K).sample(**options)


def test_without_kernel_there_is_nothing_to_sample(cohort):
    with pytest.raises(InputError, match=r"use lmm.posterior\(\)"):
        bl.LMM("y ~ age", cohort[0]).sample()


# -- priors: predictive, sensitivity ---------------------------------------------------------------


def test_prior_predictive_follows_the_scale_of_y(cohort):
    table, _, K = cohort
    trees = {}
    for name, y in (
        ("as it is", table["y"]),
        ("times 1000", 1000 * table["y"]),
        ("moved", table["y"] + 1e4),
    ):
        model = bl.LMM("y ~ age", table.assign(y=y), K)
        trees[name] = model.prior_predictive(draws=200, seed=3)
    first = trees["as it is"]
    assert dict(first["prior_predictive"].sizes) == {"chain": 1, "draw": 200, "sample": 300}
    scaled, moved = trees["times 1000"], trees["moved"]
    for name, power in (("h2", 0), ("sd", 1), ("s2_g", 2), ("s2_e", 2), ("b", 1)):
        factor = 1000.0**power
        a, b = first["prior"][name].to_numpy(), scaled["prior"][name].to_numpy()
        shift = table["y"].mean() * np.array([1, 0]) if name == "b" else 0
        np.testing.assert_allclose(
            b, factor * a, rtol=1e-9, atol=1e-9 * np.abs(factor * shift).max()
        )
    np.testing.assert_allclose(
        scaled["prior_predictive"]["y"], 1000 * first["prior_predictive"]["y"], rtol=1e-6
    )
    np.testing.assert_allclose(
        moved["prior_predictive"]["y"] - 1e4, first["prior_predictive"]["y"], atol=1e-7
    )
    gap = (moved["prior"]["b"] - first["prior"]["b"]).to_numpy()
    np.testing.assert_allclose(gap, np.broadcast_to([1e4, 0], gap.shape), atol=1e-7)
    # The observed spread is within what the prior predicts.
    sd = first["prior_predictive"]["y"].std("sample").to_numpy()
    assert 0.02 < (sd < table["y"].std()).mean() < 0.98


def test_sensitivity_tells_a_strong_prior_from_a_weak_one(cohort, tree):
    table, _, K = cohort
    model = bl.LMM("y ~ age", table, K)
    weak = model.prior_sensitivity(tree)
    assert list(weak.index) == ["h2", "s2"]
    assert (weak["prior"].astype(float) < 0.05).all()
    assert (weak["likelihood"].astype(float) > 0.05).all()
    strong = bl.LMM("y ~ age", table, K, h2_prior=bl.priors.beta(150, 40))
    table = strong.prior_sensitivity(strong.posterior(2000, seed=2))
    assert float(table.loc["h2", "prior"]) > 0.05
    assert table.loc["h2", "diagnosis"] != "✓"


def test_sensitivity_to_flat_priors_is_none(cohort):
    """Constant log prior: ArviZ raises on it, this package says 0."""
    table, _, K = cohort
    model = bl.LMM("y ~ age", table, K)
    tree = model.posterior(500, seed=1)
    priors = {"b": pm.Flat.dist(), "sd": pm.HalfFlat.dist()}
    found = model.prior_sensitivity(tree, priors=priors)
    assert (found["prior"].astype(float) == 0).all()
    assert (found["likelihood"].astype(float) > 0).all()


def test_sensitivity_with_snps(cohort):
    table, genotypes, K = cohort
    model = bl.LMM("y ~ age", table, K)
    ids = list(genotypes.variants.id[:2])
    tree = model.sample(snps=ids, draws=500, seed=1)
    found = model.prior_sensitivity(tree, snps=ids, var_names=["h2", "beta_std"])
    assert list(found.index) == ["h2", f"beta_std[{ids[0]}]", f"beta_std[{ids[1]}]"]


def test_sensitivity_needs_the_model_of_the_draws(cohort, tree):
    table, _, K = cohort
    other = bl.LMM("y ~ 1", table, K)
    with pytest.raises(InputError, match="of another model"):
        other.prior_sensitivity(tree)
