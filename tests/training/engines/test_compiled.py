"""The compiled engine against the eager one, and replicas against single runs."""

import copy
import math
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.files import cache_folder
from pyrovae.posteriors import POSTERIORS
from pyrovae.programs import mode
from pyrovae.training import CannotCompileError, CannotTraceError, Trainer, TrainingSettings, reinitialize
from pyrovae.training.engines.compiled import CompiledEngine
from tests.pairs import as_graph

LIKELIHOODS = {"gaussian": pv.GaussianLikelihood, "bernoulli": pv.BernoulliLikelihood}
NO_CLOSED_FORM = ("analytic", "closed-form-entropy")


def make_pair(family="diagonal", likelihood="gaussian", d=2, seed=1):
    torch.manual_seed(seed)
    model = pv.GenerativeModel(pv.nn.MLP(d, 16), LIKELIHOODS[likelihood](16, 3), d).double()
    return model, pv.AmortizedGuide(pv.nn.MLP(3, 16), POSTERIORS[family](16, d)).double()


def data(num=160, seed=0, likelihood="gaussian"):
    x = torch.randn(num, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x[:, 1] += x[:, 0]
    return x if likelihood == "gaussian" else (x > 0).double()


def fit(model, guide, x, elbo, engine, **settings):
    return pv.fit(model, guide, x, elbo, engine=engine, progress=False, **settings)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(
    ("family", "elbo"), [(f, e) for f in POSTERIORS for e in ESTIMATORS if f != "flow" or e not in NO_CLOSED_FORM]
)
def test_the_graph_is_the_eager_engine(family, elbo, likelihood):
    num = 80 if likelihood == "gaussian" else 64  # 32 to a batch, and 16 that are left over
    x, elbo = data(num, likelihood=likelihood), ESTIMATORS[elbo]()
    settings = TrainingSettings(epochs=6, learning_rate=3e-3, seed=4)
    eager = fit(*make_pair(family, likelihood), x, elbo, "eager", epochs=6, learning_rate=3e-3, seed=4)
    np.testing.assert_allclose(
        as_graph(*make_pair(family, likelihood), x, elbo, settings), eager.batch_loss, atol=1e-10, rtol=0
    )


@pytest.mark.parametrize(
    ("family", "elbo"),
    [
        ("diagonal", "monte-carlo"),
        ("ar1-per-step", "sticking-the-landing"),
        ("low-rank", "analytic"),
        ("full-covariance", "doubly-reparameterized"),
    ],
)
def test_compiled_is_eager(family, elbo):
    x, elbo = data(160), ESTIMATORS[elbo]()
    eager, compiled = make_pair(family), make_pair(family)
    first = fit(*eager, x, elbo, "eager", epochs=60, seed=4)
    second = fit(*compiled, x, elbo, "compiled", epochs=60, seed=4)
    assert (first.engine, second.engine, second.steps) == ("eager", "compiled", 300)
    np.testing.assert_allclose(second.batch_loss, first.batch_loss, atol=1e-10, rtol=0)
    for left, right in zip(eager, compiled, strict=True):
        for name, value in left.state_dict().items():
            torch.testing.assert_close(right.state_dict()[name], value, atol=1e-9, rtol=0)


def test_compiled_takes_every_setting():
    x, validation = data(100), data(40, seed=1)
    settings = {
        "epochs": 12, "batch_size": 16, "learning_rate": lambda p: 0.01 * (1.1 - p), "weight_decay": 0.1,
        "clip_norm": 5.0, "beta": pv.linear_warmup(0.5), "seed": 2, "validation": validation,
    }  # fmt: skip
    seen, runs = {}, {}
    for engine in ("eager", "compiled"):
        seen[engine] = []
        pair = make_pair("full-covariance")
        history = fit(*pair, x, pv.MonteCarloELBO(), engine, on_epoch=seen[engine].append, **settings)
        runs[engine] = (history, pair)
    (eager, eager_pair), (compiled, compiled_pair) = runs["eager"], runs["compiled"]
    np.testing.assert_allclose(compiled.batch_loss, eager.batch_loss, atol=1e-10, rtol=0)
    columns = ["epoch", "loss", "validation_loss", "learning_rate", "beta"]
    np.testing.assert_allclose(compiled.to_frame()[columns], eager.to_frame()[columns], atol=1e-10, rtol=0)
    assert compiled.best_epoch == eager.best_epoch
    assert seen["compiled"] == compiled.epochs
    for left, right in zip(eager_pair[1].parameters(), compiled_pair[1].parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("batch_size", "d"), [(1, 1), (2, 2), (5, 3)])
def test_few_draws_a_step_are_the_same_draws(batch_size, d):
    # PyTorch makes normal numbers by sixteen, and fewer otherwise
    settings = TrainingSettings(epochs=2, batch_size=batch_size, seed=4)
    eager = fit(*make_pair(d=d), data(40), pv.MonteCarloELBO(), "eager", epochs=2, batch_size=batch_size, seed=4)
    losses = as_graph(*make_pair(d=d), data(40), pv.MonteCarloELBO(), settings)
    np.testing.assert_allclose(losses, eager.batch_loss, atol=1e-10, rtol=0)


def test_few_draws_a_step_are_the_same_draws_compiled():
    runs = [
        fit(*make_pair(), data(40), pv.MonteCarloELBO(), engine, epochs=2, batch_size=2)
        for engine in ("eager", "compiled")
    ]
    np.testing.assert_allclose(runs[1].batch_loss, runs[0].batch_loss, atol=1e-10, rtol=0)


def test_float32_ends_at_the_same_loss():
    x = data(320).float()
    final = []
    for engine in ("eager", "compiled"):
        model, guide = (program.float() for program in make_pair("full-covariance"))
        fit(model, guide, x, pv.AnalyticELBO(), engine, epochs=200, learning_rate=3e-3)
        final.append(pv.elbo_terms(model, guide, x).elbo.mean().item())
    assert abs(final[0] - final[1]) < 0.01


def trainers(engine):
    pair = make_pair("ar1")
    settings = TrainingSettings(epochs=6, batch_size=32, seed=3, beta=pv.linear_warmup(0.5), engine=engine)
    return Trainer([pair], data(144), pv.MonteCarloELBO(), settings, progress=False), pair


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_state_saved_by_a_callback_and_one_after_the_end(engine, tmp_path):
    def make(**options):
        pair = make_pair("ar1")
        settings = TrainingSettings(epochs=4, learning_rate=0.05, schedule="constant", seed=3, engine=engine)
        return Trainer([pair], data(144), pv.MonteCarloELBO(), settings, progress=False, **options), pair

    whole, pair = make(validation=data(40, seed=1))
    whole.run()
    best = [p.detach().clone() for p in pair[1].parameters()]
    whole.state_dict()  # reads, and changes nothing
    assert all(torch.equal(p, q) for p, q in zip(pair[1].parameters(), best, strict=True))
    saved = []

    def save(record):
        if record.epoch == 2:
            torch.save(part.state_dict(), tmp_path / "state")
            saved.append(record)

    part, _ = make(validation=data(40, seed=1), on_epoch=save)
    part.run()
    rest, restored = make(validation=data(40, seed=1))
    rest.load_state_dict(torch.load(tmp_path / "state", weights_only=True))  # plain values and tensors
    assert rest.steps == 2 * rest.steps_per_epoch
    rest.run()
    np.testing.assert_allclose(rest.histories[0].batch_loss, whole.histories[0].batch_loss, atol=1e-10, rtol=0)
    assert rest.histories[0].best_epoch == whole.histories[0].best_epoch
    assert all(torch.equal(p, q) for p, q in zip(restored[1].parameters(), best, strict=True))


def test_a_callback_may_change_the_parameters():
    losses = []
    for engine in ("eager", "compiled"):
        model, guide = make_pair()

        @torch.no_grad()
        def halve(record, guide=guide):
            for p in guide.parameters():
                p.mul_(0.5)

        losses.append(fit(model, guide, data(), pv.AnalyticELBO(), engine, epochs=3, on_epoch=halve).batch_loss)
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("saved_by", "restored_by"),
    [("eager", "compiled"), ("compiled", "eager"), ("eager", "eager"), ("compiled", "compiled")],
)
def test_restored_in_the_middle_of_an_epoch(saved_by, restored_by):
    whole, pair = trainers("eager")
    whole.run()
    part, _ = trainers(saved_by)
    part.run(max_steps=13)  # 5 steps an epoch
    state = copy.deepcopy(part.state_dict())
    part.run(max_steps=4)  # what was saved must not change
    rest, restored = trainers(restored_by)
    rest.load_state_dict(state)
    assert rest.steps == 13
    rest.run()
    np.testing.assert_allclose(rest.histories[0].batch_loss, whole.histories[0].batch_loss, atol=1e-10, rtol=0)
    for left, right in zip(pair[0].parameters(), restored[0].parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-9, rtol=0)


def test_nothing_is_compiled_again(monkeypatch):
    from pyrovae.training.engines import _ahead_of_time as ahead_of_time

    fit(*make_pair(), data(), pv.MonteCarloELBO(), "compiled", epochs=1)
    made = []
    monkeypatch.setattr(ahead_of_time, "_compile", lambda *arguments: made.append(arguments))
    fit(*make_pair(seed=9), data(320, seed=5), pv.MonteCarloELBO(), "compiled", epochs=9, seed=1)
    assert not made


def test_without_a_compiler(monkeypatch, tmp_path, capsys):
    import torch._inductor.config  # noqa: F401, it remembers CXX from its import on

    monkeypatch.setenv("CXX", "/nonexistent")
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    trainer = Trainer([make_pair()], data(), pv.AnalyticELBO(), TrainingSettings(epochs=50), least_steps=250)
    assert trainer.engine.name == "eager"
    assert "eager engine: there is no C++ compiler /nonexistent" in capsys.readouterr().err
    with pytest.raises(CannotCompileError, match="no C\\+\\+ compiler /nonexistent"):
        fit(*make_pair(), data(), pv.AnalyticELBO(), "compiled", epochs=50)
    assert not list((tmp_path / "cache").glob("*"))


def test_a_broken_compiled_loop_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path))
    first = fit(*make_pair(), data(), pv.AnalyticELBO(), "compiled", epochs=1)
    (kept,) = tmp_path.glob("*.pt2")
    assert cache_folder() == tmp_path
    kept.write_bytes(b"not a package")
    second = fit(*make_pair(), data(), pv.AnalyticELBO(), "compiled", epochs=1)
    assert second.batch_loss == first.batch_loss


def test_auto_compiles_what_pays(capsys):
    settings = TrainingSettings(epochs=50)  # 5 steps each
    for least_steps, engine, why in (
        (250, "compiled", "250 steps pay for compiling"),
        (251, "eager", "250 steps do not pay for compiling, which takes 251"),
    ):
        trainer = Trainer([make_pair()], data(), pv.MonteCarloELBO(), settings, least_steps=least_steps)
        assert trainer.engine.name == trainer.histories[0].engine == engine
        assert f"{engine} engine: {why}" in capsys.readouterr().err


def test_auto_does_not_depend_on_code_that_is_there(monkeypatch, tmp_path):
    settings = TrainingSettings(epochs=50)
    for _ in range(2):
        assert Trainer([make_pair()], data(), pv.MonteCarloELBO(), settings, progress=False).engine.name == "eager"
        fit(*make_pair(), data(), pv.MonteCarloELBO(), "compiled", epochs=1)


def test_replicas_that_are_not_compiled_are_one_graph():
    pairs = [make_pair(seed=seed) for seed in range(2)]
    for epochs, least_steps, engine in ((20, 201, "graph"), (20, 200, "compiled")):
        settings = TrainingSettings(epochs=epochs)  # 5 steps each
        trainer = Trainer(pairs, data(), pv.MonteCarloELBO(), settings, progress=False, least_steps=least_steps)
        assert trainer.engine.name == engine


def functions():
    """A model and a guide of two dependent latent sites, with parameters in the store, one of them constrained."""

    def model(x):
        width = pyro.param("width", torch.tensor(0.5).double(), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(len(x)).double(), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal((a + b).unsqueeze(-1) * torch.ones(3).double(), width).to_event(1), obs=x)

    def guide(x):
        w = pyro.param("w", lambda: torch.zeros(3).double())
        v = pyro.param("v", lambda: torch.zeros(2).double())
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x @ w, v[0].exp()))
            pyro.sample("b", dist.Normal(v[1] * a + x[:, 0], 0.5))

    return model, guide


@pytest.mark.parametrize("elbo", ["sticking-the-landing", "doubly-reparameterized"])
def test_hand_written_programs_of_two_sites(elbo):
    losses, values = [], []
    for engine in ("eager", "compiled"):
        pyro.clear_param_store()
        history = fit(*functions(), data(), ESTIMATORS[elbo](), engine, epochs=10, learning_rate=0.02)
        losses.append(history.batch_loss)
        values.append([pyro.param(name).detach().clone() for name in ("w", "v", "width")])
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-10, rtol=0)
    for left, right in zip(*values, strict=True):
        torch.testing.assert_close(left, right, atol=1e-10, rtol=0)
        assert left.abs().max() > 0


def test_buffers_that_training_changes():
    losses, means = [], []
    for engine in ("eager", "compiled"):
        model, guide = make_pair()
        guide.encoder = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.3)).double()
        losses.append(fit(model, guide, data(150), pv.AnalyticELBO(), engine, epochs=5).batch_loss)
        means.append((guide.encoder[1].running_mean, guide.encoder[1].num_batches_tracked))
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(
        means[1], means[0], atol=0, rtol=1e-6
    )  # the compiler's batch norm has a float32 momentum
    assert means[0][1] == 25


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
        (with_gamma, "not a function of parameters and of noise"),
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


def test_a_loss_that_is_not_finite():
    x = data(320)
    x[7] = 1e160  # its square is not finite
    losses, messages = [], []
    for engine in ("eager", "compiled"):
        model, guide = make_pair()
        with pytest.raises(pv.NonFiniteLossError) as caught:
            fit(model, guide, x, pv.AnalyticELBO(), engine, epochs=3)
        messages.append(str(caught.value))
        losses.append([p.detach().clone() for p in guide.parameters()])
    assert messages[0] == messages[1]
    assert "not finite is the" in messages[0]
    for left, right in zip(*losses, strict=True):
        torch.testing.assert_close(left, right, atol=1e-10, rtol=0)


def test_a_factorisation_that_fails_says_so():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((2,), 3.0).double(), 1.0).to_event(1))

    def guide(x):  # drawn towards 3, in steps of 1; from 1/2 on there is no factor
        w = pyro.param("w", torch.tensor(0.01).double())
        covariance = torch.eye(2).double() - w * torch.ones(2, 2).double()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(w.expand(2), scale_tril=torch.linalg.cholesky(covariance)))

    for engine in ("eager", "compiled"):
        pyro.clear_param_store()
        with pytest.raises(torch.linalg.LinAlgError, match="not positive-definite"):
            fit(model, guide, data(), pv.MonteCarloELBO(), engine, epochs=2, learning_rate=1.0)


def test_an_interrupt_leaves_the_parameters_of_the_epoch_before():
    model, guide = make_pair()
    seen = []

    def stop(record):
        seen.append([p.detach().clone() for p in guide.parameters()])
        if record.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, guide, data(), pv.AnalyticELBO(), "compiled", epochs=9, on_epoch=stop)
    assert all(torch.equal(p, q) for p, q in zip(guide.parameters(), seen[-1], strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(seen[0], seen[-1], strict=True))


def replicas(engine="auto", num=3, pair=None, x=None, elbo=None, **settings):
    pair = make_pair("full-covariance") if pair is None else pair
    elbo = pv.MonteCarloELBO() if elbo is None else elbo
    return fit(*pair, data() if x is None else x, elbo, engine, num_replicas=num, seed=5, **settings)


@pytest.mark.parametrize("engine", ["auto", "compiled", "eager"])
def test_a_replica_is_the_single_run_of_its_seed(engine):
    epochs = 60 if engine == "compiled" else 20
    pair = make_pair("full-covariance")
    before = copy.deepcopy(pair[0].state_dict())
    trained = replicas(engine, pair=pair, epochs=epochs, validation=data(seed=8))
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
    with pytest.raises(ValueError, match="modules, since functions cannot be copied"):
        replicas(pair=functions(), epochs=1)
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


def test_an_unknown_engine():
    with pytest.raises(ValueError, match="unknown engine 'fast'; choose one of auto, eager, compiled, graph"):
        fit(*make_pair(), data(), pv.AnalyticELBO(), "fast", epochs=1)


def test_the_engine_leaves_pyro_and_the_random_state_alone():
    pair = make_pair()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    fit(*pair, data(), pv.MonteCarloELBO(), "compiled", epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(pyro.get_param_store().keys())
    assert all(p.grad is None for program in pair for p in program.parameters())


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


def test_a_state_of_another_run_is_refused():
    run, _ = trainers("eager")
    run.run(max_steps=3)
    state = run.state_dict()
    pair = make_pair("ar1")
    other = Trainer(
        [pair],
        data(144),
        pv.MonteCarloELBO(),
        TrainingSettings(epochs=6, batch_size=16, seed=3, engine="eager"),
        progress=False,
    )
    before = [p.detach().clone() for p in pair[1].parameters()]
    with pytest.raises(ValueError, match="of a run with batch_size 32, not 16"):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match=r"not a state that Trainer\.state_dict gave"):
        other.load_state_dict({})
    assert other.steps == 0
    assert all(torch.equal(p, q) for p, q in zip(pair[1].parameters(), before, strict=True))
