"""What is particular to noise of any covariance."""

import pytest
import torch

import pyrovae as pv


def test_a_shared_factor_is_solved_with_once():
    likelihood = pv.FullCovarianceGaussianLikelihood(4, 6)
    p, x = likelihood(torch.randn(9, 4)), torch.randn(9, 6)
    assert p._unbroadcasted_scale_tril.shape == (6, 6)
    with torch.profiler.profile(record_shapes=True) as profile:
        p.log_prob(x)
    shapes = [event.input_shapes[:2] for event in profile.events() if event.name == "aten::linalg_solve_triangular"]
    assert shapes == [[[6, 6], [6, 9]]]


def test_covariances_below_the_floor_change_one_variance_alone():
    likelihood = pv.FullCovarianceGaussianLikelihood(1, 2).double()
    likelihood.set_noise_covariance(torch.tensor([[1, 1], [1, 1 + 1e-10]], dtype=torch.float64))
    torch.testing.assert_close(likelihood.noise_covariance(), torch.ones(2, 2).double(), rtol=0, atol=1e-6)
    for covariance in ([[1.0, 2.0], [2.0, 1.0]], [[1e-9, 0.9e-9], [0.0, 1e-9]], [[1.0]]):
        with pytest.raises(ValueError, match="symmetric and positive definite"):
            likelihood.set_noise_covariance(torch.tensor(covariance).double())
