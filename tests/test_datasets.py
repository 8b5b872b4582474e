import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest

from bayeslmm import datasets
from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import read_genotypes


@pytest.fixture(scope="module")
def mice():
    return datasets.mouse_hs1940()


def test_genotypes(mice):
    assert mice.genotypes.shape == (1940, 12226)
    assert mice.genotypes.chromosomes == [str(c) for c in range(1, 20)]
    dosage = mice.genotypes.to_array()
    assert np.isin(dosage, [0, 1, 2]).all(), "documented: no genotype is missing"
    assert dosage.mean(axis=0).max() <= 1, "documented: A1 is the minor allele"
    constant = np.ptp(dosage, axis=0) == 0
    variants = mice.genotypes.variants
    assert constant.sum() == 1230
    assert (constant == (variants.ea == variants.oa)).all()
    assert (variants.pos == -9).sum() == 1926
    assert variants.set_index("id").loc["mCV22965443", ["chrom", "pos"]].tolist() == ["17", -9]


def test_phenotypes(mice):
    table = mice.phenotypes
    assert list(table.columns) == ["cd8", "mch", "sex", "family"]
    assert table.index.equals(mice.genotypes.samples.index)
    assert table.index.name == "id"
    present = table[["cd8", "mch"]].notna()
    assert present.sum().tolist() == [1410, 1580]
    assert present.all(axis=1).sum() == 1197
    assert table.sex.value_counts().to_dict() == {"M": 993, "F": 947}
    assert table.family.nunique() == 173
    assert table.loc["A048006063", "cd8"] == -0.97454252753557
    assert table.loc["A048006063", "mch"] == -2.33353176490961
    assert table.loc["A048006063", "sex"] == "M"
    assert np.allclose(table[["cd8", "mch"]].mean(), 0, atol=1e-12)


def test_written_files_read_back(mice, tmp_path):
    prefix = datasets.write_mouse_hs1940(tmp_path / "new" / "folder")
    again = read_genotypes(prefix)
    assert (again.to_array() == mice.genotypes.to_array()).all()
    pd.testing.assert_frame_equal(again.variants, mice.genotypes.variants)
    lines = prefix.with_suffix(".pheno.tsv").read_text().splitlines()
    assert lines[0] == "FID\tIID\tcd8\tmch\tsex\tfamily"
    assert len(lines) == 1941
    assert {line.count("\t") for line in lines} == {5}
    table = pd.read_csv(prefix.with_suffix(".pheno.tsv"), sep="\t", dtype={"IID": str})
    pd.testing.assert_frame_equal(
        table.set_index("IID").rename_axis("id")[["cd8", "mch", "family"]],
        mice.phenotypes[["cd8", "mch", "family"]],
        check_exact=True,
    )
    assert table.sex.tolist() == mice.phenotypes.sex.tolist()


def test_existing_files_are_kept_unless_asked(tmp_path):
    (tmp_path / "mouse_hs1940.pheno.tsv").write_text("mine")
    with pytest.raises(InputError, match=r"mouse_hs1940\.pheno\.tsv exists already"):
        datasets.write_mouse_hs1940(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mouse_hs1940.pheno.tsv"]
    datasets.write_mouse_hs1940(tmp_path, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 4
    assert (tmp_path / "mouse_hs1940.pheno.tsv").read_text().startswith("FID\tIID")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed package whose embedded files can be damaged."""
    folder = tmp_path / "data" / "mouse_hs1940"
    folder.mkdir(parents=True)
    for name in datasets.SHA256:
        source = datasets.resources.files("bayeslmm") / "data" / "mouse_hs1940" / name
        (folder / name).write_bytes(source.read_bytes())
    monkeypatch.setattr(datasets.resources, "files", lambda package: tmp_path)
    return folder


def test_damaged_file(installed):
    changed = gzip.compress(b"1\tsnp\t0\t1\tA\tG\n")
    (installed / "mouse_hs1940.bim.gz").write_bytes(changed)
    found = hashlib.sha256(changed).hexdigest()[:12]
    message = (
        rf"mouse_hs1940\.bim\.gz: its SHA-256 is {found}\.\.\., expected 0b3a400e5e9f\.\.\.\. "
        r"The installed package is incomplete or damaged: install bayeslmm again\."
    )
    with pytest.raises(InputError, match=message):
        datasets.mouse_hs1940()


def test_absent_file(installed, tmp_path):
    (installed / "mouse_hs1940.pheno.txt.gz").unlink()
    with pytest.raises(InputError, match=r"pheno\.txt\.gz: no such file\. The installed package"):
        datasets.write_mouse_hs1940(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_repr_names_what_there_is(mice):
    assert "Heterogeneous-stock mice" in repr(mice)
    assert "12,226 variants" in repr(mice)
    assert "cd8: 1,410 present" in repr(mice)
