"""The study of series: a tiny run on images that turn, and the data that it makes."""

import pandas as pd
import pytest
import torch

from experiments.series import SeriesData, Settings, main
from pyrovae.commands import console


def test_images_turn_and_lack_pixels():
    series = SeriesData.of_images(Settings(num_images=50, num_test=4, frames=3))
    assert series.train.shape == (30, 3 * 64)
    assert series.test.shape == series.whole.shape == (4, 3 * 64)
    missing = series.train.isnan()
    assert missing.double().mean().item() == pytest.approx(0.6, abs=0.02)
    seen = ~series.with_gaps.isnan()
    torch.testing.assert_close(series.with_gaps[seen], series.whole[seen])
    assert not series.whole.isnan().any()


def test_a_tiny_run(tmp_path, capsys):
    arguments = ["--num-images", "50", "--num-test", "4", "--frames", "3", "--families", "markov", "--seeds", "1"]
    console.run(main, Settings, [*arguments, "--epochs", "2", "--samples", "30", "--out", str(tmp_path)])
    assert "30 training and 4 test series of 3 steps × 64" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "runs.csv").iloc[0]
    assert found["elbo"] < found["log_prob"]
    assert 0 < found["rmse"] < 2
    assert 0.5 < found["inside"] <= 1
