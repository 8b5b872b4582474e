"""The report of a model other than `LMM`, whichever it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayeslmm.reporting.drafts import Draft, listed
from bayeslmm.runs.files import refuse_existing

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.binary.liability import LiabilityLMM
    from bayeslmm.bivariate.model import BivariateLMM
    from bayeslmm.inputs.genotypes import Genotypes
    from bayeslmm.partition.model import PartitionedLMM
    from bayeslmm.repeated.model import RepeatedLMM

    type Model = PartitionedLMM | BivariateLMM | LiabilityLMM | RepeatedLMM


def report_model(
    model: Model,
    path: str | os.PathLike[str],
    *,
    tree: xr.DataTree | None = None,
    genotypes: Genotypes | None = None,
    groups: Any = None,
    title: str | None = None,
    question: str = "",
    about: Mapping[str, Any] | None = None,
    seed: int = 1,
    overwrite: bool = False,
) -> Path:
    """Write the report of a model other than `LMM`: tables, figures, words, checks.

    Parameters
    ----------
    model : PartitionedLMM, BivariateLMM, LiabilityLMM or RepeatedLMM
        The model.
    path : path-like
        The HTML file to write.
    tree : DataTree, optional
        Draws of its posterior; by default they are made now.
    genotypes : Genotypes, optional
        For `PartitionedLMM` with a kernel for each chromosome: where their lengths come from.
    groups : Series or array (n,), optional
        For `LiabilityLMM` with a prevalence: families, for the standard error of PCGC.
    title : str, optional
        By default made of the phenotype's name.
    question : str
        What the analysis is for, in words; the first paragraph.
    about : mapping, optional
        Further provenance, such as checksums of the input files.
    seed : int
        For everything random.
    overwrite : bool
        Whether a file that is there may be replaced.

    Returns
    -------
    Path
        The file: self-contained, it needs no network.

    Raises
    ------
    InputError
        If the file exists, or the draws are of another model.
    """
    from bayeslmm.bivariate.model import BivariateLMM
    from bayeslmm.partition.model import PartitionedLMM
    from bayeslmm.repeated.model import RepeatedLMM
    from bayeslmm.reporting.bivariate import BivariateDraft
    from bayeslmm.reporting.liability import LiabilityDraft
    from bayeslmm.reporting.partition import PartitionDraft
    from bayeslmm.reporting.repeated import RepeatedDraft

    refuse_existing(path, overwrite=overwrite)
    draft: Draft
    if isinstance(model, PartitionedLMM):
        draft = PartitionDraft(model, tree, genotypes, seed)
        named = f"{draft.name}: parts of its h²"
    elif isinstance(model, BivariateLMM):
        draft = BivariateDraft(model, tree, seed)
        named = f"{listed(model.traits)}: genetic correlation"
    elif isinstance(model, RepeatedLMM):
        draft = RepeatedDraft(model, tree, seed)
        named = f"{draft.name}: heritability and repeatability"
    else:
        draft = LiabilityDraft(model, tree, groups, seed)
        named = f"{draft.name}: heritability of the liability"
    lead = f"{draft.formula}, {draft.counted}"
    return draft.write(path, title or named, lead, question, about, overwrite=overwrite)
