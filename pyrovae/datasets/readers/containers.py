"""MATLAB's ``.mat`` files and HDF5: arrays by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyrovae.datasets.readers._named_arrays import Array, table_of_arrays
from pyrovae.datasets.readers._table import Choose, Table
from pyrovae.datasets.readers.settings import ReadingSettings, check_size
from pyrovae.errors import InputError, needing_extra, reading

if TYPE_CHECKING:
    import h5py

_MOST_DEPTH = 4
_OBJECTS = (np.void, np.object_)


def read_mat(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """Spectra in a ``.mat`` file of MATLAB 5 to 7.2, in a variable or a field of a struct."""
    import scipy.io

    arrays: dict[str, Array] = {}
    with reading(path, "a .mat file"):
        sizes = sum(16.0 * math.prod(shape) for _, shape, _ in scipy.io.whosmat(path))
        check_size(str(path), sizes, settings.max_gib)
        for name, value in scipy.io.loadmat(path, chars_as_strings=True).items():
            if not name.startswith("__"):
                _collect(name, value, arrays, 0)
    return table_of_arrays(path, arrays, settings, choose)


def _collect(name: str, value: object, found: dict[str, Array], depth: int) -> None:
    """Arrays of numbers and of text in a variable, a struct's fields by ``variable.field``."""
    if not isinstance(value, np.ndarray) or depth > _MOST_DEPTH or value.size == 0:
        return
    if value.dtype.names and value.size == 1:
        for field in value.dtype.names:
            _collect(f"{name}.{field}", value[field].reshape(-1)[0], found, depth + 1)
    elif value.dtype.kind == "O":
        items = [
            item.reshape(-1)[0] if isinstance(item, np.ndarray) and item.size == 1 else item for item in value.flat
        ]
        if all(isinstance(item, str) for item in items):
            found[name] = np.array(items)
        elif len(items) <= 8:
            for k, item in enumerate(value.flat):
                _collect(f"{name}.{k + 1}", item, found, depth + 1)
    elif value.dtype.kind in "fiubU":
        found[name] = value


def read_hdf5(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """Spectra in a data set of an HDF5 file, or in a variable of a ``.mat`` file of MATLAB 7.3."""
    with needing_extra(f"{path} is HDF5: pip install 'pyrovae[formats]' to read it (h5py)"):
        import h5py
    arrays: dict[str, Array] = {}
    with reading(path, "an HDF5 file"), h5py.File(path, "r") as file:
        sets: dict[str, h5py.Dataset] = {}

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                sets[name] = item

        file.visititems(visit)  # it follows no links
        check_size(str(path), sum(2.0 * s.size * max(s.dtype.itemsize, 4) for s in sets.values()), settings.max_gib)
        for name, data in sets.items():
            if data.external or data.is_virtual:
                raise InputError(f"{path} ({name}) lies in another file, which is not read")
            value = _of_dataset(data)
            if value is not None:
                arrays[name] = value
    return table_of_arrays(path, arrays, settings, choose)


def _of_dataset(data: h5py.Dataset) -> Array | None:
    """Numbers or text; None of all else. MATLAB writes its axes the other way round."""
    import h5py

    if h5py.check_string_dtype(data.dtype) is not None:
        return np.array(data.asstr()[()]).astype(str) if data.shape else None
    matlab = data.attrs.get("MATLAB_class")
    if data.dtype.kind not in "fiub" or not data.shape or matlab in (b"char", b"cell"):
        return None
    values: Array = np.asarray(data[()])
    return values.T if matlab is not None else _unpacked(values, data.attrs)


def _unpacked(values: Array, attributes: Mapping[str, object]) -> Array:
    """Values as netCDF packs them: a factor, an offset and a marker of missing values in the attributes."""
    packing = {"_FillValue", "missing_value", "scale_factor", "add_offset"} & attributes.keys()
    if not packing or values.dtype.kind not in "fiu":
        return values
    given = {name: np.asarray(attributes[name]).ravel() for name in packing}
    markers = [value for name in ("_FillValue", "missing_value") for value in given.get(name, ())]
    is_missing = np.isin(values, markers)
    unpacked = values.astype(np.float64) * given.get("scale_factor", [1.0])[0] + given.get("add_offset", [0.0])[0]
    return np.where(is_missing, np.nan, unpacked)
