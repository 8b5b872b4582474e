"""Symmetric matrices kept by their upper triangle."""

import numpy as np
import pytest

from bayeslmm.relatedness.triangle import TILE, Triangle, packed_size, symmetric


@pytest.mark.parametrize("n", [1, 5, TILE, TILE + 1, 2 * TILE + 37])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_triangle_gives_the_matrix_back_in_half_the_memory(n, dtype):
    a = np.random.default_rng(n).standard_normal((n, n)).astype(dtype)
    whole = a + a.T
    below = np.tril(np.ones((n, n), dtype=bool), -1)
    kept = Triangle.of(np.where(below, np.nan, whole))
    found = kept.full()
    np.testing.assert_array_equal(found, whole)
    assert found.dtype == dtype
    assert kept.packed.size == packed_size(n) <= n * (n + TILE) / 2
    np.testing.assert_array_equal(symmetric(kept.upper()), whole)
