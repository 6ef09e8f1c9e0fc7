"""Files larger than memory, with a limit that makes small files large: the commands give the same results."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae import blocks
from pyrovae.commands.main import main
from pyrovae.comparison.compare_file import compare_file
from pyrovae.comparison.settings import ModelSettings
from pyrovae.comparison.study import COMPARED_BY_DEFAULT, Project, Study
from pyrovae.datasets import read_data, split_spectra
from pyrovae.errors import InputError
from pyrovae.training import TrainingSettings


def spectra(num=300, n=6, seed=0):
    random = np.random.default_rng(seed)
    z = random.normal(size=(num, 2))
    return (np.tanh(z) @ random.normal(size=(2, n)) + 0.2 * random.normal(size=(num, n))).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "spectra.npy", spectra())
    return tmp_path / "spectra.npy"


@pytest.fixture
def limit(monkeypatch):
    """A function that makes files of more than 2,000 bytes large."""
    return lambda: monkeypatch.setattr(blocks, "LARGE", 2000)


def run(capsys, *words):
    capsys.readouterr()
    main([*map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_large_array_stays_in_its_file(path, limit):
    whole = read_data(path)
    limit()
    found = read_data(path)
    assert blocks.is_mapped(found.x)
    assert not blocks.is_mapped(whole.x)
    assert torch.equal(found.x, whole.x)
    assert found.reading.line == whole.reading.line
    for a, b in zip(split_spectra(found).parts, split_spectra(whole).parts, strict=True):
        assert torch.equal(a.x, b.x)
    assert blocks.is_mapped(split_spectra(found).train.x)
    assert torch.equal(found.at(torch.tensor([3, 1])).x, whole.x[:, [3, 1]])


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [((250, 3), np.inf, "row 251, column 4: the value is infinite"), ((280, 5), np.nan, "row 281, column 6: the value"),
     ((299, 0), -9999.0, "row 300, column 1: -9999 is far from")],
)  # fmt: skip
def test_bad_values_of_a_large_array_are_found(tmp_path, limit, place, value, said):
    x = spectra()
    x[place] = value
    np.save(tmp_path / "x.npy", x)
    limit()
    with pytest.raises(InputError, match=said):
        read_data(tmp_path / "x.npy")


def test_constant_channels_of_a_large_array(tmp_path, limit):
    x = spectra()
    x[:, 2] = 4.0
    np.save(tmp_path / "x.npy", x)
    limit()
    with pytest.raises(InputError, match="column 3: the channel is constant"):
        read_data(tmp_path / "x.npy")
    found = read_data(tmp_path / "x.npy", drop_constant=True)
    assert blocks.is_mapped(found.x)
    assert torch.equal(found.x, torch.from_numpy(np.delete(x, 2, axis=1)))


def test_columns_apart_and_axis_of_a_large_array(tmp_path, limit):
    x = np.concatenate([np.arange(300)[:, None], spectra().astype(float)], axis=1)
    np.save(tmp_path / "x.npy", x)
    whole = read_data(tmp_path / "x.npy", label="1", drop="7", drop_rows=("3", "200"))
    limit()
    found = read_data(tmp_path / "x.npy", label="1", drop="7", drop_rows=("3", "200"))
    assert blocks.is_mapped(found.x)
    assert found.x.shape == (298, 5)
    assert torch.equal(found.x, whole.x)
    pd.testing.assert_frame_equal(found.targets, whole.targets)


def test_samples_in_columns_are_read_into_memory_or_refused(tmp_path, limit):
    np.save(tmp_path / "x.npy", np.ascontiguousarray(spectra().T))
    limit()
    found = read_data(tmp_path / "x.npy", samples="columns")
    assert torch.equal(found.x, torch.from_numpy(spectra()))
    with pytest.raises(InputError, match="of memory, more than max_gib"):
        read_data(tmp_path / "x.npy", samples="columns", max_gib=1e-6)


def test_a_folder_of_tables_goes_to_a_file(tmp_path, limit):
    for k, part in enumerate(np.split(spectra(), 3)):
        pd.DataFrame(part, columns=[f"{w} nm" for w in range(400, 460, 10)]).to_csv(tmp_path / f"{k}.csv", index=False)
    whole = read_data(tmp_path)
    limit()
    found = read_data(tmp_path)
    assert blocks.is_mapped(found.x)
    assert torch.equal(found.x, whole.x)
    pd.testing.assert_frame_equal(found.targets, whole.targets)


def test_training_on_a_large_file_and_scoring_it(path, limit, tmp_path, capsys):
    options = ["--epochs", "4", "--hidden", "8", "--batch-size", "64", "--latent-dim", "2", "--max-test", "30"]
    whole = run(capsys, "fit", path, "--out", tmp_path / "a", *options)
    scored = run(capsys, "evaluate", tmp_path / "a", path, "--out", tmp_path / "a.csv")
    limit()
    found = run(capsys, "fit", path, "--out", tmp_path / "b", *options)
    assert found["num_test"] == whole["num_test"] == 30
    assert found["test_neg_elbo"] == pytest.approx(whole["test_neg_elbo"], abs=0.05)
    assert found["test_log_marginal"] == pytest.approx(whole["test_log_marginal"], abs=0.05)
    in_parts = run(capsys, "evaluate", tmp_path / "a", path, "--out", tmp_path / "b.csv")
    a, b = (pd.read_csv(tmp_path / f"{name}.csv") for name in "ab")
    assert b["row"].tolist() == list(range(300))
    assert np.allclose(a["log_prob"], b["log_prob"], atol=0.05)
    assert in_parts["num_trained_on"] == scored["num_trained_on"] == 210


def test_a_command_that_needs_memory_is_refused(path, limit, tmp_path, capsys):
    run(capsys, "fit", path, "--out", tmp_path / "a", "--epochs", "1", "--max-test", "5")
    limit()
    run(capsys, "encode", tmp_path / "a", path)
    with pytest.raises(SystemExit, match="2"):
        main(["encode", str(tmp_path / "a"), str(path), "--max-gib", "0.000001"])
    assert "--max-gib" in capsys.readouterr().err


def test_a_study_of_a_large_file(path, limit, tmp_path):
    settings = replace(
        COMPARED_BY_DEFAULT, posteriors=("diagonal",), likelihoods=("gaussian", "ar1"), seeds=(0, 2), hidden=(8,),
        log_marginal_samples=50,
    )  # fmt: skip
    study = Study(data=path, settings=settings, epochs=2, gap_data=0)
    whole = compare_file(study, tmp_path / "a", progress=False)
    limit()
    found = compare_file(study, tmp_path / "b", progress=False)
    assert blocks.is_mapped(found.plan.data.train)
    assert np.allclose(found.table["log_prob"], whole.table["log_prob"], atol=0.02)
    assert found.recommendation.choice == whole.recommendation.choice
    assert [note.kind for note in found.notes] == [note.kind for note in whole.notes]
    from pyrovae.comparison.report import write_report

    assert write_report(found, tmp_path / "b").exists()


def test_compare_holds_out_some_of_a_large_array(limit, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", spectra())
    settings = {"posteriors": ["diagonal"], "estimators": ["analytic"], "epochs": 1, "hidden": (8,), "progress": False}
    settings |= {"log_marginal_samples": 20, "seeds": [0, 1]}
    limit()
    monkeypatch.setattr("pyrovae.comparison._data.MOST_TEST", 20)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    table = pv.compare(x, **settings)
    assert table["num_test"].tolist() == [20, 20]
    assert table["num_train"].tolist() == [280, 280]
    assert np.isfinite(table["test_log_marginal"]).all()
    for options in ({"workers": 2}, {"scheduler": "tcp://127.0.0.1:1"}):
        with pytest.raises(InputError, match="too large to be sent to other processes"):
            pv.compare(x, **settings, **options)


def test_near_copies_of_a_large_array_stay_together(limit, tmp_path):
    x = spectra(60)
    np.save(tmp_path / "x.npy", np.concatenate([x, x[:30], x[:10] + 1e-4]))
    limit()
    mapped = read_data(tmp_path / "x.npy")
    labels = pv.datasets.find_copies(mapped.x)
    assert blocks.is_mapped(mapped.x)
    assert (labels[:30] == labels[60:90]).all()
    assert (labels[:10] == labels[90:]).all()
    assert len(set(labels.tolist())) == 60


def test_linear_models_of_a_large_file_with_gaps_are_refused_beyond_memory(limit, tmp_path, monkeypatch):
    x = spectra()
    x[5, 2] = np.nan
    np.save(tmp_path / "x.npy", x)
    limit()
    monkeypatch.setattr("pyrovae.linear_gaussian._moments._MOST_BYTES", 100)
    with pytest.raises(InputError, match="need complete data"):
        pv.exact.LinearGaussianVAE.fit(np.load(tmp_path / "x.npy", mmap_mode="r"), 2)


def test_projects_cap_their_test_data():
    with pytest.raises(InputError, match="max_test"):
        Project(data=None, max_test=1, model=ModelSettings(), training=TrainingSettings(epochs=1))
