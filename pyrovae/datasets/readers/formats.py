"""The table of formats: to add one, write its reader in a file here and add a row."""

import zipfile
from pathlib import Path

from pyrovae.datasets.readers._table import Choose, Reader, Table
from pyrovae.datasets.readers.arrays import read_npy, read_npz
from pyrovae.datasets.readers.containers import read_hdf5, read_mat
from pyrovae.datasets.readers.excel import read_excel
from pyrovae.datasets.readers.folder import read_folder
from pyrovae.datasets.readers.idx import read_images
from pyrovae.datasets.readers.instruments import SUFFIXES, format_of, read_instrument
from pyrovae.datasets.readers.parquet import read_parquet
from pyrovae.datasets.readers.series import read_series
from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.datasets.readers.text import read_text
from pyrovae.errors import InputError

MAGIC: dict[bytes, Reader] = {
    b"\x93NUMPY": read_npy,
    b"PAR1": read_parquet,
    b"\x89HDF\r\n\x1a\n": read_hdf5,
    b"MATLAB 7.3": read_hdf5,
    b"MATLAB 5.0": read_mat,
    b"\0\0\x08\x02": read_images,
    b"\0\0\x08\x03": read_images,
}
"""Readers by how their files begin."""

FORMATS: dict[tuple[str, ...], Reader] = {
    (".npy",): read_npy,
    (".npz",): read_npz,
    (".parquet", ".pq"): read_parquet,
    (".xlsx", ".xlsm"): read_excel,
    (".mat",): read_mat,
    (".h5", ".hdf5", ".hdf"): read_hdf5,
    (".ts", ".arff"): read_series,
    SUFFIXES: read_instrument,
    ("ubyte", "ubyte.gz", "idx", "idx.gz"): read_images,
    ("",): read_text,
}
"""Readers by how the names of their files end; the first that fits. Text is what no other format claims."""

_OLD_OFFICE = b"\xd0\xcf\x11\xe0"


def reader_of(path: Path) -> Reader:
    """The reader of a file, by its first bytes, or else by its name.

    Raises:
        InputError: a format that nothing here reads.
    """
    with path.open("rb") as file:
        start = file.read(512)
    for magic, reader in MAGIC.items():
        if start.startswith(magic):
            return reader
    if start.startswith(b"PK\x03\x04"):
        return _of_archive(path)
    if start.startswith(_OLD_OFFICE) and path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is a workbook of Excel before 2007 (.xls); save it as .xlsx or CSV")
    if format_of(path, start):
        return read_instrument
    for magic, what in (b"%PDF", "a PDF"), (b"ENVI", "the header of an ENVI image"):
        if start.startswith(magic):
            raise InputError(f"{path} is {what}; give the numbers as a table")
    name = path.name.lower()
    return next(reader for suffixes, reader in FORMATS.items() if name.endswith(suffixes))


def _of_archive(path: Path) -> Reader:
    """The reader of a zip archive, by what it holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return read_excel if path.suffix.lower() in (".xlsx", ".xlsm") else read_npz  # which say that it is damaged
    if any(name.startswith("xl/") for name in names):
        return read_excel
    if any(name.endswith(".npy") for name in names) or path.suffix.lower() == ".npz":
        return read_npz
    raise InputError(f"{path} is a zip archive; unpack it, and give the file or the folder in it")


def read_table(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """The table in a file, or in a folder of files."""
    if path.is_dir():
        return read_folder(path, settings, choose, lambda file, own, chosen: reader_of(file)(file, own, chosen))
    return reader_of(path)(path, settings, choose)
