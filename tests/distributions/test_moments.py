"""Moments are exact or refused; draws estimate them only where the caller asks for it."""

import pytest
import torch
from pyro.distributions import Independent, Normal, TransformedDistribution
from torch.distributions import AffineTransform, Categorical, Dirichlet, MixtureSameFamily

from pyrovae.distributions import AR1Normal, PartiallyObserved, covariance_of, mean_of


def without_moments():
    """N(1, 4 I) as a distribution that does not know its moments."""
    base = Normal(torch.zeros(3, 2), 1.0).to_event(1)
    return TransformedDistribution(base, AffineTransform(1.0, 2.0, event_dim=1))


@pytest.mark.parametrize("moment", [mean_of, covariance_of])
def test_unknown_moments_are_refused_in_one_line(moment):
    name = moment.__name__.removesuffix("_of")
    with pytest.raises(TypeError, match=f"^a TransformedDistribution does not know its {name}; give num_draws"):
        moment(without_moments())


def test_draws_estimate_unknown_moments():
    torch.manual_seed(0)
    mean = mean_of(without_moments(), num_draws=40_000)
    covariance = covariance_of(without_moments(), num_draws=40_000)
    # standard errors 2/200 and at most 4 √2/200; twelve comparisons within 5 fail with probability below 1e-5
    assert (mean - 1).abs().max() < 5 * 2 / 200
    assert (covariance - 4 * torch.eye(2)).abs().max() < 5 * 4 * 2**0.5 / 200


def test_known_moments_are_exact_whatever_the_draws():
    q = AR1Normal(torch.arange(3.0), torch.tensor([0.5]), correlation=torch.tensor([0.9]))
    for p in (q, PartiallyObserved(q)):
        assert torch.equal(mean_of(p, num_draws=2), torch.arange(3.0))
        torch.testing.assert_close(
            covariance_of(p, num_draws=2), 0.25 * 0.9 ** (torch.arange(3.0)[:, None] - torch.arange(3.0)).abs()
        )
    independent = PartiallyObserved(Normal(torch.zeros(2), torch.tensor([1.0, 2.0])).to_event(1))
    assert torch.equal(covariance_of(independent), torch.tensor([[1.0, 0.0], [0.0, 4.0]]))


@pytest.mark.parametrize(
    ("name", "moment"), [("mean", mean_of), ("covariance_matrix", covariance_of), ("variance", covariance_of)]
)
def test_a_mistake_inside_a_property_keeps_its_error(name, moment):
    class Mistaken(Independent):
        """A distribution with a misspelt name inside a property."""

    setattr(Mistaken, name, property(lambda self: self.bse_dist.mean))
    with pytest.raises(AttributeError, match="bse_dist"):
        moment(Mistaken(Normal(torch.zeros(2), 1.0), 1), num_draws=16)


def test_the_covariance_of_a_mixture_is_that_of_its_draws():
    """Its variances alone say nothing of how its components lie: here along a diagonal."""
    weights = torch.tensor([0.3, 0.7])
    parts = torch.distributions.Normal(torch.tensor([[-2.0, -1.0], [1.0, 3.0]]), 0.5)
    mixture = MixtureSameFamily(Categorical(weights), Independent(parts, 1))
    draws = mixture.sample(torch.Size([100_000]))
    found = covariance_of(mixture)
    torch.testing.assert_close(found, draws.mT.cov(), atol=0.15, rtol=0)  # 5 standard errors
    assert found[0, 1].item() == pytest.approx(0.3 * 0.7 * 3.0 * 4.0, abs=1e-5)


def test_variances_of_dependent_numbers_are_no_covariance():
    dirichlet = Dirichlet(torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(TypeError, match="a Dirichlet does not know its covariance; give num_draws"):
        covariance_of(dirichlet)
    found, mean = covariance_of(dirichlet, num_draws=100_000), dirichlet.mean
    torch.testing.assert_close(found, (mean.diag() - mean.outer(mean)) / 7, atol=0.002, rtol=0)
