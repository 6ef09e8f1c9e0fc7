"""AR1Normal against dense float64 algebra written out from the definition."""

import math

import pytest
import torch
from torch.distributions import kl_divergence

from pyrovae import AR1Normal
from pyrovae.distributions.recurrence import linear_recurrence
from pyrovae.testing import dense_kl


def covariance_by_definition(scale, rho, d):
    """Σ_ij = σ_i σ_j ∏_{k=i}^{j−1} ρ_k, in plain loops."""
    scale = scale.double().expand(d).tolist()
    rho = rho.double().expand(d - 1).tolist()
    return torch.tensor(
        [[scale[i] * scale[j] * math.prod(rho[min(i, j) : max(i, j)]) for j in range(d)] for i in range(d)],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("d", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("per_dimension", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
def test_covariance_factor_precision_and_density(d, per_dimension, per_step):
    torch.manual_seed(d)
    scale = torch.rand(d if per_dimension else 1, dtype=torch.float64) + 0.5
    rho = 1.8 * torch.rand(d - 1 if per_step and d > 1 else 1, dtype=torch.float64) - 0.9
    loc = torch.randn(d, dtype=torch.float64)
    sigma = covariance_by_definition(scale, rho, d)
    q = AR1Normal(loc, scale, rho)
    torch.testing.assert_close(q.covariance_matrix, sigma)
    torch.testing.assert_close(q.scale_tril, torch.linalg.cholesky(sigma))
    torch.testing.assert_close(q.precision_matrix, torch.linalg.inv(sigma))
    torch.testing.assert_close(q.variance, sigma.diagonal())
    dense = torch.distributions.MultivariateNormal(loc, sigma)
    x = torch.randn(10, d, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(x), dense.log_prob(x))
    torch.testing.assert_close(q.entropy(), dense.entropy())
    by_fisher_z = AR1Normal(loc, scale, fisher_z=rho.atanh())
    torch.testing.assert_close(by_fisher_z.log_prob(x), dense.log_prob(x))


def test_draws_are_the_factor_times_the_noise():
    q = AR1Normal(torch.randn(3, 6, dtype=torch.float64), torch.rand(3, 6).double() + 0.1, torch.rand(3, 5).double())
    torch.manual_seed(1)
    draw = q.rsample()
    torch.manual_seed(1)
    noise = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(draw, q.loc + (q.scale_tril @ noise.unsqueeze(-1)).squeeze(-1))


def test_recurrence_and_its_derivatives():
    for coefficients in (1, 6):
        c = torch.randn(2, coefficients, dtype=torch.float64, requires_grad=True)
        x = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
        y = [x[:, 0]]
        for j in range(1, 7):
            y.append(c.expand(2, 6)[:, j - 1] * y[-1] + x[:, j])
        torch.testing.assert_close(linear_recurrence(c, x), torch.stack(y, -1))
        assert torch.autograd.gradcheck(linear_recurrence, (c, x))
        assert torch.autograd.gradgradcheck(linear_recurrence, (c, x))


def test_kl_of_the_rho_vae_is_its_equation_6():
    mu, s, rho, d = (
        torch.randn(4, 5).double(),
        torch.rand(4, 1).double() + 0.1,
        torch.rand(4, 1).double() - 0.5,
        5,
    )
    q = AR1Normal(mu, s.sqrt(), rho)
    p = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(d).double(), torch.ones(d).double()), 1)
    s, rho = s.squeeze(-1), rho.squeeze(-1)
    equation = 0.5 * (mu.square().sum(-1) + d * (s - 1 - s.log()) - (d - 1) * torch.log1p(-rho.square()))
    torch.testing.assert_close(kl_divergence(q, p), equation)
    torch.testing.assert_close(kl_divergence(q, p), dense_kl(q, p))


def test_two_dimensions_with_a_scale_each_are_any_gaussian():
    factor = torch.tensor([[1.3, 0.0], [-0.4, 0.6]], dtype=torch.float64)
    sigma = factor @ factor.T
    scale = sigma.diagonal().sqrt()
    q = AR1Normal(torch.zeros(2).double(), scale, (sigma[0, 1] / scale.prod()).reshape(1))
    torch.testing.assert_close(q.covariance_matrix, sigma)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"correlation": None}, ValueError, "exactly one of correlation and fisher_z, but neither"),
        ({"fisher_z": 0.1}, ValueError, "exactly one of correlation and fisher_z, but both"),
        ({"correlation": torch.tensor([1.0])}, ValueError, r"correlation must be inside \(−1, 1\), but holds 1"),
        ({"scale": torch.tensor([0.0])}, ValueError, "scale must be positive, but holds 0"),
        ({"scale": torch.ones(2)}, ValueError, r"last axis of scale must be 1 \(shared\) or 3 .* shape \(2,\)"),
        ({"correlation": torch.zeros(3)}, ValueError, r"last axis of correlation must be 1 \(shared\) or 2"),
        ({"scale": torch.ones(1).double()}, TypeError, "scale is of torch.float64, loc of torch.float32"),
        ({"loc": torch.ones(3, dtype=torch.long)}, TypeError, "loc must be a floating-point tensor"),
        ({"scale": torch.ones(1, dtype=torch.long)}, TypeError, "scale must be a floating-point tensor"),
        ({"scale": torch.ones(1, device="meta")}, ValueError, "scale is on meta, loc on cpu"),
        ({"loc": torch.zeros(2, 3), "scale": torch.ones(5, 1)}, ValueError, r"do not broadcast: loc \(2,\)"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        AR1Normal(**{"loc": torch.zeros(3), "scale": torch.ones(1), "correlation": torch.zeros(1)} | arguments)


def test_tensors_without_axes_are_shared_by_all():
    q = AR1Normal(torch.zeros(2, 3), torch.tensor(2.0), torch.tensor(0.5))
    torch.testing.assert_close(q.covariance_matrix, AR1Normal(torch.zeros(2, 3), 2.0, 0.5).covariance_matrix)
    assert q.batch_shape == (2,)
