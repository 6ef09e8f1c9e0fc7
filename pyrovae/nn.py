"""Neural network modules for encoders and decoders."""

import inspect
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
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


class ImputeMissing(ConfigurableModule):
    """An encoder for x with missing values: encoder(x with ``fill`` where x is NaN).

    Args:
        encoder: module from x (*batch, n) to features.
        fill: what stands for a missing value, a number or n of them: the channels' means are a fair guess, and
            these are 0 where the data are standardised.
        indicate: whether the encoder also sees which values are missing: it then maps (*batch, 2n), the filled x
            and 1 for missing or 0.

    Example:
        >>> import torch
        >>> ImputeMissing(MLP(2, 8))(torch.tensor([[1.0, math.nan]])).isfinite().all()
        tensor(True)
    """

    fill_values: Tensor

    def __init__(self, encoder: nn.Module, fill: float | Sequence[float] = 0.0, indicate: bool = False) -> None:
        super().__init__()
        values = [fill] if isinstance(fill, int | float) else list(fill)
        if not values or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            raise ValueError(f"fill must be a finite number or a list of them, one a channel, not {fill!r}")
        self.encoder = encoder
        self.fill = float(fill) if isinstance(fill, int | float) else [float(value) for value in values]
        self.indicate = indicate
        self.register_buffer("fill_values", torch.tensor(values), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of x (*batch, n), NaN where it is missing."""
        missing = x.isnan()
        filled = torch.where(missing, self.fill_values.to(x.dtype), x)
        return self.encoder(torch.cat([filled, missing.to(x.dtype)], dim=-1) if self.indicate else filled)


def positive(raw: Tensor, floor: float = 1e-6) -> Tensor:
    """softplus(raw) + floor: a scale that cannot reach 0, where its logarithm would be −∞."""
    return F.softplus(raw) + floor
