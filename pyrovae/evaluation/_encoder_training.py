"""Training an encoder at a frozen model."""

import copy
from dataclasses import dataclass

import torch
from pyro.infer import ELBO
from torch.distributions import kl_divergence

from pyrovae.elbo import AnalyticELBO, MonteCarloELBO
from pyrovae.training import OptionalTrainingKeywords, TrainingSettings
from pyrovae.vae import AmortizedGuide, GenerativeModel


@dataclass(frozen=True)
class EncoderTraining(TrainingSettings):
    """How an encoder is trained at a frozen model."""

    epochs: int = 20
    """Number of passes over the data."""
    batch_size: int = 64
    """Data per step; the last batch of an epoch may be smaller."""


class EncoderTrainingKeywords(OptionalTrainingKeywords, total=False):
    """The fields of :class:`EncoderTraining`, as a type checker sees the keywords of a function."""

    epochs: int


class FrozenModel:
    """A model that training cannot change: neither parameters nor dropout nor running statistics.

    It is not a module, so training neither changes its mode nor finds its parameters.

    Args:
        model: a copy of it is frozen.
        device: where to put it; None: where it is.
    """

    def __init__(self, model: GenerativeModel, device: str | torch.device | None = None) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        if device is not None:
            self.model.to(device)
        self.missing = model.missing

    def __call__(self, x: object) -> object:
        return self.model(x)

    def check_support(self, name: str, x: object) -> None:
        """Raise an InputError that names the first value of x that the likelihood cannot score."""
        self.model.check_support(name, x)  # type: ignore[arg-type]


@torch.no_grad()
def encoder_elbo(model: GenerativeModel, guide: AmortizedGuide) -> ELBO:
    """The estimator to train an encoder with: the KL in closed form where there is one."""
    head = guide.posterior_head
    try:
        like = next(head.parameters())
        kl_divergence(head(like.new_zeros(1, head.in_features)), model.prior_distribution())
    except NotImplementedError:
        return MonteCarloELBO()
    return AnalyticELBO()
