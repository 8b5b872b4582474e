r"""Tests of two terms of a variant at once: its effect, and what that depends on.

Beside the variant x a second term z of it is in the model: x times a covariate (gene by
environment interaction), or the dominance deviation. With M = [x z]' P [x z] and
r = [x z]' P y at a variance ratio (see `bayeslmm.numerics.nodes`), x is swept out first,

    a1 = x'Px,   h = x'Pz / a1,   a2 = z'Pz - h x'Pz,   b1 = x'Py,   b2 = z'Py - h b1,

and with Q = y'Py and df = n - c - 2

    RSS = Q - b1^2 / a1 - b2^2 / a2,            REML: log|M| = log a1 + log a2,
    second term:  b2^2 / a2 over RSS / df,                  F(1, df),
    both terms:   (b1^2 / a1 + b2^2 / a2) / 2 over RSS / df, F(2, df),

at the ratio that maximises the restricted likelihood of the model with both, found as for a
single variant: interpolated between the nodes, and searched widely where the optimum is not
between them. Given h2, priors N(0, W s2) on both coefficients add 1 / W to the diagonal of M;
the Bayes factor of both terms is then integrated over h2 on the quadrature of the null
posterior, that of the second given the first is its ratio to the Bayes factor of x alone.

Before it is put on the basis z is made orthogonal to x and to the covariates, which changes
no test: it keeps the products accurate in float32 where x and z are nearly collinear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.genome.bayes_factors import integrate
from bayeslmm.genome.codings import dominance_deviation
from bayeslmm.inputs.genotypes import CenteredBlock
from bayeslmm.model.effects import snp_terms
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.chebyshev import cardinal
from bayeslmm.numerics.nodes import COLLINEAR, LOG_RANGE, Weights, maximise_on_nodes
from bayeslmm.numerics.quadrature import unit_density
from bayeslmm.numerics.tails import log10_p_f, log10_p_f2

if TYPE_CHECKING:
    from bayeslmm.genome.scanner import Scanner
    from bayeslmm.model.lmm import LMM

# Variants whose Bayes factors are worked on at a time.
_CHUNK = 64
_LN10 = float(np.log(10))


# -- second terms ------------------------------------------------------------------------------


class SecondTerm(Protocol):
    """What stands beside a variant in the model."""

    @property
    def suffix(self) -> str:
        """End of its columns' names."""

    def values(self, block: CenteredBlock) -> np.ndarray:
        """The term, one row per variant, shape (b, n)."""

    def prior_scale(self, sum_sq_x: np.ndarray, sum_sq: np.ndarray) -> np.ndarray:
        """Sum of squares over which the effect prior is stated: of x, or of the term, (b,)."""

    def per_unit(self) -> float:
        """What takes a coefficient of `values` to reported units."""

    def account(self) -> dict[str, Any]:
        """What the table says of it."""


@dataclass(frozen=True)
class DominanceDeviation:
    """The dominance deviation; its prior is per standard deviation of the term."""

    suffix: str = "dom"

    def values(self, block: CenteredBlock) -> np.ndarray:
        """The term, one row per variant, shape (b, n)."""
        return dominance_deviation(block)

    def prior_scale(self, sum_sq_x: np.ndarray, sum_sq: np.ndarray) -> np.ndarray:
        """That of the term."""
        return sum_sq

    def per_unit(self) -> float:
        """Phenotype units: nothing to scale."""
        return 1.0

    def account(self) -> dict[str, Any]:
        """What the table says of it."""
        return {"coding": "genotypic"}


@dataclass(frozen=True)
class Interaction:
    """The product of a variant with a covariate, both centred, the covariate with sd 1.

    Attributes
    ----------
    name : str
        The covariate's name.
    e : ndarray, shape (n,)
        The covariate, with mean 0 and sd 1.
    mean, sd : float
        Its own.
    added : bool
        Whether its main effect had to be added to the model.
    """

    name: str
    e: np.ndarray
    mean: float
    sd: float
    added: bool
    suffix: str = "int"

    def values(self, block: CenteredBlock) -> np.ndarray:
        """The term, one row per variant, shape (b, n)."""
        return block.x * self.e.astype(block.x.dtype)

    def prior_scale(self, sum_sq_x: np.ndarray, sum_sq: np.ndarray) -> np.ndarray:
        """That of x: the prior is per sd of the genotype and per sd of the covariate."""
        return sum_sq_x

    def per_unit(self) -> float:
        """Per unit of the covariate rather than per sd."""
        return 1 / self.sd

    def account(self) -> dict[str, Any]:
        """What the table says of it."""
        return {
            "interaction": self.name,
            "interaction_mean": self.mean,
            "interaction_sd": self.sd,
            "interaction_main_effect_added": self.added,
        }


def check(
    tests: tuple[str, ...], coding: str, prior_odds: float | None, *, with_interaction: bool
) -> None:
    """Refuse options of a scan that two terms of a variant do not have."""
    what = "An interaction" if with_interaction else "coding='genotypic'"
    unknown = [test for test in tests if test not in ("wald", "bayes")]
    if unknown:
        raise InputError(f"{what} is tested by wald and bayes, not by {listing(unknown)}.")
    if with_interaction and coding == "genotypic":
        raise InputError("An interaction with coding='genotypic' has four terms: choose one.")
    if prior_odds is not None:
        raise InputError(
            f"{what} has several alternatives: prior_odds, for one of them, would be ambiguous."
        )


def interaction_with(model: LMM, covariate: str | pd.Series) -> tuple[LMM, Interaction]:
    """The interaction with a covariate, and the model with that covariate's main effect.

    Parameters
    ----------
    model : LMM
    covariate : str or Series
        One of the model's covariates by name (``"sex"`` finds the only column
        ``"sex[T.m]"`` of a formula's categories too), or numbers by sample id. If these
        are not explained by the model's covariates, their main effect is added.

    Raises
    ------
    InputError
        For unknown names and categories of several columns, covariates that are
        constant, missing or not numbers.
    """
    C = model.C
    if isinstance(covariate, str):
        columns = [c for c in C.columns if c == covariate] or [
            c for c in C.columns if c.startswith(f"{covariate}[")
        ]
        if len(columns) != 1:
            why = f"has {len(columns)} columns: name one of them" if columns else "is not there"
            what = "" if columns else ": add it to the formula, or pass a Series by sample id"
            raise InputError(
                f"interaction='{covariate}': the covariate {why}. The model has "
                f"{listing(columns or C.columns, limit=20)}{what}."
            )
        name, values, added = columns[0], C[columns[0]].to_numpy(), False
        with_main = model
    elif isinstance(covariate, pd.Series):
        name = "E" if covariate.name is None else str(covariate.name)
        with_main, values, added = _with_main_effect(model, covariate, name)
    else:
        raise InputError(
            "interaction= takes the name of a covariate, or a Series of numbers by sample id, "
            f"but is a {type(covariate).__name__}."
        )
    mean, sd = float(values.mean()), float(values.std())
    if not sd > 1e-10 * abs(mean):
        raise InputError(
            f"Covariate '{name}' is constant among the {len(values):,} analysed samples: nothing "
            "can interact with it."
        )
    return with_main, Interaction(name, (values - mean) / sd, mean, sd, added)


def _with_main_effect(model: LMM, covariate: pd.Series, name: str) -> tuple[LMM, np.ndarray, bool]:
    """The model with a main effect of numbers by sample id, those, and whether it was added."""
    index = covariate.index.astype(str)
    here = covariate.set_axis(index)[index.isin(model.ids)]
    absent = model.ids[~model.ids.isin(here.index)]
    if len(absent) or here.index.has_duplicates or here.isna().any():
        problem = (
            f"lacks {len(absent):,} of {len(model.ids):,} analysed samples: {listing(absent)}"
            if len(absent)
            else "names samples twice"
            if here.index.has_duplicates
            else f"is missing for {int(here.isna().sum()):,} analysed samples"
        )
        raise InputError(f"Interaction covariate '{name}' {problem}.")
    if not pd.api.types.is_numeric_dtype(here.dtype):
        raise InputError(f"Interaction covariate '{name}' is not numeric. Expected numbers.")
    values = here.loc[model.ids].to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"Interaction covariate '{name}' is not finite for every sample.")
    centred = values - values.mean()
    C = model.C.to_numpy()
    rest = centred - C @ np.linalg.lstsq(C, centred, rcond=None)[0]
    if np.linalg.norm(rest) <= 1e-8 * np.linalg.norm(centred):
        return model, values, False
    if np.linalg.norm(centred) <= 1e-10 * np.linalg.norm(values):
        return model, values, False  # constant: refused by the caller, in its own words
    return model.with_covariates(pd.DataFrame({name: values}, index=model.ids)), values, True


# -- statistics --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Swept:
    """Statistics with the first term swept out of the second, each array (v, G)."""

    a1: np.ndarray
    b1: np.ndarray
    h: np.ndarray
    a2: np.ndarray
    b2: np.ndarray

    def explained(self) -> np.ndarray:
        """What both terms take from Q."""
        return self.b1**2 / self.a1 + self.b2**2 / self.a2


@dataclass(frozen=True)
class _Pair:
    """Elements of M and r of variants x and their second terms z, each array (v, G)."""

    xx: np.ndarray
    xz: np.ndarray
    zz: np.ndarray
    xy: np.ndarray
    zy: np.ndarray

    def at(self, nodes: slice | np.ndarray) -> _Pair:
        """At some of the nodes."""
        return _Pair(*(v[:, nodes] for v in (self.xx, self.xz, self.zz, self.xy, self.zy)))

    def rows(self, rows: np.ndarray) -> _Pair:
        """Of some of the variants."""
        return _Pair(*(v[rows] for v in (self.xx, self.xz, self.zz, self.xy, self.zy)))

    def swept(self) -> _Swept:
        """x swept out of z."""
        h = self.xz / self.xx
        return _Swept(self.xx, self.xy, h, self.zz - h * self.xz, self.zy - h * self.xy)


@dataclass(frozen=True)
class Terms:
    """A block of variants and their second terms, on the basis.

    z = z_orthogonal / scale + along x, up to the covariates.

    Attributes
    ----------
    x, z : ndarray, shape (v, n)
        The variants, and the orthogonal parts of the second terms, as long as x.
    along, scale : ndarray, shape (v,)
        What takes z back to the second term.
    sum_sq : ndarray, shape (v,)
        Sum of squares of the second term, centred.
    testable, estimable : ndarray of bool, shape (v,)
        Whether the covariates leave something of x, and x and they of the second term.
    """

    x: np.ndarray
    z: np.ndarray
    along: np.ndarray
    scale: np.ndarray
    sum_sq: np.ndarray
    testable: np.ndarray
    estimable: np.ndarray

    def of(self, rows: np.ndarray, x: np.ndarray, z: np.ndarray) -> Terms:
        """Some of the variants, with their x and z on another basis."""
        parts = (self.along, self.scale, self.sum_sq, self.testable, self.estimable)
        return Terms(x, z, *(v[rows] for v in parts))

    def statistics(self, weights: Weights) -> _Pair:
        """M and r at the nodes; the product of x and z by polarisation."""
        xx, xy = weights.statistics(self.x)
        zz, zy = weights.statistics(self.z)
        xz = (weights.statistics(self.x + self.z)[0] - xx - zz) / 2
        along, scale = self.along[:, None], self.scale[:, None]
        zz = zz / scale**2 + 2 * along * xz / scale + along**2 * xx
        pair = _Pair(xx, xz / scale + along * xx, zz, xy, zy / scale + along * xy)
        for values, instead in ((xx, 1), (pair.xz, 0), (zz, 1), (xy, 0), (pair.zy, 0)):
            values[~self.estimable] = instead
        return pair


class PairScanner:
    """Tests of variants and their second terms against one null model.

    Parameters
    ----------
    one : Scanner
        The tests of single variants: its null model, nodes and priors are used.
    model : LMM
        Its model.
    second : SecondTerm
    """

    def __init__(self, one: Scanner, model: LMM, second: SecondTerm) -> None:
        self.one, self.second = one, second
        self.basis, self.h2 = one.basis, one.h2
        self.df = one.df - 1
        if self.df < 1:
            raise InputError(
                f"{one.data.n:,} samples are too few to test two terms of a variant with "
                f"{one.data.C.shape[1]} covariates."
            )
        self._covariates = np.linalg.qr(model.C.to_numpy())[0].astype(one.dtype)

    def prepare(self, block: CenteredBlock) -> Terms:
        """Both terms of a block's variants, on the basis."""
        x, z = block.x, self.second.values(block)
        if block.missing is not None:
            z[block.missing] = 0
        z -= z.mean(axis=1, keepdims=True)
        sum_sq = _squares(z)
        C = self._covariates
        rest = x - (x @ C) @ C.T
        z -= (z @ C) @ C.T
        with np.errstate(divide="ignore", invalid="ignore"):
            own = _squares(rest)
            tolerance = COLLINEAR[self.one.dtype]
            testable = (block.sum_sq > 0) & (own > tolerance * block.sum_sq)
            along = np.where(testable, np.einsum("ij,ij->i", rest, z) / own, 0)
            z -= along[:, None].astype(z.dtype) * rest
            left = _squares(z)
            estimable = testable & (left > tolerance * sum_sq)
            scale = np.where(estimable, np.sqrt(block.sum_sq / left), 1)
        z *= scale[:, None].astype(z.dtype)
        # What was multiplied and subtracted is what is undone: in the precision of z.
        along, scale = (v.astype(z.dtype).astype(np.float64) for v in (along, scale))
        one = self.one
        return Terms(one.rotate(x), one.rotate(z), along, scale, sum_sq, testable, estimable)

    def test(self, block: CenteredBlock, terms: Terms) -> dict[str, np.ndarray]:
        """Columns of the table for a block of variants, NaN where there is no test."""
        one = self.one
        pair = terms.statistics(one.weights)
        out: dict[str, np.ndarray] = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            if one.exact:
                self._exact(out, terms, pair)
            else:
                nodes = slice(-2, -1)
                at = pair.at(nodes).swept()
                columns = (v[:, 0] for v in (at.a1, at.b1, at.h, at.a2, at.b2))
                self._estimates(out, _Swept(*columns), one.weights.Q[-2])
            if one.bayes is not None:
                self._integrated(out, terms, pair, block)
        for values in out.values():
            values[~terms.estimable] = np.nan
        return out | {"testable": terms.testable, "estimable": terms.estimable}

    def _estimates(self, out: dict[str, np.ndarray], at: _Swept, Q: np.ndarray | float) -> None:
        """Coefficients, their standard errors and F tests, arrays (v,) at one ratio each."""
        s2 = np.maximum(Q - at.explained(), 0) / self.df
        second = at.b2 / at.a2
        unit = self.second.per_unit()
        out["beta"] = at.b1 / at.a1 - at.h * second
        out["se"] = np.sqrt(s2 * (1 / at.a1 + at.h**2 / at.a2))
        out["beta_2"], out["se_2"] = second * unit, np.sqrt(s2 / at.a2) * unit
        out["covariance"] = -s2 * at.h / at.a2 * unit
        if "wald" in self.one.tests:
            out["log10_2"] = log10_p_f(at.b2**2 / at.a2 / s2, self.df)
            out["log10_joint"] = log10_p_f2(at.explained() / 2 / s2, self.df)

    # -- at the optimum --------------------------------------------------------------------

    def _profile(self, at: _Swept, weights: Weights, nodes: slice | np.ndarray) -> np.ndarray:
        """Restricted log-likelihood with both terms in the model, (v, nodes)."""
        rss = np.maximum(weights.Q[nodes] - at.explained(), 1e-300)
        logdet = weights.logdet[nodes] + np.log(at.a1) + np.log(at.a2)
        return -0.5 * (logdet + self.df * np.log(rss))

    def _exact(self, out: dict[str, np.ndarray], terms: Terms, pair: _Pair) -> None:
        """Estimates and tests with the ratio at each variant's own REML optimum."""
        one, window = self.one, self.one.window
        inside = pair.at(window).swept()
        profile = self._profile(inside, one.weights, window)
        around = self._profile(pair.at(one.sentinels).swept(), one.weights, one.sentinels)
        limit = np.full(len(profile), LOG_RANGE[1])
        t, _, again = one.between_nodes(profile, around, limit, terms.estimable)
        best = _interpolated(inside, one.weights.Q[window], t)
        log_ratio = one.center + one.half_width * t
        if len(again):
            log_ratio[again], best[:, again] = self.search_widely(self._wide(terms, again))
        out["l_remle"] = np.exp(log_ratio) / one.data.kappa
        self._estimates(out, _Swept(*best[:5]), best[5])

    def _wide(self, terms: Terms, rows: np.ndarray) -> Terms:
        """Some variants, in the eigenbasis."""
        eigen = self.one.eigen
        x, z = terms.x[rows], terms.z[rows]
        return terms.of(rows, x, z) if eigen is self.one else _rotated(terms, rows, eigen)

    def search_widely(self, terms: Terms) -> tuple[np.ndarray, np.ndarray]:
        """Log ratio of the optimum over the whole range, (v,), and what is there, (6, v)."""
        panels = self.one.eigen.wide_panels()
        half = (LOG_RANGE[1] - LOG_RANGE[0]) / len(panels) / 2
        v = len(terms.x)
        best, log_ratio, found = np.full(v, -np.inf), np.empty(v), np.empty((6, v))
        for middle, weights in panels:
            at = terms.statistics(weights).swept()
            t, value = maximise_on_nodes(self._profile(at, weights, slice(None)), np.ones(v))
            better = value > best
            best[better], log_ratio[better] = value[better], middle + half * t[better]
            found[:, better] = _interpolated(at, weights.Q, t)[:, better]
        return log_ratio, found

    # -- integrated over h2 ----------------------------------------------------------------

    def _integrated(
        self, out: dict[str, np.ndarray], terms: Terms, pair: _Pair, block: CenteredBlock
    ) -> None:
        """Bayes factors of x, of both terms, and of the second given the first."""
        one, null = self.one, self.one.bayes
        assert null is not None
        first: dict[str, np.ndarray] = {"testable": terms.estimable}
        one.bayes_columns(first, null, terms.x, pair.xx, pair.xy, block)
        prior = np.nan_to_num(one.effect_prior.variances(block.eaf), nan=1.0) * one.data.n
        sums = (block.sum_sq, self.second.prior_scale(block.sum_sq, terms.sum_sq))
        width, width_2 = (
            prior / np.where(terms.estimable, sum_sq, 1.0)[:, None] for sum_sq in sums
        )
        log_p = np.log(one.effect_prior.probabilities)
        log_prior = np.add.outer(log_p, log_p).ravel()
        here = pair.at(one.integrated)
        Q, to_total = one.weights.Q[one.integrated], 1 + np.exp(null.log_ratio)
        joint = np.empty(len(width))
        again = np.zeros(len(width), dtype=bool)

        def at(rows: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, None]:
            w, w_2 = (v[rows, :, None] * to_total[points] for v in (width, width_2))
            log_bf = _log_bf(here.rows(rows).at(points), Q[points], w, w_2, one.data.df)
            return log_bf + log_prior[:, None], None

        for rows, log_bf, _, _, unsure in integrate(null, len(width), at):
            joint[rows], again[rows] = log_bf, unsure
        for j in np.flatnonzero(again & terms.estimable):
            joint[j] = self.integrate_again(terms, np.array([j]), width[j], width_2[j], log_prior)
        out["log10_bf"] = first["log10_bf"]
        out["log10_bf_joint"] = joint / _LN10
        out["log10_bf_2"] = out["log10_bf_joint"] - first["log10_bf"]

    def integrate_again(
        self,
        terms: Terms,
        row: np.ndarray,
        width: np.ndarray,
        width_2: np.ndarray,
        log_prior: np.ndarray,
    ) -> float:
        """log Bayes factor of both terms of one variant, by adaptive quadrature over h2."""
        eigen = self.one.eigen
        assert eigen.bayes is not None
        own = self._wide(terms, row)
        x, z = own.x[0].astype(np.float64), own.z[0].astype(np.float64)
        both = np.column_stack([x, z / own.scale[0] + own.along[0] * x])

        def averaged(h2: np.ndarray) -> np.ndarray:
            found = snp_terms(eigen.data, both, h2)
            M, r = found.M, found.r
            pair = _Pair(*(v[None] for v in (M[:, 0, 0], M[:, 0, 1], M[:, 1, 1], *r.T)))
            w, w_2 = (np.tile(v[None, :, None], len(h2)) for v in (width, width_2))
            log_bf = _log_bf(pair, found.null.Q, w, w_2, eigen.data.df)[0]
            return np.logaddexp.reduce(log_bf + log_prior[:, None])

        def log_evidence(h2: np.ndarray) -> np.ndarray:
            return likelihood.integrated_loglik(eigen.data, h2) + averaged(h2)

        prior = eigen.h2_prior
        density = unit_density(
            lambda h2: log_evidence(h2) + prior.log_density(h2),
            mass_at_0=prior.spike,
            log_at_0=float(log_evidence(np.zeros(1))[0]),
        )
        return density.log_integral - eigen.bayes.log_integral


def _rotated(terms: Terms, rows: np.ndarray, eigen: Scanner) -> Terms:
    return terms.of(rows, eigen.rotate(terms.x[rows]), eigen.rotate(terms.z[rows]))


def _squares(x: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", x, x).astype(np.float64)


def _interpolated(at: _Swept, Q: np.ndarray, t: np.ndarray) -> np.ndarray:
    """a1, b1, h, a2, b2 and Q at each variant's own place between the nodes, (6, v)."""
    weights = cardinal(t, len(Q))
    values = (np.log(at.a1), at.b1, at.h, np.log(at.a2), at.b2)
    found = np.array([*(np.einsum("vg,vg->v", v, weights) for v in values), weights @ Q])
    found[[0, 3]] = np.exp(found[[0, 3]])
    return found


def _log_bf(
    pair: _Pair, Q: np.ndarray, width: np.ndarray, width_2: np.ndarray, df: int
) -> np.ndarray:
    """log Bayes factor of both terms given h2, every pair of widths: (v, W W, G).

    Prior variances (v, W, G) are over the variance that M is in units of.
    """
    xx, xz, zz, xy, zy = (
        v[:, None, None, :] for v in (pair.xx, pair.xz, pair.zz, pair.xy, pair.zy)
    )
    w, w_2 = width[:, :, None, :], width_2[:, None, :, :]
    pivot = xx + 1 / w
    a2, b2 = zz - xz**2 / pivot, zy - xz * xy / pivot
    explained = xy**2 / pivot + b2**2 / (a2 + 1 / w_2)
    log_rest = np.log1p(-np.minimum(explained / Q, 1 - 1e-15))
    log_bf = -0.5 * (np.log1p(w * xx) + np.log1p(w_2 * a2) + df * log_rest)
    return log_bf.reshape(len(log_bf), -1, log_bf.shape[-1])


def columns(second: SecondTerm, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of the scan's table after beta and se, by their names there."""
    name = second.suffix
    out = {
        f"beta_{name}": found["beta_2"],
        f"se_{name}": found["se_2"],
        f"cov_{name}": found["covariance"],
    }
    if "log10_2" in found:
        out |= {
            f"p_{name}": 10.0 ** found["log10_2"],
            "p_joint": 10.0 ** found["log10_joint"],
            "neg_log10_p": -found["log10_2"],
            "neg_log10_p_joint": -found["log10_joint"],
        }
    if "l_remle" in found:
        out["l_remle"] = found["l_remle"]
    if "log10_bf_2" in found:
        out |= {
            "log10_bf": found["log10_bf"],
            f"log10_bf_{name}": found["log10_bf_2"],
            "log10_bf_joint": found["log10_bf_joint"],
        }
    return out
