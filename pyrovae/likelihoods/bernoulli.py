"""Bernoulli likelihood for binary data, and the cross-entropy of grey values."""

import pyro.distributions as dist
from pyro.distributions import Independent, constraints
from torch import Tensor, nn

from pyrovae.likelihoods.base import Likelihood


class BernoulliLikelihood(Likelihood):
    """p(x|z) = ∏_i Bernoulli(x_i; sigmoid(l_i(z))) for x in {0, 1}ⁿ: −log p is the cross-entropy.

    The cross-entropy −Σ_i [x_i log p_i + (1 − x_i) log(1 − p_i)] can be worked out for grey values too, but
    exp of its negative does not integrate to 1 over [0, 1]ⁿ: what is then bounded is not log p(x).

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
        soft_targets: take x in [0, 1]ⁿ; ``is_density`` is then False, and reports speak of a cross-entropy bound.
            Without it, :func:`~pyrovae.fit` and the evaluations refuse grey values.
    """

    def __init__(self, in_features: int, n: int, soft_targets: bool = False) -> None:
        super().__init__(in_features, n)
        self.soft_targets = soft_targets
        self.is_density = not soft_targets
        self.logits_head = nn.Linear(in_features, n)

    def forward(self, features: Tensor) -> Independent:
        """p(x|z) for features (*batch, in_features)."""
        distribution = SoftTargetBernoulli if self.soft_targets else Bernoulli
        return distribution(logits=self.logits_head(features)).to_event(1)


class Bernoulli(dist.Bernoulli):
    """Pyro's, which says how to mend data other than 0 and 1."""

    def _validate_sample(self, value: Tensor) -> None:
        other = (value != 0) & (value != 1)
        if other.any():
            raise ValueError(
                f"a Bernoulli's data must be 0 or 1, and {int(other.sum())} values are not, such as "
                f"{value[other][0].item():.4g}; binarise them, take ContinuousBernoulliLikelihood, or "
                "BernoulliLikelihood with soft_targets=True for their cross-entropy"
            )
        super()._validate_sample(value)


class SoftTargetBernoulli(dist.Bernoulli):
    """The cross-entropy of values in [0, 1]; its draws are binary, its mean is grey."""

    support = constraints.unit_interval

    def _validate_sample(self, value: Tensor) -> None:
        if not ((value >= 0) & (value <= 1)).all():
            raise ValueError(
                f"soft targets must lie in [0, 1], not reach from {value.min().item():.4g} to "
                f"{value.max().item():.4g}; scale them"
            )
        super()._validate_sample(value)
