"""The liability model: exact on few samples, calibrated, and honest about what it cannot know."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.binary.gibbs import Problem, gibbs, log_slope, truncated
from bayeslmm.binary.guide import Guide
from bayeslmm.generative.sampling import SamplingWarning


def sibs(families: int, size: int = 4) -> np.ndarray:
    return np.kron(np.eye(families), np.full((size, size), 0.5) + 0.5 * np.eye(size))


def simulated(
    K: np.ndarray, h2: float, seed: int, threshold: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Cases of the liability model, and their genetic values."""
    rng = np.random.default_rng(seed)
    u = np.linalg.cholesky(K / np.diagonal(K).mean() * h2) @ rng.normal(size=len(K))
    return u + np.sqrt(1 - h2) * rng.normal(size=len(K)) > threshold, u


def labelled(K: np.ndarray) -> bl.GRM:
    return bl.GRM(K, samples=[f"s{i}" for i in range(len(K))])


# -- the sampler against what we did not write ----------------------------------------------


@pytest.mark.parametrize(("n", "offset", "cases"), [(6, None, 4), (6, 0.7, 4), (8, -0.5, 1)])
def test_sampler_equals_orthant_probabilities(n: int, offset: float | None, cases: int) -> None:
    """The posterior of h2 of a few people by SciPy's multivariate normal probabilities.

    One case of eight has a precision of its own in the guide.
    """
    from scipy.stats import multivariate_normal

    K = np.kron(np.eye(n // 2), np.array([[1, 0.8], [0.8, 1]]))
    S, U = np.linalg.eigh(K)
    sign = np.where(np.isin(np.arange(n), [0, 1, 4, 5][:cases]), 1.0, -1.0)
    grid = np.linspace(0.02, 0.98, 25)
    V = grid[:, None, None] * K + (1 - grid)[:, None, None] * np.eye(n)
    if offset is None:
        V = V + 1.0  # an intercept of variance 1, integrated out
        X, precision, known = np.ones((n, 1)), np.ones(1), None
    else:
        X, precision, known = np.zeros((n, 0)), np.zeros(0), np.full(n, offset)
    flipped = V * sign[:, None] * sign
    limits = np.zeros(n) if offset is None else sign * offset
    p = np.array([multivariate_normal(np.zeros(n), v).cdf(limits, rng=1) for v in flipped])
    p /= p.sum()
    mean = p @ grid
    sd = np.sqrt(p @ (grid - mean) ** 2)
    problem = Problem(U, S / S.mean(), sign, X, precision, np.zeros_like, known)
    found = gibbs(problem, draws=1000, tune=100, chains=48, rng=np.random.default_rng(1))
    draws = found.h2
    # Every step has its part in it.
    assert found.accepted > 0.3
    assert found.moved > 0.3
    # Standard error 0.0015: four of them.
    assert draws.mean() == pytest.approx(mean, abs=0.006)
    assert draws.std() == pytest.approx(sd, abs=0.006)


def guide_of(problem: Problem) -> Guide:
    mean = np.zeros(problem.n) if problem.offset is None else problem.offset
    return Guide(problem.U, problem.s, problem.sign, mean, log_slope)


def test_guide_approximates_orthant_probabilities() -> None:
    """Log p(y | h2) of six people, by expectation propagation and by SciPy."""
    from scipy.stats import multivariate_normal

    K = sibs(1, 6)
    S, U = np.linalg.eigh(K)
    sign, offset = np.array([1, 1, 1, -1, 1, 1.0]), np.full(6, -0.4)
    guide = guide_of(Problem(U, S, sign, np.zeros((6, 0)), np.zeros(0), log_slope, offset))
    at = np.flatnonzero(np.abs(guide.logit) <= 2)
    h2 = 1 / (1 + np.exp(-guide.logit[at]))
    V = h2[:, None, None] * K + (1 - h2)[:, None, None] * np.eye(6)
    flipped = V * sign[:, None] * sign
    p = [multivariate_normal(np.zeros(6), v).cdf(sign * offset, rng=1) for v in flipped]
    # It differs by 1 over this range.
    np.testing.assert_allclose(guide.log_evidence[at], np.log(p), atol=0.002)


@pytest.mark.parametrize("cases", [1, 4])
def test_ratio_of_a_guided_move_is_that_of_the_densities(cases: int) -> None:
    """Normal densities, the move's Jacobian and the proposal's density, written out.

    One case of eight has a precision of its own.
    """
    from scipy.stats import norm

    rng = np.random.default_rng(2)
    Z = rng.normal(size=(8, 12))
    S, U = np.linalg.eigh(Z @ Z.T / 12)
    s, sign = S / S.mean(), np.where(np.arange(8) < cases, 1.0, -1.0)
    guide = guide_of(Problem(U, s, sign, np.zeros((8, 0)), np.zeros(0), log_slope))
    k = 200
    old = rng.uniform(-2, 2, k)
    v = s[:, None] / (1 + np.exp(-old))
    z = np.sqrt(v) * rng.standard_normal((8, k))
    new, z_new, ratio = guide.propose(old, z, np.random.default_rng(3))
    v_new = s[:, None] / (1 + np.exp(-new))
    density = norm.logpdf(z_new, scale=np.sqrt(v_new)) - norm.logpdf(z, scale=np.sqrt(v))
    # The Jacobian, from starts a little further.
    rows = [
        (guide.propose(old, z + step[:, None], np.random.default_rng(3))[1] - z_new) / 1e-4
        for step in 1e-4 * np.eye(8)
    ]
    jacobian = np.linalg.slogdet(np.moveaxis(rows, 2, 0))[1]
    total = density.sum(axis=0) + jacobian + log_slope(new) - log_slope(old)
    assert guide.E.shape == (8, int(cases == 1))
    # Near moves are symmetric; far ones have the density of a histogram.
    mass = np.diff(guide.cdf)
    far = np.log(mass[np.searchsorted(guide.edges, old) - 1])
    far -= np.log(mass[np.clip(np.searchsorted(guide.edges, new) - 1, 0, len(mass) - 1)])
    gap = ratio - total
    is_near = np.abs(gap) < 1e-6
    np.testing.assert_allclose(gap[~is_near], far[~is_near], atol=1e-6)
    assert 0.1 < is_near.mean() < 0.35


def test_truncated_normals_are_right_in_the_tail() -> None:
    from scipy.stats import truncnorm

    rng = np.random.default_rng(1)
    for above in (-3.0, 0.0, 4.0, 30.0):
        draws = truncated(np.full(20_000, -above), rng)
        expected = truncnorm(above, np.inf)
        assert (draws > above).all()
        assert draws.mean() == pytest.approx(expected.mean(), abs=5 * expected.std() / 141)
        assert draws.std() == pytest.approx(expected.std(), rel=0.05)


def test_h2_is_drawn_by_inversion() -> None:
    """The quantiles of a normal logit h2 and of one near the end, to 1e-4 standard deviations."""
    from scipy.stats import norm

    from bayeslmm.binary.gibbs import Nodes

    s = np.linspace(0.5, 1.5, 5)
    problem = Problem(np.eye(5), s, np.ones(5), np.zeros((5, 0)), np.zeros(0), np.zeros_like)
    nodes = Nodes(problem)
    p = np.array([0.001, 0.1, 0.5, 0.9, 0.999])

    class Fixed:
        def random(self, size: int) -> np.ndarray:
            return p

    for mean, sd in ((0.3, 0.4), (-2.0, 1.3)):
        log_density = norm.logpdf(nodes.logit, mean, sd)[:, None].repeat(5, axis=1)
        drawn = nodes.draw(log_density, Fixed())  # type: ignore[arg-type]
        np.testing.assert_allclose((drawn - mean) / sd, norm.ppf(p), atol=1e-4)


def test_sampler_is_calibrated() -> None:
    """Simulation-based calibration in a short form; docs/scripts/liability.py has the long one."""
    model = bl.LiabilityLMM(simulated(sibs(10), 0.5, 1)[0], kernel=sibs(10), b_sd=1.0)
    check = model.calibrate(replicates=40, draws=19, seed=1, progress=False)
    assert check.calibrated, check
    assert set(check.ranks) == {"h2", "b[Intercept]", "u[0]", "risk[0]", "log_lik"}


def test_calibration_notices_a_wrong_model() -> None:
    """Ranks under another prior than the one simulated from are not uniform."""
    K = sibs(15)
    model = bl.LiabilityLMM(simulated(K, 0.5, 1)[0], kernel=K, b_sd=1.0)
    wrong = bl.LiabilityLMM(
        simulated(K, 0.5, 1)[0], kernel=K, b_sd=1.0, h2_prior=bl.priors.beta(30, 2)
    )
    model.problem = wrong.problem  # type: ignore[method-assign]
    check = model.calibrate(replicates=20, draws=9, seed=1, progress=False)
    assert not check.calibrated


def test_pymc_form_has_the_same_density() -> None:
    """Its log density, written here with SciPy, up to a constant."""
    from scipy.stats import norm

    K = sibs(5)
    y, _ = simulated(K, 0.5, 2)
    rng = np.random.default_rng(3)
    x = pd.DataFrame({"rs1": rng.integers(0, 3, size=20)}, index=[f"s{i}" for i in range(20)])
    sex = pd.DataFrame({"case": y, "age": rng.normal(50, 5, size=20)}, index=x.index)
    model = bl.LiabilityLMM("case ~ age", sex, labelled(K), b_sd=2.0)
    pymc_model = model.pymc_model(snps=x, snp_prior=bl.priors.Normal(0.3))
    logp = pymc_model.compile_logp(mode="FAST_COMPILE")
    basis = model.observed.basis
    assert basis is not None
    age = (model.C["age"] - model.C["age"].mean()) / model.C["age"].std(ddof=0)
    gaps = []
    for _ in range(4):
        h2, b, z, beta = rng.random(), rng.normal(size=2), rng.normal(size=20), rng.normal(size=1)
        u = basis.vectors @ (np.sqrt(h2 * basis.values / basis.kappa) * z)
        snp = (x.rs1 - x.rs1.mean()) / x.rs1.std(ddof=0)
        eta = (b[0] + b[1] * age + beta[0] * snp + u) / np.sqrt(1 - h2)
        expected = norm.logcdf(np.where(model.y > 0, eta, -eta)).sum()
        expected += norm.logpdf(b, 0, 2).sum() + norm.logpdf(z).sum()
        expected += norm.logpdf(beta, 0, 0.3).sum() + np.log(h2 * (1 - h2))
        point = {
            "h2_interval__": np.log(h2 / (1 - h2)),
            "b_std": b,
            "z": z,
            "beta_std": beta,
        }
        gaps.append(float(logp(point)) - expected)
    # PyMC's log Phi is good to 1e-8 for each sample.
    np.testing.assert_allclose(gaps, 0, atol=1e-6)
    # An intercept makes an eigenvalue 0: the gradient is finite all the same.
    assert basis.values.min() < 1e-9
    assert np.isfinite(pymc_model.compile_dlogp(mode="FAST_COMPILE")(point)).all()


# -- the object -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort() -> tuple[bl.LiabilityLMM, object, pd.DataFrame]:
    """100 families of six sibs, four of them analysed, with an effect of sex and of a SNP."""
    K, rng = sibs(100, 6), np.random.default_rng(4)
    ids = [f"s{i}" for i in range(600)]
    table = pd.DataFrame(
        {"sex": rng.choice(["F", "M"], 600), "rs1": rng.binomial(2, 0.4, 600)}, index=ids
    )
    u = np.linalg.cholesky(0.6 * K) @ rng.normal(size=600)
    mean = -0.5 + 0.6 * (table.sex == "M") + 0.5 * (table.rs1 - 0.8)
    liability = mean + u + np.sqrt(0.4) * rng.normal(size=600)
    table = table.assign(case=np.where(liability > 0, "case", "control"), truth=mean + u)
    kept = np.tile([True] * 4 + [False] * 2, 100)
    seen = table.assign(case=table.case.where(kept, None))
    model = bl.LiabilityLMM("case ~ sex", seen, bl.GRM(K, samples=ids))
    draws = model.sample(snps=table[["rs1"]], draws=1500, seed=1, progress=False)
    return model, draws, table


def test_components_of_the_formula_are_those_of_new_samples_too() -> None:
    rng = np.random.default_rng(2)
    ids = [f"s{i}" for i in range(120)]
    kernel = bl.GRM(bl.grm(rng.integers(0, 3, size=(120, 150))).matrix, samples=ids)
    table = pd.DataFrame({"case": np.where(rng.random(100) < 0.4, 1.0, 0.0)}, index=ids[:100])
    model = bl.LiabilityLMM("case ~ pcs(2)", table, kernel)
    with pytest.warns(bl.SamplingWarning):
        draws = model.sample(draws=20, tune=20, chains=2, seed=1, latent=10)
    found = model.predict(draws, samples=ids[100:])
    scores = model.observed.pcs.scores
    pd.testing.assert_frame_equal(model.predict(draws, data=scores, samples=ids[100:]), found)


def test_draws_hold_the_truth(cohort: tuple) -> None:
    model, draws, _ = cohort
    posterior = draws["posterior"].dataset
    for name, true in (("h2", 0.6), ("beta", 0.5)):
        low, high = np.quantile(posterior[name], [0.005, 0.995])
        assert low < true < high
    intercept, sex = posterior["b"].mean(("chain", "draw")).to_numpy()
    assert sex == pytest.approx(0.6, abs=0.4)
    assert intercept == pytest.approx(-0.5, abs=0.35)
    sd = draws["constant_data"]["x_sd"].to_numpy()
    np.testing.assert_allclose(posterior["beta_std"], posterior["beta"] * sd)
    assert posterior.attrs["h2_scale"].startswith("liability")
    latent = draws["latent"].dataset
    assert latent["u"].dims == ("chain", "draw", "sample")
    assert latent.sizes["sample"] == 400
    assert latent.sizes["chain"] * latent.sizes["draw"] == 1000
    # The liabilities have the sides of the phenotypes.
    assert ((latent["liability"] > 0) == (model.y > 0)).all()
    np.testing.assert_array_equal(latent["h2"], posterior["h2"].sel(draw=latent.draw))


def test_risks_of_the_analysed_and_of_others_are_calibrated(cohort: tuple) -> None:
    from scipy.special import ndtr

    model, draws, table = cohort
    true = ndtr(table.truth / np.sqrt(0.4))
    own = model.predict(draws, prob=0.9)
    inside = (own.risk_low <= true[own.index]) & (true[own.index] <= own.risk_high)
    assert inside.mean() == pytest.approx(0.9, abs=0.07)
    ids = [i for i in table.index if i not in model.ids]
    with pytest.raises(bl.InputError, match="does not know its genotypes"):
        model.predict(draws, data=table, samples=ids)
    plain = model.sample(draws=600, seed=2, progress=False)
    other = model.predict(plain, data=table, samples=ids)
    assert list(other.index) == ids
    # Sibs share risk; and the predicted mean is the observed share, over all and by half.
    cases = table.case[ids] == "case"
    assert np.corrcoef(other.risk, true[ids])[0, 1] > 0.4
    high = other.risk > other.risk.median()
    for part in (high, ~high):
        se = np.sqrt((other.risk[part] * (1 - other.risk[part])).sum()) / part.sum()
        assert cases[part].mean() == pytest.approx(other.risk[part].mean(), abs=3.5 * se)


def test_the_same_seed_makes_the_same_draws() -> None:
    K = sibs(30)
    model = bl.LiabilityLMM(simulated(K, 0.5, 3)[0], kernel=K)
    with pytest.warns(SamplingWarning, match="effective draws"):
        one, two = (model.sample(draws=50, seed=5, latent=16) for _ in range(2))
    np.testing.assert_array_equal(one["posterior"]["h2"], two["posterior"]["h2"])
    assert one["latent"].dataset.sizes["draw"] == 2
    with pytest.warns(SamplingWarning, match="Raise draws"):
        none = model.sample(draws=50, seed=5, latent=0)
    with pytest.raises(bl.InputError, match="no latent group"):
        model.predict(none)


def test_codes_of_cases_make_the_same_model() -> None:
    K = sibs(30)
    y, _ = simulated(K, 0.5, 3)
    models = [bl.LiabilityLMM(code, kernel=K) for code in (y, y.astype(int), y + 1.0)]
    for model in models:
        np.testing.assert_array_equal(model.y, y)
    assert f"{y.sum()} cases" in repr(models[0])
    assert "h2 of the liability ~ Uniform(0, 1), total variance 1" in repr(models[0])


def test_bad_input_is_said() -> None:
    K = sibs(30)
    y = simulated(K, 0.5, 3)[0].astype(float)
    with pytest.raises(bl.InputError, match="same value"):
        bl.LiabilityLMM(np.ones(120), kernel=K)
    with pytest.raises(bl.InputError, match="not case/control"):
        bl.LiabilityLMM(y + 3, kernel=K)
    with pytest.raises(bl.InputError, match=r"prevalence must be a share in \(0, 1\).* but is 1"):
        bl.LiabilityLMM(y, kernel=K, prevalence=1)
    with pytest.raises(bl.InputError, match="needs a kernel"):
        bl.LiabilityLMM(y)
    with pytest.raises(bl.InputError, match="no point mass at 0"):
        bl.LiabilityLMM(y, kernel=K, h2_prior=bl.priors.uniform(spike=0.5))
    with pytest.raises(bl.InputError, match="b_sd must be above 0"):
        bl.LiabilityLMM(y, kernel=K, b_sd=0)
    model = bl.LiabilityLMM(y, kernel=K)
    with pytest.raises(bl.InputError, match="draws must be at least 1"):
        model.sample(draws=0)
    with pytest.raises(bl.InputError, match="have a normal prior"):
        model.sample(snp_prior="horseshoe")
    with pytest.raises(bl.InputError, match="latent must not be negative"):
        model.sample(latent=-1)
    with pytest.raises(bl.InputError, match="PCGC needs the share"):
        model.pcgc()


def test_separation_and_ascertainment_are_warned_of() -> None:
    K = sibs(30)
    y = simulated(K, 0.5, 3)[0]
    table = pd.DataFrame({"case": y, "marker": y * 1.0 + 0.1}, index=[f"s{i}" for i in range(120)])
    table.loc["s0", "marker"] = 0.5  # separation is only a matter of order
    model = bl.LiabilityLMM("case ~ marker", table, labelled(K), b_sd=2.0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        draws = model.sample(draws=100, seed=1)
    assert re.search(r"separate cases from controls.*: marker\. .*prior", str(told[0].message))
    assert np.isfinite(draws["posterior"]["b"]).all()
    half = bl.LiabilityLMM(y, kernel=K, prevalence=0.01)
    assert half.ascertained
    assert "case-control sample" in repr(half)
    with pytest.warns(SamplingWarning, match=r"too high for the population. Use .pcgc\(\)"):
        draws = half.sample(draws=500, seed=1)
    assert draws.attrs["ascertained"] == 1
    assert half.predict(draws).risk.max() < 0.2  # the population's
    table = half.scales(draws)
    assert list(table.index) == ["observed", "transformed", "liability", "pcgc"]
    assert list(table.index[table.advised]) == ["pcgc"]
    assert "not a heritability" in table.scale["observed"]
    same = bl.LiabilityLMM(y, kernel=K, prevalence=float(y.mean()))
    assert not same.ascertained
    quiet = same.sample(draws=500, seed=1)
    assert list(same.scales(quiet).query("advised").index) == ["liability"]


# -- plots --------------------------------------------------------------------------------------


def test_plots_show_what_they_are_given() -> None:
    from bayeslmm.model.calibration import reliability_table

    table = pd.DataFrame(
        {"mean": [0.3, 0.6], "low": [0.2, 0.4], "high": [0.4, 0.8], "advised": [False, True]},
        index=["observed", "pcgc"],
    )
    ax = bl.plots.liability_scales(table)
    assert [text.get_text() for text in ax.texts][1].endswith("advised")
    rng = np.random.default_rng(1)
    risk = rng.random(500)
    case = rng.random(500) < risk
    bins = reliability_table(risk, case)
    assert bins.n.sum() == 500
    assert ((bins.low <= bins.risk) & (bins.risk <= bins.high)).sum() >= 8
    bl.plots.reliability(risk, case)
    with pytest.raises(bl.InputError, match="expected as many of both"):
        reliability_table(risk, case[1:])
    study = pd.DataFrame({"prevalence": [0.1, 0.1], "h2": 0.5, "pcgc": [0.4, 0.6]})
    assert "prevalence 10%" in bl.plots.ascertainment(study).get_xticklabels()[0].get_text()
    with pytest.raises(bl.InputError, match="no estimates"):
        bl.plots.ascertainment(study[["prevalence", "h2"]])
