"""Parquet files: read, or refused."""

import datetime

import numpy as np
import pandas as pd
import pytest

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import AXIS, IDS, NUM, N, X, assert_read, message_of, numbers, written


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    values = numbers(6, 4)
    frame = pd.DataFrame(values, columns=["900", "901", "902", "903"]).assign(label=list("abcdef"))
    frame.to_parquet(tmp_path / "a.parquet")
    spectra = read_spectra(tmp_path / "a.parquet")
    assert spectra.x.tolist() == values.astype(np.float32).tolist()
    assert spectra.targets["label"].tolist() == list("abcdef")
    frame["901"] = ["1", "2", "high", "3", "4", "5"]
    frame.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet, row 3, column 2 \('901'\): 'high' is not a number"):
        read_spectra(tmp_path / "b.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for k in (10, len(whole) // 2, len(whole) - 10):
        assert "parquet" in message_of(written(tmp_path, whole[:k], "c.parquet"))


def test_an_index_is_a_column_of_a_parquet_file(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(X, columns=[f"{a:g}" for a in AXIS], index=IDS)
    for name, table, targets in (
        ("rows", frame, ["column 1"]),
        ("named rows", frame.rename_axis("id"), ["id"]),
        ("columns", pd.DataFrame(X.T, index=pd.Index(AXIS, name="nm"), columns=IDS), ["sample"]),
    ):
        table.to_parquet(tmp_path / f"{name}.parquet")
        assert_read(tmp_path / f"{name}.parquet", targets=targets)


@pytest.mark.parametrize(
    "column", [[datetime.date(2024, 1, 1 + i) for i in range(NUM)], [i % 2 > 0 for i in range(NUM)]]
)
def test_columns_that_are_no_text_and_no_numbers(column, tmp_path):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame(X, columns=[f"{a:g}" for a in AXIS]).assign(what=pd.Series(column))
    for kind in (table, table.assign(what=pd.to_datetime(table["what"])) if table["what"].dtype == object else table):
        kind.to_parquet(tmp_path / "a.parquet")
        found = read_spectra(tmp_path / "a.parquet")
        assert found.x.shape == X.shape
        assert list(found.targets) == ["what"]


@pytest.mark.parametrize(
    ("index", "target"),
    [
        (range(100, 100 + 3 * NUM, 3), "column 1"),
        (range(1, NUM + 1), "column 1"),
        (range(NUM)[::-1], "column 1"),
        (pd.RangeIndex(NUM, name="sample"), "sample"),
        (np.delete(np.arange(NUM + 2), [3, 7]), "column 1"),
    ],
)
def test_an_index_that_says_something_is_kept(index, target, tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(X, columns=[f"{a:g}" for a in AXIS], index=index)
    frame.to_parquet(tmp_path / "a.parquet")
    found = assert_read(tmp_path / "a.parquet", targets=[target])
    assert found.targets[target].tolist() == list(index)


def test_an_axis_in_the_index_is_kept(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(X.T, index=pd.RangeIndex(400, 400 + 2 * len(AXIS), 2, name="nm"), columns=IDS)
    frame.to_parquet(tmp_path / "a.parquet")
    assert_read(tmp_path / "a.parquet", axis=400 + 2 * np.arange(len(AXIS)), targets=["sample"])


def test_columns_of_two_levels(tmp_path):
    pytest.importorskip("pyarrow")
    levels = [("meta", "fat"), *(("nir", f"{a:g}") for a in AXIS)]
    frame = pd.DataFrame(np.c_[np.arange(NUM), X], columns=pd.MultiIndex.from_tuples(levels))
    frame.to_parquet(tmp_path / "a.parquet")
    assert_read(tmp_path / "a.parquet", targets=["('meta', 'fat')"])
    half = [("vis" if j < N / 2 else "nir", f"{a:g}") for j, a in enumerate(AXIS)]
    pd.DataFrame(X, columns=pd.MultiIndex.from_tuples(half)).to_parquet(tmp_path / "b.parquet")
    assert "b.parquet has 10 columns" in (message := message_of(tmp_path / "b.parquet"))
    prefixes = ("('vis', '", "('nir', '")
    assert f"channels={prefixes!r}" in message
    assert_read(tmp_path / "b.parquet", channels=prefixes)
