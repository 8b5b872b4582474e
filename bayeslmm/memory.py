"""Memory is asked for before it is taken."""

from __future__ import annotations

from bayeslmm.errors import InputError


def gigabytes(size: float) -> str:
    """A number of bytes as GB or MB.

    Examples
    --------
    >>> gigabytes(3.2e9), gigabytes(45e6)
    ('3.2 GB', '45 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def available_memory() -> int:
    """Bytes of memory that can be taken without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def require_memory(size: float, what: str) -> None:
    """Raise an `InputError` with both numbers if `size` bytes are not available."""
    available = available_memory()
    if size > available:
        raise InputError(
            f"{what} needs {gigabytes(size)} of memory, but {gigabytes(available)} are "
            "available. Use fewer samples, or a machine with more memory."
        )
