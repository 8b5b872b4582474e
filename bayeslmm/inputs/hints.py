"""What a message may suggest when names, ids or numbers of a table are not those expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pandas as pd

from bayeslmm.errors import listing

_NUMBER = re.compile(r"[-+]?\d*[.,]?\d+([eE][-+]?\d+)?")
# How ids of two files usually differ, in words, and what makes them the same.
_WAYS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("if upper and lower case are not told apart", str.casefold),
    ("without zeros in front", lambda text: text.lstrip("0")),
    ("if only what follows the last '_' counts (FID_IID against IID)", lambda t: t.split("_")[-1]),
    ("if only what precedes the first '_' counts", lambda text: text.split("_")[0]),
    ("if only what precedes the first '.' counts", lambda text: text.split(".")[0]),
    ("if only their digits count", lambda text: re.sub(r"\D", "", text)),
)


def missing_header(columns: Iterable[object]) -> str:
    """A sentence if the names of columns look like a row of data, else nothing.

    Examples
    --------
    >>> missing_header(["i1", "1.07", "2"])
    " The first line looks like data ('1.07', '2'): is the header missing?"
    >>> missing_header(["id", "height"])
    ''
    """
    numbers = [name for name in map(str, columns) if _NUMBER.fullmatch(name)]
    if not numbers:
        return ""
    return f" The first line looks like data ({listing(numbers, 3)}): is the header missing?"


def similar(names: Iterable[object], columns: Iterable[object]) -> str:
    """A sentence with the columns that absent names may have meant, else nothing.

    Examples
    --------
    >>> similar(["hight", "Sex"], ["height", "sex", "age"])
    " Did you mean 'height', 'sex'?"
    """
    from difflib import get_close_matches

    by_case = {str(column).casefold(): str(column) for column in columns}
    meant = []
    for name in map(str, names):
        close = get_close_matches(name.casefold(), list(by_case), 1, 0.75)
        meant += [by_case[found] for found in close]
    return f" Did you mean {listing(dict.fromkeys(meant))}?" if meant else ""


def ids_agree(ours: pd.Index, theirs: pd.Index) -> str:
    """How ids that have none in common could agree, in a sentence.

    Examples
    --------
    >>> ids_agree(pd.Index(["I1", "I2"]), pd.Index(["i1", "i2", "i3"]))
    '2 agree if upper and lower case are not told apart: make them the same in both files.'
    """
    best, words = 0, ""
    for way, change in _WAYS:
        one = {change(str(name)) for name in ours} - {""}
        two = {change(str(name)) for name in theirs} - {""}
        # A way that makes different samples the same is none.
        if len(one) < len(ours) or len(two) < len(theirs):
            continue
        if len(one & two) > best:
            best, words = len(one & two), way
    # A few that agree by chance are no hint.
    if 2 * best < min(len(ours), len(theirs)):
        return "Ids must agree: is another column meant, or are these files of different samples?"
    return f"{best:,} agree {words}: make them the same in both files."


def decimal_comma(text: str) -> str:
    """A sentence if a text is a number with a comma, else nothing.

    Examples
    --------
    >>> decimal_comma("1,07")
    ' Write numbers with a point, as 1.07.'
    """
    if re.fullmatch(r"[-+]?\d+,\d+", text.strip()) is None:
        return ""
    return f" Write numbers with a point, as {text.strip().replace(',', '.')}."
