"""New models and guides of multilayer perceptrons, the start of comparisons and of training one model."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from pyrovae.blocks import nanmean
from pyrovae.comparison.settings import LikelihoodFactory, NetworkSettings, PosteriorFactory, PriorFactory, kind_of
from pyrovae.likelihoods import CountLikelihood
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.linear_gaussian.warm_start import start_as_linear
from pyrovae.nn import MLP, ImputeMissing, LogCounts, Skip, class_of
from pyrovae.programs import Program, takes_missing
from pyrovae.randomness import seeded
from pyrovae.vae import AmortizedGuide, GenerativeModel


def new_pair(
    n: int,
    latent_dim: int,
    posterior: PosteriorFactory,
    likelihood: LikelihoodFactory,
    settings: NetworkSettings,
    *,
    prior: PriorFactory | None = None,
    seed: int,
    linear: FactorModel | None = None,
) -> tuple[GenerativeModel, AmortizedGuide]:
    """A model of data with n channels, and its guide, initialised under the seed.

    Args:
        n: number of channels.
        latent_dim: dimension of z.
        posterior: family, a callable of (in_features, latent_dim).
        likelihood: a callable of (in_features, n).
        settings: settings of the networks.
        prior: a callable of latent_dim; None for N(0, I).
        seed: seed of the initialisation; the caller's random state does not change.
        linear: the linear model to start as, see :func:`~pyrovae.start_as_linear`; None for random weights.
    """
    missing = settings.missing == "mask"
    with seeded(seed):

        def network(*sizes: int) -> MLP | Skip:
            return MLP(*sizes) if linear is None else Skip(MLP(*sizes), latent_dim)

        # made in the order of a program's modules, in which replicas start anew
        decoder = network(latent_dim, *reversed(settings.hidden))
        head, p_z = likelihood(decoder.out_features, n), None if prior is None else prior(latent_dim)
        model = GenerativeModel(decoder, head, latent_dim, p_z, missing=missing)
        encoder = network(n, *settings.hidden)
        guide = AmortizedGuide(seen_by(encoder, model), posterior(encoder.out_features, latent_dim))
        if linear is not None:
            start_as_linear(model, guide, linear)
        return model, guide


def seen_by(encoder: nn.Module, model: Program) -> nn.Module:
    """The encoder of a model's data; counts enter by their logarithms, and missing values are filled."""
    if isinstance(model, GenerativeModel) and model.likelihood.is_count:
        encoder = LogCounts(encoder)
    return ImputeMissing(encoder) if takes_missing(model) else encoder


def at_mean_of(make: LikelihoodFactory, x: Tensor) -> LikelihoodFactory:
    """The likelihood for data (num, n): the means of counts start at the channels' own."""
    cls = kind_of(make)
    given = make.keywords if isinstance(make, partial) else {}
    if cls is None or not issubclass(cls, CountLikelihood) or "initial_mean" in given:
        return make
    means = nanmean(x).nan_to_num(1.0).clamp_min(0.5 / len(x))
    return partial(make, initial_mean=means.tolist())  # type: ignore[call-arg]


@torch.random.fork_rng(devices=[])
def can_start_as_linear(
    posteriors: Iterable[PosteriorFactory], likelihoods: Iterable[LikelihoodFactory], settings: NetworkSettings
) -> bool:
    """Whether all models can start as a linear model: Gaussian noise, complete data, a head for the mean."""
    return (
        settings.missing == "error"
        and all(make(1, 2).can_start_as_linear for make in posteriors)
        and all(class_of(make).is_gaussian for make in likelihoods)
    )
