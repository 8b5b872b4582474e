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
    from bayeslmm.bases.basis import Eigenbasis, eigenbasis
    from bayeslmm.bases.block import BlockBasis
    from bayeslmm.bases.loading import load_eigenbasis
    from bayeslmm.bases.low_rank import LowRankBasis, low_rank_basis
    from bayeslmm.bases.structure import PCA, pca
    from bayeslmm.binary.ascertainment import Pcgc, pcgc
    from bayeslmm.binary.liability import LiabilityLMM
    from bayeslmm.bivariate.model import BivariateLMM
    from bayeslmm.errors import InputError
    from bayeslmm.generative.sampling import SamplingWarning, sample_model
    from bayeslmm.genome.association import scan, scan_to_file
    from bayeslmm.genome.confounding import Inflation, inflation
    from bayeslmm.genome.finemapping import FineMap, finemap
    from bayeslmm.genome.loci import lambda_gc
    from bayeslmm.genome.scan_files import ScanFile
    from bayeslmm.genome.selection import stepwise
    from bayeslmm.genome.thresholds import significance_threshold
    from bayeslmm.inputs.genotypes import Genotypes, read_genotypes
    from bayeslmm.inputs.phenotypes import read_phenotypes
    from bayeslmm.model.accuracy import Accuracy, prediction_accuracy
    from bayeslmm.model.calibration import calibrate
    from bayeslmm.model.comparison import compare
    from bayeslmm.model.designs import design, family_eigenvalues, unrelated_eigenvalues
    from bayeslmm.model.heritability import liability_h2
    from bayeslmm.model.lmm import LMM
    from bayeslmm.model.residuals import check_residuals
    from bayeslmm.partition.model import IdentifiabilityWarning, PartitionedLMM
    from bayeslmm.relatedness.dense import GRM
    from bayeslmm.relatedness.grm_files import read_grm, write_gemma, write_grm
    from bayeslmm.relatedness.kinship import Relatives, relatives, unrelated
    from bayeslmm.relatedness.pedigrees import Pedigree, pedigree
    from bayeslmm.relatedness.quality import prune, sample_qc, variant_qc
    from bayeslmm.relatedness.simulate import SimulatedCohort, simulate_cohort
    from bayeslmm.relatedness.sparse import SparseGRM, read_sparse_grm, sparse_grm
    from bayeslmm.relatedness.sums import grm
    from bayeslmm.relatedness.variant_sets import (
        Partition,
        ld_bins,
        ld_scores,
        maf_bins,
        partition_grms,
    )
    from bayeslmm.repeated.model import RepeatedLMM
    from bayeslmm.runs.checkpoints import checkpoint

__version__ = "0.1.0"

# Public names and the module of each, imported on first use: `import bayeslmm` costs nothing.
# No module may have the name of a function here: importing it would shadow the function.
_HOME = {
    "Accuracy": "model.accuracy",
    "BivariateLMM": "bivariate.model",
    "BlockBasis": "bases.block",
    "Eigenbasis": "bases.basis",
    "FineMap": "genome.finemapping",
    "GRM": "relatedness.dense",
    "Genotypes": "inputs.genotypes",
    "IdentifiabilityWarning": "partition.model",
    "Inflation": "genome.confounding",
    "InputError": "errors",
    "LMM": "model.lmm",
    "LiabilityLMM": "binary.liability",
    "PCA": "bases.structure",
    "Partition": "relatedness.variant_sets",
    "PartitionedLMM": "partition.model",
    "Pcgc": "binary.ascertainment",
    "LowRankBasis": "bases.low_rank",
    "Pedigree": "relatedness.pedigrees",
    "Relatives": "relatedness.kinship",
    "RepeatedLMM": "repeated.model",
    "SamplingWarning": "generative.sampling",
    "ScanFile": "genome.scan_files",
    "SimulatedCohort": "relatedness.simulate",
    "SparseGRM": "relatedness.sparse",
    "calibrate": "model.calibration",
    "checkpoint": "runs.checkpoints",
    "check_residuals": "model.residuals",
    "compare": "model.comparison",
    "design": "model.designs",
    "eigenbasis": "bases.basis",
    "family_eigenvalues": "model.designs",
    "finemap": "genome.finemapping",
    "grm": "relatedness.sums",
    "inflation": "genome.confounding",
    "lambda_gc": "genome.loci",
    "ld_bins": "relatedness.variant_sets",
    "ld_scores": "relatedness.variant_sets",
    "liability_h2": "model.heritability",
    "load_eigenbasis": "bases.loading",
    "maf_bins": "relatedness.variant_sets",
    "partition_grms": "relatedness.variant_sets",
    "pca": "bases.structure",
    "pcgc": "binary.ascertainment",
    "low_rank_basis": "bases.low_rank",
    "pedigree": "relatedness.pedigrees",
    "prediction_accuracy": "model.accuracy",
    "prune": "relatedness.quality",
    "read_genotypes": "inputs.genotypes",
    "read_grm": "relatedness.grm_files",
    "read_phenotypes": "inputs.phenotypes",
    "relatives": "relatedness.kinship",
    "read_sparse_grm": "relatedness.sparse",
    "sample_model": "generative.sampling",
    "sample_qc": "relatedness.quality",
    "scan": "genome.association",
    "scan_to_file": "genome.association",
    "significance_threshold": "genome.thresholds",
    "simulate_cohort": "relatedness.simulate",
    "sparse_grm": "relatedness.sparse",
    "stepwise": "genome.selection",
    "unrelated": "relatedness.kinship",
    "unrelated_eigenvalues": "model.designs",
    "variant_qc": "relatedness.quality",
    "write_gemma": "relatedness.grm_files",
    "write_grm": "relatedness.grm_files",
}
_MODULES = ("datasets", "kernels", "plots", "priors", "transforms")

__all__ = [
    "GRM",
    "LMM",
    "PCA",
    "Accuracy",
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
    "ScanFile",
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
    "prediction_accuracy",
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
    "scan_to_file",
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
