"""Linear models of data with missing values: against dense marginal and conditional densities, and the truth."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import pyrovae as pv
from pyrovae.datasets import simulated
from pyrovae.distributions import covariance_of
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian._completion import complete
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.linear_gaussian.factor_model import diagonal_model
from pyrovae.nn import class_of

N, D = 8, 2
NOISES = [name for name, make in LIKELIHOODS.items() if class_of(make).is_gaussian]
FITTED = [name for name in NOISES if not class_of(LIKELIHOODS[name]).is_unrestricted and "low-rank" not in name]


def draws(num, seed=0):
    g = torch.Generator().manual_seed(seed)
    noise = torch.linspace(0.3, 1, N).double() * torch.randn(num, N, generator=g, dtype=torch.float64)
    z = torch.randn(num, D, generator=g, dtype=torch.float64)
    a = torch.randn(D, N, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return z @ a + noise - 3


def with_gaps(x, share=0.3, seed=1):
    return x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share, math.nan)


X = with_gaps(draws(200))
NEW = with_gaps(draws(12, seed=5))
NEW[0], NEW[1] = math.nan, draws(1, seed=6)[0]  # nothing observed, and everything
NEW[2:5] = draws(3, seed=7).masked_fill(torch.arange(N) % 3 == 1, math.nan)  # a common pattern


def shrunk(num):
    x, validation = draws(num), draws(60, seed=3)
    ar1 = pv.FactorModel.fit(draws(200), LIKELIHOODS["ar1"](1, N), D)
    ar1.offset.copy_(x.mean(0))
    return pv.ShrunkGaussian.fit(x, validation, {"its diagonal": diagonal_model(x), "AR(1)": ar1})[0]


MODELS = {name: lambda name=name: pv.FactorModel.fit(draws(200), LIKELIHOODS[name](1, N), D) for name in NOISES}
MODELS |= {"independent channels": lambda: diagonal_model(draws(200))}
MODELS |= {"few": lambda: shrunk(5), "many": lambda: shrunk(150), "pca": lambda: LinearGaussianVAE.fit(draws(200), D)}


def dense(model):
    return model.offset.numpy(), (model.loadings @ model.loadings.T + model.noise_covariance).numpy()


@pytest.mark.parametrize("name", MODELS)
def test_the_density_of_what_was_observed_is_the_dense_marginal(name):
    model = MODELS[name]()
    mean, covariance = dense(model)
    expected = []
    for row in NEW.numpy():
        o = ~np.isnan(row)
        part = stats.multivariate_normal(mean[o], covariance[o][:, o]).logpdf(row[o]) if o.any() else 0.0
        expected.append(part)
    np.testing.assert_allclose(model.log_prob(NEW), expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.log_prob(NEW.reshape(3, 4, N)).flatten(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_missing_values_are_completed_by_their_conditional_distribution(name):
    model = MODELS[name]()
    b, m = dense(model)
    completed, deviation = model.complete(NEW)
    more = np.zeros((N, N))
    for row, found, spread in zip(NEW.numpy(), completed.numpy(), deviation.numpy(), strict=True):
        o = ~np.isnan(row)
        gain = m[~o][:, o] @ np.linalg.inv(m[o][:, o])
        covariance = m[~o][:, ~o] - gain @ m[o][:, ~o]
        np.testing.assert_allclose(found[~o], b[~o] + gain @ (row[o] - b[o]), rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(spread[~o], np.sqrt(np.diag(covariance)), rtol=1e-7)
        np.testing.assert_array_equal(found[o], row[o])
        assert (spread[o] == 0).all()
        more[np.ix_(~o, ~o)] += covariance / len(NEW)
    mean, covariance = model.expected_moments(NEW)
    np.testing.assert_allclose(mean, completed.mean(0))
    np.testing.assert_allclose(covariance, np.cov(completed.numpy().T, bias=True) + more, atol=1e-9)


@pytest.mark.parametrize("name", ["gaussian-per-dimension", "ar1"])
def test_data_completed_some_at_a_time_are_the_same(name):
    model = MODELS[name]()
    affine = torch.cat([model.loadings, model.offset.unsqueeze(-1)], dim=1)
    for found, whole in zip(complete(model.noise, affine, NEW, numbers=1), model.complete(NEW), strict=True):
        torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("name", [*NOISES, "pca"])
def test_the_posterior_is_bayes_of_what_was_observed(name):
    model = MODELS[name]()
    b, m = dense(model)
    a, p = model.loadings.numpy(), model.posterior(NEW)
    for i, row in enumerate(NEW.numpy()):
        o = ~np.isnan(row)
        gain = a[o].T @ np.linalg.inv(m[o][:, o])
        mean, covariance = gain @ (row[o] - b[o]), np.eye(D) - gain @ a[o]
        np.testing.assert_allclose(p.mean[i], mean, atol=1e-8)
        np.testing.assert_allclose(p.covariance_matrix[i], covariance, atol=1e-8)
        np.testing.assert_allclose(model.reconstruct(NEW)[i], b + a @ mean, atol=1e-8)
        spread = np.sqrt(np.diag(a @ covariance @ a.T) + np.diag(model.noise_covariance.numpy()))
        np.testing.assert_allclose(model.spread(NEW)[i], spread, rtol=1e-7)
        kl = 0.5 * (mean @ mean + np.trace(covariance) - D - np.linalg.slogdet(covariance)[1])
        assert model.kl(NEW)[i].item() == pytest.approx(kl, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", ["ar1", "low-rank", "full-covariance", "few", "many"])
def test_slopes_and_channels_given_the_other_observed_ones(name):
    model = MODELS[name]()
    b, m = dense(model)
    slopes, means = model.score(NEW), model.conditional_means(NEW)
    for i, row in enumerate(NEW.numpy()):
        o = ~np.isnan(row)
        precision = np.linalg.inv(m[o][:, o])
        slope = -precision @ (row[o] - b[o])
        np.testing.assert_allclose(slopes[i][o], slope, atol=1e-8)
        assert (slopes[i].numpy()[~o] == 0).all()
        np.testing.assert_allclose(means[i][o], row[o] + slope / np.diag(precision), atol=1e-8)
        if name in ("few", "many"):
            np.testing.assert_allclose(model.spread(NEW)[i][o], np.diag(precision) ** -0.5, rtol=1e-7)
    assert means.isfinite().all()


@pytest.mark.parametrize("noise", FITTED)
def test_no_small_step_of_any_parameter_is_likelier(noise):
    found = pv.FactorModel.fit(X, LIKELIHOODS[noise](3, N), D)
    values = {"loadings": found.loadings.clone().requires_grad_(), "offset": found.offset.clone().requires_grad_()}
    for name in found.likelihood.noise_names:
        values[name] = found.likelihood.get_parameter(name).requires_grad_()
    covariance = covariance_of(found.likelihood(torch.zeros(3, dtype=torch.float64)))
    covariance = values["loadings"] @ values["loadings"].T + covariance
    total = 0.0
    for row in X:
        o = ~row.isnan()
        marginal = torch.distributions.MultivariateNormal(values["offset"][o], covariance[o][:, o])
        total = total + marginal.log_prob(row[o])
    (total / len(X)).backward()
    for name, value in values.items():
        assert value.grad.abs().max() < 1e-2, name  # the prior's part is 1/200 of a datum's


@pytest.mark.parametrize("noise", NOISES)
def test_one_missing_value_changes_little(noise):
    complete, x = draws(200), draws(200)
    x[7, 3] = math.nan
    validation = draws(60, seed=3)
    of_all = pv.FactorModel.fit(complete, LIKELIHOODS[noise](1, N), D, validation)
    of_some = pv.FactorModel.fit(x, LIKELIHOODS[noise](1, N), D, validation)
    torch.testing.assert_close(of_some.log_prob(NEW), of_all.log_prob(NEW), atol=0.05, rtol=0)
    assert of_some.loadings.shape == (N, D)


def test_the_truth_is_found_within_what_estimation_loses():
    """The likeliest model of k numbers loses k/2 nats in all training data, more where half of these are missing."""
    spectra = simulated(500, 30, baseline_degree=None, correlation=0.8, noise_scale=0.02, linear=True, seed=3)
    test = with_gaps(spectra.truth.sample(400, seed=5).x.double(), 0.3)
    truth = pv.FactorModel.fit(spectra.truth.sample(8_000, seed=8).x, pv.AR1GaussianLikelihood(1, 30), 3)
    random, blocks = with_gaps(spectra.x.double(), 0.5), spectra.x.double().clone()
    for i in range(len(blocks)):
        blocks[i, 6 * (i % 4) : 6 * (i % 4) + 12] = math.nan
    for x in (random, blocks):
        found = pv.FactorModel.fit(x, pv.AR1GaussianLikelihood(1, 30), 3)
        lost = (truth.log_prob(test) - found.log_prob(test)).mean().item()
        assert 0 < lost < 4 * (30 * 4 + 2) / 2 / 500
        assert found.likelihood.noise_correlation.item() == pytest.approx(0.8, abs=0.03)
        assert found.likelihood.noise_scale.item() == pytest.approx(0.02, rel=0.04)


@pytest.mark.parametrize("noise", ["ar1", "ar1-per-dimension"])
def test_the_fit_to_a_channel_that_is_observed_once_ends_at_its_maximum(noise):
    """There the value is what the others suggest, with the variance of the noise given theirs alone."""
    full = simulated(600, 12, seed=0, linear=True, correlation=0.9).x.double()
    x, at = with_gaps(full, 0.2), 7
    x[:, at] = math.nan
    x[3] = full[3]
    fitted = pv.FactorModel.fit(x, LIKELIHOODS[noise](1, 12), 3)
    others = torch.arange(12) != at
    covariance, loadings, offset = fitted.noise_covariance, fitted.loadings.clone(), fitted.offset.clone()
    weights = torch.linalg.solve(covariance[others][:, others], covariance[others, at])
    loadings[at] = weights @ loadings[others]
    likelier = pv.FactorModel(loadings, offset, fitted.likelihood)
    offset[at] += full[3, at] - likelier.complete(x[3].masked_fill(~others, math.nan))[0][at]
    likelier = pv.FactorModel(loadings, offset, fitted.likelihood)
    assert fitted.log_prob(x).sum() > likelier.log_prob(x).sum() - 0.1  # nats in all


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_the_fit_is_likelier_than_the_truth_where_no_datum_has_some_pairs_of_channels(seed):
    """Otherwise it is a poor maximum: the data are likelier under the likeliest model than under any other."""
    spectra = simulated(300, 30, correlation=0.0, linear=True, seed=seed)
    x = spectra.x.double()
    first = torch.randint(0, 16, (300, 1), generator=torch.Generator().manual_seed(seed))
    x = x.masked_fill((torch.arange(30) >= first) & (torch.arange(30) < first + 15), math.nan)
    found = pv.FactorModel.fit(x, pv.GaussianLikelihood(1, 30), 6)
    mean, covariance = spectra.truth.offset, spectra.truth.covariance_matrix
    total = 0.0
    for row in x:
        o = ~row.isnan()
        total += torch.distributions.MultivariateNormal(mean[o], covariance[o][:, o]).log_prob(row[o]).item()
    assert found.log_prob(x).mean().item() == pytest.approx(total / 300 + (30 * 7 - 15) / 600, abs=0.1)


@pytest.mark.parametrize("noise", ["gaussian", "gaussian-per-dimension", "ar1"])
@pytest.mark.parametrize("sizes", [(6, 6), (5, 2), (5, 1), (3, 3, 3)])
def test_groups_of_channels_that_no_datum_connects_each_have_their_components(noise, sizes):
    """As of several instruments; a start with components of one group alone is a saddle."""
    g = torch.Generator().manual_seed(0)
    n, num, scale = sum(sizes), 200, 0.3
    a = torch.randn(n, D, generator=g, dtype=torch.float64)
    parts, truth, start = [], 0.0, 0
    for size in sizes:
        seen = slice(start, start + size)
        x = torch.randn(num, D, generator=g, dtype=torch.float64) @ a[seen].T
        x = x + scale * torch.randn(num, size, generator=g, dtype=torch.float64)
        covariance = a[seen] @ a[seen].T + scale**2 * torch.eye(size, dtype=torch.float64)
        truth += torch.distributions.MultivariateNormal(torch.zeros(size).double(), covariance).log_prob(x).sum().item()
        parts.append(torch.full((num, n), math.nan, dtype=torch.float64))
        parts[-1][:, seen] = x
        start += size
    x = torch.cat(parts)
    fitted = pv.FactorModel.fit(x, LIKELIHOODS[noise](1, n), D)
    assert fitted.log_prob(x).mean() > truth / len(x)


def test_gaps_of_data_without_variance_are_refused():
    x = torch.full((20, 3), 2.0, dtype=torch.float64)
    x[0, 0] = math.nan
    with pytest.raises(pv.InputError, match="the data span no more than 1 dimensions"):
        pv.FactorModel.fit(x, pv.GaussianLikelihood(1, 3), 1)


def test_factor_analysis_is_that_of_any_units_and_an_isotropic_model_probabilistic_pca():
    units = 10.0 ** torch.arange(-3, 5).double()
    found, scaled = pv.FactorModel.fit_in_units(X, D), pv.FactorModel.fit_in_units(units * X, D)
    observed = ~NEW.isnan()
    jacobian = torch.where(observed, units.log(), 0.0).sum(1)
    torch.testing.assert_close(scaled.log_prob(units * NEW) + jacobian, found.log_prob(NEW), atol=1e-2, rtol=0)
    assert pv.FactorModel.fit(X, LIKELIHOODS["gaussian"](1, N), D).noise.stddev.std() == 0


def test_baselines_of_data_with_gaps_have_densities_and_the_best_shrinkage():
    likelihoods = {name: LIKELIHOODS[name] for name in ("ar1", "full-covariance")}
    train, validation, test = X[:40], with_gaps(draws(60, seed=3)), with_gaps(draws(200, seed=4))
    found = pv.linear_baselines(train, test, D, likelihoods, validation=validation, latent_dims=[1], progress=False)
    names = [baseline.name for baseline in found]
    assert "PCA" not in names
    assert {"probabilistic PCA", "factor analysis", "probabilistic PCA, d by validation"} <= set(names)
    by_name = {baseline.name: baseline for baseline in found}
    for baseline in found:
        assert baseline.log_prob.isfinite().all()
        torch.testing.assert_close(baseline.model.log_prob(test), baseline.log_prob)
    shrunken = by_name["Gaussian, shrunk covariance"].model
    _, covariance = shrunken.target.expected_moments(train)
    # all shares by brute force on the dense marginals: none is likelier on validation data
    target = shrunken.target.marginal.covariance_matrix

    def score(share):
        whole = ((1 - share) * covariance + share * target).numpy()
        terms = []
        for row in validation.numpy():
            o = ~np.isnan(row)
            if o.any():
                terms.append(stats.multivariate_normal(shrunken.offset.numpy()[o], whole[o][:, o]).logpdf(row[o]))
        return sum(terms)

    best = max((score(share), share) for share in np.logspace(-3, 0, 25))
    assert score(shrunken.share) >= best[0] - 1e-6


@pytest.mark.parametrize("noise", ["gaussian", "ar1"])
def test_few_data_with_gaps_have_models_of_all_dimensions(noise):
    """Covariances of pairs of channels have negative eigenvalues there, and the fit goes where the noise is small."""
    x = with_gaps(draws(20), 0.4)
    found = [pv.FactorModel.fit(x, LIKELIHOODS[noise](1, N), d).log_prob(x).mean() for d in (1, N - 1)]
    assert found[0] < found[1] < 0


def test_a_model_is_the_same_each_time_and_its_columns_fall():
    first, second = (pv.FactorModel.fit(X, LIKELIHOODS["ar1-per-dimension"](1, N), D) for _ in range(2))
    assert torch.equal(first.loadings, second.loadings)
    p = first.precision
    assert (p - p.diagonal().diag()).abs().max() < 1e-8 * p.max()
    assert p[0, 0] > p[1, 1]


def test_noise_that_no_fit_knows_and_channels_without_values_are_refused():
    class Odd(pv.FullCovarianceGaussianLikelihood):
        def simpler_form(self):
            return None

    with pytest.raises(TypeError, match="noise of a Odd cannot be fitted to data with missing values"):
        pv.FactorModel.fit(X, Odd(1, N), D)
    empty = X.clone()
    empty[:, 5] = math.nan
    with pytest.raises(ValueError, match=r"channel 5 \(counted from 0\) is missing in all training data"):
        pv.FactorModel.fit(empty, pv.GaussianLikelihood(1, N), D)
    with pytest.raises(ValueError, match=r"channel 5 .* is constant"):
        pv.linear_baselines(empty, NEW, D)
    flat = draws(50)[:, :2] @ draws(2)
    flat[3] = math.nan
    with pytest.raises(ValueError, match="the data span no more than 2 dimensions"):
        pv.FactorModel.fit(flat, pv.GaussianLikelihood(1, N), 2)
    with pytest.raises(ValueError, match=r"x holds 1 NaN.*FactorModel\.fit"):
        LinearGaussianVAE.fit(torch.tensor([[0.0, 1.0, math.nan], [2.0, 1.0, 3.0], [1.0, 0.0, 0.5]]), 1)
    with pytest.raises(ValueError, match="x must be finite data"):
        pv.FactorModel.fit(torch.full((4, N), math.nan), pv.GaussianLikelihood(1, N), D)


def test_a_common_pattern_costs_one_factorisation(monkeypatch):
    model = MODELS["ar1"]()
    x = draws(400).masked_fill(torch.arange(N) % 3 == 1, math.nan)
    parts = []
    observing = type(model).observing
    monkeypatch.setattr(type(model), "observing", lambda self, c: parts.append(c) or observing(self, c))
    model.log_prob(x)
    assert len(parts) == 1
