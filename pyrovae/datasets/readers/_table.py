"""What every reader returns: a table of numbers that knows where each of them stands in its file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from pyrovae.datasets.readers.settings import ReadingSettings

COUNTED = "channel"
"""Unit of an axis whose positions are only counted."""


@dataclass(frozen=True)
class Layout:
    """What the columns of a table mean.

    Attributes:
        columns: the columns to read as numbers.
        positions: the channel position of each of them; None where they are only counted.
        unit: of the positions, empty if unknown.
        axis: the column of channel positions, where samples are in columns; else None.
    """

    columns: list[int]
    positions: NDArray[np.float64] | None = None
    unit: str = COUNTED
    axis: int | None = None


Choose = Callable[[list[str]], Layout]
"""Finds the layout of a table from the names of all its columns; the names are empty if there is no header."""


@dataclass(frozen=True)
class Grid:
    """Where the rows and columns of a table stand in its file.

    Attributes:
        where: what to call the table in errors.
        names: of all columns.
        layout: what the columns mean.
        rows: number of each row in the file, counted from 1.
    """

    where: str
    names: list[str]
    layout: Layout
    rows: Sequence[int]

    def cell(self, row: int, column: int) -> str:
        """Where an entry of the numbers, by its row and column among them, stands in the file."""
        return self.place(row, self.layout.columns[column])

    def place(self, row: int, column: int) -> str:
        """Where a row and a column of the file meet."""
        name = self.names[column]
        return f"{self.where}, row {self.rows[row]}, column {column + 1}" + (f" ({name!r})" if name else "")


@dataclass(frozen=True)
class Table(Grid):
    """A table of samples in rows, or of whatever stands in the file's rows.

    Attributes:
        numbers: the columns of the layout, shape (rows, columns); NaN where a value is missing.
        others: all other columns.
        decimal: ``"."`` or ``","`` in the other columns.
    """

    numbers: NDArray[np.floating]
    others: pd.DataFrame
    decimal: str = "."


class Reader(Protocol):
    """A function that reads one format."""

    def __call__(self, path: Path, settings: ReadingSettings, choose: Choose) -> Table:
        """Read a file.

        Args:
            path: an existing file that is not empty.
            settings: what the user says of the file.
            choose: finds the layout from the names of all columns. A format that has no such names need not call it.

        Raises:
            InputError: the file is damaged or too large, or its content does not fit; says where.
            MissingExtraError: the format needs a package that is not installed.
            OSError: the file cannot be read.
        """
        ...


def table_of(
    where: str,
    array: NDArray[np.generic],
    positions: NDArray[np.float64] | None = None,
    unit: str = COUNTED,
    others: pd.DataFrame | None = None,
) -> Table:
    """An array (samples, channels) as a table whose columns have no names."""
    import pandas as pd

    if array.ndim == 1 and array.size:
        raise InputError(f"{where} holds one spectrum; a model of spectra needs at least two")
    if array.ndim != 2 or not array.size:
        raise InputError(f"{where} must hold an array (samples, channels), not one of shape {array.shape}")
    with np.errstate(over="ignore"):
        numbers = array.astype(default_dtype(), copy=False)
    num, width = array.shape
    others = pd.DataFrame(index=range(num)) if others is None else others
    return Table(where, [""] * width, Layout(list(range(width)), positions, unit), range(1, num + 1), numbers, others)


def default_dtype() -> type[np.floating]:
    """Numpy's name of torch's default dtype."""
    return np.float64 if torch.get_default_dtype() == torch.float64 else np.float32


def check_size(where: str, num_bytes: float, max_gib: float) -> None:
    """Raise an InputError if a table would need too much memory."""
    if num_bytes > max_gib * 2**30:
        raise InputError(
            f"{where} would need about {num_bytes / 2**30:.2g} GiB of memory, more than max_gib={max_gib:g}; raise it, "
            "or choose fewer columns with channels=…"
        )
