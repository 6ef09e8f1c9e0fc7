"""Poisson likelihood for counts."""

from pyro.distributions import Independent
from torch import Tensor

from pyrovae.distributions import Poisson
from pyrovae.likelihoods._counts import CountLikelihood
from pyrovae.likelihoods.base import gram


class PoissonLikelihood(CountLikelihood):
    """p(x|z) = ∏_i Poisson(x_i; μ_i(z)): counts of events that are independent given z, of variance μ.

    Log p(x|z) is a log-probability in nats, log x! included. Counts that vary more given z, as most do, need a
    :class:`~pyrovae.NegativeBinomialLikelihood`.

    Args:
        in_features: width of the decoder's features.
        n: number of channels.
        initial_mean: initial value of the means, a number or one per channel; the data's means are a good choice.

    Example:
        >>> import torch
        >>> likelihood = PoissonLikelihood(8, 3, initial_mean=[1.0, 10.0, 100.0])
        >>> likelihood(torch.zeros(5, 8)).log_prob(torch.ones(5, 3)).shape
        torch.Size([5])
    """

    def forward(self, features: Tensor) -> Independent:
        """p(x|z) for features (*batch, in_features)."""
        return Poisson(self.log_mean(features)).to_event(1)

    def fisher(self, features: Tensor, jacobian: Tensor, observed: Tensor | None = None) -> Tensor:
        """Σ_i μ_i ∂log μ_i ∂log μ_iᵀ; see :meth:`Likelihood.fisher`."""
        return gram(self.log_mean_head.weight @ jacobian, self.log_mean(features).exp(), observed)
