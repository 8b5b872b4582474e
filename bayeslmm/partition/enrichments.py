r"""Enrichment: what share of h2 an annotation has, over its share of the variants.

For annotations c and kernels k of them, a variant of k has an effect of variance s2_k / m_k, and
one of several kernels the sum. The heritability of the variants in c is therefore

    h2(c) = sum_k h2_k m_kc / m_k,   m_kc = variants that k and c share

(h2_c itself where annotations do not overlap), and with h2 that of all variants and m their
number, each counted once,

    enrichment(c) = [h2(c) / h2] / [m_c / m].

It is computed for every draw: a ratio of correlated, bounded quantities has no useful standard
error (Finucane et al. 2015, Nat Genet 47:1228, for the definition).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.model.tables import interval

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.partition.model import PartitionedLMM


def variant_counts(model: PartitionedLMM) -> tuple[list[str], pd.DataFrame, int]:
    """Kernels made of variants, how many each two share (K, K), and how many there are in all.

    Raises
    ------
    InputError
        If fewer than two kernels know their variants.
    """
    grms = {name: K for name, K in model.grms.items() if K.n_variants > 0}
    if len(grms) < 2:
        raise InputError(
            "Enrichment compares kernels made of variants, as bl.partition_grms and bl.grm make "
            f"them, but of {listing(model.kernels)} only {len(grms)} knows its number of variants."
        )
    names = list(grms)
    shared = pd.DataFrame(0, index=names, columns=names)
    sets = {}
    for name, K in grms.items():
        shared.loc[name, name] = K.n_variants
        if K.genotypes is not None:
            sets[name] = pd.Index(K.genotypes.variants.id)
    if len(sets) < len(names):
        # Matrices from files: taken not to overlap.
        return names, shared, int(np.diagonal(shared).sum())
    everything = next(iter(sets.values()))
    for name in names:
        everything = everything.union(sets[name])
        for other in names:
            if other != name:
                shared.loc[name, other] = int(sets[name].isin(sets[other]).sum())
    overlapping = int(shared.to_numpy().sum() - np.trace(shared)) > 0
    total = len(everything) if overlapping else int(np.diagonal(shared).sum())
    return names, shared, total


def enrichment(model: PartitionedLMM, tree: xr.DataTree, *, prob: float = 0.95) -> pd.DataFrame:
    """Enrichment of every annotation, from posterior draws.

    Parameters
    ----------
    model : PartitionedLMM
        Its kernels made of variants are the annotations; others (households, products) take no
        part. Kernels read from files do not tell which variants they have: they are taken not
        to overlap.
    tree : DataTree
        Draws of its posterior.
    prob : float
        Probability of the intervals, which are the shortest ones.

    Returns
    -------
    DataFrame
        Indexed by annotation: n_variants, share_variants (of all variants), share_variance (of
        the genotypes' variance: by the traces of the kernels; NaN where annotations overlap);
        h2, h2_sd, h2_low, h2_high (heritability of the annotation's variants); share_h2,
        share_h2_sd, share_h2_low, share_h2_high; enrichment, its sd, low, high (means over
        draws); p_enriched, the posterior probability of an enrichment above 1; what the prior
        alone has for both, prior_enrichment and prior_p_enriched (NaN if it is a user's
        function); bf_enriched, the Bayes factor for an enrichment above 1: posterior odds over
        prior odds, infinite if all draws are above (NaN if the prior allows nothing else); and
        enrichment_variance, over share_variance instead. attrs: overlapping, prob, n_variants.

    Raises
    ------
    InputError
        If the draws are not of this model, or fewer than two kernels know their variants.
    """
    if not 0 < prob < 1:
        raise InputError(f"prob must be between 0 and 1, but is {prob:g}.")
    posterior = tree["posterior"].dataset
    if "h2_k" not in posterior or tuple(map(str, posterior.kernel.data)) != model.kernels:
        raise InputError(
            f"These draws are not of a model with the kernels {listing(model.kernels, 20)}."
        )
    names, shared, m = variant_counts(model)
    columns = [model.kernels.index(name) for name in names]
    draws = posterior["h2_k"].to_numpy().reshape(-1, len(model.kernels))[:, columns]
    sizes = np.diagonal(shared).astype(float)
    to_annotations = shared.to_numpy() / sizes[:, None]
    h2 = draws @ to_annotations
    overlapping = bool((shared.to_numpy() - np.diag(np.diagonal(shared))).any())
    variance = sizes * model.kappa[names].to_numpy()
    shares = h2 / draws.sum(axis=1, keepdims=True)
    prior_mean, prior_p = _prior(tree, columns, to_annotations, sizes / m, overlapping)
    rows = {}
    for k, name in enumerate(names):
        expected = sizes[k] / m
        by_variance = np.nan if overlapping else variance[k] / variance.sum()
        row: dict[str, Any] = {
            "n_variants": int(sizes[k]),
            "share_variants": expected,
            "share_variance": by_variance,
        }
        row |= _summary("h2", h2[:, k], prob)
        row |= _summary("share_h2", shares[:, k], prob)
        row |= _summary("enrichment", shares[:, k] / expected, prob)
        row["p_enriched"] = float((shares[:, k] > expected).mean())
        row["prior_enrichment"] = float(prior_mean[k])
        row["prior_p_enriched"] = float(prior_p[k])
        row["bf_enriched"] = _bayes_factor(row["p_enriched"], row["prior_p_enriched"])
        row["enrichment_variance"] = float(shares[:, k].mean() / by_variance)
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("annotation")
    table.attrs |= {"overlapping": overlapping, "prob": prob, "n_variants": m}
    return table


def _prior(
    tree: xr.DataTree,
    columns: list[int],
    to_annotations: np.ndarray,
    expected: np.ndarray,
    overlapping: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the prior enrichment of each annotation, and its probability of being above 1.

    The split of the variants' heritability is Dirichlet, so that of one kernel has a beta
    distribution; sums of several, where annotations overlap, are simulated.
    """
    from scipy.stats import beta

    known = tree.attrs.get("split_concentration")
    if known is None:
        return np.full(len(expected), np.nan), np.full(len(expected), np.nan)
    alpha = np.atleast_1d(np.asarray(known, dtype=float))[columns]
    mean = (alpha / alpha.sum()) @ to_annotations / expected
    if not overlapping:
        return mean, beta.sf(expected, alpha, alpha.sum() - alpha)
    split = np.random.default_rng(0).dirichlet(alpha, size=100_000)
    return mean, (split @ to_annotations > expected).mean(axis=0)


def _bayes_factor(p: float, prior: float) -> float:
    """Posterior odds over prior odds; NaN where the prior is certain, or not known."""
    if not 0 < prior < 1:
        return np.nan
    return np.inf if p == 1 else p / (1 - p) * (1 - prior) / prior


def _summary(name: str, draws: np.ndarray, prob: float) -> dict[str, float]:
    low, high = interval(draws, prob)
    return {
        name: float(draws.mean()),
        f"{name}_sd": float(draws.std()),
        f"{name}_low": low,
        f"{name}_high": high,
    }
