"""Modules and parameters that functions use: evaluated in evaluation mode, and left as they are."""

import copy
import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv

X = torch.tensor([[0.3, 1.2, -0.4], [1.0, -0.5, 0.2], [-1.5, 0.1, 0.7], [0.4, 0.4, -0.9], [2.0, -1.0, 0.6]])
ONE = X[:, :1].clone()


def decoder(kind):
    torch.manual_seed(0)
    layer = nn.Dropout(0.5) if kind == "dropout" else nn.BatchNorm1d(8)
    made = nn.Sequential(nn.Linear(2, 8), layer, nn.Tanh(), nn.Linear(8, 3))
    if kind == "norm":
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 3.0)
    return made


def model_of(network, announces=True):
    def model(x):
        if announces:
            pyro.module("network", network)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(network(z), 1.0).to_event(1), obs=x)

    return model


class Holder:
    """Programs as methods of an object that is no module."""

    def __init__(self, network):
        self.network = network

    def model(self, x):
        model_of(self.network, announces=False)(x)


WAYS = {
    "announced": model_of,
    "closure": functools.partial(model_of, announces=False),
    "method": lambda network: Holder(network).model,
    "partial": lambda network: functools.partial(lambda x, given: model_of(given, False)(x), given=network),
}


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.2 * x[:, :2], 0.9).to_event(1))


def state_of(network):
    modes = [torch.tensor(float(module.training)) for module in network.modules()]
    gradients = [torch.zeros(()) if p.grad is None else p.grad for p in network.parameters()]
    return [tensor.clone() for tensor in (*network.state_dict().values(), *modes, *gradients)]


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("dropout", "announced"),
        ("norm", "announced"),
        ("dropout", "closure"),
        ("norm", "method"),
        ("dropout", "partial"),
    ],
)
def test_modules_of_functions_are_evaluated_in_evaluation_mode(kind, way):
    """Right by 100,000 draws from the prior through the network in evaluation mode."""
    network = decoder(kind)
    model, before = WAYS[way](network), state_of(network)
    z = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        p = dist.Normal(copy.deepcopy(network).eval()(z), 1.0).to_event(1)
        right = torch.stack([p.log_prob(x).double().logsumexp(0) for x in X]) - math.log(len(z))
    found = pv.log_marginal(model, guide, X)
    torch.testing.assert_close(found.per_datum, right, rtol=0, atol=0.1)
    found = pv.log_marginal(model, guide, X, "quadrature")
    torch.testing.assert_close(found.per_datum, right, rtol=0, atol=0.05)
    lost = right - pv.elbo_terms(model, guide, X, num_samples=500).elbo
    assert (lost > -0.3).all()
    assert (lost < 3).all()
    pv.refine(model, guide, X)
    pv.audit(model, guide, pv.MonteCarloELBO(), X)
    assert all(map(torch.equal, before, state_of(network)))
    assert not pyro.get_param_store()


@pytest.mark.parametrize(("kind", "way"), [("norm", "announced"), ("dropout", "method")])
def test_a_comparison_of_guides_does_not_change_the_given_function_s_modules(kind, way):
    network = decoder(kind)
    before = state_of(network)
    how = {"posteriors": ["diagonal"], "estimators": ["monte-carlo"], "latent_dims": (2,), "seeds": (0,)}
    table = pv.compare(X.repeat(8, 1), model=WAYS[way](network), **how, epochs=2, progress=False)
    assert table["status"].tolist() == ["finished"]
    assert all(map(torch.equal, before, state_of(network)))
    assert all(p.requires_grad for p in network.parameters())


def test_the_checks_before_training_change_no_running_statistics():
    network = decoder("norm")
    before = state_of(network)
    with pytest.raises(pv.InputError, match="the last batch of an epoch holds one of the 5 data, and BatchNorm1d"):
        pv.fit(model_of(network), guide, X, pv.MonteCarloELBO(), epochs=1, batch_size=2, progress=False)
    assert all(map(torch.equal, before, state_of(network)))
    network.eval()
    pv.fit(model_of(network), guide, X, pv.MonteCarloELBO(), epochs=1, batch_size=2, progress=False)


def test_evaluating_leaves_no_parameters_in_the_store():
    def model(x):
        scale = pyro.param("scale_of_evaluating", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), scale).to_event(1), obs=x)

    for evaluate in (pv.elbo_terms, pv.log_marginal):
        evaluate(model, guide, X)
        assert not pyro.get_param_store()
    pyro.param("scale_of_evaluating", torch.tensor(2.0), constraint=dist.constraints.positive)
    low, right = pv.elbo_terms(model, guide, X).elbo, pv.log_marginal(model, guide, X).per_datum
    covariance = 2 * torch.ones(3, 3).double() + 4 * torch.eye(3).double()
    expected = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(X.double())
    torch.testing.assert_close(right, expected, rtol=0, atol=0.1)
    assert (low < expected + 0.2).all()
    assert list(pyro.get_param_store()) == ["scale_of_evaluating"]


def test_a_flow_with_batch_norm_is_scored_by_its_running_statistics():
    """The flow of the base has the exact posterior N(x/2, 1/2), at which every estimate is log p(x)."""
    norm = dist.transforms.BatchNorm(1)
    norm.moving_mean.fill_(2.0)
    norm.moving_variance.fill_(4.0 - norm.epsilon)
    x = torch.tensor([[0.3], [1.2], [-0.7]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def by_flow(x):
        pyro.module("norm", norm)
        gamma = norm.constrained_gamma.detach()
        base = dist.Normal(gamma * (0.5 * x - 2.0) / 2, gamma * 0.5**0.5 / 2)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(base, [norm]).to_event(1))

    before, right = state_of(norm), dist.Normal(0.0, 2**0.5).log_prob(x).squeeze(-1).double()
    for found in (
        pv.elbo_estimate(model, by_flow, x, num_samples=8),
        *(pv.log_marginal(model, by_flow, x, m, num_samples=30) for m in ("auto", "importance")),
    ):
        torch.testing.assert_close(found.per_datum, right, rtol=0, atol=1e-4)
    assert (pv.elbo_terms(model, by_flow, x, num_samples=2000).elbo - right).abs().max() < 0.1
    assert all(map(torch.equal, before, state_of(norm)))
    for run in (pv.MonteCarloELBO().loss, lambda *p: pv.fit(*p, pv.MonteCarloELBO(), epochs=1, progress=False)):
        with pytest.raises(pv.InputError, match=r"^site 'z' is drawn by a flow with BatchNorm in training mode"):
            run(model, by_flow, x)
