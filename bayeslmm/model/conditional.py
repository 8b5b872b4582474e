"""Quantities given each posterior draw, diagonal on the basis: nothing is inverted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.errors import InputError
from bayeslmm.model.snps import SelectedSnps
from bayeslmm.numerics.chebyshev import lagrange, nodes_over

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.model.lmm import LMM


class Conditional:
    """Quantities given each posterior draw, all by products with U; nothing is inverted.

    Parameters
    ----------
    model : LMM
        The model of the draws.
    posterior : Dataset
        Draws of s2_g, s2_e, b and, with SNPs, beta.
    snps : SelectedSnps
        Their centred dosages.
    """

    def __init__(self, model: LMM, posterior: xr.Dataset, snps: SelectedSnps) -> None:
        if model.basis is None:
            raise InputError("Without kernel there are no random effects.")
        if "s2_g" not in posterior or posterior["b"].shape[-1] != model.C.shape[1]:
            raise InputError("These draws are of another model: covariates differ.")
        self.basis = model.basis
        self.S = np.asarray(model.basis.values)
        self.s2_g = posterior["s2_g"].to_numpy().reshape(-1)
        self.s2_e = posterior["s2_e"].to_numpy().reshape(-1)
        b = posterior["b"].to_numpy().reshape(len(self.s2_g), -1)
        design = model.C.to_numpy()
        if len(snps.ids):
            design = np.column_stack([design, snps.x])
            b = np.column_stack([b, posterior["beta"].to_numpy().reshape(len(b), -1)])
        self.b = b
        self.design = self.basis.rotate(design)
        self.rotated_y = self.basis.rotate(model.y)[:, None]

    def pieces(self) -> Iterable[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Draws in pieces that bound memory: residual (n, d), s2_g S (n, d), s2_e (d)."""
        step = max(1, 2**23 // len(self.S))
        for start in range(0, len(self.s2_g), step):
            part = slice(start, start + step)
            residual = self.rotated_y - self.design @ self.b[part].T
            yield part, residual, self.S[:, None] * self.s2_g[part], self.s2_e[part]

    def log_likelihood(self) -> np.ndarray:
        """log p(y_i | y_-i, draw), shape (draws, n): leave one individual out.

        Bürkner, Gabry & Vehtari (2021), Comput Stat 36:1243: with q = V^-1 (y - C b) and
        c = diag V^-1, y_i given the others is normal with mean y_i - q_i / c_i and
        variance 1 / c_i.
        """
        nodes = self._ratio_nodes()
        if len(nodes) * (2 + self.design.shape[1]) < min(len(self.S), len(self.s2_g)):
            return self._interpolated_log_likelihood(nodes)
        out = np.empty((len(self.s2_g), len(self.S)))
        for part, residual, genetic, s2_e in self.pieces():
            w = 1 / (genetic + s2_e)
            q = self.basis.unrotate(w * residual)
            c = self.basis.row_quadratic(w)
            out[part] = (0.5 * (np.log(c / (2 * np.pi)) - q * q / c)).T
        return out

    def _ratio_nodes(self) -> np.ndarray:
        """Chebyshev nodes in log(s2_g / s2_e) that interpolate functions of V in all draws.

        Ratios so small that V = s2_e I to machine
        precision count as equal.
        """
        t = self._log_ratio()
        if not np.isfinite(t).all():
            return np.empty(len(self.S))
        return nodes_over(t, 40)

    def _log_ratio(self) -> np.ndarray:
        with np.errstate(divide="ignore"):
            ratio = self.s2_g / self.s2_e
        return np.log(np.maximum(ratio, 1e-17 / self.S.max()))

    def _interpolated_log_likelihood(self, nodes: np.ndarray) -> np.ndarray:
        """`log_likelihood` with U times few columns, then a small product for each draw."""
        n, columns = len(self.S), np.column_stack([self.rotated_y, self.design])
        w = 1 / (np.exp(nodes) * self.S[:, None] + 1)
        weighted = (w[:, :, None] * columns[:, None, :]).reshape(n, -1)
        q_nodes, c_nodes = self.basis.unrotate(weighted), self.basis.row_quadratic(w)
        basis_functions = lagrange(nodes, self._log_ratio()) / self.s2_e[:, None]
        coefficients = np.column_stack([np.ones(len(self.b)), -self.b])
        out = np.empty((len(self.s2_g), n))
        step = max(1, 2**20 // n)
        for start in range(0, len(out), step):
            part = slice(start, start + step)
            both = basis_functions[part, :, None] * coefficients[part, None, :]
            q = both.reshape(len(both), -1) @ q_nodes.T
            c = basis_functions[part] @ c_nodes.T
            out[part] = 0.5 * (np.log(c / (2 * np.pi)) - q * q / c)
        return out

    def joint_log_likelihood(self) -> np.ndarray:
        """log p(y | draw), shape (draws,): of all samples together."""
        out = np.empty(len(self.s2_g))
        for part, residual, genetic, s2_e in self.pieces():
            v = genetic + s2_e
            out[part] = -0.5 * (np.log(2 * np.pi * v) + residual**2 / v).sum(axis=0)
        return out

    def draw_u(self, rng: np.random.Generator) -> np.ndarray:
        """One draw of u given y and each draw, shape (draws, n): exact, diagonal on the basis."""
        out = np.empty((len(self.s2_g), len(self.S)))
        for part, residual, genetic, s2_e in self.pieces():
            gain = genetic / np.maximum(genetic + s2_e, 1e-300)
            z = gain * residual + np.sqrt(gain * s2_e) * rng.standard_normal(gain.shape)
            out[part] = self.basis.unrotate(z).T
        return out

    def replicate(self, rng: np.random.Generator) -> np.ndarray:
        """New phenotypes of the same samples, u and e drawn anew, shape (draws, n)."""
        out = np.empty((len(self.s2_g), len(self.S)))
        for part, residual, genetic, s2_e in self.pieces():
            noise = np.sqrt(genetic + s2_e) * rng.standard_normal(genetic.shape)
            out[part] = self.basis.unrotate(self.rotated_y - residual + noise).T
        return out
