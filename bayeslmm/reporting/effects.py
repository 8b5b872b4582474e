"""Chosen variants in a report: draws of their joint effects, credible sets of a region."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from bayeslmm.model.tables import interval, snp_effects
from bayeslmm.plots.drawing import figure_size
from bayeslmm.reporting.drafts import Draft, draw, share
from bayeslmm.reporting.pages import figure, paragraph, table

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.genome.finemapping import FineMap
    from bayeslmm.model.lmm import LMM

_MOST_VARIANTS = 20


def add_draws(
    draft: Draft, model: LMM, tree: xr.DataTree, hits: pd.DataFrame | None, name: str
) -> None:
    """The section of draws of `LMM.sample`: effects of SNPs together, or h2 beside the exact one.

    Parameters
    ----------
    draft : Draft
        The report.
    model : LMM
        The model whose draws they are.
    tree : DataTree
        The draws.
    hits : DataFrame or None
        A scan whose estimates are shown beside.
    name : str
        The phenotype.
    """
    from bayeslmm import plots

    posterior, attrs = tree["posterior"].dataset, tree.attrs
    sampler = str(attrs.get("sampler", "Markov chains"))
    section = draft.section("draws", f"Draws from the posterior of {name}", "Draws")
    low, high = interval(posterior["h2"].to_numpy())
    h2 = float(posterior["h2"].mean())
    beside = " beside these SNPs" if "beta" in posterior else ""
    said = (
        f"{posterior['h2'].size:,} draws ({sampler}). Heritability{beside}: {h2:.3f}, with "
        f"probability 95% between {low:.3f} and {high:.3f}."
    )
    section.add(paragraph(said))
    if "beta" in posterior:
        shown = snp_effects(tree, hits)
        known = hits is not None and bool(shown["scan_beta"].notna().any())
        columns = ["id", "ea", "eaf", *(["scan_beta", "scan_se"] if known else [])]
        columns += ["mean", "sd", "low", "high", *(["pip"] if "pip" in shown else [])]
        largest = shown.loc[shown["mean"].abs().idxmax()]
        draft.answer.append(
            f"With {len(shown):,} SNPs in the model, {largest.id} has the largest effect: "
            f"{largest['mean']:+.3g} per {largest.ea} ({largest.low:+.3g} to {largest.high:+.3g}); "
            f"{share(h2)} of the remaining variance is polygenic."
        )
        section.add(
            paragraph(
                "Effects of these SNPs together, per effect allele, in units of the phenotype: "
                "what neighbours share is counted once, and chance is taken back by the prior "
                f"({attrs.get('snp_prior', 'normal')})."
            ),
            figure(
                partial(draw, plots.effects, tree, hits, title=""),
                figure_size("effects", len(shown)),
                "Posterior means of the effects with 95% intervals",
            ),
            table(
                shown[columns],
                dict.fromkeys(("eaf", "pip"), "{:.3f}".format)
                | dict.fromkeys(columns[3:][: 6 if known else 4], "{:+.3g}".format),
                sortable=True,
                caption="mean, sd, low, high: posterior with the shortest 95% interval"
                + ("; pip: probability that there is an effect." if "pip" in shown else "."),
            ),
        )
    elif model.has_kernel:
        section.add(
            figure(
                partial(draw, plots.h2, model, tree=tree, title=""),
                (6.6, 4.2),
                "Histogram of the draws of h² over the exact posterior density",
            )
        )
    draft.method(f"Draws from the posterior were made by {sampler}")


def add_region(draft: Draft, found: FineMap) -> None:
    """The section of a region that was fine-mapped."""
    from bayeslmm import plots

    where = str(found.attrs["region"])
    section = draft.section("region", f"Fine-mapping of {where}", "Region")
    sets = found.credible_sets
    if len(sets):
        first = sets.iloc[0]
        draft.answer.append(
            f"In {where} there {'are' if len(sets) > 1 else 'is'} {len(sets)} credible "
            f"set{'s' * (len(sets) > 1)} of causal variants; the strongest has {first['size']:,}, "
            f"{first.lead} the most probable."
        )
    shown = found.variants.sort_values("pip", ascending=False).head(_MOST_VARIANTS)
    columns = ["id", "pos", "ea", "eaf", "pip", "beta", "sd", "log10_bf", "cs"]
    section.add(
        figure(
            partial(draw, plots.fine_mapping, found, title=""),
            figure_size("fine_mapping"),
            f"Posterior inclusion probability of the variants of {where}",
        ),
        *credible_sets(found),
        table(
            shown[columns],
            {
                "pos": "{:,}".format,
                "eaf": "{:.3f}".format,
                "pip": "{:.3f}".format,
                "beta": "{:+.3g}".format,
                "sd": "{:.2g}".format,
                "log10_bf": "{:.1f}".format,
            },
            sortable=True,
            caption=f"The {len(shown)} most probable of {len(found.variants):,} variants. pip: "
            "probability of an effect, all variants together; log10_bf: evidence of the variant "
            "alone; cs: its credible set, 0 for none.",
        ),
    )
    draft.method(
        f"The variants of {where} were fine-mapped given relatedness, h2 integrated out", "susie"
    )


def credible_sets(found: FineMap) -> list[str]:
    """What fine-mapping found, as a sentence and a table of the sets."""
    sets = found.credible_sets
    pieces = [
        paragraph(
            f"Fine-mapping of {len(found.variants):,} variants expects "
            f"{found.expected_effects:.1f} with an effect, and finds "
            + (
                "no credible set: the effect cannot be narrowed down."
                if not len(sets)
                else f"{len(sets)} credible set{'s' * (len(sets) > 1)}, each holding a causal "
                f"variant with probability {100 * found.attrs['coverage']:g}%."
            )
        )
    ]
    if len(sets):
        shown = sets.assign(
            variants=[
                ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
                for ids in sets.ids
            ]
        )[["size", "coverage", "purity", "log10_bf", "lead", "variants"]].reset_index()
        numbers = dict.fromkeys(("coverage", "purity"), "{:.2f}".format)
        pieces.append(
            table(shown, numbers | {"log10_bf": "{:.1f}".format}, caption="Credible sets.")
        )
    return pieces
