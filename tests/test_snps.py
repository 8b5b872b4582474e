import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.model.snps import selected_snps


@pytest.fixture(scope="module")
def cohort():
    """40 samples, 12 SNPs (one dosage missing, one SNP monomorphic, one id twice)."""
    rng = np.random.default_rng(3)
    x = rng.binomial(2, rng.uniform(0.2, 0.5, 12), size=(40, 12)).astype(float)
    x[4, 2] = np.nan
    x[:, 5] = 1
    ids = [f"rs{j}" for j in range(12)]
    ids[11] = "rs10"
    table = pd.DataFrame({"id": ids, "ea": list("ACGTACGTACGT"), "oa": list("GTACGTACGTAC")})
    samples = [f"i{j}" for j in range(40)]
    genotypes = bl.Genotypes.from_array(x, samples, table)
    y = pd.Series(rng.normal(size=40), index=samples, name="y")
    return x, genotypes, y


def test_by_id_in_the_order_asked_for(cohort):
    x, genotypes, y = cohort
    model = bl.LMM(y, kernel=bl.grm(genotypes))
    found = selected_snps(model, ["rs7", "rs2", "rs0"])
    assert found.ids == ["rs7", "rs2", "rs0"]
    assert found.ea == ["T", "G", "A"]
    columns = x[:, [7, 2, 0]]
    np.testing.assert_allclose(found.eaf, np.nanmean(columns, axis=0) / 2)
    centred = np.nan_to_num(columns - np.nanmean(columns, axis=0))
    np.testing.assert_allclose(found.x, centred, atol=1e-14)
    np.testing.assert_allclose(found.sd, np.sqrt((centred**2).mean(axis=0)))
    assert selected_snps(model, "rs7").ids == ["rs7"]
    assert selected_snps(model, pd.Series(["rs3"])).ids == ["rs3"]


def test_on_the_analysed_samples_only(cohort):
    """Centred and scaled on those that have a phenotype, in the model's order."""
    x, genotypes, y = cohort
    kernel = bl.grm(genotypes)
    few = y.iloc[::-1].iloc[:25]
    model = bl.LMM(few, kernel=kernel)
    rows = [int(i[1:]) for i in model.ids]
    for given in (["rs0"], pd.DataFrame({"rs0": x[::-1, 0]}, index=y.index[::-1])):
        found = selected_snps(model, given)
        np.testing.assert_allclose(found.x[:, 0], x[rows, 0] - x[rows, 0].mean(), atol=1e-14)
        assert found.sd[0] == pytest.approx(x[rows, 0].std())
    given = selected_snps(model, ["rs1"], genotypes)
    np.testing.assert_array_equal(given.x, selected_snps(model, ["rs1"]).x)


def test_from_a_basis_and_none(cohort):
    _, genotypes, y = cohort
    model = bl.LMM(y, kernel=bl.grm(genotypes).eigenbasis())
    assert selected_snps(model, ["rs4"]).ids == ["rs4"]
    for nothing in (None, []):
        found = selected_snps(model, nothing)
        assert found.ids == []
        assert found.x.shape == (40, 0)


def test_refusals(cohort):
    x, genotypes, y = cohort
    model = bl.LMM(y, kernel=bl.grm(genotypes))
    with pytest.raises(InputError, match=r"1 of 2 selected variants are not there: 'rs99'"):
        selected_snps(model, ["rs1", "rs99"])
    with pytest.raises(InputError, match="named twice: 'rs1'"):
        selected_snps(model, ["rs1", "rs2", "rs1"])
    with pytest.raises(InputError, match="name several variants: 'rs10'"):
        selected_snps(model, ["rs10"])
    with pytest.raises(InputError, match=r"monomorphic among the 40 analysed samples: 'rs5'"):
        selected_snps(model, ["rs4", "rs5"])
    with pytest.raises(InputError, match=r"SNP table lacks 35 of 40 analysed samples"):
        selected_snps(model, pd.DataFrame({"a": x[:5, 0]}, index=y.index[:5]))
    unknown = bl.LMM(y, kernel=bl.GRM(bl.grm(genotypes).matrix, samples=y.index))
    with pytest.raises(InputError, match=r"does not know its genotypes.*pass genotypes="):
        selected_snps(unknown, ["rs1"])
    assert selected_snps(unknown, ["rs1"], genotypes).ids == ["rs1"]
    fewer = genotypes.select(samples=list(y.index[:30]))
    with pytest.raises(InputError, match="10 of the 40 analysed samples have no genotypes"):
        selected_snps(model, ["rs1"], fewer)
