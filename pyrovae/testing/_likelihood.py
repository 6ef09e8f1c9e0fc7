"""The contract of a likelihood."""

import itertools
import math
from collections.abc import Callable

import pyro
import torch
from pyro.distributions import MultivariateNormal, TorchDistribution

from pyrovae.distributions import PartiallyObserved, covariance_of
from pyrovae.errors import InputTypeError
from pyrovae.likelihoods import Likelihood
from pyrovae.testing._heads import (
    assert_close,
    assert_mean,
    assert_near,
    check_density,
    check_module,
    check_score,
    random_head,
)


def check_likelihood(make: Callable[[int, int], Likelihood], *, n: int = 3, gaussian: bool = False) -> None:
    """Check that a subclass of :class:`~pyrovae.likelihoods.Likelihood` is correct in every use.

    It checks the shapes of p(x|z), its draws and their log-density; the independence of data from each other; the
    gradient of the log-density against finite differences; that every parameter receives a gradient; that the state can
    be saved, loaded and reset; that ``check_support`` accepts the likelihood's own draws, which have the density of
    ``log_prob``; and ``fisher``, if there is one, against the mean of the Hessian over draws.

    Args:
        make: the class, or another callable of (in_features, n).
        n: dimension of x.
        gaussian: whether p(x|z) is Gaussian, with ``mean`` and a covariance: then density and moments are compared
            with dense algebra, and the density of the observed channels too, for every pattern of missing values.

    Raises:
        AssertionError: names the first part that is wrong.
    """
    with torch.random.fork_rng(), pyro.validation_enabled(True):
        torch.manual_seed(n)
        head = random_head(make, n)
        x = head(torch.randn(3, 4, dtype=torch.float64)).sample()
        check_module(head, make, n, lambda p: p.log_prob(x))
        head.check_support("the likelihood's own draws", x)
        if gaussian:
            p = head(torch.randn(3, 4, dtype=torch.float64))
            check_density(p)
            _check_missing(p)
        elif head.is_density:
            check_score(head)
        if type(head).fisher is not Likelihood.fisher:
            _check_fisher(head)


def _check_missing(p: TorchDistribution) -> None:
    covariance, partial = covariance_of(p), PartiallyObserved(p)
    x = p.sample()
    for pattern in itertools.product((False, True), repeat=p.event_shape[0]):
        observed = torch.tensor(pattern)
        expected = torch.zeros(p.batch_shape, dtype=x.dtype)
        if observed.any():
            rows = covariance[..., observed, :][..., observed]
            expected = MultivariateNormal(p.mean[..., observed], rows).log_prob(x[..., observed])
        ours = partial.log_prob(x.masked_fill(~observed, math.nan))
        assert_close(f"the density of the channels observed as {pattern}", ours, expected)


def _check_fisher(head: Likelihood) -> None:
    """−E[∇² log p(x) in the features] over draws of p itself, and its product with directions from both sides."""
    num, width = 5_000, head.in_features
    features = torch.randn(3, width, dtype=torch.float64)
    directions = torch.randn(3, width, 2, dtype=torch.float64)
    ours = head.fisher(features, torch.eye(width, dtype=torch.float64).expand(3, width, width))
    assert ours.shape == (3, width, width), f"fisher has shape {tuple(ours.shape)}"
    assert_near("fisher along directions", head.fisher(features, directions), directions.mT @ ours @ directions)
    alone = [head.fisher(row, along) for row, along in zip(features, directions, strict=True)]
    assert_near("fisher of a datum alone", torch.stack(alone), directions.mT @ ours @ directions)
    x = head(features).sample(torch.Size([num]))
    for observed in (None, torch.arange(head.n) % 2 == 0):
        if observed is not None:
            try:
                PartiallyObserved(head(features))
            except InputTypeError:
                break
            x = x.masked_fill(~observed, math.nan)
            ours = head.fisher(features, torch.eye(width, dtype=torch.float64).expand(3, width, width), observed)
        at = features.expand(num, 3, width).clone().requires_grad_()
        p = head(at) if observed is None else PartiallyObserved(head(at))
        (slope,) = torch.autograd.grad(p.log_prob(x).sum(), at, create_graph=True)
        rows = [torch.autograd.grad(column.sum(), at, retain_graph=True)[0] for column in slope.unbind(-1)]
        assert_mean(-torch.stack(rows, dim=-2), ours, f"fisher is not −E[∇² log p], observed: {observed}")
