import gzip
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from plink import write_plink
from typer.testing import CliRunner

import bayeslmm as bl
from bayeslmm import cli
from bayeslmm.commands import demo as demo_command
from bayeslmm.commands import genome as genome_commands
from bayeslmm.commands import kernels as kernel_commands
from bayeslmm.commands.data import Data
from bayeslmm.model import lmm
from bayeslmm.relatedness import sums
from bayeslmm.runs import results
from bayeslmm.runs.files import sha256
from bayeslmm.runs.results import Clock, result_files, result_folder, trait_names

N = 250


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def ok(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments):
    """The one line on stderr of a command that ends with exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.fixture(scope="module")
def mice(tmp_path_factory):
    """Prefix of the mice as PLINK files; mice.pheno.tsv has the traits of the first few."""
    folder = tmp_path_factory.mktemp("mice")
    assert "bayeslmm h2" in ok("demo", "--files", folder)
    table = pd.read_csv(folder / "mouse_hs1940.pheno.tsv", sep="\t")
    table.head(N).to_csv(folder / "few.tsv", sep="\t", index=False, na_rep="NA")
    return folder / "mouse_hs1940"


@pytest.fixture(scope="module")
def pheno(mice):
    return mice.with_name("few.tsv")


@pytest.fixture(scope="module")
def grm(mice):
    prefix = mice.with_name("k")
    printed = ok("grm", mice, "--maf", 0.05, "--out", prefix)
    assert "relatedness of 1,940 samples" in printed
    return prefix


def test_codes_for_missing_of_the_command_line(pheno, grm, tmp_path):
    """--na is added to the default codes; results remember it for their report."""
    table = pd.read_csv(pheno, sep="\t").fillna(-999)
    table.to_csv(tmp_path / "odd.tsv", sep="\t", index=False)
    common = ["--grm", grm, "--formula", "cd8 ~ sex", "--draws", 0]
    ok("h2", "--pheno", pheno, *common, "--out", tmp_path / "a")
    ok("h2", "--pheno", tmp_path / "odd.tsv", "--na", "none,-999", *common, "--out", tmp_path / "b")
    one, two = (pd.read_csv(tmp_path / name / "h2.tsv", sep="\t") for name in "ab")
    pd.testing.assert_frame_equal(one, two)
    about = json.loads((tmp_path / "b" / "provenance.json").read_text())
    assert about["parameters"]["na"] == "none,-999"


def test_only_some_samples_and_variants(mice, pheno, tmp_path):
    """--keep and --extract choose for relatedness and tests alike; the report knows of them."""
    ids = pd.read_csv(pheno, sep="\t", dtype=str)
    kept = ids[["FID", "IID"]].iloc[::2]
    (tmp_path / "keep.txt").write_text(
        "#FID IID\nx nobody\n" + "".join(f"{fid} {iid}\n" for fid, iid in kept.to_numpy())
    )
    genotypes = bl.read_genotypes(mice)
    variants = genotypes.variants.id[genotypes.variants.chrom.isin(["17", "18"])]
    (tmp_path / "rs.txt").write_text("\n".join(variants))
    asked = ["--pheno", pheno, "--formula", "cd8 ~ sex", "--test", "wald"]
    asked += ["--keep", tmp_path / "keep.txt", "--extract", tmp_path / "rs.txt"]
    ok("scan", mice, *asked, "--out", tmp_path / "out")
    hits = pd.read_csv(tmp_path / "out" / "scan_cd8.tsv.gz", sep="\t")
    some = genotypes.select(samples=list(kept.IID), variants=list(variants))
    expected = bl.LMM("cd8 ~ sex", bl.read_phenotypes(pheno), bl.grm(some)).scan(some, "wald")
    assert hits.id.tolist() == expected.id.tolist()
    assert np.allclose(hits.neg_log10_p, expected.neg_log10_p, atol=1e-3, equal_nan=True)
    told = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert {str(tmp_path / name) for name in ("keep.txt", "rs.txt")} <= set(told["inputs"])
    assert "Report of cd8" in ok("report", tmp_path / "out", "--finemap", 0)
    (tmp_path / "keep.txt").write_text("nobody\n")
    message = refused("scan", mice, *asked, "--out", tmp_path / "no")
    assert "keep.txt: its ids are of none of the 250 samples of" in message
    message = refused("h2", "--grm", "k", *asked[:4], *asked[8:], "--out", tmp_path / "no")
    assert "--extract make a relatedness matrix from genotypes" in message


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# -- help ------------------------------------------------------------------------------------


COMMANDS = ("demo", "simulate", "grm", "eigen", "h2", "partition", "rg")
COMMANDS += ("scan", "sample", "predict")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command):
    text = ok(command, "--help")
    assert f"bayeslmm {command}" in text
    assert "Example" in text
    assert "Writes" in text
    assert "\b" not in text
    assert "\\b" not in text


def test_root_help_names_every_command():
    text = ok("--help")
    assert all(f"  {c} " in text for c in COMMANDS)
    assert ok("--version").strip() == f"bayeslmm {bl.__version__}"
    assert run("bogus").exit_code == 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['bayeslmm', '--help']\n"
        "from bayeslmm.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'numpy', 'pandas', 'scipy', 'matplotlib', 'rich', 'pymc', 'xarray'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# -- each command ----------------------------------------------------------------------------


def test_demo(tmp_path):
    out = tmp_path / "sub" / "demo"
    printed = ok("demo", "--out", out)
    assert names(out) == [
        "covariates.tsv",
        "effects_cd8.png",
        "excluded_cd8.tsv",
        "h2.tsv",
        "h2_cd8.png",
        "h2_mch.png",
        "manhattan_cd8.png",
        "provenance.json",
        "qq_cd8.png",
        "samples_cd8.tsv",
        "samples_mch.tsv",
        "scan_cd8.tsv.gz",
        "snp_effects_cd8.tsv",
        "summary.txt",
    ]
    assert (out / "summary.txt").read_text().strip() == printed.strip()
    assert "cd8: 60%; with 95% probability it is between 53% and 66%" in printed
    assert "2 loci among 10,992 variants" in printed
    assert "chromosome 17, 32.8 to 40.8 Mb: 28 variants, best mCV22965443" in printed
    effects = pd.read_csv(out / "snp_effects_cd8.tsv", sep="\t", index_col="id")
    assert effects.index[0] == "mCV22965443"
    assert len(effects) == 6
    assert (effects["mean"].abs() < effects.scan_beta.abs()).all(), "shrunk"
    beside = next(line for line in printed.splitlines() if line.startswith("  mch "))
    numbers = [float(word) for word in beside.split()[1:] if word != "to"]
    # 4,000 draws, about 1,000 effective ones: Monte Carlo errors of 0.001, four of them
    assert numbers[0] == pytest.approx(numbers[4], abs=0.004), "exact and NUTS"
    h2 = pd.read_csv(out / "h2.tsv", sep="\t", index_col="trait")
    assert h2.reml_h2.round(3).to_dict() == {"cd8": 0.600, "mch": 0.633}
    hits = pd.read_csv(out / "scan_cd8.tsv.gz", sep="\t", dtype={"chrom": str})
    assert len(hits) == 12_226
    excluded = pd.read_csv(out / "excluded_cd8.tsv", sep="\t")
    assert excluded.reason.value_counts().to_dict() == {"monomorphic": 12_226 - 10_992}
    samples = pd.read_csv(out / "samples_cd8.tsv", sep="\t")
    assert samples.kept.sum() == 1410
    about = json.loads((out / "provenance.json").read_text())
    assert about["data"] == bl.datasets.SHA256
    assert "exists already" in refused("demo", "--out", out)


def test_grm_writes_gcta_files(grm, mice):
    assert {"k.grm.bin", "k.grm.N.bin", "k.grm.id", "k.json", "k.excluded.tsv"} <= set(
        names(grm.parent)
    )
    kernel = bl.read_grm(grm)
    expected = bl.grm(bl.read_genotypes(mice).select(min_maf=0.05))
    assert np.allclose(kernel.matrix, expected.matrix, atol=1e-6)
    excluded = pd.read_csv(f"{grm}.excluded.tsv", sep="\t")
    assert len(excluded) + expected.n_variants == 12_226
    assert set(excluded.reason) == {"maf < 0.05"}
    about = json.loads(grm.with_suffix(".json").read_text())
    assert about["parameters"]["maf"] == 0.05
    assert len(about["inputs"]) == 3
    assert pd.read_csv(f"{grm}.grm.id", sep="\t", header=None).shape == (1940, 2)
    assert "exists already" in refused("grm", mice, "--out", grm)


def test_grm_in_gemmas_format_and_back(mice, pheno, tmp_path):
    out = tmp_path / "c"
    ok("grm", mice, "--scale", "centered", "--chrom", "1,19", "--format", "gemma", "--out", out)
    assert names(tmp_path) == ["c.cXX.txt", "c.excluded.tsv", "c.json", "c.samples.txt"]
    options = ("--pheno", pheno, "--formula", "cd8 ~ 1", "--draws", 0, "--out", tmp_path / "h2")
    ok("h2", "--grm", f"{out}.cXX.txt", *options)
    (tmp_path / "c.samples.txt").unlink()
    message = refused("h2", "--grm", f"{out}.cXX.txt", *options, "--overwrite")
    assert "no sample ids" in message
    assert names(tmp_path / "h2"), "the results that were there are kept"


def test_eigen_h2_and_scan_share_a_basis(grm, mice, pheno, tmp_path):
    keep = tmp_path / "keep.txt"
    ids = pd.read_csv(pheno, sep="\t", dtype=str)
    keep.write_text(
        "#FID IID\n" + "".join(f"{f}\t{i}\n" for f, i in zip(ids.FID, ids.IID, strict=True))
    )
    basis = tmp_path / "few.basis"
    assert f"{N} samples" in ok("eigen", grm, "--keep", keep, "--out", basis)
    assert bl.load_eigenbasis(basis).n == N
    model = ("--basis", basis, "--pheno", pheno, "--formula", "mch ~ sex")
    ok(
        "h2",
        *model,
        "--formula",
        "cd8 ~ sex",
        "--seed",
        1,
        "--draws",
        500,
        "--out",
        tmp_path / "h2",
    )
    assert {"h2_mch.png", "h2_cd8.png", "posterior_mch.zarr", "samples_cd8.tsv"} <= set(
        names(tmp_path / "h2")
    )
    ok("scan", mice, *model, "--test", "score,p3d", "--chrom", "19", "--out", tmp_path / "scan")
    hits = pd.read_csv(tmp_path / "scan" / "scan_mch.tsv.gz", sep="\t")
    assert set(hits.chrom) == {19}
    assert {"p_score", "p_p3d"} <= set(hits)
    assert "exists already" in refused("eigen", grm, "--out", basis)
    ok("eigen", grm, "--keep", keep, "--out", basis, "--overwrite")


def test_h2_from_genotypes(mice, pheno, tmp_path):
    out = tmp_path / "results"
    formulas = ("--formula", "cd8 ~ sex", "--formula", "cd8 ~ 1")
    options = ("--prior", "beta(2, 3)", "--spike", 0.5, "--seed", 7, "--draws", 300)
    printed = ok("h2", f"{mice}.bed", "--pheno", pheno, *formulas, *options, "--out", out)
    assert "Probability that it is exactly 0" in printed
    table = pd.read_csv(out / "h2.tsv", sep="\t", index_col="trait")
    assert list(table.index) == ["cd8", "cd8_2"]
    phenotypes = bl.read_phenotypes(pheno)
    prior = bl.priors.beta(2, 3, spike=0.5)
    model = bl.LMM("cd8 ~ sex", phenotypes, bl.grm(mice), h2_prior=prior)
    posterior = model.h2_posterior()
    assert table.h2_mean["cd8"] == pytest.approx(posterior.mean, rel=1e-4)
    assert table.p_h2_zero["cd8"] == pytest.approx(posterior.mass_at_0, rel=1e-3)
    assert table.reml_h2["cd8"] == pytest.approx(model.reml().h2, rel=1e-4)
    effects = pd.read_csv(out / "covariates.tsv", sep="\t")
    assert effects.covariate.tolist() == ["Intercept", "sex[T.M]", "Intercept"]
    tree = xr.open_datatree(out / "posterior_cd8.zarr", engine="zarr")
    expected = model.posterior(300, seed=7)
    assert np.allclose(tree["posterior"].h2, expected["posterior"].h2, atol=1e-5)
    assert tree["posterior"].attrs["seed"] == 7
    about = json.loads((out / "provenance.json").read_text())
    assert about["parameters"]["h2_prior"] == "0.5 at 0 + 0.5 Beta(2, 3)"
    assert about["inputs"][str(pheno)] == sha256(pheno)
    assert len(about["inputs"]) == 4


def test_scan_from_genotypes(mice, pheno, tmp_path):
    out = tmp_path / "results"
    model = ("--pheno", pheno, "--formula", "mch ~ sex", "--formula", "cd8 ~ 1")
    printed = ok("scan", mice, *model, "--maf", 0.2, "--chrom", 1, "--chrom", "2,3", "--out", out)
    assert "Genome scan of mch" in printed
    assert "Genome scan of cd8" in printed
    assert len(names(out)) == 12
    hits = pd.read_csv(out / "scan_mch.tsv.gz", sep="\t", dtype={"chrom": str})
    assert hits.chrom.unique().tolist() == ["1", "2", "3"]
    assert hits.eaf.between(0.2, 0.8).all(), "among the analysed samples"
    genotypes = bl.read_genotypes(mice)
    lmm = bl.LMM("mch ~ sex", bl.read_phenotypes(pheno), bl.grm(genotypes.select(min_maf=0.2)))
    expected = bl.scan(lmm, genotypes.select(variants=hits.id))
    assert np.allclose(hits.neg_log10_p, expected.neg_log10_p, atol=1e-4)
    excluded = pd.read_csv(out / "excluded_mch.tsv", sep="\t")
    assert len(excluded) + len(hits) == genotypes.variants.chrom.isin(["1", "2", "3"]).sum()


def test_scan_without_kernel_as_parquet(mice, pheno, tmp_path):
    out = tmp_path / "results"
    out.mkdir()  # an empty folder is nothing to protect
    model = ("--pheno", pheno, "--formula", "mch ~ sex", "--chrom", 19, "--out", out)
    ok("scan", mice, *model, "--no-kernel", "--parquet", "--float64")
    hits = pd.read_parquet(out / "scan_mch.parquet")
    lmm = bl.LMM("mch ~ sex", bl.read_phenotypes(pheno))
    expected = bl.scan(lmm, bl.read_genotypes(mice).select(chrom=19), dtype="float64")
    assert np.allclose(hits.p_wald, expected.p_wald, equal_nan=True)
    ok("scan", mice, *model, "--no-kernel", "--overwrite")
    assert "scan_mch.tsv.gz" in names(out)
    assert "scan_mch.parquet" not in names(out), "the old folder is replaced, not mixed with"


def test_scan_without_the_tested_chromosome(mice, pheno, tmp_path):
    out = tmp_path / "loco"
    model = ("--pheno", pheno, "--formula", "cd8 ~ sex", "--chrom", "17,19")
    printed = ok("scan", mice, *model, "--background", "loco", "--prior-odds", 1e-4, "--out", out)
    assert "in families compare with --background all" in printed.replace("\n", " ")
    assert "those of the other chromosomes; h2 0." in printed
    assert "prior odds of an effect 0.0001" in printed.replace("\n  ", " ")
    hits = pd.read_csv(out / "scan_cd8.tsv.gz", sep="\t", dtype={"chrom": str})
    genotypes = bl.read_genotypes(mice)
    lmm = bl.LMM("cd8 ~ sex", bl.read_phenotypes(pheno), bl.grm(genotypes))
    expected = lmm.scan(genotypes.select(variants=hits.id), background="loco", prior_odds=1e-4)
    assert np.allclose(hits.neg_log10_p, expected.neg_log10_p, atol=1e-3, equal_nan=True)
    assert np.allclose(hits.ppa, expected.ppa, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("room", [True, False])
def test_chromosomes_are_summed_once_where_there_is_room(mice, pheno, monkeypatch, room):
    data = Data(genotypes=mice, pheno=pheno, formulas=["cd8 ~ sex"])
    monkeypatch.setattr(sums, "fits", lambda _: room)
    kernel = data.kernel(data.table(), Clock(), by_chrom=True)
    assert len(kernel.parts) == (19 if room else 0)
    assert not data.kernel(data.table(), Clock()).parts


def test_finemap_of_a_region(mice, tmp_path):
    out, pheno = tmp_path / "locus", tmp_path / "all.tsv"
    bl.datasets.mouse_hs1940().phenotypes.to_csv(pheno, sep="\t", index_label="IID", na_rep="NA")
    model = ("--pheno", pheno, "--formula", "cd8 ~ sex", "--region", "17:30000000-36000000")
    printed = ok("finemap", mice, *model, "--method", "susie", "--out", out)
    assert "Fine-mapping of cd8, 17:" in printed
    assert "set 1:" in printed
    found = pd.read_csv(out / "finemap_cd8.tsv", sep="\t")
    sets = pd.read_csv(out / "credible_sets_cd8.tsv", sep="\t")
    assert found.pip.between(0, 1).all()
    assert set(sets.ids[0].split(",")) == set(found.id[found.cs == 1])
    assert {"finemap_cd8.png", "summary.txt", "provenance.json"} <= set(names(out))


def test_stepwise_and_threshold(mice, pheno, tmp_path):
    """The same numbers as from Python, in files and in words."""
    model = ("--pheno", pheno, "--formula", "cd8 ~ sex", "--region", "17")
    steps, limit = tmp_path / "steps", tmp_path / "limit"
    printed = ok("stepwise", mice, *model, "--threshold", 1e-4, "--out", steps)
    found = pd.read_csv(steps / "stepwise_cd8.tsv", sep="\t")
    genotypes = bl.read_genotypes(mice)
    lmm = bl.LMM("cd8 ~ sex", bl.read_phenotypes(pheno), bl.grm(genotypes))
    expected = bl.stepwise(lmm, genotypes, region="17", threshold=1e-4)
    assert len(found)
    assert list(found.id) == list(expected.id)
    assert np.allclose(found.neg_log10_p_joint, expected.neg_log10_p_joint, atol=1e-3)
    assert f"1. {found.id[0]} (chromosome 17)" in printed
    assert "no further variant has p <= 0.0001; the best one left is" in printed
    options = ("--replicates", 200, "--seed", 1)
    printed = ok("threshold", mice, *model, *options, "--out", limit)
    table = pd.read_csv(limit / "threshold.tsv", sep="\t").iloc[0]
    samples = genotypes.select(region="17")
    again = bl.significance_threshold(lmm, samples, replicates=200, seed=1)
    assert table.p == pytest.approx(again.p, rel=1e-3)
    assert str(again)[:20] in printed
    assert "## Significance threshold of cd8, 17\n" in printed
    assert "genome-wide" not in printed, "of one chromosome it is not"
    assert len(pd.read_csv(limit / "null_min_p_cd8.tsv")) == 200
    assert {"samples_cd8.tsv", "summary.txt", "provenance.json"} <= set(names(limit))


def test_stepwise_refuses_a_background_of_other_variants(mice, pheno, grm, tmp_path):
    model = ("--pheno", pheno, "--formula", "cd8 ~ sex", "--out", tmp_path / "r", "--grm", grm)
    assert "Leave out --grm and --basis" in refused(
        "stepwise", mice, *model, "--background", "loco"
    )


def test_scan_of_an_interaction_in_a_region(mice, pheno, tmp_path):
    """Given a SNP of another chromosome, and the dominance of the same region."""
    out, region = tmp_path / "results", "17:30000000-38,000,000"
    genotypes = bl.read_genotypes(mice)
    samples = bl.LMM("mch ~ sex", bl.read_phenotypes(pheno)).ids
    given = genotypes.select(samples=samples, chrom=1, min_maf=0.2).variants.id[100]
    model = ("--pheno", pheno, "--formula", "mch ~ sex", "--no-kernel", "--out", out)
    where = ("--region", region, "--condition-on", given)
    printed = ok("scan", mice, *model, *where, "--interaction", "sex")
    assert "interaction with sex" in printed
    assert f"Conditional on {given}" in printed
    hits = pd.read_csv(out / "scan_mch.tsv.gz", sep="\t", dtype={"chrom": str})
    lmm = bl.LMM("mch ~ sex", bl.read_phenotypes(pheno))
    options = {"region": region, "condition_on": [given]}
    expected = bl.scan(lmm, genotypes, interaction="sex", **options)
    assert hits.id.tolist() == expected.id.tolist()
    assert np.allclose(hits.neg_log10_p_joint, expected.neg_log10_p_joint, equal_nan=True)
    printed = ok("scan", mice, *model, *where, "--coding", "genotypic", "--overwrite")
    assert "dominance deviation" in printed
    assert "wald and bayes" in refused(
        "scan", mice, *model, "--test", "lrt", "--interaction", "sex"
    )
    message = refused("scan", mice, *model, "--region", "17:5")
    assert "not of the form chrom or chrom:first-last" in message


def test_scan_of_monomorphic_variants_only(mice, pheno, tmp_path):
    prefix = tmp_path / "mono"
    genotypes = bl.read_genotypes(mice)
    n, m = 1940, 3
    bed = b"\x6c\x1b\x01" + bytes([0xFF] * (m * ((n + 3) // 4)))
    (tmp_path / "mono.bed").write_bytes(bed)
    bim = (mice.parent / f"{mice.name}.bim").read_text().splitlines()[:m]
    (tmp_path / "mono.bim").write_text("\n".join(bim) + "\n")
    (tmp_path / "mono.fam").write_bytes((mice.parent / f"{mice.name}.fam").read_bytes())
    assert genotypes.n_samples == n
    out = tmp_path / "results"
    model = ("--pheno", pheno, "--formula", "mch ~ sex", "--no-kernel", "--out", out)
    assert "No variant could be tested: all are monomorphic or explained" in ok(
        "scan", prefix, *model
    )
    assert "manhattan_mch.png" not in names(out)
    assert len(pd.read_csv(out / "excluded_mch.tsv", sep="\t")) == m


# -- the generative model ----------------------------------------------------------------------

FEW = ("--draws", 60, "--tune", 60, "--chains", 2, "--seed", 1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Prefix of 120 samples at 200 SNPs, rs3 and rs60 with effects; its .tsv has 100 with y.

    Beside it new.bed and new.tsv: 20 others; and a scan of y.
    """
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(5)
    x = rng.binomial(2, rng.uniform(0.2, 0.8, 200), size=(140, 200)).astype(float)
    sex = rng.integers(0, 2, 140).astype(float)
    u = (x - x.mean(0)) @ rng.normal(size=200)
    y = 5 + sex + u / u.std() + 0.9 * x[:, 3] - 0.9 * x[:, 60] + rng.normal(size=140)
    ids = [(f"f{i}", f"i{i}") for i in range(140)]
    table = pd.DataFrame(ids, columns=["FID", "IID"]).assign(sex=sex, y=y)
    pos = [10_000_000 * (j + 1) for j in range(200)]
    prefix = write_plink(folder / "cohort", x[:120], samples=ids[:120], pos=pos)
    write_plink(folder / "new", x[120:], samples=ids[120:], pos=pos)
    table[:120].assign(y=table.y.where(table.index < 100)).to_csv(
        folder / "cohort.tsv", sep="\t", index=False, na_rep="NA"
    )
    table[120:].drop(columns="y").to_csv(folder / "new.tsv", sep="\t", index=False)
    ok("scan", prefix, *of_y(prefix), "--out", folder / "scan")
    return prefix


def of_y(prefix, covariates="sex"):
    return "--pheno", f"{prefix}.tsv", "--formula", f"y ~ {covariates}"


def api(prefix, covariates="sex"):
    return bl.LMM(f"y ~ {covariates}", bl.read_phenotypes(f"{prefix}.tsv"), bl.grm(prefix))


def read(path, index="id"):
    return pd.read_csv(path, sep="\t", index_col=index)


def test_sample_best_snps_of_a_scan(cohort, tmp_path):
    out, scan = tmp_path / "out", cohort.parent / "scan" / "scan_y.tsv.gz"
    printed = ok(
        "sample", cohort, *of_y(cohort), "--scan", scan, "--top", 6, *FEW, "--u", "--out", out
    )
    assert names(out) == [
        "effects.png",
        "h2.png",
        "parameters.tsv",
        "posterior.zarr",
        "provenance.json",
        "random_effects.tsv",
        "samples.tsv",
        "snp_effects.tsv",
        "summary.txt",
    ]
    assert (out / "summary.txt").read_text().strip() == printed.strip()
    assert "Effects of 6 SNPs on y, estimated together" in printed
    assert "Warning: " in printed, "so few draws are too few"
    assert "bayeslmm h2" in printed.replace("\n", " ")
    hits = pd.read_csv(scan, sep="\t")
    best = hits.nlargest(6, "neg_log10_p")
    effects = read(out / "snp_effects.tsv")
    assert effects.index.tolist() == best.id.tolist()
    assert np.allclose(effects.scan_beta, best.beta, rtol=1e-5)
    assert (effects.oa == "G").all()
    tree = xr.open_datatree(out / "posterior.zarr", engine="zarr")
    beta = tree["posterior"].beta.mean(("chain", "draw"))
    assert np.allclose(effects["mean"], beta, rtol=1e-5)
    assert "log_likelihood" not in tree.children
    parameters = read(out / "parameters.tsv", "parameter")
    assert {"h2", "s2_e", "b[Intercept]", "b[sex]", "beta[rs3]"} <= set(parameters.index)
    assert parameters["mean"]["h2"] == pytest.approx(float(tree["posterior"].h2.mean()), rel=1e-5)
    u = read(out / "random_effects.tsv")
    assert np.allclose(u.u_mean, tree["posterior"].u.mean(("chain", "draw")), rtol=1e-5)
    about = json.loads((out / "provenance.json").read_text())
    assert about["parameters"]["snps"] == best.id.tolist()
    assert len(about["warnings"]) == 1
    assert str(scan) in about["inputs"]


def test_sample_spike_and_slab_with_relatedness_from_elsewhere(cohort, tmp_path):
    ok("grm", cohort, "--out", tmp_path / "k")
    options = ("--grm", tmp_path / "k", "--snps", "rs3,rs60", "--snps", "rs7", *FEW)
    options += ("--snp-prior", "spike_slab", "--prior", "beta(2,2)", "--log-likelihood")
    printed = ok("sample", cohort, *of_y(cohort), *options, "--out", tmp_path / "out")
    assert "Prior: Beta(2, 2)" in printed.replace("\n  ", " ")
    assert "scan (SE)" not in printed
    assert "no chains to check" in printed
    effects = read(tmp_path / "out" / "snp_effects.tsv")
    assert effects.index.tolist() == ["rs3", "rs60", "rs7"]
    assert effects.pip["rs60"] > 0.9
    assert effects.pip["rs7"] < 0.5
    tree = xr.open_datatree(tmp_path / "out" / "posterior.zarr", engine="zarr")
    assert tree["log_likelihood"].y.shape == (1, 120, 100)


def test_sample_without_snps(cohort, tmp_path):
    ok("grm", cohort, "--out", tmp_path / "k")
    out = tmp_path / "out"
    few = ("--draws", 3000, "--tune", 300, "--chains", 1, "--seed", 3)
    printed = ok("sample", "--grm", tmp_path / "k", *of_y(cohort), *few, "--out", out)
    assert "One chain only, at least" in printed
    parameters = read(out / "parameters.tsv", "parameter")
    posterior = api(cohort).h2_posterior()
    # at least 400 effective draws, else there was a warning: four errors of sd / 20
    assert parameters["mean"]["h2"] == pytest.approx(posterior.mean, abs=0.2 * posterior.sd)
    assert "snp_effects.tsv" not in names(out)


def test_sample_hands_its_options_on(cohort, tmp_path, monkeypatch):
    given = {}

    def sample(self, **options):
        given.update(options)
        raise bl.InputError("seen")

    monkeypatch.setattr(lmm.LMM, "sample", sample)
    options = ("--sampler", "pymc", "--snps", "rs1", "--snp-prior", "r2d2", "--u", *FEW)
    options += ("--target-accept", 0.9)
    assert refused("sample", cohort, *of_y(cohort), *options, "--out", tmp_path / "x") == "seen"
    assert given.pop("genotypes").variants.id.tolist() == ["rs1"]
    assert given.pop("snp_prior") == bl.priors.R2D2()
    assert given == {
        "snps": ["rs1"],
        "draws": 60,
        "tune": 60,
        "chains": 2,
        "seed": 1,
        "target_accept": 0.9,
        "sampler": "pymc",
        "u": True,
        "log_likelihood": False,
    }


def test_predict_new_samples(cohort, tmp_path):
    new, out = cohort.with_name("new"), tmp_path / "out"
    options = ("--new", new, "--new-pheno", f"{new}.tsv", "--seed", 4, "--draws", 200)
    printed = ok("predict", cohort, *of_y(cohort), *options, "--snp-effects", "--out", out)
    assert "Prediction of y for 20 samples" in printed
    assert "From 100 samples" in printed
    model = api(cohort)
    tree = model.posterior(200, seed=4)
    table = bl.read_phenotypes(f"{new}.tsv")
    expected = model.predict(bl.read_genotypes(new), table, tree, seed=4)
    found = read(out / "predictions.tsv")
    assert found.index.tolist() == expected.index.tolist()
    assert np.allclose(found, expected, rtol=1e-5)
    effects = pd.read_csv(out / "snp_effects.tsv", sep="\t")
    assert np.allclose(effects.effect, model.snp_effects(tree).effect, rtol=1e-5)
    about = json.loads((out / "provenance.json").read_text())
    assert len(about["inputs"]) == 8
    message = refused("predict", cohort, *of_y(cohort), "--new", new, "--out", tmp_path / "x")
    assert "The model has covariates (Intercept, sex)" in message
    ok("predict", cohort, *of_y(cohort, "1"), "--new", new, "--out", tmp_path / "without")


def test_predict_new_samples_by_family_and_individual_id(tmp_path):
    """IIDs that come twice: the tables have FID and IID, the labels are FID_IID."""
    rng = np.random.default_rng(2)
    x = rng.binomial(2, 0.5, size=(60, 80)).astype(float)
    ids = [(f"f{i // 2}", f"i{i % 2}") for i in range(60)]
    table = pd.DataFrame(ids, columns=["FID", "IID"]).assign(
        sex=rng.integers(0, 2, 60), y=rng.normal(size=60)
    )
    for name, part in (("old", slice(0, 40)), ("new", slice(40, 60))):
        write_plink(tmp_path / name, x[part], samples=ids[part])
        table[part].to_csv(tmp_path / f"{name}.tsv", sep="\t", index=False)
    new = tmp_path / "new"
    options = ("--new", new, "--new-pheno", f"{new}.tsv", "--out", tmp_path / "out")
    ok("predict", tmp_path / "old", *of_y(tmp_path / "old"), *options)
    assert read(tmp_path / "out" / "predictions.tsv").index[0] == "f20_i0"


def test_predict_samples_without_phenotype(cohort, tmp_path):
    out = tmp_path / "all"
    ok("predict", cohort, *of_y(cohort), "--seed", 4, "--prob", 0.5, "--out", out)
    everyone = read(out / "predictions.tsv")
    assert everyone.index.tolist() == [f"i{i}" for i in range(100, 120)]
    model = api(cohort)
    table = bl.read_phenotypes(f"{cohort}.tsv")
    tree = model.posterior(1000, seed=4)
    expected = model.predict(samples=everyone.index, data=table, tree=tree, prob=0.5, seed=4)
    assert np.allclose(everyone, expected, rtol=1e-5)
    ids = tmp_path / "ids.txt"
    ids.write_text("f110\ti110\nf3\ti3\n")
    printed = ok(
        "predict", cohort, *of_y(cohort), "--samples", ids, "--seed", 4, "--out", tmp_path / "two"
    )
    assert "1 of them were analysed themselves" in printed
    two = read(tmp_path / "two" / "predictions.tsv")
    assert two.index.tolist() == ["i110", "i3"]
    assert two.y_mean["i110"] == pytest.approx(everyone.y_mean["i110"], rel=1e-5)
    ids.write_text("i3\ni3\n")
    message = refused("predict", cohort, *of_y(cohort), "--samples", ids, "--out", tmp_path / "x")
    assert "sample 'i3' comes twice" in message


def test_predict_is_compared_with_what_was_measured(cohort, tmp_path):
    """Phenotypes of --new-pheno are not used; those of analysed samples do not count."""
    table = pd.read_csv(f"{cohort}.tsv", sep="\t")
    truth = table.y.where(table.y.notna(), table.sex * 2.0)
    table.assign(y=truth.where(table.index != 119)).to_csv(
        tmp_path / "all.tsv", sep="\t", index=False, na_rep="NA"
    )
    (tmp_path / "ids.txt").write_text("\n".join(f"i{i}" for i in range(90, 120)))
    asked = ["--new-pheno", tmp_path / "all.tsv", "--samples", tmp_path / "ids.txt", "--seed", 4]
    printed = ok("predict", cohort, *of_y(cohort), *asked, "--out", tmp_path / "out")
    found = read(tmp_path / "out" / "predictions.tsv")
    assert np.allclose(found.y_observed[10:29], truth[100:119])
    assert found.y_observed[:10].isna().all()
    assert found.y_observed.isna()["i119"]
    r = np.corrcoef(found.y_mean[10:29], truth[100:119])[0, 1]
    said = " ".join(printed.split())
    assert f"What was measured and not used says: correlation {r:.2f} (" in said
    assert "(19 samples)." in said
    table.assign(y="later").to_csv(tmp_path / "all.tsv", sep="\t", index=False)
    message = refused("predict", cohort, *of_y(cohort), *asked, "--out", tmp_path / "x")
    assert "all.tsv: Phenotype 'y' is not numeric (sample 'i90': 'later')" in message
    assert "leave that column out, or name what means missing in it (--na)" in message
    ok("predict", cohort, *of_y(cohort), *asked, "--na", "later", "--out", tmp_path / "na")
    plain = ok("predict", cohort, *of_y(cohort), "--seed", 4, "--out", tmp_path / "plain")
    assert "not used" not in plain
    assert {"predictions.png", "predictions.tsv"} <= set(names(tmp_path / "plain"))
    expected = read(tmp_path / "plain" / "predictions.tsv").loc["i100":"i118"]
    pd.testing.assert_frame_equal(
        found.loc["i100":"i118"][["u_mean", "y_sd"]], expected[["u_mean", "y_sd"]]
    )


# -- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--formula", "mch ~ sexx"], "no column 'sexx'"),
        (["--formula", "mch"], "expected 'phenotype ~ covariates'"),
        (["--formula", "mch ~ 1", "--prior", "gamma(1)"], "--prior 'gamma\\(1\\)' is no prior"),
        (["--formula", "mch ~ 1", "--prior", "beta(1,.)"], "is no prior on h2"),
        (["--formula", "mch ~ 1", "--prior", "beta(0,1)"], "both parameters must be above 0"),
        (["--formula", "mch ~ 1", "--spike", "1"], "must be in \\[0, 1\\), but is 1"),
        (["--formula", "mch ~ 1", "--draws", "-1"], "--draws must not be negative"),
        (["--formula", "mch ~ 1", "--basis", "b"], "2 sources of relatedness were named"),
        (["--formula", "mch ~ 1", "--id", "nobody"], "no id column 'nobody'"),
    ],
)
def test_h2_refuses(mice, pheno, tmp_path, options, message):
    import re

    line = refused("h2", mice, "--pheno", pheno, "--out", tmp_path / "x", *options)
    assert re.search(message, line)
    assert names(tmp_path) == [], "nothing is left behind"


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        ("h2", "--missing", "'error', 'drop'"),
        ("h2", "--scale", "'standardized', 'centered', 'empirical', 'dominance'"),
        ("scan", "--background", "'all', 'loco', 'rest+chrom'"),
        ("scan", "--family", "'gaussian', 'binomial'"),
        ("scan", "--coding", "'additive', 'dominant', 'recessive', 'hetonly', 'genotypic'"),
        ("stepwise", "--test", "'wald', 'lrt', 'score', 'p3d'"),
        ("sample", "--snp-prior", "'normal', 'horseshoe', 'r2d2', 'spike_slab'"),
        ("sample", "--sampler", "'nutpie', 'pymc'"),
        ("partition", "--prior", "'uniform', 'split'"),
        ("rg", "--samples", "'common', 'all'"),
        ("threshold", "--method", "'simulate', 'permute'"),
        ("finemap", "--method", "'gibbs', 'susie', 'exact'"),
        ("grm", "--format", "'gcta', 'gemma'"),
    ],
)
def test_choices_are_named_where_one_is_unknown(command, option, choices):
    result = run(command, "cohort", option, "x")
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr
    assert f"'x' is not one of {choices}" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--test", "t"], "--test t: expected one or more of wald,lrt,score,p3d"),
        (["--no-kernel", "--grm", "k"], "Name one of --grm, --basis and --no-kernel"),
        (["--background", "loco", "--grm", "k"], "needs the variants of the relatedness matrix"),
        (["--test", "bayes"], "name a test with a p-value beside it"),
        (["--effect-sd", "wide"], "--effect-sd wide: expected numbers"),
        (["--scale", "centered", "--no-kernel"], "--scale makes a relatedness matrix"),
        (["--chrom", "Y"], "no chromosome 'Y'"),
        (["--basis", "nowhere.basis"], "not a saved eigenbasis"),
        (["--grm", "nowhere"], "nowhere.grm.bin: no such file"),
    ],
)
def test_scan_refuses(mice, pheno, tmp_path, options, message):
    model = ("--pheno", pheno, "--formula", "mch ~ sex", "--out", tmp_path / "x")
    assert message in refused("scan", mice, *model, *options)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--formula", "y ~ 1"], "2 times --formula: this command takes one trait"),
        (["--snps", "rs1", "--top", 2], "by --snps or by --top, not both"),
        (["--top", 2], "name its table with --scan"),
        (["--scan", "scan.tsv"], "--scan needs --top N"),
        (["--snp-prior", "normal"], "--snp-prior is for SNPs"),
        (["--target-accept", 1], "--target-accept must be between 0 and 1, but is 1"),
        (["--snps", "nobody"], "1 of 1 selected variants are not there: 'nobody'"),
        (["--scan", "nowhere.tsv", "--top", 2], "nowhere.tsv: no such file"),
        (["--grm", "k"], "2 sources of relatedness were named"),
        (["--snps", "rs1", "--grm", "k", "--maf", 0.1], "are taken as they are"),
        (["--snps", "rs1", "--grm", "k", "--basis", "b"], "2 sources of relatedness"),
    ],
)
def test_sample_refuses(cohort, tmp_path, options, message):
    line = refused("sample", cohort, *of_y(cohort), "--out", tmp_path / "x", *options)
    assert message in line
    assert names(tmp_path) == []


def test_sample_refuses_tables_that_are_no_scan(cohort, tmp_path):
    options = ("sample", cohort, *of_y(cohort), "--top", 2, "--out", tmp_path / "x", "--scan")
    assert "no column 'id', 'chrom'" in refused(*options, f"{cohort}.tsv")
    assert "not a table of bayeslmm scan" in refused(*options, f"{cohort}.bed")
    message = refused("sample", *of_y(cohort), "--grm", "k", "--snps", "rs1", "--out", "x")
    assert message == "The SNPs' genotypes are needed: give BFILE too."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--new", "a", "--samples", "b"], "by --new or by --samples, not both"),
        (["--prob", 1], "--prob must be between 0 and 1, but is 1"),
        (["--new", "nowhere"], "nowhere: no such file, nor one with"),
        (["--samples", "nowhere"], "nowhere: no such file"),
        (["--basis", "b"], "2 sources of relatedness were named"),
        (["--formula", "y ~ 1"], "2 times --formula"),
    ],
)
def test_predict_refuses(cohort, tmp_path, options, message):
    line = refused("predict", cohort, *of_y(cohort), "--out", tmp_path / "x", *options)
    assert message in line
    assert names(tmp_path) == []


def test_predict_needs_genotypes_and_somebody_to_predict(cohort, tmp_path):
    of = ("--grm", "k", *of_y(cohort), "--out", tmp_path / "x")
    assert "give BFILE instead of --grm or --basis" in refused("predict", *of, "--snp-effects")
    table = pd.read_csv(f"{cohort}.tsv", sep="\t").assign(y=np.arange(120.0))
    table.to_csv(tmp_path / "full.tsv", sep="\t", index=False)
    options = ("--pheno", tmp_path / "full.tsv", "--formula", "y ~ 1", "--out", tmp_path / "x")
    assert "there is nobody to predict" in refused("predict", cohort, *options)


def test_other_errors_are_one_line_too(mice, pheno, tmp_path):
    model = ("--pheno", pheno, "--formula", "mch ~ sex", "--no-kernel")
    assert "no such file" in refused("grm", tmp_path / "nobody", "--out", tmp_path / "k")
    assert "no such file" in refused("eigen", tmp_path / "k", "--out", tmp_path / "b")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    line = refused("scan", mice, *model, "--out", blocked / "x")
    assert "cannot write there" in line
    line = refused("scan", mice, *model, "--out", tmp_path, "--overwrite")
    assert "holds no results of bayeslmm" in line
    line = refused("scan", mice, *model, "--out", blocked, "--overwrite")
    assert "is not replaced" in line
    assert blocked.read_text() == "mine"
    stranger = tmp_path / "strangers.tsv"
    stranger.write_text("id\tmch\tsex\nann\t1\tF\nbob\t2\tM\n")
    line = refused(
        "scan", mice, "--pheno", stranger, "--formula", "mch ~ 1", "--no-kernel", "--out", "x"
    )
    assert "No sample of the phenotype table" in line


def test_operating_system_errors_are_one_line(monkeypatch, tmp_path):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "table.tsv")

    monkeypatch.setattr(demo_command, "make_grm", full)
    line = refused("demo", "--out", tmp_path / "x")
    assert line == "table.tsv: No space left on device."
    assert names(tmp_path) == []


def test_interruption_leaves_nothing(monkeypatch, mice, tmp_path):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    for module in (demo_command, kernel_commands):
        monkeypatch.setattr(module, "make_grm", stop)
    for arguments in (["demo", "--out", tmp_path / "x"], ["grm", mice, "--out", tmp_path / "k"]):
        result = run(*arguments)
        assert result.exit_code == 130
        assert "interrupted; no results were written" in result.stderr
        assert names(tmp_path) == []


def test_unexpected_errors_keep_their_traceback(monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(demo_command, "make_grm", broken)
    result = run("demo", "--out", tmp_path / "x")
    assert isinstance(result.exception, ZeroDivisionError)


def test_installed_command_reports_errors_on_stderr(tmp_path):
    code = "from bayeslmm.cli import main; main()"
    arguments = ["grm", str(tmp_path / "nobody"), "--out", str(tmp_path / "k")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'nobody'}: no such file, nor one with .bed, ")


# -- results ---------------------------------------------------------------------------------


def test_result_files_come_all_or_none(tmp_path):
    prefix = tmp_path / "a" / "k"

    def half() -> None:
        with result_files(prefix, [".x", ".y"]) as aside:
            aside.with_suffix(".x").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert names(tmp_path / "a") == []
    with result_files(prefix, [".x", ".y"]) as aside:
        for ending in (".x", ".y"):
            aside.with_suffix(ending).write_text("whole")
    assert names(tmp_path / "a") == ["k.x", "k.y"]


def test_result_folder_is_replaced_only_if_ours(tmp_path):
    out = tmp_path / "r"
    with result_folder(out) as folder:
        (folder / results.PROVENANCE).write_text("{}")
    with result_folder(out, overwrite=True) as folder:
        (folder / "new").write_text("")
    assert names(out) == ["new"]
    with pytest.raises(bl.InputError, match="holds no results"), result_folder(out, overwrite=True):
        pass


def test_tables_are_reproducible_bytes(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "p": [1e-300, np.nan]})
    for name in ("a.tsv.gz", "b.tsv.gz"):
        results.write_table(table, tmp_path / name)
    contents = [(tmp_path / name).read_bytes()[20:] for name in ("a.tsv.gz", "b.tsv.gz")]
    assert contents[0] == contents[1]
    text = gzip.decompress((tmp_path / "a.tsv.gz").read_bytes()).decode()
    assert text == "id\tp\na\t1e-300\nb\tNA\n"


def test_trait_names_are_safe_as_file_names():
    assert trait_names(["log(a/b) ~ 1", "../x ~ 1", "~ 1"]) == ["log_a_b", "x", "y"]


@pytest.mark.parametrize(
    ("factor", "options", "said"),
    [
        (1.8, {"kernel": True, "loco": True}, "in families compare with --background all"),
        (1.8, {"kernel": True}, "the QQ plot tells more"),
        (1.8, {"kernel": False}, "leave out --no-kernel"),
        (0.8, {"kernel": True}, "on the safe side"),
        (1.0, {"kernel": True, "loco": True}, "as it should be"),
    ],
)
def test_what_a_lambda_may_mean(factor, options, said):
    assert said in genome_commands._inflation(factor, **options)


def test_every_command_reads_every_format_and_says_so():
    from typer.main import get_command

    told = {
        name: param.help
        for name, command in get_command(cli.app).commands.items()
        for param in command.params
        if param.name == "bfile"
    }
    assert len(told) > 10
    assert all("Genotypes: .bed, .pgen, .bgen, .vcf" in text for text in told.values()), told
