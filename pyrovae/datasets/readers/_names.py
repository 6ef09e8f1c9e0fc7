"""Names of channels: their positions and units, and groups of names that differ in a number alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
_UNDERSCORED = re.compile(r"(|.*\D)(\d{3,5})_(\d+)")
_COUNT = re.compile(r"(\D*)(\d{1,9})\D*$")
_NEGATIVE = re.compile(r"[-−+]\d+(?:[.,]\d+)?")
_AXIS_NAME = re.compile(
    r"(?:rel\.?\s)?[(\[]?(?P<name>wave[\s_-]?(length|number|shift)s?|wl|wn|wvl|nu|lambda|λ|x[\s_-]?axis|frequency|frequencies|"
    r"raman[\s_-]?shift|shift|axis|channel|channels|bands?|energy|"
    rf"wellenl(ä|ae)nge|wellenzahl|longueurs?[\s_]d['’]onde|nombre[\s_]d['’]onde|longitud[\s_]de[\s_]onda|{_UNIT})"
    rf"[\s_]*[(\[/,]?\s*(in\s+)?(?P<unit>{_UNIT}|)[)\]]?",
    re.IGNORECASE,
)


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


def parts_of(name: str) -> tuple[str, str, float, str] | None:
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
    part = parts_of(name.strip()) if value is None else None
    return value if part is None else part[2]


def axis_unit(name: str) -> str | None:
    """The unit in the name of a column of channel positions, empty if it has none; None for all other names."""
    match = _AXIS_NAME.fullmatch(name.strip())
    if match is None:
        return None
    return UNITS.get(match["unit"].lower()) or UNITS.get(match["name"].lower(), "")


def with_points(names: Sequence[str]) -> list[str] | None:
    """Names with a point for an underscore, as R and Stata write ``X1100_5``; None if they are not written so.

    All names of one run are, with the same prefix and the same number of decimals, and their positions are nearly even.
    """
    found = [_UNDERSCORED.fullmatch(name) for name in names]
    run = [i for i, match in enumerate(found) if match]
    some = [match for match in found if match]
    if len(some) < 5 or run[-1] - run[0] >= len(run) or len({(match[1], len(match[3])) for match in some}) > 1:
        return None
    positions = np.array([float(f"{match[2]}.{match[3]}") for match in some])
    steps = np.diff(positions)
    if not ((steps > 0).all() or (steps < 0).all()) or np.abs(steps).max() > 2 * np.abs(steps).min():
        return None  # such as sample 101_1, 101_2, 102_1
    return [f"{match[1]}{match[2]}.{match[3]}" if match else name for match, name in zip(found, names, strict=True)]


def groups_of(names: Sequence[str]) -> list[Group]:
    """Columns by what their names have in common, the largest group first.

    A number that only counts may stand before the position, as in ``Band_1_950nm``.
    """
    parts = [(i, part) for i, part in enumerate(map(parts_of, names)) if part is not None]
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
