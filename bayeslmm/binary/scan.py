"""The scan of a case/control phenotype: score, saddlepoint, Wald and Firth tests in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.binary.logistic import NullLogistic, fit_effects, fit_firth, fit_null
from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.case_control import case_control
from bayeslmm.inputs.genotypes import CenteredBlock
from bayeslmm.numerics import saddlepoint
from bayeslmm.numerics.nodes import COLLINEAR
from bayeslmm.numerics.tails import log10_p_chi2
from bayeslmm.runs.provenance import provenance

if TYPE_CHECKING:
    from bayeslmm.binary.mixed import NullMixed
    from bayeslmm.model.lmm import LMM

TESTS = ("wald", "firth", "score", "spa")
# Score tests need the null model only; the others fit every variant.
WITH_KERNEL = ("score", "spa")
DEFAULT_TESTS = ("wald", "score")
DEFAULT_TESTS_MIXED = ("spa", "score")
# Fewer alleles of either kind than this among cases or among controls: Firth instead of Wald.
FEW_ALLELES = 10
# |z| up to which the normal tail is used, as in SAIGE.
SPA_CUTOFF = 2.0
# Share of carriers up to which only they enter the saddlepoint one by one.
_FEW_CARRIERS = 0.25
_Z95 = 1.959963984540054
_METHODS = ("", "wald", "firth", "score", "spa")


def check(model: LMM, tests: tuple[str, ...] | None, **unused: Any) -> tuple[str, ...]:
    """The tests of a case/control scan; an `InputError` for what it does not know.

    `unused` are options of other scans, by name, with what they are when they are not used.
    """
    default = DEFAULT_TESTS_MIXED if model.has_kernel else DEFAULT_TESTS
    if tests is None:
        return default
    known = WITH_KERNEL if model.has_kernel else TESTS
    unknown = [test for test in tests if test not in known]
    if unknown or not tests:
        why = (
            " (with relatedness the null model is fitted once, and variants have score tests)"
            if model.has_kernel and set(unknown) <= set(TESTS)
            else ""
        )
        raise InputError(
            f"tests={listing(unknown)} for family='binomial': expected one or more of "
            f"{listing(known)}{why}."
        )
    return tests


class CaseScanner:
    """Tests of variants against one null model of a case/control phenotype.

    Without kernel the null model is a logistic regression, with one the mixed model of
    `bayeslmm.binary.mixed`.
    """

    basis = None

    def __init__(self, model: LMM, tests: tuple[str, ...]) -> None:
        self.tests = tests
        self.cases = case_control(model)
        C = model.C.to_numpy(dtype=np.float64)
        self.mixed: NullMixed | None = None
        if model.has_kernel:
            from bayeslmm.binary.mixed import fit_null_mixed

            self.mixed = fit_null_mixed(model, self.cases.y)
            self.null: NullLogistic = self.mixed.null
        else:
            self.null = fit_null(self.cases.y, C, list(model.C.columns))
        self.is_case = self.cases.y > 0

    def prepare(self, block: CenteredBlock) -> tuple[np.ndarray, np.ndarray | None]:
        """What `test` needs of a block: its dosages, and which of them are missing."""
        return block.x, block.missing

    def test(
        self, block: CenteredBlock, prepared: tuple[np.ndarray, np.ndarray | None]
    ) -> dict[str, np.ndarray]:
        """Columns of the table for a block of centred variants, NaN where there is no test."""
        dosage, missing = prepared
        null = self.null
        out = self._frequencies(block, dosage, missing)
        x = null.project(dosage)
        score, information = null.score(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            # What is left of a variant that the covariates explain is rounding.
            left = information / (np.square(dosage) @ null.w)
        testable = (block.sum_sq > 0) & (left > COLLINEAR[np.dtype(np.float64)])
        out["testable"] = testable
        Px = None
        variance = information
        if self.mixed is not None:
            variance, Px = self.mixed.variance(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(testable, score / np.sqrt(variance), np.nan)
            out["beta"], out["se"] = score / variance, 1 / np.sqrt(variance)
        out["log10_score"] = log10_p_chi2(z * z)
        out["method"] = np.where(testable, _METHODS.index("score"), 0).astype(np.int8)
        if "spa" in self.tests:
            self._saddlepoint(out, dosage, x if Px is None else Px / null.w, score, z, block.eaf)
        if "firth" in self.tests:
            self._effects(out, x, np.zeros(len(x), dtype=bool))
        elif "wald" in self.tests:
            self._effects(out, x, _enough(out))
        for name in ("beta", "se"):
            out[name][~testable] = np.nan
        return out

    def _frequencies(
        self, block: CenteredBlock, dosage: np.ndarray, missing: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Frequencies of the effect allele among cases and controls, non-missing."""
        v, y = len(dosage), self.cases.y
        called = np.full((2, v), [[self.cases.n_cases], [self.cases.n_controls]], dtype=np.float64)
        if missing is not None:
            absent = np.count_nonzero(missing[:, self.is_case], axis=1)
            called -= [absent, block.n_missing - absent]
        of_cases = dosage @ y
        with np.errstate(divide="ignore", invalid="ignore"):
            cases = block.eaf + of_cases / (2 * called[0])
            controls = block.eaf + (dosage.sum(axis=1) - of_cases) / (2 * called[1])
        return {
            "eaf_cases": np.clip(cases, 0, 1),
            "eaf_controls": np.clip(controls, 0, 1),
            "called_cases": called[0],
            "called_controls": called[1],
        }

    def _saddlepoint(
        self,
        out: dict[str, np.ndarray],
        dosage: np.ndarray,
        a: np.ndarray,
        score: np.ndarray,
        z: np.ndarray,
        eaf: np.ndarray,
    ) -> None:
        """Saddlepoint where the score is beyond the cutoff; a are the labels' weights in it."""
        mu, w = self.null.mu, self.null.w
        log10_p = out["log10_score"].copy()
        rows = np.flatnonzero(np.abs(z) > SPA_CUTOFF)
        if len(rows) and self.mixed is None:
            carrier = saddlepoint.carriers(dosage[rows], eaf[rows])
            few = carrier.mean(axis=1) < _FEW_CARRIERS
            at, rest = rows[few], rows[~few]
            if len(at):
                log10_p[at] = saddlepoint.log10_p_by_carriers(a[at], mu, score[at], carrier[few])
            if len(rest):
                log10_p[rest] = saddlepoint.log10_p_two_sided(a[rest], mu, score[rest])
        elif len(rows):
            of_labels = a[rows].astype(np.float64)
            variance = (score[rows] / z[rows]) ** 2
            of_u = np.maximum(variance - np.einsum("ij,ij,j->i", of_labels, of_labels, w), 0)
            log10_p[rows] = saddlepoint.log10_p_two_sided(of_labels, mu, score[rows], of_u)
        out["method"][rows] = _METHODS.index("spa")
        out["log10_spa"] = log10_p

    def _effects(self, out: dict[str, np.ndarray], x: np.ndarray, enough: np.ndarray) -> None:
        """Maximum-likelihood effects where there are `enough` alleles, else Firth's."""
        testable, method = out["testable"], out["method"]
        v = len(x)
        beta, se, log10_firth = (np.full(v, np.nan) for _ in range(3))
        method[testable] = 0
        ml = np.flatnonzero(testable & enough)
        found = fit_effects(self.null, x[ml])
        ok = ml[found.converged]
        beta[ok], se[ok] = found.beta[found.converged], found.se[found.converged]
        method[ok] = _METHODS.index("wald")
        rest = np.flatnonzero(testable & (method == 0))
        if len(rest):
            firth = fit_firth(self.null, x[rest])
            ok = rest[firth.converged]
            beta[ok], se[ok] = firth.beta[firth.converged], firth.se[firth.converged]
            log10_firth[ok] = log10_p_chi2(firth.lrt[firth.converged])
            method[ok] = _METHODS.index("firth")
        out["beta"], out["se"] = beta, se
        with np.errstate(invalid="ignore"):
            out["log10_wald"] = log10_p_chi2((beta / se) ** 2)
        out["log10_firth"] = log10_firth


def _enough(out: dict[str, np.ndarray]) -> np.ndarray:
    """Whether both alleles are there often enough, among cases and among controls."""
    fewest = np.full(len(out["eaf_cases"]), np.inf)
    for group in ("cases", "controls"):
        eaf, called = out[f"eaf_{group}"], out[f"called_{group}"]
        fewest = np.fmin(fewest, 2 * called * np.fmin(eaf, 1 - eaf))
    return fewest > FEW_ALLELES - 1e-6


def case_columns(
    model: LMM, scanner: CaseScanner, variants: pd.DataFrame, found: dict[str, np.ndarray]
) -> pd.DataFrame:
    """The table of some variants of a scan of cases and controls."""
    tests = scanner.tests
    table = variants[["chrom", "pos", "id", "ea", "oa"]].reset_index(drop=True)
    for name in ("eaf", "eaf_cases", "eaf_controls"):
        table[name] = found[name]
    table["n"], table["n_cases"] = len(model.y), scanner.cases.n_cases
    table["n_missing"] = found["n_missing"]
    table["beta"], table["se"] = found["beta"], found["se"]
    with np.errstate(over="ignore"):
        table["or"] = np.exp(table.beta)
        table["or_low"] = np.exp(table.beta - _Z95 * table.se)
        table["or_high"] = np.exp(table.beta + _Z95 * table.se)
    shown = [name for name in ("score", "spa", "wald", "firth") if f"log10_{name}" in found]
    for name in shown:
        table[f"p_{name}"] = 10.0 ** np.where(found["testable"], found[f"log10_{name}"], np.nan)
    method = np.array(_METHODS, dtype=object)[found["method"]]
    first = f"log10_{tests[0]}"
    log10_p = np.where(found["testable"], found[first], np.nan)
    if tests[0] == "wald":
        by_firth = method == "firth"
        log10_p[by_firth] = found["log10_firth"][by_firth]
    table["neg_log10_p"] = -log10_p
    table["method"] = pd.array(np.where(method == "", None, method), dtype="str")
    return table


def case_account(model: LMM, scanner: CaseScanner) -> dict[str, Any]:
    """What a table's attributes say of a scan of cases and controls."""
    tests, cases, null = scanner.tests, scanner.cases, scanner.null
    fitted = {"wald", "firth"} & set(tests)
    about: dict[str, Any] = provenance() | {
        "formula": model.formula,
        "family": "binomial",
        "tests": list(tests),
        "case": cases.case,
        "control": cases.control,
        "n_cases": cases.n_cases,
        "n_controls": cases.n_controls,
        "null_log_odds": dict(zip(model.C.columns, null.b.tolist(), strict=True)),
        "null_se": dict(zip(model.C.columns, null.b_se.tolist(), strict=True)),
        "null_model": "logistic regression",
        "null_steps": null.steps,
        "effects": "of the fitted model" if fitted else "one step from the null model",
    }
    if "wald" in tests:
        about["firth_below_alleles"] = FEW_ALLELES
    if "spa" in tests:
        about["spa_cutoff"] = SPA_CUTOFF
    return about if scanner.mixed is None else about | scanner.mixed.account()


def case_counts(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many variants, how many of them could not be tested, and by which method the others."""
    testable, monomorphic, method = found["testable"], found["variance"] == 0, found["method"]
    return {
        "n_variants": len(testable),
        "n_monomorphic": int(monomorphic.sum()),
        "n_explained_by_covariates": int((~testable & ~monomorphic).sum()),
        "n_not_converged": int((testable & (method == 0)).sum()),
        "methods": {name: int((method == i).sum()) for i, name in enumerate(_METHODS) if i},
    }
