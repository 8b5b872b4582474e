"""The report of an analysis: one HTML file that a collaborator without Python reads."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.genome.loci import find_loci, neg_log10_p
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes
from bayeslmm.reporting import diagnostics, pages
from bayeslmm.reporting.pages import (
    Section,
    definitions,
    escape,
    figure,
    heading,
    items,
    paragraph,
    table,
)
from bayeslmm.runs.files import refuse_existing, write_aside
from bayeslmm.runs.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from bayeslmm.genome.finemapping import FineMap
    from bayeslmm.model.lmm import LMM

_LOCI, _MOST_SNPS = 3, 400
_WORDS = {"good": "fine", "look": "look at", "problem": "problem"}
_CITE = {
    "posterior": "Furlotte NA, Heckerman D, Lippert C (2014). Quantifying the uncertainty in "
    "heritability. J Hum Genet 59:269. doi:10.1038/jhg.2014.15",
    "lmm": "Zhou X, Stephens M (2012). Genome-wide efficient mixed-model analysis for association "
    "studies. Nat Genet 44:821. doi:10.1038/ng.2310",
    "grm": "Yang J, Lee SH, Goddard ME, Visscher PM (2011). GCTA: a tool for genome-wide complex "
    "trait analysis. Am J Hum Genet 88:76. doi:10.1016/j.ajhg.2010.11.011",
    "bf": "Servin B, Stephens M (2007). Imputation-based analysis of association studies. PLoS "
    "Genet 3:e114. doi:10.1371/journal.pgen.0030114",
    "lfsr": "Stephens M (2017). False discovery rates: a new deal. Biostatistics 18:275. "
    "doi:10.1093/biostatistics/kxw041",
    "rlrt": "Crainiceanu CM, Ruppert D (2004). Likelihood ratio tests in linear mixed models with "
    "one variance component. J R Stat Soc B 66:165. doi:10.1111/j.1467-9868.2004.00438.x",
    "loo": "Burkner P-C, Gabry J, Vehtari A (2021). Efficient leave-one-out cross-validation for "
    "Bayesian non-factorized normal and Student-t models. Comput Stat 36:1243. "
    "doi:10.1007/s00180-020-01045-4",
    "susie": "Wang G, Sarkar A, Carbonetto P, Stephens M (2020). A simple new approach to variable "
    "selection in regression, with application to genetic fine mapping. J R Stat Soc B 82:1273. "
    "doi:10.1111/rssb.12388",
}


def report(
    model: LMM,
    path: str | os.PathLike[str],
    *,
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray | None = None,
    hits: pd.DataFrame | None = None,
    tree: xr.DataTree | None = None,
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
    tree : DataTree, optional
        Draws of `LMM.sample`, whose convergence is then among the checks.
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
    if genotypes is not None:
        variants = as_genotypes(genotypes)
        if hits is None:
            hits = model.scan(variants)
    text = _Report(model, variants, hits, tree, finemap, locus_gap, seed).page(
        title, question, about or {}
    )
    with write_aside(path, overwrite=overwrite) as aside:
        aside.write_text(text, encoding="utf-8")
    return Path(path)


@dataclass
class _Report:
    """The parts of a report; what several of them need is computed once."""

    model: LMM
    genotypes: Genotypes | None
    hits: pd.DataFrame | None
    tree: xr.DataTree | None
    n_finemap: int
    gap: float
    seed: int

    def page(self, title: str | None, question: str, about: Mapping[str, Any]) -> str:
        from bayeslmm.reporting.interactive import embed

        self.live: dict[str, Any] = {}
        self.still: dict[str, str] = {}
        self.checks: list[diagnostics.Check] = []
        self.cited: list[str] = []
        self.methods: list[str] = []
        self.name = self.model.formula.split("~")[0].strip()
        data = self._data()
        sections = [data, self._model()]
        answer = [f"{len(self.model.y):,} samples."]
        if self.model.has_kernel:
            sections += [self._heritability(answer), self._comparison(), self._relatedness()]
        if self.hits is not None:
            sections += [*self._genome(answer)]
        self._residuals = self.model.check_residuals()
        self.checks.append(diagnostics.of_residuals(self._residuals))
        if self.tree is not None:
            self.checks.append(diagnostics.of_sampling(self.tree))
        sections += [self._diagnostics(), self._methods(), self._provenance(about)]
        level = diagnostics.worst(self.checks)
        count = sum(check.level != "good" for check in self.checks)
        answer.append(
            "All checks are fine."
            if level == "good"
            else f"{count} of {len(self.checks)} checks ask for a look: see Checks."
        )
        top = Section("answer", "In short", "In short")
        top.add(paragraph(question) if question else "")
        top.add(f'<p class="answer">{escape(" ".join(answer))}</p>')
        head, divs = embed(self.live)
        for section in sections:
            section.pieces = [self._put(piece, divs) for piece in section.pieces]
        made = provenance()
        return pages.page(
            title or f"{self.name}: heritability and genes",
            f"{self.model.formula}, {len(self.model.y):,} samples",
            [top, *sections],
            head=head,
            foot=f"Made by {made['created_by']} at {made['created_at']}.",
        )

    def _put(self, piece: str, divs: Mapping[str, str]) -> str:
        """Interactive figures where their places are kept."""
        for name, div in divs.items():
            marker = f"[[{name}]]"
            if piece.startswith(marker):
                caption = piece.removeprefix(marker)
                return pages.interactive(div, self.still[name], caption)
        return piece

    # -- data and model ----------------------------------------------------------------------

    def _data(self) -> Section:
        model = self.model
        section = Section("data", "Data", "Data")
        account = model.samples
        dropped = account.reason[~account.kept].value_counts()
        rows = [("analysed", len(model.y)), *dropped.items()]
        section.add(
            table(
                pd.DataFrame(rows, columns=["samples", "number"]),
                {"number": "{:,}".format},
                caption="Everybody in the table of phenotypes or among the genotypes.",
            )
        )
        y = model.y
        section.add(
            definitions(
                {
                    "phenotype": f"{self.name}: mean {_round(y.mean(), y.std()):g}, "
                    f"sd {y.std(ddof=1):.4g}, "
                    f"{y.min():.4g} to {y.max():.4g}",
                    "covariates": ", ".join(model.C.columns) or "none",
                }
            )
        )

        def draw(ax: Axes) -> None:
            from bayeslmm.plots.drawing import DARK, INK, clean

            ax.hist(y, bins=min(60, max(10, len(y) // 25)), color=DARK)
            ax.set_xlabel(self.name)
            ax.set_ylabel("Samples")
            clean(ax)
            ax.tick_params(labelcolor=INK)

        section.add(figure(draw, (6.2, 2.3), f"Histogram of {self.name}"))
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
        self.checks += [diagnostics.of_samples(model), diagnostics.of_phenotype(model)]
        return section

    def _model(self) -> Section:
        model = self.model
        section = Section("model", "Model and priors", "Model")
        y, C, b = pages.symbol("y"), pages.symbol("C"), pages.symbol("b")
        u, e, K = pages.symbol("u"), pages.symbol("e"), pages.symbol("K")
        equals, plus, follows = map(pages.operator, ("=", "+", "∼"))
        normal = "<mi mathvariant='normal'>N</mi>"
        s2_g, s2_e = pages.symbol("σ", "g", "2"), pages.symbol("σ", "e", "2")
        identity = "<mi mathvariant='bold'>I</mi>"
        if not model.has_kernel:
            section.add(
                paragraph("Linear regression: each sample is its covariates' effects and noise."),
                pages.formula(
                    f"<mrow>{y}{equals}{C}{b}{plus}{e}</mrow>",
                    f"<mrow>{e}{follows}{normal}<mo>(</mo><mn>0</mn><mo>,</mo>{s2_e}{identity}"
                    "<mo>)</mo></mrow>",
                ),
            )
            return section
        section.add(
            paragraph(
                "Each sample's phenotype is the sum of the effects of its covariates (C b), of its "
                "genome as a whole (u) and of everything else (e). Relatives share their genome, "
                "so their u are alike, to the degree given by the relatedness matrix K."
            ),
            pages.formula(
                f"<mrow>{y}{equals}{C}{b}{plus}{u}{plus}{e}</mrow>",
                f"<mrow>{u}{follows}{normal}<mo>(</mo><mn>0</mn><mo>,</mo>{s2_g}{K}<mo>)</mo></mrow>",
                f"<mrow>{e}{follows}{normal}<mo>(</mo><mn>0</mn><mo>,</mo>{s2_e}{identity}<mo>)</mo>"
                "</mrow>",
            ),
            paragraph("Heritability is the share of the genome in the variance left by C:"),
            pages.formula(
                f"<mrow><msup><mi>h</mi><mn>2</mn></msup>{equals}"
                + pages.fraction(f"{s2_g}<mi>κ</mi>", f"{s2_g}<mi>κ</mi>{plus}{s2_e}")
                + "</mrow>"
            ),
        )
        grm = model.grm
        terms = {
            "K": repr(grm).strip("<>") if grm is not None else "given as its eigenbasis",
            "κ": f"{model.rotated.kappa:.4g}, the mean diagonal of K centred on these samples",
            "prior of h²": str(model.h2_prior),
            "prior of the total variance": "1/s2",
            "prior of b": "flat",
        }
        if self.hits is not None and "effect_prior" in self.hits.attrs:
            terms["prior of a variant's effect"] = (
                f"{self.hits.attrs['effect_prior']}, in phenotypic sd per sd of the genotype"
            )
        section.add(definitions(terms))
        self._method(
            f"The phenotype {self.name} of {len(model.y):,} samples was analysed by a linear mixed "
            f"model with {_and(model.C.columns)} as fixed effects and a polygenic effect with "
            "covariance proportional to the genetic relatedness matrix"
            + (f" ({grm.scale}, {grm.n_variants:,} variants)" if grm and grm.n_variants else ""),
            "grm",
        )
        return section

    # -- heritability --------------------------------------------------------------------------

    def _heritability(self, answer: list[str]) -> Section:
        from bayeslmm import plots
        from bayeslmm.plots.genome import variance_shares

        model, found = self.model, self.model.h2_report()
        section = Section("h2", f"Heritability of {self.name}", "Heritability")
        low, high = found.intervals.loc["posterior", ["low", "high"]]
        share = f"{100 * found.mean:.0f}%"
        answer.append(
            f"The genome accounts for {share} of the variance of {self.name}; with probability "
            f"95% for {100 * low:.0f}% to {100 * high:.0f}%."
        )
        section.add(
            paragraph(
                f"Posterior mean {found.mean:.3f}, sd {found.posterior.sd:.3f}; REML "
                f"{found.estimate:.3f}."
            ),
            figure(
                partial(_draw, plots.h2_report, found),
                (7.6, 5.2),
                f"Posterior density of the heritability of {self.name}, mean {found.mean:.2f}, and "
                "its intervals",
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
                partial(_draw, plots.variance_partition, {self.name: model}),
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
        self.report = found
        self._method(
            f"The posterior distribution of h2 under {found.priors.index[0]} priors was computed "
            "by quadrature on the eigenvalues of the relatedness matrix"
            if found.priors.index[0] != repr(model.h2_prior)
            else f"The posterior distribution of h2 with prior {model.h2_prior} was computed by "
            "quadrature on the eigenbasis of the relatedness matrix, with covariate effects and "
            "total variance integrated out",
            "posterior",
        )
        self._method(
            f"h2 was {found.mean:.3f} (posterior mean; 95% highest-density interval {low:.3f} to "
            f"{high:.3f}); REML gave {found.estimate:.3f}, and the 95% confidence interval by "
            "inversion of the restricted likelihood-ratio test with simulated critical values was "
            f"{found.intervals.low['rlrt']:.3f} to {found.intervals.high['rlrt']:.3f}",
            "lmm",
            "rlrt",
        )
        return section

    def _comparison(self) -> Section:
        from bayeslmm.model.comparison import compare

        section = Section("compare", "Is it in the genes at all?", "Models")
        models = {"with relatedness": self.model, "without": self.model.without_kernel()}
        found = compare(models)
        shown = found[["elpd", "se", "elpd_diff", "dse", "log10_bf", "prob"]].copy()
        shown = shown.rename_axis("model").reset_index()
        shown = shown.rename(columns={"prob": "probability", "dse": "se of difference"})
        evidence = self.model.evidence(seed=self.seed)
        tiny = evidence.p_exact * (evidence.replicates + 1) < 1.5
        p = f"< {1 / evidence.replicates:.1g}" if tiny else f"= {evidence.p_exact:.2g}"
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
        self._method(
            "Models were compared by exact leave-one-out cross-validation and by marginal "
            "likelihoods",
            "loo",
        )
        return section

    def _relatedness(self) -> Section:
        from bayeslmm import plots
        from bayeslmm.plots.drawing import ACCENT, DARK, INK, clean

        basis = self.model.basis
        assert basis is not None
        section = Section("relatedness", "Relatedness and structure", "Relatedness")
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
                (4.8, 4.2),
                "Samples on the first two principal components",
                "Samples on the first two principal components of the relatedness matrix.",
            ),
            figure(
                spectrum,
                (6.2, 2.5),
                "Share of each principal component in the genetic variance",
                "The dashed line is the share that each would have if all were equally related.",
            ),
        )
        grm = self.model.grm
        if grm is not None:
            section.add(
                figure(
                    partial(_draw, plots.relatedness, grm),
                    (6.4, 5.4),
                    "Heat map of the relatedness matrix, relatives side by side",
                )
            )
        self.checks += diagnostics.of_kernel(grm, self.model.ids)
        return section

    # -- the genome ------------------------------------------------------------------------------

    def _genome(self, answer: list[str]) -> list[Section]:
        from bayeslmm import plots
        from bayeslmm.genome.association import lambda_gc
        from bayeslmm.plots.drawing import qq_ranks
        from bayeslmm.reporting import interactive

        hits = self.hits
        assert hits is not None
        section = Section("scan", f"Genome scan of {self.name}", "Genome scan")
        y = neg_log10_p(hits)
        tested = np.isfinite(y)
        n_tests = int(tested.sum())
        if not n_tests:
            section.add(paragraph("No variant could be tested: all are monomorphic."))
            return [section]
        threshold = 0.05 / n_tests
        line = -float(np.log10(threshold))
        loci = find_loci(hits, threshold, gap=self.gap)
        factor = lambda_gc(10.0 ** -y[tested])
        many = {0: "No locus is", 1: "One locus is"}.get(len(loci), f"{len(loci)} loci are")
        answer.append(
            f"{many} significant among {n_tests:,} variants (p < {threshold:.2g})"
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
            partial(_draw, plots.manhattan, hits, locus_gap=self.gap, title=""), (10, 3.9), label
        )
        order = np.flatnonzero(tested)[np.argsort(-y[tested], kind="stable")]
        ranks = qq_ranks(n_tests)
        label = f"QQ plot, lambda_GC {factor:.2f}"
        self.live["qq"] = interactive.qq(hits, n_tests, ranks, order[ranks - 1], label=label)
        self.still["qq"] = pages.image(partial(_draw, plots.qq, hits, title=""), (4.8, 4.8), label)
        section.add(
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
        found = Section("loci", "Top loci", "Top loci")
        found.add(self._top(hits, loci))
        for locus in loci.head(self.n_finemap).itertuples():
            found.add(*self._locus(hits, locus))
        self._method(
            f"{n_tests:,} variants were tested one at a time by exact REML Wald tests, the "
            "variance ratio estimated anew for each"
            if "p_wald" in hits
            else f"{n_tests:,} variants were tested one at a time",
            "lmm",
        )
        if "log10_bf" in hits:
            self._method(
                "Bayes factors integrate over h2 and average over prior effect sizes; the local "
                "false sign rate is the posterior probability that an effect has the other sign",
                "bf",
                "lfsr",
            )
        return [section, found]

    def _top(self, hits: pd.DataFrame, loci: pd.DataFrame) -> str:
        from bayeslmm.genome.loci import lead_variants
        from bayeslmm.reporting.interactive import power_of_ten

        rows = loci.row.to_numpy() if len(loci) else lead_variants(hits, 5, gap=self.gap)
        names = ["id", "chrom", "pos", "ea", "oa", "eaf", "beta", "se", "pve", "log10_bf"]
        names += ["post_mean", "post_sd", "lfsr", "ppa"]
        top = hits.iloc[rows[:25]]
        shown = top[[name for name in names if name in top]].copy()
        if "pos" in shown:
            shown["pos"] = shown["pos"].astype("Int64").where(shown["pos"] > 0)
        shown.insert(6 if len(shown.columns) > 6 else 0, "-log10 p", top.neg_log10_p)
        shown.insert(shown.columns.get_loc("-log10 p") + 1, "p", top.neg_log10_p.map(power_of_ten))
        three = dict.fromkeys(("beta", "post_mean"), "{:+.3g}".format)
        three |= dict.fromkeys(("se", "post_sd", "lfsr", "ppa"), "{:.2g}".format)
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
                "eaf": "{:.2f}".format,
                "pve": lambda share: f"{100 * share:.1f}%",
                "log10_bf": "{:.1f}".format,
                "-log10 p": "{:.1f}".format,
            },
            sortable=True,
            caption="The best variant of each locus. Click a header to sort. beta: "
            + ("log odds ratio" if "or" in hits else "change of the phenotype")
            + " per effect allele (ea)"
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
        genotypes = self.genotypes.select(samples=self.model.ids)
        found = self._finemapped(region)
        r2 = ld_with(genotypes, region.id, lead)
        pip = None
        if found is not None:
            pip = found.variants.set_index("id").pip.reindex(region.id).to_numpy()
        label = f"Variants around {lead} on {place}, coloured by their LD with it"
        key = f"region-{locus.row}"
        self.live[key] = interactive.regional(region, r2, pip, label=label)
        self.still[key] = pages.image(
            partial(
                _draw, plots.regional, hits, genotypes, lead, flank=flank, found=found, title=""
            ),
            (8.2, 3.9),
            label,
        )
        pieces.append(
            f"[[{key}]]Darker points are in stronger LD with {lead}; larger ones have a higher "
            "probability of being causal."
        )
        if found is None:
            return pieces
        sets = found.credible_sets
        pieces.append(
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
        )
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

    def _finemapped(self, region: pd.DataFrame) -> FineMap | None:
        testable = region[region.neg_log10_p.notna()]
        if len(testable) < 2:
            return None
        found = self.model.finemap(self.genotypes, snps=list(testable.id), seed=self.seed)
        self._method(
            "Loci were fine-mapped by a sum of single effects given relatedness, h2 integrated out",
            "susie",
        )
        return found

    # -- checks, methods, provenance ---------------------------------------------------------------

    def _diagnostics(self) -> Section:
        from bayeslmm import plots

        section = Section("checks", "Checks", "Checks")
        rows = []
        for check in sorted(self.checks, key=lambda c: -diagnostics.LEVELS.index(c.level)):
            action = f" <b>{escape(check.action)}</b>" if check.action else ""
            rows.append(
                f'<li><span class="light {check.level}">{_WORDS[check.level]}</span>'
                f"<span>{escape(check.name)}: {escape(check.finding)}{action}</span></li>"
            )
        section.add(f'<ul class="checks">{"".join(rows)}</ul>')
        section.add(
            figure(
                partial(_draw, plots.residuals, self._residuals),
                (4.8, 4.8),
                "Normal quantile plot of the whitened residuals",
            )
        )
        return section

    def _method(self, sentence: str, *sources: str) -> None:
        numbers = []
        for source in sources:
            if source not in self.cited:
                self.cited.append(source)
            numbers.append(str(self.cited.index(source) + 1))
        said = f"{sentence} [{', '.join(numbers)}]." if numbers else f"{sentence}."
        if said not in self.methods:
            self.methods.append(said)

    def _methods(self) -> Section:
        made = provenance()
        section = Section("methods", "Methods, to paste", "Methods")
        text = " ".join([*self.methods, f"All computations were done with {made['created_by']}."])
        section.add(
            f'<div class="copy" id="methods-text"><p>{escape(text)}</p>'
            + items(f"[{i}] {_CITE[source]}" for i, source in enumerate(self.cited, 1))
            + '</div><p><button type="button" data-copy="methods-text">Copy</button></p>'
        )
        return section

    def _provenance(self, about: Mapping[str, Any]) -> Section:
        section = Section("provenance", "How this was made", "Provenance")
        rows: dict[str, object] = {**provenance(), "formula": self.model.formula, "seed": self.seed}
        for key, value in about.items():
            if isinstance(value, Mapping):
                rows |= {f"{key}: {k}": v for k, v in value.items() if v is not None}
            elif value is not None:
                rows[key] = " ".join(map(str, value)) if isinstance(value, list) else value
        section.add(definitions(rows))
        return section


def _draw(plot: Any, *data: Any, **options: Any) -> None:
    """A function of `bayeslmm.plots` called with its axes last."""
    *given, ax = data
    plot(*given, ax=ax, **options)


def _round(value: float, scale: float) -> float:
    """A number without the digits that its scale makes meaningless."""
    digits = 3 - int(np.floor(np.log10(scale))) if scale > 0 else 6
    return round(float(value), digits) + 0.0


def _and(names: Iterable[str]) -> str:
    listed = list(names)
    if len(listed) < 2:
        return "".join(listed) or "no covariates"
    return textwrap.shorten(f"{', '.join(listed[:-1])} and {listed[-1]}", 200)
