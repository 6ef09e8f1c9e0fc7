"""The linear-Gaussian model of any noise: its fit against closed forms, scikit-learn, the truth."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import FactorAnalysis

import pyrovae as pv
from pyrovae.datasets import simulated
from pyrovae.distributions import covariance_of
from pyrovae.likelihoods import LIKELIHOODS, FullCovarianceGaussianLikelihood
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.linear_gaussian.factor_model import FactorModel, independent_noise
from pyrovae.nn import class_of

NOISES = [n for n, make in LIKELIHOODS.items() if class_of(make).is_gaussian and not class_of(make).is_unrestricted]


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


def test_scales_far_apart_and_strong_correlation_are_fitted_to_the_end():
    """Where marginal scales are known badly and their ratios well: σ over three decades, ρ = 0.998."""
    x = simulated(400, 60, baseline_degree=None, correlation=0.998, noise_scale=1.0, linear=True, seed=1).x.double()
    x = x * 10 ** (3 * torch.linspace(0, 1, 60).double().square())
    found = pv.FactorModel.fit(x, LIKELIHOODS["ar1-per-dimension"](1, 60), 3)
    raw = found.likelihood.raw_noise.clone().requires_grad_()
    noise = torch.func.functional_call(found.likelihood, {"raw_noise": raw}, torch.zeros(1).double())
    covariance = noise.covariance_matrix + found.loadings @ found.loadings.T
    log_prob = torch.distributions.MultivariateNormal(found.offset, covariance).log_prob(x)
    (slope,) = torch.autograd.grad(log_prob.mean(), raw)
    # the best step by Newton's method along each number alone gains slope²/2 over its curvature, the Fisher information
    scores = torch.autograd.functional.jacobian(
        lambda raw: torch.distributions.MultivariateNormal(
            found.offset,
            torch.func.functional_call(found.likelihood, {"raw_noise": raw}, torch.zeros(1).double()).covariance_matrix
            + found.loadings @ found.loadings.T,
        ).log_prob(x),
        raw,
    )
    gain = 0.5 * slope @ torch.linalg.pinv(scores.T @ scores / len(x), hermitian=True) @ slope
    assert gain < 1e-3
    start = LinearGaussianVAE.fit(x, 3)
    assert found.log_prob(x).mean() > start.log_prob(x).mean() + 50


@pytest.mark.parametrize("rank", [1, 2, 9])
def test_low_rank_noise_fits_data_that_fill_few_dimensions(rank):
    x = torch.randn(200, 6, dtype=torch.float64).softmax(-1)  # which fill five
    found = pv.FactorModel.fit(x, pv.LowRankGaussianLikelihood(1, 6, rank), 3)
    simple = pv.FactorModel.fit(x, LIKELIHOODS["gaussian-per-dimension"](1, 6), 3)
    assert found.log_prob(x).mean() > simple.log_prob(x).mean() - 0.01
    few = torch.randn(6, 20, dtype=torch.float64)
    assert pv.FactorModel.fit(few, pv.LowRankGaussianLikelihood(1, 20, rank), 3).latent_dim == 3


@pytest.mark.parametrize("noise", ["low-rank", "full-covariance", "ar1"])
@pytest.mark.parametrize("latent_dim", [0, 8, 20, "2"])
def test_latent_dimensions_that_the_data_cannot_have(x, noise, latent_dim):
    with pytest.raises(ValueError, match="latent_dim must be an integer from 1 to 7"):
        pv.FactorModel.fit(x, LIKELIHOODS[noise](1, 8), latent_dim)


def test_a_full_covariance_of_singular_data_is_no_worse_than_the_simpler_noise_on_validation(x):
    copied = torch.cat([x, x[:, :1]], dim=1)
    train, validation = copied.split([300, 200])
    simple = pv.FactorModel.fit(train, LIKELIHOODS["ar1-per-dimension"](1, 9), 2)
    full = pv.FactorModel.fit(train, LIKELIHOODS["full-covariance"](1, 9), 2, validation)
    assert full.log_prob(validation).mean() >= simple.log_prob(validation).mean() - 1e-6


@pytest.mark.parametrize("noise", ["gaussian-per-dimension", "ar1-per-dimension"])
def test_signals_far_above_the_noise_are_fitted(noise):
    """At 1e5 times the noise sums over all eigenvalues would have no digits left for what is not the signal's."""
    generator = torch.Generator().manual_seed(1)
    z, a = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((300, 3), (3, 12)))
    e = torch.randn(300, 12, generator=generator, dtype=torch.float64).cumsum(-1)
    found = {size: pv.FactorModel.fit(size * z @ a + e, LIKELIHOODS[noise](1, 12), 3) for size in (1.5e2, 1.5e5)}
    for size, model in found.items():
        x = size * z @ a + e
        assert model.log_prob(x).mean() > LinearGaussianVAE.fit(x, 3).log_prob(x).mean() + 1
    small, large = (model.noise_covariance.diagonal() for model in found.values())
    torch.testing.assert_close(large, small, rtol=0.05, atol=0)  # the noise is what is left beside the signal


@pytest.mark.parametrize("bad", [torch.zeros(0, 8), torch.full((3, 8), torch.nan), torch.zeros(3, 7), torch.zeros(8)])
def test_validation_data_are_checked(x, bad):
    with pytest.raises(ValueError, match=r"validation must be finite data of shape \(num, 8\)"):
        pv.FactorModel.fit(x, LIKELIHOODS["full-covariance"](1, 8), 2, bad)


def test_a_fit_that_ends_early_says_so(x):
    with pytest.warns(UserWarning, match="AR1GaussianLikelihood has not converged after 3 steps"):
        pv.FactorModel.fit(x, LIKELIHOODS["ar1-per-dimension"](1, 8), 2, max_steps=3)


@pytest.mark.parametrize("noise", [*NOISES, "full-covariance", "full-covariance-per-datum"])
def test_coordinates_of_noise_are_logarithms_of_scales(noise):
    likelihood = LIKELIHOODS[noise](3, 4, initial_scale=0.5).double()
    if likelihood.depends_on_z:
        likelihood.start_at(0.5)
    for name in likelihood.noise_names:
        likelihood.get_parameter(name).detach().add_(0.3)
    size, zero = likelihood.num_noise_parameters, torch.zeros(3, dtype=torch.float64)

    def covariance(coordinates):
        return covariance_of(torch.func.functional_call(likelihood, likelihood.noise_parameters(coordinates), zero))

    before = covariance(torch.zeros(size, dtype=torch.float64))
    torch.testing.assert_close(before, likelihood.noise_covariance(zero))
    coordinates = torch.zeros(size, dtype=torch.float64)
    # all scales at once are the first coordinate of AR(1) noise, all of independent noise, the first 4 of the others
    coordinates[: size if "gaussian" in noise else 1 if noise.startswith("ar1") else 4] = math.log(2)
    moved, factor = covariance(coordinates), torch.zeros(4, 4, dtype=torch.float64)
    if "low-rank" in noise:  # whose W stays, and of δ² what it adds of its own
        factor = likelihood(zero).cov_factor @ likelihood(zero).cov_factor.T
        factor = factor + 1e-4 * factor.diagonal().diag()
    torch.testing.assert_close(moved - factor, 4 * (before - factor), rtol=1e-3, atol=1e-12)  # all but the floor


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
    assert found.noise_covariance.diagonal().sqrt().min() > 4e-4 * ppca  # the likelihood's own floor is 1e-4
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


def test_loadings_that_explain_more_than_the_data_hold_leave_the_noise_as_it_is():
    """S − LLᵀ is then no covariance, and so no noise."""
    x = torch.randn(200, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loadings = torch.zeros(5, 1, dtype=torch.float64)
    loadings[0] = 10.0
    simpler = FactorModel(loadings, torch.zeros(5), independent_noise(torch.ones(5, dtype=torch.float64)))
    found = simpler.with_noise_of(FullCovarianceGaussianLikelihood(1, 5), 1, x[:100], x[100:])
    torch.testing.assert_close(found.noise_covariance, torch.eye(5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_number_of_parameters_is_that_of_the_covariances_that_the_model_has():
    """The rank of the derivative of the mean and the covariance by A, b and the variances of the noise."""
    n, d = 5, 2
    generator = torch.Generator().manual_seed(0)
    loadings = torch.randn(n, d, generator=generator).double()
    for likelihood, num_noise in ((pv.GaussianLikelihood(1, n), 1), (pv.GaussianLikelihood(1, n, "per-dimension"), n)):
        variances = torch.rand(num_noise, generator=generator).double() + 0.5

        def moments(numbers, num_noise=num_noise):
            a, b, noise = numbers.split([n * d, n, num_noise])
            a = a.reshape(n, d)
            return torch.cat([b, (a @ a.T + noise.expand(n).diag())[*torch.tril_indices(n, n)]])

        at = torch.cat([loadings.flatten(), torch.zeros(n).double(), variances])
        rank = torch.linalg.matrix_rank(torch.autograd.functional.jacobian(moments, at))
        assert FactorModel(loadings, torch.zeros(n), likelihood).num_parameters == rank
    assert FactorModel.of(LinearGaussianVAE(loadings, 0.5)).num_parameters == n * d - 1 + n + 1


def test_a_full_covariance_is_refitted_as_one():
    """It was the model with AR(1) noise, which validation data shrink it to."""
    root = torch.randn(8, 8, dtype=torch.float64)
    x, other, new = (torch.randn(num, 8, dtype=torch.float64) @ root for num in (1000, 1000, 2000))
    model = pv.FactorModel.fit(x[:800], FullCovarianceGaussianLikelihood(1, 8), 1, validation=x[800:])
    shrunk_to = pv.FactorModel.fit(x, LIKELIHOODS["ar1-per-dimension"](1, 8), 1)
    expected, gained = model.log_prob(new).mean(), model.log_prob(new).mean() - shrunk_to.log_prob(new).mean()
    assert gained > 1
    for refitted in (model.refit(other), model.refit(other.masked_fill(torch.rand(other.shape) < 0.002, torch.nan))):
        assert refitted.log_prob(new).mean() == pytest.approx(expected.item(), abs=0.1 * gained.item())
