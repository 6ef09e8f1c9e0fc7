"""Tables of numbers in text files, read in blocks, with errors that name the row and the column."""

import csv
import gzip
import io
import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pyrovae.datasets.readers._channels import number
from pyrovae.errors import InputError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "?", "."})
"""What stands for a missing value, in any case of letters."""

_CELLS_AT_ONCE = 2**20
_LONGEST_ROW = 2**26
_DELIMITERS = "\t;|,"


@dataclass
class Table:
    """A table of samples in rows, or of whatever lies in the file's rows.

    Attributes:
        where: what to call it in errors.
        names: of all columns.
        columns: those that are read as numbers.
        numbers: of these, shape (rows, len(columns)); NaN where a value is missing.
        others: the other columns, as text.
        rows: number of each row in the file, counted from 1.
        decimal: ``"."`` or ``","`` in the other columns.
    """

    where: str
    names: list[str]
    columns: list[int]
    numbers: NDArray[np.floating]
    others: pd.DataFrame
    rows: list[int]
    decimal: str = "."

    def cell(self, row: int, column: int) -> str:
        """Where an entry of ``numbers`` stands in the file."""
        return self.place(row, self.columns[column])

    def place(self, row: int, column: int) -> str:
        """Where a row and a column of the file meet."""
        name = self.names[column]
        return f"{self.where}, row {self.rows[row]}, column {column + 1}" + (f" ({name!r})" if name else "")


def read_text(
    path: Path,
    choose: Callable[[list[str]], list[int]],
    *,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str = "utf-8",
    max_gib: float = 4.0,
    dtype: type[np.floating] = np.float64,
) -> Table:
    """Read a delimited text file, plain or gzipped.

    Args:
        path: the file.
        choose: columns to read as numbers, given all names; these are empty where the file has no header.
        delimiter: between fields; found by itself among tab, ``;``, ``|`` and ``,``.
        decimal: ``"."`` or ``","``; found by itself.
        encoding: of the text; a byte-order mark is skipped.
        max_gib: refuse a table that would need more memory.
        dtype: of the numbers.

    Raises:
        InputError: the file is empty, damaged, of another encoding or too large, has rows of several lengths, or text
            in a column of numbers; names the row and the column.
    """
    where = str(path)
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        lines = _lines(gzip.GzipFile(fileobj=raw) if zipped else raw, where, encoding)
        first = list(itertools.islice(lines, 2))
        if not first:
            raise InputError(f"{where} is empty")
        try:
            delimiter = delimiter or _delimiter([line for _, line in first])
        except csv.Error as error:
            raise InputError(f"{where}: its first rows cannot be cut into fields: {error}") from None
        rows = _fields(itertools.chain(first, lines), delimiter, where)
        peeked = list(itertools.islice(rows, 20))
        header = _has_header([fields for _, fields in peeked])
        names = [name.strip() for name in peeked[0][1]] if header else [""] * len(peeked[0][1])
        body = itertools.chain(peeked[1:] if header else peeked, rows)
        columns = choose(names)
        others = [i for i in range(len(names)) if i not in set(columns)]
        blocks, texts, row_numbers = [], [], []
        size, limit = path.stat().st_size, max_gib * 2**30
        per_block = max(1, _CELLS_AT_ONCE // max(1, len(names)))
        while block := list(itertools.islice(body, per_block)):
            cells = [[fields[i] for i in columns] for _, fields in block]
            if decimal is None:
                decimal = _decimal([field for row in cells[:20] for field in row])
            row_numbers += [row for row, _ in block]
            texts += [[fields[i].strip() for i in others] for _, fields in block]
            table = Table(where, names, columns, np.empty((0, 0)), pd.DataFrame(), [row for row, _ in block])
            with np.errstate(over="ignore"):
                blocks.append(_numbers(cells, decimal, table).astype(dtype))
            needed = 2 * sum(b.nbytes for b in blocks) * max(1.0, size / max(1, raw.tell()))
            if needed > limit:
                raise InputError(too_large(where, needed, max_gib))
    if not blocks:
        raise InputError(f"{where} is empty: it has a header and no rows")
    frame = pd.DataFrame(texts, columns=[names[i] for i in others], dtype=str)
    return Table(where, names, columns, np.concatenate(blocks), frame, row_numbers, decimal or ".")


def too_large(where: str, needed: float, max_gib: float) -> str:
    """The message for a table that would need too much memory."""
    return (
        f"{where} would need about {needed / 2**30:.2g} GiB of memory, more than max_gib={max_gib:g}; raise it, or "
        "choose fewer columns with channels=…"
    )


def _lines(binary: Any, where: str, encoding: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1; empty lines, and comments (#) at the beginning, skipped."""
    row, begun = 0, False
    try:
        start = binary.read(4)
        binary.seek(0)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff") and "16" not in encoding:
            raise InputError(f"{where}, row 1, column 1: the file is UTF-16; pass encoding='utf-16'")
        wide = io.TextIOWrapper(binary, encoding=encoding, newline="") if "16" in encoding or "32" in encoding else None
        try:
            for row, line in enumerate(wide or _decoded(binary, where, encoding), 1):
                if line.strip() and (begun or not line.startswith("#")):
                    begun = True
                    yield row, line
        finally:
            if wide is not None:
                wide.detach()  # else it closes the file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{where} is damaged after row {row}: {' '.join(str(error).split())}") from None
    except UnicodeError as error:
        raise InputError(f"{where}, row {row + 1}: the text is not {encoding} ({error})") from None


def _decoded(binary: Any, where: str, encoding: str) -> Iterator[str]:
    for row, line in enumerate(iter(lambda: binary.readline(_LONGEST_ROW), b""), 1):
        if len(line) == _LONGEST_ROW:
            raise InputError(f"{where}, row {row}: the row is longer than {_LONGEST_ROW} bytes; is this a text file?")
        if row == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError as error:
            before = line[: error.start]
            column = 1 + max(before.count(d.encode()) for d in _DELIMITERS)
            raise InputError(
                f"{where}, row {row}, column {column}: byte 0x{line[error.start]:02x} is not {encoding}; pass the "
                "file's encoding=…, such as 'latin-1'"
            ) from None
        except LookupError:
            raise InputError(f"there is no encoding {encoding!r}") from None


def _fields(lines: Iterator[tuple[int, str]], delimiter: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of fields, all as many as the first's."""
    expected = None
    lines_of_row: list[int] = []  # more than one where a quoted field goes on

    def text() -> Iterator[str]:
        for row, line in lines:
            lines_of_row.append(row)
            if "\0" in line:
                column = line[: line.index("\0")].count(delimiter) + 1
                raise InputError(f"{where}, row {row}, column {column}: the file is not text (it holds a zero byte)")
            yield line

    try:
        for fields in csv.reader(text(), delimiter=delimiter, skipinitialspace=True, strict=True):
            row, expected = lines_of_row[0], len(fields) if expected is None else expected
            lines_of_row.clear()
            if len(fields) != expected:
                raise InputError(
                    f"{where}, row {row}, column {min(len(fields), expected) + 1}: the row has {len(fields)} fields, "
                    f"the first one {expected}"
                )
            yield row, fields
    except csv.Error as error:
        raise InputError(f"{where}, row {lines_of_row[0] if lines_of_row else 1}: {error}") from None


def _delimiter(lines: Sequence[str]) -> str:
    """What cuts the first two rows into the same number of fields; a comma last, for it may be decimal."""
    for candidate in _DELIMITERS[:-1]:
        counts = {len(fields) for fields in csv.reader(lines, delimiter=candidate)}
        if len(counts) == 1 and counts.pop() > 1:
            return candidate
    for candidate in _DELIMITERS[:-1]:  # rows of several lengths are reported by whoever reads them
        if min(line.count(candidate) for line in lines) > max(1, max(line.count(",") for line in lines)):
            return candidate
    return ","


def _decimal(fields: Sequence[str]) -> str:
    return "," if sum("," in f and "." not in f for f in fields) > sum("." in f for f in fields) else "."


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: by text, by evenly spaced numbers, or by numbers unlike all others."""
    first = [number(field) for field in rows[0]]
    if any(value is None or math.isnan(value) for value in first):
        return True
    values = np.array(first, dtype=float)
    steps = np.diff(values)
    if len(values) > 2 and np.all(steps != 0) and np.allclose(steps, steps.mean(), rtol=0.01, atol=0):
        return True  # evenly spaced, as no spectrum is
    rest = np.array([number(f) for row in rows[1:] for f in row], dtype=float)
    rest = rest[np.isfinite(rest)]
    return len(rest) > 0 and bool((values > rest.max()).all() or (values < rest.min()).all())


def _numbers(cells: list[list[str]], decimal: str, table: Table) -> NDArray[np.float64]:
    """Fields as numbers, missing ones as NaN."""
    if decimal == ",":
        cells = [[field.replace(".", "\0").replace(",", ".") for field in row] for row in cells]
    try:
        if not any("_" in field for row in cells for field in row):  # Python's own 1_0 is no number of data
            return np.array(cells, dtype=np.float64).reshape(len(cells), -1)
    except ValueError:
        pass
    values = np.full((len(cells), len(table.columns)), np.nan)
    for i, row in enumerate(cells):
        for j, field in enumerate(row):
            value = None if "," in field else number(field)
            if value is not None:
                values[i, j] = value
            elif field.strip().lower() not in MISSING:
                text = field.strip().replace("\0", ".")
                raise InputError(f"{table.cell(i, j)}: {text[:40]!r} is not a number")
    return values


def default_dtype() -> type[np.floating]:
    """Numpy's name of torch's default dtype."""
    return np.float64 if torch.get_default_dtype() == torch.float64 else np.float32
