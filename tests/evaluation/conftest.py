import pytest
import torch

from pyrovae.linear_gaussian.exact import LinearGaussianVAE


@pytest.fixture
def vae() -> LinearGaussianVAE:
    """A linear-Gaussian VAE of three latent and five observed dimensions."""
    return LinearGaussianVAE(torch.randn(5, 3), 0.6, torch.randn(5))
