"""The liability command on the mice: its files, its words, its errors."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import bayeslmm as bl
from bayeslmm.cli import app


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Relatedness of 150 mice as a file, and CD8 cut at 0 with families."""
    folder = tmp_path_factory.mktemp("liability")
    mice = bl.datasets.mouse_hs1940()
    table = mice.phenotypes.dropna(subset="cd8").iloc[:150]
    kernel = bl.grm(mice.genotypes.select(samples=list(table.index), chrom=["1", "2"]))
    bl.write_grm(kernel, folder / "mice")
    table = table.assign(case=(table.cd8 > 0).astype(int))
    table[["case", "sex", "family"]].to_csv(folder / "traits.tsv", sep="\t")
    return folder / "mice", folder / "traits.tsv"


def test_it_writes_what_it_says(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    grm, traits = inputs
    out = tmp_path / "out"
    arguments = ["liability", "--grm", str(grm), "--pheno", str(traits), "--formula", "case ~ sex"]
    arguments += ["--prevalence", "0.05", "--groups", "family", "--draws", "60", "--seed", "1"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {
        "summary.txt",
        "h2.tsv",
        "covariates.tsv",
        "risk_case.tsv",
        "h2_case.png",
        "posterior_case.zarr",
        "samples_case.tsv",
        "provenance.json",
    }
    table = pd.read_csv(out / "h2.tsv", sep="\t", index_col=0)
    assert list(table.index[table.advised]) == ["pcgc"]
    risk = pd.read_csv(out / "risk_case.tsv", sep="\t", index_col=0)
    assert len(risk) == 150
    assert risk.risk.between(0, 1).all()
    summary = (out / "summary.txt").read_text()
    assert "not a heritability" in summary
    assert "Use .pcgc() for the heritability" in summary
    wrong = CliRunner().invoke(
        app, [*arguments, "--prevalence", "5", "--out", str(tmp_path / "wrong")]
    )
    assert wrong.exit_code == 2
    assert "prevalence must be a share in (0, 1)" in wrong.output
    assert not (tmp_path / "wrong").exists()
