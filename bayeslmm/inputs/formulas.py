"""From a formula, or from arrays, to y and C, with the account of every sample kept or dropped."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs import hints
from bayeslmm.inputs.case_control import coded_words
from bayeslmm.inputs.phenotypes import relabel

# Names in a piece of Python in a formula: `quoted`, Q("quoted") or bare; not called, not a keyword.
_NAMES = re.compile(r"`([^`]+)`|\bQ\(\s*['\"]([^'\"]+)['\"]|\b([^\W\d]\w*)\b(?!\s*(?:\(|=(?!=)))")
_PCS = re.compile(r"\bpcs\(\s*(\d+)\s*\)")


@dataclass(frozen=True, eq=False)
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
    covariates_of : callable or None
        Makes the covariates (a, c) of other samples from a table of theirs.
    levels : (str, str) or None
        What 0 and 1 of y are in the data, if the phenotype came in words: control, case.
    phenotype_of : callable or None
        Makes the phenotype (a,) of other samples from a table of theirs, NaN where it is missing.
    """

    y: np.ndarray
    C: pd.DataFrame
    name: str
    account: pd.DataFrame
    covariates_of: Callable[[pd.DataFrame], np.ndarray] | None = None
    levels: tuple[str, str] | None = None
    phenotype_of: Callable[[pd.DataFrame], np.ndarray] | None = None

    @property
    def ids(self) -> pd.Index:
        """Ids of the analysed samples, in the order of the rows of y and C."""
        return self.C.index

    def with_covariates(self, table: pd.DataFrame) -> Design:
        """The same samples with further covariates, the columns of a table of theirs.

        Raises
        ------
        InputError
            For samples that are not there, columns that are not complete numbers or have
            the name of a covariate, collinear ones, and too few samples.
        """
        index = table.index.astype(str)
        absent = self.ids[~self.ids.isin(index)]
        if len(absent):
            raise InputError(
                f"The further covariates lack {len(absent):,} of {len(self.ids):,} analysed "
                f"samples: {listing(absent)}."
            )
        if index.has_duplicates:
            twice = index[index.duplicated()].unique()
            raise InputError(f"The further covariates name samples twice: {listing(twice)}.")
        names = [str(name) for name in table.columns]
        known = [*self.C.columns, *names]
        same = sorted({name for name in names if known.count(name) > 1})
        if same:
            raise InputError(f"Covariates of the same name: {listing(same)}.")
        rows = table.set_axis(index, axis=0).loc[self.ids]
        further = pd.DataFrame(
            {name: _floats(rows.iloc[:, j], f"Covariate '{name}'") for j, name in enumerate(names)},
            index=self.ids,
        )
        missing = further.isna().sum()
        if missing.any():
            counts = ", ".join(f"'{name}' {count:,}" for name, count in missing.items() if count)
            raise InputError(f"The further covariates are missing for some samples ({counts}).")
        made = _checked(self.y, pd.concat([self.C, further], axis=1), self.name, self.account)
        made = replace(made, levels=self.levels, phenotype_of=self.phenotype_of)
        before = self.covariates_of
        if before is None:
            return made
        return replace(made, covariates_of=partial(_with_further, before, names))

    def new_phenotypes(self, data: pd.DataFrame, ids: pd.Index) -> pd.Series:
        """Phenotype of other samples, as the model's own was made; NaN where it is missing.

        Parameters
        ----------
        data : DataFrame
            Their table, indexed by sample id; it need not have the phenotype.
        ids : Index, shape (a,)
            The samples.

        Raises
        ------
        InputError
            For samples that come twice, values that the model's phenotype does not have, and
            models made from arrays.
        """
        if self.phenotype_of is None:
            raise InputError(
                f"'{self.name}' was given as an array: how it was made of a table is not known."
            )
        return pd.Series(self.phenotype_of(_unique_index(data).reindex(ids)), ids, name=self.name)

    def new_covariates(self, data: pd.DataFrame | np.ndarray | None, ids: pd.Index) -> np.ndarray:
        """Covariates (a, c) of other samples, as the model's own were made.

        Parameters
        ----------
        data : DataFrame, or array (a, c - 1), or None
            Their table, indexed by sample id; or for a design made from arrays the covariates
            without intercept, in the order of `ids`.
        ids : Index, shape (a,)
            The samples.

        Raises
        ------
        InputError
            For samples and columns that are not there or come twice, and arrays of another shape.
        """
        make = self.covariates_of
        if make is not None and (isinstance(data, pd.DataFrame) or self.C.shape[1] == 1):
            table = pd.DataFrame(index=ids) if data is None else data
            assert isinstance(table, pd.DataFrame)
            table = table.set_axis(table.index.astype(str), axis=0)
            _refuse_twice(table.index)
            absent = ids.difference(table.index)
            if len(absent):
                raise InputError(
                    f"{len(absent):,} of {len(ids):,} new samples have no covariates: "
                    f"{listing(absent)}."
                )
            if not len(table.columns):
                table = table.assign(_=0.0)
            return make(table.loc[ids])
        if isinstance(data, pd.DataFrame) and not isinstance(data.index, pd.RangeIndex):
            table = data.set_axis(data.index.astype(str), axis=0)
            table = table.set_axis(table.columns.astype(str), axis=1)
            _refuse_twice(table.index)
            names = self.C.columns[1:]
            absent = [*ids.difference(table.index), *names.difference(table.columns)]
            if absent:
                raise InputError(f"The new covariates lack samples or columns: {listing(absent)}.")
            data = table.loc[ids, list(names)].to_numpy()
        given = np.empty((len(ids), 0)) if data is None else np.asarray(data, dtype=np.float64)
        if given.shape != (len(ids), self.C.shape[1] - 1):
            raise InputError(
                f"New covariates have shape {given.shape}; expected "
                f"({len(ids)}, {self.C.shape[1] - 1}): {listing(self.C.columns[1:], 20)}."
            )
        return np.column_stack([np.ones(len(ids)), given])


def pcs_asked(formula: str) -> int:
    """How many principal components a formula asks for: the largest k of its pcs(k), or 0.

    Examples
    --------
    >>> pcs_asked("cd8 ~ sex + pcs(10)")
    10
    """
    return max((int(k) for k in _PCS.findall(formula)), default=0)


def with_pcs(formula: str) -> str:
    """The formula with columns PC1, PC2, ... in the place of pcs(k).

    Examples
    --------
    >>> with_pcs("cd8 ~ sex + pcs(2)")
    'cd8 ~ sex + (PC1 + PC2)'
    """
    return _PCS.sub(lambda found: f"({' + '.join(pc_names(int(found[1])))})", formula)


def without_pcs(formula: str) -> str:
    """The formula with the constant in the place of pcs(k), to check the rest of it.

    Examples
    --------
    >>> without_pcs("cd8 ~ sex + pcs(2)")
    'cd8 ~ sex + 1'
    """
    return _PCS.sub("1", formula)


def pc_names(k: int) -> list[str]:
    """Names of the first k principal components: PC1, PC2, ..."""
    return [f"PC{j + 1}" for j in range(k)]


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
    _check_missing(missing)
    if pcs_asked(formula):
        raise InputError(
            f"Formula '{formula}': pcs(k) is known to bl.LMM only. Elsewhere join the columns of "
            "bl.pca(...).scores to the table and name them, as in PC1 + PC2."
        )
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        parsed = Formula(formula)
        left, right = parsed.lhs, parsed.rhs
        used_left, used_right = _columns(left, data), _columns(right, data)
    except (FormulaicError, AttributeError) as error:
        why = _first_line(error) if isinstance(error, FormulaicError) else ""
        raise InputError(
            f"Formula '{formula}' cannot be read; expected 'phenotype ~ covariates', "
            f"as in 'height ~ sex + age'. {why}".rstrip()
        ) from error
    if len(left) != 1:
        raise InputError(
            f"Formula '{formula}' has {len(left)} phenotypes; expected one. Fit one model each."
        )
    data = _unique_index(data)
    if kernel_ids is not None:
        data = relabel(data, kernel_ids)
    absent = [name for name in used_left + used_right if name not in data]
    if absent:
        raise InputError(
            f"Formula '{formula}': no column {listing(absent)}. "
            f"Columns: {listing(data.columns, limit=20)}."
            f"{hints.similar(absent, data.columns) or hints.missing_header(data.columns)}"
        )
    levels = None
    if used_left == [str(left[0])] and (coded := coded_words(data[used_left[0]])) is not None:
        data, levels = data.assign(**{used_left[0]: coded[0]}), coded[1]
    for name in used_left:
        _refuse_text(data[name], name)
    without_y = data[used_left].isna().any(axis=1)
    without_c = (
        data[used_right].isna().any(axis=1) if used_right else pd.Series(False, index=data.index)
    )
    account = _account(data.index, kernel_ids, without_y, without_c, missing, data, used_right)
    ids = account.index[account.kept]
    rows = data.loc[ids, list(dict.fromkeys(used_left + used_right))]
    name = formula.split("~")[0].strip()
    if not len(rows):
        _nobody_left(account, data.index, kernel_ids, name)
    for column in rows.select_dtypes("category"):
        rows = rows.assign(**{column: rows[column].cat.remove_unused_categories()})
    try:
        with np.errstate(all="ignore"):  # what is not finite is named below
            made = left.get_model_matrix(rows, na_action="ignore")
            y = made.to_numpy(dtype=np.float64)
            C = right.get_model_matrix(rows, na_action="ignore")
    except (FormulaicError, ValueError, TypeError) as error:
        raise InputError(f"Formula '{formula}': {_first_line(error)}") from error
    if y.shape[1] != 1:
        raise InputError(f"Phenotype '{name}' has {y.shape[1]} columns; expected one.")
    for term, positions in C.model_spec.term_indices.items():
        if not positions:
            raise InputError(
                f"Covariate '{term}' has one level only among the analysed samples. Remove it."
            )
    covariates_of = partial(_covariates_of, C.model_spec, used_right)
    C = pd.DataFrame(C).astype(np.float64).set_axis(ids, axis=0)
    checked = _checked(y[:, 0], C, name, account)
    phenotype_of = partial(_phenotype_of, made.model_spec, name, used_left, levels)
    return replace(checked, covariates_of=covariates_of, levels=levels, phenotype_of=phenotype_of)


def _phenotype_of(
    spec: Any, name: str, used: list[str], levels: tuple[str, str] | None, table: pd.DataFrame
) -> np.ndarray:
    """Phenotype of new samples, as the formula made that of the model; NaN where it is missing."""
    from formulaic.errors import FormulaicError

    y = np.full(len(table), np.nan)
    if any(column not in table for column in used):
        return y
    known = table[used].notna().all(axis=1).to_numpy()
    rows = table.loc[known, used]
    if levels is not None:
        words = rows[used[0]].astype("str")
        code = words.str.lower().map({level.lower(): i for i, level in enumerate(levels)})
        if code.isna().any():
            raise InputError(
                f"Phenotype '{name}' of sample '{code.index[code.isna()][0]}' is "
                f"'{words[code.isna()].iloc[0]}'; the model knows {listing(levels)}."
            )
        rows = rows.assign(**{used[0]: code.astype(np.float64)})
    for column in used:
        _refuse_text(rows[column], column)
    if not len(rows):
        return y
    try:
        with np.errstate(all="ignore"):  # what is not finite is named below
            made = spec.get_model_matrix(rows, na_action="ignore")
        y[known] = made.to_numpy(dtype=np.float64)[:, 0]
    except (FormulaicError, ValueError, TypeError) as error:
        raise InputError(f"Phenotype of new samples: {_first_line(error)}") from error
    _refuse_infinite_phenotype(y[known], name, rows.index)
    return y


def _covariates_of(spec: Any, used: list[str], table: pd.DataFrame) -> np.ndarray:
    """Covariates of new samples, as the formula made those of the model (`ModelSpec`)."""
    from formulaic.errors import DataMismatchWarning, FormulaicError

    absent = [name for name in used if name not in table]
    if absent:
        raise InputError(f"Covariates of new samples lack the column {listing(absent)}.")
    incomplete = table[used].isna().any(axis=1) if used else None
    if incomplete is not None and incomplete.any():
        raise InputError(
            f"Covariates are missing for {int(incomplete.sum()):,} new samples: "
            f"{listing(table.index[incomplete])}."
        )
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", DataMismatchWarning)  # a level unknown to the model
            made = spec.get_model_matrix(table[used], na_action="ignore")
        values = made.to_numpy(dtype=np.float64)
    except (FormulaicError, DataMismatchWarning, ValueError, TypeError) as error:
        raise InputError(f"Covariates of new samples: {_first_line(error)}") from error
    _refuse_infinite(pd.DataFrame(values, table.index, list(spec.column_names)))
    return values


def _with_further(
    before: Callable[[pd.DataFrame], np.ndarray], names: list[str], new: pd.DataFrame
) -> np.ndarray:
    """Those of the formula and, after them, the columns of further covariates."""
    absent = [name for name in names if name not in new]
    if absent:
        raise InputError(f"Covariates of new samples lack the column {listing(absent)}.")
    _refuse_infinite(new[names])
    return np.column_stack([before(new), new[names].to_numpy(dtype=np.float64)])


def _columns(terms: Iterable[Any], data: pd.DataFrame) -> list[str]:
    """Columns that a side of a formula uses; names that stand alone even if they are absent."""
    used: dict[str, None] = {}
    for factor in (factor for term in terms for factor in term.factors):
        if factor.eval_method.value == "lookup":
            used[factor.expr] = None
        elif factor.eval_method.value == "python":
            names = {"".join(found) for found in _NAMES.findall(factor.expr)}
            used |= dict.fromkeys(name for name in data.columns if name in names)
    return list(used)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def design_from_arrays(
    y: np.ndarray | pd.Series,
    covariates: np.ndarray | pd.DataFrame | None,
    kernel_ids: pd.Index | None,
    *,
    labelled_kernel: bool,
    missing: str = "error",
) -> Design:
    """Build y and C from arrays whose rows are in the kernel's order, or from labelled ones.

    An intercept is put in front of the covariates. Labelled y (a Series) with an
    unlabelled kernel, or the reverse, is refused: their order cannot be known. A
    Series or DataFrame with the index 0, 1, 2, ... that pandas gives by default is
    not labelled.
    """
    _check_missing(missing)
    series = y if isinstance(y, pd.Series) else None
    labelled = series is not None and not isinstance(series.index, pd.RangeIndex)
    name = str(series.name) if series is not None and series.name is not None else "y"
    values = _floats(y, f"Phenotype '{name}'")
    if values.ndim != 1:
        raise InputError(f"y must have one dimension, but has shape {values.shape}.")
    if kernel_ids is not None and labelled != labelled_kernel:
        has, lacks = ("y", "the kernel") if labelled else ("the kernel", "y")
        raise InputError(
            f"{has} names its samples, but {lacks} does not, so their order cannot be "
            "checked. Give both with ids (a Series; bl.GRM(matrix, samples=ids)), or both "
            "as plain arrays in the same order."
        )
    if series is not None and labelled:
        index = series.index.astype(str)
    elif kernel_ids is None:
        index = pd.Index([str(i) for i in range(len(values))])
    else:
        index = kernel_ids
    if len(index) != len(values):
        raise InputError(
            f"y has {len(values):,} values, but the kernel has {len(index):,} samples."
        )
    phenotype = _unique_index(pd.DataFrame({name: values}, index=index))[name]
    C = pd.DataFrame({"Intercept": 1.0}, index=phenotype.index)
    if covariates is not None:
        table = _covariates(covariates, phenotype, labelled=labelled)
        C = pd.concat([C, table], axis=1)
    without_c = C.isna().any(axis=1)
    account = _account(
        C.index, kernel_ids, phenotype.isna(), without_c, missing, C, list(C.columns)
    )
    ids = account.index[account.kept]
    if not len(ids):
        _nobody_left(account, C.index, kernel_ids, name)
    return _checked(phenotype.loc[ids].to_numpy(), C.loc[ids], name, account)


def _covariates(
    covariates: np.ndarray | pd.DataFrame, phenotype: pd.Series, *, labelled: bool
) -> pd.DataFrame:
    """Covariates as a table of floats with the ids of the phenotype, in its order."""
    table = pd.DataFrame(covariates)
    if len(table) != len(phenotype):
        raise InputError(
            f"Covariates have {len(table):,} rows, but y has {len(phenotype):,} values."
        )
    if isinstance(covariates, pd.DataFrame | pd.Series):
        has_ids = not isinstance(table.index, pd.RangeIndex)
        if has_ids and not labelled:
            raise InputError(
                "Covariates name their samples, but y does not, so their order cannot be "
                "checked. Give both with ids, or both as plain arrays in the same order."
            )
        if has_ids and not table.index.astype(str).equals(phenotype.index):
            raise InputError("Covariates and y name different samples, or in another order.")
    names = [f"x{j + 1}" if isinstance(j, int) else str(j) for j in table.columns]
    twice = sorted({name for name in names if ["Intercept", *names].count(name) > 1})
    if twice:
        raise InputError(
            f"Covariates of the same name: {listing(twice)} (the intercept is added by itself)."
        )
    columns = {
        name: _floats(table.iloc[:, j], f"Covariate '{name}'") for j, name in enumerate(names)
    }
    return pd.DataFrame(columns, index=phenotype.index)


def _floats(values: Any, what: str) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} is not numeric ({error}). Expected numbers.") from error


def _check_missing(missing: str) -> None:
    if missing not in ("error", "drop"):
        raise InputError(f"missing='{missing}' is unknown; expected 'error' or 'drop'.")


def _unique_index(data: pd.DataFrame) -> pd.DataFrame:
    ids = data.index.astype(str)
    if ids.hasnans:
        raise InputError(f"The phenotype table has {int(ids.isna().sum()):,} rows without id.")
    if ids.has_duplicates:
        raise InputError(
            f"The phenotype table has samples twice: {listing(ids[ids.duplicated()].unique())}. "
            "Several records of each individual are for bl.RepeatedLMM."
        )
    return data.set_axis(pd.Index(ids, name="id"), axis=0)


def _refuse_text(column: pd.Series, name: str) -> None:
    if pd.api.types.is_numeric_dtype(column.dtype):
        return
    text = column[pd.to_numeric(column, errors="coerce").isna() & column.notna()]
    example = f" (sample '{text.index[0]}': '{text.iloc[0]}')" if len(text) else ""
    raise InputError(
        f"Phenotype '{name}' is not numeric{example}. Expected numbers, or for cases and controls "
        "words that say which is which: case and control, affected and unaffected, yes and no."
        + (hints.decimal_comma(str(text.iloc[0])) if len(text) else "")
    )


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
    reason[~_among(everyone, data_ids)] = "no row in the phenotype table"
    if kernel_ids is not None:
        reason[~_among(everyone, kernel_ids)] = "not in the kernel"
    undecided = reason == ""
    reason[undecided & _among(everyone, data_ids[without_y])] = "phenotype missing"
    incomplete = (reason == "") & _among(everyone, data_ids[without_c])
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


def _among(ids: pd.Index, others: pd.Index) -> np.ndarray:
    """Which ids are among others that are unique: `isin`, twenty times as fast for text."""
    return others.get_indexer(ids) >= 0


def _nobody_left(
    account: pd.DataFrame, data_ids: pd.Index, kernel_ids: pd.Index | None, name: str
) -> None:
    if kernel_ids is not None and not data_ids.isin(kernel_ids).any():
        raise InputError(
            f"No sample of the phenotype table ({len(data_ids):,}, such as "
            f"{listing(data_ids[:2])}) is among the kernel's ({len(kernel_ids):,}, such as "
            f"{listing(kernel_ids[:2])}). {hints.ids_agree(data_ids, kernel_ids)}"
        )
    counts = account.reason.value_counts()
    raise InputError(
        f"No sample is left for '{name}': "
        + ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
        + "."
    )


def _checked(y: np.ndarray, C: pd.DataFrame, name: str, account: pd.DataFrame) -> Design:
    _refuse_infinite_phenotype(y, name, C.index)
    n, c = C.shape
    if n < c + 2:
        raise InputError(
            f"'{name}': {n:,} samples are too few for {c} covariates (at least {c + 2})."
        )
    refuse_collinear(C)
    if np.ptp(y) == 0:
        raise InputError(f"Phenotype '{name}' has the same value, {y[0]:g}, in all {n:,} samples.")
    return Design(y, C, name, account)


def _refuse_infinite_phenotype(y: np.ndarray, name: str, ids: pd.Index) -> None:
    infinite = ~np.isfinite(y)
    if infinite.any():
        raise InputError(
            f"Phenotype '{name}' of sample '{ids[np.argmax(infinite)]}' is not finite."
        )


def _refuse_infinite(C: pd.DataFrame) -> None:
    infinite = np.argwhere(~np.isfinite(C.to_numpy(dtype=np.float64)))
    if len(infinite):
        i, j = infinite[0]
        raise InputError(f"Covariate '{C.columns[j]}' of sample '{C.index[i]}' is not finite.")


def refuse_collinear(C: pd.DataFrame, tolerance: float = 1e-8) -> None:
    """Raise an `InputError` that names a covariate which the ones before it explain."""
    _refuse_infinite(C)
    values = C.to_numpy(dtype=np.float64)
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


def _refuse_twice(index: pd.Index) -> None:
    if index.has_duplicates:
        raise InputError(
            f"The new covariates name samples twice: {listing(index[index.duplicated()].unique())}."
        )
