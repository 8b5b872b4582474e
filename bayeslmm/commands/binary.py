"""What the scan command does for cases and controls: its tests, and their summary."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bayeslmm.binary.scan import TESTS, WITH_KERNEL
from bayeslmm.errors import InputError


def tests_of(text: str | None, *, with_kernel: bool, **unused: bool) -> tuple[str, ...] | None:
    """The tests named on the command line, None for the default ones.

    `unused` are options that such a scan does not have, by name, and whether they were given.

    Raises
    ------
    InputError
        For other tests, and for these options.
    """
    wrong = [f"--{name.replace('_', '-')}" for name, given in unused.items() if given]
    if wrong:
        raise InputError(f"--family binomial has no {', '.join(wrong)}. Leave it out.")
    if text is None:
        return None
    tests = tuple(test.strip() for test in text.split(",") if test.strip())
    known = WITH_KERNEL if with_kernel else TESTS
    if not tests or not set(tests) <= set(known):
        where = "with relatedness" if with_kernel else "with --no-kernel"
        raise InputError(
            f"--test {text}: --family binomial {where} has the tests {','.join(known)}."
        )
    return tests


def header(name: str, hits: pd.DataFrame) -> list[str]:
    """Who the cases are, and what the null model is."""
    attrs = hits.attrs
    lines = [
        f"{attrs['n_cases']:,} cases ('{attrs['case']}') and {attrs['n_controls']:,} controls "
        f"('{attrs['control']}'); {attrs['null_model']}."
    ]
    if "tau" in attrs:
        lines.append(
            f"Relatedness adds a variance of {attrs['tau_kappa']:.3g} to the log odds (PQL, biased "
            "towards 0: no heritability)."
        )
    by_firth = attrs["methods"]["firth"]
    if by_firth and "firth_below_alleles" in attrs:
        lines.append(
            f"{by_firth:,} variants with few alleles among {name}'s cases or controls, or with no "
            "finite estimate: Firth's penalised likelihood."
        )
    return lines


def lead_line(lead: Any) -> str:
    """The effect of a locus' best variant."""
    lead = lead._asdict() if hasattr(lead, "_asdict") else lead
    return (
        f"    each {lead['ea']} (frequency {lead['eaf_cases']:.3g} in cases, "
        f"{lead['eaf_controls']:.3g} in controls): odds ratio {lead['or']:.3g} (95% "
        f"{lead['or_low']:.3g} to {lead['or_high']:.3g}), by {lead['method']}"
    )
