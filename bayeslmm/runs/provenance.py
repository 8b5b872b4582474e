"""What made a result: versions and seeds, recorded with all that is written or returned."""

from __future__ import annotations

import datetime
import sys
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from bayeslmm import __version__


@cache
def _versions() -> dict[str, str]:
    return {
        "created_by": f"bayeslmm {__version__}",
        "python": sys.version.split()[0],
        "numpy": version("numpy"),
    }


def provenance() -> dict[str, Any]:
    """Versions of bayeslmm, Python and NumPy, and the time."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return _versions() | {"created_at": now}


def fresh_seed() -> int:
    """A seed from the system's entropy, where none was given: it is recorded with the draws."""
    return int(np.random.SeedSequence().generate_state(1)[0])
