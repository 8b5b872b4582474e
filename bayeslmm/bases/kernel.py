"""What models take for relatedness, and the basis of their samples that it makes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayeslmm.bases.basis import Basis
from bayeslmm.errors import InputError
from bayeslmm.relatedness.dense import HasGRM, Relatedness, as_grm

type Kernel = Relatedness | HasGRM | Basis | pd.DataFrame | np.ndarray


def as_kernel(kernel: Kernel) -> Relatedness | Basis:
    """A matrix or a basis as it is; what makes a matrix, or is one without a name, as a `GRM`."""
    return kernel if isinstance(kernel, Basis | Relatedness) else as_grm(kernel)


def kernel_basis(kernel: Relatedness | Basis, ids: pd.Index, *, has_intercept: bool) -> Basis:
    """The basis of some samples of a kernel, centred if the covariates span the constant.

    Raises
    ------
    InputError
        If the kernel is the basis of a centred matrix, but the model has no intercept.
    """
    if isinstance(kernel, Relatedness):
        return kernel.eigenbasis(ids, center=has_intercept)
    if kernel.needs_intercept and not has_intercept:
        raise InputError(
            "The model has no intercept, but the basis is of a centred kernel. Use "
            "bl.eigenbasis(grm, center=False), or keep the intercept."
        )
    return kernel.subset(ids)
