from decimal import Decimal, getcontext

import dense
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.genome.scanner import TESTS, Scanner
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.tails import log10_p_chi2, log10_p_f

pytestmark = pytest.mark.algebra
ALL = ("wald", "lrt", "score", "p3d")
F64 = {"tests": ALL, "dtype": "float64"}


def model(y, C, K, **options):
    return bl.LMM(y, C[:, 1:] if C.shape[1] > 1 else None, K, **options)


def variants(n, v, seed=0):
    rng = np.random.default_rng([seed, n])
    return rng.binomial(2, rng.uniform(0.1, 0.9, size=v), size=(n, v)).astype(float)


def check_against_dense(y, C, K, X, found, tolerance=2e-6):
    """Every test of every variant, each with its own dense optimisation."""
    for j, x in enumerate(X.T):
        expected = dense.variant_tests(y, C, K, x)
        row = found.iloc[j]
        for test in ALL:
            got = np.log10(row[f"p_{test}"])
            assert got == pytest.approx(expected[test], abs=tolerance, rel=tolerance), (j, test)
        assert row.beta == pytest.approx(expected["beta"], rel=1e-5, abs=1e-5 * expected["se"])
        assert row.se == pytest.approx(expected["se"], rel=1e-5)
        if abs(expected["log_ratio"]) < 5:
            assert row.l_remle == pytest.approx(expected["l_remle"], rel=2e-5)


@pytest.fixture
def counted(monkeypatch):
    """Counts the variants that are searched over the whole range."""
    count = {"reml": 0, "ml": 0}
    search = Scanner.search_widely

    def counting(self, kind, x, limit):
        count[kind] += len(x)
        return search(self, kind, x, limit)

    monkeypatch.setattr(Scanner, "search_widely", counting)
    return count


# -- exactness ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", dense.CASES, ids=lambda case: case.name)
def test_scan_equals_dense(case):
    y, C, K = case.make(1)
    X = variants(case.n, 6)
    found = model(y, C, K).scan(X, **F64)
    check_against_dense(y, C, K, X, found)
    np.testing.assert_allclose(found.neg_log10_p, -np.log10(found.p_wald), rtol=1e-12)
    np.testing.assert_allclose(
        found.pve, found.beta**2 * X.var(axis=0) / y.var(), rtol=1e-10, err_msg="pve"
    )


def test_effects_that_move_the_ratio_far_from_the_null(counted):
    """Variants that carry most of the variance: their optimum is outside the window."""
    n = 60
    for seed in range(4):
        rng = np.random.default_rng(seed)
        _, C, K = dense.Case("", n, 2, "genotypes", 150).make(seed)
        X = variants(n, 8, seed)
        u = np.linalg.cholesky(K + 1e-9 * np.eye(n)) @ rng.normal(size=n)
        h2 = [0.97, 0.03][seed % 2]
        y = np.sqrt(h2) * u / u.std() + np.sqrt(1 - h2) * rng.normal(size=n)
        y += X[:, :3] @ np.array([3.0, -2.0, 8.0])
        check_against_dense(y, C, K, X, model(y, C, K).scan(X, **F64))
    assert counted["reml"] >= 2
    assert counted["ml"] >= 2


def test_wide_search_agrees_with_the_window():
    y, C, K = dense.Case("", 60, 2, "genotypes", 150).make(0)
    scanner = Scanner(model(y, C, K), ALL, np.dtype("float64"))
    genotypes = bl.Genotypes.from_array(variants(60, 20))
    block = genotypes.centered_block(0, 20, dtype=np.float64)
    inside = scanner.test(block, scanner.rotate(block.x))
    x = scanner.basis.rotate_rows(block.x)
    _, log_ratio, a, b, Q = scanner.search_widely("reml", x, np.full(20, np.log(1e5)))
    middle = np.abs(np.log(inside["l_remle"] * scanner.data.kappa) - scanner.center) < 1.4
    assert middle.sum() > 10
    np.testing.assert_allclose(
        np.exp(log_ratio)[middle], inside["l_remle"][middle] * scanner.data.kappa, rtol=1e-5
    )
    beta, se, f = scanner._wald(a, b, Q)
    np.testing.assert_allclose(beta[middle], inside["beta"][middle], rtol=1e-5)
    np.testing.assert_allclose(se[middle], inside["se"][middle], rtol=1e-5)
    np.testing.assert_allclose(
        log10_p_f(f, scanner.df)[middle], inside["log10_wald"][middle], rtol=1e-5
    )


@pytest.mark.parametrize("h2", [0, 1])
@pytest.mark.parametrize("c", [1, 3])
def test_null_model_on_the_boundary(h2, c):
    n = 50
    _, C, K = dense.Case("", n, c, "genotypes", 200).make()
    S, U = np.linalg.eigh(dense.centred(K))
    rng = np.random.default_rng(2)
    scale = S if h2 else 1 / (S + 0.3 * S.mean())
    y = U @ (scale * rng.choice([-1, 1], size=n))
    lmm = model(y, C, K)
    assert lmm.reml().boundary == f"h2 = {h2}"
    X = variants(n, 8)
    check_against_dense(y, C, K, X, lmm.scan(X, **F64), tolerance=5e-6)


def test_full_likelihood_above_0_where_the_restricted_one_is_not():
    rng = np.random.default_rng(9)
    X = rng.binomial(2, rng.uniform(0.1, 0.5, 100), size=(100, 100)).astype(float)
    y, C, K = rng.normal(size=100), np.ones((100, 1)), bl.grm(X).matrix
    ratios = [dense.optimum(y, C, dense.centred(K), kind)[0] for kind in ("reml", "ml")]
    assert ratios[0] < -11 < -5 < ratios[1] < -4
    check_against_dense(y, C, K, X[:, 30:40], model(y, C, K).scan(X[:, 30:40], **F64))


@pytest.mark.parametrize("c", [1, 4])
def test_full_likelihood_without_a_maximum(c):
    """Hardly related samples: h2 is all but unknown, and the full likelihood grows to h2 = 1."""
    n = 60
    rng = np.random.default_rng(8)
    U = np.linalg.qr(rng.normal(size=(n, n)))[0]
    K = U @ np.diag(1 + 0.1 * rng.normal(size=n)) @ U.T
    y, C, _ = dense.Case("", n, c, "genotypes", 10).make(3)
    Kc = dense.centred(K)
    data = model(y, C, K).rotated
    h2 = np.array([0.5, 0.99, 1 - 1e-5])
    assert (np.diff(likelihood.full_loglik(data, h2)) > 0).all()
    assert dense.optimum(y, C, Kc, "ml")[0] > 11
    X = variants(n, 4)
    y = y + X[:, 0]
    found = model(y, C, K).scan(X, **F64)
    check_against_dense(y, C, K, X, found)
    # Such a sample is nearly independent: least squares is the answer to every test
    simple = model(y, C, None).scan(X, ["wald", "lrt"])
    for test in ("wald", "lrt"):
        log10_p = np.log10(simple[f"p_{test}"])
        difference = np.abs(np.log10(found[f"p_{test}"]) - log10_p)
        assert (difference < 0.1 - 0.05 * log10_p).all()


def two_dummies(y, C):
    first = (np.arange(len(y)) % 3 == 0).astype(float)
    return pd.DataFrame({"y": y, "a": first, "b": 1 - first, "x": C[:, 1]})


def test_dummies_that_span_the_intercept():
    y, C, K = dense.CASES[0].make()
    table, X = two_dummies(y, C), variants(40, 5)
    found = bl.LMM("y ~ 0 + a + b + x", table, K).scan(X, **F64)
    check_against_dense(y, table[["a", "b", "x"]].to_numpy(), K, X, found)
    pd.testing.assert_frame_equal(found, bl.LMM("y ~ a + x", table, K).scan(X, **F64))


def test_uncentred_basis():
    y, C, K = dense.CASES[0].make()
    X = variants(40, 5)
    found = model(y, C, bl.eigenbasis(K, center=False)).scan(X, **F64)
    expected = model(y, C, K).scan(X, **F64)
    columns = ["beta", "se", "p_wald", "l_remle"]
    np.testing.assert_allclose(found[columns], expected[columns], rtol=1e-5)


def test_float32_is_close():
    y, C, K = dense.Case("", 200, 3, "genotypes", 500).make()
    X = variants(200, 60)
    y = y + 2 * X[:, 0] + 0.5 * X[:, 1]
    exact, fast = (model(y, C, K).scan(X, ALL, dtype=d) for d in ("float64", "float32"))
    assert exact.p_wald.min() < 1e-20
    for test in ALL:
        difference = np.log10(exact[f"p_{test}"] / fast[f"p_{test}"])
        assert np.abs(difference).max() < 1e-3, test


# -- without kernel ----------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1, 2, 20])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_without_kernel_it_is_least_squares(c, dtype):
    y, C, _ = dense.Case("", 60, c, "genotypes", 10).make()
    X = variants(60, 6)
    y = y + X[:, 0]
    found = model(y, C, None).scan(X, ALL, dtype=dtype)
    for j, x in enumerate(X.T):
        b, se, p = dense.ols(y, np.column_stack([C, x]))
        assert found.beta[j] == pytest.approx(b[-1], rel=1e-8)
        assert found.se[j] == pytest.approx(se[-1], rel=1e-8)
        assert found.p_wald[j] == pytest.approx(p[-1], rel=1e-8)
        ml = [dense.ml_loglik(y, D, np.eye(60)) for D in (C, np.column_stack([C, x]))]
        assert len(ml) == 2
        rss = [np.sum((y - D @ dense.ols(y, D)[0]) ** 2) for D in (C, np.column_stack([C, x]))]
        lrt = stats.chi2.sf(60 * np.log(rss[0] / rss[1]), 1)
        assert found.p_lrt[j] == pytest.approx(lrt, rel=1e-7)
    assert "l_remle" not in found
    np.testing.assert_allclose(found.p_p3d, found.p_wald, rtol=1e-12)


# -- missing, monomorphic, collinear -----------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("with_kernel", [True, False])
def test_variants_that_cannot_be_tested(dtype, with_kernel):
    n = 60
    y, C, K = dense.Case("", n, 2, "genotypes", 150).make()
    X = variants(n, 3)
    snp_covariate = variants(n, 2, seed=5)
    C = np.column_stack([C, snp_covariate])
    almost = np.full(n, 1.0)
    almost[:30] = np.nan
    bad = np.column_stack(
        [
            np.zeros(n),
            np.full(n, 2.0),
            np.full(n, np.nan),
            almost,  # monomorphic where it is known
            np.full(n, 0.7),  # a constant dosage
            snp_covariate[:, 0],
            2 - snp_covariate[:, 1],  # the other allele of a covariate
            snp_covariate.mean(axis=1),
        ]
    )
    mixed = np.column_stack([X[:, :1], bad, X[:, 1:]])
    lmm = model(y, C, K if with_kernel else None)
    found = lmm.scan(mixed, ALL, dtype=dtype)
    numbers = ["beta", "se", *(f"p_{test}" for test in ALL), "neg_log10_p", "pve"]
    assert found.loc[1:8, numbers].isna().all(axis=None)
    assert found.loc[[0, 9, 10], numbers].notna().all(axis=None)
    assert found.attrs["n_variants"] == 11
    assert found.attrs["n_monomorphic"] == 5
    assert found.attrs["n_explained_by_covariates"] == 3
    assert found.n_missing.tolist() == [0, 0, 0, n, 30, 0, 0, 0, 0, 0, 0]
    assert np.isnan(found.eaf[3])
    alone = lmm.scan(X, ALL, dtype=dtype)
    pd.testing.assert_frame_equal(
        found.loc[[0, 9, 10], numbers].reset_index(drop=True), alone[numbers], rtol=1e-4
    )


def test_nearly_collinear_variant_is_tested():
    n = 60
    y, C, K = dense.Case("", n, 2, "genotypes", 100).make()
    covariate = variants(n, 1, seed=5)[:, 0]
    variant = 0.01 + 0.98 * covariate + np.random.default_rng(1).uniform(-0.01, 0.01, n)
    assert 1 - np.corrcoef(variant, covariate)[0, 1] ** 2 < 2e-4
    C = np.column_stack([C, covariate])
    X = variant[:, None]
    found = model(y, C, K).scan(X, **F64)
    expected = dense.variant_tests(y, C, K, variant)
    assert np.log10(found.p_wald[0]) == pytest.approx(expected["wald"], abs=1e-5)
    fast = model(y, C, K).scan(X, ALL)
    assert np.log10(fast.p_wald[0]) == pytest.approx(expected["wald"], abs=2e-3)


def test_missing_dosages_become_the_mean():
    n = 50
    y, C, K = dense.Case("", n, 2, "genotypes", 100).make()
    X = variants(n, 6)
    holed = X.copy()
    rng = np.random.default_rng(3)
    holed[rng.random(X.shape) < 0.15] = np.nan
    filled = np.where(np.isnan(holed), np.nanmean(holed, axis=0), holed)
    found = model(y, C, K).scan(holed, **F64)
    check_against_dense(y, C, K, filled, found)
    assert found.n_missing.tolist() == np.isnan(holed).sum(axis=0).tolist()
    assert found.n_missing.min() > 0
    np.testing.assert_allclose(found.eaf, np.nanmean(holed, axis=0) / 2)
    assert (found.n == n).all()


def test_fractional_dosages():
    y, C, K = dense.CASES[0].make()
    X = np.clip(variants(40, 5) + np.random.default_rng(1).uniform(-0.3, 0.3, (40, 5)), 0, 2)
    check_against_dense(y, C, K, X, model(y, C, K).scan(X, **F64))


# -- the table and its options -----------------------------------------------------------------


def labelled_problem(n=40, v=30):
    y, C, K = dense.Case("", n, 2, "genotypes", 90).make()
    ids = [f"s{i}" for i in range(n)]
    table = pd.DataFrame({"y": y, "x": C[:, 1]}, index=ids)
    info = pd.DataFrame(
        {
            "id": [f"rs{j}" for j in range(v)],
            "chrom": ["chr1", "2L", "X"] * (v // 3),
            "pos": np.arange(v) * 100,
            "ea": ["A"] * v,
            "oa": ["G"] * v,
        }
    )
    X = variants(n, v)
    genotypes = bl.Genotypes.from_array(X, samples=ids, variants=info)
    lmm = bl.LMM("y ~ x", table, pd.DataFrame(K, index=ids, columns=ids))
    return lmm, genotypes, X, table, K, ids


def test_columns():
    lmm, genotypes, X, *_ = labelled_problem()
    found = lmm.scan(genotypes, ALL)
    assert found.columns.tolist() == [
        "chrom", "pos", "id", "ea", "oa", "eaf", "n", "n_missing", "beta", "se",
        "p_wald", "p_lrt", "p_score", "p_p3d", "neg_log10_p", "pve", "l_remle",
    ]  # fmt: skip
    assert found.chrom.tolist() == ["chr1", "2L", "X"] * 10
    assert found.id.tolist() == [f"rs{j}" for j in range(30)]
    assert (found.ea == "A").all()
    assert found.pos.tolist() == list(range(0, 3000, 100))
    np.testing.assert_allclose(found.eaf, X.mean(axis=0) / 2, rtol=1e-6)
    assert found.attrs["formula"] == "y ~ x"
    assert found.attrs["tests"] == list(ALL)
    assert found.attrs["created_by"].startswith("bayeslmm")
    assert bl.scan(lmm, genotypes).equals(lmm.scan(genotypes))


@pytest.mark.parametrize(
    "tests", ["wald", "lrt", "score", "p3d", ("score", "wald"), ["p3d", "lrt"]]
)
@pytest.mark.parametrize("with_kernel", [True, False])
def test_subsets_of_tests(tests, with_kernel):
    lmm, genotypes, _, table, *_ = labelled_problem()
    lmm = lmm if with_kernel else bl.LMM("y ~ x", table)
    everything = lmm.scan(genotypes, **F64)
    found = lmm.scan(genotypes, tests, dtype="float64")
    chosen = [tests] if isinstance(tests, str) else list(tests)
    assert [c for c in found if c.startswith("p_")] == [f"p_{test}" for test in chosen]
    for test in chosen:
        np.testing.assert_allclose(found[f"p_{test}"], everything[f"p_{test}"], rtol=1e-6)
    np.testing.assert_allclose(found.neg_log10_p, -np.log10(found[f"p_{chosen[0]}"]), rtol=1e-9)
    exact = bool({"wald", "lrt"} & set(chosen))
    assert ("l_remle" in found) == (exact and with_kernel)
    if exact:
        np.testing.assert_allclose(found.beta, everything.beta, rtol=1e-6)
    else:  # at the null model's ratio
        z = found.beta / found.se
        df = len(lmm.y) - 3
        np.testing.assert_allclose(everything.p_p3d, 2 * stats.t.sf(np.abs(z), df), rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"block_size": 1},
        {"block_size": 7},
        {"threads": 1},
        {"threads": 3, "block_size": 4},
        {"progress": True},
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_blocks_and_threads_change_nothing(options, dtype):
    lmm, genotypes, *_ = labelled_problem()
    expected = lmm.scan(genotypes, ALL, dtype=dtype)
    found = lmm.scan(genotypes, ALL, dtype=dtype, **options)
    # Another block, another order of summation inside BLAS
    rtol = 1e-9 if dtype == "float64" else 2e-3
    pd.testing.assert_frame_equal(found, expected, rtol=rtol)


def test_genotypes_in_another_order():
    lmm, genotypes, X, _, _, ids = labelled_problem()
    order = np.random.default_rng(3).permutation(len(ids))
    shuffled = bl.Genotypes.from_array(
        X[order], samples=[ids[i] for i in order], variants=genotypes.variants
    )
    pd.testing.assert_frame_equal(lmm.scan(shuffled, **F64), lmm.scan(genotypes, **F64))


def test_more_genotypes_than_analysed_samples():
    _, genotypes, X, table, K, ids = labelled_problem()
    holed = table.assign(y=table.y.mask(table.index.isin(["s3", "s20", "s39"])))
    kept = np.array([i not in ("s3", "s20", "s39") for i in ids])
    found = bl.LMM("y ~ x", holed, pd.DataFrame(K, index=ids, columns=ids)).scan(genotypes, **F64)
    C = np.column_stack([np.ones(37), table.x[kept]])
    check_against_dense(
        table.y.to_numpy()[kept], C, K[np.ix_(kept, kept)], X[kept][:, :4], found.iloc[:4]
    )
    assert (found.n == 37).all()
    np.testing.assert_allclose(found.eaf, X[kept].mean(axis=0) / 2)


@pytest.mark.parametrize("threads", [0, -3])
def test_threads_are_one_or_more(threads):
    lmm, genotypes, *_ = labelled_problem()
    with pytest.raises(InputError, match=f"threads must be at least 1, but is {threads}"):
        lmm.scan(genotypes, threads=threads)


def test_samples_without_genotypes():
    lmm, genotypes, *_ = labelled_problem()
    few = genotypes.select(samples=[f"s{i}" for i in range(35)])
    with pytest.raises(
        InputError, match="5 of the 40 analysed samples have no genotypes there: 's35'"
    ):
        lmm.scan(few)
    unlabelled = bl.Genotypes.from_array(variants(40, 3))
    with pytest.raises(InputError, match=r"40 of the 40 .* are an array without ids: bl"):
        lmm.scan(unlabelled)


def test_arrays_of_different_length_are_not_matched():
    """Rows of arrays are known by their order only: the first 40 need not be these 40."""
    X = variants(50, 60)
    model = bl.LMM(np.arange(40.0) % 7, kernel=bl.grm(X[:40]))
    with pytest.raises(InputError, match="50 samples, the model has 40, and neither has ids"):
        model.scan(X)
    missing = bl.LMM(np.where(np.arange(50) < 3, np.nan, np.arange(50.0) % 7), kernel=bl.grm(X))
    assert (missing.scan(X).n == 47).all()


@pytest.mark.parametrize("task", [bl.scan, bl.stepwise, bl.significance_threshold, bl.finemap])
def test_a_model_that_has_no_scan(task):
    X = variants(30, 40)
    sets = {"1": np.arange(40) < 20}
    several = bl.LMM(np.arange(30.0) % 7, kernels=bl.partition_grms(X, sets, rest="rest"))
    options = {"snps": ["snp1"]} if task is bl.finemap else {}
    with pytest.raises(InputError, match="LMM with one kernel or none, but this is a Partitioned"):
        task(several, X, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tests": "wlad"}, "tests='wlad': expected one or more of 'wald', 'lrt', 'score', 'p3d'"),
        ({"tests": ["wald", "p_lrt"]}, "tests='p_lrt': expected"),
        ({"tests": []}, "expected one or more of 'wald'"),
        ({"dtype": "float16"}, "dtype='float16' is unknown; expected 'float32' or 'float64'"),
        ({"block_size": 0}, "at least one variant, but its size is 0"),
    ],
)
def test_errors(options, message):
    lmm, genotypes, *_ = labelled_problem()
    with pytest.raises(InputError, match=message):
        lmm.scan(genotypes, **options)


def test_too_few_samples():
    y = np.array([1.0, 5.0, 2.0, 7.0])
    with pytest.raises(InputError, match="4 samples are too few to test a variant with 3 cov"):
        Scanner(
            type("Model", (), {"rotated": _no_residual(y), "basis": None, "has_intercept": True}),
            ("wald",),
            np.dtype("float64"),
        )


def _no_residual(y):
    return likelihood.rotate(None, y, np.vander(np.arange(4.0) + 1, 3))


# -- invariances -------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 4, 20]))
def test_allele_swap_flips_beta(seed, c):
    y, C, K = dense.Case("", 40, c, "genotypes", 70).make(seed)
    X = variants(40, 5, seed)
    lmm = model(y, C, K)
    one, other = lmm.scan(X, **F64), lmm.scan(2 - X, **F64)
    np.testing.assert_allclose(other.beta, -one.beta, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(other.eaf, 1 - one.eaf)
    same = ["se", "p_wald", "p_lrt", "p_score", "p_p3d", "pve"]
    np.testing.assert_allclose(other[same], one[same], rtol=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 4, 20]), st.floats(-5, 5), st.floats(-100, 100))
def test_rescaling_and_shifting(seed, c, log10_factor, shift):
    y, C, K = dense.Case("", 40, c, "genotypes", 70).make(seed)
    X = variants(40, 5, seed)
    factor = 10**log10_factor
    one = model(y, C, K).scan(X, **F64)
    order = np.random.default_rng(seed).permutation(40)
    other = model((y * factor + shift * factor)[order], C[order], 3 * K[np.ix_(order, order)]).scan(
        X[order], **F64
    )
    same = ["p_wald", "p_lrt", "p_score", "p_p3d", "pve"]
    np.testing.assert_allclose(other[same], one[same], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(other.beta, one.beta * factor, rtol=1e-5, atol=1e-7 * factor)
    np.testing.assert_allclose(other.se, one.se * factor, rtol=1e-5)


# -- tails -------------------------------------------------------------------------------------


def exact_log10_p_t(f, df, digits):
    """log10 P(F(1, df) > f) for even df by the finite series (Abramowitz & Stegun 26.7.4)."""
    getcontext().prec = digits
    f, df_exact = Decimal(f), Decimal(df)
    cos2, sin = df_exact / (df_exact + f), (f / (df_exact + f)).sqrt()
    term = total = Decimal(1)
    for k in range(1, df // 2):
        term *= Decimal(2 * k - 1) / Decimal(2 * k) * cos2
        total += term
    return float((1 - sin * total).log10())


@pytest.mark.parametrize(
    ("f", "df", "digits"),
    [
        (3.0, 10, 60),
        (40.0, 1408, 60),
        (1250.0, 1408, 300),
        (2500.0, 1408, 400),
        (5e3, 1408, 700),
        (1e5, 1408, 1500),
        (1e200, 4, 500),
        (1e60, 10, 400),
        (1e4, 600, 600),
        (1320.0, 20_000, 400),
        (1400.0, 20_000, 400),
        (5e3, 20_000, 1100),
        (1400.0, 100_000, 400),
    ],
)
def test_tail_of_f_equals_exact_series(f, df, digits):
    # 1e-9: gamma functions of half of many degrees of freedom
    assert float(log10_p_f(np.array([f]), df)[0]) == pytest.approx(
        exact_log10_p_t(f, df, digits), rel=1e-10, abs=1e-9
    )


@pytest.mark.parametrize("df", [1, 2, 7, 1408, 499_999, 10**6])
def test_tail_of_f_equals_scipy(df):
    f = np.concatenate([[0, 1e-3], np.geomspace(0.01, 1320, 60)])
    expected = (np.log(2) + stats.t.logsf(np.sqrt(f), df)) / np.log(10)
    np.testing.assert_allclose(log10_p_f(f, df), expected, rtol=1e-9, atol=1e-9)
    # Where one formula takes over from the other, and beyond: falling, without a step
    f = np.linspace(1000, 3000, 4001)
    assert (np.diff(log10_p_f(f, df)) < 0).all()
    assert np.abs(np.diff(log10_p_f(f, df), 2)).max() < 1e-4
    assert log10_p_f(np.array([np.inf]), df)[0] == -np.inf


def test_tail_of_chi2():
    x = np.array([0.0, 1e-8, 0.5, 3.84, 100, 1400])
    np.testing.assert_allclose(log10_p_chi2(x), stats.chi2.logsf(x, 1) / np.log(10), rtol=1e-11)
    x = 1e6  # by the asymptotic series
    expected = -x / 2 - 0.5 * np.log(np.pi * x / 2) + np.log1p(-1 / x + 3 / x**2)
    assert log10_p_chi2(np.array([x]))[0] == pytest.approx(expected / np.log(10), rel=1e-12)
    assert log10_p_chi2(np.array([-1e-12]))[0] == 0


def test_p_that_underflows():
    n = 1200
    rng = np.random.default_rng(1)
    x = variants(n, 2)
    y = 3 * x[:, 0] + rng.normal(size=n) * 0.5
    found = bl.LMM(y).scan(x, ["wald", "lrt"])
    assert found.p_wald[0] == 0
    assert found.neg_log10_p[0] > 500
    assert np.isfinite(found.neg_log10_p).all()
    beta, se, _ = dense.ols(y, np.column_stack([np.ones(n), x[:, 0]]))
    expected = exact_log10_p_t(float((beta[1] / se[1]) ** 2), n - 2, 1600)
    assert found.neg_log10_p[0] == pytest.approx(-expected, rel=1e-9)


def test_variant_that_explains_the_phenotype_completely():
    _, C, K = dense.CASES[0].make()
    X = variants(40, 3)
    for kernel in (K, None):
        for dtype in ("float64", "float32"):
            found = model(X[:, 0], C, kernel).scan(X, ALL, dtype=dtype)
            assert found.beta[0] == pytest.approx(1, abs=1e-5)
            assert found.se[0] < 1e-3
            assert found.neg_log10_p[0] > 80
            assert found.iloc[1:].notna().all(axis=None)


# -- calibration -------------------------------------------------------------------------------


def test_lambda_gc():
    p = stats.chi2.sf(1.3 * stats.chi2.ppf((np.arange(2001) + 0.5) / 2001, 1), 1)
    assert bl.lambda_gc(p) == pytest.approx(1.3, rel=1e-9)
    assert bl.lambda_gc(pd.Series([*p, np.nan])) == pytest.approx(1.3, rel=1e-9)
    with pytest.raises(InputError, match="needs at least one p-value"):
        bl.lambda_gc([np.nan])
    with pytest.raises(InputError, match=r"lambda_GC of 0.5 to 2: no p-values"):
        bl.lambda_gc([0.5, 2])


@pytest.mark.calibration
def test_type_1_error_with_relatives():
    """Under the null, in families, 5% of p-values are below 0.05; without kernel many more."""
    rng = np.random.default_rng(11)
    families, size, m = 50, 4, 60
    n = families * size
    p = rng.uniform(0.2, 0.8, size=m)
    parents = rng.binomial(1, p, size=(families, 4, m))
    # Full sibs: one of the two alleles of each parent
    pick = rng.integers(0, 2, size=(2, families, size, m))
    X = np.take_along_axis(parents[:, :2], pick[0], 1) + np.take_along_axis(
        parents[:, 2:], pick[1], 1
    )
    X = X.reshape(n, m)
    K = np.kron(np.eye(families), np.full((size, size), 0.5) + 0.5 * np.eye(size))
    basis = bl.eigenbasis(K)
    L = np.linalg.cholesky(0.8 * K + 0.2 * np.eye(n))
    found, naive = [], []
    for _ in range(60):
        y = L @ rng.normal(size=n)
        found.append(bl.LMM(y, kernel=basis).scan(X, ALL))
        naive.append(bl.LMM(y).scan(X).p_wald)
    table = pd.concat(found)
    # Variants of one phenotype are independent, so are phenotypes: binomial, 3.3 sd (p = 0.001)
    bound = 3.3 * np.sqrt(0.05 * 0.95 / len(table))
    for test in ALL:
        assert abs((table[f"p_{test}"] < 0.05).mean() - 0.05) < bound, test
        assert abs(bl.lambda_gc(table[f"p_{test}"]) - 1) < 0.15, test
    assert (pd.concat(naive) < 0.05).mean() > 0.05 + 2 * bound


def test_scan_of_float32_needs_no_float64_copy():
    """The rotation is in the precision asked for."""
    lmm, genotypes, *_ = labelled_problem()
    seen = []
    rotate = type(lmm.basis).rotate_rows

    class Watching(type(lmm.basis)):
        def rotate_rows(self, x):
            z = rotate(self, x)
            seen.append(z.dtype)
            return z

    lmm.__dict__["basis"] = Watching(**{
        f: getattr(lmm.basis, f) for f in lmm.basis.__dataclass_fields__
    })  # fmt: skip
    lmm.scan(genotypes)
    assert set(seen) == {np.dtype("float32")}
    assert set(TESTS) == {*ALL, "bayes"}
