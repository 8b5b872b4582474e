"""The commands `scan` and `finemap`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Basis
from bayeslmm.commands import binary as commands_binary
from bayeslmm.commands.data import Data
from bayeslmm.commands.data import run as open_run
from bayeslmm.commands.shared import paragraph, percent
from bayeslmm.errors import InputError, require_library
from bayeslmm.genome import pairs
from bayeslmm.genome.association import scan_to_file
from bayeslmm.genome.backgrounds import Background
from bayeslmm.genome.codings import Coding
from bayeslmm.genome.loci import find_loci, lambda_gc
from bayeslmm.genome.scan_tables import tested_term
from bayeslmm.genome.scanner import TESTS
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.inputs.regions import parse_region
from bayeslmm.model.lmm import LMM
from bayeslmm.model.snps import selected_snps
from bayeslmm.relatedness.dense import Relatedness
from bayeslmm.runs.provenance import provenance
from bayeslmm.runs.results import (
    unfinished,
    write_table,
)

if TYPE_CHECKING:
    from bayeslmm.genome.finemapping import FineMap

_TESTS, _EFFECT_SD = "wald,bayes", "0.05,0.1,0.2,0.4"
_LOCI_SHOWN, _SNPS_SHOWN = 10, 30


def _numbers(option: str, text: str) -> list[float]:
    """Numbers with commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: expected numbers with commas between them.") from None


def _linear_tests(text: str | None) -> tuple[str, ...]:
    """Tests of a linear scan named on the command line."""
    chosen = tuple(test.strip() for test in (text or _TESTS).split(",") if test.strip())
    unknown = [test for test in chosen if test not in TESTS]
    if unknown or not chosen:
        raise InputError(f"--test {text}: expected one or more of {','.join(TESTS)}.")
    if chosen == ("bayes",):
        raise InputError("--test bayes: name a test with a p-value beside it, such as wald,bayes.")
    return chosen


def _check_relatedness(data: Data, background: Background, *, no_kernel: bool) -> None:
    """Raise an `InputError` where options name several kernels, or one that does not do."""
    if sum([data.grm is not None, data.basis is not None, no_kernel]) > 1:
        raise InputError("Name one of --grm, --basis and --no-kernel, not several.")
    other = data.grm or data.basis or no_kernel
    if background != "all" and other:
        raise InputError(
            f"--background {background} needs the variants of the relatedness matrix: it is made "
            "from BFILE. Leave out --grm, --basis and --no-kernel."
        )
    if data.scale is not None and other:
        raise InputError("--scale makes a relatedness matrix from BFILE; another one was named.")


def scan(
    data: Data,
    *,
    no_kernel: bool,
    background: Background,
    out: Path,
    family: Literal["gaussian", "binomial"],
    tests: str | None,
    effect_sd: str | None,
    prior_odds: float | None,
    chrom: list[str] | None,
    region: str | None,
    condition_on: str | None,
    coding: Coding,
    interaction: str | None,
    float64: bool,
    parquet: bool,
    locus_gap: float,
    overwrite: bool,
    restart: bool,
    threads: int | None,
) -> str:
    """Test every variant for one or more traits, to a folder; returns the summary."""
    binary = family == "binomial"
    chosen: tuple[str, ...] | None
    if binary:
        chosen = commands_binary.tests_of(
            tests,
            with_kernel=not no_kernel,
            background=background != "all",
            interaction=interaction is not None,
            effect_sd=effect_sd is not None,
            prior_odds=prior_odds is not None,
        )
    else:
        chosen = _linear_tests(tests)
    if chosen is not None and (interaction is not None or coding == "genotypic"):
        pairs.check(chosen, coding, prior_odds, with_interaction=interaction is not None)
    if region is not None:
        parse_region(region)
    widths = None if binary else _numbers("--effect-sd", effect_sd or _EFFECT_SD)
    _check_relatedness(data, background, no_kernel=no_kernel)
    if parquet:
        require_library("pyarrow", "parquet", "--parquet")
    with (
        unfinished(out, restart=restart) as kept,
        open_run(data, out, overwrite=overwrite, threads=threads) as run,
    ):
        table = data.table()
        genotypes = data.cohort
        run.clock(repr(genotypes))
        kernel: Relatedness | Basis | None = None
        if not no_kernel:
            kernel = data.kernel(table, run.clock, kept, by_chrom=background != "all")
        lines: list[str] = []
        accounts: dict[str, Any] = {}
        for name, formula in data.traits():
            known = data.genotyped(formula, table) if kernel is None else table
            model = LMM(formula, known, kernel, missing=data.missing)
            tested = data.selected(genotypes, chrom=chrom, region=region, samples=model.ids)
            conditions = None
            if condition_on is not None:
                # Looked up among all variants: they may be elsewhere, or filtered out.
                wanted = [part.strip() for part in condition_on.split(",") if part.strip()]
                conditions = selected_snps(model, wanted, genotypes).dosages(model.ids)
            hits = scan_to_file(
                model,
                tested,
                run.folder / f"scan_{name}.{'parquet' if parquet else 'tsv.gz'}",
                chosen,
                family=family,
                background=background,
                condition_on=conditions,
                coding=coding,
                interaction=interaction,
                effect_prior=widths,
                prior_odds=prior_odds,
                dtype="float64" if float64 else "float32",
                threads=threads,
                kept=kept.part_of_work(name),
            )
            run.clock(f"{name}: {len(hits):,} variants tested in {len(model.y):,} samples")
            write_scan(run.folder, name, model, hits.overview, tested, gap=locus_gap)
            lines += [*scan_lines(name, model, hits.overview, hits.rows, gap=locus_gap), ""]
            accounts[name] = _scan_account(hits.overview)
        run.clock("plots and tables")
        summary = run.finish(
            "scan",
            lines,
            about={"scans": accounts},
            family=family,
            tests=None if chosen is None else list(chosen),
            effect_sd=widths,
            prior_odds=prior_odds,
            kernel=not no_kernel,
            background=background,
            chrom=chrom,
            region=region,
            condition_on=condition_on,
            coding=coding,
            interaction=interaction,
            dtype="float64" if float64 else "float32",
        )
    return summary


def finemap(
    data: Data,
    *,
    out: Path,
    region: str,
    method: Literal["gibbs", "susie", "exact"],
    max_effects: int,
    expected_effects: float,
    coverage: float,
    seed: int | None,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Credible sets of causal variants in a region, to a folder; returns the summary."""
    from bayeslmm import plots
    from bayeslmm.genome.finemapping import finemap as map_region

    parse_region(region)
    with open_run(data, out, overwrite=overwrite, threads=threads) as run:
        table = data.table()
        genotypes = data.cohort
        kernel = data.kernel(table, run.clock)
        lines: list[str] = []
        for name, formula in data.traits():
            model = LMM(formula, table, kernel, missing=data.missing)
            tested = data.selected(genotypes, region=region, samples=model.ids)
            found = map_region(
                model,
                tested,
                region=region,
                method=method,
                max_effects=max_effects,
                expected_effects=expected_effects,
                coverage=coverage,
                seed=seed,
            )
            run.clock(f"{name}: {len(found.variants):,} variants")
            write_table(found.variants, run.folder / f"finemap_{name}.tsv")
            sets = found.credible_sets.assign(ids=found.credible_sets["ids"].map(",".join))
            write_table(sets, run.folder / f"credible_sets_{name}.tsv", index=True)
            write_table(model.samples, run.folder / f"samples_{name}.tsv", index=True)
            plots.save(run.folder / f"finemap_{name}.png", plots.fine_mapping, found)
            lines += [*_finemap_lines(name, found), ""]
        summary = run.finish(
            "finemap",
            lines,
            region=region,
            method=method,
            max_effects=max_effects,
            expected_effects=expected_effects,
            coverage=coverage,
            seed=found.attrs["seed"],
        )
    return summary


def _finemap_lines(name: str, found: FineMap) -> list[str]:
    sets = found.credible_sets
    many = f"{len(sets) or 'no'} credible set{'s' * (len(sets) > 1)}"
    lines = [
        f"## Fine-mapping of {name}, {found.attrs['region']}: {many} among "
        f"{len(found.variants):,} variants",
        f"{found.expected_effects:.1f} variants with an effect are expected.",
    ]
    for row in sets.itertuples():
        lead = found.variants.set_index("id").loc[row.lead]
        lines.append(
            f"  set {row.Index}: {row.size} variant{'s' * (row.size > 1)}, best {row.lead} (PIP "
            f"{lead.pip:.2f}), log10 Bayes factor {row.log10_bf:.1f}, smallest |r| {row.purity:.2f}"
        )
        lines.append(
            f"    each {lead.ea} changes {name} by {lead.beta:+.3g} (posterior sd {lead.sd:.2g})"
        )
    if not len(sets):
        lines.append("No group of variants in disequilibrium holds an effect for sure.")
    return lines


def _scan_account(hits: pd.DataFrame) -> dict[str, Any]:
    """What a scan says of itself, beside the provenance that all results have."""
    made = provenance()
    return {str(key): value for key, value in hits.attrs.items() if key not in made}


def write_scan(
    folder: Path,
    name: str,
    model: LMM,
    hits: pd.DataFrame,
    genotypes: Genotypes,
    *,
    gap: float = 5e6,
) -> None:
    """The plots of a scan, and the account of samples and variants, of one trait."""
    from bayeslmm import plots

    untested = hits.loc[hits.neg_log10_p.isna(), ["id", "chrom", "pos"]]
    reasons = {
        "monomorphic": hits.attrs["n_monomorphic"],
        "explained by covariates": hits.attrs["n_explained_by_covariates"],
        "fit did not converge": hits.attrs.get("n_not_converged", 0),
        "its two terms cannot be told apart": hits.attrs.get("n_int_not_estimable", 0)
        + hits.attrs.get("n_dom_not_estimable", 0),
    }
    reason = " or ".join(reason for reason, count in reasons.items() if count)
    parts = [t for t in (genotypes.excluded, untested.assign(reason=reason)) if len(t)]
    excluded = pd.concat(parts, ignore_index=True) if parts else genotypes.excluded
    write_table(excluded, folder / f"excluded_{name}.tsv")
    samples = folder / f"samples_{name}.tsv"
    if not samples.exists():
        write_table(model.samples, samples, index=True)
    if hits.neg_log10_p.notna().any():
        plots.save(folder / f"manhattan_{name}.png", plots.manhattan, hits, locus_gap=gap)
        plots.save(folder / f"qq_{name}.png", plots.qq, hits)


def scan_lines(
    name: str,
    model: LMM,
    hits: pd.DataFrame,
    rows: Callable[[np.ndarray], pd.DataFrame],
    *,
    gap: float = 5e6,
) -> list[str]:
    """Lines of the summary on a scan: its inflation and its loci; `rows` gives whole rows."""
    p = 10.0 ** -hits.neg_log10_p.dropna()
    n_tests = len(p)
    if not n_tests:
        return [
            f"## Genome scan of {name}",
            "No variant could be tested: all are monomorphic or explained by covariates.",
        ]
    threshold = 0.05 / n_tests
    loci = find_loci(hits, threshold, gap=gap)
    many = "no locus" if not len(loci) else "one locus" if len(loci) == 1 else f"{len(loci)} loci"
    shown = loci.head(_LOCI_SHOWN)
    leads = rows(shown["row"].to_numpy())
    second = "int" if "p_int" in leads else "dom" if "p_dom" in leads else None
    what = f": {term}" if (term := tested_term(hits.attrs)) else ""
    lines = [
        f"## Genome scan of {name}{what}: {many} among {n_tests:,} variants",
        f"Significant is p < {threshold:.2g}, that is 0.05 / {n_tests:,}.",
    ]
    binary = hits.attrs.get("family") == "binomial"
    if binary:
        for line in commands_binary.header(name, hits):
            lines += paragraph(line)
    elif "phenotype" in hits.attrs:
        lines += paragraph(f"{name}: {hits.attrs['phenotype']} (--family binomial).")
    if hits.attrs.get("background", "all") != "all":
        lines += paragraph(_background(hits))
    if "condition_on" in hits.attrs:
        lines += paragraph(f"Conditional on {', '.join(hits.attrs['condition_on'])}.")
    for locus, (_, lead) in zip(shown.itertuples(), leads.iterrows(), strict=True):
        lines.append(
            f"  chromosome {locus.chrom}, {_span(locus.start, locus.end)}: "
            f"{locus.n_variants:,} variant{'s' * (locus.n_variants > 1)}, best {lead.id}, "
            f"p = {_p(lead.neg_log10_p)}"
        )
        if second is not None:
            lines += _two_terms(name, lead, hits, second)
            continue
        if binary:
            lines.append(commands_binary.lead_line(lead))
            continue
        lines.append(
            f"    each {lead.ea} (frequency {lead.eaf:.2f}) changes {name} by {lead.beta:+.3g} "
            f"(SE {lead.se:.2g}); {percent(lead.pve)} of the variance"
        )
        if "log10_bf" in leads:
            lines.append(
                f"    log10 Bayes factor {lead.log10_bf:.1f}; effect, if there is one, "
                f"{lead.post_mean:+.3g} (posterior sd {lead.post_sd:.2g})"
                + (f", probability {lead.ppa:.3g} that there is" if "ppa" in leads else "")
            )
    if len(loci) > _LOCI_SHOWN:
        lines.append(f"  and {len(loci) - _LOCI_SHOWN:,} more")
    if len(loci) and "effect_prior" in hits.attrs:
        odds = f"; prior odds of an effect {hits.attrs['prior_odds']:g}" if "ppa" in leads else ""
        lines += paragraph(
            f"Bayes factors: h2 ~ {hits.attrs['h2_prior']}, effects ~ {hits.attrs['effect_prior']}"
            f", in phenotypic sd per sd of the genotype{odds}.",
            "  ",
        )
    if len(loci):
        lines.append("  (effects of loci that a scan has chosen are on average overestimated)")
    factor = lambda_gc(p)
    why = _inflation(factor, model.basis is not None, loco=_is_loco(hits))
    lines += paragraph(f"lambda_GC = {factor:.2f}{why}.")
    return lines


def _two_terms(name: str, lead: pd.Series, hits: pd.DataFrame, second: str) -> list[str]:
    """The effect of a variant, and what it depends on."""
    effect, se = lead[f"beta_{second}"], lead[f"se_{second}"]
    each = f"    each {lead.ea} (frequency {lead.eaf:.2f}) changes {name} by {lead.beta:+.3g}"
    if second == "int":
        covariate, mean = hits.attrs["interaction"], hits.attrs["interaction_mean"]
        each += f" (SE {lead.se:.2g}) where {covariate} is {mean:.3g}"
        change = f"    and by {effect:+.3g} (SE {se:.2g}) more per unit of {covariate}"
    else:
        each += f" (SE {lead.se:.2g}) on average"
        change = f"    heterozygotes are {effect:+.3g} (SE {se:.2g}) from the middle"
    lines = [each, f"{change}; both: p = {_p(lead.neg_log10_p_joint)}"]
    if "log10_bf_joint" in lead:
        lines.append(
            f"    log10 Bayes factor {lead[f'log10_bf_{second}']:.1f}, of both "
            f"{lead.log10_bf_joint:.1f}"
        )
    return lines


def _background(hits: pd.DataFrame) -> str:
    """What was behind variants, if not all of them."""
    h2 = [one["h2"] for one in hits.attrs["background"]]
    low, high = f"{min(h2):.2f}", f"{max(h2):.2f}"
    return (
        "Behind each variant: those of the other chromosomes"
        + ("" if _is_loco(hits) else ", and its own with a variance of its own")
        + f"; h2 {low if low == high else f'{low} to {high}'} (by chromosome: provenance.json)."
    )


def _is_loco(hits: pd.DataFrame) -> bool:
    """Whether the chromosome of each variant was left out of what is behind it."""
    backgrounds = hits.attrs.get("background", "all")
    return backgrounds != "all" and not any(one["n_variants_chrom"] for one in backgrounds)


def _inflation(factor: float, kernel: bool, *, loco: bool = False) -> str:
    if factor > 1.1 and not kernel:
        return ": above 1; if samples are related, leave out --no-kernel"
    if factor > 1.1 and loco:
        return (
            ": above 1, from many small effects, or because relatives share the chromosomes that "
            "were left out; in families compare with --background all"
        )
    if factor > 1.1:
        return ": above 1, from many small effects or from structure; the QQ plot tells more"
    if factor < 0.95 and kernel:
        return (
            ": below 1, as when the relatedness matrix holds the tested variants too; "
            "p-values then err on the safe side"
        )
    return ": close to 1, as it should be" if 0.95 <= factor <= 1.05 else ""


def _span(start: Any, end: Any) -> str:
    if pd.isna(start):
        return "position unknown"
    low, high = f"{start / 1e6:.1f}", f"{end / 1e6:.1f}"
    return f"{low} Mb" if low == high else f"{low} to {high} Mb"


def _p(neg_log10: float) -> str:
    """A p-value from its -log10, also where it underflows.

    Examples
    --------
    >>> _p(16.565), _p(400.5)
    ('2.7e-17', '3.2e-401')
    """
    exponent = int(np.floor(-neg_log10))
    mantissa = 10 ** (-neg_log10 - exponent)
    if round(mantissa, 1) >= 10:
        mantissa, exponent = 1.0, exponent + 1
    return f"{mantissa:.1f}e{exponent:+03d}"
