import numpy as np
import pytest
from scipy import stats

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.numerics.quadrature import unit_density
from bayeslmm.priors import H2Prior, as_h2_prior

H2 = np.linspace(0.001, 0.999, 333)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (1, 3), (3, 1), (0.5, 0.5), (200, 300)])
def test_beta(a, b):
    prior = bl.priors.beta(a, b)
    np.testing.assert_allclose(prior.log_density(H2), stats.beta(a, b).logpdf(H2), rtol=1e-10)
    assert prior.spike == 0


def test_beta_at_the_ends_does_not_warn():
    ends = np.array([0.0, 1.0])
    assert bl.priors.beta(1, 1).log_density(ends).tolist() == [0, 0]
    assert bl.priors.beta(1, 1).log_density(np.array([0, 1])).tolist() == [0, 0]


def test_uniform():
    assert (bl.priors.uniform().log_density(H2) == 0).all()
    assert repr(bl.priors.uniform()) == "Uniform(0, 1)"
    assert repr(bl.priors.uniform(spike=0.25)) == "0.25 at 0 + 0.75 Uniform(0, 1)"


def test_density_is_normalised():
    def triangle(h2):
        return 7 * np.minimum(h2, 1 - h2)

    prior = bl.priors.density(triangle, spike=0.1)
    np.testing.assert_allclose(np.exp(prior.log_density(H2)), 4 * np.minimum(H2, 1 - H2), rtol=1e-8)
    assert repr(prior) == "0.1 at 0 + 0.9 triangle"


def test_constant_density():
    np.testing.assert_allclose(bl.priors.density(lambda h2: 3.0).log_density(H2), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (stats.beta(2, 5), "beta(2, 5)"),
        (stats.beta(a=2, b=5), "beta(a=2, b=5)"),
        (stats.norm(0.3, 1e-4), "norm(0.3, 0.0001)"),
        (stats.uniform(0.1, 0.5), "uniform(0.1, 0.5)"),
        (stats.Normal(mu=0.4, sigma=0.2), "Normal(mu=0.4, sigma=0.2)"),
        (stats.expon(scale=0.2), "expon(scale=0.2)"),
    ],
)
def test_scipy_distributions_are_cut_to_the_unit_interval(given, name):
    prior = as_h2_prior(given)
    mass = given.cdf(1.0) - given.cdf(0.0)
    inside = H2[given.pdf(H2) > 0]
    np.testing.assert_allclose(
        prior.log_density(inside), given.logpdf(inside) - np.log(mass), rtol=1e-6, atol=1e-7
    )
    assert unit_density(prior.log_density).log_integral == pytest.approx(0, abs=1e-7)
    assert repr(prior) == name


def test_what_a_user_may_write():
    assert repr(as_h2_prior(None)) == repr(as_h2_prior("uniform")) == "Uniform(0, 1)"
    prior = bl.priors.beta(2, 2)
    assert as_h2_prior(prior) is prior
    assert isinstance(as_h2_prior(lambda h2: h2), H2Prior)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bl.priors.beta(0, 1), r"Beta\(0, 1\) is no density: both parameters"),
        (lambda: bl.priors.beta(1, -2), r"Beta\(1, -2\) is no density"),
        (lambda: bl.priors.beta(1, 1, spike=1), r"h2 = 0 must be in \[0, 1\), but is 1"),
        (lambda: bl.priors.uniform(spike=-0.1), r"must be in \[0, 1\), but is -0.1"),
        (lambda: bl.priors.density(lambda h: h - 0.5), "must be finite and not negative"),
        (lambda: bl.priors.density(lambda h: h * np.nan), "must be finite and not negative"),
        (lambda: bl.priors.density(np.zeros_like), r"is 0 on all of \(0, 1\)"),
        (lambda: as_h2_prior(stats.uniform(2, 1)), r"is 0 on all of \(0, 1\)"),
        (lambda: as_h2_prior("flat"), "h2_prior='flat' is no prior. Use 'uniform'"),
        (lambda: as_h2_prior(0.5), "h2_prior=0.5 is no prior"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_list_of_concentrations_is_refused():
    with pytest.raises(bl.InputError, match=r"must be a number above 0, but is \[1, 2\]"):
        bl.priors.Dirichlet([1, 2])
