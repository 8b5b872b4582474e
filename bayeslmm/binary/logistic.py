r"""Logistic regression of one case/control phenotype on very many variants.

The null model, logit P(y = 1) = C b, is fitted once. Each variant is first made orthogonal to
the covariates under the null model's weights W = diag(mu (1 - mu)),

    x~ = x - C (C'WC)^-1 C'W x,

which leaves its effect in the full model what it is. Then

    U = x~'(y - mu),   I = x~'W x~,   z = U / sqrt(I)

is the score test of all variants from matrix products, U / I is where Newton's method begins,
and a block of variants takes its steps together: the linear predictors, gradients and
information matrices of all of them are a few products with the covariates.

Firth's penalty adds half the log determinant of the information to the log-likelihood. It has
a finite maximum where a variant separates cases from controls, and takes away the bias of low
counts.

References
----------
Firth D (1993). Bias reduction of maximum likelihood estimates. Biometrika 80:27.
doi:10.1093/biomet/80.1.27
Heinze G, Schemper M (2002). A solution to the problem of separation in logistic regression.
Stat Med 21:2409. doi:10.1002/sim.1047
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bayeslmm.errors import InputError, listing

# Numbers of a piece of a block that stay in the processor's cache through a step.
_PIECE = 2**17
_STEPS = 12
_FIRTH_STEPS = 100
# Newton's decrement, the squared step in standard errors, at which the step is the last one:
# what is left after it is of the order of its square.
_DECREMENT = 1e-10
_FIRTH_DECREMENT = 1e-11
# No coefficient moves by more than this per step, on the scale of the linear predictor.
_LONGEST = 5.0
_SEPARATED = 1e-6
# A log odds ratio between the extreme genotypes beyond which there is no finite maximum.
_INFINITE = 15.0


def probabilities(eta: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-eta)), in place."""
    np.negative(eta, out=eta)
    with np.errstate(over="ignore"):
        np.exp(eta, out=eta)
    eta += 1
    return np.reciprocal(eta, out=eta)


@dataclass(frozen=True, eq=False)
class NullLogistic:
    """A fitted logistic regression on covariates, and what tests of variants share.

    Attributes
    ----------
    y : ndarray, shape (n,)
        1 for cases, 0 for controls.
    Q : ndarray, shape (n, c)
        The covariates, made orthogonal, each column with mean square 1.
    gamma : ndarray, shape (c,)
        Coefficients of Q.
    b, b_se : ndarray, shape (c,)
        Coefficients of the covariates as given (log odds per unit), standard errors.
    offset : ndarray, shape (n,)
        Part of the linear predictor that is not estimated; zeros by default.
    eta, mu, w : ndarray, shape (n,)
        Linear predictor, probability of being a case, mu (1 - mu).
    loglik : float
    steps : int
        Newton steps until convergence.
    """

    y: np.ndarray
    Q: np.ndarray
    gamma: np.ndarray
    b: np.ndarray
    b_se: np.ndarray
    offset: np.ndarray
    eta: np.ndarray
    mu: np.ndarray
    w: np.ndarray
    loglik: float
    steps: int

    @cached_property
    def pairs(self) -> np.ndarray:
        """Products of two columns of Q, shape (n, c (c + 1) / 2)."""
        first, second = np.tril_indices(self.Q.shape[1])
        return self.Q[:, first] * self.Q[:, second]

    @cached_property
    def pair_of(self) -> np.ndarray:
        """Which column of `pairs` is the product of columns i and j, shape (c, c)."""
        c = self.Q.shape[1]
        index = np.empty((c, c), dtype=np.intp)
        first, second = np.tril_indices(c)
        index[first, second] = index[second, first] = np.arange(len(first))
        return index

    @cached_property
    def projector(self) -> np.ndarray:
        """W Q (Q'WQ)^-1, shape (n, c): x @ projector are the coefficients of x on Q."""
        WQ = self.w[:, None] * self.Q
        return np.linalg.solve(self.Q.T @ WQ, WQ.T).T

    def project(self, x: np.ndarray) -> np.ndarray:
        """Variants in rows (v, n) less what the covariates explain, under the weights w."""
        return x - (x @ self.projector) @ self.Q.T

    def score(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """U and I of projected variants (v, n)."""
        return x @ (self.y - self.mu), np.square(x) @ self.w


def fit_null(
    y: np.ndarray,
    C: np.ndarray,
    names: Sequence[str] = (),
    *,
    offset: np.ndarray | None = None,
) -> NullLogistic:
    """Maximum-likelihood logistic regression on covariates.

    Parameters
    ----------
    y : ndarray, shape (n,)
        1 for cases, 0 for controls.
    C : ndarray, shape (n, c)
        Covariates with the intercept, of full column rank.
    names : sequence of str
        Their names, for messages.
    offset : ndarray, shape (n,), optional
        Added to the linear predictor.

    Raises
    ------
    InputError
        If covariates separate cases from controls, so that no maximum is finite; they
        are named.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([0.0, 0, 0, 1])
    >>> fit_null(y, np.ones((4, 1))).b.round(4)
    array([-1.0986])
    """
    n = len(y)
    Q, R = np.linalg.qr(C)
    Q, R = Q * np.sqrt(n), R / np.sqrt(n)
    offset = np.zeros(n) if offset is None else offset
    gamma = np.zeros(Q.shape[1])
    for step in range(1, 51):
        eta = offset + Q @ gamma
        mu = probabilities(eta.copy())
        w = mu * (1 - mu)
        gradient = Q.T @ (y - mu)
        information = (Q * w[:, None]).T @ Q
        try:
            move = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            break
        decrement = float(gradient @ move)
        if not np.isfinite(decrement) or np.abs(eta).max() > 30:
            break
        longest = np.abs(Q @ move).max()
        gamma = gamma + move * min(1.0, _LONGEST / max(longest, 1e-300))
        if decrement < 1e-20 * n:
            _refuse_separation(y, C, names, mu)
            R_inv = np.linalg.inv(R)
            covariance = R_inv @ np.linalg.inv(information) @ R_inv.T
            return NullLogistic(
                y, Q, gamma, R_inv @ gamma, np.sqrt(np.diag(covariance)), offset, eta, mu, w,
                float(loglik(eta, y)), step,
            )  # fmt: skip
    _refuse_separation(y, C, names, None)
    raise InputError(
        "The logistic regression on the covariates did not converge in 50 steps. Covariates of "
        "very different size or nearly collinear ones cause this: scale them, or leave one out."
    )


def loglik(eta: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log-likelihood of linear predictors (..., n), shape (...)."""
    return -np.logaddexp(0, np.where(y > 0, -eta, eta)).sum(axis=-1)


def _refuse_separation(
    y: np.ndarray, C: np.ndarray, names: Sequence[str], mu: np.ndarray | None
) -> None:
    """Raise an `InputError` if a combination of covariates separates the classes.

    A direction b is sought with (2 y - 1) C b >= 0 everywhere and > 0 somewhere, by
    linear programming (Konis 2007, Computational algorithms for detecting data separation
    in logistic regression). Without fitted probabilities next to 0 or 1 there is none.
    """
    if mu is not None and np.minimum(mu, 1 - mu).min() > _SEPARATED:
        return
    part = separating(y, C)
    if not len(part):
        return
    # One that does it by itself, with the intercept, says more than a combination.
    alone = [j for j in part if len(separating(y, np.column_stack([np.ones(len(y)), C[:, j]])))]
    labels = [names[int(j)] if len(names) else f"covariate {j + 1}" for j in alone or part]
    shown = [label for label in labels if label not in ("Intercept", "1")] or labels
    raise InputError(
        f"Covariates separate cases from controls, wholly or in part: {listing(shown)}. Their odds "
        "ratio is infinite, and there is no fit. Is one of them another name of the phenotype? "
        "Leave it out, or merge rare levels."
    )


def separating(y: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Columns of C in a combination that separates the classes; none if there is no such."""
    from scipy.optimize import linprog

    sided = (2 * y - 1)[:, None] * (C / np.abs(C).max(axis=0))
    found = linprog(-sided.sum(axis=0), A_ub=-sided, b_ub=np.zeros(len(y)), bounds=(-1, 1))
    if found.status != 0 or -found.fun <= 1e-7 * len(y):
        return np.empty(0, dtype=np.intp)
    return np.flatnonzero(np.abs(found.x) > 1e-7)


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of variants in models of their own.

    Attributes
    ----------
    beta, se : ndarray, shape (v,)
        Log odds ratio per unit of x, and its standard error from the information.
    converged : ndarray of bool, shape (v,)
    """

    beta: np.ndarray
    se: np.ndarray
    converged: np.ndarray


def pieces(v: int, n: int) -> Iterator[slice]:
    """Rows of a block in pieces that stay in the cache."""
    step = max(1, _PIECE // n)
    for start in range(0, v, step):
        yield slice(start, min(start + step, v))


def fit_effects(null: NullLogistic, x: np.ndarray) -> Effects:
    """Maximum-likelihood effects of projected variants, (v, n), each in a model of its own.

    Newton's method from the score step, for all variants together. The few that it does not
    bring to their maximum start again from 0 and take steps that go up; `converged` says
    which have one.
    """
    v, n = x.shape
    c = null.Q.shape[1]
    out = Effects(np.full(v, np.nan), np.full(v, np.nan), np.zeros(v, dtype=bool))
    for piece in pieces(v, n):
        rows = np.arange(piece.start, piece.stop)
        theta = np.empty((len(rows), c + 1))
        U, information = null.score(x[rows])
        theta[:, :c] = null.gamma
        with np.errstate(divide="ignore", invalid="ignore"):
            theta[:, c] = np.where(information > 0, U / information, 0)
        for _ in range(_STEPS):
            gradient, hessian = _derivatives(null, x[rows], theta)
            move, decrement, se = _newton(gradient, hessian)
            theta += move
            done = decrement < _DECREMENT
            if done.any():
                at = rows[done]
                out.beta[at], out.se[at] = theta[done, c], se[done]
                out.converged[at] = True
            rows, theta = rows[~done], theta[~done]
            theta, rows = theta[np.isfinite(theta).all(1)], rows[np.isfinite(theta).all(1)]
            if not len(rows):
                break
    again = np.flatnonzero(~out.converged)
    for piece in pieces(len(again), n):
        rows = again[piece]
        start = np.zeros((len(rows), c + 1))
        start[:, :c] = null.gamma
        theta, _, information, done = _maximise(null, x[rows], start, c + 1, penalty=False)
        at = rows[done]
        out.beta[at] = theta[done, c]
        out.se[at] = np.sqrt(_inverse(information[done])[:, c, c])
        out.converged[at] = True
    large = np.flatnonzero(np.abs(out.beta) > 1)
    infinite = np.abs(out.beta[large]) * np.ptp(x[large], axis=1) > _INFINITE
    out.converged[large[infinite]] = False
    return out


def _newton(gradient: np.ndarray, hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps (v, k), their squares in standard errors, and the last coefficient's SE, (v,)."""
    k = gradient.shape[1]
    sides = np.zeros((*gradient.shape, 2))
    sides[:, :, 0], sides[:, k - 1, 1] = gradient, 1
    # A row whose information has vanished has no step.
    bad = ~np.isfinite(hessian).all(axis=(1, 2)) | (
        np.diagonal(hessian, axis1=1, axis2=2) < 1e-12
    ).any(axis=1)
    if bad.any():
        hessian = np.where(bad[:, None, None], np.eye(k), hessian)
    try:
        solved = np.linalg.solve(hessian, sides)
    except np.linalg.LinAlgError:
        solved = np.linalg.pinv(hessian, hermitian=True) @ sides
    solved[bad] = np.nan
    move = solved[:, :, 0]
    with np.errstate(invalid="ignore"):
        se = np.sqrt(solved[:, k - 1, 1])
        decrement = np.einsum("ij,ij->i", gradient, move)
    return move, np.where(decrement < 0, np.inf, decrement), se


def _linear(null: NullLogistic, x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Linear predictors, (v, n)."""
    c = null.Q.shape[1]
    eta = theta[:, :c] @ null.Q.T
    eta += theta[:, c, None] * x
    if null.offset.any():
        eta += null.offset
    return eta


def _derivatives(
    null: NullLogistic, x: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (v, c + 1) and information (v, c + 1, c + 1) at theta (v, c + 1)."""
    mu = probabilities(_linear(null, x, theta))
    w = mu * mu
    np.subtract(mu, w, out=w)
    residual = np.subtract(null.y, mu, out=mu)
    c = null.Q.shape[1]
    gradient = np.empty((len(x), c + 1))
    gradient[:, :c] = residual @ null.Q
    gradient[:, c] = np.einsum("ij,ij->i", residual, x)
    return gradient, _information(null, x, w)


def _information(null: NullLogistic, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    c = null.Q.shape[1]
    out = np.empty((len(x), c + 1, c + 1))
    out[:, :c, :c] = (w @ null.pairs)[:, null.pair_of]
    wx = w * x
    out[:, c, :c] = out[:, :c, c] = wx @ null.Q
    out[:, c, c] = np.einsum("ij,ij->i", wx, x)
    return out


# -- Firth's penalised likelihood --------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FirthEffects(Effects):
    """Effects by Firth's penalised likelihood.

    Attributes
    ----------
    lrt : ndarray, shape (v,)
        Twice the difference of the penalised log-likelihood to its maximum at beta = 0,
        where the penalty is still that of the full model; chi-squared with 1 df.
    """

    lrt: np.ndarray


def fit_firth(null: NullLogistic, x: np.ndarray) -> FirthEffects:
    """Firth's estimates and penalised likelihood ratios of projected variants, (v, n).

    The standard error is that of the (unpenalised) information at the estimate, as in
    logistf and plink2.
    """
    v, n = x.shape
    c = null.Q.shape[1]
    beta, se, lrt = (np.full(v, np.nan) for _ in range(3))
    converged = np.zeros(v, dtype=bool)
    for piece in pieces(v, n):
        rows = x[piece]
        start = np.zeros((len(rows), c + 1))
        start[:, :c] = null.gamma
        free, best, information, done = _maximise(null, rows, start, c + 1)
        _, at_zero, _, done_zero = _maximise(null, rows, start, c)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            inverse = _inverse(information)
            beta[piece], se[piece] = free[:, c], np.sqrt(inverse[:, c, c])
        lrt[piece] = np.maximum(2 * (best - at_zero), 0)
        converged[piece] = done & done_zero
    return FirthEffects(beta, se, converged, lrt)


def _inverse(information: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.inv(information)
    except np.linalg.LinAlgError:
        return np.linalg.pinv(information, hermitian=True)


def _maximise(
    null: NullLogistic, x: np.ndarray, start: np.ndarray, free: int, *, penalty: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Maximise over the first `free` coefficients: theta, value, information, converged.

    Scoring steps. One that goes down is halved; one that goes too far, so that the slope
    along it has turned, ends where the secant says that the slope is 0. (Information
    without the penalty's own curvature makes such steps at very low counts.)
    """
    v, k = start.shape
    theta, move = start.copy(), np.zeros((v, k))
    value, information = np.full(v, -np.inf), np.zeros((v, k, k))
    slope, length = np.full(v, np.inf), np.ones(v)
    converged = np.zeros(v, dtype=bool)
    active = np.arange(v)
    for _ in range(_FIRTH_STEPS):
        trial = theta[active] + length[active, None] * move[active]
        new, gradient, info = _penalised(null, x[active], trial, penalty=penalty)
        turned = np.einsum("ij,ij->i", gradient[:, :free], move[active, :free])
        down = ~(new >= value[active] - 1e-9 * np.abs(new))
        too_far = ~down & (turned < -0.3 * slope[active])
        at = active[too_far]
        length[at] *= slope[at] / (slope[at] - turned[too_far])
        length[active[down]] /= 2
        taken = ~down & ~too_far
        better = active[taken]
        theta[better], value[better], information[better] = trial[taken], new[taken], info[taken]
        solved = np.zeros((len(better), k))
        g = gradient[taken, :free]
        solved[:, :free] = (_inverse(info[taken][:, :free, :free]) @ g[:, :, None])[:, :, 0]
        decrement = np.einsum("ij,ij->i", g, solved[:, :free])
        longest = np.abs(solved).max(axis=1, initial=0)
        solved *= np.minimum(1, _LONGEST / np.maximum(longest, 1e-300))[:, None]
        move[better], length[better] = solved, 1.0
        slope[better] = np.einsum("ij,ij->i", g, solved[:, :free])
        converged[better[np.abs(decrement) < _FIRTH_DECREMENT]] = True
        active = active[~converged[active] & (length[active] > 1e-6)]
        if not len(active):
            break
    return theta, value, information, converged


def _penalised(
    null: NullLogistic, x: np.ndarray, theta: np.ndarray, *, penalty: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Penalised) log-likelihood (v,), its gradient (v, k) and the information (v, k, k)."""
    c = null.Q.shape[1]
    eta = _linear(null, x, theta)
    value = loglik(eta, null.y)
    mu = probabilities(eta)
    w = mu * (1 - mu)
    information = _information(null, x, w)
    residual = null.y - mu
    if penalty:
        value, residual = _with_penalty(null, x, mu, w, information, value, residual)
    gradient = np.empty_like(theta)
    gradient[:, :c] = residual @ null.Q
    gradient[:, c] = np.einsum("ij,ij->i", residual, x)
    return value, gradient, information


def _with_penalty(
    null: NullLogistic,
    x: np.ndarray,
    mu: np.ndarray,
    w: np.ndarray,
    information: np.ndarray,
    value: np.ndarray,
    residual: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood with half log|I|, and residuals whose products are its gradient."""
    c = null.Q.shape[1]
    inverse = _inverse(information)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = value + 0.5 * np.linalg.slogdet(information)[1]
    # Leverages h = w z' I^-1 z, z = (Q, x), from the products of two columns of Q.
    first, second = np.tril_indices(c)
    folded = inverse[:, first, second] * np.where(first == second, 1.0, 2.0)
    leverage = folded @ null.pairs.T
    leverage += 2 * x * (inverse[:, c, :c] @ null.Q.T)
    leverage += inverse[:, c, c, None] * x * x
    leverage *= w
    return value, residual + leverage * (0.5 - mu)
