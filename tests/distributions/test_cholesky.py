"""CholeskyNormal is MultivariateNormal, draw for draw and nat for nat."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

import pyrovae as pv
from pyrovae.distributions import CholeskyNormal, fixed_draw


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
        of_loc, of_factor = torch.autograd.grad((z.square().sum() + log_prob.sum()), leaves)
        # above its diagonal a factor has no entries, whatever a derivative there says
        results.append((z, log_prob, expanded.log_prob(z[0] if sample_shape else z), of_loc, of_factor.tril()))
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


def nearly_singular(d, dtype):
    """A random head's factor: in float32 L⁻¹(z − μ) has no correct digits from d = 64."""
    generator = torch.Generator().manual_seed(d)
    below = 0.8 * torch.randn(4, d, d, generator=generator, dtype=torch.float64).tril(-1)
    factor = below + 0.3 * torch.eye(d, dtype=torch.float64)
    return factor.float().to(dtype).requires_grad_(), torch.zeros(4, d, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("d", [16, 32, 64, 128])
def test_a_draw_in_float32_has_the_density_and_gradient_of_float64(d):
    for dtype in (torch.float32, torch.float64):
        factor, loc = nearly_singular(d, dtype)
        torch.manual_seed(1)
        q = CholeskyNormal(loc, scale_tril=factor)
        log_q = q.log_prob(q.rsample())
        noise = q._drawn[1].double()
        truth = -0.5 * (noise.square().sum(-1) + d * math.log(2 * math.pi)) - d * math.log(0.3)
        torch.testing.assert_close(log_q.double(), truth, rtol=1e-5, atol=0)
        of_factor, of_loc = torch.autograd.grad(log_q.sum(), [factor, loc], materialize_grads=True, allow_unused=True)
        slope = (-torch.eye(d) / 0.3).double().expand(4, d, d)  # log q(μ + Lε) depends on the diagonal alone
        torch.testing.assert_close(of_factor.double(), slope, rtol=1e-5, atol=0)
        assert (of_loc == 0).all()


def test_a_fixed_draw_has_the_derivative_at_fixed_z():
    factor = factor_of(4, 3, 3).requires_grad_()
    loc = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    q = CholeskyNormal(loc, scale_tril=factor)
    z = q.rsample()
    by_noise, by_value = q.log_prob(fixed_draw(z)), q.log_prob(z.detach().clone())
    torch.testing.assert_close(by_noise, by_value)
    gradients = [torch.autograd.grad(v.sum(), [factor, loc], retain_graph=True) for v in (by_noise, by_value)]
    torch.testing.assert_close(gradients[0][0].tril(), gradients[1][0].tril())
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


def test_a_draw_without_a_path_has_its_score():
    """As in the score-function estimator and wake–sleep: z is sampled, log q(z) differentiated at fixed z."""
    factor = factor_of(4, 3, 3).requires_grad_()
    q = CholeskyNormal(torch.zeros(4, 3).double(), scale_tril=factor)
    z = q.sample()
    scores = [torch.autograd.grad(q.log_prob(v).sum(), factor, retain_graph=True)[0] for v in (z, z.clone())]
    torch.testing.assert_close(*scores)
    assert scores[0].tril(-1).abs().max() > 0
