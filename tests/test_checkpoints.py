import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import bayeslmm as bl
from bayeslmm.runs.checkpoints import checkpoint, differences, digest, discard

WORK = {"tests": ["wald"], "inputs": {"a.bed": "12ab"}, "n": 3}


def keep(kept, name, text):
    kept.write(name, lambda aside: aside.write_text(text))


def test_finished_parts_are_there_again(tmp_path):
    def interrupted():
        with checkpoint(tmp_path / "w", WORK) as kept:
            keep(kept, "part-0", "zero")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with checkpoint(tmp_path / "w", WORK) as kept:
        assert kept.has("part-0")
        assert not kept.has("part-1")
        assert kept.path("part-0").read_text() == "zero"
        discard(kept)
    assert not (tmp_path / "w").exists()


def test_other_work_is_refused_and_named(tmp_path):
    with checkpoint(tmp_path / "w", WORK) as kept:
        keep(kept, "part-0", "zero")
    other = WORK | {"tests": ["lrt"], "inputs": {"a.bed": "34cd"}}
    with (
        pytest.raises(bl.InputError) as caught,
        checkpoint(tmp_path / "w", other),
    ):
        pass
    assert "tests: was ['wald'], is ['lrt']" in str(caught.value)
    assert "inputs a.bed: was 12ab, is 34cd" in str(caught.value)
    assert (tmp_path / "w" / "part-0").exists()
    with checkpoint(tmp_path / "w", other, restart=True) as kept:
        assert not kept.has("part-0")


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(bl.InputError, match="not a folder of unfinished"), checkpoint(tmp_path, {}):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_a_folder_whose_first_file_was_half_written_is_begun_anew(tmp_path):
    folder = tmp_path / "w"
    (folder / ".work.json.abc").mkdir(parents=True)
    (folder / ".work.json.abc" / "work.json").write_text("{")
    (folder / "lock").touch()
    with checkpoint(folder, WORK) as kept:
        assert kept.parts() == []
    assert {p.name for p in folder.iterdir()} <= {"lock", "work.json"}


def test_only_one_process_at_a_time(tmp_path):
    with (
        checkpoint(tmp_path / "w", WORK),
        pytest.raises(bl.InputError, match="in use"),
        checkpoint(tmp_path / "w", WORK),
    ):
        pass


def test_a_part_that_fails_is_not_there(tmp_path):
    def half(aside):
        aside.write_text("half")
        raise OSError(28, "No space left on device")

    with checkpoint(tmp_path / "w", WORK) as kept:
        keep(kept, "part-0", "zero")
        with pytest.raises(bl.InputError, match=r"part-1.*No space left on device.*is kept"):
            kept.write("part-1", half)
        assert not kept.has("part-1")
        assert kept.has("part-0")


def test_a_killed_process_leaves_whole_parts_and_no_lock(tmp_path):
    code = (
        "import sys, time\n"
        "from bayeslmm.runs.checkpoints import checkpoint\n"
        "with checkpoint(sys.argv[1], {'x': 1}) as kept:\n"
        "    kept.write('part-0', lambda aside: aside.write_text('zero'))\n"
        "    def slow(aside):\n"
        "        aside.write_text('half')\n"
        "        print('now', flush=True)\n"
        "        time.sleep(60)\n"
        "    kept.write('part-1', slow)\n"
    )
    folder = tmp_path / "w"
    running = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert running.stdout.readline() == "now\n"
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    with checkpoint(folder, {"x": 1}) as kept:
        assert kept.has("part-0")
        assert not kept.has("part-1")
        assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_differences_are_found_at_any_depth():
    assert differences(WORK, WORK) == []
    assert differences({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}) == ["a c: is new"]
    assert differences({"a": {"b": 1}}, {"a": {}}) == ["a b: is gone"]
    long = "x" * 100
    assert differences({"a": long + "1"}, {"a": long + "2"}) == ["a differs"]


def test_digests_tell_contents_apart():
    x = np.arange(6.0)
    seen = {digest(x), digest(x.reshape(2, 3)), digest(x + 1), digest(x.astype(np.float32))}
    assert len(seen) == 4
    assert digest(x) == digest(x.copy())
    assert digest("ab", "c") != digest("a", "bc")
