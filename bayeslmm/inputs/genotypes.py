"""Open a genotype source and yield blocks of variants; sample and variant tables; selections."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotype_files import locate
from bayeslmm.inputs.regions import parse_region
from bayeslmm.inputs.sample_major import SampleMajor, counts, padded
from bayeslmm.inputs.sources import MISSING, ArraySource, Source, as_float, sample_table
from bayeslmm.runs.progress import map_ahead, track

if TYPE_CHECKING:
    import xarray as xr

_CACHE_FRIENDLY = 2**18
_CHECKED_AT_ONCE = 2**22  # dosages of an array of which a copy is made
_NOT_AUTOSOMES = ("X", "Y", "XY", "PAR1", "PAR2", "M", "MT")


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

    def without_dosages(self) -> CenteredBlock:
        """What is told of the variants, without what takes memory."""
        return replace(self, x=np.empty((0, 0), dtype=self.x.dtype), missing=None)


class Genotypes:
    """Dosages of n samples at m variants, read block by block, with their tables.

    Make one with `read_genotypes`, `Genotypes.from_array` or `Genotypes.from_dataset`.
    Selections are views: they keep positions into the same source and read nothing.

    Attributes
    ----------
    samples : DataFrame
        One row per sample, indexed by sample id (the IID where it is unique, else
        ``FID_IID``); columns fid, iid, father, mother, sex, phenotype where the
        source has them.
    variants : DataFrame
        One row per variant: chrom (a label: "1", "X", "2L", "chr1" alike), id, cm,
        pos (base pairs), ea (effect allele, counted by the dosage), oa (other allele).
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
        """Genotypes of an array.

        Parameters
        ----------
        dosage : array, shape (n, m)
            Dosage of the effect allele, between 0 and 2, NaN for missing. A Dask array
            stays lazy: it is computed, and its values are checked, chunk by chunk where
            they are read; choose chunks of all samples and some thousand variants.
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
        lazy = hasattr(dosage, "dask")
        dosage = dosage if lazy else np.asarray(dosage)
        if dosage.ndim != 2:
            raise InputError(
                "Genotypes must be a matrix (samples x variants), but have "
                f"{dosage.ndim} dimensions."
            )
        n, m = dosage.shape
        if n != n or m != m:
            raise InputError("This Dask array does not know its shape (compute_chunk_sizes()).")
        if n == 0 or m == 0:
            raise InputError(f"Genotypes of {n:,} samples at {m:,} variants: nothing is there.")
        labelled = samples is not None
        ids = [str(i) for i in range(n)] if samples is None else [str(s) for s in samples]
        if len(ids) != n:
            raise InputError(f"Genotypes have {n:,} rows, but {len(ids):,} sample ids came.")
        table = _variant_table(variants, m)
        if lazy:
            from bayeslmm.inputs.call_arrays import dask_source

            return cls(dask_source(dosage), sample_table(ids), table, labelled=labelled)
        stored = _stored(dosage, ids, table)
        return cls(ArraySource(stored), sample_table(ids), table, labelled=labelled)

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Genotypes:
        """Genotypes of a sgkit dataset (xarray), read chunk by chunk if it is lazy.

        Parameters
        ----------
        dataset : xarray.Dataset
            With `call_dosage` (or `call_DS`) or `call_genotype`, `variant_allele`,
            `variant_contig`, `variant_position`, `sample_id`, and contigs as `contig_id` or
            in the attribute ``contigs``. Dosages count the second allele of
            `variant_allele`, in a further row the third, and so on.

        Raises
        ------
        InputError
            If an array is absent or shapes disagree.
        """
        from bayeslmm.inputs.call_arrays import open_dataset

        opened = open_dataset(dataset)
        return cls(opened.source, opened.samples, opened.variants, name="dataset")

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
    def identity(self) -> str:
        """A hash of all dosages of the source, for checkpoints; see `sources.Source`."""
        return self._source.identity()

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
        """Variants and samples by position, in the order given; nothing is read."""
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
        """Which variants are meant by ids or booleans, shape (m,)."""
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
            other = [f"chr{label}".removeprefix("chrchr") for label in unknown]
            meant = [label for label in other if label in known]
            raise InputError(
                f"{self.name}: no chromosome {listing(unknown)}. "
                f"There are {listing(self.chromosomes, limit=30)}."
                + (f" Did you mean {listing(meant)}?" if meant else "")
            )
        return self.variants.chrom.isin(labels).to_numpy()

    def in_region(self, region: str) -> np.ndarray:
        """Which variants are in a region, booleans of shape (m,).

        Parameters
        ----------
        region : str
            ``"17"`` or ``"17:30000000-40000000"``; see `bayeslmm.inputs.regions.parse_region`.
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

    def sample_major(
        self, start: int, stop: int, dtype: np.dtype | type = np.float32
    ) -> tuple[CenteredBlock, SampleMajor]:
        """Variants `start` to `stop` with people in rows, as they are stored if that is in bytes.

        Returns
        -------
        CenteredBlock
            What is told of the variants, without dosages.
        SampleMajor
            Their dosages.
        """
        n, m = self.n_samples, stop - start
        values = padded(n, m)
        variants = self._rows[start:stop]
        read = getattr(self._source, "read_sample_major", None)
        counted = None if read is None else read(variants, self._columns, values[:, :m])
        if counted is None:
            raw = self._source.read(variants, self._columns)
            if raw.dtype != np.int8:
                block = self.centered_block(start, stop, dtype)
                x = np.zeros(values.shape, dtype=dtype)
                x[:, :m] = block.x.T
                return block.without_dosages(), SampleMajor(x, None, False, m)
            values[:, :m] = raw.T
            counted = counts(values)
        ones, twos, absent = (count[:m] for count in counted)
        with np.errstate(invalid="ignore"):
            mean = (ones + 2 * twos) / (n - absent)
        sum_sq = np.where(n > absent, ones + 4 * twos - (n - absent) * mean**2, 0)
        sum_sq[sum_sq < 1e-10 * n] = 0
        nothing = np.empty((0, 0), dtype=dtype)
        block = CenteredBlock(start, stop, nothing, mean / 2, absent, sum_sq, None)
        taken_off = np.zeros(values.shape[1])
        taken_off[:m] = np.nan_to_num(mean)
        return block, SampleMajor(values, taken_off, bool(absent.any()), m)

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
        return as_float(self._read(start, stop), np.dtype(dtype))

    def calls(self, start: int, stop: int) -> np.ndarray:
        """Genotypes 0, 1, 2 of variants `start` to `stop`, `int8`, -9 missing, shape (b, n).

        Raises
        ------
        InputError
            If a dosage is none of them (imputed dosages).
        """
        raw = self._read(start, stop)
        if raw.dtype == np.int8:
            return raw
        absent = np.isnan(raw)
        called = np.rint(np.where(absent, MISSING, raw))
        off = np.abs(called - raw) > 1e-3
        if off.any():
            j, i = np.argwhere(off)[0]
            raise InputError(
                f"{self.name}: called genotypes (0, 1, 2) are needed here, but variant "
                f"'{self.variants.id.iloc[start + j]}' of sample '{self.samples.index[i]}' has "
                f"dosage {raw[j, i]:.3g}. Use called genotypes."
            )
        return called.astype(np.int8)

    def autosomal(self) -> Genotypes:
        """The variants on autosomes: all but chromosomes X, Y, XY, PAR1, PAR2, M and MT.

        A prefix "chr" and the case do not matter. Number codes (23 for the X of humans) are
        taken as autosomes, as their meaning depends on the species.
        """
        labels = self.variants.chrom.str.upper().str.removeprefix("CHR")
        outside = labels.isin(_NOT_AUTOSOMES).to_numpy()
        return self.select(variants=~outside) if outside.any() else self

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


def read_genotypes(
    path: str | os.PathLike[str], *, sample_file: str | os.PathLike[str] | None = None
) -> Genotypes:
    """Open genotypes on disk; what the file is decides how it is read, not its name.

    Parameters
    ----------
    path : path-like
        A PLINK 1 .bed, PLINK 2 .pgen, BGEN 1.2 or 1.3, VCF or BCF (also compressed) file, or a
        VCF-Zarr folder; or one of the tables beside it; or the prefix that the files of
        one data set share.
    sample_file : path-like, optional
        The .sample of a .bgen, if it has another name.

    Returns
    -------
    Genotypes
        Dosages count the effect allele `ea` of the variant table: A1 of a .bim, ALT of a
        .pvar, VCF or VCF-Zarr, the second allele of a .bgen (docs/formats.md). A variant of
        several alternate alleles is one row for each of them. PLINK and BGEN files are
        read block by block; a VCF is read once into a temporary file.

    Raises
    ------
    InputError
        If a file is absent, damaged, in no known format, or disagrees with the others; if
        a prefix fits several data sets; if sample ids are duplicated; if the library for
        a format is not installed.
    """
    found = locate(path, sample_file)
    opened = found.open()
    return Genotypes(opened.source, opened.samples, opened.variants, name=found.name)


def as_genotypes(
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray | xr.Dataset,
) -> Genotypes:
    """Genotypes from what a user may give instead: a path, an array (n, m), a sgkit dataset."""
    if isinstance(genotypes, Genotypes):
        return genotypes
    if isinstance(genotypes, str | os.PathLike):
        return read_genotypes(genotypes)
    if hasattr(genotypes, "data_vars"):
        return Genotypes.from_dataset(cast("xr.Dataset", genotypes))
    return Genotypes.from_array(genotypes)


# -- small helpers -------------------------------------------------------------------------


def _stored(dosage: np.ndarray, ids: Sequence[str], table: pd.DataFrame) -> np.ndarray:
    """Checked dosages (n, m) as they are kept: (m, n), `int8` if all are whole numbers."""
    n, m = dosage.shape
    floats = np.dtype(np.float32 if dosage.dtype in (np.float16, np.float32) else np.float64)
    stored = np.empty((m, n), dtype=np.int8)
    for start in range(0, m, step := max(1, _CHECKED_AT_ONCE // n)):
        try:
            piece = dosage[:, start : start + step].T.astype(floats)
        except (TypeError, ValueError) as error:
            raise InputError(f"Genotypes must be numbers ({error}).") from error
        bad = (piece < 0) | (piece > 2) | np.isinf(piece)
        if bad.any():
            j, i = np.argwhere(bad)[0]
            raise InputError(
                f"Genotypes: sample '{ids[i]}', variant '{table.id.iloc[start + j]}' has dosage "
                f"{piece[j, i]:g}; expected 0 to 2, or NaN for missing."
            )
        missing = np.isnan(piece)
        if stored.dtype == np.int8 and not (missing | (piece == np.round(piece))).all():
            stored = as_float(stored, floats)
        if stored.dtype == np.int8:
            piece[missing] = MISSING
        stored[start : start + step] = piece
    return stored


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
