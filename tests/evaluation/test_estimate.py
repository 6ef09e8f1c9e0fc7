"""The errors of an estimate."""

import math

import pytest
import torch

from pyrovae.evaluation import Estimate


def test_the_errors_of_an_estimate():
    values, errors = torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([0.3, 0.0, 0.4]).double()
    found = Estimate(values, errors)
    assert found.stderr_monte_carlo == pytest.approx(0.5 / 3)
    assert found.stderr == pytest.approx(values.std().item() / math.sqrt(3))
    assert found.stderr**2 == pytest.approx(found.stderr_data**2 + found.stderr_monte_carlo**2)
    difference = found - Estimate(values, errors)
    assert difference.mean == 0
    assert difference.stderr_monte_carlo == pytest.approx(0.5 / 3 * math.sqrt(2))
    assert difference.stderr_data == 0
