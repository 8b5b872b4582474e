"""What commands share: kernels and files from options, folders of results, lines of a summary."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm import priors
from bayeslmm.bases.basis import Basis
from bayeslmm.errors import InputError
from bayeslmm.genome.loci import require_columns
from bayeslmm.inputs.genotype_files import locate
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.inputs.phenotypes import MISSING_CODES
from bayeslmm.relatedness.dense import Relatedness
from bayeslmm.relatedness.grm_files import read_grm
from bayeslmm.relatedness.sparse import read_sparse_grm
from bayeslmm.runs.files import existing, parquet_of, table_of, text_of

if TYPE_CHECKING:
    import xarray as xr


_SCAN_COLUMNS = ["id", "chrom", "pos", "ea", "oa", "beta", "se", "neg_log10_p"]
BASIS = "basis.json"


def parse_prior(text: str, spike: float) -> priors.H2Prior:
    """A prior on h2 from "uniform" or "beta(a, b)".

    Examples
    --------
    >>> parse_prior("beta(2, 3)", 0.5)
    0.5 at 0 + 0.5 Beta(2, 3)
    """
    if text.strip().lower() == "uniform":
        return priors.uniform(spike=spike)
    number = r"\s*([0-9.eE+-]+)\s*"
    match = re.fullmatch(rf"\s*beta\s*\({number},{number}\)\s*", text, flags=re.IGNORECASE)
    try:
        a, b = (float(part) for part in match.groups()) if match else (np.nan, np.nan)
    except ValueError:
        a = b = np.nan
    if np.isnan(a) or np.isnan(b):
        raise InputError(
            f"--prior '{text}' is no prior on h2. Write uniform, or beta(a,b) with two "
            'numbers, as in --prior "beta(2,3)".'
        )
    return priors.beta(a, b, spike=spike)


def read_scan(path: Path) -> pd.DataFrame:
    """The table that bayeslmm scan wrote."""
    expected = "a table of bayeslmm scan"
    if existing(path).suffix == ".parquet":
        hits = parquet_of(path, expected)
    else:
        text = dict.fromkeys(("id", "chrom", "ea", "oa"), str)
        hits = table_of(path, expected, sep="\t", dtype=text)
    require_columns(hits, _SCAN_COLUMNS)
    return hits


def selected(
    genotypes: Genotypes,
    maf: float | None,
    max_missing: float | None,
    chrom: list[str] | None = None,
    region: str | None = None,
    *,
    samples: pd.Index | None = None,
) -> Genotypes:
    """The variants and samples that options name."""
    labels = [label for part in chrom or [] for label in part.split(",")] or None
    return genotypes.select(
        samples=samples, chrom=labels, region=region, min_maf=maf, max_missing=max_missing
    )


def read_kernel(source: str) -> Relatedness:
    """A matrix in GCTA's (dense or sparse) or GEMMA's format, with PREFIX.samples.txt."""
    prefix = source.removesuffix(".sp").removesuffix(".grm")
    dense, sparse = (os.path.isfile(f"{prefix}.grm.{ending}") for ending in ("bin", "sp"))
    if sparse and dense and not source.endswith((".grm.sp", ".grm.bin")):
        raise InputError(
            f"{source}: there are {prefix}.grm.bin and {prefix}.grm.sp. Name the one that is "
            f"meant, as --grm {prefix}.grm.sp or --grm {prefix}.grm.bin."
        )
    if sparse and not source.endswith(".grm.bin"):
        return read_sparse_grm(source)
    match = re.fullmatch(r"(.*?)(\.[cs]XX)?\.txt(\.gz)?", source)
    if match is None:
        return read_grm(source)
    ids = Path(f"{match[1]}.samples.txt")
    if not ids.is_file():
        existing(source)
        raise InputError(
            f"{source}: a text matrix has no sample ids. Write them to {ids}, one per line, in "
            "the order of its rows (for GEMMA: the individuals of the .fam)."
        )
    return read_grm(source, samples=text_of(ids).split())


def read_ids(path: Path, kernel: Relatedness | Basis) -> list[str]:
    """Sample ids, one per line, or FID and IID as PLINK's --keep has them."""
    rows = words_of(path)
    ids = [row[0] if len(row) == 1 else row[1] for row in rows]
    if not set(ids) & set(kernel.samples) and all(len(row) > 1 for row in rows):
        ids = [f"{row[0]}_{row[1]}" for row in rows]
    return ids


def words_of(path: Path) -> list[list[str]]:
    """The words of each line of a file of ids, comments (#) aside."""
    rows = [line.split() for line in text_of(existing(path)).splitlines() if line.strip()]
    rows = [row for row in rows if not row[0].startswith("#")]
    if not rows:
        raise InputError(f"{path}: no ids.")
    return rows


def genotype_files(bfile: str) -> list[str]:
    """The files of a genotype source."""
    return [str(file) for file in locate(bfile).files]


def kernel_files(grm: str | None, basis: Path | None) -> list[str]:
    """Files that identify a kernel made before: a basis' description holds checksums."""
    if basis is not None:
        return [str(basis / BASIS)]
    if grm is None:
        return []
    if os.path.isfile(grm):
        return [grm]
    prefix = grm.removesuffix(".sp").removesuffix(".grm")
    parts = (f"{prefix}.grm.{ending}" for ending in ("bin", "id", "N.bin", "sp"))
    return [part for part in parts if os.path.isfile(part)]


def missing_codes(na: str | None) -> tuple[str, ...]:
    """What means missing: what `read_phenotypes` takes by default, and what --na names.

    Examples
    --------
    >>> missing_codes("none, -999")
    ('', 'NA', 'NaN', 'nan', 'N/A', '.', '-9', 'none', '-999')
    """
    return MISSING_CODES if na is None else (*MISSING_CODES, *map(str.strip, na.split(",")))


def left_out(reasons: pd.Series) -> str:
    """How many samples were left out (counts by reason), as the end of a sentence.

    Examples
    --------
    >>> left_out(pd.Series({"phenotype missing": 1530}))
    ', 1,530 left out (phenotype missing)'
    >>> left_out(pd.Series({"cd8: phenotype missing": 20, "phenotype missing": 3}))
    ', 23 left out (20 cd8: phenotype missing; 3 phenotype missing)'
    >>> left_out(pd.Series(dtype=int))
    ''
    """
    if reasons.empty:
        return ""
    each = [f"{count:,} {reason}" for reason, count in reasons.items()]
    told = "; ".join(each) if len(each) > 1 else str(reasons.index[0])
    return f", {reasons.sum():,} left out ({told})"


def write_draws(tree: xr.DataTree, path: Path) -> None:
    """Write draws as a zarr folder, for ArviZ."""
    # Format 2 has consolidated metadata; of format 3's the readers still warn.
    tree.to_zarr(path, zarr_format=2)


def paragraph(text: str, indent: str = "") -> list[str]:
    """The lines of a text, at most 92 characters each."""
    return textwrap.wrap(text, 92, initial_indent=indent, subsequent_indent=indent)


def warning_lines(told: list[str]) -> list[str]:
    """Lines of the summary for warnings."""
    return [line for text in told for line in ["", *paragraph(f"Warning: {text}")]]


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows in columns: the first flush left, the others flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def percent(share: float) -> str:
    """A share in words: 60%, and 4.3% where it is small."""
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.1f}%"
