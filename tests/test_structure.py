"""Principal components against plink2 and dense algebra; projections; pcs(k) in formulas."""

import logging

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.bases import structure
from bayeslmm.bases.structure import block_lanczos, shrinkage
from bayeslmm.inputs.formulas import design_from_formula


@pytest.fixture(scope="module")
def placed(mice):
    """The variants that plink2 uses: those with a position."""
    return mice.genotypes.select(variants=(mice.genotypes.variants.pos > 0).to_numpy())


@pytest.fixture(scope="module")
def populations():
    return three_populations(5)


def three_populations(seed):
    """Three populations of 100, from Balding and Nichols' model with Fst 0.03."""
    rng = np.random.default_rng(seed)
    ancestral = rng.uniform(0.1, 0.9, 2000)
    scale = (1 - 0.03) / 0.03
    p = rng.beta(ancestral * scale, (1 - ancestral) * scale, size=(3, 2000))
    label = np.repeat(["north", "west", "south"], 100)
    x = rng.binomial(2, np.repeat(p, 100, axis=0)).astype(float)
    ids = [f"s{i}" for i in range(300)]
    return bl.Genotypes.from_array(x, samples=ids), pd.Series(label, ids, name="population")


def difference(scores, other):
    """Largest difference of two sets of components, signs aside."""
    a, b = np.asarray(scores), np.asarray(other)
    return np.abs(a * np.sign((a * b).sum(axis=0)) - b).max()


@pytest.mark.parametrize("exact", [True, False])
def test_components_of_the_mice_are_plink2s(placed, golden, exact):
    peer = pd.read_csv(golden / "plink2_mice.eigenvec.tsv.gz", sep="\t", index_col="IID")
    found = bl.pca(placed, 10, exact=exact)
    assert difference(found.scores.loc[peer.index], peer.iloc[:, 1:]) < 1e-5  # 6e-7 seen
    # plink2 divides by all variants, monomorphic ones too.
    values = np.loadtxt(golden / "plink2_mice.eigenval") * 10_300 / 9_286
    np.testing.assert_allclose(found.values, values, rtol=1e-5)


def test_components_of_families_are_plink2s(golden):
    """Complete genotypes; with 2% missing plink2 divides by each pair's and centres no more."""
    families = bl.read_genotypes(golden / "plink2_families")
    peer = pd.read_csv(golden / "plink2_families_geno0.eigenvec.tsv.gz", sep="\t", index_col="IID")
    found = bl.pca(families.select(max_missing=0.0), 6)
    assert difference(found.scores.loc[peer.index], peer) < 1e-5  # 6e-7 seen
    peer = pd.read_csv(golden / "plink2_families.eigenvec.tsv.gz", sep="\t", index_col="IID")
    K = bl.grm(families, pairwise=True, dtype="float64")
    assert difference(bl.pca(K, 6).scores.loc[peer.index], peer) < 1e-4  # 4e-5 seen
    U = np.linalg.eigh(K.subset(peer.index).matrix)[1][:, ::-1]
    assert difference(U[:, :6], peer) < 1e-5  # 5e-7 seen


def test_every_source_gives_the_same(populations, caplog):
    genotypes, _ = populations
    kernel = bl.grm(genotypes, dtype="float64")
    K = (
        kernel.matrix
        - kernel.matrix.mean(0)
        - kernel.matrix.mean(1)[:, None]
        + kernel.matrix.mean()
    )
    S, U = np.linalg.eigh(K)
    S, U = S[::-1][:2], U[:, ::-1][:, :2]
    lanczos = bl.pca(kernel, 2)
    assert lanczos.method.startswith("Lanczos")
    from_basis = bl.pca(bl.eigenbasis(kernel), 2)
    again = bl.pca(kernel, 2)
    assert again.method == from_basis.method == "from the eigenbasis"
    randomised = bl.pca(genotypes, 2, exact=False, seed=3)
    with caplog.at_level(logging.WARNING, logger="bayeslmm"):
        noisy = bl.pca(genotypes, 5, exact=False)
    assert not caplog.text
    assert noisy.residual < 1e-5
    for found, limit in ((lanczos, 1e-9), (from_basis, 1e-9), (randomised, 1e-5)):
        assert difference(found.scores, U) < limit
        np.testing.assert_allclose(found.values, S, rtol=1e-6)
        np.testing.assert_allclose(found.total, np.trace(K), rtol=1e-6)
        np.testing.assert_allclose(found.variance_explained, S / np.trace(K), rtol=1e-5)
        largest = np.abs(found.scores.to_numpy()).argmax(axis=0)
        assert (found.scores.to_numpy()[largest, [0, 1]] > 0).all()


def test_missing_and_monomorphic_variants(dosage):
    found = bl.pca(dosage, 3, exact=False)
    exact = bl.pca(bl.grm(dosage, dtype="float64"), 3)
    assert difference(found.scores, exact.scores) < 1e-4
    np.testing.assert_allclose(found.values, exact.values, rtol=1e-5)


def test_block_lanczos_ends_at_the_whole_space(rng):
    A = rng.normal(size=(30, 30))
    A = A + A.T
    values, vectors, residual, _ = block_lanczos(lambda Y: A @ Y, rng.normal(size=(30, 7)), 4)
    S = np.linalg.eigvalsh(A)[::-1][:4]
    np.testing.assert_allclose(values, S, rtol=1e-9)
    np.testing.assert_allclose(A @ vectors, vectors * values, atol=1e-4)
    assert residual < 1e-5


def test_components_that_do_not_converge_are_said(rng, monkeypatch, caplog):
    monkeypatch.setattr(structure, "_LARGEST_PASSES", 2)
    monkeypatch.setattr(block_lanczos, "__kwdefaults__", {"tolerance": 1e-5, "passes": 2})
    x = rng.binomial(2, 0.5, size=(300, 400))
    with caplog.at_level(logging.WARNING, logger="bayeslmm"):
        found = bl.pca(x, 5, exact=False)
    assert "after 3 passes the relative residual is" in caplog.text
    assert found.residual > 1e-5


# -- variants and new samples ----------------------------------------------------------------


def test_loadings_are_singular_vectors(populations):
    genotypes, _ = populations
    found = bl.pca(genotypes, 2)
    x = genotypes.to_array()
    p = x.mean(0) / 2
    varies = (p > 0) & (p < 1)
    Z = np.zeros_like(x)
    Z[:, varies] = (x - 2 * p)[:, varies] / np.sqrt(2 * p * (1 - p))[varies]
    _, _, V = np.linalg.svd(Z, full_matrices=False)
    loadings = found.loadings[["PC1", "PC2"]]
    assert difference(loadings, V[:2].T) < 1e-5
    assert list(found.loadings.columns[:5]) == ["id", "chrom", "pos", "ea", "oa"]


def test_analysed_samples_are_projected_onto_themselves(populations):
    genotypes, _ = populations
    found = bl.pca(genotypes, 2)
    projected = found.project(genotypes, correct=False)
    pd.testing.assert_frame_equal(projected, found.scores, atol=1e-6, check_exact=False)
    # Components of a part of the samples, allele frequencies of all.
    basis = bl.eigenbasis(bl.grm(genotypes), samples=genotypes.samples.index[50:])
    part = bl.pca(basis, 2)
    some = genotypes.select(samples=part.scores.index)
    pd.testing.assert_frame_equal(
        part.project(some, correct=False), part.scores, atol=1e-6, check_exact=False
    )
    plain = part.project(genotypes, correct=False)
    pd.testing.assert_frame_equal(
        part.project(genotypes) * part.shrinkage, plain, check_exact=False
    )


def slopes(genotypes, population, first, exact):
    """Centres of projected populations on those of analysed ones, plain and corrected."""
    found = bl.pca(genotypes.select(samples=first), 2, exact=exact)
    centres = found.scores.groupby(population.loc[found.scores.index]).mean().to_numpy()
    out = []
    for correct in (False, True):
        new = found.project(genotypes.select(samples=~first), correct=correct)
        mean = new.groupby(population.loc[new.index]).mean().to_numpy()
        out.append((centres * mean).sum(axis=0) / (centres**2).sum(axis=0))
    return np.array(out)


def test_projections_are_shrunken_and_corrected():
    """Half of each population is projected: its centres are those of the other half."""
    found = []
    for seed in range(3):
        genotypes, population = three_populations(seed)
        first = np.arange(300) % 2 == 0
        found += [slopes(genotypes, population, half, True) for half in (first, ~first)]
    plain, corrected = np.mean(found, axis=(0, 2))
    assert plain < 0.8
    # The sd of one slope is 0.02 over simulated cohorts: 0.005 of the mean of these 12.
    assert abs(corrected - 1) < 0.02
    randomised = slopes(genotypes, population, ~first, False)
    # The Marchenko-Pastur law in place of the spectrum.
    np.testing.assert_allclose(randomised, found[-1], rtol=0.02)


def test_shrinkage_is_lee_zou_and_wrights_for_one_spike(rng):
    """n = 200, p = 1000, population eigenvalue 30: rho = (l - 1) / (l - 1 + p / n)."""
    n, p, spike = 200, 1000, 30.0
    x = rng.normal(size=(n, p))
    x[:, 0] *= np.sqrt(spike)
    S = np.linalg.eigvalsh(x @ x.T / p)[::-1]
    # The sample's own spike varies around its limit: population eigenvalue from the sample's.
    d, ratio = S[0] * p / n, p / n
    limit = (d + 1 - ratio + np.sqrt((d + 1 - ratio) ** 2 - 4 * d)) / 2
    expected = (limit - 1) / (limit - 1 + ratio)
    np.testing.assert_allclose(shrinkage(S[:1], S[1:])[0], expected, rtol=2e-3)
    moments = (S[1:-1].mean(), np.square(S[1:-1]).mean(), n - 2)
    np.testing.assert_allclose(shrinkage(S[:1], np.empty(0), moments)[0], expected, rtol=2e-3)
    # Within the noise there is nothing to correct.
    assert np.isnan(shrinkage(np.array([1.01 * S[5]]), np.empty(0), moments)[0])


def test_swapped_alleles_and_absent_variants(populations):
    genotypes, _ = populations
    found = bl.pca(genotypes, 2)
    table = genotypes.variants.assign(ea="A", oa="C")
    lettered = bl.Genotypes.from_array(genotypes.to_array(), genotypes.samples.index, table)
    found = bl.pca(lettered, 2)
    turned = table.assign(ea="C", oa="A")
    swapped = bl.Genotypes.from_array(2 - genotypes.to_array(), genotypes.samples.index, turned)
    pd.testing.assert_frame_equal(found.project(swapped), found.project(lettered))
    with pytest.raises(bl.InputError, match="variants are not in the new genotypes"):
        found.project(lettered.select(variants=list(table.id[:100])))


def test_a_matrix_without_genotypes_has_no_loadings():
    kernel = bl.GRM(np.cov(np.random.default_rng(0).normal(size=(6, 9))), list("abcdef"))
    found = bl.pca(kernel, 2)
    with pytest.raises(bl.InputError, match="does not know its genotypes"):
        _ = found.loadings


def test_numbers_of_components_without_sense(populations):
    genotypes, _ = populations
    for k in (0, 300):
        with pytest.raises(bl.InputError, match="k must be between 1 and 299"):
            bl.pca(genotypes, k)
    basis = bl.eigenbasis(bl.grm(genotypes), center=False)
    with pytest.raises(bl.InputError, match="need a basis of the centred matrix"):
        bl.pca(basis, 2)


def test_what_components_print(populations):
    found = bl.pca(populations[0], 4)
    text = repr(found)
    assert text.startswith("<PCA of 300 samples (genotypes), 4 components, Lanczos")
    assert "PC3" in text
    assert "not told from noise" in text
    assert "<table" in found._repr_html_()


# -- components in formulas ------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort(populations):
    genotypes, population = populations
    rng = np.random.default_rng(8)
    table = pd.DataFrame(
        {
            "y": rng.normal(size=300) + 2.0 * (population.to_numpy() == "west"),
            "age": rng.uniform(20, 60, 300),
        },
        index=genotypes.samples.index,
    )
    table.loc["s7", "y"] = np.nan
    return genotypes, table, bl.grm(genotypes)


def test_components_join_a_model_by_formula(cohort):
    _, table, kernel = cohort
    model = bl.LMM("y ~ age + pcs(2)", table, kernel)
    scores = bl.pca(kernel, 2).scores  # of all 300 samples, not the 299 analysed
    assert len(model.y) == 299
    assert len(scores) == 300
    assert list(model.C.columns) == ["Intercept", "age", "PC1", "PC2"]
    pd.testing.assert_frame_equal(model.C[["PC1", "PC2"]], scores.loc[model.ids])
    assert model.formula == "y ~ age + pcs(2)"
    by_hand = bl.LMM("y ~ age + PC1 + PC2", table.join(scores), kernel)
    assert model.reml().h2 == by_hand.reml().h2
    assert bl.LMM("y ~ age", table, kernel).pcs is None


def test_components_given(cohort):
    genotypes, table, kernel = cohort
    found = bl.pca(genotypes, 3)
    regression = bl.LMM("y ~ pcs(2)", table, pcs=found)
    assert regression.C.shape == (299, 3)
    pd.testing.assert_frame_equal(
        bl.LMM("y ~ pcs(2)", table, kernel, pcs=found.scores).C, regression.C
    )
    interaction = bl.LMM("y ~ age:pcs(1)", table, kernel)
    assert list(interaction.C.columns) == ["Intercept", "age:PC1"]


def test_components_that_cannot_be_had(cohort):
    genotypes, table, kernel = cohort
    found = bl.pca(genotypes, 3)
    with pytest.raises(bl.InputError, match=r"the model has none. Pass pcs=bl.pca"):
        bl.LMM("y ~ pcs(2)", table)
    with pytest.raises(bl.InputError, match="asks for pcs\\(5\\), but the components have no"):
        bl.LMM("y ~ pcs(5)", table, kernel, pcs=found)
    with pytest.raises(bl.InputError, match="the table has 'PC1' already"):
        bl.LMM("y ~ pcs(2)", table.assign(PC1=0.0), kernel)
    with pytest.raises(bl.InputError, match="No sample of the phenotype table"):
        bl.LMM("y ~ pcs(2)", table, kernel, pcs=found.scores.add_prefix("x", axis=0))
    with pytest.raises(bl.InputError, match="covariate"):
        bl.LMM("y ~ pcs(2)", table, kernel, pcs=found.scores.iloc[5:])
    with pytest.raises(bl.InputError, match="pcs must be what"):
        bl.LMM("y ~ pcs(2)", table, kernel, pcs=np.ones((300, 2)))
    with pytest.raises(bl.InputError, match="with the phenotype as an array"):
        bl.LMM(np.arange(9.0), pcs=found)
    with pytest.raises(bl.InputError, match=r"known to bl\.LMM only"):
        design_from_formula("y ~ pcs(2)", table, None)


def test_components_without_sample_ids(rng):
    x = rng.binomial(2, 0.5, size=(60, 200))
    table = pd.DataFrame({"y": rng.normal(size=60)})
    model = bl.LMM("y ~ pcs(2)", table, bl.grm(x))
    np.testing.assert_array_equal(model.C[["PC1", "PC2"]], bl.pca(bl.grm(x), 2).scores)


def test_new_samples_are_projected_for_prediction(populations):
    genotypes, population = populations
    rng = np.random.default_rng(8)
    y = rng.normal(size=300) + 3.0 * (population == "west") - 3.0 * (population == "north")
    table = pd.DataFrame({"y": y, "age": rng.uniform(size=300)}, index=population.index)
    old = np.arange(300) % 3 > 0
    model = bl.LMM("y ~ age + pcs(2)", table[old], bl.grm(genotypes.select(samples=old)))
    new = genotypes.select(samples=~old)
    predicted = model.predict(new, data=table.loc[~old, ["age"]], seed=1)
    assert np.corrcoef(predicted.y_mean, table.y[~old])[0, 1] > 0.8
    given = model.pcs.project(new).join(table["age"])
    pd.testing.assert_frame_equal(model.predict(new, data=given, seed=1), predicted)
    alone = bl.LMM("y ~ pcs(2)", table[old], model.grm)
    assert len(alone.predict(new, seed=1)) == 100
    noisy = bl.LMM("y ~ pcs(6)", table[old], model.grm)
    with pytest.raises(bl.InputError, match="cannot be told from noise"):
        noisy.predict(new)
    by_table = bl.LMM("y ~ pcs(2)", table[old], model.grm, pcs=model.pcs.scores)
    with pytest.raises(bl.InputError, match="give those of the new samples"):
        by_table.predict(new)


def test_kernel_samples_have_their_components_in_prediction(cohort):
    _, table, kernel = cohort
    model = bl.LMM("y ~ age + pcs(2)", table, kernel)
    assert list(model.predict(samples=["s7"], data=table[["age"]], seed=1).index) == ["s7"]
