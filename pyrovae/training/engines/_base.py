"""Base of the engines: the programs that they train, and a state that each engine can load from the other."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from numpy import float64
from numpy.typing import NDArray
from pyro.infer import ELBO
from torch import Tensor

from pyrovae.programs import Pair, module_buffers
from pyrovae.randomness import random_state
from pyrovae.training._batches import Order
from pyrovae.training._losses import NonFiniteStepError
from pyrovae.training.history import SavedState
from pyrovae.training.settings import Engine, TrainingSettings

if TYPE_CHECKING:
    from jax import Array

Tensors = list[Tensor]
Values: TypeAlias = "Sequence[Tensor | Array]"
State: TypeAlias = tuple[Values, Values, Values, Values]
"""Parameters and Adam's two moments, each (R, …), then the programs' buffers: tensors, or JAX's arrays."""


class StepEngine(ABC):
    """An engine makes the steps of a training run.

    Args:
        pairs: (model, guide) of each replica.
        elbo: the estimator.
        parameters: each replica's leaf tensors to train, in the same order.
        settings: settings of the training; replica r draws its noise from seed + r.

    Attributes:
        name: its name.
        steps: number of steps made.
        errors: why replicas stopped, by replica.
    """

    name: Engine

    def __init__(
        self, pairs: Sequence[Pair], elbo: ELBO, parameters: Sequence[Tensors], settings: TrainingSettings
    ) -> None:
        self.pairs, self.elbo, self.settings = list(pairs), elbo, settings
        self.parameters = [list(of_replica) for of_replica in parameters]
        self.steps = 0
        self.errors: dict[int, NonFiniteStepError] = {}
        self.noise_states = []
        for r in range(len(pairs)):
            torch.manual_seed(settings.seed + r)
            self.noise_states.append(random_state())

    @abstractmethod
    def run(
        self, x: Tensor, batches: Order, rates: NDArray[float64], betas: NDArray[float64] | None
    ) -> Generator[NDArray[float64], None, None]:
        """Make one step for each batch of indices (R, size); yield losses (steps, R) in nats per datum.

        A replica whose loss is not finite stops with the parameters before that step, and is in ``errors``.
        """

    def tensors(self, r: int) -> Tensors:
        """Everything that training changes in a replica."""
        return [*self.parameters[r], *module_buffers(*self.pairs[r])]

    def is_finite(self, r: int) -> bool:
        """Whether all parameters of a replica are finite."""
        together = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters[r]])
        return bool(together.isfinite().all())

    @abstractmethod
    def _moments(self) -> tuple[list[Tensors], list[Tensors], list[list[int]]]:
        """Adam's two moments and numbers of steps, by replica, then by parameter."""

    @abstractmethod
    def _set_moments(self, first: list[Tensors], second: list[Tensors], counts: list[list[int]]) -> None: ...

    def state_dict(self) -> SavedState:
        """Everything that the next step depends on, copied; lists of lists are by replica, then by tensor."""
        first, second, counts = self._moments()
        return {
            "steps": self.steps,
            "errors": {r: (e.value, e.site, e.step) for r, e in self.errors.items()},
            "noise_states": [[s.clone() for s in states] for states in self.noise_states],
            "parameters": [[p.detach().clone() for p in of_replica] for of_replica in self.parameters],
            "buffers": [[b.clone() for b in module_buffers(*pair)] for pair in self.pairs],
            "first_moments": first,
            "second_moments": second,
            "counts": counts,
        }

    @torch.no_grad()
    def load_state_dict(self, state: SavedState) -> None:
        """Load a state of either engine."""
        self.steps = state["steps"]
        self.errors = {r: NonFiniteStepError(*error) for r, error in state["errors"].items()}
        self.noise_states = [[s.clone() for s in states] for states in state["noise_states"]]
        saved = zip(state["parameters"], state["buffers"], strict=True)
        for r, (parameters, buffers) in enumerate(saved):
            for tensor, value in zip(self.tensors(r), [*parameters, *buffers], strict=True):
                tensor.copy_(value)
        self._set_moments(state["first_moments"], state["second_moments"], state["counts"])
