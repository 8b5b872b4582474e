"""Writes plink2_families.bed, .bim, .fam: families, a tenth of them not sampled, and a twin.

    python make_families.py        # in tests/golden; the program that simulates is bayeslmm's own

The last sample is the first once more (its missing genotypes are others). Parents and true
kinship of the pairs are in plink2_families.pedigree.tsv (the pedigree, unsampled members too).
"""

import sys
from pathlib import Path

import numpy as np

import bayeslmm as bl

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from plink import write_plink  # noqa: E402

N, M = 119, 3000

cohort = bl.simulate_cohort(None, N, M, families=9, unsampled=0.1, ld=2e6, missing=0.0, seed=3)
dosage = cohort.genotypes.to_array()
dosage = np.vstack([dosage, dosage[:1]])
hidden = np.random.default_rng(3).random(dosage.shape) < 0.02
variants = cohort.genotypes.variants
write_plink(
    HERE / "plink2_families",
    np.where(hidden, np.nan, dosage),
    samples=[("f", str(i)) for i in [*cohort.genotypes.samples.index, "twin"]],
    chrom=list(variants.chrom),
    pos=list(variants.pos),
)
ids = cohort.pedigree.ids.to_numpy()
parents = [
    np.where(side < 0, "0", ids[side]) for side in (cohort.pedigree.sire, cohort.pedigree.dam)
]
with open(HERE / "plink2_families.pedigree.tsv", "w") as file:
    file.write("id\tsire\tdam\n")
    file.writelines("\t".join(row) + "\n" for row in zip(ids, *parents, strict=True))
