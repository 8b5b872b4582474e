"""Bayes factors and effects of the scan, against integrals over h2, s2 and the effect."""

import dense
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import ndtr

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.genome import bayes_factors
from bayeslmm.numerics.tails import normal_deviate

pytestmark = pytest.mark.algebra
BAYES = {"tests": "bayes", "dtype": "float64"}
COLUMNS = ["log10_bf", "post_mean", "post_sd", "lfsr"]


def model(y, C, K, **options):
    return bl.LMM(y, C[:, 1:] if C.shape[1] > 1 else None, K, **options)


def variants(n, v, seed=0):
    rng = np.random.default_rng([seed, n])
    return rng.binomial(2, rng.uniform(0.2, 0.8, size=v), size=(n, v)).astype(float)


def over_h2(breaks=(0, 1e-4, 1e-2, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1)):
    """Gauss-Legendre nodes and weights on (0, 1), closer together at both ends."""
    x, w = np.polynomial.legendre.leggauss(16)
    lo, hi = np.array(breaks[:-1])[:, None], np.array(breaks[1:])[:, None]
    return (lo + (hi - lo) * (x + 1) / 2).ravel(), ((hi - lo) / 2 * w).ravel()


def brute_force(y, C, K, x, widths, prior=np.ones_like, spike=0.0):
    """Integrals over h2, s2 and the effect, with dense matrices and no conjugacy.

    The effect and log s2 are integrated on grids; covariates are projected out by contrasts.
    """
    N = dense.contrasts(C)
    z, g, df = N.T @ y, N.T @ (x - x.mean()), N.shape[1]
    KN = N.T @ K @ N / dense.kappa_of(K, C)
    sd = x.std()
    h2, weights = over_h2()
    weights = weights * prior(h2) * (1 - spike)
    if spike:
        h2, weights = np.append(0.0, h2), np.append(spike, weights)
    evidence = {"null": [], "alternative": [], "mean": [], "second": [], "negative": []}
    top = None
    for h in h2:
        R = h * KN + (1 - h) * np.eye(df)
        factor = np.linalg.cholesky(R)
        zz, gg = np.linalg.solve(factor, z), np.linalg.solve(factor, g)
        logdet = 2 * np.log(np.diag(factor)).sum()
        Q, a, b = zz @ zz, gg @ gg, gg @ zz
        log_s2 = np.linspace(np.log(Q / df) - 4, np.log(Q / df) + 5, 301)
        s2 = np.exp(log_s2)
        if top is None:
            top = -0.5 * (logdet + df * np.log(Q / df) + df)
        null = np.exp(-0.5 * (logdet + df * log_s2 + Q / s2) - top)
        evidence["null"].append(integrate.simpson(null, x=log_s2))
        mean, spread = b / (a + sd**2 / max(widths) ** 2), np.sqrt(Q / df / a)
        beta = np.linspace(mean - 20 * spread, mean + 20 * spread, 401)
        rss = Q - 2 * b * beta + a * beta**2
        likelihood = np.exp(-0.5 * (logdet + df * log_s2 + rss[:, None] / s2) - top)
        density = np.zeros_like(likelihood)
        for width in widths:
            scale = width * np.sqrt(s2) / sd
            density += stats.norm(scale=scale).pdf(beta[:, None]) / len(widths)
        joint = integrate.simpson(likelihood * density, x=log_s2, axis=1)
        evidence["alternative"].append(integrate.simpson(joint, x=beta))
        evidence["mean"].append(integrate.simpson(joint * beta, x=beta))
        evidence["second"].append(integrate.simpson(joint * beta**2, x=beta))
    total = {name: weights @ np.array(v) for name, v in evidence.items() if v}
    post_mean = total["mean"] / total["alternative"]
    return {
        "log10_bf": np.log10(total["alternative"] / total["null"]),
        "post_mean": post_mean,
        "post_sd": np.sqrt(total["second"] / total["alternative"] - post_mean**2),
    }


@pytest.mark.parametrize("case", dense.CASES, ids=lambda case: case.name)
def test_equals_brute_force(case):
    y, C, K = case.make(2)
    X = variants(case.n, 2)
    y = y + 0.2 * y.std() * X[:, 1]
    found = model(y, C, K).scan(X, **BAYES, effect_prior=(0.1, 0.4))
    for j, x in enumerate(X.T):
        expected = brute_force(y, C, K, x, (0.1, 0.4))
        row = found.iloc[j]
        assert row.log10_bf == pytest.approx(expected["log10_bf"], abs=4e-7), "1e-6 of the factor"
        scale = expected["post_sd"]
        assert row.post_mean == pytest.approx(expected["post_mean"], abs=1e-6 * scale)
        assert row.post_sd == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize(
    ("prior", "function", "spike"),
    [
        (bl.priors.beta(2, 3), stats.beta(2, 3).pdf, 0.0),
        (bl.priors.uniform(spike=0.4), np.ones_like, 0.4),
        (bl.priors.density(lambda h: np.where(h < 0.5, 3.0, 1.0)), None, 0.0),
    ],
    ids=["Beta(2, 3)", "spike", "step"],
)
def test_prior_of_h2_has_its_part(prior, function, spike):
    y, C, K = dense.CASES[0].make(3)
    X = variants(len(y), 1)
    found = model(y, C, K, h2_prior=prior).scan(X, **BAYES, effect_prior=0.3).iloc[0]
    function = function or (lambda h: np.where(h < 0.5, 1.5, 0.5))
    expected = brute_force(y, C, K, X[:, 0], (0.3,), function, spike)
    assert found.log10_bf == pytest.approx(expected["log10_bf"], abs=4e-7)
    assert found.post_mean == pytest.approx(expected["post_mean"], rel=1e-6)


def test_twins_of_equal_phenotypes():
    """Each sample is there twice, so that h2 is 1: all of its posterior is in one place."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.binomial(2, rng.uniform(0.1, 0.5, 150), size=(60, 150)), 2, axis=0)
    y = np.repeat(rng.normal(size=60), 2)
    K = bl.grm(X)
    found = bl.LMM(y, kernel=K).scan(X[:, :3], **BAYES, effect_prior=0.2)
    kappa = dense.kappa_of(K.matrix, np.ones((120, 1)))
    P = np.linalg.pinv(dense.centred(K.matrix) / kappa, rcond=1e-9, hermitian=True)
    for j, x in enumerate(X[:, :3].T):
        a, b, Q, W = x @ P @ x, x @ P @ y, y @ P @ y, 0.2**2 / x.var()
        log_bf = -0.5 * np.log1p(W * a) - 119 / 2 * np.log1p(-(b**2) / ((a + 1 / W) * Q))
        assert found.log10_bf[j] == pytest.approx(log_bf / np.log(10), abs=1e-6)


@pytest.mark.parametrize("by", ["columns_everywhere", "adaptive_columns"])
def test_a_variant_that_moves_h2_is_integrated_where_its_mass_is(monkeypatch, by):
    """The kernel's own first axis: with it in the model nothing genetic is left."""
    rng = np.random.default_rng(5)
    n = 300
    family = np.repeat(np.arange(2), n // 2)
    K = 0.98 * (family[:, None] == family) + 0.02 * np.eye(n)
    x = family * 2.0
    y = 6.0 * family + rng.normal(size=n)
    again = []
    integrated = getattr(bayes_factors, by)

    def counting(*args):
        again.append(1)
        return integrated(*args)

    monkeypatch.setattr(bayes_factors, by, counting)
    if by == "adaptive_columns":
        monkeypatch.setattr(bayes_factors, "_AGREE", -1)  # no rule will do
    C = np.ones((n, 1))
    found = model(y, C, K).scan(x[:, None], **BAYES, effect_prior=2.0).iloc[0]
    assert len(again) == 1
    h2, weights = over_h2((0, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.6, 0.9, 0.99, 0.999, 1))
    bf = [reference_at(y, C, K, x, 2.0, h) for h in h2]
    null, alternative = (np.array(v) for v in zip(*bf, strict=True))
    top = max(null.max(), alternative.max())
    expected = np.log10(weights @ np.exp(alternative - top)) - np.log10(
        weights @ np.exp(null - top)
    )
    assert found.log10_bf == pytest.approx(expected, abs=1e-6)


def reference_at(y, C, K, x, width, h2):
    """Log marginal likelihoods given h2, without and with a variant, from dense matrices."""
    N = dense.contrasts(C)
    z, g, df = N.T @ y, N.T @ x, N.shape[1]
    R = h2 * (N.T @ K @ N) / dense.kappa_of(K, C) + (1 - h2) * np.eye(df)
    out = []
    for V in (R, R + width**2 / x.var() * np.outer(g, g)):
        Q = z @ np.linalg.solve(V, z)
        out.append(-0.5 * (np.linalg.slogdet(V)[1] + df * np.log(Q)))
    return out


def test_lfsr_is_the_probability_of_the_other_sign():
    y, C, K = dense.CASES[0].make(4)
    x = variants(len(y), 1)[:, 0]
    y = y + 0.6 * y.std() * x
    found = model(y, C, K).scan(x[:, None], **BAYES, effect_prior=0.4).iloc[0]
    n, df = len(y), len(y) - C.shape[1]
    h2, weights = over_h2()
    total, wrong = 0.0, 0.0
    for h, weight in zip(h2, weights, strict=True):
        R = h * dense.centred(K) / dense.kappa_of(K, C) + (1 - h) * np.eye(n)
        Rinv = np.linalg.pinv(R, hermitian=True)
        P = Rinv - Rinv @ C @ np.linalg.inv(C.T @ Rinv @ C) @ C.T @ Rinv
        a, b, Q = x @ P @ x, x @ P @ y, y @ P @ y
        precision = a + x.var() / 0.4**2
        rss = Q - b**2 / precision
        _, joint = reference_at(y, C, K, x, 0.4, h)
        p = weight * np.exp(joint)
        total += p
        wrong += p * stats.t(df).cdf(-(b / precision) / np.sqrt(rss / df / precision))
    assert found.lfsr == pytest.approx(wrong / total, rel=1e-6)


def test_without_kernel_it_is_the_closed_form():
    rng = np.random.default_rng(7)
    x = rng.binomial(2, 0.4, size=(80, 1)).astype(float)
    y = 0.3 * x[:, 0] + rng.normal(size=80)
    found = bl.LMM(y).scan(x, "bayes", effect_prior=0.2).iloc[0]
    xc, yc = x[:, 0] - x.mean(), y - y.mean()
    a, b, Q, W = xc @ xc, xc @ yc, yc @ yc, 0.04 / x.var()
    log_bf = -0.5 * np.log1p(W * a) - 79 / 2 * np.log1p(-(b**2) / (a + 1 / W) / Q)
    assert found.log10_bf == pytest.approx(log_bf / np.log(10), rel=1e-10)
    assert found.post_mean == pytest.approx(b / (a + 1 / W), rel=1e-10)


def test_mice_against_a_dense_grid(mice):
    """All variants, at 120 values of h2, each with plain weighted sums in float64."""
    y_model = bl.LMM("cd8 ~ sex", mice.phenotypes, bl.grm(mice.genotypes))
    found = y_model.scan(mice.genotypes, "bayes").dropna(subset="log10_bf")
    genotypes = mice.genotypes.select(samples=y_model.ids)
    x = genotypes.centered_block(0, genotypes.n_variants, np.float64).x[found.index]
    basis, n = y_model.basis, len(y_model.y)
    x = basis.rotate_rows(x / x.std(axis=1, keepdims=True))
    y, C = basis.rotate(y_model.y), basis.rotate(y_model.C.to_numpy())
    df = n - C.shape[1]
    nodes, weights = np.polynomial.legendre.leggauss(60)
    h2 = 0.55 + 0.25 * nodes  # 0.3 to 0.8: the null posterior is at 0.60 +- 0.03
    x2, log_null, log_bf = x * x, [], []
    for h in h2:
        w = 1 / (h * basis.values / basis.kappa + 1 - h)
        A = (C.T * w) @ C
        b_hat = np.linalg.solve(A, (C.T * w) @ y)
        r = w * (y - C @ b_hat)
        Q = y @ r
        xC = x @ (w[:, None] * C)
        a = x2 @ w - np.einsum("vc,vc->v", xC @ np.linalg.inv(A), xC)
        b = x @ r
        log_null.append(-0.5 * (-np.log(w).sum() + np.linalg.slogdet(A)[1] + df * np.log(Q)))
        log_bf.append(
            [
                -0.5 * (np.log1p(W * a) + df * np.log1p(-(b**2) / (a + 1 / W) / Q))
                for W in (0.05**2, 0.1**2, 0.2**2, 0.4**2)
            ]
        )
    null = weights * np.exp(np.array(log_null) - max(log_null))
    bf = np.einsum("g,gwv->v", null / null.sum(), np.exp(np.array(log_bf))) / 4
    difference = np.abs(found.log10_bf - np.log10(bf))
    assert len(found) == 10_768 + 0 * len(difference) or len(found) > 10_000
    assert difference.max() < 1e-3, "float32; 1.2e-4 was seen"


# -- what a user gives and gets ------------------------------------------------------------------


def test_swapped_allele_and_scale_of_the_phenotype():
    y, C, K = dense.CASES[1].make(1)
    X = variants(len(y), 3)
    plain = model(y, C, K).scan(X, **BAYES)[COLUMNS]
    swapped = model(y, C, K).scan(2 - X, **BAYES)[COLUMNS]
    scaled = model(100 * y + 3, C, K).scan(X, **BAYES)[COLUMNS]
    np.testing.assert_allclose(swapped, plain * [1, -1, 1, 1], rtol=1e-8)
    np.testing.assert_allclose(scaled, plain * [1, 100, 100, 1], rtol=1e-8)


def test_prior_of_effects_by_frequency():
    y, C, K = dense.CASES[0].make(1)
    x = variants(len(y), 1)
    p = x.mean() / 2
    flat = model(y, C, K).scan(x, **BAYES, effect_prior=bl.priors.EffectPrior(0.2, alpha=0))
    same = model(y, C, K).scan(x, **BAYES, effect_prior=0.2 * np.sqrt(4 * p * (1 - p)))
    np.testing.assert_allclose(flat[COLUMNS], same[COLUMNS], rtol=1e-10)
    weighted = model(y, C, K).scan(
        x, **BAYES, effect_prior=bl.priors.EffectPrior((0.1, 0.5), weights=(3, 1))
    )
    each = [model(y, C, K).scan(x, **BAYES, effect_prior=w).log10_bf[0] for w in (0.1, 0.5)]
    expected = np.log10(0.75 * 10 ** each[0] + 0.25 * 10 ** each[1])
    assert weighted.log10_bf[0] == pytest.approx(expected, rel=1e-10)


def test_prior_odds_give_probabilities_and_a_false_discovery_rate():
    y, C, K = dense.CASES[0].make(1)
    X = np.column_stack([variants(len(y), 6), np.ones(len(y))])
    found = model(y, C, K).scan(X, **BAYES, prior_odds=0.1)
    odds = 0.1 * 10**found.log10_bf
    np.testing.assert_allclose(found.ppa, odds / (1 + odds), rtol=1e-12)
    called = found.dropna().sort_values("ppa", ascending=False)
    np.testing.assert_allclose(
        called.bfdr, np.cumsum(1 - called.ppa) / np.arange(1, len(called) + 1), rtol=1e-9
    )
    assert found[[*COLUMNS, "ppa", "bfdr"]].iloc[-1].isna().all()


def test_the_prior_stands_beside_the_factor():
    y, C, K = dense.CASES[0].make(1)
    found = model(y, C, K, h2_prior=bl.priors.beta(2, 2)).scan(variants(len(y), 1))
    assert found.attrs["h2_prior"] == "Beta(2, 2)"
    assert "sd 0.05, 0.1, 0.2 or 0.4" in found.attrs["effect_prior"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effect_prior": -1.0}, "phi must be above 0"),
        ({"effect_prior": "wide"}, "effect_prior='wide' is no prior"),
        ({"effect_prior": ()}, "no prior"),
        ({"prior_odds": 0.0}, "prior_odds must be above 0"),
        ({"prior_odds": np.inf}, "above 0 and finite, such as 1e-4, but is inf"),
        ({"prior_odds": 1e-4, "tests": "wald"}, "add 'bayes' to tests"),
    ],
)
def test_bad_priors_are_refused(options, message):
    y, C, K = dense.CASES[0].make(1)
    with pytest.raises(InputError, match=message):
        model(y, C, K).scan(variants(len(y), 1), **options)


def test_bad_weights_are_refused():
    with pytest.raises(InputError, match="2 widths phi, but 1 weights"):
        bl.priors.EffectPrior((0.1, 0.2), weights=(1,))


@pytest.mark.parametrize("df", [3, 29, 30, 100, 5000])
def test_normal_deviate_has_the_tail_of_t(df):
    t = np.array([-12.0, -3.0, -0.1, 0.0, 0.5, 2.0, 7.0])
    np.testing.assert_allclose(ndtr(normal_deviate(t, df)), stats.t(df).cdf(t), rtol=3e-6)
