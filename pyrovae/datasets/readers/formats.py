"""The table of formats: to add one, write its reader in a file here and add a row."""

from pathlib import Path

from pyrovae.datasets.readers._table import Reader
from pyrovae.datasets.readers.arrays import read_npy, read_npz
from pyrovae.datasets.readers.idx import read_images
from pyrovae.datasets.readers.parquet import read_parquet
from pyrovae.datasets.readers.text import read_text

FORMATS: dict[tuple[str, ...], Reader] = {
    (".npy",): read_npy,
    (".npz",): read_npz,
    (".parquet", ".pq"): read_parquet,
    ("ubyte", "ubyte.gz", "idx", "idx.gz"): read_images,
    ("",): read_text,
}
"""Readers by how the names of their files end; the first that fits. Text is what no other format claims."""


def reader_of(path: Path) -> Reader:
    """The reader of a file, by its name."""
    return next(reader for suffixes, reader in FORMATS.items() if path.name.endswith(suffixes))
