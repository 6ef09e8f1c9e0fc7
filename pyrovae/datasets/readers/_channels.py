"""Which columns of a table are a spectrum's channels, and where on the axis they lie."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._table import COUNTED, Layout
from pyrovae.errors import InputError

UNITS = {
    unit.lower(): unit for unit in ("nm", "µm", "cm⁻¹", "Hz", "kHz", "MHz", "GHz", "THz", "eV", "keV", "ppm", "m/z")
} | {"um": "µm", "cm-1": "cm⁻¹", "cm^-1": "cm⁻¹", "1/cm": "cm⁻¹"}
"""Units that a channel's name may end in, as they are written here."""

_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
_NAME = re.compile(
    rf"(?P<prefix>|.*?[^\d.,])(?P<number>\d+(?:[.,]\d+)?(?:e[+-]?\d+)?)[\s_]*[(\[]?(?P<unit>{_UNIT}|)[)\]]?",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(r"[-−+]\d+(?:[.,]\d+)?")
_AXIS_NAME = re.compile(
    rf"(wave[\s_-]?(length|number)s?|wl|nu|frequency|raman[\s_]?shift|shift|axis|channel|band|energy|{_UNIT})"
    rf"[\s_]*[(\[/]?\s*(?P<unit>{_UNIT}|)[)\]]?",
    re.IGNORECASE,
)


def number(text: str) -> float | None:
    """The number in a text, with a decimal point or comma; None for all other text, such as 1_0."""
    try:
        return float(text.replace(",", ".")) if "_" not in text else None
    except ValueError:
        return None


def _parts(name: str) -> tuple[str, float, str] | None:
    """Prefix, position and unit of a name such as ``899.327``, ``absorbance_12`` or ``X450 nm``."""
    if _NEGATIVE.fullmatch(name):
        return "", float(name.replace(",", ".").replace("−", "-")), ""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return match["prefix"], float(match["number"].replace(",", ".")), UNITS.get(match["unit"].lower(), "")


def axis_unit(name: str) -> str | None:
    """The unit in the name of a column of channel positions, empty if it has none; None for all other names."""
    match = _AXIS_NAME.fullmatch(name.strip())
    if match is None:
        return None
    return UNITS.get(match["unit"].lower()) or UNITS.get(name.strip().lower(), "")


def find_channels(names: Sequence[str], channels: str | Sequence[str] | None, where: str) -> Layout:
    """Columns of the channels, their positions and the unit.

    Without ``channels``, they are the largest group of columns whose names are numbers, or one prefix and numbers.

    Args:
        names: of all columns.
        channels: the channels' prefix or their names; None to find them.
        where: what to call the table in errors.

    Raises:
        InputError: there are none, two groups are equally large, a name occurs twice, or the positions neither ascend
            nor descend.
    """
    parts = [_parts(name) for name in names]
    if channels is None or isinstance(channels, str):
        prefix = _commonest_prefix(names, parts, where) if channels is None else channels
        found = [i for i, part in enumerate(parts) if part is not None and part[0] == prefix]
        if not found:
            raise InputError(f"{where} has no columns named {channels!r} and a number; {_some(names)}")
    else:
        unknown = [name for name in map(str, channels) if name not in names]
        if unknown:
            raise InputError(f"{where} has no column {unknown[0]!r}; {_some(names)}")
        found = [names.index(str(name)) for name in channels]
    chosen = [part for i in found if (part := parts[i]) is not None]
    if len(chosen) < len(found) or len({prefix for prefix, _, _ in chosen}) > 1:
        positions, unit = np.arange(len(found), dtype=float), COUNTED  # their names are no positions on one axis
    else:
        positions = np.array([position for _, position, _ in chosen])
        units = {unit for _, _, unit in chosen}
        unit = units.pop() if len(units) == 1 else ""
        counted = chosen[0][0] != "" and np.array_equal(positions, positions[0] + np.arange(len(positions)))
        if not unit and counted and positions[0] in (0, 1):
            unit = COUNTED
    _check_columns(positions, [names[i] for i in found], found, where)
    return Layout(found, positions, unit)


def _commonest_prefix(names: Sequence[str], parts: Sequence[tuple[str, float, str] | None], where: str) -> str:
    """The prefix of most columns that are named by it and a number."""
    counts = Counter(part[0] for part in parts if part is not None).most_common(2)
    if not counts or counts[0][1] < 2:
        raise InputError(
            f"{where} has no channels: no two columns are named by numbers, or by one prefix and numbers; name them "
            f"with channels=…; {_some(names)}"
        )
    (prefix, num), *others = counts
    if others and others[0][1] == num:
        raise InputError(
            f"{where} has {num} columns {prefix!r} and as many {others[0][0]!r}; say which are the channels with "
            f"channels={prefix!r}"
        )
    return prefix


def out_of_order(positions: NDArray[np.float64]) -> int | None:
    """The first position that is not finite, or not in the direction of most; None if all are in order."""
    if not np.isfinite(positions).all():
        return int(np.flatnonzero(~np.isfinite(positions))[0])
    steps = np.diff(positions)
    wrong = ~(steps > 0) if (steps > 0).sum() >= (steps < 0).sum() else ~(steps < 0)
    return int(np.flatnonzero(wrong)[0]) + 1 if wrong.any() else None


def check_order(where: str, positions: NDArray[np.float64]) -> None:
    """Raise an InputError unless the positions are finite and ascend or descend."""
    wrong = out_of_order(positions)
    if wrong is not None:
        raise InputError(f"{where}: position {wrong + 1}, {positions[wrong]:g}, is not in order, or is there twice")


def _check_columns(positions: NDArray[np.float64], names: Sequence[str], columns: Sequence[int], where: str) -> None:
    seen: dict[float, int] = {}
    for j, position in enumerate(positions.tolist()):
        first = seen.setdefault(position, j)
        if first != j:
            raise InputError(
                f"{where}, columns {columns[first] + 1} and {columns[j] + 1}: both are channel {names[j]!r}; remove one"
            )
    steps = np.diff(positions)
    ascending = (steps > 0).sum() >= (steps < 0).sum()
    wrong = np.flatnonzero(steps < 0 if ascending else steps > 0)
    if len(wrong):
        j = int(wrong[0])
        raise InputError(
            f"{where}, column {columns[j + 1] + 1}: channel {names[j + 1]!r} comes after {names[j]!r}, and the others "
            f"{'ascend' if ascending else 'descend'}; sort the columns (or is the first row no header?)"
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:6])
    return f"its columns are {shown}{' …' if len(names) > 6 else ''}"
