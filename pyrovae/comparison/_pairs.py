"""Fresh models and guides of multilayer perceptrons, as comparisons and trainings of one model start from them."""

from collections.abc import Callable, Iterable, Sequence

import torch

from pyrovae.likelihoods import Likelihood
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.linear_gaussian.warm_start import start_as_linear
from pyrovae.nn import MLP, ImputeMissing, Skip
from pyrovae.posteriors import Posterior
from pyrovae.vae import AmortizedGuide, GenerativeModel

PosteriorFactory = Callable[[int, int], Posterior]
LikelihoodFactory = Callable[[int, int], Likelihood]


def new_pair(
    n: int,
    latent_dim: int,
    hidden: Sequence[int],
    posterior: PosteriorFactory,
    likelihood: LikelihoodFactory,
    *,
    seed: int,
    missing: bool = False,
    linear: FactorModel | None = None,
) -> tuple[GenerativeModel, AmortizedGuide]:
    """A model of data with n channels, and its guide, initialised under the seed.

    Args:
        n: number of channels.
        latent_dim: dimension of z.
        hidden: widths of the encoder's hidden layers, and in reverse of the decoder's.
        posterior: family, a callable of (in_features, latent_dim).
        likelihood: a callable of (in_features, n).
        seed: of the initialisation; the caller's random state is left as it was.
        missing: whether NaN is a value not observed.
        linear: the linear model to start as, see :func:`~pyrovae.start_as_linear`; None for random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)

        def network(*sizes: int) -> MLP | Skip:
            return MLP(*sizes) if linear is None else Skip(MLP(*sizes), latent_dim)

        # made in the order of a program's modules, in which replicas start anew
        decoder = network(latent_dim, *reversed(hidden))
        model = GenerativeModel(decoder, likelihood(decoder.out_features, n), latent_dim, missing=missing)
        encoder = network(n, *hidden)
        guide = AmortizedGuide(
            ImputeMissing(encoder) if missing else encoder, posterior(encoder.out_features, latent_dim)
        )
        if linear is not None:
            start_as_linear(model, guide, linear)
        return model, guide


def can_start_as_linear(posteriors: Iterable[str], likelihoods: Iterable[str], missing: bool) -> bool:
    """Whether models of these parts, by their names, can all start as a linear one: Gaussian ones of complete data."""
    return not (missing or "flow" in posteriors or any("bernoulli" in name for name in likelihoods))
