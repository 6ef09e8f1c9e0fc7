"""Training the encoder again at a frozen model, on data that it cannot overfit."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Unpack

from torch import Tensor

from pyrovae.blocks import some_of
from pyrovae.errors import InputError, InputTypeError, check_integer
from pyrovae.evaluation._encoder_data import Draws, Jittered
from pyrovae.evaluation._encoder_training import EncoderTraining, EncoderTrainingKeywords, FrozenModel, encoder_elbo
from pyrovae.evaluation.estimate import Estimate
from pyrovae.evaluation.importance import elbo_estimate
from pyrovae.frames import Data, tensor_of
from pyrovae.keywords import accepts
from pyrovae.programs import as_data
from pyrovae.progress import progress_bar
from pyrovae.training import Checkpoints, EpochRecord, Trainer, Transform
from pyrovae.vae import AmortizedGuide, GenerativeModel

NUM_DRAWS = 20_000
"""Data in each epoch."""


class EncoderStage(StrEnum):
    """An encoder that :func:`refit_encoder` chooses from."""

    ORIGINAL = "original"
    """The given encoder."""
    DRAWS = "draws"
    """Trained on draws from the model."""
    JITTERED = "jittered"
    """Trained further on jittered training data mixed with such draws."""


@dataclass(frozen=True)
class EncoderRefitting(EncoderTraining):
    """How :func:`refit_encoder` trains: :class:`~pyrovae.TrainingSettings` with other defaults."""

    epochs: int = 100
    """Number of passes over the draws in each stage, new draws each time."""
    learning_rate: float | Callable[[float], float] = 3e-3
    """Adam's rate at the schedule's value 1, or itself a function of the progress in [0, 1)."""


@dataclass(frozen=True, repr=False)
class RefittedEncoder:
    """The result of :func:`refit_encoder`.

    Attributes:
        guide: the guide with the largest ELBO on the validation data; a copy of the given one if no other is better.
        stage: which it is.
        elbo: the ELBO of the validation data under the guide of each stage, nats per datum, in the stages' order.
    """

    guide: AmortizedGuide = field(compare=False)
    stage: EncoderStage
    elbo: dict[EncoderStage, Estimate]

    @property
    def gain(self) -> Estimate:
        """ELBO of the new guide − ELBO of the original one, on the validation data, datum by datum."""
        return self.elbo[self.stage] - self.elbo[EncoderStage.ORIGINAL]

    def __repr__(self) -> str:
        return f"RefittedEncoder({self})"

    def __str__(self) -> str:
        each = ", ".join(f"{stage} {found.mean:.6g}" for stage, found in self.elbo.items())
        return f"ELBO of the validation data in nats per datum: {each}; kept: {self.stage}"


@accepts(EncoderRefitting, omit=("transform", "measure"))
def refit_encoder(
    model: GenerativeModel,
    guide: AmortizedGuide,
    x_train: Data | None = None,
    *,
    validation: Data,
    num_draws: int = NUM_DRAWS,
    num_samples: int = 64,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    **training: Unpack[EncoderTrainingKeywords],
) -> RefittedEncoder:
    """Train the encoder again at the frozen model, and keep the best one on validation data.

    An encoder overfits the training data long before the model does. The first stage trains it on draws x ~ p(x) of the
    frozen model, new ones in every epoch, which it cannot overfit (the sleep phase's data with the wake phase's loss:
    Hinton et al. 1995). Real data differ from a model's draws. So a second stage continues with training data, jittered
    anew in every epoch, and a quarter draws. Data move towards one another, along the differences between other data's
    latents, by residuals of other data, and by noise. If a jittered datum would be outside the likelihood's support (a
    pixel that is neither 0 nor 1), a random share of its values is drawn from p(x|z) at its z instead.

    Args:
        model: the generative model; it does not change.
        guide: its guide, where the training starts; it does not change.
        x_train: data (num, n) that trained the model and the guide; without them there is no second stage. Of data that
            lie in a file, rows of 64 MiB are used that are evenly spread over it.
        validation: data (num, n) whose ELBO chooses the best epoch of each stage and the best stage, the original guide
            included. Do not report results on these data.
        num_draws: data in each epoch.
        num_samples: draws of z per validation datum for the reported ELBO.
        checkpoint: a folder for the states of the training; the same call resumes from them, see :func:`~pyrovae.fit`.
        progress: whether to show a progress bar (on a terminal).
        **training: the fields of :class:`~pyrovae.TrainingSettings`, by default 100 ``epochs`` a stage with a
            ``batch_size`` of 64 and a ``learning_rate`` of 3e-3. ``seed`` is the seed of everything random here; the
            caller's random state and Pyro's parameter store do not change.

    Raises:
        InputError: data that the programs cannot take, or settings that cannot be run.
        InputTypeError: programs that are not ``GenerativeModel`` and ``AmortizedGuide``.
        NonFiniteLossError: the loss became NaN or infinite.

    Example:
        >>> import pyrovae as pv
        >>> model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2)
        >>> guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
        >>> x = model.sample(60)
        >>> found = refit_encoder(model, guide, x[:40], validation=x[40:], num_draws=64, epochs=2, progress=False)
        >>> list(found.elbo)
        [<EncoderStage.ORIGINAL: 'original'>, <EncoderStage.DRAWS: 'draws'>, <EncoderStage.JITTERED: 'jittered'>]
        >>> found.gain.mean >= 0
        True
    """
    settings = EncoderRefitting(**training)
    if not isinstance(model, GenerativeModel) or not isinstance(guide, AmortizedGuide):
        raise InputTypeError("refit_encoder needs a GenerativeModel and an AmortizedGuide")
    check_integer("num_draws", num_draws)
    check_integer("num_samples", num_samples, least=2)
    frozen, trained = FrozenModel(model, settings.device), copy.deepcopy(guide)
    if settings.device is not None:
        trained.to(settings.device)
    validation = _checked("validation", validation, frozen.model, trained)
    data: dict[EncoderStage, Transform] = {EncoderStage.DRAWS: Draws(frozen.model, validation.isfinite())}
    if x_train is not None:
        x_train = _checked("x_train", some_of(tensor_of("x_train", x_train)), frozen.model, trained)
        data[EncoderStage.JITTERED] = Jittered(frozen.model, trained, x_train)
    exact = FrozenModel(model).model.double()

    def elbo() -> Estimate:
        """ELBO of the current encoder, in float64: a narrow q's density has no correct digits in float32."""
        q, x = copy.deepcopy(trained).double(), validation.double()
        return elbo_estimate(exact, q, x, num_samples=num_samples, seed=settings.seed)

    def count(_: EpochRecord) -> None:
        bar.update()

    guides, elbos = {EncoderStage.ORIGINAL: copy.deepcopy(trained)}, {EncoderStage.ORIGINAL: elbo()}
    folder = None if checkpoint is None else Path(checkpoint)
    with progress_bar(total=settings.epochs * len(data), unit="epoch", show=progress) as bar:
        for i, (stage, transform) in enumerate(data.items()):
            bar.set_description(f"encoder: {stage}")
            how = replace(settings, transform=transform, seed=settings.seed + i)
            with nullcontext() if folder is None else Checkpoints(folder / stage) as checkpoints:
                Trainer(
                    [(frozen, trained)],
                    validation.new_zeros(num_draws, *validation.shape[1:]),  # which the transform replaces
                    encoder_elbo(frozen.model, trained),
                    how,
                    progress=False,
                    on_epoch=count,
                    checkpoints=checkpoints,
                ).run()
            guides[stage], elbos[stage] = copy.deepcopy(trained), elbo()
    best = max(elbos, key=lambda stage: (elbos[stage].mean, stage == EncoderStage.ORIGINAL))
    return RefittedEncoder(guides[best], best, elbos)


def _checked(name: str, x: Data, model: GenerativeModel, guide: AmortizedGuide) -> Tensor:
    """Data (num, n) as the programs take them."""
    n = model.likelihood.n
    shape = tuple(tensor_of(name, x).shape)
    if len(shape) != 2 or shape[1] != n:
        raise InputError(f"{name} must have shape (num, {n}), not {shape}")
    x = as_data(name, x, model, guide, None)
    model.check_support(name, x)
    return x
