"""Schedules: functions of the training's progress, from 0 at the first step towards 1 at the last."""

import math
from collections.abc import Callable

from pyrovae.errors import InputError

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear_warmup(fraction: float) -> Schedule:
    """From 0 to 1 in a straight line over the first ``fraction`` of the training, then 1.

    Example:
        >>> warmup = linear_warmup(0.5)
        >>> warmup(0.0), warmup(0.25), warmup(0.9)
        (0.0, 0.5, 1.0)
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction must be in (0, 1], not {fraction!r}")
    return lambda progress: min(1.0, progress / fraction)


SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "constant": constant}
"""Schedules of the learning rate by name."""


def as_schedule(schedule: str | Schedule) -> Schedule:
    """The schedule of that name, or the callable itself."""
    if callable(schedule):
        return schedule
    if schedule not in SCHEDULES:
        raise InputError(f"unknown schedule {schedule!r}; choose one of {', '.join(SCHEDULES)}, or give a callable")
    return SCHEDULES[schedule]
