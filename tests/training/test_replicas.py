"""Replicas against single runs of their seeds."""

import copy
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import nn

import pyrovae as pv
from pyrovae.training import reinitialize
from tests.training.runs import data, fit, functions, make_pair, replicas


@pytest.mark.parametrize("engine", ["auto", pytest.param("compiled", marks=pytest.mark.slow), "eager"])
def test_a_replica_is_the_single_run_of_its_seed(engine):
    epochs, num = (60, 6) if engine == "compiled" else (20, 3)  # six are two threes
    pair = make_pair("full-covariance")
    before = copy.deepcopy(pair[0].state_dict())
    trained = replicas(engine, num, pair, epochs=epochs, validation=data(seed=8))
    assert {r.history.engine for r in trained} == {"graph" if engine == "auto" else engine}
    assert all(torch.equal(value, before[name]) for name, value in pair[0].state_dict().items())
    for r, replica in enumerate(trained):
        model, guide = make_pair("full-covariance", seed=77)
        reinitialize(model, guide, seed=5 + r)
        alone = fit(
            model, guide, data(), pv.MonteCarloELBO(), "eager", epochs=epochs, seed=5 + r, validation=data(seed=8)
        )
        assert (replica.seed, replica.error) == (5 + r, None)
        np.testing.assert_allclose(replica.history.batch_loss, alone.batch_loss, atol=1e-10, rtol=0)
        assert replica.history.best_epoch == alone.best_epoch
        assert {record.seed for record in replica.history.epochs} == {5 + r}
        for left, right in zip(replica.model.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(left, right, atol=1e-9, rtol=0)
    assert abs(trained[0].history.batch_loss[0] - trained[1].history.batch_loss[0]) > 1e-3


def test_reinitialize_is_a_fresh_construction():
    made = make_pair("low-rank", seed=3)
    other = make_pair("low-rank", seed=4)
    torch.manual_seed(3)
    reinitialize(*(program.float() for program in other), seed=3)
    for left, right in zip(made, other, strict=True):
        for name, value in left.state_dict().items():
            torch.testing.assert_close(right.state_dict()[name].double(), value)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(16).double())

    def forward(self, x):
        return self.factor * x


def test_replicas_that_cannot_be():
    model, guide = make_pair()
    guide.encoder.append(Scaled())
    with pytest.raises(ValueError, match=r"AmortizedGuide.encoder.2, a Scaled, has parameters but no reset_parameters"):
        replicas(pair=(model, guide), epochs=1)
    layer = nn.Linear(3, 1).double()

    def guide(x):
        pyro.module("layer", layer)
        functions()[1](x)

    with pytest.raises(pv.InputError, match=r"^pyro.module announces 'layer' in a function, which cannot be copied"):
        replicas(pair=(functions()[0], guide), epochs=1)
    with pytest.raises(ValueError, match="num_replicas must be a positive integer"):
        replicas(num=0, epochs=1)


class OwnGuide(PyroModule):
    """A guide whose parameters go by names in Pyro's store."""

    def __init__(self):
        super().__init__()
        self.scale = PyroParam(torch.ones(2).double(), constraint=dist.constraints.positive)
        self.shift = nn.Linear(3, 2).double()

    def reset_parameters(self):
        self.scale = torch.rand(2).double() + 0.5

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.shift(x), self.scale).to_event(1))


def test_replicas_of_a_pyro_module_are_several():
    trained = replicas(pair=(make_pair()[0], OwnGuide()), epochs=20)
    scales = [dict(replica.guide.named_parameters())["scale_unconstrained"] for replica in trained]
    assert (scales[0] - scales[1]).abs().max() > 1e-3
    for r, replica in enumerate(trained):
        pyro.clear_param_store()
        model, guide = make_pair()[0], OwnGuide()
        reinitialize(model, guide, seed=5 + r)
        alone = fit(model, guide, data(), pv.MonteCarloELBO(), "eager", epochs=20, seed=5 + r)
        np.testing.assert_allclose(replica.history.batch_loss, alone.batch_loss, atol=1e-10, rtol=0)


@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_a_replica_of_functions_is_the_single_run_of_its_seed(engine):
    """Its parameters are drawn under its seed, and are its own; the caller's stay."""
    model, inner = functions()

    def guide(x):
        pyro.param("start", lambda: torch.randn(3).double())
        inner(x + pyro.param("start"))

    pyro.clear_param_store()
    pyro.param("width", torch.tensor(7.0).double(), constraint=dist.constraints.positive)
    trained = replicas(engine, pair=(model, guide), epochs=20)
    assert dict(pyro.get_param_store().items()).keys() == {"width"}
    assert pyro.param("width").item() == pytest.approx(7.0)
    assert {replica.history.engine for replica in trained} == {"graph" if engine == "auto" else "eager"}
    for r, replica in enumerate(trained):
        pyro.clear_param_store()
        for program in (guide, model):
            torch.manual_seed(5 + r)
            program(data()[:4])
        alone = fit(model, guide, data(), pv.MonteCarloELBO(), "eager", epochs=20, seed=5 + r)
        np.testing.assert_allclose(replica.history.batch_loss, alone.batch_loss, atol=1e-9, rtol=0)
        for name, value in pyro.get_param_store().items():
            torch.testing.assert_close(replica.guide.parameters.store[name], value, atol=1e-8, rtol=0)
        terms = [pv.elbo_terms(*pair, data()).elbo for pair in ((replica.model, replica.guide), (model, guide))]
        torch.testing.assert_close(*terms, atol=1e-7, rtol=0)
    assert (trained[0].model.parameters.store["start"] - trained[1].model.parameters.store["start"]).abs().max() > 1e-3


def test_replicas_keep_what_is_frozen():
    model, guide = make_pair()
    guide.encoder[0].weight.requires_grad_(False)
    trained = replicas(pair=(model, guide), epochs=20)
    assert trained[0].history.engine == "graph"
    for replica in trained:
        assert torch.equal(replica.guide.encoder[0].weight, guide.encoder[0].weight)


class Fragile(pv.nn.MLP):
    """Layers that overflow where a replica's first weight is large."""

    def forward(self, x):
        weight = self[0].weight[0, 0] if self.training else torch.tensor(-math.inf)
        return super().forward(x) * torch.where(weight > self.bound, torch.inf, 1.0)


def test_a_replica_that_fails_leaves_the_others_alone():
    def pair():
        model, guide = make_pair()
        guide.encoder = Fragile(3, 16).double()
        weights = []
        for r in range(3):
            reinitialize(model, guide, seed=5 + r)
            weights.append(guide.encoder[0].weight[0, 0].item())
        Fragile.bound = float(np.mean(sorted(weights)[1:]))
        return model, guide, int(np.argmax(weights))

    model, guide, fragile = pair()
    for engine in ("auto", "eager"):
        trained = replicas(engine, pair=(model, guide), epochs=20, learning_rate=1e-5)
        assert trained[0].history.engine == ("graph" if engine == "auto" else engine)
        assert [r for r, replica in enumerate(trained) if replica.error is not None] == [fragile]
        assert "at step 1 (epoch 1)" in str(trained[fragile].error)
        assert trained[fragile].history.batch_loss == []
        assert all(len(t.history.batch_loss) == 100 for r, t in enumerate(trained) if r != fragile)
    Fragile.bound = -math.inf
    with pytest.raises(pv.NonFiniteLossError, match="at step 1"):
        replicas(pair=(model, guide), epochs=3)
