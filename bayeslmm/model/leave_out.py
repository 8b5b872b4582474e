r"""Exact densities of left-out phenotypes, from the one basis of all samples.

The samples are correlated: the density of some of them, B, is that given all others,

    p(y_B | y_-B, h2) = p(y | h2) / p(y_-B | h2),   a multivariate Student-t.

With P = D^-1 - D^-1 C A^-1 C' D^-1, Q = y'Py and df = n - c as in `bayeslmm.numerics.likelihood`,
g = Py and P_BB the block of P,

    y_B - P_BB^-1 g_B is its location, df - |B| its degrees of freedom,
    (Q - g_B' P_BB^-1 g_B) / (df - |B|) P_BB^-1 its squared scale

(Sundararajan & Keerthi 2001; Bürkner, Gabry & Vehtari 2021), covariates and s2 integrated
out. The posterior of h2 without B follows by p(h2 | y_-B) ~ p(h2 | y) / p(y_B | y_-B, h2), so

    log p(y_B | y_-B) = log p(y) - log sum_h p(y, h) / p(y_B | y_-B, h)

is as exact as the quadrature over h2: nothing is fitted again. The members of B can also be
scored one by one, each given y_-B only: the margins of the same Student-t.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log, pi
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import gammaln

from bayeslmm.bases.basis import Basis
from bayeslmm.errors import InputError, listing
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.chebyshev import lagrange, nodes_over
from bayeslmm.numerics.quadrature import unit_density
from bayeslmm.priors import H2Prior

# Nodes with less than this of the largest weight are left out.
_NEGLIGIBLE = 1e-18
# Accuracy of interpolation between values of h2: e^-30.
_DIGITS = 30.0
# Numbers held at a time.
_CHUNK = 2**23
# A covariate's effect is known without the left-out samples if more than this of it is.
_ESTIMABLE = 1e-9


def group_labels(groups: pd.Series | Iterable[Any], ids: pd.Index) -> pd.Series:
    """The group of each sample, as text.

    Parameters
    ----------
    groups : Series or iterable
        Labels: a Series by sample id, which may have further ids; else one per sample, in order.
    ids : Index, shape (n,)
        The samples.

    Raises
    ------
    InputError
        For samples without a label or with two, and another number of labels.
    """
    if isinstance(groups, pd.Series):
        named = groups.set_axis(groups.index.astype(str))
        named = named[named.index.isin(ids) & named.notna()]
        if named.index.has_duplicates:
            twice = named.index[named.index.duplicated()].unique()
            raise InputError(f"groups names samples twice: {listing(twice)}.")
        absent = ids.difference(named.index)
        if len(absent):
            raise InputError(
                f"groups has no label for {len(absent):,} of {len(ids):,} samples: "
                f"{listing(absent)}."
            )
        return named.reindex(ids).astype(str)
    values = pd.Series(list(groups), dtype=object)
    if len(values) != len(ids):
        raise InputError(
            f"groups has {len(values):,} labels, but {len(ids):,} samples are analysed. Use a "
            "Series with sample ids as its index."
        )
    absent = ids[values.isna().to_numpy()]
    if len(absent):
        raise InputError(
            f"groups has no label for {len(absent):,} of {len(ids):,} samples: {listing(absent)}."
        )
    return values.astype(str).set_axis(ids)


@dataclass(frozen=True)
class LeftOut:
    """Log densities of left-out samples or groups.

    Attributes
    ----------
    elpd : ndarray, shape (N,)
        log p(y_B | y_-B), everything integrated out.
        If the members are scored one by one, the sum over them.
    lpd : ndarray, shape (N,)
        The same with parameters drawn given all of y; what fitting to y_B gains.
    log_marginal : float
        log p(y), flat priors as in `likelihood.integrated_loglik`.
    nodes : int
        Number of nodes of h2.
    """

    elpd: np.ndarray
    lpd: np.ndarray
    log_marginal: float
    nodes: int


def leave_out(
    data: likelihood.Rotated,
    basis: Basis | None,
    prior: H2Prior,
    ids: Sequence[str],
    blocks: Sequence[np.ndarray] | None = None,
    *,
    joint: bool = True,
) -> LeftOut:
    """Leave out every sample (`blocks` None), or every block of samples, in turn.

    Parameters
    ----------
    data : Rotated
        Phenotype and covariates on the basis.
    basis : Basis or None
        None without kernel: h2 is 0.
    prior : H2Prior
        Prior on h2; a point mass at 0 takes part.
    ids : sequence of str
        Sample ids, shape (n,), for messages.
    blocks : sequence of integer arrays, optional
        Positions of the samples that are left out together.
    joint : bool
        Whether a block is scored by its joint density, or member by member.

    Raises
    ------
    InputError
        If the samples that stay do not determine all covariates' effects.
    """
    _require_estimable(data, basis, ids, blocks)
    largest = 1 if blocks is None else max(len(block) for block in blocks)
    if largest >= data.df:
        raise InputError(
            f"A group of {largest:,} samples leaves too few of {data.n:,} to learn from. "
            "Use smaller groups."
        )
    h2, log_weight = _nodes(data, basis, prior, 1 - largest / data.n)
    log_joint = log_weight + likelihood.integrated_loglik(data, h2)
    total = np.logaddexp.reduce(log_joint)
    at, to_nodes = _interpolation(h2)
    mixed = (
        np.logaddexp.reduce(log_joint[:, None] + to_nodes @ values, axis=0)
        for values in _log_terms(data, basis, at, blocks, joint=joint)
    )
    if blocks is None or joint:
        without, fitted = mixed
        return LeftOut(total - without, fitted - total, float(total), len(h2))
    without, with_member, fitted = mixed
    sizes = np.array([len(block) for block in blocks])
    starts = np.cumsum(sizes) - sizes
    elpd = np.add.reduceat(with_member - without, starts)
    return LeftOut(elpd, np.add.reduceat(fitted - total, starts), float(total), len(h2))


def _interpolation(h2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fewer values of h2 (F,) from which log densities at all are interpolated, and how, (G, F).

    As functions of t = log(h2 / (1 - h2)) they are analytic up to a distance of pi from the
    real line, whatever the eigenvalues: 1 + e^t s stays in a half-plane there. That gives the
    rate at which interpolation at Chebyshev nodes converges. Near h2 = 0 and 1, where t varies
    a lot, it needs more nodes than it saves.
    """
    inner = h2 > 0
    x = np.minimum(h2[inner], likelihood.LARGEST_H2)
    t = np.log(x) - np.log1p(-x)
    nodes = nodes_over(t, _DIGITS) if t.size else t
    count = len(nodes)
    if count >= t.size:
        return h2, np.eye(len(h2))
    to_nodes = np.zeros((len(h2), count + np.count_nonzero(~inner)))
    to_nodes[inner, :count] = lagrange(nodes, t)
    to_nodes[~inner, count:] = 1.0
    return np.append(1 / (1 + np.exp(-nodes)), h2[~inner]), to_nodes


def _log_terms(
    data: likelihood.Rotated,
    basis: Basis | None,
    h2: np.ndarray,
    blocks: Sequence[np.ndarray] | None,
    *,
    joint: bool,
) -> list[np.ndarray]:
    """What is added to log p(y, h2) before it is summed over h2, each of shape (nodes, N).

    -log p(y_B | y_-B, h2), for members also that + log p(y_i | y_-B, h2), and in sample.
    """
    if blocks is not None and not joint:
        return list(_members(data, basis, h2, blocks))
    pieces = [(-left_out, fitted) for _, left_out, fitted in _densities(data, basis, h2, blocks)]
    return [np.concatenate(piece) for piece in zip(*pieces, strict=True)]


def _members(
    data: likelihood.Rotated,
    basis: Basis | None,
    h2: np.ndarray,
    blocks: Sequence[np.ndarray],
) -> np.ndarray:
    """`_log_terms` of every block's members, in the blocks' order, shape (3, nodes, members)."""
    df = data.df
    ends = np.cumsum([len(block) for block in blocks])
    out = np.empty((3, len(h2), ends[-1]))
    for part, w, H, g, Q in _chunks(data, basis, h2):
        for block, end in zip(blocks, ends, strict=True):
            size = len(block)
            here = out[:, part, end - size : end]
            for k in range(w.shape[1]):
                M = _block(basis, w[:, k], block)
                HH = H[block, k] @ H[block, k].T
                inverse, inverse_M = np.linalg.inv(M - HH), np.linalg.inv(M)
                residual, fitted = inverse @ g[block, k], inverse_M @ g[block, k]
                form = g[block, k] @ residual
                scale = (Q[k] - form) / (df - size) * np.diagonal(inverse)
                scale_in = Q[k] / df * np.diagonal(inverse_M @ (M + HH) @ inverse_M)
                logdet = np.linalg.slogdet(M - HH)[1]
                here[0, k] = -_log_left_out(logdet, form, size, df, Q[k])
                here[1, k] = here[0, k] + _log_t(residual, scale, df - size)
                here[2, k] = _log_t(fitted, scale_in, df)
    return out


def _log_left_out(logdet: Any, form: Any, size: Any, df: int, Q: Any) -> Any:
    """log p(y_B | y_-B, h2) from log|P_BB|, g' P_BB^-1 g and |B|."""
    value = gammaln(df / 2) - gammaln((df - size) / 2) - 0.5 * size * log(pi) + 0.5 * logdet
    return value + 0.5 * (df - size) * np.log(Q - form) - 0.5 * df * np.log(Q)


def _log_t(residual: np.ndarray, scale: np.ndarray, df: int) -> np.ndarray:
    """Log density of a Student-t at a distance from its location; scale is squared."""
    constant = gammaln((df + 1) / 2) - gammaln(df / 2)
    return (
        constant
        - 0.5 * np.log(pi * df * scale)
        - 0.5 * (df + 1) * np.log1p(residual**2 / (df * scale))
    )


def _nodes(
    data: likelihood.Rotated, basis: Basis | None, prior: H2Prior, kept: float
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of h2 and the log of their prior mass.

    They suit the likelihood of the share of samples that stays, whose posterior is wider.
    """
    if basis is None:
        return np.zeros(1), np.zeros(1)
    density = unit_density(
        lambda h: kept * likelihood.integrated_loglik(data, h) + prior.log_density(h)
    )
    keep = density.weights > _NEGLIGIBLE * density.weights.max()
    h2 = density.x[keep]
    log_weight = np.log(density.weights[keep] / density.density[keep])
    log_weight += prior.log_density(h2) + np.log1p(-prior.spike)
    if prior.spike:
        h2, log_weight = np.append(h2, 0.0), np.append(log_weight, np.log(prior.spike))
    return h2, log_weight


def _densities(
    data: likelihood.Rotated,
    basis: Basis | None,
    h2: np.ndarray,
    blocks: Sequence[np.ndarray] | None,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Some nodes at a time: which, and the two log densities of `LeftOut`, (nodes, N).

    In sample, y_B has the density that it would have with u and e drawn anew given the other
    samples', at parameters that have seen all of y: Student-t with df degrees of freedom.
    """
    sizes = np.ones(1) if blocks is None else np.array([len(block) for block in blocks])
    df = data.df
    for part, w, H, g, Q in _chunks(data, basis, h2):
        forms = _single(basis, w, H, g) if blocks is None else _blockwise(basis, w, H, g, blocks)
        Q = Q[:, None]
        left_out = _log_left_out(forms.logdet, forms.form, sizes, df, Q)
        in_sample = gammaln((df + sizes) / 2) - gammaln(df / 2) - 0.5 * sizes * np.log(pi * Q)
        in_sample = in_sample - 0.5 * forms.logdet_in
        yield part, left_out, in_sample - 0.5 * (df + sizes) * np.log1p(forms.form_in / Q)


def _chunks(
    data: likelihood.Rotated, basis: Basis | None, h2: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """So many nodes at a time that memory is bounded: which, and `_projection` there."""
    n, c = data.C.shape
    step = max(1, _CHUNK // (n * (3 + 2 * c)))
    for start in range(0, len(h2), step):
        part = slice(start, start + step)
        yield part, *_projection(data, basis, h2[part])


def _projection(
    data: likelihood.Rotated, basis: Basis | None, h2: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """w (n, k), H (n, k, c), g = Py (n, k) and Q (k,): P = U diag(w) U' - H H' at each node."""
    n = data.n
    t = likelihood.terms(data, h2)
    w = np.column_stack([likelihood.weights(data, h) for h in h2])
    g = w * (data.y[:, None] - data.C @ t.b.T)
    H = np.einsum("nk,nc,kdc->nkd", w, data.C, np.linalg.inv(t.L), optimize=True)
    if basis is not None:
        g = basis.unrotate(g)
        H = basis.unrotate(H.reshape(n, -1)).reshape(H.shape)
    return w, H, g, t.Q


@dataclass(frozen=True)
class _Forms:
    """Of P_BB and of M (2 M - P_BB)^-1 M, M = (D^-1)_BB: log determinants and g's forms, (k, N).

    `logdet` and `form` are log|P_BB| and g' P_BB^-1 g; `logdet_in` is
    log|M^-1 (2 M - P_BB) M^-1| and `form_in` is g' (2 M - P_BB)^-1 g.
    """

    logdet: np.ndarray
    form: np.ndarray
    logdet_in: np.ndarray
    form_in: np.ndarray


def _single(basis: Basis | None, w: np.ndarray, H: np.ndarray, g: np.ndarray) -> _Forms:
    """Every sample by itself: diagonals only."""
    M = w if basis is None else basis.row_quadratic(w)
    HH = (H * H).sum(axis=2)
    P, both = (M - HH).T, (M + HH).T
    gg = (g * g).T
    return _Forms(np.log(P), gg / P, np.log(both) - 2 * np.log(M.T), gg / both)


def _blockwise(
    basis: Basis | None,
    w: np.ndarray,
    H: np.ndarray,
    g: np.ndarray,
    blocks: Sequence[np.ndarray],
) -> _Forms:
    forms = np.empty((4, w.shape[1], len(blocks)))
    for j, block in enumerate(blocks):
        for k in range(w.shape[1]):
            M = _block(basis, w[:, k], block)
            HH = H[block, k] @ H[block, k].T
            forms[:2, k, j] = _logdet_and_form(M - HH, g[block, k])
            forms[2:, k, j] = _logdet_and_form(M + HH, g[block, k])
            forms[2, k, j] -= 2 * np.linalg.slogdet(M)[1]
    return _Forms(*forms)


def _block(basis: Basis | None, weights: np.ndarray, block: np.ndarray) -> np.ndarray:
    """The block of U diag(w) U' of some samples."""
    if basis is None:
        return np.diag(weights[block])
    return basis.block_quadratic(weights, block)


def _logdet_and_form(A: np.ndarray, g: np.ndarray) -> tuple[float, float]:
    """log|A| and g' A^-1 g."""
    L = np.linalg.cholesky(A)
    half = np.linalg.solve(L, g)
    return 2 * float(np.log(np.diagonal(L)).sum()), float(half @ half)


def _require_estimable(
    data: likelihood.Rotated,
    basis: Basis | None,
    ids: Sequence[str],
    blocks: Sequence[np.ndarray] | None,
) -> None:
    """An `InputError` if a covariate's effect is unknown once some samples are left out."""
    if not data.C.shape[1]:
        return
    C = data.C if basis is None else basis.unrotate(data.C)
    if blocks is None:
        unknown = np.flatnonzero((C * C).sum(axis=1) > 1 - _ESTIMABLE)
        what = "sample"
    else:
        largest = [np.linalg.norm(C[block], 2) ** 2 for block in blocks]
        unknown = np.array(
            [b[0] for b, x in zip(blocks, largest, strict=True) if x > 1 - _ESTIMABLE]
        )
        what = "the group of sample"
    if len(unknown):
        names = [str(ids[int(i)]) for i in unknown]
        raise InputError(
            f"Without {what} {listing(names)} the effect of a covariate is unknown (a level that "
            "only they have?), so they cannot be predicted. Leave them, or the covariate, out."
        )
