"""Runs of a comparison, one after the other or in processes of their own."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from pyrovae.comparison._plan import Cell, Plan
from pyrovae.comparison._runs import Outcome, Progress, failed, groups, run_or_fail


def run_here(plan: Plan, cells: list[Cell], workers: int, bar: Progress) -> Iterator[Outcome]:
    """Run cells one after the other in this process."""
    for group in groups(cells, workers):
        yield from run_or_fail(plan, group, bar.update)


def run_in_processes(plan: Plan, cells: list[Cell], workers: int, bar: Progress) -> Iterator[Outcome]:
    """Run cells in fresh processes of one thread each, as they come; an interrupt ends them at once.

    A process that the system ends, for want of memory for one, takes its pool along: what was not done is then run
    again, each group in a pool of its own, and a group that ends that one too has failed.
    """
    pieces = groups(cells, workers)
    context = multiprocessing.get_context("spawn")
    # One pipe for all: a record is far shorter than what the system writes in one piece.
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(workers, len(pieces)), mp_context=context, initializer=_start_worker, initargs=(plan, writer)
    )
    left: list[list[Cell]] = []
    try:
        with _as_children_should_start():
            pending = {pool.submit(_run_in_worker, group): group for group in pieces}
        while pending:
            done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            while reader.poll():
                bar.update(*reader.recv())
            for future in done:
                group = pending.pop(future)
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    left.append(group)
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    for group in left:
        if len(pieces) > 1:
            yield from run_in_processes(plan, group, 1, bar)
        else:
            yield from failed(plan, group, "its process was ended by the system, perhaps out of memory")


_CHILDREN_START_WITH = {
    "OMP_NUM_THREADS": "1",
    # memory that a step frees is kept for the next: a page given back costs a fault when it is needed again
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


@contextmanager
def _as_children_should_start() -> Iterator[None]:
    """Start processes with one thread each that leave Ctrl-C, sent to all of a terminal's processes, to this one."""
    before = {name: os.environ.get(name) for name in _CHILDREN_START_WITH}
    os.environ.update(_CHILDREN_START_WITH)  # read by the children's libraries as they start
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
    try:
        yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_worker: dict[str, Any] = {}


def _start_worker(plan: Plan, writer: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop_worker)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(plan=plan, writer=writer)


def _end_with_parent() -> None:
    """A parent that was killed could not stop its workers, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_in_worker(group: list[Cell]) -> list[Outcome]:
    if _worker.get("stopped"):
        sys.exit(1)
    return run_or_fail(_worker["plan"], group, lambda folder, record: _worker["writer"].send((folder, record)))


def _stop_worker(*_: object) -> None:
    """End the current run, temporary files removed, and those that the pool still hands out."""
    _worker["stopped"] = True
    sys.exit(1)
