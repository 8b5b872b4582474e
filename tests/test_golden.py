"""Against what other programs computed: tests/golden/README.md says how, tolerances.py how well."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tolerances import GOLDEN

import bayeslmm as bl
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.maximum import maximise_h2

pytestmark = pytest.mark.golden
FOLDER = Path(__file__).parent / "golden"
TESTS = ("wald", "lrt", "score")


@cache
def mice():
    return bl.datasets.mouse_hs1940()


@cache
def phenotypes():
    covariates = pd.read_csv(FOLDER / "covariates.tsv", sep="\t", dtype={"id": str})
    return mice().phenotypes.join(covariates.set_index("id"))


@cache
def genotypes(source):
    """All mice; "missing" hides some genotypes of chromosomes 15 to 19."""
    whole = mice().genotypes
    if source == "complete":
        return whole
    spec = importlib.util.spec_from_file_location("make_missing", FOLDER / "make_missing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x = whole.to_array()
    x[module.hidden().T] = np.nan
    keep = (whole.variants.chrom.astype(int) >= 15).to_numpy()
    return bl.Genotypes.from_array(
        x[:, keep], samples=list(whole.samples.index), variants=whole.variants[keep]
    )


@cache
def filtered(source, phenotype):
    """GEMMA's filters: MAF and missingness among the mice with the phenotype."""
    present = phenotypes()[phenotype].dropna().index
    return genotypes(source).select(samples=list(present), min_maf=0.01, max_missing=0.05)


@cache
def kernel(source, phenotype):
    """GEMMA's -gk 1: all mice, the SNPs that pass among those with the phenotype."""
    kept = filtered(source, phenotype).variants.id
    return bl.grm(
        genotypes(source).select(variants=kept), scale="centered", dtype="float64", by_chrom=True
    )


@cache
def table(name, ids="rs"):
    return pd.read_csv(FOLDER / f"{name}.tsv.gz", sep="\t").set_index(ids)


# formula, genotypes; pve, se(pve), vg, ve, REML and ML log-likelihoods; coefficients and SEs
LOGS = {
    "gemma_cd8_lmm": (
        "cd8 ~ 1",
        "complete",
        (0.609672, 0.0327788, 1.47914, 0.340552, -1584.07, -1584.45),
        [],
        [0.0155411],
    ),
    "gemma_mch_lmm": (
        "mch ~ 1",
        "complete",
        (0.635863, 0.0314301, 2.08764, 0.431933, -1972.02, -1972.52),
        [],
        [0.0165341],
    ),
    "gemma_cd8_covariates_lmm": (
        "cd8 ~ sex01 + age",
        "complete",
        (0.613174, 0.032693, 1.49316, 0.33875, -1581.16, -1582.66),
        [0.0270525, -0.0554556, -0.0300639],
        [0.0239005, 0.0377335, 0.0259202],
    ),
    "gemma_cd8_missing_lmm": (
        "cd8 ~ sex01 + age",
        "missing",
        (0.475862, 0.0430883, 1.38973, 0.512337, -1691.55, -1693.45),
        [0.0172529, -0.0350478, -0.0342208],
        [0.0276368, 0.0414946, 0.028702],
    ),
}


@cache
def model(name):
    formula, source = LOGS[name][:2]
    return bl.LMM(formula, phenotypes(), kernel(source, formula.split()[0]))


@cache
def scanned(name, dtype):
    formula, source = LOGS[name][:2]
    found = model(name).scan(filtered(source, formula.split()[0]), TESTS, dtype=dtype)
    return found.set_index("id")


@pytest.mark.parametrize("name", LOGS)
def test_the_numbers_here_are_those_of_the_log(name):
    text = (FOLDER / f"{name}.log.txt").read_text()
    _, _, numbers, b, se = LOGS[name]
    for number in [*numbers, *b, *se]:
        assert f"{number:g}" in text


@pytest.mark.parametrize("name", LOGS)
def test_gemma_null_model(name):
    _, _, (pve, se_pve, vg, ve, reml, ml), b, se = LOGS[name]
    fit = model(name).reml()
    assert fit.n == len(model(name).y)
    estimates = np.array([fit.h2, fit.s2_g, fit.s2_e])
    GOLDEN["gemma h2, s2_g, s2_e"].check(estimates / [pve, vg, ve] - 1)
    GOLDEN["gemma se of h2"].check(fit.h2_se / se_pve - 1)
    data = model(name).rotated
    h2_ml = maximise_h2(lambda h2: likelihood.full_loglik(data, h2))
    ml_found = likelihood.full_loglik(data, np.array([h2_ml]))[0]
    GOLDEN["gemma loglik"].check([fit.loglik / reml - 1, ml_found / ml - 1])
    GOLDEN["gemma b and se"].check(fit.b.se.to_numpy() / se - 1)
    if b:
        GOLDEN["gemma b and se"].check(fit.b.estimate.to_numpy() / b - 1)


def test_gemma_cd8_to_five_digits():
    fit = model("gemma_cd8_lmm").reml()
    for found, expected in [
        (fit.h2, "0.60967"),
        (fit.h2_se, "0.032779"),
        (fit.s2_g, "1.4791"),
        (fit.s2_e, "0.34055"),
    ]:
        assert f"{found:.5g}" == expected


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", LOGS)
def test_gemma_scan(name, dtype):
    gemma, found = table(f"{name}.assoc"), scanned(name, dtype)
    assert found.index.tolist() == gemma.index.tolist()
    assert found.ea.tolist() == gemma.allele1.tolist()
    assert found.oa.tolist() == gemma.allele0.tolist()
    assert found.n_missing.tolist() == gemma.n_miss.tolist()
    GOLDEN["gemma af"].check(found.eaf - gemma.af)
    suffix = "" if dtype == "float64" else " float32"
    for test in TESTS:
        GOLDEN[f"gemma p_{test}{suffix}"].check(np.log10(found[f"p_{test}"] / gemma[f"p_{test}"]))
    GOLDEN[f"gemma beta over se{suffix}"].check((found.beta - gemma.beta) / gemma.se)
    GOLDEN[f"gemma se{suffix}"].check(found.se / gemma.se - 1)
    GOLDEN[f"gemma l_remle{suffix}"].check(found.l_remle / gemma.l_remle - 1)
    np.testing.assert_allclose(found.neg_log10_p, -np.log10(found.p_wald), rtol=1e-12)


def test_p3d_is_close_where_effects_are_small_and_off_at_the_top():
    found = model("gemma_cd8_lmm").scan(filtered("complete", "cd8"), ["wald", "p3d"])
    difference = np.abs(np.log10(found.p_p3d / found.p_wald))
    assert difference.median() < 1e-3
    assert difference.max() == pytest.approx(0.8, abs=0.05), "ANCHORS.md: up to 0.8"


def check_loco(chromosomes):
    jamma, snps = table("jamma_cd8_loco.assoc"), filtered("complete", "cd8")
    whole = kernel("complete", "cd8")
    for chrom in chromosomes:
        lmm = bl.LMM("cd8 ~ 1", phenotypes(), whole.loco(chrom))
        found = lmm.scan(snps.select(chrom=chrom), TESTS).set_index("id")
        expected = jamma[jamma.chr == int(chrom)]
        assert found.index.tolist() == expected.index.tolist()
        for test in TESTS:
            GOLDEN["jamma p"].check(np.log10(found[f"p_{test}"] / expected[f"p_{test}"]))
        GOLDEN["jamma l_remle"].check(found.l_remle / expected.l_remle - 1)


def test_jamma_loco():
    check_loco(["17"])


@pytest.mark.slow
def test_jamma_loco_other_chromosomes():
    # A decomposition each. All 19 were compared once: the largest difference is that of 17.
    check_loco(["1", "19"])


def test_jamma_loco_in_one_call():
    """All 19 chromosomes, without decompositions: `background="loco"`."""
    jamma, snps = table("jamma_cd8_loco.assoc"), filtered("complete", "cd8")
    lmm = bl.LMM("cd8 ~ 1", phenotypes(), kernel("complete", "cd8"))
    found = lmm.scan(snps, TESTS, background="loco").set_index("id")
    assert found.index.tolist() == jamma.index.tolist()
    for test in TESTS:
        GOLDEN["jamma p, one call"].check(np.log10(found[f"p_{test}"] / jamma[f"p_{test}"]))
    GOLDEN["jamma l_remle, one call"].check(found.l_remle / jamma.l_remle - 1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("name", "formula"),
    [("plink2_cd8", "cd8 ~ 1"), ("plink2_cd8_covariates", "cd8 ~ sex01 + age")],
)
def test_plink2_regression(name, formula, dtype):
    plink = table(f"{name}.glm.linear", "ID")
    assert (plink.OBS_CT == 1410).all(), "no genotype is missing: all are comparable"
    snps = genotypes("complete").select(variants=plink.index)
    found = bl.LMM(formula, phenotypes()).scan(snps, dtype=dtype).set_index("id")
    assert found.index.tolist() == plink.index.tolist()
    assert found.ea.tolist() == plink.A1.tolist()
    constant = plink.ERRCODE == "CONST_OMITTED_ALLELE"
    assert found.p_wald.isna().tolist() == constant.tolist() == plink.P.isna().tolist()
    assert found.attrs["n_monomorphic"] == constant.sum() == 1018
    found, plink = found[~constant], plink[~constant]
    GOLDEN["plink2 p"].check(np.log10(found.p_wald / plink.P))
    GOLDEN["plink2 beta and se"].check(found.beta / plink.BETA - 1)
    GOLDEN["plink2 beta and se"].check(found.se / plink.SE - 1)


def test_plink2_drops_mice_where_bayeslmm_imputes():
    """The other policy, SNP by SNP: without the mice that lack the genotype, plink2's numbers."""
    plink = table("plink2_cd8_missing.glm.linear", "ID")
    snps = genotypes("missing").select(variants=plink.index)
    imputed = bl.LMM("cd8 ~ sex01 + age", phenotypes()).scan(snps).set_index("id")
    assert (1410 - imputed.n_missing == plink.OBS_CT).all()
    assert (imputed.n == 1410).all()
    constant = plink.P.isna()
    assert (imputed.p_wald.isna() == constant).all()
    difference = np.abs(np.log10(imputed.p_wald / plink.P))[~constant]
    assert difference.max() > 0.1
    assert difference.median() < 0.05
    for snp in plink.index[~constant][::60]:
        one = genotypes("missing").select(variants=[snp])
        has = ~np.isnan(one.to_array()[:, 0])
        kept = phenotypes().assign(cd8=phenotypes().cd8.where(has)).dropna(subset="cd8")
        found = bl.LMM("cd8 ~ sex01 + age", kept).scan(one).iloc[0]
        assert found.n == plink.OBS_CT[snp]
        GOLDEN["plink2 p"].check(np.log10(found.p_wald / plink.P[snp]))
        GOLDEN["plink2 beta and se"].check(found.beta / plink.BETA[snp] - 1)


def test_posterior_of_the_mice():
    """Exact posterior of CD8's h2 under the uniform prior: ../shared/ANCHORS.md and the issue."""
    lmm = model("gemma_cd8_lmm")
    posterior = lmm.h2_posterior()
    assert posterior.mean == pytest.approx(0.608, abs=5e-4)
    assert posterior.sd == pytest.approx(0.0326, abs=5e-5)
    equal_tailed = posterior.quantile([0.025, 0.975])
    np.testing.assert_allclose(equal_tailed, [0.542, 0.670], atol=5.1e-4)
    low, high = posterior.hdi(0.95)
    assert posterior.cdf(high) - posterior.cdf(low) == pytest.approx(0.95, abs=1e-7)
    assert high - low < equal_tailed[1] - equal_tailed[0]
    # REML +- 1.96 SE
    fit = lmm.reml()
    np.testing.assert_allclose(
        [low, high], [fit.h2 - 1.96 * fit.h2_se, fit.h2 + 1.96 * fit.h2_se], atol=0.005
    )
    draws = lmm.posterior(4000, seed=1).posterior
    assert float(draws.h2.mean()) == pytest.approx(posterior.mean, abs=4 * 0.0326 / 4000**0.5)
    assert float(draws.h2.std()) == pytest.approx(posterior.sd, rel=4 / 8000**0.5)
    # GCTA's and GEMMA's conventions, draw by draw
    np.testing.assert_allclose(
        draws.s2_g * lmm.basis.kappa / (draws.s2_g * lmm.basis.kappa + draws.s2_e), draws.h2
    )
    assert float(draws.s2_g.mean()) == pytest.approx(1.479, abs=0.03)


# -- two traits -------------------------------------------------------------------------------


@cache
def two_traits():
    """GEMMA's GRM here is that of gemma_cd8_lmm: SNPs filtered among the mice with CD8."""
    return bl.BivariateLMM(["cd8 ~ 1", "mch ~ 1"], phenotypes(), kernel("complete", "cd8"))


TWO_TRAITS = {
    "genetic": (1.39482, -0.225765, 2.08207),
    "genetic_se": (0.15673, 0.136344, 0.23584),
    "residual": (0.348551, 0.0489655, 0.414222),
    "residual_se": (0.0206234, 0.0166265, 0.0266945),
}


def test_two_traits_are_those_of_gemma():
    text = (FOLDER / "gemma_cd8_mch_bivariate.log.txt").read_text()
    fit = two_traits().reml()
    assert fit.n == 1197
    for name, numbers in TWO_TRAITS.items():
        assert all(f"{number}" in text for number in numbers)
        found = getattr(fit, name).to_numpy().flat[[0, 1, 3]]
        kind = "gemma bivariate se" if name.endswith("se") else "gemma bivariate G, R"
        GOLDEN[kind].check(found / np.array(numbers) - 1)
    GOLDEN["gemma loglik"].check(fit.loglik / -2855.07 - 1)
    GOLDEN["gemma bivariate b"].check(fit.b.estimate.to_numpy() - [0.00742517, 0.00172204])
    GOLDEN["gemma bivariate se"].check(fit.b.se.to_numpy() / [0.0170642, 0.0186024] - 1)


def test_the_posterior_of_the_genetic_correlation_of_two_traits_of_mice():
    """Computed before with another program: -0.130, 95% from -0.292 to 0.029, P(> 0) 0.055."""
    found = two_traits().posterior(8000, seed=1)["posterior"].dataset
    rg = found.rg.to_numpy()
    assert rg.mean() == pytest.approx(-0.130, abs=0.004)
    np.testing.assert_allclose(np.quantile(rg, [0.025, 0.975]), [-0.292, 0.029], atol=0.012)
    assert (rg > 0).mean() == pytest.approx(0.055, abs=0.01)
    assert float(found.re.mean()) == pytest.approx(0.128, abs=0.003)
    np.testing.assert_allclose(found.h2.mean(["chain", "draw"]), [0.587, 0.641], atol=0.004)
