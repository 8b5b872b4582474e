"""NUTS on a PyMC model whose data may change: compiled once, started at once.

`nutpie.compile_pymc_model` turns a model into a C function, some five seconds of work that
no cache on disk saves. What PyTensor compiles is kept on disk. Here nutpie calls the latter,
through Python: ten microseconds more for each gradient, of which there are some 10,000.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr


class Density:
    """The log density of a model, its gradient, and the variables that are wanted.

    Parameters
    ----------
    model : pymc.Model
        Any model of continuous variables.
    names : iterable of str
        Variables that are computed from the draws, if the model has them.
    """

    def __init__(self, model: pm.Model, names: Iterable[str]) -> None:
        from pymc.pytensorf import compile as compile_graph
        from pymc.pytensorf import join_nonshared_inputs

        self.model = model
        self.names = [name for name in names if name in model.named_vars]
        start = model.initial_point(0)
        (logp, gradient), point = join_nonshared_inputs(
            start, [model.logp(), model.dlogp()], model.value_vars, make_inputs_shared=False
        )
        with model:
            function = compile_graph([point], [logp, gradient], mode="NUMBA")
        self._evaluate = function.vm.jit_fn
        self._shared = function.get_shared()
        self._variables = self._compile_variables()

    def _compile_variables(self) -> Any:
        """The wanted variables at many points; evaluated once, so interpreted."""
        from pytensor.compile.maker import function as compile_function
        from pytensor.graph.replace import vectorize_graph
        from pytensor.tensor.type import TensorType

        values = self.model.value_vars
        many = [TensorType("float64", shape=(None, *v.type.shape))() for v in values]
        wanted = self.model.replace_rvs_by_values([self.model[name] for name in self.names])
        vectorized = vectorize_graph(wanted, dict(zip(values, many, strict=True)))
        return compile_function(many, vectorized, mode="FAST_COMPILE", on_unused_input="ignore")

    def set_data(self, other: pm.Model) -> None:
        """Take the data of another model of the same shape."""
        for variable in self.model.data_vars:
            variable.set_value(other[variable.name].get_value())

    def sample(
        self, *, chains: int, seed: int, progress: bool = False, **settings: Any
    ) -> tuple[dict[str, np.ndarray], xr.Dataset]:
        """Draws of the wanted variables, shapes (chain, draw, ...), and the sampler's statistics.

        `settings` are those of `nutpie.sample`: draws, tune, target_accept.
        """
        import nutpie
        from nutpie.compiled_pyfunc import from_pyfunc

        start = self.model.initial_point(0)
        center = np.concatenate([np.ravel(start[v.name]) for v in self.model.value_vars])
        data = [np.array(variable.get_value(), order="C") for variable in self._shared]

        def log_density(point: np.ndarray) -> tuple[float, np.ndarray]:
            logp, gradient = self._evaluate(point, *data)
            return float(logp), gradient

        def around_center(chain_seed: int) -> np.ndarray:
            rng = np.random.default_rng(chain_seed)
            return center + rng.uniform(-1, 1, len(center))

        compiled = from_pyfunc(
            len(center),
            lambda: log_density,
            lambda *_: lambda point: {"point": np.array(point)},
            [np.dtype("float64")],
            [(len(center),)],
            ["point"],
            make_initial_point_fn=around_center,
        )
        # Chains on several cores would only wait for each other, to call Python.
        tree = nutpie.sample(
            compiled,
            chains=chains,
            seed=seed,
            cores=1,
            save_warmup=False,
            progress_bar=progress,
            **settings,
        )
        points = tree["posterior"]["point"].to_numpy()
        return self._unpack(points, start), tree["sample_stats"].dataset

    def _unpack(self, points: np.ndarray, start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        flat = points.reshape(-1, points.shape[-1])
        shapes = [np.shape(start[v.name]) for v in self.model.value_vars]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        values = [
            part.reshape(-1, *shape)
            for part, shape in zip(np.split(flat, ends[:-1], axis=1), shapes, strict=True)
        ]
        found = dict(zip(self.names, self._variables(*values), strict=True))
        lead = points.shape[:2]
        # What depends on data only is the same for all draws.
        return {
            name: value.reshape(*lead, *value.shape[1:])
            if len(value.shape) > self.model[name].ndim
            else np.broadcast_to(value, (*lead, *value.shape))
            for name, value in found.items()
        }
