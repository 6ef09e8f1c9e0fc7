"""Checks of every head, and comparisons of numbers."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution
from torch import Tensor, nn

from pyrovae.distributions import covariance_of
from pyrovae.errors import InputError
from pyrovae.nn import ConfigurableModule
from pyrovae.training import CannotReplicateError, reinitialize


def dense_kl(q: TorchDistribution, p: TorchDistribution) -> Tensor:
    """KL(q ‖ p) of two Gaussians by dense float64 algebra on their means and covariances."""
    mu_q, mu_p = q.mean.double(), p.mean.double()
    sigma_q, sigma_p = covariance_of(q).double(), covariance_of(p).double()
    difference = (mu_p - mu_q).unsqueeze(-1)
    trace = torch.linalg.solve(sigma_p, sigma_q).diagonal(dim1=-2, dim2=-1).sum(-1)
    mahalanobis = (difference.mT @ torch.linalg.solve(sigma_p, difference)).squeeze(-1).squeeze(-1)
    kl: Tensor = 0.5 * (torch.logdet(sigma_p) - torch.logdet(sigma_q) - mu_q.shape[-1] + trace + mahalanobis)
    return kl


H = TypeVar("H", bound=ConfigurableModule)


def random_head(make: Callable[[int, int], H], size: int) -> H:
    head = make(4, size).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    _check_shapes(head, (size,))
    return head


def check_module(
    head: H, make: Callable[[int, int], H], size: int, function: Callable[[TorchDistribution], Tensor]
) -> None:
    _check_gradients(head, function)
    _check_round_trip(head, make(4, size).double())
    check_config(head)
    check_fresh_start(make(4, size), make(4, size))


def _check_shapes(head: nn.Module, event_shape: tuple[int, ...]) -> None:
    for batch in ((), (4,), (2, 3)):
        features = torch.randn(*batch, 4, dtype=torch.float64)
        distribution = head(features)
        assert distribution.event_shape == event_shape, f"event shape {distribution.event_shape}, not {event_shape}"
        assert distribution.batch_shape == batch, f"batch shape {distribution.batch_shape} for features {batch}"
        draw = distribution.sample(torch.Size([7]))
        assert draw.shape == (7, *batch, *event_shape), f"draws of shape {tuple(draw.shape)}"
        assert distribution.log_prob(draw).shape == (7, *batch), "log_prob has the wrong shape"
        expanded = distribution.expand(torch.Size([6, *batch]))
        assert expanded.batch_shape == (6, *batch), "expand has the wrong batch shape"
        torch.testing.assert_close(expanded.log_prob(draw[0]), distribution.log_prob(draw[0]).expand(6, *batch))
    features = torch.randn(4, 4, dtype=torch.float64)
    draw = head(features).sample()
    alone = torch.stack([head(row).log_prob(value) for row, value in zip(features, draw, strict=True)])
    torch.testing.assert_close(head(features).log_prob(draw), alone, msg="a datum's density depends on the others")


def _check_gradients(head: nn.Module, function: Callable[[TorchDistribution], Tensor]) -> None:
    features = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def at_fixed_noise(features: Tensor) -> Tensor:
        torch.manual_seed(0)
        return function(head(features if features.shape[0] == 3 else features[[0, 1, 1]]))

    assert torch.autograd.gradcheck(at_fixed_noise, features), "the gradient differs from finite differences"
    q = head(torch.randn(3, 4, dtype=torch.float64))
    q.log_prob(q.sample()).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, f"{name} receives no gradient"
        assert parameter.grad.abs().max() > 0, f"{name} receives a zero gradient"


def _check_round_trip(head: nn.Module, other: nn.Module) -> None:
    other.load_state_dict(head.state_dict())
    features = torch.randn(3, 4, dtype=torch.float64)
    draw = head(features).sample()
    torch.testing.assert_close(other(features).log_prob(draw), head(features).log_prob(draw), rtol=0, atol=0)


def check_config(head: ConfigurableModule) -> None:
    try:
        config = head.config()
    except (AttributeError, InputError) as error:
        raise AssertionError(f"config() fails; keep each constructor argument as an attribute: {error}") from None
    again = type(head)(*config.pop("*", []), **config).double()
    again.load_state_dict(head.state_dict())


def check_fresh_start(head: nn.Module, other: nn.Module) -> None:
    for module in (head, other):
        try:
            reinitialize(module, seed=0)
        except CannotReplicateError as error:
            raise AssertionError(str(error)) from None
    for (name, left), right in zip(head.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right), f"after reset_parameters, {name} depends on its old value"


def check_density(q: TorchDistribution) -> None:
    covariance = covariance_of(q)
    dense = MultivariateNormal(q.mean, covariance)
    draws = q.rsample(torch.Size([20_000]))
    assert_close("log_prob", q.log_prob(draws[:50]), dense.log_prob(draws[:50]))
    centred = draws - q.mean
    assert_mean(centred, torch.zeros_like(q.mean), "the mean of the draws is not q.mean")
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    assert_mean(products, covariance, "the covariance of the draws is not the declared one")


def check_score(head: nn.Module) -> None:
    """E[∂ log p(x) / ∂ features] = 0 over draws of p itself, whatever p is, continuous or discrete."""
    features = torch.randn(3, 4, dtype=torch.float64).expand(10_000, 3, 4).clone().requires_grad_()
    p = head(features)
    (score,) = torch.autograd.grad(p.log_prob(p.sample()).sum(), features)
    assert_mean(score, torch.zeros(3, 4, dtype=torch.float64), "the draws do not have the density that log_prob gives")


def assert_close(what: str, ours: Tensor, dense: Tensor) -> None:
    # the dense reference factorises the covariance, which limits its accuracy
    message = f"{what} is not that of the declared Gaussian (if q is none: gaussian=False)"
    torch.testing.assert_close(ours, dense, rtol=1e-5, atol=1e-6, msg=lambda reason: f"{message}: {reason}")


def assert_near(what: str, ours: Tensor, expected: Tensor) -> None:
    error = ((ours - expected).abs().amax() / expected.abs().amax()).item()
    assert error < 1e-10, f"{what} is off by {error:.1e} of its largest entry"


def assert_mean(draws: Tensor, expected: Tensor, message: str) -> None:
    stderr = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - expected).abs() <= 5 * stderr + 1e-12 * (1 + expected.abs().amax())).all(), message
