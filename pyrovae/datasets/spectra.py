"""Spectra on a channel axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.blocks import in_blocks, rows_at
from pyrovae.datasets.reading import Reading
from pyrovae.errors import InputError, moved, one_line

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_SIMULATED = ("SHAPES", "SimulatedSpectra", "SpectraTruth", "peak", "simulated")

__getattr__ = moved(
    __name__,
    {name: f"pyrovae.datasets.simulation.{name}" for name in _SIMULATED}
    | {"split_spectra": "pyrovae.datasets.splitting.split_spectra"},
)
"""Names that this module had in version 0.1."""


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra in rows, with their channel axis and the other columns of each sample.

    Attributes:
        x: shape (num, n), NaN where a value is missing.
        axis: position of each channel, ascending or descending, shape (n,), float64.
        unit: unit of the axis, such as ``"nm"``; ``"channel"`` if positions are only counted, empty if unknown.
        targets: one row per sample: labels, targets, dates, indices.
        name: name of the data set.
        headers: the file's name of each channel; empty if it has none.
        reading: how the file was read; None for other data.
    """

    x: Tensor
    axis: Tensor
    unit: str
    targets: pd.DataFrame
    name: str = "spectra"
    headers: tuple[str, ...] = ()
    reading: Reading | None = None

    def __post_init__(self) -> None:
        if self.x.dim() != 2 or self.axis.shape != self.x.shape[1:] or len(self.targets) != len(self.x):
            raise InputError(
                f"x (num, n), axis (n,) and targets of num rows do not fit: "
                f"{tuple(self.x.shape)}, {tuple(self.axis.shape)}, {len(self.targets)} rows"
            )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def missing(self) -> Tensor:
        """Which values are missing, booleans of shape (num, n)."""
        return self.x.isnan()

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels' own headers, or their positions, all different."""
        if len(set(self.headers)) == self.x.shape[1]:
            return self.headers
        return tuple(f"{position:.10g}" for position in self.axis.tolist())

    @property
    def row_names(self) -> tuple[str, ...]:
        """The samples' own names: the first column of targets whose values all differ, else numbers from 0."""
        for name in self.targets.columns:
            column = self.targets[name]
            if column.dtype.kind != "f" and not column.isna().any() and column.nunique() == len(column):
                return tuple(map(str, column))
        return tuple(map(str, range(len(self))))

    def take(self, index: Tensor | Sequence[int]) -> Self:
        """The samples of these indices, in this order."""
        index = torch.as_tensor(index)
        targets = self.targets.iloc[index.numpy()].reset_index(drop=True)
        return dataclasses.replace(self, x=rows_at(self.x, index), targets=targets)

    def sorted_by(self, column: str, *, dates: bool = False) -> Self:
        """The samples sorted by a column of the targets, such as their time; the order of equal ones does not change.

        Args:
            column: column of ``targets``.
            dates: whether it holds dates or times, in ISO 8601 (2024-03-25 or 2024-03-25 10:30): text in other
                formats has another order.

        Raises:
            InputError: there is no such column, or it holds no dates.
        """
        values = self._dates(column) if dates else self._column(column)
        return self.take(torch.tensor(values.reset_index(drop=True).sort_values(kind="stable").index.to_numpy()))

    def between(self, low: float, high: float) -> Self:
        """The channels with a position in [low, high].

        Raises:
            InputError: there are none.
        """
        inside = (self.axis >= low) & (self.axis <= high)
        if not inside.any():
            raise InputError(
                f"no channel lies in [{low:g}, {high:g}]: the axis goes from {self.axis[0]:g} to {self.axis[-1]:g}"
            )
        return self.of_channels(inside)

    def of_channels(self, chosen: Tensor) -> Self:
        """The channels selected by booleans of shape (n,)."""
        return self.at(chosen.nonzero().flatten())

    def at(self, channels: Tensor) -> Self:
        """The channels of these indices, in this order."""
        headers = tuple(self.headers[i] for i in channels.tolist()) if self.headers else ()
        x = in_blocks(lambda rows: rows[:, channels], self.x)
        return dataclasses.replace(self, x=x, axis=self.axis[channels], headers=headers)

    def groups(self, column: str, *, by_day: bool = False) -> NDArray[np.object_]:
        """A column of the targets as group labels for a split, shape (num,).

        Args:
            column: column of ``targets``.
            by_day: whether it holds dates or times, in ISO 8601, whose days are the groups.

        Raises:
            InputError: there is no such column, or it holds no dates.
        """
        values = self._dates(column).dt.strftime("%Y-%m-%d") if by_day else self._column(column)
        return values.to_numpy(dtype=object)

    def _dates(self, column: str) -> pd.Series[pd.Timestamp]:
        import pandas as pd

        values = self._column(column)
        try:
            found = pd.to_datetime(values, format="ISO8601")
        except (ValueError, TypeError) as error:
            wrong = f"column {column!r} holds no dates in ISO 8601, such as 2024-03-25"
            raise InputError(f"{wrong}: {one_line(error, 100)}") from None
        if found.isna().any():
            raise InputError(f"column {column!r} has no date at sample {int(found.isna().argmax())} (counted from 0)")
        return found

    def _column(self, name: str) -> pd.Series[str]:
        if name not in self.targets:
            raise InputError(f"there is no column {name!r} among the targets: {', '.join(map(str, self.targets))}")
        return self.targets[name]
