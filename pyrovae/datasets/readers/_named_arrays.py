"""Named arrays of ``.npz``, ``.mat`` and HDF5 files: which are spectra, an axis, or labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._channels import check_order, out_of_order
from pyrovae.datasets.readers._names import COUNTED, axis_unit
from pyrovae.datasets.readers._shape import directions
from pyrovae.datasets.readers._table import Choose, Table, default_dtype, table_of
from pyrovae.datasets.readers.idx import PIXEL
from pyrovae.datasets.readers.settings import NONE, ReadingSettings, check_size
from pyrovae.datasets.reading import AxisSource, Finding
from pyrovae.errors import InputError, Option

Array: TypeAlias = NDArray[np.generic]

_SPECTRA = ("x", "X", "spectra", "data")
_AXES = re.compile(
    r"(axis(scale)?|wave[\s_-]?(length|number)s?|channels?|wn|wl|wv|nm|lambda|frequenc(y|ies)|raman[\s_]?shift)",
    re.I,
)
_MOST_TARGETS = 20


def table_of_arrays(path: Path, arrays: Mapping[str, Array], settings: ReadingSettings, choose: Choose) -> Table:
    """The spectra among arrays, with an axis and targets of their length.

    Raises:
        InputError: several arrays may be the spectra, or the axis does not fit.
    """
    import pandas as pd

    arrays = {name: _squeezed(array) for name, array in arrays.items()}
    name, finding = _spectra_among(arrays, settings, path)
    where = f"{path} ({name})"
    array = arrays[name]
    if array.ndim > 2:
        return _images(where, name, arrays, settings)
    axis = None if settings.axis == NONE else _axis_among(arrays, name, path)
    num, width = array.shape
    in_columns = settings.samples == "columns"
    positions, unit, source = None, COUNTED, AxisSource.COUNTED
    findings = [finding] if finding else []
    if axis is not None:
        positions = arrays[axis].astype(float)
        in_columns = len(positions) == num and (len(positions) != width or _is_turned(array, settings, where))
        unit, source = axis_unit(_last(axis)) or "", AxisSource.FILE
        if in_columns and settings.samples is None:
            square = "the values are smooth down the columns and not across the rows"
            evidence = square if num == width else f"{axis} has as many positions as there are rows"
            findings.append(Finding("samples in columns", evidence, Option("samples", "rows")))
        if settings.samples == "columns" and not in_columns:
            raise InputError(
                f"{path} ({axis}) has {len(positions)} positions, one for each column of {name}, so the samples are in "
                "its rows; if it is no axis, say ",
                Option("axis", NONE),
            )
        if not _AXES.fullmatch(_last(axis)):
            findings.append(Finding(f"{axis} as the axis", "it is in order", Option("axis", NONE)))
    if in_columns:
        array = array.T
    others = _targets(arrays, name, axis, array.shape)
    frame = pd.DataFrame(others, index=range(len(array)))
    if axis is None and not in_columns and not others and settings.channels is None:
        table = table_of(where, array, settings, choose)
    else:
        given = next((option for option in ("label", "drop") if getattr(settings, option) not in (None, (NONE,))), None)
        if given is not None:
            raise InputError(
                f"{where} has its labels or its axis in other arrays, so all its columns are channels: leave out ",
                Option(given),
                ", or save the array alone",
            )
        plain = replace(settings, samples=None)
        table = table_of(where, array, plain, positions=positions, unit=unit, source=source, others=frame)
    findings += table.layout.findings
    used = {name, axis, *others, *(title.rpartition(" ")[0] for title in others)}
    unused = [n for n, a in arrays.items() if n not in used and a.ndim in (1, 2) and a.size > 1]
    if unused and settings.table != name:
        alike = [n for n in unused if arrays[n].shape == arrays[name].shape]
        chosen = alike or unused
        shown = ", ".join(f"{n} {arrays[n].shape}" for n in chosen[:3]) + (" …" if len(chosen) > 3 else "")
        if alike:
            what, why = f"{name} as the spectra, and {shown} left out", "its name says so"
        else:
            what, why = f"{shown} left out", f"not of the {len(array)} samples of {name}"
        findings.append(Finding(what, why, Option("table", alike[0] if alike else None)))
    return replace(table, layout=replace(table.layout, is_turned=in_columns, findings=tuple(findings)))


def _is_turned(array: Array, settings: ReadingSettings, where: str) -> bool:
    """Whether the samples of a square array are in its columns, by the values.

    Raises:
        InputError: they may be in either.
    """
    if settings.samples is not None:
        return settings.samples == "columns"
    down, across = directions(array.astype(np.float64))
    if down == across and len(array) > 2:
        raise InputError(
            f"{where} is square, {array.shape}, so its axis may belong to the rows or to the columns: say where the "
            "samples are with ",
            Option("samples", "rows"),
            " or ",
            Option("samples", "columns"),
        )
    return down


def _last(name: str) -> str:
    """The last part of a name such as ``struct.field``, ``struct.field.1`` or ``group/set``."""
    return re.sub(r"\.\d+$", "", name).rpartition(".")[2].rpartition("/")[2]


def _squeezed(array: Array) -> Array:
    """A row or a column of a matrix as a vector, as MATLAB knows none."""
    return array.reshape(-1) if array.ndim == 2 and 1 in array.shape and array.size > 1 else array


def _spectra_among(arrays: Mapping[str, Array], settings: ReadingSettings, path: Path) -> tuple[str, Finding | None]:
    """Name of the array that holds the spectra."""
    numbers = {name: a for name, a in arrays.items() if a.ndim in (2, 3, 4) and a.dtype.kind in "fiu" and a.size}
    wanted = settings.table or (settings.channels[0] if settings.channels and len(settings.channels) == 1 else None)
    finding = None
    if wanted is None:
        tables = [name for name, a in numbers.items() if a.ndim == 2]
        images = [name for name, a in numbers.items() if a.ndim > 2]
        named = [name for name in _SPECTRA if name in numbers]
        wide = [name for name in tables if numbers[name].shape[1] > _MOST_TARGETS]
        if len(numbers) == 1:
            wanted = next(iter(numbers))
        elif named:
            wanted = named[0]
        elif not images and len(wide) == 1:
            wanted = wide[0]
            finding = Finding(f"{wanted} as the spectra", "it is the only wide array", Option("table"))
    if wanted not in numbers:
        holds = ", ".join(f"{n} {a.shape}" for n, a in arrays.items()) or "nothing that can be read"
        if not numbers:
            raise InputError(f"{path} holds {holds[:600]}, and no array (samples, channels) of numbers; save one")
        raise InputError(
            f"{path} holds {holds[:600]}; say which array (samples, channels) holds the spectra with ",
            Option("table", next(iter(numbers))),
        )
    return wanted, finding


def _axis_among(arrays: Mapping[str, Array], spectra: str, path: Path) -> str | None:
    """Name of the vector of positions: by its name, or as the only one in order that has the spectra's width."""
    shape = arrays[spectra].shape
    vectors = {name: a for name, a in arrays.items() if name != spectra and a.ndim == 1}
    named = [n for n in arrays if n != spectra and _AXES.fullmatch(_last(n))]
    beside = spectra[: -len(_last(spectra))]
    named = [n for n in named if beside and n.startswith(beside)] or named
    if named:
        name = next((n for n in named if arrays[n].shape == shape[1:]), named[0])
        array = arrays[name]
        if array.ndim != 1 or len(array) not in shape or array.dtype.kind not in "fiu":
            raise InputError(
                f"{path} ({name}) must hold the positions of {shape[1]} channels as numbers, not {array.dtype} of "
                f"shape {array.shape}; if it is no axis, say ",
                Option("axis", NONE),
            )
        check_order(f"{path} ({name})", array.astype(float))
        return name
    in_order = [
        n
        for n, a in vectors.items()
        if len(a) == shape[1] != shape[0] and a.dtype.kind in "fiu" and out_of_order(a.astype(float)) is None
    ]
    is_one = all(np.array_equal(vectors[n], vectors[in_order[0]]) for n in in_order)  # as pandas writes it twice
    return in_order[0] if in_order and is_one else None


def _targets(arrays: Mapping[str, Array], spectra: str, axis: str | None, shape: tuple[int, ...]) -> dict[str, Array]:
    """Vectors, and narrow tables, with a value for each sample."""
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        if (
            name in (spectra, axis)
            or array.ndim not in (1, 2)
            or len(array) != shape[0]
            or _AXES.fullmatch(_last(name))
        ):
            continue
        if array.ndim == 1:
            found[name] = array.astype(str) if array.dtype.kind == "S" else array
        elif array.shape[1] <= _MOST_TARGETS and array.shape != shape:
            found |= {f"{name} {j + 1}": array[:, j] for j in range(array.shape[1])}
    return found


def _images(where: str, name: str, arrays: Mapping[str, Array], settings: ReadingSettings) -> Table:
    """Images (num, height, width), with one grey value a pixel, and their labels."""
    import pandas as pd

    array = arrays[name]
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    axes = [n for n, a in arrays.items() if a.ndim == 1 and len(a) in array.shape and _AXES.fullmatch(_last(n))]
    if axes:
        raise InputError(
            f"{where} is a cube of shape {array.shape} with positions in {axes[0]}: make it a table (pixels, "
            f"channels), as array.reshape(-1, {len(arrays[axes[0]])}) does where the channels are last"
        )
    if array.ndim != 3:
        raise InputError(f"{where} must hold images (num, height, width) of grey values, not {array.shape}")
    num = len(array)
    check_size(where, 2.0 * array.size * np.dtype(default_dtype()).itemsize, settings.max_gib)
    pixels = array.reshape(num, -1)
    scaled = pixels.astype(default_dtype()) / 255 if array.dtype == np.uint8 else pixels
    stem, found = name.replace("x", "y").replace("X", "y").replace("images", "labels"), {}
    for other, values in arrays.items():
        if other != name and values.ndim == 1 and len(values) == num:
            found["label" if other == stem or other in ("y", "labels", "label") else other] = values
    others = pd.DataFrame(found, index=range(num))
    positions = np.arange(pixels.shape[1], dtype=float)
    return table_of(
        where,
        scaled,
        replace(settings, samples=None),
        positions=positions,
        unit=PIXEL,
        source=AxisSource.COUNTED,
        others=others,
    )
