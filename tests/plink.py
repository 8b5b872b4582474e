"""Writes PLINK 1 files from an array: an encoder independent of what bayeslmm reads with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

# How many A1 a sample has -> the two bits of a .bed; the last is "missing".
CODES = np.array([0b11, 0b10, 0b00, 0b01], dtype=np.uint8)


def bed_bytes(dosage: np.ndarray) -> bytes:
    """A variant-major .bed of dosages (n, m) of A1, NaN missing."""
    n, m = dosage.shape
    codes = CODES[np.where(np.isnan(dosage), 3, dosage).astype(int).T]
    codes = np.pad(codes, ((0, 0), (0, -n % 4))).reshape(m, -1, 4)
    return b"\x6c\x1b\x01" + (codes << np.array([0, 2, 4, 6], np.uint8)).sum(2, np.uint8).tobytes()


def write_plink(
    prefix: Path,
    dosage: np.ndarray,
    *,
    samples: Sequence[tuple[str, str]] | None = None,
    chrom: Sequence[str] | None = None,
    pos: Sequence[int] | None = None,
    more_fam: str = "",
) -> Path:
    """Write prefix.bed, .bim and .fam; returns the prefix.

    Samples are (FID, IID), by default (f0, i0), (f1, i1), ...; variants rs0, rs1, ... on
    chromosome 1 at 10, 20, ... `more_fam` is put behind each line of the .fam.
    """
    n, m = dosage.shape
    samples = [(f"f{i}", f"i{i}") for i in range(n)] if samples is None else samples
    chrom = ["1"] * m if chrom is None else chrom
    pos = [10 * (j + 1) for j in range(m)] if pos is None else pos
    Path(f"{prefix}.bed").write_bytes(bed_bytes(dosage))
    Path(f"{prefix}.bim").write_text(
        "".join(f"{chrom[j]}\trs{j}\t0.5\t{pos[j]}\tA\tG\n" for j in range(m))
    )
    Path(f"{prefix}.fam").write_text(
        "".join(f"{f}\t{i}\t0\t0\t1\t-9{more_fam}\n" for f, i in samples)
    )
    return prefix
