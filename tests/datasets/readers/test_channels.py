"""Which columns are channels: found by their names, or named by the user."""

import numpy as np
import pytest

from pyrovae.datasets import ReadingSettings, read_spectra
from tests.datasets.readers.files import as_text, numbers, written


def test_channels_by_prefix_by_name_and_without_a_header(tmp_path):
    values = numbers(6, 4)
    header = "abs_1,abs_2,pc_1,pc_2"
    path = written(tmp_path, as_text(values, header, labels=False))
    with pytest.raises(ValueError, match=r"2 columns 'abs_' and as many 'pc_'; say which .* channels='abs_'"):
        read_spectra(path)
    assert read_spectra(path, channels="pc_").x.tolist() == values[:, 2:].astype(np.float32).tolist()
    assert read_spectra(path, channels=["abs_2", "pc_2"]).axis.tolist() == [0, 1]
    assert read_spectra(path, ReadingSettings(channels="abs_")).unit == "channel"
    bare = read_spectra(written(tmp_path, as_text(values, "", labels=False).lstrip(), "b.csv"))
    assert (bare.x.shape, bare.unit, bare.axis.tolist()) == ((6, 4), "channel", [0, 1, 2, 3])
    named = read_spectra(tmp_path / "b.csv", axis=[900, 910, 920, 930], unit="nm")
    assert (named.axis.tolist(), named.unit) == ([900, 910, 920, 930], "nm")
    with pytest.raises(ValueError, match=r"axis has 2 positions, and .* has 4 channels"):
        read_spectra(tmp_path / "b.csv", axis=[900, 910])
    with pytest.raises(ValueError, match=r"has no column 'x'; its columns are 'abs_1'"):
        read_spectra(path, channels=["x", "abs_1"])
    with pytest.raises(ValueError, match="no columns named 'q' and a number"):
        read_spectra(path, channels="q")
