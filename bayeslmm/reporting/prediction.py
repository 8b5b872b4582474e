"""Predicted samples in a report: their distributions, and how far they can be trusted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.model.accuracy import expected_correlations, left_out_accuracy, measured_accuracy
from bayeslmm.model.heritability import is_two_valued
from bayeslmm.plots.drawing import figure_size
from bayeslmm.reporting import diagnostics
from bayeslmm.reporting.drafts import Draft, draw, share
from bayeslmm.reporting.pages import definitions, figure, heading, paragraph, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.model.accuracy import Accuracy
    from bayeslmm.model.lmm import LMM
    from bayeslmm.model.residuals import ResidualCheck

_EACH_END = 10


def add_predictions(
    draft: Draft, model: LMM, predicted: pd.DataFrame, check: ResidualCheck, name: str
) -> None:
    """The section of what `LMM.predict` returned.

    Parameters
    ----------
    draft : Draft
        The report.
    model : LMM
        The model that predicted.
    predicted : DataFrame
        The predictions; y_observed where the phenotype was measured and not used.
    check : ResidualCheck
        Each analysed sample predicted from the others.
    name : str
        The phenotype.
    """
    from bayeslmm import plots

    prob, total = float(predicted.attrs["prob"]), len(predicted)
    binary = is_two_valued(model.y)
    genomic = model.grm is not None and bool(model.grm.n_variants)
    width = float((predicted.y_high - predicted.y_low).mean())
    of_value, of_phenotype = expected_correlations(predicted)
    measured = measured_accuracy(predicted)
    left_out = left_out_accuracy(check, prob)
    analysed = int(predicted.index.isin(model.ids).sum())
    section = draft.section("predictions", f"Predicted {name} of {total:,} samples", "Predictions")
    section.add(
        paragraph(
            f"Learned from {len(model.y):,} samples. A prediction is the effects of a sample's "
            "covariates and its genetic value u, which follows from its relatives among those "
            f"samples. The {100 * prob:g}% intervals hold the uncertainty of all parameters, that "
            "of the heritability too, and for the phenotype its residual."
        ),
        paragraph(f"{analysed:,} of them were analysed themselves: new measurements are meant.")
        if analysed
        else "",
        definitions(
            {
                **({"genotypes": predicted.attrs["new"]} if predicted.attrs.get("new") else {}),
                f"predicted {name}": _spread(predicted.y_mean),
                f"{100 * prob:g}% interval": f"{width:.3g} wide on average; the sd of {name} among "
                f"the analysed is {model.y.std(ddof=1):.3g}",
                "genetic value u": f"{_spread(predicted.u_mean)}; each known to within "
                f"{predicted.u_sd.mean():.3g} (its posterior sd, on average)",
                "draws": f"{predicted.attrs['draws']:,}, of the posterior of all parameters",
            }
        ),
        figure(
            partial(draw, plots.predictions, predicted, title=""),
            figure_size("predictions"),
            f"Predicted {name} of {total:,} samples with {100 * prob:g}% intervals",
            "Samples in the order of their prediction"
            + ("" if measured is None else "; dots are phenotypes that were not used")
            + ".",
        ),
        heading("How good are they?"),
        paragraph(
            "If the model is right, predicted and true genetic values correlate "
            f"{of_value:.2f} (the accuracy of a breeding value), predicted and measured {name} "
            f"{of_phenotype:.2f}. Below that, what measurements say: each analysed sample "
            "predicted from all others"
            + (
                "."
                if measured is None
                else f", and the {measured.n:,} predicted samples whose {name} is known and was "
                "not used."
            )
        ),
        _comparison(predicted, of_phenotype, left_out, measured, prob, binary=binary),
        figure(
            partial(_scatter, check=check, predicted=predicted, name=name),
            (4.8, 4.8),
            f"Measured against predicted {name}",
            "On the dashed line measured and predicted are the same.",
        ),
        heading("The highest and the lowest" if total > 2 * _EACH_END else "All of them"),
        _ends(predicted, prob),
    )
    draft.answer.append(
        f"{name} was predicted for {total:,} samples, with {100 * prob:g}% intervals {width:.3g} "
        f"wide on average. Predicted and measured {name} should correlate {of_phenotype:.2f}"
        + (
            "; over the analysed samples, each left out in turn, they do "
            f"{left_out.correlation:.2f}."
            if measured is None
            else f"; over {measured.n:,} measured ones that were not used they do "
            f"{measured.correlation:.2f}"
            + ("." if binary else f", and {share(measured.coverage)} lie within their interval.")
        )
    )
    draft.checks.append(diagnostics.of_predictions(of_value, of_phenotype, measured, binary=binary))
    draft.method(
        f"{name} of {total:,} further samples was predicted by {'genomic ' * genomic}BLUP, "
        f"averaged over {predicted.attrs['draws']:,} draws from the posterior of all parameters",
        *(["blup", "gblup"] if genomic else ["blup"]),
    )
    draft.method(
        "Accuracy was assessed by exact leave-one-out prediction of the analysed samples at the "
        "REML estimate",
        "loo",
    )
    if measured is not None:
        draft.method(
            f"Predictions were compared with the phenotypes of {measured.n:,} samples that were "
            "not used"
        )


def _spread(values: pd.Series) -> str:
    return (
        f"mean {values.mean():.3g}, sd {values.std(ddof=0):.3g}, {values.min():.3g} to "
        f"{values.max():.3g}"
    )


def _comparison(
    predicted: pd.DataFrame,
    of_phenotype: float,
    left_out: Accuracy,
    measured: Accuracy | None,
    prob: float,
    *,
    binary: bool,
) -> str:
    """Expected and measured accuracy, a row for each."""
    within = f"within {100 * prob:g}% interval"
    expected = {
        "": "expected by the model",
        "samples": len(predicted),
        "correlation": of_phenotype,
        "low": np.nan,
        "high": np.nan,
        "slope": 1.0,
        "rmse": float(np.sqrt((predicted.y_sd**2).mean())),
        within: prob,
    }
    rows = [expected]
    for what, found in (("analysed, each left out", left_out), ("not used, measured", measured)):
        if found is not None:
            row = [what, found.n, found.correlation, found.low, found.high]
            row += [found.slope, found.rmse, found.coverage]
            rows.append(dict(zip(expected, row, strict=True)))
    shown = pd.DataFrame(rows)
    if binary:
        shown = shown.drop(columns=within)
    return table(
        shown,
        {
            "samples": "{:,}".format,
            "correlation": "{:.2f}".format,
            "low": "{:.2f}".format,
            "high": "{:.2f}".format,
            "slope": "{:.2f}".format,
            "rmse": "{:.3g}".format,
            within: "{:.1%}".format,
        },
        caption="low, high: 95% interval of the correlation, as if samples were independent. "
        "slope: of measured on predicted; below 1, predictions are too far apart. The analysed "
        "samples have each other as relatives: expect as much of others only if they are as "
        "closely related to them.",
    )


def _scatter(ax: Axes, *, check: ResidualCheck, predicted: pd.DataFrame, name: str) -> None:
    from bayeslmm.plots.drawing import ACCENT, FAINT, LIGHT, clean, plain_legend

    dots: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "markersize": 3.2,
        "markeredgewidth": 0,
    }
    ax.plot(
        check.table.loo_mean,
        check.table.y,
        color=LIGHT,
        alpha=0.6,
        label="analysed, left out",
        **dots,
    )
    if "y_observed" in predicted:
        ax.plot(
            predicted.y_mean, predicted.y_observed, color=ACCENT, label="not used, measured", **dots
        )
    ends = [*ax.get_xlim()]
    ax.plot(ends, ends, color=FAINT, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
    ax.set_xlabel(f"Predicted {name}")
    ax.set_ylabel(f"Measured {name}")
    clean(ax)
    plain_legend(ax)


def _ends(predicted: pd.DataFrame, prob: float) -> str:
    """The predictions at both ends, or all if they are few."""
    ordered = predicted.sort_values("y_mean", ascending=False, kind="stable")
    if len(ordered) > 2 * _EACH_END:
        ordered = pd.concat([ordered.head(_EACH_END), ordered.tail(_EACH_END)])
    columns = ["y_mean", "y_low", "y_high", "u_mean", "u_low", "u_high"]
    columns += ["y_observed"] if "y_observed" in ordered else []
    return table(
        ordered[columns].reset_index(),
        dict.fromkeys(columns, "{:.3g}".format),
        sortable=True,
        caption=f"y: phenotype; u: genetic value; low, high: {100 * prob:g}% interval"
        + ("; y_observed: measured, not used" if "y_observed" in ordered else "")
        + ". All are in predictions.tsv, where bayeslmm predict made them.",
    )
