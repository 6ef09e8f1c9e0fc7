"""The settings of a training run, declared once, and what they say of each step."""

import math
from dataclasses import dataclass
from typing import Required, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.errors import InputError, check_choice, check_integer
from pyrovae.training._batches import Transform
from pyrovae.training.schedules import Schedule, as_schedule

ENGINES = ("auto", "eager", "compiled")
"""The engines by name."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train: the keywords of :func:`~pyrovae.fit`, checked when made."""

    epochs: int
    """Number of passes over the data."""
    batch_size: int = 32
    """Data per step; the last batch of an epoch may be smaller."""
    learning_rate: float | Schedule = 1e-3
    """Adam's rate at the schedule's value 1, or itself a function of the progress in [0, 1)."""
    schedule: str | Schedule = "cosine"
    """Of the learning rate: cosine (to zero), constant, or a function of the progress."""
    weight_decay: float = 0.0
    """AdamW's decoupled decay of the parameters, as a share of the rate."""
    clip_norm: float | None = None
    """Euclidean norm that a gradient (of the loss summed over the batch) is clipped to."""
    beta: float | Schedule | None = None
    """Weight of the KL part, a number or a function of the progress; None leaves the estimator's."""
    seed: int = 0
    """Of the batches and of the noise; the caller's random state is left as it was."""
    transform: Transform | None = None
    """A function of the data and of a random generator, called at the start of each epoch: its batches are taken from
    what it returns, of the same shape and dtype. It does not touch the validation data."""
    engine: str = "auto"
    """auto, eager or compiled."""
    device: str | torch.device | None = None
    """Where to train; None: where the parameters are."""
    strict: bool = False
    """Refuse an estimator that would fall back to sampling."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            check_integer(name, getattr(self, name))
        check_learning_rate(self.learning_rate)
        as_schedule(self.schedule)
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be a finite number ≥ 0, not {self.weight_decay!r}")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise InputError(f"clip_norm must be a positive number or None, not {self.clip_norm!r}")
        if self.beta is not None and not callable(self.beta) and not 0 <= self.beta < math.inf:
            raise InputError(f"beta must be a finite number ≥ 0 or a schedule, not {self.beta!r}")
        check_choice("engine", self.engine, ENGINES)

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


class OptionalTrainingKeywords(TypedDict, total=False):
    """The fields of :class:`TrainingSettings` that have a default."""

    batch_size: int
    learning_rate: float | Schedule
    schedule: str | Schedule
    weight_decay: float
    clip_norm: float | None
    beta: float | Schedule | None
    seed: int
    transform: Transform | None
    engine: str
    device: str | torch.device | None
    strict: bool


class TrainingKeywords(OptionalTrainingKeywords, total=False):
    """The fields of :class:`TrainingSettings`, as a type checker sees the keywords of a function."""

    epochs: Required[int]


def check_learning_rate(learning_rate: float | Schedule) -> None:
    """Raise an InputError unless it is a positive number or a schedule."""
    if not callable(learning_rate) and not 0 < learning_rate < math.inf:
        raise InputError(f"learning_rate must be a positive number or a schedule, not {learning_rate!r}")
