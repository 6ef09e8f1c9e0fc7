"""IDX, the file format of MNIST: a header of big-endian numbers, then unsigned bytes."""

import gzip
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyrovae.datasets.readers._table import Choose, Table, default_dtype, table_of
from pyrovae.datasets.readers.settings import ReadingSettings, check_size
from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option, one_line

PIXEL = "pixel"
"""Unit of the axis of images."""

_UNSIGNED_BYTES = 0x08


def read_idx(path: str | Path, *, max_gib: float = math.inf) -> Tensor:
    """The unsigned bytes of an IDX file, gzipped if its name ends in ``.gz``: a uint8 tensor of the file's own shape.

    The file is four bytes, 0, 0, 8 and the number of dimensions, each dimension as a big-endian 32-bit number, and
    as many bytes as these say.

    Args:
        path: the file.
        max_gib: refuse images that would need more memory than this, in GiB, as numbers.

    Raises:
        InputError: the file is torn, too large, damaged or of another format; says how.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != bytes([0, 0, _UNSIGNED_BYTES]) or start[3] == 0:
                found = start.hex(" ") or "nothing"
                raise InputError(f"{path} is not an IDX file of unsigned bytes: it begins with {found}, not 00 00 08 …")
            header = file.read(4 * start[3])
            if len(header) < 4 * start[3]:
                raise InputError(f"{path} is torn: it ends within the header of an IDX file")
            shape = [int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4)]
            size = math.prod(shape)
            if max_gib < math.inf:
                check_size(str(path), float(size) * (1 + 2 * np.dtype(default_dtype()).itemsize), max_gib)
            content = bytearray()
            while piece := file.read(min(2**20, size + 1 - len(content))):  # a damaged header may ask for anything
                content += piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is torn or no gzip file ({one_line(error)}); get it again") from None
    if len(content) != size:
        much = "more" if len(content) > size else f"{len(content)}"
        raise InputError(
            f"{path} does not hold what its header says: {size} bytes of shape {tuple(shape)}, but {much}; get it again"
        )
    return torch.frombuffer(content, dtype=torch.uint8).view(shape) if size else torch.empty(shape).byte()


def read_images(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """Images as grey values in [0, 1]; the channels are the pixels, row by row, counted from 0.

    Labels are in the file beside it that is named like it, such as ``train-labels-idx1-ubyte``, if there is one.
    """
    import pandas as pd

    images = read_idx(path, max_gib=settings.max_gib)
    if images.dim() < 2 or not images.numel():
        raise InputError(f"{path} holds no images, but numbers of shape {tuple(images.shape)}; give the images' file")
    pixels = images.flatten(1).to(torch.get_default_dtype()) / 255
    positions, others = np.arange(pixels.shape[1], dtype=float), pd.DataFrame(index=range(len(pixels)))
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    findings: tuple[Finding, ...] = ()
    if beside != path and beside.is_file():
        labels = read_idx(beside, max_gib=settings.max_gib)
        if labels.shape == (len(pixels),):
            others["label"] = labels.numpy()
            findings = (Finding(f"labels in {beside.name}", "it is named like the images", Option("label"), False),)
    plain = replace(settings, samples=None)
    table = table_of(str(path), pixels.numpy(), plain, positions=positions, unit=PIXEL, others=others)
    return replace(table, layout=replace(table.layout, findings=findings))
