"""The study's options."""

from dataclasses import dataclass

from experiments.options import StudyOptions, choice

PARTS = ("linear", "failures", "synthetic", "gaps")
"""The parts of the study, in their order."""


@dataclass(frozen=True)
class Settings(StudyOptions):
    """Compare each posterior family with the truth: linear-Gaussian models, the synthetic sets, the digits."""

    parts: tuple[str, ...] = choice(PARTS, PARTS)
    """Which parts to run, of linear, failures, synthetic, gaps."""
    dims: tuple[int, ...] = (2, 8, 32)
    """Latent dimensions of the linear-Gaussian models."""
    steps: int = 2000
    """Steps of the trainings for the gaps and for the linear-Gaussian models; half as many with a fixed decoder."""
    seeds: int = 20
    """Trainings of each family for the count of failures, with seeds 0 to N − 1."""
    epochs: int = 10
    """Passes over a synthetic training set of the slides' size."""
    num_train: int | None = None
    """Size of the synthetic training sets; by default the slides' size."""
    num_test: int = 1000
    """Test data of the synthetic sets, twice as many for the failures; annealing uses a tenth of them."""
    refit_steps: int = 4000
    """Largest number of steps in which a posterior is fitted to one datum."""
    num_data: int = 50
    """Test data to which posteriors are fitted one by one; half as many of the linear-Gaussian models."""
