"""Interface of a function that trains the encoder again after a training run."""

from pathlib import Path
from typing import Protocol, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from pyrovae.errors import InputError, InputTypeError
from pyrovae.programs import Program
from pyrovae.training.history import History


class FoundEncoder(Protocol):
    """Its result."""

    @property
    def guide(self) -> nn.Module:
        """The guide to use."""


class RefitKeywords(TypedDict):
    """How :func:`~pyrovae.fit` calls it."""

    seed: int
    checkpoint: Path | None
    progress: bool


class RefitsEncoder(Protocol):
    """A function such as :func:`~pyrovae.refit_encoder`; it does not change the given programs."""

    def __call__(
        self, model: Program, guide: Program, x_train: Tensor, /, *, validation: Tensor, **how: Unpack[RefitKeywords]
    ) -> FoundEncoder:
        """Train the encoder again."""


def check_can_refit(refit: RefitsEncoder, guide: Program, validation: Tensor | np.ndarray | None) -> None:
    """Raise an InputError if the encoder cannot be trained again after the training run."""
    if not callable(refit):
        raise InputTypeError(f"refit_encoder must be a function such as pyrovae.refit_encoder, not {refit!r}")
    if validation is None:
        raise InputError("refit_encoder chooses the encoder on validation data; give validation=")
    if not isinstance(guide, nn.Module):
        raise InputTypeError("refit_encoder needs a guide that is a module")


def refit_guide(
    refit: RefitsEncoder,
    model: Program,
    guide: Program,
    data: Tensor | np.ndarray,
    validation: Tensor | np.ndarray | None,
    history: History,
    **how: Unpack[RefitKeywords],
) -> None:
    """Copy the new parameters into the guide, and the result into the history."""
    assert validation is not None
    assert isinstance(guide, nn.Module)
    found = refit(model, guide, torch.as_tensor(data), validation=torch.as_tensor(validation), **how)
    guide.load_state_dict(found.guide.state_dict())
    history.refit = found
