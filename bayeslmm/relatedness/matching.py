"""New samples at the variants of a relatedness matrix: alleles matched, dosages as its own."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import CenteredBlock, Genotypes
from bayeslmm.relatedness.dense import GRM
from bayeslmm.relatedness.scales import standardizing_factor


def training_genotypes(grm: GRM) -> Genotypes:
    """The genotypes that a relatedness matrix was made of."""
    if grm.pair_counts is not None:
        raise InputError(
            "The kernel divides by each pair's common variants (pairwise=True): no effects of SNPs "
            "and no relatedness of new samples follow from it. Make it with pairwise=False."
        )
    if grm.genotypes is None:
        raise InputError(
            "The kernel does not know its genotypes (it was read from a file, or given), so new "
            "samples cannot be related to it. Make it with bl.grm(genotypes)."
        )
    return grm.genotypes


def kernel_factor(grm: GRM, block: CenteredBlock) -> np.ndarray:
    """What turns centred dosages into those that the kernel was made of, shape (b,)."""
    factor = standardizing_factor(block, grm.scale)
    return (
        factor if grm.weights is None else factor * np.sqrt(grm.weights[block.start : block.stop])
    )


def align(training: Genotypes, new: Genotypes) -> tuple[Genotypes, np.ndarray]:
    """New genotypes at the training variants, in their order, and which alleles are swapped."""
    old_table, new_table = training.variants, new.variants
    if new_table.id.duplicated().any():
        new = new.select(variants=~new_table.id.duplicated().to_numpy())
        new_table = new.variants
    positions = pd.Index(new_table.id).get_indexer(pd.Index(old_table.id))
    if (positions < 0).any():
        absent = old_table.id[positions < 0]
        raise InputError(
            f"{new.name}: {len(absent):,} of the kernel's {len(old_table):,} variants are not in "
            f"the new genotypes: {listing(absent)}. Impute them, or make the kernel from the "
            "variants that both have."
        )
    there = new_table.iloc[positions].reset_index(drop=True)
    same = ((there.ea == old_table.ea) & (there.oa == old_table.oa)).to_numpy()
    swapped = ((there.ea == old_table.oa) & (there.oa == old_table.ea)).to_numpy() & ~same
    wrong = ~(same | swapped)
    if wrong.any():
        j = int(np.argmax(wrong))
        raise InputError(
            f"Variant '{old_table.id.iloc[j]}' has alleles {old_table.ea.iloc[j]}/"
            f"{old_table.oa.iloc[j]} in the kernel, but {there.ea.iloc[j]}/{there.oa.iloc[j]} in "
            "the new genotypes (another strand?). Make them agree."
        )
    return new._view(positions, None), swapped


def recode(
    genotypes: Genotypes, flipped: np.ndarray, start: int, stop: int, eaf: np.ndarray
) -> np.ndarray:
    """New dosages minus the training mean, missing at the mean, shape (b, a)."""
    dosage = genotypes.dosage(start, stop)
    turn = flipped[start:stop]
    dosage[turn] = 2 - dosage[turn]
    return np.nan_to_num(dosage - 2 * eaf[:, None], nan=0.0)
