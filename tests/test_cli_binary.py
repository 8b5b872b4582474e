"""The scan command for cases and controls."""

import numpy as np
import pandas as pd
import pytest
from plink import write_plink
from typer.testing import CliRunner

from bayeslmm.cli import app


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    rng = np.random.default_rng(5)
    x = rng.binomial(2, 0.4, size=(160, 60)).astype(float)
    chance = 1 / (1 + np.exp(-1.6 * (x[:, 7] - 0.8)))
    status = np.where(rng.random(160) < chance, "case", "control")
    prefix = write_plink(folder / "c", x)
    table = pd.DataFrame({"IID": [f"i{i}" for i in range(160)], "status": status, "z": x[:, 1]})
    table.to_csv(folder / "p.tsv", sep="\t", index=False)
    return prefix, folder / "p.tsv"


def run(cohort, out, *options, formula="status ~ 1"):
    prefix, pheno = cohort
    words = ["scan", str(prefix), "--pheno", str(pheno), "--formula", formula, "--out", str(out)]
    return CliRunner().invoke(app, [*words, "--family", "binomial", *options])


def test_logistic_scan(cohort, tmp_path):
    done = run(cohort, tmp_path / "o", "--no-kernel", "--threads", "1")
    assert done.exit_code == 0, done.output
    summary = " ".join((tmp_path / "o" / "summary.txt").read_text().split())
    assert "cases ('case') and" in summary
    assert "one locus" in summary
    assert "best rs7" in summary
    assert "odds ratio" in summary
    assert "by wald" in summary
    table = pd.read_csv(tmp_path / "o" / "scan_status.tsv.gz", sep="\t")
    assert {"eaf_cases", "or", "or_low", "p_wald", "p_score", "method"} <= set(table)
    assert table.p_wald.idxmin() == 7
    assert (tmp_path / "o" / "manhattan_status.png").exists()


def test_mixed_scan(cohort, tmp_path):
    done = run(cohort, tmp_path / "o", "--threads", "1")
    assert done.exit_code == 0, done.output
    summary = " ".join((tmp_path / "o" / "summary.txt").read_text().split())
    assert "logistic mixed model" in summary
    assert "p_spa" in pd.read_csv(tmp_path / "o" / "scan_status.tsv.gz", sep="\t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--test", "wald"], "with relatedness has the tests score,spa"),
        (["--no-kernel", "--test", "bayes"], "has the tests wald,firth,score,spa"),
        (["--no-kernel", "--prior-odds", "1e-4"], "--family binomial has no --prior-odds"),
        (["--background", "loco"], "--family binomial has no --background"),
    ],
)
def test_options_that_it_does_not_have(cohort, tmp_path, options, message):
    done = run(cohort, tmp_path / "o", *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "o").exists()


def test_a_quantitative_trait_is_refused(cohort, tmp_path):
    done = run(cohort, tmp_path / "o", "--no-kernel", formula="log(z + 2) ~ 1")
    assert done.exit_code == 2
    assert "is not case/control" in done.output
