"""Open a genotype source and yield blocks of variants; sample and variant tables; selections."""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.files import existing
from bayeslmm.loci import parse_region
from bayeslmm.progress import map_ahead, track

MISSING = -9
VARIANT_COLUMNS = ["chrom", "id", "cm", "pos", "ea", "oa"]
SAMPLE_COLUMNS = ["fid", "iid", "father", "mother", "sex", "phenotype"]
_CACHE_FRIENDLY = 2**18


class Source(Protocol):
    """Where dosages come from: variant-major rows, `int8` with -9 or floats with NaN missing."""

    def read(self, variants: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
        """Dosages of the effect allele, shape (len(variants), number of samples)."""


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Dosages in memory, shape (m, n): `int8` with -9, or floating point with NaN, missing."""

    dosage: np.ndarray

    def read(self, variants: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
        """Dosages of the effect allele, shape (len(variants), number of samples)."""
        block = self.dosage[_as_slice(variants)]
        return block if samples is None else block[:, samples]


class BedSource:
    """A PLINK 1 .bed file read by pgenlib; safe to read from several threads."""

    def __init__(self, path: Path, n_samples: int, n_variants: int) -> None:
        self.path = path
        self.n_samples = n_samples
        self.n_variants = n_variants
        self._local = threading.local()

    def read(self, variants: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
        """Dosages of the effect allele, shape (len(variants), number of samples)."""
        try:
            reader, order = self._reader(samples)
            width = self.n_samples if samples is None else len(samples)
            block = np.empty((len(variants), width), dtype=np.int8)
            rows = _as_slice(variants)
            if isinstance(rows, slice):
                reader.read_range(rows.start, rows.stop, block)
            else:
                reader.read_list(variants.astype(np.uint32), block)
        except RuntimeError as error:
            raise InputError(f"{self.path}: reading failed ({error}).") from error
        return block if order is None else np.take(block, order, axis=1)

    def _reader(self, samples: np.ndarray | None) -> tuple[Any, np.ndarray | None]:
        """The thread's own reader of some samples, and their order if it is not the file's."""
        import pgenlib

        local = self._local
        if not hasattr(local, "reader") or local.samples is not samples:
            subset, local.order = None, None
            if samples is not None:
                subset = np.sort(samples).astype(np.uint32)
                if not np.array_equal(subset, samples):
                    local.order = np.searchsorted(subset, samples)
            local.reader = pgenlib.PgenReader(
                os.fsencode(self.path),
                raw_sample_ct=self.n_samples,
                variant_ct=self.n_variants,
                sample_subset=subset,
            )
            local.samples = samples
        return local.reader, local.order


@dataclass(frozen=True, eq=False)
class CenteredBlock:
    """Some variants, each centred on its mean over the samples, missing dosages at the mean.

    Attributes
    ----------
    start, stop : int
        Positions of the variants in the genotypes' variant table.
    x : ndarray, shape (b, n)
        Centred dosages; 0 where the dosage was missing.
    eaf : ndarray, shape (b,)
        Frequency of the effect allele among non-missing dosages; NaN if all are missing.
    n_missing : ndarray, shape (b,)
        Number of missing dosages.
    sum_sq : ndarray, shape (b,)
        Sum of squares of each row of `x`; exactly 0 for a monomorphic variant.
    missing : ndarray of bool, shape (b, n), or None
        Which dosages were missing; None if none was.
    """

    start: int
    stop: int
    x: np.ndarray
    eaf: np.ndarray
    n_missing: np.ndarray
    sum_sq: np.ndarray
    missing: np.ndarray | None


class Genotypes:
    """Dosages of n samples at m variants, read block by block, with their tables.

    Make one with `read_genotypes` or `Genotypes.from_array`. Selections are views:
    they keep positions into the same source and read nothing.

    Attributes
    ----------
    samples : DataFrame
        One row per sample, indexed by sample id (the IID where it is unique, else
        ``FID_IID``); columns fid, iid, father, mother, sex, phenotype where the
        source has them.
    variants : DataFrame
        One row per variant: chrom (a label: "1", "X", "2L", "chr1" alike), id, cm,
        pos (base pairs), ea (effect allele, counted by the dosage: A1 of a .bim),
        oa (other allele).
    labelled : bool
        Whether the sample ids are real ones rather than row numbers.
    excluded : DataFrame
        Variants that `select` filtered out by frequency or missingness: id, chrom,
        pos and reason.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> g = bl.Genotypes.from_array(np.array([[0, 1], [1, 1], [2, 0]]), samples=["a", "b", "c"])
    >>> g.shape
    (3, 2)
    >>> g.select(samples=["c", "a"]).to_array()[:, 0]
    array([2., 0.])
    """

    def __init__(
        self,
        source: Source,
        samples: pd.DataFrame,
        variants: pd.DataFrame,
        *,
        rows: np.ndarray | None = None,
        columns: np.ndarray | None = None,
        excluded: pd.DataFrame | None = None,
        name: str = "genotypes",
        labelled: bool = True,
    ) -> None:
        self._source = source
        self.samples = samples
        self.variants = variants
        self._rows = np.arange(len(variants)) if rows is None else rows
        self._columns = columns
        self.excluded = (
            pd.DataFrame(columns=["id", "chrom", "pos", "reason"]) if excluded is None else excluded
        )
        self.name = name
        self.labelled = labelled

    @classmethod
    def from_array(
        cls,
        dosage: np.ndarray,
        samples: Sequence[str] | None = None,
        variants: pd.DataFrame | Sequence[str] | None = None,
    ) -> Genotypes:
        """Genotypes in memory.

        Parameters
        ----------
        dosage : array, shape (n, m)
            Dosage of the effect allele, between 0 and 2, NaN for missing.
        samples : sequence of str, optional
            Sample ids, shape (n,). Without them the samples are known by their order
            only, as "0", "1", ...
        variants : DataFrame or sequence of str, optional
            The variant table (at least the column id), or the variant ids.

        Raises
        ------
        InputError
            If shapes disagree, ids are duplicated, or a dosage is not within 0..2.
        """
        dosage = np.asarray(dosage)
        if dosage.ndim != 2:
            raise InputError(
                "Genotypes must be a matrix (samples x variants), but have "
                f"{dosage.ndim} dimensions."
            )
        n, m = dosage.shape
        if n == 0 or m == 0:
            raise InputError(f"Genotypes of {n:,} samples at {m:,} variants: nothing is there.")
        labelled = samples is not None
        ids = [str(i) for i in range(n)] if samples is None else [str(s) for s in samples]
        if len(ids) != n:
            raise InputError(f"Genotypes have {n:,} rows, but {len(ids):,} sample ids came.")
        table = _variant_table(variants, m)
        try:
            stored = np.ascontiguousarray(dosage.T.astype(np.float64))
        except (TypeError, ValueError) as error:
            raise InputError(f"Genotypes must be numbers ({error}).") from error
        bad = (stored < 0) | (stored > 2) | np.isinf(stored)
        if bad.any():
            j, i = np.argwhere(bad)[0]
            raise InputError(
                f"Genotypes: sample '{ids[i]}', variant '{table.id.iloc[j]}' has dosage "
                f"{stored[j, i]:g}; expected 0 to 2, or NaN for missing."
            )
        if not (np.isnan(stored) | (stored == np.round(stored))).all():
            return cls(ArraySource(stored), _sample_table(ids), table, labelled=labelled)
        hard = np.where(np.isnan(stored), MISSING, stored).astype(np.int8)
        return cls(ArraySource(hard), _sample_table(ids), table, labelled=labelled)

    # -- size and tables ---------------------------------------------------------------

    @property
    def n_samples(self) -> int:
        """Number of samples, n."""
        return len(self.samples)

    @property
    def n_variants(self) -> int:
        """Number of variants, m."""
        return len(self.variants)

    @property
    def shape(self) -> tuple[int, int]:
        """(n samples, m variants)."""
        return self.n_samples, self.n_variants

    @property
    def chromosomes(self) -> list[str]:
        """Chromosome labels in order of first appearance."""
        return list(self.variants.chrom.unique())

    def __repr__(self) -> str:
        chromosomes = self.chromosomes
        return (
            f"<Genotypes {self.name}: {self.n_samples:,} samples x {self.n_variants:,} variants, "
            f"{len(chromosomes)} chromosome{'s' * (len(chromosomes) != 1)}>"
        )

    # -- selections --------------------------------------------------------------------

    def select(
        self,
        *,
        samples: Iterable[str] | np.ndarray | None = None,
        variants: Iterable[str] | np.ndarray | None = None,
        chrom: str | int | Iterable[str | int] | None = None,
        region: str | None = None,
        min_maf: float | None = None,
        max_missing: float | None = None,
    ) -> Genotypes:
        """A view of some samples and variants; conditions are combined by "and".

        Parameters
        ----------
        samples : sample ids, or booleans of shape (n,)
            Samples to keep, in the order given. The index of a boolean Series must
            be the sample ids in their order.
        variants : variant ids, or booleans of shape (m,)
            Variants to keep; their order in the source stays.
        chrom : label or labels
            Chromosomes to keep.
        region : str
            ``"17"`` or ``"17:30000000-40000000"`` (base pairs, both ends included); see
            `in_region`.
        min_maf : float
            Smallest minor-allele frequency, among the selected samples.
        max_missing : float
            Largest share of missing dosages, among the selected samples.

        Returns
        -------
        Genotypes
            What `min_maf` and `max_missing` removed is listed in its `excluded`.

        Raises
        ------
        InputError
            For ids or chromosomes that are not there, and for an empty selection.
        """
        keep_samples = None if samples is None else self._sample_positions(samples)
        keep = np.ones(self.n_variants, dtype=bool)
        if variants is not None:
            keep &= self._variant_mask(variants)
        if chrom is not None:
            keep &= self._chromosome_mask(chrom)
        if region is not None:
            keep &= self.in_region(region)
        chosen = self._view(np.flatnonzero(keep), keep_samples)
        if chosen.n_samples == 0 or chosen.n_variants == 0:
            raise InputError(
                f"{self.name}: the selection is empty ({chosen.n_samples:,} samples, "
                f"{chosen.n_variants:,} variants). Widen it."
            )
        if min_maf is None and max_missing is None:
            return chosen
        return chosen._filter(min_maf or 0.0, 1.0 if max_missing is None else max_missing)

    def _view(
        self, variants: np.ndarray, samples: np.ndarray | None, excluded: pd.DataFrame | None = None
    ) -> Genotypes:
        columns = self._columns
        if samples is not None:
            columns = samples if columns is None else columns[samples]
        return Genotypes(
            self._source,
            self.samples if samples is None else self.samples.iloc[samples],
            self.variants.iloc[variants].reset_index(drop=True),
            rows=self._rows[variants],
            columns=columns,
            excluded=self.excluded if excluded is None else excluded,
            name=self.name,
            labelled=self.labelled,
        )

    def _sample_positions(self, samples: Iterable[str] | np.ndarray) -> np.ndarray:
        mask = _as_mask(samples, self.samples.index, "samples")
        if mask is not None:
            return np.flatnonzero(mask)
        ids = pd.Index([samples] if isinstance(samples, str) else [str(s) for s in samples])
        if ids.has_duplicates:
            raise InputError(
                f"Samples are selected twice: {listing(ids[ids.duplicated()].unique())}."
            )
        positions = self.samples.index.get_indexer(ids)
        if (positions < 0).any():
            absent = ids[positions < 0]
            raise InputError(
                f"{self.name}: {len(absent):,} of {len(ids):,} selected samples are not there: "
                f"{listing(absent)}. Its sample ids look like {listing(self.samples.index[:2])}."
            )
        return positions

    def _variant_mask(self, variants: Iterable[str] | np.ndarray) -> np.ndarray:
        mask = _as_mask(variants, self.variants.index, "variants")
        if mask is not None:
            return mask
        wanted = pd.Index([variants] if isinstance(variants, str) else [str(v) for v in variants])
        absent = wanted[~wanted.isin(self.variants.id)]
        if len(absent):
            raise InputError(
                f"{self.name}: {len(absent):,} of {len(wanted):,} selected variants are not "
                f"there: {listing(absent)}. "
                f"Its variant ids look like {listing(self.variants.id[:2])}."
            )
        return self.variants.id.isin(wanted).to_numpy()

    def _chromosome_mask(self, chrom: str | int | Iterable[str | int]) -> np.ndarray:
        one = isinstance(chrom, str) or not isinstance(chrom, Iterable)
        labels = [str(label) for label in ([chrom] if one else chrom)]  # type: ignore[union-attr]
        known = set(self.chromosomes)
        unknown = [label for label in labels if label not in known]
        if unknown:
            raise InputError(
                f"{self.name}: no chromosome {listing(unknown)}. "
                f"There are {listing(self.chromosomes, limit=30)}."
            )
        return self.variants.chrom.isin(labels).to_numpy()

    def in_region(self, region: str) -> np.ndarray:
        """Which variants are in a region, booleans of shape (m,).

        Parameters
        ----------
        region : str
            ``"17"`` or ``"17:30000000-40000000"``; see `bayeslmm.loci.parse_region`.
            Variants of unknown position (<= 0) are in a whole chromosome, but in no
            interval.

        Raises
        ------
        InputError
            For malformed text, a chromosome that is not there, and a region without
            variants.

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> import bayeslmm as bl
        >>> table = pd.DataFrame({"id": ["a", "b", "c"], "chrom": "17", "pos": [5, 9, 0]})
        >>> g = bl.Genotypes.from_array(np.eye(3), variants=table)
        >>> g.in_region("17"), g.in_region("17:1-5")
        (array([ True,  True,  True]), array([ True, False, False]))
        """
        chrom, start, end = parse_region(region)
        mask = self._chromosome_mask(chrom)
        if start is None:
            return mask
        pos = self.variants.pos.to_numpy()
        known = mask & (pos > 0)
        inside = known & (pos >= start) & (pos <= end)
        if not inside.any():
            span = f"from {pos[known].min():,} to {pos[known].max():,}" if known.any() else "none"
            raise InputError(
                f"{self.name}: no variant is in the region {region}. Known positions on "
                f"chromosome {chrom}: {span}; unknown ones: {int((mask & ~known).sum()):,}."
            )
        return inside

    def n_unknown(self, region: str) -> int:
        """Variants of unknown position (<= 0) on the chromosome of a region."""
        mask = self._chromosome_mask(parse_region(region)[0])
        return int((mask & (self.variants.pos.to_numpy() <= 0)).sum())

    def _filter(self, min_maf: float, max_missing: float) -> Genotypes:
        for name, value, top in (("min_maf", min_maf, 0.5), ("max_missing", max_missing, 1.0)):
            if not 0 <= value <= top:
                raise InputError(f"{name} must be between 0 and {top:g}, but is {value:g}.")
        table = self.qc()
        missing = table.missing > max_missing
        unknown = ~missing & table.maf.isna() & (min_maf > 0)
        # 1 - eaf is rounded: a maf of exactly min_maf stays
        rare = ~missing & (table.maf < min_maf - 1e-12)
        reasons = pd.Series("", index=table.index)
        reasons[missing] = f"missing > {max_missing:g}"
        reasons[unknown] = "all missing"
        reasons[rare] = f"maf < {min_maf:g}"
        out = (missing | unknown | rare).to_numpy()
        if out.all():
            raise InputError(
                f"{self.name}: none of {self.n_variants:,} variants has maf >= {min_maf:g} and "
                f"missingness <= {max_missing:g} among {self.n_samples:,} samples."
            )
        dropped = self.variants.loc[out, ["id", "chrom", "pos"]].assign(reason=reasons[out])
        parts = [part for part in (self.excluded, dropped) if len(part)]
        excluded = pd.concat(parts, ignore_index=True) if parts else self.excluded
        return self._view(np.flatnonzero(~out), None, excluded)

    # -- reading -----------------------------------------------------------------------

    def block_size(self) -> int:
        """Variants per block such that a float32 block takes about 64 MB."""
        return int(np.clip(2**24 // max(self.n_samples, 1), 16, 8192))

    def block_ranges(self, size: int | None = None) -> list[tuple[int, int]]:
        """(start, stop) of consecutive blocks of at most `size` variants."""
        size = self.block_size() if size is None else size
        if size < 1:
            raise InputError(f"A block needs at least one variant, but its size is {size}.")
        m = self.n_variants
        return [(start, min(start + size, m)) for start in range(0, m, size)]

    def blocks(self, size: int | None = None) -> Iterator[np.ndarray]:
        """Yield dosages, shape (n, b), float32 in Fortran order, NaN for missing."""
        for start, stop in self.block_ranges(size):
            yield self.dosage(start, stop, np.float32).T

    def centered_block(
        self, start: int, stop: int, dtype: np.dtype | type = np.float32
    ) -> CenteredBlock:
        """Variants `start` to `stop`, centred, missing dosages at the variant's mean.

        Works in pieces that stay in the processor's cache.
        """
        n, b = self.n_samples, stop - start
        x = np.empty((b, n), dtype=dtype)
        mean, n_missing, sum_sq = np.empty(b), np.zeros(b, dtype=np.int64), np.empty(b)
        missing: np.ndarray | None = None
        step = max(1, _CACHE_FRIENDLY // n)
        for i in range(0, b, step):
            j = min(i + step, b)
            raw = self._read(start + i, start + j)
            absent = raw == MISSING if raw.dtype == np.int8 else np.isnan(raw)
            piece = x[i:j]
            np.copyto(piece, raw, casting="same_kind")
            any_absent = bool(absent.any())
            if any_absent:
                n_missing[i:j] = np.count_nonzero(absent, axis=1)
                piece[absent] = 0
                if missing is None:
                    missing = np.zeros((b, n), dtype=bool)
                missing[i:j] = absent
            with np.errstate(invalid="ignore"):
                mean[i:j] = piece.sum(axis=1) / (n - n_missing[i:j])
            piece -= mean[i:j, None].astype(dtype)
            if any_absent:
                piece[absent] = 0
            sum_sq[i:j] = np.einsum("ij,ij->i", piece, piece)
        sum_sq[sum_sq < 1e-10 * n] = 0
        return CenteredBlock(start, stop, x, mean / 2, n_missing, sum_sq, missing)

    def qc(self) -> pd.DataFrame:
        """Per variant: n_missing, missing (share), eaf and maf among the samples."""
        ranges = self.block_ranges()
        eaf, n_missing = np.empty(self.n_variants), np.empty(self.n_variants, dtype=np.int64)
        counted = map_ahead(lambda r: self.centered_block(*r), ranges)
        for block in track(counted, "Counting alleles", total=len(ranges)):
            eaf[block.start : block.stop] = block.eaf
            n_missing[block.start : block.stop] = block.n_missing
        return pd.DataFrame(
            {
                "id": self.variants.id,
                "n_missing": n_missing,
                "missing": n_missing / self.n_samples,
                "eaf": eaf,
                "maf": np.minimum(eaf, 1 - eaf),
            }
        )

    def dosage(self, start: int, stop: int, dtype: np.dtype | type = np.float64) -> np.ndarray:
        """Dosages of variants `start` to `stop`, one row each, shape (b, n), NaN for missing."""
        return _as_float(self._read(start, stop), np.dtype(dtype))

    def to_array(self) -> np.ndarray:
        """All dosages, shape (n, m), float64, NaN for missing."""
        return self.dosage(0, self.n_variants).T

    def load(self) -> Genotypes:
        """The same genotypes held in memory (one byte per hard call)."""
        dosage = self._read(0, self.n_variants)
        return Genotypes(
            ArraySource(dosage),
            self.samples,
            self.variants,
            excluded=self.excluded,
            name=self.name,
            labelled=self.labelled,
        )

    def _read(self, start: int, stop: int) -> np.ndarray:
        return self._source.read(self._rows[start:stop], self._columns)


def read_genotypes(path: str | os.PathLike[str]) -> Genotypes:
    """Open PLINK 1 genotypes; nothing but the two tables is read.

    Parameters
    ----------
    path : path-like
        Prefix of a .bed/.bim/.fam triple, or any of its three files.

    Returns
    -------
    Genotypes
        Dosages count A1 of the .bim (its fifth column), the effect allele. Columns
        of the .fam beyond the sixth are ignored; its phenotype column reads -9 and
        NA as missing.

    Raises
    ------
    InputError
        If a file is absent, truncated, not a variant-major .bed, or disagrees with
        the others; if sample ids are duplicated.
    """
    prefix = str(path)
    if prefix.endswith((".bed", ".bim", ".fam")):
        prefix = prefix[:-4]
    bed, bim, fam = (Path(prefix + ending) for ending in (".bed", ".bim", ".fam"))
    for part in (bed, bim, fam):
        existing(part)
    samples, variants = _read_fam(fam), _read_bim(bim)
    _check_bed(bed, len(samples), len(variants))
    source = BedSource(bed, len(samples), len(variants))
    return Genotypes(source, samples, variants, name=Path(prefix).name)


def as_genotypes(genotypes: Genotypes | str | os.PathLike[str] | np.ndarray) -> Genotypes:
    """Genotypes from what a user may give instead: a path, or an array (n, m)."""
    if isinstance(genotypes, Genotypes):
        return genotypes
    if isinstance(genotypes, str | os.PathLike):
        return read_genotypes(genotypes)
    return Genotypes.from_array(genotypes)


# -- tables --------------------------------------------------------------------------------


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            path,
            sep=r"\s+",
            header=None,
            names=columns,
            usecols=range(len(columns)),
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            skip_blank_lines=False,
            quoting=csv.QUOTE_NONE,
        )
    except ValueError as error:  # pandas' own errors among them
        _refuse_short_lines(path, columns)
        raise InputError(
            f"{path}: expected {len(columns)} columns separated by blanks or tabs "
            f"({', '.join(columns)}); {str(error).strip()}."
        ) from error
    if table.isna().any(axis=None):
        _refuse_short_lines(path, columns)
    if table.empty:
        raise InputError(f"{path}: the file is empty.")
    return table


def _refuse_short_lines(path: Path, columns: list[str]) -> None:
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            found = len(line.split())
            if found < len(columns):
                raise InputError(
                    f"{path}, line {number:,}: {found} columns, expected {len(columns)} "
                    f"({', '.join(columns)})."
                )


def _numeric(
    path: Path, column: pd.Series, missing: Sequence[str] = (), *, whole: bool = False
) -> pd.Series:
    values = pd.to_numeric(column.mask(column.isin(missing)), errors="coerce").astype(np.float64)
    bad = values.isna() & ~column.isin(missing)
    if whole:
        bad |= (values != values.round()) | (values.abs() >= 2**53)
    if bad.any():
        line = int(np.argmax(bad.to_numpy())) + 1
        raise InputError(
            f"{path}, line {line:,}: column {column.name} is '{column.iloc[line - 1]}', "
            f"expected a {'whole ' * whole}number."
        )
    return values


def _read_bim(path: Path) -> pd.DataFrame:
    table = _read_table(path, VARIANT_COLUMNS)
    table["cm"] = _numeric(path, table["cm"], missing=["NA"])
    table["pos"] = _numeric(path, table["pos"], whole=True).astype(np.int64)
    return table[["chrom", "id", "pos", "ea", "oa", "cm"]]


def _read_fam(path: Path) -> pd.DataFrame:
    table = _read_table(path, SAMPLE_COLUMNS)
    phenotype = pd.to_numeric(table["phenotype"], errors="coerce")
    table["phenotype"] = phenotype.mask(phenotype == -9)
    return _label_samples(table, str(path))


def _label_samples(table: pd.DataFrame, name: str) -> pd.DataFrame:
    pair = table.fid + "_" + table.iid
    ids = pair if table.iid.duplicated().any() else table.iid
    twice = ids.duplicated()
    if twice.any():
        line = int(np.argmax(twice.to_numpy())) + 1
        raise InputError(
            f"{name}, line {line:,}: sample FID '{table.fid[line - 1]}' IID "
            f"'{table.iid[line - 1]}' comes twice. Sample ids must be unique."
        )
    return table.set_index(pd.Index(ids, name="id"))


def _sample_table(ids: list[str]) -> pd.DataFrame:
    index = pd.Index(ids, name="id", dtype="str")
    if index.has_duplicates:
        raise InputError(
            f"Sample ids must be unique; twice there: {listing(index[index.duplicated()])}."
        )
    return pd.DataFrame({"iid": index.to_numpy()}, index=index)


def _variant_table(variants: pd.DataFrame | Sequence[str] | None, m: int) -> pd.DataFrame:
    if variants is None:
        variants = [f"snp{j + 1}" for j in range(m)]
    table = variants if isinstance(variants, pd.DataFrame) else pd.DataFrame({"id": list(variants)})
    if len(table) != m:
        raise InputError(f"Genotypes have {m:,} columns, but {len(table):,} variants are named.")
    if "id" not in table:
        raise InputError(f"The variant table needs a column id; it has {listing(table.columns)}.")
    table = table.reset_index(drop=True)
    defaults = {"chrom": "0", "pos": 0, "ea": ".", "oa": ".", "cm": 0.0}
    table = table.assign(**{k: v for k, v in defaults.items() if k not in table})
    return table.astype({"id": str, "chrom": str})


def _check_bed(path: Path, n: int, m: int) -> None:
    with open(path, "rb") as file:
        magic = file.read(3)
    if magic[:2] != b"\x6c\x1b":
        raise InputError(
            f"{path}: not a PLINK 1 .bed file (it begins with {magic.hex(' ') or 'nothing'}, "
            "expected 6c 1b 01)."
        )
    if magic[2:] != b"\x01":
        raise InputError(
            f"{path}: sample-major or truncated .bed; rewrite it variant-major "
            "(plink --bfile ... --make-bed --out ...)."
        )
    expected, found = 3 + m * ((n + 3) // 4), path.stat().st_size
    if found != expected:
        raise InputError(
            f"{path}: {found:,} bytes, but {m:,} variants in the .bim and {n:,} samples in the "
            f".fam need {expected:,}. It is truncated, or its .bim or .fam belongs to another .bed."
        )


# -- small helpers -------------------------------------------------------------------------


def _as_slice(index: np.ndarray) -> slice | np.ndarray:
    if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _as_float(raw: np.ndarray, dtype: np.dtype) -> np.ndarray:
    dosage = raw.astype(dtype)
    if raw.dtype == np.int8:
        dosage[raw == MISSING] = np.nan
    return dosage


def _as_mask(selection: Iterable[object], index: pd.Index, what: str) -> np.ndarray | None:
    """The selection as booleans of the table's length; None if it is by id."""
    if isinstance(selection, pd.Series):
        if not pd.api.types.is_bool_dtype(selection.dtype):
            return None
        anonymous = isinstance(selection.index, pd.RangeIndex)
        if not anonymous and not selection.index.equals(index):
            raise InputError(
                f"A boolean Series selects {what}, but its index is not theirs in their order. "
                "Select by id: mask.index[mask]."
            )
    elif not (isinstance(selection, np.ndarray) and selection.dtype == bool) and not (
        isinstance(selection, list) and selection and all(isinstance(v, bool) for v in selection)
    ):
        return None
    mask = np.asarray(selection, dtype=bool)
    if mask.shape != (len(index),):
        raise InputError(
            f"A boolean selection of {what} needs shape ({len(index):,},), but has {mask.shape}."
        )
    return mask
