"""Simulated spectra against their truth."""

import math
import typing

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import voigt_profile

from pyrovae.datasets import SimulationSettings, simulated
from pyrovae.datasets.simulation import SimulationKeywords, peak


def test_linear_simulator_has_the_density_it_says():
    spectra = simulated(4000, 30, linear=True, correlation=0.8, noise_scale=0.05, seed=3)
    truth = spectra.truth
    steps = np.abs(np.subtract.outer(np.arange(30), np.arange(30)))
    loadings = truth.loadings.numpy()
    assert loadings.shape == (30, 3 + 3)
    covariance = loadings @ loadings.T + 0.05**2 * 0.8**steps
    expected = stats.multivariate_normal(truth.pure.mean(0).numpy(), covariance).logpdf(spectra.x[:5].double().numpy())
    np.testing.assert_allclose(truth.log_prob(spectra.x[:5]).numpy(), expected, rtol=1e-9)
    # E log p = −entropy, within 5 standard errors: a false alarm once in 1.7 million seeds
    log_p = truth.log_prob(spectra.x)
    entropy = 0.5 * np.linalg.slogdet(2 * math.pi * math.e * covariance)[1]
    assert abs(log_p.mean().item() + entropy) < 5 * log_p.std().item() / math.sqrt(4000)
    assert np.abs(np.cov(spectra.x.double().T.numpy()) - covariance).max() < 6 * covariance.max() * math.sqrt(2 / 4000)


@pytest.mark.parametrize("linear", [False, True])
def test_noise_has_the_known_scale_and_correlation(linear):
    spectra = simulated(500, 80, correlation=0.7, noise_scale=0.02, linear=linear, seed=1)
    noise = (spectra.x - spectra.clean).double()
    num = noise.numel()
    assert noise.std().item() == pytest.approx(0.02, rel=5 * math.sqrt((1 + 0.49) / (1 - 0.49) / 2 / num))
    rho = (noise[:, 1:] * noise[:, :-1]).mean().item() / 0.02**2
    assert rho == pytest.approx(0.7, abs=5 * math.sqrt(5 / num))


def test_clean_spectra_are_beer_lambert_mixtures():
    spectra = simulated(50, 40, components=4, baseline_degree=None, scatter=0.1, seed=2)
    scatter = torch.tensor(spectra.targets["scatter"].to_numpy()).unsqueeze(1)
    torch.testing.assert_close(spectra.clean.double(), scatter * (spectra.concentrations @ spectra.truth.pure))
    torch.testing.assert_close(spectra.concentrations.sum(1), torch.ones(50).double())
    assert (spectra.concentrations > 0).all()
    assert scatter.log().std().item() == pytest.approx(0.1, rel=0.5)
    alone = simulated(3, 20, components=1)
    with pytest.raises(ValueError, match="needs linear=True, or scatter and 2 to 20 substances"):
        alone.truth.log_prob(alone.x)


@pytest.mark.parametrize("baseline_degree", [None, 1])
def test_density_of_mixtures_is_the_integral_over_what_they_are_made_of(baseline_degree):
    spectra = simulated(4, 25, components=2, baseline_degree=baseline_degree, noise_scale=0.05, scatter=0.1, seed=1)
    truth, (log_p, stderr) = spectra.truth, spectra.truth.log_marginal(spectra.x, num_draws=20_000)
    noise = truth.noise.covariance_matrix.numpy()
    share, log_scatter = (np.arange(300) + 0.5) / 300, np.linspace(-0.6, 0.6, 121)
    prior = stats.beta(4, 4).logpdf(share)[:, None] + stats.norm(0, 0.1).logpdf(log_scatter)
    means = share[:, None] * truth.pure[0].numpy() + (1 - share[:, None]) * truth.pure[1].numpy()
    for x, found in zip(spectra.x.double().numpy(), log_p, strict=True):
        given = [
            stats.multivariate_normal(np.zeros(25), noise + s**2 * (truth.baseline.T @ truth.baseline).numpy()).logpdf(
                x - s * means
            )
            for s in np.exp(log_scatter)
        ]
        whole = np.logaddexp.reduce(np.stack(given, 1) + prior, axis=None)
        assert found.item() == pytest.approx(whole + np.log(1.2 / 120 / 300), abs=0.02)
    assert stderr.max() < 0.02


def test_gaussian_concentrations_have_the_mixtures_moments():
    mixed, linear = (simulated(20_000, 2, linear=linear).concentrations for linear in (False, True))
    torch.testing.assert_close(mixed.mean(0), linear.mean(0), atol=0.005, rtol=0)
    torch.testing.assert_close(mixed.std(0), linear.std(0), atol=0, rtol=0.03)


def test_peaks():
    distance = np.linspace(-1, 1, 4001)
    for shape in ("gaussian", "lorentzian", "voigt"):
        profile = peak(distance, 0.2, shape)
        assert profile[2000] == pytest.approx(1)
        assert np.ptp(distance[profile >= 0.5]) == pytest.approx(0.2, abs=2e-3)
    # a Voigt profile is the convolution of its two, by direct integration
    sigma, gamma = 0.3, 0.2
    convolved = quad(lambda t: stats.norm.pdf(t, scale=sigma) * stats.cauchy.pdf(0.4 - t, scale=gamma), -8, 8)[0]
    assert voigt_profile(0.4, sigma, gamma) == pytest.approx(convolved, rel=1e-8)


def test_simulations_repeat_and_differ():
    first, same, other = (simulated(5, 12, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first.x, same.x)
    assert not torch.equal(first.truth.pure, other.truth.pure)
    assert not torch.equal(first.x, first.truth.sample(5, seed=1).x)
    part = first.take([3, 1])
    assert torch.equal(part.x, first.x[[3, 1]])
    assert torch.equal(part.concentrations, first.concentrations[[3, 1]])
    assert first.axis[[0, -1]].tolist() == [1000, 2500]
    assert (first.unit, first.x.dtype) == ("nm", torch.float32)
    scales = np.linspace(0.01, 0.1, 12)
    assert simulated(5, 12, noise_scale=scales.tolist()).truth.noise_scale.tolist() == scales.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": 0}, "components must be a positive integer"),
        ({"correlation": 1.0}, "inside"),
        ({"noise_scale": [0.1, 0.2]}, "a positive number or 9 of them"),
        ({"shapes": ("box",)}, "shapes must be some of"),
        ({"baseline_degree": -1}, "baseline_degree"),
        ({"axis": (2.0, 1.0)}, "axis must be"),
        ({"scatter": -0.1}, "scatter must be a finite number"),
        ({"baseline_scale": math.inf}, "baseline_scale must be a finite number"),
        ({"noise_scale": -1.0}, "noise_scale must be a positive number"),
        ({"peeks": 3}, "no setting .peeks. .did you mean .peaks."),
    ],
)
def test_simulations_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        simulated(5, 9, **settings)


def test_simulation_settings_are_declared_once():
    assert typing.get_type_hints(SimulationSettings) == typing.get_type_hints(SimulationKeywords)
