"""The columns of a scan's table, and what its attributes say, from what a pass found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.genome import bayes_factors, pairs
from bayeslmm.genome.pairs import SecondTerm
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.runs.provenance import provenance

if TYPE_CHECKING:
    from bayeslmm.model.lmm import LMM


def posterior_calls(log10_bf: np.ndarray, prior_odds: float) -> dict[str, np.ndarray]:
    """Posterior probability of association, and the mean of its complement above it."""
    from scipy.special import expit

    ppa = expit(np.log(prior_odds) + np.log(10) * log10_bf)
    order = np.argsort(-log10_bf)  # NaN are last
    false = np.cumsum(expit(-np.log(prior_odds) - np.log(10) * log10_bf[order]))
    bfdr = np.empty_like(ppa)
    bfdr[order] = false / np.arange(1, len(ppa) + 1)
    return {"ppa": ppa, "bfdr": bfdr}


def variant_table(
    model: LMM, genotypes: Genotypes, tests: tuple[str, ...], found: dict[str, np.ndarray]
) -> pd.DataFrame:
    """The table of a scan from columns by name, and its attributes."""
    table = variant_columns(model, tests, None, genotypes.variants, found)
    table.attrs = scan_account(model, tests, None) | variant_counts(None, found)
    return table


def variant_columns(
    model: LMM,
    tests: tuple[str, ...],
    second: SecondTerm | None,
    variants: pd.DataFrame,
    found: dict[str, np.ndarray],
) -> pd.DataFrame:
    """The table of some variants."""
    table = variants[["chrom", "pos", "id", "ea", "oa"]].reset_index(drop=True)
    table["eaf"] = found["eaf"]
    table["n"] = len(model.y)
    table["n_missing"] = found["n_missing"]
    table["beta"], table["se"] = found["beta"], found["se"]
    with_p = [test for test in tests if test != "bayes" and second is None]
    if second is not None:
        table = table.assign(**pairs.columns(second, found))
    for test in with_p:
        table[f"p_{test}"] = 10.0 ** found[f"log10_{test}"]
    if with_p:
        table["neg_log10_p"] = -found[f"log10_{with_p[0]}"]
    if second is None:
        table["pve"] = found["beta"] ** 2 * found["variance"] / np.var(model.y)
        for name in ("l_remle", *bayes_factors.COLUMNS):
            if name in found:
                table[name] = found[name]
    return table


def scan_account(model: LMM, tests: tuple[str, ...], second: SecondTerm | None) -> dict[str, Any]:
    """What a table's attributes say of the scan."""
    about = provenance() | {"formula": model.formula, "tests": list(tests)}
    return about if second is None else about | second.account()


def tested_term(about: Mapping[str, Any]) -> str:
    """What the p-values of a table with these attributes are of; nothing for dosages as they are.

    Examples
    --------
    >>> tested_term({"coding": "genotypic"}), tested_term({"coding": "additive"})
    ('dominance deviation', '')
    """
    if "interaction" in about:
        return f"interaction with {about['interaction']}"
    coding = about.get("coding", "additive")
    if coding == "genotypic":
        return "dominance deviation"
    return "" if coding == "additive" else f"{coding} coding"


def variant_counts(second: SecondTerm | None, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many variants, and how many of them could not be tested."""
    testable, monomorphic = found["testable"], found["variance"] == 0
    counts = {
        "n_variants": len(testable),
        "n_monomorphic": int(monomorphic.sum()),
        "n_explained_by_covariates": int((~testable & ~monomorphic).sum()),
    }
    if second is not None:
        inestimable = testable & ~found["estimable"]
        counts[f"n_{second.suffix}_not_estimable"] = int(inestimable.sum())
    return counts
