"""Files of spectra for the tests of readers."""

import numpy as np
import pytest

from pyrovae.datasets import read_spectra


def numbers(num=4, n=3):
    return np.round(np.random.default_rng(0).normal(size=(num, n)), 4)


def written(folder, text, name="a.csv", encoding="utf-8"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return folder / name


def as_text(values, header="label,900,902.5,905", delimiter=",", decimal=".", labels=True):
    rows = [
        delimiter.join([f"s{i}"] * labels + [f"{v}".replace(".", decimal) for v in row]) for i, row in enumerate(values)
    ]
    return "\n".join([header, *rows]) + "\n"


def message_of(path, error=ValueError, **options):
    """The one line that reading a file is refused with."""
    with pytest.raises(error) as caught:
        read_spectra(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


NUM, N = 25, 20
AXIS = 1100.0 + 7.5 * np.arange(N)
_rng = np.random.default_rng(3)
_centre, _width = _rng.uniform(0.2, 0.8, NUM), _rng.uniform(0.1, 0.2, NUM)
X = 0.2 + np.exp(-0.5 * ((np.linspace(0, 1, N) - _centre[:, None]) / _width[:, None]) ** 2)
X = (X + 0.004 * _rng.standard_normal(X.shape)).round(4)
CLASS = _rng.permutation(np.arange(NUM) % 3)
IDS = [f"tablet {i}" for i in range(NUM)]


def text(rows, sep=",", end="\n", decimal="."):
    cells = [
        [str(cell).replace(".", decimal) if isinstance(cell, float) else str(cell) for cell in row] for row in rows
    ]
    return end.join(sep.join(row) for row in cells) + end


def rows_of(x=X, left=None, right=None):
    left, right = ([[] for _ in x] if edge is None else [[v] for v in edge] for edge in (left, right))
    return [[*a, *map(float, row), *b] for a, row, b in zip(left, x, right, strict=True)]


def columns_of(x=X):
    return [[float(a), *map(float, column)] for a, column in zip(AXIS, x.T, strict=True)]


def assert_read(path, axis=AXIS, targets=None, x=X, **options):
    found = read_spectra(path, **options)
    np.testing.assert_array_equal(found.x.numpy(), x.astype(np.float32))
    np.testing.assert_allclose(found.axis.numpy(), axis)
    if targets is not None:
        assert list(found.targets) == targets
    return found


def pairs_of():
    return [[c for v in column for c in (float(a), float(v))] for a, column in zip(AXIS, X.T, strict=True)]


def spectrum():
    return [[float(a), float(v)] for a, v in zip(AXIS, X[0], strict=True)]


def named(j, name):
    """A header with another name for a channel."""
    return [name if k == j else f"{a:g}" for k, a in enumerate(AXIS)]


def grouped(sign):
    """Rows of large numbers with a sign between thousands."""
    return [[i, *(f"{v * 9000:,.1f}".replace(",", sign) for v in row)] for i, row in zip(IDS, X, strict=True)]
