"""Numbers that become positive scales."""

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import SoftplusTransform

from pyrovae.errors import InputError

FLOOR = 1e-6
"""Smallest scale of :func:`positive`."""


def positive(raw: Tensor, floor: float = FLOOR) -> Tensor:
    """softplus(raw) + floor: a scale that cannot reach 0, where its logarithm would be −∞."""
    return F.softplus(raw) + floor


def inverse_positive(scale: Tensor) -> Tensor:
    """Inverse of :func:`positive` with its own floor.

    Raises:
        InputError: a scale that is not above the floor.
    """
    if not (scale > FLOOR).all():
        raise InputError(f"a scale of {scale.min().item():.2g} is below {FLOOR:.0e}, the smallest value of a head")
    return softplus_inverse(scale - FLOOR)


def softplus_inverse(y: Tensor) -> Tensor:
    """The x with softplus(x) = y > 0."""
    x: Tensor = SoftplusTransform().inv(y)
    return x
