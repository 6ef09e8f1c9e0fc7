"""Copies of a model and a guide that differ only in their seeds."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from pyro.nn import PyroModule
from torch import nn

from pyrovae.errors import InputError
from pyrovae.programs import OwnParameters, Pair, Program, modules_of
from pyrovae.randomness import seeded
from pyrovae.training.history import History


class CannotVectorizeError(RuntimeError):
    """Several pairs of programs cannot run as one; says why."""


class CannotReplicateError(InputError):
    """Programs that cannot be replicated; says why."""


@dataclass
class Replica:
    """One of several copies trained together; equal to a single run with its seed.

    Attributes:
        model: the trained model. If it is a function, it has its own parameters, shared with the guide:
            ``model.parameters.store``.
        guide: the trained guide, likewise.
        seed: seed of its initialisation, batches and noise.
        history: its losses.
        error: why it stopped before the end, if it did.
    """

    model: Program = field(repr=False)
    guide: Program = field(repr=False)
    seed: int
    history: History = field(default_factory=History)
    error: FloatingPointError | None = None


class _Copy:
    """A function with its own parameters, initialised with a seed at its first call."""

    def __init__(self, function: Program, parameters: OwnParameters, seed: int) -> None:
        functools.update_wrapper(self, function)
        self.function, self.parameters, self.seed = function, parameters, seed
        self.has_run = False

    def __call__(self, *args: object, **kwargs: object) -> object:
        with self.parameters:
            if self.has_run:
                return self.function(*args, **kwargs)
            self.has_run = True
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                return self.function(*args, **kwargs)


def check_can_be_replicas(pairs: Sequence[Pair]) -> None:
    """Raise a CannotVectorizeError where several pairs would share parameters by their names."""
    if len(pairs) > 1 and any(isinstance(module, PyroModule) for pair in pairs for module in modules_of(pair)):
        raise CannotVectorizeError("a PyroModule's parameters go by their names, which replicas share")


def make_replicas(model: Program, guide: Program, seed: int, num: int) -> list[Replica]:
    """Copies of two programs; replica r is initialised with seed + r."""
    replicas = []
    for own_seed in range(seed, seed + num):
        own, parameters = copy.deepcopy((model, guide)), OwnParameters()
        reinitialize(*(program for program in own if isinstance(program, nn.Module)), seed=own_seed)
        own_model, own_guide = (p if isinstance(p, nn.Module) else _Copy(p, parameters, own_seed) for p in own)
        replicas.append(Replica(own_model, own_guide, own_seed))
    return replicas


def reinitialize(*modules: nn.Module, seed: int) -> None:
    """Initialise modules again with a seed: call every ``reset_parameters``, in order.

    Parameters that are not trained keep their values.

    Raises:
        CannotReplicateError: a module has parameters to train and no ``reset_parameters``; names it.
    """
    with seeded(seed):
        done: set[int] = set()
        for root in modules:
            for name, module in root.named_modules():
                if id(module) in done or not any(p.requires_grad for p in module.parameters(recurse=False)):
                    continue
                done.add(id(module))
                reset = getattr(module, "reset_parameters", None)
                if reset is None:
                    where = f"{type(root).__name__}.{name}" if name else "the program itself"
                    raise CannotReplicateError(
                        f"{where}, a {type(module).__name__}, has parameters but no reset_parameters(), so its "
                        "replicas cannot start differently; give it one"
                    )
                frozen = [(p, p.detach().clone()) for p in module.parameters(recurse=False) if not p.requires_grad]
                reset()
                with torch.no_grad():
                    for parameter, value in frozen:
                        parameter.copy_(value)
