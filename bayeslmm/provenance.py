"""What made a result: versions, recorded with everything that is written or returned."""

from __future__ import annotations

import datetime
import sys
from importlib.metadata import version
from typing import Any


def provenance() -> dict[str, Any]:
    """Versions of bayeslmm, Python and NumPy, and the time."""
    return {
        "created_by": f"bayeslmm {version('bayeslmm')}",
        "python": sys.version.split()[0],
        "numpy": version("numpy"),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
