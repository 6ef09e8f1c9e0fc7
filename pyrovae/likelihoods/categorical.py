"""Categorical likelihood for classes and quantised levels."""

import pyro.distributions as dist
import torch
from pyro.distributions import Independent, TransformedDistribution
from torch import Tensor, nn
from torch.distributions.transforms import ReshapeTransform

from pyrovae.errors import InputError, check_integer
from pyrovae.likelihoods.base import Likelihood, gram


class CategoricalLikelihood(Likelihood):
    """p(x|z) = ∏_i softmax(l_i(z))[x_i]: −log p is the cross-entropy over classes, −log q of the true class.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
        num_classes: number K of classes of each variable, at least 2.
        one_hot: whether x holds n/K variables one after the other, each a block of K entries with one 1 and zeros;
            otherwise it holds n variables, each a number 0, …, K − 1. Blocks are a better input for an encoder if
            classes have no order.
    """

    def __init__(self, in_features: int, n: int, num_classes: int, one_hot: bool = False) -> None:
        super().__init__(in_features, n)
        check_integer("num_classes", num_classes, 2)
        if one_hot and n % num_classes:
            raise InputError(f"one-hot data of {n} entries do not divide into blocks of {num_classes} classes")
        self.num_classes = num_classes
        self.one_hot = one_hot
        if one_hot:
            self.support = f"a single 1 in each block of {num_classes} and 0 beside it", "encode them one-hot"
        else:
            self.support = f"classes 0, …, {num_classes - 1}", "number the classes from 0, or give num_classes"
        self.logits_head = nn.Linear(in_features, n if one_hot else n * num_classes)

    def forward(self, features: Tensor) -> Independent | TransformedDistribution:
        """p(x|z) for features (*batch, in_features)."""
        logits = self.logits_head(features).unflatten(-1, (-1, self.num_classes))
        if not self.one_hot:
            return Categorical(logits=logits).to_event(1)
        blocks = dist.OneHotCategorical(logits=logits).to_event(1)
        return TransformedDistribution(blocks, ReshapeTransform(logits.shape[-2:], torch.Size([self.n])))

    def fisher(self, features: Tensor, jacobian: Tensor, observed: Tensor | None = None) -> Tensor:
        """Σ_i Σ_k p_ik (∂l_ik − ∂l̄_i)(∂l_ik − ∂l̄_i)ᵀ with ∂l̄_i = Σ_k p_ik ∂l_ik; see :meth:`Likelihood.fisher`."""
        p = self.logits_head(features).unflatten(-1, (-1, self.num_classes)).softmax(-1)
        change = (self.logits_head.weight @ jacobian).unflatten(-2, (-1, self.num_classes))
        centred = (change - (p.unsqueeze(-1) * change).sum(-2, keepdim=True)).flatten(-3, -2)
        if observed is not None and not self.one_hot:
            observed = observed.repeat_interleave(self.num_classes, -1)
        return gram(centred, p.flatten(-2), observed)

    def in_support(self, x: Tensor) -> Tensor:
        """Which values of x (num, n) are classes, or in a block that encodes one."""
        if not self.one_hot:
            return (x >= 0) & (x < self.num_classes) & (x % 1 == 0)
        blocks = x.unflatten(-1, (-1, self.num_classes))
        right = ((blocks == 0) | (blocks == 1)).all(-1, keepdim=True) & (blocks.sum(-1, keepdim=True) == 1)
        return right.expand_as(blocks).flatten(-2)


class Categorical(dist.Categorical):
    """Pyro's, whose draws have the parameters' dtype, as data do."""

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  # as in PyTorch
        """Draws of classes, shape (*sample, *batch)."""
        return super().sample(sample_shape).to(self.logits.dtype)
