"""Programs that start as a linear-Gaussian model are that model, and its posterior."""

import pytest
import torch

import pyrovae as pv
from pyrovae.exact import LinearGaussianVAE
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.nn import MLP, Skip
from pyrovae.posteriors import POSTERIORS

GAUSSIAN = [name for name in POSTERIORS if name != "flow"]
NOISES = [name for name in LIKELIHOODS if "bernoulli" not in name]


@pytest.fixture
def linear():
    return LinearGaussianVAE(torch.randn(6, 2), 0.3, torch.randn(6))


def pair(posterior, likelihood):
    decoder, encoder = Skip(MLP(2, 8), 2), Skip(MLP(6, 8), 2)
    model = pv.GenerativeModel(decoder, LIKELIHOODS[likelihood](decoder.out_features, 6), 2).double()
    return model, pv.AmortizedGuide(encoder, POSTERIORS[posterior](encoder.out_features, 2)).double()


@pytest.mark.parametrize("family", GAUSSIAN)
def test_the_guide_is_the_familys_best(linear, family):
    model, guide = pair(family, "gaussian")
    pv.start_as_linear(model, guide, linear)
    x = linear.sample(20)
    torch.testing.assert_close(linear.elbo(guide, x), linear.best_elbo(family, x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("noise", NOISES)
def test_the_model_is_the_linear_one(linear, noise):
    model, guide = pair("full-covariance", noise)
    pv.start_as_linear(model, guide, linear)
    z = torch.randn(50, 2, dtype=torch.float64)
    p = model.conditional(z)
    torch.testing.assert_close(p.mean, z @ linear.loadings.T + linear.offset)
    near = 0.03 if "low-rank" in noise or "per-datum" in noise else 1e-9  # these start a little off
    torch.testing.assert_close(p.stddev, torch.full_like(p.mean, 0.3), atol=near, rtol=0)
    if noise == "gaussian":
        found = LinearGaussianVAE.from_model(model)
        x = linear.sample(10)
        torch.testing.assert_close(found.log_prob(x), linear.log_prob(x))


def test_training_leaves_the_start_and_the_linear_maps_stay(linear):
    x = linear.sample(200)
    bent = x + 0.5 * x[:, :1] ** 2  # not linear any more
    model, guide = pair("diagonal", "gaussian-per-dimension")
    start = LinearGaussianVAE.fit(bent, 2)
    pv.start_as_linear(model, guide, start)
    before, kept = pv.elbo_terms(model, guide, bent).elbo.mean(), guide.encoder.linear.weight.clone()
    pv.fit(model, guide, bent, pv.AnalyticELBO(), epochs=60, learning_rate=3e-3, engine="eager", progress=False)
    assert pv.elbo_terms(model, guide, bent).elbo.mean() > before + 0.05
    assert torch.equal(guide.encoder.linear.weight, kept)


def test_a_comparison_starts_at_probabilistic_pca(linear, tmp_path):
    x, test = linear.sample(300).float(), linear.sample(200).float()
    table = pv.compare(
        x,
        test=test,
        posteriors=[pv.DiagonalPosterior],
        estimators=[pv.AnalyticELBO()],
        likelihoods=[pv.GaussianLikelihood],
        epochs=1,
        learning_rate=1e-9,
        hidden=(8,),
        start="linear",
        out=tmp_path,
        pictures=False,
    )
    expected = -LinearGaussianVAE.fit(x, 2).log_prob(test).mean().item()
    assert table["test_neg_elbo"][0] == pytest.approx(expected, abs=0.05)
    assert -table["test_log_marginal"][0] == pytest.approx(expected, abs=1e-3)
    model, guide = pv.load(next(tmp_path.rglob("model.safetensors")))
    assert pv.elbo_terms(model, guide, test).elbo.mean().item() == pytest.approx(-expected, abs=0.05)


def test_what_cannot_start_so_says_why(linear, tmp_path):
    model, guide = pair("diagonal", "bernoulli")
    with pytest.raises(TypeError, match="needs a Gaussian likelihood, not BernoulliLikelihood"):
        pv.start_as_linear(model, guide, linear)
    model, guide = pair("flow", "gaussian")
    with pytest.raises(TypeError, match="a FlowPosterior has no loc_head"):
        pv.start_as_linear(model, guide, linear)
    model, guide = pair("diagonal", "gaussian")
    with pytest.raises(ValueError, match="the linear model has d = 1 and n = 6"):
        pv.start_as_linear(model, guide, LinearGaussianVAE(torch.randn(6, 1), 0.3))
    guide.encoder = MLP(6, 8)
    with pytest.raises(TypeError, match="the decoder and the encoder must be Skip"):
        pv.start_as_linear(model, guide, linear)
    settings = {"posteriors": [pv.DiagonalPosterior], "estimators": [pv.AnalyticELBO()], "epochs": 1}
    with pytest.raises(TypeError, match="needs a Gaussian likelihood"):
        pv.compare(
            linear.sample(20), likelihoods=[pv.ContinuousBernoulliLikelihood], start="linear", out=tmp_path / "out",
            **settings,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="start must be 'random' or 'linear', not 'pca'"):
        pv.compare(linear.sample(20), start="pca", **settings)
    with pytest.raises(ValueError, match="width must be a positive integer, not 0"):
        Skip(MLP(2, 2), 0)
