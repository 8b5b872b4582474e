"""The same small cohort in every format: tests/golden/formats, made by plink2."""

import builtins
import gzip
import json
import shutil
import sqlite3
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import bayeslmm as bl
from bayeslmm import cli
from bayeslmm.errors import InputError
from bayeslmm.inputs.genotype_files import locate
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes, read_genotypes

N, M = 61, 132
CALLS = ["calls.bed", "calls.pgen", "calls8.bgen", "calls.vcf.gz", "calls.bcf", "calls.vcz"]
# largest step between two values that the format can hold; plink2 writes DS with six digits,
# and .pgen (from which it made the others) holds multiples of 2^-14, rounded
PRECISION = {
    "doses.vcf.gz": 1e-6,
    "doses.pgen": 2**-15 + 1e-6,
    "doses16.bgen": 2**-15 + 1 / 65535,
    "doses.bcf": 2**-15 + 1e-6,
    "doses12z.bgen": 2**-15 + 1 / 4095,
    "doses8.bgen": 2**-15 + 1 / 255,
    "doses.vcz": 1e-6,
}
TABLE = ["chrom", "id", "pos", "ea", "oa"]


@pytest.fixture(scope="session")
def formats(golden, tmp_path_factory):
    """The golden files, and two zarr folders, in one place."""
    folder = tmp_path_factory.mktemp("formats")
    for file in filter(Path.is_file, (golden / "formats").iterdir()):
        shutil.copy(file, folder)
    write_zarr(folder / "calls.vcz", *text_of_vcf(folder / "calls.vcf.gz"))
    write_zarr(folder / "doses.vcz", *text_of_vcf(folder / "doses.vcf.gz"), with_ds=True)
    return folder


@pytest.fixture(scope="session")
def calls(golden):
    """Dosages (n, m) of calls.bed, decoded here."""
    raw = (golden / "formats" / "calls.bed").read_bytes()[3:]
    codes = np.frombuffer(raw, np.uint8).reshape(M, -1)[:, :, None] >> np.array([0, 2, 4, 6]) & 3
    return np.array([2, np.nan, 1, 0])[codes.reshape(M, -1)[:, :N]].T


@pytest.fixture(scope="session")
def doses(formats):
    """Dosages (n, m) as the text of doses.vcf.gz has them."""
    _, _, _, _, values, haploid = text_of_vcf(formats / "doses.vcf.gz")
    return (values * np.where(haploid, 2, 1)).T


def text_of_vcf(path):
    """Samples, site columns, alleles of calls (m, n, 2), ..., read with nothing but Python."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("##")]
    sites = [row[:5] for row in rows[1:]]
    calls = np.full((len(sites), len(rows[0]) - 9, 2), -2)
    values = np.full(calls.shape[:2], np.nan)
    for j, row in enumerate(rows[1:]):
        for i, field in enumerate(row[9:]):
            gt, *ds = field.split(":")
            for a, allele in enumerate(gt.replace("|", "/").split("/")):
                calls[j, i, a] = -1 if allele == "." else int(allele)
            if ds and ds[0] != ".":
                values[j, i] = float(ds[0])
    return rows[0][9:], sites, calls, None, values, calls[:, :, 1] == -2


def write_zarr(path, samples, sites, calls, _, values, haploid, *, with_ds=False):
    """A VCF-Zarr folder with the names, types and missing values of bio2zarr 0.2."""
    contigs = list(dict.fromkeys(site[0] for site in sites))
    arrays = {
        "sample_id": np.array(samples, dtype=np.dtypes.StringDType()),
        "contig_id": np.array(contigs, dtype=np.dtypes.StringDType()),
        "variant_contig": np.array([contigs.index(s[0]) for s in sites], dtype=np.int8),
        "variant_position": np.array([int(s[1]) for s in sites], dtype=np.int32),
        "variant_id": np.array([s[2] for s in sites], dtype=np.dtypes.StringDType()),
        "variant_allele": np.array(
            [[s[3], *s[4].split(",")] for s in sites], dtype=np.dtypes.StringDType()
        ),
        "call_genotype": calls.astype(np.int8),
    }
    if with_ds:
        arrays["call_DS"] = values[:, :, None].astype(np.float32)
    group = zarr.open_group(path, mode="w", zarr_format=2, attributes={"vcf_zarr_version": "0.5"})
    for name, array in arrays.items():
        chunks = (25, 20, *array.shape[2:])[: array.ndim]
        group.create_array(name, data=array, chunks=chunks)


def same(found, expected):
    np.testing.assert_array_equal(found, expected)


# -- the same cohort -------------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.parametrize("name", CALLS)
def test_called_genotypes_are_those_of_the_bed(formats, calls, name):
    found = read_genotypes(formats / name)
    same(found.to_array(), calls)
    same(found.variants[TABLE], read_genotypes(formats / "calls.bed").variants[TABLE])
    assert found.variants.pos.dtype == np.int64
    assert (
        found.samples.index.tolist() == read_genotypes(formats / "calls.bed").samples.index.tolist()
    )
    assert found.labelled
    assert found.name == name.split(".")[0]


@pytest.mark.golden
def test_the_second_allele_of_a_bgen_is_counted(formats, calls):
    """Exported with REF last, REF is the second allele: `ea`, and its copies are counted."""
    found = read_genotypes(formats / "calls16_ref_last.bgen")
    bed = read_genotypes(formats / "calls.bed").variants
    same(found.to_array(), 2 - calls)
    same(found.variants[["ea", "oa"]], bed[["oa", "ea"]])


@pytest.mark.golden
@pytest.mark.parametrize("name", PRECISION)
def test_dosages_are_those_of_the_text(formats, doses, name):
    found = read_genotypes(formats / name)
    x = found.to_array()
    same(np.isnan(x), np.isnan(doses))
    assert np.nanmax(np.abs(x - doses)) <= PRECISION[name]
    assert np.nanmax(np.abs(doses - np.round(doses))) > 0.4, "dosages, not calls"
    same(found.variants[TABLE], read_genotypes(formats / "doses.pgen").variants[TABLE])
    assert (
        found.samples.index.tolist()
        == read_genotypes(formats / "doses.pgen").samples.index.tolist()
    )


@pytest.mark.golden
def test_sample_tables(formats):
    bed, pgen, bgen = (read_genotypes(formats / f).samples for f in CALLS[:3])
    same(pgen[["fid", "iid", "sex"]], bed[["fid", "iid", "sex"]])
    same(bgen[["fid", "iid", "sex"]], bed[["fid", "iid", "sex"]])


def results(genotypes):
    y = np.sin(np.arange(N)) + 0.02 * np.arange(N)
    data = pd.DataFrame({"y": y}, index=genotypes.samples.index)
    K = bl.grm(genotypes)
    lmm = bl.LMM("y ~ 1", data, K)
    return K.matrix, lmm.reml().h2, lmm.scan(genotypes)


@pytest.mark.golden
@pytest.mark.parametrize("name", [*CALLS[1:], "calls16_ref_last.bgen"])
def test_called_genotypes_give_the_same_results(formats, name):
    K, h2, hits = results(read_genotypes(formats / "calls.bed"))
    K_other, h2_other, other = results(read_genotypes(formats / name))
    sign = -1 if "last" in name else 1
    np.testing.assert_allclose(K_other, K, atol=2e-6)  # sums of float32
    np.testing.assert_allclose(h2_other, h2, atol=2e-5)
    np.testing.assert_allclose(sign * other.beta, hits.beta, atol=2e-5)
    np.testing.assert_allclose(other.neg_log10_p, hits.neg_log10_p, atol=2e-5)
    same(other.ea, hits.oa if "last" in name else hits.ea)


@pytest.mark.golden
@pytest.mark.parametrize("name", list(PRECISION)[1:])
def test_dosages_give_the_same_results(formats, name):
    K, h2, hits = results(read_genotypes(formats / "doses.vcf.gz"))
    K_other, h2_other, other = results(read_genotypes(formats / name))
    step = PRECISION[name]
    np.testing.assert_allclose(K_other, K, atol=2e-6 + step)
    np.testing.assert_allclose(h2_other, h2, atol=2e-5 + 2 * step)
    np.testing.assert_allclose(other.beta, hits.beta, atol=2e-5 + 2 * step)
    np.testing.assert_allclose(other.neg_log10_p, hits.neg_log10_p, atol=2e-5 + 20 * step)


@pytest.mark.parametrize("name", [*CALLS, "doses.pgen", "doses8.bgen", "doses.vcf.gz", "doses.vcz"])
def test_selections_and_threads(formats, name, rng):
    genotypes = read_genotypes(formats / name)
    everything = genotypes.to_array()
    order = rng.permutation(N)[:17]
    ids = genotypes.samples.index[order]
    part = genotypes.select(samples=ids, variants=rng.random(M) < 0.4)
    kept = genotypes.variants.id.isin(part.variants.id).to_numpy()
    same(part.to_array(), everything[np.ix_(order, kept)])
    same(genotypes.select(chrom="X").to_array(), everything[:, genotypes.variants.chrom == "X"])
    same(genotypes.load().to_array(), everything)

    def read(seed):
        here = np.random.default_rng(seed)
        start = int(here.integers(M))
        stop = int(here.integers(start + 1, M + 1))
        view = part if seed % 2 else genotypes
        stop, start = min(stop, view.n_variants), min(start, view.n_variants - 1)
        return start, stop, seed % 2, view.dosage(start, stop).T

    with ThreadPoolExecutor(4) as pool:
        for start, stop, odd, found in pool.map(read, range(60)):
            full = everything[np.ix_(order, kept)] if odd else everything
            same(found, full[:, start:stop])


def test_rows_in_any_order(formats, calls, rng):
    """A source reads positions in the order that they are asked for."""
    rows = rng.permutation(M)[:40]
    for name in CALLS:
        genotypes = read_genotypes(formats / name)
        raw = genotypes._source.read(rows, None).astype(float)
        same(np.where(raw == -9, np.nan, raw), calls.T[rows])


# -- which format ----------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["c", "c.pvar", "c.psam", "c.pgen"])
def test_prefix_and_tables_lead_to_the_file(formats, calls, tmp_path, given):
    for ending in ("pgen", "pvar", "psam"):
        shutil.copy(formats / f"calls.{ending}", tmp_path / f"c.{ending}")
    assert [f.name for f in locate(tmp_path / given).files] == ["c.pgen", "c.pvar", "c.psam"]
    same(read_genotypes(tmp_path / given).to_array(), calls)


@pytest.mark.parametrize("name", CALLS[2:])
def test_prefix_of_every_format(formats, tmp_path, name):
    ending = name[name.index(".") :]
    copy = shutil.copytree if ending == ".vcz" else shutil.copy
    copy(formats / name, tmp_path / f"c{ending}")
    if ending == ".bgen":
        shutil.copy(formats / "calls8.sample", tmp_path / "c.sample")
    assert read_genotypes(tmp_path / "c").shape == (N, M)
    if ending == ".bgen":
        assert read_genotypes(tmp_path / "c.sample").shape == (N, M)


def test_an_ambiguous_prefix_is_refused(formats):
    with pytest.raises(InputError, match=r"several genotype files have this name \(.*Name one"):
        read_genotypes(formats / "calls")
    shutil.copy(formats / "calls.pvar", formats / "calls_z.pvar")
    shutil.copy(formats / "calls.pgen", formats / "calls_z.pgen")
    with pytest.raises(InputError, match=r"two tables of variants .*Remove one"):
        read_genotypes(formats / "calls_z.pgen")
    (formats / "calls_z.pvar").unlink()
    (formats / "calls_z.pgen").unlink()


def test_content_decides_and_not_the_name(formats, tmp_path, calls):
    shutil.copy(formats / "calls.vcf.gz", tmp_path / "genotypes.txt")
    same(read_genotypes(tmp_path / "genotypes.txt").to_array(), calls)
    shutil.copy(formats / "calls.bcf", tmp_path / "c.bed")
    same(read_genotypes(tmp_path / "c.bed").to_array(), calls)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"FID IID\n", r"x\.txt: no genotype file .* it begins with 46 49 44 20"),
        ("x.txt", b"", r"begins with nothing"),
        ("x.vcf.gz", gzip.compress(b"hello", mtime=0), r"x\.vcf\.gz: no genotype file"),
        ("x.pgen", b"hello", r"its table of variants is absent: no such file .*x\.pvar or"),
        ("x.bgen", b"hello", r"not a \.bgen file"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_genotypes(tmp_path / name)


def test_paths_that_lead_nowhere(tmp_path, formats):
    with pytest.raises(InputError, match=r"nowhere: no such file, nor one with \.bed, \.pgen"):
        read_genotypes(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"nowhere\.vcf\.gz: no such file"):
        read_genotypes(tmp_path / "nowhere.vcf.gz")
    (tmp_path / "x.vcz").mkdir()
    with pytest.raises(InputError, match=r"a folder, but no zarr store"):
        read_genotypes(tmp_path / "x.vcz")
    with pytest.raises(InputError, match=r"a sample file belongs to a \.bgen only"):
        read_genotypes(formats / "calls.bed", sample_file=formats / "calls8.sample")


# -- PLINK 2 ---------------------------------------------------------------------------------


def test_compressed_pvar(formats, calls, tmp_path):
    for new, old in (
        ("pgen", "calls.pgen"),
        ("psam", "calls.psam"),
        ("pvar.zst", "calls_z.pvar.zst"),
    ):
        shutil.copy(formats / old, tmp_path / f"z.{new}")
    for name in ("z", "z.pvar.zst"):
        found = read_genotypes(tmp_path / name)
        same(found.to_array(), calls)
        same(found.variants, read_genotypes(formats / "calls.pgen").variants)
    (tmp_path / "z.pvar.zst").write_bytes((tmp_path / "z.pvar.zst").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"z\.pvar\.zst: (no zstd file|truncated)"):
        read_genotypes(tmp_path / "z")


def test_pgen_with_bim_and_fam(formats, calls, tmp_path):
    for ending in ("pgen", "bim", "fam"):
        shutil.copy(formats / f"calls.{ending}", tmp_path / f"b.{ending}")
    same(read_genotypes(tmp_path / "b.pgen").to_array(), calls)
    same(read_genotypes(tmp_path / "b.fam").to_array(), calls)


def test_tables_without_headers(formats, calls, tmp_path):
    shutil.copy(formats / "calls.pgen", tmp_path / "b.pgen")
    shutil.copy(formats / "calls.bim", tmp_path / "b.pvar")
    shutil.copy(formats / "calls.fam", tmp_path / "b.psam")
    found = read_genotypes(tmp_path / "b")
    same(found.to_array(), calls)
    same(found.variants[TABLE], read_genotypes(formats / "calls.bed").variants[TABLE])
    five = [line.split("\t") for line in (formats / "calls.bim").read_text().splitlines()]
    (tmp_path / "b.pvar").write_text("".join("\t".join(x[:2] + x[3:]) + "\n" for x in five))
    same(read_genotypes(tmp_path / "b").variants[TABLE], found.variants[TABLE])


@pytest.mark.parametrize(
    ("ending", "change", "message"),
    [
        ("pgen", lambda b: b[:-1], r"truncated or damaged: 2,220 bytes, but its header describes"),
        ("pgen", lambda b: b + b"\0", r"2,222 bytes, but its header describes 2,221"),
        ("pgen", lambda b: b[:40], r"its header is cut off"),
        ("pgen", lambda b: b[:5], r"c\.pgen: truncated, 5 bytes"),
        ("pgen", lambda b: b[:2] + b"\x21" + b[3:], r"storage mode 0x21 .*--make-pgen"),
        ("pgen", lambda b: b[:3] + b"\xff\xff\xff\xff" + b[7:], r"4,294,967,295 variants, but 132"),
        ("pgen", lambda b: b[:7] + b"\xff" + b[8:], r"255 samples, but 61 in .*c\.psam"),
        ("pvar", lambda b: b"\n".join(b.split(b"\n")[:-2]), r"132 variants, but 131 in .*c\.pvar"),
        ("pvar", lambda b: b.replace(b"3197400", b"3197400.5"), r"c\.pvar, line \d+: column POS"),
        ("pvar", lambda b: b.replace(b"\tALT", b"\tOLD"), r"c\.pvar: no column 'ALT'; it has"),
        ("pvar", lambda b: b.replace(b"ID\tREF", b"ID\tID"), r"a column comes twice in the head"),
        ("pvar", lambda b: b.split(b"\n")[0] + b"\n", r"a header and nothing below it|no column"),
        ("pvar", lambda b: b.replace(b"#CHROM", b"#CHR"), r"begins with #CHR, expected #CHROM"),
        ("pvar", lambda b: b"\xff" + b, r"c\.pvar: not a text file"),
        ("pvar", lambda b: b + b"1\t5\n", r"c\.pvar, line \d+: fewer columns than the header"),
        ("psam", lambda b: b + b.splitlines()[1] + b"\n", r"line 63: sample FID .* comes twice"),
        ("psam", lambda b: b.replace(b"IID", b"NAME"), r"c\.psam: no column 'IID'"),
    ],
)  # fmt: skip
def test_damaged_plink2_files(formats, tmp_path, ending, change, message):
    for part in ("pgen", "pvar", "psam"):
        raw = (formats / f"calls.{part}").read_bytes()
        (tmp_path / f"c.{part}").write_bytes(change(raw) if part == ending else raw)
    with pytest.raises(InputError, match=message):
        read_genotypes(tmp_path / "c.pgen")


HAND = {  # copies of each alternate allele of multi.vcf, counted by hand
    "one": [0, 1, 2, np.nan, 1, 1],
    "two:C": [1, 0, 1, 0, np.nan, 2],
    "two:T": [0, 1, 1, 2, np.nan, 0],
    "1:30:G:A": [0, 1, 2, np.nan, 1, 0],
    "four:A": [0, 0, 1, 0, 0, np.nan],
    "four:C": [0, 0, 1, 1, 0, np.nan],
    "four:T": [1, 2, 0, 0, 0, np.nan],
    "five": [0, 1, 2, np.nan, 1, 0],
}


@pytest.mark.golden
@pytest.mark.parametrize("name", ["multi.vcf", "multi.pgen", "multi.vcz"])
def test_several_alternate_alleles_are_one_row_each(formats, name, tmp_path):
    if name == "multi.vcz":
        packed = tmp_path / "multi.vcf.gz"
        packed.write_bytes(gzip.compress((formats / "multi.vcf").read_bytes()))
        samples, sites, calls, *rest = text_of_vcf(packed)
        most = max(len(site[4].split(",")) for site in sites)
        padded = [[*s[:4], s[4] + "," * (most - len(s[4].split(",")))] for s in sites]
        write_zarr(formats / name, samples, padded, calls, *rest)
    found = read_genotypes(formats / name)
    assert found.variants.id.tolist() == list(HAND)
    same(found.to_array().T, np.array(list(HAND.values())))
    assert found.variants.ea.tolist() == ["C", "C", "T", "A", "A", "C", "T", "GA"]
    assert found.variants.oa.tolist() == ["A", "A,T", "A,C", "G", "G,C,T", "G,A,T", "G,A,C", "G"]
    some = found.select(variants=["four:T", "two:T", "five"], samples=["e", "a", "c"])
    same(some.to_array(), np.array([HAND[i] for i in ("two:T", "four:T", "five")]).T[[4, 0, 2]])


def test_a_pvar_that_hides_alleles_is_refused(formats, tmp_path):
    for ending in ("pgen", "psam"):
        shutil.copy(formats / f"multi.{ending}", tmp_path)
    text = (formats / "multi.pvar").read_text().replace("A,C,T", "A").replace("C,T", "C")
    (tmp_path / "multi.pvar").write_text(text)
    with pytest.raises(InputError, match=r"several alternate alleles, .*multi\.pvar has none"):
        read_genotypes(tmp_path / "multi.pgen")


# -- BGEN ------------------------------------------------------------------------------------


def bgen_bytes(records, ids, *, compression=1, layout=2, embedded=True, first_bytes=b"bgen"):
    """A .bgen of (varid, rsid, chrom, pos, alleles, ploidy, missing, phased, bits, values)."""
    names = b"".join(struct.pack("<H", len(i)) + i.encode() for i in ids)
    block = struct.pack("<II", 8 + len(names), len(ids)) + names if embedded else b""
    flags = compression | layout << 2 | embedded << 31
    head = struct.pack("<III", 20, len(records), len(ids)) + first_bytes + struct.pack("<I", flags)
    body = b""
    for varid, rsid, chrom, pos, alleles, ploidy, missing, phased, bits, values in records:
        for text in (varid, rsid, chrom):
            body += struct.pack("<H", len(text)) + text.encode()
        body += struct.pack("<IH", pos, len(alleles))
        for allele in alleles:
            body += struct.pack("<I", len(allele)) + allele.encode()
        stream = "".join(format(int(v), f"0{bits}b")[::-1] for v in values)
        stream += "0" * (-len(stream) % 8)
        packed = bytes(int(stream[i : i + 8][::-1], 2) for i in range(0, len(stream), 8))
        data = struct.pack("<IHBB", len(ids), len(alleles), min(ploidy), max(ploidy))
        data += bytes(p | 128 * m for p, m in zip(ploidy, missing, strict=True))
        data += bytes([phased, bits]) + packed
        if compression:
            data = struct.pack("<I", len(data)) + zlib.compress(data)
        body += struct.pack("<I", len(data)) + data
    return struct.pack("<I", 20 + len(block)) + head + block + body


def probabilities(rng, size, bits):
    """`size` whole numbers that, with the one left out, sum to 2^bits - 1."""
    cuts = np.sort(rng.integers(0, 2**bits, size))
    return np.diff(np.concatenate([[0], cuts])).tolist(), int(2**bits - 1 - cuts[-1])


@pytest.mark.algebra
@settings(max_examples=60, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1), bits=st.integers(1, 32), k=st.integers(2, 4),
    phased=st.booleans(), compression=st.integers(0, 1), mixed=st.booleans(),
)  # fmt: skip
def test_bgen_dosages_are_expected_copies(
    tmp_path_factory, seed, bits, k, phased, compression, mixed
):
    """Each dosage is the sum over genotypes of probability x copies, written out."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    ploidy = rng.integers(1, 3, n).tolist() if mixed else [2] * n
    missing = (rng.random(n) < 0.2).tolist()
    top, values, expected = 2**bits - 1, [], np.zeros((n, k - 1))
    for i in range(n):
        if phased:
            for _ in range(ploidy[i]):
                stored, last = probabilities(rng, k - 1, bits)
                values += stored
                expected[i] += np.array([*stored, last])[1:] / top
        else:
            pairs = [(a, b) for b in range(k) for a in range(b + 1)]
            genotypes = [(a,) for a in range(k)] if ploidy[i] == 1 else pairs
            stored, last = probabilities(rng, len(genotypes) - 1, bits)
            values += stored
            for p, genotype in zip([*stored, last], genotypes, strict=True):
                for allele in genotype:
                    if allele:
                        expected[i, allele - 1] += p / top
        expected[i] *= 2 / ploidy[i]
        expected[i] = np.nan if missing[i] else expected[i]
    alleles = ["A", "C", "G", "T"][:k]
    record = ("v", "rs1", "1", 7, alleles, ploidy, missing, int(phased), bits, values)
    path = tmp_path_factory.mktemp("bgen") / "x.bgen"
    path.write_bytes(bgen_bytes([record], [f"i{i}" for i in range(n)], compression=compression))
    found = read_genotypes(path)
    assert found.variants.ea.tolist() == alleles[1:]
    np.testing.assert_allclose(found.to_array(), expected, atol=3e-7)


def small_bgen(**more):
    records = [
        ("a", "rs1", "1", 10, ["A", "C"], [2, 2], [0, 0], 0, 8, [255, 0, 0, 51]),
        ("b", ".", "2", 20, ["A", "C"], [2, 2], [0, 1], 0, 8, [0, 255, 0, 0]),
    ]
    return bgen_bytes(records, ["i1", "i2"], **more)


def write_index(path, bgen, records):
    with sqlite3.connect(path) as base:
        base.execute(
            "CREATE TABLE Variant (chromosome TEXT NOT NULL, position INT NOT NULL, rsid TEXT NOT "
            "NULL, number_of_alleles INT NOT NULL, allele1 TEXT NOT NULL, allele2 TEXT NULL, "
            "file_start_position INT NOT NULL, size_in_bytes INT NOT NULL)"
        )
        base.executemany("INSERT INTO Variant VALUES (?,?,?,?,?,?,?,?)", records)
    base.close()


def index_of(genotypes, path):
    starts = [*genotypes._source._starts.tolist(), path.stat().st_size]
    return [
        (v.chrom, v.pos, v.id, 2, v.oa, v.ea, starts[j], starts[j + 1] - starts[j])
        for j, v in enumerate(genotypes.variants.itertuples())
    ]


def test_bgen_index(formats, tmp_path, calls, monkeypatch):
    path = tmp_path / "c.bgen"
    shutil.copy(formats / "calls8.bgen", path)
    shutil.copy(formats / "calls8.sample", tmp_path / "c.sample")
    walked = read_genotypes(path)
    rows = index_of(walked, path)
    index = tmp_path / "c.bgen.bgi"
    write_index(index, path, rows[::-1])
    assert [f.name for f in locate(index).files] == ["c.bgen", "c.sample", "c.bgen.bgi"]

    def no_walk(header):
        raise AssertionError("the file was walked through")

    monkeypatch.setattr("bayeslmm.inputs.bgen_files._walk", no_walk)
    found = read_genotypes(index)
    same(found.to_array(), calls)
    same(found.variants, walked.variants)
    for wrong in (rows[:-1], [(*r[:6], r[6] + 1, r[7]) for r in rows]):
        index.unlink()
        write_index(index, path, wrong)
        with pytest.raises(InputError, match=r"c\.bgen\.bgi: does not describe .*bgenix -index"):
            read_genotypes(path)
    index.write_bytes(b"no data base, but long enough to be taken for one" * 40)
    with pytest.raises(InputError, match=r"not an index made by bgenix"):
        read_genotypes(path)


def test_bgen_ids_of_variants_and_samples(tmp_path):
    path = tmp_path / "x.bgen"
    path.write_bytes(small_bgen())
    found = read_genotypes(path)
    assert found.variants.id.tolist() == ["rs1", "b"], "the first id where there is no rsid"
    assert found.samples.index.tolist() == ["i1", "i2"]
    np.testing.assert_allclose(found.to_array(), [[0, 1], [1.8, np.nan]], atol=1e-7)
    path.write_bytes(small_bgen(embedded=False))
    with pytest.raises(InputError, match=r"has no sample ids, and x\.sample is not beside it"):
        read_genotypes(path)
    named = tmp_path / "other.sample"
    named.write_text("ID_1 ID_2 missing sex\n0 0 0 D\nf j1 0 1\nf j2 0 NA\n")
    found = read_genotypes(path, sample_file=named)
    assert found.samples.loc["j2"].tolist() == ["f", "j2", "0"]
    path.write_bytes(small_bgen())
    with pytest.raises(InputError, match=r"sample 1 is 'i1', but 'j1' in .*other\.sample"):
        read_genotypes(path, sample_file=named)
    named.write_text("ID_1 ID_2 missing\n0 0 0\nf i1 0\n")
    with pytest.raises(InputError, match=r"2 samples, but 1 in .*other\.sample"):
        read_genotypes(path, sample_file=named)
    named.write_text("ID_1 ID_2 missing\n0 0 0\nf i1\n")
    with pytest.raises(InputError, match=r"line 3: 2 columns, but the header has 3"):
        read_genotypes(path, sample_file=named)
    named.write_text("FID IID\nf i1\nf i2\n")
    with pytest.raises(InputError, match=r"not a \.sample file"):
        read_genotypes(path, sample_file=named)


def patched(raw, at, new):
    return raw[:at] + new + raw[at + len(new) :]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (small_bgen(layout=1), r"BGEN 1\.1 \(layout 1\); layout 2 is read .*--export bgen-1\.2"),
        (small_bgen(layout=5), r"unknown layout 5"),
        (small_bgen(compression=0)[:-1], r"'\.' goes beyond the file's|'b' goes beyond the file's"),
        (small_bgen() + b"\0", r"1 bytes follow the last of 2 variants"),
        (patched(small_bgen(), 8, b"\xff\xff\xff\xff"), r"4,294,967,295 variants cannot be in"),
        (patched(small_bgen(), 12, b"\xff\xff\xff\xff"), r"expected 4,294,967,295 in at most"),
        (patched(small_bgen(), 4, b"\xff\xff\xff\xff"), r"header of 4,294,967,295"),
        (small_bgen()[:20], r"not a \.bgen file"),
        (bgen_bytes([("a", "r", "1", 1, ["A", "C"], [3], [0], 0, 8, [9, 9, 9])], ["i"]),
         r"variant 'r': ploidy 3; only haploid and diploid"),
        (bgen_bytes([("a", "r", "1", 1, ["A", "C"], [2], [0], 0, 8, [200, 100])], ["i"]),
         r"variant 'r': the probabilities of sample 1 sum to more than 1"),
        (bgen_bytes([("a", "r", "1", 1, ["A", "C"], [2], [0], 0, 16, [60000, 6000])], ["i"]),
         r"variant 'r': the probabilities of sample 1 sum to more than 1"),
        (bgen_bytes([("a", "r", "1", 1, ["A", "C"], [2], [0], 0, 5, [30, 30])], ["i"]),
         r"variant 'r': the probabilities of sample 1 sum to more than 1"),
        (bgen_bytes([("a", "r", "1", 1, ["A", "C"], [2], [0], 0, 8, [9])], ["i"]),
         r"variant 'r': damaged: 1 bytes of probabilities, expected 2"),
        (bgen_bytes([("a", "r", "1", 1, ["A"], [2], [0], 0, 8, [9])], ["i"]), r"has 1 alleles"),
        (bgen_bytes([("a", "r", "1", 1, ["A", "C,T"], [2], [0], 0, 8, [9, 9])], ["i"]),
         r"allele with a comma"),
    ],
)  # fmt: skip
def test_damaged_bgen(tmp_path, raw, message):
    path = tmp_path / "x.bgen"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=message):
        read_genotypes(path).to_array()


# -- VCF -------------------------------------------------------------------------------------

HEADER = (
    "##fileformat=VCFv4.3\n##contig=<ID=1>\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="">\n'
    '##FORMAT=<ID=DS,Number=A,Type=Float,Description="">\n'
)
GP = '##FORMAT=<ID=GP,Number=G,Type=Float,Description="">\n'
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ta\tb\tc\n"


def vcf(tmp_path, *rows, header=HEADER):
    path = tmp_path / "x.vcf"
    lines = "".join("1\t5\trs1\t" + row.replace(" ", "\t") + "\n" for row in rows)
    path.write_text(header + COLUMNS + lines)
    return path


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("A C . . . GT 0/1 1 ./1", [1, 2, np.nan]),
        ("A C . . . GT:DS 0/1:0.7 1/1:. ./.:1.5", [0.7, 2, 1.5]),
        ("A C . . . GT:DS 0:0.5 1:. .:.", [1, 2, np.nan]),
        ("A C . . . DS 0.5 . 2", [0.5, np.nan, 2]),
        ("A . . . . GT 0/0 0/0 ./.", [0, 0, np.nan]),
    ],
)
def test_fields_of_a_vcf(tmp_path, row, expected):
    found = read_genotypes(vcf(tmp_path, row))
    np.testing.assert_allclose(found.to_array()[:, 0], expected, atol=1e-7)
    assert found.variants.ea[0] == row.split()[1]


def test_probabilities_of_a_vcf(tmp_path):
    head = HEADER.replace("ID=DS,Number=A", "ID=XX,Number=1") + GP
    rows = (
        "A C . . . GT:GP 0/0:0.5,0.3,0.2 0/1:. 1/1:0,0,1",
        "A C . . . GT:GP 0:0.8,0.2 0/1:0,1,0 ./.:.",
        "A C,T . . . GT:GP 0/0:0.1,0.2,0.3,0.1,0.1,0.2 2/2:. ./.:0,0,0,0,0,1",
    )
    x = read_genotypes(vcf(tmp_path, *rows, header=head)).to_array().T
    expected = [[0.7, 1, 2], [0.4, 1, np.nan], [0.2 + 0.6 + 0.1, 0, 0], [0.1 + 0.1 + 0.4, 2, 2]]
    np.testing.assert_allclose(x, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "A C . . . GT 0/2 0/0 0/0",
            r"x\.vcf, 1:5 'rs1': a genotype names allele 2, but there are 2",
        ),
        ("A C . . . GT 0/0/1 0/0/0 0/0/0", r"'rs1': a call of more than two alleles"),
        ("A C . . . GT:DS 0/0:2.5 0/0:0 0/0:0", r"'rs1': dosage 2\.5; expected 0 to 2"),
        ("A C,T . . . GT:DS 0/0:2 0/0:0 0/0:0", r"'rs1': DS of shape \(3, 1\), expected one for"),
        ("A C . . . XX 5 5 5", r"'rs1': has no genotypes \(GT or DS\)"),
    ],
)
def test_vcf_records_that_are_refused(tmp_path, row, message, capfd):
    extra = '##FORMAT=<ID=XX,Number=1,Type=Float,Description="">\n'
    with pytest.raises(InputError, match=message):
        read_genotypes(vcf(tmp_path, row, header=HEADER + extra))


def test_vcf_files_that_are_refused(formats, tmp_path):
    raw = (formats / "calls.vcf.gz").read_bytes()
    path = tmp_path / "x.vcf.gz"
    path.write_bytes(raw[:-28])
    with pytest.raises(InputError, match=r"x\.vcf\.gz: truncated"):
        read_genotypes(path)
    with pytest.raises(InputError, match=r"x\.vcf: has a header and no variants"):
        read_genotypes(vcf(tmp_path))
    (tmp_path / "x.vcf").write_text(
        HEADER + COLUMNS.split("\tFORMAT")[0] + "\n1\t1\t.\tA\tC\t.\t.\t.\n"
    )
    with pytest.raises(InputError, match=r"has no samples, only sites"):
        read_genotypes(tmp_path / "x.vcf")


def test_vcf_dosages_are_kept_in_a_file(formats, monkeypatch):
    found = read_genotypes(formats / "calls.vcf.gz")
    assert isinstance(found._source.dosage, np.memmap)
    assert found._source.dosage.dtype == np.int8
    monkeypatch.setattr("tempfile.tempdir", "/dev/null/nowhere")
    with pytest.raises(InputError, match=r"cannot be kept in /dev/null/nowhere .*TMPDIR"):
        read_genotypes(formats / "calls.vcf.gz")


# -- arrays ----------------------------------------------------------------------------------


def dataset_of(formats, *, dosage=False):
    """A sgkit dataset, with its names and types, of the text of a VCF."""
    samples, sites, calls, _, values, haploid = text_of_vcf(
        formats / ("doses.vcf.gz" if dosage else "calls.vcf.gz")
    )
    contigs = list(dict.fromkeys(s[0] for s in sites))
    variables = {
        "variant_contig": ("variants", [contigs.index(s[0]) for s in sites]),
        "variant_position": ("variants", [int(s[1]) for s in sites]),
        "variant_id": ("variants", [s[2] for s in sites]),
        "variant_allele": (("variants", "alleles"), np.array([s[3:5] for s in sites], dtype="S4")),
        "sample_id": ("samples", samples),
    }
    if dosage:
        twice = values * np.where(haploid, 2, 1)
        variables["call_dosage"] = (("variants", "samples"), twice.astype(np.float32))
    else:
        variables["call_genotype"] = (("variants", "samples", "ploidy"), calls.astype(np.int8))
    return xr.Dataset(variables, attrs={"contigs": contigs})


@pytest.mark.parametrize("lazy", [False, True])
def test_sgkit_datasets(formats, calls, doses, lazy):
    for dosage, expected in ((False, calls), (True, doses)):
        dataset = dataset_of(formats, dosage=dosage)
        dataset = dataset.chunk({"variants": 20, "samples": 30}) if lazy else dataset
        found = as_genotypes(dataset)
        np.testing.assert_allclose(found.to_array(), expected, atol=1e-6)
        same(found.variants[TABLE], read_genotypes(formats / "calls.pgen").variants[TABLE])
        assert found.samples.index.tolist() == dataset.sample_id.to_numpy().tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("sample_id"), r"dataset: no array 'sample_id'\. A VCF-Zarr folder"),
        (lambda d: d.drop_vars("call_genotype"), r"no array 'call_genotype'"),
        (lambda d: d.drop_attrs(), r"neither an array contig_id nor an attribute contigs"),
        (lambda d: d.assign(variant_contig=d.variant_contig + 9), r"points outside of 6 contigs"),
        (lambda d: d.assign(call_genotype=d.call_genotype + 1), r"names allele 2, but there are 2"),
        (lambda d: d.assign(call_genotype=d.call_genotype * 1.0), r"holds float64 of 3 dimensions"),
        (lambda d: d.assign(sample_id=("samples", ["a"] * N)), r"must be unique; twice there: 'a'"),
    ],
)  # fmt: skip
def test_datasets_that_are_refused(formats, change, message):
    with pytest.raises(InputError, match=message):
        Genotypes.from_dataset(change(dataset_of(formats))).to_array()


def test_a_chunk_is_decoded_once(formats, monkeypatch):
    """Small pieces do not decode a chunk of the store again and again."""
    found = read_genotypes(formats / "calls.vcz")
    count, chunk = [], found._source._chunk
    monkeypatch.setattr(found._source, "_chunk", lambda *a: count.append(a) or chunk(*a))
    for start in range(0, M, 4):
        found.dosage(start, min(start + 4, M))
    assert count == [(s, min(s + 25, M)) for s in range(0, M, 25)]


def test_damaged_zarr_folder(formats, tmp_path):
    shutil.copytree(formats / "calls.vcz", tmp_path / "x.vcz")
    part = next(p for p in (tmp_path / "x.vcz" / "call_genotype").rglob("*") if p.name == "2.1.0")
    part.write_bytes(part.read_bytes()[:3])
    opened = read_genotypes(tmp_path / "x.vcz")
    opened.dosage(0, 25)
    with pytest.raises(InputError, match=r"x\.vcz: variants 50 to 75 cannot be read"):
        opened.to_array()


def test_dask_arrays(calls):
    import dask.array as da

    lazy = da.from_array(calls, chunks=(40, 30))
    found = Genotypes.from_array(lazy, samples=[f"i{i}" for i in range(N)])
    same(found.to_array(), calls)
    same(found.select(samples=["i5", "i2"]).to_array(), calls[[5, 2]])
    same(bl.grm(found).matrix, bl.grm(Genotypes.from_array(calls)).matrix)
    wrong = Genotypes.from_array(da.from_array(np.array([[0, 1], [1, 3.5]]), chunks=1))
    with pytest.raises(InputError, match=r"Dask array, variant 1: dosage 3\.5; expected 0 to 2"):
        wrong.to_array()


def test_arrays_keep_their_precision(rng):
    x = rng.uniform(0, 2, (5, 7))
    assert Genotypes.from_array(x.astype(np.float32))._source.dosage.dtype == np.float32
    same(Genotypes.from_array(x).to_array(), x)
    x[:, :4] = np.round(x[:, :4])
    x[1, 2] = np.nan
    same(Genotypes.from_array(x).to_array(), x)


def test_large_arrays_are_checked_in_pieces(monkeypatch):
    """Whole numbers in the first pieces, broken ones in a later one."""
    monkeypatch.setattr("bayeslmm.inputs.genotypes._CHECKED_AT_ONCE", 20)
    x = np.zeros((20, 5))
    x[3, 1], x[4, 4], x[5, 0] = np.nan, 0.5, 2
    found = Genotypes.from_array(x)
    assert found._source.dosage.dtype == np.float64
    same(found.to_array(), x)
    x[7, 3] = 2.5
    with pytest.raises(InputError, match=r"sample '7', variant 'snp4' has dosage 2\.5"):
        Genotypes.from_array(x)


# -- libraries that are not installed --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("calls.vcf.gz", "cyvcf2", "vcf"),
        ("calls.vcz", "zarr", "zarr"),
        ("doses12z.bgen", "zstandard", "bgen"),
        ("z.pgen", "zstandard", "zstd"),
    ],
)
def test_a_missing_library_says_how_to_install_it(formats, monkeypatch, name, library, extra):
    for new, old in (
        ("pgen", "calls.pgen"),
        ("psam", "calls.psam"),
        ("pvar.zst", "calls_z.pvar.zst"),
    ):
        shutil.copy(formats / old, formats / f"z.{new}")
    real = builtins.__import__

    def without(wanted, *args, **kwargs):
        if wanted.split(".")[0] == library:
            raise ImportError(wanted)
        return real(wanted, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"needs {library}: pip install 'bayeslmm\[{extra}\]'"):
        read_genotypes(formats / name).to_array()


def test_a_cluster_needs_distributed(rng, monkeypatch):
    x = rng.binomial(2, 0.4, (30, 8)).astype(float)
    model = bl.LMM("y ~ 1", pd.DataFrame({"y": rng.normal(size=30)}), kernel=None)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'bayeslmm\[distributed\]'"):
        bl.scan(model, x, client=object())


# -- command line ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["calls.pgen", "calls.vcz"])
def test_the_command_line_takes_every_format(formats, tmp_path, name):
    matrices = []
    for form in ("calls.bed", name):
        out = tmp_path / form.replace(".", "_")
        result = CliRunner().invoke(cli.app, ["grm", str(formats / form), "--out", str(out)])
        assert result.exit_code == 0, result.output
        matrices.append(out.with_suffix(".grm.bin").read_bytes())
        inputs = json.loads(out.with_suffix(".json").read_text())["inputs"]
        assert list(inputs) == [str(file) for file in locate(formats / form).files]
    same(*(np.frombuffer(matrix, "<f4") for matrix in matrices))
