r"""The model with all effects integrated out: what NUTS samples by default.

Given h2, the variance s2 and the prior standard deviations t of the effects of covariates
and SNPs, y is normal. On the basis, with W the rotated covariates and standardised SNPs,

    y ~ N(0, s2 D + W diag(t^2) W'),   D = diag(d),   d = h2 S / kappa + 1 - h2,

which leaves h2, s2 and what t depends on: no effects, whose correlations (SNPs in LD) and
funnels (the intercept as s2_e goes to 0, effects as their prior narrows) are what stops a
sampler. Given these few, the effects are normal, and drawn afterwards.

The n samples enter through Gram matrices G(h2) = [W y]' D^-1 [W y] and sum log d only. As
functions of log S, 1 / d and log d are smooth, whatever h2 is: their singularities lie at a
distance of pi from the real line. So all eigenvalues are replaced by some tens of
Chebyshev nodes, exactly to rounding, once for a data set; each evaluation costs nothing in n.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.generative.eigen import ModelData, check_names, check_r2d2, snp_widths, variances
from bayeslmm.numerics.chebyshev import lagrange, nodes_over
from bayeslmm.numerics.likelihood import LARGEST_H2
from bayeslmm.priors import R2D2, H2Prior, Horseshoe, Normal, SnpPrior

if TYPE_CHECKING:
    import pymc as pm

# Eigenvalues this small, relative to their mean, are 0 to any h2 that the likelihood tells from 1.
_ZERO = 1e-13
# Error of the interpolation, as a power of e: below the rounding of the sums.
_ACCURACY = 30
# Numbers of Gram matrices that are held at a time.
_CHUNK = 2**23
# With more SNPs than this, matrices of their size cost more than what they save.
_MOST_SNPS: dict[type, int] = {Normal: 50, Horseshoe: 100, R2D2: 100}


@dataclass(frozen=True)
class Nodes:
    """A data set, compressed to N eigenvalues.

    Attributes
    ----------
    s : ndarray, shape (N,)
        Eigenvalues over the mean of all: the nodes.
    weight : ndarray, shape (N,)
        How many eigenvalues each stands for (a sum of weights, n in total).
    gram : ndarray, shape (N, p + 1, p + 1)
        Cross-products of the columns of [W y] that each stands for.
    """

    s: np.ndarray
    weight: np.ndarray
    gram: np.ndarray


def compress(s: np.ndarray, columns: np.ndarray) -> Nodes:
    """Interpolate functions of log s, (n,), and sums over the rows of `columns`, (n, p + 1)."""
    positive = s > _ZERO
    t = np.log(s[positive])
    nodes = nodes_over(t, _ACCURACY)
    N = len(nodes)
    if len(t) <= N:
        rows = columns[:, :, None] * columns[:, None, :]
        return Nodes(np.where(positive, s, 0.0), np.ones(len(s)), rows)
    cardinal = np.zeros((len(s), N + 1))
    cardinal[positive, :N] = lagrange(nodes, t)
    cardinal[~positive, N] = 1
    gram = np.array([(columns.T * at_node) @ columns for at_node in cardinal.T])
    return Nodes(np.append(np.exp(nodes), 0.0), cardinal.sum(axis=0), gram)


def compressed(data: ModelData) -> Nodes:
    """The nodes of a model: covariates, standardised SNPs, phenotype."""
    columns = [data.C_rotated, data.X_rotated / data.snps.sd, data.y_rotated]
    return compress(data.S / data.kappa, np.column_stack(columns))


def is_collapsible(data: ModelData, snp_prior: SnpPrior, priors: Mapping[str, Any]) -> bool:
    """Whether effects are normal given the rest, and integrating them out is worth its cost."""
    k = len(data.snps.ids)
    if "b" in priors or "beta_std" in priors:
        return False
    if isinstance(snp_prior, R2D2) and k and "sd" in priors:
        return False
    return k <= _MOST_SNPS.get(type(snp_prior), k)


def collapsed_model(
    data: ModelData, h2_prior: H2Prior, snp_prior: SnpPrior, priors: Mapping[str, Any]
) -> pm.Model:
    """The PyMC model of h2, the variances and the scales of the SNP effects.

    The prior standard deviations of all effects are the variable ``effect_sd``, in units of
    the phenotype per covariate, and per standard deviation of a SNP.
    """
    import pymc as pm
    import pytensor.tensor as pt

    check_names(priors, n_snps=len(data.snps.ids))
    nodes = compressed(data)
    k, p = len(data.snps.ids), nodes.gram.shape[1] - 1
    coords = {"covariate": data.covariates, "snp": data.snps.ids}
    with pm.Model(coords=coords) as model:
        s = pm.Data("node", nodes.s)
        weight = pm.Data("node_weight", nodes.weight)
        gram = pm.Data("gram", nodes.gram.reshape(len(nodes.s), -1))
        n = pm.Data("n", float(len(data.y)))
        kappa = pm.Data("kappa", data.kappa)
        sd_y = pm.Data("sd_y", data.sd_y)
        effect_sd = pm.Data("b_sd", 10 * data.sd_y / data.C_scale)

        if k and isinstance(snp_prior, R2D2):
            check_r2d2(h2_prior, priors)
            effect_sd = pt.concatenate([effect_sd, _r2d2_sds(snp_prior, sd_y, kappa, k)])
        else:
            sd, _, _ = variances(h2_prior, priors, sd_y, kappa)
            if k:
                width = snp_widths(snp_prior) * pt.ones(k)
                effect_sd = pt.concatenate([effect_sd, sd * width])
        pm.Deterministic("effect_sd", effect_sd)

        # log N(y; 0, s2 D + W diag(effect_sd^2) W'), by the matrix determinant lemma.
        h2, s2 = model["h2"], model["s2"]
        d = h2 * s + pt.maximum(1 - h2, 1 - LARGEST_H2)
        G = pt.dot(1 / d, gram).reshape((p + 1, p + 1))
        scale = effect_sd / pt.sqrt(s2)
        L = pt.linalg.cholesky(pt.eye(p) + scale[:, None] * G[:p, :p] * scale)
        z = pt.linalg.solve_triangular(L, scale * G[:p, p], lower=True)
        logdet = n * pt.log(s2) + pt.dot(weight, pt.log(d)) + 2 * pt.log(pt.diagonal(L)).sum()
        explained = pt.dot(z, z)
        pm.Potential("y", -0.5 * (logdet + (G[p, p] - explained) / s2))
    return model


def _r2d2_sds(prior: R2D2, sd_y: Any, kappa: Any, k: int) -> Any:
    """Sample log s2, logit h2 and the log variance of each SNP over s2.

    These the data tell apart, while sd, r2 and share each depend on all of them. They have
    the density of the log variances of all parts: SNPs, polygenic, residual. With T the
    genetic and V the total variance, it is the prior of sd, r2 and share times the product
    of all k + 2 parts over 2 T^k V^(3/2).
    """
    import pymc as pm
    import pytensor.tensor as pt
    from pytensor.tensor.special import logsumexp

    log_s2, logit_h2 = pm.Flat("log_s2"), pm.Flat("logit_h2")
    log_snp = pm.Flat("log_snp", dims="snp", initval=np.full(k, np.log(0.2 / k)))
    polygenic, residual = -pt.softplus(-logit_h2), -pt.softplus(logit_h2)
    log_part = log_s2 + pt.concatenate([log_snp, pt.stack([polygenic, residual])])
    genetic = log_part[:-1]
    log_T, log_V = logsumexp(genetic), logsumexp(log_part)
    sd = pm.Deterministic("sd", sd_y * pt.exp(log_V / 2))
    pm.Deterministic("r2", pt.exp(log_T - log_V))
    pm.Deterministic("share", pt.exp(genetic - log_T))
    weights = np.append(np.full(k, prior.concentration), prior.polygenic)
    log_prior = (
        pm.logp(pm.HalfStudentT.dist(nu=4, sigma=sd_y), sd)
        + (prior.a - 1) * (log_T - log_V)
        + (prior.b - 1) * (log_part[-1] - log_V)
        + ((weights - 1) * (genetic - log_T)).sum()
    )
    pm.Potential("prior", log_prior + log_part.sum() - k * log_T - 1.5 * log_V)
    part = sd_y**2 * pt.exp(log_part)
    pm.Deterministic("s2_g", part[k] / kappa)
    pm.Deterministic("s2_e", part[k + 1])
    pm.Deterministic("s2", sd_y**2 * pt.exp(log_s2))
    pm.Deterministic("h2", pt.sigmoid(logit_h2))
    return pt.sqrt(part[:k])


def draw_effects(
    data: ModelData, draws: Mapping[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """b, and with SNPs beta and beta_std, given draws of all else: exact.

    Parameters
    ----------
    data : ModelData
        The data.
    draws : mapping of ndarray, shapes (..., *)
        h2, s2, sd and effect_sd (covariates, then SNPs) of any number of draws.
    rng : Generator
        Where the randomness comes from.
    """
    shape = draws["h2"].shape
    p = draws["effect_sd"].shape[-1]
    h2, s2 = draws["h2"].reshape(-1), draws["s2"].reshape(-1)
    effect_sd = np.broadcast_to(draws["effect_sd"], (*shape, p)).reshape(-1, p)
    effects = np.empty(effect_sd.shape)
    for part, G in _grams(compressed(data), h2):
        scale = effect_sd[part] / np.sqrt(s2[part, None])
        A = np.eye(p) + scale[:, :, None] * G[:, :p, :p] * scale[:, None, :]
        L = np.linalg.cholesky(A)
        half = np.linalg.solve(L, (scale * G[:, :p, p] / np.sqrt(s2[part, None]))[..., None])
        half += rng.standard_normal(half.shape)
        effects[part] = effect_sd[part] * np.linalg.solve(L.mT, half)[..., 0]
    effects = effects.reshape(*shape, p)
    c = len(data.covariates)
    found = {"b": data.raw_effects(effects[..., :c])}
    if p > c:
        found["beta"] = effects[..., c:] / data.snps.sd
        found["beta_std"] = effects[..., c:] / draws["sd"][..., None]
    return found


def _grams(nodes: Nodes, h2: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """G(h2) of all draws, in pieces that bound memory."""
    flat = nodes.gram.reshape(len(nodes.s), -1)
    step = max(1, _CHUNK // flat.shape[1])
    for start in range(0, len(h2), step):
        part = slice(start, start + step)
        h = h2[part, None]
        d = h * nodes.s + np.maximum(1 - h, 1 - LARGEST_H2)
        yield part, (1 / d @ flat).reshape(-1, *nodes.gram.shape[1:])
