r"""How a dosage enters a test: additive, dominant, recessive, heterozygotes, dominance deviation.

For x copies of the effect allele, as plink2 ``--glm`` has them:

    additive 0 1 2,   dominant 0 1 1,   recessive 0 0 1,   hetonly 0 1 0,

linear between whole numbers of copies, so that an imputed dosage is a mixture of its
neighbours. With p the effect allele's frequency the dominance deviation

    d(x) = het(x) - (1 - 2p) x - 2p^2 = -2p^2, 2p(1 - p), -2(1 - p)^2   for 0, 1, 2 copies

is the part of het that does not correlate with x under Hardy-Weinberg proportions. Beside it,
the coefficient of x is the average effect of an allele substitution, and that of d is the
heterozygote's distance from the middle of the homozygotes (Falconer & Mackay 1996, chapter 7).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from bayeslmm.inputs.genotypes import CenteredBlock

type Coding = Literal["additive", "dominant", "recessive", "hetonly", "genotypic"]
CODINGS = ("additive", "dominant", "recessive", "hetonly", "genotypic")


def recode(block: CenteredBlock, coding: Coding) -> CenteredBlock:
    """The block with another coding, centred again; missing dosages stay at the mean.

    ``"genotypic"`` is additive with the dominance deviation as a second term (see
    `dominance_deviation`): its first term stays as it is. `eaf` remains the frequency of
    the allele.
    """
    if coding in ("additive", "genotypic"):
        return block
    dosage = _dosage(block)
    if coding == "dominant":
        x = np.minimum(dosage, 1)
    elif coding == "recessive":
        x = np.maximum(dosage - 1, 0)
    else:
        x = _heterozygosity(dosage)
    _center(x, block)
    sum_sq = np.einsum("ij,ij->i", x, x).astype(np.float64)
    sum_sq[sum_sq < 1e-10 * x.shape[1]] = 0
    return CenteredBlock(
        block.start, block.stop, x, block.eaf, block.n_missing, sum_sq, block.missing
    )


def dominance_deviation(block: CenteredBlock) -> np.ndarray:
    """The dominance deviation of every variant, centred, shape (b, n)."""
    dosage = _dosage(block)
    p = block.eaf[:, None].astype(dosage.dtype)
    d = _heterozygosity(dosage) - (1 - 2 * p) * dosage
    _center(d, block)
    return d


def _dosage(block: CenteredBlock) -> np.ndarray:
    return block.x + (2 * block.eaf[:, None]).astype(block.x.dtype)


def _heterozygosity(dosage: np.ndarray) -> np.ndarray:
    return 1 - np.abs(dosage - 1)


def _center(x: np.ndarray, block: CenteredBlock) -> None:
    if block.missing is not None:
        x[block.missing] = 0
    with np.errstate(invalid="ignore"):
        mean = x.sum(axis=1) / (x.shape[1] - block.n_missing)
    x -= mean[:, None].astype(x.dtype)
    if block.missing is not None:
        x[block.missing] = 0
