"""Bayesian linear mixed models in genetics, on one shared eigenbasis.

The walk: genotypes -> grm -> eigenbasis -> LMM -> reml / posterior / scan -> plots.

>>> import bayeslmm as bl
>>> mice = bl.datasets.mouse_hs1940()
>>> model = bl.LMM("cd8 ~ sex", mice.phenotypes, bl.grm(mice.genotypes))
>>> print(f"{model.h2_posterior().mean:.2f}")
0.60
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayeslmm import datasets, kernels, plots, priors, transforms
    from bayeslmm.ascertainment import Pcgc, pcgc
    from bayeslmm.association import lambda_gc, scan
    from bayeslmm.basis import Eigenbasis, eigenbasis, load_eigenbasis
    from bayeslmm.bivariate import BivariateLMM
    from bayeslmm.block_basis import BlockBasis
    from bayeslmm.calibration import calibrate
    from bayeslmm.checkpoints import checkpoint
    from bayeslmm.comparison import compare
    from bayeslmm.confounding import Inflation, inflation
    from bayeslmm.designs import design, family_eigenvalues, unrelated_eigenvalues
    from bayeslmm.errors import InputError
    from bayeslmm.finemapping import FineMap, finemap
    from bayeslmm.genotypes import Genotypes, read_genotypes
    from bayeslmm.heritability import liability_h2
    from bayeslmm.kinship import Relatives, relatives, unrelated
    from bayeslmm.liability import LiabilityLMM
    from bayeslmm.lmm import LMM
    from bayeslmm.low_rank import LowRankBasis, low_rank_basis
    from bayeslmm.partition import IdentifiabilityWarning, PartitionedLMM
    from bayeslmm.pedigrees import Pedigree, pedigree
    from bayeslmm.phenotypes import read_phenotypes
    from bayeslmm.quality import prune, sample_qc, variant_qc
    from bayeslmm.relatedness import GRM, grm, read_grm, write_gemma, write_grm
    from bayeslmm.repeated import RepeatedLMM
    from bayeslmm.residuals import check_residuals
    from bayeslmm.sampling import SamplingWarning, sample_model
    from bayeslmm.selection import stepwise
    from bayeslmm.simulate import SimulatedCohort, simulate_cohort
    from bayeslmm.sparse_relatedness import SparseGRM, read_sparse_grm, sparse_grm
    from bayeslmm.structure import PCA, pca
    from bayeslmm.thresholds import significance_threshold
    from bayeslmm.variant_sets import Partition, ld_bins, ld_scores, maf_bins, partition_grms

__version__ = "0.1.0"

# Public names and the module of each, imported on first use: `import bayeslmm` costs nothing.
# No module may have the name of a function here: importing it would shadow the function.
_HOME = {
    "BivariateLMM": "bivariate",
    "BlockBasis": "block_basis",
    "Eigenbasis": "basis",
    "FineMap": "finemapping",
    "GRM": "relatedness",
    "Genotypes": "genotypes",
    "IdentifiabilityWarning": "partition",
    "Inflation": "confounding",
    "InputError": "errors",
    "LMM": "lmm",
    "LiabilityLMM": "liability",
    "PCA": "structure",
    "Partition": "variant_sets",
    "PartitionedLMM": "partition",
    "Pcgc": "ascertainment",
    "LowRankBasis": "low_rank",
    "Pedigree": "pedigrees",
    "Relatives": "kinship",
    "RepeatedLMM": "repeated",
    "SamplingWarning": "sampling",
    "SimulatedCohort": "simulate",
    "SparseGRM": "sparse_relatedness",
    "calibrate": "calibration",
    "checkpoint": "checkpoints",
    "check_residuals": "residuals",
    "compare": "comparison",
    "design": "designs",
    "eigenbasis": "basis",
    "family_eigenvalues": "designs",
    "finemap": "finemapping",
    "grm": "relatedness",
    "inflation": "confounding",
    "lambda_gc": "association",
    "ld_bins": "variant_sets",
    "ld_scores": "variant_sets",
    "liability_h2": "heritability",
    "load_eigenbasis": "basis",
    "maf_bins": "variant_sets",
    "partition_grms": "variant_sets",
    "pca": "structure",
    "pcgc": "ascertainment",
    "low_rank_basis": "low_rank",
    "pedigree": "pedigrees",
    "prune": "quality",
    "read_genotypes": "genotypes",
    "read_grm": "relatedness",
    "read_phenotypes": "phenotypes",
    "relatives": "kinship",
    "read_sparse_grm": "sparse_relatedness",
    "sample_model": "sampling",
    "sample_qc": "quality",
    "scan": "association",
    "significance_threshold": "thresholds",
    "simulate_cohort": "simulate",
    "sparse_grm": "sparse_relatedness",
    "stepwise": "selection",
    "unrelated": "kinship",
    "unrelated_eigenvalues": "designs",
    "variant_qc": "quality",
    "write_gemma": "relatedness",
    "write_grm": "relatedness",
}
_MODULES = ("datasets", "kernels", "plots", "priors", "transforms")

__all__ = [
    "GRM",
    "LMM",
    "PCA",
    "BivariateLMM",
    "BlockBasis",
    "Eigenbasis",
    "FineMap",
    "Genotypes",
    "IdentifiabilityWarning",
    "Inflation",
    "InputError",
    "LiabilityLMM",
    "LowRankBasis",
    "Partition",
    "PartitionedLMM",
    "Pcgc",
    "Pedigree",
    "Relatives",
    "RepeatedLMM",
    "SamplingWarning",
    "SimulatedCohort",
    "SparseGRM",
    "calibrate",
    "check_residuals",
    "checkpoint",
    "compare",
    "datasets",
    "design",
    "eigenbasis",
    "family_eigenvalues",
    "finemap",
    "grm",
    "inflation",
    "kernels",
    "lambda_gc",
    "ld_bins",
    "ld_scores",
    "liability_h2",
    "load_eigenbasis",
    "low_rank_basis",
    "maf_bins",
    "partition_grms",
    "pca",
    "pcgc",
    "pedigree",
    "plots",
    "priors",
    "prune",
    "read_genotypes",
    "read_grm",
    "read_phenotypes",
    "read_sparse_grm",
    "relatives",
    "sample_model",
    "sample_qc",
    "scan",
    "significance_threshold",
    "simulate_cohort",
    "sparse_grm",
    "stepwise",
    "transforms",
    "unrelated",
    "unrelated_eigenvalues",
    "variant_qc",
    "write_gemma",
    "write_grm",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"bayeslmm.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(f"bayeslmm.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'bayeslmm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
