"""What regression, components and mixed models do about structure: inflation, error and power."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.bases.structure import components
from bayeslmm.errors import InputError, listing
from bayeslmm.genome.association import scan
from bayeslmm.genome.loci import lambda_gc
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes
from bayeslmm.model.lmm import LMM
from bayeslmm.relatedness.scales import standardizing_factor
from bayeslmm.runs.progress import log, map_ahead, track

_MIN_MAF = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class Inflation:
    """One phenotype scanned by several methods, and what they do in simulated ones.

    Attributes
    ----------
    table : DataFrame
        By method: covariates (their number), h2 (REML estimate without variants; NaN without
        kernel), n_tests, lambda_gc, significant (p below 0.05 / n_tests).
    p : DataFrame
        Per variant: id, chrom, pos, and -log10 p of each method.
    power : DataFrame or None
        By method, on simulated phenotypes: lambda_gc and type1 (share of p below `level`) of
        variants without effect, power at that level, and power_equal, that at the p-value
        below which the share `level` of the method's own variants without effect lie;
        columns ending in `_se` are standard errors over phenotypes.
    level : float
        Nominal level of `power`.
    """

    table: pd.DataFrame
    p: pd.DataFrame
    power: pd.DataFrame | None = None
    level: float = 1e-3
    formula: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        lines = [f"<Inflation  {self.formula}", self.table.to_string(float_format="{:.4g}".format)]
        if self.power is not None:
            lines += [
                f"{self.info['replicates']} simulated phenotypes, level {self.level:g}:",
                self.power.to_string(float_format="{:.4g}".format),
            ]
        return "\n".join(lines) + ">"

    def _repr_html_(self) -> str:
        html = f"<p>{self.formula}</p>{self.table.to_html(float_format='{:.4g}'.format)}"
        if self.power is not None:
            html += (
                f"<p>{self.info['replicates']} simulated phenotypes, level {self.level:g}</p>"
                + self.power.to_html(float_format="{:.4g}".format)
            )
        return html

    def plot(self, **options: Any) -> Any:
        """QQ plots over each other: `bayeslmm.plots.inflation`."""
        from bayeslmm import plots

        return plots.inflation(self, **options)


def inflation(
    model: LMM,
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    *,
    pcs: int = 10,
    loco: bool = True,
    replicates: int = 0,
    causal: int = 10,
    variance: float = 0.02,
    h2: float | None = None,
    level: float = 1e-3,
    seed: int | None = None,
    threads: int | None = None,
    progress: bool | None = None,
) -> Inflation:
    """Regression, regression with PCs, LMM, LMM with PCs, and LOCO-LMM on one phenotype.

    Each method tests every variant (Wald test). With `replicates`, phenotypes of the same
    samples are simulated as well: polygenic effects on every second chromosome, and on those
    some causal variants; the variants of the other chromosomes have no effect, so that
    what is found there is error, from relatedness and structure alone. That tells power at
    the nominal level from power at equal error: a method that calls everything has much of
    the first.

    Parameters
    ----------
    model : LMM
        Phenotype, covariates, and a kernel that knows its variants.
    genotypes : Genotypes, path or array (n, m)
        What is tested.
    pcs : int
        Principal components of the kernel, on all its samples.
    loco : bool
        Whether to run LOCO-LMM, which needs a factor of its own for every chromosome.
    replicates : int
        Simulated phenotypes; 0 for none.
    causal : int
        Causal variants in each, drawn from those with maf >= 0.05 among the samples.
    variance : float
        Share of the phenotypic variance that each explains.
    h2 : float, optional
        Share of the polygenic effects; by default the model's REML estimate, as far as the
        causal variants leave room.
    level : float
        Nominal level of error and power.
    seed : int, optional
        For the simulated phenotypes.
    threads : int, optional
        Worker threads of the scans.
    progress : bool, optional
        Whether to show progress bars.

    Returns
    -------
    Inflation

    Raises
    ------
    InputError
        For a model without kernel, fewer than two chromosomes with `replicates` or `loco`,
        and causal variants that explain more than all variance.

    References
    ----------
    Price AL, Zaitlen NA, Reich D, Patterson N (2010). New approaches to population
    stratification in genome-wide association studies. Nat Rev Genet 11:459. doi:10.1038/nrg2813
    Yang J et al. (2014). Advantages and pitfalls in the application of mixed-model association
    methods. Nat Genet 46:100. doi:10.1038/ng.2876

    Examples
    --------
    >>> import bayeslmm as bl
    >>> cohort = bl.simulate_cohort(None, 300, 800, families=8, chromosomes=4, seed=1)
    >>> model = bl.LMM("y ~ sex", cohort.phenotypes, bl.grm(cohort.genotypes))
    >>> found = bl.inflation(model, cohort.genotypes, pcs=2)
    >>> found.table["lambda_gc"].round(1).to_dict()
    {'regression': 1.8, 'regression + 2 PCs': 1.6, 'LMM': 1.0, 'LMM + 2 PCs': 1.1, 'LOCO-LMM': 1.2}
    """
    genotypes = as_genotypes(genotypes)
    if not model.has_kernel:
        raise InputError("Methods are compared on a model with a kernel; this one has none.")
    if (loco or replicates) and len(genotypes.chromosomes) < 2:
        raise InputError(
            f"{genotypes.name}: leaving chromosomes out needs two of them, but there is only "
            f"{listing(genotypes.chromosomes)}. Pass loco=False and replicates=0."
        )
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, but is {level:g}.")
    methods = _methods(model, pcs, loco=loco)
    options: dict[str, Any] = {"threads": threads, "progress": progress}
    p = genotypes.variants[["id", "chrom", "pos"]].reset_index(drop=True)
    rows = {}
    for name, (fitted, background) in methods.items():
        hits = scan(fitted, genotypes, "wald", background=background, **options)
        assert isinstance(hits, pd.DataFrame)
        p[name] = hits["neg_log10_p"].to_numpy()
        tested = np.isfinite(p[name])
        rows[name] = {
            "covariates": fitted.C.shape[1],
            "h2": fitted.reml().h2 if fitted.has_kernel and background == "all" else np.nan,
            "n_tests": int(tested.sum()),
            "lambda_gc": lambda_gc(10 ** -p[name]),
            "significant": int((p[name][tested] > -np.log10(0.05 / tested.sum())).sum()),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    table = table.astype({"covariates": int, "n_tests": int, "significant": int})
    power, info = None, {}
    if replicates:
        polygenic = min(model.reml().h2, 1 - causal * variance) if h2 is None else h2
        simulated = _simulate(
            model, genotypes, replicates, causal, variance, polygenic, np.random.default_rng(seed)
        )
        power = _power(methods, genotypes, simulated, level, options)
        info = {"replicates": replicates, "causal": causal, "variance": variance, "h2": polygenic}
    return Inflation(table, p, power, level, model.formula, info)


def _methods(model: LMM, pcs: int, *, loco: bool) -> dict[str, tuple[LMM, Any]]:
    """Models by the name of the method, with the background of their scan."""
    methods: dict[str, tuple[LMM, Any]] = {"regression": (model.without_kernel(), "all")}
    with_pcs = model
    if pcs:
        found = components(model.kernel, None, pcs)
        scores = found if isinstance(found, pd.DataFrame) else found.scores
        with_pcs = model.with_covariates(scores)
        methods[f"regression + {pcs} PCs"] = (with_pcs.without_kernel(), "all")
    methods["LMM"] = (model, "all")
    if pcs:
        methods[f"LMM + {pcs} PCs"] = (with_pcs, "all")
    if loco:
        methods["LOCO-LMM"] = (model, "loco")
    return methods


@dataclass(frozen=True, eq=False)
class _Simulated:
    Y: np.ndarray  # (n, replicates)
    causal: list[np.ndarray]  # positions of the causal variants of each
    no_effect: np.ndarray  # booleans (m,): variants on chromosomes without effects


def _simulate(
    model: LMM,
    genotypes: Genotypes,
    replicates: int,
    causal: int,
    variance: float,
    h2: float,
    rng: np.random.Generator,
) -> _Simulated:
    """Phenotypes of unit variance with effects on every second chromosome."""
    if causal < 1 or variance <= 0 or h2 < 0 or causal * variance + h2 > 1 + 1e-12:
        raise InputError(
            f"{causal} causal variants of {variance:g} each and h2 = {h2:g} beside them must be "
            "above 0 and leave something of the variance, 1."
        )
    view = genotypes.select(samples=model.ids)
    n, _m = view.shape
    active = view.variants.chrom.isin(view.chromosomes[::2]).to_numpy()
    maf = view.qc()["maf"].to_numpy()
    candidates = np.flatnonzero(active & (maf >= _MIN_MAF))
    if len(candidates) < causal:
        raise InputError(
            f"{genotypes.name}: {len(candidates):,} variants of maf >= {_MIN_MAF} on every second "
            f"chromosome, but {causal} causal ones are asked for."
        )
    chosen = [np.sort(rng.choice(candidates, causal, replace=False)) for _ in range(replicates)]
    polygenic, single = np.zeros((n, replicates)), np.zeros((n, replicates))
    spans = view.block_ranges()
    blocks = map_ahead(lambda span: view.centered_block(*span), spans)
    for block in track(blocks, "Simulating", total=len(spans)):
        inside = slice(block.start, block.stop)
        factor = standardizing_factor(block, "empirical") * active[inside]
        effects = rng.standard_normal((len(factor), replicates)) * factor[:, None]
        polygenic += block.x.T @ effects
        for r, positions in enumerate(chosen):
            for j in positions[(positions >= block.start) & (positions < block.stop)]:
                sign = rng.choice([-1.0, 1.0])
                single[:, r] += sign * factor[j - block.start] * block.x[j - block.start]
    noise = rng.standard_normal((n, replicates))
    rest = max(1 - h2 - causal * variance, 0.0)
    Y = (
        np.sqrt(h2) * polygenic / polygenic.std(axis=0)
        + np.sqrt(variance) * single
        + np.sqrt(rest) * noise
    )
    return _Simulated(Y, chosen, ~active)


def _power(
    methods: dict[str, tuple[LMM, Any]],
    genotypes: Genotypes,
    simulated: _Simulated,
    level: float,
    options: dict[str, Any],
) -> pd.DataFrame:
    """Error among variants without effect, power at those with, for every method."""
    tested = simulated.no_effect.copy()
    tested[np.concatenate(simulated.causal)] = True
    view = genotypes.select(variants=tested)
    place = np.cumsum(tested) - 1
    null_rows = place[simulated.no_effect]
    log.info(
        "Power: %d phenotypes, %s variants without effect.",
        simulated.Y.shape[1],
        f"{len(null_rows):,}",
    )
    rows = {}
    for name, (model, background) in methods.items():
        each = {str(r): model.with_phenotype(y) for r, y in enumerate(simulated.Y.T)}
        found = scan(each, view, "wald", background=background, **options)
        logs = np.array([hits["neg_log10_p"].to_numpy() for hits in found.values()])
        null = logs[:, null_rows]
        hit = np.array([row[place[j]] for row, j in zip(logs, simulated.causal, strict=True)])
        seen = np.isfinite(null)
        error = (null > -np.log10(level)).sum(axis=1) / seen.sum(axis=1)
        equal = np.quantile(null[seen], 1 - level)
        nominal, fair = (hit > -np.log10(level)).mean(axis=1), (hit > equal).mean(axis=1)
        rows[name] = {
            "lambda_gc": lambda_gc(10 ** -null[seen]),
            "type1": error.mean(),
            "type1_se": _se(error),
            "power": nominal.mean(),
            "power_se": _se(nominal),
            "power_equal": fair.mean(),
            "power_equal_se": _se(fair),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def _se(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan
