"""KING-robust kinship of every pair of samples, degrees of relationship, unrelated subsets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes
from bayeslmm.inputs.sources import MISSING
from bayeslmm.runs.memory import available_memory, gigabytes, require_memory
from bayeslmm.runs.progress import log, map_ahead, track

DEGREES = ("duplicate/MZ", "parent-offspring", "full sibs", "2nd degree", "3rd degree", "unrelated")
# Lower limits of the kinship of duplicates, first, second and third degree: 2^-1.5 ... 2^-4.5.
LIMITS = tuple(2.0**-power for power in (1.5, 2.5, 3.5, 4.5))
# Two counts in one float32: both below this, so that their product with it is exact.
_PACK = 4096
_SPARSE = 0.03
_ROWS = 256
# Vertices of a component, and steps of its search, up to which the largest subset is exact.
_EXACT_VERTICES, _EXACT_STEPS = 400, 20_000


@dataclass(frozen=True, eq=False, repr=False)
class Relatives:
    """Pairs of samples with their kinship, closest first.

    Attributes
    ----------
    pairs : DataFrame
        id1, id2 (in the order of the samples), n_snps (variants that both have), het_het
        and ibs0 (shares of these at which both are heterozygous, or homozygous for
        different alleles), kinship (KING-robust) and degree (a category).
    samples : Index
        All samples, also those without relatives.
    min_kinship : float or None
        Pairs below it are not in the table; None if all are.
    ibs0_limit : float
        First-degree pairs with a share of IBS0 below it are parent and offspring.
    n_variants : int
        Autosomal variants used.
    """

    pairs: pd.DataFrame
    samples: pd.Index
    min_kinship: float | None
    ibs0_limit: float
    n_variants: int
    name: str = "genotypes"
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> pd.Series:
        """Number of pairs of each degree; "unrelated" counts those not in the table too."""
        counts = self.pairs["degree"].value_counts().reindex(list(DEGREES), fill_value=0)
        n = len(self.samples)
        counts["unrelated"] += n * (n - 1) // 2 - len(self.pairs)
        return counts.rename("pairs")

    def __repr__(self) -> str:
        n = len(self.samples)
        lines = [
            f"<Relatives among {n:,} samples of {self.name} ({n * (n - 1) // 2:,} pairs), "
            f"{self.n_variants:,} variants"
        ]
        lines += [f"  {degree:<17}{count:>12,}" for degree, count in self.counts.items()]
        if self.min_kinship is not None:
            lines.append(
                f"  in the table: {len(self.pairs):,}, kinship from {self.min_kinship:.4g}"
            )
        return "\n".join([*lines, ">"])

    def _repr_html_(self) -> str:
        shown = self.pairs.head(10).to_html(index=False, float_format="{:.4f}".format)
        more = len(self.pairs) - 10
        note = f"<p>and {more:,} more pairs</p>" if more > 0 else ""
        return f"<pre>{repr(self)[1:-2]}</pre>{shown}{note}"

    def unrelated(self, max_kinship: float = LIMITS[3]) -> pd.Index:
        """Ids of a largest subset without pairs closer than `max_kinship`; see `unrelated`."""
        return unrelated(self, max_kinship)

    def plot(self, **options: Any) -> Any:
        """Kinship against IBS0: `bayeslmm.plots.relatives`."""
        from bayeslmm import plots

        return plots.relatives(self, **options)


def relatives(
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    *,
    min_kinship: float | None = LIMITS[3],
    ibs0_limit: float | None = None,
    block_size: int | None = None,
    progress: bool | None = None,
) -> Relatives:
    r"""KING-robust kinship and IBS0 of all pairs of samples, and their degree.

    With the genotypes of a pair at the variants that both have,

    .. math:: \hat\phi = \frac12 - \frac{\sum_s (x_{is} - x_{js})^2}{4 \min(H_i, H_j)}

    where H counts heterozygous genotypes: the estimator between families of Manichaikul et al.
    (2010), equation 11, as plink2 ``--make-king-table`` computes it. It needs no allele
    frequencies, so that population structure does not bias it within a population; for
    pairs from different populations it is too low.

    A pair is called duplicate (or monozygotic twin) above 0.354, first degree above 0.177,
    second above 0.0884 and third above 0.0442 (KING's limits, 2 to the power of -1.5 ... -4.5).
    Parent and offspring share an allele everywhere, so IBS0 there is genotyping error only;
    of full sibs a quarter of the genome shares nothing. The limit between them is a quarter
    of what sibs expect: a sixteenth of the mean of 2 p^2 (1-p)^2.

    Parameters
    ----------
    genotypes : Genotypes, path or array (n, m)
        Called genotypes. Chromosomes X, Y and MT are left out. No pruning is needed.
    min_kinship : float, optional
        Keep pairs of at least this; by default third-degree relatives and closer. None keeps
        all n (n - 1) / 2 pairs.
    ibs0_limit : float, optional
        Share of IBS0 below which a first-degree pair is parent and offspring.
    block_size : int, optional
        Variants per block.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    Relatives

    Raises
    ------
    InputError
        For dosages that are no genotypes, fewer than two samples, samples without
        heterozygous genotypes, or too little memory.

    Notes
    -----
    One pass over the genotypes, two symmetric products of each block: with h = x - 1 and
    q = h^2, hh' and qq' give distances, IBS0 and shared heterozygotes. Missing genotypes add
    one product (sparse if they are few). Counts are exact. Samples are cut into tiles,
    each with a pass of its own, only where the matrices would not fit into half of the memory.

    References
    ----------
    Manichaikul A et al. (2010). Robust relationship inference in genome-wide association
    studies. Bioinformatics 26:2867. doi:10.1093/bioinformatics/btq559

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> haplotypes = rng.integers(0, 2, size=(4, 3000))
    >>> mother, father = haplotypes[:2].sum(0), haplotypes[2:].sum(0)
    >>> child = haplotypes[0] + haplotypes[2]
    >>> found = bl.relatives(np.array([mother, father, child]))
    >>> found.pairs[["id1", "id2", "degree"]]
      id1 id2            degree
    0   1   2  parent-offspring
    1   0   2  parent-offspring
    """
    genotypes = as_genotypes(genotypes)
    if genotypes.n_samples < 2:
        raise InputError(f"{genotypes.name}: a pair needs two samples; there is one.")
    if min_kinship is not None and not -10 <= min_kinship < 0.5:
        raise InputError(f"min_kinship must be below 0.5, but is {min_kinship:g}.")
    autosomes = genotypes.autosomal()
    left_out = genotypes.n_variants - autosomes.n_variants
    if left_out:
        log.info("Relatives: %s variants outside the autosomes left out.", f"{left_out:,}")
    n, m = autosomes.shape
    if min_kinship is None:
        require_memory(60.0 * n * (n - 1) / 2, f"The table of all pairs of {n:,} samples")
    kind = np.dtype(np.float32 if m < 2**24 else np.float64)
    tiles = _tiles(n, kind)
    found: list[pd.DataFrame] = []
    for a, first in enumerate(tiles):
        for second in tiles[a:]:
            counted = _count(autosomes, first, second, kind, block_size, progress)
            found += [part for part in _pairs(counted, min_kinship) if len(part)]
    limit = _ibs0_limit(autosomes) if ibs0_limit is None else ibs0_limit
    table = pd.concat(found, ignore_index=True) if found else _no_pairs()
    order = np.lexsort((table["j"], table["i"], -table["kinship"]))
    table = table.iloc[order].reset_index(drop=True)
    ids = autosomes.samples.index
    table.insert(0, "id1", ids[table.pop("i")])
    table.insert(1, "id2", ids[table.pop("j")])
    table["degree"] = degrees(table["kinship"].to_numpy(), table["ibs0"].to_numpy(), limit)
    info = {"n_not_autosomal": left_out}
    return Relatives(table, ids, min_kinship, limit, m, genotypes.name, info)


def degrees(kinship: np.ndarray, ibs0: np.ndarray, ibs0_limit: float) -> pd.Categorical:
    """Degree of relationship from kinship and the share of IBS0.

    Examples
    --------
    >>> import numpy as np
    >>> list(degrees(np.array([0.5, 0.25, 0.25, 0.06]), np.array([0, 0, 0.02, 0.05]), 0.01))
    ['duplicate/MZ', 'parent-offspring', 'full sibs', '3rd degree']
    """
    steps = np.searchsorted(-np.array(LIMITS), -np.asarray(kinship), side="left")
    code = np.array([0, 2, 3, 4, 5])[steps]
    code = np.where((code == 2) & (np.asarray(ibs0) < ibs0_limit), 1, code)
    return pd.Categorical.from_codes(code, list(DEGREES), ordered=True)


# -- counting ------------------------------------------------------------------------------


@dataclass(eq=False)
class _Counts:
    """Counts of the pairs of two sets of samples; the same set twice for a triangle."""

    first: np.ndarray  # positions of the samples
    second: np.ndarray
    m: int
    hh: np.ndarray  # sum of products of h = x - 1
    qq: np.ndarray  # variants at which both are homozygous
    het: tuple[np.ndarray, np.ndarray]  # heterozygous genotypes of each sample
    hom: tuple[np.ndarray, np.ndarray]
    # Heterozygous, and present, genotypes of the one at what the other lacks.
    het_lost: tuple[np.ndarray, np.ndarray] | None = None
    seen_lost: tuple[np.ndarray, np.ndarray] | None = None


def _tiles(n: int, kind: np.dtype) -> list[np.ndarray]:
    """Positions of the samples, in as few sets as memory asks for."""
    need = 6.0 * kind.itemsize * n * n
    available = available_memory() / 2
    parts = int(np.ceil(np.sqrt(need / available)))
    if need > 1e9:
        passes = f", {parts * (parts + 1) // 2} passes over the genotypes" if parts > 1 else ""
        log.info(
            "Relatives of %s samples: up to %s of memory%s.",
            f"{n:,}",
            gigabytes(need / parts**2),
            passes,
        )
    return np.array_split(np.arange(n), parts)


def _count(
    genotypes: Genotypes,
    first: np.ndarray,
    second: np.ndarray,
    kind: np.dtype,
    block_size: int | None,
    progress: bool | None,
) -> _Counts:
    from scipy.linalg.blas import dgemm, dsyrk, sgemm, ssyrk

    syrk, gemm = (ssyrk, sgemm) if kind == np.float32 else (dsyrk, dgemm)
    same = first is second
    whole = same and len(first) == genotypes.n_samples
    chosen = first if same else np.concatenate([first, second])
    view = genotypes if whole else genotypes._view(np.arange(genotypes.n_variants), chosen)
    left, right = slice(0, len(first)), slice(0 if same else len(first), len(chosen))
    spans = view.block_ranges(min(block_size or view.block_size(), _PACK - 1))
    shape = (len(first), len(second))
    hh, qq = (np.zeros(shape, dtype=kind, order="F") for _ in range(2))
    het, hom = np.zeros(len(chosen)), np.zeros(len(chosen))
    lost: list[list[np.ndarray]] | None = None

    def add(rows: np.ndarray, total: np.ndarray) -> np.ndarray:
        if same:
            return syrk(1.0, rows.T, beta=1.0, c=total, overwrite_c=True)
        a, b = rows[:, left], rows[:, right]
        return gemm(1.0, a.T, b.T, trans_b=True, beta=1.0, c=total, overwrite_c=True)

    prepared = map_ahead(lambda span: _coded(view.calls(*span), kind), spans)
    for h, q, absent in track(prepared, "Relatives", total=len(spans), show=progress):
        hh, qq = add(h, hh), add(q, qq)
        present = np.full(len(chosen), float(len(h)))
        if absent is not None:
            if lost is None:
                lost = [[np.zeros(shape, dtype=kind) for _ in range(2)] for _ in range(2)]
            present -= absent.sum(axis=0)
            _add_lost(lost, q, absent, left, right, same=same)
        homozygous = q.sum(axis=0, dtype=np.float64)
        hom += homozygous
        het += present - homozygous
    counts = _Counts(
        first,
        second,
        genotypes.n_variants,
        hh,
        qq,
        (het[left], het[right]),
        (hom[left], hom[right]),
    )
    if lost is not None:
        counts.het_lost = (lost[0][0], lost[1][0])
        counts.seen_lost = (lost[0][1], lost[1][1])
    return counts


def _coded(calls: np.ndarray, kind: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """h = x - 1 and q = h^2, 0 where missing, and what is missing (None if nothing is)."""
    absent = calls == MISSING
    h = np.subtract(calls, np.int8(1), dtype=np.int8)
    some = bool(absent.any())
    if some:
        h[absent] = 0
    signed = h.astype(kind)
    return signed, np.abs(signed), absent if some else None


def _add_lost(
    lost: list[list[np.ndarray]],
    q: np.ndarray,
    absent: np.ndarray,
    left: slice,
    right: slice,
    *,
    same: bool,
) -> None:
    """Add what each sample has where the other of the pair has nothing.

    Heterozygous and present genotypes are counted in one product, packed into one number.
    """
    from scipy.sparse import csr_array

    present = (~absent).astype(q.dtype)
    packed = present * (_PACK + 1) - q  # heterozygous + _PACK x present
    few = np.count_nonzero(absent) < _SPARSE * absent.size
    # lost[0]: what the first has and the second lacks; lost[1]: the reverse.
    for out, has, lacks in ((lost[0], left, right), (lost[1], right, left)):
        missing = absent[:, lacks].T
        if few:
            by_lacking = csr_array(missing.astype(q.dtype)) @ packed[:, has]
        else:
            by_lacking = missing.astype(q.dtype) @ packed[:, has]
        table = by_lacking.T if out is lost[0] else by_lacking
        seen = np.floor(table / _PACK)
        out[1] += seen
        out[0] += table - _PACK * seen
        if same:
            lost[1][0], lost[1][1] = lost[0][0].T, lost[0][1].T
            return


def _pairs(counts: _Counts, min_kinship: float | None) -> Iterator[pd.DataFrame]:
    """Tables of the pairs, some rows of the matrices at a time."""
    same = counts.first is counts.second
    for start in range(0, len(counts.first), _ROWS):
        rows = slice(start, min(start + _ROWS, len(counts.first)))
        yield _pairs_of(counts, rows, min_kinship, same=same)


def _pairs_of(
    counts: _Counts, rows: slice, min_kinship: float | None, *, same: bool
) -> pd.DataFrame:
    # Of a triangle, columns before the rows' first hold nothing.
    columns = slice(rows.start if same else 0, None)
    het_i, het_j = counts.het[0][rows, None], counts.het[1][None, columns]
    hom_i, hom_j = counts.hom[0][rows, None], counts.hom[1][None, columns]
    n_snps = np.full((rows.stop - rows.start, het_j.shape[1]), float(counts.m))
    if counts.het_lost is not None and counts.seen_lost is not None:
        lost_het = [part[rows, columns] for part in counts.het_lost]
        lost_seen = [part[rows, columns] for part in counts.seen_lost]
        n_snps = het_i + hom_i - lost_seen[0]
        hom_i = hom_i - (lost_seen[0] - lost_het[0])
        hom_j = hom_j - (lost_seen[1] - lost_het[1])
        het_i, het_j = het_i - lost_het[0], het_j - lost_het[1]
    hh = counts.hh[rows, columns].astype(np.float64)
    qq = counts.qq[rows, columns].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        kinship = 0.5 - (hom_i + hom_j - 2 * hh) / (4 * np.minimum(het_i, het_j))
    inside = np.ones(kinship.shape, dtype=bool)
    if same:
        inside = np.triu(inside, 1)
    undefined = inside & ~np.isfinite(kinship)
    if undefined.any():
        i, _ = np.argwhere(undefined)[0]
        raise InputError(
            "KING-robust kinship is not defined for samples without heterozygous genotypes (such "
            f"as number {int(counts.first[rows.start + i]) + 1:,} or a partner). Leave out inbred "
            "lines and samples without genotypes; bl.sample_qc lists heterozygosity."
        )
    if min_kinship is not None:
        inside &= kinship >= min_kinship
    i, j = np.nonzero(inside)
    n_both = n_snps[i, j]
    return pd.DataFrame(
        {
            "i": counts.first[rows.start + i],
            "j": counts.second[(columns.start or 0) + j],
            "n_snps": np.rint(n_both).astype(np.int64),
            "het_het": (n_snps - hom_i - hom_j + qq)[i, j] / n_both,
            "ibs0": (qq - hh)[i, j] / 2 / n_both,
            "kinship": kinship[i, j],
        }
    )


def _no_pairs() -> pd.DataFrame:
    columns = {"i": int, "j": int, "n_snps": int, "het_het": float, "ibs0": float, "kinship": float}
    return pd.DataFrame({name: np.empty(0, dtype=kind) for name, kind in columns.items()})


def _ibs0_limit(genotypes: Genotypes) -> float:
    """A quarter of the share of IBS0 that full sibs expect, from allele frequencies."""
    p = genotypes.qc()["eaf"].to_numpy()
    return float(np.nanmean(2 * (p * (1 - p)) ** 2) / 16)


# -- unrelated -----------------------------------------------------------------------------


def unrelated(
    source: Relatives | Genotypes | str | os.PathLike[str] | np.ndarray,
    max_kinship: float = LIMITS[3],
) -> pd.Index:
    """A largest subset of samples without pairs of kinship above `max_kinship`.

    Each group of relatives that hang together is solved on its own: exactly, by branch
    and bound, where that is quick (groups of up to 400, and few enough choices: families
    nearly always), otherwise by leaving out the sample with the most relatives until none
    are left and then exchanging one sample for two as long as that helps. What cannot be
    shown to be largest is said. The result depends on nothing but the table.

    Parameters
    ----------
    source : Relatives, or genotypes
        What `relatives` returns, or what it takes.
    max_kinship : float
        Largest kinship within the subset; 0.0442 leaves no third-degree relatives, 0.0884
        no second-degree, 0.177 no first-degree ones.

    Returns
    -------
    Index
        Sample ids, in the samples' order.

    Raises
    ------
    InputError
        If the table holds only closer pairs than `max_kinship`.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> few = mice.genotypes.select(samples=mice.genotypes.samples.index[:100])
    >>> len(bl.unrelated(few, max_kinship=0.177))
    47
    """
    if not isinstance(source, Relatives):
        source = relatives(source, min_kinship=max_kinship)
    if source.min_kinship is not None and max_kinship < source.min_kinship:
        raise InputError(
            f"max_kinship is {max_kinship:g}, but the table has pairs above "
            f"{source.min_kinship:.4g} only. Make it with a smaller min_kinship."
        )
    close = source.pairs[source.pairs["kinship"] > max_kinship]
    i = source.samples.get_indexer(close["id1"])
    j = source.samples.get_indexer(close["id2"])
    keep, proven = independent_set(len(source.samples), i, j)
    if not proven:
        log.info(
            "Unrelated: %s of %s samples; a larger subset cannot be ruled out (a group of "
            "relatives is too large for an exact search).",
            f"{int(keep.sum()):,}",
            f"{len(keep):,}",
        )
    return source.samples[keep]


def independent_set(n: int, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, bool]:
    """A largest set of vertices 0 .. n-1 without edges (i, j), and whether that is proven.

    Examples
    --------
    >>> import numpy as np
    >>> independent_set(4, np.array([0, 0, 0]), np.array([1, 2, 3]))
    (array([False,  True,  True,  True]), True)
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    keep = np.ones(n, dtype=bool)
    if not len(i):
        return keep, True
    graph = coo_array((np.ones(len(i), dtype=np.int8), (i, j)), shape=(n, n)).tocsr()
    graph = (graph + graph.T).tocsr()
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    proven = True
    for members in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        if len(members) == 1:
            continue
        part = graph[members][:, members].tocsr()
        near = [
            sum(1 << int(v) for v in part.indices[part.indptr[u] : part.indptr[u + 1]])
            for u in range(len(members))
        ]
        chosen, exact = _largest(near)
        proven &= exact
        keep[members] = [bool(chosen >> v & 1) for v in range(len(members))]
    return keep, proven


def _largest(near: list[int]) -> tuple[int, bool]:
    """The largest independent set of a connected graph, as bits, and whether that is proven."""
    start = _improved(_greedy(near), near)
    if len(near) > _EXACT_VERTICES:
        return start, False
    best, budget = start, _EXACT_STEPS
    stack = [((1 << len(near)) - 1, 0)]
    while stack:
        left, chosen = stack.pop()
        left, chosen = _simplify(left, chosen, near)
        if not left:
            if chosen.bit_count() > best.bit_count():
                best = chosen
            continue
        if chosen.bit_count() + _at_most(left, near) <= best.bit_count():
            continue
        budget -= 1
        if budget < 0:
            return best, False
        v = max(_bits(left), key=lambda u: (near[u] & left).bit_count())
        stack.append((left & ~(1 << v), chosen))
        stack.append((left & ~(near[v] | 1 << v), chosen | 1 << v))
    return best, True


def _simplify(left: int, chosen: int, near: list[int]) -> tuple[int, int]:
    """Take every vertex whose neighbours are all adjacent to each other: that costs nothing."""
    again = True
    while again:
        again = False
        for v in _bits(left):
            if not left >> v & 1:
                continue
            around = near[v] & left
            closed = around | 1 << v
            if all(closed & ~(near[u] | 1 << u) == 0 for u in _bits(around)):
                chosen |= 1 << v
                left &= ~closed
                again = True
    return left, chosen


def _at_most(left: int, near: list[int]) -> int:
    """Cliques that cover what is left: no independent set has more vertices."""
    cliques = 0
    while left:
        v = (left & -left).bit_length() - 1
        left &= ~(1 << v)
        candidates = near[v] & left
        while candidates:
            u = (candidates & -candidates).bit_length() - 1
            left &= ~(1 << u)
            candidates &= near[u] & left
        cliques += 1
    return cliques


def _greedy(near: list[int]) -> int:
    """Leave out the vertex with most neighbours (of several the last) until no edge is left."""
    left = (1 << len(near)) - 1
    degree = np.array([mask.bit_count() for mask in near])
    while True:
        top = int(degree.max())
        if top <= 0:
            return left
        v = len(degree) - 1 - int(np.argmax(degree[::-1]))
        left &= ~(1 << v)
        degree[v] = -1
        for u in _bits(near[v] & left):
            degree[u] -= 1


def _improved(chosen: int, near: list[int]) -> int:
    """Exchange one vertex for two that it alone keeps out, while there are such."""
    everything = (1 << len(near)) - 1
    again = True
    while again:
        again = False
        for v in _bits(chosen):
            rest = chosen & ~(1 << v)
            freed = [u for u in _bits(near[v] & everything & ~chosen) if not near[u] & rest]
            pair = next(
                ((a, b) for a in freed for b in freed if a < b and not near[a] >> b & 1), None
            )
            if pair:
                chosen = rest | 1 << pair[0] | 1 << pair[1]
                again = True
                break
    return chosen


def _bits(mask: int) -> list[int]:
    """Positions of the bits that are set, ascending."""
    out = []
    while mask:
        low = mask & -mask
        out.append(low.bit_length() - 1)
        mask ^= low
    return out
