"""Simulation-based calibration: whether the posterior's probabilities mean what they say.

Parameters are drawn from the prior, phenotypes from the model on the user's own kernel and
covariates, and the posterior of each is computed: the rank of the truth among the draws is
uniform if, and only if, prior, likelihood and sampler agree (Talts et al. 2018,
arXiv:1804.06788; Modrák et al. 2025, doi:10.1214/23-BA1404).

The exact posterior has flat covariate effects and 1/s2. These cannot be drawn from, and need
not be: they are invariant under shifts and scaling of y, so that the ranks are uniform at
any fixed values of the effects and of s2, as long as h2 comes from its prior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.model.snps import SelectedSnps, selected_snps
from bayeslmm.numerics.quadrature import unit_density
from bayeslmm.priors import H2Prior, Normal, SpikeSlab, as_h2_prior, as_snp_prior
from bayeslmm.runs.progress import track

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.binary.liability import LiabilityLMM
    from bayeslmm.inputs.genotypes import Genotypes
    from bayeslmm.model.lmm import LMM

# Of the liability model's calibration: chains at most, sweeps between draws of one, and before.
_CHAINS, _APART, _TUNE = 33, 20, 60

type Draws = dict[str, np.ndarray]
type Replicate = tuple[Draws, np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """Ranks of the truth among posterior draws, over simulated data sets.

    Attributes
    ----------
    ranks : DataFrame, shape (replicates, quantities)
        Rank of each true value among its draws, 0 to `draws`; ties broken at random.
    draws : int
        Posterior draws compared with each true value.
    method : str
        What was calibrated.
    """

    ranks: pd.DataFrame
    draws: int
    method: str

    def table(self) -> pd.DataFrame:
        """Per quantity: mean rank (0.5 is right), spread, and the p-value of uniformity.

        The p-value is of the chi-squared statistic over 20 bins. `spread` is the sd of the
        scaled ranks over that of a uniform: above 1 the posterior is too narrow, below 1
        too wide.
        """
        from scipy.stats import chisquare

        scaled = (self.ranks + 0.5) / (self.draws + 1)
        bins = min(20, max(4, len(self.ranks) // 10))
        edges = np.linspace(0, 1, bins + 1)
        # Expected counts by the number of ranks that fall into each bin.
        grid = (np.arange(self.draws + 1) + 0.5) / (self.draws + 1)
        expected = np.histogram(grid, edges)[0] / len(grid) * len(self.ranks)
        rows = {}
        for name in self.ranks:
            counts = np.histogram(scaled[name], edges)[0]
            rows[name] = {
                "mean": scaled[name].mean(),
                "spread": scaled[name].std() * np.sqrt(12),
                "p_uniform": float(chisquare(counts, expected).pvalue),
            }
        return pd.DataFrame(rows).T

    @property
    def calibrated(self) -> bool:
        """Whether no quantity's ranks differ from uniform at 1%, corrected for their number."""
        return bool((self.table().p_uniform > 0.01 / self.ranks.shape[1]).all())

    def __repr__(self) -> str:
        verdict = "calibrated" if self.calibrated else "NOT calibrated"
        return (
            f"Calibration of {self.method}: {len(self.ranks):,} replicates, {verdict}\n"
            + self.table().round(3).to_string()
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Differences of the ranks' distribution functions from uniform, with 95% bands."""
        from bayeslmm import plots

        return plots.calibration(self, ax=ax)


def calibrate(
    model: LMM,
    method: Literal["posterior", "nuts"] = "posterior",
    *,
    replicates: int = 500,
    draws: int = 199,
    snps: Any = None,
    genotypes: Genotypes | None = None,
    snp_prior: Any = None,
    simulate_h2: Any = None,
    fit: Callable[[LMM, np.random.Generator], Draws] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Calibration:
    """Simulation-based calibration on the model's own kernel, covariates and samples.

    Parameters
    ----------
    model : LMM
        The model to calibrate; its phenotype gives only the scale.
    method : {"posterior", "nuts"}
        The exact posterior (with SNPs: spike and slab), or NUTS on the PyMC model (with
        SNPs: the normal prior).
    replicates : int
        Simulated data sets.
    draws : int
        Posterior draws to rank each true value among.
    snps, genotypes, snp_prior
        SNPs whose effects are calibrated too, as in `LMM.sample`.
    simulate_h2 : prior, optional
        What h2 is drawn from, if not from the model's own prior: then the ranks tell
        how the posterior behaves under another truth, and should fail.
    fit : callable, optional
        ``fit(model, rng)`` returns draws by name for a model with a simulated phenotype,
        to calibrate a posterior of your own; by default the package's.
    seed : int
        For simulation and sampling.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    Calibration
        Prints itself; `plot` draws it.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> x = np.random.default_rng(1).integers(0, 3, size=(60, 300))
    >>> y = np.random.default_rng(2).normal(size=60)
    >>> check = bl.calibrate(bl.LMM(y, kernel=bl.grm(x)), replicates=100, draws=19)
    >>> check.calibrated
    True
    """
    if model.basis is None:
        raise InputError("Without kernel there is no h2 to calibrate.")
    if method not in ("posterior", "nuts"):
        raise InputError(f"method='{method}' is unknown; expected 'posterior' or 'nuts'.")
    _enough(replicates, draws)
    selected = selected_snps(model, snps, genotypes)
    truth = model.h2_prior if simulate_h2 is None else as_h2_prior(simulate_h2)
    if method == "posterior":
        prior = as_snp_prior("spike_slab" if snp_prior is None else snp_prior)
        if not isinstance(prior, SpikeSlab):
            raise InputError("The exact posterior of SNP effects has a spike-and-slab prior.")
        runner: _Exact | _Nuts = _Exact(model, selected, prior, truth)
    else:
        normal = as_snp_prior("normal" if snp_prior is None else snp_prior)
        if not isinstance(normal, Normal):
            raise InputError("NUTS is calibrated with the normal prior on SNP effects.")
        runner = _Nuts(model, selected, normal, truth)
    streams = np.random.SeedSequence(seed).spawn(replicates)
    rows = []
    for stream in track(streams, "Calibrating", total=replicates, show=progress):
        rng = np.random.default_rng(stream)
        true, y = runner.simulate(rng)
        simulated = model.with_phenotype(y)
        found = runner.fit(simulated, draws, rng) if fit is None else fit(simulated, rng)
        rows.append(_ranks(true, found, runner.names, draws, rng))
    what = "the exact posterior" if method == "posterior" else "NUTS"
    return Calibration(pd.DataFrame(rows), draws, what if fit is None else "a given posterior")


def _ranks(
    true: Draws,
    found: Draws,
    names: dict[str, list[str]],
    draws: int,
    rng: np.random.Generator,
) -> dict[str, int]:
    out = {}
    for name, value in true.items():
        if name not in found:
            continue
        sampled = found[name].reshape(len(found[name]), -1)
        if len(sampled) < draws:
            raise InputError(f"{len(sampled)} draws of {name} came, but {draws} are to be ranked.")
        sampled = sampled[np.linspace(0, len(sampled) - 1, draws).astype(int)]
        labels = [f"{name}[{item}]" for item in names[name]] if name in names else [name]
        for label, one, column in zip(labels, np.ravel(value), sampled.T, strict=True):
            below, equal = int((column < one).sum()), int((column == one).sum())
            out[label] = below + int(rng.integers(equal + 1))
    return out


class _Exact:
    """Simulation for, and draws from, the exact posterior."""

    def __init__(self, model: LMM, snps: SelectedSnps, prior: SpikeSlab, truth: H2Prior) -> None:
        self.model, self.snps, self.prior, self.truth = model, snps, prior, truth
        self.h2 = unit_density(truth.log_density, mass_at_0=truth.spike, log_at_0=0.0)
        self.names = {"b": list(model.C.columns), "beta_std": snps.ids}

    def simulate(self, rng: np.random.Generator) -> Replicate:
        data = self.model.rotated
        h2, s2 = float(self.h2.draw(1, rng)[0]), data.sd_y**2
        k = len(self.snps.ids)
        included = rng.random(k) < self.prior.inclusion
        phi = rng.choice(self.prior.phi)
        beta = np.where(included, phi * rng.standard_normal(k), 0.0)
        assert self.model.basis is not None
        d = np.maximum(1 + h2 * (data.s - 1), 0)
        noise = self.model.basis.unrotate(np.sqrt(s2 * d) * rng.standard_normal(data.n))
        mean = self.model.C.to_numpy() @ data.b_ols
        mean = mean + self.snps.x / self.snps.sd @ (beta * np.sqrt(s2))
        true = {
            "h2": np.array(h2),
            "s2": np.array(s2),
            "s2_g": np.array(s2 * h2 / data.kappa),
            "s2_e": np.array(s2 * (1 - h2)),
            "b": data.b_ols,
        }
        return (true | {"beta_std": beta} if k else true), mean + noise

    def fit(self, model: LMM, draws: int, rng: np.random.Generator) -> Draws:
        if not self.snps.ids:
            return model.draw_posterior(draws, rng)
        from bayeslmm.model.effects import SpikeSlabPosterior

        found = SpikeSlabPosterior(model, self.snps, self.prior).draw(draws, rng)
        kappa = model.rotated.kappa
        return found | {
            "s2_g": found["s2"] * found["h2"] / kappa,
            "s2_e": found["s2"] * (1 - found["h2"]),
        }


class _Nuts:
    """Simulation from the PyMC model's priors, at the scale of the model's own phenotype."""

    def __init__(self, model: LMM, snps: SelectedSnps, prior: Normal, truth: H2Prior) -> None:
        from bayeslmm.generative.eigen import model_data

        self.data = model_data(model, snps)
        self.model, self.snps, self.prior = model, snps, prior
        self.h2 = unit_density(truth.log_density)
        self.names = {"b": list(model.C.columns), "beta_std": snps.ids}

    def simulate(self, rng: np.random.Generator) -> Replicate:
        data, k = self.data, len(self.snps.ids)
        h2 = float(self.h2.draw(1, rng)[0])
        sd = abs(rng.standard_t(4)) * data.sd_y
        b = 10 * rng.standard_normal(len(data.C_scale)) * data.sd_y / data.C_scale
        beta = self.prior.phi * rng.standard_normal(k)
        v = sd**2 * (h2 * data.S / data.kappa + 1 - h2)
        assert self.model.basis is not None
        y = self.model.basis.unrotate(np.sqrt(v) * rng.standard_normal(len(v)))
        y = y + data.C @ b + data.X @ (beta * sd / self.snps.sd) + data.y_mean
        true = {
            "h2": np.array(h2),
            "s2": np.array(sd**2),
            "s2_g": np.array(sd**2 * h2 / data.kappa),
            "s2_e": np.array(sd**2 * (1 - h2)),
            "b": data.raw_effects(b),
        }
        return (true | {"beta_std": beta} if k else true), y

    def fit(self, model: LMM, draws: int, rng: np.random.Generator) -> Draws:
        from dataclasses import replace

        from bayeslmm.generative.sampling import Target

        y = model.y - self.data.y_mean
        assert model.basis is not None
        data = replace(self.data, y=y, y_rotated=model.basis.rotate(y))
        target = Target(data, self.model.h2_prior, self.prior, {})
        seed = int(rng.integers(2**31))
        values, _ = target.draw(draws=max(250, draws), tune=400, chains=4, seed=seed)
        names = ("h2", "s2", "s2_g", "s2_e", "b", "beta_std")
        return {name: _stack(values[name]) for name in names if name in values}


def _stack(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[2:])


def calibrate_liability(
    model: LiabilityLMM,
    *,
    replicates: int = 200,
    draws: int = 99,
    seed: int = 0,
    progress: bool | None = None,
) -> Calibration:
    """Calibration of the liability model's sampler; see `LiabilityLMM.calibrate`."""
    from dataclasses import replace

    from scipy.special import log_ndtr

    from bayeslmm.binary.gibbs import gibbs

    _enough(replicates, draws)
    base = model.problem()
    X, n = base.X, base.n
    h2_prior = unit_density(model.h2_prior.log_density)
    chains = min(draws, _CHAINS)
    each = -(-draws // chains)
    rows = []
    for stream in track(
        np.random.SeedSequence(seed).spawn(replicates),
        "Calibrating",
        total=replicates,
        show=progress,
    ):
        rng = np.random.default_rng(stream)
        sign = np.ones(n)
        while abs(sign.sum()) == n:
            h2 = float(h2_prior.draw(1, rng)[0])
            b = rng.standard_normal(X.shape[1]) / np.sqrt(base.precision)
            u = base.U @ (np.sqrt(h2 * base.s) * rng.standard_normal(n))
            eta = (X @ b + u) / np.sqrt(1 - h2)
            sign = np.where(eta + rng.standard_normal(n) > 0, 1.0, -1.0)
        found = gibbs(
            replace(base, sign=sign),
            draws=_APART * each,
            tune=_TUNE,
            chains=chains,
            rng=rng,
            latent=each,
        )
        at = found.kept
        h2s, bs = found.h2[:, at, None], found.b[:, at]
        etas = (bs @ X.T + found.u) / np.sqrt(1 - h2s)
        true = {
            "h2": np.array(h2),
            "b": b,
            "u[0]": u[0],
            "risk[0]": eta[0],
            "log_lik": log_ndtr(sign * eta).sum(),
        }
        sampled = {
            "h2": _stack(h2s[..., 0]),
            "b": _stack(bs),
            "u[0]": _stack(found.u[..., 0]),
            "risk[0]": _stack(etas[..., 0]),
            "log_lik": _stack(log_ndtr(sign * etas).sum(axis=-1)),
        }
        rows.append(_ranks(true, sampled, {"b": list(model.C.columns)}, draws, rng))
    return Calibration(pd.DataFrame(rows), draws, "the liability model's Gibbs sampler")


def _enough(replicates: int, draws: int) -> None:
    if replicates < 20 or draws < 9:
        raise InputError(
            f"At least 20 replicates of 9 draws are needed, but {replicates} of {draws} came."
        )


def reliability_table(risk: np.ndarray, case: np.ndarray, *, bins: int = 10) -> pd.DataFrame:
    """Predicted risk and observed share of cases in groups of like risk.

    Parameters
    ----------
    risk : array_like, shape (a,)
        Predicted risks.
    case : array_like of bool, shape (a,)
        Who is a case.
    bins : int
        Groups of as many people each.

    Returns
    -------
    DataFrame
        n, risk (mean), share (of cases), low, high (95% by Wilson's score interval).

    Examples
    --------
    >>> reliability_table([0.1, 0.1, 0.8, 0.8], [0, 0, 1, 1], bins=2).share.tolist()
    [0.0, 1.0]
    """
    risk, case = np.asarray(risk, dtype=np.float64), np.asarray(case, dtype=np.float64)
    if risk.shape != case.shape or risk.ndim != 1 or len(risk) < bins:
        raise InputError(
            f"Risks have shape {risk.shape} and cases {case.shape}; expected as many of both, "
            f"and at least {bins}."
        )
    parts = np.array_split(np.argsort(risk, kind="stable"), bins)
    n = np.array([len(part) for part in parts])
    share = np.array([case[part].mean() for part in parts])
    z2 = 1.959964**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return pd.DataFrame(
        {
            "n": n,
            "risk": [risk[part].mean() for part in parts],
            "share": share,
            "low": np.minimum(middle - half, share),
            "high": np.maximum(middle + half, share),
        }
    )
