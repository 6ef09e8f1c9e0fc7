"""Spectra in the binary formats: numpy's and parquet. Nothing is unpickled; damaged files raise an InputError."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrovae.datasets.readers._channels import out_of_order
from pyrovae.datasets.readers.text import Table, default_dtype, too_large
from pyrovae.errors import InputError, MissingExtraError

_AXIS_KEYS = ("axis", "wavelength", "wavelengths", "wavenumber", "wavenumbers", "channels")
_SPECTRA_KEYS = ("x", "X", "spectra", "data")


def from_npy(path: Path, max_gib: float) -> Table:
    """Spectra of an ``.npy`` file."""
    with path.open("rb") as file:
        array = _array(file, path, path.stat().st_size, max_gib)
    return _of_array(array, str(path))


def _array(file: Any, where: Any, size: int, max_gib: float, kinds: str = "fiu") -> NDArray[Any]:
    """One array in numpy's format, of these kinds of dtype, never unpickled."""
    try:
        version = np.lib.format.read_magic(file)
        header = (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(
            file
        )
        shape, _, dtype = header
        start = file.tell()
    except Exception as error:  # whatever is wrong with it, it is no array
        raise InputError(
            f"{where} is no array in numpy's format, or is damaged: {' '.join(str(error).split())[:200]}"
        ) from None
    if dtype.hasobject:
        raise InputError(f"{where} holds pickled objects, which are not read; save numbers, and text with astype(str)")
    if dtype.kind not in kinds:
        raise InputError(f"{where} holds {dtype}, not numbers")
    needed = 2.0 * float(np.prod([float(s) for s in shape])) * max(dtype.itemsize, 4)
    if needed > max_gib * 2**30:
        raise InputError(too_large(str(where), needed, max_gib))
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize if shape else dtype.itemsize
    if size - start < expected:
        raise InputError(f"{where} is damaged: it should hold {expected} bytes of numbers and holds {size - start}")
    try:
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise InputError(f"{where} is damaged: {' '.join(str(error).split())[:200]}") from None


def _of_array(array: NDArray[Any], where: str, targets: pd.DataFrame | None = None) -> Table:
    if array.ndim == 1 and array.size:
        raise InputError(f"{where} holds one spectrum; a model of spectra needs at least two")
    if array.ndim != 2 or not array.size:
        raise InputError(f"{where} must hold an array (samples, channels), not one of shape {array.shape}")
    with np.errstate(over="ignore"):
        numbers = array.astype(default_dtype())
    others = pd.DataFrame(index=range(len(array))) if targets is None else targets
    width = array.shape[1]
    return Table(where, [""] * width, list(range(width)), numbers, others, list(range(1, len(array) + 1)))


def from_npz(
    path: Path, channels: str | Sequence[str] | None, max_gib: float
) -> tuple[Table, NDArray[np.float64] | None]:
    """Spectra of an ``.npz`` file, their targets, and the channels' positions if it holds them."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if info.file_size > max_gib * 2**30:
                    raise InputError(too_large(f"{path} ({name})", 2 * info.file_size, max_gib))
                with archive.open(info) as file:
                    arrays[name] = _array(file, f"{path} ({name})", info.file_size, max_gib, "fiubUSM")
    except Exception as error:
        if str(error).startswith(str(path)):
            raise
        raise InputError(f"{path} is no .npz file, or is damaged: {' '.join(str(error).split())[:200]}") from None
    tables = [name for name, array in arrays.items() if array.ndim == 2]
    named = [name for name in _SPECTRA_KEYS if name in tables]
    wanted = channels if isinstance(channels, str) else tables[0] if len(tables) == 1 else next(iter(named), None)
    if wanted is None or wanted not in arrays or arrays[wanted].dtype.kind not in "fiu":
        raise InputError(
            f"{path} holds {', '.join(f'{n} {a.shape}' for n, a in arrays.items()) or 'nothing'}; say which array "
            "(samples, channels) holds the spectra with channels='its name'"
        )
    num, width = (*arrays[wanted].shape, 0, 0)[:2]
    positions = None
    axis = next((name for name in _AXIS_KEYS if name in arrays), None)
    if axis is not None:
        if arrays[axis].shape != (width,) or arrays[axis].dtype.kind not in "fiu":
            raise InputError(f"{path} ({axis}) must hold the positions of {width} channels, not {arrays[axis].shape}")
        positions = arrays[axis].astype(float)
        wrong = out_of_order(positions)
        if wrong is not None:
            raise InputError(
                f"{path} ({axis}): position {wrong + 1}, {positions[wrong]:g}, is not in order, or is there twice"
            )
    rest = {n: a for n, a in arrays.items() if a.shape == (num,) and n != wanted and n not in _AXIS_KEYS}
    return _of_array(arrays[wanted], f"{path} ({wanted})", pd.DataFrame(rest, index=range(num))), positions


def from_parquet(path: Path, choose: Callable[[list[str]], list[int]], max_gib: float) -> Table:
    """A table of a parquet file; ``choose`` gives the columns of numbers from all names."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("read_spectra needs pyarrow for parquet: pip install 'pyrovae[parquet]'") from None
    where = str(path)
    try:
        description = pyarrow.parquet.ParquetFile(path)
        names = [str(name) for name in description.schema_arrow.names]
        rows = description.metadata.num_rows
    except Exception as error:
        raise InputError(f"{where} is no parquet file, or is damaged: {' '.join(str(error).split())[:200]}") from None
    if not rows or not names:
        raise InputError(f"{where} is empty")
    columns = choose(names)
    needed = 2.0 * 8 * rows * len(names)
    if needed > max_gib * 2**30:
        raise InputError(too_large(where, needed, max_gib))
    try:
        frame = description.read().to_pandas()
    except Exception as error:
        raise InputError(f"{where} is damaged: {' '.join(str(error).split())[:200]}") from None
    frame.columns = names
    others = [i for i in range(len(names)) if i not in set(columns)]
    numbers = np.empty((rows, len(columns)), dtype=default_dtype())
    table = Table(where, names, columns, numbers, frame.iloc[:, others], list(range(1, rows + 1)))
    for j, i in enumerate(columns):
        column = frame.iloc[:, i]
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        bad = np.isnan(values) & ~column.isna().to_numpy()
        if bad.any() and column.dtype.kind not in "fiu":
            row = int(np.flatnonzero(bad)[0])
            raise InputError(f"{table.cell(row, j)}: {str(column.iloc[row])[:40]!r} is not a number")
        with np.errstate(over="ignore"):
            numbers[:, j] = values
    return table
