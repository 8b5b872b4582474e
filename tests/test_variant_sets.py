import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.relatedness.variant_sets import annotate, read_regions


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(8)
    x = rng.binomial(2, rng.uniform(0.1, 0.5, 60), size=(30, 60)).astype(float)
    x[rng.random(x.shape) < 0.03] = np.nan
    x[:, 7] = 1
    table = pd.DataFrame(
        {
            "id": [f"rs{j}" for j in range(60)],
            "chrom": np.repeat(["1", "2", "X"], 20),
            "pos": np.tile(np.arange(20) * 100 + 50, 3),
            "effect": np.where(np.arange(60) % 3 == 0, "coding", "other"),
        }
    )
    return bl.Genotypes.from_array(x, [f"s{i}" for i in range(30)], table)


@pytest.mark.algebra
@pytest.mark.parametrize("scale", ["standardized", "centered", "empirical"])
def test_each_matrix_is_the_grm_of_its_variants(cohort, scale):
    found = bl.partition_grms(cohort, "chrom", scale=scale, dtype="float64", block_size=7)
    assert list(found) == ["1", "2", "X"]
    for label, K in found.items():
        alone = bl.grm(cohort.select(chrom=label), scale=scale, dtype="float64")
        np.testing.assert_allclose(K.matrix, alone.matrix, atol=1e-12)
        assert K.n_variants == alone.n_variants
        assert set(K.genotypes.variants.chrom) == {label}
    assert found["1"].n_variants == 19  # one is monomorphic


def test_labels_made_of_columns_of_the_variants_are_taken_by_row(cohort):
    """They have the index of the table, not ids; one of another table is refused."""
    labels = cohort.variants.chrom.map({"1": "one", "2": "two", "X": "two"})
    by_id = labels.set_axis(cohort.variants.id)
    pd.testing.assert_frame_equal(annotate(cohort, labels), annotate(cohort, by_id))
    with pytest.raises(bl.InputError, match="lacks 60 of 60 variants"):
        annotate(cohort, labels[:40])


@pytest.mark.algebra
def test_overlapping_annotations(cohort):
    table = pd.DataFrame({"a": np.arange(60) < 40, "b": np.arange(60) >= 30}, cohort.variants.id)
    found = bl.partition_grms(cohort, table, dtype="float64")
    assert found.overlap.to_numpy().tolist() == [[39, 10], [10, 30]]
    assert "10 variants have several annotations" in repr(found)
    alone = bl.grm(cohort, variants=list(cohort.variants.id[30:]), dtype="float64")
    np.testing.assert_allclose(found["b"].matrix, alone.matrix, atol=1e-12)


def test_what_variants_may_be_grouped_by(cohort, tmp_path):
    by_column = annotate(cohort, "effect")
    labels = cohort.variants.set_index("id").effect
    pd.testing.assert_frame_equal(by_column, annotate(cohort, labels[::-1]))
    ids = {"coding": labels.index[labels == "coding"], "first": ["2:1-500", "X:50-50"]}
    by_name = annotate(cohort, ids)
    assert (by_name.coding == by_column.coding).all()
    assert list(by_name.index[by_name["first"]]) == [*(f"rs{j}" for j in range(20, 25)), "rs40"]
    bed = tmp_path / "genes.bed"
    # BED starts at 0 and ends before its end: position 150 is in 149-150, not in 150-151.
    bed.write_text("#c\ntrack x\nchr1\t149\t150\tgene\nX\t150\t151\tgene\n2\t0\t60\texon\n")
    regions = read_regions(bed, cohort)
    assert list(regions.index[regions.gene]) == ["rs1"]
    assert list(regions.index[regions.exon]) == ["rs20"]
    found = bl.partition_grms(cohort, bed, rest="elsewhere")
    assert {name: K.n_variants for name, K in found.items()} == {
        "gene": 1,
        "exon": 1,
        "elsewhere": 57,
    }
    unnamed = tmp_path / "coding.bed"
    unnamed.write_text("1 0 200\n")
    assert list(bl.partition_grms(cohort, unnamed, rest=None)) == ["coding"]


def test_bins_by_frequency(cohort):
    found = bl.maf_bins(cohort, [0.2, 0.35])
    maf = cohort.qc().maf.to_numpy()
    assert (found[maf < 0.2] == "maf 0-0.2").all()
    assert (found[maf >= 0.35] == "maf 0.35-0.5").all()
    sizes = {name: K.n_variants for name, K in bl.partition_grms(cohort, found).items()}
    assert sum(sizes.values()) == 59


@pytest.mark.algebra
def test_ld_scores_are_those_of_correlations():
    rng = np.random.default_rng(2)
    x = rng.integers(0, 3, size=(25, 12)).astype(float)
    x[:, 5] = x[:, 4]
    x[:, 9] = 1
    table = pd.DataFrame({"id": [f"v{j}" for j in range(12)], "chrom": ["1"] * 7 + ["2"] * 5})
    found = bl.ld_scores(bl.Genotypes.from_array(x, variants=table), window=3)
    for j in range(12):
        if j == 9:
            assert np.isnan(found.iloc[j])
            continue
        expected = 1.0
        for k in range(12):
            if k not in (j, 9) and abs(j - k) <= 3 and (j < 7) == (k < 7):
                r2 = np.corrcoef(x[:, j], x[:, k])[0, 1] ** 2
                expected += r2 - (1 - r2) / 23
        assert found.iloc[j] == pytest.approx(expected, abs=1e-5)
    bins = bl.ld_bins(bl.Genotypes.from_array(x, variants=table), 2, window=3)
    assert bins.notna().sum() == 11
    assert bins.nunique() == 2
    assert bins["v4"] == bins["v5"] == bins.cat.categories[-1]


def test_messages(cohort, tmp_path):
    bed = tmp_path / "bad.bed"
    bed.write_text("1\t5\t9\n1\t9\t5\n")
    cases = [
        ("nonsense", "neither a column of the variants"),
        (bed, r"bad.bed, line 2: .* is no region"),
        (pd.Series({"rs1": "a"}), "lacks 59 of 60 variants"),
        ({"a": ["rs1", "rs999"]}, "Annotation 'a': .* 'rs999'"),
        ({"a": ["rs7"]}, "All variants of 'a' are monomorphic"),
        ({"rest": ["rs1"]}, "'rest' is an annotation already"),
        (pd.Series("all", index=cohort.variants.id), "All variants have the annotation 'all'"),
        (pd.DataFrame({"a": 0.5}, cohort.variants.id), "not of booleans"),
        (7, "by=int is no annotation"),
    ]
    for by, message in cases:
        with pytest.raises(bl.InputError, match=message):
            bl.partition_grms(cohort, by)
    bed.write_text("17\t5\t9\n")
    with pytest.raises(bl.InputError, match=r"its chromosomes \('17'\) are not those"):
        bl.partition_grms(cohort, bed)
    with pytest.raises(bl.InputError, match="edges must ascend"):
        bl.maf_bins(cohort, [0.3, 0.2])


@pytest.mark.algebra
def test_kernels_of_kernels():
    rng = np.random.default_rng(3)
    Z = rng.normal(size=(6, 20))
    ids = list("abcdef")
    K = bl.GRM(Z @ Z.T / 20, ids)
    np.testing.assert_allclose(bl.kernels.product(K).matrix, K.matrix**2)
    # Products of all pairs of variants: what additive by additive effects have.
    pairs = (Z[:, :, None] * Z[:, None, :]).reshape(6, -1)
    np.testing.assert_allclose(bl.kernels.product(K).matrix, pairs @ pairs.T / 400)
    L = bl.GRM(K.matrix[::-1, ::-1], ids[::-1])
    np.testing.assert_allclose(bl.kernels.product(K, L).matrix, K.matrix**2)
    diet = pd.Series(["hay", "hay", "corn", "corn", "hay", "corn"], ids)
    E = bl.kernels.environment(diet)
    same = diet.to_numpy()[:, None] == diet.to_numpy()
    np.testing.assert_allclose(E.matrix, np.where(same, 1.0, -1.0))
    assert not E.info["genetic"]
    gxe = bl.kernels.by_environment(K, diet)
    np.testing.assert_allclose(gxe.matrix, K.matrix * E.matrix)
    assert gxe.info.get("genetic", True)
    cages = pd.Series(["x", "x", None, None, "y", "y"], ids)
    H = bl.kernels.household(cages).matrix
    assert H[2, 3] == 0
    assert H[0, 1] == H[4, 5] == 1
    assert H.sum() == 10
    for call, message in [
        (lambda: bl.kernels.household(pd.Series(ids, ids)), "group of its own"),
        (lambda: bl.kernels.environment(pd.Series(1.0, ids)), "same for all samples"),
        (lambda: bl.kernels.environment(pd.Series([1.0, np.nan], ["a", "b"])), "missing"),
        (lambda: bl.kernels.product(K, np.eye(6)), "one names them"),
    ]:
        with pytest.raises(bl.InputError, match=message):
            call()
