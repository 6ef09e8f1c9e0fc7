"""What a user may say of a file that is to be read, declared once."""

import io
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from pyrovae.datasets.readers._channels import check_order
from pyrovae.errors import InputError, check_positive

Missing = Literal["error", "mask"]
"""What to do with missing values."""


@dataclass(frozen=True)
class ReadingSettings:
    """How to read a file: the keywords of :func:`~pyrovae.datasets.read_spectra`, checked when made."""

    channels: str | tuple[str, ...] | None = None
    """The channels' prefix, or the names of their columns; in an .npz file the name of the array. None finds them."""
    samples: Literal["rows", "columns"] | None = None
    """Where the samples are: rows or columns; None finds out."""
    missing: Missing = "error"
    """What to do with missing values (an empty field, NA, NaN): error refuses them, mask reads them as missing data."""
    axis: tuple[float, ...] | None = None
    """Positions of the channels; None takes them from the file."""
    unit: str | None = None
    """Unit of the axis; None takes it from the file."""
    drop_constant: bool = False
    """Leave out channels that are constant instead of refusing them."""
    delimiter: str | None = None
    """Character between the fields of a text file; None finds it."""
    decimal: Literal[".", ","] | None = None
    """Decimal sign in a text file, point or comma; None finds it."""
    encoding: str = "utf-8"
    """Encoding of a text file."""
    max_gib: float = 4.0
    """Refuse a file that would need more memory than this, in GiB."""

    def __post_init__(self) -> None:
        for name in ("channels", "axis"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        allowed = {"samples": ("rows", "columns", None), "missing": ("error", "mask"), "decimal": (".", ",", None)}
        for name, choices in allowed.items():
            if getattr(self, name) not in choices:
                *others, last = map(repr, choices)
                raise InputError(f"{name} must be {', '.join(others)} or {last}, not {getattr(self, name)!r}")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise InputError(f"delimiter must be one character or None, not {self.delimiter!r}")
        check_positive("max_gib", self.max_gib)
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=self.encoding)
        except LookupError:
            raise InputError(f"there is no encoding {self.encoding!r}") from None
        if self.axis is not None:
            check_order("axis", np.array(self.axis, dtype=float))


class ReadingKeywords(TypedDict, total=False):
    """The fields of :class:`ReadingSettings`, as a type checker sees the keywords of a function."""

    channels: str | tuple[str, ...] | None
    samples: Literal["rows", "columns"] | None
    missing: Missing
    axis: tuple[float, ...] | None
    unit: str | None
    drop_constant: bool
    delimiter: str | None
    decimal: Literal[".", ","] | None
    encoding: str
    max_gib: float
