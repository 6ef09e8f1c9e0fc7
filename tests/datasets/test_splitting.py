"""Splits: partitions, without a leak."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyrovae.datasets import Spectra, read_spectra, split_by_group, split_into_blocks, split_randomly, split_spectra

SHARED = Path(os.environ.get("PYROVAE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_copies_and_days_stay_in_one_part():
    x = torch.randn(40, 3).repeat(3, 1)
    x[40, 0] = math.nan  # missing values are alike, too
    x[80, 0] = math.nan
    spectra = Spectra(x, torch.arange(3.0), "", pd.DataFrame({"row": range(120)}), "copied")
    split = split_spectra(spectra)
    parts, how, notes = split.parts, split.describe(), split.notes()
    rows = [{tuple(row.nan_to_num(9.0).tolist()) for row in part.x} for part in parts]
    assert sum(map(len, parts)) == 120
    assert sum(map(len, rows)) == len(set.union(*rows)) == 41
    assert how == "at random"
    assert notes == ["79 spectra are copies of others, and go where these go"]
    times = pd.date_range("2026-01-01", periods=120, freq="3h")
    timed = Spectra(x, torch.arange(3.0), "", pd.DataFrame({"datetime": times.astype(str)}), "timed")
    split = split_spectra(timed.take(torch.randperm(120)))
    parts, how, notes = split.parts, split.describe(), split.notes()
    days = [set(pd.to_datetime(part.targets["datetime"]).dt.date) for part in parts]
    assert sum(map(len, days)) == len(set.union(*days)) == 15
    assert max(days[0]) < min(days[1]) < max(days[1]) < min(days[2])
    assert "in blocks of whole days by datetime (15 days" in how
    assert "of 2 day(s)" in notes[0]
    sample = np.arange(120) % 12
    grouped = Spectra(x, torch.arange(3.0), "", pd.DataFrame({"sample": sample, "datetime": times.astype(str)}), "")
    split = split_spectra(grouped, group="sample")
    parts, how, notes = split.parts, split.describe(), split.notes()
    groups = [set(part.targets["sample"]) for part in parts]
    assert sum(map(len, parts)) == 120
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    assert how == "by sample (12 groups, none in two parts)"
    assert f"of {len(groups[2])} group(s)" in notes[0]
    with pytest.raises(ValueError, match="there is no column 'batch' among the targets: sample, datetime"):
        split_spectra(grouped, group="batch")


def test_days_of_the_soil_data_make_blocks():
    if not SHARED.is_dir():
        pytest.skip("the shared data are not here")
    spectra = read_spectra(SHARED / "karly_soil/soilmoisture_dataset.csv")
    with pytest.raises(ValueError, match="comes back after another"):  # the file is not in the order of time
        split_into_blocks(len(spectra), (0.6, 0.4), groups=spectra.groups("datetime", by_day=True))
    spectra = spectra.sorted_by("datetime")
    days = spectra.groups("datetime", by_day=True)
    parts = [set(days[part]) for part in split_into_blocks(len(spectra), (0.6, 0.4), groups=days)]
    assert not parts[0] & parts[1]
    assert max(parts[0]) < min(parts[1])


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.7, 0.15, 0.15)])
def test_splits_are_partitions(shares):
    groups = np.repeat(np.arange(20), np.random.default_rng(0).integers(1, 9, 20))
    for parts in (
        split_randomly(len(groups), shares, seed=1),
        split_by_group(groups, shares, seed=1),
        split_into_blocks(len(groups), shares),
        split_into_blocks(len(groups), shares, groups=groups),
    ):
        assert sorted(torch.cat(parts).tolist()) == list(range(len(groups)))
        sizes = [len(part) / len(groups) for part in parts]
        assert sizes == pytest.approx(shares, abs=0.1)
    for parts in (split_by_group(groups, shares, seed=2), split_into_blocks(len(groups), shares, groups=groups)):
        sets = [set(groups[part]) for part in parts]
        assert sum(len(s) for s in sets) == len(set.union(*sets))
    blocks = split_into_blocks(len(groups), shares, groups=groups)
    assert all(max(a) < min(b) for a, b in itertools.pairwise(blocks))
    assert split_by_group(groups, shares, seed=1)[0].tolist() != split_by_group(groups, shares, seed=3)[0].tolist()


def test_splits_that_cannot_be():
    with pytest.raises(ValueError, match="sum to 1"):
        split_randomly(10, (0.5, 0.6))
    with pytest.raises(ValueError, match="2 data are too few"):
        split_randomly(2)
    with pytest.raises(ValueError, match="2 groups are too few"):
        split_by_group(["a", "b"] * 10)
    with pytest.raises(ValueError, match="comes back after another"):
        split_into_blocks(4, (0.5, 0.5), groups=list("abab"))
    with pytest.raises(ValueError, match=r"datum 1 \(counted from 0\) has no group label"):
        split_by_group(["a", None, "b"], (0.5, 0.5))
    assert [len(part) for part in split_by_group(list("abc"))] == [1, 1, 1]
