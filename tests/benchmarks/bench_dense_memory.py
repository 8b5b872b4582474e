"""Peak memory of a dense decomposition, beside what is stated before it starts.

    python tests/benchmarks/bench_dense_memory.py 6000 8000

Each size in a process of its own. What the matrix takes before the decomposition is in the peak.
"""

import resource
import subprocess
import sys
import time

import numpy as np

import bayeslmm as bl
from bayeslmm.bases import basis


def one(n: int) -> None:
    """Decompose a random relatedness matrix of n people."""
    stated = []
    require = basis.require_memory

    def noted(size: float, what: str) -> None:
        stated.append(size)
        require(size, what)

    basis.require_memory = noted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rng = np.random.default_rng(1)
    Z = rng.standard_normal((n, 2000), dtype=np.float32)
    K = np.zeros((n, n))
    for start in range(0, n, 1000):
        K[start : start + 1000] = Z[start : start + 1000] @ Z.T / 2000
    del Z
    made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    begun = time.perf_counter()
    bl.GRM(K, [str(i) for i in range(n)]).eigenbasis()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"n = {n:,}: stated {max(stated) / 1e9:.2f} GB; process {before:.2f} GB before, "
        f"{made:.2f} GB with the matrix, peak {peak:.2f} GB; {time.perf_counter() - begun:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "one":
        one(int(sys.argv[2]))
    else:
        for size in sys.argv[1:]:
            subprocess.run([sys.executable, __file__, "one", size], check=True)
