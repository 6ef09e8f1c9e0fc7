"""Signals, threads and exclusive training in this process."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pyrovae.errors import InputError, LostProcessError
from pyrovae.training import processes

_training = threading.RLock()


@contextmanager
def deferred_signals(active: bool) -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM in a list, and act on the first at the end; a second one interrupts at once.

    Signals that are ignored stay so. Off the main thread, or not ``active``, nothing is collected. After another
    process was lost, SIGTERM is ignored: torchrun sends it to the others, which are about to say why they end.
    """
    received: list[int] = []

    def note(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    if active and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    try:
        yield received
    except LostProcessError:
        if signal.SIGTERM in before:
            before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


def agree_to_stop(signals: list[int]) -> bool:
    """Whether a signal came, in any of the processes that share the training; then all of them have one."""
    if not processes.any_of(bool(signals)):
        return False
    if not signals:
        signals.append(signal.SIGTERM)
    return True


@contextmanager
def num_threads(number: int) -> Iterator[None]:
    """Compute with this number of threads, since the last bits of sums depend on it."""
    before = torch.get_num_threads()
    if number != before:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number != before:
            torch.set_num_threads(before)


@contextmanager
def one_training_thread() -> Iterator[None]:
    """Let one thread of the process train at a time; it may start another training inside, such as in a callback.

    Raises:
        InputError: another thread is training.
    """
    if not _training.acquire(blocking=False):
        raise InputError(
            "another thread of this process is training; Pyro's parameter store is shared: train in processes"
        )
    try:
        yield
    finally:
        _training.release()
