r"""Which of all pairs may be related: a few thousand variants, everybody with everybody.

The relatedness of a pair from m independent variants has a standard error of
:math:`\sqrt{(1 + \rho^2) / m}`, so that close relatives stand out from a few thousand. All pairs
cost :math:`n^2 m / 2` multiplications in tiles that stay small; whoever passes is looked at again,
with all variants. The limit is where ten unrelated pairs a person are expected to pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.runs.memory import require_memory
from bayeslmm.runs.progress import log, track

# People on a side of a tile.
_TILE = 2048
# Unrelated pairs a person that may pass.
_PASSING = 10
_COMMON = 0.05
# Relatedness of first, second and third degree, whose chance to be missed is told.
_DEGREES = (0.5, 0.25, 0.125)


def screened_pairs(
    genotypes: Genotypes, n_variants: int, *, progress: bool | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Pairs that may be related, i < j, by common variants spread over the genome.

    Parameters
    ----------
    genotypes : Genotypes
    n_variants : int
        How many variants are to be taken.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    i, j : ndarray of int
        Positions of the samples.
    dict
        n_variants, the limit, the number of pairs that passed, and the chance that a pair of a
        given relatedness does not, if variants are independent.

    Raises
    ------
    InputError
        If too few variants are common to tell anybody of the second degree, or memory lacks.

    References
    ----------
    Thompson EA (1975). The estimation of pairwise relationships. Ann Hum Genet 39:173.
    """
    from scipy.special import ndtr, ndtri

    n = genotypes.n_samples
    require_memory(1.0 * n * n_variants, f"{n_variants:,} variants of {n:,} samples")
    values, mean, scale = _common(genotypes, n_variants)
    m = values.shape[1]
    passing = min(0.1, 2 * _PASSING / max(n - 1, 1))
    limit = float(-ndtri(passing)) / np.sqrt(m)
    missed = {
        f"{rho:g}": float(ndtr((limit - rho) / np.sqrt((1 + rho**2) / m))) for rho in _DEGREES
    }
    if missed["0.25"] > 0.01:
        raise InputError(
            f"{genotypes.name}: {m:,} common variants are too few to find relatives of the second "
            f"degree among {n:,} samples ({100 * missed['0.25']:.0f}% would be missed). Give more "
            "(screen=), a table of pairs, or family ids."
        )

    def standardised(start: int) -> np.ndarray:
        part = values[start : start + _TILE]
        z = (part - mean) * scale
        z[part < 0] = 0
        return z

    starts = range(0, n, _TILE)
    rows, columns = [], []
    tiles = [(a, b) for a in starts for b in starts if b >= a]
    last, z = -1, np.empty(0)
    for a, b in track(tiles, "Screening pairs", show=progress):
        if a != last:
            last, z = a, standardised(a)
        product = z @ (z if a == b else standardised(b)).T
        i, j = np.nonzero(product > limit)
        if a == b:
            i, j = i[i < j], j[i < j]
        rows.append(a + i)
        columns.append(b + j)
    found = np.concatenate(rows), np.concatenate(columns)
    order = np.lexsort(found[::-1])
    about = {"n_variants": m, "limit": limit, "n_passed": len(order), "missed": missed}
    log.info(
        "Screening: %s of %s pairs passed %.3f with %s variants; of the second degree %.2g%%, of "
        "the third %.2g%% are expected to be missed.",
        f"{len(order):,}",
        f"{n * (n - 1) // 2:,}",
        limit,
        f"{m:,}",
        100 * missed["0.25"],
        100 * missed["0.125"],
    )
    return found[0][order], found[1][order], about


def _common(genotypes: Genotypes, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Common variants' dosages (n, m), `int8`, their means, and 1 / (sd sqrt(m))."""
    spread = np.unique(np.linspace(0, genotypes.n_variants - 1, 2 * wanted).round().astype(int))
    parts: list[np.ndarray] = []
    eaf: list[np.ndarray] = []
    left, step = wanted, 256
    # Every second first, and those between them where too few are common.
    for chosen in (spread[::2], spread[1::2]):
        for start in range(0, len(chosen), step):
            if left == 0:
                break
            keep = np.zeros(genotypes.n_variants, dtype=bool)
            keep[chosen[start : start + step]] = True
            some = genotypes.select(variants=keep)
            calls = some.calls(0, some.n_variants)
            there = calls >= 0
            with np.errstate(invalid="ignore"):
                p = np.where(there, calls, 0).sum(axis=1) / (2 * there.sum(axis=1))
            common = np.flatnonzero(np.minimum(p, 1 - p) >= _COMMON)[:left]
            parts.append(calls[common].T)
            eaf.append(p[common])
            left -= len(common)
    p = np.concatenate(eaf)
    if not len(p):
        raise InputError(f"{genotypes.name}: no variant has a minor-allele frequency of 5%.")
    scale = 1 / np.sqrt(2 * p * (1 - p) * len(p))
    return np.hstack(parts), (2 * p).astype(np.float32), scale.astype(np.float32)
