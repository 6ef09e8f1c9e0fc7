"""The study of targets: its script, and what calibration makes of intervals that are too narrow."""

import numpy as np
import pytest
from scipy.stats import norm

from experiments.targets import Prediction


def test_calibrated_intervals_hold_their_share():
    """Intervals too narrow by half, 2,000 data to calibrate and 2,000 to test: within 4 binomial standard errors."""
    y = np.random.default_rng(0).normal(size=4000)
    reach = np.full(2000, 0.5 * norm.isf(0.05))
    half = Prediction(np.zeros(2000), -reach, reach, norm.logpdf(y[:2000]))
    assert half.factor(y[:2000]) == pytest.approx(2, abs=0.15)
    row = half.row(y[2000:], half.factor(y[:2000]))
    assert row["calibrated"] == pytest.approx(0.9, abs=4 * (2 * 0.09 / 2000) ** 0.5)
    assert row["inside"] == pytest.approx(norm.cdf(reach[0]) - norm.cdf(-reach[0]), abs=0.05)


@pytest.mark.slow
def test_targets(tmp_path, run):
    result = run("experiments.targets", "--splits", 1, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert all(method in result.stdout for method in ("PLS", "ridge", "factor analysis, joint"))
    assert (tmp_path / "out" / "targets.csv").exists()
    assert run("experiments.targets", "--splits", 0).returncode == 2
