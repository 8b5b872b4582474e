"""Priors on h2, on shares of kernels and on SNP effects, each written in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import InputError, listing
from bayeslmm.numerics.quadrature import unit_density

if TYPE_CHECKING:
    from bayeslmm.bases.basis import Basis


@dataclass(frozen=True)
class H2Prior:
    """A prior on h2: a density on (0, 1), and optionally a point mass at 0.

    Attributes
    ----------
    log_density : callable
        Normalised log density of the continuous part at h2, shape (G,).
    name : str
        How it is written in results.
    spike : float
        Prior probability that h2 is exactly 0.
    parameters : (float, float) or None
        a and b if the density is Beta(a, b), for samplers that know it by name.
    """

    log_density: Callable[[np.ndarray], np.ndarray]
    name: str
    spike: float = 0.0
    parameters: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.spike < 1:
            raise InputError(
                f"The prior probability of h2 = 0 must be in [0, 1), but is {self.spike:g}."
            )

    def __repr__(self) -> str:
        if self.spike:
            return f"{self.spike:g} at 0 + {1 - self.spike:g} {self.name}"
        return self.name


def beta(a: float, b: float, *, spike: float = 0.0) -> H2Prior:
    """Beta(a, b) on h2, with probability `spike` of exactly 0.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> bl.priors.beta(2, 3, spike=0.5)
    0.5 at 0 + 0.5 Beta(2, 3)
    """
    if not (a > 0 and b > 0):
        raise InputError(f"Beta({a:g}, {b:g}) is no density: both parameters must be above 0.")
    return H2Prior(partial(_log_beta, a, b), f"Beta({a:g}, {b:g})", spike, (a, b))


# Densities are partial applications of functions of the module, not closures: a model can then be
# sent to another process.


def _log_beta(a: float, b: float, h2: np.ndarray) -> np.ndarray:
    from scipy.special import betaln

    # Where the factor is constant it is left out: 0 * log(0) would be NaN.
    value = np.full_like(h2, -float(betaln(a, b)))
    if a != 1:
        value += (a - 1) * np.log(h2)
    if b != 1:
        value += (b - 1) * np.log1p(-h2)
    return value


def uniform(*, spike: float = 0.0) -> H2Prior:
    """Uniform on (0, 1), the default, with probability `spike` of exactly 0.

    For unrelated samples (a narrow spectrum of K) it equals the reference prior.
    """
    return H2Prior(np.zeros_like, "Uniform(0, 1)", spike, (1.0, 1.0))


def density(function: Callable[[np.ndarray], np.ndarray], *, spike: float = 0.0) -> H2Prior:
    """Any density on (0, 1); normalised here.

    Parameters
    ----------
    function : callable
        Density at h2, shape (G,), up to a constant; not negative.
    spike : float
        Prior probability of exactly 0.

    Raises
    ------
    InputError
        If it is negative, not finite, or has no mass.
    """
    return _normalised(
        partial(_log_of, function, "The prior density of h2", " on (0, 1)"),
        getattr(function, "__name__", "density"),
        spike,
    )


def _log_of(
    function: Callable[[np.ndarray], np.ndarray], what: str, where: str, x: np.ndarray
) -> np.ndarray:
    """Log of a user's density at x (G, ...), shape (G,)."""
    values = np.broadcast_to(np.asarray(function(x), dtype=np.float64), len(x))
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"{what} must be finite and not negative{where}.")
    with np.errstate(divide="ignore"):
        return np.log(values)


def _normalised(
    log_density: Callable[[np.ndarray], np.ndarray], name: str, spike: float = 0.0
) -> H2Prior:
    if not (log_density(np.linspace(0.001, 0.999, 999)) > -np.inf).any():
        raise InputError("The prior density of h2 is 0 on all of (0, 1).")
    constant = unit_density(log_density).log_integral
    return H2Prior(partial(_less, log_density, constant), name, spike)


def _less(
    log_density: Callable[[np.ndarray], np.ndarray], constant: float, h2: np.ndarray
) -> np.ndarray:
    return log_density(h2) - constant


def penalised_complexity(basis: Basis, *, upper: float, prob: float) -> H2Prior:
    r"""Penalised-complexity prior on h2: exponential on the distance from "no genetics".

    With s the eigenvalues over their mean and v = 1 + h2 (s - 1), the distance of the
    model from h2 = 0 is :math:`d(h2) = \sqrt{\sum (v_i - 1 - \log v_i)}` (twice the
    Kullback-Leibler divergence, square root), and its rate is set by
    P(h2 > upper) = prob.

    Parameters
    ----------
    basis : Basis
        The prior depends on its eigenvalues only.
    upper, prob : float
        Both in (0, 1).

    References
    ----------
    Simpson D et al. (2017). Penalising model component complexity: a principled, practical
    approach to constructing priors. Stat Sci 32:1. doi:10.1214/16-STS576
    """
    if not (0 < upper < 1 and 0 < prob < 1):
        raise InputError(f"upper and prob must be in (0, 1), but are {upper:g} and {prob:g}.")
    s = np.asarray(basis.values) / basis.kappa

    rate = float(-np.log(prob) / _distance(s, np.array([upper]))[0])
    pc = partial(_pc_density, s, rate)
    name = f"PC prior, P(h2 > {upper:g}) = {prob:g}"
    return _normalised(partial(_log_of, pc, "The prior density of h2", " on (0, 1)"), name)


def _distance(s: np.ndarray, h2: np.ndarray) -> np.ndarray:
    v = np.maximum(1 + np.multiply.outer(h2, s - 1), 1e-300)
    return np.sqrt(np.maximum((v - 1 - np.log(v)).sum(axis=-1), 1e-300))


def _pc_density(s: np.ndarray, rate: float, h2: np.ndarray) -> np.ndarray:
    v = np.maximum(1 + np.multiply.outer(h2, s - 1), 1e-300)
    d = _distance(s, h2)
    slope = ((s - 1) * (1 - 1 / v)).sum(axis=-1) / (2 * d)
    return rate * np.exp(-rate * d) * slope


def as_h2_prior(prior: Any) -> H2Prior:
    """A prior from what a user may write: None, a name, a scipy distribution, a density."""
    if prior is None or (isinstance(prior, str) and prior == "uniform"):
        return uniform()
    if isinstance(prior, H2Prior):
        return prior
    if hasattr(prior, "logpdf"):
        return _normalised(prior.logpdf, _scipy_name(prior))
    if callable(prior):
        return density(prior)
    raise InputError(
        f"h2_prior={prior!r} is no prior. Use 'uniform', bl.priors.beta(a, b), a function of h2, "
        "or a scipy distribution."
    )


def _scipy_name(distribution: Any) -> str:
    if not hasattr(distribution, "dist"):
        return str(distribution)
    arguments = [*distribution.args, *(f"{k}={v}" for k, v in distribution.kwds.items())]
    return f"{distribution.dist.name}({', '.join(map(str, arguments))})"


# -- shares of several kernels -------------------------------------------------------------


@dataclass(frozen=True)
class Dirichlet:
    """Shares of several kernels and of the residual ~ Dirichlet.

    With ones, the default, it is uniform: every split of the variance is as likely as any
    other. The sum of the kernels' shares is then Beta(K, 1), which expects much of K kernels:
    see `HeritabilitySplit` for a prior on the sum.

    Attributes
    ----------
    concentration : float or mapping
        Of each kernel: one number for all, or by name.
    residual : float
        That of the residual.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> bl.priors.Dirichlet({"additive": 2, "dominance": 0.5})
    Dirichlet(concentration={'additive': 2, 'dominance': 0.5}, residual=1.0)
    """

    concentration: float | Mapping[str, float] = 1.0
    residual: float = 1.0

    def __post_init__(self) -> None:
        _positive(residual=self.residual)
        if isinstance(self.concentration, Mapping):
            _positive(**{str(name): value for name, value in self.concentration.items()})
        else:
            _positive(concentration=self.concentration)


@dataclass(frozen=True)
class HeritabilitySplit:
    """The sum of the kernels' shares has a prior of its own, its split is Dirichlet.

    R2D2 for kernels: R2 ~ `total`, R2 split by Dirichlet(`concentration`).

    Attributes
    ----------
    total : prior
        On the sum, as on h2: "uniform", `beta`, a density; without point mass.
    concentration : float or mapping
        Of each kernel: one number for all, or by name. Below 1 it expects a few kernels to
        take most.

    References
    ----------
    Aguilar JE, Bürkner P-C (2023). Intuitive joint priors for Bayesian linear multilevel
    models: the R2D2M2 prior. Electron J Stat 17:1711. doi:10.1214/23-EJS2136

    Examples
    --------
    >>> import bayeslmm as bl
    >>> bl.priors.HeritabilitySplit(bl.priors.beta(2, 3), concentration=0.5)
    HeritabilitySplit(total=Beta(2, 3), concentration=0.5)
    """

    total: Any = "uniform"
    concentration: float | Mapping[str, float] = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", as_h2_prior(self.total))
        if self.total.spike:
            raise InputError(
                f"The sum of shares ~ {self.total!r}: a point mass at 0 has no place in a prior "
                "of several shares. Compare models with and without the kernels instead."
            )
        Dirichlet(self.concentration)


@dataclass(frozen=True)
class SharePrior:
    """A prior of the shares of named kernels.

    Attributes
    ----------
    log_density : callable
        At shares (G, K + 1), the residual's last: shape (G,), normalised.
    name : str
        How it is written in results.
    concentration : ndarray, shape (K + 1,), or None
        That of a Dirichlet, for samplers that know it by name.
    split : ndarray, shape (K,), or None
        How the sum of the kernels' shares is split: the concentrations of a Dirichlet. None for
        a user's function, of which it is not known.
    """

    log_density: Callable[[np.ndarray], np.ndarray]
    name: str
    concentration: np.ndarray | None = None
    split: np.ndarray | None = None

    def __repr__(self) -> str:
        return self.name


def as_share_prior(prior: Any, kernels: Sequence[str]) -> SharePrior:
    """A prior of shares from what a user may write.

    Parameters
    ----------
    prior : "uniform", Dirichlet, HeritabilitySplit, or function
        A function is given shares (G, K + 1), the residual's last, and returns their density
        (G,) up to a constant.
    kernels : sequence of str
        Names of the K kernels.

    Raises
    ------
    InputError
        For what is none of these, and for concentrations that do not name the kernels.
    """
    K = len(kernels)
    if isinstance(prior, str) and prior == "uniform":
        prior = Dirichlet()
    if isinstance(prior, Dirichlet):
        each = _concentrations(prior.concentration, kernels)
        alpha = np.append(each, prior.residual)
        named = f"Dirichlet({_in_short(alpha)})"
        return SharePrior(partial(_log_dirichlet, alpha), named, alpha, each)
    if isinstance(prior, HeritabilitySplit):
        each = _concentrations(prior.concentration, kernels)
        total = prior.total
        name = f"sum {total!r}, split Dirichlet({_in_short(each)})"
        alone = K == 1 and total.parameters is not None
        concentration = np.array(total.parameters) if alone else None
        return SharePrior(partial(_log_split, total, each), name, concentration, each)
    if callable(prior):
        log_density = partial(_log_of, prior, "The prior density of shares", "")
        name = getattr(prior, "__name__", "density")
        return SharePrior(log_density, f"{name}, not normalised")
    raise InputError(
        f"prior={prior!r} is no prior of shares. Use 'uniform', bl.priors.Dirichlet(...), "
        "bl.priors.HeritabilitySplit(...), or a function of shares."
    )


def _in_short(numbers: np.ndarray) -> str:
    """Numbers with commas between them, many equal ones in short: "1, ..., 1 (20)"."""
    if len(numbers) > 5 and (numbers == numbers[0]).all():
        return f"{numbers[0]:g}, ..., {numbers[0]:g} ({len(numbers)})"
    return ", ".join(f"{a:g}" for a in numbers)


def _concentrations(given: float | Mapping[str, float], kernels: Sequence[str]) -> np.ndarray:
    if not isinstance(given, Mapping):
        return np.full(len(kernels), float(given))
    if set(given) != set(kernels):
        raise InputError(
            f"The prior has concentrations of {listing(given, 20)}, but the kernels are "
            f"{listing(kernels, 20)}."
        )
    return np.array([float(given[name]) for name in kernels])


def _log_dirichlet(alpha: np.ndarray, shares: np.ndarray) -> np.ndarray:
    from scipy.special import gammaln

    constant = float(gammaln(alpha.sum()) - gammaln(alpha).sum())
    # Where the factor is constant it is left out: 0 * log(0) would be NaN.
    uneven = np.flatnonzero(alpha != 1)
    return constant + np.log(shares[:, uneven]) @ (alpha[uneven] - 1)


def _log_split(total: H2Prior, split: np.ndarray, shares: np.ndarray) -> np.ndarray:
    h = shares[:, :-1].sum(axis=1)
    inside = _log_dirichlet(split, shares[:, :-1] / h[:, None])
    return total.log_density(np.minimum(h, 1.0)) + inside - (len(split) - 1) * np.log(h)


# -- correlations --------------------------------------------------------------------------


@dataclass(frozen=True)
class CorrelationPrior:
    """A prior on the correlation r of two traits: density proportional to (1 - r^2)^(eta - 1).

    It is the LKJ(eta) prior of a 2 x 2 correlation matrix: (r + 1) / 2 ~ Beta(eta, eta).

    Attributes
    ----------
    eta : float
        1 is flat on (-1, 1), larger values favour 0, smaller ones the ends.

    References
    ----------
    Lewandowski D, Kurowicka D, Joe H (2009). Generating random correlation matrices based on
    vines and extended onion method. J Multivar Anal 100:1989. doi:10.1016/j.jmva.2009.04.008

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> bl.priors.CorrelationPrior(2)
    LKJ(2)
    >>> np.exp(bl.priors.CorrelationPrior().log_density(np.array([-0.5, 0.9]))).round(3)
    array([0.5, 0.5])
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        _positive(eta=self.eta)

    def __repr__(self) -> str:
        return "Uniform(-1, 1)" if self.eta == 1 else f"LKJ({self.eta:g})"

    def log_density(self, r: np.ndarray) -> np.ndarray:
        """Normalised log density at r in (-1, 1)."""
        from scipy.special import betaln

        constant = (2 * self.eta - 1) * np.log(2) + betaln(self.eta, self.eta)
        if self.eta == 1:
            return np.full_like(r, -constant)
        return (self.eta - 1) * np.log1p(-np.square(r)) - constant


def as_correlation_prior(prior: Any, name: str) -> CorrelationPrior:
    """A prior on a correlation from "flat", from eta, or as it is."""
    if isinstance(prior, CorrelationPrior):
        return prior
    if prior is None or (isinstance(prior, str) and prior in ("flat", "uniform")):
        return CorrelationPrior()
    if isinstance(prior, int | float) and not isinstance(prior, bool):
        return CorrelationPrior(float(prior))
    raise InputError(
        f"{name}={prior!r} is no prior on a correlation. Use 'flat', a number eta for a density "
        "proportional to (1 - r^2)^(eta - 1), or bl.priors.CorrelationPrior(eta)."
    )


# -- SNP effects ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Normal:
    """SNP effects ~ Normal(0, phi), in total standard deviations per sd of the genotype."""

    phi: float = 0.2

    def __post_init__(self) -> None:
        _positive(phi=self.phi)

    def __str__(self) -> str:
        return f"normal, sd {self.phi:g}"


@dataclass(frozen=True)
class Horseshoe:
    """The regularised horseshoe: most SNP effects near 0, a few up to the slab's width.

    Attributes
    ----------
    global_scale : float
        Scale of the half-Cauchy global parameter tau.
    slab, slab_df : float
        Scale and degrees of freedom of the slab, in total sd per sd of the genotype.

    References
    ----------
    Piironen J, Vehtari A (2017). Sparsity information and regularization in the horseshoe and
    other shrinkage priors. Electron J Stat 11:5018. doi:10.1214/17-EJS1337SI
    """

    global_scale: float = 0.05
    slab: float = 0.4
    slab_df: float = 4.0

    def __post_init__(self) -> None:
        _positive(global_scale=self.global_scale, slab=self.slab, slab_df=self.slab_df)

    def __str__(self) -> str:
        return (
            f"regularised horseshoe, global scale {self.global_scale:g}, slab {self.slab:g} "
            f"({self.slab_df:g} df)"
        )


@dataclass(frozen=True)
class R2D2:
    """R2 ~ Beta(a, b) of the total variance is genetic, split between SNPs and the rest.

    The split is Dirichlet with `concentration` for each SNP and `polygenic` for the
    polygenic part. It defines h2 too: h2's own prior is not used.

    References
    ----------
    Zhang YD et al. (2022). Bayesian regression using a prior on the model fit: the R2-D2
    shrinkage prior. J Am Stat Assoc 117:862. doi:10.1080/01621459.2020.1825449
    """

    a: float = 1.0
    b: float = 1.0
    concentration: float = 0.5
    polygenic: float = 1.0

    def __post_init__(self) -> None:
        _positive(a=self.a, b=self.b, concentration=self.concentration, polygenic=self.polygenic)

    def __str__(self) -> str:
        return (
            f"R2D2, R2 ~ Beta({self.a:g}, {self.b:g}) split with {self.concentration:g} for each "
            f"SNP and {self.polygenic:g} for the polygenic part"
        )


@dataclass(frozen=True)
class SpikeSlab:
    """Each SNP has an effect with probability `inclusion`, then Normal(0, phi).

    Attributes
    ----------
    inclusion : float
        Prior probability that a SNP has an effect.
    phi : tuple of float
        Standard deviations of the slab, in total sd per sd of the genotype; averaged
        over with equal weights.
    """

    inclusion: float = 0.5
    phi: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)

    def __post_init__(self) -> None:
        if not 0 < self.inclusion < 1:
            raise InputError(f"inclusion must be in (0, 1), but is {self.inclusion:g}.")
        for value in self.phi:
            _positive(phi=value)

    def __str__(self) -> str:
        return (
            f"0, or with probability {self.inclusion:g} normal, sd "
            f"{_widths(self.phi, (1.0,) * len(self.phi))}"
        )


@dataclass(frozen=True)
class EffectPrior:
    """Effect of a variant in a genome scan: a scale mixture of normals.

    Given the width phi, an effect per standard deviation of the genotype is
    Normal(0, phi), in total standard deviations of the phenotype (what covariates do not
    explain).

    Attributes
    ----------
    phi : tuple of float
        Widths; the Bayes factor is averaged over them.
    weights : tuple of float
        Their prior probabilities, up to a constant; empty means equal ones.
    alpha : float
        The variance of the effect per allele is proportional to [2p(1-p)]^alpha, p the
        allele's frequency: -1, the default, is the standardised genotype, for which
        frequency plays no part; with 0 effects per allele have the same size whatever
        p; LDAK's -0.25 is between. phi is that at p = 1/2.

    References
    ----------
    Stephens M, Balding DJ (2009). Bayesian statistical methods for genetic association studies.
    Nat Rev Genet 10:681. doi:10.1038/nrg2615
    Speed D et al. (2012). Improved heritability estimation from genome-wide SNPs. Am J Hum
    Genet 91:1011. doi:10.1016/j.ajhg.2012.10.010

    Examples
    --------
    >>> import bayeslmm as bl
    >>> bl.priors.EffectPrior(0.1, alpha=-0.25)
    EffectPrior(phi=(0.1,), weights=(), alpha=-0.25)
    >>> print(bl.priors.EffectPrior())
    normal, sd 0.05, 0.1, 0.2 or 0.4, equally probable
    """

    phi: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    weights: tuple[float, ...] = ()
    alpha: float = -1.0

    def __post_init__(self) -> None:
        for name in ("phi", "weights"):
            values = np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float64))
            object.__setattr__(self, name, tuple(float(v) for v in values))
            for value in getattr(self, name):
                _positive(**{name: value})
        if not self.phi:
            raise InputError("An effect prior needs at least one width phi.")
        if self.weights and len(self.weights) != len(self.phi):
            raise InputError(
                f"An effect prior has {len(self.phi)} widths phi, but {len(self.weights)} weights."
            )
        if not np.isfinite(self.alpha):
            raise InputError(f"alpha must be a finite number, but is {self.alpha:g}.")

    def __str__(self) -> str:
        text = f"normal, sd {_widths(self.phi, self.weights or (1.0,) * len(self.phi))}"
        if self.alpha == -1:
            return text
        return (
            f"{text} at allele frequency 1/2, the variance per allele proportional to "
            f"[2p(1-p)]^{self.alpha:g}"
        )

    @property
    def probabilities(self) -> np.ndarray:
        """Prior probabilities of the widths, shape (W,)."""
        weights = np.array(self.weights or [1.0] * len(self.phi))
        return weights / weights.sum()

    def variances(self, eaf: np.ndarray) -> np.ndarray:
        """Prior variances of standardised effects of variants, eaf (v,): shape (v, W)."""
        heterozygosity = np.maximum(4 * eaf * (1 - eaf), 1e-300)
        return np.multiply.outer(heterozygosity ** (1 + self.alpha), np.square(self.phi))


def as_effect_prior(prior: Any) -> EffectPrior:
    """A prior of scanned effects from one or several widths, or as it is."""
    if prior is None:
        return EffectPrior()
    if isinstance(prior, EffectPrior):
        return prior
    try:
        widths = np.atleast_1d(np.asarray(prior, dtype=np.float64))
    except (TypeError, ValueError):
        widths = np.empty((0, 0))
    if widths.ndim != 1 or not len(widths):
        raise InputError(
            f"effect_prior={prior!r} is no prior: expected one or several widths such as 0.2, or "
            "bl.priors.EffectPrior(...)."
        )
    return EffectPrior(tuple(widths))


type SnpPrior = Normal | Horseshoe | R2D2 | SpikeSlab
SNP_PRIORS: dict[str, Callable[[], SnpPrior]] = {
    "normal": Normal,
    "horseshoe": Horseshoe,
    "r2d2": R2D2,
    "spike_slab": SpikeSlab,
}


def as_snp_prior(prior: Any) -> SnpPrior:
    """A prior of SNP effects from its name, or as it is."""
    if isinstance(prior, str) and prior in SNP_PRIORS:
        return SNP_PRIORS[prior]()
    if isinstance(prior, Normal | Horseshoe | R2D2 | SpikeSlab):
        return prior
    raise InputError(
        f"snp_prior={prior!r} is unknown; expected one of {listing(SNP_PRIORS)}, or one of "
        "bl.priors.Normal, Horseshoe, R2D2, SpikeSlab."
    )


def _widths(phi: tuple[float, ...], weights: tuple[float, ...]) -> str:
    """Widths of a mixture of normals in words, with their probabilities unless equal."""
    if len(phi) == 1:
        return f"{phi[0]:g}"
    total = sum(weights)
    equal = len(set(weights)) == 1
    told = [
        f"{width:g}" if equal else f"{width:g} (probability {weight / total:.3g})"
        for width, weight in zip(phi, weights, strict=True)
    ]
    return f"{', '.join(told[:-1])} or {told[-1]}" + (", equally probable" if equal else "")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not isinstance(value, int | float | np.number):
            raise InputError(f"{name} must be a number above 0, but is {value!r}.")
        if not (value > 0 and np.isfinite(value)):
            raise InputError(f"{name} must be above 0, but is {value:g}.")
