"""A training that stops, is saved, and goes on."""

import copy

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.training import Trainer, TrainingSettings
from tests.training.runs import data, make_pair

COMPILED = pytest.param("compiled", marks=pytest.mark.slow)


def trainers(engine):
    pair = make_pair("ar1")
    settings = TrainingSettings(epochs=6, batch_size=32, seed=3, beta=pv.linear_warmup(0.5), engine=engine)
    return Trainer([pair], data(128), pv.MonteCarloELBO(), settings, progress=False), pair


@pytest.mark.parametrize("engine", ["eager", COMPILED])
def test_a_state_saved_by_a_callback_and_one_after_the_end(engine, tmp_path):
    def make(**options):
        pair = make_pair("ar1")
        settings = TrainingSettings(
            epochs=4, batch_size=32, learning_rate=0.05, schedule="constant", seed=3, engine=engine
        )
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


@pytest.mark.parametrize(
    ("saved_by", "restored_by"),
    [
        ("eager", "eager"),
        ("graph", "eager"),
        ("eager", "graph"),
        pytest.param("eager", "compiled", marks=pytest.mark.slow),
        pytest.param("compiled", "eager", marks=pytest.mark.slow),
        pytest.param("compiled", "compiled", marks=pytest.mark.slow),
    ],
)
def test_restored_in_the_middle_of_an_epoch(saved_by, restored_by):
    whole, pair = trainers("eager")
    whole.run()
    part, _ = trainers(saved_by)
    part.run(max_steps=13)  # 4 steps an epoch
    state = copy.deepcopy(part.state_dict())
    part.run(max_steps=4)  # what was saved must not change
    rest, restored = trainers(restored_by)
    rest.load_state_dict(state)
    assert rest.steps == 13
    rest.run()
    np.testing.assert_allclose(rest.histories[0].batch_loss, whole.histories[0].batch_loss, atol=1e-10, rtol=0)
    for left, right in zip(pair[0].parameters(), restored[0].parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-9, rtol=0)


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
    with pytest.raises(ValueError, match=r"not a state from Trainer\.state_dict"):
        other.load_state_dict({})
    assert other.steps == 0
    assert all(torch.equal(p, q) for p, q in zip(pair[1].parameters(), before, strict=True))
