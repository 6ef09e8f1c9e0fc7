"""What is particular to AR(1) noise."""

import torch

from pyrovae.likelihoods import LIKELIHOODS


def test_ar1_coordinates_part_neighbours():
    likelihood = LIKELIHOODS["ar1-per-dimension"](1, 5, floor=1e-12).double()
    coordinates = torch.zeros(6, dtype=torch.float64)
    coordinates[2] = 0.7  # between channels 1 and 2, counted from 0
    moved = torch.func.functional_call(likelihood, likelihood.noise_parameters(coordinates), torch.zeros(1).double())
    expected = torch.tensor([0.0, 0.7, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(moved.scale.log().diff(), expected, rtol=0, atol=1e-9)
    assert moved.scale.log().mean().abs() < 1e-9
