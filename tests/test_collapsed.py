"""The model without its effects: exact compression, density, and draws of the effects."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from dense import Case
from scipy import stats
from test_generative import MODE, make, random_point
from test_sampling import within_monte_carlo_error

import bayeslmm as bl
from bayeslmm.generative.collapsed import collapsed_model, compress, draw_effects, is_collapsible
from bayeslmm.generative.eigen import model_data
from bayeslmm.generative.nuts import Density
from bayeslmm.generative.sampling import Target
from bayeslmm.model.snps import selected_snps
from bayeslmm.priors import R2D2, Horseshoe, Normal, uniform

CASE = Case("rank-deficient", 40, 3, "genotypes", 25)
H2 = [0.0, 1e-6, 0.01, 0.3, 0.7, 0.99, 1 - 1e-6, 1 - 1e-9]


# -- compression -----------------------------------------------------------------------------


def spectra(mice):
    basis = bl.LMM("cd8 ~ sex", mice.phenotypes, bl.grm(mice.genotypes)).basis
    yield "mice", np.asarray(basis.values)
    rng = np.random.default_rng(1)
    yield "rank-deficient, repeated", np.repeat([0.0, 0.25, 0.5, 2.0], [400, 300, 200, 100])
    yield "all equal", np.full(300, 0.3)
    yield "spiked", np.append(rng.gamma(20, 0.05, 997), [50.0, 300.0, 5000.0])
    yield "to almost 0", 10 ** rng.uniform(-11, 1.5, 2000)
    yield "few", rng.gamma(2, 1, 12)


@pytest.mark.algebra
def test_nodes_stand_for_all_eigenvalues(mice):
    rng = np.random.default_rng(2)
    for name, values in spectra(mice):
        s = values / values.mean()
        s[s < 1e-13] = 0
        columns = rng.normal(size=(len(s), 4))
        nodes = compress(s, columns)
        assert len(nodes.s) <= max(220, len(s) // 5), name
        for h2 in H2:
            d, at_nodes = h2 * s + (1 - h2), h2 * nodes.s + (1 - h2)
            G = (columns.T / d) @ columns
            found = np.tensordot(1 / at_nodes, nodes.gram, 1)
            scale = np.sqrt(np.diag(G))
            assert np.abs((found - G) / np.outer(scale, scale)).max() < 1e-10, (name, h2)
            logdet = np.log(d).sum()
            assert abs(nodes.weight @ np.log(at_nodes) - logdet) < 1e-9, (name, h2)


# -- density ---------------------------------------------------------------------------------


def problem(snp_prior, k=3, **priors):
    model, snps = make(CASE, k, shift=3.0)
    data = model_data(model, selected_snps(model, snps))
    assert is_collapsible(data, snp_prior, priors)
    return model, data, collapsed_model(data, uniform(), snp_prior, priors)


def dense_covariance(model, data, v):
    """Of the centred phenotype, with u, covariates' and SNPs' effects integrated out."""
    K = (model.basis.vectors * model.basis.values) @ model.basis.vectors.T
    W = np.column_stack([data.C, data.X / data.snps.sd]) * v["effect_sd"]
    return v["s2_g"] * K + v["s2_e"] * np.eye(len(K)) + W @ W.T


def values_at(made, point, names, outputs):
    inputs = made.value_vars
    outputs = [*outputs, *made.replace_rvs_by_values([made[n] for n in names])]
    function = made.compile_fn(
        outputs, inputs=inputs, mode=MODE, point_fn=False, on_unused_input="ignore"
    )
    found = function(*[point[v.name] for v in inputs])
    rest = len(found) - len(names)
    return found[:rest], dict(zip(names, found[rest:], strict=True))


@pytest.mark.algebra
@pytest.mark.parametrize(
    ("snp_prior", "k", "priors"),
    [
        (Normal(0.3), 0, {}),
        (Normal(0.3), 3, {}),
        (Horseshoe(0.1, 0.5, 3), 3, {}),
        (Normal(), 1, {"s2_g": pm.HalfNormal.dist(2.0), "sd_e": pm.HalfNormal.dist(3.0)}),
    ],
    ids=["no SNPs", "normal", "horseshoe", "components"],
)
def test_density_is_the_dense_normal(snp_prior, k, priors):
    model, data, made = problem(snp_prior, k, **priors)
    rng = np.random.default_rng(3)
    for _ in range(4):
        point = random_point(made, rng)
        (both, prior), v = values_at(
            made, point, ["s2_g", "s2_e", "effect_sd"], [made.logp(), made.logp(made.free_RVs)]
        )
        V = dense_covariance(model, data, v)
        expected = stats.multivariate_normal(np.zeros(len(V)), V).logpdf(data.y)
        constant = -0.5 * len(V) * np.log(2 * np.pi)
        assert both - prior + constant == pytest.approx(expected, abs=1e-8)


@pytest.mark.algebra
def test_density_of_r2d2_is_that_of_its_definition():
    """Half-t, beta and Dirichlet, by the numerical Jacobian."""
    prior = R2D2(2.0, 3.0, 0.5, 1.5)
    model, data, made = problem(prior)
    names = ["s2_g", "s2_e", "effect_sd", "sd", "r2", "share", "h2", "s2"]
    rng = np.random.default_rng(4)
    differences = []
    for _ in range(4):
        at = 0.7 * rng.standard_normal(5)

        def defined(at):
            point = {"log_s2": at[0], "logit_h2": at[1], "log_snp": at[2:]}
            return values_at(made, point, names, [made.logp()])

        def coordinates(at):
            _, v = defined(at)
            return np.array([v["sd"], v["r2"], *v["share"][:-1]])

        step = 1e-5
        jacobian = np.array(
            [
                (coordinates(at + step * e) - coordinates(at - step * e)) / (2 * step)
                for e in np.eye(len(at))
            ]
        )
        (logp,), v = defined(at)
        V = dense_covariance(model, data, v)
        assert v["share"].sum() == pytest.approx(1)
        assert v["s2_e"] == pytest.approx(v["sd"] ** 2 * (1 - v["r2"]))
        genetic = v["sd"] ** 2 * v["r2"] * v["share"][-1]
        assert v["s2_g"] * data.kappa == pytest.approx(genetic)
        assert v["s2"] == pytest.approx(genetic + v["s2_e"])
        assert v["h2"] == pytest.approx(genetic / v["s2"])
        widths = v["sd"] * np.sqrt(v["r2"] * v["share"][:-1])
        np.testing.assert_allclose(v["effect_sd"][data.C.shape[1] :], widths)
        expected = (
            stats.t(4, scale=data.sd_y).logpdf(v["sd"])
            + stats.beta(2, 3).logpdf(v["r2"])
            + stats.dirichlet([0.5, 0.5, 0.5, 1.5]).logpdf(v["share"])
            + np.linalg.slogdet(jacobian)[1]
            + stats.multivariate_normal(np.zeros(len(V)), V).logpdf(data.y)
        )
        differences.append(logp - expected)
    np.testing.assert_allclose(differences, differences[0], atol=1e-7)


# -- effects ---------------------------------------------------------------------------------


@pytest.mark.algebra
def test_effects_have_the_dense_conditional_moments():
    model, data, _ = problem(Normal())
    draws, c, p = 40_000, 3, 6
    one = {"h2": 0.6, "s2": 2.3, "sd": 1.4, "effect_sd": np.linspace(0.3, 2, p)}
    many = {
        name: np.broadcast_to(value, (2, draws // 2, *np.shape(value)))
        for name, value in one.items()
    }
    found = draw_effects(data, many, np.random.default_rng(5))
    assert found["b"].shape == (2, draws // 2, c)
    assert found["beta"].shape == (2, draws // 2, p - c)
    np.testing.assert_allclose(found["beta_std"], found["beta"] * data.snps.sd / one["sd"])
    K = (model.basis.vectors * model.basis.values) @ model.basis.vectors.T
    V = one["s2"] * (one["h2"] * K / data.kappa + (1 - one["h2"]) * np.eye(len(K)))
    W = np.column_stack([data.C, data.X])
    prior = np.append(one["effect_sd"][:c], one["effect_sd"][c:] / data.snps.sd)
    covariance = np.linalg.inv(W.T @ np.linalg.solve(V, W) + np.diag(prior**-2))
    mean = covariance @ W.T @ np.linalg.solve(V, data.y)
    b = data.centered_effects(found["b"])
    effects = np.concatenate([b, found["beta"]], axis=-1).reshape(-1, p)
    scale = np.sqrt(np.diag(covariance))
    assert np.abs((effects.mean(axis=0) - mean) / scale).max() < 5 / np.sqrt(draws)
    gap = (np.cov(effects.T) - covariance) / np.outer(scale, scale)
    assert np.abs(gap).max() < 5 * np.sqrt(2 / draws)


# -- sampling --------------------------------------------------------------------------------


def as_tree(values):
    dims = {"b": ["covariate"], "beta": ["snp"]}
    names = ["h2", "s2", "s2_g", "s2_e", "b", "beta"]
    import xarray as xr

    arrays = {n: (["chain", "draw", *dims.get(n, [])], values[n]) for n in names}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(arrays)})


@pytest.mark.slow
@pytest.mark.algebra
@pytest.mark.parametrize("snp_prior", [Normal(), Horseshoe(), R2D2()], ids=lambda p: str(p)[:5])
def test_draws_are_those_of_the_model_with_effects(snp_prior):
    model, data, _ = problem(snp_prior)
    target = Target(data, uniform(), snp_prior, {})
    settings = {"draws": 2500, "tune": 800, "chains": 4, "target_accept": 0.95}
    collapsed, _ = target.draw(seed=1, **settings)
    explicit = Density(
        model.pymc_model(snps=make(CASE, 3)[1], snp_prior=snp_prior), collapsed.keys()
    )
    values, _ = explicit.sample(seed=2, **(settings | {"target_accept": 0.995}))
    names = ["h2", "s2", "s2_g", "s2_e", "b", "beta"]
    within_monte_carlo_error(as_tree(collapsed), as_tree(values), names)


@pytest.mark.parametrize("snp_prior", ["horseshoe", "r2d2"])
def test_a_snp_like_a_covariate_and_one_in_complete_ld(snp_prior):
    """Without warning: no divergence, and 400 effective draws of each."""
    model, snps = make(Case("small", 60, 2, "genotypes", 100), 2)
    covariate = model.C.iloc[:, 1]
    like = 2 * (covariate - covariate.min()) / np.ptp(covariate)
    table = pd.DataFrame({"like": like, "one": snps["rs0"], "again": 2 - snps["rs0"]})
    tree = model.sample(table, snp_prior, seed=1)
    assert not tree["sample_stats"]["diverging"].any()
    # One effect, split evenly: the alleles are opposite.
    one, again = tree["posterior"]["beta"].mean(("chain", "draw")).to_numpy()[1:]
    spread = tree["posterior"]["beta"].std(("chain", "draw")).to_numpy()[1]
    assert abs(one + again) < 0.2 * spread


def test_h2_may_reach_1():
    """No residual variance at all: the intercept has no funnel."""
    model, _ = make(Case("h2 = 1", 200, 2, "genotypes", 400))
    rng = np.random.default_rng(6)
    y = model.basis.unrotate(np.sqrt(model.basis.values) * rng.standard_normal(200))
    tree = model.with_phenotype(y + 5).sample(seed=1)
    assert not tree["sample_stats"]["diverging"].any()
    assert float(tree["posterior"]["h2"].mean()) > 0.9


def test_many_snps_are_not_integrated_out():
    model, _ = make(CASE)
    rng = np.random.default_rng(7)
    many = pd.DataFrame(rng.binomial(2, 0.4, size=(CASE.n, 101)), index=model.ids)
    for k, collapsible in ((50, [True, True, True]), (51, [False, True, True])):
        data = model_data(model, selected_snps(model, many.iloc[:, :k]))
        assert [is_collapsible(data, p, {}) for p in (Normal(), Horseshoe(), R2D2())] == collapsible
    data = model_data(model, selected_snps(model, many))
    assert not is_collapsible(data, Horseshoe(), {})
    assert not is_collapsible(data, R2D2(), {})


def test_own_priors_of_effects_are_not_integrated_out():
    _, data, _ = problem(Normal())
    assert not is_collapsible(data, Normal(), {"b": None})
    assert not is_collapsible(data, Horseshoe(), {"beta_std": None})
    assert not is_collapsible(data, R2D2(), {"sd": None})
    assert is_collapsible(data, Horseshoe(), {"sd": None, "h2": None})
