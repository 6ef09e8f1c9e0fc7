"""Numpy's formats: read, never unpickled, or refused."""

import numpy as np
import pytest

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import NUM, X, message_of, numbers, written


def test_npy_and_npz(tmp_path):
    values = numbers(6, 4)
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "a.npz", spectra=values, wavelengths=np.arange(4) + 900, fat=np.arange(6))
    for name in ("a.npy", "a.npz"):
        assert read_spectra(tmp_path / name).x.tolist() == values.astype(np.float32).tolist()
    spectra = read_spectra(tmp_path / "a.npz")
    assert spectra.axis.tolist() == [900, 901, 902, 903]
    assert spectra.targets["fat"].tolist() == list(range(6))
    np.save(tmp_path / "b.npy", values.T)
    assert read_spectra(tmp_path / "b.npy", samples="columns").x.shape == (6, 4)


def test_bad_arrays(tmp_path):
    def saved(array, name="a.npy"):
        np.save(tmp_path / name, array, allow_pickle=True)
        return tmp_path / name

    assert "pickled objects" in message_of(saved(np.array([[1, {}], [2, 3]], dtype=object)))
    assert "one spectrum" in message_of(saved(np.arange(5.0)))
    assert "array (samples, channels)" in message_of(saved(np.zeros((2, 2, 2))))
    assert "complex" in message_of(saved(np.zeros((2, 2), dtype=complex)))
    assert "row 2, column 1: the value is missing" in message_of(saved(np.array([[1.0, 2.0], [np.nan, 3.0]])))
    assert "constant" in message_of(saved(np.ones((3, 2))))
    whole = saved(numbers(40, 5)).read_bytes()
    assert "damaged" in message_of(written(tmp_path, whole[:-9], "b.npy"))
    assert "not an array" in message_of(written(tmp_path, b"\x80\x04cos\nsystem\n", "c.npy"))
    np.savez(tmp_path / "a.npz", a=numbers(), b=numbers())
    assert "say which array" in message_of(tmp_path / "a.npz")
    assert read_spectra(tmp_path / "a.npz", channels="b").x.shape == (4, 3)
    np.savez(tmp_path / "p.npz", x=np.array([[1, {}]], dtype=object))
    assert "pickled objects" in message_of(tmp_path / "p.npz")
    np.savez_compressed(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(40, 5)))
    whole = bytearray((tmp_path / "d.npz").read_bytes())
    whole[400] ^= 255
    assert "damaged" in message_of(written(tmp_path, bytes(whole), "d.npz"))
    assert "damaged" in message_of(written(tmp_path, bytes(whole[:300]), "e.npz"))
    message_of(tmp_path / "nowhere.csv", FileNotFoundError)
    (tmp_path / "empty").mkdir()
    assert "is a folder without files" in message_of(tmp_path / "empty")


@pytest.mark.filterwarnings("ignore:.*more channels")
def test_a_vector_that_is_taken_for_the_axis_is_said(tmp_path):
    np.savez(tmp_path / "a.npz", X=X.T, time=0.5 * np.arange(NUM))
    found = read_spectra(tmp_path / "a.npz")
    assert "time as the axis, as it is in order (else --axis none)" in "\n".join(found.reading.lines(on_console=True))
    assert "so the samples are in its rows; if it is no axis, say axis='none'" in message_of(
        tmp_path / "a.npz", samples="columns"
    )
    found = read_spectra(tmp_path / "a.npz", samples="columns", axis="none")
    np.testing.assert_allclose(found.x, X, atol=1e-5)
    assert list(found.targets) == ["time"]


def test_options_of_columns_are_not_ignored_beside_other_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.c_[np.arange(NUM) % 3, X], y=np.arange(NUM), z=np.arange(5.0))
    for option in ("label", "drop"):
        assert f"all its columns are channels: leave out {option}" in message_of(tmp_path / "a.npz", **{option: "1"})
    found = read_spectra(tmp_path / "a.npz")
    assert "z (5,) left out" in "\n".join(found.reading.lines())
