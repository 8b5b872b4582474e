"""The command line for large cohorts."""

import json

from test_cli import ok, refused

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
