"""Minimisation of a differentiable function by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult


def minimise(
    function: Callable[[Tensor], Tensor], starts: list[Tensor], max_steps: int = 1000, **options: float
) -> OptimizeResult:
    """Where a differentiable function of a float64 vector is smallest: the best of several minimisations, as scipy's.

    Args:
        function: of a vector, to a scalar.
        starts: of the minimisations.
        max_steps: of each.
        **options: scipy's, of L-BFGS-B.
    """
    from scipy.optimize import minimize

    def value_and_slope(values: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            at = torch.from_numpy(values).requires_grad_()
            value = function(at)
            (slope,) = torch.autograd.grad(value, at)
        return value.item(), slope.numpy()

    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "ftol": 1e-15, "gtol": 1e-10, **options}
    fits = [minimize(value_and_slope, s.detach().numpy(), jac=True, method="L-BFGS-B", options=options) for s in starts]
    return min(fits, key=lambda fit: fit.fun)
