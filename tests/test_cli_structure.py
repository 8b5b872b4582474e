"""pca, relatives, qc and prune from a shell; pcs(k) in --formula."""

import json

import numpy as np
import pandas as pd
import pytest
from test_cli import ok, refused

import bayeslmm as bl


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("cohort") / "c"
    bl.simulate_cohort(prefix, 150, 800, families=6, missing=0.01, chromosomes=3, seed=3)
    return prefix


def read(path):
    return pd.read_csv(path, sep="\t", dtype={"id": str, "id1": str, "id2": str})


def test_components(cohort, tmp_path):
    out = tmp_path / "out"
    said = ok("pca", cohort, "--k", 3, "--project", cohort, "--out", out,
              "--pheno", f"{cohort}.pheno.tsv", "--color", "age")  # fmt: skip
    found = bl.pca(bl.read_genotypes(cohort), 3)
    scores = read(out / "pcs.tsv").set_index("id")
    np.testing.assert_allclose(scores, found.scores, rtol=1e-4, atol=1e-6)
    assert list(read(out / "components.tsv").component) == ["PC1", "PC2", "PC3"]
    assert len(read(out / "projected.tsv")) == 150
    assert (out / "pcs.png").stat().st_size > 10_000
    assert "PCA of 150 samples" in said
    assert "150 samples" in (out / "summary.txt").read_text()
    assert json.loads((out / "provenance.json").read_text())["parameters"]["k"] == 3
    assert "--color names a column" in refused("pca", cohort, "--color", "age", "--out", out / "b")


def test_relatives(cohort, tmp_path):
    out = tmp_path / "out"
    said = ok("relatives", cohort, "--out", out)
    found = bl.relatives(bl.read_genotypes(cohort), min_kinship=0.0442)
    pairs = read(out / "relatives.tsv.gz")
    assert list(pairs.degree) == list(found.pairs.degree)
    np.testing.assert_allclose(pairs.kinship, found.pairs.kinship, rtol=1e-5)
    kept = [line.split()[1] for line in (out / "unrelated.txt").read_text().splitlines()]
    assert kept == list(found.unrelated(0.0442))
    assert "parent-offspring" in said
    assert (out / "relatives.png").exists()
    line = refused("relatives", cohort, "--max-kinship", 0.01, "--out", tmp_path / "b")
    assert "--max-kinship 0.01 is below --min-kinship 0.0442" in line


def test_quality(cohort, tmp_path):
    out = tmp_path / "out"
    said = ok("qc", cohort, "--out", out)
    variants = read(out / "variants.tsv.gz")
    np.testing.assert_allclose(
        variants.p_hwe, bl.variant_qc(bl.read_genotypes(cohort)).p_hwe, rtol=1e-5
    )
    assert len(read(out / "samples.tsv")) == 150
    assert "150 samples, 800 variants" in said
    share = np.isnan(bl.read_genotypes(cohort).to_array()).mean()
    assert f"Missing genotypes: {share:.3%}" in said


def test_pruning(cohort, tmp_path):
    out = tmp_path / "out"
    said = ok("prune", cohort, "--r2", 0.05, "--out", out)
    kept = (out / "keep.txt").read_text().split()
    assert kept == list(bl.prune(bl.read_genotypes(cohort), r2=0.05))
    assert len(kept) + len((out / "out.txt").read_text().split()) == 800
    assert f"{len(kept):,} of 800 variants kept" in said


def test_components_in_a_formula(cohort, tmp_path):
    out = tmp_path / "out"
    ok("h2", cohort, "--pheno", f"{cohort}.pheno.tsv", "--formula", "y ~ sex + pcs(2)",
       "--draws", 0, "--out", out)  # fmt: skip
    assert {"PC1", "PC2"} <= set(read(out / "covariates.tsv").covariate)
