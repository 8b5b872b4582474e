import numpy as np
import pandas as pd
import pymc as pm
import pytest
from dense import CASES, Case, centred
from scipy import stats

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.generative.eigen import FORMS, model_data
from bayeslmm.model.snps import selected_snps
from bayeslmm.priors import R2D2, Horseshoe

# Interpreted graphs: these tests evaluate a handful of points, compilation would cost seconds.
MODE = "FAST_COMPILE"


def dosages(n, k, seed=5):
    rng = np.random.default_rng(seed)
    first = rng.binomial(2, 0.4, size=n)
    near = np.where(rng.random(n) < 0.3, rng.binomial(2, 0.4, size=n), first)
    other = rng.binomial(2, [0.2, 0.35][: max(k - 2, 0)], size=(n, max(k - 2, 0)))
    return np.column_stack([first, near, other])[:, :k].astype(float)


def make(case, k=0, shift=0.0, **options):
    y, C, K = case.make()
    ids = [f"i{j}" for j in range(len(y))]
    covariates = pd.DataFrame(C[:, 1:], index=ids, columns=[f"c{j}" for j in range(1, C.shape[1])])
    snps = pd.DataFrame(dosages(len(y), k), index=ids, columns=[f"rs{j}" for j in range(k)])
    model = bl.LMM(
        pd.Series(y + shift, index=ids, name="y"),
        covariates if C.shape[1] > 1 else None,
        bl.GRM(K, samples=ids),
        **options,
    )
    return model, (snps if k else None)


class Evaluated:
    """logp, its gradient and chosen variables of a PyMC model, at points by value variable."""

    def __init__(self, model, names=()):
        self.model = model
        self.inputs = [v.name for v in model.value_vars]
        outputs = [model.logp(), *model.replace_rvs_by_values([model[n] for n in names])]
        self._values = model.compile_fn(outputs, inputs=model.value_vars, mode=MODE, point_fn=False)
        self._gradient = model.compile_fn(
            model.dlogp(), inputs=model.value_vars, mode=MODE, point_fn=False
        )
        self.names = list(names)

    def __call__(self, point):
        logp, *rest = self._values(*[point[n] for n in self.inputs])
        return float(logp), dict(zip(self.names, rest, strict=True))

    def gradient(self, point):
        """Gradient by value variable."""
        flat, out = self._gradient(*[point[n] for n in self.inputs]), {}
        for name in self.inputs:
            size = np.size(point[name])
            out[name], flat = flat[:size], flat[size:]
        assert not len(flat)
        return out


def drawn(model, names):
    """One joint draw from the prior."""
    values = pm.draw([model[name] for name in names], random_seed=4, mode=MODE)
    return dict(zip(names, values, strict=True))


def random_point(model, rng, scale=0.7):
    point = {}
    for name, value in model.initial_point(0).items():
        value = np.asarray(value, dtype=np.float64)
        point[name] = value + scale * rng.standard_normal(value.shape)
    return point


FORM_CASES = [
    (Case("n < m", 24, 2, "genotypes", 60), 2),
    (Case("n > m: rank-deficient, intercept only", 30, 1, "genotypes", 9), 0),
    (Case("negative off-diagonals", 26, 3, "negative"), 3),
]


@pytest.mark.algebra
@pytest.mark.parametrize(("case", "k"), FORM_CASES, ids=lambda v: getattr(v, "name", None))
def test_three_forms_have_one_density_and_gradient(case, k):
    model, snps = make(case, k, shift=3.0)
    forms = {form: model.pymc_model(form, snps=snps) for form in FORMS}
    f = {
        "marginal": Evaluated(forms["marginal"]),
        "eigenbasis": Evaluated(forms["eigenbasis"]),
        "explicit": Evaluated(forms["explicit"], ["s2_g", "s2_e", "u"]),
    }
    rng = np.random.default_rng(case.n)
    n = case.n
    U, S = model.basis.vectors, model.basis.values
    offsets = {"marginal": [], "explicit": []}
    for _ in range(4):
        point = random_point(forms["explicit"], rng)
        theta = {name: value for name, value in point.items() if name != "z"}
        reference, _ = f["eigenbasis"](theta)
        offsets["marginal"].append(f["marginal"](theta)[0] - reference)
        gradient = f["eigenbasis"].gradient(theta)
        other = f["marginal"].gradient(theta)
        for name, expected in gradient.items():
            np.testing.assert_allclose(other[name], expected, rtol=1e-8, atol=1e-8)

        # p(y | theta) = p(y, z | theta) / p(z | y, theta), whatever z is.
        logp, values = f["explicit"](point)
        s2_g, s2_e = float(values["s2_g"]), float(values["s2_e"])
        A = U * np.sqrt(s2_g * S)
        np.testing.assert_allclose(values["u"], A @ point["z"], rtol=1e-10, atol=1e-12)
        residual = _residual(model, snps, forms["explicit"], theta)
        precision = np.eye(n) + A.T @ A / s2_e
        L = np.linalg.cholesky(np.linalg.inv(precision))
        center = np.linalg.solve(precision, A.T @ residual / s2_e)
        conditional = stats.multivariate_normal(center, np.linalg.inv(precision))
        offsets["explicit"].append(logp - conditional.logpdf(point["z"]) - reference)

        # Fisher's identity, d log p(y) = E[d log p(y, z) | y]: quadratic in z, so 2 n points do.
        total = dict.fromkeys(theta, 0.0)
        for j in range(n):
            for sign in (-1, 1):
                z = center + sign * np.sqrt(n) * L[:, j]
                part = f["explicit"].gradient({**theta, "z": z})
                total = {name: value + part[name] for name, value in total.items()}
        for name, expected in gradient.items():
            np.testing.assert_allclose(total[name] / (2 * n), expected, rtol=1e-8, atol=1e-8)
    for values in offsets.values():
        np.testing.assert_allclose(values, values[0], atol=1e-8)


def _residual(model, snps, pymc_model, theta):
    """y - C b - X beta from the reported (uncentred) effects."""
    names = ["b"] + (["beta"] if snps is not None else [])
    values = pymc_model.replace_rvs_by_values([pymc_model[n] for n in names])
    inputs = [v for v in pymc_model.value_vars if v.name in theta]
    function = pymc_model.compile_fn(
        values, inputs=inputs, mode=MODE, point_fn=False, on_unused_input="ignore"
    )
    effects = function(*[theta[v.name] for v in inputs])
    residual = model.y - model.C.to_numpy() @ effects[0]
    if snps is not None:
        residual = residual - (snps - snps.mean()).to_numpy() @ effects[1]
    return residual


@pytest.mark.algebra
@pytest.mark.parametrize("form", ["marginal", "eigenbasis"])
def test_likelihood_is_the_dense_normal_of_the_raw_data(form):
    case, k = FORM_CASES[2]
    model, snps = make(case, k, shift=100.0)
    _, _, K = case.make()
    pymc_model = model.pymc_model(form, snps=snps)
    observed = pymc_model.observed_RVs
    names = ["s2_g", "s2_e", "b", "beta", "h2", "s2", "beta_std", "sd"]
    outputs = [
        pymc_model.logp(vars=observed),
        *pymc_model.replace_rvs_by_values([pymc_model[n] for n in names]),
    ]
    function = pymc_model.compile_fn(
        outputs, inputs=pymc_model.value_vars, mode=MODE, point_fn=False
    )
    kappa = np.trace(centred(K)) / case.n
    rng = np.random.default_rng(3)
    for _ in range(3):
        point = random_point(pymc_model, rng)
        logp, *values = function(*[point[v.name] for v in pymc_model.value_vars])
        v = dict(zip(names, values, strict=True))
        x = snps.to_numpy() - snps.to_numpy().mean(axis=0)
        mean = model.C.to_numpy() @ v["b"] + x @ v["beta"]
        V = v["s2_g"] * centred(K) + v["s2_e"] * np.eye(case.n)
        assert logp == pytest.approx(stats.multivariate_normal(mean, V).logpdf(model.y), rel=1e-9)
        assert v["h2"] == pytest.approx(
            v["s2_g"] * kappa / (v["s2_g"] * kappa + v["s2_e"]), rel=1e-12
        )
        assert v["s2"] == pytest.approx(v["s2_g"] * kappa + v["s2_e"], rel=1e-12)
        np.testing.assert_allclose(
            v["beta"], v["beta_std"] * v["sd"] / snps.to_numpy().std(axis=0), rtol=1e-12
        )


@pytest.mark.algebra
def test_likelihood_equals_pymc_kronecker_normal():
    case, _ = FORM_CASES[0]
    model, _ = make(case)
    ours = model.pymc_model()
    values = ours.replace_rvs_by_values([ours[n] for n in ("b", "s2_g", "s2_e")])
    function = ours.compile_fn(
        [ours.logp(vars=ours.observed_RVs), *values],
        inputs=ours.value_vars,
        mode=MODE,
        point_fn=False,
    )
    point = random_point(ours, np.random.default_rng(0))
    logp, b, s2_g, s2_e = function(*[point[v.name] for v in ours.value_vars])
    evds = [(s2_g * model.basis.values, np.asarray(model.basis.vectors))]
    theirs = pm.KroneckerNormal.dist(
        mu=model.C.to_numpy() @ b, evds=evds, sigma=np.sqrt(s2_e), shape=case.n
    )
    expected = pm.logp(theirs, model.y).eval(mode=MODE)
    assert logp == pytest.approx(float(expected), rel=1e-9)


# -- what the model looks like ---------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_names_dims_and_coordinates(form):
    model, snps = make(CASES[0], 2)
    made = model.pymc_model(form, snps=snps)
    rows = "eigenvector" if form == "eigenbasis" else "sample"
    assert list(made.coords["covariate"]) == ["Intercept", "c1"]
    assert list(made.coords["snp"]) == ["rs0", "rs1"]
    dims = made.named_vars_to_dims
    assert dims["b"] == ("covariate",)
    assert dims["beta"] == dims["beta_std"] == ("snp",)
    assert dims["C"] == (rows, "covariate")
    assert dims["X"] == (rows, "snp")
    assert dims["y_obs"] == (rows,)
    assert dims["S"] == ("eigenvector",)
    if form != "eigenbasis":
        assert list(made.coords["sample"]) == list(model.ids)
        assert dims["y"] == ("sample",)
    if form == "explicit":
        assert dims["u"] == ("sample",)
        assert dims["z"] == ("eigenvector",)
        assert dims["U"] == ("sample", "eigenvector")
    for name in ("h2", "sd", "s2", "s2_g", "s2_e", "b", "beta", "beta_std"):
        assert name in made.named_vars
    graph = pm.model_graph.ModelGraph(made).get_plates()
    assert {node.var.name for plate in graph for node in plate.variables} >= {"h2", "b", "beta"}
    assert "h2" in made.str_repr()


def test_without_observation_has_mean_and_noise():
    model, snps = make(CASES[0], 2)
    made = model.pymc_model(snps=snps, observe=False)
    assert not made.observed_RVs
    assert made.named_vars_to_dims["mean"] == ("eigenvector",)
    assert made.named_vars_to_dims["noise_sd"] == ("eigenvector",)
    # Observed by hand it is the same model.
    with made:
        pm.Normal("y_rotated", made["mean"], made["noise_sd"], observed=made["y_obs"])
    whole = model.pymc_model(snps=snps)
    point = random_point(whole, np.random.default_rng(1))
    assert Evaluated(made)(point)[0] == pytest.approx(Evaluated(whole)(point)[0], rel=1e-12)


@pytest.mark.algebra
@pytest.mark.parametrize("formula", ["y ~ 0 + group", "y ~ group + x", "y ~ 0 + x", "y ~ 0"])
def test_every_design_has_effects_of_the_raw_covariates(formula):
    """Whatever the design, C b of the reported effects is the model's mean."""
    rng = np.random.default_rng(8)
    n = 30
    ids = [f"i{j}" for j in range(n)]
    x = rng.binomial(2, 0.3, size=(n, 40))
    table = pd.DataFrame(
        {
            "y": 50 + rng.normal(size=n),
            "group": list("abc") * 10,
            "x": rng.normal(7, 2, size=n),
        },
        index=ids,
    )
    model = bl.LMM(formula, table, bl.GRM(bl.grm(x, dtype="float64").matrix, samples=ids))
    made = model.pymc_model("marginal")
    observed = made.observed_RVs
    outputs = [
        made.logp(vars=observed),
        *made.replace_rvs_by_values([made["b"], made["s2_g"], made["s2_e"]]),
    ]
    function = made.compile_fn(outputs, inputs=made.value_vars, mode=MODE, point_fn=False)
    point = random_point(made, rng)
    logp, b, s2_g, s2_e = function(*[point[v.name] for v in made.value_vars])
    K = (model.basis.vectors * model.basis.values) @ model.basis.vectors.T
    dense = stats.multivariate_normal(model.C.to_numpy() @ b, s2_g * K + s2_e * np.eye(n))
    assert logp == pytest.approx(dense.logpdf(model.y), rel=1e-9)
    data = model_data(model, selected_snps(model, None))
    np.testing.assert_allclose(data.raw_effects(data.centered_effects(b)), b, rtol=1e-10)
    # A shift of y moves nothing but what is reported of the constant.
    if formula != "y ~ 0 + x" and formula != "y ~ 0":
        shifted = bl.LMM(formula, table.assign(y=table.y - 1000), model.basis)
        other = model_data(shifted, selected_snps(shifted, None))
        np.testing.assert_allclose(other.y, data.y, atol=1e-10)
        np.testing.assert_allclose(
            data.raw_effects(b) - other.raw_effects(b), 1000 * data.constant, rtol=1e-9
        )


# -- priors ------------------------------------------------------------------------------------


class Prior:
    """What pymc-extras' Prior does, as far as this package is concerned."""

    def __init__(self, distribution, dims=None, **parameters):
        self.distribution, self.dims, self.parameters = distribution, dims, parameters

    def create_variable(self, name):
        return getattr(pm, self.distribution)(name, dims=self.dims, **self.parameters)


def logp_at(made, **transformed):
    point = made.initial_point(0) | transformed
    return Evaluated(made)(point)[0]


def test_priors_written_in_each_way_are_one_model():
    model, snps = make(CASES[0], 2)
    ways = [
        {"h2": pm.Beta.dist(2, 3), "b": pm.Normal.dist(1, 4), "beta_std": pm.Laplace.dist(0, 0.3)},
        {
            "h2": lambda name: pm.Beta(name, 2, 3),
            "b": lambda name: pm.Normal(name, 1, 4, dims="covariate"),
            "beta_std": lambda name: pm.Laplace(name, 0, 0.3, dims="snp"),
        },
        {
            "h2": Prior("Beta", alpha=2, beta=3),
            "b": Prior("Normal", dims="covariate", mu=1, sigma=4),
            "beta_std": Prior("Laplace", dims="snp", mu=0, b=0.3),
        },
    ]
    rng = np.random.default_rng(2)
    made = [model.pymc_model(snps=snps, priors=priors) for priors in ways]
    point = random_point(made[0], rng)
    values = [Evaluated(m)(point)[0] for m in made]
    np.testing.assert_allclose(values, values[0], rtol=1e-12)
    # And the same as the prior of the LMM itself.
    own, _ = make(CASES[0], 2, h2_prior=bl.priors.beta(2, 3))
    without_h2 = {name: prior for name, prior in ways[0].items() if name != "h2"}
    again = own.pymc_model(snps=snps, priors=without_h2)
    assert Evaluated(again)(point)[0] == pytest.approx(values[0], rel=1e-12)
    # A distribution can serve twice.
    assert Evaluated(model.pymc_model(snps=snps, priors=ways[0]))(point)[0] == values[0]


def test_prior_of_b_is_that_of_the_reported_effects():
    model, _ = make(CASES[0], shift=100.0)
    made = model.pymc_model(priors={"b": pm.Normal.dist([100.0, 0.0], [5.0, 1.0])})
    prior = made.logp(vars=[made["b"]])
    function = made.compile_fn(
        prior, inputs=made.value_vars, mode=MODE, point_fn=False, on_unused_input="ignore"
    )
    point = random_point(made, np.random.default_rng(1)) | {"b": np.array([102.0, 0.5])}
    value = function(*[point[v.name] for v in made.value_vars])
    expected = stats.norm(100, 5).logpdf(102) + stats.norm(0, 1).logpdf(0.5)
    assert float(value) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("pair", [("sd_g", "sd_e"), ("s2_g", "s2_e"), ("sd_g", "s2_e")])
def test_priors_on_components(pair):
    """Half-t on sqrt(s2_g kappa) and on sqrt(s2_e), or on the variances."""
    model, _ = make(CASES[1])
    kappa = model.basis.kappa
    made = model.pymc_model(
        priors={pair[0]: pm.HalfStudentT.dist(4, 2.0), pair[1]: pm.HalfNormal.dist(3.0)}
    )
    names = ["s2_g", "s2_e", "h2", "s2"]
    function = Evaluated(made, names)
    point = made.initial_point(0) | {
        f"{pair[0]}_log__": np.log(1.7),
        f"{pair[1]}_log__": np.log(0.6),
    }
    _, v = function(point)
    s2_g = 1.7**2 / kappa if pair[0] == "sd_g" else 1.7
    s2_e = 0.6**2 if pair[1] == "sd_e" else 0.6
    assert v["s2_g"] == pytest.approx(s2_g)
    assert v["s2_e"] == pytest.approx(s2_e)
    assert v["s2"] == pytest.approx(s2_g * kappa + s2_e)
    assert v["h2"] == pytest.approx(s2_g * kappa / (s2_g * kappa + s2_e))


def divergence(V):
    """Kullback-Leibler divergence of N(0, V) from N(0, I)."""
    return 0.5 * (np.trace(V) - len(V) - np.linalg.slogdet(V)[1])


@pytest.mark.algebra
@pytest.mark.parametrize(("upper", "prob"), [(0.5, 0.1), (0.2, 0.5), (0.8, 0.01)])
def test_pc_prior_is_a_density_with_the_tail_asked_for(upper, prob):
    model, _ = make(CASES[0])
    prior = bl.priors.penalised_complexity(model.basis, upper=upper, prob=prob)
    # In t = -log(1 - h2): the distance, and with it the density's tail, is smooth in it.
    t = (np.arange(400_000) + 0.5) * 36 / 400_000
    h2 = -np.expm1(-t)
    mass = np.exp(prior.log_density(h2) - t) * (t[1] - t[0])
    # Mass between 1 - 2^-53 and 1 is out of reach, for the prior and (from e^-36 on) for the sum.
    K = (model.basis.vectors * model.basis.values / model.basis.kappa) @ model.basis.vectors.T
    ends = [upper, 1 - 2.0**-53]
    far = np.sqrt([2 * divergence(h * K + (1 - h) * np.eye(len(K))) for h in ends])
    lost = prob ** (far[1] / far[0])
    assert lost < 3e-4
    assert mass.sum() == pytest.approx(1, abs=2 * lost)
    assert mass[h2 > upper].sum() == pytest.approx(prob, abs=2 * lost)


@pytest.mark.algebra
def test_any_density_of_h2_becomes_an_interpolated_variable():
    model, _ = make(CASES[0], h2_prior=lambda h2: np.exp(-3 * h2) * (1 + np.sin(9 * h2) ** 2))
    made = model.pymc_model()
    h2 = np.linspace(0.003, 0.997, 41)
    logp = pm.logp(made["h2"], h2).eval(mode=MODE)
    # Cubic pieces of width 1e-3, of second order where the density turns.
    np.testing.assert_allclose(logp, model.h2_prior.log_density(h2), atol=2e-6)
    draws = pm.draw(made["h2"], 1500, random_seed=1, mode=MODE)
    from bayeslmm.numerics.quadrature import unit_density

    cdf = unit_density(model.h2_prior.log_density).cdf
    assert stats.kstest(draws, cdf).pvalue > 0.001


def test_r2d2_splits_the_variance():
    model, snps = make(CASES[0], 3)
    made = model.pymc_model(snps=snps, snp_prior=R2D2(a=2, b=3))
    names = ["sd", "r2", "share", "s2_g", "s2_e", "s2", "h2", "beta_std", "beta_z"]
    v = drawn(made, names)
    kappa = model.basis.kappa
    assert v["share"].sum() == pytest.approx(1)
    assert v["s2_e"] == pytest.approx(v["sd"] ** 2 * (1 - v["r2"]))
    assert v["s2_g"] * kappa == pytest.approx(v["sd"] ** 2 * v["r2"] * v["share"][3])
    assert v["s2"] == pytest.approx(v["s2_g"] * kappa + v["s2_e"])
    assert v["h2"] == pytest.approx(v["s2_g"] * kappa / v["s2"])
    np.testing.assert_allclose(v["beta_std"], v["beta_z"] * np.sqrt(v["r2"] * v["share"][:3]))


@pytest.mark.algebra
def test_normal_prior_of_snp_effects_is_normal_whatever_the_ld():
    model, snps = make(CASES[0], 3)
    made = model.pymc_model(snps=snps, snp_prior=bl.priors.Normal(0.3))
    axes = made["snp_axes"].get_value()
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    v = drawn(made, ["beta_std", "beta_z"])
    np.testing.assert_allclose(v["beta_std"], 0.3 * axes @ v["beta_z"])


@pytest.mark.algebra
def test_horseshoe_is_that_of_piironen_and_vehtari():
    model, snps = make(CASES[0], 2)
    prior = Horseshoe(global_scale=0.1, slab=0.5, slab_df=3)
    made = model.pymc_model(snps=snps, snp_prior=prior)
    names = ["tau", "lambda", "slab2", "beta_std", "beta_z"]
    v = drawn(made, names)
    local2, tau2 = v["lambda"] ** 2, v["tau"] ** 2
    regularised = v["slab2"] * local2 / (v["slab2"] + tau2 * local2)
    np.testing.assert_allclose(v["beta_std"], v["beta_z"] * v["tau"] * np.sqrt(regularised))
    slab2 = stats.invgamma(1.5, scale=1.5 * 0.25).logpdf(0.2)
    assert float(pm.logp(made["slab2"], 0.2).eval(mode=MODE)) == pytest.approx(slab2)
    tau = stats.halfcauchy(scale=0.1).logpdf(0.2)
    assert float(pm.logp(made["tau"], 0.2).eval(mode=MODE)) == pytest.approx(tau)


# -- what is refused ----------------------------------------------------------------------------

COMPONENTS = "do not define the variances"
REFUSED = [
    ({"h3": 1}, "no such variable"),
    ({"h2": 0.5}, "expected a PyMC distribution"),
    ({"sd": "HalfNormal", "s2": "HalfNormal"}, "contradict each other"),
    ({"sd_g": "HalfNormal"}, COMPONENTS),
    ({"sd_g": "HalfNormal", "s2_g": "HalfNormal"}, COMPONENTS),
    ({"sd_g": "HalfNormal", "sd_e": "HalfNormal", "h2": "Uniform"}, COMPONENTS),
    ({"sd_g": "HalfNormal", "sd_e": "HalfNormal", "sd": "HalfNormal"}, COMPONENTS),
    ({"beta_std": "Normal"}, "no SNPs"),
]


@pytest.mark.parametrize(("priors", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_contradicting_priors_are_refused(priors, message):
    model, _ = make(CASES[0])
    made = {n: getattr(pm, p).dist() if isinstance(p, str) else p for n, p in priors.items()}
    with pytest.raises(InputError, match=message):
        model.pymc_model(priors=made)


def test_one_distribution_is_the_prior_of_two_variables():
    scale = pm.HalfStudentT.dist(4, 1.0)
    model = make(CASES[0])[0].pymc_model(priors={"sd_g": scale, "sd_e": scale})
    assert [v.name for v in model.free_RVs][:2] == ["sd_g", "sd_e"]
    assert len({*model.free_RVs}) == len(model.free_RVs)
    assert all(np.isfinite(list(model.point_logps().values())))


def test_two_priors_of_one_component_are_refused():
    model, _ = make(CASES[0])
    one = {"sd_g": pm.HalfNormal.dist(), "s2_g": pm.HalfNormal.dist()}
    with pytest.raises(InputError, match=COMPONENTS):
        model.pymc_model(priors=one)


@pytest.mark.parametrize("b", [Prior("Normal"), lambda name: pm.Normal(name), lambda name: None])
def test_a_prior_of_the_wrong_shape_is_refused(b):
    model, _ = make(CASES[0])
    with pytest.raises(InputError, match=r"prior of b made .* expected a variable with dims='cov"):
        model.pymc_model(priors={"b": b})


def test_a_spike_at_zero_is_refused():
    model, _ = make(CASES[0], h2_prior=bl.priors.uniform(spike=0.5))
    with pytest.raises(InputError, match=r"cannot sample a point mass at 0. Use lmm.posterior"):
        model.pymc_model()


def test_r2d2_beside_another_prior_is_refused():
    model, snps = make(CASES[0], 2)
    with pytest.raises(InputError, match=r"R2D2 defines the split.*'h2'"):
        model.pymc_model(snps=snps, snp_prior="r2d2", priors={"h2": pm.Beta.dist(2, 2)})
    model, snps = make(CASES[0], 2, h2_prior=bl.priors.beta(2, 3))
    with pytest.raises(InputError, match=r"R2D2 defines the prior of h2.*Beta\(2, 3\)"):
        model.pymc_model(snps=snps, snp_prior="r2d2")


def test_other_refusals():
    model, snps = make(CASES[0], 2)
    with pytest.raises(InputError, match=r"parameterization='dense' is unknown.*'eigenbasis'"):
        model.pymc_model("dense")
    with pytest.raises(InputError, match="computed exactly, not sampled by NUTS"):
        model.pymc_model(snps=snps, snp_prior="spike_slab")
    with pytest.raises(InputError, match="snp_prior='ridge' is unknown"):
        model.pymc_model(snps=snps, snp_prior="ridge")
    with pytest.raises(InputError, match="needs a kernel"):
        bl.LMM(model.y).pymc_model()
