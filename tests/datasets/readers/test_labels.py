"""What stands at an end of the channels and is named or placed like one of them."""

import numpy as np
import pytest

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import AXIS, NUM, N, X, message_of, rows_of, text, written

Y = [f"{7 + i % 5}.{i % 9}" for i in range(NUM)]


@pytest.mark.parametrize(
    ("prefix", "name", "first"),
    [("", "2021", False), ("X", "2021", False), ("nm", "2021", False), ("X", "9", True), ("nm", "9", True)],
)
def test_a_number_far_from_the_axis_is_a_question(prefix, name, first, tmp_path):
    header, column = [prefix + name], [[y] for y in Y]
    names = [f"{prefix}{a:g}" for a in AXIS]
    header = [*header, *names] if first else [*names, *header]
    rows = [y + row if first else row + y for y, row in zip(column, rows_of(), strict=True)]
    path, place = written(tmp_path, text([header, *rows])), 1 if first else N + 1
    message = message_of(path)
    assert f"column {place}: '{prefix}{name}' is far from the positions of the other channels" in message
    assert f"label='{place}'" in message
    assert "label='none'" in message
    found = read_spectra(path, label=str(place))
    np.testing.assert_allclose(found.x, X, atol=1e-5)
    assert found.axis.tolist() == AXIS.tolist()
    assert len(read_spectra(path, label="none").axis) == N + 1


def test_a_position_out_of_order_at_an_end_may_be_a_label(tmp_path):
    names = [f"X{a:g}" for a in AXIS]
    path = written(tmp_path, text([["X5000", *names], *([y, *row] for y, row in zip(Y, rows_of(), strict=True))]))
    assert "or if it is a label, say label='X5000'" in message_of(path)
    np.testing.assert_allclose(read_spectra(path, label="X5000").x, X, atol=1e-5)


def test_columns_counted_from_where_others_were_left_out(tmp_path):
    """R's V1, the names, was removed; the last column is a class."""
    header = [f"V{i + 2}" for i in range(N + 1)]
    path = written(tmp_path, text([header, *([*row, str(i % 2)] for i, row in enumerate(rows_of()))]))
    assert "is it a label or a channel" in message_of(path)
    found = read_spectra(path, label="last")
    assert found.x.shape == X.shape
    assert found.reading.source == "counted"


def test_one_absurd_value_is_a_question(tmp_path):
    x = X.copy()
    x[3, 4] = 1e20
    path = written(tmp_path, text([[f"{a:g}" for a in AXIS], *rows_of(x)]))
    message = message_of(path)
    assert "1e+20 is far from all other values and occurs 1 time," in message
    assert read_spectra(path, missing_value="1e20", missing="mask").x[3, 4].isnan()
