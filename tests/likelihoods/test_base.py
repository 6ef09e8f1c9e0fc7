"""Likelihoods with Gaussian noise: against dense scipy, floors, missing values, engines and files."""

import math
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from scipy import stats

import pyrovae as pv
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.nn import class_of
from pyrovae.training import TrainingSettings, reinitialize
from tests.pairs import as_graph

GAUSSIAN = [name for name, make in LIKELIHOODS.items() if class_of(make).is_gaussian]


def made(name, n=7, in_features=4):
    """A likelihood with random parameters, in float64."""
    torch.manual_seed(1)
    likelihood = LIKELIHOODS[name](in_features, n, initial_scale=0.5).double()
    for parameter in likelihood.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return likelihood


def make_pair(name, n=7, missing=False):
    torch.manual_seed(1)
    encoder = pv.nn.MLP(n, 16)
    model = pv.GenerativeModel(pv.nn.MLP(2, 16), LIKELIHOODS[name](16, n, initial_scale=0.5), 2, missing=missing)
    guide = pv.AmortizedGuide(pv.nn.ImputeMissing(encoder) if missing else encoder, pv.DiagonalPosterior(16, 2))
    return model.double(), guide.double()


def data(num=80, n=7, missing=False):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(num, n, dtype=torch.float64, generator=generator).cumsum(-1)
    return x.masked_fill(torch.rand(num, n, generator=generator) < 0.2, math.nan) if missing else x


def dense_covariance(name, likelihood, features):
    """Σ of one datum, from the parameters by their documented meaning, in numpy."""
    n = likelihood.n
    scale = lambda raw: np.logaddexp(0, raw) + 0.5e-4  # noqa: E731
    start = np.log(np.expm1(0.5 - 0.5e-4))
    if name.startswith("gaussian"):
        if name == "gaussian-per-datum":
            return np.diag(scale(likelihood.scale_head(features).numpy() + start) ** 2)
        return np.diag(np.broadcast_to(scale(likelihood.raw_scale.numpy()) ** 2, n))
    raw = likelihood.covariance_head(features) if name.endswith("per-datum") else likelihood.raw_noise
    raw = raw.numpy()
    if name.startswith("ar1"):
        sigma = np.broadcast_to(scale(raw[:-1] + start), n)
        rho = np.tanh(8 * np.tanh(raw[-1] / 8))
        steps = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        return np.outer(sigma, sigma) * rho**steps
    if name.startswith("low-rank"):
        factor = 0.5 * raw[n:].reshape(n, 2)
        return np.diag(scale(raw[:n] + start) ** 2 + 1e-4 * (factor**2).sum(-1)) + factor @ factor.T
    unit = np.eye(n)
    unit[np.tril_indices(n, -1)] = raw[n:] / (math.sqrt(n) if name.endswith("per-datum") else 1)
    factor = scale(raw[:n] + start)[:, None] * unit
    return factor @ factor.T


@pytest.mark.parametrize("name", GAUSSIAN)
@torch.no_grad()
def test_log_prob_is_that_of_dense_scipy(name):
    likelihood = made(name)
    features = torch.randn(3, 4, dtype=torch.float64)
    p = likelihood(features)
    x = p.sample()
    loc = likelihood.loc_head(features).numpy()
    for i in range(3):
        covariance = dense_covariance(name, likelihood, features[i])
        expected = stats.multivariate_normal(loc[i], covariance).logpdf(x[i].numpy())
        assert p.log_prob(x)[i].item() == pytest.approx(expected, abs=1e-9)
        np.testing.assert_allclose(likelihood.noise_covariance(features[i]).numpy(), covariance, atol=1e-12)
    grid = likelihood(features).log_prob(x.unsqueeze(1))  # every datum under every z, as quadrature asks
    torch.testing.assert_close(grid.diagonal(), p.log_prob(x))


@pytest.mark.parametrize("name", GAUSSIAN)
def test_where_scales_start(name):
    likelihood = LIKELIHOODS[name](4, 5, initial_scale=0.2)
    reinitialize(likelihood, seed=3)
    torch.manual_seed(3)
    for left, right in zip(LIKELIHOODS[name](4, 5).parameters(), likelihood.parameters(), strict=True):
        if left.dim() > 1:
            assert torch.equal(left, right)  # a fresh start is a fresh construction
    if not likelihood.depends_on_z:
        sigma = likelihood.noise_covariance().diagonal().sqrt()
        torch.testing.assert_close(sigma, torch.full((5,), 0.2), rtol=0.05, atol=0)


@pytest.mark.parametrize("name", ["gaussian-per-dimension", "gaussian-per-datum", "ar1-per-dimension", "low-rank"])
def test_a_constant_channel_stops_at_the_floor_and_is_reported(name):
    x = data(64, 3)
    x[:, 1] = 0.3  # its σ would go to 0 and its density to infinity
    torch.manual_seed(0)
    likelihood = LIKELIHOODS[name](8, 3, initial_scale=0.5, floor=0.01)
    model = pv.GenerativeModel(pv.nn.MLP(1, 8), likelihood, 1)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 1))
    with torch.no_grad():  # x̂ = 0.3 there from the start, so that the floor is reached at once
        likelihood.loc_head.weight[1], likelihood.loc_head.bias[1] = 0, 0.3
    settings = {"epochs": 60, "learning_rate": 0.05, "schedule": "constant", "engine": "eager", "progress": False}
    pv.fit(model, guide, x, pv.AnalyticELBO(), **settings)
    features = model.decoder(torch.zeros(4, 1)) if likelihood.depends_on_z else None
    assert likelihood.on_floor(features).tolist() == [False, True, False]
    assert likelihood.noise_covariance(features).diagonal(dim1=-2, dim2=-1).min() >= (0.01 * 0.5) ** 2
    if likelihood.depends_on_z:
        with pytest.raises(ValueError, match="depends on z; give the decoder's features"):
            likelihood.on_floor()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            partial(pv.GaussianLikelihood, scale="per-channel"),
            "scale must be 'shared', 'per-dimension', 'per-datum' or",
        ),
        (partial(pv.GaussianLikelihood, floor=0.0), "floor must be a share of initial_scale"),
        (partial(pv.AR1GaussianLikelihood, scale="per-datum"), "scale must be 'shared' or 'per-dimension'"),
        (partial(pv.AR1GaussianLikelihood, covariance="full"), "covariance must be 'shared' or 'per-datum'"),
        (partial(pv.LowRankGaussianLikelihood, rank=0), "rank must be a positive integer"),
        (partial(pv.FullCovarianceGaussianLikelihood, initial_scale=-1.0), "initial_scale must be a positive number"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make(4, 3)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_missing_values_train_as_if_they_were_not_there(name):
    """The loss and every gradient are finite and do not depend on what a missing value would have been."""
    model, guide = make_pair(name, missing=True)
    x = data(20, missing=True)
    elbo, gradients = pv.AnalyticELBO(), []
    for _ in range(2):
        torch.manual_seed(0)
        loss = elbo.differentiable_loss(model, guide, x)
        gradients.append(torch.autograd.grad(loss, [*model.parameters(), *guide.parameters()]))
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in gradients[0])
    complete = data(20)
    torch.manual_seed(0)
    with_switch = elbo.differentiable_loss(model, guide, complete)
    other, other_guide = make_pair(name)
    torch.manual_seed(0)
    torch.testing.assert_close(with_switch, elbo.differentiable_loss(other, other_guide, complete))


@pytest.mark.parametrize("name", ["gaussian-per-datum", "ar1", "low-rank", "full-covariance", "missing"])
def test_the_graph_is_the_eager_engine(name):
    missing, name = name == "missing", "ar1" if name == "missing" else name
    x, settings = data(64, missing=missing), TrainingSettings(epochs=2, learning_rate=3e-3, seed=4)
    model, guide = make_pair(name, missing=missing)
    eager = pv.fit(
        model, guide, x, pv.MonteCarloELBO(), engine="eager", progress=False, epochs=2, learning_rate=3e-3, seed=4
    )
    graph = as_graph(*make_pair(name, missing=missing), x, pv.MonteCarloELBO(), settings)
    np.testing.assert_allclose(graph, eager.batch_loss, atol=1e-9, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["low-rank", "full-covariance"])
def test_a_replica_is_the_single_run_of_its_seed(name):
    settings = {"epochs": 40, "progress": False, "learning_rate": 3e-3}
    trained = pv.fit(*make_pair(name), data(96), pv.AnalyticELBO(), num_replicas=2, seed=5, engine="graph", **settings)
    assert trained[0].history.engine == "graph"
    model, guide = make_pair(name)
    reinitialize(model, guide, seed=6)
    alone = pv.fit(model, guide, data(96), pv.AnalyticELBO(), seed=6, engine="eager", **settings)
    np.testing.assert_allclose(trained[1].history.batch_loss, alone.batch_loss, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_files_hold_every_likelihood(name, tmp_path):
    torch.manual_seed(0)
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), LIKELIHOODS[name](8, 3), 2, missing=True)
    encoder = pv.nn.ImputeMissing(pv.nn.MLP(6, 8), fill=[0.1, 0.2, 0.3], indicate=True)
    guide = pv.AmortizedGuide(encoder, pv.DiagonalPosterior(8, 2))
    pv.save(tmp_path / "vae.safetensors", model, guide)
    other, other_guide = pv.load(tmp_path / "vae.safetensors")
    x = torch.tensor([[0.0, 1.0, math.nan], [1.0, math.nan, math.nan]])
    assert torch.equal(other.conditional(torch.ones(2, 2)).log_prob(x), model.conditional(torch.ones(2, 2)).log_prob(x))
    assert torch.equal(other_guide.posterior(x).mean, guide.posterior(x).mean)


def test_missing_values_are_data_only_where_asked_for():
    x = data(20, missing=True)
    model, guide = make_pair("ar1")
    for run in (lambda m: pv.fit(m, guide, x, pv.AnalyticELBO(), epochs=1), lambda m: pv.log_marginal(m, guide, x)):
        with pytest.raises(ValueError, match=r"NaN or infinite values, the first at row \d+, .*missing=True"):
            run(model)
    model, _ = make_pair("ar1", missing=True)
    for run in (lambda: pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=1), lambda: pv.elbo_terms(model, guide, x)):
        with pytest.raises(ValueError, match=r"is not finite; put pv\.nn\.ImputeMissing around"):
            run()
    x[3, 2] = math.inf
    with pytest.raises(ValueError, match="1 NaN or infinite values, the first at row 3, column 2"):
        pv.fit(*make_pair("ar1", missing=True), x, pv.AnalyticELBO(), epochs=1, progress=False)


def test_log_marginal_of_incomplete_data_is_the_exact_one(linear):
    model = linear.to_model()
    model.missing = True
    guide = linear.to_guide()
    guide.encoder = pv.nn.ImputeMissing(guide.encoder)
    x = linear.sample(3)
    x[0, 1], x[1, [0, 2]] = math.nan, math.nan
    result = pv.log_marginal(model, guide, x, method="quadrature", num_points=200, center="prior")
    for row, ours in zip(x.numpy(), result.per_datum.tolist(), strict=True):
        seen = ~np.isnan(row)
        covariance = linear.marginal.covariance_matrix.numpy()[seen][:, seen]
        expected = stats.multivariate_normal(linear.offset.numpy()[seen], covariance).logpdf(row[seen])
        assert ours == pytest.approx(expected, abs=1e-6)
    sampled = pv.log_marginal(model, guide, x, num_samples=4000)
    torch.testing.assert_close(sampled.per_datum, result.per_datum, atol=0.2, rtol=0)


def test_svi_takes_missing_values():
    model, guide = make_pair("ar1", missing=True)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), loss=pv.AnalyticELBO())
    losses = [svi.step(data(40, missing=True)) for _ in range(60)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
