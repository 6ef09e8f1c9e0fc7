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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x, x[:, :4], 2), r"test must be finite data of shape \(num, 6\), not \(50, 4\)"),
        (lambda x: (x, x / 0, 2), "test must be finite data"),
        (lambda x: (x, x, 6), "latent_dim must be an integer from 1 to 5 for 50 data, not 6"),
        (lambda x: (x * torch.tensor([1, 1, 0, 1, 1, 1]), x, 2), r"channel 2 \(counted from 0\) is constant"),
    ],
)
def test_bad_data(change, message):
    with pytest.raises(ValueError, match=message):
        pv.linear_baselines(*change(data(50)))
