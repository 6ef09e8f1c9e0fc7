"""Time series in the ``.ts`` files of the UCR and UEA archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyrovae.datasets.readers._dialect import Line, lines_of
from pyrovae.datasets.readers._numbers import Numerals
from pyrovae.datasets.readers._rows import Row
from pyrovae.datasets.readers._table import Choose, Table
from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.datasets.readers.text import table_of_rows
from pyrovae.errors import InputError


def read_series(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """Series of one variable and of one length: ``@`` lines, then values between commas, a colon, and a label."""
    where = str(path)
    with path.open("rb") as file:
        _, lines = lines_of(file, settings, where, 2**26)
        has_label = False
        for _, line in lines:
            word, _, rest = line.strip().lower().partition(" ")
            if word in ("@classlabel", "@targetlabel"):
                has_label = rest.strip().startswith("true")
            if word == "@data":
                break
            if not line.startswith(("@", "#")):
                raise InputError(f"{where} is not a .ts file: there is no line @data before the series")
        return table_of_rows(_rows(lines, where, has_label), where, settings, choose, numerals=Numerals())


def _rows(lines: Iterator[Line], where: str, has_label: bool) -> Iterator[Row]:
    """The label, if there is one, and the values; above them names, as the positions are counted."""
    width = None
    for row, line in lines:
        *dimensions, label = line.strip().split(":") if has_label else (line.strip(), "")
        if len(dimensions) != 1:
            raise InputError(f"{where}, row {row}: the series has {len(dimensions)} variables; only one can be read")
        values = [field.strip() for field in dimensions[0].split(",")]
        if width is None:
            width = len(values)
            yield row - 1, ["label"] * has_label + [f"t{j}" for j in range(width)]
        if len(values) != width:
            raise InputError(
                f"{where}, row {row}: the series has {len(values)} values, the first one {width}; series of several "
                "lengths cannot be read"
            )
        yield row, [label.strip()] * has_label + values
    if width is None:
        raise InputError(f"{where} is empty: it has no series")
