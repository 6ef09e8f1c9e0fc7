"""Errors that the user can fix, and the checks that raise them."""

import difflib
import math
import pkgutil
import re
import shlex
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """A setting that a message names: a keyword in Python, an option on the console.

    Attributes:
        name: name of the setting.
        value: a value for it, or a tuple of several; None if the user knows it.

    Example:
        >>> print(Option("missing", "mask"), Option("missing", "mask").on_console)
        missing='mask' --missing mask
        >>> print(Option("drop_constant", True), Option("drop_constant", True).on_console)
        drop_constant=True --drop-constant
        >>> print(Option("channels"), Option("channels").on_console)
        channels=… --channels …
    """

    name: str
    value: object = None

    def __str__(self) -> str:
        value = self.value[0] if isinstance(self.value, tuple) and len(self.value) == 1 else self.value
        return f"{self.name}={'…' if value is None else repr(value)}"

    @property
    def on_console(self) -> str:
        """The option as one types it."""
        option = f"--{self.name.replace('_', '-')}"
        if self.value is True:
            return option
        if self.value is None:
            return f"{option} …"
        values = self.value if isinstance(self.value, tuple | list) else [self.value]
        return " ".join([option, *(shlex.quote(str(value)) for value in values)])


class Message(Exception):  # noqa: N818
    """A text in parts, some of which are settings.

    Args:
        *parts: texts and :class:`Option`.
    """

    def __init__(self, *parts: object) -> None:
        super().__init__("".join(map(str, parts)))
        self.parts = parts

    @property
    def on_console(self) -> str:
        """The text with options in the console's spelling."""
        return "".join(part.on_console if isinstance(part, Option) else str(part) for part in self.parts)


class InputError(Message, ValueError):
    """An error that the user can fix: the message says what, where and how, in one line."""


class InputWarning(Message, UserWarning):
    """Something that the user should know about the input; it names settings as an :class:`InputError` does."""


class InputTypeError(InputError, TypeError):
    """An argument of the wrong type."""


class LostProcessError(InputError):
    """Another process of the training has ended."""


class MissingExtraError(InputError, ImportError):
    """A package of an optional extra is not installed; the message names the extra."""


def moved(module: str, places: Mapping[str, str]) -> Callable[[str], object]:
    """A module's ``__getattr__`` for names that are elsewhere now, which warns of it.

    Args:
        module: the module's name.
        places: the full name that each has now.
    """

    def get(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {places[name]}", DeprecationWarning, stacklevel=2)
        return pkgutil.resolve_name(places[name])

    return get


@contextmanager
def needing_extra(message: str) -> Iterator[None]:
    """Raise a MissingExtraError with this message where an import inside of the block fails."""
    try:
        yield
    except ImportError:
        raise MissingExtraError(message) from None


@contextmanager
def reading(file: object, kind: str | None = None) -> Iterator[None]:
    """Raise an InputError for whatever a library raises in the block: the file is not of its kind, or is damaged.

    Libraries raise many kinds of exceptions for a damaged file. A lack of memory stays what it is.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        what = f"is not {kind}, or is damaged" if kind else "is damaged"
        raise InputError(f"{file} {what}: {one_line(error, 200)}") from None


def check_integer(name: str, value: object, least: int = 1) -> None:
    """Raise an InputError unless the value is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        what = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise InputError(f"{name} must be {what}, not {value!r}")


def check_level(level: object) -> None:
    """Raise an InputError unless the level of an interval is a number between 0 and 1."""
    if not isinstance(level, float) or not 0 < level < 1:
        raise InputError(f"level must be a number between 0 and 1, such as 0.9, not {level!r}")


def check_positive(name: str, value: object, *, or_zero: bool = False) -> None:
    """Raise an InputError unless the value is a finite number above 0, or 0 where that is allowed."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not 0 <= number < math.inf or (number == 0 and not or_zero):
        what = "a finite number ≥ 0" if or_zero else "a positive number"
        raise InputError(f"{name} must be {what}, not {value!r}")


def check_finite(name: str, x: "Tensor", num_features: int, *, least: int = 1) -> None:
    """Raise an InputError unless x holds finite data of shape (num, num_features), num ≥ least."""
    _check_values(name, x, num_features, least, x.isfinite())


def check_observed(name: str, x: "Tensor", num_features: int) -> None:
    """Raise an InputError unless x holds data of shape (num, num_features), finite or NaN, with a value at least."""
    _check_values(name, x, num_features, 1, x.isfinite() | (x.isnan() & ~x.isnan().all()))


def _check_values(name: str, x: "Tensor", num_features: int, least: int, valid: "Tensor") -> None:
    must = f"{name} must be finite data of shape (num, {num_features})"
    if x.dim() != 2 or x.shape[1] != num_features or len(x) < least:
        raise InputError(f"{must}, not {tuple(x.shape)}")
    if not valid.all():
        row, column = (~valid).nonzero()[0].tolist()
        raise InputError(f"{must}: row {row}, column {column} (counted from 0) holds {x[row, column].item()}")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise an InputError unless the value is one of the choices; the message names the nearest."""
    if value not in choices:
        listed = ("; " if any("," in choice for choice in choices) else ", ").join(choices)
        raise InputError(f"unknown {name} {value!r}{did_you_mean(value, choices)}; choose one of {listed}")


def did_you_mean(value: object, choices: Collection[str]) -> str:
    """``" (did you mean 'x'?)"`` for the choice nearest to a value; empty where none is near."""
    near = difflib.get_close_matches(str(value), choices, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def named_parts(
    kind: str, parts: Mapping[str, T] | Sequence[str | T], known: Mapping[str, T] | None = None
) -> dict[str, T]:
    """Parts by name: parts without a name get that of their class, and a name stands for the part ``known`` by it.

    Raises:
        InputTypeError: a part that is not in a sequence, or names where none are known.
        InputError: none, an unknown name, or two of one name.
    """
    if callable(parts) or isinstance(parts, str):
        name = getattr(parts, "__name__", repr(parts))
        raise InputTypeError(f"the {kind} must be a sequence such as [{name}], not one alone")
    if not isinstance(parts, Mapping | Sequence):
        raise InputTypeError(f"the {kind} must be a sequence or a mapping, not {parts!r}")
    if isinstance(parts, Mapping):
        parts = {name: _named(kind, part, known)[1] for name, part in parts.items()}
    else:
        named = [_named(kind, part, known) for part in parts]
        parts = dict(named)
        if len(parts) < len(named):
            names = ", ".join(name for name, _ in named)
            raise InputError(f"two of the {kind} are called alike ({names}); give a mapping with names")
    if not parts:
        raise InputError(f"give at least one of the {kind}")
    return dict(parts)


def _named(kind: str, part: str | T, known: Mapping[str, T] | None) -> tuple[str, T]:
    """A part and its name."""
    if not isinstance(part, str):
        return getattr(part, "__name__", type(part).__name__), part
    if known is None:
        raise InputTypeError(f"the {kind} must be classes or instances, not the name {part!r}")
    check_choice(kind, part, known)
    return part, known[part]


def one_line(error: object, most: int | None = None) -> str:
    """An error's text in one line, of its first ``most`` characters."""
    return " ".join(visible(str(error)).split())[:most]


def visible(text: str) -> str:
    r"""A text in which characters that control a terminal or the writing direction are replaced by their codes.

    Example:
        >>> print(visible(chr(27) + "[31m"))
        \x1b[31m
    """
    if text.isprintable():
        return text
    steering = {c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")}
    return text.translate({ord(c): c.encode("unicode_escape").decode() for c in steering})


def out_of_memory(error: BaseException) -> str | None:
    """The message for a lack of memory; None for any other error."""
    text = one_line(error)
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"out of memory: {text or 'no memory is left'}"
    if isinstance(error, RuntimeError) and re.search(r"(can't|cannot) allocate memory|not enough memory", text.lower()):
        return f"out of memory: {text}"
    return None
