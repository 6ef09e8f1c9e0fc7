"""The Gaussian of one scale is torch's Normal, in value, gradient and shape."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyrovae.distributions import IsotropicNormal


@pytest.mark.parametrize("value_shape", [(3,), (5, 3), (7, 5, 3), (5, 1), (7, 5, 4)])
def test_density_and_gradients(value_shape):
    loc = torch.randn(5, value_shape[-1], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    value = torch.randn(value_shape, dtype=torch.float64, requires_grad=True)
    results = []
    for p in (IsotropicNormal(loc, scale), dist.Normal(loc, scale).to_event(1)):
        log_prob = p.log_prob(value)
        results.append((log_prob, *torch.autograd.grad(log_prob.square().sum(), (loc, scale, value))))
    torch.testing.assert_close(*results)
    assert torch.autograd.gradgradcheck(lambda *a: IsotropicNormal(*a).log_prob(value), (loc, scale))


def test_it_is_an_independent_normal():
    p = IsotropicNormal(torch.randn(5, 3), torch.tensor(0.4))
    q = dist.Normal(p.mean, 0.4).to_event(1)
    assert (p.batch_shape, p.event_shape, p.has_rsample) == ((5,), (3,), True)
    assert p.expand([2, 5]).log_prob(torch.zeros(3)).shape == (2, 5)
    assert isinstance(p.expand([2, 5]), IsotropicNormal)
    torch.testing.assert_close(p.entropy(), q.entropy())
    torch.testing.assert_close(kl_divergence(p, q), torch.zeros(5), atol=1e-6, rtol=0)
    torch.manual_seed(0)
    draw = p.rsample()
    torch.manual_seed(0)
    torch.testing.assert_close(draw, q.rsample())


def test_bad_input():
    with pytest.raises(ValueError, match="scale must be a scalar tensor"):
        IsotropicNormal(torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="scale"):
        IsotropicNormal(torch.zeros(3), torch.tensor(-1.0), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        IsotropicNormal(torch.zeros(3), torch.tensor(1.0), validate_args=True).log_prob(torch.tensor(float("nan")))
