"""Files that are written completely or not at all."""

import hashlib
import json
import math
import os
import platform
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from pyrovae.errors import InputError, needing_extra

if TYPE_CHECKING:
    import pandas as pd

_PARTIAL = ".partial-"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there.

    File and folder are on the disk before it returns, so that a crash of the machine leaves the old file or the new.

    Raises:
        OSError: it cannot be written, with the reason and ``path`` as its file name.
    """
    write_together({path: write})


def write_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Fill a temporary file beside each path, and move them there, in this order, when all are complete.

    Raises:
        OSError: one cannot be written, and none was moved.
    """
    temporaries: dict[Path, Path] = {}
    path = Path()
    try:
        for path, write in writers.items():
            # absolute, as pandas takes ~ at the beginning for the home folder
            temporary = path.absolute().with_name(f"{_PARTIAL}{path.name}-{secrets.token_hex(4)}{path.suffix}")
            temporary.touch(exist_ok=False)  # not tempfile: the caller's umask says who else may read the file
            temporaries[path] = temporary
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            temporary.replace(path)
            _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote; no other may be writing to the folder."""
    for left_over in folder.glob(f"{_PARTIAL}*"):
        left_over.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems, and Windows, do not know how
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(*contents: tuple[Path, bytes]) -> None:
    """Write files of these bytes atomically, all or none."""
    write_together({path: partial(Path.write_bytes, data=content) for path, content in contents})


def write_text(path: Path, text: str) -> None:
    """Write a text atomically."""
    write_bytes((path, text.encode()))


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically; NaN and infinity become null."""
    write_text(path, to_json(content))


def to_json(content: object) -> str:
    """Content as indented JSON; NaN and infinity become null."""
    return json.dumps(_jsonable(content), indent=2, allow_nan=False) + "\n"


def checksum(content: Mapping[str, object], tensors: bytes) -> str:
    """SHA-256 of JSON, whatever its layout, and of the tensors that belong to it.

    Raises:
        ValueError: a number in the JSON is not finite.
    """
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode() + b"\n" + tensors).hexdigest()


def _jsonable(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_folder(path: Path) -> Path:
    """Make a folder for results and check that it can be written.

    Raises:
        InputError: it cannot be made or written, or a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"cannot write to the output folder {path}: {error.strerror}; give another") from None
    return path


def check_free(folder: Path, *names: str) -> None:
    """Raise an InputError if a folder in which no run was begun holds a file that a run would replace."""
    for path in (folder / name for name in names):
        if path.exists():
            raise InputError(
                f"{path} would be replaced, and no run of pyrovae wrote it; move it, or give another folder"
            )


def cache_folder() -> Path:
    """Where downloads are kept: ``PYROVAE_CACHE``, or ``pyrovae`` in the user's cache folder."""
    return Path(os.environ.get("PYROVAE_CACHE") or platformdirs.user_cache_dir("pyrovae", appauthor=False))


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a folder for results and keep other runs out of it, until the block ends or the process does.

    Raises:
        InputError: it cannot be written, or another run is writing to it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(make_folder(folder) / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another run is writing to {folder}; wait until it ends, or give another folder") from None
    try:
        remove_partial_files(folder)
        yield
    finally:
        lock.release()


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a table atomically: CSV, or parquet if the file's name ends so.

    Raises:
        MissingExtraError: parquet without pyarrow.
    """
    write = table.to_parquet if path.suffix == ".parquet" else table.to_csv
    with needing_extra("writing parquet needs pyarrow: pip install 'pyrovae[parquet]'"):
        write_atomically(path, partial(write, index=False))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    packages = ("pyrovae", "torch", "pyro-ppl", "numpy")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}
