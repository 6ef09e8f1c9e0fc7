"""A folder of files, each with one spectrum, or a few, on one axis."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.blocks import gathered
from pyrovae.datasets.readers._axis import given_axis, positions_in_columns
from pyrovae.datasets.readers._names import COUNTED
from pyrovae.datasets.readers._table import Choose, Layout, Table
from pyrovae.datasets.readers._targets import targets_of
from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.datasets.reading import AxisSource, Finding
from pyrovae.errors import InputError, Option

_QUANTITY = re.compile(
    r"(a|abs\.?(orbance)?|%?\s?t|%?\s?transm(ittance|ission)|%?\s?r|%?\s?refl(ectance|ection)|counts|intensity)"
    r"\s*([(\[].*[)\]])?",
    re.IGNORECASE,
)
"""Headers that say what the values are."""
ReadFile = Callable[[Path, ReadingSettings, Choose], Table]


@dataclass(frozen=True)
class FolderTable(Table):
    """Spectra of several files, one a row.

    Attributes:
        files: files of each row.
    """

    files: list[Path] = field(default_factory=list)

    def of_rows(self, index: NDArray[np.integer]) -> Self:
        """The table of some of its rows."""
        return replace(super().of_rows(index), files=[self.files[i] for i in index])

    def place(self, row: int, column: int) -> str:
        """The file and the channel."""
        return f"{self.files[row]}, channel {column + 1}"


@dataclass(frozen=True)
class _Part:
    path: Path
    values: NDArray[np.floating]
    positions: NDArray[np.float64] | None
    unit: str
    source: AxisSource
    about: dict[str, list[object]]
    findings: tuple[Finding, ...]
    signal: str


def read_folder(folder: Path, settings: ReadingSettings, choose: Choose, read_file: ReadFile) -> Table:
    """The spectra of the files in a folder that have the commonest ending.

    Raises:
        InputError: there are none, one cannot be read, or their axes differ.
    """
    import pandas as pd

    files, findings = _files(folder)
    each = replace(settings, axis=None) if settings.gives_axis else settings
    parts: list[_Part] = []  # with nothing in place of their values

    def values_of_parts() -> Iterator[Tensor]:
        for path in files:
            table = read_file(path, each, choose)
            if settings.samples is None:
                _check_is_one(path, table.layout)
            part = _part(path, table)
            if parts and len({part.signal, parts[0].signal} - {""}) > 1:
                raise InputError(
                    f"{path} holds {part.signal}, and {files[0].name} {parts[0].signal}; convert them to one"
                )
            if settings.gives_axis:
                part = _on_axis(part, given_axis(settings.axis))
            elif parts:
                _check_axis(part, parts[0])
            parts.append(replace(part, values=np.broadcast_to(np.float32(0), part.values.shape)))
            yield torch.from_numpy(np.ascontiguousarray(part.values))

    values = gathered(values_of_parts()).numpy()
    first = parts[0]
    findings += tuple(one for one in first.findings if one.overruled_by is None or one.overruled_by.name != "samples")
    rows = [part.path for part in parts for _ in range(len(part.values))]
    about = {"file": [path.name for path in rows]}
    for name in first.about:
        if all(name in part.about for part in parts) and name != "file":
            about[name] = [value for part in parts for value in part.about[name]]  # type: ignore[misc]
    if len(set(about.get("sample", ()))) == 1:  # the header of every file's one column
        del about["sample"]
    counted = first.positions is None
    layout = Layout(
        list(range(values.shape[1])),
        first.positions,
        COUNTED if counted else first.unit,
        source=AxisSource.COUNTED if counted else first.source,
        findings=tuple(findings),
    )
    names = [""] * values.shape[1]
    numbers = range(1, len(rows) + 1)
    return FolderTable(str(folder), names, layout, numbers, values, pd.DataFrame(about), files=rows)


def _files(folder: Path) -> tuple[list[Path], tuple[Finding, ...]]:
    """The files of the commonest ending, in the order of the numbers in their names."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise InputError(f"{folder} is a folder without files")
    kinds = Counter(map(_ending, files))
    (kind, num), *others = kinds.most_common(2)
    if others and others[0][1] == num:
        endings = " and ".join(sorted({kind, others[0][0]}))
        raise InputError(f"{folder} is a folder with as many files {endings}; leave the spectra alone in it")
    chosen = sorted((path for path in files if _ending(path) == kind), key=_natural)
    if num == len(files):
        return chosen, ()
    rest = sorted(path.name for path in files if _ending(path) != kind)
    shown = ", ".join(rest[:3]) + (" …" if len(rest) > 3 else "")
    how_many = "1 file" if len(rest) == 1 else f"{len(rest)} files"
    return chosen, (Finding(f"{how_many} left out ({shown})", f"most end in {kind}"),)


def _ending(path: Path) -> str:
    """How a file's name ends; numbers, as OPUS writes, are one ending."""
    suffix = path.suffix.lower()
    return ".0" if re.fullmatch(r"\.\d+", suffix) else suffix


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key that sorts a2 before a10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _part(path: Path, table: Table) -> _Part:
    """What one file holds, samples in rows."""
    layout = table.layout
    values = table.numbers.T if layout.in_columns else table.numbers
    positions = positions_in_columns(table)[0] if layout.axis is not None else layout.positions
    frame, _ = targets_of(table)
    about = {str(name): list(frame[name]) for name in frame.columns}
    headers = about.get("sample", [])
    signal = layout.signal or str(next(filter(_QUANTITY.fullmatch, map(str, headers)), "")).lower()
    return _Part(path, values, positions, layout.unit, layout.source, about, layout.findings, signal)


def _check_axis(part: _Part, first: _Part) -> None:
    """Raise unless two files have one axis, up to a hundredth of a step."""
    a, b, said = first.positions, part.positions, ""
    if part.values.shape[1] != first.values.shape[1] or (a is None) != (b is None):
        said = f" has {_extent(part)}, and {first.path.name} {_extent(first)}"
    elif a is not None and b is not None and (misfit := np.abs(a - b)).max() > 0.01 * np.abs(np.diff(a)).min():
        k = int(misfit.argmax())
        said = f": position {k + 1} is {b[k]:g}, and {a[k]:g} in {first.path.name}"
    if part.unit and first.unit and part.unit != first.unit:
        said = f": its axis is in {part.unit}, and that of {first.path.name} in {first.unit}"
    if said:
        what = f"{part.path}{said}; bring them to one axis first, or give it with "
        raise InputError(what, Option("axis", "FILE"), " (they are then interpolated)")


def _check_is_one(path: Path, layout: Layout) -> None:
    """Raise where a file has several columns beside its axis, such as a sample, a dark spectrum and a reference."""
    if layout.axis is not None and len(layout.columns) > 1:
        raise InputError(
            f"{path} has {len(layout.columns)} spectra beside its axis: leave all but one out with ",
            Option("drop", tuple(str(i + 1) for i in layout.columns[1:])),
            ", or if each is a sample, say ",
            Option("samples", "columns"),
        )


def _extent(part: _Part) -> str:
    if part.positions is None:
        return f"{part.values.shape[1]} values without positions"
    return f"{len(part.positions)} positions from {part.positions[0]:g} to {part.positions[-1]:g}"


def _on_axis(part: _Part, axis: NDArray[np.float64]) -> _Part:
    """A file's spectra, linearly interpolated."""
    if part.positions is None:
        raise InputError(f"{part.path} has no positions, so its values cannot be brought to the axis given")
    order = np.argsort(part.positions)
    positions, values = part.positions[order], part.values[:, order]
    if axis.min() < positions[0] or axis.max() > positions[-1]:
        raise InputError(
            f"{part.path} goes from {positions[0]:g} to {positions[-1]:g}, and the axis given from {axis.min():g} to "
            f"{axis.max():g}"
        )
    found = np.array([np.interp(axis, positions, row) for row in values]).astype(part.values.dtype)
    return replace(part, values=found, positions=axis)
