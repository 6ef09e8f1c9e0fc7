"""Copies of a pair of programs that differ in their seeds alone."""

import copy
from dataclasses import dataclass, field

import torch
from torch import nn

from pyrovae.errors import InputError
from pyrovae.training.history import History


class CannotVectorizeError(RuntimeError):
    """Several pairs of programs cannot run as one; says why."""


class CannotReplicateError(InputError):
    """Programs of which there can be no replicas; says why."""


@dataclass
class Replica:
    """One of several copies trained together: what a single run of its seed gives.

    Attributes:
        model: the trained model.
        guide: the trained guide.
        seed: of its initialisation, batches and noise.
        history: its losses.
        error: why it stopped before the end, if it did.
    """

    model: nn.Module = field(repr=False)
    guide: nn.Module = field(repr=False)
    seed: int
    history: History = field(default_factory=History)
    error: FloatingPointError | None = None


def make_replicas(model: object, guide: object, seed: int, num: int) -> list[Replica]:
    """Copies of two modules, replica r initialised anew under seed + r."""
    if not isinstance(model, nn.Module) or not isinstance(guide, nn.Module):
        raise CannotReplicateError(
            "num_replicas needs a model and a guide that are modules, since functions cannot be copied"
        )
    replicas = []
    for r in range(num):
        own_model, own_guide = copy.deepcopy((model, guide))
        reinitialize(own_model, own_guide, seed=seed + r)
        replicas.append(Replica(own_model, own_guide, seed + r))
    return replicas


def reinitialize(*modules: nn.Module, seed: int) -> None:
    """Give modules the parameters of a fresh start under a seed: call every ``reset_parameters``, in order.

    Parameters that are not to be trained keep what they have.

    Raises:
        CannotReplicateError: a module has parameters to train and no ``reset_parameters``; names it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
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
                        f"{where}, a {type(module).__name__}, has parameters but no reset_parameters(), so replicas "
                        "of it cannot start apart; give it one"
                    )
                frozen = [(p, p.detach().clone()) for p in module.parameters(recurse=False) if not p.requires_grad]
                reset()
                with torch.no_grad():
                    for parameter, value in frozen:
                        parameter.copy_(value)
