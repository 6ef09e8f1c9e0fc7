"""Traced steps, run operation by operation, against the eager engine; programs that cannot be traced."""

import random

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.posteriors import POSTERIORS
from pyrovae.programs import mode
from pyrovae.training import CannotTraceError, Trainer, TrainingSettings
from pyrovae.training.engines.compiled import CompiledEngine
from tests.pairs import as_graph
from tests.training.runs import LIKELIHOODS, data, fit, functions, make_pair

PAIRS = [
    ("isotropic", "monte-carlo", "gaussian"),
    ("isotropic", "analytic", "bernoulli"),
    ("diagonal", "analytic", "gaussian"),
    ("diagonal", "doubly-reparameterized", "bernoulli"),
    ("diagonal", "importance-weighted", "gaussian"),
    ("ar1", "closed-form-entropy", "gaussian"),
    ("ar1", "sticking-the-landing", "bernoulli"),
    ("ar1", "analytic", "gaussian"),
    ("ar1-per-dimension", "monte-carlo", "bernoulli"),
    ("ar1-per-dimension", "doubly-reparameterized", "gaussian"),
    ("ar1-per-step", "analytic", "gaussian"),
    ("ar1-per-step", "importance-weighted", "bernoulli"),
    ("low-rank", "monte-carlo", "gaussian"),
    ("low-rank", "analytic", "bernoulli"),
    ("low-rank", "doubly-reparameterized", "gaussian"),
    ("full-covariance", "closed-form-entropy", "bernoulli"),
    ("full-covariance", "sticking-the-landing", "gaussian"),
    ("full-covariance", "importance-weighted", "gaussian"),
    ("flow", "monte-carlo", "gaussian"),
    ("flow", "sticking-the-landing", "bernoulli"),
    ("flow", "doubly-reparameterized", "gaussian"),
]
"""Every family, estimator and likelihood, and the pairs whose code differs most. The other likelihoods have a test of
their own, in tests/likelihoods."""


def test_every_part_is_traced():
    assert [set(names) for names in zip(*PAIRS, strict=True)] == [set(POSTERIORS), set(ESTIMATORS), set(LIKELIHOODS)]


@pytest.mark.parametrize(
    ("family", "elbo", "likelihood"),
    [pytest.param(*names, marks=[pytest.mark.slow] if names[0] == "flow" else []) for names in PAIRS],
)
def test_the_graph_is_the_eager_engine(family, elbo, likelihood):
    num = 80 if family == "diagonal" else 64  # 32 to a batch, and 16 that are left over
    x, elbo = data(num, likelihood=likelihood), ESTIMATORS[elbo]()
    settings = TrainingSettings(epochs=6, learning_rate=3e-3, seed=4)
    eager = fit(*make_pair(family, likelihood), x, elbo, "eager", epochs=6, learning_rate=3e-3, seed=4)
    np.testing.assert_allclose(
        as_graph(*make_pair(family, likelihood), x, elbo, settings), eager.batch_loss, atol=1e-10, rtol=0
    )


@pytest.mark.parametrize(("batch_size", "d"), [(1, 1), (2, 2), (5, 3)])
def test_few_draws_a_step_are_the_same_draws(batch_size, d):
    # PyTorch makes normal numbers by sixteen, and fewer otherwise
    settings = TrainingSettings(epochs=2, batch_size=batch_size, seed=4)
    eager = fit(*make_pair(d=d), data(40), pv.MonteCarloELBO(), "eager", epochs=2, batch_size=batch_size, seed=4)
    losses = as_graph(*make_pair(d=d), data(40), pv.MonteCarloELBO(), settings)
    np.testing.assert_allclose(losses, eager.batch_loss, atol=1e-10, rtol=0)


def test_draws_made_alike_are_one_input():
    model, guide = functions()
    elbo = pv.StickingTheLandingELBO()
    settings = TrainingSettings(epochs=1)
    with poutine.trace(param_only=True) as capture:
        elbo.differentiable_loss(model, guide, data())
    parameters = [site["value"].unconstrained() for site in capture.trace.nodes.values()]
    with pyro.validation_enabled(False), mode(training=True):
        engine = CompiledEngine([(model, guide)], elbo, [parameters], settings, data())
    assert len(engine._programs[32].gradient.draws) == 2


def with_decision(x):
    """A guide whose data decide what it does."""
    shift = pyro.param("shift", torch.zeros(2).double())
    if x.mean() > 0:
        shift = -shift
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, :2] + shift, 1.0).to_event(1))


def with_counter():
    """A guide that changes from call to call."""
    calls = []

    def guide(x):
        calls.append(x)
        scale = pyro.param("scale", torch.ones(2).double()) * (1 + 0.1 * len(calls))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], scale.exp()).to_event(1))

    return guide


def through_numpy(x):
    """A guide part of which PyTorch does not see."""
    scale = pyro.param("scale", torch.zeros(2).double())
    loc = torch.as_tensor(np.tanh(x.numpy()))[:, :2]
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def with_gamma(x):
    """A guide whose draw is not a function of independent noise."""
    rate = pyro.param("rate", torch.zeros(2).double())
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Gamma(rate.exp().expand(len(x), 2) + 1, 1.0).to_event(1))


def positive_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Gamma(torch.ones(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(-1, 3), 1.0).to_event(1), obs=x)


def with_a_share(x):
    """A guide that counts, in a shape, which data are positive."""
    scale = pyro.param("scale", torch.zeros(2).double())
    share = len(x[x[:, 0] > 0]) / len(x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, :2] + share, scale.exp()).to_event(1))


def with_a_mean_outside(x):
    """A guide with a number of the batch that PyTorch does not see."""
    scale = pyro.param("scale", torch.zeros(2).double())
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, :2] + float(x.numpy().mean()), scale.exp()).to_event(1))


def with_python_randomness(x):
    """A guide that throws a coin of Python's."""
    scale = pyro.param("scale", torch.zeros(2).double())
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, :2] + (random.random() < 0.1), scale.exp()).to_event(1))


@pytest.mark.parametrize(
    ("guide", "reason"),
    [
        (with_a_share, "data-dependent control flow"),
        (with_a_mean_outside, "other numbers"),
        (with_python_randomness, "random numbers outside PyTorch"),
        (with_decision, "data-dependent control flow"),
        (with_counter(), "other numbers"),
        (through_numpy, "other numbers"),
        (with_gamma, "not a function of parameters and independent noise"),
    ],
    ids=["share", "mean", "python", "decision", "counter", "numpy", "gamma"],
)
def test_programs_that_are_not_one_graph(guide, reason, capsys):
    model = positive_model if guide is with_gamma else make_pair()[0]
    with pytest.raises(CannotTraceError, match=f"compiled engine cannot take these programs: .*{reason}"):
        fit(model, guide, data(), pv.MonteCarloELBO(), "compiled", epochs=2)
    trainer = Trainer([(model, guide)], data(), pv.MonteCarloELBO(), TrainingSettings(epochs=50), least_steps=250)
    assert trainer.engine.name == "eager"
    trainer.run()
    assert reason in capsys.readouterr().err


def test_a_discrete_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((len(x),), 0.5).double()))
            pyro.sample("x", dist.Normal(z[:, None].expand(-1, 3), 1.0).to_event(1), obs=x)

    def guide(x):
        w = pyro.param("w", torch.zeros(3).double())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=x @ w))

    with pytest.raises(CannotTraceError, match="a discrete site"):
        fit(model, guide, data(), pv.MonteCarloELBO(), "compiled", epochs=2)
    assert fit(model, guide, data(), pv.MonteCarloELBO(), "auto", epochs=50).engine == "eager"
