"""Weighted draws from p(z|x), from proposals refined datum by datum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.errors import check_integer
from pyrovae.evaluation._method import problem_of
from pyrovae.evaluation._pareto import reliable_below, tail_of
from pyrovae.evaluation.automatic import proposals
from pyrovae.evaluation.importance import in_chunks
from pyrovae.evaluation.refine import target_for
from pyrovae.programs import Program


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws of z for each datum, with weights that make them draws from p(z|x).

    Attributes:
        z: shape (num, num_samples, d), in float64. For other programs than GenerativeModel, all latents of a datum,
            unconstrained, one site after the other.
        log_weights: log p(x, z) − log q(z|x), shape (num, num_samples); the log of their mean estimates log p(x).
        pareto_k: shape k̂ of the tail of each datum's weights, shape (num,).
    """

    z: Tensor
    log_weights: Tensor
    pareto_k: Tensor

    @property
    def weights(self) -> Tensor:
        """Weights that sum to 1 over the draws of a datum, shape (num, num_samples)."""
        return self.log_weights.softmax(-1)

    @property
    def reliable(self) -> Tensor:
        """Which weighted means are reliable, booleans of shape (num,): k̂ is small enough for the number of draws."""
        return self.pareto_k <= reliable_below(self.z.shape[1])


def posterior_draws(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_samples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> PosteriorDraws:
    """Draw z for each datum from a refined q(z|x), and weight the draws by p(x, z)/q(z|x).

    The proposals are those of :func:`~pyrovae.log_marginal`'s second step: the guide's q, refined datum by datum
    (:func:`~pyrovae.refine`) and slightly widened, with the other modes found.

    Args:
        model: Pyro program of the joint density, with the data along a plate.
        guide: Pyro program of q(z|x), reparameterised.
        x: data (num, …), on the programs' device.
        num_samples: draws for each datum, at least the 25 that k̂ needs.
        seed: seed of the draws; the caller's random state does not change.
        progress: whether to show a progress bar (on a terminal).

    Raises:
        InputError: the programs cannot evaluate the data, or there are too few draws.

    Example:
        >>> import pyrovae as pv
        >>> model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2)
        >>> guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
        >>> draws = posterior_draws(model, guide, model.sample(10), num_samples=100)
        >>> draws.z.shape, draws.weights.sum(-1).allclose(torch.ones(10).double())
        (torch.Size([10, 100, 2]), True)
    """
    check_integer("num_samples", num_samples, least=25)
    with problem_of(model, guide, x, seed, progress=progress, part_for="posterior_draws") as problem:
        q, _ = proposals(problem)

        def weigh(rows: slice) -> tuple[Tensor, Tensor]:
            target = target_for(problem, rows)
            z, log_q = q.of(rows).sample(num_samples)
            joint = torch.cat([target.log_joint(some) for some in z.split(max(1, problem.rows_at_once // target.num))])
            return z.movedim(1, 0).cpu(), (joint - log_q).T.double().cpu()

        z, log_weights = in_chunks(weigh, problem.x, min(1024, problem.rows_at_once), progress)
    return PosteriorDraws(z, log_weights, tail_of(log_weights.T).k)
