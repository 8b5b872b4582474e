"""Scans of many samples: the narrow window of optima gives what the wide one gives."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.genome import scanner
from bayeslmm.numerics.nodes import HALF_WIDTH


@pytest.fixture(scope="module")
def family_model():
    """5,000 samples in families; variant 3 explains most of the variance, 7 some."""
    cohort = bl.simulate_cohort(None, 5000, 60, families=8, h2=0.5, causal=20, seed=5)
    x = cohort.genotypes.to_array().astype(float)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    y = cohort.phenotypes.y.to_numpy()
    y = y + y.std() * (1.3 * z[:, 3] + 0.28 * z[:, 7])
    table = pd.DataFrame({"y": y, "sex": cohort.phenotypes.sex}, index=cohort.phenotypes.index)
    pedigree = bl.sparse_grm(cohort.genotypes, threshold=0.2).repaired()
    return bl.LMM("y ~ sex", table, pedigree), cohort.genotypes


@pytest.mark.algebra
def test_a_narrow_window_changes_nothing(family_model, monkeypatch):
    model, genotypes = family_model
    tests = ("wald", "lrt", "bayes")
    float64 = np.dtype("float64")
    narrow = scanner.Scanner(model, tests, float64)
    assert narrow.half_width < HALF_WIDTH
    found = model.scan(genotypes, tests, dtype="float64")
    monkeypatch.setattr(scanner, "_NARROWEST", HALF_WIDTH)
    monkeypatch.setattr(scanner, "_UNREACHABLE", np.inf)
    wide = scanner.Scanner(model, tests, float64)
    assert wide.half_width == HALF_WIDTH
    assert wide.weights.square.shape[1] > narrow.weights.square.shape[1]
    expected = model.scan(genotypes, tests, dtype="float64")
    # The strongest variant's optimum is outside the narrow window, and is found there.
    moved = np.abs(np.log(expected.l_remle * model.basis.kappa) - narrow.center)
    assert moved.max() > narrow.half_width
    for name in ("se", "neg_log10_p", "log10_bf", "post_sd"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-6, atol=1e-7)
    for name, scale in (("beta", "se"), ("post_mean", "post_sd")):
        assert (np.abs(found[name] - expected[name]) / expected[scale]).max() < 1e-6
    np.testing.assert_allclose(found.p_lrt, expected.p_lrt, rtol=1e-4)
    np.testing.assert_allclose(np.log(found.l_remle), np.log(expected.l_remle), atol=1e-5)
