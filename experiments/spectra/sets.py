"""The spectra that are studied: simulated, or read from files, and split."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.spectra.settings import Settings
from pyrovae.datasets import Spectra, read_spectra, simulated, split_spectra
from pyrovae.errors import InputError


@dataclass(frozen=True)
class SpectraSet:
    """Spectra in three parts.

    Attributes:
        name: in tables and file names.
        train: to train on.
        validation: to choose the epoch and the learning rate by.
        test: to report on.
        about: sizes, split and notes in a sentence.
        test_groups: label of each test spectrum: those of one label are no independent data; None where all are.
    """

    name: str
    train: Spectra
    validation: Spectra
    test: Spectra
    about: str
    test_groups: NDArray[np.int64] | None = None

    def color(self, column: str) -> tuple[str, Tensor]:
        """A column of the test spectra's targets as numbers, shape (num,), classes numbered."""
        table = self.test.targets
        varying = [c for c in table if table[c].nunique() > 1]
        numeric = [c for c in varying if pd.api.types.is_numeric_dtype(table[c])]
        columns = [column] if column else numeric or varying
        if not columns:
            return "", torch.zeros(len(self.test))
        if columns[0] not in table:
            raise InputError(f"--color: {self.name} has no column {column!r} (it has {', '.join(map(str, table))})")
        values = table[columns[0]]
        if not pd.api.types.is_numeric_dtype(values):
            values = pd.Series(pd.factorize(values, sort=True)[0])
        return str(columns[0]), torch.tensor(values.to_numpy(dtype=float))


def spectra_sets(settings: Settings) -> list[SpectraSet]:
    """The set of each file, or the simulated one, all checked.

    Raises:
        InputError: a file cannot be read or studied, or two have one name.
    """
    if not settings.data:
        spectra = simulated(settings.num, settings.channels, correlation=settings.correlation)
        sets = [split("simulated", spectra, settings.time_column, [])]
    else:
        sets = [_from_file(Path(path), settings) for path in settings.data]
    names = [data.name for data in sets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--data: two files are called {name}, and would write the same results; rename one")
    for data in sets:
        num, n = data.train.x.shape
        if settings.latent_dim >= min(num, n):
            raise InputError(
                f"--latent-dim {settings.latent_dim} must be below the {n} channels and {num} training spectra of "
                f"{data.name}"
            )
        constant = (data.train.x == data.train.x[0]).all(0)
        if constant.any():
            position = data.train.axis[constant][0].item()
            raise InputError(f"{data.name}: channel {position:g} is constant in the training spectra; leave it out")
        data.color(settings.color)
    return sets


def _from_file(path: Path, settings: Settings) -> SpectraSet:
    with warnings.catch_warnings(record=True, action="always") as caught:
        read = read_spectra(path)
    notes = [str(warning.message) for warning in caught]
    try:
        return split(path.name.removesuffix(".gz").rpartition(".")[0], read, settings.time_column, notes)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def split(name: str, spectra: Spectra, time_column: str, notes: list[str]) -> SpectraSet:
    """The set of these spectra, see :func:`~pyrovae.datasets.split_spectra`."""
    parts = split_spectra(spectra, time_column)
    train, validation, test = parts.parts
    notes = [*notes, *parts.notes()]
    unit = f" {spectra.unit}" if spectra.unit != "channel" else ""
    about = (
        f"{len(spectra)} spectra of {len(spectra.axis)} channels, {spectra.axis[0]:g} to {spectra.axis[-1]:g}{unit}, "
        f"split {parts.describe()}: {len(train)} train, {len(validation)} validate, {len(test)} test."
    )
    return SpectraSet(
        name, train, validation, test, " ".join([about, *(f"Note: {note}." for note in notes)]), parts.test_groups
    )
