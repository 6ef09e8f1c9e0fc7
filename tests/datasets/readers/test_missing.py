"""Values of the spectra's own size that mark missing ones: said, or a question; and spectra that hold such values."""

import re

import numpy as np
import pytest

from pyrovae.datasets import read_spectra
from pyrovae.datasets.readers._missing import spikes_of
from tests.datasets.readers.files import AXIS, IDS, NUM, N, X, message_of, rows_of, text, written

rng = np.random.default_rng(6)
LARGE = (X * 400 + 150).round(2)
SOME = np.flatnonzero(rng.random(NUM) < 0.4)
PLACES = {
    "one": ([3], [9]),
    "a run": ([5] * 4, [7, 8, 9, 10]),
    "the first channels of some": np.ix_(SOME, range(3)),
    "the last channels of some": np.ix_(SOME, range(N - 2, N)),
    "scattered": (SOME, SOME % (N - 6) + 3),
}
FEW = ("one", "a run")


def with_values(folder, x, *, in_columns=False):
    axis = 400 + 2 * np.arange(x.shape[1])
    rows = [["id", *axis], *([i, *row] for i, row in zip(IDS * 9, x.tolist(), strict=False))]
    return written(folder, text(zip(*rows, strict=True) if in_columns else rows))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("x", "marker"),
    [(X + 0.5, 0), (X, -1), (LARGE.round(), 0), (LARGE, -1), (LARGE, 99.99), (LARGE, 999.9), (LARGE, -99.9)],
)  # fmt: skip
def test_a_marker_of_the_values_size_is_said(x, marker, place, tmp_path):
    values = x.astype(float)
    values[PLACES[place]] = marker
    for in_columns in (False, True):
        path = with_values(tmp_path, values, in_columns=in_columns)
        if place in FEW:
            said = "\n".join(read_spectra(path).reading.lines())
            sample, channel = PLACES[place][0][0] + 2, PLACES[place][1][0] + 2
            row, column = (channel, sample) if in_columns else (sample, channel)
            assert f"guessed: {marker:g} as a value (row {row}, column {column} (" in said
            assert f"(else missing_value='{marker:g}')" in said
        else:
            assert f"{marker:g} is far from its neighbours" in (message := message_of(path))
            assert f"missing_value='{marker:g}' and missing='mask', else missing_value='none'" in message
        found = read_spectra(path, missing_value=str(marker), missing="mask")
        assert found.reading.num_missing == np.count_nonzero(values == marker)
        assert "as a value" not in "\n".join(read_spectra(path, missing_value="none").reading.lines())


def spectra_with_such_values(seed):
    rng = np.random.default_rng(seed)
    num, n = rng.integers(12, 60), rng.integers(12, 100)
    centre, width = rng.uniform(0.2, 0.8, (2, num, 1)), rng.uniform(0.08, 0.3, (2, num, 1))
    x = 0.3 + np.exp(-0.5 * ((np.linspace(0, 1, n) - centre) / width) ** 2).sum(0)
    noise = rng.normal(size=x.shape)
    x += rng.choice([0.001, 0.004]) * noise
    yield "from 0 to 1", ((x - x.min(1, keepdims=True)) / np.ptp(x, axis=1)[:, None]).round(4)
    yield "zero at the first channel", (x - x[:, :1]).round(4)
    yield "clipped", np.maximum(x - 0.6, 0).round(3)
    yield "clipped, noisy", np.maximum(np.where(x > 0.8, x - 0.8, 0) + 0.02 * noise, 0).round(3)
    yield "saturated", np.minimum(x * 120, 99.99).round(2)
    yield "one decimal", (x - 0.5).round(1)
    yield "transmittance", (100 * 10 ** (-2 * x)).round(1)
    yield "counts", rng.poisson(np.maximum(x * 9 - 4, 0.1))
    yield "from −1 to 1", np.clip(np.sin(5 * x), -1, 1).round(2)
    yield "small whole numbers", np.round(noise * 2)
    yield "around 99.99", (99.95 + 0.02 * noise).round(2)
    yield "whole numbers in no order", rng.integers(0, 300, x.shape)
    yield "peaks", np.where(rng.random(x.shape) < 0.2, rng.lognormal(5, 1, x.shape).round(), rng.poisson(0.3, x.shape))
    yield "above a threshold", np.where(x > 1.2, x, 0).round(3)


def test_values_of_spectra_are_no_markers():
    for seed in range(30):
        for kind, x in spectra_with_such_values(seed):
            assert spikes_of(x.astype(np.float32)) == [], (seed, kind)


def test_what_is_often_there_is_no_marker():
    """Below a threshold all values are 0: one could mean that they are missing."""
    for share, says in ((0.1, [True]), (0.3, [False]), (0.6, [])):
        x = 2 + np.sin(np.linspace(0, 9, 60)) + 0.01 * rng.normal(size=(40, 60))
        x[np.arange(60) < 60 * share + np.arange(40)[:, None] % 9 - 4] = 0
        assert [spike.is_marker for spike in spikes_of(x)] == says


def test_a_marker_of_many_digits_is_named_so_that_it_is_found(tmp_path):
    x = np.where(np.arange(X.size).reshape(X.shape) % 97 == 0, -3.4028234663852886e38, X)
    path = written(tmp_path, text([["id", *AXIS], *rows_of(x, left=IDS)]))
    word = re.search(r"missing_value='([^']*)'", message_of(path))[1]
    assert read_spectra(path, missing_value=word, missing="mask").reading.num_missing == (x != X).sum()
