"""Neural network modules for encoders and decoders."""

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from pyrovae.errors import InputError, check_choice, check_integer

T = TypeVar("T")


class ConfigurableModule(nn.Module):
    """A module that knows its constructor arguments, so that it can be saved and rebuilt.

    The default :meth:`config` reads each constructor argument from the attribute of the same name.
    """

    def config(self) -> dict[str, Any]:
        """Constructor arguments by name: numbers, strings, None, lists of these, or such modules."""
        arguments: dict[str, Any] = {}
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if not hasattr(self, name):
                raise InputError(
                    f"{type(self).__name__} does not keep its argument {name!r}, with which it is saved and rebuilt: "
                    f"add self.{name} = {name} to __init__, or a method config()"
                )
            several = parameter.kind is inspect.Parameter.VAR_POSITIONAL
            arguments["*" if several else name] = list(getattr(self, name)) if several else getattr(self, name)
        return arguments

    @classmethod
    def from_config(cls, *positional: Any, **arguments: Any) -> Self:
        """A module with this :meth:`config`, whose parameters will be loaded; by default, call the constructor."""
        inspect.signature(cls).bind(*positional, **arguments)
        return cls(*positional, **arguments)


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
"""What an :class:`MLP` can apply after each dense layer."""


class MLP(nn.Sequential, ConfigurableModule):
    """Dense layers with an activation after each: features (*batch, sizes[0]) -> (*batch, sizes[-1]).

    Args:
        *sizes: widths from the input to the last hidden layer; at least two.
        activation: relu or tanh.

    Example:
        >>> import torch
        >>> MLP(2, 128, 128)(torch.zeros(5, 2)).shape
        torch.Size([5, 128])
    """

    activation: str = "relu"  # of modules that earlier versions pickled

    def __init__(self, *sizes: int, activation: str = "relu") -> None:
        check_choice("activation", activation, ACTIVATIONS)
        if len(sizes) < 2 or any(not isinstance(size, int) or size < 1 for size in sizes):
            raise InputError(f"MLP takes at least two positive widths, input first, not {sizes}")
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
        super().__init__(*layers)
        self.sizes, self.activation = sizes, activation

    @property
    def out_features(self) -> int:
        """Width of the features it returns."""
        return self.sizes[-1]


class LocHead(nn.Linear):
    """Affine head for a mean in units u: u ⊙ (Wx + b). Until :meth:`set_units`, u = 1.

    Adam moves every weight by about its learning rate, whatever the effect on the output. If a mean must be accurate to
    1e-4 of its range in one dimension and to 1e-1 in another, as for spectra and their latents, no rate suits both. In
    units of the corresponding standard deviations, one rate does.
    """

    units: Tensor | None

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.register_buffer("units", None)

    def forward(self, x: Tensor) -> Tensor:
        """Means (*batch, out_features) of features (*batch, in_features)."""
        y = super().forward(x)
        return y if self.units is None else self.units * y

    @property
    def matrix(self) -> Tensor:
        """The map's matrix u ⊙ W, shape (out_features, in_features)."""
        return self.weight if self.units is None else self.units.unsqueeze(-1) * self.weight

    @torch.no_grad()
    def set_units(self, units: Tensor) -> None:
        """Express outputs in units u > 0, shape (out_features,). The map itself does not change.

        Raises:
            InputError: another shape, or units that are not positive numbers.
        """
        if units.shape != self.bias.shape or not ((units > 0) & units.isfinite()).all():
            raise InputError(f"units must be {len(self.bias)} positive numbers, not {units}")
        before = torch.ones_like(self.bias) if self.units is None else self.units
        self.units = units.to(self.bias)
        ratio = before / self.units
        self.weight.mul_(ratio.unsqueeze(-1))
        self.bias.mul_(ratio)

    @torch.no_grad()
    def set_affine(self, weight: Tensor, bias: Tensor) -> None:
        """Set the map to x -> Wx + b, with weight 0 for features beyond W's columns."""
        units = torch.ones_like(bias) if self.units is None else self.units.to(bias)
        self.weight.zero_()
        self.weight[:, : weight.shape[1]] = (weight / units.unsqueeze(-1)).to(self.weight)
        self.bias.copy_(bias / units)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        if f"{prefix}weight" in state_dict:  # units belong to the weights
            self.units = torch.ones_like(self.bias) if f"{prefix}units" in state_dict else None
        super()._load_from_state_dict(state_dict, prefix, *args)


class Skip(ConfigurableModule):
    """A network's features and an affine map of its input: x (*batch, n) -> [Wx + b, network(x)].

    With a linear head on top, the model contains every linear model of Wx + b, and the network adds to it. W and b are
    not trained. They start as the first rows of the identity and 0; see :func:`~pyrovae.start_as_linear`.

    Args:
        network: the network, from n features.
        width: number of rows of W.

    Example:
        >>> import torch
        >>> Skip(MLP(2, 8), 2)(torch.ones(1, 2)).shape
        torch.Size([1, 10])
    """

    def __init__(self, network: MLP, width: int) -> None:
        super().__init__()
        check_integer("width", width)
        self.network = network
        self.width = width
        self.linear = nn.Linear(network.sizes[0], width).requires_grad_(False)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @property
    def out_features(self) -> int:
        """Width of the features it returns."""
        return self.width + self.network.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Features (*batch, out_features) of x (*batch, n)."""
        return torch.cat([self.linear(x), self.network(x)], dim=-1)


class ImputeMissing(ConfigurableModule):
    """An encoder for x with missing values: encoder(x with ``fill`` where x is NaN).

    Args:
        encoder: module from x (*batch, n) to features.
        fill: replaces a missing value; a number, or n numbers. The channels' means are a fair guess; for standardised
            data they are 0.
        indicate: whether the encoder also sees which values are missing. Its input is then (*batch, 2n): the filled x,
            then 1 for missing and 0 for observed.

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
            raise InputError(f"fill must be a finite number or a list of them, one per channel, not {fill!r}")
        self.encoder = encoder
        self.fill = float(fill) if isinstance(fill, int | float) else [float(value) for value in values]
        self.indicate = indicate
        self.register_buffer("fill_values", torch.tensor(values), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of x (*batch, n), NaN where it is missing."""
        missing = x.isnan()
        filled = torch.where(missing, self.fill_values.to(x.dtype), x)
        features: Tensor = self.encoder(torch.cat([filled, missing.to(x.dtype)], dim=-1) if self.indicate else filled)
        return features


class LogCounts(ConfigurableModule):
    """An encoder for counts: encoder(log(1 + x)), so that its inputs are of order 1 for counts of any size.

    Args:
        encoder: module from log(1 + x) (*batch, n) to features.

    Example:
        >>> import torch
        >>> LogCounts(torch.nn.Identity())(torch.tensor([0.0, 1e6]))
        tensor([ 0.0000, 13.8155])
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """Features of counts x (*batch, n)."""
        features: Tensor = self.encoder(torch.log1p(x))
        return features


def class_of(make: Callable[[int, int], T]) -> type[T]:
    """The class of a family's heads: the class itself, or the class inside a ``partial``."""
    while isinstance(make, partial):
        make = make.func
    if isinstance(make, type):
        return make
    with torch.random.fork_rng(devices=[]):  # the class is the same for every size
        return type(make(2, 2))


def on_rows(layers: nn.Module, x: Tensor) -> Tensor:
    """Layers that take rows (num, features), on (*batch, features).

    A layer such as ``BatchNorm1d`` would take an axis before the rows, such as draws, for channels.
    """
    if x.dim() == 2:
        features: Tensor = layers(x)
        return features
    features = layers(x.reshape(-1, x.shape[-1]))
    return features.reshape(*x.shape[:-1], *features.shape[1:])
