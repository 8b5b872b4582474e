"""Files on disk: outputs written whole or not at all, and checksums."""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bayeslmm.errors import InputError, require_library

if TYPE_CHECKING:
    import pandas as pd

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        """Wait for the lock on a file; it ends when the file is closed."""
        while True:
            try:
                return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            except OSError as error:  # after ten seconds
                if error.errno != errno.EDEADLOCK:
                    raise
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        """Wait for the lock on a file; it ends when the file is closed."""
        fcntl.flock(file, fcntl.LOCK_EX)


@contextmanager
def write_aside(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` only when all went well.

    Works for a file and for a folder (create it at the yielded name). On any error,
    interruption included, what was written is removed and `path` is left as it was. Of
    several processes that write to one place the last one's is there, and whole; without
    `overwrite` the first one's.

    Parameters
    ----------
    path : path-like
        Where the result is to be; an empty folder is not in the way of a folder.
    overwrite : bool
        Whether an existing `path` may be replaced.

    Raises
    ------
    InputError
        If `path` exists and `overwrite` is false, at the start or at the end; if its folder
        cannot be made, or if a file would replace a folder or the reverse.
    """
    path = Path(path)
    if not is_empty_folder(path):
        refuse_existing(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({error.strerror}).") from error
    aside = scratch / path.name
    try:
        yield aside
        if path.exists() and path.is_dir() != aside.is_dir():
            raise InputError(f"{path}: cannot be replaced, one is a file and one a folder.")
        if aside.is_dir():
            _move_folder(aside, path, overwrite)
        else:
            _move_file(aside, path, overwrite)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# Each step is one call that the system does whole or not at all: other processes may do the same.


def _move_folder(aside: Path, path: Path, overwrite: bool) -> None:
    while True:
        try:
            aside.rename(path)  # does not go over a folder that has something in it
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        refuse_existing(path, overwrite=overwrite)
        with suppress(FileNotFoundError):  # another process was faster
            path.rename(Path(tempfile.mkdtemp(dir=aside.parent)) / "replaced")


def _move_file(aside: Path, path: Path, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(aside, path)  # does not go over a file
            return
        except FileExistsError:
            refuse_existing(path)
        except OSError:  # a file system without links
            refuse_existing(path)
    aside.replace(path)


@contextmanager
def turn(target: Path) -> Iterator[None]:
    """Wait until no other process moves a set of files to this name (without ending)."""
    lock = target.with_name(f".{target.name}.lock")
    held = False
    while not held:
        with open(lock, "wb") as file:
            with suppress(OSError):  # a file system without locks: it cannot be waited for
                _lock(file)
            # whoever had it before removes it: then this is the lock of nothing
            with suppress(FileNotFoundError):
                held = os.path.samestat(os.fstat(file.fileno()), os.stat(lock))
            if held:
                try:
                    yield
                finally:
                    with suppress(PermissionError):  # Windows keeps what is open
                        lock.unlink(missing_ok=True)


def is_empty_folder(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder with nothing in it."""
    return Path(path).is_dir() and not any(Path(path).iterdir())


def refuse_existing(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Raise an `InputError` if `path` exists and may not be overwritten."""
    if Path(path).exists() and not overwrite:
        raise InputError(
            f"{path} exists already and is kept. Name another path, or ask for it to be "
            "replaced (overwrite=True; --overwrite on the command line)."
        )


def existing(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a `Path`; raise an `InputError` if there is no such file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    return path


def text_of(path: str | os.PathLike[str]) -> str:
    """Content of a text file in UTF-8; an `InputError` if it is no text."""
    path = Path(path)
    refuse_utf16(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file (byte {error.start:,} is no UTF-8).") from error


def refuse_utf16(path: Path) -> None:
    """Raise an `InputError` if a file is text in UTF-16: every second byte of Latin letters is 0.

    Without a mark at its beginning such a text is valid UTF-8 with a control character after each
    letter, and would be read as names that nobody sees to differ from others.
    """
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            head = file.read(64)
    except (OSError, EOFError, zlib.error):  # its reader says what is wrong
        return
    marked = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    zeros = [head[start::2].count(0) for start in (0, 1)]
    if marked or (len(head) > 3 and min(zeros) == 0 and max(zeros) > len(head) / 4):
        raise InputError(
            f"{path}: text in UTF-16, as a spreadsheet's 'Unicode text' is; UTF-8 is read. Save it "
            "so, or convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW."
        )


def table_of(path: str | os.PathLike[str], expected: str, **options: Any) -> pd.DataFrame:
    """Content of a text table by `pandas.read_csv`; an `InputError` if it is not `expected`."""
    import pandas as pd

    try:
        return pd.read_csv(existing(path), **options)
    # pandas' own errors are ValueErrors; the others come of a damaged .gz
    except (ValueError, OSError, EOFError, zlib.error, csv.Error) as error:
        raise InputError(f"{path}: not {expected} ({str(error).strip()}).") from error


def parquet_of(path: str | os.PathLike[str], expected: str) -> pd.DataFrame:
    """Content of a Parquet file; an `InputError` if it is not `expected`, or pyarrow is absent."""
    import pandas as pd

    path = existing(path)
    require_library("pyarrow", "parquet", f"{path}: reading Parquet")
    try:
        return pd.read_parquet(path)
    except Exception as error:  # of a damaged file pyarrow and pandas raise whatever comes
        raise InputError(f"{path}: not {expected} ({error}).") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as a hexadecimal string; of a folder, that of its files and names."""
    path = Path(path)
    if path.is_dir():
        listed = hashlib.sha256()
        for part in sorted(p for p in path.rglob("*") if p.is_file()):
            listed.update(f"{sha256(part)}  {part.relative_to(path).as_posix()}\n".encode())
        return listed.hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
