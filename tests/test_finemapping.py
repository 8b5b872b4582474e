import itertools

import numpy as np
import pandas as pd
import pytest
from dense import centred, contrasts
from scipy import stats
from scipy.integrate import quad
from scipy.special import logsumexp

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.genome.single_effects import (
    EffectsPrior,
    fit_effects,
    left_by,
    log_bayes_factors,
    sample_effects,
    single_effect,
)
from bayeslmm.model.effects import snp_terms
from bayeslmm.numerics.quadrature import gauss_rule

PHI = (0.05, 0.1, 0.2, 0.4)


def haplotypes(n, k, rng, switch=0.3):
    """Dosages of k neighbouring SNPs, shape (n, k): mosaics of six founders' haplotypes."""
    founders = rng.integers(0, 2, size=(6, k))
    founders[0], founders[1] = 0, 1  # every SNP varies
    total = np.zeros((n, k))
    for _ in range(2):
        at = rng.integers(0, 6, size=n)
        for j in range(k):
            at = np.where(rng.random(n) < switch, rng.integers(0, 6, size=n), at)
            total[:, j] += founders[at, j]
    return total


class Cohort:
    """Genotypes of a region and of the rest of the genome, and a phenotype."""

    def __init__(self, n=150, k=10, effects=((2, 0.4),), seed=1):
        rng = np.random.default_rng(seed)
        self.ids = [f"i{j}" for j in range(n)]
        self.x = haplotypes(n, k, rng)
        rest = rng.binomial(2, rng.uniform(0.1, 0.5, 200), size=(n, 200)).astype(float)
        names = [f"rs{j}" for j in range(k)] + [f"bg{j}" for j in range(200)]
        self.variants = pd.DataFrame(
            {
                "id": names,
                "chrom": ["7"] * k + ["8"] * 200,
                "pos": [*range(1000, 1000 + 10 * k, 10), *range(1, 201)],
                "ea": ["A"] * (k + 200),
                "oa": ["G"] * (k + 200),
            }
        )
        self.genotypes = bl.Genotypes.from_array(
            np.column_stack([self.x, rest]), self.ids, self.variants
        )
        z = (self.x - self.x.mean(axis=0)) / self.x.std(axis=0)
        b = rest @ rng.normal(size=200)
        age = rng.normal(50, 10, size=n)
        y = 0.6 * (b - b.mean()) / b.std() + 0.8 * rng.normal(size=n) + 0.02 * age
        for j, beta in effects:
            y = y + beta * z[:, j]
        self.table = pd.DataFrame({"y": y, "age": age}, index=self.ids)
        self.kernel = bl.grm(self.genotypes, dtype="float64", progress=False)

    def model(self, formula="y ~ age", kernel=True, **options):
        return bl.LMM(formula, self.table, self.kernel if kernel else None, **options)


@pytest.fixture(scope="module")
def cohort():
    return Cohort()


@pytest.fixture(scope="module")
def two():
    return Cohort(n=300, k=12, effects=((1, 0.45), (9, -0.45)), seed=3)


def dense_single_effects(model, K, x, prior_there, h2, phis=PHI):
    """One effect or none: log p(y | h2, SNP, width) of contrasts, V inverted; (G, F, k), (G,)."""
    y, C = model.y, model.C.to_numpy()
    n, k = x.shape
    Z = (x - x.mean(axis=0)) / x.std(axis=0)
    N = contrasts(C)
    z, df = N.T @ y, len(N.T)
    R = centred(K)
    R = R / np.trace(R) * n

    def log_p(V):
        V = N.T @ V @ N
        Q = z @ np.linalg.inv(V) @ z
        return -0.5 * np.linalg.slogdet(V)[1] - 0.5 * df * np.log(Q)

    there, none = np.empty((len(h2), len(phis), k)), np.empty(len(h2))
    for g, h in enumerate(h2):
        V = h * R + (1 - h) * np.eye(n)
        none[g] = log_p(V)
        for f, j in np.ndindex(len(phis), k):
            there[g, f, j] = log_p(V + phis[f] ** 2 * np.outer(Z[:, j], Z[:, j]))
    there += np.log(prior_there / k / len(phis))
    return there, none + np.log1p(-prior_there)


# -- one effect is exact ---------------------------------------------------------------------


@pytest.mark.algebra
def test_one_effect_equals_enumeration_with_dense_matrices(cohort):
    """At one h2: probabilities of every SNP and width, of none, and the evidence."""
    model, h2 = cohort.model(), 0.3
    there, none = dense_single_effects(model, cohort.kernel.matrix, cohort.x, 0.7, [h2])
    total = np.logaddexp(logsumexp(there), none[0])
    Z = model.basis.rotate((cohort.x - cohort.x.mean(axis=0)) / cohort.x.std(axis=0))
    terms = snp_terms(model.rotated, Z, np.array([h2]))
    k = cohort.x.shape[1]
    prior = EffectsPrior(np.full(k, 1 / k), np.array(PHI) ** 2, 1, 0.7)
    fit = fit_effects(terms.M[0], terms.r[0], terms.null.Q[0], model.rotated.df, prior)
    (effect,) = fit.effects
    np.testing.assert_allclose(effect.alpha, np.exp(there[0] - total), rtol=1e-9, atol=1e-12)
    assert effect.none == pytest.approx(np.exp(none[0] - total), rel=1e-9)
    assert fit.log_bound == pytest.approx(total - (none[0] - np.log(0.3)), abs=1e-9)
    np.testing.assert_allclose(fit.pip(), effect.alpha.sum(axis=0), atol=1e-12)


@pytest.mark.algebra
@pytest.mark.parametrize("expected", [0.4, 1.0])
def test_one_effect_without_kernel_is_enumeration(cohort, expected):
    model = cohort.model(kernel=False)
    found = bl.finemap(
        model,
        cohort.genotypes,
        region="7",
        method="susie",
        max_effects=1,
        expected_effects=expected,
    )
    with np.errstate(divide="ignore"):
        there, none = dense_single_effects(model, np.eye(len(model.y)), cohort.x, expected, [0.0])
    pip = np.exp(there[0] - np.logaddexp(logsumexp(there), none[0])).sum(axis=0)
    np.testing.assert_allclose(found.variants["pip"], pip, rtol=1e-10, atol=1e-12)
    assert len(found.h2) == 0
    flat = logsumexp(there[0], axis=0) - np.log(expected / len(pip))
    null = none[0] if expected < 1 else -np.inf
    if expected < 1:
        bf = flat - (null - np.log1p(-expected))
        np.testing.assert_allclose(found.variants["log10_bf"], bf / np.log(10), atol=1e-9)


@pytest.mark.algebra
def test_one_effect_integrates_h2(cohort):
    """Five nodes against 40, dense matrices, and the SNP's own Bayes factor likewise."""
    model = cohort.model()
    t, w = np.polynomial.legendre.leggauss(40)
    there, none = dense_single_effects(model, cohort.kernel.matrix, cohort.x, 0.5, (t + 1) / 2)
    log_w = np.log(w / 2)
    total = np.logaddexp(logsumexp(there + log_w[:, None, None]), logsumexp(none + log_w))
    pip = np.exp(logsumexp(there + log_w[:, None, None], axis=(0, 1)) - total)
    found = model.finemap(region="7", method="susie", max_effects=1, expected_effects=0.5)
    np.testing.assert_allclose(found.variants["pip"], pip, atol=1e-4)
    k = len(pip)
    bf = logsumexp(there + log_w[:, None, None], axis=(0, 1)) - logsumexp(none + log_w)
    bf += np.log(0.5) - np.log(0.5 / k)
    np.testing.assert_allclose(found.variants["log10_bf"], bf / np.log(10), atol=1e-6)


@pytest.mark.algebra
def test_bayes_factors_are_ratios_of_normal_densities_for_known_variance():
    """With many samples s2 is known, and the Bayes factor that of Wakefield (2009)."""
    a, b, df = np.array([50.0, 200.0]), np.array([9.0, -20.0]), 10**9
    W = np.array([0.01, 0.04])
    exact = log_bayes_factors(a, b, float(df), df, W)
    z2, v = b * b / a, 1 / a
    for f, width in enumerate(W):
        wakefield = 0.5 * np.log(v / (v + width)) + 0.5 * z2 * width / (v + width)
        np.testing.assert_allclose(exact[f], wakefield, rtol=1e-6)


# -- several effects -------------------------------------------------------------------------


def of_share(L, expected, m):
    """P(m named ones of L effects are there, the others not), their share integrated out."""
    share = stats.beta(1, L / expected - 1)
    return quad(lambda q: share.pdf(q) * q**m * (1 - q) ** (L - m), 0, 1)[0]


def assignments(k, F, L):
    """All of L effects, each of (width, SNP) or None for absent."""
    return itertools.product([None, *itertools.product(range(F), range(k))], repeat=L)


def all_effects(M, r, Q, df, prior, number):
    """L effects enumerated; PIPs and log evidence. number (L + 1,): P(m named ones are there)."""
    log_p, inside = [], []
    for every in assignments(len(r), len(prior.W), prior.max_effects):
        there = [state for state in every if state is not None]
        at, W = [j for _, j in there], prior.W[[f for f, _ in there]]
        value = np.log(number[len(there)])
        if there:
            value += np.log(prior.places[at] / len(prior.W)).sum()
            A = M[np.ix_(at, at)] + np.diag(1 / W)
            value -= 0.5 * np.linalg.slogdet(A)[1] + 0.5 * np.log(W).sum()
            value -= 0.5 * df * np.log1p(-r[at] @ np.linalg.solve(A, r[at]) / Q)
        log_p.append(value)
        inside.append(np.isin(np.arange(len(r)), at))
    total = logsumexp(log_p)
    return np.exp(log_p - total) @ np.array(inside), total


@pytest.mark.algebra
@pytest.mark.parametrize("seed", range(4))
def test_two_effects_against_all_pairs(seed):
    """The bound is one, and tight; the inclusion probabilities are nearly exact."""
    rng = np.random.default_rng(seed)
    n, k = 200, 6
    x = haplotypes(n, k, rng, switch=0.7)
    Z = (x - x.mean(axis=0)) / x.std(axis=0)
    y = 0.35 * Z[:, 0] - 0.4 * Z[:, 4] + rng.normal(size=n)
    y -= y.mean()
    prior = EffectsPrior(np.full(k, 1 / k), np.array([0.04, 0.16]), 2, 0.6)
    M, r, Q = Z.T @ Z, Z.T @ y, float(y @ y)
    fixed = [0.7**2, 0.7 * 0.3, 0.3**2]
    exact, evidence = all_effects(M, r, Q, n - 1, prior, fixed)
    fit = fit_effects(M, r, Q, n - 1, prior)
    assert fit.converged
    # The two effects may change places: a mode the approximation does not have, worth log 2.
    assert evidence - 1.0 < fit.log_bound <= evidence
    np.testing.assert_allclose(fit.pip(), exact, atol=0.05)


@pytest.mark.algebra
def test_what_effects_leave_is_what_a_dense_covariance_leaves():
    """a, b and Q given other effects: V = I + their variances, inverted."""
    rng = np.random.default_rng(1)
    Z, y = rng.normal(size=(40, 7)), rng.normal(size=40)
    S, W = np.array([1, 4, 4]), np.array([0.1, 0.3, 0.2])
    V = np.eye(40) + Z[:, S] @ np.diag(W) @ Z[:, S].T
    solved = np.linalg.inv(V)
    M = Z.T @ Z
    a, b, Q = left_by(M, np.diagonal(M), Z.T @ y, y @ y, S, 1 / W)
    np.testing.assert_allclose(a, np.diagonal(Z.T @ solved @ Z), rtol=1e-10)
    np.testing.assert_allclose(b, Z.T @ solved @ y, rtol=1e-10, atol=1e-12)
    assert pytest.approx(y @ solved @ y, rel=1e-12) == Q


@pytest.mark.algebra
@pytest.mark.parametrize(
    ("L", "expected", "k"), [(1, 0.6, 6), (2, 0.6, 6), (2, 1.7, 6), (3, 0.9, 4), (2, 2, 6)]
)
def test_gibbs_samples_all_effects(L, expected, k):
    """Up to three effects and two nodes of h2: against enumeration, within Monte Carlo error."""
    rng = np.random.default_rng(5)
    n = 150
    x = haplotypes(n, k, rng)
    Z = (x - x.mean(axis=0)) / x.std(axis=0)
    y = 0.3 * Z[:, 0] + 0.25 * Z[:, 2] + rng.normal(size=n)
    y -= y.mean()
    places = np.linspace(1, 2, k) / np.linspace(1, 2, k).sum()
    prior = EffectsPrior(places, np.array([0.04, 0.16]), L, expected)
    number = np.eye(L + 1)[L] if expected == L else [of_share(L, expected, m) for m in range(L + 1)]
    # Another metric, as at another h2.
    D = np.exp(0.5 * rng.normal(size=n))
    nodes = [(Z.T * d @ Z, Z.T * d @ y, float(y * d @ y)) for d in (np.ones(n), D)]
    with np.errstate(divide="ignore"):
        exact = [all_effects(*node, n - 1, prior, number) for node in nodes]
    log_w = np.array([0.0, exact[0][1] - exact[1][1] + 0.3])
    share = np.exp(0.3) / (1 + np.exp(0.3))
    pip = (1 - share) * exact[0][0] + share * exact[1][0]
    M, r, Q = (np.array(part) for part in zip(*nodes, strict=True))
    chains = [
        sample_effects(M, r, Q, log_w, n - 1, prior, rng, sweeps=2000, warmup=50) for _ in range(4)
    ]
    pips = np.array([chain.pip for chain in chains])
    error = pips.std(axis=0, ddof=1) / 2
    assert error.max() < 0.02
    assert (np.abs(pips.mean(axis=0) - pip) < 5 * error + 1e-3).all()
    for chain in chains:
        assert chain.node.mean() == pytest.approx(share, abs=0.07)
        assert (expected < L) == (chain.snp < 0).any()
        drawn = np.array([(chain.snp == j).any(axis=1).mean() for j in range(k)])
        np.testing.assert_allclose(drawn, chain.pip, atol=0.05)


@pytest.mark.algebra
def test_the_bound_rises():
    """From sweep to sweep, once every effect was updated, and to where one call gets."""
    rng = np.random.default_rng(2)
    x = haplotypes(300, 30, rng)
    Z = (x - x.mean(axis=0)) / x.std(axis=0)
    y = 0.4 * Z[:, 3] + 0.3 * Z[:, 25] + rng.normal(size=300)
    y -= y.mean()
    prior = EffectsPrior(np.full(30, 1 / 30), np.array(PHI) ** 2, 5, 0.5)
    M, r, Q = Z.T @ Z, Z.T @ y, float(y @ y)
    bounds, effects = [], ()
    for _ in range(12):
        fit = fit_effects(M, r, Q, 299, prior, effects, max_sweeps=1)
        bounds.append(fit.log_bound)
        effects = fit.effects
    assert (np.diff(bounds[1:]) > -1e-9).all()
    whole = fit_effects(M, r, Q, 299, prior)
    assert whole.log_bound == pytest.approx(bounds[-1], abs=1e-4)


@pytest.mark.algebra
@pytest.mark.parametrize("expected", [0.1, 1, 5, 7.5, 9.99])
def test_the_number_of_effects_is_beta_binomial(expected):
    prior = EffectsPrior(np.ones(1), np.ones(1), 10, expected)
    law = stats.betabinom(10, 1, 10 / expected - 1)
    np.testing.assert_allclose(prior.number(), law.pmf(np.arange(11)), rtol=1e-9, atol=1e-15)
    assert prior.number() @ np.arange(11) == pytest.approx(expected)


@pytest.mark.algebra
def test_the_number_of_many_effects_is_geometric():
    """Mean 2, as the number that is allowed grows; uniform where half of it is expected."""
    prior = EffectsPrior(np.ones(1), np.ones(1), 100_000, 2)
    law = stats.geom(1 / 3, loc=-1)
    np.testing.assert_allclose(prior.number()[:20], law.pmf(np.arange(20)), rtol=5e-3)
    uniform = EffectsPrior(np.ones(1), np.ones(1), 10, 5).number()
    np.testing.assert_allclose(uniform, 1 / 11)
    certain = EffectsPrior(np.ones(1), np.ones(1), 3, 3)
    np.testing.assert_array_equal(certain.number(), [0, 0, 0, 1])


@pytest.mark.algebra
@pytest.mark.parametrize(("L", "expected"), [(1, 0.5), (2, 0.5), (4, 1.0), (4, 3.0)])
def test_subsets_have_the_probability_of_the_effects_that_make_them(L, expected):
    places = np.array([0.5, 0.3, 0.2])
    number = [of_share(L, expected, m) for m in range(L + 1)]
    total = np.zeros(8)
    for every in assignments(3, 1, L):
        at = [state[1] for state in every if state is not None]
        subset = sum(1 << j for j in set(at))
        total[subset] += number[len(at)] * np.prod(places[at])
    prior = EffectsPrior(places, np.ones(1), L, expected)
    np.testing.assert_allclose(np.exp(prior.log_subsets()), total, rtol=1e-9)
    assert total.sum() == pytest.approx(1)


@pytest.mark.algebra
def test_exact_integrates_the_share_of_effects(cohort):
    """Without kernel: subsets of five SNPs, their share on a grid, evidence of dense matrices."""
    x, L, expected = cohort.x[:, :5], 6, 1.5
    model = cohort.model(kernel=False)
    Z = (x - x.mean(axis=0)) / x.std(axis=0)
    N = contrasts(model.C.to_numpy())
    z, df = N.T @ model.y, len(N.T)
    q, w = np.polynomial.legendre.leggauss(40)
    q, w = (q + 1) / 2, w / 2 * stats.beta(1, L / expected - 1).pdf((q + 1) / 2)
    weights = np.array([1, 2, 0, 1, 4]) / 8

    def only(at):  # P(no effect elsewhere), at each share
        return (1 - q * (1 - weights[at].sum())) ** L

    log_p, inside = [], []
    for g in itertools.product([False, True], repeat=5):
        at = np.flatnonzero(g)
        smaller = [
            (-1) ** (len(at) - len(part)) * only(np.array(part, dtype=int))
            for size in range(len(at) + 1)
            for part in itertools.combinations(at, size)
        ]
        p = max(w @ np.sum(smaller, axis=0), 1e-300) if not g[2] else 1e-300
        for phi in PHI:
            V = N.T @ (np.eye(len(Z)) + phi**2 * Z[:, at] @ Z[:, at].T) @ N
            log_p.append(np.log(p) - 0.5 * np.linalg.slogdet(V)[1])
            log_p[-1] -= 0.5 * df * np.log(z @ np.linalg.solve(V, z))
            inside.append(g)
    pip = np.exp(log_p - logsumexp(log_p)) @ np.array(inside)
    found = bl.finemap(
        model,
        cohort.genotypes,
        snps=[f"rs{j}" for j in range(5)],
        method="exact",
        max_effects=L,
        expected_effects=expected,
        prior_weights=8 * weights,
    )
    np.testing.assert_allclose(found.variants["pip"], pip, rtol=1e-7, atol=1e-12)


@pytest.mark.algebra
@pytest.mark.parametrize("expected", [0.05, 1.0])
@pytest.mark.parametrize(
    ("seed", "effects"), [(1, ()), (2, ((3, 0.35),)), (3, ((1, 0.5), (6, -0.5)))]
)
def test_gibbs_agrees_with_exact_enumeration(seed, effects, expected):
    """With effects of one width the priors are the same, but for the size of two of one SNP."""
    cohort = Cohort(n=200, k=7, effects=effects, seed=seed)
    options = {"region": "7", "expected_effects": expected, "phi": (0.3,), "seed": 1}
    model = cohort.model()
    found = model.finemap(sweeps=1000 if expected < 1 else 4000, **options).variants
    exact = model.finemap(method="exact", **options).variants
    np.testing.assert_allclose(found["pip"], exact["pip"], atol=0.02)
    np.testing.assert_allclose(found["beta"], exact["beta"], atol=0.01)
    np.testing.assert_allclose(found["sd"], exact["sd"], atol=0.01)
    np.testing.assert_allclose(found["log10_bf"], exact["log10_bf"], rtol=1e-12)


def test_effects_that_are_there_have_sets(two):
    model = two.model()
    for method in ("gibbs", "susie", "exact"):
        found = model.finemap(
            snps=[f"rs{j}" for j in (0, 1, 2, 7, 8, 9, 10)], method=method, seed=1
        )
        sets = found.credible_sets
        assert len(sets) == 2, method
        for j in (1, 9):
            assert sum(f"rs{j}" in ids for ids in sets["ids"]) == 1, method
        assert (sets["coverage"] >= 0.95).all()
        assert (sets["purity"] >= 0.5).all()
        assert (sets["log10_bf"] > 1).all()
        assert (np.diff(sets["log10_bf"]) <= 0).all()
        pip = found.variants.set_index("id")["pip"]
        for number, row in sets.iterrows():
            assert row["size"] == len(row["ids"])
            assert row["lead"] == row["ids"][0] == pip[row["ids"]].idxmax()
            inside = set(found.variants["id"][found.variants["cs"] == number])
            assert inside <= set(row["ids"])
        assert found.variants["pip"].between(0, 1).all()


def test_sets_are_the_smallest(two):
    found = two.model().finemap(region="7", method="susie", coverage=0.8)
    alpha = found.effects.to_numpy()
    assert alpha.shape == (10, 12)
    assert (alpha.sum(axis=1) <= 1 + 1e-12).all()
    for row in found.credible_sets.itertuples():
        (effect,) = [
            a
            for a in alpha
            if np.isclose(a[found.effects.columns.isin(row.ids)].sum(), row.coverage, rtol=1e-9)
        ]
        assert np.sort(effect)[::-1][: row.size - 1].sum() < 0.8


def test_without_effects_nothing_is_found():
    cohort = Cohort(n=300, k=12, effects=(), seed=8)
    found = cohort.model().finemap(region="7")
    assert not len(found.credible_sets)
    assert (found.variants["cs"] == 0).all()
    assert found.expected_effects < 1.5


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("method", ["gibbs", "susie"])
def test_superfluous_effects_vanish(two, kernel, method):
    """Three times as many effects allowed, the same number expected: nothing is spread out."""
    model = two.model(kernel=kernel)
    options = {"genotypes": two.genotypes, "region": "7", "method": method, "seed": 1}
    options |= {"sweeps": 2000}
    some = model.finemap(max_effects=10, **options).variants["pip"]
    many = model.finemap(max_effects=30, **options).variants["pip"]
    np.testing.assert_allclose(some, many, atol=0.03)


# -- h2 ----------------------------------------------------------------------------------------


@pytest.mark.algebra
def test_gauss_rule_is_exact_for_polynomials(cohort):
    density = cohort.model().h2_posterior()
    x, w, _ = gauss_rule(density.x, density.weights, 6)
    assert w.sum() == pytest.approx(1)
    for degree in range(12):
        assert w @ x**degree == pytest.approx(density.weights @ density.x**degree, rel=1e-8)


@pytest.mark.parametrize("effects", [(), ((2, 0.4),), ((2, 1.5),)])
def test_more_nodes_change_nothing(effects):
    """Even where a QTL of most of the variance moves h2 far from its null posterior."""
    model = Cohort(effects=effects).model()
    few = model.finemap(region="7", method="susie")
    many = model.finemap(region="7", method="susie", h2_nodes=10)
    assert len(many.h2) == 2 * len(few.h2)
    assert few.h2["weight"].sum() == pytest.approx(1)
    np.testing.assert_allclose(few.variants["pip"], many.variants["pip"], atol=1e-3)


def test_a_spike_in_the_prior_of_h2(cohort):
    model = cohort.model(h2_prior=bl.priors.uniform(spike=0.5))
    options = {"region": "7:1000-1050", "expected_effects": 0.05, "seed": 1}
    exact = model.finemap(method="exact", **options)
    found = model.finemap(**options)
    assert found.h2["h2"][0] == exact.h2["h2"][0] == 0
    assert found.h2["weight"][0] == pytest.approx(exact.h2["weight"][0], abs=0.01)
    np.testing.assert_allclose(found.variants["pip"], exact.variants["pip"], atol=0.02)
    for method in ("gibbs", "susie"):
        none = model.finemap(region="7", method=method, expected_effects=1e-9, seed=1)
        assert none.h2["weight"][0] == pytest.approx(model.h2_posterior().mass_at_0, abs=1e-6)


# -- invariances -------------------------------------------------------------------------------


@pytest.mark.algebra
@pytest.mark.parametrize("method", ["gibbs", "susie", "exact"])
def test_order_of_samples_alleles_and_units(cohort, method):
    options = {"region": "7:1000-1050", "method": method, "seed": 1, "sweeps": 200}
    found = cohort.model().finemap(**options).variants
    order = np.random.default_rng(0).permutation(len(cohort.ids))
    shuffled = cohort.genotypes.select(samples=[cohort.ids[i] for i in order])
    kernel = bl.grm(shuffled, dtype="float64", progress=False)
    model = bl.LMM("y ~ age", cohort.table, kernel)
    again = model.finemap(**options).variants
    again.attrs, found.attrs = {}, {}  # the time differs
    pd.testing.assert_frame_equal(again, found, rtol=1e-5, atol=1e-7)

    dosage = cohort.genotypes.to_array()
    dosage[:, 3] = 2 - dosage[:, 3]
    turned = bl.Genotypes.from_array(dosage, cohort.ids, cohort.variants)
    swapped = cohort.model().finemap(turned, **options).variants
    sign = np.where(np.arange(len(found)) == 3, -1, 1)
    np.testing.assert_allclose(swapped["beta"], sign * found["beta"], atol=1e-7)
    for column in ("pip", "sd", "log10_bf"):
        np.testing.assert_allclose(swapped[column], found[column], rtol=1e-5)

    table = cohort.table.assign(y=1000 * cohort.table.y + 5)
    scaled = bl.LMM("y ~ age", table, cohort.kernel).finemap(**options).variants
    np.testing.assert_allclose(scaled["pip"], found["pip"], rtol=1e-5)
    for column in ("beta", "sd"):
        np.testing.assert_allclose(scaled[column], 1000 * found[column], rtol=1e-4, atol=1e-4)


# -- guard rails -------------------------------------------------------------------------------


def test_complete_ld_shares_the_effect(cohort):
    x = np.column_stack([cohort.x[:, 2], 2 - cohort.x[:, 2], cohort.x[:, 2], cohort.x[:, 8]])
    genotypes = bl.Genotypes.from_array(x, cohort.ids, ["a", "b", "c", "d"])
    found = cohort.model().finemap(genotypes, region="0", method="susie")
    pip = found.variants["pip"].to_numpy()
    np.testing.assert_allclose(pip[:3], pip[0], rtol=1e-6)
    np.testing.assert_allclose(found.variants["beta"][1], -found.variants["beta"][0], rtol=1e-6)
    (row,) = found.credible_sets.itertuples()
    assert set(row.ids) == {"a", "b", "c"}
    assert row.purity == pytest.approx(1)


def test_a_snp_that_is_a_covariate_keeps_its_prior(cohort):
    table = cohort.table.assign(age=3 * cohort.x[:, 4] - 1)
    model = bl.LMM("y ~ age", table, cohort.kernel)
    pip = {}
    for method in ("gibbs", "susie", "exact"):
        found = model.finemap(region="7:1020-1060", method=method, seed=1, sweeps=200)
        row = found.variants.iloc[2]
        assert found.attrs["explained_by_covariates"] == ["rs4"]
        assert row["log10_bf"] == pytest.approx(0, abs=1e-8)
        assert np.isfinite(found.variants[["pip", "beta", "sd"]]).all().all()
        assert row["beta"] == pytest.approx(0, abs=1e-6)
        pip[method] = row["pip"]
    assert pip["susie"] == pytest.approx(1 - (1 - 0.1 / 5) ** 10, abs=0.03)
    # Where the number of effects is learned, that of those found counts.
    assert pip["gibbs"] == pytest.approx(pip["exact"], abs=0.04)


def test_more_snps_than_samples():
    cohort = Cohort(n=60, k=150, effects=((40, 1.0),), seed=5)
    for method in ("gibbs", "susie"):
        found = cohort.model().finemap(region="7", method=method, seed=1)
        assert np.isfinite(found.variants[["pip", "beta", "sd", "log10_bf"]]).all().all()
        assert found.variants["pip"].iloc[30:51].sum() > 0.9


@pytest.mark.parametrize("method", ["gibbs", "susie", "exact"])
def test_one_snp(cohort, method):
    found = cohort.model().finemap(snps="rs2", method=method)
    assert list(found.variants["id"]) == ["rs2"]
    assert found.variants["pip"][0] > 0.9
    assert found.credible_sets["ids"][1] == ["rs2"]


def test_missing_and_monomorphic(cohort):
    dosage = cohort.genotypes.to_array()[:, :10]
    dosage[:, 5] = 1
    dosage[3, 2] = np.nan
    genotypes = bl.Genotypes.from_array(dosage, cohort.ids, cohort.variants[:10])
    found = cohort.model().finemap(genotypes, region="7", method="susie")
    assert found.attrs["monomorphic"] == ["rs5"]
    assert list(found.variants["id"]) == [f"rs{j}" for j in range(10) if j != 5]
    filled = dosage.copy()
    filled[3, 2] = np.nanmean(dosage[:, 2])
    imputed = bl.Genotypes.from_array(filled, cohort.ids, cohort.variants[:10])
    again = cohort.model().finemap(imputed, region="7", method="susie")
    np.testing.assert_allclose(found.variants["pip"], again.variants["pip"], rtol=1e-8)


def test_prior_weights(cohort):
    model = cohort.model()
    weights = pd.Series(1.0, index=[f"rs{j}" for j in range(10)])
    flat = model.finemap(region="7", method="susie").variants["pip"]
    same = model.finemap(region="7", method="susie", prior_weights=5 * weights).variants["pip"]
    np.testing.assert_allclose(same, flat, rtol=1e-8)
    weights["rs2"] = 0
    without = model.finemap(region="7", method="susie", prior_weights=weights).variants["pip"]
    assert without[2] == 0
    assert without.sum() > 0.5
    more = np.ones(10)
    more[3] = 50
    pd.testing.assert_series_equal(
        model.finemap(region="7", method="susie", prior_weights=more).variants["pip"],
        model.finemap(region="7", method="susie", prior_weights=more / 7).variants["pip"],
    )
    assert (
        model.finemap(region="7", method="susie", prior_weights=more).variants["pip"][3] > flat[3]
    )


def test_regions(cohort):
    model = cohort.model()
    part = model.finemap(region="7:1010-1040", method="susie")
    assert list(part.variants["id"]) == ["rs1", "rs2", "rs3", "rs4"]
    named = model.finemap(snps=["rs4", "rs1", "rs3", "rs2"], method="susie")
    np.testing.assert_allclose(named.variants["pip"], part.variants["pip"])
    assert named.attrs["region"] == "7:1010-1040"
    both = model.finemap(snps=["rs1", "bg0"])
    assert both.attrs["region"] == "2 chromosomes"


def test_seeds_and_chains(two):
    model = two.model()
    found = model.finemap(region="7", sweeps=100, seed=3)
    again = model.finemap(region="7", sweeps=100, seed=3)
    np.testing.assert_array_equal(found.variants["pip"], again.variants["pip"])
    other = model.finemap(region="7", sweeps=100)
    assert other.attrs["seed"] != 3
    assert (other.variants["pip"] != found.variants["pip"]).any()
    assert 0 < found.attrs["largest_pip_mcse"] < 0.1


def test_chains_that_have_not_come_together():
    """Two SNPs in nearly complete LD, a sweep for each chain: they are in either."""
    cohort = Cohort(n=150, k=40, effects=((5, 0.3), (7, -0.3), (20, 0.2)), seed=11)
    model = cohort.model()
    with pytest.warns(UserWarning, match=r"PIP of 'rs\d+' has .* Increase sweeps=4"):
        model.finemap(region="7", sweeps=4, seed=1)


def test_labels(cohort):
    found = cohort.model().finemap(region="7", seed=1)
    columns = ["chrom", "pos", "id", "ea", "oa", "eaf", "pip", "beta", "sd", "cs", "log10_bf"]
    assert list(found.variants.columns) == columns
    assert found.variants.attrs["formula"] == found.attrs["formula"] == "y ~ age"
    assert found.attrs["created_by"].startswith("bayeslmm")
    assert repr(found).startswith("<FineMap y ~ age, 7: 10 SNPs, 1 credible set (95%), ")
    assert found._repr_html_().startswith("<p>y ~ age, 7: 10 SNPs")
    assert "<table" in found._repr_html_()
    assert bl.finemap is not None
    assert isinstance(found, bl.FineMap)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Which SNPs"),
        ({"region": "9"}, "no chromosome '9'"),
        ({"region": "7:5-1"}, "ends before it begins"),
        ({"region": "7:a-b"}, "not of the form"),
        ({"region": "7:1-5"}, "no variant is in the region 7:1-5.*from 1,000 to 1,090"),
        ({"snps": ["rs1", "rs99"]}, "not there: 'rs99'"),
        ({"region": "7", "method": "best"}, "method='best' is unknown"),
        ({"region": "8", "method": "exact"}, "has 200. Use method='gibbs'"),
        ({"region": "7", "max_effects": 0}, "max_effects=0"),
        ({"region": "7", "expected_effects": 11}, "at most max_effects=10, but is 11"),
        ({"region": "7", "expected_effects": 0}, "expected_effects must be above 0"),
        ({"region": "7", "coverage": 1}, "coverage must be between 0 and 1"),
        ({"region": "7", "min_purity": 2}, "min_purity must be between"),
        ({"region": "7", "h2_nodes": 0}, "h2_nodes=0"),
        ({"region": "7", "sweeps": 3}, "each of the 4 chains needs one"),
        ({"region": "7", "phi": ()}, "phi is empty"),
        ({"region": "7", "phi": 0}, "phi must be above 0, but is 0"),
        ({"region": "7", "phi": (0.1, -1)}, "phi must be above 0"),
        ({"region": "7", "prior_weights": np.ones(3)}, r"shape \(3,\), but there are 10 SNPs"),
        ({"region": "7", "prior_weights": -np.ones(10)}, "at least 0"),
        ({"region": "7", "prior_weights": pd.Series({"rs1": 1})}, "lack 9 of 10 SNPs: 'rs0'"),
        (
            {"snps": "rs1", "method": "exact", "max_effects": 1},
            "expected_effects=1 of max_effects=1 leaves none without",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(cohort, options, message):
    with pytest.raises(InputError, match=message):
        cohort.model().finemap(**options)


def test_genotypes_that_do_not_fit(cohort):
    with pytest.raises(InputError, match="no kernel whose genotypes"):
        cohort.model(kernel=False).finemap(region="7")
    some = cohort.genotypes.select(samples=cohort.ids[:100])
    with pytest.raises(InputError, match="not there"):
        cohort.model().finemap(some, region="7")
    constant = bl.Genotypes.from_array(np.ones((150, 2)), cohort.ids)
    with pytest.raises(InputError, match="All 2 variants chosen are monomorphic"):
        cohort.model().finemap(constant, region="0")
    dosage = cohort.genotypes.to_array()[:, :10]
    dosage[:, 5] = 1
    genotypes = bl.Genotypes.from_array(dosage, cohort.ids, cohort.variants[:10])
    with pytest.raises(InputError, match="as an array cannot be matched"):
        cohort.model().finemap(genotypes, region="7", prior_weights=np.ones(10))


def test_an_effect_is_the_weighted_ridge_estimate():
    """Means given the SNP are b / (a + 1/W); E of the square includes s2's uncertainty."""
    prior = EffectsPrior(np.array([0.625, 0.375]), np.array([0.25]), 1, 0.8)
    effect = single_effect(np.array([10.0, 0.0]), np.array([4.0, 0.0]), 30.0, 22, prior)
    np.testing.assert_allclose(effect.mu, [[4 / 14, 0]])
    s2 = (30 - 16 / 14) / 20
    np.testing.assert_allclose(effect.square, [[(4 / 14) ** 2 + s2 / 14, 30 / 20 * 0.25]])
    assert effect.alpha.sum() + effect.none == pytest.approx(1)


# -- the plot ----------------------------------------------------------------------------------


def test_plot(two, tmp_path):
    from matplotlib.figure import Figure

    from bayeslmm import plots

    found = two.model().finemap(region="7", seed=1, sweeps=100)
    ax = Figure().add_subplot()
    assert plots.fine_mapping(found, ax=ax) is ax
    drawn = {line.get_gid(): line for line in ax.get_lines()}
    assert set(drawn) == {f"variants-{number}" for number in (0, *found.credible_sets.index)}
    for number, line in ((int(gid.split("-")[1]), line) for gid, line in drawn.items()):
        here = found.variants[found.variants["cs"] == number]
        np.testing.assert_array_equal(line.get_xdata(), here["pos"])
        np.testing.assert_array_equal(line.get_ydata(), here["pip"])
    assert {text.get_text() for text in ax.texts} >= set(found.credible_sets["lead"])
    assert ax.get_xlabel() == "Position on chromosome 7 (Mb)"
    plots.save(tmp_path / "f.png", plots.fine_mapping, found, label=False)
    assert (tmp_path / "f.png").stat().st_size > 5000
    both = two.model().finemap(snps=["rs1", "bg0"], seed=1, sweeps=100)
    ax = plots.fine_mapping(both, ax=Figure().add_subplot(), title="two")
    assert ax.get_xlabel().startswith("SNP, in the order")
    assert ax.get_title(loc="left") == "two"
