"""Neural network modules for encoders and decoders."""

import inspect
import itertools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class ConfigurableModule(nn.Module):
    """A module that knows the arguments it was made with, so that it can be saved and made again.

    The default :meth:`config` reads each constructor argument from the attribute of the same name.
    """

    def config(self) -> dict[str, Any]:
        """Constructor arguments by name: numbers, strings, None, lists of these, or such modules."""
        arguments: dict[str, Any] = {}
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if name == "self":
                continue
            value = getattr(self, name)
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                arguments["*"] = list(value)
            else:
                arguments[name] = value
        return arguments


class MLP(nn.Sequential, ConfigurableModule):
    """Dense layers with ReLU after each: features (*batch, sizes[0]) -> (*batch, sizes[-1]).

    Args:
        *sizes: widths from the input to the last hidden layer; at least two.

    Example:
        >>> import torch
        >>> MLP(2, 128, 128)(torch.zeros(5, 2)).shape
        torch.Size([5, 128])
    """

    def __init__(self, *sizes: int) -> None:
        if len(sizes) < 2 or any(not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError(f"MLP takes at least two positive widths, input first, not {sizes}")
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        super().__init__(*layers)
        self.sizes = sizes

    @property
    def out_features(self) -> int:
        """Width of the features it returns."""
        return self.sizes[-1]


def positive(raw: Tensor, floor: float = 1e-6) -> Tensor:
    """softplus(raw) + floor: a scale that cannot reach 0, where its logarithm would be −∞."""
    return F.softplus(raw) + floor
