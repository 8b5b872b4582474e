import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from plink import write_plink
from test_cli import ok, refused

import bayeslmm as bl


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """120 samples at 90 SNPs of 3 chromosomes, families of 4; chromosome 1 has all effects."""
    folder = tmp_path_factory.mktemp("partition")
    rng = np.random.default_rng(6)
    x = rng.binomial(2, 0.4, size=(120, 90)).astype(float)
    u = (x[:, :30] - x[:, :30].mean(0)) @ rng.normal(size=30)
    ids = [(f"f{i}", f"i{i}") for i in range(120)]
    table = pd.DataFrame(ids, columns=["FID", "IID"])
    table["y"] = u / u.std() + rng.normal(size=120)
    table["home"] = [f"h{i // 4}" for i in range(120)]
    chrom = [str(1 + j // 30) for j in range(90)]
    prefix = write_plink(folder / "c", x, samples=ids, pos=list(range(100, 9100, 100)), chrom=chrom)
    table.to_csv(folder / "c.tsv", sep="\t", index=False)
    return prefix


def options(prefix, out, *more):
    return (
        "partition",
        prefix,
        "--pheno",
        f"{prefix}.tsv",
        "--formula",
        "y ~ 1",
        "--out",
        out,
        *more,
    )


def test_partition_by_chromosome_and_household(cohort, tmp_path):
    out = tmp_path / "parts"
    text = ok(*options(cohort, out, "--household", "home", "--draws", 400, "--seed", 1))
    assert "## Parts of the variance of y: y ~ 1, 120 samples" in text
    assert "effective draws" in text
    table = pd.read_csv(out / "components.tsv", sep="\t").set_index("component")
    assert list(table.index) == ["1", "2", "3", "household", "residual"]
    assert not table.genetic["household"]
    kernels = dict(bl.partition_grms(bl.read_genotypes(cohort), "chrom"))
    rows = bl.read_phenotypes(f"{cohort}.tsv")
    kernels["household"] = bl.kernels.household(rows.home)
    model = bl.LMM("y ~ 1", rows, kernels=kernels)
    np.testing.assert_allclose(table.reml_h2, model.reml().components.h2, atol=1e-5)
    tree = xr.open_datatree(out / "posterior_y.zarr", engine="zarr")
    again = model.posterior(400, seed=1)
    np.testing.assert_allclose(tree["posterior"].h2_k, again["posterior"].h2_k, atol=1e-6)
    enriched = pd.read_csv(out / "enrichment_y.tsv", sep="\t").set_index("annotation")
    assert enriched.enrichment.idxmax() == 1
    assert json.loads((out / "provenance.json").read_text())["parameters"]["by"] == "chrom"
    assert {p.suffix for p in out.iterdir()} == {".txt", ".tsv", ".png", ".zarr", ".json"}


def test_partition_by_regions_and_labels(cohort, tmp_path):
    bed = tmp_path / "genes.bed"
    bed.write_text("1\t0\t3000\n")
    ok(*options(cohort, tmp_path / "a", "--by", bed, "--draws", 200, "--prior", "split"))
    table = pd.read_csv(tmp_path / "a/components.tsv", sep="\t")
    assert list(table.component) == ["genes", "rest", "residual"]
    labels = bl.read_genotypes(cohort).variants[["id"]].assign(kind=["x", "y"] * 45)
    labels.to_csv(tmp_path / "labels.csv", index=False)
    ok(*options(cohort, tmp_path / "b", "--by", tmp_path / "labels.csv", "--draws", 200))
    assert "bins" not in (tmp_path / "b/summary.txt").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--by", "nothing"), "neither chrom, maf, ld, a .bed file of regions, nor a table"),
        (("--household", "cage"), "no such column"),
        (("--draws", "0"), "--draws must be at least 1"),
    ],
)
def test_partition_refuses(cohort, tmp_path, more, message):
    assert message in refused(*options(cohort, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()
