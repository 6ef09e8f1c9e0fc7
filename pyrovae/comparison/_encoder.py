"""Training encoders again at the trained model, if the settings ask for it."""

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
    """The better guide on validation data, and its gain as a column of the table; without epochs, the given guide."""
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
