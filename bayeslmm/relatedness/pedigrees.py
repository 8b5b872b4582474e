"""Pedigrees: the additive relationship matrix A, its sparse inverse, and inbreeding."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.inputs.phenotypes import read_text
from bayeslmm.relatedness.dense import GRM
from bayeslmm.runs.files import existing
from bayeslmm.runs.memory import require_memory

if TYPE_CHECKING:
    import scipy.sparse

UNKNOWN = ("", "0", ".", "NA", "N/A", "NaN", "nan")
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Pedigree:
    r"""Who descends from whom. It is a kernel: give it to `LMM` in place of a GRM.

    The additive relationship matrix of all individuals is

    .. math:: A = T D T', \qquad T = (I - P)^{-1}, \qquad
        d_i = 1 - \tfrac14 \sum_{p} (1 + F_p),

    with P having 1/2 at each individual's known parents p, and F the inbreeding
    coefficients. :math:`A_{ii} = 1 + F_i`; :math:`A_{ij}` is twice the coancestry.

    Attributes
    ----------
    ids : Index
        Names, shape (n,): the rows of the table in their order, then the parents that
        have no row of their own.
    sire, dam : ndarray of int, shape (n,)
        Positions of the parents in `ids`; -1 for an unknown one.

    Raises
    ------
    InputError
        For an individual that is its own parent, or its own ancestor.

    See Also
    --------
    pedigree : Make one from a table.
    """

    ids: pd.Index
    sire: np.ndarray = field(repr=False)
    dam: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", pd.Index(self.ids, name="id", dtype="str"))
        own = np.arange(len(self.ids))
        selfish = (self.sire == own) | (self.dam == own)
        if selfish.any():
            raise InputError(f"Its own parent in the pedigree: {listing(self.ids[selfish])}.")
        in_loop = self.generation < 0
        if in_loop.any():
            path = [str(i) for i in self.ids[self._loop(in_loop)]]
            raise InputError(
                f"The pedigree has a loop, each the parent of the one before: {' <- '.join(path)}. "
                "Nobody can be an ancestor of itself: correct one of these rows."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        founders = int(((self.sire < 0) & (self.dam < 0)).sum())
        generations = int(self.generation.max(initial=0)) + 1
        return (
            f"<Pedigree of {len(self):,} individuals: {founders:,} founders, "
            f"{generations:,} generations>"
        )

    # -- order -------------------------------------------------------------------------------

    @cached_property
    def generation(self) -> np.ndarray:
        """Steps on the longest way up to a founder, shape (n,); -1 on and below a loop."""
        parent = np.concatenate([self.sire, self.dam])
        child = np.tile(np.arange(len(self.ids)), 2)[parent >= 0]
        parent = parent[parent >= 0]
        by_parent = np.argsort(parent, kind="stable")
        child, bounds = (
            child[by_parent],
            np.searchsorted(parent[by_parent], np.arange(len(self) + 1)),
        )
        waiting = (self.sire >= 0).astype(int) + (self.dam >= 0)
        generation = np.full(len(self), -1)
        current = np.flatnonzero(waiting == 0)
        step = 0
        while len(current):
            generation[current] = step
            start, count = bounds[current], bounds[current + 1] - bounds[current]
            within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            children = child[np.repeat(start, count) + within]
            np.subtract.at(waiting, children, 1)
            current = np.unique(children[waiting[children] == 0])
            step += 1
        return generation

    @cached_property
    def _order(self) -> np.ndarray:
        """Positions, parents before children."""
        return np.argsort(self.generation, kind="stable")

    def _loop(self, in_loop: np.ndarray) -> list[int]:
        """One loop of parents, its first member repeated at the end."""
        i, path = int(np.argmax(in_loop)), []
        while i not in path:
            path.append(i)
            parents = (int(self.sire[i]), int(self.dam[i]))
            i = next(p for p in parents if p >= 0 and in_loop[p])
        return [*path[path.index(i) :], i]

    def prune(self, individuals: Iterable[object]) -> Pedigree:
        """The pedigree of some individuals and all their ancestors, who stand behind them."""
        chosen = self._positions(individuals)
        wanted = np.zeros(len(self), dtype=bool)
        current = chosen
        while len(current):
            wanted[current] = True
            parents = np.concatenate([self.sire[current], self.dam[current]])
            parents = np.unique(parents[parents >= 0])
            current = parents[~wanted[parents]]
        wanted[chosen] = False
        kept = np.concatenate([chosen, np.flatnonzero(wanted)])
        new = np.full(len(self) + 1, -1)
        new[kept] = np.arange(len(kept))
        return Pedigree(self.ids[kept], new[self.sire[kept]], new[self.dam[kept]])

    def _positions(self, individuals: Iterable[object]) -> np.ndarray:
        names = pd.Index([id_of(i) for i in individuals], dtype="str").unique()
        positions = self.ids.get_indexer(names)
        if (positions < 0).any():
            absent = names[positions < 0]
            raise InputError(
                f"{len(absent):,} of {len(names):,} individuals are not in the pedigree of "
                f"{len(self):,}: {listing(absent)}."
            )
        return positions

    # -- inbreeding, A and its inverse -------------------------------------------------------

    @cached_property
    def inbreeding(self) -> pd.Series:
        """Inbreeding coefficients F by individual: half the relationship of its parents.

        The sum over common ancestors of Meuwissen & Luo (1992); the path coefficients
        of a parent are kept until its last child, and full sibs share the result.

        References
        ----------
        Meuwissen THE, Luo Z (1992). Computing inbreeding coefficients in large populations.
        Genet Sel Evol 24:305. doi:10.1186/1297-9686-24-4-305
        """
        return pd.Series(self._F_and_D[0], index=self.ids, name="inbreeding")

    @cached_property
    def _F_and_D(self) -> tuple[np.ndarray, np.ndarray]:
        """Inbreeding coefficients and Mendelian sampling variances, each shape (n,)."""
        n = len(self)
        F, D, work = np.zeros(n), np.ones(n), np.zeros(n)
        sires, dams = self.sire.tolist(), self.dam.tolist()
        known = np.concatenate([self.sire, self.dam])
        children_left = np.bincount(known[known >= 0], minlength=n).tolist()
        paths: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # rows of T: ancestors, coefficients
        matings: dict[tuple[int, int], float] = {}
        for i in self._order.tolist():
            s, d = sires[i], dams[i]
            parents = [p for p in (s, d) if p >= 0]
            if len(parents) == 2:
                if (s, d) not in matings:
                    (of_s, to_s), (of_d, to_d) = paths[s], paths[d]
                    work[of_s] = to_s
                    matings[s, d] = 0.5 * float(work[of_d] @ (to_d * D[of_d]))
                    work[of_s] = 0
                F[i] = matings[s, d]
            D[i] = 1 - 0.25 * sum(1 + F[p] for p in parents)
            if children_left[i]:
                for p in parents:
                    work[paths[p][0]] += 0.5 * paths[p][1]
                ancestors = np.array([i])
                for p in parents:
                    ancestors = np.union1d(ancestors, paths[p][0])
                work[i] = 1
                paths[i] = (ancestors, work[ancestors])
                work[ancestors] = 0
            for p in parents:
                children_left[p] -= 1
                if not children_left[p]:
                    del paths[p]
        return F, D

    def grm(self, individuals: Iterable[object] | None = None) -> GRM:
        """The additive relationship matrix A as a kernel, scale "pedigree".

        Parameters
        ----------
        individuals : ids, optional
            Make A of these only (their ancestors count, but take no room): for
            pedigrees much larger than the data. By default A of all, by the tabular
            method, many rows at once; made once and kept.

        Returns
        -------
        GRM

        Raises
        ------
        InputError
            For ids that are not in the pedigree, and if memory does not suffice.

        References
        ----------
        Henderson CR (1976). A simple method for computing the inverse of a numerator
        relationship matrix used in prediction of breeding values. Biometrics 32:69.
        doi:10.2307/2529339
        Colleau JJ (2002). An indirect approach to the extensive calculation of relationship
        coefficients. Genet Sel Evol 34:409. doi:10.1186/1297-9686-34-4-409
        """
        if individuals is None:
            return self._whole
        pruned = self.prune(individuals)
        names = self.ids[self._positions(individuals)]
        n = len(names)
        require_memory(
            8.0 * n * n + 24.0 * len(pruned) * _ROWS_AT_ONCE,
            f"The relationship matrix of {n:,} individuals",
        )
        return self._labelled(pruned._first(n), names)

    @cached_property
    def _whole(self) -> GRM:
        n = len(self)
        require_memory(
            20.0 * n * n,
            f"The relationship matrix of {n:,} individuals (pedigree.grm(ids) makes that of some)",
        )
        return self._labelled(self._tabular(), self.ids)

    def _labelled(self, A: np.ndarray, ids: pd.Index) -> GRM:
        about = {"pedigree": f"{len(self):,} individuals"}
        return GRM(A, ids, scale="pedigree", info=about)

    def _tabular(self) -> np.ndarray:
        """A, shape (n, n): the rows of a generation are the means of its parents' rows."""
        order, n = self._order, len(self)
        rank = np.empty(n + 1, dtype=int)
        rank[order], rank[-1] = np.arange(n), -1
        sire, dam = rank[self.sire[order]], rank[self.dam[order]]
        F = self._F_and_D[0][order]
        starts = np.searchsorted(self.generation[order], np.arange(self.generation.max() + 2))
        starts = np.union1d(starts, np.arange(0, n, _ROWS_AT_ONCE))
        A = np.zeros((n, n))
        for a, b in pairwise(starts):
            rows, block = np.zeros((b - a, a)), np.zeros((b - a, b - a))
            for parent in (sire[a:b], dam[a:b]):
                known = np.flatnonzero(parent >= 0)
                rows[known] += A[parent[known], :a] / 2
            for parent in (sire[a:b], dam[a:b]):
                known = np.flatnonzero(parent >= 0)
                block[:, known] += rows[:, parent[known]] / 2
            np.fill_diagonal(block, 1 + F[a:b])
            A[a:b, :a], A[:a, a:b], A[a:b, a:b] = rows, rows.T, (block + block.T) / 2
        if (order == np.arange(n)).all():
            return A
        return A[np.ix_(rank[:-1], rank[:-1])]

    def _first(self, n: int) -> np.ndarray:
        """A of the first n individuals, column by column: two sparse triangular solves each."""
        from scipy.sparse.linalg import splu

        order = self._order
        rank = np.argsort(order)
        solver = splu(
            self._I_minus_P()[order][:, order].tocsc(),
            permc_spec="NATURAL",
            diag_pivot_thresh=0,
            options={"SymmetricMode": True},
        )
        D, rows = self._F_and_D[1][order], rank[:n]
        A = np.empty((n, n))
        for start in range(0, n, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, n)
            unit = np.zeros((len(self), stop - start))
            unit[rank[start:stop], np.arange(stop - start)] = 1
            above = solver.solve(unit, trans="T") * D[:, None]
            A[:, start:stop] = solver.solve(above)[rows]
        return (A + A.T) / 2

    def _I_minus_P(self) -> scipy.sparse.csr_array:
        from scipy.sparse import coo_array

        n = len(self)
        children = np.tile(np.arange(n), 2)
        parents = np.concatenate([self.sire, self.dam])
        known = parents >= 0
        values = np.concatenate([np.ones(n), np.full(int(known.sum()), -0.5)])
        rows = np.concatenate([np.arange(n), children[known]])
        columns = np.concatenate([np.arange(n), parents[known]])
        return coo_array((values, (rows, columns)), shape=(n, n)).tocsr()

    def inverse(self) -> scipy.sparse.csr_array:
        r"""A^-1, sparse, in the order of `ids`; A itself is not made.

        .. math:: A^{-1} = (I - P)' D^{-1} (I - P)

        Henderson's (1976) rules with inbreeding accounted for (Quaas 1976).

        References
        ----------
        Quaas RL (1976). Computing the diagonal elements and inverse of a large numerator
        relationship matrix. Biometrics 32:949. doi:10.2307/2529279
        """
        from scipy.sparse import diags_array

        D = self._F_and_D[1]
        if D.min() <= 1e-14:
            raise InputError(
                f"A has no inverse: the parents of {listing(self.ids[D <= 1e-14])} are completely "
                "inbred, so that they have no Mendelian sampling."
            )
        M = self._I_minus_P()
        return (M.T @ diags_array(1 / D) @ M).tocsr()


def pedigree(
    table: pd.DataFrame | str | os.PathLike[str],
    *,
    id: str = "id",
    sire: str = "sire",
    dam: str | None = "dam",
    monoecious: bool = False,
) -> Pedigree:
    """Read a pedigree: one row for each individual, with its two parents.

    Rows may come in any order. Parents without a row of their own are founders.
    Unknown parents are NA, 0, "." or empty.

    Parameters
    ----------
    table : DataFrame or path
        With the three columns (or the id in its index); a file is separated by tabs,
        commas or blanks and has a header.
    id, sire, dam : str
        Names of the columns; None for a `dam` that is never known.
    monoecious : bool
        Whether one individual may be sire and dam, as in many plants (selfing too).

    Returns
    -------
    Pedigree
        A kernel for `LMM` and `RepeatedLMM`; its `grm()`, `inverse()` and `inbreeding`.

    Raises
    ------
    InputError
        For individuals with two rows, without name, in a loop, their own parent, or
        used as sire and as dam.

    Examples
    --------
    A calf whose parents are half sibs:

    >>> import pandas as pd
    >>> import bayeslmm as bl
    >>> table = pd.DataFrame(
    ...     {"id": ["calf", "a", "b"], "sire": ["a", "s", "s"], "dam": ["b", "x", "y"]}
    ... )
    >>> ped = bl.pedigree(table)
    >>> ped
    <Pedigree of 6 individuals: 3 founders, 3 generations>
    >>> float(ped.inbreeding["calf"])
    0.125
    >>> ped.grm(["calf", "a", "b"]).matrix
    array([[1.125, 0.625, 0.625],
           [0.625, 1.   , 0.25 ],
           [0.625, 0.25 , 1.   ]])
    """
    if not isinstance(table, pd.DataFrame):
        table = read_text(existing(table)).reset_index(drop=True)
    if id not in table and (table.index.name == id or not isinstance(table.index, pd.RangeIndex)):
        table = table.assign(**{id: table.index})
    wanted = [column for column in (id, sire, dam) if column is not None]
    absent = [column for column in wanted if column not in table]
    if absent:
        raise InputError(
            f"The pedigree has no column {listing(absent)}; name them: id=, sire=, dam=. "
            f"Columns: {listing(table.columns, 20)}."
        )
    if not len(table):
        raise InputError("The pedigree has no rows.")
    own = [id_of(value) for value in table[id]]
    sires = [id_of(value) for value in table[sire]]
    dams = [""] * len(own) if dam is None else [id_of(value) for value in table[dam]]
    if "" in own:
        row = own.index("")
        raise InputError(
            f"Row {row + 1:,} of the pedigree has no id: '{table[id].iloc[row]}' means unknown."
        )
    rows = pd.Index(own, dtype="str")
    if rows.has_duplicates:
        raise InputError(
            f"The pedigree has individuals twice: {listing(rows[rows.duplicated()].unique())}. "
            "One row each."
        )
    if not monoecious:
        mothers = set(dams) - {""}
        both = [name for name in dict.fromkeys(sires) if name in mothers]
        if both:
            raise InputError(
                f"Sire in one row of the pedigree and dam in another: {listing(both)}. Correct it, "
                "or pass monoecious=True if individuals have both sexes."
            )
    everyone = dict.fromkeys(own)
    everyone |= dict.fromkeys(name for pair in zip(sires, dams, strict=True) for name in pair)
    everyone.pop("", None)
    position = {name: i for i, name in enumerate(everyone)} | {"": -1}
    implied = [-1] * (len(everyone) - len(own))
    return Pedigree(
        pd.Index(list(everyone), dtype="str"),
        np.array([position[name] for name in sires] + implied),
        np.array([position[name] for name in dams] + implied),
    )


def id_of(value: Any) -> str:
    """An individual's name as text, 12.0 (of a column with NA) as 12; "" if unknown."""
    if pd.isna(value):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    text = str(value).strip()
    return "" if text in UNKNOWN else text
