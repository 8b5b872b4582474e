"""Plots of a region, of two scans at once, of relatedness, and of what the variance is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox

from bayeslmm.errors import InputError
from bayeslmm.genome.loci import find_loci, neg_log10_p, placed_positions, require_columns
from bayeslmm.model.snps import require_unique
from bayeslmm.plots.drawing import (
    ACCENT,
    ALONE,
    DARK,
    FAINT,
    INK,
    LIGHT,
    LOG_P,
    SERIES,
    annotate,
    axes_for,
    chromosome_ticks,
    clean,
    corner,
    counted,
    genome_axis,
    halo,
    position_ticks,
    significance_line,
    thin,
    title_of,
)

if TYPE_CHECKING:
    from bayeslmm.genome.finemapping import FineMap
    from bayeslmm.inputs.genotypes import Genotypes
    from bayeslmm.model.lmm import LMM
    from bayeslmm.relatedness.dense import GRM

# Squared correlations up to 0.2, 0.4, ..., from pale to dark: cividis, which is the same for
# every kind of colour vision.
LD_COLORS = ("#c3bc8a", "#9b9476", "#72706f", "#45506a", "#00224e")
_LD_EDGES = (0.2, 0.4, 0.6, 0.8)
_SHARES = ("covariates", "genetic", "residual")
# A heat map of more samples shows means over squares of them.
_CELLS = 800
_CLUSTERED = 3000


def ld_class(r2: np.ndarray) -> np.ndarray:
    """Class of LD, 0 to 4, of squared correlations of any shape.

    Examples
    --------
    >>> ld_class(np.array([0.1, 0.5, 1.0])).tolist()
    [0, 2, 4]
    """
    return np.digitize(np.nan_to_num(r2), _LD_EDGES)


def ld_with(genotypes: Genotypes, ids: pd.Series | pd.Index, lead: str) -> np.ndarray:
    """Squared correlation of the dosages of variants with those of one of them, shape (k,).

    Parameters
    ----------
    genotypes : Genotypes
        Where the variants are; all of its samples count.
    ids : Series or Index of str, length k
        Variants; the answer is in their order.
    lead : str
        One of them.

    Raises
    ------
    InputError
        If an id names several variants.
    """
    chosen = genotypes.select(variants=[str(i) for i in ids])
    require_unique(chosen.variants.id)
    block = chosen.centered_block(0, chosen.n_variants, dtype=np.dtype(np.float64))
    names = pd.Index(chosen.variants.id)
    x = block.x[names.get_loc(lead)]
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = (block.x @ x) ** 2 / (block.sum_sq * (x @ x))
    return r2[names.get_indexer(pd.Index(ids))]


def regional(
    hits: pd.DataFrame,
    genotypes: Genotypes,
    lead: str | None = None,
    *,
    flank: float = 2e6,
    found: FineMap | None = None,
    p: str | None = None,
    threshold: float | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Regional plot: -log10 p around a variant, coloured by LD with it.

    Parameters
    ----------
    hits : DataFrame
        What `bayeslmm.scan` returns.
    genotypes : Genotypes
        Of the analysed samples, for the LD.
    lead : str, optional
        The variant in the middle; by default the most significant.
    flank : float
        Base pairs to either side.
    found : FineMap, optional
        Variants of its credible sets get a ring, with a colour for each set.
    p : str, optional
        Column with p-values; by default neg_log10_p.
    threshold : float, optional
        p-value of the significance line; by default Bonferroni's, of all variants of the table.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default the model's formula, if the table has it.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the lead is not in the table, or has no p-value.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> model = bl.LMM("cd8 ~ sex", mice.phenotypes)
    >>> some = mice.genotypes.select(samples=model.ids, chrom=17)
    >>> ax = bl.plots.regional(bl.scan(model, some), some)
    >>> ax.get_xlabel()
    'Position on chromosome 17 (Mb)'
    """
    region = around(hits, lead, flank=flank, p=p)
    lead = str(region.attrs["lead"])
    y, x = neg_log10_p(region, p), region["place"].to_numpy()
    r2 = ld_with(genotypes, region["id"], lead)
    ax = axes_for(ax, "regional")
    tested = np.isfinite(y)
    classes = ld_class(r2)
    for k, color in enumerate(LD_COLORS):
        low, high = (0.0, *_LD_EDGES)[k], (*_LD_EDGES, 1.0)[k]
        here = tested & (classes == k)
        ax.plot(
            x[here],
            y[here],
            linestyle="none",
            marker="o",
            markersize=4.5 + 0.4 * k,
            color=color,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=3 + k / 10,
            label=f"{low:.1f} to {high:.1f}",
            gid=f"ld-{k}",
        )
    if found is not None:
        cs = found.variants.set_index("id").cs.reindex(region["id"]).to_numpy()
        for i, number in enumerate(found.credible_sets.index):
            here = tested & (cs == number)
            ax.plot(
                x[here],
                y[here],
                linestyle="none",
                marker="o",
                markersize=9,
                markerfacecolor="none",
                markeredgecolor=SERIES[(i + 1) % len(SERIES)],
                markeredgewidth=1.4,
                zorder=4,
                label=f"credible set {number}",
                gid=f"set-{number}",
            )
    at = int(np.flatnonzero((region["id"] == lead).to_numpy())[0])
    ax.plot(
        x[at],
        y[at],
        linestyle="none",
        marker="D",
        markersize=7,
        color=ACCENT,
        markeredgecolor="white",
        zorder=5,
        gid="lead",
    )
    note = annotate(ax, lead, (x[at], y[at]), (0, 7), ha="center", zorder=6)
    note.set(fontsize=8.5, color=INK, path_effects=halo())
    line, _ = significance_line(threshold, int(np.isfinite(neg_log10_p(hits, p)).sum()))
    ax.axhline(line, color=ACCENT, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1, gid="line")
    ax.set_ylim(0, max(1.13 * float(np.nanmax(y)), 1.05 * line))
    ax.set_ylabel(LOG_P)
    position_ticks(ax, region["chrom"].iloc[0])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    clean(ax)
    ax.set_title(title_of(hits, title, p), loc="left", fontsize=11, color=INK)
    corner(ax, counted(int(tested.sum()), "variant"))
    ax.legend(
        title=f"r² with {lead}",
        title_fontsize=8.5,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=8.5,
        labelcolor=INK,
        alignment="left",
        reverse=found is None,
    )
    return ax


def around(
    hits: pd.DataFrame, lead: str | None = None, *, flank: float = 2e6, p: str | None = None
) -> pd.DataFrame:
    """Rows of a scan within `flank` base pairs of a variant, with their place as a column.

    The best variant and what it was go into ``attrs["lead"]``. Variants of unknown position
    are placed between their neighbours.
    """
    require_columns(hits, ["chrom", "pos", "id"])
    y = neg_log10_p(hits, p)
    if lead is None:
        if not np.isfinite(y).any():
            raise InputError("There is nothing to draw: no variant of the table has a p-value.")
        row = int(np.nanargmax(y))
    else:
        rows = np.flatnonzero((hits["id"] == lead).to_numpy())
        if not len(rows):
            raise InputError(f"Variant '{lead}' is not in the table of the scan.")
        row = int(rows[0])
        if not np.isfinite(y[row]):
            raise InputError(f"Variant '{lead}' has no p-value: it was not tested.")
    place = placed_positions(hits)
    same = (hits["chrom"] == hits["chrom"].iloc[row]).to_numpy()
    near = np.flatnonzero(same & (np.abs(place - place[row]) <= flank))
    region = hits.iloc[near].assign(place=place[near])
    region.attrs = {"lead": hits["id"].iloc[row]}
    return region


def miami(
    upper: pd.DataFrame,
    lower: pd.DataFrame,
    *,
    names: tuple[str, str] = ("", ""),
    p: str | None = None,
    threshold: float | None = None,
    label_top: int = 3,
    locus_gap: float = 5e6,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Two scans of the same genome, one upwards and one downwards.

    Parameters
    ----------
    upper, lower : DataFrame
        What `bayeslmm.scan` returns, for two phenotypes or two models; the same chromosomes.
    names : (str, str)
        What they are; by default their formulas.
    p : str, optional
        Column with p-values; by default neg_log10_p.
    threshold : float, optional
        p-value of the significance lines; by default Bonferroni's for each.
    label_top : int
        How many of the significant loci of each, the strongest first, get the name of their
        best variant; a name that would cover another one is left out.
    locus_gap : float
        Base pairs; significant variants closer than this share a locus and a name.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str
        Title.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the scans are not of the same chromosomes, or one has no tested variant.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> some = mice.genotypes.select(chrom=[1, 17])
    >>> a, b = (
    ...     bl.scan(bl.LMM(f"{t} ~ sex", mice.phenotypes), some, "wald") for t in ("cd8", "mch")
    ... )
    >>> ax = bl.plots.miami(a, b)
    """
    labels = pd.unique(upper["chrom"])
    if set(labels) != set(lower["chrom"]):
        raise InputError(
            "The two scans are of different chromosomes: "
            f"{', '.join(map(str, sorted(set(labels) ^ set(lower['chrom']))))} is in one only."
        )
    both = pd.concat([upper[["chrom", "pos"]], lower[["chrom", "pos"]]], ignore_index=True)
    place = np.concatenate([placed_positions(upper), placed_positions(lower)])
    codes = pd.Index(labels).get_indexer(both["chrom"])
    x_all, centers, widths, single = genome_axis(place, codes, len(labels))
    ax = axes_for(ax, "miami")
    parts = np.split(np.arange(len(both)), [len(upper)])
    leads: list[tuple[float, float, str]] = []
    for hits, rows, sign, name in zip((upper, lower), parts, (1, -1), names, strict=True):
        y, x, code = neg_log10_p(hits, p), x_all[rows], codes[rows]
        tested = np.isfinite(y)
        if not tested.any():
            raise InputError("There is nothing to draw: no variant of the table has a p-value.")
        shown = np.flatnonzero(tested)
        shown = shown[thin(x[shown], y[shown])]
        colors = (DARK, LIGHT) if sign > 0 else (SERIES[2], "#7fcdb4")
        for parity, color in enumerate(colors):
            here = shown[code[shown] % 2 == parity]
            ax.plot(
                x[here],
                sign * y[here],
                linestyle="none",
                marker="o",
                markersize=2.6,
                markeredgewidth=0,
                color=color,
                rasterized=True,
                gid=f"{'upper' if sign > 0 else 'lower'}-{parity}",
            )
        line, _ = significance_line(threshold, int(tested.sum()))
        ax.axhline(sign * line, color=ACCENT, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
        note = annotate(
            ax,
            name or hits.attrs.get("formula", ""),
            (0, 1 if sign > 0 else 0),
            (5, -12 if sign > 0 else 3),
            xycoords="axes fraction",
        )
        note.set(fontsize=9.5, color=colors[0], path_effects=halo())
        loci = find_loci(hits, 10.0**-line, p=p, gap=locus_gap).head(max(label_top, 0))
        leads += [(x[row], sign * y[row], str(hits["id"].iloc[row])) for row in loci["row"]]
    top = np.nanmax(neg_log10_p(upper, p)), np.nanmax(neg_log10_p(lower, p))
    # Room for a name beyond the strongest variant of either scan.
    room = 0.07 * (top[0] + top[1])
    ax.set_ylim(-1.04 * top[1] - room, 1.04 * top[0] + room)
    ax.axhline(0, color=FAINT, linewidth=0.8)
    margin = 0.012 * (np.ptp(x_all) or ALONE)
    ax.set_xlim(x_all.min() - margin, x_all.max() + margin)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
    ax.set_ylabel(LOG_P)
    clean(ax)
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    if single:
        position_ticks(ax, labels[0])
    else:
        ax.set_xlabel("Chromosome")
        chromosome_ticks(ax, [str(label) for label in labels], centers, widths)
    _name_leads(ax, leads)
    return ax


def _name_leads(ax: Axes, leads: list[tuple[float, float, str]]) -> None:
    """Best variants of loci stand out, with their names where these cover no other name."""
    for x, y, _ in leads:
        ax.plot(
            x,
            y,
            linestyle="none",
            marker="o",
            markersize=5,
            markerfacecolor=ACCENT,
            markeredgecolor="white",
            markeredgewidth=0.7,
            zorder=5,
            gid="lead",
        )
    taken: list[Bbox] = []
    for x, y, name in leads:
        note = annotate(ax, name, (x, y), (0, 5 if y > 0 else -5), ha="center")
        note.set_verticalalignment("bottom" if y > 0 else "top")
        note.set(fontsize=8.5, color=INK, path_effects=halo())
        box = note.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            note.remove()
        else:
            taken.append(box)


def relatedness(
    kernel: GRM,
    groups: pd.Series | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Heat map of a relatedness matrix, relatives side by side.

    Colour is the correlation K_ij / sqrt(K_ii K_jj), from -0.5 to 1. Of many samples means
    over squares are shown.

    Parameters
    ----------
    kernel : GRM
        The matrix.
    groups : Series, optional
        Families, populations or cages by sample id: samples are ordered by them, with lines
        between. By default by hierarchical clustering (up to 3,000 samples), or in their order.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default the number of samples and what the matrix is.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the groups do not name all samples.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> some = mice.genotypes.select(samples=mice.genotypes.samples.index[:100], chrom=1)
    >>> ax = bl.plots.relatedness(bl.grm(some))
    """
    n = len(kernel.samples)
    root = np.sqrt(np.maximum(np.diagonal(kernel.matrix), 1e-12))
    r = np.asarray(kernel.matrix, dtype=np.float32) / np.outer(root, root).astype(np.float32)
    edges: list[int] = []
    if groups is not None:
        absent = kernel.samples.difference(groups.index.astype(str))
        if len(absent):
            raise InputError(f"{len(absent):,} samples have no group, the first '{absent[0]}'.")
        label = groups.set_axis(groups.index.astype(str)).loc[kernel.samples]
        code, _ = pd.factorize(label, sort=True)
        order = np.argsort(code, kind="stable")
        edges = list(np.flatnonzero(np.diff(code[order])) + 1)
    elif n <= _CLUSTERED:
        order = _by_likeness(r)
    else:
        order = np.arange(n)
    r = r[np.ix_(order, order)]
    step = -(-n // _CELLS)
    if step > 1:
        starts = np.arange(0, n, step)
        counts = np.diff(np.append(starts, n))
        r = np.add.reduceat(np.add.reduceat(r, starts, axis=0), starts, axis=1)
        r /= np.outer(counts, counts)
    ax = axes_for(ax, "relatedness")
    picture = ax.imshow(
        r, vmin=-0.5, vmax=1, cmap="cividis", extent=(0, n, n, 0), interpolation="nearest"
    )
    if len(edges) <= 40:  # more lines hide what is between them
        for edge in edges:
            ax.axhline(edge, color="white", linewidth=0.4)
            ax.axvline(edge, color="white", linewidth=0.4)
    clean(ax)
    ax.set_xlabel("Sample" if groups is None else f"Sample, by {groups.name or 'group'}")
    ax.set_ylabel("Sample")
    ax.set_title(
        f"Relatedness of {n:,} samples ({kernel.scale})" if title is None else title,
        loc="left",
        fontsize=11,
        color=INK,
    )
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.8)
    over = f", means over {step} x {step}" if step > 1 else ""
    bar.set_label(f"Genetic correlation{over}", size=10, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, color=FAINT, labelcolor=INK)
    return ax


def _by_likeness(r: np.ndarray) -> np.ndarray:
    """An order of samples in which alike ones are neighbours, shape (n,)."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    n = len(r)
    if n < 3:
        return np.arange(n)
    distance = np.maximum(1 - r[np.triu_indices(n, 1)].astype(np.float64), 0)
    return leaves_list(linkage(distance, "average"))


def variance_shares(model: LMM, *, draws: int = 4000, seed: int = 0) -> pd.DataFrame:
    """Posterior of the shares of the phenotype's variance: covariates, genetic, residual.

    The variance is var(C b) + kappa s2_g + s2_e, with var(C b) over the analysed samples.

    Parameters
    ----------
    model : LMM
    draws : int
        Of the exact posterior.
    seed : int
        For these.

    Returns
    -------
    DataFrame, indexed by covariates, genetic, residual
        mean, low, high (95% highest density).
    """
    from bayeslmm.model.tables import interval

    values = model.draw_posterior(draws, np.random.default_rng(seed))
    fitted = np.var(values["b"] @ model.C.to_numpy().T, axis=1)
    parts = np.stack([fitted, values["s2"] * values["h2"], values["s2_e"]])
    shares = parts / parts.sum(axis=0)
    rows = {
        name: {"mean": share.mean(), **dict(zip(("low", "high"), interval(share), strict=True))}
        for name, share in zip(_SHARES, shares, strict=True)
    }
    return pd.DataFrame(rows).T.rename_axis("part")


def variance_partition(
    models: LMM | Mapping[str, LMM],
    *,
    ax: Axes | None = None,
    title: str = "Shares of the variance",
) -> Axes:
    """What the variance of phenotypes is made of, with 95% intervals of the posterior.

    Parameters
    ----------
    models : LMM, or mapping of str to LMM
        One bar for each; see `variance_shares` for what the parts are.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str
        Title.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> model = bl.LMM("cd8 ~ sex", mice.phenotypes)
    >>> ax = bl.plots.variance_partition({"no kernel": model})
    """
    named = dict(models) if isinstance(models, Mapping) else {"": models}
    if not named:
        raise InputError("There is no model to draw.")
    ax = axes_for(ax, "variance_partition", len(named))
    colors = {"covariates": "#b8bec6", "genetic": SERIES[0], "residual": "#e6e9ed"}
    style: dict[str, Any] = {"height": 0.56, "edgecolor": "white"}
    for row, (name, model) in enumerate(named.items()):
        shares = variance_shares(model)
        left = 0.0
        for part, share in shares.iterrows():
            label = str(part) if row == 0 else None
            ax.barh(row, share["mean"], left=left, color=colors[str(part)], label=label, **style)
            if share["mean"] > 0.06:
                mean, low, high = (100 * share[["mean", "low", "high"]]).astype(float)
                text = ax.text(
                    left + share["mean"] / 2,
                    row,
                    f"{mean:.0f}%\n({low:.0f} to {high:.0f})",
                    ha="center",
                    va="center",
                    fontsize=8.5,
                    color="white" if part == "genetic" else INK,
                )
                text.set_in_layout(False)
            left += share["mean"]
        named[name] = model
    ax.set_yticks(range(len(named)), [n or m.formula for n, m in named.items()])
    ax.set_ylim(len(named) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
    clean(ax)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    ax.legend(
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=8.5,
        labelcolor=INK,
    )
    return ax
