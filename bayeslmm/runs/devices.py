"""Where the large matrix products are done: here by NumPy, or on a GPU when asked for.

The only seam to another array library: arrays go there, are multiplied, and come back. It is
written against the array API standard, so that CuPy, PyTorch and whatever follows it will do.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from bayeslmm.errors import InputError, listing

# Variants in a block: products that keep a GPU busy, of rows that a processor prepares meanwhile.
BLOCK_ON_DEVICE = 1024
_LIBRARIES = {
    "cupy": "cupy (such as pip install cupy-cuda13x)",
    "torch": "PyTorch (pip install torch)",
    "array_api_strict": "array-api-strict (pip install array-api-strict)",
}


class Device:
    """Matrix products on a device; make one with `as_device`.

    Parameters
    ----------
    name : str
        "cupy", "torch" or "torch:cuda:1", as `as_device` takes it.
    xp : module
        The namespace of the array API.
    where : object
        What ``xp.asarray(..., device=where)`` takes; None for the library's own choice.
    """

    def __init__(self, name: str, xp: Any, where: Any) -> None:
        self.name, self.xp, self.where = name, xp, where

    def __repr__(self) -> str:
        return f"<Device {self.name}>"

    def send(self, array: np.ndarray) -> Any:
        """The array on the device, in its own precision."""
        contiguous = np.ascontiguousarray(array)
        if not contiguous.flags.writeable:
            contiguous = contiguous.copy()  # a memory map; libraries want to own what they take
        return self.xp.asarray(contiguous, device=self.where)

    def fetch(self, array: Any) -> np.ndarray:
        """An array of the device as a NumPy array."""
        if hasattr(array, "get"):  # CuPy
            return np.asarray(array.get())
        if hasattr(array, "cpu"):  # PyTorch
            return np.asarray(array.cpu().numpy())
        return np.asarray(array)

    def product(self, a: Any, b: Any) -> Any:
        """A B on the device, in the precision of its arrays."""
        return self.xp.matmul(a, b)

    def outer(self, rows: np.ndarray) -> Any:
        """Z' Z of rows Z (b, n), shape (n, n), on the device."""
        z = self.send(rows)
        return self.xp.matmul(self.xp.matrix_transpose(z), z)


def as_device(device: str | Device | None) -> Device | None:
    """The device of that name; None is the processor, by NumPy.

    Parameters
    ----------
    device : str, optional
        ``"cupy"``: the current CUDA device; ``"torch"``: CUDA if there is one, else the
        processor; ``"torch:cuda:1"``, ``"torch:cpu"``: that one of PyTorch. It must know float64.

    Raises
    ------
    InputError
        For another name, a library that is not installed, or a device that is not there.

    Examples
    --------
    >>> as_device(None) is None
    True
    """
    if device is None or isinstance(device, Device):
        return device
    library, _, rest = device.partition(":")
    if library not in _LIBRARIES or (rest and library != "torch"):
        raise InputError(
            f"device='{device}' is unknown; expected one of {listing(_LIBRARIES)}, or a device of "
            "PyTorch such as 'torch:cuda:0'."
        )
    try:
        module = import_module(library)
        if library != "array_api_strict":
            xp = import_module(f"array_api_compat.{library}")
        else:
            xp = module
    except ImportError as error:
        raise InputError(
            f"device='{device}' needs {_LIBRARIES[library]} and array-api-compat "
            "(pip install 'bayeslmm[gpu]')."
        ) from error
    where: Any = None
    try:
        if library == "torch":
            where = module.device(rest or ("cuda" if module.cuda.is_available() else "cpu"))
            # Products in full float32, not in the shorter numbers of tensor cores.
            module.set_float32_matmul_precision("highest")
        made = Device(device, xp, where)
        found = made.fetch(made.outer(np.ones((1, 2), dtype=np.float32)))
    except Exception as error:  # each library has errors of its own for a device that is not there
        raise InputError(f"device='{device}' cannot be used: {error}.") from error
    if found.dtype != np.float32 or not (found == 1).all():
        raise InputError(f"device='{device}' does not multiply as expected.")
    return made
