"""Command lines: typed settings in, one clear line and exit status 2 where they cannot be used."""

import difflib
import io
import re
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, TypeVar

import tyro

from pyrovae.errors import InputError, out_of_memory
from pyrovae.training import NonFiniteLossError

T = TypeVar("T")


def run(main: Callable[[T], None], settings: type[T], arguments: Sequence[str] | None = None) -> None:
    """Parse the command line into ``settings``, call ``main`` with it, and turn bad input into one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            main(_parse(settings, arguments))
        except (ValueError, TypeError, ImportError, NonFiniteLossError) as error:
            fail(str(error))
        except OSError as error:
            known = error.strerror is not None and error.filename is not None
            fail(f"{error.filename}: {error.strerror}" if known else str(error))
        except (MemoryError, RuntimeError) as error:
            reason = out_of_memory(error)
            if reason is None:
                raise
            fail(reason)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more must not end this in a traceback
            print("interrupted", file=sys.stderr)
            sys.exit(130)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _parse(settings: type[T], arguments: Sequence[str]) -> T:
    message = io.StringIO()
    try:
        if "--help" in arguments or "-h" in arguments:
            return tyro.cli(settings, args=arguments)
        with redirect_stderr(message), redirect_stdout(message):
            return tyro.cli(settings, args=arguments)
    except SystemExit as stop:
        if not stop.code:
            raise
        # tyro draws a box of several lines; its words fit into one
        words = " ".join(message.getvalue().translate(dict.fromkeys(map(ord, "╭╮╰╯│─"), " ")).split())
        words = " ".join(re.sub(r"-{4,}", " ", words).split())
        fail(words.removeprefix("Parsing error").strip() or "the arguments cannot be read; try --help")
        raise


def fail(message: str) -> None:
    """Print one line to standard error and leave with status 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def pick(option: str, names: Sequence[str], choices: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of these names.

    Raises:
        InputError: one of them is unknown; says which are known and which was probably meant.
    """
    if not names:
        raise InputError(f"{option} needs at least one of {', '.join(choices)}")
    for name in names:
        if name not in choices:
            near = difflib.get_close_matches(name, choices, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"{option}: unknown name {name!r}{hint} (known are {', '.join(choices)})")
    return {name: choices[name] for name in names}
