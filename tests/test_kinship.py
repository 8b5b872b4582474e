"""Kinship against plink2, brute force and known families; unrelated subsets against all subsets."""

import itertools
import logging

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.relatedness import kinship
from bayeslmm.relatedness.kinship import DEGREES, LIMITS, independent_set


def brute_force(x):
    """Counts of every pair, variant by variant."""
    rows = []
    for i, j in itertools.combinations(range(len(x)), 2):
        both = ~np.isnan(x[i]) & ~np.isnan(x[j])
        a, b = x[i, both], x[j, both]
        het = min((a == 1).sum(), (b == 1).sum())
        rows.append(
            {
                "id1": str(i),
                "id2": str(j),
                "n_snps": both.sum(),
                "het_het": ((a == 1) & (b == 1)).mean(),
                "ibs0": (abs(a - b) == 2).mean(),
                "kinship": 0.5 - ((a - b) ** 2).sum() / (4 * het),
            }
        )
    return pd.DataFrame(rows).set_index(["id1", "id2"])


def same_pairs(table, other):
    found = table.set_index(["id1", "id2"]).loc[other.index]
    np.testing.assert_array_equal(found.n_snps, other.n_snps)
    for column in ("het_het", "ibs0", "kinship"):
        np.testing.assert_allclose(found[column], other[column], rtol=0, atol=1e-12)


@pytest.fixture
def genotypes_with_missing(rng):
    x = rng.binomial(2, rng.uniform(0.2, 0.8, 300), size=(30, 300)).astype(float)
    x[rng.random(x.shape) < 0.02] = np.nan
    x[0, :50] = np.nan
    return x


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("block_size", [None, 70])
def test_counts_are_those_of_brute_force(rng, share, block_size):
    x = rng.binomial(2, rng.uniform(0.2, 0.8, 300), size=(30, 300)).astype(float)
    x[rng.random(x.shape) < share] = np.nan
    found = bl.relatives(x, min_kinship=None, block_size=block_size)
    assert len(found.pairs) == 30 * 29 // 2
    same_pairs(found.pairs, brute_force(x))


def test_tiles_of_samples_give_the_same(genotypes_with_missing, monkeypatch):
    x = genotypes_with_missing
    whole = bl.relatives(x, min_kinship=None)
    monkeypatch.setattr(kinship, "available_memory", lambda: 2 * 6 * 4 * 30 * 30 / 7)
    tiled = bl.relatives(x, min_kinship=None)
    pd.testing.assert_frame_equal(whole.pairs, tiled.pairs)


def test_the_table_keeps_close_pairs_closest_first(genotypes_with_missing):
    x = genotypes_with_missing
    everyone = bl.relatives(x, min_kinship=None).pairs
    close = bl.relatives(x, min_kinship=0.03).pairs
    assert (np.diff(close.kinship) <= 0).all()
    expected = everyone[everyone.kinship >= 0.03].reset_index(drop=True)
    pd.testing.assert_frame_equal(close, expected)


def test_kinship_of_the_mice_is_plink2s(mice, golden):
    peer = pd.read_csv(golden / "plink2_mice.kin0.tsv.gz", sep="\t", dtype={"IID1": str})
    placed = mice.genotypes.select(variants=(mice.genotypes.variants.pos > 0).to_numpy())
    found = bl.relatives(placed, min_kinship=0.2).pairs
    assert len(found) == len(peer)
    # plink2 names the later sample first.
    peer = peer.set_index(["IID2", "IID1"])
    found = found.set_index(["id1", "id2"]).loc[peer.index]
    assert (found.n_snps == peer.NSNP).all()
    # 6 printed digits
    for ours, theirs in {"kinship": "KINSHIP", "ibs0": "IBS0", "het_het": "HETHET"}.items():
        assert np.abs(found[ours] - peer[theirs]).max() < 5.1e-7, ours


def families(golden):
    return bl.read_genotypes(golden / "plink2_families")


def test_kinship_with_missing_genotypes_is_plink2s(golden):
    peer = pd.read_csv(golden / "plink2_families.kin0.tsv.gz", sep="\t", dtype={"IID1": str})
    peer = peer.set_index(["IID2", "IID1"])
    found = bl.relatives(families(golden), min_kinship=None).pairs
    assert len(found) == len(peer) == 120 * 119 // 2
    found = found.set_index(["id1", "id2"]).loc[peer.index]
    calls = pd.DataFrame(families(golden).to_array()).set_axis(families(golden).samples.index)
    there = calls.notna()
    others = found.index[found.n_snps != peer.NSNP]
    assert len(others) == 2  # in which plink2's NSNP is one more than there are
    for i, j in others:
        assert found.n_snps[(i, j)] == (there.loc[i] & there.loc[j]).sum() == peer.NSNP[(i, j)] - 1
    assert np.abs(found.ibs0 * found.n_snps - peer.IBS0).max() < 1e-9
    assert np.abs(found.het_het * found.n_snps - peer.HETHET).max() < 1e-9
    assert np.abs(found.kinship - peer.KINSHIP).max() < 5.1e-7


def true_degrees(pedigree, ids):
    """What each pair is by the pedigree, for pairs of samples (i < j)."""
    place = pedigree.ids.get_indexer(ids)
    A = pedigree.grm().subset(ids).matrix
    sire, dam = pedigree.sire[place], pedigree.dam[place]
    truth = {}
    for i, j in itertools.combinations(range(len(ids)), 2):
        child = place[i] in (sire[j], dam[j]) or place[j] in (sire[i], dam[i])
        power = {0.5: 1, 0.25: 2, 0.125: 3}.get(float(A[i, j]), 0)
        name = DEGREES[1 + power] if power else "unrelated"
        truth[ids[i], ids[j]] = "parent-offspring" if child else name
    return pd.Series(truth)


def test_every_first_degree_pair_of_known_families_is_found(golden):
    found = bl.relatives(families(golden), min_kinship=None)
    table = found.pairs.set_index(["id1", "id2"])
    first, twin = found.samples[0], "twin"
    assert table.degree[(first, twin)] == "duplicate/MZ"
    pedigree = bl.pedigree(
        pd.read_csv(golden / "plink2_families.pedigree.tsv", sep="\t", dtype=str)
    )
    truth = true_degrees(pedigree, found.samples[:-1])
    called = table.degree.astype(str).loc[truth.index]
    for degree in ("parent-offspring", "full sibs"):
        assert (truth == degree).sum() >= 20
        assert (called[truth == degree] == degree).all(), degree
        assert (truth[called == degree] == degree).all(), degree
    # 3,000 SNPs cannot tell 3rd-degree pairs from others surely, but they have no
    # unrelated pair among the close ones.
    assert not (called[truth == "unrelated"].isin(DEGREES[:4])).any()


def test_simulated_families_have_their_degrees():
    cohort = bl.simulate_cohort(None, 400, 20_000, families=10, unsampled=0.1, seed=11)
    found = bl.relatives(cohort.genotypes, min_kinship=None)
    truth = true_degrees(cohort.pedigree, found.samples)
    called = found.pairs.set_index(["id1", "id2"]).degree.astype(str).loc[truth.index]
    for degree in ("parent-offspring", "full sibs"):
        assert (truth == degree).sum() > 100
        assert (called[truth == degree] == degree).all()
        assert (truth[called == degree] == degree).mean() > 0.99  # a 2nd-degree pair at 0.181
    second, third = truth == "2nd degree", truth == "3rd degree"
    assert (called[second] == "2nd degree").mean() > 0.9
    assert called[third].isin(["2nd degree", "3rd degree"]).mean() > 0.75
    assert (called[truth == "unrelated"] == "unrelated").all()


def test_what_relatives_print(golden):
    found = bl.relatives(families(golden))
    text = repr(found)
    assert "120 samples of plink2_families (7,140 pairs), 3,000 variants" in text
    assert "duplicate/MZ                1\n" in text
    assert found.counts.sum() == 7140
    assert f"kinship from {LIMITS[3]:.4g}" in text
    assert "<table" in found._repr_html_()
    assert "more pairs" in found._repr_html_()


def test_sex_chromosomes_are_left_out(rng, caplog):
    x = rng.binomial(2, 0.5, size=(5, 60))
    table = pd.DataFrame({"id": [f"v{j}" for j in range(60)], "chrom": ["1"] * 40 + ["chrX"] * 20})
    genotypes = bl.Genotypes.from_array(x, variants=table)
    with caplog.at_level(logging.INFO, logger="bayeslmm"):
        found = bl.relatives(genotypes, min_kinship=None)
    assert "20 variants outside the autosomes left out" in caplog.text
    assert found.n_variants == 40
    same_pairs(found.pairs, brute_force(x[:, :40].astype(float)))


def test_imputed_dosages_are_refused(rng):
    x = rng.binomial(2, 0.5, size=(5, 10)).astype(float)
    x[2, 3] = 0.4
    with pytest.raises(bl.InputError, match=r"variant 'snp4' of sample '2' has dosage 0\.4"):
        bl.relatives(x)


def test_samples_without_heterozygotes_are_refused():
    with pytest.raises(bl.InputError, match="without heterozygous genotypes"):
        bl.relatives(np.array([[0, 2, 0, 2], [0, 0, 2, 2], [1, 1, 0, 2]]))


def test_one_sample_is_no_pair():
    with pytest.raises(bl.InputError, match="a pair needs two samples"):
        bl.relatives(np.array([[0, 1, 2]]))


# -- unrelated subsets -------------------------------------------------------------------------


def largest_by_all_subsets(n, edges):
    for size in range(n, 0, -1):
        for chosen in itertools.combinations(range(n), size):
            inside = set(chosen)
            if not any(i in inside and j in inside for i, j in edges):
                return size
    return 0


@pytest.mark.parametrize("density", [0.1, 0.25, 0.5])
def test_independent_sets_are_largest(rng, density):
    for _ in range(15):
        n = int(rng.integers(4, 13))
        edges = [p for p in itertools.combinations(range(n), 2) if rng.random() < density]
        i, j = np.array(edges, dtype=int).reshape(-1, 2).T
        keep, proven = independent_set(n, i, j)
        assert proven
        assert not (keep[i] & keep[j]).any()
        assert keep.sum() == largest_by_all_subsets(n, edges)


def test_without_exact_search_the_set_is_still_maximal(rng, monkeypatch):
    monkeypatch.setattr(kinship, "_EXACT_VERTICES", 0)
    n = 60
    edges = [p for p in itertools.combinations(range(n), 2) if rng.random() < 0.1]
    i, j = np.array(edges).T
    keep, proven = independent_set(n, i, j)
    assert not proven
    assert not (keep[i] & keep[j]).any()
    near = np.zeros((n, n), dtype=bool)
    near[i, j] = near[j, i] = True
    assert near[~keep][:, keep].any(axis=1).all()


def test_greedy_is_beaten_where_it_fails():
    # Every vertex of the inner four has degree 3 or more; greedy by degree keeps 3 of 7.
    edges = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 5), (3, 6), (4, 5), (5, 6), (4, 6)]
    i, j = np.array(edges).T
    keep, proven = independent_set(7, i, j)
    assert proven
    assert keep.sum() == largest_by_all_subsets(7, edges)


def test_unrelated_subset_of_families(golden):
    found = bl.relatives(families(golden))
    kept = bl.unrelated(found)
    assert kept.equals(found.unrelated())
    assert not (found.pairs.id1.isin(kept) & found.pairs.id2.isin(kept)).any()
    assert {found.samples[0], "twin"} - set(kept)
    wider = bl.unrelated(found, max_kinship=LIMITS[1])
    assert len(wider) > len(kept)
    assert bl.unrelated(families(golden), LIMITS[1]).equals(wider)
    with pytest.raises(bl.InputError, match="Make it with a smaller min_kinship"):
        bl.unrelated(found, max_kinship=0.01)


def test_a_subset_that_is_not_proven_is_said(mice, caplog):
    some = mice.genotypes.select(samples=mice.genotypes.samples.index[:500])
    with caplog.at_level(logging.INFO, logger="bayeslmm"):
        kept = bl.unrelated(some)
    assert f"Unrelated: {len(kept)} of 500 samples; a larger subset cannot be ruled out" in (
        caplog.text
    )
