"""Conditional scans, regions, and the stepwise search."""

import dense
import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.genome import backgrounds, selection
from bayeslmm.inputs.regions import parse_region

pytestmark = pytest.mark.algebra
TESTS = ("wald", "lrt", "score", "p3d", "bayes")


def cohort(n=120, m=40, chromosomes=3, seed=0):
    rng = np.random.default_rng([seed, n])
    X = rng.binomial(2, rng.uniform(0.2, 0.8, m * chromosomes), size=(n, m * chromosomes))
    X = X.astype(float)
    info = pd.DataFrame(
        {
            "id": [f"rs{j}" for j in range(m * chromosomes)],
            "chrom": np.repeat([str(17 + c) for c in range(chromosomes)], m),
            "pos": np.tile(1000 * np.arange(1, m + 1), chromosomes),
        }
    )
    ids = [f"s{i}" for i in range(n)]
    genotypes = bl.Genotypes.from_array(X, samples=ids, variants=info)
    z = (X - X.mean(0)) / X.std(0)
    y = z @ rng.normal(size=z.shape[1]) / np.sqrt(z.shape[1]) + rng.normal(size=n)
    y += 1.5 * z[:, 5] - 1.2 * z[:, 50] + 1.0 * z[:, 7]
    table = pd.DataFrame({"y": y, "age": rng.normal(size=n)}, index=ids)
    return genotypes, table, X


# -- further covariates ------------------------------------------------------------------------


def test_a_model_with_further_covariates_is_the_model_of_the_longer_formula():
    genotypes, table, X = cohort()
    K = bl.grm(genotypes)
    lmm = bl.LMM("y ~ age", table, K)
    extra = pd.DataFrame({"rs 1": X[:, 1], "rs2": X[:, 2]}, index=table.index).iloc[::-1]
    made = lmm.with_covariates(extra)
    assert made.basis is lmm.basis
    assert made.formula == "y ~ age + `rs 1` + rs2"
    assert list(lmm.C.columns) == ["Intercept", "age"]
    written = bl.LMM("y ~ age + `rs 1` + rs2", table.assign(**extra.iloc[::-1]), K)
    np.testing.assert_allclose(made.reml().b, written.reml().b, rtol=1e-8)
    assert made.reml().h2 == pytest.approx(written.reml().h2, rel=1e-8)
    new = pd.DataFrame({"age": [1.0], "rs 1": [2.0], "rs2": [0.0]}, index=["s3"])
    part = bl.LMM("y ~ age", table.drop("s3"), K).with_covariates(extra.drop("s3"))
    whole = bl.LMM("y ~ age + `rs 1` + rs2", table.assign(**extra.iloc[::-1]).drop("s3"), K)
    predicted, expected = (
        one.predict(samples=["s3"], data=new, seed=1).y_mean for one in (part, whole)
    )
    np.testing.assert_allclose(predicted, expected, rtol=1e-6)
    with pytest.raises(InputError, match="new samples lack the column 'rs 1', 'rs2'"):
        part.predict(samples=["s3"], data=new[["age"]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], "lack 1 of 120 analysed samples: 's0'"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "name samples twice: 's0'"),
        (lambda t: t.set_axis(["age"], axis=1), "Covariates of the same name: 'age'"),
        (lambda t: t.assign(E=t.E.mask(t.index == "s3")), r"missing for some samples \('E' 1\)"),
        (lambda t: t * 0 + 1, "'E' is constant among the analysed samples: collinear"),
        (lambda t: t.assign(E="a"), "Covariate 'E' is not numeric"),
        (lambda t: t.assign(F=t.E * 2), "'F' is a linear combination of 'E': collinear"),
    ],
)
def test_further_covariates_that_are_refused(change, message):
    _, table, X = cohort()
    lmm = bl.LMM("y ~ age", table)
    with pytest.raises(InputError, match=message):
        lmm.with_covariates(change(pd.DataFrame({"E": X[:, 0]}, index=table.index)))


# -- conditional scans -------------------------------------------------------------------------


def test_conditional_scan_equals_dense():
    genotypes, table, X = cohort()
    lmm = bl.LMM("y ~ age", table, bl.grm(genotypes, dtype="float64"))
    found = lmm.scan(genotypes, TESTS[:4], dtype="float64", condition_on=["rs5", "rs50"])
    C = np.column_stack([np.ones(len(X)), table.age, X[:, [5, 50]]])
    K = bl.grm(genotypes, dtype="float64").matrix
    for j in (0, 7, 60):
        expected = dense.variant_tests(table.y.to_numpy(), C, K, X[:, j])
        for test in TESTS[:4]:
            got = np.log10(found[f"p_{test}"].iloc[j])
            assert got == pytest.approx(expected[test], abs=3e-6, rel=3e-6)
    assert found.loc[[5, 50], ["beta", "p_wald", "p_lrt"]].isna().all(axis=None)
    assert found.attrs["n_explained_by_covariates"] == 2
    assert found.attrs["condition_on"] == ["rs5", "rs50"]
    assert found.attrs["formula"] == "y ~ age + rs5 + rs50"


@pytest.mark.parametrize("background", ["all", "loco", "rest+chrom"])
@pytest.mark.parametrize("small", [0, 10**6], ids=["between nodes", "eigenbasis"])
def test_conditioning_is_a_covariate_in_every_test_and_background(monkeypatch, background, small):
    monkeypatch.setattr(backgrounds, "_SMALL", small)
    genotypes, table, X = cohort()
    K = bl.grm(genotypes)
    twin = 2 - X[:, 5]
    found = bl.LMM("y ~ age", table, K).scan(
        genotypes, TESTS, background=background, condition_on=["rs5"]
    )
    expected = bl.LMM("y ~ age + g", table.assign(g=twin), K).scan(
        genotypes, TESTS, background=background
    )
    pd.testing.assert_frame_equal(found, expected, rtol=2e-3)
    assert found.loc[5, ["beta", "log10_bf"]].isna().all()


def test_conditioning_on_a_table_and_several_models():
    genotypes, table, X = cohort()
    dosages = pd.DataFrame({"rs5": X[:, 5]}, index=table.index).iloc[::-1]
    one = bl.LMM("y ~ age", table, bl.grm(genotypes))
    two = one.with_phenotype(table.y.to_numpy()[::-1].copy())
    by_id = bl.scan({"a": one, "b": two}, genotypes, "wald", condition_on=["rs5"])
    by_table = bl.scan({"a": one, "b": two}, genotypes, "wald", condition_on=dosages)
    for name, lmm in (("a", one), ("b", two)):
        pd.testing.assert_frame_equal(by_id[name], by_table[name])
        alone = lmm.scan(genotypes, "wald", condition_on=["rs5"])
        pd.testing.assert_frame_equal(by_id[name], alone)
    with pytest.raises(InputError, match="1 of 1 selected variants are not there: 'rs999'"):
        one.scan(genotypes, condition_on=["rs999"])
    with pytest.raises(InputError, match="Covariates of the same name: 'rs5'"):
        one.with_covariates(dosages).scan(genotypes, condition_on=["rs5"])
    with pytest.raises(InputError, match="'rs5' is a linear combination of 'g'"):
        one.with_covariates(dosages.set_axis(["g"], axis=1)).scan(genotypes, condition_on="rs5")


# -- regions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("17", ("17", None, None)),
        (" X ", ("X", None, None)),
        ("17:5-9", ("17", 5, 9)),
        ("17:30,000,000-38,000,000", ("17", 30_000_000, 38_000_000)),
        ("HLA:A:5-5", ("HLA:A", 5, 5)),
    ],
)
def test_parse_region(text, parsed):
    assert parse_region(text) == parsed


@pytest.mark.parametrize("text", ["", " ", ":5-9", "17:", "17:5", "17:a-b", "17:-1-5"])
def test_malformed_regions(text):
    with pytest.raises(InputError, match="is not of the form chrom or chrom:first-last"):
        parse_region(text)


@pytest.mark.parametrize("background", ["all", "loco"])
def test_a_scan_of_a_region_is_that_part_of_the_scan(background):
    genotypes, table, _ = cohort()
    lmm = bl.LMM("y ~ age", table, bl.grm(genotypes))
    whole = lmm.scan(genotypes, "wald", background=background)
    here = lmm.scan(genotypes, "wald", background=background, region="18:5000-9,000")
    assert here.id.tolist() == ["rs44", "rs45", "rs46", "rs47", "rs48"]
    part = whole.iloc[44:49].reset_index(drop=True)
    pd.testing.assert_frame_equal(here, part, rtol=1e-5)
    assert here.attrs["region"] == "18:5000-9,000"
    # A SNP to condition on may be elsewhere.
    given = lmm.scan(genotypes, "wald", region="18", condition_on=["rs5"])
    assert given.shape[0] == 40
    assert given.attrs["n_explained_by_covariates"] == 0


def test_unknown_positions_are_in_no_interval():
    genotypes, table, X = cohort()
    info = genotypes.variants.assign(
        pos=np.where(np.arange(120) % 4 == 0, 0, genotypes.variants.pos)
    )
    some = bl.Genotypes.from_array(X, samples=list(table.index), variants=info)
    lmm = bl.LMM("y ~ age", table)
    found = lmm.scan(some, "wald", region="18:0-4000")
    assert found.id.tolist() == ["rs41", "rs42", "rs43"]
    assert found.attrs["n_unknown_position"] == 10
    assert len(lmm.scan(some, "wald", region="18")) == 40
    with pytest.raises(InputError, match="no chromosome '7'"):
        lmm.scan(some, region="7:1-5")
    message = "no variant is in the region 18:1-5.*from 2,000 to 40,000; unknown ones: 10"
    with pytest.raises(InputError, match=message):
        lmm.scan(some, region="18:1-5")


# -- the stepwise search -----------------------------------------------------------------------


@pytest.mark.parametrize("with_kernel", [True, False])
@pytest.mark.parametrize("test", ["wald", "lrt", "score", "p3d"])
def test_every_step_is_a_conditional_scan(with_kernel, test):
    genotypes, table, _ = cohort()
    lmm = bl.LMM("y ~ age", table, bl.grm(genotypes) if with_kernel else None)
    found = bl.stepwise(lmm, genotypes, test=test, dtype="float64")
    assert {"rs5", "rs50"} <= set(found.id)
    chosen: list[str] = []
    for row in found.itertuples():
        hits = lmm.scan(genotypes, test, dtype="float64", condition_on=chosen).set_index("id")
        assert hits.neg_log10_p.idxmax() == row.id
        assert row.neg_log10_p_conditional == pytest.approx(hits.neg_log10_p[row.id], rel=1e-7)
        assert row.beta_conditional == pytest.approx(hits.beta[row.id], rel=1e-7)
        if not chosen:
            marginal = hits
        assert row.p_marginal == pytest.approx(marginal[f"p_{test}"][row.id], rel=1e-7)
        chosen.append(row.id)
    left = lmm.scan(genotypes, test, dtype="float64", condition_on=chosen)
    assert left.neg_log10_p.max() < -np.log10(0.05 / 120)
    assert found.attrs["best_left"]["p"] == pytest.approx(10 ** -left.neg_log10_p.max())
    assert found.attrs["stopped"] == "no further variant has p <= 0.000417"
    assert found.step.tolist() == list(range(1, len(found) + 1))


def test_joint_estimates_are_those_of_the_model_with_all():
    genotypes, table, _ = cohort()
    lmm = bl.LMM("y ~ age", table, bl.grm(genotypes))
    found = bl.stepwise(lmm, genotypes, dtype="float64")
    dosages = pd.DataFrame(genotypes.select(variants=found.id).to_array(), index=table.index)
    dosages.columns = genotypes.variants.id[genotypes.variants.id.isin(found.id)]
    b = lmm.with_covariates(dosages).reml().b.loc[found.id]
    np.testing.assert_allclose(found.beta_joint, b.estimate, rtol=1e-5)
    np.testing.assert_allclose(found.se_joint, b.se, rtol=1e-5)
    assert found.p_joint.iloc[-1] == pytest.approx(found.p_conditional.iloc[-1], rel=1e-6)


def test_variants_are_rotated_once(monkeypatch):
    genotypes, table, _ = cohort()
    basis = bl.eigenbasis(bl.grm(genotypes))
    lmm = bl.LMM("y ~ age", table, basis)
    rotated = []
    rotate = bl.Eigenbasis.rotate_rows
    monkeypatch.setattr(
        bl.Eigenbasis,
        "rotate_rows",
        lambda self, x: rotated.append(len(x)) or rotate(self, x),
    )
    kept = bl.stepwise(lmm, genotypes)
    assert sum(rotated) == 120 + len(kept)
    rotated.clear()
    monkeypatch.setattr(selection, "available_memory", lambda: 1000)
    again = bl.stepwise(lmm, genotypes)
    assert sum(rotated) == 120 * (len(kept) + 1) + len(kept)
    pd.testing.assert_frame_equal(kept, again, rtol=1e-4)


def test_search_in_a_region_with_loco():
    genotypes, table, _ = cohort()
    lmm = bl.LMM("y ~ age", table, bl.grm(genotypes))
    found = bl.stepwise(lmm, genotypes, region="17:1-20000", background="loco", threshold=0.01)
    assert found.id.iloc[0] == "rs5"
    assert (found.chrom == "17").all()
    assert found.attrs["n_variants"] == 20
    assert found.attrs["threshold"] == 0.01
    first = lmm.scan(genotypes, "wald", region="17:1-20000", background="loco")
    assert found.p_marginal[0] == pytest.approx(first.p_wald.min(), rel=1e-6)


def test_where_it_stops():
    genotypes, table, _ = cohort()
    lmm = bl.LMM("y ~ age", table, bl.grm(genotypes))
    one = bl.stepwise(lmm, genotypes, max_steps=1)
    assert len(one) == 1
    assert one.attrs["stopped"] == "max_steps=1 reached"
    none = bl.stepwise(lmm, genotypes, threshold=1e-60)
    assert len(none) == 0
    assert none.columns.tolist() == one.columns.tolist()
    assert none.attrs["best_left"]["id"] == one.id[0]


def test_it_stops_where_the_samples_end():
    rng = np.random.default_rng(4)
    X = rng.integers(0, 3, size=(9, 40)).astype(float)
    found = bl.stepwise(bl.LMM(rng.normal(size=9), kernel=bl.grm(X)), X, threshold=0.9)
    assert found.attrs["stopped"] == "9 samples leave no room for another variant"
    assert len(found) == 6
    assert found.p_joint.notna().all()


def test_a_copy_of_the_best_variant_is_not_added():
    genotypes, table, X = cohort()
    info = genotypes.variants.copy()
    X[:, 6] = 2 - X[:, 5]
    info.loc[[5, 6, 7], "id"] = "."  # ids that name several variants
    same = bl.Genotypes.from_array(X, samples=list(table.index), variants=info)
    lmm = bl.LMM("y ~ age", table, bl.grm(genotypes))
    found = bl.stepwise(lmm, same)
    assert found.pos[0] in (6000, 7000)
    assert found.pos.isin([6000, 7000]).sum() == 1
    assert (found.id == ".").sum() == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": "bayes"}, "test='bayes': expected one of 'wald'"),
        ({"threshold": 0}, "threshold must be a p-value"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"region": "17:1-5"}, "no variant is in the region"),
        ({"background": "loco"}, "needs a kernel"),
    ],
)
def test_errors(options, message):
    genotypes, table, _ = cohort()
    with pytest.raises(InputError, match=message):
        bl.stepwise(bl.LMM("y ~ age", table), genotypes, **options)


def test_nothing_to_test():
    y = np.random.default_rng(1).normal(size=20)
    with pytest.raises(InputError, match="none of 2 variants can be tested"):
        bl.stepwise(bl.LMM(y), np.ones((20, 2)))
