"""Linear baselines against closed forms and scikit-learn's own scores."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA, FactorAnalysis

import pyrovae as pv


def data(num=2000, n=6, d=2, noise=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loadings = torch.randn(d, n, generator=generator, dtype=torch.float64)
    z, e = (torch.randn(num, k, generator=generator, dtype=torch.float64) for k in (d, n))
    return 4 + z @ loadings + noise * e * torch.linspace(0.5, 2, n).double()


def by_name(*arguments):
    return {baseline.name: baseline for baseline in pv.linear_baselines(*arguments)}


def test_pca_is_the_projection_and_has_no_density():
    train, test = data().split([1500, 500])
    found = by_name(train, test, 2)["PCA"]
    assert (found.log_prob, found.noise_scale) == (None, None)
    _, _, axes = np.linalg.svd((train - train.mean(0)).numpy(), full_matrices=False)
    projector = torch.as_tensor(axes[:2].T @ axes[:2])
    torch.testing.assert_close(found.reconstruction, train.mean(0) + (test - train.mean(0)) @ projector)


@pytest.mark.parametrize(("num", "n"), [(1500, 6), (20, 30)])
def test_probabilistic_pca_is_maximum_likelihood(num, n):
    train, test = data(num + 50, n).split([num, 50])
    found = by_name(train, test, 2)["probabilistic PCA"]
    # Tipping and Bishop's closed form: the d largest eigenvalues kept, the others' mean in place of each
    values, axes = np.linalg.eigh(np.cov(train.T.numpy(), bias=True))
    values[:-2] = values[:-2].mean()
    expected = stats.multivariate_normal(train.mean(0).numpy(), (axes * values) @ axes.T).logpdf(test.numpy())
    np.testing.assert_allclose(found.log_prob.numpy(), expected, rtol=1e-8)
    np.testing.assert_allclose(found.noise_scale.numpy(), np.sqrt(values[0]), rtol=1e-10)
    if num > n:  # scikit-learn's, whose covariance is over num − 1
        own = PCA(2).fit(train.numpy())
        np.testing.assert_allclose(found.log_prob.numpy(), own.score_samples(test.numpy()), atol=20 / num)
    gain = np.linalg.inv((axes * values) @ axes.T) * values[0]
    torch.testing.assert_close(found.reconstruction, test - (test - train.mean(0)) @ torch.as_tensor(gain))


def test_factor_analysis_is_scikit_learns_in_any_units():
    train, test = data().split([1500, 500])
    units = torch.tensor([1e-3, 1.0, 10.0, 1e-2, 5.0, 100.0], dtype=torch.float64)
    ours = by_name(train * units, test * units, 2)["factor analysis"]
    own = FactorAnalysis(2, svd_method="lapack", tol=1e-6, max_iter=5000).fit(train.numpy())
    expected = own.score_samples(test.numpy()) - units.log().sum().item()
    np.testing.assert_allclose(ours.log_prob.numpy(), expected, atol=0.1)
    assert ours.log_prob.mean().item() == pytest.approx(expected.mean(), abs=5e-3)
    np.testing.assert_allclose(ours.noise_scale / units, np.sqrt(own.noise_variance_), rtol=0.02)
    covariance = own.components_.T @ own.components_ + np.diag(own.noise_variance_)
    smoothed = test - (test - train.mean(0)) @ torch.as_tensor(
        np.linalg.solve(covariance, np.diag(own.noise_variance_))
    )
    torch.testing.assert_close(ours.reconstruction / units, smoothed, rtol=0.02, atol=0.05)


def chosen(name, *arguments, **options):
    (found,) = (b for b in pv.linear_baselines(*arguments, **options) if b.name == name)
    return found


def test_validation_chooses_the_number_of_components_of_probabilistic_pca():
    train, validation, test = data(600, 12, 4, noise=0.1).split([60, 240, 300])
    found = chosen("probabilistic PCA, d by validation", train, test, 1, validation=validation)
    every = {d: pv.exact.LinearGaussianVAE.fit(train, d) for d in range(1, 12)}
    scores = {d: model.log_prob(validation).mean().item() for d, model in every.items()}
    best = max(scores, key=scores.get)
    assert found.note == f"d = {best}"
    torch.testing.assert_close(found.log_prob, every[best].log_prob(test))
    assert found.log_prob.mean() > every[1].log_prob(test).mean() + 1


def test_validation_chooses_the_components_of_linear_models():
    train, validation, test = data(900, 8, 3).split([300, 300, 300])
    make = pv.AR1GaussianLikelihood
    found = chosen(
        "linear, ar1, d by validation", train, test, 1, {"ar1": make}, validation=validation, latent_dims=[2, 3]
    )
    every = {d: pv.FactorModel.fit(train, make(1, 8), d) for d in (1, 2, 3)}
    best = max(every, key=lambda d: every[d].log_prob(validation).mean().item())
    assert found.note == f"d = {best}" != "d = 1"
    torch.testing.assert_close(found.log_prob, every[best].log_prob(test))


@pytest.mark.parametrize("num", [25, 200])  # fewer than channels: S is singular, and only shrunk it has a density
def test_a_gaussian_is_shrunk_as_validation_asks(num):
    train, validation, test = data(num + 400, 30, 3).split([num, 200, 200])
    found = chosen("Gaussian, shrunk covariance", train, test, 3, validation=validation)
    percent, target = found.note.removeprefix("shrunk by ").split(" % to ")
    assert target == "its diagonal"
    covariance = np.cov(train.T.numpy(), bias=True)
    diagonal, mean = np.diag(np.diag(covariance)), train.mean(0).numpy()

    def score(a, x):
        return stats.multivariate_normal(mean, (1 - a) * covariance + a * diagonal).logpdf(x.numpy())

    shares = 10.0 ** np.linspace(-10, 0, 81)
    best = max((a for a in shares if a > 1e-6), key=lambda a: score(a, validation).mean())
    assert float(percent) / 100 == pytest.approx(best, rel=0.05)  # of two digits
    np.testing.assert_allclose(found.log_prob, score(best, test), rtol=1e-9)
    assert (found.reconstruction, found.noise_scale) == (None, None)


def test_the_test_data_choose_nothing():
    train, validation = data(400, 10, 4, noise=0.1).split([60, 340])
    g = torch.Generator().manual_seed(1)
    hostile = torch.randn(300, 10, generator=g, dtype=torch.float64) * train.std(0)  # without any correlation
    make = {"ar1": pv.AR1GaussianLikelihood}
    notes = [
        {b.name: b.note for b in pv.linear_baselines(train, test, 1, make, validation=held_out, latent_dims=[2, 4])}
        for test, held_out in ((hostile, validation), (validation, validation), (validation, hostile))
    ]
    assert notes[0] == notes[1]
    for name in ("probabilistic PCA, d by validation", "linear, ar1, d by validation", "Gaussian, shrunk covariance"):
        assert notes[0][name] != notes[2][name]  # what the test data would have chosen


def test_a_full_noise_covariance_is_shrunk_too_and_better_than_the_simpler_model_it_is_shrunk_to():
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(20, 20, generator=generator, dtype=torch.float64)  # noise that is not AR(1)
    x = torch.randn(450, 20, generator=generator, dtype=torch.float64) @ mixing
    train, validation, test = x.split([50, 200, 200])
    simple = pv.FactorModel.fit(train, pv.AR1GaussianLikelihood(1, 20, scale="per-dimension"), 2)
    full = pv.FactorModel.fit(train, pv.FullCovarianceGaussianLikelihood(1, 20), 2, validation)
    assert full.log_prob(test).mean() > simple.log_prob(test).mean() + 1
    torch.testing.assert_close(full.loadings, simple.loadings)
    own, target = torch.cov(train.T, correction=0), simple.marginal.covariance_matrix
    shares = torch.logspace(-10, 0, 81, dtype=torch.float64)
    scores = [
        torch.distributions.MultivariateNormal(simple.offset, (1 - a) * own + a * target).log_prob(validation).mean()
        for a in shares
    ]
    best = shares[int(torch.stack(scores).argmax())]
    assert 1e-6 < best < 0.5
    torch.testing.assert_close(full.marginal.covariance_matrix, (1 - best) * own + best * target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x, x[:, :4], 2), r"test must be finite data of shape \(num, 6\), not \(50, 4\)"),
        (lambda x: (x, x / 0, 2), "test must be finite data"),
        (lambda x: (x, x, 2, None, x[:, :4]), "validation must be finite"),
        (lambda x: (x, x, 2, None, x[:0]), "validation must be finite"),
        (
            lambda x: (x, x, 2, {"ar1": pv.AR1GaussianLikelihood}, None, [3]),
            "validation data choose from them; give both",
        ),
        (lambda x: (x.softmax(-1), x, 5), "latent_dim must be an integer from 1 to 4"),
        (lambda x: (x, x, 2, None, x, [3, 9]), "every one of latent_dims must be an integer from 1 to 5"),
        (lambda x: (x, x, 6), "latent_dim must be an integer from 1 to 5 for 50 data, not 6"),
        (lambda x: (x * torch.tensor([1, 1, 0, 1, 1, 1]), x, 2), r"channel 2 \(counted from 0\) is constant"),
    ],
)
def test_bad_data(change, message):
    train, test, latent_dim, *others = change(data(50))
    options = dict(zip(("likelihoods", "validation", "latent_dims"), others, strict=False))
    with pytest.raises(ValueError, match=message):
        pv.linear_baselines(train, test, latent_dim, **options)


def test_linear_baselines_of_any_noise():
    train, test = data(500, 8).split([300, 200])
    found = pv.linear_baselines(train, test, 2, {"ar1": pv.AR1GaussianLikelihood})
    assert [baseline.name for baseline in found][3:] == ["linear, ar1"]
    truth = pv.FactorModel.fit(train, pv.AR1GaussianLikelihood(1, 8), 2)
    assert torch.equal(found[3].log_prob, truth.log_prob(test))
    assert torch.equal(found[3].reconstruction, truth.reconstruct(test))
