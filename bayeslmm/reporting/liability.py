"""The report of the liability of a disease: its heritability, and risks."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import in_short
from bayeslmm.model.tables import interval
from bayeslmm.reporting import diagnostics, pages
from bayeslmm.reporting.drafts import Draft, account, draw, listed, refuse_foreign, share
from bayeslmm.reporting.pages import definitions, figure, heading, paragraph, table
from bayeslmm.runs.results import trait_names

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from bayeslmm.binary.liability import LiabilityLMM

_MOST_AT_RISK = 20


class LiabilityDraft(Draft):
    """Cases and controls: h2 on its scales, covariates, risks."""

    def __init__(
        self, model: LiabilityLMM, tree: xr.DataTree | None, groups: Any, seed: int
    ) -> None:
        super().__init__(model.formula, len(model.y), seed)
        self.model, self.name = model, trait_names([model.formula])[0]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.tree = model.sample(seed=seed) if tree is None else tree
        refuse_foreign(self.tree, "h2", "liability model")
        self._data()
        self._model()
        self._scales(groups)
        if "latent" in self.tree.children:
            self._risks()
        self.checks += [
            diagnostics.of_samples(model.samples),
            diagnostics.of_cases(model.cases),
            self._design(),
            diagnostics.of_sampling(self.tree, few="Raise draws"),
            *diagnostics.of_kernel(model.observed.grm, model.ids),
        ]
        del told  # said again by the checks

    def _data(self) -> None:
        model = self.model
        rows = {"phenotype": str(model.cases), "share of cases": f"{model.sample_prevalence:.3g}"}
        if model.prevalence is not None:
            rows["prevalence in the population"] = f"{model.prevalence:g}"
        rows["covariates"] = in_short(model.C.columns)
        self.section("data", "Data", "Data").add(account(model.samples), definitions(rows))

    def _model(self) -> None:
        model = self.model
        section = self.section("model", "Model and priors", "Model")
        liability, C, b, u, e = (pages.symbol(name) for name in ("l", "C", "b", "u", "e"))
        h2 = pages.symbol("h", "", "2")
        rest = f"<mo>(</mo><mn>1</mn><mo>-</mo>{h2}<mo>)</mo>{pages.IDENTITY}"
        grm = model.observed.grm
        section.add(
            paragraph(
                "Behind the trait stands a liability that nobody sees: the sum of the effects of "
                "covariates (C b), of the genome as a whole (u) and of everything else (e). Who is "
                "above 0 is a case. Its variance, covariates aside, is 1, and h² is the genome's "
                "part of it."
            ),
            pages.formula(
                f"<mrow>{liability}{pages.EQUALS}{C}{b}{pages.PLUS}{u}{pages.PLUS}{e}</mrow>",
                f"<mrow>{u}{pages.FOLLOWS}"
                f"{pages.gaussian(h2 + pages.symbol('K') + '<mo>/</mo>' + pages.symbol('κ'))}"
                "</mrow>",
                f"<mrow>{e}{pages.FOLLOWS}{pages.gaussian(rest)}</mrow>",
            ),
            definitions(
                {
                    "K": repr(grm).strip("<>") if grm is not None else "given as its eigenbasis",
                    "κ": f"{float(self.tree.attrs['kappa']):.4g}, the mean diagonal of K centred "
                    "on these samples",
                    "prior of h²": str(model.h2_prior),
                    "prior of b": f"normal, sd {model.b_sd:g} per sd of the covariate",
                }
            ),
        )
        self.method(
            f"{model.cases.n_cases:,} cases and {model.cases.n_controls:,} controls of {self.name} "
            f"were analysed by a probit mixed model (liability threshold) with "
            f"{listed(model.C.columns)} as fixed effects and a polygenic effect with covariance "
            "proportional to the genetic relatedness matrix",
            "liability",
            "probit",
            "grm",
        )

    def _scales(self, groups: Any) -> None:
        from bayeslmm import plots

        model, posterior = self.model, self.tree["posterior"].dataset
        scales = model.scales(self.tree, groups=groups)
        section = self.section("h2", f"Heritability of {self.name}", "Heritability")
        advised = scales[scales.advised].iloc[0]
        self.answer.append(
            f"{model.cases}. The genome accounts for {share(advised['mean'])} of the variance of "
            f"the liability; with probability 95% for {share(advised.low)} to "
            f"{share(advised.high)}."
        )
        names = {
            "observed": "observed scale",
            "transformed": "observed, transformed",
            "liability": "liability model",
            "pcgc": "PCGC regression",
        }
        shown = scales.reset_index()
        shown["estimate"] = shown.estimate.map(names)
        shown["advised"] = np.where(shown.advised, "yes", "")
        draws = posterior["h2"].to_numpy().ravel()
        b = posterior["b"]
        effects = pd.DataFrame(
            [
                (str(name), values.mean(), values.std(), *interval(values))
                for name in b.covariate.to_numpy()
                for values in [np.ravel(b.sel(covariate=name))]
            ],
            columns=["covariate", "mean", "sd", "low", "high"],
        )
        three = dict.fromkeys(("mean", "sd", "low", "high"), "{:.3f}".format)
        section.add(
            figure(
                partial(draw, plots.liability_scales, scales),
                (7.6, 1.4 + 0.7 * len(scales)),
                "The number on the observed scale, and the heritability of the liability",
                "Only the scale of the liability says something about the trait rather than about "
                "the sample.",
            ),
            table(
                shown[["estimate", "mean", "sd", "low", "high", "scale", "advised"]],
                three,
                caption="95% intervals: highest density; for PCGC ± 1.96 standard errors.",
            ),
            heading("The posterior of h²"),
            figure(
                partial(_density, draws, model),
                (6.4, 2.8),
                f"Posterior density of the heritability of the liability, mean {draws.mean():.2f}",
            ),
            heading("Covariates"),
            table(
                effects,
                three,
                caption="Effects on the liability, in its sd, per unit of the covariate.",
            ),
        )
        self.method(
            f"The posterior (h2 ~ {model.h2_prior}) was sampled by Gibbs sampling of the "
            f"liabilities on the eigenbasis of the relatedness matrix; h2 of the liability was "
            f"{draws.mean():.3f} (95% highest-density interval "
            f"{' to '.join(f'{end:.3f}' for end in interval(draws))})",
            "probit",
        )
        self.method("The observed scale was transformed to the liability", "transform")
        if "pcgc" in scales.index:
            self.method(
                f"PCGC regression at prevalence {model.prevalence:g} gave "
                f"{scales['mean']['pcgc']:.3f} (SE {scales['sd']['pcgc']:.3f})",
                "pcgc",
            )

    def _risks(self) -> None:
        model = self.model
        section = self.section("risk", "Genetic risk of the samples", "Risk")
        risks = model.predict(self.tree)
        case = model.y.astype(bool)
        highest = risks.assign(status=np.where(case, model.cases.case, model.cases.control))
        highest = highest.nlargest(_MOST_AT_RISK, "risk").rename_axis("sample").reset_index()
        columns = ["sample", "status", "risk", "risk_low", "risk_high", "u_mean", "u_sd"]

        def both(ax: Axes) -> None:
            from bayeslmm.plots.drawing import ACCENT, DARK, clean, plain_legend

            edges = np.linspace(0, 1, 31).tolist()
            for chosen, color, label in (
                (~case, DARK, model.cases.control),
                (case, ACCENT, model.cases.case),
            ):
                ax.hist(
                    risks.risk[chosen], edges, histtype="step", lw=1.8, color=color, label=label
                )
            ax.set(xlabel="Risk (posterior mean)", ylabel="Samples", xlim=(0, 1))
            clean(ax)
            plain_legend(ax)

        section.add(
            paragraph(
                "The chance that another person with this genetic value and these covariates is a "
                "case. A sample's own status has gone into its genetic value: cases and controls "
                "are further apart here than they would be in a prediction of new samples."
            ),
            figure(both, (6.4, 2.8), "Histograms of the risk of cases and of controls"),
            table(
                highest[columns],
                dict.fromkeys(columns[2:], "{:.3f}".format),
                sortable=True,
                caption=f"The {len(highest)} samples of highest risk, with 90% intervals; u: "
                "genetic value, in sd of the liability.",
            ),
        )

    def _design(self) -> diagnostics.Check:
        """Whether samples were chosen for their status."""
        model = self.model
        if model.prevalence is None:
            return diagnostics.Check(
                "Sampling of cases",
                "look",
                f"Cases are {share(model.sample_prevalence)} of the samples; how common they are "
                "in the population was not said.",
                "If samples were chosen for their status, say the prevalence: h2 of the liability "
                "model is of a random sample.",
            )
        if model.ascertained:
            return diagnostics.Check(
                "Sampling of cases",
                "look",
                f"Cases are {share(model.sample_prevalence)} of the samples and "
                f"{100 * model.prevalence:g}% of the population: a case-control sample.",
                "Use PCGC for h2, not the liability model.",
            )
        return diagnostics.Check(
            "Sampling of cases",
            "good",
            f"Cases are as common among the samples as in the population "
            f"({100 * model.prevalence:g}%).",
        )


def _density(draws: np.ndarray, model: LiabilityLMM, ax: Axes) -> None:
    """Posterior density of h2 on the liability, its prior, and its shortest 95% interval."""
    from bayeslmm.plots.drawing import DARK, FAINT, LIGHT, clean, kernel_density, plain_legend

    x, density = kernel_density(draws)
    low, high = interval(draws)
    inside = (x >= low) & (x <= high)
    ax.plot(x, density, color=DARK, lw=1.8, label="posterior density")
    ax.fill_between(
        x[inside],
        density[inside],
        color=LIGHT,
        alpha=0.45,
        lw=0,
        label=f"95% most probable: {low:.2f} to {high:.2f}",
    )
    grid = np.linspace(0.001, 0.999, 400)
    prior = np.exp(model.h2_prior.log_density(grid))
    ax.plot(
        grid,
        np.minimum(prior, 1.1 * density.max()),
        color=FAINT,
        lw=1.3,
        ls=(0, (5, 2)),
        label=f"prior: {model.h2_prior}",
    )
    ax.set(xlim=(0, 1), ylim=(0, 1.5 * density.max()), xlabel="h² of the liability", yticks=[])
    clean(ax)
    plain_legend(ax)
