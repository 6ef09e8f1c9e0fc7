"""Continuous Bernoulli likelihood for grey values."""

from pyro.distributions import Independent
from torch import Tensor, nn

from pyrovae.distributions import ContinuousBernoulli
from pyrovae.likelihoods.base import Likelihood, gram


class ContinuousBernoulliLikelihood(Likelihood):
    """p(x|z) = ∏_i l_i exp(l_i x_i) / (exp(l_i) − 1) on [0, 1]ⁿ, with logits l(z): the normalised cross-entropy.

    Loaiza-Ganem & Cunningham 2019; see :class:`~pyrovae.distributions.ContinuousBernoulli`.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
    """

    support = "in [0, 1]", "scale them"
    is_continuous = True

    def __init__(self, in_features: int, n: int) -> None:
        super().__init__(in_features, n)
        self.logits_head = nn.Linear(in_features, n)

    def forward(self, features: Tensor) -> Independent:
        """p(x|z) for features (*batch, in_features)."""
        return ContinuousBernoulli(self.logits_head(features)).to_event(1)

    def fisher(self, features: Tensor, jacobian: Tensor, observed: Tensor | None = None) -> Tensor:
        """Σ_i Var[x_i] ∂l_i ∂l_iᵀ; see :meth:`Likelihood.fisher`."""
        variance = ContinuousBernoulli(self.logits_head(features)).variance
        return gram(self.logits_head.weight @ jacobian, variance, observed)

    def in_support(self, x: Tensor) -> Tensor:
        """Which values of x (num, n) are grey values."""
        return (x >= 0) & (x <= 1)
