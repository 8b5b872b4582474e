"""The simulator: what it says about its cohorts is true of them."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from plink import bed_bytes

import bayeslmm as bl
from bayeslmm.relatedness import simulate


def test_relatives_share_what_the_pedigree_says():
    cohort = bl.simulate_cohort(None, 1500, 2000, families=10, seed=1)
    x = cohort.genotypes.to_array()
    p = cohort.effects.frequency.to_numpy()
    z = (x - 2 * p) / np.sqrt(2 * p * (1 - p))
    K = z @ z.T / len(p)
    A = cohort.pedigree.grm(cohort.genotypes.samples.index).matrix
    assert set(np.unique(A).round(4)) == {0, 0.125, 0.25, 0.5, 1}  # cousins, grandparents, sibs
    upper = np.triu_indices(len(A), 1)
    sharing, pairs = A[upper], K[upper]
    assert np.abs(np.diagonal(K).mean() - 1) < 0.01
    for value in (0, 0.125, 0.25, 0.5):
        found = pairs[np.abs(sharing - value) < 1e-6]
        assert np.abs(found.mean() - value) < 4 * 0.06 / np.sqrt(len(found))
    # Only linked genomes let sibs vary as they do (Visscher 2006: sd of 0.039).
    assert 0.03 < pairs[np.abs(sharing - 0.5) < 1e-6].std() < 0.06


def test_children_get_one_allele_of_each_parent():
    cohort = bl.simulate_cohort(None, 400, 60, families={8: 1.0}, unsampled=0, seed=2)
    samples = cohort.genotypes.samples
    x = pd.DataFrame(cohort.genotypes.to_array(), samples.index)
    children = samples.index[samples.father != "0"]
    assert 150 < len(children) < 300
    father, mother = (
        x.loc[samples.loc[children, side]].to_numpy() for side in ("father", "mother")
    )
    child = x.loc[children].to_numpy()
    low = (father == 2).astype(int) + (mother == 2)
    high = 2 - (father == 0).astype(int) - (mother == 0)
    assert ((child >= low) & (child <= high)).all()
    assert set(samples.loc[samples.loc[children, "father"], "sex"]) == {"1"}
    assert set(samples.loc[samples.loc[children, "mother"], "sex"]) == {"2"}


def test_families_have_the_sizes_asked_for():
    cohort = bl.simulate_cohort(None, 3000, 1, families={1: 3, 4: 1}, seed=3)
    sizes = cohort.genotypes.samples.fid.value_counts()
    assert len(cohort.genotypes.samples) == 3000
    assert set(sizes[:-1]) <= {1, 4}
    assert np.abs((sizes == 1).mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / len(sizes))
    assert bl.simulate_cohort(None, 50, 1, seed=3).genotypes.samples.fid.nunique() == 50


def test_frequencies_and_the_decay_of_linkage_disequilibrium():
    n, m, ld = 4000, 300, 50_000.0
    cohort = bl.simulate_cohort(
        None, n, m, frequency=(0.3, 0.3), ld=ld, chromosomes=2, missing=0.03, seed=4
    )
    x = cohort.genotypes.to_array()
    assert np.abs(np.isnan(x).mean() - 0.03) < 4 * np.sqrt(0.03 * 0.97 / x.size)
    p = cohort.effects.frequency.to_numpy()
    z = (np.nanmean(x, axis=0) / 2 - p) / np.sqrt(p * (1 - p) / (2 * 0.97 * n))
    assert np.abs(z).max() < 4.5
    assert 0.4 < (p < 0.5).mean() < 0.6
    # Variants of the same frequency, put near each other: r = exp(-distance / ld).
    people = simulate._people(n, {1: 1.0}, 0.0, np.random.default_rng(1))
    distance = np.array([0, 10_000, 40_000, 150_000])
    chrom = ["1"] * 4 + ["2"]
    table = pd.DataFrame({"chrom": chrom, "pos": [*distance, 150_001]})
    rows = simulate._dosages(people, table, np.full(5, 0.25), ld, 0, np.random.default_rng(2))
    r = np.corrcoef(np.array([row for row, _ in rows]))
    assert r[0, :4] == pytest.approx(np.exp(-distance / ld), abs=4 / np.sqrt(n))
    assert abs(r[3, 4]) < 4 / np.sqrt(n)  # another chromosome


def test_the_heritability_is_the_one_stated():
    cohort = bl.simulate_cohort(None, 3000, 400, families=6, h2=0.4, causal=100, seed=5)
    effects = cohort.effects
    assert (effects.effect != 0).sum() == 100
    x = cohort.genotypes.to_array()
    u = (x - 2 * effects.frequency.to_numpy()) @ effects.effect.to_numpy()
    assert cohort.u.to_numpy() == pytest.approx(u)
    ph = cohort.phenotypes
    e = ph.y - 0.25 * ph.sex - 0.01 * ph.age - cohort.u
    assert e.var() == pytest.approx(0.6, abs=4 * 0.6 * np.sqrt(2 / 3000))
    assert cohort.truth["h2"] == 0.4 == cohort.truth["s2_g"]
    assert cohort.truth["realised_h2"] == pytest.approx(cohort.u.var() / (cohort.u + e).var())
    # u has a variance of h2 on average over effects.
    variances = [
        bl.simulate_cohort(None, 200, 300, h2=0.4, causal=100, seed=s).u.var() for s in range(40)
    ]
    assert np.mean(variances) == pytest.approx(0.4, abs=4 * np.std(variances) / np.sqrt(40))


def test_files_hold_the_cohort_of_memory(tmp_path):
    options = {"families": 5, "missing": 0.1, "ld": 1e5, "seed": 6}
    memory = bl.simulate_cohort(None, 203, 150, **options)
    files = bl.simulate_cohort(tmp_path / "c", 203, 150, **options)
    assert {f.name for f in tmp_path.iterdir()} == {f"c{e}" for e in simulate.ENDINGS}
    x = memory.genotypes.to_array()
    assert (tmp_path / "c.bed").read_bytes() == bed_bytes(x)
    np.testing.assert_array_equal(bl.read_genotypes(tmp_path / "c").to_array(), x)
    columns = ["chrom", "id", "pos", "ea", "oa"]
    pd.testing.assert_frame_equal(
        files.genotypes.variants[columns], memory.genotypes.variants[columns]
    )
    pd.testing.assert_frame_equal(files.genotypes.samples, memory.genotypes.samples)
    pheno = bl.read_phenotypes(tmp_path / "c.pheno.tsv")
    assert pheno.y.to_numpy() == pytest.approx(memory.phenotypes.y.to_numpy(), rel=1e-4)
    u = pd.read_csv(tmp_path / "c.u.tsv.gz", sep="\t")
    assert u.u.to_numpy() == pytest.approx(memory.u.to_numpy(), abs=1e-4)
    written = pd.read_csv(tmp_path / "c.pedigree.tsv.gz", sep="\t", dtype=str)
    ids = memory.genotypes.samples.index
    np.testing.assert_array_equal(
        bl.pedigree(written).grm(ids).matrix, memory.pedigree.grm(ids).matrix
    )
    truth = json.loads((tmp_path / "c.truth.json").read_text())
    assert truth["realised_h2"] == memory.truth["realised_h2"]


def test_a_seed_makes_one_cohort():
    one, same, other = (bl.simulate_cohort(None, 60, 40, families=4, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.genotypes.to_array(), same.genotypes.to_array())
    pd.testing.assert_frame_equal(one.phenotypes, same.phenotypes)
    assert (one.genotypes.to_array() != other.genotypes.to_array()).any()


def test_genotypes_are_never_held(tmp_path):
    n, m = 5000, 600
    peaks = []
    for k in (1, 4):
        tracemalloc.start()
        bl.simulate_cohort(tmp_path / f"c{k}", n, k * m, seed=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The .bed grew by a quarter of a byte for each genotype.
    assert peaks[1] - peaks[0] < 0.1 * n * 3 * m


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 2}, "n=2: at least 3 samples"),
        ({"m": 0}, "m=0: at least 1 variant"),
        ({"h2": 1.2}, "h2=1.2: expected 0 to 1"),
        ({"causal": 11}, "causal=11: expected 1 to m=10"),
        ({"frequency": (0, 0.5)}, r"frequency=\(0, 0.5\): expected"),
        ({"ld": 0}, "ld=0: expected a number of base pairs above 0"),
        ({"missing": 1}, "missing=1: expected"),
        ({"unsampled": 1}, "unsampled=1: expected 0 to 0.9"),
        ({"chromosomes": 23}, "chromosomes=23: expected 1 to 22"),
        ({"families": 0}, "families=0: the largest family has at least 1 member"),
        ({"families": {0: 1.0}}, "expected sizes of 1 or more"),
        ({"families": {2: 0.0}}, "one above 0"),
    ],
)
def test_parameters_out_of_range_are_refused(change, message):
    with pytest.raises(bl.InputError, match=message):
        bl.simulate_cohort(None, **{"n": 20, "m": 10} | change)


def test_files_are_kept_and_memory_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "c.fam").write_text("mine")
    with pytest.raises(bl.InputError, match=r"c\.fam exists already"):
        bl.simulate_cohort(tmp_path / "c", 20, 10)
    assert [f.name for f in tmp_path.iterdir()] == ["c.fam"]
    monkeypatch.setattr("bayeslmm.runs.memory.available_memory", lambda: 1000)
    with pytest.raises(bl.InputError, match="Holding 2,000 x 1,000 simulated genotypes needs 2 MB"):
        bl.simulate_cohort(None, 2000, 1000)
