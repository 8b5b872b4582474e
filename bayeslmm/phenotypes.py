"""Phenotype tables, formulas, and the account of every sample kept or dropped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.files import existing

MISSING_CODES = ("", "NA", "NaN", "nan", "N/A", ".", "-9")


@dataclass(frozen=True)
class Design:
    """y and C of a model, one row per analysed sample.

    Attributes
    ----------
    y : ndarray, shape (n,)
        Phenotype, in its own units.
    C : DataFrame, shape (n, c)
        Covariates by name, full column rank.
    name : str
        Name of the phenotype.
    account : DataFrame
        Every sample of the table and of the kernel: kept (bool) and reason (why not).
    """

    y: np.ndarray
    C: pd.DataFrame
    name: str
    account: pd.DataFrame

    @property
    def ids(self) -> pd.Index:
        """Ids of the analysed samples, in the order of the rows of y and C."""
        return self.C.index


# -- tables --------------------------------------------------------------------------------


def read_phenotypes(
    path: str | os.PathLike[str],
    *,
    id: str | None = None,
    missing: Sequence[str] = MISSING_CODES,
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
        Texts that mean "missing", in every column: PLINK's NA and -9 among them. If
        -9 is a value of yours, pass your own list.

    Returns
    -------
    DataFrame
        Indexed by sample id; numeric columns as floats, others as text. With FID and
        IID columns the index is the IID, and both columns stay, so that
        samples can be matched by the pair.

    Raises
    ------
    InputError
        For duplicate or missing ids, and for text in a column that is otherwise
        numeric (a silent category of one typo), naming file and line.
    """
    path = existing(path)
    if path.suffix == ".parquet":
        try:
            table = pd.read_parquet(path)
        except ImportError:
            raise InputError(
                f"{path}: reading Parquet needs pyarrow: pip install 'bayeslmm[parquet]'."
            ) from None
        table = table.reset_index() if table.index.name else table
    else:
        table = _read_text(path)
    table = table.rename(columns={"#FID": "FID", "#IID": "IID"})
    for column in table.columns:
        is_id = column in ("FID", "IID", id) or (column == table.columns[0] and id is None)
        table[column] = (
            table[column].astype("str") if is_id else _typed(table[column], path, missing)
        )
    return _index_by_id(table, id, str(path))


def _read_text(path: Path) -> pd.DataFrame:
    opened = "gzip" if path.suffix == ".gz" else None
    try:
        head = pd.read_csv(path, nrows=0, sep="\n", engine="python", compression=opened)
        header = str(head.columns[0])
        sep = next((mark for mark in ("\t", ",", ";") if mark in header), r"\s+")
        table = pd.read_csv(
            path, sep=sep, dtype=str, keep_default_na=False, compression=opened, index_col=False
        )
    except (ValueError, IndexError, OSError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: not a table with a header line ({error}).") from error
    if table.empty:
        raise InputError(f"{path}: the table has a header but no rows.")
    return table


def _typed(column: pd.Series, path: Path, missing: Sequence[str]) -> pd.Series:
    if not pd.api.types.is_string_dtype(column.dtype) and column.dtype != object:
        return column
    text = column.astype("str").str.strip()
    text = text.mask(text.isin(list(missing)))
    numbers = pd.to_numeric(text, errors="coerce")
    present, numeric = text.notna(), numbers.notna()
    if (numeric == present).all():
        return numbers.astype(np.float64)
    if numeric.sum() > 0.5 * present.sum():
        row = int(np.argmax((present & ~numeric).to_numpy()))
        raise InputError(
            f"{path}, line {row + 2:,}: column '{column.name}' is '{text.iloc[row]}', but "
            f"{int(numeric.sum()):,} of its {int(present.sum()):,} other values are numbers. "
            "Correct it, or write NA."
        )
    return text


def _index_by_id(table: pd.DataFrame, id: str | None, name: str) -> pd.DataFrame:
    if id is None:
        id = "IID" if "IID" in table else str(table.columns[0])
    if id not in table:
        raise InputError(f"{name}: no id column '{id}'. Columns: {listing(table.columns, 20)}.")
    ids = table[id].astype("str")
    if "FID" in table and ids.duplicated().any():
        ids = table["FID"].astype("str") + "_" + ids
    if ids.duplicated().any():
        row = int(np.argmax(ids.duplicated().to_numpy()))
        raise InputError(
            f"{name}, line {row + 2:,}: sample '{ids.iloc[row]}' comes twice. "
            "One row per sample is expected."
        )
    keep = [column for column in table if column != id or column == "IID"]
    return table[keep].set_index(pd.Index(ids, name="id"))


# -- from a formula, or from arrays, to y and C -----------------------------------------------


def design_from_formula(
    formula: str, data: pd.DataFrame, kernel_ids: pd.Index | None, *, missing: str = "error"
) -> Design:
    """Build y and C from a formula, aligned to a kernel's samples.

    Parameters
    ----------
    formula : str
        Wilkinson notation, as in ``"cd8 ~ sex + age:sex"``; an intercept is implied.
    data : DataFrame
        Indexed by sample id.
    kernel_ids : Index, optional
        Samples of the kernel. The design has those present on both sides, in the
        kernel's order; without kernel all rows of `data`.
    missing : {"error", "drop"}
        What a missing covariate is: an error that counts them, or a reason to drop
        the sample.

    Raises
    ------
    InputError
        For unknown columns, text phenotypes, missing or collinear covariates, and
        when no sample is left.
    """
    if missing not in ("error", "drop"):
        raise InputError(f"missing='{missing}' is unknown; expected 'error' or 'drop'.")
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        parsed = Formula(formula)
        left, right = parsed.lhs, parsed.rhs
    except (FormulaicError, AttributeError) as error:
        raise InputError(
            f"Formula '{formula}' cannot be read; expected 'phenotype ~ covariates', "
            f"as in 'height ~ sex + age'. {error}"
        ) from error
    data = _unique_index(data)
    if kernel_ids is not None:
        data = _relabel(data, kernel_ids)
    used_left, used_right = sorted(left.required_variables), sorted(right.required_variables)
    absent = [name for name in used_left + used_right if name not in data]
    if absent:
        raise InputError(
            f"Formula '{formula}': no column {listing(absent)}. "
            f"Columns: {listing(data.columns, limit=20)}."
        )
    for name in used_left:
        _refuse_text(data[name], name)
    without_y = data[used_left].isna().any(axis=1)
    without_c = (
        data[used_right].isna().any(axis=1) if used_right else pd.Series(False, index=data.index)
    )
    account = _account(data.index, kernel_ids, without_y, without_c, missing, data, used_right)
    ids = account.index[account.kept]
    rows = data.loc[ids]
    name = formula.split("~")[0].strip()
    if not len(rows):
        _nobody_left(account, data.index, kernel_ids, name)
    for column in rows.select_dtypes("category"):
        rows = rows.assign(**{column: rows[column].cat.remove_unused_categories()})
    try:
        y = left.get_model_matrix(rows, na_action="ignore").to_numpy(dtype=np.float64)
        C = pd.DataFrame(right.get_model_matrix(rows, na_action="ignore"))
    except (FormulaicError, ValueError, TypeError) as error:
        raise InputError(f"Formula '{formula}': {error}") from error
    y = y[:, -1] if y.shape[1] > 1 else y[:, 0]
    return _checked(y, C.astype(np.float64).set_axis(ids, axis=0), name, account)


def design_from_arrays(
    y: np.ndarray | pd.Series,
    covariates: np.ndarray | pd.DataFrame | None,
    kernel_ids: pd.Index | None,
    *,
    labelled_kernel: bool,
) -> Design:
    """Build y and C from arrays whose rows are in the kernel's order, or from labelled ones.

    An intercept is put in front of the covariates. Labelled y (a Series) with an
    unlabelled kernel, or the reverse, is refused: their order cannot be known.
    """
    series = y if isinstance(y, pd.Series) else None
    labelled = series is not None
    values = np.asarray(y, dtype=np.float64)
    if values.ndim != 1:
        raise InputError(f"y must have one dimension, but has shape {values.shape}.")
    if kernel_ids is not None and labelled != labelled_kernel:
        has, lacks = ("y", "the kernel") if labelled else ("the kernel", "y")
        raise InputError(
            f"{has} names its samples, but {lacks} does not, so their order cannot be "
            "checked. Give both with ids (a Series; bl.GRM(matrix, samples=ids)), or both "
            "as plain arrays in the same order."
        )
    if series is not None:
        index = series.index.astype(str)
    elif kernel_ids is None:
        index = pd.Index([str(i) for i in range(len(values))])
    else:
        index = kernel_ids
    if len(index) != len(values):
        raise InputError(
            f"y has {len(values):,} values, but the kernel has {len(index):,} samples."
        )
    name = str(series.name) if series is not None and series.name is not None else "y"
    data = pd.DataFrame({name: values}, index=pd.Index(index, name="id"))
    names: list[str] = []
    if covariates is not None:
        table = pd.DataFrame(covariates)
        if len(table) != len(data):
            raise InputError(
                f"Covariates have {len(table):,} rows, but y has {len(data):,} values."
            )
        if isinstance(covariates, pd.DataFrame) and labelled:
            table = table.set_axis(table.index.astype(str), axis=0)
            if not table.index.equals(index):
                raise InputError("Covariates and y name different samples, or in another order.")
        names = [f"x{j + 1}" if isinstance(j, int) else str(j) for j in table.columns]
        data = data.assign(**dict(zip(names, table.to_numpy(dtype=np.float64).T, strict=True)))
    data = _unique_index(data)
    without_c = data[names].isna().any(axis=1)
    account = _account(data.index, kernel_ids, data[name].isna(), without_c, "error", data, names)
    rows = data.loc[account.index[account.kept]]
    if not len(rows):
        _nobody_left(account, data.index, kernel_ids, name)
    C = rows[names].copy()
    C.insert(0, "Intercept", 1.0)
    return _checked(rows[name].to_numpy(), C, name, account)


def _relabel(data: pd.DataFrame, kernel_ids: pd.Index) -> pd.DataFrame:
    """Label rows by FID_IID when the kernel's ids are of that form and not plain IIDs."""
    if not {"FID", "IID"} <= set(data) or data.index.isin(kernel_ids).any():
        return data
    pair = data["FID"].astype("str") + "_" + data["IID"].astype("str")
    return data.set_index(pd.Index(pair, name="id")) if pair.isin(kernel_ids).any() else data


def _unique_index(data: pd.DataFrame) -> pd.DataFrame:
    ids = data.index.astype(str)
    if ids.has_duplicates:
        raise InputError(
            f"The phenotype table has samples twice: {listing(ids[ids.duplicated()].unique())}."
        )
    return data.set_axis(pd.Index(ids, name="id"), axis=0)


def _refuse_text(column: pd.Series, name: str) -> None:
    if pd.api.types.is_numeric_dtype(column.dtype):
        return
    text = column[pd.to_numeric(column, errors="coerce").isna() & column.notna()]
    example = f" (sample '{text.index[0]}': '{text.iloc[0]}')" if len(text) else ""
    raise InputError(f"Phenotype '{name}' is not numeric{example}. Expected numbers.")


def _account(
    data_ids: pd.Index,
    kernel_ids: pd.Index | None,
    without_y: pd.Series,
    without_c: pd.Series,
    missing: str,
    data: pd.DataFrame,
    covariates: list[str],
) -> pd.DataFrame:
    everyone = (
        data_ids if kernel_ids is None else kernel_ids.append(data_ids.difference(kernel_ids))
    )
    reason = pd.Series("", index=pd.Index(everyone, name="id"), dtype="str")
    reason[~everyone.isin(data_ids)] = "no row in the phenotype table"
    if kernel_ids is not None:
        reason[~everyone.isin(kernel_ids)] = "not in the kernel"
    undecided = reason == ""
    reason[undecided & everyone.isin(data_ids[without_y])] = "phenotype missing"
    incomplete = (reason == "") & everyone.isin(data_ids[without_c])
    if incomplete.any() and missing == "error":
        counts = data.loc[everyone[incomplete], covariates].isna().sum()
        named = ", ".join(f"'{name}' {count:,}" for name, count in counts.items() if count)
        raise InputError(
            f"Covariates are missing for {int(incomplete.sum()):,} samples that have a phenotype "
            f"({named}; first: {listing(everyone[incomplete], 3)}). Fill them in, leave the "
            "covariate out, or pass missing='drop' (--missing drop)."
        )
    reason[incomplete] = "covariate missing"
    return pd.DataFrame({"kept": reason == "", "reason": reason})


def _nobody_left(
    account: pd.DataFrame, data_ids: pd.Index, kernel_ids: pd.Index | None, name: str
) -> None:
    if kernel_ids is not None and not data_ids.isin(kernel_ids).any():
        raise InputError(
            f"No sample of the phenotype table ({len(data_ids):,}, such as "
            f"{listing(data_ids[:2])}) is among the kernel's ({len(kernel_ids):,}, such as "
            f"{listing(kernel_ids[:2])}). Ids must agree: FID_IID against IID, perhaps?"
        )
    counts = account.reason.value_counts()
    raise InputError(
        f"No sample is left for '{name}': "
        + ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
        + "."
    )


def _checked(y: np.ndarray, C: pd.DataFrame, name: str, account: pd.DataFrame) -> Design:
    infinite = ~np.isfinite(y)
    if infinite.any():
        raise InputError(
            f"Phenotype '{name}' of sample '{C.index[np.argmax(infinite)]}' is not finite."
        )
    refuse_collinear(C)
    n, c = C.shape
    if n < c + 2:
        raise InputError(
            f"'{name}': {n:,} samples are too few for {c} covariates (at least {c + 2})."
        )
    if np.ptp(y) == 0:
        raise InputError(f"Phenotype '{name}' has the same value, {y[0]:g}, in all {n:,} samples.")
    return Design(y, C, name, account)


def refuse_collinear(C: pd.DataFrame, tolerance: float = 1e-8) -> None:
    """Raise an `InputError` that names a covariate which the ones before it explain."""
    values = C.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        i, j = np.argwhere(~np.isfinite(values))[0]
        raise InputError(f"Covariate '{C.columns[j]}' of sample '{C.index[i]}' is not finite.")
    norms = np.linalg.norm(values, axis=0)
    for j, name in enumerate(C.columns):
        if norms[j] == 0:
            raise InputError(f"Covariate '{name}' is zero in all analysed samples. Remove it.")
        before = values[:, :j] / norms[:j]
        if j == 0:
            continue
        coefficients, *_ = np.linalg.lstsq(before, values[:, j] / norms[j], rcond=None)
        residual = values[:, j] / norms[j] - before @ coefficients
        if np.linalg.norm(residual) < tolerance:
            parts = [C.columns[k] for k in np.flatnonzero(np.abs(coefficients) > 1e-6)]
            what = (
                "is constant among the analysed samples"
                if parts == ["Intercept"]
                else f"is a linear combination of {listing(parts)}"
            )
            raise InputError(f"Covariate '{name}' {what}: collinear. Remove one of them.")
