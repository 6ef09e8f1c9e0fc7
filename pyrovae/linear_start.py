"""Pairs of programs that start as a linear-Gaussian model, and learn what it lacks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyrovae.exact import LinearGaussianVAE
from pyrovae.likelihoods import GaussianNoiseLikelihood
from pyrovae.nn import Skip
from pyrovae.optimum import set_head
from pyrovae.posteriors import POSTERIORS, Posterior
from pyrovae.vae import AmortizedGuide, GenerativeModel


@torch.no_grad()
def start_as_linear(model: GenerativeModel, guide: AmortizedGuide, linear: LinearGaussianVAE) -> None:
    """Give a pair the parameters at which it is a linear-Gaussian model, and its guide the family's best for that.

    A network trained from random weights takes thousands of steps to reach what probabilistic PCA has in closed form
    where a few directions hold nearly all of the variance, as in spectra. From there the networks, whose part in the
    heads starts at 0, learn what is not linear, and the likelihood how the noise differs from the same σ everywhere.

    Args:
        model: its decoder is ``Skip(network, latent_dim)``, its likelihood a Gaussian one.
        guide: its encoder is ``Skip(network, latent_dim)``; its head has the mean in ``loc_head``.
        linear: such as ``LinearGaussianVAE.fit(x, latent_dim)``, probabilistic PCA.

    Raises:
        TypeError: programs of other parts.
        ValueError: shapes that do not fit.
    """
    d, decoder, encoder = linear.latent_dim, model.decoder, guide.encoder
    likelihood, head = model.likelihood, guide.posterior_head
    if not isinstance(decoder, Skip) or not isinstance(encoder, Skip):
        raise TypeError("the decoder and the encoder must be Skip, with the linear model's latent_dim as width")
    if not isinstance(likelihood, GaussianNoiseLikelihood):
        raise TypeError(f"a linear-Gaussian start needs a Gaussian likelihood, not {type(likelihood).__name__}")
    if not hasattr(head, "loc_head"):
        raise TypeError(f"a {type(head).__name__} has no loc_head, and cannot start as a linear model's posterior")
    if (model.latent_dim, decoder.width, encoder.width, likelihood.n) != (d, d, d, linear.n):
        raise ValueError(f"the linear model has d = {d} and n = {linear.n}, the programs and their Skip have others")
    encoder.linear.weight.copy_(linear.gain)
    encoder.linear.bias.copy_(-linear.gain @ linear.offset)
    best = linear.to_guide(_family_of(head)).posterior_head
    for name, parameter in head.named_parameters():
        if not name.startswith("loc_head"):
            parameter.copy_(torch.zeros_like(parameter) if name.endswith("weight") else best.get_parameter(name))
    _read_linear_part(head.get_submodule("loc_head"), torch.eye(d), torch.zeros(d))
    likelihood.initial_scale = linear.noise_scale
    for name, parameter in likelihood.named_parameters():
        if "_head." in name:  # of noise that depends on z: nearly the same everywhere, but no column of W is exactly 0
            parameter.mul_(0.0 if name.endswith("weight") else 0.1)
    reset = getattr(likelihood, "reset_parameters", None)
    if reset is not None:
        reset()
    _read_linear_part(likelihood.get_submodule("loc_head"), linear.loadings, linear.offset)


def _read_linear_part(head: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Make a head read nothing but the first of its features."""
    rest = head.get_parameter("weight").shape[1] - weight.shape[1]
    set_head(head, torch.cat([weight, weight.new_zeros(len(weight), rest)], dim=1), bias)


def _family_of(head: Posterior) -> str | Callable[[int, int], Posterior]:
    """The head's family: by name where its best member has a closed form."""
    for name in ("isotropic", "diagonal", "full-covariance"):
        if type(head) is POSTERIORS[name]:
            return name
    return lambda n, d: type(head)(**{**head.config(), "in_features": n, "latent_dim": d})
