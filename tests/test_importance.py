"""Importance sampling, Metropolis and Newton steps on functions with known answers."""

import numpy as np
import pytest
from scipy import stats

from bayeslmm.numerics import importance, newton
from bayeslmm.numerics.importance import Mixture


def wide(d, scale=3.0):
    return Mixture(np.ones(1), np.zeros((1, d)), scale * np.eye(d)[None])


def without_extras(log_density):
    return lambda x: (log_density(x), x[:, :0])


def banana(x):
    """A curved ridge: x1 ~ N(0, 1), x2 | x1 ~ N(x1^2 - 1, 0.5^2); integral 1."""
    middle = x[:, 0] ** 2 - 1
    return stats.norm.logpdf(x[:, 0]) + stats.norm.logpdf(x[:, 1], middle, 0.5)


def two_modes(x):
    each = [stats.multivariate_normal([m, -m]).logpdf(x) for m in (-4, 4)]
    return np.logaddexp(each[0] + np.log(0.7), each[1] + np.log(0.3))


def test_a_mixture_is_the_density_that_it_draws_from(rng):
    from scipy.stats import multivariate_t

    L = np.array([[1.0, 0], [0.5, 0.3]])
    mixture = Mixture(np.array([0.25, 0.75]), np.array([[0, 0], [3, 1]]), np.stack([L, 2 * L]))
    x = mixture.draw(20_000, rng)
    expected = 0.25 * multivariate_t([0, 0], L @ L.T, df=7).pdf(x)
    expected += 0.75 * multivariate_t([3, 1], 4 * L @ L.T, df=7).pdf(x)
    np.testing.assert_allclose(mixture.log_density(x), np.log(expected), rtol=1e-9)
    np.testing.assert_allclose(x.mean(axis=0), [2.25, 0.75], atol=0.08)


@pytest.mark.parametrize(
    ("density", "mean", "variance"),
    [(banana, [0, 0], [1, 2.25]), (two_modes, [-1.6, 1.6], [14.44, 14.44])],
)
def test_moments_and_integral_are_right(density, mean, variance, rng):
    """Within 4 Monte Carlo standard errors, those of a weighted mean."""
    found = importance.importance_sample(
        without_extras(density), wide(2, 0.5), rng, ess=20_000, defensive=wide(2)
    )
    assert found.trusted
    assert found.ess >= 20_000
    assert abs(found.log_integral) < 4 * found.log_integral_se
    assert found.log_integral_se < 0.01
    for values, expected in [
        (found.points, mean),
        ((found.points - mean) ** 2, variance),
    ]:
        average = found.weights @ values
        se = np.sqrt(found.weights**2 @ (values - average) ** 2)
        assert np.all(np.abs(average - expected) < 4 * se)
        # At most twice that of as many independent draws.
        spread = np.sqrt(found.weights @ (values - average) ** 2)
        assert np.all(se < 2 * spread / np.sqrt(20_000))


def test_extras_stay_with_their_points(rng):
    found = importance.importance_sample(lambda x: (banana(x), x**2), wide(2), rng, ess=500)
    np.testing.assert_array_equal(found.extras, found.points**2)
    chains = importance.metropolis_sample(lambda x: (banana(x), x**2), found, rng, draws=50, thin=2)
    np.testing.assert_array_equal(chains.extras, chains.points**2)


def test_resampling_takes_each_as_often_as_it_weighs(rng):
    found = importance.importance_sample(without_extras(banana), wide(2), rng, ess=500)
    taken = np.bincount(found.resample(10_000, rng), minlength=len(found.points))
    assert np.abs(taken - 10_000 * found.weights).max() < 1
    assert taken.sum() == 10_000


def test_heavy_tails_are_noticed(rng):
    """A Cauchy density beyond the proposal's reach has no finite variance of weights."""

    def cauchy(x):
        return stats.cauchy.logpdf(x, scale=0.05).sum(axis=1)

    narrow = Mixture(np.ones(1), np.zeros((1, 5)), 0.01 * np.eye(5)[None], df=50.0)
    x = narrow.draw(4000, rng)
    _, k_hat = importance.smooth(cauchy(x) - narrow.log_density(x))
    assert k_hat > importance.LARGEST_K


def test_equal_weights_are_left_as_they_are():
    values, k_hat = importance.smooth(np.zeros(100))
    assert (values == 0).all()
    assert k_hat == -np.inf


def test_metropolis_has_the_same_moments(rng):
    """Within 4 Monte Carlo standard errors, from the effective number of draws of each."""
    from arviz_stats.base import array_stats

    start = importance.importance_sample(without_extras(banana), wide(2), rng, ess=500)
    found = importance.metropolis_sample(without_extras(banana), start, rng, draws=800)
    assert found.r_hat < 1.01
    assert found.ess > 1000
    for values, expected in [(found.points, [0, 0]), (found.points**2, [1, 2.25])]:
        for j in range(2):
            draws = values[..., j]
            se = draws.std() / np.sqrt(array_stats.ess(draws, method="mean"))
            assert abs(draws.mean() - expected[j]) < 4 * se


def test_it_goes_on_while_the_weights_are_bad():
    """A proposal that misses most of the mass is worth enough draws before it is good."""

    def far(x):
        return np.logaddexp(
            stats.multivariate_normal([0, 0]).logpdf(x),
            stats.multivariate_normal([3, 3]).logpdf(x) + 3,
        )

    def sample(limit):
        rng = np.random.default_rng(3)
        return importance.importance_sample(
            without_extras(far), wide(2, 0.5), rng, ess=1, batch=1000, limit=limit
        )

    few, more = sample(1000), sample(100_000)
    assert not few.trusted
    assert more.trusted
    assert len(more.points) < 100_000
    assert abs(more.log_integral - np.log(1 + np.exp(3))) < 4 * more.log_integral_se


# -- Newton ---------------------------------------------------------------------------------------


def rosenbrock(x):
    return -((1 - x[:, 0]) ** 2) - 100 * (x[:, 1] - x[:, 0] ** 2) ** 2


def test_newton_climbs_a_curved_valley():
    far = np.full(2, np.inf)
    top = newton.maximise(rosenbrock, np.array([-1.2, 1.0]), -far, far)
    # The differences give the gradient an error of 2,400 step^2 / 6 = 3.6e-5 along x, which
    # moves its zero by 1.8e-5 and 3.6e-5; the last step gains less than 1e-9, and along the
    # valley, where the curvature is 0.4, that is a distance of 7e-5.
    np.testing.assert_allclose(top.x, [1, 1], atol=1.1e-4)
    np.testing.assert_allclose(top.hessian, [[-802, 400], [400, -200]], rtol=1e-4)
    assert top.free.all()


def test_newton_stops_at_limits():
    lower, upper = np.array([-2.0, -2.0]), np.array([0.5, 2.0])
    top = newton.maximise(rosenbrock, np.array([-1.2, 1.0]), lower, upper)
    np.testing.assert_allclose(top.x, [0.5, 0.25], atol=1e-5)
    assert list(top.free) == [False, True]


def test_newton_says_when_it_does_not_end():
    far = np.full(2, np.inf)
    with pytest.raises(RuntimeError, match="No maximum after 3 Newton steps"):
        newton.maximise(rosenbrock, np.array([-1.2, 1.0]), -far, far, iterations=3)


def test_differences_are_the_derivatives():
    value, gradient, hessian = newton.derivatives(rosenbrock, np.array([0.5, 0.7]))
    assert value == pytest.approx(-0.25 - 100 * 0.45**2)
    np.testing.assert_allclose(gradient, [91, -90], rtol=1e-5)
    np.testing.assert_allclose(hessian, [[-2 - 1200 * 0.25 + 280, 200], [200, -200]], rtol=1e-4)
    np.testing.assert_allclose(
        newton.gradient(rosenbrock, np.array([0.5, 0.7])), [91, -90], rtol=1e-5
    )
