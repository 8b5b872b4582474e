"""A saved basis of whatever kind."""

from __future__ import annotations

import os
from pathlib import Path

from bayeslmm.bases.basis import Basis, load_dense_basis
from bayeslmm.bases.block import load_block_basis
from bayeslmm.bases.folders import read_description
from bayeslmm.bases.low_rank import load_low_rank_basis
from bayeslmm.relatedness.dense import GRM


def load_eigenbasis(
    path: str | os.PathLike[str], *, verify: bool = True, grm: GRM | None = None
) -> Basis:
    """Load a basis saved by its `save`; its matrices stay on disk, memory-mapped.

    Parameters
    ----------
    path : path-like
        The folder.
    verify : bool
        Compare every file's SHA-256 with basis.json.
    grm : GRM, optional
        The matrix that it comes from, if known; else the one in the folder.

    Raises
    ------
    InputError
        If the folder is no basis, or a file was damaged or edited.
    """
    folder = Path(path)
    about = read_description(folder, verify=verify)
    kind = about.get("kind", "dense")
    if kind == "block":
        return load_block_basis(folder, about)
    if kind == "low rank":
        return load_low_rank_basis(folder, about)
    return load_dense_basis(folder, about, grm)
