"""A user's settings for reading a file."""

import io
import re
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from pyrovae.datasets.readers._channels import check_order
from pyrovae.errors import InputError, Option, check_positive

Missing = Literal["error", "mask"]
"""What to do with missing values."""

NONE = "none"
"""The word for "there is none", where a setting names columns or values."""

_RANGE = re.compile(r"(\d+):(\d*)")

_DELIMITERS = {"space": " ", "tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
"""Delimiters by words, for a command line."""


@dataclass(frozen=True)
class ReadingSettings:
    """How to read a file: the keywords of :func:`~pyrovae.datasets.read_spectra`, checked when made."""

    channels: tuple[str, ...] | str | None = None
    """The channels' prefix, the names of their columns, or all. By default they are found by their names."""
    samples: Literal["rows", "columns"] | None = None
    """Whether a sample is a row or a column of the file. By default this is found from the file."""
    axis: str | tuple[float, ...] | None = None
    """Where the channels' positions are: row or column (the first, or row:2, column:NAME), none, or a file of them."""
    label: tuple[str, ...] | str | None = None
    """Columns that are not channels, by name or number (1, 2, first, last); none: every column is a channel."""
    drop: tuple[str, ...] | str | None = None
    """Columns to leave out, by name or by number."""
    drop_rows: tuple[str, ...] | str | None = None
    """Rows to leave out, by number in the file or by name in the first column; none: all rows are samples. A range such
    as 40:44 or 40: (to the end) is left out before anything is read, another table below the first, for instance."""
    unit: str | None = None
    """Unit of the axis. By default it is found in the file."""
    missing: Missing = "error"
    """What to do with missing values (an empty field, NA, NaN): error refuses them, mask reads them as missing data."""
    missing_value: tuple[str, ...] | str | None = None
    """Values or words that mean missing, such as -9999; none: take every number as it is."""
    drop_constant: bool = False
    """Leave out constant channels instead of refusing the file."""
    table: str | None = None
    """Name of the sheet, array or signal, if the file has several."""
    encoding: str | None = None
    """Encoding of a text file. By default it is found."""
    delimiter: str | None = None
    """Character between the fields of a text file, or the word space or tab. By default it is found."""
    decimal: Literal[".", ","] | None = None
    """Decimal sign in a text file, point or comma. By default it is found."""
    max_gib: float = 4.0
    """Refuse a file that would need more memory than this, in GiB. A large .npy file and a folder of tables do not."""

    def __post_init__(self) -> None:
        for name in ("channels", "label", "drop", "drop_rows", "missing_value"):
            value = getattr(self, name)
            if value is not None:
                many = (value,) if isinstance(value, str | int | float) else tuple(value)
                object.__setattr__(self, name, tuple(str(v) for v in many))
        if self.axis is not None and not isinstance(self.axis, str):
            object.__setattr__(self, "axis", tuple(self.axis))
            check_order("axis", np.array(self.axis, dtype=float))
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", _DELIMITERS.get(self.delimiter, self.delimiter))
        allowed = {"samples": ("rows", "columns", None), "missing": ("error", "mask"), "decimal": (".", ",", None)}
        for name, choices in allowed.items():
            if getattr(self, name) not in choices:
                *others, last = map(repr, choices)
                raise InputError(f"{name} must be {', '.join(others)} or {last}, not {getattr(self, name)!r}")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise InputError(f"delimiter must be one character or None, not {self.delimiter!r}")
        check_positive("max_gib", self.max_gib)
        if self.encoding is not None:
            try:
                io.TextIOWrapper(io.BytesIO(), encoding=self.encoding)
            except LookupError:
                raise InputError(f"there is no encoding {self.encoding!r}") from None

    @property
    def axis_place(self) -> tuple[str, str]:
        """Where the file has the axis: row, column, none or empty; and which row or column, if that is said."""
        word, _, name = self.axis.partition(":") if isinstance(self.axis, str) else ("", "", "")
        return (word.lower(), name) if word.lower() in ("row", "column", NONE) else ("", "")

    def leaves_out(self, row: int) -> bool:
        """Whether a row of the file, counted from 1, lies in one of the ranges of rows to leave out."""
        ranges = filter(None, map(_RANGE.fullmatch, self.drop_rows or ()))
        return any(int(found[1]) <= row <= float(found[2] or "inf") for found in ranges)

    @property
    def missing_words(self) -> list[str]:
        """What the user says that means missing."""
        return [word for word in self.missing_value or () if word != NONE]

    @property
    def gives_axis(self) -> bool:
        """Whether the axis is given, as positions or as a file of them."""
        return self.axis is not None and not self.axis_place[0]


def check_size(where: str, num_bytes: float, max_gib: float) -> None:
    """Raise an InputError if a table would need too much memory."""
    if num_bytes > max_gib * 2**30:
        raise InputError(
            f"{where} would need about {num_bytes / 2**30:.2g} GiB of memory, more than ",
            Option("max_gib", float(f"{max_gib:g}")),
            "; raise it, or choose fewer columns with ",
            Option("channels"),
        )


class ReadingKeywords(TypedDict, total=False):
    """The fields of :class:`ReadingSettings`, as a type checker sees the keywords of a function."""

    samples: Literal["rows", "columns"] | None
    axis: str | tuple[float, ...] | None
    channels: tuple[str, ...] | str | None
    label: tuple[str, ...] | str | None
    drop: tuple[str, ...] | str | None
    drop_rows: tuple[str, ...] | str | None
    unit: str | None
    missing: Missing
    missing_value: tuple[str, ...] | str | None
    drop_constant: bool
    table: str | None
    encoding: str | None
    delimiter: str | None
    decimal: Literal[".", ","] | None
    max_gib: float
