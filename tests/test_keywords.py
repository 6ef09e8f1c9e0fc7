"""Functions that take the fields of settings as keywords."""

import inspect
from dataclasses import dataclass

import pytest

import pyrovae as pv
from pyrovae.keywords import accepts


@dataclass(frozen=True)
class Oven:
    degrees: int
    minutes: int = 30
    fan: bool = False


@accepts(Oven, omit=["fan"])
def bake(what, *, where="here", **settings):
    """Bake."""
    return what, where, settings


def test_the_fields_are_listed_and_checked():
    assert list(inspect.signature(bake).parameters) == ["what", "where", "degrees", "minutes"]
    assert inspect.signature(bake).parameters["minutes"].default == 30
    assert bake.__doc__ == "Bake."
    assert bake("bread", degrees=220) == ("bread", "here", {"degrees": 220})
    for keywords, message in (
        ({"degrees": 1, "minuets": 3}, r"^bake\(\) has no setting 'minuets' \(did you mean 'minutes'\?\)$"),
        ({"degrees": 1, "fan": True}, r"^bake\(\) has no setting 'fan'"),
        ({"minutes": 3}, r"^bake\(\) needs degrees=$"),
    ):
        with pytest.raises(pv.InputError, match=message) as caught:
            bake("bread", **keywords)
        assert isinstance(caught.value, TypeError)


def test_optional_fields_and_defaults_that_differ():
    @dataclass(frozen=True)
    class Grill:
        minutes: int = 5

    @accepts(Oven, Grill, optional=["degrees"])
    def cook(**settings):
        return settings

    assert cook() == {}
    assert inspect.signature(cook).parameters["minutes"].default is None
