"""Command lines: typed settings in, one clear line and exit status 2 for what the user can mend."""

import io
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Never, TypeVar

from pyrovae.errors import InputError, out_of_memory

T = TypeVar("T")


def run(main: Callable[[T], None], settings: type[T], arguments: Sequence[str] | None = None) -> None:
    """Parse the command line into ``settings`` and call ``main`` with it; see :func:`errors_in_one_line`."""
    with errors_in_one_line():
        main(parse(settings, arguments))


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn bad input, the system's errors and a lack of memory into one line and exit status 2; warnings into a line.

    Any other exception is a bug, and keeps its traceback and exit status 1.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            yield
        except InputError as error:
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
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not end this in a traceback
            print("interrupted", file=sys.stderr)
            sys.exit(130)


def parse(settings: type[T], arguments: Sequence[str] | None = None) -> T:
    """The settings that a command line describes."""
    import tyro

    arguments = sys.argv[1:] if arguments is None else arguments
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


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def fail(message: str) -> Never:
    """Print one line to standard error and leave with status 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
