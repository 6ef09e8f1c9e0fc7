"""A file of one's own data, spectra or images, read by what it is."""

from pathlib import Path

import pandas as pd
import torch

from pyrovae.datasets.readers.idx import read_idx
from pyrovae.datasets.readers.spectra import read_spectra
from pyrovae.datasets.spectra import Spectra
from pyrovae.errors import InputError

PIXEL = "pixel"
"""Unit of the axis of images."""


def read_data(
    path: str | Path, channels: str | None = None, *, missing: str = "error", to_train: bool = True
) -> Spectra:
    """Spectra or a table by :func:`read_spectra`; images of an IDX file (such as MNIST's) as grey values in [0, 1].

    Args:
        path: the file; of images one whose name ends in ``ubyte`` or ``idx``, or that and ``.gz``.
        channels: see :func:`read_spectra`; of images the channels are the pixels, row by row, counted from 0.
        missing: likewise.
        to_train: likewise.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read; says where and how to mend it.
    """
    path = Path(path)
    plain = path.name.removesuffix(".gz")
    if not plain.endswith(("ubyte", "idx")):
        return read_spectra(path, channels, missing=missing, to_train=to_train)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    images = read_idx(path)
    if images.dim() < 2 or not images.numel():
        raise InputError(f"{path} holds no images, but numbers of shape {tuple(images.shape)}; give the images' file")
    pixels = images.flatten(1).to(torch.get_default_dtype()) / 255
    axis = torch.arange(pixels.shape[1], dtype=torch.float64)
    return Spectra(pixels, axis, PIXEL, pd.DataFrame(index=range(len(pixels))), plain)
