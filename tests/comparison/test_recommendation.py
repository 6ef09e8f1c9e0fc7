"""Recommendations on log p(x) whose right answer is known."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats

import pyrovae as pv


def runs(gain=0.0, seed_spread=0.0, data_spread=0.0, seeds=5, num=200, seed=0):
    """Log p(x) of two models: a common part, and a gain that varies with the seed and with the datum."""
    g = torch.Generator().manual_seed(seed)
    common = 30 * torch.randn(num, generator=g).double()
    by_seed = seed_spread * torch.randn(seeds, 1, generator=g).double()
    by_datum = data_spread * torch.randn(num, generator=g).double()
    base = common.expand(seeds, num)
    return {"diagonal": base, "full": base + gain + by_seed + by_datum}


@pytest.mark.parametrize(
    ("settings", "choice", "verdict"),
    [
        ({"gain": 1.0, "seed_spread": 0.1, "data_spread": 0.5}, "full", "better"),
        ({"gain": 0.05, "seed_spread": 0.01, "data_spread": 0.05}, "diagonal", "no difference"),
        ({"gain": -1.0, "seed_spread": 0.1, "data_spread": 0.5}, "diagonal", "no difference"),
        ({"gain": 0.0}, "diagonal", "no difference"),
        # clear on the test data alone, were it not for the seeds
        ({"gain": 0.5, "seed_spread": 2.0, "data_spread": 0.1}, "diagonal", "undecided"),
        # and the same over all seeds, were it not for the data
        ({"gain": 0.5, "seed_spread": 0.01, "data_spread": 20.0}, "diagonal", "undecided"),
    ],
)
def test_known_answers(settings, choice, verdict):
    found = pv.recommend(runs(**settings))
    assert (found.choice, found.verdict) == (choice, verdict)
    assert found.text.startswith("Take full" if choice == "full" else "No difference")
    assert found.choice in found.text


def test_the_simplest_of_those_as_good_is_taken():
    base = runs(data_spread=0.1)["diagonal"]
    found = pv.recommend({"diagonal": base, "ar1": base + 2, "full": base + 2.05})
    assert (found.choice, found.verdict) == ("ar1", "better")
    assert "full has the largest mean" in found.text


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("by_seed", [0.02, 0.5])
def test_the_interval_covers_the_gain_over_seeds_and_data(seeds, by_seed):
    # 200 cases at 95 %: fewer than 180 covered has a probability below 0.001 where the level holds
    covered = 0
    for case in range(200):
        drawn = runs(0.3, by_seed, 1.0, seeds=seeds, num=100, seed=case)
        row = pv.recommend(drawn, num_resamples=1000).gains.iloc[1]
        covered += row["low"] <= 0.3 <= row["high"]
    assert covered >= 180


def test_the_standard_deviation_is_that_of_both_causes():
    drawn = runs(0.0, 0.5, 3.0, seeds=8, num=400)
    difference = (drawn["full"] - drawn["diagonal"]).numpy()
    by_seed, by_datum = difference.mean(1).std(ddof=1) / math.sqrt(8), difference.mean(0).std(ddof=1) / math.sqrt(400)
    row = pv.recommend(drawn, num_resamples=20_000).gains.iloc[1]
    both = by_seed * stats.t(7).rvs(10**6, random_state=0) + by_datum * stats.norm().rvs(10**6, random_state=1)
    np.testing.assert_allclose(row["high"] - row["low"], np.quantile(both, 0.975) * 2, rtol=0.06)


def test_baselines_and_failures_are_told_of():
    drawn = runs(1.0)
    drawn["flow"] = torch.full_like(drawn["full"], math.nan)
    base = drawn["diagonal"][0]
    given = {"factor analysis": base + 5, "a line": base - 7, "probabilistic PCA": base - 5}
    found = pv.recommend(drawn, baselines=given)
    assert found.choice == "full"
    assert "worse than factor analysis (-4.00" in found.text
    assert re.search(r"better than probabilistic PCA \(\+6.00[^)]*\) and 1 more\.", found.text)
    assert "left out: flow" in found.text
    assert list(found.gains["model"]) == ["diagonal", "full", *given]


@pytest.mark.parametrize(
    ("log_prob", "options", "message"),
    [
        ({"a": torch.zeros(1, 5)}, {}, "train at least two seeds"),
        ({"a": torch.zeros(2, 5), "b": torch.zeros(2, 4)}, {}, "of one shape"),
        ({}, {}, "of one shape"),
        ({"a": torch.full((2, 5), math.nan)}, {}, "every model failed"),
        ({"a": torch.zeros(2, 5)}, {"threshold": -1}, "threshold must be"),
        ({"a": torch.zeros(2, 5)}, {"baselines": {"b": torch.zeros(4)}}, "baseline b must have shape"),
    ],
)
def test_what_cannot_be_compared_is_refused(log_prob, options, message):
    with pytest.raises(ValueError, match=message):
        pv.recommend(log_prob, **options)


def test_the_old_place_still_works():
    with pytest.warns(DeprecationWarning, match=r"is now pyrovae\.comparison\.recommend$"):
        from pyrovae.evaluation import recommend
    assert recommend is pv.recommend
    with pytest.raises(ImportError, match="recomend"):
        from pyrovae.evaluation import recomend  # noqa: F401
