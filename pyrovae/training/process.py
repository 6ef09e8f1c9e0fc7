"""What a run asks of its process: signals held back, a number of threads, and memory."""

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deferred_signals(active: bool) -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM in a list, and act on the first at the end; a second one interrupts at once.

    Signals that are ignored stay so. Off the main thread, or not ``active``, nothing is collected.
    """
    received: list[int] = []

    def note(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    before = {}
    if active and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


def out_of_memory(error: BaseException) -> str | None:
    """What to say of an error that is a lack of memory; None of any other."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"out of memory: {text or 'none is left'}"
    if isinstance(error, RuntimeError) and re.search(r"(can't|cannot) allocate memory|not enough memory", text.lower()):
        return f"out of memory: {text}"
    return None


@contextmanager
def num_threads(number: int) -> Iterator[None]:
    """Compute with so many threads, on which the last bits of sums depend."""
    before = torch.get_num_threads()
    if number != before:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number != before:
            torch.set_num_threads(before)
