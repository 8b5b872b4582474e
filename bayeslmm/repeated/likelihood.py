r"""Repeated measures: several records of an individual, with its permanent environment.

    y = C b + Z (u + p) + e,   u ~ N(0, s2_g K),   p ~ N(0, s2_p I),   e ~ N(0, s2_e I)

Z says whose each of the N records is; individual i of n has r_i of them. The records are
turned into n means and N - n deviations from them, which are independent of each other:

- deviations: independent, variance s2_e. They enter by their cross-products, (c + 1)^2
  numbers, whatever N is;
- means: covariance s2_g K + s2_p I + s2_e diag(1 / r).

With as many records for everybody (*balanced*) the means are diagonal on the eigenbasis of
K, with variances s2_g S + s2_p + s2_e / r: O(n) for each evaluation, as without repeats.

Else the likelihood takes a Cholesky factor, O(n^3), at each evaluation; `reml` does that
some dozens of times. Sampling avoids it: with R the largest r, the noise of a mean is
written as a part of variance s2_e / R, which is the same for all, and the rest

    w_i ~ N(0, s2_e (1 / r_i - 1 / R)),

a variable of its own for those with fewer than R records. Given w the means are balanced.
This is exact, and costs O(k n) for k such individuals. With total variance s2,

    h2 = s2_g kappa / s2,   repeatability = h2 + s2_p / s2,   s2 = s2_g kappa + s2_p + s2_e,

kappa being the mean diagonal of the K of these individuals, centred if the covariates span
the constant (which leaves the restricted likelihood as it is).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import log, pi
from typing import Any

import numpy as np

PARTS = ("genetic", "permanent", "residual")
_LARGEST_T = 1 - 1e-8


@dataclass(frozen=True)
class Summary:
    """Records of n individuals, without loss for the model.

    Attributes
    ----------
    counts : ndarray, shape (n,)
        Records of each individual, r.
    means : ndarray, shape (n, k)
        Their mean in each column.
    within : ndarray, shape (k, k)
        Cross-products of the deviations from the means, summed over records.
    """

    counts: np.ndarray
    means: np.ndarray
    within: np.ndarray

    @property
    def balanced(self) -> bool:
        """Whether everybody has as many records."""
        return bool(self.counts.min() == self.counts.max())


def summarise(X: np.ndarray, individual: np.ndarray, n: int) -> Summary:
    """Means and deviations of columns X (N, k); record j is of individual[j] < n."""
    counts = np.bincount(individual, minlength=n)
    sums = np.stack([np.bincount(individual, x, minlength=n) for x in X.T], axis=1)
    means = sums / counts[:, None]
    deviations = X - means[individual]
    return Summary(counts, means, deviations.T @ deviations)


@dataclass(frozen=True)
class Evaluation:
    """The restricted likelihood at one (t, f), the total variance at its best.

    Attributes
    ----------
    loglik : float
        With the constants of `likelihood.restricted_loglik`.
    gradient : ndarray, shape (2,)
        Derivatives in t and f.
    s2 : float
        Best total variance.
    d_log_s2 : ndarray, shape (2,)
        Derivatives of its logarithm.
    b, covariance : ndarray, shapes (c,) and (c, c)
        Generalised least-squares coefficients of the columns, and their covariance.
    """

    loglik: float
    gradient: np.ndarray
    s2: float
    d_log_s2: np.ndarray
    b: np.ndarray
    covariance: np.ndarray


class ShareLikelihood:
    """Restricted likelihood of the shares: t = 1 - residual share, f = genetic share of t.

    The covariance of the means is s2 [t (f K / kappa + (1 - f) I) + (1 - t) diag(1 / r)],
    that of deviations s2 (1 - t).

    Parameters
    ----------
    summary : Summary
        Of the columns of C and, last, y.
    s : ndarray, shape (n,)
        Eigenvalues of K over kappa.
    U : ndarray, shape (n, n)
        Eigenvectors of K.
    dense : bool
        Take the general way, O(n^3), even for balanced data.
    """

    def __init__(
        self, summary: Summary, s: np.ndarray, U: np.ndarray, *, dense: bool = False
    ) -> None:
        self.counts, self.W, self.s = summary.counts, summary.within, s
        self.diagonal = summary.balanced and not dense
        self.X = U.T @ summary.means if self.diagonal else summary.means
        self.K = None if self.diagonal else np.asfortranarray((U * s) @ U.T)
        self.df = int(self.counts.sum()) - (self.X.shape[1] - 1)

    def __call__(self, t: float, f: float) -> Evaluation:
        """Value, gradient and estimates at one point of the unit square."""
        X, W, n, c = self.X, self.W, len(self.s), self.X.shape[1] - 1
        e, noise = 1 - t, 1 / self.counts
        trace, slope = np.empty(2), np.empty((2, c + 1, c + 1))
        if self.K is None:
            d = t * (f * self.s + 1 - f) + e * noise
            logdet, Y = np.log(d).sum(), X / d[:, None]
            for j, dM in enumerate((f * self.s + 1 - f - noise, t * (self.s - 1))):
                trace[j], slope[j] = (dM / d).sum(), -(Y.T * dM) @ Y
        else:
            # All of SciPy's BLAS: two libraries in turn make each other's threads wait.
            from scipy.linalg.blas import dsymm
            from scipy.linalg.lapack import dpotrf, dpotri

            M = np.multiply(self.K, t * f, order="F")
            M[np.diag_indices(n)] += t * (1 - f) + e * noise
            L, info = dpotrf(M, lower=1, overwrite_a=1)
            assert info == 0
            logdet = 2 * np.log(np.diagonal(L)).sum()
            inverse = np.tril(dpotri(L, lower=1, overwrite_c=1)[0])
            Y = dsymm(1.0, inverse, X, lower=1)
            KY = dsymm(1.0, self.K, Y, lower=1)
            own = np.diagonal(inverse)
            trace_K = 2 * np.sum(inverse * self.K) - own @ np.diagonal(self.K)
            d_t = 1 - f - noise
            trace[:] = f * trace_K + own @ d_t, t * (trace_K - own.sum())
            slope[0] = -(f * Y.T @ KY + (Y.T * d_t) @ Y)
            slope[1] = -t * (Y.T @ KY - Y.T @ Y)
        N = int(self.counts.sum())
        G = X.T @ Y + W / e
        slope[0] += W / e**2
        trace[0] -= (N - n) / e
        covariance = np.linalg.inv(G[:c, :c])
        b = covariance @ G[:c, c]
        Q = float(G[c, c] - G[:c, c] @ b)
        v = np.append(-b, 1.0)
        dQ = np.array([v @ change @ v for change in slope]) / Q
        trace += [np.sum(covariance * change[:c, :c]) for change in slope]
        logdet += (N - n) * log(e) + np.log(self.counts).sum() + np.linalg.slogdet(G[:c, :c])[1]
        loglik = -0.5 * (logdet + self.df * log(Q)) + 0.5 * self.df * (
            log(self.df) - log(2 * pi) - 1
        )
        gradient = -0.5 * (trace + self.df * dQ)
        return Evaluation(loglik, gradient, Q / self.df, dQ, b, covariance)

    def maximise(self) -> tuple[float, float]:
        """Best (t, f): from every local maximum of a grid, bounded quasi-Newton steps."""
        from scipy.optimize import minimize

        if self.diagonal:
            t_grid = np.array([0.0, 0.01, 0.03, *np.linspace(0.07, 0.93, 14), 0.97, 0.99, 0.998])
            f_grid = np.linspace(0, 1, 15)
        else:
            t_grid, f_grid = np.array([0.05, 0.25, 0.5, 0.75, 0.95]), np.array([0.1, 0.5, 0.9])
        grid = np.array([[self(t, f).loglik for f in f_grid] for t in t_grid])
        around = np.pad(grid, 1, constant_values=-np.inf)
        neighbours = [around[2:, 1:-1], around[:-2, 1:-1], around[1:-1, 2:], around[1:-1, :-2]]
        tops = np.argwhere(grid >= np.max(neighbours, axis=0)).tolist()
        tops = sorted(tops, key=lambda at: -grid[at[0], at[1]])[:3]

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            at = self(float(x[0]), float(x[1]))
            return -at.loglik, -at.gradient

        fits = [
            minimize(
                objective,
                (t_grid[i], f_grid[j]),
                jac=True,
                method="L-BFGS-B",
                bounds=[(0, _LARGEST_T), (0, 1)],
                options={"ftol": 1e-15, "gtol": 1e-7, "maxls": 40},
            )
            for i, j in tops
        ]
        t, f = min(fits, key=lambda fit: fit.fun).x
        return (float(t), float(f)) if t > 0 else (0.0, 0.0)


def threads(n: int) -> AbstractContextManager[Any]:
    """One BLAS thread for small matrices, where many cost more than they bring."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1) if n <= 800 else nullcontext()


def curvature(function: ShareLikelihood, t: float, f: float) -> np.ndarray:
    """Second derivatives of the profiled log-likelihood in (t, f), from its gradient."""
    H = np.empty((2, 2))
    for j, (x, edge) in enumerate(((t, 1 - t), (f, 1 - f))):
        step = np.zeros(2)
        step[j] = 1e-4 * min(x, edge)
        ahead, behind = function(t + step[0], f + step[1]), function(t - step[0], f - step[1])
        H[j] = (ahead.gradient - behind.gradient) / (2 * step[j])
    return (H + H.T) / 2
