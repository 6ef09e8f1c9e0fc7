"""Mixed precision: a model's networks in bfloat16, distributions and densities in float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.nn import ImputeMissing, LogCounts, Skip
from pyrovae.programs import Pair, ProgramModule
from pyrovae.training.engines._base import Tensors


def check_takes_bfloat16(pair: Pair, parameters: Tensors) -> None:
    """Raise an InputError unless the networks of these programs can run in bfloat16.

    Args:
        pair: model and guide.
        parameters: what is trained.
    """
    if not all(isinstance(program, ProgramModule) for program in pair):
        raise InputError("precision='bf16' needs a GenerativeModel and an AmortizedGuide; leave it out")
    other = next((p.dtype for p in parameters if p.dtype != torch.float32), None)
    if other is not None:
        raise InputError(f"precision='bf16' is for parameters in float32, not {other}; leave it out, or use .float()")


@contextmanager
def networks_in_bfloat16(pair: Pair) -> Iterator[None]:
    """Run the decoder's and the encoder's networks under ``torch.autocast``; their features are in float32.

    The heads, the likelihood, all densities and the affine map of :class:`~pyrovae.nn.Skip` stay in float32.
    """
    networks = [_network(program.network) for program in pair if isinstance(program, ProgramModule)]
    for network in networks:
        network.forward = partial(_features, network.forward)
    try:
        yield
    finally:
        for network in networks:
            del network.forward  # the instance's: the class has its own


def _network(module: nn.Module) -> nn.Module:
    """The module whose products are worth fewer digits."""
    while isinstance(module, Skip | ImputeMissing | LogCounts):
        module = module.network if isinstance(module, Skip) else module.encoder
    return module


def _features(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16):
        found = forward(x)
    return found.float()
