"""Spectra of many files, read one file at a time: for data that need not fit into memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from torch import Tensor
from torch.utils.data import IterableDataset

from pyrovae.datasets.readers.settings import ReadingKeywords
from pyrovae.datasets.readers.spectra import read_spectra
from pyrovae.errors import InputError


class SpectraFiles(IterableDataset[Tensor]):
    """The spectra of a folder's files, in the order of the files' names; one file is in memory at a time.

    :func:`pyrovae.fit` and the methods of evaluation take it as any Dataset. Each file has a table of spectra. All
    files must have the first one's channels.

    Args:
        folder: where the files are.
        pattern: which of them, as ``Path.glob`` takes it.
        **keywords: the fields of :class:`~pyrovae.datasets.ReadingSettings`, for every file.

    Raises:
        InputError: the folder has no such file. While reading: a file cannot be read, or has other channels.

    Example:
        >>> pv.fit(model, guide, pv.datasets.SpectraFiles("spectra", "*.parquet"), pv.AnalyticELBO())  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path, pattern: str = "*", **keywords: Unpack[ReadingKeywords]) -> None:
        self.paths = sorted(path for path in Path(folder).glob(pattern) if path.is_file() and path.name[0] != ".")
        self._keywords = keywords
        if not self.paths:
            raise InputError(f"the folder {folder} has no file {pattern}")

    def __iter__(self) -> Iterator[Tensor]:
        """Each spectrum, shape (n,)."""
        names = None
        for path in self.paths:
            found = read_spectra(path, to_train=False, **self._keywords)
            names = names or found.channel_names
            if found.channel_names != names:
                other = next((b for a, b in zip(names, found.channel_names, strict=False) if a != b), "others")
                raise InputError(
                    f"{path} has {len(found.channel_names)} channels with {other} among them, and "
                    f"{self.paths[0].name} has {len(names)}; all files must have the same channels"
                )
            yield from found.x
