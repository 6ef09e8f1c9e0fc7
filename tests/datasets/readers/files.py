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
