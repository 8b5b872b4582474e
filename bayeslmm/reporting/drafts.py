"""What every report has: samples, checks, methods with their sources, how it was made."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.reporting import diagnostics, pages
from bayeslmm.reporting.pages import Section, definitions, escape, figure, items, paragraph, table
from bayeslmm.runs.files import write_aside
from bayeslmm.runs.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from bayeslmm.model.residuals import ResidualCheck

_WORDS = {"good": "fine", "look": "look at", "problem": "problem"}
SOURCES = {
    "posterior": "Furlotte NA, Heckerman D, Lippert C (2014). Quantifying the uncertainty in "
    "heritability. J Hum Genet 59:269. doi:10.1038/jhg.2014.15",
    "lmm": "Zhou X, Stephens M (2012). Genome-wide efficient mixed-model analysis for association "
    "studies. Nat Genet 44:821. doi:10.1038/ng.2310",
    "grm": "Yang J, Lee SH, Goddard ME, Visscher PM (2011). GCTA: a tool for genome-wide complex "
    "trait analysis. Am J Hum Genet 88:76. doi:10.1016/j.ajhg.2010.11.011",
    "bf": "Servin B, Stephens M (2007). Imputation-based analysis of association studies: "
    "candidate regions and quantitative traits. PLoS Genet 3:e114. "
    "doi:10.1371/journal.pgen.0030114",
    "lfsr": "Stephens M (2017). False discovery rates: a new deal. Biostatistics 18:275. "
    "doi:10.1093/biostatistics/kxw041",
    "rlrt": "Crainiceanu CM, Ruppert D (2004). Likelihood ratio tests in linear mixed models with "
    "one variance component. J R Stat Soc B 66:165. doi:10.1111/j.1467-9868.2004.00438.x",
    "loo": "Bürkner P-C, Gabry J, Vehtari A (2021). Efficient leave-one-out cross-validation for "
    "Bayesian non-factorized normal and Student-t models. Comput Stat 36:1243. "
    "doi:10.1007/s00180-020-01045-4",
    "susie": "Wang G, Sarkar A, Carbonetto P, Stephens M (2020). A simple new approach to variable "
    "selection in regression, with application to genetic fine mapping. J R Stat Soc B 82:1273. "
    "doi:10.1111/rssb.12388",
    "ai": "Gilmour AR, Thompson R, Cullis BR (1995). Average information REML: an efficient "
    "algorithm for variance parameter estimation in linear mixed models. Biometrics 51:1440. "
    "doi:10.2307/2533274",
    "mixture": "Self SG, Liang K-Y (1987). Asymptotic properties of maximum likelihood estimators "
    "and likelihood ratio tests under nonstandard conditions. J Am Stat Assoc 82:605. "
    "doi:10.1080/01621459.1987.10478472",
    "reml": "Patterson HD, Thompson R (1971). Recovery of inter-block information when block sizes "
    "are unequal. Biometrika 58:545. doi:10.1093/biomet/58.3.545",
    "repeated": "Wilson AJ et al. (2010). An ecologist's guide to the animal model. J Anim Ecol "
    "79:13. doi:10.1111/j.1365-2656.2009.01639.x",
    "pedigree": "Henderson CR (1976). A simple method for computing the inverse of a numerator "
    "relationship matrix used in prediction of breeding values. Biometrics 32:69. "
    "doi:10.2307/2529339",
    "blup": "Henderson CR (1975). Best linear unbiased estimation and prediction under a selection "
    "model. Biometrics 31:423. doi:10.2307/2529430",
    "gblup": "VanRaden PM (2008). Efficient methods to compute genomic predictions. J Dairy Sci "
    "91:4414. doi:10.3168/jds.2007-0980",
    "nuts": "Hoffman MD, Gelman A (2014). The No-U-Turn sampler: adaptively setting path lengths "
    "in Hamiltonian Monte Carlo. J Mach Learn Res 15:1593.",
    "partition": "Yang J et al. (2011). Genome partitioning of genetic variation for complex "
    "traits using common SNPs. Nat Genet 43:519. doi:10.1038/ng.823",
    "pareto": "Vehtari A et al. (2024). Pareto smoothed importance sampling. J Mach Learn Res "
    "25(72):1.",
    "two": "Lee SH et al. (2012). Estimation of pleiotropy between complex diseases using "
    "single-nucleotide polymorphism-derived genomic relationships and restricted maximum "
    "likelihood. Bioinformatics 28:2540. doi:10.1093/bioinformatics/bts474",
    "lkj": "Lewandowski D, Kurowicka D, Joe H (2009). Generating random correlation matrices based "
    "on vines and extended onion method. J Multivar Anal 100:1989. "
    "doi:10.1016/j.jmva.2009.04.008",
    "liability": "Falconer DS (1965). The inheritance of liability to certain diseases, estimated "
    "from the incidence among relatives. Ann Hum Genet 29:51. "
    "doi:10.1111/j.1469-1809.1965.tb00500.x",
    "probit": "Albert JH, Chib S (1993). Bayesian analysis of binary and polychotomous response "
    "data. J Am Stat Assoc 88:669. doi:10.1080/01621459.1993.10476321",
    "transform": "Lee SH et al. (2011). Estimating missing heritability for disease from "
    "genome-wide association studies. Am J Hum Genet 88:294. doi:10.1016/j.ajhg.2011.02.002",
    "pcgc": "Golan D, Lander ES, Rosset S (2014). Measuring missing heritability: inferring the "
    "contribution of common variants. Proc Natl Acad Sci USA 111:E5272. "
    "doi:10.1073/pnas.1419064111",
    "gmmat": "Chen H et al. (2016). Control for population structure and relatedness for binary "
    "traits in genetic association studies via logistic mixed models. Am J Hum Genet 98:653. "
    "doi:10.1016/j.ajhg.2016.02.012",
    "spa": "Dey R et al. (2017). A fast and accurate algorithm to test for binary phenotypes and "
    "its application to PheWAS. Am J Hum Genet 101:37. doi:10.1016/j.ajhg.2017.05.014",
    "firth": "Firth D (1993). Bias reduction of maximum likelihood estimates. Biometrika 80:27. "
    "doi:10.1093/biomet/80.1.27",
}


class Draft:
    """A report in the making: its sections, and what they say in other places.

    Parameters
    ----------
    formula : str
        What was analysed.
    n : int
        Samples analysed.
    seed : int
        Of everything random.
    counted : str
        What was analysed, in numbers and words; by default the samples.

    Attributes
    ----------
    sections : list of Section
        The parts that are the report's own, in their order.
    answer : list of str
        Sentences of the first paragraph.
    checks : list of Check
        What to look at before the results are believed.
    live, still : dict
        Interactive figures by name, and the same for paper.
    """

    def __init__(self, formula: str, n: int, seed: int, counted: str = "") -> None:
        self.formula, self.n, self.seed = formula, n, seed
        self.counted = counted or f"{n:,} samples"
        self.sections: list[Section] = []
        self.answer = [f"{self.counted}."]
        self.checks: list[diagnostics.Check] = []
        self.live: dict[str, Any] = {}
        self.still: dict[str, str] = {}
        self._cited: list[str] = []
        self._methods: list[str] = []
        self._below_checks: list[str] = []

    # -- what the parts add --------------------------------------------------------------------

    def section(self, anchor: str, title: str, short: str) -> Section:
        """A new section after the others."""
        made = Section(anchor, title, short)
        self.sections.append(made)
        return made

    def method(self, sentence: str, *sources: str) -> None:
        """A sentence of the methods, and what it cites of `SOURCES`."""
        numbers = []
        for source in sources:
            if source not in self._cited:
                self._cited.append(source)
            numbers.append(str(self._cited.index(source) + 1))
        said = f"{sentence} [{', '.join(numbers)}]." if numbers else f"{sentence}."
        if said not in self._methods:
            self._methods.append(said)

    def residuals(self, check: ResidualCheck, label: str = "") -> None:
        """A check of residuals, and its figure below the checks."""
        from bayeslmm import plots

        of = f" of {label}" if label else ""
        self.checks.append(diagnostics.of_residuals(check, label))
        self._below_checks.append(
            figure(
                partial(draw, plots.residuals, check),
                (4.8, 4.8),
                f"Normal quantile plot of the whitened residuals{of}",
                f"Whitened residuals{of}." if label else "",
            )
        )

    # -- the whole page ----------------------------------------------------------------------------

    def page(self, title: str, lead: str, question: str, about: Mapping[str, Any]) -> str:
        """The page as HTML: answer, sections, checks, methods, provenance."""
        from bayeslmm.reporting.interactive import embed

        parts = [*self.sections, self._checks(), self._methods_section(), self._provenance(about)]
        level = diagnostics.worst(self.checks)
        count = sum(check.level != "good" for check in self.checks)
        self.answer.append(
            "All checks are fine."
            if level == "good"
            else f"{count} of {len(self.checks)} checks ask{'s' * (count == 1)} for a look: see "
            "Checks."
        )
        top = Section("answer", "In short", "In short")
        top.add(paragraph(question) if question else "")
        top.add(f'<p class="answer">{escape(" ".join(self.answer))}</p>')
        head, divs = embed(self.live)
        for part in parts:
            part.pieces = [self._put(piece, divs) for piece in part.pieces]
        made = provenance()
        foot = f"Made by {made['created_by']} at {made['created_at']}."
        return pages.page(title, lead, [top, *parts], head=head, foot=foot)

    def write(
        self,
        path: str | os.PathLike[str],
        title: str,
        lead: str,
        question: str,
        about: Mapping[str, Any] | None,
        *,
        overwrite: bool,
    ) -> Path:
        """Write the page, whole or not at all."""
        text = self.page(title, lead, question, about or {})
        with write_aside(path, overwrite=overwrite) as aside:
            aside.write_text(text, encoding="utf-8")
        return Path(path)

    def _put(self, piece: str, divs: Mapping[str, str]) -> str:
        """Interactive figures where their places are kept."""
        for name, div in divs.items():
            marker = f"[[{name}]]"
            if piece.startswith(marker):
                caption = piece.removeprefix(marker)
                return pages.interactive(div, self.still[name], caption)
        return piece

    def _checks(self) -> Section:
        section = Section("checks", "Checks", "Checks")
        rows = []
        for check in sorted(self.checks, key=lambda c: -diagnostics.LEVELS.index(c.level)):
            action = f" <b>{escape(check.action)}</b>" if check.action else ""
            rows.append(
                f'<li><span class="light {check.level}">{_WORDS[check.level]}</span>'
                f"<span>{escape(check.name)}: {escape(check.finding)}{action}</span></li>"
            )
        return section.add(f'<ul class="checks">{"".join(rows)}</ul>', *self._below_checks)

    def _methods_section(self) -> Section:
        made = provenance()
        section = Section("methods", "Methods, to paste", "Methods")
        text = " ".join([*self._methods, f"All computations were done with {made['created_by']}."])
        return section.add(
            f'<div class="copy" id="methods-text"><p>{escape(text)}</p>'
            + items(f"[{i}] {SOURCES[source]}" for i, source in enumerate(self._cited, 1))
            + '</div><p><button type="button" data-copy="methods-text">Copy</button></p>'
        )

    def _provenance(self, about: Mapping[str, Any]) -> Section:
        rows: dict[str, object] = {**provenance(), "formula": self.formula, "seed": self.seed}
        section = Section("provenance", "How this was made", "Provenance")
        return section.add(definitions(rows | dict(_flat(about))))


def _flat(about: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested provenance as rows of a name and a text."""
    for key, value in about.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        elif value is not None:
            yield name, " ".join(map(str, value)) if isinstance(value, list) else value


def refuse_foreign(tree: xr.DataTree, wanted: str, kind: str) -> None:
    """Raise an `InputError` where draws lack what those of a kind of model have."""
    if wanted not in tree["posterior"].dataset:
        raise InputError(f"These draws have no {wanted}: they are not of a {kind}.")


# -- pieces of a page --------------------------------------------------------------------------


def account(
    samples: pd.DataFrame,
    unit: str = "samples",
    caption: str = "Everybody in the table of phenotypes or among the genotypes.",
) -> str:
    """Who was analysed and who was not, as a table."""
    dropped = samples.reason[~samples.kept].value_counts()
    rows = [("analysed", int(samples.kept.sum())), *dropped.items()]
    counted = pd.DataFrame(rows, columns=[unit, "number"])
    return table(counted, {"number": "{:,}".format}, caption=caption)


def in_numbers(name: str, y: np.ndarray) -> str:
    """A phenotype in one line."""
    return (
        f"{name}: mean {_round(y.mean(), y.std()):g}, sd {y.std(ddof=1):.4g}, "
        f"{y.min():.4g} to {y.max():.4g}"
    )


def histogram(name: str, y: np.ndarray, unit: str = "Samples") -> str:
    """Its distribution as a figure."""

    def bars(ax: Axes) -> None:
        from bayeslmm.plots.drawing import DARK, INK, clean

        ax.hist(y, bins=min(60, max(10, len(y) // 25)), color=DARK)
        ax.set_xlabel(name)
        ax.set_ylabel(unit)
        clean(ax)
        ax.tick_params(labelcolor=INK)

    return figure(bars, (6.2, 2.3), f"Histogram of {name}")


def draw(plot: Any, *data: Any, **options: Any) -> None:
    """A function of `bayeslmm.plots` called with its axes last."""
    *given, ax = data
    plot(*given, ax=ax, **options)


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.0f}%"


def listed(names: Iterable[str], nothing: str = "no covariates") -> str:
    """Names with commas and an and."""
    given = list(names)
    if len(given) < 2:
        return "".join(given) or nothing
    return textwrap.shorten(f"{', '.join(given[:-1])} and {given[-1]}", 200)


def _round(value: float, scale: float) -> float:
    """A number without the digits that its scale makes meaningless."""
    digits = 3 - int(np.floor(np.log10(scale))) if scale > 0 else 6
    return round(float(value), digits) + 0.0
