"""Posterior draws as tables: parameters with their diagnostics, SNP effects beside a scan's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing

if TYPE_CHECKING:
    import xarray as xr

# What a reader wants to see; sd, beta_std, lambda and share say the same in other units.
_PARAMETERS = ("h2", "s2_g", "s2_e", "s2", "r2", "tau", "b", "beta")


def parameters(tree: xr.DataTree, *, prob: float = 0.95) -> pd.DataFrame:
    """Posterior of every parameter, and whether its chains can be trusted.

    Parameters
    ----------
    tree : DataTree
        Draws of `LMM.sample` or `LMM.posterior`.
    prob : float
        Probability of the highest-density interval.

    Returns
    -------
    DataFrame
        Indexed by parameter, as "h2" or "b[Intercept]": mean, sd, low, high, rhat,
        ess_bulk, ess_tail. The diagnostics of what never varies are NaN.
    """
    from arviz_stats.base import array_stats

    _check(prob)
    posterior = tree["posterior"].dataset
    rows = {}
    for name in (name for name in _PARAMETERS if name in posterior):
        variable = posterior[name].transpose("chain", "draw", ...)
        values = variable.to_numpy().reshape(*variable.shape[:2], -1)
        labels = (
            [""] if variable.ndim == 2 else [f"[{i}]" for i in posterior[variable.dims[2]].data]
        )
        for label, one in zip(labels, np.moveaxis(values, 2, 0), strict=True):
            low, high = interval(one, prob)
            row = {"mean": one.mean(), "sd": one.std(), "low": low, "high": high}
            diagnostics = [np.nan] * 3
            if np.ptp(one) > 0 and one.shape[1] > 3:
                diagnostics = [
                    float(array_stats.rhat(one)),
                    float(array_stats.ess(one)),
                    float(array_stats.ess(one, method="tail", prob=0.9)),
                ]
            rows[name + label] = row | dict(
                zip(("rhat", "ess_bulk", "ess_tail"), diagnostics, strict=True)
            )
    return pd.DataFrame(rows).T.rename_axis("parameter")


def snp_effects(
    tree: xr.DataTree, hits: pd.DataFrame | None = None, *, prob: float = 0.95
) -> pd.DataFrame:
    """Joint effects of the SNPs that a model has, beside their estimates in a scan.

    Parameters
    ----------
    tree : DataTree
        Draws of `LMM.sample` with SNPs.
    hits : DataFrame, optional
        What `bayeslmm.scan` returns. Effects of the other allele change their sign.
    prob : float
        Probability of the highest-density interval.

    Returns
    -------
    DataFrame
        One row per SNP: id, ea (effect allele), eaf, mean, sd, low, high (phenotype
        units per effect allele); pip, the posterior inclusion probability, if the prior
        was spike and slab; scan_beta, scan_se, scan_neg_log10_p with `hits`.

    Raises
    ------
    InputError
        If the draws have no SNPs, or scan and draws have other alleles.
    """
    _check(prob)
    posterior = tree["posterior"].dataset
    if "beta" not in posterior:
        raise InputError("These draws have no SNP effects: sample with snps=[...].")
    beta = posterior["beta"].transpose("chain", "draw", "snp").to_numpy()
    constant = tree["constant_data"].dataset
    limits = np.array([interval(beta[..., j], prob) for j in range(beta.shape[2])])
    table = pd.DataFrame(
        {
            "id": [str(snp) for snp in posterior.snp.data],
            "ea": [str(allele) for allele in constant["effect_allele"].data],
            "eaf": constant["eaf"].to_numpy(),
            "mean": beta.mean(axis=(0, 1)),
            "sd": beta.std(axis=(0, 1)),
            "low": limits[:, 0],
            "high": limits[:, 1],
        }
    )
    if "selection" in tree.children:
        table["pip"] = tree["selection"]["inclusion_probability"].to_numpy()
    return table if hits is None else table.join(_scan_estimates(table, hits))


def interval(draws: np.ndarray, prob: float = 0.95) -> tuple[float, float]:
    """The shortest interval that holds `prob` of the draws."""
    values = np.sort(draws, axis=None)
    inside = min(max(int(np.ceil(prob * len(values))), 1), len(values))
    widths = values[inside - 1 :] - values[: len(values) - inside + 1]
    first = int(np.argmin(widths))
    return float(values[first]), float(values[first + inside - 1])


def _scan_estimates(table: pd.DataFrame, hits: pd.DataFrame) -> pd.DataFrame:
    from bayeslmm.genome.loci import require_columns

    require_columns(hits, ["id", "ea", "oa", "beta", "se", "neg_log10_p"])
    rows = hits[hits["id"].astype(str).isin(table["id"])]
    ids = rows["id"].astype(str)
    if ids.duplicated().any():
        raise InputError(
            f"The scan has several variants named {listing(ids[ids.duplicated()].unique())}."
        )
    found = rows.set_axis(ids, axis=0).reindex(table["id"]).reset_index(drop=True)
    there = found["ea"].notna()
    same, swapped = found["ea"] == table["ea"], found["oa"] == table["ea"]
    wrong = there & ~same & ~swapped
    if wrong.any():
        j = int(np.argmax(wrong))
        raise InputError(
            f"SNP '{table['id'][j]}' has the effect allele {table['ea'][j]} in the model, but "
            f"{found['ea'][j]} and {found['oa'][j]} in the scan."
        )
    sign = np.where(swapped & ~same, -1.0, 1.0)
    return pd.DataFrame(
        {
            "scan_beta": sign * found["beta"].to_numpy(dtype=np.float64, na_value=np.nan),
            "scan_se": found["se"].to_numpy(dtype=np.float64, na_value=np.nan),
            "scan_neg_log10_p": found["neg_log10_p"].to_numpy(dtype=np.float64, na_value=np.nan),
        }
    )


def _check(prob: float) -> None:
    if not 0 < prob < 1:
        raise InputError(f"prob must be between 0 and 1, but is {prob:g}.")
