"""The report of repeated measures: heritability, repeatability, permanent environment."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, in_short
from bayeslmm.model.tables import interval
from bayeslmm.reporting import diagnostics, pages
from bayeslmm.reporting.drafts import Draft, account, draw, histogram, in_numbers, listed, share
from bayeslmm.reporting.pages import definitions, figure, heading, paragraph, table
from bayeslmm.runs.results import trait_names

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from bayeslmm.repeated.model import RepeatedLMM

_MOST_INDIVIDUALS = 20
_RECORDS = (1, 2, 3, 5, 10)
# Posterior sd of the genetic part of the repeatability above which the data have said little of
# it; that of its uniform prior is 0.29.
_UNKNOWN = 0.2


class RepeatedDraft(Draft):
    """Repeated measures of individuals: what of their variance is genetic, lasting, passing.

    Parameters
    ----------
    model : RepeatedLMM
        The model.
    tree : DataTree or None
        Draws of its posterior; None to sample now, genetic values included.
    seed : int
        For everything random.

    Raises
    ------
    InputError
        If the draws are of another model.
    """

    def __init__(self, model: RepeatedLMM, tree: xr.DataTree | None, seed: int) -> None:
        n = len(model.individuals)
        counted = f"{len(model.y):,} records of {n:,} individuals"
        super().__init__(model.formula, n, seed, counted)
        self.model, self.name = model, trait_names([model.formula])[0]
        if tree is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said again by the checks
                tree = model.sample(seed=seed, u=True)
        self.tree = _of_this_model(tree, model)
        self.fit = model.reml()
        self._data()
        self._model()
        self._shares()
        self._records()
        if "u" in self.tree["posterior"].dataset:
            self._individuals()
        self._look()

    def _data(self) -> None:
        model, counts = self.model, self.model.counts
        several = int((counts > 1).sum())
        section = self.section("data", "Data", "Data")
        section.add(
            account(model.records, "records", "Every row of the table."),
            definitions(
                {
                    "phenotype": in_numbers(self.name, model.y),
                    "individuals": f"{self.n:,}, {several:,} of them with two records or more",
                    "records of one": f"{counts.iloc[0]}, of everybody"
                    if model.balanced
                    else f"{counts.min()} to {counts.max()}, {counts.mean():.3g} on average",
                    "covariates": in_short(model.C.columns),
                }
            ),
            histogram(self.name, model.y, "Records"),
        )
        if not model.balanced:

            def bars(ax: Axes) -> None:
                from matplotlib.ticker import MaxNLocator

                from bayeslmm.plots.drawing import DARK, INK, clean

                at = counts.value_counts().sort_index()
                ax.bar(at.index.to_numpy(), at.to_numpy(), color=DARK, width=0.8)
                ax.set(xlabel="Records of an individual", ylabel="Individuals")
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
                clean(ax)
                ax.tick_params(labelcolor=INK)

            section.add(figure(bars, (6.2, 2.3), "How many individuals have how many records"))

    def _model(self) -> None:
        model, attrs = self.model, self.tree.attrs
        section = self.section("model", "Model and priors", "Model")
        y, C, b, Z, u, p, e, K = (pages.symbol(name) for name in "yCbZupeK")
        s2_g, s2_p, s2_e = (pages.symbol("σ", part, "2") for part in "gpe")
        kappa, plus_p = pages.symbol("κ"), f"{pages.PLUS}{s2_p}"
        whole = f"{s2_g}{kappa}{plus_p}{pages.PLUS}{s2_e}"
        from_pedigree = model.grm is not None and model.grm.scale == "pedigree"
        relationships = f"{'pedigree' if from_pedigree else 'genetic'} relationship matrix"
        given = {
            f"prior of {name}": text for name, text in dict(attrs.get("priors", {})).items()
        } or {
            "prior of the shares": "Dirichlet(1, 1, 1) on genetic, permanent and residual: all "
            "splits are equally probable; h² ~ Beta(1, 2), repeatability ~ Beta(2, 1)",
            "prior of the total": "standard deviation ~ half Student-t(4), scale sd(y)",
        }
        section.add(
            paragraph(
                "Each record is the sum of the effects of its covariates (C b), of what the "
                "individual inherited (u), of whatever else all its records have in common (p, the "
                "permanent environment), and of what is of this record alone (e). Z says whose "
                "record it is."
            ),
            pages.formula(
                f"<mrow>{y}{pages.EQUALS}{C}{b}{pages.PLUS}{Z}<mo>(</mo>{u}{pages.PLUS}{p}<mo>)</mo>{pages.PLUS}{e}"
                "</mrow>",
                f"<mrow>{u}{pages.FOLLOWS}{pages.gaussian(s2_g + K)}</mrow>",
                f"<mrow>{p}{pages.FOLLOWS}{pages.gaussian(s2_p + pages.IDENTITY)}</mrow>",
                f"<mrow>{e}{pages.FOLLOWS}{pages.gaussian(s2_e + pages.IDENTITY)}</mrow>",
            ),
            paragraph(
                "Of the variance left by C, h² is the genetic share, and t, the repeatability, "
                "that of all that lasts: the correlation of two records of one individual."
            ),
            pages.formula(
                f"<mrow>{pages.symbol('h', '', '2')}{pages.EQUALS}"
                f"{pages.fraction(s2_g + kappa, whole)}</mrow>",
                f"<mrow>{pages.symbol('t')}{pages.EQUALS}"
                f"{pages.fraction(s2_g + kappa + plus_p, whole)}</mrow>",
            ),
            definitions(
                {
                    "K": repr(model.kernel).strip("<>"),
                    "κ": f"{self.fit.kappa:.4g}, the mean diagonal of K centred on these "
                    "individuals",
                    **given,
                    "prior of b": "normal around 0, sd 10 sd(y) / sd(C)",
                }
            ),
        )
        self.method(
            f"{len(model.y):,} records of {self.name} of {self.n:,} individuals were analysed by a "
            f"linear mixed model with {listed(model.C.columns)} as fixed effects, a genetic effect "
            f"with covariance proportional to the {relationships} and a permanent environmental "
            "effect of each individual",
            "repeated",
            "pedigree" if from_pedigree else "grm",
        )

    def _shares(self) -> None:
        from bayeslmm import plots

        fit, posterior = self.fit, self.tree["posterior"].dataset
        section = self.section("shares", f"What the variance of {self.name} is made of", "Shares")
        draws = {
            "genetic (h²)": posterior["h2"],
            "permanent environment": posterior["repeatability"] - posterior["h2"],
            "residual": 1 - posterior["repeatability"],
            "repeatability": posterior["repeatability"],
            "V(G)/V(P)": posterior["vg_over_vp"],
        }
        reml = [*zip(*fit.components[["share", "share_se"]].to_numpy().T, strict=True)]
        reml += [(fit.repeatability, fit.repeatability_se), (fit.vg_over_vp, np.nan)]
        shown = _summary(draws, reml)
        h2, repeatability = shown.loc[0], shown.loc[3]
        self.answer.append(
            f"The genome accounts for {share(h2['mean'])} of the variance of {self.name}; with "
            f"probability 95% for {share(h2.low)} to {share(h2.high)}. Two records of one "
            f"individual have a correlation (repeatability) of {repeatability['mean']:.2f} "
            f"({repeatability.low:.2f} to {repeatability.high:.2f})."
        )
        three = dict.fromkeys(("mean", "sd", "low", "high", "REML", "SE"), "{:.3f}".format)
        components = {
            name: posterior[key]
            for name, key in (
                ("genetic, on the scale of K", "s2_g"),
                ("permanent", "s2_p"),
                ("residual", "s2_e"),
            )
        }
        variances = _summary(components, fit.components[["s2", "s2_se"]].to_numpy().tolist())
        four = dict.fromkeys(("mean", "sd", "low", "high", "REML", "SE"), "{:.4g}".format)
        b = posterior["b"]
        effects = _summary(
            {str(name): b.sel(covariate=name) for name in b.covariate.to_numpy()},
            fit.b[["estimate", "se"]].to_numpy().tolist(),
        ).rename(columns={"quantity": "covariate"})
        section.add(
            figure(
                partial(draw, plots.repeatability, self.tree, fit, title=""),
                (7.0, 3.6),
                f"Posterior densities of h², mean {h2['mean']:.2f}, and of the repeatability, mean "
                f"{repeatability['mean']:.2f}",
                "What lies between the two is the permanent environment."
                + ("" if self.tree.attrs.get("priors") else " Dashed: the priors."),
            ),
            table(
                shown,
                three,
                caption="Posterior mean and sd, the shortest interval that holds the share with "
                "probability 95%; REML with its standard error (none where an estimate is 0). "
                "V(G)/V(P) is the genetic variance over the sum of all three, without κ: with a "
                "pedigree, h² in its base population.",
            ),
            figure(
                partial(draw, plots.shares, self.tree, fit, title=""),
                (7.0, 2.9),
                "Shares of the genome, the permanent environment and the residual",
            ),
            heading("Variances"),
            table(
                variances.rename(columns={"quantity": "variance"}),
                four,
                caption="In squared units of the phenotype.",
            ),
            heading("Covariates"),
            table(effects, four, caption="Effects in units of the phenotype."),
        )
        self.method(
            "Variance components were estimated by restricted maximum likelihood: h2 "
            f"{fit.h2:.3f}, repeatability {fit.repeatability:.3f}",
            "reml",
        )
        priors = self.tree.attrs.get("priors") or {"shares": "Dirichlet(1, 1, 1)"}
        self.method(
            f"Their posterior ({'; '.join(f'{k} ~ {v}' for k, v in dict(priors).items())}) was "
            f"sampled by the No-U-Turn sampler; h2 was {h2['mean']:.3f} (posterior mean; 95% "
            f"highest-density interval {h2.low:.3f} to {h2.high:.3f}), the repeatability "
            f"{repeatability['mean']:.3f} ({repeatability.low:.3f} to {repeatability.high:.3f})",
            "nuts",
        )

    def _records(self) -> None:
        """What the mean of k records is worth."""
        posterior = self.tree["posterior"].dataset
        h2, t = posterior["h2"], posterior["repeatability"]
        rows = _summary({str(k): h2 / (t + (1 - t) / k) for k in _RECORDS}, [(np.nan, np.nan)] * 5)
        section = self.section("records", "What more records would bring", "Records")
        section.add(
            paragraph(
                "h² of the mean of k records of an individual: passing influences average out, the "
                "permanent environment does not. Where the numbers stop growing, more records of "
                "the same individuals say little about their genes."
            ),
            table(
                rows[["mean", "low", "high"]].assign(k=_RECORDS)[["k", "mean", "low", "high"]],
                dict.fromkeys(("mean", "low", "high"), "{:.3f}".format),
                caption="h² / (t + (1 - t) / k), with t the repeatability.",
            ),
        )

    def _individuals(self) -> None:
        model = self.model
        values = model.random_effects(self.tree, seed=self.seed)
        of_each = pd.Series(model.y).groupby(np.asarray(model.owner)).mean()
        values["records"], values["mean"] = model.counts, of_each
        highest = values.nlargest(_MOST_INDIVIDUALS, "u_mean").rename_axis("individual")
        columns = ["individual", "records", "mean", "u_mean", "u_sd", "u_low", "u_high"]
        section = self.section("individuals", "Genetic values", "Genetic values")
        section.add(
            paragraph(
                "What each individual inherited, in units of the phenotype, relative to the mean "
                "of all analysed: its own records and those of its relatives together."
            ),
            table(
                highest.reset_index()[columns].rename(columns={"mean": "mean of its records"}),
                dict.fromkeys(("mean of its records", *columns[3:]), "{:.4g}".format),
                sortable=True,
                caption=f"The {len(highest)} highest of {self.n:,}, with 95% intervals. All of "
                "them: model.random_effects(draws).",
            ),
        )

    def _look(self) -> None:
        model, posterior = self.model, self.tree["posterior"].dataset
        h2, t = (posterior[name].to_numpy().ravel() for name in ("h2", "repeatability"))
        self.checks += [
            diagnostics.of_samples(model.records, "records"),
            diagnostics.of_individuals(model.counts),
            diagnostics.of_phenotype(model.y, unit="records"),
            *diagnostics.of_kernel(model.grm, model.individuals),
        ]
        genetic_part = h2 / t
        only_sum = bool(genetic_part.std() > _UNKNOWN)
        self.checks.append(
            diagnostics.Check(
                "Genetic or permanent",
                "look" if only_sum else "good",
                f"Genetic part of what lasts: {share(genetic_part.mean())}, posterior sd "
                f"{share(genetic_part.std())}.",
                "Relatives hardly tell genes from permanent environment: report the repeatability."
                if only_sum
                else "",
            )
        )
        boundary = self.fit.boundary
        self.checks.append(
            diagnostics.Check(
                "REML",
                "look" if boundary else "good",
                f"On the boundary: {boundary}." if boundary else "No share is at 0.",
                "Of a share at 0 REML has no standard error: read the posterior's interval."
                if boundary
                else "",
            )
        )
        self.checks.append(diagnostics.of_sampling(self.tree))
        self.residuals(model.check_residuals())


def _of_this_model(tree: xr.DataTree, model: RepeatedLMM) -> xr.DataTree:
    """The draws, if they are of this model."""
    attrs = tree.attrs
    if "repeatability" not in tree["posterior"].dataset:
        raise InputError(
            "These draws have no repeatability: they are not of a model of repeated measures."
        )
    theirs = (attrs.get("formula"), attrs.get("n_records"), attrs.get("n_individuals"))
    ours = (model.formula, len(model.y), len(model.individuals))
    if theirs != ours:
        raise InputError(
            "These draws are of {!r}, {} records of {} individuals; the model is of {!r}, {} and "
            "{}.".format(*theirs, *ours)
        )
    return tree


def _summary(draws: dict[str, Any], reml: list[Any]) -> pd.DataFrame:
    """Posterior of each quantity, and its REML estimate, as rows."""
    rows = []
    for (name, values), (value, se) in zip(draws.items(), reml, strict=True):
        flat = np.ravel(values)
        rows.append((name, flat.mean(), flat.std(), *interval(flat), value, se))
    return pd.DataFrame(rows, columns=["quantity", "mean", "sd", "low", "high", "REML", "SE"])
