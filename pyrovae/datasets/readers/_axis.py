"""The channels' positions, in a column of the table or in another file."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._channels import check_order, out_of_order
from pyrovae.datasets.readers._names import number, position_of
from pyrovae.datasets.readers._table import Table
from pyrovae.errors import InputError, Option, reading

_MOST_BYTES = 2**24


def positions_in_columns(table: Table) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The positions in the layout's column of them, and how the file writes them."""
    axis = table.layout.axis
    texts = [str(text) for text in table.others[axis]]
    positions = _numbers(table, axis or 0, texts)
    wrong = out_of_order(positions)
    if wrong is not None:
        where = table.place(wrong, axis or 0)
        raise InputError(
            f"{where}: the channel {positions[wrong]:g} is not in order, or is there twice (if the column is not an "
            "axis, say ",
            Option("samples", "rows"),
            ")",
        )
    for other in table.layout.axes:
        found = _numbers(table, other, [str(text) for text in table.others[other]])
        step = np.abs(np.diff(positions)).min()
        misfit = np.abs(found - positions)
        if misfit.max() > 0.01 * step:
            row = int(misfit.argmax())
            raise InputError(
                f"{table.place(row, other)}: the position {found[row]:g} is another than column {(axis or 0) + 1}'s, "
                f"{positions[row]:g}: bring the spectra to one axis first"
            )
    return positions, tuple(text.strip() for text in texts)


def _numbers(table: Table, column: int, texts: list[str]) -> NDArray[np.float64]:
    plain = table.numerals.names([text.strip() for text in texts], f"{table.where}, column {column + 1}")
    found = [number(text) for text in plain]
    if all(position is None for position in found):
        found = [position_of(text) for text in plain]
    for row, position in enumerate(found):
        if position is None or not math.isfinite(position):
            raise InputError(
                f"{table.place(row, column)}: {texts[row][:40]!r} is not the position of a channel; correct it, or "
                "leave the row out with ",
                Option("drop_rows", f"{table.rows[row]}:{table.rows[row]}"),
            )
    return np.array(found, dtype=np.float64)


def given_axis(axis: str | tuple[float, ...] | None) -> NDArray[np.float64]:
    """The positions that the user gives, or those in the file that they name.

    Raises:
        InputError: there is no such file, or it holds no positions in order.
    """
    if not isinstance(axis, str):
        return np.asarray(axis, dtype=float)
    path = Path(axis)
    if not path.is_file():
        raise InputError("the axis must be row, column, none or a file of positions, and there is no file ", axis)
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path} is too large for a file of positions")
    content = path.read_bytes()
    if content.startswith(b"\x93NUMPY"):
        with reading(path, "an array of positions"):
            positions = np.asarray(np.load(path, allow_pickle=False), dtype=np.float64).ravel()
    else:
        positions = _in_text(path, content)
    if not len(positions):
        raise InputError(f"{path} holds no positions")
    check_order(str(path), positions)
    return positions


def _in_text(path: Path, content: bytes) -> NDArray[np.float64]:
    """Numbers between spaces, semicolons, commas or line ends; a first word is a header."""
    text = content.decode("utf-8-sig", errors="replace").strip()
    commas = not re.search(r"\d\.\d", text) and (";" in text or not re.search(r",\s", text)) and "\n" in text
    words = [word for word in re.split(r"[\s;]+" if commas else r"[\s;,]+", text) if word]
    if words and number(words[0]) is None:
        words = words[1:]
    found = [number(word) for word in words]
    wrong = next((i for i, value in enumerate(found) if value is None), None)
    if wrong is not None:
        raise InputError(f"{path}: {words[wrong][:40]!r} is not a position")
    return np.array(found, dtype=np.float64)
