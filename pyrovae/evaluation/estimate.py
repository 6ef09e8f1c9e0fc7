"""A quantity estimated for each datum, with its errors from the data and from the draws."""

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from pyrovae.evaluation._pareto import reliable_below
from pyrovae.programs import cannot_run

_SHARE_OF_BAD = 0.1
_LEAST_SHARE = 2 / 3
"""Least effective share of annealed chains. Starts 10 to 10,000 times too narrow or too wide had a smaller one."""

_HEAVIEST = 0.95
"""Largest tail shape k̂ from which a bias is extrapolated: the factor is then 27; at 1 it would be infinite."""
_UNKNOWN = 0.7
"""What stands for a k̂ that too few draws leave unknown."""


def mean_and_stderr(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over draws (num_samples, num) and its standard error, NaN for a single draw; each of shape (num,)."""
    mean = draws.mean(0)
    spread = draws.std(0) if len(draws) > 1 else torch.full_like(mean, math.nan)
    return mean, spread / math.sqrt(len(draws))


def check_numbers(per_datum: Tensor, x: Tensor) -> None:
    """Raise an InputError that names the first datum of x with a NaN value (num,)."""
    if per_datum.isnan().any():
        row = int(per_datum.isnan().nonzero()[0])
        reason = f"log p(x, z) or log q(z|x) is not a number at row {row}; check the scales and the support of x"
        raise cannot_run(x, ValueError(reason))


@dataclass(frozen=True, repr=False)
class Estimate:
    """A quantity in nats per datum, estimated for each datum of a sample.

    Attributes:
        per_datum: shape (num,), in float64 on the CPU.
        stderr_per_datum: standard error of each from the draws of z, shape (num,); 0 where the value is exact, NaN
            where the error is unknown.
    """

    per_datum: Tensor
    stderr_per_datum: Tensor

    @property
    def mean(self) -> float:
        """Mean over the data."""
        return self.per_datum.mean().item()

    @property
    def stderr(self) -> float:
        """Standard error of the mean from both sources: the standard deviation of the estimates over √num."""
        return (self.per_datum.std() / math.sqrt(len(self.per_datum))).item() if len(self.per_datum) > 1 else math.nan

    @property
    def stderr_data(self) -> float:
        """Standard error of the mean from the choice of data: ``stderr`` without the part from the draws of z.

        0 if the draws alone explain the spread of the estimates.
        """
        of_draws = self.stderr_monte_carlo
        return math.sqrt(max(self.stderr**2 - (0.0 if math.isnan(of_draws) else of_draws**2), 0.0))

    @property
    def stderr_monte_carlo(self) -> float:
        """Standard error of the mean from the draws of z."""
        return (self.stderr_per_datum.square().sum().sqrt() / len(self.per_datum)).item()

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The difference of two estimates with independent draws, datum by datum."""
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
    """On which side of log p(x) an estimate lies in expectation: a lower or an upper bound."""

    LOWER = "lower"
    UPPER = "upper"


_SIGNS = {Bound.LOWER: "≥", Bound.UPPER: "≤", None: "="}


class Step(StrEnum):
    """How far ``method="auto"`` went for a datum."""

    GUIDE = "guide"
    REFINED = "refined"
    ANNEALED = "annealed"
    PRIOR = "prior"


class UnreliableEstimateWarning(UserWarning):
    """For more than a tenth of the data, log p(x) is unreliable and may be far too low."""


@dataclass(frozen=True, repr=False)
class LogMarginal(Estimate):
    """Estimates of log p(x) in nats per datum.

    Attributes:
        per_datum: shape (num,), in float64 on the CPU.
        stderr_per_datum: Monte Carlo standard error of each, shape (num,), corrected for a heavy tail if k̂ is above ½.
            NaN for chains that run back from one draw of the posterior, since they are not independent.
        num_samples: draws, or chains, for each datum.
        effective_sample_size: (Σ w)² / Σ w² of each datum's weights, shape (num,).
        gain_of_doubling: how much the second half of the draws added to each estimate, shape (num,). More draws would
            add about as much again if the bias falls as 1/num_samples, and more if it falls more slowly.
        pareto_k: shape k̂ of the tail of each datum's weights, shape (num,). Above min(1 − 1/log₁₀ K, 0.7) the estimate
            and its standard error are unreliable. NaN below 25 draws.
        acceptance: share of annealing's transitions that were accepted, shape (num,).
        quadrature_error: for a grid, the change of each estimate with half the points along each dimension, shape
            (num,); None where z was sampled. A grid has no Monte Carlo error; the fields about draws are NaN.
        bound: on which side of log p(x) the estimates lie in expectation, ``"lower"`` or ``"upper"``; None for a grid.
        steps: for ``method="auto"``, the last step for each datum; otherwise empty.
        doubtful: for ``method="auto"``, whether a datum's last step is unreliable, shape (num,): k̂ is above 0.7, twice
            the temperatures changed the annealed value by more than 0.5 nats, draws from the prior found more, or the
            search for modes did not end. Otherwise None.
        is_density: whether p(x|z) is a probability or a density of x. If not (a Bernoulli with soft targets), these are
            estimates of log ∫ p(z) exp(−cross-entropy(x, z)) dz, which cannot be compared with any log p(x).
    """

    num_samples: int
    effective_sample_size: Tensor
    gain_of_doubling: Tensor
    pareto_k: Tensor
    acceptance: Tensor | None = None
    quadrature_error: Tensor | None = None
    bound: Bound | None = Bound.LOWER
    is_density: bool = True
    steps: tuple[Step, ...] = ()
    doubtful: Tensor | None = None

    @classmethod
    def exact(cls, per_datum: Tensor, quadrature_error: Tensor | None = None) -> "LogMarginal":
        """An estimate from values without Monte Carlo error, shape (num,): in closed form or from a grid."""
        per_datum = per_datum.double().cpu()
        unknown = torch.full_like(per_datum, math.nan)
        no_error = torch.zeros_like(per_datum)
        return cls(per_datum, no_error, 0, unknown, unknown, unknown, quadrature_error=quadrature_error, bound=None)

    @property
    def unreliable(self) -> Tensor:
        """Which estimates are unreliable, shape (num,): ``doubtful``, or k̂ too large for the number of draws.

        Annealed ones, too, whose chains have an effective number below two thirds: they start too far from p(z|x).
        """
        if self.doubtful is not None:
            return self.doubtful
        bad = self.pareto_k > reliable_below(max(self.num_samples, 2))
        return bad if self.acceptance is None else bad | (self.effective_sample_size < _LEAST_SHARE * self.num_samples)

    @property
    def has_too_few_draws(self) -> bool:
        """Whether a single chain, or fewer than 25 draws of the guide, do not show what they missed."""
        if self.bound is not Bound.LOWER or self.doubtful is not None:
            return False
        return self.num_samples == 1 or (self.acceptance is None and bool(self.pareto_k.isnan().any()))

    @property
    def mostly_unreliable(self) -> bool:
        """Whether more than a tenth of the data are unreliable. A few are by chance."""
        return self.unreliable.double().mean().item() > _SHARE_OF_BAD

    @property
    def bias_per_datum(self) -> Tensor:
        """Estimated distance of each from log p(x), shape (num,), from the gain of doubling; noise can make it < 0.

        If the bias of K draws falls as K^−α, it equals the gain over 2^α − 1. Weights with finite variance have α = 1,
        and so has annealing in its temperatures. The mean of K weights with a tail of shape k > ½ is off by about K^−(1
        − k) in units of a stable law of index 1/k; the bias of its logarithm is that to the power 1/k, so α = (1 −
        k)/k. An unknown k̂, of fewer than 25 draws, is taken as 0.7. Exact values have 0.
        """
        k = self.pareto_k.nan_to_num(nan=_UNKNOWN, posinf=1.0)
        if self.steps:
            k[[step is Step.ANNEALED for step in self.steps]] = 0.5
        k = k.clamp(0.5, _HEAVIEST)
        return self.gain_of_doubling.nan_to_num() / (2 ** ((1 - k) / k) - 1)

    def __str__(self) -> str:
        errors = f"± {self.stderr_data:.2g} (which data), ± {self.stderr_monte_carlo:.2g} (Monte Carlo)"
        if math.isnan(self.stderr_monte_carlo):
            errors = f"± {self.stderr:.2g} (data and draws)"
        if self.quadrature_error is not None:
            errors = f"± {self.stderr_data:.2g} (which data), ± {self.quadrature_error.mean().item():.2g} (grid)"
        num_bad = int(self.unreliable.sum())
        bad = f", {num_bad} unreliable" if num_bad else ""
        counts = [f"{n} {step}" for step in Step if (n := self.steps.count(step)) and step != Step.GUIDE]
        bad = f" ({', '.join(counts)}){bad}" if counts else bad
        quantity = "log p(x)" if self.is_density else "cross-entropy bound (no density, not log p(x))"
        value = f"{quantity} {_SIGNS[self.bound]} {self.mean:.6g}"
        return f"{value} {errors} nats per datum, {len(self.per_datum)} data{bad}"
