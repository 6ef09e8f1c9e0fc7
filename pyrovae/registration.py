"""Parameters of the library's Pyro programs, registered under names unique to each instance.

Pyro's parameter store hands back the *first* tensor it saw under a name: a second VAE with the same
parameter names would train nothing, without a word. So every program carries a name of its own.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyrovae.nn import ConfigurableModule

_counter = itertools.count()
_active: ContextVar[bool] = ContextVar("registration_active", default=True)


class Program(ConfigurableModule):
    """Base of the modules whose ``forward`` is a Pyro program."""

    def __init__(self) -> None:
        super().__init__()
        self._program_name = self._unique_name()

    def _unique_name(self) -> str:
        return f"{type(self).__name__}-{next(_counter)}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._program_name = self._unique_name()  # a copy is an instance of its own

    def register_parameters(self) -> None:
        """Make the parameters known to Pyro's inference algorithms, as ``pyro.module`` does.

        A parameter's identity is part of its name: one that takes another's place is not mistaken for it.
        """
        if _active.get():
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    pyro.param(f"{self._program_name}$$${name}-{id(parameter)}", parameter)


@contextmanager
def unregistered() -> Iterator[None]:
    """Run programs whose parameters the caller already holds, without announcing them to Pyro."""
    token = _active.set(False)
    try:
        yield
    finally:
        _active.reset(token)


@contextmanager
def mode(*programs: Callable[..., Any], training: bool) -> Iterator[None]:
    """Put module programs into training or evaluation mode, and back afterwards."""
    modules = [m for program in programs if isinstance(program, nn.Module) for m in program.modules()]
    before = [m.training for m in modules]
    for module in modules:
        module.training = training
    try:
        yield
    finally:
        for module, was_training in zip(modules, before, strict=True):
            module.training = was_training


@contextmanager
def evaluating(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, seed: int) -> Iterator[None]:
    """Run programs in evaluation mode, under a seed that leaves the caller's random state as it was, unvalidated."""
    with (
        torch.random.fork_rng(devices=[x.device] if x.is_cuda else []),
        pyro.validation_enabled(False),
        unregistered(),
        mode(model, guide, training=False),
    ):
        torch.manual_seed(seed)
        yield


def cannot_run(x: Tensor, error: Exception) -> ValueError:
    """What to raise where programs fail on data, in one line."""
    reason = " ".join(str(error).split("Trace Shapes")[0].split())[:300]
    if "collide at dim" in reason:
        reason += " (or the programs' plates nest deeper than max_plate_nesting)"
    return ValueError(f"the model and the guide cannot run on data of shape {tuple(x.shape)}: {reason}")


def check_data(x: Any) -> None:
    """Raise unless x is a tensor (num, …) of at least one datum, all of it finite."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor of the programs' dtype and device, not {type(x).__name__}")
    if x.dim() < 1 or len(x) == 0:
        raise ValueError(f"x is empty: its shape is {tuple(x.shape)}, expected (num, …) with num ≥ 1")
    if not x.isfinite().all():
        raise ValueError(f"x holds {int((~x.isfinite()).sum())} NaN or infinite values; remove or impute them")
