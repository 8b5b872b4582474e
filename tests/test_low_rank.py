"""Low-rank bases: exact for few variants, an approximation that says how good it is."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.bases.low_rank import LowRankBasis

pytestmark = pytest.mark.algebra


@pytest.fixture(scope="module")
def structured():
    """Four populations: K has three large eigenvalues."""
    rng = np.random.default_rng(5)
    p = np.clip(rng.uniform(0.1, 0.9, 800) + 0.25 * rng.normal(size=(4, 800)), 0.02, 0.98)
    x = rng.binomial(2, np.repeat(p, 50, axis=0))
    genotypes = bl.Genotypes.from_array(x)
    K = bl.grm(genotypes, dtype="float64")
    u = np.linalg.cholesky(K.matrix + 1e-9 * np.eye(200)) @ rng.normal(size=200)
    return genotypes, K, u + rng.normal(size=200) * 0.7


@pytest.mark.parametrize("scale", ["standardized", "centered", "empirical"])
@pytest.mark.parametrize("center", [True, False])
def test_few_variants_exactly(structured, scale, center):
    genotypes = structured[0].select(variants=[f"snp{k}" for k in range(1, 60)])
    K = bl.grm(genotypes, scale=scale, dtype="float64")
    basis = bl.low_rank_basis(genotypes, scale=scale, center=center, block_size=13)
    expected = bl.eigenbasis(K, center=center)
    assert basis.rank == 59
    np.testing.assert_allclose(np.sort(basis.values), np.sort(expected.values), atol=1e-10)
    assert basis.info["frobenius_error"] == 0
    if center:
        found, dense = (bl.LMM(structured[2], kernel=b).reml() for b in (basis, expected))
        assert found.loglik == pytest.approx(dense.loglik, rel=1e-11)
        assert found.h2 == pytest.approx(dense.h2, abs=1e-7)


def test_an_approximation_reports_its_error(structured):
    genotypes, K, y = structured
    full = bl.eigenbasis(K, center=False)
    exact_h2 = bl.LMM(y, kernel=K).reml().h2
    errors, gaps = [], []
    for rank in (3, 60, 190):
        basis = bl.low_rank_basis(genotypes, rank, passes=4, center=False, seed=1)
        assert np.sort(basis.values)[-3:] == pytest.approx(full.values[:3][::-1], rel=1e-6)
        assert basis.values.sum() == pytest.approx(full.values.sum(), rel=1e-9)
        U = basis.rows(np.arange(200))
        approximate = (U * basis.values) @ U.T
        true = np.linalg.norm(approximate - K.matrix) / np.linalg.norm(K.matrix)
        assert basis.info["frobenius_error"] == pytest.approx(true, rel=0.5)
        share = basis.info["trace_share"]
        assert share == pytest.approx(full.values[:rank].sum() / full.values.sum(), abs=0.02)
        errors.append(basis.info["frobenius_error"])
        centered = bl.low_rank_basis(genotypes, rank, passes=4, seed=1)
        gaps.append(abs(bl.LMM(y, kernel=centered).reml().h2 - exact_h2))
    assert errors[0] > 3 * errors[2]
    assert gaps[2] < 0.3 * max(gaps)
    alone = bl.low_rank_basis(genotypes, 3, rest="none", center=False)
    assert alone.delta == 0
    assert alone.rank == 3
    assert alone.values.sum() == pytest.approx(full.values[:3].sum(), rel=1e-3)


def test_a_seed_makes_one_basis(structured):
    one, same, other = (
        bl.low_rank_basis(structured[0], 20, passes=1, seed=s).values[:21] for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_what_cannot_be_asked(structured, monkeypatch):
    genotypes = structured[0]
    for options, message in (
        ({}, "K of 800 variants in 200 samples is not of low rank"),
        ({"rank": 200}, "rank=200: expected 1 to n - 1 = 199"),
        ({"rank": 5, "rest": "some"}, "rest='some' is unknown"),
        ({"rank": 5, "scale": "x"}, "scale='x' is unknown"),
        ({"rank": 5, "passes": 0}, "passes=0: at least one"),
    ):
        with pytest.raises(bl.InputError, match=message):
            bl.low_rank_basis(genotypes, **options)
    with pytest.raises(bl.InputError, match="monomorphic or missing"):
        bl.low_rank_basis(np.ones((6, 3)))
    with pytest.raises(bl.InputError, match=r"factor .* is not finite"):
        LowRankBasis(np.full((5, 2), np.nan), 0.0, genotypes.samples.index[:5])
    basis = bl.low_rank_basis(genotypes, 5)
    with pytest.raises(bl.InputError, match="1 of these are not in it: 'nobody'"):
        basis.subset(["1", "nobody"])
    model = bl.LMM(structured[2], kernel=basis)
    with pytest.raises(bl.InputError, match="the basis was kept without"):
        model.snp_effects()
    monkeypatch.setattr("bayeslmm.runs.memory.available_memory", lambda: 1000)
    with pytest.raises(bl.InputError, match="A basis of 200 samples of rank 5 needs"):
        bl.low_rank_basis(genotypes, 5)


def test_weights_that_are_no_function_of_the_eigenvalues():
    """On the complement there are no eigenvectors, and one eigenvalue: one weight."""
    F = np.random.default_rng(2).normal(size=(12, 2))
    basis = LowRankBasis(F, 0.1, pd.Index([str(i) for i in range(12)], name="id"))
    weights = 1 / (1 + basis.values)
    assert basis.row_quadratic(weights).shape == (12,)
    weights[-1] *= 1.5
    for ask in (basis.row_quadratic, lambda w: basis.block_quadratic(w, np.arange(3))):
        with pytest.raises(ValueError, match="Weights differ on the complement"):
            ask(weights)
