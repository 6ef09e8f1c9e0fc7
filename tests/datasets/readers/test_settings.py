"""The settings of reading: declared once, checked when made."""

import typing

import numpy as np
import pytest

from pyrovae.datasets import ReadingKeywords, ReadingSettings, read_spectra


def test_reading_settings_are_declared_once():
    assert typing.get_type_hints(ReadingSettings) == typing.get_type_hints(ReadingKeywords)
    assert ReadingSettings(channels=["a", "b"], axis=np.arange(2)) == ReadingSettings(("a", "b"), axis=(0.0, 1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": "diagonal"}, "samples must be 'rows', 'columns' or None, not 'diagonal'"),
        ({"missing": True}, "missing must be 'error' or 'mask', not True"),
        ({"decimal": "'"}, "decimal must be"),
        ({"delimiter": "||"}, "delimiter must be one character or None"),
        ({"encoding": "utf-9"}, "there is no encoding 'utf-9'"),
        ({"max_gib": 0}, "max_gib must be a positive number"),
        ({"chanels": "x"}, r"no setting 'chanels' \(did you mean 'channels'\?\)"),
    ],
)
def test_reading_settings_that_cannot_be(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_spectra(tmp_path / "a.csv", **settings)
