"""Reports of several kernels, two traits, cases and controls: the page says what the model says."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from page_text import methods_cite_what_they_name, words
from plink import write_plink
from typer.testing import CliRunner

import bayeslmm as bl
from bayeslmm import cli
from bayeslmm.inputs.case_control import CaseControl
from bayeslmm.model.accuracy import Accuracy
from bayeslmm.reporting import diagnostics


def sections(html):
    return re.findall(r'<section id="(\w+)">', html)


@pytest.fixture(scope="module")
def cohort():
    """150 samples of 30 families, 300 variants; two traits and a disease."""
    rng = np.random.default_rng(7)
    n, m = 150, 300
    p = rng.uniform(0.1, 0.5, m)
    parents = rng.random((30, 4, m)) < p
    pick = rng.integers(0, 2, size=(2, 30, 5, m))
    family = np.arange(30)[:, None, None]
    x = sum(
        parents[family, 2 * side + pick[side], np.arange(m)].astype(int) for side in (0, 1)
    ).reshape(n, m)
    ids = [f"i{i}" for i in range(n)]
    genotypes = bl.Genotypes.from_array(x, ids)
    z = (x - x.mean(0)) / np.maximum(x.std(0), 0.1)
    u = z[:, :150] @ rng.normal(size=(150, 2)) @ np.array([[1, 0.4], [0, 0.9]])
    y = u / u.std(0) + rng.normal(size=(n, 2))
    table = pd.DataFrame(
        {"one": y[:, 0], "two": y[:, 1], "age": rng.normal(size=n), "ill": (y[:, 0] > 0.3) * 1},
        index=pd.Index(ids, name="id"),
    )
    return genotypes, table


@pytest.fixture(scope="module")
def parts(cohort):
    genotypes, table = cohort
    first = np.arange(300) < 150
    names = pd.Series(np.where(first, "causal", "idle"), genotypes.variants.id)
    kernels = bl.partition_grms(genotypes, names)
    return bl.LMM("one ~ age", table, kernels=dict(kernels))


@pytest.fixture(scope="module")
def parts_page(parts, tmp_path_factory):
    tree = parts.posterior(1000, seed=1)
    path = tmp_path_factory.mktemp("parts") / "r.html"
    assert parts.report(path, tree=tree, question="Which part?") == path
    return path.read_text(encoding="utf-8"), tree


def test_shares_of_the_page_are_those_of_the_draws(parts, parts_page):
    html, tree = parts_page
    text = words(html)
    assert "Which part?" in text
    shares = tree["posterior"]["h2_k"].mean(["chain", "draw"]).to_series()
    h2 = float(tree["posterior"]["h2"].mean())
    fit = parts.reml()
    assert f"{100 * h2:.0f}% of the variance of one" in text
    for name in ("causal", "idle"):
        assert f"{name} {shares[name]:.3f}" in text
        assert f"{fit.components.h2[name]:.3f}" in text
    assert f"REML {fit.h2:.3f}" in text
    assert sections(html) == [
        "answer", "data", "model", "shares", "enrichment", "overlap", "checks", "methods",
        "provenance",
    ]  # fmt: skip
    assert html.count("<img") >= 4
    assert methods_cite_what_they_name(html)


def test_enrichment_of_the_page_is_that_of_the_model(parts, parts_page):
    html, tree = parts_page
    found = parts.enrichment(tree)
    text = words(html)
    for name, row in found.iterrows():
        assert f"{name} 150 0.50 {row.share_h2:.2f} {row.enrichment:.2f}" in text


def test_checks_of_several_kernels(parts_page):
    html, tree = parts_page
    text = words(html)
    for name in ("Samples", "Phenotype", "REML", "Identifiability", "Posterior", "Residuals"):
        assert f"{name}: " in text
    assert f"{tree.attrs['ess']:,.0f} effective draws" in text


def test_residuals_of_the_parts_are_those_of_their_sum(parts, parts_page):
    """One kernel fitted alone has a report of the same residuals."""
    html, _ = parts_page
    components = parts.reml().components
    K = sum(components.s2[name] * K.matrix for name, K in parts.grms.items())
    table = pd.DataFrame({"one": parts.y, "age": parts.C.age}, index=parts.ids)
    check = bl.LMM("one ~ age", table, bl.GRM(K, parts.ids)).check_residuals()
    assert f"skewness {check.skewness:+.2f}, excess kurtosis {check.kurtosis:+.2f}" in words(html)


@pytest.mark.parametrize(
    ("attrs", "level", "said"),
    [
        ({"ess": 900, "method": "importance sampling", "pareto_k": 0.3}, "good", "Pareto k 0.30"),
        ({"ess": 900, "sampler": "importance", "k_hat": 0.9}, "problem", "use Markov chains"),
        ({"ess": 30, "method": "importance sampling", "pareto_k": 0.3}, "look", "more draws"),
        ({"ess": 900, "method": "Markov chains", "r_hat": 1.2}, "problem", "chains disagree"),
        ({"ess": 30, "method": "quadrature"}, "good", "quadrature"),
    ],
)
def test_lights_of_draws(attrs, level, said):
    import xarray as xr

    check = diagnostics.of_draws(xr.DataTree(xr.Dataset(attrs=attrs)))
    assert check.level == level
    assert said in f"{check.finding} {check.action}"


def test_lights_of_cases():
    few = CaseControl(np.repeat([0.0, 1.0], [400, 12]), "0", "1")
    many = CaseControl(np.repeat([0.0, 1.0], [400, 300]), "0", "1")
    assert diagnostics.of_cases(few).level == "look"
    assert "12 cases" in diagnostics.of_cases(few).finding
    assert diagnostics.of_cases(many).level == "good"


def test_priors_are_written_in_words():
    priors = bl.priors
    assert str(priors.Normal(0.1)) == "normal, sd 0.1"
    assert str(priors.EffectPrior(0.2)) == "normal, sd 0.2"
    weighted = priors.EffectPrior((0.1, 0.4), (3, 1), alpha=-0.25)
    assert str(weighted) == (
        "normal, sd 0.1 (probability 0.75) or 0.4 (probability 0.25) at allele frequency 1/2, the "
        "variance per allele proportional to [2p(1-p)]^-0.25"
    )
    assert str(priors.SpikeSlab(0.01, (0.1, 0.2))) == (
        "0, or with probability 0.01 normal, sd 0.1 or 0.2, equally probable"
    )
    assert "global scale 0.05" in str(priors.Horseshoe())
    assert "R2 ~ Beta(1, 1)" in str(priors.R2D2())


@pytest.fixture(scope="module")
def pair(cohort):
    genotypes, table = cohort
    return bl.BivariateLMM(["one ~ age", "two ~ 1"], table, bl.grm(genotypes))


def test_the_page_of_two_traits(pair, tmp_path):
    tree = pair.posterior(1000, seed=3)
    html = pair.report(tmp_path / "r.html", tree=tree).read_text(encoding="utf-8")
    text = words(html)
    rg = tree["posterior"]["rg"].to_numpy()
    assert f"genetic correlation of one and two is {rg.mean():.2f}" in text
    fit = pair.reml()
    assert f"genetic correlation {rg.mean():.3f} {rg.std():.3f}" in text
    assert f"{fit.rg:.3f} {fit.rg_se:.3f}" in text
    h2 = tree["posterior"]["h2"].sel(trait="two").to_numpy()
    assert f"two {h2.mean():.3f} {h2.std():.3f}" in text
    for trait, alone in zip(pair.traits, pair.each(), strict=True):
        check = alone.check_residuals()
        assert f"Residuals of {trait}: Whitened residuals: skewness {check.skewness:+.2f}" in text
    assert "covariates of one Intercept, age covariates of two Intercept" in text
    assert sections(html) == [
        "answer", "data", "model", "rg", "h2", "checks", "methods", "provenance",
    ]  # fmt: skip
    assert methods_cite_what_they_name(html)


def test_each_trait_alone_has_its_own_kernel(pair, cohort):
    genotypes, table = cohort
    one, two = pair.each()
    K = bl.grm(genotypes)
    assert one.reml().h2 == pytest.approx(bl.LMM("one ~ age", table, K).reml().h2)
    assert two.reml().h2 == pytest.approx(bl.LMM("two ~ 1", table, K).reml().h2)


def test_draws_of_another_model_are_refused(parts, pair, tmp_path):
    tree = pair.posterior(200, seed=3)
    with pytest.raises(bl.InputError, match="no h2_k: they are not of a model of several kernels"):
        parts.report(tmp_path / "r.html", tree=tree)
    with pytest.raises(bl.InputError, match="no rg: they are not of a model of two traits"):
        pair.report(tmp_path / "r.html", tree=parts.posterior(200, seed=1))
    assert not (tmp_path / "r.html").exists()


@pytest.fixture(scope="module")
def liability(cohort):
    genotypes, table = cohort
    return bl.LiabilityLMM("ill ~ age", table, bl.grm(genotypes), prevalence=0.05)


@pytest.fixture(scope="module")
def liability_draws(liability):
    with pytest.warns(UserWarning, match="of the population|r-hat|effective draws"):
        return liability.sample(draws=100, tune=100, chains=4, seed=2)


def test_the_page_of_a_liability(liability, liability_draws, tmp_path):
    html = liability.report(tmp_path / "r.html", tree=liability_draws).read_text(encoding="utf-8")
    text = words(html)
    scales = liability.scales(liability_draws)
    for name, shown in (("liability", "liability model"), ("pcgc", "PCGC regression")):
        assert f"{shown} {scales['mean'][name]:.3f} {scales.sd[name]:.3f}" in text
    assert f"accounts for {100 * scales['mean']['pcgc']:.0f}% of the variance" in text
    assert "Use PCGC for h2, not the liability model." in text
    risks = liability.predict(liability_draws)
    assert f"{risks.risk.idxmax()} " in text
    assert f"{liability.cases.n_cases} cases ('1')" in text
    assert sections(html) == [
        "answer", "data", "model", "h2", "risk", "checks", "methods", "provenance",
    ]  # fmt: skip
    assert methods_cite_what_they_name(html)


def test_the_page_of_a_binary_scan(cohort, tmp_path):
    genotypes, table = cohort
    model = bl.LMM("ill ~ age", table, bl.grm(genotypes))
    hits = model.scan(genotypes, family="binomial", progress=False)
    html = model.report(tmp_path / "r.html", hits=hits, finemap=0).read_text(encoding="utf-8")
    text = words(html)
    cases = int(table.ill.sum())
    assert f"{cases} cases ('1') and {150 - cases} controls ('0')" in text
    assert "analysed by logistic mixed model, PQL with AI-REML" in text
    assert "score tests with saddlepoint tails" in text
    assert "odds ratio per effect allele" in text
    assert "not the trait's heritability" in text
    # What is true of a quantity only is not said.
    assert "exact REML Wald tests" not in text
    assert "of the variance of ill" not in text
    assert 'id="compare"' not in html
    assert "Residuals:" not in text
    assert methods_cite_what_they_name(html)


# -- from a shell ------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def files(cohort, tmp_path_factory):
    """The cohort as files, with a third trait that says little."""
    genotypes, table = cohort
    folder = tmp_path_factory.mktemp("files")
    prefix = folder / "cohort"
    write_plink(prefix, genotypes.dosage(0, 300).T, samples=[(i, i) for i in table.index])
    table.assign(household=[f"h{i // 3}" for i in range(150)]).to_csv(
        folder / "pheno.tsv", sep="\t"
    )
    return folder


COMMANDS = {
    "partition": ["--by", "maf", "--formula", "one ~ age", "--draws", "400", "--seed", "1"],
    "rg": ["--formula", "one ~ age", "--formula", "two ~ 1", "--draws", "400", "--seed", "1"],
    "liability": ["--formula", "ill ~ age", "--draws", "100", "--chains", "4", "--seed", "1"],
    "scan": ["--formula", "ill ~ age", "--family", "binomial"],
    "h2": ["--formula", "one ~ age", "--draws", "0"],
    "sample": ["--formula", "one ~ age", "--snps", "rs3,rs70", "--snp-prior", "spike_slab"],
    "finemap": ["--formula", "one ~ age", "--region", "1", "--seed", "1"],
}
# Tables of the folder whose numbers are on the page, and how they are written there.
TABLES = {
    "partition": ("components.tsv", "h2_mean", "{:.3f}"),
    "rg": ("rg.tsv", "mean", "{:.3f}"),
    "liability": ("h2.tsv", "mean", "{:.3f}"),
    "sample": ("snp_effects.tsv", "mean", "{:+.3g}"),
    "finemap": ("credible_sets_one.tsv", "log10_bf", "{:.1f}"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_two_commands_make_a_report(command, files):
    prefix, pheno, out = files / "cohort", files / "pheno.tsv", files / command
    done = run(command, prefix, "--pheno", pheno, *COMMANDS[command], "--out", out)
    assert done.exit_code == 0, done.output
    done = run("report", out, "--question", "What is it?")
    assert done.exit_code == 0, done.output
    html = (out / "report.html").read_text(encoding="utf-8")
    text = words(html)
    assert "What is it?" in text
    # The draws are those of the folder, to the last digit that is shown.
    if command in TABLES:
        table, column, form = TABLES[command]
        found = pd.read_csv(out / table, sep="\t")
        assert all(form.format(value) in text for value in found[column])
    # What was not asked for is not done: only a scan has a part on the genome.
    assert ("scan" in sections(html)) == (command == "scan")
    own = {"sample": "draws", "finemap": "region"}
    if command in own:
        assert own[command] in sections(html)
        assert methods_cite_what_they_name(html)
    # Provenance has no raw Python in it.
    assert "{&#x27;" not in html
    assert "inputs: " in text


@pytest.fixture(scope="module")
def predicted(files):
    """Folder of predictions: 40 of the 150, of 30 of whom the phenotype is in --new-pheno."""
    table = pd.read_csv(files / "pheno.tsv", sep="\t")
    out_of_it = table.index % 15 < 4
    table.assign(one=table.one.mask(out_of_it)).to_csv(
        files / "train.tsv", sep="\t", index=False, na_rep="NA"
    )
    table.assign(one=table.one.mask(table.index % 15 == 3)).to_csv(
        files / "test.tsv", sep="\t", index=False, na_rep="NA"
    )
    asked = ["--pheno", files / "train.tsv", "--formula", "one ~ age", "--seed", "1"]
    asked += ["--new-pheno", files / "test.tsv", "--prior", "beta(2,2)", "--prob", "0.8"]
    done = run("predict", files / "cohort", *asked, "--out", files / "predicted")
    assert done.exit_code == 0, done.output
    return files / "predicted"


def test_report_of_predictions(predicted, files):
    done = run("report", predicted, "--question", "Who will be tall?")
    assert done.exit_code == 0, done.output
    html = (predicted / "report.html").read_text(encoding="utf-8")
    text = words(html)
    assert methods_cite_what_they_name(html)
    assert sections(html).index("predictions") < sections(html).index("h2")
    assert "one: predictions" in text
    assert "Predicted one of 40 samples Learned from 110 samples" in text
    assert "prior of h² Beta(2, 2)" in text
    # Both ends of the table are there, nothing between.
    table = pd.read_csv(predicted / "predictions.tsv", sep="\t", index_col="id")
    order = table.y_mean.sort_values().index
    assert all(f"{name} {table.y_mean[name]:.3g} " in text for name in [*order[:10], *order[-10:]])
    assert f"{order[20]} " not in text
    # What was measured and not used, and what each analysed sample says of the others.
    known = table[table.y_observed.notna()]
    assert len(known) == 30
    truth = pd.read_csv(files / "pheno.tsv", sep="\t", index_col="id").one
    r = np.corrcoef(known.y_mean, truth[known.index])[0, 1]
    within = known.y_observed.between(known.y_low, known.y_high).mean()
    assert f"over 30 measured ones that were not used they do {r:.2f}" in text
    row = re.search(r"not used, measured 30 (\S+) \S+ \S+ \S+ \S+ (\S+)%", text)
    assert (row[1], row[2]) == (f"{r:.2f}", f"{100 * within:.1f}")
    assert "analysed, each left out 110 " in text
    assert "Predictions: Predicted and true genetic values should correlate" in text


def test_report_of_predictions_that_an_earlier_version_made(predicted, tmp_path):
    """It did not keep the prior: a model with another one would be reported."""
    about = json.loads((predicted / "provenance.json").read_text())
    del about["parameters"]["prior"]
    (tmp_path / "provenance.json").write_text(json.dumps(about))
    done = run("report", tmp_path)
    assert done.exit_code == 2
    assert "of another command, or of an earlier version: make them anew" in done.output


def test_report_of_predictions_without_measurements(cohort, tmp_path):
    """From Python; and of a trait with two values, whose predictions are no probabilities."""
    genotypes, table = cohort
    known = table.assign(ill=table.ill.where(np.arange(150) >= 15))
    model = bl.LMM("ill ~ age", known, bl.grm(genotypes))
    found = model.predict(samples=table.index[:15], data=table, seed=1)
    html = model.report(tmp_path / "r.html", predicted=found, scan=False).read_text()
    text = words(html)
    assert methods_cite_what_they_name(html)
    assert "All of them" in text
    assert "They rank samples, but are no probabilities" in text
    assert "measured ones" not in text
    assert "within 90% interval" not in text
    assert "over the analysed samples, each left out in turn, they do" in text


def test_check_of_predictions():
    def light(correlation=0.6, high=0.7, coverage=0.9, of_value=0.8, n=200, binary=False):
        found = Accuracy(n, correlation, 0.5, high, 1.0, 1.0, coverage, 0.9)
        return diagnostics.of_predictions(of_value, 0.6, found, binary=binary)

    assert light().level == "good"
    assert light(coverage=0.86).level == "good"  # 95% of 200 are at least 171
    assert light(coverage=0.84).level == "look"
    assert light(coverage=0.99).level == "good"
    assert light(correlation=0.4, high=0.55).level == "look"
    assert "less good than they claim" in light(coverage=0.8).action
    assert "hardly any relatives" in light(of_value=0.1).action
    assert diagnostics.of_predictions(0.8, 0.6, None, binary=False).level == "good"


def test_a_folder_of_other_results_is_refused(files):
    out = files / "grm.json"
    assert run("report", files).exit_code != 0
    assert "no results to report on" in run("report", files).output
    out.unlink(missing_ok=True)


def test_results_without_a_report_are_told_so(files):
    out = files / "threshold"
    asked = ["--pheno", files / "pheno.tsv", "--formula", "one ~ age", "--out", out]
    done = run("threshold", files / "cohort", *asked, "--replicates", "20")
    assert done.exit_code == 0, done.output
    assert "bayeslmm threshold, which has none: its summary and tables" in run("report", out).output
