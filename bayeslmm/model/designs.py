"""What a study can tell about h2, from the eigenvalues of its relatedness alone, by simulation.

Phenotypes are drawn as independent contrasts (`model.intervals`): a thousand of them at every
node of h2 are one matrix product. Three intervals of each are compared with the truth: the
highest-density posterior interval, the confidence interval by inversion of the exact score test,
and the REML estimate +- 1.96 standard errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Eigenbasis
from bayeslmm.errors import InputError
from bayeslmm.model.intervals import NULLS, TOP, Nodes, expected_se, simulated_chi2
from bayeslmm.numerics.quadrature import unit_density
from bayeslmm.priors import H2Prior, as_h2_prior
from bayeslmm.relatedness.dense import GRM

TRUE_H2 = (0.0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.4, 0.5, 0.6, 0.75, 0.85, 0.95, 1.0)
INTERVALS = ("posterior", "rlrt", "reml")


@dataclass(frozen=True)
class Simulated:
    """Intervals of R simulated phenotypes at one true h2.

    Attributes
    ----------
    low, high : dict of ndarray, shape (R,)
        Ends of each interval of `INTERVALS`.
    estimate, mean, sd : ndarray, shape (R,)
        REML estimate; posterior mean and sd.
    log_bf : ndarray, shape (R,)
        Log Bayes factor of h2 > 0, under the prior's density, against h2 = 0.
    """

    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]
    estimate: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    log_bf: np.ndarray


class Study:
    """Everything about h2 that depends on the eigenvalues, prior and level, made once.

    Parameters
    ----------
    nodes : Nodes
        Of the eigenvalues of the contrasts.
    prior : H2Prior
        Of the posterior.
    level : float
        Of all intervals.
    nulls, seed : int
        Phenotypes behind the critical values, and the seed of their random numbers.
    """

    def __init__(
        self,
        nodes: Nodes,
        prior: H2Prior,
        level: float = 0.95,
        *,
        nulls: int = NULLS,
        seed: int = 0,
    ) -> None:
        if not 0 < level < 1:
            raise InputError(f"level must be between 0 and 1, but is {level:g}.")
        self.nodes, self.prior, self.level = nodes, prior, level
        middle = 0.5 * (nodes.h2[1:] + nodes.h2[:-1])
        self.edges = np.concatenate([[0], middle, [1]])
        below = unit_density(prior.log_density).cdf(middle)
        self.prior_mass = np.diff(np.concatenate([[0], below, [1]]))
        self.critical = nodes.critical(level, nulls, seed)
        self.se = expected_se(nodes.lam, nodes.coarse) @ nodes.upsample

    def simulate(self, true_h2: float, chi2: np.ndarray) -> Simulated:
        """Intervals of the phenotypes that chi-squared variables (R, nu) give at a true h2."""
        from scipy.special import ndtri

        h2, loglik = self.nodes.h2, self.nodes.loglik(chi2, true_h2)
        best, largest = _peaks(loglik), loglik.max(axis=1)
        estimate, se = (np.interp(best, np.arange(len(h2)), v) for v in (h2, self.se))
        reach = ndtri(0.5 + self.level / 2) * se
        loglik -= largest[:, None]
        mass = np.exp(loglik) * self.prior_mass
        total = mass.sum(axis=1)
        at_0 = np.exp(loglik[:, 0]) * self.prior.spike / (1 - self.prior.spike)
        mass /= (total + at_0)[:, None]
        mean = mass @ h2
        ends = {
            "posterior": _hdi(self.edges, mass, at_0 / (total + at_0), self.level),
            "rlrt": self._accepted(self.critical + 2 * loglik),
            "reml": (np.maximum(estimate - reach, 0.0), np.minimum(estimate + reach, 1.0)),
        }
        return Simulated(
            {name: low for name, (low, _) in ends.items()},
            {name: np.where(high >= TOP, 1.0, high) for name, (_, high) in ends.items()},
            estimate,
            mean,
            np.sqrt(np.maximum(mass @ h2**2 - mean**2, 0)),
            np.log(total) - loglik[:, 0],
        )

    def _accepted(self, margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest h2 of each row (R, F) with a margin of at least 0."""
        inside, last = margin >= 0, margin.shape[1] - 1
        first, final = inside.argmax(axis=1), last - inside[:, ::-1].argmax(axis=1)
        low = self._root(margin, first, np.maximum(first - 1, 0))
        return low, self._root(margin, final, np.minimum(final + 1, last))

    def _root(self, margin: np.ndarray, inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
        """h2 between an accepted node and a rejected one, linearly; or the same node twice."""
        rows = np.arange(len(margin))
        x, y = margin[rows, inner], margin[rows, outer]
        share = np.where(inner == outer, 0.0, x) / np.where(inner == outer, 1.0, x - y)
        return self.nodes.h2[inner] + share * (self.nodes.h2[outer] - self.nodes.h2[inner])


def _peaks(values: np.ndarray) -> np.ndarray:
    """Position of the maximum of each row (R, F), between columns by the parabola through three."""
    best, rows, last = values.argmax(axis=1), np.arange(len(values)), values.shape[1] - 1
    left, mid, right = (values[rows, np.clip(best + k, 0, last)] for k in (-1, 0, 1))
    bend = left - 2 * mid + right
    inside = (best > 0) & (best < last) & (bend < 0)
    return best + np.where(inside, 0.5 * (left - right) / np.where(inside, bend, 1.0), 0.0)


def _hdi(
    edges: np.ndarray, mass: np.ndarray, at_0: np.ndarray, prob: float
) -> tuple[np.ndarray, np.ndarray]:
    """Narrowest intervals that hold `prob` of each row: cells' masses (R, F), point masses (R,)."""
    cdf = np.concatenate([np.zeros((len(mass), 1)), at_0[:, None], mass], axis=1)
    cdf = np.cumsum(cdf, axis=1)
    cdf /= cdf[:, -1:]
    ends = np.concatenate([edges[:1], edges])
    low, high = np.empty(len(mass)), np.empty(len(mass))
    for r, row in enumerate(cdf):
        reachable = int(np.searchsorted(row, 1 - prob, side="right"))
        # The last interval ends at exactly 1.
        start = np.append(ends[:reachable], np.interp(1 - prob, row, ends))
        stop = np.append(np.interp(row[:reachable] + prob, row, ends), ends[-1])
        best = int(np.argmin(stop - start))
        low[r], high[r] = start[best], stop[best]
    return low, high


def coverage(
    spectrum: np.ndarray | Nodes,
    prior: Any = "uniform",
    *,
    true_h2: Iterable[float] = TRUE_H2,
    replicates: int = 1000,
    level: float = 0.95,
    nulls: int = NULLS,
    seed: int = 0,
) -> pd.DataFrame:
    """How often each interval for h2 holds the truth, and how wide it is, over true values.

    Parameters
    ----------
    spectrum : ndarray, shape (n - c,), or Nodes
        Eigenvalues of the contrasts, see `bayeslmm.model.intervals.contrast_eigenvalues`.
    prior : prior
        On h2, of the posterior interval.
    true_h2 : iterable of float
        In [0, 1].
    replicates : int
        Phenotypes simulated at each true value, from the same random numbers.
    level : float
        Of all intervals.
    nulls : int
        Other phenotypes simulated for the critical values of the test.
    seed : int
        Of the random numbers.

    Returns
    -------
    DataFrame
        One row per true_h2 and interval ("posterior": highest density; "rlrt": inversion of
        the restricted likelihood-ratio test; "reml": estimate and standard error): coverage,
        its Monte Carlo error mc_error, width (mean, in h2), too_high and too_low (share of
        intervals that lie above, below the truth), estimate_at_0 and estimate_at_1 (share of
        REML estimates on the boundary).

    Raises
    ------
    InputError
        For true values outside [0, 1] and fewer than 50 replicates.
    """
    truths = _truths(true_h2)
    _enough(replicates)
    nodes = spectrum if isinstance(spectrum, Nodes) else Nodes(np.asarray(spectrum, dtype=float))
    study = Study(nodes, as_h2_prior(prior), level, nulls=nulls, seed=seed)
    # Other random numbers than those of the critical values.
    chi2 = simulated_chi2(len(nodes.lam), replicates, np.random.default_rng([1, seed]))
    rows = []
    for truth in truths:
        found = study.simulate(truth, chi2)
        for name in INTERVALS:
            high, low = found.high[name] < truth, found.low[name] > truth
            covered = 1 - float(high.mean() + low.mean())
            rows.append(
                {
                    "true_h2": truth,
                    "interval": name,
                    "coverage": covered,
                    "mc_error": float(np.sqrt(covered * (1 - covered) / replicates)),
                    "width": float((found.high[name] - found.low[name]).mean()),
                    "too_high": float(low.mean()),
                    "too_low": float(high.mean()),
                    "estimate_at_0": float((found.estimate == 0).mean()),
                    "estimate_at_1": float((found.estimate >= TOP).mean()),
                }
            )
    table = pd.DataFrame(rows)
    table.attrs |= {
        "level": level,
        "replicates": replicates,
        "seed": seed,
        "contrasts": len(nodes.lam),
        "h2_prior": repr(study.prior),
    }
    return table


def _truths(true_h2: Iterable[float]) -> list[float]:
    truths = [float(h2) for h2 in np.atleast_1d(np.asarray(true_h2, dtype=np.float64))]
    if not truths or not all(0 <= h2 <= 1 for h2 in truths):
        raise InputError(f"true_h2 must be numbers from 0 to 1, but is {true_h2!r}.")
    return truths


def _enough(replicates: int) -> None:
    if replicates < 50:
        raise InputError(
            f"At least 50 replicates are needed to tell coverage, but replicates={replicates}."
        )


# -- planning ----------------------------------------------------------------------------------


def unrelated_eigenvalues(n: int, effective_snps: int = 50_000, *, seed: int = 0) -> np.ndarray:
    """Eigenvalues of the centred relatedness matrix of n unrelated people, ascending, (n - 1,).

    Drawn from the distribution of those of Z Z'/m for m independent SNPs (a Wishart matrix;
    Marchenko-Pastur in the limit), in its tridiagonal form: no matrix is made.

    Parameters
    ----------
    n : int
        People, at least 3.
    effective_snps : int
        Number of independent SNPs that would give off-diagonals of the same variance: 50,000
        for common SNPs in Europeans, whose off-diagonals have variance 2e-5.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray
        With mean 1.

    References
    ----------
    Dumitriu I, Edelman A (2002). Matrix models for beta ensembles. J Math Phys 43:5830.
    Visscher PM et al. (2014). Statistical power to detect genetic (co)variance of complex
    traits using SNP data in unrelated samples. PLoS Genet 10:e1004269.
    doi:10.1371/journal.pgen.1004269

    Examples
    --------
    >>> lam = unrelated_eigenvalues(1000, 2000)
    >>> print(f"{lam.var():.2f}")
    0.50
    """
    from scipy.linalg import eigvalsh_tridiagonal

    if n < 3 or effective_snps < 1:
        raise InputError(
            f"At least 3 people and 1 SNP are needed, but n={n}, effective_snps={effective_snps}."
        )
    # The eigenvalues are those of the smaller of Z Z' and Z'Z; the rest are 0.
    k, m = sorted((n - 1, int(effective_snps)))
    rng = np.random.default_rng(seed)
    diagonal = rng.chisquare(m - np.arange(k))
    below = rng.chisquare(np.arange(k - 1, 0, -1))
    off = np.sqrt(diagonal[:-1] * below)
    diagonal[1:] += below
    lam = np.concatenate([np.zeros(n - 1 - k), eigvalsh_tridiagonal(diagonal, off)])
    return np.sort(np.maximum(lam, 0) / lam.mean())


def family_eigenvalues(families: int, size: int, relatedness: float = 0.5) -> np.ndarray:
    """Eigenvalues of the centred relatedness matrix of families, ascending, (n - 1,).

    Parameters
    ----------
    families, size : int
        Number of families and of members of each.
    relatedness : float
        Of members of a family, in (0, 1): 0.5 for full sibs.

    Returns
    -------
    ndarray
        With mean 1.

    Examples
    --------
    >>> family_eigenvalues(2, 2).round(4)
    array([0.6, 0.6, 1.8])
    """
    if families < 2 or size < 2 or not 0 < relatedness < 1:
        raise InputError(
            "Families need at least 2 families of 2 members and a relatedness in (0, 1), but "
            f"are families={families}, size={size}, relatedness={relatedness:g}."
        )
    between = np.full(families - 1, 1 + (size - 1) * relatedness)
    lam = np.concatenate([np.full(families * (size - 1), 1 - relatedness), between])
    return lam / lam.mean()


def design(
    kernel: Eigenbasis | GRM | np.ndarray,
    true_h2: Iterable[float] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7),
    n: int | Sequence[int] | None = None,
    *,
    h2_prior: Any = "uniform",
    replicates: int = 500,
    level: float = 0.95,
    log10_bf: float = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """What a study would tell about h2: expected uncertainty, and power to exclude h2 = 0.

    It needs no phenotype: all follows from the eigenvalues of the relatedness. The only
    covariate is the intercept.

    Parameters
    ----------
    kernel : Eigenbasis, GRM, or array (nu,)
        Relatedness of the samples, or eigenvalues of its contrasts, as
        `unrelated_eigenvalues` and `family_eigenvalues` make them.
    true_h2 : iterable of float
        In [0, 1].
    n : int or several, optional
        Sizes of random subsets of the samples, by default all. Needs their matrix.
    h2_prior : prior
        Of the posterior and the Bayes factor.
    replicates : int
        Phenotypes simulated at each true value.
    level : float
        Of intervals and tests.
    log10_bf : float
        Bayes factor, log10, from which h2 = 0 counts as excluded.
    seed : int
        Of phenotypes and subsets.

    Returns
    -------
    DataFrame
        One row per n and true_h2: se (from the expected information), posterior_sd and
        posterior_width, rlrt_width (means over phenotypes), and the power to exclude h2 = 0:
        power_rlrt (by the restricted likelihood-ratio test, which is whether the confidence
        interval holds 0), power_posterior (by the posterior interval), power_bf (by the Bayes
        factor). At a true h2 of 0 power is the rate of false positives. `plots.design` draws
        it.

    Raises
    ------
    InputError
        For subsets without matrix, sizes that are not there, true values outside [0, 1].

    Examples
    --------
    >>> import bayeslmm as bl
    >>> sibs = bl.design(bl.family_eigenvalues(200, 2), true_h2=[0.5], replicates=100)
    >>> print(f"{sibs.se[0]:.2f}")
    0.13
    """
    truths = _truths(true_h2)
    _enough(replicates)
    prior = as_h2_prior(h2_prior)
    tables = []
    for size, lam in _spectra(kernel, n, seed):
        study = Study(Nodes(lam), prior, level, seed=seed)
        chi2 = simulated_chi2(len(lam), replicates, np.random.default_rng([1, seed]))
        for truth in truths:
            found = study.simulate(truth, chi2)
            width = {name: (found.high[name] - found.low[name]).mean() for name in INTERVALS}
            tables.append(
                {
                    "n": size,
                    "true_h2": truth,
                    "se": float(expected_se(lam, truth)),
                    "posterior_sd": found.sd.mean(),
                    "posterior_width": width["posterior"],
                    "rlrt_width": width["rlrt"],
                    "power_rlrt": (found.low["rlrt"] > 0).mean(),
                    "power_posterior": (found.low["posterior"] > 0).mean(),
                    "power_bf": (found.log_bf > log10_bf * np.log(10)).mean(),
                }
            )
    table = pd.DataFrame(tables)
    table.attrs |= {
        "level": level,
        "log10_bf": log10_bf,
        "replicates": replicates,
        "seed": seed,
        "h2_prior": repr(prior),
    }
    return table


def _spectra(
    kernel: Eigenbasis | GRM | np.ndarray, n: int | Sequence[int] | None, seed: int
) -> list[tuple[int, np.ndarray]]:
    """Sizes and the eigenvalues of their contrasts, with the intercept taken out."""
    if isinstance(kernel, np.ndarray) and kernel.ndim == 1:
        lam = np.asarray(kernel, dtype=np.float64)
        if n is not None:
            raise InputError(
                "Eigenvalues alone do not tell those of fewer samples: give the relatedness "
                "matrix (a GRM, or an eigenbasis that kept it), or one set for each n."
            )
        if len(lam) < 2 or not np.isfinite(lam).all() or (lam < 0).any() or not lam.any():
            raise InputError("Eigenvalues must be at least 2 finite numbers, none below 0.")
        return [(len(lam) + 1, np.sort(lam) / lam.mean())]
    grm = kernel.grm if isinstance(kernel, Eigenbasis) else kernel
    if isinstance(kernel, Eigenbasis) and n is None:
        lam = np.sort(np.asarray(kernel.values))[int(kernel.centered) :]
        return [(kernel.n, lam / kernel.kappa)]
    if not isinstance(grm, GRM):
        raise InputError(
            "design needs an Eigenbasis, a GRM, or a 1-d array of eigenvalues, and for subsets "
            f"of the samples the matrix itself; it got {type(kernel).__name__}."
        )
    ids = kernel.samples if isinstance(kernel, Eigenbasis) else grm.samples
    order = np.random.default_rng(seed).permutation(len(ids))
    sizes = [len(ids)] if n is None else [int(size) for size in np.atleast_1d(np.asarray(n))]
    found = []
    for size in sizes:
        if not 3 <= size <= len(ids):
            raise InputError(f"n must be from 3 to {len(ids):,} samples, but is {size:,}.")
        K = grm.subset(ids[np.sort(order[:size])]).matrix
        K = K - K.mean(axis=0) - K.mean(axis=1)[:, None] + K.mean()
        values = np.linalg.eigvalsh(K)[1:]
        found.append((size, np.maximum(values, 0) * size / np.trace(K)))
    return found
