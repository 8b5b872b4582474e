import os
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before NumPy is imported: workers share the processors
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[_name] = "1"

import numpy as np
import pytest
from hypothesis import settings

import bayeslmm as bl

settings.register_profile("bayeslmm", deadline=None)  # a busy machine is no failure
settings.load_profile("bayeslmm")

GOLDEN = Path(__file__).parent / "golden"


class Figures:
    """Figures are gone after what made them, examples of docstrings too."""

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self):
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")


def pytest_configure(config):
    config.pluginmanager.register(Figures())


@pytest.fixture(scope="session")
def mice():
    return bl.datasets.mouse_hs1940()


@pytest.fixture(scope="session")
def golden():
    return GOLDEN


@pytest.fixture
def rng():
    return np.random.default_rng(20061)


@pytest.fixture(scope="session")
def dosage():
    """Dosages (n, m) = (37, 50): a tenth missing, columns 3 and 4 constant, 5 all missing."""
    rng = np.random.default_rng(1)
    x = rng.binomial(2, rng.uniform(0.05, 0.95, 50), size=(37, 50)).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 3], x[:, 4], x[:, 5] = 0, 1, np.nan
    return x
