"""Selected SNPs of a model: found by id or region, aligned, centred."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes

if TYPE_CHECKING:
    from bayeslmm.model.lmm import LMM


@dataclass(frozen=True)
class SelectedSnps:
    """k SNPs of a model's samples.

    Attributes
    ----------
    ids : list of str
        Variant ids, in the order asked for.
    x : ndarray, shape (n, k)
        Dosages of the effect allele, centred, missing at the mean.
    sd : ndarray, shape (k,)
        Standard deviation of the dosage.
    eaf : ndarray, shape (k,)
        Frequency of the effect allele.
    ea : list of str
        Effect alleles.
    """

    ids: list[str]
    x: np.ndarray
    sd: np.ndarray
    eaf: np.ndarray
    ea: list[str]

    def dosages(self, samples: pd.Index) -> pd.DataFrame:
        """The dosages, missing ones at the mean, of the samples by name, shape (n, k)."""
        return pd.DataFrame(self.x + 2 * self.eaf, index=samples, columns=self.ids)


def require_lmm(model: object) -> None:
    """Raise an `InputError` for what is no `LMM`."""
    from bayeslmm.model.lmm import LMM

    if not isinstance(model, LMM):
        raise InputError(
            "Variants are tested, and regions fine-mapped, in an LMM with one kernel or none, but "
            f"this is a {type(model).__name__}."
        )


def require_genotypes(model: LMM, genotypes: Genotypes) -> None:
    """Raise an `InputError` that names analysed samples without genotypes."""
    require_lmm(model)
    n = len(model.samples)
    if (
        not genotypes.labelled
        and n != genotypes.n_samples
        and model.samples.index[-1] == f"{n - 1}"
    ):
        raise InputError(
            f"{genotypes.name}: {genotypes.n_samples:,} samples, the model has {n:,}, and neither "
            "has ids: nobody knows who is who. bl.Genotypes.from_array(dosage, samples=ids)."
        )
    absent = model.ids.difference(genotypes.samples.index)
    if len(absent):
        ids = f"Its sample ids look like {listing(genotypes.samples.index[:2])}."
        if not genotypes.labelled:
            ids = "They are an array without ids: bl.Genotypes.from_array(dosage, samples=ids)."
        raise InputError(
            f"{genotypes.name}: {len(absent):,} of the {len(model.ids):,} analysed samples have no "
            f"genotypes there: {listing(absent)}. {ids}"
        )


def require_unique(ids: pd.Series) -> None:
    """Raise an `InputError` that lists variant ids which name several variants."""
    twice = ids[ids.duplicated()]
    if len(twice):
        raise InputError(
            f"Variant ids that name several variants: {listing(twice.unique())}. Make them unique, "
            "as plink2 --set-all-var-ids does."
        )


def aligned(model: LMM, genotypes: Genotypes) -> Genotypes:
    """Genotypes of a model's samples, in its order."""
    require_genotypes(model, genotypes)
    if genotypes.samples.index.equals(model.ids):
        return genotypes
    return genotypes.select(samples=model.ids)


def selected_snps(model: LMM, snps: Any, genotypes: Genotypes | None = None) -> SelectedSnps:
    """Find SNPs for a model's samples.

    Parameters
    ----------
    model : LMM
        Its samples and, through its kernel, its genotypes.
    snps : None, variant ids, or DataFrame (samples x SNPs) of dosages
        Which SNPs; None is none.
    genotypes : Genotypes, optional
        Where ids are looked up; by default the genotypes that the kernel was made of.

    Raises
    ------
    InputError
        For ids that are absent or not unique, monomorphic SNPs, and samples without
        genotypes.
    """
    n = len(model.y)
    if snps is None:
        empty = np.empty(0)
        return SelectedSnps([], np.empty((n, 0)), empty, empty, [])
    if isinstance(snps, pd.DataFrame):
        index = snps.index.astype(str)
        absent = model.ids.difference(index)
        if len(absent):
            raise InputError(
                f"The SNP table lacks {len(absent):,} of {n:,} analysed samples: {listing(absent)}."
            )
        table = snps.set_axis(index, axis=0).loc[model.ids]
        genotypes = Genotypes.from_array(
            table.to_numpy(dtype=np.float64), list(table.index), [str(c) for c in table.columns]
        )
        wanted = list(genotypes.variants.id)
    else:
        wanted = [snps] if isinstance(snps, str) else [str(s) for s in snps]
        genotypes = genotypes if genotypes is not None else _kernel_genotypes(model)
    if len(set(wanted)) < len(wanted):
        twice = pd.Index(wanted)[pd.Index(wanted).duplicated()]
        raise InputError(f"SNPs are named twice: {listing(twice.unique())}.")
    if not wanted:
        return selected_snps(model, None)
    chosen = genotypes.select(variants=wanted)
    require_unique(chosen.variants.id)
    chosen = aligned(model, chosen)
    block = chosen.centered_block(0, chosen.n_variants, np.float64)
    order = pd.Index(chosen.variants.id).get_indexer(pd.Index(wanted))
    constant = block.sum_sq[order] == 0
    if constant.any():
        raise InputError(
            f"SNPs are monomorphic among the {n:,} analysed samples: "
            f"{listing(np.array(wanted)[constant])}. Leave them out."
        )
    return SelectedSnps(
        wanted,
        np.ascontiguousarray(block.x[order].T),
        np.sqrt(block.sum_sq[order] / n),
        block.eaf[order],
        list(chosen.variants.ea.iloc[order]),
    )


def polymorphic_snps(
    model: LMM,
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray | None = None,
    *,
    region: str | None = None,
    snps: str | Iterable[str] | None = None,
) -> tuple[SelectedSnps, pd.DataFrame, list[str]]:
    """The SNPs of a region, or of a list, that vary among a model's samples.

    Parameters
    ----------
    model : LMM
        Its samples and, through its kernel, its genotypes.
    genotypes : Genotypes, path or array, optional
        By default the genotypes that the kernel was made of.
    region : str, optional
        ``"17"`` or ``"17:30000000-38000000"`` (base pairs, both ends included).
    snps : variant ids, optional
        Instead of a region, or within it.

    Returns
    -------
    SelectedSnps
        k SNPs in the order of the genotypes.
    DataFrame, shape (k, 6)
        chrom, pos, id, ea, oa, eaf.
    list of str
        Ids of the monomorphic ones, left out.

    Raises
    ------
    InputError
        For unknown ids and chromosomes, ids that name several variants, regions without a SNP
        that varies, and samples without genotypes.
    """
    if region is None and snps is None:
        raise InputError(
            "Which SNPs? Name a region, as region='17:30000000-38000000', or their ids, snps=[...]."
        )
    source = _kernel_genotypes(model) if genotypes is None else as_genotypes(genotypes)
    wanted = [snps] if isinstance(snps, str) else snps
    source = source.select(
        region=region, variants=None if wanted is None else [str(s) for s in wanted]
    )
    require_unique(source.variants.id)
    if not source.samples.index.equals(model.ids):
        source = source.select(samples=model.ids)
    block = source.centered_block(0, source.n_variants, np.float64)
    varies = block.sum_sq > 0
    table = source.variants[["chrom", "pos", "id", "ea", "oa"]].assign(eaf=block.eaf)
    if not varies.any():
        raise InputError(
            f"All {len(table):,} variants chosen are monomorphic among the {len(model.y):,} "
            "analysed samples."
        )
    kept = table[varies].reset_index(drop=True)
    chosen = SelectedSnps(
        list(kept.id),
        np.ascontiguousarray(block.x[varies].T),
        np.sqrt(block.sum_sq[varies] / len(model.y)),
        block.eaf[varies],
        list(kept.ea),
    )
    return chosen, kept, list(table.id[~varies])


def _kernel_genotypes(model: LMM) -> Genotypes:
    if not model.has_kernel:
        raise InputError("The model has no kernel whose genotypes could be used: pass genotypes=.")
    if model.relatedness is None or model.relatedness.genotypes is None:
        raise InputError(
            "SNPs are named, but the kernel does not know its genotypes (it was read from a "
            "file, or given): pass genotypes=."
        )
    return model.relatedness.genotypes
