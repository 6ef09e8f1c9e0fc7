"""Categorical likelihood for classes and quantised levels."""

import pyro.distributions as dist
import torch
from pyro.distributions import Independent, TransformedDistribution
from torch import Tensor, nn
from torch.distributions.transforms import ReshapeTransform

from pyrovae.likelihoods.base import Likelihood


class CategoricalLikelihood(Likelihood):
    """p(x|z) = ∏_i softmax(l_i(z))[x_i]: −log p is the cross-entropy over classes, −log q of the true class.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
        num_classes: number K of classes of each variable, at least 2.
        one_hot: whether x holds n/K variables one after the other, each a block of K entries of which one is 1 and
            the others are 0; otherwise it holds n variables, each a number 0, …, K − 1. Blocks are the better
            input of an encoder where classes have no order.
    """

    def __init__(self, in_features: int, n: int, num_classes: int, one_hot: bool = False) -> None:
        super().__init__(in_features, n)
        if not isinstance(num_classes, int) or num_classes < 2:
            raise ValueError(f"num_classes must be an integer of at least 2, not {num_classes!r}")
        if one_hot and n % num_classes:
            raise ValueError(f"one-hot data of {n} entries are no whole blocks of {num_classes} classes")
        self.num_classes = num_classes
        self.one_hot = one_hot
        self.logits_head = nn.Linear(in_features, n if one_hot else n * num_classes)

    def forward(self, features: Tensor) -> Independent | TransformedDistribution:
        """p(x|z) for features (*batch, in_features)."""
        logits = self.logits_head(features).unflatten(-1, (-1, self.num_classes))
        if not self.one_hot:
            return Categorical(logits=logits).to_event(1)
        blocks = OneHotCategorical(logits=logits).to_event(1)
        return TransformedDistribution(blocks, ReshapeTransform(logits.shape[-2:], torch.Size([self.n])))


class Categorical(dist.Categorical):
    """Pyro's, whose draws have the parameters' dtype, as data do, and which says how to mend other data."""

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  # as in PyTorch
        """Draws of classes, shape (*sample, *batch)."""
        return super().sample(sample_shape).to(self.logits.dtype)

    def _validate_sample(self, value: Tensor) -> None:
        classes = self.logits.shape[-1]
        other = (value < 0) | (value >= classes) | (value % 1 != 0)
        if other.any():
            raise ValueError(
                f"a categorical's data must be classes 0, …, {classes - 1}, and {int(other.sum())} values are not, "
                f"such as {value[other][0].item():.4g}; number the classes from 0, or give num_classes"
            )
        super()._validate_sample(value)


class OneHotCategorical(dist.OneHotCategorical):
    """Pyro's, which says how to mend other data."""

    def _validate_sample(self, value: Tensor) -> None:
        other = (((value != 0) & (value != 1)).any(-1)) | (value.sum(-1) != 1)
        if other.any():
            raise ValueError(
                f"one-hot data must have a single 1 in each block of {value.shape[-1]}, and {int(other.sum())} blocks "
                "do not; encode them with torch.nn.functional.one_hot"
            )
        super()._validate_sample(value)
