"""Bernoulli likelihood for binary data."""

from pyro.distributions import Bernoulli, Independent
from torch import Tensor, nn

from pyrovae.likelihoods.base import Likelihood


class BernoulliLikelihood(Likelihood):
    """p(x|z) = ∏_i Bernoulli(x_i; sigmoid(l_i(z))) for x in {0, 1}ⁿ: −log p is the cross-entropy."""

    def __init__(self, in_features: int, n: int) -> None:
        super().__init__(in_features, n)
        self.logits_head = nn.Linear(in_features, n)

    def forward(self, features: Tensor) -> Independent:
        """p(x|z) for features (*batch, in_features)."""
        return Bernoulli(logits=self.logits_head(features)).to_event(1)

    def check_support(self, name: str, x: Tensor) -> None:
        """Raise a ValueError that names the first value of x (num, n) that is neither 0 nor 1 (nor NaN)."""
        outside = (x != 0) & (x != 1) & ~x.isnan()
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            raise ValueError(
                f"{name} holds {x[row, column].item():g} at row {row}, column {column} (counted from 0), and a "
                "BernoulliLikelihood scores 0 and 1 alone; binarise the data, or use a GaussianLikelihood"
            )
