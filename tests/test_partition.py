import re
import warnings

import dense
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as bl
from bayeslmm.numerics.importance import Mixture, importance_sample
from bayeslmm.partition import model as partition
from bayeslmm.partition.components import Evaluation
from bayeslmm.partition.shares import (
    Target,
    barycentric,
    chebyshev_extrema,
    find_mode,
    posterior_draws,
    to_coordinates,
    to_shares,
)


def cohort(n, sizes, shares, seed, c=1):
    """Genotypes (n, sum of sizes), annotations, and a phenotype with these shares of variance."""
    rng = np.random.default_rng(seed)
    ids = [f"s{i}" for i in range(n)]
    x = rng.binomial(2, rng.uniform(0.1, 0.5, sum(sizes)), size=(n, sum(sizes)))
    label = np.repeat([f"set{k}" for k in range(len(sizes))], sizes)
    g = bl.Genotypes.from_array(x, ids)
    kernels = bl.partition_grms(
        g, pd.Series(label, g.variants.id), scale="centered", dtype="float64"
    )
    y = np.sqrt(1 - sum(shares)) * rng.normal(size=n)
    for K, share in zip(kernels.values(), shares, strict=True):
        unit = dense.centred(K.matrix)
        values, U = np.linalg.eigh(unit / (np.trace(unit) / n))
        root = U * np.sqrt(np.maximum(values, 0))
        y = y + np.sqrt(share) * root @ rng.normal(size=n)
    table = pd.DataFrame({"y": y, "age": rng.normal(50, 9, n)}, index=ids)
    return table, kernels


@pytest.fixture(scope="module")
def pair():
    table, kernels = cohort(120, (60, 150), (0.4, 0.2), 1)
    return bl.LMM("y ~ age", table, kernels=kernels)


@pytest.fixture(scope="module")
def triple():
    table, kernels = cohort(90, (30, 60, 90), (0.3, 0.0, 0.3), 3)
    return bl.LMM("y ~ 1", table, kernels=kernels)


def moments(tree, name="h2_k"):
    values = tree["posterior"][name].to_numpy()
    values = values.reshape(-1, *values.shape[2:])
    return values.mean(axis=0), values.std(axis=0)


# -- other programs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd_and_even(mice):
    """The kernels of GEMMA's run: SNPs of odd and even chromosomes, filtered as by -gk 1."""
    have = mice.phenotypes.cd8.notna().to_numpy()
    analysed = mice.genotypes.select(samples=have).select(min_maf=0.01, max_missing=0.05)
    g = mice.genotypes.select(variants=list(analysed.variants.id))
    odd = g.variants.chrom.astype(int) % 2 == 1
    by = {"odd": odd.to_numpy(), "even": ~odd.to_numpy()}
    kernels = bl.partition_grms(g, by, scale="centered", dtype="float64")
    return bl.LMM("cd8 ~ 1", mice.phenotypes, kernels=kernels)


def printed(golden, label):
    text = (golden / "gemma_cd8_two_kernels.log.txt").read_text()
    return np.array(re.search(rf"## {re.escape(label)} = +(.+)", text)[1].split(), dtype=float)


@pytest.mark.golden
def test_two_kernels_equal_gemma(odd_and_even, golden):
    fit = odd_and_even.reml()
    table = fit.components
    assert fit.converged
    # GEMMA prints 6 digits; its AI-REML stops at a relative change of 1e-5 or so. Seen: 4e-6.
    for found, label in [
        (table.h2[:2], "pve estimates"),
        (table.h2_se[:2], "se(pve)"),
        (table.s2, "sigma2 estimates"),
        (table.s2_se, "se(sigma2)"),
        ([fit.h2], "total pve"),
        ([fit.h2_se], "se(total pve)"),
    ]:
        np.testing.assert_allclose(found, printed(golden, label), rtol=2e-5)
    assert fit.n == printed(golden, "number of analyzed individuals")[0]


@pytest.mark.golden
def test_posterior_is_near_gemma_under_flat_priors(odd_and_even, golden):
    tree = odd_and_even.posterior(2000, method="importance", evaluations=300, seed=1)
    mean, sd = moments(tree)
    gemma, se = printed(golden, "pve estimates"), printed(golden, "se(pve)")
    assert (np.abs(mean - gemma) < 0.3 * sd).all()
    np.testing.assert_allclose(sd, se, rtol=0.15)
    assert tree.attrs["ess"] > 220
    assert tree.attrs["pareto_k"] < 0.5


# -- closed forms, and other ways to the same ------------------------------------------------------


@pytest.mark.algebra
def test_one_kernel_is_the_model_of_one_kernel():
    table, kernels = _one_kernel()
    one = bl.LMM("y ~ age", table, kernels={"all": kernels})
    lmm = bl.LMM("y ~ age", table, kernels=None, kernel=kernels)
    assert isinstance(one, bl.PartitionedLMM)
    assert type(lmm) is bl.LMM
    a, b = one.reml(), lmm.reml()
    assert a.components.h2["all"] == pytest.approx(b.h2, abs=1e-6)
    assert a.loglik == pytest.approx(b.loglik, abs=1e-8)
    np.testing.assert_allclose(a.b.to_numpy(), b.b.to_numpy(), rtol=1e-4)
    tree, exact = one.posterior(4000, seed=5), lmm.h2_posterior()
    h2 = tree["posterior"].h2.to_numpy().ravel()
    assert tree.attrs["log_marginal_likelihood"] == pytest.approx(exact.log_integral, abs=1e-6)
    assert stats.kstest(h2, exact.cdf).pvalue > 1e-3
    direct = lmm.posterior(4000, seed=6)
    for name in ("s2", "s2_e", "b"):
        (m1, s1), (m2, s2) = moments(tree, name), moments(direct, name)
        assert (np.abs(m1 - m2) < 5 * s2 / np.sqrt(2000)).all()
        np.testing.assert_allclose(s1, s2, rtol=0.08)
    spread = one.posterior(4000, seed=5, method="importance", evaluations=300)
    assert spread.attrs["log_marginal_likelihood"] == pytest.approx(exact.log_integral, abs=0.03)
    assert moments(spread, "h2")[0] == pytest.approx(exact.mean, abs=0.2 * exact.sd)


def _one_kernel():
    rng = np.random.default_rng(3)
    ids = [f"s{i}" for i in range(100)]
    g = bl.Genotypes.from_array(rng.binomial(2, 0.3, size=(100, 150)), ids)
    K = bl.grm(g, dtype="float64")
    V = dense.centred(K.matrix) + np.eye(100)
    y = np.linalg.cholesky(V) @ rng.normal(size=100)
    return pd.DataFrame({"y": y, "age": rng.normal(50, 9, 100)}, index=ids), K


@pytest.mark.algebra
def test_quadrature_equals_a_grid(pair):
    tree = pair.posterior(8000, seed=2)
    assert tree.attrs["method"] == "quadrature"
    nodes, weights = np.polynomial.legendre.leggauss(30)
    u, w = (nodes + 1) / 2, weights / 2
    t, r = (a.ravel() for a in np.meshgrid(u, u, indexing="ij"))
    shares = np.column_stack([t * r, t * (1 - r), 1 - t])
    log_p = pair.parts.loglik(shares) + np.log(2 * t * np.outer(w, w).ravel())
    total = np.logaddexp.reduce(log_p)
    assert tree.attrs["log_marginal_likelihood"] == pytest.approx(total, abs=2e-3)
    p = np.exp(log_p - total)
    mean = p @ shares[:, :2]
    sd = np.sqrt(p @ (shares[:, :2] - mean) ** 2)
    found, found_sd = moments(tree)
    assert (np.abs(found - mean) < 4 * sd / np.sqrt(8000)).all()
    np.testing.assert_allclose(found_sd, sd, rtol=0.04)
    draws = tree["posterior"].h2_k.to_numpy().reshape(-1, 2)
    centred = shares[:, :2] - mean
    expected = p @ centred.prod(axis=1) / sd.prod()
    assert np.corrcoef(draws.T)[0, 1] == pytest.approx(expected, abs=0.05)


@pytest.mark.algebra
def test_effects_and_scale_are_those_of_weighted_draws(pair):
    """b and s2 by Rao-Blackwell over a grid of shares, against the draws."""
    tree = pair.posterior(8000, seed=3)
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(3), size=3000)
    at = [pair.parts.evaluate(s) for s in shares]
    log_w = np.array([one.loglik for one in at])
    w = np.exp(log_w - np.logaddexp.reduce(log_w))
    df = pair.parts.df
    s2 = np.array([one.Q / (df - 2) for one in at])
    b = np.array([one.b for one in at])
    mean_b = w @ b
    cov = np.array([np.diag(one.covariance) * one.Q / (df - 2) for one in at])
    sd_b = np.sqrt(w @ (cov + (b - mean_b) ** 2))
    found, found_sd = moments(tree, "b")
    np.testing.assert_allclose(found_sd, sd_b, rtol=0.05)
    assert (np.abs(found - mean_b) < 0.1 * sd_b).all()
    assert moments(tree, "s2")[0] == pytest.approx(w @ s2, rel=0.02)
    posterior = tree["posterior"].dataset
    kappa = pair.kappa.to_numpy()
    np.testing.assert_allclose(
        posterior.s2, (posterior.s2_k * kappa).sum("kernel") + posterior.s2_e, rtol=1e-10
    )


@pytest.mark.algebra
def test_three_kernels_by_importance_by_chains_and_brute_force(triple):
    rng = np.random.default_rng(5)
    shares = rng.dirichlet(np.ones(4), size=15_000)
    log_w = triple.parts.loglik(shares)
    w = np.exp(log_w - np.logaddexp.reduce(log_w))
    mean = w @ shares[:, :3]
    sd = np.sqrt(w @ (shares[:, :3] - mean) ** 2)
    log_marginal = np.logaddexp.reduce(log_w) - np.log(len(shares))
    tree = triple.posterior(4000, seed=1)
    assert tree.attrs["method"] == "importance sampling"
    assert tree.attrs["ess"] > 200
    assert tree.attrs["pareto_k"] < 0.7
    assert tree.attrs["log_marginal_likelihood"] == pytest.approx(log_marginal, abs=0.1)
    assert (np.abs(moments(tree)[0] - mean) < 0.25 * sd).all()
    np.testing.assert_allclose(moments(tree)[1], sd, rtol=0.2)
    chains = triple.posterior(4000, seed=1, method="mcmc")
    assert chains.attrs["method"] == "Metropolis"
    assert chains.attrs["r_hat"] < 1.05
    assert (np.abs(moments(chains)[0] - mean) < 0.25 * sd).all()


@pytest.mark.algebra
@pytest.mark.parametrize("K", [1, 2, 5])
def test_uniform_shares_are_normal_coordinates(K):
    rng = np.random.default_rng(K)
    shares = rng.dirichlet(np.ones(K + 1), size=2000)
    x = to_coordinates(shares)
    np.testing.assert_allclose(to_shares(x), shares, rtol=1e-9)
    for column in x.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    correlations = np.corrcoef(x.T)[np.triu_indices(K, 1)] if K > 1 else np.zeros(0)
    assert (np.abs(correlations) < 4 / np.sqrt(2000)).all()
    # Far out no share is lost: they are positive and sum to 1.
    far = to_shares(np.array([[-8.0] * K, [8.0] * K]))
    assert (far > 0).all()
    np.testing.assert_allclose(far.sum(axis=1), 1, rtol=1e-15)
    # The density of x is that of the shares times the volume of its map, by differences.
    flat = bl.priors.as_share_prior("uniform", [f"{k}" for k in range(K)])
    target = Target(Silent(K), flat.log_density)
    at, step = rng.normal(size=K), 1e-5
    moved = [to_shares(at + s * step * np.eye(K))[:, :K] for s in (1, -1)]
    volume = np.linalg.slogdet((moved[0] - moved[1]) / (2 * step))[1]
    expected = flat.log_density(to_shares(at)[None])[0] + volume
    assert target.log_jacobian_and_prior(at[None])[0] == pytest.approx(expected, abs=1e-7)


@pytest.mark.algebra
def test_the_mode_is_one(triple):
    """No point nearby is higher, on a boundary of REML and inside; and the curvature is close."""
    target = Target(triple.parts, triple.prior.log_density)
    start = triple.reml().components.h2.to_numpy()
    assert (start == 0).any()
    mode, covariance, _ = find_mode(target, start)
    rng = np.random.default_rng(3)
    steps = rng.normal(size=(60, 3)) @ np.linalg.cholesky(covariance).T
    top = target.evaluate(mode[None])[0][0]
    near = target.evaluate(mode + 0.1 * steps)[0]
    # At the mode within a gain of 1e-4, which is where the search ends.
    assert (near < top + 1e-4).all()
    again = find_mode(target, np.full(4, 0.25))[0]
    np.testing.assert_allclose(again, mode, atol=0.05)


@pytest.mark.algebra
def test_interpolation_of_ratios():
    x = np.linspace(0.1, 0.7, 50)
    nodes = chebyshev_extrema(0.1, 0.7, 16)
    assert set(chebyshev_extrema(0.1, 0.7, 8).round(12)) <= set(nodes.round(12))
    np.testing.assert_allclose(barycentric(nodes, x) @ np.exp(3 * nodes), np.exp(3 * x), rtol=1e-10)
    np.testing.assert_allclose(barycentric(nodes, nodes), np.eye(17), atol=1e-12)


# -- priors ----------------------------------------------------------------------------------------


class Silent:
    """A likelihood that is the same everywhere."""

    df, c = 3, 0

    def __init__(self, K):
        self.kappa = np.ones(K)

    def evaluate(self, shares):
        return Evaluation(0.0, 1.0, np.zeros(0), np.zeros((0, 0)))


@pytest.mark.algebra
def test_without_information_the_posterior_is_the_prior():
    """Kernels and phenotype of three contrasts tell next to nothing."""
    prior = bl.priors.as_share_prior(bl.priors.Dirichlet(2.0, residual=3), ["a", "b", "c"])
    target = Target(Silent(3), prior.log_density)
    sample = importance_sample(
        target.evaluate,
        Mixture(np.ones(1), np.zeros((1, 3)), np.eye(3)[None]),
        np.random.default_rng(1),
        ess=100,
        batch=800,
        least=4000,
    )
    assert sample.log_integral == pytest.approx(0, abs=0.05)
    w = sample.weights
    np.testing.assert_allclose(w @ to_shares(sample.points), np.array([2, 2, 2, 3]) / 9, atol=0.01)


@pytest.mark.algebra
def test_priors_of_shares_are_densities():
    rng = np.random.default_rng(2)
    shares = rng.dirichlet(np.ones(3), size=40_000)
    beta = bl.priors.HeritabilitySplit(bl.priors.beta(2, 3), concentration={"a": 1, "b": 2})
    for prior, h2 in [(beta, 0.4), (bl.priors.Dirichlet({"a": 2, "b": 1}, 2), 0.6)]:
        made = bl.priors.as_share_prior(prior, ["a", "b"])
        density = np.exp(made.log_density(shares)) / 2  # the uniform one is 2
        assert density.mean() == pytest.approx(1, abs=0.02)
        assert (density * shares[:, :2].sum(axis=1)).mean() == pytest.approx(h2, abs=0.02)
    dirichlet = bl.priors.as_share_prior(bl.priors.Dirichlet(2, 1.5), ["a", "b"])
    expected = stats.dirichlet([2, 2, 1.5]).logpdf(shares[:5].T)
    np.testing.assert_allclose(dirichlet.log_density(shares[:5]), expected)
    for prior, message in [
        ("flat", "is no prior of shares"),
        (bl.priors.Dirichlet({"a": 1}), "has concentrations of 'a', but the kernels are 'a', 'b'"),
        (lambda shares: -shares[:, 0], "finite and not negative"),
    ]:
        with pytest.raises(bl.InputError, match=message):
            bl.priors.as_share_prior(prior, ["a", "b"]).log_density(shares[:2])
    with pytest.raises(bl.InputError, match="must be above 0"):
        bl.priors.Dirichlet(-1)
    with pytest.raises(bl.InputError, match="point mass at 0 has no place"):
        bl.priors.HeritabilitySplit(bl.priors.uniform(spike=0.5))


@pytest.mark.algebra
def test_a_prior_on_the_sum_is_that_of_one_kernel(pair):
    """With the split fixed near (1/2, 1/2), two kernels are one."""
    mixed = sum(
        dense.centred(K.matrix) / kappa
        for K, kappa in zip(pair.grms.values(), pair.kappa, strict=True)
    )
    table = pair.C.assign(y=pair.y)
    one = bl.LMM("y ~ age", table, bl.GRM(mixed, list(pair.ids)), h2_prior=bl.priors.beta(3, 2))
    prior = bl.priors.HeritabilitySplit(bl.priors.beta(3, 2), concentration=20_000)
    tree = pair.posterior(4000, prior=prior, seed=1)
    exact = one.h2_posterior()
    assert moments(tree, "h2")[0] == pytest.approx(exact.mean, abs=0.1 * exact.sd)
    assert moments(tree, "h2")[1] == pytest.approx(exact.sd, rel=0.05)


# -- PyMC ------------------------------------------------------------------------------------------


def test_pymc_model_agrees():
    import nutpie
    import pymc as pm

    table, kernels = cohort(30, (20, 60), (0.4, 0.3), 7)
    small = bl.LMM("y ~ 1", table, kernels=kernels)
    flat = {"sd": pm.HalfFlat.dist(), "b": pm.Flat.dist(shape=1)}
    with small.pymc_model(priors=flat) as model:
        pm.Potential("scale_free", -pm.math.log(model["sd"]))  # p(s2) ~ 1/s2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        nuts = nutpie.sample(
            nutpie.compile_pymc_model(model),
            draws=500,
            tune=300,
            chains=4,
            cores=2,
            seed=1,
            progress_bar=False,
        )
    tree = small.posterior(4000, seed=2)
    for name in ("h2_k", "h2", "s2", "s2_k", "s2_e", "b"):
        (m1, s1), (m2, s2) = moments(nuts, name), moments(tree, name)
        assert (np.abs(m1 - m2) < 0.15 * s2).all(), name
        np.testing.assert_allclose(s1, s2, rtol=0.2)


# -- calibration -----------------------------------------------------------------------------------


@pytest.mark.calibration
@pytest.mark.parametrize(("K", "replicates"), [(2, 60), (3, 60)])
def test_simulation_based_calibration(K, replicates):
    """Ranks of the true shares among posterior draws are uniform; the long form is in docs."""
    table, kernels = cohort(50, (25,) * K, (0.2,) * K, 10)
    model = bl.LMM("y ~ 1", table, kernels=kernels)
    rng = np.random.default_rng(11)
    ranks = np.empty((replicates, K + 1))
    units = [dense.centred(grm.matrix) for grm in kernels.values()]
    units = [unit * len(unit) / np.trace(unit) for unit in units]
    for i in range(replicates):
        truth = rng.dirichlet(np.ones(K + 1))
        V = sum(h * M for h, M in zip(truth, units, strict=False)) + truth[-1] * np.eye(50)
        y = 3 + 2 * np.linalg.cholesky(V) @ rng.normal(size=50)
        parts = model.with_phenotype(y).parts
        start = np.full(K + 1, 1 / (K + 1))
        target = Target(parts, model.prior.log_density)
        found = posterior_draws(target, start, 99, rng, evaluations=300, progress=False)
        ranks[i] = (found.shares < truth).mean(axis=0)
    for column in ranks.T:
        jittered = (column * 99 + rng.random(replicates)) / 100
        assert stats.kstest(jittered, "uniform").pvalue > 1e-3


# -- enrichment ------------------------------------------------------------------------------------


def test_chromosome_17_is_enriched(mice):
    """A known cohort: h2 of 438 SNPs about 0.23 (sd 0.05), of the others 0.39 (0.04)."""
    have = mice.phenotypes.cd8.notna().to_numpy()
    analysed = mice.genotypes.select(samples=have).select(min_maf=0.01, max_missing=0.05)
    g = mice.genotypes.select(variants=list(analysed.variants.id))
    by = {"chr17": (g.variants.chrom == "17").to_numpy()}
    kernels = bl.partition_grms(g, by, scale="centered")
    model = bl.LMM("cd8 ~ 1", mice.phenotypes, kernels=kernels)
    tree = model.posterior(4000, method="importance", evaluations=300, seed=1)
    table = model.enrichment(tree)
    assert table.n_variants.to_dict() == {"chr17": 438, "rest": 10_330}
    assert table.h2["chr17"] == pytest.approx(0.235, abs=0.012)
    assert table.h2_sd["chr17"] == pytest.approx(0.051, abs=0.008)
    assert table.h2["rest"] == pytest.approx(0.388, abs=0.01)
    assert table.h2_sd["rest"] == pytest.approx(0.041, abs=0.006)
    assert table.enrichment["chr17"] == pytest.approx(9.2, abs=0.4)
    assert table.enrichment_sd["chr17"] == pytest.approx(1.72, abs=0.25)
    assert table.p_enriched["chr17"] == 1
    assert table.p_enriched["rest"] == 0


@pytest.mark.algebra
def test_enrichment_of_known_draws():
    """Two annotations that share variants, by counting."""
    rng = np.random.default_rng(1)
    g = bl.Genotypes.from_array(rng.binomial(2, 0.4, size=(60, 100)), [f"s{i}" for i in range(60)])
    member = pd.DataFrame({"all": True, "few": np.arange(100) < 20}, index=g.variants.id)
    kernels = bl.partition_grms(g, member, dtype="float64")
    y = pd.Series(rng.normal(size=60), [f"s{i}" for i in range(60)])
    model = bl.LMM(y, kernels=kernels)
    tree = model.posterior(400, seed=1)
    table = model.enrichment(tree)
    draws = tree["posterior"].h2_k.to_numpy().reshape(-1, 2)
    few = draws[:, 0] * 0.2 + draws[:, 1]
    total = draws.sum(axis=1)
    assert table.attrs["overlapping"]
    assert table.h2["few"] == pytest.approx(few.mean())
    assert table.h2["all"] == pytest.approx(total.mean())
    assert table.enrichment["few"] == pytest.approx((few / total / 0.2).mean())
    assert table.enrichment["all"] == pytest.approx(1)
    assert table.p_enriched["few"] == 1  # it cannot be depleted in this model
    assert table.prior_p_enriched["few"] == 1
    assert np.isnan(table.bf_enriched["few"])
    # Half of the heritability is that of "few", and a fifth of the other half.
    assert table.prior_enrichment["few"] == pytest.approx(0.6 / 0.2)
    assert np.isnan(table.share_variance["few"])
    with pytest.raises(bl.InputError, match="not of a model with the kernels 'all', 'few'"):
        model.enrichment(bl.LMM(y, kernels={"a": kernels["all"]}).posterior(40, seed=1))
    home = bl.kernels.household(pd.Series(np.arange(60) // 3, y.index))
    shared = bl.LMM(y, kernels={"g": kernels["all"], "home": home})
    with pytest.raises(bl.InputError, match="only 1 knows its number of variants"):
        shared.enrichment(seed=1)


@pytest.mark.algebra
def test_enrichment_is_seen_beside_its_prior(pair):
    """The prior's mean and probability of enrichment, against draws of the prior."""
    rng = np.random.default_rng(2)
    concentrations = {"set0": 2.0, "set1": 0.5}
    for prior, alpha in [
        ("uniform", (1, 1, 1)),
        (bl.priors.Dirichlet(concentrations, 3), (2, 0.5, 3)),
        (bl.priors.HeritabilitySplit("uniform", concentrations), (2, 0.5, 3)),
    ]:
        tree = pair.posterior(400, prior=prior, seed=1)
        drawn = rng.dirichlet(alpha, size=40_000)[:, :2]
        fold = drawn[:, 0] / drawn.sum(axis=1) / (60 / 210)
        row = pair.enrichment(tree).loc["set0"]
        assert row.prior_enrichment == pytest.approx(fold.mean(), abs=4 * fold.std() / 200)
        assert row.prior_p_enriched == pytest.approx((fold > 1).mean(), abs=0.01)
        odds = row.p_enriched / (1 - row.p_enriched)
        prior_odds = row.prior_p_enriched / (1 - row.prior_p_enriched)
        assert row.bf_enriched == pytest.approx(odds / prior_odds)
    mine = pair.posterior(400, prior=lambda shares: np.ones(len(shares)), seed=1)
    assert pair.enrichment(mine).filter(regex="prior|bf").isna().all(axis=None)


@pytest.mark.calibration
def test_enrichment_is_found_and_not_invented():
    """Five per cent of the variants with half of h2, and with their own share: 12 cohorts each."""
    inside = {"tenfold": [], "null": []}
    for seed in range(12):
        # Tenfold: share of h2 10 x 0.05 = 0.5 in 5% of the variants.
        for name, shares in (("tenfold", (0.3, 0.3)), ("null", (0.03, 0.57))):
            table, kernels = cohort(300, (20, 380), shares, 100 + seed)
            model = bl.LMM("y ~ 1", table, kernels=kernels)
            tree = model.posterior(1000, method="importance", evaluations=300, seed=seed)
            inside[name].append(model.enrichment(tree).loc["set0"])
    tenfold, null = (pd.DataFrame(rows) for rows in inside.values())
    assert tenfold.enrichment.mean() == pytest.approx(10, abs=1.5)
    covered = (tenfold.enrichment_low < 10) & (tenfold.enrichment_high > 10)
    assert covered.sum() >= 9
    assert (tenfold.p_enriched > 0.99).all()
    assert ((null.enrichment_low < 1) & (null.enrichment_high > 1)).sum() >= 9
    assert (null.p_enriched > 0.99).sum() <= 1


# -- labels, tests, messages -----------------------------------------------------------------------


def test_samples_are_matched_by_id_and_accounted_for(pair):
    table = pair.C.assign(y=pair.y)
    first, second = pair.grms.values()
    shuffled = second.subset(list(pair.ids[::-1])[:100])
    table.loc["s50", "y"] = np.nan
    model = bl.LMM("y ~ age", table[::-1], kernels={"a": first, "b": shuffled})
    assert len(model.y) == 99
    assert model.ids.isin(shuffled.samples).all()
    assert model.samples.reason["s50"] == "phenotype missing"
    assert (model.samples.reason[pair.ids[:20]] == "not in the kernel 'b'").all()
    straight = bl.LMM(
        "y ~ age",
        table.loc[model.ids],
        kernels={"b": second.subset(model.ids), "a": first.subset(model.ids[::-1])},
    )
    assert model.reml().loglik == pytest.approx(straight.reml().loglik, abs=1e-8)
    assert "20 dropped: not in the kernel 'b'" in repr(model)
    assert "PartitionedLMM  y ~ age" in model._repr_html_()
    fit = model.reml()
    assert "h2 = " in str(fit)
    assert "<table" in fit._repr_html_()


@pytest.mark.algebra
def test_likelihood_ratio_tests(triple):
    table = triple.lrt()
    assert list(table.index) == ["set0", "set1", "set2", "all"]
    fit = triple.reml()
    at_0 = fit.components.at_0
    assert at_0["set1"]
    assert np.isnan(fit.components.h2_se["set1"])
    assert table.lrt["set1"] == pytest.approx(0, abs=1e-6)
    assert table.p["set1"] == 1
    without = dict(triple.grms)
    del without["set0"]
    rows = triple.C.assign(y=triple.y)
    reduced = bl.LMM("y ~ 1", rows, kernels=without).reml()
    assert table.lrt["set0"] == pytest.approx(2 * (fit.loglik - reduced.loglik), abs=1e-6)
    assert table.loglik["set0"] == pytest.approx(reduced.loglik, abs=1e-7)
    null = dense.reml_loglik(triple.y, triple.C.to_numpy(), np.eye(90) * triple.y.var(ddof=1))
    assert table.loglik["all"] == pytest.approx(null, abs=1e-8)
    with pytest.raises(bl.InputError, match="No kernel 'set9'"):
        triple.lrt(["set9"])


def test_components_join_several_kernels_when_it_is_said_whose(pair):
    table = pair.C.assign(y=pair.y)
    scores = bl.pca(bl.eigenbasis(pair.grms["set1"]), 2)
    model = bl.LMM("y ~ age + pcs(2)", table, kernels=pair.grms, pcs=scores)
    assert list(model.C.columns) == ["Intercept", "age", "PC1", "PC2"]
    one = bl.LMM("y ~ age + pcs(2)", table, kernels={"set1": pair.grms["set1"]})
    np.testing.assert_allclose(np.abs(model.C.PC1), np.abs(one.C.PC1), atol=1e-8)


@pytest.mark.parametrize(
    "prior",
    [
        "uniform",
        bl.priors.HeritabilitySplit(bl.priors.beta(2, 3), 0.5),
        bl.priors.HeritabilitySplit(stats.beta(2, 3)),
    ],
    ids=repr,
)
def test_copies_are_the_same_model(pair, prior):
    """Here, and in another process: what Dask and joblib send is pickled."""
    import pickle
    from copy import copy, deepcopy

    table = pair.C.assign(y=pair.y)
    model = bl.LMM("y ~ age", table, kernels=pair.grms, prior=prior)
    sent = pickle.loads(pickle.dumps(model))  # before anything is computed, and after
    expected = model.posterior(100, seed=1)["posterior"].dataset
    for again in (sent, pickle.loads(pickle.dumps(model)), copy(model), deepcopy(model)):
        assert type(again) is bl.PartitionedLMM
        assert again.reml().loglik == model.reml().loglik
        assert again.posterior(100, seed=1)["posterior"].dataset.equals(expected)


def test_kernels_that_are_not_genetic_are_no_heritability():
    table, kernels = cohort(80, (100, 20), (0.4, 0.0), 4)
    home = bl.kernels.household(pd.Series(np.arange(80) // 4, table.index))
    model = bl.LMM("y ~ 1", table, kernels={"g": kernels["set0"], "home": home})
    assert model.genetic.tolist() == [True, False]
    assert "not genetic" in repr(model)
    posterior = model.posterior(400, seed=1)["posterior"].dataset
    np.testing.assert_allclose(posterior.h2, posterior.h2_k.sel(kernel="g"))
    fit = model.reml()
    assert fit.h2 == fit.components.h2["g"]


def test_messages(pair):
    K = pair.grms["set0"]
    n = len(pair.y)
    table = pair.C.assign(y=pair.y)
    other = bl.GRM(K.matrix, [f"x{i}" for i in range(n)])
    indefinite = bl.GRM(K.matrix - 0.15 * np.eye(n), K.samples)
    crooked = K.matrix.copy()
    crooked[0, 1] += 1
    cases = [
        ({}, "kernels must be a mapping"),
        ({"a": None}, "Kernel 'a' is None"),
        ({"residual": K}, "names of their own, other than 'residual'"),
        ({"a": K, "b": other}, "no sample in common"),
        ({"a": K, "b": np.eye(n)}, "'a' named, .*'b' not named"),
        ({"a": bl.GRM(crooked, K.samples)}, "Kernel 'a' is not symmetric"),
        ({"a": bl.GRM(crooked * np.nan, K.samples)}, "Kernel 'a' is not finite"),
        ({"a": indefinite}, "Kernel 'a' is not positive-semidefinite: .* run from -"),
        ({"a": bl.GRM(2 * np.eye(n), K.samples)}, "'a' is proportional to the identity"),
        ({"a": K, "b": K}, "'a' is a linear combination of 'b'"),
    ]
    for kernels, message in cases:
        with pytest.raises(bl.InputError, match=message):
            bl.LMM("y ~ 1", table, kernels=kernels).reml()
    with pytest.raises(bl.InputError, match="Give either kernel or kernels"):
        bl.LMM("y ~ 1", table, kernel=K, kernels={"a": K})
    with pytest.raises(bl.InputError, match=r"pcs\(2\): of which of the kernels 'a', 'b'\?"):
        bl.LMM("y ~ pcs(2)", table, kernels={"a": K, "b": pair.grms["set1"]})
    with pytest.raises(bl.InputError, match=r"prior=bl.priors.Dirichlet"):
        bl.LMM("y ~ 1", table, kernels={"a": K}, h2_prior="uniform")
    with pytest.raises(bl.InputError, match="that of one kernel is h2_prior="):
        bl.LMM("y ~ 1", table, K, prior="uniform")
    for options, message in [
        ({"draws": 0}, "At least one draw"),
        ({"method": "gibbs"}, "method='gibbs' is unknown"),
        ({"method": "importance", "evaluations": 9}, "at least 150 evaluations"),
    ]:
        with pytest.raises(bl.InputError, match=message):
            pair.posterior(seed=1, **options)
    with pytest.raises(bl.InputError, match="there are 'share', 'sd', 's2', 'b'"):
        pair.pymc_model(priors={"h2": None})


def test_warnings(pair):
    K = pair.grms["set0"]
    rng = np.random.default_rng(1)
    z = rng.normal(size=(len(K.samples), 3))
    alike = bl.GRM(K.matrix + 3e-3 * z @ z.T, K.samples)
    table = pair.C.assign(y=pair.y)
    model = bl.LMM("y ~ 1", table, kernels={"a": K, "b": alike})
    with pytest.warns(bl.IdentifiabilityWarning, match="'a' is nearly a linear combination of 'b'"):
        model.reml()
    assert model.overlap.loc["a", "b"] > 0.99
    account = {"method": "importance sampling", "ess": 51.0, "pareto_k": 0.91}
    with pytest.warns(bl.SamplingWarning, match=r"0.91 .* worth 51 independent ones"):
        partition._check_draws(account)
    with pytest.warns(bl.SamplingWarning, match=r"r-hat is 1.200: the chains disagree"):
        partition._check_draws({"method": "Metropolis", "ess": 151.0, "r_hat": 1.2})


def test_bad_weights_lead_to_chains(triple, monkeypatch):
    monkeypatch.setattr("bayeslmm.numerics.importance.LARGEST_K", -9.0)
    tree = triple.posterior(2000, seed=4, evaluations=150)
    assert tree.attrs["method"] == "Metropolis"
    assert tree.attrs["evaluations"] > 2000
    assert tree.attrs["pareto_k_of_importance_sampling"] < 0.7
    with pytest.warns(bl.SamplingWarning, match="Pareto k"):
        triple.posterior(400, seed=4, evaluations=150, method="importance")
