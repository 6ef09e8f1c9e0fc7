"""The record of a training run."""

import math

import numpy as np
import pandas as pd

import pyrovae as pv
from pyrovae.training.history import EpochRecord, History, mean_loss
from tests.training.test_fit import data, make_pair


def test_history_schedule_and_records():
    model, guide = make_pair()
    seen = []
    history = pv.fit(
        model, guide, data(70), pv.AnalyticELBO(), epochs=4, beta=pv.linear_warmup(0.5), on_epoch=seen.append
    )
    assert seen == history.epochs
    assert history.steps == 4 * 3
    frame = history.to_frame()
    assert list(frame["epoch"]) == [1, 2, 3, 4]
    rates = [1e-3 * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in (2, 5, 8, 11)]
    np.testing.assert_allclose(frame["learning_rate"], rates)
    np.testing.assert_allclose(frame["beta"], [2 / 6, 5 / 6, 1, 1])
    weights = np.array([32, 32, 6])
    np.testing.assert_allclose(frame["loss"][0], (np.array(history.batch_loss[:3]) * weights).sum() / 70)


def test_a_history_comes_back_from_its_state():
    record = EpochRecord(1, 2.0, math.nan, 1e-3, 1.0, 0.1, 3)
    history = History([record], [3.0, 1.0], 1, "eager")
    other = History(engine="compiled")
    other.load_state_dict(history.state_dict())
    assert repr(other) == "History(1 epochs, 2 steps, loss 2.0000 nats per datum, engine='compiled')"  # not the engine
    pd.testing.assert_frame_equal(other.to_frame(), history.to_frame())
    assert (other.best_epoch, other.batch_loss, other.seconds) == (1, [3.0, 1.0], 0.1)
    history.batch_loss.append(5.0)
    assert other.steps == 2


def test_the_mean_weighs_a_smaller_last_batch():
    assert mean_loss([1.0, 2.0, 7.0], num=70, batch_size=32) == (32 * 1 + 32 * 2 + 6 * 7) / 70
