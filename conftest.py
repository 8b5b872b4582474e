"""What holds for the tests and for the examples of docstrings."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _figures_are_closed():
    """Figures of a test, or of an example, are gone after it, whatever comes next."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
