"""Plain references with full matrices: no eigenbasis, no interpolation, nothing shared.

What bayeslmm computes on the eigenbasis is computed here from covariance matrices, in the
most obvious way that small n allows. Slow, and kept for ever: "fast equals dense".
"""

from dataclasses import dataclass
from math import log, pi

import numpy as np
from scipy import linalg, optimize, stats


@dataclass(frozen=True)
class Case:
    """One shape of problem: n samples, c covariates with the intercept, a kernel."""

    name: str
    n: int
    c: int
    kernel: str
    m: int = 0

    def make(self, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """y (n,), C (n, c) and K (n, n); h2 of the simulated y is 0.5."""
        rng = np.random.default_rng([seed, self.n, self.c])
        K = kernel(self.kernel, self.n, self.m, rng)
        C = np.column_stack([np.ones(self.n), rng.normal(2, 3, size=(self.n, self.c - 1))])
        V = centred(K) / np.trace(centred(K)) * self.n / 2 + np.eye(self.n) / 2
        y = C @ rng.normal(size=self.c) + np.linalg.cholesky(V) @ rng.normal(size=self.n)
        return y, C, K


CASES = [
    Case("n < m", 40, 2, "genotypes", 120),
    Case("n > m: rank-deficient", 40, 2, "genotypes", 15),
    Case("intercept only", 30, 1, "genotypes", 50),
    Case("five covariates", 35, 5, "genotypes", 70),
    Case("twenty covariates", 50, 20, "genotypes", 100),
    Case("twenty covariates, rank-deficient", 50, 20, "genotypes", 12),
    Case("negative off-diagonals", 40, 3, "negative"),
    Case("families: repeated eigenvalues", 40, 2, "families"),
    Case("large scale", 30, 2, "large"),
    Case("tiny scale", 30, 2, "tiny"),
]


def kernel(kind: str, n: int, m: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "genotypes":
        p = rng.uniform(0.1, 0.5, size=m)
        X = rng.binomial(2, p, size=(n, m)) - 2 * p
        return X @ X.T / m
    if kind == "negative":
        # Circulant, positive-definite; neighbours repel each other.
        return linalg.toeplitz([1.0, -0.45, *np.zeros(n - 3), -0.45][:n])
    if kind == "families":
        return linalg.block_diag(*[np.full((4, 4), 0.5) + 0.5 * np.eye(4)] * (n // 4))
    Z = rng.normal(size=(n, 2 * n))
    return Z @ Z.T * {"large": 1e8, "tiny": 1e-8}[kind]


def centred(K: np.ndarray) -> np.ndarray:
    M = np.eye(len(K)) - 1 / len(K)
    return M @ K @ M


def contrasts(C: np.ndarray) -> np.ndarray:
    """Orthonormal N (n, n - c) with N'C = 0: the restricted likelihood is that of N'y."""
    return linalg.qr(C)[0][:, C.shape[1] :]


def covariance(K: np.ndarray, s2_g: float, s2_e: float) -> np.ndarray:
    return s2_g * K + s2_e * np.eye(len(K))


def reml_loglik(y: np.ndarray, C: np.ndarray, V: np.ndarray) -> float:
    """Restricted log-likelihood: the density of orthonormal error contrasts."""
    N = contrasts(C)
    return float(stats.multivariate_normal(cov=N.T @ V @ N).logpdf(N.T @ y))


def ml_loglik(y: np.ndarray, C: np.ndarray, V: np.ndarray) -> float:
    b, _ = gls(y, C, V)
    return float(stats.multivariate_normal(mean=C @ b, cov=V).logpdf(y))


def gls(y: np.ndarray, C: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Generalised least squares: coefficients and their covariance."""
    Vinv = np.linalg.inv(V)
    covariance = np.linalg.inv(C.T @ Vinv @ C)
    return covariance @ C.T @ Vinv @ y, covariance


def ols(y: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ordinary least squares: coefficients, standard errors, two-sided p of t tests."""
    b, *_ = np.linalg.lstsq(X, y, rcond=None)
    df = len(y) - X.shape[1]
    s2 = np.sum((y - X @ b) ** 2) / df
    se = np.sqrt(s2 * np.diag(np.linalg.inv(X.T @ X)))
    return b, se, 2 * stats.t.sf(np.abs(b / se), df)


def profiled(
    y: np.ndarray, C: np.ndarray, K: np.ndarray, h2: float, kind: str = "reml"
) -> tuple[float, float]:
    """Log-likelihood at the best s2, and that s2; V = s2 (h2 K / kappa + (1 - h2) I)."""
    n, c = C.shape
    R = h2 * K / kappa_of(K, C) + (1 - h2) * np.eye(n)
    if kind == "reml":
        N = contrasts(C)
        z, M = N.T @ y, N.T @ R @ N
        s2 = z @ np.linalg.solve(M, z) / (n - c)
        return float(stats.multivariate_normal(cov=s2 * M).logpdf(z)), float(s2)
    b, _ = gls(y, C, R)
    e = y - C @ b
    s2 = e @ np.linalg.solve(R, e) / n
    return float(stats.multivariate_normal(mean=C @ b, cov=s2 * R).logpdf(y)), float(s2)


def has_intercept(C: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(np.column_stack([C, np.ones(len(C))])) == C.shape[1])


def kappa_of(K: np.ndarray, C: np.ndarray) -> float:
    """Mean diagonal of K, centred if C holds the intercept."""
    return float(np.trace(centred(K) if has_intercept(C) else K)) / len(K)


def integrated_loglik(
    y: np.ndarray, C: np.ndarray, K: np.ndarray, h2: float, nu: float = 0, scale: float = 0
) -> float:
    """log p(y | h2) by one-dimensional quadrature over log s2 of the contrasts' density."""
    N = contrasts(C)
    R = h2 * K / kappa_of(K, C) + (1 - h2) * np.eye(len(y))
    M, z = N.T @ R @ N, N.T @ y
    _, logdet = np.linalg.slogdet(M)
    df, Q = len(z), float(z @ np.linalg.solve(M, z))

    log_s2 = np.linspace(log(Q / df) - 12, log(Q / df) + 40, 40_001)
    s2 = np.exp(log_s2)
    log_f = -0.5 * (df * np.log(2 * pi * s2) + logdet + Q / s2)
    if nu:
        log_f += stats.invgamma(nu / 2, scale=nu * scale / 2).logpdf(s2) + log_s2
    top = log_f.max()
    return float(top + log(np.trapezoid(np.exp(log_f - top), log_s2)))


def optimum(
    y: np.ndarray,
    C: np.ndarray,
    K: np.ndarray,
    kind: str = "reml",
    log_range: tuple[float, float] = (-11.5, 11.5),
    kappa: float | None = None,
    points: int = 100,
) -> tuple[float, float]:
    """Best log(s2_g kappa / s2_e) by a grid and scipy's bounded search, and the loglik there.

    A kappa may be given: that of the null model, for a model with one more covariate.
    """
    n, c = C.shape
    R0 = K / (kappa or kappa_of(K, C))
    N = contrasts(C)
    z, M0 = N.T @ y, N.T @ R0 @ N

    def negative(t: float) -> float:
        r = np.exp(t)
        if kind == "reml":
            M = r * M0 + np.eye(n - c)
            Q = z @ np.linalg.solve(M, z)
            return 0.5 * (np.linalg.slogdet(M)[1] + (n - c) * (np.log(2 * pi * Q / (n - c)) + 1))
        R = r * R0 + np.eye(n)
        solved = np.linalg.solve(R, np.column_stack([y, C]))
        b = np.linalg.solve(C.T @ solved[:, 1:], C.T @ solved[:, 0])
        e = y - C @ b
        Q = e @ (solved[:, 0] - solved[:, 1:] @ b)
        return 0.5 * (np.linalg.slogdet(R)[1] + n * (np.log(2 * pi * Q / n) + 1))

    grid = np.linspace(*log_range, points)
    values = [negative(t) for t in grid]
    best = int(np.argmin(values))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, points - 1)]
    found = optimize.minimize_scalar(
        negative, bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    at = min([(found.fun, found.x), (values[0], grid[0]), (values[-1], grid[-1])])
    return float(at[1]), float(-at[0])


def variant_tests(
    y: np.ndarray,
    C: np.ndarray,
    K: np.ndarray,
    x: np.ndarray,
    log_range: tuple[float, float] = (float(np.log(1e-5)), float(np.log(1e5))),
) -> dict[str, float]:
    """Wald (REML), likelihood-ratio (ML) and score tests of one variant, each model refitted."""
    kappa = kappa_of(K, C)
    Kc = centred(K) if has_intercept(C) else K
    n, c = C.shape
    full = np.column_stack([C, x])
    df = n - c - 1

    def wald(t: float) -> tuple[float, float, float]:
        R = np.exp(t) * Kc / kappa + np.eye(n)
        b, cov = gls(y, full, R)
        e = y - full @ b
        se = np.sqrt(e @ np.linalg.solve(R, e) / df * cov[-1, -1])
        return b[-1], se, (np.log(2) + stats.t.logsf(abs(b[-1] / se), df)) / np.log(10)

    t, _ = optimum(y, full, Kc, "reml", log_range, kappa)
    beta, se, log10_wald = wald(t)
    # The full likelihood has no maximum: it grows to infinity at h2 = 1 where V is singular
    # along the intercept. Its proper optimum is close to that of the restricted one, or below 1.
    reml_t, _ = optimum(y, C, Kc, "reml", log_range, kappa)
    low, high = log_range
    null_t, null = optimum(y, C, Kc, "ml", (low, np.clip(reml_t + 1.5, 0, high)), kappa)
    _, alternative = optimum(y, full, Kc, "ml", (low, np.clip(t + 1.5, 0, high)), kappa)

    # Score test at the null model's ML ratio: n (x'Py)^2 / (y'Py x'Px), F(1, n - c - 1).
    R = np.exp(null_t) * Kc / kappa + np.eye(n)
    Rinv = np.linalg.inv(R)
    P = Rinv - Rinv @ C @ np.linalg.solve(C.T @ Rinv @ C, C.T @ Rinv)
    f = n * (x @ P @ y) ** 2 / ((y @ P @ y) * (x @ P @ x))
    return {
        "beta": beta,
        "se": se,
        "wald": log10_wald,
        "lrt": float(stats.chi2.logsf(max(2 * (alternative - null), 0), 1) / np.log(10)),
        "score": float((np.log(2) + stats.t.logsf(np.sqrt(f), df)) / np.log(10)),
        "p3d": wald(reml_t)[2],
        "l_remle": float(np.exp(t)) / kappa,
        "log_ratio": t,
    }


def pair_tests(
    y: np.ndarray,
    C: np.ndarray,
    K: np.ndarray,
    x: np.ndarray,
    z: np.ndarray,
    log_range: tuple[float, float] = (float(np.log(1e-5)), float(np.log(1e5))),
) -> dict[str, float]:
    """Wald F tests of z given x, and of both, at the REML optimum of the model with both."""
    kappa = kappa_of(K, C)
    Kc = centred(K) if has_intercept(C) else K
    n, c = C.shape
    full = np.column_stack([C, x, z])
    df = n - c - 2
    t, _ = optimum(y, full, Kc, "reml", log_range, kappa)
    R = np.exp(t) * Kc / kappa + np.eye(n)
    b, cov = gls(y, full, R)
    e = y - full @ b
    cov = cov * (e @ np.linalg.solve(R, e)) / df
    both, V = b[-2:], cov[-2:, -2:]
    f = both @ np.linalg.solve(V, both) / 2
    t_2 = abs(both[1]) / np.sqrt(V[1, 1])
    return {
        "beta": both[0],
        "se": np.sqrt(V[0, 0]),
        "beta_2": both[1],
        "se_2": np.sqrt(V[1, 1]),
        "covariance": V[0, 1],
        "second": (np.log(2) + stats.t.logsf(t_2, df)) / np.log(10),
        "joint": float(stats.f.logsf(f, 2, df) / np.log(10)),
        "l_remle": float(np.exp(t)) / kappa,
        "log_ratio": t,
    }


def random_effects(
    y: np.ndarray, C: np.ndarray, K: np.ndarray, s2_g: float, s2_e: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of u given y and the variances, flat prior on the coefficients."""
    V = covariance(K, s2_g, s2_e)
    Vinv = np.linalg.inv(V)
    P = Vinv - Vinv @ C @ np.linalg.solve(C.T @ Vinv @ C, C.T @ Vinv)
    return s2_g * K @ P @ y, s2_g * K - s2_g**2 * K @ P @ K


@dataclass(frozen=True)
class Brute:
    """Posterior by a grid over (h2, log s2): nodes and their probabilities."""

    h2: np.ndarray
    s2: np.ndarray
    weights: np.ndarray
    log_marginal: float
    b_mean: np.ndarray
    b_sd: np.ndarray

    def moments(self, values: np.ndarray) -> tuple[float, float]:
        mean = float(np.sum(self.weights * values))
        return mean, float(np.sqrt(np.sum(self.weights * (values - mean) ** 2)))


def brute_posterior(
    y: np.ndarray, C: np.ndarray, K: np.ndarray, log_prior=np.zeros_like, nodes: int = 200
) -> Brute:
    """Integrate p(y | h2, s2) p(h2) / s2 on a grid; the coefficients by their normal density.

    Flat priors are for coefficients of an orthonormal basis of C, as in
    bayeslmm.likelihood: the density is that of orthonormal contrasts.
    """
    n, c = C.shape
    Kc = centred(K) if has_intercept(C) else K
    t, w = np.polynomial.legendre.leggauss(nodes)
    h2 = (t + 1) / 2
    N = contrasts(C)
    z = N.T @ y
    log_s2 = np.log(y @ y / n) + np.linspace(-12, 22, 1021)
    log_f = np.empty((nodes, len(log_s2)))
    b, spread = np.empty((nodes, c)), np.empty((nodes, c))
    for i, h in enumerate(h2):
        R = h * Kc / kappa_of(K, C) + (1 - h) * np.eye(n)
        M = N.T @ R @ N
        Q = z @ np.linalg.solve(M, z)
        log_f[i] = -0.5 * ((n - c) * (log(2 * pi) + log_s2) + Q / np.exp(log_s2))
        log_f[i] -= 0.5 * np.linalg.slogdet(M)[1]
        b[i], cov = gls(y, C, R)
        spread[i] = np.diag(cov)
    log_f += (log_prior(h2) + np.log(w / 2))[:, None]
    top = log_f.max()
    f = np.exp(log_f - top)
    f[:, [0, -1]] /= 2
    total = f.sum()
    weights = f / total
    s2 = np.broadcast_to(np.exp(log_s2), f.shape)
    per_h2, s2_mean = weights.sum(axis=1), (weights * s2).sum(axis=1)
    b_mean = per_h2 @ b
    b_var = s2_mean @ spread + per_h2 @ (b - b_mean) ** 2
    return Brute(
        np.broadcast_to(h2[:, None], f.shape),
        s2,
        weights,
        float(top + log(total) + log(log_s2[1] - log_s2[0])),
        b_mean,
        np.sqrt(b_var),
    )


def cholesky_extended(A: np.ndarray) -> np.ndarray:
    """Cholesky factor in extended precision (80 bits on x86), for ill-conditioned matrices."""
    A = A.astype(np.longdouble)
    L = np.zeros_like(A)
    for j in range(len(A)):
        L[j, j] = np.sqrt(A[j, j] - L[j, :j] @ L[j, :j])
        L[j + 1 :, j] = (A[j + 1 :, j] - L[j + 1 :, :j] @ L[j, :j]) / L[j, j]
    return L


def reml_extended(y: np.ndarray, C: np.ndarray, K: np.ndarray, h2: float) -> float:
    """Profiled restricted log-likelihood in extended precision, V and all; h2 up to 1.

    K is used as given, not centred, so V stays positive-definite if K is.
    """
    n, c = C.shape
    big = np.longdouble
    K, y = K.astype(big), y.astype(big)
    h = big(h2)
    M = np.eye(n, dtype=big) - big(1) / n
    kappa = np.trace(M @ K @ M) / n
    V = h * K / kappa + (1 - h) * np.eye(n, dtype=big)
    L = cholesky_extended(V)
    Q, _ = np.linalg.qr(C)
    W = _forward(L, np.column_stack([Q.astype(big), y]))
    A = W[:, :c].T @ W[:, :c]
    LA = cholesky_extended(A)
    half = _forward(LA, W[:, :c].T @ W[:, c:])[:, 0]
    rss = W[:, c] @ W[:, c] - half @ half
    # The basis Q is orthonormal to double precision only: its own determinant.
    LQ = cholesky_extended(Q.astype(big).T @ Q.astype(big))
    logdet = 2 * sum(np.sum(np.log(np.diag(F))) * sign for F, sign in ((L, 1), (LA, 1), (LQ, -1)))
    df = n - c
    return float(-0.5 * (logdet + df * np.log(rss)) + 0.5 * df * (log(df) - log(2 * pi) - 1))


def _forward(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    X = np.zeros_like(B)
    for i in range(len(L)):
        X[i] = (B[i] - L[i, :i] @ X[:i]) / L[i, i]
    return X
