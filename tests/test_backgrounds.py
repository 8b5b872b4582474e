"""LOCO and rest + chromosome: against dense covariance matrices and the eigenbasis."""

import dense
import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.genome import backgrounds
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.numerics import factors, likelihood
from bayeslmm.numerics.chebyshev import chebyshev
from bayeslmm.relatedness.dense import GRM

pytestmark = pytest.mark.algebra
EXACT = {"tests": ("wald", "lrt", "score", "p3d", "bayes"), "dtype": "float64"}
P = ["p_wald", "p_lrt", "p_score", "p_p3d"]


def cohort(n=120, m=60, chromosomes=3, seed=0, h2=(0.3, 0.2)):
    """Genotypes on some chromosomes; the first and the rest have their own variances."""
    rng = np.random.default_rng([seed, n])
    founders = rng.binomial(1, 0.4, size=(2, 8, m * chromosomes))
    x = sum(f[rng.integers(0, 8, size=n)] for f in founders).astype(float)
    x += rng.binomial(1, 0.1, size=x.shape)
    x = np.minimum(x, 2)
    x[0] = 0
    x[1] = 1
    chrom = np.repeat([str(c + 1) for c in range(chromosomes)], m)
    z = (x - x.mean(0)) / x.std(0)
    first = chrom == "1"
    y = np.sqrt(h2[0] / m) * z[:, first] @ rng.normal(size=first.sum())
    y += np.sqrt(h2[1] / (~first).sum()) * z[:, ~first] @ rng.normal(size=(~first).sum())
    y += np.sqrt(1 - sum(h2)) * rng.normal(size=n)
    ids = [f"v{j}" for j in range(x.shape[1])]
    return Genotypes.from_array(x, variants=pd.DataFrame({"id": ids, "chrom": chrom})), y


@pytest.fixture
def without_decomposition(monkeypatch):
    monkeypatch.setattr(backgrounds, "_SMALL", 0)


def kernel_of(genotypes, chosen):
    x = genotypes.centered_block(0, genotypes.n_variants, np.float64).x[chosen].T
    p = (x - x.min(axis=0)).mean(axis=0) / 2
    z = x / np.sqrt(2 * p * (1 - p))
    return z @ z.T / chosen.sum()


@pytest.mark.parametrize("by_chrom", [True, False])
@pytest.mark.parametrize("small", [0, 10**6], ids=["between nodes", "eigenbasis"])
def test_loco_equals_dense(monkeypatch, by_chrom, small):
    """The tested chromosome is not in its K: the reference is built without it."""
    monkeypatch.setattr(backgrounds, "_SMALL", small)
    genotypes, y = cohort()
    K = bl.grm(genotypes, by_chrom=by_chrom, dtype="float64")
    model = bl.LMM(y, kernel=K)
    found = model.scan(genotypes, **EXACT, background="loco")
    chrom = genotypes.variants.chrom.to_numpy()
    x = genotypes.centered_block(0, genotypes.n_variants, np.float64).x
    C = np.ones((len(y), 1))
    for label in ("1", "3"):
        K_rest = kernel_of(genotypes, chrom != label)
        for j in np.flatnonzero(chrom == label)[::17]:
            expected = dense.variant_tests(y, C, K_rest, x[j])
            for test in ("wald", "lrt", "score", "p3d"):
                got = np.log10(found[f"p_{test}"].iloc[j])
                assert got == pytest.approx(expected[test], abs=3e-6, rel=3e-6), (label, j, test)
            assert found.beta.iloc[j] == pytest.approx(expected["beta"], rel=1e-5)
            assert found.l_remle.iloc[j] == pytest.approx(expected["l_remle"], rel=1e-4)


@pytest.mark.parametrize("background", ["loco", "rest+chrom"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_between_nodes_equals_the_eigenbasis(monkeypatch, background, dtype):
    genotypes, y = cohort(n=200, m=80)
    model = bl.LMM(y, kernel=bl.grm(genotypes))
    options = EXACT | {"dtype": dtype, "background": background}
    monkeypatch.setattr(backgrounds, "_SMALL", 0)
    fast = model.scan(genotypes, **options)
    monkeypatch.setattr(backgrounds, "_SMALL", 10**6)
    exact = model.scan(genotypes, **options)
    limit = {"float64": 2e-6, "float32": 1e-3}[dtype]
    for column in P:
        assert np.abs(np.log10(fast[column] / exact[column])).max() < limit, column
    assert np.abs(fast.log10_bf - exact.log10_bf).max() < max(limit, 1e-5)
    assert np.abs((fast.post_mean - exact.post_mean) / exact.post_sd).max() < max(limit, 1e-5)
    assert np.abs(fast.lfsr - exact.lfsr).max() < 1e-4


def unrelated(n=300, m=3000, seed=2, first=200):
    """People who share little, two chromosomes, one variant with 10% of the variance."""
    rng = np.random.default_rng(seed)
    x = rng.binomial(2, rng.uniform(0.1, 0.9, m), size=(n, m)).astype(np.int8)
    z = (x - x.mean(0)) / x.std(0)
    y = np.sqrt(0.5 / m) * z @ rng.normal(size=m) + np.sqrt(0.5) * rng.normal(size=n)
    y += 0.33 * z[:, 7]
    variants = pd.DataFrame(
        {"id": [f"v{j}" for j in range(m)], "chrom": np.repeat(["1", "2"], [first, m - first])}
    )
    return Genotypes.from_array(x, variants=variants), y


@pytest.mark.parametrize("make", [cohort, unrelated])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_powers_of_one_inverse_equal_the_eigenbasis(monkeypatch, make, dtype):
    genotypes, y = make()
    model = bl.LMM(y, np.linspace(0, 1, len(y))[:, None] ** 2, bl.grm(genotypes))
    tested = genotypes.select(variants=(genotypes.variants.chrom == "1").to_numpy())
    options = {"tests": ("wald", "lrt", "score", "p3d"), "background": "loco", "dtype": dtype}
    made = []
    power_weights = factors._power_weights
    monkeypatch.setattr(
        factors, "_power_weights", lambda *a, **k: made.append(1) or power_weights(*a, **k)
    )
    monkeypatch.setattr(backgrounds, "_SMALL", 0)
    fast = model.scan(tested, **options)
    assert made
    monkeypatch.setattr(backgrounds, "_SMALL", 10**6)
    exact = model.scan(tested, **options)
    for column in ("p_wald", "p_lrt", "p_score", "p_p3d"):
        apart = np.abs(np.log10(fast[column] / exact[column])).max()
        assert apart < {"float64": 5e-6, "float32": 1e-3}[dtype], column
    limit = {"float64": 1e-6, "float32": 3e-4}[dtype]
    np.testing.assert_allclose(fast.se, exact.se, rtol=limit)
    np.testing.assert_allclose(fast.beta, exact.beta, rtol=limit, atol=limit * exact.se.max())


@pytest.mark.parametrize("lacking", [0.05, 0.3, 0.6])
def test_the_ends_of_a_spectrum_hold_those_without_a_chromosome(lacking):
    rng = np.random.default_rng(1)
    z = rng.standard_normal((300, 3000))
    left = int(3000 * (1 - lacking))
    ends = factors.Spectrum(np.linalg.eigvalsh(z @ z.T / 3000), np.ones(300), lacking).ends
    s = np.linalg.eigvalsh(z[:, :left] @ z[:, :left].T / left)
    assert ends[0] <= s.min()
    assert s.max() <= ends[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_powers_are_those_of_the_inverse(dtype):
    """Also where K is singular, and for vectors that it does not touch."""
    rng = np.random.default_rng(4)
    z = rng.standard_normal((80, 60))
    z -= z.mean(axis=0)
    K, x = z @ z.T / 60, rng.standard_normal((7, 80))
    vectors = np.column_stack([np.ones(80), x[:2].T])
    s = np.linalg.eigvalsh(K)
    base, nodes = 0.3, 0.3 + 2.5 * chebyshev(11)
    spectrum = factors.Spectrum(s.clip(0.2), np.ones(80))
    inverse = factors._inverse_as_polynomial(spectrum, base, nodes, 1e-5, 20)
    factor = np.asfortranarray(np.linalg.cholesky(np.exp(base) * K + np.eye(80)), dtype=dtype)
    tolerance = {"float32": 1e-4, "float64": 2e-5}[dtype]
    values, U = np.linalg.eigh(K)
    inside = (x @ U[:, values > 0.2]) @ U[:, values > 0.2].T  # where the polynomials hold
    found = inverse.moments(factor, inside.astype(dtype)) @ inverse.coefficients
    solved = factors._inverse_of_vectors(factor, vectors, nodes - base)
    for g, t in enumerate(nodes):
        V = np.exp(t) * K + np.eye(80)
        expected = np.einsum("vn,nv->v", inside, np.linalg.solve(V, inside.T))
        np.testing.assert_allclose(found[:, g], expected, rtol=tolerance)
        expected = np.linalg.solve(V, vectors)
        error = np.abs(solved[g] - expected).max(axis=0) / np.abs(expected).max(axis=0)
        assert error.max() < {"float32": 1e-5, "float64": 1e-7}[dtype]


@pytest.mark.slow
@pytest.mark.parametrize(("background", "first"), [("loco", 200), ("rest+chrom", 2000)])
def test_powers_serve_the_whole_posterior_of_h2(monkeypatch, background, first):
    """Bayes factors of people who share little take no decomposition, however wide it is."""
    genotypes, y = unrelated(n=900, m=4000, first=first)
    model = bl.LMM(y, np.linspace(0, 1, len(y))[:, None] ** 2, bl.grm(genotypes))
    tested = genotypes.select(variants=np.arange(4000) < 200)
    options = {"tests": ("wald", "lrt", "score", "bayes"), "background": background}
    with monkeypatch.context() as patch:
        patch.setattr(GRM, "eigenbasis", None)
        fast = model.scan(tested, **options)
    monkeypatch.setattr(backgrounds, "_SMALL", 10**6)
    exact = model.scan(tested, **options)
    assert exact.p_wald.min() < 1e-20
    for column in ("p_wald", "p_lrt", "p_score"):
        assert np.abs(np.log10(fast[column] / exact[column])).max() < 1e-3, column
    assert np.abs(fast.log10_bf - exact.log10_bf).max() < 1e-3
    assert np.abs((fast.post_mean - exact.post_mean) / exact.post_sd).max() < 1e-3
    assert np.abs(fast.post_sd / exact.post_sd - 1).max() < 1e-3


def test_a_maximum_of_the_likelihood_far_from_that_of_reml_is_found(monkeypatch):
    """The full likelihood of few people and many variants is largest at a much larger h2."""
    genotypes, y = unrelated(n=300, m=4000, seed=1)
    model = bl.LMM(y, kernel=bl.grm(genotypes))
    tested = genotypes.select(variants=(genotypes.variants.chrom == "1").to_numpy())
    tables = []
    for small in (0, 10**6):
        monkeypatch.setattr(backgrounds, "_SMALL", small)
        tables.append(model.scan(tested, ("lrt", "score"), background="loco", dtype="float64"))
    at = [float(np.log(h) - np.log1p(-h)) for h in (maximum(model, tested, kind) for kind in KINDS)]
    assert at[1] - at[0] > 2 * factors.NARROW
    for column in ("p_lrt", "p_score"):
        apart = np.log10(tables[0][column] / tables[1][column])
        # Next to p = 1 the last digits of a likelihood of hundreds are many times larger in p.
        assert np.abs(apart).max() < 1e-4, column


KINDS = (likelihood.restricted_loglik, likelihood.full_loglik)


def maximum(model, tested, loglik):
    """h2 of the model without the tested chromosome, up to e^1.5 times that of REML."""
    chrom = model.grm.genotypes.variants.chrom.to_numpy()
    rest = model.with_kernel(bl.grm(model.grm.genotypes.select(variants=chrom != "1")))
    h2 = np.linspace(0.001, 0.999, 2000)
    values = [fit(rest.rotated, h2) for fit in KINDS]
    reml = h2[np.argmax(values[0])]
    allowed = h2 / (1 - h2) <= np.exp(1.5) * reml / (1 - reml)
    return h2[np.argmax(np.where(allowed, loglik(rest.rotated, h2), -np.inf))]


def test_further_nodes_serve_a_strong_variant(monkeypatch, without_decomposition):
    """Its optimum is beyond the first nodes, but nothing is decomposed."""
    genotypes, y = cohort(n=200, m=80, h2=(0.1, 0.5), seed=3)
    x = genotypes.centered_block(0, genotypes.n_variants, np.float64).x
    y = y + 0.6 * x[7] / x[7].std()
    model = bl.LMM(y, kernel=bl.grm(genotypes, dtype="float64"))
    made = []
    further = backgrounds.CholeskyScanner.search_widely

    def counting(self, kind, x, limit):
        made.append(len(x))
        return further(self, kind, x, limit)

    def refuse(self):
        raise AssertionError("decomposed")

    monkeypatch.setattr(backgrounds.CholeskyScanner, "search_widely", counting)
    monkeypatch.setattr(backgrounds.CholeskyScanner, "eigen", property(refuse))
    options = {"tests": ("wald",), "background": "loco", "dtype": "float64"}
    found = model.scan(genotypes, **options)
    assert made
    monkeypatch.undo()
    monkeypatch.setattr(backgrounds, "_SMALL", 10**6)
    exact = model.scan(genotypes, **options)
    assert np.abs(np.log10(found.p_wald / exact.p_wald)).max() < 5e-6


def test_a_strong_variant_is_tested_in_the_eigenbasis(monkeypatch, without_decomposition):
    """Its optimum is not between the nodes: 40% of the variance, shared by relatives."""
    genotypes, y = cohort(n=200, m=80, h2=(0.02, 0.5), seed=3)
    x = genotypes.centered_block(0, genotypes.n_variants, np.float64).x
    y = y + 3 * x[7] / x[7].std() + 2 * x[200] / x[200].std()
    model = bl.LMM(y, kernel=bl.grm(genotypes, dtype="float64"))
    made = []
    eigen = backgrounds.Scanner.__init__

    def counting(self, *args):
        if type(self) is backgrounds.Scanner:
            made.append(1)
        eigen(self, *args)

    monkeypatch.setattr(backgrounds.Scanner, "__init__", counting)
    found = model.scan(genotypes, **EXACT, background="loco")
    assert made
    chrom = genotypes.variants.chrom.to_numpy()
    expected = dense.variant_tests(
        y, np.ones((len(y), 1)), kernel_of(genotypes, chrom != chrom[7]), x[7]
    )
    assert np.log10(found.p_wald.iloc[7]) == pytest.approx(expected["wald"], rel=1e-6)
    assert np.log10(found.p_lrt.iloc[7]) == pytest.approx(expected["lrt"], rel=1e-6)


def test_split_of_rest_and_chromosome_is_that_of_reml(without_decomposition):
    """Against a dense two-component REML by a general optimiser."""
    genotypes, y = cohort(n=250, m=80, seed=1, h2=(0.35, 0.25))
    model = bl.LMM(y, kernel=bl.grm(genotypes, by_chrom=True))
    found = model.scan(genotypes, "wald", background="rest+chrom")
    chrom = genotypes.variants.chrom.to_numpy()
    C = np.ones((len(y), 1))
    for account in found.attrs["background"]:
        own = chrom == account["chrom"]
        K = [dense.centred(kernel_of(genotypes, chosen)) for chosen in (~own, own)]
        K = [k / np.trace(k) * len(k) for k in K]

        def negative(theta, K=K):
            V = (
                np.exp(theta[0]) * K[0]
                + np.exp(theta[1]) * K[1]
                + np.exp(theta[2]) * np.eye(len(y))
            )
            return -dense.reml_loglik(y, C, V)

        best = optimize.minimize(negative, np.log([0.3, 0.3, 0.4]), method="Nelder-Mead")
        s2 = np.exp(best.x)
        q = account["share_chrom"]
        h2 = account["h2"]
        total = s2.sum()
        plugged = np.log([h2 * (1 - q), max(h2 * q, 1e-9), 1 - h2]) + np.log(total)
        # The likelihood decides: shares that it cannot tell apart are equally good.
        assert negative(plugged) - best.fun < 0.03, (account, s2 / total)
    shares = {a["chrom"]: a["share_chrom"] for a in found.attrs["background"]}
    assert shares["1"] > 0.3


def test_result_says_what_was_behind_each_chromosome():
    genotypes, y = cohort(chromosomes=3, m=20)
    model = bl.LMM(y, kernel=bl.grm(genotypes))
    loco = model.scan(genotypes, "wald", background="loco").attrs["background"]
    assert [a["chrom"] for a in loco] == ["1", "2", "3"]
    assert all(a["n_variants_rest"] == 40 and a["n_variants_chrom"] == 0 for a in loco)
    assert all(0 <= a["h2"] <= 1 for a in loco)
    both = model.scan(genotypes, "wald", background="rest+chrom").attrs["background"]
    assert all(a["n_variants_chrom"] == 20 for a in both)
    assert model.scan(genotypes, "wald").attrs["background"] == "all"


def test_tested_variants_may_be_a_part_of_the_kernels():
    genotypes, y = cohort(m=20)
    model = bl.LMM(y, kernel=bl.grm(genotypes))
    whole = model.scan(genotypes, "wald", background="loco")
    chosen = (genotypes.variants.chrom == "2").to_numpy()
    part = model.scan(genotypes.select(variants=chosen), "wald", background="loco")
    np.testing.assert_allclose(part.p_wald, whole.p_wald[chosen], rtol=1e-12)


def test_unknown_backgrounds_and_chromosomes_are_refused():
    genotypes, y = cohort(m=20)
    K = bl.grm(genotypes)
    model = bl.LMM(y, kernel=K)
    with pytest.raises(InputError, match="background='genome' is unknown"):
        model.scan(genotypes, background="genome")
    other = bl.grm(genotypes.select(variants=(genotypes.variants.chrom != "2").to_numpy()))
    with pytest.raises(InputError, match=r"chromosome .2. of the .* lacks are tested with"):
        bl.LMM(y, kernel=other).scan(genotypes, background="loco")
    alone = bl.grm(genotypes.select(variants=(genotypes.variants.chrom == "1").to_numpy()))
    one = genotypes.select(variants=(genotypes.variants.chrom == "1").to_numpy())
    with pytest.raises(InputError, match="at least two chromosomes"):
        bl.LMM(y, kernel=alone).scan(one, background="loco")
    with pytest.raises(InputError, match="does not know its variants"):
        bl.LMM(y, kernel=K.matrix).scan(genotypes, background="loco")
    for odd in (bl.grm(genotypes, pairwise=True), bl.grm(genotypes, weights=np.arange(60) + 1.0)):
        with pytest.raises(InputError, match="divided by pairs"):
            bl.LMM(y, kernel=odd).scan(genotypes, background="loco")
    with pytest.raises(InputError, match="needs a kernel"):
        bl.LMM(y).scan(genotypes, background="loco")


# -- several phenotypes ---------------------------------------------------------------------------


def test_several_phenotypes_are_those_one_by_one(mice):
    K = bl.grm(mice.genotypes)
    models = {name: bl.LMM(f"{name} ~ sex", mice.phenotypes, K) for name in ("cd8", "mch")}
    again = models["cd8"].with_phenotype(models["cd8"].y[::-1].copy())
    snps = mice.genotypes.select(variants=(mice.genotypes.variants.chrom == "19").to_numpy())
    tables = bl.scan(models | {"reversed": again}, snps, ("wald", "bayes"))
    assert list(tables) == ["cd8", "mch", "reversed"]
    for name, model in (models | {"reversed": again}).items():
        alone = model.scan(snps, ("wald", "bayes"))
        np.testing.assert_array_equal(tables[name].p_wald, alone.p_wald)
        np.testing.assert_array_equal(tables[name].log10_bf, alone.log10_bf)
        assert tables[name].attrs["formula"] == model.formula


def test_phenotypes_of_the_same_samples_share_the_rotation(monkeypatch):
    genotypes, y = cohort(m=20)
    model = bl.LMM(y, kernel=bl.grm(genotypes))
    rotated = []
    rotate = type(model.basis).rotate_rows

    def counting(self, x):
        rotated.append(len(x))
        return rotate(self, x)

    monkeypatch.setattr(type(model.basis), "rotate_rows", counting)
    bl.scan({"a": model, "b": model.with_phenotype(y**2)}, genotypes, "wald")
    assert sum(rotated) == genotypes.n_variants


def test_loco_needs_no_decomposition(without_decomposition):
    """Neither of the whole matrix nor of any part: and gives what the eigenbasis starts from."""
    genotypes, y = cohort(n=200, m=80)
    model = bl.LMM(y, kernel=bl.grm(genotypes))
    found = model.scan(genotypes, "wald", background="loco")
    assert not model.has_basis
    null = backgrounds.null_of(model)
    t, error = null.log_ratio, null.error
    fit = model.reml()
    assert 1 / (1 + np.exp(-t)) == pytest.approx(fit.h2, abs=1e-4)
    assert error * fit.h2 * (1 - fit.h2) == pytest.approx(fit.h2_se, rel=2e-3)
    again = model.scan(genotypes, "wald", background="loco")
    np.testing.assert_allclose(found.p_wald, again.p_wald, rtol=2e-3)
