"""An interrupted run goes on to the same bits, and from nothing but a whole checkpoint of its own."""

import functools
import json
import os
import pickle
import re
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pyro
import pytest
import safetensors.torch
import torch
from pyro.distributions import Normal
from torch import nn

import pyrovae as pv
from pyrovae.files import versions
from pyrovae.training import Checkpoints, CheckpointWarning, Trainer, TrainingSettings
from pyrovae.training.checkpoint import read_checkpoint
from tests import pairs

STEPS = 6 * 5


def data(num=144, seed=0):
    return pv.datasets.SYNTHETIC["rotated-gaussian"].sample(num, torch.Generator().manual_seed(seed))


def make_pair(seed=1):
    return pairs.make_pair(pv.FullCovariancePosterior, 2, hidden=(16, 16), dtype=torch.float32, seed=seed)


def trainer(engine="eager", checkpoints=None, seed=1, **options):
    pair = make_pair(seed)
    settings = TrainingSettings(epochs=6, seed=3, beta=pv.linear_warmup(0.5), engine=engine)
    options = {"validation": data(40, 1), "progress": False, **options}
    return Trainer([pair], data(), pv.MonteCarloELBO(), settings, checkpoints=checkpoints, **options)


def same_bits(one, other):
    assert [r.validation_loss for r in one.histories[0].epochs] == [
        r.validation_loss for r in other.histories[0].epochs
    ]
    assert one.histories[0].batch_loss == other.histories[0].batch_loss
    assert len(one.histories[0].batch_loss) == STEPS
    for left, right in zip(one.engine.parameters[0], other.engine.parameters[0], strict=True):
        assert torch.equal(left, right)


def steps_in(folder):
    return sorted(int(path.stem.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*.json"))


@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_the_same_bits_after_interruptions_at_several_steps(engine, tmp_path):
    whole = trainer(engine)
    whole.run()
    plans = [(3, 9, 2, 15)] if engine == "compiled" else [(1,), (5, 5), (3, 9, 2, 15), (29,), (30,)]
    for i, stops in enumerate(plans):
        folder = tmp_path / str(i)
        for k, stop in enumerate(stops):
            with Checkpoints(folder) as checkpoints:
                # what is passed in anew need not be as it was at first
                trainer(engine, checkpoints, seed=1 + k).run(max_steps=stop)
        with Checkpoints(folder) as checkpoints:
            rest = trainer("auto", checkpoints, seed=77)
            assert rest.engine.name == engine
            assert rest.steps == sum(stops)
            rest.run()
        same_bits(whole, rest)
        assert steps_in(folder)[-1] == STEPS


@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_writing_checkpoints_changes_nothing_and_the_last_two_are_kept(engine, tmp_path):
    whole = trainer(engine)
    whole.run()
    with Checkpoints(tmp_path, seconds=0) as checkpoints:
        part = trainer(engine, checkpoints)
        part.run()
    same_bits(whole, part)
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock")
    names = [f"checkpoint-{steps:09d}" for steps in (STEPS - 1, STEPS)]  # a smaller last batch is a chunk of its own
    assert left == sorted(f"{name}{suffix}" for name in names for suffix in (".json", ".safetensors"))


def test_the_same_bits_with_a_measure(tmp_path):
    settings = TrainingSettings(epochs=6, seed=3, engine="eager", measure=first_value)

    def begin(checkpoints=None):
        options = {"validation": data(40, 1), "progress": False, "checkpoints": checkpoints}
        return Trainer([make_pair()], data(), pv.MonteCarloELBO(), settings, **options)

    whole = begin()
    whole.run()
    with Checkpoints(tmp_path) as checkpoints:
        begin(checkpoints).run(max_steps=13)
    with Checkpoints(tmp_path) as checkpoints:
        rest = begin(checkpoints)
        assert rest.steps == 13
        rest.run()
    same_bits(whole, rest)
    assert rest.histories[0].best_epoch == whole.histories[0].best_epoch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_writes_a_checkpoint(number, tmp_path):
    whole = trainer()
    whole.run()

    def stop(record):
        if record.epoch == 2:
            os.kill(os.getpid(), number)

    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("terminated"))
    try:
        with Checkpoints(tmp_path) as checkpoints:
            part = trainer(checkpoints=checkpoints, on_epoch=stop)
            if number == signal.SIGINT:
                with pytest.raises(KeyboardInterrupt):
                    part.run()
            else:
                part.run()
                assert received == ["terminated"]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert steps_in(tmp_path) == [10]
    with Checkpoints(tmp_path) as checkpoints:
        rest = trainer(checkpoints=checkpoints)
        rest.run()
    same_bits(whole, rest)


def test_a_second_interrupt_ends_it_at_once(tmp_path):
    def stop(record):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(KeyboardInterrupt):
        trainer(checkpoints=checkpoints, on_epoch=stop).run()
    assert steps_in(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_fit_goes_on_by_itself(engine, tmp_path):
    def fit(folder, **options):
        return pv.fit(
            *make_pair(),
            data(),
            pv.AnalyticELBO(),
            epochs=3,
            progress=False,
            engine=engine,
            checkpoint=folder,
            **options,
        )

    def stop(record):
        os.kill(os.getpid(), signal.SIGINT)

    whole = fit(None)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, on_epoch=stop)
    rest = fit(tmp_path)
    assert rest.batch_loss == whole.batch_loss
    again = fit(tmp_path)  # at its end: nothing is trained
    assert again.batch_loss == whole.batch_loss


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_replicas_go_on_together_or_one_by_one(engine, tmp_path):
    def fit(folder, **options):
        return pv.fit(
            *make_pair(),
            data(128),
            pv.AnalyticELBO(),
            epochs=3,
            num_replicas=2,
            progress=False,
            engine=engine,
            checkpoint=folder,
            **options,
        )

    def stop(record):
        if record.epoch == 2 and record.seed == 1:
            os.kill(os.getpid(), signal.SIGINT)

    whole = fit(None)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", on_epoch=stop)
    rest = fit(tmp_path / "run")
    for one, other in zip(whole, rest, strict=True):
        assert one.history.batch_loss == other.history.batch_loss
        assert all(torch.equal(p, q) for p, q in zip(one.guide.parameters(), other.guide.parameters(), strict=True))
    assert {r.history.engine for r in rest} == {engine}


def test_two_runs_in_one_folder(tmp_path):
    with Checkpoints(tmp_path), pytest.raises(ValueError, match="another run is writing to"):
        pv.fit(*make_pair(), data(), pv.AnalyticELBO(), epochs=1, progress=False, checkpoint=tmp_path)
    pv.fit(*make_pair(), data(), pv.AnalyticELBO(), epochs=1, progress=False, checkpoint=tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    folders = [tmp_path / "file", Path("/proc/pyrovae")] if Path("/proc").exists() else [tmp_path / "file"]
    for folder in folders:
        with pytest.raises(ValueError, match="cannot write to the output folder"):
            pv.fit(*make_pair(), data(), pv.AnalyticELBO(), epochs=1, progress=False, checkpoint=folder)


def test_training_goes_on_where_a_checkpoint_cannot_be_written(tmp_path, monkeypatch):
    whole = trainer()
    whole.run()
    with Checkpoints(tmp_path) as checkpoints:
        part = trainer(checkpoints=checkpoints)
        part.run(max_steps=7)

        def full(self, data):
            with self.open("wb") as file:
                file.write(data[:10])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.warns(
            CheckpointWarning, match=r"No space left on device; training continues; the last one is of step 7"
        ):
            part.run()
        monkeypatch.undo()
    same_bits(whole, part)
    assert steps_in(tmp_path) == [7]
    assert not list(tmp_path.glob(".partial-*"))
    with Checkpoints(tmp_path) as checkpoints:
        rest = trainer(checkpoints=checkpoints)
        rest.run()
    same_bits(whole, rest)


class _Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def says(path, content):
    """Whether a file holds JSON of this content."""
    try:
        return json.loads(path.read_bytes()) == content
    except ValueError:
        return False


def damage(path, how, rng):
    tensors = path.with_suffix(".safetensors")
    content = json.loads(path.read_text())
    if how == "truncated tensors":
        tensors.write_bytes(tensors.read_bytes()[: int(rng.integers(tensors.stat().st_size))])
    elif how == "truncated JSON":
        path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size - 2))])
    elif how in ("flipped tensors", "flipped JSON"):
        file = tensors if how == "flipped tensors" else path
        sound = file.read_bytes()
        places = [i for i, byte in enumerate(sound) if how == "flipped tensors" or byte not in b" \n"]
        same = True
        while same:  # a float's last digit, or e for E, may say the same
            damaged = bytearray(sound)
            damaged[rng.choice(places)] ^= 1 << int(rng.integers(8))
            file.write_bytes(damaged)
            same = how == "flipped JSON" and says(path, content)
    elif how == "pickles":
        for file in (tensors, path):
            file.write_bytes(pickle.dumps(_Hostile()))
    elif how == "nested":
        path.write_text("[" * 100_000)
    elif how == "no tensors":
        tensors.unlink()
    elif how == "future":
        path.write_text(json.dumps(content | {"format": 3}))


HOWS = ["truncated tensors", "truncated JSON", "flipped tensors", "flipped JSON", "pickles", "nested", "no tensors"]


@pytest.mark.parametrize("how", HOWS)
def test_damage_is_told_and_the_state_before_gone_on_from(how, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = trainer()
    whole.run()
    with Checkpoints(tmp_path) as checkpoints:
        part = trainer(checkpoints=checkpoints)
        part.run(max_steps=7)
        part.run(max_steps=4)
    sound = {path.name: path.read_bytes() for path in tmp_path.glob("checkpoint-*")}
    for i in range(20):
        for name, content in sound.items():
            (tmp_path / name).write_bytes(content)
        damage(tmp_path / "checkpoint-000000011.json", how, np.random.default_rng(i))
        with (
            Checkpoints(tmp_path) as checkpoints,
            pytest.warns(CheckpointWarning, match=r"cannot read the checkpoint .*011\.json: .*; resuming from step 7$"),
        ):
            assert checkpoints.load()["state"]["engine"]["steps"] == 7
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(CheckpointWarning, match="resuming from step 7"):
            rest = trainer(checkpoints=checkpoints)
        rest.run(max_steps=4)  # the damaged one is written over
        assert read_checkpoint(tmp_path / "checkpoint-000000011.json")
        rest.run()
    same_bits(whole, rest)
    for path in tmp_path.glob("checkpoint-*.json"):
        damage(path, how, np.random.default_rng(0))
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="there is no other checkpoint: delete"),
    ):
        trainer(checkpoints=checkpoints)
    assert not Path("executed").exists()


def test_a_newer_format_is_refused_whatever_else_is_there(tmp_path):
    with Checkpoints(tmp_path, seconds=0) as checkpoints:
        trainer(checkpoints=checkpoints).run(max_steps=7)
    damage(tmp_path / "checkpoint-000000007.json", "future", None)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="its format is 3, and this version"):
        trainer(checkpoints=checkpoints)


def test_a_checkpoint_of_another_run_or_by_other_hands_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        part = trainer(checkpoints=checkpoints)
        part.run(max_steps=7)
        with pytest.raises(ValueError, match="cannot resume with compiled"):
            trainer("compiled", checkpoints)
        with pytest.raises(
            ValueError, match=r"of a run with data of SHA-256 .*; use its original programs, data and settings"
        ):
            Trainer([make_pair()], data(seed=9), pv.MonteCarloELBO(), part.settings, checkpoints=checkpoints)
        with pytest.raises(ValueError, match=r"of a run with estimator\.num_particles 1, not 2"):
            Trainer(
                [make_pair()],
                data(),
                pv.MonteCarloELBO(num_particles=2),
                part.settings,
                validation=data(40, 1),
                checkpoints=checkpoints,
            )
        state = part.state_dict()
        del state["engine"]["buffers"]
        for steps, content in ((8, {"loss": 1.0}), (9, {"engine": "eager", "threads": 1, "state": state})):
            checkpoints.save(steps, content)
            with pytest.raises(ValueError, match="cannot resume from the checkpoint in"):
                trainer(checkpoints=checkpoints, validation=None)


def test_every_kind_of_value_comes_back(tmp_path):
    state = {
        "floats": [0.1, float("nan"), float("-inf")],
        "by number": {0: (1.5, [torch.arange(3)]), 1: (float("inf"), [])},
        "plain": [None, True, 1, "text", {"a": {"b": [[], {}]}}],
        "numpy": np.float32(0.5),
    }
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state)
        found = checkpoints.load()
    assert repr(found) == repr({**state, "numpy": 0.5})
    header = safetensors.torch.load_file(tmp_path / "checkpoint-000000000.safetensors")
    assert set(header) == {"floats", "by number.0.1.0"}


def test_the_number_of_threads_is_kept(tmp_path):
    torch.set_num_threads(2)
    with Checkpoints(tmp_path) as checkpoints:
        trainer(checkpoints=checkpoints).run(max_steps=7)
    torch.set_num_threads(1)
    seen = []
    with Checkpoints(tmp_path) as checkpoints:
        trainer(checkpoints=checkpoints, on_epoch=lambda _: seen.append(torch.get_num_threads())).run()
    assert set(seen) == {2}
    assert torch.get_num_threads() == 1


FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "checkpoint-format-1"
"""Version 0.1 wrote it after 3 of 6 steps of this run: its losses are below."""
LOSSES_1 = [
    2.431996696390367,
    2.4504844904507146,
    2.4280204939073564,
    2.438609259971579,
    2.2664302053479606,
    2.492982589319481,
]


def run_of_format_1(checkpoints, **settings):
    torch.manual_seed(1)
    model = pv.GenerativeModel(pv.nn.MLP(1, 2), pv.GaussianLikelihood(2, 2), 1).double()
    guide = pv.AmortizedGuide(pv.nn.MLP(2, 2), pv.DiagonalPosterior(2, 1)).double()
    x = torch.arange(12.0, dtype=torch.float64).view(6, 2) / 6 - 1
    settings = TrainingSettings(**{"epochs": 3, "batch_size": 4, "beta": 0.5, "seed": 3} | settings)
    return Trainer(
        [(model, guide)],
        x,
        pv.AnalyticELBO(),
        settings,
        validation=x[:2],
        checkpoints=checkpoints,
        progress=False,
    )


def test_a_checkpoint_of_format_1_is_resumed(tmp_path):
    shutil.copytree(FORMAT_1, tmp_path, dirs_exist_ok=True)
    with Checkpoints(tmp_path) as checkpoints:
        with (
            pytest.raises(pv.InputError, match=r"of a run with beta 0\.5, not 0\.6"),
            pytest.warns(CheckpointWarning, match="is of version 0.1"),
        ):
            run_of_format_1(checkpoints, beta=0.6)
        with pytest.warns(CheckpointWarning, match=r"is of version 0\.1, which did not record its model: make sure"):
            rest = run_of_format_1(checkpoints)
        assert rest.steps == 3
        rest.run()
    np.testing.assert_allclose(rest.histories[0].batch_loss, LOSSES_1, rtol=1e-9)
    assert json.loads((tmp_path / "checkpoint-000000006.json").read_text())["format"] == 2


def halving(progress):
    return 1 - progress / 2


def thirding(progress):
    return 1 - progress / 3


class Shifted:
    """A transform with an argument."""

    def __init__(self, by):
        self.by = by

    def __call__(self, x, generator):
        return x + self.by


def kept(x, generator):
    return x


def first_value(model, guide, x, of=0):
    """A measure that changes as the guide is trained."""
    return guide.posterior(x).mean.flatten()[of].item()


class Tempered(pv.MonteCarloELBO):
    """An estimator with an argument of its own."""

    def __init__(self, temperature=1.0, **arguments):
        super().__init__(**arguments)
        self.temperature = temperature


@pytest.mark.parametrize(
    ("begun", "resumed", "difference"),
    [
        ({"schedule": halving}, {"schedule": thirding}, r"schedule\.function .*\.halving, not .*\.thirding"),
        ({"schedule": halving}, {"schedule": "cosine"}, r"schedule .*\.halving, not cosine"),
        ({"learning_rate": pv.linear_warmup(0.5)}, {"learning_rate": 0.1}, r"learning_rate pyrovae\..*, not 0\.1"),
        (
            {"beta": pv.linear_warmup(0.5)},
            {"beta": pv.linear_warmup(0.25)},
            r"beta\.closure\[0\] 0\.5, not 0\.25",
        ),
        ({"beta": lambda p: p}, {"beta": lambda p: p**2}, r"beta\.values\[1\] 0\.1, not 0\.01"),
        ({"transform": Shifted(0.1)}, {"transform": Shifted(0.2)}, r"transform\.by 0\.1, not 0\.2"),
        ({"transform": kept}, {"transform": None}, r"transform .*\.kept, not None"),
        ({"transform": kept}, {"transform": Shifted(0.1)}, r"transform .*\.kept, not .*\.Shifted"),
        (
            {"transform": lambda x, generator: x + 0.1},
            {"transform": lambda x, generator: x + 0.2},
            r"transformed data\[0\] \S+, not",
        ),
        ({"elbo": Tempered(0.5)}, {"elbo": Tempered(0.7)}, r"estimator\.temperature 0\.5, not 0\.7"),
        ({"elbo": Tempered()}, {"elbo": pv.MonteCarloELBO()}, r"estimator .*\.Tempered, not pyrovae\.MonteCarloELBO"),
        ({"measure": first_value}, {"measure": None}, r"measure .*\.first_value, not None"),
        (
            {"measure": functools.partial(first_value, of=1)},
            {"measure": functools.partial(first_value, of=2)},
            r"measure\.arguments\[0\]\.of 1, not 2",
        ),
        ({"seed": 1}, {"seed": 2}, "seed 1, not 2"),
    ],
)
def test_a_run_with_another_function_or_argument_is_refused(begun, resumed, difference):
    def of(elbo=None, **settings):
        settings = TrainingSettings(epochs=1, engine="eager", **settings)
        validation = data(40, 1) if settings.measure is not None else None
        elbo = elbo or pv.MonteCarloELBO()
        return Trainer([make_pair()], data(), elbo, settings, validation=validation, progress=False)

    state = of(**begun).state_dict()
    of(**begun).load_state_dict(state)
    with pytest.raises(pv.InputError, match=f"^this state is of a run with {difference}") as caught:
        of(**resumed).load_state_dict(state)
    assert "\n" not in str(caught.value)


def module_pair(activation=nn.Tanh, likelihood=pv.GaussianLikelihood, posterior=pv.DiagonalPosterior, **options):
    """A pair of plain modules and the library's."""
    decoder = nn.Sequential(nn.Linear(2, 6), activation())
    model = pv.GenerativeModel(decoder, likelihood(6, 2), 2, **options)
    return model, pv.AmortizedGuide(nn.Sequential(nn.Linear(2, 6), nn.Tanh()), posterior(6, 2))


class Narrow(pv.DiagonalPosterior):
    """A family of the same parameters."""

    def forward(self, features):
        return super().forward(features / 2)


class Scaled(nn.Module):
    """A module with an argument that no parameter shows, and a function."""

    def __init__(self, by=1.0, function=torch.tanh):
        super().__init__()
        self.by, self.function, self.linear = by, function, nn.Linear(2, 6)

    def forward(self, x):
        return self.function(self.by * self.linear(x))


class ScaledBefore(Scaled):
    def forward(self, x):
        return self.function(self.linear(self.by * x))


def scaled_pair(cls=Scaled, **options):
    model = pv.GenerativeModel(cls(**options), pv.GaussianLikelihood(6, 2), 2)
    return model, pv.AmortizedGuide(Scaled(), pv.DiagonalPosterior(6, 2))


def functions(scale=1.0, body="plain"):
    """Pyro programs that are functions and close over a module and a number."""
    linear, encoder = nn.Linear(2, 2), nn.Linear(2, 2)

    def model(x):
        pyro.module("decoder", linear)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", Normal(linear(z), scale).to_event(1), obs=x)

    def cubed(x):
        pyro.module("decoder", linear)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", Normal(linear(z) ** 3, scale).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", Normal(encoder(x), 1.0).to_event(1))

    cubed.__qualname__ = model.__qualname__  # as if the file had been edited
    return (cubed if body == "cubed" else model), guide


class Both(nn.Module):
    """The idiom of Pyro's tutorials: model and guide are methods of one module."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.decoder, self.encoder = nn.Sequential(nn.Linear(2, 2), activation()), nn.Linear(2, 2)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", Normal(self.encoder(x), 1.0).to_event(1))


def both(activation):
    programs = Both(activation)
    return programs.model, programs.guide


PRIORS = [Normal(torch.tensor([a, 0.0]), torch.ones(2)).to_event(1) for a in (0.0, 1.0)]


@pytest.mark.parametrize(
    ("begun", "resumed", "difference"),
    [
        (module_pair, partial(module_pair, nn.ReLU), r"model\.decoder\.1 .*activation\.Tanh, not .*\.ReLU"),
        (
            partial(module_pair, partial(nn.LeakyReLU, 0.1)),
            partial(module_pair, partial(nn.LeakyReLU, 0.2)),
            r"model\.decoder\.1\.negative_slope 0\.1, not 0\.2",
        ),
        (
            module_pair,
            partial(module_pair, likelihood=partial(pv.GaussianLikelihood, floor=1e-3)),
            r"model\.likelihood\.floor 0\.0001, not 0\.001",
        ),
        (
            partial(module_pair, posterior=pv.DiagonalPosterior),
            partial(module_pair, posterior=Narrow),
            r"guide\.posterior_head .*\.DiagonalPosterior, not .*\.Narrow",
        ),
        (
            partial(module_pair, prior=PRIORS[0]),
            partial(module_pair, prior=PRIORS[1]),
            r"model\.itself\.prior\.\S*sha256 \w+, not \w+",
        ),
        (module_pair, partial(module_pair, missing=True), r"model\.itself\.missing False, not True"),
        (scaled_pair, partial(scaled_pair, by=2.0), r"model\.decoder\.by 1\.0, not 2\.0"),
        (scaled_pair, partial(scaled_pair, function=torch.relu), r"model\.decoder\.function.* \S*tanh, not \S*relu"),
        (
            partial(scaled_pair, function=lambda x: x.tanh() + 1),
            partial(scaled_pair, function=lambda x: x.tanh() + 2),
            r"model\.decoder\.function\.bytecode of Python \S+ \w+, not",
        ),
        (scaled_pair, partial(scaled_pair, ScaledBefore), r"model\.decoder\.class .*\.Scaled, not .*\.ScaledBefore"),
        (functions, partial(functions, 2.0), r"model\.closure\.scale 1\.0, not 2\.0"),
        (functions, partial(functions, body="cubed"), r"model\.bytecode of Python \S+ \w+, not"),
        (partial(both, nn.ReLU), partial(both, nn.Tanh), r"model\.of\.decoder\.1 .*\.ReLU, not .*\.Tanh"),
    ],
)
def test_a_run_of_another_model_is_refused(begun, resumed, difference, tmp_path):
    """Their parameters are of the same shapes."""

    def of(make, checkpoints=None):
        torch.manual_seed(0)
        settings = TrainingSettings(epochs=1, engine="eager")
        return Trainer([make()], data(), pv.MonteCarloELBO(), settings, progress=False, checkpoints=checkpoints)

    with Checkpoints(tmp_path) as checkpoints:
        of(begun, checkpoints).run(max_steps=2)
        assert of(begun, checkpoints).steps == 2
        with pytest.raises(pv.InputError, match=f"this state is of a run with {difference}") as caught:
            of(resumed, checkpoints)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_modules_that_note_their_work_are_the_same_modules(tmp_path):
    """What a module keeps beside its constructor's arguments may change while it is trained."""

    class Counting(Scaled):
        def forward(self, x):
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(x)

    pair = scaled_pair(Counting)
    for steps in (2, 4):
        with Checkpoints(tmp_path) as checkpoints:
            part = Trainer(
                [pair], data(), pv.MonteCarloELBO(), TrainingSettings(epochs=2), progress=False, checkpoints=checkpoints
            )
            part.run(max_steps=2)
            assert part.steps == steps


def test_a_function_that_closes_over_itself(tmp_path):
    model, guide = functions()

    def again(x):
        return model(x) if len(x) else again(x)

    settings = TrainingSettings(epochs=1, engine="eager")
    state = Trainer([(again, guide)], data(), pv.MonteCarloELBO(), settings, progress=False).state_dict()
    assert state["of"]["model"]["closure"]["again"] == "itself"


def one_late_jump(at, progress):
    return 1.0 if progress < at else 0.1


def one_value(by, x, generator):
    return x + by * (torch.arange(x.numel()).view_as(x) == 3)


@pytest.mark.parametrize(
    ("begun", "resumed", "difference"),
    [
        (
            {"schedule": lambda p: one_late_jump(0.42, p)},
            {"schedule": lambda p: one_late_jump(0.44, p)},
            r"schedule by step\[13\] 0\.1, not 1\.0",
        ),
        (
            {"beta": lambda p: one_late_jump(0.42, p)},
            {"beta": lambda p: one_late_jump(0.44, p)},
            r"beta by step\[13\] 0\.1, not 1\.0",
        ),
        (
            {"transform": lambda x, generator: x},
            {"transform": lambda x, generator: x.flip(-1)},
            r"transformed data\[2\]",
        ),
        (
            {"transform": lambda x, generator: one_value(0.0, x, generator)},
            {"transform": lambda x, generator: one_value(0.01, x, generator)},
            r"transformed data\[",
        ),
    ],
)
def test_a_callable_of_other_values_is_refused(begun, resumed, difference):
    """Schedules that agree at 0, 0.1, …, 1, and transforms that agree in their moments: all are called <lambda>."""

    def of(**settings):
        settings = TrainingSettings(epochs=6, engine="eager", **settings)
        return Trainer([make_pair()], data(), pv.MonteCarloELBO(), settings, progress=False)

    state = of(**begun).state_dict()
    of(**begun).load_state_dict(state)
    with pytest.raises(pv.InputError, match=f"^this state is of a run with {difference}"):
        of(**resumed).load_state_dict(state)


def test_another_version_has_a_word(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        trainer(checkpoints=checkpoints).run(max_steps=7)
    with Checkpoints(tmp_path) as checkpoints:
        trainer(checkpoints=checkpoints)  # of the same versions: no warning, which would be an error
    ours = versions()
    monkeypatch.setattr("pyrovae.training.checkpoint.versions", lambda: ours | {"torch": "99.1", "numpy": "98"})
    said = (
        rf"checkpoint-000000007\.json was written with torch {re.escape(ours['torch'])}, not 99\.1; numpy .*, not 98: "
    )
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(CheckpointWarning, match=said):
            rest = trainer(checkpoints=checkpoints)
        assert rest.steps == 7


def test_a_state_is_loaded_under_another_engine_and_strictness():
    whole, begun = trainer("eager"), trainer("eager")
    whole.run()
    begun.run(max_steps=7)
    part = Trainer(
        [make_pair()],
        data(),
        pv.MonteCarloELBO(),
        TrainingSettings(epochs=6, seed=3, beta=pv.linear_warmup(0.5), engine="graph", strict=True),
        validation=data(40, 1),
        progress=False,
    )
    part.load_state_dict(begun.state_dict())
    assert part.steps == 7
    part.run()
    assert part.histories[0].batch_loss == pytest.approx(whole.histories[0].batch_loss, rel=1e-5)
