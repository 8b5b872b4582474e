"""Sparse relatedness: its entries are those of the dense matrix, and nothing else is lost."""

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.sparse

import bayeslmm as bl
from bayeslmm.relatedness import screening
from bayeslmm.relatedness import sparse as sparse_relatedness

pytestmark = pytest.mark.algebra


@pytest.fixture(scope="module")
def cohort():
    return bl.simulate_cohort(None, 300, 1500, families=8, missing=0.01, seed=3)


@pytest.fixture(scope="module")
def dense(cohort):
    return bl.grm(cohort.genotypes, dtype="float64").matrix


def thresholded(K, threshold, allowed=True):
    kept = np.where((threshold <= K) & allowed, K, 0)
    np.fill_diagonal(kept, np.diagonal(K))
    return kept


def test_pairs_of_families(cohort, dense):
    found = bl.sparse_grm(cohort.genotypes, dtype="float64")
    fid = cohort.genotypes.samples.fid.to_numpy()
    same = fid[:, None] == fid
    np.testing.assert_allclose(
        found.matrix.toarray(), thresholded(dense, 0.05, same), rtol=0, atol=1e-12
    )
    assert found.info["n_pairs_looked_at"] == (same.sum() - 300) // 2
    assert found.info["n_pairs_set_to_0"] == found.info["n_pairs_looked_at"] - found.n_pairs > 0
    assert found.n_variants == 1500
    single = bl.sparse_grm(cohort.genotypes, block_size=100)
    np.testing.assert_allclose(single.matrix.toarray(), found.matrix.toarray(), atol=1e-5)


@pytest.mark.parametrize("scale", sparse_relatedness.SCALES)
def test_all_pairs_are_those_of_the_dense_matrix(cohort, monkeypatch, scale):
    K = bl.grm(cohort.genotypes, scale=scale, dtype="float64")
    threshold = 0.08 * np.diagonal(K.matrix).mean()
    monkeypatch.setattr(sparse_relatedness, "_TILE", 70)
    found = bl.sparse_grm(
        cohort.genotypes, pairs="all", scale=scale, threshold=threshold, dtype="float64"
    )
    expected = thresholded(K.matrix, threshold)
    np.testing.assert_allclose(found.matrix.toarray(), expected, atol=1e-12)
    made = bl.SparseGRM.from_dense(K, threshold=threshold)
    np.testing.assert_allclose(made.matrix.toarray(), expected, atol=1e-12)


def test_listed_pairs(cohort, dense, tmp_path):
    ids = cohort.genotypes.samples.index
    i, j = np.nonzero(np.triu(dense > 0.2, 1))
    table = pd.DataFrame({"#FID1": "x", "IID1": ids[j], "FID2": "x", "IID2": ids[i], "KINSHIP": 1})
    table = pd.concat([table, table.iloc[:3]])  # twice is once
    table.to_csv(tmp_path / "king.kin0", sep="\t", index=False)
    allowed = np.zeros_like(dense, dtype=bool)
    allowed[i, j] = allowed[j, i] = True
    for pairs in (
        table,
        tmp_path / "king.kin0",
        table[["IID1", "IID2"]].set_axis(["a", "b"], axis=1),
    ):
        found = bl.sparse_grm(cohort.genotypes, pairs=pairs, dtype="float64")
        np.testing.assert_allclose(
            found.matrix.toarray(), thresholded(dense, 0.05, allowed), atol=1e-12
        )
    table.iloc[:2].assign(IID2=[ids[0], "nobody"]).to_csv(tmp_path / "king", sep="\t")
    with pytest.raises(bl.InputError, match=r"king, row 2: sample 'nobody' is not among"):
        bl.sparse_grm(cohort.genotypes, pairs=tmp_path / "king")
    with pytest.raises(bl.InputError, match="two columns of sample ids"):
        bl.sparse_grm(cohort.genotypes, pairs=table[["IID1"]])


def test_what_families_miss_the_search_among_all_finds(cohort):
    mixed = cohort.genotypes.samples.assign(fid=[f"f{k % 7}" for k in range(300)])
    mislabelled = bl.Genotypes(
        cohort.genotypes._source, mixed, cohort.genotypes.variants, name="mixed"
    )
    by_family = bl.sparse_grm(mislabelled, threshold=0.2)
    among_all = bl.sparse_grm(mislabelled, threshold=0.2, pairs="all")
    related = int((np.triu(cohort.pedigree.grm(mixed.index).matrix, 1) > 0.4).sum())
    assert among_all.n_pairs > related
    assert by_family.n_pairs < 0.5 * among_all.n_pairs


def test_files_of_gcta(cohort, tmp_path):
    grm = bl.sparse_grm(cohort.genotypes)
    grm.write(tmp_path / "s")
    first = (tmp_path / "s.grm.sp").read_text().splitlines()[0].split("\t")
    assert first[:2] == ["0", "0"]
    assert float(first[2]) == pytest.approx(grm.matrix[0, 0], rel=1e-9)
    assert (tmp_path / "s.grm.id").read_text().startswith("f1\ti")
    for name in ("s", "s.grm", "s.grm.sp"):
        back = bl.read_sparse_grm(tmp_path / name)
        assert list(back.samples) == list(grm.samples)
        np.testing.assert_allclose(back.matrix.toarray(), grm.matrix.toarray(), rtol=1e-9)
    with pytest.raises(bl.InputError, match="exists already"):
        grm.write(tmp_path / "s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 1\n1 1 1\n1 2 0.5\n", "line 3: '1 2 0.5' is no entry of a matrix of 2 samples"),
        ("0 0 1\n1 1 1\n-1 0 0.5\n", "line 3: '-1 0 0.5' is no entry"),
        ("0 0 1\n1 1 1\n1 0 .5\n0 1 .5\n", "line 4: the entry of 'a' and 'b' comes a second time"),
        ("0 0 1\n1 0 0.5\n", "no diagonal entry for 1 samples: 'b'"),
        ("0 0 1\n1 1 nan\n", "line 2: '1 1 nan' is no entry"),
        ("0 0 1\n1 1 x\n", "expected three columns"),
        ("", "no diagonal entry for 2 samples"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    (tmp_path / "s.grm.id").write_text("a a\nb b\n")
    (tmp_path / "s.grm.sp").write_text(text)
    with pytest.raises(bl.InputError, match=message):
        bl.read_sparse_grm(tmp_path / "s")


def not_a_covariance():
    """Two cousins who are both sibs of a third: one eigenvalue is negative."""
    bad = np.array([[1, 0.8, 0], [0.8, 1, 0.8], [0, 0.8, 1]])
    K = scipy.linalg.block_diag(np.array([[1, 0.5], [0.5, 1]]), bad, np.eye(2))
    return bl.SparseGRM(scipy.sparse.csr_array(K), list("abcdefg"))


def test_a_group_that_is_no_covariance():
    grm = not_a_covariance()
    with pytest.raises(bl.InputError) as caught:
        grm.eigenbasis()
    assert "1 groups of 3 relatives have an eigenvalue below 0" in str(caught.value)
    assert "the group of 'c', 'd', 'e'" in str(caught.value)
    assert "grm.repaired()" in str(caught.value)
    repaired = grm.repaired()
    K, before = repaired.matrix.toarray(), grm.matrix.toarray()
    np.testing.assert_allclose(np.diagonal(K), 1, rtol=1e-12)
    assert np.linalg.eigvalsh(K)[0] > -1e-12
    inside = np.ix_([2, 3, 4], [2, 3, 4])
    assert repaired.info["repaired"] == {
        "groups": 1,
        "largest_change": pytest.approx(np.abs(K - before)[inside].max()),
    }
    K[inside] = before[inside] = 0
    np.testing.assert_array_equal(K, before)
    assert (repaired.eigenbasis().values >= 0).all()


def test_matrices_that_are_none():
    eye = scipy.sparse.eye_array(3).tocsr()
    with pytest.raises(bl.InputError, match=r"of 2 samples has shape \(3, 3\)"):
        bl.SparseGRM(eye, ["a", "b"])
    with pytest.raises(bl.InputError, match="samples twice: 'a'"):
        bl.SparseGRM(eye, ["a", "a", "b"])
    wrong = eye.tolil()
    wrong[0, 2] = 0.5
    with pytest.raises(bl.InputError, match=r"two entries differ by 0\.5"):
        bl.SparseGRM(wrong.tocsr(), list("abc"))
    wrong[0, 2] = wrong[2, 0] = np.nan
    with pytest.raises(bl.InputError, match="sample 'a' is not finite"):
        bl.SparseGRM(wrong.tocsr(), list("abc"))
    with pytest.raises(bl.InputError, match="proportional to the identity"):
        bl.SparseGRM(eye, list("abc")).eigenbasis()
    with pytest.raises(bl.InputError, match="1 of 2 samples are not among"):
        bl.SparseGRM(eye, list("abc")).subset(["a", "z"])


def test_what_cannot_be_asked(cohort, monkeypatch):
    g = cohort.genotypes
    alone = bl.Genotypes(g._source, g.samples.assign(fid=g.samples.iid), g.variants)
    for genotypes, options, message in (
        (g, {"scale": "dominance"}, "scale='dominance' is unknown"),
        (g, {"dtype": "int8"}, "dtype='int8' is unknown"),
        (alone, {}, "every sample is a family by itself"),
        (np.eye(5), {}, "no family ids"),
        (np.ones((5, 3)), {"pairs": "all"}, "no relatedness"),
    ):
        with pytest.raises(bl.InputError, match=message):
            bl.sparse_grm(genotypes, **options)
    model = bl.LMM("y ~ sex", cohort.phenotypes, bl.sparse_grm(g))
    for call in (model.snp_effects, lambda: model.predict(g)):
        with pytest.raises(bl.InputError, match="do not follow from a sparse relatedness matrix"):
            call()
    with pytest.raises(bl.InputError, match="dense relatedness matrix is needed here"):
        bl.RepeatedLMM("y ~ sex + (1 | id)", cohort.phenotypes, bl.sparse_grm(g))
    fresh = bl.LMM("y ~ sex", cohort.phenotypes, bl.sparse_grm(g))
    monkeypatch.setattr("bayeslmm.runs.memory.available_memory", lambda: 1000)
    with pytest.raises(bl.InputError, match=r"Decomposing .* groups of up to 8 relatives needs"):
        fresh.reml()


def test_h2_and_prediction_of_a_simulated_cohort():
    """h2 of the truth, and relatives without phenotype predicted."""
    cohort = bl.simulate_cohort(None, 1200, 1500, families=10, h2=0.6, seed=11)
    grm = bl.sparse_grm(cohort.genotypes)
    seen = cohort.phenotypes.index[::2].append(cohort.phenotypes.index[1::4])
    model = bl.LMM("y ~ sex + age", cohort.phenotypes.loc[seen], grm)
    posterior = model.h2_posterior()
    assert abs(posterior.mean - 0.6) < 3 * posterior.sd
    rest = cohort.phenotypes.index.difference(seen)
    table = model.random_effects(samples=rest)
    dense = bl.LMM(
        "y ~ sex + age",
        cohort.phenotypes.loc[seen],
        bl.eigenbasis(bl.GRM(grm.matrix.toarray(), grm.samples), samples=model.ids, center=False),
    )
    assert np.corrcoef(table.u_mean, cohort.u[rest])[0, 1] > 0.25
    predicted = model.predict(samples=rest, data=cohort.phenotypes.loc[rest, ["sex", "age"]])
    assert np.corrcoef(predicted.y_mean, cohort.phenotypes.y[rest])[0, 1] > 0.2
    assert dense.reml().s2_e == pytest.approx(model.reml().s2_e, rel=1e-6)


def test_relatives_without_family_ids_are_screened(cohort, monkeypatch, caplog):
    monkeypatch.setattr(screening, "_TILE", 100)
    genotypes = cohort.genotypes
    few = bl.sparse_grm(genotypes, pairs="screen", screen=1000, threshold=0.2)
    every = bl.sparse_grm(genotypes, pairs="all", threshold=0.2)
    about = few.info["screening"]
    assert about["n_variants"] <= 1000
    assert 0 < few.info["n_pairs_looked_at"] == about["n_passed"]
    assert about["n_passed"] < every.info["n_pairs_looked_at"] / 5
    assert about["missed"]["0.5"] < about["missed"]["0.25"] < 0.01
    difference = few.matrix - every.matrix
    assert abs(difference).max() < 1e-6  # nobody of 0.2 or more is missed
    assert "of the second degree" in caplog.text
    with pytest.raises(bl.InputError, match=r"40 common variants are too few .* would be missed"):
        bl.sparse_grm(genotypes, pairs="screen", screen=40)


def test_screening_passes_as_many_unrelated_pairs_as_it_says(rng):
    n, m = 1500, 600
    x = rng.binomial(2, rng.uniform(0.1, 0.9, m), size=(n, m)).astype(float)
    x[rng.random(x.shape) < 0.01] = np.nan
    i, j, about = screening.screened_pairs(bl.Genotypes.from_array(x), m)
    assert (i < j).all()
    assert about["n_variants"] == m
    expected = screening._PASSING * n
    assert 0.8 * expected < len(i) < 1.2 * expected
