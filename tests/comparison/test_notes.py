"""Notes: each in a comparison where it is true, and none where it is not."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.comparison._data import PreparedData
from pyrovae.comparison._plan import ModelKey
from pyrovae.comparison.notes import (
    Note,
    NoteKind,
    notes_of_data,
    notes_of_dimensions,
    notes_of_networks,
    notes_of_split,
)
from pyrovae.comparison.recommendation import recommend
from pyrovae.datasets import Spectra, split_spectra
from pyrovae.evaluation import LogMarginal

SETTINGS = {"posteriors": ["full-covariance"], "estimators": ["analytic"], "hidden": (8,), "progress": False}


def data(num=400, n=6, d=2, noise=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(num, d, generator=g) @ torch.randn(d, n, generator=g) + noise * torch.randn(num, n, generator=g)


def notes(table):
    return {note["kind"]: note for note in table.attrs["recommendation"]["notes"]}


@pytest.fixture(scope="module")
def parts():
    return data().split([250, 100, 50])


@pytest.mark.parametrize(("rate", "kind"), [(1e-3, None), (1.0, NoteKind.TRAINING_HARMED)])
def test_training_that_only_does_harm(parts, rate, kind):
    """From the linear model of linear data, a rate of 1 leads away."""
    train, validation, test = parts
    how = {"likelihoods": ["gaussian"], "start": "linear", "epochs": 3, "learning_rate": rate}
    table = pv.compare(train, validation=validation, test=test, seeds=(0, 1), **how, **SETTINGS)
    found = notes(table)
    assert (NoteKind.TRAINING_HARMED in found) == (kind is not None)
    if kind is not None:
        assert table["best_epoch"].tolist() == [0, 0]
        assert found[kind]["names"] == ["full-covariance posterior, gaussian likelihood"]
        assert "help full-covariance posterior, gaussian likelihood: no" in found[kind]["text"]


def diverged(names, num_models):
    numbers = {"num_models": num_models, "rise": 1.0, "best_epoch": 2, "epochs": 3}
    return Note(NoteKind.VALIDATION_DIVERGED, names, numbers).text


def test_all_vaes_are_not_named_one_by_one():
    three = Note(NoteKind.TRAINING_HARMED, ("a", "b", "c"), {"num_models": 3})
    assert "did not help any of the 3 VAEs: no epoch" in three.text
    assert "loss of all 3 VAEs rose" in diverged(("a", "b", "c"), 3)
    assert "loss of 4 of the 6 VAEs rose" in diverged(("a", "b", "c", "d"), 6)
    assert "loss of a; b; c rose" in diverged(("a", "b", "c"), 6)
    assert "help a; b: no" in Note(three.kind, ("a", "b"), three.numbers).text


def test_a_validation_loss_that_diverges():
    """Eight training data and a free noise: the fit to them is soon far too close."""
    train, validation, test = data(48, n=10).split([8, 20, 20])
    how = {"likelihoods": ["gaussian-per-dimension"], "epochs": 300, "learning_rate": 2e-2, "batch_size": 8}
    how |= {"validate_every": 10}
    table = pv.compare(train, validation=validation, test=test, seeds=(0, 1), **how, **SETTINGS)
    note = notes(table)[NoteKind.VALIDATION_DIVERGED]
    assert note["numbers"]["rise"] == pytest.approx(table["validation_rise"].max())
    assert note["numbers"]["rise"] > 1
    assert note["numbers"]["best_epoch"] == table["best_epoch"].max() < 150


def test_a_latent_dimension_that_is_too_small(tmp_path):
    x = data(500, n=8, d=4, noise=0.1)
    train, validation, test = x.split([340, 100, 60])
    how = SETTINGS | {"likelihoods": ["gaussian"], "start": "linear", "epochs": 1, "learning_rate": 1e-4}
    how |= {"validation": validation, "test": test}
    table = pv.compare(train, latent_dims=(1,), out=tmp_path / "out", pictures=False, **how)
    assert NoteKind.LATENT_DIM_TOO_SMALL not in notes(table)  # of one seed nothing is said
    said = json.loads((tmp_path / "out" / "recommendation.json").read_text())
    assert said == table.attrs["recommendation"]
    kinds = {d: notes(pv.compare(train, latent_dims=(d,), seeds=(0, 1), **how)) for d in (1, 4)}
    note = kinds[1][NoteKind.LATENT_DIM_TOO_SMALL]
    linear = [pv.exact.LinearGaussianVAE.fit(train, d).log_prob(validation).mean().item() for d in (1, 2)]
    assert note["numbers"]["gain"] == pytest.approx(linear[1] - linear[0], abs=0.01)
    assert "Try --latent-dim 2" in note["text"]
    assert NoteKind.LATENT_DIM_TOO_SMALL not in kinds[4]


def test_a_linear_model_with_more_dimensions_that_is_better():
    train, validation, test = data(500, n=8, d=4, noise=0.1).split([300, 100, 100])
    baselines = pv.linear_baselines(train, test, 1, validation=validation, progress=False)
    known = {b.name: b.log_prob for b in baselines if b.log_prob is not None}
    own = LogMarginal.exact(pv.exact.LinearGaussianVAE.fit(train, 1).log_prob(test))
    advice = recommend({"vae": [own] * 2}, baselines=known)
    (note,) = notes_of_dimensions(None, advice, ModelKey("diagonal", "analytic", "gaussian", 1), baselines)
    assert note.numbers["more"] >= 4
    assert note.names[1] == "vae"


@pytest.mark.parametrize(("gain", "expected"), [(0.0, True), (3.0, False), (-3.0, False)])
def test_networks_that_gain_nothing(gain, expected):
    base = 30 * torch.randn(200, generator=torch.Generator().manual_seed(0)).double()
    own = base + gain + 0.5 * torch.randn(3, 200, generator=torch.Generator().manual_seed(1)).double()
    advice = recommend({"vae": own}, baselines={"factor analysis": base, "PPCA": base - 9})
    assert [note.names for note in notes_of_networks(advice)] == [("vae", "factor analysis")] * expected


@pytest.mark.parametrize("d", [1, 4])
def test_a_linear_winner_whose_dimension_is_too_small(d):
    """Four factors of channels with noise of their own: factor analysis wins, and validation data want four."""
    train, validation, test = (data(500, n=8, d=4, noise=0.1) * torch.logspace(-1, 1, 8)).split([300, 100, 100])
    baselines = [b for b in pv.linear_baselines(train, test, d, progress=False) if b.name == "factor analysis"]
    how = {"likelihoods": ["gaussian"], "start": "random", "epochs": 1, "latent_dims": (d,)}
    table = pv.compare(train, validation=validation, test=test, baselines=baselines, seeds=(0, 1), **how, **SETTINGS)
    assert table.attrs["recommendation"]["choice"] == "factor analysis"
    note = notes(table).get(NoteKind.LATENT_DIM_TOO_SMALL)
    assert (note is not None) == (d == 1)
    if note is not None:
        assert note["numbers"]["more"] == 2
        assert note["numbers"]["low"] > 0.1


def test_a_linear_winner_of_a_noise_that_no_vae_has():
    """As where a budget leaves some noises to linear models."""
    train, validation, test = data(500, n=8, d=4, noise=0.1).split([300, 100, 100])
    noise = {"ar1": pv.likelihoods.LIKELIHOODS["ar1"]}
    found = pv.linear_baselines(train, test, 1, noise, validation=validation, progress=False)
    how = {"likelihoods": ["gaussian"], "start": "random", "epochs": 1, "latent_dims": (1,), "validation": validation}
    baselines = [b for b in found if b.name == "linear, ar1"]
    table = pv.compare(train, test=test, baselines=baselines, seeds=(0, 1), **how, **SETTINGS)
    assert table.attrs["recommendation"]["choice"] == "linear, ar1"


@pytest.mark.parametrize("kind", ["copies", "sums", "none"])
def test_channels_that_follow_from_others(kind):
    """A density has no limit there: the Gaussian without components, which could take any, is no candidate."""
    x = data(300, n=8)
    x = {"copies": torch.cat([x, x[:, :2]], 1), "sums": x - x.mean(1, keepdim=True), "none": x}[kind]
    train, validation, test = x.split([200, 50, 50])
    (*_, last) = pv.linear_baselines(train, test, 2, validation=validation, progress=False)
    assert (last.name == "Gaussian, shrunk covariance") == (kind == "none")
    found = [note.numbers["num"] for note in notes_of_data(PreparedData("data", train, test))]
    assert found == {"copies": [2], "sums": [1], "none": []}[kind]


@pytest.mark.parametrize("num", [110, 400])
def test_smooth_channels_do_not_follow_from_others(num):
    """Their covariance has eigenvalues of every size, down to the rounding of their digits; a copy still counts."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.exp(-0.5 * ((torch.arange(100.0) - torch.linspace(-20, 120, 60)[:, None]) / 12) ** 2)
    x = 2.5 + torch.randn(num, 60, generator=generator) @ smooth
    x = (x.double() * 1e5).round() / 1e5
    values = torch.linalg.eigvalsh(x.T.cov())
    assert (values < 1e-12 * values[-1]).sum() > 5
    for extra in (0, 1):
        train = torch.cat([x, x[:, :extra]], 1)
        found = [n.numbers["num"] for n in notes_of_data(PreparedData("data", train, x)) if "follow" in n.kind]
        assert found == [] or extra
    if num == 400:
        assert found == [1]


def test_a_tie_with_a_linear_model_is_said():
    """Started as the linear model of linear data, and hardly trained, a VAE is that model."""
    train, validation, test = data().split([250, 100, 50])
    baselines = pv.linear_baselines(train, test, 2, validation=validation, progress=False)[1:2]
    how = {"likelihoods": ["gaussian"], "start": "linear", "epochs": 1, "learning_rate": 1e-6}
    table = pv.compare(train, validation=validation, test=test, baselines=baselines, seeds=(0, 1), **how, **SETTINGS)
    assert table.attrs["recommendation"]["choice"] == "probabilistic PCA"
    note = notes(table)[NoteKind.NO_GAIN_FROM_NETWORKS]
    assert note["names"][1] == "probabilistic PCA"
    assert note["numbers"]["gain"] == pytest.approx(0, abs=0.01)


def spectra(num, copies=1):
    x = torch.randn(num, 5, generator=torch.Generator().manual_seed(0)).repeat(copies, 1)
    return Spectra(x, torch.arange(5.0), "", pd.DataFrame({"sample": np.arange(num * copies) % num}), "")


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        (spectra(12), {NoteKind.ENOUGH_DATA}),
        (spectra(400), {NoteKind.RESOLUTION}),
        (spectra(200, 2), {NoteKind.COPIES, NoteKind.PROPOSED_GROUPS, NoteKind.RESOLUTION}),
    ],
)
def test_what_is_said_of_a_split(data, kinds):
    split = split_spectra(data)
    gains = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    x = gains[split.test.targets["sample"].to_numpy(copy=True)]
    scores = {"a": [LogMarginal.exact(torch.zeros(len(x)))] * 2, "b": [LogMarginal.exact(x)] * 2}
    advice = recommend(scores, groups=split.test_groups)
    found = notes_of_split(split, advice, len(split.validation))
    assert {note.kind for note in found} == kinds
    for note in found:
        assert note.text.endswith(".")
        json.dumps(note.to_dict(), allow_nan=False)
    (size,) = [note for note in found if note.kind in (NoteKind.ENOUGH_DATA, NoteKind.RESOLUTION)]
    if size.kind is NoteKind.ENOUGH_DATA:
        assert size.numbers["num"] == 134
    else:
        assert size.numbers["num_test"] == split.num_independent
        assert size.numbers["test"] == pytest.approx(2 * x.std().item() / math.sqrt(split.num_independent), rel=0.15)


def test_every_kind_has_its_text():
    names = "rise best_epoch epochs more latent_dim gain low high share num least num_test test num_validation"
    numbers = dict.fromkeys([*names.split(" "), "validation", "equal", "near", "allowed"], 1.5)
    for kind in NoteKind:
        about = ("groups",) if kind is NoteKind.GROUPS else ("one", "two")
        assert Note(kind, about, numbers).text.endswith(".")


def test_test_data_that_were_trained_on(parts):
    train, _, test = parts
    mixed = torch.cat([test, train[:30]])
    table = pv.compare(train, test=mixed, preprocessing="channel", epochs=1, **SETTINGS)
    note = notes(table)[NoteKind.SCORED_TRAINING_ROWS]
    assert note["numbers"] == {"num": 30, "num_test": 80}
    assert NoteKind.SCORED_TRAINING_ROWS not in notes(pv.compare(train, test=test, epochs=1, **SETTINGS))


def test_copies_of_a_tensor_stay_together_and_count_once():
    x = data(100).repeat(3, 1)
    x = x + 1e-4 * torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    table = pv.compare(x, epochs=1, seeds=(0, 1), **SETTINGS)
    assert NoteKind.COPIES in notes(table)
    assert table["num_test"][0] == 60
    assert table.attrs["recommendation"]["num_groups"] == 20
