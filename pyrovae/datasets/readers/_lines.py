"""The lines of a text file: its encoding, and what is no text."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeAlias

from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option, one_line

Binary: TypeAlias = io.BufferedReader | gzip.GzipFile
Line: TypeAlias = tuple[int, str]
"""A line and its number, counted from 1."""

DELIMITERS = "\t;|, "
_START = 2**16
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_MARKUP = re.compile(rb'\s*(<(\?xml|!doctype|html|table)|\{\s*"|\{\\rtf|\[\s*[\[{])', re.IGNORECASE)
_OLD_MAC = re.compile(rb"\r(?![\r\n]|\Z)")


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
