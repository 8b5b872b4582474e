"""How a variant's dosages count in a relatedness matrix: K = Z Z' / m, and what Z is."""

from __future__ import annotations

from typing import Literal

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import CenteredBlock

Scale = Literal["standardized", "centered", "empirical", "dominance"]
SCALES = ("standardized", "centered", "empirical", "dominance")
# What the name of a scale ends in, if variants have weights.
WEIGHTED = ", weighted"


def standardizing_factor(block: CenteredBlock, scale: str) -> np.ndarray:
    """What turns a block's centred dosages into rows of Z', shape (b,); 0 if monomorphic.

    Raises
    ------
    InputError
        If Z is no multiple of the dosages: dominance.
    """
    scale = scale.removesuffix(WEIGHTED)
    if scale == "dominance":
        raise InputError(
            "The kernel codes dominance: it gives no additive effects of SNPs, and new samples are "
            "not related to it here. Predict with an additive kernel."
        )
    if scale == "standardized":
        variance = 2 * block.eaf * (1 - block.eaf)
    elif scale == "empirical":
        variance = block.sum_sq / block.x.shape[1]
    else:
        variance = np.ones_like(block.eaf)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(block.sum_sq > 0, 1 / np.sqrt(variance), 0)


def standardize(block: CenteredBlock, scale: Scale, name: str) -> np.ndarray:
    """Scale a centred block's rows in place; returns which variants are polymorphic."""
    polymorphic = block.sum_sq > 0
    if scale == "dominance":
        _code_dominance(block, name)
        block.x[~polymorphic] = 0
        return polymorphic
    factor = standardizing_factor(block, scale)
    if not polymorphic.all():
        block.x[~polymorphic] = 0
    if scale != "centered":
        np.multiply(block.x, factor[:, None].astype(block.x.dtype), out=block.x)
    return polymorphic


def _code_dominance(block: CenteredBlock, name: str) -> None:
    """Replace centred genotypes 0, 1, 2 by -p/q, 1, -q/p in place, missing ones by 0."""
    p = np.nan_to_num(block.eaf)[:, None]
    genotype = block.x + (2 * p).astype(block.x.dtype)
    called = np.rint(genotype)
    off = np.abs(genotype - called) > 1e-3
    if block.missing is not None:
        off &= ~block.missing
    if off.any():
        raise InputError(
            f"{name}: a dominance matrix needs genotypes 0, 1, 2, but dosage "
            f"{genotype[off][0]:.3g} is between them. Use called genotypes."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        homozygous, carrier = -p / (1 - p), -(1 - p) / p
    block.x[:] = np.where(called == 0, homozygous, np.where(called == 1, 1.0, carrier))
    if block.missing is not None:
        block.x[block.missing] = 0
