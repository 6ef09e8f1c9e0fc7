"""Negative-binomial likelihood for counts that vary more than a Poisson's."""

import math
from collections.abc import Sequence

import torch
from pyro.distributions import Independent
from torch import Tensor, nn

from pyrovae.distributions import NegativeBinomial
from pyrovae.likelihoods._counts import CountLikelihood
from pyrovae.likelihoods.base import gram

_BOUND = 20.0
"""Largest |log α|: beyond it, float32 counts cannot distinguish the distribution from its limit."""
_INITIAL_DISPERSION = 0.1


class NegativeBinomialLikelihood(CountLikelihood):
    """p(x|z) = ∏_i NegativeBinomial(x_i; μ_i(z), α_i): counts of variance μ + α μ², α one learned number per channel.

    Log p(x|z) is a log-probability in nats, all constants included. For α → 0 it is a
    :class:`~pyrovae.PoissonLikelihood`; log α is limited to (−20, 20) and starts at log 0.1.

    Args:
        in_features: width of the decoder's features.
        n: number of channels.
        initial_mean: initial value of the means, a number or one per channel; the data's means are a good choice.

    Example:
        >>> import torch
        >>> likelihood = NegativeBinomialLikelihood(8, 3, initial_mean=[1.0, 10.0, 100.0])
        >>> likelihood.dispersion, likelihood(torch.zeros(5, 8)).batch_shape
        (tensor([0.1000, 0.1000, 0.1000], grad_fn=<ExpBackward0>), torch.Size([5]))
    """

    def __init__(self, in_features: int, n: int, initial_mean: float | Sequence[float] = 1.0) -> None:
        super().__init__(in_features, n, initial_mean)
        self.raw_dispersion = nn.Parameter(torch.empty(n))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset α to its initial value."""
        nn.init.constant_(self.raw_dispersion, _BOUND * math.atanh(math.log(_INITIAL_DISPERSION) / _BOUND))

    @property
    def log_dispersion(self) -> Tensor:
        """Log α, shape (n,)."""
        return _BOUND * torch.tanh(self.raw_dispersion / _BOUND)

    @property
    def dispersion(self) -> Tensor:
        """Dispersion α, shape (n,). The variance given z is μ + α μ²."""
        return self.log_dispersion.exp()

    def forward(self, features: Tensor) -> Independent:
        """p(x|z) for features (*batch, in_features)."""
        return NegativeBinomial(self.log_mean(features), -self.log_dispersion).to_event(1)

    def fisher(self, features: Tensor, jacobian: Tensor, observed: Tensor | None = None) -> Tensor:
        """Σ_i μ_i/(1 + α_i μ_i) ∂log μ_i ∂log μ_iᵀ; see :meth:`Likelihood.fisher`."""
        log_mean = self.log_mean(features)
        weights = (log_mean - torch.nn.functional.softplus(log_mean + self.log_dispersion)).exp()
        return gram(self.log_mean_head.weight @ jacobian, weights, observed)
