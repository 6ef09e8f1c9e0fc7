"""The spectra that are studied: simulated, or read from files, and split."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from experiments.spectra.settings import Settings
from pyrovae.datasets import Spectra, read_spectra, split_into_blocks, split_randomly
from pyrovae.datasets.spectra import simulated


@dataclass(frozen=True)
class SpectraSet:
    """Spectra in three parts.

    Attributes:
        name: in tables and file names.
        train: to train on.
        validation: to choose the epoch and the learning rate by.
        test: to report of.
        about: sizes, split and notes in a sentence.
    """

    name: str
    train: Spectra
    validation: Spectra
    test: Spectra
    about: str

    def color(self, column: str) -> tuple[str, Tensor]:
        """A column of the test spectra's targets as numbers, shape (num,), classes numbered."""
        table = self.test.targets
        columns = [column] if column else [c for c in table if table[c].nunique() > 1]
        if not columns:
            return "", torch.zeros(len(self.test))
        if columns[0] not in table:
            raise ValueError(f"--color: {self.name} has no column {column!r} (it has {', '.join(map(str, table))})")
        values = table[columns[0]]
        if not pd.api.types.is_numeric_dtype(values):
            values = pd.Series(pd.factorize(values, sort=True)[0])
        return str(columns[0]), torch.tensor(values.to_numpy(dtype=float))


def spectra_sets(settings: Settings) -> Iterator[SpectraSet]:
    """The set of each file, or the simulated one."""
    if not settings.data:
        spectra = simulated(settings.num, settings.channels, correlation=settings.correlation)
        yield split("simulated", spectra, settings.time_column, [])
    for path in settings.data:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read = read_spectra(path)
        yield split(Path(path).name.split(".")[0], read, settings.time_column, [str(w.message) for w in caught])


def split(name: str, spectra: Spectra, time_column: str, notes: list[str]) -> SpectraSet:
    """70 % to train, 15 % to validate, 15 % to test: at random, or where there are times in blocks of whole days."""
    if time_column in spectra.targets:
        spectra = spectra.sorted_by(time_column)
        days = spectra.groups(time_column, by_day=True)
        parts = split_into_blocks(len(spectra), groups=days)
        how = f"in blocks of whole days by {time_column} ({len(set(days))} days, none in two parts)"
    else:
        parts, how = split_randomly(len(spectra)), "at random"
    train, validation, test = (spectra.take(part) for part in parts)
    unit = f" {spectra.unit}" if spectra.unit != "channel" else ""
    about = (
        f"{len(spectra)} spectra of {len(spectra.axis)} channels, {spectra.axis[0]:g} to {spectra.axis[-1]:g}{unit}, "
        f"split {how}: {len(train)} train, {len(validation)} validate, {len(test)} test."
    )
    return SpectraSet(name, train, validation, test, " ".join([about, *(f"Note: {note}." for note in notes)]))
