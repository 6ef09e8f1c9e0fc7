"""Recommendations on log p(x) whose right answer is known."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import pyrovae as pv
from pyrovae.comparison import Verdict
from pyrovae.comparison.recommendation import Limit
from pyrovae.evaluation import LogMarginal


def runs(gain=0.0, seed_spread=0.0, data_spread=0.0, seeds=5, num=200, seed=0):
    """Log p(x) of two models: a common part, and a gain that varies with the seed and with the datum."""
    g = torch.Generator().manual_seed(seed)
    common = 30 * torch.randn(num, generator=g).double()
    by_seed = seed_spread * torch.randn(seeds, 1, generator=g).double()
    by_datum = data_spread * torch.randn(num, generator=g).double()
    base = common + 1e-9 * torch.randn(seeds, num, generator=g).double()
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
        # too few of either
        ({"gain": 5.0, "seed_spread": 0.1, "data_spread": 0.5, "num": 19}, "diagonal", "too few"),
        ({"gain": 5.0, "seed_spread": 0.1, "data_spread": 0.5, "num": 20}, "full", "better"),
        ({"gain": 5.0, "seed_spread": 0.1, "data_spread": 0.5, "seeds": 1}, "diagonal", "too few"),
        ({"gain": 5.0, "num": 1, "seeds": 1}, "diagonal", "too few"),
    ],
)
def test_known_answers(settings, choice, verdict):
    found = pv.recommend(runs(**settings))
    assert (found.choice, found.verdict) == (choice, verdict)
    assert found.text.startswith(
        {"better": "Take full", "too few": "Too few", "undecided": "Undecided"}.get(verdict, "No difference")
    )
    assert found.choice in found.text
    json.dumps(found.to_dict(), allow_nan=False)


def test_too_few_says_how_many_would_do_and_no_numbers():
    drawn = runs(gain=380.0, num=2)
    found = pv.recommend(drawn, baselines={"factor analysis": drawn["diagonal"][0] - 500})
    assert found.text == (
        "Too few to say which model is better: 5 seeds and 2 test data; it takes at least 20 test data. Until then, "
        "take diagonal, the simplest model."
    )
    assert found.beaten_by == ""
    assert found.rivals == ()
    assert found.gains[["low", "high"]].isna().all(axis=None)
    assert found.to_dict()["gains"][1]["low"] is None
    assert "at least 2 seeds" in pv.recommend(runs(gain=380.0, seeds=1)).text


def test_the_simplest_of_those_as_good_is_taken():
    base = runs(data_spread=0.1)["diagonal"]
    found = pv.recommend({"diagonal": base, "ar1": base + 2, "full": base + 2.05})
    assert (found.choice, found.verdict) == ("ar1", "better")
    assert "full has the largest mean" in found.text


def test_a_model_that_the_best_surpasses_is_not_taken():
    base = runs(data_spread=0.1)["diagonal"]
    found = pv.recommend({"diagonal": base, "ar1": base + 2, "full": base + 5})
    assert (found.choice, found.best, found.verdict) == ("full", "full", "better")


def test_a_clear_winner_is_taken_where_the_largest_mean_is_uncertain():
    base = runs()["diagonal"]
    uncertain = base + 3 + torch.tensor([[-10.0], [-9.9], [0], [9.9], [10]])
    found = pv.recommend({"diagonal": base, "ar1": base + 1, "low-rank": base + 2, "full": uncertain})
    assert (found.choice, found.best, found.verdict) == ("low-rank", "full", "better")


@pytest.mark.parametrize("num_models", [2, 10])
def test_the_intervals_hold_together(num_models):
    """Bonferroni: with m gains, each interval leaves 2.5 %/m on either side."""
    x = stats.norm.ppf((np.arange(200) + 0.5) / 200)
    x = torch.as_tensor(np.random.default_rng(0).permutation(x))
    values = {f"model {i}": i * x + torch.tensor([[0.0], [1e-12], [2e-12]]) for i in range(num_models)}
    row = pv.recommend(values).gains.iloc[1]
    expected = stats.t(199).isf(0.025 / (num_models - 1)) * x.std().item() / math.sqrt(200)
    np.testing.assert_allclose([-row["low"], row["high"]], expected, rtol=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("by_seed", [0.02, 0.5])
def test_the_interval_covers_the_gain_over_seeds_and_data(seeds, by_seed):
    # 200 cases at 95 %: fewer than 180 covered has a probability below 0.001 where the level holds
    covered = 0
    for case in range(200):
        drawn = runs(0.3, by_seed, 1.0, seeds=seeds, num=100, seed=case)
        row = pv.recommend(drawn).by_model[1]
        covered += row.low <= 0.3 <= row.high
    assert covered >= 180


@pytest.mark.parametrize(
    ("settings", "within"),
    [({"gain": 0.5, "data_spread": 20.0}, (500, 100_000)), ({"gain": 1.0, "seed_spread": 5.0, "seeds": 3}, (0, 0))],
)
def test_how_many_data_would_tell(settings, within):
    found = pv.recommend(runs(**settings, seed=1))
    assert found.verdict is Verdict.UNDECIDED
    assert within[0] <= found.num_enough <= within[1]
    if found.num_enough:  # with so many of the same kind it is told, with 20 % fewer it is not
        difference = (runs(**settings, seed=1)["full"] - runs(**settings, seed=1)["diagonal"])[:, :200]
        for share, expected in ((1.2, True), (0.8, False)):
            times = math.ceil(share * found.num_enough / 200)
            more = difference.repeat(1, times) + 1e-9 * torch.randn(len(difference), 1)
            told = pv.recommend({"a": torch.zeros_like(more), "b": more}).verdict is not Verdict.UNDECIDED
            assert told == expected
        assert f"About {found.num_enough:,} test data would decide it" in found.text
    else:
        assert found.limit is Limit.SEEDS
        assert "More seeds would decide it" in found.text


def test_what_so_many_data_resolve():
    found = pv.recommend(runs(data_spread=3.0, num=2000))
    assert found.resolution(400) == pytest.approx(1.96 * 3 / 20, rel=0.05)
    assert found.resolution(1) == math.inf


def test_copies_of_a_datum_are_no_new_data():
    drawn = runs(gain=0.6, data_spread=2.0, num=40)
    once, groups = pv.recommend(drawn), np.arange(40).repeat(9)
    copied = {name: values[:, groups] for name, values in drawn.items()}
    assert once.verdict is Verdict.UNDECIDED
    assert pv.recommend(copied).verdict is Verdict.BETTER
    found = pv.recommend(copied, groups=[f"sample {g}" for g in groups])
    assert (found.verdict, found.num_data, found.num_groups) == (Verdict.UNDECIDED, 360, 40)
    np.testing.assert_allclose(found.by_model[1].low, once.by_model[1].low)
    assert "360 test data in 40 groups" in found.text
    few = pv.recommend(copied, groups=groups % 10)
    assert few.verdict is Verdict.TOO_FEW
    assert "at least 20 independent groups" in few.text


def estimate(values, gain=0.0, k=0.3, stderr=0.0):
    return LogMarginal(
        values, torch.full_like(values, stderr), 100, torch.full_like(values, 50), torch.full_like(values, gain),
        torch.full_like(values, k),
    )  # fmt: skip


def test_a_bias_larger_than_the_gain_does_not_decide():
    """Two guides of one model: the exact log p(x) is the same, and one guide's weights are bad."""
    x = -34.8 + torch.randn(200, generator=torch.Generator().manual_seed(0)).double()
    for k, verdict in ((0.3, Verdict.BETTER), (0.9, Verdict.UNDECIDED)):
        bad, good = [estimate(x - 2.5, 0.25, k)] * 3, [estimate(x)] * 3
        assert pv.recommend({"isotropic": bad, "full": good}).verdict is verdict
        turned = pv.recommend({"full": good, "isotropic": bad})
        assert turned.by_model[1].high == pytest.approx(-2.5 + (0.25 if k < 0.5 else math.inf))
    found = pv.recommend({"isotropic": [estimate(x - 2.5, 2.51, 0.5)] * 3, "full": good})
    assert "isotropic's may be 2.51 nats too low" in found.text
    assert found.limit is Limit.ESTIMATE
    assert found.by_model[0].bias == pytest.approx(2.51)


def test_a_tie_is_a_tie():
    x = -34.8 + torch.randn(200, generator=torch.Generator().manual_seed(0)).double()
    for other in (x, x.float().double(), x + 1e-9):
        found = pv.recommend({"a": [estimate(x)] * 2, "b": [estimate(other)] * 2}, threshold=0.0)
        assert (found.choice, found.verdict) == ("a", Verdict.NO_DIFFERENCE)


def test_monte_carlo_errors_widen_the_interval():
    x = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    rows = [
        pv.recommend({"a": [estimate(x)] * 2, "b": [estimate(x + 1, stderr=stderr)] * 2}).by_model[1]
        for stderr in (0.0, 2.0)
    ]
    assert rows[0].low == pytest.approx(1.0)
    assert rows[1].low == pytest.approx(1 - stats.t(399).isf(0.025) * 2 / math.sqrt(800))


def test_estimates_and_tensors_are_the_same_where_they_are_exact():
    drawn = runs(1.0, 0.3, 0.5)
    exact = {name: [LogMarginal.exact(row) for row in values] for name, values in drawn.items()}
    base = {"linear": drawn["diagonal"][0] - 1}
    for_exact = {"linear": LogMarginal.exact(base["linear"])}
    assert pv.recommend(exact, baselines=for_exact).text == pv.recommend(drawn, baselines=base).text


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


SOFT = replace(LogMarginal.exact(torch.zeros(5)), is_density=False)


@pytest.mark.parametrize(
    ("log_prob", "options", "message"),
    [
        ({"a": torch.zeros(2, 5), "b": torch.zeros(2, 4)}, {}, "of one shape"),
        ({"a": torch.zeros(2, 5), "b": [LogMarginal.exact(torch.zeros(5))]}, {}, "of one shape"),
        ({"a": []}, {}, "must hold tensors"),
        ({"a": torch.zeros(2, 0)}, {}, "cannot compare"),
        ({}, {}, "of one shape"),
        ({"a": torch.full((2, 5), math.nan)}, {}, "every model failed"),
        ({"a": torch.zeros(2, 5)}, {"threshold": -1}, "threshold must be"),
        ({"a": torch.zeros(2, 5)}, {"threshold": "0.1"}, "threshold must be"),
        ({"a": torch.zeros(2, 5)}, {"level": 95}, "level must be"),
        ({"a": torch.zeros(2, 5) + 1j}, {}, "must be numbers"),
        ([torch.zeros(2, 5)], {}, "log_prob must map each model's name"),
        ({"a": torch.zeros(2, 5)}, {"baselines": {"b": torch.zeros(4)}}, "baseline b must have shape"),
        ({"a": torch.zeros(2, 5)}, {"groups": [1, 2]}, "a label for each of the 5 data"),
        ({"a": torch.zeros(2, 5)}, {"groups": [*"abcd", None]}, "groups lacks the label of some data"),
        ({"a": torch.zeros(2, 5)}, {"groups": [*"abcd", math.nan]}, "groups lacks the label of some data"),
        ({"a": torch.zeros(2, 5)}, {"baselines": {"a": torch.zeros(5)}}, "'a' is both a model and a baseline"),
        ({"a": torch.zeros(2, 5), "b": [SOFT] * 2}, {}, "the scores of b are a cross-entropy"),
        ({"a": [SOFT] * 2}, {"baselines": {"b": torch.zeros(5)}}, "the scores of a are a cross-entropy"),
    ],
)
def test_what_cannot_be_compared_is_refused(log_prob, options, message):
    with pytest.raises(pv.InputError, match=message):
        pv.recommend(log_prob, **options)


def test_old_keywords_still_work():
    with pytest.warns(DeprecationWarning, match="leave out num_resamples"):
        found = pv.recommend(runs(1.0), num_resamples=100, seed=1)
    assert found.choice == "full"


def test_the_old_place_still_works():
    with pytest.warns(DeprecationWarning, match=r"is now pyrovae\.comparison\.recommend$"):
        from pyrovae.evaluation import recommend
    assert recommend is pv.recommend
    with pytest.raises(ImportError, match="recomend"):
        from pyrovae.evaluation import recomend  # noqa: F401


@pytest.mark.parametrize("order", [range(40, -1, -1), range(1, 42)])
def test_frames_that_name_other_data_are_refused(order):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(3, 42)))
    one, other = frame[[*range(41)]], frame[[*order]]
    with pytest.raises(pv.InputError, match=r"^the data of 'b' have other labels than those of 'a'"):
        pv.recommend({"a": one, "b": other})
    with pytest.raises(pv.InputError, match=r"^the data of 'c' have other labels than those of 'a'"):
        pv.recommend({"a": one, "b": one}, baselines={"c": other.iloc[0]})
    named = one.rename(columns="s{}".format) + 1
    for better in (one + 1, one.to_numpy() + 1, named):  # an array names nothing, and neither does a count beside names
        assert pv.recommend({"a": one, "b": better}, baselines={"c": one.iloc[0]}).choice == "b"


def test_what_only_looks_like_data_is_seen():
    drawn = runs(gain=1.0, seed_spread=0.3)
    fixed = {"a": drawn["diagonal"][0] - 1}
    once = pv.recommend({name: values[:2] for name, values in drawn.items()}, baselines=fixed)
    for order in [0, 1, 0, 1, 1], [0, 1, 1]:
        twice = {name: values[order] for name, values in drawn.items()}
        with pytest.warns(UserWarning, match=r"same scores in every model: if one seed is given twice.*counts once"):
            found = pv.recommend(twice, baselines=fixed)
        assert (found.num_seeds, found.by_model, found.verdict) == (2, once.by_model, once.verdict)
    with pytest.warns(UserWarning, match=r"seeds 1 and 2 have the same scores.*lacks the spread of seeds"):
        assert pv.recommend({name: values[[0, 0]] for name, values in drawn.items()}).num_seeds == 2  # or without seeds
    pv.recommend(twice | {"diagonal": drawn["diagonal"][:3]})
    pv.recommend({name: [LogMarginal.exact(values[0])] * 2 for name, values in drawn.items()})  # models without seeds
    masked = np.ma.masked_less(drawn["full"].numpy(), -40.0)
    assert pv.recommend({**drawn, "masked": masked}).failed == ("masked",)
    for diverged in (-1e305, -math.inf):
        values = drawn["full"].clone()
        values[1, 2] = diverged
        assert pv.recommend({**drawn, "diverged": values}).failed == ("diverged",)


def test_groups_in_another_order_are_refused():
    frames = {name: pd.DataFrame(values.numpy()).rename(columns="s{}".format) for name, values in runs(1.0).items()}
    groups = pd.Series(np.arange(200) // 4, index=frames["full"].columns)
    found = pv.recommend(frames, groups=groups)
    assert found.num_groups == 50
    with pytest.raises(pv.InputError, match=r"groups has the data in another order than 'diagonal'"):
        pv.recommend(frames, groups=groups[::-1])
    other = groups.set_axis(range(900, 1100))  # names of another table
    assert pv.recommend(frames, groups=other).by_model == found.by_model


def test_a_level_near_one_has_its_limits():
    drawn = runs(data_spread=1.0)
    row = pv.recommend(drawn | {"again": drawn["full"] + 1}, level=1 - 2**-53).by_model[1]
    assert 7 < (row.gain - row.low) * math.sqrt(200) < 12
