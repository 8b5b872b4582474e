r"""The liability model of a case/control trait: Bayesian, related samples, on the eigenbasis.

    l = C b + X beta + u + e,   u ~ N(0, h2 K / kappa),   e ~ N(0, (1 - h2) I),
    a sample is a case if l > 0.

The unit is the total standard deviation of the liability, covariates and SNPs aside: its
variance h2 + (1 - h2) = 1 is fixed, as nothing in the data could tell it. h2 is uniform by
default; effects of covariates per standard deviation are N(0, b_sd^2). kappa is the mean diagonal
of K, as in `LMM`.

`LiabilityLMM` is a specification around an `LMM` of the same phenotype, which aligns the
samples and makes the basis; `bayeslmm.binary.gibbs` draws.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import dense_vectors
from bayeslmm.bases.kernel import Kernel
from bayeslmm.binary.ascertainment import Pcgc, pcgc, population_risk, require_share
from bayeslmm.binary.gibbs import Problem, gibbs
from bayeslmm.errors import InputError
from bayeslmm.inputs.case_control import CaseControl, case_control
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.model.lmm import LMM
from bayeslmm.model.snps import SelectedSnps, selected_snps
from bayeslmm.model.trees import data_groups
from bayeslmm.priors import H2Prior, Normal, as_snp_prior
from bayeslmm.runs.progress import track
from bayeslmm.runs.provenance import fresh_seed, provenance

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr

    from bayeslmm.generative.eigen import ModelData
    from bayeslmm.model.calibration import Calibration
    from bayeslmm.model.predict import CrossKernel

_LATENT = 1000
_SAMPLER = "Gibbs on the eigenbasis, interwoven"
# A share of cases this far from the prevalence, in log odds, is a sampling design.
_ASCERTAINED = 0.3


class LiabilityLMM:
    """A probit mixed model of cases and controls: a case has a liability above 0.

    Parameters
    ----------
    formula : str, or array (n,), or Series
        ``"case ~ sex"``, or the phenotype itself: 0 and 1, 1 and 2 (PLINK), boolean, or in
        words such as case and control.
    data : DataFrame or path, or array (n, c)
        As in `LMM`.
    kernel : Eigenbasis, GRM, DataFrame or array (n, n)
        Relatedness.
    prevalence : float, optional
        Share of cases in the population, in (0, 1), if the samples are not a random part of
        it. It does not change the model, which is of a random sample; it serves `scales`,
        `pcgc` and the risks of `predict`, and a warning says what the sampling does to h2.
    h2_prior : prior
        As in `LMM`, without a point mass at 0.
    b_sd : float
        Prior sd of the covariates' effects, in total sd of the liability per sd of the
        covariate; of the intercept, too.
    id, missing
        As in `LMM`.

    Attributes
    ----------
    observed : LMM
        The linear model of the same 0/1 phenotype. Its h2 is on the observed scale: a
        property of the sample's share of cases as well as of the trait.
    cases : CaseControl
        Who is a case.

    Raises
    ------
    InputError
        For one class only, other codes, shares outside (0, 1), and what `LMM` refuses.

    References
    ----------
    Falconer DS (1965). The inheritance of liability to certain diseases, estimated from the
    incidence among relatives. Ann Hum Genet 29:51. doi:10.1111/j.1469-1809.1965.tb00500.x
    Albert JH, Chib S (1993). Bayesian analysis of binary and polychotomous response data. J Am
    Stat Assoc 88:669. doi:10.1080/01621459.1993.10476321

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> rng = np.random.default_rng(1)
    >>> K = np.kron(np.eye(60), np.full((4, 4), 0.5) + 0.5 * np.eye(4))  # 60 families of sibs
    >>> u = np.linalg.cholesky(K) @ rng.normal(size=240) * np.sqrt(0.7)
    >>> y = u + rng.normal(size=240) * np.sqrt(0.3) > 0
    >>> model = bl.LiabilityLMM(y, kernel=K)
    >>> draws = model.sample(seed=1)
    >>> low, high = np.quantile(draws["posterior"]["h2"], [0.025, 0.975])
    >>> bool(low < 0.7 < high)
    True
    """

    def __init__(
        self,
        formula: str | np.ndarray | pd.Series,
        data: pd.DataFrame | np.ndarray | str | os.PathLike[str] | None = None,
        kernel: Kernel | None = None,
        *,
        prevalence: float | None = None,
        h2_prior: Any = "uniform",
        b_sd: float = 10.0,
        id: str | None = None,
        missing: Literal["error", "drop"] = "error",
    ) -> None:
        if kernel is None:
            raise InputError(
                "A liability model needs a kernel; without relatedness it is a probit regression."
            )
        if prevalence is not None:
            require_share(prevalence, "prevalence")
        if not (b_sd > 0 and np.isfinite(b_sd)):
            raise InputError(f"b_sd must be above 0, but is {b_sd:g}.")
        self.observed = LMM(formula, data, kernel, h2_prior=h2_prior, id=id, missing=missing)
        if self.h2_prior.spike:
            raise InputError(
                f"h2 ~ {self.h2_prior}: the sampler of the liability model has no point mass at 0. "
                "Use a prior without spike."
            )
        self.cases: CaseControl = case_control(self.observed)
        self.prevalence, self.b_sd = prevalence, float(b_sd)

    # -- what it shares with the linear model -------------------------------------------------

    @property
    def formula(self) -> str:
        """Phenotype and covariates."""
        return self.observed.formula

    @property
    def h2_prior(self) -> H2Prior:
        """Prior on the heritability of the liability."""
        return self.observed.h2_prior

    @property
    def y(self) -> np.ndarray:
        """1 for cases and 0 for controls, shape (n,)."""
        return self.cases.y

    @property
    def C(self) -> pd.DataFrame:
        """Covariates of the analysed samples, shape (n, c)."""
        return self.observed.C

    @property
    def ids(self) -> pd.Index:
        """Ids of the analysed samples, in the order of `y`."""
        return self.observed.ids

    @property
    def samples(self) -> pd.DataFrame:
        """Every sample of the table and of the kernel: kept (bool) and reason (text)."""
        return self.observed.samples

    @property
    def sample_prevalence(self) -> float:
        """Share of cases among the analysed samples."""
        return float(self.y.mean())

    @property
    def ascertained(self) -> bool:
        """Whether the share of cases is far from the prevalence: a case-control sample."""
        if self.prevalence is None:
            return False
        odds = [np.log(p / (1 - p)) for p in (self.sample_prevalence, self.prevalence)]
        spread = 1 / np.sqrt(len(self.y) * self.prevalence * (1 - self.prevalence))
        return bool(abs(odds[0] - odds[1]) > max(_ASCERTAINED, 3 * spread))

    def __repr__(self) -> str:
        head, *rest = repr(self.observed).splitlines()
        rest = [line for line in rest if not line.startswith(("  phenotype", "  priors"))]
        lines = [head.replace("LMM", "LiabilityLMM", 1), f"  phenotype  {self.cases}"]
        if self.prevalence is not None:
            design = "case-control sample" if self.ascertained else "like the sample's"
            lines.append(
                f"             prevalence {self.prevalence:g} ({design}; cases are "
                f"{self.sample_prevalence:.3g} of the samples)"
            )
        lines += rest
        lines.append(
            f"  priors   h2 of the liability ~ {self.h2_prior}, total variance 1, covariates "
            f"N(0, {self.b_sd:g}^2) per sd"
        )
        return "\n".join(lines)

    # -- sampling --------------------------------------------------------------------------------

    def sample(
        self,
        snps: Any = None,
        snp_prior: Any = "normal",
        *,
        genotypes: Genotypes | None = None,
        draws: int = 1500,
        tune: int = 300,
        chains: int = 8,
        seed: int | None = None,
        latent: int = _LATENT,
        progress: bool | None = None,
    ) -> xr.DataTree:
        """Sample the posterior: each sweep of all chains takes two products with U.

        Parameters
        ----------
        snps : variant ids, or DataFrame (samples x SNPs), optional
            SNPs whose effects are estimated jointly.
        snp_prior : "normal" or `bayeslmm.priors.Normal`
            Width of their effects, in total sd of the liability per sd of the genotype.
        genotypes : Genotypes, optional
            Where SNP ids are looked up; by default the genotypes of the kernel.
        draws, tune, chains : int
            Draws kept of each chain, sweeps before these, and the number of chains. All
            chains share the products with U: eight cost hardly more than four.
        seed : int, optional
            For reproducible draws. The one used is recorded.
        latent : int
            Of how many draws, evenly spaced, u and the liabilities are kept: for risks. 0 is
            none.
        progress : bool, optional
            Whether to show a bar; by default where somebody watches.

        Returns
        -------
        DataTree
            Groups posterior: h2, b (covariate), and with SNPs beta (per effect allele) and
            beta_std (per sd of the genotype), all in total sd of the liability; latent: h2,
            b, beta_std, u and liability (sample) of evenly spaced draws; observed_data,
            constant_data, sample_stats. Its attributes hold the priors, the shares of cases,
            and provenance.

        Warns
        -----
        SamplingWarning
            For high r-hat and few effective draws, for covariates that separate cases from
            controls (their effects have no likelihood to stop them: the prior does), and for
            case-control samples, whose h2 is not the population's.
        """
        from bayeslmm.generative.sampling import check_sampling

        for name, value in (("draws", draws), ("tune", tune), ("chains", chains)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, but is {value}.")
        if latent < 0:
            raise InputError(f"latent must not be negative, but is {latent}.")
        seed = fresh_seed() if seed is None else seed
        selected = selected_snps(self.observed, snps, genotypes)
        prior = as_snp_prior(snp_prior)
        if not isinstance(prior, Normal):
            raise InputError(
                f"snp_prior={prior!r}: effects on the liability have a normal prior. Use "
                "bl.priors.Normal(phi)."
            )
        self._warn()
        data = self._data(selected)
        each = min(draws, -(-latent // chains))
        found = gibbs(
            self._problem(data, prior),
            draws=draws,
            tune=tune,
            chains=chains,
            rng=np.random.default_rng(seed),
            latent=each,
            sweeps=lambda sweeps: track(sweeps, "Sampling", show=progress),
        )
        attrs = provenance() | {
            "formula": self.formula,
            "n": len(self.y),
            "kappa": data.kappa,
            "h2_scale": "liability, of a random sample",
            "h2_prior": repr(self.h2_prior),
            "b_prior": f"N(0, {self.b_sd:g}^2) per sd",
            "snp_prior": str(prior) if selected.ids else "no SNPs",
            "sample_prevalence": self.sample_prevalence,
            "sampler": _SAMPLER,
            "seed": seed,
            "draws": draws,
            "tune": tune,
            "chains": chains,
        }
        if self.prevalence is not None:
            attrs |= {"prevalence": self.prevalence, "ascertained": int(self.ascertained)}
        tree = self._tree(data, found, attrs)
        check_sampling(tree, few="Raise draws")
        return tree

    def _warn(self) -> None:
        """What the numbers will not say by themselves."""
        from bayeslmm.binary.logistic import separating
        from bayeslmm.generative.sampling import SamplingWarning

        C = self.C.to_numpy()
        part = [self.C.columns[j] for j in separating(self.y, C)]
        shown = [name for name in part if name not in ("Intercept", "1")] or part
        if shown:
            warnings.warn(
                f"Covariates separate cases from controls, wholly or in part: {', '.join(shown)}. "
                f"The data only say that their effects are large; how large is the prior's word "
                f"(b_sd = {self.b_sd:g}). Leave them out, merge rare levels, or lower b_sd.",
                SamplingWarning,
                stacklevel=3,
            )
        if self.ascertained:
            warnings.warn(
                f"Cases are {self.sample_prevalence:.3g} of the samples, but {self.prevalence:g} "
                "of the population. The liability model is of a random sample: under this design "
                "its h2 is that of the sample, and too high for the population. Use .pcgc() for "
                "the heritability; .scales() has all estimates beside each other.",
                SamplingWarning,
                stacklevel=3,
            )

    def _data(self, snps: SelectedSnps) -> ModelData:
        from dataclasses import replace

        from bayeslmm.generative.eigen import model_data

        # Liabilities are not centred, unlike phenotypes.
        return replace(model_data(self.observed, snps), y=self.y, y_mean=0.0)

    def problem(self) -> Problem:
        """What the sampler sees, without SNPs."""
        return self._problem(self._data(selected_snps(self.observed, None)), Normal())

    def _problem(self, data: ModelData, snp_prior: Normal) -> Problem:
        basis = self.observed.basis
        assert basis is not None
        X = np.column_stack([data.C / data.C_scale, data.X / data.snps.sd])
        k = len(data.snps.ids)
        precision = np.repeat([self.b_sd**-2, snp_prior.phi**-2], [len(data.covariates), k])
        return Problem(
            dense_vectors(basis, "The liability model"),
            data.S / data.kappa,
            np.where(self.y > 0, 1.0, -1.0),
            X,
            precision,
            self.h2_prior.log_density,
        )

    def _tree(self, data: ModelData, found: Any, attrs: dict[str, Any]) -> xr.DataTree:
        import xarray as xr

        chains, draws = found.h2.shape
        c = len(data.covariates)
        lead = ("chain", "draw")

        def effects(b: np.ndarray) -> dict[str, Any]:
            values = {"b": ((*lead, "covariate"), data.raw_effects(b[..., :c] / data.C_scale))}
            if data.snps.ids:
                std = b[..., c:]
                values["beta"] = ((*lead, "snp"), std / data.snps.sd)
                values["beta_std"] = ((*lead, "snp"), std)
            return values

        coords: dict[str, Any] = {
            "chain": np.arange(chains),
            "draw": np.arange(draws),
            "covariate": data.covariates,
        }
        if data.snps.ids:
            coords["snp"] = data.snps.ids
        groups: dict[str, xr.Dataset] = {
            "/": xr.Dataset(attrs=attrs),
            "posterior": xr.Dataset({"h2": (lead, found.h2)} | effects(found.b), coords, attrs),
            "sample_stats": xr.Dataset(
                attrs={
                    "accepted_probit_proposals": found.accepted,
                    "accepted_guided_proposals": found.moved,
                }
            ),
            **data_groups(self.observed),
        }
        groups["observed_data"] = groups["observed_data"].assign(y=("sample", self.y))
        if data.snps.ids:
            groups["constant_data"] = (
                groups["constant_data"]
                .assign(
                    X=(("sample", "snp"), data.X),
                    eaf=("snp", data.snps.eaf),
                    x_sd=("snp", data.snps.sd),
                )
                .assign_coords(snp=data.snps.ids, effect_allele=("snp", data.snps.ea))
            )
        if len(found.kept):
            at = found.kept
            sample = (*lead, "sample")
            groups["latent"] = xr.Dataset(
                {"h2": (lead, found.h2[:, at])}
                | effects(found.b[:, at])
                | {"u": (sample, found.u), "liability": (sample, found.liability)},
                coords | {"draw": at, "sample": list(self.ids)},
            )
        return xr.DataTree.from_dict(groups)

    def pymc_model(
        self, *, snps: Any = None, genotypes: Genotypes | None = None, snp_prior: Any = "normal"
    ) -> pm.Model:
        """The same model as PyMC code, u a variable: to read, to change, to sample with NUTS.

        Parameters
        ----------
        snps, genotypes, snp_prior
            As in `sample`.

        Returns
        -------
        pymc.Model
            Variables h2, b, u (sample), with SNPs beta and beta_std; the observed y. NUTS
            needs two products with U for each gradient, and some hundreds of gradients for
            an effective draw: `sample` is for many samples, this for other priors.
        """
        import pymc as pm
        import pytensor.tensor as pt

        from bayeslmm.generative.eigen import h2_variable

        selected = selected_snps(self.observed, snps, genotypes)
        data, prior = self._data(selected), as_snp_prior(snp_prior)
        if not isinstance(prior, Normal):
            raise InputError(f"snp_prior={prior!r}: use bl.priors.Normal(phi).")
        basis = self.observed.basis
        assert basis is not None
        coords: dict[str, Any] = {
            "covariate": data.covariates,
            "sample": data.samples,
            "eigenvector": np.arange(len(data.S)),
        }
        if selected.ids:
            coords["snp"] = selected.ids
        with pm.Model(coords=coords) as model:
            vectors = dense_vectors(basis, "The liability model")
            U = pm.Data("U", vectors, dims=("sample", "eigenvector"))
            s = pm.Data("s", data.S / data.kappa, dims="eigenvector")
            C = pm.Data("C", data.C / data.C_scale, dims=("sample", "covariate"))

            h2 = h2_variable("h2", self.h2_prior)
            b_std = pm.Normal("b_std", 0, self.b_sd, dims="covariate")
            b = b_std / data.C_scale
            pm.Deterministic("b", b - pt.dot(data.C_mean, b) * data.constant, dims="covariate")
            mean = pt.dot(C, b_std)
            if selected.ids:
                X = pm.Data("X", selected.x / selected.sd, dims=("sample", "snp"))
                beta_std = pm.Normal("beta_std", 0, prior.phi, dims="snp")
                pm.Deterministic("beta", beta_std / selected.sd, dims="snp")
                mean = mean + pt.dot(X, beta_std)

            # u ~ N(0, h2 K / kappa); the liability's residual e is integrated out.
            z = pm.Normal("z", dims="eigenvector")
            # sqrt(h2 * s) has no gradient where s = 0, as it is for the mean of all samples.
            u = pm.Deterministic("u", pt.dot(U, pt.sqrt(h2) * pt.sqrt(s) * z), dims="sample")
            eta = (mean + u) / pt.sqrt(1 - h2)
            # log odds of the risk Phi(eta), accurate in both tails.
            standard = pm.Normal.dist()
            logit = pm.logcdf(standard, eta) - pm.logcdf(standard, -eta)
            pm.Bernoulli("y", logit_p=logit, observed=self.y.astype(int), dims="sample")
        return model

    # -- risks --------------------------------------------------------------------------------

    def predict(
        self,
        tree: xr.DataTree,
        genotypes: Genotypes | str | os.PathLike[str] | None = None,
        data: pd.DataFrame | np.ndarray | None = None,
        *,
        samples: Iterable[str] | None = None,
        prob: float = 0.9,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Risk of being a case, with its uncertainty over u and all parameters.

        Without genotypes and samples: of the analysed ones, given their genetic value (the
        chance that another person of this genetic value and these covariates is a case).
        With a `prevalence` the risks are the population's: the sampling of cases and controls
        is taken out of the odds. High ones are too high, as h2 is (docs/binary-traits.md).

        Parameters
        ----------
        tree : DataTree
            Draws of `sample`, with their latent group.
        genotypes : Genotypes or path, optional
            New samples' genotypes at the kernel's variants.
        data : DataFrame, or array (a, c - 1), optional
            Their covariates, as in `LMM.predict`.
        samples : sample ids, optional
            Samples of the kernel that were not analysed.
        prob : float
            Probability of the intervals.
        seed : int
            For the draws of new samples' u.

        Returns
        -------
        DataFrame
            Indexed by sample id: risk (posterior mean), risk_sd, risk_low, risk_high, and
            u_mean, u_sd (total sd of the liability).
        """
        from bayeslmm.model import predict

        if not 0 < prob < 1:
            raise InputError(f"prob must be in (0, 1), but is {prob:g}.")
        if "latent" not in tree.children:
            raise InputError("These draws have no latent group: sample with latent=1000.")
        latent = tree["latent"].dataset
        if list(latent["sample"].to_numpy()) != list(self.ids):
            raise InputError("These draws are of another model: samples differ.")
        if genotypes is None and samples is None:
            if data is not None:
                raise InputError("Covariates are of new samples: give their genotypes or ids.")
            snps = tree["constant_data"].dataset.get("X")
            fixed = _fixed(latent, self.C.to_numpy(), None if snps is None else snps.to_numpy())
            u = _flat(latent["u"])
            return self._risks(self.ids, fixed, u.T, _flat(latent["h2"]), prob)
        with_snps = "beta" in latent
        cross, new = predict.to_predict(self.observed, genotypes, samples, with_snps=with_snps)
        C = self.observed._new_covariates(data, cross.ids, new)
        x_new = None
        if with_snps:
            assert new is not None
            x_new = predict.snp_part(tree, new)
        u = self._new_u(tree, cross, np.random.default_rng(seed))
        return self._risks(cross.ids, _fixed(latent, C, x_new), u, _flat(latent["h2"]), prob)

    def _new_u(self, tree: xr.DataTree, cross: CrossKernel, rng: np.random.Generator) -> np.ndarray:
        """Draws of new samples' u given each latent draw, shape (a, draws)."""
        basis = self.observed.basis
        assert basis is not None
        latent = tree["latent"].dataset
        snps = tree["constant_data"].dataset.get("X")
        h2 = _flat(latent["h2"])
        fixed = _fixed(latent, self.C.to_numpy(), None if snps is None else snps.to_numpy())
        r = basis.rotate(_flat(latent["liability"]).T - fixed)
        scale = h2 / basis.kappa
        w = scale / np.maximum(scale * np.asarray(basis.values)[:, None] + 1 - h2, 1e-300)
        mean = cross.times(w * r)
        variance = scale * (cross.k[:, None] - cross.squares_times(w))
        return mean + np.sqrt(np.maximum(variance, 0)) * rng.standard_normal(mean.shape)

    def _risks(
        self, ids: pd.Index, fixed: np.ndarray, u: np.ndarray, h2: np.ndarray, prob: float
    ) -> pd.DataFrame:
        from scipy.special import ndtr

        risk = ndtr((fixed + u) / np.sqrt(1 - h2))
        if self.prevalence is not None:
            risk = population_risk(risk, self.prevalence, self.sample_prevalence)
        low, high = np.quantile(risk, [(1 - prob) / 2, (1 + prob) / 2], axis=1)
        columns = {
            "risk": risk.mean(axis=1),
            "risk_sd": risk.std(axis=1),
            "risk_low": low,
            "risk_high": high,
            "u_mean": u.mean(axis=1),
            "u_sd": u.std(axis=1),
        }
        return pd.DataFrame(columns, index=pd.Index(ids, name="id"))

    # -- h2 on its scales --------------------------------------------------------------------------

    def pcgc(
        self, prevalence: float | None = None, *, groups: Any = None, prob: float = 0.95
    ) -> Pcgc:
        """Heritability of the liability from a case-control sample; see `bayeslmm.pcgc`."""
        known = self.prevalence if prevalence is None else prevalence
        if known is None:
            raise InputError("PCGC needs the share of cases in the population: prevalence=0.01.")
        return pcgc(self.observed, known, groups=groups, prob=prob)

    def scales(self, tree: xr.DataTree, *, prob: float = 0.95, groups: Any = None) -> pd.DataFrame:
        """Every estimate of h2 beside the others, with its scale and what it is good for.

        Parameters
        ----------
        tree : DataTree
            Draws of `sample`.
        prob : float
            Of the intervals: highest density, for PCGC +- its standard error.
        groups : Series, array (n,), optional
            Families, for the standard error of PCGC.

        Returns
        -------
        DataFrame
            Rows observed, transformed, liability, and with a prevalence pcgc. Columns mean,
            sd, low, high, scale (in words), advised (bool).
        """
        from bayeslmm.model.heritability import liability_factor
        from bayeslmm.model.tables import interval

        share = self.sample_prevalence
        K = share if self.prevalence is None else self.prevalence
        observed = self.observed.h2_posterior()
        low, high = observed.hdi(prob)
        factor = liability_factor(K, share)
        draws = np.ravel(tree["posterior"]["h2"])
        a, b = interval(draws, prob)
        rows: dict[str, dict[str, Any]] = {
            "observed": {
                "mean": observed.mean,
                "sd": observed.sd,
                "low": low,
                "high": high,
                "scale": f"0/1 as numbers, {100 * share:.3g}% cases: not a heritability",
                "advised": False,
            },
            "transformed": {
                "mean": observed.mean * factor,
                "sd": observed.sd * factor,
                "low": low * factor,
                "high": high * factor,
                "scale": f"liability, from the observed scale at prevalence {K:.3g}",
                "advised": False,
            },
            "liability": {
                "mean": draws.mean(),
                "sd": draws.std(),
                "low": a,
                "high": b,
                "scale": "liability, of a random sample with this share of cases",
                "advised": not self.ascertained,
            },
        }
        if self.prevalence is not None:
            fit = self.pcgc(groups=groups, prob=prob)
            rows["pcgc"] = {
                "mean": fit.h2,
                "sd": fit.se,
                "low": fit.low,
                "high": fit.high,
                "scale": f"liability, PCGC at prevalence {K:.3g}",
                "advised": self.ascertained,
            }
        table = pd.DataFrame(rows).T.rename_axis("estimate")
        numbers = ["mean", "sd", "low", "high"]
        table = table.astype(dict.fromkeys(numbers, np.float64) | {"advised": bool})
        table.attrs |= {"formula": self.formula, "prob": prob}
        return table

    # -- calibration -------------------------------------------------------------------------------

    def calibrate(
        self, *, replicates: int = 200, draws: int = 99, seed: int = 0, progress: bool | None = None
    ) -> Calibration:
        """Simulation-based calibration of the sampler on these samples and covariates.

        h2, b and u are drawn from their priors, cases and controls from the model; data sets
        of one class only are left out (which leaves the ranks uniform, as a function of the data
        alone). Choose b_sd of order 1, or nearly all have one class.

        Parameters
        ----------
        replicates : int
            Simulated data sets.
        draws : int
            Draws to rank the truth among.
        seed, progress
            As in `bayeslmm.calibrate`.

        Returns
        -------
        Calibration
            Ranks of h2, b, u and the risk of the first sample, and log p(y | h2, b, u).
        """
        from bayeslmm.model.calibration import calibrate_liability

        return calibrate_liability(
            self, replicates=replicates, draws=draws, seed=seed, progress=progress
        )

    # -- for others to read -----------------------------------------------------------------

    def report(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write one HTML file with everything, for readers without Python.

        Parameters
        ----------
        path : path-like
            The file to write.
        **options
            tree, groups, title, question, seed, overwrite and others: see
            `bayeslmm.reporting.models.report_model`.

        Returns
        -------
        Path
            The file; it needs no network and no other file.
        """
        from bayeslmm.reporting.models import report_model

        return report_model(self, path, **options)


def _flat(values: Any) -> np.ndarray:
    """Draws of all chains after each other."""
    array = np.asarray(values)
    return array.reshape(-1, *array.shape[2:])


def _fixed(latent: xr.Dataset, C: np.ndarray, X: np.ndarray | None) -> np.ndarray:
    """C b + X beta of each draw, shape (a, draws)."""
    fixed = C @ _flat(latent["b"]).T
    return fixed if X is None else fixed + X @ _flat(latent["beta"]).T
