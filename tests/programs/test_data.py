"""Data of the programs: arrays in files."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.programs import as_data
from pyrovae.training.settings import sha256
from tests.training.runs import data, make_pair


def anonymous_bytes():
    """Memory of this process that is no page of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def test_a_mapped_file_is_trained_on_as_the_array_is(tmp_path):
    np.save(tmp_path / "x.npy", data(100).numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    losses = []
    for x in (np.array(mapped[20:]), mapped[20:], mapped[20:][::1], torch.from_numpy(np.array(mapped[20:]))):
        history = pv.fit(*make_pair(), x, pv.AnalyticELBO(), epochs=2, progress=False)
        losses.append(history.batch_loss)
    assert losses[1:] == losses[:1] * 3


def test_a_large_mapped_file_is_neither_copied_nor_written(tmp_path, monkeypatch):
    monkeypatch.setattr("pyrovae.blocks.LARGE", 2**24)
    pytest.importorskip("resource")
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc")
    pair = make_pair()
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float64, (2**21, 3)).flush()  # 48 MiB
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    as_data("data", mapped[:10], *pair)
    before = anonymous_bytes()
    x = as_data("data", mapped[5:], *pair)
    sha256(x)
    assert anonymous_bytes() - before < 24 * 2**20
    x[0] = 1.0
    assert mapped[5].tolist() == [0.0, 0.0, 0.0]


def test_a_file_that_was_replaced_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("pyrovae.blocks.LARGE", 1000)
    np.save(tmp_path / "x.npy", data(100).numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    (tmp_path / "x.npy").unlink()
    same_ends = data(100)
    same_ends[50] += 1.0
    for other in (None, data(100, seed=1), same_ends):
        if other is not None:
            np.save(tmp_path / "x.npy", other.numpy())
        assert torch.equal(as_data("data", mapped, *make_pair()), data(100))


@pytest.mark.parametrize("bad", [0, 70, 99])
def test_the_first_value_that_is_not_finite(bad):
    x = data(100)
    x[bad, 1] = np.inf
    with pytest.raises(ValueError, match=f"data holds 1 NaN or infinite values, the first at row {bad}, column 1"):
        as_data("data", x, *make_pair())
