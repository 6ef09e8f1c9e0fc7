"""The format of a text file's lines: delimiter, quotes, and the beginning of the table."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pyrovae.datasets.readers._lines import DELIMITERS
from pyrovae.datasets.readers._names import axis_unit
from pyrovae.datasets.readers._numbers import MISSING
from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option

REMARKS = ("#", "%", "//", "!")
"""Signs at the beginning of lines that are not rows."""
_FEWEST = 8
_LIKE_A_NUMBER = re.compile(
    r"[+\-−]?(?:\d{1,3}(?:[.,'’ \u00a0\u202f\u2009]\d{3})+|\d+|(?=[.,]\d))(?:[.,]\d*)?(?:[eEdD][+-]?\d+)?"
)
_FORMULA = re.compile(r'(?:(?<=[\t;|, ])|^)="(?=[^"]*"(?:[\t;|, \r\n]|$))')


@dataclass(frozen=True)
class Dialect:
    """The format of the lines of a table.

    Attributes:
        delimiter: between fields; a space stands for any number of spaces and tabs.
        width: number of fields in a row.
        skip: number of lines before the table.
        comment: fields of a comment right above the table, if there are as many.
        quote: around fields.
    """

    delimiter: str
    width: int
    skip: int = 0
    comment: tuple[str, ...] | None = None
    quote: str = '"'

    @property
    def finding(self) -> Finding | None:
        """That lines were left out, if any were."""
        if not self.skip:
            return None
        what = "the first line left out" if self.skip == 1 else f"the first {self.skip} lines left out"
        they_have = "it has" if self.skip == 1 else "they have"
        return Finding(what, f"{they_have} fewer fields than the table's {self.width}", Option("delimiter"))


def dialect_of(lines: Sequence[str], settings: ReadingSettings, where: str) -> Dialect:
    """Find how a file's first lines are split into fields.

    Raises:
        InputError: they cannot be.
    """
    begin = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comments, table = lines[:begin], lines[begin:]
    if not table:
        raise InputError(f"{where} is empty")
    quote, part = _quote(table), table
    best = _delimiter(part, settings, quote, where)
    while len(part) > _FEWEST and (best is None or best[3] <= 0.75):  # few numbers: a long preamble, perhaps
        part = part[len(part) // 2 :]
        below = _delimiter(part, settings, quote, where)
        best = below if best is None or (below is not None and below[2] >= 2 * best[2]) else best
    if best is None:  # one column
        return Dialect(",", 1, begin)
    _, delimiter, width, _ = best
    rows = [cut(line, delimiter, quote) for line in table]
    skip = _preamble(rows, width, delimiter)
    comment = None
    if comments and not skip:
        fields = cut(comments[-1].lstrip("# \t"), delimiter, quote)
        numeric = _numeric_share([fields], delimiter)
        is_header = delimiter != " " or numeric > 0.5 or axis_unit(fields[0]) is not None
        comment = tuple(fields) if len(fields) == width and is_header else None
    return Dialect(delimiter, width, begin + skip, comment, quote)


def _delimiter(
    lines: Sequence[str], settings: ReadingSettings, quote: str, where: str
) -> tuple[tuple[bool, float, int], str, int, float] | None:
    """The best delimiter, after what speaks for it and before the number of fields and their share of numbers."""
    candidates = [settings.delimiter] if settings.delimiter else list(DELIMITERS)
    found = []
    for order, delimiter in enumerate(candidates):
        try:
            rows = [cut(line, delimiter, quote) for line in lines]
        except csv.Error as error:
            if len(candidates) == 1:
                raise InputError(f"{where}: its first rows cannot be split into fields: {error}") from None
            continue
        width, share = _width([len(row) for row in rows])
        if width > 1 or len(candidates) == 1:
            numeric = _numeric_share([row for row in rows if len(row) == width], delimiter)
            # spaces may also stand within names, such as "450 nm"
            score = numeric + share - (0.25 if delimiter == " " else 0.0)
            found.append(((share >= 0.6, round(score, 1), -order), delimiter, width, numeric))
    return max(found, default=None)


def _quote(lines: Sequence[str]) -> str:
    """The sign around fields: single quotes where most lines begin or end with one, and none has double ones."""
    ends = sum("'" in (line[0], line.rstrip()[-1:]) for line in lines)
    return "'" if 2 * ends > len(lines) and not any('"' in line for line in lines) else '"'


def cut(line: str, delimiter: str, quote: str = '"') -> list[str]:
    """The fields of one line."""
    blanks = delimiter == " "
    text = prepared(line, blanks=blanks, quote=quote)
    return next(csv.reader([text], delimiter=delimiter, quotechar=quote, skipinitialspace=not blanks))


def prepared(line: str, *, blanks: bool, quote: str) -> str:
    """A line as the reader of delimited text takes it.

    Texts that a spreadsheet wrote as formulas (``="1.2"``) lose their sign of equality. Where blanks are the
    delimiter, one space stands between fields, whatever the number of spaces and tabs.
    """
    if '="' in line:
        line = _FORMULA.sub('"', line)
    if not blanks:
        return line
    if quote in line:
        return " ".join(re.findall(rf"{quote}[^{quote}]*{quote}|[^ \t\r\n]+", line))
    return " ".join(line.split())


def _width(counts: Sequence[int]) -> tuple[int, float]:
    """The commonest number of fields, of equals the one that comes last, and its share."""
    common = Counter(counts).most_common()
    most = max(number for _, number in common)
    width = next(count for count in reversed(counts) if dict(common)[count] == most)
    return width, most / len(counts)


def _numeric_share(rows: Sequence[Sequence[str]], delimiter: str) -> float:
    """Which share of the fields are numbers, with a decimal point or comma; between commas without spaces in them."""
    cells = [field for row in rows for field in row[:: max(1, len(row) // 25)]]
    cells = [field.strip() for field in cells]
    known = [
        field.lower() in MISSING or (_LIKE_A_NUMBER.fullmatch(field) and (delimiter != "," or " " not in field))
        for field in cells
    ]
    return sum(map(bool, known)) / max(1, len(cells))


def _preamble(rows: Sequence[Sequence[str]], width: int, delimiter: str) -> int:
    """Number of lines before the table: remarks, or with at most half its fields, and three lines of the table after.

    Above two columns, words by two may stand among them, such as ``XUNITS`` and ``NM``.
    """
    counts = [len(row) for row in rows]
    if counts.count(width) < 3:
        return 0
    begin = counts.index(width)
    if width == 2:
        numeric = [len(row) == width and _numeric_share([row], delimiter) > 0.5 for row in rows]
        first = next((k for k in range(len(rows)) if all(numeric[k : k + 3])), 0)
        begin = max((k + 1 for k in range(first) if counts[k] != width), default=0)
        if any(numeric[:begin]):
            return 0
    before = zip(counts[:begin], rows[:begin], strict=True)
    few = (count == 1 or 2 * count <= width or width == 2 or row[0].startswith(REMARKS) for count, row in before)
    return begin if all(few) else 0
