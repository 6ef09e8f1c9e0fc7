"""Nothing is chosen by the test data: neither learning rates, nor epochs, nor linear models."""

import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.comparison._data import prepare
from pyrovae.comparison._linear import other_baselines
from pyrovae.comparison.compare import plan_of
from pyrovae.comparison.settings import ComparisonSettings

SETTINGS = {"posteriors": ["diagonal"], "estimators": ["analytic"], "hidden": (8,)}


@pytest.fixture(scope="module")
def parts():
    """Training and validation data of one kind, and test data for which any training only does harm."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(220, 2, generator=g) @ torch.randn(2, 6, generator=g) + 0.1 * torch.randn(220, 6, generator=g)
    return x[:180], x[180:], 0.01 * torch.randn(40, 6, generator=g)


def test_validation_chooses_the_learning_rate(parts, tmp_path):
    train, validation, test = parts
    rates = {"learning_rates": (1e-6, 1e-2), "validation": validation, "test": test, "epochs": 2}
    table = pv.compare(train, **SETTINGS, **rates, out=tmp_path / "out", pictures=False, progress=False)
    tried = pd.read_csv(tmp_path / "out" / "rates.csv").set_index("learning_rate")
    assert tried["validation_loss"].idxmin() == 1e-2
    assert tried["test_neg_elbo"].isna().to_dict() == {1e-6: True, 1e-2: False}
    assert table["learning_rate"].tolist() == [1e-2]
    turned = pv.compare(train, **SETTINGS, **rates | {"validation": test, "test": validation}, progress=False)
    assert turned["learning_rate"].tolist() == [1e-6]  # what the test data would have chosen


def test_validation_chooses_the_epoch(parts):
    train, validation, test = parts
    how = {"learning_rate": 1e-2, "epochs": 2, "progress": False}
    table = pv.compare(train, **SETTINGS, validation=validation, test=test, **how)
    assert table["best_epoch"].tolist() == [2]
    turned = pv.compare(train, **SETTINGS, validation=test, test=validation, **how)
    assert turned["best_epoch"][0] < 2  # what the test data would have chosen
    assert turned["validation_neg_elbo"][0] < table["test_neg_elbo"][0]


def test_the_validation_loss_is_of_the_validation_data(parts):
    train, validation, test = parts
    tables = [
        pv.compare(train, **SETTINGS, validation=validation, test=other, epochs=1, progress=False)
        for other in (test, 2 * test)
    ]
    assert tables[0]["validation_neg_elbo"][0] == tables[1]["validation_neg_elbo"][0]


def test_validation_shrinks_the_linear_model_that_training_starts_as():
    """Few data of a covariance like no simple one; validation data of another kind ask for the simple one."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(330, 8, generator=g) @ torch.randn(8, 8, generator=g)
    train, validation, other = x[:30], x[30:], torch.randn(300, 8, generator=g)
    settings = ComparisonSettings(
        **SETTINGS, likelihoods=["full-covariance"], start="linear", training=pv.TrainingSettings(1)
    )
    found = [
        plan_of(settings, prepare(train, seen, judge, settings), progress=False).linear["full-covariance", 2].marginal
        for seen, judge in ((other, validation), (validation, validation), (validation, other))
    ]
    torch.testing.assert_close(found[0].covariance_matrix, found[1].covariance_matrix, rtol=0, atol=0)
    assert not torch.allclose(found[1].covariance_matrix, found[2].covariance_matrix, rtol=1e-2)


def test_validation_chooses_the_latent_dimension(parts):
    train, validation, test = parts
    how = {"likelihoods": ["gaussian"], "latent_dims": "auto", "start": "random"}
    settings = ComparisonSettings(**SETTINGS, **how, training=pv.TrainingSettings(1))
    scattered = 200 * test  # in every direction, as a model with less noise cannot be
    plans = [
        plan_of(settings, prepare(train, seen, judge, settings), progress=False)
        for seen, judge in ((scattered, validation), (validation, scattered))
    ]
    assert [plan.settings.dims for plan in plans] == [(2,), (1,)]


def test_linear_models_that_there_is_no_time_for(parts):
    train, validation, test = parts
    settings = ComparisonSettings(**SETTINGS, likelihoods=["ar1"], training=pv.TrainingSettings(1))
    data, asked = prepare(train, test, validation, settings), []
    assert other_baselines(settings, data, None, False, lambda key, _: asked.append(key)) == []
    assert [*map(str, asked)] == ["linear, ar1", "probabilistic PCA, d by validation", "Gaussian, shrunk covariance"]
    found = other_baselines(settings, data, None, False, lambda key, fit: fit() if key == asked[1] else None)
    assert [baseline.key for baseline in found] == asked[1:2]


def test_validation_chooses_the_linear_candidates(parts):
    """Their components and the shrinkage: the same with other test data, others with other validation data."""
    train, validation, test = parts
    settings = ComparisonSettings(**SETTINGS, likelihoods=["ar1"], training=pv.TrainingSettings(1))
    notes = []
    for seen, judge in ((test, validation), (validation, validation), (validation, test)):
        found = other_baselines(settings, prepare(train[:30], seen, judge, settings), None, progress=False)
        notes.append([baseline.note for baseline in found])
    assert notes[0] == notes[1]
    assert all(one != other for one, other in zip(notes[1][1:], notes[2][1:], strict=True))
