"""Find the columns of a table that are channels by their names, and their positions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._names import COUNTED, Group, groups_of, largest_group, parts_of
from pyrovae.datasets.readers._order import in_order
from pyrovae.errors import InputError, Option

_LEAP, _REGULAR = 5.0, 2.0

_SMALL = ("µm", "eV", "keV")
"""Units of positions that are often small."""


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


def check_mangled(names: Sequence[str], where: str) -> None:
    """Raise for names such as ``1492.1`` beside ``1492``, which pandas makes of two columns named ``1492``.

    They are positions where these are regular with them, as of 1492, 1492.1, 1492.2, and not where they are regular
    without them alone.
    """
    group = largest_group(names)
    if group is None:
        return
    texts = [names[i] for i in group.members]
    added: list[int] = []
    number = 0
    for j in range(1, len(texts)):
        number = number + 1 if texts[j] == f"{texts[j - 1 - number]}.{number + 1}" else 0
        added += [j] if number else []
    kept = np.delete(group.positions, added)
    steps, whole = np.abs(np.diff(kept)), np.abs(np.diff(group.positions))
    if not added or len(kept) < 4 or not in_order(kept) or steps.max() > _REGULAR * steps.min():
        return
    if whole.min() * _REGULAR < steps.min():
        j = added[0]
        first, other = texts[j - 1], texts[j]
        column = group.members[j] + 1
        raise InputError(
            f"{where}, column {column}: {other!r} beside {first!r} is no step of the others, and pandas writes so "
            f"where two columns are named {first!r}: if it is a second one, leave it out with ",
            Option("drop", tuple(str(group.members[k] + 1) for k in added)),
            ", or if it is a position, say ",
            Option("channels", group.prefix or "all"),
        )


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
    part = parts_of(name[len(prefix) :]) if prefix and name.startswith(prefix) else None
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
