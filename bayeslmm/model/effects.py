r"""Joint posterior of selected SNP effects by exact enumeration of the models.

Under spike and slab each of the 2^k subsets of k SNPs is a model. Given h2 and the slab's
width phi everything is conjugate: with P the covariate-adjusted weight of
`bayeslmm.numerics.likelihood`, M = X'PX and r = X'Py of the standardised SNPs, and

    A_g = M_g + I / phi^2,

a subset g has marginal likelihood, with the covariates and s2 integrated out,

    log p(y | g, h2, phi) = log p(y | h2) - 1/2 log|phi^2 A_g|
                            - df/2 log(1 - r_g' A_g^-1 r_g / Q),

and beta_g | s2, h2 is normal with mean A_g^-1 r_g and variance s2 A_g^-1 (Servin & Stephens
2007, PLoS Genet 3:e114). All subsets are eliminated together, one SNP at a time: 2^k times a
few operations per node of h2, over which the rest is one-dimensional quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.model.trees import data_groups
from bayeslmm.numerics import likelihood
from bayeslmm.numerics.quadrature import UnitDensity, unit_density
from bayeslmm.runs.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.model.lmm import LMM
    from bayeslmm.model.snps import SelectedSnps
    from bayeslmm.priors import SpikeSlab

LARGEST_K = 15
# Where the log posterior density of h2 is lower by more than this, models are not enumerated.
_NEGLIGIBLE = 60.0
# Nodes of h2 with less posterior probability than this are left out of sums.
_WEIGHTLESS = 1e-12
# Columns of products of SNPs that are kept while h2 varies.
_MOST_PRODUCTS = 250


@dataclass(frozen=True)
class SnpTerms:
    """Statistics of k standardised SNPs at G values of h2.

    Attributes
    ----------
    null : Terms
        The likelihood's pieces without the SNPs.
    M : ndarray, shape (G, k, k)
        X'PX.
    r : ndarray, shape (G, k)
        X'Py.
    """

    null: likelihood.Terms
    M: np.ndarray
    r: np.ndarray


def snp_terms(data: likelihood.Rotated, Z: np.ndarray, h2: np.ndarray) -> SnpTerms:
    """X'PX and X'Py of rotated standardised SNPs Z, shape (n, k), at each h2, shape (G,)."""
    null = likelihood.terms(data, h2)
    (n, k), G, c = Z.shape, len(h2), data.C.shape[1]
    M, r = np.empty((G, k, k)), np.empty((G, k))
    rows, cols = np.tril_indices(k)
    if G == 1 or len(rows) + k * c > _MOST_PRODUCTS:
        for g in range(G):
            w = likelihood.weights(data, float(h2[g]))
            wZ = Z * w[:, None]
            half = np.linalg.solve(null.L[g], data.C.T @ wZ)
            M[g] = Z.T @ wZ - half.T @ half
            r[g] = wZ.T @ (data.y - data.C @ null.b[g])
        return SnpTerms(null, M, r)
    # Few SNPs: products of columns that do not depend on h2, weighted for many h2 at once.
    with_C = (Z[:, :, None] * data.C[:, None, :]).reshape(n, k * c)
    products = np.column_stack([Z[:, rows] * Z[:, cols], with_C])
    for at, w in likelihood.weight_blocks(data, h2):
        sums = w @ products
        M[at, rows, cols] = M[at, cols, rows] = sums[:, : len(rows)]
        half = np.linalg.solve(null.L[at], sums[:, len(rows) :].reshape(-1, k, c).swapaxes(1, 2))
        M[at] -= half.swapaxes(1, 2) @ half
        w *= data.y - null.b[at] @ data.C.T
        r[at] = w @ Z
    return SnpTerms(null, M, r)


def enumerate_models(M: np.ndarray, r: np.ndarray, phi: float) -> tuple[np.ndarray, np.ndarray]:
    """log|phi^2 A_g| and r_g' A_g^-1 r_g of all 2^k subsets g, for one M (k, k) and r (k,).

    Subsets are numbered in binary: SNP j is in subset g if bit j of g is set.
    """
    k = len(r)
    logdet, explained = np.zeros(1), np.zeros(1)
    A, rest = M[None].copy(), r[None].copy()
    for _ in range(k):
        # The next SNP in or out; where in, it is swept out of those that remain.
        pivot = A[:, 0, 0] + 1 / phi**2
        column = A[:, 0, 1:]
        gain = rest[:, 0] / pivot
        swept = A[:, 1:, 1:] - column[:, :, None] * column[:, None, :] / pivot[:, None, None]
        swept_rest = rest[:, 1:] - column * gain[:, None]
        logdet = np.concatenate([logdet, logdet + np.log(phi**2 * pivot)])
        explained = np.concatenate([explained, explained + gain * rest[:, 0]])
        A = np.concatenate([A[:, 1:, 1:], swept])
        rest = np.concatenate([rest[:, 1:], swept_rest])
    return logdet, explained


@dataclass(frozen=True)
class _Node:
    """All models at one h2: their log probabilities, jointly with y, for each phi (F, 2^k)."""

    log_models: np.ndarray


class SpikeSlabPosterior:
    """The exact joint posterior of k SNP effects, h2, s2 and the subset of SNPs.

    Parameters
    ----------
    model : LMM
        Phenotype, covariates, kernel, prior on h2 (a spike at 0 is allowed).
    snps : SelectedSnps
        At most 15.
    prior : SpikeSlab
        Inclusion probability and widths of the slab.
    log_subsets : ndarray, shape (2^k,), optional
        Log prior probability of each subset, instead of the prior's inclusion probability of
        each SNP by itself.
    """

    def __init__(
        self,
        model: LMM,
        snps: SelectedSnps,
        prior: SpikeSlab,
        *,
        log_subsets: np.ndarray | None = None,
    ) -> None:
        k = len(snps.ids)
        if not 1 <= k <= LARGEST_K:
            raise InputError(
                f"Spike and slab enumerates 2^k models, for 1 to {LARGEST_K} SNPs, but {k} came. "
                "Use snp_prior='horseshoe' for more."
            )
        self.model, self.snps, self.prior = model, snps, prior
        self.data = model.rotated
        standardized = snps.x / snps.sd
        self.Z = standardized if model.basis is None else model.basis.rotate(standardized)
        self.members = (np.arange(2**k)[:, None] >> np.arange(k) & 1).astype(bool)
        if log_subsets is None:
            p = prior.inclusion
            log_subsets = np.where(self.members, np.log(p), np.log1p(-p)).sum(axis=1)
        self.log_subsets = log_subsets
        self._nodes: dict[float, _Node] = {}
        self._lowest = -np.inf
        at_0 = float(self._log_posterior(np.zeros(1), prune=False)[0])
        self.density: UnitDensity | None = None
        if model.basis is not None:
            self.density = unit_density(
                self._log_posterior,
                mass_at_0=model.h2_prior.spike,
                log_at_0=at_0,
                tolerance=1e-6,
            )
        h2, weights = self._weighted_nodes()
        matter = h2[weights > _WEIGHTLESS]
        self._nodes = {float(h): self._nodes[float(h)] for h in matter}

    def _log_posterior(self, h2: np.ndarray, *, prune: bool = True) -> np.ndarray:
        """log p(y | h2) p(h2), summed over models and widths, shape (G,).

        Without `prune` the prior is left out, and nothing is spared.
        """
        terms = snp_terms(self.data, self.Z, h2)
        base = likelihood.integrated_loglik(self.data, h2)
        # Between the model without SNPs and that of all of them, if these came for nothing:
        # where h2 is out of the question, that is enough.
        A = terms.M + np.eye(len(self.snps.ids)) / max(self.prior.phi) ** 2
        full = np.linalg.solve(A, terms.r[..., None])[..., 0]
        share = np.minimum((full * terms.r).sum(axis=1) / terms.null.Q, 1 - 1e-15)
        log_prior = self.model.h2_prior.log_density(h2) if prune else np.zeros(1)
        out = base + log_prior - 0.5 * self.data.df * np.log1p(-share)
        if prune:
            lower = float((base + log_prior).max()) + self.log_subsets[0]
            self._lowest = max(self._lowest, lower)
        for i in np.flatnonzero(out > self._lowest - _NEGLIGIBLE):
            h = float(h2[i])
            if h not in self._nodes:
                self._nodes[h] = self._node(terms, base, int(i))
            out[i] = _logsumexp(self._nodes[h].log_models) + log_prior[i]
        return out

    def _node(self, terms: SnpTerms, base: np.ndarray, i: int) -> _Node:
        rows = []
        for phi in self.prior.phi:
            logdet, explained = enumerate_models(terms.M[i], terms.r[i], phi)
            share = np.minimum(explained / terms.null.Q[i], 1 - 1e-15)
            rows.append(-0.5 * logdet - 0.5 * self.data.df * np.log1p(-share))
        return _Node(base[i] + np.array(rows) + self.log_subsets - np.log(len(self.prior.phi)))

    def _weighted_nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Values of h2 and their posterior probabilities, the point mass at 0 included."""
        if self.density is None:
            return np.zeros(1), np.ones(1)
        at_0 = self.density.mass_at_0
        h2 = np.append(0.0, self.density.x)
        return h2, np.append(at_0, (1 - at_0) * self.density.weights)

    def model_probabilities(self) -> np.ndarray:
        """Posterior probability of each subset, shape (2^k,)."""
        h2, weights = self._weighted_nodes()
        total = np.zeros(len(self.log_subsets))
        for h, weight in zip(h2, weights, strict=True):
            if weight > _WEIGHTLESS:
                values = self._nodes[float(h)].log_models
                total += weight * np.exp(values - _logsumexp(values)).sum(axis=0)
        return total / total.sum()

    def inclusion_probabilities(self) -> np.ndarray:
        """Posterior probability that each SNP has an effect (PIP), shape (k,)."""
        return self.model_probabilities() @ self.members

    def moments(self, negligible: float = 1e-8) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and sd of the standardised effects in phenotype units, shape (k,) each.

        Models with less than the negligible probability, at a node of h2, are left out.
        """
        k, df = len(self.snps.ids), self.data.df
        first, second, total = np.zeros(k), np.zeros(k), 0.0
        for h2, weight in zip(*self._weighted_nodes(), strict=True):
            if weight <= _WEIGHTLESS:
                continue
            values = self._nodes[float(h2)].log_models
            probabilities = weight * np.exp(values - _logsumexp(values))
            terms = snp_terms(self.data, self.Z, np.array([h2]))
            widths, subsets = np.nonzero(probabilities > negligible)
            p = probabilities[widths, subsets]
            inside = self.members[subsets]
            # A_g within the subset, the identity without: one inverse for subsets of all sizes.
            A = terms.M[0] * (inside[:, :, None] & inside[:, None, :])
            ridge = 1 / np.array(self.prior.phi)[widths, None] ** 2
            A[:, np.arange(k), np.arange(k)] += np.where(inside, ridge, 1.0)
            inverse = np.linalg.inv(A)
            mean = (inverse @ (terms.r[0] * inside)[..., None])[..., 0]
            s2 = (terms.null.Q[0] - mean @ terms.r[0]) / (df - 2)
            spread = np.diagonal(inverse, axis1=1, axis2=2) * inside * s2[:, None]
            first += p @ mean
            second += p @ (spread + mean**2)
            total += p.sum()
        mean = first / total
        return mean, np.sqrt(second / total - mean**2)

    def draw(self, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Independent draws of h2, s2, b, beta_std and which SNPs are in.

        h2 is drawn from the quadrature's nodes, which are closer together than any
        feature of its posterior.
        """
        k, data = len(self.snps.ids), self.data
        h2, weights = self._weighted_nodes()
        weights = np.where(weights > _WEIGHTLESS, weights, 0)
        node = rng.choice(len(h2), size=draws, p=weights / weights.sum())
        out_h2, s2 = h2[node], np.empty(draws)
        beta = np.zeros((draws, k))
        included = np.zeros((draws, k), dtype=bool)
        orthonormal = np.empty((draws, data.C.shape[1]))
        for i in np.unique(node):
            here = np.flatnonzero(node == i)
            values = self._nodes[float(h2[i])].log_models
            probability = np.exp(values - _logsumexp(values)).ravel()
            picks = rng.choice(len(probability), size=len(here), p=probability / probability.sum())
            terms = snp_terms(data, self.Z, h2[i : i + 1])
            CWZ = self._covariate_products(float(h2[i]))
            for pick in np.unique(picks):
                width, subset = divmod(int(pick), len(self.log_subsets))
                rows = here[picks == pick]
                members = np.flatnonzero([subset >> j & 1 for j in range(k)])
                A = terms.M[0][np.ix_(members, members)]
                A = A + np.eye(len(members)) / self.prior.phi[width] ** 2
                mean = np.linalg.solve(A, terms.r[0][members])
                Q = terms.null.Q[0] - terms.r[0][members] @ mean
                s2[rows] = Q / rng.chisquare(data.df, size=len(rows))
                scale = np.sqrt(s2[rows])[:, None]
                L = np.linalg.cholesky(A)
                noise = rng.standard_normal((len(rows), len(members)))
                values_here = mean + scale * np.linalg.solve(L.T, noise.T).T
                beta[np.ix_(rows, members)] = values_here / scale
                included[np.ix_(rows, members)] = True
                # b given beta: generalised least squares of what the SNPs leave.
                shift = np.linalg.solve(
                    terms.null.L[0] @ terms.null.L[0].T, CWZ[:, members] @ values_here.T
                ).T
                noise = rng.standard_normal((len(rows), data.C.shape[1]))
                spread = np.linalg.solve(terms.null.L[0].T, noise.T).T
                orthonormal[rows] = terms.null.b[0] - shift + scale * spread
        return {
            "h2": out_h2,
            "s2": s2,
            "b": data.b_ols + orthonormal @ data.to_covariates.T,
            "beta_std": beta,
            "included": included,
        }

    def _covariate_products(self, h2: float) -> np.ndarray:
        return (self.data.C.T * likelihood.weights(self.data, h2)) @ self.Z


def spike_slab(
    model: LMM, snps: SelectedSnps, prior: SpikeSlab, *, draws: int, seed: int
) -> xr.DataTree:
    """Independent draws of the joint posterior under spike and slab, as a DataTree.

    Besides the usual variables the posterior group has `included` (snp, bool), and
    `inclusion_probability` (snp) and `model_probability` (model) are in the group
    selection, exact.
    """
    import xarray as xr

    posterior = SpikeSlabPosterior(model, snps, prior)
    values = posterior.draw(draws, np.random.default_rng(seed))
    kappa = posterior.data.kappa
    h2, s2 = values["h2"], values["s2"]
    sd = np.sqrt(s2)
    arrays = {
        "h2": (["chain", "draw"], h2[None]),
        "s2_g": (["chain", "draw"], (s2 * h2 / kappa)[None]),
        "s2_e": (["chain", "draw"], (s2 * (1 - h2))[None]),
        "s2": (["chain", "draw"], s2[None]),
        "sd": (["chain", "draw"], sd[None]),
        "b": (["chain", "draw", "covariate"], values["b"][None]),
        "beta": (["chain", "draw", "snp"], (values["beta_std"] * sd[:, None] / snps.sd)[None]),
        "beta_std": (["chain", "draw", "snp"], values["beta_std"][None]),
        "included": (["chain", "draw", "snp"], values["included"][None]),
    }
    coords = {
        "chain": [0],
        "draw": np.arange(draws),
        "covariate": list(model.C.columns),
        "snp": snps.ids,
    }
    attrs = provenance() | {
        "formula": model.formula,
        "n": len(model.y),
        "kappa": kappa,
        "h2_prior": repr(model.h2_prior),
        "snp_prior": str(prior),
        "sampler": "independent draws from the exact posterior",
        "seed": seed,
    }
    probabilities = posterior.model_probabilities()
    best = np.argsort(probabilities)[::-1][: min(len(probabilities), 1000)]
    names = [
        " + ".join(snps.ids[j] for j in range(len(snps.ids)) if g >> j & 1) or "none" for g in best
    ]
    selection = xr.Dataset(
        {
            "inclusion_probability": ("snp", posterior.inclusion_probabilities()),
            "model_probability": ("model", probabilities[best]),
        },
        {"snp": snps.ids, "model": names},
    )
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=attrs),
            "posterior": xr.Dataset(arrays, coords, attrs),
            "selection": selection,
            **data_groups(model),
        }
    )


def _logsumexp(values: np.ndarray) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))
