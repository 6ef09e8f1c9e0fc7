"""Find where the samples of a table are: in rows, in columns, or in pairs of columns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._header import Header
from pyrovae.datasets.readers._names import Group, axis_unit, largest_group
from pyrovae.datasets.readers._order import counts_up, finite, in_order, nearly_in_order
from pyrovae.datasets.readers._replicates import names_samples
from pyrovae.datasets.readers.settings import NONE, ReadingSettings
from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option

_SMOOTH = 0.35
_ENOUGH = 5
_MOST_OF_LONG = 4
_WAVELENGTHS = 150.0, 20_000.0


class Kind(Enum):
    """How samples lie in a table."""

    ROWS = auto()
    COLUMNS = auto()
    PAIRS = auto()


@dataclass(frozen=True)
class Shape:
    """How samples lie in a table.

    Attributes:
        kind: in rows, in columns, or in pairs of columns.
        axis: the column of channel positions, if there is one.
        finding: if it was guessed.
    """

    kind: Kind
    axis: int | None = None
    finding: Finding | None = None


class _Strength(Enum):
    """How much a row or a column looks like an axis."""

    NONE = 0
    COUNTED = 1
    POSITIONS = 2


def shape_of(
    header: Header,
    numbers: NDArray[np.float64],
    numeric: list[int],
    settings: ReadingSettings,
    where: str,
    row_names: Group | None = None,
) -> Shape:
    """Where the samples are.

    Args:
        header: header of the table.
        numbers: numbers of all columns, shape (rows, columns), NaN where there is none.
        numeric: the columns of numbers that may be channels.
        settings: what the user says.
        where: what to call the table in errors.
        row_names: the first column, if all of its fields are named alike but for a number, such as ``450 nm``.

    Raises:
        InputError: nothing decides it, or there is no such column.
    """
    word, name = settings.axis_place
    if word == "row" and settings.samples == "columns":
        raise InputError("samples in columns have their axis in a column: pass ", Option("axis", "column"))
    if settings.samples == "rows" or word == "row" or not numeric:
        return Shape(Kind.ROWS)
    named = [i for i in numeric if axis_unit(header.axis_names[i]) is not None]
    first = named[0] if named else numeric[0]
    if not named and len(numeric) > 3 and counts_up(numbers[:, first]) and in_order(numbers[:, numeric[1]]):
        numeric = numeric[1:]  # a number of each row, before the axis
        first = numeric[0]
    if row_names is not None and (not name or name == "1"):
        shape = _by_row_names(header, numbers[:, numeric], numeric, row_names, settings, where)
        if shape is not None:
            return shape
    if word == "column":
        return Shape(Kind.COLUMNS, _column(header, name, where) if name else first)
    if settings.samples == "columns":
        has_axis = bool(named) or any(header.names) or in_order(numbers[:, first])
        return Shape(Kind.COLUMNS, None if word == NONE or not has_axis else first)
    if settings.channels is not None or word == NONE:
        return Shape(Kind.ROWS)
    return _by_evidence(header, numbers, numeric, first, bool(named), where)


def check_is_wide(numbers: NDArray[np.float64], numeric: list[int], header: Header, where: str) -> None:
    """Raise for a long table: one row for each value, beside its position and its spectrum.

    Its positions, five or more in order, come again and again: all of them by turns, or each of them several times.
    """
    if not numeric or len(numeric) > _MOST_OF_LONG:
        return
    found: list[tuple[bool, bool, int, int]] = []
    for i in numeric:
        column = numbers[:, i]
        count = len(np.unique(column))
        is_named, is_even = axis_unit(header.axis_names[i]) is not None, len(column) % count == 0
        if not np.isfinite(column).all() or count < _ENOUGH or count == len(column):
            continue
        by_turns = is_even and _is_tiled(column.reshape(-1, count))
        if is_named or by_turns or (is_even and _is_tiled(column.reshape(count, -1).T)):
            found.append((is_named, by_turns, count, i))
    if found:
        *_, count, i = max(found)
        raise InputError(
            f"{where}, column {i + 1}: the same {count} positions come again and again, so this is a long table, one "
            "row for each value; make it wide, one row for each spectrum and one column for each position (in Excel: "
            "Insert, PivotTable), or if the rows are spectra, say ",
            Option("samples", "rows"),
        )


def _is_tiled(rows: NDArray[np.float64]) -> bool:
    """Whether all rows are one and the same, in order."""
    return len(rows) > 1 and in_order(rows[0]) and bool((rows == rows[0]).all())


def _by_row_names(
    header: Header,
    data: NDArray[np.float64],
    numeric: list[int],
    row_names: Group,
    settings: ReadingSettings,
    where: str,
) -> Shape | None:
    """Whether names of rows, such as ``X450`` or ``450 nm``, are an axis; None if they are not evidence."""
    if settings.samples == "columns" or settings.axis is not None:
        return None if settings.axis == NONE else Shape(Kind.COLUMNS, 0)
    strength = _strength_of_header(header, numeric)
    if settings.channels is not None or len(data) < _ENOUGH or strength is _Strength.POSITIONS:
        return None
    if not in_order(row_names.positions):
        return None
    evidence = f"the names of the rows are positions ({row_names.title or row_names.unit} and a number)"
    down, across = _roughness(data.T), _roughness(data)
    if row_names.unit or (not row_names.is_counted and down < _SMOOTH and across > 2 * down):
        return Shape(Kind.COLUMNS, 0, _columns(evidence))
    if (
        down < _SMOOTH
        and across > 2 * down
        and not (row_names.is_counted and strength is _Strength.COUNTED and across < _SMOOTH)
    ):
        raise _divided(where, header, 0)
    return None


def _column(header: Header, name: str, where: str) -> int:
    """The column of this name or number."""
    if name in header.names:
        return header.names.index(name)
    if name.isdecimal() and 0 < int(name) <= len(header.names):
        return int(name) - 1
    raise InputError(f"{where} has no column {name!r} for the axis")


def _by_evidence(
    header: Header, numbers: NDArray[np.float64], numeric: list[int], first: int, is_named: bool, where: str
) -> Shape:
    others = [i for i in numeric if i != first]
    column, data = numbers[:, first], numbers[:, others]
    in_row = _strength_of_header(header, others)
    has_positions = in_row is _Strength.POSITIONS
    if not has_positions and (is_named or (len(column) >= _ENOUGH and in_order(column))):
        pairs = _pairs(numbers, numeric) if len(numeric) > 3 else None
        if pairs is not None or is_named:
            return pairs or Shape(Kind.COLUMNS, first)
    is_channel = has_positions and _strength_of_header(header, numeric, least=len(numeric)) is _Strength.POSITIONS
    if is_channel and not is_named:
        return Shape(Kind.ROWS)
    if not is_named and (len(column) < 4 or not nearly_in_order(column) or not others):
        return _without_axis(numbers[:, numeric], numeric, header, where, has_positions)
    counted = counts_up(column)
    if len(others) == 1 and not counted and not has_positions:
        return Shape(Kind.COLUMNS, first, _columns("the first of two columns is in order: one spectrum"))
    down_alone, across_alone = directions(data)
    if down_alone and not (has_positions and counted):
        if np.mean([in_order(values) for values in data.T]) > 0.2:
            raise _divided(where, header, first)
        evidence = "the first column is in order, and the others are smooth down the rows and not across"
        return Shape(Kind.COLUMNS, first, _columns(evidence))
    if across_alone or (not (is_named or down_alone) and counted):
        counts_them = None if across_alone or has_positions else _rows("the first column counts them")
        return Shape(Kind.ROWS, finding=counts_them)
    if not (is_named or down_alone) and has_positions and header.names[first]:
        return _by_ranges(header, column, others, first, where)
    raise _divided(where, header, first)


def _by_ranges(header: Header, column: NDArray[np.float64], others: list[int], first: int, where: str) -> Shape:
    """Which of two axes, one in the header and one in the first column, holds the channels, by their values."""
    group = largest_group([header.axis_names[i] for i in others])
    if group is None or group.unit or group.prefix or names_samples(header.names[first]):
        return Shape(Kind.ROWS)
    in_header, in_column = _are_wavelengths(group.positions), _are_wavelengths(column)
    if in_header == in_column:
        raise _divided(where, header, first)
    if in_column:
        return Shape(Kind.COLUMNS, first, _columns("the first column holds wavelengths, by their size, and no row"))
    return Shape(Kind.ROWS, finding=_rows("the header holds wavelengths, by their size, and the first column does not"))


def _are_wavelengths(values: NDArray[np.float64]) -> bool:
    """Whether all values may be nanometres or reciprocal centimetres, as temperatures in °C and times seldom may."""
    low, high = _WAVELENGTHS
    return bool(np.nanmin(values) >= low and np.nanmax(values) <= high)


def _without_axis(
    data: NDArray[np.float64], numeric: list[int], header: Header, where: str, has_positions: bool
) -> Shape:
    """Samples in rows, where the first column is no axis, unless the last one is or the values contradict."""
    at_end, (down_alone, across_alone) = data[:, -1], directions(data[:, :-1])
    may_be_axis = len(numeric) > 1 and len(at_end) >= _ENOUGH and nearly_in_order(at_end) and not counts_up(at_end)
    if may_be_axis and down_alone:
        raise _divided(where, header, numeric[-1], Option("axis", f"column:{numeric[-1] + 1}"))
    if has_positions or across_alone:
        return Shape(Kind.ROWS)
    if min(data.shape) >= _ENOUGH and directions(data[:, 1:-1])[0]:  # labels may be at the edges
        raise InputError(
            f"{where}: the values are smooth down the columns and not across the rows: if a column is a spectrum, "
            "samples are in columns, say ",
            Option("samples", "columns"),
            "; if a row is a sample, say ",
            Option("samples", "rows"),
        )
    return Shape(Kind.ROWS, finding=_rows("nothing says that they are in columns"))


def _rows(evidence: str) -> Finding:
    return Finding("samples in rows", evidence, Option("samples", "columns"))


def directions(data: NDArray[np.float64]) -> tuple[bool, bool]:
    """Whether data are smooth down the rows alone, or across them alone."""
    down, across = _roughness(data.T), _roughness(data)
    factor = 20 if max(down, across) < _SMOOTH else 2
    return down < _SMOOTH and across > factor * down, across < _SMOOTH and down > factor * across


def _columns(evidence: str) -> Finding:
    return Finding("samples in columns", evidence, Option("samples", "rows"))


def _divided(where: str, header: Header, first: int, says_axis: Option | None = None) -> InputError:
    name = f" ({header.names[first]!r})" if header.names[first] else ""
    return InputError(
        f"{where}, column {first + 1}{name}: the column is in order: if it is the channels' axis, samples are in "
        "columns, say ",
        says_axis or Option("samples", "columns"),
        "; if it belongs to the samples, they are in rows, say ",
        Option("samples", "rows"),
    )


def _strength_of_header(header: Header, columns: list[int], least: int = 0) -> _Strength:
    """How much the names of columns look like an axis, of more than half of them and of so many."""
    group = largest_group([header.axis_names[i] for i in columns])
    fewest = max(least, len(columns) // 2 + 1)
    if group is None or len(group.members) < fewest or not in_order(group.positions):
        return _Strength.NONE
    return _Strength.COUNTED if group.is_counted else _Strength.POSITIONS


def _pairs(numbers: NDArray[np.float64], numeric: list[int]) -> Shape | None:
    """Columns of positions and of values by turns, from the first on."""
    if len(numeric) < 4 or len(numeric) % 2 or len(numbers) < _ENOUGH:
        return None
    axes = all(in_order(finite(numbers[:, i])) for i in numeric[::2])
    values = sum(in_order(finite(numbers[:, i])) for i in numeric[1::2])
    if not axes or 4 * values > len(numeric[1::2]):
        return None
    evidence = "each second column is in order, from the first on"
    finding = Finding("pairs of columns, positions and values", evidence, Option("samples", "rows"))
    return Shape(Kind.PAIRS, numeric[0], finding)


def _roughness(rows: NDArray[np.float64]) -> float:
    """Von Neumann's ratio along rows, the median over them: about 1 of noise, near 0 of what is smooth."""
    rows = rows[:: max(1, len(rows) // 200), :5000]
    if rows.shape[1] < 3:
        return np.inf
    found = []
    for row in rows:
        values = finite(row)
        if len(values) > 2 and values.var() > 0:
            found.append(np.square(np.diff(values)).mean() / (2 * values.var()))
    return float(np.median(found)) if found else np.inf
