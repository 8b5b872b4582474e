"""Two terms of a variant at once: interactions with a covariate, and dominance."""

import dense
import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.genome import backgrounds
from bayeslmm.genome.codings import CODINGS, dominance_deviation, recode
from bayeslmm.genome.pairs import PairScanner
from bayeslmm.numerics.tails import log10_p_f2

pytestmark = pytest.mark.algebra
EXACT = {"tests": "wald", "dtype": "float64"}
NUMBERS = ["beta", "se", "beta_int", "se_int", "cov_int", "p_int", "p_joint", "l_remle"]


def variants(n, v, seed=0):
    rng = np.random.default_rng([seed, n])
    return rng.binomial(2, rng.uniform(0.2, 0.8, size=v), size=(n, v)).astype(float)


def model(y, C, K, **options):
    return bl.LMM(y, C[:, 1:] if C.shape[1] > 1 else None, K, **options)


def check_against_dense(found, y, C, K, terms, suffix, tolerance=3e-6):
    """Both tests of every variant, each with its own dense optimisation."""
    for j, (x, z) in enumerate(terms):
        expected = dense.pair_tests(y, C, K, x, z)
        row = found.iloc[j]
        for column, name in ((f"p_{suffix}", "second"), ("p_joint", "joint")):
            got = np.log10(row[column])
            assert got == pytest.approx(expected[name], abs=tolerance, rel=tolerance), (j, name)
        assert row.beta == pytest.approx(expected["beta"], rel=1e-5, abs=1e-5 * expected["se"])
        assert row.se == pytest.approx(expected["se"], rel=1e-5)
        assert row[f"beta_{suffix}"] == pytest.approx(
            expected["beta_2"], rel=1e-5, abs=1e-5 * expected["se_2"]
        )
        assert row[f"se_{suffix}"] == pytest.approx(expected["se_2"], rel=1e-5)
        scale = expected["se"] * expected["se_2"]
        assert row[f"cov_{suffix}"] == pytest.approx(
            expected["covariance"], rel=1e-5, abs=1e-5 * scale
        )
        if abs(expected["log_ratio"]) < 5:
            assert row.l_remle == pytest.approx(expected["l_remle"], rel=4e-5)


def products(X, e):
    return [(x, (x - x.mean()) * (e - e.mean())) for x in X.T]


def deviations(X):
    p = X.mean(axis=0) / 2
    het = 1 - np.abs(X - 1)
    return list(zip(X.T, (het - (1 - 2 * p) * X).T, strict=True))


@pytest.fixture
def counted(monkeypatch):
    """Counts the variants that are searched over the whole range."""
    count = [0]
    search = PairScanner.search_widely

    def counting(self, terms):
        count[0] += len(terms.x)
        return search(self, terms)

    monkeypatch.setattr(PairScanner, "search_widely", counting)
    return count


# -- exactness ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", [case for case in dense.CASES if case.c > 1], ids=lambda case: case.name
)
def test_interaction_equals_dense(case):
    y, C, K = case.make(1)
    X = variants(case.n, 4)
    found = model(y, C, K).scan(X, **EXACT, interaction="x1")
    check_against_dense(found, y, C, K, products(X, C[:, 1]), "int")
    np.testing.assert_allclose(found.neg_log10_p, -np.log10(found.p_int), rtol=1e-12)
    np.testing.assert_allclose(found.neg_log10_p_joint, -np.log10(found.p_joint), rtol=1e-12)


@pytest.mark.parametrize("case", dense.CASES[:4], ids=lambda case: case.name)
def test_dominance_equals_dense(case):
    y, C, K = case.make(1)
    X = variants(case.n, 5)
    X[:, 4] = np.clip(X[:, 4] + np.random.default_rng(1).uniform(-0.4, 0.4, case.n), 0, 2)
    found = model(y, C, K).scan(X, **EXACT, coding="genotypic")
    check_against_dense(found, y, C, K, deviations(X), "dom")


def test_effects_that_move_the_ratio_far_from_the_null(counted):
    n = 60
    for seed in range(4):
        rng = np.random.default_rng(seed)
        _, C, K = dense.Case("", n, 2, "genotypes", 150).make(seed)
        X = variants(n, 5, seed)
        u = np.linalg.cholesky(K + 1e-9 * np.eye(n)) @ rng.normal(size=n)
        h2 = [0.97, 0.03][seed % 2]
        y = np.sqrt(h2) * u / u.std() + np.sqrt(1 - h2) * rng.normal(size=n)
        terms = products(X, C[:, 1])
        y += 3 * X[:, 0] + 4 * terms[1][1] - 2 * terms[2][1]
        found = model(y, C, K).scan(X, **EXACT, interaction="x1")
        check_against_dense(found, y, C, K, terms, "int")
    assert counted[0] >= 2


@pytest.mark.parametrize("small", [0, 10**6], ids=["between nodes", "eigenbasis"])
def test_loco_equals_dense(monkeypatch, counted, small):
    """The chromosome's own K, with and without a decomposition; one effect far from the nodes."""
    monkeypatch.setattr(backgrounds, "_SMALL", small)
    rng = np.random.default_rng(3)
    n, m = 100, 80
    X = variants(n, 2 * m, 3)
    chrom = np.repeat(["1", "2"], m)
    e = rng.normal(size=n)
    y = (X - X.mean(0)) @ rng.normal(size=2 * m) / 8 + e + rng.normal(size=n)
    y += 6 * (X[:, 0] - X[:, 0].mean()) * e
    info = pd.DataFrame({"id": [f"v{j}" for j in range(2 * m)], "chrom": chrom})
    genotypes = bl.Genotypes.from_array(X, variants=info)
    K = bl.grm(genotypes, dtype="float64")
    few = genotypes.select(variants=["v0", "v1", "v2", "v100"])
    found = bl.LMM(y, e[:, None], K).scan(few, **EXACT, interaction="x1", background="loco")
    assert counted[0] >= 1 or small
    C = np.column_stack([np.ones(n), e])
    for label, rows in (("1", [0, 1, 2]), ("2", [3])):
        K_rest = bl.grm(genotypes.select(variants=chrom != label), dtype="float64").matrix
        columns = X[:, [0, 1, 2, 100]][:, rows]
        here = found.iloc[rows].reset_index(drop=True)
        check_against_dense(here, y, C, K_rest, products(columns, e), "int", 5e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_between_nodes_equals_the_eigenbasis(monkeypatch, integrated, dtype):
    """Bayes factors too, of weak pairs and of one that moves h2 out of the nodes."""
    rng = np.random.default_rng(4)
    n, m = 300, 60
    family = np.arange(n) // 5
    X = rng.binomial(2, 0.4, size=(n // 5, 2 * m))[family].astype(float)
    changed = rng.random(X.shape) < 0.2
    X[changed] = rng.binomial(2, 0.4, size=changed.sum())
    X[:, 0] = rng.integers(0, 3, size=n // 5)[family]
    e = rng.choice([-1.0, 1.0], size=n // 5)[family]
    y = (X - X.mean(0)) @ rng.normal(size=2 * m) / 12 + rng.normal(size=n)
    y += 3 * (X[:, 0] - 1) * e
    ids = [f"v{j}" for j in range(2 * m)]
    info = pd.DataFrame({"id": ids, "chrom": np.repeat(["1", "2"], m)})
    genotypes = bl.Genotypes.from_array(X, variants=info)
    lmm = bl.LMM(y, e[:, None], bl.grm(genotypes))
    options = {"interaction": "x1", "background": "loco", "effect_prior": (0.1, 1.0)}
    monkeypatch.setattr(backgrounds, "_SMALL", 0)
    located = []
    locate = backgrounds.CholeskyScanner._null_posterior
    monkeypatch.setattr(
        backgrounds.CholeskyScanner,
        "_null_posterior",
        lambda *args: located.append(1) or locate(*args),
    )
    fast = lmm.scan(genotypes, dtype=dtype, **options)
    assert located
    assert integrated[0] >= 1
    monkeypatch.setattr(backgrounds, "_SMALL", 10**6)
    exact = lmm.scan(genotypes, dtype=dtype, **options)
    limit = {"float64": 1e-5, "float32": 2e-3}[dtype]
    for column in ("neg_log10_p", "neg_log10_p_joint", "log10_bf_int", "log10_bf_joint"):
        assert np.abs(fast[column] - exact[column]).max() < limit, column


@pytest.mark.parametrize("c", [2, 5])
def test_without_kernel_it_is_least_squares(c):
    y, C, _ = dense.Case("", 60, c, "genotypes", 10).make()
    X = variants(60, 4)
    found = model(y, C, None).scan(X, "wald", interaction="x1")
    for j, (x, z) in enumerate(products(X, C[:, 1])):
        both = np.column_stack([C, x, z])
        b, se, p = dense.ols(y, both)
        row = found.iloc[j]
        np.testing.assert_allclose([row.beta, row.beta_int], b[-2:], rtol=1e-8)
        np.testing.assert_allclose([row.se, row.se_int], se[-2:], rtol=1e-8)
        assert row.p_int == pytest.approx(p[-1], rel=1e-8)
        rss = [np.sum((y - D @ dense.ols(y, D)[0]) ** 2) for D in (C, both)]
        df = 60 - c - 2
        f = (rss[0] - rss[1]) / 2 / (rss[1] / df)
        assert row.p_joint == pytest.approx(stats.f.sf(f, 2, df), rel=1e-8)
    assert "l_remle" not in found


def test_float32_is_close():
    y, C, K = dense.Case("", 200, 3, "genotypes", 500).make()
    X = variants(200, 40)
    y = y + 2 * X[:, 0] * (1 + C[:, 1] / 3)
    exact, fast = (
        model(y, C, K).scan(X, ("wald", "bayes"), dtype=d, interaction="x1")
        for d in ("float64", "float32")
    )
    assert exact.p_int.min() < 1e-8
    for column in ("p_int", "p_joint"):
        assert np.abs(np.log10(exact[column] / fast[column])).max() < 1e-3
    for column in ("log10_bf", "log10_bf_int", "log10_bf_joint"):
        assert np.abs(exact[column] - fast[column]).max() < 1e-3


def test_joint_tail_is_finite_where_p_underflows():
    f = np.array([0.0, 0.3, 5.0, 80.0])
    np.testing.assert_allclose(10 ** log10_p_f2(f, 17), stats.f.sf(f, 2, 17), rtol=1e-12)
    assert log10_p_f2(np.array([1e4]), 1000)[0] == pytest.approx(-500 * np.log10(21))


# -- Bayes factors -----------------------------------------------------------------------------


def brute_force(y, C, K, x, z, widths, scales, spike=0.0):
    """log10 Bayes factors of x, and of x and z, against none: the effects by their prior draws'
    covariance, s2 by quadrature, h2 by Gauss-Legendre; dense matrices throughout.
    """
    N = dense.contrasts(C)
    q, KN = N.T @ y, N.T @ K @ N / dense.kappa_of(K, C)
    gx, gz = N.T @ (x - x.mean()) / scales[0], N.T @ z / scales[1]
    t, w = np.polynomial.legendre.leggauss(16)
    breaks = np.array([0, 1e-4, 1e-2, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1])
    lo, hi = breaks[:-1, None], breaks[1:, None]
    h2, weights = (lo + (hi - lo) * (t + 1) / 2).ravel(), ((hi - lo) / 2 * w).ravel()
    if spike:
        h2, weights = np.append(0.0, h2), np.append(spike, weights * (1 - spike))
    log_s2 = np.linspace(np.log(q @ q / len(q)) - 9, np.log(q @ q / len(q)) + 6, 1201)
    priors = {
        "null": [(0.0, 0.0)],
        "x": [(a, 0.0) for a in widths],
        "both": [(a, b) for a in widths for b in widths],
    }
    evidence = dict.fromkeys(priors, 0.0)
    for h, weight in zip(h2, weights, strict=True):
        R = h * KN + (1 - h) * np.eye(len(q))
        for name, cases in priors.items():
            for a, b in cases:
                V = R + a**2 * np.outer(gx, gx) + b**2 * np.outer(gz, gz)
                logdet, Q = np.linalg.slogdet(V)[1], q @ np.linalg.solve(V, q)
                density = np.exp(-0.5 * (logdet + len(q) * log_s2 + Q / np.exp(log_s2)))
                value = integrate.simpson(density, x=log_s2)
                evidence[name] += weight * value / len(cases)
    return {name: np.log10(evidence[name] / evidence["null"]) for name in ("x", "both")}


@pytest.mark.parametrize("spike", [0.0, 0.3])
@pytest.mark.parametrize("what", ["interaction", "dominance"])
def test_bayes_factors_equal_brute_force(what, spike):
    y, C, K = dense.Case("", 30, 2, "genotypes", 50).make(2)
    X = variants(30, 2, 4)
    e = (C[:, 1] - C[:, 1].mean()) / C[:, 1].std()
    y = y / y.std() + 0.5 * X[:, 1] * e
    options = {"interaction": "x1"} if what == "interaction" else {"coding": "genotypic"}
    prior = bl.priors.uniform(spike=spike) if spike else "uniform"
    found = model(y, C, K, h2_prior=prior).scan(
        X, "bayes", dtype="float64", effect_prior=(0.1, 0.5), **options
    )
    for j, x in enumerate(X.T):
        z = (x - x.mean()) * e if what == "interaction" else deviations(X)[j][1]
        z = z - z.mean()
        scales = (x.std(), x.std() if what == "interaction" else z.std())
        expected = brute_force(y, C, K, x, z, (0.1, 0.5), scales, spike)
        row = found.iloc[j]
        second = row["log10_bf_int" if what == "interaction" else "log10_bf_dom"]
        assert row.log10_bf == pytest.approx(expected["x"], abs=2e-5)
        assert row.log10_bf_joint == pytest.approx(expected["both"], abs=2e-5)
        assert second == pytest.approx(expected["both"] - expected["x"], abs=4e-5)
    assert "p_joint" not in found
    alone = model(y, C, K, h2_prior=prior).scan(
        X, "bayes", dtype="float64", effect_prior=(0.1, 0.5)
    )
    np.testing.assert_allclose(found.log10_bf, alone.log10_bf, rtol=1e-9)


@pytest.fixture
def integrated(monkeypatch):
    """Counts the variants that are integrated adaptively."""
    count = [0]
    again = PairScanner.integrate_again

    def counting(self, *arguments):
        count[0] += 1
        return again(self, *arguments)

    monkeypatch.setattr(PairScanner, "integrate_again", counting)
    return count


def test_bayes_factor_of_effects_that_move_h2_out_of_range(integrated):
    """An interaction that is nearly all that families share: integrated again, adaptively."""
    n, rng = 400, np.random.default_rng(3)
    family = np.arange(n) // 4
    K = 0.98 * (family[:, None] == family) + 0.02 * np.eye(n)
    x = rng.integers(0, 3, size=n // 4)[family].astype(float)
    e = rng.choice([-1.0, 1.0], size=n // 4)[family]
    z = (x - x.mean()) * (e - e.mean())
    y = 6 * z + rng.normal(size=n)
    C = np.column_stack([np.ones(n), e])
    found = model(y, C, K).scan(
        x[:, None], "bayes", dtype="float64", effect_prior=2.0, interaction="x1"
    )
    assert integrated == [1]
    edges = np.array([0, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.6, 0.9, 0.99, 0.999, 1])
    t, w = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    h2, log_w = (edges[:-1, None] + half * (t + 1)).ravel(), np.log(half * w).ravel()
    N = dense.contrasts(C)
    q, KN, df = N.T @ y, N.T @ K @ N / dense.kappa_of(K, C), n - 2
    gx, gz = N.T @ x / x.std(), N.T @ z / (x.std() * e.std())
    extra = 4 * (np.outer(gx, gx) + np.outer(gz, gz))
    logs = np.empty((2, len(h2)))
    for i, h in enumerate(h2):
        R = h * KN + (1 - h) * np.eye(df)
        for k, V in enumerate((R, R + extra)):
            Q = q @ np.linalg.solve(V, q)
            logs[k, i] = -0.5 * (np.linalg.slogdet(V)[1] + df * np.log(Q))
    null, both = np.logaddexp.reduce(logs + log_w, axis=1)
    assert found.log10_bf_joint[0] == pytest.approx((both - null) / np.log(10), abs=1e-5)


# -- invariances -------------------------------------------------------------------------------


def problem(n=50, v=6):
    y, C, K = dense.Case("", n, 3, "genotypes", 100).make(4)
    X = variants(n, v, 2)
    return y + 0.4 * X[:, 0] * C[:, 1], C, K, X


def test_shift_and_scale_of_the_covariate():
    y, C, K, X = problem()
    both = ("wald", "bayes")
    found = model(y, C, K).scan(X, both, dtype="float64", interaction="x1")
    other = C.copy()
    other[:, 1] = 100 - 4 * C[:, 1]
    moved = model(y, other, K).scan(X, both, dtype="float64", interaction="x1")
    same = ["beta", "se", "p_int", "p_joint", "l_remle", "log10_bf_int", "log10_bf_joint"]
    np.testing.assert_allclose(moved[same], found[same], rtol=1e-6)
    np.testing.assert_allclose(moved.beta_int, found.beta_int / -4, rtol=1e-6)
    np.testing.assert_allclose(moved.se_int, found.se_int / 4, rtol=1e-6)
    assert found.attrs["interaction_mean"] == pytest.approx(C[:, 1].mean())


def test_other_allele_changes_signs_only():
    y, C, K, X = problem()
    for options, suffix, sign in (
        ({"interaction": "x1"}, "int", -1),
        ({"coding": "genotypic"}, "dom", 1),
    ):
        found, other = (
            model(y, C, K).scan(x, ("wald", "bayes"), dtype="float64", **options)
            for x in (X, 2 - X)
        )
        np.testing.assert_allclose(other.beta, -found.beta, rtol=1e-6)
        np.testing.assert_allclose(other[f"beta_{suffix}"], sign * found[f"beta_{suffix}"], 1e-6)
        same = ["se", f"se_{suffix}", f"p_{suffix}", "p_joint", "log10_bf_joint"]
        np.testing.assert_allclose(other[same], found[same], rtol=1e-6)


def test_sample_order_and_series():
    """A covariate given by sample id is matched, and its main effect added."""
    y, C, K, X = problem()
    n = len(y)
    ids = [f"s{i}" for i in range(n)]
    table = pd.DataFrame({"y": y, "a": C[:, 1], "b": C[:, 2]}, index=ids)
    kernel = pd.DataFrame(K, index=ids, columns=ids)
    shuffled = np.random.default_rng(1).permutation(n)
    genotypes = bl.Genotypes.from_array(X[shuffled], samples=[ids[i] for i in shuffled])
    named = bl.LMM("y ~ a + b", table, kernel).scan(genotypes, **EXACT, interaction="a")
    given = bl.LMM("y ~ b", table, kernel).scan(
        genotypes, **EXACT, interaction=table["a"].iloc[shuffled]
    )
    there = bl.LMM("y ~ a + b", table, kernel).scan(genotypes, **EXACT, interaction=table["a"] * 2)
    plain = model(y, C, K).scan(X, **EXACT, interaction="x1")
    for found in (named, given):
        np.testing.assert_allclose(found[NUMBERS], plain[NUMBERS], rtol=1e-6)
    np.testing.assert_allclose(there.p_int, plain.p_int, rtol=1e-6)
    added = [one.attrs["interaction_main_effect_added"] for one in (named, given, there)]
    assert added == [False, True, False]
    assert given.attrs["formula"] == "y ~ b + a"


def test_effect_within_each_sex():
    """beta, beta_int and their covariance give the effect and its error at either sex."""
    y, C, _, X = problem()
    sex = np.where(np.arange(len(y)) % 5 < 2, "f", "m")
    table = pd.DataFrame({"y": y, "sex": sex, "b": C[:, 2]})
    found = bl.LMM("y ~ sex + b", table).scan(X, "wald", interaction="sex")
    male = (sex == "m").astype(float)
    assert found.attrs["interaction"] == "sex[T.m]"
    assert found.attrs["interaction_mean"] == pytest.approx(0.6)
    for j, x in enumerate(X.T):
        design = np.column_stack([np.ones(len(y)), male, C[:, 2], x * (1 - male), x * male])
        b, se, _ = dense.ols(y, design)
        row = found.iloc[j]
        for value, k in ((0.0, 3), (1.0, 4)):
            step = value - 0.6
            assert row.beta + step * row.beta_int == pytest.approx(b[k], rel=1e-8)
            variance = row.se**2 + 2 * step * row.cov_int + step**2 * row.se_int**2
            assert np.sqrt(variance) == pytest.approx(se[k], rel=1e-8)


def test_missing_dosages_are_at_the_mean():
    y, C, K, X = problem()
    holed = X.copy()
    holed[np.random.default_rng(3).random(X.shape) < 0.15] = np.nan
    filled = np.where(np.isnan(holed), np.nanmean(holed, axis=0), holed)
    found = model(y, C, K).scan(holed, **EXACT, interaction="x1")
    check_against_dense(found, y, C, K, products(filled, C[:, 1]), "int")
    # The deviation of a missing dosage is at the mean of the deviation, not that of the mean.
    p = np.nanmean(holed, axis=0) / 2
    d = 1 - np.abs(holed - 1) - (1 - 2 * p) * holed
    d = np.where(np.isnan(d), np.nanmean(d, axis=0), d)
    found = model(y, C, K).scan(holed, **EXACT, coding="genotypic")
    check_against_dense(found, y, C, K, list(zip(filled.T, d.T, strict=True)), "dom")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_terms_that_cannot_be_told_apart(dtype):
    n = 60
    y, C, K = dense.Case("", n, 1, "genotypes", 150).make()
    male = (np.arange(n) % 2).astype(float)
    C = np.column_stack([C, male])
    X = variants(n, 5)
    X[male == 1, 1] = 0  # monomorphic among males
    X[:, 2] = 1  # everywhere
    X[:, 3] = male
    X[:, 4] = np.where(X[:, 4] > 0, 1, 0)  # no homozygote
    found = model(y, C, K).scan(X, dtype=dtype, interaction="x1")
    columns = [*NUMBERS, "log10_bf", "log10_bf_int", "log10_bf_joint", "neg_log10_p"]
    assert found.loc[1:3, columns].isna().all(axis=None)
    assert found.loc[[0, 4], columns].notna().all(axis=None)
    assert found.attrs["n_monomorphic"] == 1
    assert found.attrs["n_explained_by_covariates"] == 1
    assert found.attrs["n_int_not_estimable"] == 1
    dominance = model(y, C, K).scan(X, dtype=dtype, coding="genotypic")
    # Females of variant 1 have one or two copies: sex and x give the heterozygotes away
    assert set(X[male == 0, 1]) == {1.0, 2.0}
    assert dominance.attrs["n_dom_not_estimable"] == 2
    assert dominance.loc[[1, 4], ["beta", "p_dom", "p_joint"]].isna().all(axis=None)
    assert dominance.loc[0, ["beta", "p_dom", "p_joint"]].notna().all()


# -- codings -----------------------------------------------------------------------------------


def test_codings_are_plink2s():
    dosage = np.array([[0.0, 0.5, 1.0, 1.25, 2.0, np.nan]]).T
    block = bl.Genotypes.from_array(dosage).centered_block(0, 1, np.float64)
    expected = {
        "dominant": [0, 0.5, 1, 1, 1],
        "recessive": [0, 0, 0, 0.25, 1],
        "hetonly": [0, 0.5, 1, 0.75, 0],
    }
    for coding, values in expected.items():
        coded = recode(block, coding)
        centred = np.append(np.array(values) - np.mean(values), 0)
        np.testing.assert_allclose(coded.x[0], centred, atol=1e-12)
        assert coded.sum_sq[0] == pytest.approx(centred @ centred)
        assert coded.eaf[0] == block.eaf[0]


def test_dominance_deviation_is_orthogonal_in_hardy_weinberg_proportions():
    counts = [9, 42, 49]  # p = 0.3
    x = np.repeat([2.0, 1.0, 0.0], counts)[:, None]
    block = bl.Genotypes.from_array(x).centered_block(0, 1, np.float64)
    d = dominance_deviation(block)[0]
    assert abs(d @ block.x[0]) < 1e-10
    values = [d[np.argmax(x[:, 0] == k)] for k in (0, 1, 2)]
    np.testing.assert_allclose(values, [-2 * 0.09, 2 * 0.21, -2 * 0.49], atol=1e-12)


@pytest.mark.parametrize("coding", CODINGS[1:4])
def test_coded_scan_equals_scan_of_coded_dosages(coding):
    y, C, K, X = problem()
    coded = {
        "dominant": np.minimum(X, 1),
        "recessive": np.maximum(X - 1, 0),
        "hetonly": (X == 1).astype(float),
    }[coding]
    tests = ("wald", "lrt", "score", "p3d", "bayes")
    found = model(y, C, K).scan(X, tests, dtype="float64", coding=coding)
    expected = model(y, C, K).scan(coded, tests, dtype="float64")
    columns = expected.columns[8:]
    np.testing.assert_allclose(found[columns], expected[columns], rtol=1e-9)
    np.testing.assert_allclose(found.eaf, X.mean(axis=0) / 2)
    assert found.attrs["coding"] == coding


# -- calibration and errors --------------------------------------------------------------------


def test_p_values_are_uniform_under_the_null():
    """No variant has an effect: p of interaction, deviation and joint tests are uniform."""
    n = 300
    rng = np.random.default_rng(12)
    background = variants(n, 400, 7)
    basis = bl.eigenbasis(bl.grm(background))
    e = rng.normal(size=n)
    X = variants(n, 600, 8)
    z = (background - background.mean(0)) @ rng.normal(size=400)
    y = z / z.std() + e + rng.normal(size=n)
    lmm = bl.LMM(y, e[:, None], basis)
    interaction = lmm.scan(X, "wald", interaction="x1")
    dominance = lmm.scan(X, "wald", coding="genotypic")
    for p in (interaction.p_int, interaction.p_joint, dominance.p_dom, dominance.p_joint):
        assert stats.kstest(p, "uniform").pvalue > 0.01
        assert 0.02 < (p < 0.05).mean() < 0.085


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interaction": "sex"}, "is not there.*'x1', 'x2': add it to the formula, or"),
        ({"interaction": "Intercept"}, "'Intercept' is constant among the 50"),
        ({"interaction": 3}, "takes the name of a covariate"),
        ({"interaction": pd.Series(np.ones(50), name="E")}, "'E' is constant"),
        ({"interaction": pd.Series(np.arange(49.0), name="E")}, "lacks 1 of 50 analysed"),
        ({"interaction": pd.Series(["m", "f"] * 25, name="E")}, "is not numeric"),
        ({"interaction": pd.Series([np.nan, *range(49)], name="E")}, "missing for 1"),
        ({"interaction": "x1", "tests": "lrt"}, "by wald and bayes, not by 'lrt'"),
        ({"interaction": "x1", "coding": "genotypic"}, "four terms"),
        ({"interaction": "x1", "prior_odds": 1e-4}, "ambiguous"),
        ({"coding": "genotypic", "tests": ("wald", "p3d")}, "coding='genotypic' is tested by"),
        ({"coding": "multiplicative"}, "coding='multiplicative' is unknown"),
    ],
)
def test_errors(options, message):
    y, C, K, X = problem()
    with pytest.raises(InputError, match=message):
        model(y, C, K).scan(X, **options)


def test_several_columns_of_a_category():
    y, *_, X = problem()
    table = pd.DataFrame({"y": y, "site": np.array(["a", "b", "c"])[np.arange(50) % 3]})
    lmm = bl.LMM("y ~ site", table)
    with pytest.raises(InputError, match=r"has 2 columns: name one.*site\[T.b\]"):
        lmm.scan(X, "wald", interaction="site")
    assert lmm.scan(X, "wald", interaction="site[T.c]").p_int.notna().all()


def test_too_few_samples():
    y, C, X = np.arange(6.0) ** 2, np.random.default_rng(1).normal(size=(6, 3)), np.eye(6)[:, :2]
    with pytest.raises(InputError, match="6 samples are too few to test two terms"):
        bl.LMM(y, C).scan(X, "wald", interaction="x1")


def test_several_models_keep_their_own_covariates():
    y, C, K, X = problem()
    one = model(y, C, K)
    two = one.with_phenotype(y[::-1].copy())
    found = bl.scan({"a": one, "b": two}, X, **EXACT, interaction="x2")
    for name, lmm in (("a", one), ("b", two)):
        pd.testing.assert_frame_equal(found[name], lmm.scan(X, **EXACT, interaction="x2"))
