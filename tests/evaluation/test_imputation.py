"""Imputation by a VAE against integrals over its one latent, and against exact linear models."""

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.distributions import covariance_of
from pyrovae.evaluation import impute
from pyrovae.evaluation.imputation import _quantiles
from pyrovae.likelihoods import LIKELIHOODS
from tests.pairs import make_pair

NAN = math.nan
SEEN = torch.tensor([True, False, True, True, False])


def on_a_grid(model, x):
    """Of each missing value its mean, and a function that gives the probability that it is below a number."""
    z = torch.linspace(-6, 6, 4001, dtype=torch.float64).unsqueeze(1)
    p, part = model.likelihood(model.decoder(z)), x[SEEN]
    covariance = covariance_of(p)
    seen = covariance[:, SEEN][:, :, SEEN]
    of_part = torch.distributions.MultivariateNormal(p.mean[:, SEEN], seen)
    weights = (of_part.log_prob(part) - 0.5 * z.squeeze(1).square()).softmax(0)
    slopes = torch.linalg.solve(seen, covariance[:, SEEN][:, :, ~SEEN]).mT
    means = p.mean[:, ~SEEN] + (slopes @ (part - p.mean[:, SEEN]).unsqueeze(-1)).squeeze(-1)
    left = covariance[:, ~SEEN][:, :, ~SEEN] - slopes @ covariance[:, SEEN][:, :, ~SEEN]
    scales = left.diagonal(dim1=-2, dim2=-1).sqrt()
    return weights @ means, lambda value: weights @ torch.distributions.Normal(means, scales).cdf(value)


@pytest.mark.parametrize("name", ["gaussian", "ar1", "low-rank", "gaussian-per-datum", "ar1-per-datum"])
def test_means_and_intervals_are_those_of_the_integral_over_z(name):
    """Where they are reliable: 4,000 draws, the ends' probabilities within 5 standard errors (0.0035)."""
    model, guide = make_pair(n=5, d=1, likelihood=LIKELIHOODS[name], hidden=(16,), seed=4, missing=True)
    with torch.no_grad():
        model.likelihood.loc_head.weight.mul_(4)  # posteriors that are no Gaussians
        for name in model.likelihood.noise_names:  # noise starts without correlations
            model.likelihood.get_parameter(name).add_(torch.tensor(1.0))
        x = model.sample(6)
    x[:, ~SEEN] = NAN
    before = torch.random.get_rng_state()
    found = impute(model, guide, x, num_samples=4000, level=0.9)
    assert torch.equal(before, torch.random.get_rng_state())
    assert found.reliable.sum() >= 2
    for row in found.reliable.nonzero().flatten():
        with torch.no_grad():
            mean, below = on_a_grid(model, x[row])
            width = (found.upper - found.lower)[row, ~SEEN]
            torch.testing.assert_close(found.mean[row, ~SEEN] / width, mean / width, atol=0.04, rtol=0)
            for ends, probability in ((found.lower, 0.05), (found.upper, 0.95)):
                missed = below(ends[row, ~SEEN]) - probability
                torch.testing.assert_close(missed, torch.zeros_like(missed), atol=0.02, rtol=0)
    for part in (found.mean, found.lower, found.upper):
        assert torch.equal(part[:, SEEN], x[:, SEEN])


def test_data_without_gaps_stay_and_data_without_values_get_the_models_own():
    model, guide = make_pair(n=3, seed=1, missing=True, likelihood=LIKELIHOODS["ar1"])
    x = model.sample(2)
    assert torch.equal(impute(model, guide, x).mean, x)
    found = impute(model, guide, torch.full_like(x, NAN), num_samples=1000)
    drawn = model.sample(4000)
    torch.testing.assert_close(found.mean[0], drawn.mean(0), atol=0.2, rtol=0)
    share_below = (drawn < found.lower[0]).double().mean(0)
    torch.testing.assert_close(share_below, torch.full((3,), 0.05).double(), atol=0.03, rtol=0)


@pytest.mark.parametrize("name", ["gaussian", "ar1", "ar1-per-datum", "poisson"])
def test_a_float32_model_takes_float64_data_and_keeps_their_digits(name):
    """NumPy and pandas hold float64."""
    likelihood = LIKELIHOODS[name]
    model, guide = make_pair(n=5, d=1, likelihood=likelihood, hidden=(16,), missing=True, dtype=torch.float32, seed=0)
    x = model.sample(3)
    x[0, 1] = NAN
    more = x.double() + (0.0 if name == "poisson" else 1e-12)  # digits that float32 has not
    found, same = (impute(model, guide, data, num_samples=50) for data in (more, x))
    torch.testing.assert_close(found.mean[0, 1], same.mean[0, 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.lower[0, 1], same.lower[0, 1], rtol=1e-5, atol=1e-5)
    assert torch.equal(found.mean[~x.isnan()], more[~x.isnan()])


def test_counts_are_filled_in_by_counts():
    model, guide = make_pair(n=4, seed=1, missing=True, likelihood=LIKELIHOODS["poisson"])
    x = model.sample(3)
    x[0, 2] = NAN
    found = impute(model, guide, x, num_samples=200)
    assert found.lower[0, 2] == found.lower[0, 2].round() <= found.mean[0, 2] <= found.upper[0, 2]


def test_weighted_quantiles_are_those_of_repeated_values():
    values = torch.tensor([[3.0], [1.0], [2.0]]).double()
    levels = torch.tensor([0.1, 0.5, 0.9]).double()
    assert _quantiles(values, torch.tensor([0.2, 0.2, 0.6]).double(), levels).flatten().tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("level", [0.0, 1.0, 90, "0.9"])
def test_a_level_is_a_probability(level):
    model, guide = make_pair(missing=True)
    with pytest.raises(pv.InputError, match="level must be a number between 0 and 1"):
        impute(model, guide, model.sample(2), level=level)


def test_a_linear_model_is_referred_to_its_exact_method():
    x = torch.randn(20, 3)
    model = pv.FactorModel.fit(x, pv.GaussianLikelihood(1, 3), 1)
    with pytest.raises(TypeError, match=r"a FactorModel has the exact method complete\(x\)"):
        impute(model, x)
