"""What a subcommand says about the data that it read."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pyrovae.comparison.study import FileSettings
from pyrovae.datasets import Spectra
from pyrovae.errors import visible
from pyrovae.progress import reports

Summary = dict[str, object]
"""The result of a subcommand as plain values; ``"text"`` is what it prints without --json."""


@dataclass
class ReadLine:
    """Says what was read at once, or keeps it for the one line of JSON.

    Attributes:
        quiet: whether to keep it.
        said: what was read and what was guessed.
    """

    quiet: bool
    said: dict[str, object] = field(default_factory=dict)

    def __call__(self, data: Spectra) -> None:
        """Take note of data that were read."""
        if data.reading is None:  # simulated
            return
        lines = data.reading.lines(on_console=True)
        self.said = {"read": lines[0], "guessed": [line.removeprefix("guessed: ") for line in lines[1:]]}
        if not self.quiet and reports():
            print(visible("\n".join(lines)), flush=True)

    def summary(self) -> Summary:
        """The result of a dry run: what was read."""
        return {**self.said, "text": "nothing was written (--dry-run)"}


def dry_run(settings: FileSettings, quiet: bool) -> Summary:
    """Say what is read from a file, and do no more."""
    said = ReadLine(quiet)
    said(settings.read())
    return said.summary()


@contextmanager
def resuming(out: Path) -> Iterator[None]:
    """Let Ctrl-C name the command that continues the run in this folder, once the run has begun."""
    try:
        yield
    except KeyboardInterrupt:
        begun = (out / "config.json").exists()
        raise KeyboardInterrupt(f"; to resume: pyrovae resume {shlex.quote(str(out))}" if begun else "") from None
