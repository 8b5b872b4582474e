import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeslmm as bl
from bayeslmm.bases.basis import Eigenbasis, eigenbasis
from bayeslmm.bases.loading import load_eigenbasis
from bayeslmm.errors import InputError
from bayeslmm.relatedness.dense import GRM

pytestmark = pytest.mark.algebra


def kernel(n=30, m=100, seed=1, **options):
    x = np.random.default_rng(seed).normal(size=(n, m))
    return GRM(x @ x.T / m, [f"i{k}" for k in range(n)], m, **options)


@pytest.fixture
def grm():
    return kernel()


def centred(K):
    P = np.eye(len(K)) - 1 / len(K)
    return P @ K @ P


def same_space(a, b, tolerance=1e-10):
    """Equal eigenvalues, and eigenvectors equal as far as they are determined."""
    np.testing.assert_allclose(a.values, b.values, atol=tolerance)
    for basis in (a, b):
        identity = basis.vectors.T @ basis.vectors
        np.testing.assert_allclose(identity, np.eye(basis.n), atol=1e-10)
    K = [(v.vectors * v.values) @ v.vectors.T for v in (a, b)]
    np.testing.assert_allclose(*K, atol=tolerance)


# -- the decomposition -----------------------------------------------------------------------


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n", "m"), [(30, 100), (60, 20), (3, 50)])
def test_reconstructs_the_kernel(n, m, center):
    grm = kernel(n, m)
    basis = eigenbasis(grm, center=center)
    K = centred(grm.matrix) if center else grm.matrix
    np.testing.assert_allclose((basis.vectors * basis.values) @ basis.vectors.T, K, atol=1e-13)
    np.testing.assert_allclose(basis.vectors.T @ basis.vectors, np.eye(n), atol=1e-13)
    assert (np.diff(basis.values) <= 0).all()
    assert (basis.values >= 0).all()
    rank = min(n - center, m)
    assert (basis.values > 1e-12).sum() == rank
    assert basis.trace == pytest.approx(np.trace(K))
    assert basis.kappa == pytest.approx(np.diagonal(K).mean())
    assert basis.centered is center
    assert f"{rank} positive eigenvalues" in repr(basis)
    assert basis.info["n_negative_set_to_0"] == 0, "rounding is not counted"
    if center:
        assert np.abs(basis.rotate(np.ones(n))[:-1][basis.values[:-1] > 1e-10]).max() < 1e-10


def test_protocol(grm, rng):
    basis = eigenbasis(grm)
    U = basis.vectors
    for x in (rng.normal(size=30), rng.normal(size=(30, 4))):
        np.testing.assert_allclose(basis.rotate(x), U.T @ x, atol=1e-14)
        np.testing.assert_allclose(basis.unrotate(basis.rotate(x)), x, atol=1e-13)
        np.testing.assert_allclose(basis.rotate(basis.unrotate(x)), x, atol=1e-13)
    rows = rng.normal(size=(7, 30))
    np.testing.assert_allclose(basis.rotate_rows(rows), rows @ U, atol=1e-14)
    single = basis.rotate_rows(rows.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, rows @ U, atol=1e-5)
    assert basis.vectors32 is basis.vectors32


def test_row_quadratic(grm, rng):
    basis = eigenbasis(grm)
    U = basis.vectors
    for w in (rng.normal(size=30), rng.normal(size=(30, 3))):
        columns = w.reshape(30, -1).T
        expected = np.array([np.diagonal(U @ np.diag(v) @ U.T) for v in columns]).T
        np.testing.assert_allclose(basis.row_quadratic(w), expected.reshape(w.shape), atol=1e-13)


def test_row_quadratic_in_steps(rng):
    U = np.linalg.qr(rng.normal(size=(2500, 5)))[0]  # 2,500 rows of 2,500 do not fit in a step
    wide = Eigenbasis(np.ones(2500), np.hstack([U, np.zeros((2500, 2495))]), range(2500))
    w = np.r_[rng.normal(size=5), np.zeros(2495)]
    np.testing.assert_allclose(wide.row_quadratic(w), (U * U) @ w[:5], atol=1e-15)


@pytest.mark.parametrize("source", ["array", "frame", "grm"])
def test_what_may_be_decomposed(grm, source):
    K = grm.matrix
    given = {"array": K, "frame": pd.DataFrame(K, grm.samples, grm.samples), "grm": grm}[source]
    basis = eigenbasis(given)
    same_space(basis, eigenbasis(grm))
    assert basis.labelled is (source != "array")
    assert basis.samples.tolist() == (
        [str(k) for k in range(30)] if source == "array" else grm.samples.tolist()
    )
    np.testing.assert_array_equal(K, kernel().matrix, "what was given is left as it is")


# -- subsets -------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.permutations(range(12)), st.integers(4, 12), st.booleans())
def test_subset_is_a_decomposition_of_the_subset(order, size, center):
    grm = kernel(12, 30)
    ids = [f"i{k}" for k in order[:size]]
    found = eigenbasis(grm, center=center).subset(ids)
    x = np.random.default_rng(1).normal(size=(12, 30))[order[:size]]
    K = x @ x.T / 30
    same_space(found, eigenbasis(K, center=center))
    assert found.samples.tolist() == ids
    assert found.centered is center
    same_space(found, eigenbasis(grm, samples=ids, center=center))


def test_bases_are_kept(grm):
    whole = grm.eigenbasis()
    assert grm.eigenbasis() is whole
    assert eigenbasis(grm) is whole
    assert eigenbasis(grm, samples=iter(grm.samples)) is whole
    assert whole.subset(grm.samples) is whole
    assert whole.subset(["i3", "i1", "i2"]) is whole.subset(["i3", "i1", "i2"])
    assert whole.subset(["i3", "i1", "i2"]) is not whole.subset(["i1", "i2", "i3"])
    assert grm.eigenbasis(center=False) is not whole
    for k in range(8):
        grm.eigenbasis([f"i{j}" for j in range(k, k + 9)])
    assert len(grm._bases) == 8, "the oldest go"
    assert grm.eigenbasis() is not whole


def test_samples_that_are_not_there(grm):
    basis = eigenbasis(grm)
    with pytest.raises(InputError) as caught:
        basis.subset(["i1", "z1", "i2", "z2"])
    assert str(caught.value) == (
        "The eigenbasis has 30 samples, 4 are wanted, and 2 of these are not in it: 'z1', 'z2'."
    )
    with pytest.raises(InputError, match=r"1 of 3 samples are not among .* matrix's 30: 'z'"):
        eigenbasis(grm, samples=["i1", "z", "i2"])
    with pytest.raises(InputError, match="samples twice: 'i1'"):
        basis.subset(["i1", "i2", "i1", "i3"])
    with pytest.raises(InputError, match="at least 3 samples, but has 2"):
        basis.subset(["i1", "i2"])


def test_subset_without_the_matrix(grm):
    basis = eigenbasis(grm)
    alone = Eigenbasis(basis.values, basis.vectors, basis.samples)
    assert alone.subset(grm.samples) is alone
    with pytest.raises(InputError, match=r"has 30 samples, but 4 are analysed, and it was kept w"):
        alone.subset(["i1", "i2", "i3", "i4"])


# -- kernels that are none ---------------------------------------------------------------------


def with_values(*values):
    rng = np.random.default_rng(4)
    U = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    K = (U * np.array(values)) @ U.T
    return (K + K.T) / 2


@pytest.mark.parametrize(
    ("K", "message"),
    [
        (with_values(3, 2, 1, 0, -0.5), r"not positive-semidefinite: its eigenvalues run from "
         r"-0\.5 to 3\. A covariance has none below 0; was it made with pairwise deletion, round"),
        (with_values(3, 2, 1, 0, -1e-4), r"not positive-semidefinite: its eigenvalues run from -0"),
        (-with_values(3, 2, 1, 1, 1), r"not positive-semidefinite"),
        (np.eye(5), r"proportional to the identity: everybody is equally related, so genetic and"),
        (0.3 * np.eye(5), r"proportional to the identity"),
        (np.zeros((5, 5)), r"proportional to the identity"),
        (np.where(np.eye(5) == 1, np.nan, 1), r"not finite for samples '0' and '0' \(nan\)"),
        (np.diag([1, 2, 3, np.inf, 5]), r"not finite for samples '3' and '3' \(inf\)"),
        (np.eye(5) + np.triu(np.ones((5, 5)), 1), r"not symmetric: samples '0' and '1' have 1 one w"
         r"ay and 0 the other"),
        (np.ones((5, 4)), r"must be square, but has shape \(5, 4\)"),
        (np.eye(2), r"A basis needs at least 3 samples, but has 2"),
    ],
)  # fmt: skip
def test_kernels_that_are_none(K, message):
    with pytest.raises(InputError, match=message):
        eigenbasis(K, center=False)


@pytest.mark.parametrize("shift", [0, 0.1, 1, 1e6])
@pytest.mark.parametrize("scale", [0, 0.3, 1])
def test_everybody_equally_related(scale, shift):
    """Centring takes a constant away: what is left is the identity, or rounding."""
    with pytest.raises(InputError, match="proportional to the identity"):
        eigenbasis(scale * np.eye(20) + shift)


def test_small_negative_eigenvalues_are_set_to_0_and_counted():
    basis = eigenbasis(with_values(3, 2, 1, 0, -1e-6, -2e-6), center=False)
    np.testing.assert_allclose(basis.values, [3, 2, 1, 0, 0, 0], atol=1e-12)
    assert basis.values.min() == 0
    assert basis.info["n_negative_set_to_0"] == 2
    assert basis.info["smallest_eigenvalue"] == pytest.approx(-2e-6)


def test_float32_matrix_of_few_variants(rng):
    x = rng.binomial(2, 0.3, size=(300, 40)).astype(float)
    basis = eigenbasis(bl.grm(x))
    assert basis.values.min() == 0
    assert (basis.values > 1e-4).sum() <= 40


def test_memory_is_asked_for_first(grm, monkeypatch):
    monkeypatch.setattr("bayeslmm.runs.memory.available_memory", lambda: 3_000_000_000)
    eigenbasis(grm)
    big = np.broadcast_to(np.float64(1), (20_000, 20_000))
    with pytest.raises(InputError) as caught:
        eigenbasis(GRM(big, range(20_000)))
    assert str(caught.value) == (
        "Decomposing a 20,000 x 20,000 relatedness matrix needs 6.4 GB of memory, but 3.0 GB "
        "are available. Use fewer samples, or a machine with more memory."
    )


def test_cost_is_stated_before_it_is_spent(monkeypatch, caplog):
    class StopError(Exception):
        pass

    def stop(*args, **kwargs):
        raise StopError

    monkeypatch.setattr("scipy.linalg.eigh", stop)
    with pytest.raises(StopError):
        eigenbasis(np.eye(2001))
    pattern = r"Decomposing a 2,001 x 2,001 relatedness matrix: 96 MB of memory, about \d+ (s|min)"
    assert re.search(pattern, caplog.text)


# -- on disk -------------------------------------------------------------------------------


@pytest.fixture
def saved(grm, tmp_path):
    grm.info["genotypes"] = "mice"
    eigenbasis(grm).save(tmp_path / "x.basis")
    return tmp_path / "x.basis"


@pytest.mark.parametrize("center", [True, False])
def test_round_trip(tmp_path, center):
    grm = kernel(labelled=False, scale="centered", info={"file": tmp_path / "x", "n": np.int64(3)})
    grm = GRM(grm.matrix, ["a b", "ü", "007", "a\u2028b", *grm.samples[4:]], 100, "centered")
    basis = eigenbasis(grm, center=center)
    basis.save(tmp_path / "new" / "x.basis")
    found = load_eigenbasis(tmp_path / "new" / "x.basis")
    np.testing.assert_array_equal(found.values, basis.values)
    np.testing.assert_array_equal(found.vectors, basis.vectors)
    assert isinstance(found.vectors, np.memmap)
    assert isinstance(found.grm.matrix, np.memmap)
    assert found.samples.equals(basis.samples)
    assert found.samples.name == "id"
    assert (found.centered, found.labelled, found.info) == (center, True, basis.info)
    assert (found.grm.scale, found.grm.n_variants) == ("centered", 100)
    y = np.arange(30.0)
    np.testing.assert_allclose(found.rotate(y), basis.rotate(y), rtol=1e-14)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.basis"]


def test_unlabelled_stays_unlabelled(grm, tmp_path):
    eigenbasis(grm.matrix).save(tmp_path / "x")
    found = load_eigenbasis(tmp_path / "x")
    assert not found.labelled
    assert not found.grm.labelled


def test_without_the_matrix(grm, tmp_path):
    eigenbasis(grm).save(tmp_path / "x", with_grm=False)
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        "basis.json", "samples.txt", "values.npy", "vectors.npy",
    ]  # fmt: skip
    assert load_eigenbasis(tmp_path / "x").grm is None
    assert load_eigenbasis(tmp_path / "x", grm=grm).grm is grm


def test_subset_of_a_loaded_basis_is_kept_beside_it(saved, grm, monkeypatch):
    ids = [f"i{k}" for k in (4, 2, 9, 11, 3)]
    made = load_eigenbasis(saved).subset(ids)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["x.basis", "x.basis.subsets"]
    same_space(made, eigenbasis(grm.subset(ids)))

    def refused(*args, **kwargs):
        raise AssertionError("decomposed again")

    monkeypatch.setattr("bayeslmm.bases.basis.decompose", refused)
    again = load_eigenbasis(saved).subset(ids)
    np.testing.assert_array_equal(again.values, made.values)
    np.testing.assert_array_equal(again.vectors, made.vectors)
    assert again.samples.tolist() == ids
    with pytest.raises(AssertionError, match="decomposed again"):
        load_eigenbasis(saved).subset(ids[::-1])


def test_kept_subsets_belong_to_their_matrix(saved, grm):
    """Another basis in the same place must not find the subsets of the first."""
    ids = ["i1", "i2", "i3", "i5"]
    load_eigenbasis(saved).subset(ids)
    other = kernel(seed=2)
    eigenbasis(other).save(saved, overwrite=True)
    same_space(load_eigenbasis(saved).subset(ids), eigenbasis(other.subset(ids)))


def test_subsets_where_nothing_can_be_written(saved, caplog):
    """A basis in a folder of somebody else's works; its subsets are not kept on disk."""
    (saved.parent / "x.basis.subsets").write_text("in the way")
    caplog.set_level("INFO", logger="bayeslmm")
    for _ in range(2):
        basis = load_eigenbasis(saved)
        for ids in (["i1", "i2", "i3"], ["i1", "i2", "i3", "i4"]):
            assert basis.subset(ids).n == len(ids)
    (message,) = [r.getMessage() for r in caplog.records if "not kept" in r.getMessage()]
    assert "x.basis.subsets" in message


def test_subset_basis_saved_with_its_whole_matrix(grm, tmp_path):
    eigenbasis(grm).subset(["i5", "i2", "i7", "i8"]).save(tmp_path / "x")
    found = load_eigenbasis(tmp_path / "x")
    assert found.samples.tolist() == ["i5", "i2", "i7", "i8"]
    assert found.grm.samples.equals(grm.samples)
    same_space(found.subset(["i7", "i5", "i2"]), eigenbasis(grm, samples=["i7", "i5", "i2"]))


def test_existing_folders_are_kept(saved, grm, tmp_path):
    other = kernel(seed=2)
    with pytest.raises(InputError, match=r"x\.basis exists already and is kept"):
        eigenbasis(other).save(saved)
    np.testing.assert_array_equal(load_eigenbasis(saved).values, eigenbasis(grm).values)
    eigenbasis(other).save(saved, overwrite=True)
    np.testing.assert_array_equal(load_eigenbasis(saved).values, eigenbasis(other).values)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("mine")
    with pytest.raises(InputError, match="thesis is a folder, but no saved eigenbasis: it is kept"):
        eigenbasis(grm).save(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter").read_text() == "mine"


FILES = ["basis.json", "grm.npy", "grm_samples.txt", "samples.txt", "values.npy", "vectors.npy"]


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_noticed(saved, name):
    assert sorted(path.name for path in saved.iterdir()) == FILES
    whole = (saved / name).read_bytes()
    for position in np.linspace(0, len(whole) - 1, 40).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        (saved / name).write_bytes(damaged)
        with pytest.raises(InputError, match=r"damaged or edited|not a saved|is not 'bayeslmm"):
            load_eigenbasis(saved)
    (saved / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file|no readable basis\.json"):
        load_eigenbasis(saved, verify=False)


def test_damage_is_explained(saved):
    (saved / "values.npy").write_bytes((saved / "values.npy").read_bytes()[:-1])
    with pytest.raises(
        InputError, match=r"values\.npy: damaged or edited \(SHA-256 differs\)\. Ma"
    ):
        load_eigenbasis(saved)
    about = json.loads((saved / "basis.json").read_text())
    (saved / "basis.json").write_text(json.dumps(about | {"centered": False}))
    with pytest.raises(InputError, match=r"basis\.json: damaged or edited \(SHA-256 differs\)"):
        load_eigenbasis(saved, verify=False)
    (saved / "basis.json").write_text(json.dumps(about | {"format": "bayeslmm eigenbasis 9"}))
    with pytest.raises(InputError, match="format 'bayeslmm eigenbasis 9' is not 'bayeslmm eigenb"):
        load_eigenbasis(saved)
    for text in ("{", "[]", '{"a": 1}', ""):
        (saved / "basis.json").write_text(text)
        with pytest.raises(InputError, match=r"not a saved eigenbasis \(no readable basis\.json\)"):
            load_eigenbasis(saved)
    for folder in (saved.parent, saved / "values.npy", saved / "nothing"):
        with pytest.raises(InputError, match="not a saved eigenbasis"):
            load_eigenbasis(folder)


def test_not_verified_on_request(saved):
    path = saved / "vectors.npy"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert load_eigenbasis(saved, verify=False).n == 30
