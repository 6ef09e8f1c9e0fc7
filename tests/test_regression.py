"""Targets given data, against conditional Gaussians worked out densely."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import pyrovae as pv

rng = np.random.default_rng(9)
A, NOISE = rng.normal(size=(8, 2)), rng.uniform(0.2, 0.4, size=8)


def draws(num, seed):
    """Data (num, 6) and two targets, from a known factor model, in units of their own."""
    rng = np.random.default_rng(seed)
    joint = 5 + 3 * (rng.normal(size=(num, 2)) @ A.T + NOISE * rng.normal(size=(num, 8)))
    return joint[:, :6], joint[:, 6:]


def conditional(mean, covariance, x):
    """Mean and covariance of the last channels, given the first ones."""
    n = x.shape[1]
    slopes = np.linalg.solve(covariance[:n, :n], covariance[:n, n:]).T
    return mean[n:] + (x - mean[:n]) @ slopes.T, covariance[n:, n:] - slopes @ covariance[:n, n:]


def moments(regressor):
    """Of all columns, in their units, from the fitted model's A, b and Σ."""
    model, scale = regressor.model_, np.asarray(regressor.model_.preprocessing_.scale)
    covariance = scale[:, None] * model.model_.marginal.covariance_matrix.numpy() * scale
    return model.inverse_transform(np.zeros((1, 2)))[0], covariance


def test_a_linear_models_targets_are_exact():
    x, y = draws(300, 1)
    regressor = pv.JointRegressor(pv.FactorModelTransformer(2, "gaussian-per-dimension", "channel")).fit(x, y)
    mean, covariance = conditional(*moments(regressor), x)
    np.testing.assert_allclose(regressor.predict(x), mean, rtol=1e-8)
    lower, upper = regressor.predict_interval(x, level=0.8)
    reach = norm.isf(0.1) * np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(lower, mean - reach, rtol=1e-6)
    np.testing.assert_allclose(upper, mean + reach, rtol=1e-6)
    truth = [multivariate_normal.logpdf(row, at, covariance) for row, at in zip(y, mean, strict=True)]
    np.testing.assert_allclose(regressor.log_prob(x, y), truth, atol=1e-7)


@pytest.mark.slow
def test_a_vaes_targets_come_from_weighted_draws():
    """Against sums over a grid of z; 5 standard errors of 1,000 draws."""
    x, y = draws(300, 1)
    vae = pv.VAETransformer(hidden=(8,), epochs=3, missing="mask", num_samples=1000)
    regressor = pv.JointRegressor(vae).fit(x, y[:, 0])
    x, y, model = x[:20], y[:20, 0], regressor.model_
    with torch.no_grad():
        variance = model.model_.conditional(torch.zeros(1, 2)).variance.numpy()[0]
    sigma, side = np.asarray(model.preprocessing_.scale) * np.sqrt(variance), np.linspace(-6, 6, 200)
    z = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    f = model.inverse_transform(z)
    log_weights = norm.logpdf(z).sum(1) + norm.logpdf(x[:, None], f[:, :6], sigma[:6]).sum(2)
    weights = softmax(log_weights, axis=1)
    mean = weights @ f[:, 6]
    deviation = np.sqrt(weights @ f[:, 6] ** 2 - mean**2 + sigma[6] ** 2)
    np.testing.assert_array_less(np.abs(regressor.predict(x) - mean), 0.2 * deviation)
    lower, upper = regressor.predict_interval(x, level=0.8)
    inside = weights * (norm.cdf(upper[:, None], f[:, 6], sigma[6]) - norm.cdf(lower[:, None], f[:, 6], sigma[6]))
    np.testing.assert_allclose(inside.sum(1), 0.8, atol=0.08)
    density = (weights * norm.pdf(y[:, None], f[:, 6], sigma[6])).sum(1)
    np.testing.assert_allclose(regressor.log_prob(x, y), np.log(density), atol=0.25)


def test_a_datum_without_its_target_still_trains_the_model_of_x():
    """Log p(x) of new data: close to the truth's with 3,000 data more than the 12 that have a target."""
    x, y = draws(3012, 1)
    new = np.column_stack([draws(500, 2)[0], np.full(500, np.nan)])
    y[12:] = np.nan
    model = pv.FactorModelTransformer(2, "gaussian-per-dimension", "channel")
    few, all_ = (pv.JointRegressor(model).fit(x[:num], y[:num, 0]).model_.score(new) for num in (12, 3012))
    covariance = 9 * (A[:6] @ A[:6].T + np.diag(NOISE[:6] ** 2))
    truth = multivariate_normal.logpdf(new[:, :6], np.full(6, 5.0), covariance).mean()
    assert all_ == pytest.approx(truth, abs=0.05)
    assert few < truth - 0.3


def test_it_works_in_searches_behind_other_steps_and_with_frames():
    x, y = draws(120, 1)
    frame, target = pd.DataFrame(x, columns=[f"{j} nm" for j in range(6)]), pd.Series(y[:, 0], name="fat")
    model = pv.JointRegressor(pv.FactorModelTransformer(1, "gaussian-per-dimension", "channel"))
    found = GridSearchCV(model, {"model__latent_dim": [1, 2]}, scoring="neg_root_mean_squared_error", cv=3)
    assert found.fit(frame, target).best_params_ == {"model__latent_dim": 2}
    pipeline = make_pipeline(StandardScaler(), clone(found.best_estimator_)).fit(x, y[:, 0])
    assert pipeline.predict(x).shape == (120,)


@pytest.mark.slow
def test_it_passes_scikit_learns_checks():
    check_estimator(pv.JointRegressor(), on_skip=None)


def test_a_vae_that_takes_no_missing_values_is_refused():
    with pytest.raises(pv.InputError, match='missing="mask"'):
        pv.JointRegressor(pv.VAETransformer()).fit(*draws(20, 1))
