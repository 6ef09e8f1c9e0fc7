"""Rows that a model was trained on are recognised."""

import math

import numpy as np
import pytest
import torch

from pyrovae.datasets import TrainingRows
from pyrovae.errors import InputError


def test_rows_are_recognised(tmp_path):
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    x[3, 1], x[4, 2] = math.nan, 0.0
    rows = TrainingRows.of(x)
    rows.write(tmp_path)
    found = TrainingRows.read(tmp_path)
    assert np.array_equal(found.hashes, rows.hashes)
    again = x[:20].double()
    again[4, 2] = -0.0
    assert found.count_in(again) == 20
    new = x[:10].clone()
    new[:, 0] += 1e-3
    assert found.count_in(new) == 0
    assert found.count_in(torch.cat([new, x[5:7]])) == 2
    assert TrainingRows.read(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array"])
def test_a_damaged_file_is_one_line(tmp_path, content):
    (tmp_path / "training-rows.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"training-rows\.npy"):
        TrainingRows.read(tmp_path)
    np.save(tmp_path / "training-rows.npy", np.zeros((2, 2)))
    with pytest.raises(InputError, match="is damaged"):
        TrainingRows.read(tmp_path)
