"""Kinship, components and pruning against plink2, from .bed to table, in turn.

    python tests/benchmarks/bench_structure.py [--n 4000] [--m 100000] [--folder DIR]
        [--plink2 plink2] [--rounds 2] [--part kinship components pruning Hardy]

Two threads each. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

from cohort import write_cohort
from threadpoolctl import threadpool_limits

import bayeslmm as bl

PEER = {
    "kinship, pairs from 0.0442": ["--make-king-table", "--king-table-filter", "0.0442"],
    "10 components": ["--pca", "10"],
    "pruning, 50 5 0.2": ["--indep-pairwise", "50", "5", "0.2"],
    "Hardy-Weinberg": ["--hardy"],
}
OURS = {
    "kinship, pairs from 0.0442": lambda g: bl.relatives(g, progress=False),
    "10 components": lambda g: bl.pca(g, 10),
    "pruning, 50 5 0.2": bl.prune,
    "Hardy-Weinberg": bl.variant_qc,
}


def main() -> None:
    """Run both in turn and print the ratio of their wall times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--m", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--plink2", default="plink2")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--part", nargs="*", default=list(OURS), help="parts of names")
    options = parser.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp()).resolve()
    prefix = folder / f"cohort_{options.n}_{options.m}"
    if not prefix.with_suffix(".bed").exists():
        write_cohort(prefix, options.n, options.m)
    out = Path(tempfile.mkdtemp()) / "peer"
    with threadpool_limits(limits=2):
        for _ in range(options.rounds):
            for name, function in OURS.items():
                if not any(part in name for part in options.part):
                    continue
                start = time.perf_counter()
                function(bl.read_genotypes(prefix))
                ours = time.perf_counter() - start
                command = [options.plink2, "--bfile", str(prefix), "--threads", "2"]
                start = time.perf_counter()
                subprocess.run(
                    [*command, *PEER[name], "--out", str(out)], check=True, capture_output=True
                )
                peer = time.perf_counter() - start
                print(f"  {name:28s} {ours:6.1f} s   plink2 {peer:6.1f} s   {ours / peer:.2f}")


if __name__ == "__main__":
    main()
