"""The state of the global random generators, and noise that ``torch.vmap`` can draw."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def kept_random_state(x: Tensor | None = None) -> AbstractContextManager[None]:
    """Leave the caller's random state as it is, on the CPU and on the device of x."""
    return torch.random.fork_rng(devices=[x.device] if x is not None and x.is_cuda else [])


@contextmanager
def seeded(seed: int, x: Tensor | None = None) -> Iterator[None]:
    """Draw under a seed, and leave the caller's random state as it was, on the CPU and on the device of x."""
    with kept_random_state(x):
        torch.manual_seed(seed)
        yield


def random_state() -> list[Tensor]:
    """State of the CPU's generator and, once CUDA is in use, of its current device's."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return states


def set_random_state(states: list[Tensor]) -> None:
    """Put the generators back into a state."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])


def state_elsewhere() -> str:
    """State of the generators of Python and NumPy."""
    return str((random.getstate(), np.random.get_state(legacy=False)))  # noqa: NPY002


class FunctionalNoise(TorchFunctionMode):
    """Draw standard normal noise as a value, where ``torch.distributions`` fills a tensor in place.

    ``torch.vmap`` refuses the latter, since one tensor cannot contain a different draw for each of its entries.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[Tensor] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if func is torch.Tensor.normal_ and len(args) == 1 and not kwargs:
            return torch.randn(args[0].shape, dtype=args[0].dtype, device=args[0].device)
        return func(*args, **(kwargs or {}))
