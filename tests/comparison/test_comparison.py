"""Nothing is chosen by the test data: neither learning rates, nor epochs, nor linear models."""

import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.comparison._data import prepare
from pyrovae.comparison.compare import plan_of
from pyrovae.comparison.settings import ComparisonSettings

SETTINGS = {"posteriors": ["diagonal"], "estimators": ["analytic"], "hidden": (8,)}


@pytest.fixture(scope="module")
def parts():
    """Training and validation data of one kind, and test data for which any training only does harm."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(450, 2, generator=g) @ torch.randn(2, 6, generator=g) + 0.1 * torch.randn(450, 6, generator=g)
    return x[:250], x[250:], 0.01 * torch.randn(100, 6, generator=g)


def test_validation_chooses_the_learning_rate(parts, tmp_path):
    train, validation, test = parts
    rates = {"learning_rates": (1e-6, 1e-2), "validation": validation, "test": test, "epochs": 10}
    table = pv.compare(train, **SETTINGS, **rates, out=tmp_path / "out", pictures=False, progress=False)
    tried = pd.read_csv(tmp_path / "out" / "rates.csv").set_index("learning_rate")
    assert tried["test_neg_elbo"].idxmin() == 1e-6
    assert tried["validation_loss"].idxmin() == 1e-2
    assert table["learning_rate"].tolist() == [1e-2]


def test_validation_chooses_the_epoch(parts):
    train, validation, test = parts
    how = {"learning_rate": 1e-2, "epochs": 10, "progress": False}
    table = pv.compare(train, **SETTINGS, validation=validation, test=test, **how)
    assert table["best_epoch"].tolist() == [10]
    turned = pv.compare(train, **SETTINGS, validation=test, test=validation, **how)
    assert turned["best_epoch"][0] < 10  # what the test data would have chosen
    assert turned["validation_neg_elbo"][0] < table["test_neg_elbo"][0]


def test_the_validation_loss_is_of_the_validation_data(parts):
    train, validation, test = parts
    tables = [
        pv.compare(train, **SETTINGS, validation=validation, test=other, epochs=1, progress=False)
        for other in (test, 2 * test)
    ]
    assert tables[0]["validation_neg_elbo"][0] == tables[1]["validation_neg_elbo"][0]


def test_validation_shrinks_the_linear_model_that_training_starts_as(parts):
    train, validation, test = parts
    settings = ComparisonSettings(
        **SETTINGS, likelihoods=["full-covariance"], start="linear", training=pv.TrainingSettings(1)
    )
    plans = [plan_of(settings, prepare(train, x, validation, settings), progress=False) for x in (test, train)]
    found = [plan.linear["full-covariance", 2].marginal.covariance_matrix for plan in plans]
    torch.testing.assert_close(*found, rtol=0, atol=0)
