"""CholeskyNormal is MultivariateNormal, draw for draw and nat for nat."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

import pyrovae as pv
from pyrovae.distributions import CholeskyNormal


def factor_of(*shape):
    return torch.randn(*shape, dtype=torch.float64).tril(-1) + torch.eye(shape[-1], dtype=torch.float64)


@pytest.mark.parametrize("d", [1, 3, 70])
@pytest.mark.parametrize(("loc_batch", "factor_batch"), [((), ()), ((4,), (4,)), ((4,), ()), ((2, 4), (4,))])
@pytest.mark.parametrize("sample_shape", [(), (5,)])
def test_draws_densities_and_gradients(d, loc_batch, factor_batch, sample_shape):
    loc = torch.randn(*loc_batch, d, dtype=torch.float64)
    factor = factor_of(*factor_batch, d, d)
    if d == 70:
        factor = 0.05 * factor + torch.eye(d, dtype=torch.float64)
    results = []
    for cls in (CholeskyNormal, MultivariateNormal):
        leaves = [loc.clone().requires_grad_(), factor.clone().requires_grad_()]
        q = cls(leaves[0], scale_tril=leaves[1])
        torch.manual_seed(0)
        z = q.rsample(torch.Size(sample_shape))
        log_prob = q.log_prob(z)
        expanded = q.expand(torch.Size([3, *q.batch_shape]))
        results.append((z, log_prob, expanded.log_prob(z[0] if sample_shape else z),
                        *torch.autograd.grad((z.square().sum() + log_prob.sum()), leaves)))  # fmt: skip
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs)


def test_it_is_one_and_stays_one():
    q = CholeskyNormal(torch.zeros(3), scale_tril=torch.eye(3)).expand(torch.Size([4]))
    assert isinstance(q, MultivariateNormal)
    assert isinstance(q, CholeskyNormal)
    with pytest.raises(ValueError, match="support"):
        q.log_prob(torch.full((4, 3), torch.nan))


def test_vmap():
    factors = factor_of(6, 3, 3)
    draws = torch.vmap(
        lambda factor: CholeskyNormal(torch.zeros(3).double(), scale_tril=factor, validate_args=False).rsample(),
        randomness="different",
    )(factors)
    assert draws.shape == (6, 3)


def test_a_draw_is_scored_by_its_noise_where_nothing_is_differentiated():
    factor = torch.randn(5, 3, 3, dtype=torch.float64).tril(-1) + torch.eye(3, dtype=torch.float64)
    q = CholeskyNormal(torch.randn(5, 3, dtype=torch.float64), scale_tril=factor).expand([4, 5])
    with torch.no_grad():
        z = q.rsample()
        torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()))
        again = q.rsample()
        torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()))
        torch.testing.assert_close(q.log_prob(again), q.log_prob(again.clone()))
        singular = CholeskyNormal(torch.ones(8), scale_tril=torch.ones(8, 8).tril(-1) + 1e-6 * torch.eye(8))
        z = singular.rsample(torch.Size([1000]))
        spread = singular.log_prob(z) + singular.entropy()  # ½ (d − ‖ε‖²)
        assert spread.mean().abs() < 5 * 2 / 1000**0.5
    z = q.rsample().requires_grad_()
    (slope,) = torch.autograd.grad(q.log_prob(z).sum(), z)
    assert slope.abs().min() > 0


def test_a_shared_factor_is_checked():
    with pytest.raises(ValueError, match="scale_tril"):
        pv.distributions.CholeskyNormal(torch.zeros(4, 2), scale_tril=-torch.eye(2))
    with pytest.raises(ValueError, match="value argument"):
        pv.distributions.CholeskyNormal(torch.full((4, 2), math.nan), scale_tril=torch.eye(2))
