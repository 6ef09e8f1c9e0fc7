"""Data as users have them: arrays, mapped files and pandas' tables, in as tensors, out with index and columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, Union, cast

import numpy as np
import torch
from torch import Tensor

from pyrovae.errors import InputTypeError

if TYPE_CHECKING:
    import pandas as pd

Data = Union[Tensor, np.ndarray, "pd.DataFrame"]
"""Data (num, …), as users have them."""

_VALUES_AT_ONCE = 2**18
"""Numbers of a mapped file that are compared at once."""

Method = TypeVar("Method", bound=Callable[..., Any])


def tensor_of(name: str, data: object) -> Tensor:
    """The data as a tensor, of their own dtype.

    Raises:
        InputTypeError: other data than numbers in a tensor, an array or a DataFrame; it has this name.
    """
    if isinstance(data, Tensor):
        return data
    if not hasattr(data, "__array__"):
        raise InputTypeError(
            f"{name} must be a tensor, a NumPy array or a DataFrame of numbers, not {type(data).__name__}"
        )
    array = np.asarray(data)
    if array.dtype.kind not in "biufc":
        raise InputTypeError(f"{name} must hold only numbers, not {array.dtype}; leave out columns of text")
    if isinstance(data, np.memmap) and (mapped := _mapped(data)) is not None:
        return torch.from_numpy(mapped)
    return torch.as_tensor(array if array.flags.writeable else array.copy())


def _mapped(data: np.memmap) -> np.memmap | None:
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
        mapped = np.memmap(root.filename, data.dtype, "c", offset, data.shape)
    except (OSError, ValueError):  # the file has gone, or has shrunk
        return None
    step = max(1, _VALUES_AT_ONCE * len(data) // data.size)
    same = all(
        np.array_equal(mapped[k : k + step], data[k : k + step], equal_nan=True) for k in range(0, len(data), step)
    )
    return mapped if same else None


def is_frame(data: object) -> TypeGuard[pd.DataFrame]:
    """Whether data are a DataFrame; pandas is not imported for it."""
    return hasattr(data, "iloc") and hasattr(data, "columns")


def frame_like(data: pd.DataFrame, values: Tensor) -> pd.DataFrame:
    """Values (num, n) with the index and the columns of data (num, n)."""
    import pandas as pd

    return pd.DataFrame(values.expand(data.shape).cpu().numpy(), index=data.index, columns=data.columns)


def each_datum(method: Method) -> Method:
    """A method of data x (num, n) that returns a number for each datum: for a DataFrame a Series with its index."""

    def series(x: pd.DataFrame, found: Tensor) -> pd.Series:
        import pandas as pd

        return pd.Series(found.cpu().numpy(), index=x.index, name=method.__name__)

    return _with_tables(method, series)


def each_value(method: Method) -> Method:
    """A method of data x (num, n) that returns a number for each value, or several: DataFrames for a DataFrame."""

    def frames(x: pd.DataFrame, found: Tensor | tuple[Tensor, ...]) -> object:
        return tuple(frame_like(x, part) for part in found) if isinstance(found, tuple) else frame_like(x, found)

    return _with_tables(method, frames)


def _with_tables(method: Method, made: Callable[[Any, Any], object]) -> Method:
    """The method for arrays and DataFrames too, which are its last argument."""

    @wraps(method)
    def takes_tables(self: object, *arguments: Any, **keywords: Any) -> object:
        if "x" in keywords:
            arguments = (*arguments, keywords.pop("x"))
        if not arguments or arguments[-1] is None or isinstance(arguments[-1], Tensor):
            return method(self, *arguments, **keywords)
        x = arguments[-1]
        found = method(self, *arguments[:-1], tensor_of("x", x), **keywords)
        return made(x, found) if is_frame(x) else found

    return cast("Method", takes_tables)
