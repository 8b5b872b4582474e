"""The report of an analysis: one HTML file that a collaborator without Python reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, in_short
from bayeslmm.genome.loci import find_loci, lambda_gc, lead_variants, neg_log10_p
from bayeslmm.genome.scan_tables import tested_term
from bayeslmm.inputs.case_control import CaseControl, case_control
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes
from bayeslmm.model.heritability import is_two_valued, liability_factor
from bayeslmm.model.snps import require_unique
from bayeslmm.reporting import diagnostics, pages
from bayeslmm.reporting.drafts import Draft, account, draw, histogram, in_numbers, listed, share
from bayeslmm.reporting.effects import add_draws, add_region, credible_sets
from bayeslmm.reporting.pages import definitions, figure, heading, paragraph, table
from bayeslmm.reporting.prediction import add_predictions
from bayeslmm.runs.files import refuse_existing

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from bayeslmm.genome.finemapping import FineMap
    from bayeslmm.model.evidence import Evidence
    from bayeslmm.model.lmm import LMM
    from bayeslmm.model.residuals import ResidualCheck
    from bayeslmm.reporting.pages import Section

_LOCI, _MOST_SNPS = 3, 400


def report(
    model: LMM,
    path: str | os.PathLike[str],
    *,
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray | None = None,
    hits: pd.DataFrame | None = None,
    scan: bool = True,
    tree: xr.DataTree | None = None,
    located: FineMap | None = None,
    predicted: pd.DataFrame | None = None,
    finemap: int = _LOCI,
    locus_gap: float = 5e6,
    title: str | None = None,
    question: str = "",
    about: Mapping[str, Any] | None = None,
    seed: int = 1,
    overwrite: bool = False,
) -> Path:
    """Write the report of a model: heritability, scan, loci, checks, methods, provenance.

    Parameters
    ----------
    model : LMM
        The model; without kernel there is no part on heritability.
    path : path-like
        The HTML file to write.
    genotypes : Genotypes, path or array (n, m), optional
        Variants to test; by default those that the kernel was made of, if it knows them.
        Without any there is no part on the genome.
    hits : DataFrame, optional
        Their scan, what `bayeslmm.scan` returns; by default it is done now.
    scan : bool
        Whether it is, if there are no `hits`; else there is no part on the genome.
    tree : DataTree, optional
        Draws of `LMM.sample`: effects of SNPs together, convergence among the checks.
    located : FineMap, optional
        A region that was fine-mapped, with a section of its own.
    predicted : DataFrame, optional
        Predictions of other samples, what `LMM.predict` returns, with a section of their own. A
        column y_observed has phenotypes that were measured and not used.
    finemap : int
        How many of the strongest significant loci are fine-mapped.
    locus_gap : float
        Base pairs; significant variants closer than this are one locus.
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
        If the file exists, or the scan and the genotypes do not belong together.
    """
    refuse_existing(path, overwrite=overwrite)
    if genotypes is None and model.grm is not None:
        genotypes = model.grm.genotypes
    variants = None
    if genotypes is not None and (scan or hits is not None):
        variants = as_genotypes(genotypes)
        if hits is None:
            hits = model.scan(variants)
    draft = _Report(model, variants, hits, tree, located, predicted, finemap, locus_gap, seed)
    return draft.write(
        path,
        title
        or f"{draft.name}: {'heritability and genes' if predicted is None else 'predictions'}",
        f"{model.formula}, {len(model.y):,} samples",
        question,
        about,
        overwrite=overwrite,
    )


class _Report(Draft):
    """The parts of a report; what several of them need is computed once."""

    def __init__(
        self,
        model: LMM,
        genotypes: Genotypes | None,
        hits: pd.DataFrame | None,
        tree: xr.DataTree | None,
        located: FineMap | None,
        predicted: pd.DataFrame | None,
        n_finemap: int,
        gap: float,
        seed: int,
    ) -> None:
        super().__init__(model.formula, len(model.y), seed)
        self.model, self.genotypes, self.hits, self.tree = model, genotypes, hits, tree
        self.n_finemap, self.gap = n_finemap, gap
        self.name = model.formula.split("~")[0].strip()
        self.cases = _cases(model)
        self.logistic = hits is not None and hits.attrs.get("family") == "binomial"
        self._data()
        self._model()
        if predicted is not None:
            add_predictions(self, model, predicted, self._left_out, self.name)
        if model.has_kernel:
            if self.cases is None:
                self._heritability()
                self._comparison()
            else:
                self._observed_scale()
            self._relatedness()
        if hits is not None:
            self._genome()
        if self.cases is None:
            self.residuals(self._left_out)
        if located is not None:
            add_region(self, located)
        if tree is not None:
            add_draws(self, model, tree, hits, self.name)
            self.checks.append(diagnostics.of_sampling(tree))

    # -- data and model ----------------------------------------------------------------------

    @cached_property
    def _left_out(self) -> ResidualCheck:
        """Each analysed sample predicted from the others."""
        return self.model.check_residuals()

    def _data(self) -> None:
        model, y = self.model, self.model.y
        section = self.section("data", "Data", "Data")
        section.add(account(model.samples))
        phenotype = in_numbers(self.name, y) if self.cases is None else f"{self.cases}"
        covariates = in_short(model.C.columns)
        section.add(definitions({"phenotype": phenotype, "covariates": covariates}))
        if self.cases is None:
            section.add(histogram(self.name, y))
        if self.hits is not None:
            missing = self.hits.n_missing.sum() / (len(self.hits) * len(y))
            section.add(
                definitions(
                    {
                        "variants": f"{len(self.hits):,}, "
                        f"{int(self.hits.neg_log10_p.notna().sum()):,} tested",
                        "missing genotypes": f"{100 * missing:.2g}%, set to the variant's mean",
                    }
                )
            )
        self.checks += [
            diagnostics.of_samples(model.samples),
            diagnostics.of_cases(self.cases)
            if self.cases is not None and self.logistic
            else diagnostics.of_phenotype(model.y),
        ]

    def _model(self) -> None:
        model = self.model
        section = self.section("model", "Model and priors", "Model")
        y, C, b = pages.symbol("y"), pages.symbol("C"), pages.symbol("b")
        u, e, K = pages.symbol("u"), pages.symbol("e"), pages.symbol("K")
        s2_g, s2_e = pages.symbol("σ", "g", "2"), pages.symbol("σ", "e", "2")
        noise = f"<mrow>{e}{pages.FOLLOWS}{pages.gaussian(s2_e + pages.IDENTITY)}</mrow>"
        if self.logistic:
            self._logistic_model(section)
            return
        if not model.has_kernel:
            section.add(
                paragraph("Linear regression: each sample is its covariates' effects and noise."),
                pages.formula(f"<mrow>{y}{pages.EQUALS}{C}{b}{pages.PLUS}{e}</mrow>", noise),
            )
            self.method(
                f"The phenotype {self.name} of {len(model.y):,} samples was analysed by linear "
                f"regression with {listed(model.C.columns)} as covariates"
            )
            return
        section.add(
            paragraph(
                "Each sample's phenotype is the sum of the effects of its covariates (C b), of its "
                "genome as a whole (u) and of everything else (e). Relatives share their genome, "
                "so their u are alike, to the degree given by the relatedness matrix K."
            ),
            pages.formula(
                f"<mrow>{y}{pages.EQUALS}{C}{b}{pages.PLUS}{u}{pages.PLUS}{e}</mrow>",
                f"<mrow>{u}{pages.FOLLOWS}{pages.gaussian(s2_g + K)}</mrow>",
                noise,
            ),
            paragraph("Heritability is the share of the genome in the variance left by C:"),
            pages.formula(
                f"<mrow><msup><mi>h</mi><mn>2</mn></msup>{pages.EQUALS}"
                + pages.fraction(f"{s2_g}<mi>κ</mi>", f"{s2_g}<mi>κ</mi>{pages.PLUS}{s2_e}")
                + "</mrow>"
            ),
        )
        grm = model.grm
        terms = {
            "K": repr(grm).strip("<>") if grm is not None else "given as its eigenbasis",
            "κ": f"{model.rotated.kappa:.4g}, the mean diagonal of K centred on these samples",
            "prior of h²": str(model.h2_prior),
            "prior of the total variance": "proportional to 1/s2",
            "prior of b": "flat",
        }
        if self.hits is not None and "effect_prior" in self.hits.attrs:
            terms["prior of a variant's effect"] = (
                f"{self.hits.attrs['effect_prior']}, in phenotypic sd per sd of the genotype"
            )
        section.add(definitions(terms))
        self.method(
            f"The phenotype {self.name} of {len(model.y):,} samples was analysed by a linear mixed "
            f"model with {listed(model.C.columns)} as fixed effects and a polygenic effect with "
            "covariance proportional to the genetic relatedness matrix" + self._of_variants(),
            "grm",
        )

    def _of_variants(self) -> str:
        """What the relatedness matrix is made of, in brackets."""
        grm = self.model.grm
        return f" ({grm.scale}, {grm.n_variants:,} variants)" if grm and grm.n_variants else ""

    def _logistic_model(self, section: Section) -> None:
        """The model of a scan of cases and controls."""
        model, hits = self.model, self.hits
        assert hits is not None
        assert self.cases is not None
        C, b, x, beta = (pages.symbol(name) for name in ("C", "b", "x", "β"))
        u, K = pages.symbol("u"), pages.symbol("K")
        log_odds = "<mi mathvariant='normal'>log odds</mi>"
        fixed = f"{log_odds}{pages.EQUALS}{C}{b}{pages.PLUS}{x}{beta}"
        null = str(hits.attrs.get("null_model", "logistic regression"))
        tests = [str(test) for test in hits.attrs.get("tests") or ()]
        terms: dict[str, object] = {"case": self.cases.case, "control": self.cases.control}
        if model.has_kernel:
            section.add(
                paragraph(
                    "The log odds of being a case are the sum of the effects of a sample's "
                    "covariates (C b), of the variant tested (x β) and of its genome as a whole "
                    "(u), which relatives share to the degree given by the relatedness matrix K."
                ),
                pages.formula(
                    f"<mrow>{fixed}{pages.PLUS}{u}</mrow>",
                    f"<mrow>{u}{pages.FOLLOWS}{pages.gaussian(pages.symbol('τ') + K)}</mrow>",
                ),
            )
            grm = model.grm
            terms["K"] = repr(grm).strip("<>") if grm is not None else "given as its eigenbasis"
            if "tau_kappa" in hits.attrs:
                terms["variance of u"] = (
                    f"{float(hits.attrs['tau_kappa']):.3g} in log odds squared, the mean diagonal "
                    "of K taken in; its estimate is biased towards 0, and no heritability"
                )
        else:
            section.add(
                paragraph(
                    "Logistic regression: the log odds of being a case are the sum of the effects "
                    "of a sample's covariates (C b) and of the variant tested (x β)."
                ),
                pages.formula(f"<mrow>{fixed}</mrow>"),
            )
        terms |= {"null model": null, "tests": ", ".join(tests) or "by default"}
        section.add(definitions(terms))
        self.method(
            f"{self.cases.n_cases:,} cases and {self.cases.n_controls:,} controls of {self.name} "
            f"were analysed by {null} with {listed(model.C.columns)} as fixed effects"
            + (
                " and a random effect with covariance proportional to the genetic relatedness "
                f"matrix{self._of_variants()}"
                if model.has_kernel
                else ""
            ),
            *(["gmmat", "grm"] if model.has_kernel else []),
        )

    # -- heritability --------------------------------------------------------------------------

    def _heritability(self) -> None:
        from bayeslmm import plots
        from bayeslmm.plots.genome import variance_shares

        model, found = self.model, self.model.h2_report()
        section = self.section("h2", found.title, "h²" if found.scale else "Heritability")
        low, high = found.intervals.loc["posterior", ["low", "high"]]
        numbers = ", taken as numbers: no heritability" if found.scale else ""
        self.answer.append(
            f"The genome accounts for {share(found.mean)} of the variance of {self.name}{numbers}; "
            f"with probability 95% for {share(low)} to {share(high)}."
        )
        section.add(
            paragraph(
                f"Posterior mean {found.mean:.3f}, sd {found.posterior.sd:.3f}; REML "
                f"{found.estimate:.3f}."
            ),
            figure(
                partial(draw, plots.h2_report, found),
                (7.6, 5.2),
                f"Posterior density: {found.title}, mean {found.mean:.2f}, and its intervals",
                "The posterior of h², three intervals, and intervals under other priors.",
            ),
        )
        meaning = {
            "posterior": "h² lies within with probability 95%, given model and prior; the "
            "shortest such interval",
            "rlrt": "95% of such intervals hold the true h², whatever it is, 0 and 1 included",
            "reml": "the usual estimate ± 1.96 SE; right in large samples away from 0 and 1",
        }
        rows = found.intervals.assign(meaning=[meaning[str(k)] for k in found.intervals.index])
        names = {
            "posterior": "posterior, highest density",
            "rlrt": "confidence, by inversion",
            "reml": "REML ± 1.96 SE",
        }
        rows.insert(0, "interval", [names[str(k)] for k in rows.index])
        three = dict.fromkeys(("low", "high", "width"), "{:.3f}".format)
        section.add(heading("Intervals and what they mean"), table(rows, three))
        shares = variance_shares(model, seed=self.seed).reset_index()
        section.add(
            heading("What the variance is made of"),
            figure(
                partial(draw, plots.variance_partition, {self.name: model}),
                (8.2, 1.7),
                "Shares of covariates, genome and residual in the variance",
            ),
            table(shares, dict.fromkeys(("mean", "low", "high"), "{:.3f}".format)),
            heading("Other priors"),
            table(
                found.priors.drop(columns=["p_zero", "log_marginal"]).reset_index(),
                dict.fromkeys(("mean", "sd", "low", "high"), "{:.3f}".format),
                caption="Posterior of h² under each prior, with 95% highest-density intervals.",
            ),
        )
        fit = model.reml()
        effects = fit.b.rename_axis("covariate").reset_index()
        section.add(
            heading("Covariates"),
            table(
                effects,
                dict.fromkeys(("estimate", "se"), "{:.4g}".format),
                caption="Effects in units of the phenotype, at the REML estimate.",
            ),
        )
        self.checks += diagnostics.of_heritability(found)
        self.method(
            f"The posterior distribution of h2 with prior {model.h2_prior} was computed by "
            "quadrature on the eigenbasis of the relatedness matrix, with covariate effects and "
            "total variance integrated out",
            "posterior",
        )
        self.method(
            f"h2 was {found.mean:.3f} (posterior mean; 95% highest-density interval {low:.3f} to "
            f"{high:.3f}); REML gave {found.estimate:.3f}, and the 95% confidence interval by "
            "inversion of the restricted likelihood-ratio test with simulated critical values was "
            f"{found.intervals.low['rlrt']:.3f} to {found.intervals.high['rlrt']:.3f}",
            "lmm",
            "rlrt",
        )

    def _observed_scale(self) -> None:
        """Heritability of cases and controls: of 0 and 1, and what it says of the liability."""
        model, cases = self.model, self.cases
        assert cases is not None
        section = self.section("h2", f"Is {self.name} in the genes?", "Heritability")
        posterior, evidence = model.h2_posterior(), model.evidence(seed=self.seed)
        low, high = posterior.hdi(0.95)
        P = cases.n_cases / (cases.n_cases + cases.n_controls)
        factor = liability_factor(P, P)
        rows = [
            ("observed: 0 and 1 as numbers", posterior.mean, low, high),
            (f"liability, if {share(P)} of the population are cases", *(
                factor * value for value in (posterior.mean, low, high)
            )),
        ]  # fmt: skip
        table_of_scales = pd.DataFrame(rows, columns=["scale", "h²", "low", "high"])
        p = _exact_p(evidence)
        section.add(
            paragraph(
                "A trait of two values has no variance of its own: on the observed scale h² "
                "depends on the share of cases among the samples, and is not the trait's "
                "heritability. That is h² of the liability, a normal quantity behind the trait: "
                "who is above a threshold is a case. The conversion assumes that the samples are "
                "a random part of the population."
            ),
            table(
                table_of_scales,
                dict.fromkeys(("h²", "low", "high"), "{:.3f}".format),
                caption="Posterior means and 95% highest-density intervals. Above 1, or near it, "
                "the conversion has left its range.",
            ),
            paragraph(
                f"Is there any genetic variance at all? The restricted likelihood-ratio test of "
                f"the 0/1 phenotype has exact p {p}, and the log10 Bayes factor is "
                f"{evidence.log10_bf:.1f}."
            ),
            paragraph(
                "For the posterior of the liability itself, individual risks, and samples chosen "
                "for their status, use bayeslmm liability (bl.LiabilityLMM), which has a report of "
                "its own."
            ),
        )
        self.answer.append(
            f"{cases}. On the scale of the liability the genome accounts for about "
            f"{share(factor * posterior.mean)} of the variance, if cases are as common in the "
            "population as among the samples."
        )
        self.method(
            f"h2 on the observed scale, no heritability, was {posterior.mean:.3f} (posterior mean; "
            f"95% highest-density interval {low:.3f} to {high:.3f}, prior {model.h2_prior}), "
            f"converted to the liability scale at a prevalence of {P:.3g}",
            "posterior",
            "transform",
        )

    def _comparison(self) -> None:
        from bayeslmm.model.comparison import compare

        section = self.section("compare", "Is it in the genes at all?", "Models")
        models = {"with relatedness": self.model, "without": self.model.without_kernel()}
        found = compare(models)
        shown = found[["elpd", "se", "elpd_diff", "dse", "log10_bf", "prob"]].copy()
        shown = shown.rename_axis("model").reset_index()
        shown = shown.rename(columns={"prob": "probability", "dse": "se of difference"})
        evidence = self.model.evidence(seed=self.seed)
        p = _exact_p(evidence)
        section.add(
            paragraph(str(found.attrs["verdict"])),
            table(
                shown,
                {
                    "elpd": "{:,.1f}".format,
                    "se": "{:.1f}".format,
                    "elpd_diff": "{:.1f}".format,
                    "se of difference": "{:.1f}".format,
                    "log10_bf": "{:.1f}".format,
                    "probability": "{:.3g}".format,
                },
                caption="elpd: log density of each sample predicted from all others, summed; "
                "higher is better. log10_bf: log10 Bayes factor against the best model. "
                "probability: of the two, equal a priori.",
            ),
            paragraph(
                f"For h² > 0 against h² = 0 the log10 Bayes factor is {evidence.log10_bf:.1f} "
                f"({evidence.by_prior.log10_bf.min():.1f} to "
                f"{evidence.by_prior.log10_bf.max():.1f} over other priors); the restricted "
                f"likelihood-ratio test has exact p {p}."
            ),
        )
        self.method(
            "Models were compared by exact leave-one-out cross-validation and by marginal "
            "likelihoods",
            "loo",
        )

    def _relatedness(self) -> None:
        from bayeslmm import plots
        from bayeslmm.plots.drawing import ACCENT, DARK, INK, clean

        basis = self.model.basis
        assert basis is not None
        section = self.section("relatedness", "Relatedness and structure", "Relatedness")
        order = np.argsort(-np.asarray(basis.values), kind="stable")
        values = np.asarray(basis.values)[order]
        explained = values / values.sum()
        first_two = np.zeros((basis.n, 2))
        first_two[order[:2], [0, 1]] = 1
        vectors = basis.unrotate(first_two)

        def scatter(ax: Axes) -> None:
            ax.plot(
                vectors[:, 0],
                vectors[:, 1],
                linestyle="none",
                marker="o",
                markersize=3.2,
                markeredgewidth=0,
                color=DARK,
                alpha=0.7,
            )
            ax.set_xlabel(f"PC 1 ({100 * explained[0]:.1f}% of the genetic variance)")
            ax.set_ylabel(f"PC 2 ({100 * explained[1]:.1f}%)")
            clean(ax)

        def spectrum(ax: Axes) -> None:
            shown = min(len(values), 30)
            ax.bar(np.arange(1, shown + 1), 100 * explained[:shown], color=DARK)
            ax.axhline(100 / len(values), color=ACCENT, linewidth=1, linestyle=(0, (5, 3)))
            ax.set_xlabel("Principal component")
            ax.set_ylabel("% of the genetic variance")
            clean(ax)
            ax.tick_params(labelcolor=INK)

        section.add(
            figure(
                scatter,
                (4.7, 4.2),
                "Samples on the first two principal components",
                "Samples on the first two principal components of the relatedness matrix.",
            ),
            figure(
                spectrum,
                (4.7, 4.2),
                "Share of each principal component in the genetic variance",
                "The dashed line is the share that each would have if all were equally related.",
            ),
        )
        grm = self.model.grm
        if grm is not None:
            section.add(
                figure(
                    partial(draw, plots.relatedness, grm),
                    (6.4, 5.4),
                    "Heat map of the relatedness matrix, relatives side by side",
                )
            )
        self.checks += diagnostics.of_kernel(grm, self.model.ids)

    # -- the genome ------------------------------------------------------------------------------

    def _genome(self) -> None:
        from bayeslmm import plots
        from bayeslmm.plots.drawing import qq_ranks
        from bayeslmm.reporting import interactive

        hits = self.hits
        assert hits is not None
        section = self.section("scan", f"Genome scan of {self.name}", "Genome scan")
        y = neg_log10_p(hits)
        tested = np.isfinite(y)
        n_tests = int(tested.sum())
        if not n_tests:
            section.add(
                paragraph(
                    "No variant could be tested: all are monomorphic or explained by covariates."
                )
            )
            return
        threshold = 0.05 / n_tests
        line = -float(np.log10(threshold))
        loci = find_loci(hits, threshold, gap=self.gap)
        factor = lambda_gc(10.0 ** -y[tested])
        many = {0: "No locus is", 1: "One locus is"}.get(len(loci), f"{len(loci)} loci are")
        told = _what_is_tested(hits)
        self.answer.append(
            (f"Tested: {told}. " if told else "")
            + f"{many} significant among {n_tests:,} variants (p < {threshold:.2g})"
            + (
                f"; the strongest, {hits.id.iloc[loci.row.iloc[0]]} on chromosome "
                f"{loci.chrom.iloc[0]}, with p = "
                f"{interactive.power_of_ten(loci.neg_log10_p.iloc[0])}."
                if len(loci)
                else "."
            )
        )
        label = f"Manhattan plot of {n_tests:,} variants; {many.lower()} significant"
        self.live["manhattan"] = interactive.manhattan(hits, line, label=label)
        self.still["manhattan"] = pages.image(
            partial(draw, plots.manhattan, hits, locus_gap=self.gap, title=""), (10, 3.9), label
        )
        order = np.flatnonzero(tested)[np.argsort(-y[tested], kind="stable")]
        ranks = qq_ranks(n_tests)
        label = f"QQ plot, lambda_GC {factor:.2f}"
        self.live["qq"] = interactive.qq(hits, n_tests, ranks, order[ranks - 1], label=label)
        self.still["qq"] = pages.image(partial(draw, plots.qq, hits, title=""), (4.8, 4.8), label)
        section.add(
            paragraph(f"Tested: {told}.") if told else "",
            paragraph(
                f"Each point is a variant; the dashed line is significance, 0.05 / {n_tests:,} "
                "(Bonferroni). On the screen: hover over a point to see the variant, drag a box to "
                "zoom, and use the arrow above to go back."
            ),
            "[[manhattan]]-log10 p along the genome.",
            heading("Are the p-values honest?"),
            paragraph(
                f"lambda_GC = {factor:.3f}: the median test statistic over what it would be if no "
                "variant had an effect. Without effects the points lie on the line."
            ),
            "[[qq]]Observed against expected -log10 p.",
        )
        background = hits.attrs.get("background", "all")
        self.checks.append(
            diagnostics.of_scan(
                factor, n_tests, kernel=self.model.has_kernel, background=background
            )
        )
        found = self.section("loci", "Top loci", "Top loci")
        found.add(self._top(hits, loci))
        for locus in loci.head(self.n_finemap).itertuples():
            found.add(*self._locus(hits, locus))
        self._tested(hits, n_tests)
        if "log10_bf" in hits:
            self.method(
                "Bayes factors integrate over h2 and average over prior effect sizes; the local "
                "false sign rate is the posterior probability that an effect has the other sign",
                "bf",
                "lfsr",
            )

    def _tested(self, hits: pd.DataFrame, n_tests: int) -> None:
        """How variants were tested, for the methods."""
        tests = hits.attrs.get("tests") or ()
        said = f"{n_tests:,} variants were tested one at a time"
        if not self.logistic:
            exact = "p_wald" in hits and self.model.has_kernel
            self.method(
                f"{said} by exact REML Wald tests, the variance ratio estimated anew for each"
                if exact
                else said,
                *(["lmm"] if self.model.has_kernel else []),
            )
            return
        if "spa" in tests:
            self.method(f"{said} by score tests with saddlepoint tails", "spa")
        else:
            self.method(f"{said} by {' and '.join(tests) or 'Wald'} tests")
        if (hits["method"] == "firth").any():
            self.method(
                "Where alleles were few or separated cases from controls, Firth's penalised "
                "likelihood was used",
                "firth",
            )

    def _top(self, hits: pd.DataFrame, loci: pd.DataFrame) -> str:
        from bayeslmm.reporting.interactive import power_of_ten

        rows = loci.row.to_numpy() if len(loci) else lead_variants(hits, 5, gap=self.gap)
        names = ["id", "chrom", "pos", "ea", "oa", "eaf", "eaf_cases", "eaf_controls"]
        names += ["or", "or_low", "or_high"] if "or" in hits else ["beta", "se"]
        names += ["beta_int", "se_int", "beta_dom", "se_dom"]
        names += ["pve", "log10_bf", "log10_bf_int", "log10_bf_dom"]
        names += ["post_mean", "post_sd", "lfsr", "ppa", "method"]
        top = hits.iloc[rows[:25]]
        shown = top[[name for name in names if name in top]].copy()
        if "pos" in shown:
            shown["pos"] = shown["pos"].astype("Int64").where(shown["pos"] > 0)
        place = shown.columns.get_loc("eaf") + 1 if "eaf" in shown else 0
        shown.insert(place, "-log10 p", top.neg_log10_p)
        shown.insert(shown.columns.get_loc("-log10 p") + 1, "p", top.neg_log10_p.map(power_of_ten))
        signed, errors = ("beta", "beta_int", "beta_dom"), ("se", "se_int", "se_dom")
        three = dict.fromkeys((*signed, "post_mean"), "{:+.3g}".format)
        three |= dict.fromkeys((*errors, "post_sd", "lfsr", "ppa"), "{:.2g}".format)
        three |= dict.fromkeys(("eaf", "eaf_cases", "eaf_controls"), "{:.2f}".format)
        three |= dict.fromkeys(("or", "or_low", "or_high"), "{:.3g}".format)
        intro = (
            ""
            if len(loci)
            else paragraph("No locus is significant. The strongest variants, for orientation:")
        )
        return intro + table(
            shown,
            three
            | {
                "pos": "{:,}".format,
                "pve": lambda share: f"{100 * share:.1f}%",
            }
            | dict.fromkeys(
                ("-log10 p", "log10_bf", "log10_bf_int", "log10_bf_dom"), "{:.1f}".format
            ),
            sortable=True,
            caption="The best variant of each locus. Click a header to sort. "
            + (
                "or: odds ratio per effect allele (ea), with its 95% interval"
                if "or" in hits
                else "beta: change of the phenotype per effect allele (ea)"
            )
            + _second_effect(hits)
            + (
                ""
                if "post_mean" not in hits
                else "; post_mean: the same by its posterior, which shrinks it"
            )
            + ". Effects of loci that a scan has chosen are on average overestimated.",
        )

    def _locus(self, hits: pd.DataFrame, locus: Any) -> list[str]:
        from bayeslmm import plots
        from bayeslmm.plots.genome import around, ld_with
        from bayeslmm.reporting import interactive

        lead = str(hits.id.iloc[locus.row])
        place = f"chromosome {locus.chrom}"
        pieces = [heading(f"{lead}, {place}")]
        if self.genotypes is None:
            return pieces
        width = 0.0 if pd.isna(locus.start) else float(locus.end - locus.start)
        region = around(hits, lead, flank=max(width, self.gap / 2))
        distance = np.abs(region.place - region.place[region.id == lead].iloc[0]).to_numpy()
        nearest = np.sort(np.argsort(distance, kind="stable")[:_MOST_SNPS])
        region, flank = region.iloc[nearest], float(distance[nearest].max())
        ids = self.genotypes.variants.id
        try:
            require_unique(ids[ids.isin(region.id)])
        except InputError as error:
            return [*pieces, paragraph(f"Neither drawn nor fine-mapped. {error}")]
        genotypes = self.genotypes.select(samples=self.model.ids)
        # Fine-mapping is of allele counts, given the model's covariates alone.
        found = None if _what_is_tested(hits) else self._finemapped(region)
        r2 = ld_with(genotypes, region.id, lead)
        pip = None
        if found is not None:
            pip = found.variants.set_index("id").pip.reindex(region.id).to_numpy()
        label = f"Variants around {lead} on {place}, coloured by their LD with it"
        key = f"region-{locus.row}"
        self.live[key] = interactive.regional(region, r2, pip, label=label)
        self.still[key] = pages.image(
            partial(
                draw, plots.regional, hits, genotypes, lead, flank=flank, found=found, title=""
            ),
            (8.2, 3.9),
            label,
        )
        caption = f"[[{key}]]Darker points are in stronger LD with {lead}"
        if found is None:
            return [*pieces, f"{caption}."]
        caption += "; larger ones have a higher probability of being causal."
        return [*pieces, caption, *credible_sets(found)]

    def _finemapped(self, region: pd.DataFrame) -> FineMap | None:
        testable = region[region.neg_log10_p.notna()]
        if len(testable) < 2:
            return None
        found = self.model.finemap(self.genotypes, snps=list(testable.id), seed=self.seed)
        self.method(
            "Loci were fine-mapped by a sum of single effects given relatedness, h2 integrated out"
            + (", in a linear model of the 0/1 phenotype" if self.cases is not None else ""),
            "susie",
        )
        return found


def _what_is_tested(hits: pd.DataFrame) -> str:
    """What a scan tested other than the effect of each variant by itself, in words."""
    given = hits.attrs.get("condition_on")
    what = tested_term(hits.attrs) or ("variants" if given else "")
    return f"{what} given {listed(given)}" if given else what


def _second_effect(hits: pd.DataFrame) -> str:
    """What a table says of the second term of a variant."""
    if "beta_int" in hits:
        covariate, mean = hits.attrs["interaction"], hits.attrs["interaction_mean"]
        return f" where {covariate} is {mean:.3g}; beta_int: what each unit of {covariate} adds"
    if "beta_dom" in hits:
        return ", on average; beta_dom: how far heterozygotes are from the middle"
    return ""


def _cases(model: LMM) -> CaseControl | None:
    """Who is a case, if the phenotype says so."""
    if not is_two_valued(model.y):
        return None
    try:
        return case_control(model)
    except InputError:
        return None  # two values, but not the codes of cases and controls


def _exact_p(evidence: Evidence) -> str:
    """The p-value of a simulated null distribution, with its sign."""
    tiny = evidence.p_exact * (evidence.replicates + 1) < 1.5
    return f"< {1 / evidence.replicates:.1g}" if tiny else f"= {evidence.p_exact:.2g}"
