"""Rows of a table that are not samples: repeated positions, and means or deviations of the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._order import is_even, is_outside
from pyrovae.datasets.readers._table import Table
from pyrovae.datasets.readers.settings import NONE, ReadingSettings
from pyrovae.errors import InputError, Option

if TYPE_CHECKING:
    import pandas as pd

_SUMMARIES = re.compile(
    r"(overall |grand |total )?("
    r"means?|averages?|avg|s\.?d\.?|std(\.|ev)?|st\.? ?dev\.?|std\.? ?dev\.?|standard deviation|variance|var|cv|rsd|"
    r"min(imum|\.)?|max(imum|\.)?|median|sum|totals?|range|(q[123]|\w+ (quartile|percentile))|rms|snr|mittelwert|mw|"
    r"durchschnitt|standardabweichung|stabw\.?|summe|moyenne|écart[- ]type|somme|media|promedio|desv\. ?est\.?|suma|"
    r"dark|white|blank|fwhm|(dark|background|((dark|white|spectralon|panel)[ _-]?)?ref(erence)?)([ _-]?\d+)?"
    r")( ?\(.*\)| of .*)?",
    re.IGNORECASE,
)
_SUFFIX = re.compile(r"\.(?=[a-z])\w{1,4}$", re.IGNORECASE)
_DEVIATIONS = re.compile(r"\S[\s_.(\-](s\.?d\.?|std|stdev|std\.? ?dev\.?|standard deviation|stabw)\)?$", re.IGNORECASE)
_FIRST, _LAST = 2, 8
_FEWEST, _MOST_CHANNELS, _MOST_SAMPLES = 8, 200, 20_000


def without_rows(table: Table, settings: ReadingSettings) -> Table:
    """A table without the rows that the user names, or numbers as in the file.

    Raises:
        InputError: there is no such row.
    """
    drop_rows = settings.drop_rows
    if not drop_rows:
        return table
    unwanted = {i for i, row in enumerate(table.rows) if settings.leaves_out(row)}
    numbers = [str(row) for row in table.rows]
    first = [str(value).strip() for value in table.others[0]] if 0 in table.others else []
    for word in drop_rows:
        found = {i for i, name in enumerate(first) if name == word} or {i for i, n in enumerate(numbers) if n == word}
        if not found and word != NONE and not re.fullmatch(r"\d+:\d*", word):
            raise InputError(
                f"{table.where} has no row {word!r}: give ", Option("drop_rows"), " a row's number or name"
            )
        unwanted |= found
    if not unwanted:
        return table
    kept = np.array([i for i in range(len(table.rows)) if i not in unwanted], dtype=int)
    return table.of_rows(kept)


_IN_ORDER = "is in order, as the channels' positions are"


def check_samples(
    table: Table,
    values: NDArray[np.floating],
    targets: pd.DataFrame,
    positions: NDArray[np.float64] | None,
    settings: ReadingSettings,
) -> None:
    """Raise an error for a row that does not seem to be a sample.

    Args:
        table: where the samples stand.
        values: values of all samples, shape (samples, channels).
        targets: what is known of each sample; the first column of text names it.
        positions: positions of the channels, None where they are only counted.
        settings: what the user says.

    Raises:
        InputError: a sample repeats the positions, is named as a mean or a deviation, or is one of the others.
    """
    in_columns = table.layout.in_columns
    if NONE in ((settings.drop if in_columns else settings.drop_rows) or ()):
        return
    text = next((name for name in targets.columns if targets[name].dtype.kind not in "fiub"), None)
    names = [] if text is None else [str(name) for name in targets[text]]
    found = _named(names)
    if len(values) >= _FEWEST:
        found = found or _repeated(values, positions) or _constant(values)
        found = found or (_headers(values) if settings.axis != NONE else {}) or _whole(values) or _summaries(values)
    if not found:
        return
    first = min(found)
    where = table.cell(0, first) if in_columns else f"{table.where}, row {table.rows[first]}"
    known = tuple(str(table.layout.columns[i] + 1 if in_columns else table.rows[i]) for i in sorted(found))
    option = "drop" if in_columns else "drop_rows"
    axis: tuple[str | Option, ...] = ()
    if found[first] == _IN_ORDER:
        place = f"{'column' if in_columns else 'row'}:{known[0]}"
        axis = (", say that it holds the positions with ", Option("axis", place))
    raise InputError(
        f"{where}: the {'column' if in_columns else 'row'} {found[first]}: leave it out with ",
        Option(option, known),
        *axis,
        ", or if it is a sample, say ",
        Option(option, NONE),
    )


def _named(names: Sequence[str]) -> dict[int, str]:
    """Samples named as a deviation, or as a mean or a reference where few are."""
    few = [i for i, name in enumerate(names) if _SUMMARIES.fullmatch(_SUFFIX.sub("", name.strip()))]
    most = len(names) / 3 if len(names) >= _FEWEST else len(names)
    found = {*(few if len(few) < most else ()), *(i for i, n in enumerate(names) if _DEVIATIONS.search(n))}
    return {i: f"is named {names[i]!r}" for i in found}


def _repeated(values: NDArray[np.floating], positions: NDArray[np.float64] | None) -> dict[int, str]:
    """Samples whose values are the channels' positions."""
    if positions is None or values.shape[1] < 3:
        return {}
    like = np.flatnonzero(np.isclose(values[:, :3], positions[:3], rtol=1e-6, atol=0).all(1))
    equal = [int(i) for i in like if np.allclose(values[i], positions, rtol=1e-6, atol=0)]
    return dict.fromkeys(equal, "repeats the channels' positions")


def _summaries(values: NDArray[np.floating]) -> dict[int, str]:
    """Samples at the end, or at the beginning, that are the mean or the standard deviation of all others."""
    if values.shape[1] < 4 or len(values) > _MOST_SAMPLES:
        return {}
    few = values[:, :: -(-values.shape[1] // _MOST_CHANNELS)].astype(np.float64)
    last = _summaries_after(few, _LAST)
    return last or {len(values) - 1 - i: what for i, what in _summaries_after(few[::-1], _FIRST).items()}


def _summaries_after(values: NDArray[np.float64], num: int) -> dict[int, str]:
    found: dict[int, str] = {}
    num = min(num, len(values) - _FEWEST)
    kept = list(range(len(values) - num))
    for i in range(len(values) - num, len(values)):
        row, others = values[i], values[kept]
        if np.isnan(others).all(0).any():
            return {}
        mean, deviation = np.nanmean(others, axis=0), np.nanstd(others, axis=0)
        error = np.maximum(0.002 * deviation, max(_step(others), _step(row[None])))
        spread = deviation * np.sqrt(len(others) / (len(others) - 1))
        if np.median(error) > 0.05 * np.median(deviation):
            kept.append(i)  # too coarse to tell, as whole numbers from 0 to 9 are
        elif np.all(np.abs(row - mean) <= error):
            found[i] = "is the mean of the others"
        elif np.all(np.minimum(np.abs(row - deviation), np.abs(row - spread)) <= error):
            found[i] = "is the standard deviation of the others"
        else:
            kept.append(i)
    return found


def _step(values: NDArray[np.float64]) -> float:
    """Half a unit of the last digit that most values have, or a little more."""
    some = values[:20, :20]
    some = some[np.isfinite(some)]
    scale = np.abs(some).max(initial=0.0)
    digits = next((d for d in range(8) if np.allclose(some, some.round(d), rtol=0, atol=1e-6 * scale)), 8)
    return 0.51 * 10.0**-digits


def _constant(values: NDArray[np.floating]) -> dict[int, str]:
    """Samples of one value at every channel, as of a detector that is saturated, or dead."""
    if np.median([len(np.unique(row)) for row in values[:_MOST_CHANNELS]]) < 5:
        return {}
    same = np.flatnonzero(values[:, 0] == values[:, -1])
    return {int(i): f"holds {values[i, 0]:g} at every channel" for i in same if (values[i] == values[i, 0]).all()}


def _whole(values: NDArray[np.floating]) -> dict[int, str]:
    """Samples of whole numbers alone, one or two, where all others have decimals, as numbers of detectors are."""
    if values.shape[1] < _FEWEST:
        return {}
    whole = np.flatnonzero((np.isnan(values) | (values == np.round(values))).all(1))
    others = np.delete(values, whole, axis=0)
    if not 0 < len(whole) <= 2 or len(others) < _FEWEST or np.mean(others == np.round(others)) > 0.2:
        return {}
    return dict.fromkeys(map(int, whole), "holds whole numbers, and no other does")


def _headers(values: NDArray[np.floating]) -> dict[int, str]:
    """A sample that looks like the channels' positions: in order, and evenly spaced or outside of all others."""
    steps = np.diff(values, axis=1) if values.shape[1] > 7 else np.zeros((len(values), 1))
    ordered = np.flatnonzero((steps > 0).all(1) | (steps < 0).all(1))
    for i in map(int, ordered[:5]):
        row, others = values[i].astype(np.float64), np.delete(values, i, axis=0)
        if is_outside(row, others) or (is_even(row) and not any(map(is_even, others[:200].astype(np.float64)))):
            return {i: _IN_ORDER}
    return {}
