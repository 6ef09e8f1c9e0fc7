"""The result of every reader: a table of numbers that knows the place of each in its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.blocks import in_blocks, of_file, rows_at
from pyrovae.datasets.readers._header import Header
from pyrovae.datasets.readers._missing import given_markers, without_markers
from pyrovae.datasets.readers._names import COUNTED
from pyrovae.datasets.readers._numbers import Numerals
from pyrovae.datasets.readers.settings import ReadingSettings, check_size
from pyrovae.datasets.reading import AxisSource, Finding
from pyrovae.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Head:
    """A table's first rows, before their layout is known.

    Attributes:
        where: what to call the table in errors.
        header: the rows above the data.
        numbers: numbers of all columns, shape (rows, columns), NaN where there is none.
        text: in which fields there is text, shape (rows, columns); None if in none.
        findings: what was found of the file before.
        edge: the fields of the first column.
    """

    where: str
    header: Header
    numbers: NDArray[np.float64]
    text: NDArray[np.bool_] | None = None
    findings: tuple[Finding, ...] = ()
    edge: Sequence[str] = ()


@dataclass(frozen=True)
class Layout:
    """What the columns of a table mean.

    Attributes:
        columns: the columns to read as numbers.
        positions: the channel position of each of them; None where they are only counted.
        unit: unit of the positions, empty if unknown.
        axis: the column of channel positions, where samples are in columns; else None.
        in_columns: whether samples are in columns.
        is_turned: whether they are in the file, and the reader turned them.
        axes: further columns of positions, which must equal the first.
        dropped: columns to leave out.
        source: source of the positions.
        about: what rows of the header say of each sample in columns, by name.
        findings: what was found by evidence.
        signal: what the values are, such as absorbance, where a file says it.
    """

    columns: list[int]
    positions: NDArray[np.float64] | None = None
    unit: str = COUNTED
    axis: int | None = None
    in_columns: bool = False
    is_turned: bool = False
    axes: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    source: AxisSource = AxisSource.COUNTED
    about: Mapping[str, list[str]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    signal: str = ""


Choose = Callable[[Head], Layout]
"""Finds the layout of a table from its first rows."""


@dataclass(frozen=True)
class Grid:
    """Places of a table's rows and columns in its file.

    Attributes:
        where: what to call the table in errors.
        names: names of all columns.
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
        others: all other columns but those that are dropped, by their number.
        numerals: how the other columns write numbers.
    """

    numbers: NDArray[np.floating]
    others: pd.DataFrame
    numerals: Numerals = field(default_factory=Numerals)

    def every(self, step: int) -> Self:
        """The table of every so many rows."""
        return self if step == 1 else self.of_rows(np.arange(0, len(self.numbers), step))

    def of_rows(self, index: NDArray[np.integer]) -> Self:
        """The table of some of its rows, in this order."""
        numbers = rows_at(torch.from_numpy(np.ascontiguousarray(self.numbers)), torch.from_numpy(index)).numpy()
        others = self.others.iloc[index].reset_index(drop=True)
        return replace(self, rows=[self.rows[i] for i in index], numbers=numbers, others=others)


class Reader(Protocol):
    """A function that reads one format."""

    def __call__(self, path: Path, settings: ReadingSettings, choose: Choose) -> Table:
        """Read a file.

        Args:
            path: an existing file that is not empty.
            settings: what the user says of the file.
            choose: finds the layout from the first rows. A format that says itself what it holds need not call it.

        Raises:
            InputError: the file is damaged or too large, or its content does not fit; says where.
            MissingExtraError: the format needs a package that is not installed.
            OSError: the file cannot be read.
        """
        ...


_EVIDENCE = 2**20
"""Numbers of an array that are looked at to find out what they mean."""


def table_of(
    where: str,
    array: NDArray[np.generic],
    settings: ReadingSettings,
    choose: Choose | None = None,
    *,
    positions: NDArray[np.float64] | None = None,
    unit: str = COUNTED,
    source: AxisSource = AxisSource.COUNTED,
    others: pd.DataFrame | None = None,
) -> Table:
    """An array (samples, channels) as a table whose columns have no names."""
    import pandas as pd

    if array.ndim == 1 and array.size:
        raise InputError(f"{where} holds one spectrum; a model of spectra needs at least two")
    if array.ndim != 2 or not array.size:
        raise InputError(f"{where} must hold an array (samples, channels), not one of shape {array.shape}")
    num, width = array.shape
    layout = Layout(list(range(width)), positions, unit, source=source, in_columns=settings.samples == "columns")
    first = 0
    if choose is not None:
        rows = array[: max(8, _EVIDENCE // width)].astype(np.float64)
        header = array_header(rows, settings, where)
        first = header.num_rows
        layout = choose(Head(where, header, without_markers(rows[first:], given_markers(settings)).astype(np.float64)))
    x, apart = of_file(array), [i for i in range(width) if i not in {*layout.columns, *layout.dropped}]

    def numbers_of(rows: NDArray[np.generic]) -> NDArray[np.floating]:
        chosen = rows if len(layout.columns) == width else rows[:, layout.columns]
        with np.errstate(over="ignore"):
            return without_markers(chosen.astype(default_dtype(), copy=False), given_markers(settings))

    if x is None or layout.in_columns:
        if x is not None:
            check_size(where, 3.0 * array.nbytes, settings.max_gib)
        numbers, beside = numbers_of(array[first:]), array[first:, apart]
    else:
        x = x[first:]
        beside = in_blocks(lambda rows: rows[:, apart], x).numpy()
        if first or len(layout.columns) < width or array.dtype != default_dtype() or given_markers(settings):
            x = in_blocks(lambda rows: torch.from_numpy(numbers_of(rows.numpy())), x)
        numbers = x.numpy()
    frame = pd.DataFrame({i: beside[:, k] for k, i in enumerate(apart)}, index=range(num - first))
    if others is not None:
        frame = pd.concat([frame, others], axis=1)
    rows_in_file = range(first + 1, num + 1)
    return Table(where, [""] * width, layout, rows_in_file, numbers, frame)


def array_header(rows: NDArray[np.float64], settings: ReadingSettings, where: str) -> Header:
    """The header of an array, which is the channels' positions if its first row looks like these."""
    from pyrovae.datasets.readers._header import header_of

    few = rows[:60]
    texts = [[repr(value) if np.isfinite(value) else "" for value in row] for row in few.tolist()]
    return header_of(texts, Numerals(), settings, where)


def default_dtype() -> type[np.floating]:
    """Numpy's name of torch's default dtype."""
    return np.float64 if torch.get_default_dtype() == torch.float64 else np.float32
