"""Phenotype tables: read from files, indexed by sample id."""

from __future__ import annotations

import csv
import gzip
import os
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs import hints
from bayeslmm.runs.files import existing, parquet_of, refuse_utf16
from bayeslmm.runs.progress import log

MISSING_CODES = ("", "NA", "NaN", "nan", "N/A", ".", "-9")
# What else files have for missing: told of where it is so far from the other values that it may be.
_NINES = [sign * float("9" * k) for k in range(2, 7) for sign in (1, -1)]
_FAR = 5.0  # times the range of the other values


def read_phenotypes(
    path: str | os.PathLike[str],
    *,
    id: str | None = None,
    missing: Sequence[str] = MISSING_CODES,
    repeated: bool = False,
    needed: Callable[[str], bool] | None = None,
) -> pd.DataFrame:
    """Read a table of phenotypes and covariates.

    Parameters
    ----------
    path : path-like
        A tab-, comma- or blank-separated text file with a header (``.gz`` too), or a
        ``.parquet`` file.
    id : str, optional
        Name of the column with the sample ids. By default: the columns FID and IID
        (or #FID, #IID) if there, else the first column.
    missing : sequence of str
        What means "missing", in every column: PLINK's NA and -9 among them (-9.0 too:
        numbers are compared as numbers). If -9 is a value of yours, pass your own list.
    repeated : bool
        Whether a sample may have several rows (for `RepeatedLMM`).
    needed : callable, optional
        Whether a column (by name) will be used; by default all may be. In others a mixture of
        numbers and text is no error: they stay text.

    Returns
    -------
    DataFrame
        Indexed by sample id; numeric columns as floats, others as text. With FID and
        IID columns the index is the IID, and both columns stay, so that
        samples can be matched by the pair.

    Raises
    ------
    InputError
        For duplicate or missing ids, lines of another length than the header, and for
        text in a column that is otherwise numeric (a silent category of one typo),
        naming file and line.
    """
    path = existing(path)
    if path.suffix == ".parquet":
        table = parquet_of(path, "a Parquet file")
        if not isinstance(table.index, pd.RangeIndex):
            table = table.reset_index()
        table.index = pd.RangeIndex(1, len(table) + 1, name="row")
    else:
        table = read_text(path)
    table = table.rename(columns={"#FID": "FID", "#IID": "IID"})
    if id is None:
        id = "IID" if "IID" in table else str(table.columns[0])
    if id not in table:
        raise InputError(f"{path}: no id column '{id}'. Columns: {listing(table.columns, 20)}.")
    for column in table.columns:
        if column in ("FID", "IID", id):
            table[column] = _ids(table[column], path)
        else:
            use = needed is None or needed(str(column))
            table[column] = _typed(table[column], path, missing, strict=use)
            if use:
                _tell_of_nines(table[column], path)
    return _index_by_id(table, id, path, repeated=repeated)


def read_text(path: Path) -> pd.DataFrame:
    """All fields as text; the index has the line numbers."""
    refuse_utf16(path)
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            sep = next((mark for mark in "\t,;" if mark in first), None)
            rows = (
                csv.reader(file, delimiter=sep, skipinitialspace=True)
                if sep
                else (line.split() for line in file)
            )
            lines = {
                number: [field.strip() for field in row]
                for number, row in enumerate(rows, start=1)
                if any(row)
            }
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a table with a header line ({error}). Save it as text in UTF-8, with "
            "tabs or commas between its columns; a spreadsheet, too."
        ) from error
    except (OSError, EOFError, csv.Error, zlib.error) as error:
        raise InputError(f"{path}: not a table with a header line ({error}).") from error
    if len(lines) < 2:
        raise InputError(f"{path}: the table has {'a header but no rows' if lines else 'no line'}.")
    header = lines.pop(min(lines))
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise InputError(
            f"{path}: columns of the same name: {listing(sorted(twice))}."
            f"{hints.missing_header(header)}"
        )
    for number, row in lines.items():
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number:,}: {len(row)} fields, but the header has {len(header)}."
            )
    index = pd.Index(list(lines), name="line")
    return pd.DataFrame(list(lines.values()), columns=header, index=index, dtype="str")


def _ids(column: pd.Series, path: Path) -> pd.Series:
    absent = (column.isna() | (column.astype("str") == "")).to_numpy()
    if absent.any():
        raise InputError(f"{_place(column, path, absent)}: no sample id in column '{column.name}'.")
    return column.astype("str")


def may_use(*formulas: str) -> Callable[[str], bool]:
    """Whether some of the formulas may use a column: its name is somewhere in them.

    Examples
    --------
    >>> used = may_use("cd8 ~ sex + np.log(age)", "mch ~ 1")
    >>> [name for name in ("cd8", "age", "notes") if used(name)]
    ['cd8', 'age']
    >>> may_use("y ~ .")("notes")
    True
    """
    text = "\n".join(formulas)
    every = re.search(r"(?<![\w.])\.(?![\w.])", text) is not None
    return lambda column: every or column in text


def _typed(
    column: pd.Series, path: Path, missing: Sequence[str], *, strict: bool = True
) -> pd.Series:
    codes = pd.to_numeric(pd.Series(list(missing), dtype="str"), errors="coerce").dropna()
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        numbers = column.astype(np.float64)
        return numbers.mask(numbers.isin(codes))
    if not pd.api.types.is_string_dtype(column.dtype) and column.dtype != object:
        return column
    text = column.astype("str").str.strip()
    text = text.mask(text.isin(list(missing)))
    numbers = pd.to_numeric(text, errors="coerce").astype(np.float64)
    present, numeric = text.notna(), numbers.notna()
    if (numeric == present).all():
        return numbers.mask(numbers.isin(codes))
    if strict and numeric.sum() > 0.5 * present.sum():
        wrong = (present & ~numeric).to_numpy()
        raise InputError(
            f"{_place(column, path, wrong)}: column '{column.name}' is "
            f"'{text.iloc[np.argmax(wrong)]}', but {int(numeric.sum()):,} of its "
            f"{int(present.sum()) - 1:,} other values are numbers. Correct it, or write NA. "
            "If it means missing, name it (missing=[...]; --na on the command line)."
        )
    return text


def _tell_of_nines(column: pd.Series, path: Path) -> None:
    """Log that a value such as -999 may stand for missing: far from all others, and repeated."""
    if column.dtype != np.float64:
        return
    for code in _NINES:
        coded = column == code
        others = column[~coded & column.notna()]
        if not coded.any() or others.nunique() < 2:
            continue
        reach = min(abs(code - others.max()), abs(code - others.min()))
        if reach > _FAR * (others.max() - others.min()):
            log.warning(
                "%s: column '%s' is %g in %s row%s and %g to %g elsewhere. It is taken as a value; "
                "if it means missing, say so: missing=['', 'NA', '%g'] (in a shell: --na %g).",
                path, column.name, code, f"{coded.sum():,}", "s" * int(coded.sum() > 1),
                others.min(), others.max(), code, code,
            )  # fmt: skip


def _index_by_id(table: pd.DataFrame, id: str, path: Path, *, repeated: bool) -> pd.DataFrame:
    ids = table[id]
    if "FID" in table and id != "FID" and ids.duplicated().any() and not repeated:
        ids = table["FID"] + "_" + ids
    twice = ids.duplicated().to_numpy()
    if twice.any() and not repeated:
        raise InputError(
            f"{_place(ids, path, twice)}: sample '{ids.iloc[np.argmax(twice)]}' comes twice. "
            f"One row per sample is expected. Ids are those of column '{id}': --id (id=) names "
            f"another.{hints.missing_header(table.columns)}"
        )
    keep = [column for column in table if column != id or column == "IID"]
    return table[keep].set_index(pd.Index(ids, name="id"))


def _place(column: pd.Series, path: Path, wrong: np.ndarray) -> str:
    """The file, and the line (or row of a Parquet file) of the first value that is wrong."""
    return f"{path}, {column.index.name} {column.index[np.argmax(wrong)]:,}"


def phenotype_table(
    formula: str,
    data: Any,
    id: str | None,
    kernel_ids: pd.Index | None,
    *,
    labelled: bool,
) -> pd.DataFrame:
    """The table behind a formula, read if it is a file, indexed by sample id.

    Parameters
    ----------
    formula : str
        For messages.
    data : DataFrame or path
        The table.
    id : str, optional
        Column with the ids.
    kernel_ids : Index, optional
        Samples of the kernel, whose order a table without ids must have.
    labelled : bool
        Whether these are real ids.

    Raises
    ------
    InputError
        If it is no table, or its rows cannot be matched to the kernel.
    """
    if isinstance(data, str | os.PathLike):
        data, id = read_phenotypes(data, id=id, needed=may_use(formula)), None
    if not isinstance(data, pd.DataFrame):
        raise InputError(
            f"Formula '{formula}' needs a table (DataFrame or file), but data is "
            f"{type(data).__name__}."
        )
    if id is not None:
        if id not in data:
            raise InputError(f"No id column '{id}' in the phenotype table.")
        data = data.set_index(id, drop=False)
    anonymous = isinstance(data.index, pd.RangeIndex)
    if kernel_ids is not None and anonymous and labelled:
        raise InputError(
            "The kernel names its samples, but the phenotype table does not: set its index to "
            "the sample ids, or pass id='column'."
        )
    if kernel_ids is not None and not labelled and not (anonymous and len(data) == len(kernel_ids)):
        raise InputError(
            f"The kernel ({len(kernel_ids):,} samples) has no sample ids, the phenotype table "
            f"({len(data):,} rows) {'has none either' if anonymous else 'has'}; their order cannot "
            "be checked. Label the kernel: bl.GRM(matrix, samples=ids)."
        )
    return data


def relabel(data: pd.DataFrame, kernel_ids: pd.Index) -> pd.DataFrame:
    """Label rows by FID_IID when the kernel's ids are of that form and not plain IIDs."""
    if not {"FID", "IID"} <= set(data) or data.index.isin(kernel_ids).any():
        return data
    pair = data["FID"].astype("str") + "_" + data["IID"].astype("str")
    return data.set_index(pd.Index(pair, name="id")) if pair.isin(kernel_ids).any() else data
