"""The families' closest covariances against closed forms and a search, and what they say of themselves."""

import subprocess
import sys

import pytest
import torch
from torch.distributions import MultivariateNormal, Transform, kl_divergence

import pyrovae as pv
from pyrovae.distributions import covariance_of
from pyrovae.nn import class_of
from pyrovae.posteriors import POSTERIORS
from pyrovae.posteriors.base import Posterior

GAUSSIAN = [name for name, make in POSTERIORS.items() if class_of(make).is_gaussian]


@pytest.fixture
def precision():
    """A posterior's precision I + AᵀA in three dimensions."""
    a = torch.randn(5, 3, dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64) + a.T @ a


def kl(covariance, precision):
    """KL(N(0, Σ) ‖ N(0, P⁻¹)) in nats."""
    zero = torch.zeros(len(precision), dtype=torch.float64)
    q, p = MultivariateNormal(zero, covariance), MultivariateNormal(zero, precision_matrix=precision)
    return kl_divergence(q, p).item()


@pytest.mark.parametrize("family", ["isotropic", "diagonal", "full-covariance"])
def test_closed_forms_are_what_the_search_finds(family, precision):
    head = POSTERIORS[family](4, 3)
    closed, searched = head.closest_values(precision), Posterior.closest_values(head, precision)
    torch.testing.assert_close(closed, searched, atol=1e-4, rtol=0)
    found = covariance_of(head.double().constant(searched))
    assert kl(head.closest_covariance(precision), precision) <= kl(found, precision) + 1e-12


@pytest.mark.parametrize("family", GAUSSIAN)
def test_a_head_takes_its_closest_covariance_and_a_mean(family, precision):
    head, features = POSTERIORS[family](4, 3).double(), torch.randn(6, 4, dtype=torch.float64)
    head.set_covariance(head.closest_values(precision))
    weight, bias, units = torch.randn(3, 2).double(), torch.randn(3).double(), torch.tensor([1e-3, 1.0, 10.0]).double()
    head.set_mean(weight, bias, units)
    q = head(features)
    torch.testing.assert_close(q.mean, features[:, :2] @ weight.T + bias)
    torch.testing.assert_close(covariance_of(q), head.closest_covariance(precision).expand(6, 3, 3))


def test_the_search_leaves_the_head_and_the_random_state():
    head = pv.AR1Posterior(4, 2)
    before, state = {k: v.clone() for k, v in head.state_dict().items()}, torch.get_rng_state()
    head.closest_covariance(torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64))
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_had_says_so_in_one_line():
    with pytest.raises(ValueError, match=r"^a FlowPosterior has no covariance_head, so its best member is not known$"):
        pv.FlowPosterior(4, 2).closest_covariance(torch.eye(2).double())
    with pytest.raises(ValueError, match=r"^covariance must be symmetric and positive definite$"):
        pv.FullCovariancePosterior(4, 2).values_of(torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double())
    with pytest.raises(ValueError, match=r"^a scale of 1e-07 is below 1e-06, the smallest value of a head$"):
        pv.DiagonalPosterior(4, 2).closest_values(1e14 * torch.eye(2).double())


def test_families_say_of_themselves_what_they_are():
    assert set(POSTERIORS) - set(GAUSSIAN) == {"flow"}
    for name, make in POSTERIORS.items():
        assert make(2, 2).can_start_as_linear == (name != "flow")
    state = torch.get_rng_state()
    assert class_of(lambda in_features, d: pv.DiagonalPosterior(in_features, d)) is pv.DiagonalPosterior
    assert torch.equal(torch.get_rng_state(), state)


def test_a_flow_is_its_transform_of_normal_noise():
    q = pv.FlowPosterior(4, 2).double()(torch.randn(5, 4, dtype=torch.float64))
    torch.manual_seed(1)
    z = q.rsample()
    torch.manual_seed(1)
    noise = torch.randn(5, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(q.transform, z)
    slopes = torch.stack([jacobian[i, :, i] for i in range(5)])
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(-1) + torch.linalg.slogdet(slopes).logabsdet
    torch.testing.assert_close(q.transform(z), noise)
    torch.testing.assert_close(q.log_prob(z), expected)
    assert isinstance(q.transform, Transform)


@pytest.mark.slow
def test_a_flow_leaves_the_classes_of_torch_and_zuko_as_they_are():
    code = """
import torch.distributions as td
before = dict(vars(td.Distribution))
import pyrovae as pv, torch
q = pv.FlowPosterior(3, 2)(torch.zeros(4, 3))
q.log_prob(q.expand(torch.Size([2, 4])).rsample())
assert dict(vars(td.Distribution)) == before
import zuko
assert "_validate_args" not in vars(zuko.distributions.NormalizingFlow)
assert "arg_constraints" not in vars(zuko.distributions.NormalizingFlow)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=600)


def test_a_full_factor_is_bounded_where_it_is_nearly_singular_and_nowhere_else():
    head = pv.posteriors.FullCovariancePosterior(1, 3).double()
    below = torch.tensor([-400.0, 30.0, -5000.0], dtype=torch.float64)  # L_10, L_20, L_21
    raw = torch.tensor([2.0, -1e4, 9.0], dtype=torch.float64)
    with torch.no_grad():
        head.covariance_head.weight.zero_()
        head.covariance_head.bias.copy_(torch.cat([raw, below]))
    factor = head(torch.zeros(1, 1, dtype=torch.float64)).scale_tril[0]
    floors = torch.tensor([0.0, 400.0, 5030.0], dtype=torch.float64) / 1000 / 2**0.5
    unbounded = pv.nn.positive(raw)
    assert torch.equal(factor.diagonal()[[0, 2]], unbounded[[0, 2]])
    assert unbounded[1] < floors[1]
    torch.testing.assert_close(factor.diagonal()[1], floors[1])
    gradient = torch.autograd.grad(factor[1, 1], head.covariance_head.bias)[0]
    torch.testing.assert_close(gradient, -1e-3 / 2**0.5 * torch.eye(6, dtype=torch.float64)[3])
