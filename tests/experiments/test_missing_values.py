"""The study of missing values: its script, its gaps and the methods that it compares."""

import numpy as np
import pytest
import torch

from experiments.missing_values import GAPS, by_nipals, by_truth
from pyrovae.datasets import simulated


@pytest.mark.parametrize("kind", GAPS)
def test_the_share_of_missing_values(kind):
    """Of 12,000 values a share of 0.3, within 5 standard deviations of a count (at random)."""
    x = GAPS[kind](torch.zeros(200, 60), 0.3, torch.Generator().manual_seed(0))
    assert x.isnan().double().mean() == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / 12_000) ** 0.5)


def test_the_truths_conditional_mean_is_the_best_linear_prediction():
    """Of complete rows with one value removed: no regression on 4,000 other spectra does better by more than 1 %."""
    data = simulated(6000, 20, linear=True, seed=1)
    x = data.x.double().numpy()
    test, others = x[:2000].copy(), [j for j in range(20) if j != 7]
    test[:, 7] = np.nan
    found, deviation = (values[:, 7] for values in by_truth(data.truth, test))
    design = np.column_stack([np.ones(4000), x[2000:, others]])
    weights = np.linalg.lstsq(design, x[2000:, 7], rcond=None)[0]
    fitted = np.column_stack([np.ones(2000), x[:2000, others]]) @ weights
    assert np.mean((found - x[:2000, 7]) ** 2) < 1.01 * np.mean((fitted - x[:2000, 7]) ** 2)
    assert np.mean(((found - x[:2000, 7]) / deviation) ** 2) == pytest.approx(1, abs=5 * (2 / 2000) ** 0.5)


def test_nipals_fills_in_data_of_low_rank():
    rng = np.random.default_rng(0)
    x = 3 + rng.normal(size=(100, 1)) @ rng.normal(size=(1, 12))
    holes = x.copy()
    holes[::4, 2] = np.nan
    np.testing.assert_allclose(by_nipals(holes, 1), x, atol=0.2 * x.std())


@pytest.mark.slow
def test_missing_values(tmp_path, run):
    small = ("--num", 40, "--channels", 20, "--repeats", 1)
    result = run("experiments.missing_values", *small, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("linear, ar1") == 12
    assert (tmp_path / "out" / "missing-values.csv").exists()
    assert run("experiments.missing_values", "--num", 3).returncode == 2
