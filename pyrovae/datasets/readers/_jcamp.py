"""The text of JCAMP-DX: its labels as the standard compares them, and the axis that the data confirm."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option

_LABEL = re.compile(r"[ \t]*##([^=]*)=(.*)")
_SPELLINGS = (
    "TITLE", "JCAMP-DX", "DATA TYPE", "DATA CLASS", "BLOCKS", "END", "XUNITS", "YUNITS", "XFACTOR", "YFACTOR", "FIRSTX",
    "LASTX", "FIRSTY", "DELTAX", "NPOINTS", "XYDATA", "XYPOINTS", "PEAK TABLE", "NTUPLES", "END NTUPLES", "VAR_NAME",
    "SYMBOL", "VAR_TYPE", "VAR_FORM", "VAR_DIM", "UNITS", "FIRST", "LAST", "FACTOR", "PAGE", "DATA TABLE",
)  # fmt: skip
_NUMBERS = ("FIRSTX", "LASTX", "DELTAX", "NPOINTS", "XFACTOR", "YFACTOR")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_STEPS = 1.5
"""Steps that a line's position may be off: some programs write that of the value before, or one for LASTX too many."""
_UNPACKED = re.compile(rf"(?:[\s,;]*{_NUMBER.pattern})+[\s,;]*")


def _plain(label: str) -> str:
    """A label without what does not count: cases, spaces, dashes, slashes and underscores."""
    return re.sub(r"[\s/_-]", "", label).upper()


_KNOWN = {_plain(label): label for label in _SPELLINGS}


@dataclass(frozen=True)
class Block:
    """One table of points.

    Attributes:
        kind: ``XYDATA`` or ``XYPOINTS``.
        said: numbers about it, by their labels.
        lines: of its data.
    """

    kind: str
    said: dict[str, float]
    lines: list[str] = field(default_factory=list)


def standard(text: str) -> tuple[str, list[Block]]:
    """A file's text with its labels spelled as in the standard, and its tables of points."""
    lines: list[str] = []
    blocks: list[Block] = []
    said: dict[str, float] = {}
    is_data = False
    for line in re.split(r"\r\n|\r|\n", text.lstrip("\ufeff\r\n\t ").removeprefix("ï»¿")):
        match = _LABEL.match(line)
        if match is None:
            if is_data:
                blocks[-1].lines.append(line.partition("$$")[0])
            lines.append(line)
            continue
        label, value = _plain(match[1]), match[2]
        if label in ("TITLE", "END"):
            said = {}
        if label in _NUMBERS:
            value = value.partition("$$")[0].strip()
            if _NUMBER.fullmatch(value):
                said[label] = float(value)
        is_data = label in ("XYDATA", "XYPOINTS")
        if is_data:
            label = "XYPOINTS" if "XY..XY" in value.upper() else label
            blocks.append(Block(label, dict(said)))
        lines.append(f"##{_KNOWN.get(label, match[1])}={value}")
    return "\n".join(lines), blocks


def confirmed(block: Block, axis: NDArray[np.float64], where: str) -> tuple[NDArray[np.float64], Finding | None]:
    """A table's positions, and what contradicts them.

    Lines that are not packed begin with a position. They decide where DELTAX and LASTX contradict each other.

    Args:
        block: the table.
        axis: its positions by DELTAX, or else by LASTX.
        where: what to call it in errors.

    Raises:
        InputError: the labels contradict the data, or no label says the last position.
    """
    first, last, count = block.said.get("FIRSTX"), block.said.get("LASTX"), block.said.get("NPOINTS")
    candidates = [axis]
    if block.kind == "XYDATA":
        starts, num = _starts(block)
        if starts and num > len(axis):
            raise InputError(f"{where}: NPOINTS is {len(axis)}, and {num} values are there; correct the file")
        if starts and num == len(axis) and first is not None and last is not None:
            candidates.append(np.linspace(first, last, num))
        if not starts and count is None:
            raise InputError(f"{where} lacks NPOINTS, by which its packed data could be checked; add it")
        if starts and num == len(axis):
            factor = block.said.get("XFACTOR", 1.0)
            off, axis = min(((_misfit(starts, some, factor), some) for some in candidates), key=lambda pair: pair[0])
            if off > _STEPS:
                raise InputError(
                    f"{where}: FIRSTX = {first}, {num} points and LASTX or DELTAX (the axis would end at {axis[-1]:g}) "
                    "contradict the positions that its lines begin with; correct them, or give ",
                    Option("axis", "FILE"),
                )
    if last is None or len(axis) < 2 or abs(axis[-1] - last) <= _STEPS * abs(axis[-1] - axis[-2]):
        return axis, None
    return axis, Finding(f"{axis[-1]:g} as the last position", f"the data and DELTAX say so, though LASTX is {last:g}")


def _starts(block: Block) -> tuple[list[tuple[str, int]], int]:
    """The positions that lines begin with, as written, with their places, and the number of points; none if packed."""
    found: list[tuple[str, int]] = []
    num = 0
    for line in filter(str.strip, block.lines):
        if _UNPACKED.fullmatch(line) is None:
            return [], 0
        position, *values = _NUMBER.findall(line)
        found.append((position, num))
        num += len(values)
    return found, num


def _misfit(starts: list[tuple[str, int]], axis: NDArray[np.float64], factor: float) -> float:
    """How many steps positions are off at most, beyond what they are rounded to."""
    written = np.array([float(word) * factor for word, _ in starts])
    units = []
    for word, _ in starts:
        mantissa, _, exponent = word.lower().partition("e")
        units.append(abs(factor) * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))
    off = np.abs(written - axis[[place for _, place in starts]]) - np.array(units)
    step = abs(axis[-1] - axis[0]) / max(1, len(axis) - 1)
    return float(off.max()) / step if step > 0 else np.inf
