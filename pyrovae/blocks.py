"""Data that need not fit into memory: rows of mapped files, taken in blocks, and what is made of them."""

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from typing import Any, TypeGuard, TypeVar, cast
from weakref import WeakValueDictionary, finalize

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from pyrovae.errors import InputError, InputTypeError, one_line

LARGE = 2**28
"""Bytes above which data are taken in blocks, and what is made of them lies in a file."""
_ITEMS = 256
"""Items of a dataset that are stacked at once."""


Found = TypeVar("Found")


def is_large(x: "Tensor | np.ndarray") -> bool:
    """Whether data in main memory, or in a file, are to be taken in blocks."""
    return x.nbytes > LARGE and not (isinstance(x, Tensor) and x.is_cuda)


class _Pages(mmap.mmap):
    """The pages of a file, and the file itself.

    Attributes:
        file: open for reading, without a buffer.
        offset: where in it the tensor's storage begins.
    """

    file: FileIO
    offset: int


_maps: WeakValueDictionary[int, _Pages] = WeakValueDictionary()  # by the address of the tensor's storage


def map_file(file: FileIO, dtype: np.dtype, offset: int, shape: tuple[int, ...]) -> Tensor:
    """Numbers in a file as a tensor. What is written to it does not reach the file, and may be lost."""
    pages = _Pages(file.fileno(), 0, access=mmap.ACCESS_COPY)
    pages.file, pages.offset = file, offset
    finalize(pages, file.close)
    x = torch.from_numpy(np.frombuffer(pages, dtype, int(np.prod(shape)), offset).reshape(shape))
    _maps[x.untyped_storage().data_ptr()] = pages
    return x


def is_mapped(x: Tensor) -> bool:
    """Whether these are rows of a mapped file."""
    return x.untyped_storage().data_ptr() in _maps


def let_go(x: Tensor) -> None:
    """Let the system take back the pages of a mapped file; they are read again when they are needed."""
    pages = _maps.get(x.untyped_storage().data_ptr())
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def take(x: Tensor, index: Tensor) -> Tensor:
    """The rows x[index], index of shape (k,); those of a mapped file are read from it, which maps no pages."""
    pages = _maps.get(x.untyped_storage().data_ptr())
    if pages is None:
        return x[index]
    found = torch.empty(len(index), *x.shape[1:], dtype=x.dtype)
    size, buffer = x[0].nbytes, memoryview(found.reshape(-1).numpy().view(np.uint8).data)
    start = pages.offset + x.data_ptr() - x.untyped_storage().data_ptr()
    for k, row in enumerate(index.tolist()):
        pages.file.seek(start + row * size)
        pages.file.readinto(buffer[k * size : (k + 1) * size])
    return found


def blocks(x: Tensor, most: int | None = None) -> Iterator[Tensor]:
    """The rows of x (num, …) in order, some at a time, at most ``most``; their pages are let go after use."""
    at_once = max(1, LARGE // 4 * len(x) // max(1, x.nbytes))
    for block in x.split(at_once if most is None else min(most, at_once)):
        yield block
        let_go(x)


def in_blocks(function: Callable[[Tensor], Found], x: Tensor) -> Found:
    """What a function gives for each row of x (num, …), in a tensor or several; large data go through it in blocks."""
    if not is_large(x):
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
        """Add rows (num, …)."""
        self._parts.append(part.detach())
        self._num += len(part)
        self._bytes += part.nbytes
        if self._bytes > LARGE and not part.is_cuda:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  it lives as long as the tensor
        for part in self._parts:
            part.contiguous().numpy().tofile(self._file)
        self._parts, self._bytes = self._parts[-1:], 0
        self._parts[0] = self._parts[0][:0]

    def whole(self) -> Tensor:
        """All rows."""
        if self._file is None:
            return torch.cat(self._parts) if self._parts else torch.empty(0)
        self._write()
        like = self._parts[0]
        return map_file(self._file, like.numpy().dtype, 0, (self._num, *like.shape[1:]))


def is_dataset(data: object) -> TypeGuard[Dataset[Any] | DataLoader[Any]]:
    """Whether data are a Dataset or a DataLoader of PyTorch."""
    return isinstance(data, (Dataset, DataLoader))


def read_dataset(name: str, data: Dataset[Any] | DataLoader[Any]) -> Tensor:
    """All rows x of a dataset whose items are x or begin with x, as its loader collates them, in the dataset's order.

    Raises:
        InputError: there are none, or the loader draws them in a way of its own.
        InputTypeError: the items are no numbers.
    """
    loader = data if isinstance(data, DataLoader) else DataLoader(data, _ITEMS)
    if not isinstance(loader.dataset, IterableDataset):
        orders, batches = (SequentialSampler, RandomSampler), (BatchSampler, type(None))
        if type(loader.sampler) not in orders or type(loader.batch_sampler) not in batches:
            raise InputError(
                f"{name} is a DataLoader that draws its data in a way of its own, which training does not follow; give "
                "its dataset, or a Subset of it"
            )
        at_once = loader.batch_size or _ITEMS
        collate = loader.collate_fn if loader.batch_size else DataLoader(loader.dataset, _ITEMS).collate_fn
        loader = DataLoader(loader.dataset, at_once, collate_fn=collate, num_workers=loader.num_workers)
    elif loader.batch_size is None:
        loader = DataLoader(loader.dataset, _ITEMS, num_workers=loader.num_workers)

    def first(batch: Any) -> Tensor:
        x = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not isinstance(x, Tensor):
            raise InputTypeError(
                f"items of {name} must be x, or begin with x, a tensor or an array; they give {type(x).__name__}"
            )
        return x

    try:
        return gathered(map(first, loader))
    except (TypeError, RuntimeError) as error:
        if isinstance(error, InputTypeError):
            raise
        raise InputTypeError(f"the items of {name} cannot be stacked: {one_line(error, 200)}") from error
