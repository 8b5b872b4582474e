"""VCF-Zarr folders, sgkit datasets and Dask arrays: dosages by chunks of arrays on disk.

Sources: the VCF Zarr specification 0.5 (https://github.com/sgkit-dev/vcf-zarr-spec) and sgkit's
documented variables (https://sgkit-dev.github.io/sgkit). Both name their arrays alike:
`call_genotype` (variants, samples, ploidy) with -1 missing and -2 beyond a call's ploidy,
`call_DS` or `call_dosage`, `variant_allele`, `variant_contig`, `variant_position`, `sample_id`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing, require_library
from bayeslmm.inputs.sources import (
    MISSING,
    ChunkedSource,
    Opened,
    dosage_of_calls,
    require_dosages,
    sample_table,
    variant_table,
)

if TYPE_CHECKING:
    import xarray as xr

_DOSAGES = ("call_DS", "call_dosage")
_DEFAULT_CHUNK = 1000


def open_vcf_zarr(path: Path) -> Opened:
    """Genotypes of a VCF-Zarr folder, as bio2zarr writes it, or of a sgkit dataset in zarr.

    Dosages count the alternate alleles of `variant_allele` (from the second on), one row for
    each: `call_DS` or `call_dosage` where they are, else `call_genotype`.
    """
    zarr = require_library("zarr", "zarr", f"{path}: reading a VCF-Zarr folder")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on formats of strings
            group = zarr.open_group(path, mode="r")
            arrays = dict(group.arrays())
            contigs = group.attrs.get("contigs")
    except Exception as error:  # whatever a codec or a store raises
        raise InputError(f"{path}: cannot be read as a zarr folder ({error}).") from error
    return _open_arrays(str(path), arrays, contigs)


def open_dataset(dataset: xr.Dataset) -> Opened:
    """The same from a sgkit dataset in xarray, in memory or lazy."""
    arrays = {str(name): array.data for name, array in dataset.variables.items()}
    return _open_arrays("dataset", arrays, dataset.attrs.get("contigs"))


def dask_source(dosage: Any) -> ChunkedSource:
    """Source of a Dask array of dosages, shape (n, m); a chunk is computed when it is read."""
    chunk_of_variants = int(max(dosage.chunks[1]))

    def chunk(start: int, stop: int) -> np.ndarray:
        def where(row: int) -> str:
            return f"Dask array, variant {start + row:,}"

        try:
            block = dosage[:, start:stop].compute(scheduler="synchronous")
            found = np.ascontiguousarray(np.asarray(block).T)
            floats = found.dtype if found.dtype == np.float32 else np.dtype(np.float64)
            found = found.astype(floats, copy=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where(0)}: cannot be computed as numbers ({error}).") from error
        return require_dosages(found, where)

    return ChunkedSource(chunk, int(dosage.shape[1]), chunk_of_variants)


def _open_arrays(name: str, arrays: Mapping[str, Any], contigs: Any) -> Opened:
    needed = ["variant_allele", "variant_contig", "variant_position", "sample_id"]
    absent = [array for array in needed if array not in arrays]
    dosage_name = next((d for d in _DOSAGES if d in arrays), None)
    if dosage_name is None and "call_genotype" not in arrays:
        absent.append("call_genotype")
    if absent:
        raise InputError(
            f"{name}: no array {listing(absent)}. A VCF-Zarr folder or sgkit dataset has them; "
            f"here are {listing(sorted(arrays), 8)}."
        )
    samples = sample_table(_strings(name, arrays, "sample_id"), name)
    variants, records, alleles, n_alleles = _variants(name, arrays, contigs)
    m, n = len(n_alleles), len(samples)
    calls = arrays.get("call_genotype")
    soft = None if dosage_name is None else arrays[dosage_name]
    for what, array in (("call_genotype", calls), (dosage_name, soft)):
        if array is not None and tuple(array.shape[:2]) != (m, n):
            raise InputError(
                f"{name}: {what} has shape {tuple(array.shape)}, but there are {m:,} variants and "
                f"{n:,} samples."
            )
    read = _reader(name, calls, soft, dosage_name, variants, records, alleles, n_alleles)
    main = calls if soft is None else soft
    size = _chunk_of(main)
    if len(records) != m:  # rows of split variants: as many as fit into a chunk of records
        size = max(1, size * len(records) // m)
    return Opened(ChunkedSource(read, len(records), size), samples, variants)


def _reader(
    name: str,
    calls: Any,
    soft: Any,
    soft_name: str | None,
    variants: pd.DataFrame,
    records: np.ndarray,
    alleles: np.ndarray,
    n_alleles: np.ndarray,
) -> Callable[[int, int], np.ndarray]:
    """The function that gives dosages of rows `start` to `stop`."""

    def chunk(start: int, stop: int) -> np.ndarray:
        first, last = int(records[start]), int(records[stop - 1]) + 1
        local, counted = records[start:stop] - first, alleles[start:stop]

        def where(row: int) -> str:
            return f"{name}, variant '{variants['id'].iloc[start + row]}'"

        hard = haploid = None
        if calls is not None:
            hard, haploid = _by_samples(
                name, calls, first, last, local, counted, n_alleles[first:last][local], where
            )
        if soft is None:
            assert hard is not None
            return hard
        found = np.asarray(_computed(name, soft, first, last), dtype=np.float32)
        if found.ndim == 3:
            if found.shape[2] < counted.max(initial=1):
                raise InputError(f"{where(0)}: {soft_name} has {found.shape[2]} alternate alleles.")
            found = found[local, :, counted - 1]
        else:
            if (counted > 1).any():
                several = where(int(np.argmax(counted > 1)))
                raise InputError(f"{several}: {soft_name} has one dosage for several alleles.")
            found = found[local]
        if soft_name == "call_DS" and haploid is not None:
            with np.errstate(invalid="ignore"):  # missing values are signalling NaN
                found = found * np.where(haploid, np.float32(2), np.float32(1))
        found = require_dosages(found, where)
        if hard is None:
            return found
        absent = np.isnan(found)
        found[absent] = np.where(hard == MISSING, np.nan, hard)[absent]
        return found

    return chunk


def _by_samples(
    name: str,
    calls: Any,
    first: int,
    last: int,
    local: np.ndarray,
    counted: np.ndarray,
    n_alleles: np.ndarray,
    where: Callable[[int], str],
) -> tuple[np.ndarray, np.ndarray]:
    """Dosages and which calls are haploid, by chunks of samples: calls need twice the memory."""
    n = int(calls.shape[1])
    width = _chunk_of(calls, axis=1)
    hard = np.empty((len(local), n), dtype=np.int8)
    haploid = np.empty((len(local), n), dtype=bool)
    for left in range(0, n, width):
        right = min(left + width, n)
        part = np.asarray(_computed(name, calls, first, last, left, right))
        if part.ndim != 3 or not np.issubdtype(part.dtype, np.integer):
            raise InputError(
                f"{name}: call_genotype holds {part.dtype} of {part.ndim} dimensions; expected "
                "whole numbers (variants, samples, ploidy)."
            )
        part = part[local]
        hard[:, left:right] = dosage_of_calls(part, counted, n_alleles, where)
        haploid[:, left:right] = True if part.shape[2] == 1 else part[:, :, 1] == -2
    return hard, haploid


def _computed(
    name: str, array: Any, first: int, last: int, left: int = 0, right: int | None = None
) -> Any:
    try:
        block = array[first:last, left:right]
        return block.compute(scheduler="synchronous") if hasattr(block, "compute") else block
    except Exception as error:  # whatever a codec or a store raises
        raise InputError(f"{name}: variants {first:,} to {last:,} cannot be read ({error}).") from (
            error
        )


def _chunk_of(array: Any, axis: int = 0) -> int:
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return _DEFAULT_CHUNK if axis == 0 else int(array.shape[axis])
    size = chunks[axis]  # zarr: a number; Dask: one for each chunk
    return max(1, int(max(size) if isinstance(size, tuple) else size))


def _variants(
    name: str, arrays: Mapping[str, Any], contigs: Any
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    labels = _strings(name, arrays, "contig_id") if "contig_id" in arrays else contigs
    if labels is None:
        raise InputError(f"{name}: neither an array contig_id nor an attribute contigs.")
    labels = np.asarray([str(label) for label in labels], dtype=object)
    contig = np.asarray(_whole(name, arrays, "variant_contig"))
    m = len(contig)
    if m == 0:
        raise InputError(f"{name}: no variants.")
    if contig.ndim != 1 or contig.min() < 0 or contig.max() >= len(labels):
        raise InputError(f"{name}: variant_contig points outside of {len(labels)} contigs.")
    pos = np.asarray(_whole(name, arrays, "variant_position"))
    table = _text_array(name, arrays, "variant_allele")
    ids = _strings(name, arrays, "variant_id") if "variant_id" in arrays else ["."] * m
    if pos.shape != (m,) or table.ndim != 2 or len(table) != m or len(ids) != m:
        raise InputError(
            f"{name}: arrays of variants disagree: {m:,} contigs, positions {pos.shape}, alleles "
            f"{table.shape}, {len(ids):,} ids."
        )
    filled = table != ""
    n_alleles = filled.sum(axis=1)
    gaps = ~np.equal(filled, np.arange(table.shape[1]) < n_alleles[:, None]).all(axis=1)
    if gaps.any() or not n_alleles.all():
        row = int(np.argmax(gaps | (n_alleles == 0)))
        raise InputError(f"{name}: alleles of variant {row:,} are {table[row].tolist()}.")
    ea = [",".join(row[1:k]) or "." for row, k in zip(table, n_alleles, strict=True)]
    variants, records, alleles = variant_table(labels[contig], pos, ids, table[:, 0], ea)
    if records is None:
        records, alleles = np.arange(m), np.ones(m, dtype=np.int64)
    assert alleles is not None
    return variants, records, alleles, n_alleles


def _whole(name: str, arrays: Mapping[str, Any], array: str) -> Any:
    try:
        values = np.asarray(arrays[array][...])
    except Exception as error:  # whatever a codec or a store raises
        raise InputError(f"{name}: {array} cannot be read ({error}).") from error
    return values


def _text_array(name: str, arrays: Mapping[str, Any], array: str) -> np.ndarray:
    values = _whole(name, arrays, array)
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in values.ravel().tolist()]
    return np.array(texts, dtype=object).reshape(values.shape)


def _strings(name: str, arrays: Mapping[str, Any], array: str) -> list[str]:
    values: list[str] = _text_array(name, arrays, array).ravel().tolist()
    return values
