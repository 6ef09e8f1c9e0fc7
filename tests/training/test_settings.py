"""The settings of a training run: declared once, checked when made, the keywords of ``fit``."""

import dataclasses
import inspect
import pydoc
import typing

import pytest
import torch

import pyrovae as pv
import pyrovae.training
from pyrovae.training import TrainingKeywords, TrainingSettings
from tests.pairs import make_pair


def test_the_keywords_that_a_checker_sees_are_the_fields():
    hints = typing.get_type_hints(TrainingSettings)
    keywords = typing.get_type_hints(TrainingKeywords)
    assert {field.name: hints[field.name] for field in dataclasses.fields(TrainingSettings)} == keywords
    without_default = {f.name for f in dataclasses.fields(TrainingSettings) if f.default is dataclasses.MISSING}
    assert TrainingKeywords.__required_keys__ == without_default


def test_fit_lists_every_setting():
    parameters = inspect.signature(pv.fit).parameters
    help_text = pydoc.render_doc(pv.fit, renderer=pydoc.plaintext)
    for field in dataclasses.fields(TrainingSettings):
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        assert parameters[field.name].default == default
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert field.name in help_text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epohcs": 3}, r"fit\(\) has no setting 'epohcs' \(did you mean 'epochs'\?\)"),
        ({"epochs": 1, "validaton": None}, r"fit\(\) has no setting 'validaton' \(did you mean 'validation'\?\)"),
        ({"epochs": 1, "zzzzz": 1}, r"fit\(\) has no setting 'zzzzz'$"),
    ],
)
def test_a_misspelt_setting_is_one_line_with_the_nearest_name(wrong, message):
    with pytest.raises(pv.InputError, match=message) as caught:
        pv.fit(*make_pair(), torch.zeros(4, 3), pv.AnalyticELBO(), **wrong)
    assert isinstance(caught.value, TypeError)
    assert "\n" not in str(caught.value)


def test_settings_do_not_change():
    settings = TrainingSettings(epochs=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.epochs = 2


def test_the_earlier_name_still_works():
    with pytest.warns(DeprecationWarning, match=r"pyrovae\.TrainingSettings"):
        earlier = pyrovae.training.Settings
    assert earlier(3, 16) == TrainingSettings(epochs=3, batch_size=16)
    with pytest.raises(AttributeError, match="has no attribute 'Setings'"):
        pyrovae.training.Setings  # noqa: B018
