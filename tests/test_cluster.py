"""Work shared out to processes of a Dask cluster, one of which is killed, equals work done here."""

import os
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.genome import streaming
from bayeslmm.genome.scanner import Scanner
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.priors import EffectPrior
from bayeslmm.runs import cluster
from bayeslmm.runs.cluster import Packed

N, M = 300, 2000


def cohort():
    rng = np.random.default_rng(5)
    x = rng.binomial(2, rng.uniform(0.1, 0.9, M), size=(N, M)).astype(np.float32)
    x[rng.random(x.shape) < 0.01] = np.nan
    table = pd.DataFrame({"id": [f"rs{j}" for j in range(M)], "chrom": np.repeat(["1", "2"], 1000)})
    genotypes = Genotypes.from_array(x, [f"i{i}" for i in range(N)], table)
    y = pd.Series(np.nan_to_num(x[:, 7]) + rng.normal(size=N), genotypes.samples.index)
    return genotypes, bl.LMM(y, kernel=bl.grm(genotypes))


@pytest.fixture(scope="module")
def data():
    return cohort()


def scanner(model):
    return Scanner(model, ("wald",), np.dtype(np.float32), EffectPrior())


# -- what is sent ------------------------------------------------------------------------------


def test_matrices_and_copies_stay_behind(data):
    _, model = data
    one = scanner(model)
    _ = model.basis.vectors32
    packed = Packed(one, by_name=True)
    assert packed.size < 8 * N * N + 200_000  # U, and neither K nor the genotypes nor U again
    there = packed.open()
    assert there.basis.grm is None
    assert "vectors32" not in vars(there.basis)
    assert packed.open() is there
    np.testing.assert_array_equal(there.basis.vectors32, model.basis.vectors32)


def test_a_mapped_basis_travels_as_the_name_of_its_file(data, tmp_path):
    _, model = data
    model.basis.save(tmp_path / "b")
    mapped = scanner(model)
    loaded = bl.load_eigenbasis(tmp_path / "b")
    mapped.basis = loaded
    packed = Packed(mapped, by_name=True)
    assert packed.size < 300_000
    assert list(packed.files) == [str(tmp_path / "b" / "vectors.npy")]
    vectors = packed.open().basis.vectors
    assert isinstance(vectors, np.memmap)
    np.testing.assert_array_equal(vectors, loaded.vectors)
    assert vectors.flags.f_contiguous == loaded.vectors.flags.f_contiguous
    inside = Packed(mapped, by_name=False)
    assert not inside.files
    np.testing.assert_array_equal(inside.open().basis.vectors, loaded.vectors)
    with open(tmp_path / "b" / "vectors.npy", "r+b") as file:
        file.seek(200)
        file.write(b"other")
    with pytest.raises(bl.InputError, match=r"vectors.npy: not seen, or another file"):
        _again(packed).open()


def _again(packed):
    fresh = object.__new__(Packed)
    fresh.__setstate__(packed.__getstate__())
    return fresh


def test_a_part_of_a_mapped_array_is_sent_itself(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20.0).reshape(4, 5))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for array in (mapped[1:], mapped[:, 1:3], mapped.T):
        packed = Packed({"x": array}, by_name=True)
        np.testing.assert_array_equal(packed.open()["x"], array)


def test_tasks_of_one_process_take_one_thread_each():
    from bayeslmm.runs.progress import blas_thread_count

    begun, first_ends = threading.Event(), threading.Event()

    def first():
        with cluster._one_thread_each():
            begun.set()
            first_ends.wait()

    other = threading.Thread(target=first)
    other.start()
    begun.wait()
    with cluster._one_thread_each():
        first_ends.set()
        other.join()
        assert blas_thread_count() == 1
    assert cluster._tasks_here == 0


# -- a cluster ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    import dask
    import distributed

    quiet = {"distributed.worker.daemon": True, "distributed.admin.log-format": "%(message)s"}
    with (
        dask.config.set(quiet),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.algebra
def test_a_cluster_finds_the_same_to_the_last_bit(data, client, monkeypatch, tmp_path):
    genotypes, model = data
    monkeypatch.setattr(streaming, "_PART", 400)
    for options in (
        {"tests": ("wald", "lrt", "score", "bayes"), "prior_odds": 1e-3},
        {"coding": "genotypic", "dtype": "float64"},
    ):
        here = bl.scan(model, genotypes, threads=2, block_size=100, **options)
        there = bl.scan(model, genotypes, block_size=100, client=client, **options)
        pd.testing.assert_frame_equal(there, here, check_exact=True)
    model.basis.save(tmp_path / "b")
    mapped = bl.LMM(pd.Series(model.y, model.ids), kernel=bl.load_eigenbasis(tmp_path / "b"))
    here = bl.scan(mapped, genotypes, block_size=100)
    there = bl.scan(mapped, genotypes, block_size=100, client=client)
    pd.testing.assert_frame_equal(there, here, check_exact=True)
    case = model.with_phenotype((model.y > np.median(model.y)).astype(float))
    options = {"family": "binomial", "tests": ("spa", "score"), "block_size": 100}
    pd.testing.assert_frame_equal(
        bl.scan(case, genotypes, client=client, **options),
        bl.scan(case, genotypes, **options),
        check_exact=True,
    )


@pytest.mark.slow
@pytest.mark.algebra
@pytest.mark.parametrize(
    "options",
    [{}, {"weights": np.linspace(0, 2, M)}, {"pairwise": True}, {"by_chrom": True}],
    ids=["plain", "weights", "pairwise", "by_chrom"],
)
def test_a_cluster_sums_the_same_matrix(data, client, options):
    genotypes, _ = data
    here = bl.grm(genotypes, block_size=50, **options)
    there = bl.grm(genotypes, block_size=50, client=client, **options)
    np.testing.assert_array_equal(there.matrix, here.matrix)
    assert there.n_variants == here.n_variants
    for chrom, (part, count) in here.parts.items():
        np.testing.assert_array_equal(there.parts[chrom][0].full(), part.full())
        assert there.parts[chrom][1] == count


def slowly(shared, job):
    time.sleep(0.15)
    return job, os.getpid()


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [False, True])
def test_what_a_killed_worker_had_is_done_again(client, ordered):
    client.wait_for_workers(2)
    pids = set(client.run(os.getpid).values())
    assert len(pids) == 2
    done = []
    for job, (number, pid) in cluster.on_workers(
        client, slowly, "shared", list(range(24)), what="part", ordered=ordered
    ):
        assert job == number
        if not done:
            os.kill(pid, signal.SIGKILL)
        done.append(job)
    assert sorted(done) == list(range(24))
    assert not ordered or done == sorted(done)


@pytest.mark.slow
def test_all_workers_may_be_lost_at_once(client):
    client.wait_for_workers(2)
    done = []
    for job, _ in cluster.on_workers(client, slowly, np.arange(9), list(range(12)), what="part"):
        if not done:
            for pid in client.run(os.getpid).values():
                os.kill(pid, signal.SIGKILL)
        done.append(job)
    assert sorted(done) == list(range(12))


@pytest.mark.slow
@pytest.mark.algebra
def test_a_scan_survives_a_killed_worker_and_keeps_its_parts(data, client, monkeypatch, tmp_path):
    genotypes, model = data
    monkeypatch.setattr(streaming, "_PART", 100)
    client.wait_for_workers(2)
    pids = list(client.run(os.getpid).values())
    put = streaming._put
    killed = []

    def kill_once(*arguments):
        if not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)
        put(*arguments)

    options = {"tests": ("wald", "lrt", "score", "bayes"), "block_size": 50}
    here = bl.scan(model, genotypes, **options)
    monkeypatch.setattr(streaming, "_put", kill_once)
    with bl.checkpoint(tmp_path / "w") as kept:
        there = bl.scan(model, genotypes, kept=kept, client=client, **options)
        assert killed
        assert len(list((tmp_path / "w").glob("scan*.npz"))) == 20
        again = bl.scan(model, genotypes, kept=kept, **options)
    pd.testing.assert_frame_equal(there, here, check_exact=True)
    pd.testing.assert_frame_equal(again, here, check_exact=True)


def fails(shared, job):
    if job == 3:
        raise ValueError("no good")
    return job


def refuses(shared, job):
    raise bl.InputError("rs3: dosage 7; expected 0 to 2.")


@pytest.mark.slow
def test_errors_of_workers_are_errors_here(data, client):
    with pytest.raises(
        bl.InputError, match=r"A part failed on the cluster 4 times: ValueError: no good.*are kept"
    ):
        list(cluster.on_workers(client, fails, None, range(5), what="part"))
    with pytest.raises(bl.InputError, match=r"^rs3: dosage 7"):
        list(cluster.on_workers(client, refuses, None, range(5), what="part"))


def test_backgrounds_by_chromosome_stay_here(data):
    genotypes, model = data
    with pytest.raises(bl.InputError, match=r"background='loco' is not shared out to a cluster"):
        bl.scan(model, genotypes, background="loco", client=object())
