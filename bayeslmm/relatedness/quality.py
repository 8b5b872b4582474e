"""Quality of samples and variants: missingness, heterozygosity, Hardy-Weinberg; LD pruning."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes
from bayeslmm.inputs.sources import MISSING
from bayeslmm.runs.progress import log, map_ahead, track

# Probabilities this close to the observed table's count as equal to it (rounding).
_EQUAL = 1e-9
_SDS = 40


def variant_qc(genotypes: Genotypes | str | os.PathLike[str] | np.ndarray) -> pd.DataFrame:
    """Counts, allele frequency and Hardy-Weinberg test of every variant.

    Parameters
    ----------
    genotypes : Genotypes, path or array (n, m)
        Called genotypes.

    Returns
    -------
    DataFrame
        One row per variant: id, chrom, pos, ea, oa; n_missing, missing (share); n_ea2, n_het,
        n_oa2 (samples with two, one and no effect alleles); eaf, maf; het (share of
        heterozygotes), het_expected (2 p (1 - p)); p_hwe, the exact test's p-value (1 for
        monomorphic variants; it means nothing for X, Y and MT).

    Notes
    -----
    Relatives and structure shift heterozygosity: test among unrelated samples of one
    population (`unrelated`).

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> x = np.array([[0, 0], [0, 1], [2, 1], [2, 2], [2, 2]])
    >>> bl.variant_qc(x)[["id", "maf", "het", "p_hwe"]].round(3)
         id  maf  het  p_hwe
    0  snp1  0.4  0.0  0.048
    1  snp2  0.4  0.4  1.000
    """
    genotypes = as_genotypes(genotypes)
    n, m = genotypes.shape
    counts = np.empty((m, 3), dtype=np.int64)
    spans = genotypes.block_ranges()
    for (start, stop), part in track(
        map_ahead(lambda span: (span, _count(genotypes.calls(*span))), spans),
        "Variants",
        total=len(spans),
    ):
        counts[start:stop] = part
    oa2, het, ea2 = counts.T
    seen = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        eaf = (2 * ea2 + het) / (2 * seen)
        share = het / seen
    return genotypes.variants[["id", "chrom", "pos", "ea", "oa"]].assign(
        n_missing=n - seen,
        missing=1 - seen / n,
        n_ea2=ea2,
        n_het=het,
        n_oa2=oa2,
        eaf=eaf,
        maf=np.minimum(eaf, 1 - eaf),
        het=share,
        het_expected=2 * eaf * (1 - eaf),
        p_hwe=hardy_weinberg(ea2, het, oa2),
    )


def sample_qc(genotypes: Genotypes | str | os.PathLike[str] | np.ndarray) -> pd.DataFrame:
    r"""Missingness, heterozygosity and inbreeding coefficient F of every sample.

    Parameters
    ----------
    genotypes : Genotypes, path or array (n, m)
        Called genotypes. Chromosomes X, Y and MT count for missingness only.

    Returns
    -------
    DataFrame
        By sample id: n_missing, missing (share); n_het, het (share of heterozygous among
        autosomal genotypes that are there); f, :math:`1 - H / \sum 2 p (1-p)` over the
        polymorphic variants that the sample has, as plink2 ``--het``. F far above 0 says
        inbreeding or another population, far below 0 contamination.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> bl.sample_qc(np.array([[0, 1, 2], [1, 1, 1], [2, 1, np.nan]])).round(3)
        n_missing  missing  n_het    het      f
    id
    0           0    0.000      1  0.333  0.273
    1           0    0.000      3  1.000 -1.182
    2           1    0.333      1  0.500  0.000
    """
    genotypes = as_genotypes(genotypes)
    n = genotypes.n_samples
    n_missing, het, seen, polymorphic_het, expected = np.zeros((5, n))
    autosomal = genotypes.variants.id.isin(genotypes.autosomal().variants.id).to_numpy()
    spans = genotypes.block_ranges()
    blocks = map_ahead(lambda span: (span, genotypes.calls(*span)), spans)
    for (start, stop), calls in track(blocks, "Samples", total=len(spans)):
        n_missing += np.count_nonzero(calls == MISSING, axis=0)
        calls = calls[autosomal[start:stop]]
        present, is_het = calls != MISSING, calls == 1
        counts = _count(calls)
        with np.errstate(invalid="ignore"):
            p = (2 * counts[:, 2] + counts[:, 1]) / (2 * counts.sum(axis=1))
        share = np.nan_to_num(2 * p * (1 - p))
        varies = (share > 0).astype(np.float32)
        het += np.count_nonzero(is_het, axis=0)
        seen += np.count_nonzero(present, axis=0)
        polymorphic_het += varies @ is_het
        expected += share @ present
    with np.errstate(invalid="ignore", divide="ignore"):
        table = {
            "n_missing": n_missing.astype(np.int64),
            "missing": n_missing / genotypes.n_variants,
            "n_het": het.astype(np.int64),
            "het": het / seen,
            "f": 1 - polymorphic_het / expected,
        }
    return pd.DataFrame(table, index=genotypes.samples.index)


def _count(calls: np.ndarray) -> np.ndarray:
    """Samples with 0, 1 and 2 effect alleles, (b, 3)."""
    return np.stack([np.count_nonzero(calls == x, axis=1) for x in (0, 1, 2)], axis=1)


def hardy_weinberg(hom1: np.ndarray, het: np.ndarray, hom2: np.ndarray) -> np.ndarray:
    """Exact test of Hardy-Weinberg proportions, p-values (m,).

    The sum of the probabilities, given the allele counts, of all numbers of heterozygotes
    that are no more probable than the observed one.

    Parameters
    ----------
    hom1, het, hom2 : ndarray of int, shape (m,)
        Samples homozygous for one allele, heterozygous, and homozygous for the other.

    References
    ----------
    Wigginton JE, Cutler DJ, Abecasis GR (2005). A note on exact tests of Hardy-Weinberg
    equilibrium. Am J Hum Genet 76:887. doi:10.1086/429864

    Examples
    --------
    >>> import numpy as np
    >>> hardy_weinberg(np.array([1, 5]), np.array([2, 2]), np.array([1, 5])).round(4)
    array([1.    , 0.0265])
    """
    from scipy.special import gammaln

    one, het, two = (np.asarray(part, dtype=np.int64) for part in (hom1, het, hom2))
    n = one + het + two
    minor = 2 * np.minimum(one, two) + het
    log_factorial = gammaln(np.arange(n.max(initial=0) + 1) + 1)
    p = np.ones(len(n))
    if not len(n):
        return p
    # Variants with the same allele counts share a distribution.
    order = np.lexsort((minor, n))
    changes = np.diff(n[order]) | np.diff(minor[order])
    for rows in np.split(order, np.flatnonzero(changes) + 1):
        p[rows] = _hardy_weinberg(het[rows], int(minor[rows[0]]), int(n[rows[0]]), log_factorial)
    return p


def _hardy_weinberg(
    het: np.ndarray, minor: int, n: int, log_factorial: np.ndarray
) -> np.ndarray | float:
    """P-values of numbers of heterozygotes (k,) among n samples with these minor alleles."""
    if minor == 0:
        return 1.0
    # Numbers of heterozygotes that are not hopelessly improbable, and the observed ones.
    mean = minor * (2 * n - minor) / max(2 * n - 1, 1)
    reach = np.abs(het - mean).max() + _SDS * np.sqrt(mean + 1)
    low, high = max(minor % 2, int(mean - reach)), min(minor, int(mean + reach) + 1)
    low += (low - minor) % 2
    hets = np.arange(low, high + 1, 2)
    rares = (minor - hets) // 2
    logs = hets * np.log(2) - log_factorial[rares] - log_factorial[hets]
    logs -= log_factorial[n - hets - rares]
    ascending = np.sort(logs)
    below = np.exp(ascending - ascending[-1]).cumsum()
    observed = logs[(het - low) // 2]
    return below[np.searchsorted(ascending, observed + _EQUAL, side="right") - 1] / below[-1]


# -- linkage disequilibrium ----------------------------------------------------------------


def prune(
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    *,
    r2: float = 0.2,
    window: int = 50,
    step: int = 5,
    window_kb: float | None = None,
) -> pd.Index:
    """Variants without pairs in linkage disequilibrium: those to keep.

    plink's ``--indep-pairwise``: in a window of variants, of every pair with squared
    correlation of dosages above `r2` the one with the rarer minor allele goes (of equal
    ones the later), in plink 1.9's order; then the window moves on. Chromosomes are
    separate; monomorphic variants go.

    Parameters
    ----------
    genotypes : Genotypes, path or array (n, m)
        Called genotypes; correlations use the samples that both variants have.
    r2 : float
        Largest squared correlation to keep.
    window : int
        Variants in a window.
    step : int
        Variants by which it moves.
    window_kb : float, optional
        Instead of `window`: kilobases, moved one variant at a time. Needs positions in order.

    Returns
    -------
    Index
        Ids of the variants kept, in order: for ``genotypes.select(variants=...)``.

    Raises
    ------
    InputError
        For limits without sense, variant ids that are not unique, or unordered positions with
        `window_kb`.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> chromosome = mice.genotypes.select(chrom=19)
    >>> len(bl.prune(chromosome)), chromosome.n_variants
    (29, 302)
    """
    genotypes = as_genotypes(genotypes)
    if not 0 < r2 < 1:
        raise InputError(f"r2 must be between 0 and 1, but is {r2:g}.")
    if window < 2 or not 1 <= step <= window:
        raise InputError(
            f"A window of {window} variants moved by {step}: need 1 <= step <= window."
        )
    ids = genotypes.variants.id
    if ids.duplicated().any():
        raise InputError(f"Variant ids come twice: {listing(ids[ids.duplicated()].unique())}.")
    keep = np.zeros(genotypes.n_variants, dtype=bool)
    chromosomes = genotypes.variants.chrom.to_numpy()
    for label in track(genotypes.chromosomes, "Pruning"):
        rows = np.flatnonzero(chromosomes == label)
        view = genotypes.select(variants=chromosomes == label)
        windows = (
            _windows(len(rows), window, step)
            if window_kb is None
            else _position_windows(view, label, window_kb)
        )
        width = max(stop - start for start, stop in windows)
        near, maf = _neighbours(view, width, r2)
        keep[rows] = _pruned(near, maf, windows)
    log.info("Pruning: %s of %s variants kept.", f"{int(keep.sum()):,}", f"{len(keep):,}")
    return pd.Index(ids[keep], name="id")


def _windows(m: int, window: int, step: int) -> list[tuple[int, int]]:
    out, start = [], 0
    while True:
        out.append((start, min(start + window, m)))
        if out[-1][1] == m:
            return out
        start += step


def _position_windows(view: Genotypes, label: str, window_kb: float) -> list[tuple[int, int]]:
    """Windows such that every pair at most so far apart shares one, each no part of another."""
    pos = view.variants.pos.to_numpy()
    if window_kb <= 0:
        raise InputError(f"window_kb must be above 0, but is {window_kb:g}.")
    if (pos <= 0).any() or (np.diff(pos) < 0).any():
        raise InputError(
            f"{view.name}: positions on chromosome {label} are unknown or not in order, which a "
            "window in kilobases needs. Leave such variants out, or use a window of variants."
        )
    ends = np.searchsorted(pos, pos + round(1000 * window_kb), side="right")
    starts = np.flatnonzero(np.diff(ends, prepend=0) > 0)
    return [(int(i), int(ends[i])) for i in starts]


def _neighbours(view: Genotypes, width: int, r2: float) -> tuple[list[int], np.ndarray]:
    """For each variant the later ones within the width and above r2, as bits; and the maf.

    Bit d of the variant i stands for the pair (i, i + d).
    """
    m = view.n_variants
    step = max(width, 256)
    # Of a product of b variants with b + width the part beyond the width is for nothing.
    part = max(64, width // 2)
    near: list[int] = [0] * m
    maf = np.zeros(m)
    starts = range(0, m, step)
    read = map_ahead(
        lambda start: (start, view.calls(start, min(start + step + width - 1, m))), starts
    )
    for start, calls in read:
        b = min(step, m - start)
        present = calls != MISSING
        complete = bool(present.all())
        h = (calls if complete else np.where(present, calls, 1)).astype(np.float32)
        h -= 1
        for first in range(0, b, part):
            rows = slice(first, min(first + part, b) + width - 1)
            k = min(part, b - first)
            high = _correlated(h[rows], None if complete else present[rows], k, r2)
            for i, row in enumerate(high):
                bits = np.packbits(row[i + 1 : i + width], bitorder="little").tobytes()
                near[start + first + i] = int.from_bytes(bits, "little") << 1
        seen = present[:b].sum(axis=1)
        eaf = (h[:b].sum(axis=1, dtype=np.float64) / np.maximum(seen, 1) + 1) / 2
        maf[start : start + b] = np.where(seen > 0, np.minimum(eaf, 1 - eaf), 0)
    return near, maf


def _correlated(h: np.ndarray, present: np.ndarray | None, b: int, r2: float) -> np.ndarray:
    """Which of the first b variants and all are above r2; sums are exact integers."""
    first, n = h[:b], h.shape[1]
    dot = (first @ h.T).astype(np.float64)
    if present is None:
        total = h.sum(axis=1, dtype=np.float64)
        square = np.einsum("ij,ij->i", h, h).astype(np.float64)
        variance = square * n - total * total
        covariance = dot * n - total[:b, None] * total
        limit = r2 * variance[:b, None] * variance
    else:
        there = present.astype(np.float32)
        q = np.abs(h)
        n_both = (there[:b] @ there.T).astype(np.float64)
        sum_i, sum_j = (first @ there.T).astype(float), (there[:b] @ h.T).astype(float)
        square_i, square_j = (q[:b] @ there.T).astype(float), (there[:b] @ q.T).astype(float)
        covariance = dot * n_both - sum_i * sum_j
        limit = r2 * (square_i * n_both - sum_i**2) * (square_j * n_both - sum_j**2)
    return covariance * covariance > limit


def _pruned(near: list[int], maf: np.ndarray, windows: list[tuple[int, int]]) -> np.ndarray:
    """Which variants stay, going through the windows as plink 1.9 does."""
    m = len(near)
    gone = [bool(share <= 0) for share in maf]
    major = (1 - maf).tolist()
    unchecked = list(range(1, m + 1))
    for start, stop in windows:
        changed = True
        while changed:
            changed = False
            for i in range(start, stop):
                if gone[i] or unchecked[i] >= stop:
                    continue
                skip = unchecked[i] - i
                later = near[i] >> skip << skip
                unchecked[i] = stop
                while later:
                    low = later & -later
                    later ^= low
                    j = i + low.bit_length() - 1
                    if j >= stop:
                        break
                    if gone[j]:
                        continue
                    changed = True
                    # Of equal frequencies (rounding aside) the later goes.
                    if major[i] > major[j] * (1 + 1e-10):
                        gone[i] = True
                    else:
                        gone[j] = True
                        unchecked[i] = j + 1
                    break
    return ~np.array(gone)
