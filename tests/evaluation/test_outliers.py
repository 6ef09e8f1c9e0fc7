"""P-values against held-out data: uniform on their grid where data are exchangeable, by counting all orders."""

import itertools
from collections import Counter

import numpy as np
import pytest

import pyrovae as pv


def test_p_values_of_exchangeable_data_are_uniform_on_their_grid():
    """Of five values in every order, the last one's p-value is each of 1/5 … 1 equally often."""
    orders = itertools.permutations([-3.0, -2.5, 0.0, 1.0, 7.0])
    counts = Counter(pv.conformal_p_values([last], known)[0] for *known, last in orders)
    assert counts == {k / 5: 24 for k in range(1, 6)}


def test_ties_count_against_an_outlier():
    assert pv.conformal_p_values([1.0, 1.0], [1.0, 1.0, 2.0]).tolist() == [0.75, 0.75]
    assert pv.conformal_p_values([-np.inf], [0.0]).tolist() == [0.5]


@pytest.mark.parametrize("calibration", [[], [[1.0]], [np.nan]])
def test_what_is_no_vector_of_numbers_is_refused(calibration):
    with pytest.raises(pv.InputError, match="vectors of numbers"):
        pv.conformal_p_values([0.0], calibration)
