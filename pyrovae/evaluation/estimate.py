"""A quantity estimated for each datum, with the errors due to the data and to the draws."""

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from pyrovae.evaluation._pareto import reliable_below
from pyrovae.programs import cannot_run

_SHARE_OF_BAD = 0.1

_HEAVIEST = 0.95
"""Largest tail shape k̂ that a bias is extrapolated from: the factor is then 27, and would be infinite at 1."""


def mean_and_stderr(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over draws (num_samples, num) and its standard error, NaN for a single draw; each of shape (num,)."""
    mean = draws.mean(0)
    spread = draws.std(0) if len(draws) > 1 else torch.full_like(mean, math.nan)
    return mean, spread / math.sqrt(len(draws))


def check_numbers(per_datum: Tensor, x: Tensor) -> None:
    """Raise an InputError that names the first datum of x whose value (num,) is NaN."""
    if per_datum.isnan().any():
        row = int(per_datum.isnan().nonzero()[0])
        reason = f"log p(x, z) or log q(z|x) is not a number at row {row}; look at the scales, and at the support of x"
        raise cannot_run(x, ValueError(reason))


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


class Step(StrEnum):
    """How far ``method="auto"`` went for a datum."""

    GUIDE = "guide"
    REFINED = "refined"
    ANNEALED = "annealed"
    PRIOR = "prior"


class UnreliableEstimateWarning(UserWarning):
    """For more than a tenth of the data log p(x) cannot be trusted, and may be far too low."""


@dataclass(frozen=True, repr=False)
class LogMarginal(Estimate):
    """Estimates of log p(x) in nats per datum.

    Attributes:
        per_datum: shape (num,), in float64 on the CPU.
        stderr_per_datum: Monte Carlo standard error of each, shape (num,), that of a heavy tail where k̂ is above ½;
            NaN, as all that needs independent draws, where chains go back from one draw of the posterior.
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
        steps: of ``method="auto"``, how far it went for each datum, else empty.
        doubtful: of ``method="auto"``, whether a datum's last step cannot be trusted, shape (num,): k̂ is above 0.7,
            twice the temperatures moved the annealed value by more than 0.5 nats, draws from the prior found more, or
            the search for modes did not end. Else None.
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
    steps: tuple[Step, ...] = ()
    doubtful: Tensor | None = None

    @classmethod
    def exact(cls, per_datum: Tensor, quadrature_error: Tensor | None = None) -> "LogMarginal":
        """Values without Monte Carlo error, shape (num,): known in closed form, or integrated on a grid."""
        per_datum = per_datum.double().cpu()
        unknown = torch.full_like(per_datum, math.nan)
        no_error = torch.zeros_like(per_datum)
        return cls(per_datum, no_error, 0, unknown, unknown, unknown, quadrature_error=quadrature_error, bound=None)

    @property
    def unreliable(self) -> Tensor:
        """Which cannot be trusted, shape (num,): ``doubtful``, or k̂ above what the number of draws allows."""
        if self.doubtful is not None:
            return self.doubtful
        return self.pareto_k > reliable_below(max(self.num_samples, 2))

    @property
    def mostly_unreliable(self) -> bool:
        """Whether more than a tenth of the data are unreliable, which deserves a warning: a few are by chance."""
        return self.unreliable.double().mean().item() > _SHARE_OF_BAD

    @property
    def bias_per_datum(self) -> Tensor:
        """Estimates of how far each lies from log p(x), on its side of it, shape (num,), from the gain of doubling.

        If the bias of K draws falls as K^−α, it is the gain over 2^α − 1. Weights with a variance have α = 1, as
        annealing has in its temperatures; the mean of K weights with a tail of shape k is off by about K^−(1 − k) in
        units of a stable law of index 1/k, and its logarithm's bias is that to the power 1/k. 0 of exact values.
        """
        k = self.pareto_k.nan_to_num(nan=0.5, posinf=1.0).clamp(0.5, _HEAVIEST)
        return self.gain_of_doubling.nan_to_num().clamp_min(0) / (2 ** ((1 - k) / k) - 1)

    def __str__(self) -> str:
        errors = f"± {self.stderr_data:.2g} (which data), ± {self.stderr_monte_carlo:.2g} (Monte Carlo)"
        if math.isnan(self.stderr_monte_carlo):
            errors = f"± {self.stderr:.2g} (data and draws)"
        if self.quadrature_error is not None:
            errors = f"± {self.stderr_data:.2g} (which data), ± {self.quadrature_error.mean().item():.2g} (grid)"
        num_bad = int(self.unreliable.sum())
        what = "with a bad k̂" if self.doubtful is None else "not to be trusted"
        bad = f", {num_bad} {what}" if num_bad else ""
        counts = [f"{n} {step}" for step in Step if (n := self.steps.count(step)) and step != Step.GUIDE]
        bad = f" ({', '.join(counts)}){bad}" if counts else bad
        quantity = "log p(x)" if self.is_density else "cross-entropy bound (no density, not log p(x))"
        value = f"{quantity} {_SIGNS[self.bound]} {self.mean:.6g}"
        return f"{value} {errors} nats per datum, {len(self.per_datum)} data{bad}"
