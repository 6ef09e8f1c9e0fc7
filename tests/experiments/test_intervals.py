"""The study of intervals: its script, and its simulated gains."""

import numpy as np
import pytest

from experiments.intervals import GAINS, METHODS, SD


@pytest.mark.parametrize("kind", GAINS)
def test_gains_have_mean_0_and_the_same_standard_deviation(kind):
    x = GAINS[kind](np.random.default_rng(0), (2_000_000,))
    assert abs(x.mean()) < 5 * SD / 2_000_000**0.5
    assert x.std() == pytest.approx(SD, rel=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_holds_where_all_are_right(method):
    """Normal gains of 500 data: of 400 intervals, 95 % hold within 6 standard deviations of a count."""
    rng = np.random.default_rng(0)
    gains = np.broadcast_to(GAINS["normal"](rng, (400, 1, 500)), (400, 2, 500))
    low, high = METHODS[method](gains, 500, rng)
    assert ((low < 0) & (high > 0)).mean() > 0.95 - 6 * (0.05 * 0.95 / 400) ** 0.5


def test_intervals(tmp_path, run):
    small = ("--repeats", 50, "--resamples", 50, "--sizes", 5, 20, "--seeds", 2)
    result = run("experiments.intervals", *small, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("too few") == 5  # four kinds of gain, and the text
    assert (tmp_path / "out" / "equals-called-better.png").stat().st_size > 5000
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == {
        "data.csv",
        "seeds.csv",
        "power.csv",
        "bias.csv",
    }
    assert run("experiments.intervals", "--sizes", 1).returncode == 2
