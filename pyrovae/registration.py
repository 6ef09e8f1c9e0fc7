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
import pyro.poutine as poutine
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


def takes_missing(model: Callable[..., Any]) -> bool:
    """Whether a NaN is to the model a value that was not observed."""
    return bool(getattr(model, "missing", False))


def check_values(name: str, x: Tensor, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
    """Raise a ValueError that names the first value of x (num, …) which is not finite.

    NaN is allowed where the model takes missing values, if the guide draws finite z for them.
    """
    valid = x.isfinite() | x.isnan() if takes_missing(model) else x.isfinite()
    if not valid.all():
        row, column = (~valid.reshape(len(x), -1)).nonzero()[0].tolist()
        advice = "remove them" if takes_missing(model) else "remove or impute them"
        if hasattr(model, "missing") and not takes_missing(model):
            advice += ", or make the model with missing=True, to which NaN is a value not observed"
        raise ValueError(
            f"{name} holds {int((~valid).sum())} NaN or infinite values, the first at row {row}, column {column} "
            f"(counted from 0); {advice}"
        )
    incomplete = x.isnan().reshape(len(x), -1).any(1)
    if incomplete.any():
        _check_guide_takes_missing(name, x, guide, int(incomplete.nonzero()[0]))


def _check_guide_takes_missing(name: str, x: Tensor, guide: Callable[..., Any], row: int) -> None:
    devices = [x.device] if x.is_cuda else []
    # one with parameters for each datum takes those of this one
    guide = guide.select(slice(row, row + 1)) if hasattr(guide, "select") else guide
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=devices),
        pyro.validation_enabled(False),
        unregistered(),
        mode(guide, training=False),
    ):
        trace = poutine.trace(guide).get_trace(x[row : row + 1])
    if not all(site["value"].isfinite().all() for site in trace.nodes.values() if site["type"] == "sample"):
        raise ValueError(
            f"{name} has missing values at row {row} (counted from 0), for which the guide draws no finite z; put "
            "pv.nn.ImputeMissing around its encoder"
        )


def check_support(name: str, x: Tensor, model: Callable[..., Any]) -> None:
    """Raise a ValueError that names the first value of x (num, …) which p(x|z) cannot score, where the model knows."""
    if hasattr(model, "check_support"):
        model.check_support(name, x)


def check_data(x: Any, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
    """Raise unless x is a tensor (num, …) of at least one datum, all of it what the model can score."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor of the programs' dtype and device, not {type(x).__name__}")
    if x.dim() < 1 or len(x) == 0:
        raise ValueError(f"x is empty: its shape is {tuple(x.shape)}, expected (num, …) with num ≥ 1")
    check_values("x", x, model, guide)
    check_support("x", x, model)
