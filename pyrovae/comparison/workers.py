"""Work in processes of one thread each, which end with this one."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from pyrovae.blocks import give_back_freed
from pyrovae.training.processes import environment

Piece = TypeVar("Piece")
Key = TypeVar("Key")
Result = TypeVar("Result")
Report = Callable[..., None]


def run_in_processes(
    run: Callable[[Piece, Report], dict[Key, Result]],
    lost: Callable[[Piece], dict[Key, Result]],
    pieces: Sequence[Piece],
    workers: int,
    report: Report,
) -> dict[Key, Result]:
    """Run pieces of work in fresh processes of one thread each; an interrupt ends them at once.

    If the system ends a process, for example because memory is short, its pool ends too. Unfinished pieces then run
    again, each in its own pool; a piece that ends its pool again is lost.

    Args:
        run: does one piece, with a function to report progress to; it is sent to each process once.
        lost: gives the results of a piece whose process the system ended.
        pieces: the work.
        workers: number of processes.
        report: called in this process with what ``run`` reports.
    """
    context = multiprocessing.get_context("spawn")
    # One pipe for all: a record is far shorter than what the system writes in one piece.
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(workers, len(pieces)), mp_context=context, initializer=_start_worker, initargs=(run, writer)
    )
    left: list[Piece] = []
    results: dict[Key, Result] = {}
    try:
        with _as_children_should_start():
            pending: dict[Future[dict[Key, Result]], Piece] = {
                pool.submit(_run_in_worker, piece): piece for piece in pieces
            }
        while pending:
            done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            while reader.poll():
                report(*reader.recv())
            for future in done:
                piece = pending.pop(future)
                try:
                    results.update(future.result())
                except BrokenProcessPool:
                    left.append(piece)
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    for piece in left:
        if len(pieces) > 1:
            results.update(run_in_processes(run, lost, [piece], 1, report))
        else:
            results.update(lost(piece))
    return results


_KEEP_FREED = {"MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**25}
"""Memory that a step frees is kept for the next: a page given back costs a fault when it is needed again."""

_CHILDREN_START_WITH = {"OMP_NUM_THREADS": "1", **{name: str(size) for name, size in _KEEP_FREED.items()}}


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Keep the memory that a step frees, in a process that was told to give it back, as Dask's workers are.

    Dask starts them with ``MALLOC_TRIM_THRESHOLD_`` of 64 KiB. Work that makes and frees arrays is then up to three
    times as slow. Afterwards the memory is given back. Where glibc decides by itself, nothing changes.
    """
    is_told = sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" in os.environ
    if not is_told or not hasattr(libc := ctypes.CDLL(None), "mallopt"):  # another C library
        yield
        return
    number = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}  # of malloc.h
    told = {name: os.environ.get(name, "") for name in number}
    for name, size in _KEEP_FREED.items():
        libc.mallopt(number[name], size)
    try:
        yield
    finally:
        for name, before in told.items():
            libc.mallopt(number[name], int(before) if before.isdecimal() else 2**17)  # glibc's own
        give_back_freed()


@contextmanager
def _as_children_should_start() -> Iterator[None]:
    """Start processes with one thread each that leave Ctrl-C, sent to all processes of a terminal, to this process."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
    try:
        with environment(_CHILDREN_START_WITH):  # read by the children's libraries as they start
            yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)


_worker: dict[str, Any] = {}
"""In a worker process: what it runs, where it reports to, and whether it was told to stop."""


def _start_worker(run: Callable[[Any, Report], Any], writer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(run=run, report=lambda *message: writer.send(message))
    signal.signal(signal.SIGTERM, _stop_worker)  # last: an exit in this function would print a traceback


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, which would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_in_worker(piece: Any) -> Any:
    if "stopped" in _worker:
        sys.exit(1)
    return _worker["run"](piece, _worker["report"])


def _stop_worker(*_: object) -> None:
    """End the current run, temporary files removed, and those that the pool still hands out."""
    _worker["stopped"] = True
    sys.exit(1)
