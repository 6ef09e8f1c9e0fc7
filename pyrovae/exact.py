"""Models whose log p(x) and posterior are exact; an alias of modules of :mod:`pyrovae.linear_gaussian`."""

from pyrovae.linear_gaussian.exact import LinearGaussianVAE, most_latent_dims
from pyrovae.linear_gaussian.state_space import LinearGaussianStateSpace

__all__ = ["LinearGaussianStateSpace", "LinearGaussianVAE", "most_latent_dims"]
