"""The settings of a training run, checked once, and what they say of each step."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrovae.training.schedules import Schedule, as_schedule


@dataclass(frozen=True)
class Settings:
    """How to train; the arguments of :func:`~pyrovae.fit`."""

    epochs: int
    batch_size: int = 32
    learning_rate: float | Schedule = 1e-3
    schedule: str | Schedule = "cosine"
    weight_decay: float = 0.0
    clip_norm: float | None = None
    beta: float | Schedule | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        check_learning_rate(self.learning_rate)
        as_schedule(self.schedule)
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be a finite number ≥ 0, not {self.weight_decay!r}")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ValueError(f"clip_norm must be a positive number or None, not {self.clip_norm!r}")
        if self.beta is not None and not callable(self.beta) and not 0 <= self.beta < math.inf:
            raise ValueError(f"beta must be a finite number ≥ 0 or a schedule, not {self.beta!r}")

    def rates(self, first: int, last: int, total: int) -> NDArray[np.float64]:
        """Learning rates of steps ``first`` to ``last`` − 1, counted from 0, of ``total``."""
        shape = as_schedule(self.schedule)
        rate = self.learning_rate
        done = [step / total for step in range(first, last)]
        return np.array([shape(p) * (rate(p) if callable(rate) else rate) for p in done])

    def betas(self, first: int, last: int, total: int) -> NDArray[np.float64] | None:
        """Values of β for these steps; None where it is the estimator's own."""
        if self.beta is None:
            return None
        if not callable(self.beta):
            return np.full(last - first, float(self.beta))
        return np.array([float(self.beta(step / total)) for step in range(first, last)])

    @property
    def final_beta(self) -> float | None:
        """The β that the training ends at; None where it is the estimator's own."""
        if self.beta is None:
            return None
        return float(self.beta(1.0)) if callable(self.beta) else float(self.beta)


def check_learning_rate(learning_rate: float | Schedule) -> None:
    """Raise a ValueError unless it is a positive number or a schedule."""
    if not callable(learning_rate) and not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a positive number or a schedule, not {learning_rate!r}")
