import gzip
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plink import bed_bytes, write_plink

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes, read_genotypes

CHROM = ["1"] * 10 + ["X"] * 15 + ["2L"] * 5 + ["chr1"] * 10 + ["1"] * 10


@pytest.fixture(scope="session")
def prefix(dosage, tmp_path_factory):
    """The dosages as PLINK files; chromosome 1 is in two pieces."""
    return write_plink(tmp_path_factory.mktemp("plink") / "small.v2", dosage, chrom=CHROM)


@pytest.fixture(scope="session", params=["bed", "array", "loaded"])
def genotypes(request, prefix, dosage):
    if request.param == "array":
        table = pd.DataFrame({"id": [f"rs{j}" for j in range(50)], "chrom": CHROM})
        table["pos"] = [10 * (j + 1) for j in range(50)]
        return Genotypes.from_array(dosage, [f"i{i}" for i in range(37)], table)
    opened = read_genotypes(prefix)
    return opened.load() if request.param == "loaded" else opened


def same(found, expected):
    np.testing.assert_array_equal(found, expected)


# -- opening -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".bed", ".bim", ".fam"])
def test_opens_by_prefix_or_any_of_three_names(prefix, dosage, ending):
    for path in (f"{prefix}{ending}", type(prefix)(f"{prefix}{ending}")):
        found = read_genotypes(path)
        assert found.shape == (37, 50)
        assert found.name == "small.v2"
        same(found.to_array(), dosage)


def test_tables(prefix):
    found = read_genotypes(prefix)
    assert found.samples.index.tolist() == [f"i{i}" for i in range(37)]
    assert found.samples.index.name == "id"
    assert found.samples.loc["i3", ["fid", "iid", "sex"]].tolist() == ["f3", "i3", "1"]
    assert found.samples.phenotype.isna().all(), "-9 is missing"
    assert found.variants.loc[2].to_dict() == {
        "chrom": "1", "id": "rs2", "pos": 30, "ea": "A", "oa": "G", "cm": 0.5,
    }  # fmt: skip
    assert found.variants.pos.dtype == np.int64
    assert found.chromosomes == ["1", "X", "2L", "chr1"]
    assert repr(found) == "<Genotypes small.v2: 37 samples x 50 variants, 4 chromosomes>"
    assert found.labelled


def test_fam_of_eleven_columns(dosage, tmp_path):
    path = write_plink(tmp_path / "x", dosage, more_fam="\t0.1\t0.2\tNA\t0.4\t0.5")
    same(read_genotypes(path).to_array(), dosage)


def test_blanks_quotes_and_hashes_in_the_tables(tmp_path):
    path = write_plink(tmp_path / "x", np.array([[0, 1], [1, 1], [2.0, 0]]))
    (tmp_path / "x.fam").write_text('  f 007  0 0 1 -9\r\nf O"Neil 0 0 1 2.5 \nf a#1 0 0 2 NA\n')
    (tmp_path / "x.bim").write_text("1 NA 0 1 A G\n01 \"b 0 2 nan '\n")
    found = read_genotypes(path)
    assert found.samples.index.tolist() == ["007", 'O"Neil', "a#1"]
    assert found.samples.phenotype.tolist()[1] == 2.5
    assert found.variants.id.tolist() == ["NA", '"b']
    assert found.variants.chrom.tolist() == ["1", "01"], "labels, not numbers"
    assert found.variants.ea.tolist() == ["A", "nan"]


def test_variants_without_id_are_named_by_place_and_alleles(tmp_path):
    path = write_plink(tmp_path / "x", np.array([[0, 1], [1, 1], [2.0, 0]]))
    (tmp_path / "x.bim").write_text("17 . 0 33563059 A C\n17 rs2 0 33563060 T G\n")
    assert read_genotypes(path).variants.id.tolist() == ["17:33563059:C:A", "rs2"]


def test_sample_ids_are_fid_iid_where_iids_repeat(dosage, tmp_path):
    pairs = [(f"f{i}", f"i{i // 2}") for i in range(37)]
    found = read_genotypes(write_plink(tmp_path / "x", dosage, samples=pairs))
    assert found.samples.index.tolist() == [f"f{i}_i{i // 2}" for i in range(37)]


def test_as_genotypes(prefix, dosage):
    opened = read_genotypes(prefix)
    assert as_genotypes(opened) is opened
    same(as_genotypes(str(prefix)).to_array(), dosage)
    same(as_genotypes(dosage).to_array(), dosage)
    assert not as_genotypes(dosage).labelled


# -- reading -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 7, 49, 50, 1000, None])
def test_blocks_are_the_array_for_any_size(genotypes, dosage, size):
    blocks = list(genotypes.blocks(size))
    assert all(b.dtype == np.float32 and b.flags.f_contiguous for b in blocks)
    assert max(b.shape[1] for b in blocks) <= (size or 8192)
    same(np.hstack(blocks), dosage.astype(np.float32))


@pytest.mark.parametrize("size", [0, -1])
def test_blocks_have_at_least_one_variant(genotypes, size):
    with pytest.raises(InputError, match=f"at least one variant, but its size is {size}"):
        list(genotypes.blocks(size))


@pytest.mark.algebra
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centered_block(genotypes, dosage, dtype, monkeypatch):
    monkeypatch.setattr("bayeslmm.inputs.genotypes._CACHE_FRIENDLY", 37 * 4)  # pieces of 4 variants
    x = dosage[:, 1:40].T
    block = genotypes.centered_block(1, 40, dtype)
    absent = np.isnan(x)
    mean = np.nan_to_num(x).sum(1) / np.where(absent.all(1), np.nan, (~absent).sum(1))
    expected = np.where(absent, 0, x - mean[:, None])
    tolerance = {"rtol": 0, "atol": 1e-6 if dtype == np.float32 else 1e-14}
    assert block.x.dtype == dtype
    np.testing.assert_allclose(block.x, expected, **tolerance)
    np.testing.assert_allclose(block.eaf, mean / 2, **tolerance)
    np.testing.assert_allclose(block.sum_sq, (expected**2).sum(1), rtol=1e-5)
    same(block.sum_sq[[2, 3, 4]], 0)
    same(block.n_missing, absent.sum(1))
    same(block.missing, absent)
    assert genotypes.centered_block(3, 5).missing is None


def test_centering_of_constant_dosages_is_exact_to_rounding():
    x = np.full((1001, 2), 1.3)
    x[0, 1] = 1.31
    block = Genotypes.from_array(x).centered_block(0, 2)
    assert block.sum_sq[0] == 0
    assert block.sum_sq[1] == pytest.approx(0.01**2, rel=0.01)


def test_thread_safety(genotypes, dosage):
    """Views of different samples, read in turns by four threads from one source."""
    rng = np.random.default_rng(3)
    orders = [rng.permutation(37)[:k] for k in (37, 20, 5)]
    views = [genotypes.select(samples=genotypes.samples.index[order]) for order in orders]
    jobs = [(k % 3, k % 45) for k in range(400)]

    def read(job):
        return views[job[0]].centered_block(job[1], job[1] + 5, np.float64)

    with ThreadPoolExecutor(4) as pool:
        for (k, start), block in zip(jobs, pool.map(read, jobs), strict=True):
            x = block.x + 2 * block.eaf[:, None]
            if block.missing is not None:
                x[block.missing] = np.nan
            expected = dosage[orders[k], start : start + 5].T
            np.testing.assert_allclose(x, expected, atol=1e-14)


def test_memory_stays_within_a_block(prefix, monkeypatch):
    opened = read_genotypes(prefix)
    asked = []
    read = type(opened._source).read

    def counting(self, variants, samples):
        asked.append(len(variants))
        return read(self, variants, samples)

    monkeypatch.setattr(type(opened._source), "read", counting)
    view = opened.select(chrom=["1", "X"], samples=["i3", "i1"])
    assert asked == [], "opening and selecting read nothing"
    next(view.blocks(4))
    assert asked == [4], "one block, read when it is asked for"
    monkeypatch.setattr(Genotypes, "block_size", lambda self: 6)
    opened.select(min_maf=0.1)
    assert max(asked) <= 6


def test_load_reads_once(prefix, dosage, tmp_path):
    copy = tmp_path / "copy"
    for ending in (".bed", ".bim", ".fam"):
        (tmp_path / f"copy{ending}").write_bytes(type(prefix)(f"{prefix}{ending}").read_bytes())
    view = read_genotypes(copy).select(samples=["i5", "i2"], chrom="X", max_missing=0.2)
    loaded = view.load()
    (tmp_path / "copy.bed").unlink()
    columns = [int(name.removeprefix("rs")) for name in view.variants.id]
    same(loaded.to_array(), dosage[np.ix_([5, 2], columns)])
    pd.testing.assert_frame_equal(loaded.variants, view.variants)
    pd.testing.assert_frame_equal(loaded.samples, view.samples)
    pd.testing.assert_frame_equal(loaded.excluded, view.excluded)
    assert (loaded.name, loaded.labelled) == (view.name, view.labelled)


# -- selecting -----------------------------------------------------------------------------


@settings(max_examples=50)
@given(data=st.data())
def test_selection_equals_indexing(prefix, dosage, data):
    """Samples in any order and any variants, of a view of a view, against the array."""
    opened = read_genotypes(prefix)
    rows = data.draw(st.lists(st.integers(0, 36), unique=True, min_size=1))
    columns = data.draw(st.lists(st.integers(0, 49), unique=True, min_size=1).map(sorted))
    view = opened.select(samples=[f"i{i}" for i in rows], variants=[f"rs{j}" for j in columns])
    assert view.samples.index.tolist() == [f"i{i}" for i in rows]
    same(view.to_array(), dosage[np.ix_(rows, columns)])
    again = data.draw(st.permutations(range(len(rows))))[: max(1, len(rows) // 2)]
    keep = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(columns), max_size=len(columns)))
    )
    keep[0] = True
    second = view.select(samples=view.samples.index[again], variants=keep)
    expected = dosage[np.ix_(np.array(rows)[again], np.array(columns)[keep])]
    same(second.to_array(), expected)
    same(second.load().to_array(), expected)
    size = data.draw(st.integers(1, 9))
    same(np.hstack(list(second.blocks(size))), expected.astype(np.float32))


def test_order_of_variants_stays(genotypes):
    view = genotypes.select(variants=["rs7", "rs2"])
    assert view.variants.id.tolist() == ["rs2", "rs7"]
    assert genotypes.select(variants="rs7").variants.id.tolist() == ["rs7"]
    assert genotypes.select(samples="i7").samples.index.tolist() == ["i7"]


def test_boolean_selections(genotypes, dosage):
    keep = np.arange(37) % 3 == 0
    for mask in (keep, keep.tolist(), pd.Series(keep), pd.Series(keep, genotypes.samples.index)):
        same(genotypes.select(samples=mask).to_array(), dosage[keep])
    x = genotypes.variants.chrom == "X"
    for mask in (x, x.to_numpy(), x.tolist()):
        same(genotypes.select(variants=mask).to_array(), dosage[:, 10:25])
    with pytest.raises(InputError, match=r"samples needs shape \(37,\), but has \(36,\)"):
        genotypes.select(samples=keep[1:])
    with pytest.raises(InputError, match=r"variants needs shape \(50,\), but has \(37,\)"):
        genotypes.select(variants=keep)
    with pytest.raises(InputError, match="selects samples, but its index is not theirs"):
        genotypes.select(samples=pd.Series(keep, genotypes.samples.index[::-1]))


@pytest.mark.parametrize(
    ("label", "columns"),
    [
        ("X", range(10, 25)),
        ("2L", range(25, 30)),
        ("chr1", range(30, 40)),
        ("1", [*range(10), *range(40, 50)]),
        (1, [*range(10), *range(40, 50)]),
        (np.int64(1), [*range(10), *range(40, 50)]),
        (["2L", 1], [*range(10), *range(25, 30), *range(40, 50)]),
        (pd.Series(["X"]), range(10, 25)),
    ],
)
def test_chromosomes_are_labels(genotypes, dosage, label, columns):
    same(genotypes.select(chrom=label).to_array(), dosage[:, list(columns)])


@pytest.mark.parametrize(
    ("region", "columns"),
    [
        ("X", range(10, 25)),
        ("X:120-150", range(11, 15)),
        ("X:120-159", range(11, 15)),
        ("chr1:0-310", [30]),
        ("1:1-2,000", [*range(10), *range(40, 50)]),
    ],
)
def test_regions(genotypes, dosage, region, columns):
    same(genotypes.select(region=region).to_array(), dosage[:, list(columns)])


def test_a_chromosome_as_a_number():
    table = pd.DataFrame({"id": ["a", "b"], "chrom": ["17", "X"]})
    genotypes = bl.Genotypes.from_array(np.eye(2), variants=table)
    assert list(genotypes.select(region=17).variants.id) == ["a"]


@pytest.mark.parametrize("region", ["X:", "X:5", "X:a-b", "X:5-", "X:1-2-3", "X:-5-9"])
def test_bad_region(genotypes, region):
    with pytest.raises(InputError, match=rf"Region '{region}' is not of the form chrom or chrom:f"):
        genotypes.select(region=region)


def test_region_that_ends_before_it_begins(genotypes):
    with pytest.raises(InputError, match="ends before it begins; expected X:120-150"):
        genotypes.select(region="X:150-120")


def test_filters_count_among_the_selected_samples(genotypes, dosage):
    rows = np.arange(0, 37, 2)
    ids = [f"i{i}" for i in rows]
    view = genotypes.select(samples=ids, min_maf=0.2, max_missing=0.15)
    x = dosage[rows]
    share = np.isnan(x).mean(0)
    eaf = np.nansum(x, 0) / np.maximum((~np.isnan(x)).sum(0), 1) / 2
    maf = np.minimum(eaf, 1 - eaf)
    keep = (share <= 0.15) & (maf >= 0.2)
    assert 5 < keep.sum() < 30, "a test of something"
    same(view.to_array(), x[:, keep])
    reason = np.where(share > 0.15, "missing > 0.15", "maf < 0.2")[~keep]
    assert view.excluded.reason.tolist() == reason.tolist()
    assert view.excluded.id.tolist() == [f"rs{j}" for j in np.flatnonzero(~keep)]
    assert list(view.excluded.columns) == ["id", "chrom", "pos", "reason"]
    assert len(genotypes.excluded) == 0
    whole = genotypes.select(min_maf=0.2, max_missing=0.15).select(samples=ids)
    assert whole.n_variants != view.n_variants
    table = view.qc()
    np.testing.assert_allclose(table.maf, maf[keep], atol=1e-15)
    same(table.n_missing, np.isnan(x).sum(0)[keep])


def test_excluded_accumulates_in_views_of_views(genotypes):
    first = genotypes.select(max_missing=0.15)
    second = first.select(min_maf=0.3)
    assert len(first.excluded) + first.n_variants == 50
    assert len(second.excluded) + second.n_variants == 50
    assert second.excluded[: len(first.excluded)].equals(first.excluded)
    assert set(second.excluded.reason) == {"missing > 0.15", "maf < 0.3"}
    assert second.select(chrom="X").excluded.equals(second.excluded)


def test_all_missing_variants(genotypes):
    assert "rs5" in genotypes.select(max_missing=1).variants.id.tolist()
    assert "rs5" in genotypes.select(min_maf=0).variants.id.tolist()
    view = genotypes.select(min_maf=0.01)
    assert view.excluded.set_index("id").reason["rs5"] == "all missing"
    assert view.excluded.set_index("id").reason["rs3"] == "maf < 0.01"
    assert "rs4" in view.variants.id.tolist(), "all heterozygous: no variance, but maf 0.5"


@pytest.mark.parametrize("count", range(1, 10))
def test_thresholds_are_inclusive_whichever_allele_is_rare(count):
    """1 - 0.9 < 0.1 in floating point, but a maf of 0.1 is not below 0.1."""
    x = np.zeros((10, 2))
    x[:count, 0], x[count:, 1] = 2, 2
    view = Genotypes.from_array(x).select(min_maf=min(count, 10 - count) / 10)
    assert view.n_variants == 2
    x[:count] = np.nan
    assert Genotypes.from_array(x).select(max_missing=count / 10).n_variants == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": ["i1", "zz"]}, r"1 of 2 selected samples are not there: 'zz'\. Its sample"),
        ({"samples": ["i1", "i2", "i1"]}, r"Samples are selected twice: 'i1'\."),
        ({"samples": []}, r"the selection is empty \(0 samples, 50 variants\)"),
        ({"variants": ["rs1", "rsx"]}, r"1 of 2 selected variants are not there: 'rsx'\. Its var"),
        ({"variants": []}, r"the selection is empty \(37 samples, 0 variants\)"),
        ({"chrom": "x"}, r"no chromosome 'x'\. There are '1', 'X', '2L', 'chr1'\."),
        ({"chrom": []}, r"the selection is empty"),
        ({"chrom": "X", "region": "1:1-100"}, r"the selection is empty"),
        ({"region": "7:1-100"}, r"no chromosome '7'"),
        ({"chrom": ["chrX", "7"]}, r"no chromosome 'chrX', '7'\. .* Did you mean 'X'\?"),
        ({"region": "chr2L"}, r"Did you mean '2L'\?"),
        ({"min_maf": 0.6}, r"min_maf must be between 0 and 0\.5, but is 0\.6"),
        ({"max_missing": -1}, r"max_missing must be between 0 and 1, but is -1"),
        ({"min_maf": 0.5, "max_missing": 0, "chrom": "2L"}, r"none of 5 variants has maf >= 0\.5"),
    ],
)
def test_selections_that_cannot_be(genotypes, options, message):
    with pytest.raises(InputError, match=message):
        genotypes.select(**options)


# -- arrays --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float32, np.float64])
def test_hard_calls_of_any_type_take_a_byte(dtype):
    x = np.array([[0, 1], [1, 0]]).astype(dtype)
    found = Genotypes.from_array(x)
    same(found.to_array(), x)
    assert found._source.dosage.itemsize == 1
    assert not found.labelled
    assert found.samples.index.tolist() == ["0", "1"]


def test_dosages_that_are_not_whole(rng):
    x = rng.uniform(0, 2, size=(8, 5))
    x[2, 3] = np.nan
    found = Genotypes.from_array(x, samples=range(100, 108), variants=list("abcde"))
    same(found.to_array(), x)
    same(found.load().to_array(), x)
    same(found.select(samples=[107, 103], variants=["d"]).to_array(), x[[7, 3], 3:4])
    same(found.qc().n_missing, [0, 0, 0, 1, 0])
    x[:] = 0
    assert found.to_array().any(), "a copy, whatever happens to the array"


@pytest.mark.parametrize(
    ("dosage", "options", "message"),
    [
        (np.zeros(3), {}, "must be a matrix .* but have 1 dimensions"),
        (np.zeros((0, 3)), {}, "0 samples at 3 variants: nothing is there"),
        (np.zeros((3, 0)), {}, "3 samples at 0 variants: nothing is there"),
        (np.array([["A", "G"]]), {}, "must be numbers"),
        ([[0, 1], [2.5, 1]], {}, "sample '1', variant 'snp1' has dosage 2.5; expected 0 to 2"),
        ([[0, -9]], {"samples": ["ann"]}, "sample 'ann', variant 'snp2' has dosage -9"),
        ([[0, np.inf]], {}, "has dosage inf; expected 0 to 2, or NaN for missing"),
        ([[0], [1]], {"samples": ["a"]}, "have 2 rows, but 1 sample ids came"),
        ([[0], [1]], {"samples": ["a", "a"]}, "must be unique; twice there: 'a'"),
        ([[0], [1]], {"variants": ["a", "b"]}, "have 1 columns, but 2 variants are named"),
        ([[0]], {"variants": pd.DataFrame({"rs": ["a"]})}, "needs a column id; it has 'rs'"),
    ],
)
def test_arrays_that_cannot_be(dosage, options, message):
    with pytest.raises(InputError, match=message):
        Genotypes.from_array(dosage, **options)


# -- damaged files -------------------------------------------------------------------------


@pytest.fixture
def files(dosage, tmp_path):
    """A fileset to damage: returns a function that replaces one file and opens the set."""
    write_plink(tmp_path / "x", dosage)

    def damaged(ending, content):
        path = tmp_path / f"x{ending}"
        if callable(content):
            content = content(path.read_bytes())
        path.write_bytes(content)
        return read_genotypes(tmp_path / "x")

    return damaged


def replace_line(number, line):
    def edit(content):
        lines = content.splitlines(keepends=True)
        lines[number - 1 : number] = [line]
        return b"".join(lines)

    return edit


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        (".bed", lambda b: b[:-1], r"x\.bed: 502 bytes, but 50 variants in the .bim and 37 samples "
         r"in the \.fam need 503\. It is truncated, or its \.bim or \.fam belongs to another"),
        (".bed", lambda b: b + b"\0", r"x\.bed: 504 bytes, .* need 503"),
        (".bed", lambda b: b"", r"not a PLINK 1 \.bed file \(it begins with nothing, expected 6c"),
        (".bed", lambda b: gzip.compress(b), r"\(it begins with 1f 8b 08, expected 6c 1b 01\)"),
        (".bed", lambda b: b[:2] + b"\0" + b[3:], r"x\.bed: sample-major or truncated \.bed; "
         r"rewrite it variant-major \(plink --bfile \.\.\. --make-bed"),
        (".bim", lambda b: b[: b.rindex(b"1\trs")], r"503 bytes, but 49 variants in the \.bim"),
        (".bim", b"", r"x\.bim: the file is empty"),
        (".bim", replace_line(7, b"1\trs6\t0\t70\tA\n"),
         r"x\.bim, line 7: 5 columns, expected 6 \(chrom, id, cm, pos, ea, oa\)"),
        (".bim", replace_line(1, b"1\trs6\n"), r"x\.bim, line 1: 2 columns, expected 6"),
        (".bim", replace_line(9, b"\n"), r"x\.bim, line 9: 0 columns"),
        (".bim", replace_line(7, b"1\trs6\t0\tten\tA\tG\n"),
         r"x\.bim, line 7: column pos is 'ten', expected a whole number"),
        (".bim", replace_line(8, b"1\trs6\t0\t10.5\tA\tG\n"), r"line 8: column pos is '10\.5'"),
        (".bim", replace_line(8, b"1\trs6\t0\tinf\tA\tG\n"), r"line 8: column pos is 'inf'"),
        (".bim", replace_line(8, b"1\trs6\t0\tNA\tA\tG\n"), r"line 8: column pos is 'NA'"),
        (".bim", replace_line(8, b"1\trs6\tx\t8\tA\tG\n"), r"column cm is 'x', expected a number"),
        (".bim", replace_line(8, b"1\trs\xff\tx\t8\tA\tG\n"), r"x\.bim: not a text file in UTF-8"),
        (".bim", lambda b: b.decode().encode("utf-16"), r"x\.bim: text in UTF-16"),
        (".fam", lambda b: b.decode().encode("utf-16-le"), r"x\.fam: text in UTF-16"),
        (".fam", lambda b: b[: b.rindex(b"f36")], r"503 bytes, .* 36 samples .* need 453"),
        (".fam", replace_line(3, b"f2 i2 0 0\n"), r"x\.fam, line 3: 4 columns, expected 6 \(fid"),
        (".fam", replace_line(3, b"f1 i1 0 0 1 -9\n"),
         r"x\.fam, line 3: sample FID 'f1' IID 'i1' comes twice"),
    ],
)  # fmt: skip
def test_damaged_files(files, ending, content, message):
    with pytest.raises(InputError, match=message):
        files(ending, content)


@pytest.mark.parametrize("ending", [".bed", ".bim", ".fam"])
def test_absent_files(dosage, tmp_path, ending):
    write_plink(tmp_path / "x", dosage)
    (tmp_path / f"x{ending}").unlink()
    with pytest.raises(InputError, match=rf"x\{ending}: no such file"):
        bl.read_genotypes(tmp_path / "x")


def test_bed_cut_or_removed_while_it_is_open(dosage, tmp_path):
    opened = read_genotypes(write_plink(tmp_path / "x", dosage))
    (tmp_path / "x.bed").write_bytes(bed_bytes(dosage)[:100])
    with pytest.raises(InputError, match=r"x\.bed: reading failed"):
        opened.to_array()
    (tmp_path / "x.bed").unlink()
    with pytest.raises(InputError, match=r"x\.bed: reading failed"):
        opened.select(chrom="1").load()
