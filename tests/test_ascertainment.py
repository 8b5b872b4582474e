"""PCGC regression: its sums, its standard error, and the truth under ascertainment."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

import bayeslmm as bl
from bayeslmm.binary.ascertainment import population_risk
from bayeslmm.model.heritability import liability_factor


def case_control_sample(
    n: int, m: int, h2: float, prevalence: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Half cases of a population, exactly: K of m normal genotypes, and who is a case.

    Liabilities are drawn given the status, genetic values given liabilities, genotypes
    given genetic values: no one is simulated in vain.
    """
    effects = rng.normal(size=m)
    effects *= np.sqrt(h2) / np.linalg.norm(effects)
    case = np.arange(n) < n // 2
    v = 1 - rng.random(n)
    liability = np.where(case, -ndtri(v * prevalence), ndtri(v * (1 - prevalence)))
    genetic = h2 * liability + np.sqrt(h2 * (1 - h2)) * rng.normal(size=n)
    Z = rng.normal(size=(n, m))
    Z += np.outer((genetic - Z @ effects) / h2, effects)
    return Z @ Z.T / m, case


def test_slope_and_standard_error_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error's variance is the sum of r_p r_q over all pairs p, q that share a group."""
    rng = np.random.default_rng(1)
    K, case = case_control_sample(40, 100, 0.5, 0.1, rng)
    ids = [f"s{i}" for i in range(40)]
    families = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 4])
    groups = pd.Series(families, index=ids).sample(frac=1, random_state=1)
    model = bl.LMM(pd.Series(case * 1.0, index=ids), kernel=bl.GRM(K, samples=ids))
    z = 2 * (case - 0.5)
    factor = np.exp(-0.5 * ndtri(0.1) ** 2) / np.sqrt(2 * np.pi) * 0.5 / 0.09
    pairs = [(i, j) for i in range(40) for j in range(i)]
    x = np.array([K[i, j] for i, j in pairs]) * factor**2
    zz = np.array([z[i] * z[j] for i, j in pairs])
    slope, kappa = float(x @ zz / (x @ x)), float(np.diagonal(K).mean())
    r = x * (zz - slope * x)
    # Rows come in pieces that hold whole groups.
    monkeypatch.setattr("bayeslmm.binary.ascertainment._ROWS", 400)
    for given, labels in ((None, np.arange(40)), (groups, families)):
        fit = bl.pcgc(model, 0.1, groups=given)
        assert fit.h2 == pytest.approx(slope * kappa, rel=1e-10)
        of_pair = [{labels[i], labels[j]} for i, j in pairs]
        both = range(len(pairs))
        shared = sum(r[p] * r[q] for p in both for q in both if of_pair[p] & of_pair[q])
        # It is at least what pairs of the same two groups make.
        same = [(p, q) for p in both for q in both if of_pair[p] == of_pair[q]]
        least = sum(r[p] * r[q] for p, q in same if len(of_pair[p]) == 2)
        variance = max(shared, least)
        count = len(set(labels))
        se = np.sqrt(variance * count / (count - 1)) / (x @ x) * kappa
        assert fit.se == pytest.approx(se, rel=1e-10)
        assert fit.groups == count
    assert "20 cases, 20 controls, prevalence 0.1" in str(fit)


def test_pcgc_is_unbiased_where_likelihoods_are_not() -> None:
    """Prevalence 1%, half cases: PCGC within its error, with and without a covariate."""
    rng = np.random.default_rng(2)
    found = {"pcgc": [], "se": [], "linear": []}
    for _ in range(12):
        K, case = case_control_sample(300, 300, 0.5, 0.01, rng)
        model = bl.LMM(case * 1.0, kernel=K)
        fit = bl.pcgc(model, 0.01)
        found["pcgc"].append(fit.h2)
        found["se"].append(fit.se)
        found["linear"].append(model.reml().h2 * liability_factor(0.01, 0.5))
    mean = {name: np.mean(values) for name, values in found.items()}
    error = np.std(found["pcgc"]) / np.sqrt(12)
    assert mean["pcgc"] == pytest.approx(0.5, abs=4 * error)
    assert error < 0.03
    assert mean["linear"] < 0.45
    # The standard error is that of the replicates, as far as twelve of them tell.
    assert 0.7 < mean["se"] / np.std(found["pcgc"]) < 1.6


def test_covariates_shift_the_threshold() -> None:
    """A covariate of large effect: h2 of the liability, covariates aside."""
    rng = np.random.default_rng(3)
    estimates = []
    for _ in range(6):
        n, m, h2 = 40_000, 60, 0.6
        effects = rng.normal(size=m)
        effects *= np.sqrt(h2) / np.linalg.norm(effects)
        Z, x = rng.normal(size=(n, m)), rng.normal(size=n)
        noise = np.sqrt(1 - h2) * rng.normal(size=n)
        # Given x the liability has variance 1; the prevalence is that of the mixture.
        case = Z @ effects + x + noise > -ndtri(0.02) * np.sqrt(2)
        chosen = np.concatenate([np.flatnonzero(case)[:400], np.flatnonzero(~case)[:400]])
        K = Z[chosen] @ Z[chosen].T / m
        model = bl.LMM(case[chosen] * 1.0, x[chosen], kernel=K)
        estimates.append(bl.pcgc(model, 0.02).h2)
    assert np.mean(estimates) == pytest.approx(0.6, abs=0.12)


def test_risks_follow_bayes_rule() -> None:
    # Of 1,000 people with 100 cases, all cases and 100 controls are sampled; risks 0.1 and 0.5.
    for risk in (0.1, 0.5):
        in_sample = risk / (risk + (1 - risk) * 100 / 900)
        assert population_risk(np.array([in_sample]), 0.1, 0.5)[0] == pytest.approx(risk)


def test_bad_input_is_said() -> None:
    K, case = case_control_sample(60, 100, 0.5, 0.1, np.random.default_rng(1))
    model = bl.LMM(case * 1.0, kernel=K)
    with pytest.raises(bl.InputError, match=r"prevalence must be a share in \(0, 1\)"):
        bl.pcgc(model, 0)
    with pytest.raises(bl.InputError, match="not case/control"):
        bl.pcgc(bl.LMM(case + np.arange(60.0), kernel=K), 0.1)
    with pytest.raises(bl.InputError, match="needs the relatedness matrix"):
        bl.pcgc(model.without_kernel(), 0.1)
    with pytest.raises(bl.InputError, match="groups has 3 labels, but there are 60"):
        bl.pcgc(model, 0.1, groups=[1, 2, 3])
    with pytest.raises(bl.InputError, match="standard error has 2 groups"):
        bl.pcgc(model, 0.1, groups=np.arange(60) % 2)
    with pytest.raises(bl.InputError, match="relates no two samples"):
        bl.pcgc(bl.LMM(case * 1.0, kernel=np.diag(np.arange(1.0, 61))), 0.1)
