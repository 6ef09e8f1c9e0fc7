"""The study's options."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Compare posteriors and likelihoods on spectra, simulated ones by default, beside linear baselines."""

    parts: tuple[str, ...] = ("spectra", "recovery", "questions")
    """Which parts to run, of spectra, recovery, questions."""
    data: tuple[Path, ...] = ()
    """Files of spectra: CSV, TSV, .npy, .npz, parquet; without any, simulated spectra."""
    posteriors: tuple[str, ...] = ("diagonal", "full-covariance")
    """Families of q(z|x)."""
    likelihoods: tuple[str, ...] = (
        "gaussian",
        "gaussian-per-dimension",
        "ar1",
        "ar1-per-dimension",
        "low-rank",
        "full-covariance",
    )
    """Likelihoods p(x|z)."""
    latent_dim: int = 6
    """Dimension of z, and number of components of the baselines."""
    linear_dims: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Numbers of components of which validation chooses one for each linear model."""
    seeds: int = 3
    """Trainings of each cell, with seeds 0, 2, 4, …: of the same compiled program, one after the other."""
    epochs: int = 60
    """Passes over the training spectra; the best epoch by validation is kept."""
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    """Tried for every cell at the first seed; it goes on with the best by validation."""
    start: str = "linear"
    """Where training starts: at the linear model with the same noise (linear), or at random weights."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the encoder's hidden layers, and in reverse of the decoder's."""
    batch_size: int = 32
    """Spectra per step."""
    time_column: str = "datetime"
    """Files with this column are sorted by it and split into blocks of whole days; others at random."""
    color: str = ""
    """Column that colours the latent space; by default the first of numbers that vary, or of anything."""
    num: int = 1500
    """Number of simulated spectra."""
    channels: int = 100
    """Their channels."""
    correlation: float = 0.9
    """Correlation of their noise between neighbouring channels."""
    samples: int = 300
    """Draws of z per test spectrum for log p(x)."""
    data_sets: int = 10
    """Simulated sets in which the noise is to be recovered; the gain is measured on a fifth as many."""
    recovery_epochs: int = 150
    """Passes over each of them."""
    recovery_rates: tuple[float, ...] = (2e-3, 5e-3, 1e-2)
    """Tried on the first of them for each likelihood and number of latent dimensions."""
    trainings: int = 20
    """Short trainings of each Cholesky diagonal and learning rate."""
    repeats: int = 20
    """Steps of each kind whose cost is compared."""
    out: Path | None = None
    """Folder for the results; by default a new one under runs/."""
    publish: bool = False
    """Also write the study's page, experiments/results/spectra.md."""
    workers: int = min(os.cpu_count() or 1, 8)
    """Processes, one thread each."""
