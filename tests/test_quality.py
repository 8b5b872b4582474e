"""Quality tables and pruning against plink2 and enumeration."""

import gzip
from math import comb, factorial

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.relatedness import quality
from bayeslmm.relatedness.quality import hardy_weinberg


@pytest.fixture(scope="module")
def families(golden):
    return bl.read_genotypes(golden / "plink2_families")


def ids_of(path):
    with gzip.open(path, "rt") as file:
        return file.read().split()


def test_hardy_weinberg_is_plink2s(families, golden):
    found = bl.variant_qc(families)
    peer = pd.read_csv(golden / "plink2_families.hardy.tsv.gz", sep="\t")
    assert list(found.id) == list(peer.ID)
    # plink2's A1 is the major allele here or there; the counts of the two homozygotes swap.
    ours = np.sort(found[["n_ea2", "n_oa2"]], axis=1)
    theirs = np.sort(peer[["HOM_A1_CT", "TWO_AX_CT"]], axis=1)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found.n_het, peer.HET_A1_CT)
    np.testing.assert_allclose(found.p_hwe, peer.P, rtol=6e-6)  # 6 printed digits
    np.testing.assert_allclose(found.het, peer["O(HET_A1)"], atol=5.1e-7)
    np.testing.assert_allclose(found.het_expected, peer["E(HET_A1)"], atol=5.1e-7)
    assert (found.n_missing + found[["n_ea2", "n_het", "n_oa2"]].sum(axis=1) == 120).all()
    np.testing.assert_allclose(found.maf, families.qc().maf)


def test_heterozygosity_is_plink2s(families, golden, mice):
    placed = mice.genotypes.select(variants=(mice.genotypes.variants.pos > 0).to_numpy())
    for genotypes, name in ((families, "families"), (placed, "mice")):
        found = bl.sample_qc(genotypes)
        peer = pd.read_csv(golden / f"plink2_{name}.het.tsv.gz", sep="\t", dtype={"IID": str})
        peer = peer.set_index("IID").loc[found.index]
        np.testing.assert_allclose(found.f, peer.F, atol=1e-6)
    found = bl.sample_qc(families)
    calls = families.to_array()
    np.testing.assert_array_equal(found.n_missing, np.isnan(calls).sum(axis=1))
    np.testing.assert_allclose(found.het, np.nanmean(calls == 1, axis=1, where=~np.isnan(calls)))


def exact_p(rare, het, common):
    """Enumeration in rational numbers."""
    n, minor = rare + het + common, 2 * rare + het
    ways = {
        h: factorial(n)
        // (factorial((minor - h) // 2) * factorial(h) * factorial(n - h - (minor - h) // 2))
        * 2**h
        for h in range(minor % 2, min(minor, 2 * n - minor) + 1, 2)
    }
    assert sum(ways.values()) == comb(2 * n, minor)
    return sum(w for w in ways.values() if w <= ways[het]) / comb(2 * n, minor)


def test_exact_test_is_the_enumeration():
    tables = [(a, b, c) for a in range(6) for b in range(9) for c in range(a, 12) if a + b + c]
    expected = [exact_p(*t) for t in tables]
    found = hardy_weinberg(*np.array(tables).T)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    swapped = hardy_weinberg(*np.array(tables).T[::-1])
    np.testing.assert_array_equal(found, swapped)


def test_far_tails_and_large_samples():
    found = hardy_weinberg(np.array([50, 250_000]), np.array([0, 0]), np.array([50, 250_000]))
    assert 0 < found[0] < 1e-28
    np.testing.assert_allclose(found[0], exact_p(50, 0, 50), rtol=1e-9)
    assert found[1] == 0
    middle = hardy_weinberg(np.array([125_000]), np.array([250_300]), np.array([124_700]))[0]
    z = (250_300 - 250_000) / np.sqrt(500_000 / 4)
    from scipy.stats import norm

    np.testing.assert_allclose(middle, 2 * norm.sf(z), rtol=0.01)


@pytest.mark.parametrize(
    ("name", "window", "step", "r2"),
    [
        ("families", 50, 5, 0.2),
        ("families", 20, 3, 0.4),
        ("mice", 50, 5, 0.2),
        ("mice", 100, 10, 0.8),
    ],
)
def test_pruning_is_plink2s(families, mice, golden, name, window, step, r2):
    genotypes = mice.genotypes.select(variants=(mice.genotypes.variants.pos > 0).to_numpy())
    genotypes = families if name == "families" else genotypes
    kept = bl.prune(genotypes, window=window, step=step, r2=r2)
    assert list(kept) == ids_of(golden / f"plink2_{name}_{window}_{step}_{r2}.prune.in.gz")


@pytest.mark.algebra
@pytest.mark.parametrize("missing", [0.0, 0.05])
def test_neighbours_are_all_pairs_above_the_limit(missing):
    """In windows wider than a block of a product: against correlations of pairs one by one."""
    rng = np.random.default_rng(2)
    x = rng.binomial(2, 0.4, size=(60, 700)).astype(float)
    for j in range(100):  # copies with errors, near and far
        to = rng.integers(700)
        x[:, to] = np.where(rng.random(60) < 0.8, x[:, j], x[:, to])
    x[rng.random(x.shape) < missing] = np.nan
    g = bl.Genotypes.from_array(x)
    near, _ = quality._neighbours(g, 300, 0.3)
    r = pd.DataFrame(x).corr().to_numpy()
    i, j = np.triu_indices(700, 1)
    pairs = {(a, b) for a, b in zip(i, j, strict=True) if b - a < 300 and r[a, b] ** 2 > 0.3}
    assert {(a, a + d) for a in range(700) for d in range(1, 300) if near[a] >> d & 1} == pairs
    assert len(pairs) > 20


def test_windows_in_kilobases_leave_no_close_pair(families):
    kept = bl.prune(families, window_kb=3000, r2=0.3)
    left = families.select(variants=kept)
    assert 0.3 * families.n_variants < len(kept) < families.n_variants
    for chrom in left.chromosomes:
        view = left.select(chrom=chrom)
        x = pd.DataFrame(view.to_array())
        far = np.abs(np.subtract.outer(*[view.variants.pos.to_numpy()] * 2)) > 3e6
        r2 = x.corr().to_numpy() ** 2
        assert (np.triu(r2, 1)[~far] <= 0.3).all()


def test_pruning_refuses(mice, families):
    with pytest.raises(bl.InputError, match="positions on chromosome 1 are unknown or not in"):
        bl.prune(mice.genotypes.select(chrom=1), window_kb=500)
    with pytest.raises(bl.InputError, match="r2 must be between 0 and 1"):
        bl.prune(families, r2=1.5)
    with pytest.raises(bl.InputError, match="need 1 <= step <= window"):
        bl.prune(families, window=5, step=9)
    with pytest.raises(bl.InputError, match="window_kb must be above 0"):
        bl.prune(families, window_kb=-1)
    twice = bl.Genotypes.from_array(np.array([[0, 1], [1, 2]]), variants=["a", "a"])
    with pytest.raises(bl.InputError, match="Variant ids come twice: 'a'"):
        bl.prune(twice)
