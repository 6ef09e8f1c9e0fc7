"""The compiled engine against the eager one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from tests.training.runs import data, fit, functions, make_pair

ROOT = Path(__file__).parents[3]
TRACED = ["graph", pytest.param("compiled", marks=pytest.mark.slow)]
"""The graph as traced, operation by operation, and compiled."""


@pytest.mark.slow
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


@pytest.mark.parametrize("traced", TRACED)
def test_compiled_takes_every_setting(traced):
    x, validation = data(100), data(40, seed=1)
    settings = {
        "epochs": 12, "batch_size": 16, "learning_rate": lambda p: 0.01 * (1.1 - p), "weight_decay": 0.1,
        "clip_norm": 5.0, "beta": pv.linear_warmup(0.5), "seed": 2, "validation": validation,
    }  # fmt: skip
    seen, chunks, runs = {}, {}, {}

    def draw_and_note(record):
        torch.rand(7)  # which changes no noise of the training
        chunks[engine].append(record)

    for engine in ("eager", traced):
        seen[engine], chunks[engine] = [], []
        pair, told = make_pair("full-covariance"), {"on_epoch": seen[engine].append, "on_chunk": draw_and_note}
        history = fit(*pair, x, pv.MonteCarloELBO(), engine, **told, **settings)
        runs[engine] = (history, pair)
    (eager, eager_pair), (compiled, compiled_pair) = runs["eager"], runs[traced]
    np.testing.assert_allclose(compiled.batch_loss, eager.batch_loss, atol=1e-10, rtol=0)
    columns = ["epoch", "loss", "validation_loss", "learning_rate", "beta"]
    np.testing.assert_allclose(compiled.to_frame()[columns], eager.to_frame()[columns], atol=1e-10, rtol=0)
    assert compiled.best_epoch == eager.best_epoch
    assert seen[traced] == compiled.epochs
    for records, history in zip(chunks.values(), (eager, compiled), strict=True):
        assert [loss for record in records for loss in record.losses] == history.batch_loss
        assert [record.steps for record in records] == np.cumsum([len(record.losses) for record in records]).tolist()
    assert len(chunks["eager"]) == eager.steps > len(chunks[traced])
    for left, right in zip(eager_pair[1].parameters(), compiled_pair[1].parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-9, rtol=0)


@pytest.mark.slow
def test_few_draws_a_step_are_the_same_draws_compiled():
    runs = [
        fit(*make_pair(), data(40), pv.MonteCarloELBO(), engine, epochs=2, batch_size=2)
        for engine in ("eager", "compiled")
    ]
    np.testing.assert_allclose(runs[1].batch_loss, runs[0].batch_loss, atol=1e-10, rtol=0)


@pytest.mark.slow
def test_float32_ends_at_the_same_loss():
    x = data(320).float()
    final = []
    for engine in ("eager", "compiled"):
        model, guide = (program.float() for program in make_pair("full-covariance"))
        fit(model, guide, x, pv.AnalyticELBO(), engine, epochs=200, learning_rate=3e-3)
        final.append(pv.elbo_terms(model, guide, x).elbo.mean().item())
    assert abs(final[0] - final[1]) < 0.01


@pytest.mark.parametrize("traced", TRACED)
def test_a_callback_may_change_the_parameters(traced):
    losses = []
    for engine in ("eager", traced):
        model, guide = make_pair()

        @torch.no_grad()
        def halve(record, guide=guide):
            for p in guide.parameters():
                p.mul_(0.5)

        losses.append(fit(model, guide, data(), pv.AnalyticELBO(), engine, epochs=3, on_epoch=halve).batch_loss)
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("elbo", "traced"),
    [
        ("sticking-the-landing", "graph"),
        ("doubly-reparameterized", "graph"),
        pytest.param("doubly-reparameterized", "compiled", marks=pytest.mark.slow),
    ],
)
def test_hand_written_programs_of_two_sites(elbo, traced):
    losses, values = [], []
    for engine in ("eager", traced):
        pyro.clear_param_store()
        history = fit(*functions(), data(), ESTIMATORS[elbo](), engine, epochs=10, learning_rate=0.02)
        losses.append(history.batch_loss)
        values.append([pyro.param(name).detach().clone() for name in ("w", "v", "width")])
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-10, rtol=0)
    for left, right in zip(*values, strict=True):
        torch.testing.assert_close(left, right, atol=1e-10, rtol=0)
        assert left.abs().max() > 0


@pytest.mark.parametrize("traced", TRACED)
def test_buffers_that_training_changes(traced):
    losses, means = [], []
    for engine in ("eager", traced):
        model, guide = make_pair()
        guide.encoder = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.3)).double()
        losses.append(fit(model, guide, data(150), pv.AnalyticELBO(), engine, epochs=5).batch_loss)
        means.append((guide.encoder[1].running_mean, guide.encoder[1].num_batches_tracked))
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(means[1], means[0], atol=0, rtol=1e-6)  # eager: a float32 momentum
    assert means[0][1] == 25


@pytest.mark.parametrize("traced", TRACED)
def test_a_loss_that_is_not_finite(traced):
    x = data(320)
    x[7] = 1e160  # its square is not finite
    losses, messages = [], []
    for engine in ("eager", traced):
        model, guide = make_pair()
        with pytest.raises(pv.NonFiniteLossError) as caught:
            fit(model, guide, x, pv.AnalyticELBO(), engine, epochs=3)
        messages.append(str(caught.value))
        losses.append([p.detach().clone() for p in guide.parameters()])
    assert messages[0] == messages[1]
    assert "first non-finite value: the" in messages[0]
    for left, right in zip(*losses, strict=True):
        torch.testing.assert_close(left, right, atol=1e-10, rtol=0)


@pytest.mark.parametrize("traced", TRACED)
def test_a_factorisation_that_fails_says_so(traced):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((2,), 3.0).double(), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.zeros_like(x), 1.0).to_event(1), obs=x)

    def guide(x):  # drawn towards 3, in steps of 1; from 1/2 on there is no factor
        w = pyro.param("w", torch.tensor(0.01).double())
        covariance = torch.eye(2).double() - w * torch.ones(2, 2).double()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(w.expand(2), scale_tril=torch.linalg.cholesky(covariance)))

    for engine in ("eager", traced):
        pyro.clear_param_store()
        with pytest.raises(torch.linalg.LinAlgError, match="not positive-definite"):
            fit(model, guide, data(), pv.MonteCarloELBO(), engine, epochs=2, learning_rate=1.0)


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_engine_leaves_pyro_jax_and_the_random_state_alone():
    jax = pytest.importorskip("jax")
    pair = make_pair()
    torch.manual_seed(0)
    before, environment = torch.get_rng_state(), dict(os.environ)
    fit(*pair, data(), pv.MonteCarloELBO(), "compiled", epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(pyro.get_param_store().keys())
    assert all(p.grad is None for program in pair for p in program.parameters())
    assert dict(os.environ) == environment
    assert not jax.config.jax_enable_x64
    assert jax.numpy.ones(3).dtype == jax.numpy.float32


FORKED_FROM = "this process was forked from one that uses JAX, and only one of them can use it"
FORKED = """
import os, sys, torch
import pyrovae as pv
from tests.training.runs import data, fit, make_pair

def train(engine, **settings):
    return fit(*make_pair(), data(), pv.AnalyticELBO(), engine, epochs=400, **settings).engine

assert train("auto") == "compiled"
child = os.fork()
if child == 0:
    try:
        train("compiled")
    except pv.InputError as error:
        print(error)
    print(train("auto"))
    sys.stdout.flush()
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


def alone(script, **environment):
    """What a script in a process of its own prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_a_forked_child_of_a_process_that_uses_jax_trains_eagerly():
    pytest.importorskip("jax")
    assert alone(FORKED) == f"{FORKED_FROM}; use engine='eager'\neager\n"


ALONE = """
import os, sys
written = []
def note(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and arguments[0] != os.devnull:
        written.append(arguments[0])
    if event in ("subprocess.Popen", "os.posix_spawn", "os.system", "tempfile.mkdtemp", "tempfile.mkstemp"):
        written.append(arguments)
import pyrovae as pv
from tests.training.runs import data, fit, make_pair
sys.addaudithook(note)
print(fit(*make_pair(), data(), pv.AnalyticELBO(), "compiled", epochs=2).engine, written)
"""


@pytest.mark.slow
def test_nothing_is_written_and_no_compiler_is_run(tmp_path):
    pytest.importorskip("jax")
    nowhere = str(tmp_path / "nowhere")
    assert alone(ALONE, HOME=nowhere, TMPDIR=nowhere, PATH=nowhere, PYTHONDONTWRITEBYTECODE="1") == "compiled []\n"


def test_one_compilation_serves_all_chunks():
    """Whether NumPy, PyTorch or JAX made the arrays of a call."""
    from jax import monitoring

    compiled = []

    def note(event, duration, **_):
        compiled.extend([event] if event.endswith("backend_compile_duration") else [])

    monitoring.register_event_duration_secs_listener(note)
    try:
        fit(*make_pair(), data(8000), pv.AnalyticELBO(), "compiled", epochs=3, batch_size=1000)
    finally:
        monitoring.unregister_event_duration_listener(note)
    assert len(compiled) == 1
