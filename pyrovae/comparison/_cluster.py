"""Work on a Dask cluster that the user has started."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pyrovae.comparison.workers import keeping_freed_memory
from pyrovae.errors import InputError, needing_extra, one_line

if TYPE_CHECKING:
    from distributed import Client

Piece = TypeVar("Piece")

_ONE_AT_A_TIME = threading.Lock()
"""In a worker with several threads: Pyro's parameter store and torch's random state are a process's."""


def run_on_cluster(
    run: Callable[[Piece], bytes], pieces: Sequence[Piece], address: str, *, announce: bool = False
) -> Iterator[tuple[Piece, bytes | None]]:
    """Run pieces of work on a cluster's workers, one thread each; results come as they finish.

    The work of a lost worker is done again by another. An interrupt cancels the rest.

    Args:
        run: does one piece; it is sent to the cluster once, pickled. Its result is bytes.
        pieces: the work.
        address: address of the cluster's scheduler, such as ``"tcp://10.0.0.5:8786"``.
        announce: whether to print where the dashboard is.

    Yields:
        Pieces with their results; None for a piece whose worker was lost more often than the scheduler allows.

    Raises:
        InputError: there is no scheduler at the address.
        MissingExtraError: Dask is not installed.
    """
    client = _connect(address)
    try:
        if announce:
            print(f"on the Dask cluster at {address}; its dashboard: {client.dashboard_link}", flush=True)
        from cloudpickle import dumps
        from distributed import as_completed

        work = dumps(run)
        # a task, and not scattered: a worker that holds it may be lost
        sent = client.submit(bytes, work, key=f"pyrovae-{hashlib.sha256(work).hexdigest()}")
        # in turn: left to itself, the scheduler gives all of a few pieces to the worker that has the work
        workers = list(client.nthreads())
        pending = {
            client.submit(
                _run_here,
                sent,
                dumps(piece),
                pure=False,
                workers=workers[number % len(workers)] if workers else None,
                allow_other_workers=bool(workers),
            ): piece
            for number, piece in enumerate(pieces)
        }
        for future in as_completed(list(pending), loop=client.loop):
            if future.status == "error" and not _was_lost(future):
                future.result()
            yield pending.pop(future), None if future.status == "error" else future.result()
            future.release()
    finally:
        client.close()  # which cancels what it has asked for


def _connect(address: str) -> Client:
    with needing_extra("a Dask cluster needs Dask: pip install 'pyrovae[cluster]'"):
        from distributed import Client
    try:
        return Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"cannot reach a Dask scheduler at {address!r}: {one_line(error, 100)}") from None


def _was_lost(future: Any) -> bool:
    from distributed import KilledWorker

    return isinstance(future.exception(), KilledWorker)


def _run_here(work: bytes, piece: bytes) -> bytes:
    """In a worker: do one piece with one thread."""
    import torch

    with _ONE_AT_A_TIME, keeping_freed_memory():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            result: bytes = pickle.loads(work)(pickle.loads(piece))
        finally:
            torch.set_num_threads(threads)
    return result
