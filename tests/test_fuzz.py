"""Damaged files: the readers say so, in one InputError, and nothing worse happens.

The C libraries that read .pgen and VCF are run in processes of their own (tests/fuzz.py), which
a crash would end; longer campaigns are run by hand with the same file.
"""

import contextlib
import gzip
import shutil
import sqlite3
import struct
import subprocess
import sys

import fuzz
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bayeslmm as bl
from bayeslmm.commands import partition as commands_partition
from bayeslmm.commands import shared
from bayeslmm.errors import InputError

IN_C = ["pgen", "pgen_dosage", "pgen_multi", "bed", "vcf", "vcf_gz", "bcf", "pvar_zst", "bgen12z"]
QUICK = settings(
    derandomize=True, deadline=None, max_examples=12, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", sorted(set(fuzz.TARGETS) - set(IN_C)))
@QUICK
@given(seed=st.integers(0, 2**32 - 1))
def test_readers_refuse_damaged_files(name, seed):
    fuzz.run(name, seed)


def test_readers_in_c_refuse_damaged_files(tmp_path):
    """No crash, no hang, no allocation beyond what the files justify."""
    note = tmp_path / "note"
    command = [sys.executable, fuzz.__file__, ",".join(IN_C), "0", "12", "--note", str(note)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{note.read_text()}\n{done.stdout}\n{done.stderr[-3000:]}"
    assert done.stdout.count("refused") == len(IN_C)


def test_the_mutations_do_reach_the_readers():
    """Some mutated files are still read: the cases are not all refused at the first byte."""
    assert {fuzz.run("bim", seed) for seed in range(12)} == {"read", "refused"}


# -- what was found --------------------------------------------------------------------------


def refused(read, path, message):
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: b"\t" + line, r"line 7: \d+ columns, expected \d+"),
        (lambda line: line.split(b"\t", 1)[1], r"line 7: \d+ columns, expected \d+"),
        (lambda line: b"\t" + line.split(b"\t", 1)[1], "the first a chromosome"),
        (lambda line: line.replace(b"\t", b"\tx", 1), "and the second a position"),
        (lambda line: line[:-1] + b"\0\n", "line 7"),
    ],
)  # fmt: skip
def test_a_malformed_line_of_a_vcf(tmp_path, change, message):
    """A line without a contig ends the process in htslib."""
    lines = (fuzz.FORMATS / "multi.vcf").read_bytes().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if not line.startswith(b"#"))
    lines = [*lines[:first][-6:], *lines[first:]]
    lines[6] = change(lines[6])
    (tmp_path / "x.vcf").write_bytes(b"".join(lines))
    refused(bl.read_genotypes, tmp_path / "x.vcf", message)


def test_truncated_gzip(tmp_path):
    """Cut within a gzip stream, or in the middle of a line."""
    text = gzip.decompress((fuzz.FORMATS / "doses.vcf.gz").read_bytes())
    packed = gzip.compress(text)
    for name, raw in (("a.vcf.gz", packed[:-300]), ("b.vcf.gz", gzip.compress(text[:-300]))):
        (tmp_path / name).write_bytes(raw)
        refused(bl.read_genotypes, tmp_path / name, "truncated or damaged|columns, expected")
    path = tmp_path / "x.tsv.gz"
    packed = gzip.compress(b"id\ty\n" + b"".join(b"i%d\t%d\n" % (i, i * i) for i in range(900)))
    broken = bytearray(packed)
    broken[len(packed) // 2 :] = b"\xff" * (len(packed) - len(packed) // 2)
    for raw in (packed[:-30], bytes(broken)):
        path.write_bytes(raw)
        refused(bl.read_phenotypes, path, "not a table with a header line")
        refused(shared.read_scan, path, "not a table of bayeslmm scan")
        matrix = tmp_path / "x.cXX.txt.gz"
        matrix.write_bytes(raw)
        refused(bl.read_grm, matrix, "not a matrix of numbers")


def bcf(tmp_path, change):
    """doses.bcf below its compression: header text and records changed."""
    raw = gzip.decompress((fuzz.FORMATS / "doses.bcf").read_bytes())
    (size,) = struct.unpack_from("<I", raw, 5)
    header, records = change(raw[9 : 9 + size], bytearray(raw[9 + size :]))
    path = tmp_path / "x.bcf"
    path.write_bytes(raw[:5] + struct.pack("<I", len(header)) + header + records)
    return path


@pytest.mark.parametrize("contig", [-1, 6, 2**31 - 1])
def test_a_contig_that_a_bcf_does_not_have(tmp_path, contig):
    def change(header, records):
        records[8:12] = struct.pack("<i", contig)
        return header, records

    refused(bl.read_genotypes, bcf(tmp_path, change), f"record 1 is at contig {contig} of 6")


def test_contigs_of_a_bcf_keep_their_numbers(tmp_path):
    """Without contig 2, the ones behind it have the numbers that IDX says."""

    def change(header, records):
        assert struct.unpack_from("<i", records, 8) == (0,)
        return header.replace(b"##contig=<ID=2,IDX=1>\n", b""), records

    path = bcf(tmp_path, change)
    refused(bl.read_genotypes, path, "is at contig 1 of 5")
    whole = bl.read_genotypes(fuzz.FORMATS / "doses.bcf")

    def renumber(header, records):
        header = header.replace(b"##contig=<ID=2,IDX=1>\n", b"##contig=<ID=2,IDX=9>\n")
        at = 0
        while at < len(records):
            shared, individual, number = struct.unpack_from("<IIi", records, at)
            if number == 1:
                records[at + 8 : at + 12] = struct.pack("<i", 9)
            at += 8 + shared + individual
        return header, records

    found = bl.read_genotypes(bcf(tmp_path, renumber))
    assert found.variants.chrom.tolist() == whole.variants.chrom.tolist()
    np.testing.assert_array_equal(found.to_array(), whole.to_array())


def test_ids_and_tables_that_are_no_text(tmp_path):
    latin = "i1\ti\xe9\n".encode("latin-1")
    for name in ("bin", "N.bin", "id"):
        shutil.copy(fuzz.GOLDEN / f"plink2_grm60.grm.{name}", tmp_path / f"k.grm.{name}")
    (tmp_path / "k.grm.id").write_bytes(latin)
    with pytest.raises(InputError, match=r"k\.grm\.id: not a text file \(byte 4 is no UTF-8\)"):
        bl.read_grm(tmp_path / "k")
    path = tmp_path / "x.txt"
    path.write_bytes(latin)
    kernel = bl.grm(np.random.default_rng(1).binomial(2, 0.4, (5, 9)).astype(float))
    refused(lambda p: shared.read_ids(p, kernel), path, "not a text file")
    refused(bl.read_phenotypes, path, "not a table with a header line")
    refused(shared.read_scan, path, "not a table of bayeslmm scan")
    genotypes = bl.Genotypes.from_array(np.eye(4) + 1)
    refused(
        lambda p: commands_partition._annotation(str(p), genotypes), path, "not a table of labels"
    )
    refused(lambda p: bl.sparse_grm(genotypes, pairs=p), path, "not a table of pairs")
    for ending in ("fam", "bim"):
        folder = tmp_path / ending
        folder.mkdir()
        for name in ("bed", "bim", "fam"):
            shutil.copy(fuzz.FORMATS / f"calls.{name}", folder)
        broken = folder / f"calls.{ending}"
        broken.write_bytes(broken.read_bytes().replace(b"\t", b"\t\xe9", 1))
        refused(
            lambda p: bl.read_genotypes(p.with_suffix(".bed")),
            broken,
            "not a text file|can't decode byte 0xe9",
        )


def test_files_that_are_no_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    for raw in (b"", b"id,y\n1,2\n", b"PAR1" + b"\0" * 40 + b"PAR1"):
        path.write_bytes(raw)
        refused(bl.read_phenotypes, path, "not a Parquet file")
        refused(shared.read_scan, path, "not a table of bayeslmm scan")


@pytest.mark.parametrize(
    "error", [KeyError("index_columns"), MemoryError("malloc of size 456059456 failed")]
)
def test_what_is_raised_inside_a_damaged_parquet(tmp_path, monkeypatch, error):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"")

    def raises(path):
        raise error

    monkeypatch.setattr(pd, "read_parquet", raises)
    refused(bl.read_phenotypes, path, f"not a Parquet file .*{error.args[0]}")
    refused(shared.read_scan, path, "not a table of bayeslmm scan")


@pytest.mark.parametrize(
    "change",
    ["position = 'x'", "position = 1.5", "file_start_position = 'x'", "chromosome = x'ff'"],
)
def test_a_bgi_of_other_types(tmp_path, change):
    for name in ("calls8.bgen", "calls8.sample"):
        shutil.copy(fuzz.FORMATS / name, tmp_path)
    bgen = tmp_path / "calls8.bgen"
    fuzz._index(bgen)
    with contextlib.closing(sqlite3.connect(f"{bgen}.bgi")) as base, base:
        base.execute(f"UPDATE Variant SET {change} WHERE position > 50000000")
    if "chromosome" in change:  # not all is in this index: the file itself is asked
        assert set(bl.read_genotypes(bgen).variants.chrom) == {"1", "2", "7", "11", "17", "X"}
    else:
        with pytest.raises(InputError, match=r"calls8\.bgen\.bgi: does not describe"):
            bl.read_genotypes(bgen)


# -- a saved eigenbasis ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    x = np.random.default_rng(3).binomial(2, 0.4, (12, 40)).astype(float)
    genotypes = bl.Genotypes.from_array(x, samples=[f"i{i}" for i in range(12)])
    folder = tmp_path_factory.mktemp("basis") / "b.basis"
    bl.eigenbasis(bl.grm(genotypes)).save(folder)
    return folder


def test_a_basis_edited_by_one_byte_is_refused(saved):
    """Every third byte of basis.json; of the other files the first, the last, and some between."""
    rng = np.random.default_rng(5)
    files = sorted(saved.iterdir())
    assert len(files) == 6
    for file in files:
        raw = file.read_bytes()
        size = len(raw)
        places = {*range(min(size, 12)), size - 1, *rng.integers(0, size, 12).tolist()}
        for at in sorted(places) if file.name != "basis.json" else range(0, size, 3):
            changed = bytearray(raw)
            changed[at] ^= 1 << int(rng.integers(8))
            file.write_bytes(bytes(changed))
            with pytest.raises(InputError, match=r"b\.basis"):
                bl.load_eigenbasis(saved)
        file.write_bytes(raw)
    bl.load_eigenbasis(saved)


@QUICK
@given(seed=st.integers(0, 2**32 - 1))
def test_a_damaged_basis_is_refused(saved, seed):
    rng = np.random.default_rng(seed)
    file = sorted(saved.iterdir())[int(rng.integers(6))]
    raw = file.read_bytes()
    new = fuzz.mutate(raw, rng)
    file.write_bytes(new)
    try:
        if new != raw:
            with pytest.raises(InputError, match=r"b\.basis"):
                bl.load_eigenbasis(saved)
    finally:
        file.write_bytes(raw)


def test_a_basis_folder_without_a_file_is_refused(saved):
    for file in sorted(saved.iterdir()):
        raw = file.read_bytes()
        file.unlink()
        with pytest.raises(InputError, match=r"no such file|not a saved eigenbasis"):
            bl.load_eigenbasis(saved)
        file.write_bytes(raw)
