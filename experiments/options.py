"""Options that several studies share, and checks that name the option."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError, check_choice, check_integer
from pyrovae.posteriors import POSTERIORS
from pyrovae.training import ENGINES, SCHEDULES


def option(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"


def check_integers(settings: object, *names: str, least: int = 1) -> None:
    """Raise an InputError unless each of these fields, alone or in a sequence, is an integer of at least ``least``.

    A field that is None passes.
    """
    for name in names:
        value = getattr(settings, name)
        for integer in value if isinstance(value, tuple) else (value,):
            if integer is not None:
                check_integer(option(name), integer, least)


def check_distinct(settings: object, *names: str) -> None:
    """Raise an InputError unless each of these fields holds at least one value, and none twice."""
    for name in names:
        values = getattr(settings, name)
        if not values:
            raise InputError(f"{option(name)} needs at least one value")
        if len(set(values)) < len(values):
            raise InputError(f"{option(name)} holds duplicates: {' '.join(map(str, values))}")


def check_names(settings: object, name: str, choices: Collection[str]) -> None:
    """Raise an InputError unless the field, a name or several, holds names of these choices alone, and none twice."""
    value = getattr(settings, name)
    if not isinstance(value, str):
        check_distinct(settings, name)
    for word in (value,) if isinstance(value, str) else value:
        check_choice(option(name), word, choices)


@dataclass(frozen=True)
class Options:
    """Where results go."""

    out: Path | None = None
    """Folder for the results, new or empty; by default a new one under runs/."""
    publish: bool = False
    """Also write the study's page under experiments/results/."""


@dataclass(frozen=True)
class StudyOptions(Options):
    """Options of a study that works in several processes."""

    workers: int = min(os.cpu_count() or 1, 8)
    """Processes, one thread each."""

    def __post_init__(self) -> None:
        check_integers(self, "workers")


@dataclass(frozen=True)
class SyntheticOptions(StudyOptions):
    """Options of a study of synthetic sets."""

    posteriors: tuple[str, ...] = ("diagonal", "ar1", "full-covariance")
    """Families of q(z|x): isotropic, diagonal, ar1, ar1-per-dimension, ar1-per-step, low-rank, full-covariance, flow
    (needs the extra flows)."""
    estimators: tuple[str, ...] = ("analytic", "monte-carlo")
    """ELBO estimators: monte-carlo, analytic, closed-form-entropy, sticking-the-landing, importance-weighted,
    doubly-reparameterized."""
    seeds: int = 1
    """Runs of each cell, with seeds 0 to N − 1."""
    epochs: int | None = None
    """Passes over the data; by default the slides' number."""
    schedule: str = "cosine"
    """Learning rate: cosine (to zero) or constant (the slides')."""
    num_train: int | None = None
    """Size of a training set; by default the slides' size."""
    num_test: int | None = None
    """Size of a test set; by default the slides' size."""
    engine: str = "auto"
    """auto, eager or compiled (by XLA, which takes a few seconds)."""
    scheduler: str | None = None
    """Address of a Dask cluster that makes the runs instead, such as tcp://10.0.0.5:8786 (needs the extra cluster)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self, "posteriors", POSTERIORS)
        check_names(self, "estimators", ESTIMATORS)
        check_names(self, "schedule", SCHEDULES)
        check_names(self, "engine", ENGINES)
        check_integers(self, "seeds", "epochs", "num_train", "num_test")

    @property
    def local_workers(self) -> int:
        """Processes on this machine; 1, this one, where a cluster makes the runs."""
        return self.workers if self.scheduler is None else 1

    @property
    def place(self) -> str:
        """Where the runs are made."""
        return f"{self.workers} worker(s) of one thread each" if self.scheduler is None else "a Dask cluster"


@dataclass(frozen=True)
class ImageOptions(StudyOptions):
    """Options of a study of images."""

    num_train: int | None = None
    """Train on the first N training images only."""
    num_test: int | None = None
    """Test on the first N test images only."""
    device: str = "cpu"
    """Where to train and to evaluate."""
    engine: str = "auto"
    """auto, eager or compiled."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integers(self, "num_train", "num_test", least=2)
        check_names(self, "engine", ENGINES)
        check_device(self.device)
        if self.device != "cpu" and self.workers > 1:
            raise InputError("several processes cannot share the device; give --workers 1")


def check_device(device: str) -> None:
    """Raise an InputError unless tensors can be made there."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from None
