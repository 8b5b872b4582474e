"""The one exception that users meet, and the helper that shortens lists in messages."""

from __future__ import annotations

from collections.abc import Iterable


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
