"""Hashes of the rows that trained a model, stored beside it to recognise them in new data."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pyrovae.errors import InputError, one_line
from pyrovae.files import write_bytes

_FILE = "training-rows.npy"


@dataclass(frozen=True)
class TrainingRows:
    """Hashes of the rows that a model was trained on.

    Attributes:
        hashes: of 64 bits, one per row, of its values in float32.
    """

    hashes: frozenset[int]

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """The rows of data x (num, n), in their own units."""
        return cls(frozenset(_hashes(x)))

    def write(self, folder: Path) -> None:
        """Write them beside a model."""
        buffer = io.BytesIO()
        np.save(buffer, np.array(sorted(self.hashes), dtype=np.uint64))
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
        return cls(frozenset(found.tolist()))

    def are(self, x: Tensor) -> Tensor:
        """Which rows of data x (num, n) are among them, booleans of shape (num,)."""
        return torch.tensor([value in self.hashes for value in _hashes(x)], dtype=torch.bool)

    def count_in(self, x: Tensor) -> int:
        """How many rows of data x (num, n) are among them."""
        return int(self.are(x).sum())


def _hashes(x: Tensor) -> list[int]:
    """A hash of each row, the same for 0 and −0, and for every NaN."""
    rows = (x.detach().cpu().to(torch.float32) + 0.0).nan_to_num(nan=torch.finfo(torch.float32).max).numpy()
    rows = np.ascontiguousarray(rows)
    return [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in rows]
