import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from plink import write_plink

import bayeslmm as bl
from bayeslmm.genome.codings import recode
from bayeslmm.genome.families import FamilyScanner, Packing, _packed, variants_in_block
from bayeslmm.genome.scanner import Scanner
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.inputs.sample_major import counts, padded

TESTS = ("wald", "lrt", "score", "p3d", "bayes")


def relatives(sizes, rng):
    """A covariance of groups of these sizes, people in any order."""
    n = sum(sizes)
    K, start = np.zeros((n, n)), 0
    for size in sizes:
        A = rng.normal(size=(size, size + 2))
        K[start : start + size, start : start + size] = 0.5 * np.eye(size) + A @ A.T / (2 * size)
        start += size
    order = rng.permutation(n)
    return K[order][:, order]


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(8)
    sizes = [1] * 40 + [2, 3, 4, 5, 7, 9, 10, 16] * 5 + [17, 40]
    K = relatives(sizes, rng)
    n, m = len(K), 90
    x = rng.binomial(2, rng.uniform(0.05, 0.95, m), size=(n, m)).astype(float)
    x[rng.random(x.shape) < 0.02] = np.nan
    x[:, 5], x[:, 6], x[:, 7] = 1, np.nan, np.where(np.isnan(x[:, 7]), np.nan, 2)
    ids = [f"i{i}" for i in range(n)]
    y = np.linalg.cholesky(K + 0.5 * np.eye(n)) @ rng.normal(size=n)
    y += 3 * np.nan_to_num(x[:, 20]) - 0.5 * np.nan_to_num(x[:, 21])
    table = pd.DataFrame({"y": y, "age": rng.normal(size=n)}, index=ids)
    kernel = bl.SparseGRM(sp.csr_array(K), ids)
    return Genotypes.from_array(x, ids), bl.LMM("y ~ age", table, kernel), x


def same(found, expected, limit):
    assert list(found) == list(expected)
    for name in expected:
        # where a likelihood is flat its maximum is less exact than what is said of the variant
        allowed = 10 * limit if name == "l_remle" else limit
        np.testing.assert_allclose(
            found[name], expected[name], rtol=allowed, atol=allowed, err_msg=name, equal_nan=True
        )


@pytest.mark.algebra
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-7), ("float32", 3e-4)])
@pytest.mark.parametrize("coding", ["additive", "dominant"])
def test_groups_in_bins_give_what_the_rotated_variants_give(cohort, dtype, limit, coding):
    genotypes, model, x = cohort
    kind = np.dtype(dtype)
    by_family = FamilyScanner(model, TESTS, kind)
    rotated = Scanner(model, TESTS, np.dtype(np.float64))
    for source in (genotypes, Genotypes.from_array(np.nan_to_num(x) * 0.9, model.ids)):
        for span in ((0, 64), (64, 90)):
            block, people = by_family.read(source, span, coding)
            plain = recode(source.centered_block(*span, np.float64), coding)
            np.testing.assert_allclose(block.eaf, plain.eaf, atol=1e-6)
            np.testing.assert_array_equal(block.n_missing, plain.n_missing)
            np.testing.assert_allclose(block.sum_sq, plain.sum_sq, rtol=1e-5, atol=1e-9)
            assert len(people) == span[1] - span[0]
            found = by_family.test(block, people)
            expected = rotated.test(plain, rotated.prepare(plain))
            same(found, expected, limit)


@pytest.mark.algebra
def test_a_scan_of_families_is_that_of_the_dense_matrix(cohort, tmp_path, monkeypatch):
    genotypes, model, x = cohort
    ids = genotypes.samples.index
    from_file = bl.read_genotypes(
        write_plink(tmp_path / "c", x[::-1], samples=[(i, i) for i in ids[::-1]])
    )
    by_family = []
    test = FamilyScanner.test
    monkeypatch.setattr(
        FamilyScanner, "test", lambda *of: by_family.append(len(of[2])) or test(*of)
    )
    options = {"tests": ("wald", "bayes"), "dtype": "float64", "block_size": 32, "threads": 1}
    found = model.scan(from_file, **options)
    assert by_family == [32, 32, 26]
    both = bl.scan({"one": model, "two": model}, from_file, **options)
    assert by_family == 3 * [32, 32, 26]
    for name in ("one", "two"):
        pd.testing.assert_frame_equal(both[name], found, check_exact=True)
    table = pd.DataFrame({"y": model.y, "age": model.C["age"].to_numpy()}, index=ids)
    dense = bl.LMM("y ~ age", table, bl.GRM(model.relatedness.matrix.toarray(), ids))
    expected = dense.scan(from_file, **options)
    assert found.neg_log10_p.isna().sum() == 3
    for name in ("beta", "se", "neg_log10_p", "log10_bf", "post_mean", "post_sd", "l_remle"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 1200), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_counts(n, m, seed):
    rng = np.random.default_rng(seed)
    values = padded(n, m)
    assert values.shape[1] % 8 == 0
    values[:, :m] = rng.choice([0, 1, 2, -9], size=(n, m)).astype(np.int8)
    if seed % 3 == 0:
        values[:, 0] = -9
    for found, dosage in zip(counts(values), (1, 2, -9), strict=True):
        np.testing.assert_array_equal(found, (values == dosage).sum(axis=0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 16), min_size=1, max_size=60))
def test_bins_hold_every_group_once(sizes):
    where, offset, bins = _packed(np.array(sizes), 16)
    taken = np.zeros((bins, 16), dtype=int)
    for group, size in enumerate(sizes):
        taken[where[group], offset[group] : offset[group] + size] += 1
    assert taken.max() == 1
    assert taken.sum() == sum(sizes)
    assert (taken.sum(axis=1) > 0).all()


def test_everybody_is_in_one_slot(cohort):
    _, model, _ = cohort
    packing = Packing(model.basis)
    full = packing.column >= 0
    assert sorted(packing.sample[full]) == list(range(model.basis.n))
    assert sorted(packing.column[full]) == list(range(model.basis.n))
    assert (packing.column[: packing.bins[0][0]] >= 0).all()


@pytest.mark.parametrize("samples", [None, [7, 3, 11, 0]])
def test_calls_with_people_in_rows(cohort, tmp_path, samples):
    _, _, x = cohort
    whole = bl.read_genotypes(write_plink(tmp_path / "c", x))
    ids = whole.samples.index
    some = whole if samples is None else whole.select(samples=list(ids[samples]))
    for start, stop in ((0, 8), (3, 90)):
        block, people = some.sample_major(start, stop)
        np.testing.assert_array_equal(people.values[:, : stop - start].T, some.calls(start, stop))
        plain = some.centered_block(start, stop)
        np.testing.assert_array_equal(block.n_missing, plain.n_missing)
        np.testing.assert_allclose(block.eaf, plain.eaf, atol=1e-6)
        rows = np.arange(some.n_samples)[::-1]
        out = np.empty((len(rows), people.values.shape[1]), dtype=np.float32)
        people.centered(rows, out, people.room(len(rows)))
        np.testing.assert_allclose(out[::-1, : stop - start].T, plain.x, atol=1e-5)
    picked = some.select(variants=np.arange(90) % 2 == 0)  # not one after the other
    _, people = picked.sample_major(0, 45)
    np.testing.assert_array_equal(people.values[:, :45].T, picked.calls(0, 45))


def test_blocks_of_variants_are_whole_words():
    assert [variants_in_block(n) for n in (1000, 500_000, 10**8)] == [256, 128, 32]


def test_the_tests_can_be_sent_to_other_processes(cohort):
    genotypes, model, _ = cohort
    one = FamilyScanner(model, ("wald", "bayes"), np.dtype(np.float32))
    other = pickle.loads(pickle.dumps(one))
    expected = one.test(*one.read(genotypes, (0, 32), "additive"))
    found = other.test(*other.read(genotypes, (0, 32), "additive"))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
