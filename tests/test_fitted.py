"""A linear-Gaussian model on disk: its density, posterior, draws and reconstructions against closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

import pyrovae as pv
from pyrovae.commands.main import main
from pyrovae.datasets import Standardize
from pyrovae.fitted import VAE, Linear
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian import LinearGaussianVAE
from pyrovae.linear_gaussian.factor_model import diagonal_model
from pyrovae.nn import class_of
from pyrovae.trained_model import TrainedModel
from tests.pairs import make_pair

N, D = 7, 2
NOISES = [name for name, make in LIKELIHOODS.items() if class_of(make).is_gaussian]


def data(num, seed=0):
    g = torch.Generator().manual_seed(seed)
    z, a = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((num, D), (D, N)))
    return 5 + z @ a + 0.4 * torch.randn(num, N, generator=g, dtype=torch.float64).cumsum(-1)


TRAIN, VALIDATION, NEW = data(150), data(60, 1), data(9, 2)
STEP = Standardize("mean").fit(TRAIN)


def linear(noise):
    prepared, validation = STEP.transform(TRAIN), STEP.transform(VALIDATION)
    return pv.FactorModel.fit(prepared, LIKELIHOODS[noise](3, N), D, validation)


def gaussian(num):
    """A shrunk one: with fewer data than channels it is kept as a model of factors."""
    x = STEP.transform(TRAIN[:num])
    targets = {"its diagonal": diagonal_model(x), "AR(1)": linear("ar1")}
    targets["AR(1)"].offset.copy_(x.mean(0))
    return pv.ShrunkGaussian.fit(x, STEP.transform(VALIDATION), targets)[0]


def saved(model, folder):
    pv.save(folder / "model.safetensors", model, preprocessing=STEP)
    return TrainedModel.load(folder)


def moments(model):
    """Mean and covariance of p(x) in the original units, and its loadings and noise, by dense arithmetic."""
    scale, mean = torch.tensor(STEP.scale, dtype=torch.float64), torch.tensor(STEP.mean, dtype=torch.float64)
    loadings = scale.unsqueeze(-1) * model.loadings
    noise = scale * model.noise_covariance * scale.unsqueeze(-1)
    return (scale * model.offset + mean).numpy(), (loadings @ loadings.T + noise).numpy(), loadings.numpy()


MODELS = {**{noise: lambda noise=noise: linear(noise) for noise in NOISES}, "few": lambda: gaussian(5)}
MODELS |= {"many": lambda: gaussian(150), "pca": lambda: LinearGaussianVAE.fit(STEP.transform(TRAIN), D)}


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_has_the_exact_density_and_draws_from_it(name, tmp_path):
    model = MODELS[name]()
    loaded = saved(model, tmp_path)
    mean, covariance, _ = moments(model)
    scores = loaded.scores(NEW)
    expected = stats.multivariate_normal(mean, covariance).logpdf(NEW.numpy())
    np.testing.assert_allclose(scores["log_prob"], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scores["elbo"], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scores["reconstruction"] - scores["kl"], scores["elbo"])
    assert (scores["log_prob_stderr"] == 0).all()
    assert scores["reliable"].all()
    draws = loaded.samples(20_000).drop(columns="row").to_numpy()
    spread = np.sqrt(np.diag(covariance))
    # entries of a covariance of 20,000 draws have a standard error of at most √2/√20,000 = 0.01 deviations each
    np.testing.assert_array_less(np.abs(np.cov(draws.T) - covariance) / np.outer(spread, spread), 0.05)
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean) / spread, 0.04)


@pytest.mark.parametrize("name", [*NOISES, "pca"])
def test_a_loaded_model_encodes_to_the_exact_posterior(name, tmp_path):
    model = MODELS[name]()
    loaded = saved(model, tmp_path)
    mean, covariance, loadings = moments(model)
    gain = np.linalg.solve(covariance, loadings).T
    table = loaded.latents(NEW)
    residual = NEW.numpy() - mean
    np.testing.assert_allclose(table[["mean_1", "mean_2"]], residual @ gain.T, atol=1e-9)
    posterior = np.eye(D) - gain @ loadings
    np.testing.assert_allclose(table["covariance_1_2"], posterior[0, 1], atol=1e-9)
    made = loaded.reconstructions(NEW).drop(columns="row")
    np.testing.assert_allclose(made, mean + residual @ gain.T @ loadings.T, atol=1e-9)
    kl = 0.5 * (np.trace(posterior) + (residual @ gain.T).__pow__(2).sum(1) - D - math.log(np.linalg.det(posterior)))
    np.testing.assert_allclose(loaded.scores(NEW)["kl"], kl, rtol=1e-7)


@pytest.mark.parametrize("name", ["ar1", "low-rank", "gaussian-per-datum", "pca"])
def test_a_linear_model_is_a_pair_of_programs_too(name, tmp_path):
    model = MODELS[name]()
    saved(model, tmp_path)
    program, guide = pv.load(tmp_path / "model.safetensors")
    x = STEP.transform(NEW)
    found = pv.log_marginal(program, guide, x, num_samples=20)  # at the exact posterior every draw has log p(x)
    torch.testing.assert_close(found.per_datum, model.log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num", [5, 150])
def test_a_gaussian_without_latents_says_so_and_predicts_each_channel_from_the_others(num, tmp_path):
    model = gaussian(num)
    loaded = saved(model, tmp_path)
    mean, covariance, _ = moments(model)
    with pytest.raises(pv.InputError, match="a Gaussian without latents and cannot encode"):
        loaded.latents(NEW)
    with pytest.raises(pv.InputError, match=r"pyrovae\.load_linear reads it"):
        pv.load(tmp_path / "model.safetensors")
    expected = NEW.numpy().copy()
    for j in range(N):
        others = np.arange(N) != j
        weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, j])
        expected[:, j] = mean[j] + (NEW.numpy()[:, others] - mean[others]) @ weights
    np.testing.assert_allclose(loaded.reconstructions(NEW).drop(columns="row"), expected, atol=1e-8)


def test_the_console_takes_linear_models(tmp_path, capsys):
    np.save(tmp_path / "new.npy", NEW.numpy())
    for name, folder in (("ar1", tmp_path / "linear"), ("many", tmp_path / "gaussian")):
        folder.mkdir()
        saved(MODELS[name](), folder)
        main(["evaluate", str(folder), str(tmp_path / "new.npy")])
        assert "9 data, exact" in capsys.readouterr().out
        main(["sample", str(folder), "--num", "3"])
        main(["reconstruct", str(folder), str(tmp_path / "new.npy")])
    capsys.readouterr()
    main(["encode", str(tmp_path / "linear"), str(tmp_path / "new.npy")])
    assert "latent means" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["encode", str(tmp_path / "gaussian"), str(tmp_path / "new.npy")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_no_linear_model_or_has_another_width_says_so(tmp_path):
    loaded = saved(MODELS["ar1"](), tmp_path)
    for x in (NEW[:, :5], NEW / 0):
        with pytest.raises(pv.InputError):
            loaded.scores(x)
    with pytest.raises(TypeError, match="is exact; give no guide"):
        pv.save(tmp_path / "a.safetensors", MODELS["ar1"](), pv.load(tmp_path / "model.safetensors")[1])
    model, guide = pv.GenerativeModel(pv.nn.MLP(2, 3), pv.GaussianLikelihood(3, 4), 2), None
    with pytest.raises(TypeError, match="guide must be of class AmortizedGuide, not NoneType"):
        pv.save(tmp_path / "a.safetensors", model, guide)
    guide = pv.AmortizedGuide(pv.nn.MLP(4, 3), pv.DiagonalPosterior(3, 2))
    pv.save(tmp_path / "a.safetensors", model, guide)
    with pytest.raises(pv.InputError, match=r"is a VAE; pyrovae\.load reads it"):
        pv.load_linear(tmp_path / "a.safetensors")
    assert torch.equal(pv.load_linear(tmp_path / "model.safetensors").loadings, MODELS["ar1"]().loadings)


def drawn_model():
    g = torch.Generator().manual_seed(3)
    loadings, offset = torch.randn(5, 2, generator=g), torch.randn(5, generator=g)
    likelihood = pv.AR1GaussianLikelihood(1, 5, initial_scale=0.7)
    with torch.no_grad():
        likelihood.raw_noise[-1] = 0.8
    model = pv.FactorModel(loadings, offset, likelihood)
    return model, model.sample(3)


def test_spread_is_that_of_draws_given_the_posterior():
    """Monte Carlo error 0.5 % of a standard deviation of 20,000 draws, 1.3 % of 3,000; false alarms at 5σ: 2 in 10⁵."""
    linear, y = drawn_model()
    torch.manual_seed(0)
    z = linear.posterior(y).sample(torch.Size([20_000]))
    x = linear.offset + z @ linear.loadings.T + linear.noise.sample(torch.Size([20_000, 3]))
    assert torch.allclose(Linear(linear).spread(y, 1), x.std(0), rtol=0.025)
    vae = VAE(linear.to_model(), linear.to_guide())
    assert torch.allclose(vae.spread(y, 3_000), x.std(0), rtol=0.07)


def test_spread_without_latents_is_that_of_a_channel_given_the_others():
    _, y = drawn_model()
    x = drawn_model()[0].sample(40)
    shrunk, _ = pv.ShrunkGaussian.fit(x[:30], x[30:], {"its diagonal": diagonal_model(x[:30])})
    precision = torch.linalg.inv(shrunk.marginal.covariance_matrix)
    assert torch.allclose(Linear(shrunk).spread(y, 1), precision.diagonal().rsqrt().expand(3, 5))


def test_gradient_is_that_of_the_density():
    """Of draws of an exact posterior by Fisher's identity: within 5 standard errors."""
    linear, y = drawn_model()
    leaf = y.clone().requires_grad_()
    (truth,) = torch.autograd.grad(linear.marginal.log_prob(leaf).sum(), leaf)
    assert torch.allclose(Linear(linear).gradient(y, 1), truth)
    vae = VAE(linear.to_model(), linear.to_guide())
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.stack([vae.gradient(y, 100) for _ in range(40)])
    assert ((found.mean(0) - truth).abs() < 5 * found.std(0) / 40**0.5).all()


@pytest.mark.parametrize("name", ["ar1", "full-covariance", "few", "many"])
def test_a_loaded_linear_model_takes_missing_values(name, tmp_path):
    model = MODELS[name]()
    loaded = saved(model, tmp_path)
    mean, covariance, loadings = moments(model)
    x = NEW.masked_fill(torch.arange(N) % 3 == 1, math.nan)
    seen = (torch.arange(N) % 3 != 1).numpy()
    part = covariance[seen][:, seen]
    residual = x.numpy()[:, seen] - mean[seen]
    expected = stats.multivariate_normal(mean[seen], part).logpdf(x.numpy()[:, seen])
    np.testing.assert_allclose(loaded.scores(x)["log_prob"], expected, rtol=1e-8, atol=1e-8)
    slopes = loaded.gradients(x)[:, seen].numpy() / np.array(STEP.scale)[seen]
    np.testing.assert_allclose(slopes, -residual @ np.linalg.inv(part), atol=1e-6)
    made = loaded.reconstructions(x).drop(columns="row").to_numpy()
    low, high = loaded.bands(x)
    np.testing.assert_allclose((low + high).numpy() / 2, made, atol=1e-8)
    if loaded.fitted.model.latent_dim:
        gain = loadings[seen].T @ np.linalg.inv(part)
        np.testing.assert_allclose(loaded.latents(x)[["mean_1", "mean_2"]], residual @ gain.T, atol=1e-8)
        np.testing.assert_allclose(made, mean + residual @ gain.T @ loadings.T, atol=1e-8)
    else:
        gain = covariance[~seen][:, seen] @ np.linalg.inv(part)
        np.testing.assert_allclose(made[:, ~seen], mean[~seen] + residual @ gain.T, atol=1e-8)
    with pytest.raises(ValueError, match=r"row 2, column 0 .* holds inf"):
        loaded.scores(x.index_fill(0, torch.tensor([2]), math.inf))


@pytest.mark.parametrize("name", ["ar1", "few"])
def test_missing_values_are_filled_in_by_the_exact_conditional(name, tmp_path):
    trained = saved(model := MODELS[name](), tmp_path)
    mean, covariance, _ = moments(model)
    x, seen = NEW.clone(), np.array([True, False, True, True, False, True, True])
    x[2, ~seen] = math.nan
    found = trained.impute(x, level=0.5)
    slopes = np.linalg.solve(covariance[seen][:, seen], covariance[seen][:, ~seen]).T
    np.testing.assert_allclose(found.mean[2, ~seen], mean[~seen] + slopes @ (NEW[2, seen].numpy() - mean[seen]))
    deviation = np.sqrt(np.diag(covariance[~seen][:, ~seen] - slopes @ covariance[seen][:, ~seen]))
    reach = stats.norm.ppf(0.75) * deviation
    np.testing.assert_allclose(found.lower[2, ~seen], found.mean[2, ~seen].numpy() - reach)
    np.testing.assert_allclose(found.upper[2, ~seen], found.mean[2, ~seen].numpy() + reach)
    for part in (found.mean, found.lower, found.upper):
        assert torch.equal(part[x.isfinite()], NEW[x.isfinite()])


def test_refits_need_a_linear_model_and_its_training_data(tmp_path):
    trained = saved(model := MODELS["ar1"](), tmp_path)
    x = NEW.clone()
    x[2, 1] = math.nan
    found = trained.impute(x, refits=3, trained=TRAIN, seed=1)
    ends = model.intervals(STEP.transform(x), TRAIN, refits=3, seed=1)
    for part, end in zip((found.lower, found.upper), ends, strict=True):
        torch.testing.assert_close(part, STEP.inverse(end))
    assert torch.equal(found.mean, trained.impute(x).mean)
    for one, known in ((trained, None), (replace(trained, fitted=VAE(*make_pair(n=N, missing=True))), TRAIN)):
        with pytest.raises(pv.InputError, match="refits need a linear model and the data that it was fitted to"):
            one.impute(x, refits=3, trained=known)


def test_values_before_preprocessing_that_cannot_be_undone_are_not_filled_in():
    model = linear("gaussian")
    with pytest.raises(pv.InputError, match="cannot be undone"):
        TrainedModel(Linear(model), pv.datasets.StandardNormalVariate()).impute(NEW)


@pytest.mark.parametrize("name", ["ar1", "full-covariance"])
def test_a_spike_is_an_outlier_at_its_channel(name, tmp_path):
    trained = saved(MODELS[name](), tmp_path)
    x, held_out = TRAIN[:40].clone(), TRAIN[51:]
    x[7, 3] += 8
    table, misfits = trained.outliers(x, held_out)
    assert table["p_value"].idxmin() == 7
    assert table["p_value"][7] == 0.01
    assert misfits[7].argmax() == 3
    assert misfits.shape == x.shape


def test_an_outlier_that_was_learned_by_heart_is_found_by_a_model_fitted_without_it():
    """A covariance of 60 data in 40 channels has the outlier's direction; without it, this variance is not there."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(160, 40, generator=generator).double()
    x[5, 20] += 30
    train, held_out = x[:60], x[60:]
    targets = {"diagonal": diagonal_model(train)}
    model = pv.ShrunkGaussian((train - train.mean(0)) / 60**0.5, targets["diagonal"], 0.1)
    trained, known = TrainedModel(Linear(model)), torch.arange(70) < 60
    naive, _ = trained.outliers(x[:70], held_out)
    table, misfits = trained.outliers(x[:70], held_out, trained=known)
    assert naive["p_value"][5] > 0.5
    assert table["p_value"][5] == 1 / 101
    assert misfits[5].argmax() == 20
    assert table["row"].tolist() == list(range(70))
    np.testing.assert_array_equal(table["p_value"][60:], naive["p_value"][60:])  # these trained no model
    others = table["p_value"][:60].drop(5)
    assert 0.1 < others.median() < 0.9


def test_outliers_among_the_held_out_data_do_not_hide_each_other(tmp_path):
    """Each is compared with the others, not with itself, and the usual misfit is that of most data."""
    trained, held_out = saved(linear("ar1"), tmp_path), data(74, 6)
    for row, channel in ((3, 1), (20, 2), (50, 4)):
        held_out[row, channel] += 100.0 + row
    table, misfits = trained.outliers(held_out, held_out)
    assert sorted(table["p_value"])[:3] == [1 / 74, 2 / 74, 3 / 74]
    assert set(table["p_value"].nsmallest(3).index) == {3, 20, 50}
    assert (misfits[[3, 20, 50], [1, 2, 4]] > 30).all()  # in units that include the outliers, √74 at most
    np.testing.assert_allclose(sorted(table["p_value"]), np.arange(1, 75) / 74)  # uniform: at α, ⌊74 α⌋ alarms
    others, _ = trained.outliers(data(5, 8), held_out)
    assert others["p_value"].min() >= 1 / 75


@pytest.mark.slow
def test_rows_that_trained_a_model_are_false_alarms_at_alpha():
    """Over 100 sets of 50 rows; without the models fitted again, hardly any row would be an alarm."""
    loadings, known, found = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.ones(50).bool(), []
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(89, 3, generator=generator) @ loadings.T + 0.5 * torch.randn(89, 20, generator=generator)
        train, held_out = x[:50].double(), x[50:].double()
        centred = (train - train.mean(0)) / 50**0.5
        trained = TrainedModel(Linear(pv.ShrunkGaussian(centred, diagonal_model(train), 0.1)))
        tables = (trained.outliers(train, held_out, trained=which)[0] for which in (known, None))
        found.append([(table["p_value"].to_numpy() <= 0.1).mean() for table in tables])
    cross_fitted, naive = np.mean(found, axis=0)
    assert abs(cross_fitted - 0.1) < 4 * np.std(found, axis=0)[0] / 10  # fails by chance once in 16,000
    assert naive < 0.03


@pytest.mark.parametrize("fit", ["gaussian", "ar1", "shrunk", "diagonal"])
def test_a_model_fitted_again_to_the_same_data_is_the_same(fit):
    if fit == "diagonal":
        model = diagonal_model(TRAIN)
    elif fit == "shrunk":
        model = pv.ShrunkGaussian.fit(TRAIN, NEW, {"diagonal": diagonal_model(TRAIN)})[0]
    else:
        model = pv.FactorModel.fit(TRAIN, LIKELIHOODS[fit](3, N), D)
    torch.testing.assert_close(model.refit(TRAIN).log_prob(NEW), model.log_prob(NEW), rtol=1e-4, atol=1e-4)


def test_misfits_are_in_units_of_the_channels_usual_ones(tmp_path):
    """Of held-out data themselves the median is that of |N(0, 1)| at every channel; a missing value has no misfit."""
    trained, held_out = saved(linear("ar1"), tmp_path), data(99, 6)
    _, misfits = trained.outliers(held_out, held_out)
    torch.testing.assert_close(misfits.median(0).values, torch.full((N,), 1 / 1.4826).double())
    x = held_out.clone()
    x[0, 2] = math.nan
    assert trained.outliers(x, held_out)[1][0, 2] == 0
