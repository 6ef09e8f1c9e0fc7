"""The checks that several packages share: what they let pass, and what they say."""

import math
import sys
import unicodedata
from fractions import Fraction

import numpy as np
import pytest
import torch

from pyrovae.errors import (
    InputError,
    InputTypeError,
    MissingExtraError,
    check_choice,
    check_finite,
    check_integer,
    check_positive,
    did_you_mean,
    named_parts,
    one_line,
)


def test_kinds_of_errors():
    assert issubclass(InputError, ValueError)
    assert issubclass(InputTypeError, InputError)
    assert issubclass(InputTypeError, TypeError)
    assert issubclass(MissingExtraError, InputError)
    assert issubclass(MissingExtraError, ImportError)


@pytest.mark.parametrize(("value", "least"), [(1, 1), (0, 0), (7, 2)])
def test_integers(value, least):
    check_integer("num", value, least)


@pytest.mark.parametrize(
    ("value", "least", "what"),
    [
        (0, 1, "a positive integer"),
        (1.0, 1, "a positive integer"),
        (True, 1, "a positive integer"),
        ("3", 1, "a positive integer"),
        (1, 2, "an integer of at least 2"),
        (-1, 0, "an integer of at least 0"),
    ],
)
def test_no_integers(value, least, what):
    with pytest.raises(InputError, match=f"^num must be {what}, not {value!r}$"):
        check_integer("num", value, least)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), np.float64(2), np.int64(3), Fraction(1, 3)])
def test_positive_numbers(value):
    check_positive("scale", value)
    check_positive("scale", 0 * value, or_zero=True)


@pytest.mark.parametrize("value", [-1, math.inf, math.nan, "1", None, True, 1j])
def test_no_positive_numbers(value):
    with pytest.raises(InputError, match=r"^scale must be a positive number, not"):
        check_positive("scale", value)
    with pytest.raises(InputError, match=r"^scale must be a finite number ≥ 0, not"):
        check_positive("scale", value, or_zero=True)


def test_zero_is_positive_only_where_it_is_allowed():
    with pytest.raises(InputError, match=r"^scale must be a positive number, not 0$"):
        check_positive("scale", 0)


def test_finite_data():
    x = torch.zeros(3, 2)
    check_finite("x", x, 2)
    check_finite("x", x[:0], 2, least=0)
    with pytest.raises(InputError, match=r"not \(0, 2\)"):
        check_finite("x", x[:0], 2)
    for wrong in (x[0], x.unsqueeze(0), torch.zeros(2, 3)):
        with pytest.raises(InputError, match=r"^test must be finite data of shape \(num, 2\), not \("):
            check_finite("test", wrong, 2)
    x[1, 0], x[2, 1] = math.nan, math.inf
    with pytest.raises(InputError, match=r"\(num, 2\): row 1, column 0 \(counted from 0\) holds nan$"):
        check_finite("x", x, 2)


def test_texts_are_shown_without_control_characters():
    assert one_line("a µm, log p(x) − ELBO ± 中") == "a µm, log p(x) − ELBO ± 中"
    every = one_line("".join(map(chr, range(sys.maxunicode + 1))))
    assert not {unicodedata.category(c) for c in every} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    every.encode()  # surrogates, too
    assert one_line("\x1b[31m a\r\n\tb\x00\x9b2J\u2028c") == r"\x1b[31m a\r b\x00\x9b2J\u2028c"


def test_choices_name_the_nearest():
    check_choice("engine", "eager", ["eager", "compiled"])
    with pytest.raises(InputError, match=r"^unknown engine 'egaer' \(did you mean 'eager'\?\); choose one of eager"):
        check_choice("engine", "egaer", ["eager", "compiled"])
    with pytest.raises(InputError, match=r"^unknown engine 'x'; choose one of"):
        check_choice("engine", "x", ["eager", "compiled"])
    assert did_you_mean("zzz", ["eager"]) == ""


class Part:
    pass


def test_parts_by_name():
    part = Part()
    assert named_parts("parts", [part]) == {"Part": part}
    assert named_parts("parts", {"a": part, "b": Part}) == {"a": part, "b": Part}
    assert named_parts("parts", ["a", Part], {"a": part}) == {"a": part, "Part": Part}


@pytest.mark.parametrize(
    ("parts", "known", "error", "message"),
    [
        (Part, None, InputTypeError, r"the parts must be a sequence such as \[Part\], not one alone"),
        ("a", {"a": Part}, InputTypeError, "must be a sequence such as"),
        (["a"], None, InputTypeError, "the parts must be classes or instances, not the name 'a'"),
        (["b"], {"a": Part}, InputError, "unknown parts 'b'"),
        ([Part, Part], None, InputError, r"two of the parts are called alike \(Part, Part\); give a mapping"),
        ([], None, InputError, "give at least one of the parts"),
    ],
)
def test_no_parts(parts, known, error, message):
    with pytest.raises(error, match=message):
        named_parts("parts", parts, known)
