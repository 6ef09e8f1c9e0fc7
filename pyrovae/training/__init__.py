"""Training."""

from pyrovae.training.history import EpochRecord, History
from pyrovae.training.loop import NonFiniteLossError, check_learning_rate, fit
from pyrovae.training.schedules import SCHEDULES, as_schedule, linear_warmup

__all__ = [
    "SCHEDULES",
    "EpochRecord",
    "History",
    "NonFiniteLossError",
    "as_schedule",
    "check_learning_rate",
    "fit",
    "linear_warmup",
]
