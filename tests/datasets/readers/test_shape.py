"""Positions in the header and in the first column: which of them are the channels'."""

import numpy as np
import pytest

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import AXIS, NUM, message_of, text, written
from tests.datasets.readers.kinds import SERIES

TEMPERATURES = 20.0 + 2.5 * np.arange(NUM)


def series(corner, levels, axis, *, in_columns):
    """One substance in another at several levels: smooth down, and across."""
    if in_columns:
        return text([[corner, *levels], *([a, *column] for a, column in zip(axis, SERIES.T, strict=True))])
    return text([[corner, *axis], *([t, *row] for t, row in zip(levels, SERIES, strict=True))])


@pytest.mark.parametrize("corner", ["Temp", "time/s", "conc"])
@pytest.mark.parametrize("in_columns", [False, True])
def test_wavelengths_are_told_from_temperatures(in_columns, corner, tmp_path):
    path = written(tmp_path, series(corner, TEMPERATURES, AXIS, in_columns=in_columns))
    found = read_spectra(path)
    np.testing.assert_allclose(found.x, SERIES, atol=1e-5)
    assert found.axis.tolist() == AXIS.tolist()
    where, other = ("columns", "rows") if in_columns else ("rows", "columns")
    assert f"samples in {where}" in (said := "\n".join(found.reading.lines()))
    assert f"samples={other!r}" in said


@pytest.mark.parametrize(
    ("levels", "axis"),
    [(TEMPERATURES + 273, AXIS), (TEMPERATURES, AXIS / 1000), (10.0 * TEMPERATURES, AXIS)],
    ids=["kelvin", "micrometres", "both large"],
)
@pytest.mark.parametrize("in_columns", [False, True])
def test_two_axes_of_one_kind_are_a_question(in_columns, levels, axis, tmp_path):
    path = written(tmp_path, series("T", levels, axis, in_columns=in_columns))
    message = message_of(path)
    assert "samples='columns'" in message
    assert "samples='rows'" in message
    found = read_spectra(path, samples="columns" if in_columns else "rows")
    np.testing.assert_allclose(found.x, SERIES, atol=1e-5)
    np.testing.assert_allclose(found.axis, axis)


@pytest.mark.parametrize("corner", ["Sample ID", "plot"])
def test_numbers_that_name_samples_are_no_axis(corner, tmp_path):
    path = written(tmp_path, series(corner, 1001 + 3 * np.arange(NUM), AXIS, in_columns=False))
    assert read_spectra(path).axis.tolist() == AXIS.tolist()
