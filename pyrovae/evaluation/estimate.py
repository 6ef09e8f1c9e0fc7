"""A quantity estimated for each datum, with the errors due to the data and to the draws."""

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from pyrovae.evaluation._pareto import reliable_below

_SHARE_OF_BAD = 0.1


def mean_and_stderr(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over draws (num_samples, num) and its standard error, NaN for a single draw; each of shape (num,)."""
    mean = draws.mean(0)
    spread = draws.std(0) if len(draws) > 1 else torch.full_like(mean, math.nan)
    return mean, spread / math.sqrt(len(draws))


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
        """Standard error of the mean due to the choice of the data: ``stderr`` without the share of the draws of z.

        0 where the draws alone would spread the estimates as much.
        """
        of_draws = self.stderr_monte_carlo
        return math.sqrt(max(self.stderr**2 - (0.0 if math.isnan(of_draws) else of_draws**2), 0.0))

    @property
    def stderr_monte_carlo(self) -> float:
        """Standard error of the mean due to the draws of z."""
        return (self.stderr_per_datum.square().sum().sqrt() / len(self.per_datum)).item()

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The difference datum by datum, of two estimates with independent draws."""
        spread = (self.stderr_per_datum.square() + other.stderr_per_datum.square()).sqrt()
        return Estimate(self.per_datum - other.per_datum, spread)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __str__(self) -> str:
        return (
            f"{self.mean:.6g} ± {self.stderr_data:.2g} (which data), ± {self.stderr_monte_carlo:.2g} (Monte Carlo) "
            f"nats per datum, {len(self.per_datum)} data"
        )


class Bound(StrEnum):
    """On which side of log p(x) an estimate lies in expectation."""

    LOWER = "lower"
    UPPER = "upper"


_SIGNS = {Bound.LOWER: "≥", Bound.UPPER: "≤", None: "="}


class UnreliableEstimateWarning(UserWarning):
    """The importance weights of more than a tenth of the data have so heavy a tail that log p(x) may be far too low."""


@dataclass(frozen=True, repr=False)
class LogMarginal(Estimate):
    """Estimates of log p(x) in nats per datum.

    Attributes:
        per_datum: shape (num,), in float64 on the CPU.
        stderr_per_datum: Monte Carlo standard error of each, shape (num,); too small where the effective sample
            size is; NaN, as all that needs independent draws, where chains go back from one draw of the posterior.
        num_samples: draws, or chains, for each datum.
        effective_sample_size: (Σ w)² / Σ w² of each datum's weights, shape (num,).
        gain_of_doubling: what the second half of the draws added to each estimate, shape (num,). What more draws
            could add is about as much again if the bias falls as 1/num_samples, and more if slower.
        pareto_k: shape k̂ of the tail of each datum's weights, shape (num,): above min(1 − 1/log₁₀ K, 0.7) the
            estimate and its standard error cannot be trusted. NaN below 25 draws.
        acceptance: of annealing's transitions, the share accepted, shape (num,).
        quadrature_error: of a grid, how much halving its points along each dimension changes each estimate, shape
            (num,); None where z was sampled. A grid has no Monte Carlo error, and what concerns draws is NaN there.
        bound: on which side of log p(x) the estimates lie in expectation, ``"lower"`` or ``"upper"``; None of a grid.
        is_density: whether p(x|z) is a probability or a density of x. If not (a Bernoulli with soft targets), these
            are estimates of log ∫ p(z) exp(−cross-entropy(x, z)) dz, which no log p(x) can be compared with.
    """

    num_samples: int
    effective_sample_size: Tensor
    gain_of_doubling: Tensor
    pareto_k: Tensor
    acceptance: Tensor | None = None
    quadrature_error: Tensor | None = None
    bound: Bound | None = Bound.LOWER
    is_density: bool = True

    @classmethod
    def exact(cls, per_datum: Tensor, quadrature_error: Tensor | None = None) -> "LogMarginal":
        """Values without Monte Carlo error, shape (num,): known in closed form, or integrated on a grid."""
        per_datum = per_datum.double().cpu()
        unknown = torch.full_like(per_datum, math.nan)
        no_error = torch.zeros_like(per_datum)
        return cls(per_datum, no_error, 0, unknown, unknown, unknown, quadrature_error=quadrature_error, bound=None)

    @property
    def unreliable(self) -> Tensor:
        """Whether k̂ is above what the number of draws allows, shape (num,)."""
        return self.pareto_k > reliable_below(max(self.num_samples, 2))

    @property
    def mostly_unreliable(self) -> bool:
        """Whether more than a tenth of the data are unreliable, which deserves a warning: a few are by chance."""
        return self.unreliable.double().mean().item() > _SHARE_OF_BAD

    def __str__(self) -> str:
        errors = f"± {self.stderr_data:.2g} (which data), ± {self.stderr_monte_carlo:.2g} (Monte Carlo)"
        if math.isnan(self.stderr_monte_carlo):
            errors = f"± {self.stderr:.2g} (data and draws)"
        if self.quadrature_error is not None:
            errors = f"± {self.stderr_data:.2g} (which data), ± {self.quadrature_error.mean().item():.2g} (grid)"
        num_bad = int(self.unreliable.sum())
        bad = f", {num_bad} with a bad k̂" if num_bad else ""
        quantity = "log p(x)" if self.is_density else "cross-entropy bound (no density, not log p(x))"
        value = f"{quantity} {_SIGNS[self.bound]} {self.mean:.6g}"
        return f"{value} {errors} nats per datum, {len(self.per_datum)} data{bad}"
