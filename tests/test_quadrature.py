import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from bayeslmm.numerics.quadrature import UnitDensity, unit_density

pytestmark = pytest.mark.algebra
QUANTILES = np.array([0.001, 0.025, 0.25, 0.5, 0.75, 0.975, 0.999])


class Mixture:
    def __init__(self, *parts):
        self.weights = np.array([weight for weight, _ in parts])
        self.parts = [part for _, part in parts]

    def _sum(self, values):
        return sum(w * value for w, value in zip(self.weights, values, strict=True))

    def logpdf(self, x):
        logs = [
            np.log(w) + part.logpdf(x) for w, part in zip(self.weights, self.parts, strict=True)
        ]
        return np.logaddexp.reduce(logs, axis=0)

    def cdf(self, x):
        return self._sum([part.cdf(x) for part in self.parts])

    def mean(self):
        return self._sum([part.mean() for part in self.parts])

    def std(self):
        second = self._sum([part.var() + part.mean() ** 2 for part in self.parts])
        return np.sqrt(second - self.mean() ** 2)

    def ppf(self, q):
        def above(x, p):
            return self.cdf(x) - p

        return np.array([optimize.brentq(above, 0, 1, args=(p,), xtol=1e-15) for p in q])


def truncated(mean, sd):
    return stats.truncnorm(-mean / sd, (1 - mean) / sd, mean, sd)


def narrowest(d, prob, points=20_001):
    """Narrowest interval by brute force over a grid of lower tail probabilities."""
    low = np.linspace(0, 1 - prob, points)
    ends = d.ppf(low), d.ppf(low + prob)
    best = np.argmin(ends[1] - ends[0])
    return ends[0][best], ends[1][best]


def check(d, log_density=None, rel=1e-7, shift=0.0):
    """Everything that a UnitDensity says, against a distribution of scipy."""
    found = unit_density(log_density or (lambda x: d.logpdf(x) + shift))
    sd = d.std()
    assert found.log_integral == pytest.approx(shift, abs=rel)
    assert found.mean == pytest.approx(d.mean(), abs=rel * sd)
    assert found.sd == pytest.approx(sd, rel=rel)
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    grid = np.linspace(0.001, 0.999, 199)
    np.testing.assert_allclose(found.cdf(d.ppf(grid)), grid, atol=10 * rel)
    return found


BETAS = [
    (0.3, 2), (0.3, 1e5), (0.5, 0.5), (0.5, 1), (1, 0.5), (1, 1), (2, 3), (1, 30), (30, 1),
    (1, 1e5), (1e5, 1), (1e5, 1e5), (3e4, 7e4), (1e3, 1e5), (5, 1e4), (1e4, 5), (2, 2),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), BETAS)
def test_beta(a, b):
    d = stats.beta(a, b)
    found = check(d, shift=700.0 if a == 2 else -1e4)
    np.testing.assert_allclose(found.quantile(QUANTILES), d.ppf(QUANTILES), atol=1e-6 * d.std())
    low, high = found.hdi(0.95)
    assert d.cdf(high) - d.cdf(low) == pytest.approx(0.95, abs=1e-6)
    expected = narrowest(d, 0.95)
    assert high - low <= expected[1] - expected[0] + 1e-6 * d.std()


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.3), (2, 0.3), (1e5, 0.3)])
def test_beta_that_diverges_fast_at_1(a, b):
    # Numbers just below 1 are 2^-53 apart: what lies above the last one cannot be resolved.
    d = stats.beta(a, b)
    check(d, rel=1.5 * stats.beta(b, a).cdf(2.0**-53))


@pytest.mark.parametrize(
    "mean", [0.0003, 0.001, 0.0137, 0.05, 0.2, 1 / 3, 0.5, 0.77, 0.91, 0.9, 0.9991]
)
@pytest.mark.parametrize("sd", [1e-4, 1e-3, 0.03])
def test_narrow_peak(mean, sd):
    d = truncated(mean, sd)
    found = check(d)
    np.testing.assert_allclose(found.quantile(QUANTILES), d.ppf(QUANTILES), atol=1e-6 * sd)
    expected = narrowest(d, 0.9)
    np.testing.assert_allclose(found.hdi(0.9), expected, atol=5e-3 * sd)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(-4, 1))
def test_peak_anywhere(mean, log10_sd):
    check(truncated(mean, 10**log10_sd))


@pytest.mark.parametrize(
    "d",
    [
        Mixture((0.5, stats.beta(30, 70)), (0.5, stats.beta(70, 30))),
        Mixture((0.5, stats.beta(3e4, 7e4)), (0.5, stats.beta(7e4, 3e4))),
        Mixture((0.1, stats.beta(3e4, 7e4)), (0.9, stats.beta(7e4, 3e4))),
        Mixture((0.5, stats.norm(0.312, 1e-4)), (0.5, stats.norm(0.777, 1e-4))),
        Mixture((0.999, stats.norm(0.312, 1e-4)), (0.001, stats.norm(0.777, 1e-3))),
        Mixture((0.5, stats.beta(1, 1e4)), (0.5, stats.beta(1e4, 1))),
        Mixture((0.01, stats.beta(1, 1e5)), (0.99, stats.beta(20, 20))),
        Mixture((0.3, stats.beta(0.5, 40)), (0.4, stats.beta(80, 80)), (0.3, stats.beta(90, 1))),
    ],
    ids=["broad", "narrow", "unequal", "1e-4", "small bump", "both ends", "spike", "three"],
)
def test_several_modes(d):
    check(d)


def test_interval_of_two_modes_holds_its_probability():
    d = Mixture((0.5, stats.beta(30, 70)), (0.5, stats.beta(70, 30)))
    low, high = unit_density(d.logpdf).hdi(0.8)
    assert d.cdf(high) - d.cdf(low) == pytest.approx(0.8, abs=1e-7)


def test_hdi_ends_where_the_density_is_equal():
    d = stats.beta(3, 7)
    low, high = unit_density(d.logpdf).hdi(0.95)
    assert d.pdf(low) == pytest.approx(d.pdf(high), rel=1e-3)
    assert unit_density(np.zeros_like).hdi(0.95) == pytest.approx((0, 0.95), abs=1e-9)


def test_density_that_is_zero_on_a_part():
    d = stats.uniform(0.2, 0.4)
    found = unit_density(d.logpdf)
    assert found.log_integral == pytest.approx(0, abs=1e-7)
    assert found.mean == pytest.approx(0.4, abs=1e-7)
    np.testing.assert_allclose(found.quantile([0.25, 0.5]), [0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(found.cdf([0.1, 0.3, 0.9]), [0, 0.25, 1], atol=1e-6)


def test_expectation_and_curve():
    d = stats.beta(3, 5)
    found = unit_density(d.logpdf)
    assert found.expectation(found.x**3) == pytest.approx(d.moment(3), rel=1e-10)
    two = np.stack([found.x, 1 - found.x], axis=1)
    np.testing.assert_allclose(found.expectation(two), [3 / 8, 5 / 8], rtol=1e-10)
    x, density = found.curve()
    assert (np.diff(x) > -3e-16).all()
    assert x[0] == 0
    assert x[-1] == 1
    np.testing.assert_allclose(density, d.pdf(x), atol=1e-6)


@pytest.mark.parametrize("mass", [1e-12, 0.01, 0.3, 0.7, 0.96])
def test_point_mass_at_0(mass):
    d = stats.beta(6, 4)
    # The prior mass and the likelihoods of both parts are such that `mass` comes out.
    prior = 0.4
    log_at_0 = np.log(mass / prior) - np.log((1 - mass) / (1 - prior)) + 5
    found = unit_density(lambda x: d.logpdf(x) + 5, mass_at_0=prior, log_at_0=log_at_0)
    assert found.mass_at_0 == pytest.approx(mass, rel=1e-7)
    assert found.log_integral == pytest.approx(
        np.logaddexp(np.log(prior) + log_at_0, np.log(1 - prior) + 5), abs=1e-9
    )
    assert found.mean == pytest.approx((1 - mass) * 0.6, rel=1e-7)
    second = (1 - mass) * (d.var() + 0.36)
    assert found.sd == pytest.approx(np.sqrt(second - ((1 - mass) * 0.6) ** 2), rel=1e-7)
    x = np.array([0.0, 0.2, 0.5, 1.0])
    np.testing.assert_allclose(found.cdf(x), mass + (1 - mass) * d.cdf(x), atol=1e-9)
    assert found.cdf(-0.1) == 0
    q = np.array([mass / 2, 0.999 * mass, mass + 0.5 * (1 - mass)])
    np.testing.assert_allclose(found.quantile(q), [0, 0, d.ppf(0.5)], atol=1e-7)
    draws = found.draw(20_000, np.random.default_rng(1))
    assert abs((draws == 0).mean() - mass) < 5 * np.sqrt(mass * (1 - mass) / 20_000) + 1e-12


def test_interval_with_a_point_mass_at_0():
    d = stats.beta(600, 400)

    def with_mass(mass):
        log_at_0 = np.log(mass / (1 - mass))
        return unit_density(d.logpdf, mass_at_0=0.5, log_at_0=log_at_0)

    # Negligible mass at 0 does not drag the interval there...
    expected = unit_density(d.logpdf).hdi(0.95)
    np.testing.assert_allclose(with_mass(1e-20).hdi(0.95), expected, atol=1e-6)
    # ...some makes what lies away from 0 hold more...
    low, high = with_mass(0.03).hdi(0.95)
    assert low > 0.5
    assert 0.97 * (d.cdf(high) - d.cdf(low)) == pytest.approx(0.95, abs=1e-7)
    # ...and what cannot be left out is in.
    low, high = with_mass(0.3).hdi(0.95)
    assert low == 0
    assert 0.3 + 0.7 * d.cdf(high) == pytest.approx(0.95, abs=1e-7)
    assert with_mass(0.96).hdi(0.95) == (0.0, 0.0)


def test_point_mass_alone():
    x = np.array([0.5])
    found = UnitDensity(x, x, np.ones(1), np.array([0.0, 1.0]), 0.0, mass_at_0=1.0)
    assert found.quantile(np.array([0.1, 0.9])).tolist() == [0, 0]
    assert found.hdi() == (0.0, 0.0)


@pytest.mark.parametrize(
    "d",
    [stats.beta(0.5, 8), stats.beta(2, 3), stats.beta(1e4, 2), truncated(0.7, 1e-4)],
    ids=["at 0", "middle", "at 1", "narrow"],
)
def test_draws_follow_the_density(d):
    draws = unit_density(d.logpdf).draw(20_000, np.random.default_rng(7))
    assert stats.kstest(draws, d.cdf).pvalue > 0.001
    again = unit_density(d.logpdf).draw(20_000, np.random.default_rng(7))
    np.testing.assert_array_equal(draws, again)


def test_scalars_and_arrays():
    found = unit_density(stats.beta(2, 2).logpdf)
    assert float(found.quantile(0.5)) == pytest.approx(0.5)
    assert float(found.cdf(0.5)) == pytest.approx(0.5)
    assert found.quantile(np.full((2, 3), 0.5)).shape == (2, 3)
    assert found.quantile(np.array([0.0, 1.0])) == pytest.approx([0, 1])


def test_repr_tells_what_a_reader_wants():
    shown = repr(unit_density(lambda x: np.log(x) * 2, mass_at_0=0.5, log_at_0=0.0))
    assert shown.startswith("<density on [0, 1]: mean ")
    assert "highest density" in shown
    assert "P(0) = " in shown
