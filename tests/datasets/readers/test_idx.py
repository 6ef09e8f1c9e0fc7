"""IDX files: parsed, or refused in one line."""

import gzip
import math
import re

import numpy as np
import pytest
import torch

from pyrovae.datasets import PIXEL, read_spectra
from pyrovae.datasets.readers.idx import read_idx
from tests.datasets.idx_files import PIXELS, idx

CONTENT = idx(PIXELS)
BAD = {
    "torn gzip": (gzip.compress(CONTENT)[:-20], "is torn or no gzip file"),
    "damaged gzip": (gzip.compress(CONTENT)[:30] + b"\xff" * 20 + gzip.compress(CONTENT)[50:], "is torn or no gzip"),
    "wrong checksum in gzip": (gzip.compress(CONTENT)[:-8] + b"\0" * 8, "is torn or no gzip file"),
    "no gzip": (b"<html>not found</html>", "is torn or no gzip file"),
    "empty": (b"", "is not an IDX file of unsigned bytes: it begins with nothing"),
    "another format": (gzip.compress(b"PK\3\4" + CONTENT), "it begins with 50 4b 03 04, not 00 00 08"),
    "other numbers": (gzip.compress(b"\0\0\x0d" + CONTENT[3:]), "it begins with 00 00 0d 03"),
    "no dimensions": (gzip.compress(b"\0\0\x08\0"), "is not an IDX file"),
    "half a header": (gzip.compress(CONTENT[:9]), "it ends within the header"),
    "too short": (gzip.compress(CONTENT[:-1]), "not hold what its header says: 160 bytes of shape (10, 4, 4), but 159"),
    "too long": (gzip.compress(CONTENT + b"\0"), "160 bytes of shape (10, 4, 4), but more"),
    "a huge header": (gzip.compress(CONTENT[:4] + b"\xff" * 12), "but 0; get it again"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_bad_idx_files(tmp_path, content, message):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["images.gz", "images"])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (0, 4, 4)])
def test_idx_files_of_any_shape(tmp_path, name, shape):
    array = np.arange(math.prod(shape)).reshape(shape)
    (tmp_path / name).write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))
    read = read_idx(tmp_path / name)
    assert read.dtype == torch.uint8
    assert np.array_equal(read.numpy(), array)


def test_images_are_spectra_of_pixels(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.where(PIXELS == 0, 0, PIXELS))))
    images = read_spectra(path)
    np.testing.assert_array_equal(images.x.numpy(), (PIXELS.reshape(10, 16) / np.float32(255)).astype(np.float32))
    assert (images.unit, images.axis.tolist(), list(images.targets)) == (PIXEL, list(range(16)), [])
    path.write_bytes(gzip.compress(idx(np.zeros((1, 2, 2)))))
    assert read_spectra(path).x.shape == (1, 4)  # a border that never changes is no fault of images
