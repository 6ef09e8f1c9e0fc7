"""Find which of a table's first rows are not data: names, groups, units, or the channels' positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._labels import follows
from pyrovae.datasets.readers._names import axis_unit, largest_group, with_points
from pyrovae.datasets.readers._numbers import Numerals
from pyrovae.datasets.readers._order import finite, in_order, is_even, is_outside, nearly_in_order, stands_out
from pyrovae.datasets.readers.settings import NONE, ReadingSettings
from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option

_MOST_ROWS = 4
_LABELS = frozenset((
    "label", "labels", "class", "classes", "target", "id", "ids", "sample", "samples", "name", "names", "group",
    "species", "type", "index", "no", "nr", "number", "#",
))  # fmt: skip


@dataclass(frozen=True)
class Header:
    """The rows above the data.

    Attributes:
        num_rows: how many there are.
        names: names of the columns, empty where they have none.
        axis_names: in each column, what the row that holds the channels' positions says; the names where none does.
        corner: what the row of positions says of them, in a column that is not a channel, such as ``"nm"``.
        others: the rows that are neither.
        is_own_row: whether the positions stand below the names.
        findings: what was guessed.
    """

    num_rows: int
    names: list[str]
    axis_names: list[str]
    corner: str = ""
    others: tuple[list[str], ...] = ()
    is_own_row: bool = False
    findings: tuple[Finding, ...] = ()


def header_of(rows: Sequence[list[str]], numerals: Numerals, settings: ReadingSettings, where: str) -> Header:
    """The header of a table, from its first rows.

    Raises:
        InputError: the first row may be positions or data, and nothing decides it.
    """
    rows = [[field.strip() for field in row] for row in rows]
    peek = _Peek(rows, numerals, where)
    padded = peek.padded()
    peek.begin = padded
    given = _given_row(settings)
    kinds: list[str] = []
    findings: list[Finding] = []
    if padded:
        what, fields = ("the first row", "its") if padded == 1 else (f"the first {padded} rows", "their")
        findings.append(Finding(f"{what} left out", f"most of {fields} fields are empty"))
    for k in range(padded, min(len(rows) - 1, padded + _MOST_ROWS)):
        if given is not None and k == given:
            kind = "axis"
        elif given is not None and k < given:
            kind = "names"
        elif settings.axis == NONE and not peek.is_words(k):
            break
        else:
            is_names = kinds and (peek.is_title(k) or ("names" in kinds and peek.is_about(k)))
            kind = "names" if is_names else peek.kind(k, "axis" in kinds)
            if not kind:
                break
            if kind == "axis?":
                kind = "axis"
                findings.append(Finding(f"row {k + 1} as the axis", "it alone is in order", Option("axis", NONE)))
        kinds.append(kind)
    if not kinds and len(rows) == 1 and peek.text[0].any():
        kinds = ["names"]
    above = rows[padded - 1] if padded else [""] * len(rows[0])
    header = _header(rows[padded:], kinds, padded, findings, peek, above)
    names, found = header.axis_names, with_points(header.axis_names)
    if found is None or set(settings.channels or ()) & set(names):
        return header
    as_read = next(f"{a!r} as {b!r}" for a, b in zip(names, found, strict=True) if a != b)
    finding = Finding(as_read, "all names beside are written so", Option("axis", NONE))
    return replace(header, axis_names=found, findings=(*header.findings, finding))


def _given_row(settings: ReadingSettings) -> int | None:
    """The row of positions that the user names, counted from 0."""
    word, number = settings.axis_place
    return int(number or 1) - 1 if word == "row" and (not number or number.strip("0").isdecimal()) else None


class _Peek:
    """The first rows as numbers, and what kinds of rows they are."""

    def __init__(self, rows: Sequence[list[str]], numerals: Numerals, where: str) -> None:
        self.rows, self.numerals, self.where = rows, numerals, where
        # apart, as text above makes all columns below slow
        parts = [numerals.array(part) for part in (rows[:_MOST_ROWS], rows[_MOST_ROWS:]) if part]
        self.values = np.concatenate([values for values, _ in parts])
        self.text = np.concatenate([np.zeros(v.shape, dtype=np.bool_) if t is None else t for v, t in parts])
        below = self.text[min(_MOST_ROWS, max(1, len(rows) // 2)) :] if len(rows) > 1 else self.text
        is_empty = np.isnan(self.values).all(0) & ~self.text.any(0)
        self.numeric = (below.mean(0) <= 0.5) & ~is_empty
        self.begin = 0

    def padded(self) -> int:
        """Number of rows at the top of which most fields are empty, above another row that is not data."""
        width = len(self.rows[0])
        filled = [sum(field != "" for field in row) for row in self.rows[: 2 * _MOST_ROWS + 12]]
        count = next((k for k, number in enumerate(filled) if 2 * number > width or width < 4), 0)
        return count if count < len(self.rows) - 1 and not any(self.numbers_in(k) > 1 for k in range(count)) else 0

    def numbers_in(self, k: int) -> int:
        """Number of fields of a row that are numbers."""
        return int(np.isfinite(self.values[k]).sum())

    def is_words(self, k: int) -> bool:
        """Whether more than half of a row's fields in columns of numbers are text."""
        return bool(self.text[k, self.numeric].sum() * 2 > self.numeric.sum()) if self.numeric.any() else k == 0

    def kind(self, k: int, has_axis: bool) -> str:
        """``names``, ``axis``, ``axis?`` (guessed) or nothing for data."""
        texts = int(self.text[k, self.numeric].sum())
        if self.is_words(k):
            return "axis" if not has_axis and self._names_positions(k) else "names"
        first = k == self.begin
        chosen = self._without_corners(k)
        if has_axis or (not first and self.text[k, chosen].any()):
            return ""
        row, rest = self.values[k, chosen], self.values[k + 1 :, chosen]
        numbers = row[np.isfinite(row)]
        if len(numbers) < 2 or len(rest) == 0:
            return "names" if texts else ""
        if len(chosen) == 2 and len(rest) >= 4 and nearly_in_order(self.values[k:, chosen[0]]) and not texts:
            return ""  # of one spectrum, in two columns
        outside = is_outside(numbers, rest)
        if first and texts:
            return self._mixed(k, numbers, chosen, outside)
        if not np.isfinite(row).all():
            return ""
        if not first:
            return self._below_names(k, row, rest)
        if is_even(numbers):
            alike = sum(is_even(finite(r)) for r in rest)
            if outside or 2 * alike < len(rest):
                return "axis"
            raise self._divided(k, "is evenly spaced, as other rows are")
        if outside:
            return "axis"
        found = stands_out(numbers, rest)
        if found == "divided" and not self._label_says_data(k):
            raise self._divided(k, "is in order, as few other rows are")
        if found == "axis":
            return "axis?"
        return "names" if self._label_says_names(k) else ""

    def _below_names(self, k: int, row: NDArray[np.float64], rest: NDArray[np.float64]) -> str:
        """A row of numbers below names: the axis, if it is in order, and below units or even as no other row is."""
        if len(row) > 2 and in_order(row) and axis_unit(_said_again(self.rows[k - 1], self.numeric)):
            return "axis"
        if len(row) < 5 or len(rest) < 2 or not in_order(row):
            return ""
        alike = any(is_even(finite(r)) for r in rest)
        if not ((is_even(row) and not alike) or is_outside(row, rest) or stands_out(row, rest) == "axis"):
            return ""
        fields = [self.rows[k][j] for j in np.flatnonzero(~self.numeric)]
        has_words = self.text[k, self.numeric].any() or any(
            not field or axis_unit(field) is not None or field.lower() in _LABELS for field in fields
        )
        if fields and not has_words:
            raise self._divided(k, "is evenly spaced or in order, as no other row is")
        return "axis"

    def _without_corners(self, k: int) -> NDArray[np.int64]:
        """The columns of numbers, without those at the edges where a row says nothing, or names the axis."""
        columns = np.flatnonzero(self.numeric)
        if self.is_padded_by_zero(k):
            columns = columns[1:]
        said = self.text[k] | np.isfinite(self.values[k])
        if k > self.begin:
            said &= ~self.text[k]  # words above an edge, below a first row of the header
        filled = np.flatnonzero([said[j] and axis_unit(self.rows[k][j]) is None for j in columns])
        if len(filled) == 0 or filled[0] > _MOST_ROWS or len(columns) - 1 - filled[-1] > _MOST_ROWS:
            return columns
        return columns[filled[0] : filled[-1] + 1]

    def is_padded_by_zero(self, k: int) -> bool:
        """Whether a first 0 fills the corner of a matrix, above a column of labels and beside positions."""
        row = self.values[k, self.numeric]
        if len(row) < 6 or row[0] != 0 or not np.isfinite(row).all() or not in_order(row[1:]):
            return False
        return bool(abs(row[1]) > 5 * np.abs(np.diff(row[1:])).max())

    def is_title(self, k: int) -> bool:
        """Whether a row says nothing but what its column holds, such as ``Wavelength`` above an axis."""
        said = [field for field in self.rows[k] if field]
        return len(said) == 1 and (axis_unit(said[0]) is not None or said[0].lower() in _LABELS)

    def is_about(self, k: int) -> bool:
        """Whether a row below the names says something of samples in columns: a word, above an axis in order."""
        columns = np.flatnonzero(self.numeric)
        if len(columns) < 4 or not self.text[k, columns[0]] or self.text[k, columns[1:]].any():
            return False
        if axis_unit(self.rows[k][columns[0]]) is not None or in_order(self.values[k, columns[1:]]):
            return False  # the axis of samples in rows
        next_row = self.values[k + 1, columns[1:]]
        if follows(self.values[k, columns[1:]], next_row, 0.5):
            return False  # values of a channel whose position is damaged
        below = [row for row in range(k + 1, len(self.rows)) if not self.text[row, columns[0]]]
        return (
            len(below) >= len(self.rows) - 1 - _MOST_ROWS
            and len(below) >= 5
            and in_order(self.values[below, columns[0]])
        )

    def _names_positions(self, k: int) -> bool:
        """Whether most columns of numbers are named by positions, such as ``450 nm``."""
        columns = np.flatnonzero(self.numeric)
        found = largest_group([self.rows[k][j] for j in columns])
        if found is None or found.is_counted or 2 * len(found.members) <= len(columns):
            return False
        return len(set(found.positions.tolist())) == len(found.positions)

    def _mixed(self, k: int, numbers: NDArray[np.float64], inside: NDArray[np.int64], outside: bool) -> str:
        """The first row, with some text in columns of numbers: names beside positions, or data with a fault."""
        words = self.text[k, inside]
        amid = words[np.argmin(words) : len(words) - np.argmin(words[::-1])].any()
        if outside or is_even(numbers) or (in_order(numbers) and not amid) or (not amid and len(numbers) < 5):
            return "axis"
        if not words.any() or self.is_words(k + 1):
            return "names"  # numbers of samples, beside a corner that names the axis, or above their names
        column = int(inside[np.flatnonzero(words)[0]])
        raise InputError(
            f"{self.where}, row {k + 1}, column {column + 1}: {self.rows[k][column][:40]!r} is not a number, and the "
            "row's numbers are not in order as a header's would be; correct it, or say with ",
            Option("axis", "row"),
            " that the row is a header",
        )

    def _label_says_names(self, k: int) -> bool:
        """Whether a field in a column of text is a name: a word that labels have, or unlike all that come again."""
        for j in np.flatnonzero(~self.numeric):
            rest = [row[j] for row in self.rows[k + 1 :]]
            field = self.rows[k][j]
            if field.lower() in _LABELS or (field not in rest and len(set(rest)) < len(rest) / 2):
                return True
        return False

    def _label_says_data(self, k: int) -> bool:
        """Whether a field in a column of text comes again below."""
        return any(self.rows[k][j] in [row[j] for row in self.rows[k + 1 :]] for j in np.flatnonzero(~self.numeric))

    def _divided(self, k: int, what: str) -> InputError:
        option = Option("axis", "row" if k == 0 else f"row:{k + 1}")
        return InputError(
            f"{self.where}, row {k + 1}: the row {what}: is it the channels' positions or data? say so with ",
            option,
            " or ",
            Option("axis", NONE),
        )


def _header(
    rows: Sequence[list[str]], kinds: list[str], skipped: int, findings: list[Finding], peek: _Peek, above: list[str]
) -> Header:
    """The header that rows of these kinds make, with names from the mostly empty row above where they have none."""
    width = len(rows[0])
    if not kinds:
        return Header(skipped, [""] * width, [""] * width, findings=tuple(findings))
    axis = kinds.index("axis") if "axis" in kinds else None
    numeric = peek.numeric
    full = [k for k in range(len(kinds)) if 2 * sum(map(bool, rows[k])) > width]
    names_alone = [k for k in full if not _are_groups(rows[k], numeric)] or [0]
    titled = [k for k in names_alone if any(axis_unit(field) is not None for field in rows[k][:_MOST_ROWS])]
    of_units = [k for k in titled if len(names_alone) > 1 and _said_again(rows[k], numeric)]  # below the names
    base = axis if axis is not None else ([k for k in titled if k not in of_units] or names_alone)[0]
    first = list(rows[base])
    for k in of_units:
        first = [unit if axis_unit(unit) is not None else name for unit, name in zip(rows[k], first, strict=True)]
    order = [k for k in range(len(kinds)) if k != axis]
    said = {k: _said_again(rows[k], numeric) for k in order if k > 0 or axis is not None}
    units = [k for k, word in said.items() if axis_unit(word)]
    own_words = [k for k in order if not said.get(k) and k in names_alone]
    names, corner = list(first), ""
    if axis is not None:
        if peek.is_padded_by_zero(skipped + axis):
            first[int(np.flatnonzero(numeric)[0])] = ""
        for j in range(width):
            if not (numeric[j] and first[j] and np.isfinite(peek.values[skipped + axis, j])):
                names[j] = _name([rows[k][j] for k in own_words], first[j], [rows[k][j] for k in order])
        corner = next((f for f in [*first, *above] if f and axis_unit(f) is not None), "")
    if any(axis_unit(field) is not None for field in above):
        names = [name or field for name, field in zip(names, above, strict=True)]
    if not corner and units:
        corner = said[units[0]]
    others = tuple(rows[k] for k in order if k not in units and k != base)
    own = axis is not None and axis > 0
    axis_names = peek.numerals.names(first, f"{peek.where}, row {skipped + base + 1}")
    return Header(skipped + len(kinds), names, axis_names, corner, others, own, tuple(findings))


def _name(others: Sequence[str], own: str, last: Sequence[str]) -> str:
    """A column's name: what another row than the axis's says, or what that says unless it names the axis."""
    candidates = [*others, own if axis_unit(own) is None else "", *last, own]
    return next(filter(None, candidates), "")


def _are_groups(row: Sequence[str], numeric: NDArray[np.bool_]) -> bool:
    """Whether a row says a few words again and again, as groups of columns above their names do."""
    fields = [field for field, is_number in zip(row, numeric, strict=True) if is_number and field]
    return len(fields) > 3 * len(set(fields))


def _said_again(row: Sequence[str], numeric: NDArray[np.bool_]) -> str:
    """The word that a row says in most columns of numbers, such as a unit; else nothing."""
    fields = [field for field, is_number in zip(row, numeric, strict=True) if is_number]
    word, count = Counter(fields).most_common(1)[0] if fields else ("", 0)
    return word if count > 2 and 2 * count > len(fields) else ""
