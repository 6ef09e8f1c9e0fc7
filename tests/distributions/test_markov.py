"""The Gaussian Markov chain of vectors, against dense algebra and AR1Normal."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyrovae import AR1Normal
from pyrovae.distributions import MarkovNormal
from pyrovae.testing import dense_kl


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def chain(num_steps, k, batch=()):
    scale = (
        double(*batch, num_steps, k, k).tril(-1)
        + (0.3 + torch.rand(*batch, num_steps, k, dtype=torch.float64)).diag_embed()
    )
    return MarkovNormal(double(*batch, num_steps * k), scale, double(*batch, num_steps - 1, k, k))


def block_tridiagonal(num_steps, k, batch=()):
    """A random one, dense, with its blocks: that of a chain z_t = F_t z_{t−1} + noise, seen in noise."""
    size = num_steps * k
    root = double(*batch, size, size) * 0
    for t in range(num_steps):
        at = slice(t * k, (t + 1) * k)
        root[..., at, at] = double(*batch, k, k) + 2 * torch.eye(k)
        if t:
            root[..., at, slice((t - 1) * k, t * k)] = double(*batch, k, k)
    dense = root.mT @ root
    blocks = dense.unflatten(-1, (num_steps, k)).unflatten(-3, (num_steps, k)).transpose(-3, -2)
    steps = torch.arange(num_steps)
    return dense, blocks[..., steps, steps, :, :], blocks[..., steps[1:], steps[:-1], :, :]


@pytest.mark.parametrize(("num_steps", "k"), [(1, 2), (2, 1), (3, 2), (4, 3), (7, 2), (8, 1)])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_any_block_tridiagonal_precision_is_a_chain(num_steps, k, batch):
    precision, diagonal, off_diagonal = block_tridiagonal(num_steps, k, batch)
    loc = double(*batch, num_steps * k)
    q = MarkovNormal.from_precision(loc, diagonal, off_diagonal)
    torch.testing.assert_close(q.precision_matrix, precision)
    dense = dist.MultivariateNormal(loc, precision_matrix=precision)
    torch.testing.assert_close(q.covariance_matrix, dense.covariance_matrix)
    torch.testing.assert_close(q.variance, dense.variance)
    z = double(5, *batch, num_steps * k)
    torch.testing.assert_close(q.log_prob(z), dense.log_prob(z))
    torch.testing.assert_close(q.entropy(), dense.entropy())
    within, before = q.step_covariances
    blocks = dense.covariance_matrix.unflatten(-1, (num_steps, k)).unflatten(-3, (num_steps, k)).transpose(-3, -2)
    steps = torch.arange(num_steps)
    torch.testing.assert_close(within, blocks[..., steps, steps, :, :])
    torch.testing.assert_close(before, blocks[..., steps[1:], steps[:-1], :, :])


@pytest.mark.parametrize("num_steps", [1, 2, 5, 8, 9])
def test_draws_follow_the_chain_step_by_step(num_steps):
    q = chain(num_steps, 2, (3,))
    torch.manual_seed(1)
    z = q.rsample((4,))
    torch.manual_seed(1)
    noise = double(4, 3, num_steps, 2)
    y = noise[..., 0, :]
    for t in range(num_steps):
        if t:
            k = q.contraction[:, t - 1]
            innovation = torch.linalg.inv(torch.linalg.cholesky(torch.linalg.inv(torch.eye(2) - k @ k.mT))).mT
            y = torch.einsum("bij,sbj->sbi", k, y) + torch.einsum("bij,sbj->sbi", innovation, noise[..., t, :])
        expected = q.loc[:, 2 * t : 2 * t + 2] + torch.einsum("bij,sbj->sbi", q.marginal_scale_tril[:, t], y)
        torch.testing.assert_close(z[..., 2 * t : 2 * t + 2], expected)


def test_with_one_channel_it_is_ar1():
    loc, scale, z = double(3, 6), torch.rand(3, 6, dtype=torch.float64) + 0.3, double(3, 5)
    ours = MarkovNormal(loc, scale[..., None, None], z.sinh()[..., None, None])
    other = AR1Normal(loc, scale, fisher_z=z)
    value = double(4, 3, 6)
    torch.testing.assert_close(ours.log_prob(value), other.log_prob(value))
    torch.testing.assert_close(ours.covariance_matrix, other.covariance_matrix)
    torch.testing.assert_close(ours.contraction.flatten(-3), z.tanh())


@pytest.mark.parametrize(("batch_q", "batch_p"), [((), ()), ((3,), ()), ((), (3,)), ((2, 3), (3,))])
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_divergences_against_dense_algebra(batch_q, batch_p, num_steps):
    q, p = chain(num_steps, 2, batch_q), chain(num_steps, 2, batch_p)
    torch.testing.assert_close(kl_divergence(q, p), dense_kl(q, p))
    torch.testing.assert_close(kl_divergence(q, q), torch.zeros(batch_q).double(), atol=1e-10, rtol=0)
    independent = dist.Normal(double(*batch_p, 2 * num_steps), 1.3).to_event(1)
    torch.testing.assert_close(kl_divergence(q, independent), dense_kl(q, independent))


@pytest.mark.parametrize(("batch_q", "batch_p"), [((), ()), ((3,), ()), ((), (3,)), ((2, 3), (3,))])
def test_divergence_of_other_gaussians_from_a_chain_of_two_channels(batch_q, batch_p):
    p = chain(4, 2, batch_p)
    scale = double(*batch_q, 8, 8).tril(-1) + torch.eye(8)
    for q in (
        dist.Normal(double(*batch_q, 8), 0.2 + torch.rand(*batch_q, 8, dtype=torch.float64)).to_event(1),
        dist.MultivariateNormal(double(*batch_q, 8), scale_tril=scale),
        dist.LowRankMultivariateNormal(
            double(*batch_q, 8), double(*batch_q, 8, 2), 0.1 + torch.rand(*batch_q, 8, dtype=torch.float64)
        ),
    ):
        torch.testing.assert_close(kl_divergence(q, p), dense_kl(q, p))


def test_chains_of_other_blocks_have_no_closed_form():
    ar1 = AR1Normal(double(4), 1.0, correlation=0.5)
    for q, p in ((chain(4, 1), chain(2, 2)), (ar1, chain(2, 2)), (chain(2, 2), ar1)):
        with pytest.raises(NotImplementedError):
            kl_divergence(q, p)


def test_gradients_are_those_of_finite_differences():
    q = chain(5, 2)

    def function(loc, scale, coupling):
        torch.manual_seed(0)
        q = MarkovNormal(loc, scale, coupling)
        return q.rsample(), q.entropy(), kl_divergence(q, dist.Normal(torch.zeros(10).double(), 1.0).to_event(1))

    given = [part.clone().requires_grad_() for part in (q.loc, q.marginal_scale_tril, q.coupling)]
    assert torch.autograd.gradcheck(function, given)


def test_a_draw_without_a_gradient_leaves_the_density_its_gradient():
    q = chain(4, 2)
    coupling = q.coupling.clone().requires_grad_()
    q = MarkovNormal(q.loc, q.marginal_scale_tril, coupling)
    q.log_prob(q.sample()).backward()
    assert coupling.grad.abs().min() > 0


def test_shapes():
    q = chain(4, 2).expand(torch.Size([3]))
    assert q.rsample((5,)).shape == (5, 3, 8)
    assert q.mean.shape == q.variance.shape == (3, 8)
    assert q.covariance_matrix.shape == (3, 8, 8)
    assert q.entropy().shape == (3,)
    for loc, scale, coupling in (((8,), (4, 2, 2), (4, 2, 2)), ((7,), (4, 2, 2), (3, 2, 2)), ((4,), (2, 2), (1, 2, 2))):
        with pytest.raises(ValueError, match=r"loc \(…, T·k\), marginal_scale_tril .* do not fit"):
            MarkovNormal(torch.zeros(loc), torch.ones(scale), torch.ones(coupling))
