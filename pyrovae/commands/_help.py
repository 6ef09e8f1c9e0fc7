"""Help of one screen: the options that most people need by ``--help``, all of them by ``--help-all``."""

from dataclasses import MISSING, Field, field, fields, make_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from pyrovae.commands._options import documentation

_PLACEHOLDERS: dict[object, str] = {int: "N", float: "X", str: "WORD"}


def with_help(command: Any, brief: bool) -> Any:
    """The dataclass, or each of a union of subcommands, with short placeholders and no empty defaults.

    Args:
        command: the dataclass. Its class variable ``COMMON``, if it has one, names the options of the brief help.
        brief: hide the options that ``COMMON`` does not name.
    """
    if get_origin(command) in (Union, UnionType):
        parts = (Annotated[with_help(part, brief), *extra] for part, *extra in map(get_args, get_args(command)))
        return Union[tuple(parts)]  # noqa: UP007
    hints, words = get_type_hints(command, include_extras=True), documentation(command)
    common = getattr(command, "COMMON", None) if brief else None
    shown = []
    for f in fields(command):
        extra: list[Any] = [_argument(f, hints[f.name], words)]
        if common is not None and f.name not in common and not _is_positional(hints[f.name]):
            extra.append(tyro.conf.Suppress)
        shown.append((f.name, Annotated[hints[f.name], *extra], field(default=f.default, kw_only=f.kw_only)))
    made = make_dataclass(command.__name__, shown, bases=(command,), frozen=command.__dataclass_params__.frozen)
    more = "" if common is None else "\n\nThese are the usual options; --help-all lists all of them."
    made.__doc__, made.__module__ = f"{command.__doc__}{more}", command.__module__
    return made


def _argument(f: "Field[Any]", hint: object, words: dict[str, str]) -> object:
    """Show a field in the help."""
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    given: dict[str, str] = (
        {} if plain is bool else {"metavar": f.name.upper() if _is_positional(hint) else _placeholder(plain)}
    )
    if any(f.default is nothing for nothing in (None, (), "", False, True, MISSING)):  # the text says what happens then
        given["help_behavior_hint"] = ""
    return tyro.conf.arg(help=words.get(f.name), **given)  # type: ignore[call-overload]


def _is_positional(hint: object) -> bool:
    return tyro.conf.Positional in getattr(hint, "__metadata__", ())


def _placeholder(hint: object) -> str:
    """The placeholder of a value: N, X, WORD, PATH, the choices, or several of these.

    Example:
        >>> _placeholder(tuple[str, ...] | None), _placeholder(Literal["rows", "columns"] | None)
        ('WORD...', 'rows|columns')
    """
    origin = get_origin(hint)
    if origin is Literal:
        return "|".join(map(str, get_args(hint)))
    if origin in (Union, UnionType):
        return "|".join(_placeholder(part) for part in get_args(hint) if part is not NoneType)
    if origin is tuple:
        return f"{_placeholder(get_args(hint)[0])}..."
    return _PLACEHOLDERS.get(hint, "PATH")
