"""Image files: found, downloaded, refused; parsed, split and binarised."""

import errno
import gzip
import hashlib
import math
import os
import re
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pooch
import pytest
import torch

import pyrovae as pv
from pyrovae.datasets._published import PublishedFile, locate
from pyrovae.datasets.images import MNIST_FILES, published_images
from pyrovae.datasets.readers.idx import read_idx

needs_data = pytest.mark.skipif(
    not os.environ.get("PYROVAE_DATA"), reason="the folder of the published files is not given by PYROVAE_DATA"
)


def idx(array):
    """The bytes of an IDX file, written by NumPy."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype("u1").tobytes()


PIXELS = np.arange(10 * 16).reshape(10, 4, 4) % 256
CLASSES = np.arange(10)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A loader of four tiny files with known checksums and no mirrors, and the folder that they are in."""
    contents = [idx(PIXELS), idx(CLASSES), idx(255 - PIXELS[:4]), idx(CLASSES[:4])]
    zipped = [gzip.compress(content, mtime=0) for content in contents]
    known = tuple(
        replace(file, sha256=hashlib.sha256(content).hexdigest(), mirrors=())
        for file, content in zip(MNIST_FILES, zipped, strict=True)
    )
    monkeypatch.setenv("PYROVAE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for file, content in zip(known, zipped, strict=True):
        (folder / file.name).write_bytes(content)
    return Tiny(folder, known)


@dataclass(frozen=True)
class Tiny:
    folder: Path
    files: tuple[PublishedFile, ...]

    def load(self, num_validation=3):
        return published_images("mnist", self.files, num_validation=num_validation)


def in_cache(tmp_path):
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if not p.is_dir())


def test_tiny_files_are_parsed_and_split(tiny):
    data = tiny.load()
    x = torch.as_tensor(PIXELS.reshape(10, 16) / 255, dtype=torch.float32)
    torch.testing.assert_close(torch.cat([data.train, data.validation]), x, atol=1e-7, rtol=0)
    torch.testing.assert_close(data.test, 1 - x[:4], atol=1e-7, rtol=0)
    assert (data.train_labels.tolist(), data.validation_labels.tolist()) == (list(range(7)), [7, 8, 9])
    assert data.test_labels.tolist() == [0, 1, 2, 3]
    assert (data.side, data.transform) == (4, None)
    assert repr(data) == "ImageDataset('mnist', 4 × 4, 7 train, 3 validation, 4 test, binarization=None)"
    with pytest.raises(ValueError, match="unknown binarization 'grey'; choose None, 'static' or 'dynamic'"):
        pv.datasets.mnist("grey")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda content: content[:-30], "damaged or not the published file: its sha256 is"),
        (lambda content: content + b"\0", "damaged or not the published file"),
        (lambda content: b"", "damaged or not the published file"),
    ],
    ids=["truncated", "longer", "empty"],
)
def test_files_of_the_user_with_another_checksum_are_refused(tiny, tmp_path, how, message):
    path = tiny.folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(how(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        tiny.load()
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("; replace or remove it")
    assert path.exists()
    assert in_cache(tmp_path) == []


def test_images_and_labels_must_belong_together(tiny):
    _, *rest = tiny.files
    with pytest.raises(ValueError, match=r"labels hold shapes \(4, 4, 4\) and \(10,\), not"):
        replace(tiny, files=(rest[1], *rest)).load()
    with pytest.raises(ValueError, match="holds 10 images; 10 of them validate, and none is left"):
        tiny.load(num_validation=10)


CONTENT = idx(PIXELS)
BAD = {
    "torn gzip": (gzip.compress(CONTENT)[:-20], "is torn or no gzip file"),
    "damaged gzip": (gzip.compress(CONTENT)[:30] + b"\xff" * 20 + gzip.compress(CONTENT)[50:], "is torn or no gzip"),
    "wrong checksum in gzip": (gzip.compress(CONTENT)[:-8] + b"\0" * 8, "is torn or no gzip file"),
    "no gzip": (b"<html>not found</html>", "is torn or no gzip file"),
    "empty": (b"", "is no IDX file of unsigned bytes: it begins with nothing"),
    "another format": (gzip.compress(b"PK\3\4" + CONTENT), "it begins with 50 4b 03 04, not 00 00 08"),
    "other numbers": (gzip.compress(b"\0\0\x0d" + CONTENT[3:]), "it begins with 00 00 0d 03"),
    "no dimensions": (gzip.compress(b"\0\0\x08\0"), "is no IDX file"),
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


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        what, _, name = self.path.strip("/").partition("/")
        content = self.server.contents.get(name)
        if what == "nothing" or content is None:
            self.send_error(404)
            return
        content = b"<html>please log in</html>" if what == "another" else content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if what == "half" else content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """A mirror on this machine, with folders of right files, other files, halves, and none."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.contents = {}
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def remote(server, monkeypatch, tmp_path):
    """A published file that is nowhere but on the mirrors asked for."""
    monkeypatch.delenv("PYROVAE_DATA", raising=False)
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    content = gzip.compress(idx(CLASSES), mtime=0)
    server.contents["labels.gz"] = content

    def make(*mirrors):
        addresses = tuple(f"http://127.0.0.1:{server.server_port}/{mirror}/" for mirror in mirrors)
        return PublishedFile("mnist", "labels.gz", hashlib.sha256(content).hexdigest(), addresses)

    return make


@pytest.mark.parametrize("mirrors", [["right"], ["nothing", "right"], ["another", "half", "right"]])
def test_download(remote, tmp_path, mirrors, monkeypatch, capsys):
    path = locate(remote(*mirrors))
    assert read_idx(path).tolist() == list(range(10))
    assert in_cache(tmp_path) == ["labels.gz"]
    assert locate(remote("nothing")) == path  # no second time
    assert capsys.readouterr().err == ""


def test_a_damaged_file_in_the_cache_is_downloaded_again(remote, tmp_path):
    path = locate(remote("right"))
    path.write_bytes(b"damaged")
    assert read_idx(locate(remote("right"))).tolist() == list(range(10))
    path.write_bytes(b"damaged")
    with pytest.raises(FileNotFoundError, match="cannot be downloaded"):
        locate(remote("nothing"))
    assert in_cache(tmp_path) == []


def test_a_failed_download_is_one_line_and_leaves_nothing(remote, tmp_path):
    off_line = replace(remote(), mirrors=("http://127.0.0.1:9/",))
    with pytest.raises(FileNotFoundError, match=r"127.0.0.1:9/: ConnectionError\); go on line") as caught:
        locate(off_line)
    assert "\n" not in str(caught.value)
    assert "there is no file mnist/labels.gz: it is not in PYROVAE_DATA, which is not set" in str(caught.value)
    with pytest.raises(
        FileNotFoundError,
        match=r"nothing/: status 404; h.*/another/ has another file of that name; h.*/half/: ChunkedEncodingError",
    ):
        locate(remote("nothing", "another", "half"))
    assert in_cache(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(remote, tmp_path, monkeypatch):
    def interrupted(self, url, output_file, *_):
        with open(output_file, "wb") as file:
            file.write(b"half")
        assert len(in_cache(tmp_path)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        locate(remote("right"))
    assert in_cache(tmp_path) == []


def test_what_a_killed_process_left_is_removed(remote, tmp_path):
    folder = tmp_path / "cache" / "datasets" / "mnist"
    folder.mkdir(parents=True)
    for name, age in (("tmp-old", 7200), ("tmp-of-another-process", 1)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    locate(remote("right"))
    assert in_cache(tmp_path) == ["labels.gz", "tmp-of-another-process"]


def test_a_full_disk(remote, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))  # no file of this process may grow past 8 bytes
    try:
        with pytest.raises(OSError, match=r"cannot write labels.gz to the cache .*: File too large; name another"):
            locate(remote("right"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert in_cache(tmp_path) == []


def test_a_cache_that_cannot_be_written_to(remote, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"cannot write labels.gz to the cache .*; name another folder in PYROVAE_CACHE"):
        locate(remote("right"))
    assert (tmp_path / "cache").read_text() == "a file where the folder should be"
    (tmp_path / "cache").unlink()

    def read_only(*arguments, **options):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", read_only)
    with pytest.raises(OSError, match=r"labels.gz to the cache .*Read-only file system.*; name another folder"):
        locate(remote("right"))


@needs_data
def test_mnist_has_its_known_class_counts():
    data = pv.datasets.mnist()
    labels = torch.cat([data.train_labels, data.validation_labels])
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.test_labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert [len(x) for x in (data.train, data.validation, data.test)] == [50_000, 10_000, 10_000]
    # the mean and the deviation that everyone normalises MNIST with
    x = torch.cat([data.train, data.validation])
    assert (x.mean().item(), x.std().item()) == (pytest.approx(0.1307, abs=5e-5), pytest.approx(0.3081, abs=5e-5))
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]


@needs_data
def test_fashion_mnist_is_balanced():
    data = pv.datasets.fashion_mnist()
    assert torch.cat([data.train_labels, data.validation_labels]).bincount().tolist() == [6000] * 10
    assert data.test_labels.bincount().tolist() == [1000] * 10
    assert torch.cat([data.train, data.validation]).mean().item() == pytest.approx(0.2860, abs=5e-5)


def test_the_digits_are_split_once_and_for_all():
    grey = pv.datasets.split_digits()
    x, labels = pv.datasets.digits()
    assert [len(part) for part in (grey.train, grey.validation, grey.test)] == [1197, 300, 300]
    together = torch.cat([grey.train, grey.validation, grey.test])
    theirs = torch.cat([grey.train_labels, grey.validation_labels, grey.test_labels])
    assert sorted(map(tuple, torch.cat([together, theirs[:, None]], 1).tolist())) == sorted(
        map(tuple, torch.cat([x, labels[:, None]], 1).tolist())
    )
    assert torch.equal(grey.test, pv.datasets.split_digits().test)
    assert grey.side == 8


def test_binarizations():
    grey = pv.datasets.split_digits()
    static, again, dynamic = (pv.datasets.split_digits(b) for b in ("static", "static", "dynamic"))
    for part in ("train", "validation", "test"):
        drawn, probability = getattr(static, part), getattr(grey, part)
        assert torch.equal(drawn, getattr(again, part))
        assert set(drawn.unique().tolist()) == {0.0, 1.0}
        assert (drawn[probability == 0] == 0).all()
        assert (drawn[probability == 1] == 1).all()
        # 5 standard errors: a false alarm once in 1.7 million comparisons, and the seed is fixed
        excess = (drawn - probability).sum() / (probability * (1 - probability)).sum().sqrt()
        assert abs(excess) <= 5
    assert torch.equal(dynamic.train, grey.train)
    assert torch.equal(dynamic.validation, static.validation)
    assert torch.equal(dynamic.test, static.test)
    assert dynamic.transform is pv.datasets.binarize
    assert static.transform is None
    first, second = (pv.datasets.binarize(grey.train, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match=r"grey values must lie in \[0, 1\], not reach from 0 to 16; scale them"):
        pv.datasets.binarize(16 * grey.train, torch.Generator())


def test_image_sets_by_name():
    assert list(pv.datasets.IMAGES) == ["digits", "mnist", "fashion-mnist"]
    assert pv.datasets.IMAGES["digits"]("static").name == "digits"
