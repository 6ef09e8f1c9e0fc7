"""The linear-Gaussian VAE; an alias of :mod:`pyrovae.linear_gaussian.exact`."""

from pyrovae.linear_gaussian.exact import LinearGaussianVAE, most_latent_dims

__all__ = ["LinearGaussianVAE", "most_latent_dims"]
