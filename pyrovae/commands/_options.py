"""Options of a subcommand, made from the settings classes: each has its field's name, help and default."""

import ast
import functools
import inspect
import operator
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

T = TypeVar("T")

_SCALARS = (bool, int, float, str, Path)


def with_options(*settings: object, omit: Collection[str] = ()) -> Callable[[type[T]], type[T]]:
    """Give a subcommand's dataclass an option for each field of settings, with the settings' values as defaults.

    Leaves out fields that a command line cannot give, such as functions, and fields that the subcommand already has.

    Args:
        *settings: frozen dataclasses with the defaults.
        omit: fields to leave out.
    """

    def decorate(command: type[T]) -> type[T]:
        taken = {f.name for f in fields(command)} | set(omit)  # type: ignore[arg-type]
        added: list[tuple[str, object, object]] = []
        for part in settings:
            hints, words = get_type_hints(type(part)), documentation(type(part))
            for f in fields(part):  # type: ignore[arg-type]
                kind = console_type(hints[f.name])
                if f.name in taken or kind is None:
                    continue
                taken.add(f.name)
                value = getattr(part, f.name)
                if isinstance(value, Mapping):
                    value = tuple(value)  # parts are given by name
                added.append((f.name, Annotated[kind, tyro.conf.arg(help=words[f.name])], field(default=value)))
        made = make_dataclass(command.__name__, added, bases=(command,), kw_only=True)
        made.__doc__, made.__module__ = command.__doc__, command.__module__
        return made

    return decorate


def chosen(command: object, defaults: T, **others: object) -> T:
    """The settings that a subcommand's options describe; the defaults for the rest."""
    names = [f.name for f in fields(defaults) if hasattr(command, f.name)]  # type: ignore[arg-type]
    values = {**vars(defaults), **{name: getattr(command, name) for name in names}, **others}
    return type(defaults)(**values)


def console_type(hint: object) -> object | None:
    """The part of a type that a command line can give, such as numbers, texts and paths; None if there is none.

    Of several parts it is the first, together with the literal words of the union.

    Example:
        >>> console_type(float | Callable[[float], float])
        <class 'float'>
        >>> console_type(tuple[str, ...] | None)
        tuple[str, ...] | None
        >>> console_type(Callable[[float], float] | None) is None
        True
    """
    if get_origin(hint) in (types.UnionType, typing.Union):
        kinds = [kind for kind in map(console_type, get_args(hint)) if kind is not None]
        kinds = kinds[:1] + [kind for kind in kinds[1:] if get_origin(kind) is Literal]
        kinds += [None] if kinds and type(None) in get_args(hint) else []
        return functools.reduce(operator.or_, kinds) if kinds else None
    if get_origin(hint) in (tuple, Literal):
        return hint
    if get_origin(hint) is Sequence:
        return tuple[str, ...] if str in get_args(get_args(hint)[0]) else None
    return hint if hint in _SCALARS else None


def documentation(cls: type) -> dict[str, str]:
    """The docstring of each field of a dataclass, with those of its base classes."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except OSError:  # a class that with_options has made: from Python 3.13 on it has no source, and needs none
            continue
        assert isinstance(definition, ast.ClassDef)
        for declared, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(declared, ast.AnnAssign) and isinstance(text, ast.Expr):
                name, words = declared.target, text.value
                if isinstance(name, ast.Name) and isinstance(words, ast.Constant) and isinstance(words.value, str):
                    found[name.id] = " ".join(words.value.split())
    return found
