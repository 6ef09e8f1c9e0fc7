"""Minimisation of a differentiable function by L-BFGS."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult


_END: ContextVar[float] = ContextVar("end", default=math.inf)


class OutOfTimeError(Exception):
    """A fit did not end in time."""


@contextmanager
def ending_by(end: float) -> Iterator[None]:
    """Fits inside of it raise an :class:`OutOfTimeError` after this time of ``time.perf_counter``."""
    token = _END.set(end)
    try:
        yield
    finally:
        _END.reset(token)


def check_time() -> None:
    """Raise an OutOfTimeError if the time of :func:`ending_by` has come."""
    if time.perf_counter() > _END.get():
        raise OutOfTimeError


def minimise(
    function: Callable[[Tensor], Tensor], starts: list[Tensor], max_steps: int = 1000, **options: float
) -> OptimizeResult:
    """Minimum of a differentiable function of a float64 vector: the best of several minimisations, as scipy's result.

    Args:
        function: maps a vector to a scalar.
        starts: one starting point per minimisation.
        max_steps: most steps of each minimisation.
        **options: scipy's options of L-BFGS-B.

    Raises:
        OutOfTimeError: see :func:`ending_by`.
    """
    from scipy.optimize import minimize

    def value_and_slope(values: np.ndarray) -> tuple[float, np.ndarray]:
        check_time()
        with torch.enable_grad():
            at = torch.from_numpy(values).requires_grad_()
            value = function(at)
            (slope,) = torch.autograd.grad(value, at)
        return value.item(), slope.numpy()

    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "ftol": 1e-15, "gtol": 1e-10, **options}
    fits = [minimize(value_and_slope, s.detach().numpy(), jac=True, method="L-BFGS-B", options=options) for s in starts]
    return min(fits, key=lambda fit: fit.fun)
