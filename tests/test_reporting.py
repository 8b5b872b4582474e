import numpy as np
import pandas as pd
import pytest
from page_text import methods_cite_what_they_name, parsed, words
from typer.testing import CliRunner

import bayeslmm as bl
from bayeslmm import cli
from bayeslmm.reporting.diagnostics import Check
from bayeslmm.reporting.report import diagnostics, pages


@pytest.fixture(scope="module")
def few(mice):
    """400 mice, three chromosomes."""
    ids = mice.phenotypes.index[mice.phenotypes.cd8.notna()][:400]
    return mice.genotypes.select(samples=ids, chrom=[1, 2, 17])


@pytest.fixture(scope="module")
def model(mice, few):
    return bl.LMM("cd8 ~ sex", mice.phenotypes, bl.grm(few))


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert model.report(path, question="Is 1 < 2 & why?") == path
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_needs_nothing_else(written):
    reader = parsed(written)
    assert all(r.startswith(("#", "data:")) for r in reader.resources)
    assert len(written) < 6e6


def test_the_page_says_what_the_model_says(written, model):
    text = words(written)
    found = model.h2_report()
    low, high = found.intervals.loc["posterior", ["low", "high"]]
    assert f"The genome accounts for {100 * found.mean:.0f}% of the variance of cd8" in text
    assert f"with probability 95% for {100 * low:.0f}% to {100 * high:.0f}%" in text
    assert f"REML {found.estimate:.3f}" in text
    hits = model.scan(model.grm.genotypes)
    lead = hits.id[hits.neg_log10_p.idxmax()]
    assert lead in text
    assert f"significant among {hits.neg_log10_p.notna().sum():,} variants" in text
    assert "Is 1 < 2 & why?" in text
    for section in ("answer", "data", "model", "h2", "scan", "loci", "checks", "methods"):
        assert f'<section id="{section}">' in written


def test_methods_cite_what_they_name(written):
    assert methods_cite_what_they_name(written)
    part = written[written.index('id="methods-text"') :]
    part = part[: part.index("</div>")]
    assert part.count("doi:") == part.count("<li>")


def test_an_existing_file_is_kept(model, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(bl.InputError, match="exists already and is kept"):
        model.report(path)
    assert path.read_text() == "mine"


def test_without_kernel_there_is_no_heritability(mice, few, tmp_path):
    plain = bl.LMM("cd8 ~ sex", mice.phenotypes.loc[few.samples.index])
    text = plain.report(tmp_path / "r.html", genotypes=few, finemap=0).read_text()
    parsed(text)
    assert '<section id="h2">' not in text
    assert "Linear regression" in text
    assert '<section id="scan">' in text


def test_without_genotypes_there_is_no_scan(tmp_path, rng):
    x = rng.integers(0, 3, size=(60, 200))
    kernel = bl.grm(x)
    model = bl.LMM(
        rng.normal(size=60), kernel=bl.GRM(kernel.matrix, kernel.samples, labelled=False)
    )
    text = model.report(tmp_path / "r.html").read_text()
    parsed(text)
    assert '<section id="scan">' not in text
    assert "So few samples say little about h2" in text


# -- from a shell ------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A scan of 300 of the mice, from files in a folder of their own."""
    folder = tmp_path_factory.mktemp("shell")
    assert run("demo", "--files", folder).exit_code == 0
    prefix = folder / "mouse_hs1940"
    pheno = folder / "few.tsv"
    table = pd.read_csv(f"{prefix}.pheno.tsv", sep="\t")
    table.head(300).to_csv(pheno, sep="\t", index=False, na_rep="NA")
    arguments = ["--pheno", pheno, "--formula", "cd8 ~ sex", "--chrom", "17"]
    done = run("scan", prefix, *arguments, "--out", folder / "results")
    assert done.exit_code == 0, done.output
    return folder / "results"


def test_two_commands_make_a_report(results):
    done = run("report", results, "--finemap", 1)
    assert done.exit_code == 0, done.output
    text = (results / "report.html").read_text()
    reader = parsed(text)
    assert "few.tsv" in "".join(reader.text)
    hits = pd.read_csv(results / "scan_cd8.tsv.gz", sep="\t")
    assert hits.id[hits.neg_log10_p.idxmax()] in text
    again = run("report", results)
    assert again.exit_code == 2
    assert "exists already and is kept" in again.stderr


def test_changed_input_is_refused(results):
    pheno = results.parent / "few.tsv"
    before = pheno.read_text()
    pheno.write_text(before + "\n")
    try:
        done = run("report", results, "--out", results / "other.html")
    finally:
        pheno.write_text(before)
    assert done.exit_code == 2
    assert "few.tsv: has changed since" in done.stderr
    assert not (results / "other.html").exists()


def test_what_is_no_result_is_refused(tmp_path):
    done = run("report", tmp_path)
    assert done.exit_code == 2
    assert "no results to report on" in done.stderr


# -- pieces ------------------------------------------------------------------------------------


def test_tables_escape_and_carry_what_they_sort_by():
    frame = pd.DataFrame({"name": ["<b>", None], "p": [1e-9, np.nan]})
    html = pages.table(frame, {"p": "{:.0e}".format}, sortable=True)
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert 'data-value="1.0000000000000001e-09"' in html
    assert html.count(">–</td>") == 2


def test_the_worst_light_is_the_one_that_counts():
    checks = [Check("a", "good", "fine"), Check("b", "problem", "bad", "mend")]
    assert diagnostics.worst(checks) == "problem"
    assert diagnostics.worst([]) == "good"
    assert diagnostics.as_table(checks).level.tolist() == ["good", "problem"]


@pytest.mark.parametrize(
    ("factor", "kernel", "background", "level"),
    [
        (1.0, True, "all", "good"),
        (0.8, True, "all", "good"),
        (1.15, True, "all", "look"),
        (1.8, True, "loco", "problem"),
        (1.8, False, "all", "problem"),
    ],
)
def test_inflation_is_seen(factor, kernel, background, level):
    found = diagnostics.of_scan(factor, 1000, kernel=kernel, background=background)
    assert found.level == level
    assert bool(found.action) == (level != "good")


def test_a_sample_that_is_there_twice_is_seen(rng):
    x = rng.integers(0, 3, size=(40, 300)).astype(float)
    x[7] = x[3]
    kernel = bl.grm(x)
    (found,) = diagnostics.of_kernel(kernel, kernel.samples)
    assert found.level == "look"
    assert "3 and 7" in found.finding
    (fine,) = diagnostics.of_kernel(kernel.subset(["1", "2", "3"]), pd.Index(["1", "2", "3"]))
    assert fine.level == "good"


def test_phenotypes_that_are_no_quantity_are_seen(rng):
    def level(y):
        return diagnostics.of_phenotype(y).level

    assert level(rng.normal(size=50)) == "good"
    assert level(rng.integers(0, 2, size=50).astype(float)) == "look"
    assert level(rng.integers(0, 5, size=50).astype(float)) == "look"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"interaction": "sex[T.M]"}, "Tested: interaction with sex[T.M]."),
        ({"coding": "genotypic"}, "Tested: dominance deviation."),
        ({"condition_on": ["rs13476251"]}, "Tested: variants given rs13476251."),
    ],
)
def test_what_a_scan_tested_is_said(model, few, tmp_path, options, said):
    hits = model.scan(few, region="17", **options)
    text = words(model.report(tmp_path / "r.html", hits=hits, genotypes=few).read_text())
    assert said in text
    assert "Fine-mapping of" not in text, "it would be of something else"
    second = {"interaction": "what each unit of sex[T.M] adds", "coding": "heterozygotes are"}
    assert second.get(next(iter(options)), "") in text


def test_ids_that_name_several_variants_are_told_of(model, few, tmp_path):
    hits = model.scan(few, region="17")
    lead = hits.neg_log10_p.idxmax()
    table = few.variants.reset_index(drop=True)
    twice = table.index[table.id == hits.id[lead]][0]
    table.loc[twice + 1, "id"] = hits.loc[lead + 1, "id"] = hits.id[lead]
    doubled = bl.Genotypes.from_array(few.to_array(), few.samples.index, table)
    with pytest.raises(bl.InputError, match=r"name several variants.*--set-all-var-ids"):
        bl.plots.regional(hits, doubled)
    with pytest.raises(bl.InputError, match="name several variants"):
        model.finemap(doubled, region="17", seed=1)
    text = words(model.report(tmp_path / "r.html", hits=hits, genotypes=doubled).read_text())
    assert "Neither drawn nor fine-mapped. Variant ids that name several variants" in text
