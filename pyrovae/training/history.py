"""What a training run leaves behind."""

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of the run of a seed: losses are −ELBO estimates in nats per datum."""

    epoch: int
    loss: float
    validation_loss: float
    learning_rate: float
    beta: float
    seconds: float
    seed: int = 0


@dataclass(repr=False)
class History:
    """Losses of a training run, −ELBO estimates in nats per datum.

    Attributes:
        epochs: one record an epoch.
        batch_loss: one loss a step.
        best_epoch: the epoch whose state was kept, where there was a validation set; 0 is the start.
        engine: what made the steps: ``"eager"``, ``"compiled"``, or ``"graph"`` for replicas in one program that
            was not compiled.
    """

    epochs: list[EpochRecord] = field(default_factory=list)
    batch_loss: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    engine: str = ""

    def __repr__(self) -> str:
        last = f", loss {self.epochs[-1].loss:.4f} nats/datum" if self.epochs else ""
        return f"History({len(self.epochs)} epochs, {self.steps} steps{last}, engine={self.engine!r})"

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return len(self.batch_loss)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the training."""
        return self.epochs[-1].seconds if self.epochs else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Its content as plain values."""
        return {**vars(self), "epochs": [vars(record) for record in self.epochs], "batch_loss": list(self.batch_loss)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what :meth:`state_dict` gave, but for the engine."""
        self.epochs = [EpochRecord(**record) for record in state["epochs"]]
        self.batch_loss, self.best_epoch = list(state["batch_loss"]), state["best_epoch"]

    def to_frame(self) -> pd.DataFrame:
        """One row an epoch."""
        return pd.DataFrame([vars(record) for record in self.epochs])


def mean_loss(batch_losses: list[float], num: int, batch_size: int) -> float:
    """Mean over the data of an epoch, whose last batch may be smaller."""
    sizes = [batch_size] * (len(batch_losses) - 1)
    sizes.append(num - sum(sizes))
    return math.fsum(loss * size for loss, size in zip(batch_losses, sizes, strict=True)) / num
