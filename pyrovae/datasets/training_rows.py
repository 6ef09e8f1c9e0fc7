"""Hashes of the rows that trained a model, stored beside it to recognise them in new data."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.blocks import blocks
from pyrovae.errors import InputError, one_line
from pyrovae.files import write_bytes

_FILE = "training-rows.npy"


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Hashes of the rows that a model was trained on.

    Attributes:
        hashes: of 64 bits, one per row, of its values in float32, sorted.
    """

    hashes: NDArray[np.uint64]

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """The rows of data x (num, n), in their own units."""
        return cls(np.unique(_hashes(x)))

    def write(self, folder: Path) -> None:
        """Write them beside a model."""
        buffer = io.BytesIO()
        np.save(buffer, self.hashes)
        write_bytes((folder / _FILE, buffer.getvalue()))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The rows beside a model; None where there are none, as earlier versions wrote none.

        Raises:
            InputError: the file is damaged.
        """
        path = folder / _FILE
        if not path.is_file():
            return None
        try:
            found = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(f"cannot read {path}: {one_line(error)}") from None
        if found.dtype != np.uint64 or found.ndim != 1:
            raise InputError(f"{path} is damaged: it holds {found.dtype} of shape {found.shape}")
        return cls(found)

    def are(self, x: Tensor) -> Tensor:
        """Which rows of data x (num, n) are among them, booleans of shape (num,)."""
        return torch.from_numpy(np.isin(_hashes(x), self.hashes))

    def missing_in(self, x: Tensor) -> int:
        """How many of them are not among the rows of data x (num, n)."""
        return len(np.setdiff1d(self.hashes, _hashes(x)))

    def count_in(self, x: Tensor) -> int:
        """How many rows of data x (num, n) are among them."""
        return int(self.are(x).sum())


def _hashes(x: Tensor) -> NDArray[np.uint64]:
    """A hash of each row, the same for 0 and −0, and for every NaN."""
    found = bytearray()
    for block in blocks(x.detach()):
        rows = (block.cpu().to(torch.float32) + 0.0).nan_to_num(nan=torch.finfo(torch.float32).max).numpy()
        found += b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(bytes(found), "<u8").astype(np.uint64)
