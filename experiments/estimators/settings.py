"""The study's options, its estimators and its data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.options import StudyOptions, at_least
from pyrovae.datasets import SYNTHETIC, digits
from pyrovae.elbo import ESTIMATORS, BetaELBO

MANY_SAMPLES = ("importance-weighted", "doubly-reparameterized")
"""Names of the estimators of K draws."""


@dataclass(frozen=True)
class Settings(StudyOptions):
    """Compare ELBO estimators on a linear-Gaussian model, the figure eight and scikit-learn's digits."""

    seeds: int = 5
    """Models and trainings, with seeds 0 to N − 1."""
    particles: tuple[int, ...] = (1, 5, 50)
    """Draws K of the importance-weighted pair."""
    repeats: int = at_least(4, 200)
    """Gradients for each statistic of the linear-Gaussian model; half as many for the networks."""
    steps: int = 1000
    """Steps of a training. At equal time it is Monte Carlo's number of steps."""
    batch_size: int = 32
    """Data per step."""
    samples: int = 250
    """Draws of z per test datum for log p(x); eight times as many on the digits."""
    num_test: int = 2000
    """Test data of the figure eight, and of the digits at most."""


def estimators(particles: Sequence[int]) -> dict[str, BetaELBO]:
    """Every estimator by name, the importance-weighted pair once for each K."""
    found: dict[str, BetaELBO] = {name: make() for name, make in ESTIMATORS.items() if name not in MANY_SAMPLES}
    for name in MANY_SAMPLES:
        found |= {f"{name}, K = {k}": ESTIMATORS[name](num_particles=k) for k in particles}
    return found


def training_data(name: str) -> tuple[Tensor, int]:
    """2,000 points of the figure eight, or the digits; and the latent dimension."""
    if name == "digits":
        x, _ = digits()
        return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))], 8
    return SYNTHETIC[name].sample(2000, torch.Generator().manual_seed(0)), 2


def epochs_of(num: int, settings: Settings) -> int:
    """Epochs that make about ``settings.steps`` steps."""
    return max(1, round(settings.steps / math.ceil(num / settings.batch_size)))
