import itertools
import warnings

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
from dense import centred, contrasts
from scipy.special import logsumexp

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.generative.sampling import SamplingWarning
from bayeslmm.model.effects import SpikeSlabPosterior, enumerate_models, snp_terms
from bayeslmm.model.snps import selected_snps
from bayeslmm.priors import Horseshoe, Normal, SpikeSlab

PHI = (0.1, 0.3)


def cohort(n=60, k=4, m=30, effects=(0.8, 0, 0.5), seed=4, scale=1.0):
    """Model and a table of k SNPs, two of them in LD; a kernel of other variants."""
    rng = np.random.default_rng(seed)
    ids = [f"i{j}" for j in range(n)]
    x = rng.binomial(2, 0.4, size=(n, k)).astype(float)
    if k > 1:
        x[:, 1] = np.where(rng.random(n) < 0.7, x[:, 0], x[:, 1])
    kernel = bl.grm(rng.binomial(2, 0.3, size=(n, m)), dtype="float64")
    K = bl.GRM(kernel.matrix, samples=ids)
    age = rng.normal(50, 10, size=n)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    beta = np.zeros(k)
    beta[: len(effects)] = effects[:k]
    u = np.linalg.cholesky(centred(K.matrix) + 1e-9 * np.eye(n)) @ rng.normal(size=n)
    y = scale * (3 + 0.02 * age + z @ beta + 0.6 * u + 0.7 * rng.normal(size=n))
    table = pd.DataFrame({"y": y, "age": age}, index=ids)
    return table, K, pd.DataFrame(x, index=ids, columns=[f"rs{j}" for j in range(k)])


def brute_force(model, K, x, inclusion, phis, log_prior=lambda h2: 0.0, spike=0.0, nodes=200):
    """Every subset, width and h2 with dense matrices: the density of error contrasts.

    Given s2 the effects are N(0, phi^2 s2) per sd of the genotype; s2 is integrated out
    under 1/s2, and h2 by Gauss-Legendre.
    """
    y, C = model.y, model.C.to_numpy()
    n, k = x.shape
    Z = (x - x.mean(axis=0)) / x.std(axis=0)
    N = contrasts(C)
    z, df = N.T @ y, len(N.T)
    R = centred(K)
    R = R / np.trace(R) * n
    t, w = np.polynomial.legendre.leggauss(nodes)
    h2 = np.append(0.0, (t + 1) / 2)
    with np.errstate(divide="ignore"):
        log_w = np.append(np.log(spike), np.log1p(-spike) + np.log(w / 2) + log_prior(h2[1:]))
    subsets = list(itertools.product([0, 1], repeat=k))
    log_p = np.empty((len(h2), len(phis), len(subsets)))
    effect = np.zeros((*log_p.shape, k))
    s2 = np.empty(log_p.shape)
    for i, j, g in np.ndindex(*log_p.shape):
        members = np.flatnonzero(subsets[g])
        Zg = Z[:, members]
        V = h2[i] * R + (1 - h2[i]) * np.eye(n) + phis[j] ** 2 * Zg @ Zg.T
        M = N.T @ V @ N
        solved = np.linalg.solve(M, z)
        Q = z @ solved
        log_p[i, j, g] = -0.5 * np.linalg.slogdet(M)[1] - 0.5 * df * np.log(Q) + log_w[i]
        log_p[i, j, g] += len(members) * np.log(inclusion) - np.log(len(phis))
        log_p[i, j, g] += (k - len(members)) * np.log1p(-inclusion)
        effect[i, j, g, members] = phis[j] ** 2 * Zg.T @ (N @ solved)
        s2[i, j, g] = Q / (df - 2)
    weights = np.exp(log_p - logsumexp(log_p))
    models = weights.sum(axis=(0, 1))
    members = np.array(subsets)
    return {
        "models": {tuple(s): p for s, p in zip(subsets, models, strict=True)},
        "pip": models @ members,
        "beta": np.einsum("ijg,ijgk->k", weights, effect) / x.std(axis=0),
        "h2": float(np.sum(weights.sum(axis=(1, 2)) * h2)),
        "p_h2_zero": float(weights[0].sum()),
        "s2": float((weights * s2).sum()),
    }


def check_against_brute_force(model, K, x, prior, **options):
    expected = brute_force(model, K, x.to_numpy(), prior.inclusion, prior.phi, **options)
    found = SpikeSlabPosterior(model, selected_snps(model, x), prior)
    np.testing.assert_allclose(found.inclusion_probabilities(), expected["pip"], atol=1e-6)
    models = found.model_probabilities()
    for subset, probability in expected["models"].items():
        number = sum(bit << j for j, bit in enumerate(subset))
        assert models[number] == pytest.approx(probability, abs=1e-6), subset
    assert found.density is not None
    assert found.density.mean == pytest.approx(expected["h2"], abs=1e-5)
    assert found.density.mass_at_0 == pytest.approx(expected["p_h2_zero"], abs=1e-6)
    mean, sd = found.moments()
    np.testing.assert_allclose(
        mean / x.to_numpy().std(axis=0), expected["beta"], rtol=1e-5, atol=1e-6 * model.y.std()
    )
    draws = found.draw(20_000, np.random.default_rng(1))
    drawn = (draws["beta_std"] * np.sqrt(draws["s2"])[:, None]).std(axis=0)
    np.testing.assert_allclose(drawn, sd, rtol=0.05)
    beta = draws["beta_std"] * np.sqrt(draws["s2"])[:, None] / x.to_numpy().std(axis=0)
    compared = [*zip(beta.T, expected["beta"], strict=True)]
    compared += [(draws["s2"], expected["s2"]), (draws["h2"], expected["h2"])]
    for values, value in compared:
        assert abs(values.mean() - value) < 4 * values.std() / np.sqrt(20_000)
    share = draws["included"].mean(axis=0)
    p = expected["pip"]
    assert (np.abs(share - p) <= 4 * np.sqrt(p * (1 - p) / 20_000)).all()
    return draws


@pytest.mark.algebra
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_enumeration_equals_brute_force(scale):
    table, K, x = cohort(scale=scale)
    model = bl.LMM("y ~ age", table, K)
    prior = SpikeSlab(inclusion=0.2, phi=PHI)
    draws = check_against_brute_force(model, K.matrix, x, prior)
    # Excluded effects are exactly 0, included ones are not; b with them is the dense one.
    assert ((draws["beta_std"] != 0) == draws["included"]).all()


@pytest.mark.algebra
def test_enumeration_with_a_prior_on_h2_and_a_spike():
    table, K, x = cohort(k=2, seed=6)
    prior = bl.priors.beta(2, 3, spike=0.4)
    model = bl.LMM("y ~ 1", table, K, h2_prior=prior)
    check_against_brute_force(
        model, K.matrix, x, SpikeSlab(0.5, (0.2,)), log_prior=prior.log_density, spike=0.4
    )


@pytest.mark.algebra
def test_a_prior_of_h2_far_from_the_likelihood():
    """Where the prior holds h2, however little the likelihood likes it, models are enumerated."""
    table, K, x = cohort(k=2, seed=6)
    prior = bl.priors.beta(1, 2000)
    model = bl.LMM("y ~ 1", table, K, h2_prior=prior)
    check_against_brute_force(
        model, K.matrix, x, SpikeSlab(0.5, (0.2,)), log_prior=prior.log_density, nodes=500
    )


@pytest.mark.algebra
def test_all_in_equals_nuts_with_the_normal_prior():
    """Inclusion next to 1 is the normal prior: enumeration against NUTS, with b and s2 alike."""
    table, K, x = cohort(k=3)
    model = bl.LMM("y ~ age", table, K)
    exact = model.sample(x, SpikeSlab(1 - 1e-12, (0.3,)), draws=5000, seed=1)
    assert exact["posterior"]["included"].all()
    # 1/s2, as nearly as a proper distribution comes to it.
    priors = {"b": pm.Flat.dist(), "s2": pm.InverseGamma.dist(1e-4, 1e-4)}
    nuts = model.sample(x, Normal(0.3), priors=priors, draws=1500, seed=2)
    for name in ("h2", "s2", "beta", "beta_std", "b"):
        a, b = nuts["posterior"][name].to_numpy(), exact["posterior"][name].to_numpy()
        for j in range(int(np.prod(a.shape[2:]))):
            aj, bj = a.reshape(*a.shape[:2], -1)[..., j], b.reshape(*b.shape[:2], -1)[..., j]
            for method, statistic in (("mean", np.mean), ("sd", np.std)):
                error = np.hypot(az.mcse(aj, method=method), az.mcse(bj, method=method))
                assert abs(statistic(aj) - statistic(bj)) < 4 * error, (name, j, method)


@pytest.mark.algebra
@pytest.mark.algebra
@pytest.mark.parametrize("k", [1, 4, 30])
def test_statistics_at_many_h2_are_those_at_each(k):
    """P from dense matrices; few SNPs take products of columns, many their own way."""
    table, K, x = cohort(k=k)
    model = bl.LMM("y ~ age", table, K)
    data = model.rotated
    Z = model.basis.rotate(((x - x.mean()) / x.std()).to_numpy())
    h2 = np.array([0.0, 1e-6, 0.3, 0.7, 0.999, 1 - 1e-8])
    found = snp_terms(data, Z, h2)
    for g, h in enumerate(h2):
        W = np.diag(1 / np.maximum(1 + h * (data.s - 1), 1 - h))
        P = W - W @ data.C @ np.linalg.solve(data.C.T @ W @ data.C, data.C.T @ W)
        np.testing.assert_allclose(found.M[g], Z.T @ P @ Z, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(found.r[g], Z.T @ P @ data.y, rtol=1e-7, atol=1e-7)


def test_enumerated_statistics_are_those_of_each_subset():
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(30, 6)), rng.normal(size=30)
    M, r, phi = Z.T @ Z, Z.T @ y, 0.3
    logdet, explained = enumerate_models(M, r, phi)
    for g in range(64):
        members = [j for j in range(6) if g >> j & 1]
        A = M[np.ix_(members, members)] + np.eye(len(members)) / phi**2
        assert logdet[g] == pytest.approx(np.linalg.slogdet(phi**2 * A)[1], abs=1e-10)
        assert explained[g] == pytest.approx(r[members] @ np.linalg.solve(A, r[members]), abs=1e-10)


@pytest.mark.parametrize("k", [1, 2, 7, 15])
def test_any_number_of_snps_up_to_15(k):
    table, K, x = cohort(k=k)
    tree = bl.LMM("y ~ age", table, K).sample(x, SpikeSlab(0.1, (0.2,)), draws=200, seed=1)
    pip = tree["selection"]["inclusion_probability"]
    assert pip.shape == (k,)
    assert ((pip > 0) & (pip < 1)).all()
    shares = tree["posterior"]["included"].mean(("chain", "draw"))
    assert np.abs(shares - pip).max() < 4 * 0.5 / np.sqrt(800)
    models = tree["selection"]["model_probability"]
    assert len(models) == min(2**k, 1000)
    assert (np.diff(models) <= 0).all()
    if k < 10:
        assert models.sum() == pytest.approx(1)
        named = {name: float(p) for name, p in zip(models.model.to_numpy(), models, strict=True)}
        first = sum(p for name, p in named.items() if "rs0" in name.split(" + "))
        assert first == pytest.approx(float(pip[0]))


def test_more_than_15_are_refused():
    table, K, x = cohort(k=16)
    with pytest.raises(InputError, match=r"for 1 to 15 SNPs, but 16 came. Use .*horseshoe"):
        bl.LMM("y ~ age", table, K).sample(x, "spike_slab")


def test_complete_ld_shares_the_inclusion():
    table, K, x = cohort(k=3, effects=(1.2,))
    alone = bl.LMM("y ~ age", table, K).sample(x[["rs0"]], "spike_slab", draws=10, seed=1)
    assert alone["selection"]["inclusion_probability"][0] > 0.95
    twins = x[["rs0"]].assign(same=x["rs0"], turned=2 - x["rs0"])
    tree = bl.LMM("y ~ age", table, K).sample(twins, SpikeSlab(0.05, (0.4,)), draws=4000, seed=1)
    pip = tree["selection"]["inclusion_probability"].to_numpy()
    np.testing.assert_allclose(pip, pip[0], rtol=1e-8)
    probability = dict(
        zip(
            tree["selection"].model.to_numpy(),
            tree["selection"]["model_probability"].to_numpy(),
            strict=True,
        )
    )
    assert probability["rs0"] == pytest.approx(probability["same"], rel=1e-8)
    assert probability["none"] < 0.2
    means = tree["posterior"]["beta"].mean(("chain", "draw")).to_numpy()
    assert means[0] > 0 > means[2]
    assert np.isfinite(tree["posterior"]["beta"]).all()


def test_a_snp_equal_to_a_covariate_gets_its_prior_back():
    table, K, x = cohort(k=2)
    table = table.assign(age=x["rs0"] * 3 + 1)
    model = bl.LMM("y ~ age", table, K)
    tree = model.sample(x[["rs0"]], SpikeSlab(0.3, (0.2,)), draws=5000, seed=1)
    assert float(tree["selection"]["inclusion_probability"][0]) == pytest.approx(0.3, abs=1e-6)
    included = tree["posterior"]["included"].to_numpy().ravel()
    assert tree["posterior"]["beta_std"].to_numpy().ravel()[included].std() == pytest.approx(
        0.2, rel=5 / np.sqrt(2 * included.sum())
    )
    nuts = model.sample(x, draws=1500, seed=1)
    beta = nuts["posterior"]["beta_std"].to_numpy()[..., 0]
    assert abs(beta.mean()) < 4 * az.mcse(beta, method="mean")
    assert abs(beta.std() - 0.2) < 4 * az.mcse(beta, method="sd")


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["horseshoe", "r2d2"])
def test_a_snp_equal_to_a_covariate_under_other_priors(prior):
    table, K, x = cohort(k=2)
    table = table.assign(age=x["rs0"] * 3 + 1)
    tree = bl.LMM("y ~ age", table, K).sample(
        x, prior, draws=1500, tune=1500, target_accept=0.99, seed=1
    )
    beta = tree["posterior"]["beta_std"].to_numpy()
    assert abs(beta[..., 0].mean()) < 5 * az.mcse(beta[..., 0], method="mean")


@pytest.mark.parametrize("prior", ["normal", "spike_slab"])
def test_units_order_and_seed(prior):
    """Per allele and standardised; in the order asked for; y in other units."""
    table, K, x = cohort(k=2)
    model = bl.LMM("y ~ age", table, K)
    asked = x[["rs1", "rs0"]]
    tree = model.sample(asked, prior, draws=800, seed=7)
    posterior = tree["posterior"].dataset
    assert list(posterior.snp.to_numpy()) == ["rs1", "rs0"]
    sd = posterior["sd"].to_numpy()[..., None]
    np.testing.assert_allclose(
        posterior["beta"], posterior["beta_std"] * sd / asked.to_numpy().std(axis=0), rtol=1e-10
    )
    np.testing.assert_allclose(sd[..., 0] ** 2, posterior["s2"])
    np.testing.assert_allclose(tree["constant_data"]["x_sd"], asked.to_numpy().std(axis=0))
    again = model.sample(asked, prior, draws=800, seed=7)
    assert again["posterior"].dataset.drop_attrs().equals(posterior.drop_attrs())
    turned = bl.LMM("y ~ age", table.assign(y=table.y * 1000), K).sample(
        x, prior, draws=800, seed=8
    )
    for snp in x:
        a, b = posterior["beta"].sel(snp=snp), turned["posterior"]["beta"].sel(snp=snp) / 1000
        assert abs(a.mean() - b.mean()) < 5 * np.hypot(a.std(), b.std()) / np.sqrt(800)
        assert np.log(a.std() / b.std()) == pytest.approx(0, abs=0.15)


def test_winners_curse():
    """The best of 300 SNPs without effect: its posterior is smaller than the scan's estimate."""
    rng = np.random.default_rng(3)
    x = rng.binomial(2, 0.3, size=(250, 300))
    ids = [f"i{j}" for j in range(250)]
    genotypes = bl.Genotypes.from_array(x, ids)
    y = pd.Series(rng.normal(size=250), ids, name="y")
    model = bl.LMM(y, kernel=bl.grm(genotypes))
    hit = model.scan(genotypes, progress=False).nsmallest(1, "p_wald").iloc[0]
    for prior in ("spike_slab", SpikeSlab(0.01), SpikeSlab(1 - 1e-9, (0.2,))):
        tree = model.sample([hit.id], prior, draws=4000, seed=1)
        beta = tree["posterior"]["beta"].to_numpy().ravel()
        assert tree["constant_data"]["effect_allele"].item() == hit.ea
        assert np.sign(beta.mean()) == np.sign(hit.beta)
        assert abs(beta.mean()) < abs(hit.beta)
    assert tree.attrs["snp_prior"] == "0, or with probability 1 normal, sd 0.2"


def test_draws_with_effects_carry_everything():
    table, K, x = cohort(k=3)
    model = bl.LMM("y ~ age", table, K)
    tree = model.sample(x, "spike_slab", draws=100, seed=1, u=True, posterior_predictive=True)
    assert tree["posterior"]["u"].shape == (1, 400, 60)
    assert tree["log_likelihood"]["y"].shape == (1, 400, 60)
    assert tree["posterior_predictive"]["y"].shape == (1, 400, 60)
    assert tree.attrs["h2_prior"] == "Uniform(0, 1)"
    assert tree.attrs["seed"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("prior", [Normal(0.05), Horseshoe()], ids=["normal", "horseshoe"])
def test_two_hundred_snps(prior):
    rng = np.random.default_rng(3)
    n, k = 400, 200
    x = rng.binomial(2, 0.3, size=(n, k)).astype(float)
    ids = [f"i{j}" for j in range(n)]
    effects = np.zeros(k)
    effects[[3, 50]] = 0.5, -0.5
    u = rng.binomial(2, 0.3, size=(n, 300)) @ rng.normal(size=300) / 20
    y = pd.Series(x @ effects + u + rng.normal(size=n), ids, name="y")
    kernel = rng.binomial(2, 0.3, size=(n, 100))
    model = bl.LMM(y, kernel=bl.GRM(bl.grm(kernel).matrix, samples=ids))
    table = pd.DataFrame(x, ids, [f"rs{j}" for j in range(k)])
    # The worst of 200 effects needs longer chains than the default. A single divergence comes and
    # goes with the last bits of the products, which depend on the number of BLAS threads.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ divergent transitions[^;]*\.$", SamplingWarning)
        tree = model.sample(table, prior, draws=2000, seed=1)
    diverging = tree["sample_stats"].dataset.get("diverging")
    assert diverging is None or float(diverging.mean()) < 1e-3
    means = tree["posterior"]["beta"].mean(("chain", "draw")).to_numpy()
    assert set(np.argsort(-np.abs(means))[:2]) == {3, 50}
    if isinstance(prior, Horseshoe):
        assert np.median(np.abs(means)) < 0.05
        assert means[3] == pytest.approx(0.5, abs=0.25)
