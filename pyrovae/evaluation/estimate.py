"""A quantity estimated for each datum, with its two errors told apart."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, repr=False)
class Estimate:
    """A quantity in nats per datum, estimated for each datum of a sample.

    Attributes:
        per_datum: shape (num,), in float64 on the CPU.
        stderr_per_datum: standard error of each due to the draws of z it was estimated with, shape (num,); 0 where
            it is exact, NaN where it is not known.
    """

    per_datum: Tensor
    stderr_per_datum: Tensor

    @property
    def mean(self) -> float:
        """Mean over the data."""
        return self.per_datum.mean().item()

    @property
    def stderr(self) -> float:
        """Standard error of the mean from both causes: the spread of the estimates over √num."""
        return (self.per_datum.std() / math.sqrt(len(self.per_datum))).item() if len(self.per_datum) > 1 else math.nan

    @property
    def stderr_data(self) -> float:
        """Standard error of the mean due to which data were drawn: what the draws of z added is taken off.

        0 where the draws alone would spread the estimates as much.
        """
        of_draws = self.stderr_monte_carlo
        return math.sqrt(max(self.stderr**2 - (0.0 if math.isnan(of_draws) else of_draws**2), 0.0))

    @property
    def stderr_monte_carlo(self) -> float:
        """Standard error of the mean due to how well each datum's value was estimated."""
        return (self.stderr_per_datum.square().sum().sqrt() / len(self.per_datum)).item()

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The difference datum by datum, of estimates made with draws of their own."""
        spread = (self.stderr_per_datum.square() + other.stderr_per_datum.square()).sqrt()
        return Estimate(self.per_datum - other.per_datum, spread)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __str__(self) -> str:
        return (
            f"{self.mean:.6g} ± {self.stderr_data:.2g} (which data), ± {self.stderr_monte_carlo:.2g} (Monte Carlo) "
            f"nats per datum, {len(self.per_datum)} data"
        )
