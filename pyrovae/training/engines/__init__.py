"""The engines that make a training's steps."""

from pyrovae.training.engines._ahead_of_time import CannotCompileError
from pyrovae.training.engines._draws import CannotTraceError

__all__ = ["CannotCompileError", "CannotTraceError"]
