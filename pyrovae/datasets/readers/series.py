"""Time series in the ``.ts`` files of the UCR and UEA archive, and tables in Weka's ``.arff``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pyrovae.datasets.readers._lines import Line, lines_of
from pyrovae.datasets.readers._numbers import Numerals
from pyrovae.datasets.readers._rows import Row
from pyrovae.datasets.readers._table import Choose, Table
from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.datasets.readers.text import table_of_rows
from pyrovae.errors import InputError

_WORD = re.compile(r"""'[^']*'|"[^"]*"|\S+""")


def read_series(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """Series of one variable and of one length: ``@`` lines, then values between commas.

    In ``.ts``, a colon and a label follow; in ``.arff``, the first lines name the columns.
    """
    where = str(path)
    with path.open("rb") as file:
        _, lines = lines_of(file, settings, where, 2**26)
        has_label, names = False, []
        for _, line in lines:  # none is empty
            word, *rest = _WORD.findall(line)
            if word.lower() in ("@classlabel", "@targetlabel"):
                has_label = rest[:1] == ["true"]
            elif word.lower() == "@attribute":
                names.append(rest[0].strip("'\"") if rest else "")
            elif word.lower() == "@data":
                break
            elif not line.startswith(("@", "#", "%")):
                raise InputError(f"{where} is not a {path.suffix} file: there is no line @data before the series")
        return table_of_rows(_rows(lines, where, has_label, names), where, settings, choose, numerals=Numerals())


def _rows(lines: Iterator[Line], where: str, has_label: bool, names: list[str]) -> Iterator[Row]:
    """The label, if there is one, and the values; above them names, by which the positions are counted."""
    width = None
    if names:
        width = len(names)
        yield 1, names
    for row, line in lines:
        if line.startswith("%"):
            continue
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
