import sys

import numpy as np
import pytest

import bayeslmm as bl
from bayeslmm.runs.devices import as_device


@pytest.fixture(scope="module")
def strict():
    return as_device("array_api_strict")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_come_back_as_they_are(strict, rng, dtype):
    a, b = rng.normal(size=(5, 7)).astype(dtype), rng.normal(size=(7, 3)).astype(dtype)
    found = strict.fetch(strict.product(strict.send(a), strict.send(b)))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, a @ b, rtol=1e-6)
    np.testing.assert_allclose(strict.fetch(strict.outer(a)), a.T @ a, rtol=1e-5, atol=1e-6)


def test_unknown_devices_are_named():
    with pytest.raises(bl.InputError, match="device='abacus' is unknown; expected one of 'cupy'"):
        as_device("abacus")
    with pytest.raises(bl.InputError, match="'cupy:1' is unknown"):
        as_device("cupy:1")


def test_a_library_that_is_absent_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(bl.InputError, match=r"needs cupy .*pip install 'bayeslmm\[gpu\]'"):
        as_device("cupy")


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(5)
    x = rng.binomial(2, rng.uniform(0.1, 0.9, 300), size=(90, 300)).astype(float)
    x[rng.random(x.shape) < 0.02] = np.nan
    return bl.Genotypes.from_array(x), x[:, 3]


@pytest.mark.algebra
@pytest.mark.parametrize("scale", ["standardized", "centered"])
def test_the_matrix_is_the_same_there(cohort, scale):
    genotypes, _ = cohort
    here = bl.grm(genotypes, scale=scale, block_size=40)
    there = bl.grm(genotypes, scale=scale, block_size=40, device="array_api_strict")
    np.testing.assert_allclose(there.matrix, here.matrix, atol=2e-6)
    assert there.n_variants == here.n_variants


@pytest.mark.algebra
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-4), ("float64", 1e-9)])
def test_the_scan_is_the_same_there(cohort, rng, dtype, limit):
    genotypes, x = cohort
    y = np.nan_to_num(x) + rng.normal(size=90)
    model = bl.LMM(y, kernel=bl.grm(genotypes))
    here = model.scan(genotypes, dtype=dtype)
    there = model.scan(genotypes, dtype=dtype, device="array_api_strict")
    for name in ("neg_log10_p", "log10_bf", "beta", "se"):
        np.testing.assert_allclose(there[name], here[name], rtol=limit, atol=limit)


def test_what_a_device_did_is_not_gone_on_with_elsewhere(cohort, rng, monkeypatch, tmp_path):
    from bayeslmm.relatedness import sums

    genotypes, _ = cohort
    monkeypatch.setattr(sums, "_SAVED_EVERY", 0)
    with bl.checkpoint(tmp_path / "grm") as kept:
        bl.grm(genotypes, kept=kept, device="array_api_strict")
        with pytest.raises(bl.InputError, match="device: was array_api_strict, is"):
            bl.grm(genotypes, kept=kept)
    model = bl.LMM(rng.normal(size=90), kernel=bl.grm(genotypes))
    with bl.checkpoint(tmp_path / "scan") as kept:
        model.scan(genotypes, kept=kept, device="array_api_strict", block_size=50)
        with pytest.raises(bl.InputError, match="device: was array_api_strict, is"):
            model.scan(genotypes, kept=kept, block_size=50)
