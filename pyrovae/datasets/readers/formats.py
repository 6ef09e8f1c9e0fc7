"""The table of formats: to add one, write its reader in a file here and add a row."""

from dataclasses import dataclass
from pathlib import Path

from pyrovae.datasets.readers._table import Reader
from pyrovae.datasets.readers.arrays import read_npy, read_npz
from pyrovae.datasets.readers.idx import read_images
from pyrovae.datasets.readers.parquet import read_parquet
from pyrovae.datasets.readers.text import read_text


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: what to call it.
        suffixes: how the names of its files end.
        read: the reader.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Reader


FORMATS = (
    Format("array of numpy", (".npy",), read_npy),
    Format("arrays of numpy", (".npz",), read_npz),
    Format("parquet", (".parquet", ".pq"), read_parquet),
    Format("images in IDX, the format of MNIST", ("ubyte", "ubyte.gz", "idx", "idx.gz"), read_images),
    Format("delimited text", ("",), read_text),
)
"""The formats; the first whose suffix fits reads a file. Text takes what no other format claims."""


def format_of(path: Path) -> Format:
    """The format of a file, by its name."""
    return next(row for row in FORMATS if path.name.endswith(row.suffixes))
