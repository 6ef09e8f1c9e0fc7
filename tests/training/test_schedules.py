"""Schedules of the learning rate and of β."""

import math

import pytest

import pyrovae as pv
from pyrovae.training import SCHEDULES, TrainingSettings, as_schedule
from tests.training.runs import data, make_pair


def test_schedules_by_name():
    assert [as_schedule("cosine")(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])
    assert [as_schedule("constant")(p) for p in (0.0, 1.0)] == [1.0, 1.0]
    assert as_schedule(math.sqrt) is math.sqrt
    assert set(SCHEDULES) == {"cosine", "constant"}


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, math.nan])
def test_a_warmup_takes_a_part_of_the_training(fraction):
    with pytest.raises(pv.InputError, match=r"fraction must be in \(0, 1\]"):
        pv.linear_warmup(fraction)


def test_rates_are_the_schedule_times_the_rate():
    settings = TrainingSettings(1, learning_rate=lambda p: 2 - p, schedule=lambda p: 1 + p)
    assert settings.rates(1, 4, 4).tolist() == [1.75 * 1.25, 1.5 * 1.5, 1.25 * 1.75]
    assert settings.betas(0, 4, 4) is None
    assert TrainingSettings(1, beta=0.5).betas(0, 2, 4).tolist() == [0.5, 0.5]
    assert TrainingSettings(1, beta=pv.linear_warmup(0.5)).betas(0, 4, 4).tolist() == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("engine", ["eager", "graph"])
@pytest.mark.parametrize("wrong", [-0.5, math.nan])
def test_a_beta_that_is_no_weight_is_refused(wrong, engine):
    def beta(progress):
        return wrong if progress == 0.25 else 1.0

    with pytest.raises(pv.InputError, match=rf"beta at a progress of 0\.25 must be a finite number ≥ 0, not {wrong}"):
        pv.fit(*make_pair(), data(), pv.AnalyticELBO(), epochs=1, batch_size=40, beta=beta, engine=engine)
