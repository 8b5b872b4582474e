"""P-values of a scan and their inflation, places on the genome, significant clusters: loci."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing

# -log10 of the smallest number above 0: what a p-value of 0 at least is.
_UNDERFLOW = 324.0


def require_columns(hits: pd.DataFrame, columns: list[str]) -> None:
    """Raise an `InputError` that names the columns which a table of a scan lacks."""
    absent = [column for column in columns if column not in hits]
    if absent:
        raise InputError(
            f"The table has no column {listing(absent)}; it should be what bl.scan returns. "
            f"It has {listing(hits.columns, limit=20)}."
        )


def neg_log10_p(hits: pd.DataFrame, p: str | None = None) -> np.ndarray:
    """-log10 p of every variant, shape (m,), NaN where there is no test.

    Parameters
    ----------
    hits : DataFrame
        What `bayeslmm.scan` returns.
    p : str, optional
        Column with p-values. By default neg_log10_p, that of the scan's first test,
        which is right also where p underflows; a p of 0 in a column counts as 1e-324.

    Raises
    ------
    InputError
        If there is no such column, or it holds what is no p-value.
    """
    if p is None and "neg_log10_p" not in hits and "log10_bf" in hits:
        raise InputError(
            "The table has Bayes factors and no p-values: scan with tests=('wald', 'bayes')."
        )
    if p is None:
        require_columns(hits, ["neg_log10_p"])
        values = hits["neg_log10_p"].to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isinf(values), _UNDERFLOW, values)
    require_columns(hits, [p])
    values = hits[p].to_numpy(dtype=np.float64, na_value=np.nan)
    bad = (values < 0) | (values > 1)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"Column '{p}', row {row:,}: {values[row]:g} is no p-value, expected 0 to 1."
        )
    with np.errstate(divide="ignore"):
        return np.minimum(-np.log10(values), _UNDERFLOW)


def lambda_gc(p: pd.Series | np.ndarray) -> float:
    """Genomic control factor: median chi-squared of the p-values over its expectation.

    Parameters
    ----------
    p : array of p-values
        NaN are left out.

    References
    ----------
    Devlin B, Roeder K (1999). Genomic control for association studies. Biometrics 55:997.
    doi:10.1111/j.0006-341X.1999.00997.x

    Examples
    --------
    >>> import numpy as np
    >>> round(lambda_gc(np.linspace(0.0005, 0.9995, 1000)), 2)
    1.0
    """
    from scipy.special import chdtri

    values = np.asarray(p, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        raise InputError("lambda_GC needs at least one p-value.")
    if values.min() < 0 or values.max() > 1:
        raise InputError(f"lambda_GC of {values.min():g} to {values.max():g}: no p-values.")
    return float(chdtri(1, np.median(values)) / chdtri(1, 0.5))


def placed_positions(hits: pd.DataFrame) -> np.ndarray:
    """Positions in base pairs, shape (m,), unknown ones (<= 0) guessed from the order.

    An unknown position is put evenly between the nearest variants of its chromosome, in
    the order of the table, whose positions are known. On a chromosome without any known
    position, variants are spaced as they are on average elsewhere.

    Examples
    --------
    >>> hits = pd.DataFrame({"chrom": ["1", "1", "1", "X"], "pos": [100, -9, 300, 0]})
    >>> placed_positions(hits)
    array([100., 200., 300., 100.])
    """
    require_columns(hits, ["chrom", "pos"])
    pos = hits["pos"].to_numpy(dtype=np.float64, na_value=np.nan)
    known = pos > 0
    codes, labels = pd.factorize(hits["chrom"])
    if (codes < 0).any():
        raise InputError(f"{int((codes < 0).sum()):,} variants have no chromosome.")
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(codes, minlength=len(labels)))[:-1])
    span = sum(np.ptp(pos[g[known[g]]]) for g in groups if known[g].any())
    spacing = span / known.sum() if span else 1.0
    out = pos.copy()
    for g in groups:
        here = known[g]
        if here.all():
            continue
        where = np.arange(len(g), dtype=np.float64)
        out[g] = (
            np.interp(where, where[here], pos[g[here]]) if here.any() else spacing * (1 + where)
        )
    return out


def find_loci(
    hits: pd.DataFrame, threshold: float, *, p: str | None = None, gap: float = 5e6
) -> pd.DataFrame:
    """Significant variants joined to loci, the strongest locus first.

    Parameters
    ----------
    hits : DataFrame
        What `bayeslmm.scan` returns.
    threshold : float
        Largest p-value that is significant.
    p : str, optional
        Column with p-values; see `neg_log10_p`.
    gap : float
        Base pairs. Significant variants of one chromosome closer than this share a
        locus. 5 million suits crosses and pedigrees, 250,000 to 1 million outbred
        populations.

    Returns
    -------
    DataFrame
        One row per locus: chrom, start and end (base pairs, of the significant variants
        with known position; NA if there is none), n_variants (significant ones), row
        (position of the strongest variant in `hits`), neg_log10_p (of that).

    Examples
    --------
    >>> hits = pd.DataFrame({"chrom": ["1", "1", "2"], "pos": [5, 9, 7], "p": [1e-9, 1e-8, 0.5]})
    >>> find_loci(hits, 5e-8, p="p")
      chrom  start  end  n_variants  row  neg_log10_p
    0     1      5    9           2    0          9.0
    """
    strength = neg_log10_p(hits, p)
    rows = np.flatnonzero(strength >= -np.log10(threshold))
    place = placed_positions(hits)[rows]
    raw = hits["pos"].to_numpy(dtype=np.float64, na_value=np.nan)[rows]
    codes = pd.factorize(hits["chrom"])[0][rows]
    order = np.lexsort((place, codes))
    new = (np.diff(codes[order], prepend=-1) != 0) | (np.diff(place[order], prepend=0) > gap)
    found = pd.DataFrame(
        {
            "locus": np.cumsum(new),
            "row": rows[order],
            "pos": np.where(raw > 0, raw, np.nan)[order],
            "neg_log10_p": strength[rows][order],
        }
    )
    by_locus = found.groupby("locus", sort=False)
    best = found.loc[by_locus["neg_log10_p"].idxmax()]
    table = pd.DataFrame(
        {
            "chrom": hits["chrom"].iloc[best["row"]].to_numpy(),
            "start": by_locus["pos"].min().to_numpy(),
            "end": by_locus["pos"].max().to_numpy(),
            "n_variants": by_locus.size().to_numpy(),
            "row": best["row"].to_numpy(),
            "neg_log10_p": best["neg_log10_p"].to_numpy(),
        }
    ).astype({"start": "Int64", "end": "Int64"})
    return table.sort_values("neg_log10_p", ascending=False, kind="stable", ignore_index=True)


def lead_variants(hits: pd.DataFrame, number: int, *, gap: float = 5e6) -> np.ndarray:
    """Rows of the strongest variants, none closer than `gap` to a stronger one, shape (k,).

    Parameters
    ----------
    hits : DataFrame
        What `bayeslmm.scan` returns.
    number : int
        How many at most, whether significant or not.
    gap : float
        Base pairs; see `find_loci`.

    Examples
    --------
    >>> table = {"chrom": ["1", "1", "2"], "pos": [5, 9, 7], "neg_log10_p": [8.0, 9.0, 3.0]}
    >>> lead_variants(pd.DataFrame(table), 2)
    array([1, 2])
    """
    if number < 1:
        raise InputError(f"At least one variant is to be chosen, but {number} were asked for.")
    strength = neg_log10_p(hits)
    place = placed_positions(hits)
    codes = pd.factorize(hits["chrom"])[0]
    left = np.isfinite(strength)
    chosen: list[int] = []
    while left.any() and len(chosen) < number:
        best = int(np.argmax(np.where(left, strength, -np.inf)))
        chosen.append(best)
        left &= (codes != codes[best]) | (np.abs(place - place[best]) > gap)
    return np.array(chosen, dtype=np.int64)
