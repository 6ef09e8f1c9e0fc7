"""The study's options."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Hold each posterior family against the truth: linear-Gaussian models, the synthetic sets, the digits."""

    parts: tuple[str, ...] = ("linear", "failures", "synthetic", "gaps")
    """Which parts to run, of linear, failures, synthetic, gaps."""
    dims: tuple[int, ...] = (2, 8, 32)
    """Latent dimensions of the linear-Gaussian models."""
    steps: int = 2000
    """Steps of the trainings for the linear-Gaussian models (half of them with a fixed decoder; whole epochs of at most
    100) and for the gaps."""
    seeds: int = 20
    """Trainings of each family in the count of failures, with seeds 0, 1, …"""
    epochs: int = 10
    """Passes over a synthetic training set at the slides' sizes."""
    num_train: int | None = None
    """Size of the synthetic training sets; the slides' own by default."""
    num_test: int = 1000
    """Test data of the synthetic sets, a tenth of which are annealed too."""
    refit_steps: int = 4000
    """Steps at most in which posteriors are fitted to data one by one."""
    num_data: int = 50
    """Test data to which posteriors are fitted one by one; half as many of the linear-Gaussian models."""
    out: Path | None = None
    """Folder for the results; by default a new one under runs/."""
    publish: bool = False
    """Also write the study's page, experiments/results/truth.md."""
    workers: int = min(os.cpu_count() or 1, 8)
    """Processes, one thread each."""
