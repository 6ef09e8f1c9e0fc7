"""Image sets: from their files, split and binarised."""

import gzip
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import pyrovae as pv
from pyrovae.datasets._published import PublishedFile
from pyrovae.datasets.images import MNIST_FILES, published_images
from tests.datasets.idx_files import CLASSES, PIXELS, idx, in_cache

needs_data = pytest.mark.skipif(
    not os.environ.get("PYROVAE_DATA"), reason="the folder of the published files is not given by PYROVAE_DATA"
)


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
    with pytest.raises(ValueError, match="holds 10 images; 10 are for validation, and none is left"):
        tiny.load(num_validation=10)


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
    with pytest.raises(ValueError, match=r"grey values must be in \[0, 1\]; these go from 0 to 16: scale them"):
        pv.datasets.binarize(16 * grey.train, torch.Generator())


def test_image_sets_by_name():
    assert list(pv.datasets.IMAGES) == ["digits", "mnist", "fashion-mnist"]
    assert pv.datasets.IMAGES["digits"]("static").name == "digits"
