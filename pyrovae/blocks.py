"""Data that need not fit into memory: rows of mapped files, taken in blocks, and what is made of them."""

import ctypes
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sized
from io import FileIO
from threading import Lock
from typing import Any, TypeGuard, TypeVar, cast
from weakref import WeakValueDictionary, finalize

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from pyrovae.errors import InputError, InputTypeError, one_line

LARGE = 2**28
"""Bytes above which data are taken in blocks, and what is made of them lies in a file."""
_ITEMS = 256
"""Items of a dataset that are stacked at once."""

Found = TypeVar("Found")


def is_large(num_bytes: int) -> bool:
    """Whether so many bytes are too many to be read from a file as a whole."""
    return num_bytes > LARGE


class _Pages(mmap.mmap):
    """The pages of a file, and the file itself.

    Attributes:
        file: open for reading, without a buffer.
        offset: where in it the tensor's storage begins.
        lock: held while the file is read where its position counts.
        taken: bytes read since the memory that was freed was given back.
    """

    file: FileIO
    offset: int
    lock: Lock
    taken: int

    def read_at(self, start: int, buffer: memoryview) -> None:
        """Fill the buffer with the file's bytes from ``start`` on.

        Raises:
            InputError: the file has become shorter.
        """
        while buffer:
            if hasattr(os, "preadv"):
                num = os.preadv(self.file.fileno(), [buffer], start)
            else:
                with self.lock:
                    self.file.seek(start)
                    num = self.file.readinto(buffer) or 0
            if num == 0:
                raise InputError("the file that the data are read from has become shorter; leave it as it is")
            start, buffer = start + num, buffer[num:]


_maps: WeakValueDictionary[int, _Pages] = WeakValueDictionary()  # by the address of the tensor's storage


def map_file(file: FileIO, dtype: np.dtype, offset: int, shape: tuple[int, ...], *, keeps: bool = False) -> Tensor:
    """Numbers in a file as a tensor.

    What is written to the tensor is written to the file if it ``keeps`` that. Otherwise the file does not change, and
    what was written may be lost.
    """
    pages = _Pages(file.fileno(), 0, access=mmap.ACCESS_WRITE if keeps else mmap.ACCESS_COPY)
    pages.file, pages.offset, pages.lock, pages.taken = file, offset, Lock(), 0
    finalize(pages, file.close)
    x = torch.from_numpy(np.frombuffer(pages, dtype, math.prod(shape), offset).reshape(shape))
    _maps[x.untyped_storage().data_ptr()] = pages
    return x


def _pages_of(x: Tensor) -> _Pages | None:
    """The pages that a tensor lies in, if it lies in a file."""
    try:
        return _maps.get(x.untyped_storage().data_ptr()) if _maps else None
    except (NotImplementedError, RuntimeError):  # a tensor of a functional transform has no storage
        return None


def is_mapped(x: Tensor) -> bool:
    """Whether these are rows of a mapped file."""
    return _pages_of(x) is not None


def of_file(array: np.ndarray) -> Tensor | None:
    """An array that begins a mapped file's numbers, as a tensor; None for any other."""
    return torch.from_numpy(array) if array.ctypes.data in _maps else None


def let_go(x: Tensor) -> None:
    """Let the system take back the pages of a mapped file; they are read again when they are needed."""
    pages = _pages_of(x)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
        give_back_freed()


def give_back_freed() -> None:
    """Give the system the memory that is free within the heap of glibc.

    A small array that outlives its neighbours splits what they leave, so the next batch finds no room there. The heap
    grew to ten times what was in use.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def take(x: Tensor, index: Tensor) -> Tensor:
    """The rows x[index], index of shape (k,) and not negative; those of a mapped file are read, and map no pages."""
    pages = _pages_of(x)
    if pages is None or not x.is_contiguous():
        return x[index]
    rows = index.tolist()
    if rows and not 0 <= min(rows) <= max(rows) < len(x):
        raise IndexError(f"rows {min(rows)} to {max(rows)} of {len(x)}")
    found = torch.empty(len(rows), *x.shape[1:], dtype=x.dtype)
    size, buffer = x[0].nbytes, memoryview(found.reshape(-1).numpy().view(np.uint8).data)
    start = pages.offset + x.data_ptr() - x.untyped_storage().data_ptr()
    for k, row in enumerate(rows):
        pages.read_at(start + row * size, buffer[k * size : (k + 1) * size])
    pages.taken += found.nbytes
    if pages.taken > LARGE // 4:
        pages.taken = 0
        give_back_freed()
    return found


def rows_at(x: Tensor, index: Tensor) -> Tensor:
    """The rows x[index], index of shape (k,) and not negative; of a mapped file in a file too, if they are large."""
    if not is_mapped(x):
        return x[index]
    return gathered(take(x, part) for part in index.split(_at_once(x)))


def some_of(x: Tensor) -> Tensor:
    """Rows of a mapped file that are evenly spread over it, at most 64 MiB, in memory; other data as they are."""
    return take(x, torch.arange(0, len(x), step_of(x))) if is_mapped(x) else x


def step_of(x: Tensor) -> int:
    """Of how many rows :func:`some_of` takes one."""
    return -(-len(x) // _at_once(x)) if is_mapped(x) else 1


def _at_once(x: Tensor) -> int:
    return max(1, LARGE // 4 * len(x) // max(1, x.nbytes))


def blocks(x: Tensor, most: int | None = None) -> Iterator[Tensor]:
    """The rows of x (num, …) in order, some at a time, at most ``most``; their pages are let go after use."""
    for block in x.split(_at_once(x) if most is None else min(most, _at_once(x))):
        yield block
        let_go(x)


def first_where(is_bad: Callable[[Tensor], Tensor], x: Tensor) -> tuple[int, int, int] | None:
    """Row and column of the first bad value of x (num, …), a datum's values counted, and how many there are."""
    place, count, start = None, 0, 0
    for rows in blocks(x):
        bad = is_bad(rows).reshape(len(rows), -1)
        if place is None and bad.any():
            row, column = bad.nonzero()[0].tolist()
            place = start + row, column
        count, start = count + int(bad.sum()), start + len(rows)
    return None if place is None else (*place, count)


def has_gaps(x: Tensor) -> bool:
    """Whether data hold missing values."""
    return any(bool(rows.isnan().any()) for rows in blocks(x))


def extent(x: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of each column of x (num, n), NaN apart: ∞ and −∞ where there are none."""
    low, high = torch.full(x.shape[1:], math.inf), torch.full(x.shape[1:], -math.inf)
    for rows in blocks(x):
        low = torch.minimum(low.to(rows), rows.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf).amin(0))
        high = torch.maximum(high.to(rows), rows.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf).amax(0))
    return low, high


def nanmean(x: Tensor, of: Callable[[Tensor], Tensor] = torch.Tensor.double) -> Tensor:
    """The mean over x (num, n) of a function of some rows, NaN apart, shape (n,), float64."""
    total = num = torch.zeros(())
    for rows in blocks(x):
        values = of(rows).double()
        total, num = total + values.nansum(0), num + (~values.isnan()).sum(0)
    return total / num


def in_blocks(function: Callable[[Tensor], Found], x: Tensor) -> Found:
    """What a function gives for each row of x (num, …), in a tensor or several; mapped files go through in blocks."""
    if not is_mapped(x):
        return function(x)
    kept: list[_Kept] = []
    for block in blocks(x):
        found: Any = function(block)
        parts = [found] if isinstance(found, Tensor) else list(found)
        kept = kept or [_Kept() for _ in parts]
        for each, part in zip(kept, parts, strict=True):
            each.add(part)
    whole = tuple(each.whole() for each in kept)
    return cast("Found", whole[0] if isinstance(found, Tensor) else whole)


def gathered(parts: Iterable[Tensor]) -> Tensor:
    """Rows in one tensor; if they are large, in a file without a name that goes with the tensor."""
    kept = _Kept()
    for part in parts:
        kept.add(part)
    return kept.whole()


class _Kept:
    """Rows, in memory until they are large and then in a file."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._num, self._bytes = 0, 0
        self._file: FileIO | None = None

    def add(self, part: Tensor) -> None:
        """Add rows (num, …).

        Raises:
            InputTypeError: they are not like the rows before.
        """
        like = self._parts[0] if self._parts else part
        if (part.shape[1:], part.dtype) != (like.shape[1:], like.dtype):
            what = [f"{each.dtype} of shape {tuple(each.shape[1:])}" for each in (like, part)]
            raise InputTypeError(f"rows must be alike: after {what[0]} comes {what[1]}")
        self._parts.append(part.detach())
        self._num += len(part)
        self._bytes += part.nbytes
        if self._bytes > LARGE and not part.is_cuda:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  it lives as long as the tensor
            self._closing = finalize(self, self._file.close)
        for part in self._parts:
            part.contiguous().numpy().tofile(self._file)
        like = self._parts[-1]
        self._parts, self._bytes = [like.new_empty(0, *like.shape[1:])], 0  # a view would keep the rows in memory

    def whole(self) -> Tensor:
        """All rows."""
        if self._file is None:
            return torch.cat(self._parts) if self._parts else torch.empty(0)
        self._write()
        self._closing.detach()
        like = self._parts[0]
        return map_file(self._file, like.numpy().dtype, 0, (self._num, *like.shape[1:]), keeps=True)


def is_dataset(data: object) -> TypeGuard[Dataset[Any] | DataLoader[Any]]:
    """Whether data are a Dataset or a DataLoader of PyTorch."""
    return isinstance(data, (Dataset, DataLoader))


def read_dataset(name: str, data: Dataset[Any] | DataLoader[Any]) -> Tensor:
    """All rows x of a dataset whose items are x or begin with x, as its loader collates them, in the dataset's order.

    Raises:
        InputError: there are none, or the loader draws or groups them in a way of its own.
        InputTypeError: the items are no arrays of numbers.
    """
    loader = data if isinstance(data, DataLoader) else DataLoader(data, _ITEMS)
    if not _takes_all(loader):
        raise InputError(
            f"{name} is a DataLoader that draws or groups its data in a way of its own, which training does not "
            "follow; give its dataset, or a Subset of it"
        )
    is_stream = isinstance(loader.dataset, IterableDataset)
    in_order: DataLoader[Any] = DataLoader(
        loader.dataset,
        loader.batch_size,
        collate_fn=loader.collate_fn,
        num_workers=0 if is_stream else loader.num_workers,  # each worker would read all of a stream
        generator=torch.Generator(),
    )

    def first(batch: Any) -> Tensor:
        x = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not isinstance(x, Tensor) or (x is not batch and x.dim() < 2):
            what = "single numbers" if isinstance(x, Tensor) else type(x).__name__
            raise InputTypeError(f"items of {name} must be x, or begin with x, a tensor or an array, not {what}")
        return x

    try:
        return gathered(map(first, in_order))
    except (TypeError, RuntimeError) as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        is_ours = trace is not None and trace.tb_frame.f_globals.get("__name__") == default_collate.__module__
        if not is_ours:  # a bug in the dataset keeps its traceback
            raise
        raise InputTypeError(f"the items of {name} cannot be stacked: {one_line(error, 200)}") from error


def _takes_all(loader: DataLoader[Any]) -> bool:
    """Whether a loader gives every item once, in batches of a size."""
    if loader.batch_size is None:
        return False
    if isinstance(loader.dataset, IterableDataset):
        return True
    sampler: Any = loader.sampler
    batches = loader.batch_sampler
    return (
        type(sampler) in (SequentialSampler, RandomSampler)
        and sampler.data_source is loader.dataset
        and not getattr(sampler, "replacement", False)
        and len(sampler) == len(cast("Sized", loader.dataset))
        and type(batches) is BatchSampler
        and batches.sampler is sampler
    )
