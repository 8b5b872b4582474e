"""Simulation-based calibration passes where the posterior is right, and fails where it is not."""

import numpy as np
import pytest

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.model.calibration import Calibration
from bayeslmm.numerics.quadrature import unit_density

pytestmark = pytest.mark.calibration


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(1)
    families = rng.integers(0, 2, size=(12, 400)).repeat(5, axis=0)
    x = families + rng.integers(0, 2, size=(60, 400))
    kernel = bl.grm(x, progress=False)
    return bl.LMM(rng.normal(3, 2, size=60), rng.normal(size=(60, 1)), kernel)


def test_exact_posterior(model):
    check = bl.calibrate(model, replicates=300, draws=99, seed=1)
    assert list(check.ranks) == ["h2", "s2", "s2_g", "s2_e", "b[Intercept]", "b[x1]"]
    assert check.ranks.shape == (300, 6)
    assert check.calibrated, check
    assert "300 replicates, calibrated" in repr(check)


def test_point_mass_at_0(model):
    y, C = model.y, model.C.to_numpy()[:, 1:]
    spiked = bl.LMM(y, C, model._kernel, h2_prior=bl.priors.uniform(spike=0.4))
    assert bl.calibrate(spiked, replicates=200, draws=99, seed=2).calibrated


def test_joint_effects_of_snps(model):
    rng = np.random.default_rng(5)
    snps = bl.Genotypes.from_array(rng.integers(0, 3, size=(60, 2)))
    check = bl.calibrate(
        model, replicates=100, draws=49, snps=["snp1", "snp2"], genotypes=snps, seed=3
    )
    assert {"beta_std[snp1]", "beta_std[snp2]"} < set(check.ranks)
    assert check.calibrated, check


def test_nuts(model):
    check = bl.calibrate(model, "nuts", replicates=40, draws=39, seed=4)
    assert check.calibrated, check


def test_another_truth_fails(model):
    check = bl.calibrate(model, replicates=300, draws=99, simulate_h2=bl.priors.beta(1, 12), seed=5)
    assert check.table().p_uniform["h2"] < 1e-6
    assert not check.calibrated


def test_missing_jacobian_fails(model):
    """A density in logit(h2), taken for one in h2: the commonest mistake of hand-made samplers."""

    def fit(simulated, rng):
        right = simulated.h2_posterior()
        wrong = unit_density(lambda h: right_log_density(simulated, h) + np.log(h) + np.log1p(-h))
        assert wrong.mean != pytest.approx(right.mean, abs=1e-6)
        return {"h2": wrong.draw(99, rng)}

    def right_log_density(simulated, h2):
        from bayeslmm.numerics.likelihood import integrated_loglik

        return integrated_loglik(simulated.rotated, h2)

    check = bl.calibrate(model, replicates=600, draws=99, fit=fit, seed=6)
    assert not check.calibrated, check
    assert "a given posterior" in repr(check)


def test_reproducible(model):
    one, again = (bl.calibrate(model, replicates=20, draws=9, seed=7).ranks for _ in range(2))
    assert one.equals(again)


def test_table_sees_too_narrow_and_shifted_posteriors():
    rng = np.random.default_rng(8)
    ranks = {"narrow": rng.choice([0, 1, 98, 99], 400), "high": rng.integers(50, 100, 400)}
    import pandas as pd

    check = Calibration(pd.DataFrame(ranks), 99, "a test")
    table = check.table()
    assert table.spread["narrow"] > 1.5
    assert table["mean"]["high"] > 0.7
    assert not check.calibrated


def test_refusals(model):
    with pytest.raises(InputError, match="At least 20 replicates"):
        bl.calibrate(model, replicates=5)
    with pytest.raises(InputError, match="method='vb' is unknown"):
        bl.calibrate(model, "vb")
    with pytest.raises(InputError, match="no h2 to calibrate"):
        bl.calibrate(bl.LMM(model.y))
    with pytest.raises(InputError, match="draws of h2 came"):
        bl.calibrate(model, replicates=20, fit=lambda m, rng: {"h2": np.zeros(3)})
