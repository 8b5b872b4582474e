"""The report of several kernels: shares, enrichment, what can be told apart."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import in_short
from bayeslmm.model.heritability import h2_noun
from bayeslmm.model.tables import interval
from bayeslmm.reporting import diagnostics, pages
from bayeslmm.reporting.drafts import (
    Draft,
    account,
    draw,
    histogram,
    in_numbers,
    listed,
    refuse_foreign,
    share,
)
from bayeslmm.reporting.pages import Section, definitions, figure, heading, paragraph, table
from bayeslmm.runs.results import trait_names

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.inputs.genotypes import Genotypes
    from bayeslmm.partition.model import PartitionedLMM


_MOST_OVERLAPS = 12


class PartitionDraft(Draft):
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
        refuse_foreign(self.tree, "h2_k", "model of several kernels")
        section = self.section("data", "Data", "Data")
        section.add(
            account(model.samples),
            definitions(
                {
                    "phenotype": in_numbers(self.name, model.y),
                    "covariates": in_short(model.C.columns),
                }
            ),
            histogram(self.name, model.y),
        )
        self.checks += [diagnostics.of_samples(model.samples), diagnostics.of_phenotype(model.y)]
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
                f"<mrow>{y}{pages.EQUALS}{C}{b}{pages.PLUS}{total}{u_k}{pages.PLUS}{e}</mrow>",
                f"<mrow>{u_k}{pages.FOLLOWS}{pages.gaussian(s2_k + K_k)}</mrow>",
                f"<mrow>{e}{pages.FOLLOWS}{pages.gaussian(s2_e + pages.IDENTITY)}</mrow>",
            ),
            paragraph(
                "The share of a kernel is its part of the variance left by C; κ is the mean "
                "diagonal of the kernel, centred on these samples:"
            ),
            pages.formula(
                f"<mrow>{pages.symbol('h', 'k', '2')}{pages.EQUALS}"
                + pages.fraction(s2_k + kappa, f"{total}{s2_k}{kappa}{pages.PLUS}{s2_e}")
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
        self._covariates(section)
        self._check_reml()
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

    def _covariates(self, section: Section) -> None:
        effects = self.fit.b.rename_axis("covariate").reset_index()
        section.add(
            heading("Covariates"),
            table(
                effects,
                dict.fromkeys(("estimate", "se"), "{:.4g}".format),
                caption="Effects in units of the phenotype, at the REML estimate.",
            ),
        )

    def _check_reml(self) -> None:
        fit = self.fit
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
