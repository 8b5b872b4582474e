import hashlib

import pytest

from bayeslmm.errors import InputError, listing
from bayeslmm.files import existing, sha256, write_aside
from bayeslmm.memory import available_memory, gigabytes, require_memory


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
    monkeypatch.setattr("bayeslmm.memory.available_memory", lambda: 2_340_000_000)
    require_memory(2_340_000_000, "This")
    with pytest.raises(InputError, match=r"^This needs 8\.0 GB of memory, but 2\.3 GB are avail"):
        require_memory(8e9, "This")
    assert gigabytes(999e6) == "999 MB"


def test_listing():
    assert listing(iter("abc")) == "'a', 'b', 'c'"
    assert listing(range(5000), 2) == "'0', '1' and 4,998 more"
    assert listing([]) == ""
