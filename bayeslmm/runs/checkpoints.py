"""Long work in parts that survive: a folder of finished parts, and what they are parts of.

A part is written aside and renamed, so that it is there whole or not at all, whenever the process
is killed. The folder knows what the work was: it goes on only with the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError, listing
from bayeslmm.runs.files import write_aside
from bayeslmm.runs.progress import log

_WORK, _LOCK = "work", "lock"
_MANIFEST = f"{_WORK}.json"
_SHOWN = 60
_HASHED = 2**16  # ids that are text at a time


class Checkpoint:
    """Finished parts of some work in a folder; make one with `checkpoint`."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder, self.prefix = folder, prefix

    def path(self, name: str) -> Path:
        """Where a part is, or will be."""
        return self.folder / f"{self.prefix}{name}"

    def part_of_work(self, name: str) -> Checkpoint:
        """The same folder for one of several pieces of work, with parts of the same names."""
        return Checkpoint(self.folder, f"{self.prefix}{name}-")

    def has(self, name: str) -> bool:
        """Whether a part is finished."""
        return self.path(name).exists()

    def parts(self) -> list[str]:
        """Names of the finished parts."""
        names = sorted(entry.name for entry in self.folder.iterdir())
        return [name for name in names if name != _LOCK and not name.endswith(".json")]

    def same(self, name: str, work: Mapping[str, Any]) -> None:
        """Take note of what some of the parts are, or refuse what they are not.

        Parameters
        ----------
        name : str
            Name of these parts.
        work : mapping
            All that determines them; see `checkpoint`.

        Raises
        ------
        InputError
            If it was another before; the message names what differs.
        """
        wanted = _plain(work)
        if not self.has(f"{name}.json"):
            text = json.dumps(wanted, indent=1, sort_keys=True) + "\n"
            self.write(f"{name}.json", lambda aside: aside.write_text(text, encoding="utf-8"))
            return
        changed = differences(_read(self.path(f"{name}.json")), wanted)
        if changed:
            raise InputError(
                f"{self.folder} holds unfinished work that was started otherwise: "
                f"{'; '.join(changed)}. Start the same again to finish it, or ask for a new start "
                "(restart=True; --restart on the command line)."
            )

    def write(self, name: str, make: Callable[[Path], Any]) -> Path:
        """Keep a part: `make` writes a file or a folder at the path that it is given.

        Raises
        ------
        InputError
            If the disk is full or cannot be written; finished parts stay.
        """
        path = self.path(name)
        try:
            with write_aside(path) as aside:
                make(aside)
                _to_disk(aside)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror or error}). What was finished before "
                "is kept: make room, and start the same again."
            ) from error
        return path


def require_checkpoint(kept: Any) -> None:
    """Raise an `InputError` if what is given for `kept` is no open checkpoint."""
    if kept is not None and not isinstance(kept, Checkpoint):
        raise InputError(
            f"kept= takes what `with bl.checkpoint(folder) as kept:` opens, but is a "
            f"{type(kept).__name__.strip('_')}."
        )


@contextmanager
def checkpoint(
    folder: str | os.PathLike[str],
    work: Mapping[str, Any] | None = None,
    *,
    restart: bool = False,
) -> Iterator[Checkpoint]:
    """Open the folder of some long work, or begin it; nobody else can use it meanwhile.

    ``with bl.checkpoint("height.parts") as kept:`` and then ``kept=kept`` for `bl.grm` and for
    scans: what is finished survives an interruption, and the same lines go on from there.

    Parameters
    ----------
    folder : path-like
        Where finished parts are kept. It stays when the work is interrupted; whoever finishes
        the work removes it (`discard`).
    work : mapping, optional
        What the work is, if that is more than its parts know of themselves: parameters, checksums
        of the data. Nested mappings and lists of plain values.
    restart : bool
        Begin anew, whatever is in the folder.

    Yields
    ------
    Checkpoint

    Raises
    ------
    InputError
        If the folder holds other work (the message names what differs), or is in use.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    wanted = _plain(work or {})
    if folder.exists() and not (folder / _MANIFEST).is_file() and any(folder.iterdir()):
        names = [entry.name for entry in folder.iterdir()]
        begun = all(name == _LOCK or name.startswith(f".{_MANIFEST}.") for name in names)
        if not begun:
            raise InputError(f"{folder} is not a folder of unfinished work; name another.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror}).") from error
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{folder} is in use: another process does the same work. Wait for it, or name "
            "another folder."
        ) from None
    try:
        kept = Checkpoint(folder)
        if restart:
            _clear(folder)
        kept.same(_WORK, wanted)
        _remove_scratch(folder)
        if parts := kept.parts():
            log.info("%s: %s finished parts are there; going on.", folder, f"{len(parts):,}")
        yield kept
    finally:
        lock.release()


def discard(kept: Checkpoint) -> None:
    """Remove the folder of work that is finished."""
    try:
        _clear(kept.folder)
    except OSError as error:
        log.info("%s: cannot be removed (%s).", kept.folder, error.strerror or error)
        return
    shutil.rmtree(kept.folder, ignore_errors=True)


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two descriptions, in words.

    Examples
    --------
    >>> differences({"tests": ["wald"], "n": 3}, {"tests": ["wald", "lrt"], "n": 3})
    ["tests: was ['wald'], is ['wald', 'lrt']"]
    """
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in sorted(before.keys() | now.keys()):
            label = f"{name} {key}".strip()
            if key not in before:
                found.append(f"{label}: is new")
            elif key not in now:
                found.append(f"{label}: is gone")
            else:
                found += differences(before[key], now[key], label)
        return found
    if before == now:
        return []
    shown = (_short(before), _short(now))
    return [f"{name}: was {shown[0]}, is {shown[1]}" if shown[0] != shown[1] else f"{name} differs"]


def digest(*values: np.ndarray | pd.Index | pd.Series | str) -> str:
    """A hash of arrays, ids and texts, for the description of some work."""
    total = hashlib.sha256()
    parts: Iterable[bytes]
    for value in values:
        if isinstance(value, str):
            parts = [value.encode()]
        elif isinstance(value, np.ndarray) and value.dtype != object:
            total.update(f"{value.dtype}{value.shape}".encode())
            parts = [np.ascontiguousarray(value).tobytes()]
        else:
            starts = range(0, max(1, len(value)), _HASHED)
            parts = ("\n".join(map(str, value[i : i + _HASHED])).encode() for i in starts)
        for content in parts:
            total.update(len(content).to_bytes(8, "little"))
            total.update(content)
    return total.hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _plain(work: Mapping[str, Any]) -> Any:
    """As it will be read again."""
    return json.loads(json.dumps(work, default=str, sort_keys=True))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: damaged; remove the folder {path.parent} and start anew."
        ) from error


def _clear(folder: Path) -> None:
    """Remove the parts, and last what says whose they are: it may be killed at any moment."""
    for entry in sorted(folder.iterdir(), key=lambda e: e.name == _MANIFEST):
        if entry.name == _LOCK:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove_scratch(folder: Path) -> None:
    """What a killed process left half written."""
    left = [entry for entry in folder.iterdir() if entry.name.startswith(".")]
    for entry in left:
        shutil.rmtree(entry, ignore_errors=True)
    if left:
        log.info("%s: removed what was half written (%s).", folder, listing([e.name for e in left]))


def _to_disk(path: Path) -> None:
    """Wait until the file, or all files of the folder, are on the disk."""
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
