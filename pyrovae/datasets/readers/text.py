"""Tables of numbers in text files, read in blocks, with errors that name the row and the column."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._channels import number
from pyrovae.datasets.readers._table import Choose, Grid, Table, check_size, default_dtype
from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.errors import InputError, one_line

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "?", "."})
"""What stands for a missing value, in any case of letters."""

_Binary: TypeAlias = io.BufferedReader | gzip.GzipFile
_DELIMITERS = "\t;|,"


def read_text(
    path: Path, settings: ReadingSettings, choose: Choose, *, cells_at_once: int = 2**20, longest_row: int = 2**26
) -> Table:
    """Read a delimited text file, plain or gzipped, in blocks of rows.

    Args:
        path: the file.
        settings: delimiter, decimal sign and encoding (a byte-order mark is skipped), and the limit of memory.
        choose: finds the layout from the names of all columns, which are empty if the file has no header.
        cells_at_once: number of cells in a block.
        longest_row: in bytes.

    Raises:
        InputError: the file is empty, damaged, of another encoding or too large, has rows of several lengths, or text
            in a column of numbers; names the row and the column.
        OSError: the file cannot be read.
    """
    import pandas as pd

    where, size = str(path), path.stat().st_size
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        lines = _lines(gzip.GzipFile(fileobj=raw) if zipped else raw, where, settings.encoding, longest_row)
        first = list(itertools.islice(lines, 2))
        if not first:
            raise InputError(f"{where} is empty")
        try:
            delimiter = settings.delimiter or _delimiter([line for _, line in first])
        except csv.Error as error:
            raise InputError(f"{where}: its first rows cannot be cut into fields: {error}") from None
        rows = _fields(itertools.chain(first, lines), delimiter, where)
        peeked = list(itertools.islice(rows, 20))
        header = _has_header([fields for _, fields in peeked])
        names = [name.strip() for name in peeked[0][1]] if header else [""] * len(peeked[0][1])
        body = itertools.chain(peeked[1:] if header else peeked, rows)
        layout = choose(names)
        others = [i for i in range(len(names)) if i not in set(layout.columns)]
        blocks: list[NDArray[np.floating]] = []
        texts: list[list[str]] = []
        row_numbers: list[int] = []
        decimal: str | None = settings.decimal
        while block := list(itertools.islice(body, max(1, cells_at_once // max(1, len(names))))):
            cells = [[fields[i] for i in layout.columns] for _, fields in block]
            decimal = decimal or _decimal([field for row in cells[:20] for field in row])
            texts += [[fields[i].strip() for i in others] for _, fields in block]
            grid = Grid(where, names, layout, [row for row, _ in block])
            row_numbers += grid.rows
            with np.errstate(over="ignore"):
                blocks.append(_numbers(cells, decimal, grid).astype(default_dtype()))
            of_all = max(1.0, size / max(1, raw.tell()))
            check_size(where, 2 * sum(b.nbytes for b in blocks) * of_all, settings.max_gib)
    if not blocks:
        raise InputError(f"{where} is empty: it has a header and no rows")
    frame = pd.DataFrame(texts, columns=[names[i] for i in others], dtype=str)
    return Table(where, names, layout, row_numbers, np.concatenate(blocks), frame, decimal or ".")


def _lines(binary: _Binary, where: str, encoding: str, longest_row: int) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1, without empty lines and without comments (#) at the beginning."""
    row, begun = 0, False
    try:
        start = binary.read(4)
        binary.seek(0)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff") and "16" not in encoding:
            raise InputError(f"{where}, row 1, column 1: the file is UTF-16; pass encoding='utf-16'")
        wide = io.TextIOWrapper(binary, encoding=encoding, newline="") if "16" in encoding or "32" in encoding else None
        try:
            for row, line in enumerate(wide or _decoded(binary, where, encoding, longest_row), 1):
                if line.strip() and (begun or not line.startswith("#")):
                    begun = True
                    yield row, line
        finally:
            if wide is not None:
                wide.detach()  # else it closes the file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{where} is damaged after row {row}: {one_line(error)}") from None
    except UnicodeError as error:
        raise InputError(f"{where}, row {row + 1}: the text is not {encoding} ({error})") from None


def _decoded(binary: _Binary, where: str, encoding: str, longest_row: int) -> Iterator[str]:
    for row, line in enumerate(iter(lambda: binary.readline(longest_row), b""), 1):
        if len(line) == longest_row:
            raise InputError(f"{where}, row {row}: the row is longer than {longest_row} bytes; is this a text file?")
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


def _fields(lines: Iterator[tuple[int, str]], delimiter: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of fields, as many in each as in the first."""
    expected = None
    lines_of_row: list[int] = []  # several if a quoted field continues

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
    """What cuts the first two rows into the same number of fields; a comma comes last, as it may be decimal."""
    for candidate in _DELIMITERS[:-1]:
        counts = {len(fields) for fields in csv.reader(lines, delimiter=candidate)}
        if len(counts) == 1 and counts.pop() > 1:
            return candidate
    for candidate in _DELIMITERS[:-1]:  # _fields reports rows of several lengths
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


def _numbers(cells: list[list[str]], decimal: str, grid: Grid) -> NDArray[np.float64]:
    """Fields as numbers, missing ones as NaN."""
    if decimal == ",":
        cells = [[field.replace(".", "\0").replace(",", ".") for field in row] for row in cells]
    try:
        if not any("_" in field for row in cells for field in row):  # float("1_0") is 10
            return np.array(cells, dtype=np.float64).reshape(len(cells), -1)
    except ValueError:
        pass
    values = np.full((len(cells), len(grid.layout.columns)), np.nan)
    for i, row in enumerate(cells):
        for j, field in enumerate(row):
            value = None if "," in field else number(field)
            if value is not None:
                values[i, j] = value
            elif field.strip().lower() not in MISSING:
                text = field.strip().replace("\0", ".")
                raise InputError(f"{grid.cell(i, j)}: {text[:40]!r} is not a number")
    return values
