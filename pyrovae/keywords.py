"""Functions with the fields of a settings class as keywords: checked by name, and listed by ``help``."""

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import fields
from inspect import Parameter
from typing import ParamSpec, TypeVar

from pyrovae.errors import InputTypeError, did_you_mean

P = ParamSpec("P")
T = TypeVar("T")


def accepts(
    *settings: object, omit: Collection[str] = (), optional: Collection[str] = ()
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function's ``**keywords`` be the fields of these dataclasses, and nothing else.

    A keyword that is not a field is refused in one line that names the nearest. ``help`` and completion list the fields
    in place of the ``**keywords``; where classes differ in a field's default, it is listed as None. For a type checker
    the function annotates them, ``**keywords: Unpack[…]``.

    Args:
        *settings: the dataclasses, or instances of them, whose values are then the defaults.
        omit: fields that are not keywords.
        optional: fields without a default that need not be given: the function finds their values itself.
    """
    listed: dict[str, Parameter] = {}
    each = ((part, field) for part in settings for field in fields(part) if field.name not in omit)  # type: ignore[arg-type]
    for part, field in each:
        default = getattr(part, field.name, Parameter.empty)
        if field.name in listed and listed[field.name].default != default:
            default = None
        listed[field.name] = Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=field.type)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)
        named = {p.name: p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD}
        known = named | {name: p for name, p in listed.items() if name not in named}
        required = [
            name for name, p in known.items() if p.default is Parameter.empty and name not in (*named, *optional)
        ]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            for name in kwargs:
                if name not in known:
                    near = did_you_mean(name, known)
                    raise InputTypeError(f"{function.__name__}() has no setting {name!r}{near}")
            if missing := [name for name in required if name not in kwargs]:
                raise InputTypeError(f"{function.__name__}() needs {', '.join(f'{name}=' for name in missing)}")
            return function(*args, **kwargs)

        checked.__signature__ = signature.replace(parameters=list(known.values()))  # type: ignore[attr-defined]
        return checked

    return decorate
