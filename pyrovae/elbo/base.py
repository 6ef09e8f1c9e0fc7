"""What the estimators share: β, and the nesting of plates set rather than guessed."""

import math
from collections.abc import Callable
from typing import Any

from pyro.infer import Trace_ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor


class LatentScaleMessenger(Messenger):
    """Multiply the log-density scale of every *latent* site by β, 0 included; leave observations alone."""

    def __init__(self, beta: float | Tensor) -> None:
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = self.beta * msg["scale"]


class BetaELBO(Trace_ELBO):
    """Trace_ELBO with β, the weight of the latent sites' terms.

    β belongs to the estimator: written into the programs with ``poutine.scale`` it is ignored or
    wrong for some pairs, and 0 is refused.

    Args:
        beta: weight of the KL part, ≥ 0; 1 gives the evidence lower bound.
        num_particles: number of draws from the guide.
        vectorize_particles: whether to draw them in one pass.
        max_plate_nesting: depth of the programs' own plates.
    """

    def __init__(
        self,
        beta: float = 1.0,
        *,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int = 1,
    ) -> None:
        if not isinstance(beta, int | float) or isinstance(beta, bool) or not 0 <= beta < math.inf:
            raise ValueError(f"beta must be a finite number ≥ 0, not {beta!r}")
        if not isinstance(num_particles, int) or num_particles < 1:
            raise ValueError(f"num_particles must be a positive integer, not {num_particles!r}")
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
        )
        self.beta: float | Tensor = float(beta)

    def _weigh(self, program: Callable[..., Any]) -> Callable[..., Any]:
        return program if isinstance(self.beta, float) and self.beta == 1 else LatentScaleMessenger(self.beta)(program)

    def _get_trace(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        return super()._get_trace(self._weigh(model), self._weigh(guide), args, kwargs)
