"""The study's options."""

from dataclasses import dataclass
from pathlib import Path

from experiments.options import StudyOptions, choice, repeatable
from pyrovae.likelihoods import LIKELIHOODS, GaussianLikelihood, GaussianNoiseLikelihood
from pyrovae.nn import class_of
from pyrovae.posteriors import POSTERIORS
from pyrovae.training import ENGINES, check_learning_rate

PARTS = ("spectra", "recovery", "questions")
"""The parts of the study, in their order."""


def _of_class(cls: type) -> list[str]:
    """Names of the likelihoods of a class."""
    return [name for name, make in LIKELIHOODS.items() if issubclass(class_of(make), cls)]


GAUSSIAN = _of_class(GaussianNoiseLikelihood)
"""Names of the likelihoods of spectra."""
INDEPENDENT = _of_class(GaussianLikelihood)
"""Names of those with independent noise."""


@dataclass(frozen=True)
class Settings(StudyOptions):
    """Compare posteriors and likelihoods on spectra, simulated ones by default, beside linear baselines."""

    parts: tuple[str, ...] = choice(PARTS, PARTS)
    """Which parts to run, of spectra, recovery, questions."""
    data: tuple[Path, ...] = ()
    """Files of spectra (CSV, TSV, .npy, .npz, parquet). Without one, spectra are simulated."""
    posteriors: tuple[str, ...] = choice(("diagonal", "full-covariance"), POSTERIORS)
    """Families of q(z|x)."""
    likelihoods: tuple[str, ...] = choice(
        ("gaussian", "gaussian-per-dimension", "ar1", "ar1-per-dimension", "low-rank", "full-covariance"), GAUSSIAN
    )
    """Likelihoods p(x|z)."""
    latent_dim: int = 6
    """Dimension of z, and number of components of the baselines."""
    linear_dims: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Numbers of components; validation chooses one for each linear model."""
    seeds: int = 3
    """Trainings of each cell, with seeds 0, 2, 4 and so on."""
    epochs: int = 60
    """Passes over the training spectra. The best validation epoch is kept."""
    looks: int = 4
    """Number of epochs, evenly spaced, after which validation spectra judge the model by its refined ELBO."""
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    """Learning rates tried for each cell at the first seed. The other seeds use the one that validates best."""
    start: str = choice("linear", ("linear", "random"))
    """Where training starts: at the linear model with the same noise (linear), or at random weights (random)."""
    hidden: tuple[int, ...] = repeatable(128)
    """Widths of the encoder's hidden layers, and in reverse of the decoder's."""
    batch_size: int = 32
    """Spectra per step."""
    engine: str = choice("auto", ENGINES)
    """auto, eager or compiled."""
    time_column: str = "datetime"
    """Column of times. Files that have it are sorted by it and split into whole days, others at random."""
    color: str = ""
    """Column that colours the latent space; by default the first numeric column that varies."""
    num: int = 1500
    """Number of simulated spectra."""
    channels: int = 100
    """Channels of simulated spectra."""
    correlation: float = 0.9
    """Correlation of the simulated noise between neighbouring channels."""
    samples: int = 300
    """Draws of z per test spectrum for log p(x); more are drawn where these are too few."""
    resume: bool = False
    """Continue the interrupted run in --out; give the same options again."""
    data_sets: int = 10
    """Simulated sets from which the noise is recovered. The gain is measured on a fifth of them."""
    recovery_epochs: int = 150
    """Passes over each of them."""
    recovery_rates: tuple[float, ...] = (2e-3, 5e-3, 1e-2)
    """Learning rates tried on the first set, for each likelihood and latent dimension."""
    trainings: int = 20
    """Short trainings of each Cholesky diagonal and learning rate."""
    repeats: int = 20
    """Timed steps of each kind."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for rate in (*self.learning_rates, *self.recovery_rates):
            check_learning_rate(rate)
