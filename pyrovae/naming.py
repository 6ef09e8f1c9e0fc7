"""Parts of a comparison by name."""

from collections.abc import Mapping, Sequence
from typing import Any


def named_parts(kind: str, parts: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Parts by name; those given alone are named after their class.

    Raises:
        TypeError: names instead of parts, or a part that is not in a sequence.
        ValueError: none, or two of one name.
    """
    if callable(parts):
        raise TypeError(f"the {kind} must be a sequence such as [{getattr(parts, '__name__', parts)}], not one alone")
    if isinstance(parts, str) or (not isinstance(parts, Mapping) and any(isinstance(part, str) for part in parts)):
        raise TypeError(f"the {kind} must be classes or instances, not the names {parts!r}")
    if not isinstance(parts, Mapping):
        names = [getattr(part, "__name__", type(part).__name__) for part in parts]
        if len(set(names)) < len(names):
            raise ValueError(f"two of the {kind} are called alike ({', '.join(names)}); give a mapping with names")
        parts = dict(zip(names, parts, strict=True))
    if not parts:
        raise ValueError(f"give at least one of the {kind}")
    return dict(parts)
