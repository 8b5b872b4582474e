r"""Prediction: u of samples with and without phenotypes, SNP effects, new phenotypes.

With B = k* U, k* the (centred) relatedness of a sample to the n analysed ones, and a
posterior draw of (s2_g, s2_e, b),

    E(u* | y) = B w r,   var(u* | y) = s2_g k** - s2_g B^2 w,   w = s2_g / (s2_g S + s2_e),

r the rotated residual: two products for all samples and draws. The predictive
distribution is the mixture over draws, so that the uncertainty of h2 and of the
covariate effects is in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Basis
from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.genotypes import Genotypes, as_genotypes
from bayeslmm.model.conditional import Conditional
from bayeslmm.model.snps import SelectedSnps, selected_snps
from bayeslmm.relatedness.dense import GRM, Relatedness
from bayeslmm.relatedness.matching import align, kernel_factor, recode, training_genotypes
from bayeslmm.relatedness.sparse import SparseGRM
from bayeslmm.runs.memory import require_memory

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.model.lmm import LMM


class HasKernel(Protocol):
    """Analysed samples on a basis, and the matrix behind it where that is known."""

    @property
    def basis(self) -> Basis | None:
        """The eigenbasis of the samples."""

    @property
    def ids(self) -> pd.Index:
        """The samples."""

    @property
    def relatedness(self) -> Relatedness | None:
        """The matrix, of these samples and others."""


@dataclass(frozen=True)
class Analysed:
    """Samples with a basis that are not those of an `LMM`."""

    basis: Basis | None
    ids: pd.Index
    relatedness: Relatedness | None


class CrossKernel:
    """Relatedness of some samples to a model's analysed ones, centred like its basis.

    Attributes
    ----------
    ids : Index
        The samples, shape (a,).
    B : ndarray, shape (a, n), or None
        Their relatedness to the analysed samples, times U; None for these themselves, where
        it is U S.
    k : ndarray, shape (a,)
        Their relatedness to themselves.
    """

    def __init__(self, model: HasKernel, ids: pd.Index, cross: np.ndarray, k: np.ndarray) -> None:
        basis = model.basis
        if basis is None:
            raise InputError("Without kernel there are no random effects to predict.")
        self.basis = basis
        if basis.centered:
            K = _kernel_grm(model).subset(model.ids).matrix
            to_sample = cross.mean(axis=1)
            k = k - 2 * to_sample + K.mean()
            cross = cross - to_sample[:, None] - K.mean(axis=0) + K.mean()
        self.ids = ids
        self.B: np.ndarray | None = basis.rotate_rows(cross)
        self.k = k

    @classmethod
    def analysed(cls, model: HasKernel) -> CrossKernel:
        """That of the analysed samples themselves, from the basis alone: K U = U S."""
        basis = model.basis
        if basis is None:
            raise InputError("Without kernel there are no random effects to predict.")
        self = cls.__new__(cls)
        self.ids, self.basis = model.ids, basis
        self.B = None
        self.k = basis.row_quadratic(np.asarray(basis.values))
        return self

    def times(self, z: np.ndarray) -> np.ndarray:
        """B z, for z (n, d)."""
        if self.B is None:
            return self.basis.unrotate(np.asarray(self.basis.values)[:, None] * z)
        return self.B @ z

    def squares_times(self, w: np.ndarray) -> np.ndarray:
        """(B * B) w, for w (n, d) that are functions of S."""
        if self.B is None:
            return self.basis.row_quadratic(np.square(self.basis.values)[:, None] * w)
        return self._squares @ w

    @cached_property
    def _squares(self) -> np.ndarray:
        assert self.B is not None
        return self.B * self.B


def kernel_samples(model: HasKernel, ids: pd.Index) -> CrossKernel:
    """Samples that the model's kernel knows, with phenotype or without."""
    if ids.equals(model.ids):
        return CrossKernel.analysed(model)
    grm = model.relatedness
    if not isinstance(grm, SparseGRM):
        grm = _kernel_grm(model)
    rows = grm.samples.get_indexer(ids)
    if (rows < 0).any():
        raise InputError(
            f"{int((rows < 0).sum()):,} samples are not in the kernel: {listing(ids[rows < 0])}. "
            "Give their genotypes."
        )
    columns = grm.samples.get_indexer(model.ids)
    if isinstance(grm, SparseGRM):
        require_memory(
            24.0 * len(rows) * len(columns),
            f"The relatedness of {len(rows):,} samples to {len(columns):,}",
        )
        cross = grm.matrix[rows][:, columns].toarray()
        return CrossKernel(model, ids, cross, grm.matrix.diagonal()[rows])
    return CrossKernel(
        model, ids, np.asarray(grm.matrix[np.ix_(rows, columns)]), np.diagonal(grm.matrix)[rows]
    )


def new_samples(model: LMM, genotypes: Genotypes) -> CrossKernel:
    """Samples outside the kernel, from their genotypes at the kernel's variants.

    They are standardised by the means and frequencies of the kernel's own samples, and
    alleles are matched by name: swapped ones are recoded, others refused.
    """
    grm = _kernel_grm(model)
    training = training_genotypes(grm)
    aligned, flipped = align(training, genotypes)
    positions = training.samples.index.get_indexer(model.ids)
    n_new = genotypes.n_samples
    cross, k = np.zeros((n_new, len(model.ids))), np.zeros(n_new)
    for start, stop in training.block_ranges():
        block = training.centered_block(start, stop, np.float64)
        factor = kernel_factor(grm, block)
        Z = block.x[:, positions] * factor[:, None]
        Z_new = recode(aligned, flipped, start, stop, block.eaf) * factor[:, None]
        cross += Z_new.T @ Z
        k += (Z_new * Z_new).sum(axis=0)
    return CrossKernel(model, genotypes.samples.index, cross / grm.n_variants, k / grm.n_variants)


def sample_ids(samples: Iterable[str]) -> pd.Index:
    """Ids of samples, of one or of several."""
    ids = [samples] if isinstance(samples, str) else [str(sample) for sample in samples]
    return pd.Index(ids, name="id", dtype="str")


def to_predict(
    model: LMM,
    genotypes: Genotypes | str | os.PathLike[str] | None,
    samples: Iterable[str] | None,
    *,
    with_snps: bool,
) -> tuple[CrossKernel, Genotypes | None]:
    """Samples to predict, named by their genotypes or as samples of the kernel.

    Their genotypes come too: those given, or with `with_snps` those of the kernel's samples.

    Raises
    ------
    InputError
        If both are given, or none.
    """
    if genotypes is not None and samples is None:
        new = as_genotypes(genotypes)
        return new_samples(model, new), new
    if samples is None or genotypes is not None:
        raise InputError("Give either genotypes of new samples, or samples of the kernel.")
    cross = kernel_samples(model, sample_ids(samples))
    return cross, kernel_genotypes(model).select(samples=cross.ids) if with_snps else None


def snp_effects(model: LMM, tree: xr.DataTree) -> pd.DataFrame:
    """BLUP of every SNP's effect in the polygenic part: table id, ea, oa, effect per allele.

    With K = Z Z' / m, u = Z a and a ~ N(0, s2_g / m I): E(a | y) = Z' V^-1 (y - C b) s2_g / m,
    averaged over the draws. A sample's u is then its standardised genotypes times a:
    SNP-BLUP equals GBLUP.
    """
    grm = _kernel_grm(model)
    training = training_genotypes(grm)
    conditional = _conditional(model, tree)
    weights = np.zeros(len(model.ids))
    for part, residual, genetic, s2_e in conditional.pieces():
        weights += (conditional.s2_g[part] / (genetic + s2_e) * residual).sum(axis=1)
    assert model.basis is not None
    weights = model.basis.unrotate(weights) / len(conditional.s2_g) / grm.n_variants
    if model.basis.centered:
        weights = weights - weights.mean()
    positions = training.samples.index.get_indexer(model.ids)
    table = training.variants[["chrom", "pos", "id", "ea", "oa"]].copy()
    effect, eaf = np.zeros(len(table)), np.zeros(len(table))
    for start, stop in training.block_ranges():
        block = training.centered_block(start, stop, np.float64)
        factor = kernel_factor(grm, block)
        effect[start:stop] = factor**2 * (block.x[:, positions] @ weights)
        eaf[start:stop] = block.eaf
    return table.assign(eaf=eaf, effect=effect)


def random_effects(
    model: LMM, tree: xr.DataTree, samples: CrossKernel, *, prob: float, seed: int
) -> pd.DataFrame:
    """Posterior mean, sd and interval of u of some samples, from the draws of `tree`."""
    mean, variance = _moments(_conditional(model, tree), samples)
    rng = np.random.default_rng(seed)
    draws = mean + np.sqrt(variance) * rng.standard_normal(mean.shape)
    return summary(samples.ids, {"u": draws}, {"u": (mean, variance)}, prob)


def predict(
    model: LMM,
    tree: xr.DataTree,
    samples: CrossKernel,
    C: np.ndarray,
    genotypes: Genotypes | None,
    *,
    prob: float,
    seed: int,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Predicted phenotypes of samples with covariates C (a, c): table, and draws (a, draws)."""
    mean_u, var_u = _moments(_conditional(model, tree), samples)
    posterior = tree["posterior"].dataset
    total = mean_u.shape[1]
    fixed = C @ posterior["b"].to_numpy().reshape(total, -1).T
    if "beta" in posterior:
        if genotypes is None:
            raise InputError("The draws have SNP effects: give the genotypes of the new samples.")
        fixed = (
            fixed + snp_part(tree, genotypes) @ posterior["beta"].to_numpy().reshape(total, -1).T
        )
    s2_e = posterior["s2_e"].to_numpy().reshape(-1)
    rng = np.random.default_rng(seed)
    u = mean_u + np.sqrt(var_u) * rng.standard_normal(mean_u.shape)
    y = fixed + u + np.sqrt(s2_e) * rng.standard_normal(u.shape)
    moments = {"u": (mean_u, var_u), "y": (fixed + mean_u, var_u + s2_e)}
    return summary(samples.ids, {"u": u, "y": y}, moments, prob), y


def _moments(conditional: Conditional, samples: CrossKernel) -> tuple[np.ndarray, np.ndarray]:
    """E(u* | y, draw) and var(u* | y, draw), each (a, draws)."""
    shape = (len(samples.ids), len(conditional.s2_g))
    mean, variance = np.empty(shape), np.empty(shape)
    for part, residual, genetic, s2_e in conditional.pieces():
        s2_g = conditional.s2_g[part]
        w = s2_g / (genetic + s2_e)
        mean[:, part] = samples.times(w * residual)
        variance[:, part] = s2_g * (samples.k[:, None] - samples.squares_times(w))
    return mean, np.maximum(variance, 0)


def summary(
    ids: pd.Index,
    draws: dict[str, np.ndarray],
    moments: dict[str, tuple[np.ndarray, np.ndarray]],
    prob: float,
) -> pd.DataFrame:
    """Mean and sd without simulation error (total variance), quantiles of the draws."""
    if not 0 < prob < 1:
        raise InputError(f"prob must be in (0, 1), but is {prob:g}.")
    tails = [(1 - prob) / 2, (1 + prob) / 2]
    columns: dict[str, np.ndarray] = {}
    for name, values in draws.items():
        mean, variance = moments[name]
        low, high = np.quantile(values, tails, axis=1)
        columns |= {
            f"{name}_mean": mean.mean(axis=1),
            f"{name}_sd": np.sqrt(variance.mean(axis=1) + mean.var(axis=1)),
            f"{name}_low": low,
            f"{name}_high": high,
        }
    return pd.DataFrame(columns, index=pd.Index(ids, name="id"))


def _conditional(model: LMM, tree: xr.DataTree) -> Conditional:
    posterior = tree["posterior"].dataset
    constant = tree["constant_data"].dataset
    if list(constant["sample"].to_numpy()) != list(model.ids):
        raise InputError("These draws are of another model: samples differ.")
    if "beta" not in posterior:
        return Conditional(model, posterior, selected_snps(model, None))
    snps = SelectedSnps(
        ids=[str(snp) for snp in posterior.snp.to_numpy()],
        x=constant["X"].to_numpy(),
        sd=constant["x_sd"].to_numpy(),
        eaf=constant["eaf"].to_numpy(),
        ea=[str(allele) for allele in constant["effect_allele"].to_numpy()],
    )
    return Conditional(model, posterior, snps)


def snp_part(tree: xr.DataTree, genotypes: Genotypes) -> np.ndarray:
    """Dosages of the draws' SNPs in new samples, centred as in the model, shape (a, k)."""
    constant = tree["constant_data"].dataset
    ids = [str(snp) for snp in tree["posterior"].dataset.snp.to_numpy()]
    chosen = genotypes.select(variants=ids)
    order = pd.Index(chosen.variants.id).get_indexer(pd.Index(ids))
    table = chosen.variants.iloc[order]
    alleles = [str(allele) for allele in constant["effect_allele"].to_numpy()]
    dosage = chosen.to_array()[:, order]
    for j, allele in enumerate(alleles):
        if table.ea.iloc[j] != allele:
            if table.oa.iloc[j] != allele:
                raise InputError(
                    f"SNP '{ids[j]}': its effect allele is {allele} in the model, but the new "
                    f"genotypes have {table.ea.iloc[j]} and {table.oa.iloc[j]}."
                )
            dosage[:, j] = 2 - dosage[:, j]
    centered = dosage - 2 * constant["eaf"].to_numpy()
    return np.nan_to_num(centered, nan=0.0)


def _kernel_grm(model: HasKernel) -> GRM:
    if isinstance(model.relatedness, SparseGRM):
        raise InputError(
            "The effects of SNPs, and the relatedness of new samples, do not follow from a sparse "
            "relatedness matrix, whose small entries are set to 0. Use a dense one (bl.grm)."
        )
    if not isinstance(model.relatedness, GRM):
        raise InputError("Prediction needs the relatedness matrix, but the basis was kept without.")
    return model.relatedness


def kernel_genotypes(model: LMM) -> Genotypes:
    """The genotypes that a model's kernel was made of."""
    return training_genotypes(_kernel_grm(model))
