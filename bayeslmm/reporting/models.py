"""Reports of models other than `LMM`: several kernels, two traits, the liability of a disease."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.model.heritability import h2_noun
from bayeslmm.model.tables import interval
from bayeslmm.reporting import diagnostics, pages
from bayeslmm.reporting.drafts import Draft, account, draw, histogram, in_numbers, listed, share
from bayeslmm.reporting.pages import definitions, figure, heading, paragraph, table
from bayeslmm.runs.files import refuse_existing
from bayeslmm.runs.results import trait_names

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from bayeslmm.binary.liability import LiabilityLMM
    from bayeslmm.bivariate.genetic_correlation import RgReport
    from bayeslmm.bivariate.model import BivariateLMM
    from bayeslmm.inputs.genotypes import Genotypes
    from bayeslmm.partition.model import PartitionedLMM
    from bayeslmm.repeated.model import RepeatedLMM

    type Model = PartitionedLMM | BivariateLMM | LiabilityLMM | RepeatedLMM

_MOST_OVERLAPS, _MOST_AT_RISK = 12, 20
_EQUALS, _PLUS, _FOLLOWS = map(pages.operator, ("=", "+", "∼"))


def report_model(
    model: Model,
    path: str | os.PathLike[str],
    *,
    tree: xr.DataTree | None = None,
    genotypes: Genotypes | None = None,
    groups: Any = None,
    title: str | None = None,
    question: str = "",
    about: Mapping[str, Any] | None = None,
    seed: int = 1,
    overwrite: bool = False,
) -> Path:
    """Write the report of a model other than `LMM`: tables, figures, words, checks.

    Parameters
    ----------
    model : PartitionedLMM, BivariateLMM, LiabilityLMM or RepeatedLMM
        The model.
    path : path-like
        The HTML file to write.
    tree : DataTree, optional
        Draws of its posterior; by default they are made now.
    genotypes : Genotypes, optional
        For `PartitionedLMM` with a kernel for each chromosome: where their lengths come from.
    groups : Series or array (n,), optional
        For `LiabilityLMM` with a prevalence: families, for the standard error of PCGC.
    title : str, optional
        By default made of the phenotype's name.
    question : str
        What the analysis is for, in words; the first paragraph.
    about : mapping, optional
        Further provenance, such as checksums of the input files.
    seed : int
        For everything random.
    overwrite : bool
        Whether a file that is there may be replaced.

    Returns
    -------
    Path
        The file: self-contained, it needs no network.

    Raises
    ------
    InputError
        If the file exists, or the draws are of another model.
    """
    from bayeslmm.bivariate.model import BivariateLMM
    from bayeslmm.partition.model import PartitionedLMM
    from bayeslmm.repeated.model import RepeatedLMM
    from bayeslmm.reporting.repeated import RepeatedDraft

    refuse_existing(path, overwrite=overwrite)
    draft: Draft
    if isinstance(model, PartitionedLMM):
        draft = _Parts(model, tree, genotypes, seed)
        named = f"{draft.name}: parts of its h²"
    elif isinstance(model, BivariateLMM):
        draft = _Pair(model, tree, seed)
        named = f"{listed(model.traits)}: genetic correlation"
    elif isinstance(model, RepeatedLMM):
        draft = RepeatedDraft(model, tree, seed)
        named = f"{draft.name}: heritability and repeatability"
    else:
        draft = _Liability(model, tree, groups, seed)
        named = f"{draft.name}: heritability of the liability"
    lead = f"{draft.formula}, {draft.counted}"
    return draft.write(path, title or named, lead, question, about, overwrite=overwrite)


def _refuse_foreign(tree: xr.DataTree, wanted: str, kind: str) -> None:
    if wanted not in tree["posterior"].dataset:
        raise InputError(f"These draws have no {wanted}: they are not of a {kind}.")


# -- several kernels ---------------------------------------------------------------------------


class _Parts(Draft):
    """Several kernels: their shares, enrichment, and whether they can be told apart."""

    def __init__(
        self,
        model: PartitionedLMM,
        tree: xr.DataTree | None,
        genotypes: Genotypes | None,
        seed: int,
    ) -> None:
        from bayeslmm.generative.sampling import SamplingWarning
        from bayeslmm.partition.model import IdentifiabilityWarning

        super().__init__(model.formula, len(model.y), seed)
        self.model, self.name = model, trait_names([model.formula])[0]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", IdentifiabilityWarning)
            warnings.simplefilter("always", SamplingWarning)
            self.fit, self.tests = model.reml(), model.lrt(seed=seed)
            self.tree = model.posterior(seed=seed) if tree is None else tree
        _refuse_foreign(self.tree, "h2_k", "model of several kernels")
        section = self.section("data", "Data", "Data")
        section.add(
            account(model.samples),
            definitions(
                {
                    "phenotype": in_numbers(self.name, model.y),
                    "covariates": ", ".join(model.C.columns) or "none",
                }
            ),
            histogram(self.name, model.y),
        )
        self.checks += [diagnostics.of_samples(model), diagnostics.of_phenotype(model)]
        self._model()
        self._shares()
        known = sum(K.n_variants > 0 for K in model.grms.values())
        if known > 1:
            self._enrichment(genotypes)
        self._overlap([w for w in told if issubclass(w.category, IdentifiabilityWarning)])
        self.checks.append(diagnostics.of_draws(self.tree))
        self._residuals()

    def _model(self) -> None:
        model, attrs = self.model, self.tree.attrs
        section = self.section("model", "Model and priors", "Model")
        y, C, b, e = (pages.symbol(name) for name in ("y", "C", "b", "e"))
        u_k, K_k, s2_k = pages.symbol("u", "k"), pages.symbol("K", "k"), pages.symbol("σ", "k", "2")
        s2_e, kappa = pages.symbol("σ", "e", "2"), pages.symbol("κ", "k")
        total = "<munder><mo>∑</mo><mi>k</mi></munder>"
        kernels = pd.DataFrame(
            {
                "kernel": list(model.kernels),
                "variants": [K.n_variants or None for K in model.grms.values()],
                "κ": model.kappa.to_numpy(),
                "counts as": ["genetic" if g else "not genetic" for g in model.genetic],
            }
        ).astype({"variants": "Int64"})
        section.add(
            paragraph(
                "Each sample's phenotype is the sum of the effects of its covariates (C b), of one "
                "random effect for every kernel (u_k) and of everything else (e). A kernel says "
                "how alike two samples are in one respect: a part of the genome, a household."
            ),
            pages.formula(
                f"<mrow>{y}{_EQUALS}{C}{b}{_PLUS}{total}{u_k}{_PLUS}{e}</mrow>",
                f"<mrow>{u_k}{_FOLLOWS}{pages.gaussian(s2_k + K_k)}</mrow>",
                f"<mrow>{e}{_FOLLOWS}{pages.gaussian(s2_e + pages.IDENTITY)}</mrow>",
            ),
            paragraph(
                "The share of a kernel is its part of the variance left by C; κ is the mean "
                "diagonal of the kernel, centred on these samples:"
            ),
            pages.formula(
                f"<mrow>{pages.symbol('h', 'k', '2')}{_EQUALS}"
                + pages.fraction(s2_k + kappa, f"{total}{s2_k}{kappa}{_PLUS}{s2_e}")
                + "</mrow>"
            ),
            table(kernels, {"variants": "{:,}".format, "κ": "{:.4g}".format}),
            definitions(
                {
                    "prior of the shares": f"{attrs['share_prior']}, in the order of the table, "
                    "the residual last",
                    "prior of the total variance": "proportional to 1/s2",
                    "prior of b": "flat",
                }
            ),
        )
        self.method(
            f"The phenotype {self.name} of {self.n:,} samples was analysed by a linear mixed model "
            f"with {listed(model.C.columns)} as fixed effects and one random effect for each of "
            f"{len(model.kernels)} relatedness matrices ({listed(model.kernels)})",
            "partition",
            "grm",
        )

    def _shares(self) -> None:
        from bayeslmm import plots

        fit, posterior = self.fit, self.tree["posterior"].dataset
        section = self.section("shares", f"What the variance of {self.name} is made of", "Shares")
        draws = posterior["h2_k"].to_numpy().reshape(-1, len(self.model.kernels))
        every = np.column_stack([draws, 1 - draws.sum(axis=1)])
        names = [*self.model.kernels, "residual"]
        limits = np.array([interval(column) for column in every.T])
        shares = pd.DataFrame(
            {
                "part": names,
                "share": every.mean(axis=0),
                "sd": every.std(axis=0),
                "low": limits[:, 0],
                "high": limits[:, 1],
                "REML": fit.components.h2[names].to_numpy(),
                "SE": fit.components.h2_se[names].to_numpy(),
                "p": [*self.tests.p[list(self.model.kernels)], np.nan],
            }
        )
        h2 = posterior["h2"].to_numpy().ravel()
        low, high = interval(h2)
        genetic = np.flatnonzero(self.model.genetic)
        largest = genetic[every[:, genetic].mean(axis=0).argmax()]
        self.answer.append(
            f"Together the genetic parts account for {share(h2.mean())} of the variance of "
            f"{self.name}; with probability 95% for {share(low)} to {share(high)}. The largest is "
            f"{names[largest]}, with {share(shares.share[largest])} ({share(shares.low[largest])} "
            f"to {share(shares.high[largest])})."
        )
        three = dict.fromkeys(("share", "sd", "low", "high", "REML", "SE"), "{:.3f}".format)
        together = self.tests.loc["all"] if "all" in self.tests.index else self.tests.iloc[0]
        section.add(
            figure(
                partial(draw, plots.shares, self.tree, self.fit, title=""),
                (7.6, 1.6 + 0.42 * len(names)),
                f"Shares of {listed(names)} in the variance, with 95% intervals",
                "Posterior means with 95% highest-density intervals, and REML.",
            ),
            table(
                shares,
                three | {"p": "{:.2g}".format},
                sortable=True,
                caption="low, high: the shortest interval that holds the share with probability "
                "95%. p: restricted likelihood-ratio test of share = 0, from the mixture of "
                "chi-squared distributions that holds at a boundary. An estimate of 0 has no SE.",
            ),
            paragraph(
                f"{h2_noun(self.model.y)}, all genetic parts together: {h2.mean():.3f} "
                f"({low:.3f} to {high:.3f}); REML {fit.h2:.3f}. That all parts are 0 has "
                f"p = {together.p:.2g}. "
                "Shares of parts in linkage disequilibrium go against each other: an interval "
                "of one tells less than the interval of the sum."
            ),
        )
        effects = fit.b.rename_axis("covariate").reset_index()
        section.add(
            heading("Covariates"),
            table(
                effects,
                dict.fromkeys(("estimate", "se"), "{:.4g}".format),
                caption="Effects in units of the phenotype, at the REML estimate.",
            ),
        )
        unconverged = "" if fit.converged else "It did not converge."
        at_0 = [name for name in self.model.kernels if fit.components.at_0[name]]
        finding = f"{fit.iterations} iterations; " + (
            f"at 0: {listed(at_0)}." if at_0 else "no share is at 0."
        )
        self.checks.append(
            diagnostics.Check(
                "REML",
                "look" if unconverged or at_0 else "good",
                " ".join(filter(None, [finding, unconverged])),
                "Of a share at 0 REML has no standard error: read the posterior's interval."
                if at_0
                else "",
            )
        )
        self.method(
            "Variance components were estimated by average-information REML within their bounds, "
            "and tested by restricted likelihood ratios with mixtures of chi-squared distributions",
            "ai",
            "mixture",
        )
        self.method(
            f"The joint posterior of the shares, prior {self.tree.attrs['share_prior']}, was "
            f"computed by {self.tree.attrs['method']}",
            *(["pareto"] if "importance" in str(self.tree.attrs["method"]) else []),
        )

    def _enrichment(self, genotypes: Genotypes | None) -> None:
        from bayeslmm import plots

        found = self.model.enrichment(self.tree)
        section = self.section("enrichment", "Which parts hold more than their share", "Enrichment")
        above = [str(name) for name in found.index[found.p_enriched > 0.95]]
        below = [str(name) for name in found.index[found.p_enriched < 0.05]]
        if above or below:
            said = []
            if above:
                said.append(f"{listed(above)} more than by the number of variants")
            if below:
                said.append(f"{listed(below)} less")
            words = f"With probability above 95%, {', and '.join(said)}."
            self.answer.append(
                f"By their number of variants, {listed(above)} {_hold(above)} more of h² "
                "than expected."
                if above
                else f"By their number of variants, {listed(below)} {_hold(below)} less "
                "of h² than expected."
            )
        else:
            words = (
                "No part holds more or less than by its number of variants with probability 95%."
            )
        columns = {
            "part": "part",
            "n_variants": "variants",
            "share_variants": "of variants",
            "share_h2": "of h²",
            "enrichment": "enrichment",
            "enrichment_low": "low",
            "enrichment_high": "high",
            "p_enriched": "P(> 1)",
            "prior_p_enriched": "before data",
        }
        shown = found.reset_index(names="part")[list(columns)].rename(columns=columns)
        two = dict.fromkeys(("of variants", "of h²", "enrichment", "low", "high"), "{:.2f}".format)
        section.add(
            paragraph(
                "Enrichment is a part's share of h² over its share of the variants. " + words
            ),
            figure(
                partial(draw, plots.enrichment, found, title=""),
                (7.6, 1.4 + 0.5 * len(found)),
                "Enrichment of each part with 95% intervals; 1 is as expected",
            ),
            table(
                shown,
                two
                | {
                    "variants": "{:,}".format,
                    "P(> 1)": "{:.3f}".format,
                    "before data": "{:.3f}".format,
                },
                sortable=True,
                caption="P(> 1): posterior probability of an enrichment above 1; before data: what "
                "the prior alone has for it. Where both agree, the data have said little.",
            ),
        )
        if genotypes is not None and len(set(found.index) & set(genotypes.variants.chrom)) > 1:
            section.add(
                figure(
                    partial(draw, plots.chromosome_h2, found, genotypes, title=""),
                    (6.4, 4.2),
                    "h² of each chromosome against its length",
                    "A polygenic trait lies on the line; above it is what large effects add.",
                )
            )
        self.method("Enrichment is the share of a part in h2 over its share in the variants")

    def _overlap(self, told: list[warnings.WarningMessage]) -> None:
        model = self.model
        section = self.section("overlap", "Can the parts be told apart?", "Overlap")
        draws = self.tree["posterior"]["h2_k"].to_numpy().reshape(-1, len(model.kernels))
        with np.errstate(invalid="ignore"):
            between = np.atleast_2d(np.corrcoef(draws.T))
        overlap = model.overlap.to_numpy()
        rows = [
            (model.kernels[i], model.kernels[j], overlap[i, j], between[i, j])
            for i in range(len(overlap))
            for j in range(i)
        ]
        pairs = pd.DataFrame(rows, columns=["part", "and", "overlap", "correlation of shares"])
        pairs = pairs.sort_values("overlap", ascending=False, kind="stable")
        largest = float(pairs.overlap.max()) if len(pairs) else 0.0
        section.add(
            paragraph(
                "Kernels that make the same samples alike compete for the same variance. overlap: "
                "cosine between two kernels as patterns of covariance, 1 if the data cannot tell "
                "them apart. correlation of shares: in the posterior; near -1 only the sum is "
                "known."
            ),
            table(
                pairs.head(_MOST_OVERLAPS),
                dict.fromkeys(("overlap", "correlation of shares"), "{:+.2f}".format),
                caption=f"The {_MOST_OVERLAPS} closest of {len(pairs)} pairs."
                if len(pairs) > _MOST_OVERLAPS
                else "",
            ),
        )
        finding = f"The closest two kernels overlap by {largest:.2f}."
        self.checks.append(
            diagnostics.Check(
                "Identifiability",
                "look" if told else "good",
                str(told[0].message) if told else finding,
                "Report the sum of the parts, or merge them." if told else "",
            )
        )

    def _residuals(self) -> None:
        from bayeslmm.model.lmm import LMM
        from bayeslmm.relatedness.dense import GRM

        model, components = self.model, self.fit.components
        K = np.zeros((self.n, self.n))
        for name, kernel in model.grms.items():
            if (s2 := float(components.s2[name])) > 0:
                K += s2 * kernel.subset(model.ids).matrix
        if not K.any():
            return
        # One kernel that is the weighted sum: its residuals are those of the parts together.
        C = model.C.drop(columns="Intercept", errors="ignore")
        y = pd.Series(model.y, model.ids, name=self.name)
        whole = LMM(y, C if len(C.columns) else None, GRM(K, model.ids))
        self.residuals(whole.check_residuals())


def _hold(names: list[str]) -> str:
    return "hold" if len(names) > 1 else "holds"


# -- two traits --------------------------------------------------------------------------------


class _Pair(Draft):
    """Two traits: their genetic correlation, and everything beside it."""

    def __init__(self, model: BivariateLMM, tree: xr.DataTree | None, seed: int) -> None:
        from bayeslmm.bivariate.genetic_correlation import rg_report

        super().__init__(listed(model.formulas), len(model.ids), seed)
        if tree is not None:
            _refuse_foreign(tree, "rg", "model of two traits")
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
        self.checks.append(diagnostics.of_samples(model))
        for trait, alone in zip(model.traits, model.each(), strict=True):
            self.checks.append(diagnostics.of_phenotype(alone, trait))

    def _model(self) -> None:
        section = self.section("model", "Model and priors", "Model")
        y, C, b, u, e = (pages.symbol(name, "t") for name in ("y", "C", "b", "u", "e"))
        both = (
            "<mo>(</mo><msub><mi>{0}</mi><mn>1</mn></msub><mo>,</mo>"
            "<msub><mi>{0}</mi><mn>2</mn></msub><mo>)</mo>"
        )
        G, R, K = (pages.symbol(name) for name in "GRK")
        times = pages.operator("⊗")
        report = self.found
        section.add(
            paragraph(
                "For each trait t, a sample's phenotype is the sum of the effects of its "
                "covariates, of its genome as a whole (u) and of everything else (e). The genetic "
                "effects of both traits are correlated, and so is the rest:"
            ),
            pages.formula(
                f"<mrow>{y}{_EQUALS}{C}{b}{_PLUS}{u}{_PLUS}{e}</mrow>",
                f"<mrow>{both.format('u')}{_FOLLOWS}{pages.gaussian(G + times + K)}</mrow>",
                f"<mrow>{both.format('e')}{_FOLLOWS}"
                f"{pages.gaussian(R + times + pages.IDENTITY)}</mrow>",
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


# -- the liability -----------------------------------------------------------------------------


class _Liability(Draft):
    """Cases and controls: h2 on its scales, covariates, risks."""

    def __init__(
        self, model: LiabilityLMM, tree: xr.DataTree | None, groups: Any, seed: int
    ) -> None:
        super().__init__(model.formula, len(model.y), seed)
        self.model, self.name = model, trait_names([model.formula])[0]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.tree = model.sample(seed=seed) if tree is None else tree
        _refuse_foreign(self.tree, "h2", "liability model")
        self._data()
        self._model()
        self._scales(groups)
        if "latent" in self.tree.children:
            self._risks()
        self.checks += [
            diagnostics.of_samples(model),
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
        rows["covariates"] = ", ".join(model.C.columns) or "none"
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
                f"<mrow>{liability}{_EQUALS}{C}{b}{_PLUS}{u}{_PLUS}{e}</mrow>",
                f"<mrow>{u}{_FOLLOWS}"
                f"{pages.gaussian(h2 + pages.symbol('K') + '<mo>/</mo>' + pages.symbol('κ'))}"
                "</mrow>",
                f"<mrow>{e}{_FOLLOWS}{pages.gaussian(rest)}</mrow>",
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
