"""Intervals that allow for the estimation of the model: against Student's t, root finding, and simulated coverage."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import optimize, stats

import pyrovae as pv
from pyrovae.datasets import simulated
from pyrovae.linear_gaussian._intervals import calibrated
from pyrovae.linear_gaussian.factor_model import diagonal_model


@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("gaps", [False, True])
def test_the_mean_and_variance_of_a_channel_give_students_t(gaps, level):
    """400 independent channels with 8 values each; the mean over channels of k has an error of 0.5 % at most."""
    g = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(12 if gaps else 8, 400, generator=g, dtype=torch.float64)
    if gaps:
        place = torch.rand(x.shape, generator=g).argsort(0)
        x = x.masked_fill(place < 4, math.nan)
    model = diagonal_model(x)
    new = torch.zeros(2, 400, dtype=torch.float64)
    new[0] = math.nan
    lower, upper = model.intervals(new, x, level=level, refits=200)
    mean, deviation = x.nanmean(0), (x.nanmean(0) - x).square().nanmean(0).sqrt()
    torch.testing.assert_close(0.5 * (lower + upper)[0], mean)
    exact = stats.t.ppf(0.5 + level / 2, 7) * math.sqrt(9 / 7)  # a new value minus the mean, by the likeliest σ
    assert (0.5 * (upper - lower)[0] / deviation).mean().item() == pytest.approx(exact, rel=0.01)


def test_intervals_of_the_refits_contain_draws_of_the_model_with_the_probability():
    g = torch.Generator().manual_seed(1)
    mean, means = torch.randn(6, generator=g).double(), torch.randn(5, 6, generator=g).double()
    deviation, deviations = 0.1 + torch.rand(6, generator=g).double(), 0.1 + torch.rand(5, 6, generator=g).double()
    found = calibrated(mean, deviation, means, deviations, 0.8)
    for j in range(6):
        m, s, m_r, s_r = (part[..., j].numpy() for part in (mean, deviation, means, deviations))
        k = optimize.brentq(lambda k, m=m, s=s, m_r=m_r, s_r=s_r: within(k, m, s, m_r, s_r) - 0.8, 1e-9, 1e4)
        assert found[j].item() == pytest.approx(k * s, rel=1e-6)


def within(k, m, s, m_r, s_r):
    return np.mean(stats.norm.cdf(m_r + k * s_r, m, s) - stats.norm.cdf(m_r - k * s_r, m, s))


def spectra(num, channels, seed, share):
    data = simulated(num, channels, seed=seed, linear=True, correlation=0.9).x.double()
    g = torch.Generator().manual_seed(seed)
    return data, data.masked_fill(torch.rand(data.shape, generator=g) < share, math.nan)


@pytest.fixture(scope="module")
def trained():
    _, x = spectra(60, 12, 0, 0.3)
    return x, pv.FactorModel.fit(x, pv.AR1GaussianLikelihood(1, 12), 3)


def test_observed_values_stay_and_the_same_call_gives_the_same_bits(trained):
    x, model = trained
    state = torch.get_rng_state()
    lower, upper = model.intervals(x, x, refits=3)
    assert torch.equal(state, torch.get_rng_state())
    mean, deviation = model.complete(x)
    missing = x.isnan()
    assert torch.equal(lower[~missing], x[~missing])
    assert torch.equal(upper[~missing], x[~missing])
    torch.testing.assert_close(0.5 * (lower + upper), mean)
    assert ((upper - lower) / (2 * stats.norm.ppf(0.95) * deviation))[missing].mean() > 1
    gaps = torch.zeros_like(x).masked_fill(missing, math.nan)
    table = pd.DataFrame(x.numpy(), index=[f"s{i}" for i in range(60)])
    for found in (model.intervals(x, gaps, refits=3), model.intervals(table, table, refits=3)):
        for part, same in zip(found, (lower, upper), strict=True):
            np.testing.assert_array_equal(part, same)
    assert list(found[0].index) == list(table.index)
    assert not torch.equal(model.intervals(x, x, refits=3, seed=1)[0], lower)


def test_a_shrunk_gaussian_has_intervals_too(trained):
    x, model = trained
    shrunk, _ = pv.ShrunkGaussian.fit(x, spectra(40, 12, 1, 0.0)[1], {"AR(1)": model})
    lower, upper = shrunk.intervals(x[:5], x, refits=3)
    mean, _ = shrunk.complete(x[:5])
    torch.testing.assert_close(0.5 * (lower + upper), mean)


def test_what_has_no_intervals_by_refits_is_refused(trained):
    x, model = trained
    for wrong, said in (
        (lambda: model.intervals(x, x[:, :3]), r"trained must be finite data of shape \(num, 12\)"),
        (lambda: model.intervals(x[:, :3], x), r"x must be finite data of shape \(num, 12\)"),
        (lambda: model.intervals(x, x, level=90), "level must be a number between 0 and 1"),
        (lambda: model.intervals(x, x, refits=0), "refits must be a positive integer"),
    ):
        with pytest.raises(pv.InputError, match=said):
            wrong()


def test_a_full_covariance_has_intervals_by_refits():
    x = torch.randn(60, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    x = x.masked_fill(torch.rand(x.shape) < 0.1, torch.nan)
    model = pv.FactorModel.fit(x[:50], pv.FullCovarianceGaussianLikelihood(1, 6), 1, validation=x[50:])
    lower, upper = model.intervals(x, x[:50], refits=5)
    _, deviation = model.complete(x)
    longer = (upper - lower)[x.isnan()] / (2 * 1.6449 * deviation[x.isnan()])
    assert 1 < longer.mean() < 2


@pytest.mark.slow
@pytest.mark.parametrize(("num", "share", "in_blocks"), [(400, 0.5, True), (60, 0.3, False)])
def test_intervals_at_90_percent_cover_88_to_92(num, share, in_blocks):
    """Where those of the fitted model alone cover 82 % or less; ten simulations, whose mean has an error of 1 %."""
    plain, found = [], []
    for seed in range(10):
        full, x = spectra(num, 60, seed, share)
        if in_blocks:
            first = torch.randint(0, 31, (num, 1), generator=torch.Generator().manual_seed(seed))
            channel = torch.arange(60)
            x = full.masked_fill((channel >= first) & (channel < first + 30), math.nan)
        model, missing = pv.FactorModel.fit(x, pv.AR1GaussianLikelihood(1, 60), 6), x.isnan()
        mean, deviation = model.complete(x)
        plain.append(((mean - full).abs() <= stats.norm.ppf(0.95) * deviation)[missing].double().mean())
        lower, upper = model.intervals(x, x)
        found.append(((lower <= full) & (full <= upper))[missing].double().mean())
    assert np.mean(plain) < 0.84
    assert 0.88 < np.mean(found) < 0.92
