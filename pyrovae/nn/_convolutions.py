"""Convolutional networks for square images."""

import itertools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pyrovae.errors import InputError, check_integer
from pyrovae.nn._modules import ConfigurableModule, on_rows


class ConvEncoder(ConfigurableModule):
    """Convolutions of stride 2 with ReLU after each: images (*batch, in_channels·side²) -> (*batch, out_features).

    Images are flat, channel by channel and row by row. Each 3 × 3 convolution halves the side, rounded up. The output
    of the last one is flat too.

    Args:
        *channels: output channels of each convolution, at least one.
        side: height and width of an image.
        in_channels: 1 for grey images, 3 for coloured ones.

    Example:
        >>> import torch
        >>> encoder = ConvEncoder(32, 64, side=28)  # 28 -> 14 -> 7
        >>> encoder.out_features, encoder(torch.zeros(5, 784)).shape
        (3136, torch.Size([5, 3136]))
    """

    def __init__(self, *channels: int, side: int, in_channels: int = 1) -> None:
        super().__init__()
        _check_sizes(channels, side=side, in_channels=in_channels)
        self.channels, self.side, self.in_channels = channels, side, in_channels
        layers: list[nn.Module] = [nn.Unflatten(-1, (in_channels, side, side))]
        for fan_in, fan_out in itertools.pairwise((in_channels, *channels)):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())

    @property
    def out_features(self) -> int:
        """Width of the features it returns."""
        return self.channels[-1] * _halved(self.side, len(self.channels))[-1] ** 2

    def forward(self, x: Tensor) -> Tensor:
        """Features (*batch, out_features) of images x."""
        return on_rows(self.layers, x)


class ConvDecoder(ConfigurableModule):
    """A dense layer and transposed convolutions of stride 2: z (*batch, in_features) -> (*batch, out_features).

    The reverse of :class:`ConvEncoder`: each 3 × 3 convolution doubles the side, and the last one returns
    ``out_channels`` maps of side × side. ReLU follows each convolution except the last, whose maps are the input of a
    likelihood's dense head.

    Args:
        in_features: width of z.
        *channels: input channels of each convolution, at least one.
        side: height and width of the maps it returns.
        out_channels: number of these maps.

    Example:
        >>> import torch
        >>> decoder = ConvDecoder(2, 64, 32, side=28)  # 7 -> 14 -> 28
        >>> decoder.out_features, decoder(torch.zeros(5, 2)).shape
        (784, torch.Size([5, 784]))
    """

    def __init__(self, in_features: int, *channels: int, side: int, out_channels: int = 1) -> None:
        super().__init__()
        _check_sizes(channels, in_features=in_features, side=side, out_channels=out_channels)
        self.sizes, self.side, self.out_channels = (in_features, *channels), side, out_channels
        sides = _halved(side, len(channels))[::-1]
        layers: list[nn.Module] = [
            nn.Linear(in_features, channels[0] * sides[0] ** 2),
            nn.Unflatten(-1, (channels[0], sides[0], sides[0])),
        ]
        maps, doubled = (*channels, out_channels), itertools.pairwise(sides)
        for (fan_in, fan_out), (small, large) in zip(itertools.pairwise(maps), doubled, strict=True):
            spare = large - (2 * small - 1)
            convolution = nn.ConvTranspose2d(fan_in, fan_out, 3, stride=2, padding=1, output_padding=spare)
            layers += [nn.ReLU(), convolution]
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def config(self) -> dict[str, Any]:
        """Constructor arguments by name."""
        return {"*": list(self.sizes), "side": self.side, "out_channels": self.out_channels}

    @property
    def out_features(self) -> int:
        """Width of the features it returns."""
        return self.out_channels * self.side**2

    def forward(self, z: Tensor) -> Tensor:
        """Features (*batch, out_features) of z."""
        return on_rows(self.layers, z)


def _check_sizes(channels: Sequence[int], **sizes: int) -> None:
    if not channels:
        raise InputError("give at least one number of channels")
    for name, value in [*(("each of the channels", number) for number in channels), *sizes.items()]:
        check_integer(name, value)


def _halved(side: int, times: int) -> list[int]:
    """The side, then the side after each halving, rounded up."""
    return list(itertools.accumulate(range(times), lambda left, _: (left + 1) // 2, initial=side))
