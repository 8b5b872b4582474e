"""The figure of docs/fine-mapping.md: python docs/scripts/fine_mapping.py [--out FILE]."""

from __future__ import annotations

import argparse
from pathlib import Path

import bayeslmm as bl
from bayeslmm import plots


def main() -> None:
    """PIPs of chromosome 17 for CD8, as the page's first lines compute them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/figures/fine_mapping_cd8.png"))
    given = parser.parse_args()
    mice = bl.datasets.mouse_hs1940()
    lmm = bl.LMM("cd8 ~ sex", mice.phenotypes, bl.grm(mice.genotypes))
    found = lmm.finemap(region="17", seed=1)
    print(found)
    print(found.variants[found.variants["pip"] > 0.1].to_string())
    plots.save(given.out, plots.fine_mapping, found)


if __name__ == "__main__":
    main()
