"""The distribution of some channels against the part of the dense covariance."""

import math

import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.distributions import IsotropicNormal, LowRankNormal, PartiallyObserved, covariance_of
from pyrovae.distributions.restricted import restricted

N = 9
CHANNELS = torch.tensor([False, True, True, False, False, True, False, True, False])
LOC, SCALE = torch.linspace(-1, 1, N).double(), torch.linspace(0.5, 2, N).double()
FACTOR = torch.linspace(-1, 2, N * N).double().reshape(N, N).sin()
GAUSSIANS = {
    "isotropic": IsotropicNormal(LOC, torch.tensor(0.3).double()),
    "independent": dist.Normal(LOC, SCALE).to_event(1),
    "ar1": pv.AR1Normal(LOC, SCALE, torch.tensor([0.9]).double()),
    "ar1, one scale": pv.AR1Normal(LOC, SCALE[:1], torch.tensor([-0.7]).double()),
    "ar1, white": pv.AR1Normal(LOC, SCALE, torch.tensor([0.0]).double()),
    "ar1, per step": pv.AR1Normal(LOC, SCALE, torch.linspace(-0.9, 0.9, N - 1).double()),
    "low rank": LowRankNormal(LOC, FACTOR[:, :2], SCALE),
    "dense": dist.MultivariateNormal(LOC, FACTOR @ FACTOR.T + torch.eye(N).double()),
    "scaled": dist.TransformedDistribution(
        dist.Normal(LOC, SCALE).to_event(1), [dist.transforms.AffineTransform(0.0, 0.5, event_dim=1)]
    ),
}


@pytest.mark.parametrize("name", [name for name in GAUSSIANS if name != "scaled"])
def test_it_is_the_part_of_the_dense_covariance_in_the_same_form(name):
    p = GAUSSIANS[name]
    part = restricted(p, CHANNELS)
    torch.testing.assert_close(part.mean, p.mean[CHANNELS])
    torch.testing.assert_close(covariance_of(part), covariance_of(p)[CHANNELS][:, CHANNELS], atol=1e-12, rtol=1e-10)
    assert type(part) is type(p)


@pytest.mark.parametrize("name", [name for name in GAUSSIANS if name != "scaled"])
def test_its_density_is_that_of_data_with_missing_values(name):
    p, x = GAUSSIANS[name], torch.linspace(-2, 2, 4 * N).double().reshape(4, N)
    found = restricted(p, CHANNELS).log_prob(x[:, CHANNELS])
    torch.testing.assert_close(found, PartiallyObserved(p).log_prob(x.masked_fill(~CHANNELS, math.nan)))


def test_a_scaled_distribution_is_scaled():
    found = restricted(GAUSSIANS["scaled"], CHANNELS)
    x = torch.zeros(int(CHANNELS.sum())).double()
    expected = dist.Normal(0.5 * LOC, 0.5 * SCALE).log_prob(torch.zeros(N).double())[CHANNELS].sum()
    torch.testing.assert_close(found.log_prob(x), expected)


def test_a_gap_keeps_its_digits_where_the_correlation_is_nearly_one():
    p = pv.AR1Normal(torch.zeros(3).double(), 1.0, fisher_z=torch.tensor(14.0).double())  # 1 − ρ = 1.4e−12
    part = restricted(p, torch.tensor([True, False, True]))
    # 1 − ρ⁴ = (1 − ρ²)(1 + ρ²) with 1 − ρ² = sech²
    innovation = 1 / math.cosh(14.0) ** 2
    assert part._innovation_scale.square().item() == pytest.approx(innovation * (2 - innovation), rel=1e-9)


def test_others_are_refused():
    for p in (
        dist.MultivariateStudentT(torch.tensor(3.0), torch.zeros(2), torch.eye(2)),
        dist.Laplace(torch.zeros(2), 1.0).to_event(1),
        dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [dist.transforms.ExpTransform()]),
    ):
        with pytest.raises(TypeError, match="distribution of some entries"):
            restricted(p, torch.tensor([True, False]))
