"""The linear-Gaussian model of any noise: its fit against closed forms, scikit-learn, the truth."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import FactorAnalysis

import pyrovae as pv
from pyrovae.datasets.spectra import simulated
from pyrovae.distributions import covariance_of
from pyrovae.exact import LinearGaussianVAE
from pyrovae.likelihoods import LIKELIHOODS

NOISES = [name for name in LIKELIHOODS if "bernoulli" not in name and "full" not in name]


@pytest.fixture
def x():
    noise = torch.linspace(0.3, 1, 8).double() * torch.randn(500, 8, dtype=torch.float64)
    return torch.randn(500, 2, dtype=torch.float64) @ torch.randn(2, 8, dtype=torch.float64) + noise - 3


def test_one_scale_is_probabilistic_pca_and_one_a_channel_factor_analysis(x):
    found = pv.FactorModel.fit(x, pv.GaussianLikelihood(1, 8), 2)
    truth = LinearGaussianVAE.fit(x, 2)
    torch.testing.assert_close(found.log_prob(x), truth.log_prob(x), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.noise_covariance, truth.noise_scale**2 * torch.eye(8).double(), rtol=1e-3, atol=0)
    found = pv.FactorModel.fit(x, LIKELIHOODS["gaussian-per-dimension"](1, 8), 2)
    own = FactorAnalysis(2, svd_method="lapack", tol=1e-8, max_iter=20_000).fit(x.numpy())
    assert found.log_prob(x).mean().item() == pytest.approx(own.score(x.numpy()), abs=1e-4)
    np.testing.assert_allclose(found.noise_covariance.diagonal(), own.noise_variance_, rtol=0.02)


@pytest.mark.parametrize("noise", NOISES)
def test_no_small_step_of_any_parameter_is_likelier(x, noise):
    found = pv.FactorModel.fit(x, LIKELIHOODS[noise](3, 8), 2, max_steps=2000)
    values = {"loadings": found.loadings.clone().requires_grad_(), "offset": found.offset.clone().requires_grad_()}
    likelihood = found.likelihood
    for name, parameter in likelihood.named_parameters():
        if not name.startswith("loc_head.") and not name.endswith("_head.weight"):
            values[name] = parameter.requires_grad_()
    noise_covariance = covariance_of(likelihood(torch.zeros(3, dtype=torch.float64)))
    marginal = torch.distributions.MultivariateNormal(
        values["offset"], values["loadings"] @ values["loadings"].T + noise_covariance
    )
    marginal.log_prob(x).mean().backward()
    for name, value in values.items():
        assert value.grad.abs().max() < 5e-3, name  # the prior's part is 1/500 of a datum's


def test_the_truth_of_correlated_noise_is_found():
    spectra = simulated(4000, 30, baseline_degree=None, correlation=0.8, noise_scale=0.02, linear=True, seed=3)
    found = pv.FactorModel.fit(spectra.x, pv.AR1GaussianLikelihood(1, 30), 3)
    ar1 = found.likelihood
    assert ar1.noise_correlation.item() == pytest.approx(0.8, abs=0.01)
    assert ar1.noise_scale.item() == pytest.approx(0.02, rel=0.02)
    test = spectra.truth.sample(4000, seed=5).x
    # what a likeliest model of k parameters loses on new data is k/2 in all training data
    lost = (spectra.truth.log_prob(test) - found.log_prob(test)).mean().item()
    assert 0 < lost < 2 * (30 * 4 + 2) / 2 / 4000


def test_posterior_and_reconstruction_are_bayes(x):
    found = pv.FactorModel.fit(x, LIKELIHOODS["ar1-per-dimension"](1, 8), 2)
    a, psi, b = (value.numpy() for value in (found.loadings, found.noise_covariance, found.offset))
    joint = a @ a.T + psi
    np.testing.assert_allclose(found.gain, a.T @ np.linalg.inv(joint), atol=1e-10)
    expected = stats.multivariate_normal(b, joint).logpdf(x.numpy())
    np.testing.assert_allclose(found.log_prob(x), expected, rtol=1e-10)
    np.testing.assert_allclose(found.reconstruct(x), b + (x.numpy() - b) @ np.linalg.inv(joint) @ a @ a.T, atol=1e-10)
    conditional = 1 / np.sqrt(np.diag(np.linalg.inv(psi)))
    np.testing.assert_allclose(found.conditional_scale, conditional, rtol=1e-10)
    covariance = np.eye(2) - a.T @ np.linalg.inv(joint) @ a
    np.testing.assert_allclose(found.whitened.covariance, covariance, atol=1e-10)


def test_full_covariance_takes_the_correlated_noise_it_contains(x):
    simple = pv.FactorModel.fit(x, LIKELIHOODS["ar1-per-dimension"](1, 8), 2)
    for name in ("full-covariance", "full-covariance-per-datum"):
        full = pv.FactorModel.fit(x, LIKELIHOODS[name](3, 8), 2)
        torch.testing.assert_close(full.noise_covariance, simple.noise_covariance)
        torch.testing.assert_close(full.log_prob(x), simple.log_prob(x))


def test_a_channel_without_noise_keeps_some(x):
    """Two channels that are the same to 1e-9, a Heywood case: factor analysis would give one of them σ = 0."""
    copied = torch.cat([x, x[:, :1] + 1e-9 * torch.randn(500, 1, dtype=torch.float64)], dim=1)
    found = pv.FactorModel.fit(copied, LIKELIHOODS["gaussian-per-dimension"](1, 9), 3)
    ppca = LinearGaussianVAE.fit(copied, 3).noise_scale
    assert found.noise_covariance.diagonal().sqrt().min() > 1e-4 * ppca
    assert math.isfinite(found.log_prob(copied).mean())


def test_it_is_the_same_each_time_and_leaves_its_arguments_and_the_random_state_alone(x):
    likelihood = LIKELIHOODS["low-rank"](1, 8)
    before, state = {k: v.clone() for k, v in likelihood.state_dict().items()}, torch.get_rng_state()
    first, second = (pv.FactorModel.fit(x, likelihood, 2) for _ in range(2))
    assert torch.equal(first.noise_covariance, second.noise_covariance)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in likelihood.state_dict().items())
    assert likelihood.initial_scale == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: pv.FactorModel.fit(x, pv.GaussianLikelihood(1, 7), 2), "the likelihood has n = 7, the data 8"),
        (lambda x: pv.FactorModel.fit(x, pv.GaussianLikelihood(1, 8), 8), "latent_dim must be an integer from 1 to 7"),
        (lambda x: pv.FactorModel.fit(x / 0, pv.GaussianLikelihood(1, 8), 2), "NaN or infinite"),
        (
            lambda x: pv.FactorModel(torch.zeros(3, 2), torch.zeros(8), pv.GaussianLikelihood(1, 8)),
            r"loadings must have shape \(8, d\)",
        ),
    ],
)
def test_what_does_not_fit_says_so(x, make, message):
    with pytest.raises(ValueError, match=message):
        make(x)


def test_other_likelihoods_are_refused(x):
    with pytest.raises(TypeError, match="needs a Gaussian likelihood, not BernoulliLikelihood"):
        pv.FactorModel.fit(x, pv.BernoulliLikelihood(1, 8), 2)


def test_linear_baselines_of_any_noise(x):
    train, test = x[:300], x[300:]
    found = pv.linear_baselines(train, test, 2, {"ar1": pv.AR1GaussianLikelihood})
    assert [baseline.name for baseline in found][3:] == ["linear, ar1"]
    truth = pv.FactorModel.fit(train, pv.AR1GaussianLikelihood(1, 8), 2)
    assert torch.equal(found[3].log_prob, truth.log_prob(test))
    assert torch.equal(found[3].reconstruction, truth.reconstruct(test))
