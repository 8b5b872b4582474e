"""The command `simulate`."""

from __future__ import annotations

from typing import Any

from bayeslmm.relatedness.simulate import simulate_cohort


def simulate(out: str, n: int, m: int, **options: Any) -> str:
    """Write a simulated cohort; returns a summary."""
    cohort = simulate_cohort(out, n, m, **options)
    truth = cohort.truth
    families = cohort.genotypes.samples.fid.nunique()
    return (
        f"{out}: {n:,} samples in {families:,} families, {m:,} variants, "
        f"{truth['causal']:,} of them causal. The trait y has h2 = {truth['h2']:g} (in this sample "
        f"{truth['realised_h2']:.4f}); see {out}.truth.json."
    )
