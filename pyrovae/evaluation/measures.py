"""A criterion for choosing an epoch or a learning rate."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.errors import check_integer
from pyrovae.evaluation.refine import refine
from pyrovae.programs import Program


@dataclass(frozen=True)
class RefinedELBO:
    """A measure for :func:`~pyrovae.fit`: the mean ELBO of validation data under posteriors refined datum by datum.

    An encoder overfits before the model does: its ELBO on new data falls long before log p(x) does.
    :func:`~pyrovae.refine` replaces the encoder's q, so that the choice is best for the model. To choose the best
    guide, use the guide's ELBO, the default of ``fit``.

    Raises:
        InputError: a number is too small.

    Example:
        >>> import pyrovae as pv
        >>> model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2)
        >>> guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
        >>> x, measure = model.sample(80), RefinedELBO(num_data=20)
        >>> how = {"validation": x[60:], "measure": measure, "validate_every": 2, "epochs": 4, "progress": False}
        >>> history = pv.fit(model, guide, x[:60], pv.AnalyticELBO(), **how)
        >>> measure(model, guide, x[60:]) == -history.best_loss
        True
    """

    num_data: int = 64
    """Number of validation data that are refined, evenly spread."""
    num_steps: int = 2
    """Of :func:`~pyrovae.refine`."""
    num_draws: int = 4
    """Draws of z per datum and step."""

    def __post_init__(self) -> None:
        check_integer("num_data", self.num_data)
        check_integer("num_steps", self.num_steps)
        check_integer("num_draws", self.num_draws, least=2)

    def __call__(self, model: Program, guide: Program, x: Tensor) -> float:
        """Nats per datum; higher is better."""
        rows = torch.linspace(0, len(x) - 1, min(self.num_data, len(x))).round().long().to(x.device)
        return refine(model, guide, x[rows], num_steps=self.num_steps, num_draws=self.num_draws).elbo.mean
