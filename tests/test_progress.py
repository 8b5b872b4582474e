import threading
import time

import pytest

from bayeslmm.runs.progress import blas_threads, map_ahead, track


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers):
    def slow(k):
        time.sleep(0.002 * (k % 3))
        return k * k

    assert list(map_ahead(slow, range(30), workers=workers)) == [k * k for k in range(30)]
    assert list(map_ahead(slow, [], workers=workers)) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_work_ahead_is_bounded(workers):
    begun = []
    results = map_ahead(lambda k: begun.append(k) or k, range(100), workers=workers)
    for k in range(5):
        assert next(results) == k
        time.sleep(0.01)
        assert len(begun) <= k + 1 + workers + 1
    results.close()
    time.sleep(0.01)
    assert len(begun) <= 5 + workers + 1, "what has not begun is cancelled"


def test_errors_come_through_and_threads_end():
    before = threading.active_count()

    def fails(k):
        if k == 3:
            raise ValueError("three")
        return k

    results = map_ahead(fails, range(100), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert threading.active_count() == before


@pytest.mark.parametrize("show", [True, False])
@pytest.mark.parametrize("kind", [list, iter])
def test_track_passes_items_on(show, kind, capsys):
    assert list(track(kind(range(7)), "Reading", show=show)) == list(range(7))
    captured = capsys.readouterr()
    assert captured.out == "", "the standard output is for results"
    assert ("Reading" in captured.err) is show


def test_track_counts_units(capsys):
    list(track([2, 3], "Variants", total=5, size=float, show=True))
    assert "5/5" in capsys.readouterr().err


def test_track_shows_nothing_where_nobody_watches(capsys):
    assert list(track([1, 2], "Reading")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_blas_threads():
    from threadpoolctl import threadpool_info

    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with blas_threads(1):
        assert set(threads()) <= {1}
    with blas_threads(None):
        assert threads() == before
    assert threads() == before
