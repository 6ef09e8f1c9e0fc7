"""Networks for series: T steps of k numbers each, step by step in one row."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrovae.errors import InputError, check_integer
from pyrovae.nn._modules import ConfigurableModule, LocHead


def by_step(row: Tensor, num_steps: int) -> Tensor:
    """A row (*batch, T·k) as steps (*batch, T, k).

    Raises:
        InputError: T does not divide the row.
    """
    if row.shape[-1] % num_steps:
        raise InputError(f"a series of {num_steps} steps cannot have {row.shape[-1]} numbers")
    steps: Tensor = row.unflatten(-1, (num_steps, -1))
    return steps


class Stepwise(ConfigurableModule):
    """One network for every step, or for a window around it: rows (*batch, T·k) -> (*batch, T·h).

    Args:
        network: module from (*batch, (2·window + 1)·k) to (*batch, h).
        num_steps: T.
        window: number of steps that the network sees on either side; beyond the ends they are 0.

    Example:
        >>> from pyrovae.nn import MLP
        >>> Stepwise(MLP(6, 8), num_steps=5, window=1)(torch.zeros(3, 10)).shape  # k = 2
        torch.Size([3, 40])
    """

    def __init__(self, network: nn.Module, num_steps: int, window: int = 0) -> None:
        super().__init__()
        check_integer("num_steps", num_steps)
        check_integer("window", window, least=0)
        self.network, self.num_steps, self.window = network, num_steps, window

    def forward(self, x: Tensor) -> Tensor:
        """Features (*batch, T·h)."""
        steps = by_step(x, self.num_steps)
        if self.window:
            padded = F.pad(steps, (0, 0, self.window, self.window))
            steps = padded.unfold(-2, 2 * self.window + 1, 1).mT.flatten(-2)
        features: Tensor = self.network(steps)
        return features.flatten(-2)


class StepwiseLocHead(LocHead):
    """A :class:`LocHead` for every step, with the same numbers: (*batch, T·h) -> (*batch, T·k).

    Args:
        in_features: T·h.
        out_features: T·k.
        num_steps: T.
    """

    def __init__(self, in_features: int, out_features: int, num_steps: int) -> None:
        check_integer("num_steps", num_steps)
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if value % num_steps:
                raise InputError(f"{name} must be a multiple of {num_steps}, the number of steps, not {value}")
        super().__init__(in_features // num_steps, out_features // num_steps)
        self.num_steps = num_steps

    def forward(self, x: Tensor) -> Tensor:
        """Means (*batch, T·k) of features (*batch, T·h)."""
        means: Tensor = super().forward(by_step(x, self.num_steps)).flatten(-2)
        return means

    @property
    def matrix(self) -> Tensor:
        """The map's matrix for the whole row, shape (T·k, T·h): O(T²) memory."""
        matrix: Tensor = torch.block_diag(*[super().matrix] * self.num_steps)
        return matrix


class RecurrentEncoder(ConfigurableModule):
    """A gated recurrent net in both directions: series (*batch, T·n) -> (*batch, T·2·hidden), all steps seen by each.

    The recurrence is PyTorch's own loop over the steps.

    Args:
        in_channels: n, numbers per step.
        hidden: width of the state in each direction.
        num_steps: T.
        num_layers: number of stacked nets.

    Example:
        >>> RecurrentEncoder(2, 8, num_steps=5)(torch.zeros(3, 10)).shape
        torch.Size([3, 80])
    """

    def __init__(self, in_channels: int, hidden: int, num_steps: int, num_layers: int = 1) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("hidden", hidden), ("num_steps", num_steps)):
            check_integer(name, value)
        check_integer("num_layers", num_layers)
        self.in_channels, self.hidden, self.num_steps, self.num_layers = in_channels, hidden, num_steps, num_layers
        self.net = nn.GRU(in_channels, hidden, num_layers, batch_first=True, bidirectional=True)

    @property
    def out_features(self) -> int:
        """Width T·2·hidden of the features it returns."""
        return 2 * self.hidden * self.num_steps

    def forward(self, x: Tensor) -> Tensor:
        """Features (*batch, T·2·hidden) of series x."""
        steps = by_step(x, self.num_steps)
        features: Tensor = self.net(steps.flatten(0, -3) if steps.dim() > 3 else steps)[0]
        return features.reshape(*x.shape[:-1], -1)


class DilatedConvolutionEncoder(ConfigurableModule):
    """Dilated convolutions along the steps: series (*batch, T·n) -> (*batch, T·width).

    Layer l sees 2ˡ steps on either side of its input: after L layers a step sees 2ᴸ − 1 steps on either side. Each
    layer adds its output, after a ReLU, to its input.

    Args:
        in_channels: n, numbers per step.
        width: numbers per step after each layer.
        num_steps: T.
        num_layers: L; by default enough for each step to see the whole series.

    Example:
        >>> encoder = DilatedConvolutionEncoder(2, 8, num_steps=5)
        >>> encoder.num_layers, encoder(torch.zeros(3, 10)).shape
        (3, torch.Size([3, 40]))
    """

    def __init__(self, in_channels: int, width: int, num_steps: int, num_layers: int | None = None) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("width", width), ("num_steps", num_steps)):
            check_integer(name, value)
        self.num_layers = (num_steps - 1).bit_length() if num_layers is None else num_layers
        check_integer("num_layers", self.num_layers, least=0)
        self.in_channels, self.width, self.num_steps = in_channels, width, num_steps
        self.lift = nn.Linear(in_channels, width)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=2**level, dilation=2**level) for level in range(self.num_layers)
        )

    @property
    def out_features(self) -> int:
        """Width T·width of the features it returns."""
        return self.width * self.num_steps

    def forward(self, x: Tensor) -> Tensor:
        """Features (*batch, T·width) of series x."""
        steps = self.lift(by_step(x, self.num_steps)).mT
        features = steps.reshape(-1, *steps.shape[-2:])
        for layer in self.layers:
            features = features + layer(features.relu())
        rows: Tensor = features.mT.reshape(*x.shape[:-1], -1)
        return rows
