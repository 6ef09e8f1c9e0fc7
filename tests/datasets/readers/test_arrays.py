"""Numpy's formats: read, never unpickled, or refused."""

import numpy as np
import pytest
import scipy.io

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import AXIS, NUM, N, X, message_of, numbers, written


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


@pytest.mark.parametrize("turned", [False, True])
def test_a_square_array_beside_an_axis_is_read_by_its_values(turned, tmp_path):
    x = X[:N]
    np.savez(tmp_path / "a.npz", X=x.T if turned else x, wavelength=AXIS, y=np.arange(N) % 3)
    found = read_spectra(tmp_path / "a.npz")
    np.testing.assert_allclose(found.x, x, atol=1e-6)
    assert ("samples in columns" in "\n".join(found.reading.lines())) == turned
    for samples, values in (("rows", x.T if turned else x), ("columns", x if turned else x.T)):
        np.testing.assert_allclose(read_spectra(tmp_path / "a.npz", samples=samples).x, values, atol=1e-6)
    scipy.io.savemat(tmp_path / "b.mat", {"X": np.random.default_rng(1).normal(size=(N, N)), "wavelength": AXIS})
    assert "is square" in (message := message_of(tmp_path / "b.mat"))
    assert "samples='rows' or samples='columns'" in message


@pytest.mark.parametrize("other", ["X_raw", "X_snv"])
def test_which_of_two_arrays_was_taken_is_said(other, tmp_path):
    arrays = {other: 2 * X, "X": X}
    np.savez(tmp_path / "a.npz", **arrays)
    scipy.io.savemat(tmp_path / "a.mat", arrays)
    for name in ("a.npz", "a.mat"):
        found = read_spectra(tmp_path / name)
        np.testing.assert_allclose(found.x, X, atol=1e-6)
        said = f"X as the spectra, and {other} {X.shape} left out, as its name says so (else table={other!r})"
        assert said in "\n".join(found.reading.lines())
        other_one = read_spectra(tmp_path / name, table=other)
        np.testing.assert_allclose(other_one.x, 2 * X, atol=1e-6)
        assert "left out" not in "\n".join(other_one.reading.lines())


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_a_cube_with_positions_is_no_set_of_images(axes, tmp_path):
    cube = X.reshape(5, NUM // 5, N).transpose(axes)
    np.savez(tmp_path / "a.npz", cube=cube, wavelengths=AXIS)
    assert f"is a cube of shape {cube.shape} with positions in wavelengths" in message_of(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", cube=cube)
    assert read_spectra(tmp_path / "a.npz").unit == "pixel"


def test_arrays_among_which_a_name_decides(tmp_path):
    np.savez(tmp_path / "a.npz", raw=X, snv=X - X.mean())
    assert "with table='raw'" in message_of(tmp_path / "a.npz")
    np.testing.assert_allclose(read_spectra(tmp_path / "a.npz", table="raw").x, X, rtol=1e-6)
    np.savez(tmp_path / "a.npz", names=np.array(["a", "b"]))
    message = message_of(tmp_path / "a.npz")
    assert "no array (samples, channels) of numbers" in message
    assert "table=" not in message
    np.savez(tmp_path / "a.npz", X=X, wavelengths=AXIS.astype(str))
    assert "as numbers, not <U32 of shape (20,)" in message_of(tmp_path / "a.npz")
    assert read_spectra(tmp_path / "a.npz", axis="none").x.shape == X.shape


def test_an_axis_that_is_there_twice(tmp_path):
    """As pandas writes a table to HDF5."""
    np.savez(tmp_path / "a.npz", X=X, axis0=AXIS, block0_items=AXIS)
    assert read_spectra(tmp_path / "a.npz").axis.tolist() == AXIS.tolist()
    np.savez(tmp_path / "a.npz", X=X, axis0=AXIS, block0_items=AXIS + 1)
    assert read_spectra(tmp_path / "a.npz").unit == "channel"


def test_constant_channels_alone(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((9, 4)))
    for options in ({}, {"drop_constant": True}):
        message = message_of(tmp_path / "a.npy", samples="rows", **options)
        assert "every channel is constant" in message
        assert "drop_constant" not in message
