"""Folders of bases: arrays, sample ids, and a description with the checksums of all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.runs.files import is_empty_folder, sha256, write_aside

FORMAT = "bayeslmm eigenbasis 1"
_OWN_CHECKSUM = "sha256_of_the_above"


def save_basis(
    path: str | os.PathLike[str],
    kind: str,
    arrays: dict[str, np.ndarray],
    ids: dict[str, pd.Index],
    about: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write a basis' folder: arrays as .npy, ids as .txt, and basis.json with all checksums."""
    path = Path(path)
    if path.is_dir() and not is_empty_folder(path) and not (path / "basis.json").is_file():
        raise InputError(f"{path} is a folder, but no saved eigenbasis: it is kept.")
    with write_aside(path, overwrite=overwrite) as folder:
        folder.mkdir()
        for name, array in arrays.items():
            contiguous = array.flags.c_contiguous or array.flags.f_contiguous
            np.save(folder / f"{name}.npy", array if contiguous else np.ascontiguousarray(array))
        for name, index in ids.items():
            _write_ids(folder / f"{name}.txt", index)
        known = {"format": FORMAT, "kind": kind} | about
        known["sha256"] = {f.name: sha256(f) for f in sorted(folder.iterdir())}
        known[_OWN_CHECKSUM] = _own_checksum(known)
        (folder / "basis.json").write_text(_json(known), encoding="utf-8", newline="\n")


def read_description(folder: Path, *, verify: bool) -> dict[str, Any]:
    """The basis.json of a folder, after the checks that it and its files are as written.

    Raises
    ------
    InputError
        If it is none, or a file is absent, damaged or edited; with `verify` all are read for that.
    """
    try:
        text = (folder / "basis.json").read_bytes().decode()
        about = json.loads(text)
        known = about["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: not a saved eigenbasis (no readable basis.json).") from error
    if not known:
        raise InputError(f"{folder}: format '{about['format']}' is not '{FORMAT}'.")
    # the text too: another last digit of a number may mean the same number
    as_written = text == _json(about)
    if about.pop(_OWN_CHECKSUM, "") != _own_checksum(about) or not as_written:
        raise InputError(f"{folder / 'basis.json'}: damaged or edited (SHA-256 differs).")
    for name, expected in about["sha256"].items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file, but basis.json names it.")
        if verify and sha256(folder / name) != expected:
            raise InputError(f"{folder / name}: damaged or edited (SHA-256 differs). Make it anew.")
    return about


def _write_ids(path: Path, ids: pd.Index) -> None:
    path.write_text("".join(f"{i}\n" for i in ids), encoding="utf-8", newline="\n")


def read_ids(path: Path) -> pd.Index:
    """Sample ids of a saved basis."""
    return pd.Index(path.read_bytes().decode().split("\n")[:-1], name="id", dtype="str")


def _json(about: dict[str, Any]) -> str:
    return json.dumps(about, indent=1, default=str)


def _own_checksum(about: dict[str, Any]) -> str:
    return hashlib.sha256(_json(about).encode()).hexdigest()
