"""Encoders that are trained again at the trained model, where the settings ask for it."""

from pathlib import Path

from torch import Tensor

from pyrovae.evaluation import refit_encoder
from pyrovae.training import TrainingSettings
from pyrovae.vae import AmortizedGuide, GenerativeModel


def with_better_encoder(
    model: GenerativeModel,
    guide: AmortizedGuide,
    train: Tensor,
    validation: Tensor | None,
    epochs: int,
    training: TrainingSettings,
    *,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> tuple[AmortizedGuide, dict[str, object]]:
    """The guide that validation data prefer, and what they gained as a column of the table; for no epochs the same."""
    if not epochs or validation is None:
        return guide, {}
    found = refit_encoder(
        model,
        guide,
        train,
        validation=validation,
        checkpoint=checkpoint,
        epochs=epochs,
        seed=training.seed,
        engine=training.engine,
        progress=progress,
    )
    return found.guide, {"encoder_gain": found.gain.mean}
