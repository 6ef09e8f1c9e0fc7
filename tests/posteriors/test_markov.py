"""The posteriors of series meet their contract; the exact posterior of a state space is a member."""

from functools import partial

import pytest
import torch
from torch.distributions import kl_divergence

from pyrovae import AR1Posterior, MarkovPosterior
from pyrovae.distributions import AR1Normal, covariance_of
from pyrovae.distributions.ar1 import FISHER_Z_BOUND
from pyrovae.exact import LinearGaussianStateSpace
from pyrovae.nn import inverse_positive
from pyrovae.priors import AR1Prior
from pyrovae.testing import check_posterior, dense_kl


@pytest.mark.parametrize(
    ("channels", "blocks", "latent_dims"),
    [(1, "full", (2, 4)), (2, "full", (4, 8)), (2, "diagonal", (4, 8)), (3, "full", (6,))],
)
def test_contract(channels, blocks, latent_dims):
    check_posterior(partial(MarkovPosterior, channels=channels, blocks=blocks), latent_dims=latent_dims)


def head_at(target, channels, blocks="full"):
    """A head whose q(z|x) has these factors: its features say which step it is."""
    steps = target.num_steps
    head = MarkovPosterior(steps * steps, steps * channels, channels, blocks).double()
    s, c = target.marginal_scale_tril, target.coupling
    rows, columns = torch.tril_indices(channels, channels, -1)
    below = s[:, rows, columns] if blocks == "full" else s.new_zeros(steps, 0)
    c = c.flatten(-2) if blocks == "full" else c.diagonal(dim1=-2, dim2=-1)
    raw = FISHER_Z_BOUND * (c.asinh() / FISHER_Z_BOUND).atanh()
    raw = torch.cat([raw.new_zeros(1, raw.shape[1]), raw])
    with torch.no_grad():
        scale = inverse_positive(s.diagonal(dim1=-2, dim2=-1))
        head.covariance_head.weight.copy_(torch.cat([scale, below, raw], dim=-1).T)
        head.covariance_head.bias.zero_()
    return head, torch.eye(steps).double().flatten()


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_posterior_of_a_state_space_is_a_member(steps):
    transition = torch.tensor([[0.8, 0.3], [-0.2, 0.7]]).double()
    chain = LinearGaussianStateSpace(steps, transition, torch.tensor([[1.0, 0.5]]).double(), 0.4)
    head, features = head_at(chain.posterior(torch.zeros(steps)), 2)
    torch.testing.assert_close(covariance_of(head(features)), torch.linalg.inv(chain.precision))


def test_a_chain_for_each_channel():
    """Channels that do not meet: each is the AR(1) posterior of its own chain."""
    steps, phi = 5, (0.9, -0.4)
    transition, loadings = torch.diag(torch.tensor(phi).double()), torch.diag(torch.tensor([1.0, 2.0]).double())
    both = LinearGaussianStateSpace(steps, transition, loadings, 0.5)
    head, features = head_at(both.posterior(torch.zeros(2 * steps)), 2, "diagonal")
    covariance = covariance_of(head(features)).reshape(steps, 2, steps, 2)
    assert covariance[:, 0, :, 1].abs().max() == 0
    for channel in range(2):
        alone = LinearGaussianStateSpace(steps, phi[channel], loadings[channel, channel].item(), 0.5)
        torch.testing.assert_close(covariance[:, channel, :, channel], torch.linalg.inv(alone.precision))


def test_one_channel_is_the_ar1_family():
    chain = LinearGaussianStateSpace(7, 0.9, 1.0, 0.5)
    head, features = head_at(chain.posterior(torch.zeros(7)), 1)
    q = head(features)
    assert isinstance(q, AR1Normal)
    best = AR1Posterior(3, 7, scale="per-dimension", correlation="per-step").closest_covariance(chain.precision)
    torch.testing.assert_close(q.covariance_matrix, best)


def test_the_kl_to_an_ar1_prior_of_two_channels_is_closed():
    q = MarkovPosterior(12, 6, channels=2).double()(torch.randn(3, 12).double())
    p = AR1Prior(6, 0.7, channels=2).double()()
    torch.testing.assert_close(kl_divergence(q, p), dense_kl(q, p))


def test_bad_input():
    for arguments, message in (
        ((10, 5, 2), "latent_dim must be a multiple of channels=2, not 5"),
        ((7, 6, 2), "in_features must be a multiple of 3, the number of steps, not 7"),
        ((6, 6, 2, "ful"), "blocks must be one of 'full', 'diagonal', not 'ful'"),
    ):
        with pytest.raises(ValueError, match=message):
            MarkovPosterior(*arguments)
