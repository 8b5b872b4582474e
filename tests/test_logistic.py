"""Logistic regression of many variants, Firth's penalty and saddlepoint tails, by brute force."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import binom, norm

from bayeslmm.binary.logistic import fit_effects, fit_firth, fit_null, loglik
from bayeslmm.errors import InputError
from bayeslmm.numerics import saddlepoint
from bayeslmm.numerics.tails import log10_p_chi2

pytestmark = pytest.mark.algebra


def simulated(rng, n=300, v=25, beta=0.0):
    """y, covariates with an intercept, variants in rows."""
    C = np.column_stack([np.ones(n), rng.normal(size=(n, 2)) * [1, 40]])
    x = rng.binomial(2, rng.uniform(0.1, 0.5, v)[:, None], size=(v, n)).astype(float)
    eta = C @ [-0.5, 0.8, 0.01] + beta * x[0]
    return (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float), C, x


def brute_force(y, Z, *, firth=False, fixed=()):
    """Maximum over all coefficients but the `fixed` ones, which are 0: b, value, information."""
    Z = np.asarray(Z, dtype=float)
    free = [j for j in range(Z.shape[1]) if j not in fixed]
    scale = np.abs(Z).max(axis=0)

    def information(b):
        mu = 1 / (1 + np.exp(-(Z / scale) @ b))
        return ((Z / scale) * (mu * (1 - mu))[:, None]).T @ (Z / scale)

    def loss(part):
        b = np.zeros(Z.shape[1])
        b[free] = part
        value = -float(loglik((Z / scale) @ b, y))
        return value - (0.5 * np.linalg.slogdet(information(b))[1] if firth else 0.0)

    found = minimize(loss, np.zeros(len(free)), method="BFGS", options={"gtol": 1e-9})
    polished = minimize(
        loss, found.x, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13}
    )
    best = min(found, polished, key=lambda fit: fit.fun)
    b = np.zeros(Z.shape[1])
    b[free] = best.x
    # log|I| of the covariates as given, not as scaled
    shift = np.log(scale).sum() if firth else 0.0
    return b / scale, -best.fun + shift, information(b) * np.outer(scale, scale)


def test_null_fit_is_the_maximum_whatever_the_scale_of_covariates(rng):
    y, C, _ = simulated(rng)
    null = fit_null(y, C)
    b, value, information = brute_force(y, C)
    np.testing.assert_allclose(null.b, b, rtol=2e-5)
    np.testing.assert_allclose(null.b_se, np.sqrt(np.diag(np.linalg.inv(information))), rtol=2e-5)
    assert null.loglik == pytest.approx(value, abs=1e-8)
    np.testing.assert_allclose(C.T @ (y - null.mu), 0, atol=1e-7)


def test_effects_are_those_of_models_of_their_own(rng):
    y, C, x = simulated(rng)
    null = fit_null(y, C)
    found = fit_effects(null, null.project(x - x.mean(axis=1, keepdims=True)))
    assert found.converged.all()
    for j in range(5):
        b, _, information = brute_force(y, np.column_stack([C, x[j]]))
        assert found.beta[j] == pytest.approx(b[-1], rel=1e-4, abs=1e-6)
        assert found.se[j] == pytest.approx(np.sqrt(np.linalg.inv(information)[-1, -1]), rel=1e-5)


def test_score_is_that_of_the_likelihood_at_zero(rng):
    y, C, x = simulated(rng)
    null = fit_null(y, C)
    U, information = null.score(null.project(x))
    Z = np.column_stack([C, x[0]])
    full = (Z * null.w[:, None]).T @ Z
    assert U[0] == pytest.approx(x[0] @ (y - null.mu))
    assert information[0] == pytest.approx(1 / np.linalg.inv(full)[-1, -1])


def test_large_effects_with_few_cases_reach_their_maximum(rng):
    """The score step overshoots there, and Newton's method from it diverges."""
    n = 1000
    x = np.zeros(n)
    x[:30] = 1
    y = np.zeros(n)
    y[:15], y[100:105] = 1, 1
    null = fit_null(y, np.ones((n, 1)))
    found = fit_effects(null, null.project(x[None]))
    odds = (15 / 15) / (5 / 965)
    assert found.converged.all()
    assert found.beta[0] == pytest.approx(np.log(odds), rel=1e-6)
    assert found.se[0] == pytest.approx(np.sqrt(1 / 15 + 1 / 15 + 1 / 5 + 1 / 965), rel=1e-5)


def test_separated_variants_have_no_maximum_but_firths(rng):
    """In a 2 x 2 table Firth adds a half to every cell."""
    n = 200
    x = np.zeros((2, n))
    x[0, :20], x[1, 150:154] = 1, 1
    y = np.zeros(n)
    y[:60] = 1
    null = fit_null(y, np.ones((n, 1)))
    at = null.project(x)
    assert not fit_effects(null, at).converged.any()
    found = fit_firth(null, at)
    assert found.converged.all()
    expected = [
        np.log((20.5 / 0.5) / (40.5 / 140.5)),
        np.log((0.5 / 4.5) / (60.5 / 136.5)),
    ]
    np.testing.assert_allclose(found.beta, expected, rtol=1e-5)


@pytest.mark.parametrize("counts", [(0, 1), (1, 0), (2, 30), (5, 4)])
def test_firth_with_covariates_is_the_penalised_maximum(rng, counts):
    n = 400
    C = np.column_stack([np.ones(n), rng.normal(size=n)])
    y = (rng.random(n) < 0.1).astype(float)
    x = np.zeros(n)
    for status, count in zip((1, 0), counts, strict=True):
        x[np.flatnonzero(y == status)[:count]] = 1
    null = fit_null(y, C)
    found = fit_firth(null, null.project(x[None]))
    Z = np.column_stack([C, x])
    b, value, information = brute_force(y, Z, firth=True)
    _, at_zero, _ = brute_force(y, Z, firth=True, fixed=(2,))
    assert found.converged.all()
    assert found.beta[0] == pytest.approx(b[-1], rel=1e-4, abs=1e-5)
    assert found.se[0] == pytest.approx(np.sqrt(np.linalg.inv(information)[-1, -1]), rel=1e-4)
    assert found.lrt[0] == pytest.approx(2 * (value - at_zero), rel=1e-5, abs=1e-7)


@pytest.mark.golden
def test_firth_on_the_endometrial_data_of_heinze_and_schemper(golden):
    """NV separates the grades: 2.929, SE 1.551, p = 0.0091 in their Table II and in logistf."""
    data = pd.read_csv(golden / "endometrial.csv")
    y = data.HG.to_numpy(dtype=float)
    null = fit_null(y, np.column_stack([np.ones(len(y)), data[["PI", "EH"]]]))
    x = null.project(data[["NV"]].to_numpy(dtype=float).T)
    found = fit_firth(null, x)
    assert not fit_effects(null, x).converged[0]
    assert found.beta[0] == pytest.approx(2.92927, abs=1e-5)
    assert found.se[0] == pytest.approx(1.55076, abs=1e-5)
    assert 10 ** log10_p_chi2(found.lrt)[0] == pytest.approx(0.00912, abs=1e-5)


def test_covariates_that_separate_are_named(rng):
    y = np.repeat([0.0, 1], 50)
    C = np.column_stack([np.ones(100), rng.normal(size=100), y + 0.1 * rng.random(100)])
    with pytest.raises(InputError, match=r"wholly or in part: 'marker'\. Their odds"):
        fit_null(y, C, ["Intercept", "age", "marker"])
    level = np.zeros(100)
    level[90:] = 1
    C[:, 2] = level
    with pytest.raises(InputError, match="wholly or in part: 'clinic'"):
        fit_null(y, C, ["Intercept", "age", "clinic"])


def test_overlapping_covariates_are_no_separation():
    """The one case among the exposed is matched by one control: the fit is finite."""
    exposed = np.zeros(60)
    exposed[:2] = 1
    y = np.zeros(60)
    y[[0, 30]] = 1
    null = fit_null(y, np.column_stack([np.ones(60), exposed]))
    assert null.b[1] == pytest.approx(np.log((1 / 1) / (1 / 57)), rel=1e-8)


# -- saddlepoint -------------------------------------------------------------------------------


def exact_two_sided(x, mu, score):
    labels = np.array(list(itertools.product([0, 1], repeat=len(mu))))
    chance = np.where(labels, mu, 1 - mu).prod(axis=1)
    return chance[np.abs((labels - mu) @ x) >= abs(score) - 1e-12].sum()


def test_saddlepoint_follows_the_enumerated_tail(rng):
    """16 labels with a probability of 0.03 to 0.3 and weights that make no lattice."""
    x, mu = rng.normal(size=16), rng.uniform(0.03, 0.3, 16)
    sd = np.sqrt((x * x * mu * (1 - mu)).sum())
    for z in (2.0, 2.5, 3.0, 3.5):
        exact = exact_two_sided(x, mu, z * sd)
        found = 10 ** saddlepoint.log10_p_two_sided(x[None], mu, np.array([z * sd]))[0]
        assert found == pytest.approx(exact, rel=0.35)
        normal = 2 * norm.sf(z)
        assert abs(np.log(found / exact)) < max(0.6 * abs(np.log(normal / exact)), 0.3)


def test_saddlepoint_far_in_the_tail_of_a_binomial(rng):
    """A sum of 2,000 labels at 1%, at half a step of its lattice: within 5% of the tail."""
    n, p = 2000, 0.01
    for k in (40, 45):
        score = k - 0.5 - n * p
        low = int(np.ceil(n * p - score))
        exact = binom.sf(k - 1, n, p) + (binom.cdf(low - 1, n, p) if low > 0 else 0)
        x = np.ones((1, n))
        found = 10 ** saddlepoint.log10_p_two_sided(x, np.full(n, p), np.array([score]))[0]
        assert abs(np.log10(found / exact)) < 0.02
        assert 2 * norm.sf(score / np.sqrt(n * p * (1 - p))) < 0.3 * exact


def test_score_at_the_end_of_its_range_has_its_exact_probability(rng):
    x, mu = np.array([[1.0, 2.0, -1.0, 0.0]]), np.array([0.1, 0.2, 0.4, 0.5])
    most = 3 - x[0] @ mu
    found = 10 ** saddlepoint.log10_p_two_sided(x, mu, np.array([most]))[0]
    assert found == pytest.approx(0.1 * 0.2 * 0.6)


def test_carriers_alone_give_the_same_tail(rng):
    n = 3000
    mu = np.full(n, 0.02)
    dosage = rng.binomial(2, 0.01, size=(6, n)).astype(float)
    eaf = dosage.mean(axis=1) / 2
    x = dosage - 2 * eaf[:, None]
    carrier = saddlepoint.carriers(x, eaf)
    assert (carrier == (dosage > 0)).all()
    score = np.linspace(2.5, 6, 6) * np.sqrt((x * x).sum(axis=1) * 0.02 * 0.98)
    all_of_them = saddlepoint.log10_p_two_sided(x, mu, score)
    np.testing.assert_allclose(
        saddlepoint.log10_p_by_carriers(x, mu, score, carrier), all_of_them, atol=0.02
    )
    # the commoner homozygote may be the one with two effect alleles
    assert (saddlepoint.carriers(-x, 1 - eaf) == carrier).all()


def test_normal_part_alone_is_a_normal_tail():
    found = saddlepoint.log10_p_two_sided(
        np.zeros((1, 3)), np.full(3, 0.5), np.array([6.0]), np.array([4.0])
    )
    assert 10 ** found[0] == pytest.approx(2 * norm.sf(3), rel=1e-9)
