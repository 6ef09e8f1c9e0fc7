"""Bernoulli likelihood for binary data, and the cross-entropy of grey values."""

from pyro.distributions import Bernoulli, Independent, constraints
from torch import Tensor, nn

from pyrovae.likelihoods.base import Likelihood, gram


class BernoulliLikelihood(Likelihood):
    """p(x|z) = ∏_i Bernoulli(x_i; sigmoid(l_i(z))) for x in {0, 1}ⁿ: −log p is the cross-entropy.

    The cross-entropy −Σ_i [x_i log p_i + (1 − x_i) log(1 − p_i)] is defined for grey values too. But exp of its
    negative does not integrate to 1 over [0, 1]ⁿ, so it does not bound log p(x).

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
        soft_targets: take x in [0, 1]ⁿ; ``is_density`` is then False, and reports speak of a cross-entropy bound.
            Without it, :func:`~pyrovae.fit` and the evaluations refuse grey values.
    """

    support = (
        "0 or 1",
        "binarise them, or use a GaussianLikelihood, a ContinuousBernoulliLikelihood in [0, 1], or "
        "BernoulliLikelihood(…, soft_targets=True) for their cross-entropy",
    )

    def __init__(self, in_features: int, n: int, soft_targets: bool = False) -> None:
        super().__init__(in_features, n)
        self.soft_targets = soft_targets
        self.is_density = not soft_targets
        if soft_targets:
            self.support = "in [0, 1]", "scale them"
        self.logits_head = nn.Linear(in_features, n)

    def forward(self, features: Tensor) -> Independent:
        """p(x|z) for features (*batch, in_features)."""
        distribution = SoftTargetBernoulli if self.soft_targets else Bernoulli
        return distribution(logits=self.logits_head(features)).to_event(1)

    def fisher(self, features: Tensor, jacobian: Tensor, observed: Tensor | None = None) -> Tensor:
        """Σ_i p_i (1 − p_i) ∂l_i ∂l_iᵀ; see :meth:`Likelihood.fisher`."""
        p = self.logits_head(features).sigmoid()
        return gram(self.logits_head.weight @ jacobian, p * (1 - p), observed)

    def in_support(self, x: Tensor) -> Tensor:
        """Which values of x (num, n) are 0 or 1, or soft targets between them."""
        return (x >= 0) & (x <= 1) if self.soft_targets else (x == 0) | (x == 1)


class SoftTargetBernoulli(Bernoulli):
    """The cross-entropy of values in [0, 1]. Its draws are binary, its mean is grey."""

    support = constraints.unit_interval
