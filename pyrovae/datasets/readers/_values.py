"""Checks of a table's values, those of a large file some rows at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.blocks import blocks, extent, first_where, step_of
from pyrovae.datasets.readers._missing import (
    extremes,
    given_markers,
    marker_of,
    spikes_of,
    usual_marker_of,
    without_markers,
)
from pyrovae.datasets.readers._table import Table
from pyrovae.datasets.readers.idx import PIXEL
from pyrovae.datasets.readers.settings import NONE, ReadingSettings
from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option

if TYPE_CHECKING:
    import pandas as pd


def check_values(table: Table, settings: ReadingSettings, unit: str) -> tuple[list[Finding], int]:
    """Notes of what may be markers, and the number of missing values.

    Raises:
        InputError: there are infinite values, markers, or missing values that are not asked for.
    """
    x = torch.from_numpy(np.ascontiguousarray(table.numbers))
    infinite = first_where(torch.isinf, x)
    if infinite is not None:
        raise InputError(
            f"{table.cell(*infinite[:2])}: the value is infinite; correct it, or leave it empty as missing"
        )
    notes: list[Finding] = []
    if NONE not in (settings.missing_value or ()) and unit != PIXEL:
        low, high = extent(x)
        kept = ((low != high) | table.layout.in_columns).numpy()  # a constant channel is no outlier of the others
        kept = kept if kept.any() else ~kept
        marker = marker_of(np.concatenate([extremes(rows.numpy()[:, kept]) for rows in blocks(x)]))
        found = None if marker is None else first_where(partial(torch.eq, torch.tensor(marker, dtype=x.dtype)), x)
        if marker is not None and found is not None:
            raise _marked(table.cell(*found[:2]), marker, found[2], "all other values")
        some = table.every(step_of(x))
        for spike in spikes_of(some.numbers.T if table.layout.in_columns else some.numbers):
            where = some.cell(*(spike.place[::-1] if table.layout.in_columns else spike.place))
            if spike.is_marker:
                raise _marked(where, spike.value, spike.count, "its neighbours")
            place, times = (
                where.removeprefix(f"{table.where}, "),
                "once" if spike.count == 1 else f"{spike.count} times",
            )
            notes.append(
                Finding(
                    f"{spike.value:g} as a value ({place})",
                    f"it occurs {times}, though far from its neighbours there as a marker of missing values is",
                    Option("missing_value", f"{spike.value:g}"),
                )
            )
    absent = first_where(torch.isnan, x)
    if settings.missing == "error" and absent is not None:
        raise InputError(
            f"{table.cell(*absent[:2])}: the value is missing, one of {absent[2]}; pass ",
            Option("missing", "mask"),
            " to read them as missing data",
        )
    return notes, 0 if absent is None else absent[2]


def checked_targets(targets: pd.DataFrame, table: Table, settings: ReadingSettings) -> pd.DataFrame:
    """Targets whose given markers of missing values are NaN.

    Raises:
        InputError: a column of numbers seems to hold a marker that is not given.
    """
    targets, markers = targets.copy(), given_markers(settings)
    for name in targets.columns:
        values = targets[name].to_numpy()
        if values.dtype.kind not in "fiu":
            continue
        marked = without_markers(values.astype(np.float64), markers)
        if np.isnan(marked).sum() > np.isnan(values.astype(np.float64)).sum():
            targets[name] = marked
        marker = None if NONE in (settings.missing_value or ()) else usual_marker_of(marked)
        if marker is not None:
            is_marker = np.isclose(marked, marker, rtol=1e-6, atol=0)
            first = int(is_marker.argmax())
            place = f"sample {first + 1}" if table.layout.in_columns else f"row {table.rows[first]}"
            where = f"{table.where}, {place}, column {str(name)!r}, which is kept apart"
            raise _marked(where, marker, int(is_marker.sum()), "all other values", is_target=True)
    return targets


def _marked(where: str, marker: float, count: int, far: str, *, is_target: bool = False) -> InputError:
    text = next(text for text in (f"{marker:g}", f"{marker:.9g}") if np.float32(text) == np.float32(marker))
    return InputError(
        f"{where}: {text} is far from {far} and occurs {count} {'time' if count == 1 else 'times'}, as a marker of "
        "missing values does; if it is one, pass ",
        Option("missing_value", text),
        *(() if is_target else (" and ", Option("missing", "mask"))),
        ", else ",
        Option("missing_value", "none"),
    )


def constant_channel(values: Tensor, where: str) -> InputError:
    """The error for a channel that never changes, or was never observed, given its values (num,)."""
    observed, what = values[~values.isnan()], "was never observed"
    if len(observed):
        what = f"is constant ({observed[0]:g} in all spectra), so its noise has no scale"
    return InputError(
        f"{where}: the channel {what}; pass ", Option("drop_constant", True), " to leave such channels out"
    )


def constant(x: Tensor) -> NDArray[np.bool_]:
    """Which channels of spectra (num, n) never change, or were never observed: booleans of shape (n,)."""
    low, high = extent(x)
    found: NDArray[np.bool_] = (low >= high).numpy()
    return found
