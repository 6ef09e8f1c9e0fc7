"""The member of a Gaussian family closest to a Gaussian, by minimisation from several starts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyrovae.distributions import covariance_of

if TYPE_CHECKING:
    from pyrovae.posteriors.base import Posterior


def closest_values(head: Posterior, precision: Tensor, num_starts: int = 4) -> Tensor:
    """The bias of a head's ``covariance_head`` that minimises KL(q ‖ N(0, P⁻¹)) at features 0: the best of the starts.

    Args:
        head: of a Gaussian family; it stays as it is.
        precision: P, shape (d, d), float64.
        num_starts: of the minimisation.
    """
    head = copy.deepcopy(head).double().requires_grad_(False)

    def kl(values: Tensor) -> Tensor:
        q = head.constant(values)
        return 0.5 * (precision * covariance_of(q)).sum() - q.entropy()

    zeros = torch.zeros_like(head.covariance_head.bias)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        starts = [zeros, *(torch.randn_like(zeros) for _ in range(num_starts - 1))]
    return minimise(kl, starts)


def minimise(function: Callable[[Tensor], Tensor], starts: list[Tensor], max_steps: int = 1000) -> Tensor:
    """Where a differentiable function of a float64 vector is smallest: the best of several minimisations by L-BFGS."""
    from scipy.optimize import minimize

    def value_and_slope(values: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            at = torch.from_numpy(values).requires_grad_()
            value = function(at)
            (slope,) = torch.autograd.grad(value, at)
        return value.item(), slope.numpy()

    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "ftol": 1e-15, "gtol": 1e-10}
    fits = [minimize(value_and_slope, s.detach().numpy(), jac=True, method="L-BFGS-B", options=options) for s in starts]
    return torch.from_numpy(min(fits, key=lambda fit: fit.fun).x)
