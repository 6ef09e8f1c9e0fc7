"""Programs that start as a linear-Gaussian model are that model, and its posterior; heads count in units."""

import copy
from functools import partial

import pytest
import torch

import pyrovae as pv
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.linear_gaussian.warm_start import linear_models
from pyrovae.nn import MLP, LocHead, Skip, class_of
from pyrovae.posteriors import POSTERIORS

GAUSSIAN = [name for name, make in POSTERIORS.items() if class_of(make).is_gaussian]
NOISES = [name for name, make in LIKELIHOODS.items() if class_of(make).is_gaussian]


@pytest.fixture
def x():
    noise = 0.3 * torch.randn(400, 6, dtype=torch.float64).cumsum(-1)
    return torch.randn(400, 2, dtype=torch.float64) @ torch.randn(2, 6, dtype=torch.float64) + noise + 5


def pair(posterior, likelihood):
    decoder, encoder = Skip(MLP(2, 8), 2), Skip(MLP(6, 8), 2)
    model = pv.GenerativeModel(decoder, LIKELIHOODS[likelihood](decoder.out_features, 6), 2).double()
    return model, pv.AmortizedGuide(encoder, POSTERIORS[posterior](encoder.out_features, 2)).double()


@pytest.mark.parametrize("family", GAUSSIAN)
def test_the_guide_is_the_familys_best(x, family):
    model, guide = pair(family, "ar1")
    linear = pv.FactorModel.fit(x, model.likelihood, 2)
    pv.start_as_linear(model, guide, linear)
    given = linear.log_prob(x[:20]) - linear.whitened.gap(family)
    kl = torch.distributions.kl_divergence(guide.posterior(x[:20]), linear.whitened.posterior(whiten(linear, x[:20])))
    torch.testing.assert_close(linear.log_prob(x[:20]) - kl, given, atol=1e-6, rtol=0)


def whiten(linear, x):
    return torch.linalg.solve_triangular(linear.noise_scale_tril, x.T, upper=False).T


@pytest.mark.parametrize("noise", NOISES)
def test_the_model_is_the_linear_one(x, noise):
    model, guide = pair("full-covariance", noise)
    linear = pv.FactorModel.fit(x, model.likelihood, 2)
    pv.start_as_linear(model, guide, linear)
    z = torch.randn(50, 2, dtype=torch.float64)
    p = model.conditional(z)
    torch.testing.assert_close(p.mean, z @ linear.loadings.T + linear.offset)
    covariance = pv.distributions.covariance_of(p)
    torch.testing.assert_close(covariance, linear.noise_covariance.expand_as(covariance))
    bayes = p.log_prob(x[:50]) + model.prior_distribution().log_prob(z) - guide.posterior(x[:50]).log_prob(z)
    torch.testing.assert_close(bayes, linear.log_prob(x[:50]))  # which is log p(x) whatever z is, for the posterior


def test_training_leaves_the_start_and_the_linear_maps_stay(x):
    bent = x + 0.5 * x[:, :1] ** 2  # not linear any more
    model, guide = pair("diagonal", "gaussian-per-dimension")
    start = pv.FactorModel.fit(bent, model.likelihood, 2)
    pv.start_as_linear(model, guide, start)
    before, kept = pv.elbo_terms(model, guide, bent).elbo.mean(), guide.encoder.linear.weight.clone()
    pv.fit(model, guide, bent, pv.AnalyticELBO(), epochs=60, learning_rate=3e-3, engine="eager", progress=False)
    assert pv.elbo_terms(model, guide, bent).elbo.mean() > before + 0.05
    assert torch.equal(guide.encoder.linear.weight, kept)


def test_a_comparison_starts_at_the_linear_model_and_keeps_it_if_training_only_harms(x, tmp_path):
    train, test = x[:250].float(), x[250:].float()
    table = pv.compare(
        train,
        test=test,
        validation=test,
        posteriors=[pv.DiagonalPosterior],
        estimators=[pv.AnalyticELBO()],
        likelihoods={"gaussian": pv.GaussianLikelihood, "ar1": pv.AR1GaussianLikelihood},
        epochs=1,
        learning_rate=5.0,
        hidden=(8,),
        start="linear",
        out=tmp_path,
        pictures=False,
    ).set_index("likelihood")
    for name in ("gaussian", "ar1"):
        expected = -pv.FactorModel.fit(train, LIKELIHOODS[name](1, 6), 2).log_prob(test).mean().item()
        assert table["test_neg_elbo"][name] == pytest.approx(expected, abs=0.05)
        assert -table["test_log_marginal"][name] == pytest.approx(expected, abs=1e-3)
        model, guide = pv.load(next(tmp_path.rglob(f"*-{name}-d2-seed0/model.safetensors")))
        assert pv.elbo_terms(model, guide, test).elbo.mean().item() == pytest.approx(-expected, abs=0.05)
    assert table["test_neg_elbo"]["ar1"] < table["test_neg_elbo"]["gaussian"] - 0.5


def test_what_cannot_start_so_says_why(x, tmp_path):
    linear = pv.FactorModel.fit(x, pv.GaussianLikelihood(1, 6), 2)
    model, guide = pair("diagonal", "bernoulli")
    with pytest.raises(TypeError, match="needs a Gaussian likelihood, not BernoulliLikelihood"):
        pv.start_as_linear(model, guide, linear)
    model, guide = pair("flow", "gaussian")
    with pytest.raises(TypeError, match="a FlowPosterior has no loc_head"):
        pv.start_as_linear(model, guide, linear)
    model, guide = pair("diagonal", "gaussian")
    with pytest.raises(ValueError, match="the linear model has d = 1 and n = 6"):
        pv.start_as_linear(model, guide, pv.FactorModel.fit(x, pv.GaussianLikelihood(1, 6), 1))
    with pytest.raises(ValueError, match="another form of noise"):
        pv.start_as_linear(model, guide, pv.FactorModel.fit(x, pv.AR1GaussianLikelihood(1, 6), 2))
    model.prior = pv.priors.AR1Prior(2, 0.5)
    with pytest.raises(ValueError, match=r"prior must be N\(0, I\)"):
        pv.start_as_linear(model, guide, linear)
    guide.encoder = MLP(6, 8)
    with pytest.raises(TypeError, match="the decoder and the encoder must be Skip"):
        pv.start_as_linear(model, guide, linear)
    settings = {"posteriors": [pv.DiagonalPosterior], "estimators": [pv.AnalyticELBO()], "epochs": 1}
    with pytest.raises(TypeError, match="needs a Gaussian likelihood"):
        pv.compare(x, likelihoods=[pv.ContinuousBernoulliLikelihood], start="linear", out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="unknown start 'pca'; choose one of random, linear, auto"):
        pv.compare(x, start="pca", **settings)
    with pytest.raises(ValueError, match="width must be a positive integer, not 0"):
        Skip(MLP(2, 2), 0)


def test_a_head_in_units_is_the_same_map_and_moves_by_them():
    head, features = LocHead(3, 4).double(), torch.randn(10, 3, dtype=torch.float64)
    before, units = head(features), torch.tensor([1e-4, 1e-2, 1.0, 100.0], dtype=torch.float64)
    head.set_units(units)
    torch.testing.assert_close(head(features), before)
    with torch.no_grad():
        head.bias += 0.5
    torch.testing.assert_close(head(features) - before, (0.5 * units).expand(10, 4), atol=1e-12, rtol=1e-6)
    head.set_affine(torch.ones(4, 2).double(), torch.arange(4).double())
    torch.testing.assert_close(head(features), features[:, :2].sum(-1, keepdim=True) + torch.arange(4))
    for bad in (torch.zeros(4), torch.ones(3)):
        with pytest.raises(ValueError, match="units must be 4 positive numbers"):
            head.set_units(bad)
    head.load_state_dict({}, strict=False)
    torch.testing.assert_close(head(features), features[:, :2].sum(-1, keepdim=True) + torch.arange(4))
    head.set_units(torch.ones(4))
    torch.testing.assert_close(head(features), features[:, :2].sum(-1, keepdim=True) + torch.arange(4))


@pytest.mark.parametrize("with_units", [False, True])
def test_units_are_saved_with_a_model(tmp_path, with_units):
    model, guide = pair("full-covariance", "low-rank")
    if with_units:
        model.likelihood.loc_head.set_units(torch.linspace(0.1, 2, 6))
        guide.posterior_head.loc_head.set_units(torch.tensor([0.5, 3.0]))
    pv.save(tmp_path / "model.safetensors", model, guide)
    other, _ = again = pv.load(tmp_path / "model.safetensors")
    z, x = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    assert torch.equal(other.conditional(z).mean, model.conditional(z).mean)
    assert torch.equal(again[1].posterior(x).mean, guide.posterior(x).mean)
    plain = copy.deepcopy(model)
    plain.likelihood.loc_head.set_units(torch.full((6,), 2.0))
    plain.load_state_dict(model.state_dict())  # whichever had units before
    assert torch.equal(plain.conditional(z).mean, model.conditional(z).mean)


@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_replicas_with_units_train_as_alone(x, engine):
    settings = {
        "posteriors": [pv.DiagonalPosterior],
        "estimators": [pv.AnalyticELBO()],
        "likelihoods": {"ar1": partial(pv.AR1GaussianLikelihood, scale="per-dimension")},
        "epochs": 2,
        "batch_size": 100,
        "hidden": (8,),
        "start": "linear",
    }
    both = pv.compare(x, seeds=(0, 1), engine=engine, **settings)
    alone = [pv.compare(x, seeds=(seed,), engine="eager", **settings) for seed in (0, 1)]
    for seed in (0, 1):
        assert both["test_neg_elbo"][seed] == pytest.approx(alone[seed]["test_neg_elbo"][0], rel=1e-5)


def test_linear_models_of_one_form_are_fitted_once(x, monkeypatch):
    fits, fit = [], pv.FactorModel.fit
    monkeypatch.setattr(pv.FactorModel, "fit", lambda x, form, d: fits.append((type(form), d)) or fit(x, form, d))
    names = ("ar1-per-dimension", "full-covariance", "low-rank")
    models = linear_models(x, {name: LIKELIHOODS[name] for name in names}, (1, 2))
    assert len(fits) == len(set(fits)) == 4  # AR(1) and factor analysis, each at two numbers of dimensions
    full, simple = models["full-covariance", 2], models["ar1-per-dimension", 2]
    assert isinstance(full.likelihood, pv.FullCovarianceGaussianLikelihood)
    torch.testing.assert_close(full.log_prob(x), simple.log_prob(x))


def test_linear_models_of_each_likelihood_and_dimension(x):
    models = linear_models(x, {"a": pv.GaussianLikelihood, "b": pv.AR1GaussianLikelihood}, (1, 2))
    assert set(models) == {("a", 1), ("a", 2), ("b", 1), ("b", 2)}
    truth = LinearGaussianVAE.fit(x, 2)
    torch.testing.assert_close(models["a", 2].log_prob(x), truth.log_prob(x), atol=5e-3, rtol=0)
