"""Fine-mapping: which SNPs of a region carry its effects, given relatedness.

The model of a region's effects, and the ways to its posterior at given h2, are in
`bayeslmm.genome.single_effects`. Here h2 is integrated out: its nodes are a Gauss rule for its
posterior given the effects that SuSiE finds, and a node has the weight p(h2) p(y | h2) with the
effects in. What comes out gets labels and credible sets.
"""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.genome.single_effects import (
    MAX_SWEEPS,
    EffectsFit,
    EffectsPrior,
    SingleEffect,
    fit_effects,
    left_by,
    log_bayes_factors,
    sample_effects,
)
from bayeslmm.model.effects import LARGEST_K, SpikeSlabPosterior, snp_terms
from bayeslmm.model.snps import SelectedSnps, polymorphic_snps, require_lmm
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.quadrature import UnitDensity, gauss_rule, unit_density
from bayeslmm.priors import SpikeSlab
from bayeslmm.runs.provenance import provenance

if TYPE_CHECKING:
    from bayeslmm.inputs.genotypes import Genotypes
    from bayeslmm.model.lmm import LMM

_CHAINS = 4
_LARGEST_MCSE = 0.1
# A SNP whose sum of squares the covariates leave less than this share of tells nothing.
_COLLINEAR = 1e-9


# -- over h2 ----------------------------------------------------------------------------------


class _Region:
    """The statistics of a region's SNPs at any h2, and the fits there."""

    def __init__(self, model: LMM, snps: SelectedSnps, prior: EffectsPrior) -> None:
        self.model, self.data, self.prior = model, model.rotated, prior
        standardized = snps.x / snps.sd
        self.Z = standardized if model.basis is None else model.basis.rotate(standardized)

    def fit(self, h2: float, start: Sequence[SingleEffect] = ()) -> EffectsFit:
        terms = snp_terms(self.data, self.Z, np.array([h2]))
        Q = float(terms.null.Q[0])
        return fit_effects(terms.M[0], terms.r[0], Q, self.data.df, self.prior, start)

    def log_p(self, data: likelihood.Rotated, h2: np.ndarray) -> np.ndarray:
        """log p(y | h2) p(h2) without effects."""
        return likelihood.integrated_loglik(data, h2) + self.model.h2_prior.log_density(h2)

    def h2_given(self, effects: np.ndarray) -> UnitDensity:
        """Posterior of h2 when effects (k,) are taken out of y."""
        data = replace(self.data, y=self.data.y - self.Z @ effects)
        return unit_density(lambda h2: self.log_p(data, h2), tolerance=1e-7)

    def nodes(self, number: int) -> tuple[np.ndarray, np.ndarray, list[EffectsFit]]:
        """Nodes of h2, log of weight times p(y, h2) without effects, and fits."""
        if self.model.basis is None:
            return np.zeros(1), np.zeros(1), [self.fit(0.0)]
        spike = self.model.h2_prior.spike
        density = self.h2_given(np.zeros(self.Z.shape[1]))
        center = self.fit(density.mean)
        for _ in range(5):
            # A strong QTL moves h2: the rule is for the posterior with the effects in.
            before, density = density, self.h2_given(center.moments()[0])
            if abs(density.mean - before.mean) < 0.3 * density.sd:
                break
            center = self.fit(density.mean, center.effects)
        h2, weights, _ = gauss_rule(density.x, density.weights, number)
        order = np.argsort(np.abs(h2 - density.mean))
        fits: dict[int, EffectsFit] = {}
        for i in order:
            # From the nearest fit, so that an effect keeps its number from node to node.
            done = list(fits)
            near = fits[done[int(np.argmin(np.abs(h2[done] - h2[i])))]] if done else center
            fits[int(i)] = self.fit(h2[i], near.effects)
        found = [fits[i] for i in range(number)]
        assumed = replace(self.data, y=self.data.y - self.Z @ center.moments()[0])
        log_w = np.log(weights) + self.log_p(self.data, h2) - self.log_p(assumed, h2)
        if spike:
            log_at_0 = float(likelihood.integrated_loglik(self.data, np.zeros(1))[0])
            slab = np.log1p(-spike) + density.log_integral
            log_w = np.append(np.log(spike) + log_at_0, slab + log_w)
            h2, found = np.append(0.0, h2), [self.fit(0.0, found[0].effects), *found]
        return h2, log_w - log_w.max(), found

    def log_bf(self) -> np.ndarray:
        """Log Bayes factor of each SNP alone against none, h2 integrated out, shape (k,)."""
        if self.model.basis is None:
            h2, weights = np.zeros(1), np.ones(1)
        else:
            null = self.model.h2_posterior()
            h2 = np.append(0.0, null.x)
            weights = np.append(null.mass_at_0, (1 - null.mass_at_0) * null.weights)
            # A single effect makes no h2 probable that is out of the question without.
            h2, weights = h2[weights > 1e-200], weights[weights > 1e-200]
        total = np.full(self.Z.shape[1], -np.inf)
        square = self.Z**2
        null_terms = likelihood.terms(self.data, h2)
        for g, h in enumerate(h2):
            w = likelihood.weights(self.data, float(h))
            half = np.linalg.solve(null_terms.L[g], (self.data.C.T * w) @ self.Z)
            a = np.maximum(w @ square - (half * half).sum(axis=0), 0)
            b = (w * (self.data.y - self.data.C @ null_terms.b[g])) @ self.Z
            values = log_bayes_factors(a, b, null_terms.Q[g], self.data.df, self.prior.W)
            log_mean = np.logaddexp.reduce(values, axis=0) - np.log(len(self.prior.W))
            total = np.logaddexp(total, np.log(weights[g]) + log_mean)
        return total

    def explained_by_covariates(self) -> np.ndarray:
        """Which SNPs are a combination of covariates, shape (k,)."""
        inside = np.square(self.data.C.T @ self.Z).sum(axis=0)
        return 1 - inside / np.square(self.Z).sum(axis=0) < _COLLINEAR


# -- credible sets ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _CredibleSet:
    members: np.ndarray
    coverage: float
    purity: float
    log_bf: float


def _purity(snps: SelectedSnps, members: np.ndarray) -> float:
    """Smallest absolute correlation between members."""
    z = snps.x[:, members] / snps.sd[members]
    return float(np.abs(z.T @ z).min() / len(z))


def _smallest_set(alpha: np.ndarray, coverage: float) -> np.ndarray:
    """Fewest SNPs whose probabilities (k,) sum to `coverage`; none if all together do not."""
    order = np.argsort(-alpha, kind="stable")
    reached = np.cumsum(alpha[order]) >= coverage
    return order[: int(np.argmax(reached)) + 1] if reached.any() else order[:0]


def _sets_of_effects(
    alpha: np.ndarray, log_bf: np.ndarray, snps: SelectedSnps, coverage: float, min_purity: float
) -> list[_CredibleSet]:
    """A set for each effect (alpha (L, k)) that is there, pure and no stronger one's."""
    sets: list[_CredibleSet] = []
    for i in np.argsort(-log_bf, kind="stable"):
        members = _smallest_set(alpha[i], coverage)
        if not len(members):
            continue
        purity = _purity(snps, members)
        twins = any(
            len(np.intersect1d(members, other.members)) == min(len(members), len(other.members))
            for other in sets
        )
        if purity >= min_purity and not twins:
            total = float(alpha[i, members].sum())
            sets.append(_CredibleSet(members, total, purity, float(log_bf[i])))
    return sets


def _sets_of_models(
    probabilities: np.ndarray,
    members: np.ndarray,
    log_bf: Callable[[np.ndarray], float],
    snps: SelectedSnps,
    coverage: float,
    min_purity: float,
) -> list[_CredibleSet]:
    """Sets of which at least one SNP has an effect with probability `coverage`.

    From probabilities (T,) of models and their members (T, k). From the best SNP on, that
    which most of the models without any so far contain is added, of those in LD of
    `min_purity` with all.
    """
    sets: list[_CredibleSet] = []
    z = snps.x / snps.sd
    pip = probabilities @ members
    free = pip > 0
    while free.any():
        lead = int(np.argmax(np.where(free, pip, -1)))
        chosen, covered = [lead], members[:, lead]
        candidates = free & (np.abs(z[:, lead] @ z) >= min_purity * len(z))
        candidates[lead] = False
        if pip[lead] + pip[candidates].sum() < coverage:  # not even if they excluded each other
            free[lead] = False
            continue
        while probabilities[covered].sum() < coverage and candidates.any():
            among = np.flatnonzero(candidates)
            more = (probabilities * ~covered) @ members[:, among]
            chosen.append(int(among[np.argmax(more)]))
            covered = covered | members[:, chosen[-1]]
            candidates &= np.abs(z[:, chosen[-1]] @ z) >= min_purity * len(z)
            candidates[chosen] = False
        total = float(probabilities[covered].sum())
        free[lead] = False
        if total >= coverage:
            free[chosen] = False
            at = np.array(chosen)
            sets.append(_CredibleSet(at, total, _purity(snps, at), log_bf(at)))
    return sorted(sets, key=lambda found: -found.log_bf)


# -- labels -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class FineMap:
    """Fine-mapping of a region: what `finemap` returns.

    Attributes
    ----------
    variants : DataFrame
        One row per SNP, in the order of the genotypes: chrom, pos, id, ea (effect allele), oa,
        eaf, pip (posterior probability of an effect), beta and sd (posterior mean and sd of
        the effect in phenotype units per effect allele, 0 where there is none included), cs
        (number of its credible set, 0 for none), log10_bf (of the SNP alone against no SNP).
    credible_sets : DataFrame
        One row per set, the strongest first, indexed by its number cs: size, coverage
        (probability that a member has an effect), purity (smallest :math:`|r|` between
        members, of their dosages in the analysed samples), log10_bf (of the effect, given
        the other effects), lead (the id with the highest PIP), ids (list, highest PIP first).
    h2 : DataFrame
        Nodes of h2 and their posterior weights, columns h2, weight; empty without kernel.
    effects : DataFrame, shape (L, k)
        P(effect l is there and SNP j's), columns the ids; only for ``method="susie"``.
    attrs : dict
        Provenance, parameters, and what was left out.
    """

    variants: pd.DataFrame
    credible_sets: pd.DataFrame
    h2: pd.DataFrame
    effects: pd.DataFrame
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def expected_effects(self) -> float:
        """Posterior mean of the number of SNPs with an effect."""
        return float(self.variants["pip"].sum())

    def _headline(self) -> str:
        sets, k = len(self.credible_sets), len(self.variants)
        return (
            f"{self.attrs['formula']}, {self.attrs['region']}: {k:,} SNP{'s' * (k != 1)}, "
            f"{sets} credible set{'s' * (sets != 1)} ({100 * self.attrs['coverage']:g}%), "
            f"{self.expected_effects:.2f} SNPs with an effect expected"
        )

    def __repr__(self) -> str:
        lines = [f"<FineMap {self._headline()}>"]
        lines += [
            f"  {row.Index}  {row.size} SNP{'s' * (row.size != 1)}, lead {row.lead}, "
            f"purity {row.purity:.2f}, log10 BF {row.log10_bf:.1f}"
            for row in self.credible_sets.itertuples()
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        table = self.credible_sets.drop(columns="ids")
        body = table.to_html(float_format="{:.3g}".format) if len(table) else ""
        return f"<p>{html.escape(self._headline())}</p>{body}"


def finemap(
    model: LMM,
    genotypes: Genotypes | str | os.PathLike[str] | np.ndarray | None = None,
    *,
    region: str | None = None,
    snps: str | Iterable[str] | None = None,
    method: Literal["gibbs", "susie", "exact"] = "gibbs",
    max_effects: int = 10,
    expected_effects: float = 1.0,
    phi: float | Sequence[float] = (0.05, 0.1, 0.2, 0.4),
    prior_weights: pd.Series | np.ndarray | None = None,
    coverage: float = 0.95,
    min_purity: float = 0.5,
    h2_nodes: int = 5,
    sweeps: int = 1000,
    seed: int | None = None,
) -> FineMap:
    """Which SNPs of a region carry its effects: inclusion probabilities and credible sets.

    Parameters
    ----------
    model : LMM
        Phenotype, covariates, kernel, prior on h2. Keep the region in the kernel: with its
        chromosome left out, the polygenic effects there are taken for effects of the region
        (docs/fine-mapping.md). Without kernel this is plain regression.
    genotypes : Genotypes, path or array (n, m), optional
        By default the genotypes that the kernel was made of.
    region : str
        ``"17"`` or ``"17:30000000-38000000"`` (base pairs, both ends included).
    snps : variant ids
        Instead of a region, or within it.
    method : {"gibbs", "susie", "exact"}
        ``"gibbs"`` (default): a sum of single effects, sampled; calibrated, seconds for a few
        hundred SNPs. ``"susie"``: the same sum by variational inference, several times
        faster, too certain of SNPs where effects are in LD with each other (figures in
        docs/fine-mapping.md). ``"exact"``: all subsets of up to 15 SNPs enumerated.
    max_effects : int
        Largest number of effects, L.
    expected_effects : float
        Prior mean E of the number of effects in the region, above 0 and at most L, at which none
        can be absent. Each of the L is there with the same probability, which is learned,
        Beta(1, L/E - 1) before the data; ``"susie"`` holds it at its mean, E/L.
    phi : float or sequence of float
        Prior standard deviations of an effect, in total sd per sd of the genotype, averaged
        over with equal weights.
    prior_weights : Series by id, or array (m,), optional
        Relative prior probabilities of the SNPs of the region; equal by default.
    coverage : float
        Probability of a credible set: that the effect is there and of one of its members.
    min_purity : float
        Smallest :math:`|r|` between members of a credible set; sets of less are not reported.
    h2_nodes : int
        Values of h2 averaged over.
    sweeps : int
        For ``method="gibbs"``: rounds of updates of all effects, over four chains, after a
        warm-up of a fifth as many.
    seed : int, optional
        For reproducible results of ``method="gibbs"``. The one used is recorded.

    Returns
    -------
    FineMap
        Tables of SNPs and credible sets.

    Raises
    ------
    InputError
        For unknown chromosomes and ids, malformed or empty regions, parameters out of range,
        samples without genotypes, and more than 15 SNPs for ``method="exact"``.

    Warns
    -----
    UserWarning
        If the four chains of ``"gibbs"`` leave a PIP with a Monte Carlo standard error above
        0.1, or ``"susie"`` does not converge.

    References
    ----------
    Wang G, Sarkar A, Carbonetto P, Stephens M (2020). A simple new approach to variable
    selection in regression, with application to genetic fine mapping. J R Stat Soc B 82:1273.
    doi:10.1111/rssb.12388
    Denault WRP et al. (2025). Accounting for uncertainty in residual variances improves
    calibration of the Sum of Single Effects model for small sample sizes. bioRxiv.
    Servin B, Stephens M (2007). Imputation-based analysis of association studies: candidate
    regions and quantitative traits. PLoS Genet 3:e114. doi:10.1371/journal.pgen.0030114
    Scott JG, Berger JO (2010). Bayes and empirical-Bayes multiplicity adjustment in the
    variable-selection problem. Ann Stat 38:2587. doi:10.1214/10-AOS792

    Examples
    --------
    >>> import bayeslmm as bl
    >>> mice = bl.datasets.mouse_hs1940()
    >>> some = mice.genotypes.samples.index[:600]
    >>> kernel = bl.grm(mice.genotypes.select(samples=some))
    >>> model = bl.LMM("cd8 ~ sex", mice.phenotypes, kernel)
    >>> found = bl.finemap(model, region="17:30000000-38000000", seed=1)
    >>> len(found.variants)
    36
    """
    if method not in ("gibbs", "susie", "exact"):
        raise InputError(f"method='{method}' is unknown; expected 'gibbs', 'susie' or 'exact'.")
    _check(max_effects, expected_effects, coverage, min_purity, h2_nodes)
    if sweeps < _CHAINS:
        raise InputError(f"sweeps={sweeps}: each of the {_CHAINS} chains needs one at least.")
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    require_lmm(model)
    widths = SpikeSlab(phi=tuple(np.atleast_1d(phi).tolist())).phi
    if not widths:
        raise InputError("phi is empty: name at least one prior standard deviation.")
    if model.rotated.df < 3:
        raise InputError(f"{len(model.y):,} samples are too few: at least 3 more than covariates.")
    chosen, variants, monomorphic = polymorphic_snps(model, genotypes, region=region, snps=snps)
    weights = _weights(prior_weights, variants, monomorphic)
    prior = EffectsPrior(weights, np.array(widths) ** 2, max_effects, expected_effects)
    statistics = _Region(model, chosen, prior)
    attrs = provenance() | {
        "formula": model.formula,
        "region": region or _span(variants),
        "method": method,
        "n": len(model.y),
        "h2_prior": repr(model.h2_prior) if model.basis is not None else "none",
        "max_effects": max_effects,
        "expected_effects": expected_effects,
        "phi": list(widths),
        "coverage": coverage,
        "min_purity": min_purity,
        "seed": seed,
        "monomorphic": monomorphic,
        "explained_by_covariates": list(variants.id[statistics.explained_by_covariates()]),
    }
    if method == "exact":
        result = _exact(statistics, chosen, prior, widths, coverage, min_purity)
    elif method == "susie":
        result = _susie(statistics, chosen, coverage, min_purity, h2_nodes, attrs)
    else:
        result = _gibbs(statistics, chosen, coverage, min_purity, h2_nodes, sweeps, attrs)
    variants["pip"] = result.pip
    variants["beta"], variants["sd"] = result.beta / chosen.sd, result.sd / chosen.sd
    variants["cs"] = 0
    for number, found in reversed(list(enumerate(result.sets, 1))):
        variants.loc[found.members, "cs"] = number  # of sets that overlap, the strongest
    variants["log10_bf"] = statistics.log_bf() / np.log(10)
    variants.attrs = attrs
    columns = ["h2", "weight"]
    return FineMap(
        variants,
        _credible_sets(result.sets, variants),
        pd.DataFrame(np.column_stack([result.h2, result.weights]), columns=columns),
        pd.DataFrame(
            result.alpha,
            index=pd.RangeIndex(1, len(result.alpha) + 1, name="effect"),
            columns=variants.id,
        ),
        attrs,
    )


@dataclass(frozen=True)
class _Result:
    """What either method finds; beta and sd per sd of the genotype."""

    pip: np.ndarray
    beta: np.ndarray
    sd: np.ndarray
    alpha: np.ndarray
    sets: list[_CredibleSet]
    h2: np.ndarray
    weights: np.ndarray


def _susie(
    statistics: _Region,
    snps: SelectedSnps,
    coverage: float,
    min_purity: float,
    h2_nodes: int,
    attrs: dict[str, Any],
) -> _Result:
    h2, log_weights, fits = statistics.nodes(h2_nodes)
    weights = _normalised(log_weights + np.array([fit.log_bound for fit in fits]))
    attrs["sweeps"] = [fit.sweeps for fit in fits]
    if not all(fit.converged for fit in fits):
        warnings.warn(
            f"The fit still moved after {MAX_SWEEPS:,} rounds; inclusion probabilities of SNPs in "
            "high LD may be off. Fewer effects (max_effects) usually settle it.",
            stacklevel=3,
        )
    moments = [fit.moments() for fit in fits]
    beta = weights @ np.array([mean for mean, _ in moments])
    square = weights @ np.array([square for _, square in moments])
    alpha = np.tensordot(weights, np.array([fit.alpha for fit in fits]), axes=1)
    return _Result(
        weights @ np.array([fit.pip() for fit in fits]),
        beta,
        np.sqrt(np.maximum(square - beta**2, 0)),
        alpha,
        _sets_of_effects(
            alpha, _log_bf_of_effects(weights, fits, statistics.prior), snps, coverage, min_purity
        ),
        h2 if statistics.model.basis is not None else h2[:0],
        weights if statistics.model.basis is not None else weights[:0],
    )


def _normalised(log_weights: np.ndarray) -> np.ndarray:
    w = np.exp(log_weights - log_weights.max())
    return w / w.sum()


def _gibbs(
    statistics: _Region,
    snps: SelectedSnps,
    coverage: float,
    min_purity: float,
    h2_nodes: int,
    sweeps: int,
    attrs: dict[str, Any],
) -> _Result:
    h2, log_weights, fits = statistics.nodes(h2_nodes)
    prior, df, k = statistics.prior, statistics.data.df, len(snps.ids)
    # Nodes that no effect makes probable are not worth their matrices.
    weights = _normalised(log_weights + np.array([fit.log_bound for fit in fits]))
    used = weights > 1e-6
    terms = snp_terms(statistics.data, statistics.Z, h2[used])
    best = fits[int(np.argmax(weights))]
    rng = np.random.default_rng(attrs["seed"])
    length = -(-sweeps // _CHAINS)
    chains = []
    for i in range(_CHAINS):
        # Half from SuSiE's posterior, half from nothing: they must come together.
        start = _draw_snps(best, rng) if i % 2 == 0 else None
        chains.append(
            sample_effects(
                terms.M,
                terms.r,
                terms.null.Q,
                log_weights[used],
                df,
                prior,
                rng,
                sweeps=length,
                warmup=max(length // 5, 10),
                start=start,
            )
        )
    pips = np.array([chain.pip for chain in chains])
    pip = pips.mean(axis=0)
    mcse = pips.std(axis=0, ddof=1) / np.sqrt(_CHAINS)
    attrs["sweeps"], attrs["largest_pip_mcse"] = sweeps, float(mcse.max())
    if mcse.max() > _LARGEST_MCSE:
        warnings.warn(
            f"The PIP of '{snps.ids[int(np.argmax(mcse))]}' has a Monte Carlo standard error of "
            f"{mcse.max():.2f}: the chains have not come together. Increase sweeps={sweeps:,}.",
            stacklevel=3,
        )
    snp = np.concatenate([chain.snp for chain in chains])
    width = np.concatenate([chain.width for chain in chains])
    node = np.concatenate([chain.node for chain in chains])
    members = np.zeros((len(snp), k + 1), dtype=bool)
    np.put_along_axis(members, snp, True, axis=1)
    members = members[:, :k]  # the last column took the absent ones, -1
    beta = np.mean([chain.mean for chain in chains], axis=0)
    square = np.mean([chain.square for chain in chains], axis=0)

    def log_bf(at: np.ndarray) -> float:
        """Mean log BF of an effect among SNPs `at` given those elsewhere, over 100 draws."""
        there = np.flatnonzero(members[:, at].any(axis=1))
        values = []
        for t in there[np.linspace(0, len(there) - 1, 100).astype(int)]:
            elsewhere = (snp[t] >= 0) & ~np.isin(snp[t], at)
            M, r, Q = terms.M[node[t]], terms.r[node[t]], float(terms.null.Q[node[t]])
            ridge = 1 / prior.W[width[t, elsewhere]]
            a, b, Q = left_by(M, np.diagonal(M), r, Q, snp[t, elsewhere], ridge)
            each = log_bayes_factors(a[at], b[at], Q, df, prior.W)
            values.append(np.logaddexp.reduce(each, axis=None) - np.log(each.size))
        return float(np.mean(values))

    probabilities = np.full(len(snp), 1 / len(snp))
    kernel = statistics.model.basis is not None
    return _Result(
        pip,
        beta,
        np.sqrt(np.maximum(square - beta**2, 0)),
        np.empty((0, k)),
        _sets_of_models(probabilities, members, log_bf, snps, coverage, min_purity),
        h2[used] if kernel else h2[:0],
        np.mean([chain.weights for chain in chains], axis=0) if kernel else h2[:0],
    )


def _draw_snps(fit: EffectsFit, rng: np.random.Generator) -> np.ndarray:
    """A SNP for each effect from its posterior, -1 for none, shape (L,)."""
    p = np.cumsum(fit.alpha, axis=1)
    at = np.array([np.searchsorted(row, rng.random(), side="right") for row in p])
    return np.where(at < p.shape[1], at, -1)


def _log_bf_of_effects(
    weights: np.ndarray, fits: list[EffectsFit], prior: EffectsPrior
) -> np.ndarray:
    """Log Bayes factor of each effect over the nodes of h2, shape (L,).

    A node's weight without the effect is that with it over 1 - p + p BF, p the prior
    probability of the effect.
    """
    at_nodes = np.array([[effect.log_evidence for effect in fit.effects] for fit in fits])
    with np.errstate(divide="ignore"):
        log_mean = -np.logaddexp.reduce(np.log(weights)[:, None] - at_nodes, axis=0)
    there = -np.expm1(prior.log_none)
    none = np.exp(prior.log_none - log_mean)
    return log_mean + np.log(np.maximum(1 - none, 1e-300)) - np.log(there)


def _exact(
    statistics: _Region,
    snps: SelectedSnps,
    prior: EffectsPrior,
    widths: tuple[float, ...],
    coverage: float,
    min_purity: float,
) -> _Result:
    if len(snps.ids) > LARGEST_K:
        raise InputError(
            f"method='exact' enumerates all subsets of up to {LARGEST_K} SNPs, but the region has "
            f"{len(snps.ids):,}. Use method='gibbs', or name fewer SNPs (snps=[ids])."
        )
    if prior.expected_effects == prior.max_effects:
        raise InputError(
            "method='exact' compares models with and without effects, but expected_effects="
            f"{prior.expected_effects:g} of max_effects={prior.max_effects} leaves none without. "
            "Expect fewer."
        )
    log_prior = prior.log_subsets()
    posterior = SpikeSlabPosterior(
        statistics.model, snps, SpikeSlab(phi=widths), log_subsets=log_prior
    )
    beta, sd = posterior.moments()
    probabilities = posterior.model_probabilities()
    density = posterior.density

    def log_bf(at: np.ndarray) -> float:
        """Mean log BF of an effect among SNPs `at` given those elsewhere, over the models."""
        there = posterior.members[:, at].any(axis=1)
        elsewhere = np.arange(len(there)) & ~int((1 << at).sum())

        def split(p: np.ndarray) -> list[np.ndarray]:
            """Probability without and with an effect among `at`, by what is elsewhere."""
            cells = (~there, there)
            return [np.bincount(elsewhere, p * cell, minlength=len(p)) for cell in cells]

        absent, present = split(probabilities)
        prior_absent, prior_present = split(np.exp(log_prior))
        matter = (present > 1e-12) & (absent > 0)
        log_bf = np.log(present[matter]) - np.log(absent[matter])
        log_bf -= np.log(prior_present[matter]) - np.log(prior_absent[matter])
        return float(np.average(log_bf, weights=present[matter]))

    return _Result(
        posterior.inclusion_probabilities(),
        beta,
        sd,
        np.empty((0, len(beta))),
        _sets_of_models(probabilities, posterior.members, log_bf, snps, coverage, min_purity),
        np.empty(0) if density is None else np.append(0.0, density.x),
        np.empty(0)
        if density is None
        else np.append(density.mass_at_0, (1 - density.mass_at_0) * density.weights),
    )


def _credible_sets(sets: list[_CredibleSet], variants: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for found in sets:
        at = found.members
        at = at[np.argsort(-variants["pip"].to_numpy()[at], kind="stable")]
        ids = list(variants["id"].iloc[at])
        log10_bf = found.log_bf / np.log(10)
        rows.append((len(at), found.coverage, found.purity, log10_bf, ids[0], ids))
    return pd.DataFrame(
        rows,
        columns=["size", "coverage", "purity", "log10_bf", "lead", "ids"],
        index=pd.RangeIndex(1, len(rows) + 1, name="cs"),
    )


def _check(
    max_effects: int, expected_effects: float, coverage: float, min_purity: float, h2_nodes: int
) -> None:
    if max_effects < 1:
        raise InputError(f"At least one effect must be allowed, but max_effects={max_effects}.")
    if not 0 < expected_effects <= max_effects:
        raise InputError(
            f"expected_effects must be above 0 and at most max_effects={max_effects}, but is "
            f"{expected_effects:g}."
        )
    if not 0 < coverage < 1:
        raise InputError(f"coverage must be between 0 and 1, but is {coverage:g}.")
    if not 0 <= min_purity <= 1:
        raise InputError(f"min_purity must be between 0 and 1, but is {min_purity:g}.")
    if h2_nodes < 1:
        raise InputError(f"At least one node of h2 is needed, but h2_nodes={h2_nodes}.")


def _weights(
    given: pd.Series | np.ndarray | None, variants: pd.DataFrame, monomorphic: list[str]
) -> np.ndarray:
    """Prior weights of the SNPs, shape (k,), that sum to 1."""
    k = len(variants)
    if given is None:
        return np.full(k, 1 / k)
    if isinstance(given, pd.Series):
        by_id = given.set_axis(given.index.astype(str))
        absent = [name for name in variants.id if name not in by_id.index]
        if absent:
            raise InputError(
                f"prior_weights lack {len(absent):,} of {k:,} SNPs: {listing(absent)}."
            )
        values = by_id.loc[list(variants.id)].to_numpy(dtype=np.float64)
    else:
        values = np.asarray(given, dtype=np.float64)
        if monomorphic and len(values) == k + len(monomorphic):
            raise InputError(
                f"prior_weights as an array cannot be matched: {len(monomorphic):,} monomorphic "
                "SNPs are left out. Give a Series indexed by variant id."
            )
    if values.shape != (k,):
        raise InputError(f"prior_weights have shape {values.shape}, but there are {k:,} SNPs.")
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise InputError("prior_weights must be finite, at least 0, and not all 0.")
    return values / values.sum()


def _span(variants: pd.DataFrame) -> str:
    """Chromosome and first to last position of the SNPs, or how many chromosomes."""
    labels = variants.chrom.unique()
    if len(labels) > 1:
        return f"{len(labels)} chromosomes"
    return f"{labels[0]}:{variants.pos.min()}-{variants.pos.max()}"
