"""The first directions of data against the singular value decomposition."""

import pytest
import torch

from pyrovae.linear_gaussian._directions import principal_directions
from pyrovae.linear_gaussian.exact import LinearGaussianVAE


@pytest.mark.parametrize(("num", "n"), [(80, 30), (30, 80)])
@pytest.mark.parametrize("dense", [1000, 5])
def test_directions_are_those_of_the_singular_value_decomposition(num, n, dense):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, n, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 3, n) + 7
    found = principal_directions(x, 6, dense)
    centred = x - x.mean(0)
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
    values = singular.square() / num
    torch.testing.assert_close(found.values[:6], values[:6], rtol=1e-9, atol=0)
    overlaps = (found.axes[:, :6] * axes[:6].T).sum(0).abs()
    torch.testing.assert_close(overlaps, torch.ones(6, dtype=torch.float64), rtol=1e-6, atol=0)
    assert found.trace == pytest.approx(values.sum().item())
    left = (values.sum() - values[:6].cumsum(0)) / (n - torch.arange(1, 7))
    torch.testing.assert_close(found.noise_variances()[:6], left)
    vae = LinearGaussianVAE.from_directions(found, 3)
    truth = LinearGaussianVAE.from_moments(x.mean(0), centred.T @ centred / num, 3)
    torch.testing.assert_close(vae.log_prob(x), truth.log_prob(x), rtol=1e-9, atol=1e-9)
