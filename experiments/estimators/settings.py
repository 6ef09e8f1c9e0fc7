"""The study's options, its estimators and its data."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.datasets import SYNTHETIC, digits
from pyrovae.elbo import BetaELBO

ONE_SAMPLE: dict[str, type[BetaELBO]] = {
    "monte-carlo": pv.MonteCarloELBO,
    "analytic": pv.AnalyticELBO,
    "closed-form-entropy": pv.ClosedFormEntropyELBO,
    "sticking-the-landing": pv.StickingTheLandingELBO,
}
MANY_SAMPLES: dict[str, type[BetaELBO]] = {
    "importance-weighted": pv.ImportanceWeightedELBO,
    "doubly-reparameterized": pv.DoublyReparameterizedELBO,
}


@dataclass(frozen=True)
class Settings:
    """Compare ELBO estimators on a linear-Gaussian model, the figure eight and scikit-learn's digits."""

    seeds: int = 5
    """Number of models and trainings, with seeds 0, 1, …"""
    particles: tuple[int, ...] = (1, 5, 50)
    """Draws K of the importance-weighted pair."""
    repeats: int = 200
    """Gradients for each statistic on the linear-Gaussian model; half as many on the networks."""
    steps: int = 1000
    """Steps of a training; at equal time, those of monte-carlo."""
    batch_size: int = 32
    """Data per step."""
    samples: int = 250
    """Draws of z per test datum for log p(x); eight times as many on the digits."""
    out: Path | None = None
    """Folder for the results; by default a new one under runs/."""
    publish: bool = False
    """Also write the study's page, experiments/results/estimators.md."""
    workers: int = min(os.cpu_count() or 1, 8)
    """Processes for the trainings, one thread each."""


def estimators(particles: Sequence[int]) -> dict[str, BetaELBO]:
    """Every estimator by name, the importance-weighted pair once for each K."""
    found: dict[str, BetaELBO] = {name: make() for name, make in ONE_SAMPLE.items()}
    for name, make in MANY_SAMPLES.items():
        found |= {f"{name}, K = {k}": make(num_particles=k) for k in particles}
    return found


def training_data(name: str) -> tuple[Tensor, int]:
    """2,000 points of the figure eight, or the digits; and the latent dimension."""
    if name == "digits":
        x, _ = digits()
        return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))], 8
    return SYNTHETIC[name].sample(2000, torch.Generator().manual_seed(0)), 2


def epochs_of(num: int, settings: Settings) -> int:
    """Epochs that make about the number of steps asked for."""
    return max(1, round(settings.steps / math.ceil(num / settings.batch_size)))


def pm(values: pd.Series, form: str) -> str:
    """Mean ± standard error over seeds."""
    if len(values) == 1:
        return f"{values.iloc[0]:{form}}".replace("-0.000", "0.000")
    mean = f"{values.mean():{form}}".replace("-0.000", "0.000")
    return f"{mean} ± {values.std() / math.sqrt(len(values)):{form}}"


def summary(groups: list[pd.Series], exponentiate: bool = False) -> tuple[list[float], list[float]]:
    """Means over seeds and their standard errors, of logarithms if asked for."""
    means = [group.mean() for group in groups]
    stderrs = [group.std() / math.sqrt(len(group)) if len(group) > 1 else 0.0 for group in groups]
    if exponentiate:
        means = [math.exp(mean) for mean in means]
        stderrs = [mean * stderr for mean, stderr in zip(means, stderrs, strict=True)]
    return means, stderrs
