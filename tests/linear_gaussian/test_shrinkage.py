"""The shrinkage of a covariance against densities worked out one share at a time."""

import pytest
import torch

import pyrovae as pv
from pyrovae.linear_gaussian._shrinkage import SHARES, _expected_covariance, best_shrinkage, shrinkage, shrunk
from pyrovae.linear_gaussian.factor_model import diagonal_model
from pyrovae.linear_gaussian.shrunk_gaussian import ShrunkGaussian
from pyrovae.posteriors.lbfgs import OutOfTimeError, ending_by


@pytest.mark.parametrize("num", [20, 300])
def test_best_shrinkage_is_the_largest_density_of_held_out_data(num):
    x = torch.randn(num + 100, 2).double() @ torch.randn(2, 8).double() + 0.3 * torch.randn(num + 100, 8).double()
    own, held_out = torch.cov(x[:num].T, correction=0), x[num:] - x[:num].mean(0)
    target = own.diagonal().diag() + 0.9 * (own - own.diagonal().diag())
    share, score, _ = best_shrinkage(own, target, held_out)
    scores = [
        torch.distributions.MultivariateNormal(torch.zeros(8).double(), shrunk(own, target, a))
        .log_prob(held_out)
        .mean()
        for a in SHARES.tolist()
    ]
    assert score == pytest.approx(max(scores).item(), abs=1e-9)
    assert share == SHARES[int(torch.stack(scores).argmax())]
    # at the other end, the target alone
    white, eye = torch.randn(200, 8, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
    share, score, _ = best_shrinkage(own, eye, white)
    assert share > 0.5
    dense = torch.distributions.MultivariateNormal(torch.zeros(8).double(), shrunk(own, eye, share))
    assert score == pytest.approx(dense.log_prob(white).mean().item(), abs=1e-9)


@pytest.mark.parametrize("num", [20, 300])
@pytest.mark.parametrize("latent_dim", [0, 2])
def test_the_share_of_many_channels_is_found_without_a_decomposition_of_all(num, latent_dim):
    """The search, and with fewer data than channels the inner products, against every share of the dense matrices."""
    generator = torch.Generator().manual_seed(num)
    mixing = torch.randn(2, 30, generator=generator, dtype=torch.float64)
    noise = 0.5 * torch.randn(num + 100, 30, generator=generator, dtype=torch.float64).cumsum(-1)
    x = torch.randn(num + 100, 2, generator=generator, dtype=torch.float64) @ mixing + noise
    train, held_out = x.split([num, 100])
    target = diagonal_model(train)
    if latent_dim:
        target = pv.FactorModel.fit(train, pv.AR1GaussianLikelihood(1, 30), latent_dim)
    share, score, _ = shrinkage(train, target, held_out)
    own = torch.cov(train.T, correction=0)
    dense = best_shrinkage(own, target.marginal.covariance_matrix, held_out - train.mean(0))
    assert (share, score) == (dense[0], pytest.approx(dense[1], abs=1e-9))
    assert share > 1e-6
    assert shrinkage(train, target, held_out, dense=10)[:2] == (share, pytest.approx(score, abs=1e-6))
    if num < 30:
        assert shrinkage(train, target, held_out, dense=num)[:2] == (share, pytest.approx(score, abs=1e-6))


def test_the_covariance_that_data_with_gaps_are_expected_to_have():
    """Under a dense covariance as under the same model with latents."""
    x = torch.randn(40, 6, dtype=torch.float64).cumsum(-1)
    model = pv.FactorModel.fit(x, pv.AR1GaussianLikelihood(1, 6), 2)
    gaps = x.masked_fill(torch.rand(x.shape) < 0.4, torch.nan)
    found = _expected_covariance(gaps, model.offset, model.marginal.covariance_matrix)
    torch.testing.assert_close(found, model.expected_moments(gaps)[1])
    singular = torch.ones(6, 6, dtype=torch.float64)
    assert _expected_covariance(gaps, model.offset, singular) is None


@pytest.mark.parametrize("form", ["shrunk", "full covariance"])
def test_gaps_are_filled_under_the_shrunk_gaussian_itself(form):
    """Under the target, which has no correlation like the data's, a covariance of data with gaps is too near to it."""
    root = torch.randn(8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ root
    train, validation = x.masked_fill(torch.rand(x.shape) < 0.1, torch.nan)[:1200].split([1000, 200])
    truth = torch.distributions.MultivariateNormal(torch.zeros(8).double(), root.T @ root).log_prob(x[1200:]).mean()
    target = pv.FactorModel.fit(train, pv.AR1GaussianLikelihood(1, 8), 1)
    if form == "shrunk":
        model = ShrunkGaussian.fit(train, validation, {"AR(1)": target})[0]
    else:
        model = pv.FactorModel.fit(train, pv.FullCovarianceGaussianLikelihood(1, 8), 1, validation)
    for one in (model, model.refit(train)):
        assert (truth - one.log_prob(x[1200:]).mean()).item() < 0.2 < (truth - target.log_prob(x[1200:]).mean()).item()
    once = shrinkage(train, target, validation, rounds=0)
    assert shrinkage(train, target, validation).log_prob > once.log_prob + 0.3


def test_a_fit_that_has_no_time_left_is_not_half_a_fit():
    x = torch.randn(60, 4, dtype=torch.float64).masked_fill(torch.rand(60, 4) < 0.1, torch.nan)
    target = pv.FactorModel.fit(x, pv.AR1GaussianLikelihood(1, 4), 1)
    with pytest.raises(OutOfTimeError), ending_by(0.0):
        shrinkage(x, target, x)
