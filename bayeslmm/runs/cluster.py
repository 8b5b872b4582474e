"""Tasks on the workers of a Dask cluster: what they share goes to each worker once.

What is shared is packed here, not by Dask: relatedness matrices stay behind, and a memory-mapped
array travels as the name of its file, if every worker sees the same file.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import pickle
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from bayeslmm.errors import InputError, listing, require_library
from bayeslmm.runs.progress import blas_threads, log

if TYPE_CHECKING:
    from distributed import Client, Future

# Times that a part is tried again after errors that may pass, such as a network's.
_RETRIES = 3
# Times that what all workers share is sent again, because all who had it were lost.
_SENT_AGAIN = 10
# Libraries that numbers depend on.
_LIBRARIES = ("bayeslmm", "numpy", "scipy")
_WINDOW = 2**16  # bytes at both ends of a file by which it is known again


@runtime_checkable
class HasOwnState(Protocol):
    """What goes to workers in part, or not at all."""

    def _state_on_worker(self) -> dict[str, Any] | None:
        """Attributes that a copy has on a worker; None to leave the object behind."""


def on_workers[J, R](
    client: Client,
    function: Callable[[Any, J], R],
    shared: Any,
    jobs: Sequence[J],
    *,
    what: str,
    ordered: bool = False,
) -> Iterator[tuple[J, R]]:
    """Results of ``function(shared, job)`` for every job, from the workers of a cluster.

    The tasks of a worker that is lost are done by others.

    Parameters
    ----------
    client : dask.distributed.Client
    function : callable
        By name, of a module that workers can import.
    shared : object
        Sent once to each worker; without relatedness matrices.
    jobs : sequence
    what : str
        What a job is, for messages: "part of the scan".
    ordered : bool
        Results in the order of the jobs, and so few jobs at a time that few results wait.

    Raises
    ------
    InputError
        If workers have other versions of the libraries, or a job fails.
    """
    as_completed = require_library("distributed", "distributed", "A cluster").as_completed

    if client.asynchronous:
        raise InputError("The Dask client is asynchronous; give one without asynchronous=True.")
    _wait_for_workers(client)
    sent = _send(client, shared)
    waiting = deque(range(len(jobs)))
    running: dict[Future, int] = {}
    results: dict[int, R] = {}
    failed: dict[int, int] = {}
    lost = following = 0
    finished = as_completed(with_results=True, raise_errors=False, loop=client.loop)
    try:
        while waiting or running or results:
            limit = 2 * sum(client.nthreads().values()) + 2 if ordered else len(jobs)
            while waiting and len(running) + len(results) < limit:
                number = waiting.popleft()
                # pure: Dask's name for a task whose result it may take from another's
                task = client.submit(_task, function, sent, jobs[number], pure=False)
                running[task] = number
                finished.add(task)
            task, result = next(finished)
            number = running.pop(task, -1)
            if number < 0:
                continue
            if task.status == "finished":
                results[number] = result
            elif task.status == "error":
                failed[number] = failed.get(number, 0) + 1
                _give_up(result[1], what, failed[number])
                waiting.appendleft(number)
            else:
                # Whoever had what is shared is gone: send it to those who came.
                lost += 1
                if lost > _SENT_AGAIN:
                    raise InputError(
                        f"Workers of the cluster are lost again and again ({lost} times all): "
                        "have they enough memory? Their logs tell. Finished parts are kept if "
                        "there is a checkpoint."
                    )
                waiting.extendleft([number, *sorted(running.values(), reverse=True)])
                waiting = deque(sorted(waiting))
                running.clear()
                finished.clear()
                _wait_for_workers(client)
                sent = _send(client, shared)
            while results and (not ordered or following in results):
                number = following if ordered else next(iter(results))
                following += 1
                yield jobs[number], results.pop(number)
    finally:
        client.cancel(list(running))


def _give_up(error: BaseException, what: str, times: int) -> None:
    """An `InputError` if an error of a task will come again."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, InputError):
        raise error
    if isinstance(error, KilledWorker):
        raise InputError(
            f"A {what} ended several workers of the cluster, one after the other: have they enough "
            "memory? Their logs tell. Finished parts are kept if there is a checkpoint."
        ) from error
    if times > _RETRIES:
        raise InputError(
            f"A {what} failed on the cluster {times} times: {type(error).__name__}: {error}. "
            "Finished parts are kept if there is a checkpoint."
        ) from error


def _wait_for_workers(client: Client) -> None:
    if not client.nthreads():
        log.info("Waiting for the first worker of the cluster.")
        client.wait_for_workers(1)


def _task(function: Callable[[Any, Any], Any], sent: Packed, job: Any) -> Any:
    with _one_thread_each():
        return function(sent.open(), job)


_limited = threading.Lock()
_tasks_here = 0
_limits: Any = None


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Products take one thread while any task runs in this process.

    The limit is the process', not the thread's: the first task sets it, the last lifts it.
    """
    global _tasks_here, _limits
    with _limited:
        if _tasks_here == 0:
            _limits = blas_threads(1)
            _limits.__enter__()
        _tasks_here += 1
    try:
        yield
    finally:
        with _limited:
            _tasks_here -= 1
            if _tasks_here == 0:
                _limits.__exit__(None, None, None)


# -- what is sent --------------------------------------------------------------------------


class Packed:
    """An object on its way to workers; each unpacks it once.

    Parameters
    ----------
    content : object
    by_name : bool
        Whether memory-mapped arrays travel as the names of their files.
    """

    def __init__(self, content: Any, *, by_name: bool) -> None:
        buffers: list[pickle.PickleBuffer] = []
        self._text, self.files = _pack(content, by_name, buffers.append)
        self._buffers = [pickle.PickleBuffer(buffer.raw()) for buffer in buffers]
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes that are sent."""
        return len(self._text) + sum(memoryview(buffer).nbytes for buffer in self._buffers)

    def open(self) -> Any:
        """The object."""
        with self._lock:
            if "content" not in self.__dict__:
                self.__dict__["content"] = pickle.loads(self._text, buffers=self._buffers)
            return self.__dict__["content"]

    def __getstate__(self) -> dict[str, Any]:
        # Received buffers are what they are sent on as, to workers that come later.
        buffers = [pickle.PickleBuffer(buffer) for buffer in self._buffers]
        return {"_text": self._text, "_buffers": buffers, "files": self.files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __sizeof__(self) -> int:
        return self.size


def _pack(
    content: Any, by_name: bool, callback: Callable[[pickle.PickleBuffer], Any]
) -> tuple[bytes, dict[str, str]]:
    """The pickle of an object, and the files that it names with their fingerprints."""
    import cloudpickle

    files: dict[str, str] = {}

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, HasOwnState) and not isinstance(obj, type):
                state = obj._state_on_worker()
                return (_nothing, ()) if state is None else (_like, (type(obj), state))
            if isinstance(obj, np.memmap):
                name = _file_of(obj)
                if not by_name or name is None:
                    return _same, (np.array(obj, copy=False, subok=False),)
                files.setdefault(name, _fingerprint(name))
                order = "C" if obj.flags.c_contiguous else "F"
                about = (obj.dtype, obj.offset, obj.shape, order)
                return _mapped, (name, files[name], *about)
            return super().reducer_override(obj)

    text = io.BytesIO()
    Pickler(text, protocol=5, buffer_callback=callback).dump(content)
    return text.getvalue(), files


def _nothing() -> None:
    return None


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _like(kind: type, state: dict[str, Any]) -> Any:
    obj: Any = object.__new__(kind)
    obj.__dict__.update(state)
    return obj


def _file_of(array: np.memmap) -> str | None:
    """The file that an array is a whole map of; None for a part of one."""
    whole = isinstance(array.base, mmap.mmap)
    contiguous = array.flags.c_contiguous or array.flags.f_contiguous
    if array.filename is None or not (whole and contiguous):
        return None
    return str(Path(array.filename).resolve())


def _fingerprint(name: str) -> str:
    """What tells a file from another of its name: its size and both its ends."""
    size = Path(name).stat().st_size
    with open(name, "rb") as file:
        start = file.read(_WINDOW)
        file.seek(max(0, size - _WINDOW))
        return hashlib.sha256(str(size).encode() + start + file.read(_WINDOW)).hexdigest()


def _seen(name: str, fingerprint: str) -> bool:
    try:
        return _fingerprint(name) == fingerprint
    except OSError:
        return False


def _mapped(
    name: str, fingerprint: str, dtype: np.dtype, offset: int, shape: tuple[int, ...], order: str
) -> np.ndarray:
    if not _seen(name, fingerprint):
        raise InputError(
            f"{name}: not seen, or another file, on {socket.gethostname()}, a worker that came "
            "later than the others. Keep the basis where all workers see it."
        )
    return np.memmap(name, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)  # type: ignore[call-overload]


def _send(client: Client, shared: Any) -> Future:
    """What all tasks share, on every worker that is there."""
    packed = Packed(shared, by_name=True)
    if not _all_agree(client, packed.files):
        log.info("Not every worker sees %s: its content is sent.", listing(packed.files))
        packed = Packed(shared, by_name=False)
    return client.scatter(packed, broadcast=True, hash=False)


def _all_agree(client: Client, files: dict[str, str]) -> bool:
    """Whether all workers see files; an `InputError` if their libraries are others."""
    here = _versions()
    answers = client.run(_about_worker, files, on_error="return")
    for worker, answer in answers.items():
        if isinstance(answer, ImportError):
            raise InputError(f"The worker {worker} cannot import bayeslmm ({answer}).")
        if isinstance(answer, BaseException):  # it is being lost
            continue
        other = [f"{k} {v} there, {here[k]} here" for k, v in answer[0].items() if v != here[k]]
        if other:
            raise InputError(
                f"The worker {worker} has other versions: {listing(other)}. Results would depend "
                "on who computes them: install the same everywhere."
            )
    return all(answer[1] for answer in answers.values() if not isinstance(answer, BaseException))


def _about_worker(files: dict[str, str]) -> tuple[dict[str, str], bool]:
    return _versions(), all(_seen(name, known) for name, known in files.items())


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _LIBRARIES}
