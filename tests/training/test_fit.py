"""The training loop."""

import copy
import dataclasses
import functools
import math
import threading

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.posteriors import POSTERIORS
from tests import pairs


def make_pair(family=pv.DiagonalPosterior, n=2, dtype=torch.float64):
    return pairs.make_pair(family, n, hidden=(16, 16), dtype=dtype, seed=1)


def data(num=100, seed=0):
    return pv.datasets.SYNTHETIC["rotated-gaussian"].sample(num, torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(
    ("family", "elbo_class"),
    [(f, e) for f in POSTERIORS for e in ESTIMATORS if f != "flow" or e in ("monte-carlo", "sticking-the-landing")],
)
def test_fit_is_svi(family, elbo_class):
    family, elbo_class = POSTERIORS[family], ESTIMATORS[elbo_class]
    x = data(90)  # the last batch is smaller
    model, guide = make_pair(family)
    history = pv.fit(model, guide, x, elbo_class(), epochs=8, schedule="constant", seed=7)

    model, guide = make_pair(family)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=elbo_class())
    batches = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    losses = []
    for _ in range(8):
        for index in torch.randperm(len(x), generator=batches).split(32):
            losses.append(svi.step(x[index]) / len(index))
    np.testing.assert_allclose(history.batch_loss, losses, rtol=1e-9)


def test_the_estimator_and_the_callers_random_state_are_left_alone():
    model, guide = make_pair()
    elbo = pv.AnalyticELBO(beta=2.0)
    torch.manual_seed(11)
    expected = torch.randn(3)
    torch.manual_seed(11)
    pv.fit(model, guide, data(), elbo, epochs=1, beta=0.5)
    assert elbo.beta == 2.0
    torch.testing.assert_close(torch.randn(3), expected)
    assert model.training
    assert len(pyro.get_param_store()) == 0


def test_beta_zero_is_an_autoencoder():
    model, guide = make_pair()
    pv.fit(model, guide, data(240), pv.MonteCarloELBO(), epochs=25, beta=0.0, learning_rate=1e-2)
    free = pv.elbo_terms(model, guide, data(500, seed=1))
    model, guide = make_pair()
    pv.fit(model, guide, data(240), pv.MonteCarloELBO(), epochs=25, beta=1.0, learning_rate=1e-2)
    bound = pv.elbo_terms(model, guide, data(500, seed=1))
    assert free.reconstruction.mean() > bound.reconstruction.mean() + 0.5
    assert free.kl.mean() > bound.kl.mean() + 0.5


def test_the_best_state_on_the_validation_set_is_kept():
    model, guide = make_pair()
    x, validation = data(40), data(200, seed=1)
    elbo = pv.AnalyticELBO()
    history = pv.fit(model, guide, x, elbo, epochs=25, learning_rate=0.1, schedule="constant", validation=validation)
    losses = [record.validation_loss for record in history.epochs]
    assert history.best_epoch == int(np.argmin(losses)) + 1
    from pyrovae.training._losses import evaluate_loss

    assert evaluate_loss(model, guide, validation, elbo, seed=0) == pytest.approx(min(losses), rel=1e-9)


def test_a_measure_chooses_the_best_epoch():
    """The higher, the better; NaN is never the best."""
    values, states = iter([-5.0, math.nan, -1.0, 3.0, 2.0]), []

    def measure(model, guide, x):
        assert len(x) == 20
        assert not model.training
        assert not guide.training
        states.append([p.detach().clone() for p in (*model.parameters(), *guide.parameters())])
        return torch.tensor(next(values))

    model, guide = make_pair()
    history = pv.fit(model, guide, data(40), pv.AnalyticELBO(), epochs=4, validation=data(20, seed=1), measure=measure)
    assert history.best_epoch == 3
    losses = [record.validation_loss for record in history.epochs]
    assert math.isnan(losses[0])
    assert losses[1:] == [1.0, -3.0, -2.0]
    kept = [*model.parameters(), *guide.parameters()]
    assert all(torch.equal(p, best) for p, best in zip(kept, states[3], strict=True))
    assert model.training


def test_the_elbo_as_a_measure_is_the_default():
    def elbo(model, guide, x):
        return -pv.AnalyticELBO().differentiable_loss(model, guide, x) / len(x)

    losses = []
    for measure in (None, elbo):
        settings = {"validation": data(20, seed=1), "measure": measure, "epochs": 3}
        history = pv.fit(*make_pair(), data(40), pv.AnalyticELBO(), **settings)
        losses.append([record.validation_loss for record in history.epochs])
    np.testing.assert_allclose(*losses, rtol=1e-12)


def test_a_measure_disturbs_nothing():
    """Neither its draws nor its gradients reach the training or the caller."""

    def measure(model, guide, x):
        torch.rand(7)
        with torch.enable_grad():
            loss = pv.MonteCarloELBO().differentiable_loss(model, guide, x)
        loss.backward()
        return -loss.item()

    histories = []
    for with_measure in ({}, {"measure": measure}):
        torch.manual_seed(4)
        settings = {"validation": data(20, seed=1), "epochs": 3, **with_measure}
        model, guide = make_pair()
        torch.manual_seed(4)
        histories.append(pv.fit(model, guide, data(40), pv.MonteCarloELBO(), **settings))
        assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(4)))
        assert all(p.grad is None for p in (*model.parameters(), *guide.parameters()))
    assert histories[0].batch_loss == histories[1].batch_loss


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"measure": 3.0}, TypeError, "measure must be a function of the model, the guide and data, not 3.0"),
        ({"measure": lambda *_: 1.0, "validation": None}, ValueError, "a measure chooses .* give validation="),
        (
            {"measure": lambda model, guide, x: x[0]},
            TypeError,
            r"must return a number, .* not a tensor of shape \(2,\)",
        ),
        ({"measure": lambda *_: "good"}, TypeError, "must return a number, the nats per datum, not 'good'"),
    ],
)
def test_a_measure_that_is_none(settings, error, message):
    with pytest.raises(error, match=message) as caught:
        pv.fit(*make_pair(), data(40), pv.AnalyticELBO(), **{"epochs": 1, "validation": data(20), **settings})
    assert isinstance(caught.value, pv.InputError)


def test_a_loss_that_is_not_finite_names_step_and_site():
    model, guide = make_pair()

    calls = []

    def exploding(x):
        calls.append(x)  # 13 calls come before the training: ten of the checks and three of the audit
        w = pyro.param("w", torch.tensor(1.0).double())
        loc = w * torch.full((len(x), 2), math.nan if len(calls) > 15 else 0.0).double()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    with pytest.raises(
        pv.NonFiniteLossError,
        match=r"at step 3 \(epoch 1\): first non-finite value: the guide's sample at site 'z'",
    ):
        pv.fit(model, exploding, data(), pv.MonteCarloELBO(), epochs=1)
    assert all(p.isfinite().all() for p in model.parameters())


def test_an_infinite_likelihood_names_the_models_site():
    model, guide = make_pair()
    x = data()
    model.likelihood.loc_head.weight.data.fill_(1e200)
    with pytest.raises(pv.NonFiniteLossError, match=r"at step 1 .* the model's log-density at site 'x'"):
        pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=1)


def test_programs_written_as_functions_train_and_keep_their_parameters():
    decoder = nn.Linear(2, 2)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

    def guide(x):
        w = pyro.param("w", lambda: torch.randn(2, 2))
        s = pyro.param("s", torch.ones(2), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ w, s).to_event(1))

    x = data(200).float()
    before = decoder.weight.detach().clone()
    first = pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=20, learning_rate=1e-2)
    assert (decoder.weight != before).all()
    assert (pyro.param("s") != 1).all()
    again = pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=1, learning_rate=1e-2)
    assert again.batch_loss[0] < first.batch_loss[0] - 1, "the second fit did not start from the first's parameters"


def test_pyro_modules_that_share_a_submodules_name_both_train():
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = PyroModule[nn.Linear](2, 2)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.net(z), 0.5).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = PyroModule[nn.Linear](2, 2)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.net(x), 0.3).to_event(1))

    for _ in range(2):
        model, guide = Model(), Guide()
        before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
        pv.fit(model, guide, data().float(), Trace_ELBO(), epochs=1)
        after = [*model.parameters(), *guide.parameters()]
        assert all((a != b).any() for a, b in zip(after, before, strict=True))


def test_pyro_params_that_pyro_would_tie_are_refused():
    class Program(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = pyro.nn.PyroParam(torch.zeros(2))

    with pytest.raises(ValueError, match="both have a PyroParam 'loc'"):
        pv.fit(Program(), Program(), data(), Trace_ELBO(), epochs=1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, 2), "data is empty"),
        (torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), "1 NaN or infinite values, the first at row 1, column 0"),
        (torch.tensor([[0.0, math.inf]]), "row 0, column 1"),
        (torch.zeros(5, 3), r"cannot run on data of shape \(5, 3\)"),
        (torch.zeros(5), r"cannot run on data of shape \(5,\)"),
        (torch.zeros(5, 2, dtype=torch.complex64), "complex"),
    ],
)  # fmt: skip
def test_bad_data_are_refused(x, message):
    model, guide = make_pair()
    with pytest.raises(ValueError, match=message):
        pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be a positive integer"),
        ({"batch_size": -1}, "batch_size must be a positive integer"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
        ({"beta": -1.0}, "beta must be a finite number"),
        ({"beta": math.nan}, "beta must be a finite number"),
        ({"validation": torch.zeros(3, 5)}, "cannot run on data of shape"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; choose one of cosine, constant"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    model, guide = make_pair()
    with pytest.raises(ValueError, match=message):
        pv.fit(model, guide, data(), pv.AnalyticELBO(), **{"epochs": 1} | settings)


def test_arrays_and_other_dtypes_are_taken():
    model, guide = make_pair(dtype=torch.float32)
    history = pv.fit(model, guide, data().numpy(), pv.AnalyticELBO(), epochs=1, device="cpu")
    assert history.steps == 4


@pytest.mark.parametrize(
    "wrap", [lambda program: lambda x: program(x), lambda p: pyro.poutine.scale(p, scale=1.0), lambda p: p.forward]
)
def test_wrapped_modules_train(wrap):
    model, guide = make_pair()
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    pv.fit(wrap(model), wrap(guide), data(), pv.MonteCarloELBO(), epochs=1)
    assert all((a != b).any() for a, b in zip((*model.parameters(), *guide.parameters()), before, strict=True))


def test_a_parameter_that_appears_late_trains():
    model, _ = make_pair()
    calls = []

    def guide(x):
        calls.append(x)
        loc = pyro.param("loc", torch.zeros(2).double())
        if len(calls) > 2:
            loc = loc + pyro.param("late", torch.zeros(2).double())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc.expand(len(x), 2), 1.0).to_event(1))

    pv.fit(model, guide, data(), pv.AnalyticELBO(), epochs=2)
    assert (pyro.param("late") != 0).all()


def test_parameters_as_large_as_the_batch():
    model, _ = make_pair()

    def guide(x):
        loc = pyro.param("loc", lambda: torch.zeros(len(x), 2).double())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    pv.fit(model, guide, data(50), pv.AnalyticELBO(), epochs=2, batch_size=50)
    assert pyro.param("loc").shape == (50, 2)


def test_a_head_swapped_under_svi_trains():
    model, guide = make_pair()
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=pv.AnalyticELBO()).step(data())
    guide.posterior_head = pv.DiagonalPosterior(16, 2).double()
    before = [p.detach().clone() for p in guide.posterior_head.parameters()]
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=pv.AnalyticELBO()).step(data())
    assert all((a != b).any() for a, b in zip(guide.posterior_head.parameters(), before, strict=True))


def test_every_datum_must_lie_in_the_support():
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.BernoulliLikelihood(8, 3), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
    x = torch.zeros(100, 3)
    x[70, 1] = 7
    with pytest.raises(ValueError, match=r"holds 7 at row 70, column 1 .* must be 0 or 1; binarise"):
        pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=1)


class _NonFiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * math.nan


def test_a_gradient_that_is_not_finite_is_noticed():
    model, guide = make_pair()
    guide.encoder.register_forward_hook(lambda module, inputs, output: _NonFiniteGradient.apply(output))
    with pytest.raises(pv.NonFiniteLossError, match="a parameter"):
        pv.fit(model, guide, data(32), pv.AnalyticELBO(), epochs=1)
    model, guide = make_pair()
    guide.encoder.register_forward_hook(lambda module, inputs, output: _NonFiniteGradient.apply(output))
    with pytest.raises(pv.NonFiniteLossError, match=r"at step 2 .*: first non-finite value: a parameter, after"):
        pv.fit(model, guide, data(64), pv.AnalyticELBO(), epochs=1)


def test_the_learning_rate_may_be_a_schedule():
    model, guide = make_pair()
    history = pv.fit(
        model, guide, data(64), pv.AnalyticELBO(), epochs=2, learning_rate=lambda p: 0.1 * (1 - p), schedule="constant"
    )
    np.testing.assert_allclose(history.to_frame()["learning_rate"], [0.075, 0.025])


def test_evaluation_does_not_touch_the_modules():
    model, guide = make_pair()
    guide.encoder = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16)).double()
    pv.fit(model, guide, data(), pv.AnalyticELBO(), epochs=1, validation=data(seed=1))
    before = {k: v.clone() for k, v in guide.state_dict().items()}
    whole = pv.elbo_terms(model, guide, data(seed=2)).kl
    halves = pv.elbo_terms(model, guide, data(seed=2), chunk_size=50).kl
    torch.testing.assert_close(whole, halves)
    assert all(torch.equal(v, before[k]) for k, v in guide.state_dict().items())
    assert guide.training


@pytest.mark.parametrize("num_replicas", [None, 2])
def test_another_thread_is_refused_while_one_trains(num_replicas):
    training, refused = threading.Event(), threading.Event()
    alone = pv.fit(*make_pair(), data(), pv.MonteCarloELBO(), epochs=2)
    histories = []

    def wait(record):
        training.set()
        assert refused.wait(60)

    def first():
        histories.append(pv.fit(*make_pair(), data(), pv.MonteCarloELBO(), epochs=2, on_epoch=wait))

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert training.wait(60)
        with pytest.raises(pv.InputError, match=r"another thread of this process is training; .* train in processes"):
            pv.fit(*make_pair(), data(), pv.AnalyticELBO(), epochs=1, num_replicas=num_replicas)
    finally:
        refused.set()
        thread.join()
    assert histories[0].batch_loss == alone.batch_loss
    pv.fit(*make_pair(), data(), pv.AnalyticELBO(), epochs=1, num_replicas=num_replicas)


def test_a_callback_may_train():
    inner = []

    def refit(record):
        inner.append(pv.fit(*make_pair(), data(40), pv.AnalyticELBO(), epochs=1).batch_loss)

    alone = pv.fit(*make_pair(), data(), pv.MonteCarloELBO(), epochs=2)
    history = pv.fit(*make_pair(), data(), pv.MonteCarloELBO(), epochs=2, on_epoch=refit)
    assert history.batch_loss == alone.batch_loss
    assert inner[0] == inner[1]


def test_looks_at_the_validation_data_now_and_then():
    """At the start, each third epoch and the last; what is kept is the best of these."""
    seen = []

    def measure(model, guide, x):
        seen.append(1)
        return float(len(seen))

    settings = {"validation": data(20, seed=1), "measure": measure, "validate_every": 3}
    history = pv.fit(*make_pair(), data(40), pv.AnalyticELBO(), epochs=7, **settings)
    looked = [record.epoch for record in history.epochs if not math.isnan(record.validation_loss)]
    assert looked == [3, 6, 7]
    assert len(seen) == 4
    assert (history.best_epoch, history.best_loss) == (7, -4.0)
    with pytest.raises(pv.InputError, match="validate_every must be a positive integer, not 0"):
        pv.fit(*make_pair(), data(40), pv.AnalyticELBO(), epochs=1, validate_every=0)


@dataclasses.dataclass
class FoundGuide:
    guide: nn.Module


@pytest.mark.parametrize("num_replicas", [None, 2])
def test_the_encoder_is_trained_again_by_what_is_given(num_replicas, tmp_path):
    calls = []

    def refit(model, guide, x_train, *, validation, seed, checkpoint, progress):
        assert len(x_train) == 40
        assert len(validation) == 20
        assert not progress
        calls.append((seed, checkpoint.name))
        other = copy.deepcopy(guide)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.fill_(seed)
        return FoundGuide(other)

    model, guide = make_pair()
    settings = {"validation": torch.as_tensor(data(20, seed=1)), "epochs": 1, "seed": 5, "checkpoint": tmp_path}
    settings |= {"refit_encoder": refit, "num_replicas": num_replicas, "progress": False}
    found = pv.fit(model, guide, data(40), pv.AnalyticELBO(), **settings)
    runs = [(guide, found, 5)] if num_replicas is None else [(r.guide, r.history, r.seed) for r in found]
    names = ["encoder"] if num_replicas is None else ["encoder-seed5", "encoder-seed6"]
    assert calls == [(seed, name) for (_, _, seed), name in zip(runs, names, strict=True)]
    for trained, history, seed in runs:
        assert all((p == seed).all() for p in trained.parameters())
        assert isinstance(history.refit, FoundGuide)


def test_pyrovaes_own_refit_is_one():
    model, guide = make_pair()
    refit = functools.partial(pv.refit_encoder, num_draws=50, epochs=1)
    settings = {"validation": data(20, seed=1), "epochs": 2, "progress": False}
    history = pv.fit(model, guide, data(40), pv.AnalyticELBO(), refit_encoder=refit, **settings)
    assert history.refit.gain.mean >= 0
    assert all(torch.equal(p, q) for p, q in zip(guide.parameters(), history.refit.guide.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refit_encoder": True, "validation": data(20)}, "must be a function such as pyrovae.refit_encoder, not True"),
        ({"refit_encoder": pv.refit_encoder}, "chooses the encoder on validation data; give validation="),
    ],
)
def test_no_refit_without_a_function_and_validation_data(settings, message):
    with pytest.raises(pv.InputError, match=message):
        pv.fit(*make_pair(), data(40), pv.AnalyticELBO(), epochs=1, **settings)


def test_the_loss_before_training_is_that_of_the_seed(capsys):
    lines = []
    for state in (1, 2):
        pair = make_pair()
        torch.manual_seed(state)
        pv.fit(*pair, data(), pv.MonteCarloELBO(), epochs=1, progress=True)
        lines += [line for line in capsys.readouterr().err.splitlines() if "before training" in line]
    assert len(lines) == 2
    assert lines[0] == lines[1]
