"""The processes of ``torchrun`` that share one training; without it, every function is that of a single process."""

import atexit
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256

import torch
import torch.distributed as dist

from pyrovae.errors import InputError, LostProcessError, Option, one_line

_LOST = ("gloo", "nccl", "connection", "socket", "broken pipe", "timed out")
"""What PyTorch's errors say where another process does not answer."""


def join() -> None:
    """Join the processes that ``torchrun`` started, once in a process's life.

    They talk over the loopback interface if the master's address is a loopback one, torchrun's default.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE") == "1" or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    with ending_in_one_line("cannot reach the other processes of this training"), _on_loopback():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(_leave)


def check_alone(what: str) -> None:
    """Raise an InputError where ``torchrun`` started several processes, which share one training and no other work."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE") != "1":
        raise InputError(
            f"torchrun's processes share one fit, not {what}; use ", Option("workers"), " without torchrun"
        )


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let gloo use the loopback interface alone, unless the user names one or the master is elsewhere."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    address = os.environ.get("MASTER_ADDR", "")
    if not address.startswith(("127.", "localhost", "::1")) or "GLOO_SOCKET_IFNAME" in os.environ or not loopback:
        yield
        return
    with environment({"GLOO_SOCKET_IFNAME": loopback}):
        yield


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the process's environment, which are as before at the end."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, counted from 0."""
    return dist.get_rank() if size() > 1 else 0


def total(value: float) -> float:
    """The sum of a number over the processes, in float64."""
    if size() == 1:
        return value
    found = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(found)
    return found.item()


def any_of(condition: bool) -> bool:
    """Whether a condition is true in any process."""
    return total(float(condition)) > 0


def from_first(compute: Callable[[], float]) -> float:
    """A number that the first process computes."""
    return total(compute() if rank() == 0 else 0.0)


def check_equal(what: str, value: object) -> None:
    """Raise an InputError unless a value's ``repr`` is the same in all processes."""
    if size() == 1:
        return
    own = torch.frombuffer(bytearray(sha256(repr(value).encode()).digest()), dtype=torch.uint8)
    found = [torch.empty_like(own) for _ in range(size())]
    dist.all_gather(found, own)
    others = [k for k, each in enumerate(found) if not torch.equal(each, found[0])]
    if others:
        raise InputError(
            f"{what} of process {others[0]} are not those of process 0; give all processes the same programs, data and "
            "settings, and a folder that all of them read"
        )


@contextmanager
def ending_in_one_line(
    what: str = "another process of this training has ended; the same command resumes from its last checkpoint",
) -> Iterator[None]:
    """Raise a LostProcessError where PyTorch says that another process does not answer."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _LOST):
            raise
        raise LostProcessError(f"{what} (PyTorch: {one_line(error).rpartition(': ')[2][:80]})") from error
