"""Fast equals dense: every implementation of the basis against one n x n matrix."""

import dataclasses
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.linalg

import bayeslmm as bl
from bayeslmm.bases.basis import Basis
from bayeslmm.bases.low_rank import LowRankBasis
from bayeslmm.numerics import likelihood

pytestmark = pytest.mark.algebra
N = 60
IDS = [f"i{k}" for k in range(N)]
KINDS = ("dense", "dense float32", "block", "block, ordered", "low rank", "low rank + rest")
EXACT = tuple(kind for kind in KINDS if kind != "dense float32")


@cache
def case(kind):
    """A kernel of one kind, its matrix K (n, n), and data y ~ C + u."""
    rng = np.random.default_rng(7)
    if kind.startswith("block"):
        sizes = [1, 1, 2, 3, 3, 4, 5, 8, 10, 23]
        blocks = []
        for size in sizes:
            z = rng.normal(size=(size, 3 * size))
            blocks.append(0.4 * z @ z.T / (3 * size) + 0.6 * (0.5 + 0.5 * np.eye(size)))
        K = scipy.linalg.block_diag(*blocks)
        if kind == "block":
            shuffled = rng.permutation(N)
            K = K[np.ix_(shuffled, shuffled)]
        kernel = bl.SparseGRM(scipy.sparse.csr_array(K), IDS)
    elif kind.startswith("low rank"):
        F = rng.normal(size=(N, 9)) / 3
        delta = 0.2 if "rest" in kind else 0.0
        K = F @ F.T + delta * np.eye(N)
        kernel = LowRankBasis(F, delta, pd.Index(IDS, name="id"))
    else:
        z = rng.normal(size=(N, 150))
        K = z @ z.T / 150
        precision = "float32" if "32" in kind else "float64"
        kernel = bl.eigenbasis(bl.GRM(K, IDS), vectors=precision)
    x = rng.binomial(2, 0.3, size=(N, 25)).astype(float)
    x[rng.random(x.shape) < 0.02] = np.nan
    age = rng.normal(50, 9, size=N)
    u = np.linalg.cholesky(K + 1e-9 * np.eye(N)) @ rng.normal(size=N)
    y = 1 + 0.05 * age + 2.5 * u + 0.7 * rng.normal(size=N) + 0.8 * np.nan_to_num(x[:, 3])
    table = pd.DataFrame({"y": y, "age": age}, index=IDS)
    genotypes = bl.Genotypes.from_array(x, samples=IDS)
    return SimpleNamespace(
        kernel=kernel,
        K=K,
        table=table,
        genotypes=genotypes,
        model=bl.LMM("y ~ age", table, kernel),
        dense=bl.LMM("y ~ age", table, bl.GRM(K, IDS)),
        # An optimum is found to the root of the likelihood's own precision, 1e-15.
        tolerance=1e-4 if "32" in kind else 2e-6,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_protocol(kind, rng):
    c = case(kind)
    basis = c.model.basis
    assert isinstance(basis, Basis)
    U = basis.rows(np.arange(N))
    K = c.K
    if basis.centered:
        H = np.eye(N) - 1 / N
        K = H @ K @ H
        assert basis.rotate(np.ones(N)) @ (basis.values * basis.rotate(np.ones(N))) < 1e-5
    tolerance = 1e-6 if "32" in kind else 1e-12
    np.testing.assert_allclose(U.T @ U, np.eye(N), atol=tolerance)
    np.testing.assert_allclose((U * basis.values) @ U.T, K, atol=tolerance)
    for x in (rng.normal(size=N), rng.normal(size=(N, 3))):
        np.testing.assert_allclose(basis.rotate(x), U.T @ x, atol=1e-12)
        np.testing.assert_allclose(basis.unrotate(x), U @ x, atol=1e-12)
    rows = rng.normal(size=(7, N))
    for dtype, error in ((np.float64, 1e-12), (np.float32, 3e-6)):
        basis.prepare(np.dtype(dtype))
        found = basis.rotate_rows(rows.astype(dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, rows @ U, atol=error)
    w = 1 / (0.3 + basis.values[:, None] * [0.5, 2.0])
    full = [(U * w[:, j]) @ U.T for j in range(2)]
    expected = np.column_stack([np.diagonal(V) for V in full])
    np.testing.assert_allclose(basis.row_quadratic(w), expected, atol=1e-11)
    np.testing.assert_allclose(basis.row_quadratic(w[:, 0]), expected[:, 0], atol=1e-11)
    some = np.array([5, 17, 2, 40])
    np.testing.assert_allclose(
        basis.block_quadratic(w[:, 1], some), full[1][np.ix_(some, some)], atol=1e-11
    )
    assert basis.kappa == pytest.approx(c.dense.basis.kappa, abs=1e-12)
    assert f"{N} samples" in repr(basis)


@pytest.mark.parametrize("kind", EXACT)
def test_likelihoods(kind):
    c = case(kind)
    h2 = np.array([0, 0.01, 0.3, 0.6, 0.95])
    for name in ("restricted_loglik", "full_loglik", "integrated_loglik"):
        found, expected = (getattr(likelihood, name)(m.rotated, h2) for m in (c.model, c.dense))
        np.testing.assert_allclose(found, expected, rtol=1e-11, err_msg=name)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_sums_taken_once_are_the_same(kind, monkeypatch):
    """Of many samples the likelihood is summed at nodes of the eigenvalues."""
    c = case(kind)
    h2 = np.array([0, 1e-4, 0.3, 0.7, 0.99])
    data = c.model.rotated
    assert data.moments is None
    expected = likelihood.terms(data, h2)
    monkeypatch.setattr(likelihood, "_MANY", 10)
    monkeypatch.setattr(likelihood.Rotated, "n", property(lambda self: len(self.y) * 50))
    many = dataclasses.replace(data)
    _, _, number = many.moments
    assert number.sum() == pytest.approx(N)
    found = likelihood.terms(many, h2)
    for name in ("logdet", "Q", "logdet_d", "b", "L"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-10, atol=1e-11, err_msg=name
        )


@pytest.mark.parametrize("kind", KINDS)
def test_point_estimates_and_posterior(kind):
    c = case(kind)
    for name in ("reml", "map"):
        found, expected = getattr(c.model, name)(), getattr(c.dense, name)()
        assert 0.1 < expected.h2 < 0.95
        assert found.h2 == pytest.approx(expected.h2, abs=c.tolerance / 20)
        for field in ("h2_se", "s2_g", "s2_e", "s2_g_se", "kappa", "loglik"):
            assert getattr(found, field) == pytest.approx(
                getattr(expected, field), rel=c.tolerance
            ), field
        # The intercept is of u as it is, the sample's mean is not taken out of it.
        np.testing.assert_allclose(found.b.loc["age"], expected.b.loc["age"], rtol=c.tolerance)
    found, expected = c.model.h2_posterior(), c.dense.h2_posterior()
    assert found.mean == pytest.approx(expected.mean, rel=c.tolerance)
    assert found.log_integral == pytest.approx(expected.log_integral, rel=c.tolerance)
    draws = [m.posterior(400, seed=1)["posterior"] for m in (c.model, c.dense)]
    for name in ("h2", "s2_g", "s2_e"):
        np.testing.assert_allclose(draws[0][name], draws[1][name], rtol=10 * c.tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_scan(kind):
    c = case(kind)
    tests = ("wald", "lrt", "score", "p3d", "bayes")
    found, expected = (
        m.scan(c.genotypes, tests, dtype="float64", progress=False) for m in (c.model, c.dense)
    )
    assert expected.p_wald.min() < 0.05
    numbers = expected.columns[expected.columns.get_loc("eaf") :]
    tolerance = 1e-3 if "32" in kind else 3e-6  # of the interpolation, as elsewhere
    for column in numbers:
        np.testing.assert_allclose(
            found[column], expected[column], rtol=tolerance, atol=tolerance, err_msg=column
        )
    single = c.model.scan(c.genotypes, tests, progress=False)
    np.testing.assert_allclose(single.neg_log10_p, expected.neg_log10_p, atol=1e-3)


@pytest.mark.parametrize("kind", EXACT)
def test_intervals(kind):
    c = case(kind)
    for method in ("score", "rlrt", "reml"):
        found, expected = (m.h2_interval(method=method) for m in (c.model, c.dense))
        np.testing.assert_allclose(found, expected, atol=1e-7)
    # The same distribution, simulated with the eigenvalues in another order.
    p = [m.evidence(replicates=2000).p_exact for m in (c.model, c.dense)]
    assert p[0] == pytest.approx(p[1], abs=4 * np.sqrt(2 * p[1] * (1 - p[1]) / 2000) + 1e-3)


@pytest.mark.parametrize("kind", EXACT)
def test_leave_out(kind):
    c = case(kind)
    for groups in (None, pd.Series(np.arange(N) // 7, IDS)):
        found, expected = (m.loo(groups) for m in (c.model, c.dense))
        np.testing.assert_allclose(found.elpd_i, expected.elpd_i, atol=1e-7)
    found, expected = (m.check_residuals(np.arange(N) // 7) for m in (c.model, c.dense))
    np.testing.assert_allclose(found.groups.distance, expected.groups.distance, rtol=1e-7)


@pytest.mark.parametrize("kind", EXACT)
def test_random_effects(kind):
    """Against a dense basis of K, centred or not as the coordinates are."""
    c = case(kind)
    tree = c.model.posterior(40, u=True, seed=2)
    dense = bl.LMM(
        "y ~ age", c.table, bl.eigenbasis(bl.GRM(c.K, IDS), center=c.model.basis.centered)
    )
    found, expected = (m.random_effects(tree) for m in (c.model, dense))
    np.testing.assert_allclose(found.u_mean, expected.u_mean, atol=1e-7)
    np.testing.assert_allclose(found.u_sd, expected.u_sd, atol=1e-6)
    drawn = tree["posterior"]["u"].to_numpy().reshape(-1, N)
    assert np.corrcoef(drawn.mean(axis=0), found.u_mean)[0, 1] > 0.9
    from bayeslmm.model.conditional import Conditional
    from bayeslmm.model.snps import selected_snps

    logs = [
        Conditional(m, tree["posterior"].dataset, selected_snps(m, None)).log_likelihood()
        for m in (c.model, dense)
    ]
    np.testing.assert_allclose(*logs, atol=1e-7)


@pytest.mark.parametrize("kind", EXACT)
def test_subset_and_file(kind, tmp_path):
    c = case(kind)
    kept = [i for k, i in enumerate(IDS) if k % 5]
    rows = [k for k in range(N) if k % 5]
    few = c.table.loc[kept]
    expected = bl.LMM("y ~ age", few, bl.GRM(c.K[np.ix_(rows, rows)], kept)).reml()
    found = bl.LMM("y ~ age", few, c.kernel).reml()
    assert (found.h2, found.kappa) == pytest.approx((expected.h2, expected.kappa), abs=1e-6)
    c.model.basis.save(tmp_path / "b")
    loaded = bl.load_eigenbasis(tmp_path / "b")
    assert isinstance(loaded, Basis)
    assert type(loaded) is type(c.model.basis)
    assert bl.LMM("y ~ age", c.table, loaded).reml().h2 == c.model.reml().h2
    assert bl.LMM("y ~ age", few, loaded).reml().h2 == pytest.approx(found.h2, rel=1e-9)
    values = next(f for f in (tmp_path / "b").iterdir() if f.stem in ("values", "factor"))
    damaged = bytearray(values.read_bytes())
    damaged[-5] ^= 1
    values.write_bytes(bytes(damaged))
    with pytest.raises(bl.InputError, match="damaged or edited"):
        bl.load_eigenbasis(tmp_path / "b")


@pytest.mark.parametrize("kind", EXACT)
def test_models_without_intercept(kind):
    c = case(kind)
    if kind == "low rank":
        kernel = LowRankBasis(c.kernel.factor, 0.0, c.kernel.samples, centered=False)
    elif kind.startswith("block"):
        kernel = c.kernel
    else:
        return
    found = bl.LMM("y ~ 0 + age", c.table, kernel).reml()
    expected = bl.LMM("y ~ 0 + age", c.table, bl.GRM(c.K, IDS)).reml()
    assert (found.h2, found.loglik) == pytest.approx((expected.h2, expected.loglik), abs=1e-6)
    with pytest.raises(bl.InputError, match="no intercept, but the basis is of a centred"):
        _ = bl.LMM("y ~ 0 + age", c.table, c.model.basis).basis


@pytest.mark.parametrize("kind", ["block", "low rank"])
def test_the_pymc_model_is_the_same(kind):
    c = case(kind)
    # Without intercept the coordinates are of the same K in both.
    formula = "y ~ age" if kind == "low rank" else "y ~ 0 + age"
    point, logs = None, []
    for kernel in (c.kernel, bl.GRM(c.K, IDS)):
        model = bl.LMM(formula, c.table, kernel)
        pymc = model.pymc_model()
        point = pymc.initial_point() if point is None else point
        logs.append(float(pymc.compile_logp()(point)))
    assert logs[0] == pytest.approx(logs[1], rel=1e-10)
    with pytest.raises(bl.InputError, match="The explicit form needs all eigenvectors as one"):
        c.model.pymc_model("explicit")
    with pytest.raises(bl.InputError, match="The marginal form needs all eigenvectors as one"):
        c.model.pymc_model("marginal")
