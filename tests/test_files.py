import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import InputError, listing
from bayeslmm.runs.files import existing, sha256, turn, write_aside
from bayeslmm.runs.memory import available_memory, gigabytes, require_memory
from bayeslmm.runs.results import as_text, result_files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "x.txt"
    with write_aside(path) as aside:
        aside.write_text("whole")
        assert not path.exists()
        assert aside.name == "x.txt", "writers that look at the ending see it"
    assert path.read_text() == "whole"
    assert names(path.parent) == ["x.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, "old"])
def test_nothing_is_left_of_a_failure(tmp_path, error, before):
    path = tmp_path / "x.txt"
    if before:
        path.write_text(before)

    def fails():
        with write_aside(path, overwrite=True) as aside:
            aside.write_text("half")
            raise error

    with pytest.raises(error):
        fails()
    assert names(tmp_path) == (["x.txt"] if before else [])
    assert not before or path.read_text() == before


def test_existing_is_kept_unless_asked(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(InputError) as caught, write_aside(path) as aside:
        aside.write_text("new")
    assert str(caught.value) == (
        f"{path} exists already and is kept. Name another path, or ask for it to be replaced "
        "(overwrite=True; --overwrite on the command line)."
    )
    assert path.read_text() == "old"
    with write_aside(path, overwrite=True) as aside:
        aside.write_text("new")
    assert path.read_text() == "new"


def test_folders(tmp_path):
    for content in ("first", "second"):
        with write_aside(tmp_path / "x", overwrite=True) as aside:
            aside.mkdir()
            (aside / content).write_text(content)
        assert names(tmp_path) == ["x"]
        assert names(tmp_path / "x") == [content], "replaced, not merged"


def test_file_and_folder_do_not_replace_each_other(tmp_path):
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(InputError, match="folder: cannot be replaced"),
        write_aside(tmp_path / "folder", overwrite=True) as aside,
    ):
        aside.write_text("file")
    assert names(tmp_path) == ["folder"]


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"file/x/y: cannot write there \(Not a directory\)"),
        write_aside(tmp_path / "file" / "x" / "y"),
    ):
        pass


def test_existing_and_checksum(tmp_path):
    path = tmp_path / "x"
    for absent in (path, tmp_path):
        with pytest.raises(InputError, match=f"^{absent}: no such file\\.$"):
            existing(absent)
    path.write_bytes(b"abc" * 10**6)
    assert existing(str(path)) == path
    assert sha256(path) == hashlib.sha256(b"abc" * 10**6).hexdigest()


def test_memory(monkeypatch):
    assert 1e6 < available_memory() < 1e15
    require_memory(1e6, "This")
    monkeypatch.setattr("bayeslmm.runs.memory.available_memory", lambda: 2_340_000_000)
    require_memory(2_340_000_000, "This")
    with pytest.raises(InputError, match=r"^This needs 8\.0 GB of memory, but 2\.3 GB are avail"):
        require_memory(8e9, "This")
    assert gigabytes(999e6) == "999 MB"


def test_listing():
    assert listing(iter("abc")) == "'a', 'b', 'c'"
    assert listing(range(5000), 2) == "'0', '1' and 4,998 more"
    assert listing([]) == ""


# -- several processes, one place ------------------------------------------------------------


def put(path, content, folder):
    """A file with that content, or a folder that has one."""
    if folder:
        path.mkdir(exist_ok=True)
        path /= "content"
    path.write_text(content)


def content_of(path):
    return (path / "content" if path.is_dir() else path).read_text()


def write_late(path, *, folder=False, overwrite=False):
    """Write to `path`, where somebody else was earlier."""
    with write_aside(path, overwrite=overwrite) as aside:
        put(aside, "late", folder)
        put(path, "early", folder)


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_another_process_made_meanwhile(tmp_path, folder, overwrite):
    """It is kept, or replaced if that was asked for; never mixed."""
    path = tmp_path / "x"
    refused = None
    try:
        write_late(path, folder=folder, overwrite=overwrite)
    except InputError as error:
        refused = str(error)
    assert content_of(path) == ("late" if overwrite else "early")
    assert (refused is None) == overwrite
    assert overwrite or refused.startswith(f"{path} exists already and is kept")
    assert names(tmp_path) == ["x"]


def test_an_empty_folder_is_not_in_the_way_unless_it_is_filled_meanwhile(tmp_path):
    path = tmp_path / "x"
    path.mkdir()
    with write_aside(path) as aside:
        put(aside, "whole", True)
    assert content_of(path) == "whole"
    (tmp_path / "y").mkdir()
    with pytest.raises(InputError, match="y exists already and is kept"):
        write_late(tmp_path / "y", folder=True)
    assert content_of(tmp_path / "y") == "early"


def test_file_systems_without_links_or_locks(tmp_path, monkeypatch):
    def no(*_):
        raise OSError(errno.ENOSYS, "not there")

    monkeypatch.setattr(os, "link", no)
    monkeypatch.setattr(fcntl, "flock", no)
    with write_aside(tmp_path / "x") as aside:
        aside.write_text("whole")
    with pytest.raises(InputError, match="y exists already and is kept"):
        write_late(tmp_path / "y")
    with result_files(tmp_path / "z", [".a", ".b"]) as prefix:
        for ending in (".a", ".b"):
            prefix.with_suffix(ending).write_text("whole")
    assert {name: content_of(tmp_path / name) for name in names(tmp_path)} == {
        "x": "whole", "y": "early", "z.a": "whole", "z.b": "whole",
    }  # fmt: skip


WINDOWS = """
import errno, sys, types
import numpy, pandas, pathlib, psutil, tempfile  # they look at the platform, too
calls = []
def locking(descriptor, mode, size):
    calls.append((mode, size))
    if len(calls) == 1:
        raise OSError(errno.EDEADLOCK, "waited for ten seconds")
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_LOCK=1)
sys.modules["fcntl"] = None
sys.platform = "win32"
from bayeslmm.runs import files
with files.turn(pathlib.Path(sys.argv[1])):
    pass
assert calls == [(1, 1), (1, 1)], calls
"""


def test_locks_of_windows(tmp_path):
    subprocess.run([sys.executable, "-c", WINDOWS, tmp_path / "x"], check=True)
    assert names(tmp_path) == []


def write_pair(prefix, content, *, overwrite=False):
    with result_files(prefix, [".a", ".b"], overwrite=overwrite) as aside:
        for ending in (".a", ".b"):
            aside.with_suffix(ending).write_text(content)


def test_files_of_a_set_are_moved_by_one_process_at_a_time(tmp_path):
    late = threading.Thread(
        target=write_pair, args=(tmp_path / "x", "late"), kwargs={"overwrite": True}
    )
    with turn(tmp_path / "x"):
        late.start()
        late.join(0.3)
        assert late.is_alive()
        assert not (tmp_path / "x.a").exists()
        for ending in (".a", ".b"):
            (tmp_path / f"x{ending}").write_text("early")
    late.join()
    assert [content_of(tmp_path / name) for name in ("x.a", "x.b")] == ["late"] * 2
    assert names(tmp_path) == ["x.a", "x.b"]


def test_a_set_that_appears_meanwhile_is_kept(tmp_path):
    def write():
        with result_files(tmp_path / "x", [".a", ".b"]) as aside:
            for ending in (".a", ".b"):
                aside.with_suffix(ending).write_text("late")
            (tmp_path / "x.b").write_text("early")

    with pytest.raises(InputError, match=r"x\.b exists already and is kept"):
        write()
    assert names(tmp_path) == ["x.b"]
    assert content_of(tmp_path / "x.b") == "early"


def test_a_set_half_moved_lacks_its_first_file(tmp_path, monkeypatch):
    """Killed between two moves: the old main file does not stand beside new ones."""
    write_pair(tmp_path / "x", "old")
    real = Path.replace

    def replace(path, target):
        if str(target).endswith(".a"):
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_pair(tmp_path / "x", "new", overwrite=True)
    assert names(tmp_path) == ["x.b"]


WRITER = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
import bayeslmm as bl
from bayeslmm.runs.results import result_folder
folder, name = Path(sys.argv[1]), sys.argv[2]
x = np.random.default_rng(int(name)).binomial(2, 0.4, (20, 40)).astype(float)
K = bl.grm(bl.Genotypes.from_array(x, samples=[f"{name}_{i}" for i in range(20)]))
basis = bl.eigenbasis(K)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(15):
    basis.save(folder / "basis", overwrite=True)
    bl.write_grm(K, folder / "k", overwrite=True)
    with result_folder(folder / "results", overwrite=True) as aside:
        for file in ("provenance.json", "a", "b"):
            (aside / file).write_text(name)
try:
    bl.write_grm(K, folder / "first")
    print("written")
except bl.InputError as error:
    assert "first.grm" in str(error), error
    print("refused")
"""


def test_two_processes_that_write_to_one_place(tmp_path):
    """What is there in the end is whole, and of one of the two; nothing else is left."""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in ("1", "2")
    ]  # fmt: skip
    for process in both:
        process.stdout.readline()
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert sorted(out for out, _ in ends) == ["refused\n", "written\n"]

    kernels = {
        name: bl.grm(np.random.default_rng(int(name)).binomial(2, 0.4, (20, 40)).astype(float))
        for name in ("1", "2")
    }
    for found in (
        bl.load_eigenbasis(tmp_path / "basis").grm,
        bl.read_grm(tmp_path / "k"),
        bl.read_grm(tmp_path / "first"),
    ):
        writer = found.samples[0].split("_")[0]
        np.testing.assert_allclose(found.matrix, kernels[writer].matrix, atol=1e-6)
    assert len({(tmp_path / "results" / f).read_text() for f in ("a", "b", "provenance.json")}) == 1
    sets = [f"{name}.grm.{ending}" for name in ("first", "k") for ending in ("N.bin", "bin", "id")]
    assert names(tmp_path) == sorted(["basis", "results", *sets])


def test_tables_are_written_as_pandas_writes_them():
    table = pd.DataFrame(
        {
            "text": ["a", None, "c"],
            "float": [1 / 3, np.nan, -np.inf],
            "single": np.array([1 / 3, 1e-30, 2], dtype=np.float32),
            "int": [1, 2, 3],
            "small": np.array([1, 2, 3], dtype=np.uint8),
            "bool": [True, False, True],
            "mixed": [1, "x", 0.123456789],
        }
    )
    like = {"sep": "\t", "na_rep": "NA", "float_format": "%.6g", "lineterminator": "\n"}
    for more in (
        {},
        {"nullable": pd.array([1, None, 3], dtype="Int64")},
        {"quoted": ['a"b', "x\ty", "z\n"]},
        {"groups": pd.Categorical(["a", "b", "a"])},
        {"none": ""},
    ):
        one = table.assign(**more)
        for header in (True, False):
            assert as_text(one, header=header) == one.to_csv(
                None, index=False, header=header, **like
            )
    assert as_text(table[:0]) == table[:0].to_csv(None, index=False, **like)
    assert as_text(table[["text"]].fillna("")) == 'text\na\n""\nc\n'
