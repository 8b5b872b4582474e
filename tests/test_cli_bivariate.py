"""The command for two traits."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import bayeslmm as bl
from bayeslmm import cli


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def files(tmp_path_factory, mice):
    """A GRM of 250 mice in GCTA's format, and the traits of them."""
    folder = tmp_path_factory.mktemp("rg")
    ids = list(mice.phenotypes.index[:250])
    logging.getLogger("bayeslmm").setLevel(logging.ERROR)
    bl.write_grm(bl.grm(mice.genotypes.select(samples=ids)), folder / "k")
    logging.getLogger("bayeslmm").setLevel(logging.INFO)
    table = mice.phenotypes.loc[ids].rename_axis("IID").reset_index()
    table.to_csv(folder / "traits.tsv", sep="\t", index=False, na_rep="NA")
    return folder


def test_rg_writes_what_it_says(files, tmp_path):
    out = tmp_path / "rg"
    common = ["rg", "--grm", files / "k", "--pheno", files / "traits.tsv", "--seed", 1]
    traits = ["--formula", "cd8 ~ sex", "--formula", "mch ~ sex"]
    result = run(*common, *traits, "--draws", 1000, "--out", out)
    assert result.exit_code == 0, result.output
    assert "Genetic correlation of cd8 and mch" in result.stdout
    assert "Priors: h2 ~ Uniform(0, 1), rg ~ Uniform(-1, 1)" in " ".join(result.stdout.split())
    written = ["covariances.tsv", "covariates.tsv", "joint.png", "posterior.zarr"]
    written += ["provenance.json", "rg.png", "rg.tsv", "samples.tsv", "summary.txt", "tests.tsv"]
    assert sorted(path.name for path in out.iterdir()) == written
    table = pd.read_csv(out / "rg.tsv", sep="\t", index_col=0)
    assert list(table.index) == ["rg", "re", "rp", "h2 of cd8", "h2 of mch"]
    tree = xr.open_datatree(out / "posterior.zarr", engine="zarr")
    assert float(tree["posterior"]["rg"].mean()) == pytest.approx(table["mean"]["rg"], rel=1e-4)
    covariances = pd.read_csv(out / "covariances.tsv", sep="\t")
    assert len(covariances) == 6
    tests = pd.read_csv(out / "tests.tsv", sep="\t", index_col=0)
    assert list(tests.index) == ["rg = 0", "rg = 1", "rg = -1"]
    effects = pd.read_csv(out / "covariates.tsv", sep="\t")
    assert list(effects.trait) == ["cd8", "cd8", "mch", "mch"]
    assert np.all(np.abs(effects["mean"] - effects.reml) < effects.reml_se)
    about = json.loads((out / "provenance.json").read_text())
    assert about["parameters"]["samples"] == "common"
    assert len(pd.read_csv(out / "samples.tsv", sep="\t")) == 250

    refused = run(*common, "--formula", "cd8 ~ sex", "--out", tmp_path / "one")
    assert refused.exit_code == 2
    assert "1 times --formula: this command takes two traits." in refused.stderr
    assert not (tmp_path / "one").exists()
