"""The engines that make a training's steps."""

from pyrovae.training.engines._draws import CannotTraceError
from pyrovae.training.engines._xla import CannotCompileError

__all__ = ["CannotCompileError", "CannotTraceError"]
