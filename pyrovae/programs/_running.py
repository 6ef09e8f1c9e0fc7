"""Errors of programs in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pyrovae.errors import InputError, out_of_memory

_PAIR = "the model and the guide"


def cannot_run(x: Tensor, error: Exception, who: str = _PAIR) -> InputError:
    """The error to raise where programs fail on data."""
    reason = " ".join(str(error).split("Trace Shapes")[0].split())[:300]
    if "collide at dim" in reason:
        reason += " (or the programs' plates nest deeper than max_plate_nesting)"
    data = f"data of shape {tuple(x.shape)}"
    if x.dtype in (torch.bfloat16, torch.float16):
        data, reason = f"{data} in {_name(x)}", f"{reason}; use float32, model.float() and guide.float()"
    elif "Long" in reason or "indices" in reason:
        data, reason = f"{data} in {_name(x)}", f"{reason}; data are given in floating point: take x.long() inside"
    elif "mat1 and mat2" in reason or "size mismatch" in reason:
        reason += "; its first layer must be as wide as the data" if who == "the guide" else ""
    return InputError(f"{who} cannot run on {data}: {reason}")


@contextmanager
def running_on(x: object, who: str = _PAIR) -> Iterator[None]:
    """Turn what programs raise on data into an InputError of one line; a refusal stays as it is."""
    try:
        yield
    except InputError as error:
        line = str(error).split("Trace Shapes")[0].strip()  # Pyro adds the shapes of what ran before
        if line == str(error):
            raise
        raise type(error)(line) from error
    except (RuntimeError, ValueError) as error:
        if out_of_memory(error) or not isinstance(x, Tensor):
            raise
        raise cannot_run(x, error, who) from error


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
