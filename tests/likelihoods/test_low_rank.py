"""What is particular to noise of low rank."""

import pytest
import torch

import pyrovae as pv


def test_low_rank_noise_must_be_of_its_shape():
    likelihood = pv.LowRankGaussianLikelihood(1, 4, rank=2)
    before, ones = likelihood.raw_noise.clone(), torch.ones(4, 3)
    for scale, factor in ((torch.ones(3), ones[:, :2]), (torch.ones(4), ones), (-torch.ones(4), ones[:, :1])):
        with pytest.raises(ValueError, match="scale must h"):
            likelihood.set_noise(scale, factor)
    assert torch.equal(likelihood.raw_noise, before)
