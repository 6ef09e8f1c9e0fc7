"""Tiny files in IDX, the format of MNIST."""

import numpy as np


def idx(array):
    """The bytes of an IDX file, written by NumPy."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype("u1").tobytes()


PIXELS = np.arange(10 * 16).reshape(10, 4, 4) % 256
CLASSES = np.arange(10)


def in_cache(tmp_path):
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if not p.is_dir())
