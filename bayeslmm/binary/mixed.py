r"""The null model of a case/control phenotype in related samples.

    logit P(y_i = 1 | u) = C_i b + u_i,   u ~ N(0, tau K)

fitted once by penalised quasi-likelihood (PQL), as GMMAT and SAIGE do: given the linear
predictor eta, the working phenotype Y = eta + (y - mu) / w is that of a linear mixed model with
the covariance S = W^-1 + tau K, W = diag(mu (1 - mu)). At its solution

    eta = C b + tau K (y - mu),   C'(y - mu) = 0,

and tau solves the restricted score equation of that model,

    Y'P K P Y = tr(P K),   P = S^-1 - S^-1 C (C'S^-1 C)^-1 C'S^-1,

found by a step of average information (AI-REML), then by secants of tau times the slope. A
variant x has the score T = x'(y - mu) with variance x'P x.

The tails of T. At the solution y - mu = P Y, so that to first order

    T = a'(y - mu0) + (P x)'u,   a = W^-1 P x,

with independent labels y given the true mu0, and u normal. The first part has the cumulants of
a sum of Bernoulli variables with the weights a, the second is normal with what is left of the
variance, x'P x - a'W a (`numerics.saddlepoint`). SAIGE scales the score of independent labels
instead, which carries a score near the end of its range beyond it: four related carriers, all
cases, would have p = 1e-19.

PQL's tau is biased towards 0 for binary data, more so with few cases (Breslow & Lin 1995,
Biometrika 82:81): it is what a test needs to be calibrated, and no estimate of a
heritability.

References
----------
Chen H et al. (2016). Control for population structure and relatedness for binary traits in
genetic association studies via logistic mixed models. Am J Hum Genet 98:653.
doi:10.1016/j.ajhg.2016.02.012
Zhou W et al. (2018). Efficiently controlling for case-control imbalance and sample relatedness
in large-scale genetic association studies. Nat Genet 50:1335. doi:10.1038/s41588-018-0184-y
Breslow NE, Clayton DG (1993). Approximate inference in generalized linear mixed models. J Am
Stat Assoc 88:9. doi:10.1080/01621459.1993.10594284
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bases.basis import dense_vectors
from bayeslmm.binary.logistic import NullLogistic, fit_null, loglik, probabilities
from bayeslmm.errors import InputError
from bayeslmm.runs.memory import require_memory

if TYPE_CHECKING:
    from bayeslmm.model.lmm import LMM

_STEPS = 100
_INNER_STEPS = 100
# Relative change of tau, and change of the linear predictor, at convergence.
_TAU = 1e-6
_ETA = 1e-7
# tau kappa below this is none: a genetic variance of the logit of a thousandth.
_NONE = 1e-6


@dataclass(frozen=True, eq=False)
class NullMixed:
    """A fitted null model with relatedness.

    Attributes
    ----------
    tau : float
        Variance of u per unit of K (log odds squared).
    kappa : float
        Mean diagonal of K as it was decomposed: tau kappa is the mean variance of u.
    u : ndarray, shape (n,)
        Random effects at their mode, log odds.
    null : NullLogistic
        Covariates, probabilities and weights at the solution; u is its offset.
    P : ndarray, shape (n, n)
        The covariance of the scores, covariates projected out.
    steps : int
        Steps of tau until convergence.
    """

    tau: float
    kappa: float
    u: np.ndarray
    null: NullLogistic
    P: np.ndarray
    steps: int

    def variance(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x'P x and P x of variants in rows, (v,) and (v, n)."""
        # Without u: x is orthogonal to the covariates under these weights.
        Px = x * self.null.w if self.tau == 0 else x.astype(self.P.dtype) @ self.P
        return np.einsum("ij,ij->i", x, Px, dtype=np.float64), Px

    def account(self) -> dict[str, Any]:
        """What a table says of the null model."""
        return {
            "null_model": "logistic mixed model, PQL with AI-REML",
            "tau": self.tau,
            "tau_kappa": self.tau * self.kappa,
            "tau_note": (
                "variance of the random effect on the log-odds scale; PQL is biased towards 0 for "
                "binary data: no heritability"
            ),
            "tau_steps": self.steps,
        }


def fit_null_mixed(model: LMM, y: np.ndarray) -> NullMixed:
    """Fit the null model of an LMM's samples, covariates and kernel.

    Parameters
    ----------
    model : LMM
        With a kernel.
    y : ndarray, shape (n,)
        1 for cases, 0 for controls.

    Raises
    ------
    InputError
        If memory does not suffice, covariates separate cases from controls, or the fit does
        not converge.
    """
    basis = model.basis
    assert basis is not None
    n = len(y)
    require_memory(8.0 * n * n * 4, f"The mixed model of {n:,} cases and controls")
    U = dense_vectors(basis, "The mixed model of cases and controls")
    return fit_pql(y, model.C.to_numpy(dtype=np.float64), (U * basis.values) @ U.T,
                   names=list(model.C.columns))  # fmt: skip


def fit_pql(
    y: np.ndarray, C: np.ndarray, K: np.ndarray, *, names: list[str] | None = None
) -> NullMixed:
    """PQL with AI-REML; see the module.

    Parameters
    ----------
    y : ndarray, shape (n,)
    C : ndarray, shape (n, c)
    K : ndarray, shape (n, n)
    names : list of str, optional
        Covariates, for messages.
    """
    start = fit_null(y, C, names or ())
    kappa = float(np.trace(K)) / len(y)
    fit = _Working(y, C, K, start)
    tau, low, high, moved = 0.0, 0.0, np.inf, 1.0
    last_tau, last = 0.0, 0.0
    for step in range(1, _STEPS + 1):
        # The linear predictor need not be better than what the step of tau does to it.
        fit.solve(tau, tolerance=float(np.clip(0.01 * moved, _ETA, 0.01)))
        slope = fit.reml_slope()
        if (tau == 0 and slope <= 0) or moved <= _TAU or high <= _NONE / kappa:
            break
        # The slope changes its sign once: every step stays between the ends of a bracket.
        low, high = (max(low, tau), high) if slope > 0 else (low, min(high, tau))
        # tau times the slope is nearly a straight line where its root is.
        now = tau * slope
        if step == 1:
            new = 1 / kappa
        elif step == 2:
            new = tau + slope / fit.average_information()
        else:
            new = tau - now * (tau - last_tau) / (now - last) if now != last else tau
        if not low < new < high:
            new = 0.5 * (low + high) if np.isfinite(high) else 2 * tau
        new = min(new, 3 * tau) if tau > 0 else new
        moved = abs(new - tau) / max(new, _NONE / kappa)
        tau, last_tau, last = new, tau, now
    else:
        raise InputError(
            f"The mixed model of cases and controls did not converge in {_STEPS} steps (tau is "
            f"between {low:.4g} and {high:.4g}). Are there too few cases for the covariates?"
        )
    if high <= _NONE / kappa and tau > 0:
        tau = 0.0
        fit.solve(tau, tolerance=_ETA)
    null = replace(
        start,
        gamma=fit.gamma,
        b=fit.b,
        b_se=fit.b_se,
        offset=fit.u,
        eta=fit.eta,
        mu=fit.mu,
        w=fit.w,
        loglik=float(loglik(fit.eta, y)),
    )
    P = fit.projection().astype(np.float32) if tau > 0 else np.empty((0, 0), dtype=np.float32)
    return NullMixed(tau, kappa, fit.u, null, P, step)


class _Working:
    """The linear mixed model of the working phenotype, at its fixed point for a given tau."""

    def __init__(self, y: np.ndarray, C: np.ndarray, K: np.ndarray, start: NullLogistic) -> None:
        self.y, self.K, self.start = y, K, start
        # b of the covariates as given, from coefficients of the orthogonal ones.
        self.back = np.linalg.lstsq(C, start.Q, rcond=None)[0]
        self.eta, self.gamma = start.eta.copy(), start.gamma.copy()
        self.u, self.tau = np.zeros(len(y)), 0.0

    def solve(self, tau: float, *, tolerance: float) -> None:
        """Iterate eta = Q gamma + tau K (y - mu) to its fixed point by Fisher scoring."""
        from scipy.linalg import cho_factor

        Q, y = self.start.Q, self.y
        self.tau = tau
        for _ in range(_INNER_STEPS):
            self.mu = probabilities(self.eta.copy())
            self.w = np.maximum(self.mu * (1 - self.mu), 1e-12)
            working = self.eta + (y - self.mu) / self.w
            # S = W^-1/2 (I + tau W^1/2 K W^1/2) W^-1/2: well conditioned for any weights.
            root = np.sqrt(self.w)
            B = self.K * (tau * root[:, None] * root)
            B[np.diag_indices_from(B)] += 1
            self.factor = cho_factor(B, lower=True, overwrite_a=True, check_finite=False)
            sides = root[:, None] * np.column_stack([working, Q])
            solved = root[:, None] * _solve(self.factor, sides)
            SiQ = solved[:, 1:]
            information = Q.T @ SiQ
            self.gamma = np.linalg.solve(information, Q.T @ solved[:, 0])
            self.residual = solved[:, 0] - SiQ @ self.gamma  # P Y
            self.u = tau * (self.K @ self.residual)
            eta = Q @ self.gamma + self.u
            moved = float(np.abs(eta - self.eta).max())
            self.eta = self.eta + (eta - self.eta) * min(1.0, 5 / max(moved, 1e-300))
            if moved < tolerance:
                break
        else:
            raise InputError(
                f"The mixed model of cases and controls did not converge at tau = {tau:.4g}. "
                "Do covariates or families separate cases from controls?"
            )
        self.SiQ, self.information = SiQ, information
        self.b = self.back @ self.gamma
        covariance = self.back @ np.linalg.inv(information) @ self.back.T
        self.b_se = np.sqrt(np.diag(covariance))

    def reml_slope(self) -> float:
        """Slope of the restricted log-likelihood in tau: (Y'P K P Y - tr(P K)) / 2."""
        from scipy.linalg import lapack

        if self.tau == 0:
            trace = float(self.w @ np.diag(self.K))
            trace -= float(
                np.trace(np.linalg.solve(self.information, self.SiQ.T @ self.K @ self.SiQ))
            )
        else:
            # tr(P K) = (tr(P S) - tr(P W^-1)) / tau, which needs the diagonal of P only.
            inverse, _ = lapack.dtrtri(self.factor[0], lower=1)
            inverse = np.tril(inverse)
            inverse_diagonal = self.w * np.einsum("ij,ij->j", inverse, inverse)
            solved = np.linalg.solve(self.information, self.SiQ.T)
            diagonal = inverse_diagonal - np.einsum("ij,ji->i", self.SiQ, solved)
            n, c = self.SiQ.shape
            trace = (n - c - float((diagonal / self.w).sum())) / self.tau
        return 0.5 * (float(self.residual @ self.K @ self.residual) - trace)

    def average_information(self) -> float:
        """Y'P K P K P Y / 2."""
        KPy = self.K @ self.residual
        root = np.sqrt(self.w)
        solved = root * _solve(self.factor, root * KPy)
        solved -= self.SiQ @ np.linalg.solve(self.information, self.SiQ.T @ KPy)
        return 0.5 * float(KPy @ solved)

    def projection(self) -> np.ndarray:
        """P, shape (n, n)."""
        from scipy.linalg import lapack

        inverse, _ = lapack.dpotri(self.factor[0], lower=1)
        root = np.sqrt(self.w)
        inverse = (np.tril(inverse) + np.tril(inverse, -1).T) * root[:, None] * root
        return inverse - self.SiQ @ np.linalg.solve(self.information, self.SiQ.T)


def _solve(factor: tuple[np.ndarray, bool], b: np.ndarray) -> np.ndarray:
    from scipy.linalg import cho_solve

    return cho_solve(factor, b, check_finite=False)
