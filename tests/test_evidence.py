import dense
import numpy as np
import pytest
from scipy import stats

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.model.evidence import _FIRST, mixture_p, restricted_lrt, simulate_restricted_lrt

pytestmark = pytest.mark.algebra

CASES = [
    dense.Case("n < m", 40, 2, "genotypes", 120),
    dense.Case("n > m: rank-deficient", 40, 3, "genotypes", 15),
    dense.Case("families: repeated eigenvalues", 40, 1, "families"),
]


def model(y, C, K, **options):
    return bl.LMM(y, C[:, 1:] if C.shape[1] > 1 else None, K, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("prior", [(1, 1), (2, 3)], ids=str)
def test_bayes_factor_equals_brute_force(case, prior):
    y, C, K = case.make()
    chosen = bl.priors.beta(*prior)
    found = model(y, C, K, h2_prior=chosen).evidence(replicates=10)
    brute = dense.brute_posterior(y, C, K, chosen.log_density, nodes=300)
    expected = (brute.log_marginal - dense.integrated_loglik(y, C, K, 0.0)) / np.log(10)
    assert found.log10_bf == pytest.approx(expected, abs=1e-6)
    assert found.log10_bf_savage_dickey == pytest.approx(found.log10_bf, abs=1e-8)
    low = brute.weights.sum(axis=1)[brute.h2[:, 0] < 0.5].sum()
    half = model(y, C, K, h2_prior=chosen).evidence(rope=0.5, replicates=10)
    assert half.p_below_rope == pytest.approx(low, abs=1e-2)
    assert half.prior_below_rope == pytest.approx(stats.beta(*prior).cdf(0.5))


def test_savage_dickey_from_the_density_itself():
    y, C, K = CASES[0].make(3)
    lmm = model(y, C, K)
    density = lmm.h2_posterior()
    at_0 = float(density.interpolate(density.density, np.zeros(1))[0])
    assert lmm.evidence(replicates=10).log10_bf == pytest.approx(-np.log10(at_0), abs=1e-6)


def test_a_point_mass_in_the_prior_plays_no_part():
    y, C, K = CASES[0].make()
    plain = model(y, C, K).evidence(replicates=50)
    spiked = model(y, C, K, h2_prior=bl.priors.uniform(spike=0.5))
    found = spiked.evidence(replicates=50)
    assert found.log10_bf == pytest.approx(plain.log10_bf)
    assert found.prior == "Uniform(0, 1)"
    at_0 = spiked.h2_posterior().mass_at_0
    assert found.by_prior.posterior_at_even_odds["Beta(1, 1)"] == pytest.approx(1 - at_0)
    assert found.by_prior.log10_bf["Beta(1, 1)"] == pytest.approx(plain.log10_bf)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_statistic_equals_dense_optimum(case):
    y, C, K = case.make()
    _, best = dense.optimum(y, C, dense.centred(K), log_range=(-20, 20))
    at_0 = dense.profiled(y, C, dense.centred(K), 0.0)[0]
    assert restricted_lrt(model(y, C, K)) == pytest.approx(max(2 * (best - at_0), 0), abs=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_simulated_statistics_are_those_of_the_phenotypes(case):
    """Each replicate's statistic, by the search that a real phenotype gets."""
    y, C, K = case.make()
    lmm = model(y, C, K)
    found = simulate_restricted_lrt(lmm.rotated, 60, np.random.default_rng(5))
    z = np.random.default_rng(5).standard_normal((case.n, 60))
    for j in range(60):
        expected = restricted_lrt(lmm.with_phenotype(lmm.basis.unrotate(z[:, j])))
        assert found[j] == pytest.approx(expected, abs=2e-3)
        # A maximum at h has a statistic of (h / se)^2 and is told from 0 if nearer to the grid's
        # first point, at _FIRST se: from _FIRST^2 / 4 on, but for the curvature's own error.
        if not 0.5 < expected / (_FIRST**2 / 4) < 2:
            assert (found[j] == 0) == (expected < _FIRST**2 / 4)


@pytest.mark.calibration
def test_null_distribution_equals_dense_simulation():
    """Mass at 0 and quantiles against contrasts simulated with full matrices."""
    y, C, K = CASES[1].make()
    N = dense.contrasts(C)
    values = np.linalg.eigvalsh(N.T @ dense.centred(K) @ N / dense.kappa_of(K, C))
    rng = np.random.default_rng(8)
    z2 = rng.standard_normal((4000, len(values))) ** 2
    h2 = np.append(0, np.geomspace(1e-5, 1 - 1e-9, 800))[:, None]
    d = 1 + h2 * (np.maximum(values, 0) - 1)
    log_lr = -np.log(d).sum(axis=1) - len(values) * np.log(z2 @ (1 / d).T / z2.sum(1)[:, None])
    expected = np.maximum(log_lr.max(axis=1), 0)
    found = simulate_restricted_lrt(model(y, C, K).rotated, 4000, np.random.default_rng(9))
    at_0 = np.mean(found == 0), np.mean(expected < 1e-9)
    assert at_0[0] == pytest.approx(at_0[1], abs=4 * np.sqrt(0.5 / 4000))
    for level in (0.8, 0.9, 0.95, 0.99):
        exceed = np.mean(found > np.quantile(expected, level))
        assert exceed == pytest.approx(1 - level, abs=5 * np.sqrt(2 * level * (1 - level) / 4000))


def test_simulation_in_pieces_has_the_same_distribution(monkeypatch):
    y, C, K = CASES[0].make()
    data = model(y, C, K).rotated
    whole = simulate_restricted_lrt(data, 1000, np.random.default_rng(1))
    monkeypatch.setattr("bayeslmm.model.evidence._CHUNK", 40 * 64)
    pieces = simulate_restricted_lrt(data, 1000, np.random.default_rng(2))
    assert stats.ks_2samp(whole, pieces).pvalue > 0.001


def test_report():
    y, C, K = CASES[0].make()
    lmm = model(y, C, K)
    found = lmm.evidence(replicates=200, seed=4)
    assert found.p_exact == lmm.evidence(replicates=200, seed=4).p_exact
    assert 0 < found.p_exact <= 1
    assert 0.3 < found.null_at_0 < 0.9
    assert "log10 Bayes factor" in str(found)
    assert "h2 ~ Uniform(0, 1)" in repr(found)
    assert mixture_p(0.0) == 1
    assert mixture_p(2.705543) == pytest.approx(0.05, rel=1e-5)
    nothing = lmm.with_phenotype(lmm.basis.vectors[:, 20:-1].sum(axis=1)).evidence(replicates=200)
    assert (nothing.rlrt, nothing.p_exact, nothing.p_mixture) == (0, 1, 1)


def test_strong_evidence_does_not_underflow(mice):
    found = bl.LMM("cd8 ~ sex", mice.phenotypes, bl.grm(mice.genotypes)).evidence(replicates=100)
    assert found.log10_bf == pytest.approx(178.16, abs=0.01)
    assert found.log10_bf_savage_dickey == pytest.approx(found.log10_bf, abs=1e-6)
    assert found.p_exact == pytest.approx(1 / 101)
    assert "exact p < 0.01" in str(found)


def test_what_cannot_be_asked():
    y, C, K = CASES[0].make()
    lmm = model(y, C, K)
    with pytest.raises(InputError, match="h2 is 0 by definition"):
        lmm.without_kernel().evidence()
    with pytest.raises(InputError, match="rope must be between 0 and 1"):
        lmm.evidence(rope=1.5)
    with pytest.raises(InputError, match="At least one replicate"):
        lmm.evidence(replicates=0)
