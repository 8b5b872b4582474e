"""Stepwise conditional search: the variants that are associated independently of each other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.genome.association import scan
from bayeslmm.genome.backgrounds import Background
from bayeslmm.genome.passes import Run
from bayeslmm.genome.scan_tables import variant_table
from bayeslmm.genome.scanner import TESTS, Scanner
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes
from bayeslmm.model.snps import aligned
from bayeslmm.runs.memory import available_memory
from bayeslmm.runs.progress import worker_count
from bayeslmm.runs.provenance import provenance

if TYPE_CHECKING:
    from bayeslmm.model.lmm import LMM

_NUMBERS = ("beta", "se", "p", "neg_log10_p")


def stepwise(
    model: LMM,
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray,
    *,
    test: str = "wald",
    threshold: float | None = None,
    region: str | None = None,
    max_steps: int = 20,
    background: Background = "all",
    dtype: Literal["float32", "float64"] = "float32",
    threads: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Find variants that are associated given each other, by scans that condition on them.

    The best variant of a scan joins the covariates, and the rest is scanned again, until
    none is significant. Forward only: none is taken out again, so look at the joint
    p-values.

    Parameters
    ----------
    model : LMM
        Phenotype, covariates and kernel.
    genotypes : Genotypes, path or array (n, m)
        Must hold every analysed sample; matched by id.
    test : str
        One of "wald", "lrt", "score" and "p3d"; see `bayeslmm.scan`.
    threshold : float, optional
        Largest p-value of a variant that is added; by default 0.05 over the number of
        variants that the first scan tests.
    region : str, optional
        ``"17"`` or ``"17:30000000-38000000"``: search there only.
    max_steps : int
        At most so many variants are added.
    background : {"all", "loco", "rest+chrom"}
        The kernel behind a variant; see `bayeslmm.scan`. With "all" the variants are put
        on the basis once and kept if they fit in memory, so further scans are cheap.
    dtype, threads, progress
        See `bayeslmm.scan`.

    Returns
    -------
    DataFrame
        One row per variant added: step, chrom, pos, id, ea, oa, eaf, and beta, se, p and
        neg_log10_p three times: _marginal (the first scan: it alone), _conditional (when
        it was added: given the ones before it) and _joint (given all others of the
        table). No row if nothing is significant. Attributes: provenance, the options,
        why it stopped, and the best variant that was left with its p-value.

    Raises
    ------
    InputError
        As `bayeslmm.scan`; for a test, threshold or number of steps that is none, and
        where no variant can be tested.

    References
    ----------
    Yang J et al. (2012). Conditional and joint multiple-SNP analysis of GWAS summary statistics
    identifies additional variants influencing complex traits. Nat Genet 44:369.
    doi:10.1038/ng.2213 (which approximates it from summary statistics)

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> x = rng.integers(0, 3, size=(300, 20))
    >>> y = 0.9 * x[:, 4] + 0.6 * x[:, 11] + rng.normal(size=300)
    >>> found = bl.stepwise(bl.LMM(y), x)
    >>> found[["step", "id", "beta_joint", "se_joint"]].round(2)
       step     id  beta_joint  se_joint
    0     1   snp5        0.91      0.07
    1     2  snp12        0.60      0.07
    >>> found.attrs["stopped"]
    'no further variant has p <= 0.0025'
    """
    if test not in TESTS or test == "bayes":
        raise InputError(
            f"test='{test}': expected one of {listing([t for t in TESTS if t != 'bayes'])}."
        )
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(f"threshold must be a p-value in (0, 1), but is {threshold:g}.")
    if max_steps < 1:
        raise InputError(f"max_steps must be at least 1, but is {max_steps}.")
    own = aligned(model, as_genotypes(genotypes))
    if region is not None:
        own = own.select(region=region)
    search = _Search(own, test, background, dtype, threads, progress, {})
    first = hits = search.scan(model)
    n_tested = int(first.neg_log10_p.notna().sum())
    if not n_tested:
        raise InputError(
            f"{own.name}: none of {own.n_variants:,} variants can be tested: they are monomorphic "
            "or explained by covariates."
        )
    if threshold is None:
        threshold = 0.05 / n_tested
    rows: list[int] = []
    entries: list[pd.Series] = []
    while True:
        strength = hits.neg_log10_p.fillna(-np.inf).to_numpy()
        best = int(np.argmax(strength))
        if strength[best] < -np.log10(threshold):
            stopped = f"no further variant has p <= {threshold:.3g}"
            break
        if len(rows) == max_steps:
            stopped = f"max_steps={max_steps} reached"
            break
        if len(model.y) < model.C.shape[1] + len(rows) + 3:
            stopped = f"{len(model.y):,} samples leave no room for another variant"
            break
        rows.append(best)
        entries.append(hits.iloc[best])
        hits = search.scan(search.conditioned(model, rows))
    joint = [search.joint(model, rows, row) for row in rows]
    table = _table(first, rows, entries, joint, test)
    left: dict[str, Any] = {"id": None, "p": None}
    if np.isfinite(strength[best]):
        left = {"id": hits.id.iloc[best], "p": float(10 ** -strength[best])}
    table.attrs = provenance() | {
        "formula": model.formula,
        "test": test,
        "threshold": threshold,
        "region": region,
        "max_steps": max_steps,
        "background": background,
        "n_variants": len(first),
        "n_tested": n_tested,
        "stopped": stopped,
        "best_left": left,
    }
    return table


def _table(
    first: pd.DataFrame,
    rows: list[int],
    entries: list[pd.Series],
    joint: list[pd.Series],
    test: str,
) -> pd.DataFrame:
    about = ["chrom", "pos", "id", "ea", "oa", "eaf"]
    table = first.iloc[rows][about].reset_index(drop=True)
    table.insert(0, "step", np.arange(1, len(rows) + 1))
    stages = {"marginal": [first.iloc[row] for row in rows], "conditional": entries, "joint": joint}
    for stage, found in stages.items():
        for name in _NUMBERS:
            column = f"p_{test}" if name == "p" else name
            table[f"{name}_{stage}"] = np.array([one[column] for one in found], dtype=np.float64)
    return table


@dataclass(frozen=True)
class _Search:
    """Scans of the same variants with one model after another; the rotated ones are kept."""

    genotypes: Genotypes
    test: str
    background: Background
    dtype: Literal["float32", "float64"]
    threads: int | None
    progress: bool | None
    kept: dict[tuple[int, int], Any]

    def scan(self, model: LMM) -> pd.DataFrame:
        """One scan of all variants."""
        size = self.genotypes.n_samples * self.genotypes.n_variants * np.dtype(self.dtype).itemsize
        fits = bool(self.kept) or size < available_memory() / 2
        if model.basis is None or self.background != "all" or not fits:
            return self._scan(model, self.genotypes)
        dtype, workers = np.dtype(self.dtype), worker_count(self.threads)
        run = Run(self.genotypes, dtype, workers, None, self.progress, kept=self.kept)
        (columns,) = run.all_variants([Scanner(model, (self.test,), dtype)])
        return variant_table(model, self.genotypes, (self.test,), columns)

    def _scan(self, model: LMM, genotypes: Genotypes) -> pd.DataFrame:
        return scan(
            model,
            genotypes,
            self.test,
            background=self.background,
            dtype=self.dtype,
            threads=self.threads,
            progress=self.progress,
        )

    def conditioned(self, model: LMM, rows: list[int]) -> LMM:
        """The model with some variants among the covariates."""
        if not rows:
            return model
        ids = self.genotypes.variants.id.iloc[rows].to_list()
        # Ids need not be unique, names of covariates must.
        taken = [*model.C.columns]
        columns = {}
        for row, id in zip(rows, ids, strict=True):
            name = id if id not in taken else f"{id} (row {row})"
            taken.append(name)
            block = self.genotypes.centered_block(row, row + 1, np.float64)
            columns[name] = block.x[0] + 2 * block.eaf[0]
        return model.with_covariates(pd.DataFrame(columns, index=model.ids))

    def joint(self, model: LMM, rows: list[int], row: int) -> pd.Series:
        """A variant given all others."""
        others = self.conditioned(model, [other for other in rows if other != row])
        alone = np.zeros(self.genotypes.n_variants, dtype=bool)
        alone[row] = True
        return self._scan(others, self.genotypes.select(variants=alone)).iloc[0]
