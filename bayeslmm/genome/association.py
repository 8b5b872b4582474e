"""The genome scan: every variant of a source against one model or several, to a table or a file.

What is asked is checked here, and what the models need is put together; the tests themselves are
in `scanner`, `families`, `backgrounds`, `pairs` and `bayeslmm.binary.scan`, the pass over the
variants is in `passes`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Basis
from bayeslmm.bases.block import BlockBasis
from bayeslmm.errors import InputError, listing, require_library
from bayeslmm.genome import families, pairs
from bayeslmm.genome.backgrounds import (
    BACKGROUNDS,
    Background,
    chromosome_kernels,
    null_of,
    scanner_of,
)
from bayeslmm.genome.codings import CODINGS, Coding
from bayeslmm.genome.pairs import Interaction, PairScanner, SecondTerm
from bayeslmm.genome.passes import Run
from bayeslmm.genome.scan_files import ScanFile, Tabulation
from bayeslmm.genome.scan_tables import (
    posterior_calls,
    scan_account,
    variant_columns,
    variant_counts,
)
from bayeslmm.genome.scanner import TESTS, Scanner
from bayeslmm.inputs.case_control import two_valued_note
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes
from bayeslmm.model.snps import aligned, require_genotypes, selected_snps
from bayeslmm.priors import EffectPrior, as_effect_prior
from bayeslmm.relatedness.dense import GRM
from bayeslmm.relatedness.sparse import SparseGRM
from bayeslmm.runs.checkpoints import digest, require_checkpoint
from bayeslmm.runs.columns import Columns, scattered
from bayeslmm.runs.devices import BLOCK_ON_DEVICE, as_device
from bayeslmm.runs.files import refuse_existing
from bayeslmm.runs.progress import log, track, worker_count
from bayeslmm.runs.results import unfinished

if TYPE_CHECKING:
    from distributed import Client

    from bayeslmm.model.lmm import LMM
    from bayeslmm.runs.checkpoints import Checkpoint

FAMILIES = ("gaussian", "binomial")


def scan(
    model: LMM | Mapping[str, LMM],
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    tests: str | Iterable[str] | None = None,
    *,
    family: Literal["gaussian", "binomial"] = "gaussian",
    background: Background = "all",
    condition_on: Iterable[str] | pd.DataFrame | None = None,
    region: str | None = None,
    coding: Coding = "additive",
    interaction: str | pd.Series | None = None,
    effect_prior: EffectPrior | float | Iterable[float] | None = None,
    prior_odds: float | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    threads: int | None = None,
    block_size: int | None = None,
    progress: bool | None = None,
    kept: Checkpoint | None = None,
    client: Client | None = None,
    device: str | None = None,
) -> pd.DataFrame | dict[str, pd.DataFrame]:
    """Test every variant for association, one at a time, in a linear mixed model.

    Parameters
    ----------
    model : LMM, or mapping of names to LMM
        Phenotype, covariates and kernel; without kernel this is plain linear
        regression. Several models whose samples and kernel are the same share one
        rotation: each further one costs a few percent of the first.
    genotypes : Genotypes, path or array (n, m)
        Must hold every analysed sample; matched by id.
    tests : str or several of them
        By default ``("wald", "bayes")``. ``"wald"``: F test with the variance ratio at each
        variant's REML optimum (gives beta, se and p_wald); ``"lrt"``: likelihood-ratio test
        with the ratio at its ML optimum under both models; ``"score"``: score test at the null
        model's ML ratio; ``"p3d"``: F test with the ratio fixed at the null model's
        REML estimate (EMMAX, P3D); ``"bayes"``: Bayes factor and posterior of the effect,
        integrated over h2 under the model's prior. With ``family="binomial"`` and no
        kernel ``"wald"`` (maximum likelihood, Firth's penalty where that or the test
        fails), ``"firth"`` (for all), ``"score"`` and ``"spa"`` (its tails by saddlepoint),
        by default ``("wald", "score")``; with a kernel ``("spa", "score")``.
    family : {"gaussian", "binomial"}
        ``"binomial"``: the phenotype is case/control, coded 0/1, 1/2 (2 is the case) or in
        words, and effects are log odds ratios: logistic regression, or with a kernel the
        logistic mixed model (docs/binary-traits.md). Never chosen by itself.
    background : {"all", "loco", "rest+chrom"}
        The kernel behind a variant: the model's as it is; without the variant's
        chromosome; or both parts, each with its own variance (see
        `bayeslmm.genome.backgrounds`, and the docs for which to take). The latter two need a
        GRM that knows its variants.
    condition_on : variant ids, or DataFrame (samples x SNPs) of dosages, optional
        SNPs that join the covariates, looked up in all of `genotypes`. A variant in
        complete disequilibrium with them has NA.
    region : str, optional
        ``"17"`` or ``"17:30000000-38000000"``: only variants there are tested (see
        `bayeslmm.Genotypes.in_region`).
    coding : {"additive", "dominant", "recessive", "hetonly", "genotypic"}
        What a dosage means (see `bayeslmm.genome.codings`), as in plink2. ``"genotypic"`` tests
        the additive effect together with the dominance deviation.
    interaction : str or Series, optional
        A covariate of the model, or numbers by sample id whose main effect is then in
        the model too: tests whether the variant's effect depends on it. This and
        ``"genotypic"`` know the tests ``"wald"`` and ``"bayes"``.
    effect_prior : EffectPrior, float or several, optional
        Prior of the effects for ``"bayes"``: standard deviations in phenotypic standard
        deviations per sd of the genotype, averaged over; by default 0.05, 0.1, 0.2 and
        0.4. `bayeslmm.priors.EffectPrior` has weights, and a dependence on frequency.
    prior_odds : float, optional
        Prior odds that a variant is associated, such as 1e-4: adds ppa and bfdr.
    dtype : {"float32", "float64"}
        Precision of the products with the variants. float32 is more than twice as
        fast and changes log10 p by less than 1e-3 where p > 1e-20. Without kernel it
        is float64 in any case.
    threads : int, optional
        Number of worker threads, all processors by default; each takes blocks of its
        own, with BLAS limited to one thread meanwhile.
    block_size : int, optional
        Variants per block; memory is the basis and a few blocks per worker.
    progress : bool, optional
        Whether to show a progress bar; by default where somebody watches.
    kept : Checkpoint, optional
        Where finished parts are kept (`bayeslmm.checkpoint`): after an interruption the same
        scan goes on from there, and ends with the same table.
    client : dask.distributed.Client, optional
        A cluster whose workers do the parts; each gets the basis once. `threads` is theirs.
    device : str, optional
        Where variants are rotated, such as ``"cupy"`` or ``"torch:cuda"``: see
        `runs.devices.as_device`. By default here, by NumPy. With ``background="all"`` and a
        kernel only.

    Returns
    -------
    DataFrame
        One row per variant: chrom, pos, id, ea (effect allele), oa, eaf (its frequency
        among the analysed samples), n (analysed), n_missing (dosages set to the mean),
        beta (phenotype units per effect allele) and se, a p-value for each test,
        neg_log10_p (of the first test that has one; finite where p underflows), pve (share of the
        phenotype's variance: beta^2 var(x) / var(y)), and l_remle (s2_g / s2_e at the
        variant's REML optimum) for exact tests. With these, beta and se are at that
        optimum too, else at the null model's ratio. ``"bayes"`` gives log10_bf (for an
        effect against none), post_mean and post_sd (of the effect if there is one, in
        phenotype units per effect allele) and lfsr (local false sign rate: probability
        that the effect, if there is one, has the other sign); with `prior_odds` also ppa
        (posterior probability of association) and bfdr (Bayesian false discovery rate
        if this variant and all with a higher ppa are called). Monomorphic variants and
        those that covariates explain have NA. Attributes: provenance, the priors, counts
        of both, and the background: "all", or one record per chromosome with the numbers
        of variants behind it, the chromosome's share of the genetic variance, and h2.
        For several models a dict of such tables.

        With `interaction` beta and se are the variant's effect at the mean of the
        covariate, beta_int and se_int what is added per unit of the covariate, cov_int
        the covariance of the two estimates; p_int and log10_bf_int are for the
        interaction given the main effect, p_joint and log10_bf_joint for both against
        none, log10_bf for the main effect alone; neg_log10_p is that of p_int, and
        neg_log10_p_joint. With ``"genotypic"`` the same with _dom: beta is the average
        effect of an allele substitution, beta_dom the dominance deviation. Where the two
        terms cannot be told apart all of these are NA.

        With ``family="binomial"``: eaf_cases, eaf_controls, n_cases; beta is the log odds
        ratio per effect allele, or, or_low and or_high the odds ratio with its 95% Wald
        interval; p_wald of beta / se, p_firth the penalised likelihood ratio (where Firth's
        penalty was used), p_score, p_spa; method, the test behind neg_log10_p. Attributes:
        which level is the case, the null model, and how many variants had which method.

    Raises
    ------
    InputError
        For unknown tests or backgrounds, samples without genotypes, and chromosomes that
        are not in the relatedness matrix when they are to be left out of it.

    References
    ----------
    Zhou X, Stephens M (2012). Genome-wide efficient mixed-model analysis for association
    studies. Nat Genet 44:821. doi:10.1038/ng.2310
    Servin B, Stephens M (2007). Imputation-based analysis of association studies: candidate
    regions and quantitative traits. PLoS Genet 3:e114. doi:10.1371/journal.pgen.0030114
    Stephens M (2017). False discovery rates: a new deal. Biostatistics 18:275.
    doi:10.1093/biostatistics/kxw041
    Kraft P et al. (2007). Exploiting gene-environment interaction to detect genetic
    associations. Hum Hered 63:111. doi:10.1159/000099183
    Kang HM et al. (2010). Variance component model to account for sample structure in
    genome-wide association studies. Nat Genet 42:348. doi:10.1038/ng.548

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> x = rng.integers(0, 3, size=(100, 3))
    >>> y = 0.8 * x[:, 1] + rng.normal(size=100)
    >>> bl.scan(bl.LMM(y), x)[["id", "n", "beta", "se"]].round(2)
         id    n  beta    se
    0  snp1  100  0.15  0.15
    1  snp2  100  0.79  0.11
    2  snp3  100 -0.01  0.16
    """
    options = ScanOptions(
        tests,
        family=family,
        background=background,
        condition_on=condition_on,
        region=region,
        coding=coding,
        interaction=interaction,
        effect_prior=effect_prior,
        prior_odds=prior_odds,
        dtype=dtype,
        threads=threads,
        block_size=block_size,
        progress=progress,
        kept=kept,
        client=client,
        device=device,
    )
    found = tabulations(model, genotypes, options)
    tables = {name: one.table() for name, one in found.items()}
    return tables if isinstance(model, Mapping) else tables[""]


def scan_to_file(
    model: LMM,
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    path: str | os.PathLike[str],
    tests: str | Iterable[str] | None = None,
    *,
    overwrite: bool = False,
    restart: bool = False,
    kept: Checkpoint | None = None,
    **options: Any,
) -> ScanFile:
    """Test every variant as `scan` does, and write the table part by part.

    What is finished is kept beside the file, in `path` + ".partial", until all is done: after an
    interruption the same call goes on from there, and the file has the same bytes. Memory does
    not grow with the results: what grows with the number of variants is the table that names
    them, and one number for each.

    Parameters
    ----------
    model : LMM
        One model.
    genotypes, tests
        As of `scan`.
    path : path-like
        ``.parquet`` (needs pyarrow), or tab-separated text, gzipped if the name ends in .gz.
    overwrite : bool
        Whether a file that is there may be replaced.
    restart : bool
        Begin anew, whatever is kept.
    kept : Checkpoint, optional
        Where finished parts are kept instead; they stay.
    **options
        All others of `scan`.

    Returns
    -------
    ScanFile
        With an overview of all variants for plots, and rows of the table on request.

    Raises
    ------
    InputError
        As of `scan`, and if the file is there or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> x = rng.integers(0, 3, size=(100, 3))
    >>> y = 0.8 * x[:, 1] + rng.normal(size=100)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     hits = bl.scan_to_file(bl.LMM(y), x, f"{folder}/hits.tsv.gz")
    ...     hits.rows([1])[["id", "n", "beta", "se"]].round(2)
         id    n  beta    se
    1  snp2  100  0.79  0.11
    """
    path = Path(path)
    if path.suffix == ".parquet":
        require_library("pyarrow", "parquet", "Parquet")
    refuse_existing(path, overwrite=overwrite)
    work = unfinished(path, restart=restart) if kept is None else nullcontext(kept)
    with work as parts:
        found = tabulations(
            model, genotypes, ScanOptions(tests, kept=parts, **options), in_parts=True
        )
        return found[""].write(path, overwrite=overwrite)


# -- what is asked -----------------------------------------------------------------------------


@dataclass
class ScanOptions:
    """The options of `scan`, where they are described.

    Raises
    ------
    InputError
        For values that are unknown, and for options that do not go together.
    """

    tests: str | Iterable[str] | None = None
    _: KW_ONLY
    family: str = "gaussian"
    background: Background = "all"
    condition_on: Iterable[str] | pd.DataFrame | None = None
    region: str | None = None
    coding: Coding = "additive"
    interaction: str | pd.Series | None = None
    effect_prior: EffectPrior | float | Iterable[float] | None = None
    prior_odds: float | None = None
    dtype: str = "float32"
    threads: int | None = None
    block_size: int | None = None
    progress: bool | None = None
    kept: Checkpoint | None = None
    client: Client | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        named = (self.tests,) if isinstance(self.tests, str) else self.tests
        self.asked = None if named is None else tuple(named)
        self._check_values()
        if self.binary:
            self._refuse_for_cases()
        elif self.two_terms:
            with_interaction = self.interaction is not None
            pairs.check(
                self.linear_tests, self.coding, self.prior_odds, with_interaction=with_interaction
            )
        self.prior = as_effect_prior(self.effect_prior)
        require_checkpoint(self.kept)
        self._check_prior_odds()
        self._check_where()

    @property
    def binary(self) -> bool:
        """Whether cases are told from controls."""
        return self.family == "binomial"

    @property
    def two_terms(self) -> bool:
        """Whether a variant has a second term in the model."""
        return self.interaction is not None or self.coding == "genotypic"

    @property
    def linear_tests(self) -> tuple[str, ...]:
        """Tests of the linear mixed model."""
        return ("wald", "bayes") if self.asked is None else self.asked

    def _check_values(self) -> None:
        if self.family not in FAMILIES:
            raise InputError(
                f"family='{self.family}' is unknown; expected one of {listing(FAMILIES)}."
            )
        chosen = self.linear_tests
        unknown = [] if self.binary else [test for test in chosen if test not in TESTS]
        if unknown or not chosen:
            raise InputError(f"tests={listing(unknown)}: expected one or more of {listing(TESTS)}.")
        if self.dtype not in ("float32", "float64"):
            raise InputError(f"dtype='{self.dtype}' is unknown; expected 'float32' or 'float64'.")
        if self.background not in BACKGROUNDS:
            raise InputError(
                f"background='{self.background}' is unknown; expected one of "
                f"{listing(BACKGROUNDS)}."
            )
        if self.coding not in CODINGS:
            raise InputError(
                f"coding='{self.coding}' is unknown; expected one of {listing(CODINGS)}."
            )

    def _refuse_for_cases(self) -> None:
        used = {
            "background": self.background != "all",
            "interaction and coding='genotypic'": self.two_terms,
            "effect_prior": self.effect_prior is not None,
            "prior_odds": self.prior_odds is not None,
        }
        wrong = [name for name, is_used in used.items() if is_used]
        if wrong:
            raise InputError(f"family='binomial' has no {', '.join(wrong)}. Leave it out.")

    def _check_prior_odds(self) -> None:
        odds = self.prior_odds
        if odds is None:
            return
        if not (odds > 0 and np.isfinite(odds)):
            raise InputError(
                f"prior_odds must be above 0 and finite, such as 1e-4, but is {odds:g}."
            )
        if "bayes" not in self.linear_tests:
            raise InputError("prior_odds needs Bayes factors: add 'bayes' to tests.")

    def _check_where(self) -> None:
        if self.client is not None and self.background != "all":
            raise InputError(
                f"background='{self.background}' is not shared out to a cluster: every chromosome "
                "has a kernel of its own. Scan without client (and with kept=, to go on after an "
                "interruption), or one chromosome per job."
            )
        not_here = self.background != "all" or self.binary or self.client is not None
        if self.device is not None and not_here:
            raise InputError(
                "device= rotates variants for background='all' in the gaussian family, without a "
                "client. Leave it out."
            )


# -- what is found -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subject:
    """One model of a scan, as variants are tested in it.

    `second` is a variant's second term, if there is one, and `about` what the table says of
    the model beside what every scan says.
    """

    model: LMM
    second: SecondTerm | None
    about: dict[str, Any]


def tabulations(
    model: LMM | Mapping[str, LMM],
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    options: ScanOptions,
    *,
    in_parts: bool = False,
) -> dict[str, Tabulation]:
    """What a scan found, by model, before tables are made of it; see `scan`.

    With `in_parts` it is left in the parts of the checkpoint.
    """
    genotypes = as_genotypes(genotypes)
    models = dict(model) if isinstance(model, Mapping) else {"": model}
    subjects = {name: _subject(one, genotypes, options) for name, one in models.items()}
    about: dict[str, Any] = {"coding": options.coding}
    if options.region is not None:
        about |= {
            "region": options.region,
            "n_unknown_position": genotypes.n_unknown(options.region),
        }
        genotypes = genotypes.select(region=options.region)
    shared = options.background == "all" and not options.two_terms
    own = {name: subject.model for name, subject in subjects.items()}
    results: dict[str, Tabulation] = {}
    for names in _sharing_a_rotation(own) if shared else [[name] for name in own]:
        group = {name: subjects[name] for name in names}
        run = _run(group, genotypes, options, in_parts=in_parts)
        scan_group = _scan_cases if options.binary else _scan_traits
        results |= scan_group(group, run, options, about)
    return {name: results[name] for name in models}


def _subject(model: LMM, genotypes: Genotypes, options: ScanOptions) -> _Subject:
    """A model with the SNPs that it is conditioned on, and the second term of variants."""
    require_genotypes(model, genotypes)
    about: dict[str, Any] = {}
    second: SecondTerm | None = None
    if options.condition_on is not None:
        dosages = selected_snps(model, options.condition_on, genotypes).dosages(model.ids)
        model = model.with_covariates(dosages)
        about["condition_on"] = list(dosages.columns)
    if options.interaction is not None:
        model, second = pairs.interaction_with(model, options.interaction)
    elif options.two_terms:
        second = pairs.DominanceDeviation()
    return _Subject(model, second, about)


def _run(
    group: Mapping[str, _Subject], genotypes: Genotypes, options: ScanOptions, *, in_parts: bool
) -> Run:
    """The pass over variants that some models share."""
    first = next(iter(group.values())).model
    # Without kernel nothing is rotated: reading takes the time, not the precision.
    dtype = np.dtype(options.dtype if first.has_kernel else "float64")
    block_size = options.block_size
    if options.device is not None and block_size is None:
        block_size = BLOCK_ON_DEVICE
    run = Run(
        aligned(first, genotypes),
        dtype,
        worker_count(options.threads),
        block_size,
        options.progress,
        options.coding,
        checkpoint=options.kept,
        client=options.client,
        in_parts=in_parts,
    )
    if options.kept is None:
        return run
    identity: dict[str, Any] = {
        "tests": options.linear_tests,
        "background": options.background,
        "device": options.device or "",
        "family": options.family,
    }
    for name, subject in group.items():
        about = describe(subject.model, options.prior)
        if subject.second is not None:
            about["second term"] = subject.second.account()
        if isinstance(subject.second, Interaction):
            about["covariate"] = digest(subject.second.e)
        identity[f"model {name}".strip()] = about
    return replace(run, label=_label(group), identity=identity)


def _label(names: Iterable[str]) -> str:
    """What the parts of a checkpoint have in their names."""
    return "".join(f"-{name}" for name in names if name)


def _scan_cases(
    group: Mapping[str, _Subject], run: Run, options: ScanOptions, about: dict[str, Any]
) -> dict[str, Tabulation]:
    """Cases and controls, one model after the other: they have weights of their own."""
    from bayeslmm.binary.scan import CaseScanner, case_account, case_columns, case_counts, check

    results = {}
    for name, subject in group.items():
        own = replace(run, dtype=np.dtype("float64"), label=_label([name]))
        scanner = CaseScanner(subject.model, check(subject.model, options.asked))
        (found,) = own.columns([scanner])
        account = case_account(subject.model, scanner) | {"background": "all"}
        results[name] = Tabulation(
            own.genotypes.variants,
            found,
            partial(case_columns, subject.model, scanner),
            case_counts,
            account | about | subject.about,
        )
    return results


def _scan_traits(
    group: Mapping[str, _Subject], run: Run, options: ScanOptions, about: dict[str, Any]
) -> dict[str, Tabulation]:
    """Linear mixed models that share a rotation; with a background for each chromosome, one."""
    tests, odds = options.linear_tests, options.prior_odds
    backgrounds: str | list[dict[str, Any]] = "all"
    if options.background == "all":
        found = _against_all(list(group.values()), run, options)
    else:
        (subject,) = group.values()
        columns, backgrounds = _by_chromosome(subject, run, options)
        found = [columns]
    results = {}
    for (name, subject), columns in zip(group.items(), found, strict=True):
        model, second = subject.model, subject.second
        account = scan_account(model, tests, second) | {"background": backgrounds}
        account |= about | subject.about
        if (note := two_valued_note(model)) is not None:
            account["phenotype"] = note
            log.info("%s: %s.", model.phenotype, note)
        if "bayes" in tests:
            account |= {"effect_prior": str(options.prior), "h2_prior": repr(model.h2_prior)}
        if odds is not None:
            account["prior_odds"] = odds
        results[name] = Tabulation(
            run.genotypes.variants,
            columns,
            partial(variant_columns, model, tests, second),
            partial(variant_counts, second),
            account,
            None if odds is None else partial(posterior_calls, prior_odds=odds),
        )
    return results


def _against_all(subjects: list[_Subject], run: Run, options: ScanOptions) -> list[Columns]:
    """Every variant against the models' kernel as it is."""
    tests, prior, first = options.linear_tests, options.prior, subjects[0]
    if isinstance(first.model.basis, BlockBasis) and first.second is None and len(subjects) == 1:
        scanner = families.FamilyScanner(first.model, tests, run.dtype, prior)
        if run.block_size is None:
            run = replace(run, block_size=families.variants_in_block(len(first.model.y)))
        scanners: list[Scanner] = [scanner]
    else:
        scanners = [Scanner(one.model, tests, run.dtype, prior) for one in subjects]
    device = as_device(options.device)
    if device is not None:
        scanners[0].rotate_on(device)  # the others share its rotation
    return run.columns(
        [_tester(scanner, one) for scanner, one in zip(scanners, subjects, strict=True)]
    )


def _tester(scanner: Scanner, subject: _Subject) -> Scanner | PairScanner:
    if subject.second is None:
        return scanner
    return PairScanner(scanner, subject.model, subject.second)


def describe(model: LMM, prior: EffectPrior) -> dict[str, Any]:
    """All of a model that a scan depends on, for a checkpoint."""
    source = model.kernel
    if isinstance(source, Basis):
        kernel = digest(np.asarray(source.values), source.samples)
    elif isinstance(source, SparseGRM):
        K = source.matrix
        kernel = digest(K.data, K.indices, K.indptr, source.samples)
    elif isinstance(source, GRM):
        kernel = digest(source.matrix, source.samples)
    else:
        kernel = ""
    return {
        "formula": model.formula,
        "phenotype": digest(model.y),
        "covariates": digest(model.C.to_numpy()),
        "samples": digest(model.ids),
        "kernel": kernel,
        "h2_prior": repr(model.h2_prior),
        "effect_prior": repr(prior),
    }


def _sharing_a_rotation(models: Mapping[str, LMM]) -> list[list[str]]:
    """Names of models with the same samples on the same basis, together."""
    groups: dict[Any, list[str]] = {}
    for name, model in models.items():
        # Families are not rotated apart from their tests: nothing to share (genome.families).
        alone = isinstance(model.basis, BlockBasis)
        key = name if alone else (id(model.basis), tuple(model.ids))
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _by_chromosome(
    subject: _Subject, run: Run, options: ScanOptions
) -> tuple[Columns, list[dict[str, Any]]]:
    """Each chromosome against a background of its own: columns, and what the backgrounds were."""
    model, background = subject.model, options.background
    if not model.has_kernel:
        raise InputError(f"background='{background}' needs a kernel; this LMM has none.")
    if isinstance(model.relatedness, SparseGRM):
        raise InputError(
            f"background='{background}' takes a chromosome out of a dense relatedness matrix. A "
            "sparse one is of families, nearly the same whichever chromosome is left out: use "
            "background='all', or a dense matrix (bl.grm)."
        )
    null = null_of(model)
    # However it was found, the search of each chromosome begins at the same place.
    ratio = round(null.log_ratio, 1)
    chroms = run.genotypes.variants.chrom.astype(str).to_numpy()
    parts: list[tuple[np.ndarray, Columns]] = []
    accounts = []
    for kernel in track(
        chromosome_kernels(model, run.genotypes, background, ratio),
        "Chromosomes",
        total=len(pd.unique(chroms)),
        show=run.progress,
    ):
        one = scanner_of(kernel, options.linear_tests, run.dtype, options.prior, null)
        scanner = _tester(one, replace(subject, model=kernel.model))
        part = replace(
            run,
            genotypes=run.genotypes.select(variants=chroms == kernel.chrom),
            label=f"{run.label}-chromosome-{kernel.chrom}",
            progress=False,
        )
        if not one.parallel:
            part = replace(part, workers=1, blas=run.workers)
        (found,) = part.columns([scanner])
        parts.append((np.flatnonzero(chroms == kernel.chrom), found))
        accounts.append(kernel.account | {"h2": scanner.h2})
        del one, scanner, kernel  # n x n matrices: gone before the next chromosome's are made
    return scattered(parts, len(chroms)), accounts
