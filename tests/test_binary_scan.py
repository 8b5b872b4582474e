"""Scans of cases and controls: plink2, statsmodels, codes, tables, bad input."""

import numpy as np
import pandas as pd
import pytest
from tolerances import GOLDEN

import bayeslmm as bl
from bayeslmm.binary.scan import FEW_ALLELES
from bayeslmm.inputs.case_control import case_control


@pytest.fixture(scope="module")
def binary(mice, golden):
    """The mice with a high CD8 (half of them) and a very high one (40 of 1,410) as cases."""
    covariates = pd.read_csv(golden / "covariates.tsv", sep="\t", index_col="id")
    table = mice.phenotypes.join(covariates)
    for name, limit in (("high", 0), ("top", 1.9)):
        table[name] = (table.cd8 > limit).astype(float).where(table.cd8.notna())
    return table


def plink(golden, name):
    table = pd.read_csv(golden / f"plink2_cd8_{name}.tsv.gz", sep="\t")
    return table.rename(columns={"#ID": "id", "FIRTH?": "firth"}).set_index("id")


def scanned(mice, binary, trait, peer, **options):
    model = bl.LMM(f"{trait} ~ sex01 + age", binary)
    genotypes = mice.genotypes.select(variants=list(peer.index))
    found = model.scan(genotypes, family="binomial", progress=False, **options).set_index("id")
    return found.loc[peer.index]


@pytest.mark.golden
@pytest.mark.parametrize("trait", ["high", "top"])
def test_plink2_hybrid(mice, binary, golden, trait):
    """Where both fit by maximum likelihood: beta, se and p to four digits.

    plink2 computes these in single precision.
    """
    peer = plink(golden, f"{trait}.glm.logistic.hybrid")
    ours = scanned(mice, binary, trait, peer)
    both = (peer.firth == "N") & peer.BETA.notna() & (ours.method == "wald")
    assert both.sum() > 0.7 * peer.BETA.notna().sum()
    peer, ours = peer[both], ours[both]
    assert (ours.ea == peer.A1).all()
    assert (ours.n == peer.OBS_CT).all()
    GOLDEN["plink2 log odds"].check((ours.beta - peer.BETA) / peer.SE)
    GOLDEN["plink2 log odds se"].check(ours.se / peer.SE - 1)
    GOLDEN["plink2 log odds p"].check(np.log10(ours.p_wald / peer.P))
    counts = ours.eaf_cases * 2 * ours.n_cases
    np.testing.assert_allclose(counts, peer.A1_CASE_CT, atol=1e-6)
    controls = ours.eaf_controls * 2 * (ours.n - ours.n_cases)
    np.testing.assert_allclose(controls, peer.A1_CTRL_CT, atol=1e-6)


@pytest.mark.golden
def test_plink2_falls_back_only_where_we_do(mice, binary, golden):
    peer = plink(golden, "top.glm.logistic.hybrid")
    ours = scanned(mice, binary, "top", peer)
    assert (ours.method[peer.firth == "Y"] == "firth").all()
    assert ours.method[peer.BETA.isna()].isna().all()
    rare = np.minimum(peer.A1_CASE_CT, 2 * 40 - peer.A1_CASE_CT) < FEW_ALLELES
    assert (ours.method[rare & peer.BETA.notna()] == "firth").all()
    assert ours.p_firth[ours.method == "firth"].notna().all()
    assert ours.p_firth[ours.method == "wald"].isna().all()


@pytest.mark.golden
def test_plink2_firth(mice, binary, golden):
    """plink2 stops its scoring steps a thousandth of a standard error before the maximum."""
    peer = plink(golden, "top.glm.firth")
    ours = scanned(mice, binary, "top", peer, tests="firth")
    there = peer.BETA.notna()
    assert (ours.method[there] == "firth").all()
    GOLDEN["plink2 firth log odds"].check(((ours.beta - peer.BETA) / peer.SE)[there])
    GOLDEN["plink2 firth se"].check((ours.se / peer.SE - 1)[there])
    GOLDEN["plink2 firth p"].check(np.log10(ours.p_wald / peer.P)[there])


@pytest.mark.golden
def test_statsmodels(mice, binary, golden):
    peer = pd.read_csv(golden / "statsmodels_cd8_high.tsv", sep="\t").set_index("id")
    ours = scanned(mice, binary, "high", peer)
    GOLDEN["statsmodels"].check((ours.beta - peer.beta) / peer.se)
    GOLDEN["statsmodels"].check(ours.se / peer.se - 1)
    GOLDEN["statsmodels p_wald"].check(np.log10(ours.p_wald / peer.p_wald))
    GOLDEN["statsmodels"].check(np.log10(ours.p_score / peer.p_score))


# -- what the table says -----------------------------------------------------------------------


@pytest.fixture
def small(rng):
    """A table with a case/control phenotype, and dosages with missing ones."""
    n = 400
    x = rng.binomial(2, [0.3, 0.45, 0.2, 0.01], size=(n, 4)).astype(float)
    x[:5, 0], x[7:9, 1] = np.nan, np.nan
    age = rng.normal(size=n)
    eta = 0.6 * np.nan_to_num(x[:, 0]) + 0.5 * age - 1
    case = rng.random(n) < 1 / (1 + np.exp(-eta))
    ids = [f"s{i}" for i in range(n)]
    return pd.DataFrame({"case": case, "age": age}, index=ids), bl.Genotypes.from_array(x, ids)


CODES = {
    "0/1": lambda case: case.astype(int),
    "1/2": lambda case: case.astype(int) + 1,
    "boolean": lambda case: case,
    "nullable": lambda case: case.astype("boolean"),
    "words": lambda case: case.map({True: "Affected", False: "Unaffected"}),
    "category": lambda case: case.map({True: "yes", False: "no"}).astype("category"),
}
LEVELS = {
    "0/1": ("1", "0"),
    "1/2": ("2", "1"),
    "boolean": ("True", "False"),
    "nullable": ("True", "False"),
    "words": ("Affected", "Unaffected"),
    "category": ("yes", "no"),
}


@pytest.mark.parametrize("code", CODES)
def test_codes_mean_the_same_and_are_stated(small, code):
    table, genotypes = small
    expected = bl.LMM("case ~ age", table).scan(genotypes, family="binomial")
    model = bl.LMM("case ~ age", table.assign(case=CODES[code](table.case)))
    found = model.scan(genotypes, family="binomial")
    pd.testing.assert_frame_equal(found, expected)
    case, control = LEVELS[code]
    assert (found.attrs["case"], found.attrs["control"]) == (case, control)
    assert f"cases ('{case}')" in repr(model)
    assert found.n_cases.eq(int(table.case.sum())).all()


def test_words_of_a_file(small, tmp_path):
    table, genotypes = small
    words = table.case.map({True: "case", False: "control"})
    words.iloc[3] = None
    path = tmp_path / "pheno.tsv"
    table.assign(case=words).rename_axis("IID").to_csv(path, sep="\t", na_rep="NA")
    found = bl.scan(bl.LMM("case ~ age", path), genotypes, family="binomial")
    assert found.attrs["case"] == "case"
    assert found.n.eq(len(table) - 1).all()


def test_frequencies_and_missing_genotypes(small):
    table, genotypes = small
    found = bl.LMM("case ~ age", table).scan(genotypes, family="binomial")
    x = genotypes.to_array()
    case = table.case.to_numpy()
    np.testing.assert_allclose(found.eaf_cases, np.nanmean(x[case], axis=0) / 2)
    np.testing.assert_allclose(found.eaf_controls, np.nanmean(x[~case], axis=0) / 2)
    assert list(found.n_missing) == [5, 2, 0, 0]
    filled = np.where(np.isnan(x), np.nanmean(x, axis=0), x)
    again = bl.LMM("case ~ age", table).scan(
        bl.Genotypes.from_array(filled, list(table.index)), family="binomial"
    )
    np.testing.assert_allclose(found.beta, again.beta, rtol=1e-9)


def test_odds_ratios_and_their_intervals(small):
    table, genotypes = small
    found = bl.LMM("case ~ age", table).scan(genotypes, family="binomial")
    np.testing.assert_allclose(found["or"], np.exp(found.beta))
    np.testing.assert_allclose(np.log(found.or_high / found.or_low), 2 * 1.959964 * found.se)
    by_method = np.where(found.method == "firth", found.p_firth, found.p_wald)
    np.testing.assert_allclose(10.0**-found.neg_log10_p, by_method)


def test_other_case_and_other_allele_turn_the_sign(small):
    table, genotypes = small
    tests = ("wald", "score", "spa", "firth")
    options = {"family": "binomial", "tests": tests}
    found = bl.LMM("case ~ age", table).scan(genotypes, **options)
    turned = bl.LMM("case ~ age", table.assign(case=~table.case)).scan(genotypes, **options)
    other = bl.Genotypes.from_array(2 - genotypes.to_array(), list(table.index))
    swapped = bl.LMM("case ~ age", table).scan(other, **options)
    for again in (turned, swapped):
        np.testing.assert_allclose(again.beta, -found.beta, rtol=1e-6)
        for name in ("se", "p_wald", "p_score", "p_spa", "p_firth"):
            np.testing.assert_allclose(again[name], found[name], rtol=1e-6)


def test_order_of_samples_changes_nothing(small, rng):
    table, genotypes = small
    found = bl.LMM("case ~ age", table).scan(genotypes, family="binomial")
    shuffled = table.iloc[rng.permutation(len(table))]
    again = bl.LMM("case ~ age", shuffled).scan(genotypes, family="binomial")
    np.testing.assert_allclose(again.beta, found.beta, rtol=1e-8)


def test_options_of_the_scan_hold(small):
    table, genotypes = small
    model = bl.LMM("case ~ age", table)
    snp = genotypes.variants.id[0]
    conditional = model.scan(genotypes, family="binomial", condition_on=[snp]).set_index("id")
    assert np.isnan(conditional.beta[snp])
    assert conditional.attrs["n_explained_by_covariates"] == 1
    assert conditional.attrs["condition_on"] == [snp]
    dominant = model.scan(genotypes, family="binomial", coding="dominant")
    x = genotypes.to_array()
    carrier = bl.Genotypes.from_array(np.where(np.isnan(x), np.nan, x > 0), list(table.index))
    np.testing.assert_allclose(
        dominant.beta, model.scan(carrier, family="binomial").beta, rtol=1e-8
    )
    both = bl.scan({"a": model, "b": model}, genotypes, "score", family="binomial")
    pd.testing.assert_frame_equal(both["a"], both["b"])


def test_linear_scan_of_cases_says_what_it_is(small, caplog):
    table, genotypes = small
    bl.LMM("case ~ age", table).scan(genotypes, "wald")
    assert "observed scale" in caplog.text
    assert "family='binomial'" in caplog.text
    hits = bl.LMM("age ~ 1", table).scan(genotypes, "wald")
    assert "phenotype" not in hits.attrs


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 2], r"values 0 \(\d+ samples\), 1 .* 0 means missing, as in PLINK's .fam"),
        ([1.5, 2.5], "is not case/control: it has '1.5', '2.5'. A case/control phenotype is 0"),
        ([-1, 0, 1, 3, 4], "and 2 more of 5 different values.*leave out family='binomial'"),
    ],
)
def test_other_codes_are_refused(small, values, message):
    table, genotypes = small
    table = table.assign(case=np.resize(values, len(table)))
    with pytest.raises(bl.InputError, match=message):
        bl.LMM("case ~ age", table).scan(genotypes, family="binomial")


def test_a_quantitative_trait_is_no_case_control(mice):
    model = bl.LMM("cd8 ~ 1", mice.phenotypes)
    with pytest.raises(bl.InputError, match="'cd8' is not case/control"):
        case_control(model)
    assert "observed scale" not in repr(model)


@pytest.mark.parametrize("words", [("A", "B"), ("case", "no"), ("case", "cases")])
def test_words_that_do_not_say_who_is_a_case(small, words):
    table, _ = small
    table = table.assign(case=np.where(table.case, *words))
    with pytest.raises(bl.InputError, match="Expected numbers, or for cases and controls words"):
        bl.LMM("case ~ age", table)


def test_one_class_only(small):
    table, _ = small
    for value in (1, "case"):
        with pytest.raises(bl.InputError, match="has the same value, 1, in all 400 samples"):
            bl.LMM("case ~ age", table.assign(case=value))
    model = bl.LMM("case ~ age", table).with_phenotype(np.ones(len(table)))
    with pytest.raises(bl.InputError, match="'case' is 1 in all 400 samples: there are no cases"):
        case_control(model)
    assert "observed scale" not in repr(model)


def test_separating_covariate(small):
    table, genotypes = small
    model = bl.LMM("case ~ age + treated", table.assign(treated=table.case * 1.0))
    with pytest.raises(bl.InputError, match=r"separate cases from controls.*'treated'"):
        model.scan(genotypes, family="binomial")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "poisson"}, "family='poisson' is unknown; expected one of 'gaussian'"),
        ({"tests": "lrt"}, "tests='lrt' for family='binomial': expected one or more of 'wald'"),
        ({"background": "loco"}, "family='binomial' has no background"),
        ({"interaction": "age"}, "family='binomial' has no interaction"),
        ({"effect_prior": 0.1}, "family='binomial' has no effect_prior"),
        ({"prior_odds": 0.1}, "family='binomial' has no prior_odds"),
    ],
)
def test_options_that_it_does_not_have(small, options, message):
    table, genotypes = small
    with pytest.raises(bl.InputError, match=message):
        bl.LMM("case ~ age", table).scan(genotypes, **({"family": "binomial"} | options))
