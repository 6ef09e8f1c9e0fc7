"""The study of outliers: its script, what it plants, and the limits of T² and Q where their theory holds."""

import numpy as np
import pytest
from scipy import stats

import pyrovae as pv
from experiments.outliers import PLANTED, Scores, counts_by_chance, pca


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_is_of_the_size_that_it_says(kind):
    x = np.zeros((500, 90))
    planted = PLANTED[kind](x, 2.0, np.random.default_rng(0))
    assert not x.any()
    largest = np.abs(planted).max(axis=1)
    if kind == "noise":
        assert planted.std() == pytest.approx(1.4, rel=0.02)
    else:
        np.testing.assert_allclose(largest, {"spike": 10, "peak": 4, "tilt": 4}[kind])


def test_the_limits_of_t2_and_q_hold_for_gaussian_data():
    """5 % of 20,000 new data, whose training data number 2,000: within 1 %."""
    rng = np.random.default_rng(0)
    loadings = 3 * rng.normal(size=(2, 12))
    x = rng.normal(size=(22_000, 2)) @ loadings + rng.normal(size=(22_000, 12))
    methods, size = pca(x[:2000], 2)
    assert size == pytest.approx((10 / 12) ** 0.5, rel=0.03)
    for score, limit in methods.values():
        assert (score(x[2000:]) > limit(0.05)).mean() == pytest.approx(0.05, abs=0.01)


def test_ranges_of_false_alarms_are_those_of_draws():
    """5,000 studies of three splits: 95 % to 98 % inside, as counts are discrete; the binomial range holds fewer."""
    rng, inside = np.random.default_rng(0), {"binomial": 0, "conformal": 0}
    ranges = counts_by_chance(0.1, held_out=40, tested=60, splits=3)
    for _ in range(5000):
        p_values = np.concatenate([pv.conformal_p_values(rng.random(60), rng.random(40)) for _ in range(3)])
        share = (p_values <= 0.1).mean()
        for kind, (low, high) in ranges.items():
            inside[kind] += low <= share <= high
    assert 0.945 <= inside["conformal"] / 5000 <= 0.98
    assert inside["binomial"] / 5000 < 0.9


def test_cells_outside_by_chance_on_the_page_are_the_exact_expectation():
    """60 cells: four sets of these sizes, three α, five methods; and 400 studies of exchangeable scores."""
    rng = np.random.default_rng(0)
    exact, drawn = ({"binomial": 0.0, "conformal": 0.0} for _ in range(2))
    for size in (60, 170, 246, 164):
        studies = []
        for _ in range(400):  # spectra of one split share a scale: they are not independent
            splits = [rng.standard_t(3, 2 * size) * rng.gamma(1.0) for _ in range(5)]
            studies.append(np.stack([pv.conformal_p_values(x[size:], x[:size]) for x in splits]))
        for alpha in (0.01, 0.05, 0.1):
            k, law = int((size + 1) * alpha), np.eye(1, size + 1)[0]
            if k:  # the probability of a new alarm is the k-th smallest of the held-out ranks', which is beta
                law = stats.betabinom(size, k, size + 1 - k).pmf(np.arange(size + 1))
            total = np.ones(1)
            for _ in range(5):
                total = np.convolve(total, law)
            shares, found = np.arange(5 * size + 1) / (5 * size), (np.array(studies) <= alpha).mean((1, 2))
            for kind, (low, high) in counts_by_chance(alpha, size, size, 5).items():
                exact[kind] += 5 * total[(shares < low - 1e-9) | (shares > high + 1e-9)].sum()
                drawn[kind] += 5 * ((found < low - 1e-9) | (found > high + 1e-9)).mean()
    assert exact["binomial"] == pytest.approx(9.14, abs=0.01)
    assert exact["conformal"] == pytest.approx(2.18, abs=0.01)
    assert drawn["binomial"] == pytest.approx(9.14, abs=1.5)  # 5 errors of independent cells
    assert drawn["conformal"] == pytest.approx(2.18, abs=0.9)


def test_held_out_spectra_chosen_anew_are_those_of_p_values():
    """The alarms of one choice; 4,000 choices have beta-binomial counts (mean and variance within 5 errors)."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 100))
    scores = Scores(values, 40)
    held_out = np.random.default_rng(1).permuted(np.tile(np.arange(100) < 40, (1, 1)), axis=1)[0]
    for alpha in (0.02, 0.1, 0.3):
        expected = [(pv.conformal_p_values(-v[~held_out], -v[held_out]) <= alpha).mean() for v in values]
        np.testing.assert_allclose(scores.redrawn(alpha, 1, np.random.default_rng(1))[:, 0], expected)
    counts = 60 * scores.redrawn(0.1, 4000, rng)[0]
    law = stats.betabinom(60, 4, 37)
    assert counts.mean() == pytest.approx(law.mean(), abs=5 * law.std() / 4000**0.5)
    assert counts.var() == pytest.approx(law.var(), rel=0.2)


def test_too_few_held_out_spectra_give_no_alarm():
    """The smallest p-value of m spectra is 1/(m + 1)."""
    assert counts_by_chance(0.01, held_out=98, tested=50, splits=1)["conformal"] == (0.0, 0.0)
    assert counts_by_chance(0.01, held_out=99, tested=50, splits=1)["conformal"][1] > 0


@pytest.mark.slow
def test_outliers(tmp_path, run):
    result = run("experiments.outliers", "--splits", 1, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("log p, AR(1) noise") == 2
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == {"areas.csv", "false-alarms.csv"}
    assert run("experiments.outliers", "--splits", 0).returncode == 2
