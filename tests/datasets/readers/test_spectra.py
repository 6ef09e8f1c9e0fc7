"""Spectra from files of every kind: oriented, checked, with their axis, unit and targets."""

import gzip
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import as_text, numbers, written

SHARED = Path(os.environ.get("PYROVAE_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize(
    ("name", "shape", "ends", "targets"),
    [
        ("spectra/fruit_puree_mir.csv", (983, 235), (899.327, 1802.564), ["label"]),
        ("spectra/tecator.csv", (240, 100), (1, 100), ["principal_component_1", "protein"]),
        ("spectra/tablets_nir.csv", (655, 650), (600, 1898), ["split", "assay"]),
        ("karly_soil/soilmoisture_dataset.csv", (679, 125), (454, 950), ["index", "soil_temperature"]),
    ],
)
def test_published_files_as_they_are(name, shape, ends, targets):
    spectra = read_spectra(SHARED / name)
    frame = pd.read_csv(SHARED / name)
    assert spectra.x.shape == shape
    assert (spectra.axis[0].item(), spectra.axis[-1].item()) == ends
    assert [spectra.targets.columns[0], spectra.targets.columns[-1]] == [targets[0], targets[-1]]
    columns = [c for c in frame if c not in spectra.targets]
    np.testing.assert_array_equal(spectra.x.numpy(), frame[columns].to_numpy(np.float32))
    pd.testing.assert_frame_equal(spectra.targets, frame[list(spectra.targets)], check_dtype=False)


def test_samples_in_columns(tmp_path):
    values = numbers(5, 3)
    text = "\n".join(["wavenumber (cm-1);a;b;c", *(f"{900 - i};{a};{b};{c}" for i, (a, b, c) in enumerate(values))])
    spectra = _quietly(written(tmp_path, text))
    assert torch.equal(spectra.x, torch.tensor(values.T, dtype=torch.float32))
    assert (spectra.axis.tolist(), spectra.unit) == ([900, 899, 898, 897, 896], "cm⁻¹")
    assert spectra.targets["sample"].tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"row 4, column 1 \('wavenumber \(cm-1\)'\): the channel 899 is not in order"):
        read_spectra(written(tmp_path, text.replace("898;", "899;")))
    with pytest.raises(ValueError, match=r"row 3, column 2 \('a'\): the channel is constant"):
        read_spectra(written(tmp_path, text.replace(text.splitlines()[2], "899;1;1;1")))


def _quietly(path, **options):
    with pytest.warns(UserWarning, match="more channels"):
        return read_spectra(path, **options)


def test_missing_values_are_data_only_where_asked_for(tmp_path):
    path = written(tmp_path, "label,900,901,902\na,1,NA,3\nb,,5,6\nc,7,8,nan\nd,1,2,2\n")
    with pytest.raises(ValueError, match=r"row 2, column 3 \('901'\): the value is missing, one of 3; .*'mask'"):
        read_spectra(path)
    spectra = read_spectra(path, missing="mask")
    assert spectra.missing.tolist() == [
        [False, True, False], [True, False, False], [False, False, True], [False, False, False]
    ]  # fmt: skip
    model = pv.GenerativeModel(pv.nn.MLP(1, 8), pv.AR1GaussianLikelihood(8, 3), 1, missing=True)
    guide = pv.AmortizedGuide(pv.nn.ImputeMissing(pv.nn.MLP(3, 8)), pv.DiagonalPosterior(8, 1))
    assert math.isfinite(pv.fit(model, guide, spectra.x, pv.AnalyticELBO(), epochs=2, progress=False).batch_loss[-1])
    with pytest.raises(ValueError, match=r"row 2, column 2 \('900'\): every value of this spectrum is missing"):
        read_spectra(written(tmp_path, "label,900,901\na,,\nb,1,2\nc,2,3\n"), missing="mask")


def test_more_channels_than_samples_works_with_a_note(tmp_path):
    path = written(tmp_path, as_text(numbers(2, 3)))
    with pytest.warns(UserWarning, match=r"more channels \(3\) than samples \(2\)"):
        assert read_spectra(path).x.shape == (2, 3)


def test_decimal_commas_and_missing_values_in_targets(tmp_path):
    spectra = read_spectra(written(tmp_path, "fat;900;901;lot\n1,5;0,1;0,2;a\nNA;0,3;0,4;none\n2;0,5;0,7;b\n"))
    np.testing.assert_array_equal(spectra.targets["fat"], [1.5, np.nan, 2])
    assert spectra.targets["lot"].tolist() == ["a", "none", "b"]


def test_an_axis_in_the_first_column_is_not_rounded(tmp_path):
    text = "wavenumber,a,b,c\n" + "".join(f"{899.327 + i},{i},{i + 1},{i * i + 3}\n" for i in range(3))
    assert read_spectra(written(tmp_path, text)).axis.tolist() == [899.327 + i for i in range(3)]


def test_a_channel_that_was_never_observed(tmp_path):
    path = written(tmp_path, "900,901,902\n1,,2\n3,NA,5\n4,-,1\n")
    with pytest.raises(
        ValueError, match=r"column 2 \('901'\): the channel was never observed; pass drop_constant=True"
    ):
        read_spectra(path, missing="mask")
    assert read_spectra(path, missing="mask", drop_constant=True).axis.tolist() == [900, 902]


def test_an_axis_that_is_given_must_be_one(tmp_path):
    path = written(tmp_path, as_text(numbers(4, 3)))
    for axis in ([1, 3, 2], [1, 1, 2], [1, math.nan, 2]):
        with pytest.raises(ValueError, match=r"axis: position [23], .* is not in order, or is there twice"):
            read_spectra(path, axis=axis)


def test_damaged_anywhere_is_never_another_error(tmp_path):
    np.savez(tmp_path / "a.npz", x=numbers(9, 3), axis=np.arange(3))
    np.save(tmp_path / "a.npy", numbers(9, 3))
    written(tmp_path, gzip.compress(as_text(numbers(9, 3)).encode()), "a.csv.gz")
    rng, messages = np.random.default_rng(0), []
    for name in ("a.npz", "a.npy", "a.csv.gz"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(150):
            broken = bytearray(whole)
            for k in rng.integers(len(whole), size=rng.integers(1, 4)):
                broken[k] = rng.integers(256)
            path = written(tmp_path, bytes(broken[: rng.integers(1, len(whole) + 1)]), "broken-" + name)
            try:
                read_spectra(path)
            except ValueError as error:
                messages.append(str(error))
    assert len(messages) > 400  # a few changes are harmless
    assert all("\n" not in message and "broken-" in message for message in messages)


def test_channels_in_the_place_of_the_settings_warn(tmp_path):
    path = written(tmp_path, as_text(numbers(4, 4), "abs_1,abs_2,pc_1,pc_2", labels=False))
    for channels in ("pc_", ["pc_1", "pc_2"]):
        with pytest.warns(DeprecationWarning, match=r"is now read_spectra\(path, channels=…\)") as caught:
            old = read_spectra(path, channels, drop_constant=True)
        assert caught[0].filename == __file__
        assert torch.equal(old.x, read_spectra(path, channels="pc_").x)
