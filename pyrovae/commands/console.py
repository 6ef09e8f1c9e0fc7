"""Command lines: typed settings in, one clear line and exit status 2 for what the user can mend."""

import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Never, TypeVar

from pyrovae.errors import InputError, LostProcessError, Message, out_of_memory, visible
from pyrovae.progress import reports

T = TypeVar("T")

_ASKING = {"-h", "--help", "--help-all"}


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
        except LostProcessError as error:
            fail(error.on_console)
        except InputError as error:
            if not reports(on_each_machine=True):  # the first process of this machine says the same
                sys.exit(2)
            fail(error.on_console)
        except OSError as error:
            known = error.strerror is not None and error.filename is not None
            fail(f"{error.filename}: {error.strerror}" if known else str(error))
        except (MemoryError, RuntimeError) as error:
            reason = out_of_memory(error)
            if reason is None:
                raise
            fail(reason)
        except KeyboardInterrupt as stop:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not end this in a traceback
            print(visible(f"interrupted{stop}"), file=sys.stderr)
            sys.exit(130)


def parse(settings: type[T], arguments: Sequence[str] | None = None, prog: str | None = None) -> T:
    """The settings that a command line describes; ``--help`` prints the usual options, ``--help-all`` all of them."""
    import tyro

    config = (tyro.conf.FlagCreatePairsOff,)  # --flag or --no-flag: only the one that changes the default
    arguments = [_at_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    prog = prog or (f"python -m {spec.name.removesuffix('.__main__')}" if spec else None)
    message = io.StringIO()
    try:
        if _ASKING & set(arguments):
            from pyrovae.commands._help import with_help

            brief = arguments[0] not in _ASKING and "--help-all" not in arguments
            arguments = ["--help" if word == "--help-all" else word for word in arguments]
            tyro.cli(with_help(settings, brief), args=arguments, prog=prog, config=config)
        with redirect_stderr(message), redirect_stdout(message):
            return tyro.cli(settings, args=arguments, prog=prog, config=config)
    except SystemExit as stop:
        if not stop.code:
            raise
        fail(_in_one_line(message.getvalue()) or "the arguments cannot be read; try --help")


def _at_home(word: str) -> str:
    """An argument such as ``--out=~/scores.csv``, in which no shell replaces the home folder."""
    option, path = re.fullmatch(r"(--[\w-]+=|)(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    return option + os.path.expanduser(path) if path.startswith("~/") else word


def _in_one_line(box: str) -> str:
    """Reduce tyro's box of several lines to one line: no title, no class, no advice except the nearest option."""
    words = " ".join(re.sub(r"-{4,}", " ", box.translate(dict.fromkeys(map(ord, "╭╮╰╯│─"), " "))).split())
    words = re.sub(r" *(Argument helptext:|For full helptext).*", "", words)
    words = re.sub(r" Perhaps you meant: (--[\w-]+).*", r" (did you mean \1?)", words)
    words = re.sub(r"^(Parsing error|Value error|Invalid choice|Unrecognized options(?= Unr)) ", "", words)
    return re.sub(r"^Error parsing [A-Z]\w*: ", "", words).strip()


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    if not reports():
        return
    text = message.on_console if isinstance(message, Message) else str(message)
    print(visible(f"warning: {' '.join(text.split())}"), file=sys.stderr)


def fail(message: str) -> Never:
    """Print one line to standard error and exit with status 2."""
    print(visible(f"error: {' '.join(message.split())}"), file=sys.stderr)
    sys.exit(2)
