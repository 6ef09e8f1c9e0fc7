"""What trains the encoder again after a training; training knows of none, and is given one."""

from pathlib import Path
from typing import Protocol, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from pyrovae.errors import InputError, InputTypeError
from pyrovae.programs import Program
from pyrovae.training.history import History


class FoundEncoder(Protocol):
    """What came of it."""

    @property
    def guide(self) -> nn.Module:
        """The guide to take."""


class RefitKeywords(TypedDict):
    """How :func:`~pyrovae.fit` wants it done."""

    seed: int
    checkpoint: Path | None
    progress: bool


class RefitsEncoder(Protocol):
    """A function such as :func:`~pyrovae.refit_encoder`; it leaves the programs that it is given as they are."""

    def __call__(
        self, model: Program, guide: Program, x_train: Tensor, /, *, validation: Tensor, **how: Unpack[RefitKeywords]
    ) -> FoundEncoder:
        """Train the encoder again."""


def check_can_refit(refit: RefitsEncoder, guide: Program, validation: Tensor | np.ndarray | None) -> None:
    """Raise an InputError where the encoder cannot be trained again after the training."""
    if not callable(refit):
        raise InputTypeError(f"refit_encoder must be a function such as pyrovae.refit_encoder, not {refit!r}")
    if validation is None:
        raise InputError("refit_encoder keeps what validation data prefer; give validation=")
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
    """Give the guide the parameters that were found, and the history what was."""
    assert validation is not None
    assert isinstance(guide, nn.Module)
    found = refit(model, guide, torch.as_tensor(data), validation=torch.as_tensor(validation), **how)
    guide.load_state_dict(found.guide.state_dict())
    history.refit = found
