"""Excel workbooks."""

from __future__ import annotations

import datetime
import itertools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pyrovae.datasets.readers._numbers import MISSING, Numerals
from pyrovae.datasets.readers._rows import Row
from pyrovae.datasets.readers._table import Choose, Table
from pyrovae.datasets.readers.settings import ReadingSettings, check_size
from pyrovae.datasets.readers.text import table_of_rows
from pyrovae.errors import InputError, Option, needing_extra, reading

_MERGED = re.compile(b"<mergeCell")
_FORMULA = re.compile(rb'<c (?![^>]*t="str")[^>]*><f[^>]*(/>|>[^<]*</f>)(<v ?/>|<v></v>)?</c>')
_OF_CELL = 200
"""Bytes that a cell needs in memory while it is read, about."""


def read_excel(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """A sheet of an ``.xlsx`` workbook: the only one with a table of numbers, or the one that is named."""
    needed = "pip install 'pyrovae[formats]' to read it (openpyxl), or save it as CSV"
    with needing_extra(f"{path} is an Excel workbook: {needed}"):
        import openpyxl
    with reading(path, "an Excel workbook"):
        with zipfile.ZipFile(path) as archive:
            check_size(str(path), 4.0 * sum(info.file_size for info in archive.infolist()), settings.max_gib)
            has_merged, has_formulas = (_holds(archive, what) for what in (_MERGED, _FORMULA))
        if has_formulas:
            raise InputError(f"{path} has formulas without their values: open it in Excel or LibreOffice, and save it")
        with path.open("rb") as file:  # by its name, openpyxl would refuse other endings
            book = openpyxl.load_workbook(file, read_only=not has_merged, data_only=True)
            sheets = {sheet.title: list(_rows(sheet, str(path), settings)) for sheet in book.worksheets}
    missing = MISSING | {word.lower() for word in settings.missing_words}
    kinds = [Numerals(missing=missing), Numerals(",", missing=missing, guessed=True)]
    numerals = {title: found for title, rows in sheets.items() for found in kinds[::-1] if _is_table(rows, found)}
    name = settings.table
    if name is None:
        tables = [title for title in numerals if book[title].sheet_state == "visible"] or list(numerals)
        if len(tables) != 1:
            held = "several sheets with numbers" if tables else "no sheet with a table of numbers"
            raise InputError(
                f"{path} holds {held} (its sheets are {', '.join(map(repr, sheets))}); say which with ",
                Option("table", (tables or [*sheets])[0]),
            )
        name = tables[0]
    if name not in sheets:
        raise InputError(f"{path} has no sheet {name!r}; its sheets are {', '.join(map(repr, sheets))}")
    rows = sheets[name]
    if not rows:
        raise InputError(f"{path} ({name}) is empty")
    width = max(len(fields) for _, fields in rows)
    padded = ((row, fields + [""] * (width - len(fields))) for row, fields in rows)
    return table_of_rows(padded, f"{path} ({name})", settings, choose, numerals=numerals.get(name, kinds[0]))


def _holds(archive: zipfile.ZipFile, what: re.Pattern[bytes]) -> bool:
    """Whether a sheet has merged cells, or formulas that no program has computed."""
    for name in archive.namelist():
        if "worksheets/" in name:
            end = b""
            with archive.open(name) as file:
                while block := file.read(2**20):
                    if what.search(end := end[-2000:] + block):
                        return True
    return False


def _rows(sheet: object, where: str, settings: ReadingSettings) -> Iterator[Row]:
    """A sheet's rows that are not empty, as text, without the empty cells at their ends."""
    cells, groups = 0, dict[tuple[int, int], str]()
    for area in getattr(getattr(sheet, "merged_cells", None), "ranges", ()):
        value = _text(sheet.cell(area.min_row, area.min_col).value)  # type: ignore[attr-defined]
        groups |= {(row, area.min_col): value for row in range(area.min_row, area.max_row + 1)}  # of its samples
    for number, values in enumerate(sheet.iter_rows(values_only=True), 1):  # type: ignore[attr-defined]
        if settings.leaves_out(number):
            continue
        fields = [groups.get((number, k), _text(value)) for k, value in enumerate(values, 1)]
        while fields and not fields[-1]:
            fields.pop()
        if fields:
            cells += len(fields)
            check_size(where, float(_OF_CELL * cells), settings.max_gib)
            yield number, fields


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()
    return value.strip() if isinstance(value, str) else repr(value)


def _is_table(rows: list[Row], numerals: Numerals) -> bool:
    """Whether at least two rows hold at least two numbers."""
    counts = (sum(field != "" and numerals.value(field) is not None for field in fields) for _, fields in rows)
    return len(list(itertools.islice((count for count in counts if count >= 2), 2))) == 2
