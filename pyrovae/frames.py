"""Data as users have them, in as tensors: arrays, mapped files, datasets, tables. Tables keep their index."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from functools import wraps
from io import FileIO
from typing import TYPE_CHECKING, Any, Never, Protocol, TypeGuard, TypeVar, Union, overload

import numpy as np
import torch
from torch import Tensor

from pyrovae.blocks import blocks, in_blocks, is_dataset, is_large, map_file, read_dataset
from pyrovae.errors import InputTypeError

if TYPE_CHECKING:
    import pandas as pd
    from torch.utils.data import DataLoader, Dataset

Arrays = Union[Tensor, np.ndarray, "Dataset[Any]", "DataLoader[Any]"]
"""Data (num, …) that are no table."""
Data = Union[Arrays, "pd.DataFrame"]
"""Data (num, …), as users have them."""

Found = TypeVar("Found", covariant=True)
Table = TypeVar("Table", covariant=True)


class OfData(Protocol[Found, Table]):
    """A method of data alone, bound to its object."""

    @overload
    def __call__(self, x: pd.DataFrame) -> Table: ...

    @overload
    def __call__(self, x: Arrays) -> Found: ...


class OfDataOrNone(OfData[Found, Table], Protocol[Found, Table]):
    """The same where the data may be left out."""

    @overload
    def __call__(self, x: pd.DataFrame) -> Table: ...

    @overload
    def __call__(self, x: Arrays | None = None) -> Found: ...


def tensor_of(name: str, data: object) -> Tensor:
    """The data as a tensor, of their own dtype.

    A memory-mapped array of more than 256 MiB stays in its file. A Dataset or a DataLoader is read once, in the
    dataset's order, whose items are x or begin with x; more than 256 MiB of it are kept in a temporary file.

    Raises:
        InputTypeError: other data than numbers in a tensor, an array, a DataFrame or a Dataset; it has this name.
        InputError: a DataLoader with a sampler of its own, or a dataset without items.
    """
    if isinstance(data, Tensor):
        return data
    if is_dataset(data):
        return read_dataset(name, data)
    if not hasattr(data, "__array__"):
        raise InputTypeError(
            f"{name} must be a tensor, a NumPy array, a DataFrame of numbers or a Dataset, not {type(data).__name__}"
        )
    array = np.asarray(data)
    if array.dtype.kind not in "biufc":
        raise InputTypeError(f"{name} must hold only numbers, not {array.dtype}; leave out columns of text")
    if isinstance(data, np.memmap) and is_large(data.nbytes) and (mapped := _mapped(data)) is not None:
        return mapped
    return torch.as_tensor(array if array.flags.writeable else array.copy())


def _mapped(data: np.memmap) -> Tensor | None:
    """The rows of a file mapped again, such that what is written to them stays in memory.

    None where that cannot be, as where the file was replaced.
    """
    root = data
    while isinstance(root.base, np.memmap):
        root = root.base
    if (
        root.filename is None
        or not data.flags.c_contiguous
        or not data.dtype.isnative
        or not data.size
        or not data.ndim
    ):
        return None
    offset = root.offset + data.ctypes.data - root.ctypes.data
    try:
        mapped = map_file(FileIO(root.filename), data.dtype, offset, data.shape)
    except (OSError, ValueError):  # the file has gone, or has shrunk
        return None
    theirs = root.base if root.mode == "r" else None
    first = 0
    for rows in blocks(mapped):
        if not np.array_equal(rows.numpy(), data[first : first + len(rows)], equal_nan=True):
            return None
        first += len(rows)
        if isinstance(theirs, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            theirs.madvise(mmap.MADV_DONTNEED)
    return mapped


def is_frame(data: object) -> TypeGuard[pd.DataFrame]:
    """Whether data are a DataFrame; pandas is not imported for it."""
    return hasattr(data, "iloc") and hasattr(data, "columns")


def frame_like(data: pd.DataFrame, values: Tensor) -> pd.DataFrame:
    """Values (num, n) with the index and the columns of data (num, n)."""
    import pandas as pd

    return pd.DataFrame(values.expand(data.shape).cpu().numpy(), index=data.index, columns=data.columns)


@overload
def each_datum(method: Callable[[Never, Tensor], Tensor]) -> OfData[Tensor, pd.Series]: ...


@overload
def each_datum(method: Callable[..., Tensor]) -> Callable[..., Any]: ...  # overloads tell what another argument is


def each_datum(method: Callable[..., Any]) -> Callable[..., object]:
    """A method of data x (num, n) that returns a number for each datum: for a DataFrame a Series with its index."""

    def series(x: pd.DataFrame, found: Tensor) -> pd.Series:
        import pandas as pd

        return pd.Series(found.cpu().numpy(), index=x.index, name=method.__name__)

    return _with_tables(method, series)


@overload
def each_value(method: Callable[[Never, Tensor | None], Tensor]) -> OfDataOrNone[Tensor, pd.DataFrame]: ...


@overload
def each_value(method: Callable[[Never, Tensor], Tensor]) -> OfData[Tensor, pd.DataFrame]: ...


@overload
def each_value(
    method: Callable[[Never, Tensor], tuple[Tensor, Tensor]],
) -> OfData[tuple[Tensor, Tensor], tuple[pd.DataFrame, pd.DataFrame]]: ...


def each_value(method: Callable[..., Any]) -> Callable[..., object]:
    """A method of data x (num, n) that returns a number for each value, or several: DataFrames for a DataFrame."""

    def frames(x: pd.DataFrame, found: Tensor | tuple[Tensor, ...]) -> object:
        return tuple(frame_like(x, part) for part in found) if isinstance(found, tuple) else frame_like(x, found)

    return _with_tables(method, frames)


def _with_tables(method: Callable[..., Any], made: Callable[[Any, Any], object]) -> Callable[..., object]:
    """The method for arrays and DataFrames too, which are its last argument; of large data it sees some at a time."""

    @wraps(method)
    def takes_tables(self: object, *arguments: Any, **keywords: Any) -> object:
        if "x" in keywords:
            arguments = (*arguments, keywords.pop("x"))
        if not arguments or arguments[-1] is None:
            return method(self, *arguments, **keywords)
        x = arguments[-1]
        found = in_blocks(lambda rows: method(self, *arguments[:-1], rows, **keywords), tensor_of("x", x))
        return made(x, found) if is_frame(x) else found

    return takes_tables
