"""Results on disk: folders written whole or not at all, tables, and what made them."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.runs.checkpoints import Checkpoint, checkpoint, discard
from bayeslmm.runs.files import is_empty_folder, refuse_existing, sha256, turn, write_aside
from bayeslmm.runs.progress import log
from bayeslmm.runs.provenance import provenance

PROVENANCE = "provenance.json"
# How a column is written, by the kind of its type; pandas' text counts as an object.
_KINDS = {"f": "%.6g", "i": "%d", "u": "%d", "b": "%s", "O": "%s"}


@contextmanager
def result_folder(
    path: str | os.PathLike[str], *, overwrite: bool = False, marker: str = PROVENANCE
) -> Iterator[Path]:
    """Yield a folder to fill, renamed to `path` when all went well.

    Enter it before the work: what stands in the way is said at once.

    Parameters
    ----------
    path : path-like
        Where the results are to be; an empty folder there is used.
    overwrite : bool
        Whether results that are there may be replaced.
    marker : str
        A file that the folder must hold to be replaced, so that nothing but results
        is ever removed.

    Raises
    ------
    InputError
        If `path` exists and may not be replaced, or cannot be written.
    """
    path = Path(path).expanduser().resolve()
    replace = prepare_replacement(path, overwrite=overwrite, marker=marker)
    with write_aside(path, overwrite=replace) as folder:
        folder.mkdir()
        yield folder


@contextmanager
def unfinished(path: str | os.PathLike[str], *, restart: bool = False) -> Iterator[Checkpoint]:
    """Yield where the parts of long work are kept, beside its results: `path` + ".partial".

    It is removed when all went well, and when there is nothing in it worth keeping.

    Parameters
    ----------
    path : path-like
        Where the results are to be.
    restart : bool
        Whether to begin anew if there are parts.
    """
    target = Path(path).expanduser().resolve()
    folder = target.with_name(f"{target.name}.partial")
    with _scratch(folder):
        pass
    with checkpoint(folder, restart=restart) as kept:
        try:
            yield kept
        except BaseException:
            if kept.parts():
                log.info(
                    "What is finished is kept in %s; the same command goes on from there.", folder
                )
            else:
                discard(kept)
            raise
        discard(kept)


def prepare_replacement(path: Path, *, overwrite: bool, marker: str) -> bool:
    """Whether `write_aside` is to replace `path`; an `InputError` if that is refused."""
    with _scratch(path):
        pass
    if is_empty_folder(path):
        return overwrite
    refuse_existing(path, overwrite=overwrite)
    if path.exists() and not (path / marker).is_file():
        raise InputError(
            f"{path} holds no results of bayeslmm (no {marker}) and is not replaced. "
            "Name another path."
        )
    return overwrite


def _scratch(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder beside `path`; an `InputError` if nothing can be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({error.strerror}).") from error


@contextmanager
def result_files(
    prefix: str | os.PathLike[str], endings: Sequence[str], *, overwrite: bool = False
) -> Iterator[Path]:
    """Yield a prefix to write files at, each moved to `prefix` + ending when all are there.

    They stay together: of several processes that write there, all are the last one's, and
    if one is killed while it moves them the first of `endings` is absent.

    Raises
    ------
    InputError
        If one of them exists and may not be replaced, or the folder cannot be written.
    """
    for ending in endings:
        refuse_existing(f"{prefix}{ending}", overwrite=overwrite)
    target = Path(prefix).expanduser().resolve()
    with _scratch(target) as folder:
        aside = Path(folder) / target.name
        yield aside
        with turn(target):
            for ending in endings:
                refuse_existing(f"{target}{ending}", overwrite=overwrite)
            Path(f"{target}{endings[0]}").unlink(missing_ok=True)
            for ending in reversed(endings):
                Path(f"{aside}{ending}").replace(f"{target}{ending}")


def write_table(table: pd.DataFrame, path: Path, *, index: bool = False) -> None:
    """Write a tab-separated table, NA for missing, gzipped if the name ends in .gz.

    Numbers have six significant digits. The same table always makes the same bytes.
    """
    if index:
        table = table.reset_index(names="" if table.index.name is None else table.index.name)
    text = as_text(table)
    path.write_bytes(compressed(text) if path.suffix == ".gz" else text.encode())


def compressed(text: str) -> bytes:
    """A text as one member of a .gz; members may follow each other in a file."""
    return gzip.compress(text.encode(), 5, mtime=1)


def as_text(table: pd.DataFrame, *, header: bool = True) -> str:
    r"""A table as tab-separated lines, NA for missing, numbers with six significant digits.

    Three times as fast as `DataFrame.to_csv`, which writes the same and is used where a text needs
    quotes.

    Examples
    --------
    >>> as_text(pd.DataFrame({"id": ["a", None], "p": [0.123456789, float("nan")]}))
    'id\tp\na\t0.123457\nNA\tNA\n'
    """
    kinds = [
        _KINDS.get(kind.kind, "") if isinstance(kind, np.dtype | pd.StringDtype) else ""
        for kind in table.dtypes
    ]
    if len(kinds) > 1 and all(kinds) and (text := _plain_text(table, kinds, header)) is not None:
        return text
    return table.to_csv(
        None,
        sep="\t",
        index=False,
        header=header,
        na_rep="NA",
        float_format="%.6g",
        lineterminator="\n",
    )


def _plain_text(table: pd.DataFrame, formats: Sequence[str], header: bool) -> str | None:
    """The lines of a table, each column in its format; None if a text needs quotes."""
    columns, chosen = [], []
    for (_, values), given in zip(table.items(), formats, strict=True):
        form, cells = given, values.tolist()
        if form != "%d" and (absent := values.isna().to_numpy()).any():
            cells = ["NA" if no else form % cell for cell, no in zip(cells, absent, strict=True)]
            form = "%s"
        chosen.append(form)
        columns.append(cells)
    line = "\t".join(chosen) + "\n"
    text = "".join([line % row for row in zip(*columns, strict=True)])
    if header:
        text = "\t".join(map(str, table.columns)) + "\n" + text
    lines = len(table) + header
    counted = text.count("\n") == lines and text.count("\t") == lines * (table.shape[1] - 1)
    return text if counted and '"' not in text and "\r" not in text else None


def write_provenance(
    path: Path, inputs: Iterable[str | os.PathLike[str]], parameters: dict[str, Any], **more: Any
) -> None:
    """Write versions, the command line, parameters and the SHA-256 of every input file."""
    about = provenance() | {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "parameters": parameters,
        "inputs": {str(file): sha256(file) for file in inputs},
    }
    path.write_text(json.dumps(about | more, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """What JSON has no form for: NumPy's numbers and arrays as such, else as text."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def trait_names(formulas: Sequence[str]) -> list[str]:
    """A name for each formula that can be part of a file's: its phenotype, made unique.

    Examples
    --------
    >>> trait_names(["cd8 ~ sex", "log(mch) ~ 1", "cd8 ~ 1"])
    ['cd8', 'log_mch', 'cd8_2']
    """
    names: list[str] = []
    for formula in formulas:
        stem = re.sub(r"[^\w.+-]+", "_", formula.split("~")[0].strip()).strip("_.") or "y"
        name, i = stem, 2
        while name in names:
            name, i = f"{stem}_{i}", i + 1
        names.append(name)
    return names


class Clock:
    """Tells what was done, and how long after the start."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def __call__(self, text: str) -> None:
        """Log a statement with the seconds since the start."""
        log.info("%6.1f s  %s", self.seconds, text)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start
