"""Waiting for an event, whatever the machine's load."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 600) -> None:
    """Come back when the condition holds; the deadline is far beyond what it takes, and ends a test that hangs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the event did not come"
        time.sleep(0.001)
