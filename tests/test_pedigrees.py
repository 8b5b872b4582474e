"""The additive relationship matrix, its inverse and inbreeding."""

import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.model.trees import data_groups
from bayeslmm.relatedness import dense as relatedness

pytestmark = pytest.mark.algebra


def table(rows):
    return pd.DataFrame(rows, columns=["id", "sire", "dam"])


def tabular(rows):
    """A by the tabular method of the textbooks; rows sorted, parents first; -1 unknown."""
    n = len(rows)
    A = np.zeros((n, n))
    for i, (s, d) in enumerate(rows):
        for j in range(i):
            A[i, j] = A[j, i] = sum(A[j, p] for p in (s, d) if p >= 0) / 2
        A[i, i] = 1 + (A[s, d] / 2 if s >= 0 and d >= 0 else 0)
    return A


@st.composite
def pedigrees(draw):
    """Parents' positions, parents first; even ones are males, odd ones females."""
    n = draw(st.integers(2, 30))
    rows = []
    for i in range(n):
        s = draw(st.sampled_from([-1, *range(0, i, 2)]))
        d = draw(st.sampled_from([-1, *range(1, i, 2)]))
        rows.append((s, d))
    return rows


def named(rows):
    name = lambda i: f"i{i}" if i >= 0 else None  # noqa: E731
    return table([(name(i), name(s), name(d)) for i, (s, d) in enumerate(rows)])


# Mrode (2014), Linear Models for the Prediction of Animal Breeding Values, 3rd ed.,
# table 2.1; T and D are printed in section 2.3, A in 2.2.
MRODE = table(
    [(1, None, None), (2, None, None), (3, 1, 2), (4, 1, None), (5, 4, 3), (6, 5, 2)],
)
MRODE_A = np.array(
    [
        [1.00, 0.00, 0.5000, 0.5000, 0.5000, 0.2500],
        [0.00, 1.00, 0.5000, 0.0000, 0.2500, 0.6250],
        [0.50, 0.50, 1.0000, 0.2500, 0.6250, 0.5625],
        [0.50, 0.00, 0.2500, 1.0000, 0.6250, 0.3125],
        [0.50, 0.25, 0.6250, 0.6250, 1.1250, 0.6875],
        [0.25, 0.625, 0.5625, 0.3125, 0.6875, 1.1250],
    ]
)


def test_mrode_example():
    ped = bl.pedigree(MRODE)
    assert repr(ped) == "<Pedigree of 6 individuals: 2 founders, 4 generations>"
    np.testing.assert_array_equal(ped.grm().matrix, MRODE_A)
    assert ped.inbreeding.to_dict() == {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0.125, "6": 0.125}
    # D as printed: three decimals.
    np.testing.assert_allclose(ped._F_and_D[1], [1, 1, 0.5, 0.75, 0.5, 0.469], atol=5e-4)
    np.testing.assert_allclose(ped.inverse().toarray(), np.linalg.inv(MRODE_A), atol=1e-12)
    grm = ped.grm()
    assert grm.scale == "pedigree"
    assert grm.labelled
    assert list(grm.samples) == list("123456")
    assert grm is ped.grm()


@given(pedigrees(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_equals_the_tabular_method_in_any_order(rows, random):
    A, n = tabular(rows), len(rows)
    order = list(range(n))
    random.shuffle(order)
    ped = bl.pedigree(named(rows).iloc[order])
    assert list(ped.ids) == [f"i{i}" for i in order]
    expected = A[np.ix_(order, order)]
    np.testing.assert_allclose(ped.grm().matrix, expected, atol=1e-14)
    np.testing.assert_allclose(ped.inbreeding, np.diagonal(expected) - 1, atol=1e-14)
    np.testing.assert_allclose(ped.inverse().toarray() @ expected, np.eye(n), atol=1e-10)
    some = [f"i{i}" for i in order[: n // 2 + 1]]
    np.testing.assert_allclose(
        ped.grm(some).matrix, ped.grm().subset(some).matrix, rtol=0, atol=1e-13
    )
    pruned = ped.prune(some)
    np.testing.assert_array_equal(pruned.grm().subset(some).matrix, ped.grm().subset(some).matrix)


def test_known_relationships():
    rows = [
        ("a", 0, 0),
        ("b", 0, 0),
        ("c", 0, 0),
        ("ab1", "a", "b"),
        ("ab2", "a", "b"),
        ("ac", "a", "c"),
        ("x", "ab1", "p"),
        ("y", "q", "ab2"),
    ]
    A = bl.pedigree(table(rows)).grm().matrix
    A = pd.DataFrame(A, *[list(bl.pedigree(table(rows)).ids)] * 2)
    assert A.loc["a", "b"] == 0
    assert A.loc["a", "ab1"] == 0.5
    assert A.loc["ab1", "ab2"] == 0.5
    assert A.loc["ab1", "ac"] == 0.25  # half sibs
    assert A.loc["ab1", "y"] == 0.25  # uncle
    assert A.loc["x", "y"] == 0.125  # first cousins
    assert A.loc["x", "p"] == 0.5


def test_full_sib_mating():
    """F_t = (1 + 2 F_(t-1) + F_(t-2)) / 4 (Wright 1921)."""
    rows, expected = [("m0", 0, 0), ("f0", 0, 0)], [0.0, 0.0]
    for t in range(1, 40):
        rows += [(f"m{t}", f"m{t - 1}", f"f{t - 1}"), (f"f{t}", f"m{t - 1}", f"f{t - 1}")]
        if t > 1:
            expected.append((1 + 2 * expected[-1] + expected[-2]) / 4)
    F = bl.pedigree(table(rows)).inbreeding
    np.testing.assert_allclose([F[f"m{t}"] for t in range(40)], expected, atol=1e-14)


def test_selfing_needs_monoecious():
    rows = table([("p1", "p0", "p0"), ("p2", "p1", "p1"), ("p3", "p2", "p2")])
    with pytest.raises(InputError, match=r"dam in another: 'p0', 'p1', 'p2'.*monoecious=True"):
        bl.pedigree(rows)
    ped = bl.pedigree(rows, monoecious=True)
    assert ped.inbreeding.to_dict() == {"p1": 0.5, "p2": 0.75, "p3": 0.875, "p0": 0}
    np.testing.assert_allclose(ped.inverse() @ ped.grm().matrix, np.eye(4), atol=1e-12)
    rows = [(f"p{i}", f"p{i - 1}", f"p{i - 1}") for i in range(1, 60)]
    with pytest.raises(InputError, match="no inverse"):
        bl.pedigree(table(rows), monoecious=True).inverse()


@pytest.mark.parametrize("unknown", [None, np.nan, 0, "0", "", ".", "NA", pd.NA, " "])
def test_unknown_parents(unknown):
    ped = bl.pedigree(table([("k", "s", unknown), ("l", unknown, "d")]))
    assert list(ped.ids) == ["k", "l", "s", "d"]
    assert ped.dam.tolist() == [-1, 3, -1, -1]
    assert ped.grm().matrix[0, 1] == 0


def test_numbers_with_missing_ones_stay_integers():
    ped = bl.pedigree(pd.DataFrame({"id": [12, 11], "sire": [11.0, np.nan], "dam": [np.nan] * 2}))
    assert list(ped.ids) == ["12", "11"]
    assert ped.sire.tolist() == [1, -1]


def test_columns_index_and_files(tmp_path):
    frame = pd.DataFrame({"father": ["s"], "mother": [None]}, index=pd.Index(["k"], name="animal"))
    ped = bl.pedigree(frame, sire="father", dam="mother")
    assert list(ped.ids) == ["k", "s"]
    assert bl.pedigree(frame, sire="father", dam=None).dam.tolist() == [-1, -1]
    file = tmp_path / "ped.txt"
    file.write_text("id sire dam\n007 001 0\n008 001 003\n")
    assert list(bl.pedigree(file).ids) == ["007", "008", "001", "003"]
    with pytest.raises(InputError, match=r"no column 'sire', 'dam'.*'father'"):
        bl.pedigree(frame)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "a", 0)], "Its own parent in the pedigree: 'a'"),
        ([("a", "b", 0), ("b", 0, "c"), ("c", "a", 0), ("k", "b", "x")], r"(a|b|c) <- .* <- \1\."),
        ([("a", 0, 0), ("a", "s", 0)], "individuals twice: 'a'"),
        ([("a", "s", "d"), ("b", "d", 0)], "Sire in one row of the pedigree and dam in .*: 'd'"),
        ([("a", 0, 0), (0, "a", 0)], "Row 2 of the pedigree has no id: '0'"),
        ([], "no rows"),
    ],
)
def test_refusals(rows, message):
    with pytest.raises(InputError, match=message):
        bl.pedigree(table(rows))


def test_loop_message_names_only_the_loop():
    rows = [("a", "b", 0), ("b", "c", 0), ("c", "a", 0), ("child", "a", "x"), ("x", 0, 0)]
    with pytest.raises(InputError, match="a <- b <- c <- a") as error:
        bl.pedigree(table(rows))
    assert "child" not in str(error.value)


def test_too_large_and_unknown_individuals(monkeypatch):
    ped = bl.pedigree(MRODE)
    with pytest.raises(InputError, match="1 of 2 individuals are not in the pedigree of 6: '9'"):
        ped.grm([1, 9])
    monkeypatch.setattr("bayeslmm.runs.memory.available_memory", lambda: 100)
    with pytest.raises(InputError, match=r"6 individuals \(pedigree.grm\(ids\) makes"):
        ped.grm()


def test_five_thousand_animals_quickly():
    rng = np.random.default_rng(1)
    rows = [(i, 0, 0) for i in range(1, 501)]
    for g in range(1, 10):
        first = (g - 1) * 500 + 1
        sires, dams = rng.integers(0, 20, 500), rng.integers(20, 120, 500)
        rows += [
            (g * 500 + 1 + k, first + s, first + d)
            for k, (s, d) in enumerate(zip(sires, dams, strict=True))
        ]
    start = time.perf_counter()
    ped = bl.pedigree(table(rows))
    A = ped.grm().matrix
    assert time.perf_counter() - start < 10  # about 0.6 s; the machine may be busy
    x = rng.normal(size=5000)
    np.testing.assert_allclose(ped.inverse() @ (A @ x), x, atol=1e-9)


def test_in_a_model_it_is_its_grm():
    ped = bl.pedigree(MRODE)
    assert relatedness.as_grm(ped) is ped.grm()
    data = pd.DataFrame({"w": [1.0, 3, 2, 5, 4]}, index=list("65432"))
    one, other = bl.LMM("w ~ 1", data, ped), bl.LMM("w ~ 1", data, ped.grm())
    assert one.reml().loglik == other.reml().loglik
    assert one.reml().kappa < 1
    np.testing.assert_array_equal(bl.eigenbasis(ped).values, bl.eigenbasis(ped.grm()).values)


def test_breeding_values_equal_hendersons_equations(rng):
    """u of all, with phenotype and without, at fixed variances: the mixed model equations."""
    rows = named(
        [(-1, -1)] * 6 + [(2 * rng.integers(0, 3), 1 + 2 * rng.integers(0, 3)) for _ in range(24)]
    )
    ped = bl.pedigree(rows)
    present = list(rng.permutation(ped.ids)[:20])
    data = pd.DataFrame({"w": rng.normal(10, 2, 20), "age": rng.normal(size=20)}, index=present)
    model = bl.LMM("w ~ age", data, ped)
    s2_g, s2_e = 2.0, 3.0

    X, Z = model.C.to_numpy(), np.zeros((20, len(ped)))
    Z[np.arange(20), ped.ids.get_indexer(model.ids)] = 1
    left = np.block(
        [[X.T @ X, X.T @ Z], [Z.T @ X, Z.T @ Z + ped.inverse().toarray() * s2_e / s2_g]]
    )
    solution = np.linalg.solve(left, np.concatenate([X.T @ model.y, Z.T @ model.y]))
    b, u = solution[:2], pd.Series(solution[2:], index=ped.ids)
    mean = u[model.ids].mean()  # K is centred: the intercept has the mean of the analysed
    draw = {
        "s2_g": (("chain", "draw"), [[s2_g]]),
        "s2_e": (("chain", "draw"), [[s2_e]]),
        "b": (("chain", "draw", "covariate"), [[[b[0] + mean, b[1]]]]),
    }
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(draw), **data_groups(model)})
    found = model.random_effects(tree, samples="all")
    assert list(found.index) == list(ped.ids)
    np.testing.assert_allclose(found.u_mean, u - mean, atol=1e-10)
