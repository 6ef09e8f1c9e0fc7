"""The study's options."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Train VAEs on images with every Gaussian posterior family, in the set-up of the ρ-VAE paper."""

    dataset: str = "digits"
    """digits (8 × 8, comes with scikit-learn), mnist or fashion-mnist (28 × 28)."""
    latent_dim: tuple[int, ...] | None = None
    """Dimensions of z; by default 2 and 10 for the digits, 5, 10 and 50 for the others."""
    posteriors: tuple[str, ...] = (
        "isotropic",
        "diagonal",
        "ar1",
        "ar1-per-dimension",
        "ar1-per-step",
        "low-rank",
        "full-covariance",
    )
    """Families of q(z|x)."""
    variant: str = "vanilla"
    """vanilla, convolutional, beta (several weights of the KL) or info (maximum mean discrepancy added)."""
    betas: tuple[float, ...] = (1.0, 4.0)
    """Weights β of the KL for the variant beta."""
    info_alpha: float = 0.0
    """α of the variant info: the KL has weight 1 − α."""
    info_lambda: float = 1000.0
    """λ of the variant info: the discrepancy has weight α + λ − 1."""
    pixels: str = "soft-targets"
    """soft-targets (grey pixels, cross-entropy: no density), binarised (drawn afresh each epoch) or
    continuous-bernoulli."""
    seeds: int = 2
    """Trainings of each cell, with seeds 0, 1, …"""
    epochs: int | None = None
    """Passes over the training images; by default 15, and 80 for the digits. The best epoch by validation is kept."""
    learning_rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    """Adam's rates, tried for every cell at the first seed; it goes on with the best by validation."""
    schedule: str = "constant"
    """Learning rate: constant (the paper's) or cosine (to zero)."""
    hidden: tuple[int, ...] = (400,)
    """Widths of the encoder's hidden layers, and in reverse of the decoder's."""
    channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutional encoder, and in reverse of the decoder."""
    batch_size: int = 128
    """Images per step."""
    samples: int = 100
    """Draws of z per test image for the importance-sampled bound."""
    audit: bool = False
    """Also train with the released code's objective and sampler, which are wrong, and compare what they report."""
    num_train: int | None = None
    """Train with so many of the training images only."""
    num_test: int | None = None
    """Test with so many of the test images only."""
    device: str = "cpu"
    """Where to train and to evaluate."""
    engine: str = "auto"
    """auto, eager or compiled."""
    out: Path | None = None
    """Folder for the results; by default a new one under runs/."""
    publish: bool = False
    """Also write the study's page, experiments/results/rho-vae.md."""
    workers: int = min(os.cpu_count() or 1, 8)
    """Processes, one thread each."""

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
