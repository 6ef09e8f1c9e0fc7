"""Training an encoder at a frozen decoder."""

import copy
from dataclasses import dataclass

import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.elbo import AnalyticELBO, MonteCarloELBO
from pyrovae.evaluation.per_datum import Family
from pyrovae.posteriors import Posterior
from pyrovae.training import OptionalTrainingKeywords, Trainer, TrainingSettings
from pyrovae.vae import AmortizedGuide, GenerativeModel


@dataclass(frozen=True)
class EncoderTraining(TrainingSettings):
    """How :func:`inference_gaps` trains an encoder at the frozen decoder."""

    epochs: int = 20
    """Number of passes over the training data."""
    batch_size: int = 64
    """Data per step; the last batch of an epoch may be smaller."""


class EncoderTrainingKeywords(OptionalTrainingKeywords, total=False):
    """The fields of :class:`EncoderTraining`, as a type checker sees the keywords of a function."""

    epochs: int


def train_encoder(
    model: GenerativeModel,
    guide: AmortizedGuide,
    family: Family,
    train: Tensor,
    settings: TrainingSettings,
    progress: bool,
) -> AmortizedGuide:
    """Train an encoder of that family at the frozen decoder, from a copy of the guide's encoder."""
    old = guide.posterior_head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        head = family(old.in_features, model.latent_dim).to(next(old.parameters()))
    if same_family(head, old):
        head.load_state_dict(old.state_dict())
    trained = AmortizedGuide(copy.deepcopy(guide.encoder), head)
    elbo: ELBO = AnalyticELBO() if _has_closed_form(head, model) else MonteCarloELBO()

    def frozen(x: Tensor) -> object:
        """The model out of training's reach: no dropout, no running statistics."""
        return model(x)

    Trainer([(frozen, trained)], train, elbo, settings, progress=progress).run()
    return trained.eval()


def same_family(head: Posterior, other: Posterior) -> bool:
    """Whether two heads are alike but for the width of their features."""
    first, second = ({**h.config(), "in_features": None} for h in (head, other))
    return type(head) is type(other) and first == second


@torch.no_grad()
def _has_closed_form(head: Posterior, model: GenerativeModel) -> bool:
    try:
        kl_divergence(head(next(head.parameters()).new_zeros(1, head.in_features)), model.prior_distribution())
    except NotImplementedError:
        return False
    return True
