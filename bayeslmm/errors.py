"""The one exception that users meet, and what its messages need."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any


class InputError(ValueError):
    """Input that cannot be used as it is.

    The message names the file, line, sample or variant, says what was expected and
    what to do. The command line prints it without a traceback.
    """


def listing(items: Iterable[object], limit: int = 5) -> str:
    """First few items in quotes and the number of the others, for error messages.

    Examples
    --------
    >>> listing(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    items = list(items)
    shown = ", ".join(f"'{item}'" for item in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit:,} more"


def in_short(names: Iterable[object], limit: int = 12) -> str:
    """Names with commas between them, the first few and how many there are if they are many.

    Examples
    --------
    >>> in_short(["Intercept", "age"])
    'Intercept, age'
    >>> in_short((f"family[T.{i}]" for i in range(170)), limit=2)
    'family[T.0], family[T.1], ... (170)'
    >>> in_short([])
    'none'
    """
    given = [str(name) for name in names]
    if len(given) <= limit:
        return ", ".join(given) or "none"
    return f"{', '.join(given[:limit])}, ... ({len(given):,})"


def require_library(name: str, extra: str, what: str) -> Any:
    """Import an optional library, or say how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{what} needs {name}: pip install 'bayeslmm[{extra}]'.") from error
