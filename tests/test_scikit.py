"""The models as scikit-learn's transformers."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, check_estimators_nan_inf

import pyrovae as pv

VAE = {"hidden": (8,), "epochs": 2}


def spectra(num=300, seed=0, correlation=0.9):
    """Data (num, 8) with two latent dimensions and AR(1) noise, in a DataFrame."""
    rng = np.random.default_rng(seed)
    distance = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    noise = rng.multivariate_normal(np.zeros(8), 0.1 * correlation**distance, num)
    x = 5 + rng.normal(size=(num, 2)) @ np.random.default_rng(9).normal(size=(2, 8)) + noise
    return pd.DataFrame(x, columns=[f"{900 + 10 * j} nm" for j in range(8)], index=[f"sample {i}" for i in range(num)])


def test_the_factor_model_passes_scikit_learns_checks():
    check_estimator(pv.FactorModelTransformer(), on_skip=None)


@pytest.mark.slow
def test_the_vae_passes_scikit_learns_checks():
    check_estimator(pv.VAETransformer(**VAE, missing="mask"), on_skip=None)
    check_estimators_nan_inf("VAETransformer", pv.VAETransformer(**VAE))  # what it does otherwise with missing="error"


def assert_is_linear(model, x, variance, atol):
    """Latents and log p(x) are those of N(b, AAᵀ + diag(variance)), with the A and b of ``inverse_transform``."""
    b, *columns = model.inverse_transform(np.concatenate([np.zeros((1, 2)), np.eye(2)]))
    a = np.stack(columns, axis=1) - b[:, None]
    covariance = a @ a.T + np.diag(variance)
    np.testing.assert_allclose(model.score_samples(x), multivariate_normal.logpdf(x, b, covariance), atol=atol)
    means = (x - b) @ np.linalg.solve(covariance, a)
    np.testing.assert_allclose(model.transform(x), means, atol=atol)
    assert model.score(x) == pytest.approx(model.score_samples(x).mean())


def test_latents_and_log_p_of_a_factor_model_are_in_the_datas_units():
    x = 7.0 * spectra().to_numpy()
    model = pv.FactorModelTransformer(2, "gaussian-per-dimension", "channel").fit(x)
    variance = model.model_.noise.variance.numpy() * x.var(axis=0)
    assert_is_linear(model, x, variance, 1e-7)


def test_latents_and_log_p_of_a_vae_are_in_the_datas_units():
    """A network that starts as the linear model, and is not moved, is that model."""
    x = 7.0 * spectra().to_numpy()
    model = pv.VAETransformer(posterior="full-covariance", learning_rate=1e-12, hidden=(8,), epochs=1).fit(x)
    with torch.no_grad():
        noise = model.model_.conditional(torch.zeros(1, 2)).variance.double().numpy()[0]
    assert_is_linear(model, x, noise * np.square(model.preprocessing_.scale), 2e-3)
    log_prob, stderr = model.score_samples(x, return_std=True)
    assert log_prob.shape == stderr.shape == (300,)


def test_data_frames_keep_their_index_and_columns():
    x = spectra()
    model = pv.FactorModelTransformer(2).set_output(transform="pandas").fit(x)
    z = model.transform(x)
    assert list(z.columns) == ["factormodeltransformer0", "factormodeltransformer1"]
    for frame in (z, model.inverse_transform(z)):
        assert list(frame.index) == list(x.index)
    assert list(model.inverse_transform(z).columns) == list(model.sample(3, random_state=0).columns) == list(x.columns)
    with pytest.raises(ValueError, match="feature names"):
        model.transform(x[x.columns[::-1]])


def test_draws_have_the_models_moments_and_follow_the_random_state():
    """Means of 4,000 draws within 5 standard errors in 8 channels: fails once in 200,000."""
    x = spectra().to_numpy()
    model = pv.FactorModelTransformer(2).fit(x)
    drawn = model.sample(4000, random_state=1)
    np.testing.assert_allclose(drawn.mean(axis=0), x.mean(axis=0), atol=5 * x.std(axis=0).max() / 4000**0.5)
    np.testing.assert_array_equal(drawn, model.sample(4000, random_state=1))
    assert not np.array_equal(drawn, model.sample(4000, random_state=2))


def test_a_grid_search_finds_the_noise_and_the_dimension_of_the_data():
    grid = {"likelihood": ["gaussian", "ar1"], "latent_dim": [1, 2, 4]}
    found = GridSearchCV(pv.FactorModelTransformer(), grid, cv=3).fit(spectra(600))
    assert found.best_params_ == {"likelihood": "ar1", "latent_dim": 2}


def test_the_dimension_is_found_by_held_out_data():
    """By the training data themselves it would be 4: more dimensions always fit them better."""
    assert pv.FactorModelTransformer().fit(spectra(60, correlation=0.0)).model_.latent_dim == 2


def test_a_full_covariance_is_shrunk_as_held_out_data_say():
    x = spectra(60)
    held_out = pv.FactorModelTransformer(2, "full-covariance").fit(x)
    assert held_out.score(spectra(600, seed=1)) > pv.FactorModelTransformer(2).fit(x).score(spectra(600, seed=1))


def test_pipelines_and_cross_validation_score_by_log_p():
    x = spectra()
    pipeline = make_pipeline(StandardScaler(), pv.FactorModelTransformer(2, preprocessing=None))
    scores = cross_val_score(pipeline, x, cv=KFold(3))
    train, test = next(iter(KFold(3).split(x)))
    scaled = StandardScaler().fit(x.iloc[train])
    linear = pv.exact.LinearGaussianVAE.fit(torch.tensor(scaled.transform(x.iloc[train])), 2)
    truth = linear.log_prob(torch.tensor(scaled.transform(x.iloc[test]))).mean()
    assert scores[0] == pytest.approx(truth.item())


def test_steps_of_a_chemometrics_library_come_before_the_model():
    scatter = pytest.importorskip("chemotools.scatter")
    x = spectra()
    scores = make_pipeline(scatter.StandardNormalVariate(), pv.FactorModelTransformer(2)).fit(x).score_samples(x)
    standardised = (x.T - x.mean(axis=1)) / x.std(axis=1, ddof=0)
    np.testing.assert_allclose(scores, pv.FactorModelTransformer(2).fit(standardised.T).score_samples(standardised.T))


@pytest.mark.parametrize("make", [lambda: pv.FactorModelTransformer(2, "ar1"), lambda: pv.VAETransformer(**VAE)])
def test_a_clone_fits_alike_and_a_pickle_scores_alike(make):
    x = spectra(80)
    before, model = torch.random.get_rng_state(), make().fit(x)
    assert torch.equal(before, torch.random.get_rng_state())
    scores = model.score_samples(x)
    np.testing.assert_array_equal(clone(model).fit(x).score_samples(x), scores)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).score_samples(x), scores)


def test_missing_values_are_taken_where_the_model_takes_them():
    x = spectra(80)
    x.iloc[::3, 2] = np.nan
    assert np.isfinite(pv.FactorModelTransformer(2).fit(x).score_samples(x)).all()
    assert np.isfinite(pv.FactorModelTransformer().fit(x).transform(x)).all()
    assert np.isfinite(pv.VAETransformer(**VAE, missing="mask").fit(x).transform(x)).all()
    with pytest.raises(ValueError, match=r'X holds NaN; VAETransformer\(missing="mask"\)'):
        pv.VAETransformer(**VAE).fit(x)


def test_missing_values_are_filled_in_with_the_type_of_the_data():
    """By the exact conditional Gaussian of standardised data, worked out densely."""
    x = spectra(200)
    x.iloc[5, [1, 4]] = np.nan
    model = pv.FactorModelTransformer(2, "ar1").fit(x)
    mean, (lower, upper) = model.impute(x, level=0.5)
    scale = np.asarray(model.preprocessing_.scale)
    covariance = scale[:, None] * model.model_.marginal.covariance_matrix.numpy() * scale
    centre = model.inverse_transform(np.zeros((1, 2)))[0]
    missing, seen = [1, 4], [0, 2, 3, 5, 6, 7]
    slopes = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, missing)]).T
    truth = centre[missing] + slopes @ (x.iloc[5, seen].to_numpy() - centre[seen])
    deviation = np.sqrt(np.diag(covariance[np.ix_(missing, missing)] - slopes @ covariance[np.ix_(seen, missing)]))
    np.testing.assert_allclose(mean.iloc[5, missing].astype(float), truth, rtol=1e-6)
    np.testing.assert_allclose((upper - lower).iloc[5, missing].astype(float), 2 * 0.6744898 * deviation, rtol=1e-6)
    for part in (mean, lower, upper):
        pd.testing.assert_frame_equal(part.where(x.notna()), x)
    with pytest.warns(UserWarning, match="feature names"):  # scikit-learn's own
        array, _ = model.impute(x.to_numpy())
    np.testing.assert_array_equal(array, mean.to_numpy())


@pytest.mark.parametrize("gaps", [False, True])
def test_refits_have_the_missing_values_of_the_training_data(gaps):
    x = spectra(30)
    if gaps:
        x = x.mask(np.random.default_rng(0).random(x.shape) < 0.2)
    model, new = pv.FactorModelTransformer(2, "ar1").fit(x), x.copy()
    new.iloc[:, [1, 4]] = np.nan
    plain, (lower, upper) = model.impute(new, level=0.5, refits=4)
    units = model.preprocessing_.transform(torch.tensor(new.to_numpy()))
    trained = torch.zeros(x.shape).masked_fill(torch.tensor(x.isna().to_numpy()), torch.nan)
    ends = model.model_.intervals(units, trained, level=0.5, refits=4)
    for found, end in zip((lower, upper), ends, strict=True):
        np.testing.assert_allclose(found, model.preprocessing_.inverse(end), rtol=1e-8)
    pd.testing.assert_frame_equal(plain, model.impute(new)[0])
    assert ((upper - lower) >= (np.subtract(*model.impute(new, level=0.5)[1][::-1]))).iloc[:, [1, 4]].mean().min() > 0.9


def test_what_was_fitted_is_saved_without_a_pickle(tmp_path):
    x = torch.tensor(spectra(80).to_numpy())
    model = pv.VAETransformer(**VAE).fit(x.numpy())
    pv.save(tmp_path / "model.safetensors", model.model_, model.guide_, preprocessing=model.preprocessing_)
    scores = pv.trained_model.TrainedModel.load(tmp_path).scores(x)["log_prob"]
    np.testing.assert_allclose(scores, model.score_samples(x.numpy()), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pv.VAETransformer(epohcs=3), "no setting 'epohcs'.*'epochs'"),
        (lambda: pv.VAETransformer(posterior="diagnal").fit(spectra(40)), "unknown posterior 'diagnal'.*'diagonal'"),
        (lambda: pv.FactorModelTransformer(2, "bernoulli").fit(spectra(40)), "needs a Gaussian likelihood"),
        (lambda: pv.FactorModelTransformer("many").fit(spectra(40)), "latent_dim must be an integer"),
        (lambda: pv.FactorModelTransformer(2).fit(spectra(40)).inverse_transform(np.zeros((3, 5))), r"\(num, 2\)"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(pv.InputError, match=message):
        make()
