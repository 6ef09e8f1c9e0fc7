"""Splits: partitions, without a leak."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyrovae.datasets import (
    Spectra,
    find_copies,
    read_spectra,
    split_by_group,
    split_into_blocks,
    split_randomly,
    split_spectra,
)

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
    assert notes == ["79 spectra are copies of others, and are in the same part"]
    times = pd.date_range("2026-01-01", periods=120, freq="3h")
    timed = Spectra(x, torch.arange(3.0), "", pd.DataFrame({"datetime": times.astype(str)}), "timed")
    split = split_spectra(timed.take(torch.randperm(120)))
    parts, how, notes = split.parts, split.describe(), split.notes()
    days = [set(pd.to_datetime(part.targets["datetime"]).dt.date) for part in parts]
    assert sum(map(len, days)) == len(set.union(*days)) == 15
    assert max(days[0]) < min(days[1]) < max(days[1]) < min(days[2])
    assert "in blocks of whole days by datetime (15 days" in how
    assert "from 2 day(s)" in notes[0]
    sample = np.arange(120) % 12
    grouped = Spectra(x, torch.arange(3.0), "", pd.DataFrame({"sample": sample, "datetime": times.astype(str)}), "")
    split = split_spectra(grouped, group="sample")
    parts, how, notes = split.parts, split.describe(), split.notes()
    groups = [set(part.targets["sample"]) for part in parts]
    assert sum(map(len, parts)) == 120
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    assert how == "by sample (12 groups, none in two parts)"
    assert f"from {len(groups[2])} group(s)" in notes[1]
    assert all({row % 12 for row in range(120) if row % 4 == first % 4} <= part for part in groups for first in part)
    with pytest.raises(ValueError, match="there is no column 'batch' among the targets: sample, datetime"):
        split_spectra(grouped, group="batch")


def measured(num=60, times=3, noise=0.02, seed=0):
    """Spectra of samples that were measured several times, with their sample."""
    rng = np.random.default_rng(seed)
    sample = rng.permutation(np.repeat(np.arange(num), times))
    x = rng.standard_normal((num, 3)) @ rng.standard_normal((3, 20))
    x = torch.as_tensor(x[sample] + noise * rng.standard_normal((len(sample), 20)))
    return Spectra(x, torch.arange(20.0), "", pd.DataFrame({"sample_id": sample, "fat": rng.random(len(sample))}), "m")


def samples_in(split):
    return [set(part.targets["sample_id"]) for part in split.parts]


def test_a_sample_measured_again_stays_in_one_part_and_counts_once():
    split = split_spectra(measured())
    samples = samples_in(split)
    assert sum(map(len, samples)) == 60
    assert split.num_copies == 0
    assert 120 <= split.num_near <= 124  # two samples may be near each other, too
    assert len(samples[2]) - 2 <= split.num_independent <= len(samples[2])
    assert split.num_enough(20) == pytest.approx(3 * 20 / 0.15, abs=20)
    more = split_spectra(measured(num=split.num_enough(20) // 3 + 1))
    assert more.num_independent >= 19
    assert (split.test.targets.groupby("sample_id")["fat"].count() == 3).all()
    first, second = split.notes()
    assert first.endswith("are near copies of others, as of a sample measured again, and are in the same part")
    assert second.endswith("keep them together with --group sample_id")
    allowed = split_spectra(measured(), allow_replicates=True)
    assert sum(map(len, samples_in(allowed))) > 100
    assert allowed.test_groups is None
    assert "results are too good" in allowed.notes()[0]
    by_sample = split_spectra(measured(noise=5.0), group="sample_id")  # which the spectra do not show
    assert sum(map(len, samples_in(by_sample))) == 60
    assert by_sample.num_independent == len(samples_in(by_sample)[2])


@pytest.mark.parametrize("n", [2, 6, 60])
def test_data_without_copies_are_split_at_random(n):
    """Neighbours by chance are no copies, in few dimensions or many: of 3 × 10 sets none is said to have any."""
    for seed in range(10):
        x = torch.randn(300, n, generator=torch.Generator().manual_seed(seed))
        spectra = Spectra(x, torch.arange(float(n)), "", pd.DataFrame(index=range(300)), "")
        split = split_spectra(spectra, seed=seed)
        assert (split.num_copies, split.num_near, split.notes()) == (0, 0, [])
        assert torch.equal(split.train.x, x[split_randomly(300, seed=seed)[0]])


def test_rows_that_are_equal_by_chance_are_no_copies():
    g = torch.Generator().manual_seed(0)
    few = (torch.rand(300, 5, generator=g) < 0.5).float()  # 32 different rows are possible
    assert len(set(find_copies(few).tolist())) == 300
    many = (torch.rand(300, 80, generator=g) < 0.5).float()
    assert len(set(find_copies(torch.cat([many, many[:9]])).tolist())) == 300
    assert len(set(find_copies(torch.rand(300, 1, generator=g).round(decimals=2)).tolist())) == 300


def test_replicates_of_fruit_purees():
    if not SHARED.is_dir():
        pytest.skip("the shared data are not here")
    found = split_spectra(read_spectra(SHARED / "spectra/fruit_puree_mir.csv"))
    assert 60 < found.num_near < 200
    assert split_spectra(read_spectra(SHARED / "spectra/tecator.csv")).num_copies == 24


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
