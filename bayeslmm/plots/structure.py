"""Plots of structure: principal components, relatives, and inflation by method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayeslmm.errors import InputError, listing
from bayeslmm.plots.drawing import (
    DASHES,
    FAINT,
    INK,
    LOG_P,
    MARKERS,
    SERIES,
    axes_for,
    clean,
    qq_ranks,
    thin,
)

if TYPE_CHECKING:
    from bayeslmm.bases.structure import PCA
    from bayeslmm.genome.confounding import Inflation
    from bayeslmm.relatedness.kinship import Relatives

_MOST_GROUPS = 7


def pcs(
    found: PCA,
    table: pd.DataFrame | None = None,
    *,
    color: str | None = None,
    label: str | None = None,
    components: tuple[int, ...] = (1, 2),
    projected: pd.DataFrame | None = None,
    ax: Axes | np.ndarray | None = None,
    title: str | None = None,
) -> Axes | np.ndarray:
    """Principal components against each other, coloured by a column of a table.

    Groups differ in colour and marker; numbers are coloured on a scale that is even in
    lightness. Of more than seven groups the seven largest are shown, the others in grey.

    Parameters
    ----------
    found : PCA
        What `bayeslmm.pca` returns.
    table : DataFrame, optional
        Columns by sample id.
    color : str, optional
        Column of `table` with groups or numbers.
    label : str, optional
        Column of `table` whose texts are written at the points; "" and missing for none.
    components : tuple of int
        Two components make one plot; more make all consecutive pairs (1 and 2, 3 and 4).
    projected : DataFrame, optional
        Scores of new samples (`PCA.project`), drawn as open rings.
    ax : Axes, or as many as there are pairs, optional
        Where to draw; by default on a new figure.
    title : str, optional
        Title of the (first) plot.

    Returns
    -------
    Axes, or array of Axes
        One for each pair.

    Raises
    ------
    InputError
        For components or columns that are not there.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> cohort = bl.simulate_cohort(None, 200, 400, families=8, seed=1)
    >>> ax = bl.plots.pcs(bl.pca(cohort.genotypes, 2), cohort.phenotypes, color="age")
    >>> ax.get_xlabel()
    'PC1 (2.6%)'
    """
    if len(components) < 2 or len(components) % 2:
        raise InputError(f"components={components}: give pairs, as (1, 2) or (1, 2, 3, 4).")
    wrong = [j for j in components if not 1 <= j <= found.k]
    if wrong:
        raise InputError(f"There is no component {listing(wrong)}: the PCA has {found.k}.")
    values = _column(found, table, color)
    texts = _column(found, table, label)
    pairs = [(components[i] - 1, components[i + 1] - 1) for i in range(0, len(components), 2)]
    axes = _several(ax, len(pairs), found)
    for panel, (a, b) in zip(axes, pairs, strict=True):
        x, y = (found.scores.iloc[:, j].to_numpy() for j in (a, b))
        _points(panel, x, y, values, legend=panel is axes[-1])
        if texts is not None:
            for i in np.flatnonzero(texts.notna() & (texts.astype(str) != "")):
                panel.annotate(
                    str(texts.iloc[i]),
                    (x[i], y[i]),
                    xytext=(3, 3),
                    textcoords="offset points",
                    fontsize=8,
                    color=INK,
                )
        if projected is not None:
            panel.plot(
                projected.iloc[:, a],
                projected.iloc[:, b],
                linestyle="none",
                marker="o",
                markersize=5,
                markerfacecolor="none",
                markeredgecolor=INK,
                markeredgewidth=0.8,
                gid="projected",
            )
        share = found.variance_explained
        panel.xaxis.set_major_locator(MaxNLocator(nbins=4))
        panel.set_xlabel(f"{share.index[a]} ({100 * share.iloc[a]:.1f}%)")
        panel.set_ylabel(f"{share.index[b]} ({100 * share.iloc[b]:.1f}%)")
        clean(panel)
    axes[0].set_title(title or f"{found.name}: {len(found.scores):,} samples", loc="left",
                      fontsize=11, color=INK)  # fmt: skip
    return axes[0] if len(pairs) == 1 else np.array(axes)


def relatives(
    found: Relatives,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Kinship against the share of IBS0: degrees of relationship as clouds.

    Parameters
    ----------
    found : Relatives
        What `bayeslmm.relatives` returns; with ``min_kinship=None`` unrelated pairs too.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    title : str, optional
        By default what was analysed.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the table has no pair.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> few = mice.genotypes.select(samples=mice.genotypes.samples.index[:60])
    >>> ax = bl.plots.relatives(bl.relatives(few))
    >>> ax.get_ylabel()
    'Kinship (KING-robust)'
    """
    from bayeslmm.relatedness.kinship import DEGREES, LIMITS

    pairs = found.pairs
    if not len(pairs):
        raise InputError("There is nothing to draw: no pair has the kinship asked for.")
    ax = axes_for(ax, "relatives")
    colors = {"unrelated": FAINT, **dict(zip(DEGREES[:5], SERIES[:5], strict=True))}
    for degree in reversed(DEGREES):
        here = pairs[pairs["degree"] == degree]
        if not len(here):
            continue
        x, y = here["ibs0"].to_numpy(), here["kinship"].to_numpy()
        seen = thin(x, y)
        ax.plot(
            x[seen],
            y[seen],
            linestyle="none",
            marker=MARKERS[DEGREES.index(degree)],
            markersize=2.5 if len(here) > 2000 else 4,
            markeredgewidth=0,
            alpha=0.8,
            color=colors[degree],
            label=f"{degree} ({found.counts[degree]:,})",
            rasterized=True,
            zorder=3,
            gid=degree,
        )
    low = float(pairs["kinship"].min())
    for limit, name in zip(LIMITS, ("duplicate", "1st", "2nd", "3rd"), strict=True):
        if limit < low:
            continue
        ax.axhline(limit, color=FAINT, linewidth=0.7, linestyle=DASHES[2], zorder=1)
        ax.annotate(
            f"{name}, {limit:.3f}",
            (1, limit),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color=FAINT,
        )
    ax.set_xlim(left=-0.02 * float(pairs["ibs0"].max() or 1))
    ax.set_xlabel("Share of variants with no allele in common (IBS0)")
    ax.set_ylabel("Kinship (KING-robust)")
    clean(ax)
    name = f"{found.name}: {len(found.samples):,} samples, {found.n_variants:,} variants"
    ax.set_title(title or name, loc="left", fontsize=11, color=INK)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(
        handles[::-1], labels[::-1], frameon=False, fontsize=8.5, labelcolor=INK, markerscale=1.4
    )
    return ax


def inflation(
    found: Inflation,
    *,
    ax: Axes | None = None,
    limit: float | None = None,
    title: str | None = None,
) -> Axes:
    """Quantile-quantile plots of all methods over each other, with their lambda_GC.

    Parameters
    ----------
    found : Inflation
        What `bayeslmm.inflation` returns.
    ax : Axes, optional
        Where to draw; by default on a new figure.
    limit : float, optional
        Highest -log10 p shown; points above it are outside. All by default.
    title : str, optional
        By default the model's formula.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import bayeslmm as bl
    >>> cohort = bl.simulate_cohort(None, 200, 400, families=8, seed=1)
    >>> model = bl.LMM("y ~ sex", cohort.phenotypes, bl.grm(cohort.genotypes))
    >>> found = bl.inflation(model, cohort.genotypes, pcs=2, loco=False)
    >>> ax = bl.plots.inflation(found)
    >>> len(ax.get_legend().get_texts())
    4
    """
    ax = axes_for(ax, "inflation")
    highest, end = 0.0, 0.0
    for j, name in enumerate(found.table.index):
        y = found.p[name].to_numpy()
        y = np.sort(y[np.isfinite(y)])[::-1]
        ranks = qq_ranks(len(y))
        expected = -np.log10((ranks - 0.5) / len(y))
        shown = y[ranks - 1]
        ax.plot(
            expected,
            shown,
            color=SERIES[j],
            linestyle=DASHES[j % len(DASHES)],
            linewidth=1.3,
            marker=MARKERS[j],
            markersize=3.5,
            markeredgewidth=0,
            # Markers where points are sparse, a line elsewhere.
            markevery=[int(i) for i in np.flatnonzero(expected > 1.5)],
            label=rf"{name}: $\lambda_{{GC}}$ = {found.table.loc[name, 'lambda_gc']:.2f}",
            zorder=3,
            gid=name,
        )
        highest, end = max(highest, float(shown[0])), max(end, float(expected.max()))
    ax.plot([0, end], [0, end], color=FAINT, linewidth=1, zorder=1)
    ax.set_xlim(0, 1.04 * end)
    ax.set_ylim(0, 1.06 * highest if limit is None else limit)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    ax.set_xlabel(f"Expected {LOG_P}")
    ax.set_ylabel(f"Observed {LOG_P}")
    clean(ax)
    ax.set_title(found.formula if title is None else title, loc="left", fontsize=11, color=INK)
    ax.legend(
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=8.5,
        labelcolor=INK,
        handlelength=2.6,
    )
    return ax


def _column(found: PCA, table: pd.DataFrame | None, name: str | None) -> pd.Series | None:
    """A column of the table in the order of the samples; missing where they are not there."""
    if name is None:
        return None
    if table is None or name not in table:
        there = "no table was given" if table is None else f"columns: {listing(table.columns, 20)}"
        raise InputError(f"There is no column '{name}' to draw by; {there}.")
    column = table[name].set_axis(table.index.astype(str))
    if not column.index.isin(found.scores.index).any():
        raise InputError(
            f"The table has none of the samples: its ids are such as {listing(column.index[:2])}, "
            f"those of the components such as {listing(found.scores.index[:2])}."
        )
    return column.reindex(found.scores.index)


def _several(ax: Axes | np.ndarray | None, count: int, found: PCA) -> list[Axes]:
    if ax is not None:
        given = list(np.atleast_1d(np.asarray(ax, dtype=object)))
        if len(given) != count:
            raise InputError(f"{count} pairs of components need as many axes; {len(given)} came.")
        return given
    if count == 1:
        return [axes_for(None, "pcs")]
    import matplotlib.pyplot as plt

    columns = min(count, 3)
    rows = -(-count // columns)
    size = (4.4 * columns, 4.0 * rows)
    grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)[1]
    for spare in grid.ravel()[count:]:
        spare.set_visible(False)
    return list(grid.ravel()[:count])


def _points(
    ax: Axes, x: np.ndarray, y: np.ndarray, values: pd.Series | None, *, legend: bool
) -> None:
    style: dict[str, Any] = {
        "linestyle": "none",
        "markersize": 3.6 if len(x) > 500 else 5,
        "markeredgewidth": 0,
        "alpha": 0.85,
        "rasterized": True,
    }
    if values is None:
        ax.plot(x, y, marker="o", color=SERIES[0], gid="samples", **style)
        return
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        absent = values.isna().to_numpy()
        ax.plot(x[absent], y[absent], marker="o", color="#d9dde2", **style)
        drawn = ax.scatter(
            x[~absent],
            y[~absent],
            c=values[~absent],
            cmap="cividis",
            s=style["markersize"] ** 2,
            linewidths=0,
            rasterized=True,
        )
        if legend and ax.figure is not None:
            bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.7)
            bar.set_label(str(values.name), color=INK, fontsize=9)
            bar.outline.set_visible(False)
        return
    text = values.astype(object).where(values.notna())
    groups = list(text.dropna().value_counts(sort=True).index)
    if isinstance(values.dtype, pd.CategoricalDtype):
        groups = [g for g in values.cat.categories if g in set(groups[:_MOST_GROUPS])]
    named = groups[:_MOST_GROUPS]
    others = ~text.isin(named).to_numpy()
    if others.any():
        name = "others" if text[others].notna().any() else "not known"
        ax.plot(
            x[others],
            y[others],
            marker="o",
            color="#c4c9cf",
            label=f"{name} ({int(others.sum()):,})",
            **style,
        )
    for j, group in enumerate(named):
        here = (text == group).to_numpy()
        ax.plot(
            x[here],
            y[here],
            marker=MARKERS[j],
            color=SERIES[j],
            label=f"{group} ({int(here.sum()):,})",
            gid=str(group),
            **style,
        )
    if legend:
        ax.legend(
            title=str(values.name),
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            fontsize=8.5,
            title_fontsize=9,
            labelcolor=INK,
            markerscale=1.3,
        )
