"""What every likelihood is: a head on the decoder's features that returns p(x|z)."""

from abc import ABC, abstractmethod

from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.nn import ConfigurableModule


class Likelihood(ConfigurableModule, ABC):
    """Head that turns features (*batch, in_features) into p(x|z) with batch shape *batch, event shape (n,).

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.

    Attributes:
        is_density: whether log p(x|z) is a log-probability or a log-density of x, so that bounds of log p(x) can be
            compared; a cross-entropy with soft targets is not.
    """

    is_density = True

    def __init__(self, in_features: int, n: int) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("n", n)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        self.in_features = in_features
        self.n = n

    @abstractmethod
    def forward(self, features: Tensor) -> TorchDistribution:
        """p(x|z) for features (*batch, in_features)."""
