"""Distributions of counts by the logarithm of their mean, exact up to rounding for every mean and dispersion."""

import math

import torch
import torch.nn.functional as F
from pyro.distributions import Gamma, TorchDistribution, constraints
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_SERIES_ABOVE = 15.0


class Poisson(TorchDistribution):
    """p(x) = μˣ e⁻ᵘ / x! on x = 0, 1, 2, …, with log μ given.

    Log p(x) = −x φ(log x − log μ) − ½ log 2πx − E(x), with φ(t) = t + e⁻ᵗ − 1 and E the error of Stirling's formula
    (Loader 2000, "Fast and accurate computation of binomial probabilities"): no large terms cancel. At a mean of 10⁶
    the textbook formula is wrong by a nat in float32.

    Args:
        log_mean: log μ, any shape.
        validate_args: whether to check the values.

    Example:
        >>> Poisson(torch.tensor(2.0).log()).log_prob(torch.tensor([0.0, 1.0])).exp()
        tensor([0.1353, 0.2707])
    """

    arg_constraints = {"log_mean": constraints.real}  # noqa: RUF012  # as in PyTorch
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor, validate_args: bool | None = None) -> None:
        self.log_mean = log_mean
        super().__init__(log_mean.shape, torch.Size(), validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "Poisson":
        """The same distribution with its batch shape broadcast to ``batch_shape``."""
        return Poisson(self.log_mean.expand(batch_shape), validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, shape (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        is_zero, x = value == 0, torch.where(value == 0, 1.0, value)
        above = -x * _half_deviance(x.log() - self.log_mean) - 0.5 * x.log() - _HALF_LOG_2PI - stirling_error(x)
        return torch.where(is_zero, -self.mean, above)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  # as in PyTorch
        """Draws of counts, shape (*sample, *batch)."""
        with torch.no_grad():
            return torch.poisson(self.mean.expand(self._extended_shape(sample_shape)))

    @property
    def mean(self) -> Tensor:
        """μ, shape *batch."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """μ, shape *batch."""
        return self.mean


class NegativeBinomial(TorchDistribution):
    """Counts of mean μ and variance μ + μ²/r: a Poisson whose mean is drawn from a gamma distribution of shape r.

    p(x) = Γ(x + r) / (Γ(r) x!) · (r/(r + μ))ʳ (μ/(r + μ))ˣ on x = 0, 1, 2, …; for r → ∞ it becomes the Poisson.
    Computed as in :class:`Poisson`, without cancellation in that limit.

    Args:
        log_mean: log μ, any shape.
        log_concentration: log r, a shape that broadcasts with it.
        validate_args: whether to check the values.

    Example:
        >>> p = NegativeBinomial(torch.tensor(2.0).log(), torch.tensor(4.0).log())
        >>> p.variance, p.log_prob(torch.tensor(0.0)).exp()  # 2 + 2²/4, and (4/(4 + 2))⁴
        (tensor(3.), tensor(0.1975))
    """

    arg_constraints = {"log_mean": constraints.real, "log_concentration": constraints.real}  # noqa: RUF012
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor, log_concentration: Tensor, validate_args: bool | None = None) -> None:
        self.log_mean, self.log_concentration = torch.broadcast_tensors(log_mean, log_concentration)
        super().__init__(self.log_mean.shape, torch.Size(), validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "NegativeBinomial":
        """The same distribution with its batch shape broadcast to ``batch_shape``."""
        parts = self.log_mean.expand(batch_shape), self.log_concentration.expand(batch_shape)
        return NegativeBinomial(*parts, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, shape (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        log_r, r = self.log_concentration, self.log_concentration.exp()
        is_zero, x = value == 0, torch.where(value == 0, 1.0, value)
        log_x, beside = x.log(), F.softplus(self.log_mean - log_r)  # log(1 + μ/r)
        gap = beside - F.softplus(log_x - log_r)  # log((r + μ)/(r + x))
        above = -r * _half_deviance(gap) - x * _half_deviance(log_x - self.log_mean + gap)
        above = above + stirling_error(r + x) - stirling_error(r) - stirling_error(x)
        above = above - 0.5 * (F.softplus(log_x - log_r) + log_x) - _HALF_LOG_2PI
        return torch.where(is_zero, -r * beside, above)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  # as in PyTorch
        """Draws of counts, shape (*sample, *batch)."""
        with torch.no_grad():
            r = self.log_concentration.exp()
            scatter = Gamma(r, r, validate_args=False).sample(torch.Size(sample_shape))
            return torch.poisson(self.mean * scatter)

    @property
    def mean(self) -> Tensor:
        """μ, shape *batch."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """μ + μ²/r, shape *batch."""
        return self.mean + (2 * self.log_mean - self.log_concentration).exp()


def stirling_error(a: Tensor) -> Tensor:
    """Log Γ(a + 1) − (a + ½) log a + a − ½ log 2π for a > 0: about 1/(12a), exact up to rounding for large a."""
    is_large = a > _SERIES_ABOVE
    small, inverse = torch.where(is_large, 1.0, a), torch.where(is_large, a, _SERIES_ABOVE).reciprocal()
    square = inverse.square()
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    return torch.where(is_large, series, torch.lgamma(small + 1) - (small + 0.5) * small.log() + small - _HALF_LOG_2PI)


def _half_deviance(t: Tensor) -> Tensor:
    """φ(t) = t + e⁻ᵗ − 1: about t²/2, never negative."""
    return t + torch.expm1(-t)
