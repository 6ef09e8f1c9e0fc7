"""What is particular to independent Gaussian noise."""

import pytest

import pyrovae as pv


def test_a_fixed_scale_has_no_floor_and_a_wide_one_no_overflow():
    assert not pv.GaussianLikelihood(4, 3, scale=1e-9).on_floor().any()
    assert pv.GaussianLikelihood(4, 3, initial_scale=1e5).noise_scale.item() == pytest.approx(1e5)
    assert not pv.GaussianLikelihood(4, 3, initial_scale=1e-5).on_floor().any()


def test_scale_that_depends_on_z_is_no_one_number():
    with pytest.raises(ValueError, match="this σ depends on z"):
        _ = pv.GaussianLikelihood(4, 3, scale="per-datum").noise_scale
    with pytest.raises(ValueError, match="depends on z"):
        _ = pv.AR1GaussianLikelihood(4, 3, covariance="per-datum").noise_correlation
