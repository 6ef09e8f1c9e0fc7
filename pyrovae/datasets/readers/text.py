"""Tables of numbers in text files, read in blocks, with errors that name the row and the column."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._dialect import dialect_of
from pyrovae.datasets.readers._header import header_of
from pyrovae.datasets.readers._lines import Line, lines_of
from pyrovae.datasets.readers._missing import given_markers, without_markers
from pyrovae.datasets.readers._numbers import Numerals, numerals_of
from pyrovae.datasets.readers._rows import Row, Rows, Samples
from pyrovae.datasets.readers._table import Choose, Grid, Head, Table, default_dtype
from pyrovae.datasets.readers.settings import ReadingSettings, check_size
from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option

_PEEK = 60
_MOST_ABOVE, _CHARACTERS_ABOVE = 240, 2**16
"""More lines that are looked at, if they are short, as those above a table are."""
_PEEK_CHARACTERS, _BLOCK_CHARACTERS = 2**24, 2**27
_OF_TEXT, _OF_ROW = 150, 150
"""Bytes that a field of text needs in memory beside its characters, and a row beside its fields, about."""


def read_text(
    path: Path, settings: ReadingSettings, choose: Choose, *, cells_at_once: int = 2**20, longest_row: int = 2**26
) -> Table:
    """Read a delimited text file, plain or gzipped, in blocks of rows.

    Args:
        path: the file.
        settings: delimiter, decimal sign and encoding, found where they are not given, and the limit of memory.
        choose: finds the layout from the first rows.
        cells_at_once: number of cells in a block.
        longest_row: in bytes.

    Raises:
        InputError: the file is empty, damaged, of another encoding or too large, has rows of several lengths, or text
            in a column of numbers; names the row and the column.
        OSError: the file cannot be read.
    """
    where, size = str(path), path.stat().st_size
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        binary = gzip.GzipFile(fileobj=raw) if zipped else raw
        decoder, lines = lines_of(binary, settings, where, longest_row)
        if settings.drop_rows:
            lines = (line for line in lines if not settings.leaves_out(line[0]))
        first = _some(lines, _PEEK, _PEEK_CHARACTERS)
        if not first:
            raise InputError(f"{where} is empty")
        first += _some(lines, _MOST_ABOVE, _CHARACTERS_ABOVE)
        dialect = dialect_of([line for _, line in first], settings, where)
        body = Rows(itertools.chain(first[dialect.skip :], lines), dialect, where)
        rows: Iterator[Row] = iter(body)
        if dialect.comment is not None:
            rows = itertools.chain([(first[dialect.skip - 1][0], list(dialect.comment))], rows)
        findings = [dialect.finding] if dialect.finding else []

        def read_share() -> float:
            return min(1.0, max(raw.tell(), 1) / max(size, 1))

        table = table_of_rows(rows, where, settings, choose, findings, cells_at_once, read_share)
    found = (*([decoder.finding] if decoder.finding else []), *table.layout.findings, *body.findings)
    return replace(table, layout=replace(table.layout, findings=found))


def table_of_rows(
    rows: Iterator[Row],
    where: str,
    settings: ReadingSettings,
    choose: Choose,
    findings: Sequence[Finding] = (),
    cells_at_once: int = 2**20,
    read_share: Callable[[], float] = lambda: 1.0,
    numerals: Numerals | None = None,
) -> Table:
    """A table of rows of text."""
    import pandas as pd

    peeked = _some(rows, _PEEK, _PEEK_CHARACTERS)
    if numerals is None:
        numerals = numerals_of([fields for _, fields in peeked], settings, where)
    header = header_of([fields for _, fields in peeked], numerals, settings, where)
    width = len(peeked[0][1])
    samples = Samples([fields for _, fields in peeked[: header.num_rows]])
    body = samples.among(itertools.chain(peeked[header.num_rows :], rows))
    at_once = max(1, cells_at_once // max(1, width))
    budget = _Budget(where, settings.max_gib, read_share)
    block = _some(body, at_once, _BLOCK_CHARACTERS)
    if not block:
        raise InputError(f"{where} is empty: it has a header and no rows")
    cells = [fields for _, fields in block]
    budget.add(cells=len(cells) * width)
    values, text = numerals.array(cells)
    markers = given_markers(settings)
    found = list(findings)
    if numerals.guessed:
        found.append(_of_numerals(numerals))
    evidence = np.asarray(without_markers(values, markers), dtype=np.float64)
    layout = choose(Head(where, header, evidence, text, tuple(found), [row[0].strip() for row in cells]))
    apart = [i for i in range(width) if i not in {*layout.columns, *layout.dropped}]
    blocks: list[NDArray[np.floating]] = []
    texts: list[list[str]] = []
    row_numbers: list[int] = []
    columns = layout.columns
    while block:
        grid = Grid(where, header.names, layout, [row for row, _ in block])
        if blocks:
            cells = [[fields[i] for i in columns] for _, fields in block]
            values, text = numerals.array(cells)
        else:
            values, text = values[:, columns], None if text is None else text[:, columns]
            cells = [[fields[i] for i in columns] for _, fields in block] if text is not None else []
        if text is not None and text.any():
            i, j = (int(k) for k in np.argwhere(text)[0])
            before = grid.rows[i - 1] if i else (row_numbers or [grid.rows[0] - 1])[-1]
            raise not_a_number(grid.cell(i, j), cells[i][j], grid.rows[i] if grid.rows[i] > before + 1 else None)
        texts += [[fields[i].strip() for i in apart] for _, fields in block]
        row_numbers += grid.rows
        with np.errstate(over="ignore"):
            blocks.append(without_markers(values, markers).astype(default_dtype()))
        of_texts = sum(_OF_TEXT + 2 * len(t) for row in texts[-len(block) :] for t in row)
        budget.add(blocks[-1].nbytes * 2, of_texts, _OF_ROW * len(block))
        block = _some(body, at_once, _BLOCK_CHARACTERS)
    frame = pd.DataFrame(texts, columns=apart, dtype=str)
    layout = replace(layout, findings=(*layout.findings, *samples.findings))
    return Table(where, header.names, layout, row_numbers, np.concatenate(blocks), frame, numerals)


def not_a_number(where: str, field: str, new_row: int | None = None) -> InputError:
    """The error for text where a number should be, in a row below an empty one or not."""
    word = field.strip()[:40]
    if new_row is not None:
        return InputError(
            f"{where}: {word!r} is not a number, and the row above is empty; if another table begins there, leave it "
            "out with ",
            Option("drop_rows", f"{new_row}:"),
        )
    if any(c.isdigit() for c in word):
        return InputError(f"{where}: {word!r} is not a number")
    return InputError(
        f"{where}: {word!r} is not a number; if it stands for a missing value, pass ",
        Option("missing_value", word),
        " and ",
        Option("missing", "mask"),
    )


T = TypeVar("T", Line, Row)


def _some(rows: Iterator[T], most: int, most_characters: int) -> list[T]:
    """The next rows, two at least: so many, or fewer if they are long."""
    found: list[T] = []
    characters = 0
    while len(found) < most and (characters < most_characters or len(found) < 2):
        row = next(rows, None)
        if row is None:
            break
        found.append(row)
        characters += len(row[1]) if isinstance(row[1], str) else len("".join(row[1])) + 50 * len(row[1])
    return found


class _Budget:
    """Memory that a table will need, judged by the share of the file that was read."""

    def __init__(self, where: str, max_gib: float, read_share: Callable[[], float]) -> None:
        self.where, self.max_gib, self.total = where, max_gib, 0.0
        self.share = read_share

    def add(self, *num_bytes: float, cells: int = 0) -> None:
        """Count bytes that stay, or cells that are there for a while; refuse if there are too many."""
        self.total += sum(num_bytes)
        share = self.share()
        check_size(self.where, max(self.total / share, self.total + 8.0 * cells), self.max_gib)


def _of_numerals(numerals: Numerals) -> Finding:
    sign = {",": "comma", ".": "point"}[numerals.decimal]
    groups = f" and {numerals.thousands!r} between thousands" if numerals.thousands else ""
    other = "." if numerals.decimal == "," else ","
    return Finding(f"decimal {sign}{groups}", "the numbers are written so", Option("decimal", other))
