import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dense import centred
from dense import random_effects as dense_random_effects
from plink import write_plink

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.model.trees import data_groups

N, NEW, M = 50, 12, 90


def draws(model, s2_g, s2_e, b=None):
    """Draws of fixed variances, and b whose mean and covariance are those of its posterior."""
    if b is None:
        K = (model.basis.vectors * model.basis.values) @ model.basis.vectors.T
        b = matched(model, s2_g * K + s2_e * np.eye(len(K)))
    dims = ("chain", "draw")
    full = np.ones((1, len(b)))
    posterior = xr.Dataset(
        {
            "s2_g": (dims, s2_g * full),
            "s2_e": (dims, s2_e * full),
            "b": ((*dims, "covariate"), b[None]),
        }
    )
    return xr.DataTree.from_dict({"posterior": posterior, **data_groups(model)})


def matched(model, V):
    """2 c points with the mean and covariance of generalised least squares."""
    C = model.C.to_numpy()
    covariance = np.linalg.inv(C.T @ np.linalg.solve(V, C))
    mean = covariance @ C.T @ np.linalg.solve(V, model.y)
    steps = np.sqrt(C.shape[1]) * np.linalg.cholesky(covariance).T
    return np.vstack([mean + steps, mean - steps])


def standardised(x, reference=None):
    reference = x if reference is None else reference
    p = np.nanmean(reference, axis=0) / 2
    return np.nan_to_num((x - 2 * p) / np.sqrt(2 * p * (1 - p)))


@pytest.fixture(scope="module")
def cohort():
    """50 training and 12 new samples with missing genotypes, of two groups; age."""
    rng = np.random.default_rng(7)
    x = rng.binomial(2, rng.uniform(0.2, 0.5, M), size=(N + NEW, M)).astype(float)
    x[rng.random(x.shape) < 0.02] = np.nan
    ids = [f"i{j}" for j in range(N + NEW)]
    table = pd.DataFrame({"id": [f"rs{j}" for j in range(M)], "ea": "A", "oa": "G"})
    old = bl.Genotypes.from_array(x[:N], ids[:N], table)
    new = bl.Genotypes.from_array(x[N:], ids[N:], table)
    phenotypes = pd.DataFrame(
        {
            "y": 100 + rng.normal(0, 3, size=N + NEW),
            "age": rng.normal(40, 10, size=N + NEW),
            "group": rng.choice(["a", "b", "c"], size=N + NEW),
        },
        index=ids,
    )
    return x, old, new, phenotypes


@pytest.fixture(scope="module")
def model(cohort):
    _, old, _, phenotypes = cohort
    return bl.LMM("y ~ age + group", phenotypes.iloc[:N], bl.grm(old, dtype="float64"))


# -- GBLUP, against dense formulas --------------------------------------------------------------


@pytest.mark.algebra
def test_random_effects_of_training_samples_are_the_dense_blup(model):
    s2_g, s2_e = 5.0, 4.0
    found = model.random_effects(draws(model, s2_g, s2_e))
    K = centred(np.asarray(model._kernel.matrix))
    mean, covariance = dense_random_effects(model.y, model.C.to_numpy(), K, s2_g, s2_e)
    assert found.index.equals(model.ids)
    np.testing.assert_allclose(found.u_mean, mean, atol=1e-9)
    np.testing.assert_allclose(found.u_sd**2, np.diag(covariance), atol=1e-9)
    # The kernel's way round gives the same as the basis alone.
    backwards = model.random_effects(draws(model, s2_g, s2_e), samples=model.ids[::-1])
    np.testing.assert_allclose(backwards.u_mean[::-1], found.u_mean, atol=1e-9)
    np.testing.assert_allclose(backwards.u_sd[::-1], found.u_sd, atol=1e-9)


@pytest.mark.algebra
def test_gblup_is_snp_blup(cohort, model):
    x, _, new, phenotypes = cohort
    tree = draws(model, 5.0, 4.0)
    predicted = model.predict(new, phenotypes, tree)
    effects = model.snp_effects(tree)
    assert list(effects.columns) == ["chrom", "pos", "id", "ea", "oa", "eaf", "effect"]
    np.testing.assert_allclose(effects.eaf, np.nanmean(x[:N], axis=0) / 2)
    dosage = np.nan_to_num(x[N:] - 2 * effects.eaf.to_numpy())
    np.testing.assert_allclose(predicted.u_mean, dosage @ effects.effect, atol=1e-8)
    # Per standardised genotype: effect sqrt(2 p (1 - p)) = Z' V^-1 (y - C b) s2_g / m.
    Z = standardised(x[:N])
    V = 5 * centred(Z @ Z.T / M) + 4 * np.eye(N)
    P_y = np.linalg.solve(V, model.y - model.C.to_numpy() @ mean_b(tree))
    scale = np.sqrt(2 * effects.eaf * (1 - effects.eaf))
    np.testing.assert_allclose(
        effects.effect * scale, 5 / M * centred_columns(Z).T @ P_y, atol=1e-9
    )


def mean_b(tree):
    return tree["posterior"]["b"].mean(("chain", "draw")).to_numpy()


def centred_columns(Z):
    return Z - Z.mean(axis=0)


@pytest.mark.algebra
@pytest.mark.parametrize("few", [False, True], ids=["all analysed", "few analysed"])
@pytest.mark.parametrize("center", [True, False], ids=["centred", "uncentred basis"])
def test_prediction_is_kriging_with_the_uncentred_kernel(cohort, few, center):
    """Mean and variance of y_new given y with a flat intercept: universal kriging by hand.

    The kernel of all 62 samples, standardised by the kernel's own 50, is not centred; the
    intercept takes up what centring changes.
    """
    x, old, new, phenotypes = cohort
    kernel = bl.grm(old, dtype="float64")
    training = phenotypes.iloc[:N]
    training = training.iloc[::-1].iloc[:35] if few else training
    basis = kernel.eigenbasis(center=center)
    model = bl.LMM("y ~ age", training, basis)
    s2_g, s2_e = 5.0, 4.0
    K_model = (model.basis.vectors * model.basis.values) @ model.basis.vectors.T
    tree = draws(model, s2_g, s2_e, matched(model, s2_g * K_model + s2_e * np.eye(len(model.y))))
    found = model.predict(new, phenotypes, tree)

    rows = [int(i[1:]) for i in model.ids]
    Z = standardised(x, x[:N])
    K = Z @ Z.T / M
    C = np.column_stack([np.ones(N + NEW), phenotypes.age])
    unseen = np.arange(N, N + NEW)
    V = s2_g * K[np.ix_(rows, rows)] + s2_e * np.eye(len(rows))
    cross = s2_g * K[np.ix_(unseen, rows)]
    Vinv = np.linalg.inv(V)
    A = np.linalg.inv(C[rows].T @ Vinv @ C[rows])
    b = A @ C[rows].T @ Vinv @ model.y
    mean = C[unseen] @ b + cross @ Vinv @ (model.y - C[rows] @ b)
    D = C[unseen] - cross @ Vinv @ C[rows]
    variance = s2_g * np.diag(K)[unseen] + s2_e - np.diag(cross @ Vinv @ cross.T)
    variance = variance + np.diag(D @ A @ D.T)
    np.testing.assert_allclose(found.y_mean, mean, rtol=1e-9)
    np.testing.assert_allclose(found.y_sd**2, variance, rtol=1e-8)


@pytest.mark.algebra
def test_samples_of_the_kernel_without_phenotype(cohort):
    """u of unphenotyped samples from the kernel, as from their genotypes."""
    x, old, new, phenotypes = cohort
    both = bl.Genotypes.from_array(x, list(phenotypes.index), old.variants)
    kernel = bl.grm(both, dtype="float64")
    model = bl.LMM("y ~ age", phenotypes.iloc[:N], kernel)
    tree = draws(model, 5.0, 4.0)
    everyone = model.random_effects(tree, "all")
    assert list(everyone.index) == list(phenotypes.index)
    np.testing.assert_allclose(everyone.u_mean[:N], model.random_effects(tree).u_mean, atol=1e-9)
    unseen = list(new.samples.index)
    by_kernel = model.predict(data=phenotypes, tree=tree, samples=unseen)
    by_genotypes = model.predict(both.select(samples=unseen), phenotypes, tree)
    pd.testing.assert_frame_equal(by_kernel, by_genotypes, rtol=1e-8)
    np.testing.assert_allclose(everyone.u_mean[N:], by_kernel.u_mean, atol=1e-9)
    np.testing.assert_allclose(everyone.u_sd[N:], by_kernel.u_sd, atol=1e-9)
    K = kernel.matrix
    K = K - K[:N].mean(axis=0) - K[:, :N].mean(axis=1)[:, None] + K[:N, :N].mean()
    V = 5 * K[:N, :N] + 4 * np.eye(N)
    e = model.y - model.C.to_numpy() @ mean_b(tree)
    np.testing.assert_allclose(
        everyone.u_mean[N:], 5 * K[N:, :N] @ np.linalg.solve(V, e), atol=1e-9
    )
    assert model.random_effects(tree, [unseen[3]]).index.tolist() == [unseen[3]]
    with pytest.raises(InputError, match="1 samples are not in the kernel: 'nobody'"):
        model.random_effects(tree, ["nobody"])


def test_a_given_kernel_needs_no_genotypes_for_u(cohort):
    """Any positive-semidefinite kernel: u of everybody in it; SNP effects are refused."""
    _, _, _, phenotypes = cohort
    rng = np.random.default_rng(0)
    A = rng.normal(size=(N + NEW, 20))
    kernel = bl.GRM(A @ A.T, samples=phenotypes.index)
    model = bl.LMM("y ~ age", phenotypes.iloc[:N], kernel)
    found = model.random_effects(samples="all")
    assert len(found) == N + NEW
    assert (found.u_low < found.u_mean).all()
    assert (found.u_mean < found.u_high).all()
    with pytest.raises(InputError, match=r"does not know its genotypes.*bl.grm\(genotypes\)"):
        model.snp_effects()


def test_u_of_training_samples_needs_the_basis_only(cohort):
    _, old, _, phenotypes = cohort
    from dataclasses import replace

    basis = replace(bl.grm(old).eigenbasis(), grm=None)
    model = bl.LMM("y ~ age", phenotypes.iloc[:N], basis)
    assert len(model.random_effects()) == N
    with pytest.raises(InputError, match="basis was kept without"):
        model.random_effects(samples=["i1"])
    with pytest.raises(InputError, match="Without kernel"):
        bl.LMM("y ~ age", phenotypes).random_effects()


# -- intervals ---------------------------------------------------------------------------------


def test_summaries_are_those_of_the_mixture(cohort, model):
    """Interval and sd of the predictive draws over all parameters."""
    _, _, new, phenotypes = cohort
    tree = model.posterior(20_000, seed=1)
    found = model.predict(new, phenotypes, tree, prob=0.5)
    wide = model.predict(new, phenotypes, tree, prob=0.95)
    assert ((wide.y_low < found.y_low) & (found.y_high < wide.y_high)).all()
    # Nearly normal: half the mass within 0.674 sd.
    np.testing.assert_allclose(found.y_high - found.y_low, 2 * 0.674 * found.y_sd, rtol=0.05)
    assert (found.y_sd > found.u_sd).all()
    with pytest.raises(InputError, match=r"prob must be in \(0, 1\)"):
        model.predict(new, phenotypes, tree, prob=1.0)


@pytest.mark.calibration
@pytest.mark.slow
def test_predictive_intervals_cover():
    """90% intervals of 4,000 new samples in 40 cohorts, h2 from its prior: 88 to 92%."""
    rng = np.random.default_rng(12)
    inside = total = 0
    for _ in range(40):
        n, new, m = 200, 100, 300
        # Families: parents of the new samples are in the cohort, so that there is something
        # to predict.
        p = rng.uniform(0.1, 0.5, m)
        founders = rng.binomial(1, p, size=(60, 2, m))
        parents = rng.integers(60, size=(n + new, 2))
        x = sum(
            founders[parents[:, i][:, None], rng.integers(2, size=(n + new, m)), np.arange(m)]
            for i in (0, 1)
        ).astype(float)
        polymorphic = x[:n].std(axis=0) > 0
        x = x[:, polymorphic]
        h2 = rng.random()
        Z = standardised(x, x[:n])
        u = Z @ rng.normal(size=Z.shape[1])
        y = np.sqrt(h2) * u / u.std() + np.sqrt(1 - h2) * rng.normal(size=n + new)
        ids = [f"i{j}" for j in range(n + new)]
        age = rng.normal(size=n + new)
        genotypes = bl.Genotypes.from_array(x, ids)
        table = pd.DataFrame({"y": y + 0.3 * age, "age": age}, index=ids)
        model = bl.LMM("y ~ age", table[:n], bl.grm(genotypes.select(samples=ids[:n])))
        found = model.predict(genotypes.select(samples=ids[n:]), table, prob=0.9)
        truth = table.y[n:]
        inside += int(((found.y_low < truth) & (truth < found.y_high)).sum())
        total += new
    assert 0.88 < inside / total < 0.92


@pytest.mark.calibration
def test_held_out_mice(mice):
    """Correlation with the truth as GBLUP's at the REML estimate, and coverage."""
    rng = np.random.default_rng(5)
    phenotyped = mice.phenotypes[mice.phenotypes.cd8.notna()]
    held_out = list(rng.choice(phenotyped.index, size=350, replace=False))
    training = phenotyped.drop(held_out)
    genotypes = mice.genotypes.select(samples=list(training.index))
    model = bl.LMM("cd8 ~ sex", training, bl.grm(genotypes))
    found = model.predict(mice.genotypes.select(samples=held_out), phenotyped.loc[held_out], seed=1)
    truth = phenotyped.cd8.loc[found.index]
    # GBLUP at the REML estimate, dense.
    fit = model.reml()
    K = centred(np.asarray(model._kernel.matrix))
    V = fit.s2_g * K + fit.s2_e * np.eye(len(K))
    weights = np.linalg.solve(V, model.y - model.C.to_numpy() @ fit.b.estimate.to_numpy())
    weights -= weights.mean()
    rows = mice.genotypes.samples.index.get_indexer(model.ids)
    other = mice.genotypes.samples.index.get_indexer(held_out)
    x = mice.genotypes.to_array()
    p = np.nanmean(x[rows], axis=0) / 2
    used = (p > 0) & (p < 1)
    Z = np.nan_to_num((x - 2 * p) / np.sqrt(2 * p * (1 - p) + ~used))[:, used]
    blup = fit.s2_g * Z[other] @ (Z[rows].T @ weights) / used.sum()
    assert np.corrcoef(found.u_mean, blup)[0, 1] > 0.9999
    ours, theirs = (np.corrcoef(value, truth)[0, 1] for value in (found.u_mean, blup))
    assert ours > 0.55
    assert ours == pytest.approx(theirs, abs=0.003)
    # 350 intervals: binomial sd 1.6%.
    assert 0.85 < ((found.y_low < truth) & (truth < found.y_high)).mean() < 0.95


# -- alleles, variants, missing genotypes ---------------------------------------------------------


def predicted(model, genotypes, phenotypes):
    return model.predict(genotypes, phenotypes, draws(model, 5.0, 4.0))


def test_flipped_alleles_and_other_orders(cohort, model):
    x, _, new, phenotypes = cohort
    expected = predicted(model, new, phenotypes)
    rng = np.random.default_rng(1)
    flip = rng.random(M) < 0.5
    order = rng.permutation(M)
    table = new.variants.copy()
    table.loc[flip, ["ea", "oa"]] = ["G", "A"]
    dosage = np.where(flip, 2 - x[N:], x[N:])
    extra = np.column_stack([np.ones((NEW, 1)), dosage[:, order]])
    variants = pd.concat(
        [pd.DataFrame({"id": ["unknown"], "ea": ["A"], "oa": ["C"]}), table.iloc[order]],
        ignore_index=True,
    )
    other = bl.Genotypes.from_array(extra, list(new.samples.index), variants)
    pd.testing.assert_frame_equal(predicted(model, other, phenotypes), expected, rtol=1e-9)


def test_from_plink_files(cohort, model, tmp_path):
    """The new samples' file has its variants in another order."""
    _, _, new, phenotypes = cohort
    expected = predicted(model, new, phenotypes)
    order = np.random.default_rng(1).permutation(M)
    shuffled = bl.Genotypes.from_array(
        new.to_array()[:, order], list(new.samples.index), new.variants.iloc[order]
    )
    write(tmp_path / "new", shuffled)
    pd.testing.assert_frame_equal(
        predicted(model, str(tmp_path / "new.bed"), phenotypes), expected, rtol=1e-9
    )


def write(prefix, genotypes):
    write_plink(prefix, genotypes.to_array(), samples=[("f", i) for i in genotypes.samples.index])
    lines = [f"1\t{i}\t0\t{j + 1}\tA\tG\n" for j, i in enumerate(genotypes.variants.id)]
    prefix.with_suffix(".bim").write_text("".join(lines))


def test_missing_variants_and_strands_are_refused(cohort, model):
    x, _, new, phenotypes = cohort
    fewer = new.select(variants=list(new.variants.id[3:]))
    with pytest.raises(InputError, match=r"3 of the kernel's 90 variants are not .*'rs0', 'rs1'"):
        predicted(model, fewer, phenotypes)
    table = new.variants.copy()
    table.loc[4, ["ea", "oa"]] = ["T", "C"]
    other = bl.Genotypes.from_array(x[N:], list(new.samples.index), table)
    with pytest.raises(InputError, match=r"'rs4' has alleles A/G .* T/C .*another strand"):
        predicted(model, other, phenotypes)


def test_missing_genotypes_count_as_the_training_mean(cohort, model):
    x, _, new, phenotypes = cohort
    filled = np.where(np.isnan(x[N:]), np.nanmean(x[:N], axis=0), x[N:])
    other = bl.Genotypes.from_array(filled, list(new.samples.index), new.variants)
    pd.testing.assert_frame_equal(
        predicted(model, other, phenotypes), predicted(model, new, phenotypes), rtol=1e-9
    )
    nothing = bl.Genotypes.from_array(np.full((1, M), np.nan), ["nobody"], new.variants)
    row = predicted(model, nothing, phenotypes.iloc[[0]].set_axis(["nobody"]))
    assert np.isfinite(row).all(axis=None)


@pytest.mark.parametrize("scale", ["standardized", "centered", "empirical"])
@pytest.mark.algebra
def test_every_scale_of_the_kernel(cohort, scale):
    """The training samples taken for new ones: the kernel's own rows come back."""
    _, old, _, phenotypes = cohort
    kernel = bl.grm(old, scale=scale, dtype="float64")
    model = bl.LMM("y ~ age", phenotypes.iloc[:N], kernel)
    tree = draws(model, 5.0, 4.0)
    as_new = model.predict(old, phenotypes, tree)
    np.testing.assert_allclose(as_new.u_mean, model.random_effects(tree).u_mean, atol=1e-8)
    np.testing.assert_allclose(as_new.u_sd, model.random_effects(tree).u_sd, atol=1e-8)


def test_pairwise_kernels_are_refused(cohort):
    _, old, new, phenotypes = cohort
    model = bl.LMM("y ~ age", phenotypes.iloc[:N], bl.grm(old, pairwise=True))
    with pytest.raises(InputError, match="pairwise=False"):
        model.predict(new, phenotypes)


# -- covariates ----------------------------------------------------------------------------------


def test_covariates_by_formula(cohort, model):
    """Categories are coded as in the training samples, whichever the new ones have."""
    _, _, new, phenotypes = cohort
    tree = draws(model, 5.0, 4.0)
    found = model.predict(new, phenotypes, tree)
    b = pd.Series(mean_b(tree), model.C.columns)
    rows = phenotypes.loc[found.index]
    C = pd.DataFrame(
        {
            "Intercept": 1.0,
            "age": rows.age,
            "group[T.b]": (rows.group == "b").astype(float),
            "group[T.c]": (rows.group == "c").astype(float),
        }
    )[list(b.index)]
    np.testing.assert_allclose(found.y_mean - found.u_mean, C @ b, rtol=1e-9)
    one = new.select(samples=[new.samples.index[2]])
    pd.testing.assert_frame_equal(
        model.predict(one, phenotypes.iloc[::-1], tree)[["y_mean", "y_sd"]],
        found.iloc[[2]][["y_mean", "y_sd"]],
    )


def test_covariates_that_do_not_fit_are_refused(cohort, model):
    _, _, new, phenotypes = cohort
    unseen = phenotypes.assign(group="d")
    with pytest.raises(InputError, match=r"Covariates of new samples: .*not seen.*'d'"):
        model.predict(new, unseen)
    with pytest.raises(InputError, match="lack the column 'group'"):
        model.predict(new, phenotypes.drop(columns="group"))
    with pytest.raises(InputError, match=r"1 of 12 new samples have no covariates: 'i61'"):
        model.predict(new, phenotypes.iloc[:-1])
    with pytest.raises(InputError, match="missing for 1 new samples: 'i50'"):
        model.predict(new, phenotypes.assign(age=phenotypes.age.mask(phenotypes.index == "i50")))
    with pytest.raises(InputError, match=r"samples twice: 'i50'"):
        model.predict(new, pd.concat([phenotypes, phenotypes.loc[["i50"]]]))
    with pytest.raises(InputError, match=r"expected\s+\(12, 3\): 'age', 'group\[T.b\]'"):
        model.predict(new)
    with pytest.raises(InputError, match="Give either genotypes"):
        model.predict(data=phenotypes)


def test_covariates_as_arrays(cohort):
    _, old, new, phenotypes = cohort
    kernel = bl.grm(old, dtype="float64")
    training = phenotypes.iloc[:N]
    by_formula = bl.LMM("y ~ age", training, kernel)
    by_array = bl.LMM(training.y, training[["age"]], kernel)
    tree = draws(by_formula, 5.0, 4.0)
    expected = by_formula.predict(new, phenotypes, tree)
    ages = phenotypes.age.loc[new.samples.index].to_numpy()[:, None]
    for given in (ages, phenotypes[["age"]], phenotypes.iloc[::-1]):
        found = by_array.predict(new, given, tree)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-9)
    with pytest.raises(InputError, match=r"lack samples or columns: 'age'"):
        by_array.predict(new, phenotypes[["y"]])
    with pytest.raises(InputError, match=r"have shape \(3, 1\); expected \(12, 1\)"):
        by_array.predict(new, ages[:3])
    intercept = bl.LMM("y ~ 1", training, kernel)
    assert len(intercept.predict(new)) == NEW


# -- with SNP effects ----------------------------------------------------------------------------


@pytest.mark.algebra
def test_prediction_with_snp_effects(cohort, model):
    """Fixed SNP effects of the draws are added, alleles matched, missing at the mean."""
    x, _, new, phenotypes = cohort
    tree = model.sample(["rs5", "rs2"], "spike_slab", draws=200, seed=1, log_likelihood=False)
    found = model.predict(new, phenotypes, tree)
    beta = tree["posterior"]["beta"].mean(("chain", "draw")).to_numpy()
    dosage = x[N:][:, [5, 2]] - np.nanmean(x[:N][:, [5, 2]], axis=0)
    C = model._new_covariates(phenotypes, found.index)
    expected = C @ mean_b(tree) + np.nan_to_num(dosage) @ beta
    np.testing.assert_allclose(found.y_mean - found.u_mean, expected, rtol=1e-9)
    table = new.variants.copy()
    table.loc[5, ["ea", "oa"]] = ["G", "A"]
    turned = x[N:].copy()
    turned[:, 5] = 2 - turned[:, 5]
    other = bl.Genotypes.from_array(turned, list(new.samples.index), table)
    pd.testing.assert_frame_equal(model.predict(other, phenotypes, tree), found, rtol=1e-9)
    # Training samples by name: their genotypes are the kernel's.
    by_name = model.predict(data=phenotypes, tree=tree, samples=model.ids[:3])
    by_genotype = model.predict(
        model._kernel.genotypes.select(samples=list(model.ids[:3])), phenotypes, tree
    )
    pd.testing.assert_frame_equal(by_name, by_genotype, rtol=1e-7)
    # u given the SNPs' effects: the dense BLUP of what they leave.
    one = tree.map_over_datasets(lambda d: d.isel(draw=[0]) if "draw" in d.dims else d)
    u = model.random_effects(one)
    v = one["posterior"].dataset.isel(chain=0, draw=0)
    e = model.y - model.C.to_numpy() @ v.b.to_numpy()
    e = e - tree["constant_data"]["X"].to_numpy() @ v.beta.to_numpy()
    K = centred(np.asarray(model._kernel.matrix))
    V = float(v.s2_g) * K + float(v.s2_e) * np.eye(N)
    np.testing.assert_allclose(u.u_mean, float(v.s2_g) * K @ np.linalg.solve(V, e), atol=1e-9)


def test_draws_of_another_model_are_refused(cohort, model):
    _, old, new, phenotypes = cohort
    other = bl.LMM("y ~ age", phenotypes.iloc[:N], model._kernel)
    tree = other.posterior(10, seed=1)
    with pytest.raises(InputError, match="another model: covariates differ"):
        model.predict(new, phenotypes, tree)
    few = bl.LMM("y ~ age + group", phenotypes.iloc[:40], model._kernel)
    with pytest.raises(InputError, match="another model: samples differ"):
        model.random_effects(few.posterior(10, seed=1))
    assert old.n_samples == N


def test_seed(cohort, model):
    _, _, new, phenotypes = cohort
    a, b, c = (model.predict(new, phenotypes, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(a, b)
    assert not a.equals(c)
