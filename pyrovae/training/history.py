"""The record of a training run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


SavedState = dict[str, Any]
"""The saved state of a part of a run: plain values and tensors, in lists and dicts of these."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a run: losses are −ELBO estimates in nats per datum.

    With a user's measure, ``validation_loss`` is its negative. It is NaN in epochs without validation.
    """

    epoch: int
    loss: float
    validation_loss: float
    learning_rate: float
    beta: float
    seconds: float
    seed: int = 0


@dataclass(frozen=True)
class ChunkRecord:
    """Steps that an engine made at once: one by one if eager, up to an epoch's if compiled.

    Attributes:
        steps: number of steps made so far, these included.
        losses: one loss per step, −ELBO estimates in nats per datum.
        seed: of the replica.
    """

    steps: int
    losses: tuple[float, ...]
    seed: int = 0


@dataclass(repr=False)
class History:
    """Losses of a training run, −ELBO estimates in nats per datum.

    Attributes:
        epochs: one record per epoch.
        batch_loss: one loss per step.
        best_epoch: with validation data, the epoch whose state was kept; 0 is the start.
        best_loss: the validation loss of that epoch.
        refit: the result of ``fit(refit_encoder=…)``; None without it.
        engine: the :class:`~pyrovae.training.Engine` that ran: ``"eager"``, ``"compiled"``, or ``"graph"`` for programs
            that were traced but not compiled.
    """

    epochs: list[EpochRecord] = field(default_factory=list)
    batch_loss: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    engine: str = ""
    best_loss: float | None = None
    refit: object = field(default=None, repr=False)

    def __repr__(self) -> str:
        last = f", loss {self.epochs[-1].loss:.4f} nats per datum" if self.epochs else ""
        return f"History({len(self.epochs)} epochs, {self.steps} steps{last}, engine={str(self.engine)!r})"

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return len(self.batch_loss)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the training."""
        return self.epochs[-1].seconds if self.epochs else 0.0

    def state_dict(self) -> SavedState:
        """Its content as plain values."""
        return {
            "epochs": [asdict(record) for record in self.epochs],
            "batch_loss": list(self.batch_loss),
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "engine": str(self.engine),
        }

    def load_state_dict(self, state: SavedState) -> None:
        """Load a result of :meth:`state_dict`, except the engine."""
        self.epochs = [EpochRecord(**record) for record in state["epochs"]]
        self.batch_loss, self.best_epoch = list(state["batch_loss"]), state["best_epoch"]
        self.best_loss = state.get("best_loss")

    def to_frame(self) -> pd.DataFrame:
        """One row per epoch."""
        import pandas as pd

        return pd.DataFrame([asdict(record) for record in self.epochs])


def mean_loss(batch_losses: list[float], num: int, batch_size: int) -> float:
    """Mean over the data of an epoch, whose last batch may be smaller."""
    sizes = [batch_size] * (len(batch_losses) - 1)
    sizes.append(num - sum(sizes))
    return math.fsum(loss * size for loss, size in zip(batch_losses, sizes, strict=True)) / num
