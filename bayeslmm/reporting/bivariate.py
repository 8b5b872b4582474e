"""The report of two traits: genetic and residual correlation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.model.tables import interval
from bayeslmm.reporting import diagnostics, pages
from bayeslmm.reporting.drafts import (
    Draft,
    account,
    draw,
    in_numbers,
    listed,
    refuse_foreign,
)
from bayeslmm.reporting.pages import definitions, figure, heading, paragraph, table

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from bayeslmm.bivariate.genetic_correlation import RgReport
    from bayeslmm.bivariate.model import BivariateLMM


class BivariateDraft(Draft):
    """Two traits: their genetic correlation, and everything beside it."""

    def __init__(self, model: BivariateLMM, tree: xr.DataTree | None, seed: int) -> None:
        from bayeslmm.bivariate.genetic_correlation import rg_report

        super().__init__(listed(model.formulas), len(model.ids), seed)
        if tree is not None:
            refuse_foreign(tree, "rg", "model of two traits")
        self.model = model
        self.found: RgReport = rg_report(model, tree=tree, seed=seed)
        self._data()
        self._model()
        self._correlations()
        self._heritabilities()
        for text in self.found.words:
            if text.startswith("! "):
                self.checks.append(diagnostics.Check("Two traits", "look", text[2:]))
        self.checks.append(diagnostics.of_draws(self.found.tree))
        for trait, alone in zip(model.traits, model.each(), strict=True):
            self.residuals(alone.check_residuals(), trait)

    def _data(self) -> None:
        model = self.model
        section = self.section("data", "Data", "Data")
        section.add(account(model.samples))
        y = model.y
        rows = {
            f"phenotype {i}": in_numbers(trait, y[trait].dropna().to_numpy())
            for i, trait in enumerate(model.traits, 1)
        }
        for trait in model.traits:
            names = [name for of, name in model.covariates if of == trait]
            rows[f"covariates of {trait}"] = ", ".join(names) or "none"
        rows["with both"] = f"{model.n_both:,}"
        section.add(definitions(rows))
        both = y.dropna()
        if len(both) > 1:

            def scatter(ax: Axes) -> None:
                from bayeslmm.plots.drawing import DARK, clean

                ax.plot(
                    *both.to_numpy().T, "o", ms=3, mew=0, color=DARK, alpha=0.5, rasterized=True
                )
                ax.set(xlabel=model.traits[0], ylabel=model.traits[1])
                clean(ax)

            section.add(
                figure(
                    scatter,
                    (4.6, 3.8),
                    f"{model.traits[1]} against {model.traits[0]}",
                    "Each point is a sample with both traits.",
                )
            )
        self.checks.append(diagnostics.of_samples(model.samples))
        for trait, alone in zip(model.traits, model.each(), strict=True):
            self.checks.append(diagnostics.of_phenotype(alone.y, trait))

    def _model(self) -> None:
        section = self.section("model", "Model and priors", "Model")
        y, C, b, u, e = (pages.symbol(name, "t") for name in ("y", "C", "b", "u", "e"))
        both = (
            "<mo>(</mo><msub><mi>{0}</mi><mn>1</mn></msub><mo>,</mo>"
            "<msub><mi>{0}</mi><mn>2</mn></msub><mo>)</mo>"
        )
        G, R, K = (pages.symbol(name) for name in "GRK")
        report = self.found
        section.add(
            paragraph(
                "For each trait t, a sample's phenotype is the sum of the effects of its "
                "covariates, of its genome as a whole (u) and of everything else (e). The genetic "
                "effects of both traits are correlated, and so is the rest:"
            ),
            pages.formula(
                f"<mrow>{y}{pages.EQUALS}{C}{b}{pages.PLUS}{u}{pages.PLUS}{e}</mrow>",
                f"<mrow>{both.format('u')}{pages.FOLLOWS}"
                f"{pages.gaussian(G + pages.TIMES + K)}</mrow>",
                f"<mrow>{both.format('e')}{pages.FOLLOWS}"
                f"{pages.gaussian(R + pages.TIMES + pages.IDENTITY)}</mrow>",
            ),
            paragraph(
                "The genetic correlation rg is that of G, the residual correlation re that of R."
            ),
            definitions(
                {
                    "K": repr(self.model.kernel).strip("<>"),
                    "κ": f"{report.fit.kappa:.4g}, the mean diagonal of K centred on these samples",
                    "priors": str(report.tree.attrs["priors"]),
                }
            ),
        )
        self.method(
            f"{listed(self.model.traits)} of {self.n:,} samples ({report.n_both:,} with both) were "
            "analysed by a bivariate linear mixed model with genetic covariance proportional to "
            "the relatedness matrix",
            "two",
            "grm",
        )

    def _correlations(self) -> None:
        from bayeslmm import plots

        report, fit = self.found, self.found.fit
        one, two = report.traits
        section = self.section("rg", f"Genetic correlation of {one} and {two}", "Correlation")
        rg = report.table.loc["rg"]
        self.answer.append(
            f"The genetic correlation of {one} and {two} is {rg['mean']:.2f}; with probability "
            f"{100 * report.prob:g}% between {rg.low:.2f} and {rg.high:.2f}. {report.words[0]}"
        )
        reml = {"rg": (fit.rg, fit.rg_se), "re": (fit.re, fit.re_se)}
        names = {
            "rg": "genetic correlation",
            "re": "residual correlation",
            "rp": "phenotypic correlation",
        }
        rows = [
            (
                name,
                *report.table.loc[key, ["mean", "sd", "low", "high", "p_positive"]],
                *reml.get(key, (np.nan, np.nan)),
            )
            for key, name in names.items()
        ]
        columns = ["quantity", "mean", "sd", "low", "high", "P(> 0)", "REML", "SE"]
        three = dict.fromkeys(columns[1:], "{:.3f}".format)
        section.add(
            figure(
                partial(draw, plots.rg, report, title=""),
                (7.4, 3.6),
                f"Posterior density of the genetic correlation, mean {rg['mean']:.2f}",
            ),
            table(
                pd.DataFrame(rows, columns=columns),
                three,
                caption=f"Posterior mean and sd, the shortest {100 * report.prob:g}% interval, the "
                "probability of being positive; REML with its standard error.",
            ),
            figure(
                partial(draw, plots.two_traits, report, title=""),
                (5.2, 4.4),
                "Joint posterior of the genetic and the residual correlation",
                "Genetic and residual correlation together: a phenotypic correlation of a given "
                "size can be split in many ways.",
            ),
            *(paragraph(text) for text in report.words[1:] if not text.startswith("! ")),
        )
        if fit.tests is not None:
            tests = fit.tests.rename_axis("null").reset_index()[["null", "statistic", "p"]]
            section.add(
                heading("Is it 0, or complete?"),
                paragraph(
                    f"The log10 Bayes factor of rg ~ {report.rg_prior} against rg = 0 is "
                    f"{report.log10_bf:.2f}. Restricted likelihood-ratio tests:"
                ),
                table(tests, {"statistic": "{:.2f}".format, "p": "{:.2g}".format}),
            )
        self.method(
            f"The posterior of genetic and residual covariances ({report.tree.attrs['priors']}) "
            f"was computed by {report.tree.attrs['sampler']}, and rg was {rg['mean']:.3f} "
            f"(posterior mean; 95% highest-density interval {rg.low:.3f} to {rg.high:.3f}); REML "
            f"gave {fit.rg:.3f}",
            "lkj",
            "pareto",
        )

    def _heritabilities(self) -> None:
        from bayeslmm import plots

        report, fit = self.found, self.found.fit
        section = self.section("h2", "h² of both traits", "h²")
        rows = [
            (
                trait,
                *report.table.loc[f"h2 of {trait}", ["mean", "sd", "low", "high"]],
                fit.h2[trait],
                fit.h2_se[trait],
            )
            for trait in report.traits
        ]
        columns = ["trait", "mean", "sd", "low", "high", "REML", "SE"]
        three = dict.fromkeys(columns[1:], "{:.3f}".format)
        b = fit.b.reset_index()
        section.add(
            figure(
                partial(draw, plots.two_traits, report, "h2", title=""),
                (5.2, 4.4),
                "Joint posterior of h² of both traits",
            ),
            table(
                pd.DataFrame(rows, columns=columns),
                three,
                caption="Posterior of h² of each trait, both analysed together, and REML.",
            ),
            heading("Covariances"),
            table(
                _covariances(report),
                dict.fromkeys(("mean", "sd", "low", "high", "REML", "SE"), "{:.4g}".format),
                caption="In units of the phenotypes; the genetic ones on the scale of K.",
            ),
            heading("Covariates"),
            table(
                b,
                dict.fromkeys(("estimate", "se"), "{:.4g}".format),
                caption="Effects in units of the phenotypes, at the REML estimate.",
            ),
        )


def _covariances(report: RgReport) -> pd.DataFrame:
    """Genetic and residual variances and covariances: posterior and REML."""
    fit, posterior = report.fit, report.tree["posterior"].dataset
    rows = []
    for part, name, covariance, value, se in (
        ("genetic", "s2_g", "cov_g", fit.genetic, fit.genetic_se),
        ("residual", "s2_e", "cov_e", fit.residual, fit.residual_se),
    ):
        for i, j in ((0, 0), (0, 1), (1, 1)):
            draws = posterior[covariance] if i != j else posterior[name].isel(trait=i)
            values = draws.to_numpy()
            traits = report.traits[i] if i == j else f"{report.traits[i]} and {report.traits[j]}"
            rows.append(
                (
                    part,
                    traits,
                    values.mean(),
                    values.std(),
                    *interval(values, report.prob),
                    value.iloc[i, j],
                    se.iloc[i, j],
                )
            )
    return pd.DataFrame(rows, columns=["part", "of", "mean", "sd", "low", "high", "REML", "SE"])
