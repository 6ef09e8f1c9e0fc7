"""Numpy's formats ``.npy`` and ``.npz``. Nothing is unpickled; damaged files raise an InputError."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._channels import check_order
from pyrovae.datasets.readers._table import Choose, Table, check_size, table_of
from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.errors import InputError, one_line

_Array: TypeAlias = NDArray[np.generic]

_AXIS_KEYS = ("axis", "wavelength", "wavelengths", "wavenumber", "wavenumbers", "channels")
_SPECTRA_KEYS = ("x", "X", "spectra", "data")


def read_npy(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """Spectra in an ``.npy`` file."""
    with path.open("rb") as file:
        array = _array(file, str(path), path.stat().st_size, settings.max_gib)
    return table_of(str(path), array)


def _array(file: IO[bytes], where: str, size: int, max_gib: float, kinds: str = "fiu") -> _Array:
    """An array in numpy's format, of these kinds of dtype, never unpickled.

    Args:
        file: at the array's beginning.
        where: what to call the array in errors.
        size: number of bytes that there are.
        max_gib: see :class:`ReadingSettings`.
        kinds: of dtypes, by numpy's letters.
    """
    try:
        version = np.lib.format.read_magic(file)
        first = version == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        start = file.tell()
    except Exception as error:  # numpy raises many kinds for a damaged header
        raise InputError(f"{where} is no array in numpy's format, or is damaged: {one_line(error, 200)}") from None
    if dtype.hasobject:
        raise InputError(f"{where} holds pickled objects, which are not read; save numbers, and text with astype(str)")
    if dtype.kind not in kinds:
        raise InputError(f"{where} holds {dtype}, not numbers")
    check_size(where, 2 * math.prod(map(float, shape)) * max(dtype.itemsize, 4), max_gib)
    expected = math.prod(shape) * dtype.itemsize
    if size - start < expected:
        raise InputError(f"{where} is damaged: it should hold {expected} bytes of numbers and holds {size - start}")
    try:
        file.seek(0)
        found: _Array = np.lib.format.read_array(file, allow_pickle=False)
        return found
    except Exception as error:  # of zip files, too
        raise InputError(f"{where} is damaged: {one_line(error, 200)}") from None


def read_npz(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """Spectra in an ``.npz`` file, their targets, and the channels' positions if it holds them."""
    import pandas as pd

    arrays = _arrays(path, settings.max_gib)
    name = _spectra_among(arrays, settings, path)
    num, width = (*arrays[name].shape, 0, 0)[:2]
    others = {n: a for n, a in arrays.items() if a.shape == (num,) and n != name and n not in _AXIS_KEYS}
    targets = pd.DataFrame(others, index=range(num))
    return table_of(f"{path} ({name})", arrays[name], _positions_among(arrays, width, path), others=targets)


def _arrays(path: Path, max_gib: float) -> dict[str, _Array]:
    """All arrays by name."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                where = f"{path} ({name})"
                check_size(where, info.file_size, max_gib)
                with archive.open(info) as file:
                    arrays[name] = _array(file, where, info.file_size, max_gib, "fiubUSM")
    except InputError:
        raise
    except Exception as error:  # zipfile raises many kinds for a damaged file
        raise InputError(f"{path} is no .npz file, or is damaged: {one_line(error, 200)}") from None
    return arrays


def _spectra_among(arrays: dict[str, _Array], settings: ReadingSettings, path: Path) -> str:
    """Name of the array that holds the spectra."""
    tables = [name for name, array in arrays.items() if array.ndim == 2]
    named = tables if len(tables) == 1 else [name for name in _SPECTRA_KEYS if name in tables]
    wanted = settings.channels if isinstance(settings.channels, str) else next(iter(named), None)
    if wanted is None or wanted not in arrays or arrays[wanted].dtype.kind not in "fiu":
        raise InputError(
            f"{path} holds {', '.join(f'{n} {a.shape}' for n, a in arrays.items()) or 'nothing'}; say which array "
            "(samples, channels) holds the spectra with channels='its name'"
        )
    return wanted


def _positions_among(arrays: dict[str, _Array], width: int, path: Path) -> NDArray[np.float64] | None:
    """The channels' positions, if an array holds them."""
    name = next((name for name in _AXIS_KEYS if name in arrays), None)
    if name is None:
        return None
    if arrays[name].shape != (width,) or arrays[name].dtype.kind not in "fiu":
        raise InputError(f"{path} ({name}) must hold the positions of {width} channels, not {arrays[name].shape}")
    positions = arrays[name].astype(float)
    check_order(f"{path} ({name})", positions)
    return positions
