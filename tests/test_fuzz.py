"""Damaged files: the readers say so, in one InputError, and nothing worse happens.

The C libraries that read .pgen and VCF are run in processes of their own (tests/fuzz.py), which
a crash would end; longer campaigns are run by hand with the same file.
"""

import subprocess
import sys

import fuzz
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

IN_C = ["pgen", "pgen_dosage", "pgen_multi", "bed", "vcf", "vcf_gz", "bcf", "pvar_zst", "bgen12z"]
QUICK = settings(
    derandomize=True, deadline=None, max_examples=12, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", sorted(set(fuzz.TARGETS) - set(IN_C)))
@QUICK
@given(seed=st.integers(0, 2**32 - 1))
def test_readers_refuse_damaged_files(name, seed):
    fuzz.run(name, seed)


def test_readers_in_c_refuse_damaged_files(tmp_path):
    """No crash, no hang, no allocation beyond what the files justify."""
    note = tmp_path / "note"
    command = [sys.executable, fuzz.__file__, ",".join(IN_C), "0", "30", "--note", str(note)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{note.read_text()}\n{done.stdout}\n{done.stderr[-3000:]}"
    assert done.stdout.count("refused") == len(IN_C)
