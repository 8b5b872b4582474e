"""Case/control phenotypes: which code is the case, said rather than guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing

if TYPE_CHECKING:
    from bayeslmm.model.lmm import LMM

# Words that say by themselves who is a case: (control, case), lower case.
WORDS = (
    ("control", "case"),
    ("controls", "cases"),
    ("unaffected", "affected"),
    ("healthy", "diseased"),
    ("no", "yes"),
    ("false", "true"),
)
# Numeric codes: (control, case). The second is PLINK's.
CODES = ((0.0, 1.0), (1.0, 2.0))


@dataclass(frozen=True, eq=False)
class CaseControl:
    """Who is a case.

    Attributes
    ----------
    y : ndarray, shape (n,)
        1 for cases, 0 for controls.
    control, case : str
        The two levels as the data have them.
    """

    y: np.ndarray
    control: str
    case: str

    @property
    def n_cases(self) -> int:
        """Number of cases."""
        return int(self.y.sum())

    @property
    def n_controls(self) -> int:
        """Number of controls."""
        return len(self.y) - self.n_cases

    def __str__(self) -> str:
        return (
            f"{self.n_cases:,} cases ('{self.case}') and {self.n_controls:,} controls "
            f"('{self.control}')"
        )


def coded_words(values: pd.Series) -> tuple[pd.Series, tuple[str, str]] | None:
    """A phenotype in words as 0 and 1, missing kept, and its two levels (control, case).

    Booleans are their own words. None if the words do not say who is a case.

    Examples
    --------
    >>> import pandas as pd
    >>> coded, levels = coded_words(pd.Series(["Case", "Control", None]))
    >>> coded.tolist(), levels
    ([1.0, 0.0, nan], ('Control', 'Case'))
    """
    numeric = pd.api.types.is_numeric_dtype(values.dtype)
    if numeric and not pd.api.types.is_bool_dtype(values.dtype):
        return None
    text = values.astype("str").where(values.notna())
    levels = sorted(text.dropna().unique())
    for words in WORDS:
        found = {level: words.index(level.lower()) for level in levels if level.lower() in words}
        if levels and len(found) == len(levels):
            if len(levels) != len(set(found.values())):
                return None
            shown = [
                next((k for k, v in found.items() if v == code), words[code]) for code in (0, 1)
            ]
            coded = text.map(found).astype(np.float64)
            return coded, (shown[0], shown[1])
    return None


def levels_of(y: np.ndarray) -> tuple[float, float] | None:
    """The numeric codes (control, case) of a phenotype; None if it is not case/control."""
    return next((codes for codes in CODES if np.isin(y, codes).all()), None)


def case_control(model: LMM) -> CaseControl:
    """The cases and controls of a model's phenotype.

    Numbers 0 and 1 (1 is the case), PLINK's 1 and 2 (2 is the case), booleans, and words
    that say it (`WORDS`) are known; nothing else is taken for a case/control phenotype.

    Parameters
    ----------
    model : LMM
        Its analysed samples' phenotype.

    Raises
    ------
    InputError
        For other codes, and if there is one class only.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> print(case_control(bl.LMM(np.array([1, 2, 2, 1, 1]))))
    2 cases ('2') and 3 controls ('1')
    """
    y, name, levels = model.y, model.phenotype, model.levels
    codes = levels_of(y)
    if codes is None:
        raise InputError(_not_coded(y, name))
    if np.ptp(y) == 0:
        raise InputError(
            f"Phenotype '{name}' is {y[0]:g} in all {len(y):,} samples: there are no cases, or no "
            "controls, to compare them with."
        )
    if levels is None:
        levels = f"{codes[0]:g}", f"{codes[1]:g}"
    return CaseControl((y == codes[1]).astype(np.float64), *levels)


def two_valued_note(model: LMM) -> str | None:
    """What to know of a model whose phenotype is case/control; None of any other."""
    if levels_of(model.y) is None or np.ptp(model.y) == 0:
        return None
    return (
        f"{case_control(model)}; a linear model takes them as numbers (observed scale); "
        "scan(..., family='binomial') gives odds ratios"
    )


def _not_coded(y: np.ndarray, name: str) -> str:
    values, counts = np.unique(y, return_counts=True)
    expected = (
        "A case/control phenotype is 0 and 1 (1: case), 1 and 2 (2: case, as in PLINK), boolean, "
        "or in words such as 'case' and 'control'."
    )
    if set(values) == {0.0, 1.0, 2.0}:
        return (
            f"Phenotype '{name}' has the values 0 ({counts[0]:,} samples), 1 ({counts[1]:,}) and 2 "
            f"({counts[2]:,}). If 0 means missing, as in PLINK's .fam, write NA for it. {expected}"
        )
    shown = listing([f"{value:g}" for value in values], 3)
    few = f" of {len(values):,} different values" if len(values) > 2 else ""
    return (
        f"Phenotype '{name}' is not case/control: it has {shown}{few}. {expected} For a "
        "quantitative trait leave out family='binomial'."
    )
