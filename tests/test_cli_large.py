"""The command line for large cohorts."""

import json

import numpy as np
import pandas as pd
import pytest
from test_cli import names, ok, refused

import bayeslmm as bl


def test_simulate(tmp_path):
    out = tmp_path / "sim"
    options = ["--n", 120, "--m", 80, "--families", 6, "--h2", 0.3, "--seed", 4]
    text = ok("simulate", *options, "--out", out)
    assert "120 samples" in text
    assert "h2 = 0.3" in text
    truth = json.loads((tmp_path / "sim.truth.json").read_text())
    assert truth["seed"] == 4
    cohort = bl.simulate_cohort(None, 120, 80, families=6, h2=0.3, seed=4)
    found = bl.read_genotypes(out)
    assert (found.to_array() == cohort.genotypes.to_array()).all()
    assert "sim.bed exists already" in refused("simulate", *options, "--out", out)
    assert "n=2: at least 3" in refused("simulate", "--n", 2, "--m", 5, "--out", tmp_path / "x")


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Prefix of a cohort of families as PLINK files, with sim.pheno.tsv."""
    prefix = tmp_path_factory.mktemp("families") / "sim"
    bl.simulate_cohort(prefix, 320, 400, families=6, chromosomes=2, seed=3)
    return prefix


def test_sparse_grm_to_h2_and_scan(families, tmp_path):
    printed = ok("grm", families, "--sparse", "--out", tmp_path / "k")
    assert "pairs of 0.05 or more" in printed
    assert names(tmp_path) == ["k.excluded.tsv", "k.grm.id", "k.grm.sp", "k.json"]
    about = json.loads((tmp_path / "k.json").read_text())
    assert about["parameters"]["threshold"] == 0.05
    genotypes = bl.read_genotypes(families)
    expected = bl.sparse_grm(genotypes)
    found = bl.read_sparse_grm(tmp_path / "k")
    assert found.samples.equals(expected.samples)
    assert abs(found.matrix - expected.matrix).max() < 1e-9
    pheno = f"{families}.pheno.tsv"
    model = ("--grm", tmp_path / "k", "--pheno", pheno, "--formula", "y ~ sex + age")
    ok("h2", *model, "--draws", 200, "--out", tmp_path / "h2")
    ok("scan", families, *model, "--out", tmp_path / "scan")
    lmm = bl.LMM("y ~ sex + age", bl.read_phenotypes(pheno), expected)
    assert f"REML says {lmm.reml().h2:.3f}" in (tmp_path / "h2" / "summary.txt").read_text()
    hits = pd.read_csv(tmp_path / "scan" / "scan_y.tsv.gz", sep="\t")
    table = lmm.scan(genotypes)
    assert np.allclose(hits.beta, table.beta, rtol=1e-3, atol=1e-5)
    assert np.allclose(hits.neg_log10_p, table.neg_log10_p, atol=1e-3)


def test_sparse_grm_of_listed_and_of_all_pairs(families, tmp_path):
    ids = bl.read_genotypes(families).samples.index
    pairs = tmp_path / "pairs.txt"
    pairs.write_text(f"#IID1 IID2\n{ids[0]} {ids[1]}\n{ids[0]} {ids[300]}\n")
    ok("grm", families, "--sparse", "--threshold", -1, "--pairs", pairs, "--out", tmp_path / "few")
    assert bl.read_sparse_grm(tmp_path / "few").n_pairs == 2
    inputs = json.loads((tmp_path / "few.json").read_text())["inputs"]
    assert any("pairs.txt" in str(entry) for entry in inputs)
    options = ("--sparse", "--threshold", 0.2, "--pairs", "all", "--scale", "centered")
    ok("grm", families, *options, "--out", tmp_path / "all")
    dense = bl.grm(bl.read_genotypes(families), scale="centered").matrix
    assert bl.read_sparse_grm(tmp_path / "all").n_pairs == (np.triu(dense, 1) >= 0.2).sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", 0.1], "--threshold is of a sparse matrix: add --sparse"),
        (["--pairs", "all"], "--pairs is of a sparse matrix: add --sparse"),
        (["--sparse", "--format", "gemma"], "leave out --format gemma"),
        (["--sparse", "--restart"], "leave out --restart"),
        (["--sparse", "--pairs", "absent.kin0"], "absent.kin0: no such file"),
    ],
)
def test_sparse_grm_refuses(families, tmp_path, options, message):
    assert message in refused("grm", families, *options, "--out", tmp_path / "k")
    assert not names(tmp_path)


def test_what_a_sparse_matrix_is_not_for(families):
    genotypes = bl.read_genotypes(families)
    table, K = bl.read_phenotypes(f"{families}.pheno.tsv"), bl.sparse_grm(genotypes)
    lmm = bl.LMM("y ~ sex", table, K)
    for background in ("loco", "rest+chrom"):
        with pytest.raises(bl.InputError, match=r"takes a chromosome out of a dense relatedness"):
            lmm.scan(genotypes, background=background)
    with pytest.raises(bl.InputError, match=r"dense relatedness matrix is needed .* SparseGRM"):
        bl.LMM("y ~ sex", table, kernels={"families": K, "other": K})
    with pytest.raises(bl.InputError, match="do not follow from a sparse relatedness matrix"):
        lmm.snp_effects()


def test_finemapping_with_a_sparse_matrix_is_that_with_the_same_dense_one(families):
    genotypes = bl.read_genotypes(families)
    table, K = bl.read_phenotypes(f"{families}.pheno.tsv"), bl.sparse_grm(genotypes)
    region = str(genotypes.variants.chrom.iloc[0])
    dense = bl.GRM(K.matrix.toarray(), K.samples)
    found, expected = (
        bl.LMM("y ~ sex", table, kernel).finemap(genotypes, region=region, method="susie")
        for kernel in (K, dense)
    )
    assert np.allclose(found.variants.pip, expected.variants.pip, atol=1e-4)
