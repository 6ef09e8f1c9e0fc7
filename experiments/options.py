"""Options that several studies share, and checks that name the option."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import pandas as pd
import torch

import pyrovae as pv
from pyrovae.datasets import SyntheticDataset
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError, check_choice, check_integer
from pyrovae.posteriors import POSTERIORS
from pyrovae.training import ENGINES, SCHEDULES

T = TypeVar("T")


def choice(default: T, choices: Collection[str]) -> T:
    """A field that holds a name of these choices, or several."""
    found: T = field(default=default, metadata={"choices": choices})
    return found


def at_least(least: int, default: T) -> T:
    """A field that holds an integer of at least ``least``, or several."""
    found: T = field(default=default, metadata={"least": least})
    return found


def repeatable(*default: int) -> tuple[int, ...]:
    """A field that holds integers, of which some may be equal."""
    found: tuple[int, ...] = field(default=default, metadata={"repeatable": True})
    return found


def _holds_integers(hint: object) -> bool:
    return hint is int or any(map(_holds_integers, get_args(hint)))


@dataclass(frozen=True)
class Options:
    """Where results go.

    An option is checked by what its field is: integers are positive, unless it says :func:`at_least`; a sequence holds
    distinct values, unless it is :func:`repeatable`, and one at least, unless it is empty by default; names are those
    of a :func:`choice`.
    """

    out: Path | None = None
    """Folder for the results, new or empty; by default a new one under runs/."""
    publish: bool = False
    """Also write the study's page under experiments/results/."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value, name = getattr(self, f.name), f"--{f.name.replace('_', '-')}"
            values = value if isinstance(value, tuple) else (value,)
            if not values and f.default != ():
                raise InputError(f"{name} needs at least one value")
            if len(set(values)) < len(values) and "repeatable" not in f.metadata:
                raise InputError(f"{name} holds duplicates: {' '.join(map(str, values))}")
            for one in values:
                if "choices" in f.metadata:
                    check_choice(name, one, f.metadata["choices"])
                if _holds_integers(f.type) and one is not None:
                    check_integer(name, one, f.metadata.get("least", 1))


@dataclass(frozen=True)
class StudyOptions(Options):
    """Options of a study that works in several processes."""

    workers: int = min(os.cpu_count() or 1, 8)
    """Processes, one thread each."""


@dataclass(frozen=True)
class SyntheticOptions(StudyOptions):
    """Options of a study of synthetic sets."""

    posteriors: tuple[str, ...] = choice(("diagonal", "ar1", "full-covariance"), POSTERIORS)
    """Families of q(z|x): isotropic, diagonal, ar1, ar1-per-dimension, ar1-per-step, low-rank, full-covariance, flow
    (needs the extra flows)."""
    estimators: tuple[str, ...] = choice(("analytic", "monte-carlo"), ESTIMATORS)
    """ELBO estimators: monte-carlo, analytic, closed-form-entropy, sticking-the-landing, importance-weighted,
    doubly-reparameterized."""
    seeds: int = 1
    """Runs of each cell, with seeds 0 to N − 1."""
    epochs: int | None = None
    """Passes over the data; by default the slides' number."""
    schedule: str = choice("cosine", SCHEDULES)
    """Learning rate: cosine (to zero) or constant (the slides')."""
    num_train: int | None = None
    """Size of a training set; by default the slides' size."""
    num_test: int | None = None
    """Size of a test set; by default the slides' size."""
    engine: str = choice("auto", ENGINES)
    """auto, eager or compiled (by XLA, which takes a few seconds)."""
    scheduler: str | None = None
    """Address of a Dask cluster that makes the runs instead, such as tcp://10.0.0.5:8786 (needs the extra cluster)."""

    def compare(self, dataset: SyntheticDataset, out: Path, **settings: Any) -> pd.DataFrame:
        """Compare what the options name, see :func:`pyrovae.compare`; ``settings`` are of the study alone."""
        return pv.compare(
            dataset,
            posteriors=self.posteriors,
            estimators=self.estimators,
            seeds=range(self.seeds),
            epochs=self.epochs,
            schedule=self.schedule,
            num_train=self.num_train,
            num_test=self.num_test,
            engine=self.engine,
            out=out,
            workers=self.workers if self.scheduler is None else 1,
            scheduler=self.scheduler,
            **settings,
        )


@dataclass(frozen=True)
class ImageOptions(StudyOptions):
    """Options of a study of images."""

    num_train: int | None = at_least(2, None)
    """Train on the first N training images only."""
    num_test: int | None = at_least(2, None)
    """Test on the first N test images only."""
    device: str = "cpu"
    """Where to train and to evaluate."""
    engine: str = choice("auto", ENGINES)
    """auto, eager or compiled."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)
        if self.device != "cpu" and self.workers > 1:
            raise InputError("several processes cannot share the device; give --workers 1")


def check_device(device: str) -> None:
    """Raise an InputError unless tensors can be made there."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from None
