"""Independent draws, and the data that they are of, as groups of an ArviZ DataTree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.model.lmm import LMM


def in_chains(
    values: Mapping[str, np.ndarray],
    dims: Mapping[str, list[str]],
    coords: Mapping[str, Any],
    attrs: dict[str, Any],
) -> xr.Dataset:
    """Draws by name, first axis the draws, as a dataset with chain and draw.

    Independent draws need no chains; they are dealt into four where their number allows,
    so that r-hat is defined.
    """
    import xarray as xr

    used = {dim for name in values for dim in dims.get(name, [])}
    total = len(next(iter(values.values())))
    chains = 4 if total % 4 == 0 else 1
    shape = (chains, total // chains)
    return xr.Dataset(
        {
            name: (
                ["chain", "draw", *dims.get(name, [])],
                value.reshape(*shape, *value.shape[1:]),
            )
            for name, value in values.items()
        },
        coords={"chain": np.arange(chains), "draw": np.arange(shape[1])}
        | {dim: coord for dim, coord in coords.items() if dim in used},
        attrs=attrs,
    )


def data_groups(model: LMM) -> dict[str, xr.Dataset]:
    """Groups observed_data and constant_data: phenotypes and covariates of a model."""
    import xarray as xr

    sample, covariate = list(model.ids), list(model.C.columns)
    return {
        "observed_data": xr.Dataset({"y": ("sample", model.y)}, {"sample": sample}),
        "constant_data": xr.Dataset(
            {"C": (("sample", "covariate"), model.C.to_numpy())},
            {"sample": sample, "covariate": covariate},
        ),
    }
