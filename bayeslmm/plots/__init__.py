"""Plots: functions that draw on matplotlib axes and return them.

Each takes ``ax=None``: without axes it makes a figure of a size that suits. Nothing here
touches matplotlib's global settings.
"""

from __future__ import annotations

from bayeslmm.plots.binary import ascertainment, liability_scales, reliability
from bayeslmm.plots.bivariate import rg, two_traits
from bayeslmm.plots.checks import calibration, coverage, design, residuals
from bayeslmm.plots.genome import miami, regional, relatedness, variance_partition
from bayeslmm.plots.partition import chromosome_h2, enrichment, shares
from bayeslmm.plots.posteriors import (
    effects,
    h2,
    h2_report,
    predictions,
    prior_predictive,
    prior_table,
    repeatability,
)
from bayeslmm.plots.saving import save
from bayeslmm.plots.scans import fine_mapping, manhattan, qq
from bayeslmm.plots.structure import inflation, pcs, relatives

__all__ = [
    "ascertainment",
    "calibration",
    "chromosome_h2",
    "coverage",
    "design",
    "effects",
    "enrichment",
    "fine_mapping",
    "h2",
    "h2_report",
    "inflation",
    "liability_scales",
    "manhattan",
    "miami",
    "pcs",
    "predictions",
    "prior_predictive",
    "prior_table",
    "qq",
    "regional",
    "relatedness",
    "relatives",
    "reliability",
    "repeatability",
    "residuals",
    "rg",
    "save",
    "shares",
    "two_traits",
    "variance_partition",
]
