"""What long work tells: a logger for statements, a bar for loops, threads that read ahead."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice

from bayeslmm.errors import InputError

log = logging.getLogger("bayeslmm")
if not log.handlers:
    log.setLevel(logging.INFO)
    _handler = logging.StreamHandler()
    _handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(_handler)


def track[T](
    items: Iterable[T],
    label: str,
    *,
    total: float | None = None,
    size: Callable[[T], float] | None = None,
    show: bool | None = None,
) -> Iterator[T]:
    """Iterate over `items` behind a progress bar.

    Parameters
    ----------
    items : iterable
        What to iterate over.
    label : str
        Text in front of the bar.
    total : float, optional
        Units of work in all; the number of items by default.
    size : callable, optional
        Units of work of one item; 1 by default.
    show : bool, optional
        Whether to draw the bar; by default only where somebody watches (a terminal
        or a notebook).
    """
    if show is None:
        # In a notebook rich draws with ipywidgets, and warns in the cell where they are absent.
        in_notebook = "ipykernel" in sys.modules and find_spec("ipywidgets") is not None
        show = sys.stderr.isatty() or in_notebook
    if not show:
        yield from items
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if total is None and isinstance(items, Sized):
        total = len(items)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        for item in items:
            yield item
            bar.advance(task, size(item) if size else 1)


def worker_count(threads: int | None) -> int:
    """Number of worker threads that somebody asked for; all processors by default."""
    if threads is None:
        return os.cpu_count() or 1
    if threads < 1:
        raise InputError(f"threads must be at least 1, but is {threads}; None is all processors.")
    return threads


def map_ahead[T, R](
    function: Callable[[T], R], items: Iterable[T], *, workers: int = 1
) -> Iterator[R]:
    """Apply `function` to `items` in `workers` threads, results in order of the items.

    At most ``workers + 1`` results exist before they are asked for, so memory is
    bounded. With one worker this is a read-ahead. An error, or an interruption by
    the user, cancels what has not begun.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        waiting: list[Future[R]] = [
            pool.submit(function, item) for item in islice(iterator, workers + 1)
        ]
        try:
            while waiting:
                result = waiting.pop(0).result()
                waiting += [pool.submit(function, item) for item in islice(iterator, 1)]
                yield result
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Leave out what a logger tells below warnings."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def blas_threads(threads: int | None) -> Iterator[None]:
    """Limit BLAS to `threads` threads inside the block; None leaves it as it is."""
    if threads is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=threads, user_api="blas"):
        yield


def blas_thread_count() -> int:
    """How many threads BLAS takes now."""
    from threadpoolctl import threadpool_info

    counts = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return max(counts, default=1)
