r"""Annotations of variants, and a relatedness matrix for each in one pass over the genotypes.

With a_jk = 1 if variant j has annotation k, m_k = sum_j a_jk and Z standardised as for `grm`,

    K_k = sum_j a_jk z_j z_j' / m_k.

Annotations may overlap: a variant then has an effect from each of its own, with variance
sum_k a_jk s2_k / m_k (the additive model of stratified LD-score regression, Finucane et al. 2015,
Nat Genet 47:1228).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import CenteredBlock, Genotypes, as_genotypes
from bayeslmm.relatedness.dense import GRM
from bayeslmm.relatedness.scales import SCALES, Scale, standardize
from bayeslmm.relatedness.triangle import outer, symmetric
from bayeslmm.runs.files import existing
from bayeslmm.runs.memory import require_memory
from bayeslmm.runs.progress import log, map_ahead, track

REST = "rest"
_REGION = re.compile(r"[^:]+:[\d,]+-[\d,]+$")


class Partition(Mapping[str, GRM]):
    """Relatedness matrices by annotation, as `partition_grms` makes them.

    A mapping, so that ``bl.LMM(formula, data, kernels=partition)`` takes it.

    Attributes
    ----------
    annotations : DataFrame, shape (m, K)
        Which of the variants used (rows, by id) has which annotation.
    left_out : int
        Variants without annotation.
    """

    def __init__(self, grms: dict[str, GRM], annotations: pd.DataFrame, left_out: int) -> None:
        self._grms = grms
        self.annotations = annotations
        self.left_out = left_out

    def __getitem__(self, name: str) -> GRM:
        return self._grms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._grms)

    def __len__(self) -> int:
        return len(self._grms)

    @property
    def overlap(self) -> pd.DataFrame:
        """Variants that two annotations share, shape (K, K); the diagonal has their sizes."""
        a = self.annotations.to_numpy(dtype=np.int64)
        return pd.DataFrame(a.T @ a, self.annotations.columns, self.annotations.columns)

    def __repr__(self) -> str:
        sizes = np.diagonal(self.overlap)
        several = int((self.annotations.sum(axis=1) > 1).sum())
        lines = [f"<Partition of {len(self.annotations):,} variants"]
        lines += [f"  {name}: {size:,} variants" for name, size in zip(self, sizes, strict=True)]
        if several:
            lines.append(f"  {several:,} variants have several annotations")
        if self.left_out:
            lines.append(f"  {self.left_out:,} variants without annotation are in none")
        return "\n".join([*lines, ">"])


def partition_grms(
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    by: Any,
    *,
    rest: str | None = REST,
    scale: Scale = "standardized",
    dtype: Literal["float32", "float64"] = "float32",
    block_size: int | None = None,
    progress: bool | None = None,
) -> Partition:
    """A relatedness matrix for every annotation, in one pass over the genotypes.

    Parameters
    ----------
    genotypes : Genotypes, path or array (n, m)
        Where the dosages come from.
    by : str, path, Series, DataFrame or mapping
        What the variants are grouped by:

        - a column of ``genotypes.variants``, such as ``"chrom"``, or a Series of labels by
          variant id, or with the index of that table: a matrix for each label. `maf_bins` and
          `ld_bins` make such Series;
        - a DataFrame of booleans by variant id: a matrix for each column, which may overlap;
        - a mapping from names to variant ids, to booleans (m,), or to regions such as
          ``"17:30000000-38000000"`` (what is the id of a variant is none);
        - a path to a .bed file of regions (UCSC's, not PLINK's): see `read_regions`.
    rest : str or None
        Name of the matrix of the variants without annotation; None leaves them out.
    scale, dtype, block_size, progress
        As for `bayeslmm.grm`.

    Returns
    -------
    Partition
        A mapping from annotations to `GRM`. Monomorphic variants are in none.

    Raises
    ------
    InputError
        For annotations of unknown variants, without variants, or all of them in one group.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> x = np.random.default_rng(1).integers(0, 3, size=(20, 6))
    >>> bl.partition_grms(x, {"coding": ["snp1", "snp2"]})
    <Partition of 6 variants
      coding: 2 variants
      rest: 4 variants
    >
    """
    if scale not in SCALES:
        raise InputError(f"scale='{scale}' is unknown; expected one of {listing(SCALES)}.")
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype='{dtype}' is unknown; expected 'float32' or 'float64'.")
    genotypes = as_genotypes(genotypes)
    table = annotate(genotypes, by)
    without = ~table.to_numpy().any(axis=1)
    if rest is not None and without.any():
        if rest in table:
            raise InputError(f"'{rest}' is an annotation already: name the rest otherwise (rest=).")
        table[rest] = without
    if table.shape[1] == 1 and table.iloc[:, 0].all():
        raise InputError(
            f"All variants have the annotation '{table.columns[0]}': that is no partition."
        )
    member = table.to_numpy()
    if rest is None and without.any():
        genotypes = genotypes.select(variants=~without)
        member = member[~without]
    n, K, kind = genotypes.n_samples, member.shape[1], np.dtype(dtype)
    require_memory(
        n * n * (8.0 * K + 2 * kind.itemsize), f"{K} relatedness matrices of {n:,} samples"
    )
    totals = [np.zeros((n, n), order="F") for _ in range(K)]
    used = np.zeros(genotypes.n_variants, dtype=bool)

    def prepare(span: tuple[int, int]) -> CenteredBlock:
        block = genotypes.centered_block(*span, dtype=kind)
        used[block.start : block.stop] = standardize(block, scale, genotypes.name)
        return block

    spans = genotypes.block_ranges(block_size)
    for block in track(map_ahead(prepare, spans), "GRMs", total=len(spans), show=progress):
        here = member[block.start : block.stop] & used[block.start : block.stop, None]
        for k in np.flatnonzero(here.any(axis=0)).tolist():
            rows = here[:, k]
            totals[k] += outer(block.x if rows.all() else block.x[rows])
    member = member & used[:, None]
    counts = member.sum(axis=0)
    if not counts.all():
        names = [name for name, count in zip(table.columns, counts, strict=True) if not count]
        raise InputError(
            f"All variants of {listing(names)} are monomorphic or missing among {n:,} samples."
        )
    dropped = int((~used).sum())
    if dropped:
        log.info(
            "GRMs: %s monomorphic variants left out, %s used.", f"{dropped:,}", f"{used.sum():,}"
        )
    grms = {}
    for k, name in enumerate(list(table.columns)):
        matrix = symmetric(totals[k])
        matrix /= counts[k]
        grms[str(name)] = GRM(
            matrix,
            genotypes.samples.index,
            int(counts[k]),
            scale,
            labelled=genotypes.labelled,
            info={"genotypes": genotypes.name, "annotation": str(name), "dtype": dtype},
            genotypes=genotypes.select(variants=member[:, k]),
        )
    ids = pd.Index(genotypes.variants.id[used], name="id")
    kept = pd.DataFrame(member[used], index=ids, columns=table.columns)
    return Partition(grms, kept, int(without.sum()) if rest is None else 0)


def annotate(genotypes: Genotypes, by: Any) -> pd.DataFrame:
    """Which variant has which annotation, booleans (m, K): see `partition_grms`."""
    variants = genotypes.variants
    if isinstance(by, str | os.PathLike) and not (isinstance(by, str) and by in variants):
        if Path(by).suffix not in (".bed", ".gz"):
            raise InputError(
                f"by='{by}' is neither a column of the variants ({listing(variants.columns, 20)}) "
                "nor a .bed file of regions."
            )
        table = read_regions(by, genotypes)
    elif isinstance(by, str):
        table = _dummies(variants[by].astype(str).set_axis(variants.id))
    elif isinstance(by, pd.Series):
        table = _dummies(_by_id(by.to_frame("label"), genotypes)["label"])
    elif isinstance(by, pd.DataFrame):
        table = _by_id(by, genotypes)
        wrong = [c for c in table if not table[c].isin([0, 1]).all()]
        if wrong:
            raise InputError(
                f"Annotation {listing(wrong)} is not of booleans (0, 1). For labels give a Series."
            )
        table = table.astype(bool)
    elif isinstance(by, Mapping):
        table = pd.DataFrame(
            {str(name): _members(genotypes, str(name), who) for name, who in by.items()},
            index=variants.id,
        )
    else:
        raise InputError(
            f"by={type(by).__name__} is no annotation: expected a column's name, a Series, a "
            "DataFrame, a mapping, or a .bed file of regions."
        )
    empty = [name for name in table if not table[name].any()]
    if empty or not table.shape[1]:
        raise InputError(f"No variant of {genotypes.name} has the annotation {listing(empty)}.")
    return table.set_axis(table.columns.astype(str), axis=1)


def _dummies(labels: pd.Series) -> pd.DataFrame:
    """Booleans for each label, in order of first appearance, or of its categories."""
    names = (
        [c for c in labels.cat.categories if (labels == c).any()]
        if isinstance(labels.dtype, pd.CategoricalDtype)
        else list(labels.dropna().unique())
    )
    return pd.DataFrame({str(name): (labels == name).fillna(False).astype(bool) for name in names})


def _by_id(table: pd.DataFrame, genotypes: Genotypes) -> pd.DataFrame:
    """Rows of a table by variant id, in the order of the variants; absent ones are NaN labels.

    What was made of columns of `genotypes.variants` has their index, and is taken by row.
    """
    ids = genotypes.variants.id
    index = table.index.astype(str)
    if index.has_duplicates:
        raise InputError(
            f"The annotation names variants twice: {listing(index[index.duplicated()].unique())}."
        )
    found = ids.isin(index)
    if not found.any() and table.index.equals(genotypes.variants.index):
        return table.set_axis(ids, axis=0)
    if not found.all():
        raise InputError(
            f"The annotation lacks {int((~found).sum()):,} of {len(ids):,} variants of "
            f"{genotypes.name}: {listing(ids[~found])}. Give the label NA to those without one."
        )
    return table.set_axis(index, axis=0).loc[ids]


def _members(genotypes: Genotypes, name: str, who: Any) -> np.ndarray:
    """Which variants one entry of a mapping means."""
    if isinstance(who, str):
        who = [who]
    values = list(who) if not isinstance(who, np.ndarray | pd.Series) else who
    texts = [v for v in values if isinstance(v, str)]
    if len(texts) == len(values) and all(_REGION.match(v) for v in texts):
        mask = genotypes.variants.id.isin(texts).to_numpy()
        for region in (v for v in texts if not (genotypes.variants.id == v).any()):
            mask = mask | genotypes.in_region(region)
        return mask
    try:
        return genotypes._variant_mask(values)
    except InputError as error:
        raise InputError(f"Annotation '{name}': {error}") from error


def read_regions(path: str | os.PathLike[str], genotypes: Genotypes) -> pd.DataFrame:
    """Which variants lie in the regions of a .bed file, booleans (m, K).

    Parameters
    ----------
    path : path-like
        Text with the columns chromosome, start, end (base pairs; the start counted from 0 and
        the end not included, as UCSC has it) and optionally a name, separated by tabs or
        blanks; lines that begin with #, "track" or "browser" are skipped. Gzipped if the name
        ends in .gz. Each name is an annotation; without names the file's own is the only one.
    genotypes : Genotypes
        Its variants; those of unknown position lie in no region. "chr7" and "7" are the same.

    Raises
    ------
    InputError
        For lines that are no regions (with their number), and chromosomes of which the
        genotypes have none at all.
    """
    import gzip

    path = existing(path)
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text file of regions ({error}).") from error
    chrom = genotypes.variants.chrom.str.removeprefix("chr").to_numpy()
    pos = genotypes.variants.pos.to_numpy()
    own_name = path.name.removesuffix(".gz").removesuffix(".bed")
    members: dict[str, np.ndarray] = {}
    known = set(chrom)
    seen = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(("#", "track", "browser")):
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        try:
            label, start, end = fields[0].removeprefix("chr"), int(fields[1]), int(fields[2])
            if start < 0 or end <= start:
                raise ValueError
        except (ValueError, IndexError):
            raise InputError(
                f"{path}, line {number:,}: '{line[:60]}' is no region; expected chromosome, start "
                "and end in base pairs, start before end."
            ) from None
        seen.add(label)
        name = fields[3].strip() if len(fields) > 3 and fields[3].strip() else own_name
        mask = members.setdefault(name, np.zeros(len(pos), dtype=bool))
        mask |= (chrom == label) & (pos > start) & (pos <= end)
    if not members:
        raise InputError(f"{path}: no regions.")
    if not seen & known:
        raise InputError(
            f"{path}: its chromosomes ({listing(sorted(seen))}) are not those of "
            f"{genotypes.name} ({listing(genotypes.chromosomes)})."
        )
    return pd.DataFrame(members, index=pd.Index(genotypes.variants.id))


# -- bins ------------------------------------------------------------------------------------------


def maf_bins(
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    edges: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.4),
) -> pd.Series:
    """Labels of variants by the frequency of their minor allele.

    Parameters
    ----------
    genotypes : Genotypes, path or array (n, m)
        Frequencies are among its samples.
    edges : sequence of float
        Ascending, between 0 and 0.5: an interval ends at each, included in the next.

    Returns
    -------
    Series
        Categories such as "maf 0.05-0.1", by variant id; NA where all genotypes are missing.
        Bins without variants are left out by `partition_grms`.

    Examples
    --------
    >>> import numpy as np
    >>> maf_bins(np.array([[0, 1], [0, 1], [0, 2], [1, 0]]), [0.2]).to_list()
    ['maf 0-0.2', 'maf 0.2-0.5']
    """
    genotypes = as_genotypes(genotypes)
    cuts = np.asarray(edges, dtype=float)
    if len(cuts) == 0 or (np.diff(cuts) <= 0).any() or cuts[0] <= 0 or cuts[-1] >= 0.5:
        raise InputError(f"edges must ascend between 0 and 0.5, but are {list(edges)}.")
    maf = genotypes.qc()["maf"].to_numpy()
    return _binned(maf, np.array([0.0, *cuts, 0.5]), "maf", genotypes)


def ld_scores(
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray, *, window: int = 200
) -> pd.Series:
    r"""LD score of every variant: the sum of r^2 with its neighbours and itself.

    r^2 is corrected for its bias, r^2 - (1 - r^2) / (n - 2) (Bulik-Sullivan et al. 2015, Nat
    Genet 47:291).

    Parameters
    ----------
    genotypes : Genotypes, path or array (n, m)
        Among its samples; relatives raise LD scores.
    window : int
        Neighbours on each side, of the same chromosome, in the order of the variants.

    Returns
    -------
    Series
        By variant id; NaN for monomorphic variants.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([0, 1, 2, 1, 0, 2])
    >>> ld_scores(np.column_stack([x, x])).to_list()
    [2.0, 2.0]
    """
    genotypes = as_genotypes(genotypes)
    if window < 1:
        raise InputError(f"window must be at least 1, but is {window}.")
    n, scores = genotypes.n_samples, np.full(genotypes.n_variants, np.nan)
    if n < 4:
        raise InputError(f"LD scores need at least 4 samples, not {n}.")
    chrom = genotypes.variants.chrom.to_numpy()
    jobs = []
    for label in genotypes.chromosomes:
        rows = np.flatnonzero(chrom == label)
        view = genotypes.select(chrom=label)
        size = max(window, min(view.block_size(), 1024))
        jobs += [(rows, view, i, min(i + size, len(rows))) for i in range(0, len(rows), size)]
    for rows, view, start, stop in track(jobs, "LD scores"):
        low, high = max(start - window, 0), min(stop + window, len(rows))
        block = view.centered_block(low, high)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = block.x / np.sqrt(block.sum_sq)[:, None].astype(np.float32)
        alive = block.sum_sq > 0
        z[~alive] = 0
        r2 = np.square(z[start - low : stop - low] @ z.T, dtype=np.float64)
        here, there = np.arange(start, stop)[:, None], np.arange(low, high)
        near = (np.abs(here - there) <= window) & alive & (here != there)
        corrected = np.where(near, r2 - (1 - r2) / (n - 2), 0.0).sum(axis=1) + 1
        scores[rows[start:stop]] = np.where(alive[start - low : stop - low], corrected, np.nan)
    return pd.Series(scores, index=pd.Index(genotypes.variants.id), name="ld_score")


def ld_bins(
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    bins: int = 4,
    *,
    window: int = 200,
) -> pd.Series:
    """Labels of variants by quantiles of their LD score: as many in each of `bins` groups.

    Returns
    -------
    Series
        Categories such as "ld 12.3-80.1", by variant id; NA for monomorphic variants. Combine it
        with `maf_bins` for GREML-LDMS (Yang et al. 2015, Nat Genet 47:1114): ``maf + " " + ld``
        of both as text.
    """
    genotypes = as_genotypes(genotypes)
    if bins < 2:
        raise InputError(f"At least 2 bins are needed, but bins={bins}.")
    scores = ld_scores(genotypes, window=window).to_numpy()
    edges = np.unique(np.nanquantile(scores, np.linspace(0, 1, bins + 1)))
    if len(edges) < 3:
        raise InputError(f"The LD scores of {genotypes.name} do not differ: no bins.")
    return _binned(scores, edges, "ld", genotypes)


def _binned(values: np.ndarray, edges: np.ndarray, what: str, genotypes: Genotypes) -> pd.Series:
    at = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    names = [f"{what} {low:.3g}-{high:.3g}" for low, high in pairwise(edges)]
    codes = np.where(np.isnan(values), -1, at)
    labels = pd.Categorical.from_codes(codes, categories=names, ordered=True)
    return pd.Series(labels, index=pd.Index(genotypes.variants.id), name=what)
