"""Rows of fields from the lines of a text file; other lines are left out and reported."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from pyrovae.datasets.readers._dialect import REMARKS, Dialect, prepared
from pyrovae.datasets.readers._lines import Line
from pyrovae.datasets.readers._names import largest_group, number
from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option

Row: TypeAlias = tuple[int, list[str]]
"""Fields of a row, and its number in the file, counted from 1."""

_MOST_BELOW, _NARROW = 20, 3
_FOOTER = re.compile(r"#{3,}\s*\w.*|\[\w[\w /-]*\]")
"""The first line of sections below a table, such as ``##### Extended Information``."""
_END = re.compile(r"\W*(the )?(end|eof|ende|fin|fine)\b.*", re.IGNORECASE)


class Rows:
    """The rows of a table, as many fields in each as in the first.

    Remarks between the rows (``# lamp replaced``) and words below the table are left out.

    Args:
        lines: from the table's first on.
        dialect: how they are cut.
        where: what to call the file in errors.

    Attributes:
        findings: what was left out, once all rows are read.
    """

    def __init__(self, lines: Iterator[Line], dialect: Dialect, where: str) -> None:
        self._lines, self._dialect, self._where = lines, dialect, where
        self._of_row: list[int] = []  # lines of one row, several if a quoted field continues
        self._is_complete = True
        self.findings: list[Finding] = []

    def __iter__(self) -> Iterator[Row]:
        """The rows, in order.

        Raises:
            InputError: a row has more fields than the first, or fewer, or cannot be cut.
        """
        width = 0
        short: Row | None = None  # a header that lacks a field
        remarks: list[Row] = []
        below: list[Row] = []
        last: Row = (0, [""])
        footer: Row | None = None
        signs: tuple[str, ...] = REMARKS  # that no row of the table begins with
        for row, fields in self._cut():
            if not width:
                width, is_short = self._width(fields)
                if is_short:
                    short = row, fields
                    continue
            elif short is not None:
                yield short[0], _lengthened(short, fields, self._where)
                short = None
            if len(fields) > width and not any(fields[width:]):
                fields = fields[:width]
            if last[0] and _FOOTER.fullmatch("".join(fields).strip()):
                footer = row, fields
                break
            if len(fields) == width:
                if below:
                    raise _uneven(self._where, below[0], width, last[0])
                if fields[0][:1] in signs and row > 1:
                    signs = tuple(sign for sign in signs if not fields[0].startswith(sign))
                last = row, fields
                yield last
            elif fields[0].startswith(signs):
                remarks.append((row, fields))
            else:
                below.append((row, fields))
                if len(below) > _MOST_BELOW or not _are_words(fields) or _may_be_sample(below[0], last):
                    raise _uneven(self._where, below[0], width, last[0])
        if footer is not None:
            self._leave_out(footer, width, last)
        if short is not None:
            yield short
        if below and not self._is_complete and below[-1][1][0][0].isalnum():  # a torn row, perhaps
            raise _uneven(self._where, below[-1], width)
        for rows, what in ((remarks, "it is a remark"), (below, "it has words alone, below the table")):
            self.findings += [_left_out(*row, what) for row in rows[:3]]

    def _leave_out(self, footer: Row, width: int, last: Row) -> None:
        """Leave the sections below a table out, if there is no table among them."""
        end = footer[0]
        for row, fields in self._cut():
            end = row
            if len(fields) > 1 and 2 * sum(number(field.strip()) is not None for field in fields) > len(fields):
                raise _uneven(self._where, footer, width, last[0])
        shown = "".join(footer[1]).strip()[:30]
        what = f"rows {footer[0]} to {end} left out ({shown!r})"
        self.findings.append(Finding(what, "they are sections of words below the table"))

    def _width(self, first: Sequence[str]) -> tuple[int, bool]:
        """Number of fields in a row, and whether the first row lacks one."""
        width, found = self._dialect.width, len(first)
        if found == width - 1 and width > 2:
            return width, True
        return (width if found > width and not any(first[width:]) else found), False

    def _cut(self) -> Iterator[Row]:
        """Rows that are not empty."""
        dialect = self._dialect
        rows = csv.reader(
            self._texts(),
            delimiter=dialect.delimiter,
            quotechar=dialect.quote,
            skipinitialspace=dialect.delimiter != " ",
            strict=True,
        )
        try:
            for fields in rows:
                row = self._of_row[0]
                self._of_row.clear()
                if any(fields):  # else delimiters alone, as spreadsheets write below a table
                    yield row, fields
        except csv.Error as error:
            raise InputError(f"{self._where}, row {self._of_row[0] if self._of_row else 1}: {error}") from None

    def _texts(self) -> Iterator[str]:
        blanks, quote = self._dialect.delimiter == " ", self._dialect.quote
        for row, line in self._lines:
            self._of_row.append(row)
            self._is_complete = line.endswith(("\n", "\r"))
            if "\0" in line:
                column = line[: line.index("\0")].count(self._dialect.delimiter) + 1
                raise InputError(
                    f"{self._where}, row {row}, column {column}: the file is not text (it holds a zero byte)"
                )
            yield prepared(line, blanks=blanks, quote=quote)


class Samples:
    """Leaves out rows of a table that say what a row of its header says, word by word, and words below it.

    Files that were joined repeat the header. Spreadsheets write a note below a table with empty fields beside it.

    Args:
        header: the fields of its rows.

    Attributes:
        findings: which rows were left out, once all are read.
    """

    def __init__(self, header: Sequence[Sequence[str]]) -> None:
        self._header = [list(map(str.strip, fields)) for fields in header if sum(map(bool, fields)) > 1]
        self._firsts = {fields[0] for fields in self._header}
        self.findings: list[Finding] = []

    def among(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The other rows."""
        last: Row | None = None
        notes: list[Row] = []
        for row, fields in rows:
            if fields[0].strip() in self._firsts and [field.strip() for field in fields] in self._header:
                option = Option("axis", "none")
                self.findings.append(Finding(f"row {row} left out", "it repeats the header", option))
            elif last is not None and len(fields) > _NARROW and len(notes) < _MOST_BELOW and _are_words(fields):
                notes.append((row, fields))
            else:
                yield from notes
                notes.clear()
                last = row, fields
                yield last
        if last is not None and any(_may_be_sample(note, last) for note in notes):
            yield from notes
        else:
            self.findings += [_left_out(*note, "it has words alone, below the table") for note in notes[:3]]


def _left_out(row: int, fields: Sequence[str], what: str) -> Finding:
    shown = " ".join(fields).strip()
    return Finding(f"row {row} left out ({shown[:30]!r}{'…' if len(shown) > 30 else ''})", what)


def _are_words(fields: Sequence[str]) -> bool:
    """Whether one or two fields of a row say something, and none is a number."""
    said = [field for field in fields if field.strip()]
    return len(said) <= 2 and all(number(field) is None for field in said)


def _may_be_sample(row: Row, last: Row) -> bool:
    """Whether a row below the last one may begin a sample: a name like the last, or one word right below a name."""
    first, name = row[1][0].strip(), last[1][0].strip()
    if _END.fullmatch(first):
        return False
    if re.sub(r"\d+", "0", first) == re.sub(r"\d+", "0", name):
        return True
    is_apart = row[0] > last[0] + 1 or not first[:1].isalnum() or re.search(r"[\s:]", " ".join(row[1]).strip())
    return not is_apart and number(name) is None


def _uneven(where: str, row: Row, expected: int, last: int | None = None) -> InputError:
    """The error for a row of another length; the last row before it tells whether an empty one is between."""
    found = len(row[1])
    parts: tuple[str | Option, ...] = ()
    if last is not None and row[0] > last + 1:
        parts = ("; if another table begins there, leave it out with ", Option("drop_rows", f"{row[0]}:"))
    elif last is not None:
        parts = ("; correct it, or leave it out with ", Option("drop_rows", f"{row[0]}:{row[0]}"))
    return InputError(
        f"{where}, row {row[0]}, column {min(found, expected) + 1}: the row has {found} fields, the first one "
        f"{expected}",
        *parts,
    )


def _lengthened(header: Row, below: list[str], where: str) -> list[str]:
    """A header with a field for a column without a name: the first, of row names, or the last, which is empty."""
    row, names = header
    if below and not below[-1].strip() and len(below) == len(names) + 1:
        return [*names, ""]
    group = largest_group(names)
    if group is not None and 0 in group.members and len(below) == len(names) + 1:
        return ["", *names]
    raise _uneven(where, (row + 1, below), len(names))
