r"""Kernels from kernels and from tables: epistasis, gene by environment, households.

Each is a covariance of samples, for ``bl.LMM(..., kernels={...})``:

    product(K, L)       K o L, element by element: of K with itself, additive by additive epistasis
    environment(table)  E, similarity of exposures: inner products of standardised columns
    by_environment(K, table)   K o E: genetic effects that change with the exposures
    household(groups)   1 for members of one group, 0 else: a shared environment

The product of covariances is one (Schur), and is what the product of independent effects has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.relatedness.dense import GRM, HasGRM, as_grm

type Matrix = GRM | HasGRM | pd.DataFrame | np.ndarray


def product(K: Matrix, L: Matrix | None = None, *, center: bool = False) -> GRM:
    """Elementwise (Hadamard) product of two kernels; of K with itself by default.

    K o K is the covariance of additive by additive epistasis, additive o dominance that of
    additive by dominance (Henderson 1985, J Anim Sci 60:111; Jiang & Reif 2015, Genetics
    201:759).

    Parameters
    ----------
    K, L : kernels
        Of the same samples, matched by id.
    center : bool
        Centre both first, on all samples.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> bl.kernels.product(np.array([[1.0, 0.5], [0.5, 1.0]])).matrix
    array([[1.  , 0.25],
           [0.25, 1.  ]])
    """
    first = as_grm(K)
    second = first if L is None else as_grm(L)
    if first.labelled != second.labelled or (
        not first.labelled and len(first.samples) != len(second.samples)
    ):
        raise InputError(
            "A product of kernels needs the same samples: one names them and the other does not, "
            "or their numbers differ."
        )
    ids = first.samples
    if not ids.equals(second.samples):
        ids = ids[ids.isin(second.samples)]
        if not len(ids):
            raise InputError(
                f"The kernels have no sample in common: {listing(first.samples, 2)} and "
                f"{listing(second.samples, 2)}."
            )
    A, B = (_of(grm, ids, center=center) for grm in (first, second))
    genetic = bool(first.info.get("genetic", True) or second.info.get("genetic", True))
    return GRM(A * B, ids, scale="product", labelled=first.labelled, info={"genetic": genetic})


def environment(table: pd.DataFrame | pd.Series) -> GRM:
    """Similarity of samples by their exposures, E = X X' / p, the columns of X standardised.

    Parameters
    ----------
    table : DataFrame (n, p) or Series, indexed by sample id
        Exposures: numbers, none missing; text and categories are turned into one column for
        each level.

    Returns
    -------
    GRM
        Not genetic: it has a share of the variance, but not of h2.
    """
    X = _numbers(table)
    sd = X.std(axis=0)
    constant = [name for name, value in zip(X.columns, sd, strict=True) if value == 0]
    if constant:
        raise InputError(f"Exposure {listing(constant)} is the same for all samples. Leave it out.")
    Z = ((X - X.mean(axis=0)) / X.std(axis=0, ddof=0)).to_numpy()
    return _named(Z @ Z.T / Z.shape[1], X.index, "environment")


def by_environment(K: Matrix, table: pd.DataFrame | pd.Series) -> GRM:
    """Gene by environment: K o E, genetic effects that differ between exposures.

    Two samples share these effects as far as they are related and alike in exposures. Beside
    it the model should have K itself, and the exposures as covariates.

    Parameters
    ----------
    K : kernel
        Relatedness.
    table : DataFrame or Series, indexed by sample id
        Exposures, as for `environment`. Two levels make E = +1 within and -1 between levels,
        scaled.
    """
    E = environment(table)
    made = product(K, E)
    return GRM(made.matrix, made.samples, scale="K x environment", labelled=made.labelled)


def household(groups: pd.Series | pd.DataFrame | np.ndarray) -> GRM:
    """Shared environment: 1 for samples of the same group, 0 for others.

    Parameters
    ----------
    groups : Series, indexed by sample id, or array (n,)
        Labels: household, cage, herd, field. Without label (NA) a sample shares with nobody.

    Returns
    -------
    GRM
        Not genetic: it has a share of the variance, but not of h2.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayeslmm as bl
    >>> bl.kernels.household(pd.Series({"ann": "a", "bob": "a", "cyd": "b"})).matrix
    array([[1., 1., 0.],
           [1., 1., 0.],
           [0., 0., 1.]])
    """
    if isinstance(groups, pd.DataFrame):
        if groups.shape[1] != 1:
            raise InputError(
                f"Groups are one column of labels, but the table has {groups.shape[1]}: "
                f"{listing(groups.columns)}."
            )
        groups = groups.iloc[:, 0]
    labels = pd.Series(groups)
    codes = pd.factorize(labels)[0]
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    if len(np.unique(codes)) == len(codes):
        raise InputError(
            "Every sample is a group of its own: the shared environment is the residual."
        )
    same = (codes[:, None] == codes).astype(np.float64)
    return _named(same, labels.index, "household")


def _of(grm: GRM, ids: pd.Index, *, center: bool) -> np.ndarray:
    matrix = grm.matrix if ids.equals(grm.samples) else grm.subset(ids).matrix
    if not center:
        return matrix
    means = matrix.mean(axis=0)
    return matrix - means - means[:, None] + means.mean()


def _named(matrix: np.ndarray, index: pd.Index, what: str) -> GRM:
    labelled = not isinstance(index, pd.RangeIndex)
    return GRM(matrix, index, scale=what, labelled=labelled, info={"genetic": False})


def _numbers(table: Any) -> pd.DataFrame:
    frame = table.to_frame() if isinstance(table, pd.Series) else pd.DataFrame(table)
    if frame.isna().any(axis=None):
        counts = frame.isna().sum()
        raise InputError(
            f"Exposures are missing: {listing(counts.index[counts > 0])}, "
            f"{int(frame.isna().any(axis=1).sum()):,} samples. Leave these out first."
        )
    text = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
    return pd.get_dummies(frame, columns=text, dtype=float).astype(np.float64)
