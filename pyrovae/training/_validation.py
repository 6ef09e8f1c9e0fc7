"""The loss on validation data, and the best state by it."""

import math
from collections.abc import Callable, Iterable

import torch
from pyro.infer import ELBO
from torch import Tensor

from pyrovae.programs import Pair
from pyrovae.training import processes
from pyrovae.training._losses import evaluate_loss, evaluate_measure
from pyrovae.training.history import History
from pyrovae.training.settings import TrainingSettings

Best = dict[int, tuple[float, list[Tensor]]]
"""The best loss of each replica, and everything that training changes in it, as it was then."""


class Validation:
    """Evaluate replicas on validation data, and keep the best state of each.

    Args:
        x: data (num, …); without any, every loss is NaN and nothing is kept.
        elbo: the estimator.
        settings: settings of the training: its measure, and the seed of replica 0.
        tensors: everything that training changes in a replica, by the replica's number.
    """

    def __init__(
        self, x: Tensor | None, elbo: ELBO, settings: TrainingSettings, tensors: Callable[[int], Iterable[Tensor]]
    ) -> None:
        self.x, self.elbo, self.settings, self.tensors = x, elbo, settings, tensors
        self.best: Best = {}

    def __call__(self, r: int, pair: Pair, history: History, epoch: int, full_size: int | None) -> float:
        """Loss of a replica, in nats per datum; if it is the best so far, keep its state and note the epoch."""
        if self.x is None:
            return math.nan
        loss = processes.from_first(lambda: self._loss(r, pair, full_size))
        if loss < self.best.get(r, (math.inf, []))[0]:
            history.best_epoch, history.best_loss = epoch, loss
            self.best[r] = (loss, [t.detach().clone() for t in self.tensors(r)])
        return loss

    def _loss(self, r: int, pair: Pair, full_size: int | None) -> float:
        assert self.x is not None
        measure, seed = self.settings.measure, self.settings.seed + r
        if measure is None:
            return evaluate_loss(*pair, self.x, self.elbo, seed, full_size=full_size)
        loss = -evaluate_measure(*pair, self.x, measure, seed)
        for tensor in self.tensors(r):
            tensor.grad = None  # a measure may differentiate
        return loss

    @torch.no_grad()
    def restore_best(self) -> None:
        """Give each replica its best state."""
        for r, (_, best) in self.best.items():
            for tensor, value in zip(self.tensors(r), best, strict=True):
                tensor.copy_(value)

    def state_dict(self) -> Best:
        """The best losses and states, copied."""
        return _copied(self.best)

    def load_state_dict(self, state: Best) -> None:
        """Load a state of :meth:`state_dict`."""
        self.best = _copied(state)


def _copied(best: Best) -> Best:
    """A copy that shares no tensor."""
    return {r: (loss, [t.clone() for t in tensors]) for r, (loss, tensors) in best.items()}
