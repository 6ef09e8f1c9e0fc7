"""The study's options."""

import math
from dataclasses import dataclass

from experiments.options import ImageOptions, at_least, choice, repeatable
from pyrovae.comparison.settings import LikelihoodFactory
from pyrovae.datasets.images import IMAGES
from pyrovae.errors import InputError
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.posteriors import POSTERIORS
from pyrovae.training import SCHEDULES, check_learning_rate

VARIANTS = ("vanilla", "convolutional", "beta", "info")
GAUSSIAN = tuple(name for name in POSTERIORS if name != "flow")
"""Families that are compared by default."""

PIXELS: dict[str, tuple[str | None, LikelihoodFactory]] = {
    "soft-targets": (None, LIKELIHOODS["bernoulli-soft-targets"]),
    "binarised": ("dynamic", LIKELIHOODS["bernoulli"]),
    "continuous-bernoulli": (None, LIKELIHOODS["continuous-bernoulli"]),
}
"""How pixels are binarised, and their likelihood, by the names on the command line."""


@dataclass(frozen=True)
class Settings(ImageOptions):
    """Train VAEs on images with every Gaussian posterior family, in the set-up of the ρ-VAE paper."""

    dataset: str = choice("digits", IMAGES)
    """digits (8 × 8, comes with scikit-learn), mnist or fashion-mnist (28 × 28)."""
    latent_dim: tuple[int, ...] | None = None
    """Dimensions of z; by default 2 and 10 for the digits, 5, 10 and 50 for the others."""
    posteriors: tuple[str, ...] = choice(GAUSSIAN, GAUSSIAN)
    """Families of q(z|x)."""
    variant: str = choice("vanilla", VARIANTS)
    """vanilla, convolutional, beta (several weights of the KL) or info (a maximum mean discrepancy is added)."""
    betas: tuple[float, ...] = (1.0, 4.0)
    """Weights β of the KL for the variant beta."""
    info_alpha: float = 0.0
    """α of the variant info: the KL has weight 1 − α."""
    info_lambda: float = 1000.0
    """λ of the variant info: the discrepancy has weight α + λ − 1."""
    pixels: str = choice("soft-targets", PIXELS)
    """soft-targets (grey pixels, cross-entropy: no density), binarised (drawn anew each epoch) or
    continuous-bernoulli."""
    seeds: int = 2
    """Trainings of each cell, with seeds 0 to N − 1."""
    epochs: int | None = None
    """Passes over the training images; by default 15, and 80 for the digits. The best validation epoch is kept."""
    learning_rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    """Adam's learning rates, tried for each cell at the first seed. The other seeds use the one that validates best."""
    schedule: str = choice("constant", SCHEDULES)
    """Learning rate: constant (the paper's) or cosine (to zero)."""
    hidden: tuple[int, ...] = repeatable(400)
    """Widths of the encoder's hidden layers, and in reverse of the decoder's."""
    channels: tuple[int, ...] = repeatable(32, 64)
    """Channels of the convolutional encoder, and in reverse of the decoder."""
    batch_size: int = at_least(2, 128)
    """Images per step."""
    samples: int = 100
    """Draws of z per test image for the importance-sampled bound."""
    audit: bool = False
    """Also train with the released code's objective and sampler, which are wrong, and compare what they report."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for rate in self.learning_rates:
            check_learning_rate(rate)
        if not all(0 <= beta < math.inf for beta in self.betas):
            raise InputError(f"--betas must be finite numbers ≥ 0, not {self.betas}")
        if not self.info_alpha <= 1 or not 1 <= self.info_alpha + self.info_lambda < math.inf:
            raise InputError("--info-alpha must be at most 1, and --info-alpha plus --info-lambda at least 1")
        if self.audit and self.pixels == "continuous-bernoulli":
            raise InputError("--audit needs a cross-entropy; use --pixels soft-targets or binarised")

    @property
    def dims(self) -> tuple[int, ...]:
        """Latent dimensions."""
        return self.latent_dim or ((2, 10) if self.dataset == "digits" else (5, 10, 50))

    @property
    def num_epochs(self) -> int:
        """Epochs of a training."""
        return self.epochs if self.epochs is not None else 80 if self.dataset == "digits" else 15

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights β of the KL to train with."""
        return self.betas if self.variant == "beta" else (1 - self.info_alpha if self.variant == "info" else 1.0,)
