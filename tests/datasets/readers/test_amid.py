"""A class or a property amid columns without names is a question, which names it."""

import numpy as np
import pytest

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import CLASS, NUM, N, X, message_of, text, written
from tests.datasets.readers.kinds import PROPERTY

YEARS = 2019 + CLASS
COUNTS = (X * 900).round()


def amid(folder, x, columns, names=None):
    """A table with columns before those of the spectra that are numbered from 0."""
    rows = [[*map(float, row)] for row in x]
    for at, column in sorted(columns.items(), reverse=True):
        rows = [[*row[:at], value, *row[at:]] for row, value in zip(rows, column, strict=True)]
    header = [] if names is None else [[names.format(j + 1) for j in range(len(rows[0]))]]
    return written(folder, text([*header, *rows]))


@pytest.mark.parametrize("x", [X, COUNTS, X - X.mean(1, keepdims=True)], ids=["smooth", "counts", "centred"])
@pytest.mark.parametrize("names", [None, "V{}", "x{}"])
@pytest.mark.parametrize(
    "column", [CLASS + 1, PROPERTY, PROPERTY * 40, YEARS], ids=["class", "property", "large", "year"]
)
@pytest.mark.parametrize("at", [2, 6, N - 2])
def test_a_label_amid_channels(x, names, column, at, tmp_path):
    path = amid(tmp_path, x, {at: column.tolist()}, names)
    message = message_of(path)
    assert f": column {at + 1} " in message
    assert f"is it a label or a channel? say label='{at + 1}' or label='none'" in message
    found = read_spectra(path, label=str(at + 1))
    np.testing.assert_allclose(found.x, x, rtol=1e-6)
    np.testing.assert_allclose(found.targets.iloc[:, 0], column)
    assert read_spectra(path, label="none").x.shape == (NUM, N + 1)


def test_a_class_amid_noise_has_fewer_digits(tmp_path):
    noise = np.random.default_rng(1).normal(size=(NUM, N)).round(3)
    for column, what in (
        (CLASS + 1, "holds whole numbers (1, 2, 3)"),
        (PROPERTY.round(1), "holds numbers of fewer digits"),
    ):
        assert f"column 7 {what}" in message_of(amid(tmp_path, noise, {6: column.tolist()}))


def test_a_property_amid_noise_has_another_level(tmp_path):
    noise = np.random.default_rng(1).normal(5, 1, size=(NUM, N)).round(3)
    message = message_of(amid(tmp_path, noise, {6: (PROPERTY * 80).round(3).tolist()}))
    assert "column 7 does not go with its neighbours" in message


def test_several_labels_are_named_together(tmp_path):
    path = amid(tmp_path, X, {6: PROPERTY.tolist(), 7: YEARS.tolist(), 12: CLASS.tolist()})
    assert "are they labels or channels? say label=('7', '9', '15')" in message_of(path)  # counted with those before
    path = amid(tmp_path, X, {0: (CLASS + 1).tolist(), 8: PROPERTY.tolist()})
    assert "say label=('1', '10') or label='1'" in message_of(path)  # the first is clear
    path = amid(tmp_path, X, {0: PROPERTY.tolist(), N: PROPERTY[::-1].tolist()})
    assert "say label=('1', '22') or label='none'" in message_of(path)


@pytest.mark.parametrize("seed", range(5))
def test_tables_without_labels(seed, tmp_path):
    rng = np.random.default_rng(seed)
    level = X.copy()
    level[:, N // 2 :] = (level[:, N // 2 :] * 1.7 + 0.2).round(4)
    tables = {
        "two detectors": level,
        "noise": rng.normal(size=(40, N)).round(3),
        "few levels": rng.integers(0, 3, (40, N)),
        "scales of their own": (rng.random((40, N)) * rng.uniform(1, 100, N)).round(3),
        **{f"channel {j} constant": np.where(np.arange(N) == j, 0.5, X) for j in range(5, N - 5)},
    }
    for name, x in tables.items():
        found = read_spectra(amid(tmp_path, x, {}), to_train=False)
        np.testing.assert_allclose(found.x, x, rtol=1e-6, err_msg=name)
