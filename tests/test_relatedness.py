import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plink import write_plink

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.relatedness import sums
from bayeslmm.relatedness.dense import GRM, as_grm
from bayeslmm.relatedness.grm_files import read_grm, write_gemma, write_grm
from bayeslmm.relatedness.sums import grm
from bayeslmm.runs.checkpoints import checkpoint

SCALES = ["standardized", "centered", "empirical"]
CHROM = ["1"] * 10 + ["X"] * 15 + ["2L"] * 5 + ["chr1"] * 10 + ["1"] * 10


@pytest.fixture(scope="session")
def genotypes(dosage):
    """Chromosome 1 is in two pieces; variants 3 and 4 are constant, 5 is all missing."""
    table = pd.DataFrame({"id": [f"rs{j}" for j in range(50)], "chrom": CHROM})
    return Genotypes.from_array(dosage, [f"i{i}" for i in range(37)], table)


def standardised(x, scale):
    """Z (n, m) by the definitions, a column of zeros where there is no variance."""
    counts = (~np.isnan(x)).sum(0)
    p = np.nansum(x, 0) / np.maximum(counts, 1) / 2
    z = np.where(np.isnan(x), 0, x - 2 * p)
    varies = (z**2).sum(0) > 1e-20
    variance = {"standardized": 2 * p * (1 - p), "centered": np.ones(len(p)), "empirical": z.var(0)}
    return np.where(varies, z / np.sqrt(np.where(varies, variance[scale], 1)), 0), varies


def dense(x, scale):
    z, varies = standardised(x, scale)
    return z @ z.T / varies.sum()


# -- the matrix ----------------------------------------------------------------------------


@pytest.mark.algebra
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 2e-6)])
def test_scales_against_the_definition(genotypes, dosage, scale, dtype, tolerance):
    expected = dense(dosage, scale)
    found = grm(genotypes, scale=scale, dtype=dtype)
    np.testing.assert_allclose(found.matrix, expected, rtol=0, atol=tolerance * expected.max())
    np.testing.assert_array_equal(found.matrix, found.matrix.T)
    assert found.matrix.dtype == np.float64, "sums over blocks"
    assert found.n_variants == 47
    assert found.info["n_monomorphic"] == 3
    assert (found.scale, found.labelled) == (scale, True)
    assert found.samples.equals(genotypes.samples.index)


@pytest.mark.algebra
def test_default_scale_and_dosages_that_are_not_whole(rng):
    x = rng.uniform(0, 2, size=(20, 90))
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 7] = 0.3
    found = grm(x, dtype="float64")
    np.testing.assert_allclose(found.matrix, dense(x, "standardized"), rtol=0, atol=1e-13)
    assert found.n_variants == 89
    assert not found.labelled


@pytest.mark.algebra
@settings(max_examples=40)
@given(size=st.integers(1, 60), by_chrom=st.booleans(), scale=st.sampled_from(SCALES))
def test_block_size_changes_nothing(genotypes, dosage, size, by_chrom, scale):
    found = grm(genotypes, scale=scale, by_chrom=by_chrom, block_size=size, dtype="float64")
    np.testing.assert_allclose(found.matrix, dense(dosage, scale), rtol=0, atol=1e-13)
    pairs = grm(genotypes, scale=scale, pairwise=True, block_size=size, dtype="float64")
    np.testing.assert_array_equal(pairs.pair_counts, pair_counts(dosage))


def pair_counts(x):
    present = (~np.isnan(x[:, standardised(x, "centered")[1]])).astype(float)
    return present @ present.T


@pytest.mark.algebra
@pytest.mark.parametrize("scale", SCALES)
def test_pairwise(genotypes, dosage, scale):
    z, varies = standardised(dosage, scale)
    found = grm(genotypes, scale=scale, pairwise=True, dtype="float64")
    np.testing.assert_allclose(found.matrix, z @ z.T / pair_counts(dosage), rtol=0, atol=1e-13)
    assert found.n_variants == varies.sum()


@pytest.mark.algebra
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-5)])
def test_loco_is_the_matrix_without_the_chromosome(genotypes, scale, dtype, tolerance):
    whole = grm(genotypes, scale=scale, by_chrom=True, dtype=dtype, block_size=4)
    assert list(whole.parts) == ["1", "X", "2L", "chr1"]
    assert sum(count for _, count in whole.parts.values()) == whole.n_variants
    for chrom in whole.parts:
        rest = genotypes.select(variants=genotypes.variants.chrom != chrom)
        expected = grm(rest, scale=scale, dtype="float64")
        found = whole.loco(chrom)
        np.testing.assert_allclose(found.matrix, expected.matrix, rtol=0, atol=tolerance)
        assert found.n_variants == expected.n_variants
        assert found.info["without_chromosome"] == chrom
        np.testing.assert_array_equal(found.matrix, found.matrix.T)
    assert whole.loco(1).n_variants == whole.loco("1").n_variants
    assert "LOCO for 4 chromosomes" in repr(whole)
    assert grm(genotypes, by_chrom=True).loco("X").eigenbasis() is not whole.eigenbasis()


def test_variants_can_be_chosen(genotypes, dosage):
    keep = np.arange(50) % 2 == 0
    for variants in (keep, [f"rs{j}" for j in np.flatnonzero(keep)]):
        found = grm(genotypes, variants=variants, dtype="float64")
        np.testing.assert_allclose(found.matrix, dense(dosage[:, keep], "standardized"), atol=1e-13)


def test_filters_are_recorded(genotypes):
    found = grm(genotypes.select(min_maf=0.2, max_missing=0.15))
    assert set(found.info["filters"]) == {"missing > 0.15", "maf < 0.2"}
    assert (
        found.n_variants + found.info["n_monomorphic"] + sum(found.info["filters"].values()) == 50
    )


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.ones((4, 2)), {"scale": "zscore"}, r"scale='zscore' is unknown; expected one of 'sta"),
        (np.ones((4, 2)), {"dtype": "float16"}, r"dtype='float16' is unknown; expected 'float32'"),
        (np.ones((4, 2)), {"by_chrom": True, "pairwise": True}, r"cannot be combined"),
        (np.ones((4, 2)), {}, r"all 2 variants are monomorphic or missing among 4 samples: no rel"),
        (np.full((4, 2), np.nan), {"pairwise": True}, r"all 2 variants are monomorphic or missing"),
        (
            [[0, np.nan], [2, np.nan], [np.nan, 1], [np.nan, 2]],
            {"pairwise": True},
            r"samples '0' and '2' have no variant in common\. Leave one out, or use pairwise=False",
        ),
    ],
)
def test_matrices_that_cannot_be(x, options, message):
    with pytest.raises(InputError, match=message):
        grm(np.array(x), **options)


def test_memory_is_asked_for_first(genotypes, monkeypatch):
    monkeypatch.setattr("bayeslmm.runs.memory.available_memory", lambda: 30_000)
    grm(genotypes)  # 37 x 37 x 12 bytes
    with pytest.raises(InputError) as caught:
        grm(genotypes, by_chrom=True)
    assert str(caught.value) == (
        "The relatedness matrix of 37 samples and its 4 chromosomes needs 0 MB of memory, but "
        "0 MB are available. Use fewer samples, or a machine with more memory."
    )


# -- golden --------------------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.parametrize(("scale", "name"), [("centered", "cXX"), ("empirical", "sXX")])
def test_gemma(mice, golden, scale, name):
    """GEMMA filters SNPs among the mice with CD8, but its means are over all mice."""
    with_cd8 = mice.phenotypes.index[mice.phenotypes.cd8.notna()]
    kept = mice.genotypes.select(samples=with_cd8, min_maf=0.01, max_missing=0.05).variants.id
    found = grm(mice.genotypes, scale=scale, variants=kept, dtype="float64")
    assert found.n_variants == 10_768
    expected = np.loadtxt(golden / f"gemma_cd8_corner50.{name}.txt")
    # ten significant digits are printed
    np.testing.assert_allclose(found.matrix[:50, :50], expected, rtol=2e-9, atol=1e-11)


@pytest.mark.golden
def test_plink2(golden):
    """Monomorphic SNPs count in plink2's numbers of SNPs, not in its sums."""
    genotypes = bl.read_genotypes(golden / "plink2_grm60")
    theirs = read_grm(golden / "plink2_grm60")
    ours = grm(genotypes, pairwise=True, dtype="float64")
    assert ours.samples.equals(theirs.samples)
    assert ours.info["n_monomorphic"] == 184
    sums = theirs.matrix * theirs.pair_counts
    expected = sums / ours.pair_counts
    np.testing.assert_allclose(ours.matrix, expected, rtol=0, atol=2e-7)  # float32 of theirs
    x = genotypes.to_array()
    present = (~np.isnan(x)).astype(float)
    np.testing.assert_array_equal(theirs.pair_counts, present @ present.T)


# -- labels --------------------------------------------------------------------------------


@pytest.fixture
def kernel(rng):
    x = rng.normal(size=(6, 40))
    return GRM(x @ x.T / 40, list("abcdef"), 40, pair_counts=np.arange(36.0).reshape(6, 6))


def test_subset(kernel):
    part = kernel.subset(["d", "a"])
    np.testing.assert_array_equal(part.matrix, kernel.matrix[np.ix_([3, 0], [3, 0])])
    np.testing.assert_array_equal(part.pair_counts, kernel.pair_counts[np.ix_([3, 0], [3, 0])])
    assert part.samples.tolist() == ["d", "a"]
    assert part.n_variants == 40
    with pytest.raises(InputError, match=r"1 of 2 samples are not .* relatedness matrix's 6: 'z'"):
        kernel.subset(["a", "z"])
    with pytest.raises(InputError, match="has samples twice: 'a'"):
        kernel.subset(["a", "b", "a"])


def test_what_may_be_given_as_kernel(kernel):
    assert as_grm(kernel) is kernel
    K = kernel.matrix
    assert not as_grm(K).labelled
    assert as_grm(K.tolist()).samples.tolist() == list("012345")
    table = pd.DataFrame(K, kernel.samples, kernel.samples)
    assert as_grm(table).labelled
    assert as_grm(table).samples.equals(kernel.samples)
    assert not as_grm(pd.DataFrame(K)).labelled, "0, 1, 2, ... is pandas' default, no label"
    assert as_grm(pd.DataFrame(K, range(9, 15), range(9, 15)).loc[:, :]).samples[0] == "9"
    with pytest.raises(InputError, match="same ids, in one order, in rows and columns"):
        as_grm(table[table.columns[::-1]])


@pytest.mark.parametrize(
    ("matrix", "samples", "message"),
    [
        (np.ones((3, 2)), "abc", r"must be square, but has shape \(3, 2\)"),
        (np.ones(3), "abc", r"must be square, but has shape \(3,\)"),
        (np.ones((3, 3)), "ab", r"has 3 rows, but 2 sample ids came"),
        (np.ones((3, 3)), "aba", r"has samples twice: 'a'"),
    ],
)
def test_kernels_that_cannot_be(matrix, samples, message):
    with pytest.raises(InputError, match=message):
        GRM(matrix, list(samples))


def test_loco_that_cannot_be(genotypes):
    with pytest.raises(InputError, match=r"no per-chromosome sums\. Make it with bl\.grm\(genoty"):
        grm(genotypes).loco("X")
    whole = grm(genotypes, by_chrom=True)
    with pytest.raises(InputError, match=r"No chromosome 'x' in the .* There are '1', 'X', '2L'"):
        whole.loco("x")
    only = grm(genotypes.select(chrom="X"), by_chrom=True)
    with pytest.raises(InputError, match=r"Chromosome 'X' holds all 15 variants: nothing is left"):
        only.loco("X")


# -- files ---------------------------------------------------------------------------------


def test_gcta_round_trip(kernel, tmp_path):
    kernel = GRM(kernel.matrix, ["007", "a#1", 'b"', "NA", "nan", "e"], 40)
    write_grm(kernel, tmp_path / "x.N", fid=["f"] * 6)
    lower = np.tril_indices(6)
    packed = np.fromfile(tmp_path / "x.N.grm.bin", "<f4")
    np.testing.assert_array_equal(packed, kernel.matrix[lower].astype(np.float32))
    np.testing.assert_array_equal(np.fromfile(tmp_path / "x.N.grm.N.bin", "<f4"), np.full(21, 40))
    assert (tmp_path / "x.N.grm.id").read_text().splitlines()[0] == "f\t007"
    for ending in ("", ".grm", ".grm.bin", ".grm.id", ".grm.N.bin"):
        found = read_grm(f"{tmp_path}/x.N{ending}")
        np.testing.assert_array_equal(found.matrix, kernel.matrix.astype(np.float32))
        assert found.samples.equals(kernel.samples)
        assert (found.n_variants, found.scale, found.labelled) == (40, "given", True)
        assert found.pair_counts is None
    (tmp_path / "x.N.grm.N.bin").unlink()
    assert read_grm(tmp_path / "x.N").n_variants == 0


def test_gcta_round_trip_of_pairwise_counts(genotypes, tmp_path):
    made = grm(genotypes, pairwise=True)
    write_grm(made, tmp_path / "x")
    found = read_grm(tmp_path / "x")
    np.testing.assert_array_equal(found.pair_counts, made.pair_counts)
    np.testing.assert_allclose(found.matrix, made.matrix, rtol=6e-8)
    write_grm(made.subset(["i3", "i9"]), tmp_path / "y")
    expected = made.pair_counts[np.ix_([3, 9], [3, 9])]
    np.testing.assert_array_equal(read_grm(tmp_path / "y").pair_counts, expected)


def test_gcta_ids_are_those_of_the_fam(dosage, tmp_path):
    """IIDs that come twice: labels are FID_IID, but the two columns those of the .fam."""
    samples = [(f"f{i // 2}", f"i{i % 2}") for i in range(37)]
    made = grm(bl.read_genotypes(write_plink(tmp_path / "g", dosage, samples=samples)))
    write_grm(made, tmp_path / "x")
    lines = (tmp_path / "x.grm.id").read_text().splitlines()
    assert lines == [f"{fid}\t{iid}" for fid, iid in samples]
    assert read_grm(tmp_path / "x").samples.equals(made.samples)
    some = made.subset(["f3_i1", "f2_i0"])
    write_grm(some, tmp_path / "y")
    assert (tmp_path / "y.grm.id").read_text() == "f3\ti1\nf2\ti0\n"


def test_gcta_ids(kernel, tmp_path):
    write_grm(kernel, tmp_path / "x")
    ids = tmp_path / "x.grm.id"
    ids.write_text("#FID\tIID\n" + "".join(f"f{i} {i // 2}\n" for i in range(6)))
    assert read_grm(tmp_path / "x").samples.tolist() == [f"f{i}_{i // 2}" for i in range(6)]
    ids.write_text("a a\nb\n")
    with pytest.raises(InputError, match=r"x\.grm\.id, line 2: expected two columns, FID and IID"):
        read_grm(tmp_path / "x")
    ids.write_text("f a\nf b\nf c\nf d\nf e\n")
    with pytest.raises(
        InputError, match=r"x\.grm\.bin: 84 bytes, but the lower triangle of 5 samp"
    ):
        read_grm(tmp_path / "x")
    ids.write_text("f a\n" * 6)
    with pytest.raises(InputError, match="has samples twice: 'f_a'"):
        read_grm(tmp_path / "x")
    with pytest.raises(InputError, match=r"sample ids come from its \.grm\.id"):
        read_grm(tmp_path / "x", samples=list("abcdef"))
    with pytest.raises(InputError, match="There are 6 samples, but 2 family ids came"):
        write_grm(kernel, tmp_path / "y", fid=["f", "g"])
    with pytest.raises(InputError, match=r"y\.grm\.id: ids cannot have blanks there: 'a b'"):
        write_grm(kernel, tmp_path / "y", fid=["a b", *"ccccc"])


@pytest.mark.parametrize("ending", ["bin", "N.bin"])
def test_truncated_gcta(kernel, tmp_path, ending):
    write_grm(kernel, tmp_path / "x")
    path = tmp_path / f"x.grm.{ending}"
    path.write_bytes(path.read_bytes()[:-4])
    message = rf"x\.grm\.{ending}: 80 bytes, but the lower triangle of 6 samples \(see .grm.id\) "
    with pytest.raises(InputError, match=message + r"takes 84\. It is truncated, or belongs to"):
        read_grm(tmp_path / "x")


@pytest.mark.parametrize("name", ["x.cXX.txt", "x.txt.gz"])
def test_gemma_round_trip(kernel, tmp_path, name):
    write_gemma(kernel, tmp_path / name)
    found = read_grm(tmp_path / name)
    np.testing.assert_allclose(found.matrix, kernel.matrix, rtol=1e-9)
    assert not found.labelled
    found = read_grm(tmp_path / name, samples=kernel.samples)
    assert found.labelled
    assert found.samples.equals(kernel.samples)
    with pytest.raises(InputError, match=r"6 rows, but 2 sample ids came"):
        read_grm(tmp_path / name, samples=["a", "b"])


@pytest.mark.golden
def test_reads_gemma(golden):
    found = read_grm(golden / "gemma_cd8_corner50.cXX.txt")
    assert found.matrix.shape == (50, 50)
    np.testing.assert_allclose(found.matrix, found.matrix.T, rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0.5\n0.5 1\n0 0\n", r"x\.txt: 3 rows and 2 columns; a relatedness matrix is square\."),
        ("1 0.5 0\n0.5 1 0\n", r"x\.txt: 2 rows and 3 columns; .* Is it truncated\?"),
        ("1 0.5\n0.5 one\n", r"x\.txt: not a matrix of numbers \(.*one"),
        ("1 0.5\n0.5\n", r"x\.txt, line 2: no number in column 2 of 2\. Is it truncated\?"),
        ("1 NA\nNA 1\n", r"x\.txt, line 1: no number in column 2 of 2"),
        ("1 0.5\n0.5 1 3\n", r"x\.txt: not a matrix of numbers"),
        ("", r"x\.txt: not a matrix of numbers \(No columns"),
    ],
)
def test_damaged_text_matrix(tmp_path, text, message):
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_grm(tmp_path / "x.txt")


def test_absent_files(kernel, tmp_path):
    with pytest.raises(InputError, match=r"x\.grm\.bin: no such file"):
        read_grm(tmp_path / "x")
    with pytest.raises(InputError, match=r"x\.txt: no such file"):
        read_grm(tmp_path / "x.txt")
    write_grm(kernel, tmp_path / "x")
    (tmp_path / "x.grm.id").unlink()
    with pytest.raises(InputError, match=r"x\.grm\.id: no such file"):
        read_grm(tmp_path / "x")


def test_existing_files_are_kept_unless_asked(kernel, tmp_path):
    for ending in ("bin", "N.bin", "id"):
        folder = tmp_path / ending
        folder.mkdir()
        path = folder / f"x.grm.{ending}"
        path.write_text("mine")
        with pytest.raises(InputError, match=rf"x\.grm\.{ending} exists already and is kept"):
            write_grm(kernel, folder / "x")
        assert [p.name for p in folder.iterdir()] == [path.name]
        write_grm(kernel, folder / "x", overwrite=True)
        assert read_grm(folder / "x").samples.equals(kernel.samples)
    (tmp_path / "x.cXX.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_gemma(kernel, tmp_path / "x.cXX.txt")
    assert (tmp_path / "x.cXX.txt").read_text() == "mine"
    write_gemma(kernel, tmp_path / "x.cXX.txt", overwrite=True)
    assert read_grm(tmp_path / "x.cXX.txt").matrix.shape == (6, 6)


# -- dominance and weights -----------------------------------------------------------------


def dominance(x):
    """Z of Zhu et al. (2015), genotype by genotype, and which variants vary."""
    p = np.nansum(x, 0) / np.maximum((~np.isnan(x)).sum(0), 1) / 2
    z = np.zeros(x.shape)
    varies = np.array([len(np.unique(col[~np.isnan(col)])) > 1 for col in x.T])
    for j in np.flatnonzero(varies):
        for g, coded in ((0, 0), (1, 2 * p[j]), (2, 4 * p[j] - 2)):
            z[x[:, j] == g, j] = (coded - 2 * p[j] ** 2) / (2 * p[j] * (1 - p[j]))
    return z, varies, p


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_dominance_against_the_definition(genotypes, dosage, dtype, tolerance):
    z, varies, p = dominance(dosage)
    found = grm(genotypes, scale="dominance", dtype=dtype)
    np.testing.assert_allclose(found.matrix, z @ z.T / varies.sum(), rtol=tolerance, atol=tolerance)
    assert found.scale == "dominance"
    # Vitezica et al. (2013): not divided by 2pq, but by the sum of its squares.
    het = 2 * p * (1 - p)
    w = z * het
    vitezica = w @ w.T / (het**2)[varies].sum()
    weighted = grm(genotypes, scale="dominance", weights=het**2, dtype=dtype)
    np.testing.assert_allclose(weighted.matrix, vitezica, rtol=tolerance, atol=tolerance)


def test_dominance_is_orthogonal_under_hardy_weinberg():
    x = np.repeat([0.0, 1.0, 2.0], [49, 42, 9])[:, None]
    z = dominance(x)[0][:, 0]
    assert z.mean() == pytest.approx(0)
    assert z.var() == pytest.approx(1)
    assert z @ x[:, 0] == pytest.approx(0)
    found = grm(x, scale="dominance", dtype="float64")
    np.testing.assert_allclose(found.matrix, np.outer(z, z), atol=1e-12)


def test_dominance_needs_genotypes_and_predicts_nobody(rng):
    x = rng.integers(0, 3, size=(30, 60)).astype(float)
    kernel = grm(Genotypes.from_array(x, [f"i{i}" for i in range(30)]), scale="dominance")
    y = pd.Series(rng.normal(size=20), [f"i{i}" for i in range(20)])
    lmm = bl.LMM(y, kernel=kernel)
    assert len(lmm.random_effects(samples="all")) == 30
    with pytest.raises(InputError, match="codes dominance"):
        lmm.snp_effects()
    x[3, 4] = 0.4
    with pytest.raises(InputError, match=r"needs genotypes 0, 1, 2, but dosage 0\.4"):
        grm(x, scale="dominance")


@pytest.mark.parametrize("scale", SCALES)
def test_weights_against_the_definition(genotypes, dosage, scale, rng):
    z, varies = standardised(dosage, scale)
    w = rng.uniform(size=50)
    w[10:20] = 0
    expected = (z * w) @ z.T / w[varies].sum()
    found = grm(genotypes, scale=scale, weights=w, dtype="float64", block_size=7)
    np.testing.assert_allclose(found.matrix, expected, rtol=0, atol=1e-12)
    assert (found.scale, found.n_variants) == (f"{scale}, weighted", (varies & (w > 0)).sum())
    by_id = pd.Series(w, genotypes.variants.id).sample(frac=1, random_state=1)
    again = grm(genotypes, scale=scale, weights=by_id, dtype="float64")
    np.testing.assert_allclose(again.matrix, expected, rtol=0, atol=1e-12)
    some = genotypes.variants.id.iloc[20:40]
    part = grm(genotypes, scale=scale, weights=by_id, variants=list(some), dtype="float64")
    inside = np.arange(50)[20:40]
    expected = (z[:, inside] * w[inside]) @ z[:, inside].T / w[inside][varies[inside]].sum()
    np.testing.assert_allclose(part.matrix, expected, rtol=0, atol=1e-12)


def test_equal_weights_change_nothing(genotypes, dosage):
    found = grm(genotypes, weights=np.full(50, 3.0), dtype="float64")
    np.testing.assert_allclose(found.matrix, dense(dosage, "standardized"), rtol=0, atol=1e-13)


def test_effects_of_weighted_snps_add_up_to_the_random_effects(rng):
    x = rng.integers(0, 3, size=(40, 60)).astype(float)
    genotypes = Genotypes.from_array(x, [f"i{i}" for i in range(40)])
    kernel = grm(genotypes, weights=rng.uniform(size=60), dtype="float64")
    lmm = bl.LMM(pd.Series(rng.normal(size=40) + x[:, 0], genotypes.samples.index), kernel=kernel)
    tree = lmm.posterior(100, seed=1)
    u = x @ lmm.snp_effects(tree).effect.to_numpy()
    expected = lmm.random_effects(tree).u_mean.to_numpy()
    np.testing.assert_allclose(u - u.mean(), expected - expected.mean(), atol=1e-8)


def test_weights_that_do_not_fit(genotypes):
    with pytest.raises(InputError, match=r"weights lack 50 of 50 variants: 'rs0'"):
        grm(genotypes, weights=pd.Series([1.0], index=["other"]))
    with pytest.raises(InputError, match="name variants twice: 'rs0'"):
        grm(genotypes, weights=pd.Series(1.0, [*genotypes.variants.id, "rs0"]))
    with pytest.raises(InputError, match=r"have shape \(3,\), but 50 variants"):
        grm(genotypes, weights=np.ones(3))
    for bad in (np.full(50, -1.0), np.zeros(50), np.full(50, np.nan)):
        with pytest.raises(InputError, match="finite, none below 0, and not all 0"):
            grm(genotypes, weights=bad)
    with pytest.raises(InputError, match="cannot be combined with by_chrom"):
        grm(genotypes, weights=np.ones(50), by_chrom=True)
    with pytest.raises(InputError, match="not remade with weights"):
        grm(genotypes, scale="standardized, weighted")


class Failing:
    """A source that ends after some reads, as a machine does."""

    def __init__(self, source, reads):
        self.source, self.left = source, reads
        self.identity = source.identity

    def read(self, variants, samples):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.source.read(variants, samples)


@pytest.mark.parametrize(
    "options",
    [{}, {"weights": np.linspace(0.1, 2, 50)}, {"by_chrom": True}],
    ids=["plain", "weighted", "by chromosome"],
)
def test_an_interrupted_sum_goes_on_to_the_same_bytes(genotypes, tmp_path, monkeypatch, options):
    monkeypatch.setattr(sums, "_SAVED_EVERY", 0.0)
    options = options | {"block_size": 2}
    whole = grm(genotypes, **options)
    broken = Genotypes(Failing(genotypes._source, 15), genotypes.samples, genotypes.variants)

    def interrupted():
        with checkpoint(tmp_path / "work", {"what": "grm"}) as kept:
            grm(broken, kept=kept, **options)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with checkpoint(tmp_path / "work", {"what": "grm"}) as kept:
        (state,) = kept.folder.glob("grm-*")
        assert state.name > "grm-000000"
        rest = Failing(genotypes._source, 24)  # fewer reads than all: it does not begin anew
        again = grm(Genotypes(rest, genotypes.samples, genotypes.variants), kept=kept, **options)
    assert rest.left > 0
    np.testing.assert_array_equal(again.matrix, whole.matrix)
    assert again.n_variants == whole.n_variants
    assert list(again.parts) == list(whole.parts)
    for chrom, (part, count) in whole.parts.items():
        np.testing.assert_array_equal(again.parts[chrom][0].full(), part.full())
        assert again.parts[chrom][1] == count


def test_what_is_not_kept_says_so(genotypes, tmp_path):
    with (
        checkpoint(tmp_path / "work", {}) as kept,
        pytest.raises(InputError, match="is not kept while it is made"),
    ):
        grm(genotypes, pairwise=True, kept=kept)
