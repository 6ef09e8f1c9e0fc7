"""Numpy's formats ``.npy`` and ``.npz``. Nothing is unpickled; damaged files raise an InputError."""

from __future__ import annotations

import math
import zipfile
from io import FileIO
from pathlib import Path
from typing import IO

import numpy as np

from pyrovae.blocks import is_large, map_file
from pyrovae.datasets.readers._named_arrays import Array, table_of_arrays
from pyrovae.datasets.readers._table import Choose, Table, table_of
from pyrovae.datasets.readers.settings import ReadingSettings, check_size
from pyrovae.errors import InputError, reading


def read_npy(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """Spectra in an ``.npy`` file."""
    with path.open("rb") as file:
        array = _array(file, str(path), path.stat().st_size, settings.max_gib, path=path)
    return table_of(str(path), array, settings, choose)


def _array(
    file: IO[bytes],
    where: str,
    size: int,
    max_gib: float,
    kinds: str = "fiu",
    before: float = 0.0,
    path: Path | None = None,
) -> Array:
    """An array in numpy's format, of these kinds of dtype, never unpickled.

    Args:
        file: at the array's beginning.
        where: what to call the array in errors.
        size: number of bytes that there are.
        max_gib: see :class:`ReadingSettings`.
        kinds: kinds of dtypes, by numpy's letters.
        before: number of bytes that other arrays need.
        path: the file, if a large array may stay in it.
    """
    with reading(where, "an array in numpy's format"):
        version = np.lib.format.read_magic(file)
        first = version == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read_header(file)
        start = file.tell()
    if dtype.hasobject:
        raise InputError(f"{where} holds pickled objects, which are not read; save numbers, and text with astype(str)")
    if dtype.kind not in kinds:
        raise InputError(f"{where} holds {dtype}, not numbers")
    expected = math.prod(shape) * dtype.itemsize
    if size - start < expected:
        raise InputError(f"{where} is damaged: it should hold {expected} bytes of numbers and holds {size - start}")
    can_be_mapped = len(shape) == 2 and not in_columns and dtype.isnative and dtype.itemsize <= 8
    if path is not None and is_large(expected) and can_be_mapped:
        mapped: Array = map_file(FileIO(path), dtype, start, shape).numpy()
        return mapped
    check_size(where, before + 2 * math.prod(map(float, shape)) * max(dtype.itemsize, 4), max_gib)
    with reading(where):
        file.seek(0)
        found: Array = np.lib.format.read_array(file, allow_pickle=False)
    return found


def read_npz(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """Spectra or images in an ``.npz`` file, their targets, and the channels' positions if it holds them."""
    arrays: dict[str, Array] = {}
    with reading(path, "a .npz file"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_size(str(path), float(sum(info.file_size for info in members)), settings.max_gib)
        for info in members:
            name = info.filename.removesuffix(".npy")
            before = float(sum(array.nbytes for array in arrays.values()))
            with archive.open(info) as file:
                arrays[name] = _array(file, f"{path} ({name})", info.file_size, settings.max_gib, "fiubUSM", before)
    return table_of_arrays(path, arrays, settings, choose)
