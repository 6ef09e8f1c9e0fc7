"""How programs run: in training or in evaluation mode, and without a trace in the caller's state."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor, nn

from pyrovae.programs._parameters import unregistered
from pyrovae.programs._sites import Program


@contextmanager
def mode(*programs: Program, training: bool) -> Iterator[None]:
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
def undisturbed(x: Tensor, *programs: Program) -> Iterator[None]:
    """Run programs in evaluation mode; the caller's random state and Pyro's parameter store stay as they are.

    Args:
        x: data on the programs' device.
        *programs: the programs that will run.
    """
    with (
        torch.random.fork_rng(devices=[x.device] if x.is_cuda else []),
        unregistered(),
        mode(*programs, training=False),
    ):
        yield


@contextmanager
def evaluating(model: Program, guide: Program, x: Tensor, seed: int) -> Iterator[None]:
    """Run programs as :func:`undisturbed` does, from a seed and without Pyro's validation."""
    with undisturbed(x, model, guide), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        yield
