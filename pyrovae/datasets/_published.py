"""Files of published data sets, with known checksums: from a folder, a cache or the net."""

import hashlib
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyrovae.errors import InputError
from pyrovae.files import cache_folder

_TIMEOUT = 20.0
_LEFT_BEHIND = 3600.0
"""Seconds after which a part of a download must be from a killed process."""


@dataclass(frozen=True)
class PublishedFile:
    """A file that anyone can get, and its checksum.

    Attributes:
        folder: name of the data set's folder.
        name: the file's name.
        sha256: its checksum.
        mirrors: addresses of folders that it can be downloaded from.
    """

    folder: str
    name: str
    sha256: str
    mirrors: tuple[str, ...]


def locate(file: PublishedFile) -> Path:
    """The path of a file: in ``PYROVAE_DATA/<folder>``, else in the cache, else downloaded into the cache.

    A download gets its name in the cache when it is complete and its checksum is right; an interrupted download is
    removed.

    Raises:
        InputError: the file in ``PYROVAE_DATA`` is another file or damaged.
        FileNotFoundError: there is none, and it cannot be downloaded.
        OSError: a file cannot be read, or the cache cannot be written to.
    """
    ours = os.environ.get("PYROVAE_DATA")
    if ours and (path := Path(ours, file.folder, file.name)).exists():
        if (found := _sha256(path)) != file.sha256:
            raise InputError(
                f"{path} is damaged or not the published file: its sha256 is {found[:12]}…, not "
                f"{file.sha256[:12]}…; replace or remove it"
            )
        return path
    cache = cache_folder() / "datasets"
    path = cache / file.folder / file.name
    if path.exists() and _sha256(path) == file.sha256:
        return path
    try:
        _download(file, path)
    except FileNotFoundError as error:
        where = f"not in PYROVAE_DATA ({ours})" if ours else "not in PYROVAE_DATA, which is not set"
        raise FileNotFoundError(
            f"there is no file {file.folder}/{file.name}: it is {where}, not in the cache {cache}, and "
            f"cannot be downloaded ({error}); go online, or put it into either folder"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error).split(" | ")[0]
        raise OSError(
            f"cannot write {file.name} to the cache {path.parent}: {reason}; name another folder in PYROVAE_CACHE"
        ) from None
    return path


def _download(file: PublishedFile, path: Path) -> None:
    """Download a file through pooch, from the first mirror that has it.

    Raises:
        FileNotFoundError: no mirror has it; says why.
        OSError: the cache cannot be written to.
    """
    import pooch
    from requests import RequestException

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # some file systems that cannot be written to
        raise OSError(error.errno, error.strerror) from None
    path.unlink(missing_ok=True)  # it is damaged, else it would not be downloaded
    for part in path.parent.glob("tmp*"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _LEFT_BEHIND:
                part.unlink()
    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=_TIMEOUT)
    logger, reasons = pooch.get_logger(), []
    level = logger.level
    logger.setLevel("WARNING")
    try:
        for mirror in file.mirrors:
            try:
                pooch.retrieve(mirror + file.name, f"sha256:{file.sha256}", file.name, path.parent, downloader=fetch)
                return
            except RequestException as error:
                kind = type(error).__name__ if error.response is None else f"status {error.response.status_code}"
                reasons.append(f"{mirror}: {kind}")
            except ValueError:
                reasons.append(f"{mirror} has another file of that name")
    finally:
        logger.setLevel(level)
    raise FileNotFoundError("; ".join(reasons))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
