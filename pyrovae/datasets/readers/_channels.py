"""Find the columns of a table that are channels by their names, and their positions."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._order import in_order
from pyrovae.errors import InputError, Option

COUNTED = "channel"
"""Unit of an axis whose positions are only counted."""

UNITS = {
    unit.lower(): unit for unit in ("nm", "µm", "cm⁻¹", "Hz", "kHz", "MHz", "GHz", "THz", "eV", "keV", "ppm", "m/z")
} | {
    "um": "µm",
    "μm": "µm",  # the Greek letter for the sign
    "micron": "µm",
    "microns": "µm",
    "nanometer": "nm",
    "nanometers": "nm",
    "cm-1": "cm⁻¹",
    "cm^-1": "cm⁻¹",
    "cm−1": "cm⁻¹",
    "1/cm": "cm⁻¹",
}
"""Units that a channel's name may hold, as they are written here."""

_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
_NUMBER = r"\d+(?:[.,]\d*)?(?:e[+-]?\d+)?"
_NAME = re.compile(
    rf"(?P<prefix>|.*?(?:[^\d.,]|[^\W\d]\.))(?P<number>{_NUMBER})"
    rf"(?P<suffix>[\s_.]*[(\[{{]?(?P<unit>{_UNIT}|)[)\]}}]?(?:|[\s_.)\]}},'\"][^\d]*|[^\W\d][^\d]*))",
    re.IGNORECASE,
)
_COUNT = re.compile(r"(\D*)(\d{1,9})\D*$")
_NEGATIVE = re.compile(r"[-−+]\d+(?:[.,]\d+)?")
_AXIS_NAME = re.compile(
    r"(?:rel\.?\s)?[(\[]?(?P<name>wave[\s_-]?(length|number|shift)s?|wl|wn|wvl|nu|lambda|λ|x[\s_-]?axis|frequency|frequencies|"
    r"raman[\s_-]?shift|shift|axis|channel|channels|bands?|energy|"
    rf"wellenl(ä|ae)nge|wellenzahl|longueurs?[\s_]d['’]onde|nombre[\s_]d['’]onde|longitud[\s_]de[\s_]onda|{_UNIT})"
    rf"[\s_]*[(\[/,]?\s*(in\s+)?(?P<unit>{_UNIT}|)[)\]]?",
    re.IGNORECASE,
)


_LEAP = 5.0
_SMALL = ("µm", "eV", "keV")
"""Units of positions that are often small."""

_MOST_LEFT_OUT = 9
"""Columns such as ``V1`` to ``V9`` may have been left out before the first channel."""


@dataclass(frozen=True)
class Group:
    """Columns whose names differ only in a number.

    Attributes:
        prefix: before the number.
        suffix: after it, the unit left out.
        members: which names these are.
        positions: their numbers.
        unit: that all of them name, empty where they do not.
    """

    prefix: str
    suffix: str
    members: list[int]
    positions: NDArray[np.float64]
    unit: str

    @property
    def is_counted(self) -> bool:
        """Whether the numbers only count, from 0 or 1, or, behind a letter, from where columns were left out."""
        counted = np.array_equal(self.positions, self.positions[0] + np.arange(len(self.positions)))
        return bool(not self.unit and counted and 0 <= self.positions[0] <= (_MOST_LEFT_OUT if self.prefix else 1))

    @property
    def title(self) -> str:
        """The group's common name, as in errors."""
        return f"{self.prefix}…{self.suffix}" if self.suffix or not self.prefix else self.prefix


def number(text: str) -> float | None:
    """The number in a text, with a decimal point or comma; None for all other text, such as 1_0."""
    try:
        return float(text.replace(",", ".").replace("−", "-")) if "_" not in text else None
    except ValueError:
        return None


def _parts(name: str) -> tuple[str, str, float, str] | None:
    """Prefix, suffix, position and unit of a name such as ``899.327``, ``absorbance_12`` or ``X450 nm``."""
    if _NEGATIVE.fullmatch(name):
        return "", "", float(name.replace(",", ".").replace("−", "-")), ""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    unit = match["unit"]
    suffix = match["suffix"].replace(unit, "", 1) if unit else match["suffix"]
    found = UNITS.get(unit.lower(), "") or UNITS.get(match["prefix"].strip(" _.([").lower(), "")
    return match["prefix"], suffix.strip(" ._()[]{}"), float(match["number"].replace(",", ".")), found


def position_of(name: str) -> float | None:
    """The position in a channel's name, such as ``450`` or ``X450 nm``; None if it has none."""
    value = number(name)
    part = _parts(name.strip()) if value is None else None
    return value if part is None else part[2]


def axis_unit(name: str) -> str | None:
    """The unit in the name of a column of channel positions, empty if it has none; None for all other names."""
    match = _AXIS_NAME.fullmatch(name.strip())
    if match is None:
        return None
    return UNITS.get(match["unit"].lower()) or UNITS.get(match["name"].lower(), "")


def groups_of(names: Sequence[str]) -> list[Group]:
    """Columns by what their names have in common, the largest group first.

    A number that only counts may stand before the position, as in ``Band_1_950nm``.
    """
    parts = [(i, part) for i, part in enumerate(map(_parts, names)) if part is not None]
    counts = [_COUNT.match(part[0]) for _, part in parts]
    numbers = np.array([int(count[2]) for count in counts if count is not None])
    is_counted = len(numbers) > 2 and bool((np.diff(numbers) == 1).all())
    found: dict[tuple[str, str], list[tuple[int, float, str]]] = defaultdict(list)
    for (i, part), count in zip(parts, counts, strict=True):
        prefix = count[1] if is_counted and count is not None else part[0]
        found[prefix, part[1]].append((i, *part[2:]))
    groups = []
    for (prefix, suffix), members in found.items():
        units = {unit for _, _, unit in members}
        positions = np.array([position for _, position, _ in members])
        groups.append(
            Group(prefix, suffix, [i for i, _, _ in members], positions, units.pop() if len(units) == 1 else "")
        )
    return sorted(groups, key=lambda group: -len(group.members))


def largest_group(names: Sequence[str]) -> Group | None:
    """The largest group of columns whose names differ only in a number; None if there is none."""
    return next(iter(groups_of(names)), None)


@dataclass(frozen=True)
class Channels:
    """Columns that are channels.

    Attributes:
        columns: which they are.
        positions: on the axis.
        unit: unit of the positions.
    """

    columns: list[int]
    positions: NDArray[np.float64]
    unit: str


def find_channels(names: Sequence[str], channels: Sequence[str] | None, where: str) -> Channels:
    """Columns of the channels, their positions and the unit.

    Without ``channels``, they are the largest group of columns whose names are numbers, or differ only in a number.

    Args:
        names: names of all columns.
        channels: the channels' prefix alone, or their names; None to find them.
        where: what to call the table in errors.

    Raises:
        InputError: there are none, two groups are equally large, a name occurs twice, or the positions neither ascend
            nor descend.
    """
    if channels is not None:
        return _named(names, channels, where)
    group = _largest(groups_of(names), names, where)
    _check_prefix(group, names, where)
    _check_columns(group.positions, names, group.members, where)
    return Channels(group.members, group.positions, COUNTED if group.is_counted else group.unit)


def _check_prefix(group: Group, names: Sequence[str], where: str) -> None:
    """Raise where a whole number before the point, the same in many names, may be of the prefix: T1.400, T1.402."""
    texts = [names[i].removeprefix(group.prefix) for i in group.members]
    parts = [match for match in (re.match(r"(\d+)\.([1-9]\d{2,})(?!\d)", text) for text in texts) if match]
    if not group.prefix or group.unit in _SMALL or len(parts) < max(4, len(texts)):
        return
    first = [match[1] for match in parts]
    steps = np.abs(np.diff(group.positions))
    changes = np.array([a != b for a, b in itertools.pairwise(first)])
    if "0" in first or ((steps > _LEAP * np.median(steps)) != changes).any():
        return
    prefixes = tuple(dict.fromkeys(f"{group.prefix}{one}." for one in first))
    raise InputError(
        f"{where}: {names[group.members[0]]!r} may be the position {group.positions[0]:g}, then say ",
        Option("channels", group.prefix),
        f", or {parts[0][2]}, then say ",
        Option("channels", prefixes),
    )


def _named(names: Sequence[str], channels: Sequence[str], where: str) -> Channels:
    """Columns of these names, or of these prefixes and a number."""
    groups, is_split = groups_of(names), False
    found: list[int] = []
    short: list[str] = []  # without the prefixes
    for channel in channels:
        columns = [names.index(channel)] if channel in names else []
        columns = columns or sorted(i for group in _called(channel, groups) for i in group.members)
        if not columns:
            columns, is_split = [i for i, name in enumerate(names) if _goes_on(name, channel)], True
        if not columns:
            what = f"columns named {channel!r} and a number" if len(channels) == 1 else f"column {channel!r}"
            raise InputError(f"{where} has no {what}; {_some(names)}")
        found += columns
        short += [names[i] if channel in names else names[i].removeprefix(channel) for i in columns]
    for some in (short if is_split else [names[i] for i in found], short):
        group = largest_group(some)
        if group is not None and len(group.members) == len(found) and (some is not short or in_order(group.positions)):
            _check_columns(group.positions, names, found, where)
            return Channels(found, group.positions, COUNTED if group.is_counted else group.unit)
    twice = next((i for k, i in enumerate(found) if i in found[:k]), None)
    if twice is not None:
        raise InputError(f"{where}: the channel {names[twice]!r} is given twice")
    return Channels(found, np.arange(len(found), dtype=float), COUNTED)  # their names are not positions on one axis


def _called(word: str, groups: Sequence[Group]) -> list[Group]:
    """Groups of a prefix, of which the one without a suffix where they say the same positions; or else of a suffix."""
    found = [group for group in groups if group.prefix == word]
    positions = np.concatenate([np.empty(0), *(group.positions for group in found)])
    if len(np.unique(positions)) < len(positions):
        found = [group for group in found if not group.suffix]
    return found or [group for group in groups if word and group.suffix == word]


def _goes_on(name: str, prefix: str) -> bool:
    """Whether a number comes behind a prefix."""
    part = _parts(name[len(prefix) :]) if prefix and name.startswith(prefix) else None
    return part is not None and not part[0]


def _largest(groups: Sequence[Group], names: Sequence[str], where: str) -> Group:
    """The largest group, if it is the only one of its size."""
    if not groups or len(groups[0].members) < 2:
        raise InputError(
            f"{where} has no channels: no two columns are named by numbers, or by one prefix and numbers; name "
            "them with ",
            Option("channels"),
            "; ",
            _some(names),
        )
    first, *others = groups
    if others and len(others[0].members) == len(first.members):
        raise InputError(
            f"{where} has {len(first.members)} columns {first.title!r} and as many {others[0].title!r}; say which are "
            "the channels with ",
            *either(first, others[0]),
        )
    return first


def either(first: Group, other: Group) -> tuple[str | Option, ...]:
    """How a question for a group ends: with the words for each, and for both, where they differ in their prefix."""
    if other.prefix == first.prefix:
        one, two = (Option("channels", group.suffix or group.prefix) for group in (first, other))
        return (one, " or ", two)
    both = sorted((first, other), key=lambda group: group.members[0])
    prefixes = tuple(group.prefix for group in both)
    one, two = Option("channels", first.prefix), Option("channels", other.prefix)
    return (one, ", ", two, ", or both with ", Option("channels", prefixes))


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
    """Raise unless columns of a header are at different positions, in order."""
    seen: dict[float, int] = {}
    for j, position in enumerate(positions.tolist()):
        first = seen.setdefault(position, j)
        if first != j:
            raise InputError(
                f"{where}, columns {columns[first] + 1} and {columns[j] + 1}: both are channel {names[columns[j]]!r}; "
                "leave one out with ",
                Option("drop", str(columns[j] + 1)),
                ", or if one is a label, say which with ",
                Option("label", str(columns[first] + 1)),
            )
    wrong = out_of_order(positions)
    if wrong is not None:
        edge = {1: columns[0], len(positions) - 1: columns[-1]}.get(wrong)
        label: tuple[str | Option, ...] = ()
        if edge is not None:
            label = (", or if it is a label, say ", Option("label", names[edge] or str(edge + 1)))
        direction = "ascend" if np.count_nonzero(np.diff(positions) > 0) >= len(positions) // 2 else "descend"
        raise InputError(
            f"{where}, column {columns[wrong] + 1}: channel {names[columns[wrong]]!r} comes after "
            f"{names[columns[wrong - 1]]!r}, and the others {direction}; sort the columns (or is the first "
            "row no header? then say ",
            Option("axis", "none"),
            ")",
            *label,
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:6])
    return f"its columns are {shown}{' …' if len(names) > 6 else ''}"
