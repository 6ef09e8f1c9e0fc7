"""The format of a text file: encoding, lines, delimiter, and the beginning of the table."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from pyrovae.datasets.readers._channels import axis_unit
from pyrovae.datasets.readers._numbers import MISSING
from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option, one_line

Binary: TypeAlias = io.BufferedReader | gzip.GzipFile
Line: TypeAlias = tuple[int, str]
"""A line and its number, counted from 1."""

DELIMITERS = "\t;|, "
REMARKS = ("#", "%", "//", "!")
"""Signs at the beginning of lines that are not rows."""
_START = 2**16
_FEWEST = 8
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_MARKUP = re.compile(rb'\s*(<(\?xml|!doctype|html|table)|\{\s*"|\{\\rtf|\[\s*[\[{])', re.IGNORECASE)
_OLD_MAC = re.compile(rb"\r(?![\r\n]|\Z)")
_LIKE_A_NUMBER = re.compile(
    r"[+\-−]?(?:\d{1,3}(?:[.,'’ \u00a0\u202f\u2009]\d{3})+|\d+|(?=[.,]\d))(?:[.,]\d*)?(?:[eEdD][+-]?\d+)?"
)
_FORMULA = re.compile(r'(?:(?<=[\t;|, ])|^)="(?=[^"]*"(?:[\t;|, \r\n]|$))')


class Decoder:
    """Turns a file's bytes into text and knows in which encoding.

    Without an encoding that is given, it is UTF-8, UTF-16 by its mark or its zero bytes, or else Windows-1252, of which
    Latin-1 is a part.

    Args:
        where: what to call the file in errors.
        start: its first bytes.
        given: the encoding, None to find it.
    """

    def __init__(self, where: str, start: bytes, given: str | None) -> None:
        self.where, self.encoding, self.is_given = where, given or _encoding_of(start), given is not None
        self.guessed = not self.is_given and self.encoding.startswith("utf-16-")
        self._has_multibyte = False
        marked = start[:2] in (b"\xff\xfe", b"\xfe\xff")
        if self.is_given and marked and not re.search("16|32", self.encoding):
            raise InputError(f"{where}, row 1, column 1: the file is UTF-16; pass ", Option("encoding", "utf-16"))

    @property
    def is_wide(self) -> bool:
        """Whether a character is always of several bytes."""
        return re.search("16|32", self.encoding) is not None

    @property
    def finding(self) -> Finding | None:
        """The encoding, where it was guessed."""
        if not self.guessed:
            return None
        return Finding(f"encoding {self.encoding}", "the text is not utf-8", Option("encoding"))

    def text(self, row: int, line: bytes) -> str:
        """A line's text."""
        if row == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.isascii() and not self.is_given:
            return line.decode("ascii")
        try:
            found = line.decode(self.encoding)
        except UnicodeDecodeError as error:
            if self.is_given or self.encoding != "utf-8" or self._has_multibyte:
                raise self._error(row, line, error) from None
            self.encoding, self.guessed = "cp1252", True
            return self.text(row, line)
        if self.encoding == "cp1252" and not self.is_given:
            self._check_not_utf8(row, line)
        self._has_multibyte = True
        return found

    def _check_not_utf8(self, row: int, line: bytes) -> None:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return
        raise InputError(f"{self.where}, row {row}: some text is utf-8 and some is not; pass ", Option("encoding"))

    def _error(self, row: int, line: bytes, error: UnicodeDecodeError) -> InputError:
        before = line[: error.start]
        column = 1 + max(before.count(d.encode()) for d in DELIMITERS[:-1])
        return InputError(
            f"{self.where}, row {row}, column {column}: byte 0x{line[error.start]:02x} is not {self.encoding}; pass "
            "the file's ",
            Option("encoding"),
            ", such as 'latin-1'",
        )


def _encoding_of(start: bytes) -> str:
    if start[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    even, odd = start[::2], start[1::2]
    for zeros, others, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if len(start) >= 20 and zeros.count(0) > 0.7 * len(zeros) and not others.count(0):
            return name
    return "utf-8"


def lines_of(binary: Binary, settings: ReadingSettings, where: str, longest_row: int) -> tuple[Decoder, Iterator[Line]]:
    """The decoder of a file, and its lines that are not empty."""
    try:
        start = binary.read(_START)
        binary.seek(0)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{where} is damaged after row 0: {one_line(error)}") from None
    decoder = Decoder(where, start, settings.encoding)
    if not decoder.is_wide and len(_BINARY.findall(start)) > max(8, len(start) / 50):
        raise InputError(f"{where} is not text, and in no format that pyrovae reads: save its numbers as a table (CSV)")
    if _MARKUP.match(start):
        raise InputError(f"{where} is a page of the web, XML, JSON or RTF, and no table: save its numbers as CSV")
    return decoder, _lines(binary, decoder, _OLD_MAC.search(start) is not None, longest_row)


def _lines(binary: Binary, decoder: Decoder, old_mac: bool, longest_row: int) -> Iterator[Line]:
    row, where = 0, decoder.where
    try:
        if decoder.is_wide:
            wide = io.TextIOWrapper(binary, encoding=decoder.encoding, newline="")
            try:
                for row, text in enumerate(iter(lambda: wide.readline(longest_row), ""), 1):
                    _check_length(where, row, len(text), longest_row)
                    if text.strip():
                        yield row, text
            finally:
                with suppress(ValueError):  # closed already
                    wide.detach()  # else it closes the file
            return
        pieces = _pieces(binary, longest_row) if old_mac else iter(lambda: binary.readline(longest_row), b"")
        for row, line in enumerate(pieces, 1):
            _check_length(where, row, len(line), longest_row)
            if not line.isspace():
                yield row, decoder.text(row, line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{where} is damaged after row {row}: {one_line(error)}") from None
    except UnicodeError as error:
        raise InputError(
            f"{where}, row {row + 1}: the text is not {decoder.encoding} ({error}); pass the file's ",
            Option("encoding"),
        ) from None


def _pieces(binary: Binary, longest_row: int) -> Iterator[bytes]:
    """Lines of which some end in a carriage return alone."""
    rest = b""
    while block := binary.read(_START):
        *lines, rest = re.split(rb"\r?\n|\r(?!\Z)", rest + block)
        yield from (line + b"\n" for line in lines)
        if len(rest) >= longest_row:
            break
    if rest:
        yield rest[:longest_row]


def _check_length(where: str, row: int, length: int, longest_row: int) -> None:
    if length >= longest_row:
        raise InputError(f"{where}, row {row}: the row is longer than {longest_row} bytes; is this a text file?")


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
