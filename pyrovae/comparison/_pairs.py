"""Fresh models and guides of multilayer perceptrons, as comparisons and trainings of one model start from them."""

from collections.abc import Iterable

import torch

from pyrovae.comparison.settings import LikelihoodFactory, NetworkSettings, PosteriorFactory
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.linear_gaussian.warm_start import start_as_linear
from pyrovae.nn import MLP, ImputeMissing, Skip
from pyrovae.vae import AmortizedGuide, GenerativeModel


def new_pair(
    n: int,
    latent_dim: int,
    posterior: PosteriorFactory,
    likelihood: LikelihoodFactory,
    settings: NetworkSettings,
    *,
    seed: int,
    linear: FactorModel | None = None,
) -> tuple[GenerativeModel, AmortizedGuide]:
    """A model of data with n channels, and its guide, initialised under the seed.

    Args:
        n: number of channels.
        latent_dim: dimension of z.
        posterior: family, a callable of (in_features, latent_dim).
        likelihood: a callable of (in_features, n).
        settings: of the networks.
        seed: of the initialisation; the caller's random state is left as it was.
        linear: the linear model to start as, see :func:`~pyrovae.start_as_linear`; None for random weights.
    """
    missing = settings.missing == "mask"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)

        def network(*sizes: int) -> MLP | Skip:
            return MLP(*sizes) if linear is None else Skip(MLP(*sizes), latent_dim)

        # made in the order of a program's modules, in which replicas start anew
        decoder = network(latent_dim, *reversed(settings.hidden))
        model = GenerativeModel(decoder, likelihood(decoder.out_features, n), latent_dim, missing=missing)
        encoder = network(n, *settings.hidden)
        guide = AmortizedGuide(
            ImputeMissing(encoder) if missing else encoder, posterior(encoder.out_features, latent_dim)
        )
        if linear is not None:
            start_as_linear(model, guide, linear)
        return model, guide


@torch.random.fork_rng(devices=[])
def can_start_as_linear(
    posteriors: Iterable[PosteriorFactory], likelihoods: Iterable[LikelihoodFactory], settings: NetworkSettings
) -> bool:
    """Whether all models can start as a linear one: Gaussian noise, complete data, a head for the mean."""
    return (
        settings.missing == "error"
        and all(make(1, 2).can_start_as_linear for make in posteriors)
        and all(make(1, 2).is_gaussian for make in likelihoods)
    )
