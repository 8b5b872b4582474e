"""Methods against structure: what one call returns, error and power on simulated phenotypes."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.genome.confounding import _simulate


@pytest.fixture(scope="module")
def cohort():
    """Families, and a trait whose mean differs between them by polygenic effects."""
    return bl.simulate_cohort(None, 300, 1500, families=12, h2=0.7, chromosomes=4, seed=2)


@pytest.fixture(scope="module")
def model(cohort):
    return bl.LMM("y ~ sex", cohort.phenotypes, bl.grm(cohort.genotypes, by_chrom=True))


METHODS = ["regression", "regression + 3 PCs", "LMM", "LMM + 3 PCs", "LOCO-LMM"]


def test_one_call_is_the_scans_one_by_one(cohort, model):
    found = bl.inflation(model, cohort.genotypes, pcs=3)
    assert list(found.table.index) == METHODS
    scores = bl.pca(model.grm, 3).scores
    by_hand = {
        "regression": bl.scan(model.without_kernel(), cohort.genotypes, "wald"),
        "LMM + 3 PCs": bl.scan(model.with_covariates(scores), cohort.genotypes, "wald"),
        "LOCO-LMM": bl.scan(model, cohort.genotypes, "wald", background="loco"),
    }
    for name, hits in by_hand.items():
        np.testing.assert_allclose(found.p[name], hits.neg_log10_p, atol=1e-6)
        row = found.table.loc[name]
        np.testing.assert_allclose(row.lambda_gc, bl.lambda_gc(hits.p_wald), rtol=1e-6)
        assert row.significant == (hits.p_wald < 0.05 / 1500).sum()
    assert list(found.table.covariates) == [2, 5, 2, 5, 2]
    assert found.table.h2["LMM"] == model.reml().h2
    assert found.table.lambda_gc["regression"] > 1.3 > found.table.lambda_gc["LMM"]
    assert found.power is None
    assert "<Inflation  y ~ sex" in repr(found)
    assert "<table" in found._repr_html_()


def test_error_and_power_on_simulated_phenotypes(cohort, model):
    found = bl.inflation(
        model,
        cohort.genotypes,
        pcs=3,
        loco=False,
        replicates=8,
        causal=5,
        variance=0.04,
        h2=0.7,
        level=0.01,
        seed=4,
    )
    power = found.power
    assert list(power.index) == METHODS[:4]
    # Regression calls far too much; the mixed model does not.
    assert power.type1["regression"] > 0.015 > power.type1["LMM"]
    assert power.lambda_gc["regression"] > 1.2 > power.lambda_gc["LMM"]
    assert power.power_equal["LMM"] > power.power_equal["regression"] + 0.05
    assert power.power_equal["regression"] < power.power["regression"]
    assert power.drop(columns="lambda_gc").to_numpy().max() <= 1
    again = bl.inflation(
        model, cohort.genotypes, pcs=0, loco=False, replicates=8, causal=5, variance=0.04,
        h2=0.7, level=0.01, seed=4,
    )  # fmt: skip
    pd.testing.assert_frame_equal(again.power, power.loc[["regression", "LMM"]])
    assert "8 simulated phenotypes, level 0.01:" in repr(found)


def test_simulated_phenotypes_are_what_was_asked_for(cohort, model):
    rng = np.random.default_rng(0)
    made = _simulate(model, cohort.genotypes, 200, 4, 0.05, 0.3, rng)
    np.testing.assert_allclose(made.Y.var(axis=0).mean(), 1, atol=0.03)
    chrom = cohort.genotypes.variants.chrom.to_numpy()
    assert set(chrom[made.no_effect]) == {"2", "4"}
    x = cohort.genotypes.select(samples=model.ids).to_array()
    shares = []
    for y, causal in zip(made.Y.T, made.causal, strict=True):
        assert set(chrom[causal]) <= {"1", "3"}
        assert len(causal) == 4
        shares.append([np.corrcoef(y, x[:, j])[0, 1] ** 2 for j in causal])
    # What chance and the polygenic part add to the squared correlation is about 1 / n times
    # the variance of relatives' similarity: 0.01.
    assert 0.045 < np.mean(shares) < 0.07


def test_comparisons_that_cannot_be_made(cohort, model):
    genotypes = cohort.genotypes
    with pytest.raises(bl.InputError, match="a model with a kernel; this one has none"):
        bl.inflation(model.without_kernel(), genotypes)
    with pytest.raises(bl.InputError, match="needs two of them, but there is only '1'"):
        bl.inflation(model, genotypes.select(chrom=1))
    with pytest.raises(bl.InputError, match="must be above 0 and leave something"):
        bl.inflation(model, genotypes, pcs=0, loco=False, replicates=1, causal=50, h2=0.5)
    with pytest.raises(bl.InputError, match="but 9000 causal ones are asked for"):
        bl.inflation(
            model, genotypes, pcs=0, loco=False, replicates=1, causal=9000, variance=1e-5, h2=0
        )
    with pytest.raises(bl.InputError, match="level must be between 0 and 1"):
        bl.inflation(model, genotypes, level=2)
