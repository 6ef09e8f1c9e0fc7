"""Training."""

from pyrovae.training.history import EpochRecord, History
from pyrovae.training.loop import NonFiniteLossError, fit
from pyrovae.training.schedules import SCHEDULES, linear_warmup

__all__ = ["SCHEDULES", "EpochRecord", "History", "NonFiniteLossError", "fit", "linear_warmup"]
